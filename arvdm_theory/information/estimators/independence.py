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
* the same, where what Y gives X and Z takes many terms to fit (oscillations, jumps across a slanted or bent edge):
  no regression of few samples follows an edge, near which it leaves a common cause in both. Then only pairs of
  neighbours in Y are exchanged, and of these only such as differ little in X and in Z, which pairs across an edge
  do not. Exchanging a pair's X changes neither difference, so the choice of the pairs is the same for every
  arrangement, and the null is exact if X is exchangeable within pairs. Half of the differences are
  left to show a dependence, and not the largest: the test has less power.
* autocorrelated samples: circular shifts of X's residual by the multiples of a lag. They are a group, and keep
  the whole autocorrelation but for one seam. Exact for a series whose law does not change under circular shifts;
  for a stationary one up to the seam, memory/n. Given Y the residual must besides be independent of Y, but for
  its place and spread, which are taken out: no shift keeps what else Y sets.

No test of conditional independence is valid for every law (Shah and Peters 2020).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist
from scipy.special import digamma

from arvdm_theory.information.estimators.knn import ksg_contributions
from arvdm_theory.information.estimators.plugin import normal_scores
from arvdm_theory.information.estimators.samples import SampleError, paired_samples, require_neighbours
from arvdm_theory.information.estimators.uncertainty import Dependence

__all__ = ["IndependenceTest", "circular_shifts", "independence_test", "local_permutation", "memory"]

Array = NDArray[np.float64]
Order = NDArray[np.int64]
Statistic = Literal["both", "neighbours", "gaussian"]

# Up to so many samples a table of all distances is faster than trees.
_MOST_DENSE = 700
# A p-value of 0.05 takes at least 20 arrangements; a series must be some memories long to look stationary.
_FEWEST_SHIFTS, _FEWEST_MEMORIES = 20, 8
# The regression on Y: samples a quadratic term and a bump, the bumps' widths in standard deviations per √d_y, and
# penalties per sample; a trace of one on all keeps the equations solvable.
_SAMPLES_PER_TERM, _SAMPLES_PER_BUMP, _FEWEST_BUMPS, _MOST_BUMPS = 8, 4, 5, 200
_WIDTHS = (0.1, 0.2, 0.4, 0.8, 1.6)
_PENALTIES, _TRACE, _JITTER = (1e-5, 1e-4, 1e-3, 1e-2), 1e-10, 1e-6
# A fit is as good as the best up to this factor of its error, and uses at most this share of the samples.
_AS_GOOD, _MOST_FREEDOM = 1.07, 0.4
# Jumps that a column may have, and how many times log n a split must gain in units of the residual's variance.
_MOST_JUMPS, _JUMP, _FEWEST_BEYOND = 4, 4, 5
# Edges along one column, and along all, within whose sides jumps along others are looked for.
_EDGES, _MOST_EDGES = 15, 60
# Terms beyond the quadratic ones from which on a cause is intricate; a box counts for two more than its own.
_MANY_TERMS, _TERMS_PER_JUMP = 5, 2
# Neighbours among which pairs are sought, and how many robust standard deviations of theirs a pair may differ by.
_NEAR, _ALIKE = 10, 1.25
_FEWEST_PAIRS = 20
_INTRICATE = "what y explains of x and z takes too many terms to be fitted (jumps, oscillations)"
# Share of the variance of log |residual| that Y must tell for the spread to be Y's.
_UNEVEN = 0.05
# Standard deviations up to which coordinates are all but linear.
_BEND = 5.0
# Variance that Y leaves of a column of variance 1, below which the column is a function of Y to rounding.
_NOTHING_LEFT = 1e-8


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
    """

    p_value: float
    statistic: float
    permutations: int
    lag: int
    n: int


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
            part in X and Z takes so many terms to fit that a series, or the pairs that are left, cannot tell it
            from a dependence.

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
        if measure.intricate:
            raise SampleError(f"{_INTRICATE}, and shifts of a series do not keep it: the test can't decide")
        orders = circular_shifts(n, lag, permutations, rng)
    elif measure.intricate:
        pairs = measure.alike()
        if len(pairs) < _FEWEST_PAIRS:
            raise SampleError(
                f"{_INTRICATE}, and only {len(pairs)} pairs of neighbours in y are alike in x and z, of "
                f"{_FEWEST_PAIRS} that a test needs: use more samples"
            )
        orders = (_swapped(n, pairs, rng) for _ in range(permutations))
    else:
        cells = _cells(measure.given, cell)
        orders = (local_permutation(cells, rng) for _ in range(permutations))
    observed, drawn, hits = measure(np.arange(n)), 0, 0
    for order in orders:
        drawn += 1
        hits += measure(order) >= observed
        if hits == stop:
            return IndependenceTest(hits / drawn, observed, drawn, lag, n)
    return IndependenceTest((1 + hits) / (1 + drawn), observed, drawn, lag, n)


def local_permutation(cells: Order, rng: np.random.Generator) -> Order:
    """A random permutation of samples that moves them only within their cells.

    Args:
        cells: the cell of every sample, shape (n,).
        rng: where chance comes from.

    Returns:
        the sample that goes to each place, shape (n,).
    """
    source = np.empty(len(cells), dtype=np.int64)
    source[np.argsort(cells, kind="stable")] = np.lexsort((rng.random(len(cells)), cells))
    return source


def _swapped(n: int, pairs: Order, rng: np.random.Generator) -> Order:
    """The arrangement that exchanges the samples of each pair, shape (pairs, 2), with probability one half."""
    source, some = np.arange(n), pairs[rng.random(len(pairs)) < 0.5]
    source[some] = some[:, ::-1]
    return source


def circular_shifts(n: int, lag: int, most: int, rng: np.random.Generator) -> Iterator[Order]:
    """The circular shifts of n samples by multiples of the lag but 0, in random order and at most ``most``.

    Args:
        n: samples, a multiple of the lag.
        lag: in samples.
        most: how many shifts to draw, without replacement.
        rng: where chance comes from.

    Yields:
        the sample that goes to each place, shape (n,).
    """
    for multiple in rng.permutation(np.arange(1, n // lag))[:most]:
        yield np.roll(np.arange(n), int(multiple) * lag)


def memory(series: Array) -> int:
    """First lag at which no column's autocorrelation exceeds 2 √(log₁₀ n / n) in size; at least 1, at most n/2.

    The threshold is Politis and White's (2004), here with circular autocorrelations, which no circular shift
    changes: a lag chosen by them leaves the shifts' null as exact as it was.

    Args:
        series: shape (n,) or (n, c).
    """
    columns = series[:, None] if series.ndim == 1 else series
    n = len(columns)
    power = np.abs(np.fft.rfft(columns - columns.mean(0), axis=0)) ** 2
    covariance = np.fft.irfft(power, n, axis=0)
    quiet = (np.abs(covariance / covariance[0]) < 2 * math.sqrt(math.log10(n) / n)).all(1)
    quiet[0] = False
    half = max(n // 2, 1)
    return int(quiet[:half].argmax()) if quiet[:half].any() else half


def _lag(x: Array, z: Array, y: Array) -> int:
    """What shifts are multiples of: the shorter memory, since a relation of X and Z fades with either's."""
    n = len(x)
    regression = _Regression(y)
    columns = [_coordinates(part) for part in (x, z)]
    spans = [memory(regression.left(part, regression.chosen(part))) for part in columns]
    if min(spans) * _FEWEST_SHIFTS > n or max(spans) * _FEWEST_MEMORIES > n:
        raise SampleError(
            f"n = {n} samples with memories of {spans[0]} (x) and {spans[1]} (z) are too few for a test: "
            f"{_FEWEST_SHIFTS} of the shorter and {_FEWEST_MEMORIES} of the longer are needed; if a series drifts,"
            " take differences or remove the trend"
        )
    return min(spans)


def _cells(given: Array, size: int) -> Order:
    """The leaf of a tree over Y that each sample lies in, from halving the widest side down to two cells' worth.

    Equal values stay together, so that a Y with few values has cells of one value each.
    """
    cells = np.zeros(len(given), dtype=np.int64)
    if not given.shape[1]:
        return cells
    stack, leaf = [np.arange(len(given))], 0
    while stack:
        members = stack.pop()
        side = int(np.ptp(given[members], axis=0).argmax())
        ranked = members[np.argsort(given[members, side], kind="stable")]
        cuts = np.flatnonzero(np.diff(given[ranked, side])) + 1
        if len(members) < 2 * size or not len(cuts):
            cells[members] = leaf
            leaf += 1
            continue
        cut = cuts[np.abs(cuts - len(members) / 2).argmin()]
        stack += [ranked[:cut], ranked[cut:]]
    return cells


def _matched(points: Array) -> Order:
    """Disjoint pairs of near neighbours, the nearest first, (pairs, 2); a sample without a free one stays out."""
    k = min(_NEAR, len(points) - 1)
    distance, index = (np.asarray(found) for found in cKDTree(points).query(points, k=k + 1))
    own = np.repeat(np.arange(len(points)), k + 1)
    free, pairs = np.ones(len(points), dtype=bool), []
    for at in np.argsort(distance.ravel(), kind="stable"):
        a, b = int(own[at]), int(index.ravel()[at])
        if a != b and free[a] and free[b]:
            free[a] = free[b] = False
            pairs.append((a, b))
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


class _Regression:
    """What is left of columns after a regression on Y, whose smoothness each column chooses for itself.

    The candidates are linear in Y; quadratic (of many columns the squares alone); that with n/4 (at most 200)
    Gaussian bumps of five widths and four penalties, or half as many along the single columns; and with indicators
    of boxes that the column jumps into; all by least squares. Jumps across a slanted or bent edge, and into
    corners of three and more columns, are not held (see :meth:`intricate`). Of those whose leave-one-out
    error is within 7 % of the least the most flexible counts: every arrangement of X goes through it, so
    overfitting costs power and hardly the level, while what stays of a common cause in both X and Z costs the
    level. For the same reason all columns enter in smooth coordinates, 5 arsinh(y/5) of the standardised column,
    which tame heavy tails and leave the rest as it is. As a function of Y's ranks a smooth cause is rough, by the
    chance in order statistics.
    """

    def __init__(self, y: Array) -> None:
        n, d = y.shape
        self.given = _white(normal_scores(y), "y") if d else y
        self.points, self.plain = y, 0
        self.fits = [_Fit(np.ones((n, 1)), 1, 0.0)]
        if not d:
            return
        self.points = points = _coordinates(y)
        linear = np.hstack([np.ones((n, 1)), points])
        bases = [linear]
        pairs = list(combinations_with_replacement(range(d), 2))
        if len(pairs) > n // _SAMPLES_PER_TERM:
            pairs = [(i, i) for i in range(d)]
        if len(pairs) <= n // _SAMPLES_PER_TERM:
            products = [points[:, i] * points[:, j] for i, j in pairs]
            # Two values have no square of their own.
            kept = [product for product in products if len(np.unique(product)) > 2 or d > 1]
            bases.append(np.hstack([linear, np.column_stack(kept)]) if kept else linear)
        self.fits = [_Fit(basis, 1, _TRACE) for basis in bases]
        self.plain = len(bases) - 1
        bumps = min(n // _SAMPLES_PER_BUMP, _MOST_BUMPS)
        if bumps < _FEWEST_BUMPS:
            return
        # Centres evenly spaced in rank along the first column: their choice needs no chance.
        ranked = np.argsort(points[:, 0], kind="stable")
        centres = points[ranked[np.linspace(0, n - 1, bumps).round().astype(int)]]
        squares, among = (cdist(each, centres, "sqeuclidean") for each in (points, centres))
        for width in _WIDTHS:
            bumps_at, own = (np.exp(-each / (2 * width**2 * d)) for each in (squares, among))
            # Of functions that interpolate, the penalty is on the norm that the kernel gives them.
            factor = np.linalg.cholesky(own + _JITTER * np.eye(len(own)))
            basis = np.hstack([bases[-1], solve_triangular(factor, bumps_at.T, lower=True).T])
            self.fits += [_Fit(basis, bases[-1].shape[1], penalty) for penalty in _PENALTIES]
        single = min(n // (2 * _SAMPLES_PER_BUMP * d), _MOST_BUMPS // d)
        if d == 1 or single < _FEWEST_BUMPS:
            return
        # Every column bent by itself: what is left for many columns.
        places = np.quantile(points, (np.arange(single) + 0.5) / single, axis=0)
        squares = ((points[:, None] - places) ** 2).reshape(n, -1)
        for width in _WIDTHS[1:4]:
            basis = np.hstack([bases[-1], np.exp(-squares / (2 * width**2))])
            self.fits += [_Fit(basis, bases[-1].shape[1], penalty) for penalty in _PENALTIES]

    def chosen(self, columns: Array) -> NDArray[np.intp]:
        """Which fit each column takes; one with its jumps joins the candidates if it has any."""
        return np.array([self._choice(column) for column in columns.T[:, :, None]], dtype=np.intp)

    def _choice(self, column: Array) -> int:
        if self.points.shape[1]:
            jumps = self._jumps(column)
            if jumps.shape[1]:
                smooth = self._best(column)
                for fit in (self.fits[self.plain], self.fits[smooth]):
                    self.fits.append(
                        _Fit(np.hstack([jumps, fit.basis]), fit.free + jumps.shape[1], fit.penalty, jumps.shape[1])
                    )
        return self._best(column)

    def intricate(self, column: Array) -> bool:
        """Whether it takes many terms beyond the quadratic ones to come within 7 % of the least error."""
        errors = np.array([fit.left_out(column[:, None])[0] for fit in self.fits])
        terms = np.array([fit.freedom + _TERMS_PER_JUMP * fit.jumps for fit in self.fits])
        least = float(terms[errors <= _AS_GOOD * errors.min()].min())
        return least - self.fits[self.plain].freedom > _MANY_TERMS

    def _best(self, column: Array) -> int:
        errors = np.array([fit.left_out(column)[0] for fit in self.fits])
        freedom = np.array([fit.freedom for fit in self.fits])
        return int(np.where(errors <= _AS_GOOD * errors.min(), freedom, -1.0).argmax())

    def _jumps(self, column: Array) -> Array:
        """Indicators of boxes of Y beyond whose sides the column jumps, found one after the other, (n, few).

        Each is one side of an edge along one column of Y, within all samples, a box found before, the rest of it,
        or one side of an edge along another column: a jump in a product of columns need not show in one alone.
        """
        n, d = self.points.shape
        plain, found = self.fits[self.plain], np.empty((n, 0))
        places = min(_EDGES, _MOST_EDGES // d) if d > 1 else 0
        edges = np.quantile(self.points, np.arange(1, places + 1) / (places + 1), axis=0)
        sides = (self.points[:, None] > edges).reshape(n, -1).astype(np.float64)
        for _ in range(_MOST_JUMPS):
            left = _Fit(np.hstack([found, plain.basis]), plain.free + found.shape[1], plain.penalty)(column)[:, 0]
            within = np.hstack([np.ones((n, 1)), found, 1 - found, sides, 1 - sides])
            gain, which, half = self._half(left, within)
            if gain < left.var() * (_JUMP * math.log(n) + 2 * math.log(within.shape[1])):
                break
            box = within[:, which] * half
            if which > 2 * found.shape[1]:  # the other edge, so far of the grid, moves to its best place
                along = (which - 1 - 2 * found.shape[1]) % d
                box = half * self._half(left, half[:, None], along)[2]
            found = np.column_stack([found, box])
        return found

    def _half(self, left: Array, within: Array, along: int | None = None) -> tuple[float, int, Array]:
        """The side of an edge whose part of a box tells most of what is left: (squares explained, box, side).

        The indicator of N of n samples with the sum S explains S²/(N (1 - N/n)), less its mean.
        """
        n, best = len(left), (0.0, 0, np.ones(len(left)))
        for column in range(self.points.shape[1]) if along is None else (along,):
            order = np.argsort(self.points[:, column], kind="stable")
            place = self.points[order, column]
            sizes, sums = (np.cumsum(part[order], axis=0) for part in (within, within * left[:, None]))
            for beyond in (False, True):
                size, total = (part[-1] - part if beyond else part for part in (sizes, sums))
                gain = np.where(
                    (size >= _FEWEST_BEYOND) & (size <= n - _FEWEST_BEYOND), total**2, 0.0
                ) / np.maximum(size * (1 - size / n), 1e-9)  # fmt: skip
                gain[:-1][place[1:] == place[:-1]] = 0.0
                at, which = np.unravel_index(int(gain.argmax()), gain.shape)
                if gain[at, which] > best[0]:
                    above = self.points[:, column] > place[at]
                    best = float(gain[at, which]), int(which), (above if beyond else ~above).astype(np.float64)
        return best

    def spread(self, left: Array) -> Array:
        """How large Y makes each residual: the exponential of a fit to the logarithm of its size."""
        sizes = np.log(np.abs(left) + np.finfo(np.float64).tiny ** 0.5)
        # A few samples at the very middle would outweigh all others.
        sizes = np.maximum(sizes, np.quantile(sizes, 0.05, axis=0))
        errors = np.array([fit.left_out(sizes) for fit in self.fits])
        best = errors.argmin(0)
        told = 1 - errors.min(0) / sizes.var(0) > _UNEVEN
        fitted = sizes - self.left(sizes, best)
        result: Array = np.where(told, np.exp(fitted - fitted.mean(0)), 1.0)
        return result

    def left(self, columns: Array, chosen: NDArray[np.intp]) -> Array:
        """The columns, shape (n, c), less their fits."""
        residual = np.empty_like(columns)
        for i in np.unique(chosen):
            own = chosen == i
            residual[:, own] = self.fits[i](columns[:, own])
        return residual


class _Fit:
    """Penalised least squares on a basis whose first columns are free."""

    def __init__(self, basis: Array, free: int, penalty: float, jumps: int = 0) -> None:
        gram = basis.T @ basis
        gram[np.diag_indices_from(gram)] += len(basis) * np.where(np.arange(len(gram)) < free, _TRACE, penalty)
        self.basis, self.free, self.penalty, self.jumps = basis, free, penalty, jumps
        self.gain = cho_solve(cho_factor(gram), basis.T)
        self.leverage = np.einsum("ij,ji->i", basis, self.gain)
        self.freedom = float(self.leverage.sum())

    def __call__(self, columns: Array) -> Array:
        residual: Array = columns - self.basis @ (self.gain @ columns)
        return residual

    def left_out(self, columns: Array) -> Array:
        """Mean squared leave-one-out error of each column, (c,); infinite where a fit all but interpolates."""
        if self.freedom > _MOST_FREEDOM * len(columns):
            return np.full(columns.shape[1], math.inf)
        error: Array = ((self(columns) / np.maximum(1 - self.leverage, 1e-9)[:, None]) ** 2).mean(0)
        return error


def _coordinates(points: Array) -> Array:
    """5 arsinh(y/5) of every column, centred at its median and over its spread."""
    low, middle, high = np.quantile(points, [0.25, 0.5, 0.75], axis=0)
    # The quartiles of a normal law are 1.349 standard deviations apart; they may coincide where values repeat.
    spread = np.where(high > low, (high - low) / 1.349, points.std(0))
    coordinates: Array = _BEND * np.arcsinh((points - middle) / (_BEND * spread))
    return coordinates


def _white(points: Array, name: str) -> Array:
    """Affine image with mean 0 and the identity as covariance."""
    centred = points - points.mean(0)
    try:
        factor = np.linalg.cholesky(centred.T @ centred / len(points))
    except np.linalg.LinAlgError:
        factor = np.zeros((1, 1))
    if (np.diag(factor) ** 2 < _NOTHING_LEFT).any():
        raise SampleError(f"some columns of {name} are functions of others or of y: drop them")
    image: Array = np.linalg.solve(factor, centred.T).T
    return image


class _Statistic:
    """The statistic as a function of the arrangement of X: the same steps for every one, the observed one too."""

    def __init__(self, x: Array, z: Array, y: Array, k: int, statistic: Statistic) -> None:
        self.k, self.kind = k, statistic
        self.regression = _Regression(y)
        self.given = self.regression.given
        self.moved, self.fits, of_x = self._scores(x, "x")
        right, fits, of_z = self._scores(z, "z")
        self.intricate = bool(of_x.any() and of_z.any())
        self._unlike = self.moved[:, of_x], right[:, of_z]
        self.right = _white(self.regression.left(right, fits), "z")
        self.dense = len(x) <= _MOST_DENSE and statistic != "gaussian"
        if self.dense:
            self.of_y = _distances(self.given)
            # Where samples coincide no distance is less than a radius of 0: the sample itself counts.
            self.digamma = digamma(np.maximum(np.arange(len(x) + 1), 1))

    def _scores(self, points: Array, name: str) -> tuple[Array, NDArray[np.intp], NDArray[np.bool_]]:
        """Normal scores of a part's residuals over the spread that Y sets them, the fits, which are intricate."""
        columns = _coordinates(points)
        fits = self.regression.chosen(columns)
        left = self.regression.left(columns, fits)
        if (left.var(0) < _NOTHING_LEFT).any():
            raise SampleError(f"some columns of {name} are functions of y to rounding: drop them")
        intricate = np.array([self.regression.intricate(column) for column in columns.T])
        return normal_scores(left / self.regression.spread(left)), fits, intricate

    def alike(self) -> Order:
        """Disjoint pairs of neighbours in Y whose residuals of intricate columns differ little, (pairs, 2)."""
        pairs = _matched(self.given)
        kept = np.ones(len(pairs), dtype=bool)
        for left in self._unlike:
            apart = np.abs(left[pairs[:, 0]] - left[pairs[:, 1]])
            kept &= (apart < _ALIKE * np.median(apart, axis=0) / 0.6745).all(1)
        return pairs[kept]

    def __call__(self, order: Order) -> float:
        left = _white(self.regression.left(self.moved[order], self.fits), "x")
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
