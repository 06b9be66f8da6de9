"""The default estimator: right in many dimensions where the dependence is elliptical, and not only there.

Nearest neighbours alone collapse in high dimension: for 16 Gaussian pairs of correlation 0.5 they see a third of
the information. Four exact steps and one approximation put that right.

1. Every column becomes its normal scores: invertible maps of single columns change no information, and equal
   values in random order neither (:mod:`arvdm_theory.information.estimators.ties`).
2. X and Z lose what Y explains of them, X ↦ (X - f(Y))/g(Y), with f linear, or nonlinear where cross-validation
   says so, and g > 0 likewise. For any f and g this is invertible given Y, so I(X; Z | Y) does not change.
3. Beyond three columns: where Z is better predicted from (X, Y) by a nonlinear u(X, Y) than by a linear one, on
   samples left out of the fit, by more than 0.02 nats (or X from (Z, Y)), X gives way to u: with the rest R = Z
   - u, for any u whatever,

       I(X; Z | Y) = I(u; Z | Y) + I(X; R | Y) - I(u; R | Y),

   since h(Z | X, Y) = h(R | X, Y) and h(Z | u, Y) = h(R | u, Y). The first term goes on to step 4; the other two,
   both small where u tells what X tells of Z, are left to nearest neighbours.
4. X (or u) and Z are whitened and turned to canonical pairs: invertible again.
5. I = B + [K(samples) - E K(baseline)] - [bias of K at the samples - its bias at the baseline]. B is the
   information of a baseline law fitted to the samples, in closed form and with its bias removed; K is the
   nearest-neighbour estimate; samples drawn from the baseline go through the very same steps. The last
   bracket is dropped.

The baseline is a Gaussian copula, or a Student-t copula (dependence through a common random scale) where the
likelihood asks for it. The correction R = K(samples) - E K(baseline) enters with weight w = max(0, 1 - 2 s²/R²), s
its standard error: where it is noise, the baseline's smaller error is kept.

**When it is right.** If the samples' law is the baseline's (any dimension, any invertible map of each column, a
linear regression on Y), the dropped bracket is 0 and the estimate is unbiased to O(1/n). If besides X is replaced
by an invertible map g(X) of all its columns, step 3 finds the linear predictor's image and the same holds as far
as the regression has learnt g: an error that shrinks with n. For any other continuous law the estimate is
consistent in a fixed dimension, since both biases of K vanish; at finite n it misses what K cannot resolve of a
dependence that neither the baseline nor the regression has. A sum over d of such pairs is missed the more, the
larger d is; a warning says that neighbourhoods are wide.

**What stands against the baseline.** Its log ratio f of joint and re-paired samples gives a lower bound, E f -
log E' e^f ≤ I, E' over re-paired samples (Donsker and Varadhan 1983). A baseline whose closed form claims more
than that is refuted (clusters, for one), and nearest neighbours are taken as they are; likewise a prediction of
step 3, also where neighbours see more without it.

**What the interval holds.** (a) Sampling error, from disjoint subsamples (few samples: leaving groups out in
turn), with the choice of the weight w (Buckland, Burnham and Augustin 1997), and half of what the correction's
own error would add. (b) What is still to come. The same estimate from quarters of the samples has a larger bias
b(n/4); if b falls like n^{-γ}, then b(n) = D/(4^γ - 1), D the estimate's move from the quarters to the whole.
Without step 3 the interval reaches to where the estimate is going, and the value is its middle; D counts as far
as it is no noise, and γ = min(0.4, 1/d) up to five columns, d of them, min(½, 2/d) beyond. After step 3 the value
is extrapolated by γ = ½ (so by D itself), and the interval is widened, to either side, by |D|/(4^γ - 1) with γ =
min(½, 2/d), the rate at which nearest-neighbour estimates of smooth densities converge. (c) What plain neighbours
see on the columns of step 2 and their error, where that lies beyond (a) and (b). (d) Where (b) grows the faster
the more samples there are, or next samples alone show more (:mod:`arvdm_theory.information.estimators.fineness`),
all up to log(n/k). The standard error that is given is the one whose interval this is. So intervals on laws that
no baseline has are wide, and cover more often than their level says.

**Where it is easy.** Two columns, no condition, 400 and more independent samples, an estimate below a fifth of
log(n/k) that does not move with the samples, no refuted baseline, and squares of the normal scores that are
correlated as Gaussian ones are, the square of their correlation up to 3/√n: there the bias of K is far below its
error, E K(baseline) is the baseline's information, and the errors of B and K are those of means of contributions.
Then nothing is drawn and no subsamples are taken but the quarters.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import solve_triangular
from scipy.optimize import minimize_scalar
from scipy.special import digamma, gammaln, ndtri, stdtrit
from scipy.stats import rankdata

from arvdm_theory.information.estimators.fineness import next_sample_bound
from arvdm_theory.information.estimators.knn import (
    ksg_contributions,
    standardised,
    warn_of_ceiling,
    warn_of_width,
)
from arvdm_theory.information.estimators.plugin import gaussian_contributions, log_det_bias, normal_scores
from arvdm_theory.information.estimators.regression import FEWEST_TO_FIT, held_out_predictions, residuals
from arvdm_theory.information.estimators.result import conclude
from arvdm_theory.information.estimators.samples import (
    SampleError,
    paired_samples,
    require_neighbours,
    warn_of_copies,
    warn_of_deterministic_relations,
)
from arvdm_theory.information.estimators.ties import untied
from arvdm_theory.information.estimators.uncertainty import (
    Dependence,
    contribution_error,
    cuts,
    still_to_come,
    subsample_error,
)
from arvdm_theory.number import LEVEL, Number, half_width

__all__ = [
    "Parts",
    "Turned",
    "calibrated_information",
    "calibrated_parts",
    "canonical_form",
    "student_information",
    "turned",
]

Array = NDArray[np.float64]

# A nonlinear prediction must be worth this many nats, and standard errors, for X and Z to be estimated through it.
_WORTHWHILE_NATS, _WORTHWHILE_ERRORS = 0.02, 2.0
_EM_STEPS = 30
_EM_TOLERANCE = 1e-3
# 1/ν of the heaviest tails that a fit may find.
_HEAVIEST = 1.0
# Baseline samples drawn: their noise adds 1/draws of the variance of K.
_FEWEST_DRAWS, _MOST_DRAWS, _DRAWN = 3, 12, 6000
# The parts of the samples whose estimates show how the estimate moves with n.
_PARTS = 4
# The bias of a smooth estimate in d dimensions falls like n^{-2/d}, and is taken to fall no faster than n^{-1/2}.
_FASTEST = 0.5
# Samples per neighbour in the smallest subsample that a standard error is taken from.
_SMALLEST = 10
# Columns up to which nearest neighbours see what a regression would.
_FEW_COLUMNS = 3
# Columns up to which the bias of nearest neighbours may fall as slowly as n^{-1/d}: links that oscillate.
_SLOW_COLUMNS, _SLOW = 5, 0.4
# Re-pairings that a baseline's claim is held against, and the least overclaim that counts.
_PAIRINGS, _OVERCLAIM = 50, 0.1
# Samples, and share of log(n/k), of an easy estimate; errors by which neighbours refute a larger baseline, and by
# which the squares may be correlated otherwise.
_EASY_FROM, _EASY_UP_TO, _REFUTED, _COMMON = 400, 0.2, 3.0, 3.0
# How far an estimate may still move, in nats and beyond its error, without a word.
_MOVES = 0.1
_ADVICE = (
    "dependence that is neither of the baseline's kind nor wide is missed; fewer columns or more samples show it"
)


@dataclass(frozen=True)
class Parts:
    """What the estimate is made of, in nats.

    Attributes:
        baseline: information of the baseline law, bias removed.
        neighbours: nearest-neighbour estimate from the samples.
        expected: its mean over samples drawn from the baseline.
        freedom: degrees of freedom ν of the baseline's Student-t copula; infinite for a Gaussian one.
        width: median neighbourhood half-width, in standard deviations.
    """

    baseline: float
    neighbours: float
    expected: float
    freedom: float
    width: float

    @property
    def correction(self) -> float:
        """What the samples show beyond the baseline: K(samples) - E K(baseline)."""
        return self.neighbours - self.expected


def calibrated_information(
    x: ArrayLike,
    z: ArrayLike,
    y: ArrayLike | None = None,
    *,
    k: int = 3,
    dependence: Dependence = "independent",
    level: float = LEVEL,
    seed: int = 0,
) -> Number:
    """I(X; Z), or I(X; Z | Y), of continuous variables in any dimension; see the module's text.

    Args:
        x: shape (n, d_x) or (n,).
        z: shape (n, d_z) or (n,).
        y: shape (n, d_y) or (n,), if there is a condition.
        k: neighbours.
        dependence: ``"autocorrelated"`` takes the subsamples, from which the standard error comes, as stretches.
        level: of the confidence interval.
        seed: of the samples drawn from the baseline and of the subsamples.

    Raises:
        SampleError: for samples that do not fit together, NaN or infinite values, constant columns, n ≤ k,
            n ≤ d + 1 or columns that are linear functions of others.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=(2000, 8))
        >>> estimate = calibrated_information(x**3, np.arcsinh(x + rng.normal(size=(2000, 8))))
        >>> estimate.ci_low < 8 * 0.34657 < estimate.ci_high
        True
    """
    arrays = paired_samples(x, z, y)
    n, d = len(arrays[0]), sum(array.shape[1] for array in arrays)
    require_neighbours(n, k)
    if n <= d + 1:
        raise SampleError(f"a covariance in {d} dimensions needs at least {d + 2} samples, got n = {n}")
    notes = warn_of_copies(np.hstack(arrays))
    rng = np.random.default_rng([seed, n])
    arrays = untied(arrays[0], rng), untied(arrays[1], rng), untied(arrays[2], rng)
    relations = warn_of_deterministic_relations(np.hstack([normal_scores(a) for a in arrays if a.shape[1]]))
    if relations:
        raise SampleError(relations[0])
    if (d, arrays[2].shape[1], dependence) == (2, 0, "independent") and n >= _EASY_FROM:
        easy = _where_easy(*arrays, k, level, seed, notes)
        if easy is not None:
            return easy
    whole = residuals(*arrays, dependence)
    smallest = max(_SMALLEST * k, 3 * d)
    # What cannot be seen to move with n is not tried.
    enough = n >= _PARTS * max(smallest, FEWEST_TO_FIT)
    turn = turned(*whole, dependence) if enough and d > _FEW_COLUMNS else None
    if turn is not None and not _borne_out(turn, whole, k):
        turn = None
    columns: tuple[Array, ...] = whole if turn is None else turn.columns
    calibrate = turn is not None or overclaim(*whole) <= 0
    found, first = _pieces(columns, k, min(max(_DRAWN // n, _FEWEST_DRAWS), _MOST_DRAWS), seed, calibrate)

    def pieces(*samples: Array) -> Array:
        return _pieces(samples, k, 1, seed, calibrate, first.freedom)[0]

    covariance, freedom, more = subsample_error(pieces, [columns], smallest, dependence, seed)
    loads = np.array([1.0, _weight(found[1], covariance[1, 1]) if calibrate else 1.0])
    value = float(loads @ found)
    # Where the correction is dropped as noise, that it is noise is known no better than itself.
    spread = math.sqrt(max(covariance[0, 0] + covariance.sum(), 0.0)) / 2
    stderr = max(_averaged_error(found[1], covariance, loads[1]), spread)
    rate = min(_SLOW, 1 / d) if turn is None and d <= _SLOW_COLUMNS else min(_FASTEST, 2 / d)
    reach = half_width(stderr, freedom, level)
    if enough and (turn is not None or loads[1] > 0):

        def on_smaller(parts: int) -> Array:
            found = []
            for cut in cuts(n, parts, dependence, np.random.default_rng(seed)):
                x_part, z_part, y_part = (array[cut] for array in arrays)
                part = residuals(x_part, z_part, y_part, dependence)
                found.append(
                    pieces(*(part if turn is None else turned(*part, dependence, turn.backwards).columns))
                )
            return np.asarray(np.array(found) @ loads, dtype=np.float64)

        on_parts = on_smaller(_PARTS)
        if turn is None:
            # The truth lies between where the estimate is and where it is going.
            ahead = still_to_come(value, on_parts, stderr, rate)
            speeds_up = ahead > 0 and n >= _PARTS**2 * max(k + 2, 2 * d + 3) and _speeds_up(
                value, stderr, on_parts, on_smaller(_PARTS**2)
            )  # fmt: skip
            value, reach = value + ahead / 2, reach + abs(ahead) / 2
            if speeds_up:
                notes.append(
                    f"the estimate grows the faster the more samples there are ({on_parts.mean():.2f} nats from "
                    f"quarters of them, {float(loads @ found):.2f} from all), as for a dependence finer than they "
                    "show: only the lower end says something; use more samples."
                )
                value, reach = _up_to_the_ceiling(value - reach, value + reach, n, k)
            elif abs(ahead) > max(_WORTHWHILE_ERRORS * stderr, _MOVES):
                notes.append(_still_moves(ahead))
        else:
            moved = value - float(on_parts.mean())
            stderr = math.hypot(stderr, float(on_parts.std(ddof=1)) / math.sqrt(_PARTS))
            value += moved / (_PARTS**_FASTEST - 1)
            ahead = moved / (_PARTS**rate - 1)
            reach = half_width(stderr, freedom, level) + abs(ahead)
            if abs(ahead) > max(_WORTHWHILE_ERRORS * stderr, _MOVES):
                notes.append(_still_moves(ahead))
    # Plain neighbours, on columns without maps or predictions, are another kind of method, and err downwards.
    by_x, by_z, by_y = (standardised(part) if part.shape[1] else part for part in whole)
    plain = ksg_contributions(by_x, by_z, by_y, k).contributions
    seen, own = float(plain.mean()), half_width(contribution_error(plain, dependence)[0], level=level)
    if seen - value > math.hypot(reach, own):
        notes.append(
            f"plain nearest neighbours see {seen:.2f} nats, the default's steps {value:.2f}, more apart than the "
            "error: the interval covers both."
        )
        low, high = value - reach, seen + own
        value, reach = (low + high) / 2, (high - low) / 2
    if dependence == "independent":  # in a series the sample next in time is alike for its own memory
        bound, error = next_sample_bound(*arrays, k, seed)
        if bound - half_width(error, level=level) > value + reach:
            notes.append(
                f"samples next to one another in x or z show {bound:.2f} nats, neighbourhoods of {k} samples "
                f"{value:.2f}, as for a dependence finer than they are: only the lower end says something; use "
                "more samples."
            )
            value, reach = _up_to_the_ceiling(value - reach, value + reach, n, k)
    if not calibrate:
        notes.append(
            f"a Gaussian fit claims more information ({first.baseline:.2f} nats) than re-paired samples bear out, "
            "as in clusters: nearest neighbours alone were taken."
        )
    if calibrate:
        notes += warn_of_width(first.width, n, d, _ADVICE)
    notes += [*warn_of_ceiling(first.neighbours, n, k), *more]
    # One uncertainty: the standard error is the one whose interval this is.
    stderr = reach / half_width(1.0, freedom, level)
    return conclude(value, stderr, reach, method="calibrated", n=n, k=k, notes=notes)


def _where_easy(
    x: Array, z: Array, y: Array, k: int, level: float, seed: int, notes: Sequence[str]
) -> Number | None:
    """The estimate of two columns whose neighbourhoods are narrow; None where that is not so."""
    n = len(x)

    def both(rows: slice | NDArray[np.intp]) -> tuple[float, Array, Array]:
        scores = normal_scores(x[rows]), normal_scores(z[rows])
        baseline, fitted = gaussian_contributions(*scores, y[rows])
        return baseline, fitted, ksg_contributions(*scores, y[rows], k).contributions

    scores = np.hstack([normal_scores(x), normal_scores(z)])
    squares, plain = (np.asarray(np.corrcoef(of.T))[0, 1] for of in (scores**2, scores))
    common = squares - plain**2
    if abs(common) > _COMMON / math.sqrt(n):  # a common scale, whose far ends neighbours miss, or a bent link
        return None
    baseline, fitted, seen = both(slice(None))
    correction = float(seen.mean()) - baseline
    covariance = np.asarray(np.cov(fitted, seen - fitted) / n, dtype=np.float64)
    refuted = baseline > 0 and correction < -_REFUTED * math.sqrt(covariance[1, 1])
    if refuted or max(baseline, float(seen.mean())) > _EASY_UP_TO * math.log(n / k):
        return None
    weight = _weight(correction, covariance[1, 1])
    value = baseline + weight * correction
    stderr = max(
        _averaged_error(correction, covariance, weight), math.sqrt(covariance[0, 0] + covariance.sum()) / 2
    )
    parts = [both(part) for part in cuts(n, _PARTS, "independent", np.random.default_rng(seed))]
    smaller = np.array([part[0] + weight * (float(part[2].mean()) - part[0]) for part in parts])
    if abs(value - float(smaller.mean())) > _WORTHWHILE_ERRORS * stderr:
        return None
    ahead = still_to_come(value, smaller, stderr, _SLOW)
    value, reach = value + ahead / 2, half_width(stderr, level=level) + abs(ahead) / 2
    bound, error = next_sample_bound(x, z, y, k, seed)
    if bound - half_width(error, level=level) > value + reach:
        return None
    stderr = reach / half_width(1.0, level=level)
    return conclude(value, stderr, reach, method="calibrated", n=n, k=k, notes=notes)


def _up_to_the_ceiling(low: float, high: float, n: int, k: int) -> tuple[float, float]:
    """Middle and half-width of an interval whose upper end is no news: it goes to the most that can be seen."""
    high = max(high, math.log(n / k))
    return (low + high) / 2, (high - low) / 2


def _still_moves(ahead: float) -> str:
    return (
        f"the estimate still moves with the samples, by about {ahead:.2g} nats more: the interval holds that; "
        "read it as a rough value, or use more samples."
    )


def _speeds_up(value: float, stderr: float, quarters: Array, sixteenths: Array) -> bool:
    """Whether the estimate moves further from quarters of the samples to all than from sixteenths to quarters.

    A bias that falls like a power of n moves it less and less. By more than two standard errors of the difference.
    """
    means, errors = zip(
        *((part.mean(), part.std(ddof=1) / math.sqrt(len(part))) for part in (quarters, sixteenths)), strict=True
    )
    more = value - 2 * means[0] + means[1]
    return bool(more > _WORTHWHILE_ERRORS * math.sqrt(stderr**2 + 4 * errors[0] ** 2 + errors[1] ** 2))


def _pieces(
    samples: Sequence[Array], k: int, draws: int, seed: int, calibrate: bool, freedom: float | None = None
) -> tuple[Array, Parts]:
    """(baseline, what nearest neighbours see beyond it); without calibration (0, what they see)."""
    parts = calibrated_parts(*samples[:3], k=k, draws=draws if calibrate else 0, seed=seed, freedom=freedom)
    if not calibrate:
        return np.array([0.0, parts.neighbours]), parts
    return np.array([parts.baseline, parts.correction + _beyond(samples, k)]), parts


def _borne_out(turn: Turned, whole: tuple[Array, Array, Array], k: int) -> bool:
    """Whether re-paired samples bear the prediction's baseline out, and neighbours see no more without it."""
    if overclaim(*turn.columns[:3]) > 0:
        return False
    seen = _pieces(turn.columns, k, 1, 0, True)[0].sum()
    return bool(ksg_contributions(*canonical_form(*whole), k).contributions.mean() < seen + _WORTHWHILE_NATS)


def overclaim(x: Array, z: Array, y: Array) -> float:
    """By how many nats the Gaussian baseline claims more than its own log ratio f bears out; 0 if it does not.

    For every f, E f - log E' e^f ≤ I, E' over re-paired samples (Donsker and Varadhan 1983). If the law is the
    baseline's, log E' e^f = 0; where it is above, f is no log ratio of these samples and the baseline's closed
    form is worth only the difference. Counted from 0.1 nats and a tenth of the claim on: few pairings make the
    mean where a claim is large, and their mean is then, but for chance, too low.
    """
    left, right, _, correlations = _canonical(
        *(normal_scores(part) if part.shape[1] else part for part in (x, z, y))
    )
    rho = np.minimum(correlations, 1 - 1e-9)
    pairs = len(rho)
    left, right = left[:, :pairs], right[:, :pairs]
    claim = -0.5 * float(np.log1p(-(rho**2)).sum())
    scale = -rho / (1 - rho**2)

    def ratio(shift: int) -> Array:
        moved = np.roll(right, shift, axis=0)
        quadratic = (rho * (left**2 + moved**2) - 2 * left * moved) * scale
        return np.asarray(claim + quadratic.sum(1) / 2)

    shifts = np.unique(np.linspace(1, len(left) - 1, _PAIRINGS).astype(int))
    logs = np.concatenate([ratio(int(shift)) for shift in shifts])
    top = float(logs.max())
    weights = np.exp(logs - top)
    excess = top + math.log(float(weights.mean()))
    return excess if excess > max(_OVERCLAIM, claim / 10) else 0.0


@dataclass(frozen=True)
class Turned:
    """Z, what X and Y predict of it, and what they leave; or the same with X and Z exchanged.

    Attributes:
        columns: (prediction, Z, Y, X, rest), one row a sample.
        backwards: whether X and Z are exchanged.
        gain: Gaussian information, in nats, that the prediction has over a linear one.
    """

    columns: tuple[Array, Array, Array, Array, Array]
    backwards: bool
    gain: float


@overload
def turned(x: Array, z: Array, y: Array, dependence: Dependence = ...) -> Turned | None: ...
@overload
def turned(x: Array, z: Array, y: Array, dependence: Dependence, backwards: bool) -> Turned: ...


def turned(
    x: Array, z: Array, y: Array, dependence: Dependence = "independent", backwards: bool | None = None
) -> Turned | None:
    """The nonlinear prediction of Z from X and Y, or of X from Z and Y; None if neither beats a linear one.

    To count it must gain, on samples that its fit has not seen, more than 0.02 nats and two standard errors of
    ½ log(det S_linear / det S), S the covariances of what the predictions leave.

    Args:
        x: shape (n, d_x).
        z: shape (n, d_z).
        y: shape (n, d_y), d_y = 0 for mutual information.
        dependence: of the samples.
        backwards: which of the two it is, if that is known; it then counts in any case.
    """
    n = len(x)
    if n < FEWEST_TO_FIT and backwards is None:
        return None
    x, z, y = (normal_scores(part) if part.shape[1] else part for part in (x, z, y))
    best = None
    for exchanged in (False, True) if backwards is None else (backwards,):
        source, target = (z, x) if exchanged else (x, z)
        linear, nonlinear = held_out_predictions(np.hstack([source, y]), target, dependence)
        lengths, sizes = zip(*(_squared_lengths(target - found) for found in (linear, nonlinear)), strict=True)
        gain = (sizes[0] - sizes[1]) / 2
        error = float((lengths[0] - lengths[1]).std()) / 2 / math.sqrt(n)
        counts = gain > max(_WORTHWHILE_NATS, _WORTHWHILE_ERRORS * error)
        if (backwards is not None or counts) and (best is None or gain > best.gain):
            best = Turned((nonlinear, target, y, source, target - nonlinear), exchanged, gain)
    return best


def _squared_lengths(points: Array) -> tuple[Array, float]:
    """Squared Mahalanobis lengths, and the log-determinant of the covariance."""
    centred = points - points.mean(0)
    factor = np.linalg.cholesky(centred.T @ centred / len(points))
    half = solve_triangular(factor, centred.T, lower=True)
    return np.asarray((half**2).sum(0)), 2 * float(np.log(np.diag(factor)).sum())


def _beyond(samples: Sequence[Array], k: int) -> float:
    """I(X; Z | prediction, Y) = I(X; rest | Y) - I(prediction; rest | Y) by nearest neighbours; 0 without any."""
    if len(samples) == 3:
        return 0.0
    predicted, _, y, x, rest = samples
    seen, whole = (
        ksg_contributions(*canonical_form(part, rest, y), k).contributions.mean() for part in (predicted, x)
    )
    return float(whole - seen)


def _weight(correction: float, variance: float) -> float:
    """max(0, 1 - 2 s²/R²); 1 if the variance is not known."""
    if not math.isfinite(variance) or variance == 0:
        return 1.0
    return 0.0 if correction == 0 else max(0.0, 1 - 2 * variance / correction**2)


def _averaged_error(correction: float, covariance: Array, weight: float) -> float:
    """Standard error of a weighted mean of two estimates, with and without the correction.

    (1 - w) √(s_0² + w² R²) + w √(s_1² + (1 - w)² R²), s_0 and s_1 the standard errors of either: that the data
    choose between them is part of the error (Buckland, Burnham and Augustin 1997, eq. 9).
    """
    if math.isnan(covariance[0, 0]):
        return math.nan
    without = math.sqrt(covariance[0, 0] + (weight * correction) ** 2)
    corrected = math.sqrt(covariance.sum() + ((1 - weight) * correction) ** 2)
    return (1 - weight) * without + weight * corrected


def calibrated_parts(
    x: Array,
    z: Array,
    y: Array,
    *,
    k: int = 3,
    draws: int = _MOST_DRAWS,
    seed: int = 0,
    freedom: float | None = None,
) -> Parts:
    """Baseline, nearest-neighbour estimate and its expectation under the baseline.

    Args:
        x: shape (n, d_x), already without what Y explains nonlinearly (:func:`residuals`).
        z: shape (n, d_z), likewise.
        y: shape (n, d_y), d_y = 0 for mutual information.
        k: neighbours.
        draws: samples of size n drawn from the baseline; without any the expectation is NaN.
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
        freedom = _tail_freedom(ranks, sizes) if draws else math.inf
    raw = -0.5 * float(np.log1p(-(correlations**2)).sum())
    gaussian = raw - _gaussian_bias(n, sizes)
    baseline = gaussian + student_information(sizes, freedom)
    found = ksg_contributions(a, c, given, k)
    # The drawn samples have the information that the baseline is said to have: sample correlations are too large.
    scale = max(gaussian, 0.0) / raw if raw > 0 else 0.0
    rho = np.sqrt(-np.expm1(scale * np.log1p(-(correlations**2))))
    # Other samples, other draws: over many samples their noise averages out.
    rng = np.random.default_rng([seed, zlib.crc32(ranks.tobytes())])
    drawn = []
    for _ in range(draws):
        parts = _draw(rng, n, sizes, rho, freedom)
        drawn.append(ksg_contributions(*canonical_form(*parts), k).contributions.mean())
    expected = float(np.mean(drawn)) if drawn else math.nan
    return Parts(baseline, float(found.contributions.mean()), expected, freedom, found.width)


def _gaussian_bias(n: int, sizes: tuple[int, int, int]) -> float:
    """Expectation of the Gaussian plug-in under independence."""
    d_x, d_z, d_y = sizes
    signed = ((1, d_x + d_y), (1, d_z + d_y), (-1, d_y), (-1, d_x + d_z + d_y))
    return 0.5 * sum(sign * log_det_bias(d, n - 1) for sign, d in signed if d)


def canonical_form(x: Array, z: Array, y: Array) -> tuple[Array, Array, Array]:
    """Normal scores of every column; X and Z less their regression on Y, whitened, as canonical pairs."""
    left, right, given, _ = _canonical(*(normal_scores(part) if part.shape[1] else part for part in (x, z, y)))
    return left, right, given


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
    blocks = [block for block in np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1]) if len(block)]
    joint, freedom = _best_freedom(ranks)
    if math.isinf(freedom):
        return freedom
    scores = ndtri(ranks / (n + 1))
    correlation = np.atleast_2d(np.corrcoef(scores.T))
    shared = sum(np.linalg.slogdet(correlation[np.ix_(block, block)])[1] for block in blocks)
    shared = n / 2 * (shared - np.linalg.slogdet(correlation)[1])
    apart = sum(_best_freedom(ranks[:, block])[0] for block in blocks) + shared
    return freedom if joint > apart + 0.5 * math.log(n) else math.inf


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
