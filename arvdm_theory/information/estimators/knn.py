"""Nearest-neighbour estimates of (conditional) mutual information and KL divergence, in nats.

All of them use the maximum norm and, unless told otherwise, standardised columns (each divided by its standard
deviation, which changes no information). Each value is the mean of one contribution a sample. None can exceed
about log(n/k), and all fall short where the neighbourhoods are wide: in many dimensions use
:func:`arvdm_theory.information.estimators.calibrated_information`.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import digamma

from arvdm_theory.information.estimators.neighbours import (
    count_in_boxes,
    count_within,
    nearest,
    neighbour_distances,
    radius_and_counts,
)
from arvdm_theory.information.estimators.result import conclude
from arvdm_theory.information.estimators.samples import (
    SampleError,
    paired_samples,
    require_neighbours,
    warn_of_copies,
    warn_of_deterministic_relations,
    warn_of_duplicates,
    warn_of_heavy_tails,
)
from arvdm_theory.information.estimators.uncertainty import Dependence, cuts, still_to_come, subsample_error
from arvdm_theory.number import LEVEL, Number, half_width

__all__ = [
    "Neighbourhood",
    "ksg",
    "ksg_contributions",
    "mixed_information",
    "standardised",
    "warn_of_ceiling",
    "warn_of_width",
]

Array = NDArray[np.float64]

# Neighbourhoods wider than one standard deviation (half-width ½) hold more structure than an average can tell.
_WIDE = 0.5
# Share of the ceiling log(n/k) from which on an estimate says little more than that the truth is large.
_NEAR_CEILING = 0.75
# Samples drawn from fitted Gaussian laws to see what nearest neighbours miss there, to remove or to warn of it.
_DRAWS = 4
# Samples per neighbour in the smallest subsample that a standard error is taken from.
_SMALLEST = 15
# The parts of the samples whose estimates show how an estimate moves with n.
_PARTS = 4
# Re-paired samples that show the bias of the mixed estimate.
_APART = 4


class Neighbourhood(NamedTuple):
    """What a nearest-neighbour pass over the samples gives.

    Attributes:
        contributions: shape (n,); their mean is the estimate.
        width: median distance to the k-th neighbour, in the units of the columns.
        ceiling: the most that the estimate can be; NaN where it is not known.
    """

    contributions: Array
    width: float
    ceiling: float = math.nan


def standardised(points: Array) -> Array:
    """Columns divided by their standard deviations."""
    scaled: Array = points / points.std(0)
    return scaled


def ksg_contributions(x: Array, z: Array, y: Array, k: int = 3, variant: Literal[1, 2] = 1) -> Neighbourhood:
    """Contributions to I(X; Z | Y) of Kraskov-Stögbauer-Grassberger type, on the columns as they are.

    With ε_i the distance of sample i to its k-th neighbour in (X, Z, Y) and n_s the number of other samples
    closer than ε_i in the subspace s (variant 1; Kraskov et al. 2004, eq. 8; Frenzel and Pompe 2007),

        ψ(k) - ψ(n_xy + 1) - ψ(n_zy + 1) + ψ(n_y + 1),

    and with ε_x, ε_z, ε_y the largest distances in each of X, Z, Y to the k neighbours themselves, and n_s the
    number of other samples in the closed box with these sides (variant 2; Kraskov et al., eq. 9, for CMI as in
    Wibral et al. 2014),

        ψ(k) - 2/k - ψ(n_xy) + 1/n_xy - ψ(n_zy) + 1/n_zy + ψ(n_y).

    Without Y: ψ(n) in place of the term of Y, 1/k in place of 2/k and no 1/n terms. With Y, variant 2 is too
    large for few neighbours, even under independence (by 0.05 at k = 3 and n = 600, by 0.007 at k = 10):
    prefer variant 1.

    Args:
        x: shape (n, d_x).
        z: shape (n, d_z).
        y: shape (n, d_y), d_y = 0 for mutual information.
        k: neighbours.
        variant: 1 or 2.
    """
    n, given = len(x), y.shape[1] > 0
    if variant == 1:
        radius, n_xy, n_zy, n_y = radius_and_counts(x, z, y, k)
        value = digamma(k) - digamma(n_xy + 1) - digamma(n_zy + 1) + digamma(n_y + 1)
        return Neighbourhood(value, float(np.median(radius)))
    distance, index = nearest(np.hstack([x, z, y]), k)
    width = float(np.median(distance[:, -1]))
    xy, zy = (np.hstack([x, y]), np.hstack([z, y])) if given else (x, z)
    wide_x, wide_z = neighbour_distances(x, index), neighbour_distances(z, index)
    if not given:
        n_x, n_z = count_within(x, wide_x, strict=False), count_within(z, wide_z, strict=False)
        return Neighbourhood(digamma(k) - 1 / k - digamma(n_x) - digamma(n_z) + digamma(n), width)
    wide_y = neighbour_distances(y, index)
    n_xy = count_in_boxes(xy, _sides((wide_x, x), (wide_y, y)))
    n_zy = count_in_boxes(zy, _sides((wide_z, z), (wide_y, y)))
    n_y = count_within(y, wide_y, strict=False)
    value = digamma(k) - 2 / k - digamma(n_xy) + 1 / n_xy - digamma(n_zy) + 1 / n_zy + digamma(n_y)
    return Neighbourhood(value, width)


def _sides(*blocks: tuple[Array, Array]) -> Array:
    """Half-sides (n, d) of boxes from one half-side for each block of coordinates."""
    return np.hstack([np.repeat(side[:, None], points.shape[1], axis=1) for side, points in blocks])


def ksg(
    x: ArrayLike,
    z: ArrayLike,
    y: ArrayLike | None = None,
    *,
    k: int = 3,
    variant: Literal[1, 2] = 1,
    standardise: bool = True,
    dependence: Dependence = "independent",
    level: float = LEVEL,
    seed: int = 0,
) -> Number:
    """I(X; Z), or I(X; Z | Y), by k nearest neighbours; see :func:`ksg_contributions`.

    Without Y the two algorithms of Kraskov, Stögbauer and Grassberger (2004); with Y that of Frenzel and Pompe
    (2007) and its counterpart with boxes. Consistent for continuous laws of any shape, but biased towards 0 in
    more than a few dimensions.

    Args:
        x: shape (n, d_x) or (n,).
        z: shape (n, d_z) or (n,).
        y: shape (n, d_y) or (n,), if there is a condition.
        k: neighbours; more lower the variance and raise the bias.
        variant: 1 or 2.
        standardise: divide every column by its standard deviation first.
        dependence: ``"autocorrelated"`` takes the subsamples, from which the standard error comes, as stretches.
        level: of the confidence interval.
        seed: of the shuffle that cuts the subsamples.

    Raises:
        SampleError: for samples that do not fit together, NaN or infinite values, constant columns or n ≤ k.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=2000)
        >>> estimate = ksg(x, 0.6 * x + 0.8 * rng.normal(size=2000))
        >>> estimate.ci_low < 0.2231 < estimate.ci_high
        True
    """
    if variant not in (1, 2):
        raise SampleError(f"the variant of a KSG estimate is 1 or 2, got {variant!r}")
    arrays = paired_samples(x, z, y)
    require_neighbours(len(arrays[0]), k)
    scaled = [standardised(array) if standardise else array for array in arrays]
    joint = np.hstack(scaled)
    found = ksg_contributions(scaled[0], scaled[1], scaled[2], k, variant)
    value = float(found.contributions.mean())
    spread = 1.0 if standardise else float(joint.std(0).mean())
    notes = [
        *warn_of_duplicates(joint),
        *warn_of_deterministic_relations(joint),
        *warn_of_heavy_tails(joint),
        *warn_of_width(found.width / spread, *joint.shape),
        *warn_of_ceiling(value, len(joint), k),
    ]
    covariance, freedom, more = subsample_error(
        lambda *parts: ksg_contributions(parts[0], parts[1], parts[2], k, variant).contributions.mean(),
        [scaled], _SMALLEST * k, dependence, seed,
    )  # fmt: skip
    stderr = math.sqrt(covariance[0, 0])
    return conclude(
        value, stderr, half_width(stderr, freedom, level),
        method=f"ksg{variant}", n=len(joint), k=k, notes=[*notes, *more],
    )  # fmt: skip


def mixed_information(
    x: ArrayLike,
    z: ArrayLike,
    y: ArrayLike | None = None,
    *,
    k: int = 5,
    dependence: Dependence = "independent",
    level: float = LEVEL,
    seed: int = 0,
) -> Number:
    """I(X; Z), or I(X; Z | Y), for columns of which some are discrete, or for laws with atoms.

    The contributions of :func:`ksg_contributions`, variant 1, with k for each sample the number of samples closer
    than its k-th neighbour, itself included: fewer than k where several lie at that very distance. Where the k-th
    neighbour coincides with it that is the number of samples at that point, and every n_s + 1 the number
    of samples that coincide with it in the subspace s (Gao, Kannan, Oh and Viswanath 2017, without Y;
    Mesner and Shalizi 2020, with it, here not cut off at 0). On continuous samples it is :func:`ksg`, on
    discrete ones nearly the plug-in. Give nominal columns as numbers; how far apart their values lie
    matters little once each has many samples.

    Arguments and errors as :func:`ksg`.
    """
    arrays = paired_samples(x, z, y)
    n = len(arrays[0])
    require_neighbours(n, k)
    scaled = [standardised(array) for array in arrays]
    joint = np.hstack(scaled)
    found = _mixed(scaled[0], scaled[1], scaled[2], k)
    covariance, freedom, more = subsample_error(
        lambda *parts: _mixed(parts[0], parts[1], parts[2], k).contributions.mean(),
        [scaled], _SMALLEST * k, dependence, seed,
    )  # fmt: skip
    value, d = float(found.contributions.mean()), joint.shape[1]
    stderr = math.sqrt(covariance[0, 0])
    reach = half_width(stderr, freedom, level)
    if n >= _PARTS * _SMALLEST * k:
        parts = cuts(n, _PARTS, dependence, np.random.default_rng(seed))
        smaller = [
            _mixed(scaled[0][part], scaled[1][part], scaled[2][part], k).contributions.mean() for part in parts
        ]
        reach += abs(still_to_come(value, np.array(smaller), stderr, min(0.5, 1 / d)))
    if not scaled[2].shape[1]:
        # What it says of the same columns when they are independent is its bias there, which atoms give a sign.
        rng = np.random.default_rng(seed)
        apart = [
            _mixed(scaled[0], rng.permutation(scaled[1]), scaled[2], k).contributions.mean() for _ in range(_APART)
        ]
        reach += abs(float(np.mean(apart)))
    full = warn_of_ceiling(value, n, k, found.ceiling)
    if full and value + reach < math.log(n):  # how large the truth is the samples do not tell
        low = value - reach
        value, reach = (low + math.log(n)) / 2, (math.log(n) - low) / 2
    notes = [*warn_of_copies(joint), *warn_of_width(found.width, n, d), *full, *more]
    stderr = reach / half_width(1.0, freedom, level)
    return conclude(value, stderr, reach, method="mixed", n=n, k=k, notes=notes)


def _mixed(x: Array, z: Array, y: Array, k: int) -> Neighbourhood:
    joint = np.hstack([x, z, y])
    distance = nearest(joint, k)[0][:, -1]
    # Closer than the least positive number is at distance 0.
    radius = np.maximum(distance, np.nextafter(0.0, 1.0))
    # Where many samples tie at the k-th distance fewer than k - 1 are closer: all counts are of one kind.
    order = count_within(joint, radius) + 1
    at_y = digamma(count_within(y, radius) + 1) if y.shape[1] else digamma(len(x))
    xy, zy = np.hstack([x, y]), np.hstack([z, y])
    marginal = digamma(count_within(xy, radius) + 1) + digamma(count_within(zy, radius) + 1)
    contributions = np.asarray(digamma(order) - marginal + at_y, dtype=np.float64)
    # Each count in a subspace is at least that in all.
    ceiling = float(np.mean(at_y)) - float(digamma(k))
    return Neighbourhood(contributions, float(np.median(distance)), ceiling)


def warn_of_width(
    width: float, n: int, d: int, advice: str = "use the default method, fewer columns or more samples"
) -> list[str]:
    """A warning if neighbourhoods of the given half-width are wider than one standard deviation."""
    if width <= _WIDE:
        return []
    return [
        f"{n} samples are few for {d} dimensions: the neighbourhoods are {2 * width:.1f} standard deviations "
        f"wide, so nearest neighbours alone fall short; {advice}."
    ]


def warn_of_ceiling(value: float, n: int, k: int, ceiling: float | None = None) -> list[str]:
    """A warning if a nearest-neighbour estimate is near the most that it can be, ψ(n) - ψ(k) if not given."""
    if ceiling is None:
        ceiling = float(digamma(n) - digamma(k))
    if value <= _NEAR_CEILING * ceiling:
        return []
    return [
        f"the estimate {value:.2f} is near {ceiling:.2f} nats, the most that {n} samples can show (log(n/k), k "
        "neighbours, n samples of one condition): read it as a lower bound, or use more samples or a parametric "
        "method."
    ]
