"""Slopes of quality against least-squares fits and repeated experiments; rank correlations against scipy."""

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import permutation_test, rankdata, spearmanr

from arvdm_theory.video.decay import DecayError, decay_slope, partial_rank_correlation, rank_agreement

Array = NDArray[np.float64]


def _curves(rng: np.random.Generator, videos: int, each: int, frames: int) -> Array:
    """PSNR curves that fall by 0.4 dB a frame, with a level and a slope of each video."""
    own = rng.normal(size=(2, videos, 1)).repeat(each, 1)
    noise = rng.normal(size=(videos * each, frames))
    curves: Array = 25 + 2 * own[0] - (0.4 + 0.1 * own[1]) * np.arange(frames) + noise
    return curves


def test_slopes_are_least_squares_fits() -> None:
    curves, index = _curves(np.random.default_rng(11), 10, 2, 8), np.arange(8)
    labels = np.repeat(np.arange(10), 2)
    found = decay_slope(curves, labels)
    middle = 10 * np.log10(4 / (4 * 10 ** (-curves / 10)).mean(0))
    assert found.value == pytest.approx(np.polyfit(index, middle, 1)[0], rel=1e-10)
    assert (len(found.samples), found.n) == (10, 20)
    alone = decay_slope(curves[:1])
    assert alone.value == pytest.approx(np.polyfit(index, curves[0], 1)[0], rel=1e-10)
    assert np.isnan(alone.stderr)


def test_standard_errors_of_slopes_are_those_of_repeated_experiments() -> None:
    rng, labels = np.random.default_rng(12), np.repeat(np.arange(60), 2)
    made = [decay_slope(_curves(rng, 60, 2, 8), labels) for _ in range(400)]
    spread, stated = np.std([s.value for s in made], ddof=1), np.mean([s.stderr for s in made])
    # A spread of 400 is off by 1/√800 of itself, and four of those are allowed; to that comes 1/60, the order of
    # what linearising leaves out.
    assert stated == pytest.approx(spread, rel=4 / np.sqrt(800) + 1 / 60)


def test_exact_copies_count_as_no_error() -> None:
    curves = _curves(np.random.default_rng(13), 5, 1, 6)
    curves[1, 2] = np.inf
    found = decay_slope(curves)
    errors = 4 * 10 ** (-curves / 10)
    assert errors[1, 2] == 0
    middle = 10 * np.log10(4 / errors.mean(0))
    assert found.value == pytest.approx(np.polyfit(np.arange(6), middle, 1)[0], rel=1e-10)
    assert len(found.samples) == 5
    curves[:, 2] = np.inf
    with pytest.raises(DecayError, match="index 2"):
        decay_slope(curves)


def test_rank_agreement_is_spearmans_with_the_share_of_all_orders() -> None:
    rng = np.random.default_rng(14)
    for n, ties in itertools.product((4, 5, 6), (False, True)):
        x, y = rng.normal(size=(2, n))
        if ties:
            x[0], y[1] = x[1], y[2]
        found = rank_agreement(x, y)
        expected = spearmanr(x, y).statistic
        assert found.correlation.value == pytest.approx(expected, rel=1e-12)
        every = [abs(spearmanr(x, y[list(order)]).statistic) for order in itertools.permutations(range(n))]
        assert found.pvalue == pytest.approx(np.mean(np.array(every) > abs(expected) - 1e-9), rel=1e-12)
        assert found.exact
    assert rank_agreement(np.arange(8.0), np.arange(8.0)).pvalue == pytest.approx(2 / 40320)


def test_random_orders_come_near_all_of_them() -> None:
    rng = np.random.default_rng(15)
    x = rng.normal(size=9)
    y = x + rng.normal(size=9)
    found = rank_agreement(x, y, permutations=20000)
    exact = permutation_test(
        (x,), lambda shuffled, axis: _correlations(shuffled, y), permutation_type="pairings", vectorized=True,
        n_resamples=np.inf, alternative="two-sided", batch=50000,
    )  # fmt: skip
    assert not found.exact
    # Five binomial standard errors, and the observed order itself.
    slack = 5 * np.sqrt(exact.pvalue * (1 - exact.pvalue) / 20000) + 1 / 20000
    assert found.pvalue == pytest.approx(exact.pvalue, abs=slack)
    assert rank_agreement(x, y, seed=1).pvalue == rank_agreement(x, y, seed=1).pvalue
    assert rank_agreement(x, x).pvalue >= 1 / 10000


def _correlations(shuffled: Array, y: Array) -> Array:
    ranks = shuffled.argsort(-1).argsort(-1) - (len(y) - 1) / 2
    own = y.argsort().argsort() - (len(y) - 1) / 2
    found: Array = ranks @ own / (own @ own)
    return found


def test_the_interval_of_a_rank_correlation_covers() -> None:
    rng, trials, runs, pearson = np.random.default_rng(16), 400, 20, 0.6
    truth, covered, values, errors = 6 / np.pi * np.arcsin(pearson / 2), 0, [], []
    for _ in range(trials):
        x, z = rng.normal(size=(2, runs))
        found = rank_agreement(x, pearson * x + np.sqrt(1 - pearson**2) * z, permutations=1).correlation
        covered += found.ci_low <= truth <= found.ci_high
        errors.append(found.stderr)
        values.append(found.value)
    # Nominal coverage less three standard errors of 400 trials.
    assert covered / trials > 0.95 - 3 * np.sqrt(0.95 * 0.05 / trials)
    # The standard error is linearised, to within terms of order 1/runs of itself; a spread of 400 is off by 1/√800
    # of itself, and four of those are allowed.
    assert np.mean(errors) == pytest.approx(np.std(values, ddof=1), rel=4 / np.sqrt(800) + 1 / runs)


def test_a_perfect_order_has_no_interval() -> None:
    for sign in (1, -1):
        found = rank_agreement([1, 2, 4, 8], [sign * v for v in (3, 5, 7, 9)]).correlation
        assert found.value == sign
        assert np.isnan([found.stderr, found.ci_low, found.ci_high]).all()


def test_a_partial_correlation_is_that_of_the_residuals_of_ranks() -> None:
    rng = np.random.default_rng(17)
    for n in (7, 9, 30):
        shared, one, other = rng.normal(size=(3, n))
        x, y = shared + one, shared + other
        ranks = [rankdata(values) - (n + 1) / 2 for values in (x, y, shared)]
        left = [own - ranks[2] * (own @ ranks[2]) / (ranks[2] @ ranks[2]) for own in ranks[:2]]
        expected = left[0] @ left[1] / np.sqrt((left[0] @ left[0]) * (left[1] @ left[1]))
        assert partial_rank_correlation(x, y, shared).value == pytest.approx(expected, abs=1e-12)
    # What both owe to a third one is no correlation of their own.
    shared, one, other = rng.normal(size=(3, 2000))
    alone = partial_rank_correlation(shared + one, shared + other, shared)
    assert rank_agreement(shared + one, shared + other, permutations=1).correlation.value > 0.4
    assert alone.ci_low < 0.05
    assert alone.ci_high > -0.05
    with pytest.raises(DecayError, match="nothing is left"):
        partial_rank_correlation(x, y, x)
    with pytest.raises(DecayError, match="5 or more"):
        partial_rank_correlation([1, 2, 3, 4], [2, 1, 3, 4], [1, 3, 2, 4])


def test_curves_and_runs_that_say_nothing_are_refused() -> None:
    for curves, match in (
        ([1.0, 2.0], "shape"), ([[1.0]], "2 or more"), (np.zeros((0, 3)), "shape"),
        ([[1.0, np.nan]], "NaN"), ([[1.0, -np.inf]], "NaN or -∞"),
    ):  # fmt: skip
        with pytest.raises(DecayError, match=match):
            decay_slope(curves)
    with pytest.raises(ValueError, match="one length"):
        decay_slope([[1.0, 2.0]], ["a", "b"])
    x = [1.0, 2.0, 3.0, 4.0]
    for given, match in (
        ((x[:3], x[:3]), "4 or more"), ((x, x[:3]), "one length"), ((x, [1.0, 2.0, 3.0, np.nan]), "NaN"),
        ((x, [1.0] * 4), "constant"), ((x, x, 0), "at least one"),
    ):  # fmt: skip
        with pytest.raises(DecayError, match=match):
            rank_agreement(*given)
