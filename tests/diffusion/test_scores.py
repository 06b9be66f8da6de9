"""How scores are called, which of them are recognised as affine, and which are refused."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from oracle_score import Call, OracleScore
from reference_cases import MORE_PLANS, PLANS, random_video
from torch import Tensor

from arvdm_theory import (
    ArrayVideo,
    ExactScore,
    GaussianVideo,
    NetworkScore,
    PerturbedScore,
    Plan,
    ReferenceBatch,
    References,
    Score,
)
from arvdm_theory.diffusion.prediction import Prediction
from arvdm_theory.diffusion.scores import AffineScore, HasScore, as_score
from arvdm_theory.laws.gaussian_stage import GaussianStage
from arvdm_theory.laws.gaussian_window import AffineMap


class Modes(GaussianVideo):
    """Several modes of one law, mode i scaled by i + 1 (its mean too)."""

    def __init__(self, covariance: np.ndarray, mean: np.ndarray, dim: int, modes: int = 1) -> None:
        scale = torch.arange(1, modes + 1, dtype=torch.float64)
        self.frame_dim, self.multiplicity = dim, torch.ones(modes, dtype=torch.float64)
        self._mean = torch.from_numpy(mean) * scale[:, None]
        self._covariance = torch.from_numpy(covariance) * scale[:, None, None]

    def mean(self, frames: int) -> Tensor:
        return self._mean[:, : frames * self.frame_dim]

    def covariance(self, frames: int) -> Tensor:
        return self._covariance[:, : frames * self.frame_dim, : frames * self.frame_dim]


def stage_law(plan: Plan, ar_step: int, dim: int = 2, modes: int = 1, seed: int = 0) -> GaussianStage:
    covariance, mean = random_video(plan.total_frames(ar_step), dim, seed)
    return Modes(covariance, mean, dim, modes).at(plan.stage(ar_step))


MIXED = Plan(
    (1.0, 2.0, 3.0), 1, 3.0, 2, 2, references=References.last(2, 0.3) + References.first(1), floor=0.05,
)  # fmt: skip


def test_a_score_is_told_the_levels_and_frames_of_its_step() -> None:
    covariance, mean = random_video(MIXED.total_frames(4), 2, 0)
    score = OracleScore(covariance, mean, 2)
    video = ArrayVideo(covariance, 2, mean)
    law = video.at(MIXED.stage(4))
    for m, row in enumerate(MIXED.ar_grid[:-1]):
        law.call(score, m, torch.zeros(5, 1, 6, dtype=torch.float64), torch.ones(5, 1, 6, dtype=torch.float64))
        # The first frame is left as it came out, so it stands at the plan's floor.
        assert score.calls.pop() == Call((5, 3, 2), row, (3, 4, 5), (5, 3, 2), (0.05, 0.3, 0.3), (0, 1, 2))
    init = video.at(MIXED.stage(0))
    init.call(score, 1, torch.zeros(1, 1, 4, dtype=torch.float64), torch.zeros(1, 1, 0, dtype=torch.float64))
    assert score.calls.pop() == Call((1, 2, 2), MIXED.init_grid[1], (0, 1), (1, 0, 2), (), ())


def test_a_score_of_several_modes_sees_them_on_their_own_axis() -> None:
    seen: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def score(window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
        seen.append((tuple(window.shape), tuple(references.values.shape)))
        return window + references.values[..., :1, :]

    law = stage_law(PLANS["rolling"], 2, modes=3)
    window = torch.arange(2 * 3 * 6, dtype=torch.float64).reshape(2, 3, 6)
    references = torch.full((2, 3, 2), 100.0, dtype=torch.float64)
    value = law.call(score, 0, window, references)
    assert seen == [((2, 3, 3, 2), (2, 3, 1, 2))]
    assert torch.equal(value, window + 100)


def test_the_callable_exact_score_is_recognised_as_affine() -> None:
    covariance, mean = random_video(MIXED.total_frames(3), 2, 1)
    score = OracleScore(covariance, mean, 2)
    assert isinstance(score, Score)
    video = ArrayVideo(covariance, 2, mean)
    for law in (video.at(MIXED.stage(0)), video.at(MIXED.stage(3))):
        found = law.affine_map(score)
        assert isinstance(found, AffineMap)
        for part, expected in zip(vars(found).values(), vars(law.window.score).values(), strict=True):
            # A slope is a difference of two calls of size 10: 1e-15 of that, and the solve's condition number.
            np.testing.assert_allclose(part, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    "bend",
    [
        lambda w, r: 1e-6 * torch.tanh(w),
        lambda w, r: w.clamp(min=-1.0),
        lambda w, r: w.abs(),
        lambda w, r: w * w.mean(-1, keepdim=True),
        lambda w, r: w * r.mean((-2, -1), keepdim=True),
        lambda w, r: torch.sin(r).sum((-2, -1), keepdim=True) + w,
    ],
)  # fmt: skip
def test_scores_that_are_not_affine_are_left_as_they_are(bend: object) -> None:
    covariance, mean = random_video(MIXED.total_frames(3), 2, 2)
    score = OracleScore(covariance, mean, 2, wrong=bend)  # type: ignore[arg-type]
    assert ArrayVideo(covariance, 2, mean).at(MIXED.stage(3)).affine_map(score) is None


def test_a_score_that_mixes_modes_is_not_affine_mode_by_mode() -> None:
    law = stage_law(PLANS["rolling"], 2, modes=2)

    def alone(window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
        return -2 * window

    def mixed(window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
        return -2 * window + 0.1 * window.flip(1)

    assert isinstance(law.affine_map(alone), AffineMap)
    assert law.affine_map(mixed) is None


def half_precision(bend: float = 0.0) -> Score:
    """A float32 network -1.1 W + R + 0.3, and a bend."""

    def network(window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
        seen = references.values.float().sum(1, keepdim=True)
        return -1.1 * window.float() + seen + 0.3 + bend * torch.tanh(window.float())

    return network


def test_an_affine_float32_network_is_affine_to_its_own_rounding() -> None:
    """Neither float64 rounding nor more is asked of it; its map is one of float64 numbers."""
    law = stage_law(PLANS["rolling"], 2)
    network = half_precision()
    found = law.affine_map(network)
    assert isinstance(found, AffineMap)
    on_window, on_refs, bias = law.window.raw(found)
    eye = torch.eye(6, dtype=torch.float64).expand_as(on_window)
    # Slopes are differences of two values of size about 10, each good to 2^-24, over a step of about 3.
    np.testing.assert_allclose(on_window, -1.1 * eye, rtol=0, atol=1e-6)
    np.testing.assert_allclose(on_refs, torch.eye(2, dtype=torch.float64).tile(3, 1).expand_as(on_refs), atol=1e-6)
    np.testing.assert_allclose(bias, 0.3, rtol=0, atol=1e-5)
    window = torch.randn(3, 1, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    value = law.call(network, 0, window, torch.zeros(3, 1, 2, dtype=torch.float64))
    assert {part.dtype for part in vars(found).values()} == {torch.float64}
    np.testing.assert_allclose(value, -1.1 * window + 0.3, rtol=0, atol=1e-6)


def test_a_bent_float32_network_is_not_affine() -> None:
    law = stage_law(PLANS["rolling"], 2)
    network = half_precision(bend=1e-3)
    assert law.affine_map(network) is None


@pytest.mark.parametrize("prediction", ["x0", "epsilon"])
def test_rounding_that_a_network_says_it_has_is_allowed_for(prediction: Prediction) -> None:
    """A wrapped network gives float64 values that float32 has rounded, magnified by 1/σ² at low levels."""
    plan = Plan((2.0, 2.0), 2, 2.0, 8, 8, references=References.last(1), floor=1e-4, spacing="geometric")
    law = stage_law(plan, 2)

    def affine(w: Tensor, levels: Tensor, references: ReferenceBatch, actions: Tensor | None) -> Tensor:
        return 0.7 * w + 0.1 * references.values.sum(1, keepdim=True) + 0.2

    score = NetworkScore(affine, prediction)
    assert isinstance(law.affine_map(score), AffineMap)
    precise = replace(score, dtype=torch.float64)
    assert isinstance(law.affine_map(precise), AffineMap)
    bent = replace(precise, network=lambda w, *rest: affine(w, *rest) + 1e-6 * torch.sin(w))
    assert law.affine_map(bent) is None


def test_probes_have_the_videos_size() -> None:
    """A network that bends over 1e6 units bends where frames are that large: at size 1 it is straight to 1e-10."""
    covariance, mean = random_video(PLANS["rolling"].total_frames(2), 2, 0)

    def network(window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
        return -1e6 * torch.tanh(window / 1e6)

    for size, straight in ((1.0, True), (1e6, False)):
        law = ArrayVideo(covariance * size**2, 2, mean * size).at(PLANS["rolling"].stage(2))
        assert (law.affine_map(network) is not None) == straight


def test_what_gives_a_score_is_taken_for_it() -> None:
    class Model:
        def as_score(self) -> Score:
            return half_precision(bend=1.0)

    law = stage_law(PLANS["rolling"], 2)
    model = Model()
    assert isinstance(model, HasScore)
    window = torch.ones(3, 1, 6, dtype=torch.float64)
    value = law.call(as_score(model), 0, window, torch.zeros(3, 1, 2, dtype=torch.float64))
    np.testing.assert_allclose(value, -1.1 + 0.3 + math.tanh(1.0), rtol=0, atol=1e-6)


def test_perturbed_scores_are_the_exact_score_with_its_error() -> None:
    law = stage_law(MORE_PLANS["a mask a step that reads references"], 3)
    for base, exact in ((ExactScore(), law.window.masked_score), (ExactScore(masked=False), law.window.score)):
        wrong = PerturbedScore(0.2, bias=-0.7, base=base)
        assert isinstance(wrong, AffineScore)
        eye = torch.eye(4, dtype=torch.float64)
        found, expected = law.window.raw(wrong.affine(law.window)), law.window.raw(exact)
        np.testing.assert_allclose(found[0], expected[0] - 0.2 * eye, rtol=0, atol=1e-13)
        np.testing.assert_allclose(found[1], expected[1], rtol=0, atol=1e-13)
        np.testing.assert_allclose(found[2], expected[2] - 0.7, rtol=0, atol=1e-13)


def test_refuses_scores_of_another_shape_kind_or_size() -> None:
    law = stage_law(PLANS["rolling"], 2)

    def attempt(score: object) -> None:
        law.affine_map(score)

    with pytest.raises(ValueError, match=r"tensor of the window's shape \(\d+, 3, 2\), got \(\d+, 3\)"):
        attempt(lambda w, levels, r: w.sum(-1))
    with pytest.raises(ValueError, match=r"tensor of the window's shape \(\d+, 3, 2\), got ndarray"):
        attempt(lambda w, levels, r: w.numpy())
    with pytest.raises(
        ValueError, match=r"score of frames 2 to 4 is not finite at the levels \[0\.6667, 1\.6667, 2\.6667\]"
    ):
        attempt(lambda w, levels, r: w / (levels[0] == 1.0))
