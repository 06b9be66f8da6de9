"""A fixed training set as a source of videos; every law of a video is one by itself."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from arvdm_theory.interfaces import VideoBatch, VideoSource

__all__ = [
    "DatasetSource",
    "SourceError",
    "data_moments",
    "dataset_source",
]

Episodes = Tensor | NDArray[np.generic]


class SourceError(ValueError):
    """Not videos to train on; the message names the episode or the shape."""


class DatasetSource:
    """A fixed training set: episodes drawn with replacement, each from a random start if it is longer than asked.

    See :func:`dataset_source`.
    """

    def __init__(
        self,
        frames: Sequence[Episodes] | Episodes,
        actions: Sequence[Episodes] | Episodes | None = None,
        frame_shape: tuple[int, ...] | None = None,
        random_start: bool = True,
    ) -> None:
        episodes = list(frames)
        if not episodes:
            raise SourceError("a data set needs at least one episode, got none")
        shape = tuple(episodes[0].shape[1:])
        self.frame_shape = tuple(shape if frame_shape is None else frame_shape)
        if len(self.frame_shape) not in (1, 3) or math.prod(self.frame_shape) != math.prod(shape):
            raise SourceError(
                f"frames have shape (d,) or (H, W, C); the data have {shape} and {frame_shape} was asked for"
            )
        for number, episode in enumerate(episodes):
            if tuple(episode.shape[1:]) != shape or len(episode) < 1:
                raise SourceError(
                    f"episode {number} has shape {tuple(episode.shape)}; one frame or more of shape {shape} is "
                    "expected, as in episode 0"
                )
        self.random_start = random_start
        self._frames = episodes
        self._actions = None if actions is None else list(actions)
        self.action_dim = 0
        if self._actions is not None:
            if len(self._actions) != len(episodes):
                raise SourceError(f"{len(episodes)} episodes but actions of {len(self._actions)}")
            self.action_dim = int(self._actions[0].shape[-1])
            for number, (done, episode) in enumerate(zip(self._actions, episodes, strict=True)):
                if tuple(done.shape) != (len(episode), self.action_dim):
                    raise SourceError(
                        f"the actions of episode {number} have shape {tuple(done.shape)}, not "
                        f"{(len(episode), self.action_dim)}: one a frame"
                    )
        self._lengths = torch.tensor([len(episode) for episode in episodes])

    def draw(self, videos: int, frames: int, generator: Generator) -> VideoBatch:
        """See :class:`arvdm_theory.interfaces.VideoSource`.

        Raises:
            SourceError: if an episode is shorter than ``frames``.
        """
        spare = self._lengths - frames
        if int(spare.min()) < 0:
            short = int(spare.argmin())
            raise SourceError(f"{frames} frames are needed, but episode {short} has {int(self._lengths[short])}")
        chosen = torch.randint(len(self._frames), (videos,), generator=generator)
        starts = torch.zeros_like(chosen)
        if self.random_start:
            fraction = torch.rand(videos, dtype=torch.float64, generator=generator)
            starts = (fraction * (spare[chosen] + 1)).long()
        places = list(zip(chosen.tolist(), starts.tolist(), strict=True))
        pictures = torch.stack([_cut(self._frames[e], s, frames) for e, s in places]).flatten(2)
        if self._actions is None:
            return VideoBatch(pictures)
        return VideoBatch(pictures, torch.stack([_cut(self._actions[e], s, frames, False) for e, s in places]))


def dataset_source(
    frames: Sequence[Episodes] | Episodes,
    actions: Sequence[Episodes] | Episodes | None = None,
    frame_shape: tuple[int, ...] | None = None,
    random_start: bool = True,
) -> DatasetSource:
    """Videos of a fixed training set.

    Args:
        frames: (episodes, F, d) or (episodes, F, H, W, C), or a sequence of episodes of different lengths. Bytes
            stand for 0 to 1 and stay bytes in memory; memory maps are read as they are drawn.
        actions: (episodes, F, a), the action that leads to each frame, or a sequence likewise.
        frame_shape: of flat pictures, (H, W, C).
        random_start: False: every video starts where its episode does.

    Raises:
        SourceError: if shapes do not fit together.
    """
    return DatasetSource(frames, actions, frame_shape, random_start)


def _cut(episode: Episodes, start: int, frames: int, pictures: bool = True) -> Tensor:
    """Part of an episode, in floating point."""
    part = episode[start : start + frames]
    values = part if isinstance(part, Tensor) else torch.from_numpy(np.array(part))
    if values.dtype == torch.uint8 and pictures:
        return values.to(torch.float32) / 255
    return values if values.is_floating_point() else values.to(torch.float32)


def data_moments(source: VideoSource, frames: int, videos: int = 256, seed: int = 0) -> tuple[float, float]:
    """Mean and standard deviation of all entries of a sample: a denoiser's ``data_mean`` and ``data_scale``.

    Args:
        source: the videos.
        frames: how many of each are looked at.
        videos: how many are drawn.
        seed: of the draw.
    """
    values = source.draw(videos, frames, Generator().manual_seed(seed)).frames.to(torch.float64)
    return float(values.mean()), float(values.std(unbiased=False))
