"""The bound on clip KL that forgets: its printed numbers, that it holds, where it is flat and where it is not."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_cases import FOUR_DIGITS

from arvdm_theory import (
    GaussianVideo,
    PerturbedScore,
    References,
    ar1,
    closed_loop,
    fifo,
    ledger,
    ledger_terms,
    outpainting,
    reference_video,
)
from arvdm_theory.bounds.accumulation import why_no_clip_bound
from arvdm_theory.decomposition.terms import LedgerTerms
from arvdm_theory.testing import gaussian_videos, plans

# Of theory.md, section 13: exact clip KL, the least bound B_j, B_∞ and IE + Σ E_k as printed (None: not printed).
TABLE: tuple[tuple[Callable[[], GaussianVideo], float, float, float, float | None, float], ...] = (
    (lambda: ar1(0.8), 0.0, 0.1395, 0.1977, 0.924, 6.68),
    (lambda: ar1(0.8), 0.02, 0.1300, 0.2171, None, 6.48),
    (reference_video, 0.05, 0.2007, 0.3190, None, 12.28),
    (lambda: ar1(0.99), 0.0, 1.8582, 8.28, 27.37, 79.6),
)


def clips(terms: LedgerTerms) -> torch.Tensor:
    assert terms.clips is not None
    found: torch.Tensor = terms.clips.value
    return found


def piled_up(terms: LedgerTerms) -> torch.Tensor:
    """IE + Σ_{k ≤ K} E_k."""
    assert terms.ie is not None
    assert terms.ar_step_errors is not None
    found: torch.Tensor = (terms.ie + terms.ar_step_errors.cumsum()).value
    return found


@pytest.mark.parametrize(("make", "error", "clip", "most", "unshifted", "sums"), TABLE)
def test_the_table(
    make: Callable[[], GaussianVideo], error: float, clip: float, most: float, unshifted: float | None, sums: float
) -> None:
    plan, score = outpainting(2, References.last(1), 20, 20, 6.0), PerturbedScore(error) if error else None
    loop = closed_loop(make(), plan, 40, score=score, last_only=True)
    terms = ledger_terms(make(), plan, 40, score=score, girsanov=False, memory=False)
    exact = float(clips(terms)[-1])
    assert exact == pytest.approx(clip, abs=FOUR_DIGITS)
    assert exact <= loop.bounds[-1] * (1 + 1e-12) <= most
    if unshifted is not None:
        assert loop.unshifted[-1] == pytest.approx(unshifted, abs=5e-3 if unshifted > 1 else 5e-4)
    assert float(piled_up(terms)[-1]) == pytest.approx(sums, abs=5e-2 if sums > 50 else 5e-3)


def test_composed_kernels_make_the_hard_case_sharp() -> None:
    """AR(1) 0.99 over 40 steps: 1.943 for a clip KL of 1.858, where the best B_j is 8.28."""
    loop = closed_loop(ar1(0.99), outpainting(2, References.last(1), 20, 20, 6.0), 40, last_only=True)
    assert loop.bounds[-1] == pytest.approx(1.943, abs=5e-4)
    assert loop.lags[-1] == 40


@settings(max_examples=40, deadline=None)
@given(st.data(), st.sampled_from(["exponential", "euler", "ancestral"]), st.sampled_from([0.0, 0.1, -0.3]))
def test_it_bounds_every_clip_and_is_at_most_the_sum_of_errors(
    data: st.DataObject, step: str, error: float
) -> None:
    """On plans of every shape: noised references, w > Δ, references that are still being filled.

    A frame that enters clean is handed on without noise, which the bound refuses.
    """
    plan, ar_steps = data.draw(plans(entering_clean=False)), data.draw(st.integers(1, 4))
    video = data.draw(gaussian_videos(frames=plan.total_frames(ar_steps + 1)))
    score = PerturbedScore(error) if error else None
    loop = closed_loop(video, plan, ar_steps, score=score, step=step)
    terms = ledger_terms(video, plan, ar_steps, score=score, step=step, girsanov=False, memory=False)
    bounds, sums = np.array(loop.bounds), piled_up(terms).numpy()
    # Videos of condition below 1e4, as in the properties of the ledger.
    room = 1e-8 * (1 + np.abs(sums))
    assert np.all(clips(terms).numpy() <= bounds + room)
    assert np.all(bounds <= np.array(loop.unshifted) + room)
    if why_no_clip_bound(plan, ar_steps) is None:
        # With noised references what is handed on is more than the next AR step sees, and the loop's bound may
        # exceed the sum of errors: the ledger gives the lesser of both.
        if all(pick.level <= plan.floor for pick in plan.references.picks):
            assert np.all(bounds <= sums + room)
        result = ledger(
            video, plan, ar_steps, score=score, step=step, girsanov=False, memory=False, accumulation=True
        )
        told = np.array(result.column("ACCUMULATION_BOUND"))
        np.testing.assert_allclose(told, np.minimum(bounds, sums), rtol=1e-12)
        assert np.all(clips(terms).numpy() <= told + room)
    last = closed_loop(video, plan, ar_steps, score=score, step=step, last_only=True)
    assert last.bounds[0] == pytest.approx(loop.bounds[-1], rel=1e-12)


@pytest.mark.parametrize("name", ["window", "noised", "FIFO"])
def test_it_is_flat_where_the_loop_contracts(name: str) -> None:
    plan = {
        "window": outpainting(2, References.last(1), 10, 10),
        "noised": outpainting(2, References.last(2, 0.3), 10, 10),
        "FIFO": fifo(3, References.last(1), 6, 10),
    }[name]
    loop = closed_loop(ar1(0.8), plan, 24)
    assert loop.contraction < 1
    assert 0 < loop.half_life < 4
    # From step 12 to 24 the bound moves by less than a hundredth, while the sum of errors all but doubles.
    assert loop.bounds[-1] == pytest.approx(loop.bounds[11], rel=1e-2)
    sums = piled_up(ledger_terms(ar1(0.8), plan, 24, girsanov=False, memory=False))
    assert float(sums[-1]) > 1.7 * float(sums[11])


def test_it_does_not_saturate_where_the_loop_expands() -> None:
    """AR(1) 0.999 with s* + 0.2 W: each step enlarges what it is handed; KL and bound go on growing."""
    plan, score = outpainting(2, References.last(1), 20, 20), PerturbedScore(-0.2)
    loop = closed_loop(ar1(0.999), plan, 20, score=score)
    assert loop.contraction > 1
    assert loop.half_life == math.inf
    exact = clips(ledger_terms(ar1(0.999), plan, 20, score=score, girsanov=False, memory=False)).numpy()
    bounds = np.array(loop.bounds)
    assert np.all(np.diff(exact) > 0)
    assert np.all(np.diff(bounds[5:]) > 0)
    assert np.all(exact <= bounds)
    assert bounds[-1] > 1.15 * bounds[0]


def test_a_first_frame_is_never_forgotten_and_costs_the_bound_little() -> None:
    """A carried frame gives A_S an eigenvalue of 1: the loop does not contract; the bound follows the KL."""
    plan = outpainting(2, References.first(1), 20, 20)
    loop = closed_loop(reference_video(), plan, 12)
    assert loop.contraction == pytest.approx(1.0, abs=1e-12)
    exact = clips(ledger_terms(reference_video(), plan, 12, girsanov=False, memory=False)).numpy()
    assert np.all(exact <= loop.bounds)
    assert np.all(np.array(loop.bounds) < 1.5 * exact)


def test_references_that_are_still_being_filled_have_no_radius() -> None:
    loop = closed_loop(ar1(0.8), outpainting(2, References.all(), 6, 6), 4)
    assert math.isnan(loop.contraction)
    assert math.isnan(loop.half_life)
    terms = ledger_terms(ar1(0.8), outpainting(2, References.all(), 6, 6), 4, girsanov=False, memory=False)
    assert np.all(clips(terms).numpy() <= np.array(loop.bounds))


def test_noised_references_may_make_the_sum_of_errors_the_lesser_bound() -> None:
    """One AR step that sees the last frame noised: S_0 holds it clean, and B_∞ charges for what noise hides.

    By joint convexity over that noise, for no more than the memory bottleneck.
    """
    plan = outpainting(1, References.last(1, 1.0), 10, 10)
    terms = ledger_terms(ar1(0.95), plan, 1, girsanov=False)
    loop, [total] = closed_loop(ar1(0.95), plan, 1), piled_up(terms).tolist()
    hidden = terms.total("mb")
    assert hidden is not None
    assert total < loop.unshifted[0] < total + float(hidden)
    assert why_no_clip_bound(plan, 1) is None
    [told] = ledger(ar1(0.95), plan, 1, accumulation=True).column("ACCUMULATION_BOUND")
    assert told == min(loop.bounds[0], total)
