"""What one memory tells beyond another, clean or stopped at a level: closed form, dense law and samples agree."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from oracle_score import OracleScore
from reference_cases import random_video
from torch import Tensor

from arvdm_theory import (
    ArrayVideo,
    Plan,
    ReferenceBatch,
    References,
    memory_bottleneck,
    memory_bottleneck_from_scores,
)
from arvdm_theory.decomposition.immse import memory_bottleneck_along_clocks
from arvdm_theory.decomposition.score_gap import score_gap
from arvdm_theory.information.estimators import SampleError
from arvdm_theory.information.gaussian import NotPositiveDefiniteError, conditional_mutual_information
from arvdm_theory.laws.gaussian import StationaryVideo

Array = NDArray[np.float64]
DIM, STEP = 2, 3


def pair(plan: Plan, few: References, many: References) -> tuple[Plan, Plan]:
    return dataclasses.replace(plan, references=few), dataclasses.replace(plan, references=many)


CHUNKS = Plan((4.0, 4.0), 2, 4.0, 4, 4)
ROLLING = Plan((1.0, 2.0, 4.0), 1, 4.0, 4, 4)
FLOOR = Plan((1.0, 2.0, 4.0), 1, 4.0, 4, 4, floor=0.1, spacing="geometric")
PAIRS = {
    "chunks, a short context and a sink": pair(
        CHUNKS, References.last(1), References.last(1) + References.first(2)
    ),
    "chunks, the same noised reference in both": pair(
        CHUNKS, References.last(1, 0.3), References.last(1, 0.3) + References.first(1)
    ),
    "chunks, a reference that is noised further": pair(
        CHUNKS, References.last(2, 0.5), References.last(2, 0.2) + References.first(1, 0.3)
    ),
    "rolling, nothing and one frame": pair(ROLLING, References.none(), References.last(1)),
    "rolling, floor, noised": pair(FLOOR, References.last(1, 0.4), References.all()),
}  # fmt: skip
# Below, between and above the levels at which old frames of the rolling window enter.
STOPS = (0.0, 0.02, 0.7, 1.5)


def dense_information(covariance: Array, plan: Plan, larger: Plan, k: int, stop: float) -> float:
    """I(Out^s; R' | In^s) from the covariance of all states, each written out in clean frames and unit noises."""
    frames = plan.total_frames(k)
    noises: list[Array] = []

    def fresh() -> Array:
        noises.append(np.zeros(frames + 100))
        noises[-1][frames + len(noises) - 1] = 1
        return noises[-1]

    def noised(state: Array, by: float) -> Array:
        return np.exp(-by / 2) * state + np.sqrt(-np.expm1(-by)) * fresh()

    def clean(frame: int) -> Array:
        return np.eye(frames + 100)[frame]

    def level(reference: object) -> float:
        return max(reference.level, plan.floor)  # type: ignore[attr-defined]

    out, told, given = [], {}, []
    for r in larger.references_at(k):
        told[r.frame] = (level(r), noised(clean(r.frame), level(r)))
    for r in plan.references_at(k):
        at, state = told[r.frame]
        given.append(state if level(r) == at else noised(state, level(r) - at))
        if level(r) == at:
            del told[r.frame]
    for j, frame in enumerate(plan.window_frames(k)):
        low, high = max(plan.output_levels[j], stop), max(plan.input_levels[j], stop)
        state = noised(clean(frame), low)
        if low < high or j >= plan.window - plan.stride:
            out.append(state)
        if j < plan.window - plan.stride:
            given.append(state if low == high else noised(state, high - low))
    rows = np.kron(np.array([*out, *(state for _, state in told.values()), *given]), np.eye(DIM))
    whole = np.eye(rows.shape[1])
    whole[: frames * DIM, : frames * DIM] = covariance
    joint = torch.from_numpy(rows @ whole @ rows.T)
    a, b = len(out) * DIM, (len(out) + len(told)) * DIM
    return float(conditional_mutual_information(joint, range(a), range(a, b), range(b, len(joint))))


def video_of(plan: Plan, seed: int) -> tuple[Array, Array]:
    return random_video(plan.total_frames(STEP), DIM, seed)


def along_clocks(covariance: Array, plan: Plan, stop: float, larger: Plan | None = None) -> float:
    video = ArrayVideo(covariance, DIM)
    return float(memory_bottleneck_along_clocks(video, plan, STEP, stop=stop, plan_with_past=larger))


# -- the closed form ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("name", PAIRS)
def test_the_integral_is_the_information_of_the_dense_law(name: str, stop: float) -> None:
    plan, larger = PAIRS[name]
    covariance, _ = video_of(plan, 3)
    found = along_clocks(covariance, plan, stop, larger)
    # Float64 sums of some thousand terms of size 1, condition numbers of 10 to 100.
    assert found == pytest.approx(dense_information(covariance, plan, larger, STEP, stop), abs=1e-12)
    assert found > 1e-3


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("name", PAIRS)
def test_what_the_larger_memory_adds_is_what_its_bottleneck_lacks(name: str, stop: float) -> None:
    plan, larger = PAIRS[name]
    covariance, _ = video_of(plan, 4)
    lost = along_clocks(covariance, plan, stop) - along_clocks(covariance, larger, stop)
    assert along_clocks(covariance, plan, stop, larger) == pytest.approx(lost, abs=1e-10)
    if stop == 0:
        closed = [float(memory_bottleneck(ArrayVideo(covariance, DIM), each, STEP)) for each in (plan, larger)]
        assert lost == pytest.approx(closed[0] - closed[1], abs=1e-10)


@pytest.mark.parametrize("plan", [CHUNKS, ROLLING], ids=["chunks", "rolling"])
def test_without_a_second_plan_all_frames_that_are_out_are_the_larger_memory(plan: Plan) -> None:
    plan, everything = pair(plan, References.last(1), References.all())
    covariance, _ = video_of(plan, 5)
    for stop in (0.0, 0.3):
        assert along_clocks(covariance, plan, stop) == along_clocks(covariance, plan, stop, everything)
    assert along_clocks(covariance, plan, 0.0, plan) == 0


def test_information_falls_as_the_clocks_stop_earlier() -> None:
    plan, larger = PAIRS["chunks, a short context and a sink"]
    covariance, _ = video_of(plan, 6)
    values = [along_clocks(covariance, plan, stop, larger) for stop in (0.0, 1e-6, 0.1, 0.5, 2.0, 3.9)]
    assert values == sorted(values, reverse=True)
    # d/ds I = -½ E‖s' - s‖², at 0 a number of size 1 for eigenvalues of 0.3 and above.
    assert values[1] == pytest.approx(values[0], abs=1e-5)


@pytest.mark.parametrize("stop", [1e-3, 0.02, 1.0])
def test_an_exact_copy_tells_a_finite_number_of_nats_at_every_level_above_zero(stop: float) -> None:
    """X_3 = X_1 of unit variance, all else independent: X_3^s is left with the variance σ²(s) of 1."""
    plan = Plan((6.0,), 1, 6.0, 10, 1, references=References.last(1))
    rows = torch.eye(3, dtype=torch.float64)
    rows[0, 2] = rows[2, 0] = 1  # singular, which an array video may not be
    video = StationaryVideo(
        lambda n: torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)[:n].reshape(1, -1, 1, 1), 1
    )
    assert torch.equal(video.covariance(3)[0], rows)
    found = memory_bottleneck_along_clocks(video, plan, 2, stop=stop)
    assert float(found) == pytest.approx(-0.5 * math.log(-math.expm1(-stop)), abs=1e-12)
    with pytest.raises(NotPositiveDefiniteError):
        memory_bottleneck_along_clocks(video, plan, 2)


# -- from scores on samples -----------------------------------------------------------------------------


def drawn(covariance: Array, mean: Array, plan: Plan, n: int, seed: int) -> Tensor:
    video = ArrayVideo(covariance, DIM, mean)
    return video.sample(n, plan.total_frames(STEP), torch.Generator().manual_seed(seed))[:, 0]


@pytest.mark.parametrize("stop", [0.0, 0.3, 1.5])
@pytest.mark.parametrize("name", PAIRS)
def test_exact_scores_on_samples(name: str, stop: float) -> None:
    """A random video's smallest eigenvalue is 0.3: its pole is 2.2 half-steps or more from the middle of a step of
    length 1, and 6 nodes leave (2.2 + 2)^-12 = 4e-8. At T = 4 what is left is known to e^{-4} of a small part.
    """
    plan, larger = PAIRS[name]
    covariance, mean = video_of(plan, 7)
    truth = dense_information(covariance, plan, larger, STEP, stop)
    score = OracleScore(covariance, mean, DIM)
    found = memory_bottleneck_from_scores(
        drawn(covariance, mean, plan, 2000, 1), plan, STEP, score, score, form="difference", points=6, batch=700,
        plan_with_past=larger, stop=stop,
    )  # fmt: skip
    assert not found.warnings
    assert abs(found.value - truth) < 4 * found.stderr
    assert found.stderr < 0.06 * truth


@pytest.mark.parametrize("stop", [0.0, 0.3])
def test_losses_of_exact_scores_over_ten_seeds(stop: float) -> None:
    """Σ z² lies within the chi-square quantiles at 1e-4 and 1 - 1e-4 of ten normals, 1.0 and 35.6."""
    plan, larger = PAIRS["chunks, a reference that is noised further"]
    covariance, mean = video_of(plan, 8)
    truth = dense_information(covariance, plan, larger, STEP, stop)
    score, scores = OracleScore(covariance, mean, DIM), []
    for seed in range(10):
        found = memory_bottleneck_from_scores(
            drawn(covariance, mean, plan, 500, seed), plan, STEP, score, score, plan_with_past=larger, stop=stop,
            seed=seed + 100,
        )  # fmt: skip
        scores.append((found.value - truth) / found.stderr)
    assert 1.0 < float(np.square(scores).sum()) < 35.6


def test_contributions_are_those_of_the_estimate() -> None:
    plan, larger = PAIRS["rolling, nothing and one frame"]
    covariance, mean = video_of(plan, 9)
    score, videos = OracleScore(covariance, mean, DIM), drawn(covariance, mean, plan, 40, 0)
    found = memory_bottleneck_from_scores(videos, plan, STEP, score, score, plan_with_past=larger, stop=0.2)
    gap = score_gap(videos, plan, STEP, score, score, plan_with_past=larger, stop=0.2)
    assert found.value == gap.losses.mean()
    # Beside the spread of the videos, how far half the nodes are off.
    quadrature = abs((gap.losses - gap.coarse[:, 0]).mean())
    assert found.stderr == pytest.approx(math.hypot(gap.losses.std(ddof=1) / math.sqrt(40), quadrature), rel=1e-12)
    assert gap.losses.shape == gap.difference.shape == (40,)
    assert gap.tails.shape == gap.coarse.shape == (40, 2)
    assert 0 < np.abs(gap.tails).max() < np.abs(gap.losses).max()


class Watch:
    """A score of 0 that keeps what it is shown."""

    def __init__(self) -> None:
        self.levels: list[Tensor] = []
        self.shown: list[ReferenceBatch] = []

    def __call__(self, window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
        self.levels.append(levels)
        self.shown.append(references)
        return torch.zeros_like(window)


@pytest.mark.parametrize("with_plan", [False, True], ids=["all frames out", "a larger plan"])
def test_actions_reach_the_scores_with_their_frames(with_plan: bool) -> None:
    plan, larger = pair(FLOOR, References.last(1, 0.4), References.last(1, 0.2) + References.first(1))
    videos = drawn(*video_of(plan, 0), plan, 7, 0)
    actions = torch.arange(7 * 8 * 3, dtype=torch.float32).reshape(7, 8, 3)
    own, other = Watch(), Watch()
    memory_bottleneck_from_scores(
        videos, plan, STEP, own, other, points=2, batch=5, actions=actions,
        plan_with_past=larger if with_plan else None,
    )  # fmt: skip
    assert len(own.shown) == len(other.shown)
    calls = len(own.shown) // 2
    assert [len(shown.values) for shown in own.shown] == [5] * calls + [2] * calls
    # Two batches, the second of two videos.
    for number, rows in ((0, slice(0, 5)), (calls, slice(5, 7))):
        few, many = own.shown[number], other.shown[number]
        assert few.frames == (1,)
        assert few.levels.tolist() == [0.4]
        assert many.frames == (0, 1)
        assert many.levels.tolist() == ([0.1, 0.2] if with_plan else [0.1, 0.1])
        assert few.window_frames == many.window_frames == (2, 3, 4)
        for told in (few, many):
            assert told.actions is not None
            assert told.window_actions is not None
            assert torch.equal(told.actions, actions[rows][:, list(told.frames)].double())
            assert torch.equal(told.window_actions, actions[rows][:, 2:5].double())


def test_a_reference_at_one_level_in_both_plans_is_one_draw() -> None:
    plan, larger = PAIRS["chunks, the same noised reference in both"]
    own, other = Watch(), Watch()
    videos = drawn(*video_of(plan, 0), plan, 6, 0)
    memory_bottleneck_from_scores(videos, plan, STEP, own, other, points=2, plan_with_past=larger)
    assert other.shown[0].frames == (0, 5)
    assert torch.equal(own.shown[0].values[:, 0], other.shown[0].values[:, 1])
    assert not torch.equal(own.shown[0].values[:, 0], videos[:, 5])


def test_reverse_steps_below_the_stop_are_not_taken() -> None:
    plan, larger = PAIRS["chunks, a short context and a sink"]
    videos, watch = drawn(*video_of(plan, 0), plan, 3, 0), Watch()
    # Levels 4, 3, 2, 1, 0: the step from 3 to 2 ends at 2.5, and two nodes lie at 2.75 ± 0.25/√3; half of them is
    # one in the middle.
    memory_bottleneck_from_scores(videos, plan, STEP, watch, Watch(), points=2, plan_with_past=larger, stop=2.5)
    seen = [float(levels[0]) for levels in watch.levels]
    half = 0.5 / math.sqrt(3)
    assert seen == pytest.approx(
        [4, 3.5 - half, 3.5 + half, 3.5, 2.75 - half / 2, 2.75 + half / 2, 2.75], abs=1e-12
    )


def test_a_plan_that_shows_all_frames_is_the_default_bit_for_bit() -> None:
    plan, everything = pair(FLOOR, References.last(1, 0.4), References.all())
    covariance, mean = video_of(plan, 2)
    videos, score = drawn(covariance, mean, plan, 30, 0), OracleScore(covariance, mean, DIM)
    default = memory_bottleneck_from_scores(videos, plan, STEP, score, score)
    named = memory_bottleneck_from_scores(videos, plan, STEP, score, score, plan_with_past=everything)
    assert (named.value, named.stderr) == (default.value, default.stderr)


# -- refusals -------------------------------------------------------------------------------------------


def test_refuses_plans_that_are_not_one_memory_beyond_another() -> None:
    plan, larger = PAIRS["chunks, a reference that is noised further"]
    covariance, mean = video_of(plan, 1)
    videos = drawn(covariance, mean, plan, 4, 0)

    def both(other: Plan, match: str) -> None:
        with pytest.raises(SampleError, match=match):
            memory_bottleneck_from_scores(videos, plan, STEP, Watch(), Watch(), plan_with_past=other)
        with pytest.raises(SampleError, match=match):
            along_clocks(covariance, plan, 0.0, other)

    many = larger.references
    both(Plan((4.0,), 1, 4.0, 4, 4, references=many), "its window is 1, not 2")
    both(Plan((2.0, 4.0), 1, 4.0, 4, 4, references=many), "its stride is 1, not 2")
    both(Plan((4.0, 4.0), 2, 4.0, 5, 4, references=many), "its number of steps is 5, not 4")
    both(dataclasses.replace(larger, floor=0.1, output_levels=(), ar_grid=(), init_grid=()), "its floor is 0.1")
    both(Plan((5.0, 5.0), 2, 5.0, 4, 4, references=many), r"levels after 0 reverse steps is \(5.0, 5.0\), not")
    both(
        dataclasses.replace(plan, references=References.first(1)),
        "in AR step 3 frame 4 at level 0.5 or below, but it is shown not at all",
    )
    both(
        dataclasses.replace(plan, references=References.last(2, 0.6)),
        "frame 4 at level 0.5 or below, but it is shown at level 0.6",
    )
    with pytest.raises(SampleError, match="both plans show the same references: the information is 0"):
        memory_bottleneck_from_scores(videos, plan, STEP, Watch(), Watch(), plan_with_past=plan)


def test_refuses_levels_and_actions_that_do_not_fit() -> None:
    plan, larger = PAIRS["chunks, a short context and a sink"]
    covariance, mean = video_of(plan, 1)
    videos = drawn(covariance, mean, plan, 4, 0)

    def run(**options: object) -> None:
        memory_bottleneck_from_scores(videos, plan, STEP, Watch(), Watch(), plan_with_past=larger, **options)  # type: ignore[arg-type]

    for stop in (-0.1, 4.0, math.nan):
        with pytest.raises(SampleError, match="a level from 0 to below T = 4, got"):
            run(stop=stop)
        with pytest.raises(SampleError, match="a level from 0 to below T = 4, got"):
            along_clocks(covariance, plan, stop, larger)
    for shape in ((4, 8), (3, 8, 2), (4, 7, 2)):
        with pytest.raises(SampleError, match=r"actions must have shape \(4, 8 frames or more, a\), got"):
            run(actions=torch.zeros(shape))
    with pytest.raises(SampleError, match="actions must be finite"):
        run(actions=torch.full((4, 8, 2), math.nan))
