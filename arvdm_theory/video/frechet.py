"""The Fréchet distance between Gaussians, and between the features of two sets of videos."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from arvdm_theory.number import Number

__all__ = ["FrechetEstimate", "feature_distance", "frechet_distance"]

Array = NDArray[np.float64]


def frechet_distance(
    mean_1: ArrayLike, covariance_1: ArrayLike, mean_2: ArrayLike, covariance_2: ArrayLike
) -> float:
    """Squared Fréchet (2-Wasserstein) distance between two Gaussians, which may be singular.

    ‖m₁ - m₂‖² + tr(S₁) + tr(S₂) - 2 tr((S₁^{1/2} S₂ S₁^{1/2})^{1/2}) (Dowson and Landau 1982). The last trace is
    the sum of the singular values of S₁^{1/2} S₂^{1/2}, which never takes the root of a rounding error.

    Args:
        mean_1: shape (d,).
        covariance_1: shape (d, d), symmetric and positive semi-definite.
        mean_2: shape (d,).
        covariance_2: shape (d, d).

    Raises:
        ValueError: if shapes do not fit, numbers are not finite, or a covariance is not symmetric and positive
            semi-definite up to rounding.

    Example:
        >>> round(frechet_distance([0.0], [[1.0]], [3.0], [[4.0]]), 12)
        10.0
    """
    m1, root_1, total_1 = _checked(mean_1, covariance_1)
    m2, root_2, total_2 = _checked(mean_2, covariance_2)
    if m1.shape != m2.shape:
        raise ValueError(f"the Gaussians have dimensions {len(m1)} and {len(m2)}")
    shared = np.linalg.svd(root_1 @ root_2, compute_uv=False).sum()
    return float(((m1 - m2) ** 2).sum() + total_1 + total_2 - 2 * shared)


@dataclass(frozen=True)
class FrechetEstimate:
    """A Fréchet distance of features, with what it rests on.

    Attributes:
        distance: between the Gaussians of the samples' means and covariances; its standard error is not known. It
            is biased upwards, the more the fewer samples: two sets of one law have a positive distance. Compare
            only equal sizes.
        samples_truth: true videos.
        samples_generated: generated videos.
        dimension: of a feature.
    """

    distance: Number
    samples_truth: int
    samples_generated: int
    dimension: int


def feature_distance(truth: Array, generated: Array) -> FrechetEstimate:
    """The Fréchet distance between two sets of features (Unterthiner et al. 2018, for FVD), sizes stated.

    Args:
        truth: features of true videos, shape (n, d).
        generated: of generated ones, shape (m, d).

    Raises:
        ValueError: if a set has fewer than two samples, the dimensions differ, or numbers are not finite.
    """
    if truth.ndim != 2 or generated.ndim != 2 or truth.shape[1] != generated.shape[1]:
        raise ValueError(f"features have shapes (n, d) and (m, d), got {truth.shape} and {generated.shape}")
    fewest, dimension = min(len(truth), len(generated)), truth.shape[1]
    if fewest < 2:
        raise ValueError(
            f"a covariance needs at least 2 videos, got {len(truth)} true and {len(generated)} generated"
        )
    moments = [(x.mean(0), np.cov(x, rowvar=False).reshape(dimension, dimension)) for x in (truth, generated)]
    value = frechet_distance(*moments[0], *moments[1])
    warnings = []
    if fewest <= dimension:
        warnings = [
            f"{fewest} videos cannot fill a covariance of dimension {dimension}: the value mostly measures the "
            "number of videos; compare it only with values from as many"
        ]
    distance = Number.stated(value, math.nan, method="Fréchet", n=fewest, warnings=warnings)
    return FrechetEstimate(distance, len(truth), len(generated), dimension)


def _checked(mean: ArrayLike, covariance: ArrayLike) -> tuple[Array, Array, float]:
    """The mean, the symmetric root of the covariance, and its trace."""
    m, s = np.asarray(mean, dtype=np.float64), np.asarray(covariance, dtype=np.float64)
    if m.ndim != 1 or s.shape != (len(m), len(m)) or len(m) == 0:
        raise ValueError(f"a mean (d,) and a covariance (d, d), got shapes {m.shape} and {s.shape}")
    if not (np.isfinite(m).all() and np.isfinite(s).all()):
        raise ValueError("a mean or a covariance is NaN or infinite")
    scale = float(np.abs(s).max())
    # A sum of d products carries about d roundings; a hundred times that is no longer rounding.
    slack = 100 * len(m) * np.finfo(np.float64).eps * scale
    if float(np.abs(s - s.T).max()) > slack:
        raise ValueError("a covariance is not symmetric")
    values, vectors = np.linalg.eigh((s + s.T) / 2)
    if values[0] < -slack:
        raise ValueError(f"a covariance is not positive semi-definite: its smallest eigenvalue is {values[0]:.3g}")
    # Eigenvalues that rounding left below zero belong to directions without variance.
    roots = np.sqrt(np.where(values > 0, values, 0.0))
    return m, (vectors * roots) @ vectors.T, float(np.trace(s))
