"""The catalogue: every method, its published numbers, and its verdict."""

from __future__ import annotations

import inspect
import itertools
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from arvdm_theory import METHODS, Plan, PlanError, References, fifo, method, outpainting
from arvdm_theory.diffusion.steps import reverse_step
from arvdm_theory.plan import Method
from arvdm_theory.plan.methods import REQUIREMENTS
from arvdm_theory.plan.published import fifo_diffusion

# arXiv numbers (or the name, where there is no paper) of the methods that the catalogue must hold.
EXPECTED = {
    "2205.09853": 1, "2403.14773": 1, "2405.11473": 1, "2402.09470": 1, "2410.08151": 1, "2407.01392": 1,
    "2503.07418": 1, "2504.13074": 1, "2412.07772": 1, "2506.08009": 1, "2509.22622": 1, "2602.07775": 1,
    "2509.25161": 1, "2505.13211": 1, "2410.05954": 1, "2504.12626": 2, "2408.14837": 1, "2405.12399": 1,
    "2503.10704": 1, "oasis": 1, "2603.08703": 1, "2512.05081": 1, "2606.10671": 1, "2502.06764": 1,
    "cosmos-predict2": 1, "longcat-video": 1,
}  # fmt: skip

BUILT = [entry for entry in METHODS if entry.verdict != "outside"]
OUTSIDE = [entry for entry in METHODS if entry.verdict == "outside"]


def by_key(entry: Method) -> str:
    return entry.key


def signal(level: float) -> float:
    """ᾱ = e^{-t}, the signal's share of the variance at an OU level."""
    return math.exp(-level)


def flow_time(level: float) -> float:
    """The flow-matching time of an OU level, by its signal-to-noise ratio ((1-t)/t)²."""
    return 1 / (1 + math.sqrt(1 / math.expm1(level)))


def column(plan: Plan, frame: int = 0) -> list[float]:
    """The levels of one window frame through an AR step."""
    return [row[frame] for row in plan.ar_grid]


def test_every_method_is_there_once() -> None:
    found: dict[str, int] = {}
    for entry in METHODS:
        name = entry.arxiv or entry.key
        found[name] = found.get(name, 0) + 1
    assert found == EXPECTED
    assert len({entry.key for entry in METHODS}) == len(METHODS)


@pytest.mark.parametrize("entry", METHODS, ids=by_key)
def test_every_entry_says_who_what_and_how_well(entry: Method) -> None:
    assert re.fullmatch(r"[a-z0-9-]+", entry.key)
    assert entry.title
    assert re.search(r" 20\d\d$", entry.citation)
    assert entry.arxiv is None or re.fullmatch(r"\d{4}\.\d{5}", entry.arxiv)
    assert entry.verdict in ("exact", "approximate", "outside")
    assert len(entry.note) > 10
    assert entry.source == (f"checked: {entry.checked}" if entry.checked else "not checked")
    assert inspect.Parameter.empty not in entry.parameters.values()


def test_what_was_not_read_is_marked() -> None:
    assert [entry.key for entry in METHODS if entry.source == "not checked"] == ["rolling-diffusion"]


@pytest.mark.parametrize("entry", BUILT, ids=by_key)
def test_every_method_inside_meets_the_requirements(entry: Method) -> None:
    plan = entry.build()
    t_in, t_out = plan.input_levels, plan.output_levels
    w, stride = plan.window, plan.stride
    # Monotonicity.
    assert list(t_in) == sorted(t_in)
    assert list(t_out) == sorted(t_out)
    assert all(o <= i for o, i in zip(t_out, t_in, strict=True))
    # Circularity and the 0-T boundary.
    assert t_out[stride:] == t_in[: w - stride]
    assert t_out[:stride] == (plan.floor,) * stride
    assert t_in[w - stride :] == (plan.horizon,) * stride
    for grid in (plan.ar_grid, plan.init_grid):
        assert all(a >= b for path in zip(*grid, strict=True) for a, b in itertools.pairwise(path))
    assert entry.broken() is None
    assert plan.name == entry.key


@pytest.mark.parametrize("entry", OUTSIDE, ids=by_key)
def test_a_method_outside_says_what_it_breaks(entry: Method) -> None:
    with pytest.raises(PlanError) as caught:
        entry.build()
    broken = entry.broken()
    assert broken is not None
    name, message = broken
    assert name in (*REQUIREMENTS, "order", "references")
    assert str(caught.value) == f"{name}: {message}"


def test_pyramidal_flow_breaks_monotonicity_where_the_resolution_rises() -> None:
    """The first stage ends at flow time 2/3, the second starts at 1 - (1/3)/(2·2/3 + 1/3) = 0.8."""
    broken = method("pyramidal-flow").broken()
    assert broken is not None
    assert broken[0] == "monotonicity"
    numbers = re.fullmatch(r"the AR grid raises window frame 1 from (.*) to (.*) in reverse step 29", broken[1])
    assert numbers is not None
    assert flow_time(float(numbers[1])) == pytest.approx(2 / 3, rel=1e-12)
    assert flow_time(float(numbers[2])) == pytest.approx(0.8, rel=1e-12)


def test_framepack_breaks_the_order_of_frames() -> None:
    broken = method("framepack").broken()
    assert broken is not None
    assert broken[0] == "order"


# (w, Δ, M, references once many frames are out) as published.
NUMBERS = {
    "outpainting": (2, 2, 20, 0),
    "mcvd": (5, 5, 100, 10),
    "streaming-t2v": (8, 8, 50, 9),
    "fifo-diffusion": (64, 1, 1, 8),
    "pa-vdm": (30, 5, 5, 5),
    "diffusion-forcing": (4, 4, 103, 32),
    "ar-diffusion": (10, 1, 5, 6),
    "skyreels-v2": (20, 20, 45, 5),
    "causvid": (3, 3, 3, None),
    "self-forcing": (3, 3, 4, None),
    "longlive": (3, 3, 4, 9),
    "hiar": (3, 3, 4, None),
    "deep-forcing": (3, 3, 4, 18),
    "history-guidance": (8, 8, 50, 8),
    "cosmos-predict2": (22, 22, 35, 2),
    "longcat-video": (20, 20, 50, 4),
    "rolling-sink": (3, 3, 4, 21),
    "rolling-forcing": (15, 3, 1, 6),
    "magi-1": (24, 6, 8, 6),
    "framepack-f1": (9, 9, 25, 20),
    "gamengen": (1, 1, 4, 64),
    "diamond": (1, 1, 3, 4),
    "oasis": (1, 1, 99, 31),
}


@pytest.mark.parametrize("key", NUMBERS)
def test_the_published_sizes(key: str) -> None:
    plan = method(key).build()
    window, stride, steps, references = NUMBERS[key]
    assert (plan.window, plan.stride, plan.reverse_steps) == (window, stride, steps)
    late = 200
    assert len(plan.references_at(late)) == (plan.frames_out(late) if references is None else references)


def test_the_numbers_of_every_checked_method_are_tested() -> None:
    assert set(NUMBERS) == {entry.key for entry in BUILT if entry.checked}


# -- levels by each method's own schedule, and back ----------------------------------------------------------


def test_causvid_levels_are_its_flow_times_and_not_fractions_of_the_horizon() -> None:
    plan = method("causvid").build()
    first, *inner, last = column(plan)
    assert (first, last) == (plan.horizon, 0.0)
    np.testing.assert_allclose([flow_time(t) for t in inner], [0.757, 0.522], rtol=1e-12)
    # Equal signal-to-noise by hand: t = log(1 + (0.757/0.243)²).
    assert inner[0] == pytest.approx(math.log1p((0.757 / 0.243) ** 2), rel=1e-14)
    assert abs(inner[0] / plan.horizon - 0.757) > 0.5


@pytest.mark.parametrize(
    ("key", "timesteps"),
    [
        ("self-forcing", (750, 500, 250)),
        ("longlive", (750, 500, 250)),
        ("rolling-sink", (750, 500, 250)),
        ("hiar", (750, 500, 250)),
        ("deep-forcing", (750, 500, 250)),
    ],
)
def test_warped_timesteps_are_undone_by_the_inverse_shift(key: str, timesteps: tuple[int, ...]) -> None:
    plan = method(key).build()
    times = [flow_time(t) for t in column(plan)[1:-1]]
    np.testing.assert_allclose([1000 * t / (5 - 4 * t) for t in times], timesteps, rtol=1e-12)
    assert times[0] == pytest.approx(0.9375, rel=1e-12)


def test_rolling_forcing_has_a_chunk_at_every_level() -> None:
    plan = method("rolling-forcing").build()
    chunks = plan.input_levels[::3]
    times = [flow_time(t) for t in chunks[:-1]]
    np.testing.assert_allclose([1000 * t / (5 - 4 * t) for t in times], [200, 400, 600, 800], rtol=1e-12)
    assert chunks[-1] == plan.horizon
    assert plan.input_levels == tuple(level for level in chunks for _ in range(3))


def test_hiar_shows_every_reference_at_the_level_that_the_step_reaches() -> None:
    plan = method("hiar").build()
    for stage, row in zip(plan.segments(3), plan.ar_grid[1:], strict=True):
        assert stage.steps == 1
        assert {r.level for r in stage.references} == {row[0]} == set(stage.grid[-1])
        assert stage.reference_frames == tuple(range(9))
        # At the end references are clean, and the past holds nothing else.
        assert stage.past == (() if row[0] == 0 else tuple(range(9)))


def test_fademem_breaks_what_a_reference_is() -> None:
    broken = method("fademem").broken()
    assert broken is not None
    assert broken[0] == "references"


def test_reverse_steps_are_ones_that_there_are() -> None:
    for entry in METHODS:
        assert not entry.step or reverse_step(entry.step).name == entry.step
    renoised = {"causvid", "self-forcing", "hiar", "rolling-forcing"}
    assert {entry.key for entry in METHODS if entry.step == "renoise"} == renoised


def test_diamond_sigmas_come_back() -> None:
    sigmas = [math.sqrt(math.expm1(t)) for t in column(method("diamond").build())]
    middle = ((5 ** (1 / 7) + 0.002 ** (1 / 7)) / 2) ** 7
    np.testing.assert_allclose(sigmas, [5.0, middle, 2e-3, 0.0], rtol=1e-9)


def test_mcvd_signal_is_the_product_of_its_betas() -> None:
    plan = method("mcvd").build()
    betas = [1e-4 + n * (0.02 - 1e-4) / 999 for n in range(1000)]
    for step in (0, 1, 50, 99):
        expected = math.prod(1 - beta for beta in betas[: 1000 - 10 * step])
        assert signal(column(plan)[step]) == pytest.approx(expected, rel=1e-11)
    assert column(plan)[100] == 0.0


def scaled_linear_signal(start: float, end: float, timestep: int) -> float:
    """ᾱ after the noising steps 0..timestep (counted from 0)."""
    roots = [math.sqrt(start) + n * (math.sqrt(end) - math.sqrt(start)) / 999 for n in range(timestep + 1)]
    return math.prod(1 - root**2 for root in roots)


def test_fifo_diffusion_queue_stands_one_level_apart() -> None:
    plan = method("fifo-diffusion").build()
    for j in (0, 1, 31, 62, 63):
        expected = scaled_linear_signal(0.00085, 0.012, round(999 * j / 63))
        assert signal(plan.input_levels[j]) == pytest.approx(expected, rel=1e-11)
    assert plan.output_levels == (plan.floor, *plan.input_levels[:-1])
    # The oldest frame already stands at the level at which it comes out: its one step is no step.
    assert plan.input_levels[0] == plan.floor == pytest.approx(-math.log(1 - 0.00085), rel=1e-12)


def test_fifo_diffusion_with_lookahead_sees_what_its_loop_reads() -> None:
    """Each call reads ``frames`` places of (older half part + queue) and moves the later half of them."""
    frames, parts = 4, 3
    plan = fifo_diffusion(frames=frames, parts=parts)
    half, queue = frames // 2, frames * parts
    mask = plan.visible_at(0, references=half)
    assert mask is not None
    line = [queue + r for r in range(half)] + list(range(queue))  # mask columns in the order of the video
    moved = []
    for call in reversed(range(2 * parts)):
        read = line[call * half : call * half + frames]
        for column_moved in read[half:]:
            moved.append(column_moved)
            assert {j for j, seen in enumerate(mask[column_moved]) if seen} == set(read)
    assert sorted(moved) == list(range(queue))


def test_fifo_diffusion_without_lookahead_sees_its_part() -> None:
    plan = fifo_diffusion(frames=4, parts=3, lookahead=False)
    assert plan.references == References.none()
    mask = plan.visible_at(0, references=0)
    assert mask is not None
    for i, row in enumerate(mask):
        assert {j for j, seen in enumerate(row) if seen} == set(range(i // 4 * 4, i // 4 * 4 + 4))


def test_pa_vdm_chunks_are_ceilings_of_the_frame_number() -> None:
    """t^I_j = ⌈j/c⌉ c/w in the method's own time, before its shift."""
    plan = method("pa-vdm").build()
    shift = math.sqrt(240 * 426) / 512 * math.sqrt(35)
    for j in range(1, 26):
        t = flow_time(plan.input_levels[j - 1])
        assert t / (shift - (shift - 1) * t) == pytest.approx(math.ceil(j / 5) * 5 / 30, rel=1e-12)
    # Five stages of an AR step, a thirtieth apart.
    stages = [flow_time(t) for t in column(plan)[:-1]]
    native = [t / (shift - (shift - 1) * t) for t in stages]
    np.testing.assert_allclose(native, [5 / 30, 4 / 30, 3 / 30, 2 / 30, 1 / 30], rtol=1e-12)


@pytest.mark.parametrize("uncertainty", [0.0, 0.5, 1.0, 2.5, 10.0])
def test_diffusion_forcing_is_its_scheduling_matrix(uncertainty: float) -> None:
    steps, frames = 10, 4
    plan = method("diffusion-forcing").build(frames=frames, steps=steps, uncertainty=uncertainty)
    levels = column(method("diffusion-forcing").build(frames=1, steps=steps))[::-1]  # by index 0 (clean) .. S
    height = steps + int((frames - 1) * uncertainty) + 1
    expected = [
        [levels[min(max(steps + int(t * uncertainty) - m, 0), steps)] for t in range(frames)]
        for m in range(height)
    ]
    assert [list(row) for row in plan.ar_grid] == expected


def test_diffusion_forcing_runs_from_full_sequence_to_auto_regression() -> None:
    build = method("diffusion-forcing").build
    together = build(uncertainty=0.0, steps=10)
    assert all(len(set(row)) == 1 for row in together.ar_grid)
    strict = build(uncertainty=10.0, steps=10)
    for m in range(strict.reverse_steps):
        moving = [j for j in range(4) if strict.ar_grid[m][j] != strict.ar_grid[m + 1][j]]
        assert moving == [m // 10]


def test_ar_diffusion_spans_synchronous_to_auto_regressive() -> None:
    build = method("ar-diffusion").build
    assert (build(gap=0).window, build(gap=0).stride) == (16, 16)
    assert (build(gap=50).window, build(gap=50).stride, build(gap=50).reverse_steps) == (1, 1, 50)
    for gap in (1, 3, 5, 25):
        plan = build(gap=gap)
        assert (plan.window, plan.stride, plan.reverse_steps) == (math.ceil(50 / gap), 1, gap)
        assert len(plan.references_at(100)) == max(16 - plan.window, 0)


def test_ar_diffusion_grid_starts_at_timestep_981_and_ends_at_the_first() -> None:
    plan = method("ar-diffusion").build()
    assert signal(plan.horizon) == pytest.approx(scaled_linear_signal(1e-4, 0.02, 981), rel=1e-11)
    assert signal(plan.floor) == pytest.approx(scaled_linear_signal(1e-4, 0.02, 0), rel=1e-12)
    assert signal(plan.ar_grid[1][-1]) == pytest.approx(scaled_linear_signal(1e-4, 0.02, 961), rel=1e-11)


def test_skyreels_blocks_are_five_steps_apart() -> None:
    plan = method("skyreels-v2").build()
    first = column(plan, 0)
    for block in range(4):
        for frame in range(5 * block, 5 * block + 5):
            assert column(plan, frame)[5 * block :] == first[: 46 - 5 * block]
            assert set(column(plan, frame)[: 5 * block]) <= {plan.horizon}
    times = [flow_time(t) for t in first[1:30]]
    np.testing.assert_allclose([t / (8 - 7 * t) for t in times], [1 - i / 30 for i in range(1, 30)], rtol=1e-12)
    (context,) = {r.level for r in plan.references_at(3)}
    assert flow_time(context) == pytest.approx(0.02, rel=1e-12)


def test_magi_starts_a_chunk_when_the_last_has_a_quarter_behind_it() -> None:
    plan = method("magi-1").build()
    native = [(i / 32) ** 2 for i in range(33)]
    data = [(u / 3) / (1 + (1 / 3 - 1) * u) for u in native]
    life = [plan.horizon, *(math.log1p(((1 - d) / d) ** 2) for d in data[1:-1]), 0.0]
    # Chunks of 6 latents with 24, 16, 8 and 0 of their 32 steps behind them.
    np.testing.assert_allclose(plan.input_levels[::6], [life[24], life[16], life[8], life[0]], rtol=1e-12)
    np.testing.assert_allclose(column(plan, 23), life[:9], rtol=1e-12)


def test_magi_chunks_see_five_four_three_and_two_chunks() -> None:
    """Its key ranges count a chunk's own and the clean one: from the noisiest to the cleanest 5, 4, 3, 2."""
    plan = method("magi-1").build()
    clean = len(plan.references_at(10))
    mask = plan.visible_at(0, references=clean)
    assert mask is not None
    assert [sum(mask[i]) // 6 for i in (23, 17, 11, 5)] == [5, 4, 3, 2]


def test_gamengen_context_is_noised_to_its_sigma() -> None:
    (level,) = {r.level for r in method("gamengen").build().references_at(100)}
    assert math.sqrt(math.expm1(level)) == pytest.approx(0.7, rel=1e-12)
    clean = method("gamengen").build(context_noise=0.0)
    assert {r.level for r in clean.references_at(100)} == {0.0}


def test_oasis_noise_comes_on_top_of_the_level_frames_come_out_at() -> None:
    """Scaling by √ᾱ and adding noise composes: signals multiply, so OU levels add."""
    plan = method("oasis").build()
    (level,) = {r.level for r in plan.references_at(100)}
    kept = [(sgm(3) - sgm(-3 + 6 * n / 1000)) / (sgm(3) - sgm(-3)) for n in (10, 300)]
    # Differences of sigmoids near 0.95 are rounded by 1e-16 beside 3e-3 at the smallest: far below 1e-10.
    assert signal(plan.floor) == pytest.approx(kept[0], rel=1e-10)
    assert signal(level) == pytest.approx(kept[0] * kept[1], rel=1e-10)


def sgm(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_framepack_times_are_shifted_by_seven() -> None:
    times = [flow_time(t) for t in column(method("framepack-f1").build())[1:-1]]
    np.testing.assert_allclose([t / (7 - 6 * t) for t in times], [1 - i / 25 for i in range(1, 25)], rtol=1e-12)


def test_streaming_t2v_keeps_its_anchor() -> None:
    plan = method("streaming-t2v").build()
    assert [r.frame for r in plan.references_at(10)] == [0, *range(72, 80)]


# -- smaller variants, wrong parameters ----------------------------------------------------------------------

SMALL: dict[str, dict[str, Any]] = {
    "outpainting": {"window": 3, "references": References.last(1)},
    "mcvd": {"frames": 2, "context": 3, "steps": 10},
    "streaming-t2v": {"frames": 2, "context": 2, "anchor": 0, "steps": 5},
    "fifo-diffusion": {"frames": 2, "parts": 2},
    "rolling-diffusion": {"window": 3, "steps": 2},
    "pa-vdm": {"chunk": 1, "frames": 4, "steps": 4, "keep": False},
    "diffusion-forcing": {"frames": 3, "steps": 4, "tokens": 5},
    "ar-diffusion": {"gap": 2, "steps": 4, "frames": 4},
    "skyreels-v2": {"ar_step": 1, "block": 1, "frames": 3, "overlap": 2, "steps": 4, "causal": True},
    "causvid": {"frames": 2, "timesteps": (1000, 500)},
    "self-forcing": {"frames": 1, "timesteps": (1000, 500), "memory": 2},
    "longlive": {"frames": 1, "sink": 1, "recent": 2},
    "hiar": {"frames": 1, "timesteps": (1000, 500), "memory": 2},
    "deep-forcing": {"frames": 1, "sink": 2, "recent": 1},
    "history-guidance": {"frames": 2, "context": 1, "steps": 4, "level": 0.1},
    "cosmos-predict2": {"frames": 2, "context": 1, "steps": 4},
    "longcat-video": {"frames": 2, "context": 1, "steps": 4, "shift": 5.0},
    "rolling-sink": {"frames": 1, "sink": 2, "recent": 1},
    "rolling-forcing": {"chunk": 1, "timesteps": (1000, 500)},
    "magi-1": {"chunk": 1, "chunks": 2, "steps": 4},
    "framepack-f1": {"frames": 2, "steps": 4, "recent": 3},
    "gamengen": {"context": 2, "steps": 2},
    "diamond": {"context": 1, "steps": 2},
    "oasis": {"context": 2, "steps": 10},
}


@pytest.mark.parametrize("key", [entry.key for entry in BUILT])
def test_every_method_scales_down(key: str) -> None:
    small = method(key).build(**SMALL[key])
    assert small.window <= 4
    assert small.reverse_steps < 25


def test_parameters_are_the_builder_s_own() -> None:
    assert method("diamond").parameters == {
        "context": 4, "steps": 3, "sigma_max": 5.0, "sigma_min": 2e-3, "rho": 7.0,
    }  # fmt: skip
    assert method("framepack").parameters == {}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: method("diamond").build(frames=3),
            "parameters: diamond has no parameter frames; it has context, ",
        ),
        (lambda: method("framepack").build(steps=3), "parameters: framepack has no parameter steps; it has none"),
        (lambda: method("magi-1").build(steps=30), "steps: 30 steps do not divide among 4 chunks"),
        (
            lambda: method("magi-1").build(horizon=10.0),
            "0-T boundary: flow-matching time 0.999674 stands at level",
        ),
        (
            lambda: method("mcvd").build(steps=7),
            "steps: the sampler's steps must divide its 1000 timesteps, got 7",
        ),
        (lambda: method("pa-vdm").build(chunk=4), "steps: 30 steps and 30 frames must divide into chunks of 4"),
        (lambda: method("skyreels-v2").build(block=3), "levels: blocks of 3 do not divide 20 frames"),
        (
            lambda: fifo_diffusion(frames=3),
            "visibility: lookahead needs an even number of frames in a part, got 3",
        ),
        (lambda: fifo_diffusion(1, 1), "levels: the queue must hold at least two frames, got 1"),
        (lambda: method("fifo"), "no method 'fifo' in the catalogue; did you mean fifo-diffusion"),
        (lambda: method("zzz"), "no method 'zzz' in the catalogue; did you mean outpainting, mcvd, "),
    ],
)
def test_what_does_not_fit_is_refused(build: Callable[[], object], message: str) -> None:
    with pytest.raises(PlanError, match=f"^{re.escape(message)}"):
        build()


def test_the_two_reference_plans() -> None:
    chunk = outpainting(window=2, references=References.last(1), reverse_steps=20, horizon=6.0)
    assert (chunk.window, chunk.stride, chunk.input_levels, chunk.output_levels) == (2, 2, (6.0, 6.0), (0.0, 0.0))
    queue = fifo(window=4, reverse_steps=10, horizon=6.0)
    assert (queue.stride, queue.input_levels, queue.output_levels) == (
        1,
        (1.5, 3.0, 4.5, 6.0),
        (0.0, 1.5, 3.0, 4.5),
    )
