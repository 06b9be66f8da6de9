"""The default estimator on every hard task: does its interval cover, does it refuse, how wide is it, at what cost?

Tables: ``hard`` (a row an estimate) and ``hard_summary`` (a row a task). The default was designed on samples of
the seeds below 300; the tables are of the seeds 5000 and on.
"""

from __future__ import annotations

import math
import time
import warnings
from pathlib import Path

import pandas as pd
from scipy.stats import binom

from arvdm_theory.experiments.estimators.hard import DIVERGENCE_TASKS, HARD_TASKS
from arvdm_theory.experiments.record import Cell, run_cells
from arvdm_theory.information.estimators import SampleError, estimate_divergence, estimate_information

__all__ = ["hard", "hard_summary"]

_FIRST_SEED = 5000
_QUANTILE = 1.959964


def hard(seeds: int, folder: Path, progress: bool = True) -> pd.DataFrame:
    """The table ``hard``: value, error, interval, method and warnings, or the refusal, of every task and seed."""
    cells: list[Cell] = [
        {"job": job, "task": name, "family": task.family, "n": task.n, "truth": task.truth, "seeds": seeds}
        for job, tasks in (("information", HARD_TASKS), ("divergence", DIVERGENCE_TASKS))
        for name, task in tasks.items()
    ]
    return run_cells("hard", cells, _estimates, folder, progress=progress)


def _estimates(cell: Cell) -> pd.DataFrame:
    information = cell["job"] == "information"
    task = (HARD_TASKS if information else DIVERGENCE_TASKS)[cell["task"]]
    rows = []
    for seed in range(_FIRST_SEED, _FIRST_SEED + cell["seeds"]):
        draw, begin = task.draw(task.n, seed), time.process_time()
        row: dict[str, object] = {"seed": seed}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                if information:
                    found = estimate_information(*draw, dependence=task.dependence)
                else:
                    found = estimate_divergence(*draw, dependence=task.dependence)
                row |= {
                    "value": found.value, "stderr": found.stderr, "ci_low": found.ci_low, "ci_high": found.ci_high,
                    "method": found.method, "warnings": len(found.warnings),
                }  # fmt: skip
            except SampleError:
                row |= {"value": math.nan, "method": "refused"}
        rows.append({**row, "seconds": time.process_time() - begin})
    return pd.DataFrame(rows)


def hard_summary(table: pd.DataFrame) -> pd.DataFrame:
    """A row a task, and one for all of them together.

    Returns:
        ``refused`` and ``warned`` (shares), ``coverage`` of the intervals that were given, ``below`` (the chance
        of so little coverage, or less, if it were 90 %), the median ``value``, its ``spread`` over the seeds, the
        median ``stderr`` and ``width``, ``excess_width`` (the width over 3.92 spreads) and median CPU ``seconds``.
    """
    rows = []
    for (job, task), part in [*table.groupby(["job", "task"], sort=False), (("all", "together"), table)]:
        given = part[part.method != "refused"]
        covered = int(((given.ci_low <= given.truth) & (given.truth <= given.ci_high)).sum())
        width, spread = (given.ci_high - given.ci_low).median(), given.value.std()
        rows.append({
            "job": job, "task": task, "truth": part.truth.iloc[0] if job != "all" else math.nan,
            "n": part.n.iloc[0],
            "estimates": len(part), "refused": 1 - len(given) / len(part),
            "warned": (given.warnings > 0).mean(), "coverage": covered / len(given) if len(given) else math.nan,
            "below": binom.cdf(covered, len(given), 0.9), "value": given.value.median(), "spread": spread,
            "stderr": given.stderr.median(), "width": width, "excess_width": width / (2 * _QUANTILE * spread),
            "method": ", ".join(sorted(part.method.unique())), "seconds": part.seconds.median(),
        })  # fmt: skip
    return pd.DataFrame(rows)
