"""The lemma and what a memory saves, each against a second derivation."""

from __future__ import annotations

import itertools
import math

import mpmath as mp
import numpy as np
import pytest
import torch
from torch import Tensor

from arvdm_theory import check_lemma
from arvdm_theory.bounds.impossibility import (
    AffineKernel,
    check_finite_memory,
    check_gaussian_lemma,
    check_gaussian_memory,
    gaussian_minimising_kernel,
    minimising_kernel,
)
from arvdm_theory.information.discrete import FiniteLaw, conditional_mutual_information
from arvdm_theory.information.gaussian import NotPositiveDefiniteError
from arvdm_theory.information.gaussian import conditional_mutual_information as gaussian_information

NAMES = ("past", "in", "out")


# -- finite laws -------------------------------------------------------------------------------------


def whole_number_law(seed: int) -> tuple[np.ndarray, FiniteLaw]:
    """Weights 0..4 over 3 x 2 x 3 values, and their law."""
    weights = np.random.default_rng(seed).integers(0, 5, (3, 2, 3))
    return weights, FiniteLaw.from_weights(weights, NAMES)


@pytest.mark.parametrize("seed", range(5))
def test_both_sides_by_enumeration_from_the_definitions(seed: int) -> None:
    weights, law = whole_number_law(seed)
    kernel = np.random.default_rng(seed + 50).integers(1, 5, (2, 3))
    rows = kernel / kernel.sum(1, keepdims=True)
    with mp.workdps(50):
        total = mp.mpf(int(weights.sum()))
        p = {index: mp.mpf(int(w)) / total for index, w in np.ndenumerate(weights) if w}
        q = {index: mp.mpf(int(w)) / int(kernel[index[0]].sum()) for index, w in np.ndenumerate(kernel)}

        def mass(**fixed: int) -> mp.mpf:
            return mp.fsum(v for k, v in p.items() if all(k[NAMES.index(n)] == x for n, x in fixed.items()))

        cost = mp.fsum(v * mp.log(v / (mass(past=a, **{"in": i}) * q[i, o])) for (a, i, o), v in p.items())
        bottleneck = mp.fsum(
            v * mp.log(v * mass(**{"in": i}) / (mass(past=a, **{"in": i}) * mass(**{"in": i, "out": o})))
            for (a, i, o), v in p.items()
        )
        excess = mp.fsum(
            mass(**{"in": i, "out": o}) * mp.log(mass(**{"in": i, "out": o}) / mass(**{"in": i}) / q[i, o])
            for i, o in itertools.product(range(2), range(3))
            if mass(**{"in": i, "out": o})
        )
    check = check_lemma(law, "past", "in", "out", rows)
    for value, truth in ((check.cost, cost), (check.memory_bottleneck, bottleneck), (check.excess, excess)):
        assert abs(value - truth) < check.rounding
    assert check.rounding < 1e-13
    assert check.holds


def test_the_minimising_kernel_pays_the_memory_bottleneck_and_any_other_pays_more() -> None:
    _, law = whole_number_law(7)
    best = check_lemma(law, "past", "in", "out")
    assert best.holds
    assert best.cost == pytest.approx(best.memory_bottleneck, abs=best.rounding)
    assert best.excess <= best.rounding
    for row, step in itertools.product(range(2), (1e-2, -1e-2)):
        other = best.minimiser.copy()
        other[row, 0] += step
        other[row, 1] -= step
        check = check_lemma(law, "past", "in", "out", other)
        assert check.holds
        assert check.cost > best.cost + 1e-6  # ½ p(in) step² (1/q_0 + 1/q_1) is at least 1e-5 here


def test_xor_of_past_and_input_costs_a_bit_and_a_memory_of_it_saves_the_bit() -> None:
    joint = np.zeros((2, 2, 2))
    for past, seen in itertools.product(range(2), repeat=2):
        joint[past, seen, past ^ seen] = 0.25
    law = FiniteLaw(joint, NAMES)
    check = check_lemma(law, "past", "in", "out")
    assert check.memory_bottleneck == pytest.approx(math.log(2), rel=1e-15)
    assert np.array_equal(check.minimiser, np.full((2, 2), 0.5))
    saved = check_finite_memory(law, "past", "in", "out", np.eye(2))
    assert saved.holds
    assert saved.remaining == pytest.approx(0, abs=saved.rounding)
    assert saved.saved == pytest.approx(math.log(2), rel=1e-15)
    assert saved.budget == pytest.approx(math.log(2), rel=1e-15)
    nothing = check_finite_memory(law, "past", "in", "out", np.ones((2, 1)))
    assert nothing.holds
    assert nothing.budget == nothing.saved == 0
    assert nothing.remaining == nothing.without


def test_infinite_costs() -> None:
    law = FiniteLaw([[[0.5, 0.0]], [[0.25, 0.25]]], NAMES)
    check = check_lemma(law, "past", "in", "out", [[1.0, 0.0]])
    assert check.cost == check.excess == math.inf
    assert math.isfinite(check.memory_bottleneck)
    assert check.gap == 0
    assert check.holds
    # A kernel may be zero wherever the law is, also for inputs that never occur.
    sparse = FiniteLaw([[[0.5, 0.0], [0.0, 0.0]], [[0.5, 0.0], [0.0, 0.0]]], NAMES)
    check = check_lemma(sparse, "past", "in", "out", [[1.0, 0.0], [0.0, 1.0]])
    assert check.cost == check.memory_bottleneck == check.excess == 0
    assert check.holds


def test_several_axes_a_side_in_any_order() -> None:
    generator = np.random.default_rng(3)
    law = FiniteLaw.from_weights(generator.random((2, 3, 2, 3, 2)), ("a", "b", "c", "d", "e"))
    kernel = generator.random((3, 2, 2))
    kernel /= kernel.sum((1, 2), keepdims=True)
    check = check_lemma(law, ("c",), ("d",), ("e", "a"), kernel)  # b is summed out
    assert check.holds
    assert check.minimiser.shape == (3, 2, 2)
    bottleneck = conditional_mutual_information(law, ("e", "a"), "c", "d")
    assert check.memory_bottleneck == pytest.approx(bottleneck, abs=check.rounding)
    np.testing.assert_allclose(
        check.minimiser,
        np.einsum("abcde->dea", law.probabilities) / np.einsum("abcde->d", law.probabilities)[:, None, None],
        rtol=1e-13,
    )
    np.testing.assert_array_equal(check.minimiser, minimising_kernel(law, "d", ("e", "a")))


@pytest.mark.parametrize("seed", range(3))
def test_a_noisy_code_by_enumeration(seed: int) -> None:
    weights, law = whole_number_law(seed + 20)
    code = np.random.default_rng(seed).random((3, 4))
    code /= code.sum(1, keepdims=True)
    check = check_finite_memory(law, "past", "in", "out", code)
    full = FiniteLaw.from_weights(weights[..., None] * code[:, None, None, :], (*NAMES, "h"))
    assert check.holds
    for value, truth in (
        (check.without, conditional_mutual_information(full, "out", "past", "in")),
        (check.remaining, conditional_mutual_information(full, "past", "out", ("h", "in"))),
        (check.saved, conditional_mutual_information(full, "h", "out", "in")),
        (check.budget, conditional_mutual_information(full, "past", "h", "in")),
    ):
        assert value == pytest.approx(truth, abs=check.rounding)
    assert 0 < check.saved < check.budget


def test_bad_kernels_and_codes_are_refused() -> None:
    _, law = whole_number_law(0)
    with pytest.raises(ValueError, match=r"shape \(2, 3\)"):
        check_lemma(law, "past", "in", "out", np.full((3, 2), 0.5))
    with pytest.raises(ValueError, match="no axis 'now'"):
        check_lemma(law, "past", "now", "out")
    with pytest.raises(ValueError, match="named twice"):
        check_lemma(law, "past", "past", "out")
    with pytest.raises(ValueError, match=r"shape \(3, 2\)"):
        check_finite_memory(law, "past", "in", "out", np.eye(2))
    with pytest.raises(ValueError, match=r"sums to 0\.5"):
        check_finite_memory(law, "past", "in", "out", np.full((3, 1), 0.5))


# -- Gaussian laws -----------------------------------------------------------------------------------

PAST, IN, OUT = [4, 0, 2], [6, 1], [3, 5]


def random_covariance(seed: int, n: int = 7, batch: tuple[int, ...] = ()) -> Tensor:
    a = torch.randn(*batch, n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return a @ a.mT / n + 0.2 * torch.eye(n, dtype=torch.float64)


def random_kernel(seed: int) -> AffineKernel:
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(2, 2, generator=generator, dtype=torch.float64)
    return AffineKernel(
        torch.randn(2, 2, generator=generator, dtype=torch.float64),
        torch.randn(2, generator=generator, dtype=torch.float64),
        root @ root.mT + 0.3 * torch.eye(2, dtype=torch.float64),
    )


def exact(matrix: Tensor) -> mp.matrix:
    return mp.matrix([[mp.mpf(v) for v in row] for row in matrix.tolist()])


def exact_affine_cost(s: Tensor, m: Tensor, known: list[int], seen: list[int], q: AffineKernel) -> mp.mpf:
    """E KL(P(out | known) ‖ N(G seen + b, N)) in 60 digits, by averaging the conditional KL over ``known``."""
    with mp.workdps(60):
        mean = exact(m[:, None])

        def block(rows: list[int], columns: list[int]) -> mp.matrix:
            return exact(s[rows][:, columns])

        if known:
            regression = block(OUT, known) * block(known, known) ** -1
            residual = block(OUT, OUT) - regression * block(known, OUT)
        else:
            regression, residual = mp.matrix(len(OUT), 0), block(OUT, OUT)
        gain = mp.matrix(len(OUT), len(known))
        for j, name in enumerate(seen):
            for i in range(len(OUT)):
                gain[i, known.index(name)] = mp.mpf(float(q.gain[i, j]))
        off = regression - gain
        at_mean = mp.matrix([mean[o] for o in OUT]) - exact(q.bias[:, None])
        at_mean -= gain * mp.matrix([mean[k] for k in known])
        precision = exact(q.noise) ** -1
        spread = precision * (residual + off * block(known, known) * off.T + at_mean * at_mean.T)
        trace = sum(spread[k, k] for k in range(len(OUT)))
        return (trace - len(OUT) - mp.log(mp.det(precision * residual))) / 2


@pytest.mark.parametrize("seed", range(3))
def test_gaussian_lemma_against_60_digits(seed: int) -> None:
    covariance, mean = random_covariance(seed), torch.linspace(-1, 2, 7, dtype=torch.float64)
    kernel = random_kernel(seed)
    check = check_gaussian_lemma(covariance, mean, PAST, IN, OUT, kernel)
    cost = exact_affine_cost(covariance, mean, PAST + IN, IN, kernel)
    excess = exact_affine_cost(covariance, mean, IN, IN, kernel)
    for value, truth in (
        (check.cost, cost),
        (check.excess, excess),
        (check.memory_bottleneck, cost - excess),
    ):
        assert abs(float(value) - float(truth)) < float(check.rounding)
    assert float(check.rounding) < 1e-9
    assert check.holds


def test_gaussian_cost_against_monte_carlo() -> None:
    covariance, kernel = random_covariance(11), random_kernel(12)
    mean = torch.linspace(1, -1, 7, dtype=torch.float64)
    check = check_gaussian_lemma(covariance, mean, PAST, IN, OUT, kernel)
    normal = torch.distributions.MultivariateNormal
    torch.manual_seed(13)
    draws = normal(mean, covariance).sample((40_000,))
    rest = PAST + IN
    rest_law = normal(mean[rest], covariance[rest][:, rest])
    seen = draws[:, IN]
    log_q = normal(seen @ kernel.gain.mT + kernel.bias, kernel.noise).log_prob(draws[:, OUT])
    values = normal(mean, covariance).log_prob(draws) - rest_law.log_prob(draws[:, rest]) - log_q
    error = float(values.std()) / math.sqrt(len(values))
    assert abs(float(values.mean() - check.cost)) < 5 * error


def test_the_gaussian_minimiser_pays_the_memory_bottleneck() -> None:
    covariance, mean = random_covariance(14), torch.linspace(-2, 1, 7, dtype=torch.float64)
    check = check_gaussian_lemma(covariance, mean, PAST, IN, OUT)
    assert check.holds
    assert abs(float(check.excess)) <= float(check.rounding)
    assert float(check.memory_bottleneck) > 0.05
    gain = torch.linalg.solve(covariance[IN][:, IN], covariance[IN][:, OUT]).mT
    torch.testing.assert_close(check.minimiser.gain, gain, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(check.minimiser.bias, mean[OUT] - gain @ mean[IN], rtol=1e-12, atol=1e-13)
    # It is a stationary point of the cost, and the only one: the cost is strictly convex in gain and bias.
    parts = [part.clone().requires_grad_() for part in (check.minimiser.gain, check.minimiser.bias)]
    noise = check.minimiser.noise.clone().requires_grad_()
    cost = check_gaussian_lemma(covariance, mean, PAST, IN, OUT, AffineKernel(*parts, noise)).cost
    for gradient in torch.autograd.grad(cost, [*parts, noise]):
        assert float(gradient.abs().max()) < 1e-12


def test_gaussian_lemma_without_input_and_without_past() -> None:
    covariance, mean = random_covariance(15), torch.zeros(7, dtype=torch.float64)
    check = check_gaussian_lemma(covariance, mean, PAST, [], OUT)
    assert check.holds
    assert check.minimiser.gain.shape == (2, 0)
    check = check_gaussian_lemma(covariance, mean, [], IN, OUT, random_kernel(16))
    assert check.holds
    assert float(check.memory_bottleneck) == 0
    assert float(check.cost) == pytest.approx(float(check.excess), rel=1e-12)


def test_gaussian_lemma_over_batch_axes() -> None:
    covariance = random_covariance(17, batch=(2, 3))
    mean = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(18), dtype=torch.float64)
    kernel = random_kernel(19)
    check = check_gaussian_lemma(covariance, mean, PAST, IN, OUT, kernel)
    assert check.cost.shape == (2, 3)
    assert check.holds
    for i, j in itertools.product(range(2), range(3)):
        alone = check_gaussian_lemma(covariance[i, j], mean[i, j], PAST, IN, OUT, kernel)
        torch.testing.assert_close(check.cost[i, j], alone.cost, rtol=1e-12, atol=0)
        torch.testing.assert_close(check.memory_bottleneck[i, j], alone.memory_bottleneck, rtol=1e-10, atol=0)
        torch.testing.assert_close(check.excess[i, j], alone.excess, rtol=1e-12, atol=0)


def test_bad_gaussian_input_is_refused() -> None:
    covariance, mean = random_covariance(20), torch.zeros(7, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"different indices in 0\.\.6"):
        check_gaussian_lemma(covariance, mean, [0], [1], [1])
    with pytest.raises(ValueError, match=r"different indices in 0\.\.6"):
        check_gaussian_memory(covariance, [0], [1], [7], torch.ones(1, 1, dtype=torch.float64))
    kernel = random_kernel(21)
    with pytest.raises(ValueError, match="from 3 to 2 variables needs a gain of shape"):
        check_gaussian_lemma(covariance, mean, [4], [0, 1, 2], OUT, kernel)
    still = AffineKernel(kernel.gain, kernel.bias, torch.zeros(2, 2, dtype=torch.float64))
    with pytest.raises(NotPositiveDefiniteError, match="noise covariance of the kernel"):
        check_gaussian_lemma(covariance, mean, PAST, IN, OUT, still)
    with pytest.raises(ValueError, match="view must have shape"):
        check_gaussian_memory(covariance, PAST, IN, OUT, torch.ones(1, 2, dtype=torch.float64))
    with pytest.raises(ValueError, match="linearly independent rows, at most 3; it has 2 of rank 1"):
        check_gaussian_memory(covariance, PAST, IN, OUT, torch.ones(2, 3, dtype=torch.float64))
    with pytest.raises(NotPositiveDefiniteError, match="noise covariance of the memory"):
        check_gaussian_memory(
            covariance, PAST, IN, OUT, torch.ones(1, 3).double(), torch.zeros(1, 1, dtype=torch.float64)
        )


# -- Gaussian memories -------------------------------------------------------------------------------


def test_a_view_without_noise_that_keeps_entries_is_a_condition_on_them() -> None:
    covariance = random_covariance(22)
    keep = torch.eye(3, dtype=torch.float64)[:2]  # entries 4 and 0
    check = check_gaussian_memory(covariance, PAST, IN, OUT, keep)
    assert check.holds
    torch.testing.assert_close(
        check.remaining, gaussian_information(covariance, OUT, [2], [*IN, 4, 0]), rtol=1e-11, atol=0
    )
    torch.testing.assert_close(check.saved, gaussian_information(covariance, OUT, [4, 0], IN), rtol=1e-11, atol=0)
    assert float(check.budget) == math.inf
    # Which combinations of them the view keeps does not matter.
    mixed = check_gaussian_memory(covariance, PAST, IN, OUT, torch.tensor([[3.0, 1], [1, -2]]).double() @ keep)
    torch.testing.assert_close(mixed.remaining, check.remaining, rtol=1e-11, atol=0)
    whole = check_gaussian_memory(covariance, PAST, IN, OUT, torch.eye(3, dtype=torch.float64))
    assert whole.holds
    assert float(whole.remaining) == 0


def test_a_noisy_view_tends_to_the_one_without_noise() -> None:
    covariance = random_covariance(23)
    view = torch.tensor([[1.0, 2.0, -1.0]], dtype=torch.float64)
    limit = check_gaussian_memory(covariance, PAST, IN, OUT, view)
    gaps = []
    for noise in (1e-2, 1e-4, 1e-6):
        spread = torch.tensor([[noise]], dtype=torch.float64)
        check = check_gaussian_memory(covariance, PAST, IN, OUT, view, spread)
        assert check.holds
        gaps.append(float(check.remaining - limit.remaining))
    slopes = [math.log(a / b) / math.log(100) for a, b in itertools.pairwise(gaps)]
    assert slopes == pytest.approx([1, 1], abs=0.02)  # first order in the noise


def test_the_gaussian_minimiser_over_batch_axes() -> None:
    covariance = random_covariance(34, batch=(3,))
    mean = torch.zeros(3, 7, dtype=torch.float64)
    kernel = gaussian_minimising_kernel(covariance, mean, IN, OUT)
    assert kernel.gain.shape == (3, 2, 2)
    assert kernel.bias.shape == (3, 2)
    assert kernel.noise.shape == (3, 2, 2)
