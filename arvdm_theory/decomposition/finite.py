"""The ledger of finite-state videos that stop at a level δ > 0, or whose frames have observation noise.

    KL(trajectory) = IE + Σ_k [NIE_AR,k + Σ_m (DE + SEE + CROSS) + MB_k],    IE ≤ NIE + Σ_m (DE + SEE + CROSS),

the bound's terms being those of the initialisation stage. Every term is an average over true videos with a
standard error (:mod:`arvdm_theory.decomposition.finite_terms`); what needs the law of a rollout is not defined here.

Source: arXiv 2503.10704, Theorems 1 and 2, with the cross term kept and every inequality resolved.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from arvdm_theory.bounds.accumulation import ClipBoundError, require_clip_bound
from arvdm_theory.decomposition.finite_stage import FiniteScore
from arvdm_theory.decomposition.finite_terms import FULL_VIEW, FiniteTerms, finite_ledger_terms
from arvdm_theory.decomposition.table import LedgerTable
from arvdm_theory.diffusion.scores import AffineScore, ExactScore, HasScore
from arvdm_theory.diffusion.steps import ReverseStep, reverse_step
from arvdm_theory.laws.chains import FiniteStateVideo
from arvdm_theory.plan.plan import Plan

__all__ = ["FiniteLedger", "as_table", "common_notes", "estimate", "finite_ledger", "sample_rows", "sample_totals"]


@dataclass(frozen=True)
class FiniteLedger(LedgerTable):
    """The ledger of a finite-state video: averages over true data, every one with its standard error.

    It has no IE, KL(clean), KL(trajectory) or clip KL (None, with a note): they need the law of a rollout.
    ``lower_bound`` is Σ MB, because IE ≥ 0, and CLIP_BOUND has the initialisation stage's terms in place of IE.

    Attributes:
        terms: the samples behind it.
    """

    terms: FiniteTerms


def finite_ledger(
    video: FiniteStateVideo,
    plan: Plan,
    ar_steps: int,
    score: FiniteScore | AffineScore | HasScore | None = None,
    step: str | ReverseStep = "exponential",
    *,
    against: ExactScore = FULL_VIEW,
    girsanov_points: int = 0,
    closed: bool = False,
    memory: bool = True,
    teacher_forced: bool = True,
    samples: int = 2048,
    seed: int = 0,
    progress: bool = False,
) -> FiniteLedger:
    """The ledger of a finite-state video and a plan.

    Args:
        girsanov_points, closed, teacher_forced: taken so that calls for Gaussian videos work unchanged; the upper
            rungs of the ladder are not defined here, and every term is an average over true videos anyway.
        video, plan, ar_steps, score, step, against, memory, samples, seed, progress: as
            :func:`finite_ledger_terms`.

    Raises:
        ValueError: as :func:`finite_ledger_terms`.

    Example:
        >>> from arvdm_theory.laws.chains import sticky_chain
        >>> from arvdm_theory.laws.emission import Codebook
        >>> video = FiniteStateVideo(sticky_chain(2, 0.9), Codebook([[-1.0], [1.0]]))
        >>> plan = Plan((4.0, 4.0), 2, 4.0, reverse_steps=8, init_steps=8, floor=0.02, spacing="geometric")
        >>> result = finite_ledger(video, plan, ar_steps=2, samples=200)
        >>> result.totals["de"] > 20 * result.stderr["de"] > 0
        True
    """
    del girsanov_points, closed, teacher_forced
    chosen = reverse_step(step)
    with torch.no_grad():
        terms = finite_ledger_terms(
            video, plan, ar_steps, score, chosen,
            against=against, memory=memory, samples=samples, seed=seed, progress=progress,
        )  # fmt: skip
        rollout = "it needs the law of a rollout, which a finite-state video's sampler has in no closed form"
        notes = dict.fromkeys(("ie", "kl", "trajectory_kl", "clip_kl"), f"{rollout}; see path_kl")
        notes |= dict.fromkeys(("girsanov", "closed"), "computed for Gaussian videos only")
        notes |= common_notes(plan, ar_steps, memory)
        totals, errors = sample_totals(terms, notes)
        rows = sample_rows(terms)
        if "clip_bound" not in notes:
            bounds = terms.init_path[:, None] + terms.ar_path.cumsum(-1)
            rows += [("ar", k, "CLIP_BOUND", *estimate(bound)) for k, bound in enumerate(bounds.unbind(-1), 1)]
        return FiniteLedger(as_table(rows), totals, errors, notes, terms)


def estimate(values: Tensor) -> tuple[float, float]:
    """Mean and its standard error over the leading axis of (n,) values; (value, 0) if all are the same."""
    offset = values - values[0]
    return float(values[0] + offset.mean()), float(offset.std()) / math.sqrt(len(values))


def common_notes(plan: Plan, ar_steps: int, memory: bool) -> dict[str, str]:
    """Why totals that do not depend on the video's kind are not defined."""
    notes: dict[str, str] = {}
    if not memory:
        reason = "the memory bottleneck was left out on request"
        notes |= dict.fromkeys(("mb", "path_kl", "lower_bound"), reason)
    if plan.overlapping:
        notes["lower_bound"] = (
            "the noisy window carries information past the clean frames (w > Δ), so Σ MB bounds the joint law only"
        )
    try:
        require_clip_bound(plan, ar_steps)
    except ClipBoundError as error:
        notes["clip_bound"] = str(error)
    return notes


def sample_totals(terms: FiniteTerms, notes: dict[str, str]) -> tuple[dict[str, float | None], dict[str, float]]:
    """Totals and their standard errors; those that a note explains are None."""
    per_video: dict[str, Tensor | None] = {
        "kl": None,
        "trajectory_kl": None,
        "path_kl": terms.path,
        "girsanov": None,
        "closed": None,
        "lower_bound": None if terms.mb_clean is None else terms.mb_clean.sum(-1),
        "ie": None,
        "nie_init": terms.nie_init,
        "path_init": terms.init_path - terms.nie_init,
        "nie_ar": terms.nie_ar.sum(-1),
        "de": terms.de.sum((-2, -1)),
        "see": terms.see.sum((-2, -1)),
        "cross": terms.cross.sum((-2, -1)),
        "mb": terms.mb.sum(-1),
    }
    totals: dict[str, float | None] = {}
    errors: dict[str, float] = {}
    for name, values in per_video.items():
        totals[name] = None
        if values is not None and name not in notes:
            totals[name], errors[name] = estimate(values)
    return totals, errors


def sample_rows(terms: FiniteTerms) -> list[tuple[str, int, str, float, float]]:
    """The table's rows of every sampled term."""
    init = {"NIE": terms.nie_init, "DE": terms.init_de, "SEE": terms.init_see, "CROSS": terms.init_cross}
    ar = {"NIE_AR": terms.nie_ar, "DE": terms.de, "SEE": terms.see, "CROSS": terms.cross, "MB": terms.mb}
    rows = [("init", 0, name, *estimate(v.sum(-1) if v.ndim > 1 else v)) for name, v in init.items()]
    for name, values in ar.items():
        per_step = values.sum(-1) if values.ndim > 2 else values
        rows += [("ar", k, name, *estimate(value)) for k, value in enumerate(per_step.unbind(-1), start=1)]
    return rows


def as_table(rows: Sequence[tuple[str, int, str, float, float]]) -> pd.DataFrame:
    """The rows as a ledger's table."""
    return pd.DataFrame(list(rows), columns=["stage", "ar_step", "term", "value", "stderr"])
