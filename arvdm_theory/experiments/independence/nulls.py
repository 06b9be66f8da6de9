"""Laws under which X and Z are independent given Y, and how often the test rejects: its level, null by null."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from arvdm_theory.experiments.independence.run import ALPHA, wilson
from arvdm_theory.experiments.record import Cell, run_cells
from arvdm_theory.information.estimators import Dependence, SampleError, independence_test
from arvdm_theory.tables import write_table

__all__ = ["NULLS", "null_study"]

Array = NDArray[np.float64]
Draw = Callable[[np.random.Generator], tuple[Array, ...]]
_PERMUTATIONS = 39
# The test was designed on samples of [seed, 7] to [seed, 90]; those of 400, 5000 and 6000 were looked at once.
_HELD_OUT = 9000
# Draws a cell.
_BATCH = 50


def _shared(
    link: Callable[[Array], NDArray[np.floating[Any]]], columns: int, noise: float, n: int
) -> tuple[Draw, Dependence]:
    """X and Z are one function of Y, and noise of their own."""

    def draw(rng: np.random.Generator) -> tuple[Array, ...]:
        y = rng.standard_normal((n, columns))
        common = link(y)
        return common + noise * rng.standard_normal(n), common + noise * rng.standard_normal(n), y

    return draw, "independent"


def _scaled(power: float, n: int) -> tuple[Draw, Dependence]:
    def draw(rng: np.random.Generator) -> tuple[Array, ...]:
        y, a, b = rng.standard_normal((3, n))
        return np.exp(power * y) * a, np.exp(power * y) * b, y

    return draw, "independent"


def _series(rng: np.random.Generator, n: int, memory: float) -> Array:
    series = rng.standard_normal(n + 100) * math.sqrt(1 - memory**2)
    for i in range(1, len(series)):
        series[i] += memory * series[i - 1]
    return series[100:]


def _in_time(
    place: Callable[[Array], Array], spread: Callable[[Array], Array], n: int = 400
) -> tuple[Draw, Dependence]:
    def draw(rng: np.random.Generator) -> tuple[Array, ...]:
        y = _series(rng, n, 0.8)
        own, other = _series(rng, n, 0.7), _series(rng, n, 0.7)
        return place(y) + spread(y) * own, place(y) + spread(y) * other, y

    return draw, "autocorrelated"


def _nothing_in_time(rng: np.random.Generator) -> tuple[Array, ...]:
    return _series(rng, 400, 0.8), _series(rng, 400, 0.8)


def _of_squares(columns: int) -> tuple[Draw, Dependence]:
    return _shared(lambda y: (y**2).sum(1) / math.sqrt(2 * columns), columns, 0.5, 300)


NULLS: dict[str, tuple[Draw, Dependence]] = {
    "no condition": (lambda rng: (rng.standard_normal(200), rng.standard_normal(200)), "independent"),
    "2y": _shared(lambda y: 2 * y[:, 0], 1, 1.0, 200),
    "y1², 2 columns": _shared(lambda y: y[:, 0] ** 2, 2, 0.5, 200),
    "y1², 3 columns": _shared(lambda y: y[:, 0] ** 2, 3, 0.5, 200),
    "|y|², 2 columns": _shared(lambda y: (y**2).sum(1), 2, 1.0, 200),
    "y1 y2": _shared(lambda y: y[:, 0] * y[:, 1], 2, 0.5, 200),
    "y1 y2 y3": _shared(lambda y: y.prod(1), 3, 0.5, 300),
    "sin 5y": _shared(lambda y: np.sin(5 * y[:, 0]), 1, 0.5, 200),
    "sin 8y": _shared(lambda y: np.sin(8 * y[:, 0]), 1, 0.5, 300),
    "sin 3y1, 2 columns": _shared(lambda y: np.sin(3 * y[:, 0]), 2, 0.5, 300),
    "sin 3y1, 3 columns": _shared(lambda y: np.sin(3 * y[:, 0]), 3, 0.5, 300),
    "a step": _shared(lambda y: 2.0 * (y[:, 0] > 0), 1, 0.5, 200),
    "a step in 2 columns": _shared(lambda y: 2.0 * ((y[:, 0] > 0) & (y[:, 1] > 0)), 2, 0.5, 300),
    "opposite quadrants": _shared(lambda y: 2.0 * (y.prod(1) > 0), 2, 0.5, 300),
    "two steps": _shared(lambda y: 1.5 * (y[:, 0] > 0) + 1.5 * (y[:, 1] > 0.5), 2, 0.5, 300),
    "Σ|y|, 4 columns": _shared(lambda y: np.abs(y).sum(1), 4, 0.5, 400),
    "max y, 3 columns": _shared(lambda y: y.max(1), 3, 0.4, 300),
    **{f"Σy²/√2d, {d} columns": _of_squares(d) for d in (1, 2, 3, 5, 10)},
    "spread e^y": _scaled(1.0, 300),
    "spread e^1.5y": _scaled(1.5, 300),
    "series": (_nothing_in_time, "autocorrelated"),
    "series, sin 2y": _in_time(lambda y: np.sin(2 * y), np.ones_like),
    "series, spread e^0.7y": _in_time(np.zeros_like, lambda y: np.exp(0.7 * y)),
    "series, sin 2y, spread |y|": _in_time(lambda y: np.sin(2 * y), np.abs),
    "a step in 3 columns": _shared(lambda y: 2.0 * (y.min(1) > 0), 3, 0.5, 300),
    "a jump across a line": _shared(lambda y: 2.0 * (y.sum(1) > 0), 2, 0.5, 300),
    "a jump across a circle": _shared(lambda y: 2.0 * ((y**2).sum(1) < 1), 2, 0.5, 300),
    "a jump across a wave": _shared(lambda y: 2.0 * (y[:, 1] > np.sin(3 * y[:, 0])), 2, 0.5, 300),
    "a jump across a plane, 5 columns": _shared(lambda y: 2.0 * (y.sum(1) > 0), 5, 0.5, 300),
    "stairs": _shared(lambda y: np.floor(3 * y[:, 0]), 1, 0.3, 300),
    "stairs in 2 columns": _shared(lambda y: np.floor(2 * y[:, 0]), 2, 0.3, 300),
    "stairs across a line": _shared(lambda y: np.floor(y.sum(1)), 2, 0.3, 300),
    "fine stairs across a line": _shared(lambda y: np.floor(2 * y.sum(1)) / 2, 2, 0.15, 300),
    "stairs across planes, 3 columns": _shared(lambda y: np.floor(y.sum(1)), 3, 0.3, 300),
    "a chessboard": _shared(lambda y: 2.0 * (np.floor(y).sum(1) % 2), 2, 0.5, 300),
    "sin 3(y1 + y2)": _shared(lambda y: np.sin(3 * y.sum(1)), 2, 0.2, 300),
    "sin 2(y1 + y2 + y3)": _shared(lambda y: np.sin(2 * y.sum(1)), 3, 0.5, 300),
    "sin 15y": _shared(lambda y: np.sin(15 * y[:, 0]), 1, 0.3, 300),
    "a step in 3 columns, 100 samples": _shared(lambda y: 2.0 * (y.min(1) > 0), 3, 0.5, 100),
    "stairs across a line, 100 samples": _shared(lambda y: np.floor(y.sum(1)), 2, 0.3, 100),
    "series, sin 5y": _in_time(lambda y: 2 * np.sin(5 * y), np.ones_like),
    "series, stairs": _in_time(lambda y: np.floor(2 * y), lambda y: np.full_like(y, 0.3)),
}
"""Every null by name: what X and Z share, and how its samples follow one another."""


def null_study(draws: int, folder: Path, progress: bool = True) -> pd.DataFrame:
    """Writes ``independence_nulls``: how often the test of level 5 % rejects each null, with its 95 % interval.

    ``rate`` is of the draws that it does not refuse. More draws go on where fewer ended. The last row is of all.

    Args:
        draws: of each null.
        folder: where the table and its provenance go.
        progress: whether to show a progress bar.
    """
    cells: list[Cell] = [
        {"null": name, "permutations": _PERMUTATIONS, "first": first, "draws": min(_BATCH, draws - first)}
        for first in range(0, draws, _BATCH)
        for name in NULLS
    ]
    batches = run_cells("independence_nulls", cells, _rejections, folder, progress=progress)
    counts = ["draws", "refused", "rejections"]
    table = batches.groupby(["null", "permutations"], sort=False)[counts].sum().reset_index()
    both = pd.DataFrame([{"null": "all together", "permutations": _PERMUTATIONS, **table[counts].sum()}])
    table = pd.concat([table, both], ignore_index=True)
    decided = (table.draws - table.refused).replace(0, math.nan)
    low, high = wilson(table.rejections.to_numpy(), decided.to_numpy())
    table = table.assign(rate=table.rejections / decided, low=low, high=high)
    write_table(table, folder / "independence_nulls.csv")
    return table


def _rejections(cell: Cell) -> pd.DataFrame:
    draw, dependence = NULLS[cell["null"]]
    rejections = refused = 0
    for seed in range(cell["first"], cell["first"] + cell["draws"]):
        samples = draw(np.random.default_rng([seed, _HELD_OUT]))
        try:
            # Decisions at this level are those of all permutations.
            found = independence_test(
                *samples, permutations=cell["permutations"], dependence=dependence,
                stop=int(ALPHA * (cell["permutations"] + 1)), seed=seed,
            )  # fmt: skip
            rejections += found.p_value <= ALPHA
        except SampleError:
            refused += 1
    return pd.DataFrame([{"refused": refused, "rejections": rejections}])
