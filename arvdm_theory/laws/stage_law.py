"""The law of one stage of a plan, and the error terms that follow from it by averages over true videos.

A reverse step's true conditional is known pointwise. By Bayes, over the frames j that move,

    log P(W' | W, R) = Σ_j log N(W_j; a_j W'_j, v_j) + log p(W' | R) - log p(W | R),

W = W^m and W' = W^{m+1}. Its mean follows from the exact score (Tweedie), μ_P = (W + v s*)/a, and so does the
variance of each frame from that of the clean frame,

    κ_j = tr Cov(W'_j | W, R)/d = v σ²(s)/σ²(t) + (α(s) v/σ²(t))² tr Cov(X_j | W, R)/d,

t = τ_j^m and s = τ_j^{m+1}. With the sampler's kernel N(μ_θ, q), and μ_* its mean under the exact score,

    E KL(P ‖ N(μ_θ, q)) = DE + SEE + CROSS,       DE = E KL(P ‖ N(μ_*, q)),
    SEE = ½ E ‖μ_θ - μ_*‖²/q,                     CROSS = E ⟨μ_* - μ_P, μ_θ - μ_*⟩/q.

DE is averaged in the form E[log P - log N(μ_P, κ)] + E KL(N(μ_P, κ) ‖ N(μ_*, q)), which holds because N(μ_P, κ)
has P's mean and variance. Its second part is exact sample by sample, and the first one, how far P is from a
Gaussian, fluctuates far less than log P - log N(μ_*, q) does. Likewise

    NIE_AR,k is the mean of log p(X^T_new | Input_k) - log N(X^T_new; 0, I),
    MB_k is the mean of log p(Output_k | Input_k, Past_k) - log p(Output_k | Input_k).

Sources: arXiv 2503.10704, Theorems 1 and 2, made exact; Efron 2011 (Tweedie's formula).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from arvdm_theory.diffusion.sampler import sampler_steps
from arvdm_theory.diffusion.scores import ExactScore, PerturbedScore, checked_score
from arvdm_theory.diffusion.steps import ReverseStep
from arvdm_theory.information.gaussian import x_minus_log1p
from arvdm_theory.interfaces import ReferenceBatch, VideoBatch
from arvdm_theory.laws.evidence import Evidence
from arvdm_theory.laws.states import State
from arvdm_theory.noise import alpha, noised, sigma2, transition
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.stage import Stage

if TYPE_CHECKING:
    from arvdm_theory.laws.gaussian_window import WindowLaw

__all__ = ["Moments", "StageLaw", "StepTerms", "TrueVideos", "WindowPosterior", "weighted"]

_LOG_2PI = math.log(2 * math.pi)
_MOST_ENTRIES = 2**22
"""Entries of the noisy states of one batch of true videos; larger runs are cut into batches."""


@dataclass(frozen=True, eq=False)
class WindowPosterior:
    """What a batch of windows and their references say, exactly.

    Attributes:
        log_density: log p(W | R), (batch,).
        score: ∇_W log p(W | R), (batch, w, d).
        variance: tr Cov(X_j | W, R)/d of every clean window frame, (batch, w); None where it is not known. It only
            makes averages less noisy.
    """

    log_density: Tensor
    score: Tensor
    variance: Tensor | None = None


class Law(Protocol):
    """What the averages ask of a law of videos; see :class:`arvdm_theory.laws.law.VideoLaw`."""

    @property
    def name(self) -> str: ...
    @property
    def frame_dim(self) -> int: ...
    @property
    def device(self) -> torch.device: ...
    def draw(self, videos: int, frames: int, generator: torch.Generator) -> VideoBatch: ...
    def log_density(self, window: Evidence, given: Evidence | None = None) -> Tensor: ...
    def posterior(self, window: Evidence, given: Evidence | None = None) -> WindowPosterior: ...
    def predicted(self, frames: tuple[int, ...], given: Evidence | None) -> tuple[Tensor, Tensor] | None: ...
    def exact_score(
        self,
        window: Tensor,
        levels: Tensor,
        references: ReferenceBatch,
        *,
        masked: bool = ...,
        actions: bool = ...,
    ) -> Tensor: ...


@dataclass(frozen=True)
class Moments:
    """True second moments of the score's error ε_j = s_θ,j - s*_j, a window frame each: what path bounds need.

    They have a leading sample axis: of length 1 with the expectation where that is exact, else a row a sample.
    All are zero, not rounding, for the exact score.

    Attributes:
        square: ‖ε_j‖², (samples, M, modes, w).
        with_exact: ⟨s*_j, ε_j⟩, the same shape.
        with_near_noise: ⟨W_j + s*_j, ε_j⟩, the same shape.
    """

    square: Tensor
    with_exact: Tensor
    with_near_noise: Tensor


@dataclass(frozen=True)
class StepTerms:
    """The error terms of every reverse step of a stage, in nats.

    They have a leading sample axis: of length 1 with the value where that is exact, else a row a true video.

    Attributes:
        de, see, cross: (samples, M).
        direct: log P - log Q, which has the mean of DE + SEE + CROSS: a check, and the noisier estimate; None
            where all is exact.
        moments: of the score's error; None where no path bound is known.
    """

    de: Tensor
    see: Tensor
    cross: Tensor
    direct: Tensor | None = None
    moments: Moments | None = None


@dataclass(frozen=True, eq=False)
class TrueVideos:
    """A batch of true videos with every frame's states on its own forward path, drawn when they are asked for.

    Attributes:
        law: their law.
        videos: how many.
        generator: of all that is drawn.
        frames: clean, (videos, F, d).
        actions: (videos, F, a), or None.
        symbols: what the frames show, (videos, F), where references are states and not pictures of them.
        weights: p/q of videos drawn from a law q that holds what is rare under their own, (videos,); None: all 1.
    """

    law: Law
    videos: int
    generator: torch.Generator
    frames: Tensor
    actions: Tensor | None = None
    symbols: Tensor | None = None
    weights: Tensor | None = None
    _states: dict[tuple[int, float], Tensor] = field(default_factory=dict, repr=False)
    _known: dict[int, tuple[Evidence, ReferenceBatch]] = field(default_factory=dict, repr=False)

    @classmethod
    def draw(cls, law: Law, plan: Plan, ar_steps: int, videos: int, generator: torch.Generator) -> TrueVideos:
        """True videos, with the states that the plan's stages need."""
        made = law.draw(videos, plan.total_frames(ar_steps), generator)
        truth = cls(law, videos, generator, made.frames.to(law.device, torch.float64), made.actions)
        truth.add_states(plan, ar_steps)
        return truth

    @staticmethod
    def sizes(law: Law, plan: Plan, ar_steps: int, videos: int) -> list[int]:
        """How many videos are kept in memory at once, and how often."""
        entries = law.frame_dim * sum(len(levels) for levels in _levels(plan, ar_steps).values())
        batch = max(2, min(videos, _MOST_ENTRIES // entries))
        return [min(batch, videos - start) for start in range(0, videos, batch)]

    def add_states(self, plan: Plan, ar_steps: int) -> None:
        """Draws every frame's states at the levels that the plan's stages need, along one noise path a frame."""
        for frame, levels in _levels(plan, ar_steps).items():
            value, below = self.frames[:, frame], 0.0
            for level in sorted(levels):
                value = self._noised(value, level, below)
                self._states[frame, level], below = value, level

    def _noised(self, value: Tensor, level: float, below: float) -> Tensor:
        levels = torch.tensor([level, below], dtype=torch.float64, device=value.device)
        return noised(value[:, None], levels[:1], levels[1:], self.generator)[:, 0]

    def window(self, frames: Iterable[int], levels: Iterable[float]) -> Tensor:
        """States on the frames' own paths, (videos, w, d)."""
        return torch.stack([self._states[place] for place in zip(frames, levels, strict=True)], 1)

    def evidence(self, states: Sequence[State], before: int | None = None) -> Evidence:
        """States on the frames' own paths, and the actions of frames 0..``before`` - 1."""
        actions = None if self.actions is None or before is None else self.actions[:, :before]
        if not states:
            return Evidence(actions=actions)
        values = torch.stack([self._states[state.frame, state.level] for state in states], 1)
        return Evidence(tuple(states), values, actions=actions)

    def references(self, stage: Stage) -> tuple[Evidence, ReferenceBatch]:
        """R_k as evidence and as a score sees it: own states at the floor, fresh noise above it, or symbols."""
        if stage.ar_step not in self._known:
            self._known[stage.ar_step] = self._referenced(stage)
        return self._known[stage.ar_step]

    def _referenced(self, stage: Stage) -> tuple[Evidence, ReferenceBatch]:
        frames, window, device = stage.reference_frames, tuple(stage.frames), self.frames.device
        if self.symbols is not None:
            clean = self.frames[:, list(frames)]
            shown = ReferenceBatch.shown(clean, torch.zeros(len(frames)).to(clean), frames, window, self.actions)
            known = Evidence.clean(frames, self.symbols[:, list(frames)]) if frames else Evidence()
            return known, shown
        states, values = [], []
        for r in stage.references:
            state, value = State(r.frame, stage.floor), self._states[r.frame, stage.floor]
            if r.level > stage.floor:
                state = State(r.frame, r.level, path=stage.ar_step, parting=stage.floor)
                value = self._noised(value, r.level, stage.floor)
            states.append(state)
            values.append(value)
        given = torch.stack(values, 1) if values else self.frames[:, :0]
        shown = ReferenceBatch.shown(given, stage.reference_levels.to(device), frames, window, self.actions)
        return Evidence(tuple(states), given if states else None, actions=shown.history), shown


def weighted(samples: Tensor, weights: Tensor | None) -> Tensor:
    """Samples w (f - mean) + mean, (n, ...): their plain mean is Σ w f/Σ w, and their spread gives its error.

    They are linear in f, so terms over the same draws still add sample by sample. Exact values are left alone.
    """
    if weights is None or len(samples) == 1:
        return samples
    w = weights.reshape(-1, *(1,) * (samples.ndim - 1))
    mean = (w * samples).sum(0) / w.sum(0)
    return w * (samples - mean) + mean


def _levels(plan: Plan, ar_steps: int) -> dict[int, set[float]]:
    """The levels at which each frame's own path is needed."""
    wanted: dict[int, set[float]] = {frame: {plan.floor} for frame in range(plan.total_frames(ar_steps))}
    for stage in plan.stages(ar_steps):
        for j, frame in enumerate(stage.frames):
            wanted[frame] |= {row[j] for row in stage.grid}
    return wanted


class StageLaw:
    """The law of one stage: what the ledger asks, by averages over true videos.

    A law with closed forms overrides these methods; their results have a leading sample axis, of length 1 where
    they are exact.

    Args:
        law: the video's.
        stage: of a plan.

    Attributes:
        window: the window's Gaussian law along the stage's grid, where it has one; else None.
    """

    window: WindowLaw | None = None

    def __init__(self, law: Law, stage: Stage) -> None:
        self.law, self.stage = law, stage

    def over_modes(self, values: Tensor) -> Tensor:
        """(..., modes) summed over modes, each counted as often as it occurs."""
        return values.sum(-1)

    def require_kernel(self, step: ReverseStep) -> None:
        """Raises ValueError unless the step is a Gaussian kernel with noise on every frame it moves."""
        steps = sampler_steps(self.stage.levels, step)
        if steps.variance is None:
            raise ValueError(
                f"the {step.name} step has the exact posterior's covariance, which no Gaussian kernel matches "
                f"for the video {self.law.name!r}: choose exponential, euler or ddpm"
            )
        if bool(steps.silent.any()):
            m = int(steps.silent.nonzero()[0])
            raise ValueError(
                f"the {step.name} step moves a frame without noise (reverse step {m + 1}): the KL of its "
                "trajectory is infinite; choose exponential or euler, or stop ddpm at a level above 0"
            )

    def start_divergence(self, truth: TrueVideos) -> Tensor:
        """NIE: E KL(P(X^T_fresh | Input) ‖ N(0, I)), (samples,)."""
        stage = self.stage
        known = self._input(truth)[0]
        fresh = tuple(stage.frames)[stage.kept :]
        levels = [stage.horizon] * len(fresh)
        value = truth.window(fresh, levels)
        given = None if known.empty else known
        log_true = self.law.log_density(Evidence.noisy(fresh, levels, value), given)
        level = torch.tensor(levels, dtype=torch.float64, device=value.device)
        scale, noise = alpha(level)[:, None], sigma2(level)[:, None]
        zero, one = torch.zeros_like(value), torch.ones_like(noise)
        predicted = self.law.predicted(fresh, given)
        if predicted is None:
            return _divergence_sample(log_true, value, zero, None, zero, one)
        mean, variance = predicted
        return _divergence_sample(log_true, value, scale * mean, scale**2 * variance[..., None] + noise, zero, one)

    def reverse_terms(
        self, truth: TrueVideos, score: Any, step: ReverseStep, against: ExactScore, teacher_forced: bool = False
    ) -> StepTerms:
        """DE, SEE and CROSS of every reverse step.

        Args:
            truth: true videos.
            score: the sampler's.
            step: the reverse step.
            against: the s* that SEE measures the score against: masked, or with everything in view (then what the
                mask hides is part of SEE).
            teacher_forced: average over true windows, also where the law has a closed form.
        """
        stage, frames = self.stage, tuple(self.stage.frames)
        known, shown = truth.references(stage)
        given = None if known.empty else known
        steps = sampler_steps(stage.levels.to(truth.frames.device), step)
        assert steps.variance is not None  # require_kernel has seen to it
        columns: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        path = [truth.window(frames, row) for row in stage.grid]
        below = self.law.posterior(Evidence.noisy(frames, stage.grid[0], path[0]), given)
        for m in range(stage.steps):
            here, moving = below, stage.moving(m)
            if not moving:
                columns.append((torch.zeros_like(here.log_density),) * 4)
                continue
            below = self.law.posterior(Evidence.noisy(frames, stage.grid[m + 1], path[m + 1]), given)
            context = shown.seeing(stage.visible[m])
            levels = stage.levels[m].to(path[m].device)
            own = _scored(score, self.law, path[m], levels, context, here)[:, moving]
            aim = _scored(against, self.law, path[m], levels, context, here)[:, moving]
            window, reached = path[m][:, moving], path[m + 1][:, moving]
            level, target = (row.to(window)[moving, None] for row in (stage.levels[m], stage.levels[m + 1]))
            a, v = transition(level, target)
            on_window, on_score, noise = (
                part[m, moving, None] for part in (steps.mean_window, steps.mean_score, steps.variance)
            )
            true = (window + v * here.score[:, moving]) / a
            mean, miss = on_window * window + on_score * aim, on_score * (own - aim)
            log_true = _log_normal(window, a * reached, v) + below.log_density - here.log_density
            variance: Tensor | None = None
            if here.variance is not None:
                still, gain = v * sigma2(target) / sigma2(level), alpha(target) * v
                variance = still + (gain / sigma2(level)) ** 2 * here.variance[:, moving, None]
            columns.append(
                (
                    _divergence_sample(log_true, reached, true, variance, mean, noise),
                    0.5 * (miss**2 / noise).sum((-2, -1)),
                    ((mean - true) * miss / noise).sum((-2, -1)),
                    log_true - _log_normal(reached, mean + miss, noise),
                )
            )
        de, see, cross, direct = (torch.stack(term, -1) for term in zip(*columns, strict=True))
        return StepTerms(de, see, cross, direct)

    def memory_bottleneck(self, truth: TrueVideos, clean_references: bool = False) -> Tensor:
        """MB: I(Output; Past | Input), (samples,).

        Args:
            truth: true videos.
            clean_references: condition on the references *before* they are noised: the form under which the lower
                bound on the clean KL holds for plans with w = Δ.
        """
        stage = self.stage
        out = [State(stage.frames[j], stage.grid[-1][j]) for j in stage.output]
        past = [State(frame, stage.floor) for frame in stage.past]
        known = self._input(truth)[0]
        if clean_references:
            held = {State(frame, stage.floor): None for frame in stage.reference_frames}
            past = [state for state in past if state not in held]
            entering = [State(stage.frames[j], stage.grid[0][j]) for j in range(stage.kept)]
            known = truth.evidence([*entering, *held], stage.frames.stop)
        if not out or not past:
            return truth.frames.new_zeros(truth.videos)
        window, before = truth.evidence(out), truth.evidence(past)
        alone = None if known.empty else known
        return self.law.log_density(window, known + before) - self.law.log_density(window, alone)

    def affine_map(self, score: Any) -> Any:
        """The score's map of (window, known) in centred coordinates, where law and score have one; else None."""
        return None

    def reverse_noise(self, step: int, fresh: Tensor) -> Tensor:
        """Standard normal frames given the covariance of the true conditional of reverse step m = ``step``.

        Raises:
            ValueError: for a law whose posterior is no Gaussian.
        """
        raise ValueError(
            f"the ancestral step has the exact posterior's covariance, which the video {self.law.name!r} has in "
            "no Gaussian form: choose exponential, euler, ddpm or ddim"
        )

    def _input(self, truth: TrueVideos) -> tuple[Evidence, ReferenceBatch]:
        """Input_k and the actions as evidence, and the references as a score sees them."""
        stage = self.stage
        known, shown = truth.references(stage)
        entering = [State(stage.frames[j], stage.grid[0][j]) for j in range(stage.kept)]
        return truth.evidence(entering) + known, shown


def _scored(
    score: Any, law: Law, window: Tensor, levels: Tensor, shown: ReferenceBatch, posterior: WindowPosterior
) -> Tensor:
    """A score's value on true windows; the exact one of this very law is known already where it sees all."""
    if isinstance(score, PerturbedScore) and score.video in (None, law):
        return _scored(score.base, law, window, levels, shown, posterior) - score.error * window + score.bias
    if isinstance(score, ExactScore) and score.video in (None, law):
        sees_all = not score.masked or shown.visible is None or all(map(all, shown.visible))
        if sees_all and (score.actions or shown.history is None):
            return posterior.score
        return law.exact_score(window, levels, shown, masked=score.masked, actions=score.actions)
    return checked_score(score(window, levels, shown), window, shown.window_frames, levels).to(window)


def _divergence_sample(
    log_true: Tensor, value: Tensor, mean: Tensor, variance: Tensor | None, other: Tensor, noise: Tensor
) -> Tensor:
    """One sample of KL(P ‖ N(other, noise)) from ``value`` ~ P of the given mean and variance, (batch,).

    log P - log N(mean, variance) at the value, plus the closed form KL(N(mean, variance) ‖ N(other, noise)).
    Without the variance it is log P - log N(other, noise), with the same mean.
    """
    if variance is None:
        return log_true - _log_normal(value, other, noise)
    variance = variance.expand(*value.shape[:-1], 1)
    isotropic = value.shape[-1] * x_minus_log1p(variance / noise - 1)
    shift = ((mean - other) ** 2 / noise).sum(-1, keepdim=True)
    return log_true - _log_normal(value, mean, variance) + 0.5 * (isotropic + shift).sum((-2, -1))


def _log_normal(value: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """log N(value; mean, variance I) summed over frames and entries, (batch,); variance (.., frames, 1)."""
    square = ((value - mean) ** 2).sum(-1, keepdim=True) / variance
    return -0.5 * (square + value.shape[-1] * (torch.log(variance) + _LOG_2PI)).sum((-2, -1))
