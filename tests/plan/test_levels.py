"""Native schedules read in the OU clock, and the geometry of pipelines."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings

from arvdm_theory import PlanError
from arvdm_theory.noise import NoiseSchedule, snr_from_clock
from arvdm_theory.plan.levels import (
    HORIZON,
    chunk_causal_mask,
    flow_levels,
    pipeline,
    scaled_linear_schedule,
    shifted_flow_time,
    sigmoid_schedule,
    staggered,
    together,
)


def test_flow_levels_keep_the_signal_to_noise_ratio() -> None:
    times = np.array([0.01, 0.25, 0.5, 0.9, 0.99])
    snr = snr_from_clock(np.array(flow_levels(times.tolist())))
    np.testing.assert_allclose(snr, ((1 - times) / times) ** 2, rtol=1e-12)


def test_pure_noise_stands_at_the_horizon() -> None:
    assert flow_levels((1.0, 0.0)) == (HORIZON, 0.0)
    assert flow_levels((1.0,), horizon=7.0) == (7.0,)
    # What the docstring of HORIZON says of it.
    assert float(snr_from_clock(HORIZON)) == pytest.approx(4.5e-5, rel=0.01)
    assert float(NoiseSchedule.ddpm().clock(1000)) == pytest.approx(10.12, abs=0.005)


def test_a_level_above_the_horizon_is_refused() -> None:
    with pytest.raises(
        PlanError, match=r"0-T boundary: flow-matching time 0.9999 stands at level 18.42, above T = 10"
    ):
        flow_levels((1.0, 0.9999, 0.0))


def test_the_shift_multiplies_noise_over_signal() -> None:
    times = np.array([0.0, 0.1, 0.5, 0.9])
    shifted = np.array(shifted_flow_time(times, 5.0))
    np.testing.assert_allclose(shifted / (1 - shifted), 5 * times / (1 - times), rtol=1e-14)
    assert shifted_flow_time((1.0,), 5.0) == (1.0,)


def test_the_scaled_linear_schedule_against_exact_products() -> None:
    schedule = scaled_linear_schedule(0.00085, 0.012, steps=10)
    with mpmath.workdps(50):
        kept, expected = mpmath.mpf(1), [mpmath.mpf(0)]
        for n in range(10):
            start, end = mpmath.sqrt(mpmath.mpf("0.00085")), mpmath.sqrt(mpmath.mpf("0.012"))
            kept *= 1 - (start + (end - start) * n / 9) ** 2
            expected.append(-mpmath.log(kept))
        np.testing.assert_allclose(schedule.clock(list(range(11))), [float(t) for t in expected], rtol=1e-13)


def test_the_sigmoid_schedule_against_its_closed_form() -> None:
    timesteps = [1, 10, 300, 990, 999]
    with mpmath.workdps(50):

        def sigmoid(x: mpmath.mpf) -> mpmath.mpf:
            return 1 / (1 + mpmath.exp(-x))

        kept = [
            (sigmoid(3) - sigmoid(-3 + mpmath.mpf(6) * n / 1000)) / (sigmoid(3) - sigmoid(-3)) for n in timesteps
        ]
        expected = [float(-mpmath.log(k)) for k in kept]
    # Differences of sigmoids are rounded by 1e-16; the smallest that matter, the first β and the signal left at
    # 999, are 3e-4, and 1000 logarithms of such ratios are summed: 1e-16 / 3e-4 · √1000 ≈ 1e-11.
    np.testing.assert_allclose(sigmoid_schedule().clock(timesteps), expected, rtol=1e-11)
    # The last step would leave no signal; its β of 0.999 adds log 1000 instead.
    last = sigmoid_schedule().clock([999, 1000])
    assert last[1] - last[0] == pytest.approx(math.log(1000), rel=1e-12)


def test_chunk_causal_mask() -> None:
    mask = chunk_causal_mask(6, 2)
    assert [sum(row) for row in mask] == [2, 2, 4, 4, 6, 6]
    assert all(mask[i][j] == (j // 2 <= i // 2) for i in range(6) for j in range(6))


def test_frames_together() -> None:
    plan = together((5.0, 1.0, 0.5), frames=3)
    assert (plan.window, plan.stride, plan.reverse_steps, plan.horizon, plan.floor) == (3, 3, 2, 5.0, 0.5)
    assert plan.ar_grid == plan.init_grid == ((5.0,) * 3, (1.0,) * 3, (0.5,) * 3)


def test_staggered_frames_wait_and_then_take_the_same_steps() -> None:
    plan = staggered((4.0, 2.0, 0.0), delays=(0, 1, 3))
    assert list(zip(*plan.ar_grid, strict=True)) == [
        (4.0, 2.0, 0.0, 0.0, 0.0, 0.0),
        (4.0, 4.0, 2.0, 0.0, 0.0, 0.0),
        (4.0, 4.0, 4.0, 4.0, 2.0, 0.0),
    ]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 3))
def test_a_pipeline_is_what_starting_chunks_one_by_one_makes(steps: int, gap: int, chunk: int) -> None:
    """Event by event: a chunk starts once the one before has made ``gap`` steps, and all that started move.

    The first row of AR step k is the state after S - gap + (k - 1) gap iterations, before which the ramp ran.
    """
    gap = min(gap, steps)
    levels = [float(steps - s) ** 2 for s in range(steps + 1)]
    plan = pipeline(levels, gap=gap, chunk=chunk)

    history, made = [], [0] * 40  # made[b]: steps that chunk b has behind it
    for _ in range(steps + 6 * gap + 1):
        history.append(list(made))
        moving = [b for b in range(40) if made[b] < steps and (b == 0 or made[b - 1] >= gap)]
        for b in moving:
            made[b] += 1

    chunks = plan.window // chunk
    assert chunks == math.ceil(steps / gap)
    for k in range(1, 6):
        # With w = Δ the first chunk is made by the initialisation, and AR step k makes chunk k.
        first = (k - 1) if plan.overlapping else k
        begin = (steps - gap) + (k - 1) * gap if plan.overlapping else k * steps
        for m in range(gap + 1):
            state = history[begin + m][first : first + chunks]
            assert plan.ar_grid[m] == tuple(levels[s] for s in state for _ in range(chunk))
    if plan.overlapping:
        assert plan.initialisation == "warmup"
        for m, row in enumerate(plan.init_grid):
            assert row == tuple(levels[s] for s in history[m][: chunks - 1] for _ in range(chunk))


@pytest.mark.parametrize("gap", [0, 5, -1])
def test_a_gap_out_of_range_is_refused(gap: int) -> None:
    with pytest.raises(PlanError, match=rf"steps: the gap between chunks must lie in 1..S = 4, got {gap}"):
        pipeline((4.0, 3.0, 2.0, 1.0, 0.0), gap=gap)
