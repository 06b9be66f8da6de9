"""E_k of networks by one AR step generated from true inputs: closed forms, quadrature, and where they part."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from exact_networks import linear_denoiser
from reference_cases import MORE_PLANS, PLANS, Array, random_video
from torch import Tensor

from arvdm_theory import ArrayVideo, Codebook, FiniteStateVideo, Plan, References, ledger, sticky_chain
from arvdm_theory.decomposition.generated import generated_error
from arvdm_theory.diffusion.sampler import sampler_steps
from arvdm_theory.diffusion.steps import STEPS
from arvdm_theory.information.estimators.known import conditional_divergence_from_known
from arvdm_theory.information.estimators.samples import SampleError
from arvdm_theory.laws.pixels import ExponentialMemory, PixelVideo, PowerLaw
from arvdm_theory.rollout.measure import divergence_from_known

SHAPES = (
    "chunks, mixed references, floor",
    "chunks, noised references",
    "rolling, noised references, floor",
    "rolling, warmup",
    "frames that wait",
    "every second frame",
)

# -- the estimator of moments ----------------------------------------------------------------------------


def affine_law(rng: np.random.Generator, p: int, q: int) -> tuple[Array, Array, Array, Array, Array, float]:
    """Moments of P, an affine Gaussian Q(Y | X) with slope, offset and covariance, and their divergence."""
    root = rng.normal(size=(p + q, p + q))
    covariance, mean = root @ root.T + 0.5 * np.eye(p + q), rng.normal(size=p + q)
    own = np.linalg.solve(covariance[:p, :p], covariance[:p, p:]).T
    left = covariance[p:, p:] - own @ covariance[:p, p:]
    slope, offset = own + 0.2 * rng.normal(size=own.shape), rng.normal(size=q)
    noise = 1.5 * left + 0.1 * np.eye(q)
    apart, middle = own - slope, mean[p:] - slope @ mean[:p] - offset
    spread = left + apart @ covariance[:p, :p] @ apart.T + np.outer(middle, middle)
    dets = np.linalg.slogdet(noise)[1] - np.linalg.slogdet(left)[1]
    return mean, covariance, slope, offset, noise, float(np.trace(np.linalg.solve(noise, spread)) - q + dets) / 2


def test_it_is_unbiased_with_honest_errors_for_affine_gaussian_kernels() -> None:
    """2000 repeats of 40 samples: the mean within 4 of its standard errors of the closed form."""
    rng = np.random.default_rng(0)
    mean, covariance, slope, offset, noise, truth = affine_law(rng, 3, 2)
    root, left = np.linalg.cholesky(covariance[:3, :3]), np.linalg.cholesky(noise)
    found = []
    for _ in range(2000):
        x = mean[:3] + rng.normal(size=(40, 3)) @ root.T
        y = x @ slope.T + offset + rng.normal(size=(40, 2)) @ left.T
        found.append(conditional_divergence_from_known(mean, covariance, x, y))
    values = np.array([number.value for number in found])
    assert abs(values.mean() - truth) < 4 * values.std() / math.sqrt(len(values))
    # Squares of z average to 1 but for the errors' own noise at 35 degrees of freedom.
    assert 0.8 < np.mean([((number.value - truth) / number.stderr) ** 2 for number in found]) < 1.5


def test_near_the_truth_the_error_is_that_of_a_quadratic() -> None:
    rng = np.random.default_rng(1)
    values, errors = [], []
    for _ in range(1000):
        x, y = rng.normal(size=(200, 2)), rng.normal(size=(200, 3))
        number = conditional_divergence_from_known(np.zeros(5), np.eye(5), x, y)
        values.append(number.value)
        errors.append(number.stderr)
    assert abs(np.mean(values)) < 4 * np.std(values) / math.sqrt(1000)
    # The influence function has noise of its own there, which only adds.
    assert np.std(values) < np.mean(errors) < 1.6 * np.std(values)


def test_without_an_input_it_is_the_divergence_from_known_moments() -> None:
    rng = np.random.default_rng(2)
    covariance, y = np.array([[1.0, 0.3], [0.3, 0.5]]), rng.normal(size=(300, 2)) @ [[1.0, 0.2], [0.0, 1.3]]
    own = conditional_divergence_from_known(np.ones(2), covariance, np.empty((300, 0)), y)
    other = divergence_from_known(np.ones(2), covariance, y)
    assert own.value == pytest.approx(other.value, rel=1e-12)
    assert own.stderr == pytest.approx(other.stderr, rel=1e-12)


def test_it_refuses_what_has_no_moments() -> None:
    x, y = np.zeros((6, 2)), np.zeros((6, 2))
    with pytest.raises(SampleError, match="2 outputs given 2 inputs need at least 7 samples, got 6"):
        conditional_divergence_from_known(np.zeros(4), np.eye(4), x, y)
    with pytest.raises(SampleError, match="not positive definite"):
        conditional_divergence_from_known(np.zeros(4), np.zeros((4, 4)), np.ones((9, 2)), np.ones((9, 2)))
    with pytest.raises(SampleError, match="P has 3 entries"):
        conditional_divergence_from_known(np.zeros(3), np.eye(3), x, y)


# -- affine networks: the closed form --------------------------------------------------------------------


def test_of_an_affine_network_it_is_the_closed_form() -> None:
    """Every AR step and IE of six plans, references noised and clean, within 4 standard errors; means within 3."""
    scores = []
    for name in SHAPES:
        plan = {**PLANS, **MORE_PLANS}[name]
        covariance, mean = random_video(plan.total_frames(2), 2, 0)
        video = ArrayVideo(covariance, 2, mean)
        network = linear_denoiser(video, plan, 2, error=0.05)
        exact = ledger(video, plan, 2, score=network, girsanov=False)
        expected = [float(exact.terms.ie), *exact.column("AR_STEP")]
        for k, truth in enumerate(expected):
            found = generated_error(video, plan, k, network, samples=3000, seed=10 + k)
            scores.append((found.value - truth) / found.stderr)
    assert np.abs(scores).max() < 4
    # Of one network IE and the steps are independent.
    assert abs(np.sum(scores)) < 3 * math.sqrt(len(scores))


def test_an_estimator_of_divergence_covers_it_too() -> None:
    plan = Plan((2.0,), 1, 2.0, 3, 3, references=References.last(1))
    covariance, mean = random_video(plan.total_frames(1), 1, 3)
    video = ArrayVideo(covariance, 1, mean)
    network = linear_denoiser(video, plan, 1, error=0.1)
    truth = ledger(video, plan, 1, score=network).column("AR_STEP")[0]
    for method in ("calibrated", "gaussian"):
        found = generated_error(video, plan, 1, network, method=method, samples=1500, seed=1)
        assert found.method == method
        assert found.ci_low < truth < found.ci_high


# -- a network that bends: where the moments part from the truth, by quadrature ---------------------------

ONCE = Plan((3.0,), 1, 3.0, 1, 1, floor=0.2)


def torn(window: Tensor, levels: Tensor, references: object) -> Tensor:
    """It takes what it sees for one of two frames, -1 and 1: the output has two humps."""
    return (torch.exp(-levels / 2) * torch.tanh(6 * window) - window) / -torch.expm1(-levels)


def quadrature() -> tuple[float, float]:
    """E_1 of one reverse step, and what the Gaussian of the output's moments would make of it."""
    x = np.linspace(-8, 8, 2001)
    grid = torch.tensor(ONCE.ar_grid, dtype=torch.float64)
    steps = sampler_steps(grid, STEPS["renoise"])
    assert steps.variance is not None
    on_window, on_score, noise = (
        float(part[0, 0]) for part in (steps.mean_window, steps.mean_score, steps.variance)
    )
    said = torn(torch.from_numpy(x), grid[0], None).numpy()
    middle, cell = on_window * x + on_score * said, x[1] - x[0]
    start = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi) * cell
    y = np.linspace(-8, 8, 2001)
    kernel = np.exp(-((y[:, None] - middle) ** 2) / (2 * noise)) / math.sqrt(2 * math.pi * noise)
    q, p = kernel @ start, np.exp(-(y**2) / 2) / math.sqrt(2 * math.pi)
    width = y[1] - y[0]
    assert float(q.sum() * width) == pytest.approx(1, abs=1e-9)  # both grids reach as far as the laws do
    kl = float((p * np.log(p / q)).sum() * width)
    variance = noise + float(start @ middle**2)
    return kl, 0.5 * (1 / variance - 1 + math.log(variance))


def test_where_a_network_bends_the_moments_part_from_the_truth() -> None:
    """Both estimates hit what they estimate, and only one of these is E_k."""
    kl, matched = quadrature()
    assert kl == pytest.approx(0.2256, abs=1e-4)
    assert matched == pytest.approx(0.0034, abs=1e-4)
    covariance = np.eye(ONCE.total_frames(1))
    video = ArrayVideo(covariance, 1)
    moments = generated_error(video, ONCE, 1, torn, step="renoise", samples=4000)
    assert abs(moments.value - matched) < 4 * moments.stderr
    assert abs(moments.value - kl) > 5 * moments.stderr
    found = generated_error(video, ONCE, 1, torn, step="renoise", method="calibrated", samples=4000)
    assert found.ci_low < kl < found.ci_high
    assert not found.ci_low < matched < found.ci_high


# -- the ledger of a network ------------------------------------------------------------------------------


def test_the_ledger_of_a_network_has_its_ar_step_errors_if_asked() -> None:
    covariance = np.eye(ONCE.total_frames(2))
    video = ArrayVideo(covariance, 1)
    bare = ledger(video, ONCE, 2, score=torn, step="renoise", samples=300)
    assert bare.totals["ar_step_kl"] is None
    assert "generate='moments'" in bare.notes["ar_step_kl"]
    found = ledger(video, ONCE, 2, score=torn, step="renoise", samples=2000, generate="moments")
    _, matched = quadrature()
    steps = found.table[found.table.term == "AR_STEP"]
    assert set(steps.form) == {"moment-matched"}
    assert (abs(steps.value - matched) < 4 * steps.stderr).all()
    assert "neither an upper nor a lower bound" in found.notes["generated"]
    ie = found.table[(found.table.term == "IE")]
    assert ie.form.tolist() == ["moment-matched"]
    total, error = found.totals["ar_step_kl"], found.stderr["ar_step_kl"]
    assert total == pytest.approx(float(ie.value.iloc[0]) + steps.value.sum() + (found.totals["mb"] or 0.0))
    assert error == pytest.approx(math.sqrt(float((steps.stderr**2).sum()) + float(ie.stderr.iloc[0]) ** 2))
    # What rests on the law of the rollout stays undefined.
    assert found.totals["ie"] is None
    assert found.totals["trajectory_kl"] is None
    assert found.to_dict()["ar_step_error"] == pytest.approx(steps.value.tolist())
    # The bound of the step, from true windows alone.
    path = bare.terms.ar_paths
    assert (steps.value.to_numpy() < path.value.numpy()).all()


def test_an_affine_score_keeps_its_closed_form() -> None:
    covariance, mean = random_video(ONCE.total_frames(1), 1, 0)
    video = ArrayVideo(covariance, 1, mean)
    exact = ledger(video, ONCE, 1)
    asked = ledger(video, ONCE, 1, generate="moments")
    assert asked.totals == exact.totals
    assert "generated" not in asked.notes


def test_a_finite_state_video_is_matched_by_its_own_moments() -> None:
    """Two poses of variance 1 and correlation 0.8 have the moments of AR(1): so has the moment-matched E_k."""
    plan = Plan((3.0, 3.0), 2, 3.0, 4, 4, floor=0.1, references=References.last(1))
    video = FiniteStateVideo(sticky_chain(2, 0.9), Codebook([[-1.0], [1.0]]))
    lags = np.abs(np.subtract.outer(np.arange(6), np.arange(6)))
    twin = ArrayVideo(0.8**lags, 1)
    network = linear_denoiser(twin, plan, 1, error=0.05)
    truth = ledger(twin, plan, 1, score=network).column("AR_STEP")[0]
    found = generated_error(video, plan, 1, network, samples=4000)
    assert abs(found.value - truth) < 4 * found.stderr


def test_refusals_name_what_is_wrong() -> None:
    video = ArrayVideo(np.eye(4), 1)
    with pytest.raises(ValueError, match=r"one of moments, calibrated, .* got 'guess'"):
        generated_error(video, ONCE, 1, torn, method="guess")
    with pytest.raises(ValueError, match="counted from 1, and 0 is the initialisation; got -1"):
        generated_error(video, ONCE, -1, torn)
    pixels = PixelVideo(2, 2, PowerLaw(), ExponentialMemory(tau=4.0))
    with pytest.raises(ValueError, match="videos of one mode, got"):
        generated_error(pixels, ONCE, 1, torn)
    with pytest.raises(ValueError, match="got 'guess'"):
        ledger(video, ONCE, 1, score=torn, generate="guess")
