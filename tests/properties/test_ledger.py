"""What the ledger promises for every plan and video, on plans and videos that Hypothesis makes up."""

from itertools import pairwise

import numpy as np
import pytest
from dense_reference import dense_ledger
from hypothesis import given, settings
from hypothesis import strategies as st

from arvdm_theory import ArrayVideo, PerturbedScore, Plan, ledger_terms
from arvdm_theory.bounds.accumulation import ClipBoundError, require_clip_bound
from arvdm_theory.decomposition.terms import LedgerTerms
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


def number(value: object) -> float:
    assert value is not None
    return float(value)  # type: ignore[arg-type]


def slack(terms: LedgerTerms) -> float:
    parts = (terms.de, terms.see, terms.cross, terms.mb, terms.init_de, terms.init_see, terms.init_cross)
    return RELATIVE * (1 + sum(float(part.abs().sum()) for part in parts))


@settings(max_examples=30, deadline=None)
@given(cases(), noisy_steps)
def test_the_ledger_closes(case: tuple[ArrayVideo, Plan, int, PerturbedScore | None], step: str) -> None:
    """KL(trajectory) = IE + Σ [NIE + Σ (DE + SEE + CROSS) + MB], against one dense KL of the whole trajectory."""
    video, plan, ar_steps, score = case
    terms = ledger_terms(video, plan, ar_steps, score=score, step=step, girsanov=False)
    dense = float(trajectory_kl(video, plan, ar_steps, score, step))
    assert number(terms.trajectory) == pytest.approx(dense, rel=RELATIVE, abs=slack(terms))


@settings(max_examples=30, deadline=None)
@given(cases(), noisy_steps)
def test_the_ladder_rises(case: tuple[ArrayVideo, Plan, int, PerturbedScore | None], step: str) -> None:
    video, plan, ar_steps, score = case
    terms = ledger_terms(video, plan, ar_steps, score=score, step=step)
    rungs = [
        number(terms.clean[0] if terms.clean is not None else None),
        number(terms.trajectory),
        float(terms.path),
    ]
    if step != "ancestral":
        rungs += [number(terms.girsanov_total), number(terms.closed_total)]
        assert terms.girsanov is not None
        assert terms.closed is not None
        path = terms.de + terms.see + terms.cross
        assert float((path - terms.girsanov).max()) <= slack(terms)
        assert float((terms.girsanov - terms.closed).max()) <= slack(terms)
    assert all(low <= high + slack(terms) for low, high in pairwise(rungs))
    assert bool((terms.nie_ar <= terms.nie_ar_closed).all())
    assert bool((terms.nie_init <= terms.nie_init_closed).all())


@settings(max_examples=30, deadline=None)
@given(cases(), noisy_steps)
def test_terms_that_are_divergences_are_not_negative(
    case: tuple[ArrayVideo, Plan, int, PerturbedScore | None], step: str
) -> None:
    video, plan, ar_steps, score = case
    terms = ledger_terms(video, plan, ar_steps, score=score, step=step, girsanov=False)
    path = terms.de + terms.see + terms.cross
    assert terms.ie is not None
    assert terms.clip is not None
    for term in (terms.nie_init, terms.nie_ar, terms.de, terms.see, path, terms.mb, terms.ie, terms.clip):
        assert float(term.min()) >= -slack(terms)
    assert bool((terms.cross**2 <= 4 * terms.de * terms.see + slack(terms) ** 2).all())


@settings(max_examples=30, deadline=None)
@given(cases(), noisy_steps)
def test_clips_lie_below_the_bound_or_the_plan_is_refused(
    case: tuple[ArrayVideo, Plan, int, PerturbedScore | None], step: str
) -> None:
    video, plan, ar_steps, score = case
    try:
        require_clip_bound(plan, ar_steps)
    except ClipBoundError:
        # Whatever is refused has a reference that the step before neither put out nor held as it is.
        lost = []
        for k in range(1, ar_steps):
            out = set(plan.window_frames(k)[: plan.stride])
            held = {r.frame for r in plan.references_at(k) if r.level <= plan.floor}
            for r in plan.references_at(k + 1):
                lost.append(r.frame not in out and (r.level > plan.floor or r.frame not in held))
        assert any(lost)
        return
    terms = ledger_terms(video, plan, ar_steps, score=score, step=step, girsanov=False)
    assert terms.clip is not None
    assert float((terms.clip[0] - terms.clip_bounds).max()) <= slack(terms)


@settings(max_examples=25, deadline=None)
@given(st.data(), st.sampled_from(["exponential", "euler", "ancestral", "ddim"]))
def test_no_sampler_of_clean_chunks_beats_ie_and_the_bottleneck(data: st.DataObject, step: str) -> None:
    """For w = Δ: KL(clean) ≥ IE + Σ I(Output_k; Past_k | references before noising)."""
    plan = data.draw(plans(overlapping=False, masks=True))
    ar_steps = data.draw(st.integers(1, 3))
    video = data.draw(gaussian_videos(frames=plan.total_frames(ar_steps)))
    terms = ledger_terms(video, plan, ar_steps, score=PerturbedScore(0.1), step=step, girsanov=False)
    assert terms.ie is not None
    assert terms.mb_clean is not None
    lower = float(terms.ie.sum() + terms.mb_clean.sum())
    assert bool((terms.mb_clean <= terms.mb + 1e-9).all())  # noise on references hides, never shows
    assert lower <= number(terms.clean) * (1 + RELATIVE) + RELATIVE


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
    assert terms.clip is not None
    room = slack(terms)
    pairs = [
        (terms.ie, dense.ie),
        (terms.nie_init, dense.nie_init),
        (terms.nie_ar, dense.nie_ar),
        (terms.mb, dense.mb),
        (terms.clip, dense.clip),
        (terms.clean, dense.clean),
        (terms.de, [[term.de for term in row] for row in dense.terms]),
        (terms.see, [[term.see for term in row] for row in dense.terms]),
        (terms.cross, [[term.cross for term in row] for row in dense.terms]),
        (terms.init_de + terms.init_see + terms.init_cross, [term.total for term in dense.init_terms]),
    ]
    for found, expected in pairs:
        assert found is not None
        np.testing.assert_allclose(np.asarray(found[0]), np.asarray(expected), rtol=1e-8, atol=room)
    assert number(terms.trajectory) == pytest.approx(dense.trajectory, rel=RELATIVE, abs=room)
