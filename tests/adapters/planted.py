"""Networks that know a stationary Gaussian video exactly, told and shown things as each library does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from arvdm_theory import ArrayVideo

SHAPE = (1, 2, 2)  # H, W, C
DIM = 4


def video(frames: int, dim: int = DIM) -> ArrayVideo:
    """Frames of a random covariance, correlated in time like 0.8^|i-j|."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(dim, dim)) * 0.4 + np.eye(dim)
    lags = np.abs(np.subtract.outer(np.arange(frames), np.arange(frames)))
    return ArrayVideo(np.kron(0.8**lags, root @ root.T / dim + 0.2 * np.eye(dim)), dim)


def score(frames: Tensor, levels: Tensor, window: int, dim: int = DIM) -> Tensor:
    """∇_W log p(W | R) of the last ``window`` of noisy frames (B, F, d) at levels (B, F): rows of -Σ^{-1} x."""
    n, rows = frames.shape[1], []
    covariance = torch.as_tensor(video(n, dim).joint_moments(n)[1][0])
    for x, t in zip(frames.double(), levels.double(), strict=True):
        a = torch.exp(-t / 2).repeat_interleave(dim)
        noise = torch.diag(-torch.expm1(-t).repeat_interleave(dim))
        rows.append(-torch.linalg.solve(a[:, None] * covariance * a + noise, x.flatten()))
    return torch.stack(rows).reshape(frames.shape)[:, n - window :]


class Planted:
    """A network of a layout: it hears timesteps, sees frames, and says ε, x0, v or flow exactly.

    Attributes:
        level: timestep ↦ OU level, elementwise; frames before the window are taken for clean if ``clean``.
        window: how many of the last frames are denoised.
        said: what it predicts.
        scale: α + σ is what frames were divided by (flow), 1/α (edm: in units of c_in), or nothing.
    """

    def __init__(
        self, level: Callable[[Tensor], Tensor], window: int, said: str, layout: str = "BCFHW", clean: bool = True,
        shape: tuple[int, int, int] = SHAPE, edm: float | None = None,
    ) -> None:  # fmt: skip
        self.level, self.window, self.said, self.layout, self.clean = level, window, said, layout, clean
        self.shape, self.edm, self.seen = shape, edm, []

    def __call__(self, sample: Tensor, timestep: Tensor, *more: Any, **named: Any) -> Tensor:
        self.seen.append((tuple(sample.shape), timestep))
        h, w, c = self.shape
        dim = h * w * c
        order = {"BCFHW": (0, 2, 3, 4, 1), "BFCHW": (0, 1, 3, 4, 2), "BFD": (0, 1, 2)}[self.layout]
        frames = sample.permute(*order).flatten(2).double()
        batch, n = frames.shape[:2]
        at = self.level(timestep.double())
        at = at.reshape(-1, 1).expand(batch, n).clone() if at.ndim < 2 else at.clone()
        if self.clean:
            at[:, : n - self.window] = 0.0
        a, s = torch.exp(-at / 2).unsqueeze(-1), torch.sqrt(-torch.expm1(-at)).unsqueeze(-1)
        if self.said == "flow":
            frames = frames * (a + s)
        if self.edm is not None:
            frames = frames * torch.sqrt(s**2 + (a * self.edm) ** 2)
        value = torch.zeros_like(frames)
        value[:, n - self.window :] = score(frames, at, self.window, dim)
        x0, noise = (frames + s**2 * value) / a, -s * value
        out = {"epsilon": noise, "x0": x0, "v": a * noise - s * x0, "flow": noise - x0}
        if self.edm is None:
            said = out[self.said]
        else:
            ratio, data = s / a, self.edm
            skip = data**2 / (ratio**2 + data**2)
            said = (x0 - skip * frames / a) / (ratio * data / torch.sqrt(ratio**2 + data**2))
            said[:, : n - self.window] = 0.0
        if self.layout == "BFD":
            return said.to(sample)
        back = (0, 4, 1, 2, 3) if self.layout == "BCFHW" else (0, 1, 4, 2, 3)
        return said.reshape(batch, n, h, w, c).permute(*back).to(sample)
