"""Auto-regressions and state-space videos against sums over their innovations, which know no Lyapunov equation."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from arvdm_theory import ar1, reference_video, spectral_video, state_space, var
from arvdm_theory.information.gaussian import NotPositiveDefiniteError
from arvdm_theory.laws.linear import exponential_video

A_1 = np.array([[0.5, 0.2], [-0.1, 0.3]])
A_2 = np.array([[0.1, 0.0], [0.2, -0.3]])
INNOVATION = np.array([[1.0, 0.3], [0.3, 0.5]])

# A state-space model with a singular process noise, and observation noise in one of two channels only.
A = np.array([[0.9, 0.3, 0.0], [-0.3, 0.9, 0.1], [0.0, 0.0, 0.7]])
Q = np.diag([0.2, 0.0, 0.5])
C = np.array([[1.0, 0.0, 0.5], [0.2, 1.0, 0.0]])
R = np.diag([0.0, 0.1])


def _frames_of_noise(frames: int) -> NDArray[np.float64]:
    """The linear map M from (z_1, w_1..w_{n-1}, v_1..v_n) to the n frames, one unrolled recursion."""
    s, d = len(A), len(C)
    states = np.zeros((frames, s, frames * s))
    for t in range(frames):
        for source in range(t + 1):
            states[t, :, source * s : (source + 1) * s] = np.linalg.matrix_power(A, t - source)
    seen = np.concatenate([C @ states[t] for t in range(frames)])
    return np.concatenate([seen, np.eye(frames * d)], 1)


def _unrolled(frames: int, start: NDArray[np.float64]) -> NDArray[np.float64]:
    noise = [start] + [Q] * (frames - 1) + [R] * frames
    sizes = np.cumsum([0, *(len(block) for block in noise)])
    joint = np.zeros((sizes[-1], sizes[-1]))
    for block, at in zip(noise, sizes, strict=False):
        joint[at : at + len(block), at : at + len(block)] = block
    M = _frames_of_noise(frames)
    result: NDArray[np.float64] = M @ joint @ M.T
    return result


def test_ar1_covariance_is_a_kronecker_product_of_powers() -> None:
    S = [[(-0.7) ** abs(i - j) for j in range(5)] for i in range(5)]
    video = ar1(-0.7, INNOVATION, mean=[1.0, -1.0])
    np.testing.assert_allclose(video.covariance(5)[0], np.kron(S, INNOVATION), rtol=1e-14)
    assert video.mean(2).tolist() == [[1.0, -1.0, 1.0, -1.0]]


def test_ar1_is_the_first_order_var_with_the_same_marginal() -> None:
    phi = 0.6
    as_var = var([phi * np.eye(2)], (1 - phi**2) * INNOVATION)
    torch.testing.assert_close(as_var.covariance(6), ar1(phi, INNOVATION).covariance(6), rtol=1e-13, atol=1e-14)


def test_var_autocovariance_is_the_sum_over_innovations() -> None:
    video = var([A_1, A_2], INNOVATION)
    # X_t = Σ_j Ψ_j e_{t-j} with Ψ_0 = I, Ψ_j = A_1 Ψ_{j-1} + A_2 Ψ_{j-2}. The spectral radius is below 0.8, so
    # what the sum leaves out after 200 terms is below 0.8^400 < 1e-38.
    psi = [np.eye(2), A_1]
    for _ in range(206):
        psi.append(A_1 @ psi[-1] + A_2 @ psi[-2])
    gammas = video.autocovariance(6)[0].numpy()
    for lag in range(6):
        expected = sum(psi[j + lag] @ INNOVATION @ psi[j].T for j in range(200))
        np.testing.assert_allclose(gammas[lag], expected, rtol=0, atol=1e-14)


def test_var_obeys_the_yule_walker_equations() -> None:
    gammas = var([A_1, A_2], INNOVATION).autocovariance(5)[0].numpy()
    zero = A_1 @ gammas[1].T + A_2 @ gammas[2].T + INNOVATION
    np.testing.assert_allclose(gammas[0], zero, atol=1e-14)
    np.testing.assert_allclose(gammas[1], A_1 @ gammas[0] + A_2 @ gammas[1].T, atol=1e-14)
    for lag in range(2, 5):
        np.testing.assert_allclose(gammas[lag], A_1 @ gammas[lag - 1] + A_2 @ gammas[lag - 2], atol=1e-14)


def test_stationary_state_space_is_its_unrolled_recursion() -> None:
    # P = Σ_k A^k Q A^kT: the spectral radius is √0.9 (a complex pair), so 2000 terms leave 0.9^2000 < 1e-91.
    P, power = np.zeros((3, 3)), np.eye(3)
    for _ in range(2000):
        P = P + power @ Q @ power.T
        power = A @ power
    video = state_space(A, Q, C, R, mean=[1.0, 2.0])
    expected = _unrolled(6, P)
    np.testing.assert_allclose(video.covariance(6)[0], expected, rtol=0, atol=1e-13 * expected.max())
    assert video.mean(2).tolist() == [[1.0, 2.0, 1.0, 2.0]]
    assert video.length is None


def test_given_start_is_its_unrolled_recursion() -> None:
    start = np.diag([4.0, 0.0, 1.0])
    first = np.array([1.0, -2.0, 0.5])
    video = state_space(A, Q, C, R, [1.0, 2.0], start, first, length=6)
    expected = _unrolled(6, start)
    np.testing.assert_allclose(video.covariance(6)[0], expected, rtol=0, atol=1e-14 * expected.max())
    sources = np.concatenate([first, np.zeros(5 * 3 + 6 * 2)])
    expected_mean = _frames_of_noise(6) @ sources + np.tile([1.0, 2.0], 6)
    # Some entries cancel to 0.01 from terms of size 2, so the tolerance is absolute: 16 roundings of 2.
    np.testing.assert_allclose(video.mean(6)[0], expected_mean, rtol=0, atol=16 * 2 * 2.3e-16)
    with pytest.raises(ValueError, match="7 frames are needed, but the video 'state-space' has 6"):
        video.covariance(7)


def test_started_in_its_stationary_law_it_is_the_stationary_video() -> None:
    stationary = state_space(A, Q, C, R)
    # Γ(0) of an all-seeing, noise-free observation is the stationary state covariance itself.
    P = state_space(A, Q, np.eye(3), np.zeros((3, 3))).covariance(1)[0]
    started = state_space(A, Q, C, R, initial_covariance=P.numpy())
    torch.testing.assert_close(started.covariance(5), stationary.covariance(5), rtol=1e-12, atol=1e-12)


def test_unstable_transition_with_a_start_is_a_random_walk() -> None:
    video = state_space([[1.0]], [[1.0]], [[1.0]], [[0.0]], initial_covariance=[[1.0]])
    expected = [[float(min(i, j)) for j in range(1, 6)] for i in range(1, 6)]
    assert video.covariance(5)[0].tolist() == expected


def test_reference_video_is_the_tables_covariance() -> None:
    S = [
        [0.5 * 0.8 ** abs(i - j) + 0.4 * math.cos(2 * math.pi * (i - j) / 7) + 0.1 * (i == j) for j in range(9)]
        for i in range(9)
    ]
    frame = np.array([[1.0, 0.3], [0.3, 0.5]])
    video = reference_video()
    np.testing.assert_allclose(
        video.covariance(9)[0], np.kron(S, 2 * frame / np.trace(frame)), rtol=1e-14, atol=1e-15
    )
    assert float(video.covariance(1)[0].trace()) == pytest.approx(2.0, rel=1e-15)
    assert video.length is None
    assert reference_video(4).length == 4


def test_reference_video_is_a_state_that_decays_and_one_that_turns() -> None:
    angle = 2 * math.pi / 7
    transition = np.zeros((3, 3))
    transition[0, 0] = 0.8
    transition[1:, 1:] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    unit = state_space(
        transition,
        np.diag([0.5 * (1 - 0.8**2), 0.0, 0.0]),
        [[1.0, 1.0, 0.0]],
        [[0.1]],
        initial_covariance=np.diag([0.5, 0.4, 0.4]),
    )
    S = unit.covariance(20)[0]
    video = reference_video()
    B = video.covariance(1)[0]
    torch.testing.assert_close(video.covariance(20)[0], torch.kron(S, B), rtol=1e-13, atol=1e-14)


def test_exponential_video() -> None:
    S = [[0.95 ** abs(i - j) for j in range(5)] for i in range(5)]
    np.testing.assert_allclose(exponential_video().covariance(5)[0], S, rtol=1e-14)


def test_unstable_transition_without_a_start_names_its_spectral_radius() -> None:
    with pytest.raises(ValueError, match=r"spectral radius 1\.25, .* give an initial covariance"):
        state_space([[1.25, 0.0], [0.0, 0.5]], np.eye(2), [[1.0, 0.0]], [[1.0]])
    with pytest.raises(ValueError, match="spectral radius 1, "):
        var([[[0.5]], [[0.5]]], [[1.0]])
    with pytest.raises(ValueError, match="too near 1: its stationary covariance solves"):
        state_space([[1 - 1e-12, 1.0], [0.0, 1 - 1e-12]], np.eye(2), [[1.0, 0.0]], [[1.0]])


@pytest.mark.parametrize("correlation", [1.0, -1.0, 1.5, math.nan])
def test_ar1_without_a_stationary_law_is_refused(correlation: float) -> None:
    with pytest.raises(ValueError, match=r"correlation inside \(-1, 1\)"):
        ar1(correlation)


def test_malformed_matrices_are_refused() -> None:
    eye, one = np.eye(2), np.ones((1, 1))
    row = np.ones((1, 2))
    with pytest.raises(ValueError, match="at least one coefficient"):
        var([], eye)
    with pytest.raises(ValueError, match=r"coefficient A_2 must have shape \(2, 2\), got \(1, 1\)"):
        var([0.1 * eye, one], eye)
    with pytest.raises(NotPositiveDefiniteError, match="innovation covariance"):
        var([0.1 * eye], np.diag([1.0, 0.0]))
    with pytest.raises(ValueError, match=r"transition A must have shape \(2, 2\), got \(1, 1\)"):
        state_space(one, eye, row, one)
    with pytest.raises(ValueError, match=r"observation C must have shape \(1, 2\), got \(1, 1\)"):
        state_space(0.5 * eye, eye, one, one)
    with pytest.raises(ValueError, match="transition A has entries that are NaN"):
        state_space(np.nan * eye, eye, row, one)
    with pytest.raises(NotPositiveDefiniteError, match="process noise Q is not positive semi-definite"):
        state_space(0.5 * eye, -eye, row, one)
    with pytest.raises(ValueError, match="observation noise R is not symmetric"):
        state_space(0.5 * eye, eye, eye, [[1.0, 0.0], [0.5, 1.0]])
    with pytest.raises(ValueError, match=r"initial covariance must have shape \(2, 2\), got \(1, 1\)"):
        state_space(0.5 * eye, eye, row, one, initial_covariance=one)
    with pytest.raises(ValueError, match=r"initial mean must have shape \(2,\), got \(1,\)"):
        state_space(0.5 * eye, eye, row, one, initial_covariance=eye, initial_mean=[1.0])
    with pytest.raises(ValueError, match="an initial mean needs an initial covariance"):
        state_space(0.5 * eye, eye, row, one, initial_mean=[1.0, 1.0])
    with pytest.raises(ValueError, match=r"mean must have shape \(1,\), got \(2,\)"):
        state_space(0.5 * eye, eye, row, one, mean=[1.0, 1.0])
    with pytest.raises(NotPositiveDefiniteError, match="covariance of one frame"):
        state_space(0.5 * eye, eye, np.zeros((1, 2)), 0 * one)
    with pytest.raises(NotPositiveDefiniteError, match="covariance of the first frame"):
        state_space(0.5 * eye, eye, row, 0 * one, initial_covariance=0 * eye)


def test_a_spectrum_s_video_is_the_periodic_one_of_its_power() -> None:
    """Sampled at n frequencies, AR(1)'s spectrum has Γ(l) = (φ^l + φ^(N-l))/(1 - φ^N) with N = 2(n - 1)."""
    phi, n = 0.8, 9
    power = (1 - phi**2) / (1 + phi**2 - 2 * phi * np.cos(np.pi * np.arange(n) / (n - 1)))
    period = 2 * (n - 1)
    expected = (phi ** np.arange(n) + phi ** (period - np.arange(n))) / (1 - phi**period)
    video = spectral_video([power, np.ones(n)])
    covariance = video.covariance(n).numpy()
    assert covariance[0, 0] == pytest.approx(expected, rel=1e-12)
    assert covariance[1] == pytest.approx(np.eye(n), abs=1e-15)
    assert video.length == n
    for broken in ([1.0], [1.0, 0.0, 1.0], [1.0, np.nan], [[[1.0, 1.0]]], ["a", "b"]):
        with pytest.raises(ValueError, match="spectrum"):
            spectral_video(broken)
