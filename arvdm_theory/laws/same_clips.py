"""Which clips show the same frames, up to what a codec leaves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from arvdm_theory.laws.fitted import pictures

__all__ = ["same_clips"]

# Frames agree where their thumbnails do up to this rms, in pixels of [-1, 1], and up to this part of the clips'
# own spread; clips show the same where they agree for so long a run, a twentieth of the shorter one at least.
_SAME_PICTURE = 0.02
_SAME_SPREAD = 0.1
_SAME_RUN = 8
_SHARED = 0.05
_THUMBNAIL = 8


def same_clips(clips: Sequence[ArrayLike]) -> list[int]:
    """A number for every clip, the same where clips share a run of frames, directly or through others.

    Frames are compared as thumbnails, since a clip may come encoded anew.
    """
    small = []
    for clip in (pictures(each, f"clip {i + 1}") for i, each in enumerate(clips)):
        rows, columns = (np.array_split(np.arange(n), min(n, _THUMBNAIL)) for n in clip.shape[1:3])
        bands = np.stack([clip[:, part].mean(1) for part in rows], 1)
        small.append(np.stack([bands[:, :, part].mean(2) for part in columns], 2).reshape(len(clip), -1))
    spread = float(np.concatenate(small).var(0).mean()) ** 0.5
    nearest = min(_SAME_PICTURE, _SAME_SPREAD * spread) ** 2
    number = list(range(len(clips)))
    for i, first in enumerate(small):
        for j, second in enumerate(small[:i]):
            shorter = min(len(first), len(second))
            square = (first**2).mean(1)[:, None] + (second**2).mean(1) - 2 * first @ second.T / first.shape[1]
            if _longest_run(square < nearest) >= max(_SHARED * shorter, min(_SAME_RUN, shorter)):
                low, high = sorted((number[i], number[j]))
                number = [low if n == high else n for n in number]
    return number


def _longest_run(agree: NDArray[np.bool_]) -> int:
    """The longest run of consecutive frames of one clip that agrees with one of another: along a diagonal."""
    if not agree.any():
        return 0
    run, longest = np.zeros(agree.shape[1] + 1, dtype=int), 0
    for row in agree:
        run[1:] = np.where(row, run[:-1] + 1, 0)
        longest = max(longest, int(run.max()))
    return longest
