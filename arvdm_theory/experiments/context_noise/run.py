"""Noise-augmented references with trained networks: drift falls and memory is lost, beside the exact curve.

At every noise level ρ of the references a network is trained, rolled out and measured. For the Gaussian video the
clip KL of a perfect network and the memory bottleneck are exact; for the finite-state one the clip KL is what can
be read in generated frames, and a perfect network's is measured on rollouts of the exact score.
"""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from arvdm_theory.decomposition.ledger import ledger
from arvdm_theory.experiments.networks import Job, Network, Preset, Setting, train_job
from arvdm_theory.experiments.record import Cell
from arvdm_theory.experiments.videos import VIDEOS, Video
from arvdm_theory.interfaces import Score
from arvdm_theory.number import Number
from arvdm_theory.plan import Plan, References
from arvdm_theory.rollout.measure import measured_kl
from arvdm_theory.training.config import TrainingConfig

__all__ = ["PRESETS", "headline", "networks", "run"]

_VIDEOS = ("AR(1) 0.95", "two poses")
# The network never sees a later AR step than this in training: from here on all have three references.
_TRAINED_STEPS = 3

PRESETS = {
    "smoke": Preset(
        Network(options={"width": 32, "depth": 1}),
        TrainingConfig(steps=40, batch=64, ar_steps=_TRAINED_STEPS, warmup=10, ema=0.9, tensorboard=False),
        rollouts=100, samples=100, ar_steps=3, reverse_steps=6, note="seconds on one core",
        options={"levels": (0.0, 0.5)},
    ),
    "cpu": Preset(
        Network(options={"width": 128, "depth": 2}),
        TrainingConfig(steps=1500, batch=256, ar_steps=_TRAINED_STEPS, lr=2e-3, warmup=100, ema=0.995),
        rollouts=4000, samples=1000, ar_steps=12, reverse_steps=40, note="two cores, under 1 GiB",
        options={"levels": (0.0, 0.05, 0.2, 0.5, 1.0)},
    ),
    "gpu": Preset(
        Network("transformer", options={"width": 512, "depth": 8, "heads": 8}),
        TrainingConfig(steps=100_000, batch=4096, ar_steps=_TRAINED_STEPS, lr=3e-4, warmup=2000, ema=0.9999),
        rollouts=200_000, samples=20_000, ar_steps=12, reverse_steps=40,
        note="one CUDA device of 24 GiB, about an hour a network",
        options={"levels": (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0)},
    ),
}  # fmt: skip


def _plan(preset: Preset, video: Video, level: float) -> Plan:
    """Outpainting in equal steps, the last three frames noised to ρ; a finite-state video stops just above 0.

    Equal steps are coarse near level 0: the errors that they make there are what drifts.
    """
    m, floor = preset.reverse_steps, 0.02 if video.atomic else 0.0
    references = References.last(3, level if level > floor else 0.0)
    return Plan((8.0, 8.0), 2, 8.0, m, init_steps=m, references=references, floor=floor)


def _job(preset: Preset, name: str, level: float) -> Job[Video]:
    video = VIDEOS[name]()
    return Job(video, _plan(preset, video, level), preset.network, preset.training)


def networks(preset: Preset) -> list[Job[Video]]:
    """The networks that a preset trains."""
    return [_job(preset, video, level) for video in _VIDEOS for level in preset.options["levels"]]


def run(setting: Setting) -> dict[str, pd.DataFrame]:
    """The table: a row a (video, ρ, AR step, quantity, source), in nats.

    ``clip_kl`` is ``exact``, of the ``trained`` network's rollout, or of a rollout of the ``exact score``; ``mb``
    is exact, or an average over true videos.
    """
    preset = PRESETS[setting.preset]
    cells = [{"video": video, "level": level} for video in _VIDEOS for level in preset.options["levels"]]

    def rows(cell: Cell) -> Iterator[Row]:
        job = _job(preset, cell["video"], cell["level"])
        yield from _theory(job, preset, setting)
        yield from _measured(job, preset, setting, train_job(job, setting).as_score(), "trained")
        if not job.video.gaussian:
            yield from _measured(job, preset, setting, None, "exact score")

    return {
        "noise-dial": setting.table(
            "noise-dial", cells, rows, ["ar_step", "quantity", "source", "value", "stderr"]
        )
    }


Row = tuple[int, str, str, Number]


def _theory(job: Job[Video], preset: Preset, setting: Setting) -> Iterator[Row]:
    """The exact score's clip KL, where it has a closed form, and the memory bottleneck."""
    terms = ledger(job.video, job.plan, preset.ar_steps, samples=preset.samples, seed=setting.seed).terms
    for name, found in (("mb", terms.of("mb")), ("clip_kl", terms.clips)):
        if found is not None:
            for k in range(preset.ar_steps):
                yield k + 1, name, "exact", found[k]


def _measured(
    job: Job[Video], preset: Preset, setting: Setting, score: Score | None, source: str
) -> Iterator[Row]:
    """The clip KL of a rollout."""
    made = setting.generate(score, job.plan, preset.ar_steps, preset.rollouts, video=job.video)
    for k in range(1, preset.ar_steps + 1):
        yield k, "clip_kl", source, measured_kl(job.video, made, job.plan.clip_frames(k), job.plan.floor)


def headline(tables: dict[str, pd.DataFrame]) -> str:
    """Drift (growth of the clip KL) and last memory bottleneck against ρ."""
    table = tables["noise-dial"]
    last = table[table.ar_step == table.ar_step.max()]
    shown = last.assign(what=last.quantity + ", " + last.source)
    wide = shown.pivot_table(index=["video", "level"], columns="what", values="value", sort=False)
    text: str = wide.to_string(float_format=lambda value: f"{value:.4f}")
    return "of the last AR step, in nats:\n" + text
