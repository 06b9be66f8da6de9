"""Memory beyond the order of an autoregression: a tail of its partial correlations.

Of a stationary sequence the partial correlations P_1, P_2, ... may be any contractions, so a model of them is
always a valid law. Beyond the p that an autoregression has, they fall off in the coordinates of the errors
whitened by symmetric roots, coordinate i by itself, as

    ρ_{p+1+j} = a_i r^j / (1 + s j),      j = 0, 1, ..., q - p - 1.

That is exact for fractional noise (1 - B)^{-d}, whose k-th partial correlation is d/(k - d) (r = 1), and for a
level that is constant in white noise, 1/(k + n) (r = 1); a first-order moving average, and with it the sum of a
slow auto-regression and noise, has r below 1 and s = 0 but for terms r^{2j}. With a = 0 the autoregression ends
at p.

The tail is fitted to the sample partial correlations by least squares, weighted by the number of pairs of frames
(their variance is one over it: Quenouille 1947), and the a_i are drawn towards their mean as far as they differ no
more than by chance (James and Stein 1961).

Sources: Hosking 1981, Biometrika 68(1), theorem 1 (fractional differencing); Barndorff-Nielsen and Schou 1973,
J. Multivariate Anal. 3 (autoregressions by their partial correlations).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from arvdm_theory.laws.autoregression import Array, Predictor, blocks, joined, predictors, residuals

__all__ = ["Errors", "Tail", "fit_tail", "tail_gain", "whitened_errors", "with_tail"]

_DECAYS = (0.5, 0.7, 0.85, 0.93, 0.97, 1.0)
_BENDS = (0.0, 0.1, 0.3, 1.0)
# No partial correlation is larger, and together they leave about e^-1 of the innovation's variance at least: a
# tail that would explain more stands for a head that is too short.
_LARGEST = 0.9

Errors = tuple[Array, Array]
"""Whitened forward and backward errors of n segments of one length, (frames - p, n, K) each."""


@dataclass(frozen=True, eq=False)
class Tail:
    """Partial correlations a_i r^j/(1 + s j), j counted from the first lag of the tail.

    Attributes:
        strength: a, (K,).
        decay: r in (0, 1].
        bend: s ≥ 0.
    """

    strength: Array
    decay: float
    bend: float

    def partials(self, lags: int) -> Array:
        """(lags, K)."""
        values: Array = _shape(self.decay, self.bend, lags)[:, None] * self.strength
        return values


def _shape(decay: float, bend: float, lags: int) -> Array:
    j = np.arange(lags, dtype=np.float64)
    shape: Array = decay**j / (1 + bend * j)
    return shape


def with_tail(gamma: Array, tail: Tail, lags: int) -> Array:
    """Γ(0..q), q = ``lags``: the given Γ(0..p), and the tail's beyond.

    Raises:
        NotPositiveDefiniteError: if the block Toeplitz matrix of Γ(0..p) is not positive definite.
    """
    out = blocks(gamma)
    *_, step = predictors(out)
    ahead, back = _root(step.forward_factor), _root(step.backward_factor)
    for partial in tail.partials(lags + 1 - len(gamma)):
        rho = partial.reshape(ahead.shape[:-1])
        correlation = np.linalg.solve(step.forward_factor, ahead * rho[:, None])
        correlation = correlation @ np.linalg.solve(step.backward_factor, back).mT
        out = np.concatenate([out, (step.ahead(out) + (ahead * rho[:, None]) @ back.mT)[None]])
        step = step.longer(correlation)
        left = np.sqrt(1 - rho**2)[:, None]
        ahead, back = ahead * left, back * left
    return joined(out)


def whitened_errors(steps: Sequence[Predictor], segments: Sequence[Array]) -> list[Errors]:
    """The errors of the last of the predictors, whitened by symmetric roots; segments of one length together.

    Segments that leave fewer than two errors are left out.
    """
    by_length: dict[int, list[Any]] = {}
    roots = _root(steps[-1].forward_factor), _root(steps[-1].backward_factor)
    for segment in segments:
        if len(segment) > len(steps):
            *_, (_, ahead, back) = residuals(steps, segment)
            pair = tuple(
                np.linalg.solve(root, error.transpose(1, 2, 0)).transpose(2, 0, 1).reshape(len(error), -1)
                for error, root in zip((ahead, back), roots, strict=True)
            )
            by_length.setdefault(len(segment), []).append(pair)
    return [
        (np.stack([a for a, _ in pairs], 1), np.stack([b for _, b in pairs], 1)) for pairs in by_length.values()
    ]


def fit_tail(errors: Sequence[Errors], lags: int) -> Tail:
    """The tail of so many lags that fits the partial correlations of the errors best.

    Args:
        errors: :func:`whitened_errors` of segments.
        lags: q - p ≥ 1.
    """
    found, count = _sample(errors, lags, None)
    tail = _least_squares(found, count)
    # A lattice of some hundred noisy correlations blurs the errors of later lags; that of a tail does not.
    return _least_squares(*_sample(errors, lags, tail))


def tail_gain(tail: Tail, lags: int, errors: Errors) -> Array:
    """Log-density of segments with the tail, minus that of the autoregression without, in nats, (n,)."""
    ahead, back = errors
    gain = 0.5 * (ahead[1:] ** 2).sum((0, 2))
    scale = 0.0
    for rho in tail.partials(min(lags, len(ahead) - 1)):
        left = np.sqrt(1 - rho**2)
        ahead, back = (ahead[1:] - rho * back[:-1]) / left, (back[:-1] - rho * ahead[1:]) / left
        scale += float(np.log(left).sum())
        gain -= 0.5 * (ahead[0] ** 2).sum(-1) + scale
    left_over: Array = gain - 0.5 * (ahead[1:] ** 2).sum((0, 2)) - scale * (len(ahead) - 1)
    return left_over


def _sample(errors: Sequence[Errors], lags: int, tail: Tail | None) -> tuple[Array, Array]:
    """Sample partial correlations (lags, K) and the number of pairs behind them (lags,).

    The lattice goes on with them, or with a tail's.
    """
    size = errors[0][0].shape[-1]
    found, count = np.zeros((lags, size)), np.zeros(lags)
    known = None if tail is None else tail.partials(lags)
    current = list(errors)
    for j in range(lags):
        current = [(ahead[1:], back[:-1]) for ahead, back in current if len(ahead) > 1]
        if not current:
            break
        both, first, second = (np.zeros(size) for _ in range(3))
        for a, b in current:
            both += np.einsum("tnk,tnk->k", a, b)
            first += np.einsum("tnk,tnk->k", a, a)
            second += np.einsum("tnk,tnk->k", b, b)
            count[j] += a.shape[0] * a.shape[1]
        found[j] = both / np.maximum(np.sqrt(first * second), np.finfo(float).tiny)
        rho = np.clip(found[j], -_LARGEST, _LARGEST) if known is None else known[j]
        left = 1 / np.sqrt(1 - rho**2)
        current = [((a - rho * b) * left, (b - rho * a) * left) for a, b in current]
    return found, count


def _least_squares(found: Array, count: Array) -> Tail:
    best: tuple[float, Tail] | None = None
    for decay, bend in product(_DECAYS, _BENDS):
        shape = _shape(decay, bend, len(count))
        information = float((count * shape**2).sum())
        each = (count * shape) @ found / information
        mean = float(each.mean())
        apart = float(((each - mean) ** 2).sum())
        # Of K coordinates one mean is fitted; three or fewer can't be told apart (James and Stein).
        less = max(1 - (len(each) - 3) / (information * apart), 0.0) if len(each) > 3 and apart > 0 else 1.0
        most = min(_LARGEST, float((shape**2).sum()) ** -0.5)
        strength = np.clip(mean + less * (each - mean), -most, most)
        # Σ n (ρ - a h)² but for Σ n ρ², which is the same for all.
        missed = information * float((strength * (strength - 2 * each)).sum())
        if best is None or missed < best[0]:
            best = missed, Tail(strength, decay, bend)
    assert best is not None
    return best[1]


def _root(factor: Array) -> Array:
    """The symmetric root of F Fᵀ."""
    left, values, _ = np.linalg.svd(factor)
    root: Array = (left * values[..., None, :]) @ left.mT
    return root
