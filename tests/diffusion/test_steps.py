"""Each reverse step against the equation that it solves or the paper that states it."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from arvdm_theory.diffusion.steps import STEPS, reverse_step

MOVES = [(6.0, 5.7), (2.0, 0.5), (0.3, 1e-6), (1e-3, 0.0)]


def numbers(name: str, level: float, target: float) -> tuple[float, float, float | None]:
    t, s = (torch.tensor(value, dtype=torch.float64) for value in (level, target))
    found = STEPS[name].coefficients(t, s)
    return float(found.window), float(found.score), None if found.variance is None else float(found.variance)


@pytest.mark.parametrize(("level", "target"), MOVES)
def test_exponential_integrator_solves_the_reverse_sde_with_a_frozen_score(level: float, target: float) -> None:
    """dW = (½ W + s) du + dB over u ∈ [0, h]: variation of constants, by quadrature."""
    h = level - target
    window, score, variance = numbers("exponential", level, target)
    assert variance is not None
    # quad's error estimate is below 1e-13 of these smooth integrals.
    assert window == pytest.approx(math.exp(h / 2), rel=1e-15)
    assert score == pytest.approx(quad(lambda u: math.exp((h - u) / 2), 0, h, epsrel=1e-13)[0], rel=1e-12)
    assert variance == pytest.approx(quad(lambda u: math.exp(h - u), 0, h, epsrel=1e-13)[0], rel=1e-12)


def test_euler_maruyama_is_one_step_of_the_reverse_sde() -> None:
    assert numbers("euler", 2.0, 1.5) == (1.25, 0.5, 0.5)


@pytest.mark.parametrize("name", ["ancestral", "ddpm"])
@pytest.mark.parametrize(("level", "target"), MOVES)
def test_ancestral_means_are_those_of_the_clean_frames_estimate(name: str, level: float, target: float) -> None:
    """Ho et al. 2020, eq. 7, with x̂_0 = (x_t + σ_t² s)/√ᾱ_t and one step's β = 1 - ᾱ_t/ᾱ_s."""
    bar_t, bar_s = math.exp(-level), math.exp(-target)
    beta = -math.expm1(-(level - target))
    noise_t, noise_s = -math.expm1(-level), -math.expm1(-target)
    on_clean = math.sqrt(bar_s) * beta / noise_t
    on_state = math.sqrt(1 - beta) * noise_s / noise_t
    window, score, variance = numbers(name, level, target)
    # The two parts add up to 1/a from numbers of that size: rounding at 1e-15.
    assert window == pytest.approx(on_state + on_clean / math.sqrt(bar_t), rel=1e-13)
    assert score == pytest.approx(on_clean * noise_t / math.sqrt(bar_t), rel=1e-13)
    if name == "ancestral":
        assert variance is None  # the exact posterior matrix, which the score alone does not give
    else:
        assert variance == pytest.approx(beta * noise_s / noise_t, rel=1e-13)


@pytest.mark.parametrize(("level", "target"), MOVES)
def test_ddim_is_the_deterministic_step_of_its_authors(level: float, target: float) -> None:
    """Song et al. 2021, eq. 12 with no noise: x_s = α_s x̂_0 + σ_s (x_t - α_t x̂_0)/σ_t."""
    alpha_t, alpha_s = math.exp(-level / 2), math.exp(-target / 2)
    sigma_t, sigma_s = math.sqrt(-math.expm1(-level)), math.sqrt(-math.expm1(-target))
    rng = np.random.default_rng(0)
    x, s = rng.normal(size=5), rng.normal(size=5)
    clean = (x + sigma_t**2 * s) / alpha_t
    expected = alpha_s * clean + sigma_s * (x - alpha_t * clean) / sigma_t
    window, score, variance = numbers("ddim", level, target)
    assert variance == 0.0
    # α_s x̂_0 and the noise part cancel to about (1 - σ_s/σ_t) of themselves, 1/20 at the closest levels here.
    np.testing.assert_allclose(window * x + score * s, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "drift"),
    [(name, 0.5 if name in ("ddim", "heun", "dpm++2m") else 1.0) for name in STEPS if name != "renoise"],
)
def test_small_steps_follow_the_reverse_equation(name: str, drift: float) -> None:
    """(c_w - 1)/h → ½ and c_s/h → 1, or ½ for the probability flow, as h → 0."""
    h = 1e-5
    window, score, variance = numbers(name, 1.0, 1.0 - h)
    # The next order is at most 2h of them; the difference c_w - 1 keeps eleven digits.
    assert (window - 1) / h == pytest.approx(0.5, rel=2 * h)
    assert score / h == pytest.approx(drift, rel=2 * h)
    if name in ("exponential", "euler", "ddpm"):
        assert variance is not None
        assert variance / h == pytest.approx(1.0, rel=2 * h)


@pytest.mark.parametrize(("level", "target"), MOVES)
def test_renoise_is_the_clean_estimate_noised_afresh(level: float, target: float) -> None:
    """x_s = α_s (x_t + σ_t² s)/α_t + σ_s ε: it jumps, however small the step, and follows no reverse equation."""
    kept = math.exp((level - target) / 2)
    window, score, variance = numbers("renoise", level, target)
    assert window == pytest.approx(kept, rel=1e-14)
    assert score == pytest.approx(kept * -math.expm1(-level), rel=1e-13)
    assert variance == pytest.approx(-math.expm1(-target), rel=1e-14)


def test_steps_are_found_by_name() -> None:
    for name, step in STEPS.items():
        assert step.name == name
        assert reverse_step(name) is step
        assert reverse_step(step) is step
    with pytest.raises(ValueError, match=r"exponential, euler, ancestral, ddpm, .* or ddim:η, got 'rk45'"):
        reverse_step("rk45")
