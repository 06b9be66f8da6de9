"""Arrangements of samples that a null allows: within cells of alike Y, of near pairs, and shifts in time."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

__all__ = ["cells_of", "circular_shifts", "exchanges", "local_permutation", "matched", "memory"]

Array = NDArray[np.float64]
Order = NDArray[np.int64]

# Neighbours among which pairs are sought.
_NEAR = 10


def cells_of(points: Array, size: int) -> Order:
    """The leaf of a tree that each point lies in, from halving the widest side down to two cells' worth.

    Equal values stay together, so that points of few values have cells of one value each.

    Args:
        points: shape (n, d).
        size: points a cell at least.
    """
    cells = np.zeros(len(points), dtype=np.int64)
    if not points.shape[1]:
        return cells
    stack, leaf = [np.arange(len(points))], 0
    while stack:
        members = stack.pop()
        side = int(np.ptp(points[members], axis=0).argmax())
        ranked = members[np.argsort(points[members, side], kind="stable")]
        cuts = np.flatnonzero(np.diff(points[ranked, side])) + 1
        if len(members) < 2 * size or not len(cuts):
            cells[members] = leaf
            leaf += 1
            continue
        cut = cuts[np.abs(cuts - len(members) / 2).argmin()]
        stack += [ranked[:cut], ranked[cut:]]
    return cells


def local_permutation(cells: Order, rng: np.random.Generator) -> Order:
    """A random permutation of samples that moves them only within their cells.

    Args:
        cells: the cell of every sample, shape (n,).
        rng: where chance comes from.

    Returns:
        the sample that goes to each place, shape (n,).
    """
    source = np.empty(len(cells), dtype=np.int64)
    source[np.argsort(cells, kind="stable")] = np.lexsort((rng.random(len(cells)), cells))
    return source


def matched(points: Array) -> Order:
    """Disjoint pairs of near neighbours, the nearest first, (pairs, 2); a point without a free one stays out.

    Args:
        points: shape (n, d).
    """
    k = min(_NEAR, len(points) - 1)
    distance, index = (np.asarray(found) for found in cKDTree(points).query(points, k=k + 1))
    own = np.repeat(np.arange(len(points)), k + 1)
    free, pairs = np.ones(len(points), dtype=bool), []
    for at in np.argsort(distance.ravel(), kind="stable"):
        a, b = int(own[at]), int(index.ravel()[at])
        if a != b and free[a] and free[b]:
            free[a] = free[b] = False
            pairs.append((a, b))
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def exchanges(n: int, pairs: Order, rng: np.random.Generator) -> Order:
    """The arrangement that exchanges the two of each pair with probability one half.

    Args:
        n: samples.
        pairs: disjoint, shape (pairs, 2).
        rng: where chance comes from.

    Returns:
        the sample that goes to each place, shape (n,).
    """
    source, some = np.arange(n), pairs[rng.random(len(pairs)) < 0.5]
    source[some] = some[:, ::-1]
    return source


def circular_shifts(n: int, lag: int, most: int, rng: np.random.Generator) -> Iterator[Order]:
    """The circular shifts of n samples by multiples of the lag but 0, in random order and at most ``most``.

    Args:
        n: samples, a multiple of the lag.
        lag: in samples.
        most: how many shifts to draw, without replacement.
        rng: where chance comes from.

    Yields:
        the sample that goes to each place, shape (n,).
    """
    for multiple in rng.permutation(np.arange(1, n // lag))[:most]:
        yield np.roll(np.arange(n), int(multiple) * lag)


def memory(series: Array) -> int:
    """First lag at which no column's autocorrelation exceeds 2 √(log₁₀ n / n) in size; at least 1, at most n/2.

    The threshold is Politis and White's (2004), here with circular autocorrelations, which no circular shift
    changes: a lag chosen by them leaves the shifts' null as exact as it was.

    Args:
        series: shape (n,) or (n, c).
    """
    columns = series[:, None] if series.ndim == 1 else series
    n = len(columns)
    power = np.abs(np.fft.rfft(columns - columns.mean(0), axis=0)) ** 2
    covariance = np.fft.irfft(power, n, axis=0)
    quiet = (np.abs(covariance / covariance[0]) < 2 * math.sqrt(math.log10(n) / n)).all(1)
    quiet[0] = False
    half = max(n // 2, 1)
    return int(quiet[:half].argmax()) if quiet[:half].any() else half
