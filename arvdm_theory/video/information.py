"""The information in a memory on generated frames, in nats: two networks' losses on clips that neither saw.

Of two networks with the same levels one is shown references R, say a short context, and the other R' ⊇ R, say the
context and a memory. With window frames at level s in place of clean ones, which bytes do not have,

    I(Out^s; R' | In^s) = MB(R) - MB(R')

is estimated by the I-MMSE relation along the plan's clocks (:mod:`arvdm_theory.decomposition.immse`): what the
network without the memory must do without. Networks are not exact, so the value is that information plus half the
integral of the difference of their excess losses: it is too low where the larger network has learned less of what
it could, and it may be negative.

Source: arXiv 2503.10704, section 4.2 (the memory bottleneck); Guo, Shamai and Verdú 2005 (I-MMSE).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from arvdm_theory.decomposition.immse import memory_bottleneck_from_scores
from arvdm_theory.decomposition.score_gap import ScoreGap
from arvdm_theory.information.estimators import SampleError
from arvdm_theory.interfaces import Score, VideoBatch
from arvdm_theory.networks.denoiser import Denoiser
from arvdm_theory.number import Number
from arvdm_theory.plan.plan import Plan
from arvdm_theory.video.runs import VideoRun
from arvdm_theory.video.windows import WindowSource, find_windows

__all__ = ["CLIPS", "STOP", "MemoryInformation", "information_of_runs", "memory_information"]

CLIPS, STOP = 200, 0.1
"""True windows, and the level of what is asked about, unless others are given.

Far below that level a small network errs by no less than the noise that it is to remove, and the gap of two losses
tells of the networks, not of the memory.
"""


@dataclass(frozen=True)
class MemoryInformation:
    """The information that a memory has about the window of one AR step.

    Attributes:
        window: the information about the whole window, in nats; ``n`` counts clips.
        frames: Δ, the frames that the step puts out.
        clusters: how many clusters the clips come from; with fewer than two there is no standard error.
        stop: s, the level of the window frames.
    """

    window: Number
    frames: int
    clusters: int
    stop: float

    @property
    def per_frame(self) -> Number:
        """Nats a generated frame: the whole over the Δ frames that the step puts out."""
        return self.window * (1 / self.frames)


def memory_information(
    score: Score,
    plan: Plan,
    score_with_past: Score,
    plan_with_past: Plan,
    clips: VideoBatch,
    ar_step: int,
    *,
    stop: float = STOP,
    form: ScoreGap = "losses",
    points: int = 3,
    batch: int = 64,
    clusters: Sequence[int] | Sequence[str] | None = None,
    seed: int = 0,
    progress: bool = False,
) -> MemoryInformation:
    """I(Out^s; R'_k | In^s) of AR step k = ``ar_step`` on true clips, given the actions of R and the window.

    Actions of frames that the smaller memory lacks are a part of what the larger one tells. All given frames are
    true ones: nothing is generated.

    Args:
        score: of the network with fewer references, as ``Denoiser.as_score`` gives it.
        plan: its plan.
        score_with_past: of the network with more references.
        plan_with_past: its plan: the same levels, and all references of ``plan``.
        clips: frames (n, N, d) and actions (n, N, a) or None, N as many as the step touches or more.
        ar_step: k.
        stop: s. 0.1 is noise of a standard deviation of 0.31, on a scale from black at -1 to white at 1.
        form: see :func:`arvdm_theory.decomposition.immse.memory_bottleneck_from_scores`.
        points: Gauss-Legendre nodes a reverse step, each a call of both networks: fewer do where steps are many.
        batch: clips at once.
        clusters: the episode of each clip, (n,): episodes are the independent draws, with Student's interval
            (:meth:`arvdm_theory.number.Number.clustered`). None: every clip is.
        seed: of the noise.
        progress: whether to show a progress bar.

    Raises:
        SampleError: unless there is one cluster label a clip, and as
            :func:`arvdm_theory.decomposition.immse.memory_bottleneck_from_scores`.
    """
    clips_given = len(clips.frames)
    labels = range(clips_given) if clusters is None else clusters
    if len(labels) != clips_given:
        raise SampleError(f"one cluster label a clip is needed, got {len(labels)} for {clips_given} clips")
    window = memory_bottleneck_from_scores(
        clips.frames, plan, ar_step, score, score_with_past, form=form, points=points, batch=batch, seed=seed,
        progress=progress, actions=clips.actions, plan_with_past=plan_with_past, stop=stop,
        clusters=[str(label) for label in labels],
    )  # fmt: skip
    return MemoryInformation(window, plan.stride, len(set(labels)), stop)


def information_of_runs(
    run: VideoRun,
    network: Denoiser,
    without: VideoRun,
    network_without: Denoiser,
    store: Path,
    *,
    clips: int = CLIPS,
    stop: float = STOP,
    points: int = 2,
    progress: bool = True,
) -> MemoryInformation:
    """The information that one trained network's memory has beyond another's, over windows of the test episodes.

    Args:
        run: the one with more memory.
        network: as it was trained.
        without: the one with less, or none, of the same plan and windows.
        network_without: as it was trained.
        store: folder of the data.
        clips: how many windows.
        stop: s, as in :func:`memory_information`.
        points: nodes a reverse step; 2 err by some tenths of a per cent over 16 steps.
        progress: whether to show progress bars.

    Raises:
        SampleError: if the second is not shown a part of what the first is, in the same plan.
        ValueError: if the data cannot be had, or the two runs are of other data.
    """
    same = ("data", "settings", "folder", "leads_to", "told")
    for name in same:
        if getattr(run, name) != getattr(without, name):
            raise SampleError(
                f"both runs must be on the same videos, conditioned on the same, but their {name} differ"
            )
    plan = run.windows
    if plan.prompt != without.windows.prompt:
        raise SampleError(
            f"both runs must be given as many frames, not {plan.prompt} and {without.windows.prompt}"
        )
    episodes = run.episodes.load("test", store, progress)
    source = WindowSource(find_windows(episodes, plan, 0, run.settings.skip))
    chosen = np.random.default_rng(0).permutation(len(source.windows))[:clips]
    return memory_information(
        network_without.as_score(64), without.windows.plan, network.as_score(64), plan.plan,
        source.take(chosen.tolist()), plan.first, stop=stop, points=points,
        clusters=source.windows.episode[chosen].tolist(), progress=progress,
    )  # fmt: skip
