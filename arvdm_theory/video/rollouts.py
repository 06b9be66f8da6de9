"""Long rollouts of a trained network: how quality decays with the rollout index, measured and predicted.

A rollout starts from true frames and goes on until what the network remembers is its own work. Episodes are the
test worlds, walked for longer. Predictions see teacher-forced outputs alone
(:mod:`arvdm_theory.video.degradation`): one AR step on given frames, of windows all over the same episodes.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from arvdm_theory.data.clips import to_unit
from arvdm_theory.networks.denoiser import Denoiser
from arvdm_theory.number import Number
from arvdm_theory.training.checkpoint import load_denoiser
from arvdm_theory.training.windows import HISTORY_LEVEL
from arvdm_theory.video.degradation import (
    error_gain,
    leading_components,
    predicted_by_gain,
    predicted_degradation,
    step_response,
)
from arvdm_theory.video.intervals import interval_columns
from arvdm_theory.video.memory_plans import MemoryPlan, PlanKind
from arvdm_theory.video.metrics import decibel, mean_squared_error, psnr, ssim
from arvdm_theory.video.retrieval import SOURCES
from arvdm_theory.video.runs import VideoRun, run_store
from arvdm_theory.video.samples import Samples, continue_clips, one_an_episode, sample_run
from arvdm_theory.video.windows import WindowSource, find_windows

__all__ = [
    "COMPONENTS",
    "ON_TRUE_FRAMES",
    "PROXIES",
    "TEACHER_FORCED",
    "Way",
    "decay_table",
    "on_true_frames",
    "predict_decay",
    "roll_out_folder",
    "rollout_plan",
    "rollout_source",
]

COMPONENTS = 16
"""q, the principal components of frames in which errors are followed."""

ON_TRUE_FRAMES = "generated from true frames"
"""The source of frames that were made from true ones alone, see :func:`on_true_frames`."""

PROXIES = ("linear_response", "error_gain", "constant")
"""Predictions of a decay, see :func:`predict_decay`."""

TEACHER_FORCED = 200
"""Windows that a prediction is made from."""


@dataclass(frozen=True)
class Way:
    """How a trained network is sampled.

    Attributes:
        kind: of the plan; None for that of the training.
        noise: levels that shown frames are noised to, see :class:`~arvdm_theory.video.memory_plans.MemoryPlan`.
        guidance: ω of history guidance.
    """

    kind: PlanKind | None = None
    noise: tuple[float, ...] = ()
    guidance: float = 1.0

    def untrained(self, run: VideoRun) -> str | None:
        """What of it the network was not trained for, in words; None where it was.

        Levels that are drawn for every frame by itself (``independent``, ``history``) cover every plan's; noised
        or missing frames to remember are seen in training with ``history`` alone.
        """
        levels = run.settings.training.levels
        if self.kind not in (None, run.plan) and levels not in ("independent", "history"):
            return f"the network was trained on the levels of {run.plan} alone, not on those of {self.kind}"
        if self.noise and max(self.noise) > (HISTORY_LEVEL if levels == "history" else 0.0):
            seen = f"up to level {HISTORY_LEVEL:g}" if levels == "history" else "clean"
            return f"the network was shown remembered frames {seen} in training, not at level {max(self.noise):g}"
        if self.guidance != 1 and levels != "history":
            return "history guidance asks a network without its references, which this one never was in training"
        return None


_AS_TRAINED = Way()


def rollout_plan(run: VideoRun, way: Way = _AS_TRAINED) -> MemoryPlan:
    """The plan of a run, with as many frames to generate as its preset's long rollouts have, or another way's."""
    return run.windows_of(way.kind or run.plan, run.settings.rollout[0], way.noise)


def rollout_source(run: VideoRun, store: Path, progress: bool = True, way: Way = _AS_TRAINED) -> WindowSource:
    """Windows as long as a rollout, of test worlds that are walked for longer, and maybe in another way.

    Raises:
        ValueError: if the episodes cannot be had, or those of a folder are too short.
    """
    plan, skip = rollout_plan(run, way), run.settings.skip
    need = (plan.total_frames - 1) * skip + 1
    episodes = run.episodes
    walk = run.settings.rollout_trajectory or episodes.trajectory
    longer = dataclasses.replace(walk, frames=max(need, episodes.trajectory.frames))
    episodes = dataclasses.replace(episodes, trajectory=longer, train=0, test=run.settings.rollout[1])
    return WindowSource(find_windows(episodes.load("test", store, progress), plan, 0, skip))


def on_true_frames(
    run: VideoRun, denoiser: Denoiser, source: WindowSource, samples: Samples, progress: bool = True,
    guidance: float = 1.0,
) -> NDArray[np.uint8]:  # fmt: skip
    """What a network makes of every place of a rollout when all that it is shown are true frames.

    Each AR step starts anew from the true frames before it: nothing generated is handed on, and a network that
    errs more and more along these steps meets what it was not trained for, not its own errors.

    Args:
        run: what the network was trained for.
        denoiser: the network.
        source: of rollouts.
        samples: rollouts, made from the same source.
        progress: whether to show a progress bar.
        guidance: as the rollouts had it.

    Returns:
        the frames after the given ones, shape (videos, frames, height, width, channels).
    """
    long, chosen = source.plan, source.numbers(samples.windows)
    step = dataclasses.replace(long, generated=long.plan.stride)
    made = []
    for later in tqdm(
        range(0, long.generated, step.generated), "on true frames", disable=not progress or None, leave=False
    ):
        clips = source.take(chosen, step.total_frames, later)
        told = source.told(chosen, run.windows.origin, step.total_frames, later)
        frames = continue_clips(run, denoiser, step, clips, progress=False, told=told, guidance=guidance)
        frames = frames[:, step.prompt : step.prompt + step.generated]
        made.append(torch.round((frames.clamp(-1, 1) + 1) * 127.5).to(torch.uint8))
    return torch.cat(made, 1).reshape(len(chosen), long.generated, *source.frame_shape).numpy()


def decay_table(
    samples: Samples,
    predicted: Mapping[str, NDArray[np.float64]],
    true_frames: NDArray[np.uint8] | None = None,
) -> pd.DataFrame:
    """Quality against the rollout index.

    Args:
        samples: of rollouts.
        predicted: mean squared errors (F,) by proxy; may be empty.
        true_frames: what :func:`on_true_frames` gives, if it is to be set beside them.

    Returns:
        a row a source (``generated``; ``copy of the last frame`` that was given; :data:`ON_TRUE_FRAMES`) and
        ``ahead``, the frames after the last given one: ``psnr``, that of the mean squared error over videos;
        ``psnr_mean`` and ``ssim``, means over videos with 95 % intervals by episode (``_low``, ``_high``); ``mse``
        on [-1, 1]; and for the generated frames ``predicted_PROXY``, the predicted PSNR.

    Raises:
        MetricError: if pictures are too small for SSIM.
    """
    truth = to_unit(samples.truth[:, samples.given :])
    held = np.broadcast_to(to_unit(samples.truth[:, samples.given - 1])[:, None], truth.shape)
    videos = [window.episode for window in samples.windows]
    rows = []
    shown_by = {SOURCES[0]: to_unit(samples.generated[:, samples.given :]), SOURCES[2]: held}
    if true_frames is not None:
        shown_by[ON_TRUE_FRAMES] = to_unit(true_frames)
    for source, shown in shown_by.items():
        errors, each, alike = mean_squared_error(truth, shown), psnr(truth, shown), ssim(truth, shown)
        for place in range(truth.shape[1]):
            mean = float(errors[:, place].mean())
            row = {"source": source, "ahead": place + 1, "psnr": float(decibel(mean)), "mse": mean}
            for name, values in (("psnr_mean", each[:, place]), ("ssim", alike[:, place])):
                row |= interval_columns(name, Number.clustered(values, videos))
            if source == SOURCES[0]:
                row |= {f"predicted_{name}": float(decibel(part[place])) for name, part in predicted.items()}
            rows.append({**row, "videos": len(videos)})
    return pd.DataFrame(rows)


def predict_decay(
    run: VideoRun, denoiser: Denoiser, source: WindowSource, count: int = TEACHER_FORCED, progress: bool = True
) -> dict[str, NDArray[np.float64]]:
    """The squared error of every frame of a long rollout, predicted from one AR step on given frames.

    Args:
        run: what the network was trained for.
        denoiser: the network.
        source: of rollouts; windows for the prediction are cut from the same episodes.
        count: how many windows, of all episodes in turn.
        progress: whether to show progress bars.

    Returns:
        for each of :data:`PROXIES` the predicted mean squared error of every generated frame, (F,); see
        :mod:`arvdm_theory.video.degradation`.

    Raises:
        ValueError: if there are too few windows for a regression.
    """
    # One AR step: the frames that it puts out first.
    plan = dataclasses.replace(run.windows, generated=run.windows.plan.stride)
    windows = find_windows(source.episodes, plan, 0, source.windows.skip)
    clips = WindowSource(windows).take(one_an_episode(windows, count))
    shown = [reference.frame for reference in plan.plan.references_at(plan.last)]
    asked = list(plan.generated_frames)
    made = continue_clips(run, denoiser, plan, clips, progress=progress)[:, asked]
    truth = clips.frames[:, asked]
    basis = leading_components(clips.frames[:, : plan.prompt].numpy(), COMPONENTS)
    step = step_response(clips.frames[:, shown].numpy(), truth.numpy(), made.numpy(), basis)
    # A random half of the references get the error of some frame of some other window each.
    draw = torch.Generator().manual_seed(run.seed)
    shape = (len(made), len(shown))
    which, place = (torch.randint(n, shape, generator=draw) for n in (len(made), len(asked)))
    shift = (made - truth)[which, place] * torch.randint(2, shape, generator=draw)[..., None]
    wrong = clips.frames.clone()
    wrong[:, shown] += shift
    again = dataclasses.replace(clips, frames=wrong)
    moved = continue_clips(run, denoiser, plan, again, progress=progress)[:, asked] - made
    gain, long = error_gain(shift.numpy(), moved.numpy()), source.plan
    return {
        "linear_response": predicted_degradation(step, long.plan, long.prompt, long.last).mse,
        "error_gain": predicted_by_gain(gain, step.teacher_forced, long.plan, long.prompt, long.last),
        "constant": predicted_degradation(step, long.plan, long.prompt, long.last, "constant").mse,
    }


def roll_out_folder(
    run: VideoRun, folder: Path, count: int | None = None, progress: bool = True, way: Way | None = None
) -> tuple[Samples, pd.DataFrame]:
    """Long rollouts of a trained run's folder, and their :func:`decay_table`.

    Args:
        run: the network.
        folder: of its training.
        count: how many videos; the preset's number by default, and no more than that.
        progress: whether to show progress bars.
        way: how it is sampled; None for as it was trained, and with predictions then. One that it was not trained
            for is warned of.

    Raises:
        ValueError: if the folder holds no trained network, or the data cannot be had.
    """
    chosen = Way() if way is None else way
    warned = chosen.untrained(run)
    if warned:
        warnings.warn(f"{folder}: {warned}: what it makes tells of that, too", stacklevel=2)
    source, network = rollout_source(run, run_store(folder), progress, chosen), load_denoiser(folder / "training")
    videos = run.settings.rollout[1]
    samples = sample_run(
        run, network, source, videos if count is None else min(count, videos), progress=progress,
        guidance=chosen.guidance,
    )  # fmt: skip
    alone = on_true_frames(run, network, source, samples, progress, chosen.guidance)
    predicted = predict_decay(run, network, source, progress=progress) if way is None else {}
    return samples, decay_table(samples, predicted, alone)
