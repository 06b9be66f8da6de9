"""How close generated frames come to true ones, frame by frame: PSNR, and SSIM as scikit-image computes it.

Frames are (..., height, width, channels) on the scale of :mod:`arvdm_theory.data.clips`: bytes, or floats in
[-1, 1]. A picture that leaves that range cannot be shown; bring it back before it is scored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from arvdm_theory.data.clips import ClipError, to_unit

__all__ = ["MetricError", "Quality", "curve_table", "decibel", "mean_squared_error", "psnr", "quality", "ssim"]

Array = NDArray[np.float64]

# A side of SSIM's window.
_SIDE = 11
# Pixels reach from -1 to 1.
_PEAK = 2.0


class MetricError(ValueError):
    """Frames that cannot be compared; the message says which and why."""


def mean_squared_error(truth: NDArray[Any], generated: NDArray[Any]) -> Array:
    """Mean over pixels and channels of (truth - generated)², pixels on [-1, 1].

    Args:
        truth: shape (..., height, width, channels).
        generated: the same.

    Returns:
        shape (...).

    Raises:
        MetricError: if the shapes differ, nothing is there, or pixels are not bytes or floats in [-1, 1].
    """
    return _squared_error(*_pair(truth, generated))


def decibel(squared_error: ArrayLike) -> Array:
    """The peak signal-to-noise ratio of a mean squared error of pixels on [-1, 1], 10 log₁₀(4/MSE); ∞ for 0."""
    with np.errstate(divide="ignore"):
        ratio: Array = 10 * np.log10(_PEAK**2 / np.asarray(squared_error, dtype=np.float64))
    return ratio


def psnr(truth: NDArray[Any], generated: NDArray[Any]) -> Array:
    """Peak signal-to-noise ratio of every frame, 10 log₁₀(peak² / MSE) in dB; infinite for equal frames.

    The peak is the whole range of a pixel, 255 for bytes and 2 on [-1, 1].

    Args:
        truth: shape (..., height, width, channels).
        generated: the same.

    Returns:
        shape (...).

    Raises:
        MetricError: as :func:`mean_squared_error`.

    Example:
        >>> black, grey = np.zeros((1, 8, 8, 3), np.uint8), np.full((1, 8, 8, 3), 51, np.uint8)
        >>> bool(np.isclose(psnr(black, grey)[0], 20 * np.log10(5)))
        True
    """
    return decibel(_squared_error(*_pair(truth, generated)))


def ssim(truth: NDArray[Any], generated: NDArray[Any]) -> Array:
    """Structural similarity of every frame: the mean over all 11 x 11 windows that lie inside it, and channels.

    (2 μ_x μ_y + C₁)(2 σ_xy + C₂) / ((μ_x² + μ_y² + C₁)(σ_x² + σ_y² + C₂)), moments weighted by a Gaussian of
    standard deviation 1.5 pixels, C₁ = (0.01 L)², C₂ = (0.03 L)² and L the range of a pixel. The measure is not
    invariant to a shift of the scale; pixels count from black = 0, as in Wang, Bovik, Sheikh and Simoncelli
    (2004), *Image quality assessment: from error visibility to structural similarity*.

    Args:
        truth: shape (..., height, width, channels), at least 11 x 11.
        generated: the same.

    Returns:
        shape (...); 1 for equal frames.

    Raises:
        MetricError: as :func:`mean_squared_error`, or if the picture is smaller than the window.
    """
    return _similarity(*_pair(truth, generated))


@dataclass(frozen=True)
class Quality:
    """What every frame of a clip scores, in the order of the rollout.

    Attributes:
        psnr: in dB, shape (frames,).
        ssim: shape (frames,).
        lpips: learned perceptual distance, shape (frames,); None where no network was given.
    """

    psnr: Array
    ssim: Array
    lpips: Array | None = None

    @property
    def identical_frames(self) -> int:
        """Number of frames that equal the truth exactly, which makes the mean PSNR infinite."""
        return int(np.isposinf(self.psnr).sum())

    def curves(self) -> dict[str, Array]:
        """The measures that there are, by name."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: curve for name, curve in found.items() if curve is not None}

    def means(self) -> dict[str, float]:
        """Each measure's mean over the frames."""
        return {name: float(curve.mean()) for name, curve in self.curves().items()}


def quality(
    truth: NDArray[Any],
    generated: NDArray[Any],
    lpips: Callable[[NDArray[Any], NDArray[Any]], Array] | None = None,
) -> Quality:
    """PSNR and SSIM of every frame, and LPIPS where a network is given.

    Args:
        truth: shape (frames, height, width, channels).
        generated: the same.
        lpips: as :func:`arvdm_theory.video.features.load_lpips` gives it.

    Raises:
        MetricError: as :func:`psnr` and :func:`ssim`.
    """
    pair = _pair(truth, generated)
    return Quality(decibel(_squared_error(*pair)), _similarity(*pair), None if lpips is None else lpips(*pair))


def curve_table(clips: Mapping[str, Quality], first_frame: Mapping[str, int]) -> pd.DataFrame:
    """Curves against the rollout index: a row a clip and frame.

    Args:
        clips: by name.
        first_frame: position in its clip of each one's first scored frame, rollout index 0.
    """
    rows = []
    for name, scores in clips.items():
        index = np.arange(len(scores.psnr))
        columns = {"clip": name, "frame": first_frame[name] + index, "rollout_index": index, **scores.curves()}
        rows.append(pd.DataFrame(columns))
    return pd.concat(rows, ignore_index=True)


def _pair(truth: NDArray[Any], generated: NDArray[Any]) -> tuple[Array, Array]:
    if truth.shape != generated.shape:
        raise MetricError(f"the true frames have shape {truth.shape}, the generated ones {generated.shape}")
    if truth.ndim < 3 or 0 in truth.shape:
        raise MetricError(f"frames have shape (..., height, width, channels), none of them 0, got {truth.shape}")
    try:
        return to_unit(truth), to_unit(generated)
    except ClipError as error:
        raise MetricError(str(error)) from error


def _squared_error(truth: Array, generated: Array) -> Array:
    error: Array = ((truth - generated) ** 2).mean((-3, -2, -1))
    return error


def _similarity(truth: Array, generated: Array) -> Array:
    if min(truth.shape[-3:-1]) < _SIDE:
        size = "x".join(str(side) for side in truth.shape[-3:-1])
        raise MetricError(f"SSIM needs pictures of at least 11x11 pixels, got {size}")
    from skimage import metrics

    measure: Callable[..., float] = partial(
        metrics.structural_similarity, channel_axis=-1, data_range=1.0, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False,
    )  # fmt: skip
    x, y = (((pixels + 1) / 2).reshape(-1, *pixels.shape[-3:]) for pixels in (truth, generated))
    scores = np.array([measure(*pair) for pair in zip(x, y, strict=True)], dtype=np.float64)
    return scores.reshape(truth.shape[:-3])
