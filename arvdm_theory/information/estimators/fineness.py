"""A lower bound that sees links finer than neighbourhoods of a few samples.

The neighbourhoods of nearest-neighbour estimates hold k samples in all columns together. A link that oscillates
within them is lost without a sign: the estimate is 0, and so it is on every part of the samples. But samples next
to one another in X alone still have alike Z. With X' the sample next to X, Z' its Z, and D = Z - Z',

    h(D) ≥ h(D | X, X') ≥ h(Z | X) + (d_z/2) log 2,    so    I(X; Z) ≥ h(Z) - h(D) + (d_z/2) log 2,

as Z and Z' are independent given (X, X'), and the entropy of the difference of two independent draws is by ½ log 2
a column above the mean of theirs at least (Shannon 1948, Stam 1959: the entropy power inequality; X' is taken to
be distributed as X). For a jointly Gaussian pair it holds with equality as samples become dense. The coefficient
of Chatterjee (2021) rests on the same pairs. Both entropies are nearest-neighbour estimates (Kozachenko and
Leonenko 1987) from as many points: constants cancel.

Given Y, X' is next in (X, Y), and what takes the place of h(Z) is h(Z - Z'') - d_z log 2, Z'' of the sample next
in Y: the difference of two draws has an entropy larger by ½ log 2 a column than one draw if that is Gaussian, and
by log 2 if it takes one of two narrow values.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from arvdm_theory.information.estimators.neighbours import nearest
from arvdm_theory.information.estimators.uncertainty import contribution_error

__all__ = ["next_sample_bound"]

Array = NDArray[np.float64]

# Columns of one side up to which the entropy of a difference is estimated.
_MOST_COLUMNS = 3
# Differences share samples: standard errors are those of n contributions times this.
_SHARED = 1.5


def next_sample_bound(x: Array, z: Array, y: Array, k: int = 3, seed: int = 0) -> tuple[float, float]:
    """The larger of the bounds on I(X; Z | Y) from next samples in X, or in Z; and its error, in nats.

    For independent samples: in a series the sample next in time is alike by its own memory.

    Args:
        x: shape (n, d_x), without ties. Only the order in each column counts.
        z: shape (n, d_z), likewise.
        y: shape (n, d_y), d_y = 0 for mutual information.
        k: neighbours of the entropies.
        seed: of the normal samples that the columns' ranks are given.
    """
    rng = np.random.default_rng(seed)
    x, z, y = (_random_scores(part, rng) for part in (x, z, y))
    bounds = [
        _bound(source, target, y, k) for source, target in ((x, z), (z, x)) if target.shape[1] <= _MOST_COLUMNS
    ]
    return max(bounds, default=(-math.inf, 0.0))


def _bound(source: Array, target: Array, y: Array, k: int) -> tuple[float, float]:
    whole = target - target[_next(y)] if y.shape[1] else target
    left = target - target[_next(np.hstack([source, y]))]
    sizes = [np.log(nearest(points, k)[0][:, -1] + np.finfo(np.float64).tiny) for points in (whole, left)]
    contributions = target.shape[1] * (sizes[0] - sizes[1] + math.log(2) * (-0.5 if y.shape[1] else 0.5))
    return float(contributions.mean()), _SHARED * contribution_error(contributions)[0]


def _random_scores(points: Array, rng: np.random.Generator) -> Array:
    """Every column as a normal sample of the same ranks: scores at even steps would have too large an entropy."""
    drawn: Array = np.sort(rng.standard_normal(points.shape), axis=0)
    return np.take_along_axis(drawn, points.argsort(0).argsort(0), axis=0)


def _next(points: Array) -> NDArray[np.intp]:
    return nearest(points, 1)[1][:, 0]
