"""The exact ledger as one tidy table with its totals.

    KL(trajectory) = IE + Σ_k [NIE_AR,k + Σ_m (DE + SEE + CROSS) + MB_k]

Source: arXiv 2503.10704, Theorems 1 and 2, with the cross term kept and every inequality resolved.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from arvdm_theory.diffusion.scores import AffineScore
from arvdm_theory.diffusion.steps import ReverseStep, reverse_step
from arvdm_theory.errors.clips import ClipBoundError, require_clip_bound
from arvdm_theory.errors.terms import LedgerTerms, ledger_terms
from arvdm_theory.interfaces import Score
from arvdm_theory.meta.plan import Plan
from arvdm_theory.processes.gaussian import GaussianVideo

__all__ = ["Ledger", "ledger", "ledger_terms"]


@dataclass(frozen=True)
class Ledger:
    """The ledger of one video, plan and sampler.

    Attributes:
        table: a row per (stage, AR step, term): ``stage`` (``init`` or ``ar``), ``ar_step`` (0 for the
            initialisation), ``term``, ``value`` in nats, ``stderr`` (0 where exact). The initialisation has NIE,
            DE, SEE, CROSS and IE; an AR step has NIE_AR, DE, SEE, CROSS, MB, CLIP_KL and CLIP_BOUND.
        totals: sums in nats, None where not defined:

            - ``kl``: of all clean frames; ``trajectory_kl``: the sum of the ledger;
            - ``path_kl``: the same with IE replaced by its bound, the whole initialisation stage;
            - ``girsanov`` and ``closed``: the upper rungs of the ladder;
            - ``lower_bound``: IE + Σ MB, which no sampler beats, for plans with w = Δ;
            - ``ie``, ``nie_init``, ``path_init``, ``nie_ar``, ``de``, ``see``, ``cross``, ``mb``: the terms.
        stderr: standard errors of those totals that are estimated.
        notes: why a total (or ``clip_kl``, ``clip_bound``) is not defined.
        terms: the tensors behind it.
    """

    table: pd.DataFrame
    totals: dict[str, float | None]
    stderr: dict[str, float]
    notes: dict[str, str]
    terms: LedgerTerms

    def column(self, term: str) -> list[float]:
        """The values of one term over the AR steps, in order; empty if it is not defined."""
        rows = self.table[(self.table.stage == "ar") & (self.table.term == term)]
        return [float(value) for value in rows.sort_values("ar_step").value]


def ledger(
    video: GaussianVideo,
    plan: Plan,
    ar_steps: int,
    score: Score | AffineScore | None = None,
    step: str | ReverseStep = "exponential",
    **options: Any,
) -> Ledger:
    """The ledger of a video and a plan; arguments, options and errors as :func:`ledger_terms`.

    Example:
        >>> import numpy as np
        >>> from arvdm_theory.meta.catalogue import outpainting
        >>> from arvdm_theory.meta.plan import References
        >>> from arvdm_theory.processes.gaussian import ArrayVideo
        >>> lags = np.abs(np.subtract.outer(np.arange(8), np.arange(8)))
        >>> plan = outpainting(window=2, references=References.last(1), reverse_steps=10)
        >>> result = ledger(ArrayVideo(0.8**lags, frame_dim=1), plan, ar_steps=2)
        >>> result.totals["kl"] <= result.totals["trajectory_kl"] <= result.totals["girsanov"]
        True
    """
    chosen = reverse_step(step)
    with torch.no_grad():
        terms = ledger_terms(video, plan, ar_steps, score, chosen, **options)
        notes = _notes(plan, ar_steps, chosen, terms)
        return Ledger(_table(terms, notes), _totals(terms, notes), _standard_errors(terms), notes, terms)


def _notes(plan: Plan, ar_steps: int, step: ReverseStep, terms: LedgerTerms) -> dict[str, str]:
    notes: dict[str, str] = {}
    if terms.ie is None:
        reason = "the score is not affine in (window, references): its rollout has no closed-form law; see path_kl"
        notes |= dict.fromkeys(("ie", "kl", "trajectory_kl", "clip_kl", "lower_bound"), reason)
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
    def spread(*variances: Tensor) -> float:
        summed = [torch.tensordot(terms.multiplicity**2, variance, dims=1).sum() for variance in variances]
        return math.sqrt(float(torch.stack(summed).sum()))

    if not bool((terms.fit_variance > 0).any()):
        return {}
    return {
        "see": spread(terms.see_variance),
        "cross": spread(terms.cross_variance),
        "path_init": spread(terms.init_fit_variance),
        "path_kl": spread(terms.init_fit_variance, terms.fit_variance),
    }


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
        for k, bound in enumerate(terms.clip_bounds.tolist(), start=1):
            rows.append(("ar", k, "CLIP_BOUND", bound, 0.0))
    return pd.DataFrame(rows, columns=["stage", "ar_step", "term", "value", "stderr"])
