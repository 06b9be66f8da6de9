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

from arvdm_theory.diffusion.kernel import stage_kernel
from arvdm_theory.diffusion.rollout import SamplerLaw, rollout
from arvdm_theory.diffusion.scores import PerturbedScore
from arvdm_theory.diffusion.steps import STEPS
from arvdm_theory.diffusion.window import ar_window, init_window
from arvdm_theory.laws.gaussian import ArrayVideo
from arvdm_theory.laws.pixels import ExponentialMemory, PixelVideo, PowerLaw

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
    made = rollout(video, plan, 3, 20_000, PerturbedScore(0.05), step, seeded(1))
    assert made.shape == (20_000, 1, plan.clean_frames(3), 2)
    law = torch.from_numpy(dense.q.mean(clean)), torch.from_numpy(dense.q.covariance(clean))
    assert_moments(made.reshape(20_000, -1), *law)


@pytest.mark.parametrize("name", EVERY_PLAN)
def test_the_exact_law_of_the_rollout_is_the_dense_one(name: str) -> None:
    plan = EVERY_PLAN[name]
    covariance, mean = random_video(plan.total_frames(3), 2, 2)
    dense = dense_ledger(covariance, mean, 2, plan, 3, "euler", score_error=-0.1)
    both = torch.from_numpy(mean)[None], torch.from_numpy(covariance)[None]
    score = PerturbedScore(-0.1)
    init = init_window(*both, 2, plan)
    law = SamplerLaw.initial(plan, stage_kernel(init, score.affine(init), STEPS["euler"]), 2)
    np.testing.assert_allclose(law.covariance[0], dense.q.covariance(dense.tour.first), rtol=1e-10, atol=1e-12)
    for k, ar in enumerate(dense.tour.steps, start=1):
        window = ar_window(*both, 2, plan, k)
        law = law.advance(plan, k, stage_kernel(window, score.affine(window), STEPS["euler"]))
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
    first, again, other = (rollout(video, plan, 2, 7, generator=seeded(seed)) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.isclose(first, other).any()


def test_a_callable_score_generates_what_its_affine_form_does() -> None:
    """Draws are made in one order for every score, so videos agree draw by draw."""
    plan = PLANS["rolling, noised references, floor"]
    covariance, mean = random_video(plan.total_frames(3), 2, 4)
    video = ArrayVideo(covariance, 2, mean)
    exact = rollout(video, plan, 3, 50, generator=seeded(7))
    told = rollout(video, plan, 3, 50, OracleScore(covariance, mean, 2), generator=seeded(7))
    np.testing.assert_allclose(told, exact, rtol=0, atol=1e-9)
    once, twice = (
        rollout(video, plan, 3, 50, OracleScore(covariance, mean, 2, _bend(size)), generator=seeded(7)) - exact
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
    made = rollout(pixels, plan, 3, 20_000, generator=seeded(8))
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
    for ar_steps, videos in ((0, 5), (2, 0), (-1, 5)):
        with pytest.raises(ValueError, match=f"one AR step and one video are needed, got {ar_steps} and {videos}"):
            rollout(video, plan, ar_steps, videos)
    with pytest.raises(ValueError, match="7 frames are needed, but the video 'array' has 6"):
        rollout(video, plan, 5, 1)
