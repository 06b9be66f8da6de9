"""A Gaussian video in the modes of pictures, as fitted to clips (:mod:`arvdm_theory.laws.fitting`), and its file.

A picture is m + s Σ_k z_k φ_k + rest: mean picture m, orthonormal spatial modes φ_k (principal components) and a
common scale s that makes the average variance of the coefficients z_k equal to 1. The coefficients are a
stationary vector autoregression (:mod:`arvdm_theory.laws.autoregression`) whose memory goes on beyond its order
(:mod:`arvdm_theory.laws.partial_tail`); the rest, which the modes do not hold, is no part of the video.

One scale for all modes keeps their shape in pixel space: white noise on z is white noise on the pixels within
the span of the modes. Information and KL divergence at level 0 do not depend on s, but what an OU level means
does: level t here is the signal-to-noise ratio of level log(1 + s² (e^t - 1)) on unscaled pixels in [-1, 1].
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from arvdm_theory.arrays import load_arrays
from arvdm_theory.files import atomic_path
from arvdm_theory.laws.autoregression import (
    blocks,
    companion,
    extend,
    log_densities,
    predictors,
)
from arvdm_theory.laws.gaussian import StationaryVideo
from arvdm_theory.laws.spanned import SpannedVideo
from arvdm_theory.laws.state_space import StateSpace
from arvdm_theory.limits import LimitError
from arvdm_theory.plan.plan import Plan

__all__ = ["FitError", "FittedVideo", "load_fitted", "pictures"]

Array = NDArray[np.float64]

_FORMAT = "arvdm fitted video"
_VERSION = 2
# A companion matrix of more states costs more than the joint covariance of the frames that it is to save.
_MOST_STATES = 1024
# So many frames are out that first and last ones lie apart.
_FAR = 10**6


class FitError(ValueError):
    """Clips that no video can be fitted to, or a file that holds no fitted video; the message says why."""


class FittedVideo(StationaryVideo):
    """A stationary Gaussian video in the coefficients of K spatial modes.

    Its frames are z_t ∈ R^K with mean zero (``frame_dim`` = K, one independent mode, any number of frames).
    Given by Γ(0..q): beyond lag q the autoregression of order q goes on.

    Args:
        gamma: Γ(0..q), shape (q + 1, K, K).
        basis: the orthonormal spatial modes φ, shape (K, height, width, channels).
        mean_picture: m, shape (height, width, channels).
        scale: s > 0; a picture is m + s Σ_k z_k φ_k.
        variance_kept: the share of the training frames' pixel variance in the modes, in (0, 1].
        residual_variance: the noise floor: the mean square per pixel of what the modes leave out.
        cross: the shrinkage weight μ towards unrelated modes that went into Γ.
        white: the shrinkage weight λ towards white noise that went into Γ.
        head: p ≤ q, the order that was fitted freely; from there on Γ follows the tail. q if left out.
        tail: a of the K coordinates, then r and s, of the tail; empty without one.
        memory_gain: nats per frame that the tail gained on training clips left out, and their standard error; NaN
            where it was not measured.
        source: where it came from, in words (clips, region, colour): anything JSON can hold.
        device: where its tensors live.
        name: what tables call it.

    Raises:
        FitError: if the arrays do not fit together, are not finite, or the modes are not orthonormal.
        NotPositiveDefiniteError: if the block Toeplitz matrix of Γ(0..q) is not positive definite.
    """

    def __init__(
        self,
        gamma: ArrayLike,
        basis: ArrayLike,
        mean_picture: ArrayLike,
        scale: float,
        *,
        variance_kept: float = 1.0,
        residual_variance: float = 0.0,
        cross: float = 0.0,
        white: float = 0.0,
        head: int | None = None,
        tail: ArrayLike = (),
        memory_gain: ArrayLike = (np.nan, np.nan),
        source: Mapping[str, Any] | None = None,
        device: torch.device | str | None = None,
        name: str = "fitted",
    ) -> None:
        self.gamma = np.asarray(gamma, dtype=np.float64)
        self.basis = np.asarray(basis, dtype=np.float64)
        self.mean_picture = np.asarray(mean_picture, dtype=np.float64)
        self.scale = float(scale)
        self.variance_kept = float(variance_kept)
        self.residual_variance = float(residual_variance)
        self.cross = float(cross)
        self.white = float(white)
        self.head = len(self.gamma) - 1 if head is None else int(head)
        self.tail = np.asarray(tail, dtype=np.float64)
        self.memory_gain = np.asarray(memory_gain, dtype=np.float64)
        self.source = dict(source or {})
        self._validate()
        for _ in predictors(blocks(self.gamma)):
            pass  # raises where Γ is no autocovariance
        super().__init__(
            lambda lags: torch.from_numpy(extend(self.gamma, lags))[None].to(device),
            len(self.basis),
            name=name,
        )

    @property
    def order(self) -> int:
        """The order q of the autoregression: given q clean frames, nothing older matters."""
        return len(self.gamma) - 1

    def state_space_form(self) -> StateSpace | None:
        """The companion form: the state is the last q frames; None where it would have more than 1024 entries."""
        if max(self.order, 1) * self.frame_dim > _MOST_STATES:
            return None
        if self._state_space is None:
            self._state_space = companion(self.gamma).to(self.device)
        return self._state_space

    def caveat(self, plan: Plan) -> str | None:
        """Where the order of the fit, and not the clips, decides what a plan's references leave open."""
        reach = plan.references.reach
        clean = all(pick.level <= plan.floor for pick in plan.references.picks)
        if plan.floor > 0 or reach is None or not clean:
            return None
        # Of the newest frames, how many are held without a gap.
        held = {_FAR - reference.frame for reference in plan.references.at(_FAR)}
        run = next(lag for lag in itertools.count() if lag + 1 not in held)
        gain, error = (float(value) for value in self.memory_gain)
        found = "" if np.isnan(gain) else f"; longer memory gained {gain:.2g}"
        found += "" if np.isnan(error) else f" ± {error:.2g}"
        found += "" if np.isnan(gain) else " nats a frame on clips left out"
        if run >= self.order:
            return (
                f"the fitted video is an autoregression of order {self.order}: from {self.order} clean references "
                f"on the memory bottleneck is 0 by construction, whatever the clips hold{found}"
            )
        if reach[1] >= self.head:
            return (
                f"beyond lag {self.head} the fitted video follows a tail of a few parameters, which alone says "
                f"what {len(held)} references leave open{found}"
            )
        return None

    def encode(self, frames: ArrayLike) -> Array:
        """Coefficients (frames, K) of pictures (frames, height, width, channels): z = φ (picture - m) / s."""
        shown = pictures(frames, "the frames")
        if shown.shape[1:] != self.mean_picture.shape:
            raise FitError(f"the video has pictures of shape {self.mean_picture.shape}, got {shown.shape[1:]}")
        coefficients: Array = np.tensordot(shown - self.mean_picture, self.basis, ((1, 2, 3), (1, 2, 3)))
        return coefficients / self.scale

    def decode(self, coefficients: ArrayLike | Tensor) -> Array:
        """Pictures (..., height, width, channels) of coefficients (..., K): m + s Σ_k z_k φ_k."""
        if isinstance(coefficients, Tensor):
            coefficients = coefficients.detach().cpu().numpy()
        offset: Array = np.tensordot(np.asarray(coefficients, dtype=np.float64), self.basis, 1)
        return self.mean_picture + self.scale * offset

    def pixels(self, noise: float | None = None) -> SpannedVideo:
        """The law of the pictures themselves: X = m + s Σ_k z_k φ_k + white noise outside the modes' span.

        For networks that take pixels: frames are flat, (batch, w, height·width·channels), and levels are those of
        pixels, without the scale s. :meth:`mode_level` says which level of this video that is.

        Args:
            noise: the variance of each direction outside the span; left out, the ``residual_variance`` that the
                modes left of the training frames, spread over those directions.

        Raises:
            FitError: if nothing was left outside the span and no noise is given.
        """
        flat = self.basis.reshape(self.frame_dim, -1)
        free = flat.shape[1] - self.frame_dim
        if noise is None:
            noise = self.residual_variance * flat.shape[1] / free if free else 1.0
        if free and not 0 < noise < np.inf:
            raise FitError(
                f"outside the {self.frame_dim} modes the pictures need noise of positive variance, got {noise:g}: "
                "the modes hold all of the training frames; give a noise"
            )
        picture = self.mean_picture
        return SpannedVideo(self, flat, picture.ravel(), noise, self.scale, picture.shape, self.name)

    def pixel_level(self, level: float) -> float:
        """The level of pixels at which noise hides as much as at a level of this video: log(1 + s² (e^t - 1))."""
        return float(np.log1p(self.scale**2 * np.expm1(level)))

    def mode_level(self, level: float) -> float:
        """The reverse of :meth:`pixel_level`."""
        return float(np.log1p(np.expm1(level) / self.scale**2))

    def log_likelihood(self, coefficients: ArrayLike) -> float:
        """Exact log-density, in nats, of a whole segment of coefficients (frames, K)."""
        segment = np.asarray(coefficients, dtype=np.float64)
        if segment.ndim != 2 or segment.shape[1] != self.frame_dim or len(segment) == 0:
            raise FitError(f"coefficients must have shape (frames, {self.frame_dim}), got {segment.shape}")
        return float(log_densities(self.gamma, segment)[-1])

    def save(self, path: str | Path) -> None:
        """Writes the video as one ``.npz``, all at once or not at all; :func:`load_fitted` reads it back."""
        held: dict[str, Any] = {key: np.asarray(getattr(self, key)) for key in _ARRAYS}
        source = json.dumps(self.source, sort_keys=True)
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, format=np.array(_FORMAT), version=np.array(_VERSION), source=np.array(source), **held)

    def _validate(self) -> None:
        k = len(self.basis) if self.basis.ndim == 4 else 0
        shapes = f"{self.gamma.shape}, {self.basis.shape} and {self.mean_picture.shape}"
        fits = self.gamma.ndim == 3 and self.gamma.shape[1:] == (k, k) and len(self.gamma) > 0
        if k < 1 or not fits or self.mean_picture.shape != self.basis.shape[1:]:
            raise FitError(f"Γ (q + 1, K, K), modes (K, h, w, c) and mean (h, w, c) do not fit: {shapes}")
        if not 0 <= self.head <= self.order or self.tail.shape not in ((0,), (k + 2,)):
            raise FitError(
                f"a tail of {self.tail.shape} beyond order {self.head} does not fit Γ {self.gamma.shape}"
            )
        if self.memory_gain.shape != (2,):
            raise FitError(f"memory_gain is a mean and its error, got shape {self.memory_gain.shape}")
        for key in _ARRAYS:
            if key != "memory_gain" and not np.isfinite(getattr(self, key)).all():
                raise FitError(f"{key} has entries that are NaN or infinite")
        if self.scale <= 0:
            raise FitError(f"the scale must be positive, got {self.scale}")
        flat = self.basis.reshape(k, -1)
        if np.abs(flat @ flat.T - np.eye(k)).max() > 1e-8:
            raise FitError("the spatial modes are not orthonormal")
        if np.abs(self.gamma[0] - self.gamma[0].T).max() > 1e-10 * np.abs(self.gamma[0]).max():
            raise FitError("Γ(0) is not symmetric")


_ARRAYS = (
    "gamma",
    "basis",
    "mean_picture",
    "scale",
    "variance_kept",
    "residual_variance",
    "cross",
    "white",
    "head",
    "tail",
    "memory_gain",
)


def load_fitted(path: str | Path, device: torch.device | str | None = None) -> FittedVideo:
    """The fitted video in a file that :meth:`FittedVideo.save` wrote, bit for bit.

    Raises:
        FileNotFoundError: if there is no such file.
        FitError: if it is not such a file, is of another version, or its numbers make no video.
        LimitError: if it is too large for this machine.
    """
    file = Path(path)
    if not file.exists():
        raise FileNotFoundError(f"{file}: no such file")
    try:
        held: dict[str, Any] = dict(load_arrays(file))
    except LimitError:
        raise
    except (ValueError, OSError) as error:
        raise FitError(f"{error}: not a fitted video") from error
    if str(held.get("format")) != _FORMAT:
        raise FitError(f"{file}: not a fitted video (write one with 'arvdm fit')")
    if str(held.get("version")) != str(_VERSION):
        raise FitError(f"{file}: version {held.get('version')} of the format, this code reads {_VERSION}")
    missing = [key for key in (*_ARRAYS, "source") if key not in held]
    if missing:
        raise FitError(f"{file}: {', '.join(missing)} missing")
    try:
        source = json.loads(str(held["source"]))
    except ValueError as error:
        raise FitError(f"{file}: source is not JSON") from error
    try:
        return FittedVideo(**{key: held[key] for key in _ARRAYS}, source=source, device=device, name=file.stem)
    except (TypeError, ValueError) as error:
        raise FitError(f"{file}: {error}") from error


def pictures(clip: ArrayLike, what: str) -> Array:
    """A clip's pixels (frames, height, width, channels).

    Raises:
        FitError: if they are no finite floating-point pixels; it begins with ``what`` they are.
    """
    array = np.asarray(clip)
    if array.dtype.kind != "f":
        raise FitError(
            f"{what}: pixels must be floating-point numbers, got {array.dtype} (bytes v become v/127.5 - 1)"
        )
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or 0 in array.shape:
        raise FitError(f"{what}: the shape must be (frames, height, width[, channels]), got {array.shape}")
    if not np.isfinite(array).all():
        raise FitError(f"{what} has pixels that are NaN or infinite")
    return array.astype(np.float64)
