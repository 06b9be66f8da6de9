"""Finite laws against the ``dit`` package, many-digit arithmetic and enumeration."""

from __future__ import annotations

import itertools
import math

import dit
import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from arvdm_theory.information.discrete import (
    FiniteLaw,
    check_kernel,
    conditional_kernel,
    conditional_mutual_information,
    conditionally_independent,
    entropy,
    grouped,
    information_of_blocks,
    kl_divergence,
    marginal,
    mutual_information,
    relative_entropy,
    total_variation,
)
from arvdm_theory.testing import finite_laws, markov_kernels

UNIT = 2.0**-53
DIGITS = 700  # the strategies' laws hold probabilities of 1e-300 beside 1
NAMES = ("x", "z", "y", "v")


def random_law(seed: int, shape: tuple[int, ...] = (3, 2, 4, 2)) -> FiniteLaw:
    """A law with about a third of zeros."""
    generator = np.random.default_rng(seed)
    weights = generator.random(shape) * (generator.random(shape) > 0.35)
    return FiniteLaw.from_weights(weights, NAMES[: len(shape)])


def exact_kl(p: NDArray[np.float64], q: NDArray[np.float64]) -> mp.mpf:
    """Σ p log(p/q) - p + q: KL but for what rounding did to the totals."""
    with mp.workdps(DIGITS):
        pairs = [(mp.mpf(float(a)), mp.mpf(float(b))) for a, b in zip(p.ravel(), q.ravel(), strict=True)]
        return mp.fsum((a * mp.log(a / b) if a else 0) - a + b for a, b in pairs)


def exact_information(joint: NDArray[np.float64]) -> mp.mpf:
    """I(X; Z | Y) over (x, z, y), its marginals summed without rounding."""
    with mp.workdps(DIGITS):
        p = {index: mp.mpf(float(value)) for index, value in np.ndenumerate(joint)}
        n_x, n_z, n_y = joint.shape
        xy = {(x, y): mp.fsum(p[x, z, y] for z in range(n_z)) for x in range(n_x) for y in range(n_y)}
        zy = {(z, y): mp.fsum(p[x, z, y] for x in range(n_x)) for z in range(n_z) for y in range(n_y)}
        ys = [mp.fsum(xy[x, y] for x in range(n_x)) for y in range(n_y)]
        return mp.fsum(
            value * mp.log(value * ys[y] / (xy[x, y] * zy[z, y])) for (x, z, y), value in p.items() if value
        )


@pytest.mark.parametrize("seed", range(4))
def test_agreement_with_dit(seed: int) -> None:
    law, other = random_law(seed), random_law(seed + 100)
    theirs = dit.Distribution.from_ndarray(law.probabilities)
    nat = math.log(2)
    # dit works in bits with differences of entropies: absolute accuracy only, a few u times the entropy.
    close = {"abs": 1e-13}
    assert entropy(law) == pytest.approx(nat * dit.shannon.entropy(theirs), **close)
    assert entropy(law, ("x", "v"), given="y") == pytest.approx(
        nat * dit.shannon.conditional_entropy(theirs, [0, 3], [2]), **close
    )
    assert mutual_information(law, "x", ("z", "y")) == pytest.approx(
        nat * dit.shannon.mutual_information(theirs, [0], [1, 2]), **close
    )
    for given_axes, theirs_given in (("y", [2]), (("y", "v"), [2, 3]), ((), None)):
        value = conditional_mutual_information(law, "x", "z", given_axes)
        expected = dit.multivariate.coinformation(theirs, [[0], [1]], theirs_given)
        assert value == pytest.approx(nat * expected, **close)
    filled = FiniteLaw.from_weights(other.probabilities + 0.01, NAMES)
    q = dit.Distribution.from_ndarray(filled.probabilities)
    assert kl_divergence(law, filled) == pytest.approx(
        nat * dit.divergences.kullback_leibler_divergence(theirs, q), **close
    )
    assert total_variation(law, filled) == pytest.approx(dit.divergences.variational_distance(theirs, q), **close)


@pytest.mark.parametrize("strength", [1e-2, 1e-5, 1e-8, 1e-10])
def test_information_near_zero_keeps_its_digits(strength: float) -> None:
    x, z, y = np.array([0.2, 0.8]), np.array([0.1, 0.3, 0.6]), np.array([0.5, 0.125, 0.375])
    tilt = np.array([[0.8, 0.8], [-0.2, -0.2]])[:, :1, None] * np.array([1.0, 1.0, -2 / 3])[None, :, None]
    joint = x[:, None, None] * z[None, :, None] * y * (1 + strength * tilt)
    law = FiniteLaw.from_weights(joint, ("x", "z", "y"))
    for names in ("y", ()):
        value = conditional_mutual_information(law, "x", "z", names)
        truth = exact_information(grouped(law, "x", "z", names))
        # I ≈ ½ E[(q/p - 1)²], and q/p carries the roundings of 18 summands and a few products.
        assert abs(value - truth) / truth < 2 * (18 + 8) * UNIT / math.sqrt(2 * float(truth)) + 1e-14
    if strength == 1e-10:
        assert truth < 1e-20
        naive = entropy(law, "x") + entropy(law, "z") - entropy(law, ("x", "z"))
        assert abs(naive - float(truth)) > float(truth)  # why it is not computed like that


@given(finite_laws(("x", "z", "y"), max_size=4))
@settings(max_examples=80, deadline=None)
def test_conditional_information_is_within_its_rounding_bound(law: FiniteLaw) -> None:
    value, rounding = information_of_blocks(law.probabilities)
    assert value >= 0
    assert abs(value - exact_information(law.probabilities)) <= rounding
    assert rounding < 1e-11  # the bound says something


@given(finite_laws(("x", "z"), max_size=4, min_size=2), st.data())
@settings(max_examples=80, deadline=None)
def test_kl_is_within_its_rounding_bound_and_infinite_where_it_must(law: FiniteLaw, data: st.DataObject) -> None:
    other = FiniteLaw(data.draw(markov_kernels((), law.probabilities.shape)), ("x", "z"))
    p, q = law.probabilities, other.probabilities
    value, rounding = relative_entropy(p, q)
    assert kl_divergence(law, other) == value
    if ((p > 0) & (q == 0)).any():
        assert value == math.inf
    else:
        assert math.isfinite(value)
        assert abs(value - exact_kl(p, q)) <= rounding
        # Pinsker, with the totals' own rounding on either side.
        assert value >= 2 * total_variation(law, other) ** 2 - 1e-14


def test_zeros_are_exact() -> None:
    certain = FiniteLaw([[1, 0], [0, 0]], ("x", "z"))
    assert entropy(certain) == 0
    assert mutual_information(certain, "x", "z") == 0
    fair = FiniteLaw([[0.5, 0.0], [0.0, 0.5]], ("x", "z"))
    assert mutual_information(fair, "x", "z") == pytest.approx(math.log(2), rel=4 * UNIT)
    assert kl_divergence(certain, fair) == pytest.approx(math.log(2), rel=4 * UNIT)
    assert kl_divergence(fair, certain) == math.inf
    assert kl_divergence(fair, fair) == 0
    negative_zero = FiniteLaw([1.0, -0.0], ("x",))
    assert entropy(negative_zero) == 0


def test_products_that_underflow_are_no_zeros() -> None:
    tiny = 1e-200
    joint = np.array([[1.0, tiny], [tiny, tiny]])  # p(x) p(z) of the last cell is 4e-400
    law = FiniteLaw.from_weights(joint, ("x", "z"))
    truth = exact_information(law.probabilities[..., None])
    assert 0 < truth < 1e-190
    assert mutual_information(law, "x", "z") == pytest.approx(float(truth), rel=1e-13)


def test_xor_needs_its_condition() -> None:
    joint = np.zeros((2, 2, 2))
    for x, y in itertools.product(range(2), repeat=2):
        joint[x, x ^ y, y] = 0.25
    law = FiniteLaw(joint, ("x", "z", "y"))
    assert mutual_information(law, "x", "z") == 0
    assert conditional_mutual_information(law, "x", "z", "y") == pytest.approx(math.log(2), rel=4 * UNIT)
    assert conditionally_independent(law, "x", "z")
    assert not conditionally_independent(law, "x", "z", "y")


def test_a_constant_shares_nothing() -> None:
    law = FiniteLaw.from_weights(np.random.default_rng(1).random((1, 4, 3)), ("x", "z", "y"))
    assert conditional_mutual_information(law, "x", "z", "y") == 0
    assert conditional_mutual_information(law, (), "z", "y") == 0


def test_marginals_come_in_the_order_asked_for() -> None:
    law = random_law(5)
    pair = marginal(law, ("y", "x"))
    assert pair.names == ("y", "x")
    np.testing.assert_allclose(pair.probabilities, np.einsum("xzyv->yx", law.probabilities), rtol=1e-14)
    np.testing.assert_allclose(
        grouped(law, ("v", "z"), (), "y"),
        np.einsum("xzyv->vzy", law.probabilities).reshape(4, 1, 4),
        rtol=1e-14,
    )
    assert marginal(law, NAMES[::-1]).probabilities.shape == law.probabilities.shape[::-1]


def test_conditional_kernel_and_its_null_rows() -> None:
    weights = random_law(6).probabilities.copy()
    weights[:, 1, :, 0] = 0
    law = FiniteLaw.from_weights(weights, NAMES)
    kernel = conditional_kernel(law, ("y", "x"), ("z", "v"))
    assert kernel.shape == (2, 2, 4, 3)
    check_kernel(kernel, (2, 2), (4, 3))
    np.testing.assert_array_equal(kernel[1, 0], np.full((4, 3), 1 / 12))
    known = marginal(law, ("z", "v")).probabilities
    np.testing.assert_allclose(
        known[..., None, None] * kernel, np.einsum("xzyv->zvyx", law.probabilities), rtol=1e-14, atol=0
    )


@given(st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=60, deadline=None)
def test_independence_is_seen_through_rounding(seed: int, zeros: bool) -> None:
    generator = np.random.default_rng(seed)
    n_x, n_z, n_y = generator.integers(1, 5, size=3)
    first, second = generator.random((n_x, 1, n_y)), generator.random((1, n_z, n_y))
    if zeros:
        first *= generator.random(first.shape) > 0.4
        second *= generator.random(second.shape) > 0.4
    weights = first * second * 10.0 ** generator.uniform(-30, 0, (1, 1, n_y))
    weights[0, 0, 0] += 0.0 if weights.any() else 1.0
    law = FiniteLaw.from_weights(weights, ("x", "z", "y"))
    assert conditionally_independent(law, "x", "z", "y")


@pytest.mark.parametrize("cell", [(0, 0), (2, 2)])
def test_a_small_dependence_is_seen_even_among_improbable_values(cell: tuple[int, int]) -> None:
    x = np.array([0.9, 0.1 - 1e-12, 1e-12])
    joint = x[:, None] * x
    assert conditionally_independent(FiniteLaw.from_weights(joint, ("x", "z")), "x", "z")
    joint[cell] *= 1 + 1e-13  # the rounding bound is (4 · 8 + 3 + 3 + 9) u = 5e-15
    assert not conditionally_independent(FiniteLaw.from_weights(joint, ("x", "z")), "x", "z")
    assert conditionally_independent(FiniteLaw.from_weights(joint, ("x", "z")), "x", "z", roundings=1000)


def test_a_hole_in_the_support_is_a_dependence() -> None:
    joint = np.outer([0.9, 1e-200], [0.9, 1e-200])
    joint[1, 1] = 0.0  # 1e-400 does underflow, and the support test sees it
    assert not conditionally_independent(FiniteLaw.from_weights(joint, ("x", "z")), "x", "z")


def test_a_law_is_read_only_and_its_own_copy() -> None:
    given_values = np.array([0.25, 0.75])
    law = FiniteLaw(given_values)
    given_values[0] = 9
    assert law.names == ("0",)
    assert law.probabilities[0] == 0.25
    with pytest.raises(ValueError, match="read-only"):
        law.probabilities[0] = 1


def test_float32_laws_are_judged_by_their_own_rounding() -> None:
    values = np.random.default_rng(2).random(50)
    single = (values / values.sum()).astype(np.float32)
    assert abs(float(single.astype(np.float64).sum()) - 1) > 1e-12
    FiniteLaw(single)
    with pytest.raises(ValueError, match=r"sum to 1, but their sum is (1\.0|0\.9)"):
        FiniteLaw(single.astype(np.float64))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.5, -0.1, 0.6], r"negative entry, -0\.1 at index \(1,\)"),
        ([[0.5, math.nan], [0.2, 0.3]], r"NaN entry, nan at index \(0, 1\)"),
        ([0.5, math.inf], "infinite entry"),
        ([0.5, 0.25], r"their sum is 0\.75 .*from_weights"),
        ([], "must hold real numbers"),
        ([True, False], "must hold real numbers, got an array of bool"),
        ([0.5, 0.5j], "complex128"),
    ],
)
def test_bad_laws_are_refused(values: list[object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FiniteLaw(values)  # type: ignore[arg-type]


def test_bad_names_and_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="2 axes needs as many different names"):
        FiniteLaw([[0.5, 0.5]], ("x",))
    with pytest.raises(ValueError, match="different names"):
        FiniteLaw([[0.5, 0.5]], ("x", "x"))
    law = FiniteLaw([[0.5, 0.5]], ("x", "z"))
    with pytest.raises(ValueError, match="no axis 'q'; its axes are x, z"):
        mutual_information(law, "x", "q")
    with pytest.raises(ValueError, match="'x' is named twice"):
        conditional_mutual_information(law, "x", "z", "x")
    with pytest.raises(ValueError, match="same axes"):
        kl_divergence(law, FiniteLaw([[0.5], [0.5]], ("x", "z")))
    with pytest.raises(ValueError, match="all 0"):
        FiniteLaw.from_weights([0.0, 0.0])


def test_bad_kernels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 3\) \(input sizes, then output sizes\), got \(3, 2\)"):
        check_kernel(np.full((3, 2), 0.5), (2,), (3,))
    with pytest.raises(ValueError, match=r"input state \(1, 0\) sums to 0\.5"):
        check_kernel([[[1.0]], [[0.5]]], (2, 1), (1,))
    with pytest.raises(ValueError, match="negative"):
        check_kernel([[1.5, -0.5]], (1,), (2,))
    assert check_kernel([0.5, 0.5], (), (2,)).shape == (2,)
