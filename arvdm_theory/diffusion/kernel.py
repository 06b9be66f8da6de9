"""The sampler's kernels: every reverse step of a stage, and the stage as a whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from arvdm_theory.diffusion.scores import call_score
from arvdm_theory.diffusion.steps import ReverseStep
from arvdm_theory.diffusion.window import AffineMap, WindowLaw
from arvdm_theory.information.gaussian import cholesky
from arvdm_theory.interfaces import Score
from arvdm_theory.laws.gaussian import standard_normal
from arvdm_theory.noise import transition

__all__ = [
    "GaussianSteps",
    "Kernel",
    "SamplerSteps",
    "composed_kernel",
    "gaussian_steps",
    "noise_covariance",
    "reverse_sample",
    "reverse_walk",
    "sampler_steps",
    "stage_kernel",
]


@dataclass(frozen=True)
class SamplerSteps:
    """What the sampler does in every reverse step of a stage, whatever the video: mean c_w W + c_s s, and noise.

    Each has shape (M, w), a frame an entry (or spread over the entries of frames, see :meth:`spread`).

    Attributes:
        moving: 1 where a frame moves, else 0; the others below are 0 where nothing moves.
        mean_window: c_w.
        mean_score: c_s.
        variance: of the noise; None for the true conditional covariance.
    """

    moving: Tensor
    mean_window: Tensor
    mean_score: Tensor
    variance: Tensor | None

    def spread(self, dim: int) -> SamplerSteps:
        """The same for flat vectors of frames in R^dim, (M, 1, w·d)."""

        def wide(values: Tensor) -> Tensor:
            return values.repeat_interleave(dim, -1).unsqueeze(-2)

        return self._map(wide)

    def to(self, dtype: torch.dtype) -> SamplerSteps:
        """The same in another dtype."""
        return self._map(lambda values: values.to(dtype))

    def _map(self, change: Callable[[Tensor], Tensor]) -> SamplerSteps:
        variance = None if self.variance is None else change(self.variance)
        return SamplerSteps(change(self.moving), change(self.mean_window), change(self.mean_score), variance)


def sampler_steps(levels: Tensor, step: ReverseStep) -> SamplerSteps:
    """The sampler's side of every reverse step of a grid of ``levels`` (M + 1, w)."""
    high, low = levels[:-1], levels[1:]
    moves = high > low
    # Frames that stay get a harmless dummy move, so that no gradient passes through 0/0; it is masked out.
    coefficients = step.coefficients(torch.where(moves, high, 2.0), torch.where(moves, low, 1.0))

    def masked(values: Tensor) -> Tensor:
        return torch.where(moves, values, torch.zeros_like(values))

    return SamplerSteps(
        moving=moves.to(levels.dtype),
        mean_window=masked(coefficients.window),
        mean_score=masked(coefficients.score),
        variance=None if coefficients.variance is None else masked(coefficients.variance),
    )


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
    own = sampler_steps(law.levels, step).spread(law.dim)
    moves = law.levels[:-1] > law.levels[1:]
    a, v = transition(torch.where(moves, law.levels[:-1], 2.0), torch.where(moves, law.levels[1:], 1.0))

    def spread(values: Tensor) -> Tensor:
        return law.spread(torch.where(moves, values, torch.zeros_like(values)))

    both = own.moving.unsqueeze(-1) * own.moving.unsqueeze(-2)
    pull = torch.diag_embed(spread(a**2 / v) + (1 - own.moving))
    return GaussianSteps(
        moving=own.moving,
        mean_window=own.mean_window,
        mean_score=own.mean_score,
        true_window=spread(1 / a),
        true_score=spread(v / a),
        variance=own.variance,
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
    return composed_kernel(steps, *law.raw(score), noise_covariance(steps))


def composed_kernel(
    steps: GaussianSteps | SamplerSteps, on_window: Tensor, on_refs: Tensor, bias: Tensor, noise: Tensor
) -> Kernel:
    """M affine Gaussian steps as one kernel.

    Args:
        steps: spread over flat vectors.
        on_window, on_refs, bias: the score F W + G R + f of every step, (M, modes, w·d, w·d),
            (M, modes, w·d, r·d) and (M, modes, w·d).
        noise: covariance of every step's noise, zero on entries that stay, broadcast to (M, modes, w·d, w·d).
    """
    stay = torch.diag_embed((1 - steps.moving) + steps.mean_window)
    window_maps = stay + steps.mean_score.unsqueeze(-1) * on_window
    ref_maps = steps.mean_score.unsqueeze(-1) * on_refs
    biases = steps.mean_score * bias
    noises = noise.expand_as(window_maps)
    phi = torch.eye(bias.shape[-1], dtype=stay.dtype, device=stay.device).expand_as(window_maps[0])
    psi, constant, omega = torch.zeros_like(ref_maps[0]), torch.zeros_like(biases[0]), torch.zeros_like(phi)
    for m in range(len(window_maps)):
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

    def value(m: int, window: Tensor) -> Tensor:
        if not isinstance(score, AffineMap):
            return call_score(score, law, m, window, references)
        on_window, on_refs, bias = (part[m] for part in raw)
        return _apply(on_window, window) + _apply(on_refs, references) + bias

    def kick(m: int) -> Tensor:
        draw = standard_normal(window.shape, generator).to(window.device)
        if steps.variance is not None:
            return steps.variance[m].sqrt() * draw
        still = torch.diag_embed(1 - steps.moving[m])
        return steps.moving[m] * _apply(cholesky(noise[m] + still), draw)

    return reverse_walk(steps, window, value, kick)


def reverse_walk(
    steps: GaussianSteps | SamplerSteps,
    window: Tensor,
    score: Callable[[int, Tensor], Tensor],
    kick: Callable[[int], Tensor],
) -> Tensor:
    """W^M from W^0 = ``window`` (batch, modes, w·d), with the score and the noise of every reverse step m."""
    for m in range(len(steps.moving)):
        stay = (1 - steps.moving[m]) + steps.mean_window[m]
        window = stay * window + steps.mean_score[m] * score(m, window) + kick(m)
    return window


def _apply(matrix: Tensor, vectors: Tensor) -> Tensor:
    return (matrix @ vectors.unsqueeze(-1)).squeeze(-1)
