"""Fractional Gaussian noise against fractional Brownian motion and mpmath; the needle against explicit sums."""

import math

import mpmath  # type: ignore[import-untyped]
import numpy as np
import pytest
import torch

from arvdm_theory import NeedleVideo, fractional_gaussian_noise
from arvdm_theory.information.gaussian import conditional_mutual_information, mutual_information
from arvdm_theory.laws.long_memory import fractional_correlation

B = np.array([[1.0, 0.3], [0.3, 0.5]])
HURST = (0.1, 0.3, 0.5, 0.75, 0.95)


@pytest.mark.parametrize("hurst", HURST)
def test_partial_sums_are_fractional_brownian_motion(hurst: float) -> None:
    n = 40
    covariance = fractional_gaussian_noise(hurst).covariance(n)[0]
    sums = covariance.cumsum(0).cumsum(1)
    t = torch.arange(1, n + 1, dtype=torch.float64)
    motion = (t[:, None] ** (2 * hurst) + t ** (2 * hurst) - (t[:, None] - t).abs() ** (2 * hurst)) / 2
    # A sum of 1600 entries below 1, each accurate to some 40 ε.
    torch.testing.assert_close(sums, motion, rtol=0, atol=1600 * 40 * 2.3e-16)
    torch.testing.assert_close(sums.diagonal(), t ** (2 * hurst), rtol=0, atol=1600 * 40 * 2.3e-16)


@pytest.mark.parametrize("hurst", HURST)
def test_correlation_keeps_its_digits_at_long_lags(hurst: float) -> None:
    lags = torch.tensor([0.0, 1.0, 2.0, 5.0, 100.0, 1e4, 1e6], dtype=torch.float64)
    values = fractional_correlation(hurst, lags).tolist()
    with mpmath.workdps(50):
        h = 2 * mpmath.mpf(hurst)
        for lag, value in zip(lags.tolist(), values, strict=True):
            exact = (abs(lag + 1) ** h - 2 * mpmath.mpf(lag) ** h + abs(mpmath.mpf(lag) - 1) ** h) / 2
            # The two terms of the bracket, near ±2H/l, each carry a few roundings: 8 ε of 2H/l, times ½ l^{2H}.
            scale = hurst * max(lag, 1.0) ** (2 * hurst - 1)
            assert abs(value - float(exact)) <= 8 * 2.3e-16 * (scale + abs(float(exact)))


def test_white_noise_long_memory_and_alternation() -> None:
    white = fractional_gaussian_noise(0.5, B).covariance(6)[0]
    np.testing.assert_allclose(white, np.kron(np.eye(6), B), atol=1e-15)
    lags = torch.arange(1, 2000, dtype=torch.float64)
    assert bool((fractional_correlation(0.8, lags) > 0).all())
    assert bool((fractional_correlation(0.2, lags) < 0).all())
    # r(l) ~ H(2H-1) l^{2H-2}: the next term of the expansion is smaller by l^-2.
    tail = fractional_correlation(0.8, lags[-1:]) / (0.8 * 0.6 * lags[-1] ** (-0.4))
    assert float(tail) == pytest.approx(1.0, abs=1e-6)


def test_fractional_frames_are_a_kronecker_product() -> None:
    video = fractional_gaussian_noise(0.7, B, mean=[1.0, 0.0])
    S = [
        [(abs(k + 1) ** 1.4 - 2 * abs(k) ** 1.4 + abs(k - 1) ** 1.4) / 2 for k in range(-i, 5 - i)]
        for i in range(5)
    ]
    np.testing.assert_allclose(video.covariance(5)[0], np.kron(S, B), rtol=1e-13)
    assert (torch.linalg.eigvalsh(video.covariance(30)) > 0).all()
    assert video.length is None


@pytest.mark.parametrize("hurst", [0.0, 1.0, -0.3, math.nan])
def test_hurst_exponents_outside_their_range_are_refused(hurst: float) -> None:
    with pytest.raises(ValueError, match="Hurst exponent lies strictly between 0 and 1"):
        fractional_gaussian_noise(hurst)


def test_needle_covariance_entry_by_entry() -> None:
    needle = np.array([[1.0, -0.2], [-0.2, 2.0]])
    video = NeedleVideo(
        query_start=4,
        seen=2,
        queries=2,
        strength=1.5,
        needle_covariance=needle,
        background_covariance=B,
        background_correlation=-0.6,
        noise=0.25,
        length=8,
    )
    assert (video.length, video.frame_dim, video.seen, video.query) == (8, 2, range(2), range(4, 6))
    covariance = video.covariance(8)[0].numpy()
    for i in range(8):
        for j in range(8):
            expected = (-0.6) ** abs(i - j) * B
            if i in (0, 1, 4, 5) and j in (0, 1, 4, 5):
                expected = expected + 1.5**2 * needle
            if i == j:
                expected = expected + 0.25 * np.eye(2)
            np.testing.assert_allclose(
                covariance[2 * i : 2 * i + 2, 2 * j : 2 * j + 2], expected, rtol=1e-14, atol=1e-15
            )


@pytest.mark.parametrize("seen", [1, 3])
def test_information_of_the_query_is_the_closed_form(seen: int) -> None:
    strength, background, noise = 1.3, 0.6, 0.2
    video = NeedleVideo(10, seen, strength=strength, background_covariance=[[background]], noise=noise)
    covariance = video.covariance(11)
    q = strength**2 / (background + noise)
    exact = 0.5 * math.log((1 + q) * (1 + seen * q) / (1 + (seen + 1) * q))
    assert float(mutual_information(covariance, [10], range(seen))) == pytest.approx(exact, rel=1e-13)
    # All the past knows no more, and what lies between knows nothing, with or without the needle's first view.
    assert float(mutual_information(covariance, [10], range(10))) == pytest.approx(exact, rel=1e-12)
    assert float(mutual_information(covariance, [10], range(seen, 10))) == 0.0
    missed = conditional_mutual_information(covariance, [10], range(seen), range(seen, 10))
    assert float(missed) == pytest.approx(exact, rel=1e-13)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"query_start": 0}, "0 < seen ≤ query_start"),
        ({"query_start": 3, "seen": 4}, "seen 4, query_start 3"),
        ({"query_start": 3, "seen": 0}, "0 < seen"),
        ({"query_start": 3, "queries": 0}, "queries 0"),
        ({"query_start": 3, "queries": 2, "length": 4}, "length 4"),
        ({"query_start": 3, "background_correlation": 1.0}, r"lies in \(-1, 1\), got 1.0"),
        ({"query_start": 3, "noise": -0.1}, "not negative, got -0.1"),
        ({"query_start": 3, "strength": math.inf}, "strength must be finite, got inf"),
        ({"query_start": 3, "background_covariance": B}, r"must have shape \(1, 1\) as the needle's"),
        ({"query_start": 3, "needle_covariance": [[0.0]]}, "needle covariance .* is not positive definite"),
    ],
)
def test_malformed_needles_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NeedleVideo(**arguments)  # type: ignore[arg-type]
