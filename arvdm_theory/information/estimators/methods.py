"""Every estimator of (conditional) mutual information and of KL divergence by name, and the one to use unnamed.

The neural estimators (:mod:`~arvdm_theory.information.estimators.neural`) stand in tables of their own, and are
never chosen unasked: they train networks, and their intervals cover the spread of the held-out samples only, not
what a critic has missed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from numpy.typing import ArrayLike

from arvdm_theory.information.estimators.calibrated import calibrated_information
from arvdm_theory.information.estimators.diagnosis import Diagnosis, examine, examine_two
from arvdm_theory.information.estimators.divergence import calibrated_divergence, knn_divergence
from arvdm_theory.information.estimators.knn import ksg, mixed_information
from arvdm_theory.information.estimators.neural import neural_divergence, neural_information
from arvdm_theory.information.estimators.plugin import (
    copula_information,
    discrete_information,
    gaussian_divergence,
    gaussian_information,
)
from arvdm_theory.information.estimators.result import issue
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

# What explicit methods cannot take: kinds of columns for which their law has no place.
_NEED_CONTINUOUS = {"ksg1", "ksg2", "gaussian", "copula"}
_NEED_DISCRETE = {"miller-madow", "shrinkage", "plug-in"}


def default_method(x: ArrayLike, z: ArrayLike, y: ArrayLike | None = None) -> str:
    """The estimator for samples of these kinds, see :func:`~arvdm_theory.information.estimators.examine`."""
    return examine(*paired_samples(x, z, y)).method


def default_divergence(p: ArrayLike, q: ArrayLike) -> str:
    """The estimator for samples of these two laws."""
    return examine_two(*two_samples(p, q)).method


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
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> frame = rng.integers(0, 3, size=1000)
        >>> estimate_information(frame, (frame + rng.integers(0, 2, size=1000)) % 3).method
        'miller-madow'
    """
    estimator = _chosen(METHODS | NEURAL_METHODS, method)
    arrays = paired_samples(x, z, y)
    found = examine(*arrays, dependence)
    if method is None:
        if found.refusal:
            raise SampleError(f"{found.refusal}; a method that is named gives what it can")
        estimator = METHODS[found.method]
        arrays = arrays[0][found.rows], arrays[1][found.rows], arrays[2][found.rows]
        notes = found.warnings
    else:
        notes = _unsuited(method, found)
        found = replace(found, method=method, reason=f"as asked ({found.method} suits: {found.reason})")
    result = estimator(*arrays, dependence=dependence, level=level, **_seeded(estimator, seed))
    return _told(result, found, notes)


def _unsuited(method: str, found: Diagnosis) -> tuple[str, ...]:
    """What to say of a method that was asked for by name."""
    notes = list(found.warnings[-1:] if "--autocorrelated" in "".join(found.warnings) else ())
    if found.refusal:
        notes.append(f"{found.refusal}: no finite number is right.")
    tied = [kind for kind in found.kinds if kind != "continuous"]
    if method in _NEED_CONTINUOUS and tied:
        kinds = ", ".join(sorted(set(tied)))
        notes.append(
            f"{len(tied)} of {len(found.kinds)} columns repeat values ({kinds}), which {method} has no place for: "
            f"use the default, {found.method}."
        )
    if method in _NEED_DISCRETE and found.method != "miller-madow":
        notes.append(
            f"the columns are not of few values, or the table has too many cells for {len(found.rows)} samples: "
            f"use the default, {found.method}."
        )
    return tuple(notes)


def _told(result: Number, found: Diagnosis, notes: Sequence[str]) -> Number:
    """The result with the diagnosis, and with what that warns of."""
    for note in notes:
        issue(note)
    warnings = tuple(dict.fromkeys((*result.warnings, *notes)))
    doubts = len(warnings)
    trust = f"{doubts} {'doubt' if doubts == 1 else 'doubts'}, see the warnings" if doubts else "no doubts"
    return replace(result, warnings=warnings, diagnosis=replace(found, trust=trust))


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
        >>> import numpy as np
        >>> from math import log
        >>> rng = np.random.default_rng(0)
        >>> estimate = estimate_divergence(rng.normal(size=1500), rng.normal(size=1000, scale=1.5))
        >>> estimate.ci_low < log(1.5) + 1 / 4.5 - 0.5 < estimate.ci_high
        True
    """
    estimator = _chosen(DIVERGENCES | NEURAL_DIVERGENCES, method)
    of_p, of_q = two_samples(p, q)
    found = examine_two(of_p, of_q)
    notes: tuple[str, ...] = ()
    if method is None:
        if found.refusal:
            raise SampleError(found.refusal)
        estimator = DIVERGENCES[found.method]
    else:
        notes = (f"{found.refusal}.",) if found.refusal else ()
        found = replace(found, method=method, reason=f"as asked ({found.method} suits: {found.reason})")
    result = estimator(of_p, of_q, dependence=dependence, level=level, **_seeded(estimator, seed))
    return _told(result, found, notes)


def _chosen(table: Mapping[str, Callable[..., Number]], method: str | None) -> Callable[..., Number]:
    if method is not None and method not in table:
        raise SampleError(f"no estimator is called {method!r}; there are {', '.join(table)}")
    return table["calibrated" if method is None else method]


def _seeded(estimator: Callable[..., Number], seed: int) -> dict[str, int]:
    """The seed, for an estimator that draws something."""
    return {"seed": seed} if "seed" in inspect.signature(estimator).parameters else {}
