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
from scipy.linalg import eigh, solve_triangular
from scipy.optimize import brentq
from scipy.special import digamma

from arvdm_theory.information.estimators.neighbours import (
    count_in_boxes,
    count_within,
    nearest,
    neighbour_distances,
    radius_and_counts,
)
from arvdm_theory.information.estimators.plugin import gaussian_divergence_value
from arvdm_theory.information.estimators.result import conclude
from arvdm_theory.information.estimators.samples import (
    SampleError,
    paired_samples,
    require_neighbours,
    two_samples,
    warn_of_deterministic_relations,
    warn_of_duplicates,
    warn_of_heavy_tails,
)
from arvdm_theory.information.estimators.uncertainty import Dependence, subsample_error
from arvdm_theory.number import LEVEL, Number, half_width

__all__ = [
    "Neighbourhood",
    "calibrated_divergence",
    "knn_divergence",
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
_SMALLEST = 30


class Neighbourhood(NamedTuple):
    """What a nearest-neighbour pass over the samples gives.

    Attributes:
        contributions: shape (n,); their mean is the estimate.
        width: median distance to the k-th neighbour, in the units of the columns.
    """

    contributions: Array
    width: float


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

    The contributions of :func:`ksg_contributions`, variant 1, but where a sample's k-th neighbour coincides
    with it: there k is the number of samples at that point, itself included, and every n_s + 1 the number
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
    found = _mixed(scaled[0], scaled[1], scaled[2], k)
    covariance, freedom, more = subsample_error(
        lambda *parts: _mixed(parts[0], parts[1], parts[2], k).contributions.mean(),
        [scaled], _SMALLEST * k, dependence, seed,
    )  # fmt: skip
    stderr = math.sqrt(covariance[0, 0])
    notes = [*warn_of_width(found.width, n, sum(array.shape[1] for array in arrays)), *more]
    return conclude(
        float(found.contributions.mean()), stderr, half_width(stderr, freedom, level),
        method="mixed", n=n, k=k, notes=notes,
    )  # fmt: skip


def _mixed(x: Array, z: Array, y: Array, k: int) -> Neighbourhood:
    joint = np.hstack([x, z, y])
    distance = nearest(joint, k)[0][:, -1]
    # Closer than the least positive number is at distance 0.
    radius = np.maximum(distance, np.nextafter(0.0, 1.0))
    order = np.where(distance > 0, k, count_within(joint, radius) + 1)
    at_y = digamma(count_within(y, radius) + 1) if y.shape[1] else digamma(len(x))
    xy, zy = np.hstack([x, y]), np.hstack([z, y])
    marginal = digamma(count_within(xy, radius) + 1) + digamma(count_within(zy, radius) + 1)
    contributions = np.asarray(digamma(order) - marginal + at_y, dtype=np.float64)
    return Neighbourhood(contributions, float(np.median(distance)))


def knn_divergence(
    p: ArrayLike,
    q: ArrayLike,
    *,
    k: int = 3,
    dependence: Dependence = "independent",
    level: float = LEVEL,
    seed: int = 0,
) -> Number:
    """KL(P ‖ Q) from samples of each, by k nearest neighbours in balls of one radius for both.

    At sample i of P let ε_i be the larger of its distances to its k-th neighbour in P and in Q, and l_i and m_i
    the numbers of other samples of P and of Q within ε_i. The estimate is the mean of

        [ψ(l_i + 1_Q) - ψ(n)] - [ψ(m_i + 1_P) - ψ(m + 1)],

    1_Q being 1 where Q's neighbour set the radius, and 1_P where P's did. One radius for both cancels what the
    ratio of two radii errs by (Wang, Kulkarni and Verdú 2009, section III, where the terms are ψ(l_i) and ψ(m_i)).
    The samples are first whitened together, which changes no divergence; the standard error comes from subsamples.

    **What it estimates without bias** is the mean of log P(B_i)/Q(B_i), B_i the ball of radius ε_i. *Proof.* Let N
    be the number of the n - 1 other samples in the ball of P-mass s, and U the mass at which N reaches k. For
    every s, set by Q's samples, d/ds E log max(U, s) = P(N ≥ k)/s, and that is the derivative of
    E[ψ(k) 1(N < k) + ψ(N + 1) 1(N ≥ k)] too, since binomial probabilities have b_n(N)/s = n b_{n-1}(N - 1)/N and
    since ψ(N + 1) - ψ(N) = 1/N. At s = 0 both agree: E log U = ψ(k) - ψ(n). Likewise for Q. ∎ With ψ(l_i) and
    ψ(m_i) instead the value is too low by the mean of 1/l_i where Q is thinner than P.

    **Bias.** What is left is that a ball tells the ratio of two averages. Where P has samples and Q has none, the
    ball that reaches Q holds the bulk of P on that side, and the ratio of the averages is far below that at its
    centre: Q narrower than P makes the estimate low (N(0, I) against N(0, I/4) in the plane, n = m = 1000:
    0.76 of 1.61). In 5 and more dimensions all balls are wide, and Q wider than P makes it high. No correction of
    the contributions can know what lies where Q has no samples; what Gaussian laws of the same moments suffer is
    seen on samples drawn from them, warned of where the interval does not cover it, and taken off by
    :func:`calibrated_divergence`.

    Args:
        p: samples of P, shape (n, d) or (n,).
        q: samples of Q, shape (m, d) or (m,).
        k: neighbours.
        dependence: of the samples within each of the two.
        level: of the confidence interval.
        seed: of the shuffle that cuts the subsamples, and of the Gaussian samples.

    Raises:
        SampleError: as :func:`ksg`, and for different dimensions or columns that are linear functions of others.
    """
    of_p, of_q, notes = _divergence_samples(p, q, k)
    contributions, width = _divergence(of_p, of_q, k)
    value = float(contributions.mean())
    covariance, freedom, more = subsample_error(
        lambda a, b: _divergence(a, b, k)[0].mean(), [[of_p], [of_q]], _SMALLEST * k, dependence, seed
    )
    stderr = math.sqrt(covariance[0, 0])
    reach = half_width(stderr, freedom, level)
    notes += warn_of_width(width, *of_p.shape)
    bias = error = 0.0
    if min(len(of_p), len(of_q)) > of_p.shape[1] + 2:
        bias, error = _bias_on_gaussians(of_p, of_q, k, seed)
    # More than the few draws would show by chance; the interval is not known (NaN) for very few samples.
    if abs(bias) > float(np.nan_to_num(reach)) + 3 * error:
        notes.append(
            f"on Gaussian samples of these sizes and moments nearest neighbours are {bias:+.2f} nats "
            "off, more than the interval covers: use the calibrated method or more samples."
        )
    return conclude(value, stderr, reach, method="knn", n=len(of_p), k=k, notes=[*notes, *more])


def calibrated_divergence(
    p: ArrayLike,
    q: ArrayLike,
    *,
    k: int = 3,
    dependence: Dependence = "independent",
    level: float = LEVEL,
    seed: int = 0,
) -> Number:
    """KL(P ‖ Q) by nearest neighbours, with the bias removed that they have on Gaussian laws of the same moments.

    K(samples) - [E K(Gaussian samples) - G], with K the estimate of :func:`knn_divergence`, E K its mean over
    samples of Gaussian laws with the moments of P and of Q, and G their divergence, itself without bias
    (:func:`~arvdm_theory.information.estimators.gaussian_divergence`). Unbiased to O(1/n) for Gaussian P and Q in
    any dimension and direction, and consistent in a fixed dimension for continuous laws, since both K become so.
    Where both are known to be Gaussian, G alone is the better estimate.

    Arguments and errors as :func:`knn_divergence`; besides, both laws need more than d + 2 samples.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> wide, narrow = rng.normal(size=(2000, 4)), 0.8 * rng.normal(size=(2000, 4))
        >>> estimate = calibrated_divergence(wide, narrow)
        >>> estimate.ci_low < 4 * (math.log(0.8) + 1 / 1.28 - 0.5) < estimate.ci_high
        True
    """
    of_p, of_q, notes = _divergence_samples(p, q, k)
    (n, d), m = of_p.shape, len(of_q)
    if min(n, m) < d + 3:
        raise SampleError(f"covariances in {d} dimensions need {d + 3} samples of each, got {n} of P and {m} of Q")

    def pieces(a: Array, b: Array, start: int = seed + 1) -> Array:
        contributions, width = _divergence(a, b, k)
        bias, error = _bias_on_gaussians(a, b, k, start)
        return np.array([contributions.mean() - bias, bias, error, width])

    value, bias, error, width = pieces(of_p, of_q, seed)
    covariance, freedom, more = subsample_error(
        pieces, [[of_p], [of_q]], max(_SMALLEST * k, 10 * d), dependence, seed
    )
    stderr = math.sqrt(covariance[0, 0])
    reach = half_width(stderr, freedom, level)
    if abs(bias) > max(float(np.nan_to_num(reach)), abs(value) / 4) + 3 * error:
        notes.append(
            f"on Gaussian samples of these sizes and moments nearest neighbours are {bias:+.2f} nats off. "
            "That was removed, but where P and Q are not Gaussian what is left may be as large: use more "
            "samples of both."
        )
    notes += [
        *warn_of_width(
            width, n, d, "differences from a Gaussian law are missed; use fewer columns or more samples"
        ),
        *more,
    ]
    return conclude(value, stderr, reach, method="calibrated", n=n, k=k, notes=notes)


def _divergence_samples(p: ArrayLike, q: ArrayLike, k: int) -> tuple[Array, Array, list[str]]:
    """Both samples, checked, and what to warn of."""
    of_p, of_q = two_samples(p, q)
    require_neighbours(len(of_p), k, "p")
    require_neighbours(len(of_q), k, "q")
    pooled = np.vstack([of_p, of_q])
    for array in (pooled, of_p, of_q):
        if warn_of_deterministic_relations(array):
            raise SampleError("some columns are linear functions of the others: drop them")
    notes = [
        *warn_of_duplicates(pooled, "add the noise that rounding took away, or use a discrete divergence"),
        *warn_of_heavy_tails(pooled, "use the classifier, which works on ranks"),
    ]
    return of_p, of_q, notes


def _divergence(p: Array, q: Array, k: int) -> tuple[Array, float]:
    """Contributions to KL(P ‖ Q), whose mean is the estimate, and the median distance to neighbour k in P.

    In the units of the samples whitened together.
    """
    pooled = np.vstack([p, q])
    scaled = (pooled - pooled.mean(0)) / pooled.std(0)
    factor = np.linalg.cholesky(scaled.T @ scaled / len(scaled))
    white = np.ascontiguousarray(solve_triangular(factor, scaled.T, lower=True).T)
    p, q = white[: len(p)], white[len(p) :]
    near_p, near_q = nearest(p, k)[0][:, -1], nearest(p, k, among=q)[0][:, -1]
    radius = np.maximum(near_p, near_q)
    inside_p = count_within(p, radius, strict=False)
    inside_q = count_within(p, radius, strict=False, among=q)
    # At an atom both distances are 0 and neither set the radius: the number in it is binomial for both.
    mass_p = digamma(inside_p + (near_q >= near_p)) - digamma(len(p))
    mass_q = digamma(inside_q + (near_p >= near_q)) - digamma(len(q) + 1)
    return np.asarray(mass_p - mass_q, dtype=np.float64), float(np.median(near_p))


def _bias_on_gaussians(p: Array, q: Array, k: int, seed: int) -> tuple[float, float]:
    """Mean of K over samples of Gaussian laws with these moments less their divergence G, and its standard error.

    Fitted moments differ by more than the laws' own. So in the eigenbasis of P's covariance relative to Q's, with
    eigenvalues λ and shift δ, samples are drawn from N(√c δ, λ^c) and N(0, I) with the c that makes their
    divergence, ½ Σ (λ^c - 1 - c log λ + c δ²), equal to G (0 if G is negative).
    """
    (n, d), m = p.shape, len(q)
    value = gaussian_divergence_value(p, q)
    covariances = [np.atleast_2d(np.cov(array.T)) for array in (p, q)]
    spectrum, turn = eigh(*covariances)
    logs, shift = np.log(spectrum), turn.T @ (p.mean(0) - q.mean(0))

    def excess(c: float) -> float:
        return float((np.expm1(c * logs) - c * logs + c * shift**2).sum()) / 2 - value

    share = 0.0 if value <= 0 else 1.0 if excess(1) <= 0 else float(brentq(excess, 0, 1))
    truth = excess(share) + value
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(_DRAWS):
        of_p, of_q = rng.standard_normal((n, d)), rng.standard_normal((m, d))
        of_p = math.sqrt(share) * shift + of_p * np.exp(share * logs / 2)
        found.append(float(_divergence(of_p, of_q, k)[0].mean()))
    return float(np.mean(found)) - truth, float(np.std(found, ddof=1)) / math.sqrt(_DRAWS)


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


def warn_of_ceiling(value: float, n: int, k: int) -> list[str]:
    """A warning if a nearest-neighbour estimate is near ψ(n) - ψ(k), the most that it can be."""
    ceiling = float(digamma(n) - digamma(k))
    if value <= _NEAR_CEILING * ceiling:
        return []
    return [
        f"the estimate {value:.2f} is near {ceiling:.2f} nats, about log(n/k) and the most that {n} samples "
        "can show: read it as a lower bound, or use more samples or a parametric method."
    ]
