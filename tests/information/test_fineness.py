"""Links finer than neighbourhoods: the bound from next samples holds, and the default says what it cannot see."""

import math
import warnings

import numpy as np
import pytest

from arvdm_theory.experiments.estimators.hard import folded_information
from arvdm_theory.information.estimators import estimate_information
from arvdm_theory.information.estimators.fineness import next_sample_bound
from arvdm_theory.information.estimators.neighbours import _query, nearest

NONE = np.empty((1000, 0))


def test_the_bound_is_what_two_draws_leave_where_everything_is_gaussian() -> None:
    # X' → X as n → ∞: D is the difference of two draws of Z given X, h(D) = h(Z | X) + ½ log 2, so the bound is
    # ½ log 2 below the information; under independence too. Given an irrelevant Y it is log 2 below.
    for rho in (0.0, 0.9, 0.99):
        rng = np.random.default_rng(3)
        x, noise, y = rng.normal(size=(3, 4000, 1))
        z = rho * x + math.sqrt(1 - rho**2) * noise
        truth = -0.5 * math.log(1 - rho**2)
        bound, error = next_sample_bound(x, z, y[:, :0])
        # The better of two directions, each with its error.
        assert truth - 0.5 * math.log(2) - 4 * error < bound < truth - 0.5 * math.log(2) + 4 * error
        given, error = next_sample_bound(x, z, y)
        # Next in two columns is not as near: the bound is lower, never above.
        assert given < truth - 0.5 * math.log(2) + 4 * error
    bound, _ = next_sample_bound(np.arcsinh(5 * x), z**3, y[:, :0], seed=1)
    assert bound == pytest.approx(truth - 0.5 * math.log(2), abs=0.15)
    assert next_sample_bound(*rng.normal(size=(2, 50, 4)), np.empty((50, 0))) == (-math.inf, 0.0)


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


def test_two_easy_columns_take_the_short_way_and_others_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    from arvdm_theory.information.estimators import residual

    def never(*_: object, **__: object) -> None:
        raise AssertionError("the long way")

    rng = np.random.default_rng(4)
    x, noise = rng.normal(size=(2, 1000))
    scale = np.sqrt(3 / rng.chisquare(3, size=1000))
    long = {"a common scale": (x * scale, noise * scale), "a tight link": (x, x + 0.05 * noise)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        slow = {name: estimate_information(*pair).value for name, pair in long.items()}
        monkeypatch.setattr(residual, "_pieces", never)
        found = estimate_information(np.exp(x), (0.6 * x + 0.8 * noise) ** 3)
        assert found.ci_low < 0.2231 < found.ci_high
        assert abs(estimate_information(x, noise).value) < 0.03
    for name, pair in long.items():
        assert slow[name] > 0.02, name
        with pytest.raises(AssertionError, match="the long way"):
            estimate_information(*pair)
    # Few samples, a condition, a series.
    for options in ({"x": x[:300], "z": noise[:300]}, {"x": x, "z": noise, "y": rng.normal(size=1000)},
                    {"x": x, "z": noise, "dependence": "autocorrelated"}):  # fmt: skip
        with pytest.raises(AssertionError, match="the long way"):
            estimate_information(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("k", [1, 3])
def test_neighbours_on_a_line_are_those_of_a_tree(k: int) -> None:
    for values in (np.random.default_rng(k).normal(size=(200, 1)), np.arange(5.0)[:, None] ** 2):
        distance, index = nearest(values, k)
        expected, _ = _query(values, values, k + 1)
        np.testing.assert_array_equal(distance, expected[:, 1:])
        np.testing.assert_array_equal(np.abs(values[index][..., 0] - values), distance)
        assert (index != np.arange(len(values))[:, None]).all()
