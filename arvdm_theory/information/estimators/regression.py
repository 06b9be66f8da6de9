"""What Y explains of X and Z, and X and Y of Z: regressions whose predictions no sample has helped to make."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.spatial.distance import cdist

from arvdm_theory.information.estimators.neighbours import nearest
from arvdm_theory.information.estimators.plugin import normal_scores
from arvdm_theory.information.estimators.uncertainty import Dependence

__all__ = ["FEWEST_TO_FIT", "Turned", "held_out_predictions", "kernel_features", "residuals", "turned"]

Array = NDArray[np.float64]

# Centres, the kernel's widths in standard deviations per √d, penalties per sample.
_SAMPLES_PER_CENTRE, _MOST_CENTRES, _MOST_ON_A_LINE = 4, 200, 60
_WIDTHS = (0.4, 0.7, 1.5)
_PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2)
# Centres, widths and penalties of a first look, and the share of a column that it must tell.
_FIRST_CENTRES, _FIRST_WIDTHS, _FIRST_PENALTIES, _FIRST_HINT = 40, (0.5, 1.2), (1e-3,), 0.003
# Along one or two columns also the mean of so many nearest samples: as fine as they are.
_NEAREST, _FEW_INPUTS = (3, 8), 2
_JITTER = 1e-6
_FOLDS = 5
FEWEST_TO_FIT = 50
"""Samples below which no regression is tried."""
# A nonlinear prediction of Z must be worth this many nats, and standard errors, for X to give way to it.
_WORTHWHILE_NATS, _WORTHWHILE_ERRORS = 0.02, 2.0
# A nonlinear prediction must explain this share of a column beyond a linear one, out of sample.
_WORTHWHILE = 0.01
# Share of the variance of log |residual| that Y must explain, out of sample, for the spread to depend on it.
_UNEVEN = 0.03


def residuals(x: Array, z: Array, y: Array, dependence: Dependence = "independent") -> tuple[Array, Array, Array]:
    """X and Z without what Y explains of their place and spread, column by column; unchanged where it is nothing.

    Columns are predicted from Y as normal scores by :func:`held_out_predictions`, where that beats a linear
    prediction; then the logarithm of what is left in size, by which it is divided. I(X; Z | Y) is the same for
    (X - f(Y))/g(Y), whatever f and g > 0 are.
    """
    if not y.shape[1] or len(x) < FEWEST_TO_FIT:
        return x, z, y
    inputs, result = normal_scores(y), np.hstack([x, z])
    targets = normal_scores(result)
    linear, best = _predictions(inputs, targets, dependence)
    bent = (best != linear).any(0)
    result[:, bent] = (targets - best)[:, bent]
    # Where Y places nothing the column itself is what is left, and where it does so linearly its scores less that.
    placed = (linear**2).mean(0) > _WORTHWHILE
    left = np.where(placed, targets - best, result - np.median(result, axis=0))
    sizes = np.log(np.abs(left) + np.finfo(np.float64).tiny ** 0.5)
    # A few samples at the very middle would outweigh all others.
    sizes = np.maximum(sizes, np.quantile(sizes, 0.02, axis=0))
    centre, scale = sizes.mean(0), sizes.std(0)
    _, spread = _predictions(inputs, (sizes - centre) / scale, dependence)
    uneven = ((spread**2).mean(0) > _UNEVEN) & (
        (((sizes - centre) / scale - spread) ** 2).mean(0) < 1 - _UNEVEN
    )  # fmt: skip
    result[:, uneven] = (left * np.exp(-scale * spread))[:, uneven]
    return result[:, : x.shape[1]], result[:, x.shape[1] :], y


def _predictions(inputs: Array, targets: Array, dependence: Dependence) -> tuple[Array, Array]:
    """From more than two inputs nothing is looked for that a first look gives no sign of."""
    if inputs.shape[1] > _FEW_INPUTS:
        linear, best = held_out_predictions(inputs, targets, dependence, first=True)
        if (best == linear).all():
            return linear, best
    return held_out_predictions(inputs, targets, dependence)


def held_out_predictions(
    inputs: Array, targets: Array, dependence: Dependence = "independent", first: bool = False
) -> tuple[Array, Array]:
    """Predictions of every column of the targets, each sample's by a fit that has not seen it: (linear, best).

    Kernel ridge regression on at most 200 of the samples as centres (Gaussian kernel, Nyström features), besides
    the linear terms; the kernel's width and the penalty are chosen, column by column, by the error on the samples
    left out of five folds. From one or two inputs of independent samples also the means of the 3 and 8 nearest
    other samples. The best prediction is the linear one unless it beats it by more than 1 % of a unit variance.

    Args:
        inputs: shape (n, d), as normal scores.
        targets: shape (n, c), as normal scores.
        dependence: the folds of autocorrelated samples are stretches.
        first: a first look with few centres, at a tenth of the cost, which needs to tell 0.3 % only.
    """
    n, d = inputs.shape
    widths, penalties, most, worth = (
        (_FIRST_WIDTHS, _FIRST_PENALTIES, _FIRST_CENTRES, _FIRST_HINT)
        if first
        else (_WIDTHS, _PENALTIES, _MOST_CENTRES, _WORTHWHILE)
    )
    if d == 1:  # more centres than widths fit on the line add nothing
        most = min(most, _MOST_ON_A_LINE)
    rng = np.random.default_rng(n)
    fold = np.arange(n) * _FOLDS // n if dependence == "autocorrelated" else rng.permutation(n) % _FOLDS
    centres = inputs[rng.choice(n, min(n // _SAMPLES_PER_CENTRE, most), replace=False)]
    linear = np.hstack([np.ones((n, 1)), inputs])
    (plain,) = _held_out(linear, d + 1, targets, fold, [0.0])
    loss = ((targets - plain) ** 2).mean(0) - worth
    best = plain.copy()

    def consider(found: Array) -> None:
        error = ((targets - found) ** 2).mean(0)
        better = error < loss
        loss[better], best[:, better] = error[better], found[:, better]

    squares, among = (cdist(each, centres, "sqeuclidean") for each in (inputs, centres))
    for width in widths:
        basis = np.hstack([linear, kernel_features(squares, among, 2 * width**2 * d)])
        for found in _held_out(basis, d + 1, targets, fold, penalties):
            consider(found)
    if d <= _FEW_INPUTS and dependence == "independent" and not first:
        near = nearest(inputs, max(_NEAREST))[1]
        for count in _NEAREST:
            consider(targets[near[:, :count]].mean(1))
    return plain, best


def kernel_features(squares: Array, among: Array, scale: float) -> Array:
    """L⁻¹k of every point, (n, centres): features whose products are the kernel e^{-r²/scale}, LL' = k(centres).

    A penalty on their coefficients is one on the norm that the kernel gives to functions (Nyström).

    Args:
        squares: r² from every point to every centre, (n, centres).
        among: between centres.
        scale: of the kernel.
    """
    factor = np.linalg.cholesky(np.exp(-among / scale) + _JITTER * np.eye(len(among)))
    features: Array = solve_triangular(factor, np.exp(-squares / scale).T, lower=True).T
    return features


def _held_out(
    basis: Array, free: int, targets: Array, fold: NDArray[np.int64], penalties: Sequence[float]
) -> list[Array]:
    """Predictions, a penalty each, by ridge regression on the other folds; the first ``free`` columns are free."""
    parts = [basis[fold == i] for i in range(_FOLDS)]
    grams = [part.T @ part for part in parts]
    loads = [part.T @ targets[fold == i] for i, part in enumerate(parts)]
    gram, load = sum(grams), sum(loads)
    # A trace of the penalty on every column keeps the equations solvable when features coincide.
    unit = len(basis) * np.where(np.arange(basis.shape[1]) < free, 0.0, 1.0)
    found = []
    for penalty in penalties:
        predicted = np.empty_like(targets)
        for i, part in enumerate(parts):
            equations = gram - grams[i] + np.diag(penalty * unit + 1e-10 * len(basis))
            predicted[fold == i] = part @ cho_solve(cho_factor(equations), load - loads[i])
        found.append(predicted)
    return found


@dataclass(frozen=True)
class Turned:
    """Z, what X and Y predict of it, and what they leave; or the same with X and Z exchanged.

    Attributes:
        columns: (prediction, Z, Y, X, rest), one row a sample.
        backwards: whether X and Z are exchanged.
        gain: Gaussian information, in nats, that the prediction has over a linear one.
    """

    columns: tuple[Array, Array, Array, Array, Array]
    backwards: bool
    gain: float


@overload
def turned(x: Array, z: Array, y: Array, dependence: Dependence = ...) -> Turned | None: ...
@overload
def turned(x: Array, z: Array, y: Array, dependence: Dependence, backwards: bool) -> Turned: ...


def turned(
    x: Array, z: Array, y: Array, dependence: Dependence = "independent", backwards: bool | None = None
) -> Turned | None:
    """The nonlinear prediction of Z from X and Y, or of X from Z and Y; None if neither beats a linear one.

    Which way it goes, and whether it is worth a close look, a first one with few centres tells. To count it must
    gain, on samples that its fit has not seen, more than 0.02 nats and two standard errors of
    ½ log(det S_linear / det S), S the covariances of what the predictions leave.

    Args:
        x: shape (n, d_x).
        z: shape (n, d_z).
        y: shape (n, d_y), d_y = 0 for mutual information.
        dependence: of the samples.
        backwards: which of the two it is, if that is known; it then counts in any case.
    """
    n = len(x)
    if n < FEWEST_TO_FIT and backwards is None:
        return None
    x, z, y = (normal_scores(part) if part.shape[1] else part for part in (x, z, y))
    if backwards is None:
        gains = {exchanged: _gain(x, z, y, dependence, exchanged, True)[0] for exchanged in (False, True)}
        likely = max(gains, key=lambda exchanged: gains[exchanged])
        if gains[likely] <= 0:
            return None
    else:
        likely = backwards
    source, target = (z, x) if likely else (x, z)
    gain, error, prediction = _gain(x, z, y, dependence, likely, False)
    if backwards is None and gain < max(_WORTHWHILE_NATS, _WORTHWHILE_ERRORS * error):
        return None
    return Turned((prediction, target, y, source, target - prediction), likely, gain)


def _gain(
    x: Array, z: Array, y: Array, dependence: Dependence, exchanged: bool, first: bool
) -> tuple[float, float, Array]:
    """Gaussian information that a nonlinear prediction has over a linear one, its error, and the prediction."""
    source, target = (z, x) if exchanged else (x, z)
    linear, nonlinear = held_out_predictions(np.hstack([source, y]), target, dependence, first)
    lengths, sizes = zip(*(_squared_lengths(target - found) for found in (linear, nonlinear)), strict=True)
    error = float((lengths[0] - lengths[1]).std()) / 2 / math.sqrt(len(x))
    return (sizes[0] - sizes[1]) / 2, error, nonlinear


def _squared_lengths(points: Array) -> tuple[Array, float]:
    """Squared Mahalanobis lengths, and the log-determinant of the covariance."""
    centred = points - points.mean(0)
    factor = np.linalg.cholesky(centred.T @ centred / len(points))
    half = solve_triangular(factor, centred.T, lower=True)
    return np.asarray((half**2).sum(0)), 2 * float(np.log(np.diag(factor)).sum())
