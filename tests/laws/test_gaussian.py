"""What every Gaussian video shares: noisy joint laws, sampling, and the checks of what comes from outside."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from moments import assert_moments

from arvdm_theory import (
    ArrayVideo,
    GaussianVideo,
    NeedleVideo,
    PixelVideo,
    ar1,
    fractional_gaussian_noise,
    reference_video,
    state_space,
    var,
)
from arvdm_theory.information.gaussian import NotPositiveDefiniteError
from arvdm_theory.laws.gaussian import StationaryVideo, checked_covariance, separable_video
from arvdm_theory.laws.linear import exponential_video
from arvdm_theory.laws.pixels import ExponentialMemory, PowerLaw
from arvdm_theory.laws.states import State, frame_indices, noisy_covariance

B = [[1.0, 0.3], [0.3, 0.5]]


def _array() -> ArrayVideo:
    root = np.random.default_rng(5).normal(size=(8, 12))
    return ArrayVideo(root @ root.T / 12, 2, mean=np.linspace(-1, 1, 8))


CONSTRUCTORS: dict[str, Callable[[], GaussianVideo]] = {
    "array": _array,
    "ar1": lambda: ar1(-0.7, B, mean=[0.5, -2.0]),
    "var": lambda: var([[[0.5, 0.2], [-0.1, 0.3]], [[0.1, 0.0], [0.2, -0.3]]], B, mean=[1.0, 2.0]),
    "state-space": lambda: state_space([[0.9, 0.1], [0.0, 0.5]], np.eye(2), [[1.0, 1.0]], [[0.2]], mean=[3.0]),
    "state-space, given start": lambda: state_space(
        [[1.1, 0.1], [0.0, 0.5]], np.eye(2), [[1.0, 1.0]], [[0.2]], [3.0], np.diag([0.1, 2.0]), [1.0, -1.0]
    ),
    "reference": reference_video,
    "exponential": exponential_video,
    "fractional": lambda: fractional_gaussian_noise(0.8, B, mean=[0.0, 1.0]),
    "needle": lambda: NeedleVideo(3, strength=1.5, background_correlation=0.5, noise=0.1),
    "pixels": lambda: PixelVideo(3, 4, PowerLaw(), ExponentialMemory(4.0, 1.0), B, mean=[0.5, -1.0]),
}

# Every kind of pair: two frames; one frame at two levels of its path; a reference freshly noised from the clean
# frame; two paths that left at different levels; and one clean state.
STATES = (
    State(0, 0.4),
    State(0, 1.3),
    State(0, 0.4, path=1),
    State(2, 0.0),
    State(3, 0.2),
    State(3, 0.9),
    State(3, 1.1, path=1, parting=0.2),
    State(3, 0.7, path=2, parting=0.5),
    State(3, 2.0, path=2, parting=0.5),
)


def _parting_level(a: State, b: State) -> float:
    """The level at which two states' paths part, case by case from the definition of a path."""
    if a.path == b.path:
        return min(a.level, b.level)
    if a.path == 0:
        return min(a.level, b.parting)
    if b.path == 0:
        return min(a.parting, b.level)
    return min(a.parting, b.parting)


@pytest.fixture(params=CONSTRUCTORS)
def video(request: pytest.FixtureRequest) -> GaussianVideo:
    return CONSTRUCTORS[request.param]()


def test_joint_law_is_the_two_state_formula(video: GaussianVideo) -> None:
    mean, covariance = video.joint(STATES)
    d = video.frame_dim
    clean_mean, clean = video.mean(4), video.covariance(4)
    for i, a in enumerate(STATES):
        rows = slice(i * d, (i + 1) * d)
        frame_a = slice(a.frame * d, (a.frame + 1) * d)
        torch.testing.assert_close(
            mean[:, rows], math.exp(-a.level / 2) * clean_mean[:, frame_a], rtol=1e-14, atol=1e-15
        )
        for j, b in enumerate(STATES):
            frame_b = slice(b.frame * d, (b.frame + 1) * d)
            expected = math.exp(-(a.level + b.level) / 2) * clean[:, frame_a, frame_b]
            if a.frame == b.frame:
                # Both states carry the noise of their last common state, scaled by α(t)/α(s) each.
                s = _parting_level(a, b)
                shared = math.exp(-(a.level - s) / 2) * math.exp(-(b.level - s) / 2) * (1 - math.exp(-s))
                expected = expected + shared * torch.eye(d, dtype=torch.float64)
            torch.testing.assert_close(covariance[:, rows, j * d : (j + 1) * d], expected, rtol=1e-14, atol=1e-15)


def _noised(state: torch.Tensor, start: float, end: float, generator: torch.Generator) -> torch.Tensor:
    """One draw of X^end given X^start, from the signal scale and noise variance of the two levels."""
    ratio = math.exp(-end / 2) / math.exp(-start / 2)
    variance = (1 - math.exp(-end)) - ratio**2 * (1 - math.exp(-start))
    fresh = torch.randn(state.shape, dtype=torch.float64, generator=generator)
    return ratio * state + math.sqrt(variance) * fresh


def test_joint_law_is_that_of_the_simulated_forward_process(video: GaussianVideo) -> None:
    generator = torch.Generator().manual_seed(11)
    clean = video.sample(20_000, 4, generator)
    first, third, last = clean[:, :, 0], clean[:, :, 2], clean[:, :, 3]
    own = _noised(first, 0.0, 0.4, generator)
    trunk = _noised(last, 0.0, 0.2, generator)
    trunk_later = _noised(trunk, 0.2, 0.5, generator)
    branch = _noised(trunk_later, 0.5, 0.7, generator)
    by_hand = [
        own,
        _noised(own, 0.4, 1.3, generator),
        _noised(first, 0.0, 0.4, generator),
        third,
        trunk,
        _noised(trunk_later, 0.5, 0.9, generator),
        _noised(trunk, 0.2, 1.1, generator),
        branch,
        _noised(branch, 0.7, 2.0, generator),
    ]
    samples = torch.cat(by_hand, -1)  # (videos, modes, states·d)
    mean, covariance = video.joint(STATES)
    for mode in range(video.modes):
        assert_moments(samples[:, mode], mean[mode], covariance[mode])


def test_joint_law_of_noisy_states_is_positive_definite(video: GaussianVideo) -> None:
    _, covariance = video.joint(STATES)
    assert torch.equal(covariance, covariance.mT)
    assert (torch.linalg.eigvalsh(covariance) > 0).all()


def test_frames_are_nested_and_positive_definite(video: GaussianVideo) -> None:
    long, short = video.covariance(4), video.covariance(2)
    n = 2 * video.frame_dim
    assert torch.equal(long, long.mT)
    torch.testing.assert_close(long[:, :n, :n], short, rtol=1e-14, atol=1e-15)
    torch.testing.assert_close(video.mean(4)[:, :n], video.mean(2), rtol=0, atol=0)
    assert (torch.linalg.eigvalsh(long) > 0).all()
    assert long.dtype == video.mean(4).dtype == video.multiplicity.dtype == torch.float64
    assert long.shape[0] == video.modes == len(video.multiplicity)


def test_samples_have_the_moments_and_follow_the_seed(video: GaussianVideo) -> None:
    samples = video.sample(20_000, 3, torch.Generator().manual_seed(3))
    assert samples.shape == (20_000, video.modes, 3, video.frame_dim)
    for mode in range(video.modes):
        assert_moments(samples[:, mode].flatten(1), video.mean(3)[mode], video.covariance(3)[mode])
    again = video.sample(20_000, 3, torch.Generator().manual_seed(3))
    other = video.sample(20_000, 3, torch.Generator().manual_seed(4))
    assert torch.equal(samples, again)
    assert not torch.equal(samples, other)


def test_fresh_reference_shares_the_frame_but_not_the_noise() -> None:
    video = ar1(0.5)
    _, covariance = video.joint([State(0, 1.0), State(0, 1.0, path=1)])
    a2 = math.exp(-1.0)
    np.testing.assert_allclose(covariance[0], [[1.0, a2], [a2, 1.0]], rtol=1e-15)


def test_noisy_covariance_broadcasts_levels_and_is_differentiable() -> None:
    clean = ar1(0.5, B).covariance(2)
    levels = torch.tensor([[0.3, 0.8], [1.0, 1.0], [0.0, 2.0]], dtype=torch.float64, requires_grad=True)
    same = torch.eye(2, dtype=torch.bool)

    def joint(t: torch.Tensor) -> torch.Tensor:
        return noisy_covariance(clean, t, torch.diag_embed(t), same)

    batch = joint(levels)
    assert batch.shape == (3, 4, 4)
    for row, t in zip(batch, levels, strict=True):
        torch.testing.assert_close(row, joint(t)[0])
    assert torch.autograd.gradcheck(joint, (levels,))


def test_frame_indices_are_frame_major() -> None:
    assert frame_indices([2, 0], 3).tolist() == [6, 7, 8, 0, 1, 2]


def test_array_video_keeps_device_and_gradient_of_tensors() -> None:
    root = torch.tensor([[2.0, 0.0], [0.5, 1.0]], dtype=torch.float64, requires_grad=True)
    video = ArrayVideo(root @ root.T, 1)
    (gradient,) = torch.autograd.grad(video.covariance(2).sum(), root)
    # The sum of all entries of L L^T is |L^T 1|², whose gradient is 2·1 (L^T 1)^T.
    expected = 2 * root.detach().sum(0).expand(2, 2)
    torch.testing.assert_close(gradient, expected)


def test_array_video_does_not_follow_later_changes_of_the_array() -> None:
    given = np.eye(2)
    video = ArrayVideo(given, 1)
    given[0, 0] = 9.0
    assert float(video.covariance(1)) == 1.0


def test_stationary_video_is_block_toeplitz_with_transposed_negative_lags() -> None:
    gammas = torch.tensor([[[2.0, 0.1], [0.1, 1.0]], [[0.5, 0.4], [-0.2, 0.1]]], dtype=torch.float64)
    video = StationaryVideo(lambda n: gammas[None, :n], 2, length=2)
    covariance = video.covariance(2)[0]
    assert torch.equal(covariance[2:, :2], gammas[1])  # Cov(X_1, X_0) = Γ(1)
    assert torch.equal(covariance[:2, 2:], gammas[1].T)
    assert torch.equal(covariance[:2, :2], gammas[0])
    assert torch.equal(covariance[2:, 2:], gammas[0])


@pytest.mark.parametrize(
    ("states", "message"),
    [
        ([], "at least one state"),
        ([State(-1, 0.0), State(2, 0.0)], "counted from 0, got -1"),
        ([State(4, 0.0)], "5 frames are needed, but the video 'array' has 4"),
        ([State(0, -0.1)], "0 ≤ parting ≤ level < ∞ is needed, got 0.0, -0.1"),
        ([State(0, math.inf)], "level < ∞"),
        ([State(0, math.nan)], "level < ∞"),
        ([State(0, 0.1, path=1, parting=0.2)], "got 0.2, 0.1"),
        ([State(0, 0.5, parting=0.2)], "path 0 is the frame's own trajectory"),
        (
            [State(0, 1.0, path=1, parting=0.2), State(0, 2.0, path=1, parting=0.3)],
            "path 1 cannot leave path 0 both at 0.2 and at 0.3",
        ),
    ],
)
def test_impossible_states_are_refused(states: list[State], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _array().joint(states)


@pytest.mark.parametrize(
    ("values", "dim", "mean", "message"),
    [
        (np.ones((2, 3)), 1, None, r"square matrix, got shape \(2, 3\)"),
        (np.eye(0), 1, None, "square matrix"),
        (np.eye(3), 2, None, "frame dimension 2 does not divide the covariance's 3 rows"),
        (np.eye(3), 0, None, "frame dimension 0"),
        (np.diag([1.0, np.nan]), 1, None, "NaN or infinite"),
        (np.diag([1.0, np.inf]), 1, None, "NaN or infinite"),
        ([[1.0, 0.5], [0.4, 1.0]], 1, None, "not symmetric: entries differ by up to 1.000e-01"),
        (np.eye(2) * 1j, 1, None, "real numbers, got complex128"),
        (torch.eye(2, dtype=torch.complex128), 1, None, "real numbers, got torch.complex128"),
        (np.eye(2), 1, [0.0], "mean must have 2 entries"),
        (np.eye(2), 1, [0.0, np.inf], "mean has entries that are NaN or infinite"),
        (np.eye(2), 1, ["a", "b"], "mean must be real numbers"),
    ],
)
def test_malformed_arrays_are_refused(values: object, dim: int, mean: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ArrayVideo(values, dim, mean)  # type: ignore[arg-type]


def test_indefinite_covariance_names_its_smallest_eigenvalue() -> None:
    with pytest.raises(NotPositiveDefiniteError, match=r"eigenvalue is -1\.000e"):
        ArrayVideo([[1.0, 2.0], [2.0, 1.0]], 1)
    with pytest.raises(NotPositiveDefiniteError, match=r"semi-definite: its smallest eigenvalue is -1\.000e"):
        checked_covariance([[1.0, 2.0], [2.0, 1.0]], "noise", definite=False)
    assert checked_covariance(np.zeros((2, 2)), "noise", definite=False).shape == (2, 2)


def test_malformed_stationary_videos_are_refused() -> None:
    one = torch.ones(2, 1, 1, 1, dtype=torch.float64)
    skew = torch.tensor([[[[1.0, 0.1], [0.2, 1.0]]]], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"shape \(modes, lags, 2, 2\), got \(2, 1, 1, 1\)"):
        StationaryVideo(lambda n: one, 2)
    with pytest.raises(ValueError, match=r"must be float64, got torch\.float32"):
        StationaryVideo(lambda n: one.float(), 1)
    with pytest.raises(ValueError, match="exactly symmetric"):
        StationaryVideo(lambda n: skew, 2)
    with pytest.raises(ValueError, match="2 modes need as many multiplicities"):
        StationaryVideo(lambda n: one, 1, multiplicity=torch.ones(3))
    with pytest.raises(ValueError, match=r"is 1 at lag 0, got 2\.0"):
        separable_video(lambda lags: 2 - lags)


def test_requests_beyond_the_video_are_refused() -> None:
    video = ar1(0.5, length=3)
    with pytest.raises(ValueError, match="4 frames are needed, but the video 'ar1' has 3"):
        video.covariance(4)
    with pytest.raises(ValueError, match="at least one frame is needed, got 0"):
        video.mean(0)
    seven = torch.eye(7, dtype=torch.bool)
    with pytest.raises(ValueError, match="7 states of equal dimension cannot fill a covariance of 8 rows"):
        noisy_covariance(torch.eye(8), torch.zeros(7), torch.zeros(7, 7), seven)


def test_singular_video_is_an_error_where_it_is_sampled() -> None:
    frozen = separable_video(torch.ones_like)  # every frame the same
    with pytest.raises(NotPositiveDefiniteError, match="covariance of 3 frames"):
        frozen.sample(1, 3)
