"""Scores of a window at per-frame noise levels: exact, masked, perturbed, or any callable of one's own.

A score is given to the ledger and to the rollout as

- ``None`` or :class:`ExactScore`: the exact conditional score (of what the plan's mask lets each frame see);
- :class:`PerturbedScore`: the exact score with a known error, so that SEE has a closed form;
- any callable (window, levels, references) → score (:class:`arvdm_theory.interfaces.Score`), or anything that
  gives one by ``as_score()``, as a denoiser does. If it is affine in (window, references) every error is exact;
  otherwise errors are averages over true data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from arvdm_theory.diffusion.window import AffineMap, WindowLaw
from arvdm_theory.interfaces import ReferenceBatch, Score
from arvdm_theory.laws.gaussian import standard_normal
from arvdm_theory.noise import sigma2

__all__ = [
    "AffineScore",
    "ExactScore",
    "HasScore",
    "PerturbedScore",
    "as_score",
    "call_score",
    "checked_score",
    "stage_score",
]

# How far an affine callable may miss its own affine extrapolation, relative to its size.
_AFFINE_TOLERANCE = 1e-9
# And in roundings of what it computes, which grow like the root of the number of summed terms.
_ROUNDINGS = 16
# Probes stand this many standard deviations of the true window and references apart.
_REACH = 3.0

T = TypeVar("T")


@runtime_checkable
class HasScore(Protocol):
    """Anything that gives its score, like :class:`arvdm_theory.networks.denoiser.Denoiser`."""

    def as_score(self) -> Score:
        """The score it stands for."""
        ...


def as_score(score: T | HasScore) -> T | Score:
    """A score as it is, or the one that ``as_score()`` gives."""
    return score.as_score() if isinstance(score, HasScore) else score


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


def checked_score(value: Any, window: Tensor, frames: tuple[int, ...] | range, reverse_step: int) -> Tensor:
    """What a callable returned, if it is a score.

    Args:
        value: the callable's return.
        window: what it was asked about.
        frames: the window's, from 0, for the message.
        reverse_step: m, from 0.

    Raises:
        ValueError: if it is no tensor of the window's shape, or not finite.
    """
    if not isinstance(value, Tensor) or value.shape != window.shape:
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"the score must be a tensor of the window's shape {tuple(window.shape)}, got {got}")
    if not bool(torch.isfinite(value).all()):
        raise ValueError(
            f"the score of frames {frames[0] + 1} to {frames[-1] + 1} is not finite at reverse step "
            f"{reverse_step + 1}"
        )
    return value


def call_score(score: Score, law: WindowLaw, reverse_step: int, window: Tensor, references: Tensor) -> Tensor:
    """Calls a score on flat vectors: window (batch, modes, w·d), references (batch, modes, r·d).

    A video of one mode is shown without the mode axis.

    Raises:
        ValueError: if the score is no tensor of the window's shape, or not finite.
    """
    return _called(score, law, reverse_step, window, references).to(torch.float64)


def _called(score: Score, law: WindowLaw, reverse_step: int, window: Tensor, references: Tensor) -> Tensor:
    """:func:`call_score` in the dtype that the score has."""
    batch = window.shape[:-1]
    window = window.reshape(*batch, law.window, law.dim)
    references = references.reshape(*batch, len(law.references), law.dim)
    one_mode = window.shape[1] == 1
    if one_mode:
        window, references = window[:, 0], references[:, 0]
    reference_levels = torch.tensor([r.level for r in law.references], dtype=torch.float64, device=window.device)
    context = ReferenceBatch(references, reference_levels, tuple(r.frame for r in law.references), law.frames)
    value = checked_score(score(window, law.levels[reverse_step], context), window, law.frames, reverse_step)
    return (value.unsqueeze(1) if one_mode else value).flatten(-2)


def stage_score(score: Score | AffineScore | HasScore | None, law: WindowLaw) -> AffineMap | Score:
    """The score over a stage: its affine map, or the callable itself if it is not affine.

    A callable is affine if it meets its own affine extrapolation at random windows and references of the video's
    size, up to rounding in the precision that it computes in: that of its values, or of its attribute ``dtype``.
    """
    if score is None:
        score = ExactScore()
    if isinstance(score, AffineScore):
        return score.affine(law)
    own = as_score(score)
    return _affine_by_probing(own, law) or own


def _affine_by_probing(score: Score, law: WindowLaw) -> AffineMap | None:
    modes, n = law.mean.shape
    size = n + law.gain.shape[-1]
    device = law.mean.device
    # Every mode gets probes of its own: a score that mixes modes is not affine mode by mode.
    random = standard_normal((4, modes, size), torch.Generator().manual_seed(0)).to(device)
    # Two sums of probes tell most networks apart from affine maps, before every entry is moved on its own.
    random = torch.cat([random, random[:2] + random[2:]])
    basis = torch.eye(size, dtype=torch.float64, device=device)[:, None].expand(-1, modes, -1)
    root = law.root(law.identity)
    reference_spread = law.reference_factor.square().sum(-1).sqrt()
    maps = []
    for m in range(law.steps):
        centre = torch.cat([root[m, ..., -1], law.reference_mean], -1)
        spread = torch.cat([root[m, ..., :-1].square().sum(-1).sqrt(), reference_spread], -1) * _REACH

        def ask(rows: Tensor, m: int = m, centre: Tensor = centre, spread: Tensor = spread) -> Tensor:
            points = centre + spread * rows
            return _called(score, law, m, points[..., :n], points[..., n:])

        raw = ask(torch.cat([torch.zeros_like(random[:1]), random]))
        base, seen = raw[0].to(torch.float64), raw[1:].to(torch.float64)
        largest = float((centre.abs() + spread * random.abs()).max().detach())
        size_of = seen.abs().amax((0, 2)).unsqueeze(-1)
        rounding = _ROUNDINGS * math.sqrt(size) * _unit(score, raw)
        noise = largest / law.spread(sigma2(law.levels[m])) + size_of
        allowed = _AFFINE_TOLERANCE * size_of + rounding * noise
        bend = seen[4:] - seen[:2] - seen[2:4] + base
        if not bool((bend.abs() <= allowed).all()):
            return None
        slope = (ask(basis).to(torch.float64) - base).permute(1, 2, 0)
        expected = torch.einsum("bij,pbj->pbi", slope, random) + base
        if not bool(((seen - expected).abs() <= allowed).all()):
            return None
        slope = slope / spread.unsqueeze(-2)
        bias = base - (slope @ centre.unsqueeze(-1)).squeeze(-1)
        maps.append((slope[..., :n], slope[..., n:], bias))
    return law.centred(*(torch.stack(parts) for parts in zip(*maps, strict=True)))


def _unit(score: Score, value: Tensor) -> float:
    """The relative rounding of the precision that a score computes in."""
    own = getattr(score, "dtype", None)
    kinds = [kind for kind in (value.dtype, own) if isinstance(kind, torch.dtype) and kind.is_floating_point]
    return max((torch.finfo(kind).eps for kind in kinds), default=0.0)
