"""The trajectory KL by brute force: equal to the ledger's sum, and refused where it is infinite or unknown."""

import numpy as np
import pytest
import torch
from dense_reference import Step, dense_ledger
from oracle_score import OracleScore
from reference_cases import CASES, MORE_PLANS, PLANS, PRINTED, SIX_DIGITS, ar1, random_video, table_video

from arvdm_theory import ArrayVideo, ExactScore, PerturbedScore, PixelVideo, Plan, References, ledger
from arvdm_theory.decomposition.trajectory import trajectory_kl
from arvdm_theory.laws.pixels import ExponentialMemory, PowerLaw

EVERY_PLAN = {**PLANS, **MORE_PLANS}


@pytest.mark.parametrize("name", EVERY_PLAN)
@pytest.mark.parametrize("step", ["exponential", "euler", "ancestral"])
def test_the_ledger_adds_up_to_the_trajectory_kl(name: str, step: Step) -> None:
    plan = EVERY_PLAN[name]
    covariance, mean = random_video(plan.total_frames(3), 2, 0)
    video = ArrayVideo(covariance, 2, mean)
    score = PerturbedScore(0.1, bias=-0.05)
    found = float(trajectory_kl(video, plan, 3, score, step))
    result = ledger(video, plan, 3, score=score, step=step, girsanov=False)
    assert found == pytest.approx(result.totals["trajectory_kl"], rel=1e-9)
    assert (result.totals["kl"] or 0.0) <= found


@pytest.mark.parametrize("name", ["chunks, mixed references, floor", "frames that wait", "rolling, two parts"])
def test_it_is_that_of_the_dense_reference(name: str) -> None:
    plan = EVERY_PLAN[name]
    covariance, mean = random_video(plan.total_frames(3), 1, 1)
    dense = dense_ledger(covariance, mean, 1, plan, 3, score_error=-0.1)
    found = float(trajectory_kl(ArrayVideo(covariance, 1, mean), plan, 3, PerturbedScore(-0.1)))
    assert found == pytest.approx(dense.trajectory, rel=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_reproduces_the_reference_cases(name: str) -> None:
    plan, steps = CASES[name]
    found = float(trajectory_kl(ArrayVideo(table_video(plan.total_frames(steps)), 2), plan, steps))
    assert found == pytest.approx(PRINTED[name][1], rel=0, abs=SIX_DIGITS)


def test_long_plans_close_too() -> None:
    """600 variables: rounding grows with their number, not with its powers."""
    plan = Plan((1.5, 3.0, 4.5, 6.0), 1, 6.0, 4, 8, references=References.last(2, 0.1) + References.first(1))
    video = ArrayVideo(ar1(plan.total_frames(30), 0.97), 1)
    found = float(trajectory_kl(video, plan, 30, PerturbedScore(0.05)))
    result = ledger(video, plan, 30, score=PerturbedScore(0.05), girsanov=False)
    assert found == pytest.approx(result.totals["trajectory_kl"], rel=1e-10)


def test_modes_count_as_often_as_they_occur() -> None:
    plan = PLANS["rolling"]
    pixels = PixelVideo(3, 3, PowerLaw(), ExponentialMemory(tau=4.0), mean=(1.0,))
    assert pixels.multiplicity.max() > 1
    found = float(trajectory_kl(pixels, plan, 2, PerturbedScore(0.1)))
    assert found == pytest.approx(
        ledger(pixels, plan, 2, score=PerturbedScore(0.1)).totals["trajectory_kl"], rel=1e-9
    )
    whole = pixels.dense(plan.total_frames(2))
    assert found == pytest.approx(float(trajectory_kl(whole, plan, 2, PerturbedScore(0.1))), rel=1e-9)


def test_scores_of_every_affine_kind_are_taken() -> None:
    plan = PLANS["chunks, causal mask"]
    covariance, mean = random_video(plan.total_frames(2), 1, 2)
    video = ArrayVideo(covariance, 1, mean)
    blind, sighted = (
        float(trajectory_kl(video, plan, 2)),
        float(trajectory_kl(video, plan, 2, ExactScore(masked=False))),
    )
    assert blind > sighted
    told = float(trajectory_kl(video, plan, 2, OracleScore(covariance, mean, 1)))
    assert told == pytest.approx(sighted, rel=1e-9)


def test_refuses_what_has_no_finite_closed_form() -> None:
    plan = PLANS["rolling"]
    covariance, mean = random_video(plan.total_frames(2), 1, 3)
    video = ArrayVideo(covariance, 1, mean)
    for step in ("ddim", "ddpm"):
        with pytest.raises(ValueError, match=f"the {step} step moves a frame without noise: .* is infinite"):
            trajectory_kl(video, plan, 2, None, step)
    bent = OracleScore(covariance, mean, 1, lambda w, r: 0.1 * torch.tanh(w))
    with pytest.raises(ValueError, match="a score affine in"):
        trajectory_kl(video, plan, 2, bent)
    with pytest.raises(ValueError, match="5 frames are needed"):
        trajectory_kl(ArrayVideo(np.eye(4), 1), plan, 3)
