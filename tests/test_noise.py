"""The OU clock and the schedules read in it, against products, compositions and 50-digit arithmetic."""

import math
from collections.abc import Callable

import mpmath  # type: ignore[import-untyped]
import numpy as np
import pytest
import torch

from arvdm_theory.noise import (
    NoiseSchedule,
    alpha,
    clock_from_flow,
    clock_from_sigma,
    clock_from_snr,
    joint_noise,
    noised,
    sigma2,
    snr_from_clock,
    standard_normal,
    time_grid,
    transition,
)

EPS = 2.3e-16
LEVELS = [0.0, 1e-14, 1e-8, 1e-3, 0.3, 1.0, 6.0, 30.0]


def _tensor(values: object) -> torch.Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def test_signal_and_noise_keep_the_variance_and_the_digits_of_small_levels() -> None:
    levels = _tensor(LEVELS)
    torch.testing.assert_close(alpha(levels) ** 2 + sigma2(levels), torch.ones(8, dtype=torch.float64))
    with mpmath.workdps(50):
        for t, a, v in zip(LEVELS, alpha(levels).tolist(), sigma2(levels).tolist(), strict=True):
            assert a == pytest.approx(float(mpmath.exp(-mpmath.mpf(t) / 2)), rel=4 * EPS)
            assert v == pytest.approx(float(-mpmath.expm1(-mpmath.mpf(t))), rel=4 * EPS, abs=0)


def test_transitions_compose_and_start_from_clean() -> None:
    r, s, t = _tensor([0.0, 0.2, 1e-9]), _tensor([0.1, 0.2, 2e-9]), _tensor([3.0, 0.9, 5e-9])
    a_rs, v_rs = transition(s, r)
    a_st, v_st = transition(t, s)
    a_rt, v_rt = transition(t, r)
    # N(a_st · a_rs x, a_st² v_rs + v_st): the semigroup.
    torch.testing.assert_close(a_rt, a_st * a_rs, rtol=8 * EPS, atol=0)
    torch.testing.assert_close(v_rt, a_st**2 * v_rs + v_st, rtol=8 * EPS, atol=0)
    # And the paper's form σ²(t) - (α(t)/α(s))² σ²(s).
    torch.testing.assert_close(a_st, alpha(t) / alpha(s), rtol=8 * EPS, atol=0)
    torch.testing.assert_close(v_st, sigma2(t) - a_st**2 * sigma2(s), rtol=8 * EPS, atol=4 * EPS)
    a, v = transition(t, torch.zeros_like(t))
    assert torch.equal(a, alpha(t))
    assert torch.equal(v, sigma2(t))


def test_a_transition_never_takes_noise_away() -> None:
    with pytest.raises(ValueError, match=r"never lowers a level, but one falls by 0\.5"):
        transition(_tensor([1.0, 0.5]), _tensor([0.5, 1.0]))
    with pytest.raises(ValueError, match="never lowers a level"):
        transition(_tensor(math.nan), _tensor(0.0))


def test_joint_noise_is_what_two_transitions_from_one_state_share() -> None:
    shared, a, b = 0.4, 1.1, 2.5
    levels = _tensor([a, b])
    ancestor = _tensor([[a, shared], [shared, b]])
    noise = joint_noise(levels, ancestor)
    ratio_a, own_a = transition(levels[0], _tensor(shared))
    ratio_b, own_b = transition(levels[1], _tensor(shared))
    common = float(sigma2(_tensor(shared)))
    expected = [
        [ratio_a**2 * common + own_a, ratio_a * ratio_b * common],
        [ratio_a * ratio_b * common, ratio_b**2 * common + own_b],
    ]
    np.testing.assert_allclose(noise, expected, rtol=8 * EPS)
    # On one path the later state is the earlier one, scaled, and fresh noise: (α(t)/α(s)) σ²(s).
    one_path = joint_noise(levels, torch.minimum(levels[:, None], levels))
    assert float(one_path[0, 1]) == pytest.approx(math.exp(-(b - a) / 2) * (1 - math.exp(-a)), rel=8 * EPS)
    assert torch.equal(one_path.diagonal(), sigma2(levels))
    assert float(joint_noise(levels, torch.zeros(2, 2, dtype=torch.float64)).abs().max()) == 0.0


def test_joint_noise_at_tiny_and_huge_levels() -> None:
    with mpmath.workdps(50):
        for t, u in [(1e-12, 3e-12), (1e-12, 1.0), (700.0, 800.0), (2000.0, 2000.0)]:
            levels = _tensor([t, u])
            value = float(joint_noise(levels, torch.minimum(levels[:, None], levels))[0, 1])
            exact = mpmath.exp(-(mpmath.mpf(t) + u) / 2) * mpmath.expm1(mpmath.mpf(t))
            assert value == pytest.approx(float(exact), rel=8 * EPS * max(1.0, u / 2), abs=0)


def test_snr_is_signal_over_noise_and_inverts() -> None:
    levels = np.array(LEVELS[1:])
    snr = snr_from_clock(levels)
    tensor = _tensor(levels)
    np.testing.assert_allclose(snr, alpha(tensor) ** 2 / sigma2(tensor), rtol=8 * EPS)
    # d log t / d log snr is at most 1 and, for large t, 1/t: the way back adds no error.
    np.testing.assert_allclose(clock_from_snr(snr), levels, rtol=8 * EPS)
    with mpmath.workdps(50):
        for t, value in zip(levels.tolist(), snr.tolist(), strict=True):
            assert value == pytest.approx(float(1 / mpmath.expm1(mpmath.mpf(t))), rel=max(t, 1.0) * 4 * EPS)
    assert float(snr_from_clock(800.0)) == 0.0  # below the smallest float, without a warning


def test_sigma_and_flow_clocks_have_the_state_s_snr() -> None:
    sigma = np.array([1e-9, 0.002, 0.5, 1.0, 80.0])
    np.testing.assert_allclose(snr_from_clock(clock_from_sigma(sigma)), sigma**-2.0, rtol=1e-15 * 10)
    flow = np.array([1e-9, 0.1, 0.5, 0.99])
    np.testing.assert_allclose(snr_from_clock(clock_from_flow(flow)), ((1 - flow) / flow) ** 2, rtol=1e-15 * 10)
    assert float(clock_from_sigma(0.0)) == float(clock_from_flow(0.0)) == 0.0
    # α (X + σ ε) is the OU state, so α σ is its noise scale.
    level = _tensor(clock_from_sigma(sigma))
    torch.testing.assert_close(alpha(level) * _tensor(sigma), sigma2(level).sqrt(), rtol=8 * EPS, atol=0)


@pytest.mark.parametrize(
    ("schedule", "end"),
    [
        (NoiseSchedule.linear(), 1.0),
        (NoiseSchedule.linear(2.0, 2.0), 1.0),
        (NoiseSchedule.linear(0.0, 12.0), 1.0),
        (NoiseSchedule.cosine(), 0.999),
        (NoiseSchedule.cosine(0.2), 0.999),
    ],
)
def test_clock_and_native_time_are_inverse(schedule: NoiseSchedule, end: float) -> None:
    native = np.concatenate([[0.0, 1e-12, 1e-6], np.linspace(1e-3, end, 50)])
    levels = schedule.clock(native)
    assert levels[0] == 0.0
    assert np.all(np.diff(levels) > 0)
    np.testing.assert_allclose(schedule.native(levels), native, rtol=32 * EPS)
    # Back again, the error of the native time is magnified by the schedule's rate dt/ds, large near cosine's end.
    if schedule.kind == "linear":
        start, end = schedule.parameters
        rate = start + (end - start) * native
    else:
        (offset,) = schedule.parameters
        quarter = math.pi / 2 / (1 + offset)
        rate = 2 * quarter * np.tan(quarter * (native + offset))
    error = np.abs(schedule.clock(schedule.native(levels)) - levels)
    assert np.all(error <= 32 * EPS * (native * rate + levels))


def test_schedules_are_their_published_signal_variances() -> None:
    linear, cosine = NoiseSchedule.linear(0.1, 20.0), NoiseSchedule.cosine()
    with mpmath.workdps(50):
        for s in (1e-12, 1e-7, 1e-3, 0.3, 0.49, 0.51, 0.9, 1 - 2**-40, 1 - 2**-53):
            x = mpmath.mpf(s)
            exact = mpmath.mpf(0.1) * x + (20 - mpmath.mpf(0.1)) * x**2 / 2
            assert float(linear.clock(s)) == pytest.approx(float(exact), rel=8 * EPS)

            def f(u: mpmath.mpf) -> mpmath.mpf:
                offset = mpmath.mpf(0.008)
                return mpmath.cos(mpmath.pi / 2 * (u + offset) / (1 + offset)) ** 2

            assert float(cosine.clock(s)) == pytest.approx(float(-mpmath.log(f(x) / f(0))), rel=32 * EPS)


def test_native_times_outside_the_schedule_are_refused() -> None:
    linear, cosine = NoiseSchedule.linear(), NoiseSchedule.cosine()
    for end in (float(linear.clock(1.0)), 10.05 * (1 + 4 * EPS)):  # the end, and the end rounded upwards
        assert 1 - 4 * EPS <= float(linear.native(end)) <= 1.0
    for bad in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=r"native time must lie in \[0, 1\], got"):
            linear.clock(bad)
    with pytest.raises(ValueError, match=r"native time must lie in \[0, 1\), got 1.0"):
        cosine.clock(1.0)
    for level in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="OU level must be finite and not negative"):
            cosine.native(level)
    with pytest.raises(ValueError, match=r"level 10\.1 lies beyond the schedule's end, 10\.0"):
        linear.native(10.1)


def test_malformed_schedules_are_refused() -> None:
    for start, end in [(2.0, 1.0), (-0.1, 1.0), (0.0, 0.0), (0.1, math.inf), (0.1, math.nan)]:
        with pytest.raises(ValueError, match="β must be finite, not negative, not fall and not vanish"):
            NoiseSchedule.linear(start, end)
    for offset in (0.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="offset must be positive and finite"):
            NoiseSchedule.cosine(offset)


def test_discrete_schedule_is_the_product_of_its_signal_factors() -> None:
    betas = np.linspace(1e-4, 0.02, 1000)
    schedule = NoiseSchedule.ddpm()
    steps = [0, 1, 2, 500, 1000]
    with mpmath.workdps(50):
        for step, level in zip(steps, schedule.clock(steps).tolist(), strict=True):
            product = mpmath.mpf(1)
            for beta in betas[:step]:
                product *= 1 - mpmath.mpf(float(beta))
            # A running sum of up to 1000 positive terms.
            assert level == pytest.approx(float(-mpmath.log(product)), rel=1000 * EPS, abs=0)
    assert float(schedule.clock(1)) == pytest.approx(1e-4, rel=1e-4)
    assert schedule == NoiseSchedule.from_betas(betas) == NoiseSchedule.from_betas(_tensor(betas))


@pytest.mark.parametrize("interpolation", ["sigma", "log_sigma"])
def test_between_the_entries_of_a_table_sigma_is_linear_or_geometric(interpolation: str) -> None:
    schedule = NoiseSchedule.from_sigmas([0.5, 2.0, 8.0], interpolation=interpolation)  # type: ignore[arg-type]
    native = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 2.75, 3.0])
    middle, late = (1.25, 6.5) if interpolation == "sigma" else (1.0, 2.0 * 4.0**0.75)
    expected = np.array([0.0, 0.25, 0.5, middle, 2.0, late, 8.0])
    np.testing.assert_allclose(schedule.clock(native), clock_from_sigma(expected), rtol=8 * EPS)
    np.testing.assert_allclose(schedule.native(schedule.clock(native)), native, rtol=32 * EPS)
    assert schedule.native(schedule.clock(3.0)) == 3.0
    with pytest.raises(ValueError, match=r"level 5\.0 lies beyond the schedule's end, 4\.17"):
        schedule.native(5.0)


def test_a_table_that_ends_without_signal_has_no_last_level() -> None:
    """As after rescaling to zero terminal signal-to-noise: whatever is noisier stands for its last entry."""
    schedule = NoiseSchedule.from_betas([0.5, 0.5, 1.0], first=-1)
    assert schedule.last_level == math.inf
    assert schedule.last == 2.0
    np.testing.assert_allclose(schedule.clock([-1, 0, 1]), [0.0, math.log(2), math.log(4)], rtol=4 * EPS)
    np.testing.assert_array_equal(schedule.native([math.log(4), 1.4, 50.0]), [1.0, 2.0, 2.0])
    with pytest.raises(ValueError, match=r"native time must lie in \[-1, 1\], got 2"):
        schedule.clock(2)


@pytest.mark.parametrize(
    "schedule",
    [
        NoiseSchedule.flow(),
        NoiseSchedule.flow(5.0, scale=1000),
        NoiseSchedule.sigma(),
        NoiseSchedule.edm(),
        NoiseSchedule.cosine(scale=1000),
        NoiseSchedule.ddpm(50),
    ],
)
def test_every_clock_takes_tensors_and_comes_back(schedule: NoiseSchedule) -> None:
    levels = _tensor([1e-3, 0.1, 0.4])
    native = schedule.native(levels)
    assert isinstance(native, torch.Tensor)
    torch.testing.assert_close(schedule.clock(native), levels, rtol=1e-12, atol=0)
    np.testing.assert_array_equal(schedule.native(levels.numpy()), native.numpy())


def test_flow_and_edm_clocks_are_their_definitions() -> None:
    u = np.array([0.1, 0.5, 0.9])
    shifted = 3 * u / (1 + 2 * u)
    np.testing.assert_allclose(
        NoiseSchedule.flow(3.0, scale=1000).clock(1000 * u), clock_from_flow(shifted), rtol=1e-14
    )
    sigma = np.array([0.002, 1.0, 80.0])
    np.testing.assert_allclose(NoiseSchedule.edm().clock(np.log(sigma) / 4), clock_from_sigma(sigma), rtol=1e-13)
    np.testing.assert_allclose(NoiseSchedule.edm().native(clock_from_sigma(sigma)), np.log(sigma) / 4, rtol=1e-12)


def test_malformed_discrete_schedules_are_refused() -> None:
    for betas in ((), (0.1, 0.0), (1.0,), (1.0, 0.1), (math.nan,)):
        with pytest.raises(ValueError, match="at least one β, each strictly between 0 and 1"):
            NoiseSchedule.from_betas(betas)
    for timestep in (-1, 3):
        with pytest.raises(ValueError, match=r"native time must lie in \[0, 2\], got"):
            NoiseSchedule.from_betas((0.1, 0.2)).clock(timestep)
    for sigmas in ((), (0.0, 1.0), (2.0, 1.0)):
        with pytest.raises(ValueError, match="needs positive σ that rise"):
            NoiseSchedule.from_sigmas(sigmas)
    for shift in (0.0, math.inf):
        with pytest.raises(ValueError, match="flow's shift must be positive and finite"):
            NoiseSchedule.flow(shift)
    with pytest.raises(ValueError, match="native time unit must be positive"):
        NoiseSchedule.cosine(scale=0)


@pytest.mark.parametrize("spacing", ["uniform", "geometric"])
@pytest.mark.parametrize(("start", "end", "steps"), [(6.0, 0.1, 7), (0.3, 0.1, 1), (1.0, 1.0, 3), (7.1, 1e-9, 50)])
def test_time_grid_has_exact_ends_and_equal_steps(start: float, end: float, steps: int, spacing: str) -> None:
    grid = time_grid(start, end, steps, spacing)
    assert (grid[0], grid[-1], len(grid)) == (start, end, steps + 1)
    values = np.array(grid)
    assert np.all(np.diff(values) <= 0)
    if spacing == "uniform":
        np.testing.assert_allclose(np.diff(values), (end - start) / steps, rtol=1e-12, atol=8 * EPS * start)
    else:
        np.testing.assert_allclose(values[1:] / values[:-1], (end / start) ** (1 / steps), rtol=1e-13)


def test_malformed_grids_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one reverse step, got 0"):
        time_grid(1.0, 0.0, 0)
    for start, end in [(0.0, 1.0), (1.0, -0.1), (math.inf, 0.0), (math.nan, 0.0), (1.0, math.nan)]:
        with pytest.raises(ValueError, match="must be finite and fall to a level ≥ 0"):
            time_grid(start, end, 2)
    with pytest.raises(ValueError, match="stop early"):
        time_grid(1.0, 0.0, 2, "geometric")


def test_values_without_a_level_are_refused() -> None:
    for value in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="signal-to-noise ratio must be positive"):
            clock_from_snr(value)
        with pytest.raises(ValueError, match="only a positive level has a finite signal-to-noise ratio"):
            snr_from_clock(value)
    for value in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="noise scale must be finite and not negative"):
            clock_from_sigma(value)
    for value in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match=r"flow-matching time must lie in \[0, 1\)"):
            clock_from_flow([0.5, value])


# -- noising frames -------------------------------------------------------------------------------------


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_frames_are_noised_by_the_transition_of_each_ones_levels() -> None:
    """X^t = e^{-(t-s)/2} X^s + √(1 - e^{-(t-s)}) ε, a frame at a time in plain floats."""
    frames, noise = (standard_normal((3, 4, 2), seeded(seed)) for seed in (0, 1))
    levels, earlier = [0.3, 0.0, 2.0, 40.0], [0.1, 0.0, 2.0, 0.0]
    for before in (earlier, None):
        start = None if before is None else torch.tensor(before, dtype=torch.float64)
        found = noised(frames, torch.tensor(levels, dtype=torch.float64), start, noise)
        for j, (t, s) in enumerate(zip(levels, before or [0.0] * 4, strict=True)):
            kept, added = math.exp(-(t - s) / 2), math.sqrt(-math.expm1(-(t - s)))
            np.testing.assert_allclose(found[:, j], kept * frames[:, j] + added * noise[:, j], rtol=1e-14)
    # Levels may differ from video to video.
    each = torch.rand(3, 4, dtype=torch.float64, generator=seeded(2))
    for i in range(3):
        assert torch.equal(noised(frames, each, noise=noise)[i], noised(frames[i], each[i], noise=noise[i]))


def test_noise_comes_from_the_generator_and_only_where_something_is_noised() -> None:
    frames, levels = standard_normal((5, 3, 2), seeded()), torch.tensor([0.5, 0.2, 0.0], dtype=torch.float64)
    drawn = noised(frames, levels, noise=seeded(3))
    assert torch.equal(drawn, noised(frames, levels, noise=standard_normal((5, 3, 2), seeded(3))))
    assert torch.equal(drawn[:, 2], frames[:, 2])
    source, untouched = seeded(4), seeded(4)
    assert noised(frames, levels, levels, source) is frames
    assert noised(frames[:, :0], levels[:0], noise=source).shape == (5, 0, 2)
    assert torch.equal(source.get_state(), untouched.get_state())


def test_two_noisings_in_a_row_are_one() -> None:
    """Law of X^t by way of s: mean α(t) x and variance σ²(t), within 6 standard errors."""
    n, x = 40_000, 1.7
    clean = torch.full((n, 1, 1), x, dtype=torch.float64)
    s, t = (torch.tensor([level], dtype=torch.float64) for level in (0.4, 1.1))
    found = noised(noised(clean, s, noise=seeded(5)), t, s, seeded(6)).flatten()
    mean, variance = math.exp(-0.55) * x, -math.expm1(-1.1)
    assert abs(float(found.mean()) - mean) < 6 * math.sqrt(variance / n)
    assert abs(float(((found - mean) ** 2).mean()) - variance) < 6 * variance * math.sqrt(2 / n)


def test_noised_frames_keep_their_precision_and_the_levels_gradient() -> None:
    levels = torch.tensor([0.3, 0.7], dtype=torch.float64, requires_grad=True)
    frames, noise = (standard_normal((2, 2, 3), seeded(seed)) for seed in (7, 8))
    assert torch.autograd.gradcheck(lambda at: noised(frames, at, noise=noise), (levels,))
    assert noised(frames.float(), levels.detach(), noise=seeded()).dtype == torch.float32
    with pytest.raises(ValueError, match=r"never lowers a level, but one falls by 0\.1"):
        noised(frames, levels.detach(), torch.tensor([0.4, 0.1], dtype=torch.float64), noise)


# Spacings with a coordinate of their own: its formula here, from the papers, in σ = √(e^t - 1).
COORDINATES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "karras": lambda s: s ** (1 / 7),
    "karras:3": lambda s: s ** (1 / 3),
    "tangent": np.arctan,
    "tangent:0.3": lambda s: np.arctan(s / 0.3),
    "flow": lambda s: s / (1 + s),
    "flow:8": lambda s: s / (8 + s),  # shifted time t' = 8 u/(1 + 7u) has σ = t'/(1 - t') = 8 u/(1 - u)
    "cosine": lambda s: np.arccos(math.cos(math.pi / 2 * 0.008 / 1.008) / np.sqrt(1 + s**2)),
}


@pytest.mark.parametrize("spacing", COORDINATES)
@pytest.mark.parametrize(
    ("start", "end", "steps"), [(6.0, 0.001, 7), (6.0, 0.0, 20), (0.3, 0.1, 1), (1.0, 1.0, 3)]
)
def test_spacings_are_even_in_their_coordinate(start: float, end: float, steps: int, spacing: str) -> None:
    grid = time_grid(start, end, steps, spacing)
    assert (grid[0], grid[-1], len(grid)) == (start, end, steps + 1)
    assert np.all(np.diff(grid) <= 0)
    steps_taken = np.diff(COORDINATES[spacing](np.sqrt(np.expm1(np.array(grid)))))
    np.testing.assert_allclose(steps_taken, steps_taken.mean(), rtol=1e-9, atol=1e-14)


def test_equal_angles_are_best_for_a_gaussian_under_ddim() -> None:
    """λ = 0.37, σ from 20 to 0.001, 8 steps: every step multiplies the deviation's ratio by cos Δθ."""

    def divergence(spacing: str) -> float:
        grid = np.array(time_grid(math.log1p(20.0**2), math.log1p(1e-6), 8, spacing))
        ratio = np.cos(np.diff(np.arctan(np.sqrt(np.expm1(grid) / 0.37)))).prod()
        return float(math.log(ratio) + 0.5 / ratio**2 - 0.5)

    assert divergence(f"tangent:{math.sqrt(0.37)!r}") == pytest.approx(0.024548148775896, abs=1e-12)
    assert divergence("karras:7") == pytest.approx(0.0916, abs=5e-5)
    assert min(divergence(name) for name in ("uniform", "geometric", "karras:3", "flow:3", "cosine")) > 0.0246


def test_malformed_spacings_are_refused() -> None:
    for spacing in ("quadratic", "uniform:2", "geometric:1", ""):
        with pytest.raises(ValueError, match=f"as in 'karras:7'; got '{spacing}'"):
            time_grid(1.0, 0.1, 2, spacing)
    for number in ("0", "-1", "inf", "nan", "seven"):
        with pytest.raises(ValueError, match=f"must be positive and finite, got 'karras:{number}'"):
            time_grid(1.0, 0.1, 2, f"karras:{number}")
