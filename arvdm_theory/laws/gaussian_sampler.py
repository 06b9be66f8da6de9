"""The Gaussian law of what a sampler with affine scores makes: composed stage by stage, never sampled.

Source: arXiv 2503.10704, Algorithm 1, for kernels that are affine with Gaussian noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from arvdm_theory.information.gaussian import cholesky, kl_divergence
from arvdm_theory.laws.gaussian_kernel import Kernel
from arvdm_theory.laws.states import frame_indices
from arvdm_theory.noise import alpha, sigma2, transition
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.stage import Stage

__all__ = ["SamplerLaw", "clean_law", "kl_rounding"]


@dataclass(frozen=True)
class SamplerLaw:
    """The Gaussian law Q of the actions and the frames so far: clean ones first, then the noisy window.

    Attributes:
        mean: (modes, A + n·d), frame-major behind the A entries of all actions.
        covariance: (modes, A + n·d, A + n·d).
        dim: d.
        actions: A; 0 for a video without actions.
    """

    mean: Tensor
    covariance: Tensor
    dim: int
    actions: int = 0

    def frames(self, frames: range) -> tuple[Tensor, Tensor]:
        """Mean and covariance of the actions and a run of frames."""
        index = self._index(frames)
        return self.mean[:, index], self.covariance[:, index[:, None], index]

    @classmethod
    def initial(
        cls,
        plan: Plan,
        kernel: Kernel,
        dim: int,
        actions: tuple[Tensor, Tensor] | None = None,
        levels: Tensor | None = None,
    ) -> SamplerLaw:
        """The law of Input_1: pure noise through the initialisation stage, then noised afresh if need be.

        Args:
            plan: the plan.
            kernel: of the initialisation stage.
            dim: d.
            actions: mean (modes, A) and covariance (modes, A, A) of all actions.
            levels: (w,) in place of the plan's input levels; they may require gradients.
        """
        mean, covariance = kernel.bias, kernel.window @ kernel.window.mT + kernel.covariance
        entries = 0
        if actions is not None:
            entries, told = actions[0].shape[-1], kernel.known.shape[-1]
            gain = torch.cat([kernel.known, kernel.known.new_zeros(*kernel.known.shape[:2], entries - told)], -1)
            cross = gain @ actions[1]
            own = covariance + cross @ gain.mT
            mean = torch.cat([actions[0], mean + (gain @ actions[0].unsqueeze(-1)).squeeze(-1)], -1)
            covariance = torch.cat([torch.cat([actions[1], cross.mT], -1), torch.cat([cross, own], -1)], -2)
        law = cls(mean, covariance, dim, entries)
        if not (plan.overlapping and plan.initialisation == "renoise"):
            return law
        target = torch.tensor(plan.input_levels, dtype=torch.float64, device=mean.device)
        target = (target if levels is None else levels)[: plan.init_frames].repeat_interleave(dim)
        a, v = transition(target, torch.full_like(target, plan.floor))
        scale, noise = torch.cat([a.new_ones(entries), a]), torch.cat([v.new_zeros(entries), v])
        return cls(scale * mean, scale[:, None] * scale * covariance + torch.diag(noise), dim, entries)

    def advance(self, plan: Plan, stage: Stage, kernel: Kernel) -> SamplerLaw:
        """The law after an AR step: Δ new frames from N(0, I), then the kernel on the window."""
        fresh = plan.stride * self.dim
        modes, old = self.mean.shape
        n = old + fresh
        mean = torch.cat([self.mean, self.mean.new_zeros(modes, fresh)], -1)
        covariance = self.covariance.new_zeros(modes, n, n)
        covariance[:, :old, :old] = self.covariance
        covariance[:, range(old, n), range(old, n)] = 1.0

        start = n - plan.window * self.dim  # the window's frames are the last w
        levels = stage.reference_levels.to(mean.device)
        a, v = (
            part.repeat_interleave(self.dim) for part in transition(levels, torch.full_like(levels, plan.floor))
        )
        told = kernel.known.shape[-1] - len(a)
        scale, noise = torch.cat([a, a.new_ones(told)]), torch.cat([v, v.new_zeros(told)])
        index = frame_indices(stage.reference_frames, self.dim).to(mean.device) + self.actions
        index = torch.cat([index, torch.arange(told, device=mean.device)])
        on_state = mean.new_zeros(modes, n - start, n)
        on_state[:, :, start:] = kernel.window
        on_state = on_state.index_add(2, index, kernel.known * scale)

        moved = on_state @ covariance
        window = moved @ on_state.mT + kernel.covariance
        window = window + (kernel.known * noise) @ kernel.known.mT
        out = moved[:, :, :start]
        new_mean = torch.cat([mean[:, :start], (on_state @ mean.unsqueeze(-1)).squeeze(-1) + kernel.bias], -1)
        top = torch.cat([covariance[:, :start, :start], out.mT], -1)
        bottom = torch.cat([out, (window + window.mT) / 2], -1)
        return SamplerLaw(new_mean, torch.cat([top, bottom], -2), self.dim, self.actions)

    def _index(self, frames: range) -> Tensor:
        index = frame_indices(frames, self.dim) + self.actions
        return torch.cat([torch.arange(self.actions), index]).to(self.mean.device)

    def divergence(self, true: tuple[Tensor, Tensor], frames: range) -> Tensor:
        """KL of the true law of (actions, frames) to this one's, (modes,): conditional on the actions."""
        return kl_divergence(*true, *self.frames(frames))


def clean_law(
    moments: tuple[Tensor, Tensor], dim: int, actions: int, frames: range, level: Tensor
) -> tuple[Tensor, Tensor]:
    """The true law of (actions, a run of frames at ``level``), a level for all or (frames,) one for each.

    Args:
        moments: of all clean frames and then the actions, (modes, N·d + A) and (modes, N·d + A, N·d + A).
        dim: d.
        actions: A.
        frames: which.
        level: where they stand.
    """
    mean, covariance = moments
    first = mean.shape[-1] - actions
    index = torch.cat([torch.arange(first, first + actions), frame_indices(frames, dim)]).to(mean.device)
    at = level.expand(len(frames)).repeat_interleave(dim)
    scale = torch.cat([at.new_ones(actions), alpha(at)])
    noise = torch.cat([at.new_zeros(actions), sigma2(at)])
    own = scale[:, None] * scale * covariance[:, index[:, None], index] + torch.diag(noise)
    return scale * mean[:, index], own


def kl_rounding(true: tuple[Tensor, Tensor], own: tuple[Tensor, Tensor]) -> Tensor:
    """An estimate (no bound) of the rounding in KL(P ‖ Q), (modes,): what a relative error of Σ_q does to it.

    Σ_q is composed of sums of numbers of its own size, so that it is known to about n u ‖Σ_q‖, u the unit
    roundoff, and dKL = -½ tr[Σ_q^{-1} (Σ_p + δδᵀ - Σ_q) Σ_q^{-1} dΣ_q] with δ the difference of means.
    """
    (mean_p, cov_p), (mean_q, cov_q) = true, own
    n = cov_q.shape[-1]
    inverse = torch.cholesky_inverse(cholesky(cov_q.detach(), "covariance of Q"))
    shift = (mean_p - mean_q).detach().unsqueeze(-1)
    slope = inverse @ (cov_p.detach() + shift @ shift.mT - cov_q.detach()) @ inverse
    unit = torch.finfo(cov_q.dtype).eps / 2
    # Both are symmetric: their norms follow from eigenvalues, at a fraction of the price of singular values.
    size = torch.linalg.eigvalsh(cov_q.detach())[..., -1]
    rounding: Tensor = 0.5 * n * unit * size * torch.linalg.eigvalsh(slope).abs().sum(-1)
    return rounding
