"""Scores of a window at per-frame noise levels: exact, masked, perturbed, or any callable of one's own.

A score is given to the ledger and to the rollout as

- ``None`` or :class:`ExactScore`: the exact conditional score (of what the plan's mask lets each frame see);
- :class:`PerturbedScore`: the exact score with a known error, so that SEE has a closed form;
- any callable (window, levels, references) → score (:class:`arvdm_theory.interfaces.Score`). If it is affine
  in (window, references) every error is exact; otherwise errors are averages over true data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from arvdm_theory.diffusion.window import AffineMap, WindowLaw
from arvdm_theory.interfaces import ReferenceBatch, Score
from arvdm_theory.processes.gaussian import standard_normal

__all__ = ["AffineScore", "ExactScore", "PerturbedScore", "call_score", "stage_score"]

# How far an affine callable may miss its own affine extrapolation, relative to its size: float64 rounding
# grows with the number of summed terms, and 1e-9 leaves it six orders of magnitude.
_AFFINE_TOLERANCE = 1e-9


@runtime_checkable
class AffineScore(Protocol):
    """A score that is affine in (window, references) and says so itself."""

    def affine(self, law: WindowLaw) -> AffineMap:
        """Its map at every reverse step of a stage."""
        ...


@dataclass(frozen=True)
class ExactScore:
    """s*(W, R) = ∇_W log p(W | R).

    Attributes:
        masked: whether window frame j's score is given only what the plan's mask lets it see (the best that a
            masked network can do) or everything. Without a mask there is no difference.
    """

    masked: bool = True

    def affine(self, law: WindowLaw) -> AffineMap:
        """See :class:`AffineScore`."""
        return law.masked_score if self.masked else law.score


@dataclass(frozen=True)
class PerturbedScore:
    """s_θ(W, R) = s*(W, R) - e W + c: the exact score with a known error, in both stages.

    Attributes:
        error: e, a number (a scalar tensor keeps its gradient).
        bias: c, added to every entry.
        base: the score that is perturbed.
    """

    error: float | Tensor
    bias: float | Tensor = 0.0
    base: ExactScore = ExactScore()

    def __post_init__(self) -> None:
        for what, value in (("error e", self.error), ("bias c", self.bias)):
            if not bool(torch.isfinite(torch.as_tensor(value, dtype=torch.float64)).all()):
                raise ValueError(f"the score's {what} must be finite, got {value}")

    def affine(self, law: WindowLaw) -> AffineMap:
        """See :class:`AffineScore`."""
        exact, identity = self.base.affine(law), law.identity
        return AffineMap(
            exact.window - self.error * identity.window,
            exact.references - self.error * identity.references,
            exact.bias - self.error * identity.bias + self.bias,
        )


def call_score(score: Score, law: WindowLaw, reverse_step: int, window: Tensor, references: Tensor) -> Tensor:
    """Calls a score on flat vectors: window (batch, modes, w·d), references (batch, modes, r·d).

    A video of one mode is shown without the mode axis.

    Raises:
        ValueError: if the score is no tensor of the window's shape, or not finite.
    """
    batch = window.shape[:-1]
    window = window.reshape(*batch, law.window, law.dim)
    references = references.reshape(*batch, len(law.references), law.dim)
    one_mode = window.shape[1] == 1
    if one_mode:
        window, references = window[:, 0], references[:, 0]
    reference_levels = torch.tensor([r.level for r in law.references], dtype=torch.float64, device=window.device)
    context = ReferenceBatch(references, reference_levels, tuple(r.frame for r in law.references), law.frames)
    value = score(window, law.levels[reverse_step], context)
    if not isinstance(value, Tensor) or value.shape != window.shape:
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"the score must be a tensor of the window's shape {tuple(window.shape)}, got {got}")
    if not bool(torch.isfinite(value).all()):
        raise ValueError(
            f"the score of frames {law.frames[0] + 1} to {law.frames[-1] + 1} is not finite at reverse step "
            f"{reverse_step + 1}"
        )
    value = value.to(torch.float64)
    return (value.unsqueeze(1) if one_mode else value).flatten(-2)


def stage_score(score: Score | AffineScore | None, law: WindowLaw) -> AffineMap | Score:
    """The score over a stage: its affine map, or the callable itself if it is not affine."""
    if score is None:
        score = ExactScore()
    if isinstance(score, AffineScore):
        return score.affine(law)
    return _affine_by_probing(score, law) or score


def _affine_by_probing(score: Score, law: WindowLaw) -> AffineMap | None:
    modes, n = law.mean.shape
    r = law.gain.shape[-1]
    # Every mode gets probes of its own: a score that mixes modes is not affine mode by mode.
    probes = standard_normal((4, modes, n + r), torch.Generator().manual_seed(0)) * 3
    basis = torch.cat([torch.zeros(1, n + r, dtype=torch.float64), torch.eye(n + r, dtype=torch.float64)])
    rows = torch.cat([basis[:, None].expand(-1, modes, -1), probes]).to(law.mean.device)
    maps = []
    for m in range(law.steps):
        value = call_score(score, law, m, rows[..., :n], rows[..., n:])
        bias, slope, seen = value[0], (value[1 : 1 + n + r] - value[0]).permute(1, 2, 0), value[1 + n + r :]
        expected = torch.einsum("bij,pbj->pbi", slope, rows[1 + n + r :]) + bias
        if not bool((seen - expected).abs().max() <= _AFFINE_TOLERANCE * (1 + expected.abs().max())):
            return None
        maps.append((slope[..., :n], slope[..., n:], bias))
    return law.centred(*(torch.stack(parts) for parts in zip(*maps, strict=True)))
