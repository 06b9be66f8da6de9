"""Standard errors and confidence intervals for estimates, also from autocorrelated samples.

Two routes. An estimate that is, but for a constant, the mean of one contribution a sample has the standard
error of that mean (the infinitesimal jackknife); any other is recomputed on disjoint subsamples, whose spread
shrinks like 1/n (Politis, Romano and Wolf 1999; Holmes and Nemenman 2019 for nearest neighbours). Under
autocorrelation the contributions are taken in blocks, whose length is chosen from the data (Politis and White
2004), and the subsamples are stretches of consecutive samples.
"""

from __future__ import annotations

import math
import warnings as python_warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import chndtrinc

from arvdm_theory.information.estimators.result import EstimationWarning, conclude, issue
from arvdm_theory.number import LEVEL, Number, half_width

__all__ = [
    "Dependence",
    "block_length",
    "conclude_mean",
    "contribution_error",
    "cuts",
    "near_zero",
    "still_to_come",
    "subsample_error",
    "subsampled",
]

Array = NDArray[np.float64]
Dependence = Literal["independent", "autocorrelated"]

_MOST_SUBSAMPLES = 20
# Blocks per sample size below which a block standard error means little.
_FEWEST_BLOCKS = 10
# The largest ratio of a move to the one before that still says where it ends.
_SLOWEST = 0.85
# Fewer disjoint subsamples than these know little of their spread: groups are left out in turn instead.
_FEWEST_SUBSAMPLES, _GROUPS = 5, 10


def block_length(series: Array) -> int:
    """Length of blocks that carry a series' autocorrelation (Politis and White 2004, corrected 2009).

    b = (2 G²/D)^{1/3} n^{1/3} for the circular block bootstrap, with G = Σ_k λ(k/M) |k| R(k),
    D = (4/3) (Σ_k λ(k/M) R(k))², R the autocovariances, λ the flat-top window and M twice the lag after which no
    autocorrelation of ⌈√log₁₀ n⌉ (at least 5) in a row exceeds 2 √(log₁₀ n / n). At most min(3√n, n/3).

    Args:
        series: shape (n,) or (n, c); the longest of the c columns' lengths is returned.
    """
    columns = series[:, None] if series.ndim == 1 else series
    return max(_block_length(column) for column in columns.T)


def _block_length(series: Array) -> int:
    n = len(series)
    run = max(5, math.ceil(math.sqrt(math.log10(n))))
    most = min(math.ceil(math.sqrt(n)) + run, n - 1)
    centred = series - series.mean()
    size = 1 << (2 * n - 1).bit_length()
    spectrum = np.abs(np.fft.rfft(centred, size)) ** 2
    covariance = np.fft.irfft(spectrum, size)[: 2 * most + 1] / n
    if covariance[0] <= 0 or most < 1:
        return 1
    quiet = np.abs(covariance[1 : most + 1] / covariance[0]) < 2 * math.sqrt(math.log10(n) / n)
    last = most
    for lag in range(most - run + 1):
        if quiet[lag : lag + run].all():
            last = lag
            break
    window = min(2 * max(last, 1), len(covariance) - 1)
    lags = np.arange(1, window + 1)
    weights = np.minimum(1, 2 * (1 - lags / window))
    g = 2 * (weights * lags * covariance[1 : window + 1]).sum()
    d = 4 / 3 * (covariance[0] + 2 * (weights * covariance[1 : window + 1]).sum()) ** 2
    if d <= 0:
        return 1
    length = math.cbrt(2 * float(g) ** 2 / float(d) * n)
    return max(1, min(math.ceil(length), math.ceil(min(3 * math.sqrt(n), n / 3))))


def contribution_error(
    contributions: Array, dependence: Dependence = "independent"
) -> tuple[float, float, list[str]]:
    """Standard error of the mean of one contribution a sample; (stderr, degrees of freedom, warnings).

    Independent: sd/√n. Autocorrelated: Künsch's moving-block jackknife, the variance of the means of all
    stretches of b consecutive contributions times b/n with b from :func:`block_length`, over (1 - b/n), which
    is what centring at the whole mean costs; the degrees of freedom are n/b - 1.
    """
    n = len(contributions)
    if n < 2:
        return math.nan, math.inf, []
    if dependence == "independent":
        return float(contributions.std(ddof=1)) / math.sqrt(n), math.inf, []
    b = block_length(contributions)
    sums = np.concatenate([[0.0], np.cumsum(contributions - contributions.mean())])
    means = (sums[b:] - sums[:-b]) / b
    variance = float((means**2).mean()) * b / (n - b)
    return math.sqrt(variance), max(n / b - 1, 1.0), _short_blocks(n, b)


def conclude_mean(
    contributions: Array,
    *,
    method: str,
    value: float | None = None,
    k: int | None = None,
    notes: Sequence[str] = (),
    dependence: Dependence = "independent",
    level: float = LEVEL,
    ratio: float | None = None,
) -> Number:
    """The estimate whose value is the mean of one contribution a sample, with that mean's error.

    Args:
        contributions: shape (n,).
        method: the estimator's name.
        value: the estimate, where it is the mean plus a correction.
        k: number of neighbours, if the method has one.
        notes: warnings found on the way.
        dependence: of the samples.
        level: of the confidence interval.
        ratio: degrees of freedom, if the value is that of a likelihood ratio: see :func:`near_zero`.
    """
    stderr, freedom, more = contribution_error(contributions, dependence)
    value = float(contributions.mean()) if value is None else value
    reach = half_width(stderr, freedom, level)
    if ratio is not None:
        stderr, above = near_zero(value, stderr, [contributions], ratio, level)
        reach = max(half_width(stderr, freedom, level), above - value)
    return conclude(value, stderr, reach, method=method, n=len(contributions), k=k, notes=[*notes, *more])


def near_zero(
    value: float, stderr: float, influences: Sequence[Array], freedom: float, level: float
) -> tuple[float, float]:
    """Error and upper end of an estimate I whose influence function vanishes with what is estimated.

    Of a log-likelihood ratio with ν degrees of freedom less its mean under the null, 2n I + ν is noncentral χ²
    with the noncentrality 2n times the truth (Wald 1943): the error is never below √(ν/2)/n, and the upper end is
    the truth under which so low an estimate has the chance (1 - level)/2. A normal interval misses it there, as χ²
    is skewed.

    Args:
        value: I.
        stderr: from the influence function.
        influences: contributions of the samples, (n,), or of either of two kinds of samples, (n,) and (m,), which
            together are as one of nm/(n + m). Autocorrelated ones are worth fewer.
        freedom: ν.
        level: of the interval.

    Returns:
        the standard error and the upper end.
    """
    independent = sum(float(own.var(ddof=1)) / len(own) for own in influences if len(own) > 1)
    worth = min(1.0, independent / stderr**2 if stderr > 0 else 1.0) / sum(1 / len(own) for own in influences)
    above = chndtrinc(max(2 * worth * value + freedom, 0.0), freedom, (1 - level) / 2) / (2 * worth)
    return max(stderr, math.sqrt(freedom / 2) / worth), float(np.nan_to_num(above, nan=value))


def _short_blocks(n: int, b: int) -> list[str]:
    if n / b >= _FEWEST_BLOCKS:
        return []
    return [
        f"the samples' memory asks for blocks of {b}, of which {n} samples hold only {n / b:.1f}: the "
        "standard error is rough; use a longer recording."
    ]


def subsample_error(
    estimator: Callable[..., float | Array],
    groups: Sequence[Sequence[Array]],
    smallest: int,
    dependence: Dependence = "independent",
    seed: int = 0,
) -> tuple[Array, float, list[str]]:
    """Covariance of an estimator from disjoint subsamples; (covariance, degrees of freedom, warnings).

    With B subsamples of n/B samples each, whose estimates have the covariance S, an estimate from all n has
    S/B. B is at most 20 and such that no subsample is smaller than ``smallest``. Where that leaves fewer than
    five, ten groups are left out in turn (the jackknife).

    Args:
        estimator: takes the arrays of all groups, one after the other, and returns a value or a vector of v.
        groups: arrays that are cut together, row by row; several groups for independent samples.
        smallest: samples that the estimator needs at least.
        dependence: independent samples are shuffled first; autocorrelated ones are cut into stretches.
        seed: of the shuffle.

    Returns:
        the covariance is (v, v).
    """
    fewest = min(len(group[0]) for group in groups)
    blocks = min(_MOST_SUBSAMPLES, fewest // max(smallest, 1))
    notes: list[str] = []
    if dependence == "autocorrelated" and blocks >= 2:
        b = block_length(np.hstack([array for group in groups for array in group if array.shape[1]])[:fewest])
        # Each stretch should hold several lengths of memory, or neighbouring stretches are not independent.
        blocks = max(2, min(blocks, fewest // (4 * b)))
        notes = _short_blocks(fewest, b)
    rng = np.random.default_rng(seed)
    few = blocks < _FEWEST_SUBSAMPLES
    parts = min(_GROUPS, fewest) if few else blocks
    rows = [cuts(len(group[0]), parts, dependence, rng) for group in groups]

    def value(i: int) -> Array:
        own = (
            np.sort(np.concatenate([*cut[:i], *cut[i + 1 :]])) if few else cut[i]
            for cut in rows
        )  # fmt: skip
        return np.atleast_1d(estimator(*(a[cut] for group, cut in zip(groups, own, strict=True) for a in group)))

    values = np.array([value(i) for i in range(parts)])
    # The jackknife's variance of groups left out in turn, or that of disjoint subsamples.
    scale = (parts - 1) ** 2 / parts if few else 1 / parts
    return np.cov(values.T).reshape(values.shape[1], -1) * scale, parts - 1.0, notes


def still_to_come(
    value: float, smaller: Array, stderr: float, rate: float, smallest: Array | None = None
) -> float:
    """What an estimate that moves with n will still move, from the same on disjoint parts of the samples.

    With P parts a bias that falls like n^{-rate} has D r/(1 - r) of itself left, D the move from the parts to the
    whole and r = P^{-rate}; D is shrunk by max(0, 1 - 2 s²/D²), s its standard error (about ¾ of the value's,
    with which it shares samples), so that noise does not count as a move. Where the move before, from P² parts to
    P, is known, D over it takes the place of r (Aitken 1926), up to 0.85, if it is larger: as far as D is beyond
    three errors.

    Args:
        value: from all samples.
        smaller: from each part, (P,).
        stderr: of the value.
        rate: at which the bias falls at least, if it falls like a power.
        smallest: from each part of a P-th of the samples of these, (P²,).
    """
    moved = value - float(smaller.mean())
    if not moved:
        return 0.0
    noise = (0.75 * stderr / moved) ** 2
    ratio = float(len(smaller) ** -rate)
    if smallest is not None:
        before = (float(smaller.mean()) - float(smallest.mean())) / moved
        observed = _SLOWEST if before <= 1 / _SLOWEST else 1 / before
        ratio += max(0.0, 1 - 9 * noise) * max(observed - ratio, 0.0)
    return max(0.0, 1 - 2 * noise) * moved * ratio / (1 - ratio)


def cuts(n: int, parts: int, dependence: Dependence, rng: np.random.Generator) -> list[NDArray[np.intp]]:
    """Rows of disjoint subsamples of nearly one size: shuffled ones, or stretches of autocorrelated samples."""
    order = rng.permutation(n) if dependence == "independent" else np.arange(n)
    return np.array_split(order, parts)


def subsampled(
    estimator: Callable[..., Number],
    *arrays: Array,
    smallest: int = 50,
    dependence: Dependence = "independent",
    level: float = LEVEL,
    seed: int = 0,
) -> Number:
    """An estimate with its standard error and interval recomputed from disjoint subsamples.

    Args:
        estimator: arrays → estimate; any of the toolkit's, or your own.
        arrays: its samples, one row a sample.
        smallest: samples that a subsample must have.
        dependence: of the samples.
        level: of the interval.
        seed: of the shuffle that cuts independent samples.

    Example:
        >>> from arvdm_theory.information.estimators import ksg
        >>> draw = np.random.default_rng(0).normal(size=(2, 500, 1))
        >>> subsampled(ksg, draw[0], draw[1]).n
        500
    """
    whole = estimator(*arrays)

    def value(*parts: Array) -> float:
        with python_warnings.catch_warnings():
            python_warnings.simplefilter("ignore", EstimationWarning)
            return float(estimator(*parts).value)

    covariance, freedom, notes = subsample_error(value, [arrays], smallest, dependence, seed)
    stderr = math.sqrt(covariance[0, 0])
    width = half_width(stderr, freedom, level)
    for note in notes:
        issue(note)
    interval = whole.value - width, whole.value + width
    return replace(whole, extra=stderr, interval=interval, warnings=(*whole.warnings, *notes))
