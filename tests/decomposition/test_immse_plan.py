"""The memory bottleneck along a plan's clocks: against the closed form, and sampled within standard errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from reference_cases import MORE_PLANS, PLANS, ar1, dial_plan, random_video
from torch import Tensor

from arvdm_theory import (
    ArrayVideo,
    GaussianVideo,
    Plan,
    ReferenceBatch,
    References,
    fifo,
    memory_bottleneck,
    memory_bottleneck_from_scores,
    reference_video,
)
from arvdm_theory.decomposition.immse import memory_bottleneck_along_clocks
from arvdm_theory.information.estimators import EstimationWarning, SampleError
from arvdm_theory.information.gaussian import condition
from arvdm_theory.laws.states import State

CASE_C, CASE_D = fifo(), fifo(references=References.last(3))
# A video of independent structure for plans with noised references and a floor.
EVERY_PLAN = PLANS | MORE_PLANS


class ExactGaussianScore:
    """s*(W | references) from the joint covariance of the states, whatever the references; counts its calls."""

    def __init__(self, video: GaussianVideo, frames: int) -> None:
        self.video = video
        self.calls = 0

    def __call__(self, window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
        self.calls += 1
        n, r, dim = len(references.window_frames), len(references.frames), window.shape[-1]
        states = [
            State(frame, float(level))
            for frames, at in ((references.window_frames, levels), (references.frames, references.levels))
            for frame, level in zip(frames, at, strict=True)
        ]
        mean, covariance = self.video.joint(states)
        gain, residual = condition(covariance[0], range(n * dim), range(n * dim, (n + r) * dim))
        rest = (
            window.flatten(1) - mean[0, : n * dim] - (references.values.flatten(1) - mean[0, n * dim :]) @ gain.T
        )
        return -torch.linalg.solve(residual, rest.T).T.reshape(window.shape)


# -- the closed form ------------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", [CASE_C, CASE_D], ids=["C", "D"])
def test_the_integral_is_the_memory_bottleneck_of_the_reference_cases(plan: Plan) -> None:
    covariance = reference_video().covariance(plan.total_frames(8))
    for k in range(1, 9):
        found = memory_bottleneck_along_clocks(covariance, 2, plan, k)
        assert float(found) == pytest.approx(float(memory_bottleneck(covariance, 2, plan, k)), abs=1e-12)


def test_case_c_adds_up_to_the_printed_sum() -> None:
    covariance = reference_video().covariance(CASE_C.total_frames(8))
    total = sum(float(memory_bottleneck_along_clocks(covariance, 2, CASE_C, k)) for k in range(1, 9))
    assert total == pytest.approx(4.611017, abs=0.5e-6)


@pytest.mark.parametrize("name", EVERY_PLAN)
def test_every_plan_noised_references_and_floors_included(name: str) -> None:
    plan = EVERY_PLAN[name]
    covariance = torch.from_numpy(random_video(plan.total_frames(3), 2, 3)[0])[None]
    for k in (1, 2, 3):
        found = memory_bottleneck_along_clocks(covariance, 2, plan, k)
        assert float(found) == pytest.approx(float(memory_bottleneck(covariance, 2, plan, k)), abs=1e-12)


@pytest.mark.parametrize("level", [0.0, 0.02, 1.0])
def test_the_noise_augmentation_dial(level: float) -> None:
    plan = dial_plan(level)
    covariance = torch.from_numpy(ar1(plan.total_frames(12), 0.95))[None]
    found = memory_bottleneck_along_clocks(covariance, 1, plan, 12)
    assert float(found) == pytest.approx(float(memory_bottleneck(covariance, 1, plan, 12)), abs=1e-12)


def test_a_nearly_singular_video_in_one_long_step() -> None:
    """The panels find the peak at the end of a step of length 20 over a smallest eigenvalue of about 1e-7.

    The closed form itself keeps ε/λ = 2e-16/1e-7 of its digits there, times a few tens.
    """
    plan = Plan((20.0, 20.0), 2, 20.0, 1, 1)
    covariance = torch.from_numpy(ar1(plan.total_frames(2), 1 - 1e-7))[None]
    found = memory_bottleneck_along_clocks(covariance, 1, plan, 2)
    assert float(found) == pytest.approx(float(memory_bottleneck(covariance, 1, plan, 2)), abs=1e-7)
    assert float(found) > 7


def test_the_path_of_the_clocks_does_not_matter() -> None:
    covariance = reference_video().covariance(CASE_C.total_frames(4))
    start, end = torch.tensor(CASE_C.ar_grid, dtype=torch.float64)[[0, -1]]
    levels = [start]
    for j in (2, 0, 3, 1):  # one frame after the other
        levels.append(torch.where(torch.arange(4) == j, end, levels[-1]))
    found = memory_bottleneck_along_clocks(covariance, 2, CASE_C, 4, torch.stack(levels))
    assert float(found) == pytest.approx(float(memory_bottleneck(covariance, 2, CASE_C, 4)), abs=1e-12)


def test_modes_stay_apart_and_gradients_flow() -> None:
    plan = PLANS["rolling, noised references, floor"]
    frames = plan.total_frames(3)
    modes = torch.stack([torch.from_numpy(random_video(frames, 1, seed)[0]) for seed in (1, 2)])
    both = memory_bottleneck_along_clocks(modes, 1, plan, 3)
    for b in (0, 1):
        assert float(both[b]) == pytest.approx(float(memory_bottleneck(modes[b : b + 1], 1, plan, 3)), abs=1e-12)
    leaf = modes.clone().requires_grad_()
    (slope,) = torch.autograd.grad(memory_bottleneck_along_clocks(leaf, 1, plan, 3).sum(), leaf)
    (expected,) = torch.autograd.grad(memory_bottleneck(leaf, 1, plan, 3).sum(), leaf)
    # Only the symmetric part of a covariance's gradient means something.
    torch.testing.assert_close(slope + slope.mT, expected + expected.mT, rtol=1e-9, atol=1e-11)


# -- from scores on samples -----------------------------------------------------------------------------


def exact(video: GaussianVideo, plan: Plan, k: int) -> float:
    return float(memory_bottleneck(video.covariance(plan.total_frames(k)), video.frame_dim, plan, k))


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
        score = ExactGaussianScore(video, CASE_C.total_frames(k))
        found = memory_bottleneck_from_scores(
            draw(video, CASE_C, k, 600, seed), CASE_C, k, score, score, form=form, seed=seed + 100
        )
        assert score.calls == 2 * (1 + 4 * CASE_C.reverse_steps)
        assert found.n == 600
        assert not found.warnings
        scores.append((found.value - truth) / found.stderr)
    assert 1.0 < float(np.square(scores).sum()) < 35.6


@pytest.mark.parametrize("name", ["chunks, mixed references, floor", "rolling, noised references, floor"])
def test_noised_references_a_floor_and_a_mean(name: str) -> None:
    plan, k = PLANS[name], 3
    covariance, mean = random_video(plan.total_frames(k), 2, 5)
    video = ArrayVideo(covariance, 2, mean)
    score = ExactGaussianScore(video, plan.total_frames(k))
    videos = draw(video, plan, k, 4000, 1)
    found = memory_bottleneck_from_scores(videos, plan, k, score, score, form="difference", points=6)
    # What is left at T = 3 is known to e^{-3} of itself, here less than the standard error: no warning.
    assert not found.warnings
    assert abs(found.value - exact(video, plan, k)) < 4 * found.stderr
    assert found.stderr < 0.05 * found.value


def test_the_two_forms_agree_and_the_difference_is_the_less_noisy() -> None:
    video, k = reference_video(), 3
    score = ExactGaussianScore(video, CASE_C.total_frames(k))
    videos = draw(video, CASE_C, k, 500, 3)
    losses = memory_bottleneck_from_scores(videos, CASE_C, k, score, score)
    difference = memory_bottleneck_from_scores(videos, CASE_C, k, score, score, form="difference")
    assert difference.stderr < losses.stderr / 2
    assert abs(losses.value - difference.value) < 4 * losses.stderr


def test_what_is_left_at_the_horizon_is_extrapolated() -> None:
    """T = 1: the new frames' noise still tells a good part, known to e^{-1} of itself."""
    plan = Plan((1.0, 1.0), 2, 1.0, 2, 2, references=References.last(1))
    video = reference_video()
    score = ExactGaussianScore(video, plan.total_frames(4))
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
    score = ExactGaussianScore(video, CASE_C.total_frames(k))

    def off(window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
        return score(window, levels, references) + c

    found = memory_bottleneck_from_scores(draw(video, CASE_C, k, 1500, 0), CASE_C, k, score, off)
    moved = sum(CASE_C.input_levels) - sum(CASE_C.output_levels)
    excess = (moved * 2 * c**2 + 2 * c**2) / 2
    assert abs(found.value - (exact(video, CASE_C, k) - excess)) < 4 * found.stderr
    assert found.ci_high < 0


def test_float32_scores_seeds_and_global_generators() -> None:
    video, k = reference_video(), 2
    score = ExactGaussianScore(video, CASE_C.total_frames(k))

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
    found = memory_bottleneck_from_scores(videos, plan, k, watch, watch, points=1, batch=100)
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
    for (levels, _), high, low in zip(seen[2::2], plan.ar_grid[:-1], plan.ar_grid[1:], strict=True):
        assert levels.tolist() == pytest.approx([(a + b) / 2 for a, b in zip(high, low, strict=True)])


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
    with pytest.raises(SampleError, match="at least one node and one video a batch are needed, got 0 and 1024"):
        run(points=0)
    for k in (0, 1):
        with pytest.raises(SampleError, match=rf"AR step {k} of the plan 'fifo' has no Past"):
            run(ar_step=k)
    with pytest.raises(SampleError, match=r"shape \(n ≥ 2, 6 frames or more, d\), got \(5, 5, 2\)"):
        run(videos[:, :5])
    with pytest.raises(SampleError, match="1 of 5 videos have NaN or infinite values, first video 2"):
        run(videos.index_put((torch.tensor(2), torch.tensor(0)), torch.tensor(math.nan, dtype=torch.float64)))
    with pytest.raises(SampleError, match=r"window's shape \(5, 4, 2\), got \(5, 4\)"):
        run(score=lambda window, levels, references: window[..., 0])
    with pytest.raises(SampleError, match="not finite at window levels"):
        run(score=lambda window, levels, references: window / 0)
    with pytest.raises(ValueError, match="at least one point, got 0"):
        memory_bottleneck_along_clocks(video.covariance(6), 2, CASE_C, 3, points=0)
