"""Clustered intervals against the bootstrap, the binomial interval and repeated experiments."""

import numpy as np
import pytest
from scipy.stats import beta, binomtest, t

from arvdm_theory.number import Number
from arvdm_theory.video.intervals import cluster_rate


def test_the_standard_error_is_that_of_the_cluster_bootstrap() -> None:
    rng = np.random.default_rng(0)
    groups, size, draws = 30, 4, 4000
    values = rng.normal(size=(groups, 1)) + 0.5 * rng.normal(size=(groups, size))
    found = Number.clustered(values.ravel(), np.repeat(np.arange(groups), size))
    means = values.mean(1)[rng.integers(0, groups, (draws, groups))].mean(1)
    # Of clusters of one size the bootstrap's variance is (G - 1)/G times the unbiased one; a spread of 4000 draws
    # is off by 1/√8000 of itself, and five of those are allowed.
    expected = means.std(ddof=1) * np.sqrt(groups / (groups - 1))
    assert found.stderr == pytest.approx(expected, rel=5 / np.sqrt(2 * draws))
    assert found.value == pytest.approx(values.mean(), rel=1e-12)
    assert found.ci_high - found.ci_low == pytest.approx(2 * t.ppf(0.975, groups - 1) * found.stderr, rel=1e-12)
    assert (found.n, len(found.samples)) == (groups * size, groups)


def test_clusters_of_one_are_the_ordinary_standard_error() -> None:
    values = np.random.default_rng(1).normal(size=12)
    assert Number.clustered(values, np.arange(12)).stderr == pytest.approx(
        values.std(ddof=1) / np.sqrt(12), rel=1e-12
    )
    success = values > 0.2
    found, hits = cluster_rate(success, np.arange(12)), success.mean() * 11
    # The unbiased variance p(1 - p)/(N - 1) of a rate makes N - 1 trials.
    assert found.ci_low == pytest.approx(beta.ppf(0.025, hits, 12 - hits), rel=1e-9)
    assert found.ci_high == pytest.approx(beta.ppf(0.975, hits + 1, 11 - hits), rel=1e-9)


def test_trials_that_always_end_alike_count_once() -> None:
    outcome = np.array([1, 1, 0, 1, 0, 1, 1, 1], dtype=bool)
    found = cluster_rate(np.repeat(outcome, 50), np.repeat(np.arange(8), 50))
    alone = cluster_rate(outcome, np.arange(8))
    assert found.stderr == pytest.approx(alone.stderr, rel=1e-12)
    # The wider of the two, by the degrees of freedom: 8 clusters are not 400 trials.
    assert found.ci_high - found.ci_low > alone.ci_high - alone.ci_low > 0.5
    for success in (True, False):
        every = cluster_rate([success] * 20, np.repeat(np.arange(5), 4))
        exact = binomtest(5 * success, 5).proportion_ci(0.95)
        assert (every.ci_low, every.ci_high) == pytest.approx((exact.low, exact.high), abs=1e-12)


def test_the_interval_covers_where_the_binomial_one_does_not() -> None:
    rng = np.random.default_rng(2)
    truth, groups, size, trials = 0.6, 12, 15, 200
    labels = np.repeat(np.arange(groups), size)
    covered, naive = 0, 0
    for _ in range(trials):
        # A beta-binomial of intra-cluster correlation 1/3.
        chances = rng.beta(2 * truth, 2 * (1 - truth), groups)
        success = rng.random((groups, size)) < chances[:, None]
        found = cluster_rate(success.ravel(), labels)
        covered += found.ci_low <= truth <= found.ci_high
        plain = binomtest(int(success.sum()), groups * size).proportion_ci(0.95)
        naive += plain.low <= truth <= plain.high
    # Nominal coverage less three standard errors of 200 trials.
    assert covered / trials > 0.95 - 3 * np.sqrt(0.95 * 0.05 / trials)
    assert naive / trials < 0.8


def test_what_cannot_be_said_is_nan() -> None:
    alone = Number.clustered([1.0, 2.0], ["a", "a"])
    assert alone.value == 1.5
    assert np.isnan([alone.stderr, alone.ci_low, alone.ci_high]).all()
    endless = Number.clustered([np.inf, 1.0], ["a", "b"])
    assert np.isposinf(endless.value)
    assert np.isnan(endless.stderr)
    assert np.isnan(cluster_rate([], []).value)
    one = cluster_rate([True, False, True], ["a"] * 3)
    assert one.ci_low < 0.05 < 0.95 < one.ci_high
    with pytest.raises(ValueError, match="one length"):
        Number.clustered([1.0, 2.0], ["a"])
    with pytest.raises(ValueError, match="one length"):
        cluster_rate([True, False], ["a"])
