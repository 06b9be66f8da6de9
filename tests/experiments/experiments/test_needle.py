"""The needle experiment's closed forms against dense linear algebra, samples and played games."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from arvdm_theory.experiments.needle.run import (
    _again,
    _first_shown,
    _needle,
    _with_latent,
    ideal_rollout,
    latent_correlations,
    unbroken,
)
from arvdm_theory.laws.gridworld.video import GridSample, GridVideo
from arvdm_theory.laws.gridworld.view import View
from arvdm_theory.laws.gridworld.world import ring, torus
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.references import References


def _plan(memory: int) -> Plan:
    return Plan((6.0,), 1, 6.0, 4, init_steps=4, references=References.last(memory))


@pytest.mark.parametrize(
    ("video", "memory"),
    [
        (GridVideo(ring(5), View("patch", 2), prior=(0.5, 0.3, 0.2)), 2),
        (GridVideo(torus(4, 5), View("topdown", 3, radius=1), prior=(0.6, 0.4)), 4),
    ],
)
def test_rollout_rate_against_played_games(video: GridVideo, memory: int) -> None:
    """A generator that copies what its references show and draws the rest afresh, against Π (1 or Σ p²)."""
    games, steps = 2000, 12
    generator = torch.Generator().manual_seed(0)
    paths = video.sample_paths(games, steps + 1, generator)
    visible = torch.from_numpy(video.visible)[paths]
    plan = _plan(memory)
    said = torch.full(visible.shape, -1)
    first = torch.full(visible[:, 0].shape, -1)
    right = torch.zeros(games, steps + 1, dtype=torch.bool)
    for k in range(steps + 1):
        colours = video.sample_maps(games, generator)
        for reference in [r.frame for r in plan.references_at(k)] if k else []:
            colours = torch.where(said[:, reference] >= 0, said[:, reference], colours)
        said[:, k] = torch.where(visible[:, k], colours, -1)
        right[:, k] = ((said[:, k] == first) | ~visible[:, k]).all(-1)
        first = torch.where((first < 0) & visible[:, k], colours, first)
    again = _again(visible)
    second = video.prior.square().sum(-1)
    rates = torch.where(visible & ~unbroken(visible, plan, steps), second, 1.0).prod(-1)
    # Given the paths, games are independent: the mean over games of (hits - expected hits) is 0 within 5 errors.
    gap = ((right.double() - rates) * again).sum(-1)
    assert abs(float(gap.mean())) < 5 * float(gap.std()) / math.sqrt(games)
    assert 0.1 < float(rates[again].mean()) < 0.95  # something is lost, not everything
    assert not bool(again[:, 0].any())


def test_unbroken_along_one_path() -> None:
    """Cells 0 1 0 2 .. of a ring: with the last 2 frames in memory cell 1 is lost at its second showing."""
    cells = torch.tensor([[0, 1, 0, 2, 1, 2, 1]])
    visible = torch.nn.functional.one_hot(cells, 3).bool()
    kept = unbroken(visible, _plan(2), 6)
    assert kept[0].any(-1).tolist() == [True, True, True, True, False, True, False]
    assert bool(unbroken(visible, _plan(3), 6)[0].any(-1).all())
    assert _again(visible)[0].tolist() == [False, False, True, False, True, True, True]


def test_first_shown_colours_stay() -> None:
    video = GridVideo(ring(4), View("patch", 2), prior=(0.5, 0.3, 0.2))
    paths = 4 * torch.tensor([[0, 1, 0, 1, 2]])
    maps = torch.tensor([[[0] * 4], [[1] * 4], [[2] * 4], [[1] * 4], [[0] * 4]])  # a colour a frame
    frames = torch.cat([video.render(colours, paths[:, t : t + 1]) for t, colours in enumerate(maps)], 1)
    first = _first_shown(video, frames, GridSample(maps[0], paths, frames))[0]
    assert first[:, :3].tolist() == [[0, -1, -1], [0, 1, -1], [0, 1, -1], [0, 1, -1], [0, 1, 0]]


def _true_covariance() -> tuple[torch.Tensor, int]:
    video = _needle()
    assert video.length is not None
    return video.covariance(video.length)[0], video.length


def test_the_latent_in_front_is_the_videos() -> None:
    """Z = (X - B)/g: Var Z = 1, Cov(X, Z) = g where it is in view; the rest is the video's own covariance."""
    covariance, frames = _true_covariance()
    joint = _with_latent(_needle()).covariance(frames + 1)[0]
    assert torch.equal(joint[1:, 1:], covariance)
    background = covariance - torch.outer(joint[0, 1:], joint[0, 1:])
    lags = torch.arange(frames, dtype=torch.float64)
    assert torch.allclose(background, 0.5 ** (lags[:, None] - lags).abs(), rtol=0, atol=1e-14)


@pytest.mark.parametrize("memory", [0, 2, 6, 7, 8])
def test_correlations_behind_true_frames(memory: int) -> None:
    """Against least squares on samples: no closed form shared."""
    _, frames = _true_covariance()
    law = _with_latent(_needle())
    best, sample = latent_correlations(law.covariance(frames + 1)[0], memory)
    if memory < 7:  # no reference shows the latent
        assert (best, sample) == (0.0, 0.0)
    count = 40_000
    drawn = law.sample(count, frames + 1, torch.Generator().manual_seed(0))[:, 0, :, 0].numpy()
    latent, query, shown = drawn[:, 0], drawn[:, -1], drawn[:, frames - memory : frames]
    rest = np.random.default_rng(0)
    if memory == 0:
        said, guess = rest.normal(scale=query.std(), size=count), np.zeros(count)
    else:
        fit = np.linalg.lstsq(shown, query, rcond=None)[0]
        said = shown @ fit + rest.normal(scale=(query - shown @ fit).std(), size=count)
        guess = shown @ np.linalg.lstsq(shown, latent, rcond=None)[0]
    # The standard error of a correlation is at most 1/√n; fitting m numbers moves it by less.
    room = 5 / math.sqrt(count)
    assert abs(np.corrcoef(said, latent)[0, 1] - sample) < room
    if best > 0:
        assert abs(np.corrcoef(guess, latent)[0, 1] - best) < room
        assert best >= sample


def test_ideal_rollouts() -> None:
    """With all frames in memory it is the truth; with m, windows of m + 1 frames from the start are."""
    covariance, frames = _true_covariance()
    assert torch.allclose(ideal_rollout(covariance, frames), covariance, rtol=0, atol=1e-12)
    short = ideal_rollout(covariance, 3)
    for start in range(frames - 3):
        own = slice(start, start + 4)
        # A window's law is right if every one before it is, and the background alone is Markov.
        assert torch.allclose(short[own, own], covariance[own, own], rtol=0, atol=1e-12)
    assert abs(float(short[0, -1])) < 0.02 < float(covariance[0, -1])


def test_ideal_rollouts_against_samples() -> None:
    covariance, frames = _true_covariance()
    memory, count = 7, 40_000
    generator = torch.Generator().manual_seed(0)
    drawn = torch.zeros(count, frames, dtype=torch.float64)
    for k in range(frames):
        shown = list(range(max(k - memory, 0), k))
        gain = torch.linalg.solve(covariance[shown][:, shown], covariance[shown, k])
        left = covariance[k, k] - covariance[k, shown] @ gain
        noise = torch.randn(count, generator=generator, dtype=torch.float64)
        drawn[:, k] = drawn[:, shown] @ gain + left.sqrt() * noise
    made = ideal_rollout(covariance, memory)
    spread = made.diagonal().sqrt()
    gap = (torch.cov(drawn.mT) - made) / spread[:, None] / spread
    assert float(gap.abs().max()) < 5 * math.sqrt(2 / count)  # the variance of an entry is at most 2/n
