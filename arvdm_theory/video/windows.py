"""Windows of first-person episodes in which something must be remembered, as videos to train on and as queries.

A window is as long as a :class:`~arvdm_theory.video.memory_plans.MemoryPlan` needs. A generated frame of it is a
*query* when its pose was met in the memory, and neither in the last given frames that every network sees nor among
the frames generated before it: it can be shown right only by a network that remembers.

What leads to a frame is told as its pose seen from the last given frame (:func:`pose_code`): equal poses have
equal codes, and a code says where a frame was taken, not what is seen there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator

from arvdm_theory.interfaces import VideoBatch
from arvdm_theory.video.memory_plans import MemoryPlan

__all__ = ["POSE_DIM", "EpisodeSet", "Window", "WindowError", "WindowSource", "find_windows", "pose_code"]

_HARMONICS = (1, 2, 4, 8)
_PERIODS = (4.0, 16.0)

POSE_DIM = 2 * (len(_HARMONICS) + 2 * len(_PERIODS))
"""Numbers of a pose's code."""


class WindowError(ValueError):
    """Episodes that hold no window as asked for; the message says why."""


def pose_code(poses: NDArray[np.float64], origin: NDArray[np.float64]) -> NDArray[np.float32]:
    """Sines and cosines of poses as seen from an origin.

    Of the heading's difference times 1, 2, 4 and 8, and of the way forward and to the right at periods of 4 and 16
    cells. Every code has the same norm, so none is looked up for its size.

    Args:
        poses: x east, y south in cells and heading in degrees clockwise from north, shape (..., frames, 3).
        origin: one pose, shape (..., 3).

    Returns:
        shape (..., frames, :data:`POSE_DIM`).
    """
    origin = origin[..., None, :]
    east, south = poses[..., 0] - origin[..., 0], poses[..., 1] - origin[..., 1]
    heading = np.radians(origin[..., 2])
    forward = east * np.sin(heading) - south * np.cos(heading)
    right = east * np.cos(heading) + south * np.sin(heading)
    turn = np.radians(poses[..., 2] - origin[..., 2])
    angles = [k * turn for k in _HARMONICS]
    angles += [2 * np.pi * way / period for way in (forward, right) for period in _PERIODS]
    stacked = np.stack(angles, -1)
    code = np.concatenate([np.sin(stacked), np.cos(stacked)], -1)
    # Headings that differ by a full circle, and the rounding of the way there, must not tell equal poses apart.
    return np.round(code, 6).astype(np.float32) + np.float32(0)


@dataclass(frozen=True, eq=False)
class EpisodeSet:
    """Episodes of one data set.

    Attributes:
        frames: of each episode, uint8, (T, height, width, 3).
        names: of each episode.
        poses: of each, float64 (T, 3); None for a data set that has none.
        actions: of each, the discrete action that led to each frame, (T,); negative where none is known.
        action_count: of the discrete actions.

    Raises:
        WindowError: if there is no episode.
    """

    frames: Sequence[NDArray[np.uint8]]
    names: Sequence[str]
    poses: Sequence[NDArray[np.float64]] | None
    actions: Sequence[NDArray[np.int64]]
    action_count: int

    def __post_init__(self) -> None:
        if not len(self.frames):
            raise WindowError("a data set needs at least one episode, got none")

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        height, width, channels = self.frames[0].shape[1:]
        return height, width, channels

    @property
    def action_dim(self) -> int:
        """Of what a network is told of each frame: its pose, or, without poses, one-hot actions."""
        return self.action_count if self.poses is None else POSE_DIM

    def told(self, episode: int, start: int, stop: int, origin: int) -> NDArray[np.float32]:
        """What a network is told of frames start, ..., stop - 1; poses are seen from frame ``origin``."""
        if self.poses is not None:
            poses = self.poses[episode]
            return pose_code(poses[start:stop], poses[origin])
        actions = self.actions[episode][start:stop]
        return np.asarray(actions[:, None] == np.arange(self.action_count), dtype=np.float32)


@dataclass(frozen=True)
class Window:
    """A stretch of an episode.

    Attributes:
        episode: its number.
        start: its first frame.
        queries: (frame seen, frame asked for), counted from the window's first frame.
    """

    episode: int
    start: int
    queries: tuple[tuple[int, int], ...] = ()


def find_windows(episodes: EpisodeSet, plan: MemoryPlan, least: int = 1) -> tuple[Window, ...]:
    """Every window with at least ``least`` queries; every window there is for episodes without poses.

    Raises:
        WindowError: if there is none.

    Example:
        >>> away_and_back = [*range(9), *range(7, 0, -1)]
        >>> poses = np.array([[0.5, 0.5, 15.0 * turn] for turn in away_and_back])
        >>> pictures = np.zeros((16, 8, 8, 3), np.uint8)
        >>> episode = EpisodeSet([pictures], ["a"], [poses], [np.zeros(16, np.int64)], 3)
        >>> find_windows(episode, MemoryPlan(memory=8))
        (Window(episode=0, start=0, queries=((4, 12), (3, 13), (2, 14), (1, 15))),)
    """
    length, longest, found = plan.total_frames, 0, []
    for number, frames in enumerate(episodes.frames):
        longest = max(longest, len(frames))
        labels = None if episodes.poses is None else _labels(episodes.poses[number])
        for start in range(len(frames) - length + 1):
            queries = () if labels is None else _queries(labels[start : start + length], plan)
            if labels is None or len(queries) >= least:
                found.append(Window(number, start, queries))
    if longest < length:
        raise WindowError(f"windows of {length} frames are needed, but the longest episode has {longest}")
    if not found:
        raise WindowError(
            f"none of {len(episodes.frames)} episodes has a window of {length} frames of which {least} show again "
            f"what only its first {plan.laid_out} did: let it turn back sooner, or remember more frames"
        )
    return tuple(found)


def _labels(poses: NDArray[np.float64]) -> NDArray[np.intp]:
    return np.unique(poses, axis=0, return_inverse=True)[1].reshape(-1)


def _queries(labels: NDArray[np.intp], plan: MemoryPlan) -> tuple[tuple[int, int], ...]:
    last_seen = {int(label): frame for frame, label in enumerate(labels[: plan.laid_out])}
    hidden = {int(label) for label in labels[plan.prompt - plan.near : plan.prompt]}
    queries = []
    for frame in plan.generated_frames:
        label = int(labels[frame])
        if label in last_seen and label not in hidden:
            queries.append((last_seen[label], frame))
        hidden.add(label)
    return tuple(queries)


@dataclass(frozen=True, eq=False)
class WindowSource:
    """Windows as videos to train on; a :class:`~arvdm_theory.interfaces.VideoSource`. Pixels are on [-1, 1].

    Attributes:
        episodes: where they lie.
        windows: which are drawn, all alike.
        plan: what they are cut for.
    """

    episodes: EpisodeSet
    windows: tuple[Window, ...]
    plan: MemoryPlan
    frame_shape: tuple[int, ...] = field(init=False)
    action_dim: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "frame_shape", self.episodes.frame_shape)
        object.__setattr__(self, "action_dim", self.episodes.action_dim)

    def draw(self, videos: int, frames: int, generator: Generator) -> VideoBatch:
        """See :class:`arvdm_theory.interfaces.VideoSource`.

        Raises:
            WindowError: if the windows are shorter than ``frames``.
        """
        chosen = torch.randint(len(self.windows), (videos,), generator=generator).tolist()
        return self.take(chosen, frames)

    def take(self, chosen: Sequence[int], frames: int | None = None) -> VideoBatch:
        """Windows by their numbers, the first ``frames`` frames of each."""
        frames = self.plan.total_frames if frames is None else frames
        if frames > self.plan.total_frames:
            raise WindowError(f"{frames} frames are needed, but windows have {self.plan.total_frames}")
        pictures, told = [], []
        for number in chosen:
            window = self.windows[number]
            pictures.append(self.episodes.frames[window.episode][window.start : window.start + frames])
            origin = window.start + self.plan.prompt - 1
            told.append(self.episodes.told(window.episode, window.start, window.start + frames, origin))
        values = torch.from_numpy(np.stack(pictures)).to(torch.float32) / 127.5 - 1
        return VideoBatch(values.flatten(2), torch.from_numpy(np.stack(told)))
