"""The K-fold bound on clip KL, the condition it needs, and lower bounds that hold or only seem to."""

import re
from itertools import pairwise

import numpy as np
import pytest
from dense_reference import dense_ledger
from exact_networks import linear_denoiser
from reference_cases import CASES, IDEAL, MORE_PLANS, PLANS, THREE_DIGITS, ar1, random_video, table_video

from arvdm_theory import (
    ArrayVideo,
    PerturbedScore,
    Plan,
    References,
    Result,
    fifo,
    ledger,
    memory_bottleneck,
    outpainting,
    reference_video,
)
from arvdm_theory.bounds.accumulation import why_no_clip_bound

EVERY_PLAN = {**PLANS, **MORE_PLANS}


def total(result: Result, name: str) -> float:
    value = result.totals[name]
    assert value is not None
    return value


def ar1_ledger(plan: Plan, ar_steps: int, correlation: float, step: str = "exponential") -> Result:
    video = ArrayVideo(ar1(plan.total_frames(ar_steps), correlation), 1)
    return ledger(video, plan, ar_steps, step=step, girsanov=False)


# -- the bound ----------------------------------------------------------------------------------------

HELD = [
    "chunks without references",
    "chunks with references",
    "rolling",
    "rolling, warmup",
    "frames that wait",
    "plateau",
    "geometric chunks",
    "one frame, one step",
    "a mask a step that reads references",
]


@pytest.mark.parametrize("name", HELD)
@pytest.mark.parametrize("step", ["exponential", "euler", "ancestral"])
def test_clips_lie_below_the_bound_where_its_condition_holds(name: str, step: str) -> None:
    plan = EVERY_PLAN[name]
    covariance, mean = random_video(plan.total_frames(4), 2, 0)
    video = ArrayVideo(covariance, 2, mean)
    for score in (None, PerturbedScore(0.2, bias=-0.1)):
        result = ledger(video, plan, 4, score=score, step=step, girsanov=False)
        clips, bounds = result.column("CLIP_KL"), result.column("CLIP_BOUND")
        assert len(clips) == len(bounds) == 4
        assert all(clip <= bound + 1e-12 for clip, bound in zip(clips, bounds, strict=True))
        spent = [sum(result.column(term)[k] for term in ("NIE_AR", "DE", "SEE", "CROSS")) for k in range(4)]
        np.testing.assert_allclose(bounds, total(result, "ie") + np.cumsum(spent), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", ["chunks with references", "rolling"])
def test_the_bound_covers_all_of_the_output(name: str) -> None:
    """Not the clip alone: the noisy rest of the window, too (the dense reference has its KL)."""
    plan = EVERY_PLAN[name]
    covariance, mean = random_video(plan.total_frames(3), 2, 1)
    dense = dense_ledger(covariance, mean, 2, plan, 3, score_error=0.1)
    result = ledger(ArrayVideo(covariance, 2, mean), plan, 3, score=PerturbedScore(0.1))
    for clip, output, bound in zip(
        result.column("CLIP_KL"), dense.output, result.column("CLIP_BOUND"), strict=True
    ):
        assert clip <= output + 1e-12
        assert output <= bound


def test_the_bound_is_linear_in_k_and_the_clip_levels_off_once_the_loop_has_mixed() -> None:
    """AR(1) with 0.8 is flat at once, with 0.999 it still grows at AR step 60."""
    plan = outpainting(references=References.last(1), reverse_steps=8, init_steps=8)
    for correlation, still_grows in ((0.8, False), (0.999, True)):
        result = ar1_ledger(plan, 60, correlation)
        bounds = np.array(result.column("CLIP_BOUND"))
        np.testing.assert_allclose(np.diff(bounds), bounds[1] - bounds[0], rtol=1e-9)
        clips = np.array(result.column("CLIP_KL"))
        growth = np.diff(clips) / clips[-1]
        assert np.all(growth > -1e-12)
        assert np.all(clips <= bounds)
        assert (growth[-1] > 1e-3) == still_grows
        assert (growth[5] < 1e-3) == (not still_grows)


def test_more_memory_trades_the_bottleneck_for_clip_error() -> None:
    short, long = (
        ledger(ArrayVideo(table_video(12), 2), plan, steps, girsanov=False)
        for plan, steps in (CASES["A"], CASES["B"])
    )
    assert total(long, "mb") < total(short, "mb")
    assert total(long, "kl") < total(short, "kl")
    assert long.column("CLIP_KL")[-1] > short.column("CLIP_KL")[-1]


# -- its condition ------------------------------------------------------------------------------------

REFUSED = {
    "an old frame that was held only in noise": (
        Plan((3.0,), 1, 3.0, 2, 2, references=References.last(1, 0.3) + References.first(1)),
        r"AR step 2 refers to frame 1, which is neither a clean reference nor a clean output of AR step 1",
    ),
    "an old frame noised after it was clean": (
        Plan((1.0, 2.0), 1, 2.0, 2, 2, references=References.last(1, 0.0) + References.first(1, 0.2)),
        r"AR step 4 noises frame 1, which is neither a clean reference nor a clean output of AR step 3",
    ),
    "noised afresh, older than the last output": (IDEAL, r"AR step 2 noises frame 2, which"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_plan_that_breaks_the_condition_is_refused_by_step_and_frame(name: str) -> None:
    plan, message = REFUSED[name]
    why = why_no_clip_bound(plan, 4)
    assert why is not None
    assert re.search(message, why)
    assert why_no_clip_bound(plan, 1) is None  # one AR step feeds nothing on
    result = ledger(ArrayVideo(np.eye(plan.total_frames(4)), 1), plan, 4, girsanov=False)
    assert "CLIP_BOUND" not in set(result.table.term)
    assert "the bound on clip KL does not hold" in why
    assert result.notes["clip_bound"] == why
    assert len(result.column("CLIP_KL")) == 4


def test_references_within_reach_are_accepted() -> None:
    for references in (
        References.none(),
        References.last(5),
        References.all(),
        References.first(1),
        References.every(3),
        References.last(2, 0.3),
        References.first(2) + References.last(1, 0.3),
    ):
        assert why_no_clip_bound(Plan((3.0, 3.0), 2, 3.0, 2, 2, references=references), 6) is None
    # One noised afresh must be of the last output, or the step before must hold it clean.
    for references in (References.last(3, 0.3), References.all(0.3), References.first(1, 0.3)):
        why = why_no_clip_bound(Plan((3.0, 3.0), 2, 3.0, 2, 2, references=references), 6)
        assert why is not None
        assert "noises frame" in why


@pytest.mark.parametrize("noise", [0.05, 0.3, 2.0])
@pytest.mark.parametrize("step", ["exponential", "ancestral"])
def test_a_frame_that_was_a_clean_reference_may_be_noised_after_it(noise: float, step: str) -> None:
    """R_k = the last frame clean and the one before it noised, which the step before held as a clean reference."""
    plan = Plan((8.0,), 1, 8.0, 3, 3, references=References.last(1) + References.last(2, noise))
    assert [[r.level for r in plan.references_at(k)] for k in (1, 2, 3)] == [[0.0], [noise, 0.0], [noise, 0.0]]
    assert why_no_clip_bound(plan, 8) is None
    for seed, score in ((0, None), (1, PerturbedScore(0.2, bias=-0.1)), (2, PerturbedScore(-0.1))):
        covariance, mean = random_video(plan.total_frames(8), 1, seed)
        result = ledger(ArrayVideo(covariance, 1, mean), plan, 8, score=score, step=step, girsanov=False)
        assert "clip_bound" not in result.notes
        clips, bounds = result.column("CLIP_KL"), result.column("CLIP_BOUND")
        assert all(clip <= bound + 1e-12 for clip, bound in zip(clips, bounds, strict=True))
    # With ideal kernels the bound is what T leaves, and so are the clips: nothing of the fresh noise is in them.
    ideal = Plan((20.0,), 1, 20.0, 1, 1, references=plan.references)
    held = ar1_ledger(ideal, 20, 0.95, "ancestral")
    assert max(held.column("CLIP_KL")) <= held.column("CLIP_BOUND")[-1] + 1e-15 < 1e-7


def test_the_refused_bound_is_violated_by_fresh_noise() -> None:
    """Ideal kernels, ρ = 0.3, three references of which Output_k holds two: clip KL 0.0031, bound 0."""
    steps = 20
    result = ar1_ledger(IDEAL, steps, 0.95, "ancestral")
    assert "clip_bound" in result.notes
    would_be = float(result.terms.clip_bounds[-1])
    assert 0 <= would_be < 1e-7
    assert result.column("CLIP_KL")[-1] == pytest.approx(0.0031, rel=0, abs=0.5e-4)
    inside = Plan((20.0, 20.0), 2, 20.0, 1, 1, references=References.last(2, 0.3))
    held = ar1_ledger(inside, steps, 0.95, "ancestral")
    clips, bounds = held.column("CLIP_KL"), held.column("CLIP_BOUND")
    # Both are sums of NIE, e^{-T} = 2e-9 and less: rounding of KL near 0 is below 1e-15.
    assert all(clip <= bound + 1e-15 for clip, bound in zip(clips, bounds, strict=True))


# -- lower bounds -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, plan in EVERY_PLAN.items() if not plan.overlapping])
@pytest.mark.parametrize("step", ["exponential", "ancestral", "ddim"])
def test_no_sampler_of_clean_chunks_beats_ie_and_the_bottleneck(name: str, step: str) -> None:
    plan = EVERY_PLAN[name]
    covariance, mean = random_video(plan.total_frames(4), 2, 2)
    result = ledger(ArrayVideo(covariance, 2, mean), plan, 4, score=PerturbedScore(0.1), step=step)
    assert total(result, "lower_bound") <= total(result, "kl") + 1e-12


@pytest.mark.parametrize("name", ["chunks, noised references", "chunks, mixed references, floor"])
def test_no_networks_rollout_beats_the_floor(name: str) -> None:
    """Whatever its tables are, and whatever its first input is; noise on references does not raise the floor."""
    plan = EVERY_PLAN[name]
    covariance, mean = random_video(plan.total_frames(3), 2, 5)
    video = ArrayVideo(covariance, 2, mean)
    floor = sum(float(memory_bottleneck(video, plan, k, clean_references=True)) for k in (1, 2, 3))
    assert floor > 0.01
    for error in (0.0, 0.05, 0.5):
        for seed in (0, 1):
            network = linear_denoiser(video, plan, 3, error=error, seed=seed)
            for step in ("exponential", "euler", "ddim"):
                result = ledger(video, plan, 3, score=network, step=step, girsanov=False)
                assert total(result, "floor") == pytest.approx(floor, rel=1e-12)
                assert floor <= total(result, "kl")
    assert floor <= total(result, "mb")


def test_a_rolling_window_beats_its_own_bottleneck() -> None:
    """FIFO with w = 4, one reference and M = 200 on the reference video: KL 1.177 < Σ MB 1.311, so no floor."""
    plan = fifo(references=References.last(1), reverse_steps=200)
    result = ledger(reference_video(), plan, 8, girsanov=False)
    assert total(result, "kl") == pytest.approx(1.177, rel=0, abs=THREE_DIGITS)
    assert total(result, "mb") == pytest.approx(1.311, rel=0, abs=THREE_DIGITS)
    assert result.totals["floor"] is None
    assert "w > Δ" in result.notes["floor"]


def test_for_windows_that_overlap_the_bottleneck_is_no_lower_bound_on_clean_frames() -> None:
    plan, steps = CASES["C"]
    rolling = ledger(ArrayVideo(table_video(plan.total_frames(steps)), 2), plan, steps)
    assert total(rolling, "kl") < total(rolling, "mb") - 0.27  # 4.337749 against 4.611017
    assert rolling.totals["lower_bound"] is None
    assert total(rolling, "mb") < total(rolling, "trajectory_kl")  # it is one on the joint law


def test_with_noised_references_the_bottleneck_itself_is_no_lower_bound() -> None:
    """Ideal kernels at ρ = 0.3: KL = 3.770 < Σ MB = 5.180; with the references before noising it is one."""
    result = ar1_ledger(IDEAL, 12, 0.95, "ancestral")
    assert total(result, "kl") == pytest.approx(3.770, rel=0, abs=THREE_DIGITS)
    assert total(result, "mb") == pytest.approx(5.180, rel=0, abs=THREE_DIGITS)
    assert total(result, "lower_bound") <= total(result, "kl") < total(result, "mb")
    # AR(1) and three references: what is left of the past before noising is nothing.
    assert total(result, "floor") < 1e-14


@pytest.mark.parametrize("name", ["chunks without references", "chunks with references", "chunks, causal mask"])
def test_clean_kl_is_the_bottleneck_and_each_kernels_own_excess(name: str) -> None:
    """w = Δ, ρ = 0: KL(clean) = IE + Σ_k [MB_k + E KL(P_{Out|R} ‖ Q_{Out|R})]."""
    plan = EVERY_PLAN[name]
    covariance, mean = random_video(plan.total_frames(3), 2, 3)
    result = ledger(ArrayVideo(covariance, 2, mean), plan, 3, score=PerturbedScore(0.2, bias=0.1))
    dense = dense_ledger(
        covariance, mean, 2, plan, 3, score_error=0.2,
        modify=lambda move, s: type(s)(s.window, s.references, s.offset + 0.1),
    )  # fmt: skip
    excess = sum(dense.ar_step_errors)
    assert total(result, "kl") == pytest.approx(total(result, "ie") + total(result, "mb") + excess, rel=1e-9)
    assert total(result, "ar_step_kl") == pytest.approx(total(result, "kl"), rel=1e-9)
    assert excess > 0.01


def test_bounds_grow_with_k() -> None:
    plan = PLANS["chunks with references"]
    covariance, mean = random_video(plan.total_frames(5), 1, 4)
    bounds = ledger(ArrayVideo(covariance, 1, mean), plan, 5).column("CLIP_BOUND")
    assert all(low < high for low, high in pairwise(bounds))
