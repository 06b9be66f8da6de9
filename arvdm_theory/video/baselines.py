"""What retrieves without a network: the nearest remembered view, the mean of two, the memory's mean, a lag.

A retrieval rate says little alone. Who knows where each remembered frame was taken can show the nearest one and
has learnt nothing; who knows only where the actions add up to can do the same, worse where steps slip. And who
knows no map at all can hold the last frame, show the memory's mean, or the frame so many back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from arvdm_theory.video.simulators.worlds import pose_distance, reckoned
from arvdm_theory.video.windows import Windows

__all__ = ["BASELINES", "MAPLESS", "Shown", "show_baselines"]

MAPLESS = ("mean of the memory", "memory by time")
"""Baselines that know no map; the copy of the last frame is the third."""

BASELINES = (
    "mean of the two nearest views",
    "nearest by dead reckoning",
    "mean of the two nearest by dead reckoning",
    *MAPLESS,
)
"""Beside the copies of the nearest view and of the last frame."""


@dataclass(frozen=True)
class Shown:
    """What the baselines show of one window's queries.

    Attributes:
        frames: by name, bytes (queries, height, width, channels).
        copied: for each query the frames, counted in frames of the window, that some baseline copies: none of them
            can be a distractor.
    """

    frames: dict[str, NDArray[np.uint8]]
    copied: list[list[int]]


def show_baselines(windows: Windows, numbers: Sequence[int], asked: Sequence[Sequence[int]]) -> list[Shown]:
    """The :data:`BASELINES` on the queries of some windows.

    ``memory by time`` shows the remembered frame so many back that the mean squared error over all these very
    windows is least, for each place after the given frames by itself: a choice that favours it.

    Args:
        windows: where they are.
        numbers: which.
        asked: of each, the queried frames, counted in frames of the window.
    """
    plan, episodes = windows.plan, windows.episodes
    assert episodes.poses is not None
    parts = []
    for number in numbers:
        episode, part = int(windows.episode[number]), windows.frames(int(windows.start[number]))
        frames = np.asarray(episodes.frames[episode])[part]
        parts.append((frames, episodes.poses[episode][part], reckoned(episodes.actions[episode])[part]))
    lag = {
        frame: _best_lag([frames for (frames, _, _), own in zip(parts, asked, strict=True) if frame in own], frame,
                         plan.remembered(frame))
        for frame in {frame for own in asked for frame in own}
    }  # fmt: skip
    return [
        _show(frames, poses, guessed, own, plan.remembered, lag)
        for (frames, poses, guessed), own in zip(parts, asked, strict=True)
    ]


def _show(
    frames: NDArray[np.uint8],
    poses: NDArray[np.float64],
    guessed: NDArray[np.float64],
    asked: Sequence[int],
    remembered: Callable[[int], range],
    lag: dict[int, int],
) -> Shown:
    shown: dict[str, list[NDArray[np.uint8]]] = {name: [] for name in BASELINES}
    copied = []
    for frame in asked:
        memory = remembered(frame)
        near, reckoned_near = (_two_nearest(places, frame, memory) for places in (poses, guessed))
        for name, sources in zip(
            BASELINES, (near, reckoned_near[:1], reckoned_near, [*memory], [frame - lag[frame]]), strict=True
        ):
            shown[name].append(np.rint(frames[sources].mean(0)).astype(np.uint8))
        copied.append(sorted({*near, *reckoned_near, frame - lag[frame]}))
    return Shown({name: np.stack(pictures) for name, pictures in shown.items()}, copied)


def _two_nearest(places: NDArray[np.float64], frame: int, memory: range) -> list[int]:
    """Of the memory; the later one where two are equally near."""
    distance = pose_distance(places[frame], places[memory.start : memory.stop])[::-1]
    order = np.argsort(distance, kind="stable")[:2]
    return [memory.stop - 1 - int(one) for one in order]


def _best_lag(clips: Sequence[NDArray[np.uint8]], frame: int, memory: range) -> int:
    errors = {
        frame - seen: sum(float(((clip[frame].astype(float) - clip[seen]) ** 2).mean()) for clip in clips)
        for seen in memory
    }
    return min(errors, key=lambda lag: errors[lag])
