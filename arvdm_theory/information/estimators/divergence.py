"""KL divergence by nearest neighbours, in nats: balls of one radius for both laws, and what they cannot see."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import eigh, solve_triangular
from scipy.optimize import brentq
from scipy.special import digamma

from arvdm_theory.information.estimators.knn import warn_of_width
from arvdm_theory.information.estimators.neighbours import count_within, nearest
from arvdm_theory.information.estimators.plugin import gaussian_divergence_value
from arvdm_theory.information.estimators.result import conclude
from arvdm_theory.information.estimators.samples import (
    SampleError,
    require_neighbours,
    two_samples,
    warn_of_copies,
    warn_of_deterministic_relations,
    warn_of_heavy_tails,
)
from arvdm_theory.information.estimators.ties import untied
from arvdm_theory.information.estimators.uncertainty import Dependence, cuts, still_to_come, subsample_error
from arvdm_theory.number import LEVEL, Number, half_width

__all__ = ["calibrated_divergence", "knn_divergence"]

Array = NDArray[np.float64]

# Samples drawn from fitted Gaussian laws to see what nearest neighbours miss there, to remove or to warn of it.
_DRAWS = 4
# Samples per neighbour in the smallest subsample that a standard error is taken from.
_SMALLEST = 15
# The parts of the samples whose estimates show how an estimate moves with n, and how fast a bias falls at most.
_PARTS, _FASTEST = 4, 0.5
# So many times more samples of P than of Q in a ball that reaches Q's neighbours: Q is hardly there. A share
# of P that is told of, and how much rarer than can be seen, in nats, Q may be there.
_MANY, _BEYOND, _RARER = 6, 0.05, 7.0
# The nearest sample of Q so many times farther than its own neighbours: Q has ended there. A share of P that is
# told of, and how much rarer than can be seen, in nats, Q may be.
_FARTHER, _FAR_BEYOND, _NOWHERE = 3.0, 0.01, 20.0
# Least nats, and share of the claim, by which a Gaussian fit overclaims that count.
_OVERCLAIM, _OF_CLAIM = 0.1, 0.1


class _Seen(NamedTuple):
    """Two estimates from nearest neighbours, how wide they look, and how much of P lies where Q hardly is."""

    balls: float
    radii: float
    width: float
    beyond: float


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
    seen = _neighbours(of_p, of_q, k)
    covariance, freedom, more = subsample_error(
        lambda a, b: _neighbours(a, b, k).balls, [[of_p], [of_q]], _SMALLEST * k, dependence, seed
    )
    stderr = math.sqrt(covariance[0, 0])
    reach = half_width(stderr, freedom, level)
    notes += [
        *warn_of_copies(np.vstack([of_p, of_q])),
        *warn_of_width(seen.width, *of_p.shape),
        *_warn_of_absence(seen.beyond, _ended(of_p, of_q, k)),
    ]
    bias = error = 0.0
    if min(len(of_p), len(of_q)) > of_p.shape[1] + 2 and not _overclaimed(of_p, of_q):
        (bias, _), error = _bias_on_gaussians(of_p, of_q, k, seed)
    # More than the few draws would show by chance.
    if abs(bias) > reach + 3 * error:
        notes.append(
            f"on Gaussian samples of these sizes and moments nearest neighbours are {bias:+.2f} nats "
            "off, more than the interval covers: use the calibrated method or more samples."
        )
    return conclude(seen.balls, stderr, reach, method="knn", n=len(of_p), k=k, notes=[*notes, *more])


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
    of_p, of_q = two_samples(p, q)
    (n, d), m = of_p.shape, len(of_q)
    pooled = untied(np.vstack([of_p, of_q]), np.random.default_rng([seed, n]))
    of_p, of_q, notes = _divergence_samples(pooled[:n], pooled[n:], k)
    if min(n, m) < d + 3:
        raise SampleError(f"covariances in {d} dimensions need {d + 3} samples of each, got {n} of P and {m} of Q")
    gaussian = not _overclaimed(of_p, of_q)
    normal = _mesokurtic(of_p) and _mesokurtic(of_q)

    def pieces(a: Array, b: Array, start: int = seed + 1) -> Array:
        seen = _neighbours(a, b, k)
        bias, error = _bias_on_gaussians(a, b, k, start) if gaussian else (np.zeros(2), 0.0)
        return np.array([seen.balls - bias[0], seen.radii - bias[1], bias[0], error, seen.width, seen.beyond])

    balls, radii, bias, error, width, beyond = pieces(of_p, of_q, seed)
    ended = _ended(of_p, of_q, k)
    smallest = max(_SMALLEST * k, 10 * d)
    covariance, freedom, more = subsample_error(pieces, [[of_p], [of_q]], smallest, dependence, seed)
    # Subsamples hold little of Q's tails, where P's samples share a few of Q's: their spread is too small, and
    # that of the jackknife too large. The mean of the two variances is about right.
    left_out = subsample_error(
        lambda a, b: np.array(_neighbours(a, b, k)[:2]), [[of_p], [of_q]], max(n, m), dependence, seed
    )[0]
    smaller = None
    if min(n, m) >= _PARTS * smallest:
        rng = np.random.default_rng(seed)
        parts = [cuts(len(array), _PARTS, dependence, rng) for array in (of_p, of_q)]
        smaller = np.array([pieces(of_p[i], of_q[j]) for i, j in zip(*parts, strict=True)])
    found = []
    for column, value in enumerate((balls, radii)):
        # The Gaussian draws are the same in all subsamples: their noise is no part of the spread.
        stderr = math.sqrt((covariance[column, column] + left_out[column, column]) / 2 + error**2)
        ahead = 0.0
        if smaller is not None:
            ahead = still_to_come(value, smaller[:, column], stderr, min(_FASTEST, 1 / d))
            moved = float(np.min([balls, radii] - smaller[:, :2].mean(0)))
            ahead = max(ahead, _absent(moved, stderr, beyond), _NOWHERE * ended, key=abs)
        # The truth lies between where the estimate is and where it is going.
        reach = half_width(stderr, freedom, level) + abs(ahead) / 2
        found.append((value + ahead / 2 - reach, value + ahead / 2 + reach, stderr))
    low, high = found[0][:2]
    if gaussian and not normal:
        # The bias was seen on samples of Gaussian laws, which these are not: without it is as likely.
        low, high = min(low, low + bias), max(high, high + bias)
    errors = math.hypot(found[0][2], found[1][2])
    if abs(balls - radii) > max(half_width(errors, freedom, level), _OF_CLAIM * abs(balls)):
        low, high = min(low, found[1][0]), max(high, found[1][1])
        notes.append(
            f"balls of one radius say {balls:.2f} nats and two radii {radii:.2f}, more apart than their errors: "
            "the interval covers both."
        )
    if not gaussian:
        notes.append("P and Q are not Gaussian by far: nearest neighbours were taken as they are.")
    elif abs(bias) > max(high - low, abs(balls)) / 4 + 3 * error:
        notes.append(
            f"on Gaussian samples of these sizes and moments nearest neighbours are {bias:+.2f} nats off. "
            "That was removed, but where P and Q are not Gaussian what is left may be as large: use more "
            "samples of both."
        )
    notes += [
        *warn_of_width(
            width, n, d, "differences from a Gaussian law are missed; use fewer columns or more samples"
        ),
        *_warn_of_absence(beyond, ended),
        *more,
    ]
    reach = (high - low) / 2
    # One uncertainty: the standard error is the one whose interval this is.
    stderr = reach / half_width(1.0, freedom, level)
    return conclude((low + high) / 2, stderr, reach, method="calibrated", n=n, k=k, notes=notes)


def _absent(moved: float, stderr: float, beyond: float) -> float:
    """What may be missing where Q has hardly a sample.

    Where Q is not seen at all, log P/Q of a ball grows as log n: by log 4 from quarters of the samples to all.
    By as much of that as the estimate moved, and half its error, over the share of P that lies so, Q may be rarer
    there than is seen.
    """
    unseen = min(1.0, max(0.0, moved + stderr / 2) / (beyond * math.log(_PARTS))) if beyond else 0.0
    return float(_RARER * beyond * unseen**1.25)


def _ended(p: Array, q: Array, k: int) -> float:
    """Share of P whose nearest sample of Q is farther than three times that one's own neighbour k: Q has ended."""
    p, q = _whitened(p, q)
    distance, index = nearest(p, 1, among=q)
    own = nearest(q, k)[0][:, -1]
    return float((distance[:, 0] > _FARTHER * own[index[:, 0]]).mean())


def _warn_of_absence(beyond: float, ended: float) -> list[str]:
    if beyond <= _BEYOND and ended <= _FAR_BEYOND:
        return []
    return [
        f"{max(beyond, ended):.0%} of the samples of P lie where Q has hardly any: how rare Q is there no sample "
        "tells; read the value as a lower bound, or use more samples of Q."
    ]


def _mesokurtic(points: Array) -> bool:
    """Whether the fourth moments are those of a Gaussian law, to four standard errors (Mardia 1970)."""
    n, d = points.shape
    centred = points - points.mean(0)
    lengths = (
        solve_triangular(np.linalg.cholesky(np.atleast_2d(np.cov(points.T))), centred.T, lower=True) ** 2
    ).sum(0)
    return bool(abs(float((lengths**2).mean()) - d * (d + 2)) < 4 * math.sqrt(8 * d * (d + 2) / n))


def _overclaimed(p: Array, q: Array) -> bool:
    """Whether the log ratio f of fitted Gaussian laws claims more of P against Q than samples of Q bear out.

    For every f, E_P f - log E_Q e^f ≤ KL(P ‖ Q) (Donsker and Varadhan 1983); log E_Q e^f = 0 for Gaussian laws.
    """
    ratios = []
    for points in (p, q):
        logs = []
        for law in (p, q):
            centred = points - law.mean(0)
            factor = np.linalg.cholesky(np.atleast_2d(np.cov(law.T)))
            half = solve_triangular(factor, centred.T, lower=True)
            logs.append(-(half**2).sum(0) / 2 - np.log(np.diag(factor)).sum())
        ratios.append(logs[0] - logs[1])
    claim, top = float(ratios[0].mean()), float(ratios[1].max())
    excess = top + math.log(float(np.exp(ratios[1] - top).mean()))
    return excess > max(_OVERCLAIM, _OF_CLAIM * claim)


def _divergence_samples(p: ArrayLike, q: ArrayLike, k: int) -> tuple[Array, Array, list[str]]:
    """Both samples, checked, and what to warn of."""
    of_p, of_q = two_samples(p, q)
    require_neighbours(len(of_p), k, "p")
    require_neighbours(len(of_q), k, "q")
    pooled = np.vstack([of_p, of_q])
    for array in (pooled, of_p, of_q):
        if warn_of_deterministic_relations(array):
            raise SampleError("some columns are linear functions of the others: drop them")
    return of_p, of_q, warn_of_heavy_tails(pooled, "use the classifier, which works on ranks")


def _neighbours(p: Array, q: Array, k: int) -> _Seen:
    """Both estimates of KL(P ‖ Q), in the units of the samples whitened together.

    ``balls`` is that of :func:`knn_divergence`; ``radii`` is (d/n) Σ log(ν_i/ρ_i) + log(m/(n - 1)), ν_i and ρ_i
    the distances to neighbour k in Q and in P (Wang, Kulkarni and Verdú 2009, section II): without a common radius
    what the two densities err by does not cancel, and no ball is wider than it must be.
    """
    p, q = _whitened(p, q)
    near_p, near_q = nearest(p, k)[0][:, -1], nearest(p, k, among=q)[0][:, -1]
    radius = np.maximum(near_p, near_q)
    inside_p = count_within(p, radius, strict=False)
    inside_q = count_within(p, radius, strict=False, among=q)
    # At an atom both distances are 0 and neither set the radius: the number in it is binomial for both.
    mass_p = digamma(inside_p + (near_q >= near_p)) - digamma(len(p))
    mass_q = digamma(inside_q + (near_p >= near_q)) - digamma(len(q) + 1)
    apart = (near_p > 0) & (near_q > 0)
    radii = p.shape[1] * float(np.log(near_q[apart] / near_p[apart]).sum()) / len(p)
    return _Seen(
        float((mass_p - mass_q).mean()), radii + math.log(len(q) / (len(p) - 1)), float(np.median(near_p)),
        float((inside_p >= _MANY * k).mean()),
    )  # fmt: skip


def _whitened(p: Array, q: Array) -> tuple[Array, Array]:
    """Both samples in the coordinates in which all of them together have the identity as covariance."""
    pooled = np.vstack([p, q])
    scaled = (pooled - pooled.mean(0)) / pooled.std(0)
    factor = np.linalg.cholesky(scaled.T @ scaled / len(scaled))
    white = np.ascontiguousarray(solve_triangular(factor, scaled.T, lower=True).T)
    return white[: len(p)], white[len(p) :]


def _bias_on_gaussians(p: Array, q: Array, k: int, seed: int) -> tuple[Array, float]:
    """Means of both estimates over samples of Gaussian laws of these moments less their divergence G, and the
    standard error of the first.

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
        found.append(_neighbours(of_p, of_q, k)[:2])
    bias: Array = np.mean(found, axis=0) - truth
    return bias, float(np.std(found, axis=0, ddof=1)[0]) / math.sqrt(_DRAWS)
