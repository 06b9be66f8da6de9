"""Chains, finite-state videos and their pictures."""

from __future__ import annotations

import math
import re

import mpmath
import numpy as np
import pytest
import torch

from arvdm_theory import Codebook, FiniteStateVideo, MarkovChain, moving_sprite, random_walk, sticky_chain
from arvdm_theory.information.gaussian import NotPositiveDefiniteError
from arvdm_theory.information.transfer import first_frames, push
from arvdm_theory.laws.chains import ChainError, periodic_chain, random_chain, torus_walk
from arvdm_theory.laws.emission import GaussianRegimes, sprite_pictures


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def within_errors(count: torch.Tensor, law: torch.Tensor, draws: int) -> None:
    """Frequencies agree with a law to 5 standard errors, and what is impossible never happens."""
    error = torch.sqrt(law * (1 - law) / draws)
    assert bool((count[law == 0] == 0).all())
    assert bool(((count / draws - law).abs() <= 5 * error + 1e-15).all())


BAD_CHAINS = {
    "transition row 1 sums to 0.9, not 1": ([[0.5, 0.5], [0.2, 0.7]], [1, 0.0]),
    "transition row (1, 0) sums to 1.2, not 1": (
        [[[0.5, 0.5], [0.5, 0.5]], [[0.6, 0.6], [0.5, 0.5]]],
        [[0.25, 0.25], [0.25, 0.25]],
    ),
    "the transition has a negative probability, -0.5, at (0, 1)": ([[1.5, -0.5], [0, 1.0]], [1, 0.0]),
    "the transition has entries that are NaN or infinite": ([[math.nan, 0.5], [0, 1.0]], [1, 0.0]),
    "the initial law sums to 1.5, not 1": ([[0.5, 0.5], [0, 1.0]], [1, 0.5]),
    "the initial law has a negative probability, -1, at (1,)": ([[0.5, 0.5], [0, 1.0]], [2, -1.0]),
    "shape (S,) * (p + 1), got (2, 3)": ([[0.5, 0.5, 0], [0, 1.0, 0]], [1, 0.0]),
    "must have shape (2,) (the first p states), got (2, 2)": (
        [[0.5, 0.5], [0, 1.0]],
        [[0.5, 0.5], [0, 0.0]],
    ),
    "the transition must be real numbers": ([["a", "b"], ["c", "d"]], [1, 0.0]),
    "the transition is empty": (np.zeros((0, 0)), [1, 0.0]),
}


@pytest.mark.parametrize("message", BAD_CHAINS)
def test_bad_chains_are_named(message: str) -> None:
    with pytest.raises(ChainError, match=re.escape(message.replace("-1, at", "-1.0, at"))):
        MarkovChain(*BAD_CHAINS[message])


def test_rows_wrong_by_single_precision_are_refused_and_by_rounding_divided_out() -> None:
    third = np.full((3, 3), 1 / 3)
    assert float(MarkovChain(third, third[0]).transition.sum(-1).sub(1).abs().max()) <= 2e-16
    with pytest.raises(ChainError, match="row 0 sums to"):
        MarkovChain(np.array([[0.1, 0.2, 0.7]] * 3, dtype=np.float32), third[0])


@pytest.mark.parametrize(("states", "order"), [(5, 1), (3, 2), (2, 3)])
def test_stationary_law_is_stationary_and_the_power_limit(states: int, order: int) -> None:
    chain = random_chain(states, order, seeded(order))
    law = chain.stationary_law().reshape(1, -1)
    # One step mixes S rounded products an entry.
    torch.testing.assert_close(push(law, chain.transition), law, rtol=1e-14, atol=0)
    later = chain.initial.reshape(1, -1)
    for _ in range(400):
        later = push(later, chain.transition)
    torch.testing.assert_close(later, law, rtol=1e-12, atol=0)
    started = MarkovChain.stationary(chain.transition)
    torch.testing.assert_close(started.law(0), started.law(50), rtol=1e-13, atol=0)


def test_stationary_law_keeps_small_probabilities() -> None:
    """Nearly decomposable, over 37 orders of magnitude: against the closed form of a birth-death chain."""
    up, down = [0.5, 1e-18, 1e-12, 1e-10], [0.25, 0.5, 0.125, 0.25]
    rows = torch.zeros(5, 5, dtype=torch.float64)
    for i in range(4):
        rows[i, i + 1], rows[i + 1, i] = up[i], down[i]
    rows += torch.diag(1 - rows.sum(-1))
    with mpmath.workdps(50):
        weight = [mpmath.mpf(1)]
        for u, d in zip(up, down, strict=True):
            weight.append(weight[-1] * mpmath.mpf(u) / mpmath.mpf(d))
        expected = [float(x / sum(weight)) for x in weight]
    law = MarkovChain.stationary(rows).initial
    np.testing.assert_allclose(law.numpy(), expected, rtol=1e-14)
    assert expected[-1] < 1e-37


def test_reducible_chains_name_their_closed_classes() -> None:
    rows = [[0.2, 0.8, 0, 0, 0], [0.6, 0.4, 0, 0, 0], [0.3, 0, 0.4, 0.3, 0], [0, 0, 0, 0, 1], [0, 0, 0, 1, 0.0]]
    chain = MarkovChain(rows, [0, 0, 1.0, 0, 0])
    assert chain.closed_classes() == (((0,), (1,)), ((3,), (4,)))
    with pytest.raises(ChainError, match=re.escape("2 closed classes have a stationary law each")) as error:
        chain.stationary_law()
    assert "{0, 1}; {3, 4}" in str(error.value)
    # Two transient states and one closed class: the law is unique.
    rows[3] = [1.0, 0, 0, 0, 0]
    law = MarkovChain(rows, [0, 0, 1.0, 0, 0]).stationary_law()
    torch.testing.assert_close(law, torch.tensor([3 / 7, 4 / 7, 0, 0, 0], dtype=torch.float64))
    # A second-order chain that keeps repeating its last state: the classes are pairs.
    repeat = torch.zeros(2, 2, 2, dtype=torch.float64)
    repeat[:, 0, 0] = repeat[:, 1, 1] = 1
    with pytest.raises(ChainError, match=re.escape("{(0, 0)}; {(1, 1)}")):
        MarkovChain.stationary(repeat)


def test_named_chains() -> None:
    assert periodic_chain(4).stationary_law().tolist() == [0.25] * 4
    assert periodic_chain(3).law(5).tolist() == pytest.approx([1 / 3] * 3)
    moved = MarkovChain(periodic_chain(3).transition, [1.0, 0, 0])
    assert moved.law(4).tolist() == [0, 1, 0]
    path = torch.tensor([[0, 1, 0], [1, 0, 2], [0, 2, 0.0]])
    walk = random_walk(path, stay=0.25)
    # Reversible: the law is proportional to the degree.
    np.testing.assert_allclose(walk.initial.numpy(), np.array([1, 3, 2]) / 6, rtol=1e-15)
    assert walk.transition[1].tolist() == [0.25, 0.25, 0.5]
    torus = torus_walk((2, 3), {(0, 1): 0.75, (1, 0): 0.25})
    assert float(torus.transition[2, 0]) == 0.75
    assert float(torus.transition[4, 1]) == 0.25
    torch.testing.assert_close(torus.stationary_law(), torus.initial)
    sticky = sticky_chain(4, 0.7)
    torch.testing.assert_close(sticky.stationary_law(), sticky.initial)
    with pytest.raises(ChainError, match="node 1 has no edge"):
        random_walk([[0, 1, 1], [0, 0, 0], [1, 1, 0]])
    with pytest.raises(ChainError, match="2 closed classes"):
        random_walk(np.kron(np.eye(2), [[0, 1], [1, 0]]))
    with pytest.raises(ChainError, match=r"row 0 sums to 0\.5"):
        torus_walk((2, 2), {(0, 0): 0.5})


@pytest.mark.parametrize(("states", "order"), [(3, 1), (2, 2), (2, 3)])
def test_sampled_frequencies(states: int, order: int) -> None:
    chain = random_chain(states, order, seeded(11))
    draws = 20_000
    path = chain.sample(draws, order + 2, seeded(5))
    index = (path * states ** torch.arange(order + 1, -1, -1)).sum(-1)
    count = torch.bincount(index, minlength=states ** (order + 2)).double()
    within_errors(count, first_frames(chain, order + 2).reshape(-1), draws)
    assert chain.sample(3, 1, seeded(0)).shape == (3, 1)
    assert torch.equal(chain.sample(7, 9, seeded(2)), chain.sample(7, 9, seeded(2)))


def test_a_sample_starts_where_it_is_told_and_does_nothing_impossible() -> None:
    chain = MarkovChain(periodic_chain(5).transition, [0, 0, 1.0, 0, 0])
    assert chain.sample(2, 6, seeded(0)).tolist() == [[2, 3, 4, 0, 1, 2]] * 2


def test_sampled_frames_of_the_three_kinds() -> None:
    chain, draws = sticky_chain(2, 0.8), 20_000
    markov = FiniteStateVideo(chain, Codebook([[0.0, 1.0], [2.0, 3.0]]))
    sample = markov.sample(4, 3, seeded(0))
    assert sample.frames.shape == (4, 3, 2)
    assert torch.equal(sample.symbols, sample.states)
    assert torch.equal(sample.frames[..., 0], 2.0 * sample.states)

    emission = torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.1, 0.9]], dtype=torch.float64)
    hidden = FiniteStateVideo(chain, Codebook([[0.0], [1.0], [2.0]], variance=0.25), emission)
    sample = hidden.sample(draws, 2, seeded(1))
    for state in range(2):
        shown = sample.symbols[:, 1][sample.states[:, 1] == state]
        within_errors(torch.bincount(shown, minlength=3).double(), emission[state], len(shown))
    noise = sample.frames[..., 0] - sample.symbols
    # The mean of n squares of variance 2 o⁴ each has the standard error o² √(2/n).
    assert abs(float((noise**2).mean()) - 0.25) < 5 * 0.25 * math.sqrt(2 / noise.numel())

    covariance = torch.tensor([[[1.0, 0.6], [0.6, 1.0]], [[0.5, 0.0], [0.0, 2.0]]])
    switching = FiniteStateVideo(chain, GaussianRegimes([[0.0, 0.0], [3.0, -3.0]], covariance))
    sample = switching.sample(draws, 1, seeded(2))
    for regime in range(2):
        frames = sample.frames[:, 0][sample.states[:, 0] == regime]
        mean = torch.tensor([0.0, 0.0] if regime == 0 else [3.0, -3.0], dtype=torch.float64)
        n = len(frames)
        spread = covariance[regime].double()
        assert bool(((frames.mean(0) - mean).abs() < 5 * torch.sqrt(spread.diagonal() / n)).all())
        # Var(sample covariance_ij) = (Σ_ii Σ_jj + Σ_ij²) / n.
        error = torch.sqrt((torch.outer(spread.diagonal(), spread.diagonal()) + spread**2) / n)
        assert bool(((torch.cov(frames.T) - spread).abs() < 5 * error).all())


def test_what_clean_frames_show() -> None:
    chain = sticky_chain(2, 0.8)
    assert FiniteStateVideo(chain, Codebook([[0.0], [1.0]])).readable_chain() is chain
    hidden = FiniteStateVideo(chain, Codebook([[0.0], [1.0]]), torch.eye(2, dtype=torch.float64))
    with pytest.raises(ChainError, match="hidden behind emissions"):
        hidden.readable_chain()
    assert hidden.shows_symbols
    for rendering in (Codebook([[0.0], [0.0]]), Codebook([[0.0], [1.0]], variance=0.1)):
        with pytest.raises(ChainError, match="do not show their states"):
            FiniteStateVideo(chain, rendering).readable_chain()


def test_a_sprite_at_any_resolution() -> None:
    sprite = np.array([[[1.0, 0.0], [2.0, 0.0]]])  # one cell high, two wide, two channels
    small = sprite_pictures((2, 3), (2, 3), sprite)
    assert small.shape == (6, 2, 3, 2)
    # Symbol 5 is row 1, column 2: the sprite wraps round to column 0.
    assert small[5, :, :, 0].tolist() == [[0, 0, 0], [2, 0, 1]]
    large = sprite_pictures((2, 3), (8, 12), sprite)
    assert torch.equal(large, small.repeat_interleave(4, 1).repeat_interleave(4, 2))
    odd = sprite_pictures((2, 3), (5, 7), sprite)
    # Pixel centres (i + ½)·3/7 lie in cells 0, 0, 1, 1, 1, 2, 2, and (i + ½)·2/5 in 0, 0, 1, 1, 1.
    assert torch.equal(odd, small[:, [0, 0, 1, 1, 1]][:, :, [0, 0, 1, 1, 1, 2, 2]])
    video = moving_sprite((4, 4), (16, 16), variance=0.01)
    assert (video.chain.states, video.frame_dim, video.rendering.shape) == (16, 256, (16, 16, 1))
    assert video.rendering.distinct
    assert not moving_sprite((4, 4), (2, 2)).shows_symbols
    with pytest.raises(ValueError, match=re.escape("fits (2, 3) cells")):
        sprite_pictures((2, 3), (8, 8), np.ones((3, 1, 1)))


def test_bad_videos_are_named() -> None:
    chain = sticky_chain(2, 0.8)
    with pytest.raises(ChainError, match="2 states need as many renderings, got 3"):
        FiniteStateVideo(chain, Codebook(torch.zeros(3, 4)))
    with pytest.raises(ChainError, match=re.escape("must have shape (2, 3), got (2, 2)")):
        FiniteStateVideo(chain, Codebook(torch.zeros(3, 4)), torch.eye(2))
    with pytest.raises(ChainError, match=r"emission row 1 sums to 0\.5"):
        FiniteStateVideo(chain, Codebook(torch.zeros(2, 4)), torch.tensor([[1.0, 0], [0, 0.5]]))
    with pytest.raises(ValueError, match="variance must be finite and not negative, got -1"):
        Codebook([[0.0], [1.0]], variance=-1.0)
    with pytest.raises(ValueError, match="codebook has entries that are NaN"):
        Codebook([[0.0], [math.nan]])
    with pytest.raises(NotPositiveDefiniteError, match="covariance of a regime"):
        GaussianRegimes([[0.0, 0.0]], [[[1.0, 1.0], [1.0, 1.0]]])
    with pytest.raises(ValueError, match="not symmetric"):
        GaussianRegimes([[0.0, 0.0]], [[[1.0, 0.5], [0.0, 1.0]]])
    with pytest.raises(ValueError, match="covariances \\(regimes, d, d\\) are needed"):
        GaussianRegimes([[0.0, 0.0]], [[1.0, 1.0]])
