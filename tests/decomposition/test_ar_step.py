"""The AR-step ledger: the trajectory at the ends of AR steps, by composed kernels and one dense joint Gaussian."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from dense_reference import DenseLedger, dense_ledger
from dense_walk import conditional, gaussian_kl, law_kl
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_cases import (
    CASES,
    FIVE_DIGITS,
    FOUR_DIGITS,
    MORE_PLANS,
    PLANS,
    SIX_DIGITS,
    TWO_DIGITS,
    random_video,
    table_video,
)

from arvdm_theory import ArrayVideo, PerturbedScore, Plan, References, ledger, ledger_terms
from arvdm_theory.testing import gaussian_videos, plans

CHUNKS = (Plan((3.0, 3.0, 6.0, 6.0), 2, 6.0, 10, references=References.last(2)), 6)
# Clean, AR-step, trajectory, Girsanov, closed. As printed, but for the closed bounds of B and of the chunks, which
# are 25.83495 and 33.63460 and were printed as 25.84 and 33.64.
TABLE: tuple[tuple[Any, ...], ...] = (
    ("A", 0.0, 4.182668, 4.182668, 14.365137, 16.40801, 26.74),
    ("B", 0.0, 2.881588, 2.881588, 13.396108, 15.44109, 25.83),
    ("C", 0.0, 4.337749, 4.847888, 8.547170, 11.95356, 21.71),
    ("D", 0.0, 0.687925, 0.931765, 5.329993, 8.73801, 17.66),
    ("D", 0.05, 0.648000, 0.885031, 5.622860, 9.2071, 20.83),
    ("chunks", 0.0, 3.454954, 3.710564, 15.770453, 18.0200, 33.63),
)


def dense_errors(dense: DenseLedger) -> list[float]:
    """E KL(P(Output | Input) ‖ Q(Output | Input)) of every AR step, from the two joint laws."""
    errors = []
    for ar in dense.tour.steps:
        out = [key for key in ar.output if key not in ar.inputs]
        (gain, offset, cov), (own_gain, own_offset, own_cov) = (
            conditional(law, out, ar.inputs) for law in (dense.p, dense.q)
        )
        apart, mean = gain - own_gain, offset - own_offset
        spread = np.zeros_like(cov)
        if ar.inputs:
            mean = mean + apart @ dense.p.mean(ar.inputs)
            spread = apart @ dense.p.covariance(ar.inputs) @ apart.T
        zero = np.zeros(len(cov))
        quadratic = np.trace(np.linalg.solve(own_cov, spread + np.outer(mean, mean)))
        errors.append(gaussian_kl(zero, cov, zero, own_cov) + 0.5 * float(quadratic))
    return errors


def dense_total(dense: DenseLedger) -> float:
    """KL of the variables that stand at the ends of AR steps, as one number, without the chain rule."""
    keys = list(dense.tour.first)
    for ar in dense.tour.steps:
        keys += [key for key, _, _ in ar.fresh] + [key for key in ar.output if key not in ar.inputs]
    return law_kl(dense.p, dense.q, keys)


@pytest.mark.parametrize("row", TABLE, ids=[f"{row[0]} {row[1]}" for row in TABLE])
def test_the_table_of_cases(row: tuple[Any, ...]) -> None:
    name, error, kl, ar_step, trajectory, girsanov, closed = row
    plan, ar_steps = CHUNKS if name == "chunks" else CASES[name]
    covariance = table_video(plan.total_frames(ar_steps))
    score = PerturbedScore(error) if error else None
    totals = ledger(ArrayVideo(covariance, 2), plan, ar_steps, score=score).totals
    expected = {
        "kl": (kl, SIX_DIGITS), "ar_step_kl": (ar_step, SIX_DIGITS), "trajectory_kl": (trajectory, SIX_DIGITS),
        "closed": (closed, TWO_DIGITS),
        "girsanov": (girsanov, FOUR_DIGITS if error or name == "chunks" else FIVE_DIGITS),
    }  # fmt: skip
    for key, (number, room) in expected.items():
        assert totals[key] == pytest.approx(number, abs=room), key
    dense = dense_ledger(covariance, None, 2, plan, ar_steps, score_error=error)
    assert totals["ar_step_kl"] == pytest.approx(dense_total(dense), abs=1e-11)


@pytest.mark.parametrize("name", [*PLANS, *MORE_PLANS])
@pytest.mark.parametrize("step", ["exponential", "ancestral"])
def test_errors_of_ar_steps_are_those_of_the_dense_laws(name: str, step: str) -> None:
    plan = {**PLANS, **MORE_PLANS}[name]
    covariance, mean = random_video(plan.total_frames(3), 2, 8)
    terms = ledger_terms(
        ArrayVideo(covariance, 2, mean), plan, 3, score=PerturbedScore(0.1), step=step, girsanov=False
    )
    dense = dense_ledger(covariance, mean, 2, plan, 3, step, score_error=0.1)  # type: ignore[arg-type]
    assert terms.ar_step_errors is not None
    assert terms.ar_step_kl is not None
    found = terms.ar_step_errors.value.numpy()
    # Joint covariances of condition below 1e4, of fewer than 50 entries.
    np.testing.assert_allclose(found, dense_errors(dense), rtol=1e-9, atol=1e-10)
    assert float(terms.ar_step_kl) == pytest.approx(dense_total(dense), rel=1e-9, abs=1e-10)


@settings(max_examples=30, deadline=None)
@given(st.data(), st.sampled_from(["exponential", "euler", "ancestral"]), st.sampled_from([0.0, 0.1, -0.3]))
def test_it_lies_between_clean_frames_and_trajectory(data: st.DataObject, step: str, error: float) -> None:
    plan, ar_steps = data.draw(plans(masks=True)), data.draw(st.integers(1, 3))
    video = data.draw(gaussian_videos(frames=plan.total_frames(ar_steps)))
    score = PerturbedScore(error) if error else None
    terms = ledger_terms(video, plan, ar_steps, score=score, step=step, girsanov=False, attribution=True)
    assert terms.kl is not None
    assert terms.trajectory is not None
    assert terms.ar_step_errors is not None
    assert terms.attribution is not None
    ar_step, errors = terms.ar_step_kl, terms.ar_step_errors.value
    assert ar_step is not None
    # As in the properties of the ledger: κ ≤ 1e4, and sums of fewer than 100 entries.
    room = 1e-9 * (1 + float(terms.path or 0.0))
    assert float(terms.kl) <= float(ar_step) + room
    assert float(ar_step) <= float(terms.trajectory) + room
    assert bool((errors <= terms.ar_paths.value + room).all())
    if not plan.overlapping and all(pick.level <= plan.floor for pick in plan.references.picks):
        assert float(terms.kl) == pytest.approx(float(ar_step), abs=room)
    parts = terms.attribution.value
    torch.testing.assert_close(parts.sum(-1), errors, rtol=0, atol=room)
    assert bool((parts[:, 0] >= -room).all())  # of true kernels from N(0, I): a divergence


def test_the_parts_of_an_ar_step_are_switched_on_in_turn() -> None:
    plan, ar_steps = CASES["D"]
    video = ArrayVideo(table_video(plan.total_frames(ar_steps)), 2)
    result = ledger(video, plan, ar_steps, score=PerturbedScore(0.05), attribution=True, girsanov=False)
    started = ledger(video, plan, ar_steps, step="ancestral", girsanov=False).column("AR_STEP")
    discretised = ledger(video, plan, ar_steps, girsanov=False).column("AR_STEP")
    given_score = result.column("AR_STEP")
    assert result.column("AR_STEP_NIE") == pytest.approx(started, rel=1e-12)
    assert result.column("AR_STEP_DE") == pytest.approx(np.subtract(discretised, started), abs=1e-12)
    assert result.column("AR_STEP_SEE") == pytest.approx(np.subtract(given_score, discretised), abs=1e-12)
