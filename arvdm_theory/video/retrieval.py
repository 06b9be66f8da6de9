"""Whether a generated frame brings back what was seen: the query nearer to the truth than to other views.

A query succeeds when the generated frame is strictly nearer to the true frame than to every one of its
distractors, nearness being the mean squared error after a 2 x 2 box blur (which forgives the sub-pixel noise of
textures). Distractors are frames of the same episode at poses that the short context does not hold and whose
view differs from the true one by a stated minimum, so that no success is asked for among equals.

A success rate alone can mislead: a blurred or a copied frame may also be nearest to the truth. So it always comes
with PSNR and SSIM, and beside references that generate nothing: the memory frame that shows the right view, or the
nearest, and the last frame that was given; and those of :mod:`arvdm_theory.video.baselines`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from arvdm_theory.data.clips import ClipError, to_unit
from arvdm_theory.number import Number
from arvdm_theory.video.intervals import cluster_rate, interval_columns
from arvdm_theory.video.metrics import psnr, ssim

__all__ = [
    "DISTRACTORS",
    "MINIMUM_DIFFERENCE",
    "SOURCES",
    "blur",
    "eligible_distractors",
    "margin",
    "retrieval_summary",
    "score_queries",
    "view_differences",
]

Array = NDArray[np.float64]

DISTRACTORS = 15
"""Distractors of a query: by chance alone one in sixteen succeeds."""

MINIMUM_DIFFERENCE = 0.15
"""Root mean squared difference, after the blur and on [-1, 1], of two different views: 19 levels of 255."""

SOURCES = ("generated", "copy of the right memory frame", "copy of the last frame")


def blur(frames: Array) -> Array:
    """Mean of every 2 x 2 square of pixels: (..., height, width, c) → (..., height - 1, width - 1, c)."""
    rows = frames[..., 1:, :, :] + frames[..., :-1, :, :]
    blurred: Array = (rows[..., 1:, :] + rows[..., :-1, :]) / 4
    return blurred


def view_differences(frame: Array, others: Array) -> Array:
    """Root mean squared difference of one blurred frame from each of others (n, ...); shape (n,)."""
    steps = ((frame - other).ravel() for other in others)
    return np.array([np.sqrt(step @ step / step.size) for step in steps])


def margin(truth: Array, generated: Array, distractors: Array) -> float:
    """By how many dB the generated frame is nearer to the truth than to the nearest distractor.

    20 log₁₀(min_j ‖g - d_j‖ / ‖g - x‖), frames blurred already; positive exactly for a success, infinite for
    the truth itself, NaN without distractors.

    Args:
        truth: x, shape (height, width, channels).
        generated: g, the same.
        distractors: d, shape (n, height, width, channels).
    """
    if len(distractors) == 0:
        return float("nan")
    own = view_differences(generated, truth[None])[0]
    other = view_differences(generated, distractors).min()
    if own == 0 or other == 0:
        return 0.0 if own == other else (float("inf") if own == 0 else float("-inf"))
    return float(20 * np.log10(other / own))


def eligible_distractors(
    blurred: Array,
    poses: NDArray[Any],
    query: int,
    last: int,
    context: int,
    minimum_difference: float,
    skip: int = 1,
    copied: Sequence[int] = (),
) -> NDArray[np.intp]:
    """Frames that may serve as distractors of a query, one a pose, in order of time.

    A pose is eligible when no frame of the short context has it, nor the query itself, nor a frame that a baseline
    copies, and its view differs from the query's by at least the minimum.

    Args:
        blurred: the true episode after :func:`blur`, shape (frames, ...).
        poses: shape (frames, p).
        query: position of the queried frame.
        last: position of the last frame that was given; the short context ends with it.
        context: length of the short context.
        minimum_difference: root mean squared, after the blur.
        skip: every so many frames of the episode one is a frame of the context.
        copied: positions of frames that are shown as answers: a copy is not to fail for being its own distractor.
    """
    _, first, labels = np.unique(poses, axis=0, return_index=True, return_inverse=True)
    labels = labels.reshape(-1)
    near = np.concatenate([labels[last::-skip][:context], labels[[query, *copied]]])
    frames = np.sort(first[~np.isin(np.arange(len(first)), near)])
    differs = view_differences(blurred[query], blurred[frames]) >= minimum_difference
    return np.asarray(frames[differs], dtype=np.intp)


def score_queries(
    truth: NDArray[Any],
    poses: ArrayLike,
    queries: Sequence[int],
    needles: Sequence[int],
    generated: NDArray[Any],
    *,
    context: int,
    skip: int = 1,
    last: Sequence[int] | None = None,
    others: Mapping[str, NDArray[Any]] | None = None,
    copied: Sequence[Sequence[int]] | None = None,
    minimum_difference: float = MINIMUM_DIFFERENCE,
    distractors: int = DISTRACTORS,
    seed: int = 0,
    episode: str | int = 0,
) -> pd.DataFrame:
    """Scores the queries of one episode: a row a query and source (the generated frame and references).

    The distractors are drawn without replacement from the eligible poses, by the seed. A query with fewer
    eligible poses than asked for is scored against those that there are, but marked as not ``complete``: its
    chance level is higher, and :func:`retrieval_summary` leaves it out of the rate.

    Args:
        truth: the episode, shape (frames, height, width, channels), bytes or floats in [-1, 1].
        poses: where the camera was, shape (frames, p).
        queries: positions of the queried frames.
        needles: for every query the position of the memory frame that shows what it asks for.
        generated: the model's frame for every query, shape (queries, height, width, channels), shown as the truth
            is: brought back into [-1, 1] by the caller where a model leaves it.
        context: length of the short context, the frames that the model has in hand anyway.
        skip: every so many frames of the episode one is a frame of the context.
        last: for every query the position of the last frame that was given; by default the one before it. In a
            rollout it is the last true frame, from which the generated ones go on.
        others: further sources by name, of the shape of ``generated``.
        copied: for every query the positions of frames that they copy; no distractor is one of those, nor the
            needle's view.
        minimum_difference: root mean squared difference, after the blur, of a distractor's view from the true one.
        distractors: how many, at most.
        seed: of the draw.
        episode: label of the episode, the cluster of its queries.

    Returns:
        columns episode, query, needle, source, eligible, distractors, complete, success, margin_db, psnr, ssim.

    Raises:
        ValueError: if shapes or positions do not fit, pixels are not bytes or floats in [-1, 1], or SSIM cannot be
            had.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> rooms = rng.integers(0, 256, (20, 12, 12, 3), dtype=np.uint8)
        >>> walk = np.r_[np.arange(20), 3]
        >>> table = score_queries(rooms[walk], walk[:, None], [20], [3], rooms[[3]], context=2)
        >>> dict(zip(table["source"], table["success"].tolist()))
        {'generated': True, 'copy of the right memory frame': True, 'copy of the last frame': False}
    """
    places = np.asarray(poses)
    asked, found, ends = _checked(truth, places, queries, needles, generated, context, skip, last)
    if distractors < 1 or minimum_difference < 0:
        raise ValueError(
            f"at least 1 distractor, of a view at least 0 away, got {distractors}, {minimum_difference}"
        )
    try:
        episode_pixels, own = to_unit(truth), to_unit(generated)
        beside = {name: to_unit(frames) for name, frames in (others or {}).items()}
    except ClipError as error:
        raise ValueError(str(error)) from error
    blurred = blur(episode_pixels)
    rng = np.random.default_rng(seed)
    rows = []
    for i, (query, needle, end) in enumerate(zip(asked, found, ends, strict=True)):
        answers = [needle, *(copied[i] if copied is not None else ())]
        eligible = eligible_distractors(blurred, places, query, end, context, minimum_difference, skip, answers)
        chosen = rng.choice(eligible, min(distractors, len(eligible)), replace=False)
        named = dict(zip(SOURCES, (own[i], episode_pixels[needle], episode_pixels[end]), strict=True))
        for source, frame in (named | {name: frames[i] for name, frames in beside.items()}).items():
            lead = margin(blurred[query], blur(frame), blurred[chosen])
            rows.append({
                "episode": episode, "query": query, "needle": needle, "source": source, "eligible": len(eligible),
                "distractors": len(chosen), "complete": len(chosen) == distractors, "success": lead > 0,
                "margin_db": lead, "psnr": float(psnr(episode_pixels[query], frame)),
                "ssim": float(ssim(episode_pixels[query], frame)),
            })  # fmt: skip
    return pd.DataFrame(rows)


def retrieval_summary(table: pd.DataFrame) -> pd.DataFrame:
    """Rates and qualities of many episodes, a row a source; 95 % intervals cluster by episode.

    The rate is over the complete queries only, with the interval of
    :func:`~arvdm_theory.video.intervals.cluster_rate`; ``left_out`` counts the others. PSNR and SSIM are over the
    same queries, with that of :meth:`~arvdm_theory.number.Number.clustered`.

    Args:
        table: what :func:`score_queries` gives, episodes with different labels stacked.

    Returns:
        columns source, rate, rate_low, rate_high, chance, psnr, psnr_low, psnr_high, ssim, ssim_low, ssim_high,
        ssim_median, queries, left_out, episodes. Without a complete query the values are NaN.

    Raises:
        ValueError: if the table has no rows.
    """
    if len(table) == 0:
        raise ValueError("there are no queries to summarise")
    rows = []
    for source, group in table.groupby("source", sort=False):
        counted = group[group["complete"]]
        rate = cluster_rate(counted["success"], counted["episode"])
        row: dict[str, Any] = {"source": source, **interval_columns("rate", rate)}
        row["chance"] = (1 / (1 + counted["distractors"])).mean()
        for name in ("psnr", "ssim"):
            row |= interval_columns(name, Number.clustered(counted[name], counted["episode"]))
        row["ssim_median"] = counted["ssim"].median()
        row |= {"queries": len(counted), "left_out": len(group) - len(counted)}
        rows.append({**row, "episodes": counted["episode"].nunique()})
    return pd.DataFrame(rows)


def _checked(
    truth: NDArray[Any],
    poses: NDArray[Any],
    queries: Sequence[int],
    needles: Sequence[int],
    generated: NDArray[Any],
    context: int,
    skip: int,
    last: Sequence[int] | None,
) -> tuple[list[int], list[int], list[int]]:
    if truth.ndim != 4 or 0 in truth.shape or min(truth.shape[1:3]) < 2:
        raise ValueError(f"an episode has shape (frames, height, width, channels), got {truth.shape}")
    if poses.ndim != 2 or len(poses) != len(truth):
        raise ValueError(f"poses have shape ({len(truth)}, p), one a frame of the episode, got {poses.shape}")
    asked, found = [int(query) for query in queries], [int(needle) for needle in needles]
    ends = [query - 1 for query in asked] if last is None else [int(end) for end in last]
    if not len(asked) == len(found) == len(ends) == len(generated):
        raise ValueError(
            f"queries, needles, last frames and generated frames come in one number, got {len(asked)}, "
            f"{len(found)}, {len(ends)}, {len(generated)}"
        )
    if generated.shape[1:] != truth.shape[1:]:
        raise ValueError(f"the generated frames are {generated.shape[1:]}, the true ones {truth.shape[1:]}")
    if context < 1 or skip < 1:
        raise ValueError(f"the short context holds 1 frame or more, 1 or more apart, got {context}, {skip}")
    for query, needle, end in zip(asked, found, ends, strict=True):
        if not 0 <= needle <= end < query < len(truth):
            raise ValueError(
                f"a needle is seen no later than the last given frame, and that before the query, within "
                f"{len(truth)} frames; got needle {needle}, last {end}, query {query}"
            )
    return asked, found, ends
