"""Which sum ranks schedulers? Sums of errors against the KL that one gets, over grids of levels, exactly.

Everything but the grid is held fixed: the reference video, the exact score, the exponential integrator, K = 8 AR
steps. Rank correlations over the grids say whether a sum would have chosen the better one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from arvdm_theory.decomposition.ledger import ledger_terms
from arvdm_theory.experiments.ranks import interval, spearman
from arvdm_theory.experiments.record import Cell, run_cells
from arvdm_theory.experiments.verify.cases import Size
from arvdm_theory.laws.linear import reference_video
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.references import References

__all__ = ["GRIDS", "POWERS", "SUMS", "correlations", "scheduler_plan", "schedulers", "sums"]

GRIDS = ("uniform", "geometric", "karras:3", "karras:7", "tangent:0.3", "tangent:1", "flow:1", "flow:3", "flow:8",
         "cosine")  # fmt: skip
"""Spacings from T = 6 to 0.001 of two frames that are denoised together."""
POWERS = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
"""Exponents p of the input levels t^I_j = T (j/w)^p of FIFO, w = 4, each with uniform and geometric spacing."""
SUMS = {
    "per_step": "sum of per-step errors",
    "girsanov": "Girsanov form",
    "ar_step": "Σ E_k, errors of AR steps",
    "last_ar_step": "E_K of the last AR step",
}
"""What might rank schedulers: Σ_k (NIE + Σ_m path terms), the same of the Girsanov form, Σ E_k, and E_K."""

_AR_STEPS = 8
_WINDOWS = ((6, 1), (6, 4), (20, 1), (20, 4))
_STAIRS = (10, 2)


def scheduler_plan(cell: Mapping[str, Any]) -> Plan:
    """The plan of a cell: ``spacing``, ``reverse_steps``, ``references``, and ``power`` (0: equal levels)."""
    levels = (6.0, 6.0)
    if cell["power"]:
        levels = tuple(6.0 * (j / 4) ** cell["power"] for j in (1, 2, 3, 4))
    return Plan(
        levels, 1 if cell["power"] else 2, 6.0, cell["reverse_steps"], cell["init_steps"],
        references=References.last(cell["references"]), floor=0.001, spacing=cell["spacing"],
    )  # fmt: skip


def schedulers(size: Size, folder: Path, progress: bool = True) -> pd.DataFrame:
    """The sums and the KLs of every grid, at every size; rank correlations in ``scheduler_correlations.csv``."""
    cells: list[Cell] = [
        {"family": "window", "reverse_steps": m, "references": n, "spacing": grid, "power": 0.0, "init_steps": m}
        for m, n in _WINDOWS
        for grid in GRIDS
    ]
    cells += [
        {"family": "FIFO", "reverse_steps": _STAIRS[0], "references": _STAIRS[1], "spacing": grid, "power": power,
         "init_steps": 20}
        for power in POWERS for grid in ("uniform", "geometric")
    ]  # fmt: skip
    table = run_cells("schedulers", cells, sums, folder, progress=progress)
    settings: list[Cell] = [
        dict(zip(_SETTING, setting, strict=True)) for setting, _ in table.groupby(_SETTING, sort=False)
    ]
    run_cells(
        "scheduler_correlations", settings, lambda cell: correlations(table, cell), folder, progress=progress
    )
    return table


_SETTING = ["family", "reverse_steps", "references"]


def sums(cell: Cell) -> pd.DataFrame:
    """What might rank the cell's plan, and the KL of clean frames and last clip, exactly."""
    terms = ledger_terms(reference_video(), scheduler_plan(cell), _AR_STEPS, closed=False)
    girsanov, nie, errors = terms.total("girsanov"), terms.total("nie"), terms.ar_step_errors
    assert girsanov is not None
    assert nie is not None
    assert errors is not None
    assert terms.kl is not None
    assert terms.clips is not None
    values = {
        "per_step": terms.ar_paths.sum(), "girsanov": girsanov + nie, "ar_step": errors.sum(),
        "last_ar_step": errors[-1], "kl": terms.kl, "last_clip": terms.clips[-1],
    }  # fmt: skip
    return pd.DataFrame({"quantity": list(values), "value": [float(number) for number in values.values()]})


def correlations(table: pd.DataFrame, setting: Cell, draws: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Spearman's correlation of every sum with both KLs over the grids of a setting, with bootstrap intervals.

    The numbers are exact; the 95 % interval (percentiles over ``draws`` resamples of the grids) says how much
    hangs on which grids were taken.
    """
    chosen = (table[_SETTING] == pd.Series(setting)).all(axis=1)
    wide = table[chosen].pivot_table(index=["spacing", "power"], columns="quantity", values="value", sort=False)
    picks = np.random.default_rng(seed).integers(len(wide), size=(draws, len(wide)))
    rows = []
    for name in SUMS:
        for target in ("kl", "last_clip"):
            x, y = wide[name].to_numpy(), wide[target].to_numpy()
            rows.append((name, target, float(spearman(x, y)), *interval(spearman(x[picks], y[picks])), len(wide)))
    return pd.DataFrame(rows, columns=["sum", "target", "spearman", "ci_low", "ci_high", "grids"])
