"""The interval of a rate whose trials come in clusters, such as queries of one episode; intervals in tables."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import beta, t

from arvdm_theory.number import LEVEL, Number

__all__ = ["cluster_rate", "interval_columns"]


def interval_columns(name: str, number: Number) -> dict[str, float]:
    """A number in a table: its value under ``name``, and ``name_low`` and ``name_high``."""
    return {name: number.value, f"{name}_low": number.ci_low, f"{name}_high": number.ci_high}


def cluster_rate(success: ArrayLike, clusters: ArrayLike) -> Number:
    """The share of successes among clustered trials, with the 95 % interval of Korn and Graubard (1998).

    That is the exact binomial interval of Clopper and Pearson at the effective sample size
    n* = p(1 - p)/Var(p) · (t_{N-1}/t_{G-1})², at most N, with the variance of :meth:`Number.clustered`. It stays
    inside [0, 1] and does not shrink to a point where every trial succeeds or every one fails: there, and with a
    single cluster, a cluster counts as one trial, as if its trials always ended alike.

    Args:
        success: shape (trials,), of booleans.
        clusters: shape (trials,), a label each.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> found = cluster_rate([True] * 12, ["a"] * 6 + ["b"] * 6)
        >>> found.value, round(found.ci_low, 3), found.ci_high
        (1.0, 0.158, 1.0)
    """
    mean = Number.clustered(np.asarray(success, dtype=bool), clusters, "Korn-Graubard")
    n, rate, groups = mean.n or 0, mean.value, len(np.unique(np.asarray(clusters)))
    if n == 0:
        return mean
    tail = (1 - LEVEL) / 2
    if groups == 1 or rate in (0.0, 1.0):
        trials = float(groups)
    else:
        design = (t.ppf(1 - tail, n - 1) / t.ppf(1 - tail, groups - 1)) ** 2
        trials = n if mean.stderr == 0 else min(rate * (1 - rate) / mean.stderr**2 * design, n)
    hits = rate * trials
    low = 0.0 if hits == 0 else float(beta.ppf(tail, hits, trials - hits + 1))
    high = 1.0 if hits == trials else float(beta.ppf(1 - tail, hits + 1, trials - hits))
    return Number.stated(rate, mean.stderr, low, high, method=mean.method, n=n)
