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

from arvdm_theory.decomposition.ledger import ledger
from arvdm_theory.decomposition.result import Result
from arvdm_theory.decomposition.trajectory import trajectory_kl
from arvdm_theory.diffusion.scores import PerturbedScore
from arvdm_theory.experiments.record import Cell, run_cells
from arvdm_theory.experiments.retrieval.run import NeedleResult
from arvdm_theory.experiments.verify.cases import PLANS, Size
from arvdm_theory.experiments.videos import GAUSSIAN_VIDEOS
from arvdm_theory.plan.plan import Plan

__all__ = [
    "AR_STEP_TERM",
    "CAUSE_ABOVE",
    "Check",
    "bound_checks",
    "judged",
    "lemma_checks",
    "needle_checks",
    "ratios",
    "summary",
    "verdicts",
]

AR_STEP_TERM = "KL(clean) ≤ KL(AR-step)"
"""The check whose ratios say how tight the AR-step ledger is."""
CAUSE_ABOVE = 3.0
"""Above this ratio of KL(AR-step) to KL(clean) the table names the cause."""

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
    return verdicts(pd.DataFrame(list(checks), columns=list(Check._fields)))


def verdicts(table: pd.DataFrame) -> pd.DataFrame:
    """The checks with slack and verdict made of their numbers; one that was said to fail before fails."""
    # A cost may be infinite, and so may what is held against it.
    slack = np.where(table.value == table.bound, 0.0, table.bound - table.value)
    slack = np.where(table.relation == "=", -np.abs(slack), slack)
    room = _ERRORS_ALLOWED * table.get("stderr", 0.0) + _ROUNDING * table.bound.abs().clip(lower=1.0)
    passed = (slack >= -room) & table.get("passed", pd.Series(True, table.index)).astype(bool)
    return table.assign(slack=slack, passed=passed)


def _ledger_checks(result: Result, plan: Plan, dense: float) -> Iterator[Check]:
    """The checks of one ledger; those not defined for it are left out.

    Args:
        result: the ledger, with the saturating bound.
        plan: its plan.
        dense: the trajectory KL computed without it.
    """
    totals, terms = result.totals, result.terms
    trajectory, path, girsanov = (totals[name] for name in ("trajectory_kl", "path_kl", "girsanov"))
    kl, ar_step = totals["kl"], totals["ar_step_kl"]
    only_clean = not (plan.overlapping or _noises(plan))
    for term, value, relation, bound in (
        ("ledger = KL(trajectory)", trajectory, "=", dense),
        (AR_STEP_TERM, kl, "<=", ar_step),
        ("KL(clean) = KL(AR-step), w = Δ, clean references", kl, "=", ar_step if only_clean else None),
        ("KL(AR-step) ≤ KL(trajectory)", ar_step, "<=", trajectory),
        ("KL(trajectory) ≤ with init. path", trajectory, "<=", path),
        ("with init. path ≤ Girsanov", path, "<=", girsanov),
        ("Girsanov ≤ closed bound", girsanov, "<=", totals["closed"]),
        ("Σ I(Output; Past | clean references) ≤ KL(clean)", totals["floor"], "<=", kl),
        ("IE + Σ MB ≤ KL(clean)", totals["lower_bound"], "<=", kl),
    ):
        if value is not None and bound is not None:
            yield Check(term, value, relation, bound)  # type: ignore[arg-type]
    if terms.of("nie_closed") is not None:
        nie, closed = (terms.total(name) + getattr(terms.initialisation, name) for name in ("nie", "nie_closed"))
        yield Check("NIE ≤ closed bound", float(nie), "<=", float(closed))
    # Cauchy-Schwarz step by step: |CROSS| ≤ 2 √(DE · SEE); summed over steps with Cauchy-Schwarz again.
    cross = float(terms.of("cross").value.abs().sum())
    yield Check(
        "|CROSS| ≤ 2 √(DE SEE)", cross, "<=", 2 * math.sqrt(float(terms.total("de")) * float(terms.total("see")))
    )
    errors, clips, saturating, apart = (
        result.column(term) for term in ("AR_STEP", "CLIP_KL", "ACCUMULATION_BOUND", "CLIP_W2")
    )
    curves = [
        ("E_k ≤ NIE_AR + path terms", errors, terms.ar_paths.value.tolist()),
        ("KL(clip) ≤ saturating bound", clips, saturating),
        ("KL(clip) ≤ K-fold bound", clips, result.column("CLIP_BOUND")),
    ]
    if result.column("CLIP_BOUND"):  # section 5's condition holds
        piling = (float(terms.ie) + np.cumsum(errors)).tolist()
        curves.append(("saturating bound ≤ IE + Σ E_k", saturating, piling))
    for term, values, bounds in curves:
        if values and bounds:
            # Of the AR step that comes closest to violating it.
            pairs = zip(values, bounds, strict=True)
            value, bound = max(pairs, key=lambda pair: pair[0] - pair[1])
            yield Check(term, value, "<=", bound)
    # The best coupling of all frames couples every clip: its squared cost is at least the sum of the clips' own.
    if terms.kl_w2 is not None:
        yield Check("√Σ W_2²(clip) ≤ W_2(clean)", math.hypot(*apart), "<=", float(terms.kl_w2), unit="frame")


def _cause(result: Result, plan: Plan) -> str:
    """What the AR-step trajectory holds beside the clean frames, and which of its terms are large by it.

    KL(AR-step) - KL(clean) = E KL(P ‖ Q) of the noisy window states and the freshly noised references given all
    clean frames, and nothing else. Which of the two there are is read off the plan. The largest of IE, Σ E_k and
    Σ MB says how they count: Σ E_k, if errors of noisy states are forgotten before they come out clean; Σ MB, if
    what noise hides from an AR step shows in clean frames later.
    """
    held = ["noisy window states"] * plan.overlapping + ["noised references"] * _noises(plan)
    parts = {
        "IE": float(result.terms.ie),
        "Σ E_k": sum(result.column("AR_STEP")),
        "Σ MB": sum(result.column("MB")),
    }
    return f"{' and '.join(held)}, mostly {max(parts, key=lambda name: parts[name])}"


def _noises(plan: Plan) -> bool:
    return any(pick.level > plan.floor for pick in plan.references.picks)


def _cell(cell: Cell, size: Size) -> pd.DataFrame:
    video, plan = GAUSSIAN_VIDEOS[cell["video"]](), PLANS[cell["plan"]](size.reverse_steps, size.init_steps)
    score = PerturbedScore(cell["score_error"]) if cell["score_error"] else None
    result = ledger(video, plan, size.ar_steps, score=score, step=cell["step"], accumulation=True)
    dense = float(trajectory_kl(video, plan, size.ar_steps, score, cell["step"]))
    checks = judged(_ledger_checks(result, plan, dense)).assign(kind="check", cause="")
    looser = (checks.term == AR_STEP_TERM) & (ratios(checks) > CAUSE_ABOVE)
    checks.loc[looser, "cause"] = _cause(result, plan)
    totals = [(name, total) for name, total in result.totals.items() if total is not None]
    totalled = pd.DataFrame(totals, columns=["term", "value"]).assign(
        kind="total", relation="", passed=True, cause=""
    )
    return pd.concat([checks, totalled], ignore_index=True)


def bound_checks(size: Size, folder: Path, progress: bool = True) -> pd.DataFrame:
    """Runs the grid; a row a (cell, check or total), saved as ``checks.csv`` in ``folder``.

    Where KL(AR-step) is above :data:`CAUSE_ABOVE` times KL(clean), ``cause`` says why.
    """
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
