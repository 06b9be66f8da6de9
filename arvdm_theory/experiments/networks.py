"""What experiments with networks share: the networks, each trained once and kept, rollouts and their KL, tables.

A description (:class:`Job`) holds the video, the plan, the network and the training. Its digest names the folder
that the weights lie in, so an interrupted run goes on where it stopped and two experiments in one folder share
what they both need. The same descriptions build the full-size networks of the gpu presets.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from arvdm_theory.decomposition.finite import FiniteLedger, estimate
from arvdm_theory.decomposition.ledger import Ledger
from arvdm_theory.diffusion.finite_score import ExactFiniteScore
from arvdm_theory.diffusion.generate import generate
from arvdm_theory.experiments.record import Cell, run_cells
from arvdm_theory.experiments.videos import Video
from arvdm_theory.information.estimators.estimate import Estimate
from arvdm_theory.information.gaussian import condition
from arvdm_theory.interfaces import ReferenceBatch, Score, VideoSource
from arvdm_theory.laws.chains import FiniteStateVideo
from arvdm_theory.laws.gaussian import GaussianVideo, State
from arvdm_theory.laws.gridworld.world import GridVideo
from arvdm_theory.networks.denoiser import Architecture, Denoiser, DenoiserConfig
from arvdm_theory.networks.linear import linear_config
from arvdm_theory.plan.plan import Plan
from arvdm_theory.rollout.decoded import decoded_kl
from arvdm_theory.rollout.measure import divergence_from_known
from arvdm_theory.training.config import TrainingConfig
from arvdm_theory.training.loop import train
from arvdm_theory.training.sources import data_moments, dataset_source, finite_source, gaussian_source, grid_source

__all__ = [
    "ExactGaussianScore",
    "Job",
    "Network",
    "Preset",
    "Setting",
    "clip_frames",
    "exact_score",
    "frames_kl",
    "path_terms",
    "source_of",
    "total",
    "train_job",
]


@dataclass(frozen=True)
class Setting:
    """What a run of an experiment is told.

    Attributes:
        preset: smoke, cpu or gpu.
        folder: where tables and weights go.
        seed: of weights, data and rollouts.
        device: auto, cuda, mps or cpu.
        progress: whether to show progress bars.
    """

    preset: str
    folder: Path
    seed: int = 0
    device: str = "auto"
    progress: bool = True

    def table(
        self, name: str, cells: Sequence[Cell], rows: Callable[[Cell], Any], columns: list[str] | None = None
    ) -> pd.DataFrame:
        """The table of an experiment, cell by cell: see :func:`~arvdm_theory.experiments.record.run_cells`.

        Args:
            name: of the table.
            cells: one config a cell.
            rows: config → what a data frame is made of.
            columns: their names.
        """

        # A cell's source is that of the function which says what is in it.
        @wraps(rows)
        def compute(cell: Cell) -> pd.DataFrame:
            return pd.DataFrame(rows(cell), columns=columns)

        return run_cells(name, cells, compute, self.folder, self.seed, self.progress)

    def generate(
        self, score: Score, plan: Plan, ar_steps: int, videos: int, frame_dim: int, **options: Any
    ) -> Tensor:
        """A rollout, (videos, F, d), of the run's seed: see :func:`~arvdm_theory.diffusion.generate.generate`."""
        return generate(
            score, plan, ar_steps, videos, frame_dim, **{"seed": self.seed, "progress": self.progress} | options
        )


@dataclass(frozen=True)
class Network:
    """A network's shape, apart from the video and plan it is for.

    Attributes:
        architecture: linear, mlp, transformer or unet.
        prediction: x0, epsilon or v; the linear one predicts x0.
        options: the architecture's own.
    """

    architecture: Architecture = "mlp"
    prediction: str = "v"
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Preset:
    """How large a run of an experiment is.

    Attributes:
        network: what is trained.
        training: for how long, and how.
        rollouts: generated videos a measurement.
        samples: true videos an average.
        ar_steps: K, AR steps of a rollout.
        reverse_steps: M.
        note: the machine, memory and time it is meant for.
        options: the experiment's own.
    """

    network: Network
    training: TrainingConfig
    rollouts: int
    samples: int
    ar_steps: int
    reverse_steps: int
    note: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """One network to train.

    Attributes:
        video: the law, or a grid world.
        plan: the plan whose windows it is trained on.
        network: its shape.
        training: how; the seed and the device are the run's.
        videos: the size of a fixed training set; None: every batch is fresh.
        absolute: whether the network is told absolute positions, for videos that are not stationary.
    """

    video: Video | GridVideo
    plan: Plan
    network: Network
    training: TrainingConfig
    videos: int | None = None
    absolute: bool = False

    @property
    def law(self) -> Video:
        """The video, of which the ledger is known."""
        assert not isinstance(self.video, GridVideo)
        return self.video

    @property
    def frames(self) -> int:
        """Frames of the video that its windows reach."""
        return self.plan.total_frames(self.training.ar_steps)

    def config(self) -> DenoiserConfig:
        """The denoiser's config, scaled to the video."""
        source = source_of(self.video)
        mean, scale = data_moments(source, self.frames)
        ar_steps, plan = self.training.ar_steps, self.plan
        if self.network.architecture == "linear":
            return linear_config(plan, ar_steps, source.frame_shape, mean, scale, self.absolute)
        options = dict(self.network.options)
        if self.absolute:
            options["absolute"] = True
        return DenoiserConfig(
            self.network.architecture,
            source.frame_shape,
            plan.window,
            references=max(len(plan.references_at(k)) for k in range(1, ar_steps + 1)),
            action_dim=source.action_dim,
            prediction=self.network.prediction,  # type: ignore[arg-type]
            data_mean=mean,
            data_scale=scale,
            options=options,
        )

    def training_source(self, seed: int) -> VideoSource:
        """Where its batches come from: the law itself, or a set of ``videos`` videos drawn from it."""
        source = source_of(self.video)
        if self.videos is None:
            return source
        drawn = source.draw(self.videos, self.frames, torch.Generator().manual_seed(seed + 1))
        return dataset_source(drawn.frames, drawn.actions, source.frame_shape, random_start=False)

    def digest(self, seed: int) -> str:
        """A name for the weights: another one for every other network, plan, video or training."""
        plan = {name: value for name, value in dataclasses.asdict(self.plan).items() if name != "name"}
        # Two videos of one name are told apart by what they show.
        sample = source_of(self.video).draw(4, self.frames, torch.Generator().manual_seed(0)).frames.flatten()
        shown = [f"{value:.5g}" for value in (float(sample.mean()), float(sample.std()), *sample[:4].tolist())]
        told = [self.config().to_json(), plan, self.training.to_json(), self.video_name, shown, self.videos, seed]
        return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:16]

    @property
    def video_name(self) -> str:
        """The video's own name."""
        return self.video.world.name if isinstance(self.video, GridVideo) else self.video.name


def source_of(video: Video | GridVideo) -> VideoSource:
    """Videos of a known law, to train on."""
    if isinstance(video, GridVideo):
        return grid_source(video)
    return finite_source(video) if isinstance(video, FiniteStateVideo) else gaussian_source(video)


def train_job(job: Job, setting: Setting) -> Denoiser:
    """The trained network (its averaged weights): read back if the run has it, trained or gone on with if not."""
    training = dataclasses.replace(job.training, seed=setting.seed, device=setting.device)  # type: ignore[arg-type]
    folder = setting.folder / "weights" / job.digest(setting.seed)
    trained = train(
        job.config(), job.plan, job.training_source(setting.seed), training, folder, progress=setting.progress
    )
    return trained.denoiser


def exact_score(video: Video) -> Score:
    """What a perfect network would say."""
    return ExactFiniteScore(video) if isinstance(video, FiniteStateVideo) else ExactGaussianScore(video)


def frames_kl(video: Video, plan: Plan, generated: Tensor, frames: Sequence[int]) -> Estimate:
    """KL of some frames from the true law to a rollout, in nats.

    Of a Gaussian video to the Gaussian with the rollout's moments; of a finite-state one of what is read in them.

    Args:
        video: the truth.
        plan: says at which level clean frames stand.
        generated: (n, F, d).
        frames: which, rising.
    """
    if isinstance(video, FiniteStateVideo):
        return decoded_kl(video, generated, tuple(frames), plan.floor)
    mean, covariance = video.joint([State(frame, plan.floor) for frame in frames])
    return divergence_from_known(mean[0], covariance[0], generated[:, list(frames)].flatten(1).numpy())


def clip_frames(plan: Plan, k: int) -> range:
    """The clean frames that AR step k puts out."""
    return range(plan.clean_frames(k) - plan.stride, plan.clean_frames(k))


def total(result: Ledger | FiniteLedger, name: str) -> tuple[float, float]:
    """A total that is known, and its standard error."""
    value = result.totals[name]
    assert value is not None  # every step adds noise, and nothing was left out that is asked for here
    return value, result.stderr.get(name, 0.0)


def path_terms(result: Ledger | FiniteLedger) -> dict[str, tuple[float, float]]:
    """The sums of path terms and their errors: ``ie`` of the initialisation, a bound of IE, and ``ar``."""
    if isinstance(result, FiniteLedger):
        return {"ie": estimate(result.terms.init_path), "ar": estimate(result.terms.ar_path.sum(-1))}
    sums = {"ie": ("nie_init", "path_init"), "ar": ("nie_ar", "de", "see", "cross")}
    terms = {name: [total(result, term) for term in names] for name, names in sums.items()}
    # The fit's errors in SEE and CROSS come from the same videos: their sum bounds that of both.
    return {name: (sum(value for value, _ in of), sum(error for _, error in of)) for name, of in terms.items()}


@dataclass(frozen=True, eq=False)
class ExactGaussianScore:
    """s*(W, R) = ∇_W log p(W | R) of a Gaussian video, from the joint covariance of the states it is shown.

    Attributes:
        video: its true law, of one mode.
    """

    video: GaussianVideo

    def __call__(self, window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
        """See :class:`arvdm_theory.interfaces.Score`."""
        entries = window[0].numel()
        states = [
            State(frame, float(level))
            for frames, at in ((references.window_frames, levels), (references.frames, references.levels))
            for frame, level in zip(frames, at, strict=True)
        ]
        mean, covariance = (part[0] for part in self.video.joint(states))
        gain, residual = condition(covariance, range(entries), range(entries, len(mean)))
        shift = (references.values.flatten(1) - mean[entries:]) @ gain.mT
        rest = window.flatten(1) - mean[:entries] - shift
        return -torch.cholesky_solve(rest.mT, torch.linalg.cholesky(residual)).mT.reshape(window.shape)
