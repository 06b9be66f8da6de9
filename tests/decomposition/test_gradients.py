"""The ledger's totals differentiate: automatic derivatives against central differences."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from reference_cases import MORE_PLANS, PLANS, Array, ar1, random_video
from scipy.optimize import minimize
from torch import Tensor

from arvdm_theory import ArrayVideo, Number, PerturbedScore, Plan, References, ledger, ledger_terms, outpainting
from arvdm_theory.decomposition.terms import LedgerTerms
from arvdm_theory.decomposition.trajectory import trajectory_kl

EVERY_PLAN = {**PLANS, **MORE_PLANS}
AR_STEPS = 2
TERMS = ("nie", "de", "see", "cross", "girsanov", "closed", "nie_closed", "mb", "mb_clean")
ROLLOUT = ("ie", "kl", "clips", "ar_step_errors", "attribution", "kl_w2", "clips_w2")


def tensor(number: Number) -> Tensor:
    return torch.as_tensor(number.value, dtype=torch.float64)


def every_term(terms: LedgerTerms) -> dict[str, Tensor]:
    """Every term of the ledger that is defined: what each stage has, and what is had of the rollout."""
    found = {name: getattr(terms, name) for name in ROLLOUT}
    for k, stage in enumerate([terms.initialisation, *terms.ar]):
        found |= {f"{name} {k}": getattr(stage, name) for name in TERMS}
    values = {name: tensor(number) for name, number in found.items() if number is not None}
    finite = {name: value for name, value in values.items() if bool(torch.isfinite(value.detach()).all())}
    # Infinite or undefined is what a step without noise does to a conditional law, and nothing else.
    assert {name.split()[0] for name in values.keys() - finite.keys()} <= {
        "de", "see", "cross", "ar_step_errors", "attribution",
    }  # fmt: skip
    assert "ie" in finite
    assert "kl" in finite
    assert "clips" in finite
    assert {name.split()[0] for name in finite} >= {"nie", "mb"}
    return finite


def totals(terms: LedgerTerms) -> Tensor:
    """Every entry of every term and every total of theirs, so that one check goes through all of them."""
    values = every_term(terms)
    entries = [value.reshape(-1) for value in values.values()]
    if "de 0" in values:
        entries += [tensor(terms.path)[None]] if terms.path is not None else []
        rungs = [terms.trajectory, terms.girsanov, terms.closed, terms.floor]
        entries += [tensor(number)[None] for number in rungs if number is not None]
        entries.append(terms.clip_bounds.value)
    return torch.cat(entries)


def check(f: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Central differences with step ε = 1e-6: truncation 1e-12 third derivatives, rounding 1e-13 f/ε = 1e-7 f.

    Values are up to about 30, so 1e-5 absolute and relative covers both; derivatives are of order 1 to 100.
    The Jacobian is compared along one random direction on either side, which a wrong entry cannot hide from.
    """
    assert torch.autograd.gradcheck(f, inputs, eps=1e-6, atol=1e-5, rtol=1e-5, fast_mode=True)


def inner(plan: Plan) -> tuple[Tensor, Tensor]:
    """A grid's inner levels where frames move on both sides, as one vector, and where they stand."""
    grid = torch.tensor(plan.ar_grid, dtype=torch.float64)
    moves = grid[:-1] > grid[1:]
    where = torch.zeros_like(grid, dtype=torch.bool)
    where[1:-1] = moves[:-1] & moves[1:]
    return grid[where].clone().requires_grad_(), where


GRID_PLANS = [
    "chunks, noised references",
    "rolling, noised references, floor",
    "frames that wait",
    "enters clean",
    "a mask a step that reads references",
]


@pytest.mark.parametrize("name", GRID_PLANS)
@pytest.mark.parametrize("step", ["exponential", "euler", "ancestral", "ddim"])
def test_totals_differentiate_in_the_levels(name: str, step: str) -> None:
    plan = EVERY_PLAN[name]
    covariance, mean = random_video(plan.total_frames(AR_STEPS), 1, 0)
    video = ArrayVideo(covariance, 1, mean)
    levels, where = inner(plan)
    assert len(levels) >= 1

    def f(x: Tensor) -> Tensor:
        grid = torch.tensor(plan.ar_grid, dtype=torch.float64).masked_scatter(where, x)
        terms = ledger_terms(
            video, plan, AR_STEPS, score=PerturbedScore(0.1, bias=0.05), step=step, attribution=True, ar_grid=grid
        )
        return totals(terms)

    check(f, levels)


def test_circular_levels_differentiate_together() -> None:
    """t^I_1 = t^O_2 is one number in three places: input, output, and the level that Input_1 is noised to."""
    plan = PLANS["rolling"]
    covariance, mean = random_video(plan.total_frames(AR_STEPS), 1, 1)
    video = ArrayVideo(covariance, 1, mean)

    def f(x: Tensor) -> Tensor:
        zero, top = torch.zeros(1, dtype=torch.float64), torch.full((1,), 3.0, dtype=torch.float64)
        start, end = torch.cat([x, top]), torch.cat([zero, x])
        share = torch.linspace(0, 1, 4, dtype=torch.float64)[:, None]
        return totals(ledger_terms(video, plan, AR_STEPS, ar_grid=start + share * (end - start)))

    entering = torch.tensor(plan.input_levels[:2], dtype=torch.float64, requires_grad=True)
    np.testing.assert_allclose(f(entering).detach(), totals(ledger_terms(video, plan, AR_STEPS)), rtol=1e-12)
    check(f, entering)
    # Levels given as a tensor are those of the plan that has them.
    moved = torch.tensor([0.7, 2.2], dtype=torch.float64)
    other = replace(plan, input_levels=(0.7, 2.2, 3.0), output_levels=(), ar_grid=())
    np.testing.assert_allclose(f(moved), totals(ledger_terms(video, other, AR_STEPS)), rtol=1e-12)


@pytest.mark.parametrize("name", ["chunks, mixed references, floor", "enters clean"])
@pytest.mark.parametrize(("step", "error"), [("exponential", None), ("euler", 0.1), ("ancestral", 0.1)])
def test_totals_differentiate_in_the_videos_covariance(name: str, step: str, error: float | None) -> None:
    plan = EVERY_PLAN[name]
    n = plan.total_frames(AR_STEPS)
    # Variance 1.3: at 1 the closed bound's max(E‖X‖², d) has a kink.
    root = torch.linalg.cholesky(torch.from_numpy(1.3 * ar1(n, 0.6))).requires_grad_()
    score = None if error is None else PerturbedScore(error)

    def f(x: Tensor) -> Tensor:
        covariance = x @ x.T
        return totals(
            ledger_terms(ArrayVideo(covariance, 1), plan, AR_STEPS, score=score, step=step, attribution=True)
        )

    check(f, root)


@pytest.mark.parametrize("step", ["exponential", "euler"])
def test_totals_differentiate_in_the_score_error(step: str) -> None:
    plan = PLANS["chunks, noised references"]
    covariance, mean = random_video(plan.total_frames(AR_STEPS), 1, 2)
    video = ArrayVideo(covariance, 1, mean)

    def f(error: Tensor, bias: Tensor) -> Tensor:
        return totals(ledger_terms(video, plan, AR_STEPS, score=PerturbedScore(error, bias), step=step))

    check(f, *torch.tensor([0.1, -0.05], dtype=torch.float64, requires_grad=True).unbind())


@pytest.mark.parametrize("name", GRID_PLANS)
@pytest.mark.parametrize("step", ["exponential", "euler", "ancestral", "ddpm"])
def test_derivatives_are_finite_where_frames_wait_and_where_the_score_is_exact(name: str, step: str) -> None:
    """No 0/0 of frames that stay and no √0 of a score without error reaches a derivative."""
    plan = EVERY_PLAN[name]
    covariance = torch.from_numpy(ar1(plan.total_frames(AR_STEPS), 0.6)).requires_grad_()
    grid = torch.tensor(plan.ar_grid, dtype=torch.float64, requires_grad=True)
    terms = ledger_terms(ArrayVideo(covariance, 1), plan, AR_STEPS, step=step, ar_grid=grid)
    # A derivative of one entry that is not finite leaves none of their sum that is.
    for slope in torch.autograd.grad(totals(terms).sum(), [covariance, grid]):
        assert bool(torch.isfinite(slope).all())


def test_the_trajectory_kl_differentiates_like_the_ledger() -> None:
    plan = PLANS["chunks, mixed references, floor"]
    covariance = torch.from_numpy(ar1(plan.total_frames(AR_STEPS), 0.6)).requires_grad_()
    video = ArrayVideo(covariance, 1)
    ledgers = ledger_terms(video, plan, AR_STEPS, score=PerturbedScore(0.1)).trajectory
    assert ledgers is not None
    [by_terms] = torch.autograd.grad(ledgers.value, covariance, retain_graph=True)
    [densely] = torch.autograd.grad(trajectory_kl(video, plan, AR_STEPS, PerturbedScore(0.1)), covariance)
    np.testing.assert_allclose(by_terms, densely, rtol=1e-8, atol=1e-8)


def test_nothing_global_changes_and_ledgers_hold_no_graph() -> None:
    plan = PLANS["rolling"]
    covariance = torch.from_numpy(ar1(plan.total_frames(AR_STEPS), 0.6)).requires_grad_()
    before = torch.get_default_dtype(), torch.get_rng_state(), torch.is_grad_enabled()
    result = ledger(ArrayVideo(covariance, 1), plan, AR_STEPS)
    assert torch.get_default_dtype() is before[0] is torch.float32
    assert torch.equal(torch.get_rng_state(), before[1])
    assert torch.is_grad_enabled() is before[2] is True
    for value in every_term(result.terms).values():
        assert not value.requires_grad
        assert value.dtype == torch.float64


def test_levels_can_be_optimised() -> None:
    """Descent from uniform levels finds the stationary point beside them that no reverse step knows of."""
    plan = Plan((8.0, 8.0), 2, 8.0, 4, 4)
    video = ArrayVideo(ar1(plan.total_frames(1), 0.9), 1)
    slopes: list[float] = []

    def loss(shares: Array) -> tuple[float, Array]:
        x = torch.from_numpy(shares).requires_grad_()
        ends = torch.tensor([8.0, 0.0], dtype=torch.float64)
        column = torch.cat([ends[:1], 8.0 * (1 - torch.softmax(x, 0).cumsum(0)[:-1]), ends[1:]])
        terms = ledger_terms(video, plan, 1, ar_grid=column[:, None].expand(-1, 2), girsanov=False)
        assert terms.trajectory is not None
        [slope] = torch.autograd.grad(terms.trajectory.value, x)
        slopes.append(float(slope.norm()))
        return float(terms.trajectory.value.detach()), slope.numpy()

    found = minimize(loss, np.zeros(4), jac=True, method="BFGS", options={"gtol": 1e-7})
    assert found.fun < loss(np.zeros(4))[0] - 1e-3
    assert float(np.linalg.norm(found.jac)) < 1e-5 * slopes[0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_video_on_the_gpu_has_the_same_ledger() -> None:
    plan = PLANS["chunks, causal mask"]
    covariance, mean = random_video(plan.total_frames(AR_STEPS), 2, 3)
    score = PerturbedScore(0.1, bias=0.05)
    here = ledger(ArrayVideo(covariance, 2, mean), plan, AR_STEPS, score=score)
    there = ledger(ArrayVideo(torch.from_numpy(covariance).cuda(), 2, mean), plan, AR_STEPS, score=score)
    assert there.terms.of("de").value.is_cuda
    np.testing.assert_allclose(there.table.value, here.table.value, rtol=1e-9, atol=1e-12)


def test_ar_steps_that_are_alike_by_value_keep_derivatives_of_their_own() -> None:
    """A stationary covariance, moved in the entry of its last two frames alone: only the last AR step sees it."""
    plan, base = outpainting(1, References.last(1), 3, 3), torch.from_numpy(ar1(6, 0.8))

    def value(covariance: Tensor) -> Tensor:
        terms = ledger_terms(ArrayVideo(covariance, 1), plan, 5)
        numbers = [terms.kl, terms.ar_step_errors, terms.total("de"), terms.total("nie"), terms.girsanov]
        return torch.stack([tensor(number).sum() for number in numbers if number is not None])

    move = torch.zeros_like(base)
    move[4, 5] = move[5, 4] = 1.0

    def moved(by: Tensor) -> Tensor:
        return value(base + by * move)

    check(moved, torch.zeros((), dtype=torch.float64, requires_grad=True))
