"""Order, shrinkage and memory of short segments: chosen by what is left out, held against laws that are known."""

from functools import cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.linalg import toeplitz

from arvdm_theory import References, ar1, memory_bottleneck, outpainting
from arvdm_theory.laws.autoregression import (
    MIN_WHITE,
    blocks,
    extend,
    lattice_autocovariance,
    log_densities,
    predictors,
    shrink,
)
from arvdm_theory.laws.gaussian import StationaryVideo, separable_video
from arvdm_theory.laws.linear import var
from arvdm_theory.laws.partial_tail import Tail, fit_tail, tail_gain, whitened_errors, with_tail
from arvdm_theory.laws.selection import Choice, choose, gain, model

Array = NDArray[np.float64]

A = np.array(
    [[[0.6, 0.2, 0.0], [-0.3, 0.4, 0.1], [0.1, 0.0, 0.5]], [[-0.2, 0.0, 0.1], [0.0, 0.1, 0.0], [0.0, 0.2, -0.1]]]
)
INNOVATION = np.array([[1.0, 0.3, 0.0], [0.3, 0.5, -0.1], [0.0, -0.1, 0.8]])


def _sample(rng: np.random.Generator, count: int, frames: int) -> Array:
    """Stationary samples (count, frames, 3) of the VAR(2)."""
    video = var(list(A), INNOVATION)
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    return video.sample(count, frames, generator)[:, 0].numpy()


def test_the_choice_pays_on_new_data() -> None:
    """On six short clips of unrelated AR(1)s the choice beats order 8 without shrinkage, on 4000 new frames."""
    rng = np.random.default_rng(11)

    def ar1(count: int, frames: int) -> list[Array]:
        noise = rng.normal(size=(100 + frames, count, 3))
        out = np.zeros_like(noise)
        for t in range(1, len(noise)):
            out[t] = 0.8 * out[t - 1] + 0.6 * noise[t]
        return list(out[100:].swapaxes(0, 1))

    train, new = ar1(6, 25), ar1(8, 500)
    variance = np.ones(3)
    choice = choose(train, variance)
    chosen = shrink(lattice_autocovariance(train, choice.order), choice.cross, choice.white, variance)
    greedy = shrink(lattice_autocovariance(train, 8), 0.0, MIN_WHITE, variance)
    gains = np.array([log_densities(chosen, s)[-1] - log_densities(greedy, s)[-1] for s in new])
    assert gains.mean() > 5 * gains.std(ddof=1) / np.sqrt(len(new))
    assert choice.score is not None


def test_the_choice_finds_a_second_order() -> None:
    choice = choose(list(_sample(np.random.default_rng(5), 5, 400)), np.ones(3))
    assert choice.order >= 2
    assert choice.cross < 0.2


@pytest.mark.parametrize("memory", [True, False])
def test_the_choice_is_scored_on_what_it_left_out(memory: bool) -> None:
    segments = list(_sample(np.random.default_rng(9), 4, 30))
    variance = np.array([1.5, 1.0, 1.2])
    choice = choose(segments, variance, memory=memory)
    assert choice.lags == (29 if memory else choice.order)
    total = np.zeros(4)
    for left_out in range(4):
        rest = [segment for i, segment in enumerate(segments) if i != left_out]
        total[left_out] = log_densities(model(rest, choice, variance)[0], segments[left_out])[-1]
    assert choice.score == pytest.approx(total.sum() / 120, abs=1e-9)
    kept = choice.left_out["long memory" if memory else "short memory"]
    np.testing.assert_allclose(kept, total, atol=1e-7)


def test_a_given_order_is_kept() -> None:
    segments = list(_sample(np.random.default_rng(5), 4, 30))
    assert choose(segments, np.ones(3), order=3).order == 3
    for order in (0, 30):
        with pytest.raises(ValueError, match="order must be from 1 to 29"):
            choose(segments, np.ones(3), order=order)


def test_too_little_to_choose_from() -> None:
    choice = choose([np.array([[1.0], [2.0]])], np.ones(1))
    assert (choice.order, choice.cross, choice.white, choice.score) == (1, 1.0, 1e-2, None)


# -- the tail ------------------------------------------------------------------------------------------------


def test_the_tail_of_fractional_noise_is_exact() -> None:
    """Hosking 1981: the k-th partial correlation of (1 - B)^{-d} is d/(k - d); Γ(k)/Γ(k-1) = (k-1+d)/(k-d)."""
    d, lags = 0.35, 50
    ratio = [(k - 1 + d) / (k - d) for k in range(1, lags + 1)]
    true = np.cumprod([1.0, *ratio])[:, None, None]
    # From p = 1 on: j = k - 2, d/(2 - d + j) = a/(1 + s j).
    tail = Tail(np.array([d / (2 - d)]), 1.0, 1 / (2 - d))
    np.testing.assert_allclose(with_tail(true[:2], tail, lags), true, atol=1e-12)


def test_the_tail_of_a_constant_level_is_exact() -> None:
    """A level of variance 1 in white noise of variance v: the k-th partial correlation is 1/(k + v)."""
    v, lags = 3.0, 30
    true = np.array([1 + v, *np.ones(lags)])[:, None, None]
    tail = Tail(np.array([1 / (2 + v)]), 1.0, 1 / (2 + v))
    np.testing.assert_allclose(with_tail(true[:2], tail, lags), true, atol=1e-12)


def test_without_strength_the_autoregression_goes_on() -> None:
    gamma = var(list(A), INNOVATION).covariance(3)[0].numpy()[:, :3].reshape(3, 3, 3)
    np.testing.assert_allclose(with_tail(gamma, Tail(np.zeros(3), 0.9, 0.1), 20), extend(gamma, 21), atol=1e-12)


@pytest.mark.parametrize("frames", [4, 9, 30])
def test_the_gain_of_a_tail_is_a_difference_of_dense_densities(frames: int) -> None:
    """Two routes: scalar lattices on whitened errors, and the exact density of the extended Γ."""
    gamma = var(list(A), INNOVATION).covariance(3)[0].numpy()[:, :3].reshape(3, 3, 3)
    tail = Tail(np.array([0.4, -0.2, 0.1]), 0.9, 0.2)
    segment = np.random.default_rng(frames).normal(size=(frames, 3))
    steps = list(predictors(blocks(gamma)))
    (errors,) = whitened_errors(steps, [segment])
    long = log_densities(with_tail(gamma, tail, 12), segment)[-1]
    assert tail_gain(tail, 10, errors)[0] == pytest.approx(long - log_densities(gamma, segment)[-1], abs=1e-10)


def test_unrelated_coordinates_are_scalar_sequences() -> None:
    """Diagonal Γ as K scalar blocks, against each coordinate by itself and against one block."""
    rng = np.random.default_rng(0)
    segments = [rng.normal(size=(25, 3)).cumsum(0) for _ in range(4)]
    gamma = lattice_autocovariance(segments, 5, unrelated=True)
    assert blocks(gamma).shape == (6, 3, 1, 1)
    for k in range(3):
        alone = lattice_autocovariance([segment[:, k : k + 1] for segment in segments], 5)
        np.testing.assert_allclose(gamma[:, k, k], alone[:, 0, 0], rtol=1e-12)
    as_one = list(predictors(gamma[:, None]))
    np.testing.assert_allclose(log_densities(gamma, segments[0]), log_densities(as_one, segments[0]), rtol=1e-10)
    np.testing.assert_allclose(extend(gamma, 20)[-1], np.diag(np.diag(extend(gamma, 20)[-1])))


def test_the_tail_is_found() -> None:
    """60 clips of 128 frames of fractional noise: a partial correlation has an error of 1/√(60·128) = 0.011."""
    d = 0.35
    true = np.cumprod([1.0, *[(k - 1 + d) / (k - d) for k in range(1, 128)]])
    factor = np.linalg.cholesky(toeplitz(true))
    rng = np.random.default_rng(3)
    segments = [factor @ rng.normal(size=(128, 2)) for _ in range(60)]
    head = true[:2, None, None] * np.eye(2)
    tail = fit_tail(whitened_errors(list(predictors(blocks(head))), segments), 60)
    expected = d / (np.arange(2, 62) - d)
    # Two parameters of the shape share the information of 60 lags: nowhere is the error larger than of one lag.
    assert np.abs(tail.partials(60) - expected[:, None]).max() < 5 * 0.011


def test_the_error_of_a_gain() -> None:
    assert gain(np.array([2.0, 0.0]), np.zeros(2), [1, 1]) == (pytest.approx(1.0), pytest.approx(1.0))
    assert gain(np.array([2.0]), np.zeros(1), [4]) == (0.5, None)


# -- known laws ----------------------------------------------------------------------------------------------


def _arma(lags: torch.Tensor) -> torch.Tensor:
    """A slow auto-regression in white noise: ARMA(1, 1) of long memory, the mean life 25 frames."""
    return torch.where(lags == 0, torch.ones_like(lags), 0.5 * 0.96**lags)


def _fractional(lags: torch.Tensor) -> torch.Tensor:
    """(1 - B)^{-0.4}: Γ(l) = Γ(l + d) Γ(1 - d)/(Γ(l + 1 - d) Γ(d))."""
    d = torch.tensor(0.4, dtype=torch.float64)
    log = torch.lgamma(lags + d) + torch.lgamma(1 - d) - torch.lgamma(lags + 1 - d) - torch.lgamma(d)
    return torch.exp(log)


B = [[1.0, 0.3], [0.3, 0.5]]
KNOWN: dict[str, StationaryVideo] = {
    "AR(1)": ar1(0.9, B),
    "AR(2)": var([np.diag([1.5, 1.2]), np.diag([-0.7, -0.5])], B),
    "ARMA": separable_video(_arma, B),
    "fractional": separable_video(_fractional, B),
}


@cache
def _fitted(name: str) -> tuple[StationaryVideo, Choice, Array, list[Array]]:
    """The true law, what was chosen from 24 clips of 128 frames, its Γ, and 40 new clips."""
    true = KNOWN[name]
    samples = true.sample(64, 128, torch.Generator().manual_seed(5))[:, 0].numpy()
    train, new = list(samples[:24]), list(samples[24:])
    variance = (np.concatenate(train) ** 2).mean(0)
    choice = choose(train, variance)
    return true, choice, model(train, choice, variance)[0], new


@pytest.mark.parametrize("name", KNOWN)
def test_known_laws_are_recovered(name: str) -> None:
    """On new clips the fit loses little to the true law, and the true law never loses but by chance.

    Maximum likelihood loses half a nat a parameter per training set: 3072 frames and up to some 20 parameters (two
    partial correlation matrices, Γ(0), a tail) are 0.003 nats a frame; three times that is allowed.
    """
    true, _, gamma, new = _fitted(name)
    exact = log_densities(true.autocovariance(128)[0].numpy(), new[0])[-1]
    dense = torch.distributions.MultivariateNormal(torch.zeros(256).double(), true.covariance(128)[0])
    assert exact == pytest.approx(float(dense.log_prob(torch.from_numpy(new[0].ravel()))), abs=1e-6)
    steps, own = (list(predictors(blocks(g))) for g in (true.autocovariance(128)[0].numpy(), gamma))
    lost = np.array([log_densities(steps, clip)[-1] - log_densities(own, clip)[-1] for clip in new]) / 128
    error = lost.std(ddof=1) / np.sqrt(len(lost))
    assert -3 * error < lost.mean() < 0.01


@pytest.mark.parametrize("name", KNOWN)
def test_the_bottleneck_against_references_is_the_true_ones(name: str) -> None:
    """MB of the next frame given the last m: near the truth at every m, and never 0 where the truth is not.

    A tail's partial correlations have errors of about 0.01 to 0.02 (two parameters from 3072 frames of two
    coordinates); the bottleneck is about Σ ρ_k²/2 over the lags beyond m and both coordinates, so its error is
    about √Σ ρ_k² · 0.02, or 0.02² a lag where the truth is 0.
    """
    true, _, gamma, _ = _fitted(name)
    fitted = StationaryVideo(lambda lags: torch.from_numpy(extend(gamma, lags))[None], 2)
    step = 60
    for m in (1, 2, 4, 8, 16):
        plan = outpainting(1, References.last(m))
        found, exact = (float(memory_bottleneck(video, plan, step)) for video in (fitted, true))
        assert abs(found - exact) < 0.01 + 0.25 * exact, (m, found, exact)
        if exact > 0.01:
            assert found > 0.5 * exact


def test_short_and_long_memory_can_be_told_apart() -> None:
    """Long memory gains on fractional noise and on the slow ARMA, many errors; nothing beyond them on AR(1)."""
    for name, least in (("ARMA", 3.0), ("fractional", 3.0)):
        _, choice, _, _ = _fitted(name)
        capped = choose(_training(name), np.ones(2), order=2)
        more, error = gain(capped.left_out["long memory"], capped.left_out["short memory"], capped.frames)
        assert error is not None
        assert more > least * error, (name, more, error)
        assert choice.lags == 64
    _, choice, _, _ = _fitted("AR(1)")
    more, error = gain(choice.left_out["long memory"], choice.left_out["short memory"], choice.frames)
    assert abs(more) < 0.005


def _training(name: str) -> list[Array]:
    return list(KNOWN[name].sample(64, 128, torch.Generator().manual_seed(5))[:24, 0].numpy())


def test_memory_can_be_asked_for() -> None:
    segments = _training("fractional")
    for memory, lags in ((True, 64), (False, 2)):
        choice = choose(segments, np.ones(2), order=2, memory=memory)
        assert choice.lags == lags
        assert len(model(segments, choice, np.ones(2))[0]) == lags + 1


def test_groups_are_left_out_together() -> None:
    """Every clip twice: as groups the scores are those of clips once, and left out apart they are flattered."""
    segments = list(_sample(np.random.default_rng(2), 6, 20))
    variance = np.ones(3)
    once = choose(segments, variance, order=4, memory=False)
    twice = choose(segments * 2, variance, order=4, memory=False, groups=[*range(6)] * 2)
    apart = choose(segments * 2, variance, order=4, memory=False)
    assert twice.score is not None
    assert once.score is not None
    assert apart.score is not None
    assert twice.score == pytest.approx(once.score, abs=1e-6)
    assert apart.score > once.score + 0.05


def test_few_frames_of_many_coordinates_are_taken_as_unrelated() -> None:
    rng = np.random.default_rng(1)
    segments = [rng.normal(size=(30, 40)).cumsum(0) for _ in range(4)]
    choice = choose(segments, np.ones(40))
    assert choice.cross == 1
    assert blocks(model(segments, choice, np.ones(40))[0]).shape[1:] == (40, 1, 1)
