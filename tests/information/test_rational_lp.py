"""Farkas' alternative: exactly one of the two exists, and what is returned is it."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arvdm_theory.information.inequalities.rational_lp import Alternative, Vector, _Table, exact_simplex, farkas

HEIGHT = 4
ENTRIES = st.fractions(-3, 3, max_denominator=4)
COLUMNS = st.lists(st.dictionaries(st.integers(0, HEIGHT - 1), ENTRIES.filter(bool)), max_size=8)
TARGETS = st.dictionaries(st.integers(0, HEIGHT - 1), ENTRIES.filter(bool))


def dot(a: Vector, b: Vector) -> Fraction:
    return sum((a.get(i, Fraction(0)) * b.get(i, Fraction(0)) for i in range(HEIGHT)), Fraction(0))


def check(found: Alternative, columns: list[dict[int, Fraction]], target: dict[int, Fraction]) -> None:
    """By Farkas' lemma a checked solution excludes a separator, so a check of the one given is a full check."""
    x, y = found.solution, found.separator
    assert (x is None) != (y is None)
    if x is not None:
        assert all(value > 0 for value in x.values())
        for i in range(HEIGHT):
            row = sum((value * columns[j].get(i, Fraction(0)) for j, value in x.items()), Fraction(0))
            assert row == target.get(i, 0)
    if y is not None:
        assert dot(target, y) < 0
        assert all(dot(column, y) >= 0 for column in columns)
        assert all(value.denominator == 1 for value in y.values())


@settings(max_examples=50)
@given(columns=COLUMNS, target=TARGETS, data=st.data())
def test_random_systems(
    columns: list[dict[int, Fraction]], target: dict[int, Fraction], data: st.DataObject
) -> None:
    exact = exact_simplex(columns, target, HEIGHT)
    check(exact, columns, target)
    # Any suggestion of where to start, however bad, leads to the same alternative.
    order = data.draw(st.permutations(range(len(columns))))
    suggested = exact_simplex(columns, target, HEIGHT, order[: data.draw(st.integers(0, len(order)))])
    check(suggested, columns, target)
    # Over free y a cost of 0 is the one that is bounded for every system.
    by_bland = _Table(columns, target, HEIGHT)
    by_bland.patience = -1
    assert (by_bland.minimise() is None) == (exact.solution is not None)
    fast = farkas(columns, target, HEIGHT, [1.0] * len(columns), [0.0] * HEIGHT)
    check(fast, columns, target)
    assert (exact.solution is None) == (suggested.solution is None) == (fast.solution is None)


@settings(max_examples=50)
@given(
    columns=st.lists(st.dictionaries(st.integers(0, HEIGHT - 1), ENTRIES.filter(bool)), min_size=1, max_size=8),
    weights=st.lists(st.fractions(0, 5, max_denominator=7), min_size=8, max_size=8),
)
def test_combinations_are_recognised(columns: list[dict[int, Fraction]], weights: list[Fraction]) -> None:
    target: dict[int, Fraction] = {}
    for column, weight in zip(columns, weights, strict=False):
        for i, value in column.items():
            target[i] = target.get(i, Fraction(0)) + weight * value
    target = {i: value for i, value in target.items() if value}
    found = farkas(columns, target, HEIGHT, [1.0] * len(columns), [0.0] * HEIGHT)
    assert found.solution is not None
    check(found, columns, target)


def test_margins_far_below_double_precision() -> None:
    """b lies inside, on the edge of, and outside the cone of two columns, by one part in 10^40."""
    one, tiny = Fraction(1), Fraction(1, 10**40)
    columns = [{0: one, 1: one}, {0: one, 1: -one}]
    for second, solvable in ((one - tiny, True), (one, True), (one + tiny, False)):
        found = farkas(columns, {0: one, 1: second}, 2, [1.0, 1.0], [0.0, 0.0])
        assert (found.solution is not None) is solvable
        check(found, columns, {0: one, 1: second})


@pytest.mark.parametrize("patience", [-1, 10**9])
def test_degenerate_pivots_end(patience: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beale's degenerate system (1955), by Bland's rule alone and by largest coefficients alone.

    Minimise -¾ x1 + 150 x2 - x3/50 + 6 x4 over ¼ x1 - 60 x2 - x3/25 + 9 x4 ≤ 0, ½ x1 - 90 x2 - x3/50 + 3 x4 ≤ 0,
    x3 ≤ 1, whose least value is -1/20: as a system with the objective as an equation, -1/20 is reached and
    -1/20 - 1/1000 is not.
    """
    start = _Table.__init__

    def patient(self: _Table, *args: Any) -> None:
        start(self, *args)
        self.patience = patience

    monkeypatch.setattr(_Table, "__init__", patient)
    f = Fraction
    columns = [
        {0: f(1, 4), 1: f(1, 2), 3: f(-3, 4)},
        {0: f(-60), 1: f(-90), 3: f(150)},
        {0: f(-1, 25), 1: f(-1, 50), 2: f(1), 3: f(-1, 50)},
        {0: f(9), 1: f(3), 3: f(6)},
        {0: f(1)},
        {1: f(1)},
        {2: f(1)},
    ]
    reached = {2: f(1), 3: f(-1, 20)}
    beyond = {2: f(1), 3: f(-1, 20) - f(1, 1000)}
    check(exact_simplex(columns, reached, 4), columns, reached)
    check(exact_simplex(columns, beyond, 4), columns, beyond)
    assert exact_simplex(columns, reached, 4).solution is not None
    assert exact_simplex(columns, beyond, 4).solution is None
