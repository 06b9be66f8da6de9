"""Scalar frames of finitely many states, one frame at a time (w = Δ = 1): every error term by quadrature.

All integrals are trapezoidal sums on a grid of 160 points over ±5.5, outside of which a true window has mass
below 1e-7. The narrowest density, the true one-step conditional, has a standard deviation of at least 2.5 grid
steps in the cases used, where the sum is right to exp(-2π² 2.5²) ~ 1e-53. A sampler's windows spread more, over
±11 (320 points of the same spacing). Nothing here uses the library.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
GRID = np.linspace(-5.5, 5.5, 160)
CELL = float(GRID[1] - GRID[0])
WIDE = np.concatenate([GRID[0] - CELL * np.arange(80, 0, -1), GRID, GRID[-1] + CELL * np.arange(1, 81)])
CORE = slice(80, 240)
"""Where the grid stands in the wide one."""


def normal(x: Array, mean: Array | float, variance: Array | float) -> Array:
    return np.asarray(np.exp(-((x - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance))


def step_coefficients(name: str, t: float, s: float) -> tuple[float, float, float]:
    """c_w, c_s and the noise variance, copied from the papers."""
    h = t - s
    if name == "exponential":
        return float(np.exp(h / 2)), 2 * float(np.exp(h / 2) - 1), float(np.exp(h) - 1)
    if name == "euler":
        return 1 + h / 2, h, h
    assert name == "ddpm"
    v = 1 - np.exp(-h)
    return float(np.exp(h / 2)), float(v * np.exp(h / 2)), float(v * (1 - np.exp(-s)) / (1 - np.exp(-t)))


@dataclass(frozen=True)
class Scalar:
    """Pictures c_y of a chain with ``transition``, in white observation noise o²."""

    pictures: Array
    transition: Array
    noise: float

    def state_density(self, level: float, x: Array) -> Array:
        """p(X^t = x | y), (x, y)."""
        a = np.exp(-level / 2)
        return normal(x[:, None], a * self.pictures, a**2 * self.noise + 1 - np.exp(-level))

    def window_terms(
        self, levels: tuple[float, ...], prior: Array, weight: Array, error: float, step: str
    ) -> tuple[float, Array, Array, Array]:
        """(NIE, DE, SEE, CROSS) of a one-frame stage whose state has the law ``prior`` (contexts, y).

        Contexts have probabilities ``weight``; the score is the exact one minus ``error`` times the window.
        """
        start = prior @ self.state_density(levels[0], GRID).T
        nie = float(weight @ (start * np.log(start / normal(GRID, 0.0, 1.0))).sum(-1) * CELL)
        terms = []
        for t, s in pairwise(levels):
            a = np.exp(-(t - s) / 2)
            var_t, var_s = (np.exp(-level) * self.noise + 1 - np.exp(-level) for level in (t, s))
            # Given y both levels are jointly Gaussian; condition the lower one on the upper.
            gain = a * var_s / var_t
            centre = np.exp(-s / 2) * self.pictures + gain * (GRID[:, None] - np.exp(-t / 2) * self.pictures)
            spread = var_s - gain * a * var_s
            assert np.sqrt(spread) > 2.5 * CELL
            joint = prior[:, None, :] * self.state_density(t, GRID)
            density = joint.sum(-1)
            posterior = joint / density[..., None]
            below = normal(GRID[None, :, None], centre[:, None, :], spread)  # (W, W', y)
            true = np.einsum("cwy,wvy->cwv", posterior, below)
            mean_true = (posterior * centre).sum(-1)
            score = (posterior * (np.exp(-t / 2) * self.pictures - GRID[:, None]) / var_t).sum(-1)
            window, on_score, noise = step_coefficients(step, t, s)
            mean = window * GRID + on_score * score
            square = ((posterior * (centre**2 + spread)).sum(-1) - 2 * mean * mean_true + mean**2) / noise
            log_own = -0.5 * square - 0.5 * np.log(2 * np.pi * noise)
            entropy = -(true * np.log(np.where(true > 0, true, 1.0))).sum(-1) * CELL
            miss = -on_score * error * GRID

            def average(values: Array, density: Array = density) -> float:
                return float(weight @ (density * values).sum(-1) * CELL)

            terms.append(
                (
                    average(-entropy - log_own),
                    average(np.broadcast_to(0.5 * miss**2 / noise, mean.shape)),
                    average((mean - mean_true) * miss / noise),
                )
            )
        de, see, cross = np.array(terms).T
        return nie, de, see, cross

    def sampler(self, levels: tuple[float, ...], prior: Array, error: float, step: str) -> Array:
        """The sampler's density of the window at the last level, (contexts, x) with x on the wide grid."""
        density = np.broadcast_to(normal(WIDE, 0.0, 1.0), (len(prior), len(WIDE)))
        for t, s in pairwise(levels):
            var_t = np.exp(-t) * self.noise + 1 - np.exp(-t)
            joint = prior[:, None, :] * self.state_density(t, WIDE)
            posterior = joint / joint.sum(-1, keepdims=True)
            score = (posterior * (np.exp(-t / 2) * self.pictures - WIDE[:, None]) / var_t).sum(-1) - error * WIDE
            window, on_score, noise = step_coefficients(step, t, s)
            mean = window * WIDE + on_score * score
            kernels = (normal(WIDE[None, :], centre[:, None], noise) for centre in mean)
            density = np.stack([row @ kernel * CELL for row, kernel in zip(density, kernels, strict=True)])
        assert np.abs(density.sum(-1) * CELL - 1).max() < 1e-6
        return density


def divergence(p: Array, q: Array) -> float:
    """KL of two densities on the grid (any number of axes)."""
    mask = p > 0
    return float((p[mask] * np.log(p[mask] / q[mask])).sum() * CELL**p.ndim)
