"""A Gaussian video's reverse steps, in truth and in the sampler, and the sampler's kernel over a whole stage."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from arvdm_theory.diffusion.sampler import SamplerSteps, sampler_steps
from arvdm_theory.diffusion.steps import Evaluation, ReverseStep
from arvdm_theory.information.gaussian import cholesky
from arvdm_theory.laws.gaussian_window import AffineMap, WindowLaw
from arvdm_theory.noise import transition

__all__ = ["GaussianSteps", "Kernel", "composed_kernel", "gaussian_steps", "stage_kernel"]


@dataclass(frozen=True)
class GaussianSteps:
    """What every reverse step of a stage does, in truth and in the sampler.

    Attributes:
        sampler: the sampler's side, spread over entries, (M, 1, w·d).
        true_window: 1/a of the true mean (W + v s*)/a, the same shape.
        true_score: v/a.
        precision: Σ_P^{-1} of the true step, the identity on entries that stay, (M, modes, w·d, w·d).
    """

    sampler: SamplerSteps
    true_window: Tensor
    true_score: Tensor
    precision: Tensor

    @property
    def noise(self) -> Tensor:
        """The sampler's noise covariance of every step, zero on entries that stay."""
        if self.sampler.variance is not None:
            return torch.diag_embed(self.sampler.variance).expand_as(self.precision)
        both = self.sampler.moving.unsqueeze(-1) * self.sampler.moving.unsqueeze(-2)
        return both * torch.cholesky_inverse(cholesky(self.precision, "precision of a reverse step"))


def gaussian_steps(law: WindowLaw, step: ReverseStep) -> GaussianSteps:
    """The reverse steps of a stage: the true conditionals (in exact form) beside the sampler's kernels.

    Terms and kernel both ask for them: the law keeps the last ones.
    """
    kept: tuple[ReverseStep, GaussianSteps] | None = law.__dict__.get("_kept_steps")
    if kept is None or kept[0] != step:
        kept = step, _gaussian_steps(law, step)
        law.__dict__["_kept_steps"] = kept
    return kept[1]


def _gaussian_steps(law: WindowLaw, step: ReverseStep) -> GaussianSteps:
    own = sampler_steps(law.levels, step).spread(law.dim)
    moves = law.levels[:-1] > law.levels[1:]
    a, v = transition(torch.where(moves, law.levels[:-1], 2.0), torch.where(moves, law.levels[1:], 1.0))

    def spread(values: Tensor) -> Tensor:
        return law.per_entry(torch.where(moves, values, torch.zeros_like(values)))

    both = own.moving.unsqueeze(-1) * own.moving.unsqueeze(-2)
    forward = torch.diag_embed(spread(a**2 / v) + (1 - own.moving))
    return GaussianSteps(own, spread(1 / a), spread(v / a), both * law.precision[1:] + forward)


@dataclass(frozen=True)
class Kernel:
    """The sampler's kernel over a whole stage: W_out ~ N(Φ W_in + Ψ Y + φ, Ω).

    Attributes:
        window: Φ, (modes, w·d, w·d).
        known: Ψ, (modes, w·d, y).
        bias: φ, (modes, w·d).
        covariance: Ω, (modes, w·d, w·d).
    """

    window: Tensor
    known: Tensor
    bias: Tensor
    covariance: Tensor


def stage_kernel(
    law: WindowLaw, score: AffineMap, step: ReverseStep, ahead: tuple[WindowLaw, AffineMap] | None = None
) -> Kernel:
    """The sampler's kernel over the stage, composed of its M affine Gaussian steps.

    Args:
        law: of the window.
        score: its map at every reverse step.
        step: the reverse step.
        ahead: for a step that looks ahead, the law of the stage one row later and the score's map there.
    """
    if step.advance is not None:
        return _advanced(law, score, step, ahead)
    steps = gaussian_steps(law, step)
    return composed_kernel(steps.sampler, *law.raw(score), steps.noise)


def composed_kernel(
    steps: SamplerSteps, on_window: Tensor, on_known: Tensor, bias: Tensor, noise: Tensor
) -> Kernel:
    """M affine Gaussian steps as one kernel.

    Args:
        steps: spread over flat vectors.
        on_window, on_known, bias: the score F W + G Y + f of every step, (M, modes, w·d, w·d), (M, modes, w·d, y)
            and (M, modes, w·d).
        noise: covariance of every step's noise, zero on entries that stay, broadcast to (M, modes, w·d, w·d).
    """
    stay = torch.diag_embed((1 - steps.moving) + steps.mean_window)
    window_maps = stay + steps.mean_score.unsqueeze(-1) * on_window
    known_maps = steps.mean_score.unsqueeze(-1) * on_known
    biases = steps.mean_score * bias
    noises = noise.expand_as(window_maps)
    phi = torch.eye(bias.shape[-1], dtype=stay.dtype, device=stay.device).expand_as(window_maps[0])
    psi, constant, omega = torch.zeros_like(known_maps[0]), torch.zeros_like(biases[0]), torch.zeros_like(phi)
    for m in range(len(window_maps)):
        phi = window_maps[m] @ phi
        psi = window_maps[m] @ psi + known_maps[m]
        constant = (window_maps[m] @ constant.unsqueeze(-1)).squeeze(-1) + biases[m]
        omega = window_maps[m] @ omega @ window_maps[m].mT + noises[m]
    return Kernel(phi, psi, constant, (omega + omega.mT) / 2)


def _advanced(
    law: WindowLaw, score: AffineMap, step: ReverseStep, ahead: tuple[WindowLaw, AffineMap] | None
) -> Kernel:
    """The kernel of a step of several evaluations, which has no noise: every column of (W, Y, 1) is walked
    through."""
    assert step.advance is not None
    maps = [law.raw(score)] + ([] if ahead is None else [ahead[0].raw(ahead[1])])
    modes, n = law.mean.shape
    known, frames, dim = law.gain.shape[-1], law.stage.window, law.dim
    window = law.mean.new_zeros(n + known + 1, modes, n)
    window[:n] = torch.eye(n).to(window)[:, None]
    # Columns are windows of a batch: the score is linear in each, and what it adds by itself belongs to Y and 1.
    own = [
        torch.cat([torch.zeros_like(on).movedim(-1, 1), by.movedim(-1, 1), bias.unsqueeze(1)], 1)
        for on, by, bias in maps
    ]

    def value(which: int, m: int, at: Tensor) -> Tensor:
        flat = torch.einsum("bij,cbj->cbi", maps[which][0][m], at.flatten(2)) + own[which][m]
        return flat.reshape(at.shape)

    state = window.reshape(-1, modes, frames, dim)
    memory: dict[str, Tensor] = {}
    for m in range(law.steps):
        here, there = partial(value, 0, m), partial(value, len(maps) - 1, m)
        state = step.advance(Evaluation(state, law.levels[m], law.levels[m + 1], here, there, memory))
    columns = state.flatten(2).permute(1, 2, 0)
    return Kernel(columns[..., :n], columns[..., n:-1], columns[..., -1], columns.new_zeros(modes, n, n))
