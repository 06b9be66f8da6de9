"""Stationary temporal models from short segments: a multichannel lattice, shrinkage, and exact densities.

A model is the autocovariance Γ(0..p), Γ(l) = Cov(x_{t+l}, x_t), of a vector sequence x_t ∈ R^K; beyond lag p
it goes on as the autoregression of order p that it defines (the maximum-entropy extension). If the block
Toeplitz matrix of Γ(0..p) is positive definite, so is that of any number of frames. Everything here runs
through the partial correlations P_1..P_p, which may be *any* matrices with singular values below 1:

    Γ(k) = L_{k-1} P_k M_{k-1}^T + Σ_i A_i Γ(k-i),     L_k L_k^T = L_{k-1} (I - P_k P_k^T) L_{k-1}^T,

L and M being Cholesky factors of the errors of predicting forwards and backwards.

Coordinates that are unrelated to one another, Γ(l) diagonal, are taken as K scalar sequences at once: arrays of
coefficients have axes (lag, block, k, k), K blocks of 1 x 1 there and one of K x K otherwise.

Sources: Whittle 1963 (the recursion); Morf, Vieira, Lee and Kailath 1978 (partial correlations from a
segment's own prediction errors).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from arvdm_theory.information.gaussian import NotPositiveDefiniteError
from arvdm_theory.laws.state_space import StateSpace

__all__ = [
    "MIN_WHITE",
    "Predictor",
    "blocks",
    "companion",
    "extend",
    "joined",
    "lattice_autocovariance",
    "log_densities",
    "predictors",
    "residuals",
    "shrink",
]

Array = NDArray[np.float64]

# The share of white noise that every model keeps at least. It bounds the condition number of T frames by the
# spectrum's peak over 1e-6 of a variance (1e9 for 200 smooth frames), which float64 can factor.
MIN_WHITE = 1e-6
# Far below MIN_WHITE, so that it decides nothing but keeps every factor of a degenerate segment finite.
_RIDGE = 1e-8


@dataclass(frozen=True)
class Predictor:
    """The best linear prediction from k neighbours.

    x_t is predicted as Σ_i forward[i] x_{t-1-i}, and x_{t-k} as Σ_i backward[i] x_{t-k+1+i}.

    Attributes:
        forward: A, shape (k, ..., K, K).
        backward: B, shape (k, ..., K, K).
        forward_factor: L, the lower Cholesky factor of the forward error's covariance, (..., K, K).
        backward_factor: M, the same backwards.
    """

    forward: Array
    backward: Array
    forward_factor: Array
    backward_factor: Array

    def longer(self, partial: Array) -> Predictor:
        """The predictor from k + 1 neighbours, given the partial correlation P of the two errors.

        Raises:
            NotPositiveDefiniteError: if P is no contraction.
        """
        eye = np.eye(partial.shape[-1])
        try:
            left = np.linalg.cholesky(eye - partial @ partial.mT)
            right = np.linalg.cholesky(eye - partial.mT @ partial)
        except np.linalg.LinAlgError:
            largest = float(np.linalg.norm(partial, 2, axis=(-2, -1)).max())
            raise NotPositiveDefiniteError(
                f"the autocovariance is not positive definite: a partial correlation of {largest:.12g} at lag "
                f"{len(self.forward) + 1}"
            ) from None
        ahead = self.forward_factor @ _right_solve(partial, self.backward_factor)
        back = self.backward_factor @ _right_solve(partial.mT, self.forward_factor)
        return Predictor(
            np.concatenate([self.forward - ahead @ self.backward[::-1], ahead[None]]),
            np.concatenate([self.backward - back @ self.forward[::-1], back[None]]),
            self.forward_factor @ left,
            self.backward_factor @ right,
        )

    def ahead(self, gamma: Array) -> Array:
        """Γ(k+1) as this predictor foresees it from the last k of the given lags: Σ_i A_i Γ(k-i)."""
        total: Array = (self.forward @ gamma[::-1][: len(self.forward)]).sum(0)
        return total

    def errors(self, ahead: Array, back: Array) -> tuple[Array, Array]:
        """Its forward and backward errors, (frames - 1, ..., K), from those of the predictor before it."""
        return (
            ahead[1:] - _applied(self.forward[-1], back[:-1]),
            back[:-1] - _applied(self.backward[-1], ahead[1:]),
        )


def blocks(gamma: Array) -> Array:
    """Γ(0..p) as (p + 1, blocks, k, k): K scalar blocks where all are diagonal, else one."""
    size = gamma.shape[-1]
    diagonal = np.diagonal(gamma, axis1=1, axis2=2)
    if size > 1 and np.count_nonzero(gamma) == np.count_nonzero(diagonal):
        return diagonal[..., None, None].copy()
    return gamma[:, None]


def joined(parts: Array) -> Array:
    """The reverse of :func:`blocks`."""
    if parts.shape[1] == 1:
        return parts[:, 0]
    out = np.zeros((len(parts), parts.shape[1], parts.shape[1]))
    index = np.arange(parts.shape[1])
    out[:, index, index] = parts[..., 0, 0]
    return out


def lattice_autocovariance(
    segments: Sequence[Array], order: int, variance: Array | None = None, unrelated: bool = False
) -> Array:
    """Γ(0..order) from segments of a zero-mean sequence, by the multichannel lattice.

    Γ(0) is the mean of x x^T; the partial correlation P_k is that of the segments' own forward and backward
    prediction errors, which cover only frames that exist. So a short segment is not tapered at its ends, as
    it is in the Yule-Walker estimate, whose Γ(l) carry a factor 1 - l/T that is ruinous for smooth videos.
    P_k is a contraction by construction: the result is always a valid autocovariance.

    Args:
        segments: each (frames, K); no pair of frames is taken across segments.
        order: p ≥ 0.
        variance: (K,), the scale of each coordinate for the ridge of 1e-8 that keeps degenerate segments
            finite; the segments' own mean squares if left out.
        unrelated: take each coordinate alone: Γ(l) is diagonal.

    Returns:
        shape (order + 1, K, K). Where the past already predicts a coordinate up to the ridge, P_k = 0 from
        then on.

    Raises:
        ValueError: if the order is negative, or a coordinate has no variance.
    """
    if order < 0:
        raise ValueError(f"the order must not be negative, got {order}")
    stacked = np.concatenate(list(segments))
    scale = (stacked**2).mean(0) if variance is None else variance
    if not (scale > 0).all():
        raise ValueError("a coordinate is zero in every frame: its autocovariance cannot be estimated")
    shape = (-1, 1) if unrelated else (1, stacked.shape[1])
    scale = scale.reshape(shape)
    whole = _split(stacked, scale)
    ridge = _RIDGE * scale[..., None] * np.eye(scale.shape[-1])
    gamma: Array = (_moment(whole, whole) / len(whole) + ridge)[None]
    predictor = _from_present(gamma[0])
    errors = [(_split(segment, scale),) * 2 for segment in segments]
    for _ in range(order):
        partial = _partial_correlation(errors, predictor, scale)
        lag = predictor.ahead(gamma) + predictor.forward_factor @ partial @ predictor.backward_factor.mT
        gamma = np.concatenate([gamma, lag[None]])
        predictor = predictor.longer(partial)
        errors = [predictor.errors(*pair) for pair in errors if len(pair[0]) > 1]
    return joined(gamma)


def predictors(gamma: Array) -> Iterator[Predictor]:
    """The predictors of orders 0..p of Γ(0..p), (p + 1, ..., K, K) (Whittle's recursion).

    Raises:
        NotPositiveDefiniteError: if the block Toeplitz matrix of Γ(0..p) is not positive definite.
    """
    last = _from_present(gamma[0])
    yield last
    for k in range(1, len(gamma)):
        surprise = gamma[k] - last.ahead(gamma[:k])
        half = np.linalg.solve(last.forward_factor, surprise)
        last = last.longer(_right_solve(half, last.backward_factor.mT))
        yield last


def extend(gamma: Array, lags: int) -> Array:
    """Γ(0..lags-1): the given ones, and beyond lag p the autoregression Γ(l) = Σ_i A_i Γ(l-i).

    Raises:
        NotPositiveDefiniteError: if the block Toeplitz matrix of Γ(0..p) is not positive definite.
    """
    given = blocks(gamma)
    out = np.concatenate([given[:lags], np.zeros((max(lags - len(given), 0), *given[0].shape))])
    if lags > len(given):
        *_, last = predictors(given)
        for lag in range(len(given), lags):
            out[lag] = last.ahead(out[:lag])
    return joined(out)


def residuals(steps: Iterable[Predictor], segment: Array) -> Iterator[tuple[Predictor, Array, Array]]:
    """Each predictor that a segment (frames, K) reaches, and its forward and backward errors.

    The errors of order q have shape (frames - q, blocks, k).
    """
    for q, step in enumerate(steps):
        if q == 0:
            ahead = back = _split(segment, step.forward_factor[..., 0])
        elif len(ahead) < 2:
            return
        else:
            ahead, back = step.errors(ahead, back)
        yield step, ahead, back


def companion(gamma: Array) -> StateSpace:
    """The model as a linear state space: (x_t, ..., x_{t-p+1}) moves by the companion matrix.

    Source: Lütkepohl 2005, New Introduction to Multiple Time Series Analysis, section 2.1.
    """
    *_, last = predictors(gamma)
    dim, order = gamma.shape[-1], max(len(last.forward), 1)
    A = np.eye(order * dim, k=-dim)
    A[:dim] = np.concatenate([*last.forward], 1) if len(last.forward) else 0.0
    Q = np.zeros_like(A)
    Q[:dim, :dim] = last.forward_factor @ last.forward_factor.T
    # Cov(x_{t-i}, x_{t-j}) = Γ(j - i).
    P = np.block([[gamma[j - i] if j >= i else gamma[i - j].T for j in range(order)] for i in range(order)])
    parts = (torch.from_numpy(each)[None] for each in (A, Q, np.eye(dim, len(A)), P))
    transition, noise, see, covariance = parts
    still, zero = see.new_zeros(1, dim, dim), see.new_zeros(1, len(A))
    return StateSpace(transition, noise, see, still, covariance, zero, still[..., 0], stationary=True)


def log_densities(gamma: Array | Sequence[Predictor], segment: Array) -> Array:
    """Exact Gaussian log-densities, in nats, of a whole segment under the models Γ(0..q) for q = 0..p.

    log p(x_1..x_T) = Σ_t log N(x_t; the prediction from min(t - 1, q) past frames, its error covariance).

    Args:
        gamma: Γ(0..p); or the predictors of its :func:`blocks`, to save them being made again.
        segment: shape (frames, K).

    Returns:
        shape (p + 1,); the last entry is the model's own.

    Raises:
        NotPositiveDefiniteError: if the block Toeplitz matrix of Γ(0..p) is not positive definite.
    """
    steps = predictors(blocks(gamma)) if isinstance(gamma, np.ndarray) else gamma
    total = np.zeros(len(gamma))
    opening = 0.0  # the frames that have fewer than q frames before them
    for q, (step, error, _) in enumerate(residuals(steps, segment)):
        log_scale = np.log(np.diagonal(step.forward_factor, axis1=-2, axis2=-1)).sum()
        square = (_whitened(step.forward_factor, error) ** 2).sum((1, 2))
        each = -0.5 * square - log_scale - 0.5 * segment.shape[1] * np.log(2 * np.pi)
        total[q] = opening + each.sum()
        opening += each[0]
    total[len(segment) :] = opening
    return total


def shrink(gamma: Array, cross: float, white: float, variance: Array) -> Array:
    """(1-λ) [(1-μ) Γ(l) + μ diag Γ(l)] + λ 1[l=0] diag(v): towards unrelated coordinates, and white noise.

    All three are autocovariances, so the convex combination is one. Its p + 1 frames have every eigenvalue, and
    every prediction error a covariance, of at least λ times that of diag(v); so for λ > 0 any number of frames
    is positive definite.

    Args:
        gamma: Γ(0..p).
        cross: μ ∈ [0, 1].
        white: λ ∈ [0, 1].
        variance: v > 0, shape (K,).
    """
    if not (0 <= cross <= 1 and 0 <= white <= 1):
        raise ValueError(f"shrinkage weights lie in [0, 1], got {cross} and {white}")
    diagonal = gamma * np.eye(gamma.shape[-1])
    out: Array = (1 - white) * ((1 - cross) * gamma + cross * diagonal)
    out[0] += white * np.diag(variance)
    return out


def _from_present(covariance: Array) -> Predictor:
    """The predictor from no neighbours at all."""
    try:
        factor = np.asarray(np.linalg.cholesky(covariance), dtype=np.float64)
    except np.linalg.LinAlgError:
        smallest = float(np.linalg.eigvalsh(covariance).min())
        raise NotPositiveDefiniteError(
            f"the covariance of a frame is not positive definite: its smallest eigenvalue is {smallest:.3e}"
        ) from None
    empty = np.zeros((0, *covariance.shape))
    return Predictor(empty, empty, factor, factor)


def _partial_correlation(errors: Sequence[tuple[Array, Array]], predictor: Predictor, scale: Array) -> Array:
    """P of the prediction errors of a frame and of the one before all that predict it; (blocks, k, k)."""
    pairs = [(ahead[1:], back[:-1]) for ahead, back in errors if len(ahead) > 1]
    if not pairs:
        return np.zeros_like(predictor.forward_factor)
    spent = np.zeros(len(scale), dtype=bool)
    for factor in (predictor.forward_factor, predictor.backward_factor):
        spent |= (np.diagonal(factor, axis1=-2, axis2=-1) ** 2 < 10 * _RIDGE * scale).any(-1)
    ahead = _whitened(predictor.forward_factor, np.concatenate([a for a, _ in pairs]))
    back = _whitened(predictor.backward_factor, np.concatenate([b for _, b in pairs]))
    count, ridge = len(ahead), _RIDGE * np.eye(scale.shape[-1])
    left = np.linalg.cholesky(_moment(ahead, ahead) / count + ridge)
    right = np.linalg.cholesky(_moment(back, back) / count + ridge)
    partial = _right_solve(np.linalg.solve(left, _moment(ahead, back) / count), right.mT)
    partial[spent] = 0.0
    return partial


def _split(segment: Array, like: Array) -> Array:
    """(frames, K) as (frames, blocks, k)."""
    return segment.reshape(len(segment), *like.shape)


def _applied(matrix: Array, vectors: Array) -> Array:
    """A v for vectors (frames, blocks, k) and matrices (blocks, k, k)."""
    moved: Array = (vectors.swapaxes(0, 1) @ matrix.mT).swapaxes(0, 1)
    return moved


def _whitened(factor: Array, vectors: Array) -> Array:
    """F^{-1} v for vectors (frames, blocks, k)."""
    white = np.linalg.solve(factor, vectors.transpose(1, 2, 0)).transpose(2, 0, 1)
    return np.asarray(white, dtype=np.float64)


def _moment(first: Array, second: Array) -> Array:
    """Σ_t x_t y_tᵀ, (blocks, k, k)."""
    moment: Array = first.transpose(1, 2, 0) @ second.swapaxes(0, 1)
    return moment


def _right_solve(matrix: Any, factor: Any) -> Array:
    """A F^{-1}."""
    return np.asarray(np.linalg.solve(factor.mT, matrix.mT).mT, dtype=np.float64)
