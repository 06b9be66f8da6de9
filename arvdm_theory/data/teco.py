"""The data sets of TECO: DMLab, an ``.npz`` a clip, and Minecraft, an ``.mp4`` with its actions in an ``.npz``.

Files lie at ``{train,test}/SHARD/CLIP.npz`` (or ``.mp4``). Source: Yan et al., Temporally Consistent Transformers
for Video Generation (arXiv 2210.02396), and the loader published with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arvdm_theory.data.clips import ClipError
from arvdm_theory.data.decoding import decode_window, inspect_video
from arvdm_theory.data.formats import Header, shrink
from arvdm_theory.data.npz import npz_array, npz_shape

__all__ = ["TecoDmlab", "TecoMinecraft"]


@dataclass(frozen=True)
class TecoDmlab:
    """Clips ``*.npz`` with the arrays ``video``, uint8 (T, H, W, 3), and ``actions``, whole numbers (T,) below 3.

    Attributes:
        split: ``train`` or ``test``.
        action_count: of discrete actions.
    """

    split: str = "train"
    action_count: int = 3
    name: str = "TECO DMLab"
    no_action: int = -1

    @property
    def pattern(self) -> str:
        """Of the clips' paths."""
        return f"{self.split}/*/*.npz"

    def companions(self, path: Path) -> tuple[Path, ...]:
        """None: all is in one file."""
        return ()

    def inspect(self, path: Path) -> Header:
        """Reads the video's shape and all actions.

        Raises:
            ClipError: if one of them is no such array, or their lengths differ.
        """
        shape, dtype = npz_shape(path, "video")
        if len(shape) != 4 or shape[-1] != 3 or 0 in shape or dtype != np.uint8:
            raise ClipError(f"{path.name}: 'video' must be uint8 of shape (T, H, W, 3), got {dtype} {shape}")
        _check_actions(path, self.actions(path), shape[0], self.action_count)
        return Header(shape[0], shape[1], shape[2])

    def check_size(self, header: Header, size: int | None) -> tuple[int, int]:
        """The size asked for must divide that of the frames."""
        return _check_divides(header, size)

    def frames(self, path: Path, start: int, stop: int, size: int | None) -> NDArray[np.uint8]:
        """Frames start, ..., stop - 1."""
        video = npz_array(path, "video")
        return shrink(video[start:stop], size)

    def actions(self, path: Path) -> NDArray[Any]:
        """All actions."""
        return npz_array(path, "actions")


@dataclass(frozen=True)
class TecoMinecraft:
    """Clips ``*.mp4``, each with an ``.npz`` of the same name whose array ``actions`` (T,) holds numbers below 4.

    Attributes:
        split: ``train`` or ``test``.
        action_count: of discrete actions.
    """

    split: str = "train"
    action_count: int = 4
    name: str = "TECO Minecraft"
    no_action: int = -1

    @property
    def pattern(self) -> str:
        """Of the clips' paths."""
        return f"{self.split}/*/*.mp4"

    def companions(self, path: Path) -> tuple[Path, ...]:
        """The file of actions."""
        return (path.with_suffix(".npz"),)

    def inspect(self, path: Path) -> Header:
        """Looks at every packet of the video and reads all actions.

        Raises:
            ClipError: if one of them cannot be read, or their lengths differ.
        """
        header = inspect_video(path)
        _check_actions(path, self.actions(path), header.frames, self.action_count)
        return header

    def check_size(self, header: Header, size: int | None) -> tuple[int, int]:
        """The size asked for must divide that of the frames."""
        return _check_divides(header, size)

    def frames(self, path: Path, start: int, stop: int, size: int | None) -> NDArray[np.uint8]:
        """Frames start, ..., stop - 1."""
        return decode_window(path, start, stop, size=size)

    def actions(self, path: Path) -> NDArray[Any]:
        """All actions."""
        return npz_array(path.with_suffix(".npz"), "actions")


def _check_actions(path: Path, actions: NDArray[Any], frames: int, count: int) -> None:
    if actions.dtype.kind not in "iu" or actions.ndim != 1:
        raise ClipError(
            f"{path.name}: the actions must be whole numbers of shape (T,), got {actions.dtype} {actions.shape}"
        )
    if len(actions) != frames:
        raise ClipError(f"{path.name}: {frames} frames but {len(actions)} actions")
    if len(actions) and not 0 <= int(actions.min()) <= int(actions.max()) < count:
        raise ClipError(
            f"{path.name}: the actions must lie in 0..{count - 1}, got {actions.min()} to {actions.max()}"
        )


def _check_divides(header: Header, size: int | None) -> tuple[int, int]:
    if size is None:
        return header.height, header.width
    if size < 1 or header.height != header.width or header.height % size:
        raise ClipError(
            f"frames of {header.height}x{header.width} pixels cannot be divided into {size}x{size} equal squares: "
            "choose a size that divides theirs"
        )
    return size, size
