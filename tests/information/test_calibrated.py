"""The calibrated estimator: its goals in high dimension, its exact cases, its baseline and its intervals."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import multivariate_t, norm
from scipy.stats import t as student

from arvdm_theory.information import gaussian
from arvdm_theory.information.estimators import SampleError
from arvdm_theory.information.estimators.baseline import (
    SHARED,
    _tail_slope,
    calibrated_parts,
    student_information,
)
from arvdm_theory.information.estimators.calibrated import _averaged_error, calibrated_information
from arvdm_theory.information.estimators.knn import ksg
from arvdm_theory.information.estimators.plugin import gaussian_contributions, normal_scores
from arvdm_theory.information.estimators.regression import held_out_predictions, residuals, turned

pytestmark = pytest.mark.filterwarnings("ignore::arvdm_theory.information.estimators.EstimationWarning")


def gaussian_task(
    sizes: tuple[int, int, int], n: int, seed: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Samples of N(0, A Aᵀ/d + I), A standard normal with seed d, and the exact I(X; Z | Y)."""
    d = sum(sizes)
    root = np.random.default_rng(d).normal(size=(d, d))
    covariance = root @ root.T / d + np.eye(d)
    draw = np.random.default_rng(seed).multivariate_normal(np.zeros(d), covariance, size=n)
    x, z, y = np.split(np.arange(d), np.cumsum(sizes)[:-1])
    truth = gaussian.conditional_mutual_information(
        torch.from_numpy(covariance), torch.from_numpy(x), torch.from_numpy(z), torch.from_numpy(y)
    )
    return draw[:, x], draw[:, z], draw[:, y], float(truth)


def student_pairs(d: int, rho: float, freedom: float, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    z = rho * x + math.sqrt(1 - rho**2) * rng.normal(size=(n, d))
    scale = np.sqrt(freedom / rng.chisquare(freedom, size=(n, 1)))
    return x * scale, z * scale


def test_twenty_dimensions_within_0_03() -> None:
    x, z, y, truth = gaussian_task((8, 8, 4), 2000)
    assert truth == pytest.approx(0.3403, abs=5e-5)
    estimate = calibrated_information(x, z, y)
    assert abs(estimate.value - truth) < 0.03
    assert estimate.ci_low < truth < estimate.ci_high
    # Nearest neighbours alone see less than half of it.
    assert ksg(x, z, y).value < truth / 2
    # Rising maps of single columns change nothing.
    x, z, y = x[:500], z[:500], y[:500]
    plain, bent = (calibrated_parts(*arrays, draws=1) for arrays in ((x, z, y), (x**3, np.arcsinh(z), 2 * y)))
    assert bent == plain


@pytest.mark.parametrize("bend", [lambda v: v, lambda v: v**3, np.arcsinh], ids=["plain", "cubic", "asinh"])
def test_sixteen_pairs_within_5_percent(bend) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(1)
    x = rng.normal(size=(5000, 16))
    z = 0.5 * x + math.sqrt(0.75) * rng.normal(size=(5000, 16))
    truth = -8 * math.log(0.75)
    # One draw of the baseline: its noise is far below the goal, and so is the weight of the correction.
    parts = calibrated_parts(bend(x[:2500]), bend(z[:2500]), np.empty((2500, 0)), draws=1)
    assert abs(parts.baseline - truth) < 0.05 * truth
    assert abs(parts.baseline + parts.correction - truth) < 0.05 * truth
    assert parts.neighbours < 0.4 * truth


def test_gaussian_estimates_are_unbiased_and_their_errors_right() -> None:
    values, errors = [], []
    for seed in range(12):
        x, z, y, truth = gaussian_task((1, 2, 1), 300, seed)
        estimate = calibrated_information(x, z, y, seed=seed)
        values.append(estimate.value)
        errors.append(estimate.stderr)
    spread = np.std(values, ddof=1)
    assert abs(np.mean(values) - truth) < 4 * spread / math.sqrt(12)
    # 12 replicates know their spread to 1/√22 = 21 %; the errors also hold what neighbours might still add.
    assert 0.6 < np.mean(errors) / spread < 2


@pytest.mark.parametrize(("d", "freedom"), [(1, 2.0), (3, 3.0)])
def test_a_common_scale_is_information(d: int, freedom: float) -> None:
    # No correlation at all: a Gaussian copula gives 0, all of the information is in the common scale.
    truth = student_information((d, d, 0), freedom)
    x, z = student_pairs(d, 0.0, freedom, 2000, 3)
    parts = calibrated_parts(x, z, np.empty((2000, 0)))
    assert 0.7 * freedom < parts.freedom < 1.4 * freedom
    estimate = calibrated_information(x, z)
    assert truth > 0.05
    assert estimate.ci_low < truth < estimate.ci_high


def test_heavy_tails_of_their_own_are_no_information() -> None:
    # Independent X and Z, each with its own random scale: the Student-t copula must not be chosen.
    x, _ = student_pairs(3, 0.0, 2.0, 1500, 4)
    z, _ = student_pairs(3, 0.0, 2.0, 1500, 5)
    assert math.isinf(calibrated_parts(x, z, np.empty((1500, 0))).freedom)
    # Read as one common scale the tails would say 0.12 nats or more.
    assert student_information((3, 3, 0), 4.0) > 0.12
    assert abs(calibrated_information(x, z).value) < 0.05


def test_student_information_against_quadrature() -> None:
    # I(X; Z) of the bivariate t by E log of the ratio, with X | Z again a scaled t of ν + 1 degrees of freedom:
    # I = h(X) - E h(X | Z), h(X | z) = h(t_{ν+1}) + ½ log((ν + z²)/(ν + 1)).
    freedom = 2.5
    spread = quad(
        lambda v: student.pdf(v, freedom) * 0.5 * math.log((freedom + v**2) / (freedom + 1)), -np.inf, np.inf
    )
    truth = student.entropy(freedom) - student.entropy(freedom + 1) - spread[0]
    assert student_information((1, 1, 0), freedom) == pytest.approx(float(truth), abs=1e-7)
    # The chain rule: I(X; Z, Y) = I(X; Y) + I(X; Z | Y).
    whole = student_information((2, 4, 0), freedom)
    assert whole == pytest.approx(
        student_information((2, 1, 0), freedom) + student_information((2, 3, 1), freedom)
    )
    assert student_information((2, 3, 1), math.inf) == 0.0
    assert student_information((2, 3, 1), 1e7) == pytest.approx(0.0, abs=1e-6)


def test_a_nonlinear_common_cause_is_taken_out() -> None:
    rng = np.random.default_rng(6)
    y = rng.normal(size=(1500, 1))
    x, z = y**2 + 0.5 * rng.normal(size=(1500, 1)), y**2 + 0.5 * rng.normal(size=(1500, 1))
    assert calibrated_information(x, z).value > 0.3
    estimate = calibrated_information(x, z, y)
    assert abs(estimate.value) < 3 * estimate.stderr + 0.03
    left, _, same = residuals(x, z, y)
    assert same is y
    assert abs(np.corrcoef(left[:, 0], y[:, 0] ** 2)[0, 1]) < 0.1


def test_linear_relations_keep_the_samples_as_they_are() -> None:
    x, z, y, _ = gaussian_task((2, 2, 2), 500)
    left, right, _ = residuals(x, z, y)
    np.testing.assert_array_equal(left, x)
    np.testing.assert_array_equal(right, z)


def test_dependence_that_no_copula_has_is_seen() -> None:
    # X on a noisy circle with Z: no correlation, no common scale; nearest neighbours must carry the estimate.
    rng = np.random.default_rng(7)
    angle = rng.uniform(0, 2 * np.pi, size=2000)
    x, z = (part + 0.1 * rng.normal(size=2000) for part in (np.cos(angle), np.sin(angle)))
    estimate = calibrated_information(x, z)
    assert abs(estimate.value / ksg(x, z).value - 1) < 0.1
    assert estimate.value > 0.5


def test_a_seed_fixes_the_estimate() -> None:
    x, z, y, _ = gaussian_task((1, 2, 1), 300)
    assert calibrated_information(x, z, y, seed=3).ends() == calibrated_information(x, z, y, seed=3).ends()
    with pytest.raises(SampleError, match="at least 6 samples, got n = 5"):
        calibrated_information(x[:5], z[:5], y[:5])


def test_autocorrelated_samples_widen_the_interval() -> None:
    truth, n = -0.5 * math.log(1 - 0.36), 2000
    mix = np.linalg.cholesky(np.array([[1.0, 0.6], [0.6, 1.0]]))
    naive, honest, covered = [], [], 0
    for seed in range(4):
        rng = np.random.default_rng(seed)
        noise = math.sqrt(1 - 0.81) * rng.normal(size=(n, 2)) @ mix.T
        series = np.zeros((n, 2))
        for i in range(1, n):
            series[i] = 0.9 * series[i - 1] + noise[i]
        naive.append(calibrated_information(series[:, 0], series[:, 1], seed=seed).stderr)
        estimate = calibrated_information(series[:, 0], series[:, 1], dependence="autocorrelated", seed=seed)
        honest.append(estimate.stderr)
        covered += estimate.ci_low < truth < estimate.ci_high
    # Products of two AR(1) of 0.9 inflate the baseline's variance by (1 + 0.81)/(1 - 0.81) = 9.5, its error by 3;
    # the error of nearest neighbours, where it has a weight, is inflated less.
    assert 1.5 < np.mean(honest) / np.mean(naive) < 4.5
    assert covered >= 3


def spiral_pairs(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Two pairs of correlation 0.8, X turned by a third of its squared length; the information is the pairs'."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    z = 0.8 * x + 0.6 * rng.normal(size=(n, 2))
    angle = (x**2).sum(1) / 3
    cosine, sine = np.cos(angle), np.sin(angle)
    bent = np.stack([cosine * x[:, 0] - sine * x[:, 1], sine * x[:, 0] + cosine * x[:, 1]], 1)
    return bent, z, -math.log(1 - 0.64)


def test_the_identity_of_a_prediction_holds_for_any_prediction() -> None:
    # Gaussian X (2), Z (1), Y (1), and u = 0.7 x_1 - 0.2 x_2 + 0.4 y, far from the best prediction of Z.
    root = np.random.default_rng(0).normal(size=(4, 4))
    mix = np.vstack([np.eye(4), [0.7, -0.2, 0.0, 0.4], [-0.7, 0.2, 1.0, -0.4]])
    covariance = mix @ (root @ root.T + np.eye(4)) @ mix.T
    x, z, y, u, rest = [0, 1], [2], [3], [4], [5]

    def information(a: list[int], b: list[int]) -> float:
        # Only the columns in question: all six together are singular.
        order = [*a, *b, *y]
        own = torch.from_numpy(covariance[np.ix_(order, order)])
        positions = list(range(len(order)))
        first, second = positions[: len(a)], positions[len(a) : len(a) + len(b)]
        return float(gaussian.conditional_mutual_information(own, first, second, positions[-1:]))

    other = information(u, z) + information(x, rest) - information(u, rest)
    assert information(x, z) == pytest.approx(other, abs=1e-12)
    assert information(u, z) < information(x, z) / 2


def test_a_bent_x_is_seen_through_its_prediction() -> None:
    x, z, truth = spiral_pairs(600, 31)
    turn = turned(x, z, np.empty((600, 0)))
    assert turn is not None
    assert not turn.backwards
    # The linear predictor's Gaussian information is far from the truth; the nonlinear one cannot gain more than
    # what is missing, but for its sampling error (about 0.8 √2/√600 = 0.05).
    assert 0.25 < turn.gain < truth
    reverse = turned(z, x, np.empty((600, 0)))
    assert reverse is not None
    assert reverse.backwards
    assert reverse.gain == turn.gain
    np.testing.assert_allclose(turn.columns[0] + turn.columns[4], turn.columns[1], atol=1e-14)
    estimate = calibrated_information(x, z)
    assert estimate.ci_low < truth < estimate.ci_high
    assert abs(estimate.value - truth) < abs(ksg(x, z).value - truth)
    # One uncertainty: the interval is the standard error's, which also holds what is still to come.
    assert estimate.ci_high - estimate.value == pytest.approx(estimate.value - estimate.ci_low)
    assert 1.9 < (estimate.ci_high - estimate.value) / estimate.stderr < 3


@pytest.mark.parametrize("freedom", [math.inf, 3.0])
def test_laws_of_the_baseline_need_no_prediction(freedom: float) -> None:
    x, z = student_pairs(2, 0.6, freedom if math.isfinite(freedom) else 1e9, 600, 8)
    assert turned(x, z, np.empty((600, 0))) is None


def test_predictions_have_not_seen_their_sample() -> None:
    rng = np.random.default_rng(9)
    inputs, targets = normal_scores(rng.normal(size=(200, 2))), rng.normal(size=(200, 1))
    moved = targets.copy()
    moved[17] += 5.0
    before, after = held_out_predictions(inputs, targets)[0], held_out_predictions(inputs, moved)[0]
    moves = np.abs(after - before)
    assert moves[17] < 1e-13
    # Four of five folds see it.
    assert np.mean(moves > 1e-6) > 0.75
    # A sine of Y is learnt, noise is not.
    inputs, targets = normal_scores(rng.normal(size=(600, 2))), rng.normal(size=(600, 1))
    signal = np.sin(3 * inputs[:, :1])
    linear, best = held_out_predictions(inputs, np.hstack([signal, targets]))
    assert ((signal[:, 0] - best[:, 0]) ** 2).mean() < 0.1 * ((signal[:, 0] - linear[:, 0]) ** 2).mean()
    np.testing.assert_array_equal(best[:, 1], linear[:, 1])


def test_the_noise_of_the_baseline_s_draws_averages_out_over_samples() -> None:
    corrections = []
    for seed in range(40):
        x, z = student_pairs(1, 0.6, 1e9, 150, 100 + seed)
        corrections.append(calibrated_parts(x, z, np.empty((150, 0)), draws=2).correction)
    # Were the draws the same for every sample, their mean would keep the spread of K over √2, four such errors.
    assert abs(np.mean(corrections)) < 3 * np.std(corrections, ddof=1) / math.sqrt(40)


def test_the_error_of_a_weighted_mean() -> None:
    covariance = np.array([[0.04, -0.01], [-0.01, 0.09]])
    assert _averaged_error(0.5, covariance, 0.0) == pytest.approx(0.2)
    assert _averaged_error(0.5, covariance, 1.0) == pytest.approx(math.sqrt(0.04 - 0.02 + 0.09))
    # Nothing is gained by a choice between equals: certain estimates 0.5 apart, weighted half and half.
    assert _averaged_error(0.5, np.zeros((2, 2)), 0.5) == pytest.approx(0.25)
    assert math.isnan(_averaged_error(0.5, np.full((2, 2), math.nan), 1.0))


def test_contributions_to_the_baseline_are_its_influence_function() -> None:
    x, z, y, _ = gaussian_task((2, 1, 1), 300, 3)
    scores = [normal_scores(part) for part in (x, z, y)]
    parts = calibrated_parts(x, z, y, draws=0)
    value, contributions = gaussian_contributions(*scores)
    assert parts.baseline == pytest.approx(value, abs=1e-12)
    # To first order: the regression on Y and the whitening are those of all samples.
    np.testing.assert_allclose(parts.fitted, contributions, atol=0.01)


def test_the_slope_at_gaussian_tails_is_that_of_the_likelihood() -> None:
    rng = np.random.default_rng(12)
    root = rng.normal(size=(3, 3))
    scores = normal_scores(rng.normal(size=(400, 3)) @ root)
    correlation = np.corrcoef(scores.T)

    def likelihood(freedom: float) -> np.ndarray:  # of a t copula with that scale matrix, by the densities
        points = student.ppf(norm.cdf(scores), freedom)
        joint = multivariate_t(np.zeros(3), correlation, df=freedom).logpdf(points)
        return np.asarray(joint - student.logpdf(points, freedom).sum(1))

    step = 1e-4
    slope = (likelihood(1 / step) - likelihood(1e9)) / step
    expected = slope.mean() / slope.std() * math.sqrt(400)
    assert _tail_slope(scores, correlation) == pytest.approx(max(expected, 0.0), rel=0.02, abs=0.02)
    # Of tails that are heavier than those the slope is far above what is asked for.
    pairs = np.hstack(student_pairs(1, 0.5, 4.0, 1000, 13))
    heavy = normal_scores(pairs)
    assert _tail_slope(heavy, np.corrcoef(heavy.T)) ** 2 > math.log(1000)


def test_contributions_of_neighbours_share_samples() -> None:
    # The variance of K - B over samples is between once and twice that of as many independent contributions.
    values, errors = [], []
    for seed in range(40):
        x, z = student_pairs(1, 0.5, 1e9, 200, 700 + seed)
        parts = calibrated_parts(x, z, np.empty((200, 0)), draws=0)
        values.append(parts.neighbours - parts.baseline)
        errors.append((parts.seen - parts.fitted).var() / 200)
    # 40 replicates know a variance to 22 %, each error itself to a few.
    assert 0.8 < np.var(values, ddof=1) / np.mean(errors) < SHARED * 1.5


def test_a_fast_common_cause_is_taken_out_by_the_next_samples() -> None:
    rng = np.random.default_rng(14)
    y, a, b = rng.normal(size=(3, 1000, 1))
    x, z = (np.sin(15 * y) + 0.3 * part for part in (a, b))
    assert calibrated_information(x, z).value > 0.3
    estimate = calibrated_information(x, z, y)
    assert estimate.ci_low < 0 < estimate.ci_high < 0.15


def test_few_looks_suffice_where_nothing_is_bent() -> None:
    rng = np.random.default_rng(15)
    inputs = normal_scores(rng.normal(size=(500, 3)))
    targets = normal_scores(np.hstack([inputs[:, :1] + rng.normal(size=(500, 1)), rng.normal(size=(500, 1))]))
    linear, best = held_out_predictions(inputs, targets, first=True)
    np.testing.assert_array_equal(best, linear)
    bent = normal_scores((inputs**2).sum(1, keepdims=True) + 0.5 * rng.normal(size=(500, 1)))
    linear, best = held_out_predictions(inputs, bent, first=True)
    assert ((bent - best) ** 2).mean() < 0.7 * ((bent - linear) ** 2).mean()
