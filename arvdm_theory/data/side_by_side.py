"""Clips that show two square pictures side by side: the truth, and what a model made of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from arvdm_theory.data.clips import ClipError, looks_side_by_side, read_frames

__all__ = ["SideBySide", "find_side_by_side", "read_side_by_side"]

Verdict = Literal["success", "fail"]


@dataclass(frozen=True, eq=False)
class SideBySide:
    """A clip of two halves.

    Attributes:
        name: the file's, without its ending.
        truth: the left half, uint8, shape (frames, size, size, channels).
        shown: the right half: what the model was given first, then what it predicted.
        verdict: whether the model retrieved the scene from memory, if the file's name says so.
    """

    name: str
    truth: NDArray[np.uint8]
    shown: NDArray[np.uint8]
    verdict: Verdict | None


def read_side_by_side(path: str | Path) -> SideBySide:
    """Reads one clip and takes its two halves apart.

    A word ``success`` or ``fail`` between underscores of the file's name is its verdict.

    Raises:
        FileNotFoundError: if there is no such file.
        ClipError: if it cannot be read, is not of bytes, or its picture is not twice as wide as high.
    """
    file = Path(path)
    frames = read_frames(file)
    if frames.dtype != np.uint8:
        raise ClipError(f"{file}: pixels must be uint8, got {frames.dtype}")
    if not looks_side_by_side(frames):
        raise ClipError(
            f"{file}: two square pictures side by side are twice as wide as high, got {frames.shape[1]} high and "
            f"{frames.shape[2]} wide"
        )
    half = frames.shape[1]
    verdicts: set[Verdict] = {word for word in ("success", "fail") if word in re.split(r"[_\W]+", file.stem)}
    verdict = verdicts.pop() if len(verdicts) == 1 else None
    return SideBySide(file.stem, frames[:, :, :half], frames[:, :, half:], verdict)


def find_side_by_side(folder: str | Path) -> list[Path]:
    """The clips of a folder, in the order of their names.

    Raises:
        ClipError: if there is no ``.mp4`` in it.
    """
    paths = sorted(path for path in Path(folder).glob("*.mp4") if not path.name.startswith("."))
    if not paths:
        raise ClipError(f"{folder}: no .mp4 clips in this folder")
    return paths
