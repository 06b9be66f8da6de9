"""Laws of the score estimation error: against training-set size, training steps and width.

For the linear denoiser the law against training-set size is exact
(:mod:`arvdm_theory.decomposition.least_squares_see`): one noise draw a video, as the law asks for; the same fits
with every video noised 16 times show what fresh noise is worth.
For nonlinear networks SEE is the ledger's average over true data, which has no law to be held against but its own
trend.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch

from arvdm_theory.decomposition.least_squares_see import expected_see
from arvdm_theory.decomposition.ledger import ledger
from arvdm_theory.experiments.networks import Job, Network, Preset, Setting, train_job
from arvdm_theory.experiments.record import Cell
from arvdm_theory.experiments.videos import VIDEOS, Video
from arvdm_theory.laws.linear import reference_video
from arvdm_theory.networks.denoiser import Denoiser
from arvdm_theory.number import Number
from arvdm_theory.plan import Plan, References
from arvdm_theory.training.config import TrainingConfig
from arvdm_theory.training.least_squares import fit_linear
from arvdm_theory.training.windows import WindowSampler

__all__ = ["PRESETS", "headline", "networks", "run"]

_VIDEOS = ("reference", "two poses")
_AR_STEPS = 2
_RESAMPLES = 16

PRESETS = {
    "smoke": Preset(
        Network(options={"width": 32, "depth": 1}),
        TrainingConfig(steps=40, batch=64, ar_steps=_AR_STEPS, warmup=10, ema=0.9, tensorboard=False),
        rollouts=0, samples=100, ar_steps=_AR_STEPS, reverse_steps=4, note="seconds on one core",
        options={"pairs": (16, 64), "fits": 4, "videos": (64, None), "steps": (20, 40), "widths": (16, 32)},
    ),
    "cpu": Preset(
        Network(options={"width": 128, "depth": 2}),
        TrainingConfig(steps=1000, batch=256, ar_steps=_AR_STEPS, lr=2e-3, warmup=100, ema=0.995),
        rollouts=0, samples=4000, ar_steps=_AR_STEPS, reverse_steps=8, note="two cores, under 1 GiB",
        options={
            "pairs": (16, 24, 48, 96, 384, 1536), "fits": 24, "videos": (64, 256, 1024, 4096, None),
            "steps": (62, 125, 250, 500, 1000), "widths": (8, 32, 128),
        },
    ),
    "gpu": Preset(
        Network("transformer", options={"width": 512, "depth": 8, "heads": 8}),
        TrainingConfig(steps=200_000, batch=4096, ar_steps=_AR_STEPS, lr=3e-4, warmup=2000, ema=0.9999),
        rollouts=0, samples=100_000, ar_steps=_AR_STEPS, reverse_steps=12,
        note="one CUDA device of 24 GiB, about two hours a network",
        options={
            "pairs": tuple(int(2**k) for k in range(4, 17)), "fits": 200,
            "videos": (256, 1024, 4096, 16384, 65536, None), "steps": (2000, 10_000, 50_000, 200_000),
            "widths": (64, 128, 256, 512),
        },
    ),
}  # fmt: skip


def _plan(preset: Preset) -> Plan:
    m = preset.reverse_steps
    return Plan(
        (6.0, 6.0), 2, 6.0, m, init_steps=m, references=References.last(2), floor=0.02, spacing="geometric"
    )


def _jobs(preset: Preset, video: str) -> list[tuple[str, float, Job[Video]]]:
    """(axis, its value, the network): one axis is varied at a time, the others stand at their largest."""
    own, training = VIDEOS[video](), preset.training
    jobs = []
    for videos in preset.options["videos"]:
        job = Job(own, _plan(preset), preset.network, training, videos=videos)
        jobs.append(("training videos", math.inf if videos is None else float(videos), job))
    for steps in preset.options["steps"]:
        shorter = dataclasses.replace(training, steps=steps, warmup=min(training.warmup, steps // 4))
        jobs.append(("training steps", float(steps), Job(own, _plan(preset), preset.network, shorter)))
    for width in preset.options["widths"]:
        options = {**preset.network.options, "width": width}
        network = dataclasses.replace(preset.network, options=options)
        jobs.append(("width", float(width), Job(own, _plan(preset), network, training)))
    return jobs


def networks(preset: Preset) -> list[Job[Video]]:
    """The networks that a preset trains."""
    return [job for video in _VIDEOS for _, _, job in _jobs(preset, video)]


def run(setting: Setting) -> dict[str, pd.DataFrame]:
    """Two tables of Σ SEE in nats.

    ``see-laws-linear``: a row a (training videos n, source), source being ``law`` (infinite where the expectation
    does not exist), ``fitted`` or ``fitted, noised 16 times``, the last two means over fits with their standard
    error.
    ``see-laws``: a row a (video, axis, value) of the trained networks.
    """
    preset = PRESETS[setting.preset]
    sizes = preset.options["pairs"]
    linear = setting.table(
        "see-laws-linear",
        [{"pairs": pairs, "resamples": resamples} for resamples in (1, _RESAMPLES) for pairs in sizes],
        lambda cell: _linear(preset, cell, setting.seed),
        ["source", "value", "stderr"],
    )
    cells = [{"video": video, "axis": axis, "at": at} for video in _VIDEOS for axis, at, _ in _jobs(preset, video)]

    def rows(cell: Cell) -> list[tuple[str, Number]]:
        places = {(axis, at): job for axis, at, job in _jobs(preset, cell["video"])}
        job = places[cell["axis"], cell["at"]]
        score = train_job(job, setting).as_score()
        terms = ledger(
            job.video, job.plan, preset.ar_steps, score=score, girsanov=False, memory=False,
            samples=preset.samples, seed=setting.seed,
        ).terms  # fmt: skip
        return [(name, terms.total(name)) for name in ("see", "cross", "de")]

    trained = setting.table("see-laws", cells, rows, ["term", "value", "stderr"])
    return {"see-laws-linear": linear, "see-laws": trained}


def _linear(preset: Preset, cell: Cell, seed: int) -> Iterator[tuple[str, float, float]]:
    """Σ SEE over all AR steps of least-squares fits, exact for each, and its law."""
    video, plan, pairs, resamples = reference_video(), _plan(preset), cell["pairs"], cell["resamples"]
    if resamples == 1:
        # Both AR steps have two references, and least squares in each stage has n pairs of its own.
        law = sum(float(expected_see(video, plan, k, pairs).sum()) for k in range(1, preset.ar_steps + 1))
        yield "law", law, 0.0
    sampler = WindowSampler(plan, preset.ar_steps, video, weighting="x0", dtype=torch.float64)
    config = Job(video, plan, Network("linear", "x0"), preset.training).config()
    sums = []
    for fit in range(preset.options["fits"]):
        denoiser = fit_linear(Denoiser(config), sampler, pairs, seed * 100_000 + fit, resamples)
        result = ledger(
            video, plan, preset.ar_steps, score=denoiser.as_score(), girsanov=False, memory=False, samples=2
        )
        sums.append(result.totals["see"])
    values = np.array(sums, dtype=np.float64)
    name = "fitted" if resamples == 1 else f"fitted, noised {resamples} times"
    yield name, float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))


def headline(tables: dict[str, pd.DataFrame]) -> str:
    """The exact law beside the fits, and SEE at both ends of every axis."""
    wide = tables["see-laws-linear"].pivot_table(index="pairs", columns="source", values="value")
    see = tables["see-laws"][tables["see-laws"].term == "see"]
    ends = see.groupby(["video", "axis"], sort=False).value.agg(["first", "last"])
    number = "{:.5g}".format
    return (
        f"Σ SEE in nats, linear denoiser:\n{wide.to_string(float_format=number)}\n\n"
        f"trained networks, smallest and largest of each axis:\n{ends.to_string(float_format=number)}"
    )
