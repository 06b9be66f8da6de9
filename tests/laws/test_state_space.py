"""Linear state spaces against dense covariances, SciPy's Lyapunov and Riccati solvers, and least squares."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from arvdm_theory import (
    ArrayVideo,
    GaussianVideo,
    ar1,
    fractional_gaussian_noise,
    reference_video,
    state_space,
    var,
)
from arvdm_theory.information.gaussian import NotPositiveDefiniteError, condition
from arvdm_theory.laws.state_space import Affine, StateSpace, steps_to_forget

INNOVATION = [[1.0, 0.3], [0.3, 0.5]]
A = np.array([[0.9, 0.3, 0.0], [-0.3, 0.9, 0.1], [0.0, 0.0, 0.7]])
Q = np.diag([0.2, 0.0, 0.5])
C = np.array([[1.0, 0.0, 0.5], [0.2, 1.0, 0.0]])
R = np.diag([0.0, 0.1])

VIDEOS = {
    "auto-regression": ar1(-0.7, INNOVATION, mean=[1.0, -1.0]),
    "vector auto-regression": var(
        [[[0.5, 0.2], [-0.1, 0.3]], [[0.1, 0.0], [0.2, -0.3]]], INNOVATION, mean=[2.0, 0.0]
    ),
    "stationary": state_space(A, Q, C, R, mean=[1.0, 2.0]),
    "more entries than states": state_space([[0.8]], [[0.4]], [[1.0], [0.5], [-1.0]], 0.2 * np.eye(3)),
    "given start": state_space(A, Q, C, R, [1.0, 2.0], np.diag([4.0, 0.0, 1.0]), [1.0, -2.0, 0.5]),
    "reference": reference_video(),
}


def form_of(video: GaussianVideo) -> StateSpace:
    form = video.state_space_form()
    assert form is not None
    return form


def rotation(radius: float, *periods: float) -> np.ndarray:
    turns = []
    for period in periods:
        c, s = math.cos(2 * math.pi / period), math.sin(2 * math.pi / period)
        turns.append(radius * np.array([[c, -s], [s, c]]))
    return scipy.linalg.block_diag(*turns)


@pytest.mark.parametrize("name", VIDEOS)
def test_the_form_is_the_video(name: str) -> None:
    video, form = VIDEOS[name], form_of(VIDEOS[name])
    on, noise = form.frames(6)
    torch.testing.assert_close(on @ form.covariance @ on.mT + noise, video.covariance(6), rtol=1e-12, atol=1e-13)
    mean = (on @ form.start.unsqueeze(-1)).squeeze(-1) + form.mean.repeat(1, 6)
    torch.testing.assert_close(mean, video.mean(6), rtol=1e-13, atol=1e-13)
    assert form.stationary is (name != "given start")
    # From a later frame on it is the video behind that frame.
    later, d = form.advanced(3), video.frame_dim
    moved = on @ later.covariance @ on.mT + noise
    torch.testing.assert_close(moved, video.covariance(9)[:, 3 * d :, 3 * d :], rtol=1e-12, atol=1e-13)


def dense_posterior(form: StateSpace, frames: int) -> Tensor:
    """Cov(z_n | n frames) by conditioning the joint law of all states and frames."""
    on, noise = form.path(frames - 1)
    s, states = form.states, on @ form.covariance @ on.mT + noise
    see = torch.block_diag(*[form.observation[0]] * frames)
    seen = see @ states[0] @ see.T + torch.block_diag(*[form.observation_noise[0]] * frames)
    last = states[0, -s:]
    cross = last @ see.T
    joint = torch.cat([torch.cat([last[:, -s:], cross], 1), torch.cat([cross.T, seen], 1)])
    return condition(joint, range(s), range(s, len(joint)))[1]


@pytest.mark.parametrize("name", VIDEOS)
@pytest.mark.parametrize("level", [0.0, 0.2])
def test_filters_are_conditional_laws(name: str, level: float) -> None:
    form = form_of(VIDEOS[name]).at_level(level)
    torch.testing.assert_close(form.filtered(4)[0], dense_posterior(form, 4), rtol=0, atol=1e-12)
    for stride in (1, 2):
        doubled = form.block(stride).riccati().sequence(form.filtered(1), 5)
        for k in range(5):
            expected = dense_posterior(form, 1 + stride * k)
            found = doubled[min(k, len(doubled) - 1), 0]
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_a_frame_that_the_state_determines_has_no_map() -> None:
    delayed = state_space([[0.0, 1.0], [0.0, 0.0]], np.diag([0.0, 1.0]), [[1.0, 0.0]], [[0.0]])
    with pytest.raises(NotPositiveDefiniteError):
        form_of(delayed).block(1).riccati()


@pytest.mark.parametrize("name", ["vector auto-regression", "stationary"])
def test_limits_are_those_of_lyapunov_and_riccati_equations(name: str) -> None:
    form = form_of(VIDEOS[name]).at_level(0.1)
    a, q, c, r = (
        part[0].numpy() for part in (form.transition, form.process_noise, form.observation, form.observation_noise)
    )
    predicted = scipy.linalg.solve_discrete_are(a.T, c.T, q, r)
    found = form.block(1).riccati().limit(form.filtered(1))
    assert found is not None
    np.testing.assert_allclose(form.predicted(found[0])[0], predicted, rtol=0, atol=1e-11)
    # Doubling has stopped where nothing is left, and not long before: one doubling less is not enough.
    sequence = form.block(1).riccati().sequence(form.filtered(1), 10**6)
    assert len(sequence) == found[1] + 1
    from_elsewhere = form.from_state(form.start, 3 * form.covariance).settled()
    assert from_elsewhere is not None
    lyapunov = scipy.linalg.solve_discrete_lyapunov(a, q)
    np.testing.assert_allclose(from_elsewhere.covariance[0], lyapunov, rtol=0, atol=1e-12)


def test_an_undamped_rotation_is_learnt_as_least_squares_learns_it() -> None:
    """Without process noise, frames are a regression on z_n: its information matrix is a plain sum."""
    turn, see = rotation(1.0, 7.0, 11.0), np.random.default_rng(0).normal(size=(2, 4))
    video = state_space(turn, np.zeros((4, 4)), see, 0.3 * np.eye(2), initial_covariance=np.eye(4))
    form, n = form_of(video), 5000
    assert form.stationary
    assert form.unlearnt()
    found = form.block(1).riccati().sequence(form.filtered(1), n)
    assert len(found) == n
    back = np.linalg.inv(turn)
    information, row = np.linalg.matrix_power(back.T, n - 1) @ np.linalg.matrix_power(back, n - 1), see
    for _ in range(n):
        information = information + row.T @ row / 0.3
        row = row @ back
    # Entries of about 1e-4; n roundings of the sum and of the powers leave n u of it.
    np.testing.assert_allclose(found[-1, 0], np.linalg.inv(information), rtol=0, atol=1e-15)
    halved = float(torch.trace(found[-1, 0]) / torch.trace(found[n // 2 - 1, 0]))
    assert halved == pytest.approx(0.5, abs=1e-2)


def test_what_is_unlearnt() -> None:
    damped = state_space(rotation(0.95, 7.0), 0.1 * np.eye(2), [[1.0, 0.0]], [[0.1]])
    known = state_space(
        rotation(1.0, 7.0), np.zeros((2, 2)), [[1.0, 0.0]], [[0.1]], initial_covariance=np.zeros((2, 2))
    )
    walk = state_space([[1.0]], [[0.1]], [[1.0]], [[0.1]], initial_covariance=[[1.0]])
    assert form_of(reference_video()).unlearnt()
    assert not any(form_of(video).unlearnt() for video in (damped, known, walk, ar1(0.999)))
    assert form_of(walk).settled() is None


def test_affine_maps_compose_and_forget() -> None:
    on = torch.tensor([[[0.5, 0.3], [0.0, 0.8]]], dtype=torch.float64)
    step = Affine(on, torch.tensor([[1.0, -1.0]], dtype=torch.float64), torch.eye(2, dtype=torch.float64)[None])
    mean, covariance = torch.zeros(1, 2, dtype=torch.float64), torch.zeros(1, 2, 2, dtype=torch.float64)
    walked = mean, covariance
    for _ in range(8):
        walked = step(*walked)
    for ours, theirs in zip(step.over(5)(mean, covariance), walked, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-13)
    forgotten = steps_to_forget(on)
    assert forgotten == 128  # 0.8^128 = 4e-13, 0.8^64 = 6e-7
    assert steps_to_forget(torch.tensor([[[1.01]]], dtype=torch.float64)) is None


def test_laws_of_long_memory_or_of_arrays_have_no_form() -> None:
    for video in (fractional_gaussian_noise(0.8), ArrayVideo(np.eye(3), 1)):
        assert video.state_space_form() is None
