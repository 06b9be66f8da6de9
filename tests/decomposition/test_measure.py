"""The measured clip KL: unbiased against a known law, with an honest standard error, and against exact ledgers."""

import numpy as np
import pytest
import torch
from oracle_score import OracleScore
from reference_cases import PLANS, random_video
from scipy.stats import binom

from arvdm_theory import (
    ArrayVideo,
    Codebook,
    FiniteStateVideo,
    PerturbedScore,
    Plan,
    generate,
    ledger,
    measured_clip_kl,
    sticky_chain,
)
from arvdm_theory.information.estimators import SampleError, gaussian_divergence
from arvdm_theory.information.gaussian import kl_divergence
from arvdm_theory.rollout.measure import divergence_from_known

P_MEAN, Q_MEAN = np.array([0.3, -0.2, 0.5]), np.array([-0.4, 0.3, 0.1])
P_COV = random_video(3, 1, 0)[0]
Q_COV = random_video(3, 1, 1)[0]


def exact() -> float:
    parts = (torch.from_numpy(part) for part in (P_MEAN, P_COV, Q_MEAN, Q_COV))
    return float(kl_divergence(*parts))


@pytest.mark.parametrize("same", [False, True])
def test_it_has_no_bias_however_few_samples(same: bool) -> None:
    """20 samples in 3 dimensions, where the plain plug-in is too large by about D(D + 3)/4m = 0.2."""
    rng = np.random.default_rng(0)
    mean, covariance, truth = (P_MEAN, P_COV, 0.0) if same else (Q_MEAN, Q_COV, exact())
    draws = rng.multivariate_normal(mean, covariance, size=(1000, 20))
    values = np.array([divergence_from_known(P_MEAN, P_COV, draw).value for draw in draws])
    assert abs(values.mean() - truth) < 4 * values.std() / np.sqrt(len(values))


def test_its_standard_error_is_the_spread_of_its_values() -> None:
    rng = np.random.default_rng(1)
    draws = rng.multivariate_normal(Q_MEAN, Q_COV, size=(800, 300))
    found = [divergence_from_known(P_MEAN, P_COV, draw) for draw in draws]
    spread = np.std([each.value for each in found])
    claimed = np.sqrt(np.mean([each.stderr**2 for each in found]))
    # The spread of 800 values is known to 1/√1600 = 2.5 %, the next order in D²/m adds about as much.
    assert claimed == pytest.approx(spread, rel=0.12)


def test_near_no_divergence_it_is_as_conservative_as_stated() -> None:
    """Variance D(D + 3)/4m², and a claim of twice that."""
    rng = np.random.default_rng(2)
    m, d = 300, 3
    draws = rng.multivariate_normal(P_MEAN, P_COV, size=(800, m))
    found = [divergence_from_known(P_MEAN, P_COV, draw) for draw in draws]
    variance = np.var([each.value for each in found])
    claimed = np.mean([each.stderr**2 for each in found])
    # The variance of 800 values like χ² with 9 degrees of freedom is known to √((2 + 12/9)/800) = 6.5 %.
    assert variance == pytest.approx(d * (d + 3) / (4 * m**2), rel=0.25)
    assert claimed == pytest.approx(2 * d * (d + 3) / (4 * m**2), rel=0.25)


@pytest.mark.parametrize(("dim", "shift"), [(1, 0.1), (1, 0.2), (2, 0.2)])
def test_near_no_divergence_its_intervals_cover_on_both_sides(dim: int, shift: float) -> None:
    """Values are skewed there: symmetric intervals held 87 % in one dimension, and missed on one side."""
    runs, m = 400, 300
    mean = np.eye(dim)[0] * shift
    draws = np.random.default_rng(5).normal(size=(runs, m, dim)) + mean
    found = [divergence_from_known(np.zeros(dim), np.eye(dim), draw) for draw in draws]
    covered = sum(each.ci_low <= shift**2 / 2 <= each.ci_high for each in found)
    assert covered >= binom.ppf(1e-3, runs, 0.95)


def test_knowing_p_leaves_out_its_noise() -> None:
    rng = np.random.default_rng(3)
    p = rng.multivariate_normal(P_MEAN, P_COV, size=2000)
    q = rng.multivariate_normal(Q_MEAN, Q_COV, size=2000)
    known, both = divergence_from_known(P_MEAN, P_COV, q), gaussian_divergence(p, q)
    assert known.stderr < both.stderr
    assert abs(known.value - both.value) < 4 * both.stderr


def test_refuses_samples_that_do_not_fit() -> None:
    rng = np.random.default_rng(4)
    with pytest.raises(SampleError, match="P has 3 entries and its samples of Q 2"):
        divergence_from_known(P_MEAN, P_COV, rng.normal(size=(10, 2)))
    with pytest.raises(SampleError, match="3 dimensions needs at least 6 samples, got 5"):
        divergence_from_known(P_MEAN, P_COV, rng.normal(size=(5, 3)))
    with pytest.raises(SampleError, match="linear functions of the others"):
        divergence_from_known(P_MEAN, P_COV, np.ones((10, 3)) * rng.normal(size=(10, 1)))


# -- clips ----------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::arvdm_theory.information.estimators.EstimationWarning")
@pytest.mark.parametrize("name", ["chunks, mixed references, floor", "rolling, noised references, floor"])
def test_measured_clips_meet_the_exact_ledger(name: str) -> None:
    plan = PLANS[name]
    covariance, mean = random_video(plan.total_frames(3), 2, 0)
    video, score = ArrayVideo(covariance, 2, mean), PerturbedScore(0.1, bias=0.1)
    truth = ledger(video, plan, 3, score=score).column("CLIP_KL")
    made = generate(score, plan, 3, 4000, video=video)
    table = measured_clip_kl(video, made, plan, 3).table
    assert list(table.form) == ["measured_gaussian"] * 3
    assert list(table.ar_step) == [1, 2, 3]
    assert (np.abs(table.value - truth) < 4 * table.stderr).all()
    # Against true videos as a data set would give them, and by nearest neighbours, whose bias in 4 dimensions is
    # +0.05 here, as they warn themselves.
    true = video.sample(4000, plan.clean_frames(3), torch.Generator().manual_seed(1))[:, 0]
    moments = measured_clip_kl(true, made, plan, 3).table
    assert list(moments.form) == ["measured_moment_gaussian"] * 3
    assert (np.abs(moments.value - truth) < 4 * moments.stderr).all()
    near = measured_clip_kl(video, made, plan, 3, method="knn").table
    assert list(near.form) == ["measured_knn"] * 3
    assert (np.abs(near.value - truth) < 4 * near.stderr + 0.05).all()
    # The error comes from subsamples: of their few degrees of freedom the interval is Student's.
    assert ((near.ci_high - near.value) / near.stderr > 2.0).all()


def test_a_finite_state_videos_clips_are_held_against_its_own_states_at_the_floor() -> None:
    """Generated videos that are true ones: nothing to measure."""
    video = FiniteStateVideo(sticky_chain(3, 0.8), Codebook([[-1.0], [0.5], [1.0]]))
    plan = Plan((3.0, 3.0), 2, 3.0, 3, 3, floor=0.1)
    generator = torch.Generator().manual_seed(0)
    clean = video.draw(2000, plan.clean_frames(2), generator).frames
    a, s = np.exp(-0.05), np.sqrt(1 - np.exp(-0.1))
    made = a * clean + s * torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    for method in ("gaussian", "knn"):
        table = measured_clip_kl(video, made, plan, 2, method=method, seed=5).table  # type: ignore[arg-type]
        assert (np.abs(table.value) < 4 * table.stderr).all(), method
    neural = measured_clip_kl(video, made[:260], plan, 1, method="neural", samples=260).table
    # A held-out bound of two equal laws is 0 or below, but for noise.
    assert neural.value[0] < 4 * neural.stderr[0]
    assert list(neural.form) == ["measured_neural"]


def test_refuses_what_it_cannot_measure() -> None:
    plan = PLANS["rolling"]
    covariance, mean = random_video(plan.total_frames(3), 2, 0)
    video = ArrayVideo(covariance, 2, mean)
    made = generate(OracleScore(covariance, mean, 2), plan, 2, 20, 2)
    with pytest.raises(SampleError, match=r"\(m, 3 frames or more, d\) after 3 AR steps, got \(20, 2, 2\)"):
        measured_clip_kl(video, made, plan, 3)
    with pytest.raises(SampleError, match="the method is one of gaussian, knn, neural, got 'mmd'"):
        measured_clip_kl(video, made, plan, 2, method="mmd")  # type: ignore[arg-type]
    with pytest.raises(SampleError, match="true videos have the shape"):
        measured_clip_kl(made[:, :1], made, plan, 2)
