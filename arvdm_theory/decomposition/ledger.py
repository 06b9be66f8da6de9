"""The exact ledger as one tidy table with its totals.

    KL(trajectory) = IE + Σ_k [NIE_AR,k + Σ_m (DE + SEE + CROSS) + MB_k]

Source: arXiv 2503.10704, Theorems 1 and 2, with the cross term kept and every inequality resolved.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, overload

import pandas as pd
import torch
from torch import Tensor

from arvdm_theory.bounds.accumulation import ClipBoundError, require_clip_bound
from arvdm_theory.decomposition.finite import FiniteLedger, finite_ledger
from arvdm_theory.decomposition.finite_stage import FiniteScore
from arvdm_theory.decomposition.table import LedgerTable
from arvdm_theory.decomposition.terms import LedgerTerms, ledger_terms
from arvdm_theory.diffusion.scores import AffineScore, HasScore
from arvdm_theory.diffusion.steps import ReverseStep, reverse_step
from arvdm_theory.interfaces import Score
from arvdm_theory.laws.chains import FiniteStateVideo
from arvdm_theory.laws.gaussian import GaussianVideo
from arvdm_theory.plan.plan import Plan

__all__ = ["FiniteLedger", "Ledger", "ledger", "ledger_terms"]


@dataclass(frozen=True)
class Ledger(LedgerTable):
    """The ledger of one Gaussian video, plan and sampler; see :class:`LedgerTable` for what it holds.

    Attributes:
        terms: the tensors behind it.
    """

    terms: LedgerTerms


@overload
def ledger(
    video: GaussianVideo,
    plan: Plan,
    ar_steps: int,
    score: Score | AffineScore | HasScore | None = None,
    step: str | ReverseStep = "exponential",
    **options: Any,
) -> Ledger: ...


@overload
def ledger(
    video: FiniteStateVideo,
    plan: Plan,
    ar_steps: int,
    score: FiniteScore | AffineScore | HasScore | None = None,
    step: str | ReverseStep = "exponential",
    **options: Any,
) -> FiniteLedger: ...


def ledger(
    video: GaussianVideo | FiniteStateVideo,
    plan: Plan,
    ar_steps: int,
    score: FiniteScore | AffineScore | HasScore | None = None,
    step: str | ReverseStep = "exponential",
    **options: Any,
) -> Ledger | FiniteLedger:
    """The ledger of a video and a plan.

    Arguments, options and errors are those of :func:`ledger_terms` for a Gaussian video, and of
    :func:`arvdm_theory.decomposition.finite.finite_ledger` for a finite-state one, whose terms are averages over true
    videos.

    Example:
        >>> import numpy as np
        >>> from arvdm_theory.plan.methods import outpainting
        >>> from arvdm_theory.plan.plan import References
        >>> from arvdm_theory.laws.gaussian import ArrayVideo
        >>> lags = np.abs(np.subtract.outer(np.arange(8), np.arange(8)))
        >>> plan = outpainting(window=2, references=References.last(1), reverse_steps=10)
        >>> result = ledger(ArrayVideo(0.8**lags, frame_dim=1), plan, ar_steps=2)
        >>> result.totals["kl"] <= result.totals["trajectory_kl"] <= result.totals["girsanov"]
        True
    """
    if isinstance(video, FiniteStateVideo):
        return finite_ledger(video, plan, ar_steps, score, step, **options)
    chosen = reverse_step(step)
    with torch.no_grad():
        terms = ledger_terms(video, plan, ar_steps, score, chosen, **options)
        notes = _notes(plan, ar_steps, chosen, terms)
        return Ledger(_table(terms, notes), _totals(terms, notes), _standard_errors(terms), notes, terms)


def _notes(plan: Plan, ar_steps: int, step: ReverseStep, terms: LedgerTerms) -> dict[str, str]:
    notes: dict[str, str] = {}
    if terms.ie is None:
        reason = "the score is not affine in (window, references): its rollout has no closed-form law; see path_kl"
        notes |= dict.fromkeys(("ie", "trajectory_kl", "lower_bound"), reason)
    if terms.clean is None:
        reason = "the score is not affine in (window, references): its rollout has no closed-form law"
        notes |= dict.fromkeys(("kl", "clip_kl"), reason)
    if bool(torch.isinf(terms.de).any() | torch.isinf(terms.init_de).any()):
        reason = f"the {step.name} step moves a frame without noise: its path KL is infinite"
        notes |= dict.fromkeys(("trajectory_kl", "path_kl", "de", "see", "cross", "path_init"), reason)
        notes["clip_bound"] = reason
    if terms.girsanov is None:
        reason = (
            "left out on request"
            if step.girsanov
            else f"Girsanov's theorem does not cover the {step.name} step: its noise is not the reverse SDE's"
        )
        notes |= dict.fromkeys(("girsanov", "closed"), reason)
    elif terms.closed is None:
        notes["closed"] = "left out on request"
    if bool(torch.isnan(terms.mb).any()):
        for name in ("mb", "trajectory_kl", "path_kl", "girsanov", "closed", "lower_bound"):
            notes.setdefault(name, "the memory bottleneck was left out on request")
    if plan.overlapping:
        notes["lower_bound"] = (
            "the noisy window carries information past the clean frames (w > Δ), so Σ MB bounds the joint law only"
        )
    try:
        require_clip_bound(plan, ar_steps)
    except ClipBoundError as error:
        notes["clip_bound"] = str(error)
    return notes


def _totals(terms: LedgerTerms, notes: dict[str, str]) -> dict[str, float | None]:
    over = terms.over_modes
    lower = None
    if terms.mb_clean is not None and terms.ie is not None:
        lower = over(terms.ie) + over(terms.mb_clean).sum()
    values: dict[str, Tensor | None] = {
        "kl": None if terms.clean is None else over(terms.clean),
        "trajectory_kl": terms.trajectory,
        "path_kl": terms.path,
        "girsanov": terms.girsanov_total,
        "closed": terms.closed_total,
        "lower_bound": lower,
        "ie": None if terms.ie is None else over(terms.ie),
        "nie_init": over(terms.nie_init),
        "path_init": terms.path_init,
        "nie_ar": over(terms.nie_ar).sum(),
        "de": over(terms.de).sum(),
        "see": over(terms.see).sum(),
        "cross": over(terms.cross).sum(),
        "mb": over(terms.mb).sum(),
    }
    return {name: None if value is None or name in notes else float(value) for name, value in values.items()}


def _standard_errors(terms: LedgerTerms) -> dict[str, float]:
    def spread(*variances: Tensor | None) -> float:
        present = [variance for variance in variances if variance is not None]
        summed = [torch.tensordot(terms.multiplicity**2, variance, dims=1).sum() for variance in present]
        return math.sqrt(float(torch.stack(summed).sum()))

    if not bool((terms.fit_variance > 0).any() | (terms.init_fit_variance > 0).any()):
        return {}
    errors = {
        "see": spread(terms.see_variance),
        "cross": spread(terms.cross_variance),
        "path_init": spread(terms.init_fit_variance),
        "path_kl": spread(terms.init_fit_variance, terms.fit_variance),
    }
    if terms.ie is not None:
        errors["trajectory_kl"] = spread(terms.fit_variance)
    if terms.girsanov is not None:
        errors["girsanov"] = spread(terms.init_girsanov_variance, terms.girsanov_variance)
    if terms.closed is not None:
        errors["closed"] = spread(terms.init_closed_variance, terms.closed_variance)
    return errors


def _table(terms: LedgerTerms, notes: dict[str, str]) -> pd.DataFrame:
    over = terms.over_modes
    rows: list[tuple[str, int, str, float, float]] = []

    def add(stage: str, term: str, values: Tensor, variances: Tensor | None = None) -> None:
        """One value (init), or one an AR step; more axes are summed, modes counted as often as they occur."""
        flat = over(values)
        flat = flat.sum(-1) if flat.ndim > (stage == "ar") else flat
        error = torch.zeros_like(flat)
        if variances is not None:
            error = torch.tensordot(terms.multiplicity**2, variances, dims=1).sum(-1).sqrt()
        first = 1 if stage == "ar" else 0
        for i, (value, stderr) in enumerate(
            zip(flat.reshape(-1).tolist(), error.reshape(-1).tolist(), strict=True)
        ):
            rows.append((stage, first + i, term, value, stderr))

    add("init", "NIE", terms.nie_init)
    add("init", "DE", terms.init_de)
    add("init", "SEE", terms.init_see, terms.init_see_variance)
    add("init", "CROSS", terms.init_cross, terms.init_cross_variance)
    if terms.ie is not None:
        add("init", "IE", terms.ie)
    add("ar", "NIE_AR", terms.nie_ar)
    add("ar", "DE", terms.de)
    add("ar", "SEE", terms.see, terms.see_variance)
    add("ar", "CROSS", terms.cross, terms.cross_variance)
    add("ar", "MB", terms.mb)
    if terms.clip is not None:
        add("ar", "CLIP_KL", terms.clip)
    if "clip_bound" not in notes:
        squared = torch.tensordot(terms.multiplicity**2, terms.fit_variance, dims=1).sum(-1).cumsum(0)
        if terms.ie is None:
            squared = squared + torch.tensordot(terms.multiplicity**2, terms.init_fit_variance, dims=1).sum()
        pairs = zip(terms.clip_bounds.tolist(), squared.sqrt().tolist(), strict=True)
        rows += [("ar", k, "CLIP_BOUND", bound, stderr) for k, (bound, stderr) in enumerate(pairs, start=1)]
    return pd.DataFrame(rows, columns=["stage", "ar_step", "term", "value", "stderr"])
