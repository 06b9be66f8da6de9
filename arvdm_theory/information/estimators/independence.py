"""A test of conditional independence whose null keeps the conditioning variable, and the memory of a series.

Shuffling X among *all* samples also destroys what X owes to Y, so such a null rejects where X and Z only share Y.
Here X and Z first lose what Y explains of them, by a regression on Y. Then X moves, and the statistic takes every
arrangement of X, the observed one too, through one and the same steps, which repeat the regression: a residual
that was not fitted again would look more like Y than an observed one does, and the test would reject too often.
What is observed decides which regression it is, among several of different smoothness, and by what spread, a
function of Y, the residuals are divided.

Which arrangements are drawn, and where the null is then exact (the p-value is at most α with probability at
most α, for every n; Hemerik and Goeman 2018):

* independent samples, no Y: all permutations. Exact.
* independent samples, given Y: permutations within cells of alike Y (Kim, Neykov, Balakrishnan and Wasserman
  2022). Exact if within a cell the residual of X is exchangeable given Z and Y, as for a Y with few values, each
  taken by at least ``cell`` samples. Otherwise what the regression left and Y's width within a cell remain; the
  first counts only as a product of what it left in X and in Z (Shah and Peters 2020). Exact as far as the
  arrangements would choose the same regression.
* the same, where what Y gives X and Z takes many terms to fit, or is seen not to be fitted (oscillations, jumps
  across a slanted or bent edge, stairs): no regression of few samples follows an edge, near which it leaves a
  common cause in both. Then only pairs are exchanged, of neighbours in Y and in the fitted values, and of these
  the half where the fits of X and Z are flattest; if residuals of neighbours still have something in common
  (:meth:`~arvdm_theory.information.estimators.least_squares.Regression.misfit`), only such as differ little in X
  and in Z, which pairs across an edge do not. Exchanging a pair's X changes neither difference. Exact if X is
  exchangeable within pairs, as far as the arrangements would choose the same pairs. Few differences are left to
  show a dependence, and not the largest: the test has less power.
* autocorrelated samples: circular shifts of X's residual by the multiples of a lag. They are a group, and keep
  the whole autocorrelation but for one seam. Exact for a series whose law does not change under circular shifts;
  for a stationary one up to the seam, memory/n. Given Y the residual must besides be independent of Y, but for
  its place and spread, which are taken out: no shift keeps what else Y sets, nor what is seen not to be fitted;
  such series are refused.

No test of conditional independence is valid for every law (Shah and Peters 2020).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import digamma

from arvdm_theory.information.estimators.arrangements import (
    cells_of,
    circular_shifts,
    exchanges,
    local_permutation,
    matched,
    memory,
)
from arvdm_theory.information.estimators.knn import ksg_contributions
from arvdm_theory.information.estimators.least_squares import Regression, whitened
from arvdm_theory.information.estimators.plugin import normal_scores
from arvdm_theory.information.estimators.samples import SampleError, paired_samples, require_neighbours
from arvdm_theory.information.estimators.uncertainty import Dependence

__all__ = ["IndependenceTest", "independence_test"]

Array = NDArray[np.float64]
Order = NDArray[np.int64]
Statistic = Literal["both", "neighbours", "gaussian"]
Exchanged = Literal["all", "cells", "pairs", "alike pairs", "shifts"]

# Up to so many samples a table of all distances is faster than trees.
_MOST_DENSE = 700
# A p-value of 0.05 takes at least 20 arrangements; a series must be some memories long to look stationary.
_FEWEST_SHIFTS, _FEWEST_MEMORIES = 20, 8
# Standard deviations from which on a regression does not fit, those at which one of many terms in a series is
# doubted, and robust ones of theirs that a pair may differ by where it does not fit.
_MISFIT, _DOUBTED, _ALIKE = 1.96, 1.0, 1.25
_FEWEST_PAIRS = 20
_MANY_TERMS = "what y explains of x and z takes too many terms to be fitted (jumps, oscillations)"
_NO_FIT = "what y explains of x and z is not fitted: what is left of both has a part of y in common"


@dataclass(frozen=True)
class IndependenceTest:
    """Outcome of a test of I(X; Z | Y) = 0.

    Attributes:
        p_value: (1 + how many arrangements reach the statistic) / (1 + arrangements): never 0, and at most α with
            probability at most α under the null. Where the test stopped early: hits / arrangements.
        statistic: of the samples, in nats.
        permutations: how many arrangements were drawn; at most n/lag - 1 under autocorrelation.
        lag: shifts are multiples of so many samples; 0 for independent samples.
        n: samples used: under autocorrelation a remainder shorter than the lag is left out.
        exchanged: what was: ``"all"`` samples, those of ``"cells"`` of alike Y, ``"pairs"`` (where Y's part takes
            many terms; less power), ``"alike pairs"`` (where the regression does not fit it; least power), or
            places in time (``"shifts"``).
    """

    p_value: float
    statistic: float
    permutations: int
    lag: int
    n: int
    exchanged: Exchanged


def independence_test(
    x: ArrayLike,
    z: ArrayLike,
    y: ArrayLike | None = None,
    *,
    statistic: Statistic = "both",
    permutations: int = 199,
    cell: int = 5,
    k: int = 5,
    dependence: Dependence = "independent",
    stop: int | None = None,
    seed: int = 0,
) -> IndependenceTest:
    """Tests whether X and Z are independent, given Y if there is one.

    The statistic is the Gaussian information of the residuals' normal scores (sees linear dependence best, and is
    a hundred times as fast), their nearest-neighbour information given Y (sees any), or a sum of ``both``, the
    neighbours' with the weight √(k d_x d_z / 2n): each part then varies about as much as the other under the null,
    ½χ² of d_x d_z degrees of freedom over n and 1/√(nk).

    Args:
        x: shape (n, d_x) or (n,); the side that is moved.
        z: shape (n, d_z) or (n,).
        y: shape (n, d_y) or (n,), if there is a condition.
        statistic: ``"both"``, ``"neighbours"`` or ``"gaussian"``.
        permutations: how many; the smallest p-value is 1/(permutations + 1).
        cell: samples per cell of the Y space, up to twice as many; fewer keep more of Y and have less power.
        k: neighbours.
        dependence: ``"autocorrelated"`` for consecutive samples of stationary series: X is shifted, by multiples
            of a lag that is chosen from the series' :func:`memory`.
        stop: draw no more once so many arrangements have reached the statistic; the p-value stays valid (Besag
            and Clifford 1991). With ``stop`` = ⌊α (permutations + 1)⌋ decisions at level α are unchanged, and
            under the null they take a fraction of the time.
        seed: of the permutations.

    Raises:
        SampleError: for samples that do not fit together, NaN or infinite values, constant columns, columns of X
            or Z that are functions of others or of Y, too few samples, a memory too long for them, or a Y whose
            part in X and Z is not fitted, so that a series, or the pairs that are left, cannot tell it from a
            dependence.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = rng.normal(size=400)
        >>> x, z = y + 0.3 * rng.normal(size=400), y + 0.3 * rng.normal(size=400)
        >>> independence_test(x, z, y, permutations=99).p_value > 0.05 > independence_test(x, z).p_value
        True
    """
    if statistic not in ("both", "neighbours", "gaussian"):
        raise SampleError(f"the statistic is 'both', 'neighbours' or 'gaussian', got {statistic!r}")
    if dependence not in ("independent", "autocorrelated"):
        raise SampleError(f"dependence is 'independent' or 'autocorrelated', got {dependence!r}")
    if permutations < 1 or cell < 2:
        raise SampleError(f"a test needs permutations ≥ 1 and cell ≥ 2, got {permutations} and {cell}")
    if stop is not None and stop < 1:
        raise SampleError(f"a test can stop after 1 or more hits, got stop = {stop}")
    arrays = paired_samples(x, z, y)
    n, d = len(arrays[0]), sum(array.shape[1] for array in arrays)
    require_neighbours(n, k)
    if n <= d + 1:
        raise SampleError(f"a test in {d} dimensions needs at least {d + 2} samples, got n = {n}")
    lag = 0
    if dependence == "autocorrelated":
        lag = _lag(*arrays)
        n = n // lag * lag
        arrays = arrays[0][:n], arrays[1][:n], arrays[2][:n]
    rng = np.random.default_rng(seed)
    measure = _Statistic(*arrays, k, statistic)
    if lag:
        if measure.misfit > (_DOUBTED if measure.many_terms else _MISFIT):
            raise SampleError(f"{_NO_FIT}, and shifts of a series do not keep it: the test can't decide")
        exchanged: Exchanged = "shifts"
        orders = circular_shifts(n, lag, permutations, rng)
    else:
        exchanged, draw = _arrangements(measure, cell)
        orders = (draw(rng) for _ in range(permutations))
    observed, drawn, hits = measure(np.arange(n)), 0, 0
    for order in orders:
        drawn += 1
        hits += measure(order) >= observed
        if hits == stop:
            return IndependenceTest(hits / drawn, observed, drawn, lag, n, exchanged)
    return IndependenceTest((1 + hits) / (1 + drawn), observed, drawn, lag, n, exchanged)


def _arrangements(measure: _Statistic, cell: int) -> tuple[Exchanged, Callable[[np.random.Generator], Order]]:
    """Permutations within cells of alike Y, or exchanges of pairs where those keep too little of Y's part."""
    given = measure.given
    n, cells = len(given), cells_of(given, cell)
    # Where Y has one value a cell, permutations keep all of what it explains.
    exact = bool((given == given[np.unique(cells, return_index=True)[1]][cells]).all())
    misfit = not exact and measure.misfit > _MISFIT
    if exact or not (misfit or measure.many_terms):
        return "cells" if given.shape[1] else "all", partial(local_permutation, cells)
    pairs = measure.pairs(misfit)
    if len(pairs) < _FEWEST_PAIRS:
        raise SampleError(
            f"{_NO_FIT if misfit else _MANY_TERMS}, and only {len(pairs)} pairs of neighbours in y are alike in x "
            f"and z, of {_FEWEST_PAIRS} that a test needs: use more samples"
        )
    return "alike pairs" if misfit else "pairs", partial(exchanges, n, pairs)


def _lag(x: Array, z: Array, y: Array) -> int:
    """What shifts are multiples of: the shorter memory, since a relation of X and Z fades with either's."""
    n = len(x)
    regression = Regression(y)
    spans = [memory(regression.explain(part, name).left) for part, name in ((x, "x"), (z, "z"))]
    if min(spans) * _FEWEST_SHIFTS > n or max(spans) * _FEWEST_MEMORIES > n:
        raise SampleError(
            f"n = {n} samples with memories of {spans[0]} (x) and {spans[1]} (z) are too few for a test: "
            f"{_FEWEST_SHIFTS} of the shorter and {_FEWEST_MEMORIES} of the longer are needed; if a series drifts,"
            " take differences or remove the trend"
        )
    return min(spans)


class _Statistic:
    """The statistic as a function of the arrangement of X: the same steps for every one, the observed one too."""

    def __init__(self, x: Array, z: Array, y: Array, k: int, statistic: Statistic) -> None:
        self.k, self.kind = k, statistic
        self.regression = Regression(y)
        self.given = self.regression.given
        self.sides = self.regression.explain(x, "x"), self.regression.explain(z, "z")
        self.moved, right = (normal_scores(side.even) for side in self.sides)
        self.right = whitened(self.regression.left(right, self.sides[1].fits), "z")
        self.dense = len(x) <= _MOST_DENSE and statistic != "gaussian"
        if self.dense:
            self.of_y = _distances(self.given)
            # Where samples coincide no distance is less than a radius of 0: the sample itself counts.
            self.digamma = digamma(np.maximum(np.arange(len(x) + 1), 1))

    @property
    def many_terms(self) -> bool:
        """Whether Y's part takes many terms on both sides."""
        return all(bool(side.many_terms.any()) for side in self.sides)

    @cached_property
    def misfit(self) -> float:
        """How surely the regressions leave a part of Y in both sides, in standard deviations."""
        return self.regression.misfit(*self.sides)

    def pairs(self, misfit: bool) -> Order:
        """Disjoint pairs of neighbours in Y and in what it explains, the flatter half of them, (pairs, 2).

        Of a regression that does not fit, only pairs whose residuals differ little on both sides.
        """
        pairs = matched(np.hstack([self.given, *(side.fitted for side in self.sides)]))
        steps = [np.abs(side.fitted[pairs[:, 0]] - side.fitted[pairs[:, 1]]).max(1) for side in self.sides]
        steepness = steps[0] * steps[1]
        kept = steepness <= np.median(steepness)
        for side in self.sides if misfit else ():
            left = normal_scores(side.even)
            apart = np.abs(left[pairs[:, 0]] - left[pairs[:, 1]])
            kept &= (apart < _ALIKE * np.median(apart, axis=0) / 0.6745).all(1)
        chosen: Order = pairs[kept]
        return chosen

    def __call__(self, order: Order) -> float:
        left = whitened(self.regression.left(self.moved[order], self.sides[0].fits), "x")
        turn_x, correlations, turn_z = np.linalg.svd(left.T @ self.right / len(order), full_matrices=False)
        gaussian = -0.5 * float(np.log1p(-(np.minimum(correlations, 1 - 1e-12) ** 2)).sum())
        if self.kind == "gaussian":
            return gaussian
        # Canonical pairs share their axes, which the box-shaped neighbourhoods then follow.
        pairs = left @ turn_x, self.right @ turn_z.T
        neighbours = self._dense(*pairs) if self.dense else self._neighbours(*pairs)
        if self.kind == "neighbours":
            return neighbours
        return gaussian + neighbours * math.sqrt(self.k * left.shape[1] * self.right.shape[1] / (2 * len(order)))

    def _neighbours(self, left: Array, right: Array) -> float:
        return float(ksg_contributions(left, right, self.given, self.k).contributions.mean())

    def _dense(self, left: Array, right: Array) -> float:
        """The same from all distances; counts include the sample itself, as ψ(n_s + 1) wants them."""
        n = len(left)
        of_xy, of_zy = (np.maximum(_distances(part), self.of_y) for part in (left, right))
        radius = np.partition(np.maximum(of_xy, of_zy), self.k, axis=1)[:, self.k, None]
        tables = (of_xy, of_zy, self.of_y) if self.given.shape[1] else (of_xy, of_zy)
        at_xy, at_zy, *at_y = (self.digamma[np.count_nonzero(table < radius, axis=1)] for table in tables)
        return float((digamma(self.k) - at_xy - at_zy + (at_y[0] if at_y else digamma(n))).mean())


def _distances(points: Array) -> NDArray[np.float32]:
    """Largest coordinate difference of every two rows, (n, n); zeros for rows of no columns."""
    table = np.zeros((len(points), len(points)), dtype=np.float32)
    for column in points.T.astype(np.float32):
        np.maximum(table, np.abs(column[:, None] - column), out=table)
    return table
