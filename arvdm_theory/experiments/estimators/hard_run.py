"""The default estimator on every hard task: does its interval cover, does it refuse, how wide is it, at what cost?

Tables: ``hard`` (a row an estimate) and ``hard_summary`` (a row a task). The default was designed on samples of
the seeds below 300 and from 300 000 on; those from 5000, 70 000, 80 000, 180 000, 280 000 and 480 000 on were
looked at. The tables are of 580 000 and on.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binom

from arvdm_theory.experiments.estimators.hard import DIVERGENCE_TASKS, HARD_TASKS, HardTask
from arvdm_theory.experiments.record import Cell, run_cells
from arvdm_theory.information.estimators import (
    DIVERGENCES,
    METHODS,
    SampleError,
    estimate_divergence,
    estimate_information,
    knn_divergence,
)

__all__ = ["hard", "hard_summary"]

_FIRST_SEED = 580_000
_QUANTILE = 1.959964
# Seeds a cell.
_BATCH = 5


def hard(seeds: int, folder: Path, progress: bool = True) -> pd.DataFrame:
    """The table ``hard``: value, error, interval, method and warnings, or the refusal, of every task and seed.

    Beside them stand the method of one who knows the kind of law and its interval, on the same samples. More seeds
    go on where fewer ended.
    """
    cells: list[Cell] = [
        {"job": job, "task": name, "family": task.family, "n": task.n, "truth": task.truth, "first": first,
         "seeds": min(_BATCH, seeds - first)}
        for first in range(0, seeds, _BATCH)
        for job, tasks in (("information", HARD_TASKS), ("divergence", DIVERGENCE_TASKS))
        for name, task in tasks.items()
    ]  # fmt: skip
    return run_cells("hard", cells, _estimates, folder, progress=progress)


def _estimates(cell: Cell) -> pd.DataFrame:
    information = cell["job"] == "information"
    task = (HARD_TASKS if information else DIVERGENCE_TASKS)[cell["task"]]
    rows = []
    first = _FIRST_SEED + cell["first"]
    for seed in range(first, first + cell["seeds"]):
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
            row["seconds"] = time.process_time() - begin
            low, high = _law_aware(task, draw, information)
        rows.append({**row, "aware": task.aware, "aware_low": low, "aware_high": high})
    return pd.DataFrame(rows)


def _law_aware(task: HardTask, draw: Sequence[NDArray[np.float64]], information: bool) -> tuple[float, float]:
    """The interval of one who knows the kind of law; NaN where there is none to be had."""
    if task.aware is None:
        return math.nan, math.nan
    samples = task.undo(*draw)
    if information:
        found = METHODS[task.aware](*samples, dependence=task.dependence)
        return float(found.ci_low), float(found.ci_high)
    if task.aware == "knn of each column":  # which are independent
        columns = [knn_divergence(a, b) for a, b in zip(samples[0].T, samples[1].T, strict=True)]
        value = sum(float(each.value) for each in columns)
        reach = math.hypot(*(float(each.ci_high - each.ci_low) / 2 for each in columns))
        return value - reach, value + reach
    found = DIVERGENCES[task.aware](*samples)
    return float(found.ci_low), float(found.ci_high)


def hard_summary(table: pd.DataFrame) -> pd.DataFrame:
    """A row a task, and one for all of them together.

    Returns:
        ``refused`` and ``warned`` (shares), ``coverage`` of the intervals that were given, ``below`` (the chance
        of so little coverage, or less, if it were 90 %), the median ``value``, its ``spread`` over the seeds, the
        median ``stderr`` and ``width``, ``excess_width`` (the width over 3.92 spreads) and median CPU ``seconds``;
        ``aware``, the method of one who knows the kind of law, ``aware_coverage``, ``aware_width`` and
        ``law_aware``, the median width over that method's. Of all together the last is the median over tasks.
    """
    rows, ratios = [], list[float]()
    for (job, task), part in [*table.groupby(["job", "task"], sort=False), (("all", "together"), table)]:
        given = part[part.method != "refused"]
        covered = int(((given.ci_low <= given.truth) & (given.truth <= given.ci_high)).sum())
        width, spread = (given.ci_high - given.ci_low).median(), given.value.std()
        aware = part.dropna(subset=["aware_low"])
        aware_width = (aware.aware_high - aware.aware_low).median()
        ratio = width / aware_width
        if job == "all":
            ratio = float(np.nanmedian(ratios))
        ratios.append(ratio)
        rows.append({
            "job": job, "task": task, "truth": part.truth.iloc[0] if job != "all" else math.nan,
            "n": part.n.iloc[0],
            "estimates": len(part), "refused": 1 - len(given) / len(part),
            "warned": (given.warnings > 0).mean(), "coverage": covered / len(given) if len(given) else math.nan,
            "below": binom.cdf(covered, len(given), 0.9), "value": given.value.median(), "spread": spread,
            "stderr": given.stderr.median(), "width": width, "excess_width": width / (2 * _QUANTILE * spread),
            "method": ", ".join(sorted(part.method.unique())), "seconds": part.seconds.median(),
            "aware": part.aware.iloc[0] if job != "all" else None,
            "aware_coverage": ((aware.aware_low <= aware.truth) & (aware.truth <= aware.aware_high)).mean(),
            "aware_width": aware_width if job != "all" else math.nan, "law_aware": ratio,
        })  # fmt: skip
    return pd.DataFrame(rows)
