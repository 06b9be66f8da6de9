"""Links finer than neighbourhoods: the bound from next samples holds, and the default says what it cannot see."""

import math
import warnings

import numpy as np
import pytest

from arvdm_theory.experiments.estimators.hard import channel_information, folded_information
from arvdm_theory.information.estimators import baseline, estimate_information
from arvdm_theory.information.estimators.baseline import calibrated_parts
from arvdm_theory.information.estimators.fineness import next_sample_bound
from arvdm_theory.information.estimators.neighbours import _query, nearest

NONE = np.empty((1000, 0))


def test_the_bound_is_tight_where_everything_is_gaussian() -> None:
    # X' → X as n → ∞: D is the difference of two draws of Z given X, h(D) = h(Z | X) + ½ log 2, and the bound is
    # the information, under independence too. Given an irrelevant Y it is ½ log 2 below.
    for rho in (0.0, 0.9, 0.99):
        rng = np.random.default_rng(3)
        x, noise, y = rng.normal(size=(3, 4000, 1))
        z = rho * x + math.sqrt(1 - rho**2) * noise
        truth = -0.5 * math.log(1 - rho**2)
        bound, error = next_sample_bound(x, z, y[:, :0])
        # The better of two directions, each with its error.
        assert abs(bound - truth) < 4 * error
        given, error = next_sample_bound(x, z, y)
        # Next in two columns is not as near: the bound is lower, never above.
        assert given < truth - 0.5 * math.log(2) + 4 * error
    bound, _ = next_sample_bound(np.arcsinh(5 * x), z**3, y[:, :0], seed=1)
    assert bound == pytest.approx(truth, abs=0.15)
    assert next_sample_bound(*rng.normal(size=(2, 50, 4)), np.empty((50, 0))) == (-math.inf, 0.0)


def test_the_bound_holds_for_noise_that_is_not_gaussian() -> None:
    # Z = 20 X + U, both uniform: h(Z | X) = 0, and h(Z) = log 20 + ½/20 by the density of a trapezoid. The
    # difference of two draws is a triangle, of entropy ½ > ½ log 2, so the bound is below; more so of two values.
    x, u = np.random.default_rng(5).random((2, 4000, 1))
    for noise, truth in ((u, math.log(20) + 0.5 / 20), (np.rint(u) + 0.01 * u, None)):
        z = 20 * x + noise
        bound, error = next_sample_bound(x, z, x[:, :0])
        if truth is None:  # h(Z | X) = log(2 * 0.01 / 2) of two intervals of 0.005; h(Z) to 1/20 that of X
            truth = math.log(20) - math.log(0.01)
        assert 0.4 * truth < bound < truth + 2 * error


@pytest.mark.parametrize("count", [40, 160])
def test_a_link_that_neighbourhoods_miss_is_warned_of(count: int) -> None:
    rng = np.random.default_rng(count)
    x = rng.random((1000, 1))
    z = 1 - np.abs((count * x) % 2 - 1) + 0.01 * rng.standard_normal((1000, 1))
    truth = folded_information(0.01)
    bound, error = next_sample_bound(x, z, NONE)
    assert 4 * error < bound < truth
    with pytest.warns(UserWarning, match=r"next to one another|the faster the more samples"):
        found = estimate_information(x, z)
    assert found.ci_low < truth < found.ci_high
    assert found.ci_high >= math.log(1000 / 3) - 1e-9


def test_few_baseline_samples_are_drawn_where_the_problem_is_easy(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    draw = baseline._draw

    def counted(*args: object) -> object:
        drawn.append(len(drawn))
        return draw(*args)  # type: ignore[arg-type]

    def draws(x: np.ndarray, z: np.ndarray) -> int:
        drawn.clear()
        calibrated_parts(x[:, None], z[:, None], np.empty((len(x), 0)))
        return len(drawn)

    monkeypatch.setattr(baseline, "_draw", counted)
    rng = np.random.default_rng(4)
    x, noise = rng.normal(size=(2, 1000))
    scale = np.sqrt(3 / rng.chisquare(3, size=1000))
    assert draws(np.exp(x), (0.6 * x + 0.8 * noise) ** 3) == draws(x, noise) == 0
    # A common scale, a tight link.
    assert draws(x * scale, noise * scale) >= 1
    assert draws(x, x + 0.05 * noise) >= 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = estimate_information(np.exp(x), (0.6 * x + 0.8 * noise) ** 3)
    assert found.ci_low < 0.2231 < found.ci_high


@pytest.mark.parametrize(("speed", "n"), [(20.0, 200), (10.0, 100), (50.0, 300)])
def test_oscillations_of_few_samples_are_warned_of(speed: float, n: int) -> None:
    truth = channel_information(lambda x: np.sin(speed * x), 0.2)
    for seed in range(3):
        x, rest = np.random.default_rng([seed, n]).standard_normal((2, n, 1))
        with pytest.warns(UserWarning, match="only the lower end says something"):
            found = estimate_information(x, np.sin(speed * x) + 0.2 * rest)
        assert found.ci_low < truth < found.ci_high


@pytest.mark.parametrize("count", [5, 10])
def test_folds_of_two_columns_reach_to_what_two_can_hold(count: int) -> None:
    rng = np.random.default_rng(count)
    x = rng.random((500, 2))
    z = 1 - np.abs((count * x) % 2 - 1) + 0.03 * rng.standard_normal((500, 2))
    with pytest.warns(UserWarning, match="only the lower end says something"):
        found = estimate_information(x, z)
    assert found.ci_low < 2 * folded_information(0.03) < found.ci_high <= 2 * math.log(500 / 3) + 1e-9


@pytest.mark.parametrize("k", [1, 3])
def test_neighbours_on_a_line_are_those_of_a_tree(k: int) -> None:
    for values in (np.random.default_rng(k).normal(size=(200, 1)), np.arange(5.0)[:, None] ** 2):
        distance, index = nearest(values, k)
        expected, _ = _query(values, values, k + 1)
        np.testing.assert_array_equal(distance, expected[:, 1:])
        np.testing.assert_array_equal(np.abs(values[index][..., 0] - values), distance)
        assert (index != np.arange(len(values))[:, None]).all()
