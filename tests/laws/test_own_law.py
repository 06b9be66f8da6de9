"""A law of one's own in five names and methods: a mixture of two moving videos, on everything the protocol gives.

The right values are integrals on a grid, with frames scalar and one a window; nothing here but the law's own
density uses the library. Averages hold within Z = 4.5 standard errors; seeds were fixed before the first run.
"""

from __future__ import annotations

import itertools
import math
from functools import cache

import numpy as np
import pytest
import torch
from finite_quadrature import CELL, CORE, GRID, WIDE, Array, normal, step_coefficients
from torch import Generator, Tensor

from arvdm_theory import (
    ArrayVideo,
    ExactScore,
    Number,
    PerturbedScore,
    Plan,
    References,
    VideoBatch,
    VideoLaw,
    generate,
    ledger,
    memory_bottleneck,
    memory_bottleneck_from_scores,
    predicted_clip_kl,
)
from arvdm_theory.laws.evidence import Evidence
from arvdm_theory.laws.states import State

Z = 4.5
ROUNDING = 1e-9
FRAMES = 4
LEVELS = (3.0, 1.6, 0.8, 0.3)
WEIGHTS = np.array([0.35, 0.65])
MEANS = np.array([1.0, -0.6])
VARIANCES = np.array([0.5, 0.3])
PERSISTENCE = np.array([0.9, -0.4])
LAG = np.abs(np.subtract.outer(np.arange(FRAMES), np.arange(FRAMES)))
COVARIANCES = VARIANCES[:, None, None] * PERSISTENCE[:, None, None] ** LAG


class Mixture(VideoLaw):
    """One of two AR(1) videos, by the throw of a coin: what the coin said is remembered for ever."""

    frame_dim, length, name = 1, FRAMES, "mixture"

    def __init__(self) -> None:
        self.parts = [
            ArrayVideo(covariance, 1, np.full(FRAMES, mean))
            for covariance, mean in zip(COVARIANCES, MEANS, strict=True)
        ]
        self.weights = torch.from_numpy(WEIGHTS)

    def draw(self, videos: int, frames: int, generator: Generator) -> VideoBatch:
        coin = torch.rand(videos, dtype=torch.float64, generator=generator) < self.weights[0]
        first, second = (part.draw(videos, frames, generator).frames for part in self.parts)
        return VideoBatch(torch.where(coin[:, None, None], first, second))

    def log_density(self, window: Evidence, given: Evidence | None = None) -> Tensor:
        def joint(evidence: Evidence) -> Tensor:
            logs = torch.stack([part.log_density(evidence) for part in self.parts], -1)
            return torch.logsumexp(logs + self.weights.log(), -1)

        return joint(window) if given is None or given.empty else joint(window + given) - joint(given)


VIDEO = Mixture()


def plan(fresh: float = 0.0) -> Plan:
    grid = tuple((level,) for level in LEVELS)
    return Plan(
        (LEVELS[0],), 1, LEVELS[0], len(LEVELS) - 1, len(LEVELS) - 1,
        references=References.last(1, fresh), floor=LEVELS[-1], ar_grid=grid, init_grid=grid,
    )  # fmt: skip


def near(number: Number, expected: float) -> None:
    assert abs(number.value - expected) <= Z * number.stderr + ROUNDING, (number, expected)


# -- the law on a grid -------------------------------------------------------------------------------------


@cache
def noisy_joint(frames: int) -> Array:
    """Density of the first frames at the last level, (grid,) * frames."""
    at = math.exp(-LEVELS[-1])
    points = np.stack(np.meshgrid(*(GRID,) * frames, indexing="ij"), -1)
    total = np.zeros(points.shape[:-1])
    for weight, mean, covariance in zip(WEIGHTS, MEANS, COVARIANCES, strict=True):
        spread = at * covariance[:frames, :frames] + (1 - at) * np.eye(frames)
        gap = points - math.sqrt(at) * mean
        square = np.einsum("...i,ij,...j->...", gap, np.linalg.inv(spread), gap)
        total += weight * np.exp(-square / 2) / math.sqrt(np.linalg.det(2 * math.pi * spread))
    assert abs(total.sum() * CELL**frames - 1) < 1e-6
    return np.asarray(total)


def parts(reference: float | None) -> tuple[Array, Array, Array, Array]:
    """Contexts on the grid: probabilities, and weights (c, y), means (c, y) and variances (y,) of X | context.

    The context is a reference at level ``reference``; None: there is none.
    """
    if reference is None:
        return np.ones(1), WEIGHTS[None], MEANS[None], VARIANCES
    a = math.exp(-reference / 2)
    spread = a**2 * VARIANCES + 1 - a**2
    joint = WEIGHTS * normal(GRID[:, None], a * MEANS, spread)
    gain = a * VARIANCES * PERSISTENCE / spread
    means = MEANS + gain * (GRID[:, None] - a * MEANS)
    density = joint.sum(-1, keepdims=True)
    return density[:, 0] * CELL, joint / density, means, VARIANCES - gain * a * VARIANCES * PERSISTENCE


def score_of(weights: Array, means: Array, variances: Array, level: float, x: Array) -> tuple[Array, Array, Array]:
    """p(X^t | context) on x, its score, and the components' posterior, (c, x) and (c, x, y)."""
    a = math.exp(-level / 2)
    spread = a**2 * variances + 1 - a**2
    joint = weights[:, None] * normal(x[:, None], a * means[:, None], spread)
    density = joint.sum(-1)
    posterior = joint / np.where(density > 0, density, 1.0)[..., None]
    return density, (posterior * (a * means[:, None] - x[:, None]) / spread).sum(-1), posterior


def stage_terms(reference: float | None, error: float) -> tuple[float, Array, Array, Array]:
    """(NIE, DE, SEE, CROSS) of a one-frame stage; the score is the exact one minus ``error`` times the window."""
    weight, weights, means, variances = parts(reference)
    start = score_of(weights, means, variances, LEVELS[0], GRID)[0]
    seen = start > 0
    ratio = np.where(seen, np.log(np.where(seen, start, 1.0) / normal(GRID, 0.0, 1.0)), 0.0)
    nie = float(weight @ (start * ratio).sum(-1) * CELL)
    terms = []
    for t, s in itertools.pairwise(LEVELS):
        on_window, on_score, noise = step_coefficients("exponential", t, s)
        a, (b_t, b_s) = math.exp((s - t) / 2), (math.exp(-t / 2), math.exp(-s / 2))
        var_t, var_s = (b**2 * variances + 1 - b**2 for b in (b_t, b_s))
        gain = a * var_s / var_t
        left = var_s - gain * a * var_s
        assert np.sqrt(left.min()) > 2.5 * CELL
        density, score, posterior = score_of(weights, means, variances, t, GRID)
        centre = b_s * means[:, None] + gain * (GRID[:, None] - b_t * means[:, None])  # (c, W, y)
        mean = on_window * GRID + on_score * score
        mean_true = (posterior * centre).sum(-1)
        miss = -on_score * error * GRID
        negentropy = np.zeros_like(density)
        for c in range(len(weight)):  # a context at a time: (W, W', y)
            below = (posterior[c, :, None] * normal(GRID[None, :, None], centre[c, :, None], left)).sum(-1)
            negentropy[c] = (below * np.log(np.where(below > 0, below, 1.0))).sum(-1) * CELL
        square = (posterior * (centre**2 + left)).sum(-1) - 2 * mean * mean_true + mean**2
        log_own = -0.5 * square / noise - 0.5 * math.log(2 * math.pi * noise)
        columns = (negentropy - log_own, np.broadcast_to(0.5 * miss**2 / noise, mean.shape),
                   (mean - mean_true) * miss / noise)  # fmt: skip
        terms.append([float(weight @ (density * column).sum(-1) * CELL) for column in columns])
    de, see, cross = np.array(terms).T
    return nie, de, see, cross


def sampler(reference: float | None) -> Array:
    """The density of what the reverse steps with the exact score make, (contexts, x) on the wide grid."""
    _, weights, means, variances = parts(reference)
    density = np.broadcast_to(normal(WIDE, 0.0, 1.0), (len(weights), len(WIDE)))
    for t, s in itertools.pairwise(LEVELS):
        on_window, on_score, noise = step_coefficients("exponential", t, s)
        # Far outside both components' densities vanish in floats; nothing of the sampler is there.
        mean = on_window * WIDE + on_score * score_of(weights, means, variances, t, WIDE)[1]
        kernels = (normal(WIDE[None, :], centre[:, None], noise) for centre in mean)
        density = np.stack([row @ kernel * CELL for row, kernel in zip(density, kernels, strict=True)])
    assert np.abs(density.sum(-1) * CELL - 1).max() < 1e-6
    return density


# -- the ledger --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fresh", [0.0, 0.8])
def test_every_term_of_the_ledger(fresh: float) -> None:
    error = 0.15
    result = ledger(VIDEO, plan(fresh), 2, score=PerturbedScore(error), samples=3000, seed=1)
    ar = stage_terms(max(fresh, LEVELS[-1]), error)
    terms = result.terms
    for stage, right in zip((terms.initialisation, *terms.ar), (stage_terms(None, error), ar, ar), strict=True):
        near(stage.nie, right[0])
        for number, values in zip((stage.de, stage.see, stage.cross), right[1:], strict=True):
            for m, value in enumerate(values):
                near(number[m], float(value))
    gap = (terms.of("direct") - terms.of("de") - terms.of("see") - terms.of("cross")).sum()
    near(gap, 0.0)
    assert result.notes["kl"] == "it needs the law of a rollout, which the video 'mixture' has in no closed form"


@cache
def bottleneck() -> float:
    """I(X_2; X_0 | X_1) at the last level."""
    three, pair = noisy_joint(3), noisy_joint(2)
    one = pair.sum(0) * CELL
    log_ratio = np.log(three / pair[..., None]) - np.log(pair / one[:, None])[None]
    return float((three * log_ratio).sum() * CELL**3)


def test_the_memory_bottleneck_three_ways() -> None:
    near(memory_bottleneck(VIDEO, plan(), 2, samples=4000, seed=2), bottleneck())
    clean = VIDEO.draw(2000, 3, torch.Generator().manual_seed(3)).frames
    for form in ("losses", "difference"):
        found = memory_bottleneck_from_scores(clean, plan(), 2, video=VIDEO, form=form, points=6)
        near(found, bottleneck())
        assert found.stderr < 0.5 * bottleneck()


# -- rollout and prediction --------------------------------------------------------------------------------


def test_the_rollout_has_the_law_of_the_sampler() -> None:
    x = generate(None, plan(), 1, 4000, video=VIDEO, seed=4)[..., 0]
    start, kernel = sampler(None)[0, CORE], sampler(LEVELS[-1])[:, CORE]
    for power in (1, 2, 4):
        near(Number(x[:, 0] ** power), float((start * GRID**power).sum() * CELL))
        near(Number(x[:, 0] * x[:, 1] ** power), float((start * GRID) @ kernel @ GRID**power * CELL**2))
    assert torch.equal(x, generate(ExactScore(VIDEO), plan(), 1, 4000, seed=4)[..., 0])


def test_the_prediction_is_that_of_the_moment_matched_video() -> None:
    """By Stein's identity the regression of the exact score is the moment-matched Gaussian's score."""
    mean = np.full(FRAMES, WEIGHTS @ MEANS)
    second = np.einsum("y,yij->ij", WEIGHTS, COVARIANCES + MEANS[:, None, None] ** 2)
    matched = ArrayVideo(second - np.outer(mean, mean), 1, mean)
    exact = ledger(matched, plan(), 2).column("CLIP_KL")
    result = predicted_clip_kl(VIDEO, plan(), 2, samples=6000, seed=5)
    rows = result.table[result.table.form == "moment_linear"].sort_values("ar_step")
    assert len(rows) == 2
    for value, error, right in zip(rows.value, rows.stderr, exact, strict=True):
        assert abs(value - right) <= Z * error + ROUNDING
    # The bound is on the KL of the clips themselves, by quadrature.
    start, kernel = sampler(None)[0, CORE], sampler(LEVELS[-1])[:, CORE]
    true = noisy_joint(1)
    bounds = result.table[result.table.form == "bound"].sort_values("ar_step")
    for bound, error in zip(bounds.value, bounds.stderr, strict=True):
        start = start @ kernel * CELL
        seen = true > 0
        assert float((true[seen] * np.log(true[seen] / start[seen])).sum() * CELL) <= bound + Z * error


# -- scores ------------------------------------------------------------------------------------------------


def test_the_score_by_differentiation_and_what_a_mask_hides() -> None:
    generator = torch.Generator().manual_seed(6)
    window = torch.randn(5, 2, 1, dtype=torch.float64, generator=generator)
    shown = torch.randn(5, 1, 1, dtype=torch.float64, generator=generator)
    known = Evidence((State(0, 0.4),), shown)
    for columns, given in (([0, 1], known), ([1], None), ([0], known)):
        states = tuple(State(1 + j, (0.3, 0.9)[j]) for j in columns)
        found = VIDEO.posterior(Evidence(states, window[:, columns]), given)
        for place, j in enumerate(columns):
            sides = []
            for sign in (1, -1):
                nudged = window.clone()
                nudged[:, j] += sign * 1e-5
                sides.append(VIDEO.log_density(Evidence(states, nudged[:, columns]), given))
            # Central differences of step 1e-5: error 1e-10 from the third derivative, 1e-11 from rounding.
            assert torch.allclose(found.score[:, place, 0], (sides[0] - sides[1]) / 2e-5, rtol=0, atol=1e-8)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"5 frames are needed, but the video 'mixture' has 4"):
        ledger(VIDEO, plan(), 4)
    with pytest.raises(ValueError, match=r"ancestral.*no Gaussian kernel matches for the video 'mixture'"):
        ledger(VIDEO, plan(), 1, step="ancestral")
    with pytest.raises(ValueError, match=r"ancestral.*the video 'mixture' has in no Gaussian form"):
        generate(None, plan(), 1, 4, video=VIDEO, step="ancestral")
