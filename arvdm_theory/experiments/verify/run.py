"""Checks of every identity and inequality of the theory, sweeps of exact ledgers, and the needle study."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from arvdm_theory.experiments.retrieval.run import NeedleConfig, NeedleResult, run_needle, write_needle
from arvdm_theory.experiments.verify.cases import SIZES
from arvdm_theory.experiments.verify.checks import (
    AR_STEP_TERM,
    CAUSE_ABOVE,
    bound_checks,
    lemma_checks,
    needle_checks,
    ratios,
    summary,
    verdicts,
)
from arvdm_theory.experiments.verify.finite import finite_checks
from arvdm_theory.experiments.verify.schedulers import SUMS
from arvdm_theory.experiments.verify.sweeps import SWEEPS
from arvdm_theory.tables import read_table

__all__ = ["every", "headline", "remarks", "run"]

_SHOWN = ["video", "plan", "step", "score_error", "term", "value", "bound", "slack", "passed"]


def run(size: str, folder: Path) -> tuple[pd.DataFrame, NeedleResult]:
    """All checks, a row each, and the needle study; tables of both and of the figures' sweeps land in ``folder``.

    Args:
        size: a name of :data:`arvdm_theory.experiments.verify.cases.SIZES`.
        folder: made if need be.
    """
    chosen = SIZES[size]
    grid, finite = bound_checks(chosen, folder), finite_checks(chosen, folder)
    tables = {name: sweep(chosen, folder, True) for name, sweep in SWEEPS.items()}
    needle = run_needle(NeedleConfig())
    write_needle(needle, folder / "needle.json")
    parts = [grid[grid.kind == "check"], finite, lemma_checks(tables["lemma"]), needle_checks(needle)]
    # What a table says of a check may only be too kind: numbers decide.
    shown = [verdicts(part)[[*_SHOWN, "relation", "unit"]] for part in parts]
    return pd.concat(shown, ignore_index=True), needle


def every(checks: pd.DataFrame) -> str:
    """All checks as text."""
    return checks[_SHOWN].to_string(index=False, float_format="{:.6g}".format)


def headline(checks: pd.DataFrame) -> str:
    """A row a check: how many cases put it to the test, and how close the closest comes to violating it."""
    shown = summary(checks).rename_axis(None)
    return (
        f"{shown.to_string(float_format='{:.6g}'.format)}\n"
        "smallest, median: of bound/value (1: equal; inf: the value is 0) over the cases that test anything;\n"
        "value and bound are those of the smallest. empty: cases in which both are 0 to rounding."
    )


def remarks(folder: Path) -> str:
    """How tight the AR-step ledger is, with the causes where it is not, and which sum ranks schedulers."""
    grid = read_table(folder / "checks.csv")
    rows = grid[grid.term == AR_STEP_TERM]
    found = ratios(rows)
    causes = rows.cause[found > CAUSE_ABOVE].value_counts()
    lines = [f"KL(AR-step)/KL(clean): median {found.median():.3g} of {len(rows)} cases, {causes.sum()} above "
             f"{CAUSE_ABOVE:g}"]  # fmt: skip
    lines += [f"  {number} for {cause}" for cause, number in causes.items()]
    ranks = folder / "scheduler_correlations.csv"
    if ranks.exists():
        table = read_table(ranks)
        shown = table[table.target == "kl"].assign(
            what=lambda part: part["sum"].map(SUMS),
            rank=lambda part: [f"{r.spearman:.2f} ({r.ci_low:.2f}, {r.ci_high:.2f})" for r in part.itertuples()],
        )
        wide = shown.pivot_table(
            index="what",
            columns=["family", "reverse_steps", "references"],
            values="rank",
            aggfunc="first",
            sort=False,
        )
        lines += ["", "rank correlation over grids with KL(clean), 95 % intervals over the choice of grids:",
                  wide.rename_axis(None).to_string()]  # fmt: skip
    return "\n".join(lines)
