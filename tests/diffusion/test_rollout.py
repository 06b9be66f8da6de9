"""Generated videos against the law that the dense reference gives the sampler, and their reproducibility."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from dense_reference import Step, dense_ledger
from moments import assert_moments
from oracle_score import OracleScore
from reference_cases import MORE_PLANS, PLANS, random_video
from torch import Tensor

from arvdm_theory import (
    ArrayVideo,
    ControlledVideo,
    ExactScore,
    PerturbedScore,
    PixelVideo,
    generate,
    moving_sprite,
    state_space,
)
from arvdm_theory.diffusion.steps import STEPS
from arvdm_theory.laws.gaussian_kernel import stage_kernel
from arvdm_theory.laws.gaussian_sampler import SamplerLaw
from arvdm_theory.laws.pixels import ExponentialMemory, PowerLaw

EVERY_PLAN = {**PLANS, **MORE_PLANS}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("chunks with references", "exponential"),
        ("chunks, mixed references, floor", "euler"),
        ("chunks, causal mask", "ddim"),
        ("rolling, noised references, floor", "ddpm"),
        ("rolling, warmup", "exponential"),
        ("frames that wait", "ancestral"),
        ("stride does not divide the window", "exponential"),
        ("all frames noised, warmup", "euler"),
    ],
)
def test_generated_videos_follow_the_samplers_law(name: str, step: Step) -> None:
    plan = EVERY_PLAN[name]
    covariance, mean = random_video(plan.total_frames(3), 2, 0)
    dense = dense_ledger(covariance, mean, 2, plan, 3, step, score_error=0.05)
    clean = dense.tour.clean
    video = ArrayVideo(covariance, 2, mean)
    made = generate(PerturbedScore(0.05), plan, 3, 20_000, video=video, step=step, generator=seeded(1))
    assert made.shape == (20_000, plan.clean_frames(3), 2)
    law = torch.from_numpy(dense.q.mean(clean)), torch.from_numpy(dense.q.covariance(clean))
    assert_moments(made.reshape(20_000, -1), *law)


@pytest.mark.parametrize("name", EVERY_PLAN)
def test_the_exact_law_of_the_rollout_is_the_dense_one(name: str) -> None:
    plan = EVERY_PLAN[name]
    covariance, mean = random_video(plan.total_frames(3), 2, 2)
    dense = dense_ledger(covariance, mean, 2, plan, 3, "euler", score_error=-0.1)
    video, score = ArrayVideo(covariance, 2, mean), PerturbedScore(-0.1)
    init = video.at(plan.stage(0)).window
    law = SamplerLaw.initial(plan, stage_kernel(init, score.affine(init), STEPS["euler"]), 2)
    np.testing.assert_allclose(law.covariance[0], dense.q.covariance(dense.tour.first), rtol=1e-10, atol=1e-12)
    for k, ar in enumerate(dense.tour.steps, start=1):
        window = video.at(plan.stage(k)).window
        law = law.advance(plan, window.stage, stage_kernel(window, score.affine(window), STEPS["euler"]))
        # All clean frames so far and the noisy rest of the window, which the next step starts from.
        done = plan.clean_frames(k)
        keys = (
            (*dense.tour.clean[:done], *ar.output[plan.stride :]) if plan.overlapping else dense.tour.clean[:done]
        )
        np.testing.assert_allclose(law.mean[0], dense.q.mean(keys), rtol=1e-10, atol=1e-11)
        np.testing.assert_allclose(law.covariance[0], dense.q.covariance(keys), rtol=1e-10, atol=1e-11)
    mean_of_two, covariance_of_two = law.frames(range(1, 3))
    keys = dense.tour.clean[1:3]
    np.testing.assert_allclose(mean_of_two[0], dense.q.mean(keys), rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(covariance_of_two[0], dense.q.covariance(keys), rtol=1e-10, atol=1e-11)


def test_the_same_seed_gives_the_same_videos() -> None:
    plan = PLANS["chunks, noised references"]
    covariance, mean = random_video(plan.total_frames(2), 2, 3)
    video = ArrayVideo(covariance, 2, mean)
    first, again, other = (generate(None, plan, 2, 7, video=video, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.isclose(first, other).any()


def test_a_callable_score_generates_what_its_affine_form_does() -> None:
    """Draws are made in one order for every score, so videos agree draw by draw."""
    plan = PLANS["rolling, noised references, floor"]
    covariance, mean = random_video(plan.total_frames(3), 2, 4)
    video = ArrayVideo(covariance, 2, mean)
    exact = generate(ExactScore(), plan, 3, 50, video=video, generator=seeded(7))
    told = generate(OracleScore(covariance, mean, 2), plan, 3, 50, video=video, generator=seeded(7))
    np.testing.assert_allclose(told, exact, rtol=0, atol=1e-9)
    once, twice = (
        generate(OracleScore(covariance, mean, 2, _bend(size)), plan, 3, 50, 2, generator=seeded(7)) - exact
        for size in (1e-4, 2e-4)
    )
    # A small score error moves videos in proportion to it; the next order is smaller by the error itself times a
    # gain of the reverse flow, at most e^{T/2} = 4.5 in each of 3 AR steps: 1e-4 · 4.5³ = 0.01.
    assert float(once.abs().max()) > 1e-5
    assert float((twice - 2 * once).abs().max()) < 0.01 * float(once.abs().max())


def _bend(size: float) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda window, references: size * torch.tanh(window)


def test_modes_are_generated_side_by_side() -> None:
    plan = replace(PLANS["rolling"], init_grid=(), init_steps=2)
    pixels = PixelVideo(2, 2, PowerLaw(), ExponentialMemory(tau=4.0), mean=(1.0,))
    frames = plan.total_frames(3)
    made = generate(None, plan, 3, 20_000, video=pixels, generator=seeded(8))
    assert made.shape == (20_000, pixels.modes, 3, 1)
    for mode in range(pixels.modes):
        covariance, mean = pixels.covariance(frames)[mode].numpy(), pixels.mean(frames)[mode].numpy()
        dense = dense_ledger(covariance, mean, 1, plan, 3)
        clean = dense.tour.clean
        law = torch.from_numpy(dense.q.mean(clean)), torch.from_numpy(dense.q.covariance(clean))
        assert_moments(made[:, mode].reshape(20_000, -1), *law)


def test_refuses_to_generate_nothing() -> None:
    video = ArrayVideo(np.eye(6), 1)
    plan = PLANS["rolling"]
    for ar_steps, videos, what in ((0, 5, "AR step is needed, got 0"), (2, 0, "video is needed, got 0"),
                                   (-1, 5, "AR step is needed, got -1")):  # fmt: skip
        with pytest.raises(ValueError, match=f"at least one {what}"):
            generate(None, plan, ar_steps, videos, video=video)
    with pytest.raises(ValueError, match="7 frames are needed, but the video 'array' has 6"):
        generate(None, plan, 5, 1, video=video)


# -- the exact posterior's noise, and actions -----------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["chunks, mixed references, floor", "rolling", "stride does not divide the window"]
)
def test_ancestral_steps_of_any_score_take_their_noise_from_the_known_video(name: str) -> None:
    """A callable of one's own, wrong by -0.05 W; the noise is the true conditional's of the video beside it."""
    plan = EVERY_PLAN[name]
    covariance, mean = random_video(plan.total_frames(3), 2, 5)
    dense = dense_ledger(covariance, mean, 2, plan, 3, "ancestral", score_error=0.05)
    score = OracleScore(covariance, mean, 2, lambda window, references: -0.05 * window)
    made = generate(score, plan, 3, 20_000, video=ArrayVideo(covariance, 2, mean), step="ancestral", seed=9)
    clean = dense.tour.clean
    law = torch.from_numpy(dense.q.mean(clean)), torch.from_numpy(dense.q.covariance(clean))
    assert_moments(made.reshape(20_000, -1), *law)


def test_ancestral_noise_of_every_mode_is_its_own() -> None:
    plan = PLANS["rolling"]
    pixels = PixelVideo(2, 2, PowerLaw(), ExponentialMemory(tau=4.0))
    made = generate(None, plan, 2, 20_000, video=pixels, step="ancestral", seed=10)
    frames, clean = plan.total_frames(2), plan.clean_frames(2)
    assert made.shape == (20_000, pixels.modes, clean, 1)
    for mode in range(pixels.modes):
        covariance, mean = pixels.covariance(frames)[mode].numpy(), pixels.mean(frames)[mode].numpy()
        dense = dense_ledger(covariance, mean, 1, plan, 2, "ancestral")
        keys = dense.tour.clean
        law = torch.from_numpy(dense.q.mean(keys)), torch.from_numpy(dense.q.covariance(keys))
        assert_moments(made[:, mode].reshape(20_000, -1), *law)


def test_ancestral_steps_are_refused_for_a_law_whose_posterior_is_no_gaussian() -> None:
    plan = PLANS["chunks, mixed references, floor"]
    with pytest.raises(ValueError, match="which the video 'moving sprite' has in no Gaussian form: choose expon"):
        generate(None, plan, 2, 3, video=moving_sprite((2, 2), (2, 2)), step="ancestral")


def controlled() -> ControlledVideo:
    return ControlledVideo(
        [[0.7, 0.2], [-0.1, 0.6]], [[0.3, 0.1], [0.1, 0.2]], [[1.0, 0.5], [0.2, 0.8]], 0.1 * np.eye(2),
        control=[[0.8], [-0.5]], policy=[[1.5]], mean=[0.2, -0.1],
    )  # fmt: skip


@pytest.mark.parametrize("step", ["exponential", "ancestral"])
def test_given_its_actions_a_controlled_video_is_a_gaussian_one_with_another_mean(step: Step) -> None:
    """For one course of actions u: the dense law of a video without actions whose mean they have moved."""
    plan = PLANS["chunks, mixed references, floor"]
    video, frames = controlled(), plan.total_frames(3)
    still = state_space(
        [[0.7, 0.2], [-0.1, 0.6]], [[0.3, 0.1], [0.1, 0.2]], [[1.0, 0.5], [0.2, 0.8]], 0.1 * np.eye(2), [0.2, -0.1]
    )
    actions = np.sin(1.0 + np.arange(frames))
    z, means = np.zeros(2), []
    for action in actions:
        z = np.array([[0.7, 0.2], [-0.1, 0.6]]) @ z + np.array([0.8, -0.5]) * action
        means.append(np.array([0.2, -0.1]) + np.array([[1.0, 0.5], [0.2, 0.8]]) @ z)
    covariance, mean = still.covariance(frames)[0].numpy(), np.concatenate(means)
    dense = dense_ledger(covariance, mean, 2, plan, 3, step, score_error=0.05)
    clean = dense.tour.clean
    told = torch.from_numpy(actions)[None, :, None].expand(20_000, -1, -1)
    score = PerturbedScore(0.05)
    made = generate(score, plan, 3, 20_000, video=video, step=step, actions=told, seed=11)
    law = torch.from_numpy(dense.q.mean(clean)), torch.from_numpy(dense.q.covariance(clean))
    assert_moments(made.reshape(20_000, -1), *law)


def test_actions_that_are_not_given_are_drawn_from_the_videos_law() -> None:
    """They are the generator's first draws; a score that is not told them makes what it makes of any others."""
    plan, video = PLANS["rolling"], controlled()
    source = seeded(12)
    actions = video.draw(50, plan.total_frames(3), source).actions
    assert actions is not None
    drawn = generate(None, plan, 3, 50, video=video, seed=12)
    assert torch.equal(drawn, generate(None, plan, 3, 50, video=video, actions=actions, generator=source))
    unaware, others = (
        generate(ExactScore(actions=False), plan, 3, 50, video=video, actions=told, seed=13)
        for told in (actions, -actions)
    )
    assert torch.equal(unaware, others)
    aware = generate(None, plan, 3, 50, video=video, actions=actions, seed=13)
    assert float((aware - unaware).abs().max()) > 0.1
