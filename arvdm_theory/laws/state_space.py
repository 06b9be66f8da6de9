"""Linear state spaces: what a video with a finite state says of itself, and Kalman filters as maps of covariances.

    z_{t+1} = A z_t + N(0, Q),    X_t = m + C z_t + N(0, R),    z_1 ~ N(μ, P).

One step of a filter sees x and moves the hidden v to v', (x, v') = (Φ_x, Φ_v) v + N(0, N). The covariance of v
given all that was seen moves by a linear fractional map,

    V ↦ F V (I + J V)^{-1} Fᵀ + G,
    F = Φ_v - N_vx N_xx^{-1} Φ_x,    G = N_vv - N_vx N_xx^{-1} N_xv,    J = Φ_xᵀ N_xx^{-1} Φ_x,

and such maps compose, so that 2^j steps cost j compositions: the Riccati recursion by doubling.

Sources: Anderson and Moore 1979, Optimal Filtering, section 6.7 (doubling); Särkkä and García-Fernández 2021, IEEE
Trans. Automat. Contr. 66(1) (the composition).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from arvdm_theory.information.gaussian import cholesky, condition, whiten
from arvdm_theory.noise import alpha, sigma2

__all__ = ["Affine", "FilterStep", "Riccati", "StateSpace", "repeated", "steps_to_forget"]

# A covariance moves by F V Fᵀ: from here on what it was at first is below a rounding.
_FORGOTTEN = 1e-9
# 2^60 steps: what has not been forgotten by then never will be.
_MOST_DOUBLINGS = 60
# How far A P Aᵀ + Q may be from P, relative to it, in a stationary law: some roundings.
_STATIONARY = 1e-13


@dataclass(frozen=True, eq=False)
class StateSpace:
    """A linear state space of s states and frames in R^d, mode by mode, at one noise level.

    Attributes:
        transition: A, (modes, s, s).
        process_noise: Q, (modes, s, s).
        observation: C, (modes, d, s).
        observation_noise: R, (modes, d, d).
        covariance: P = Cov(z_1), (modes, s, s).
        start: μ = E z_1, (modes, s).
        mean: m, (modes, d).
        stationary: whether the law of the state never changes; None: where A P Aᵀ + Q = P and A μ = μ to rounding.
    """

    transition: Tensor
    process_noise: Tensor
    observation: Tensor
    observation_noise: Tensor
    covariance: Tensor
    start: Tensor
    mean: Tensor
    stationary: bool | None = None

    def __post_init__(self) -> None:
        if self.stationary is None:
            P, A, start = (each.detach() for each in (self.covariance, self.transition, self.start))
            change = (A @ P @ A.mT + self.process_noise.detach() - P).abs()
            moved = ((A @ start.unsqueeze(-1)).squeeze(-1) - start).abs()
            near = change <= _STATIONARY * len(P[0]) * P.abs().amax((-2, -1), keepdim=True)
            still = bool(near.all()) and bool((moved <= _STATIONARY * start.abs()).all())
            object.__setattr__(self, "stationary", still)

    @classmethod
    def separable(
        cls,
        transition: ArrayLike | Tensor,
        process_noise: ArrayLike | Tensor,
        observation: ArrayLike | Tensor,
        observation_noise: ArrayLike | Tensor,
        covariance: ArrayLike | Tensor,
        frame_covariance: Tensor,
    ) -> StateSpace:
        """The stationary one whose frames have the covariance S ⊗ B, S that of a scalar video; mean zero.

        Args:
            transition, process_noise, observation, observation_noise, covariance: A, Q, C, R, P of the scalar one;
                of all modes, or (modes, ...) one a mode.
            frame_covariance: B, (d, d), or (modes, d, d).
        """
        B = frame_covariance.reshape(-1, *frame_covariance.shape[-2:])
        dim, scalar = B.shape[-1], torch.as_tensor(transition)
        modes = max(len(B), len(scalar) if scalar.ndim == 3 else 1)
        eye = torch.eye(dim).to(B)[None]

        def spread(values: ArrayLike | Tensor, by: Tensor) -> Tensor:
            given = values if isinstance(values, Tensor) else torch.tensor(np.array(values, float, ndmin=2))
            matrix = given.to(B).reshape(-1, *given.shape[-2:])
            rows, columns = matrix.shape[-2:]
            both = matrix[:, :, None, :, None] * by[:, None, :, None, :]
            return both.reshape(-1, rows * dim, columns * dim).expand(modes, -1, -1)

        A, C = spread(transition, eye), spread(observation, eye)
        Q, R, P = (spread(each, B) for each in (process_noise, observation_noise, covariance))
        return cls(A, Q, C, R, P, P.new_zeros(P.shape[:2]), P.new_zeros(len(P), dim), stationary=True)

    def to(self, device: torch.device | str | None) -> StateSpace:
        """The same on another device."""
        names = [each.name for each in fields(self) if each.name != "stationary"]
        return replace(self, **{name: getattr(self, name).to(device) for name in names})

    @property
    def states(self) -> int:
        """s."""
        return self.transition.shape[-1]

    @property
    def dim(self) -> int:
        """d."""
        return self.observation.shape[-2]

    def at_level(self, level: Tensor | float) -> StateSpace:
        """The frames' own states at an OU level: α X + σ ε."""
        t = torch.as_tensor(level, dtype=self.mean.dtype, device=self.mean.device)
        eye = torch.eye(self.dim, dtype=self.mean.dtype, device=self.mean.device)
        a = alpha(t)
        noise = a**2 * self.observation_noise + sigma2(t) * eye
        return replace(self, observation=a * self.observation, observation_noise=noise, mean=a * self.mean)

    def power(self, steps: int) -> Tensor:
        """A^n, (modes, s, s)."""
        found: Tensor = torch.linalg.matrix_power(self.transition, steps)
        return found

    def advanced(self, steps: int) -> StateSpace:
        """The same video from its (1 + ``steps``)-th frame on."""
        if self.stationary:
            return self
        mean, covariance = self.start, self.covariance
        for _ in range(steps):
            mean = (self.transition @ mean.unsqueeze(-1)).squeeze(-1)
            covariance = self.predicted(covariance)
        return replace(self, start=mean, covariance=covariance)

    def from_state(self, mean: Tensor, covariance: Tensor) -> StateSpace:
        """The same from another law of the first state."""
        return replace(self, start=mean, covariance=covariance, stationary=None)

    def predicted(self, covariance: Tensor) -> Tensor:
        """A V Aᵀ + Q."""
        moved = self.transition @ covariance @ self.transition.mT + self.process_noise
        return (moved + moved.mT) / 2

    def path(self, steps: int) -> tuple[Tensor, Tensor]:
        """(z_t, ..., z_{t+n}) given z_t: the map on it (modes, (n+1)·s, s) and the covariance of the noise."""
        s = self.states
        rows = [torch.eye(s, dtype=self.mean.dtype, device=self.mean.device).expand_as(self.transition)]
        noise = torch.zeros_like(self.transition)
        for _ in range(steps):
            rows.append(self.transition @ rows[-1])
            across = self.transition @ noise[:, -s:]
            own = self.predicted(noise[:, -s:, -s:])
            noise = torch.cat([torch.cat([noise, across.mT], -1), torch.cat([across, own], -1)], -2)
        return torch.cat(rows, -2), noise

    def frames(self, count: int) -> tuple[Tensor, Tensor]:
        """Frames t, ..., t + n - 1 given z_t, about their mean: the map (modes, n·d, s), Cov of the noise."""
        on, noise = self.path(count - 1)
        see, own = repeated(self.observation, count), repeated(self.observation_noise, count)
        return see @ on, see @ noise @ see.mT + own

    def block(self, count: int) -> FilterStep:
        """The filter's step from z_t over frames t + 1, ..., t + n to z_{t+n}."""
        on, noise = self.path(count)
        s, rows = self.states, count * self.dim
        see = on.new_zeros(len(on), rows + s, (count + 1) * s)
        see[:, :rows, s:] = repeated(self.observation, count)
        see[:, rows:, count * s :] = torch.eye(s, dtype=on.dtype, device=on.device)
        own = see.new_zeros(len(on), rows + s, rows + s)
        own[:, :rows, :rows] = repeated(self.observation_noise, count)
        return FilterStep(see @ on, see @ noise @ see.mT + own, rows)

    def seen(self, covariance: Tensor, observation_noise: Tensor) -> Tensor:
        """Cov(z | a frame), from the covariance before it; the frame seen in noise of the given covariance."""
        half = self.observation @ covariance
        factor = cholesky(half @ self.observation.mT + observation_noise, "covariance of the next frame")
        white = whiten(factor, half)
        return covariance - white.mT @ white

    def filtered(self, frames: int) -> Tensor:
        """Cov(z_n | the first n frames), (modes, s, s), for n ≥ 1."""
        covariance = self.seen(self.covariance, self.observation_noise)
        for _ in range(frames - 1):
            covariance = self.seen(self.predicted(covariance), self.observation_noise)
        return covariance

    def settled(self) -> StateSpace | None:
        """The same from its stationary law, Σ_i A^i Q A^iᵀ; None if there is none that it tends to."""
        if self.stationary:
            return self
        steps, zero = steps_to_forget(self.transition), torch.zeros_like(self.start)
        if steps is None:
            return None
        _, covariance = Affine(self.transition, zero, self.process_noise).over(steps)(zero, self.covariance)
        return replace(self, start=zero, covariance=covariance, stationary=True)

    def unlearnt(self) -> bool:
        """Whether a state that neither dies out nor is driven by noise is random at first.

        What n frames say of it grows like n, so that what stays open of it falls like 1/n at best.
        """
        values, vectors = torch.linalg.eig(self.transition.detach().mT)  # left eigenvectors in columns
        P, Q = (each.detach().to(vectors.dtype) for each in (self.covariance, self.process_noise))

        def along(matrix: Tensor) -> Tensor:
            return torch.einsum("msi,mst,mti->mi", vectors.conj(), matrix, vectors).real

        size = self.covariance.detach().abs().amax((-2, -1))[:, None]
        lasting = values.abs() > 1 - _FORGOTTEN
        return bool((lasting & (along(Q) <= 1e-12 * size) & (along(P) > 1e-12 * size)).any())


@dataclass(frozen=True, eq=False)
class FilterStep:
    """One step of a filter: (x, v') = Φ v + N(0, N), x seen.

    Attributes:
        on: Φ, (..., n_x + n', n).
        noise: N, (..., n_x + n', n_x + n').
        seen: n_x.
    """

    on: Tensor
    noise: Tensor
    seen: int

    def riccati(self) -> Riccati:
        """Its map of covariances.

        Raises:
            NotPositiveDefiniteError: if a part of x has no noise of its own, given v.
        """
        n, size = self.seen, self.noise.shape[-1]
        gain, left = condition(self.noise, range(n, size), range(n))
        white = whiten(cholesky(self.noise[..., :n, :n], "noise of what a filter sees"), self.on[..., :n, :])
        return Riccati(self.on[..., n:, :] - gain @ self.on[..., :n, :], left, white.mT @ white)

    def update(self, covariance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(Cov of x, the gain of v' on x, Cov of v' given x), from Cov(v) before."""
        both = self.on @ covariance @ self.on.mT + self.noise
        gain, left = condition(both, range(self.seen, both.shape[-1]), range(self.seen))
        return both[..., : self.seen, : self.seen], gain, (left + left.mT) / 2


@dataclass(frozen=True, eq=False)
class Riccati:
    """The map V ↦ F V (I + J V)^{-1} Fᵀ + G of a filter over some steps.

    Attributes:
        transfer: F, (..., n, n).
        noise: G.
        information: J.
    """

    transfer: Tensor
    noise: Tensor
    information: Tensor

    def __call__(self, covariance: Tensor) -> Tensor:
        """The covariance after them."""
        moved = self.transfer @ _solved(covariance @ self.information, covariance) @ self.transfer.mT + self.noise
        return (moved + moved.mT) / 2

    def then(self, later: Riccati) -> Riccati:
        """This map and then another."""
        carried = _solved(self.noise @ later.information, torch.cat([self.transfer, self.noise], -1))
        n = self.transfer.shape[-1]
        told = later.information @ carried[..., :n]
        return Riccati(
            later.transfer @ carried[..., :n],
            _symmetric(later.transfer @ carried[..., n:] @ later.transfer.mT + later.noise),
            _symmetric(self.transfer.mT @ told + self.information),
        )

    def limit(self, start: Tensor) -> tuple[Tensor, int] | None:
        """The covariance once nothing is left of the first one, and after how many steps; None if never."""
        fast = self
        for j in range(_MOST_DOUBLINGS):
            if _size(fast.transfer) <= _FORGOTTEN:
                return fast(start), int(2**j)
            fast = fast.then(fast)
        return None

    def sequence(self, start: Tensor, count: int) -> Tensor:
        """The covariance before step 1, 2, ..., (n, ...) with n = ``count``, or fewer: then the last one stays."""
        covariances, fast = start[None], self
        while len(covariances) < count:
            if _size(fast.transfer) <= _FORGOTTEN:
                return torch.cat([covariances, fast(covariances[-1:])])
            covariances = torch.cat([covariances, fast(covariances)])[:count]
            fast = fast.then(fast)
        return covariances


@dataclass(frozen=True, eq=False)
class Affine:
    """The random map h ↦ F h + c + N(0, N) over some steps.

    Attributes:
        on: F, (..., n, n).
        constant: c, (..., n).
        noise: N, (..., n, n).
    """

    on: Tensor
    constant: Tensor
    noise: Tensor

    def __call__(self, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and covariance of what comes of them."""
        moved = self.on @ covariance @ self.on.mT + self.noise
        return (self.on @ mean.unsqueeze(-1)).squeeze(-1) + self.constant, (moved + moved.mT) / 2

    def twice(self) -> Affine:
        """The map over twice as many steps."""
        return Affine(self.on @ self.on, *self(self.constant, self.noise))

    def over(self, steps: int) -> Affine:
        """The map over at least ``steps`` steps: their next power of two."""
        found = self
        for _ in range((steps - 1).bit_length()):
            found = found.twice()
        return found


def steps_to_forget(transfer: Tensor) -> int | None:
    """The first power of two of steps after which h ↦ F h has nothing left of h; None if that never happens."""
    fast = transfer.detach()
    for j in range(_MOST_DOUBLINGS):
        size = _size(fast)
        if size <= _FORGOTTEN:
            return int(2**j)
        if not size < 1e150:
            return None
        fast = fast @ fast
    return None


def _solved(product: Tensor, right: Tensor) -> Tensor:
    """(I + V J)^{-1} B for covariances V and J, whose product has no negative eigenvalue."""
    eye = torch.eye(product.shape[-1], dtype=product.dtype, device=product.device)
    found: Tensor = torch.linalg.solve(eye + product, right)
    return found


def _symmetric(matrix: Tensor) -> Tensor:
    return (matrix + matrix.mT) / 2


def _size(matrix: Tensor) -> float:
    """The largest Frobenius norm of a mode; 0 of matrices without entries."""
    return float(torch.linalg.matrix_norm(matrix.detach()).max()) if matrix.numel() else 0.0


def repeated(block: Tensor, count: int) -> Tensor:
    """Block-diagonal, the same block ``count`` times, (modes, n·a, n·b)."""
    eye = torch.eye(count, dtype=block.dtype, device=block.device)
    modes, a, b = block.shape
    return torch.einsum("ij,mab->miajb", eye, block).reshape(modes, count * a, count * b)
