"""Does the best grid carry over to networks, and the best noise of the references?

Networks are trained once on videos whose law is known, on levels everywhere between T and the floor, and sampled
on grids of M steps: uniform, cosine, Karras', flow matching's, the one that is best for the Girsanov bound (KLUB)
and the one that is best for KL(clean). The last two are found on a *Gaussian fitted to sampled videos alone*:
neither the law nor the network is asked. What is measured is the KL of rollouts, of the last clip and of all
frames; for the finite-state video, which is far from Gaussian, of what is read in the last clip.

The second table does the same for noise a lag: a network for each profile of the references.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from scipy.stats import t as student

from arvdm_theory.choose.context_noise import noised_lags
from arvdm_theory.choose.schedules import optimal_schedule
from arvdm_theory.decomposition.ledger import ledger_terms
from arvdm_theory.experiments.networks import Job, Network, Preset, Setting, train_job
from arvdm_theory.experiments.record import Cell
from arvdm_theory.experiments.videos import VIDEOS, Video
from arvdm_theory.laws.gaussian import ArrayVideo
from arvdm_theory.number import Number
from arvdm_theory.plan import Plan, References
from arvdm_theory.rollout.measure import measured_kl
from arvdm_theory.training.config import TrainingConfig

__all__ = ["GRIDS", "PRESETS", "PROFILES", "headline", "networks", "run", "summary"]

GRIDS = {
    "uniform": "uniform",
    "cosine": "cosine",
    "karras:7": "Karras, ρ = 7",
    "flow:1": "flow matching",
    "girsanov": "best Girsanov bound",
    "kl": "best KL(clean)",
}
"""What is sampled on; the last two are found on the fitted Gaussian video."""

PROFILES: dict[str, tuple[float, ...]] = {
    "clean": (0.0, 0.0, 0.0, 0.0),
    "all 0.1": (0.1, 0.1, 0.1, 0.1),
    "lag 1 clean": (0.0, 0.3, 0.3, 0.3),
    "lag 1 noised": (0.3, 0.0, 0.0, 0.0),
}
"""Levels of the references of lag 1, 2, 3, 4."""

_LAGS = 4
_NOISE_VIDEO = "reference"
# Of a network's training: how finely the range of levels is cut, and from when on all references are there.
_ROWS, _TRAINED_STEPS = 24, 2

PRESETS = {
    "smoke": Preset(
        Network(options={"width": 32, "depth": 1}),
        TrainingConfig(steps=30, batch=64, warmup=5, ema=0.9, tensorboard=False),
        rollouts=120, samples=400, ar_steps=2, reverse_steps=4, note="seconds on one core",
        options={"videos": ("walker on a circle",), "steps": (3,), "seeds": 2, "iterations": 1,
                 "starts": ("cosine",)},
    ),
    "cpu": Preset(
        Network(options={"width": 128, "depth": 2}),
        TrainingConfig(steps=3000, batch=256, lr=2e-3, warmup=100, ema=0.995, tensorboard=False),
        rollouts=4096, samples=4096, ar_steps=4, reverse_steps=16, note="two cores, under 1 GiB",
        options={"videos": ("reference", "hidden state", "walker on a circle"), "steps": (3, 5, 8, 16), "seeds": 3,
                 "iterations": 60, "starts": ("cosine", "flow:1")},
    ),
    "gpu": Preset(
        Network("transformer", options={"width": 512, "depth": 8, "heads": 8}),
        TrainingConfig(steps=100_000, batch=4096, lr=3e-4, warmup=2000, ema=0.9999),
        rollouts=200_000, samples=200_000, ar_steps=8, reverse_steps=32,
        note="one CUDA device of 24 GiB, about an hour a network",
        options={"videos": ("reference", "hidden state", "long memory", "walker on a circle"),
                 "steps": (3, 5, 8, 16, 32), "seeds": 5, "iterations": 120, "starts": ("cosine", "flow:1")},
    ),
}  # fmt: skip
"""``reverse_steps`` are those of the noise profiles; ``samples`` are the videos that the Gaussian is fitted to."""


def _plan(video: Video, steps: int, spacing: str = "cosine") -> Plan:
    return Plan(
        (6.0, 6.0), 2, 6.0, steps, steps, references=References.last(_LAGS),
        floor=0.02 if video.atomic else 0.001, spacing=spacing,
    )  # fmt: skip


def _job(preset: Preset, name: str, profile: tuple[float, ...] | None = None) -> Job[Video]:
    video = VIDEOS[name]()
    plan = _plan(video, _ROWS)
    if profile is not None:
        plan = noised_lags(plan, profile)
    training = dataclasses.replace(preset.training, ar_steps=_TRAINED_STEPS, levels="continuous")
    return Job(video, plan, preset.network, training)


def networks(preset: Preset) -> list[Job[Video]]:
    """The networks that a preset trains, each once a seed."""
    jobs = [_job(preset, video) for video in preset.options["videos"]]
    # The network of clean references is one of those already.
    return jobs + [_job(preset, _NOISE_VIDEO, levels) for levels in PROFILES.values() if any(levels)]


def run(setting: Setting) -> dict[str, pd.DataFrame]:
    """Three tables.

    ``schedules-levels``: the grids, a row a level. ``schedules``: a row a (video, M, grid, seed, quantity,
    source), in nats: ``first_clip_kl`` and ``clip_kl`` of the first and last AR step and ``kl`` of all clean
    frames, of the ``trained`` network's rollout (with its standard error) and in closed form with the ``exact``
    score, where there is one. ``schedules-noise``: the same a (profile, seed).
    """
    preset = PRESETS[setting.preset]
    where = [
        {"video": video, "reverse_steps": steps, "grid": grid}
        for video in preset.options["videos"]
        for steps in preset.options["steps"]
        for grid in GRIDS
    ]
    seeds = range(setting.seed, setting.seed + preset.options["seeds"])
    levels = setting.table(
        "schedules-levels", where, lambda cell: _levels(cell, preset), ["stage", "row", "level"]
    )

    def sampled(cell: Cell) -> Iterator[tuple[str, str, Number]]:
        job, own = _job(preset, cell["video"]), dataclasses.replace(setting, seed=cell["seed"])
        chosen = levels[(levels[["video", "reverse_steps", "grid"]] == pd.Series(cell)[:3]).all(axis=1)]
        grids = {
            stage: tuple((level, level) for level in rows.sort_values("row").level)
            for stage, rows in chosen.groupby("stage")
        }
        plan = dataclasses.replace(
            _plan(job.video, cell["reverse_steps"]), ar_grid=grids["ar"], init_grid=grids["init"]
        )
        yield from _measured(job, plan, preset, own)

    def noised(cell: Cell) -> Iterator[tuple[str, str, Number]]:
        profile = PROFILES[cell["profile"]]
        job = _job(preset, _NOISE_VIDEO, profile if any(profile) else None)
        plan = noised_lags(_plan(job.video, preset.reverse_steps), profile)
        yield from _measured(job, plan, preset, dataclasses.replace(setting, seed=cell["seed"]))

    columns = ["quantity", "source", "value", "stderr"]
    grids = [{**cell, "seed": seed} for seed in seeds for cell in where]
    profiles = [{"profile": name, "seed": seed} for seed in seeds for name in PROFILES]
    return {
        "schedules-levels": levels,
        "schedules": setting.table("schedules", grids, sampled, columns),
        "schedules-noise": setting.table("schedules-noise", profiles, noised, columns),
    }


def _levels(cell: Cell, preset: Preset) -> Iterator[tuple[str, int, float]]:
    """The grid of a cell; found on the Gaussian of sampled videos' moments where it is a best one."""
    video = VIDEOS[cell["video"]]()
    name = cell["grid"]
    plan = _plan(video, cell["reverse_steps"], name if name not in ("kl", "girsanov") else "cosine")
    if name in ("kl", "girsanov"):
        frames = plan.total_frames(2)
        drawn = video.draw(preset.samples, frames, torch.Generator().manual_seed(7)).frames.flatten(1)
        fitted = ArrayVideo(np.cov(drawn.numpy(), rowvar=False), video.frame_dim, drawn.mean(0))
        found = optimal_schedule(fitted, plan, 2, name, iterations=preset.options["iterations"],
                                 starts=preset.options["starts"])  # fmt: skip
        plan = found.plan
    for stage, grid in (("ar", plan.ar_grid), ("init", plan.init_grid)):
        for row, levels in enumerate(grid):
            yield stage, row, levels[0]


def _measured(job: Job[Video], plan: Plan, preset: Preset, setting: Setting) -> Iterator[tuple[str, str, Number]]:
    score = train_job(job, setting).as_score()
    k = preset.ar_steps
    made = setting.generate(score, plan, k, preset.rollouts, video=job.video)
    parts = {"first_clip_kl": plan.clip_frames(1), "clip_kl": plan.clip_frames(k)}
    if job.video.gaussian:
        parts["kl"] = range(plan.clean_frames(k))
    for name, frames in parts.items():
        yield name, "trained", measured_kl(job.video, made, frames, plan.floor)
    if job.video.gaussian:
        terms = ledger_terms(job.video, plan, k, memory=False, girsanov=False)
        assert terms.clips is not None
        assert terms.kl is not None
        exact = {"first_clip_kl": terms.clips[0], "clip_kl": terms.clips[k - 1], "kl": terms.kl}
        for name, number in exact.items():
            yield name, "exact", number


def summary(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Mean over seeds of every quantity with the half-width of its 95 % interval (Student's t over the seeds)."""
    grouped = table[table.source == "trained"].groupby([*by, "quantity"], sort=False).value
    found = grouped.agg(["mean", "std", "count"]).reset_index()
    found["half_width"] = [
        student.ppf(0.975, n - 1) * std / math.sqrt(n) if n > 1 else math.nan
        for std, n in zip(found["std"], found["count"], strict=True)
    ]
    return found.drop(columns=["std", "count"])


def headline(tables: dict[str, pd.DataFrame]) -> str:
    """The clip KL of every grid and profile, and which grid is best where."""
    found = summary(tables["schedules"], ["video", "reverse_steps", "grid"])
    lines = ["of the last clip, trained networks, in nats (mean over seeds ± 95 % interval):"]
    clips = found[found.quantity == "clip_kl"]
    shown = clips.assign(text=[f"{a:.3f} ± {b:.3f}" for a, b in zip(clips["mean"], clips.half_width, strict=True)])
    wide = shown.pivot_table(
        index=["video", "reverse_steps"], columns="grid", values="text", aggfunc="first", sort=False
    )
    lines.append(wide[list(GRIDS)].to_string())
    best = clips.loc[clips.groupby(["video", "reverse_steps"], sort=False)["mean"].idxmin()]
    lines.append(
        "best: " + "; ".join(f"{r.video}, M = {r.reverse_steps}: {GRIDS[str(r.grid)]}" for r in best.itertuples())
    )
    noise = summary(tables["schedules-noise"], ["profile"])
    lines += ["", "noise a lag (reference video):"]
    lines.append(
        noise.assign(text=[f"{a:.3f} ± {b:.3f}" for a, b in zip(noise["mean"], noise.half_width, strict=True)])
        .pivot_table(index="profile", columns="quantity", values="text", aggfunc="first", sort=False).to_string()
    )  # fmt: skip
    return "\n".join(lines)
