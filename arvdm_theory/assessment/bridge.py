"""A network of pictures as a score of a fitted video's modes.

A picture is X = m + s Σ_k z_k φ_k. White noise on z is white noise on X within the span of the modes, at another
level: z at level t, α z + σ ε, is X at level t' with the same signal-to-noise ratio,

    e^{t'} - 1 = s² (e^t - 1),      Y = α' m + (α' s/α) Σ_k z_k^t φ_k + σ' (1 - P) ξ,

P the projection onto the span and ξ white noise that stands in for what noise does outside it. The network's x̂ of
Y gives ẑ = φ (x̂ - m)/s, and the score of the modes is (α ẑ - z^t)/σ².
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from arvdm_theory.interfaces import ReferenceBatch
from arvdm_theory.laws.fitted import FittedVideo
from arvdm_theory.noise import alpha, sigma2, standard_normal
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.references import References

__all__ = ["PictureScore", "plan_of_modes"]


def plan_of_modes(plan: Plan, scale: float) -> Plan:
    """A plan whose levels are those of pictures, as a plan of modes of that scale s: t = log(1 + (e^{t'} -
    1)/s²)."""

    def level(at: float) -> float:
        return math.log1p(math.expm1(at) / scale**2)

    def row(levels: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(map(level, levels))

    picks = tuple(dataclasses.replace(pick, level=level(pick.level)) for pick in plan.references.picks)
    return dataclasses.replace(
        plan, input_levels=row(plan.input_levels), output_levels=row(plan.output_levels),
        horizon=level(plan.horizon), floor=level(plan.floor), ar_grid=tuple(map(row, plan.ar_grid)),
        init_grid=tuple(map(row, plan.init_grid)), references=References(picks),
    )  # fmt: skip


@dataclass
class PictureScore:
    """The score of a fitted video's modes that a score of pictures says.

    Attributes:
        score: (window, levels, references) → score, of flat pictures (H, W, C) at their own levels.
        video: whose modes.
        seed: of the noise outside the span, the same at every call: the score is a function of what it is shown.
    """

    score: Any
    video: FittedVideo
    seed: int = 0

    def __post_init__(self) -> None:
        self._basis = torch.as_tensor(self.video.basis).flatten(1)
        self._mean = torch.as_tensor(self.video.mean_picture).flatten()

    @property
    def bends(self) -> bool:
        """Whether the network is known not to be affine."""
        return bool(getattr(self.score, "bends", False))

    def __call__(self, window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
        """The score of modes (batch, w, K) at levels (w,)."""
        s, z = self.video.scale, window.double()
        t = levels.double()
        shown, pixel = self._pictures(z, t, self.seed), self._level(t)
        at = references.levels.double()
        seen = dataclasses.replace(
            references,
            values=self._pictures(references.values.double(), at, self.seed + 1),
            levels=self._level(at),
        )
        said = self.score(shown, pixel, seen).double()
        clean = (shown + sigma2(pixel).unsqueeze(-1) * said) / alpha(pixel).unsqueeze(-1)
        modes = (clean - self._mean) @ self._basis.T / s
        a, v = alpha(t).unsqueeze(-1), sigma2(t).unsqueeze(-1)
        moves = v > 0
        return torch.where(moves, (a * modes - z) / torch.where(moves, v, 1.0), torch.zeros_like(z)).to(window)

    def _level(self, level: Tensor) -> Tensor:
        return torch.log1p(self.video.scale**2 * torch.expm1(level))

    def _pictures(self, modes: Tensor, levels: Tensor, seed: int) -> Tensor:
        """Noisy pictures of noisy modes."""
        pixel = self._level(levels)
        a, b = alpha(levels).unsqueeze(-1), alpha(pixel).unsqueeze(-1)
        inside = b * self._mean + (b * self.video.scale / a) * (modes @ self._basis)
        noise = standard_normal((*modes.shape[:-1], len(self._mean)), torch.Generator().manual_seed(seed))
        outside = noise - noise @ self._basis.T @ self._basis
        return inside + torch.sqrt(sigma2(pixel)).unsqueeze(-1) * outside
