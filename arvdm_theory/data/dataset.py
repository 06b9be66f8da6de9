"""Clips of equal length out of an index, ready for a PyTorch ``DataLoader`` with any number of workers."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, Literal, NamedTuple, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from arvdm_theory.data.clips import ClipError
from arvdm_theory.data.index import Entry, Index, Skipped

__all__ = ["Alignment", "Clip", "ClipDataset", "align"]

Alignment = Literal["this", "next"]
T = TypeVar("T")


class Clip(NamedTuple):
    """A window of a video.

    Attributes:
        frames: uint8, shape (T, height, width, 3).
        actions: shape (T, ...); action t led to frame t.
        name: the file's path below the root of the data set, and the window's first frame.
    """

    frames: NDArray[np.uint8]
    actions: NDArray[Any]
    name: str


def align(actions: NDArray[Any], start: int, stop: int, leads_to: Alignment, no_action: float) -> NDArray[Any]:
    """The actions that led to frames start, ..., stop - 1.

    Args:
        actions: of the whole clip, shape (frames, ...), as its file holds them.
        start: first frame.
        stop: the frame after the last.
        leads_to: ``this``: action t of the file leads to frame t, coming from t - 1. ``next``: to frame t + 1.
        no_action: stands for the unknown action that led to frame 0, under ``next``.

    Example:
        >>> align(np.array([5, 6, 7, 8]), 0, 3, "this", -1)
        array([5, 6, 7])
        >>> align(np.array([5, 6, 7, 8]), 0, 3, "next", -1)
        array([-1,  5,  6])
        >>> align(np.array([5, 6, 7, 8]), 1, 4, "next", -1)
        array([5, 6, 7])
    """
    if leads_to == "this":
        return actions[start:stop].copy()
    before = np.full((1, *actions.shape[1:]), no_action, actions.dtype)
    return np.concatenate([before, actions[:-1]])[start:stop]


@dataclass(frozen=True)
class ClipDataset:
    """Windows of T frames, one after another within each video; ``dataset[i]`` is a :class:`Clip`.

    Nothing is read before it is asked for. The order is that of the files, or shuffled by a seed: the same every
    time. A file whose pixels turn out to be damaged is added to the index's report, and in its place comes the
    next window in the order that can be read.

    Attributes:
        index: of the data set.
        leads_to: whether action t of a file leads to frame t (``this``) or t + 1 (``next``). Published loaders of
            the same files differ, so there is no default.
        length: T; None for the length that most videos have. What is left over at a video's end is not used.
        size: height and width of the frames; None for the files' own.
        seed: shuffles the order; None keeps the files'.

    Raises:
        ClipError: if no video is long enough, or its frames cannot be had at this size.
    """

    index: Index
    leads_to: Alignment
    length: int | None = None
    size: int | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.leads_to not in get_args(Alignment):
            raise ClipError(f"an action leads to 'this' frame or the 'next', got {self.leads_to!r}")
        if self.length is not None and self.length < 1:
            raise ClipError(f"a clip has at least 1 frame, got {self.length}")
        if not self._used:
            longest = max(entry.header.frames for entry in self.index.entries)
            raise ClipError(
                f"{self.index.root}: no {self.index.format.name} clip has {self.frames_per_clip} frames, the "
                f"longest has {longest}"
            )
        _ = self.frame_shape

    @cached_property
    def frames_per_clip(self) -> int:
        """T."""
        return self.length or _most_common(entry.header.frames for entry in self.index.entries)

    @cached_property
    def frame_shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        return (*self.index.format.check_size(self._used[0].header, self.size), 3)

    @cached_property
    def _unused(self) -> dict[str, str]:
        """Videos of the index that give no clip here, and why."""
        entries = self.index.entries
        height, width = _most_common((entry.header.height, entry.header.width) for entry in entries)
        reasons = {}
        for entry in entries:
            frames, shape = entry.header.frames, (entry.header.height, entry.header.width)
            if shape != (height, width):
                reasons[entry.path] = f"{shape[0]}x{shape[1]} pixels, where most have {height}x{width}"
            elif frames < self.frames_per_clip:
                reasons[entry.path] = f"short: {frames} of {self.frames_per_clip} frames"
        return reasons

    @cached_property
    def _used(self) -> tuple[Entry, ...]:
        return tuple(entry for entry in self.index.entries if entry.path not in self._unused)

    @cached_property
    def _ends(self) -> list[int]:
        """How many windows there are up to and with each video."""
        return list(accumulate(entry.header.frames // self.frames_per_clip for entry in self._used))

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        count = self._ends[-1]
        return np.arange(count) if self.seed is None else np.random.default_rng(self.seed).permutation(count)

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Every video that gives no clip, with the reason; damage found in reading so far is included."""
        return (*self.index.all_skipped(), *(Skipped(*pair) for pair in self._unused.items()))

    def report(self) -> str:
        """How many videos give clips, and each that does not with the reason."""
        skipped = self.skipped
        total = len(self.index.entries) + len(self.index.skipped)
        head = f"{self.index.format.name}: {total - len(skipped)} of {total} videos used, {len(self)} clips"
        return "\n".join([head, *(f"  skipped {clip.path}: {clip.reason}" for clip in skipped)])

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, item: int) -> Clip:
        """The clip at a place of the order, or the next after it that can be read.

        Raises:
            IndexError: if there is no such place.
            ClipError: if no clip can be read.
        """
        if not -len(self) <= item < len(self):
            raise IndexError(f"there are {len(self)} clips, got {item}")
        damaged = set()
        for place in range(len(self)):
            entry, start = self.window((item + place) % len(self))
            if entry.path in damaged:
                continue
            try:
                return self.read(entry, start)
            except (ClipError, OSError) as error:
                damaged.add(entry.path)
                self.index.add_damaged(entry, str(error))
        raise ClipError(f"{self.index.root}: none of {len(self)} clips can be read")

    def window(self, item: int) -> tuple[Entry, int]:
        """The video and the first frame of the clip at a place of the order."""
        number = int(self._order[item])
        video = bisect_right(self._ends, number)
        before = self._ends[video - 1] if video else 0
        return self._used[video], (number - before) * self.frames_per_clip

    def read(self, entry: Entry, start: int) -> Clip:
        """One window.

        Raises:
            ClipError: if it is damaged, or no longer what was indexed.
        """
        path, stop = self.index.root / entry.path, start + self.frames_per_clip
        frames = self.index.format.frames(path, start, stop, self.size)
        actions = self.index.format.actions(path)
        if frames.shape != (self.frames_per_clip, *self.frame_shape) or len(actions) != entry.header.frames:
            raise ClipError(f"{path}: changed since it was indexed: frames {frames.shape}, {len(actions)} actions")
        aligned = align(actions, start, stop, self.leads_to, self.index.format.no_action)
        return Clip(frames, aligned, f"{entry.path}:{start}")


def _most_common(values: Iterable[T]) -> T:
    return Counter(values).most_common(1)[0][0]
