"""Numbers with their errors: against NumPy's means and variances, SciPy's quantiles, and independent draws."""

import math
import operator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from arvdm_theory import Number
from arvdm_theory.number import half_width

ROWS = st.integers(2, 7)


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(3.0, 2.0, shape))


def standard_error(samples: np.ndarray) -> np.ndarray:
    found: np.ndarray = samples.std(0, ddof=1) / math.sqrt(len(samples))
    return found


# -- one number ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5,), (5, 3), (40, 2, 3)])
def test_value_and_error_are_mean_and_standard_error_of_the_samples(shape: tuple[int, ...]) -> None:
    samples = draws(*shape)
    number = Number(samples)
    np.testing.assert_allclose(number.value, samples.numpy().mean(0), rtol=1e-14)
    np.testing.assert_allclose(number.stderr, standard_error(samples.numpy()), rtol=1e-13)
    assert isinstance(number.value, float) == isinstance(number.stderr, float) == (len(shape) == 1)
    assert (number.n, number.is_exact) == (shape[0], False)


@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_the_interval_of_few_draws_is_students(level: float) -> None:
    samples = draws(4, 3).numpy()
    low, high = Number(torch.from_numpy(samples)).ends(level)
    expected = stats.t.interval(level, 3, samples.mean(0), standard_error(samples))
    np.testing.assert_allclose(torch.stack([low, high]), expected, rtol=1e-12)


def test_the_interval_covers_as_often_as_it_says() -> None:
    """Means of 3 normal draws: a normal quantile would cover 0.81 of them, Student's covers 0.95."""
    trials = 20_000
    low, high = Number(torch.from_numpy(np.random.default_rng(1).normal(size=(3, trials)))).ends()
    covered = float(((low < 0) & (high > 0)).double().mean())
    assert abs(covered - 0.95) < 5 * math.sqrt(0.95 * 0.05 / trials)


def test_an_exact_number_has_no_error() -> None:
    for value in (2.5, torch.tensor([1.0, -2.0], dtype=torch.float64)):
        number = Number.exact(value)
        assert number.is_exact
        np.testing.assert_array_equal(number.value, value)
        np.testing.assert_array_equal(number.stderr, np.zeros_like(value))
        np.testing.assert_array_equal(number.ends()[0], value)
        np.testing.assert_array_equal(number.ends()[1], value)
    assert Number.exact(math.inf).value == math.inf


def test_errors_outside_the_samples_add_in_squares() -> None:
    samples = draws(6, 2)
    number = Number(samples, extra=torch.tensor([0.3, 4.0], dtype=torch.float64))
    expected = np.hypot(standard_error(samples.numpy()), [0.3, 4.0])
    np.testing.assert_allclose(number.stderr, expected, rtol=1e-13)
    assert not Number(torch.tensor([1.0]), extra=0.1).is_exact
    few = Number(torch.tensor([1.0]), extra=0.1, freedom=5)
    assert few.ci_high - 1.0 == pytest.approx(stats.t.ppf(0.975, 5) * 0.1, rel=1e-12)
    # The fewest degrees of freedom of the two count.
    assert Number(samples[:, 0], freedom=2).ends()[1] - float(samples[:, 0].mean()) == pytest.approx(
        stats.t.ppf(0.975, 2) * standard_error(samples.numpy())[0], rel=1e-12
    )


def test_a_stated_number_says_what_it_was_given() -> None:
    plain = Number.stated(1.5, 0.2, method="knn", n=70, k=4, warnings=["few"])
    assert (plain.value, plain.stderr, plain.n, plain.k, plain.method) == (1.5, 0.2, 70, 4, "knn")
    assert plain.warnings == ("few",)
    np.testing.assert_allclose(plain.ends(0.9), stats.norm.interval(0.9, 1.5, 0.2), rtol=1e-12)
    own = Number.stated(1.5, 0.2, 1.4, 2.5, method="bootstrap", n=70)
    assert (own.ci_low, own.ci_high) == own.ends(0.5) == (1.4, 2.5)
    # It scales with the value; of a sum it is not known.
    assert (2 * own).ends() == (2.8, 5.0)
    assert (-own).ends() == (-2.5, -1.4)
    assert (2 * own).value == 3.0
    np.testing.assert_allclose((own + 1.0).ends(), stats.norm.interval(0.95, 2.5, 0.2), rtol=1e-12)


def test_refuses_what_is_no_sample() -> None:
    for samples in (torch.tensor(1.0), torch.zeros(0), torch.zeros(0, 3)):
        with pytest.raises(ValueError, match="samples along its first axis"):
            Number(samples)
    for level in (0.0, 1.0, -0.3, math.nan):
        with pytest.raises(ValueError, match="lies between 0 and 1"):
            half_width(1.0, level=level)


def test_it_shows_itself_briefly() -> None:
    assert repr(Number.exact(2.0)) == "Number(2)"
    assert repr(Number.stated(1.25, 0.031, method="", n=5)) == "Number(1.25 ± 0.031)"
    assert repr(Number(draws(4, 3))) == "Number(shape=(3,), samples=4)"


# -- arithmetic ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", [operator.add, operator.sub])
def test_numbers_over_the_same_draws_add_draw_by_draw(operation: object) -> None:
    a, b = draws(9, 2), 0.7 * draws(9, 2) + draws(9, 2, seed=1)
    both = operation(Number(a), Number(b))  # type: ignore[operator]
    joined = operation(a, b).numpy()  # type: ignore[operator]
    np.testing.assert_allclose(both.value, joined.mean(0), rtol=1e-13)
    np.testing.assert_allclose(both.stderr, standard_error(joined), rtol=1e-12)


def test_what_two_numbers_have_in_common_cancels() -> None:
    number = Number(draws(5))
    assert (number - number).value == 0
    assert (number - number).stderr == 0
    assert (number + number).stderr == pytest.approx(2 * number.stderr, rel=1e-14)


def test_a_constant_shifts_and_scales() -> None:
    number = Number(draws(5, 2), extra=0.4)
    for shifted in (number + 2.0, 2.0 + number, number - (-2.0), number + Number.exact(2.0)):
        np.testing.assert_allclose(shifted.value, number.value + 2.0, rtol=1e-15)
        np.testing.assert_allclose(shifted.stderr, number.stderr, rtol=1e-13)
    for scaled in (number * -3.0, -3.0 * number, -(number * 3.0)):
        np.testing.assert_allclose(scaled.value, -3.0 * number.value, rtol=1e-15)
        np.testing.assert_allclose(scaled.stderr, 3.0 * number.stderr, rtol=1e-13)
        assert bool((scaled.ends()[0] < scaled.ends()[1]).all())


def test_errors_outside_the_samples_are_independent_of_one_another() -> None:
    first, second = Number(draws(5), extra=0.3), Number(draws(5, seed=1), extra=0.4)
    joined = (draws(5) + draws(5, seed=1)).numpy()
    assert (first + second).stderr == pytest.approx(math.hypot(standard_error(joined), 0.5), rel=1e-13)
    assert (first - second).stderr == pytest.approx(
        math.hypot(standard_error((draws(5) - draws(5, seed=1)).numpy()), 0.5), rel=1e-13
    )


@given(ROWS, st.sampled_from([((), (3,)), ((3,), (2, 3)), ((1,), (2, 1)), ((2, 3), (2, 3)), ((2, 1), (1, 3))]))
def test_entries_are_aligned_at_the_last_axes_and_draws_at_the_first(
    rows: int, shapes: tuple[tuple[int, ...], tuple[int, ...]]
) -> None:
    """Sum and product with a constant, draw by draw in NumPy; rows of the size of an axis are no such axis."""
    a, b = draws(rows, *shapes[0]), draws(rows, *shapes[1], seed=1)
    for one, other in ((a, b), (b, a)):
        joined = np.stack([x.numpy() + y.numpy() for x, y in zip(one, other, strict=True)])
        both = Number(one) + Number(other)
        assert both.samples.shape == joined.shape
        np.testing.assert_allclose(both.value, joined.mean(0), rtol=1e-13)
        np.testing.assert_allclose(both.stderr, standard_error(joined), rtol=1e-11)
        factor = other[0]
        product = np.stack([x.numpy() * factor.numpy() for x in one])
        for scaled in (Number(one, extra=0.2) * factor, Number(one) * factor):
            assert scaled.samples.shape == product.shape
            np.testing.assert_allclose(scaled.value, product.mean(0), rtol=1e-13)
        np.testing.assert_allclose(scaled.stderr, standard_error(product), rtol=1e-11)
        assert (Number.exact(one[0]) * factor).samples.shape == product[:1].shape


def test_numbers_over_other_draws_are_not_added_by_mistake() -> None:
    a, b = Number(draws(5)), Number(draws(6))
    with pytest.raises(ValueError, match=r"numbers over \[5, 6\] samples are not of the same draws"):
        _ = a + b
    both = a.plus_independent(b)
    assert both.value == pytest.approx(a.value + b.value, rel=1e-15)
    assert both.stderr == pytest.approx(math.hypot(a.stderr, b.stderr), rel=1e-14)


def test_few_draws_stay_few_in_a_sum_of_independent_numbers() -> None:
    """Intervals of sums of means of 2 and of 3 draws cover no less than they say (Welch and Satterthwaite)."""
    trials, rng = 20_000, np.random.default_rng(3)
    for rows in ((2, 2), (2, 3), (3, 400)):
        parts = [Number(torch.from_numpy(rng.normal(size=(count, trials)))) for count in rows]
        low, high = parts[0].plus_independent(parts[1]).ends()
        covered = float(((low < 0) & (high > 0)).double().mean())
        assert covered > 0.95 - 5 * math.sqrt(0.95 * 0.05 / trials)
    exact = Number(draws(3)).plus_independent(Number.exact(1.0))
    np.testing.assert_allclose(exact.ends(), np.add(Number(draws(3)).ends(), 1.0), rtol=1e-13)


def test_sums_over_entries_are_sums_of_every_draw() -> None:
    samples = draws(7, 2, 3)
    number, plain = Number(samples), samples.numpy()
    for found, expected in (
        (number.sum(), plain.sum((1, 2))), (number.sum_last(), plain.sum(2)), (number.cumsum(), plain.cumsum(2)),
        (number[1], plain[:, 1]), (number[1, 2], plain[:, 1, 2]), (number[0, 1:], plain[:, 0, 1:]),
    ):  # fmt: skip
        np.testing.assert_allclose(found.value, expected.mean(0), rtol=1e-13)
        np.testing.assert_allclose(found.stderr, standard_error(expected), rtol=1e-12)
    assert Number(samples[:, 0, 0]).sum().value == pytest.approx(plain[:, 0, 0].mean(), rel=1e-14)
    other = Number(samples, extra=torch.tensor([[0.1, 0.2, 0.3]], dtype=torch.float64))
    assert other[1, 2].stderr == pytest.approx(math.hypot(standard_error(plain[:, 1, 2]), 0.3), rel=1e-13)
    for refused in (other.sum, other.sum_last, other.cumsum):
        with pytest.raises(ValueError, match="whose errors lie outside the samples is not known"):
            refused()


def test_a_stack_has_each_numbers_value_error_and_doubts() -> None:
    numbers = [
        Number(draws(5), warnings=("a",)), Number.exact(2.0),
        Number(draws(5, seed=1), extra=0.3, warnings=("a", "b")),
    ]  # fmt: skip
    stack = Number.stack(numbers)
    np.testing.assert_allclose(stack.value, [number.value for number in numbers], rtol=1e-14)
    np.testing.assert_allclose(stack.stderr, [number.stderr for number in numbers], rtol=1e-13)
    assert stack.warnings == ("a", "b")
    assert Number.stack([Number.exact(1.0), Number.exact(2.0)]).is_exact
    few = Number.stack([Number(torch.tensor([1.0]), extra=0.1, freedom=3), Number.exact(0.0)])
    assert float(few.ends()[1][0]) == pytest.approx(1.0 + stats.t.ppf(0.975, 3) * 0.1, rel=1e-12)
    with pytest.raises(RuntimeError):
        Number.stack([Number(draws(5)), Number(draws(6))])


def test_warnings_go_with_the_number() -> None:
    doubtful, sure = Number(draws(4), warnings=("tails",)), Number(draws(4), warnings=("ties", "tails"))
    assert (doubtful + sure).warnings == ("tails", "ties")
    for found in (2 * doubtful, -doubtful, doubtful - 1.0, doubtful.sum(), doubtful.plus_independent(sure)):
        assert "tails" in found.warnings


# -- gradients ----------------------------------------------------------------------------------------


def test_values_carry_gradients_and_errors_do_not() -> None:
    base, x = draws(4, 3), draws(3, seed=2).requires_grad_()
    pieces = {
        "sum": lambda n: (n + Number(base)).sum(), "scaled": lambda n: (3.0 * n - 1.0).sum(),
        "independent": lambda n: n.sum().plus_independent(Number(draws(9))),
        "stack": lambda n: Number.stack([n, Number(base)]).sum(), "partial": lambda n: n.cumsum()[2],
    }  # fmt: skip
    for make in pieces.values():
        assert torch.autograd.gradcheck(lambda at, make=make: make(Number(base * at**2)).value, (x,))
    number = Number(base * x)
    assert isinstance(number.sum().value, Tensor)
    (slope,) = torch.autograd.grad(number.sum().value, x)
    torch.testing.assert_close(slope, base.mean(0))
    assert not torch.as_tensor(number.stderr).requires_grad
    factor = draws(3, seed=4).requires_grad_()
    assert torch.autograd.gradcheck(lambda by: (Number(base) * by).value, (factor,))
    assert float(number.sum()) == pytest.approx(float((base * x).sum(1).mean().detach()), rel=1e-14)
