"""Repeated values made continuous without changing an information.

Let X' = F(X-) + U P(X = x) with U uniform on [0, 1], drawn for every sample anew: the distributional transform
(Rüschendorf 2009). X is a function of X', and given X the rest of X' is noise that knows nothing else, so that

    I(X'; Z' | Y') = I(X; Z | Y),    KL(P' ‖ Q') = KL(P ‖ Q) with one map for both,

exactly, whatever X is: continuous, rounded, with atoms, or discrete. On samples X' is the rank, equal values in
random order. An estimator for continuous laws then needs no care about ties, and sees a law that is flat between
the values.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

__all__ = ["untied"]

Array = NDArray[np.float64]


def untied(points: Array, rng: np.random.Generator) -> Array:
    """The points, columns with equal values turned into normal scores of ranks with ties in random order.

    Args:
        points: shape (n, d); of two laws, the samples of both.
        rng: of the order of equal values.
    """
    result = points
    for j, column in enumerate(points.T):
        order = np.lexsort((rng.random(len(column)), column))
        if (np.diff(column[order]) > 0).all():
            continue
        if result is points:
            result = points.copy()
        result[order, j] = ndtri(np.arange(1, len(column) + 1) / (len(column) + 1))
    return result
