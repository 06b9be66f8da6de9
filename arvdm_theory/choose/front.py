"""What can be had at once: the points that no other one beats."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["pareto_front"]


def pareto_front(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of the points (n, criteria) none is at or below in all numbers and strictly below in one, (n,).

    Example:
        >>> pareto_front(np.array([[0.0, 2.0], [1.0, 1.0], [1.0, 3.0], [2.0, 0.0]])).tolist()
        [True, True, False, True]
    """
    no_worse = (points[:, None] <= points).all(-1)
    better = (points[:, None] < points).any(-1)
    front: NDArray[np.bool_] = np.logical_not((no_worse & better).any(0))
    return front
