"""The conditional independence test: level where naive shuffles fail, power, shifts, and exact bookkeeping."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import norm

from arvdm_theory.experiments.independence.nulls import NULLS
from arvdm_theory.information.estimators import SampleError, independence
from arvdm_theory.information.estimators.arrangements import (
    cells_of,
    circular_shifts,
    exchanges,
    local_permutation,
    matched,
    memory,
)
from arvdm_theory.information.estimators.independence import IndependenceTest, independence_test
from arvdm_theory.information.estimators.knn import ksg_contributions
from arvdm_theory.information.estimators.least_squares import Explained, Fit, Regression, _neighbours


def rejections(draw, runs: int, **options) -> int:  # type: ignore[no-untyped-def]
    found, refused = 0, 0
    for seed in range(runs):
        try:
            test = independence_test(*draw(np.random.default_rng(seed)), permutations=19, seed=seed, **options)
            found += test.p_value <= 0.05
        except SampleError as error:
            # Chance lets one regression in 20 look as if it did not fit; of a series, that is refused.
            if "is not fitted" not in str(error):
                raise
            refused += 1
    assert refused <= runs * 0.05 + 3 * math.sqrt(runs * 0.05 * 0.95)
    return found


def linear(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """X and Z have correlation 0.9 with Y and nothing else in common."""
    y = rng.normal(size=200)
    return *(0.9 * y + math.sqrt(0.19) * rng.normal(size=200) for _ in range(2)), y


def nonlinear(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """The same through sines of Y: the noise is a fifth of the variance."""
    y = rng.normal(size=200)
    return *(math.sqrt(2) * 0.9 * np.sin(2 * y) + math.sqrt(0.19) * rng.normal(size=200) for _ in range(2)), y


@pytest.mark.parametrize("draw", [linear, nonlinear])
def test_the_level_holds_under_a_strong_common_cause(draw) -> None:  # type: ignore[no-untyped-def]
    # Of 60 runs at 0.05, 3 + 3 √(60 · 0.05 · 0.95) = 8.1 reject at most; a shuffle of all samples
    # always rejects.
    assert rejections(draw, 60) <= 8
    assert rejections(lambda rng: draw(rng)[:2], 5) == 5


@pytest.mark.parametrize("statistic", ["both", "gaussian"])
def test_linear_dependence_is_found(statistic: str) -> None:
    def draw(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        x, z, y = linear(rng)
        return x, z + 0.5 * (x - 0.9 * y), y

    assert rejections(draw, 10, statistic=statistic) >= 8


@pytest.mark.parametrize("statistic", ["both", "neighbours"])
def test_nonlinear_dependence_is_found(statistic: str) -> None:
    def draw(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        y, common = rng.normal(size=(2, 200))
        return y + common, y + common**2 + 0.3 * rng.normal(size=200), y

    assert rejections(draw, 10, statistic=statistic) >= 8


def _two_series(n: int, phi: float, rng: np.random.Generator) -> np.ndarray:
    series = np.empty((n, 2))
    series[0] = rng.normal(size=2)
    for i in range(1, n):
        series[i] = phi * series[i - 1] + math.sqrt(1 - phi**2) * rng.normal(size=2)
    return series


@pytest.mark.parametrize("given", [False, True])
def test_shifts_keep_the_level_under_autocorrelation(given: bool) -> None:
    def draw(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        x, z = _two_series(400, 0.8, rng).T
        y = _two_series(400, 0.8, rng)[:, 0]
        return (x + np.sin(2 * y), z + np.sin(2 * y), y) if given else (x, z)

    # Of 60 runs at 0.05, 3 + 3 √(60 · 0.05 · 0.95) = 8.1 reject at most. Moving single samples of AR(1) series
    # of 0.8 understates the correlation's variance by (1 + 0.64)/(1 - 0.64) = 4.6: 1.96/√4.6 = 0.92 standard
    # deviations reject, 36 % of the time, in 21 - 3 · 3.7 = 10 runs at least. Cells of Y keep some memory.
    options = {"statistic": "gaussian", "stop": 1}
    assert rejections(draw, 60, dependence="autocorrelated", **options) <= 8
    assert rejections(draw, 60, **options) >= (6 if given else 10)


def test_power_rises_with_the_strength() -> None:
    def draw(strength: float):  # type: ignore[no-untyped-def]
        def at(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
            x, z, y = nonlinear(rng)
            own = x - math.sqrt(2) * 0.9 * np.sin(2 * y)
            return x, z + strength * own, y

        return at

    found = [rejections(draw(strength), 30, statistic="gaussian") for strength in (0.0, 0.15, 0.6)]
    # At correlation 0.15/√1.0225 of 200 noises the z-score is 2.1: power about 0.5, apart from 0.05 and from 1.
    assert found[0] < found[1] < found[2]
    # A regression that fits looks by chance as if it did not in one sample of 20; pairs have little power.
    assert found[2] >= 30 - (1.5 + 3 * math.sqrt(30 * 0.05 * 0.95))


def test_power_under_autocorrelation() -> None:
    def draw(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        x, z = _two_series(400, 0.7, rng).T
        y = _two_series(400, 0.7, rng)[:, 0]
        return x + y, z + 0.5 * x + y, y

    assert rejections(draw, 20, statistic="gaussian", dependence="autocorrelated") >= 18


def test_p_values_count_the_samples_themselves() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=100)
    result = independence_test(x, x + 0.01 * rng.normal(size=100), permutations=19)
    assert result.p_value == 1 / 20
    assert (result.permutations, result.lag, result.n, result.exchanged) == (19, 0, 100, "all")
    again = independence_test(x, x + 0.5 * rng.normal(size=100), permutations=19, seed=4)
    assert 1 / 20 <= again.p_value <= 1


def test_null_p_values_are_uniform() -> None:
    values = [
        independence_test(*np.random.default_rng(seed).normal(size=(2, 60)), permutations=19, seed=seed).p_value
        for seed in range(100)
    ]
    # Under the null each of 1/20, ..., 1 has probability 1/20; the mean is 0.525 with error 0.29/√100.
    assert abs(np.mean(values) - 0.525) < 4 * 0.29 / math.sqrt(100)
    assert np.mean(np.array(values) <= 0.25) < 0.25 + 4 * math.sqrt(0.25 * 0.75 / 100)


def test_given_p_values_are_super_uniform() -> None:
    values = np.array(
        [
            independence_test(*linear(np.random.default_rng(seed)), statistic="gaussian", permutations=19,
                              seed=seed).p_value
            for seed in range(200)
        ]
    )  # fmt: skip
    # P(p ≤ a) ≤ a, each share within three binomial standard errors.
    for a in (0.05, 0.1, 0.25, 0.5):
        assert np.mean(values <= a) <= a + 3 * math.sqrt(a * (1 - a) / 200)


def test_stopping_early_decides_the_same() -> None:
    for seed in range(40):
        x, z = np.random.default_rng(seed).normal(size=(2, 60))
        z = z + 0.25 * x
        full = independence_test(x, z, statistic="gaussian", permutations=99, seed=seed)
        short = independence_test(x, z, statistic="gaussian", permutations=99, seed=seed, stop=5)
        assert (full.p_value <= 0.05) == (short.p_value <= 0.05)
        assert short.statistic == full.statistic
        if short.permutations < 99:
            assert short.p_value == 5 / short.permutations
        else:
            assert short.p_value in (full.p_value, 5 / 99)


def test_shifts_are_exact_for_a_periodic_series() -> None:
    # Samples and shifts of period 40 (lag 2): by symmetry the p-values of the 20 arrangements of one series are
    # each of 1/20, ..., 20/20 once, so P(p ≤ a) = a exactly. The statistic is any function without ties.
    rng = np.random.default_rng(0)
    x, z = rng.normal(size=(2, 40))
    everything = [np.arange(40), *circular_shifts(40, 2, 100, rng)]
    values = np.array([abs(np.roll(x, 2 * start)[order] @ z) for start in range(20) for order in everything])
    table = values.reshape(20, 20)
    p = (table >= table[:, :1]).mean(1)
    np.testing.assert_allclose(np.sort(p), np.arange(1, 21) / 20)


def test_exact_for_a_condition_of_few_values() -> None:
    # 2 · 4 samples, Y of two values, each a cell of its own: over all 4!² arrangements of X within the cells, the
    # share whose p-value (all arrangements counted) is at most a is at most a, since the statistic, regression and
    # all, is one function of the arrangement. Fixed residuals would not do: they would not be fitted again.
    rng = np.random.default_rng(1)
    y = np.repeat([0.0, 1.0], 4)[:, None]
    x, z = rng.normal(size=(2, 8, 1)) + y
    measure = independence._Statistic(x, z, y, 2, "gaussian")
    orders = [np.array([*a, *(4 + i for i in b)]) for a in itertools.permutations(range(4))
              for b in itertools.permutations(range(4))]  # fmt: skip
    values = np.array([measure(order) for order in orders])
    # The statistic of the permuted X itself, started from scratch: the regression of one is that of the other.
    some = rng.choice(len(orders), 20, replace=False)
    scratch = [independence._Statistic(x[orders[i]], z, y, 2, "gaussian")(np.arange(8)) for i in some]
    np.testing.assert_allclose(scratch, values[some], atol=1e-10)
    p = (values >= values[:, None] - 1e-12).mean(1)
    for a in (0.05, 0.1, 0.3):
        assert np.mean(p <= a) <= a


@pytest.mark.parametrize("given", [0, 1])
def test_the_table_of_distances_gives_what_trees_give(given: int) -> None:
    rng = np.random.default_rng(3)
    x, z, y = rng.normal(size=(120, 2)), rng.normal(size=(120, 2)), rng.normal(size=(120, given))
    measure = independence._Statistic(x, z, y, 5, "neighbours")
    value = measure._dense(x, z)
    # Single precision may swap which of two all but equal distances is the smaller: ψ changes by 1/n_s at most.
    expected = ksg_contributions(x, z, measure.given, 5).contributions.mean()
    assert value == pytest.approx(expected, abs=1e-3)


def test_memory_of_an_ar_series() -> None:
    found = [memory(_two_series(2000, 0.7, np.random.default_rng(seed))[:, 0]) for seed in range(20)]
    # 0.7^l meets 2 √(log₁₀ 2000 / 2000) = 0.081 at l = 7.0.
    assert 5 <= np.median(found) <= 9
    noise = [memory(np.random.default_rng(seed).normal(size=500)) for seed in range(20)]
    assert np.median(noise) == 1
    series = _two_series(300, 0.7, np.random.default_rng(1))
    assert memory(np.roll(series, 37, axis=0)) == memory(series) == max(memory(column) for column in series.T)


def test_shifts_are_a_group_of_multiples() -> None:
    orders = list(circular_shifts(12, 3, 10, np.random.default_rng(0)))
    assert sorted(int(order[0]) for order in orders) == [3, 6, 9]
    for order in orders:
        np.testing.assert_array_equal((order[0] + np.arange(12)) % 12, order)
    assert len(list(circular_shifts(12, 1, 5, np.random.default_rng(0)))) == 5


def test_permutations_stay_in_their_cells() -> None:
    cells = np.array([0, 1, 0, 2, 1, 0])
    seen = set()
    for seed in range(200):
        moved = local_permutation(cells, np.random.default_rng(seed))
        assert sorted(moved) == list(range(6))
        np.testing.assert_array_equal(cells[moved], cells)
        seen.add(tuple(moved))
    # 3! orders of cell 0, 2! of cell 1, one of cell 2.
    assert len(seen) == 12


def test_cells_never_mix_the_values_of_a_discrete_condition() -> None:
    y = np.random.default_rng(0).choice([0.0, 1.0, 5.0], size=(200, 1), p=[0.1, 0.6, 0.3])
    cells = cells_of(y, 5)
    # One cell a value: equal values are never parted either.
    assert len(np.unique(np.column_stack([cells, y[:, 0]]), axis=0)) == len(np.unique(cells)) == 3
    sizes = np.bincount(cells_of(np.random.default_rng(1).normal(size=(203, 2)), 5))
    assert sizes.sum() == 203
    assert 5 <= sizes.min() <= sizes.max() < 10


def test_wide_samples_and_conditions() -> None:
    rng = np.random.default_rng(5)
    y = rng.normal(size=(200, 2))
    x = y @ rng.normal(size=(2, 3)) + rng.normal(size=(200, 3))
    z = y @ rng.normal(size=(2, 2)) + rng.normal(size=(200, 2))
    found = independence_test(x, z + 0.5 * x[:, :2], y, permutations=19)
    assert isinstance(found, IndependenceTest)
    assert found.p_value == 0.05
    # Invertible affine maps of Y, and of the order of columns, change nothing that the test may see.
    assert independence_test(x, z, y, permutations=19).p_value > 0.05


@pytest.mark.parametrize(
    "name",
    [
        "y1², 2 columns",
        "Σy²/√2d, 5 columns",
        "series, spread e^0.7y",
        "a step in 2 columns",
        "opposite quadrants",
        "a jump across a circle",
        "stairs across planes, 3 columns",
        "sin 2(y1 + y2 + y3)",
    ],
)
def test_the_level_holds_under_causes_of_several_columns_spreads_and_jumps(name: str) -> None:
    draw, dependence = NULLS[name]
    # Of 40 runs at 0.05, 2 + 3 √(40 · 0.05 · 0.95) = 6.1 reject at most; a regression that leaves the cause in
    # both rejects in 38 of them.
    assert rejections(draw, 40, dependence=dependence, stop=1) <= 6


def test_a_regression_finds_what_kind_of_link_it_is() -> None:
    rng = np.random.default_rng(2)
    y, noise = rng.normal(size=(300, 3)), 0.3 * rng.normal(size=300)
    links = {
        "linear": y[:, 0],
        "square": (y**2).sum(1),
        "sine": np.sin(3 * y[:, 0]),
        "step": 2.0 * (y[:, 1] > 0.3),
        "corner": 2.0 * ((y[:, 1] > 0.3) & (y[:, 2] < 0.5)),
    }
    for name, link in links.items():
        side = Regression(y).explain((link + noise)[:, None], "x")
        # In units of the column, which its smooth coordinates shrink by their spread and bend little.
        left = side.left[:, 0] * np.std(link + noise) / np.std(side.columns)
        # What stays of the link itself, against the noise of variance 0.09.
        assert np.mean((left - noise) ** 2) < 0.05, name
        assert np.var(left) < 1.3 * 0.09, name


def test_a_spread_that_the_condition_sets_is_divided_out() -> None:
    rng = np.random.default_rng(3)
    y = rng.normal(size=(400, 1))
    side = Regression(y).explain(np.exp(y) * rng.normal(size=(400, 1)), "x")
    # Correlation of log |residual| with y is 1/√(1 + π²/8) = 0.67 before.
    assert abs(np.corrcoef(np.log(np.abs(side.left[:, 0])), y[:, 0])[0, 1]) > 0.5
    assert abs(np.corrcoef(np.log(np.abs(side.even[:, 0])), y[:, 0])[0, 1]) < 0.15
    side = Regression(y).explain(rng.normal(size=(400, 1)), "x")
    np.testing.assert_array_equal(side.even, side.left)


def test_the_score_of_residuals_of_neighbours_is_that_of_dense_matrices() -> None:
    rng = np.random.default_rng(4)
    points, basis = rng.normal(size=(40, 2)), rng.normal(size=(40, 7))
    fit, near = Fit(basis, 2, 0.05), _neighbours(points)
    dense = near.toarray()
    np.testing.assert_array_equal(dense, dense.T)
    assert dense.sum() == 2 * 40
    assert not np.diag(dense).any()
    # Every point is tied to its two nearest, by half a unit from either side.
    apart = np.linalg.norm(points[:, None] - points, axis=2) + np.diag(np.full(40, np.inf))
    nearest = np.argsort(apart, axis=1)[:, :2]
    assert (dense[np.arange(40)[:, None], nearest] >= 0.5).all()
    penalty = 40 * np.diag([1e-10] * 2 + [0.05] * 5)
    left_of = np.eye(40) - basis @ np.linalg.solve(basis.T @ basis + penalty, basis.T)
    covariance = left_of @ left_of.T
    mean = np.trace(dense @ covariance) / np.trace(covariance)
    moved = (dense - mean * np.eye(40)) @ covariance
    spread = math.sqrt(2 * np.trace(moved @ moved)) / np.trace(covariance)
    left = left_of @ rng.normal(size=40)
    score, deviation = fit.together(left, near)
    assert deviation == pytest.approx(spread, rel=1e-9)
    assert score == pytest.approx((left @ dense @ left / (left @ left) - mean) / spread, rel=1e-8)
    # And of noise it is a score: mean 0 and variance 1, up to four errors of 500 draws and the ratio's 1/n.
    scores = np.array([fit.together(left_of @ rng.normal(size=40), near)[0] for _ in range(500)])
    assert abs(scores.mean()) < 4 / math.sqrt(500) + 1 / 40
    assert abs(scores.var() - 1) < 4 * math.sqrt(3 / 500) + 2 / 40


def test_the_misfit_is_the_score_of_sums_and_differences_of_residuals() -> None:
    # Of two columns a side that take one fit, from dense matrices: the scores of (e + f)'W(e + f)/2 and of
    # (e - f)'W(e - f)/2 for unit e and f, whose mean and deviation under noise are those of e'We.
    rng = np.random.default_rng(9)
    y = rng.normal(size=(80, 1))
    regression = Regression(y)
    fit, fits = regression.fits[regression.plain], np.full(2, regression.plain)
    sides = []
    for _ in range(2):
        columns = y + rng.normal(size=(80, 2))
        left = regression.left(columns, fits)
        sides.append(Explained(columns, fits, left, left, np.zeros(2, dtype=bool)))
    fitted = np.hstack([side.fitted for side in sides])
    near = (_neighbours(regression.given) + _neighbours(fitted / fitted.std(0))).toarray()
    penalty = 80 * np.diag(np.where(np.arange(len(fit.gram)) < fit.free, 1e-10, fit.penalty))
    left_of = np.eye(80) - fit.basis @ np.linalg.solve(fit.basis.T @ fit.basis + penalty, fit.basis.T)
    covariance = left_of @ left_of.T
    mean = np.trace(near @ covariance) / np.trace(covariance)
    moved = (near - mean * np.eye(80)) @ covariance
    spread = math.sqrt(2 * np.trace(moved @ moved)) / np.trace(covariance)
    units = [side.even / np.linalg.norm(side.even, axis=0) for side in sides]
    sums = [e + sign * f for e in units[0].T for f in units[1].T for sign in (1, -1)]
    scores = [(total @ near @ total / 2 - mean) / spread for total in sums]
    expected = max(scores) - norm.isf(0.025 / 4) + norm.isf(0.025)
    assert regression.misfit(*sides) == pytest.approx(expected, rel=1e-6)


def side_by_side(name: str, seed: int) -> independence._Statistic:
    x, z, y = NULLS[name][0](np.random.default_rng(seed))
    return independence._Statistic(x[:, None], z[:, None], y, 5, "gaussian")


@pytest.mark.parametrize(
    "name",
    [
        "a jump across a wave",
        "stairs across a line",
        "fine stairs across a line",
        "stairs across planes, 3 columns",
        "a chessboard",
        "sin 2(y1 + y2 + y3)",
    ],
)
def test_what_a_regression_leaves_of_jumps_and_oscillations_is_seen(name: str) -> None:
    # Of other draws than these the scores were 4 to 9 on average.
    assert sum(side_by_side(name, seed).misfit > independence._MISFIT for seed in range(10)) >= 8


def test_a_regression_that_fits_is_left_alone() -> None:
    names = ["2y", "y1 y2", "sin 5y", "Σy²/√2d, 5 columns"]
    scores = np.array([side_by_side(name, seed).misfit for name in names for seed in range(25)])
    # Half the sum of two scores plus the size of a normal variable of variance 1/2: mean 1/√π, variance
    # 1/2 + 1/2 - 1/π.
    deviation = math.sqrt(1 - 1 / math.pi)
    assert abs(scores.mean() - 1 / math.sqrt(math.pi)) < 4 * deviation / 10
    # The larger of two correlated normal scores is beyond 1.96 with probability 0.05 at most.
    assert (scores > independence._MISFIT).sum() <= 5 + 3 * math.sqrt(100 * 0.05 * 0.95)
    # What is left of one side alone is no common part.
    rng = np.random.default_rng(5)
    y = rng.normal(size=(300, 2))
    lone = [
        independence._Statistic(2.0 * (y.sum(1, keepdims=True) > 0) + 0.5 * rng.normal(size=(300, 1)),
                                y[:, :1] + rng.normal(size=(300, 1)), y, 5, "gaussian")
        for _ in range(5)
    ]  # fmt: skip
    assert not any(measure.many_terms for measure in lone)


def test_where_no_regression_follows_an_edge_pairs_alone_are_exchanged() -> None:
    draw, _ = NULLS["a jump across a line"]
    samples = draw(np.random.default_rng(5))
    measure = side_by_side("a jump across a line", 5)
    assert independence_test(*samples, permutations=1).exchanged == "alike pairs"
    pairs, alike = measure.pairs(False), measure.pairs(True)
    everything = matched(np.hstack([measure.given, *(side.fitted for side in measure.sides)]))
    assert len(np.unique(everything)) == everything.size
    assert set(map(tuple, alike)) < set(map(tuple, pairs)) < set(map(tuple, everything))
    assert len(pairs) == (len(everything) + 1) // 2
    # A pair across the edge differs by 2, four standard deviations of a noise: hardly any is left, of those among
    # neighbours in y alone one in ten.
    beyond = samples[2].sum(1) > 0
    assert (beyond[alike[:, 0]] != beyond[alike[:, 1]]).mean() < 0.03
    order = exchanges(len(beyond), alike, np.random.default_rng(0))
    np.testing.assert_array_equal(order[order], np.arange(len(beyond)))
    assert set(np.flatnonzero(order != np.arange(len(beyond)))) <= set(alike.ravel())


@pytest.mark.parametrize(("link", "many"), [(lambda y: y**2, False), (lambda y: np.sin(8 * y), True)])
def test_a_cause_whose_fit_takes_many_terms_is_tested_by_pairs(link, many: bool) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(6)
    y, a, b = rng.normal(size=(3, 300))
    found = independence_test(link(y) + 0.3 * a, link(y) + 0.3 * b, y, permutations=1)
    assert found.exchanged == ("pairs" if many else "cells")
    # What is left of one cause alone is no common one.
    assert independence_test(link(y) + 0.3 * a, y + b, y, permutations=1).exchanged == "cells"


def test_a_condition_of_few_values_needs_no_regression_that_fits() -> None:
    rng = np.random.default_rng(8)
    y = rng.integers(0, 6, 300).astype(float)
    x, z = (2 * (y % 2) + 0.5 * rng.normal(size=300) for _ in range(2))
    assert independence_test(x, z, y, permutations=1).exchanged == "cells"


def test_a_cause_that_is_not_fitted_and_cannot_be_tested_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    draw, refused = NULLS["series, stairs"][0], 0
    for seed in range(10):
        try:
            independence_test(*draw(np.random.default_rng(seed)), dependence="autocorrelated", permutations=1)
        except SampleError as error:
            refused += "is not fitted" in str(error) and "shifts of a series" in str(error)
    # Of other draws than these nine in ten were.
    assert refused >= 7
    samples = NULLS["a jump across a line"][0](np.random.default_rng(5))
    assert independence_test(*samples, permutations=19).p_value > 0
    monkeypatch.setattr(independence, "_FEWEST_PAIRS", 200)
    with pytest.raises(SampleError, match=r"only \d+ pairs of neighbours in y"):
        independence_test(*samples)


def test_bad_requests_are_named() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(3, 50))
    for options, message in (
        ({"statistic": "magic"}, "statistic is 'both'"),
        ({"dependence": "serial"}, "dependence is 'independent'"),
        ({"permutations": 0}, "permutations ≥ 1"),
        ({"cell": 1}, "cell ≥ 2"),
        ({"stop": 0}, "stop = 0"),
        ({"k": 50}, "at least 52 samples"),
    ):
        with pytest.raises(SampleError, match=message):
            independence_test(x[0], x[1], **options)  # type: ignore[arg-type]
    with pytest.raises(SampleError, match=r"memories of \d+ \(x\).* too few"):
        independence_test(np.cumsum(x[0]), np.cumsum(x[1]), x[2], dependence="autocorrelated")
    with pytest.raises(SampleError, match="z has 49"):
        independence_test(x[0], x[1][:-1], x[2])
    with pytest.raises(SampleError, match="NaN or infinite"):
        independence_test(np.where(np.arange(50) == 3, np.nan, x[0]), x[1])
    with pytest.raises(SampleError, match="columns of x are functions of y"):
        independence_test(2 * x[2] + 1, x[1], x[2])
    with pytest.raises(SampleError, match="columns of z are functions of others"):
        independence_test(x[0], np.stack([x[1], 3 * x[1]], 1), x[2])
    with pytest.raises(SampleError, match="columns of y are functions of others"):
        independence_test(x[0], x[1], np.stack([x[2], 3 * x[2]], 1))
