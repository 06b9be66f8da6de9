"""Protocols that the parts of the toolkit meet at; imports nothing internal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

__all__ = ["ReferenceBatch", "Score"]


@dataclass(frozen=True)
class ReferenceBatch:
    """What a score is told of the references and of where its window stands.

    Attributes:
        values: the referenced frames, shape (batch, r, d) (several modes: (batch, modes, r, d)).
        levels: the OU level of each, shape (r,); the plan's floor for those left as they came out.
        frames: their indices in the video, counted from 0.
        window_frames: the indices of the window's frames.
    """

    values: Tensor
    levels: Tensor
    frames: tuple[int, ...]
    window_frames: tuple[int, ...]


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
