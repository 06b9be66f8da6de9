"""Clips with the truth on the left and a model's frames on the right: where prediction begins, and how it fares.

The right half first repeats the frames that the model was given, then shows its own, marked by a border. The frame
at which prediction begins is measured from the picture: before it the edge of the right half differs from the
left one as little as the rest does, from it on by the border. A codec blurs a thin border and a bright scene hides
a white one, so no frame is judged alone: the step is the least-squares change point of the whole clip.

What a rollout retrieved shows in how much nearer each predicted frame is to the truth than to every frame the
model was given whose view differs from the true one (:mod:`arvdm_theory.video.retrieval`, with the clip's own
memory as distractors). What is made of the worst frame's lead, and of the mean PSNR where no view of the memory
differs enough, says :mod:`arvdm_theory.video.verdict`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arvdm_theory.data.clips import looks_side_by_side, to_unit
from arvdm_theory.video.metrics import MetricError, Quality, quality
from arvdm_theory.video.retrieval import MINIMUM_DIFFERENCE, blur, margin, view_differences

__all__ = [
    "BORDER",
    "Onset",
    "SideBySideScore",
    "agreed_onset",
    "find_onset",
    "halves",
    "score_side_by_side",
]

Array = NDArray[np.float64]

BORDER = 6
"""Pixels cut off each side before frames are compared: the widest border, blur included."""

# On [-1, 1]: the edge must stand out this much more once prediction has begun. The paper's borders, after the
# codec, have 0.59 to 1.70, the same clips with the border cut off at most 0.12: the geometric middle.
_CONTRAST = 0.25
# Depths of the ring that the edge is compared with: inside every border, near enough to share the scene's errors.
_INNER = (8, 12)
# Without a border: the difference of the halves must at least double between one frame and all later ones.
_RISE = 2.0


@dataclass(frozen=True)
class Onset:
    """Where prediction begins, and how that was found.

    Attributes:
        frame: the first predicted frame.
        source: "border", "difference" (no border, but the halves part there), "other clips" (the border that
            clips of the same shape have) or "given".
        contrast: by how much the edge stands out more from that frame on, on the range [-1, 1]; NaN without.
        agreeing: share of the clip's frames whose own edge, taken alone, tells the same; NaN without a border.
    """

    frame: int
    source: str
    contrast: float = float("nan")
    agreeing: float = float("nan")


@dataclass(frozen=True)
class SideBySideScore:
    """What a side-by-side clip shows of its model.

    Attributes:
        onset: where prediction begins.
        quality: of every predicted frame, border cut off.
        nearest_share: share of predicted frames nearer to the truth than to every differing given frame, of those
            that have one; NaN if none has.
        worst_margin_db: the smallest such lead, in dB; NaN if none.
        fewest_views: least number of given frames whose view differs, over the predicted frames; where it is
            0, the lead is not of every frame.
        copy_last: mean PSNR and SSIM of repeating the last given frame.
        copy_nearest: the same for the given frame nearest to the truth, chosen frame by frame by someone who
            knows the truth: the best that copying can do.
    """

    onset: Onset
    quality: Quality
    nearest_share: float
    worst_margin_db: float
    fewest_views: int
    copy_last: Quality
    copy_nearest: Quality


def halves(frames: NDArray[Any]) -> tuple[Array, Array]:
    """The left and the right picture, on [-1, 1].

    Raises:
        MetricError: if the picture is not exactly twice as wide as high, or too small to have a border.
    """
    height, width = frames.shape[1:3]
    if not looks_side_by_side(frames):
        raise MetricError(f"two square pictures side by side are twice as wide as high, got {width}x{height}")
    if height < 2 * (_INNER[1] + 1):
        raise MetricError(f"pictures of at least {2 * (_INNER[1] + 1)} pixels a side, got {height}")
    pixels = to_unit(frames)
    return pixels[:, :, :height], pixels[:, :, height:]


def find_onset(left: Array, right: Array) -> Onset | None:
    """The first predicted frame, from the border or, without one, from where the halves part for good.

    Edge e_t is the mean absolute difference of the halves along the outermost pixels, less that along a ring just
    inside any border. The border begins at the k that maximises k (T - k) (ē_before - ē_after)², if e rises by at
    least a quarter of the range on average; at 0 if e is that large throughout. Otherwise k maximises the ratio of
    the least difference of the pictures from k on to the largest before it, if that is at least 2.

    Args:
        left: the truth, (frames, height, width, channels) on [-1, 1].
        right: the model's, the same.

    Returns:
        None if neither is found.
    """
    depth = _depths(left.shape[1])
    outer, inner = depth == 0, (depth >= _INNER[0]) & (depth < _INNER[1])
    edge = _difference(left, right, outer) - _difference(left, right, inner)
    at, rise, middle = _change_point(edge)
    if at > 0 and rise >= _CONTRAST:
        after = np.arange(len(edge)) >= at
        return Onset(at, "border", rise, float(((edge >= middle) == after).mean()))
    if edge.mean() >= _CONTRAST:
        return Onset(0, "border", float(edge.mean()), float((edge >= _CONTRAST).mean()))
    inside = _difference(left, right, depth >= BORDER)
    before, onwards = np.maximum.accumulate(inside)[:-1], np.minimum.accumulate(inside[::-1])[::-1][1:]
    # Lossless clips do not differ at all before; half a grey level of 255 stands for no difference.
    ratio = onwards / np.maximum(before, 0.5 / 127.5)
    if len(ratio) and ratio.max() >= _RISE:
        return Onset(int(ratio.argmax()) + 1, "difference")
    return None


def agreed_onset(onsets: Sequence[Onset]) -> Onset | None:
    """Where the border begins in clips of one shape, if there are at least two and all agree."""
    found = [onset.frame for onset in onsets if onset.source == "border"]
    return Onset(found[0], "other clips") if len(found) >= 2 and len(set(found)) == 1 else None


def score_side_by_side(
    left: Array,
    right: Array,
    onset: Onset,
    crop: int = BORDER,
    lpips: Callable[[NDArray[Any], NDArray[Any]], Array] | None = None,
) -> SideBySideScore:
    """Scores the predicted frames of one clip against the truth beside them.

    Args:
        left: the truth, (frames, height, width, channels) on [-1, 1].
        right: the model's, the same.
        onset: where prediction begins; the frames before it are the model's memory.
        crop: pixels cut off each side.
        lpips: as :func:`arvdm_theory.video.features.load_lpips` gives it.

    Raises:
        MetricError: if there is nothing to predict, nothing is left of the picture, or what is left is smaller
            than SSIM's window.
    """
    side, first = left.shape[1], onset.frame
    if not 0 <= first < len(left):
        raise MetricError(f"prediction begins within the clip's {len(left)} frames, got frame {first}")
    if not 0 <= crop < side // 2:
        raise MetricError(f"cutting {crop} pixels off each side leaves nothing of {side}")
    inside = slice(crop, side - crop)
    truth, shown = left[:, inside, inside], right[:, inside, inside]
    memory, asked, predicted = truth[:first], truth[first:], shown[first:]
    scores = quality(asked, predicted, lpips)

    soft_memory, soft_asked, soft_predicted = blur(memory), blur(asked), blur(predicted)
    margins, views, nearest = [], [], []
    for frame, own in zip(soft_asked, soft_predicted, strict=True):
        distance = view_differences(frame, soft_memory)
        differing = soft_memory[distance >= MINIMUM_DIFFERENCE]
        views.append(len(differing))
        margins.append(margin(frame, own, differing))
        nearest.append(int(distance.argmin()) if len(distance) else -1)
    comparable = np.array(margins)[np.array(views) > 0]
    copies = [Quality(np.array([np.nan]), np.array([np.nan]))] * 2
    if first:
        copies = [quality(asked, np.broadcast_to(memory[-1], asked.shape)), quality(asked, memory[nearest])]
    return SideBySideScore(
        onset=onset,
        quality=scores,
        nearest_share=float((comparable > 0).mean()) if len(comparable) else float("nan"),
        worst_margin_db=float(comparable.min()) if len(comparable) else float("nan"),
        fewest_views=min(views),
        copy_last=copies[0],
        copy_nearest=copies[1],
    )


def _depths(side: int) -> NDArray[np.intp]:
    """Distance of every pixel of a square picture from its edge, 0 for the outermost."""
    along = np.minimum(np.arange(side), np.arange(side)[::-1])
    return np.minimum(along[:, None], along[None])


def _difference(left: Array, right: Array, where: NDArray[np.bool_]) -> Array:
    """Mean absolute difference of the halves over some pixels, for every frame."""
    mean: Array = np.abs(left[:, where] - right[:, where]).mean((1, 2))
    return mean


def _change_point(series: Array) -> tuple[int, float, float]:
    """Where two constants fit best, by how much the second is above the first, and the middle between them."""
    n = len(series)
    if n < 2:
        return 0, 0.0, 0.0
    sums, k = np.cumsum(series), np.arange(1, n)
    before, after = sums[:-1] / k, (sums[-1] - sums[:-1]) / (n - k)
    at = int((k * (n - k) * (after - before) ** 2).argmax())
    return at + 1, float(after[at] - before[at]), float(after[at] + before[at]) / 2
