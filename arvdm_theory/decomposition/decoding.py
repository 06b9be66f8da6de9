"""The ledger of finite-state videos whose AR steps end on states: decoding as a kernel of the sampler.

A noise-free video has an atomic law, and no continuous sampler reaches it at a finite KL. But if every AR step
stops at δ > 0 and then *samples* its frames' states Z from the exact posterior given (W^δ, R), and shows states
as references, everything is finite and stands on states:

    KL(trajectory) = IE + Σ_k [NIE_AR,k + Σ_m (DE + SEE + CROSS) + 0 + MB_k],    MB_k = I(Z_out; Z_past | Z_R).

The decoding kernel is the same on both sides, hence the 0. The other terms of AR steps are averages over true
videos (:mod:`arvdm_theory.decomposition.finite`), MB is exact (:mod:`arvdm_theory.information.transfer`), and the
rollout is a Markov chain on states: only its kernels q(z_out | z_R) are simulated
(:mod:`arvdm_theory.decomposition.state_kernels`). From them

    KL(Z_1..Z_N) = IE + Σ_k [MB_k + E KL(p(Z_out | Z_R) ‖ q(Z_out | Z_R))],

and the law of every clip is a recursion. Drawing the most likely state instead would be a deterministic kernel, of
infinite KL.

What is computed from the kernels has a Monte-Carlo error: from their independent groups, the delete-one-group
jackknife removes the bias of order 1/rollouts and gives the standard error (Efron and Stein 1981). A KL no larger
than its standard error is quadratic in the kernels' errors: it may come out negative, and its standard error is
rough.

Source: arXiv 2503.10704, Theorems 1 and 2, on videos of finitely many states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from arvdm_theory.decomposition.ledger import account
from arvdm_theory.decomposition.question import FULL_VIEW, Question, sample_count
from arvdm_theory.decomposition.result import Result
from arvdm_theory.decomposition.state_kernels import StateKernels, carried_frames, frames_law, state_kernels
from arvdm_theory.decomposition.terms import LedgerTerms, stage_errors
from arvdm_theory.diffusion.scores import ExactScore, as_score
from arvdm_theory.diffusion.steps import ReverseStep, reverse_step
from arvdm_theory.information.transfer import Chain, memory_bottlenecks
from arvdm_theory.laws.finite import FiniteStateVideo
from arvdm_theory.number import Number
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.references import Reference

__all__ = ["decoded_ledger"]


def decoded_ledger(
    video: FiniteStateVideo,
    plan: Plan,
    ar_steps: int,
    *,
    score: Any = None,
    step: str | ReverseStep = "exponential",
    against: ExactScore = FULL_VIEW,
    samples: int = 2048,
    rollouts: int = 2048,
    seed: int = 0,
    progress: bool = False,
) -> Result:
    """The ledger of a noise-free finite-state video whose AR steps end by sampling states.

    Args:
        video: its clean frames must show their states (pictures all different, no noise, no emissions).
        plan: with w = Δ, clean references and a floor δ > 0 at which the sampler stops and decodes.
        ar_steps: K ≥ 1.
        score, step, against: as :func:`arvdm_theory.decomposition.ledger.ledger`; a callable is shown the
            references' pictures at level 0.
        samples: true videos that the path terms are averaged over.
        rollouts: simulated windows a value of the references (at least; a whole number of groups).
        seed: of everything drawn.
        progress: whether to show a progress bar.

    Raises:
        ValueError: if the plan or the video is not of that kind, or an argument is out of range.
        TableSizeError: if a law of states has more than
            :data:`arvdm_theory.decomposition.state_kernels.MAX_ENTRIES` entries.

    Example:
        >>> from arvdm_theory import Codebook, FiniteStateVideo, Plan, References, sticky_chain
        >>> video = FiniteStateVideo(sticky_chain(2, 0.9), Codebook([[-1.0], [1.0]]))
        >>> plan = Plan((4.0,), 1, 4.0, reverse_steps=6, init_steps=6, floor=0.1, references=References.first(1))
        >>> result = decoded_ledger(video, plan, ar_steps=3, samples=200, rollouts=400)
        >>> result.totals["lower_bound"] <= result.totals["kl"] <= result.totals["trajectory_kl"]
        True
    """
    chosen, own = reverse_step(step), as_score(score, video, affine=False)
    with torch.no_grad():
        chain = video.readable_chain()
        kernels = state_kernels(video, plan, ar_steps, own, chosen, rollouts=rollouts, seed=seed)
        laws = [video.at(stage) for stage in plan.stages(ar_steps)]
        generator = torch.Generator(device=video.device).manual_seed(seed + 1)
        truths = video.true_videos(plan, ar_steps, sample_count(samples), generator, symbols=True)
        question = Question(
            video, plan, ar_steps, score=own, step=chosen, against=against, memory=False, progress=progress
        )
        errors = stage_errors(question, laws, truths)
        truth = _Truth.of(chain, plan, ar_steps)
        ar = []
        for k, mb in enumerate(truth.bottlenecks):
            known = Number.exact(mb)
            ar.append(replace(errors[k + 1], mb=known, mb_clean=known))
        found = _jackknife(kernels, truth)
        terms = LedgerTerms(
            errors[0], tuple(ar), ie=found[0], kl=found[ar_steps + 1], clips=found[ar_steps + 2 :],
            ar_step_errors=found[1 : ar_steps + 1],
        )  # fmt: skip
        notes = dict.fromkeys(("girsanov", "closed"), "computed for Gaussian videos only")
        if rare := video.rare(samples, plan.total_frames(ar_steps)):
            notes["rare"] = rare
        return account(terms, plan, notes)


@dataclass(frozen=True, eq=False)
class _Truth:
    """What the true law of states says of a plan.

    Attributes:
        states: S.
        initial: of the first Δ states, (S^Δ,).
        steps: p(z_R, z_out) of every AR step, (S^r, S^w).
        bottlenecks: MB_k, (K,).
        references: the frames of R_k.
        out: the frames that AR step k puts out.
        carried: the frames that AR step k or a later one refers to, of those out before it.
    """

    states: int
    initial: Tensor
    steps: tuple[Tensor, ...]
    bottlenecks: Tensor
    references: tuple[tuple[int, ...], ...]
    out: tuple[tuple[int, ...], ...]
    carried: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, chain: Chain, plan: Plan, ar_steps: int) -> _Truth:
        states = chain.transition.shape[-1]
        numbers = range(1, ar_steps + 1)
        references = tuple(tuple(r.frame for r in plan.references_at(k)) for k in numbers)
        out = tuple(tuple(plan.window_frames(k)) for k in numbers)
        steps = tuple(
            frames_law(chain, (*old, *new)).reshape(-1, states ** len(new))
            for old, new in zip(references, out, strict=True)
        )
        return cls(
            states=states,
            initial=frames_law(chain, range(plan.init_frames)).reshape(-1),
            steps=steps,
            bottlenecks=memory_bottlenecks(chain, _OnStates(plan), ar_steps),
            references=references,
            out=out,
            carried=carried_frames(plan, ar_steps),
        )


@dataclass(frozen=True)
class _OnStates:
    """The plan as the decoded rollout sees it: references are states, which is to say clean."""

    plan: Plan
    overlapping: bool = False
    floor: float = 0.0

    def window_frames(self, ar_step: int) -> range:
        return self.plan.window_frames(ar_step)

    def references_at(self, ar_step: int) -> tuple[Reference, ...]:
        return tuple(Reference(r.frame, 0.0) for r in self.plan.references_at(ar_step))


def _consequences(initial: Tensor, steps: Sequence[Tensor], truth: _Truth) -> Tensor:
    """(IE, E KL of every kernel, KL of all states, KL of every clip) for one set of kernels, (1 + K + 1 + K,)."""
    ie = _divergence(truth.initial, initial)
    kernel = [
        _divergence(true, true.sum(-1, keepdim=True) * own) for true, own in zip(truth.steps, steps, strict=True)
    ]
    states, held = truth.states, tuple(range(len(truth.out[0])))
    law, clips = initial.reshape((states,) * len(held)), []
    for k, own in enumerate(steps):
        law, held = _keep(law, held, truth.carried[k]), truth.carried[k]
        old, new = truth.references[k], truth.out[k]
        rows = own.reshape((states,) * (len(old) + len(new)))
        axes = {frame: axis for axis, frame in enumerate((*held, *new))}
        places = [[axes[f] for f in group] for group in (held, (*old, *new), (*held, *new))]
        law = torch.einsum(law, places[0], rows, places[1], places[2])
        held = (*held, *new)
        clip = _keep(law, held, new).reshape(-1)
        clips.append(_divergence(truth.steps[k].sum(0), clip))
    total = ie + sum(kernel) + truth.bottlenecks.sum()
    return torch.stack([ie, *kernel, total, *clips])


def _keep(law: Tensor, held: Sequence[int], wanted: Sequence[int]) -> Tensor:
    gone = tuple(i for i, frame in enumerate(held) if frame not in wanted)
    return law.sum(gone) if gone else law


def _divergence(true: Tensor, own: Tensor) -> Tensor:
    """Σ p log(p/q) over all entries; entries of p = 0 count for nothing."""
    safe_p, safe_q = torch.where(true > 0, true, 1.0), torch.where(true > 0, own, 1.0)
    return (true * (torch.log(safe_p) - torch.log(safe_q))).sum()


def _jackknife(kernels: StateKernels, truth: _Truth) -> Number:
    """:func:`_consequences` of the mean kernels without bias of order 1/rollouts, with their standard errors."""
    groups = len(kernels.initial)
    plain = _consequences(kernels.initial.mean(0), [own.mean(0) for own in kernels.steps], truth)
    without = []
    for g in range(groups):
        rest = [i for i in range(groups) if i != g]
        own = [table[rest].mean(0) for table in kernels.steps]
        without.append(_consequences(kernels.initial[rest].mean(0), own, truth))
    left_out = torch.stack(without)
    value = groups * plain - (groups - 1) * left_out.mean(0)
    error = torch.sqrt((groups - 1) * left_out.var(0, correction=0))
    return Number(value[None], error, method="jackknife", n=groups)
