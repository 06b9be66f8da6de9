"""What samples the estimators accept, and what they warn of in them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "SampleError",
    "duplicate_share",
    "paired_samples",
    "require_neighbours",
    "sample",
    "two_samples",
    "warn_of_copies",
    "warn_of_deterministic_relations",
    "warn_of_duplicates",
    "warn_of_heavy_tails",
]

Array = NDArray[np.float64]

# Rows that an error message names.
_NAMED = 5
# 1 - R² of a column given the others below this is a linear relation but for rounding.
_LINEAR_RELATION = 1e-10
# Hill's tail index below 4: fourth moments, and with them the variance of a sample covariance, need not exist.
_MOMENTS_NEEDED = 4.0


class SampleError(ValueError):
    """Samples that no estimate can be made from; the message says which and why."""


def sample(values: ArrayLike, name: str) -> Array:
    """Samples as a float64 array (n, d); a vector (n,) becomes one column.

    Raises:
        SampleError: if it is empty, not of numbers or not of one or two axes; if a value is NaN or infinite (the
            message says in which rows); or if a column is constant.
    """
    given = np.asarray(values)
    if given.dtype.kind not in "biuf":
        raise SampleError(f"{name} must be an array of real numbers, got entries of type {given.dtype}")
    array = given.astype(np.float64)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or 0 in array.shape:
        raise SampleError(f"{name} must have shape (n, d) with n, d ≥ 1, got {given.shape}")
    bad = np.flatnonzero(~np.isfinite(array).all(1))
    if len(bad):
        rows = ", ".join(map(str, bad[:_NAMED])) + (", ..." if len(bad) > _NAMED else "")
        raise SampleError(
            f"{name} has NaN or infinite values in {len(bad)} of {len(array)} rows (counted from 0: {rows}); "
            "remove these rows from every array"
        )
    constant = np.flatnonzero(array.max(0) == array.min(0))
    if len(constant) and len(array) > 1:
        columns = ", ".join(map(str, constant[:_NAMED])) + (", ..." if len(constant) > _NAMED else "")
        raise SampleError(f"{name} is constant in column {columns} (counted from 0); leave constant columns out")
    return array


def paired_samples(x: ArrayLike, z: ArrayLike, y: ArrayLike | None = None) -> tuple[Array, Array, Array]:
    """X, Z and Y as arrays (n, d_x), (n, d_z) and (n, d_y) with d_y = 0 for no condition.

    Raises:
        SampleError: as :func:`sample`, and if the arrays have different lengths.
    """
    arrays = {"x": sample(x, "x"), "z": sample(z, "z")}
    if y is None or (np.asarray(y).ndim == 2 and np.asarray(y).shape[1] == 0):
        arrays["y"] = np.empty((len(arrays["x"]) if y is None else len(np.asarray(y)), 0))
    else:
        arrays["y"] = sample(y, "y")
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(
            f"{name} has {length}" for name, length in lengths.items() if name != "y" or y is not None
        )
        raise SampleError(f"the arrays must have one row a sample, the same number in each: {told}")
    return arrays["x"], arrays["z"], arrays["y"]


def two_samples(p: ArrayLike, q: ArrayLike) -> tuple[Array, Array]:
    """Samples of P and of Q as arrays (n, d) and (m, d); the two need not be of one length.

    Raises:
        SampleError: as :func:`sample` for either, and if their dimensions differ.
    """
    of_p, of_q = sample(p, "p"), sample(q, "q")
    if of_p.shape[1] != of_q.shape[1]:
        raise SampleError(f"P and Q must have the same dimension, got {of_p.shape[1]} and {of_q.shape[1]}")
    return of_p, of_q


def require_neighbours(n: int, k: int, name: str = "n") -> None:
    """Raises SampleError unless 1 ≤ k ≤ n - 2 (a sample is left out for the error); ``name`` names the samples."""
    if k < 1:
        raise SampleError(f"k must be at least 1, got {k}")
    if n < k + 2:
        got = f"n = {n}" if name == "n" else f"{n} in {name}"
        raise SampleError(f"{k} neighbours need at least {k + 2} samples, got {got}")


def duplicate_share(points: Array) -> float:
    """Share of the rows that equal another row."""
    _, counts = np.unique(points, axis=0, return_counts=True)
    return float(counts[counts > 1].sum() / len(points))


def warn_of_duplicates(
    points: Array,
    advice: str = "use the mixed estimator if values repeat, or add the noise that rounding took away",
) -> list[str]:
    """A warning that names the share of rows that equal another one, if there are any."""
    share = duplicate_share(points)
    if share == 0:
        return []
    return [f"{share:.1%} of the samples coincide with another one: {advice}."]


def warn_of_copies(points: Array) -> list[str]:
    """A warning that names the share of rows that equal another one in columns that repeat nothing else."""
    distinct = np.unique(points, axis=0)
    if len(distinct) == len(points) or any(len(np.unique(column)) < len(distinct) for column in distinct.T):
        return []
    share = duplicate_share(points)
    return [
        f"{share:.1%} of the rows are copies of others: leave one of each, or the copies count as information."
    ]


def warn_of_deterministic_relations(points: Array) -> list[str]:
    """A warning that names the share of columns that are linear functions of the others, if there are any."""
    n, d = points.shape
    if d < 2 or n <= d + 1:
        return []
    scaled = (points - points.mean(0)) / points.std(0)
    triangle = np.abs(np.diag(np.linalg.qr(scaled, mode="r"))) / math.sqrt(n)
    tied = int((triangle**2 < _LINEAR_RELATION).sum())
    if not tied:
        return []
    return [
        f"{tied} of {d} columns ({tied / d:.0%}) are linear functions of the others to rounding, so the "
        "information is infinite or undefined: drop them, or add the noise that your measurement has."
    ]


def warn_of_heavy_tails(
    points: Array, advice: str = "use a method that works on ranks, such as the default or the copula"
) -> list[str]:
    """A warning if some column's tail index (Hill's estimate from the largest √n values) is below 4."""
    n = len(points)
    tail = max(10, int(math.sqrt(n)))
    if n < 4 * tail:
        return []
    size = np.sort(np.abs(points - np.median(points, axis=0)), axis=0)[-tail - 1 :]
    with np.errstate(divide="ignore", invalid="ignore"):
        index = 1 / np.log(size[1:] / size[0]).mean(0)
    # Two standard errors of Hill's estimate below the limit, so that chance does not warn.
    heavy = int((index * (1 + 2 / math.sqrt(tail)) < _MOMENTS_NEEDED).sum())
    if not heavy:
        return []
    return [
        f"{heavy} of {points.shape[1]} columns have heavy tails (tail index about {np.nanmin(index):.1f}, "
        f"below 4): {advice}."
    ]
