"""Windows of a video file, decoded without holding the rest of it."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from arvdm_theory.data.clips import ClipError, decode_frames, video_header
from arvdm_theory.data.formats import Header, shrink

__all__ = ["decode_window", "inspect_video"]

_FRAMES_AT_A_TIME = 32


def inspect_video(path: Path) -> Header:
    """The header of a video file; every packet of it is looked at, the first frame alone is decoded.

    Raises:
        ClipError: if the file is no video, or holds fewer frames than its header says.
    """
    try:
        shown = video_header(path)
    except ClipError as error:
        raise ClipError(str(error).removeprefix(f"{path}: ")) from error
    return Header(shown.frames, shown.height, shown.width)


def decode_window(
    path: Path, start: int, stop: int, size: int | None = None, middle_square: bool = False
) -> NDArray[np.uint8]:
    """Frames start, ..., stop - 1 of a video file, or the middle square of each, averaged down to size x size.

    Decoding begins at the first frame: the time grows with ``stop``, the memory with stop - start.

    Raises:
        ClipError: if the file ends before frame ``stop``, or is damaged.
    """
    parts: list[NDArray[np.uint8]] = []
    decoded = islice(decode_frames(path), start, stop)
    while batch := list(islice(decoded, _FRAMES_AT_A_TIME)):
        frames = np.stack(batch)
        if middle_square:
            crop = min(frames.shape[1:3])
            top, left = (frames.shape[1] - crop) // 2, (frames.shape[2] - crop) // 2
            frames = frames[:, top : top + crop, left : left + crop]
        parts.append(shrink(frames, size))
    if sum(len(part) for part in parts) < stop - start:
        raise ClipError(f"{path}: ends before frame {stop}")
    return np.concatenate(parts)
