"""Stationary temporal models from short segments: a multichannel lattice, shrinkage, and exact densities.

A model is the autocovariance Γ(0..p), Γ(l) = Cov(x_{t+l}, x_t), of a vector sequence x_t ∈ R^K; beyond lag p
it goes on as the autoregression of order p that it defines (the maximum-entropy extension). If the block
Toeplitz matrix of Γ(0..p) is positive definite, so is that of any number of frames. Everything here runs
through the partial correlations P_1..P_p, which may be *any* matrices with singular values below 1:

    Γ(k) = L_{k-1} P_k M_{k-1}^T + Σ_i A_i Γ(k-i),     L_k L_k^T = L_{k-1} (I - P_k P_k^T) L_{k-1}^T,

L and M being Cholesky factors of the errors of predicting forwards and backwards.

Sources: Whittle 1963 (the recursion); Morf, Vieira, Lee and Kailath 1978 (partial correlations from a
segment's own prediction errors).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from arvdm_theory.information.gaussian import NotPositiveDefiniteError
from arvdm_theory.laws.state_space import StateSpace

__all__ = [
    "MIN_WHITE",
    "Choice",
    "Predictor",
    "choose",
    "companion",
    "extend",
    "lattice_autocovariance",
    "log_densities",
    "predictors",
    "shrink",
]

Array = NDArray[np.float64]

MAX_ORDER = 8
# The share of white noise that every model keeps at least. It bounds the condition number of T frames by the
# spectrum's peak over 1e-6 of a variance (1e9 for 200 smooth frames), which float64 can factor.
MIN_WHITE = 1e-6
_WHITES = (MIN_WHITE, 1e-5, 1e-4, 1e-3, 1e-2)
_CROSSES = (0.0, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
_FOLDS = 5
# Far below MIN_WHITE, so that it decides nothing but keeps every factor of a degenerate segment finite.
_RIDGE = 1e-8


@dataclass(frozen=True)
class Predictor:
    """The best linear prediction from k neighbours.

    x_t is predicted as Σ_i forward[i] x_{t-1-i}, and x_{t-k} as Σ_i backward[i] x_{t-k+1+i}.

    Attributes:
        forward: A, shape (k, K, K).
        backward: B, shape (k, K, K).
        forward_factor: L, the lower Cholesky factor of the forward error's covariance, (K, K).
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
        eye = np.eye(len(partial))
        try:
            left = np.linalg.cholesky(eye - partial @ partial.T)
            right = np.linalg.cholesky(eye - partial.T @ partial)
        except np.linalg.LinAlgError:
            largest = float(np.linalg.norm(partial, 2))
            raise NotPositiveDefiniteError(
                f"the autocovariance is not positive definite: a partial correlation of {largest:.12g} at lag "
                f"{len(self.forward) + 1}"
            ) from None
        ahead = self.forward_factor @ _right_solve(partial, self.backward_factor)
        back = self.backward_factor @ _right_solve(partial.T, self.forward_factor)
        return Predictor(
            np.concatenate([self.forward - ahead @ self.backward[::-1], ahead[None]]),
            np.concatenate([self.backward - back @ self.forward[::-1], back[None]]),
            self.forward_factor @ left,
            self.backward_factor @ right,
        )

    def ahead(self, gamma: Array) -> Array:
        """Γ(k+1) as this predictor foresees it from the last k of the given lags: Σ_i A_i Γ(k-i)."""
        total: Array = np.einsum("iab,ibc->ac", self.forward, gamma[::-1][: len(self.forward)])
        return total


def lattice_autocovariance(segments: Sequence[Array], order: int, variance: Array | None = None) -> Array:
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
    gamma: Array = (stacked.T @ stacked / len(stacked) + np.diag(_RIDGE * scale))[None]
    predictor = _from_present(gamma[0])
    for k in range(1, order + 1):
        partial = _partial_correlation(segments, predictor, k, scale)
        lag = predictor.ahead(gamma) + predictor.forward_factor @ partial @ predictor.backward_factor.T
        gamma = np.concatenate([gamma, lag[None]])
        predictor = predictor.longer(partial)
    return gamma


def predictors(gamma: Array) -> list[Predictor]:
    """The predictors of orders 0..p of Γ(0..p) (Whittle's recursion).

    Raises:
        NotPositiveDefiniteError: if the block Toeplitz matrix of Γ(0..p) is not positive definite.
    """
    steps = [_from_present(gamma[0])]
    for k in range(1, len(gamma)):
        last = steps[-1]
        surprise = gamma[k] - last.ahead(gamma[:k])
        half = solve_triangular(last.forward_factor, surprise, lower=True)
        steps.append(last.longer(solve_triangular(last.backward_factor, half.T, lower=True).T))
    return steps


def extend(gamma: Array, lags: int) -> Array:
    """Γ(0..lags-1): the given ones, and beyond lag p the autoregression Γ(l) = Σ_i A_i Γ(l-i).

    Raises:
        NotPositiveDefiniteError: if the block Toeplitz matrix of Γ(0..p) is not positive definite.
    """
    out = np.concatenate([gamma[:lags], np.zeros((max(lags - len(gamma), 0), *gamma[0].shape))])
    if lags > len(gamma):
        last = predictors(gamma)[-1]
        for lag in range(len(gamma), lags):
            out[lag] = last.ahead(out[:lag])
    return out


def companion(gamma: Array) -> StateSpace:
    """The model as a linear state space: (x_t, ..., x_{t-p+1}) moves by the companion matrix.

    Source: Lütkepohl 2005, New Introduction to Multiple Time Series Analysis, section 2.1.
    """
    last, dim = predictors(gamma)[-1], gamma.shape[-1]
    order = max(len(last.forward), 1)
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


def log_densities(gamma: Array, segment: Array) -> Array:
    """Exact Gaussian log-densities, in nats, of a whole segment under the models Γ(0..q) for q = 0..p.

    log p(x_1..x_T) = Σ_t log N(x_t; the prediction from min(t - 1, q) past frames, its error covariance).

    Args:
        gamma: Γ(0..p).
        segment: shape (frames, K).

    Returns:
        shape (p + 1,); the last entry is the model's own.

    Raises:
        NotPositiveDefiniteError: if the block Toeplitz matrix of Γ(0..p) is not positive definite.
    """
    return _log_densities(predictors(gamma), segment)


def _log_densities(steps: Sequence[Predictor], segment: Array) -> Array:
    total = np.zeros(len(steps))
    opening = 0.0  # the frames that have fewer than q frames before them
    for q, step in enumerate(steps):
        if q >= len(segment):
            total[q] = opening
            continue
        error = segment[q:].copy()
        for i in range(q):
            error -= segment[q - 1 - i : len(segment) - 1 - i] @ step.forward[i].T
        white = solve_triangular(step.forward_factor, error.T, lower=True)
        log_scale = np.log(np.diag(step.forward_factor)).sum() + 0.5 * segment.shape[1] * np.log(2 * np.pi)
        each = -0.5 * (white**2).sum(0) - log_scale
        total[q] = opening + each.sum()
        opening += each[0]
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


@dataclass(frozen=True)
class Choice:
    """What cross-validation chose.

    Attributes:
        order: p.
        cross: the weight μ of unrelated coordinates.
        white: the weight λ of white noise.
        score: the left-out log-density per frame, in nats; None if the segments were too short to leave any
            out, and the strongest shrinkage was taken instead.
    """

    order: int
    cross: float
    white: float
    score: float | None


def choose(segments: Sequence[Array], variance: Array, order: int | None = None) -> Choice:
    """Order and shrinkage with the best log-density on segments left out in turn (at most 5 folds).

    One or two segments are cut into ten pieces each first, so that what a fold leaves out lies spread over the
    clip; neighbouring pieces are dependent, and the score then flatters the model. The grid: orders 1..8 (or
    the given one) as far as the longest piece reaches, 7 values of μ from 0 to 1, and λ from 1e-6 to 1e-2.
    Ties go to the lower order.

    Raises:
        ValueError: if the given order is below 1 or the segments are too short for it.
    """
    longest = max(len(segment) for segment in segments)
    if order is not None and not 1 <= order < longest:
        raise ValueError(
            f"the order must be from 1 to {longest - 1} for a longest training segment of {longest} frames, "
            f"got {order}"
        )
    pieces = list(segments)
    if len(pieces) < 3:
        pieces = [piece for segment in segments for piece in np.array_split(segment, 2 * _FOLDS)]
        pieces = [piece for piece in pieces if len(piece)]
    folds = min(_FOLDS, len(pieces))
    reach = max(len(piece) for piece in pieces) - 1
    top = min(MAX_ORDER, reach) if order is None else order
    if reach < 2 or top > reach:
        return Choice(order or 1, _CROSSES[-1], _WHITES[-1], None)
    frames = sum(len(piece) for piece in pieces)
    totals = {(cross, white): np.zeros(top + 1) for cross in _CROSSES for white in _WHITES}
    for fold in range(folds):
        rest = [piece for i, piece in enumerate(pieces) if i % folds != fold]
        gamma = lattice_autocovariance(rest, top, variance)
        for weights, total in totals.items():
            steps = predictors(shrink(gamma, *weights, variance))
            for piece in pieces[fold::folds]:
                total += _log_densities(steps, piece)
    orders = range(1, top + 1) if order is None else [order]
    candidates = ((float(total[p]) / frames, p, weights) for p in orders for weights, total in totals.items())
    score, best, (cross, white) = max(candidates, key=lambda candidate: candidate[0])
    return Choice(best, cross, white, score)


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


def _partial_correlation(segments: Sequence[Array], predictor: Predictor, k: int, scale: Array) -> Array:
    """P_k of the prediction errors from the k - 1 frames between a frame and the one k before it."""
    size = len(scale)
    pairs = [pair for segment in segments for pair in _errors(segment, predictor, k)]
    exhausted = min(
        (np.diag(predictor.forward_factor) ** 2 / scale).min(),
        (np.diag(predictor.backward_factor) ** 2 / scale).min(),
    )
    if not pairs or exhausted < 10 * _RIDGE:
        return np.zeros((size, size))
    ahead = solve_triangular(predictor.forward_factor, np.concatenate([a for a, _ in pairs]).T, lower=True)
    back = solve_triangular(predictor.backward_factor, np.concatenate([b for _, b in pairs]).T, lower=True)
    count, ridge = ahead.shape[1], _RIDGE * np.eye(size)
    left = np.linalg.cholesky(ahead @ ahead.T / count + ridge)
    right = np.linalg.cholesky(back @ back.T / count + ridge)
    half = solve_triangular(left, ahead @ back.T / count, lower=True)
    partial: Array = solve_triangular(right, half.T, lower=True).T
    return partial


def _errors(segment: Array, predictor: Predictor, k: int) -> Iterator[tuple[Array, Array]]:
    """Forward errors at t and backward errors at t - k, over the frames t = k..T-1 of a segment."""
    count = len(segment) - k
    if count < 1:
        return
    ahead, back = segment[k:].copy(), segment[:count].copy()
    for i in range(k - 1):
        ahead -= segment[k - 1 - i : k - 1 - i + count] @ predictor.forward[i].T
        back -= segment[1 + i : 1 + i + count] @ predictor.backward[i].T
    yield ahead, back


def _right_solve(matrix: Array, factor: Array) -> Array:
    """A F^{-1} for a lower triangular F."""
    solution: Array = solve_triangular(factor, matrix.T, lower=True, trans="T").T
    return solution
