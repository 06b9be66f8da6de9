"""Memory bottleneck against error accumulation: their rank correlation, and the front of what can be had at once.

A point is one trained network: a method (outpainting, chunks of two, FIFO), a memory (how many of the last frames
are referenced, and at which noise level ρ) and a training budget. All generate the same number of frames, with as
many reverse steps a frame. Everything but the correlations is in nats a generated frame, or of a pair of frames:

- the memory bottleneck: Σ_k MB_k a frame, in closed form (of a finite-state video: an average over true videos),
  which no training changes; and the excess of the network's one-step loss, Σ SEE a frame.
- error accumulation: the growth of the measured KL of a pair of consecutive frames from the first pair of the
  video to the last; and what bounds it, Σ (NIE + DE + SEE + CROSS) of the AR steps a frame, from true videos.

A network without memory draws every window afresh: it forgets everything and accumulates nothing. A network is on
the Pareto front of its video if no other one has less of both, the bottleneck and the growth; as the growth is
measured, so is the front. The rank correlation's interval is a percentile bootstrap over networks, which treats
the chosen methods as a sample of methods; it holds the noise of the measurement too, as every point carries its
own. Budgets are shown apart as well: across them the correlation mixes in that training lowers accumulation at no
cost of memory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from arvdm_theory.choose.front import pareto_front
from arvdm_theory.decomposition.ledger import ledger
from arvdm_theory.experiments.networks import Job, Network, Preset, Setting, train_job
from arvdm_theory.experiments.ranks import interval, spearman
from arvdm_theory.experiments.record import Cell
from arvdm_theory.experiments.videos import VIDEOS, Video
from arvdm_theory.files import write_json
from arvdm_theory.number import Number
from arvdm_theory.plan import Plan, References
from arvdm_theory.provenance import provenance
from arvdm_theory.rollout.measure import measured_kl
from arvdm_theory.tables import write_table
from arvdm_theory.training.config import TrainingConfig

__all__ = ["METHODS", "PRESETS", "correlations", "headline", "networks", "run"]

Array = NDArray[np.float64]

_HORIZON, _FLOOR = 6.0, 0.02
_PAIR = 2
# Nats a frame: sampled bottlenecks that differ by less are ties, in ranks and on the front.
_RESOLUTION = 1e-3

PRESETS = {
    "smoke": Preset(
        Network(options={"width": 24, "depth": 1}),
        TrainingConfig(steps=20, batch=64, warmup=5, ema=0.9, tensorboard=False),
        rollouts=200, samples=30, ar_steps=0, reverse_steps=4, note="seconds on one core",
        options={
            "memories": {"outpainting": ((0, 0.0), (2, 0.0)), "FIFO": ((1, 0.0),)}, "frames": 4,
            "videos": {"AR(1) 0.95": (None, (6,)), "two poses": (1000, (6,))}, "resamples": 20,
        },
    ),
    "cpu": Preset(
        Network(options={"width": 64, "depth": 2}),
        TrainingConfig(steps=1000, batch=256, levels="continuous", lr=3e-3, warmup=100, ema=0.99),
        rollouts=3000, samples=150, ar_steps=0, reverse_steps=24, note="two cores, under 1 GiB",
        options={
            "memories": {
                "outpainting": ((0, 0.0), (1, 0.0), (2, 0.0), (4, 0.0), (4, 0.3)),
                "chunks": ((0, 0.0), (2, 0.0)), "FIFO": ((0, 0.0), (3, 0.0)),
            },
            "frames": 12, "resamples": 4000,
            "videos": {"hidden state": (None, (100, 500)), "walker on a circle": (50_000, (400, 2500))},
        },
    ),
    "gpu": Preset(
        Network("transformer", options={"width": 384, "depth": 8, "heads": 8}),
        TrainingConfig(steps=100_000, batch=4096, levels="continuous", lr=3e-4, warmup=1000, ema=0.9999),
        rollouts=100_000, samples=10_000, ar_steps=0, reverse_steps=48,
        note="one CUDA device of 24 GiB, about half an hour a network at the longest budget",
        options={
            "memories": {
                "outpainting": (*((m, 0.0) for m in range(5)), (2, 0.1), (4, 0.05), (4, 0.1), (4, 0.3), (4, 1.0)),
                "chunks": (*((m, 0.0) for m in range(5)), (4, 0.3)),
                "FIFO": (*((m, 0.0) for m in range(5)), (4, 0.3)),
            },
            "frames": 24,
            "videos": dict.fromkeys(
                ("reference", "hidden state", "long memory", "walker on a circle", "hidden Markov"),
                (None, (2000, 10_000, 100_000)),
            ),
            "resamples": 10_000,
        },
    ),
}  # fmt: skip
"""Options: memories (references, ρ) by method; generated frames; for every video the size of its training set
(None: endless) and the training budgets; resamples of the bootstrap. ``reverse_steps`` is a frame's."""


@dataclass(frozen=True)
class _Method:
    """Input levels of the window in units of T, the stride, and in how many AR steps a frame is denoised."""

    levels: tuple[float, ...]
    stride: int

    @property
    def passes(self) -> int:
        return len(self.levels) // self.stride


METHODS = {
    "outpainting": _Method((1.0, 1.0), 2),
    "chunks": _Method((0.5, 0.5, 1.0, 1.0), 2),
    "FIFO": _Method((0.25, 0.5, 0.75, 1.0), 1),
}
"""The methods by name."""


def _plan(preset: Preset, method: str, references: int, level: float) -> Plan:
    own, m = METHODS[method], preset.reverse_steps
    return Plan(
        tuple(_HORIZON * share for share in own.levels), own.stride, _HORIZON, m // own.passes, init_steps=m,
        references=References.last(references, level), floor=_FLOOR, spacing="geometric",
    )  # fmt: skip


def _ar_steps(plan: Plan, frames: int) -> int:
    """AR steps after which ``frames`` are clean."""
    return frames // plan.stride - (not plan.overlapping)


def _job(preset: Preset, cell: Cell) -> Job[Video]:
    plan = _plan(preset, cell["method"], cell["references"], cell["level"])
    # From the AR step on that has all references, every window looks alike.
    ar_steps = next(k for k in range(1, 99) if len(plan.references_at(k)) == cell["references"])
    training = dataclasses.replace(
        preset.training,
        steps=cell["steps"],
        ar_steps=ar_steps,
        warmup=min(preset.training.warmup, cell["steps"] // 4),
    )
    video = cell["video"]
    return Job(VIDEOS[video](), plan, preset.network, training, videos=preset.options["videos"][video][0])


def _cells(preset: Preset) -> list[Cell]:
    options = preset.options
    return [
        {"video": video, "method": method, "references": references, "level": level, "steps": steps}
        for video, (_, budgets) in options["videos"].items()
        for method, memories in options["memories"].items()
        for references, level in memories
        for steps in budgets
    ]


def networks(preset: Preset) -> list[Job[Video]]:
    """The networks that a preset trains."""
    return [_job(preset, cell) for cell in _cells(preset)]


_COLUMNS = ("mb", "see", "path", "first", "last", "growth")


def run(setting: Setting) -> dict[str, pd.DataFrame]:
    """Two tables.

    ``pareto``: a row a network, each column with its standard error in ``*_stderr``: ``mb``, ``see`` and ``path``
    (NIE + DE + SEE + CROSS) in nats a frame; the KL of the ``first`` and the ``last`` pair of frames and its
    ``growth``, in nats; ``front``: whether it is on its video's Pareto front of (mb, growth).
    ``pareto-correlation``: Spearman's rank correlations and their 95 % intervals, a row a (video, budget, pair of
    columns); budget 0 stands for all.
    """
    preset = PRESETS[setting.preset]

    def rows(cell: Cell) -> pd.DataFrame:
        found = dict(_measured(_job(preset, cell), preset, setting))
        values = {name: float(found[name]) for name in _COLUMNS}
        return pd.DataFrame([values | {f"{name}_stderr": float(found[name].stderr) for name in _COLUMNS}])

    table = setting.table("pareto", _cells(preset), rows)
    parts = [
        part.assign(front=pareto_front(np.stack([_rounded(part.mb), part.growth.to_numpy()], -1)))
        for _, part in table.groupby("video", sort=False)
    ]
    marked = pd.concat(parts, ignore_index=True)
    resamples = preset.options["resamples"]
    ranks = correlations(marked, resamples, setting.seed)
    write_table(marked, setting.folder / "pareto.csv")
    write_table(ranks, setting.folder / "pareto-correlation.csv")
    told = provenance({"preset": setting.preset, "resamples": resamples}, setting.seed)
    write_json(setting.folder / "pareto-correlation.provenance.json", told)
    return {"pareto": marked, "pareto-correlation": ranks}


def _measured(job: Job[Video], preset: Preset, setting: Setting) -> Iterator[tuple[str, Number]]:
    """The columns of one network."""
    video, plan, frames = job.video, job.plan, preset.options["frames"]
    ar_steps = _ar_steps(plan, frames)
    score = train_job(job, setting).as_score()
    terms = ledger(
        video, plan, ar_steps, score=score, girsanov=False, samples=preset.samples, seed=setting.seed
    ).terms
    for name, sums in (("mb", terms.total("mb")), ("see", terms.total("see")), ("path", terms.ar_paths.sum())):
        yield name, sums * (1 / frames)
    made = setting.generate(score, plan, ar_steps, preset.rollouts, video=video)
    first, last = (measured_kl(video, made, range(at, at + _PAIR), plan.floor) for at in (0, frames - _PAIR))
    yield "first", first
    yield "last", last
    # The pairs of a video share what they share of its noise: this error is too large rather than too small.
    yield "growth", last.plus_independent(-first)


def _rounded(bottleneck: pd.Series[float]) -> Array:
    return np.round(bottleneck.to_numpy() / _RESOLUTION)


def correlations(table: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """Spearman's rank correlation of the bottleneck with accumulation, and its percentile bootstrap interval.

    Args:
        table: of the networks.
        resamples: of the bootstrap, over networks.
        seed: of it.
    """
    generator = np.random.default_rng(seed)
    rows = []
    for video in table.video.unique():
        own = table[table.video == video]
        for steps in (0, *sorted(own.steps.unique())):
            part = own[own.steps == steps] if steps else own
            mb = _rounded(part.mb)
            draws = generator.integers(len(part), size=(resamples, len(part)))
            for quantity in ("growth", "last", "path", "see"):
                other = part[quantity].to_numpy()
                ends = interval(spearman(mb[draws], other[draws]))
                rows.append((video, int(steps), quantity, len(part), float(spearman(mb, other)), *ends))
    return pd.DataFrame(rows, columns=["video", "steps", "against", "networks", "spearman", "low", "high"])


def headline(tables: dict[str, pd.DataFrame]) -> str:
    """The rank correlations of the bottleneck with accumulation, and the front."""
    ranks, table = tables["pareto-correlation"], tables["pareto"]
    shown = ranks[ranks.against.isin(["growth", "last", "path"])].replace({"steps": {0: "all"}})
    front = table[table.front].sort_values(["video", "mb"])
    columns = ["video", "method", "references", "level", "steps", "mb", "growth", "growth_stderr", "see"]
    return (
        "Spearman's rank correlation of MB (nats a frame) with the growth of the pair KL from first to last, with "
        "the last, and with Σ path terms:\n"
        f"{shown.to_string(index=False, float_format='{:.2f}'.format)}\n\n"
        f"Pareto front of (MB, growth):\n{front[columns].to_string(index=False, float_format='{:.4f}'.format)}"
    )
