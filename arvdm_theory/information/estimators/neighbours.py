"""Nearest neighbours in the maximum norm: distances to them, and how many points lie closer than a radius.

Distances are maxima of differences of the coordinates themselves, so two routes to one distance agree to the
last bit and strict inequalities need no tolerance.

No loop over points runs in Python, and no table of all distances is held at once: memory grows like n.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist
from sklearn.neighbors import KDTree

__all__ = ["count_in_boxes", "count_within", "nearest", "neighbour_distances", "radius_and_counts"]

Array = NDArray[np.float64]
Counts = NDArray[np.int64]

# Queries that one thread takes at a time.
_QUERIES = 500
# Boxes that are counted together.
_GROUP = 16
# Coordinates below which threads cost more than they save.
_THREADS_PAY = 8000
# Samples up to which all distances are sooner computed than a tree is searched; and in many dimensions, where a
# tree's search meets most of its leaves.
_FEW, _FEW_IN_MANY_DIMENSIONS, _MANY_DIMENSIONS = 256, 5000, 10
# Distances in one tile of the table of all of them: it stays in the cache.
_TILE = 100_000


def nearest(points: Array, k: int, among: Array | None = None) -> tuple[Array, NDArray[np.intp]]:
    """Distances to the k nearest other points and their indices, both (n, k), in the maximum norm.

    Args:
        points: shape (n, d).
        k: how many neighbours, 1 ≤ k < n.
        among: where to look for them, shape (m, d); the points themselves, each without itself, if left out.
    """
    if among is not None:
        return _query(among, points, k)
    if points.shape[1] == 1:
        return _nearest_on_line(points[:, 0], k)
    distance, index = _query(points, points, k + 1)
    # A point is its own neighbour at distance 0, but a duplicate may be listed in its place or before it.
    own = index == np.arange(len(points))[:, None]
    own[~own.any(1), -1] = True
    return distance[~own].reshape(-1, k), index[~own].reshape(-1, k)


def _nearest_on_line(values: Array, k: int) -> tuple[Array, NDArray[np.intp]]:
    """Among the k values below and the k above, in order."""
    order = np.argsort(values, kind="stable")
    padded = np.pad(values[order], k, constant_values=np.inf)
    around = np.delete(np.abs(sliding_window_view(padded, 2 * k + 1) - values[order, None]), k, axis=1)
    first = np.argsort(around, axis=1, kind="stable")[:, :k]
    steps = np.delete(np.arange(-k, k + 1), k)[first]
    distance, index = np.empty(first.shape), np.empty(first.shape, dtype=np.intp)
    distance[order] = np.take_along_axis(around, first, axis=1)
    index[order] = order[np.arange(len(values))[:, None] + steps]
    return distance, index


def _query(among: Array, points: Array, k: int) -> tuple[Array, NDArray[np.intp]]:
    distance, index = cKDTree(among).query(points, k=np.arange(1, k + 1), p=np.inf, workers=_workers(points))
    return np.asarray(distance, dtype=np.float64), np.asarray(index, dtype=np.intp)


def neighbour_distances(points: Array, index: NDArray[np.intp]) -> Array:
    """Largest maximum-norm distance of each point, (n, d), to the points that a row of ``index`` lists; (n,)."""
    widest = np.zeros(len(points))
    for column in index.T:
        np.maximum(widest, np.abs(points - points[column]).max(-1), out=widest)
    return widest


def count_within(points: Array, radius: Array, strict: bool = True, among: Array | None = None) -> Counts:
    """How many other points lie closer than ``radius`` to each point in the maximum norm.

    Args:
        points: shape (n, d).
        radius: of each point, shape (n,).
        strict: count distances < radius; otherwise ≤ radius.
        among: the points that are counted, shape (m, d); if left out the points themselves, each without itself.

    Returns:
        shape (n,).
    """
    if points.shape[1] == 1 and among is None:
        return _count_on_line(points[:, 0], radius, strict)
    n = len(points)
    # A point is within any positive radius of itself, and within radius 0 only if equality counts.
    own = 0 if among is not None else (radius > 0 if strict else np.ones(n, dtype=bool)).astype(np.int64)
    # The tree counts distances up to the reach itself; the next float below a radius leaves that radius out.
    reach = np.where(radius > 0, np.nextafter(radius, 0), -1.0) if strict else radius
    tree = KDTree(points if among is None else among, metric="chebyshev")
    found = np.empty(n, dtype=np.int64)

    def count(start: int) -> None:
        part = slice(start, start + _QUERIES)
        found[part] = tree.query_radius(points[part], reach[part], count_only=True)

    _in_threads(count, range(0, n, _QUERIES), _workers(points))
    return found - own


def radius_and_counts(x: Array, z: Array, y: Array, k: int) -> tuple[Array, Counts, Counts, Counts]:
    """Distance of each sample to its k-th neighbour in (X, Z, Y), and how many others are closer in subspaces.

    Args:
        x: shape (n, d_x).
        z: shape (n, d_z).
        y: shape (n, d_y); d_y = 0 for none.
        k: 1 ≤ k < n.

    Returns:
        the distances, and the counts in (X, Y), (Z, Y) and Y (there n - 1 if there is no Y); each of shape (n,).
    """
    n, d = len(x), x.shape[1] + z.shape[1] + y.shape[1]
    given = y.shape[1] > 0
    everyone = np.full(n, n - 1)
    if n > (_FEW_IN_MANY_DIMENSIONS if d >= _MANY_DIMENSIONS else _FEW):
        radius = nearest(np.hstack([x, z, y]), k)[0][:, -1]
        xy, zy = (np.hstack([x, y]), np.hstack([z, y])) if given else (x, z)
        at_y = count_within(y, radius) if given else everyone
        return radius, count_within(xy, radius), count_within(zy, radius), at_y
    radius = np.empty(n)
    counts = [np.empty(n, dtype=np.int64) for _ in range(3 if given else 2)]
    rows = max(1, _TILE // n)

    def tile(start: int) -> None:
        part = slice(start, min(start + rows, n))
        tables = [cdist(block[part], block, "chebyshev") for block in ((x, z, y) if given else (x, z))]
        for table in tables:
            # A point is no neighbour of its own.
            np.fill_diagonal(table[:, part], np.inf)
        if given:
            for table in tables[:2]:
                np.maximum(table, tables[2], out=table)
        joint = np.maximum(tables[0], tables[1])
        joint.partition(k - 1, axis=1)
        radius[part] = joint[:, k - 1]
        for count, table in zip(counts, tables, strict=True):
            count[part] = np.count_nonzero(table < radius[part, None], axis=1)

    _in_threads(tile, range(0, n, rows), _workers(x))
    return radius, counts[0], counts[1], counts[2] if given else everyone


def count_in_boxes(points: Array, sides: Array) -> Counts:
    """How many other points lie in the closed box around each point with the given half-sides, both (n, d)."""
    order = cKDTree(points, leafsize=_GROUP).indices
    located, reach = np.ascontiguousarray(points[order].T), np.ascontiguousarray(sides[order].T)
    counts = np.empty(len(points), dtype=np.int64)

    def count(start: int) -> None:
        # Points that stand together in the tree's order are near one another: their boxes share candidates.
        part = slice(start, start + _GROUP)
        near = _reachable(located, located[:, part], reach[:, part])
        inside = np.ones((len(order[part]), near.shape[1]), dtype=bool)
        for own, other, side in zip(located[:, part], near, reach[:, part], strict=True):
            inside &= np.abs(own[:, None] - other) <= side[:, None]
        counts[order[part]] = np.count_nonzero(inside, axis=1)

    _in_threads(count, range(0, len(points), _GROUP), _workers(points))
    return counts - 1


def _count_on_line(values: Array, radius: Array, strict: bool) -> Counts:
    """Counts on the line, by bisection on the distances themselves, which grow to both sides of a value."""
    ranked = np.sort(values)
    start = np.searchsorted(ranked, values)

    def inside(position: NDArray[np.intp]) -> NDArray[np.bool_]:
        distance = np.abs(ranked[position] - values)
        return distance < radius if strict else distance <= radius

    ends = []
    for sign, room in ((1, len(values) - 1 - start), (-1, start)):
        # The farthest step that stays inside; step 0 is the value itself, inside any positive radius.
        near, far = np.zeros_like(start), room
        while (near < far).any():
            middle = (near + far + 1) // 2
            within = inside(start + sign * middle)
            near, far = np.where(within, middle, near), np.where(within, far, middle - 1)
        ends.append(near)
    counts: Counts = np.where(inside(start), ends[0] + ends[1], 0).astype(np.int64)
    return counts


def _reachable(pool: Array, queries: Array, sides: Array) -> Array:
    """The points of ``pool`` (d, m) in the bounding box of the queries (d, q), widened by their longest sides.

    The box is widened by a few roundings more than it needs, so that none is missed.
    """
    margin = sides.max(1)
    low, high = queries.min(1) - margin, queries.max(1) + margin
    slack = 4 * np.finfo(np.float64).eps * np.maximum(np.abs(low), np.abs(high))
    low, high = low - slack, high + slack
    keep = (pool[0] >= low[0]) & (pool[0] <= high[0])
    for row, bottom, top in zip(pool[1:], low[1:], high[1:], strict=True):
        keep &= row >= bottom
        keep &= row <= top
    return pool if keep.all() else pool[:, keep]


def _workers(points: Array) -> int:
    """Threads to use: every core that this process may use, or one where starting threads costs more."""
    if points.size < _THREADS_PAY:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _in_threads(job: Callable[[int], None], starts: Sequence[int], workers: int) -> None:
    """Runs the job for every start; NumPy lets go of the interpreter's lock while it computes."""
    if workers == 1 or len(starts) == 1:
        for start in starts:
            job(start)
        return
    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(job, starts):
            pass
