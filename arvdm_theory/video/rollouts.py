"""Long rollouts of a trained network: how quality decays with the rollout index, measured and predicted.

A rollout starts from true frames and goes on until what the network remembers is its own work. Episodes are the
test worlds, walked for longer. Predictions see teacher-forced outputs alone
(:mod:`arvdm_theory.video.degradation`): one AR step on given frames, of windows all over the test episodes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from arvdm_theory.data.clips import to_unit
from arvdm_theory.models.denoiser import Denoiser
from arvdm_theory.video.degradation import (
    PredictedDegradation,
    Proxy,
    StepResponse,
    leading_components,
    perturbed_response,
    predicted_degradation,
    step_response,
)
from arvdm_theory.video.intervals import cluster_mean
from arvdm_theory.video.memory_plans import MemoryPlan
from arvdm_theory.video.metrics import mean_squared_error, psnr, ssim
from arvdm_theory.video.retrieval import SOURCES
from arvdm_theory.video.runs import Samples, VideoRun, continue_clips, one_an_episode
from arvdm_theory.video.windows import WindowSource, find_windows

__all__ = [
    "COMPONENTS",
    "PROXIES",
    "TEACHER_FORCED",
    "decay_table",
    "predict_decay",
    "rollout_plan",
    "rollout_source",
]

COMPONENTS = 16
"""q, the principal components of frames in which errors are followed."""

PROXIES = ("linear_response", "perturbed_response", "constant")
"""Predictions of a decay, see :func:`predict_decay`."""

TEACHER_FORCED = 400
"""Windows that a prediction is made from."""


def rollout_plan(run: VideoRun) -> MemoryPlan:
    """The plan of a run, with as many frames to generate as its preset's long rollouts have."""
    return dataclasses.replace(run.windows, generated=run.settings.rollout[0])


def rollout_source(run: VideoRun, store: Path, progress: bool = True) -> WindowSource:
    """Windows as long as a rollout, of test worlds that are walked for longer, and maybe in another way.

    Raises:
        ValueError: if the episodes cannot be had, or those of a folder are too short.
    """
    plan, skip = rollout_plan(run), run.settings.skip
    need = (plan.total_frames - 1) * skip + 1
    episodes = run.episodes
    walk = run.settings.rollout_trajectory or episodes.trajectory
    longer = dataclasses.replace(walk, frames=max(need, episodes.trajectory.frames))
    episodes = dataclasses.replace(episodes, trajectory=longer, train=0, test=run.settings.rollout[1])
    return WindowSource(find_windows(episodes.load("test", store, progress), plan, 0, skip))


def decay_table(samples: Samples, predicted: Mapping[str, PredictedDegradation]) -> pd.DataFrame:
    """Quality against the rollout index.

    Args:
        samples: of rollouts.
        predicted: by proxy; may be empty.

    Returns:
        a row a source (``generated``, or ``copy of the last frame`` that was given) and ``ahead``, the frames
        after the last given one: ``psnr``, that of the mean squared error over videos; ``psnr_mean`` and ``ssim``,
        means over videos with 95 % intervals by episode (``_low``, ``_high``); ``mse`` on [-1, 1]; and for the
        generated frames ``predicted_PROXY``, the predicted PSNR.

    Raises:
        MetricError: if pictures are too small for SSIM.
    """
    truth = to_unit(samples.truth[:, samples.given :])
    held = np.broadcast_to(to_unit(samples.truth[:, samples.given - 1])[:, None], truth.shape)
    videos = [window.episode for window in samples.windows]
    rows = []
    for source, shown in ((SOURCES[0], to_unit(samples.generated[:, samples.given :])), (SOURCES[2], held)):
        errors, each, alike = mean_squared_error(truth, shown), psnr(truth, shown), ssim(truth, shown)
        for place in range(truth.shape[1]):
            mean = float(errors[:, place].mean())
            row = {"source": source, "ahead": place + 1, "psnr": _decibel(mean), "mse": mean}
            for name, values in (("psnr_mean", each[:, place]), ("ssim", alike[:, place])):
                interval = cluster_mean(values, videos)
                row |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
            if source == SOURCES[0]:
                row |= {f"predicted_{name}": _decibel(part.mse[place]) for name, part in predicted.items()}
            rows.append({**row, "videos": len(videos)})
    return pd.DataFrame(rows)


def predict_decay(
    run: VideoRun, denoiser: Denoiser, store: Path, count: int = TEACHER_FORCED, progress: bool = True
) -> dict[str, PredictedDegradation]:
    """The squared error of every frame of a long rollout, predicted from one AR step on given frames.

    Args:
        run: what the network was trained for.
        denoiser: the network.
        store: folder of the data.
        count: windows, of all test episodes in turn, whether anything is asked there or not.
        progress: whether to show progress bars.

    Returns:
        ``linear_response`` and ``constant``, the proxies of :mod:`arvdm_theory.video.degradation`, and
        ``perturbed_response``, linear response to the network's own errors put into the references.

    Raises:
        ValueError: if the episodes cannot be had, or too few windows for a regression.
    """
    # One AR step: the frames that it puts out first.
    plan = dataclasses.replace(run.windows, generated=run.windows.plan.stride)
    windows = find_windows(run.episodes.load("test", store, progress), plan, 0, run.settings.skip)
    clips = WindowSource(windows).take(one_an_episode(windows, count))
    shown = [reference.frame for reference in plan.plan.references_at(plan.last)]
    asked = list(plan.generated_frames)
    made = continue_clips(run, denoiser, plan, clips, progress=progress)[:, asked]
    truth = clips.frames[:, asked]
    # Every reference gets the error of some frame of some other window.
    source = torch.Generator().manual_seed(run.seed)
    which, place = (torch.randint(n, (len(made), len(shown)), generator=source) for n in (len(made), len(asked)))
    shift = (made - truth)[which, place]
    wrong = clips.frames.clone()
    wrong[:, shown] += shift
    moved = continue_clips(run, denoiser, plan, dataclasses.replace(clips, frames=wrong), progress=progress)
    basis = leading_components(clips.frames[:, : plan.prompt].numpy(), COMPONENTS)
    step = step_response(clips.frames[:, shown].numpy(), truth.numpy(), made.numpy(), basis)
    perturbed = perturbed_response(step, shift.numpy(), (moved[:, asked] - made).numpy())
    long = rollout_plan(run)

    def predicted(response: StepResponse, proxy: Proxy) -> PredictedDegradation:
        return predicted_degradation(response, long.plan, long.prompt, long.last, proxy)

    return {
        "linear_response": predicted(step, "linear_response"),
        "perturbed_response": predicted(perturbed, "linear_response"),
        "constant": predicted(step, "constant"),
    }


def _decibel(mse: float) -> float:
    return float(10 * np.log10(4 / mse)) if mse > 0 else float("inf")
