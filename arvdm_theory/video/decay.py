"""How fast the quality of a rollout decays, and how well a prediction ranks runs by it."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from arvdm_theory.number import Number, half_width
from arvdm_theory.video.metrics import decibel

__all__ = ["DecayError", "RankAgreement", "decay_slope", "partial_rank_correlation", "rank_agreement"]

Array = NDArray[np.float64]

# Of a squared error on [-1, 1], as in arvdm_theory.video.metrics.
_PEAK = 2.0
# Most runs for which all orders are gone through: 8! = 40320.
_MOST_EXACT = 8


class DecayError(ValueError):
    """Curves or runs that say nothing of a decay."""


def decay_slope(psnr_curves: ArrayLike, videos: ArrayLike | None = None) -> Number:
    """How fast PSNR falls along a rollout, in dB a generated frame; negative for a decay.

    It is the least-squares slope over the rollout index of the PSNR of the *mean* squared error over curves, the
    curve that a prediction is of. With weights a_t = (t - t̄)/Σ(t - t̄)², MSE_vt = 4·10^{-PSNR_vt/10} and its mean
    M_t over curves, that is Σ_t a_t 10 log₁₀(4/M_t). Exact copies count in M_t as no error. To first order a curve
    moves it by -(10/ln 10) Σ_t a_t MSE_vt/M_t, whose clustered standard error is the slope's.

    Args:
        psnr_curves: in dB, (curves, frames); one curve will do, without a standard error.
        videos: (curves,), a label each: curves of one video are one cluster. Left out, each is a video.

    Raises:
        DecayError: if there are fewer than two frames or no curve, a PSNR is NaN or -∞, or all curves are
            exact copies at an index.
        ValueError: unless there is a label a curve.

    Example:
        >>> found = decay_slope([[20.0, 18.0, 16.0], [22.0, 20.0, 18.0]])
        >>> round(found.value, 12), found.n
        (-2.0, 2)
    """
    curves = np.asarray(psnr_curves, dtype=np.float64)
    if curves.ndim != 2 or len(curves) < 1 or curves.shape[1] < 2:
        raise DecayError(f"PSNR curves have shape (curves, 2 or more frames), got {curves.shape}")
    if np.isnan(curves).any() or np.isneginf(curves).any():
        raise DecayError("a PSNR is NaN or -∞; only +∞, of an exact copy, has a meaning")
    labels = np.arange(len(curves)) if videos is None else np.asarray(videos)
    index = np.arange(curves.shape[1]) - (curves.shape[1] - 1) / 2
    weights = index / (index @ index)
    errors = _PEAK**2 * 10 ** (-curves / 10)
    middle = errors.mean(0)
    if not middle.all():
        raise DecayError(f"all curves are exact copies at rollout index {int(np.argmin(middle))}: no slope")
    slope = float(decibel(middle) @ weights)
    moves = -10 / math.log(10) * (errors / middle - 1) @ weights
    # The moves' mean is 0: the weights sum to 0.
    return Number.clustered(slope + moves, labels)


@dataclass(frozen=True)
class RankAgreement:
    """Spearman's rank correlation of a prediction with what was measured, over runs.

    Attributes:
        correlation: ρ, Pearson's correlation of midranks, of ``n`` runs. For ρ = ±1, where the formula of the
            interval has width 0, nothing is known of its error.
        pvalue: two-sided, of all orders of the runs being equally likely.
        exact: whether the p-value went through all orders, not through random ones.
    """

    correlation: Number
    pvalue: float
    exact: bool


def rank_agreement(
    predicted: ArrayLike, measured: ArrayLike, permutations: int = 9999, seed: int = 0
) -> RankAgreement:
    """Spearman's rank correlation with a permutation p-value and a 95 % confidence interval.

    The p-value is the share of orders of the measured ranks with |ρ| no less than the observed one: of all n!
    orders up to 8 runs; above, of the observed and random ones, so it is never 0. The interval is Fisher's,
    tanh(artanh ρ ± z √((1 + ρ²/2)/(n - 3))), with the variance of Bonett and Wright (2000), *Sample size
    requirements for estimating Pearson, Kendall and Spearman correlations*; for few runs it is rough.

    Args:
        predicted: shape (runs,), 4 or more.
        measured: the same runs.
        permutations: random orders for more than 8 runs.
        seed: of them.

    Raises:
        DecayError: if shapes differ, there are fewer than 4 runs, a number is not finite, one side is
            constant (as every decay predicted without accumulation may be), or no order is to be drawn.

    Example:
        >>> found = rank_agreement([1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 30.0, 40.0])
        >>> found.correlation.value, round(found.pvalue * 24), found.exact
        (1.0, 2, True)
    """
    x, y = np.asarray(predicted, dtype=np.float64), np.asarray(measured, dtype=np.float64)
    n = x.size
    if x.ndim != 1 or x.shape != y.shape or n < 4:
        raise DecayError(f"two lists of one length, 4 or more runs, are needed, got {x.shape} and {y.shape}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise DecayError("a run's prediction or measurement is NaN or infinite: it has no rank here")
    if permutations < 1:
        raise DecayError(f"at least one permutation is needed, got {permutations}")
    # Twice the centred midranks are whole numbers, so equal correlations compare as equal.
    a, b = (np.rint(2 * rankdata(values)).astype(np.int64) - (n + 1) for values in (x, y))
    squares = int(a @ a) * int(b @ b)
    if squares == 0:
        raise DecayError("all runs are equal on one side: constant values have no rank correlation")
    exact = n <= _MOST_EXACT
    if exact:
        orders = b[np.array(list(itertools.permutations(range(n))))]
    else:
        drawn = np.random.default_rng(seed).permuted(np.tile(b, (permutations, 1)), axis=1)
        orders = np.concatenate([b[None], drawn])
    shared = int(a @ b)
    pvalue = float((np.abs(orders @ a) >= abs(shared)).mean())
    # ±1 exactly, where rounding might leave a little less.
    value = math.copysign(1, shared) if shared**2 == squares else shared / math.sqrt(squares)
    return RankAgreement(_correlation(value, n, n - 3, "Spearman"), pvalue, exact)


def _correlation(value: float, n: int, free: int, method: str) -> Number:
    """With Fisher's interval and the variance of Bonett and Wright; none for ±1."""
    if abs(value) == 1:
        return Number.stated(value, math.nan, method=method, n=n)
    stderr = math.sqrt((1 + value**2 / 2) / free)
    width = half_width(stderr)
    low, high = (math.tanh(math.atanh(value) + side * width) for side in (-1, 1))
    # tanh' = 1 - tanh².
    return Number.stated(value, (1 - value**2) * stderr, low, high, method=method, n=n)


def partial_rank_correlation(one: ArrayLike, other: ArrayLike, given: ArrayLike) -> Number:
    """Spearman's rank correlation of two measurements of runs, a third one held fixed.

    ρ = (ρ₁₂ - ρ₁₃ρ₂₃)/√((1 - ρ₁₃²)(1 - ρ₂₃²)) with Spearman's correlations of the pairs. The 95 % interval is that
    of :func:`rank_agreement` with one run fewer.

    Args:
        one: shape (runs,), 5 or more.
        other: the same runs.
        given: what is held fixed.

    Raises:
        DecayError: as :func:`rank_agreement`, for fewer than 5 runs, or if the third one ranks runs as another.

    Example:
        >>> found = partial_rank_correlation([1, 2, 3, 4, 5], [2, 1, 4, 3, 5], [1, 3, 2, 5, 4])
        >>> round(found.value, 6)  # of 0.8, and 0.8 and 0.3 with what is held fixed
        0.978399
    """
    pairs = [(one, other), (one, given), (other, given)]
    found = [rank_agreement(*pair, permutations=1).correlation for pair in pairs]
    n, (ab, ac, bc) = np.size(one), (each.value for each in found)
    if n < 5:
        raise DecayError(f"a partial correlation needs 5 or more runs, got {n}")
    left = (1 - ac**2) * (1 - bc**2)
    if left <= 1e-12:
        raise DecayError("what is held fixed ranks the runs as a measurement does: nothing is left to correlate")
    value = min(max((ab - ac * bc) / math.sqrt(left), -1.0), 1.0)
    return _correlation(value if abs(value) < 1 - 1e-12 else round(value), n, n - 4, "Spearman, partial")
