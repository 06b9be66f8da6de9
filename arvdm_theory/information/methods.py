"""Every estimator of (conditional) mutual information by name, and the one to use when none is named."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from arvdm_theory.information.estimate import Estimate, SampleError, paired_samples
from arvdm_theory.information.knn import ksg, mixed_information
from arvdm_theory.information.plugin import copula_information, discrete_information, gaussian_information
from arvdm_theory.information.residual import calibrated_information
from arvdm_theory.information.uncertainty import LEVEL, Dependence

__all__ = ["METHODS", "default_method", "estimate_information"]

METHODS: dict[str, Callable[..., Estimate]] = {
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
"""Every estimator of I(X; Z) and I(X; Z | Y): (x, z, y=None, *, dependence, level) → estimate."""

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


def estimate_information(
    x: ArrayLike,
    z: ArrayLike,
    y: ArrayLike | None = None,
    *,
    method: str | None = None,
    dependence: Dependence = "independent",
    level: float = LEVEL,
) -> Estimate:
    """I(X; Z), or I(X; Z | Y), in nats, by the named estimator or the one of :func:`default_method`.

    Args:
        x: shape (n, d_x) or (n,).
        z: shape (n, d_z) or (n,).
        y: shape (n, d_y) or (n,), if there is a condition.
        method: a name of :data:`METHODS`.
        dependence: ``"autocorrelated"`` for consecutive samples of a series.
        level: of the confidence interval.

    Raises:
        SampleError: for samples that no estimate can be made from, or an unknown method.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> frame = rng.integers(0, 3, size=1000)
        >>> estimate_information(frame, (frame + rng.integers(0, 2, size=1000)) % 3).method
        'miller-madow'
    """
    if method is not None and method not in METHODS:
        raise SampleError(f"no estimator is called {method!r}; there are {', '.join(METHODS)}")
    chosen = default_method(x, z, y) if method is None else method
    return METHODS[chosen](x, z, y, dependence=dependence, level=level)
