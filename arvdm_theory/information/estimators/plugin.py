"""Plug-in estimates with their bias removed: Gaussian laws, Gaussian copulas and finite alphabets, in nats.

The standard errors are those of the mean of the estimates' influence functions, so they hold for any law, not only
for the one that the estimate assumes; what the interval covers is then the assumed model's best fit.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import solve_triangular
from scipy.special import digamma, ndtri
from scipy.stats import rankdata

from arvdm_theory.information.discrete import information_of_blocks
from arvdm_theory.information.estimators.result import conclude
from arvdm_theory.information.estimators.samples import (
    SampleError,
    paired_samples,
    two_samples,
    warn_of_duplicates,
    warn_of_heavy_tails,
)
from arvdm_theory.information.estimators.uncertainty import (
    Dependence,
    conclude_mean,
    contribution_error,
    cuts,
    near_zero,
    still_to_come,
)
from arvdm_theory.number import LEVEL, Number, half_width

__all__ = [
    "copula_information",
    "discrete_information",
    "gaussian_contributions",
    "gaussian_divergence",
    "gaussian_divergence_value",
    "gaussian_information",
    "log_det_bias",
    "normal_scores",
]

Array = NDArray[np.float64]

# Samples per dimension below which a covariance's errors are no longer small.
_SAMPLES_PER_DIMENSION = 10
# The parts of the samples whose estimates show how an estimate moves with n.
_PARTS = 4
# Samples per cell of a table below which the first-order bias correction is not enough.
_SAMPLES_PER_CELL = 5
_NO_DEFINITE = (
    "some columns are linear functions of the others, so the information is infinite or undefined: drop them"
)


def log_det_bias(dimension: int, freedom: float) -> float:
    """E log det S - log det Σ of the covariance S of Gaussian samples with the given degrees of freedom ν.

    Σ_{i<d} ψ((ν - i)/2) + d log(2/ν), exact (Wishart law).
    """
    return float(digamma((freedom - np.arange(dimension)) / 2).sum() + dimension * math.log(2 / freedom))


def normal_scores(points: Array) -> Array:
    """Φ^{-1}(rank/(n + 1)), column by column; equal values get their middle rank."""
    scores: Array = ndtri(rankdata(points, axis=0) / (len(points) + 1))
    return scores


def gaussian_information(
    x: ArrayLike,
    z: ArrayLike,
    y: ArrayLike | None = None,
    *,
    dependence: Dependence = "independent",
    level: float = LEVEL,
) -> Number:
    """I(X; Z), or I(X; Z | Y), of a Gaussian law, from its covariance; unbiased for Gaussian samples.

    ½ log (det S_xy det S_zy / (det S_y det S_xzy)) less the exact expectation of the same expression under
    independence, see :func:`log_det_bias`. For another law it tends to the information of the Gaussian with that
    law's covariance, which may lie above or below the law's own.

    Args:
        x: shape (n, d_x) or (n,).
        z: shape (n, d_z) or (n,).
        y: shape (n, d_y) or (n,), if there is a condition.
        dependence: ``"autocorrelated"`` takes the standard error in blocks.
        level: of the confidence interval.

    Raises:
        SampleError: for samples that do not fit together, NaN or infinite values, constant columns, n ≤ d + 1 or
            columns that are linear functions of others.
    """
    arrays = paired_samples(x, z, y)
    joint = np.hstack(arrays)
    notes = [*_warn_of_few(joint), *warn_of_heavy_tails(joint)]
    value, contributions = gaussian_contributions(*arrays)
    return conclude_mean(
        contributions, value=value, method="gaussian", notes=notes, dependence=dependence, level=level,
        ratio=arrays[0].shape[1] * arrays[1].shape[1],
    )  # fmt: skip


def copula_information(
    x: ArrayLike,
    z: ArrayLike,
    y: ArrayLike | None = None,
    *,
    dependence: Dependence = "independent",
    level: float = LEVEL,
) -> Number:
    """I(X; Z), or I(X; Z | Y), where some rising map of every single column makes the joint law Gaussian.

    The Gaussian estimate on normal scores: information does not change under invertible maps of a column, and
    ranks do not see them. Arguments and errors as :func:`gaussian_information`.
    """
    arrays = paired_samples(x, z, y)
    joint = np.hstack(arrays)
    notes = [
        *_warn_of_few(joint),
        *warn_of_duplicates(
            joint, "use the mixed estimator if values repeat, or add the noise that rounding took away"
        ),
    ]

    def of_scores(rows: slice | NDArray[np.intp]) -> tuple[float, Array]:
        return gaussian_contributions(
            *(normal_scores(array[rows]) if array.shape[1] else array[rows] for array in arrays)
        )

    value, contributions = of_scores(slice(None))
    n = len(joint)
    stderr, freedom, more = contribution_error(contributions, dependence)
    pairs = arrays[0].shape[1] * arrays[1].shape[1]
    stderr, above = near_zero(value, stderr, [contributions], pairs, level)
    reach = max(half_width(stderr, freedom, level), above - value)
    if n >= _PARTS * _SAMPLES_PER_DIMENSION * joint.shape[1]:
        # Ranks of n samples cannot hold a dependence much tighter than 1/n: the value then grows with n.
        parts = cuts(n, _PARTS, dependence, np.random.default_rng(0))
        smaller = np.array([of_scores(part)[0] for part in parts])
        ahead = abs(still_to_come(value, smaller, stderr, 0.5))
        if ahead > 2 * stderr:
            notes.append(
                f"the value still moves with the samples, by about {ahead:.2g} nats more, as where a dependence "
                "is tighter than their ranks tell: the interval holds that; read it as a rough value."
            )
            reach += ahead
    stderr = reach / half_width(1.0, freedom, level)
    return conclude(value, stderr, reach, method="copula", n=n, notes=[*notes, *more])


def gaussian_contributions(x: Array, z: Array, y: Array) -> tuple[float, Array]:
    """The estimate and its contributions: mean 0 influence ½ (m_xy + m_zy - m_y - m_xzy) plus the value.

    m_s is the squared Mahalanobis length of a sample in the subspace s.
    """
    n = len(x)
    d = x.shape[1] + z.shape[1] + y.shape[1]
    if n <= d + 1:
        raise SampleError(f"a covariance in {d} dimensions needs at least {d + 2} samples, got n = {n}")
    value, influence = 0.0, np.zeros(n)
    for sign, blocks in ((1, (x, y)), (1, (z, y)), (-1, (y,)), (-1, (x, z, y))):
        points = np.hstack(blocks)
        if not points.shape[1]:
            continue
        _, half, log_det = _whitened(points)
        value += sign * (log_det - log_det_bias(points.shape[1], n - 1)) / 2
        influence += sign * (half**2).sum(1) / 2
    return value, value + influence


def _whitened(points: Array) -> tuple[Array, Array, float]:
    """Cholesky factor of the covariance, the centred points whitened by it, and its log-determinant."""
    centred = points - points.mean(0)
    scale = points.std(0)
    try:
        factor = np.linalg.cholesky(centred.T @ centred / (len(points) - 1) / scale / scale[:, None])
    except np.linalg.LinAlgError:
        raise SampleError(_NO_DEFINITE) from None
    # The squared diagonal is 1 - R² of a column given those before it.
    if (np.diag(factor) ** 2).min() < 1e-12:
        raise SampleError(_NO_DEFINITE)
    factor = scale[:, None] * factor
    half = solve_triangular(factor, centred.T, lower=True).T
    return factor, half, 2 * float(np.log(np.diag(factor)).sum())


def _warn_of_few(points: Array) -> list[str]:
    n, d = points.shape
    if n >= _SAMPLES_PER_DIMENSION * d:
        return []
    return [
        f"{n} samples are few for a covariance in {d} dimensions: the estimate is unbiased but noisy; use at "
        f"least {_SAMPLES_PER_DIMENSION * d} samples or fewer columns."
    ]


def gaussian_divergence(
    p: ArrayLike, q: ArrayLike, *, dependence: Dependence = "independent", level: float = LEVEL
) -> Number:
    """KL(P ‖ Q) of Gaussian laws from samples of each; unbiased for Gaussian samples.

    With means and covariances (a, S) of n samples of P and (b, V) of m of Q, δ = a - b and
    c = (m - d - 2)/(m - 1), which makes E[c V^{-1}] = Σ_q^{-1}, the value is

        ½ [c tr(V^{-1} S) (1 - 1/n) + c δᵀ V^{-1} δ - d/m - d + log det V - log det S - bias],

    the bias being that of the two log-determinants (:func:`log_det_bias`).

    Args:
        p: samples of P, shape (n, d) or (n,).
        q: samples of Q, shape (m, d) or (m,).
        dependence: of the samples within each of the two.
        level: of the confidence interval.

    Raises:
        SampleError: as :func:`gaussian_information`, for different dimensions, n ≤ d + 1 or m ≤ d + 2.
    """
    of_p, of_q = two_samples(p, q)
    value, from_p, from_q = _gaussian_divergence(of_p, of_q)
    error_p, freedom_p, notes_p = contribution_error(from_p, dependence)
    error_q, freedom_q, notes_q = contribution_error(from_q, dependence)
    stderr = math.hypot(error_p, error_q)
    d = of_p.shape[1]
    stderr, above = near_zero(value, stderr, [from_p, from_q], d * (d + 3) / 2, level)
    reach = max(half_width(stderr, min(freedom_p, freedom_q), level), above - value)
    tails = warn_of_heavy_tails(np.vstack([of_p, of_q]), "use the classifier, which works on ranks")
    return conclude(
        value, stderr, reach, method="gaussian", n=len(of_p),
        notes=[*_warn_of_few(of_p), *_warn_of_few(of_q), *tails, *notes_p, *notes_q],
    )  # fmt: skip


def gaussian_divergence_value(p: Array, q: Array) -> float:
    """The value of :func:`gaussian_divergence` alone, of samples (n, d) and (m, d) that need no check."""
    return _gaussian_divergence(p, q)[0]


def _gaussian_divergence(of_p: Array, of_q: Array) -> tuple[float, Array, Array]:
    """The estimate, and the influence on it of one more sample of P, and of Q."""
    (n, d), m = of_p.shape, len(of_q)
    if n <= d + 1 or m <= d + 2:
        raise SampleError(f"covariances in {d} dimensions need n ≥ {d + 2} and m ≥ {d + 3}, got n = {n}, m = {m}")
    factor_p, half_p, log_det_p = _whitened(of_p)
    factor_q, half_q, log_det_q = _whitened(of_q)
    shrink = (m - d - 2) / (m - 1)
    inner = solve_triangular(factor_q, factor_p, lower=True)
    shift = solve_triangular(factor_q, of_p.mean(0) - of_q.mean(0), lower=True)
    bias = log_det_bias(d, m - 1) - log_det_bias(d, n - 1)
    trace = shrink * (inner**2).sum() * (1 - 1 / n) + shrink * (shift**2).sum() - d / m
    value = (trace - d + log_det_q - log_det_p - bias) / 2
    seen = solve_triangular(factor_q, (of_p - of_p.mean(0)).T, lower=True).T
    from_p = ((seen**2).sum(1) - (half_p**2).sum(1)) / 2 + seen @ shift
    moved = half_q @ inner
    from_q = ((half_q**2).sum(1) - (moved**2).sum(1) - (half_q @ shift) ** 2) / 2 - half_q @ shift
    return float(value), from_p, from_q


def discrete_information(
    x: ArrayLike,
    z: ArrayLike,
    y: ArrayLike | None = None,
    *,
    correction: Literal["miller-madow", "shrinkage", "none"] = "miller-madow",
    dependence: Dependence = "independent",
    level: float = LEVEL,
) -> Number:
    """I(X; Z), or I(X; Z | Y), of variables with finitely many values, from their table of counts.

    - ``"none"``: the information of the observed frequencies, too large by about the next correction.
    - ``"miller-madow"``: plus (K_xy + K_zy - K_y - K_xzy)/2n, K the numbers of occupied cells (K_y = 1 without
      Y): first-order bias removed (Miller 1955).
    - ``"shrinkage"``: of λ/K + (1 - λ) p̂ over the K cells of the table of all observed values, with
      λ = (1 - Σ p̂²)/((n - 1) Σ (1/K - p̂)²), at most 1 (Hausser and Strimmer 2009): for tables with many cells.

    A row of several columns is one value. Arguments and errors otherwise as :func:`gaussian_information`.
    """
    if correction not in ("miller-madow", "shrinkage", "none"):
        raise SampleError(f"the correction is 'miller-madow', 'shrinkage' or 'none', got {correction!r}")
    arrays = paired_samples(x, z, y)
    n = len(arrays[0])
    codes = [
        np.unique(array, axis=0, return_inverse=True)[1].reshape(-1)
        if array.shape[1]
        else np.zeros(n, dtype=np.intp)
        for array in arrays
    ]
    # The table of x and z within each value of y is small; that of all three at once may not be.
    sizes = tuple(int(code.max()) + 1 for code in codes)
    cells, where, counts = np.unique(np.ravel_multi_index(codes, sizes), return_inverse=True, return_counts=True)
    in_x, in_z, in_y = np.unravel_index(cells, sizes)
    occupied, freedom = len(cells), 0
    if correction == "shrinkage":
        table = _shrunk(cells, counts, sizes, n)
        value = information_of_blocks(table)[0]
        with np.errstate(divide="ignore"):
            logs = [np.log(part) for part in (table, table.sum(1), table.sum(0), table.sum((0, 1)))]
        terms = logs[0][in_x, in_z, in_y] + logs[3][in_y] - logs[1][in_x, in_y] - logs[2][in_z, in_y]
    else:
        xy, n_xy = _pooled((in_x, in_y), (sizes[0], sizes[2]), counts)
        zy, n_zy = _pooled((in_z, in_y), (sizes[1], sizes[2]), counts)
        of_y, n_y = _pooled((in_y,), (sizes[2],), counts)
        terms = np.log(counts) + np.log(of_y) - np.log(xy) - np.log(zy)
        value = float((counts * terms).sum()) / n
        if correction == "miller-madow":
            freedom = occupied + n_y - n_xy - n_zy
            value -= freedom / (2 * n)
    notes: list[str] = []
    if n < _SAMPLES_PER_CELL * occupied:
        notes.append(
            f"{n} samples fill {occupied} cells, {n / occupied:.1f} each: first-order corrections do not "
            "remove the bias; merge values, use correction='shrinkage', or more samples."
        )
    method = "plug-in" if correction == "none" else correction
    return conclude_mean(
        terms[where.reshape(-1)], value=value, method=method, notes=notes, dependence=dependence, level=level,
        ratio=freedom if freedom > 0 else None,
    )  # fmt: skip


def _pooled(
    codes: tuple[NDArray[np.intp], ...], sizes: tuple[int, ...], counts: NDArray[np.intp]
) -> tuple[NDArray[np.int64], int]:
    """For every occupied cell the count of its margin, and how many cells of the margin are occupied."""
    _, inverse = np.unique(np.ravel_multi_index(codes, sizes), return_inverse=True)
    totals = np.zeros(int(inverse.max()) + 1, dtype=np.int64)
    np.add.at(totals, inverse, counts)
    return totals[inverse], len(totals)


def _shrunk(cells: NDArray[np.intp], counts: NDArray[np.intp], sizes: tuple[int, ...], n: int) -> Array:
    total = math.prod(sizes)
    if total > 1 << 24:
        raise SampleError(f"the table of all values has {total} cells; shrinkage is for at most {1 << 24}")
    table = np.zeros(total)
    table[cells] = counts / n
    spread = float(((1 / total - table) ** 2).sum())
    weight = 1.0 if spread == 0 or n < 2 else min(1.0, (1 - float((table**2).sum())) / ((n - 1) * spread))
    return (weight / total + (1 - weight) * table).reshape(sizes)
