"""Bring your own network: a plain callable of any parametrisation in the ledger, I-MMSE and generation."""

from typing import get_args

import numpy as np
import pytest
import torch
from exact_networks import own_network
from oracle_score import OracleScore
from reference_cases import random_video

from arvdm_theory import (
    ArrayVideo,
    Plan,
    References,
    generate,
    ledger,
    memory_bottleneck_from_scores,
    predicted_clip_kl,
)
from arvdm_theory.decomposition.immse import NETWORK_STOP
from arvdm_theory.diffusion.prediction import Prediction
from arvdm_theory.information.estimators import EstimationWarning

PLANS = {
    "w = Δ": Plan((3.0, 3.0), 2, 3.0, 3, 3, references=References.last(2, 0.3), floor=0.05),
    "w > Δ": Plan((1.0, 2.0, 3.0), 1, 3.0, 3, 3, references=References.last(1)),
}
PREDICTIONS = get_args(Prediction)
# An output becomes a score by sums of numbers of size 10 and a division by σ² ≥ 0.05, which loses 200 · 2^-53; the
# rest of the way is the same for all.
ROUNDING = 1e-10


@pytest.fixture(params=PLANS)
def plan(request: pytest.FixtureRequest) -> Plan:
    return PLANS[request.param]


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_every_parametrisation_gives_one_ledger(plan: Plan, prediction: Prediction) -> None:
    covariance, mean = random_video(plan.total_frames(3), 2, 0)
    video = ArrayVideo(covariance, 2, mean)
    exact, told = (
        ledger(video, plan, 3),
        ledger(video, plan, 3, score=own_network(covariance, mean, 2, prediction)),
    )
    assert told.stderr == {}
    assert told.notes == exact.notes
    np.testing.assert_allclose(told.table.value, exact.table.value, rtol=ROUNDING, atol=ROUNDING)
    # Averages over the same true windows.
    forced = ledger(
        video, plan, 3, score=own_network(covariance, mean, 2, prediction), teacher_forced=True, samples=50
    )
    np.testing.assert_allclose(forced.table.value, exact.table.value, rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_every_parametrisation_gives_one_memory_bottleneck(plan: Plan, prediction: Prediction) -> None:
    covariance, mean = random_video(plan.total_frames(3), 2, 0)
    videos = ArrayVideo(covariance, 2, mean).sample(200, plan.total_frames(3), torch.Generator().manual_seed(0))[
        :, 0
    ]
    oracle, own = OracleScore(covariance, mean, 2), own_network(covariance, mean, 2, prediction)
    # A network's clocks halt at a level above 0 unless told otherwise; a plain callable's go all the way.
    expected = memory_bottleneck_from_scores(videos, plan, 3, oracle, oracle)
    found = memory_bottleneck_from_scores(videos, plan, 3, own, own, stop=0.0)
    halted = memory_bottleneck_from_scores(videos, plan, 3, oracle, oracle, stop=NETWORK_STOP)
    with pytest.warns(EstimationWarning, match="clocks halt at level 0.1"):
        default = memory_bottleneck_from_scores(videos, plan, 3, own, own)
    assert default.value == pytest.approx(halted.value, rel=1e-8)
    # The quadrature comes closer to level 0 than the grid's own levels.
    assert found.value == pytest.approx(expected.value, rel=1e-8)
    assert found.stderr == pytest.approx(expected.stderr, rel=1e-8)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_every_parametrisation_generates_the_same_videos(plan: Plan, prediction: Prediction) -> None:
    covariance, mean = random_video(plan.total_frames(3), 2, 0)
    own = own_network(covariance, mean, 2, prediction)
    expected = generate(OracleScore(covariance, mean, 2), plan, 3, 50, 2, seed=3)
    np.testing.assert_allclose(generate(own, plan, 3, 50, 2, seed=3), expected, rtol=0, atol=ROUNDING * 10)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_every_parametrisation_is_predicted_exactly(plan: Plan, prediction: Prediction) -> None:
    covariance, mean = random_video(plan.total_frames(3), 2, 0)
    video = ArrayVideo(covariance, 2, mean)
    own = own_network(covariance, mean, 2, prediction)
    found = predicted_clip_kl(video, plan, 3, own, bound=False, samples=200).column("CLIP_KL", "linear")
    np.testing.assert_allclose(found, ledger(video, plan, 3).column("CLIP_KL"), rtol=1e-9, atol=1e-9)
