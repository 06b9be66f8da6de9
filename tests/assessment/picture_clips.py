"""Small clips of a known stationary law, and networks of their pictures that know it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from arvdm_theory import ExactScore, ReferenceBatch
from arvdm_theory.laws.fitted import FittedVideo
from arvdm_theory.noise import alpha, sigma2


def clips(count: int = 4, frames: int = 60, side: int = 4, seed: int = 0) -> list[NDArray[np.float64]]:
    """Two patterns whose strengths are AR(1) of 0.9 and 0.6, and a little noise."""
    rng = np.random.default_rng(seed)
    patterns = np.linalg.qr(np.random.default_rng(9).normal(size=(side * side, 2)))[0].T.reshape(2, side, side)
    found = []
    for _ in range(count):
        z = rng.normal(size=(frames, 2))
        for t in range(1, frames):
            z[t] = np.array([0.9, 0.6]) * z[t - 1] + np.sqrt(1 - np.array([0.81, 0.36])) * z[t]
        found.append(
            (0.3 * z @ patterns.reshape(2, -1)).reshape(frames, side, side, 1)
            + 0.01 * rng.normal(size=(frames, side, side, 1))
        )
    return found


class PictureNetwork:
    """A network of pictures that knows a fitted video: x̂ = m + s φ E[z | what it is shown], and nothing else.

    It reads the modes off noisy pictures: φ (Y - α' m) = α' s z + σ' ε is z at the level t of equal
        signal-to-noise
    times α' s/α.
    """

    def __init__(self, video: FittedVideo, error: float = 0.0) -> None:
        self.video, self.error, self.exact = video, error, ExactScore(video)
        self.basis, self.mean = (
            torch.as_tensor(video.basis).flatten(1),
            torch.as_tensor(video.mean_picture).flatten(),
        )

    def _read(self, pictures: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
        s, b = self.video.scale, alpha(levels)
        own = torch.log1p(torch.expm1(levels) / s**2)
        scale = (alpha(own) / (b * s)).unsqueeze(-1)
        return (pictures - b.unsqueeze(-1) * self.mean) @ self.basis.T * scale, own

    def __call__(
        self, window: Tensor, levels: Tensor, references: ReferenceBatch, actions: Tensor | None
    ) -> Tensor:
        z, t = self._read(window.double(), levels.double())
        past, at = self._read(references.values.double(), references.levels.double())
        seen = ReferenceBatch(past, at, references.frames, references.window_frames, visible=references.visible)
        score = self.exact(z, t, seen) - self.error * z
        clean = (z + sigma2(t).unsqueeze(-1) * score) / alpha(t).unsqueeze(-1)
        return self.mean + self.video.scale * clean @ self.basis
