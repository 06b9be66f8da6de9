"""What the ledger promises for every plan and video, on plans and videos that Hypothesis makes up."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from dense_reference import dense_ledger
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from arvdm_theory import ArrayVideo, Number, PerturbedScore, Plan, ledger_terms
from arvdm_theory.bounds.accumulation import why_no_clip_bound
from arvdm_theory.decomposition.terms import LedgerTerms, StageErrors
from arvdm_theory.decomposition.trajectory import trajectory_kl
from arvdm_theory.testing import gaussian_videos, plans

# Videos below have condition number κ ≤ 1e4 and scales up to 10; sums over n < 100 of their spectra are known to
# n κ 2^-53 = 1e-10, relatively to the largest of the numbers that are added up.
RELATIVE = 1e-9


@st.composite
def cases(draw: st.DrawFn, masks: bool = True) -> tuple[ArrayVideo, Plan, int, PerturbedScore | None]:
    """A plan, a video that is long enough for it, AR steps and a score: exact, or with an error and a bias."""
    plan = draw(plans(entering_clean=True, masks=masks))
    ar_steps = draw(st.integers(1, 3), label="AR steps")
    video = draw(gaussian_videos(frames=plan.total_frames(ar_steps)))
    error = draw(st.sampled_from([0.0, 0.05, -0.1, 0.5]), label="error")
    bias = draw(st.sampled_from([0.0, 0.3]), label="bias")
    return video, plan, ar_steps, PerturbedScore(error, bias) if error or bias else None


noisy_steps = st.sampled_from(["exponential", "euler", "ancestral"])


def value(number: Number | None) -> Any:
    assert number is not None
    assert number.is_exact
    return number.value


def path(stage: StageErrors) -> Tensor:
    result: Tensor = value(stage.de) + value(stage.see) + value(stage.cross)
    return result


def slack(terms: LedgerTerms) -> float:
    stages = (terms.initialisation, *terms.ar)
    parts = [getattr(stage, name) for stage in stages for name in ("de", "see", "cross", "mb")]
    return RELATIVE * (1 + sum(float(abs(part.samples).sum()) for part in parts if part is not None))


@settings(max_examples=30, deadline=None)
@given(cases(), noisy_steps)
def test_the_ledger_closes(case: tuple[ArrayVideo, Plan, int, PerturbedScore | None], step: str) -> None:
    """KL(trajectory) = IE + Σ [NIE + Σ (DE + SEE + CROSS) + MB], against one dense KL of the whole trajectory."""
    video, plan, ar_steps, score = case
    terms = ledger_terms(video, plan, ar_steps, score=score, step=step, girsanov=False)
    dense = float(trajectory_kl(video, plan, ar_steps, score, step))
    assert value(terms.trajectory) == pytest.approx(dense, rel=RELATIVE, abs=slack(terms))


@settings(max_examples=30, deadline=None)
@given(cases(), noisy_steps)
def test_the_ladder_rises(case: tuple[ArrayVideo, Plan, int, PerturbedScore | None], step: str) -> None:
    video, plan, ar_steps, score = case
    terms = ledger_terms(video, plan, ar_steps, score=score, step=step)
    rungs = [value(terms.kl), value(terms.ar_step_kl), value(terms.trajectory), value(terms.path)]
    if step != "ancestral":
        rungs += [value(terms.girsanov), value(terms.closed)]
        for stage in (terms.initialisation, *terms.ar):
            assert float((path(stage) - value(stage.girsanov)).max()) <= slack(terms)
            assert float((value(stage.girsanov) - value(stage.closed)).max()) <= slack(terms)
            assert value(stage.nie) <= value(stage.nie_closed)
    assert all(low <= high + slack(terms) for low, high in pairwise(rungs))


@settings(max_examples=30, deadline=None)
@given(cases(), noisy_steps)
def test_terms_that_are_divergences_are_not_negative(
    case: tuple[ArrayVideo, Plan, int, PerturbedScore | None], step: str
) -> None:
    video, plan, ar_steps, score = case
    terms = ledger_terms(video, plan, ar_steps, score=score, step=step, girsanov=False)
    room = slack(terms)
    numbers = [terms.ie, terms.kl, terms.clips, terms.of("mb"), terms.ar_step_errors, terms.kl_w2, terms.clips_w2]
    for stage in (terms.initialisation, *terms.ar):
        numbers += [stage.nie, stage.de, stage.see]
        assert float(path(stage).min()) >= -room
        assert bool((value(stage.cross) ** 2 <= 4 * value(stage.de) * value(stage.see) + room**2).all())
    for number in numbers:
        assert float(torch.as_tensor(value(number)).min()) >= -room


@settings(max_examples=30, deadline=None)
@given(cases(), noisy_steps)
def test_clips_lie_below_the_bound_or_the_plan_is_refused(
    case: tuple[ArrayVideo, Plan, int, PerturbedScore | None], step: str
) -> None:
    video, plan, ar_steps, score = case
    # Refused is what has a reference that the step before neither put out clean nor held clean, and nothing else.
    lost = []
    for k in range(1, ar_steps):
        out = set(plan.window_frames(k)[: plan.stride])
        held = {r.frame for r in plan.references_at(k) if r.level <= plan.floor}
        lost += [r.frame not in out | held for r in plan.references_at(k + 1)]
    assert (why_no_clip_bound(plan, ar_steps) is not None) == any(lost)
    if any(lost):
        return
    terms = ledger_terms(video, plan, ar_steps, score=score, step=step, girsanov=False)
    assert float((value(terms.clips) - value(terms.clip_bounds)).max()) <= slack(terms)


@settings(max_examples=25, deadline=None)
@given(st.data(), st.sampled_from(["exponential", "euler", "ancestral", "ddim"]))
def test_no_sampler_of_clean_chunks_beats_ie_and_the_bottleneck(data: st.DataObject, step: str) -> None:
    """For w = Δ: KL(clean) ≥ IE + Σ I(Output_k; Past_k | references before noising)."""
    plan = data.draw(plans(overlapping=False, masks=True))
    ar_steps = data.draw(st.integers(1, 3))
    video = data.draw(gaussian_videos(frames=plan.total_frames(ar_steps)))
    terms = ledger_terms(video, plan, ar_steps, score=PerturbedScore(0.1), step=step, girsanov=False)
    assert bool((value(terms.of("mb_clean")) <= value(terms.of("mb")) + 1e-9).all())  # noise hides, never shows
    assert value(terms.ie) + value(terms.floor) <= value(terms.kl) * (1 + RELATIVE) + RELATIVE


@settings(max_examples=25, deadline=None)
@given(cases(), noisy_steps)
def test_every_number_is_that_of_the_dense_reference(
    case: tuple[ArrayVideo, Plan, int, PerturbedScore | None], step: str
) -> None:
    video, plan, ar_steps, score = case
    frames = plan.total_frames(ar_steps)
    covariance, mean = video.covariance(frames)[0].numpy(), video.mean(frames)[0].numpy()
    error, bias = (score.error, score.bias) if score is not None else (0.0, 0.0)
    dense = dense_ledger(
        covariance, mean, video.frame_dim, plan, ar_steps, step,  # type: ignore[arg-type]
        score_error=float(error),
        modify=lambda move, s: type(s)(s.window, s.references, s.offset + float(bias)),
    )  # fmt: skip
    terms = ledger_terms(video, plan, ar_steps, score=score, step=step, girsanov=False)
    room = slack(terms)
    pairs = [
        (value(terms.ie), dense.ie),
        (value(terms.initialisation.nie), dense.nie_init),
        (value(terms.of("nie")), dense.nie_ar),
        (value(terms.of("mb")), dense.mb),
        (value(terms.ar_step_errors), dense.ar_step_errors),
        (value(terms.clips), dense.clip),
        (value(terms.kl), dense.clean),
        (path(terms.initialisation), [term.total for term in dense.init_terms]),
    ]
    for name in ("de", "see", "cross"):
        pairs.append((value(terms.of(name)), [[getattr(term, name) for term in row] for row in dense.terms]))
    for found, expected in pairs:
        np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=1e-8, atol=room)
    assert value(terms.trajectory) == pytest.approx(dense.trajectory, rel=RELATIVE, abs=room)
