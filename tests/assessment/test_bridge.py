"""A network of pictures, seen from the modes of a fitted video."""

import numpy as np
import pytest
import torch
from picture_clips import PictureNetwork, clips

from arvdm_theory import NetworkScore, PerturbedScore, References, fit_video, ledger, outpainting
from arvdm_theory.assessment.bridge import PictureScore, plan_of_modes
from arvdm_theory.noise import alpha, noised, sigma2

VIDEO, _ = fit_video(clips(), 2, 1, 0.0)
PLAN = plan_of_modes(outpainting(2, References.last(2, 0.05), 3, 3, 5.0, 0.02), VIDEO.scale)


@pytest.mark.parametrize("error", [0.0, 0.1])
def test_a_network_that_knows_the_pictures_has_the_ledger_of_the_modes(error: float) -> None:
    network = NetworkScore(PictureNetwork(VIDEO, error), "x0", dtype=torch.float64)  # type: ignore[arg-type]
    found = ledger(VIDEO, PLAN, 2, score=PictureScore(network, VIDEO))
    exact = ledger(VIDEO, PLAN, 2, score=PerturbedScore(error) if error else None)
    assert found.stderr == {}
    # Through pictures and back: sums of 16 products, over σ² ≥ 0.02.
    np.testing.assert_allclose(found.table.value, exact.table.value, rtol=1e-9, atol=1e-9)


def test_noisy_modes_become_noisy_pictures_of_equal_signal_to_noise() -> None:
    """Y - α' m has the modes α' s z + σ' ε; outside their span it is white noise of variance σ'²."""
    score = PictureScore(lambda window, levels, references: window, VIDEO)
    levels = torch.tensor([0.3, 2.0], dtype=torch.float64)
    clean = VIDEO.draw(4000, 2, torch.Generator().manual_seed(0)).frames
    modes = noised(clean, levels, noise=torch.Generator().manual_seed(1))
    pixel = score._level(levels)
    np.testing.assert_allclose(torch.expm1(pixel), VIDEO.scale**2 * torch.expm1(levels), rtol=1e-13)
    shown = score._pictures(modes, levels, 0) - alpha(pixel)[:, None] * score._mean
    inside = shown @ score._basis.T
    noise = inside - alpha(pixel)[:, None] * VIDEO.scale * clean
    outside = shown - inside @ score._basis
    # 8000 numbers a level inside, 56000 outside: a variance is off by √(2/n) of itself, four times that.
    for j in range(2):
        assert float(noise[:, j].var() / sigma2(pixel)[j]) == pytest.approx(1, abs=0.07)
        assert float((outside[:, j] ** 2).sum() / 4000 / 14 / sigma2(pixel)[j]) == pytest.approx(1, abs=0.03)
        assert abs(float(torch.corrcoef(torch.stack([noise[:, j, 0], clean[:, j, 0]]))[0, 1])) < 4 / 4000**0.5


def test_a_plan_of_pictures_keeps_its_requirements_and_its_signal_to_noise() -> None:
    plan = outpainting(2, References.last(2, 0.1), 4, 4, 6.0, 0.01)
    own = plan_of_modes(plan, 3.0)
    for row, other in zip(plan.ar_grid, own.ar_grid, strict=True):
        np.testing.assert_allclose(np.expm1(row), 9 * np.expm1(other), rtol=1e-12)
    assert np.expm1(plan.references.picks[0].level) == pytest.approx(9 * np.expm1(own.references.picks[0].level))
