"""Every estimator of (conditional) mutual information and of KL divergence by name, and the one to use unnamed.

The neural estimators (:mod:`~arvdm_theory.information.estimators.neural`) stand in tables of their own, and are
never chosen unasked: they train networks, and their intervals cover the spread of the held-out samples only, not
what a critic has missed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from arvdm_theory.information.estimators.knn import calibrated_divergence, knn_divergence, ksg, mixed_information
from arvdm_theory.information.estimators.neural import neural_divergence, neural_information
from arvdm_theory.information.estimators.plugin import (
    copula_information,
    discrete_information,
    gaussian_divergence,
    gaussian_information,
)
from arvdm_theory.information.estimators.residual import calibrated_information
from arvdm_theory.information.estimators.samples import SampleError, paired_samples, two_samples
from arvdm_theory.information.estimators.uncertainty import Dependence
from arvdm_theory.number import LEVEL, Number

__all__ = [
    "DIVERGENCES",
    "METHODS",
    "NEURAL_DIVERGENCES",
    "NEURAL_METHODS",
    "default_divergence",
    "default_method",
    "estimate_divergence",
    "estimate_information",
]

METHODS: dict[str, Callable[..., Number]] = {
    "calibrated": calibrated_information,
    "gaussian": gaussian_information,
    "copula": copula_information,
    "ksg1": partial(ksg, variant=1),
    "ksg2": partial(ksg, variant=2),
    "mixed": mixed_information,
    "miller-madow": partial(discrete_information, correction="miller-madow"),
    "shrinkage": partial(discrete_information, correction="shrinkage"),
    "plug-in": partial(discrete_information, correction="none"),
}
"""Estimators of I(X; Z) and I(X; Z | Y) without training: (x, z, y=None, *, dependence, level) → estimate."""

NEURAL_METHODS: dict[str, Callable[..., Number]] = {
    "classifier": partial(neural_information, objective="classifier"),
    "infonce": partial(neural_information, objective="infonce"),
    "dv": partial(neural_information, objective="dv"),
    "nwj": partial(neural_information, objective="nwj"),
}
"""Estimators of the same with trained critics, by what these are trained by: they also take ``seed``."""

DIVERGENCES: dict[str, Callable[..., Number]] = {
    "calibrated": calibrated_divergence,
    "gaussian": gaussian_divergence,
    "knn": knn_divergence,
}
"""Estimators of KL(P ‖ Q) without training: (p, q, *, dependence, level) → estimate."""

NEURAL_DIVERGENCES: dict[str, Callable[..., Number]] = {
    "classifier": partial(neural_divergence, objective="classifier"),
    "dv": partial(neural_divergence, objective="dv"),
    "nwj": partial(neural_divergence, objective="nwj"),
}
"""Estimators of KL(P ‖ Q) with trained critics, by what these are trained by: they also take ``seed``."""

# A column is discrete if each of its values stands for at least so many samples on average.
_SAMPLES_PER_VALUE = 20


def default_method(x: ArrayLike, z: ArrayLike, y: ArrayLike | None = None) -> str:
    """The estimator for samples of these kinds, chosen from how often values repeat in each column.

    All columns discrete: ``miller-madow``; some: ``mixed``; none: ``calibrated``. A column counts as discrete if
    its distinct values number at most n/20 (at least 2).
    """
    columns = np.hstack(paired_samples(x, z, y)).T
    discrete = [_is_discrete(column) for column in columns]
    if all(discrete):
        return "miller-madow"
    return "mixed" if any(discrete) else "calibrated"


def _is_discrete(column: NDArray[np.float64]) -> bool:
    return len(np.unique(column)) <= max(2, len(column) // _SAMPLES_PER_VALUE)


def default_divergence(p: ArrayLike, q: ArrayLike) -> str:
    """``knn`` if a column of both samples together is discrete (:func:`default_method`), else ``calibrated``."""
    discrete = any(_is_discrete(column) for column in np.vstack(two_samples(p, q)).T)
    return "knn" if discrete else "calibrated"


def estimate_information(
    x: ArrayLike,
    z: ArrayLike,
    y: ArrayLike | None = None,
    *,
    method: str | None = None,
    dependence: Dependence = "independent",
    level: float = LEVEL,
    seed: int = 0,
) -> Number:
    """I(X; Z), or I(X; Z | Y), in nats, by the named estimator or the one of :func:`default_method`.

    Args:
        x: shape (n, d_x) or (n,).
        z: shape (n, d_z) or (n,).
        y: shape (n, d_y) or (n,), if there is a condition.
        method: a name of :data:`METHODS` or :data:`NEURAL_METHODS`.
        dependence: ``"autocorrelated"`` for consecutive samples of a series.
        level: of the confidence interval.
        seed: of whatever the method draws: subsamples, baseline samples, folds and networks.

    Raises:
        SampleError: for samples that no estimate can be made from, or an unknown method.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> frame = rng.integers(0, 3, size=1000)
        >>> estimate_information(frame, (frame + rng.integers(0, 2, size=1000)) % 3).method
        'miller-madow'
    """
    estimator = _chosen(METHODS | NEURAL_METHODS, method, lambda: default_method(x, z, y))
    return estimator(x, z, y, dependence=dependence, level=level, **_seeded(estimator, seed))


def estimate_divergence(
    p: ArrayLike,
    q: ArrayLike,
    *,
    method: str | None = None,
    dependence: Dependence = "independent",
    level: float = LEVEL,
    seed: int = 0,
) -> Number:
    """KL(P ‖ Q), in nats, from samples of each, by the named estimator or the one of :func:`default_divergence`.

    Args:
        p: samples of P, shape (n, d) or (n,).
        q: samples of Q, shape (m, d) or (m,).
        method: a name of :data:`DIVERGENCES` or :data:`NEURAL_DIVERGENCES`.
        dependence: ``"autocorrelated"`` if each of the two holds consecutive samples of a series.
        level: of the confidence interval.
        seed: of whatever the method draws: subsamples, Gaussian samples, folds and networks.

    Raises:
        SampleError: for samples that no estimate can be made from, or an unknown method.

    Example:
        >>> from math import log
        >>> rng = np.random.default_rng(0)
        >>> estimate = estimate_divergence(rng.normal(size=1500), rng.normal(size=1000, scale=1.5))
        >>> estimate.ci_low < log(1.5) + 1 / 4.5 - 0.5 < estimate.ci_high
        True
    """
    estimator = _chosen(DIVERGENCES | NEURAL_DIVERGENCES, method, lambda: default_divergence(p, q))
    return estimator(p, q, dependence=dependence, level=level, **_seeded(estimator, seed))


def _chosen(
    table: Mapping[str, Callable[..., Number]], method: str | None, default: Callable[[], str]
) -> Callable[..., Number]:
    if method is not None and method not in table:
        raise SampleError(f"no estimator is called {method!r}; there are {', '.join(table)}")
    return table[default() if method is None else method]


def _seeded(estimator: Callable[..., Number], seed: int) -> dict[str, int]:
    """The seed, for an estimator that draws something."""
    return {"seed": seed} if "seed" in inspect.signature(estimator).parameters else {}
