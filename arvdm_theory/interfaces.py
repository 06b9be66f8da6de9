"""Protocols that the parts of the toolkit meet at; imports nothing internal."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Generator, Tensor

__all__ = ["ReferenceBatch", "Score", "VideoBatch", "VideoSource"]


@dataclass(frozen=True)
class VideoBatch:
    """Clean videos and what was done in them.

    Attributes:
        frames: (videos, F, d); a picture of shape (H, W, C) is flattened in that order.
        actions: (videos, F, a), the action that leads *to* each frame; None if the video has none.
    """

    frames: Tensor
    actions: Tensor | None = None


@runtime_checkable
class VideoSource(Protocol):
    """Anything that gives videos to train on or to start a rollout from: a known law, or a data set."""

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """(d,), or (H, W, C) for pictures."""
        ...

    @property
    def action_dim(self) -> int:
        """a; 0 if there are no actions."""
        ...

    def draw(self, videos: int, frames: int, generator: Generator) -> VideoBatch:
        """Videos of ``frames`` frames, a function of the generator's state alone."""
        ...


@dataclass(frozen=True)
class ReferenceBatch:
    """What a score is shown beside the window: the references, the actions, and where the window stands.

    Attributes:
        values: the referenced frames, shape (batch, r, d) (several modes: (batch, modes, r, d)).
        levels: the OU level of each, shape (r,); the plan's floor for those left as they came out.
        frames: their indices in the video, counted from 0.
        window_frames: the indices of the window's frames.
        actions: the actions that led to the references, (batch, r, a); None for a video without actions.
        window_actions: those that lead to the window's frames, (batch, w, a); None likewise.
        history: the actions of all frames up to the window's last, (batch, F, a); None likewise.
        visible: rows of what each window frame sees of (window, references); None: everything.
    """

    values: Tensor
    levels: Tensor
    frames: tuple[int, ...]
    window_frames: tuple[int, ...]
    actions: Tensor | None = None
    window_actions: Tensor | None = None
    history: Tensor | None = None
    visible: tuple[tuple[bool, ...], ...] | None = None

    @classmethod
    def shown(
        cls,
        values: Tensor,
        levels: Tensor,
        frames: tuple[int, ...],
        window_frames: tuple[int, ...],
        actions: Tensor | None = None,
    ) -> ReferenceBatch:
        """References and window of videos whose ``actions`` (batch, F, a) lead to frames 0..F-1."""
        if actions is None:
            return cls(values, levels, frames, window_frames)
        return cls(
            values, levels, frames, window_frames,
            actions[:, list(frames)], actions[:, list(window_frames)], actions[:, : window_frames[-1] + 1],
        )  # fmt: skip

    def mapped(self, change: Callable[[Tensor], Tensor]) -> ReferenceBatch:
        """``change`` applied to every tensor that has a row a video."""

        def of(values: Tensor | None) -> Tensor | None:
            return None if values is None else change(values)

        return dataclasses.replace(
            self, values=change(self.values), actions=of(self.actions), window_actions=of(self.window_actions),
            history=of(self.history),
        )  # fmt: skip

    def rows(self, rows: slice) -> ReferenceBatch:
        """Some videos of the batch."""
        return self.mapped(lambda values: values[rows])

    def without(self) -> ReferenceBatch:
        """The same window without its references."""
        rows = None if self.visible is None else tuple(row[: len(self.window_frames)] for row in self.visible)
        return dataclasses.replace(
            self, values=self.values[..., :0, :], levels=self.levels[:0], frames=(), visible=rows,
            actions=None if self.actions is None else self.actions[:, :0],
        )  # fmt: skip

    def seeing(self, visible: tuple[tuple[bool, ...], ...] | None) -> ReferenceBatch:
        """The same in a reverse step whose mask is ``visible``."""
        return self if visible is self.visible else dataclasses.replace(self, visible=visible)


@runtime_checkable
class Score(Protocol):
    """Any callable that gives the score ∇_W log p(W | R) of a window at per-frame OU levels."""

    def __call__(self, window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
        """Score of ``window``.

        Args:
            window: (batch, w, d), or (batch, modes, w, d) for a video of several modes.
            levels: OU level of each window frame, (w,).
            references: the referenced frames.

        Returns:
            a tensor of the window's shape.
        """
        ...
