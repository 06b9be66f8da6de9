"""The conditional permutation test: level where naive shuffles fail, power, blocks, and exact bookkeeping."""

import math

import numpy as np
import pytest

from arvdm_theory.information.estimate import SampleError
from arvdm_theory.information.independence import independence_test, local_permutation


def rejections(draw, runs: int, **options) -> int:  # type: ignore[no-untyped-def]
    return sum(
        independence_test(*draw(np.random.default_rng(seed)), permutations=19, seed=seed, **options).p_value
        <= 0.05
        for seed in range(runs)
    )


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


def test_blocks_keep_the_level_under_autocorrelation() -> None:
    def draw(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        series = _two_series(500, 0.8, rng)
        return series[:, 0], series[:, 1]

    # Of 100 runs 5 + 3 √(100 · 0.05 · 0.95) = 11.5; shuffling samples rejects a fifth or more of the time.
    assert rejections(draw, 100, statistic="gaussian", dependence="autocorrelated") <= 11
    assert rejections(draw, 100, statistic="gaussian") >= 20


def test_p_values_count_the_samples_themselves() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=100)
    result = independence_test(x, x + 0.01 * rng.normal(size=100), permutations=19)
    assert result.p_value == 1 / 20
    assert (result.permutations, result.block, result.n) == (19, 1, 100)
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


def test_permutations_stay_in_their_cells_and_move_blocks_whole() -> None:
    cells = np.array([0, 1, 0, 2, 1, 0])
    seen = set()
    for seed in range(200):
        moved = local_permutation(cells, 3, np.random.default_rng(seed))
        blocks = moved.reshape(6, 3)
        np.testing.assert_array_equal(blocks - blocks[:, :1], [[0, 1, 2]] * 6)
        assert sorted(moved) == list(range(18))
        np.testing.assert_array_equal(cells[blocks[:, 0] // 3], cells)
        seen.add(tuple(blocks[:, 0]))
    # 3! orders of cell 0, 2! of cell 1, one of cell 2.
    assert len(seen) == 12


def test_bad_requests_are_named() -> None:
    x = np.random.default_rng(1).normal(size=(3, 50))
    with pytest.raises(SampleError, match="statistic is 'both'"):
        independence_test(x[0], x[1], statistic="magic")  # type: ignore[arg-type]
    with pytest.raises(SampleError, match="permutations ≥ 1"):
        independence_test(x[0], x[1], permutations=0)
    with pytest.raises(SampleError, match="too few blocks"):
        independence_test(np.cumsum(x[0]), np.cumsum(x[1]), x[2], cell=20, dependence="autocorrelated")
    with pytest.raises(SampleError, match="z has 49"):
        independence_test(x[0], x[1][:-1], x[2])
