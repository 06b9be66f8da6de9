"""Mean and covariance of finite-state videos against the enumeration of all state sequences, and their uses."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from arvdm_theory import (
    ArrayVideo,
    Codebook,
    FiniteStateVideo,
    PerturbedScore,
    Plan,
    References,
    ar1,
    measured_clip_kl,
    predicted_clip_kl,
)
from arvdm_theory.information.gaussian import kl_divergence
from arvdm_theory.laws.chains import MarkovChain, random_chain, sticky_chain
from arvdm_theory.laws.emission import GaussianRegimes

EMISSION = [[0.9, 0.1, 0.0], [0.2, 0.5, 0.3], [0.0, 0.4, 0.6]]
PICTURES = [[0.0, 1.0], [1.0, 0.0], [-1.0, -1.0]]
SPREADS = [[[0.5, 0.1], [0.1, 0.3]], [[1.0, 0.0], [0.0, 0.2]], [[0.2, -0.1], [-0.1, 0.4]]]


def chain(order: int) -> MarkovChain:
    return random_chain(3, order, torch.Generator().manual_seed(order))


CASES = {
    "noise-free": (FiniteStateVideo(chain(1), Codebook(PICTURES)), 0.0),
    "noisy": (FiniteStateVideo(chain(2), Codebook(PICTURES, 0.3)), 0.3),
    "hidden": (
        FiniteStateVideo(chain(1), Codebook(PICTURES, 0.1), torch.tensor(EMISSION, dtype=torch.float64)),
        0.1,
    ),
    "regimes": (FiniteStateVideo(chain(3), GaussianRegimes(PICTURES, SPREADS)), None),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("frames", [1, 2, 4])
def test_moments_match_the_enumeration_of_all_state_sequences(name: str, frames: int) -> None:
    video, variance = CASES[name]
    chain, d, length = video.chain, 2, max(frames, video.chain.order)
    shows = np.eye(3) if video.emission is None else video.emission.numpy()
    pictures = np.array(PICTURES)
    spreads = np.array(SPREADS) if variance is None else np.stack([variance * np.eye(d)] * 3)
    mean, square = np.zeros(frames * d), np.zeros((frames * d, frames * d))
    for states in itertools.product(range(3), repeat=length):
        weight = float(chain.initial[states[: chain.order]])
        for i in range(chain.order, length):
            weight *= float(chain.transition[states[i - chain.order : i + 1]])
        means = (shows[list(states[:frames])] @ pictures).reshape(-1)
        mean += weight * means
        square += weight * np.outer(means, means)
        for i, state in enumerate(states[:frames]):
            second = np.einsum("y,yab->ab", shows[state], spreads + pictures[:, :, None] * pictures[:, None])
            block = slice(i * d, (i + 1) * d)
            square[block, block] += weight * (second - np.outer(means[block], means[block]))
    found = video.known_moments(frames)
    assert [part.shape for part in found] == [(1, frames * d), (1, frames * d, frames * d)]
    # Sums of some hundred products of order one, in two orders.
    assert np.allclose(found[0][0], mean, rtol=0, atol=1e-13)
    assert np.allclose(found[1][0], square - np.outer(mean, mean), rtol=0, atol=1e-13)


def test_a_law_of_ones_own_knows_none_and_a_gaussian_one_its_own() -> None:
    mean, covariance = ar1(0.5).known_moments(3)
    assert torch.equal(mean, torch.zeros(1, 3, dtype=torch.float64))
    assert torch.allclose(covariance[0, 0], torch.tensor([1.0, 0.5, 0.25], dtype=torch.float64))

    @dataclass(frozen=True)
    class Renamed(FiniteStateVideo):
        """A law that knows its moments as little as one of five methods does."""

        def known_moments(self, frames: int) -> None:  # type: ignore[override]
            del frames

    blind = Renamed(chain(1), Codebook(PICTURES, 0.1))
    plan = Plan((3.0,), 1, 3.0, 3, 3, references=References.last(1))
    exact = predicted_clip_kl(CASES["noise-free"][0], Plan((3.0,), 1, 3.0, 3, 3, floor=0.2), 1, bound=False)
    assert set(exact.table.form) == {"moment_linear", "moment_linear_residual"}
    sampled = predicted_clip_kl(blind, plan, 2, PerturbedScore(0.3), bound=False, samples=4000)
    known = predicted_clip_kl(
        FiniteStateVideo(chain(1), Codebook(PICTURES, 0.1)),
        plan,
        2,
        PerturbedScore(0.3),
        bound=False,
        samples=4000,
    )
    both = sampled.table.merge(known.table, on=["ar_step", "form"], suffixes=("", "_known"))
    assert len(both) == 4
    # The same videos are regressed on: exact true moments take one source of error away and add none.
    gap = (both.value - both.value_known).abs()
    assert (gap <= 4.5 * np.hypot(both.stderr, both.stderr_known)).all()
    assert (gap > 0).all()


def test_the_measured_moment_form_is_unbiased() -> None:
    """Against the KL of two Gaussians: of the video's exact moments, and the one that frames are drawn from."""
    video, floor = FiniteStateVideo(sticky_chain(3, 0.7), Codebook(PICTURES, 0.2)), 0.1
    plan = Plan((3.0, 3.0), 2, 3.0, 2, 2, floor=floor)
    mean, covariance = video.known_moments(4)
    scale = torch.exp(torch.tensor(-floor, dtype=torch.float64))
    noised = scale * covariance[0] - torch.expm1(torch.tensor(-floor, dtype=torch.float64)) * torch.eye(8)
    true = torch.sqrt(scale) * mean[0, 4:], noised[4:, 4:]
    other = ArrayVideo(1.5 * noised, 2, 0.5 + torch.sqrt(scale) * mean[0])

    def clip(m: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        return m[None], c[None]

    expected = float(kl_divergence(*clip(*true), *clip(0.5 + true[0], 1.5 * true[1])))
    scores = []
    for seed in range(60):
        generated = other.draw(200, 4, torch.Generator().manual_seed(seed)).frames
        found = measured_clip_kl(video, generated, plan, 1).table.iloc[0]
        assert found.form == "measured_moment_gaussian"
        scores.append((found.value - expected) / found.stderr)
    assert abs(np.mean(scores)) <= 4.5 / np.sqrt(60)
    assert np.mean(np.square(scores)) <= 2  # 60 squares of t of 200: mean 1, standard deviation 0.19
