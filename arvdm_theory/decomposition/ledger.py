"""The ledger of a video, a plan and a sampler: the exact error decomposition as one result.

    KL(trajectory) = IE + Σ_k [NIE_AR,k + Σ_m (DE + SEE + CROSS) + MB_k]

Source: arXiv 2503.10704, Theorems 1 and 2, with the cross term kept and every inequality resolved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from arvdm_theory.bounds.accumulation import why_no_clip_bound
from arvdm_theory.bounds.saturation import closed_loop
from arvdm_theory.decomposition.recursion import long_terms
from arvdm_theory.decomposition.result import Result, rows_table
from arvdm_theory.decomposition.terms import (
    FULL_VIEW,
    LedgerTerms,
    StageErrors,
    closed_rollout,
    dense_steps,
    require_densities,
    require_grids,
    sample_count,
    stage_bounds,
    stage_errors,
)
from arvdm_theory.diffusion.scores import ExactScore, as_score
from arvdm_theory.diffusion.steps import ReverseStep, reverse_step
from arvdm_theory.information.gaussian import NotPositiveDefiniteError
from arvdm_theory.laws.law import VideoLaw
from arvdm_theory.laws.stage_law import weighted
from arvdm_theory.number import Number
from arvdm_theory.plan.plan import Plan

__all__ = ["account", "ledger", "ledger_terms", "memory_bottleneck"]

# A rounding estimate above this part of the KL is told: the other digits are as good as twelve.
_TOLD_ROUNDING = 1e-9


def ledger_terms(
    video: VideoLaw,
    plan: Plan,
    ar_steps: int,
    *,
    score: Any = None,
    step: str | ReverseStep = "exponential",
    against: ExactScore = FULL_VIEW,
    girsanov: bool | None = None,
    closed: bool | None = None,
    memory: bool = True,
    teacher_forced: bool = False,
    samples: int = 2048,
    seed: int = 0,
    attribution: bool = False,
    ar_grid: Tensor | None = None,
    init_grid: Tensor | None = None,
    progress: bool = False,
) -> LedgerTerms:
    """Every term of the ledger, differentiable where the law has closed forms; arguments as :func:`ledger`.

    Many AR steps of a linear state space, with references of bounded reach and an affine score, are taken by the
    recursions of :mod:`arvdm_theory.decomposition.recursion`; all else by the joint covariance of all frames.

    Raises:
        ValueError: if the video has too few frames, its clean frames have no density, the step's trajectory KL is
            infinite or it is no Gaussian kernel, the law has no such bound or grid, for something that is no
            score, if an argument is out of range, or if the joint covariance of that many frames is too large.
        NotPositiveDefiniteError: if a covariance that is needed is not positive definite.
        TableSizeError: if a finite-state chain has too many states for exact inference.
    """
    if ar_steps < 1:
        raise ValueError(f"at least one AR step is needed, got {ar_steps}")
    own, chosen = as_score(score, video, affine=video.gaussian), reverse_step(step)
    video.require(plan.total_frames(ar_steps))
    require_densities(video, plan)
    if not teacher_forced:
        long = long_terms(
            video, plan, ar_steps, score=own, step=chosen, against=against, girsanov=girsanov, closed=closed,
            memory=memory, attribution=attribution, ar_grid=ar_grid, init_grid=init_grid,
        )  # fmt: skip
        if long is not None:
            return long
    given = [init_grid] + [ar_grid] * ar_steps
    laws = [video.at(plan.stage(k, grid)) for k, grid in enumerate(given)]
    require_grids(laws, {"ar_grid": ar_grid, "init_grid": init_grid})
    bounds = stage_bounds(laws[0], chosen, girsanov, closed)
    truths = video.true_videos(plan, ar_steps, sample_count(samples), torch.Generator().manual_seed(seed))
    errors = stage_errors(laws, truths, own, chosen, against, memory, teacher_forced, bounds, progress)
    rollout = closed_rollout(video, plan, laws, own, chosen, None if ar_grid is None else ar_grid[0], attribution)
    return LedgerTerms(errors[0], tuple(errors[1:]), **rollout)


def ledger(
    video: VideoLaw,
    plan: Plan,
    ar_steps: int,
    *,
    score: Any = None,
    step: str | ReverseStep = "exponential",
    against: ExactScore = FULL_VIEW,
    girsanov: bool | None = None,
    closed: bool | None = None,
    memory: bool = True,
    teacher_forced: bool = False,
    samples: int = 2048,
    seed: int = 0,
    attribution: bool = False,
    accumulation: bool = False,
    ar_grid: Tensor | None = None,
    init_grid: Tensor | None = None,
    progress: bool = False,
) -> Result:
    """The ledger of a video and a plan; of many AR steps by recursions in linear time, where there are such.

    Args:
        video: its law; frames beyond what the plan needs are ignored.
        plan: the plan. Its floor must be above 0 where clean frames have no density.
        ar_steps: K ≥ 1.
        score: None for the exact score of what the plan lets frames see, ``ExactScore``, ``PerturbedScore``, any
            callable (window, levels, references) → score, or a denoiser; see :mod:`arvdm_theory.diffusion.scores`.
        step: the reverse step; for laws without closed forms exponential, euler, or ddpm above level 0.
        against: the s* that SEE is measured against. By default it sees everything, so what a mask hides is
            part of SEE; ``ExactScore(masked=True)`` moves it into DE.
        girsanov: whether to compute the Girsanov form; None: where it is defined (Gaussian videos).
        closed: whether to compute the closed bound, likewise.
        memory: whether to compute MB (else totals that need it are None).
        teacher_forced: average SEE and CROSS over true windows for affine scores too, where they are exact: what
            a network's own ledger rests on. IE and the KL of clean frames and clips stay as they are.
        samples: true videos (true windows a reverse step, of a Gaussian video) where terms are averages.
        seed: of those samples.
        attribution: also split every AR step's error E_k into NIE, DE and SEE by switching them on in this order.
        accumulation: also give the saturating bound on clip KL (:mod:`arvdm_theory.bounds.saturation`), which
            costs K² small matrix products.
        ar_grid: levels (M + 1, w) in place of the plan's, which may require gradients (Gaussian videos). The
            caller keeps them within the plan's requirements; moving frames must be those of the plan.
        init_grid: the same for the initialisation stage.
        progress: whether to show a progress bar.

    Raises:
        ValueError: if the video has too few frames, its clean frames have no density, the step's trajectory KL is
            infinite or it is no Gaussian kernel, the law has no such bound or grid, for something that is no
            score, if an argument is out of range, or if the joint covariance of that many frames is too large.
        NotPositiveDefiniteError: if a covariance that is needed is not positive definite.
        TableSizeError: if a finite-state chain has too many states for exact inference.

    Example:
        >>> import numpy as np
        >>> from arvdm_theory import ArrayVideo, References, outpainting
        >>> lags = np.abs(np.subtract.outer(np.arange(8), np.arange(8)))
        >>> plan = outpainting(window=2, references=References.last(1), reverse_steps=10)
        >>> result = ledger(ArrayVideo(0.8**lags, frame_dim=1), plan, ar_steps=2)
        >>> result.totals["kl"] <= result.totals["trajectory_kl"] <= result.totals["girsanov"]
        True
    """
    with torch.no_grad():
        terms = ledger_terms(
            video, plan, ar_steps, score=score, step=step, against=against, girsanov=girsanov, closed=closed,
            memory=memory, teacher_forced=teacher_forced, samples=samples, seed=seed, attribution=attribution,
            ar_grid=ar_grid, init_grid=init_grid, progress=progress,
        )  # fmt: skip
        notes = _notes(video, plan, reverse_step(step), terms, girsanov, closed)
        if rare := video.rare(samples, plan.total_frames(ar_steps)):
            notes["rare"] = rare
        if memory and (caveat := video.caveat(plan)):
            notes["video"] = caveat
        bounds: tuple[float, ...] = ()
        if accumulation:
            bounds, why = _saturating(video, plan, ar_steps, score, step, terms)
            notes |= {"accumulation_bound": why} if why else {}
        return account(terms, plan, notes, bounds)


def _saturating(
    video: VideoLaw, plan: Plan, ar_steps: int, score: Any, step: str | ReverseStep, terms: LedgerTerms
) -> tuple[tuple[float, ...], str]:
    """The saturating bound on the clip KL of every AR step; or why there is none.

    Where Input_{k+1} is made of (Input_k, Output_k), IE + Σ E_k bounds it too. With noised references that may be
    less: what an AR step hands on is then more than the next one sees, and the bound charges for the difference.
    """
    if terms.clips is None or video.action_dim:
        return (), "the saturating bound is for Gaussian videos without actions and scores affine in what they see"
    if (most := dense_steps(video, plan)) is not None and ar_steps > most:
        return (), f"the saturating bound needs the joint covariance of all frames: it goes up to {most} AR steps"
    try:
        bounds = closed_loop(video, plan, ar_steps, score=score, step=step).bounds  # type: ignore[arg-type]
    except NotPositiveDefiniteError as error:
        return (), f"the sampler leaves no noise in what an AR step hands on: {error}"
    if terms.ie is not None and terms.ar_step_errors is not None and why_no_clip_bound(plan, ar_steps) is None:
        sums = (terms.ie + terms.ar_step_errors.cumsum()).value.tolist()
        bounds = tuple(map(min, bounds, sums))
    return bounds, ""


def memory_bottleneck(
    video: VideoLaw,
    plan: Plan,
    ar_step: int,
    *,
    clean_references: bool = False,
    samples: int = 2048,
    seed: int = 0,
) -> Number:
    """MB_k = I(Output_k; Past_k | Input_k) of AR step k = ``ar_step``, in nats; exact where the law has a closed
    form.

    Source: arXiv 2503.10704, Theorem 2: no network of the plan, however well trained, pays less.

    Args:
        video: its law.
        plan: the plan.
        ar_step: k, from 1.
        clean_references: condition on the references *before* they are noised, and take Past_k as what is left:
            the form whose sum over k no sampler of a plan with w = Δ beats.
        samples: true videos where it is an average.
        seed: of these.

    Raises:
        ValueError: if the video has too few frames or no density at the plan's floor, or an argument is out of
            range.

    Example:
        >>> from arvdm_theory import References, outpainting, reference_video
        >>> memory_bottleneck(reference_video(), outpainting(2, References.last(1)), 1)
        Number(0.14591)
    """
    if ar_step < 1:
        raise ValueError(f"AR steps are counted from 1, got {ar_step}")
    video.require(plan.total_frames(ar_step))
    require_densities(video, plan)
    law = video.at(plan.stage(ar_step))
    truths = video.true_videos(plan, ar_step, sample_count(samples), torch.Generator().manual_seed(seed))
    with torch.no_grad():
        parts, weights = zip(
            *((law.memory_bottleneck(t, clean_references), t.weights) for t in truths), strict=True
        )
        own = None if weights[0] is None else torch.cat(weights)
        notes = video.rare(samples, plan.total_frames(ar_step)), video.caveat(plan)
        return Number(weighted(torch.cat(parts), own), warnings=tuple(note for note in notes if note))


def _notes(
    video: VideoLaw,
    plan: Plan,
    step: ReverseStep,
    terms: LedgerTerms,
    girsanov: bool | None,
    closed: bool | None,
) -> dict[str, str]:
    """Why totals are not defined, as far as it does not show in the terms alone."""
    notes: dict[str, str] = {}
    gaussian = video.at(plan.stage(0)).window is not None
    no_law = "the score is not affine in (window, references): its rollout has no closed-form law"
    if not gaussian:
        no_law = f"it needs the law of a rollout, which the video {video.name!r} has in no closed form"
    if terms.ie is None:
        notes |= dict.fromkeys(("ie", "trajectory_kl", "lower_bound"), f"{no_law}; see path_kl")
    if terms.ar_step_errors is None:
        notes |= dict.fromkeys(("ar_step_kl", "ar_step_error"), no_law)
    if terms.kl is None:
        notes |= dict.fromkeys(("kl", "clip_kl", "clip_w2"), no_law)
    if bool(torch.isinf(torch.as_tensor(terms.initialisation.de.value)).any()):
        reason = f"the {step.name} step moves a frame without noise: its path KL is infinite"
        notes |= dict.fromkeys(
            ("trajectory_kl", "path_kl", "de", "see", "cross", "path_init", "clip_bound"), reason
        )
    if terms.ar_step_errors is not None and bool(torch.isinf(terms.ar_step_errors.value).any()):
        reason = f"the {step.name} step puts out a singular law given its input: the KL of an AR step is infinite"
        notes |= dict.fromkeys(("ar_step_kl", "ar_step_error"), reason)
    for name, asked in (("girsanov", girsanov), ("closed", closed)):
        if getattr(terms, name) is not None:
            continue
        if not gaussian:
            notes[name] = "computed for Gaussian videos only"
        elif not step.girsanov:
            notes[name] = (
                f"Girsanov's theorem does not cover the {step.name} step: its noise is not the reverse SDE's"
            )
        elif asked is False or (name == "closed" and girsanov is False):
            notes[name] = "left out on request"
    if terms.rounding > _TOLD_ROUNDING * (0.0 if terms.kl is None else abs(float(terms.kl))):
        notes["rounding"] = (
            f"the sampler's covariance is nearly singular: KL and clip KL carry a rounding of about "
            f"{terms.rounding:.1g} nats (an estimate, not a bound)"
        )
    return notes


def account(terms: LedgerTerms, plan: Plan, notes: dict[str, str], accumulation: Sequence[float] = ()) -> Result:
    """The table and the totals of a ledger's terms; totals that a note explains are None."""
    notes = dict(notes)
    mb = terms.total("mb")
    if mb is None:
        reason = "the memory bottleneck was left out on request"
        for name in ("mb", "ar_step_kl", "trajectory_kl", "path_kl", "girsanov", "closed", "lower_bound", "floor"):
            notes.setdefault(name, reason)
    if plan.overlapping:
        reason = (
            "the noisy window carries information past the clean frames (w > Δ), so Σ MB bounds the joint law only"
        )
        notes["lower_bound"] = notes["floor"] = reason
    if why := why_no_clip_bound(plan, len(terms.ar)):
        notes["clip_bound"] = why
    init, floor = terms.initialisation, terms.floor
    values: dict[str, Number | None] = {
        "kl": terms.kl,
        "ar_step_kl": terms.ar_step_kl,
        "trajectory_kl": terms.trajectory,
        "path_kl": terms.path,
        "girsanov": terms.girsanov,
        "closed": terms.closed,
        "floor": floor,
        "lower_bound": None if floor is None or terms.ie is None else _sum(terms.ie, floor),
        "ie": terms.ie,
        "nie_init": init.nie,
        "path_init": (init.de + init.see + init.cross).sum(),
        "nie_ar": terms.total("nie"),
        "de": terms.total("de"),
        "see": terms.total("see"),
        "cross": terms.total("cross"),
        "mb": mb,
    }
    defined = {name: value for name, value in values.items() if value is not None and name not in notes}
    totals = {name: float(defined[name]) if name in defined else None for name in values}
    errors = {name: float(value.stderr) for name, value in defined.items() if not value.is_exact}
    series = {} if isinstance(terms.ar, tuple) else _series(terms, notes)
    if accumulation:
        series["ACCUMULATION_BOUND"] = Number.exact(torch.tensor(accumulation, dtype=torch.float64))
    return Result("ledger", rows_table(_rows(terms, notes), series), totals, errors, notes, terms)


def _sum(first: Number, second: Number) -> Number:
    return first + second if first.is_exact or second.is_exact else first.plus_independent(second)


def _series(terms: LedgerTerms, notes: dict[str, str]) -> dict[str, Number]:
    """The terms of all AR steps at once, (K,) each, where they are too many to go through them."""
    found = {name: terms.of(name.lower()) for name in ("DE", "SEE", "CROSS")}
    series = {
        "NIE_AR": terms.of("nie"),
        **{name: None if number is None else number.sum_last() for name, number in found.items()},
        "MB": terms.of("mb"),
        "AR_STEP": terms.ar_step_errors,
        **{
            f"AR_STEP_{name}": None if terms.attribution is None else terms.attribution[:, i]
            for i, name in enumerate(("NIE", "DE", "SEE"))
        },
        "CLIP_W2": terms.clips_w2,
        "CLIP_KL": terms.clips,
        "CLIP_BOUND": None if "clip_bound" in notes else terms.clip_bounds,
    }
    return {name: number for name, number in series.items() if number is not None}


def _rows(terms: LedgerTerms, notes: dict[str, str]) -> list[tuple[str, int, str, str, Number]]:
    rows: list[tuple[str, int, str, str, Number]] = []

    def add(stage: str, k: int, term: str, number: Number | None) -> None:
        if number is not None:
            rows.append((stage, k, term, "exact" if number.is_exact else "average", number))

    def step_terms(errors: StageErrors, stage: str, k: int, suffix: str, nie: str) -> None:
        add(stage, k, nie, errors.nie)
        for name, number in (("DE", errors.de), ("SEE", errors.see), ("CROSS", errors.cross)):
            add(stage, k, f"{name}{suffix}", number.sum())

    step_terms(terms.initialisation, "init", 0, "_INIT", "NIE_INIT")
    add("init", 0, "IE", terms.ie)
    bounds = terms.clip_bounds
    if not isinstance(terms.ar, tuple):  # many steps that share their errors: a series a term
        return rows
    for k, errors in enumerate(terms.ar, start=1):
        step_terms(errors, "ar", k, "", "NIE_AR")
        add("ar", k, "MB", errors.mb)
        add("ar", k, "AR_STEP", None if terms.ar_step_errors is None else terms.ar_step_errors[k - 1])
        if terms.attribution is not None:
            for i, name in enumerate(("NIE", "DE", "SEE")):
                add("ar", k, f"AR_STEP_{name}", terms.attribution[k - 1, i])
        add("ar", k, "CLIP_W2", None if terms.clips_w2 is None else terms.clips_w2[k - 1])
        add("ar", k, "CLIP_KL", None if terms.clips is None else terms.clips[k - 1])
        add("ar", k, "CLIP_BOUND", None if "clip_bound" in notes else bounds[k - 1])
    return rows
