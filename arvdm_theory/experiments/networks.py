"""What experiments with networks share: the networks, each trained once and kept, rollouts, tables.

A description (:class:`Job`) holds the video, the plan, the network and the training. Its digest names the folder
that the weights lie in, so an interrupted run goes on where it stopped and two experiments in one folder share
what they both need. The same descriptions build the full-size networks of the gpu presets.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, Generic, TypeVar

import pandas as pd
import torch
from torch import Tensor

from arvdm_theory.diffusion.sampler import generate
from arvdm_theory.experiments.record import Cell, run_cells
from arvdm_theory.interfaces import VideoSource
from arvdm_theory.laws.gridworld.video import GridVideo
from arvdm_theory.laws.law import VideoLaw
from arvdm_theory.networks.config import Architecture, DenoiserConfig
from arvdm_theory.networks.denoiser import Denoiser
from arvdm_theory.networks.linear import linear_config
from arvdm_theory.number import Number
from arvdm_theory.plan.plan import Plan
from arvdm_theory.training.config import TrainingConfig
from arvdm_theory.training.loop import train
from arvdm_theory.training.sources import data_moments, dataset_source

__all__ = ["Job", "Network", "Preset", "Setting", "train_job"]

Known = TypeVar("Known", bound=VideoLaw | GridVideo, covariant=True)


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
        self,
        name: str,
        cells: Sequence[Cell],
        rows: Callable[[Cell], pd.DataFrame | Iterable[tuple[Any, ...]]],
        columns: list[str] | None = None,
    ) -> pd.DataFrame:
        """The table of an experiment, cell by cell: see :func:`~arvdm_theory.experiments.record.run_cells`.

        Args:
            name: of the table.
            cells: one config a cell.
            rows: config → a data frame, or its rows; a Number fills two columns, value and standard error.
            columns: their names.
        """

        # A cell's source is that of the function which says what is in it.
        @wraps(rows)
        def compute(cell: Cell) -> pd.DataFrame:
            made = rows(cell)
            if isinstance(made, pd.DataFrame):
                return made
            return pd.DataFrame([_flat(row) for row in made], columns=columns)

        return run_cells(name, cells, compute, self.folder, self.seed, self.progress)

    def generate(self, score: Any, plan: Plan, ar_steps: int, videos: int, **options: Any) -> Tensor:
        """A rollout, (videos, F, d), of the run's seed: see :func:`~arvdm_theory.diffusion.sampler.generate`."""
        return generate(score, plan, ar_steps, videos, **{"seed": self.seed, "progress": self.progress} | options)


def _flat(row: Iterable[Any]) -> list[Any]:
    parts = ([float(each), float(each.stderr)] if isinstance(each, Number) else [each] for each in row)
    return list(itertools.chain.from_iterable(parts))


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
class Job(Generic[Known]):
    """One network to train.

    Attributes:
        video: the law, or a grid world.
        plan: the plan whose windows it is trained on.
        network: its shape.
        training: how; the seed and the device are the run's.
        videos: the size of a fixed training set; None: every batch is fresh.
        absolute: whether the network is told absolute positions, for videos that are not stationary.
    """

    video: Known
    plan: Plan
    network: Network
    training: TrainingConfig
    videos: int | None = None
    absolute: bool = False

    @property
    def frames(self) -> int:
        """Frames of the video that its windows reach."""
        return self.plan.total_frames(self.training.ar_steps)

    def config(self) -> DenoiserConfig:
        """The denoiser's config, scaled to the video."""
        source = self.video
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
        if self.videos is None:
            return self.video
        drawn = self.video.draw(self.videos, self.frames, torch.Generator().manual_seed(seed + 1))
        return dataset_source(drawn.frames, drawn.actions, self.video.frame_shape, random_start=False)

    def digest(self, seed: int) -> str:
        """A name for the weights: another one for every other network, plan, video or training."""
        plan = {name: value for name, value in dataclasses.asdict(self.plan).items() if name != "name"}
        # Two videos of one name are told apart by what they show.
        sample = self.video.draw(4, self.frames, torch.Generator().manual_seed(0)).frames.flatten()
        shown = [f"{value:.5g}" for value in (float(sample.mean()), float(sample.std()), *sample[:4].tolist())]
        told = [self.config().to_json(), plan, self.training.to_json(), self.video.name, shown, self.videos, seed]
        return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:16]


def train_job(job: Job[Any], setting: Setting) -> Denoiser:
    """The trained network (its averaged weights): read back if the run has it, trained or gone on with if not."""
    training = dataclasses.replace(job.training, seed=setting.seed, device=setting.device)  # type: ignore[arg-type]
    folder = setting.folder / "weights" / job.digest(setting.seed)
    trained = train(
        job.config(), job.plan, job.training_source(setting.seed), training, folder, progress=setting.progress
    )
    return trained.denoiser
