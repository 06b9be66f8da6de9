"""The memory bottleneck along a plan's clocks: against the closed form, and sampled within standard errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from oracle_score import OracleScore
from reference_cases import MORE_PLANS, PLANS, ar1, dial_plan, random_video
from torch import Tensor

from arvdm_theory import (
    ArrayVideo,
    ExactScore,
    GaussianVideo,
    NetworkScore,
    Number,
    Plan,
    ReferenceBatch,
    References,
    fifo,
    memory_bottleneck,
    memory_bottleneck_from_scores,
    outpainting,
    reference_video,
)
from arvdm_theory.decomposition.immse import memory_bottleneck_along_clocks
from arvdm_theory.information.estimators import EstimationWarning, SampleError

CASE_C, CASE_D = fifo(), fifo(references=References.last(3))
# A video of independent structure for plans with noised references and a floor.
EVERY_PLAN = PLANS | MORE_PLANS


def oracle(video: GaussianVideo, frames: int) -> OracleScore:
    """The exact score from the joint covariance of the states, written out; it counts its calls."""
    return OracleScore(video.covariance(frames)[0].numpy(), video.mean(frames)[0].numpy(), video.frame_dim)


# -- the closed form ------------------------------------------------------------------------------------


def assert_along_clocks(
    video: GaussianVideo, plan: Plan, k: int, *, levels: Tensor | None = None, room: float = 1e-12
) -> float:
    """The integral is the closed form's own number."""
    found = float(memory_bottleneck_along_clocks(video, plan, k, levels=levels))
    assert found == pytest.approx(float(memory_bottleneck(video, plan, k)), abs=room)
    return found


@pytest.mark.parametrize("plan", [CASE_C, CASE_D], ids=["C", "D"])
def test_the_integral_is_the_memory_bottleneck_of_the_reference_cases(plan: Plan) -> None:
    for k in range(1, 9):
        assert_along_clocks(reference_video(), plan, k)


def test_case_c_adds_up_to_the_printed_sum() -> None:
    total = sum(float(memory_bottleneck_along_clocks(reference_video(), CASE_C, k)) for k in range(1, 9))
    assert total == pytest.approx(4.611017, abs=0.5e-6)


@pytest.mark.parametrize("name", EVERY_PLAN)
def test_every_plan_noised_references_and_floors_included(name: str) -> None:
    plan = EVERY_PLAN[name]
    video = ArrayVideo(random_video(plan.total_frames(3), 2, 3)[0], 2)
    for k in (1, 2, 3):
        assert_along_clocks(video, plan, k)


@pytest.mark.parametrize("level", [0.0, 0.02, 1.0])
def test_the_noise_augmentation_dial(level: float) -> None:
    plan = dial_plan(level)
    assert_along_clocks(ArrayVideo(ar1(plan.total_frames(12), 0.95), 1), plan, 12)


def test_a_nearly_singular_video_in_one_long_step() -> None:
    """The panels find the peak at the end of a step of length 20 over a smallest eigenvalue of about 1e-7.

    The closed form itself keeps ε/λ = 2e-16/1e-7 of its digits there, times a few tens.
    """
    plan = Plan((20.0, 20.0), 2, 20.0, 1, 1)
    assert assert_along_clocks(ArrayVideo(ar1(plan.total_frames(2), 1 - 1e-7), 1), plan, 2, room=1e-7) > 7


def test_the_path_of_the_clocks_does_not_matter() -> None:
    start, end = torch.tensor(CASE_C.ar_grid, dtype=torch.float64)[[0, -1]]
    levels = [start]
    for j in (2, 0, 3, 1):  # one frame after the other
        levels.append(torch.where(torch.arange(4) == j, end, levels[-1]))
    levels += [end] * (CASE_C.reverse_steps - 4)  # and the other steps stand still
    assert_along_clocks(reference_video(), CASE_C, 4, levels=torch.stack(levels))


def test_modes_stay_apart_and_gradients_flow() -> None:
    plan = PLANS["rolling, noised references, floor"]
    frames = plan.total_frames(3)
    covariances = [torch.from_numpy(random_video(frames, 1, seed)[0]) for seed in (1, 2)]

    class Modes(GaussianVideo):
        """Two videos as the modes of one, the second twice."""

        frame_dim, length, name = 1, frames, "modes"

        def __init__(self, stacked: Tensor) -> None:
            self.stacked, self.multiplicity = stacked, torch.tensor([1.0, 2.0], dtype=torch.float64)

        def mean(self, frames: int) -> Tensor:
            return self.stacked.new_zeros(2, frames)

        def covariance(self, frames: int) -> Tensor:
            return self.stacked[:, :frames, :frames]

    leaf = torch.stack(covariances).requires_grad_()
    both = memory_bottleneck_along_clocks(Modes(leaf), plan, 3)
    once, twice = (float(memory_bottleneck(ArrayVideo(each, 1), plan, 3)) for each in covariances)
    assert float(both) == pytest.approx(once + 2 * twice, abs=1e-12)
    (slope,) = torch.autograd.grad(both, leaf)
    [closed] = Modes(leaf).at(plan.stage(3)).memory_bottleneck()
    (expected,) = torch.autograd.grad(closed, leaf)
    # Only the symmetric part of a covariance's gradient means something.
    torch.testing.assert_close(slope + slope.mT, expected + expected.mT, rtol=1e-9, atol=1e-11)


# -- from scores on samples -----------------------------------------------------------------------------


def exact(video: GaussianVideo, plan: Plan, k: int) -> float:
    return float(memory_bottleneck(video, plan, k))


def draw(video: GaussianVideo, plan: Plan, k: int, n: int, seed: int) -> Tensor:
    return video.sample(n, plan.total_frames(k), torch.Generator().manual_seed(seed))[:, 0]


@pytest.mark.parametrize("form", ["losses", "difference"])
def test_exact_scores_on_samples_of_case_c(form: str) -> None:
    """Ten seeds: Σ z² lies within the chi-square quantiles at 1e-4 and 1 - 1e-4 of ten normals, 1.0 and 35.6.

    The last reverse step has h = 0.15, and the smallest eigenvalue given all other frames is above 0.048: the pole
    is at 1.6 half-steps from its middle or further, and 4 nodes leave (1.6 + 1.3)^-8 = 2e-4 of that step's part,
    less than a hundredth of a standard error.
    """
    video, k = reference_video(), 4
    truth, scores = exact(video, CASE_C, k), []
    for seed in range(10):
        score = oracle(video, CASE_C.total_frames(k))
        found = memory_bottleneck_from_scores(
            draw(video, CASE_C, k, 600, seed), CASE_C, k, score, score, form=form, seed=seed + 100
        )
        # Four nodes a panel, two more for the quadrature's error, and one node for all beyond T. The last step, of
        # length 0.15, is halved ten times, until a panel is no longer than 2^-12.
        assert len(score.calls) == 2 * (1 + 6 * (CASE_C.reverse_steps + 10))
        assert found.n == 600
        assert not found.warnings
        scores.append((found.value - truth) / found.stderr)
    assert 1.0 < float(np.square(scores).sum()) < 35.6


@pytest.mark.parametrize("name", ["chunks, mixed references, floor", "rolling, noised references, floor"])
def test_noised_references_a_floor_and_a_mean(name: str) -> None:
    plan, k = PLANS[name], 3
    covariance, mean = random_video(plan.total_frames(k), 2, 5)
    video = ArrayVideo(covariance, 2, mean)
    score = oracle(video, plan.total_frames(k))
    videos = draw(video, plan, k, 4000, 1)
    found = memory_bottleneck_from_scores(videos, plan, k, score, score, form="difference", points=6)
    # What is left at T = 3 is known to e^{-3} of itself, here less than the standard error: no warning.
    assert not found.warnings
    assert abs(found.value - exact(video, plan, k)) < 4 * found.stderr
    assert found.stderr < 0.05 * found.value


def test_the_two_forms_agree_and_the_difference_is_the_less_noisy() -> None:
    video, k = reference_video(), 3
    score = oracle(video, CASE_C.total_frames(k))
    videos = draw(video, CASE_C, k, 500, 3)
    losses = memory_bottleneck_from_scores(videos, CASE_C, k, score, score)
    difference = memory_bottleneck_from_scores(videos, CASE_C, k, score, score, form="difference")
    assert difference.stderr < losses.stderr / 2
    assert abs(losses.value - difference.value) < 4 * losses.stderr


def test_what_is_left_at_the_horizon_is_extrapolated() -> None:
    """T = 1: the new frames' noise still tells a good part, known to e^{-1} of itself."""
    plan = Plan((1.0, 1.0), 2, 1.0, 2, 2, references=References.last(1))
    video = reference_video()
    score = oracle(video, plan.total_frames(4))
    with pytest.warns(EstimationWarning, match=r"extrapolated from level T = 1 to pure noise"):
        found = memory_bottleneck_from_scores(
            draw(video, plan, 4, 3000, 0), plan, 4, score, score, form="difference", points=8
        )
    assert len(found.warnings) == 1
    # The warning's own figure: e^{-T} of the extrapolated 0.2 nats.
    assert abs(found.value - exact(video, plan, 4)) < 0.07 + 4 * found.stderr


def test_trained_networks_give_the_difference_of_excess_losses_and_it_may_be_negative() -> None:
    """A score with Past that is off by a constant c loses ½ Σ_j (t^I_j - t^O_j) d c², and d Δ c²/2 beyond T."""
    video, k, c = reference_video(), 2, 0.6
    score = oracle(video, CASE_C.total_frames(k))

    def off(window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
        return score(window, levels, references) + c

    found = memory_bottleneck_from_scores(draw(video, CASE_C, k, 1500, 0), CASE_C, k, score, off)
    moved = sum(CASE_C.input_levels) - sum(CASE_C.output_levels)
    excess = (moved * 2 * c**2 + 2 * c**2) / 2
    assert abs(found.value - (exact(video, CASE_C, k) - excess)) < 4 * found.stderr
    assert found.ci_high < 0


def test_float32_scores_seeds_and_global_generators() -> None:
    video, k = reference_video(), 2
    score = oracle(video, CASE_C.total_frames(k))

    def single(window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
        return score(window, levels, references).float()

    videos = draw(video, CASE_C, k, 50, 0)
    state = torch.get_rng_state()
    first = memory_bottleneck_from_scores(videos, CASE_C, k, score, score)
    again = memory_bottleneck_from_scores(videos, CASE_C, k, score, score)
    assert (again.value, again.stderr) == (first.value, first.stderr)
    assert torch.equal(torch.get_rng_state(), state)
    rounded = memory_bottleneck_from_scores(videos.float(), CASE_C, k, single, single)
    assert rounded.value == pytest.approx(first.value, rel=1e-3)
    assert first.value != memory_bottleneck_from_scores(videos, CASE_C, k, score, score, seed=1).value


def test_windows_and_references_are_what_the_networks_are_promised() -> None:
    plan, k = PLANS["rolling, noised references, floor"], 4
    seen: list[tuple[Tensor, ReferenceBatch]] = []

    def watch(window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
        seen.append((levels, references))
        return torch.zeros_like(window)

    videos = draw(reference_video(), plan, k, 7, 0)
    found = memory_bottleneck_from_scores(videos, plan, k, watch, watch, points=2, batch=100)
    assert found.value == 0
    assert found.stderr == 0
    (start, told), (_, everything) = seen[:2]
    assert start.tolist() == list(plan.input_levels)
    assert told.frames == (1, 2)
    assert told.levels.tolist() == [0.4, 0.4]
    assert everything.frames == (0, 1, 2)
    assert everything.levels.tolist() == [0.1] * 3
    assert told.window_frames == everything.window_frames == (3, 4, 5)
    assert everything.values.shape == (7, 3, 2)
    # From then on every frame's clock stands the same part of its way down a reverse step, one step after another.
    grid = torch.tensor(plan.ar_grid, dtype=torch.float64)
    visited = []
    for levels, _ in seen[2::2]:
        parts = (levels - grid[1:]) / (grid[:-1] - grid[1:])
        [step] = [m for m, part in enumerate(parts) if float(part.max() - part.min()) < 1e-12 and 0 < part[0] < 1]
        visited.append(step)
    assert visited == sorted(visited)
    assert set(visited) == set(range(plan.reverse_steps))


# -- what can go wrong, and is said -----------------------------------------------------------------------


def predictable_video(frames: int) -> ArrayVideo:
    """C(t) = exp(-t²/8) + 1e-3 [t = 0]: each frame is nearly a function of those before it, as in real video."""
    lag = np.subtract.outer(np.arange(frames), np.arange(frames))
    return ArrayVideo(np.exp(-(lag**2) / 8) + 1e-3 * (lag == 0), 1)


@pytest.mark.parametrize("form", ["losses", "difference"])
def test_predictable_frames_are_estimated_within_the_interval(form: str) -> None:
    """MB_3 = 1.153: most of it lies in the last reverse step, near level 1e-3."""
    plan, k = outpainting(window=2, references=References.last(1), reverse_steps=10, init_steps=10), 3
    video = predictable_video(plan.total_frames(k))
    truth = exact(video, plan, k)
    assert truth == pytest.approx(1.153, abs=0.5e-3)
    scores = []
    for seed in range(10):
        found = memory_bottleneck_from_scores(
            draw(video, plan, k, 400, seed), plan, k, video=video, form=form, seed=seed + 50
        )
        assert not found.warnings
        scores.append((found.value - truth) / found.stderr)
    # Ten normals' squares, chi-square quantiles at 1e-4 and 1 - 1e-4.
    assert 1.0 < float(np.square(scores).sum()) < 35.6


def test_the_quadratures_error_is_in_the_interval_and_is_said() -> None:
    """A score that bends fast in the level: two nodes a panel miss it by more than the noise of 4000 videos."""
    plan, k = Plan((6.0, 6.0), 2, 6.0, 1, 1, references=References.last(1), floor=3.0), 3
    video = reference_video()
    score = oracle(video, plan.total_frames(k))

    def wavy(window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
        return score(window, levels, references) + 3 * torch.sin(9 * levels)[:, None] * (
            len(references.frames) > 1
        )

    def told(points: int) -> Number:
        return memory_bottleneck_from_scores(
            draw(video, plan, k, 4000, 0), plan, k, score, wavy, form="difference", points=points
        )

    with pytest.warns(EstimationWarning, match="the quadrature errs by about"):
        rough = told(2)
    fine = told(24)
    assert not any("quadrature" in text for text in fine.warnings)
    assert rough.ci_low < fine.value < rough.ci_high
    plain = abs(rough.value - fine.value)
    assert rough.stderr > plain / 3  # not the noise alone, which is a hundredth of it
    assert fine.stderr < plain / 10


def test_networks_whose_value_is_no_information_are_warned_of() -> None:
    """x̂ = 0.5 W and 0.45 W on the reference video, truth 0.499: negative by losses, positive by differences.

    Down to level 0 both grow without bound, as (x̂ - x)² / σ⁴ does.
    """
    plan, k = outpainting(window=2, references=References.last(2)), 4
    video = reference_video()
    videos = draw(video, plan, k, 400, 0)
    assert exact(video, plan, k) == pytest.approx(0.499, abs=0.5e-3)

    def network(share: float) -> NetworkScore:
        return NetworkScore(lambda window, levels, references, actions: share * window, "x0", dtype=torch.float64)

    for stop in (0.0, None):
        with pytest.warns(EstimationWarning):
            losses = memory_bottleneck_from_scores(videos, plan, k, network(0.5), network(0.45), stop=stop)
        with pytest.warns(EstimationWarning):
            difference = memory_bottleneck_from_scores(
                videos, plan, k, network(0.5), network(0.45), form="difference", stop=stop
            )
        assert losses.ci_high < 0 < difference.value
        for found in (losses, difference):
            said = " ".join(found.warnings)
            assert "surely negative" in said
            assert "the two forms disagree" in said
            # Left out, the clocks halt above 0, and what is then measured is said.
            assert ("clocks halt at level 0.1" in said) == (stop is None)


def test_exact_scores_are_not_warned_of_and_go_all_the_way() -> None:
    video, k = reference_video(), 4
    found = memory_bottleneck_from_scores(draw(video, CASE_C, k, 600, 0), CASE_C, k, video=video)
    assert not found.warnings
    by_hand = memory_bottleneck_from_scores(
        draw(video, CASE_C, k, 600, 0), CASE_C, k, ExactScore(video), ExactScore(), video=video, stop=0.0
    )
    assert by_hand.value == found.value


def test_windows_of_one_clip_count_as_one() -> None:
    """Every video eight times: its standard error is that of the clips, which simulated clusters show too."""
    video, k, groups, copies = reference_video(), 3, 60, 8
    score = oracle(video, CASE_C.total_frames(k))

    def estimate(seed: int, clustered: bool) -> Number:
        clips = draw(video, CASE_C, k, groups, seed).repeat_interleave(copies, 0)
        labels = np.repeat(np.arange(groups), copies) if clustered else None
        return memory_bottleneck_from_scores(clips, CASE_C, k, score, score, clusters=labels, points=2, seed=seed)

    found = [estimate(seed, clustered=True) for seed in range(40)]
    spread = np.std([each.value for each in found], ddof=1)
    claimed = math.sqrt(np.mean([each.stderr**2 for each in found]))
    # A spread of 40 values is known to 1/√78 = 11 %; 4 of these.
    assert claimed == pytest.approx(spread, rel=0.45)
    naive = math.sqrt(np.mean([estimate(seed, clustered=False).stderr ** 2 for seed in range(5)]))
    assert naive < 0.8 * claimed
    with pytest.raises(SampleError, match="two clusters or more"):
        memory_bottleneck_from_scores(
            draw(video, CASE_C, k, 5, 0), CASE_C, k, score, score, clusters=np.zeros(5), points=2
        )
    with pytest.raises(SampleError, match=r"a label a video, 5 of them, .* got shape \(4,\)"):
        memory_bottleneck_from_scores(
            draw(video, CASE_C, k, 5, 0), CASE_C, k, score, score, clusters=np.zeros(4), points=2
        )


# -- refusals -------------------------------------------------------------------------------------------


def test_refuses_what_is_no_estimate() -> None:
    video = reference_video()
    videos = draw(video, CASE_C, 3, 5, 0)

    def zero(window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
        return torch.zeros_like(window)

    def run(videos: Tensor = videos, ar_step: int = 3, score: object = zero, **options: object) -> None:
        memory_bottleneck_from_scores(videos, CASE_C, ar_step, score, score, **options)

    with pytest.raises(SampleError, match="'losses' or 'difference', got 'gap'"):
        run(form="gap")
    with pytest.raises(
        SampleError, match="at least two nodes a panel and one video a batch are needed, got 1 and"
    ):
        run(points=1)
    for k in (0, 1):
        with pytest.raises(SampleError, match=rf"AR step {k} of the plan 'fifo' has no Past"):
            run(ar_step=k)
    with pytest.raises(SampleError, match=r"shape \(n ≥ 2, 6 frames or more, d\), got \(5, 5, 2\)"):
        run(videos[:, :5])
    with pytest.raises(SampleError, match="1 of 5 videos have NaN or infinite values, first video 2"):
        run(videos.index_put((torch.tensor(2), torch.tensor(0)), torch.tensor(math.nan, dtype=torch.float64)))
    with pytest.raises(ValueError, match=r"window's shape \(5, 4, 2\), got \(5, 4\)"):
        run(score=lambda window, levels, references: window[..., 0])
    with pytest.raises(ValueError, match="frames 3 to 6 is not finite at the levels"):
        run(score=lambda window, levels, references: window / 0)
    with pytest.raises(ValueError, match="at least one point, got 0"):
        memory_bottleneck_along_clocks(video, CASE_C, 3, points=0)
