"""The frontier of memory bottleneck against memory budget: attained by its own memory, beaten by none."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate, optimize, special
from torch import Tensor

from arvdm_theory.bounds.impossibility import check_gaussian_memory
from arvdm_theory.bounds.information_bottleneck import MemoryFrontier, gaussian_memory_frontier
from arvdm_theory.information.gaussian import conditional_mutual_information as gaussian_information

PAST, IN, OUT = [4, 0, 2], [6, 1], [3, 5]


def random_covariance(seed: int, n: int = 7, batch: tuple[int, ...] = ()) -> Tensor:
    a = torch.randn(*batch, n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return a @ a.mT / n + 0.2 * torch.eye(n, dtype=torch.float64)


def test_the_frontier_is_the_information_curve_of_chechik_et_al() -> None:
    covariance = random_covariance(24, n=9)
    past, seen, out = [0, 1, 2, 3], [4], [5, 6, 7, 8]
    frontier = gaussian_memory_frontier(covariance, past, seen, out)
    joint = covariance - covariance[:, seen] @ covariance[seen] / covariance[4, 4]
    x, xy, y = joint[past][:, past], joint[past][:, out], joint[out][:, out]
    # Their λ: the eigenvalues of Σ_{x|y} Σ_x^{-1}; their curve, parametrised by β.
    matrix = (x - xy @ torch.linalg.solve(y, xy.mT)) @ torch.linalg.inv(x)
    eigenvalues = np.sort(torch.linalg.eigvals(matrix).real.numpy())
    total = -0.5 * np.log(eigenvalues).sum()
    kept = set()
    for beta in np.geomspace(1.001 / (1 - eigenvalues[0]), 1e4, 40):
        active = eigenvalues[beta * (1 - eigenvalues) > 1]
        kept.add(len(active))
        about_x = 0.5 * np.log((beta - 1) * (1 - active) / active).sum()
        about_y = about_x - 0.5 * np.log(beta * (1 - active)).sum()
        assert float(frontier.remaining(about_x)) == pytest.approx(total - about_y, rel=1e-11)
    assert kept == {1, 2, 3, 4}


def test_the_best_memory_attains_the_frontier() -> None:
    covariance = random_covariance(25, batch=(2,))
    frontier = gaussian_memory_frontier(covariance, PAST, IN, OUT)
    full = gaussian_information(covariance, OUT, PAST, IN)
    for budget in (0.0, 0.05, 0.4, 1.5, 4.0):
        memory = frontier.memory(budget)
        check = check_gaussian_memory(covariance, PAST, IN, OUT, memory, torch.eye(2, dtype=torch.float64))
        assert check.holds
        torch.testing.assert_close(check.without, full, rtol=1e-12, atol=0)
        nats = torch.full((2,), budget, dtype=torch.float64)
        torch.testing.assert_close(check.budget, nats, rtol=1e-11, atol=1e-14)
        torch.testing.assert_close(check.remaining, frontier.remaining(budget), rtol=1e-11, atol=0)
        torch.testing.assert_close(frontier.nats(budget).sum(-1), check.budget, rtol=1e-12, atol=1e-14)


def test_no_random_memory_beats_the_frontier() -> None:
    covariance = random_covariance(26)
    frontier = gaussian_memory_frontier(covariance, PAST, IN, OUT)
    generator = torch.Generator().manual_seed(27)
    for rows in (1, 2, 3, 4):
        size = 10.0 ** (3 * torch.rand(500, 1, 1, generator=generator, dtype=torch.float64) - 1.5)
        views = size * torch.randn(500, rows, 3, generator=generator, dtype=torch.float64)
        check = check_gaussian_memory(covariance, PAST, IN, OUT, views, torch.eye(rows, dtype=torch.float64))
        assert check.holds
        above = check.remaining - frontier.remaining(check.budget)
        assert bool((above >= -check.rounding).all())
        assert float(above.min()) < 0.05  # some come close: the comparison is not empty


@pytest.mark.parametrize("budget", [0.2, 1.0, 3.0])
def test_an_optimiser_reaches_the_frontier_and_no_further(budget: float) -> None:
    covariance = random_covariance(28)
    frontier = gaussian_memory_frontier(covariance, PAST, IN, OUT)
    h = 1e-5
    slope = float(frontier.remaining(budget - h) - frontier.remaining(budget + h)) / (2 * h)  # 1/β
    eye = torch.eye(2, dtype=torch.float64)

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        view = torch.from_numpy(flat.reshape(2, 3)).requires_grad_()
        check = check_gaussian_memory(covariance, PAST, IN, OUT, view, eye)
        value = check.remaining + slope * check.budget
        (gradient,) = torch.autograd.grad(value, view)
        return value.item(), gradient.numpy().ravel()

    start = np.random.default_rng(29).standard_normal(6)
    found = optimize.minimize(objective, start, jac=True, method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-9})
    view = torch.from_numpy(found.x.reshape(2, 3))
    check = check_gaussian_memory(covariance, PAST, IN, OUT, view, eye)
    above = float(check.remaining - frontier.remaining(check.budget))
    assert -float(check.rounding) <= above < 1e-8
    assert float(check.budget) == pytest.approx(budget, abs=1e-3)


def test_a_nonlinear_memory_stays_above_the_frontier_too() -> None:
    rho = 0.9
    covariance = torch.tensor([[1.0, rho], [rho, 1.0]], dtype=torch.float64)
    frontier = gaussian_memory_frontier(covariance, [0], [], [1])
    slant = rho / math.sqrt(1 - rho**2)

    def integrand(y: float) -> float:
        share = special.ndtr(slant * y)
        binary = float(special.entr(share) + special.entr(1 - share))
        return binary * math.exp(-(y**2) / 2) / math.sqrt(2 * math.pi)

    hidden, _ = integrate.quad(integrand, -12, 12, epsabs=1e-12)
    saved = math.log(2) - hidden  # I(sign Past; Out), with I(sign Past; Past) = log 2
    remaining = float(gaussian_information(covariance, [1], [0], [])) - saved
    assert float(frontier.remaining(math.log(2))) < remaining - 0.01


def test_the_frontier_falls_is_convex_and_ends_at_nothing() -> None:
    covariance = random_covariance(30)
    frontier = gaussian_memory_frontier(covariance, PAST, IN, OUT)
    budgets = torch.linspace(0, 12, 601, dtype=torch.float64)
    curve = frontier.remaining(budgets)
    full = gaussian_information(covariance, OUT, PAST, IN)
    assert float(curve[0]) == pytest.approx(float(full), rel=1e-13)
    slope = curve.diff() / budgets.diff()
    assert bool((slope < 0).all())
    assert bool((slope > -1).all())  # a nat of memory saves less than a nat
    assert bool((slope.diff() > 0).all())
    assert 0 < float(curve[-1]) < 1e-4
    assert float(frontier.remaining(300.0)) < 1e-100  # no cancellation in the tail
    level = frontier.log_odds.mean() - 12.0  # with all variables kept, Σ (L_i - ℓ) = 2R
    assert float(curve[-1]) == pytest.approx(float(torch.log1p(level.exp())), rel=1e-12)


def test_the_frontier_of_independent_variables_and_of_partly_worthless_memories() -> None:
    eye = torch.eye(5, dtype=torch.float64)
    nothing = gaussian_memory_frontier(eye, [0, 1], [2], [3, 4])
    assert nothing.remaining([0.0, 1.0, 5.0]).tolist() == [0.0, 0.0, 0.0]
    assert nothing.nats(1.0).tolist() == [0.0, 0.0]
    one = eye.clone()
    one[0, 3] = one[3, 0] = 0.6
    partly = gaussian_memory_frontier(one, [0, 1], [2], [3, 4])
    scalar = gaussian_memory_frontier(one, [0], [], [3])
    budgets = [0.0, 0.3, 7.0]
    torch.testing.assert_close(partly.remaining(budgets), scalar.remaining(budgets), rtol=1e-13, atol=0)
    assert partly.nats(7.0).tolist() == pytest.approx([7.0, 0.0])
    assert partly.nats(budgets).shape == (3, 2)
    assert isinstance(partly, MemoryFrontier)


def test_frontier_gradients() -> None:
    root = torch.randn(4, 4, generator=torch.Generator().manual_seed(31), dtype=torch.float64, requires_grad=True)
    eye = torch.eye(4, dtype=torch.float64)

    def remaining(a: Tensor) -> Tensor:
        return gaussian_memory_frontier(a @ a.mT + 0.5 * eye, [0, 1], [], [2, 3]).remaining([0.0, 0.2, 2.0])

    assert torch.autograd.gradcheck(remaining, (root,))


@pytest.mark.parametrize("budget", [-0.1, math.nan, math.inf])
def test_bad_budgets_are_refused(budget: float) -> None:
    frontier = gaussian_memory_frontier(random_covariance(32), PAST, IN, OUT)
    with pytest.raises(ValueError, match="finite numbers ≥ 0"):
        frontier.remaining(budget)


def test_a_frontier_needs_a_past_and_an_output() -> None:
    with pytest.raises(ValueError, match="at least one variable"):
        gaussian_memory_frontier(random_covariance(33), [], IN, OUT)
