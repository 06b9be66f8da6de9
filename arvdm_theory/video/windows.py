"""Windows of first-person episodes in which something must be remembered, as videos to train on and as queries.

A window is as long as a :class:`~arvdm_theory.video.memory_plans.MemoryPlan` needs, of every frame of an episode
or of every ``skip``-th. A generated frame of it is a *query* when its pose was met in the memory, and neither in
the last given frames that every network sees nor among the frames generated before it: it can be shown right only
by a network that remembers. A query *between* poses lies halfway between two remembered ones, never seen itself.
Where no pose is met twice, a query is *near* one in the memory, within a step, and not so near to the others.

Networks are conditioned on what leads to a frame in one of three ways. As its pose seen from the last given frame
(:func:`pose_code`): equal poses have equal codes; a code says where a frame was taken, not what is seen there.
As the pose that dead reckoning makes of the actions: the same where steps are exact, and off where they slip.
Or as the raw actions since the frame before it, counted by kind: where they lead is then for the network to find.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from arvdm_theory.interfaces import VideoBatch
from arvdm_theory.plan.stage import Stage
from arvdm_theory.video.memory_plans import MemoryPlan
from arvdm_theory.video.simulators.worlds import pose_distance, reckoned

__all__ = [
    "POSE_DIM",
    "EpisodeSet",
    "Queries",
    "Told",
    "Window",
    "WindowSource",
    "Windows",
    "find_windows",
    "pose_code",
]

Told = Literal["poses", "reckoned", "actions"]
Queries = Literal["same", "between", "near"]

_HARMONICS = (1, 2, 4, 8)
_PERIODS = (4.0, 16.0)
# Cells and degrees: poses further apart do not have the one between them "halfway".
_NEIGHBOURS = (0.5, 30.0)

POSE_DIM = 2 * (len(_HARMONICS) + 2 * len(_PERIODS))
"""Numbers of a pose's code."""


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
        told: what networks are conditioned on: ``poses`` and ``reckoned`` ones, where there are poses, or raw
            ``actions``. Dead reckoning is for the actions of the simulators here.

    Raises:
        ValueError: if there is no episode, or they are conditioned on something else.
    """

    frames: Sequence[NDArray[np.uint8]]
    names: Sequence[str]
    poses: Sequence[NDArray[np.float64]] | None
    actions: Sequence[NDArray[np.int64]]
    action_count: int
    told: Told = "poses"

    def __post_init__(self) -> None:
        if not len(self.frames):
            raise ValueError("a data set needs at least one episode, got none")
        if self.told not in get_args(Told):
            raise ValueError(f"networks are conditioned on {' or '.join(get_args(Told))}, got {self.told!r}")

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        height, width, channels = self.frames[0].shape[1:]
        return height, width, channels

    @property
    def action_dim(self) -> int:
        """Of what a network is conditioned on, a frame: its pose's code, or a count of every action."""
        return self.action_count if self.poses is None or self.told == "actions" else POSE_DIM

    def conditions(self, episode: int, frames: slice, origin: int) -> NDArray[np.float32]:
        """What conditions a network on some frames, in equal steps; poses are seen from frame ``origin``."""
        if self.poses is not None and self.told != "actions":
            poses = self.poses[episode] if self.told == "poses" else reckoned(self.actions[episode])
            return pose_code(poses[frames], poses[origin])
        actions = self.actions[episode]
        done = np.cumsum(actions[:, None] == np.arange(self.action_count), 0, dtype=np.float32)
        done = np.concatenate([np.zeros_like(done[:1]), done])
        now = np.arange(*frames.indices(len(actions)))
        return np.asarray(done[now + 1] - done[np.maximum(now + 1 - (frames.step or 1), 0)])


@dataclass(frozen=True)
class Window:
    """A stretch of an episode.

    Attributes:
        episode: its number.
        start: its first frame.
        queries: (frame seen, frame asked for), counted in frames of the window; of a query between poses, one of
            the two that were seen on either side; of one near a pose, the nearest.
    """

    episode: int
    start: int
    queries: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, eq=False)
class Windows(Sequence[Window]):
    """Windows of a set of episodes, kept as two numbers each.

    Attributes:
        episodes: where they lie.
        plan: what they are cut for.
        skip: every so many frames of an episode one is a frame of a window.
        queries: ``same`` poses again, poses ``between`` two that were seen, or poses ``near`` one that was.
        episode: number of each one's episode, shape (windows,).
        start: each one's first frame, likewise.
    """

    episodes: EpisodeSet
    plan: MemoryPlan
    skip: int
    queries: Queries
    episode: NDArray[np.int64]
    start: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.episode)

    @overload
    def __getitem__(self, item: int) -> Window: ...
    @overload
    def __getitem__(self, item: slice) -> Sequence[Window]: ...
    def __getitem__(self, item: int | slice) -> Window | Sequence[Window]:
        """A window, its queries looked up anew; of a slice, a list of them."""
        if isinstance(item, slice):
            return [self[number] for number in range(*item.indices(len(self)))]
        episode, start = int(self.episode[item]), int(self.start[item])
        poses = self.episodes.poses
        if poses is None:
            return Window(episode, start)
        inside = poses[episode][self.frames(start)]
        return Window(episode, start, _find_queries(inside, self.plan, self.queries))

    def frames(self, start: int, count: int | None = None) -> slice:
        """The frames of an episode that a window from frame ``start`` on is made of."""
        count = self.plan.total_frames if count is None else count
        return slice(start, start + (count - 1) * self.skip + 1, self.skip)


def find_windows(
    episodes: EpisodeSet, plan: MemoryPlan, least: int = 1, skip: int = 1, queries: Queries = "same"
) -> Windows:
    """Every window with at least ``least`` queries; every window there is for episodes without poses.

    Raises:
        ValueError: if there is none, or an argument is out of range.

    Example:
        >>> away_and_back = [*range(10), *range(8, 2, -1)]
        >>> poses = np.array([[0.5, 0.5, 15.0 * turn] for turn in away_and_back])
        >>> pictures = np.zeros((16, 8, 8, 3), np.uint8)
        >>> episode = EpisodeSet([pictures], ["a"], [poses], [np.zeros(16, np.int64)], 3)
        >>> find_windows(episode, MemoryPlan(memory=8))[0]
        Window(episode=0, start=0, queries=((6, 12), (5, 13), (4, 14), (3, 15)))
    """
    if least < 0 or skip < 1 or queries not in get_args(Queries):
        raise ValueError(
            f"windows have 0 queries or more, {' or '.join(get_args(Queries))}, and skip 1 or more; "
            f"got {least}, {queries!r} and {skip}"
        )
    length = (plan.total_frames - 1) * skip + 1
    longest = max(len(frames) for frames in episodes.frames)
    if longest < length:
        raise ValueError(f"windows of {length} frames are needed, but the longest episode has {longest}")
    counts = [max(len(frames) - length + 1, 0) for frames in episodes.frames]
    every = Windows(
        episodes,
        plan,
        skip,
        queries,
        np.repeat(np.arange(len(counts)), counts),
        np.concatenate([np.arange(count) for count in counts]),
    )
    if episodes.poses is None or least == 0:
        return every
    kept = np.array([len(window.queries) >= least for window in every])
    if not kept.any():
        raise ValueError(
            f"none of {len(episodes.frames)} episodes has a window of {length} frames of which {least} show again "
            f"what only the {plan.laid_out} frames behind the short context did: let it turn back sooner, or "
            "remember more frames"
        )
    return Windows(episodes, plan, skip, queries, every.episode[kept], every.start[kept])


def _find_queries(poses: NDArray[np.float64], plan: MemoryPlan, kind: Queries) -> tuple[tuple[int, int], ...]:
    """(seen, asked) of a window whose frames have these poses."""
    if kind == "near":
        return _find_near(poses, plan)
    labels = np.unique(poses, axis=0, return_inverse=True)[1].reshape(-1).tolist()
    hidden = set(labels[plan.prompt - plan.near : plan.prompt])
    found = []
    for frame in plan.generated_frames:
        memory = plan.remembered(frame)
        if labels[frame] not in hidden:
            seen = [f for f in reversed(memory) if labels[f] == labels[frame]]
            if kind == "between":
                seen = [] if seen else _one_beside(poses, memory, frame)
            if seen:
                found.append((seen[0], frame))
        hidden.add(labels[frame])
    return tuple(found)


def _find_near(poses: NDArray[np.float64], plan: MemoryPlan) -> tuple[tuple[int, int], ...]:
    found = []
    for frame in plan.generated_frames:
        memory = plan.remembered(frame)
        distance = pose_distance(poses[frame], poses[:frame])
        seen = memory.start + int(distance[memory.start : memory.stop].argmin())
        if distance[seen] <= 1 < distance[plan.prompt - plan.near :].min():
            found.append((seen, frame))
    return tuple(found)


def _one_beside(poses: NDArray[np.float64], memory: range, frame: int) -> list[int]:
    """The later one of two neighbouring remembered poses halfway between which a frame was taken, if there are."""
    way = poses[memory.start : memory.stop] - poses[frame]
    way[:, 2] = (way[:, 2] + 180) % 360 - 180
    near = (np.hypot(way[:, 0], way[:, 1]) <= _NEIGHBOURS[0] / 2) & (np.abs(way[:, 2]) <= _NEIGHBOURS[1] / 2)
    for one in np.flatnonzero(near)[::-1]:
        if (np.abs(way[near] + way[one]) < 1e-9).all(1).any():
            return [memory.start + int(one)]
    return []


@dataclass(frozen=True, eq=False)
class WindowSource:
    """Windows as videos to train on; a :class:`~arvdm_theory.interfaces.VideoSource`. Pixels are on [-1, 1].

    Attributes:
        windows: which are drawn, all alike.
    """

    windows: Windows
    frame_shape: tuple[int, ...] = field(init=False)
    action_dim: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "frame_shape", self.episodes.frame_shape)
        object.__setattr__(self, "action_dim", self.episodes.action_dim)

    @property
    def episodes(self) -> EpisodeSet:
        """Where the windows lie."""
        return self.windows.episodes

    @property
    def plan(self) -> MemoryPlan:
        """What they are cut for."""
        return self.windows.plan

    def draw(self, videos: int, frames: int, generator: Generator) -> VideoBatch:
        """See :class:`arvdm_theory.interfaces.VideoSource`.

        Raises:
            ValueError: if the windows are shorter than ``frames``.
        """
        chosen = torch.randint(len(self.windows), (videos,), generator=generator).tolist()
        return self.take(chosen, frames)

    def take(self, chosen: Sequence[int], frames: int | None = None, later: int = 0) -> VideoBatch:
        """Windows by their numbers, the first ``frames`` frames of each, all begun ``later`` frames later."""
        frames = self.plan.total_frames if frames is None else frames
        if frames + later > self.plan.total_frames:
            raise ValueError(f"{frames + later} frames are needed, but windows have {self.plan.total_frames}")
        pictures = [self.episodes.frames[episode][part] for episode, part, _ in self._parts(chosen, frames, later)]
        values = torch.from_numpy(np.stack(pictures)).to(torch.float32) / 127.5 - 1
        return VideoBatch(values.flatten(2), self._conditions(chosen, frames, later))

    def numbers(self, windows: Sequence[Window]) -> list[int]:
        """The numbers of some of its windows."""
        places = zip(self.windows.episode.tolist(), self.windows.start.tolist(), strict=True)
        number = {place: at for at, place in enumerate(places)}
        return [number[window.episode, window.start] for window in windows]

    def told(
        self, chosen: Sequence[int], origin: int | None = None, frames: int | None = None, later: int = 0
    ) -> Callable[[Stage], Tensor]:
        """What networks are told of windows' frames at a stage: poses as seen from the frame that was last out.

        At the first AR step after the given frames it is what :meth:`take` gives and networks are trained on.

        Args:
            chosen: the windows.
            origin: of the plan that the network was trained for, if it is another one: see
                :attr:`~arvdm_theory.video.memory_plans.MemoryPlan.origin`.
            frames, later: of the windows, as for :meth:`take`.
        """
        seen_from = self.plan.origin if origin is None else origin
        last_given = self.plan.prompt - 1

        def at(stage: Stage) -> Tensor:
            reach = self.plan.total_frames if frames is None else frames
            return self._conditions(chosen, reach, later, stage.frames[0] + seen_from - last_given)

        return at

    def _conditions(self, chosen: Sequence[int], frames: int, later: int = 0, origin: int = 0) -> Tensor:
        found = [
            self.episodes.conditions(episode, part, seen_from + origin * self.windows.skip)
            for episode, part, seen_from in self._parts(chosen, frames, later)
        ]
        return torch.from_numpy(np.stack(found))

    def _parts(self, chosen: Sequence[int], frames: int, later: int) -> Iterator[tuple[int, slice, int]]:
        """Of each window: its episode, its frames there, and the last given one of them."""
        for number in chosen:
            episode, start = int(self.windows.episode[number]), int(self.windows.start[number])
            start += later * self.windows.skip
            yield episode, self.windows.frames(start, frames), start + (self.plan.prompt - 1) * self.windows.skip
