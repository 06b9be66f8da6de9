"""The terms of the ledger: KL(trajectory) = IE + Σ_k [NIE_AR,k + Σ_m (DE + SEE + CROSS) + MB_k].

The trajectory starts at Input_1 and holds every variable created after it. A law answers stage by stage
(:mod:`arvdm_theory.laws.stage_law`): in closed form where it can, else by averages over true videos. Where law and
score have closed forms throughout, so has the law of the rollout, and with it IE and the KL of clean frames and
clips; nothing is ever generated.

Sources: arXiv 2503.10704, Theorems 1 and 2, with the cross term kept and every inequality resolved.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from arvdm_theory.bounds.path import closed_initialisation_bound, closed_path_bound, girsanov_path_bound
from arvdm_theory.decomposition.question import FULL_VIEW, Question
from arvdm_theory.diffusion.scores import ExactScore, PerturbedScore
from arvdm_theory.diffusion.steps import STEPS, ReverseStep
from arvdm_theory.information.gaussian import wasserstein2
from arvdm_theory.laws.gaussian_sampler import SamplerLaw, clean_law, kl_rounding
from arvdm_theory.laws.law import VideoLaw
from arvdm_theory.laws.stage_law import StageLaw, TrueVideos, weighted
from arvdm_theory.number import Number
from arvdm_theory.plan.plan import Plan

__all__ = [
    "ROLLOUT",
    "LedgerTerms",
    "StageErrors",
    "attributed",
    "closed_rollout",
    "dense_steps",
    "first_input",
    "stage_errors",
]

# The most entries of a joint covariance of all frames: half a gigabyte.
_DENSE_ENTRIES = 8192**2

ROLLOUT = ("ar_step_errors", "kl", "clips", "clips_w2", "kl_w2", "rounding")
"""What :func:`closed_rollout` finds beside IE."""


@dataclass(frozen=True)
class StageErrors:
    """The errors of one stage (the initialisation, or an AR step of M reverse steps), in nats.

    Attributes:
        nie: E KL(P(X^T_fresh | Input) ‖ N(0, I)).
        de, see, cross: of every reverse step, (M,).
        direct: log P - log Q of every reverse step, which has the mean of DE + SEE + CROSS; None where all is
            exact.
        girsanov, closed: the Girsanov form of the path terms and its closed bound, (M,); None where not computed.
        nie_closed: closed bound of the noise initialisation; None likewise.
        mb: I(Output; Past | Input); None in the initialisation stage, and if left out.
        mb_clean: I(Output; Past | the references before noising); None unless w = Δ.
    """

    nie: Number
    de: Number
    see: Number
    cross: Number
    direct: Number | None = None
    girsanov: Number | None = None
    closed: Number | None = None
    nie_closed: Number | None = None
    mb: Number | None = None
    mb_clean: Number | None = None

    @property
    def path(self) -> Number:
        """NIE and Σ_m (DE + SEE + CROSS)."""
        return self.nie + (self.de + self.see + self.cross).sum()


@dataclass(frozen=True)
class LedgerTerms:
    """Every term of the ledger as numbers of float64 tensors, in nats; None is not defined.

    Attributes:
        initialisation: of the initialisation stage.
        ar: of AR steps 1..K.
        ie: KL(P_{Input_1} ‖ Q_{Input_1}); None without a closed form.
        kl: of all clean frames; None without a closed form of the rollout.
        clips: of the clip that each AR step put out, (K,); None likewise.
        ar_step_errors: E_k = E KL(P(Output_k | Input_k) ‖ Q(Output_k | Input_k)) of each AR step, (K,), where it
            is known: what NIE_AR and the path terms of that step bound.
        attribution: E_k as NIE, DE and SEE, switched on in this order, (K, 3); None unless asked for. The parts of
            an order add up to E_k and may be negative.
        kl_w2, clips_w2: W_2 of all clean frames and of every clip (K,), in units of the frames; None where ``kl``
            is, and for a video with actions. ``kl_w2`` has no recursion.
        accumulation: the saturating bound on the KL of every clip, (K,); None unless asked for.
        rounding: an estimate of the rounding in ``kl`` and ``clips``, the larger relative one.
        generated_ie: IE from a generated initialisation, where it has no closed form and ``ar_step_errors`` were
            generated too (:mod:`arvdm_theory.decomposition.generated`): it enters ``ar_step_kl`` alone.
        notes: why what was asked for is not there, as far as that does not show in the rest.
    """

    initialisation: StageErrors
    ar: Sequence[StageErrors]
    ie: Number | None = None
    kl: Number | None = None
    clips: Number | None = None
    ar_step_errors: Number | None = None
    attribution: Number | None = None
    kl_w2: Number | None = None
    clips_w2: Number | None = None
    accumulation: Number | None = None
    rounding: float = 0.0
    generated_ie: Number | None = None
    notes: dict[str, str] = field(default_factory=dict)

    def of(self, name: str) -> Number | None:
        """One error of all AR steps, (K,) or (K, M)."""
        numbers = [getattr(stage, name) for stage in self.ar]
        return None if any(number is None for number in numbers) else Number.stack(numbers)

    def total(self, name: str) -> Number | None:
        """Its sum over all AR steps."""
        numbers = self.of(name)
        return None if numbers is None else numbers.sum()

    @property
    def start(self) -> Number:
        """IE, or its bound NIE + path terms of the initialisation where IE would need a rollout."""
        return self.initialisation.path if self.ie is None else self.ie

    @property
    def ar_paths(self) -> Number:
        """NIE_AR,k + Σ_m (DE + SEE + CROSS) of each AR step, (K,)."""
        return Number.stack([stage.path for stage in self.ar])

    @property
    def trajectory(self) -> Number | None:
        """KL of the trajectory: the sum of the ledger; None where IE or MB is."""
        mb = self.total("mb")
        return None if self.ie is None or mb is None else self.ie + self.ar_paths.sum() + mb

    @property
    def ar_step_kl(self) -> Number | None:
        """KL of the trajectory at the ends of AR steps: IE + Σ_k (E_k + MB_k); KL(clean) ≤ it ≤ KL(trajectory)."""
        mb, start = self.total("mb"), self.generated_ie if self.ie is None else self.ie
        if start is None or self.ar_step_errors is None or mb is None:
            return None
        return start + _summed(self.ar_step_errors) + mb

    @property
    def path(self) -> Number | None:
        """The ledger with IE replaced by its bound, the whole initialisation stage."""
        mb = self.total("mb")
        return None if mb is None else self.initialisation.path + self.ar_paths.sum() + mb

    @property
    def girsanov(self) -> Number | None:
        """NIE and MB with the Girsanov form of both stages."""
        return self._bound("girsanov", "nie")

    @property
    def closed(self) -> Number | None:
        """The closed bound: explicit constants for all but the memory bottleneck, which stays exact."""
        return self._bound("closed", "nie_closed")

    def _bound(self, path: str, nie: str) -> Number | None:
        parts = [self.total(name) for name in (path, nie, "mb")]
        own = [getattr(self.initialisation, name) for name in (path, nie)]
        if any(part is None for part in (*parts, *own)):
            return None
        total: Number = own[0].sum() + own[1]
        for part in parts:
            assert part is not None
            total = total + part
        return total

    @property
    def clip_bounds(self) -> Number:
        """IE + Σ_{k ≤ K} [NIE_AR,k + path terms], (K,): a bound on clip KL where the plan's condition holds."""
        return self.start + self.ar_paths.cumsum()

    @property
    def floor(self) -> Number | None:
        """Σ I(Output_k; Past_k | clean references), which no sampler of the plan beats; None unless w = Δ."""
        return self.total("mb_clean")


def _summed(numbers: Number) -> Number:
    """The sum over AR steps, also of numbers whose errors lie outside their samples.

    These are independent, but for those of a divergence estimator, which errs alike at every step: they add up.
    """
    extra = torch.as_tensor(numbers.extra, dtype=torch.float64).expand(numbers.samples.shape[1:])
    alike = bool((extra > 0).any()) and numbers.method != "moment-matched"
    total = extra.sum() if alike else torch.sqrt((extra**2).sum())
    return Number(numbers.samples.sum(-1), total, freedom=numbers.freedom, method=numbers.method, n=numbers.n)


def dense_steps(video: VideoLaw, plan: Plan) -> int | None:
    """Up to how many AR steps a Gaussian video's joint covariance can be held; None for another video."""
    if not video.gaussian:
        return None
    rows = math.isqrt(_DENSE_ENTRIES // video.modes) // (video.frame_dim + video.action_dim)
    return max(1, (rows - plan.total_frames(1)) // plan.stride + 1)


def stage_errors(question: Question, laws: Sequence[StageLaw], truths: Iterable[TrueVideos]) -> list[StageErrors]:
    """The errors of every stage, averaged over batches of true videos where they are averages."""
    for law in laws:
        law.require_kernel(question.reverse)
    columns: list[dict[str, list[Tensor]]] = [{} for _ in laws]
    weights: list[Tensor] = []
    for truth in truths:
        weights += [] if truth.weights is None else [truth.weights]
        before: StageLaw | None = None
        errors: dict[str, Tensor] = {}
        for law, column in zip(
            tqdm(laws, "stages", disable=not question.progress or None, leave=False), columns, strict=True
        ):
            # Averages are over draws of their own at every stage.
            averaged = law.window is None or question.teacher_forced
            if averaged or before is None or not _same_stage(before, law, question.score):
                errors = _reverse_errors(question, law, truth)
            before = law
            for name, value in (errors | _bottlenecks(question, law, truth)).items():
                column.setdefault(name, []).append(value)
    own = torch.cat(weights) if weights else None
    return [
        StageErrors(**{name: Number(weighted(torch.cat(parts), own)) for name, parts in column.items()})
        for column in columns
    ]


def _reverse_errors(question: Question, law: StageLaw, truth: TrueVideos) -> dict[str, Tensor]:
    step, bounds = question.reverse, question.bounds(law)
    terms = law.reverse_terms(truth, question.score, step, question.against, question.teacher_forced)
    found = {"nie": law.start_divergence(truth), "de": terms.de, "see": terms.see, "cross": terms.cross}
    if terms.direct is not None:
        found["direct"] = terms.direct
    window, moments, stage = law.window, terms.moments, law.stage
    if window is not None and moments is not None and bounds[0]:
        found["girsanov"] = law.over_modes(girsanov_path_bound(window, moments, step))
        if bounds[1]:
            # λ is a bound, not a value: any number from 0 to the smallest eigenvalue will do.
            smallest = torch.linalg.eigvalsh(window.covariance)[..., 0].clamp(min=0)
            found["closed"] = law.over_modes(closed_path_bound(window, moments, step, smallest))
            found["nie_closed"] = law.over_modes(closed_initialisation_bound(window, stage.fresh, stage.horizon))[
                None
            ]
    return found


def _bottlenecks(question: Question, law: StageLaw, truth: TrueVideos) -> dict[str, Tensor]:
    stage = law.stage
    if not question.memory or not stage.ar_step:
        return {}
    found = {"mb": law.memory_bottleneck(truth)}
    if not stage.kept:
        noised = any(r.level > stage.floor for r in stage.references)
        found["mb_clean"] = law.memory_bottleneck(truth, clean_references=True) if noised else found["mb"]
    return found


def closed_rollout(question: Question, laws: Sequence[Any], wanted: Collection[str] = ROLLOUT) -> dict[str, Any]:
    """IE, the errors of whole AR steps, KL and W_2 of clips and of all clean frames, as far as there are closed
    forms; of these what is ``wanted``, by the names of :data:`ROLLOUT`, and IE.

    Stages that are the same (the same law seen from the window, the same levels) share kernel and error.
    """
    plan, score, step = question.plan, question.score, question.reverse
    window, over = laws[0].window, laws[0].over_modes
    frames = laws[-1].stage.frames.stop
    started = first_input(question, laws[0], frames)
    if started is None:
        return {}
    sampler, ie = started
    dim = window.dim
    moments, actions = question.video.joint_moments(frames), window.action_dim * frames  # type: ignore[attr-defined]
    floor = torch.tensor(plan.floor, dtype=torch.float64, device=window.mean.device)
    found: dict[str, Any] = {"ie": Number.exact(ie)}
    clips, clips_w2, errors, parts = [], [], [], []
    before: Any = None
    error = part = torch.empty(0)
    for law in laws[1:]:
        if before is None or not _same_stage(before, law, score):
            kernel = law.kernel(score, step)
            if kernel is None:  # from here on the rollout has no closed-form law
                return found
            if "ar_step_errors" in wanted or question.attribution:
                error = law.ar_step_error(kernel)
            if question.attribution:
                part = attributed(law, step, error)
        before = law
        errors.append(error)
        parts.append(part)
        sampler = sampler.advance(plan, law.stage, kernel)
        clip = plan.clip_frames(law.stage.ar_step)
        true = clean_law(moments, dim, actions, clip, floor)
        if "clips" in wanted:
            clips.append(sampler.divergence(true, clip))
        if "clips_w2" in wanted and not actions:
            clips_w2.append(over(wasserstein2(*true, *sampler.frames(clip))))
    if "ar_step_errors" in wanted:
        found["ar_step_errors"] = Number(torch.stack(errors, -1), method="exact")
    if question.attribution:
        found["attribution"] = Number(torch.stack(parts, -2), method="exact")
    if clips:
        found["clips"] = Number.exact(over(torch.stack(clips)))
    if clips_w2:
        found["clips_w2"] = Number.exact(torch.sqrt(torch.stack(clips_w2)))
    clean = range(plan.clean_frames(len(laws) - 1))
    true = clean_law(moments, dim, actions, clean, floor)
    if "kl" in wanted:
        found["kl"] = Number.exact(over(sampler.divergence(true, clean)))
    if "kl_w2" in wanted and not actions:
        found["kl_w2"] = Number.exact(torch.sqrt(over(wasserstein2(*true, *sampler.frames(clean)))))
    if "rounding" in wanted:
        found["rounding"] = float(over(kl_rounding(true, sampler.frames(clean))))
    return found


def first_input(question: Question, law: Any, frames: int) -> tuple[SamplerLaw, Tensor] | None:
    """The sampler's law of Input_1 and IE, (1,); None where the initialisation has no closed form.

    Args:
        question: what is asked.
        law: of the initialisation stage.
        frames: of the video whose actions the law is given.
    """
    plan, entry, window = question.plan, question.entry, law.window
    kernel = None if window is None else law.kernel(question.score, question.reverse)
    if kernel is None:
        return None
    dim = window.dim
    moments = question.video.joint_moments(frames)  # type: ignore[attr-defined]
    actions, n = window.action_dim * frames, frames * dim
    told = (moments[0][:, n:], moments[1][:, n:, n:]) if actions else None
    sampler = SamplerLaw.initial(plan, kernel, dim, told, entry)
    levels = torch.tensor(plan.floor, dtype=torch.float64, device=window.mean.device)
    if plan.overlapping:
        levels = torch.tensor(plan.input_levels, dtype=torch.float64, device=window.mean.device)
        levels = (levels if entry is None else entry)[: plan.init_frames]
    first = range(plan.init_frames)
    return sampler, law.over_modes(sampler.divergence(clean_law(moments, dim, actions, first, levels), first))


def _same_stage(first: Any, second: Any, score: Any) -> bool:
    """Whether two AR steps have the same kernel for an exact score of their video: their windows have one law.

    Laws that carry a gradient may have equal values of different derivatives, and are never the same.
    """
    exact = isinstance(score, ExactScore | PerturbedScore) and score.video in (None, first.video)
    if not exact or not first.stage.ar_step:  # another one may look at the frames' numbers
        return False
    one, two = first.window, second.window
    if any(each.covariance.requires_grad or each.mean.requires_grad for each in (one, two)):
        return False
    return (
        first.stage.visible == second.stage.visible
        and first.stage.fresh == second.stage.fresh
        and torch.equal(one.levels, two.levels)
        and torch.equal(first.stage.reference_levels, second.stage.reference_levels)
        and all(
            torch.equal(getattr(one, name), getattr(two, name))
            for name in ("mean", "covariance", "gain", "known_mean", "known_factor")
        )
    )


def attributed(law: Any, step: ReverseStep, error: Tensor) -> Tensor:
    """E_k as the increments of switching on, in turn, the N(0, I) start, the discretised exact score, and the
    score."""
    exact = FULL_VIEW.of(law.video)
    started, discretised = (law.ar_step_error(law.kernel(exact, each)) for each in (STEPS["ancestral"], step))
    return torch.stack([started, discretised - started, error - discretised], -1)
