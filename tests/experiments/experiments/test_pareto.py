"""The front, the rank correlations with their interval, and methods that can be compared."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import spearmanr

from arvdm_theory.choose.front import pareto_front
from arvdm_theory.experiments.pareto import run as pareto
from arvdm_theory.experiments.ranks import spearman


@given(arrays(np.float64, st.tuples(st.integers(1, 12), st.just(2)), elements=st.integers(0, 4).map(float)))
def test_the_front_is_what_nothing_dominates(points: np.ndarray) -> None:
    front = pareto_front(points)
    for i, (x, y) in enumerate(points):
        dominated = any((a <= x and b < y) or (a < x and b <= y) for a, b in points)
        assert front[i] == (not dominated)
    assert front.any()


def _table(growth: list[float]) -> pd.DataFrame:
    n = len(growth)
    columns = {"mb": np.arange(n, dtype=float), "growth": growth, "last": growth, "path": growth, "see": growth}
    return pd.DataFrame({"video": "one", "steps": 5, **columns})


def test_a_monotone_trade_has_rank_correlation_minus_one() -> None:
    ranks = pareto.correlations(_table([math.exp(-i) for i in range(8)]), resamples=50, seed=0)
    assert set(ranks.steps) == {0, 5}
    for name in ("spearman", "low", "high"):
        assert ranks[name].to_numpy() == pytest.approx(-1.0)


def test_the_interval_of_independent_ranks_covers_zero_and_is_reproducible() -> None:
    table = _table(np.random.default_rng(3).normal(size=40).tolist())
    first, again = (pareto.correlations(table, resamples=200, seed=1) for _ in range(2))
    pd.testing.assert_frame_equal(first, again)
    row = first.iloc[0]
    assert row.low < 0 < row.high
    assert row.low < row.spearman < row.high
    # Of 40 independent pairs the standard error is 1/sqrt(39): a 95 % interval is some 0.63 wide.
    assert 0.4 < row.high - row.low < 0.9


@given(arrays(np.float64, (2, 9), elements=st.integers(0, 4).map(float)))
def test_rank_correlations_are_scipy_s(rows: np.ndarray) -> None:
    found = float(spearman(*rows))
    if np.ptp(rows, axis=1).min() == 0:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(float(spearmanr(*rows).statistic), abs=1e-12)


def test_ties_alone_have_no_rank_correlation() -> None:
    ranks = pareto.correlations(_table([1.0, 1.0, 1.0]), resamples=10, seed=0)
    assert ranks[["spearman", "low", "high"]].isna().all(axis=None)


@pytest.mark.parametrize("preset", list(pareto.PRESETS))
def test_methods_make_the_same_frames_in_the_same_steps_a_frame(preset: str) -> None:
    chosen = pareto.PRESETS[preset]
    for method in chosen.options["memories"]:
        plan = pareto._plan(chosen, method, 1, 0.0)
        frames = chosen.options["frames"]
        assert plan.clean_frames(pareto._ar_steps(plan, frames)) == frames
        assert plan.reverse_steps * pareto.METHODS[method].passes == chosen.reverse_steps
