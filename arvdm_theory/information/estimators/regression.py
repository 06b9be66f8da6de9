"""What Y explains of X and Z: nonlinear regressions whose predictions no sample has helped to make for itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.spatial.distance import cdist

from arvdm_theory.information.estimators.plugin import normal_scores
from arvdm_theory.information.estimators.uncertainty import Dependence

__all__ = ["FEWEST_TO_FIT", "held_out_predictions", "residuals"]

Array = NDArray[np.float64]

# Centres, the kernel's widths in standard deviations per √d, penalties per sample.
_SAMPLES_PER_CENTRE, _MOST_CENTRES = 4, 200
_WIDTHS = (0.4, 0.7, 1.5)
_PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2)
_JITTER = 1e-6
_FOLDS = 5
FEWEST_TO_FIT = 50
"""Samples below which no regression is tried."""
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
    linear, best = held_out_predictions(inputs, targets, dependence)
    bent = (best != linear).any(0)
    result[:, bent] = (targets - best)[:, bent]
    # Where Y places nothing the column itself is what is left, and where it does so linearly its scores less that.
    placed = (linear**2).mean(0) > _WORTHWHILE
    left = np.where(placed, targets - best, result - np.median(result, axis=0))
    sizes = np.log(np.abs(left) + np.finfo(np.float64).tiny ** 0.5)
    # A few samples at the very middle would outweigh all others.
    sizes = np.maximum(sizes, np.quantile(sizes, 0.02, axis=0))
    centre, scale = sizes.mean(0), sizes.std(0)
    _, spread = held_out_predictions(inputs, (sizes - centre) / scale, dependence)
    uneven = ((spread**2).mean(0) > _UNEVEN) & (
        (((sizes - centre) / scale - spread) ** 2).mean(0) < 1 - _UNEVEN
    )  # fmt: skip
    result[:, uneven] = (left * np.exp(-scale * spread))[:, uneven]
    return result[:, : x.shape[1]], result[:, x.shape[1] :], y


def held_out_predictions(
    inputs: Array, targets: Array, dependence: Dependence = "independent"
) -> tuple[Array, Array]:
    """Predictions of every column of the targets, each sample's by a fit that has not seen it: (linear, best).

    Kernel ridge regression on at most 200 of the samples as centres (Gaussian kernel, Nyström features), besides
    the linear terms; the kernel's width and the penalty are chosen, column by column, by the error on the samples
    left out of five folds. The best prediction is the linear one unless it beats it by more than 1 % of a unit
    variance.

    Args:
        inputs: shape (n, d), as normal scores.
        targets: shape (n, c), as normal scores.
        dependence: the folds of autocorrelated samples are stretches.
    """
    n, d = inputs.shape
    rng = np.random.default_rng(n)
    fold = np.arange(n) * _FOLDS // n if dependence == "autocorrelated" else rng.permutation(n) % _FOLDS
    centres = inputs[rng.choice(n, min(n // _SAMPLES_PER_CENTRE, _MOST_CENTRES), replace=False)]
    linear = np.hstack([np.ones((n, 1)), inputs])
    (plain,) = _held_out(linear, d + 1, targets, fold, [0.0])
    loss = ((targets - plain) ** 2).mean(0) - _WORTHWHILE
    best = plain.copy()
    for width in _WIDTHS:
        scale = 2 * width**2 * d
        kernel = np.exp(-cdist(centres, centres, "sqeuclidean") / scale)
        factor = np.linalg.cholesky(kernel + _JITTER * np.eye(len(kernel)))
        features = solve_triangular(factor, np.exp(-cdist(inputs, centres, "sqeuclidean") / scale).T, lower=True).T
        basis = np.hstack([linear, features])
        for found in _held_out(basis, d + 1, targets, fold, _PENALTIES):
            error = ((targets - found) ** 2).mean(0)
            better = error < loss
            loss[better], best[:, better] = error[better], found[:, better]
    return plain, best


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
