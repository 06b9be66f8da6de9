"""Spearman's rank correlation of many pairs of lists at once, as a bootstrap needs it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

__all__ = ["interval", "spearman"]

Array = NDArray[np.float64]


def spearman(x: Array, y: Array) -> Array:
    """Pearson's correlation of the midranks along the last axis, (..., n) → (...); NaN if all x or all y tie."""
    ranks = [rankdata(values, axis=-1) for values in (x, y)]
    (a, b) = (rank - rank.mean(-1, keepdims=True) for rank in ranks)
    spread = np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
    found: Array = np.divide((a * b).sum(-1), spread, out=np.full(spread.shape, np.nan), where=spread > 0)
    return found


def interval(drawn: Array) -> tuple[float, float]:
    """The 95 % percentile interval of bootstrap draws; those without ranks (of ties alone) are left out."""
    ranked = drawn[np.isfinite(drawn)]
    if not len(ranked):
        return float("nan"), float("nan")
    low, high = np.quantile(ranked, (0.025, 0.975))
    return float(low), float(high)
