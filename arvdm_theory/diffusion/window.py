"""The true law of one stage's window given its references, at every level of the stage's grid.

With X the clean window frames, D = diag(α(τ)) and references R (at their own levels),

    W^m = D_m X + σ_m ε,    Cov(W^m | R) = D_m Cov(X | R) D_m + diag(σ²_m),
    E[W^m | R] = D_m (E X + K (R - E R)),    K = Cov(X, R) Cov(R)^{-1},

because window frames are never references, so their noises are independent. Everything an error term needs
is an affine map of (W, R), and is kept in the *centred* coordinates (e, r, 1) with e = W - E[W | R] and
r = R - E R, which are uncorrelated: the exact score is -J e with J = Cov(W | R)^{-1}, and no term loses
digits to the large part of W that the references explain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from arvdm_theory.information.gaussian import cholesky, condition
from arvdm_theory.laws.gaussian import frame_indices, noisy_covariance
from arvdm_theory.noise import alpha, sigma2
from arvdm_theory.plan.plan import Mask, Plan, Reference

__all__ = ["AffineMap", "WindowLaw", "ar_window", "init_window"]


@dataclass(frozen=True)
class AffineMap:
    """An affine map of (W^m, R) for every reverse step m, in centred coordinates: E e + G r + b.

    Attributes:
        window: E, shape (M, modes, w·d, w·d).
        references: G, shape (M, modes, w·d, r·d).
        bias: b, shape (M, modes, w·d).
    """

    window: Tensor
    references: Tensor
    bias: Tensor


@dataclass(frozen=True)
class WindowLaw:
    """The true Gaussian law of a window along a stage's grid; M reverse steps, w frames in R^d, r references.

    Attributes:
        dim: d.
        frames: the window's frames, from 0.
        references: the references, at the levels they stand at (the floor, where they are left as they came out).
        levels: the stage's grid, (M + 1, w).
        visible: per reverse step what each window frame sees, or None (everything).
        mean: of the clean window, (modes, w·d).
        covariance: Cov(clean window | R), (modes, w·d, w·d).
        gain: K, the regression of the clean window on R, (modes, w·d, r·d).
        reference_mean: E R, (modes, r·d).
        reference_factor: Cholesky factor of Cov(R), (modes, r·d, r·d).
    """

    dim: int
    frames: tuple[int, ...]
    references: tuple[Reference, ...]
    levels: Tensor
    visible: tuple[Mask | None, ...]
    mean: Tensor
    covariance: Tensor
    gain: Tensor
    reference_mean: Tensor
    reference_factor: Tensor

    @property
    def steps(self) -> int:
        """M, the reverse steps of the stage."""
        return len(self.levels) - 1

    @property
    def window(self) -> int:
        """W, the frames in the window."""
        return len(self.frames)

    def spread(self, per_frame: Tensor) -> Tensor:
        """(..., w) values a frame → (..., 1, w·d) values an entry, ready to broadcast over modes."""
        return per_frame.repeat_interleave(self.dim, -1).unsqueeze(-2)

    def per_frame(self, per_entry: Tensor) -> Tensor:
        """(..., w·d) values an entry → (..., w), summed over the entries of each frame."""
        return per_entry.reshape(*per_entry.shape[:-1], self.window, self.dim).sum(-1)

    def covariance_at(self, levels: Tensor) -> Tensor:
        """Cov(W | R) at any levels (..., w) → (..., modes, w·d, w·d)."""
        scale, variance = self.spread(alpha(levels)), self.spread(sigma2(levels))
        return scale.unsqueeze(-1) * scale.unsqueeze(-2) * self.covariance + torch.diag_embed(variance)

    def precision_at(self, levels: Tensor) -> Tensor:
        """J = Cov(W | R)^{-1} at any levels; shapes as :meth:`covariance_at`."""
        return torch.cholesky_inverse(cholesky(self.covariance_at(levels), "covariance of the window"))

    @cached_property
    def factor(self) -> Tensor:
        """Cholesky factors of Cov(W^m | R), m = 0..M, (M + 1, modes, w·d, w·d)."""
        return cholesky(self.covariance_at(self.levels), f"covariance of the window {self.frames}")

    @cached_property
    def precision(self) -> Tensor:
        """J^m, m = 0..M, (M + 1, modes, w·d, w·d)."""
        return torch.cholesky_inverse(self.factor)

    @cached_property
    def _explained(self) -> tuple[Tensor, Tensor]:
        """D_m K and D_m E X, the parts of W^m that R and the mean give."""
        scale = self.spread(alpha(self.levels[:-1]))
        return scale.unsqueeze(-1) * self.gain, scale * self.mean

    @cached_property
    def identity(self) -> AffineMap:
        """The map (W, R) ↦ W."""
        gain, mean = self._explained
        eye = torch.eye(self.mean.shape[-1], dtype=mean.dtype, device=mean.device)
        return AffineMap(eye.expand(*mean.shape[:2], *eye.shape), gain, mean)

    @cached_property
    def score(self) -> AffineMap:
        """The exact score s*(W, R) = -J e."""
        gain, mean = self._explained
        return AffineMap(-self.precision[:-1], torch.zeros_like(gain), torch.zeros_like(mean))

    @cached_property
    def masked_score(self) -> AffineMap:
        """Row j: the exact score of window frame j given only what it sees; the exact score if it sees all.

        s_j = -[Σ_vv^{-1} (v - E v)]_j with v the window frames and references that frame j sees.
        """
        if all(mask is None for mask in self.visible):
            return self.score
        gain, mean = self._explained
        joint = self._joint()
        n, d = self.window, self.dim
        rows = []
        for m, mask in enumerate(self.visible):
            table = mask if mask is not None else ((True,) * (n + len(self.references)),) * n
            row = torch.zeros_like(joint[m, :, : n * d])
            for j, sees in enumerate(table):
                seen = [a for a, is_seen in enumerate(sees) if is_seen]
                index = frame_indices(seen, d).to(joint.device)
                inverse = torch.cholesky_inverse(cholesky(joint[m][:, index[:, None], index]))
                at = seen.index(j) * d
                row = row.index_put(
                    (
                        torch.arange(row.shape[0], device=row.device)[:, None, None],
                        torch.arange(j * d, (j + 1) * d, device=row.device)[:, None],
                        index,
                    ),
                    -inverse[:, at : at + d],
                )
            rows.append(row)
        stacked = torch.stack(rows)
        window = stacked[..., : n * d]
        return AffineMap(window, window @ gain + stacked[..., n * d :], torch.zeros_like(mean))

    def _joint(self) -> Tensor:
        """Cov((W^m, R)) for m = 0..M-1."""
        gain, _ = self._explained
        half = gain @ self.reference_factor
        window = self.covariance_at(self.levels[:-1]) + half @ half.mT
        cross = half @ self.reference_factor.mT
        refs = (self.reference_factor @ self.reference_factor.mT).expand(*cross.shape[:2], -1, -1)
        return torch.cat([torch.cat([window, cross], -1), torch.cat([cross.mT, refs], -1)], -2)

    def root(self, affine: AffineMap) -> Tensor:
        """B with f = B ξ, ξ = (standard normal, 1): then E⟨f, g⟩_{S^{-1}} = Σ (L^{-1} B_f) ∘ (L^{-1} B_g).

        Shape (M, modes, w·d, w·d + r·d + 1).
        """
        return torch.cat(
            [
                affine.window @ self.factor[:-1],
                affine.references @ self.reference_factor,
                affine.bias.unsqueeze(-1),
            ],
            -1,
        )

    def raw(self, affine: AffineMap) -> tuple[Tensor, Tensor, Tensor]:
        """(F, G, f) with the map equal to F W + G R + f in the variables themselves."""
        gain, mean = self._explained
        on_refs = affine.references - affine.window @ gain
        bias = (
            affine.bias
            - (affine.window @ mean.unsqueeze(-1)).squeeze(-1)
            - (on_refs @ self.reference_mean.unsqueeze(-1)).squeeze(-1)
        )
        return affine.window, on_refs, bias

    def centred(self, on_window: Tensor, on_refs: Tensor, bias: Tensor) -> AffineMap:
        """The inverse of :meth:`raw`."""
        gain, mean = self._explained
        shift = (
            (on_window @ mean.unsqueeze(-1)).squeeze(-1)
            + (on_refs @ self.reference_mean.unsqueeze(-1)).squeeze(-1)
            + bias
        )
        return AffineMap(on_window, on_window @ gain + on_refs, shift)


def _window_law(
    clean_mean: Tensor,
    clean_covariance: Tensor,
    dim: int,
    frames: Sequence[int],
    references: tuple[Reference, ...],
    floor: float,
    levels: Tensor,
    visible: tuple[Mask | None, ...],
) -> WindowLaw:
    references = tuple(Reference(r.frame, max(r.level, floor)) for r in references)
    index = frame_indices([*frames, *(r.frame for r in references)], dim).to(clean_mean.device)
    size = len(frames) * dim
    clean = clean_covariance[:, index[:, None], index]
    mean = clean_mean[:, index]
    # Only the references are noised here; the window's own noise is added level by level.
    at = torch.tensor(
        [0.0] * len(frames) + [r.level for r in references],
        dtype=torch.float64, device=clean.device,
    )  # fmt: skip
    joint = noisy_covariance(
        clean, at, torch.diag_embed(at), torch.eye(len(at), dtype=torch.bool, device=clean.device)
    )
    gain, covariance = condition(joint, range(size), range(size, len(index)))
    return WindowLaw(
        dim=dim,
        frames=tuple(frames),
        references=references,
        levels=levels,
        visible=visible,
        mean=mean[:, :size],
        covariance=covariance,
        gain=gain,
        reference_mean=mean[:, size:] * alpha(at).repeat_interleave(dim)[size:],
        reference_factor=cholesky(joint[:, size:, size:], "covariance of the references"),
    )


def init_window(
    clean_mean: Tensor, clean_covariance: Tensor, dim: int, plan: Plan, grid: Tensor | None = None
) -> WindowLaw:
    """The window of the initialisation stage; ``grid`` (M_init + 1, n) replaces the plan's levels."""
    if grid is None:
        grid = torch.tensor(plan.init_grid, dtype=torch.float64, device=clean_mean.device)
    frames = range(plan.init_frames)
    return _window_law(clean_mean, clean_covariance, dim, frames, (), plan.floor, grid, (None,) * plan.init_steps)


def ar_window(
    clean_mean: Tensor,
    clean_covariance: Tensor,
    dim: int,
    plan: Plan,
    ar_step: int,
    grid: Tensor | None = None,
) -> WindowLaw:
    """The window of AR step ``ar_step`` (from 1); ``grid`` (M_AR + 1, w) replaces the plan's levels.

    Args:
        clean_mean: of all clean frames from the first on, (modes, N·d).
        clean_covariance: (modes, N·d, N·d).
        dim: d.
        plan: the plan.
        ar_step: k.
        grid: levels that may require gradients.
    """
    if grid is None:
        grid = torch.tensor(plan.ar_grid, dtype=torch.float64, device=clean_mean.device)
    references = plan.references_at(ar_step)
    visible = tuple(plan.visible_at(m, len(references)) for m in range(plan.reverse_steps))
    frames = plan.window_frames(ar_step)
    return _window_law(clean_mean, clean_covariance, dim, frames, references, plan.floor, grid, visible)
