"""SSIM against loops, PSNR against scikit-image, and frames that cannot be compared."""

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import metrics

from arvdm_theory.video.metrics import MetricError, curve_table, mean_squared_error, psnr, quality, ssim

Array = NDArray[np.float64]


def _pair(seed: int, shape: tuple[int, ...]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Smooth random pictures and noisy copies of them, bytes."""
    rng = np.random.default_rng(seed)
    rough = rng.normal(size=shape).cumsum(-3).cumsum(-2)
    rough -= rough.min()
    truth = np.uint8(255 * rough / rough.max())
    return truth, np.uint8(np.clip(truth + rng.normal(0, 20, shape), 0, 255))


def _ssim_of_one_channel(x: Array, y: Array) -> float:
    """Wang et al. (2004), equations 13 to 16, one window after the other; pixels from 0 to 255."""
    along = np.arange(11) - 5
    window = np.exp(-(along[:, None] ** 2 + along**2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    found = []
    for i in range(x.shape[0] - 10):
        for j in range(x.shape[1] - 10):
            a, b = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            var_a, var_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
            shared = (window * (a - mean_a) * (b - mean_b)).sum()
            found.append(
                (2 * mean_a * mean_b + c1) * (2 * shared + c2)
                / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
            )  # fmt: skip
    return float(np.mean(found))


def test_ssim_is_the_published_formula_window_by_window() -> None:
    truth, noisy = _pair(0, (2, 15, 18, 3))
    expected = [
        np.mean([_ssim_of_one_channel(a[..., c].astype(float), b[..., c].astype(float)) for c in range(3)])
        for a, b in zip(truth, noisy, strict=True)
    ]
    # Both sum some 121 terms of order 1; variances as differences of moments lose at most 1/C₂ ≈ 1e3 roundings.
    np.testing.assert_allclose(ssim(truth, noisy), expected, rtol=0, atol=1e-11)


def test_psnr_is_that_of_scikit_image() -> None:
    truth, noisy = _pair(1, (3, 32, 24, 3))
    for t in range(3):
        expected = metrics.peak_signal_noise_ratio(truth[t], noisy[t], data_range=255)
        assert psnr(truth, noisy)[t] == pytest.approx(expected, abs=1e-11)


def test_bytes_and_floats_of_one_picture_score_alike() -> None:
    truth, noisy = _pair(2, (4, 16, 16, 1))
    as_floats = truth / 127.5 - 1
    np.testing.assert_array_equal(psnr(truth, noisy), psnr(as_floats, noisy))
    np.testing.assert_array_equal(ssim(truth, noisy), ssim(as_floats, noisy))
    levels = ((truth.astype(float) - noisy.astype(float)) ** 2).mean((1, 2, 3))
    np.testing.assert_allclose(mean_squared_error(truth, noisy) * 127.5**2, levels, rtol=1e-12)
    np.testing.assert_allclose(psnr(truth, noisy), 10 * np.log10(255**2 / levels), rtol=1e-12)


def test_equal_frames_are_perfect_and_both_measures_are_symmetric() -> None:
    truth, noisy = _pair(3, (2, 12, 12, 3))
    assert np.isposinf(psnr(truth, truth)).all()
    np.testing.assert_allclose(ssim(truth, truth), 1, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(psnr(truth, noisy), psnr(noisy, truth))
    np.testing.assert_allclose(ssim(truth, noisy), ssim(noisy, truth), rtol=1e-12)


def test_leading_axes_are_kept() -> None:
    truth, noisy = _pair(4, (2, 3, 12, 13, 3))
    assert psnr(truth, noisy).shape == (2, 3)
    assert ssim(truth, noisy)[1, 2] == ssim(truth[1, 2], noisy[1, 2])


def test_curves_count_frames_and_the_rollout_apart() -> None:
    truth, noisy = _pair(5, (4, 12, 12, 3))
    noisy[0] = truth[0]

    def worst(x: Array, y: Array) -> Array:
        return np.abs(x - y).max((1, 2, 3))

    scores = quality(truth, noisy, worst)
    assert scores.identical_frames == 1
    assert scores.lpips is not None
    np.testing.assert_array_equal(scores.lpips, worst(truth / 127.5 - 1, noisy / 127.5 - 1))
    table = curve_table({"a": scores, "b": quality(truth[:2], noisy[:2])}, {"a": 48, "b": 0})
    assert table["frame"].tolist() == [48, 49, 50, 51, 0, 1]
    assert table["rollout_index"].tolist() == [0, 1, 2, 3, 0, 1]
    assert table["clip"].tolist() == ["a"] * 4 + ["b"] * 2
    np.testing.assert_array_equal(table["psnr"], np.append(scores.psnr, scores.psnr[:2]))
    assert table["lpips"].isna().tolist() == [False] * 4 + [True] * 2


@pytest.mark.parametrize(
    ("truth", "generated", "words"),
    [
        (np.zeros((2, 12, 12, 3)), np.zeros((3, 12, 12, 3)), "(3, 12, 12, 3)"),
        (np.zeros((0, 12, 12, 3)), np.zeros((0, 12, 12, 3)), "none of them 0"),
        (np.zeros((12, 12)), np.zeros((12, 12)), "channels"),
        (np.zeros((1, 12, 12, 3)), np.full((1, 12, 12, 3), 1.5), "[-1, 1]"),
        (np.zeros((1, 12, 12, 3)), np.full((1, 12, 12, 3), np.nan), "NaN"),
    ],
)
def test_frames_that_cannot_be_compared_are_refused(truth: Array, generated: Array, words: str) -> None:
    for measure in (psnr, ssim, mean_squared_error):
        with pytest.raises(MetricError) as error:
            measure(truth, generated)
        assert words in str(error.value)


def test_a_picture_smaller_than_the_window_has_no_ssim() -> None:
    with pytest.raises(MetricError, match="at least 11x11 pixels, got 10x30"):
        ssim(np.zeros((1, 10, 30, 3)), np.zeros((1, 10, 30, 3)))
