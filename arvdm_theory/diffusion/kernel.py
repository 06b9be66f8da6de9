"""The sampler's kernels: every reverse step of a stage, and the stage as a whole."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from arvdm_theory.diffusion.scores import call_score
from arvdm_theory.diffusion.steps import ReverseStep
from arvdm_theory.diffusion.window import AffineMap, WindowLaw
from arvdm_theory.information.gaussian import cholesky
from arvdm_theory.interfaces import Score
from arvdm_theory.noise import transition
from arvdm_theory.processes.gaussian import standard_normal

__all__ = ["GaussianSteps", "Kernel", "gaussian_steps", "noise_covariance", "reverse_sample", "stage_kernel"]


@dataclass(frozen=True)
class GaussianSteps:
    """What every reverse step of a stage does, in truth and in the sampler.

    All but ``precision`` have shape (M, 1, w·d).

    Attributes:
        moving: 1 where an entry's frame moves, else 0; the others below are 0 where nothing moves.
        mean_window: c_w of the sampler's mean c_w W + c_s s_θ.
        mean_score: c_s.
        true_window: 1/a of the true mean (W + v s*)/a.
        true_score: v/a.
        variance: the sampler's noise variance, or None for the true conditional covariance.
        precision: Σ_P^{-1} of the true step, the identity on entries that stay, (M, modes, w·d, w·d).
    """

    moving: Tensor
    mean_window: Tensor
    mean_score: Tensor
    true_window: Tensor
    true_score: Tensor
    variance: Tensor | None
    precision: Tensor


def gaussian_steps(law: WindowLaw, step: ReverseStep) -> GaussianSteps:
    """The reverse steps of a stage: the true conditionals (in exact form) beside the sampler's kernels."""
    high, low = law.levels[:-1], law.levels[1:]
    moves = high > low
    # Frames that stay get a harmless dummy move, so that no gradient passes through 0/0; it is masked out.
    high, low = torch.where(moves, high, 2.0), torch.where(moves, low, 1.0)
    a, v = transition(high, low)
    coefficients = step.coefficients(high, low)
    moving = law.spread(moves.to(high.dtype))

    def spread(values: Tensor) -> Tensor:
        return law.spread(torch.where(moves, values, torch.zeros_like(values)))

    both = moving.unsqueeze(-1) * moving.unsqueeze(-2)
    pull = torch.diag_embed(spread(a**2 / v) + (1 - moving))
    return GaussianSteps(
        moving=moving,
        mean_window=spread(coefficients.window),
        mean_score=spread(coefficients.score),
        true_window=spread(1 / a),
        true_score=spread(v / a),
        variance=None if coefficients.variance is None else spread(coefficients.variance),
        precision=both * law.precision[1:] + pull,
    )


@dataclass(frozen=True)
class Kernel:
    """The sampler's kernel over a whole stage: W_out ~ N(Φ W_in + Ψ R + φ, Ω).

    Attributes:
        window: Φ, (modes, w·d, w·d).
        references: Ψ, (modes, w·d, r·d).
        bias: φ, (modes, w·d).
        covariance: Ω, (modes, w·d, w·d).
    """

    window: Tensor
    references: Tensor
    bias: Tensor
    covariance: Tensor


def stage_kernel(law: WindowLaw, score: AffineMap, step: ReverseStep) -> Kernel:
    """The sampler's kernel over the stage, composed of its M affine Gaussian steps."""
    steps = gaussian_steps(law, step)
    on_window, on_refs, bias = law.raw(score)
    size = law.mean.shape[-1]
    stay = torch.diag_embed((1 - steps.moving) + steps.mean_window)
    window_maps = stay + steps.mean_score.unsqueeze(-1) * on_window
    ref_maps = steps.mean_score.unsqueeze(-1) * on_refs
    biases = steps.mean_score * bias
    noises = noise_covariance(steps).expand_as(window_maps)
    phi = torch.eye(size, dtype=stay.dtype, device=stay.device).expand(law.mean.shape[0], size, size)
    psi, constant, omega = torch.zeros_like(law.gain), torch.zeros_like(law.mean), torch.zeros_like(phi)
    for m in range(law.steps):
        phi = window_maps[m] @ phi
        psi = window_maps[m] @ psi + ref_maps[m]
        constant = (window_maps[m] @ constant.unsqueeze(-1)).squeeze(-1) + biases[m]
        omega = window_maps[m] @ omega @ window_maps[m].mT + noises[m]
    return Kernel(phi, psi, constant, (omega + omega.mT) / 2)


def noise_covariance(steps: GaussianSteps) -> Tensor:
    """The sampler's noise covariance of every step, zero on entries that stay."""
    if steps.variance is not None:
        return torch.diag_embed(steps.variance)
    both = steps.moving.unsqueeze(-1) * steps.moving.unsqueeze(-2)
    return both * torch.cholesky_inverse(cholesky(steps.precision, "precision of a reverse step"))


def reverse_sample(
    law: WindowLaw,
    score: AffineMap | Score,
    step: ReverseStep,
    window: Tensor,
    references: Tensor,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draws W^M given W^0 = ``window`` (batch, modes, w·d) and ``references`` (batch, modes, r·d)."""
    steps = gaussian_steps(law, step)
    raw = law.raw(score) if isinstance(score, AffineMap) else ()
    noise = noise_covariance(steps)
    for m in range(law.steps):
        if isinstance(score, AffineMap):
            on_window, on_refs, bias = (part[m] for part in raw)
            value = _apply(on_window, window) + _apply(on_refs, references) + bias
        else:
            value = call_score(score, law, m, window, references)
        stay = (1 - steps.moving[m]) + steps.mean_window[m]
        draw = standard_normal(window.shape, generator).to(window.device)
        if steps.variance is not None:
            kick = steps.variance[m].sqrt() * draw
        else:
            still = torch.diag_embed(1 - steps.moving[m])
            kick = steps.moving[m] * _apply(cholesky(noise[m] + still), draw)
        window = stay * window + steps.mean_score[m] * value + kick
    return window


def _apply(matrix: Tensor, vectors: Tensor) -> Tensor:
    return (matrix @ vectors.unsqueeze(-1)).squeeze(-1)
