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

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from arvdm_theory.decomposition.finite import as_table, common_notes, estimate, sample_rows, sample_totals
from arvdm_theory.decomposition.finite_stage import FiniteScore
from arvdm_theory.decomposition.finite_terms import FULL_VIEW, FiniteTerms, sampled_terms
from arvdm_theory.decomposition.state_kernels import StateKernels, carried_frames, frames_law, state_kernels
from arvdm_theory.decomposition.table import LedgerTable
from arvdm_theory.diffusion.scores import AffineScore, ExactScore
from arvdm_theory.diffusion.steps import ReverseStep, reverse_step
from arvdm_theory.information.transfer import Chain, memory_bottlenecks
from arvdm_theory.laws.chains import FiniteStateVideo
from arvdm_theory.plan.plan import Plan, Reference

__all__ = ["DecodedLedger", "decoded_ledger"]


@dataclass(frozen=True)
class DecodedLedger(LedgerTable):
    """The ledger of a decoded finite-state video; ``kl`` and CLIP_KL are KL divergences of states.

    Attributes:
        kernel_kl: E KL(p(Z_out | Z_R) ‖ q(Z_out | Z_R)) of every AR step with its standard error: what the path
            terms and NIE_AR of that step bound.
        terms: the sampled terms behind it; their MB is exact.
        kernels: the simulated kernels behind it.
    """

    kernel_kl: tuple[tuple[float, float], ...]
    terms: FiniteTerms
    kernels: StateKernels


def decoded_ledger(
    video: FiniteStateVideo,
    plan: Plan,
    ar_steps: int,
    score: FiniteScore | AffineScore | None = None,
    step: str | ReverseStep = "exponential",
    *,
    against: ExactScore = FULL_VIEW,
    samples: int = 2048,
    rollouts: int = 2048,
    seed: int = 0,
    progress: bool = False,
) -> DecodedLedger:
    """The ledger of a noise-free finite-state video whose AR steps end by sampling states.

    Args:
        video: its clean frames must show their states (pictures all different, no noise, no emissions).
        plan: with w = Δ, clean references and a floor δ > 0 at which the sampler stops and decodes.
        ar_steps: K ≥ 1.
        score, step, against: as :func:`arvdm_theory.decomposition.finite.finite_ledger_terms`; a callable is shown the
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
        >>> from arvdm_theory.plan.plan import References
        >>> from arvdm_theory.laws.chains import sticky_chain
        >>> from arvdm_theory.laws.emission import Codebook
        >>> video = FiniteStateVideo(sticky_chain(2, 0.9), Codebook([[-1.0], [1.0]]))
        >>> plan = Plan((4.0,), 1, 4.0, reverse_steps=6, init_steps=6, floor=0.1, references=References.first(1))
        >>> result = decoded_ledger(video, plan, ar_steps=3, samples=200, rollouts=400)
        >>> result.totals["lower_bound"] <= result.totals["kl"] <= result.totals["trajectory_kl"]
        True
    """
    chosen = reverse_step(step)
    with torch.no_grad():
        chain = video.readable_chain()
        kernels = state_kernels(video, plan, ar_steps, score, chosen, rollouts=rollouts, seed=seed)
        terms = sampled_terms(
            video, plan, ar_steps, score, chosen, against, False, samples, seed + 1, progress, decoded=True
        )
        truth = _Truth.of(chain, plan, ar_steps)
        terms = FiniteTerms(**{**vars(terms), "mb": truth.bottlenecks.expand(samples, -1)})
        pairs = _jackknife(kernels, truth)
    return _assemble(plan, ar_steps, terms, kernels, truth, pairs)


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


def _jackknife(kernels: StateKernels, truth: _Truth) -> list[tuple[float, float]]:
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
    return list(zip(value.tolist(), error.tolist(), strict=True))


def _assemble(
    plan: Plan,
    ar_steps: int,
    terms: FiniteTerms,
    kernels: StateKernels,
    truth: _Truth,
    pairs: list[tuple[float, float]],
) -> DecodedLedger:
    ie, kernel, (kl, *clips) = pairs[0], pairs[1 : ar_steps + 1], pairs[ar_steps + 1 :]
    notes = common_notes(plan, ar_steps, memory=True)
    notes |= dict.fromkeys(("girsanov", "closed"), "computed for Gaussian videos only")
    totals, spread = sample_totals(terms, notes)
    ar, ar_error = estimate((terms.ar_path + terms.mb).sum(-1))
    bound = ie[0] + float(truth.bottlenecks.sum())
    sums = {"ie": ie, "kl": kl, "lower_bound": (bound, ie[1])}
    sums["trajectory_kl"] = (ie[0] + ar, math.hypot(ie[1], ar_error))
    for name, (value, error) in sums.items():
        totals[name], spread[name] = value, error
    rows = [*sample_rows(terms), ("init", 0, "IE", *ie)]
    rows += [("ar", k, "CLIP_KL", *clip) for k, clip in enumerate(clips, start=1)]
    if "clip_bound" not in notes:
        for k, path in enumerate(terms.ar_path.cumsum(-1).unbind(-1), start=1):
            value, error = estimate(path)
            rows.append(("ar", k, "CLIP_BOUND", ie[0] + value, math.hypot(ie[1], error)))
    return DecodedLedger(as_table(rows), totals, spread, notes, tuple(kernel), terms, kernels)
