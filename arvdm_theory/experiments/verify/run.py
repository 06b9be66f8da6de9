"""The bound-checking experiment: every identity and inequality of the theory on a grid of videos and plans.

A cell of the grid is a (video, plan, reverse step, score error). Its rows are checks of the form
value ≤ bound, or value = bound; a check passes if it holds to rounding, 1e-9 of the bound's size: the terms are
sums of at most a few thousand float64 numbers computed to about 1e-13, and no slack is tuned to them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from arvdm_theory.bounds.accumulation import ClipBoundError, require_clip_bound
from arvdm_theory.decomposition.ledger import Ledger, ledger
from arvdm_theory.decomposition.trajectory import trajectory_kl
from arvdm_theory.diffusion.scores import PerturbedScore
from arvdm_theory.experiments.record import Cell, run_cells
from arvdm_theory.experiments.verify.grid import PLANS, VIDEOS

__all__ = ["CHECK_COLUMNS", "SIZES", "Size", "bound_checks", "check_rows", "lemma_checks"]

Relation = Literal["=", "<="]
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Size:
    """How much of the grid is run.

    Attributes:
        videos: names of :data:`arvdm_theory.experiments.verify.grid.VIDEOS`.
        plans: names of :data:`arvdm_theory.experiments.verify.grid.PLANS`.
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
        tuple(VIDEOS), tuple(PLANS), ("exponential", "euler", "ancestral"), (0.0, 0.05), 4, 8, 12, 7, 400
    ),
    "full": Size(
        tuple(VIDEOS), tuple(PLANS), ("exponential", "euler", "ancestral"), (0.0, 0.01, 0.05, -0.05), 7, 20, 20,
        10, 4000,
    ),
}  # fmt: skip
"""The sizes of the main job by name."""


def check_rows(
    result: Ledger, dense: float | None, clip_bound: bool
) -> Iterator[tuple[str, float, Relation, float]]:
    """The checks (name, value, relation, bound) of one ledger; those not defined for it are left out.

    Args:
        result: the ledger.
        dense: the trajectory KL computed without it, or None.
        clip_bound: whether the plan meets the condition of the K-fold bound.
    """
    totals, terms = result.totals, result.terms

    def pair(
        name: str, value: float | None, relation: Relation, bound: float | None
    ) -> Iterator[tuple[str, float, Relation, float]]:
        if value is not None and bound is not None:
            yield name, value, relation, bound

    yield from pair("ledger = KL(trajectory)", totals["trajectory_kl"], "=", dense)
    yield from pair("KL(clean) ≤ KL(trajectory)", totals["kl"], "<=", totals["trajectory_kl"])
    yield from pair("KL(trajectory) ≤ with init. path", totals["trajectory_kl"], "<=", totals["path_kl"])
    yield from pair("with init. path ≤ Girsanov", totals["path_kl"], "<=", totals["girsanov"])
    yield from pair("Girsanov ≤ closed bound", totals["girsanov"], "<=", totals["closed"])
    yield from pair("IE + Σ MB ≤ KL(clean)", totals["lower_bound"], "<=", totals["kl"])
    assert totals["nie_init"] is not None
    assert totals["nie_ar"] is not None
    over = terms.over_modes
    nie = totals["nie_init"] + totals["nie_ar"]
    nie_bound = float(over(terms.nie_init_closed)) + float(over(terms.nie_ar_closed).sum())
    yield "NIE ≤ closed bound", nie, "<=", nie_bound
    if totals["de"] is not None:
        # Cauchy-Schwarz step by step: |CROSS| ≤ 2 √(DE · SEE); summed over steps with Cauchy-Schwarz again.
        cross = float(over(terms.cross.abs()).sum())
        yield "|CROSS| ≤ 2 √(DE SEE)", cross, "<=", 2 * math.sqrt(totals["de"] * (totals["see"] or 0.0))
    if clip_bound:
        clips, bounds = result.column("CLIP_KL"), result.column("CLIP_BOUND")
        for value, bound in [max(zip(clips, bounds, strict=True), key=lambda both: both[0] - both[1])]:
            yield "KL(clip) ≤ K-fold bound", value, "<=", bound


def _cell(cell: Cell, size: Size) -> pd.DataFrame:
    video, plan = VIDEOS[cell["video"]](), PLANS[cell["plan"]](size.reverse_steps, size.init_steps)
    score = PerturbedScore(cell["score_error"]) if cell["score_error"] else None
    result = ledger(video, plan, size.ar_steps, score, cell["step"])
    dense = float(trajectory_kl(video, plan, size.ar_steps, score, cell["step"]))
    try:
        require_clip_bound(plan, size.ar_steps)
        clip_bound = True
    except ClipBoundError:
        clip_bound = False
    rows: list[tuple[str, str, float, str, float, float, bool]] = []
    for name, value, relation, bound in check_rows(result, dense, clip_bound):
        slack = bound - value if relation == "<=" else -abs(bound - value)
        rows.append(("check", name, value, relation, bound, slack, slack >= -_ROUNDING * max(1.0, abs(bound))))
    for name, total in result.totals.items():
        if total is not None:
            rows.append(("total", name, total, "", math.nan, math.nan, True))
    return pd.DataFrame(rows, columns=["kind", "term", "value", "relation", "bound", "slack", "passed"])


def bound_checks(size: Size, folder: Path, progress: bool = True) -> pd.DataFrame:
    """Runs the grid; a row a (cell, check or total), saved as ``checks.csv`` in ``folder``."""
    cells = [
        {"video": video, "plan": plan, "step": step, "score_error": error, "ar_steps": size.ar_steps,
         "reverse_steps": size.reverse_steps, "init_steps": size.init_steps}
        for video in size.videos for plan in size.plans for step in size.steps for error in size.score_errors
    ]  # fmt: skip
    return run_cells("checks", cells, lambda cell: _cell(cell, size), folder, progress=progress)


CHECK_COLUMNS = (
    "video", "plan", "step", "score_error", "term", "value", "relation", "bound", "slack", "passed",
)  # fmt: skip
"""The columns that every table of checks shares."""


def lemma_checks(lemma: pd.DataFrame) -> pd.DataFrame:
    """A check for every random law and kernel of the impossibility lemma's table."""
    return pd.DataFrame(
        {
            "video": "random " + lemma.law.astype(str) + " law",
            "plan": "random kernel",
            "step": "-",
            "score_error": 0.0,
            "term": "MB ≤ cost of a kernel",
            "value": lemma.memory_bottleneck,
            "relation": "<=",
            "bound": lemma.cost,
            "slack": lemma.cost - lemma.memory_bottleneck,
            "passed": lemma.holds.astype(bool),
        }
    )
