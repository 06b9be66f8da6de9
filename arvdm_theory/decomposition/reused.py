"""The ledger of a plan whose references keep their noise: copies noised once, and frames' own states.

Under the true law a noisy state is its frame and noise of its own, and an AR step sees each frame in one state:
NIE, DE, SEE, CROSS and MB_k are those of fresh noise, since that noise says nothing to anyone who knows the frame
itself. What changes is the sampler's law, whose states are correlated with all that they were shown to before, and
with it IE, KL and clips. States that are kept belong to what an AR step puts out,

    E_k = E KL(P(Output_k, kept states | Input_k) ‖ Q(Output_k, kept states | Input_k)).

Where references are ``matched``, at the level of each reverse step, a reverse step m is shown R_k^m and pays

    E KL(P(W^{m+1} | W^m, R_k^m) ‖ Q) + I(W^{m+1}; Past_k | W^m, R_k^m),

Past_k being all frames that are out; MB_k is the sum of these informations. At the end R_k^m is clean, so that the
ledger at the ends of AR steps has I(Output_k; Past_k | clean references) in their place. The order is bookkeeping:
HiAR makes one reverse step of all frames and then the next, by the same kernels: the joint law is the same.

What no longer holds: Σ I(Output_k; Past_k | clean references) as a lower bound (kept noise tells what older frames
were), and for matched references the K-fold bound on clips (a reverse step is shown less than its AR step holds).

Sources: arXiv 2503.10704, Theorems 1 and 2; HiAR, arXiv 2603.08703, for matched references.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from arvdm_theory.decomposition.question import Question
from arvdm_theory.decomposition.terms import LedgerTerms, StageErrors, stage_errors
from arvdm_theory.information.gaussian import NotPositiveDefiniteError, kl_divergence, wasserstein2
from arvdm_theory.laws.gaussian_kernel import Kernel
from arvdm_theory.laws.gaussian_sampler import SamplerLaw, kl_rounding
from arvdm_theory.laws.held_states import HeldLaw
from arvdm_theory.laws.states import State
from arvdm_theory.number import Number
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.references import Reference
from arvdm_theory.plan.stage import Stage

__all__ = ["ReusedTerms", "reused_terms", "shown_state"]


@dataclass(frozen=True)
class ReusedTerms(LedgerTerms):
    """Terms of the ledger with references that keep their noise.

    Attributes:
        held_mb: I(Output_k; Past_k | all that AR step k is shown), (K,): of the ledger at the ends of AR steps.
    """

    held_mb: Number | None = None

    @property
    def ar_step_kl(self) -> Number | None:
        """KL of the trajectory at the ends of AR steps, kept states among them."""
        if self.ie is None or self.ar_step_errors is None or self.held_mb is None:
            return None
        return self.ie + self.ar_step_errors.sum() + self.held_mb.sum()

    @property
    def floor(self) -> Number | None:
        """None: what kept noise tells of older frames is in no such sum."""
        return None


def shown_state(plan: Plan, reference: Reference, ar_step: int) -> State:
    """The state that a reference of AR step k is, by name."""
    once = sorted({pick.level for pick in plan.references.picks if pick.noise == "once"})
    frame, level, floor = reference.frame, max(reference.level, plan.floor), plan.floor
    if reference.noise == "once":
        return State(frame, level, path=1 + once.index(reference.level), parting=floor)
    if reference.noise == "fresh" and level > floor:
        return State(frame, level, path=1 + len(once) + ar_step, parting=floor)
    return State(frame, level)


def reused_terms(question: Question) -> LedgerTerms:
    """The terms of the ledger, by one joint law of all states that the sampler keeps.

    Raises:
        ValueError: for levels in place of the plan's, a video with actions, and where references are frames' own
            states for a step of several evaluations or a video that is not Gaussian.
    """
    plan, video, steps = question.plan, question.video, range(1, question.ar_steps + 1)
    own = any(pick.noise in ("own", "matched") for pick in plan.references.picks)
    if question.ar_grid is not None or question.init_grid is not None:
        plan.require_fresh("a grid in place of the plan's")
    if own and question.reverse.advance is not None:
        raise ValueError(
            f"the {question.reverse.name} step reaches over the levels at which states are kept: choose another"
        )
    if own and not video.gaussian:
        raise ValueError(f"references that are frames' own states are for Gaussian videos, not {video.name!r}")
    if video.action_dim:
        plan.require_fresh("a video with actions")
    truths = list(question.truths())
    runs = [plan.segments(k) for k in steps]
    initial = question.law(0)
    if plan.references.matched:
        [first] = stage_errors(question, [initial], truths)
        laws = [[video.at(stage) for stage in run] for run in runs]
        errors = [_joined(stage_errors(question, each, truths)) for each in laws]
        whole = [video.at(replace(run[-1], grid=plan.ar_grid, fresh=plan.stride)) for run in runs]
        held = [Number.exact(law.memory_bottleneck(None)[0]) for law in whole]  # type: ignore[arg-type]
    else:
        first, *errors = stage_errors(question, [initial, *(question.law(k) for k in steps)], truths)
        held = [each.mb for each in errors if each.mb is not None]
    found = _rollout(question, runs) if initial.window is not None else {}
    mb = Number.stack(held) if question.memory and len(held) == len(steps) else None
    notes = dict.fromkeys(
        ("floor", "lower_bound"),
        "references that keep their noise tell of older frames, so that no such sum is a bound",
    )
    return ReusedTerms(first, tuple(errors), held_mb=mb, notes=notes, **found)


def _joined(parts: list[StageErrors]) -> StageErrors:
    """The errors of runs of reverse steps as those of one AR step."""

    def along(name: str) -> Any:
        numbers = [getattr(part, name) for part in parts]
        if any(number is None for number in numbers):
            return None
        return replace(numbers[0], samples=torch.cat([number.samples for number in numbers], -1))

    mb = None if parts[0].mb is None else Number.stack([part.mb for part in parts if part.mb is not None]).sum()
    return replace(
        parts[0], mb=mb, mb_clean=None,
        **{name: along(name) for name in ("de", "see", "cross", "direct", "girsanov", "closed")},
    )  # fmt: skip


class _Sampler:
    """The sampler of a plan: its kernels over every run of reverse steps, and what it must keep."""

    def __init__(self, question: Question, runs: list[tuple[Stage, ...]]) -> None:
        self.question, self.plan = question, question.plan
        self.video: Any = question.video
        self.runs = [self.plan.segments(0), *runs]

    def kernels(self, ar_step: int) -> list[Kernel] | None:
        """Of every run of an AR step; None if the score is not affine."""
        found = [
            self.video.at(stage).kernel(self.question.score, self.question.reverse) for stage in self.runs[ar_step]
        ]
        return None if any(kernel is None for kernel in found) else found

    def shown(self, ar_step: int) -> list[list[State]]:
        """The references of every run of an AR step."""
        return [[shown_state(self.plan, r, ar_step) for r in stage.references] for stage in self.runs[ar_step]]

    def entering(self, ar_step: int) -> list[State]:
        """Input_k: the noisy window and the references, each once."""
        stage = self.runs[ar_step][0]
        window = [State(frame, stage.grid[0][j]) for j, frame in enumerate(stage.frames[: stage.kept])]
        return list(dict.fromkeys([*window, *(state for run in self.shown(ar_step) for state in run)]))

    def made(self, ar_step: int) -> list[State]:
        """What an AR step puts out: states at the ends of its runs, but for older frames that wait."""
        kept = self.runs[ar_step][0].kept
        found = [
            State(stage.frames[j], stage.grid[-1][j])
            for stage in self.runs[ar_step]
            for j in range(stage.window)
            if j >= kept or stage.grid[-1][j] < stage.grid[0][j]
        ]
        return list(dict.fromkeys(found))

    def step(self, held: HeldLaw, ar_step: int, kernels: Sequence[Kernel]) -> HeldLaw:
        """With all that an AR step makes."""
        stage = self.runs[ar_step][0]
        missing = [state for state in self.entering(ar_step) if state not in held.states]
        held = held.noised(missing).begun(stage.frames[stage.kept :], self.plan.horizon)
        for run, kernel, shown in zip(self.runs[ar_step], kernels, self.shown(ar_step), strict=True):
            held = held.run(run, kernel, shown)
        return held

    def wanted(self) -> list[set[State]]:
        """States that are not clean, and that AR step k or a later one looks at or begins with."""
        later: set[State] = set()
        found = []
        for k in range(len(self.runs) - 1, 0, -1):
            later |= set(self.entering(k))
            found.append(set(later))
        return [set(), *found[::-1], set()]


def _rollout(question: Question, runs: list[tuple[Stage, ...]]) -> dict[str, Any]:
    """IE, errors of whole AR steps, KL and W_2 of clips and of all clean frames; {} without closed forms."""
    sampler = _Sampler(question, runs)
    plan, video = question.plan, sampler.video
    over, floor = video.at(plan.stage(0)).over_modes, plan.floor

    def divergence(states: Sequence[State], law: HeldLaw, of: Any = kl_divergence) -> Tensor:
        value: Tensor = of(*video.joint(states), *law.of(states))
        return value

    def start(states: Sequence[State], law: HeldLaw) -> Tensor:
        try:
            return divergence(states, law)
        except NotPositiveDefiniteError:  # a kept state is a function of others, by a step without noise
            return torch.full_like(video.multiplicity, math.inf)

    kernels = [sampler.kernels(k) for k in range(len(sampler.runs))]
    if any(kernel is None for kernel in kernels):
        return {}
    held = HeldLaw.empty(video.mean(1), video.frame_dim)
    if plan.overlapping:
        initial = SamplerLaw.initial(plan, _only(kernels[0]), video.frame_dim)
        first = [State(frame, plan.input_levels[frame]) for frame in range(plan.init_frames)]
        held = HeldLaw(tuple(first), initial.mean, initial.covariance, video.frame_dim)
    else:
        held = sampler.step(held, 0, kernels[0] or ())
        held = held.only(sampler.made(0))
    found: dict[str, Any] = {"ie": Number.exact(over(start(held.states, held)))}
    clips, clips_w2, errors = [], [], []
    clean: list[State] = [] if plan.overlapping else [State(frame, floor) for frame in range(plan.stride)]
    wanted = sampler.wanted()
    for k in range(1, question.ar_steps + 1):
        own = kernels[k] or ()
        errors.append(over(_error(sampler, k, own)))
        held = sampler.step(held, k, own)
        clip = [State(frame, floor) for frame in plan.clip_frames(k)]
        clips.append(over(divergence(clip, held)))
        clips_w2.append(over(divergence(clip, held, wasserstein2)))
        clean += clip
        held = held.only([s for s in held.states if s in clean or s in wanted[k + 1]])
    return found | {
        "kl": Number.exact(over(divergence(clean, held))),
        "kl_w2": Number.exact(torch.sqrt(over(divergence(clean, held, wasserstein2)))),
        "clips": Number.exact(torch.stack(clips)),
        "clips_w2": Number.exact(torch.sqrt(torch.stack(clips_w2))),
        "ar_step_errors": Number.exact(torch.stack(errors)),
        "rounding": float(over(kl_rounding(video.joint(clean), held.of(clean)))),
    }


def _only(kernels: list[Kernel] | None) -> Kernel:
    assert kernels is not None
    [kernel] = kernels
    return kernel


def _error(sampler: _Sampler, ar_step: int, kernels: Sequence[Kernel]) -> Tensor:
    """E_k, (modes,): KL of (Input, Output) with the true input on both sides; infinite where Q is singular."""
    video, entering = sampler.video, sampler.entering(ar_step)
    start = HeldLaw.empty(video.mean(1), video.frame_dim)
    if entering:
        mean, covariance = video.joint(entering)
        start = HeldLaw(tuple(entering), mean, covariance, video.frame_dim)
    both = [*entering, *sampler.made(ar_step)]
    own = sampler.step(start, ar_step, kernels).of(both)
    try:
        (true_mean, true), (mean, covariance) = video.joint(both), own
        return kl_divergence(true_mean, true, mean, covariance)
    except NotPositiveDefiniteError:
        return torch.full_like(video.multiplicity, math.inf)
