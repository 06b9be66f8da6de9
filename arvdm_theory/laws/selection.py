"""Which temporal model of short segments: its order, its shrinkage and whether it remembers beyond its order.

All by the log-density of segments that were left out in turn. What is compared is always a law, evaluated exactly:
nothing here is an approximation but that segments are few.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np

from arvdm_theory.laws.autoregression import (
    MIN_WHITE,
    Array,
    blocks,
    lattice_autocovariance,
    log_densities,
    predictors,
    shrink,
)
from arvdm_theory.laws.partial_tail import Errors, Tail, fit_tail, tail_gain, whitened_errors, with_tail

__all__ = ["LAGS", "MAX_ORDER", "Choice", "choose", "gain", "model"]

MAX_ORDER = 12
LAGS = 64
"""How far back the longest memory reaches that is fitted, in frames."""

_WHITES = (MIN_WHITE, 1e-5, 1e-4, 1e-3, 1e-2)
_CROSSES = (0.0, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
# Of more coordinates than this fewer weights are tried.
_MANY = 64
_FEW_WHITES = (MIN_WHITE, 1e-4, 1e-2)
_FEW_CROSSES = (0.1, 0.4, 1.0)
_FOLDS = 5
# How coordinates act on one another is fitted where each has so many frames; below, they are taken as unrelated.
_FRAMES_A_COORDINATE = 8


@dataclass(frozen=True)
class Choice:
    """What cross-validation chose.

    Attributes:
        order: p.
        cross: the weight μ of unrelated coordinates.
        white: the weight λ of white noise.
        score: the left-out log-density per frame, in nats; None if the segments were too short to leave any
            out, and the strongest shrinkage was taken instead.
        lags: q, how far back the tail reaches; p where there is none.
        frames: of each left-out group of segments.
        left_out: its log-density in nats under the best law of "short memory" (no tail), of "long memory" and of
            "order 1", all with the shrinkage that does best; empty without a score.
        first_order: (μ, λ) of the best law of order 1.
    """

    order: int
    cross: float
    white: float
    score: float | None
    lags: int
    frames: tuple[int, ...] = ()
    left_out: Mapping[str, Array] = field(default_factory=dict)
    first_order: tuple[float, float] = (_CROSSES[-1], _WHITES[-1])


def gain(of: Array, over: Array, frames: Sequence[int]) -> tuple[float, float | None]:
    """Nats per frame by which one law beats another on independent groups, and the standard error over these.

    The error is that of a ratio of means; None where there is only one group.
    """
    sizes = np.array(frames, dtype=np.float64)
    each = np.asarray(of) - np.asarray(over)
    mean = float(each.sum() / sizes.sum())
    count = len(sizes)
    if count < 2:
        return mean, None
    spread = each - mean * sizes
    return mean, float(np.sqrt((spread**2).sum() * count / (count - 1)) / sizes.sum())


def model(segments: Sequence[Array], choice: Choice, variance: Array) -> tuple[Array, Tail | None]:
    """Γ(0..q) of segments as it was chosen, and the tail in it."""
    head = _head(lattice_autocovariance(segments, choice.order, variance, choice.cross == 1), choice, variance)
    if choice.lags == choice.order:
        return head, None
    tail = fit_tail(_errors(head, segments), choice.lags - choice.order)
    return with_tail(head, tail, choice.lags), tail


def choose(
    segments: Sequence[Array],
    variance: Array,
    order: int | None = None,
    memory: bool | None = None,
    groups: Sequence[int] | None = None,
    refit: Callable[[Sequence[tuple[int, slice]]], tuple[Sequence[Array], Array]] | None = None,
    progress: Callable[[float], object] | None = None,
) -> Choice:
    """Order, shrinkage and memory with the best log-density on segments left out in turn (at most 5 folds).

    One or two groups are cut into ten pieces each first, so that what a fold leaves out lies spread over the
    clip; neighbouring pieces are dependent, and the score then flatters the model. The grid: orders 1..12 (or
    the given one) as far as the longest piece reaches, 7 values of μ from 0 to 1, and λ from 1e-6 to 1e-2; of each
    order the best weights, with and without a tail (:mod:`arvdm_theory.laws.partial_tail`). Ties go to the lower
    order. An autoregression that ends says by construction that nothing older matters, so the tail is kept unless
    it loses by more than two standard errors over the groups.

    Args:
        segments: each (frames, K).
        variance: (K,), of the coordinates.
        order: p; None chooses it.
        memory: whether there is a tail; None chooses.
        groups: segments of one number are left out together; each its own if left out.
        refit: from the pieces that stay in (a segment's number and a part of it) to all segments and the variance
            in the coordinates that these pieces alone give; None where coordinates were not found from the
            segments. Otherwise what is left out would be scored in coordinates that it helped to find.
        progress: is told what part of the work was done, in pieces.

    Raises:
        ValueError: if the given order is below 1 or the segments are too short for it.
    """
    longest = max(len(segment) for segment in segments)
    if order is not None and not 1 <= order < longest:
        raise ValueError(
            f"the order must be from 1 to {longest - 1} for a longest training segment of {longest} frames, "
            f"got {order}"
        )
    parts = [(i, slice(0, len(segment))) for i, segment in enumerate(segments)]
    numbers = list(range(len(segments)) if groups is None else groups)
    if len(set(numbers)) < 3:
        parts = [
            (i, slice(int(cut[0]), int(cut[-1]) + 1))
            for i, segment in enumerate(segments)
            for cut in np.array_split(np.arange(len(segment)), 2 * _FOLDS)
            if len(cut)
        ]
        numbers = list(range(len(parts)))
    pieces = [segments[i][part] for i, part in parts]
    distinct = sorted(set(numbers))
    folds = min(_FOLDS, len(distinct))
    reach = max(len(piece) for piece in pieces) - 1
    top = min(MAX_ORDER, reach) if order is None else order
    # A tail can't be fitted to what is left out of short pieces, but to the whole.
    lags = min(LAGS, longest - 1)
    if reach < 2 or top > reach:
        return Choice(order or 1, _CROSSES[-1], _WHITES[-1], None, order or 1)
    alone = sum(map(len, segments)) < _FRAMES_A_COORDINATE * len(variance)
    many = len(variance) > _MANY
    crosses = (1.0,) if alone else (_FEW_CROSSES if many else _CROSSES)
    grid = list(product(crosses, _FEW_WHITES if many else _WHITES))
    fold_of = {number: i % folds for i, number in enumerate(distinct)}
    split = []
    for fold in range(folds):
        left = [i for i, n in enumerate(numbers) if fold_of[n] == fold]
        kept = [i for i, n in enumerate(numbers) if fold_of[n] != fold]
        seen, scale = (segments, variance) if refit is None else refit([parts[i] for i in kept])
        own = [seen[i][part] for i, part in parts]
        split.append(([own[i] for i in kept], [(i, own[i]) for i in left], scale))
    told = progress or (lambda part: None)
    share = 1 / (folds * (len(grid) + 1))

    gammas = []
    scores = np.zeros((len(grid), len(pieces), top + 1))
    for rest, left_pieces, scale in split:
        joint = None if alone else lattice_autocovariance(rest, top, scale)
        single = lattice_autocovariance(rest, top, scale, unrelated=True)
        gammas.append((joint, single))
        for g, (cross, white) in enumerate(grid):
            gamma = single if cross == 1 or joint is None else joint
            steps = list(predictors(blocks(shrink(gamma, cross, white, scale))))
            for i, piece in left_pieces:
                scores[g, i] = log_densities(steps, piece)
            told(share)
    orders = range(1, top + 1) if order is None else range(order, order + 1)
    totals = scores.sum(1)
    best = {p: int(np.argmax(totals[:, p])) for p in {1, *orders}}
    short = max(orders, key=lambda p: float(totals[best[p], p]))

    tails = {p: scores[best[p], :, p].copy() for p in orders}
    for (rest, left_pieces, scale), (joint, single) in zip(split, gammas, strict=True):
        for p in orders:
            cross, white = grid[best[p]]
            gamma = single if cross == 1 or joint is None else joint
            head = shrink(gamma[: p + 1], cross, white, scale)
            errors = _errors(head, rest)
            length = min(lags, max(map(len, rest)) - 1) - p
            if length < 1 or not errors:
                continue
            tail = fit_tail(errors, length)
            steps = list(predictors(blocks(head)))
            for i, piece in left_pieces:
                for found in whitened_errors(steps, [piece]):
                    tails[p][i] += tail_gain(tail, length, found)[0]
        told(share)
    long = max(orders, key=lambda p: float(tails[p].sum()))

    def by_group(values: Array) -> Array:
        return np.bincount([distinct.index(n) for n in numbers], weights=values).astype(np.float64)

    sizes = by_group(np.array([len(piece) for piece in pieces], dtype=np.float64))
    left_out = {
        "short memory": by_group(scores[best[short], :, short]),
        "long memory": by_group(tails[long]),
        "order 1": by_group(scores[best[1], :, 1]),
    }
    more, error = gain(left_out["long memory"], left_out["short memory"], sizes.tolist())
    if memory is None:
        memory = more >= -2 * (error or 0.0)
    chosen = long if memory and lags > long else short
    cross, white = grid[best[chosen]]
    score = left_out["long memory" if memory else "short memory"].sum() / sizes.sum()
    return Choice(
        chosen, cross, white, float(score), lags if memory else chosen, tuple(int(n) for n in sizes), left_out,
        grid[best[1]],
    )  # fmt: skip


def _head(gamma: Array, choice: Choice, variance: Array) -> Array:
    return shrink(gamma, choice.cross, choice.white, variance)


def _errors(head: Array, segments: Sequence[Array]) -> list[Errors]:
    return whitened_errors(list(predictors(blocks(head))), segments)
