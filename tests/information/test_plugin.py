"""Plug-in estimates: unbiased where they claim it, right standard errors, exact on their own models."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binom, ncx2

from arvdm_theory.information import gaussian
from arvdm_theory.information.estimators import EstimationWarning, SampleError, near_zero
from arvdm_theory.information.estimators.plugin import (
    copula_information,
    discrete_information,
    gaussian_divergence,
    gaussian_divergence_value,
    gaussian_information,
    log_det_bias,
    normal_scores,
)
from arvdm_theory.number import Number

pytestmark = pytest.mark.filterwarnings("ignore::arvdm_theory.information.estimators.EstimationWarning")

X, Z, Y = [0, 1], [2, 3, 4], [5, 6]


def covariance(seed: int = 0) -> np.ndarray:
    root = np.random.default_rng(seed).normal(size=(7, 7))
    return root @ root.T / 7 + np.eye(7)


def exact(matrix: np.ndarray, given: list[int]) -> float:
    return float(gaussian.conditional_mutual_information(torch.from_numpy(matrix), X, Z, given))


def covers(found: Number, truth: float) -> bool:
    return bool(found.ci_low <= truth <= found.ci_high)


@pytest.mark.parametrize("rho", [0.0, 0.06, 0.1])
def test_intervals_near_independence_cover(rho: float) -> None:
    """The influence function vanishes there: its error alone held a truth of 0 in 40 to 80 of 100 intervals."""
    rng, runs, n = np.random.default_rng(0), 120, 500
    truth = -0.5 * math.log1p(-(rho**2))
    table = np.array([0.25 + rho / 4, 0.25 - rho / 4, 0.25 - rho / 4, 0.25 + rho / 4])
    of_table = float((table * np.log(4 * table)).sum())
    covered = np.zeros(4)
    for _ in range(runs):
        x, noise, other = rng.normal(size=(3, n, 1))
        z = rho * x + math.sqrt(1 - rho**2) * noise
        cells = rng.choice(4, size=n, p=table)
        found = gaussian_information(x, z), copula_information(x, z), discrete_information(cells // 2, cells % 2)
        shifted = gaussian_divergence(x + math.sqrt(2 * truth), other)
        covered += [
            *(covers(each, truth) for each in found[:2]),
            covers(found[2], of_table),
            covers(shifted, truth),
        ]
    assert (covered >= binom.ppf(1e-3, runs, 0.95)).all(), covered / runs


def test_the_upper_end_near_zero_is_that_of_noncentral_chi_square() -> None:
    influence = np.random.default_rng(1).normal(size=400) * 1e-3
    alone = float(influence.std(ddof=1)) / 20
    for value, nu in ((-0.001, 1.0), (0.0, 2.0), (0.02, 5.0)):
        stderr, above = near_zero(value, alone, [influence], nu, 0.95)
        assert ncx2.cdf(2 * 400 * value + nu, nu, 2 * 400 * above) == pytest.approx(0.025, abs=1e-9)
        assert stderr == pytest.approx(math.sqrt(nu / 2) / 400)  # the standard deviation of χ²_ν/2n
    # A series whose mean has twice the error is worth a quarter of the samples; two kinds of samples nm/(n + m).
    assert near_zero(0.0, 2 * alone, [influence], 2.0, 0.95)[0] == pytest.approx(max(2 * alone, 4 / 400))
    assert near_zero(0.0, 1e-6, [influence, influence[:100]], 2.0, 0.95)[0] == pytest.approx(1 / 80)


def test_log_det_bias_is_the_wishart_expectation() -> None:
    rng = np.random.default_rng(0)
    values = []
    for _ in range(4000):
        draw = rng.normal(size=(9, 4))
        values.append(np.linalg.slogdet(draw.T @ draw / 9)[1])
    assert abs(np.mean(values) - log_det_bias(4, 9)) < 4 * np.std(values) / math.sqrt(4000)


@pytest.mark.parametrize("given", [[], Y])
def test_gaussian_information_is_unbiased_with_the_right_error(given: list[int]) -> None:
    # n = 30 in 5 or 7 dimensions: without the correction the bias is about d_x d_z/2n = 0.1.
    matrix = covariance()
    root = np.linalg.cholesky(matrix)
    estimates = []
    for seed in range(600):
        draw = np.random.default_rng(seed).normal(size=(30, 7)) @ root.T
        estimates.append(gaussian_information(draw[:, X], draw[:, Z], draw[:, given] if given else None))
    values = np.array([e.value for e in estimates])
    assert abs(values.mean() - exact(matrix, given)) < 4 * values.std() / math.sqrt(600)
    # The influence function is first-order: at n = 30 it misses the variance of order d²/n².
    assert 0.6 < np.mean([e.stderr for e in estimates]) / values.std() < 1.1


@pytest.mark.parametrize("given", [[], Y])
def test_gaussian_coverage(given: list[int]) -> None:
    # 380 ± 4 √(400 · 0.05 · 0.95) = 380 ± 17.4 of 400 cover; n = 800 makes the second order negligible.
    matrix = covariance()
    root, truth = np.linalg.cholesky(matrix), exact(matrix, given)
    covered = 0
    for seed in range(400):
        draw = np.random.default_rng(seed).normal(size=(800, 7)) @ root.T
        estimate = gaussian_information(draw[:, X], draw[:, Z], draw[:, given] if given else None)
        covered += estimate.ci_low < truth < estimate.ci_high
    assert abs(covered - 380) < 17.4


def test_gaussian_information_is_the_closed_form_of_the_sample_covariance() -> None:
    draw = np.random.default_rng(1).normal(size=(200, 7)) @ np.linalg.cholesky(covariance()).T
    closed = exact(np.cov(draw.T), Y)
    bias = 0.5 * (log_det_bias(4, 199) + log_det_bias(5, 199) - log_det_bias(2, 199) - log_det_bias(7, 199))
    assert gaussian_information(draw[:, X], draw[:, Z], draw[:, Y]).value == pytest.approx(
        closed - bias, abs=1e-12
    )


def test_affine_maps_of_each_block_change_nothing() -> None:
    rng = np.random.default_rng(2)
    draw = rng.normal(size=(100, 7)) @ np.linalg.cholesky(covariance()).T
    turn_x, turn_z, mix = rng.normal(size=(2, 2)), rng.normal(size=(3, 3)), rng.normal(size=(2, 2))
    plain = gaussian_information(draw[:, X], draw[:, Z], draw[:, Y])
    moved = gaussian_information(draw[:, X] @ turn_x + draw[:, Y] @ mix, draw[:, Z] @ turn_z - 3, draw[:, Y])
    assert moved.value == pytest.approx(plain.value, abs=1e-10)
    assert moved.stderr == pytest.approx(plain.stderr, abs=1e-10)


def test_copula_ignores_rising_maps() -> None:
    draw = np.random.default_rng(3).normal(size=(500, 7)) @ np.linalg.cholesky(covariance()).T
    plain = copula_information(draw[:, X], draw[:, Z], draw[:, Y])
    bent = copula_information(draw[:, X] ** 3, np.arcsinh(draw[:, Z]), np.exp(draw[:, Y]))
    assert bent.value == plain.value
    assert abs(plain.value - exact(covariance(), Y)) < 4 * plain.stderr
    # The covariance of cubes knows less: 0.8 nats of two columns of correlation 0.9 lose a quarter.
    first = np.random.default_rng(4).normal(size=4000)
    second = 0.9 * first + math.sqrt(0.19) * np.random.default_rng(5).normal(size=4000)
    truth = -0.5 * math.log(0.19)
    assert gaussian_information(first**3, second).value < truth - 0.2
    assert abs(copula_information(first**3, second).value - truth) < 0.05


def test_normal_scores_of_ties() -> None:
    scores = normal_scores(np.array([[1.0], [3.0], [3.0], [9.0]]))[:, 0]
    assert scores[1] == scores[2] == 0.0
    assert scores[0] == pytest.approx(-scores[3], abs=1e-15)


def test_gaussian_needs_samples_and_directions() -> None:
    rng = np.random.default_rng(4)
    with pytest.raises(SampleError, match="at least 5 samples, got n = 4"):
        gaussian_information(rng.normal(size=(4, 2)), rng.normal(size=4))
    with pytest.raises(SampleError, match="at least 5 samples"):
        gaussian_information(rng.normal(size=(4, 2)), rng.normal(size=4))
    tiny = 1e-9 * rng.normal(size=(50, 2))
    assert math.isfinite(gaussian_information(tiny, tiny[:, 0] + 1e-9 * rng.normal(size=50)).value)


def test_gaussian_divergence_is_unbiased_with_the_right_error() -> None:
    rng = np.random.default_rng(5)
    d, n, m = 3, 25, 20
    roots = [np.linalg.cholesky(covariance(s)[:d, :d]) for s in (1, 2)]
    shift = np.array([0.5, -0.3, 0.2])
    covariances = [torch.from_numpy(root @ root.T) for root in roots]
    zero = torch.zeros(d, dtype=torch.float64)
    truth = float(gaussian.kl_divergence(torch.from_numpy(shift), covariances[0], zero, covariances[1]))
    estimates = [
        gaussian_divergence(shift + rng.normal(size=(n, d)) @ roots[0].T, rng.normal(size=(m, d)) @ roots[1].T)
        for _ in range(1000)
    ]
    values = np.array([e.value for e in estimates])
    assert abs(values.mean() - truth) < 4 * values.std() / math.sqrt(1000)
    large = [
        gaussian_divergence(shift + rng.normal(size=(600, d)) @ roots[0].T, rng.normal(size=(400, d)) @ roots[1].T)
        for _ in range(100)
    ]
    spread = np.std([e.value for e in large])
    # 1/√200 = 7 % is the spread's own error, a few per cent the second order.
    assert abs(np.mean([e.stderr for e in large]) / spread - 1) < 0.25
    with pytest.raises(SampleError, match="n ≥ 5 and m ≥ 6, got n = 25, m = 5"):
        gaussian_divergence(rng.normal(size=(n, d)), rng.normal(size=(5, d)))
    with pytest.raises(SampleError, match="same dimension, got 3 and 2"):
        gaussian_divergence(rng.normal(size=(n, d)), rng.normal(size=(n, 2)))


def test_the_bias_that_gaussian_divergence_removes_is_the_naive_plug_ins() -> None:
    """The divergence of the sample moments themselves is off by a closed form, from E V^{-1} = Σ_q^{-1}/c."""
    rng = np.random.default_rng(6)
    d, n, m = 3, 25, 20
    roots = [np.linalg.cholesky(covariance(s)[:d, :d]) for s in (1, 2)]
    shift = np.array([0.5, -0.3, 0.2])
    inner = np.linalg.solve(roots[1], np.column_stack([roots[0], shift]))
    trace, length = (inner[:, :d] ** 2).sum(), (inner[:, d] ** 2).sum()
    c = (m - d - 2) / (m - 1)
    bias = ((trace + length + trace / n + d / m) / c - trace - length) / 2
    bias += (log_det_bias(d, m - 1) - log_det_bias(d, n - 1)) / 2
    assert bias > 0.2
    gaps = []
    for _ in range(400):
        p = shift + rng.normal(size=(n, d)) @ roots[0].T
        q = rng.normal(size=(m, d)) @ roots[1].T
        moments = [torch.from_numpy(part) for a in (p, q) for part in (a.mean(0), np.cov(a.T))]
        gaps.append(float(gaussian.kl_divergence(*moments)) - gaussian_divergence_value(p, q))
    assert abs(np.mean(gaps) - bias) < 4 * np.std(gaps) / math.sqrt(400)


def _coins(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Y uniform on 3 values; X and Z flip Y's parity-like bits together, X repeats in Z with probability ½."""
    y = rng.integers(0, 3, size=n)
    x = (y + rng.integers(0, 3, size=n)) % 4
    z = np.where(rng.random(n) < 0.5, x, rng.integers(0, 4, size=n))
    return x, z, y


def _coin_information() -> float:
    """I(X; Z | Y) of the law of :func:`_coins`, by enumeration."""
    joint = np.zeros((4, 4, 3))
    for y in range(3):
        for u in range(3):
            x = (y + u) % 4
            joint[x, x, y] += 0.5 / 9
            joint[x, :, y] += 0.5 / 9 / 4
    y_, xy, zy = joint.sum((0, 1)), joint.sum(1, keepdims=True), joint.sum(0, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.nansum(joint * np.log(joint * y_ / xy / zy)))


def test_miller_madow_removes_the_first_order_bias() -> None:
    truth, n = _coin_information(), 300
    plain, corrected, covered = [], [], 0
    for seed in range(400):
        draw = _coins(n, np.random.default_rng(seed))
        estimate = discrete_information(*draw)
        plain.append(discrete_information(*draw, correction="none").value)
        corrected.append(estimate.value)
        covered += estimate.ci_low < truth < estimate.ci_high
    # 36 cells (27 x, z, y of positive probability with their margins): the plug-in's bias is (d.o.f.)/2n.
    freedom = 3 * (3 - 1) * (4 - 1)
    noise = np.std(plain) / math.sqrt(400)
    assert abs(np.mean(plain) - truth - freedom / (2 * n)) < 4 * noise + 0.2 * freedom / (2 * n)
    assert abs(np.mean(corrected) - truth) < 4 * noise + 0.2 * freedom / (2 * n)
    # 380 ± 4 √(400 · 0.05 · 0.95) = 380 ± 17.4
    assert abs(covered - 380) < 17.4


def test_shrinkage_helps_where_cells_are_many() -> None:
    rng = np.random.default_rng(6)
    errors = {"none": [], "miller-madow": [], "shrinkage": []}
    for _ in range(30):
        x, z = rng.integers(0, 15, size=(2, 100))
        for correction, error in errors.items():
            error.append(abs(discrete_information(x, z, correction=correction).value))  # type: ignore[arg-type]
    assert np.mean(errors["shrinkage"]) < 0.2 * np.mean(errors["none"])
    with pytest.warns(EstimationWarning, match="100 samples fill"):
        discrete_information(x, z)


def test_shrinkage_is_the_information_of_the_shrunk_table() -> None:
    # Hausser and Strimmer's formula, written out on counts (3, 1; 0, 2) with n = 6.
    x, z = np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 0, 1, 1, 1])
    p = np.array([[3, 1], [0, 2]]) / 6
    weight = (1 - (p**2).sum()) / (5 * ((0.25 - p) ** 2).sum())
    q = weight / 4 + (1 - weight) * p if weight < 1 else np.full((2, 2), 0.25)
    truth = (q * np.log(q / q.sum(0) / q.sum(1)[:, None])).sum()
    assert discrete_information(x, z, correction="shrinkage").value == pytest.approx(truth, abs=1e-12)


def test_discrete_columns_and_labels() -> None:
    rng = np.random.default_rng(7)
    x, z = rng.integers(0, 2, size=(100, 2)), rng.integers(0, 3, size=100)
    one = discrete_information(x, z)
    assert discrete_information(10 * x[:, 0] + x[:, 1], -z).value == pytest.approx(one.value, abs=1e-12)
    with pytest.raises(SampleError, match="the correction is"):
        discrete_information(x, z, correction="magic")  # type: ignore[arg-type]
