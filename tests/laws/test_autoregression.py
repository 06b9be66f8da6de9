"""The lattice against dense linear algebra, known autoregressions, and segments with nothing to learn from."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.linalg import solve_discrete_lyapunov
from scipy.stats import multivariate_normal

from arvdm_theory.information.gaussian import NotPositiveDefiniteError, condition
from arvdm_theory.laws.autoregression import (
    MIN_WHITE,
    extend,
    lattice_autocovariance,
    log_densities,
    predictors,
    shrink,
)

Array = NDArray[np.float64]

A = np.array(
    [[[0.6, 0.2, 0.0], [-0.3, 0.4, 0.1], [0.1, 0.0, 0.5]], [[-0.2, 0.0, 0.1], [0.0, 0.1, 0.0], [0.0, 0.2, -0.1]]]
)
INNOVATION = np.array([[1.0, 0.3, 0.0], [0.3, 0.5, -0.1], [0.0, -0.1, 0.8]])


def _companion() -> Array:
    return np.block([[A[0], A[1]], [np.eye(3), np.zeros((3, 3))]])


def _autocovariance(lags: int) -> Array:
    """Γ(l) = the top left block of C^l P, P solving P = C P C^T + Q for the companion matrix C."""
    step = _companion()
    noise = np.zeros((6, 6))
    noise[:3, :3] = INNOVATION
    state = solve_discrete_lyapunov(step, noise)
    return np.stack([(np.linalg.matrix_power(step, lag) @ state)[:3, :3] for lag in range(lags)])


def _toeplitz(gamma: Array) -> Array:
    n = len(gamma)
    return np.block([[gamma[i - j] if i >= j else gamma[j - i].T for j in range(n)] for i in range(n)])


def _sample(rng: np.random.Generator, count: int, frames: int) -> Array:
    """Stationary samples (count, frames, 3), by running the recursion in."""
    run_in = 200  # the companion matrix has spectral radius 0.62: 0.62^200 is nothing
    noise = rng.normal(size=(run_in + frames, count, 3)) @ np.linalg.cholesky(INNOVATION).T
    out = np.zeros((run_in + frames, count, 3))
    for t in range(2, run_in + frames):
        out[t] = out[t - 1] @ A[0].T + out[t - 2] @ A[1].T + noise[t]
    return out[run_in:].swapaxes(0, 1)


def test_predictors_are_dense_regressions() -> None:
    gamma = _autocovariance(5)
    gamma[1:] *= 0.9  # no longer an autoregression of order 2: every order of prediction is different
    steps = list(predictors(gamma))
    for k, step in enumerate(steps):
        covariance = torch.from_numpy(_toeplitz(gamma[: k + 1]))
        newest, oldest = list(range(3 * k, 3 * k + 3)), list(range(3))
        gain, left = condition(covariance, newest, list(range(3 * k)))
        forward = np.concatenate(
            [gain.numpy()[:, 3 * i : 3 * i + 3][None] for i in reversed(range(k))] or [step.forward]
        )
        np.testing.assert_allclose(step.forward, forward, atol=1e-12)
        np.testing.assert_allclose(step.forward_factor @ step.forward_factor.T, left.numpy(), atol=1e-12)
        gain, left = condition(covariance, oldest, list(range(3, 3 * k + 3)))
        backward = np.concatenate([gain.numpy()[:, 3 * i : 3 * i + 3][None] for i in range(k)] or [step.backward])
        np.testing.assert_allclose(step.backward, backward, atol=1e-12)
        np.testing.assert_allclose(step.backward_factor @ step.backward_factor.T, left.numpy(), atol=1e-12)


def test_predictors_recover_the_autoregression() -> None:
    *_, last = predictors(_autocovariance(3))
    np.testing.assert_allclose(last.forward, A, atol=1e-12)
    np.testing.assert_allclose(last.forward_factor @ last.forward_factor.T, INNOVATION, atol=1e-12)


def test_extension_is_the_companion_matrix_power() -> None:
    np.testing.assert_allclose(extend(_autocovariance(3), 40), _autocovariance(40), atol=1e-12)
    np.testing.assert_array_equal(extend(_autocovariance(3), 2), _autocovariance(3)[:2])


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 9])
def test_log_densities_are_those_of_the_dense_gaussian(frames: int) -> None:
    gamma = _autocovariance(4)
    gamma[1:] *= 0.9
    segment = np.random.default_rng(frames).normal(size=(frames, 3))
    values = log_densities(gamma, segment)
    for q in range(4):
        dense = _toeplitz(extend(gamma[: q + 1], frames))
        assert values[q] == pytest.approx(multivariate_normal(cov=dense).logpdf(segment.ravel()), abs=1e-10)


def test_the_lattice_recovers_a_known_autocovariance() -> None:
    """Γ̂ averaged over 60 repetitions, within 5 of its own standard errors.

    The lattice's bias is O(1/N) with N = 2000 frames a repetition, below a standard error of O(1/√(60 N)); of
    27 normal entries the largest exceeds 5 standard errors with probability 1.5e-5.
    """
    rng = np.random.default_rng(7)
    repetitions, clips, frames = 60, 4, 500
    samples = _sample(rng, repetitions * clips, frames).reshape(repetitions, clips, frames, 3)
    estimates = np.stack([lattice_autocovariance(list(clips_), 2) for clips_ in samples])
    error = estimates.std(0, ddof=1) / np.sqrt(repetitions)
    assert (error < 0.03).all()  # so that 5 of them mean something: Γ(0) is of order 1
    assert (np.abs(estimates.mean(0) - _autocovariance(3)) < 5 * error).all()


def test_the_first_partial_correlation_by_hand() -> None:
    """In one dimension P_1 is Σ x_t x_{t-1} / √(Σ x_t² Σ x_{t-1}²), over the pairs of every segment."""
    segments = [np.array([[1.0], [2.0], [-1.0]]), np.array([[0.5], [1.5]]), np.array([[3.0]])]
    gamma = lattice_autocovariance(segments, 1)
    mean_square = (1 + 4 + 1 + 0.25 + 2.25 + 9) / 6
    partial = (2 - 2 + 0.75) / np.sqrt((4 + 1 + 2.25) * (1 + 4 + 0.25))
    # The ridge of 1e-8 shows in the eighth digit.
    assert gamma[0, 0, 0] == pytest.approx(mean_square, rel=1e-7)
    assert gamma[1, 0, 0] == pytest.approx(mean_square * partial, rel=1e-7)


def test_short_segments_are_not_tapered() -> None:
    """Segments that stand still have Γ(l) = Γ(0) at every lag; Yule-Walker would say (1 - l/5) Γ(0)."""
    segments = [np.full((5, 1), value) for value in (1.0, -2.0, 0.5)]
    gamma = lattice_autocovariance(segments, 3).ravel()
    np.testing.assert_allclose(gamma, gamma[0], rtol=1e-7)


def test_time_reversal_transposes_the_autocovariance() -> None:
    segments = list(_sample(np.random.default_rng(1), 3, 40))
    forward = lattice_autocovariance(segments, 3)
    backward = lattice_autocovariance([segment[::-1] for segment in segments], 3)
    np.testing.assert_allclose(backward, forward.swapaxes(1, 2), atol=1e-9)


def _still(rng: np.random.Generator) -> list[Array]:
    return [np.broadcast_to(rng.normal(size=3), (6, 3)).copy() for _ in range(3)]


def _wave(rng: np.random.Generator) -> list[Array]:
    t = np.arange(60)[:, None]
    return [np.cos(0.3 * t + np.array([0.0, 1.0, 2.0]))]


def _one_event(rng: np.random.Generator) -> list[Array]:
    segment = np.zeros((30, 3))
    segment[0], segment[1, 1], segment[2, 2] = 1.0, 0.5, 0.25
    return [segment]


SEGMENTS: dict[str, Callable[[np.random.Generator], list[Array]]] = {
    "a long one": lambda rng: [rng.normal(size=(100, 3)).cumsum(0)],
    "fewer frames than coordinates": lambda rng: [rng.normal(size=(2, 3))],
    "many of two frames": lambda rng: [rng.normal(size=(2, 3)) for _ in range(9)],
    "single frames": lambda rng: [rng.normal(size=(1, 3)) for _ in range(5)],
    "nothing moves": _still,
    "an exact wave": _wave,
    "one event": _one_event,
    "alternating": lambda rng: [np.array([1.0, 1.0, 1.0]) * (-1.0) ** np.arange(20)[:, None]],
    "copies of one coordinate": lambda rng: [rng.normal(size=(40, 1)).cumsum(0) @ np.ones((1, 3))],
}


@pytest.mark.parametrize("name", SEGMENTS)
@pytest.mark.parametrize("order", [1, 8])
def test_any_segments_give_a_positive_definite_video(name: str, order: int) -> None:
    """After the least shrinkage the p + 1 frames fitted have no eigenvalue below λ min v, whatever the data.

    Beyond them only prediction errors are bounded, by λ diag(v); 200 frames must be positive definite far
    beyond rounding, which moves an eigenvalue by about n eps times the largest.
    """
    segments = SEGMENTS[name](np.random.default_rng(3))
    variance = (np.concatenate(segments) ** 2).mean(0)
    gamma = shrink(lattice_autocovariance(segments, order), 0.0, MIN_WHITE, variance)
    bound = MIN_WHITE * variance.min()
    for frames, least in ((order + 1, bound), (200, 0.0)):
        covariance = _toeplitz(extend(gamma, frames))
        eigenvalues = np.linalg.eigvalsh(covariance)
        rounding = len(covariance) * np.finfo(float).eps * eigenvalues[-1]
        assert rounding < 0.01 * bound
        assert eigenvalues[0] > max(least - rounding, 10 * rounding)
    *_, last = predictors(gamma)
    factor = last.forward_factor
    excess = factor @ factor.T - MIN_WHITE * np.diag(variance)
    assert np.linalg.eigvalsh(excess)[0] > -1e-3 * bound


def test_shrinkage_by_hand() -> None:
    gamma = np.array([[[2.0, 0.4], [0.4, 1.0]], [[1.0, 0.6], [-0.2, 0.5]]])
    out = shrink(gamma, 0.5, 0.1, np.array([3.0, 4.0]))
    np.testing.assert_allclose(out[0], [[0.9 * 2 + 0.3, 0.9 * 0.2], [0.9 * 0.2, 0.9 + 0.4]])
    np.testing.assert_allclose(out[1], [[0.9, 0.9 * 0.3], [-0.9 * 0.1, 0.45]])
    for weights in ((-0.1, 0.0), (0.0, 1.1)):
        with pytest.raises(ValueError, match="weights"):
            shrink(gamma, *weights, np.ones(2))


def test_what_is_no_autocovariance() -> None:
    gamma = _autocovariance(3)
    with pytest.raises(NotPositiveDefiniteError, match="lag 1"):
        list(predictors(np.stack([gamma[0], 1.1 * gamma[0]])))
    with pytest.raises(NotPositiveDefiniteError, match="smallest eigenvalue is -1"):
        extend(-np.eye(2)[None], 4)
    with pytest.raises(ValueError, match="zero in every frame"):
        lattice_autocovariance([np.array([[1.0, 0.0], [2.0, 0.0]])], 1)
    with pytest.raises(ValueError, match="negative"):
        lattice_autocovariance([np.ones((3, 1))], -1)
