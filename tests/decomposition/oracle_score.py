"""A score as a trained network would be one: a callable that is told nothing but its arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from arvdm_theory import ReferenceBatch

__all__ = ["Call", "OracleScore"]


@dataclass(frozen=True)
class Call:
    """What one call was told."""

    window_shape: tuple[int, ...]
    levels: tuple[float, ...]
    window_frames: tuple[int, ...]
    reference_shape: tuple[int, ...]
    reference_levels: tuple[float, ...]
    reference_frames: tuple[int, ...]


@dataclass
class OracleScore:
    """The exact score of a video of one mode, written out anew at every call, plus ``wrong(window, references)``.

    The window's rows of -C^{-1} ((W, R) - E (W, R)), with C the joint covariance at the levels that it is told.
    """

    covariance: np.ndarray
    mean: np.ndarray
    dim: int
    wrong: Callable[[Tensor, Tensor], Tensor] | None = None
    calls: list[Call] = field(default_factory=list)

    def __call__(self, window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
        self.calls.append(
            Call(
                tuple(window.shape),
                tuple(levels.tolist()),
                references.window_frames,
                tuple(references.values.shape),
                tuple(references.levels.tolist()),
                references.frames,
            )
        )
        frames = [*references.window_frames, *references.frames]
        at = [frame * self.dim + i for frame in frames for i in range(self.dim)]
        every = np.repeat([*levels.tolist(), *references.levels.tolist()], self.dim)
        alpha = np.exp(-every / 2)
        joint = alpha[:, None] * alpha * self.covariance[np.ix_(at, at)] + np.diag(1 - np.exp(-every))
        batch, w, d = window.shape
        seen = torch.cat([window.reshape(batch, -1), references.values.reshape(batch, -1)], -1).numpy()
        score = -np.linalg.solve(joint, (seen - alpha * self.mean[at]).T).T[:, : w * d]
        exact = torch.from_numpy(score).reshape(batch, w, d)
        return exact if self.wrong is None else exact + self.wrong(window, references.values)
