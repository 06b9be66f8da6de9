"""The plans that the bounds are checked on, by name, and how much of the grid is run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from arvdm_theory.experiments.videos import GAUSSIAN_VIDEOS
from arvdm_theory.plan.methods import fifo, outpainting
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.references import References, causal_mask

__all__ = ["PLANS", "SIZES", "Size"]


def _chunks(reverse_steps: int, init_steps: int) -> Plan:
    return Plan((3.0, 3.0, 6.0, 6.0), 2, 6.0, reverse_steps, init_steps, references=References.last(2))


PLANS: dict[str, Callable[[int, int], Plan]] = {
    "outpainting, last 1": lambda m, n: outpainting(2, References.last(1), m, n),
    "outpainting, last 4": lambda m, n: outpainting(2, References.last(4), m, n),
    "outpainting, last 3 noised": lambda m, n: outpainting(2, References.last(3, 0.3), m, n),
    "outpainting, sink + last 2": lambda m, n: outpainting(2, References.first(1) + References.last(2), m, n),
    "outpainting, all": lambda m, n: outpainting(2, References.all(), m, n),
    "FIFO": lambda m, n: fifo(4, References.none(), m, n),
    "FIFO, last 3": lambda m, n: fifo(4, References.last(3), m, n),
    "FIFO, warm-up": lambda m, n: Plan(
        (1.5, 3.0, 4.5, 6.0), 1, 6.0, m, n, references=References.last(1), initialisation="warmup"
    ),
    "FIFO, stopped early": lambda m, n: Plan((2.0, 4.0, 6.0), 1, 6.0, m, n, floor=0.02, spacing="geometric"),
    "chunks of 2": _chunks,
    "causal": lambda m, n: Plan(
        (6.0, 6.0), 2, 6.0, m, n, references=References.last(2), visible=(causal_mask(2),)
    ),
}
"""Plans by name, from the numbers of reverse steps (AR step, initialisation); T = 6 throughout."""


@dataclass(frozen=True)
class Size:
    """How much of the grid is run.

    Attributes:
        videos: names of :data:`arvdm_theory.experiments.videos.GAUSSIAN_VIDEOS`.
        plans: names of :data:`PLANS`.
        steps: reverse steps.
        score_errors: e of the score s* - e W.
        ar_steps: K.
        reverse_steps: M_AR.
        init_steps: M_init.
        sweep: points of each figure's sweep.
        laws: random joint laws for the lemma.
    """

    videos: tuple[str, ...]
    plans: tuple[str, ...]
    steps: tuple[str, ...]
    score_errors: tuple[float, ...]
    ar_steps: int
    reverse_steps: int
    init_steps: int
    sweep: int
    laws: int


SIZES: dict[str, Size] = {
    "smoke": Size(
        ("AR(1) 0.8", "needle"), ("outpainting, last 1", "FIFO, last 3"), ("exponential", "ancestral"),
        (0.05,), 3, 4, 6, 4, 60,
    ),
    "default": Size(
        tuple(GAUSSIAN_VIDEOS), tuple(PLANS), ("exponential", "euler", "ancestral"), (0.0, 0.05), 4, 8, 12, 7, 400
    ),
    "full": Size(
        tuple(GAUSSIAN_VIDEOS), tuple(PLANS), ("exponential", "euler", "ancestral"), (0.0, 0.01, 0.05, -0.05),
        7, 20, 20, 10, 4000,
    ),
}  # fmt: skip
"""The sizes of the main job by name."""
