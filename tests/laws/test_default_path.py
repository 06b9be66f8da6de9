"""The Gaussian law through the averages that every law has, against its closed forms, on random plans.

Plans and videos come from the public strategies with one seed. About two thousand averages are held against closed
forms: of z-scores that are normal, 6e-5 lie beyond 4, so a right library shows 0.13 of them by chance, and none
beyond 5. The sum over a case is judged once more, all cases together,
by a chi-square test at the level 1e-3.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from scipy.stats import binom, chi2, norm
from torch import Generator, Tensor

from arvdm_theory import (
    ArrayVideo,
    ExactScore,
    Number,
    PerturbedScore,
    Plan,
    ReferenceBatch,
    VideoBatch,
    VideoLaw,
    ledger,
    ledger_terms,
    memory_bottleneck,
)
from arvdm_theory.laws.evidence import Evidence
from arvdm_theory.laws.stage_law import WindowPosterior
from arvdm_theory.testing import gaussian_videos, plans

CASES, STEPS, SAMPLES = 50, 2, 400
Z = 4.0
# Log-densities of up to some hundred nats, of covariances with condition numbers up to 1e3, in float64.
ROUNDING = 1e-8


class Plain(VideoLaw):
    """A Gaussian video that only draws, and knows densities with their gradients."""

    def __init__(self, video: ArrayVideo) -> None:
        self.video = video
        self.frame_dim, self.length, self.name = video.frame_dim, video.length, "plain"

    def draw(self, videos: int, frames: int, generator: Generator) -> VideoBatch:
        return self.video.draw(videos, frames, generator)

    def log_density(self, window: Evidence, given: Evidence | None = None) -> Tensor:
        return self.video.log_density(window, given)

    def posterior(self, window: Evidence, given: Evidence | None = None) -> WindowPosterior:
        return self.video.posterior(window, given)


@cache
def cases() -> list[tuple[ArrayVideo, Plan]]:
    found: list[tuple[ArrayVideo, Plan]] = []

    @seed(20250310)
    @settings(
        max_examples=CASES, phases=[Phase.generate], database=None, deadline=None,
        suppress_health_check=list(HealthCheck), derandomize=False,  # one seed, whatever the profile
    )  # fmt: skip
    @given(plans(max_window=3, masks=True), gaussian_videos(frames=9, max_condition=1e3))
    def collect(plan: Plan, video: ArrayVideo) -> None:
        found.append((video, plan))

    collect()
    assert len(found) == CASES
    assert all(plan.total_frames(STEPS) <= 9 for _, plan in found)
    return found


def test_the_cases_are_of_every_kind() -> None:
    plans_ = [plan for _, plan in cases()]
    for kind in (
        lambda plan: plan.overlapping,
        lambda plan: not plan.overlapping,
        lambda plan: plan.visible is not None,
        lambda plan: plan.references.noised,
        lambda plan: plan.floor > 0,
        lambda plan: plan.floor == 0,
    ):
        assert sum(map(kind, plans_)) >= 5


TERMS = ("nie", "de", "see", "cross", "mb", "mb_clean")
SCORES: dict[str, Any] = {
    "exact": {"score": ExactScore()},
    "masked in DE": {"score": ExactScore(), "against": ExactScore(masked=True)},
    "perturbed": {"score": PerturbedScore(0.2, -0.1)},
}


def z_score(sampled: Number, exact: Number) -> list[float]:
    """In units of standard errors, an entry each; what is off by rounding counts as 0."""
    assert exact.is_exact
    gap = torch.as_tensor(sampled.value - exact.value)
    size = ROUNDING * (1 + torch.as_tensor(exact.value).abs())
    error = torch.as_tensor(sampled.stderr)
    off = torch.where(gap.abs() <= size, torch.zeros_like(gap), gap)
    return [float(z) for z in (off / torch.where(off == 0, torch.ones_like(error), error)).flatten()]


@cache
def scores() -> tuple[list[float], list[float]]:
    """z-scores of every term of every stage and score, and of one sum a case and score."""
    single, sums = [], []
    for number, (video, plan) in enumerate(cases()):
        for options in SCORES.values():
            exact = ledger_terms(video, plan, STEPS, girsanov=False, **options)
            sampled = ledger_terms(Plain(video), plan, STEPS, samples=SAMPLES, seed=number, **options)
            for mine, true in zip(
                (sampled.initialisation, *sampled.ar), (exact.initialisation, *exact.ar), strict=True
            ):
                for name in TERMS:
                    found, expected = getattr(mine, name), getattr(true, name)
                    assert (found is None) == (expected is None)
                    if found is not None:
                        single += z_score(found, expected)
                if mine.direct is not None:
                    single += z_score(mine.direct, true.de + true.see + true.cross)
        mine, true = sampled.path, exact.path
        assert mine is not None
        assert true is not None
        sums += z_score(mine, true)
    return single, sums


def test_every_term_agrees_within_standard_errors() -> None:
    single, sums = scores()
    assert len(single) > 1500
    beyond = sum(abs(z) > Z for z in single)
    assert max(map(abs, single)) <= 5.0
    assert beyond <= binom.ppf(1 - 1e-3, len(single), 2 * norm.sf(Z))
    counted = [z for z in sums if z]
    assert len(counted) > CASES / 2
    assert sum(z**2 for z in counted) <= chi2.ppf(1 - 1e-3, len(counted))


@pytest.mark.parametrize("number", range(0, CASES, 10))
def test_totals_and_the_bottleneck_alone_agree_too(number: int) -> None:
    video, plan = cases()[number]
    sampled = ledger(Plain(video), plan, STEPS, score=PerturbedScore(0.1), samples=2000, seed=number)
    exact = ledger(video, plan, STEPS, score=PerturbedScore(0.1))
    names = ("nie_init", "path_init", "nie_ar", "de", "see", "cross", "mb", "path_kl", "floor")
    for name in names:
        value, expected = sampled.totals[name], exact.totals[name]
        assert (value is None) == (expected is None)
        if value is not None and expected is not None:
            room = Z * sampled.stderr.get(name, 0.0) + ROUNDING * (1 + abs(expected))
            assert abs(value - expected) <= room, name
    for clean in (False, True):
        alone = memory_bottleneck(Plain(video), plan, STEPS, clean_references=clean, samples=2000)
        assert max(map(abs, z_score(alone, memory_bottleneck(video, plan, STEPS, clean_references=clean)))) <= Z


@pytest.mark.parametrize("number", range(0, CASES, 5))
def test_the_posterior_by_differentiation_and_masked_scores(number: int) -> None:
    """The score of the default posterior, and masks, against the affine map of the closed form."""
    video, plan = cases()[number]
    stage = plan.stage(STEPS)
    generator = torch.Generator().manual_seed(number)
    window = torch.randn(4, stage.window, video.frame_dim, dtype=torch.float64, generator=generator)
    values = torch.randn(4, len(stage.references), video.frame_dim, dtype=torch.float64, generator=generator)
    shown = ReferenceBatch.shown(values, stage.reference_levels, stage.reference_frames, tuple(stage.frames))
    law = Plain(video)
    for m in range(stage.steps):
        if float(stage.levels[m].min()) == 0:
            continue
        for masked in (True, False):
            told = shown.seeing(stage.visible[m])
            mine, right = (ExactScore(each, masked=masked)(window, stage.levels[m], told) for each in (law, video))
            assert torch.allclose(mine, right, rtol=1e-8, atol=1e-8 * (1 + float(right.abs().max())))
        evidence = Evidence.noisy(tuple(stage.frames), stage.grid[m], window)
        default, closed = VideoLaw.posterior(law, evidence), video.posterior(evidence)
        assert torch.allclose(default.log_density, closed.log_density)
        scale = 1 + float(closed.score.abs().max())
        assert torch.allclose(default.score, closed.score, rtol=0, atol=1e-8 * scale)
