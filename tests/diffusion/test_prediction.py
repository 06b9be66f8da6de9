"""Network outputs against closed forms: definitions, Gaussian posterior means, and the exact score."""

from typing import get_args

import numpy as np
import pytest
import torch
from oracle_score import OracleScore
from reference_cases import random_video
from torch import Tensor

from arvdm_theory.diffusion.prediction import NetworkScore, Prediction, denoised, score_of, target
from arvdm_theory.interfaces import ReferenceBatch
from arvdm_theory.noise import clock_from_flow

PREDICTIONS = get_args(Prediction)
LEVELS = torch.tensor([0.02, 0.7, 5.0], dtype=torch.float64)
DIM, FRAMES, SHOWN = 2, (3, 4, 5), (0, 2)
REFERENCE_LEVELS = torch.tensor([0.0, 0.3], dtype=torch.float64)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def scales(levels: Tensor = LEVELS) -> tuple[Tensor, Tensor]:
    """α and σ, written out anew."""
    return torch.sqrt(torch.exp(-levels))[..., None], torch.sqrt(1 - torch.exp(-levels))[..., None]


def output_of(prediction: str, clean: Tensor, window: Tensor, levels: Tensor = LEVELS) -> Tensor:
    """The rows of the definition: what stands for x̂ once ε̂ is what is left of the window."""
    a, s = scales(levels)
    noise = (window - a * clean) / s
    return {
        "x0": clean,
        "epsilon": noise,
        "v": a * noise - s * clean,
        "flow": noise - clean,
        "score": (a * clean - window) / s**2,
    }[prediction]


def posterior_mean(
    covariance: np.ndarray, mean: np.ndarray, window: Tensor, levels: Tensor, references: ReferenceBatch
) -> Tensor:
    """E[X | W, R] of a Gaussian video by conditioning the *clean* frames on the noisy ones."""

    def entries(frames: tuple[int, ...]) -> list[int]:
        return [frame * DIM + i for frame in frames for i in range(DIM)]

    clean, at = entries(references.window_frames), entries((*references.window_frames, *references.frames))
    every = np.repeat([*levels.tolist(), *references.levels.tolist()], DIM)
    a = np.exp(-every / 2)
    joint = a[:, None] * a * covariance[np.ix_(at, at)] + np.diag(1 - np.exp(-every))
    cross = covariance[np.ix_(clean, at)] * a
    seen = torch.cat([window.flatten(1), references.values.flatten(1)], 1).numpy()
    value = mean[clean] + np.linalg.solve(joint, (seen - a * mean[at]).T).T @ cross.T
    return torch.from_numpy(value).reshape(window.shape)


def references(batch: int) -> ReferenceBatch:
    return ReferenceBatch(draw(batch, 2, DIM, seed=1), REFERENCE_LEVELS, SHOWN, FRAMES)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("per_video", [False, True])
def test_the_target_denoises_the_window_to_the_clean_frame(prediction: Prediction, per_video: bool) -> None:
    clean, noise = draw(7, 3, DIM), draw(7, 3, DIM, seed=1)
    levels = LEVELS * (1 + torch.arange(7, dtype=torch.float64)[:, None] / 7) if per_video else LEVELS
    a, s = scales(levels)
    window = a * clean + s * noise
    aimed = target(prediction, clean, noise, levels)
    # ε is recovered from the window by dividing by σ = 0.14 at the lowest level: 1e-15 / σ² for the score's row.
    torch.testing.assert_close(aimed, output_of(prediction, clean, window, levels), rtol=0, atol=1e-12)
    # x̂ is divided by α = 0.03 at the highest level in the rows of ε and of the score.
    torch.testing.assert_close(denoised(prediction, aimed, window, levels), clean, rtol=0, atol=1e-12)
    torch.testing.assert_close(score_of(clean, window, levels), -noise / s, rtol=0, atol=1e-12)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_exact_gaussian_denoiser_is_the_exact_score_in_every_parametrisation(prediction: Prediction) -> None:
    covariance, mean = random_video(6, DIM, 0)
    oracle = OracleScore(covariance, mean, DIM)
    window, given = 2 * draw(9, 3, DIM), references(9)
    a, s = scales()

    def network(shown: Tensor, at: Tensor, told: ReferenceBatch, actions: Tensor | None) -> Tensor:
        assert actions is None
        levels = at
        if prediction == "flow":
            # It is shown (W/(α + σ), σ/(α + σ)); what it knows is on the OU clock.
            levels, shown = torch.from_numpy(clock_from_flow(at)), shown * (a + s)
        return output_of(prediction, posterior_mean(covariance, mean, shown, levels, told), shown, levels)

    score = NetworkScore(network, prediction, dtype=torch.float64, batch=4)
    # x̂ is good to 1e-15 times the condition number of the covariance (below 20) and is divided by σ² = 0.02.
    torch.testing.assert_close(score(window, LEVELS, given), oracle(window, LEVELS, given), rtol=0, atol=1e-11)


def test_a_network_is_shown_pictures_actions_and_its_own_clock() -> None:
    calls = []

    def network(window: Tensor, levels: Tensor, told: ReferenceBatch, actions: Tensor | None) -> Tensor:
        calls.append((window, levels, told, actions))
        return window

    actions, window_actions = draw(5, 2, 3, seed=2), draw(5, 3, 3, seed=3)
    given = ReferenceBatch(draw(5, 2, 4), REFERENCE_LEVELS, SHOWN, FRAMES, actions, window_actions)
    score = NetworkScore(network, "x0", clock=lambda level: 100 * level, frame_shape=(2, 2, 1), batch=3)
    window = draw(5, 3, 4)
    value = score(window, LEVELS, given)
    assert value.dtype == torch.float64
    # The network returns what float32 holds of the window, 6e-8 of it; the score divides by σ² = 0.02.
    torch.testing.assert_close(value, score_of(window, window, LEVELS), rtol=0, atol=1e-5)
    assert [len(call[0]) for call in calls] == [3, 2]
    shown, levels, told, acted = calls[1]
    assert shown.shape == (2, 3, 2, 2, 1)
    assert shown.dtype == levels.dtype == told.values.dtype == torch.float32
    torch.testing.assert_close(levels, (100 * LEVELS).float())
    assert told.values.shape == (2, 2, 2, 2, 1)
    assert told.frames == SHOWN
    assert told.window_frames == FRAMES
    assert torch.equal(told.actions, actions[3:].float())
    assert torch.equal(acted, window_actions[3:].float())


def _own_clock(level: Tensor) -> Tensor:
    return 1000 * (1 - torch.exp(-level))


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("clock", [_own_clock, lambda level: _own_clock(level).numpy()], ids=["tensor", "array"])
def test_a_clock_works_with_every_prediction_whatever_it_returns(prediction: Prediction, clock: object) -> None:
    covariance, mean = random_video(6, DIM, 0)
    window, given = 2 * draw(9, 3, DIM), references(9)
    a, s = scales()

    def network(shown: Tensor, at: Tensor, told: ReferenceBatch, actions: Tensor | None) -> Tensor:
        levels = -torch.log1p(-at / 1000)
        shown = shown * (a + s) if prediction == "flow" else shown
        return output_of(prediction, posterior_mean(covariance, mean, shown, levels, told), shown, levels)

    score = NetworkScore(network, prediction, clock, dtype=torch.float64)  # type: ignore[arg-type]
    expected = OracleScore(covariance, mean, DIM)(window, LEVELS, given)
    # 1e-15 of the clock's 1000 is 1e-12 of σ² = 0.0067 at level 5, whose posterior and α it moves by 1e-10.
    torch.testing.assert_close(score(window, LEVELS, given), expected, rtol=0, atol=1e-9)


def test_a_clock_of_another_shape_is_refused() -> None:
    score = NetworkScore(lambda window, levels, told, actions: window, "x0", clock=lambda level: level[:1])
    with pytest.raises(ValueError, match=r"as many levels as it is given, \(3,\), got \(1,\)"):
        score(draw(5, 3, DIM), LEVELS, references(5))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_levels_are_never_coarser_than_float32(dtype: torch.dtype) -> None:
    """bfloat16 holds 500 and 504, not 501."""
    seen: list[tuple[Tensor, Tensor, ReferenceBatch]] = []

    def network(window: Tensor, levels: Tensor, told: ReferenceBatch, actions: Tensor | None) -> Tensor:
        seen.append((window, levels, told))
        return window

    window, given = draw(5, 3, DIM), references(5)
    NetworkScore(network, "x0", clock=lambda level: 0 * level + 501, dtype=dtype)(window, LEVELS, given)
    NetworkScore(network, "flow", dtype=dtype)(window.to(dtype), LEVELS, given)
    (shown, clocked, told), (_, flow, _) = seen
    at_least = torch.float64 if dtype == torch.float64 else torch.float32
    assert shown.dtype == told.values.dtype == dtype
    assert clocked.dtype == told.levels.dtype == flow.dtype == at_least
    assert clocked.tolist() == [501] * 3
    torch.testing.assert_close(told.levels, REFERENCE_LEVELS.to(at_least), rtol=0, atol=0)
    a, s = (x.squeeze(-1) for x in scales())
    # 1 - e^{-t}, written out above, loses 1/t = 50 roundings at the lowest level.
    rounding = 4 * torch.finfo(at_least).eps + 50 * torch.finfo(torch.float64).eps
    torch.testing.assert_close(flow.double(), s / (a + s), rtol=rounding, atol=0)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_coarse_window_gets_the_score_that_its_values_have(prediction: Prediction) -> None:
    """α, σ and the division are no coarser than float32; what is left is the rounding of window and result."""
    window, given = draw(5, 3, DIM).bfloat16(), references(5)
    score = NetworkScore(lambda shown, levels, told, actions: 0.5 * shown, prediction, dtype=torch.float64)
    value = score(window, LEVELS, given)
    assert value.dtype == torch.bfloat16
    exact = score(window.double(), LEVELS, given)
    # Half a last place of 8 bits; float32 adds 1e-7 of numbers that are 1/σ² = 50 times the score at the most.
    torch.testing.assert_close(value.double(), exact, rtol=2**-8, atol=1e-5)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_levels_may_be_told_a_sample_as_well_as_a_frame(prediction: Prediction) -> None:
    covariance, mean = random_video(6, DIM, 0)
    window, given = 2 * draw(5, 3, DIM), references(5)
    levels = LEVELS * torch.linspace(0.5, 2, 5, dtype=torch.float64)[:, None]
    shapes = []

    def network(shown: Tensor, at: Tensor, told: ReferenceBatch, actions: Tensor | None) -> Tensor:
        shapes.append(at.shape)
        rows = []
        for i, own in enumerate(at):
            a, s = scales(own)
            picture = shown[i : i + 1] * (a + s) if prediction == "flow" else shown[i : i + 1]
            one = ReferenceBatch(told.values[i : i + 1], told.levels, told.frames, told.window_frames)
            clean = posterior_mean(covariance, mean, picture, own, one)
            rows.append(output_of(prediction, clean, picture, own))
        return torch.cat(rows)

    # With a clock that changes nothing, so that flow's network knows the OU level.
    score = NetworkScore(network, prediction, clock=lambda level: level, dtype=torch.float64, batch=2)
    value = score(window, levels, given)
    assert shapes == [(2, 3), (2, 3), (1, 3)]
    oracle = OracleScore(covariance, mean, DIM)
    for i, own in enumerate(levels):
        one = ReferenceBatch(given.values[i : i + 1], given.levels, given.frames, given.window_frames)
        # x̂ is good to 1e-15 times a condition number below 20 and is divided by σ² = 0.01.
        torch.testing.assert_close(value[i : i + 1], oracle(window[i : i + 1], own, one), rtol=0, atol=1e-11)


def test_no_windows_give_no_scores() -> None:
    score = NetworkScore(lambda window, levels, told, actions: window, "x0")
    assert score(torch.zeros(0, 3, DIM), LEVELS, references(0)).shape == (0, 3, DIM)


@pytest.mark.parametrize(
    ("output", "got"), [(lambda window: window[:, :1], "(5, 1, 2)"), (lambda window: None, "NoneType")]
)
def test_an_output_of_another_shape_is_refused(output: object, got: str) -> None:
    score = NetworkScore(lambda window, levels, told, actions: output(window), "x0")  # type: ignore[operator]
    with pytest.raises(ValueError, match="window's shape") as caught:
        score(draw(5, 3, DIM), LEVELS, references(5))
    assert got in str(caught.value)


def test_an_unknown_prediction_is_refused() -> None:
    with pytest.raises(ValueError, match="x0, epsilon, v, flow, score, got 'noise'"):
        NetworkScore(lambda window, levels, told, actions: window, "noise")  # type: ignore[arg-type]
    for call in (
        lambda: target("noise", draw(1, 3, 1), draw(1, 3, 1), LEVELS),  # type: ignore[arg-type]
        lambda: denoised("noise", draw(1, 3, 1), draw(1, 3, 1), LEVELS),  # type: ignore[arg-type]
    ):
        with pytest.raises(ValueError, match="got 'noise'"):
            call()
