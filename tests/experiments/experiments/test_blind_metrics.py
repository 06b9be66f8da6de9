"""What short windows of a rollout with little memory show: perfect samplers against the library's closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from arvdm_theory.decomposition.ledger import ledger
from arvdm_theory.decomposition.state_kernels import frames_law
from arvdm_theory.experiments.blind_metrics.run import (
    PRESETS,
    _chain_windows,
    _exact,
    _plan,
    _window_moments,
    sampler_law,
    seen_from,
    with_memory,
)
from arvdm_theory.experiments.videos import VIDEOS
from arvdm_theory.information.gaussian import kl_divergence
from arvdm_theory.laws.finite import FiniteStateVideo
from arvdm_theory.laws.gaussian import GaussianVideo
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.references import References


def _gaussian(name: str) -> GaussianVideo:
    video = VIDEOS[name]()
    assert video.gaussian
    return video


def _walker() -> FiniteStateVideo:
    video = VIDEOS["walker on a circle"]()
    assert not video.gaussian
    return video


@pytest.mark.parametrize("step", ["ancestral", "exponential"])
@pytest.mark.parametrize("window", [1, 2])
def test_sampler_law_is_the_ledgers(step: str, window: int) -> None:
    """Its KL to the truth is the ledger's KL(clean): the ledger builds the law stage by stage on its own."""
    plan = Plan((6.0,) * window, window, 6.0, 5, init_steps=5, references=References.last(2), floor=0.02)
    video, ar_steps = _gaussian("reference"), 3
    law = sampler_law(video, plan, ar_steps, step)
    frames, level = plan.clean_frames(ar_steps), math.exp(-0.02)
    size = frames * video.frame_dim
    truth = level * video.covariance(frames) + (1 - level) * torch.eye(size, dtype=torch.float64)
    found = kl_divergence(math.sqrt(level) * video.mean(frames), truth, law.mean(frames), law.covariance(frames))
    wanted = ledger(video, plan, ar_steps, step=step, girsanov=False, memory=False).totals["kl"]
    # Both are sums over a few dozen eigenvalues of matrices whose condition is below 1e3.
    assert float(found) == pytest.approx(wanted, rel=1e-10)


def test_windows_of_m_plus_one_frames_are_exact() -> None:
    """Without discretisation error only the start from N(0, I) at T is left, and that vanishes like e^{-T}."""
    video, memory, frames = _gaussian("long memory"), 2, 8
    divergences = {}
    for horizon in (8.0, 16.0):
        references = References.last(memory)
        plan = Plan(
            (horizon,), 1, horizon, 4, init_steps=4, references=references, floor=0.02, spacing="geometric"
        )
        law = sampler_law(video, plan, frames - 1)
        level = math.exp(-0.02)
        truth = level * video.covariance(frames)[0] + (1 - level) * torch.eye(frames, dtype=torch.float64)
        mean, made = law.mean(frames)[0], law.covariance(frames)[0]
        divergences[horizon] = [
            float(kl_divergence(0 * mean[-n:], truth[-n:, -n:], mean[-n:], made[-n:, -n:]))
            for n in range(1, frames + 1)
        ]
    # By the chain rule such a window's KL is at most the sum of NIE over the frames so far, and each is at most
    # ½ e^{-T} E X² and a term of second order.
    for horizon, values in divergences.items():
        assert max(values[: memory + 1]) < frames * math.exp(-horizon)
        assert values[memory + 1] > 1e-3


def test_a_chain_with_memory_m_keeps_windows_of_m_plus_one() -> None:
    video = _walker()
    for memory in (0, 1, 2):
        own = with_memory(video, memory)
        for length in range(1, memory + 2):
            true, kept = (frames_law(v.chain, range(4, 4 + length)) for v in (video, own))
            # Products of at most eight probabilities.
            assert torch.allclose(true, kept, rtol=0, atol=1e-14)
    before, after = (frames_law(v.chain, range(3)) for v in (video, with_memory(video, 1)))
    assert not torch.allclose(before, after, rtol=0, atol=1e-3)


@pytest.mark.parametrize("memory", [0, 1])
def test_finite_windows_against_enumeration(memory: int) -> None:
    """The sum of conditional informations is the KL of the tables of all state sequences, and so is Σ MB."""
    video = _walker()
    own, frames = with_memory(video, memory), 5
    for length, (_, _, value) in enumerate(_chain_windows(video, memory, frames), 1):
        p, q = (frames_law(v.chain, range(2, 2 + length)) for v in (video, own))
        direct = float((torch.xlogy(p, p) - torch.xlogy(p, q)).sum())
        assert value == pytest.approx(direct, abs=1e-12)
    [lost] = [row[4] for row in _exact(PRESETS["smoke"], "walker on a circle", memory) if row[1] == "mb"]
    frames = PRESETS["smoke"].options["videos"]["walker on a circle"][0]
    p, q = (frames_law(v.chain, range(frames)) for v in (video, own))
    assert lost == pytest.approx(float((torch.xlogy(p, p) - torch.xlogy(p, q)).sum()), abs=1e-12)


def test_window_moments_against_samples() -> None:
    video = _walker()
    mean, covariance = _window_moments(video, 3)
    count, level = 20_000, math.exp(-0.02)
    generator = torch.Generator().manual_seed(0)
    clean = video.sample(count, 3, generator).frames.flatten(1)
    noise = torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    drawn = math.sqrt(level) * clean + math.sqrt(1 - level) * noise
    # Entries are bounded by about 1.5, so a product of two has a standard deviation below 1.5; five errors.
    room = 5 * 1.5 / math.sqrt(count)
    assert float((drawn.mean(0) - mean).abs().max()) < room
    assert float((torch.cov(drawn.mT) - covariance).abs().max()) < room


def test_where_an_excess_is_seen() -> None:
    noise = np.array([-1.0, 1.0, -1.0, 1.0])  # standard deviation 1.15
    means = np.array([5.0, 0.0, 2.0, 3.0, 4.0])
    assert seen_from(means[:, None] + noise) == 4  # what the first length shows does not last
    assert math.isnan(seen_from(-means[:, None] + noise))
    assert seen_from(means[[0, 3]][:, None] + noise) == 1


def test_perfect_and_trained_share_their_plans() -> None:
    """One frame an AR step, so that m references leave windows of m + 1 frames exact."""
    for preset in PRESETS.values():
        for frames, memories in preset.options["videos"].values():
            assert list(memories) == sorted(set(memories))
            for memory in memories:
                plan = _plan(preset, memory)
                assert (plan.window, plan.stride) == (1, 1)
                assert plan.clean_frames(frames - 1) == frames
                assert len(plan.references_at(frames - 1)) == memory
