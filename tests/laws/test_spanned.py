"""Pixels of a video that lives in the span of some pictures: against the dense law of all of them."""

import math
from functools import cache

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import Tensor

from arvdm_theory import (
    ExactScore,
    NetworkScore,
    PerturbedScore,
    References,
    Result,
    fit_video,
    generate,
    ledger,
    memory_bottleneck,
    outpainting,
    predicted_clip_kl,
)
from arvdm_theory.interfaces import ReferenceBatch
from arvdm_theory.laws.evidence import Evidence
from arvdm_theory.laws.fitted import FitError
from arvdm_theory.laws.gaussian import StationaryVideo
from arvdm_theory.laws.linear import var
from arvdm_theory.laws.spanned import SpannedVideo
from arvdm_theory.plan.plan import Plan

K, D, SCALE, NOISE = 2, 6, 0.7, 0.3
BASIS = torch.linalg.qr(torch.randn(D, K, generator=torch.Generator().manual_seed(1), dtype=torch.float64))[0].T
CENTRE = torch.linspace(-0.8, 0.6, D, dtype=torch.float64)
INNER = var([[[0.8, 0.1], [-0.2, 0.6]]], [[0.5, 0.1], [0.1, 0.4]], mean=[0.2, -0.1])
VIDEO = SpannedVideo(INNER, BASIS, CENTRE, NOISE, SCALE)
OUTSIDE = torch.eye(D).double() - BASIS.T @ BASIS


def _autocovariance(lags: int) -> Tensor:
    gamma = SCALE**2 * BASIS.T @ INNER.autocovariance(lags) @ BASIS
    gamma[:, 0] += NOISE * OUTSIDE
    gamma[:, 0] = (gamma[:, 0] + gamma[:, 0].mT) / 2
    return gamma


MEAN = CENTRE + SCALE * BASIS.T @ torch.tensor([0.2, -0.1], dtype=torch.float64)
DENSE = StationaryVideo(_autocovariance, D, MEAN[None])

PLANS = {
    "chunks": outpainting(2, References.last(2, 0.1), reverse_steps=6, init_steps=5),
    "rolling": Plan((3.0, 3.0, 6.0, 6.0), 2, 6.0, 4, references=References.first(1) + References.last(1)),
}
TERMS = ("nie_ar", "nie_init", "de", "see", "cross", "mb", "path_init")


def _bent(window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
    """A network that is not affine and mixes pixels inside and outside the span."""
    told = references.values.mean(-2, keepdim=True) if references.frames else torch.zeros_like(window[:, :1])
    rolled = torch.tanh(window.roll(1, -1) + 0.3 * told)
    return -0.9 * window + 0.2 * rolled / (1 + levels[:, None])


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("step", ["exponential", "euler", "ancestral"])
@pytest.mark.parametrize("error", [0.0, 0.05])
def test_the_ledger_is_that_of_the_dense_law(plan: str, step: str, error: float) -> None:
    score = PerturbedScore(error) if error else None
    results = [ledger(v, PLANS[plan], 3, score=score, step=step, girsanov=None) for v in (VIDEO, DENSE)]
    for name in TERMS:
        assert results[0].totals[name] == pytest.approx(results[1].totals[name], rel=1e-9, abs=1e-10), name
    own, dense = (memory_bottleneck(v, PLANS[plan], 3, clean_references=True) for v in (VIDEO, DENSE))
    assert float(own) == pytest.approx(float(dense), rel=1e-9)
    assert float(own) > 0


@cache
def _asked(dense: bool, plan: str, step: str) -> Result:
    return ledger(DENSE if dense else VIDEO, PLANS[plan], 2, score=_bent, step=step, samples=4000, seed=int(dense))


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("step", ["exponential", "ancestral"])
@pytest.mark.parametrize("term", ["see", "cross", "path_init"])
def test_a_network_of_pixels_is_called_on_pixels(plan: str, step: str, term: str) -> None:
    """Two independent averages, over windows drawn in parts and as a whole: within 5 of their joint error."""
    one, other = _asked(False, plan, step), _asked(True, plan, step)
    apart = one.totals[term] - other.totals[term]  # type: ignore[operator]
    assert abs(apart) <= 5 * math.hypot(  # both are 0 where the step is the true one
        one.stderr[term], other.stderr[term]
    )
    assert one.totals["de"] == pytest.approx(other.totals["de"], rel=1e-9)
    assert one.stderr[term] < 0.2 * abs(one.totals["see"] or 0.0)


@pytest.mark.parametrize("plan", PLANS)
def test_a_planted_network_that_is_exact_has_the_closed_forms_ledger(plan: str) -> None:
    """In float32: a score of size |s| = σ/σ²... has a rounding of 6e-8 of it, squared and weighed by h/2 a step.

    At levels from 6 to 0 with 4 to 6 steps |s| is below 20 an entry, so SEE is below (20·1e-6)²·12·... < 1e-6.
    """
    exact = ExactScore(DENSE)

    def network(window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
        assert window.shape[-1] == D
        return exact(window.double(), levels, references).float()

    found, closed = ledger(VIDEO, PLANS[plan], 3, score=network, samples=400), ledger(VIDEO, PLANS[plan], 3)
    assert 0 <= found.totals["see"] < 1e-6  # type: ignore[operator]
    assert abs(found.totals["cross"] or 0.0) < 1e-4
    for name in ("nie_ar", "de", "mb"):
        assert found.totals[name] == closed.totals[name]
    assert found.totals["path_kl"] == pytest.approx(closed.totals["path_kl"], abs=1e-4)


@pytest.mark.parametrize("known", [(), (0, 2)])
def test_densities_and_scores_are_those_of_the_dense_law(known: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    frames, levels = (3, 4), (0.4, 0.9)
    at = Evidence.noisy(frames, levels, torch.randn(5, 2, D, generator=generator, dtype=torch.float64))
    values = torch.randn(5, len(known), D, generator=generator, dtype=torch.float64)
    given = Evidence.noisy(known, [0.0, 0.2][: len(known)], values) if known else None
    own, dense = VIDEO.log_density(at, given), DENSE.log_density(at, given)
    torch.testing.assert_close(own, dense, rtol=1e-9, atol=1e-9)
    if not known:
        mean, covariance = DENSE.joint(at.states)
        assert at.values is not None
        expected = multivariate_normal(mean[0].numpy(), covariance[0].numpy()).logpdf(at.values.flatten(1).numpy())
        np.testing.assert_allclose(own.numpy(), expected, rtol=1e-9)
    shown = ReferenceBatch(values, torch.tensor([0.0, 0.2][: len(known)], dtype=torch.float64), known, frames)
    level = torch.tensor(levels, dtype=torch.float64)
    scores = [v.exact_score(at.values, level, shown) for v in (VIDEO, DENSE)]
    torch.testing.assert_close(*scores, rtol=1e-8, atol=1e-8)


def test_draws_have_the_moments() -> None:
    """20000 clips of 3 frames: moments within 5 standard errors (342 entries: once in 5000 seeds)."""
    frames = VIDEO.draw(20000, 3, torch.Generator().manual_seed(2)).frames.flatten(1)
    off = frames - DENSE.mean(3)[0]
    assert (off.mean(0).abs() < 5 * off.std(0) / math.sqrt(20000)).all()
    products = off[:, :, None] * off[:, None]
    error = products.std(0) / math.sqrt(20000)
    assert ((products.mean(0) - DENSE.covariance(3)[0]).abs() < 5 * error).all()


def test_what_is_predicted_in_the_span() -> None:
    """A network that is exact on pixels: the predicted clip KL in the span is the closed form there."""
    plan = outpainting(2, References.last(1), reverse_steps=8, init_steps=8)
    network = ExactScore(DENSE)
    predicted = predicted_clip_kl(VIDEO.span, plan, 3, VIDEO.in_span(network), bound=False, samples=3000).table
    exact = ledger(VIDEO.span, plan, 3).table
    rows = predicted[predicted.form == "linear"].sort_values("ar_step")
    closed = exact[exact.term == "CLIP_KL"].sort_values("ar_step")
    assert (abs(rows.value.to_numpy() - closed.value.to_numpy()) < 5 * rows.stderr.to_numpy() + 1e-3).all()


def test_generated_pixels() -> None:
    plan = outpainting(1, References.last(1), reverse_steps=4, init_steps=4)
    made = generate(ExactScore(VIDEO), plan, 2, videos=3, frame_dim=D, seed=0)
    same = generate(ExactScore(DENSE), plan, 2, videos=3, frame_dim=D, seed=0)
    torch.testing.assert_close(made, same, rtol=1e-7, atol=1e-7)


def test_a_fitted_video_is_asked_for_pixels() -> None:
    rng = np.random.default_rng(0)
    clips = [0.1 * rng.normal(size=(40, 3, 4, 1)).cumsum(0) for _ in range(5)]
    video, _ = fit_video(clips, modes=3)
    law = video.pixels()
    assert law.frame_shape == (3, 4, 1)
    # Encoding and decoding are the fitted video's own, in pixels.
    pictures = torch.from_numpy(np.stack(clips)).reshape(5, 40, 12)
    inside = law.encode(pictures - law.centre)
    np.testing.assert_allclose(inside[0].numpy() / video.scale, video.encode(clips[0]), atol=1e-12)
    shown = law.decode(inside) + law.centre
    np.testing.assert_allclose(
        shown[0].numpy().reshape(40, 3, 4, 1), video.decode(video.encode(clips[0])), atol=1e-12
    )
    # Outside the span the training frames have the law's variance.
    left = law.left_over(pictures[:4] - law.centre)
    assert float((left**2).sum(-1).mean()) == pytest.approx(law.variance * 9, rel=1e-9)
    # What a level hides of the span: the information is the same at the modes' own level.
    plan = outpainting(1, References.last(2, 0.3), reverse_steps=3, init_steps=3)
    own = outpainting(1, References.last(2, video.mode_level(0.3)), reverse_steps=3, init_steps=3)
    assert float(memory_bottleneck(law, plan, 6)) == pytest.approx(
        float(memory_bottleneck(video, own, 6)), rel=1e-6
    )
    assert video.pixel_level(video.mode_level(0.3)) == pytest.approx(0.3)
    assert (
        memory_bottleneck(law, outpainting(1, References.last(2)), 6).warnings
        == memory_bottleneck(video, outpainting(1, References.last(2)), 6).warnings
    )
    # A network as one brings it: pixels in, x0 out.
    score = NetworkScore(lambda window, levels, references, actions: 0.9 * window, prediction="x0")
    result = ledger(law, plan, 2, score=score, samples=50)
    assert result.totals["see"] > 0  # type: ignore[operator]
    assert result.totals["kl"] is None
    assert "rollout" in result.notes["kl"]


def test_what_is_no_span() -> None:
    with pytest.raises(ValueError, match="orthonormal rows"):
        SpannedVideo(INNER, 2 * BASIS, CENTRE, NOISE)
    with pytest.raises(ValueError, match="a basis"):
        SpannedVideo(INNER, BASIS, CENTRE[:3], NOISE)
    with pytest.raises(ValueError, match="variance must be positive"):
        SpannedVideo(INNER, BASIS, CENTRE, 0.0)
    with pytest.raises(ValueError, match="scale"):
        SpannedVideo(INNER, BASIS, CENTRE, NOISE, -1.0)
    with pytest.raises(ValueError, match="has not 6 entries"):
        SpannedVideo(INNER, BASIS, CENTRE, NOISE, shape=(2, 2, 1))
    rng = np.random.default_rng(0)
    pattern = rng.normal(size=(2, 4, 4))
    clips = [np.einsum("tk,khw->thw", rng.normal(size=(30, 2)).cumsum(0), pattern) for _ in range(4)]
    with pytest.raises(FitError, match="give a noise"):
        fit_video(clips, modes=2)[0].pixels(noise=0.0)
    assert fit_video(clips, modes=2)[0].pixels(noise=0.1).variance == 0.1


def test_all_directions_may_lie_in_the_span() -> None:
    rotation = torch.linalg.qr(torch.randn(2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[
        0
    ]
    video = SpannedVideo(INNER, rotation, torch.zeros(2), 1.0)
    plan = PLANS["chunks"]
    own, inner = ledger(video, plan, 2), ledger(INNER, plan, 2)
    for name in ("nie_ar", "de", "mb"):
        assert own.totals[name] == pytest.approx(inner.totals[name], rel=1e-9)
