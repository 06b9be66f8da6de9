"""The baseline of the calibrated estimator: an elliptical dependence, and what nearest neighbours see of it.

The columns' normal scores, X and Z less their linear regression on Y, are whitened and turned to canonical pairs:
invertible, so the information stays. The baseline is the Gaussian copula of these, its information known in closed
form, or a Student-t copula (dependence through a common random scale) where the likelihood asks for it. The
nearest-neighbour estimate K is taken on the samples, and on samples of as many that are drawn from the baseline
and go through the very same steps: what K misses there it misses, of that much, on the samples.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.optimize import minimize_scalar
from scipy.special import digamma, gammaln, ndtri, stdtrit
from scipy.stats import rankdata

from arvdm_theory.information.estimators.knn import ksg_contributions
from arvdm_theory.information.estimators.plugin import log_det_bias, normal_scores
from arvdm_theory.information.estimators.samples import SampleError

__all__ = [
    "SHARED",
    "Parts",
    "baseline_information",
    "calibrated_parts",
    "canonical_form",
    "overclaim",
    "student_information",
]

Array = NDArray[np.float64]

_EM_STEPS = 30
_EM_TOLERANCE = 1e-3
# 1/ν of the heaviest tails that a fit may find.
_HEAVIEST = 1.0
# No ν is fitted where the likelihood's slope at ν = ∞ promises less than half of the gain that it takes.
_HOPELESS = 0.5
# Baseline samples drawn: their noise adds 1/draws of the variance of K.
_FEWEST_DRAWS, _MOST_DRAWS, _DRAWN = 2, 8, 4000
# Share of log(n/k) up to which nearest neighbours of two columns need no calibration.
_EASY_UP_TO = 0.2
# Re-pairings that a baseline's claim is held against, and the least overclaim that counts.
_PAIRINGS, _OVERCLAIM = 50, 0.1
# Contributions of nearest neighbours share samples. Of K less the baseline's the variance of the mean was measured
# to be 0.6 to 1.8 times that of as many independent ones, over one to five columns a side, correlations 0 to 0.9.
SHARED = 1.6
"""Times the variance of a mean of neighbours' contributions is that of independent ones."""


@dataclass(frozen=True)
class Parts:
    """What the estimate is made of, in nats.

    Attributes:
        baseline: information of the baseline law, bias removed.
        neighbours: nearest-neighbour estimate from the samples.
        expected: its mean over samples drawn from the baseline; the baseline itself where none are.
        freedom: degrees of freedom ν of the baseline's Student-t copula; infinite for a Gaussian one.
        width: median neighbourhood half-width, in standard deviations.
        draws: how many samples were drawn.
        fitted: contributions of the samples to the baseline, (n,).
        seen: and to the nearest-neighbour estimate.
    """

    baseline: float
    neighbours: float
    expected: float
    freedom: float
    width: float
    draws: int
    fitted: Array = field(compare=False, repr=False)
    seen: Array = field(compare=False, repr=False)

    @property
    def correction(self) -> float:
        """What the samples show beyond the baseline: K(samples) - E K(baseline)."""
        return self.neighbours - self.expected


def calibrated_parts(
    x: Array,
    z: Array,
    y: Array,
    *,
    k: int = 3,
    draws: int | None = None,
    seed: int = 0,
    freedom: float | None = None,
) -> Parts:
    """Baseline, nearest-neighbour estimate and its expectation under the baseline.

    Of a Gaussian baseline the expectation is B + E[K - G], G the Gaussian estimate from the drawn samples, whose
    mean is known: K and G err alike, so that few draws do. None are needed for two columns whose information is
    below a fifth of log(n/k), where K is right but for less than its error, and one is enough where the correction
    is within its error.

    Args:
        x: shape (n, d_x), already without what Y explains nonlinearly (:func:`residuals`).
        z: shape (n, d_z), likewise.
        y: shape (n, d_y), d_y = 0 for mutual information.
        k: neighbours.
        draws: samples of size n drawn from the baseline; as many as it takes if left out.
        seed: of the draws.
        freedom: of the baseline, where it is known; fitted if left out.
    """
    n, sizes = len(x), (x.shape[1], z.shape[1], y.shape[1])
    ranks = rankdata(np.hstack([x, z, y]), axis=0)
    scores = np.split(ndtri(ranks / (n + 1)), np.cumsum(sizes)[:-1], axis=1)
    a, c, given, correlations = _canonical(*scores)
    # Few samples of a strong dependence may have the same ranks on both sides.
    correlations = np.minimum(correlations, 1 - 1 / n**2)
    if freedom is None:
        freedom = math.inf if draws == 0 else _tail_freedom(ranks, sizes)
    gaussian, raw = _gaussian(n, correlations, sizes), _gaussian(n, correlations)
    baseline = gaussian + student_information(sizes, freedom)
    found = ksg_contributions(a, c, given, k)
    seen = float(found.contributions.mean())
    fitted = baseline + _gaussian_influence(a, c, correlations)
    easy = sum(sizes) == 2 and math.isinf(freedom) and max(baseline, seen) <= _EASY_UP_TO * math.log(n / k)
    most = min(max(_DRAWN // n, _FEWEST_DRAWS), _MOST_DRAWS) if draws is None else draws
    # The drawn samples have the information that the baseline is said to have: sample correlations are too large.
    scale = max(gaussian, 0.0) / raw if raw > 0 else 0.0
    rho = np.sqrt(-np.expm1(scale * np.log1p(-(correlations**2))))
    # Other samples, other draws: over many samples their noise averages out.
    rng = np.random.default_rng([seed, zlib.crc32(ranks.tobytes())])
    excess: list[float] = []
    spread = math.sqrt(SHARED * float((found.contributions - fitted).var()) / n)
    while len(excess) < most and not (draws is None and easy):
        drawn = _draw(rng, n, sizes, rho, freedom)
        value = float(ksg_contributions(*canonical_form(*drawn), k).contributions.mean())
        excess.append(value - (_gaussian(n, _canonical(*drawn)[3], sizes) if math.isinf(freedom) else baseline))
        if draws is None and abs(seen - baseline - float(np.mean(excess))) < spread:
            break
    expected = baseline + (float(np.mean(excess)) if excess else 0.0)
    return Parts(baseline, seen, expected, freedom, found.width, len(excess), fitted, found.contributions)


def baseline_information(x: Array, z: Array, y: Array, freedom: float = math.inf) -> float:
    """The baseline of :func:`calibrated_parts` alone, for a known ν."""
    n, sizes = len(x), (x.shape[1], z.shape[1], y.shape[1])
    correlations = _canonical(*(_scores(part) for part in (x, z, y)))[3]
    return _gaussian(n, np.minimum(correlations, 1 - 1 / n**2), sizes) + student_information(sizes, freedom)


def _gaussian_influence(left: Array, right: Array, rho: Array) -> Array:
    """Contributions of samples of canonical pairs to -½ Σ log(1 - ρ²): mean 0, (n,).

    The log ratio of the pairs' Gaussian densities, of which the expectation is that sum.
    """
    first, second = left[:, : len(rho)], right[:, : len(rho)]
    terms = rho * (2 * first * second - rho * (first**2 + second**2)) / (2 * (1 - rho**2))
    influence: Array = terms.sum(1) - terms.sum(1).mean()
    return influence


def overclaim(x: Array, z: Array, y: Array) -> float:
    """By how many nats the Gaussian baseline claims more than its own log ratio f bears out; 0 if it does not.

    For every f, E f - log E' e^f ≤ I, E' over re-paired samples (Donsker and Varadhan 1983). If the law is the
    baseline's, log E' e^f = 0; where it is above, f is no log ratio of these samples and the baseline's closed
    form is worth only the difference. Counted from 0.1 nats and a tenth of the claim on: few pairings make the
    mean where a claim is large, and their mean is then, but for chance, too low.
    """
    left, right, _, correlations = _canonical(*(_scores(part) for part in (x, z, y)))
    rho = np.minimum(correlations, 1 - 1e-9)
    pairs = len(rho)
    left, right = left[:, :pairs], right[:, :pairs]
    claim = -0.5 * float(np.log1p(-(rho**2)).sum())
    scale = rho / (1 - rho**2)
    of_left, of_right = (claim / 2 - (rho * scale * side**2).sum(1) / 2 for side in (left, right))
    left = left * scale

    def ratio(shift: int) -> Array:
        pairs_of = np.einsum("ij,ij->i", left, np.roll(right, shift, axis=0))
        return np.asarray(of_left + np.roll(of_right, shift) + pairs_of)

    shifts = np.unique(np.linspace(1, len(left) - 1, _PAIRINGS).astype(int))
    logs = np.concatenate([ratio(int(shift)) for shift in shifts])
    top = float(logs.max())
    weights = np.exp(logs - top)
    excess = top + math.log(float(weights.mean()))
    return excess if excess > max(_OVERCLAIM, claim / 10) else 0.0


def _gaussian(n: int, rho: Array, sizes: tuple[int, int, int] | None = None) -> float:
    """-½ Σ log(1 - ρ²) of sample correlations, for given sizes less its expectation under independence."""
    value = -0.5 * float(np.log1p(-(rho**2)).sum())
    if sizes is None:
        return value
    d_x, d_z, d_y = sizes
    signed = ((1, d_x + d_y), (1, d_z + d_y), (-1, d_y), (-1, d_x + d_z + d_y))
    return value - 0.5 * sum(sign * log_det_bias(d, n - 1) for sign, d in signed if d)


def canonical_form(x: Array, z: Array, y: Array) -> tuple[Array, Array, Array]:
    """Normal scores of every column; X and Z less their regression on Y, whitened, as canonical pairs."""
    left, right, given, _ = _canonical(*(_scores(part) for part in (x, z, y)))
    return left, right, given


def _scores(part: Array) -> Array:
    return normal_scores(part) if part.shape[1] else part


def _canonical(x: Array, z: Array, y: Array) -> tuple[Array, Array, Array, Array]:
    """Whitened residuals of X and Z on Y, turned to canonical pairs; Y whitened; the canonical correlations."""
    given = _white(y) if y.shape[1] else y
    left, right = _white(_without(x, given)), _white(_without(z, given))
    turn_x, correlations, turn_z = np.linalg.svd(left.T @ right / len(x))
    return left @ turn_x, right @ turn_z.T, given, correlations


def _without(points: Array, white: Array) -> Array:
    centred: Array = points - points.mean(0)
    if white.shape[1]:
        centred -= white @ (white.T @ centred / len(points))
    return centred


def _white(points: Array) -> Array:
    """Affine image with mean 0 and the identity as covariance (of n, not n - 1)."""
    centred = points - points.mean(0)
    try:
        factor = np.linalg.cholesky(centred.T @ centred / len(points))
    except np.linalg.LinAlgError:
        raise SampleError("some columns are linear functions of the others: drop them") from None
    image: Array = solve_triangular(factor, centred.T, lower=True).T
    return image


def _draw(
    rng: np.random.Generator, n: int, sizes: tuple[int, int, int], rho: Array, freedom: float
) -> tuple[Array, Array, Array]:
    """Samples with canonical correlations ``rho`` of X and Z, Y uncorrelated, and one random scale for all."""
    x, z, y = (rng.standard_normal((n, size)) for size in sizes)
    z[:, : len(rho)] = rho * x[:, : len(rho)] + np.sqrt(1 - rho**2) * z[:, : len(rho)]
    if math.isinf(freedom):
        return x, z, y
    scale = np.sqrt(freedom / rng.chisquare(freedom, size=(n, 1)))
    return x * scale, z * scale, y * scale


def student_information(sizes: tuple[int, int, int], freedom: float) -> float:
    """I(X; Z | Y) of uncorrelated jointly Student-t variables: what their common random scale tells.

    c(d_x + d_y) + c(d_z + d_y) - c(d_y) - c(d_x + d_z + d_y) with the entropy of the standard d-variate t,
    c(d) = log Γ(ν/2) - log Γ((ν+d)/2) + (d/2) log(νπ) + ((ν+d)/2) (ψ((ν+d)/2) - ψ(ν/2)); 0 for ν = ∞. With
    correlations, the Gaussian information of the scale matrix is to be added.

    Args:
        sizes: (d_x, d_z, d_y).
        freedom: ν > 0, the degrees of freedom.
    """
    if math.isinf(freedom):
        return 0.0
    d_x, d_z, d_y = sizes

    def entropy(d: int) -> float:
        half, more = freedom / 2, (freedom + d) / 2
        return float(gammaln(half) - gammaln(more) + more * (digamma(more) - digamma(half)))

    # The terms in log(νπ) cancel.
    return entropy(d_x + d_y) + entropy(d_z + d_y) - entropy(d_y) - entropy(d_x + d_z + d_y)


def _tail_freedom(ranks: Array, sizes: tuple[int, int, int]) -> float:
    """Degrees of freedom of the Student-t copula of all columns; ∞ unless the likelihood asks for one.

    The t copula must beat, by the BIC's ½ log n, a law in which X, Z and Y have each their own random scale
    and share only their Gaussian dependence: heavy tails alone are no information.
    """
    n = len(ranks)
    scores = ndtri(ranks / (n + 1))
    correlation = np.atleast_2d(np.corrcoef(scores.T))
    if _tail_slope(scores, correlation) ** 2 < _HOPELESS * math.log(n):
        return math.inf
    blocks = [block for block in np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1]) if len(block)]
    joint, freedom = _best_freedom(ranks)
    # Apart they are at least as likely as the Gaussian copula.
    gaussian = -n / 2 * float(np.linalg.slogdet(correlation)[1])
    if math.isinf(freedom) or joint < gaussian + 0.5 * math.log(n):
        return math.inf
    shared = sum(np.linalg.slogdet(correlation[np.ix_(block, block)])[1] for block in blocks)
    shared = n / 2 * (shared - np.linalg.slogdet(correlation)[1])
    apart = sum(_best_freedom(ranks[:, block])[0] for block in blocks) + shared
    return freedom if joint > apart + 0.5 * math.log(n) else math.inf


def _tail_slope(scores: Array, correlation: Array) -> float:
    """Standardised slope of the Student-t copula's log-likelihood in 1/ν at ν = ∞; 0 if it falls.

    With s a sample's normal scores and q = sᵀ R⁻¹ s the slope is the sum over samples of

        q²/4 - d q/2 + d (d - 2)/4 - sᵀ R⁻¹ (s³ + s)/4 + Σ_j (3 s_j² + 1)/4,

    the last two terms because quantiles of a t law move with ν too: t⁻¹(Φ(s)) = s + (s³ + s)/4ν + O(ν⁻²). Half of
    its square over the variance is what the likelihood can gain, to second order.
    """
    d = scores.shape[1]
    solved = np.linalg.solve(correlation, scores.T).T
    q = (scores * solved).sum(1)
    slope = (
        q**2 - 2 * d * q + d * (d - 2) - (solved * (scores**3 + scores)).sum(1) + (3 * scores**2 + 1).sum(1)
    ) / 4
    return max(0.0, float(slope.mean() / slope.std())) * math.sqrt(len(scores))


def _best_freedom(ranks: Array) -> tuple[float, float]:
    """Largest log-likelihood of a Student-t copula, its scale matrix fitted, and the ν of it."""
    n, d = ranks.shape
    if d == 1:
        return 0.0, math.inf
    positions = np.rint(2 * ranks).astype(np.int64)
    levels = np.arange(2 * n + 2) / (2 * (n + 1))
    scatter = np.corrcoef(ndtri(levels)[positions].T)

    def lengths(points: Array) -> Array:
        half = solve_triangular(np.linalg.cholesky(scatter), points.T, lower=True, check_finite=False)
        squares: Array = np.einsum("ij,ij->j", half, half)
        return squares

    def likelihood(inverse: float) -> float:  # of a law whose scatter is singular to rounding: as low as can be
        nonlocal scatter
        try:
            return fitted(inverse)
        except np.linalg.LinAlgError:
            scatter = np.corrcoef(ndtri(levels)[positions].T)
            return -math.inf

    def fitted(inverse: float) -> float:
        if inverse < 1e-3:
            table = ndtri(levels)
            points = table[positions]
            covariance = points.T @ points / n
            return float(-n / 2 * (np.linalg.slogdet(covariance)[1] + d) + (points**2).sum() / 2)
        nonlocal scatter  # the fit to a neighbouring ν is a good start
        freedom = 1 / inverse
        points = stdtrit(freedom, levels)[positions]
        for _ in range(_EM_STEPS):
            if not np.isfinite(scatter).all():
                raise np.linalg.LinAlgError("the scatter has degenerated")
            weights = (freedom + d) / (freedom + lengths(points))
            # Over the weights' sum, not n: the same fixed point, sooner reached (Kent, Tyler and Vardi 1994).
            update = (points * weights[:, None]).T @ points / weights.sum()
            change = np.abs(update - scatter).max()
            scatter = update
            if change < _EM_TOLERANCE * np.abs(scatter).max():
                break
        constant = gammaln((freedom + d) / 2) + (d - 1) * gammaln(freedom / 2) - d * gammaln((freedom + 1) / 2)
        joint = (
            -(freedom + d) / 2 * np.log1p(lengths(points) / freedom).sum() - n / 2 * np.linalg.slogdet(scatter)[1]
        )
        margins = -(freedom + 1) / 2 * np.log1p(points**2 / freedom).sum()
        return float(n * constant + joint - margins)

    best = minimize_scalar(lambda inverse: -likelihood(inverse), bounds=(1e-3, _HEAVIEST), method="bounded",
                           options={"xatol": 1e-2})  # fmt: skip
    gaussian = likelihood(0.0)
    if not -best.fun > gaussian:
        return gaussian, math.inf
    return float(-best.fun), float(1 / best.x)
