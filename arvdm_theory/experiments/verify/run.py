"""Checks of every identity and inequality of the theory, sweeps of exact ledgers, and the needle study."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from arvdm_theory.experiments.retrieval.run import NeedleConfig, NeedleResult, run_needle, write_needle
from arvdm_theory.experiments.verify.cases import SIZES
from arvdm_theory.experiments.verify.checks import bound_checks, lemma_checks, needle_checks, summary
from arvdm_theory.experiments.verify.finite import finite_checks
from arvdm_theory.experiments.verify.sweeps import SWEEPS

__all__ = ["every", "headline", "run"]

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
    checks = pd.concat([part[[*_SHOWN, "relation", "unit"]] for part in parts], ignore_index=True)
    return checks.astype({"passed": bool}), needle


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
