"""The ledger of a video, a plan and a sampler: the exact error decomposition as one result.

    KL(trajectory) = IE + Σ_k [NIE_AR,k + Σ_m (DE + SEE + CROSS) + MB_k]

Source: arXiv 2503.10704, Theorems 1 and 2, with the cross term kept and every inequality resolved.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ParamSpec, TypeVar

import torch
from tqdm import tqdm

from arvdm_theory.bounds.accumulation import why_no_clip_bound
from arvdm_theory.bounds.saturation import closed_loop
from arvdm_theory.decomposition.generated import generated_error
from arvdm_theory.decomposition.question import Question, require_densities, sample_count
from arvdm_theory.decomposition.recursion import long_terms
from arvdm_theory.decomposition.result import Result, rows_table
from arvdm_theory.decomposition.reused import reused_terms
from arvdm_theory.decomposition.terms import LedgerTerms, StageErrors, closed_rollout, dense_steps, stage_errors
from arvdm_theory.information.gaussian import NotPositiveDefiniteError
from arvdm_theory.laws.law import VideoLaw
from arvdm_theory.laws.stage_law import weighted
from arvdm_theory.number import Number
from arvdm_theory.plan.plan import Plan

__all__ = ["account", "ledger", "ledger_terms", "memory_bottleneck"]

# A rounding estimate above this part of the KL is told: the other digits are as good as twelve.
_TOLD_ROUNDING = 1e-9


_P = ParamSpec("_P")
_Q = TypeVar("_Q")
_R = TypeVar("_R")


def _of_its_parts(question: Callable[_P, _Q]) -> Callable[[Callable[[_Q], _R]], Callable[_P, _R]]:
    """A function of a question as one of its parts: callers, type checkers and ``help`` see their names."""
    signature = inspect.signature(question)

    def taken_apart(answer: Callable[[_Q], _R]) -> Callable[_P, _R]:
        @functools.wraps(answer)
        def asked(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            signature.bind(*args, **kwargs)  # its error speaks of this function's arguments
            return answer(question(*args, **kwargs))

        returned = inspect.signature(answer).return_annotation
        asked.__signature__ = signature.replace(return_annotation=returned)  # type: ignore[attr-defined]
        return asked

    return taken_apart


@_of_its_parts(Question)
def ledger_terms(question: Question) -> LedgerTerms:
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
    return _terms(question)


@_of_its_parts(Question)
def ledger(question: Question) -> Result:
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
        generate: how E_k and ``ar_step_kl`` are found where the score is not affine: ``moments`` or a divergence
            estimator, from one AR step generated from true inputs each
            (:mod:`arvdm_theory.decomposition.generated`); None: not at all.
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
        terms = _terms(question)
        notes = terms.notes | _notes(question, terms)
        if rare := question.video.rare(question.samples, question.plan.total_frames(question.ar_steps)):
            notes["rare"] = rare
        if question.memory and (caveat := question.video.caveat(question.plan)):
            notes["video"] = caveat
        return account(terms, question.plan, notes)


def _terms(question: Question) -> LedgerTerms:
    question = question.prepared()
    terms: LedgerTerms | None = None
    if question.plan.references.reused:
        terms = reused_terms(question)
    elif not question.teacher_forced:
        terms = long_terms(question)
    if terms is None:
        laws = question.laws()
        errors = stage_errors(question, laws, question.truths())
        terms = LedgerTerms(errors[0], tuple(errors[1:]), **closed_rollout(question, laws))
    if question.generate is not None and terms.ar_step_errors is None:
        question.plan.require_fresh("E_k of AR steps generated from true inputs")
        terms = _generated(question, question.generate, terms)
    return _saturating(question, terms) if question.accumulation else terms


def _generated(question: Question, method: str, terms: LedgerTerms) -> LedgerTerms:
    """The terms with IE and E_k of AR steps that are generated from true inputs."""
    steps = range(question.ar_steps + 1)
    found = [
        generated_error(
            question.video, question.plan, k, question.score, method=method, step=question.step,
            samples=question.samples, seed=question.seed + k,
        )
        for k in tqdm(steps, "generated", disable=not question.progress or None, leave=False)
    ]  # fmt: skip
    notes = {**terms.notes, "generated": _of_generated(found)}
    return replace(terms, generated_ie=found[0], ar_step_errors=Number.stack(found[1:]), notes=notes)


def _of_generated(found: Sequence[Number]) -> str:
    """What is to be said of E_k, and of what holds it, where AR steps were generated."""
    said = [
        "E_k is moment-matched: Q is taken for the Gaussian of its moments, neither an upper nor a lower bound "
        "unless the network is affine and the video Gaussian"
        if found[0].method == "moment-matched"
        else f"E_k is estimated by {found[0].method}, with that estimator's interval"
    ]
    return "; ".join([*said, *dict.fromkeys(text.rstrip(".") for number in found for text in number.warnings)])


def _saturating(question: Question, terms: LedgerTerms) -> LedgerTerms:
    """The terms with the saturating bound on the clip KL of every AR step; or why there is none.

    Where Input_{k+1} is made of (Input_k, Output_k), IE + Σ E_k bounds it too. With noised references that may be
    less: what an AR step hands on is then more than the next one sees, and the bound charges for the difference.
    """
    video, plan, ar_steps = question.video, question.plan, question.ar_steps
    most, why = dense_steps(video, plan), ""
    bounds: tuple[float, ...] = ()
    if terms.clips is None or video.action_dim:
        why = "the saturating bound is for Gaussian videos without actions and scores affine in what they see"
    elif plan.references.reused:
        why = "the saturating bound is for references that are clean or noised afresh, and these keep their noise"
    elif most is not None and ar_steps > most:
        why = f"the saturating bound needs the joint covariance of all frames: it goes up to {most} AR steps"
    else:
        try:
            bounds = closed_loop(video, plan, ar_steps, score=question.score, step=question.step).bounds  # type: ignore[arg-type]
        except NotPositiveDefiniteError as error:
            why = f"the sampler leaves no noise in what an AR step hands on: {error}"
    if why:
        return replace(terms, notes={**terms.notes, "accumulation_bound": why})
    if terms.ie is not None and terms.ar_step_errors is not None and why_no_clip_bound(plan, ar_steps) is None:
        sums = (terms.ie + terms.ar_step_errors.cumsum()).value.tolist()
        bounds = tuple(map(min, bounds, sums))
    return replace(terms, accumulation=Number.exact(torch.tensor(bounds, dtype=torch.float64)))


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


def _notes(question: Question, terms: LedgerTerms) -> dict[str, str]:
    """Why totals are not defined, as far as it does not show in the terms alone."""
    notes: dict[str, str] = {}
    video, step, girsanov, closed = question.video, question.reverse, question.girsanov, question.closed
    gaussian = video.at(question.plan.stage(0)).window is not None
    no_law = "the score is not affine in (window, references): its rollout has no closed-form law"
    if not gaussian:
        no_law = f"it needs the law of a rollout, which the video {video.name!r} has in no closed form"
    if terms.ie is None:
        notes |= dict.fromkeys(("ie", "trajectory_kl", "lower_bound"), f"{no_law}; see path_kl")
    if terms.ar_step_errors is None:
        notes |= dict.fromkeys(("ar_step_kl", "ar_step_error"), f"{no_law}; generate='moments' estimates it")
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
    if terms.ie is not None and bool(torch.isinf(terms.ie.samples).any()):
        reason = f"the {step.name} step makes one kept state a function of others: their KL is infinite"
        notes |= dict.fromkeys(("ie", "ar_step_kl", "trajectory_kl", "lower_bound", "clip_bound"), reason)
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


def account(terms: LedgerTerms, plan: Plan, notes: dict[str, str]) -> Result:
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
    if terms.accumulation is not None:
        series["ACCUMULATION_BOUND"] = terms.accumulation
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
            form = "exact" if number.is_exact else number.method or "average"
            rows.append((stage, k, term, form, number))

    def step_terms(errors: StageErrors, stage: str, k: int, suffix: str, nie: str) -> None:
        add(stage, k, nie, errors.nie)
        for name, number in (("DE", errors.de), ("SEE", errors.see), ("CROSS", errors.cross)):
            add(stage, k, f"{name}{suffix}", number.sum())

    step_terms(terms.initialisation, "init", 0, "_INIT", "NIE_INIT")
    add("init", 0, "IE", terms.generated_ie if terms.ie is None else terms.ie)
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
