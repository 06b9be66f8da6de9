"""Pixel videos mode by mode against covariances of all pixels built from complex Fourier matrices."""

import functools
import itertools
import math

import numpy as np
import pytest
import torch
from moments import assert_moments
from numpy.typing import NDArray

from arvdm_theory import PixelVideo
from arvdm_theory.information.gaussian import NotPositiveDefiniteError, mutual_information
from arvdm_theory.laws.long_memory import fractional_correlation
from arvdm_theory.laws.pixels import ExponentialMemory, Matern, PowerLaw, SameMemory, hartley
from arvdm_theory.laws.states import State

B = np.array([[1.0, 0.3], [0.3, 0.5]])


def _circulant(height: int, width: int, eigenvalues: NDArray[np.float64]) -> NDArray[np.float64]:
    """The real matrix F* diag(S) F over row-major pixels, F the unitary Fourier matrix of the two axes."""
    rows = np.exp(-2j * np.pi * np.outer(np.arange(height), np.arange(height)) / height) / math.sqrt(height)
    columns = np.exp(-2j * np.pi * np.outer(np.arange(width), np.arange(width)) / width) / math.sqrt(width)
    fourier = np.kron(rows, columns)
    matrix = fourier.conj().T @ np.diag(eigenvalues.reshape(-1)) @ fourier
    # The spectrum is symmetric, so the imaginary part is rounding.
    assert np.abs(matrix.imag).max() < 1e-14 * np.abs(eigenvalues).max()
    result: NDArray[np.float64] = matrix.real
    return result


def _radii(height: int, width: int) -> NDArray[np.float64]:
    """Radial frequency of every mode from signed cycles a pixel, times the longer side."""
    y, x = np.fft.fftfreq(height), np.fft.fftfreq(width)
    result: NDArray[np.float64] = np.hypot(y[:, None], x) * max(height, width)
    return result


def _all_pixels(
    height: int,
    width: int,
    spectrum: NDArray[np.float64],
    tau: NDArray[np.float64],
    channels: NDArray[np.float64],
    frames: int,
) -> NDArray[np.float64]:
    """Covariance of all frames, row-major pixels and channels for memories exp(-l/τ_k)."""
    rows = [
        [np.kron(_circulant(height, width, spectrum * np.exp(-abs(i - j) / tau)), channels) for j in range(frames)]
        for i in range(frames)
    ]
    return np.block(rows)


@pytest.mark.parametrize(("height", "width"), [(4, 4), (5, 5), (3, 6), (4, 6), (1, 7), (5, 1), (1, 1)])
def test_dense_is_the_circulant_covariance_of_all_pixels(height: int, width: int) -> None:
    exponent, gamma, tau = 1.7, 0.8, 6.0
    radius = _radii(height, width)
    spectrum = (1 + radius**2) ** (-exponent / 2)
    spectrum *= 2.5 / spectrum.mean()  # a pixel's variance is the mean of the spectrum
    memories = tau * (1 + (radius / 2) ** 2) ** (-gamma / 2)
    video = PixelVideo(
        height, width, PowerLaw(exponent), ExponentialMemory(tau, gamma, 2.0), B, [0.5, -1.0], variance=2.5
    )
    dense = video.dense(3)
    expected = _all_pixels(height, width, spectrum, memories, B, 3)
    np.testing.assert_allclose(dense.covariance(3)[0], expected, rtol=0, atol=1e-13 * expected.max())
    pixels = 3 * height * width
    np.testing.assert_allclose(dense.mean(3)[0], np.tile([0.5, -1.0], pixels), rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(dense.covariance(1)[0][:2, :2], 2.5 * B, rtol=1e-13)
    assert (torch.linalg.eigvalsh(dense.covariance(3)) > 0).all()


def test_covariance_of_displaced_pixels_is_the_cosine_sum() -> None:
    height, width = 4, 6
    video = PixelVideo(height, width, Matern(0.2), ExponentialMemory(5.0, 1.0), variance=None)
    covariance = video.dense(2).covariance(2)[0].reshape(2, height, width, 2, height, width)
    radius = _radii(height, width)
    spectrum = (1 + (2 * np.pi * 0.2 * radius) ** 2) ** -1.5
    decay = np.exp(-np.sqrt(1 + radius**2) / 5.0)
    for y, x in itertools.product(range(height), range(width)):
        turns = np.arange(height)[:, None] * y / height + np.arange(width) * x / width
        expected = (spectrum * decay * np.cos(2 * np.pi * turns)).mean()
        assert float(covariance[1, y, x, 0, 0, 0]) == pytest.approx(expected, rel=1e-12, abs=1e-14)


def test_hartley_is_the_cas_transform_orthonormal_and_its_own_inverse() -> None:
    height, width = 3, 4
    y, x = np.arange(height), np.arange(width)
    image = torch.randn(2, height, width, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    turns = (
        y[:, None, None, None] * y[None, None, :, None] / height
        + x[None, :, None, None] * x[None, None, None, :] / width
    )
    angle = 2 * np.pi * turns  # [k_y, k_x, y, x]
    cas = torch.from_numpy((np.cos(angle) + np.sin(angle)) / math.sqrt(height * width))
    torch.testing.assert_close(hartley(image), torch.einsum("klyx,byxc->bklc", cas, image))
    flat = cas.reshape(12, 12)
    torch.testing.assert_close(flat @ flat.T, torch.eye(12, dtype=torch.float64))
    torch.testing.assert_close(hartley(hartley(image)), image)
    video = PixelVideo(height, width, PowerLaw(), ExponentialMemory(), np.eye(3))
    torch.testing.assert_close(video.to_pixels(video.to_modes(image)), image)
    with pytest.raises(ValueError, match=r"images must have shape \(..., \(3, 4, 3\)\), got \(2, 4, 3, 3\)"):
        video.to_modes(image.transpose(1, 2))


@pytest.mark.parametrize("size", [8, 15, 64])
def test_modes_of_a_square_are_the_sums_of_two_squares(size: int) -> None:
    video = PixelVideo(size, size, PowerLaw(), ExponentialMemory(exponent=1.0))
    signed = [min(k, size - k) for k in range(size)]
    counts: dict[int, int] = {}
    for y, x in itertools.product(signed, signed):
        counts[y * y + x * x] = counts.get(y * y + x * x, 0) + 1
    assert video.modes == len(counts)
    assert video.multiplicity.tolist() == [counts[key] for key in sorted(counts)]
    assert video.frequency.tolist() == [math.sqrt(key) for key in sorted(counts)]
    np.testing.assert_allclose(video.frequency[video.group], _radii(size, size), rtol=1e-14)


def test_modes_of_a_rectangle_are_grouped_by_their_exact_radius() -> None:
    height, width = 6, 4
    video = PixelVideo(height, width, PowerLaw(), ExponentialMemory(exponent=1.0))
    # k_y²/36 + k_x²/16 over its common denominator 144; (3, 0) and (0, 2) share ¼, at the two edges.
    keys = [[4 * min(y, 6 - y) ** 2 + 9 * min(x, 4 - x) ** 2 for x in range(width)] for y in range(height)]
    assert keys[3][0] == keys[0][2] == 36
    distinct = sorted({key for row in keys for key in row})
    assert video.group.tolist() == [[distinct.index(key) for key in row] for row in keys]
    np.testing.assert_allclose(video.frequency[video.group], _radii(height, width), rtol=1e-14)


def test_information_of_all_pixels_is_the_sum_over_modes() -> None:
    video = PixelVideo(3, 4, PowerLaw(), ExponentialMemory(4.0, 1.0), B)
    dense = video.dense(3)
    states = [State(0, 0.0), State(1, 0.3), State(2, 1.0)]
    _, by_mode = video.joint(states)
    _, joint = dense.joint(states)
    d, n = video.frame_dim, dense.frame_dim
    modes = mutual_information(by_mode, range(2 * d, 3 * d), range(2 * d))
    pixels = mutual_information(joint, range(2 * n, 3 * n), range(2 * n))
    assert float(video.multiplicity @ modes) == pytest.approx(float(pixels), rel=1e-12)


def test_given_spectrum_keeps_what_differs_at_one_radius() -> None:
    height, width = 4, 5
    y, x = np.fft.fftfreq(height), np.fft.fftfreq(width)
    spectrum = 1 / (0.05 + y[:, None] ** 2 + 3 * x**2)  # symmetric, not a function of the radius
    video = PixelVideo(height, width, spectrum, ExponentialMemory(3.0, 1.0), variance=None)
    np.testing.assert_allclose(video.power[video.group], spectrum, rtol=1e-14)
    tau = 3.0 / np.sqrt(1 + _radii(height, width) ** 2)
    expected = _all_pixels(height, width, spectrum, tau, np.eye(1), 2)
    np.testing.assert_allclose(video.dense(2).covariance(2)[0], expected, rtol=0, atol=1e-13 * expected.max())
    # A radial spectrum given as an array is grouped just as the function is, up to equal floats.
    radial = PowerLaw()(torch.from_numpy(_radii(8, 8)).square().round().sqrt()).numpy()
    as_array = PixelVideo(8, 8, radial, ExponentialMemory())
    as_function = PixelVideo(8, 8, PowerLaw(), ExponentialMemory())
    assert torch.equal(as_array.group, as_function.group)
    torch.testing.assert_close(as_array.covariance(3), as_function.covariance(3), rtol=1e-14, atol=0)


def test_one_memory_for_all_frequencies_is_a_kronecker_product() -> None:
    video = PixelVideo(3, 3, Matern(0.3, 1.5), SameMemory(functools.partial(fractional_correlation, 0.8)), B)
    one = video.dense(1).covariance(1)[0]
    S = fractional_correlation(0.8, (torch.arange(4.0)[:, None] - torch.arange(4.0)).abs().double())
    torch.testing.assert_close(video.dense(4).covariance(4)[0], torch.kron(S, one), rtol=1e-12, atol=1e-14)


def test_spectra_and_memories_are_their_formulas() -> None:
    f = torch.tensor([0.0, 1.0, 10.0, 1000.0, 2000.0], dtype=torch.float64)
    for i, value in enumerate(f.tolist()):
        assert float(PowerLaw(1.5, 2.0)(f)[i]) == pytest.approx((1 + value**2 / 4) ** -0.75, rel=1e-14)
        exact = (1 + (2 * math.pi * value * 0.1) ** 2 / 5) ** -3.5
        assert float(Matern(0.1, 2.5)(f)[i]) == pytest.approx(exact, rel=1e-13)
    # Far above the corner: the stated power laws, S ∝ f^-a and τ ∝ f^-γ, to O(1/f²).
    slope = torch.log(PowerLaw(1.5)(f)).diff()[-1] / math.log(2)
    assert float(slope) == pytest.approx(-1.5, abs=1e-5)
    lag = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
    r = ExponentialMemory(10.0, 0.5)(f, lag)
    assert r.shape == (5, 3)
    tau = -1 / torch.log(r[:, 1])
    assert float(tau[0]) == pytest.approx(10.0, rel=1e-14)
    assert float(torch.log(tau).diff()[-1] / math.log(2)) == pytest.approx(-0.5, abs=1e-5)
    torch.testing.assert_close(r[:, 2], r[:, 1] ** 2)


def test_the_matern_half_spectrum_is_the_exponential_covariance_of_the_plane() -> None:
    n, length = 256, 0.05
    video = PixelVideo(n, n, Matern(length), ExponentialMemory())
    along_a_row = torch.fft.ifft2(video.power[video.group]).real[0, :40]
    exact = np.exp(-np.arange(40) / n / length)
    # The plane's density 2πℓ² (1 + (2πℓf)²)^{-3/2} leaves (1 + (2πℓF)²)^{-1/2} of its power beyond F. The grid's
    # square holds all modes below n/2 and a sum over modes is within one mode of its integral: a part
    # p ≤ (1 + (2πℓ(n/2 - 1))²)^{-1/2} is cut. With C the plane's covariance and |e(r)| ≤ p what the cut takes from
    # it, (C - e)/(1 - p) differs from C by at most 2p/(1 - p). What wraps around is below e^-15.
    p = (1 + (2 * math.pi * length * (n / 2 - 1)) ** 2) ** -0.5
    assert np.abs(along_a_row.numpy() - exact).max() < 2 * p / (1 - p)
    assert p < 0.026


def test_sampled_pixels_have_the_moments_of_the_dense_video() -> None:
    video = PixelVideo(3, 4, PowerLaw(), ExponentialMemory(4.0, 1.0), B, mean=[0.5, -1.0])
    samples = video.sample_pixels(20_000, 2, torch.Generator().manual_seed(1))
    assert samples.shape == (20_000, 2, 3, 4, 2)
    dense = video.dense(2)
    assert_moments(samples.flatten(1), dense.mean(2)[0], dense.covariance(2)[0])
    # In the Hartley basis every actual mode is drawn for itself: none is a copy of another.
    modes = video.to_modes(samples)[:, 0, :, :, 0].flatten(1)
    correlation = torch.corrcoef(modes.T) - torch.eye(12, dtype=torch.float64)
    assert float(correlation.abs().max()) < 6 / math.sqrt(20_000)


def test_sampled_pixels_follow_the_seed() -> None:
    video = PixelVideo(4, 4, PowerLaw(), ExponentialMemory())
    first = video.sample_pixels(2, 3, torch.Generator().manual_seed(7))
    assert torch.equal(first, video.sample_pixels(2, 3, torch.Generator().manual_seed(7)))
    assert not torch.equal(first, video.sample_pixels(2, 3, torch.Generator().manual_seed(8)))


def test_high_resolution_is_457_small_problems() -> None:
    channels = np.eye(3) + 0.5
    video = PixelVideo(64, 64, PowerLaw(), ExponentialMemory(20.0, 1.0), channels, length=16)
    assert video.covariance(16).shape == (457, 48, 48)
    # The mean over modes of the spectrum is the pixel's variance, 1.
    variance = video.multiplicity @ video.covariance(1)[:, 0, 0] / 4096
    assert float(variance) == pytest.approx(channels[0, 0], rel=1e-13)
    with pytest.raises(ValueError, match="dense covariance of 12288 rows is too large"):
        video.dense(1)
    with pytest.raises(ValueError, match="17 frames are needed, but the video 'pixels' has 16"):
        video.sample_pixels(1, 17)


def test_malformed_pixel_videos_are_refused() -> None:
    memory = ExponentialMemory()
    lopsided = np.ones((4, 4))
    lopsided[1, 0] = 2.0
    with pytest.raises(ValueError, match="at least one pixel each way, got 0 x 4"):
        PixelVideo(0, 4, PowerLaw(), memory)
    with pytest.raises(ValueError, match=r"spectrum must have shape \(4, 4\), got \(4, 3\)"):
        PixelVideo(4, 4, np.ones((4, 3)), memory)
    with pytest.raises(ValueError, match=r"symmetric, S\(-k\) = S\(k\)"):
        PixelVideo(4, 4, lopsided, memory)
    with pytest.raises(ValueError, match=r"symmetric, .* and finite"):
        PixelVideo(4, 4, np.full((4, 4), np.nan), memory)
    with pytest.raises(ValueError, match="one positive finite number a frequency"):
        PixelVideo(4, 4, np.zeros((4, 4)), memory)
    with pytest.raises(ValueError, match="one positive finite number a frequency"):
        PixelVideo(4, 4, lambda f: 1 / f, memory)
    with pytest.raises(ValueError, match="variance must be positive and finite, got 0"):
        PixelVideo(4, 4, PowerLaw(), memory, variance=0.0)
    with pytest.raises(ValueError, match=r"got shape \(1,\)"):
        PixelVideo(4, 4, PowerLaw(), lambda f, lags: torch.ones_like(lags))
    with pytest.raises(ValueError, match="a correlation of 1 at lag 0"):
        PixelVideo(4, 4, PowerLaw(), lambda f, lags: 0.5 * memory(f, lags))
    with pytest.raises(ValueError, match="mean must have 1 entries"):
        PixelVideo(4, 4, PowerLaw(), memory, mean=[0.0, 1.0])
    with pytest.raises(NotPositiveDefiniteError, match="channel covariance"):
        PixelVideo(4, 4, PowerLaw(), memory, [[0.0]])
    still = PixelVideo(4, 4, PowerLaw(), SameMemory(torch.ones_like))
    with pytest.raises(NotPositiveDefiniteError, match="covariance of 3 frames of a mode"):
        still.sample_pixels(1, 3)
    with pytest.raises(ValueError, match="exponent ≥ 0 and corner > 0"):
        PowerLaw(exponent=-1.0)
    with pytest.raises(ValueError, match="exponent ≥ 0 and corner > 0"):
        PowerLaw(corner=0.0)
    with pytest.raises(ValueError, match="positive length and smoothness"):
        Matern(length=0.0)
    with pytest.raises(ValueError, match="tau and corner > 0"):
        ExponentialMemory(tau=math.inf)
