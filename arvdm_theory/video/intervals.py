"""Confidence intervals for means and rates whose samples come in clusters, such as queries of one episode."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta, t

__all__ = ["ClusterInterval", "cluster_mean", "cluster_rate"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ClusterInterval:
    """A mean, and how far it may be off when the clusters, not the samples, are independent draws.

    Attributes:
        value: the mean over all samples; NaN for none.
        stderr: its standard error; NaN with fewer than two clusters.
        low: lower end of the confidence interval; NaN where nothing can be said.
        high: its upper end.
        samples: how many went in.
        clusters: how many clusters they came from.
    """

    value: float
    stderr: float
    low: float
    high: float
    samples: int
    clusters: int


def cluster_mean(values: ArrayLike, clusters: ArrayLike, level: float = 0.95) -> ClusterInterval:
    """The mean of clustered samples with its Student-t interval.

    With r_e = Σ_{i in e} (x_i - x̄), the variance of x̄ is G/(G - 1) Σ_e r_e² / N² for G clusters and N samples:
    the linearised variance of a ratio of totals, clusters being drawn independently. G - 1 degrees of freedom.

    Args:
        values: shape (samples,).
        clusters: shape (samples,), a label each.
        level: of the interval.

    Raises:
        ValueError: if the shapes differ or the level is not between 0 and 1.
    """
    x, labels = _checked(values, clusters, level)
    value, stderr, groups = _mean(x, labels)
    width = t.ppf((1 + level) / 2, groups - 1) * stderr if groups > 1 else math.nan
    return ClusterInterval(value, stderr, value - width, value + width, len(x), groups)


def cluster_rate(success: ArrayLike, clusters: ArrayLike, level: float = 0.95) -> ClusterInterval:
    """The share of successes among clustered trials, with the interval of Korn and Graubard (1998).

    That is the exact binomial interval of Clopper and Pearson at the effective sample size
    n* = p(1 - p)/Var(p) · (t_{N-1}/t_{G-1})², at most N, with the variance of :func:`cluster_mean`. It stays
    inside [0, 1] and does not shrink to a point where every trial succeeds or every one fails: there, and with a
    single cluster, a cluster counts as one trial, as if its trials always ended alike.

    Args:
        success: shape (trials,), of booleans.
        clusters: shape (trials,), a label each.
        level: of the interval.

    Raises:
        ValueError: as :func:`cluster_mean`.

    Example:
        >>> found = cluster_rate([True] * 12, ["a"] * 6 + ["b"] * 6)
        >>> found.value, round(found.low, 3), found.high
        (1.0, 0.158, 1.0)
    """
    x, labels = _checked(np.asarray(success, dtype=bool), clusters, level)
    rate, stderr, groups = _mean(x, labels)
    n = len(x)
    if n == 0:
        return ClusterInterval(math.nan, math.nan, math.nan, math.nan, 0, 0)
    tail = (1 - level) / 2
    if groups == 1 or rate in (0.0, 1.0):
        trials = float(groups)
    else:
        design = (t.ppf(1 - tail, n - 1) / t.ppf(1 - tail, groups - 1)) ** 2
        trials = n if stderr == 0 else min(rate * (1 - rate) / stderr**2 * design, n)
    hits = rate * trials
    low = 0.0 if hits == 0 else float(beta.ppf(tail, hits, trials - hits + 1))
    high = 1.0 if hits == trials else float(beta.ppf(1 - tail, hits + 1, trials - hits))
    return ClusterInterval(rate, stderr, low, high, n, groups)


def _mean(x: Array, labels: NDArray[np.intp]) -> tuple[float, float, int]:
    if len(x) == 0:
        return math.nan, math.nan, 0
    value, groups = float(x.mean()), int(labels.max()) + 1
    if groups < 2 or not math.isfinite(value):
        return value, math.nan, groups
    residuals = np.bincount(labels, x - value)
    return value, math.sqrt(groups / (groups - 1) * float(residuals @ residuals)) / len(x), groups


def _checked(values: ArrayLike, clusters: ArrayLike, level: float) -> tuple[Array, NDArray[np.intp]]:
    x, names = np.asarray(values, dtype=np.float64), np.asarray(clusters)
    if x.ndim != 1 or x.shape != names.shape:
        raise ValueError(f"values and clusters are two lists of one length, got shapes {x.shape}, {names.shape}")
    if not 0 < level < 1:
        raise ValueError(f"the level of an interval lies between 0 and 1, got {level}")
    return x, np.unique(names, return_inverse=True)[1].reshape(-1)
