"""What Y explains of columns, by penalised least squares whose smoothness they choose; and whether it is all.

:meth:`Regression.misfit` is the classical check of a regression: residuals of neighbours have nothing in common.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import csr_array, eye_array
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist
from scipy.stats import norm

from arvdm_theory.information.estimators.plugin import normal_scores
from arvdm_theory.information.estimators.regression import kernel_features
from arvdm_theory.information.estimators.samples import SampleError

__all__ = ["Explained", "Fit", "Regression", "whitened"]

Array = NDArray[np.float64]

# Samples a quadratic term and a bump, the bumps' widths in standard deviations per √d_y, and penalties per sample;
# a trace of one on all keeps the equations solvable.
_SAMPLES_PER_TERM, _SAMPLES_PER_BUMP, _FEWEST_BUMPS, _MOST_BUMPS = 8, 4, 5, 200
_WIDTHS = (0.1, 0.2, 0.4, 0.8, 1.6)
_PENALTIES, _TRACE = (1e-5, 1e-4, 1e-3, 1e-2), 1e-10
# A fit is as good as the best up to this factor of its error, and uses at most this share of the samples.
_AS_GOOD, _MOST_FREEDOM = 1.07, 0.4
# Jumps that a column may have, and how many times log n a split must gain in units of the residual's variance.
_MOST_JUMPS, _JUMP, _FEWEST_BEYOND = 4, 4, 5
# Edges along one column, and along all, within whose sides jumps along others are looked for.
_EDGES, _MOST_EDGES = 15, 60
# Terms beyond the quadratic ones from which on there are many; a box counts for two more than its own.
_MANY_TERMS, _TERMS_PER_JUMP = 5, 2
# Neighbours whose residuals are held together, and how far equal points are put apart to have any.
_NEIGHBOURS, _APART = 2, 1e-9
# Probability at which the largest score of many pairs of columns is as far out as that of one.
_TAIL = 0.025
# Share of the variance of log |residual| that Y must tell for the spread to be Y's.
_UNEVEN = 0.05
# Standard deviations up to which coordinates are all but linear.
_BEND = 5.0
# Variance that Y leaves of a column of variance 1, below which the column is a function of Y to rounding.
_NOTHING_LEFT = 1e-8


@dataclass(frozen=True)
class Explained:
    """Columns of X or Z, shape (n, c) each, and what Y explains of them.

    Attributes:
        columns: in smooth coordinates.
        fits: which fit each column takes, (c,).
        left: residuals.
        even: residuals over the spread that Y sets them.
        many_terms: whether a column's fit takes many terms beyond the quadratic ones, (c,).
    """

    columns: Array
    fits: NDArray[np.intp]
    left: Array
    even: Array
    many_terms: NDArray[np.bool_]

    @property
    def fitted(self) -> Array:
        """Fitted values in standard deviations of what is left."""
        values: Array = (self.columns - self.left) / self.left.std(0)
        return values


class Regression:
    """What is left of columns after a regression on Y, whose smoothness each column chooses for itself.

    The candidates are linear in Y; quadratic (of many columns the squares alone); that with n/4 (at most 200)
    Gaussian bumps of five widths and four penalties, or half as many along the single columns; and with indicators
    of boxes that the column jumps into; all by least squares. Jumps across a slanted or bent edge, into corners
    of three and more columns, and more than four, are not held (see :meth:`misfit`). Of those whose
    leave-one-out error is within 7 % of the least the most flexible counts: every arrangement of X goes through
    it, so overfitting costs power and hardly the level, while what stays of a common cause in both X and Z costs
    the level. For the same reason all columns enter in smooth coordinates, 5 arsinh(y/5) of the standardised
    column, which tame heavy tails and leave the rest as it is. As a function of Y's ranks a smooth cause is
    rough, by the chance in order statistics.

    Args:
        y: shape (n, d); no columns explain nothing.

    Raises:
        SampleError: if a column of Y is a function of others.
    """

    def __init__(self, y: Array) -> None:
        n, d = y.shape
        self.given = whitened(normal_scores(y), "y") if d else y
        self.points, self.plain = y, 0
        self.fits = [Fit(np.ones((n, 1)), 1, 0.0)]
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
        self.fits = [Fit(basis, 1, _TRACE) for basis in bases]
        self.plain = len(bases) - 1
        bumps = min(n // _SAMPLES_PER_BUMP, _MOST_BUMPS)
        if bumps < _FEWEST_BUMPS:
            return
        # Centres evenly spaced in rank along the first column: their choice needs no chance.
        ranked = np.argsort(points[:, 0], kind="stable")
        centres = points[ranked[np.linspace(0, n - 1, bumps).round().astype(int)]]
        squares, among = (cdist(each, centres, "sqeuclidean") for each in (points, centres))
        for width in _WIDTHS:
            basis = np.hstack([bases[-1], kernel_features(squares, among, 2 * width**2 * d)])
            self.fits += [Fit(basis, bases[-1].shape[1], penalty) for penalty in _PENALTIES]
        single = min(n // (2 * _SAMPLES_PER_BUMP * d), _MOST_BUMPS // d)
        if d == 1 or single < _FEWEST_BUMPS:
            return
        # Every column bent by itself: what is left for many columns.
        places = np.quantile(points, (np.arange(single) + 0.5) / single, axis=0)
        squares = ((points[:, None] - places) ** 2).reshape(n, -1)
        for width in _WIDTHS[1:4]:
            basis = np.hstack([bases[-1], np.exp(-squares / (2 * width**2))])
            self.fits += [Fit(basis, bases[-1].shape[1], penalty) for penalty in _PENALTIES]

    def explain(self, points: Array, name: str) -> Explained:
        """What Y explains of the columns of one side, shape (n, c), of this name.

        Raises:
            SampleError: if that is all of a column, to rounding.
        """
        columns = _coordinates(points)
        fits = np.array([self._choice(column[:, None]) for column in columns.T], dtype=np.intp)
        left = self.left(columns, fits)
        if (left.var(0) < _NOTHING_LEFT).any():
            raise SampleError(f"some columns of {name} are functions of y to rounding: drop them")
        many = np.array([self._many_terms(column[:, None]) for column in columns.T])
        return Explained(columns, fits, left, left / self._spread(left), many)

    def misfit(self, x: Explained, z: Explained) -> float:
        """How surely the residuals of both sides still hold a function of Y in common, in standard deviations.

        With e and f the residuals of a column of X and of Z, W the graph of nearest neighbours in Y plus that in
        the fitted values, and H the fit's matrix: noise has E e'We = σ² tr W(I - H)² and variance
        2σ⁴ tr (W(I - H)²)², which gives e'We and f'Wf their scores; returned is the score of
        (e ± f)'W(e ± f)/2, the larger of both signs, at the pair of columns where it is largest, less what so many
        pairs add. Neighbours in Y tell of oscillations; those in the fitted values, as any plot of residuals
        against them, of jumps and stairs that a smooth fit has blurred. For independent samples: in a series
        neighbours may have their residuals in common by time.
        """
        if not self.given.shape[1]:
            return -math.inf
        fitted = np.hstack([x.fitted, z.fitted])
        near = _neighbours(self.given) + _neighbours(fitted / np.maximum(fitted.std(0), _NOTHING_LEFT))
        (score_x, spread_x), (score_z, spread_z) = (
            np.array([self.fits[i].together(e, near) for i, e in zip(side.fits, side.even.T, strict=True)]).T
            for side in (x, z)
        )
        e, f = (side.even / np.linalg.norm(side.even, axis=0) for side in (x, z))
        both = np.abs(e.T @ (near @ f)) / np.sqrt(np.outer(spread_x, spread_z))
        scores = (score_x[:, None] + score_z) / 2 + both
        return float(scores.max() - norm.isf(_TAIL / scores.size) + norm.isf(_TAIL))

    def _choice(self, column: Array) -> int:
        if self.points.shape[1]:
            jumps = self._jumps(column)
            if jumps.shape[1]:
                smooth = self._best(column)
                for fit in (self.fits[self.plain], self.fits[smooth]):
                    self.fits.append(
                        Fit(np.hstack([jumps, fit.basis]), fit.free + jumps.shape[1], fit.penalty, jumps.shape[1])
                    )
        return self._best(column)

    def _many_terms(self, column: Array) -> bool:
        """Whether it takes many terms beyond the quadratic ones to come within 7 % of the least error."""
        errors = np.array([fit.left_out(column)[0] for fit in self.fits])
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
            left = Fit(np.hstack([found, plain.basis]), plain.free + found.shape[1], plain.penalty)(column)[:, 0]
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

    def _spread(self, left: Array) -> Array:
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


class Fit:
    """Penalised least squares on a basis whose first columns are free."""

    def __init__(self, basis: Array, free: int, penalty: float, jumps: int = 0) -> None:
        self.gram = basis.T @ basis
        penalised = self.gram.copy()
        penalised[np.diag_indices_from(penalised)] += len(basis) * np.where(
            np.arange(len(penalised)) < free, _TRACE, penalty
        )
        self.basis, self.free, self.penalty, self.jumps = basis, free, penalty, jumps
        self._factor = cho_factor(penalised)
        # The map itself, as large as the basis, is not kept: there are dozens of fits.
        self.leverage = np.einsum("ij,ji->i", basis, cho_solve(self._factor, basis.T))
        self.freedom = float(self.leverage.sum())

    def __call__(self, columns: Array) -> Array:
        """The columns, shape (n, c), less their fits."""
        residual: Array = columns - self.basis @ cho_solve(self._factor, self.basis.T @ columns)
        return residual

    def left_out(self, columns: Array) -> Array:
        """Mean squared leave-one-out error of each column, (c,); infinite where a fit all but interpolates."""
        if self.freedom > _MOST_FREEDOM * len(columns):
            return np.full(columns.shape[1], math.inf)
        error: Array = ((self(columns) / np.maximum(1 - self.leverage, 1e-9)[:, None]) ** 2).mean(0)
        return error

    def together(self, left: Array, near: csr_array) -> tuple[float, float]:
        """How far e'We of residuals e, shape (n,), is above that of noise, and the deviation of e'We/e'e.

        With H = BGB' for a basis B, (I - H)² = I - BKB': only matrices as small as the basis are multiplied.
        """
        inner = cho_solve(self._factor, np.eye(len(self.gram)))
        kernel = 2 * inner - inner @ self.gram @ inner
        trace = len(left) - np.sum(self.gram * kernel)
        mean = -np.sum((self.basis.T @ (near @ self.basis)) * kernel) / trace
        apart = near - mean * eye_array(len(left), format="csr")
        moved = apart @ self.basis
        once, twice = self.basis.T @ moved @ kernel, moved.T @ moved @ kernel
        variance = apart.multiply(apart).sum() - 2 * np.trace(twice) + np.sum(once * once.T)
        spread = math.sqrt(2 * max(variance, _NOTHING_LEFT)) / trace
        return float((left @ (near @ left) / (left @ left) - mean) / spread), spread


def _neighbours(points: Array) -> csr_array:
    """The symmetric graph of every point's nearest, (n, n), of weights that sum to their number a point."""
    n, k = len(points), min(_NEIGHBOURS, len(points) - 1)
    apart = points + _APART * np.random.default_rng(0).standard_normal(points.shape)
    index = np.asarray(cKDTree(apart).query(apart, k=k + 1)[1])[:, 1:]
    graph = csr_array((np.full(n * k, 0.5), (np.repeat(np.arange(n), k), index.ravel())), shape=(n, n))
    return csr_array(graph + graph.T)


def _coordinates(points: Array) -> Array:
    """5 arsinh(y/5) of every column, centred at its median and over its spread."""
    low, middle, high = np.quantile(points, [0.25, 0.5, 0.75], axis=0)
    # The quartiles of a normal law are 1.349 standard deviations apart; they may coincide where values repeat.
    spread = np.where(high > low, (high - low) / 1.349, points.std(0))
    coordinates: Array = _BEND * np.arcsinh((points - middle) / (_BEND * spread))
    return coordinates


def whitened(points: Array, name: str) -> Array:
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
