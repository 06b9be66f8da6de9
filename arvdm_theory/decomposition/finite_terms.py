"""The ledger's terms on true finite-state videos, video by video: nothing is generated.

Every frame has one noise path, references are noised afresh at every AR step, and "clean" frames, references and
Past are the states X^δ that the trajectory itself leaves at the floor. On such a video

    NIE_AR,k is the mean of log p(X^T_new | Input_k) - log N(X^T_new; 0, I),
    MB_k is the mean of log p(Output_k | Input_k, Past_k) - log p(Output_k | Input_k),

and the path terms are those of :mod:`arvdm_theory.decomposition.finite_stage`. All terms are averaged over the same
videos, so that their sums have standard errors of their own.

Source: arXiv 2503.10704, Theorem 1 (NIE) and Theorem 2 (MB).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from tqdm import tqdm

from arvdm_theory.decomposition.finite_stage import (
    FiniteScore,
    FiniteStage,
    StageSamples,
    clean_variance,
    divergence_sample,
    require_finite_kernels,
    stage_samples,
)
from arvdm_theory.decomposition.stage import sample_count
from arvdm_theory.diffusion.scores import AffineScore, ExactScore, HasScore, PerturbedScore, as_score
from arvdm_theory.diffusion.steps import ReverseStep, reverse_step
from arvdm_theory.interfaces import ReferenceBatch, Score
from arvdm_theory.laws.chains import FiniteStateVideo, Sample
from arvdm_theory.laws.evidence import Evidence
from arvdm_theory.laws.gaussian import State, standard_normal
from arvdm_theory.laws.inference import infer, log_density
from arvdm_theory.noise import alpha, sigma2, transition
from arvdm_theory.plan.plan import Plan, Reference

__all__ = ["FULL_VIEW", "FiniteTerms", "finite_ledger_terms", "finite_score", "sampled_terms"]

FULL_VIEW = ExactScore(masked=False)
"""What SEE is measured against by default: the exact score with everything in view."""

_MOST_ENTRIES = 2**22
"""Entries of the noisy states of one batch of videos; larger runs are cut into batches."""


@dataclass(frozen=True, eq=False)
class FiniteTerms:
    """Every term of the ledger, video by video: n true videos, K AR steps of M reverse steps, in nats.

    A term is the mean over the leading axis, and its standard error that of the mean; a term that is known
    exactly has the same value for every video.

    Attributes:
        nie_init: log p(X^T_init) - log N(0, I), (n,).
        init_de, init_see, init_cross, init_direct: of the initialisation stage, (n, M_init).
        nie_ar: log p(X^T_new | Input_k) - log N(0, I), (n, K).
        de, see, cross: (n, K, M).
        direct: log P - log Q of every reverse step, which has the mean of DE + SEE + CROSS, (n, K, M).
        mb: log p(Output_k | Input_k, Past_k) - log p(Output_k | Input_k), (n, K); NaN if left out.
        mb_clean: the same given the references before noising, (n, K); None unless w = Δ.
    """

    nie_init: Tensor
    init_de: Tensor
    init_see: Tensor
    init_cross: Tensor
    init_direct: Tensor
    nie_ar: Tensor
    de: Tensor
    see: Tensor
    cross: Tensor
    direct: Tensor
    mb: Tensor
    mb_clean: Tensor | None

    @property
    def init_path(self) -> Tensor:
        """NIE and all path terms of the initialisation stage, which bound IE, (n,)."""
        return self.nie_init + (self.init_de + self.init_see + self.init_cross).sum(-1)

    @property
    def ar_path(self) -> Tensor:
        """NIE_AR,k and the path terms of every AR step, (n, K)."""
        return self.nie_ar + (self.de + self.see + self.cross).sum(-1)

    @property
    def path(self) -> Tensor:
        """The whole ledger with IE replaced by its bound, (n,)."""
        return self.init_path + (self.ar_path + self.mb).sum(-1)


def finite_ledger_terms(
    video: FiniteStateVideo,
    plan: Plan,
    ar_steps: int,
    score: FiniteScore | AffineScore | HasScore | None = None,
    step: str | ReverseStep = "exponential",
    *,
    against: ExactScore = FULL_VIEW,
    memory: bool = True,
    samples: int = 2048,
    seed: int = 0,
    progress: bool = False,
) -> FiniteTerms:
    """Every term of the ledger on ``samples`` true videos.

    Args:
        video: the finite-state video.
        plan: the plan; its floor must be above 0 unless the frames have observation noise.
        ar_steps: K ≥ 1.
        score: None for the exact score of what the plan lets frames see, an ``ExactScore``, a
            ``PerturbedScore``, any callable (window, levels, references) → score, or a denoiser. It is told no
            actions, which these videos do not have.
        step: exponential, euler, or ddpm above level 0.
        against: the s* that SEE is measured against; by default it sees everything.
        memory: whether to compute MB (else it is NaN and the totals with it).
        samples: n ≥ 2 true videos.
        seed: of everything drawn.
        progress: whether to show a progress bar.

    Raises:
        ValueError: if clean frames have no density, if the step's path KL is infinite or it is no Gaussian
            kernel, for a score of another kind, or if an argument is out of range.
        TableSizeError: if the chain has too many states for exact inference.
    """
    if plan.floor == 0 and video.rendering.atomic:
        raise ValueError(
            f"{video.name!r} has no observation noise, so its clean frames have no density and the last reverse "
            "step to level 0 costs an infinite KL: give the plan a floor δ > 0, or end AR steps on states "
            "(decoded_ledger)"
        )
    return sampled_terms(
        video, plan, ar_steps, score, reverse_step(step), against, memory, samples, seed, progress, decoded=False
    )


def sampled_terms(
    video: FiniteStateVideo,
    plan: Plan,
    ar_steps: int,
    score: FiniteScore | AffineScore | HasScore | None,
    step: ReverseStep,
    against: ExactScore,
    memory: bool,
    samples: int,
    seed: int,
    progress: bool,
    decoded: bool,
) -> FiniteTerms:
    """As :func:`finite_ledger_terms`; with ``decoded``, references are the frames' symbols and MB is left out."""
    if ar_steps < 1:
        raise ValueError(f"at least one AR step is needed, got {ar_steps}")
    samples = sample_count(samples)
    own = finite_score(score)
    require_finite_kernels(step, (plan.init_grid, plan.ar_grid))
    generator = torch.Generator(device=video.chain.transition.device).manual_seed(seed)
    names = [field.name for field in fields(FiniteTerms)]
    parts: dict[str, list[Tensor | None]] = {name: [] for name in names}
    wanted = _levels(plan, ar_steps)
    entries = video.frame_dim * sum(len(levels) for levels in wanted.values())
    batch = max(2, min(samples, _MOST_ENTRIES // entries))
    sizes = [min(batch, samples - start) for start in range(0, samples, batch)]
    for size in tqdm(sizes, "true videos", disable=not progress or None, leave=False):
        truth = _TrueVideos.draw(video, plan, wanted, size, generator)
        for name, value in _batch_terms(truth, plan, ar_steps, own, step, against, memory, decoded).items():
            parts[name].append(value)

    def joined(name: str) -> Tensor | None:
        present = [part for part in parts[name] if part is not None]
        return torch.cat(present) if present else None

    return FiniteTerms(**{name: joined(name) for name in names})  # type: ignore[arg-type]


def finite_score(score: FiniteScore | AffineScore | HasScore | None) -> FiniteScore:
    """The score as finite-state videos take it.

    Raises:
        ValueError: if it is affine by a map of a Gaussian law, or no score at all.
    """
    if score is None:
        return ExactScore()
    own = as_score(score)
    if isinstance(own, ExactScore | PerturbedScore) or (
        isinstance(own, Score) and not isinstance(own, AffineScore)
    ):
        return own
    raise ValueError(
        "a score of a finite-state video is None, ExactScore, PerturbedScore or a callable (window, levels, "
        f"references) → score, got {type(score).__name__}"
    )


@dataclass(frozen=True, eq=False)
class _TrueVideos:
    """A batch of true videos with every frame's states on its own forward path.

    Attributes:
        video: their law.
        sample: symbols and clean frames.
        states: (frame, level) → (batch, d).
        generator: of all that is drawn from here on.
    """

    video: FiniteStateVideo
    sample: Sample
    states: dict[tuple[int, float], Tensor]
    generator: torch.Generator

    @classmethod
    def draw(
        cls,
        video: FiniteStateVideo,
        plan: Plan,
        wanted: dict[int, set[float]],
        videos: int,
        generator: torch.Generator,
    ) -> _TrueVideos:
        sample = video.sample(videos, max(wanted) + 1, generator)
        truth = cls(video, sample, {}, generator)
        for frame, levels in wanted.items():
            value, below = sample.frames[:, frame], 0.0
            for level in sorted(levels):
                value = truth.noised(value, below, level)
                truth.states[frame, level], below = value, level
        return truth

    def noised(self, value: Tensor, below: float, level: float) -> Tensor:
        """Forward from one level to a higher one, with fresh noise."""
        if level == below:
            return value
        a, v = transition(*torch.tensor([level, below], dtype=torch.float64))
        return a * value + v.sqrt() * standard_normal(value.shape, self.generator).to(value)

    def window(self, frames: Sequence[int], levels: Sequence[float]) -> Tensor:
        """(batch, w, d)."""
        return torch.stack([self.states[place] for place in zip(frames, levels, strict=True)], 1)

    def evidence(self, states: Sequence[State], values: Sequence[Tensor] | None = None) -> Evidence:
        """States on the frames' own paths, or with values of their own."""
        if not states:
            return Evidence()
        rows = [self.states[s.frame, s.level] for s in states] if values is None else list(values)
        return Evidence(tuple(states), torch.stack(rows, 1))


def _levels(plan: Plan, ar_steps: int) -> dict[int, set[float]]:
    """The levels at which each frame's own path is needed."""
    wanted: dict[int, set[float]] = {frame: {plan.floor} for frame in range(plan.total_frames(ar_steps))}
    for k in range(1, ar_steps + 1):
        for j, frame in enumerate(plan.window_frames(k)):
            wanted[frame] |= {row[j] for row in plan.ar_grid}
    for frame in range(plan.init_frames):
        wanted[frame] |= {row[frame] for row in plan.init_grid}
    return wanted


def _batch_terms(
    truth: _TrueVideos,
    plan: Plan,
    ar_steps: int,
    score: FiniteScore,
    step: ReverseStep,
    against: ExactScore,
    memory: bool,
    decoded: bool,
) -> dict[str, Tensor | None]:
    video = truth.video

    def stage_terms(stage: FiniteStage) -> StageSamples:
        path = [truth.window(stage.frames, row) for row in stage.levels]
        return stage_samples(stage, path, score, step, against)

    frames, nothing = range(plan.init_frames), _references(truth, plan, 0, (), decoded)[1]
    init = FiniteStage(video, frames, plan.init_grid, (None,) * plan.init_steps, None, nothing)
    first = stage_terms(init)
    nie_init = _noise_initialisation(truth, frames, plan.horizon, None)
    columns: dict[str, list[Tensor]] = {
        name: [] for name in ("nie_ar", "de", "see", "cross", "direct", "mb", "mb_clean")
    }
    for k in range(1, ar_steps + 1):
        frames, references = plan.window_frames(k), plan.references_at(k)
        given, shown = _references(truth, plan, k, references, decoded)
        visible = tuple(plan.visible_at(m, len(references)) for m in range(plan.reverse_steps))
        found = stage_terms(FiniteStage(video, frames, plan.ar_grid, visible, given, shown))
        for name in ("de", "see", "cross", "direct"):
            columns[name].append(getattr(found, name))
        kept = plan.window - plan.stride
        entering = [State(frames[j], plan.ar_grid[0][j]) for j in range(kept)]
        known = truth.evidence(entering)
        known = known if given is None else known + given
        columns["nie_ar"].append(_noise_initialisation(truth, frames[kept:], plan.horizon, known))
        if not memory or decoded:
            continue
        past = [State(frame, plan.floor) for frame in plan.past_frames(k)]
        columns["mb"].append(_bottleneck(truth, plan, k, known, past))
        if plan.overlapping:
            continue
        if not plan.references.noised:
            columns["mb_clean"].append(columns["mb"][-1])
            continue
        before = [State(r.frame, plan.floor) for r in references]
        others = [state for state in past if state not in before]
        columns["mb_clean"].append(_bottleneck(truth, plan, k, truth.evidence(before), others))

    def stack(name: str) -> Tensor | None:
        return torch.stack(columns[name], 1) if columns[name] else None

    ar = {name: stack(name) for name in columns}
    if ar["mb"] is None:
        ar["mb"] = torch.full_like(torch.stack(columns["nie_ar"], 1), math.nan)
    return {
        "nie_init": nie_init,
        "init_de": first.de,
        "init_see": first.see,
        "init_cross": first.cross,
        "init_direct": first.direct,
        **ar,
    }


def _references(
    truth: _TrueVideos, plan: Plan, ar_step: int, references: Sequence[Reference], decoded: bool
) -> tuple[Evidence | None, ReferenceBatch]:
    """R_k as evidence, and as a score sees it: own states at the floor, fresh noise above it, or symbols."""
    frames = tuple(r.frame for r in references)
    window = tuple(plan.window_frames(ar_step)) if ar_step else tuple(range(plan.init_frames))
    if decoded:
        clean = truth.sample.frames[:, list(frames)]
        shown = ReferenceBatch(clean, torch.zeros(len(frames), dtype=torch.float64).to(clean), frames, window)
        return (Evidence.clean(frames, truth.sample.symbols[:, list(frames)]) if frames else None), shown
    states, values = [], []
    for r in references:
        state, value = State(r.frame, plan.floor), truth.states[r.frame, plan.floor]
        if r.level > plan.floor:
            state = State(r.frame, r.level, path=ar_step, parting=plan.floor)
            value = truth.noised(value, plan.floor, r.level)
        states.append(state)
        values.append(value)
    none = truth.sample.frames[:, :0]
    levels = torch.tensor([state.level for state in states], dtype=torch.float64, device=none.device)
    shown = ReferenceBatch(torch.stack(values, 1) if values else none, levels, frames, window)
    return (truth.evidence(states, values) if states else None), shown


def _noise_initialisation(truth: _TrueVideos, new: range, horizon: float, known: Evidence | None) -> Tensor:
    """log p(X^T_new | In) - log N(0, I), moment-matched, (batch,)."""
    video, given = truth.video, known if known is not None and known.known_frames else None
    window = truth.window(new, (horizon,) * len(new))
    log_true = log_density(video, Evidence.noisy(new, (horizon,) * len(new), window), given)
    predicted = infer(video, Evidence(), given, new)
    level = torch.full((len(new),), horizon, dtype=torch.float64, device=window.device)
    unseen, one = torch.zeros_like(level), torch.ones_like(level)
    spread = clean_variance(video, window, unseen, one, predicted.symbols)
    scale, noise = alpha(level)[:, None], sigma2(level)[:, None]
    variance = None if spread is None else scale**2 * spread[..., None] + noise
    mean = scale * predicted.denoised
    return divergence_sample(log_true, window, mean, variance, torch.zeros_like(mean), torch.ones_like(noise))


def _bottleneck(truth: _TrueVideos, plan: Plan, ar_step: int, known: Evidence, past: Sequence[State]) -> Tensor:
    """log p(Output_k | Input_k, Past) - log p(Output_k | Input_k), (batch,).

    An older window frame that does not move is part of the input already; a new one is an output even at T.
    """
    frames, kept = plan.window_frames(ar_step), plan.window - plan.stride
    start, end = plan.ar_grid[0], plan.ar_grid[-1]
    out = [State(frames[j], end[j]) for j in range(plan.window) if j >= kept or end[j] < start[j]]
    if not out or not past:
        return truth.sample.frames.new_zeros(len(truth.sample.frames))
    window, before = truth.evidence(out), truth.evidence(past)
    alone = known if known.known_frames else None
    return log_density(truth.video, window, known + before) - log_density(truth.video, window, alone)
