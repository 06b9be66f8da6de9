"""What a reader knows of a data set: which files are clips, and how frames and actions are got out of one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from arvdm_theory.data.clips import resize

__all__ = ["ClipFormat", "Header", "shrink"]

_FRAMES_AT_A_TIME = 32


@dataclass(frozen=True)
class Header:
    """What a clip is, before its pixels are read: its number of frames, and their height and width."""

    frames: int
    height: int
    width: int


class ClipFormat(Protocol):
    """The files of one public data set.

    Attributes:
        name: what index files and messages call it.
        pattern: of the clips' paths below the root of the data set.
        no_action: what stands for the action before the first frame, of which nothing is known.
    """

    @property
    def name(self) -> str:  # noqa: D102
        ...

    @property
    def pattern(self) -> str:  # noqa: D102
        ...

    @property
    def no_action(self) -> int | float:  # noqa: D102
        ...

    def companions(self, path: Path) -> tuple[Path, ...]:
        """The other files that belong to a clip."""
        ...

    def inspect(self, path: Path) -> Header:
        """Checks all of a clip but its pixels.

        Raises:
            ClipError: with what is wrong.
        """
        ...

    def check_size(self, header: Header, size: int | None) -> tuple[int, int]:
        """The height and width that frames asked for at this size (None: as they are) will have.

        Raises:
            ClipError: if they cannot be had at that size.
        """
        ...

    def frames(self, path: Path, start: int, stop: int, size: int | None) -> NDArray[np.uint8]:
        """Frames start, ..., stop - 1, shape (stop - start, height, width, 3); nothing else is kept in memory.

        Raises:
            ClipError: if they are damaged.
        """
        ...

    def actions(self, path: Path) -> NDArray[Any]:
        """All actions of a clip as the file holds them, shape (frames, ...).

        Raises:
            ClipError: if they cannot be read.
        """
        ...


def shrink(frames: NDArray[np.uint8], size: int | None) -> NDArray[np.uint8]:
    """Frames averaged down to size x size, rounded to whole bytes."""
    if size is None or frames.shape[1:3] == (size, size):
        return frames
    small = np.empty((len(frames), size, size, 3), np.uint8)
    for first in range(0, len(frames), _FRAMES_AT_A_TIME):
        part = slice(first, first + _FRAMES_AT_A_TIME)
        small[part] = np.rint(resize(frames[part].astype(np.float64), size, size))
    return small
