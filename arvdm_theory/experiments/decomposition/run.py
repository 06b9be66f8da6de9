"""The measured error terms stacked beside the measured KL, per method and number of reverse steps.

One network a (video, method) is trained at the levels of the finest grid, of which the coarser ones are rows. Its
ledger's terms are averages over true videos; nothing that they say has seen a generated one. Beside them stands
what its rollout is measured to be: for the Gaussian video the KL of all clean frames and of the last clip, from
the known law to the Gaussian with the generated moments; for the finite-state one the KL of what is read in them.
All methods generate the same number of frames in the same number of reverse steps a frame, of which a frame of
FIFO makes w AR steps' worth and one of outpainting a single one's.

The first input has a bound in the stack, NIE and path terms of the initialisation stage, for trained and exact
scores alike: IE itself needs the law of a rollout.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator

import pandas as pd

from arvdm_theory.decomposition.ledger import ledger
from arvdm_theory.experiments.networks import Job, Network, Preset, Setting, train_job
from arvdm_theory.experiments.record import Cell
from arvdm_theory.experiments.videos import VIDEOS, Video
from arvdm_theory.interfaces import Score
from arvdm_theory.number import Number
from arvdm_theory.plan import Plan, References, fifo, outpainting
from arvdm_theory.rollout.measure import measured_kl
from arvdm_theory.training.config import TrainingConfig

__all__ = ["METHODS", "PRESETS", "TERMS", "headline", "networks", "plan_of", "run"]

_VIDEOS = ("reference", "two poses")

TERMS = ("ie", "nie_ar", "de", "see", "cross", "mb")
"""What is stacked, and sums to the path KL; ``ie`` is the first input's bound."""


@dataclasses.dataclass(frozen=True)
class _Method:
    """A plan for n reverse steps a frame.

    Attributes:
        build: (references, M, M_init) → plan, with levels that fall to 0.
        references: how many of the last clean frames are shown.
        share: M = n/share, as a frame is moved in so many AR steps.
        trained: AR steps whose windows are trained on; those after it show the network nothing new.
    """

    build: Callable[[References, int, int], Plan]
    references: int
    share: int
    trained: int


METHODS: dict[str, _Method] = {
    "outpainting, 1 reference": _Method(lambda r, m, n: outpainting(2, r, m, n), 1, 1, 1),
    "outpainting, 4 references": _Method(lambda r, m, n: outpainting(2, r, m, n), 4, 1, 2),
    "FIFO, no reference": _Method(lambda r, m, n: fifo(4, r, m, n), 0, 4, 1),
    "FIFO, 3 references": _Method(lambda r, m, n: fifo(4, r, m, n), 3, 4, 4),
}
"""The methods: windows of 2 for outpainting and of 4 for FIFO."""

PRESETS = {
    "smoke": Preset(
        Network(options={"width": 32, "depth": 1}),
        TrainingConfig(steps=10, batch=64, warmup=2, ema=0.9, tensorboard=False),
        rollouts=500, samples=50, ar_steps=0, reverse_steps=8, note="seconds on one core",
        options={
            "methods": ("outpainting, 1 reference", "FIFO, 3 references"), "steps_a_frame": (4, 8),
            "frames": {"reference": 4, "two poses": 4},
        },
    ),
    "cpu": Preset(
        Network(options={"width": 128, "depth": 2}),
        TrainingConfig(steps=2000, batch=256, lr=2e-3, warmup=100, ema=0.995),
        rollouts=4000, samples=1000, ar_steps=0, reverse_steps=40, note="two cores, under 1 GiB",
        options={
            "methods": tuple(METHODS), "steps_a_frame": (8, 20, 40), "frames": {"reference": 12, "two poses": 8},
        },
    ),
    "gpu": Preset(
        Network("transformer", options={"width": 512, "depth": 8, "heads": 8}),
        TrainingConfig(steps=100_000, batch=4096, lr=3e-4, warmup=2000, ema=0.9999),
        rollouts=100_000, samples=20_000, ar_steps=0, reverse_steps=160,
        note="one CUDA device of 24 GiB, about an hour a network",
        options={
            "methods": tuple(METHODS), "steps_a_frame": (8, 16, 32, 40, 80, 160),
            "frames": {"reference": 24, "two poses": 12},
        },
    ),
}  # fmt: skip
"""``ar_steps`` follows from the frames asked for; ``reverse_steps`` is the finest grid's, a frame."""


def plan_of(video: str, method: str, steps_a_frame: int) -> Plan:
    """A method's plan; for a finite-state video it stops at δ = 0.02 on geometric levels."""
    own = METHODS[method]
    plan = own.build(References.last(own.references), steps_a_frame // own.share, steps_a_frame)
    if VIDEOS[video]().atomic:
        empty: dict[str, object] = {"output_levels": (), "ar_grid": (), "init_grid": ()}
        plan = dataclasses.replace(plan, floor=0.02, spacing="geometric", **empty)  # type: ignore[arg-type]
    return plan


def _job(preset: Preset, video: str, method: str) -> Job[Video]:
    training = dataclasses.replace(preset.training, ar_steps=METHODS[method].trained)
    return Job(VIDEOS[video](), plan_of(video, method, preset.reverse_steps), preset.network, training)


def networks(preset: Preset) -> list[Job[Video]]:
    """The networks that a preset trains."""
    return [_job(preset, video, method) for video in _VIDEOS for method in preset.options["methods"]]


def run(setting: Setting) -> dict[str, pd.DataFrame]:
    """The table: a row a (video, method, steps a frame, source, quantity), in nats.

    The source is the ``trained`` network or the ``exact`` score. Quantities: the stacked :data:`TERMS`, their sum
    ``path_kl``, and ``kl`` of all clean frames and ``last_clip_kl``, which are measured on rollouts but for the
    exact score of a Gaussian video, where both are in closed form.
    """
    preset = PRESETS[setting.preset]
    cells = [
        {"video": video, "method": method, "steps_a_frame": steps}
        for video in _VIDEOS
        for method in preset.options["methods"]
        for steps in preset.options["steps_a_frame"]
    ]

    def rows(cell: Cell) -> Iterator[tuple[int, int, str, str, Number]]:
        job = _job(preset, cell["video"], cell["method"])
        plan = plan_of(cell["video"], cell["method"], cell["steps_a_frame"])
        ar_steps = preset.options["frames"][cell["video"]] // plan.stride - (not plan.overlapping)
        for source, score in (("trained", train_job(job, setting).as_score()), ("exact", None)):
            for row in _accounted(job.video, plan, ar_steps, score, preset, setting):
                yield plan.reverse_steps, ar_steps, source, *row

    columns = ["reverse_steps", "ar_steps", "source", "quantity", "value", "stderr"]
    return {"decomposition": setting.table("decomposition", cells, rows, columns)}


def _accounted(
    video: Video, plan: Plan, ar_steps: int, score: Score | None, preset: Preset, setting: Setting
) -> Iterator[tuple[str, Number]]:
    """The ledger's terms of a score (None: the exact one), and the KL of what it generates."""
    terms = ledger(
        video, plan, ar_steps, score=score, girsanov=False, samples=preset.samples, seed=setting.seed
    ).terms
    yield "ie", terms.initialisation.path
    for name in TERMS[1:]:
        yield name, terms.total(name.removesuffix("_ar"))
    yield "path_kl", terms.path
    if score is None and terms.kl is not None:
        yield "kl", terms.kl
        yield "last_clip_kl", terms.clips[-1]
        return
    made = setting.generate(score, plan, ar_steps, preset.rollouts, video=video)
    yield "kl", measured_kl(video, made, range(plan.clean_frames(ar_steps)), plan.floor)
    yield "last_clip_kl", measured_kl(video, made, plan.clip_frames(ar_steps), plan.floor)


def headline(tables: dict[str, pd.DataFrame]) -> str:
    """Measured KL and path KL of the trained networks, and by how many standard errors the bound holds."""
    table = tables["decomposition"]
    part = table[(table.source == "trained") & table.quantity.isin(["kl", "path_kl"])]
    keys = ["video", "method", "steps_a_frame"]
    value = part.pivot_table(index=keys, columns="quantity", values="value", sort=False)
    error = part.pivot_table(index=keys, columns="quantity", values="stderr", sort=False)
    spread = (error.kl**2 + error.path_kl**2).map(math.sqrt)
    shown = value.assign(ratio=value.path_kl / value.kl, margin=(value.path_kl - value.kl) / spread)
    broken = int((shown.margin < -3).sum())
    text: str = shown.to_string(float_format=lambda number: f"{number:.3f}")
    return (
        f"measured KL of all clean frames, path KL, their ratio, and the margin in standard errors:\n{text}\n"
        f"measured KL above path KL by more than three standard errors: {broken} of {len(shown)}"
    )
