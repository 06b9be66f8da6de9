"""Clip KL predicted without a rollout: exact for affine networks, against quadrature for one that bends."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from exact_networks import linear_denoiser
from oracle_score import OracleScore
from reference_cases import MORE_PLANS, PLANS, Array, ar1, random_video
from torch import Tensor

from arvdm_theory import (
    ArrayVideo,
    Codebook,
    FiniteStateVideo,
    PerturbedScore,
    PixelVideo,
    Plan,
    ReferenceBatch,
    References,
    Result,
    generate,
    ledger,
    measured_clip_kl,
    predicted_clip_kl,
    sticky_chain,
)
from arvdm_theory.diffusion.sampler import sampler_steps
from arvdm_theory.diffusion.steps import STEPS
from arvdm_theory.information.gaussian import NotPositiveDefiniteError, kl_divergence
from arvdm_theory.laws.gaussian_kernel import composed_kernel
from arvdm_theory.laws.gaussian_sampler import SamplerLaw
from arvdm_theory.laws.pixels import ExponentialMemory, PowerLaw
from arvdm_theory.rollout.predict import linear_response

EVERY_PLAN = {**PLANS, **MORE_PLANS}


def values(result: Result, form: str, column: str = "value") -> Array:
    rows = result.table[result.table.form == form].sort_values("ar_step")
    return np.asarray(rows[column], dtype=np.float64)


# -- exact where it should be ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("chunks, mixed references, floor", "exponential"),
        ("chunks with references", "ddim"),
        ("rolling, noised references, floor", "euler"),
        ("rolling, warmup", "exponential"),
        ("frames that wait", "ddpm"),
        ("every second frame", "exponential"),
    ],
)
def test_an_affine_network_on_a_gaussian_video_is_predicted_exactly(name: str, step: str) -> None:
    """To 1e-9, from 200 videos: least squares finds an affine function exactly, and leaves no residual."""
    plan = EVERY_PLAN[name]
    covariance, mean = random_video(plan.total_frames(4), 2, 0)
    video = ArrayVideo(covariance, 2, mean)
    denoiser = linear_denoiser(video, plan, 4, error=0.03)
    exact = ledger(video, plan, 4, score=denoiser, step=step)
    found = predicted_clip_kl(video, plan, 4, denoiser, step=step, samples=200)
    for form in ("linear", "linear_residual"):
        np.testing.assert_allclose(values(found, form), exact.column("CLIP_KL"), rtol=1e-9, atol=1e-9)
        assert (values(found, form, "stderr") < 1e-9).all()
    np.testing.assert_allclose(values(found, "bound"), exact.column("CLIP_BOUND"), rtol=1e-12)
    if "clip_bound" in exact.notes:
        assert found.notes == {"bound": exact.notes["clip_bound"]}
    else:
        assert (values(found, "linear") <= values(found, "bound") + 1e-12).all()


@pytest.mark.parametrize("score", [None, PerturbedScore(0.1, bias=0.2)])
def test_scores_of_a_known_law_are_predicted_too(score: PerturbedScore | None) -> None:
    plan = EVERY_PLAN["a mask a step that reads references"]
    covariance, mean = random_video(plan.total_frames(3), 2, 1)
    video = ArrayVideo(covariance, 2, mean)
    found = predicted_clip_kl(video, plan, 3, score, bound=False, samples=200)
    expected = ledger(video, plan, 3, score=score, girsanov=False).column("CLIP_KL")
    np.testing.assert_allclose(values(found, "linear"), expected, rtol=1e-9, atol=1e-9)
    assert "linear" not in found.notes


def test_a_linear_network_on_a_finite_state_video_is_predicted_by_moments() -> None:
    """Then the sampler's law is Gaussian, and the chain's moments are known: α² s^|i-j| + σ² 1[i = j]."""
    stay, plan = 0.9, Plan((4.0, 4.0), 2, 4.0, 4, 4, floor=0.1, references=References.last(1))
    video = FiniteStateVideo(sticky_chain(2, stay), Codebook([[-1.0], [1.0]]))
    frames = plan.total_frames(3)
    gaussian = ArrayVideo(ar1(frames, 2 * stay - 1), 1)  # of the same moments
    denoiser = linear_denoiser(gaussian, plan, 3, error=0.1)
    exact = ledger(gaussian, plan, 3, score=denoiser)
    found = predicted_clip_kl(video, plan, 3, denoiser, samples=2000)
    assert sorted(set(found.table.form)) == ["bound", "moment_linear", "moment_linear_residual"]
    for form in ("moment_linear", "moment_linear_residual"):
        # The law's own moments are known, and least squares finds the linear network itself.
        np.testing.assert_allclose(values(found, form), exact.column("CLIP_KL"), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(
        values(found, "bound"),
        ledger(video, plan, 3, score=denoiser, memory=False, samples=2000).column("CLIP_BOUND"),
        rtol=1e-12,
    )


# -- a network that bends, by quadrature ----------------------------------------------------------------

ONE = Plan((2.0,), 1, 2.0, 4, 4, references=References.last(1), floor=0.05)
CORRELATION, STEPS_AHEAD = 0.8, 4


def bend(window: Tensor, references: Tensor) -> Tensor:
    read = torch.sin(references).sum(-2, keepdim=True) if references.shape[-2] else 0.0
    return 0.3 * torch.tanh(window - 0.5) + 0.2 * read


def bent(wrong: Callable[[Tensor, Tensor], Tensor] | None = bend) -> tuple[ArrayVideo, OracleScore]:
    covariance = ar1(ONE.total_frames(STEPS_AHEAD), CORRELATION)
    return ArrayVideo(covariance, 1), OracleScore(covariance, np.zeros(len(covariance)), 1, wrong)


def quadrature_prediction() -> dict[str, list[float]]:
    """The two forms with every regression's moments from product Gauss-Hermite quadrature."""
    _, score = bent()
    nodes, weight = np.polynomial.hermite_e.hermegauss(60)
    laws: dict[str, SamplerLaw | None] = {"linear": None, "linear_residual": None}
    found: dict[str, list[float]] = {form: [] for form in laws}
    variance_out = math.exp(-ONE.floor) + 1 - math.exp(-ONE.floor)
    for k in range(STEPS_AHEAD + 1):
        grid = torch.tensor(ONE.ar_grid if k else ONE.init_grid, dtype=torch.float64)
        steps = sampler_steps(grid, STEPS["exponential"]).spread(1)
        assert steps.variance is not None
        rows = []
        for m in range(len(grid) - 1):
            high = float(grid[m])
            levels = np.array([high, ONE.floor] if k else [high])
            alpha = np.exp(-levels / 2)
            joint = alpha[:, None] * alpha * ar1(len(levels), CORRELATION) + np.diag(1 - alpha**2)
            axes = np.meshgrid(*[nodes] * len(levels), indexing="ij")
            mass = np.prod(np.meshgrid(*[weight / weight.sum()] * len(levels), indexing="ij"), 0).reshape(-1)
            points = np.linalg.cholesky(joint) @ np.stack([axis.reshape(-1) for axis in axes])
            told = torch.from_numpy(points.T)
            frame = k if k else 0
            shown = ReferenceBatch(
                told[:, 1:].unsqueeze(-1),
                torch.tensor(levels[1:]),
                (frame - 1,) if k else (),
                (frame,),
            )
            said = score(told[:, :1].unsqueeze(-1), grid[m], shown).numpy().reshape(-1)
            offset = mass @ said
            slope = np.linalg.solve(joint, points @ (mass * said))
            left = mass @ (said - offset - slope @ points) ** 2
            rows.append((slope[0], slope[1:], offset, left))
        on_window = torch.tensor([[[[row[0]]]] for row in rows], dtype=torch.float64)
        on_refs = torch.tensor(np.array([row[1] for row in rows]), dtype=torch.float64).reshape(
            len(rows), 1, 1, -1
        )
        bias = torch.tensor([[[row[2]]] for row in rows], dtype=torch.float64)
        left = torch.tensor([[[[row[3]]]] for row in rows], dtype=torch.float64)
        for form, extra in (("linear", 0.0), ("linear_residual", 1.0)):
            noise = torch.diag_embed(steps.variance) + extra * (steps.mean_score**2).unsqueeze(-1) * left
            kernel = composed_kernel(steps, on_window, on_refs, bias, noise)
            law = laws[form]
            law = SamplerLaw.initial(ONE, kernel, 1) if law is None else law.advance(ONE, ONE.stage(k), kernel)
            laws[form] = law
            if k:
                true = (
                    torch.zeros(1, 1, dtype=torch.float64),
                    torch.full((1, 1, 1), variance_out, dtype=torch.float64),
                )
                found[form].append(float(kl_divergence(*true, *law.frames(range(k, k + 1)))))
    return found


def test_the_regression_is_the_one_of_the_true_law() -> None:
    """Within 4 standard errors of quadrature, for several seeds, in both forms."""
    video, score = bent()
    expected = quadrature_prediction()
    assert max(np.abs(np.subtract(expected["linear"], expected["linear_residual"]))) > 1e-4
    scores = []
    for seed in range(8):
        found = predicted_clip_kl(video, ONE, STEPS_AHEAD, score, bound=False, samples=2000, seed=seed)
        for form, truth in expected.items():
            scores.append((values(found, form) - truth) / values(found, form, "stderr"))
    # 64 correlated t-like numbers with 15 degrees of freedom: beyond 5 with probability 64 · 1.6e-4 = 1 %.
    assert np.abs(scores).max() < 5
    # Honest standard errors: eight independent seeds have squares that average to about 1.
    assert 0.3 < np.mean(np.square(scores)) < 3


def test_weak_bends_are_predicted_far_better_than_they_are_bounded() -> None:
    """Beside the measured KL of real rollouts; the size of the miss is that of one example, not a theorem."""
    video, score = bent()
    found = predicted_clip_kl(video, ONE, STEPS_AHEAD, score, samples=4000)
    made = generate(score, ONE, STEPS_AHEAD, 20_000, 1, seed=1)
    measured = measured_clip_kl(video, made, ONE, STEPS_AHEAD)
    truth = np.asarray(measured.table.value)
    assert (values(found, "bound") > truth).all()
    assert "neither an upper nor a lower bound" in found.notes["linear"]
    miss = np.abs(values(found, "linear") - truth)
    noise = np.hypot(values(found, "linear", "stderr"), measured.table.stderr)
    slack = values(found, "bound") - truth
    assert (miss < 0.2 * slack + 4 * noise).all()


# -- plans, data sets, refusals -------------------------------------------------------------------------


def test_a_plan_that_breaks_the_bound_has_none_and_says_why() -> None:
    plan = Plan((2.0,), 1, 2.0, 2, 2, references=References.last(2, 0.3))
    covariance = ar1(plan.total_frames(3), 0.7)
    score = OracleScore(covariance, np.zeros(len(covariance)), 1, lambda w, r: 0.1 * torch.tanh(w))
    found = predicted_clip_kl(ArrayVideo(covariance, 1), plan, 3, score, samples=100)
    assert "bound" not in set(found.table.form)
    assert "noises frame" in found.notes["bound"]
    assert len(found.table) == 6


def test_a_data_set_will_do_for_the_response_itself() -> None:
    video, score = bent()
    videos = video.sample(500, ONE.total_frames(2), torch.Generator().manual_seed(0))[:, 0]
    generator = torch.Generator().manual_seed(1)
    laws = dict(linear_response(videos, ONE, 2, score, groups=5, generator=generator))
    assert sorted(laws) == [1, 2]
    plain, noisy = laws[2]
    assert plain.covariance.shape == (6, 3, 3)
    # Residual noise adds to every variance.
    assert (torch.diagonal(noisy.covariance - plain.covariance, dim1=1, dim2=2) > 0).all()
    with pytest.raises(ValueError, match="4 frames are needed, got videos of 3"):
        next(linear_response(videos, ONE, 3, score))


def test_it_is_reproducible_by_seed() -> None:
    video, score = bent()
    first, again, other = (
        predicted_clip_kl(video, ONE, 2, score, bound=False, samples=100, seed=seed) for seed in (1, 1, 2)
    )
    assert first.table.equals(again.table)
    assert not first.table.equals(other.table)


def test_refuses_what_it_cannot_predict() -> None:
    video, score = bent()
    with pytest.raises(ValueError, match="at least one AR step is needed, got 0"):
        predicted_clip_kl(video, ONE, 0, score)
    with pytest.raises(ValueError, match=r"regressing on 1 numbers .* 3 videos beside every group, got 4"):
        predicted_clip_kl(video, ONE, 2, score, bound=False, samples=4, groups=2)
    with pytest.raises(ValueError, match="two groups or more"):
        predicted_clip_kl(video, ONE, 2, score, bound=False, groups=1)
    with pytest.raises(ValueError, match="ancestral step has the exact posterior's covariance"):
        predicted_clip_kl(video, ONE, 2, score, step="ancestral", bound=False)
    pixels = PixelVideo(2, 2, PowerLaw(), ExponentialMemory(tau=4.0))
    with pytest.raises(ValueError, match="videos of one mode, got"):
        predicted_clip_kl(pixels, PLANS["rolling"], 2, score)
    atomic = FiniteStateVideo(sticky_chain(2, 0.9), Codebook([[-1.0], [1.0]]))
    with pytest.raises(ValueError, match=r"have no density: .* Give the plan a floor"):
        predicted_clip_kl(atomic, PLANS["chunks with references"], 2, score)
    still = FiniteStateVideo(sticky_chain(2, 1.0), Codebook([[-1.0], [1.0]], 0.0))
    videos = still.draw(100, 6, torch.Generator().manual_seed(0)).frames
    plan = Plan((2.0,), 1, 2.0, 2, 2, references=References.last(2))
    with pytest.raises(NotPositiveDefiniteError, match="covariance of what the network is shown"):
        list(linear_response(videos, plan, 4, lambda w, t, r: -w))
