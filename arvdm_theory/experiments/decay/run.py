"""How fast continued videos decay: predicted from two AR steps, with an interval or a refusal, against rollouts.

Networks of five videos of known law (three Gaussian, two finite-state), two plans and four trainings, from hardly
trained to trained too long on few videos, run with as many reverse steps as they were trained on, and with a
quarter of them, where every AR step errs by far more than a network of its kind needs to. Each continues true
prompts for ``ar_steps`` AR steps; the decay is by how much PSNR has fallen from the first of these to the last
(:mod:`arvdm_theory.rollout.decay`). The prediction sees two AR steps of other videos, and says an interval or
refuses.

What it has to show: of the networks for which it answers, the interval covers the measured decay in 85 % or more;
it answers for 60 % or more; and the median width is at most half the range of measured decays. The four models of
an AR step, the limits beyond which it refuses and the width of the interval were chosen on networks of AR(1) 0.8
and of two poses, and on other seeds: none of these videos is here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch

from arvdm_theory.diffusion.sampler import first_ar_step
from arvdm_theory.experiments.networks import Job, Network, Preset, Setting, train_job
from arvdm_theory.experiments.ranks import spearman
from arvdm_theory.experiments.record import Cell
from arvdm_theory.experiments.videos import VIDEOS, Video
from arvdm_theory.plan import Plan, References
from arvdm_theory.rollout.decay import MODELS, measured_decay, predicted_decay
from arvdm_theory.training.config import TrainingConfig

__all__ = ["PRESETS", "headline", "networks", "run", "summary"]

_PROMPT = 4
_PLANS: dict[str, Callable[[int], Plan]] = {
    "outpainting, 2 references": lambda n: Plan(
        (6.0, 6.0), 2, 6.0, n, init_steps=n, references=References.last(2), floor=0.02, spacing="geometric"
    ),
    "FIFO, 2 references": lambda n: Plan(
        (2.0, 4.0, 6.0), 1, 6.0, max(1, n // 3), init_steps=n, references=References.last(2), floor=0.02,
        spacing="geometric",
    ),
}  # fmt: skip
# AR steps that are trained on: from the last of them on, the network is shown as many references as ever.
_TRAINED = {"outpainting, 2 references": 1, "FIFO, 2 references": 3}
# Updates, and the size of the training set (None: endless).
_TRAININGS = {
    "20 updates": (20, None),
    "100 updates": (100, None),
    "500 updates": (500, None),
    "1000 updates on 16 videos": (1000, 16),
}

PRESETS = {
    "smoke": Preset(
        Network(options={"width": 16, "depth": 1}),
        TrainingConfig(steps=60, batch=32, levels="continuous", warmup=6, ema=0.9, tensorboard=False),
        rollouts=300, samples=300, ar_steps=4, reverse_steps=8, note="seconds on one core",
        options={"videos": ("AR(1) 0.8", "two poses"), "trainings": ("20 updates",)},
    ),
    "cpu": Preset(
        Network(options={"width": 48, "depth": 2}),
        TrainingConfig(
            steps=1000, batch=128, levels="continuous", lr=3e-3, warmup=100, ema=0.99, tensorboard=False
        ),
        rollouts=2000, samples=2000, ar_steps=12, reverse_steps=12, note="five minutes on one core, under 1 GiB",
        options={
            "videos": ("AR(1) 0.95", "reference", "hidden state", "hidden Markov", "switching Gaussian"),
            "trainings": tuple(_TRAININGS),
        },
    ),
    "gpu": Preset(
        Network("transformer", options={"width": 256, "depth": 6, "heads": 8}),
        TrainingConfig(steps=30_000, batch=2048, levels="continuous", lr=3e-4, warmup=1000, ema=0.999),
        rollouts=20_000, samples=20_000, ar_steps=24, reverse_steps=24,
        note="one CUDA device of 24 GiB, about two hours",
        options={
            "videos": (
                "AR(1) 0.95", "reference", "hidden state", "long memory", "hidden Markov", "switching Gaussian",
            ),
            "trainings": tuple(_TRAININGS),
        },
    ),
}  # fmt: skip
"""``ar_steps`` are those after the prompt; options: videos and trainings."""


def _job(preset: Preset, cell: Cell) -> Job[Video]:
    (updates, videos), plan = _TRAININGS[cell["training"]], cell["plan"]
    own = preset.training
    config = dataclasses.replace(
        own, steps=min(updates, own.steps), warmup=min(own.warmup, updates // 10), ar_steps=_TRAINED[plan]
    )
    return Job(VIDEOS[cell["video"]](), _PLANS[plan](preset.reverse_steps), preset.network, config, videos=videos)


def _cells(preset: Preset) -> list[Cell]:
    return [
        {"video": video, "plan": plan, "training": training, "reverse_steps": steps}
        for video in preset.options["videos"]
        for plan in _PLANS
        for training in preset.options["trainings"]
        for steps in (preset.reverse_steps, preset.reverse_steps // 4)
    ]


def networks(preset: Preset) -> list[Job[Video]]:
    """The networks that a preset trains."""
    return [_job(preset, cell) for cell in _cells(preset) if cell["reverse_steps"] == preset.reverse_steps]


def run(setting: Setting) -> dict[str, pd.DataFrame]:
    """Two tables.

    ``decay``: a row a (network, its reverse steps, AR step): ``measured`` with its ``stderr``, the four models,
        the interval ``low`` to
    ``high`` (NaN where refused), ``bend`` and ``reach``, and the ``reason`` of a refusal; in dB.

    ``decay-summary``: of the last AR step, for every number of reverse steps, over all networks and for every
    video: how often it ``answered``, how often the interval ``covered`` the measured decay where it did, its
        median ``width``, the ``span`` of measured
    decays, the root mean squared error of the middle and of linear response alone (``true inputs``), and their
    rank correlation.
    """
    preset = PRESETS[setting.preset]
    table = setting.table("decay", _cells(preset), lambda cell: pd.DataFrame(_rows(preset, cell, setting)))
    groups: list[Cell] = [
        {"reverse_steps": int(steps), "videos": name}
        for steps in table.reverse_steps.unique()
        for name in ("all", *preset.options["videos"])
    ]

    def part(cell: Cell) -> pd.DataFrame:
        own = table[table.reverse_steps == cell["reverse_steps"]]
        return summary(own if cell["videos"] == "all" else own[own.video == cell["videos"]])

    return {"decay": table, "decay-summary": setting.table("decay-summary", groups, part)}


def _rows(preset: Preset, cell: Cell, setting: Setting) -> Iterator[dict[str, Any]]:
    job = _job(preset, cell)
    video, plan = job.video, _PLANS[cell["plan"]](cell["reverse_steps"])
    score = train_job(job, setting).as_score()
    first = first_ar_step(plan, _PROMPT)
    last = first + preset.ar_steps - 1
    found = predicted_decay(
        video, plan, last, score, prompt=_PROMPT, samples=preset.samples, seed=2 * setting.seed
    )
    truth = video.draw(
        preset.rollouts, plan.total_frames(last), torch.Generator().manual_seed(2 * setting.seed + 1)
    ).frames.to(torch.float64)
    made = setting.generate(
        score, plan, last, preset.rollouts, frame_dim=video.frame_dim, prompt=truth[:, :_PROMPT], progress=False
    )
    measured = measured_decay(truth, made, plan, last, prompt=_PROMPT).table.set_index("ar_step")
    wide = found.table.pivot_table(index="ar_step", columns="form", values="value", sort=False, dropna=False)
    interval = found.table[found.table.form == "predicted"].set_index("ar_step")
    for k in range(first + 1, last + 1):
        yield {
            "ahead": k - first, "measured": measured.value[k], "stderr": measured.stderr[k],
            **{name: wide[name][k] for name in MODELS}, "low": interval.ci_low[k], "high": interval.ci_high[k],
            **found.totals, "reason": found.notes.get("predicted", ""),
        }  # fmt: skip


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """The last AR step of some networks, as one row; see :func:`run`."""
    last = table[table.ahead == table.ahead.max()]
    told = last[last.low.notna()]
    middle = (told.low + told.high) / 2
    covered = int(((told.low <= told.measured) & (told.measured <= told.high)).sum())
    low, high = _wilson(covered, len(told))
    ranks = [
        float(spearman(own.to_numpy(), told.measured.to_numpy())) if len(told) > 1 else math.nan
        for own in (middle, told["true inputs"])
    ]
    row = {
        "networks": len(last), "answered": len(told) / len(last), "covered": covered / max(len(told), 1),
        "covered_low": low, "covered_high": high, "width": float((told.high - told.low).median()),
        "span": float(np.ptp(last.measured)), "error": _rms(middle - told.measured),
        "error_true_inputs": _rms(told["true inputs"] - told.measured),
        "error_true_inputs_refused": _rms((last["true inputs"] - last.measured)[last.low.isna()]),
        "rank": ranks[0], "rank_true_inputs": ranks[1],
    }  # fmt: skip
    return pd.DataFrame([row])


def _rms(errors: pd.Series[float]) -> float:
    return float(np.sqrt((errors**2).mean())) if len(errors) else math.nan


def _wilson(hits: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    if n == 0:
        return math.nan, math.nan
    z, p = 1.959964, hits / n
    middle, half = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return (middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)


def headline(tables: dict[str, pd.DataFrame]) -> str:
    """How often it answers and covers, how wide it is, and which networks it refuses or misses."""
    table, found = tables["decay"], tables["decay-summary"]
    last = table[table.ahead == table.ahead.max()]
    missed = last[(last.measured < last.low) | (last.measured > last.high)]
    names = ["video", "plan", "training", "reverse_steps"]
    number = "{:.2f}".format
    shown = missed[[*names, "measured", "low", "high"]].to_string(index=False, float_format=number)
    refused = last[last.low.isna()]
    reasons = refused[[*names, "measured", "true inputs", "reason"]].to_string(index=False, float_format=number)
    return (
        f"decay at the last AR step, dB:\n{found.to_string(index=False, float_format=number)}\n\n"
        f"measured outside the interval:\n{shown if len(missed) else 'none'}\n\n"
        f"refused:\n{reasons if len(refused) else 'none'}"
    )
