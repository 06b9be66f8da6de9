"""Farkas' alternative in exact rational arithmetic.

For a matrix A and a vector b, exactly one of two things exists (Farkas 1902)::

    x ≥ 0 with A x = b        or        y with Aᵀ y ≥ 0 and bᵀ y < 0

:func:`farkas` returns whichever it is, in fractions. HiGHS solves the linear programme in floating point, but
only to *suggest* which columns matter; a simplex method in fractions starts there and settles the question. A
good suggestion leaves it nothing to do but to solve a system of equations; a bad one costs time, never the truth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import gcd, lcm
from typing import Any

import numpy as np
from scipy import sparse
from scipy.optimize import linprog

__all__ = ["Alternative", "Vector", "exact_simplex", "farkas"]

Vector = Mapping[int, Fraction]
"""A sparse rational vector: its non-zero entries by index."""

_ZERO = Fraction(0)
_solver: Any = linprog  # its type stubs know no sparse matrices


@dataclass(frozen=True)
class Alternative:
    """Which of Farkas' two alternatives exists: exactly one of the two is not None.

    Attributes:
        solution: x ≥ 0 with A x = b, its entries that are not zero by column.
        separator: y with Aᵀ y ≥ 0 > bᵀ y, its entries that are not zero by row, in lowest whole numbers.
    """

    solution: dict[int, Fraction] | None
    separator: dict[int, Fraction] | None


def farkas(
    columns: Sequence[Vector],
    target: Vector,
    height: int,
    cost: Sequence[float],
    separator_cost: Sequence[float],
) -> Alternative:
    """Whichever exists: x ≥ 0 with A x = b, or y with Aᵀ y ≥ 0 > bᵀ y; exact.

    Args:
        columns: the columns of A, sparse.
        target: b, sparse.
        height: the number of rows of A.
        cost: what the entries of x cost; HiGHS suggests the cheapest solution.
        separator_cost: the same for y; it must keep the separators with bᵀ y = -1 bounded from below.

    Example:
        >>> one, two = Fraction(1), Fraction(2)
        >>> farkas([{0: one}, {0: one, 1: one}], {0: two, 1: one}, 2, [1, 1], [1, 1]).solution
        {0: Fraction(1, 1), 1: Fraction(1, 1)}
        >>> farkas([{0: one}, {0: one, 1: one}], {0: one, 1: two}, 2, [1, 1], [1, 1]).separator
        {0: Fraction(1, 1), 1: Fraction(-1, 1)}
    """
    if not columns or not target:
        return exact_simplex(columns, target, height)
    entries = [(i, j, float(c)) for j, column in enumerate(columns) for i, c in column.items()]
    i, j, c = zip(*entries, strict=True) if entries else ((), (), ())
    matrix = sparse.csc_array((c, (i, j)), shape=(height, len(columns)))
    # HiGHS works to absolute tolerances, so the right-hand side is put on the scale of 1.
    largest = max(abs(v) for v in target.values())
    right = np.array([float(target.get(i, _ZERO) / largest) for i in range(height)])

    found = _solver(cost, A_eq=matrix, b_eq=right, method="highs-ds")
    order: list[int] = []
    if found.x is not None:
        order = np.lexsort([found.lower.marginals, -found.x]).tolist()  # the used, then the nearly used
    else:
        found = _solver(
            separator_cost, A_ub=-matrix.T, b_ub=np.zeros(len(columns)), A_eq=right[None, :], b_eq=[-1.0],
            bounds=(None, None), method="highs-ds",
        )  # fmt: skip
        if found.x is not None:
            y = {i: Fraction(v).limit_denominator(10_000) for i, v in enumerate(found.x.tolist())}
            if _dot(target, y) < 0 and all(_dot(column, y) >= 0 for column in columns):
                return Alternative(None, _whole(y))
            order = np.flatnonzero(matrix.T @ found.x < 1e-7 * np.abs(found.x).max()).tolist()  # the tight ones
    return exact_simplex(columns, target, height, order)


def exact_simplex(
    columns: Sequence[Vector], target: Vector, height: int, first: Sequence[int] = ()
) -> Alternative:
    """Farkas' alternative by the first phase of the simplex method, in fractions throughout.

    The equations are first solved for as many of the columns ``first`` as are independent, which is where the
    simplex method starts. An equation left over, or solved by a negative value, gets an artificial variable;
    the minimum of their sum is 0 exactly if A x = b has a solution x ≥ 0, and otherwise the dual prices are the
    separator. Largest-coefficient pivots, with Bland's rule (1977) in degenerate stretches, so that it always
    ends.
    """
    table = _Table(columns, target, height)
    for q in first:
        if table.solves():
            break
        rows = [i for i in range(height) if table.basis[i] < 0 and q in table.rows[i]]
        if rows:
            table.pivot(min(rows, key=lambda i: len(table.rows[i])), q)
    if not table.solves():
        y = table.separating_row()
        if y is None:
            y = table.minimise()
        if y:
            return Alternative(None, _whole(y))
    return Alternative({q: v for q, v in zip(table.basis, table.right(), strict=True) if v}, None)


class _Table:
    """The equations as rows [A | I | b]; the identity records which combination of them each row has become."""

    def __init__(self, columns: Sequence[Vector], target: Vector, height: int) -> None:
        self.n = len(columns)
        self.width = self.n + height
        self.rows: list[dict[int, Fraction]] = [{self.n + i: Fraction(1)} for i in range(height)]
        for j, column in enumerate(columns):
            for i, coefficient in column.items():
                self.rows[i][j] = coefficient
        for i, value in target.items():
            self.rows[i][self.width] = value
        # -1: an artificial variable. Once out it never comes back, so it needs no column.
        self.basis = [-1] * height
        self.patience = height  # pivots without progress after which Bland's rule takes over

    def right(self) -> list[Fraction]:
        """The values of the basic variables."""
        return [row.get(self.width, _ZERO) for row in self.rows]

    def solves(self) -> bool:
        """Whether the basic variables solve the equations: all values ≥ 0, and those of artificial ones 0."""
        return all(not v or (v > 0 and q >= 0) for v, q in zip(self.right(), self.basis, strict=True))

    def combination(self, row: Vector, sign: int) -> dict[int, Fraction]:
        """The combination of equations that a row is, times a sign."""
        return {j - self.n: sign * c for j, c in row.items() if self.n <= j < self.width}

    def separating_row(self) -> dict[int, Fraction] | None:
        """A row without a basic column whose entries in A have one sign and whose value has the other."""
        for row, q in zip(self.rows, self.basis, strict=True):
            value = row.get(self.width, _ZERO)
            if q < 0 and value and all(c * value < 0 for j, c in row.items() if j < self.n):
                return self.combination(row, -1 if value > 0 else 1)
        return None

    def pivot(self, r: int, q: int) -> None:
        """Solves row r for column q and clears q from the other rows."""
        scale = self.rows[r][q]
        self.rows[r] = {j: c / scale for j, c in self.rows[r].items()}
        for i, row in enumerate(self.rows):
            if i != r and q in row:
                _subtract(row, self.rows[r], row[q])
        self.basis[r] = q

    def minimise(self) -> dict[int, Fraction] | None:
        """Brings the artificial variables to 0, or returns the separator."""
        cost: dict[int, Fraction] = {}
        for i, row in enumerate(self.rows):
            if row.get(self.width, _ZERO) < 0:
                self.rows[i] = {j: -c for j, c in row.items()}
                self.basis[i] = -1
            if self.basis[i] < 0:
                _subtract(cost, self.rows[i], Fraction(1))
        stalled = 0
        while cost.get(self.width):
            entering = [j for j, c in cost.items() if c < 0 and j < self.n]
            if not entering:
                # The reduced cost of an identity column is minus the price of its equation, as y is.
                return self.combination(cost, 1)
            q = min(entering) if stalled > self.patience else min(entering, key=lambda j: (cost[j], j))
            ratios = [
                (row.get(self.width, _ZERO) / row[q], self.basis[i], i)
                for i, row in enumerate(self.rows)
                if row.get(q, _ZERO) > 0
            ]
            ratio, _, r = min(ratios)
            stalled = 0 if ratio else stalled + 1
            self.pivot(r, q)
            _subtract(cost, self.rows[r], cost[q])
        return None


def _dot(a: Vector, b: Vector) -> Fraction:
    return sum((value * b[i] for i, value in a.items() if i in b), _ZERO)


def _whole(y: Vector) -> dict[int, Fraction]:
    """The positive multiple with coprime whole entries, without the zeros."""
    unit = Fraction(lcm(*(v.denominator for v in y.values())))
    unit /= gcd(*(int(v * unit) for v in y.values()))
    return {i: v * unit for i, v in y.items() if v}


def _subtract(row: dict[int, Fraction], other: Vector, factor: Fraction) -> None:
    for index, coefficient in other.items():
        left = row.get(index, _ZERO) - factor * coefficient
        if left:
            row[index] = left
        else:
            row.pop(index, None)
