"""I-MMSE against closed forms of Gaussian and finite laws: by quadrature, and sampled within standard errors."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from arvdm_theory.information.discrete import FiniteLaw
from arvdm_theory.information.discrete import conditional_mutual_information as finite_information
from arvdm_theory.information.estimators import EstimationWarning, SampleError
from arvdm_theory.information.estimators.immse import (
    SNRGrid,
    from_ou_denoiser,
    from_ou_score,
    immse_information,
    immse_integral,
    information_from_losses,
)
from arvdm_theory.information.gaussian import condition, conditional_mutual_information
from arvdm_theory.noise import clock_from_snr
from arvdm_theory.number import Number

Array = NDArray[np.float64]

# The samples' law: Out in R³, Past in R², In in R².
OUT, PAST, IN = range(3), range(3, 5), range(5, 7)


def random_covariance(seed: int, n: int = 7) -> Tensor:
    matrix = torch.from_numpy(np.random.default_rng(seed).normal(size=(n, n)))
    return matrix @ matrix.T / n + 0.3 * torch.eye(n, dtype=torch.float64)


def mmse(covariance: Tensor, snr: Array) -> Array:
    """tr (C^{-1} + snr I)^{-1}."""
    spectrum = torch.linalg.eigvalsh(covariance).numpy()
    return (1 / (1 / spectrum + snr[:, None])).sum(1)


class GaussianDenoiser:
    """E[Out | √snr Out + N, conditions] of a centred Gaussian law, with ``indices`` those of the conditions."""

    def __init__(self, covariance: Tensor, indices: list[int]) -> None:
        self.gain, self.residual = condition(covariance, list(OUT), indices)

    def __call__(self, noisy: Tensor, snr: float, /, *conditions: Tensor) -> Tensor:
        prior = torch.cat(conditions, 1) @ self.gain.T if conditions else torch.zeros_like(noisy)
        eye = torch.eye(len(self.residual), dtype=noisy.dtype)
        gain = torch.linalg.solve(snr * self.residual + eye, math.sqrt(snr) * self.residual).T
        return prior + (noisy - math.sqrt(snr) * prior) @ gain


def gaussian_samples(covariance: Tensor, n: int, seed: int) -> tuple[Array, Array, Array]:
    factor = torch.linalg.cholesky(covariance).numpy()
    rows = np.random.default_rng(seed).normal(size=(n, len(covariance))) @ factor.T
    return rows[:, list(OUT)], rows[:, list(IN)], rows[:, list(PAST)]


# -- exact losses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("given", [[], list(IN)])
def test_exact_gaussian_losses_give_the_closed_form(seed: int, given: list[int]) -> None:
    covariance = random_covariance(seed)
    without = condition(covariance, list(OUT), given)[1]
    told = condition(covariance, list(OUT), [*given, *PAST])[1]
    grid = SNRGrid(1e-6, 1e6)
    found = immse_integral(lambda snr: mmse(without, snr) - mmse(told, snr), grid)
    truth = float(conditional_mutual_information(covariance, list(OUT), list(PAST), given))
    # Continued tails leave O((low · variance)² + (1/(high · smallest variance))²), here < 1e-10; the rule 1e-15.
    assert found == pytest.approx(truth, abs=1e-9)


def test_the_spacing_converges_exponentially() -> None:
    """The rule's error is at most about (8π²/h) e^{-2π²/h}, and where that can be seen not far below it."""
    for spacing in (1.0, 1.5, 2.0, 3.0):
        # log high/low is a multiple of all four spacings, so that each is used as it is.
        grid = SNRGrid(math.exp(-18), math.exp(18), spacing)
        found = immse_integral(lambda snr: 1 / (1 + snr) - 1 / (7 + snr), grid)
        bound = 8 * math.pi**2 / spacing * math.exp(-2 * math.pi**2 / spacing)
        tails = 7**2 * math.exp(-36)
        assert abs(found - math.log(7) / 2) <= bound + tails
        if spacing > 1.4:  # below, it is buried in what the tails leave
            assert abs(found - math.log(7) / 2) > bound / 100


def test_continued_tails_and_their_bounds() -> None:
    """With variances 1 and ¼ the integral from 0 to s is ½ log (1 + s) - ½ log (1 + s/4)."""
    grid = SNRGrid(0.01, 300.0)

    def up_to(snr: float) -> float:
        return (math.log1p(snr) - math.log1p(snr / 4)) / 2

    low, high = grid.tail_bounds(variance=1.0, fisher_information=4.0)
    assert 0 < up_to(grid.low) < low
    beyond = math.log(2) - up_to(grid.high)
    assert 0 < beyond < high
    found = immse_integral(lambda snr: 1 / (1 + snr) - 1 / (4 + snr), grid)
    # Low end: ¼ low² E|Out - E[Out | In]|⁴ with fourth moment 3. High end: gap · snr² = 3 + O(15/snr).
    assert abs(found - math.log(2)) < 0.75 * grid.low**2 + 15 / grid.high**2
    assert abs(found - math.log(2)) < beyond / 10


def test_weights_are_those_of_the_whole_line() -> None:
    """The gap 1 + 3/snr, continued as a constant downwards and as 1/snr² upwards, over 400 more nodes."""
    grid = SNRGrid(1e-3, 1e3, 0.7)
    steps = len(grid.nodes) - 1
    h = math.log(1e6) / steps
    assert h <= 0.7
    k = np.arange(-200, steps + 201)
    far, inside = 1e-3 * np.exp(h * k), 1e-3 * np.exp(h * np.clip(k, 0, steps))
    gap = (1 + 3 / inside) * np.where(k > steps, (1e3 / far) ** 2, 1.0)
    assert immse_integral(lambda snr: 1 + 3 / snr, grid) == pytest.approx((h * far * gap).sum() / 2, rel=1e-12)


# -- a finite Out: exact posterior means ----------------------------------------------------------------

VALUES = np.array([-1.5, 0.2, 2.0])


def finite_law() -> FiniteLaw:
    """Out in three points of the line, Past and In binary; all depend on each other."""
    return FiniteLaw.from_weights(
        np.random.default_rng(3).uniform(0.2, 2.0, size=(3, 2, 2)), ("out", "past", "in")
    )


def posterior_mean(noisy: Array, snr: float, prior: Array) -> Array:
    """E[Out | √snr Out + N] under priors (n, 3)."""
    log_weight = np.log(prior) - (noisy[:, None] - math.sqrt(snr) * VALUES) ** 2 / 2
    weight = np.exp(log_weight - log_weight.max(1, keepdims=True))
    return weight @ VALUES / weight.sum(1)


def priors(given_past: bool) -> Array:
    """P(out | past, in) as (past, in, out); without Past it is the same for both pasts."""
    joint = finite_law().probabilities
    if not given_past:
        joint = np.broadcast_to(joint.sum(1, keepdims=True), joint.shape)
    return (joint / joint.sum(0)).transpose(1, 2, 0)


def test_a_finite_law_by_quadrature_over_the_noise() -> None:
    joint = finite_law().probabilities
    # The trapezoidal rule in the noise: the posterior mean's nearest pole is at π/(√snr |Δ|) ≥ 0.089 (snr = 100,
    # Δ = 3.5), so spacing 0.01 leaves e^{-2π · 0.089/0.01} of it, and the density at 12 is 1e-32.
    points = np.arange(-12, 12.001, 0.01)
    weight = 0.01 * np.exp(-(points**2) / 2) / math.sqrt(2 * math.pi)

    def loss(snr: float, prior: Array) -> float:
        total = 0.0
        for out, past, given in itertools.product(range(3), range(2), range(2)):
            noisy = math.sqrt(snr) * VALUES[out] + points
            mean = posterior_mean(noisy, snr, np.broadcast_to(prior[past, given], (len(points), 3)))
            total += joint[out, past, given] * float(weight @ (VALUES[out] - mean) ** 2)
        return total

    def gap(snr: Array) -> Array:
        return np.array([loss(s, priors(False)) - loss(s, priors(True)) for s in snr])

    truth = finite_information(finite_law(), "out", "past", "in")
    # The strip in which this gap is analytic is narrower than a Gaussian's: spacing ½ leaves 1e-8, and half of it
    # the square of that. The ends leave (1e-6)² and e^{-100 · 1.7²/8}.
    assert immse_integral(gap, SNRGrid(1e-6, 100.0)) == pytest.approx(truth, abs=1e-7)
    assert immse_integral(gap, SNRGrid(1e-6, 100.0, 0.25)) == pytest.approx(truth, abs=1e-11)


def test_sampled_losses_of_a_finite_law() -> None:
    joint = finite_law().probabilities
    truth = finite_information(finite_law(), "out", "past", "in")

    class Denoise:
        def __init__(self, table: Array) -> None:
            self.table = table

        def __call__(self, noisy: Tensor, snr: float, /, *conditions: Tensor) -> Tensor:
            given = conditions[0][:, 0].long().numpy()
            past = conditions[1][:, 0].long().numpy() if len(conditions) > 1 else np.zeros_like(given)
            return torch.from_numpy(posterior_mean(noisy[:, 0].numpy(), snr, self.table[past, given]))[:, None]

    out, past, given = np.unravel_index(np.random.default_rng(0).choice(12, 20_000, p=joint.ravel()), joint.shape)
    for form in ("losses", "difference"):
        found = immse_information(
            VALUES[out],
            given,
            past,
            Denoise(priors(False)),
            Denoise(priors(True)),
            SNRGrid(1e-3, 100.0),
            form=form,
        )
        assert abs(found.value - truth) < 4 * found.stderr
        assert found.stderr < 0.01


# -- Gaussian denoisers on samples ----------------------------------------------------------------------

GRID = SNRGrid(0.01, 300.0)


def estimate(seed: int, form: str = "losses", n: int = 1500, covariance_seed: int = 1) -> Number:
    covariance = random_covariance(covariance_seed)
    without = GaussianDenoiser(covariance, list(IN))
    told = GaussianDenoiser(covariance, [*IN, *PAST])
    out, given, past = gaussian_samples(covariance, n, seed)
    return immse_information(out, given, past, without, told, GRID, form=form, seed=seed + 1000)


def gaussian_truth(seed: int = 1) -> float:
    return float(conditional_mutual_information(random_covariance(seed), list(OUT), list(PAST), list(IN)))


@pytest.mark.parametrize("form", ["losses", "difference"])
def test_sampled_gaussian_losses_within_their_standard_errors(form: str) -> None:
    truth = gaussian_truth()
    scores = np.array([(e.value - truth) / e.stderr for e in (estimate(seed, form) for seed in range(20))])
    # Σ z² of 20 normal scores lies between the chi-square quantiles at 1e-4 and 1 - 1e-4: 4.4 and 52.4.
    assert 4.4 < float((scores**2).sum()) < 52.4
    assert np.abs(scores).max() < 4.5


def test_exact_denoisers_are_within_one_per_cent() -> None:
    """The difference form on so many samples that three of its standard errors are below 1 % of the truth."""
    found, truth = estimate(1, "difference", 115_000), gaussian_truth()
    assert 3 * found.stderr < 0.01 * truth
    assert found.value == pytest.approx(truth, rel=0.01)


def test_the_difference_form_has_less_noise() -> None:
    assert estimate(0, "difference").stderr < 0.5 * estimate(0, "losses").stderr


def test_losses_handed_over_are_the_same_estimate() -> None:
    covariance = random_covariance(1)
    out, given, past = (torch.from_numpy(array) for array in gaussian_samples(covariance, 300, 5))
    generator = torch.Generator().manual_seed(7)
    losses: list[list[Tensor]] = [[], []]
    for snr in GRID.nodes:
        noisy = math.sqrt(snr) * out + torch.randn(out.shape, dtype=torch.float64, generator=generator)
        for kept, denoiser, known in (
            (losses[0], GaussianDenoiser(covariance, list(IN)), (given,)),
            (losses[1], GaussianDenoiser(covariance, [*IN, *PAST]), (given, past)),
        ):
            kept.append(((denoiser(noisy, snr, *known) - out) ** 2).sum(1))
    by_hand = information_from_losses(*(torch.stack(kept, 1).numpy() for kept in losses), GRID)
    run = immse_information(
        out.numpy(), given.numpy(), past.numpy(), GaussianDenoiser(covariance, list(IN)),
        GaussianDenoiser(covariance, [*IN, *PAST]), GRID, seed=7, batch=10_000,
    )  # fmt: skip
    assert by_hand.value == pytest.approx(run.value, rel=1e-9)
    assert by_hand.stderr == pytest.approx(run.stderr, rel=1e-9)


def test_a_bad_denoiser_gives_the_difference_of_excess_losses_and_may_be_negative() -> None:
    """A denoiser with Past that is off by b everywhere loses ½ ∫ |b|² d snr, here over the grid's weights."""
    covariance = random_covariance(1)
    told, without = GaussianDenoiser(covariance, [*IN, *PAST]), GaussianDenoiser(covariance, list(IN))

    def off(noisy: Tensor, snr: float, /, *conditions: Tensor) -> Tensor:
        return told(noisy, snr, *conditions) + 0.4 / (1 + snr)

    def useless(noisy: Tensor, snr: float, /, given: Tensor, past: Tensor) -> Tensor:
        """Does not look at Past, and is off by as much."""
        return without(noisy, snr, given) + 0.4 / (1 + snr)

    out, given, past = gaussian_samples(covariance, 4000, 2)
    excess = float((GRID.weights * 3 * 0.16 / (1 + GRID.nodes) ** 2).sum())
    found = immse_information(out, given, past, without, off, GRID)
    assert abs(found.value - (gaussian_truth() - excess)) < 4 * found.stderr
    found = immse_information(out, given, past, without, useless, GRID)
    assert abs(found.value + excess) < 4 * found.stderr
    assert found.ci_high < 0


def test_denoisers_and_scores_of_the_ou_clock() -> None:
    covariance = random_covariance(2)
    plain = GaussianDenoiser(covariance, list(IN))
    gain, residual = condition(covariance, list(OUT), list(IN))

    def ou_denoiser(state: Tensor, level: float, /, *conditions: Tensor) -> Tensor:
        """E[Out | X^t, In] = prior + α C (α² C + σ² I)^{-1} (X^t - α prior)."""
        a, v = math.exp(-level / 2), -math.expm1(-level)
        prior = conditions[0] @ gain.T
        whole = a * a * residual + v * torch.eye(3, dtype=torch.float64)
        return prior + torch.linalg.solve(whole, (state - a * prior).T).T @ (a * residual)

    def ou_score(state: Tensor, level: float, /, *conditions: Tensor) -> Tensor:
        a, v = math.exp(-level / 2), -math.expm1(-level)
        whole = a * a * residual + v * torch.eye(3, dtype=torch.float64)
        return -torch.linalg.solve(whole, (state - a * conditions[0] @ gain.T).T).T

    noisy, given = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 5, 3)))
    given = given[:, :2]
    for snr in (1e-3, 0.7, 40.0):
        level = float(clock_from_snr(snr))
        assert snr == pytest.approx(1 / math.expm1(level), rel=1e-12)
        expected = plain(noisy, snr, given)
        for adapted in (from_ou_denoiser(ou_denoiser), from_ou_score(ou_score)):
            # Tweedie divides by α: rounding grows as 1/α = (1 + 1/snr)^½ < 40.
            torch.testing.assert_close(adapted(noisy, snr, given), expected, rtol=1e-11, atol=1e-12)


def test_the_same_seed_gives_the_same_estimate_and_leaves_the_global_generators_alone() -> None:
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    assert estimate(3, n=100).ends() == estimate(3, n=100).ends()
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002


def test_several_draws_are_averaged_within_a_sample() -> None:
    covariance = random_covariance(1)
    out, given, past = gaussian_samples(covariance, 400, 5)
    denoisers = GaussianDenoiser(covariance, list(IN)), GaussianDenoiser(covariance, [*IN, *PAST])
    one = immse_information(out, given, past, *denoisers, GRID)
    many = immse_information(out, given, past, *denoisers, GRID, draws=16, batch=1000)
    assert many.n == one.n == 400
    assert many.stderr < one.stderr  # what is left is the spread of the samples themselves
    assert abs(many.value - gaussian_truth()) < 4 * many.stderr


# -- warnings and refusals ------------------------------------------------------------------------------


def test_warns_of_a_grid_that_ends_too_early() -> None:
    covariance = random_covariance(1)
    out, given, past = gaussian_samples(covariance, 4000, 0)
    denoisers = GaussianDenoiser(covariance, list(IN)), GaussianDenoiser(covariance, [*IN, *PAST])
    with pytest.warns(EstimationWarning, match="from beyond 0.5, where nothing was evaluated"):
        found = immse_information(out, given, past, *denoisers, SNRGrid(0.01, 0.5), form="difference")
    assert len(found.warnings) == 1


def test_refuses_what_is_no_estimate() -> None:
    for low, high in ((0.0, 1.0), (1.0, 1.0), (1.0, math.inf), (math.nan, 1.0)):
        with pytest.raises(SampleError, match="0 < low < high < ∞"):
            SNRGrid(low, high)
    with pytest.raises(SampleError, match="spacing in log snr must be positive"):
        SNRGrid(0.1, 1.0, 0.0)
    with pytest.raises(SampleError, match="finite numbers, one a node"):
        immse_integral(lambda snr: 1.0, GRID)
    losses = np.zeros((5, len(GRID.nodes)))
    with pytest.raises(SampleError, match=r"losses must have shape \(n, 22\) with n ≥ 2, got \(5, 3\)"):
        information_from_losses(losses[:, :3], losses, GRID)
    with pytest.raises(SampleError, match="same samples, got 5 and 4"):
        information_from_losses(losses, losses[:4], GRID)
    bad = losses.copy()
    bad[3, 1] = np.nan
    with pytest.raises(SampleError, match="with Past are not finite in 1 of 5 rows, first in row 3"):
        information_from_losses(losses, bad, GRID)

    def run(denoiser: object, **options: object) -> Number:
        x = np.random.default_rng(0).normal(size=(6, 1))
        return immse_information(x, options.pop("given", None), x, denoiser, denoiser, GRID, **options)

    def keep(noisy: Tensor, snr: float, *conditions: Tensor) -> Tensor:
        return noisy

    with pytest.raises(SampleError, match="'losses' or 'difference', got 'gap'"):
        run(keep, form="gap")
    with pytest.raises(SampleError, match="at least one draw"):
        run(keep, draws=0)
    with pytest.raises(SampleError, match=r"same 2 or more rows, got \[6, 4, 6\]"):
        run(keep, given=np.arange(4.0))
    with pytest.raises(SampleError, match=r"shape \(6, 1\) of Out, got \(6,\)"):
        run(lambda noisy, snr, *c: noisy[:, 0])
    with pytest.raises(SampleError, match="of Out, got float"):
        run(lambda noisy, snr, *c: 0.0)
    with pytest.raises(SampleError, match=r"not finite at snr 0\.01"):
        run(lambda noisy, snr, *c: noisy / 0)
