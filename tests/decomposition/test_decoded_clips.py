"""Clips read back as pictures: the true law against samples, the estimated divergence against enumeration."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from arvdm_theory import Codebook, FiniteStateVideo, sticky_chain
from arvdm_theory.information.estimators import EstimationWarning, SampleError
from arvdm_theory.laws.emission import GaussianRegimes
from arvdm_theory.noise import alpha, sigma2
from arvdm_theory.rollout.decoded import confusion_matrix, decoded_kl, decoded_law, read_pictures

PICTURES = [[0.0, 1.0], [1.0, 0.0], [-1.0, -1.0]]
EMISSION = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.5, 0.3]], dtype=torch.float64)


def noised(frames: torch.Tensor, level: float, seed: int) -> torch.Tensor:
    at = torch.tensor(level, dtype=torch.float64)
    noise = torch.randn(frames.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return alpha(at) * frames + torch.sqrt(sigma2(at)) * noise


@pytest.mark.parametrize("symbols", [2, 3])
@pytest.mark.parametrize(("level", "variance"), [(0.5, 0.0), (0.0, 0.3), (0.3, 0.2)])
def test_the_channel_is_what_happens_to_true_frames(symbols: int, level: float, variance: float) -> None:
    video = FiniteStateVideo(sticky_chain(symbols, 0.8), Codebook(PICTURES[:symbols], variance))
    channel, draws = confusion_matrix(video, level), 40_000
    torch.testing.assert_close(channel.sum(-1), torch.ones(symbols, dtype=torch.float64))
    for symbol in range(symbols):
        clean = video.rendering.sample(torch.full((draws,), symbol), torch.Generator().manual_seed(7))
        read = read_pictures(video, noised(clean, level, symbol), level)
        share = torch.bincount(read, minlength=symbols) / draws
        error = torch.sqrt(channel[symbol] * (1 - channel[symbol]) * (1 / draws + 1 / 200_000))
        assert bool(((share - channel[symbol]).abs() <= 5 * error + 1e-12).all())


def test_without_noise_everything_is_read_right() -> None:
    video = FiniteStateVideo(sticky_chain(3, 0.8), Codebook(PICTURES))
    assert torch.equal(confusion_matrix(video), torch.eye(3, dtype=torch.float64))
    sample = video.sample(50, 4, torch.Generator().manual_seed(0))
    assert torch.equal(read_pictures(video, sample.frames), sample.states)


def test_the_law_of_read_frames_by_enumeration() -> None:
    video = FiniteStateVideo(sticky_chain(2, 0.8), Codebook(PICTURES), EMISSION)
    frames, level = (0, 2), 0.4
    channel = confusion_matrix(video, level)
    law = torch.zeros(3, 3, dtype=torch.float64)
    for states in itertools.product(range(2), repeat=3):
        weight = float(video.chain.initial[states[0]])
        for a, b in itertools.pairwise(states):
            weight *= float(video.chain.transition[a, b])
        first, last = (EMISSION[states[frame]] @ channel for frame in frames)
        law += weight * torch.outer(first, last)
    torch.testing.assert_close(decoded_law(video, frames, level), law, rtol=0, atol=1e-14)


@pytest.mark.filterwarnings("ignore::arvdm_theory.information.estimators.EstimationWarning")
def test_the_divergence_of_another_chain() -> None:
    """Its mean over repetitions is KL(P || Q) of the two tables, and its spread the stated standard error."""
    truth = FiniteStateVideo(sticky_chain(3, 0.8), Codebook(PICTURES, 0.05))
    other = FiniteStateVideo(sticky_chain(3, 0.6), Codebook(PICTURES, 0.05))
    frames, runs, n = (1, 2, 3), 300, 800
    p, q = (decoded_law(video, frames).flatten() for video in (truth, other))
    exact = float((p * torch.log(p / q)).sum())
    found = []
    for seed in range(runs):
        sample = other.sample(n, 4, torch.Generator().manual_seed(seed)).frames
        found.append(decoded_kl(truth, sample, frames))
    values = torch.tensor([estimate.value for estimate in found], dtype=torch.float64)
    errors = torch.tensor([estimate.stderr for estimate in found], dtype=torch.float64)
    # What the first-order correction leaves is of second order, Σ p/(n q)²/3 or so, and the channel's Monte Carlo.
    left = float((p / (n * q) ** 2).sum())
    assert abs(float(values.mean()) - exact) < 5 * float(values.std()) / math.sqrt(runs) + left
    # The standard deviation of 300 runs is known to 1/sqrt(600) of itself; the mean of the errors to far less.
    assert abs(float(errors.mean() / values.std()) - 1) < 5 / math.sqrt(2 * runs)


def test_too_few_videos_are_told_and_stay_finite() -> None:
    truth = FiniteStateVideo(sticky_chain(3, 0.8), Codebook(PICTURES))
    stuck = torch.tensor(PICTURES[:1], dtype=torch.float64).expand(20, 3, 2)
    with pytest.warns(EstimationWarning, match="hold few or none of 20 videos"):
        estimate = decoded_kl(truth, stuck, (0, 1))
    assert math.isfinite(estimate.value)
    assert estimate.value > 0


def test_bad_input() -> None:
    truth = FiniteStateVideo(sticky_chain(3, 0.8), Codebook(PICTURES))
    with pytest.raises(SampleError, match="more than 4 frames"):
        decoded_kl(truth, torch.zeros(5, 4, 2), (3, 4))
    regimes = GaussianRegimes(torch.zeros(2, 1), torch.ones(2, 1, 1))
    with pytest.raises(SampleError, match="no pictures of a codebook"):
        decoded_law(FiniteStateVideo(sticky_chain(2, 0.8), regimes), (0,))
