"""One stage of a finite-state video: its window's exact law, and the error terms of single true videos.

A reverse step's true conditional is known pointwise. By Bayes, over the frames j that move,

    log P(W' | W, R) = Σ_j log N(W_j; a_j W'_j, v_j) + log p(W' | R) - log p(W | R),

W = W^m and W' = W^{m+1}, with both log-densities exact by forward-backward. Its mean follows from the exact
score (Tweedie), μ_P = (W + v s*)/a, and so does the variance of each frame from the posterior of its symbol,

    κ_j = tr Cov(W'_j | W, R)/d = v σ²(s)/σ²(t) + (α(s) v/σ²(t))² tr Cov(X_j | W, R)/d,

t = τ_j^m and s = τ_j^{m+1}.

DE is averaged in the form

    E KL(P ‖ N(μ_*, q)) = E[log P - log N(μ_P, κ)] + E KL(N(μ_P, κ) ‖ N(μ_*, q)),

which holds because N(μ_P, κ) has P's mean and spread. Its second part is exact sample by sample, and the first
one, how far P is from a Gaussian, fluctuates far less than log P - log N(μ_*, q) does.

Source: arXiv 2503.10704, Theorem 1 and its proof, made exact; Efron 2011 (Tweedie's formula).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from arvdm_theory.diffusion.scores import ExactScore, PerturbedScore, checked_score
from arvdm_theory.diffusion.steps import Coefficients, ReverseStep
from arvdm_theory.information.gaussian import x_minus_log1p
from arvdm_theory.interfaces import ReferenceBatch, Score
from arvdm_theory.laws.chains import FiniteStateVideo
from arvdm_theory.laws.emission import Codebook, GaussianRegimes
from arvdm_theory.laws.evidence import Evidence
from arvdm_theory.laws.inference import infer
from arvdm_theory.noise import alpha, sigma2, transition
from arvdm_theory.plan.plan import Grid, Mask

__all__ = [
    "Belief",
    "FiniteScore",
    "FiniteStage",
    "StageSamples",
    "divergence_sample",
    "require_finite_kernels",
    "stage_samples",
]

FiniteScore = ExactScore | PerturbedScore | Score

_LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True, eq=False)
class Belief:
    """What a batch of windows and their references say, exactly.

    Attributes:
        log_density: log p(W | R), (batch,).
        score: ∇_W log p(W | R), (batch, w, d).
        variance: tr Cov(X_j | W, R)/d of every clean window frame, (batch, w); None if the rendering is one of
            the user's own, whose spread is not known here.
    """

    log_density: Tensor
    score: Tensor
    variance: Tensor | None


@dataclass(frozen=True, eq=False)
class FiniteStage:
    """The window of one stage for a batch of videos: w frames in R^d, M reverse steps.

    Attributes:
        video: its true law.
        frames: the window's frames, from 0.
        levels: the stage's grid, M + 1 rows of w levels.
        visible: per reverse step what each window frame sees, or None (everything).
        given: the references R as evidence, all noisy states or all known symbols; None if there are none.
        shown: the same references as a score sees them.
    """

    video: FiniteStateVideo
    frames: range
    levels: Grid
    visible: tuple[Mask | None, ...]
    given: Evidence | None
    shown: ReferenceBatch

    @property
    def steps(self) -> int:
        """M, the reverse steps of the stage."""
        return len(self.levels) - 1

    def belief(self, m: int, window: Tensor) -> Belief:
        """The exact law's verdict on W^m = ``window`` (batch, w, d)."""
        posterior = infer(self.video, Evidence.noisy(self.frames, self.levels[m], window), self.given)
        level = torch.tensor(self.levels[m], dtype=torch.float64, device=window.device)
        spread = clean_variance(self.video, window, alpha(level), sigma2(level), posterior.symbols)
        return Belief(posterior.log_density, posterior.score, spread)

    def exact_score(self, exact: ExactScore, m: int, window: Tensor, belief: Belief) -> Tensor:
        """The exact score with everything in view, or of what each frame sees, (batch, w, d)."""
        mask = self.visible[m]
        if not exact.masked or mask is None:
            return belief.score
        score = torch.empty_like(belief.score)
        for row in set(mask):
            own = [j for j, other in enumerate(mask) if other == row]
            if all(row):
                score[:, own] = belief.score[:, own]
                continue
            seen = [j for j in range(len(self.frames)) if row[j]]
            part = Evidence.noisy(
                [self.frames[j] for j in seen], [self.levels[m][j] for j in seen], window[:, seen]
            )
            columns = [i for i, sees in enumerate(row[len(self.frames) :]) if sees]
            shown = infer(self.video, part, _columns(self.given, columns)).score
            score[:, own] = shown[:, [seen.index(j) for j in own]]
        return score

    def score(self, score: FiniteScore, m: int, window: Tensor, belief: Belief) -> Tensor:
        """The sampler's score s_θ(W^m, R), (batch, w, d).

        Raises:
            ValueError: if a callable returns no finite tensor of the window's shape.
        """
        if isinstance(score, ExactScore):
            return self.exact_score(score, m, window, belief)
        if isinstance(score, PerturbedScore):
            return self.exact_score(score.base, m, window, belief) - score.error * window + score.bias
        level = torch.tensor(self.levels[m], dtype=torch.float64, device=window.device)
        return checked_score(score(window, level, self.shown), window, self.frames, m).to(window)

    def moves(self, step: ReverseStep, m: int) -> Moves | None:
        """What reverse step m moves and how; None if it moves nothing."""
        high, low = self.levels[m], self.levels[m + 1]
        moving = [j for j in range(len(self.frames)) if high[j] > low[j]]
        if not moving:
            return None
        device = self.video.chain.transition.device
        level, target = (
            torch.tensor([row[j] for j in moving], dtype=torch.float64, device=device)[:, None]
            for row in (high, low)
        )
        return Moves(moving, level, target, step.coefficients(level, target))


@dataclass(frozen=True)
class Moves:
    """One reverse step of the frames that move; numbers a frame have the shape (moving, 1).

    Attributes:
        frames: where the moving frames stand in the window.
        level: the levels they leave.
        target: the levels they reach.
        sampler: the sampler's coefficients; the variance is never None.
    """

    frames: list[int]
    level: Tensor
    target: Tensor
    sampler: Coefficients

    @property
    def variance(self) -> Tensor:
        """The sampler's noise variance."""
        assert self.sampler.variance is not None  # require_finite_kernels has seen to it
        return self.sampler.variance


@dataclass(frozen=True)
class StageSamples:
    """Error terms of single true videos, each of shape (batch, M), in nats; their means are the terms.

    Attributes:
        de, see, cross: the terms; DE in its moment-matched form.
        direct: log P - log Q, whose mean is that of DE + SEE + CROSS: a check, and the noisier estimate.
    """

    de: Tensor
    see: Tensor
    cross: Tensor
    direct: Tensor


def require_finite_kernels(step: ReverseStep, grids: Sequence[Grid]) -> None:
    """Raises ValueError unless the step is a Gaussian kernel with noise on every frame it moves."""
    for grid in grids:
        for m, (high, low) in enumerate(pairwise(grid), start=1):
            for t, s in zip(high, low, strict=True):
                if t == s:
                    continue
                variance = step.coefficients(*torch.tensor([t, s], dtype=torch.float64)).variance
                if variance is None:
                    raise ValueError(
                        f"the {step.name} step has the exact posterior's covariance, and a finite-state video's "
                        "posterior is a mixture, which no Gaussian kernel matches: choose exponential, euler or "
                        "ddpm"
                    )
                if float(variance) == 0:
                    raise ValueError(
                        f"the {step.name} step moves a frame from level {t} to {s} without noise (reverse step "
                        f"{m}): its path KL is infinite; choose exponential or euler, or stop ddpm at a level "
                        "above 0"
                    )


def stage_samples(
    stage: FiniteStage, path: Sequence[Tensor], score: FiniteScore, step: ReverseStep, against: ExactScore
) -> StageSamples:
    """DE, SEE, CROSS and log P - log Q of every reverse step, for true windows along their own paths.

    Args:
        stage: the stage.
        path: W^0..W^M of true videos, M + 1 tensors (batch, w, d).
        score: the sampler's.
        step: the reverse step.
        against: the s* that SEE is measured against.
    """
    columns: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    below = stage.belief(0, path[0])
    for m in range(stage.steps):
        here = below
        moves = stage.moves(step, m)
        if moves is None:
            columns.append((torch.zeros_like(here.log_density),) * 4)
            continue
        below = stage.belief(m + 1, path[m + 1])
        own = stage.score(score, m, path[m], here)[:, moves.frames]
        aim = stage.exact_score(against, m, path[m], here)[:, moves.frames]
        window, reached = path[m][:, moves.frames], path[m + 1][:, moves.frames]
        a, v = transition(moves.level, moves.target)
        noise = moves.variance
        true = (window + v * here.score[:, moves.frames]) / a
        mean = moves.sampler.window * window + moves.sampler.score * aim
        miss = moves.sampler.score * (own - aim)
        log_true = _log_normal(window, a * reached, v) + below.log_density - here.log_density
        spread: Tensor | None = None
        if here.variance is not None:
            still, gain = v * sigma2(moves.target) / sigma2(moves.level), alpha(moves.target) * v
            spread = still + (gain / sigma2(moves.level)) ** 2 * here.variance[:, moves.frames, None]
        columns.append(
            (
                divergence_sample(log_true, reached, true, spread, mean, noise),
                0.5 * (miss**2 / noise).sum((-2, -1)),
                ((mean - true) * miss / noise).sum((-2, -1)),
                log_true - _log_normal(reached, mean + miss, noise),
            )
        )
    return StageSamples(*(torch.stack(term, -1) for term in zip(*columns, strict=True)))


def divergence_sample(
    log_true: Tensor, value: Tensor, mean: Tensor, variance: Tensor | None, other: Tensor, noise: Tensor
) -> Tensor:
    """One sample of KL(P ‖ N(other, noise)) from ``value`` ~ P of the given mean and spread, (batch,).

    log P - log N(mean, variance) at the value, plus the closed form KL(N(mean, variance) ‖ N(other, noise)).
    Without the spread it is log P - log N(other, noise), with the same mean.
    """
    if variance is None:
        return log_true - _log_normal(value, other, noise)
    variance = variance.expand(*value.shape[:-1], 1)
    isotropic = value.shape[-1] * x_minus_log1p(variance / noise - 1)
    shift = ((mean - other) ** 2 / noise).sum(-1, keepdim=True)
    return log_true - _log_normal(value, mean, variance) + 0.5 * (isotropic + shift).sum((-2, -1))


def clean_variance(
    video: FiniteStateVideo, noisy: Tensor, scale: Tensor, noise: Tensor, symbols: Tensor
) -> Tensor | None:
    """tr Cov(X | x, R)/d of clean frames from x = scale · X + N(0, noise I), (batch, frames).

    Args:
        video: whose rendering is used; None is returned for one of the user's own.
        noisy: x, (batch, frames, d).
        scale: (frames,); 0 where a frame was not observed.
        noise: (frames,).
        symbols: P(symbol | all), (batch, frames, symbols).
    """
    rendering = video.rendering
    if isinstance(rendering, Codebook):
        total = scale**2 * rendering.variance + noise
        between = 0.5 * ((symbols @ rendering.squared_distances) * symbols).sum(-1)
        return rendering.variance * noise / total + (noise / total) ** 2 * between / rendering.frame_dim
    if isinstance(rendering, GaussianRegimes):
        spread, vectors = rendering.axes
        total = scale[:, None, None] ** 2 * spread + noise[:, None, None]
        within = (spread * noise[:, None, None] / total).sum(-1)
        centred = torch.einsum(
            "yij,bfyi->bfyj", vectors, noisy[:, :, None] - scale[:, None, None] * rendering.means
        )
        gain = scale[:, None, None] * spread / total
        means = rendering.means + torch.einsum("yij,bfyj->bfyi", vectors, gain * centred)
        middle = torch.einsum("bfy,bfyi->bfi", symbols, means)
        between = ((means - middle[:, :, None]) ** 2).sum(-1)
        return (symbols * (within + between)).sum(-1) / rendering.frame_dim
    return None


def _log_normal(value: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """log N(value; mean, variance I) summed over frames and entries, (batch,); variance (.., frames, 1)."""
    square = ((value - mean) ** 2).sum(-1, keepdim=True) / variance
    return -0.5 * (square + value.shape[-1] * (torch.log(variance) + _LOG_2PI)).sum((-2, -1))


def _columns(given: Evidence | None, chosen: Sequence[int]) -> Evidence | None:
    """Some of the references, which are all noisy states or all known symbols."""
    if given is None or not chosen:
        return None
    index = list(chosen)
    if given.values is not None:
        return Evidence(tuple(given.states[i] for i in index), given.values[:, index])
    assert given.symbols is not None
    return Evidence.clean([given.frames[i] for i in index], given.symbols[:, index])
