"""Every identity and inequality of the theory on a grid of videos and plans, as checks that hold or do not.

A cell of the grid is a (video, plan, reverse step, score error). Its rows are checks of the form value ≤ bound,
or value = bound. One of exact numbers passes if it holds to rounding, 1e-9 of the bound's size: the terms are sums
of at most a few thousand float64 numbers computed to about 1e-13, and no slack is tuned to them. One of averages
over sampled videos passes if it holds within five standard errors: among a hundred of these a correct library
fails one with a probability below 1e-4.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from arvdm_theory.bounds.accumulation import ClipBoundError, require_clip_bound
from arvdm_theory.decomposition.ledger import Ledger, ledger
from arvdm_theory.decomposition.trajectory import trajectory_kl
from arvdm_theory.diffusion.scores import PerturbedScore
from arvdm_theory.experiments.record import Cell, run_cells
from arvdm_theory.experiments.retrieval.run import NeedleResult
from arvdm_theory.experiments.verify.cases import PLANS, Size
from arvdm_theory.experiments.videos import GAUSSIAN_VIDEOS

__all__ = ["Check", "bound_checks", "judged", "lemma_checks", "needle_checks", "ratios", "summary"]

_ROUNDING = 1e-9
_ERRORS_ALLOWED = 5.0


class Check(NamedTuple):
    """Value ≤ bound, or value = bound, and the standard error of their difference (0: both are exact)."""

    term: str
    value: float
    relation: Literal["=", "<="]
    bound: float
    stderr: float = 0.0
    unit: str = "nats"


def judged(checks: Iterable[Check]) -> pd.DataFrame:
    """A row a check: ``slack`` is bound - value, of an equality -|bound - value|; ``passed`` allows for errors."""
    table = pd.DataFrame(list(checks), columns=list(Check._fields))
    # A cost may be infinite, and so may what is held against it.
    slack = np.where(table.value == table.bound, 0.0, table.bound - table.value)
    slack = np.where(table.relation == "=", -np.abs(slack), slack)
    room = _ERRORS_ALLOWED * table.stderr + _ROUNDING * table.bound.abs().clip(lower=1.0)
    return table.assign(slack=slack, passed=slack >= -room)


def _ledger_checks(result: Ledger, dense: float | None, clip_bound: bool) -> Iterator[Check]:
    """The checks of one ledger; those not defined for it are left out.

    Args:
        result: the ledger.
        dense: the trajectory KL computed without it, or None.
        clip_bound: whether the plan meets the condition of the K-fold bound.
    """
    totals, terms = result.totals, result.terms
    trajectory, path, girsanov = (totals[name] for name in ("trajectory_kl", "path_kl", "girsanov"))
    for term, value, relation, bound in (
        ("ledger = KL(trajectory)", trajectory, "=", dense),
        ("KL(clean) ≤ KL(trajectory)", totals["kl"], "<=", trajectory),
        ("KL(trajectory) ≤ with init. path", trajectory, "<=", path),
        ("with init. path ≤ Girsanov", path, "<=", girsanov),
        ("Girsanov ≤ closed bound", girsanov, "<=", totals["closed"]),
        ("Σ I(Output; Past | clean references) ≤ KL(clean)", totals.get("floor"), "<=", totals["kl"]),
        ("IE + Σ MB ≤ KL(clean)", totals["lower_bound"], "<=", totals["kl"]),
    ):
        if value is not None and bound is not None:
            yield Check(term, value, relation, bound)  # type: ignore[arg-type]
    assert totals["nie_init"] is not None
    assert totals["nie_ar"] is not None
    over = terms.over_modes
    nie = totals["nie_init"] + totals["nie_ar"]
    nie_bound = float(over(terms.nie_init_closed)) + float(over(terms.nie_ar_closed).sum())
    yield Check("NIE ≤ closed bound", nie, "<=", nie_bound)
    if totals["de"] is not None:
        # Cauchy-Schwarz step by step: |CROSS| ≤ 2 √(DE · SEE); summed over steps with Cauchy-Schwarz again.
        cross = float(over(terms.cross.abs()).sum())
        yield Check("|CROSS| ≤ 2 √(DE SEE)", cross, "<=", 2 * math.sqrt(totals["de"] * (totals["see"] or 0.0)))
    if clip_bound:
        pairs = zip(result.column("CLIP_KL"), result.column("CLIP_BOUND"), strict=True)
        value, bound = max(pairs, key=lambda both: both[0] - both[1])
        yield Check("KL(clip) ≤ K-fold bound", value, "<=", bound)


def _cell(cell: Cell, size: Size) -> pd.DataFrame:
    video, plan = GAUSSIAN_VIDEOS[cell["video"]](), PLANS[cell["plan"]](size.reverse_steps, size.init_steps)
    score = PerturbedScore(cell["score_error"]) if cell["score_error"] else None
    result = ledger(video, plan, size.ar_steps, score, cell["step"])
    dense = float(trajectory_kl(video, plan, size.ar_steps, score, cell["step"]))
    try:
        require_clip_bound(plan, size.ar_steps)
        clip_bound = True
    except ClipBoundError:
        clip_bound = False
    checks = judged(_ledger_checks(result, dense, clip_bound)).assign(kind="check")
    totals = [(name, total) for name, total in result.totals.items() if total is not None]
    totalled = pd.DataFrame(totals, columns=["term", "value"]).assign(kind="total", relation="", passed=True)
    return pd.concat([checks, totalled], ignore_index=True)


def bound_checks(size: Size, folder: Path, progress: bool = True) -> pd.DataFrame:
    """Runs the grid; a row a (cell, check or total), saved as ``checks.csv`` in ``folder``."""
    cells = [
        {"video": video, "plan": plan, "step": step, "score_error": error, "ar_steps": size.ar_steps,
         "reverse_steps": size.reverse_steps, "init_steps": size.init_steps}
        for video in size.videos for plan in size.plans for step in size.steps for error in size.score_errors
    ]  # fmt: skip
    return run_cells("checks", cells, lambda cell: _cell(cell, size), folder, progress=progress)


def lemma_checks(lemma: pd.DataFrame) -> pd.DataFrame:
    """A check for every random law and kernel of the impossibility lemma's table."""
    pairs = zip(lemma.memory_bottleneck, lemma.cost, strict=True)
    checks = judged(Check("MB ≤ cost of a kernel", bottleneck, "<=", cost) for bottleneck, cost in pairs)
    passed = checks.passed.to_numpy() & lemma.holds.to_numpy(dtype=bool)
    video = "random " + lemma.law.astype(str) + " law"
    return checks.assign(video=video.to_numpy(), plan="random kernel", step="-", score_error=0.0, passed=passed)


def needle_checks(result: NeedleResult) -> pd.DataFrame:
    """A check for every memory length of the needle study that was asked for, and quantity.

    Played games must agree with the closed form within five standard errors. The best generator's rate of revisits
    must lie within what the nats lost a revisit leave open (these, and not MB, which counts all other frames too):
    by Jensen's inequality -log rate ≤ nats lost, and the rate is at most Fano's bound.
    """
    config, checks, plans = result.config, list[Check](), list[str]()
    for row in result.asked.to_dict("records"):
        for column, name, unit in (("mb_per_step", "MB", "nats"), ("cell_rate", "best retrieval rate", "rate")):
            if row.get(f"played_{column}_error", 0.0) > 0:
                gap, room = abs(row[f"played_{column}"] - row[column]), 5 * row[f"played_{column}_error"]
                checks.append(Check(f"needle: {name}, played = exact within 5 SE", gap, "<=", room, unit=unit))
        if row["frame_rate"] == row["frame_rate"]:
            nats, high = -math.log(row["frame_rate"]), row["frame_rate_high"]
            lost, by_fano = "nats lost a revisit", "Fano's bound of the nats lost a revisit"
            checks += [
                Check(f"needle: -log best retrieval rate ≤ {lost}", nats, "<=", row["lost_per_revisit"]),
                Check(f"needle: best retrieval rate ≤ {by_fano}", row["frame_rate"], "<=", high, unit="rate"),
            ]
        plans += [f"last {row['memory']}"] * (len(checks) - len(plans))
    video = f"{config.world} of {config.cells}, {config.colours} colours"
    return judged(checks).assign(video=video, plan=plans, step="-", score_error=0.0)


def ratios(checks: pd.DataFrame) -> pd.Series[float]:
    """How close each check comes to being violated: bound/value; of an equality that or its inverse, the lesser.

    1 is as close as can be. A value of 0 or less is below every bound that is no less: infinite. NaN where both
    are within rounding of 0, and nothing was put to the test.
    """
    value, bound = checks.value.to_numpy(), checks.bound.to_numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        up, down = np.where(value == bound, 1.0, bound / value), np.where(value == bound, 1.0, value / bound)
    below = np.where(value > 0, up, np.where(bound >= value, np.inf, -np.inf))
    found = np.where(checks.relation == "=", np.fmin(up, down), below)
    empty = np.maximum(np.abs(value), np.abs(bound)) <= _ROUNDING
    return pd.Series(np.where(empty, np.nan, found), checks.index, dtype=np.float64)


def summary(checks: pd.DataFrame) -> pd.DataFrame:
    """A row a check, by its term.

    ``cases`` that put it to the test, ``empty`` ones beside them, the ``smallest`` and the ``median`` of their
    :func:`ratios`, the ``unit``, and of the case with the smallest ratio (of equal ones, with the least slack)
    its ``value``, ``bound`` and ``closest``, which names it.
    """
    ranked = checks.assign(ratio=ratios(checks)).sort_values(["ratio", "slack"], kind="stable")
    groups = ranked.groupby("term", sort=False)
    # The first of a group is its closest case; all of it is NaN where every case is empty.
    closest = groups.head(1).set_index("term")
    failed = groups.size() - groups.passed.sum()
    table = pd.DataFrame({
        "verdict": failed.map(lambda number: f"FAIL ({number})" if number else "pass"),
        "cases": groups.ratio.count(), "empty": groups.size() - groups.ratio.count(),
        "smallest": groups.ratio.min(), "median": groups.ratio.median(),
        "value": closest.value, "bound": closest.bound, "unit": closest.unit,
        "closest": closest.video + " · " + closest.plan + " · " + closest.step,
    })  # fmt: skip
    return table.reindex(checks.term.unique())
