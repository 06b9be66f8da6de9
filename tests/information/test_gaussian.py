"""Gaussian information measures against 50-digit arithmetic on the very same float64 covariances.

Tolerances are the module's own claims: n² κ u times 4, with n the number of variables, κ the condition number of
the joint covariance and u = 2^-53. The matrices are scaled to unit size, so κ and the scaled condition number
agree within a small factor.
"""

from __future__ import annotations

import math

import mpmath as mp
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from arvdm_theory.information.gaussian import (
    NotPositiveDefiniteError,
    canonical_correlations,
    condition,
    conditional_mutual_information,
    entropy,
    kl_divergence,
    mutual_information,
    whitened_signal,
    x_minus_log1p,
)
from arvdm_theory.testing import covariances

UNIT = 2.0**-53
DIGITS = 60


def exact(matrix: Tensor) -> mp.matrix:
    return mp.matrix([[mp.mpf(value) for value in row] for row in matrix.tolist()])


def exact_log_det(matrix: Tensor, index: list[int]) -> mp.mpf:
    return mp.log(mp.det(exact(matrix[index][:, index]))) if index else mp.mpf(0)


def exact_information(covariance: Tensor, x: list[int], z: list[int], y: list[int]) -> mp.mpf:
    with mp.workdps(DIGITS):
        terms = [exact_log_det(covariance, index) for index in (x + y, z + y, x + z + y, y)]
        return (terms[0] + terms[1] - terms[2] - terms[3]) / 2


def exact_kl(mean_p: Tensor, cov_p: Tensor, mean_q: Tensor, cov_q: Tensor) -> mp.mpf:
    with mp.workdps(DIGITS):
        p, q = exact(cov_p), exact(cov_q)
        shift = exact(mean_p[:, None]) - exact(mean_q[:, None])
        ratio = mp.lu_solve(q, p) if p.rows == 1 else q**-1 * p
        trace = sum(ratio[k, k] for k in range(p.rows))
        quadratic = (shift.T * q**-1 * shift)[0, 0]
        return (trace - p.rows + quadratic - mp.log(mp.det(p)) + mp.log(mp.det(q))) / 2


def random_covariance(n: int, seed: int, floor: float = 0.3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(n, n, generator=generator, dtype=torch.float64)
    return a @ a.mT / n + floor * torch.eye(n, dtype=torch.float64)


def tolerance(covariance: Tensor) -> float:
    return 4 * covariance.shape[-1] ** 2 * float(torch.linalg.cond(covariance)) * UNIT


@pytest.mark.parametrize("strength", [0.3, 1e-3, 1e-6, 3e-10, 1e-10])
@pytest.mark.parametrize("seed", [0, 1])
def test_mutual_information_keeps_its_relative_accuracy_down_to_1e_minus_20(strength: float, seed: int) -> None:
    n_x, n_z = 3, 4
    covariance = torch.block_diag(random_covariance(n_x, seed), random_covariance(n_z, seed + 10))
    generator = torch.Generator().manual_seed(seed + 20)
    cross = strength * torch.rand(n_x, n_z, generator=generator, dtype=torch.float64) / 4
    covariance[:n_x, n_x:], covariance[n_x:, :n_x] = cross, cross.mT
    x, z = list(range(n_x)), list(range(n_x, n_x + n_z))
    truth = exact_information(covariance, x, z, [])
    error = abs(mp.mpf(float(mutual_information(covariance, x, z))) - truth) / truth
    assert error < min(tolerance(covariance), 1e-8)
    if strength == 1e-10:
        assert truth < 1e-20


@pytest.mark.parametrize("digits", [0.1, 0.3, 1, 4, 8, 12])
def test_strong_correlations_are_as_accurate_as_the_covariance_allows(digits: float) -> None:
    rho = math.sqrt(1 - 10.0**-digits)
    covariance = torch.eye(4, dtype=torch.float64)
    covariance[0, 2] = covariance[2, 0] = rho
    covariance[1, 3] = covariance[3, 1] = 1e-7
    mix = torch.block_diag(random_covariance(2, 3), random_covariance(2, 4))
    covariance = mix @ covariance @ mix.mT
    covariance = (covariance + covariance.mT) / 2
    truth = exact_information(covariance, [0, 1], [2, 3], [])
    assert abs(float(mutual_information(covariance, [0, 1], [2, 3])) - float(truth)) < tolerance(covariance)


def test_the_signal_to_noise_form_is_the_textbook_form_in_canonical_correlations() -> None:
    covariance = random_covariance(6, 5)
    x, z = slice(0, 2), slice(2, 6)
    rho = canonical_correlations(covariance[x, x], covariance[x, z], covariance[z, z])
    _, signal = whitened_signal(covariance[x, x], covariance[x, z], covariance[z, z])
    assert rho.shape == (2,)
    torch.testing.assert_close(torch.linalg.svdvals(signal) ** 2, rho**2 / (1 - rho**2), rtol=1e-12, atol=0)
    textbook = -0.5 * torch.log1p(-(rho**2)).sum()
    torch.testing.assert_close(mutual_information(covariance, range(2), range(2, 6)), textbook, rtol=1e-12, atol=0)


@pytest.mark.parametrize("strength", [0.3, 1e-2, 1e-5, 1e-7, 6e-9])
def test_conditional_mutual_information_down_to_1e_minus_16(strength: float) -> None:
    n = 2
    covariance = torch.block_diag(*[random_covariance(n, k) for k in range(2)])
    covariance[0, n] = covariance[n, 0] = strength
    given = random_covariance(3, 7)
    gain = torch.randn(2 * n, 3, generator=torch.Generator().manual_seed(8), dtype=torch.float64) / 2
    rows = [[covariance + gain @ given @ gain.mT, gain @ given], [given @ gain.mT, given]]
    full = torch.cat([torch.cat(row, -1) for row in rows], -2)
    full = (full + full.mT) / 2
    truth = exact_information(full, [0, 1], [2, 3], [4, 5, 6])
    value = float(conditional_mutual_information(full, [0, 1], [2, 3], [4, 5, 6]))
    error = float(abs(value - truth) / truth)
    # Relative error 2 δρ/ρ with δρ of order n κu after the Schur complement, ρ = √(2I).
    claim = 2 * tolerance(full) / math.sqrt(2 * float(truth)) + tolerance(full)
    assert error < min(claim, 1e-5)
    if strength == 6e-9:
        assert truth < 1e-16
    assert claim < 1e-3  # the claim itself is not empty


@pytest.mark.parametrize("size", [0.2, 1e-3, 1e-6, 1e-9])
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_kl_of_near_equal_gaussians_is_relatively_accurate(size: float, shift: float) -> None:
    cov_q = random_covariance(4, 11)
    change = random_covariance(4, 12) - 0.5 * torch.eye(4, dtype=torch.float64)
    cov_p = cov_q + size * (change + change.mT) / 2
    mean_q = torch.arange(4, dtype=torch.float64) / 8
    mean_p = mean_q + size * shift * torch.tensor([1.0, -2.0, 0.5, 0.0], dtype=torch.float64)
    truth = exact_kl(mean_p, cov_p, mean_q, cov_q)
    value = float(kl_divergence(mean_p, cov_p, mean_q, cov_q))
    assert float(abs(value - truth) / truth) < tolerance(cov_q)
    if size == 1e-9:
        assert truth < 1e-16


@pytest.mark.parametrize("exponents", [(-8, 0, 0), (-8, 3, 0), (5, 4, 3), (-3, -6, -9), (-0.31, -0.29, 0)])
def test_kl_of_gaussians_far_apart(exponents: tuple[float, ...]) -> None:
    rotation, _ = torch.linalg.qr(random_covariance(3, 13))
    cov_q = random_covariance(3, 14)
    factor = torch.linalg.cholesky(cov_q) @ rotation
    cov_p = factor @ torch.diag(torch.tensor([10.0**e for e in exponents], dtype=torch.float64)) @ factor.mT
    cov_p = (cov_p + cov_p.mT) / 2
    mean_p, mean_q = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, -1.0]], dtype=torch.float64)
    truth = float(exact_kl(mean_p, cov_p, mean_q, cov_q))
    value = float(kl_divergence(mean_p, cov_p, mean_q, cov_q))
    assert abs(value - truth) < tolerance(cov_p) + tolerance(cov_q) * abs(truth)


def test_kl_against_monte_carlo() -> None:
    mean_p, mean_q = torch.zeros(3, dtype=torch.float64), torch.tensor([0.5, 0.0, -0.3], dtype=torch.float64)
    cov_p, cov_q = random_covariance(3, 15), random_covariance(3, 16)
    p = torch.distributions.MultivariateNormal(mean_p, cov_p)
    q = torch.distributions.MultivariateNormal(mean_q, cov_q)
    torch.manual_seed(17)
    x = p.sample((40_000,))
    draws = p.log_prob(x) - q.log_prob(x)
    error = float(draws.std()) / math.sqrt(len(draws))
    assert abs(float(draws.mean() - kl_divergence(mean_p, cov_p, mean_q, cov_q))) < 5 * error


@pytest.mark.parametrize("x", [1e-300, 1e-12, -1e-6, 0.1, 0.25, -0.25, 0.2500001, -0.26, -0.9, 3.0, 1e8])
def test_x_minus_log1p(x: float) -> None:
    with mp.workdps(700):  # x² of 1e-300 against x
        truth = mp.mpf(x) - mp.log1p(mp.mpf(x))
    value = float(x_minus_log1p(torch.tensor(x, dtype=torch.float64)))
    assert abs(value - truth) <= 8 * UNIT * truth + 5e-324  # 5e-324: the value at 1e-300 underflows


def test_x_minus_log1p_has_the_right_slope_on_both_branches() -> None:
    x = torch.tensor([-0.9, -0.3, -0.1, 0.0, 1e-9, 0.2, 0.3, 5.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(x_minus_log1p(x).sum(), x)
    # The series' derivative x/(1+x) subtracts terms of size 1: absolute, not relative, accuracy near 0.
    torch.testing.assert_close(slope, (x / (1 + x)).detach(), rtol=1e-14, atol=1e-15)


def test_entropy() -> None:
    covariance = random_covariance(3, 18)
    with mp.workdps(DIGITS):
        truth = (3 * mp.log(2 * mp.pi * mp.e) + exact_log_det(covariance, [0, 1, 2])) / 2
    assert abs(float(entropy(covariance)) - float(truth)) < tolerance(covariance)


def test_condition_against_the_joint_precision() -> None:
    covariance = random_covariance(7, 19)
    target, known = [5, 0, 2], [6, 1]
    gain, residual = condition(covariance, target, known)
    index = target + known
    precision = torch.linalg.inv(covariance[index][:, index])
    by_precision = torch.linalg.inv(precision[:3, :3])
    torch.testing.assert_close(residual, by_precision, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(gain, -by_precision @ precision[:3, 3:], rtol=1e-12, atol=1e-13)
    gain, residual = condition(covariance, target, [])
    assert gain.shape == (3, 0)
    assert torch.equal(residual, covariance[target][:, target])


def test_chain_rule_and_empty_blocks() -> None:
    covariance = random_covariance(6, 20)
    information = conditional_mutual_information
    both = information(covariance, [0, 1], [2, 3, 4], [5])
    parts = information(covariance, [0, 1], [2], [5]) + information(covariance, [0, 1], [3, 4], [2, 5])
    assert abs(float(both - parts)) < 2 * tolerance(covariance)
    assert float(information(covariance, [], [1], [2])) == 0
    assert float(information(covariance, [0], [], [2])) == 0
    assert torch.equal(information(covariance, [0], [1], []), mutual_information(covariance, [0], [1]))


@given(covariances(5, max_condition=1e8), st.permutations(range(5)))
@settings(max_examples=60, deadline=None)
def test_information_against_log_determinants_on_hard_covariances(covariance: Tensor, order: list[int]) -> None:
    x, z, y = order[:2], order[2:4], order[4:]
    value = float(conditional_mutual_information(covariance, x, z, y))
    truth = float(exact_information(covariance, x, z, y))
    assert value >= 0
    assert abs(value - truth) < tolerance(covariance)


def test_batch_axes_give_what_single_calls_give() -> None:
    batch = torch.stack([random_covariance(5, k) for k in range(6)]).reshape(2, 3, 5, 5)
    batch[0, 0] = torch.eye(5, dtype=torch.float64) + 1e-9  # very weak beside moderate information
    information = conditional_mutual_information(batch, [0, 1], [2, 3], [4])
    means = torch.randn(2, 2, 3, 5, generator=torch.Generator().manual_seed(21), dtype=torch.float64)
    cov_q = batch.flip(1) * torch.tensor([1.0, 30.0], dtype=torch.float64)[:, None, None, None]  # near and far
    divergence = kl_divergence(means[0], batch, means[1], cov_q)
    assert information.shape == divergence.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            alone = conditional_mutual_information(batch[i, j], [0, 1], [2, 3], [4])
            torch.testing.assert_close(information[i, j], alone, rtol=1e-10, atol=0)
            alone = kl_divergence(means[0, i, j], batch[i, j], means[1, i, j], cov_q[i, j])
            torch.testing.assert_close(divergence[i, j], alone, rtol=1e-12, atol=0)


def spd(root: Tensor) -> Tensor:
    return root @ root.mT + 0.5 * torch.eye(root.shape[-1], dtype=root.dtype)


def test_gradients() -> None:
    generator = torch.Generator().manual_seed(22)
    roots = [torch.randn(2, 4, 4, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    means = [torch.randn(2, 4, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    check = torch.autograd.gradcheck
    assert check(lambda a: conditional_mutual_information(spd(a), [0], [1, 2], [3]), roots[:1])
    assert check(lambda a: mutual_information(spd(a), [0, 1], [2, 3]), roots[:1])
    assert check(lambda a: entropy(spd(a)), roots[:1])
    assert check(lambda m, a, n, b: kl_divergence(m, spd(a), n, spd(b)), (means[0], roots[0], means[1], roots[1]))
    # P much narrower than Q takes the log-determinants, P near Q the series.
    assert check(lambda a: kl_divergence(means[0], 0.01 * spd(a), means[0], spd(roots[1])), roots[:1])
    near = 1.01 * spd(roots[0].detach()).clone()
    assert check(lambda a: kl_divergence(means[0], spd(a), means[0], near), roots[:1])


def test_gradients_are_finite_where_nothing_is_shared() -> None:
    covariance = torch.eye(4, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(mutual_information(covariance, [0, 1], [2, 3]), covariance)
    assert torch.equal(gradient, torch.zeros(4, 4, dtype=torch.float64))
    zero = torch.zeros(4, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(kl_divergence(zero, covariance, zero, torch.eye(4).double()), covariance)
    assert float(gradient.abs().max()) == 0


@pytest.mark.parametrize("deviation", [0.0, 1e-16])
def test_infinite_information_is_refused(deviation: float) -> None:
    known = random_covariance(3, 23)
    copy = torch.cat([torch.cat([known, known], -1), torch.cat([known, known * (1 + deviation)], -1)], -2)
    with pytest.raises(ValueError, match="canonical correlation reaches 1"):
        mutual_information(copy, range(3), range(3, 6))
    beyond = torch.tensor([[1.0, 1.5], [1.5, 1.0]], dtype=torch.float64)
    with pytest.raises(ValueError, match="canonical correlation reaches 1"):
        mutual_information(beyond, [0], [1])


def test_a_covariance_that_is_not_positive_definite_is_named_with_its_smallest_eigenvalue() -> None:
    bad = torch.diag(torch.tensor([2.0, -0.125, 1.0], dtype=torch.float64))
    good, zero = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for call in (
        lambda: entropy(bad),
        lambda: mutual_information(bad, [0], [1, 2]),
        lambda: conditional_mutual_information(bad, [0], [2], [1]),
        lambda: kl_divergence(zero, bad, zero, good),
        lambda: kl_divergence(zero, good, zero, bad),
    ):
        with pytest.raises(NotPositiveDefiniteError, match=r"smallest eigenvalue is -1\.250e-01"):
            call()
    with pytest.raises(NotPositiveDefiniteError, match="covariance of Q"):
        kl_divergence(zero, good, zero, bad)
    with pytest.raises(NotPositiveDefiniteError, match="not positive definite"):
        conditional_mutual_information(random_covariance(3, 24), [0], [1], [1, 2])


@pytest.mark.parametrize("place", [(0, 0), (2, 0), (0, 2)])
def test_entries_that_are_not_finite_are_refused(place: tuple[int, int]) -> None:
    good, zero = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    bad = good.clone()
    bad[place] = math.nan
    for call in (
        lambda: entropy(bad),
        lambda: kl_divergence(zero, bad, zero, good),
        lambda: kl_divergence(zero, good, zero, bad),
    ):
        with pytest.raises(NotPositiveDefiniteError, match="not finite"):
            call()
