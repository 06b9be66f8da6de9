"""What samples are like, seen before anything is estimated: which method suits them, and why."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from arvdm_theory.information.estimators.samples import warn_of_deterministic_relations

__all__ = ["Diagnosis", "Kind", "column_kind", "distinct_rows", "examine", "examine_two", "functions"]

Array = NDArray[np.float64]
Kind = Literal["continuous", "rounded", "atoms", "discrete"]

# A column is discrete if each of its values stands for at least so many samples on average.
_SAMPLES_PER_VALUE = 20
# A value that holds this share of the samples (and at least five) is an atom, if another tenth has own values.
_ATOM, _FEWEST_IN_ATOM, _UNTIED = 0.01, 5, 0.1
# Of many values one is an atom if it holds this share, and so many times the samples of the median value.
_HEAVY, _HEAVIER = 0.1, 10
# Table cells, all combinations of values counted, need so many samples each for a table of counts.
_SAMPLES_PER_CELL = 10
# Combinations of discrete values need so many samples each, and a column so few values, for nearest neighbours
# within each combination.
_SAMPLES_PER_CLASS, _MOST_CLASSES = 50, 20
# Where all columns have few values, so many samples for each value are enough for nearest neighbours.
_SAMPLES_PER_VALUE_THERE = 5
# One row that is more than this share of all is an atom of the joint law, not a repetition.
_HEAVY_ROW = 0.05
# Distinct rows from which on a common divisor of their numbers is no chance.
_FEWEST_ROWS = 20
# What two neighbours along a column leave open of another, over what it moves between them, below which it is a
# function of it; and the share of the samples on which it may be one to rounding.
_FUNCTION, _EXACTLY, _EXACT_SHARE = 0.05, 1e-9, 0.1
# Share of rows that two samples of a divergence may have in common by an oversight.
_SHARED = 0.1


@dataclass(frozen=True)
class Diagnosis:
    """What was seen in the samples, which method was taken for it, and how far to trust it.

    Attributes:
        kinds: of every column, X's first, then Z's and Y's (or of the columns of P and Q together).
        seen: what is out of the ordinary, a few words each.
        method: the method that suits.
        reason: why, in a few words.
        trust: how far its interval is to be trusted, known after the estimate.
        refusal: why there is no estimate to be had; None where there is.
        warnings: what the result must say.
        rows: of samples that are no repetitions, (≤ n,).
    """

    kinds: tuple[Kind, ...]
    seen: tuple[str, ...]
    method: str
    reason: str
    rows: NDArray[np.intp]
    trust: str = ""
    refusal: str | None = None
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        seen = "; ".join(self.seen) or "continuous columns without repetitions"
        return f"seen: {seen}\ntaken: {self.method}, {self.reason}" + (f"; {self.trust}" if self.trust else "")


def column_kind(column: Array) -> Kind:
    """What the values of a column are like, from how often they repeat.

    ``atoms``: one value holds 1 % of the samples or more and a tenth of the samples have values of their own, or
    one value of many holds a tenth of the samples and 10 times as many as the median one (black among grey
    levels); ``discrete``: at most n/20 distinct values (at least 2, which repeat); ``rounded``: values repeat
    otherwise.
    """
    n = len(column)
    _, counts = np.unique(column, return_counts=True)
    if len(counts) == n:
        return "continuous"
    most = counts.max()
    if most >= max(_FEWEST_IN_ATOM, _ATOM * n) and (counts == 1).sum() >= _UNTIED * n:
        return "atoms"
    if len(counts) > _MOST_CLASSES and most >= _HEAVY * n and most >= _HEAVIER * np.median(counts):
        return "atoms"
    if len(counts) <= max(2, n / _SAMPLES_PER_VALUE) and 2 * len(counts) <= n:
        return "discrete"
    return "rounded"


def distinct_rows(points: Array) -> NDArray[np.intp]:
    """Rows without their repetitions, where repeated rows are copies: all rows otherwise.

    They are copies if what is left has no equal values in any column (a continuous law, which repeats nothing),
    and no single row is over 5 % of all (an atom of the joint law); or, of 20 distinct rows and more, if the
    numbers of their repetitions have a common divisor, which chance gives that many only once in a million.
    """
    _, first, inverse, counts = np.unique(
        points, axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    everything = np.arange(len(points))
    if len(first) == len(points):
        return everything
    times = int(np.gcd.reduce(counts))
    if times > 1 and len(first) >= _FEWEST_ROWS:
        grouped = np.argsort(inverse.reshape(-1), kind="stable")
        place = everything - np.repeat(np.cumsum(counts) - counts, counts)
        return np.sort(grouped[place < np.repeat(counts // times, counts)])
    # As many copies of every row are no atom, however few the rows are.
    if counts.max() > max(_HEAVY_ROW * len(points), 2) and counts.max() > 2 * counts.min():
        return everything
    rows = np.sort(first)
    if any(len(np.unique(column)) < len(rows) for column in points[rows].T):
        return everything
    return rows


def functions(x: Array, z: Array, y: Array) -> str | None:
    """Why I(X; Z | Y) is infinite: a continuous column of one side is a function of the other; None if not seen.

    Seen are linear relations, and columns that are a smooth function of a single other one (or of it where neither
    repeats, on a tenth of the samples or more): interpolated between the two neighbours along the other column
    they are right to a twentieth of what they move there, which n samples cannot tell from exactly.
    """
    sides = {"x": x, "z": z}
    kinds = {name: [column_kind(column) for column in side.T] for name, side in sides.items()}
    for name, other in (("x", "z"), ("z", "x")):
        for i, source in enumerate(sides[name].T):
            for j, target in enumerate(sides[other].T):
                if {kinds[name][i], kinds[other][j]} <= {"continuous", "atoms"} and _is_function(source, target):
                    return (
                        f"column {j} of {other} is a function of column {i} of {name} to what {len(source)} "
                        "samples can tell, so the information is infinite or beyond them"
                    )
    joint = np.hstack([part for part in (x, z, y) if part.shape[1]])
    continuous = [column_kind(column) == "continuous" for column in joint.T]
    relations = warn_of_deterministic_relations(joint[:, continuous]) if any(continuous) else []
    return relations[0].removesuffix(".") if relations else None


def _is_function(source: Array, target: Array) -> bool:
    """Whether the target is a function of the source, where neither repeats."""
    alone = _unrepeated(source) & _unrepeated(target)
    if alone.sum() < max(10, _EXACT_SHARE * len(source)):
        return False
    order = np.argsort(source[alone])
    at, value = source[alone][order], target[alone][order]
    left, right = at[1:-1] - at[:-2], at[2:] - at[1:-1]
    between = (value[:-2] * right + value[2:] * left) / (left + right)
    missed, moved = np.abs(value[1:-1] - between), np.abs(value[2:] - value[:-2])
    exact = missed <= _EXACTLY * np.abs(target).max()
    return bool(np.median(missed) < _FUNCTION * np.median(moved) or exact.mean() > _EXACT_SHARE)


def _unrepeated(column: Array) -> NDArray[np.bool_]:
    _, inverse, counts = np.unique(column, return_inverse=True, return_counts=True)
    alone: NDArray[np.bool_] = counts[inverse.reshape(-1)] == 1
    return alone


def examine(x: Array, z: Array, y: Array, dependence: str = "independent") -> Diagnosis:
    """What the samples are like and the method for them.

    Copies of rows are left out. All columns discrete and ten samples for every cell of the table of all
    combinations of values: ``miller-madow``. A column with atoms, or some of few values and 50 samples for each of
    their combinations, or all of at most 20 values with five samples each: ``mixed``. Else ``calibrated``, which
    puts equal values in random order (:mod:`arvdm_theory.information.estimators.ties`).

    Args:
        x: shape (n, d_x).
        z: shape (n, d_z).
        y: shape (n, d_y), d_y = 0 for no condition.
        dependence: that the samples are said to have.
    """
    joint = np.hstack([x, z, y])
    rows = distinct_rows(joint)
    seen, warnings = [], []
    if len(rows) < len(joint):
        seen.append(f"{len(joint) - len(rows)} of {len(joint)} rows are copies of others")
        warnings.append(f"{seen[0]}: only the {len(rows)} distinct ones were taken.")
    x, z, y, joint = x[rows], z[rows], y[rows], joint[rows]
    n = len(rows)
    kinds = tuple(column_kind(column) for column in joint.T)
    for kind, words in (("discrete", "of few values"), ("rounded", "rounded"), ("atoms", "with atoms")):
        if count := kinds.count(kind):
            seen.append(f"{count} of {len(kinds)} columns {words}")
    refusal = functions(x, z, y)
    if refusal:
        seen.append(refusal)
    alike = _memory(x) * _memory(z)
    if dependence == "independent" and alike:
        # Of two AR(1) series, whose products these are; how many samples the mean of a product is worth.
        worth = round(n * (1 - alike) / (1 + alike))
        seen.append(f"rows that follow one another, worth about {worth} independent ones of {n}")
        warnings.append(
            "neighbouring rows of x and of z are alike, as in a series: if they are consecutive, say that the "
            "samples are autocorrelated (--autocorrelated), or the errors are too small."
        )
    discrete = [column for column, kind in zip(joint.T, kinds, strict=True) if kind == "discrete"]
    sizes = [len(np.unique(column)) for column in discrete]
    classes = len(np.unique(np.column_stack(discrete), axis=0)) if discrete else 0
    if "atoms" in kinds:
        method, reason = "mixed", "which counts the samples that coincide"
    elif len(discrete) == len(kinds) and n >= _SAMPLES_PER_CELL * math.prod(sizes):
        method, reason = "miller-madow", f"a table of {math.prod(sizes)} cells for {n} samples"
    elif (
        0 < len(discrete) < len(kinds) and max(sizes) <= _MOST_CLASSES and n >= _SAMPLES_PER_CLASS * classes
        and "rounded" not in kinds
    ):  # fmt: skip
        method, reason = "mixed", f"{classes} classes for {n} samples beside continuous columns"
    elif all(len(np.unique(column)) <= min(_MOST_CLASSES, n / _SAMPLES_PER_VALUE_THERE) for column in joint.T):
        method, reason = "mixed", "few values, and less than ten samples for a cell of the table of all of them"
    else:
        tied = any(kind != "continuous" for kind in kinds)
        method, reason = "calibrated", "equal values in random order" if tied else "all columns continuous"
    return Diagnosis(kinds, tuple(seen), method, reason, rows, "", refusal, tuple(warnings))


def _memory(points: Array) -> float:
    """The largest autocorrelation of a column's ranks at lag 1; 0 within five standard errors of chance."""
    n = len(points)
    ranked = np.argsort(np.argsort(points, axis=0, kind="stable"), axis=0) - (n - 1) / 2
    lagged = (ranked[1:] * ranked[:-1]).sum(0) / (ranked**2).sum(0)
    return float(lagged.max()) if lagged.max() > 5 / math.sqrt(n) else 0.0


def examine_two(p: Array, q: Array) -> Diagnosis:
    """What the samples of two laws are like; refused where they share their rows, as a file and its copy do."""
    pooled = np.vstack([p, q])
    kinds = tuple(column_kind(column) for column in pooled.T)
    seen = []
    for kind, words in (("discrete", "of few values"), ("rounded", "rounded"), ("atoms", "with atoms")):
        if count := kinds.count(kind):
            seen.append(f"{count} of {len(kinds)} columns {words}")
    refusal = None
    if kinds.count("discrete") < len(kinds):
        unique_p, unique_q = np.unique(p, axis=0), np.unique(q, axis=0)
        both = np.unique(np.vstack([unique_p, unique_q]), axis=0)
        shared = len(unique_p) + len(unique_q) - len(both)
        tie_free = all(len(np.unique(column)) == len(both) for column in both.T)
        if tie_free and shared > _SHARED * min(len(unique_p), len(unique_q)):
            refusal = (
                f"p and q share {shared} rows, which two independent samples of continuous laws do not: one file "
                "against itself or its parts has no divergence to show"
            )
            seen.append(refusal)
    coincide = [
        kind == "atoms" or (kind == "discrete" and len(np.unique(column)) <= _MOST_CLASSES)
        for kind, column in zip(kinds, pooled.T, strict=True)
    ]
    if any(coincide):
        method, reason = "knn", "which counts the samples that coincide"
    else:
        tied = any(kind != "continuous" for kind in kinds)
        method, reason = "calibrated", "equal values in random order" if tied else "all columns continuous"
    return Diagnosis(kinds, tuple(seen), method, reason, np.arange(len(p)), "", refusal)
