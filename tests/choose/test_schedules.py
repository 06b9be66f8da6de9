"""Schedules that are best: §14's numbers, brute force, a closed form, and what no search may lose."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from arvdm_theory import ArrayVideo, Plan, PlanError, References, ar1, fifo, ledger, outpainting, reference_video
from arvdm_theory.choose.schedules import (
    HAND_GRIDS,
    Objective,
    hand_grids,
    objective_value,
    optimal_schedule,
    plan_floor,
)

# KL(clean) at the best grids of the reference video, four references, five AR steps, T = 6, M_init = M.
PRINTED = {5: 2.861, 10: 1.378, 20: 1.021}
FLOOR = 0.902739


@pytest.mark.parametrize(("steps", "iterations"), [(5, 24), (10, 28), (20, 40)])
def test_the_printed_optima_are_reached_and_the_floor_is_not_passed(steps: int, iterations: int) -> None:
    plan = outpainting(2, References.last(4), reverse_steps=steps, init_steps=steps)
    found = optimal_schedule(reference_video(), plan, 5, iterations=iterations, starts=("tangent:1",))
    assert found.value < PRINTED[steps] + 5e-4
    assert found.floor == pytest.approx(FLOOR, abs=1e-6)
    assert found.value > found.floor
    assert found.value == pytest.approx(ledger(reference_video(), found.plan, 5).totals["kl"], rel=1e-10)


def white_kl(levels: NDArray[np.float64], variance: float) -> NDArray[np.float64]:
    """KL(true ‖ made) of one frame N(0, variance) that exponential steps make along levels (M + 1, ...).

    A product of scalars, with nothing of the library in it.
    """
    made = np.ones_like(levels[0])
    for high, low in itertools.pairwise(levels):
        h, true = high - low, np.exp(-high) * variance - np.expm1(-high)
        gain = np.exp(h / 2) - 2 * np.expm1(h / 2) / true
        made = gain**2 * made + np.expm1(h)
    ratio = variance / made
    return (ratio - 1 - np.log(ratio)) / 2


@pytest.mark.parametrize("steps", [2, 3, 4])
def test_brute_force_finds_nothing_better(steps: int) -> None:
    """Independent frames: KL is the same sum over frames of both stages, so one grid is searched exhaustively."""
    variance, horizon = 0.3, 4.0
    free = np.linspace(0.0, horizon, 90)
    grids = np.array(list(itertools.combinations(free[1:-1][::-1], steps - 1))).reshape(-1, steps - 1).T
    ends = np.ones_like(grids[:1])
    brute = white_kl(np.concatenate([horizon * ends, grids, 0.0 * ends]), variance).min()
    video = ArrayVideo(variance * np.eye(3), 1)
    plan = outpainting(1, reverse_steps=steps, init_steps=steps, horizon=horizon)
    found = optimal_schedule(video, plan, 2, iterations=60, starts=("uniform", "cosine"))
    assert found.value <= 3 * brute + 1e-12
    # The grid's own resolution: at the best grid the objective is flat, so a spacing of 0.045 costs little.
    assert found.value == pytest.approx(3 * brute, rel=1e-2)
    best = np.array([row[0] for row in found.plan.ar_grid])[:, None]
    assert found.value == pytest.approx(3 * float(white_kl(best, variance)[0]), rel=1e-5)


def test_brute_force_on_frames_that_depend_on_each_other() -> None:
    """M = 2 with references: both free levels on a fine mesh, one at a time, since IE and E_k add up."""
    video, plan = ar1(0.9), outpainting(2, References.last(1), reverse_steps=2, init_steps=2, horizon=5.0)
    found = optimal_schedule(video, plan, 1, iterations=40, starts=())
    with torch.no_grad():
        rows = [
            [
                float(objective_value(video, plan, 1, "kl", **{name: torch.tensor([[5.0] * 2, [x] * 2, [0.0] * 2],
                                                                                  dtype=torch.float64)}))
                for x in np.geomspace(0.02, 4.9, 60)
            ]
            for name in ("ar_grid", "init_grid")
        ]  # fmt: skip
    brute = min(rows[0]) + min(rows[1]) - found.start
    assert found.value <= brute + 1e-12
    assert found.value == pytest.approx(brute, rel=1e-2)


def test_ddim_on_a_scalar_gaussian_takes_equal_angles() -> None:
    """σ = √λ tan θ: every step multiplies the ratio of made to true deviation by cos Δθ."""
    variance, steps, first, last = 0.37, 8, 20.0, 0.001
    angles = [math.atan(sigma / math.sqrt(variance)) for sigma in (first, last)]
    shrink = math.cos((angles[0] - angles[1]) / steps) ** steps
    assert 0.5 * (shrink**-2 - 1) + math.log(shrink) == pytest.approx(0.024548148775896, abs=1e-14)
    # The sampler starts from N(0, I) where the truth has variance (λ + σ²)/(1 + σ²).
    ratio = shrink * math.sqrt((1 + first**2) / (variance + first**2))
    expected = 0.5 * (ratio**-2 - 1) + math.log(ratio)
    plan = Plan((math.log1p(first**2),), 1, math.log1p(first**2), steps, steps, floor=math.log1p(last**2))
    found = optimal_schedule(ArrayVideo(variance * np.eye(2), 1), plan, 1, step="ddim", starts=("tangent:1",))
    assert found.value == pytest.approx(2 * expected, abs=1e-9)  # two frames, made alike
    theta = [math.atan(math.sqrt(math.expm1(row[0]) / variance)) for row in found.plan.ar_grid]
    assert np.diff(theta) == pytest.approx((angles[1] - angles[0]) / steps, abs=1e-4)
    for other in ("karras:7", "geometric"):
        assert found.baselines[other] > 3 * found.value


@pytest.mark.parametrize("plan", [outpainting(2, References.last(3), 4, 3), fifo(3, References.last(2), 2, 4)])
def test_the_last_step_alone_is_the_ledger_s(plan: Plan) -> None:
    result = ledger(reference_video(), plan, 4, girsanov=False)
    expected = result.totals["ie"] + result.column("AR_STEP")[-1]
    found = objective_value(reference_video(), plan, 4, "last-step")
    assert float(found) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("objective", get_args(Objective))
@pytest.mark.parametrize(
    ("plan", "step"),
    [
        (outpainting(2, References.last(2, 0.1), reverse_steps=3, init_steps=2), "exponential"),
        (dataclasses.replace(fifo(3, reverse_steps=2, init_steps=4)), "exponential"),
        (Plan((1.0, 4.0), 1, 4.0, 3, 2, floor=0.01, initialisation="warmup"), "euler"),
    ],
)
def test_never_worse_than_a_hand_grid_and_always_a_plan(plan: Plan, step: str, objective: Objective) -> None:
    found = optimal_schedule(ar1(0.8), plan, 2, objective, step=step, iterations=4, starts=())
    assert set(found.baselines) == set(HAND_GRIDS)
    assert found.value <= min(found.start, *found.baselines.values())
    assert found.best_baseline in HAND_GRIDS
    at = float(objective_value(ar1(0.8), found.plan, 2, objective, step=step))
    assert found.value == pytest.approx(at, rel=1e-9)
    for grid, own in ((found.plan.ar_grid, plan.ar_grid), (found.plan.init_grid, plan.init_grid)):
        assert grid[0] == own[0]
        assert grid[-1] == own[-1]
        assert all(a >= b for high, low in itertools.pairwise(grid) for a, b in zip(high, low, strict=True))
    assert (found.floor is None) == plan.overlapping
    assert bool(found.why_no_floor) == plan.overlapping


@pytest.mark.parametrize("step", ["ddim", "heun", "ancestral", "renoise"])
def test_any_reverse_step_can_be_scheduled(step: str) -> None:
    plan = outpainting(2, References.last(1), reverse_steps=3, init_steps=3)
    plan = dataclasses.replace(plan, input_levels=(4.0, 4.0), horizon=4.0, floor=0.01, ar_grid=(), init_grid=(),
                               output_levels=())  # fmt: skip
    found = optimal_schedule(ar1(0.8), plan, 1, step=step, iterations=4, starts=())
    assert plan_floor(ar1(0.8), plan, 1) - 1e-12 <= found.value <= min(found.baselines.values())


@pytest.mark.parametrize("floor", [0.0, 0.01])
@pytest.mark.parametrize(
    "step", ["exponential", "euler", "ancestral", "ddpm", "ddim", "ddim:0.5", "renoise", "heun", "dpm++2m"]
)
def test_gradients_in_the_levels_are_differences_for_every_reverse_step(step: str, floor: float) -> None:
    """Also where the last level is 0, at which roots and logarithms of it have no slope."""
    plan = outpainting(1, References.last(1), reverse_steps=3, init_steps=2, horizon=3.0, floor=floor)
    plan = hand_grids(plan)["cosine"]
    levels = torch.tensor(plan.ar_grid, dtype=torch.float64)

    def value(inner: torch.Tensor) -> torch.Tensor:
        grid = torch.cat([levels[:1], inner, levels[-1:]])
        return objective_value(ar1(0.8), plan, 1, step=step, ar_grid=grid)

    assert torch.autograd.gradcheck(value, levels[1:-1].clone().requires_grad_(), eps=1e-6, atol=1e-5, rtol=1e-4)


def test_frames_on_levels_of_their_own_do_no_worse() -> None:
    plan = outpainting(2, References.last(2), reverse_steps=3, init_steps=3)
    both = optimal_schedule(reference_video(), plan, 1, iterations=16, starts=())
    apart = optimal_schedule(reference_video(), plan, 1, iterations=16, starts=(), shared=False)
    assert all(row[0] == row[1] for row in both.plan.ar_grid)
    assert any(row[0] != row[1] for row in apart.plan.ar_grid)
    assert apart.value < both.value


def test_hand_grids_are_those_of_their_names() -> None:
    plan = fifo(3, reverse_steps=4, init_steps=5)
    grids = hand_grids(plan)
    for name, own in grids.items():
        spaced = dataclasses.replace(plan, spacing=name, ar_grid=(), init_grid=()) if name != "geometric" else None
        if spaced is not None:
            assert own.ar_grid == spaced.ar_grid
            assert own.init_grid == spaced.init_grid
    column = [row[0] for row in grids["geometric"].ar_grid]
    assert column[-2:] == [0.001, 0.0]
    assert np.diff(np.log(column[:-1])) == pytest.approx(np.log(0.001 / 2) / 3)


def test_what_cannot_be_scheduled_is_refused() -> None:
    plan = outpainting(1, reverse_steps=2, init_steps=2)
    with pytest.raises(ValueError, match="at least one iteration"):
        optimal_schedule(ar1(0.5), plan, 1, iterations=0)
    with pytest.raises(ValueError, match="a start is one of"):
        optimal_schedule(ar1(0.5), plan, 1, starts=("log",))
    with pytest.raises(ValueError, match="an objective is one of"):
        optimal_schedule(ar1(0.5), plan, 1, "see")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="infinite for the ddim step"):
        optimal_schedule(ar1(0.5), plan, 1, "path", step="ddim", iterations=2)
    with pytest.raises(PlanError, match="at least one reverse step"):
        outpainting(1, reverse_steps=0)
