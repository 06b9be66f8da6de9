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

**What the interval holds**, the hull of the following; the value is its middle, and the standard error that is
given is the one whose interval it is. So intervals on laws that no baseline has are wide, and cover more often
than their level says.

(a) Sampling error, from the samples' contributions to B and to K, which share samples, with the choice of the
weight w (Buckland, Burnham and Augustin 1997), and half of what the correction's own error would add. Near 0 the
upper end is that of a noncentral χ².
(b) What is still to come. The same estimate from quarters of the samples has a larger bias; how much of it is
left tell the moves from sixteenths to quarters to all (:func:`still_to_come`), and where they say nothing the
rate γ of n^{-γ}, min(0.4, 1/d) up to five columns, d of them, min(½, 2/d) beyond. After step 3 the value is
extrapolated by γ = ½, and the interval is widened by what γ = min(½, 2/d) leaves, the rate at which
nearest-neighbour estimates of smooth densities converge.
(c) What plain neighbours see on the columns of step 2 and their error, where that lies beyond (a) and (b); and
where K sees more than the baseline has, what it would be without the bias that K has on the baseline.
(d) What samples next to one another show (:mod:`arvdm_theory.information.estimators.fineness`).
(e) All up to min(d_x, d_z) log(n/k), the most that can be seen, where the samples are too few for the link: where
next samples show more than (a) to (c), or most of what they show is gone on quarters of the samples, the estimate
grows the faster the more samples there are, or a prediction sees three times what neighbours do. It is said.

A link that oscillates several times between a sample and the next cannot be told from independence by any method
that looks at what is near: n samples show n/10 turns or so along a line, and √n or so in the plane.

**What it costs.** Baseline samples are drawn only where K has a bias on the baseline that is not far below its
error, no more than one where the correction is within its error; a Student-t copula is fitted where the
likelihood's slope asks for it, and a regression where a first look with few centres sees something.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from arvdm_theory.information.estimators.baseline import (
    SHARED,
    Parts,
    baseline_information,
    calibrated_parts,
    canonical_form,
    overclaim,
)
from arvdm_theory.information.estimators.fineness import next_sample_bound
from arvdm_theory.information.estimators.knn import (
    ksg_contributions,
    standardised,
    warn_of_ceiling,
    warn_of_width,
)
from arvdm_theory.information.estimators.plugin import normal_scores
from arvdm_theory.information.estimators.regression import FEWEST_TO_FIT, Turned, residuals, turned
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
    near_zero,
    still_to_come,
)
from arvdm_theory.number import LEVEL, Number, half_width

__all__ = ["calibrated_information"]

Array = NDArray[np.float64]

# Errors by which something counts as more than chance.
_ERRORS = 2.0
# Levels at which two kinds of estimates disagree, and at which next samples show what the rest misses.
_APART, _FINER = 0.9, 0.98
# The parts of the samples whose estimates show how the estimate moves with n.
_PARTS = 4
# The bias of a smooth estimate in d dimensions falls like n^{-2/d}, and is taken to fall no faster than n^{-1/2}.
_FASTEST = 0.5
# Samples per neighbour in a part.
_SMALLEST = 5
# Columns up to which nearest neighbours see what a regression would.
_FEW_COLUMNS = 3
# Columns up to which the bias of nearest neighbours may fall as slowly as n^{-1/d}: links that oscillate.
_SLOW_COLUMNS, _SLOW = 5, 0.4
# How far an estimate may still move, and by how much neighbours see more without a prediction, without a word.
_MOVES, _MORE = 0.1, 0.02
# Neighbours that see less than a third of what a prediction does miss a link that is finer than they are.
_PREDICTED = 3.0
_LOWER_END = "show: only the lower end says something; use more samples."
_ADVICE = (
    "dependence that is neither of the baseline's kind nor wide is missed; fewer columns or more samples show it"
)


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
    whole = residuals(*arrays, dependence)
    smallest = max(_SMALLEST * k, 3 * d)
    # What cannot be seen to move with n is not tried; regressions need samples to fit.
    enough, fits = n >= _PARTS * smallest, n >= _PARTS * max(smallest, FEWEST_TO_FIT)
    fit = _fitted(whole, turned(*whole, dependence) if d > _FEW_COLUMNS and fits else None, k, seed, dependence)
    at = _Interval(fit.value, half_width(fit.stderr, fit.freedom, level), notes)
    if fit.calibrate:
        pairs = arrays[0].shape[1] * arrays[1].shape[1]
        at.reach(high=near_zero(
            float(fit.found[0]), math.sqrt(fit.covariance[0, 0]), [fit.first.fitted], pairs, level
        )[1])  # fmt: skip
    most = min(arrays[0].shape[1], arrays[1].shape[1]) * math.log(n / k)
    if enough:

        def on_parts(parts: int, prediction: Turned | None) -> Array:
            values = []
            for cut in cuts(n, parts, dependence, np.random.default_rng(seed)):
                part = whole[0][cut], whole[1][cut], whole[2][cut]
                if fits and len(cut) >= FEWEST_TO_FIT:
                    part = residuals(arrays[0][cut], arrays[1][cut], arrays[2][cut], dependence)
                own: tuple[Array, ...] = part
                if prediction is not None:
                    own = turned(*part, dependence, prediction.backwards).columns
                values.append(fit.again(own, k, seed))
            return np.array(values)

        _move(at, fit, on_parts, whole, most, n >= _PARTS**2 * smallest, k, seed, level)
    if fit.first.draws:
        _plain(at, fit, whole, k, dependence, level)
    if dependence == "independent":  # in a series the sample next in time is alike for its own memory
        _next(at, arrays, most, enough and fit.first.draws > 0, k, seed, level)
    if fit.calibrate:
        at.notes += warn_of_width(fit.first.width, n, d, _ADVICE)
    else:
        at.notes.append(
            f"a Gaussian fit claims more information ({fit.first.baseline:.2f} nats) than re-paired samples bear "
            "out, as in clusters: nearest neighbours alone were taken."
        )
    at.notes += [*warn_of_ceiling(fit.first.neighbours, n, k), *fit.notes]
    # One uncertainty: the standard error is the one whose interval this is.
    reach = at.high - at.value
    stderr = reach / half_width(1.0, fit.freedom, level)
    return conclude(at.value, stderr, reach, method="calibrated", n=n, k=k, notes=at.notes)


@dataclass(frozen=True)
class _Fit:
    """The estimate from all samples: B, and what nearest neighbours see beyond it.

    Attributes:
        found: (B, K - E K), or (0, K) without calibration.
        covariance: of these.
        freedom: degrees of freedom of that.
        first: what they are made of.
        turn: the prediction that X gave way to.
        calibrate: whether the samples bear the baseline out.
        alone: what nearest neighbours see without prediction.
        notes: what is to be said of the errors.
    """

    found: Array
    covariance: Array
    freedom: float
    first: Parts
    turn: Turned | None
    calibrate: bool
    alone: float
    notes: list[str]

    @property
    def weight(self) -> float:
        return _weight(self.found[1], self.covariance[1, 1]) if self.calibrate else 1.0

    @property
    def value(self) -> float:
        return float(self.found[0] + self.weight * self.found[1])

    @property
    def stderr(self) -> float:
        # Where the correction is dropped as noise, that it is noise is known no better than itself.
        spread = math.sqrt(max(self.covariance[0, 0] + self.covariance.sum(), 0.0)) / 2
        return max(_averaged_error(self.found[1], self.covariance, self.weight), spread)

    def again(self, columns: Sequence[Array], k: int, seed: int) -> float:
        """The same estimate from other columns, with one drawn sample at most."""
        if len(columns) == 3 and not self.weight:
            return baseline_information(columns[0], columns[1], columns[2], self.first.freedom)
        found = _pieces(
            columns, k, seed, calibrate=self.calibrate, draws=min(self.first.draws, 1), freedom=self.first.freedom
        )[0]
        return float(found[0] + self.weight * found[1])


def _fitted(
    whole: tuple[Array, Array, Array], turn: Turned | None, k: int, seed: int, dependence: Dependence
) -> _Fit:
    """The estimate through a prediction, if neighbours and re-paired samples bear it out, or without."""
    columns: tuple[Array, ...] = whole if turn is None else turn.columns
    found, contributions, first = _pieces(columns, k, seed)
    alone = first.neighbours
    if turn is not None:
        alone = float(ksg_contributions(*canonical_form(*whole), k).contributions.mean())
        if alone > float(found.sum()) + _MORE or overclaim(*columns[:3]) > 0:
            turn, columns = None, whole
            found, contributions, first = _pieces(columns, k, seed)
    covariance, freedom, notes = _covariance(contributions, k, first.draws, dependence)
    # Two easy columns bear their baseline out if neighbours see no less.
    less = found[1] < -_ERRORS * math.sqrt(covariance[1, 1])
    calibrate = not (less or first.draws) or overclaim(*columns[:3]) <= 0
    if not calibrate:
        turn = None
        found, contributions, _ = _pieces(whole, k, seed, calibrate=False)
        covariance = _covariance(contributions, k, 0, dependence)[0]
    return _Fit(found, covariance, freedom, first, turn, calibrate, alone, notes)


def _move(
    at: _Interval, fit: _Fit, on_parts: Callable[[int, Turned | None], Array], whole: tuple[Array, Array, Array],
    most: float, twice: bool, k: int, seed: int, level: float,
) -> None:  # fmt: skip
    """How the estimate moves with the samples: what is still to come, or that it cannot be known."""
    d, value, stderr = sum(part.shape[1] for part in whole), fit.value, fit.stderr
    quarters, sixteenths = on_parts(_PARTS, fit.turn), None
    if twice and abs(value - quarters.mean()) > stderr:
        sixteenths, bare, of_all = on_parts(_PARTS**2, None), quarters, value
        if fit.turn is not None:
            bare, of_all = on_parts(_PARTS, None), fit.again(whole, k, seed)
        if _speeds_up(of_all, stderr, bare, sixteenths):
            at.reach(
                high=most,
                note=f"the estimate grows the faster the more samples there are ({bare.mean():.2f} nats from "
                f"quarters, {of_all:.2f} from all), as for a dependence finer than they {_LOWER_END}",
            )
            return
    if fit.turn is None:
        # The truth lies between where the estimate is and where it is going.
        rate = min(_SLOW, 1 / d) if d <= _SLOW_COLUMNS else min(_FASTEST, 2 / d)
        ahead = still_to_come(value, quarters, stderr, rate if fit.weight else _FASTEST, sixteenths)
        # What neighbours see ends at what can be seen, a baseline does not.
        end = max(at.high, most) if fit.found[1] > fit.found[0] else math.inf
        at.reach(at.low + min(ahead, 0.0), min(at.high + max(ahead, 0.0), end))
    else:
        moved = value - float(quarters.mean())
        stderr = math.hypot(stderr, float(quarters.std(ddof=1)) / math.sqrt(_PARTS))
        ahead = moved / (_PARTS ** min(_FASTEST, 2 / d) - 1)
        value += moved / (_PARTS**_FASTEST - 1)
        reach = half_width(stderr, fit.freedom, level) + abs(ahead)
        at.low, at.high = value - reach, value + reach
    if abs(ahead) > max(_ERRORS * stderr, _MOVES):
        at.notes.append(
            f"the estimate still moves with the samples, by about {ahead:.2g} nats more: the interval holds that; "
            "read it as a rough value, or use more samples."
        )
    if fit.turn is not None and fit.alone < value / _PREDICTED:
        at.reach(
            high=most,
            note=f"a prediction sees {value:.2f} nats where neighbourhoods of {k} samples see {fit.alone:.2f}, as "
            f"of a dependence finer than they {_LOWER_END}",
        )


def _plain(
    at: _Interval, fit: _Fit, whole: tuple[Array, Array, Array], k: int, dependence: Dependence, level: float
) -> None:
    """What nearest neighbours say without the baseline: another kind of method, which errs downwards."""
    if fit.calibrate and fit.found[1] > fit.found[0] and math.isinf(fit.first.freedom):
        # Most is what neighbours see: it may lack the bias that they have on the baseline.
        unsure = fit.weight * (fit.first.expected - fit.first.baseline)
        at.reach(at.low + min(unsure, 0.0), at.high + max(unsure, 0.0))
    by_x, by_z, by_y = (standardised(part) if part.shape[1] else part for part in whole)
    plain = ksg_contributions(by_x, by_z, by_y, k).contributions
    seen = float(plain.mean())
    own = math.sqrt(SHARED) * contribution_error(plain, dependence)[0]
    if seen - at.value > half_width(math.hypot((at.high - at.value) / half_width(1.0), own), level=_APART):
        at.reach(
            high=seen + half_width(own, level=level),
            note=f"plain nearest neighbours see {seen:.2f} nats, the default's steps {at.value:.2f}, more apart "
            "than the error: the interval covers both.",
        )


def _next(
    at: _Interval, arrays: tuple[Array, Array, Array], most: float, wide: bool, k: int, seed: int, level: float
) -> None:
    """What samples next to one another show, which links finer than neighbourhoods cannot hide."""
    bound, error = next_sample_bound(*arrays, k, seed)
    beyond = bound - at.value > half_width(math.hypot(error, (at.high - at.value) / 2), level=_FINER)
    if beyond or (wide and bound > at.low and _fades(arrays, bound, error, k, seed)):
        note = (
            f"samples next to one another in x or z show {bound:.2f} nats, neighbourhoods of {k} samples "
            f"{at.value:.2f}, as for a dependence finer than they {_LOWER_END}"
        )
        if beyond:
            at.low = max(at.low, bound - half_width(error, level=level))
        at.reach(high=most, note=note)
    elif bound - error > at.high:
        at.reach(high=bound + half_width(error, level=level))


class _Interval:
    """An interval that reaches to whatever there is evidence for, and what is to be said of it."""

    def __init__(self, value: float, reach: float, notes: list[str]) -> None:
        self.low, self.high, self.notes = value - reach, value + reach, notes

    @property
    def value(self) -> float:
        return (self.low + self.high) / 2

    def reach(self, low: float = math.inf, high: float = -math.inf, note: str = "") -> None:
        self.low, self.high = min(self.low, low), max(self.high, high)
        if note:
            self.notes.append(note)


def _covariance(
    contributions: tuple[Array, Array], k: int, draws: int, dependence: Dependence
) -> tuple[Array, float, list[str]]:
    """Of the baseline and of what neighbours see beyond it; (covariance, degrees of freedom, warnings).

    Neighbours' contributions share samples, and the drawn ones' mean has an error as well. There are as many
    independent neighbourhoods as fit side by side.
    """
    fitted, beyond = contributions
    errors = [contribution_error(part, dependence) for part in (fitted, beyond, fitted + beyond)]
    first, second, both = (error**2 for error, _, _ in errors)
    shared = (both - first - second) / 2
    covariance = np.array([[first, shared], [shared, SHARED * second * (1 + (1 / draws if draws else 0.0))]])
    freedom = min(min(freedom for _, freedom, _ in errors), max(len(fitted) / (k + 1) - 1, 1.0))
    return covariance, freedom, errors[2][2]


def _speeds_up(value: float, stderr: float, quarters: Array, sixteenths: Array) -> bool:
    """Whether the estimate moves further from quarters of the samples to all than from sixteenths to quarters.

    A bias that falls like a power of n moves it less and less. By more than two standard errors of the difference.
    """
    means, errors = zip(
        *((part.mean(), part.std(ddof=1) / math.sqrt(len(part))) for part in (quarters, sixteenths)), strict=True
    )
    more = value - 2 * means[0] + means[1]
    if value - means[0] < stderr:
        return False
    return bool(more > _ERRORS * math.sqrt(stderr**2 + 4 * errors[0] ** 2 + errors[1] ** 2))


def _fades(arrays: tuple[Array, Array, Array], bound: float, error: float, k: int, seed: int) -> bool:
    """Whether most of what next samples show is gone on quarters of them: then most may still be to come."""
    if bound < _ERRORS * error:
        return False
    parts = cuts(len(arrays[0]), _PARTS, "independent", np.random.default_rng(seed))
    x, z, y = arrays
    smaller = np.mean([next_sample_bound(x[part], z[part], y[part], k, seed)[0] for part in parts])
    return bool(bound - smaller > max(_ERRORS * error, bound / 2))


def _pieces(
    samples: Sequence[Array],
    k: int,
    seed: int,
    *,
    calibrate: bool = True,
    draws: int | None = None,
    freedom: float | None = None,
) -> tuple[Array, tuple[Array, Array], Parts]:
    """(baseline, what nearest neighbours see beyond it), and the samples' contributions to each.

    Without calibration (0, what they see). The options are those of :func:`calibrated_parts`.
    """
    parts = calibrated_parts(*samples[:3], k=k, draws=draws if calibrate else 0, seed=seed, freedom=freedom)
    more = _beyond(samples, k)
    if not calibrate:
        return np.array([0.0, parts.neighbours]), (np.zeros(len(more)), parts.seen), parts
    found = np.array([parts.baseline, parts.correction + float(more.mean())])
    return found, (parts.fitted, parts.seen - parts.fitted + more), parts


def _beyond(samples: Sequence[Array], k: int) -> Array:
    """Contributions to I(X; Z | prediction, Y) = I(X; rest | Y) - I(prediction; rest | Y); 0 without any."""
    if len(samples) == 3:
        return np.zeros(len(samples[0]))
    predicted, _, y, x, rest = samples
    seen, whole = (ksg_contributions(*canonical_form(part, rest, y), k).contributions for part in (predicted, x))
    return np.asarray(whole - seen, dtype=np.float64)


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
