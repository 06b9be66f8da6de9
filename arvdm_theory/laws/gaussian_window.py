"""The true Gaussian law of one stage's window given what the stage knows, at every level of the stage's grid.

With X the clean window frames, D = diag(α(τ)) and Y what is known (references at their own levels, and the actions
of a controlled video),

    W^m = D_m X + σ_m ε,    Cov(W^m | Y) = D_m Cov(X | Y) D_m + diag(σ²_m),
    E[W^m | Y] = D_m (E X + K (Y - E Y)),    K = Cov(X, Y) Cov(Y)^{-1},

because window frames are never references, so their noises are independent. Everything an error term needs is an
affine map of (W, Y), and is kept in the *centred* coordinates (e, y, 1) with e = W - E[W | Y] and y = Y - E Y,
which are uncorrelated: the exact score is -J e with J = Cov(W | Y)^{-1}, and no term loses digits to the large
part of W that the references explain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from arvdm_theory.information.gaussian import cholesky, condition
from arvdm_theory.laws.states import frame_indices, noisy_covariance
from arvdm_theory.noise import alpha, sigma2
from arvdm_theory.plan.references import Mask
from arvdm_theory.plan.stage import Stage

__all__ = ["AffineMap", "WindowLaw"]


@dataclass(frozen=True)
class AffineMap:
    """An affine map of (W^m, Y) for every reverse step m, in centred coordinates: E e + G y + b.

    Attributes:
        window: E, shape (M, modes, w·d, w·d).
        known: G, shape (M, modes, w·d, y).
        bias: b, shape (M, modes, w·d).
    """

    window: Tensor
    known: Tensor
    bias: Tensor

    def __mul__(self, factor: float | Tensor) -> AffineMap:
        return AffineMap(self.window * factor, self.known * factor, self.bias * factor)

    def __add__(self, other: AffineMap | float | Tensor) -> AffineMap:
        """The sum of two maps, or of a map and a constant in every entry."""
        if not isinstance(other, AffineMap):
            return AffineMap(self.window, self.known, self.bias + other)
        return AffineMap(self.window + other.window, self.known + other.known, self.bias + other.bias)

    def __sub__(self, other: AffineMap) -> AffineMap:
        return self + other * -1.0


@dataclass(frozen=True, eq=False)
class WindowLaw:
    """The true Gaussian law of a window along a stage's grid; M reverse steps, w frames in R^d, y known entries.

    Attributes:
        stage: the stage.
        dim: d.
        action_dim: a, the entries of one action; 0 for a video without actions.
        mean: of the clean window, (modes, w·d).
        covariance: Cov(clean window | Y), (modes, w·d, w·d).
        gain: K, the regression of the clean window on Y, (modes, w·d, y).
        known_mean: E Y, (modes, y); the references' entries are first, then those of the actions of all frames up
            to the window's last.
        known_factor: Cholesky factor of Cov(Y), (modes, y, y).
    """

    stage: Stage
    dim: int
    action_dim: int
    mean: Tensor
    covariance: Tensor
    gain: Tensor
    known_mean: Tensor
    known_factor: Tensor

    @classmethod
    def of(cls, mean: Tensor, covariance: Tensor, dim: int, action_dim: int, stage: Stage) -> WindowLaw:
        """The window's law from the joint one.

        Args:
            mean: of all clean frames up to the window's last, frame-major, and then of their actions,
                (modes, N·d + N·a).
            covariance: (modes, N·d + N·a, N·d + N·a).
            dim: d.
            action_dim: a.
            stage: the stage.
        """
        frames = stage.frames.stop
        index = frame_indices([*stage.frames, *stage.reference_frames], dim)
        index = torch.cat([index, torch.arange(frames * dim, frames * (dim + action_dim))]).to(mean.device)
        size, states = stage.window * dim, stage.window + len(stage.references)
        # Only the references are noised here; the window's own noise is added level by level.
        at = torch.cat([torch.zeros(stage.window, dtype=torch.float64), stage.reference_levels]).to(mean.device)
        joint = covariance[:, index[:, None], index]
        noisy, n = _scaled(at, dim, index), states * dim
        own = noisy_covariance(
            joint[:, :n, :n], at, torch.diag_embed(at), torch.eye(states, dtype=torch.bool, device=at.device)
        )
        joint = noisy[:, None] * noisy * joint
        joint = torch.cat([torch.cat([own, joint[:, :n, n:]], -1), joint[:, n:]], -2)
        gain, left = condition(joint, range(size), range(size, len(index)))
        return cls(
            stage=stage,
            dim=dim,
            action_dim=action_dim,
            mean=mean[:, index[:size]],
            covariance=left,
            gain=gain,
            known_mean=(noisy * mean[:, index])[:, size:],
            known_factor=cholesky(joint[:, size:, size:], "covariance of the references"),
        )

    @cached_property
    def levels(self) -> Tensor:
        """The stage's grid on the video's device, (M + 1, w)."""
        return self.stage.levels.to(self.mean.device)

    @property
    def steps(self) -> int:
        """M, the reverse steps of the stage."""
        return self.stage.steps

    def per_entry(self, per_frame: Tensor) -> Tensor:
        """(..., w) values a frame → (..., 1, w·d) values an entry, ready to broadcast over modes."""
        return per_frame.repeat_interleave(self.dim, -1).unsqueeze(-2)

    def per_frame(self, per_entry: Tensor) -> Tensor:
        """(..., w·d) values an entry → (..., w), summed over the entries of each frame."""
        return per_entry.reshape(*per_entry.shape[:-1], self.stage.window, self.dim).sum(-1)

    def covariance_at(self, levels: Tensor) -> Tensor:
        """Cov(W | Y) at any levels (..., w) → (..., modes, w·d, w·d)."""
        scale, variance = self.per_entry(alpha(levels)), self.per_entry(sigma2(levels))
        return scale.unsqueeze(-1) * scale.unsqueeze(-2) * self.covariance + torch.diag_embed(variance)

    @cached_property
    def factor(self) -> Tensor:
        """Cholesky factors of Cov(W^m | Y), m = 0..M, (M + 1, modes, w·d, w·d)."""
        what = f"covariance of the window {tuple(self.stage.frames)}"
        return cholesky(self.covariance_at(self.levels), what)

    @cached_property
    def precision(self) -> Tensor:
        """J^m, m = 0..M, (M + 1, modes, w·d, w·d)."""
        return torch.cholesky_inverse(self.factor)

    @cached_property
    def _explained(self) -> tuple[Tensor, Tensor]:
        """D_m K and D_m E X, the parts of W^m that Y and the mean give."""
        scale = self.per_entry(alpha(self.levels[:-1]))
        return scale.unsqueeze(-1) * self.gain, scale * self.mean

    @cached_property
    def identity(self) -> AffineMap:
        """The map (W, Y) ↦ W."""
        gain, mean = self._explained
        eye = torch.eye(self.mean.shape[-1], dtype=mean.dtype, device=mean.device)
        return AffineMap(eye.expand(*mean.shape[:2], *eye.shape), gain, mean)

    @cached_property
    def score(self) -> AffineMap:
        """The exact score s*(W, Y) = -J e."""
        gain, mean = self._explained
        return AffineMap(-self.precision[:-1], torch.zeros_like(gain), torch.zeros_like(mean))

    @cached_property
    def near_noise(self) -> AffineMap:
        """The map W + s*(W, Y) = J D (C - I) D e + D (K y + E X), D = diag(α): it vanishes where W is pure noise.

        The sum of the two would be rounding there.
        """
        gain, mean = self._explained
        scale = self.per_entry(alpha(self.levels[:-1]))
        eye = torch.eye(self.mean.shape[-1], dtype=mean.dtype, device=mean.device)
        signal = scale.unsqueeze(-1) * scale.unsqueeze(-2) * (self.covariance - eye)
        return AffineMap(self.precision[:-1] @ signal, gain, mean)

    @cached_property
    def masked_score(self) -> AffineMap:
        """Row j: the exact score of window frame j given only what it sees; the exact score if it sees all."""
        return self._seeing(self.stage.visible, actions=True)

    def exact_map(self, masked: bool, actions: bool) -> AffineMap:
        """The exact score, of what the mask lets each frame see or not, told the actions or not."""
        if actions or not self.action_dim:
            return self.masked_score if masked else self.score
        return self._seeing(self.stage.visible if masked else (None,) * self.steps, actions=False)

    def _seeing(self, visible: tuple[Mask | None, ...], actions: bool) -> AffineMap:
        """s_j = -[Σ_vv^{-1} (v - E v)]_j with v the window frames, references and actions that frame j sees."""
        if actions and all(mask is None for mask in visible):
            return self.score
        gain, mean = self._explained
        joint = self._joint()
        n, d = self.stage.window, self.dim
        shown = n + len(self.stage.references)
        told = torch.arange(shown * d, joint.shape[-1]) if actions else torch.arange(0)
        rows = []
        for m, mask in enumerate(visible):
            table = mask if mask is not None else ((True,) * shown,) * n
            row = torch.zeros_like(joint[m, :, : n * d])
            for j, sees in enumerate(table):
                seen = [a for a, is_seen in enumerate(sees) if is_seen]
                index = torch.cat([frame_indices(seen, d), told]).to(joint.device)
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
        """Cov((W^m, Y)) for m = 0..M-1."""
        gain, _ = self._explained
        half = gain @ self.known_factor
        window = self.covariance_at(self.levels[:-1]) + half @ half.mT
        cross = half @ self.known_factor.mT
        known = (self.known_factor @ self.known_factor.mT).expand(*cross.shape[:2], -1, -1)
        return torch.cat([torch.cat([window, cross], -1), torch.cat([cross.mT, known], -1)], -2)

    def root(self, affine: AffineMap) -> Tensor:
        """B with f = B ξ, ξ = (standard normal, 1): then E⟨f, g⟩_{S^{-1}} = Σ (L^{-1} B_f) ∘ (L^{-1} B_g).

        Shape (M, modes, w·d, w·d + y + 1).
        """
        parts = [affine.window @ self.factor[:-1], affine.known @ self.known_factor, affine.bias.unsqueeze(-1)]
        return torch.cat(parts, -1)

    def raw(self, affine: AffineMap) -> tuple[Tensor, Tensor, Tensor]:
        """(F, G, f) with the map equal to F W + G Y + f in the variables themselves."""
        gain, mean = self._explained
        on_known = affine.known - affine.window @ gain
        bias = (
            affine.bias
            - (affine.window @ mean.unsqueeze(-1)).squeeze(-1)
            - (on_known @ self.known_mean.unsqueeze(-1)).squeeze(-1)
        )
        return affine.window, on_known, bias

    def centred(self, on_window: Tensor, on_known: Tensor, bias: Tensor) -> AffineMap:
        """The inverse of :meth:`raw`."""
        gain, mean = self._explained
        shift = (
            (on_window @ mean.unsqueeze(-1)).squeeze(-1)
            + (on_known @ self.known_mean.unsqueeze(-1)).squeeze(-1)
            + bias
        )
        return AffineMap(on_window, on_window @ gain + on_known, shift)

    def second_moments(self) -> Tensor:
        """E ‖X_j‖² of the clean window frames, (modes, w)."""
        explained = self.gain @ self.known_factor
        diagonal = torch.diagonal(self.covariance, dim1=-2, dim2=-1) + (explained**2).sum(-1) + self.mean**2
        return self.per_frame(diagonal)

    def split(self, known: Tensor) -> tuple[Tensor, Tensor | None]:
        """Known entries (batch, modes, y) as references (batch, modes, r, d) and actions (batch, F, a)."""
        shown = len(self.stage.references)
        references = known[..., : shown * self.dim].reshape(*known.shape[:2], shown, self.dim)
        if not self.action_dim:
            return references, None
        return references, known[:, 0, shown * self.dim :].reshape(len(known), -1, self.action_dim)

    def sampled(self, draw: Callable[[tuple[int, ...]], Tensor], samples: int) -> tuple[Tensor, Tensor]:
        """True windows and what is known beside them, afresh for every reverse step.

        Returns:
            standard normal coordinates with a 1 behind them, (M, modes, w·d + y + 1, samples), and Y,
            (M, modes, y, samples).
        """
        size, known = self.mean.shape[-1], self.known_mean.shape[-1]
        normal = draw((self.steps, self.mean.shape[0], size + known, samples)).to(self.mean.device)
        normal = torch.cat([normal, torch.ones_like(normal[:, :, :1])], -2)
        return normal, self.known_mean.unsqueeze(-1) + self.known_factor @ normal[:, :, size:-1]


def _scaled(at: Tensor, dim: int, index: Tensor) -> Tensor:
    """α of every entry of (window, references, actions): frames at their levels, actions as they are."""
    scale = alpha(at).repeat_interleave(dim)
    return torch.cat([scale, scale.new_ones(len(index) - len(scale))])
