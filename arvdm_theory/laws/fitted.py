"""The Gaussian video that best matches real clips.

A picture is m + s Σ_k z_k φ_k + rest: mean picture m, orthonormal spatial modes φ_k (principal components) and a
common scale s that makes the average variance of the coefficients z_k equal to 1. The coefficients are a
stationary vector autoregression (:mod:`arvdm_theory.laws.autoregression`); the rest, which the modes do not
hold, is no part of the video.

One scale for all modes keeps their shape in pixel space: white noise on z is white noise on the pixels within
the span of the modes. Information and KL divergence at level 0 do not depend on s, but what an OU level means
does: level t here is the signal-to-noise ratio of level log(1 + s² (e^t - 1)) on unscaled pixels in [-1, 1].
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import eigh
from torch import Tensor

from arvdm_theory.arrays import load_arrays
from arvdm_theory.files import atomic_path
from arvdm_theory.laws.autoregression import (
    MIN_WHITE,
    choose,
    companion,
    extend,
    lattice_autocovariance,
    log_densities,
    shrink,
)
from arvdm_theory.laws.gaussian import StationaryVideo
from arvdm_theory.limits import LimitError

__all__ = ["FitError", "FitReport", "FittedVideo", "fit_video", "load_fitted"]

Array = NDArray[np.float64]

_FORMAT = "arvdm fitted video"
_VERSION = 1


class FitError(ValueError):
    """Clips that no video can be fitted to, or a file that holds no fitted video; the message says why."""


class FittedVideo(StationaryVideo):
    """A stationary Gaussian video in the coefficients of K spatial modes.

    Its frames are z_t ∈ R^K with mean zero (``frame_dim`` = K, one independent mode, any number of frames).
    Given by Γ(0..p): beyond lag p the autoregression of order p goes on.

    Args:
        gamma: Γ(0..p), shape (p + 1, K, K).
        basis: the orthonormal spatial modes φ, shape (K, height, width, channels).
        mean_picture: m, shape (height, width, channels).
        scale: s > 0; a picture is m + s Σ_k z_k φ_k.
        variance_kept: the share of the training frames' pixel variance in the modes, in (0, 1].
        residual_variance: the noise floor: the mean square per pixel of what the modes leave out.
        cross: the shrinkage weight μ towards unrelated modes that went into Γ.
        white: the shrinkage weight λ towards white noise that went into Γ.
        source: where it came from, in words (clips, region, colour): anything JSON can hold.
        device: where its tensors live.
        name: what tables call it.

    Raises:
        FitError: if the arrays do not fit together, are not finite, or the modes are not orthonormal.
        NotPositiveDefiniteError: if the block Toeplitz matrix of Γ(0..p) is not positive definite.
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
        self.source = dict(source or {})
        self._validate()
        super().__init__(
            lambda lags: torch.from_numpy(extend(self.gamma, lags))[None].to(device),
            len(self.basis),
            name=name,
            state_space=companion(self.gamma).to(device),  # raises where Γ is no autocovariance
        )

    @property
    def order(self) -> int:
        """P, the order of the autoregression."""
        return len(self.gamma) - 1

    def encode(self, frames: ArrayLike) -> Array:
        """Coefficients (frames, K) of pictures (frames, height, width, channels): z = φ (picture - m) / s."""
        pictures = _pictures(frames, "the frames")
        if pictures.shape[1:] != self.mean_picture.shape:
            raise FitError(f"the video has pictures of shape {self.mean_picture.shape}, got {pictures.shape[1:]}")
        coefficients: Array = np.tensordot(pictures - self.mean_picture, self.basis, ((1, 2, 3), (1, 2, 3)))
        return coefficients / self.scale

    def decode(self, coefficients: ArrayLike | Tensor) -> Array:
        """Pictures (..., height, width, channels) of coefficients (..., K): m + s Σ_k z_k φ_k."""
        if isinstance(coefficients, Tensor):
            coefficients = coefficients.detach().cpu().numpy()
        offset: Array = np.tensordot(np.asarray(coefficients, dtype=np.float64), self.basis, 1)
        return self.mean_picture + self.scale * offset

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
        if k < 1 or self.gamma.ndim != 3 or self.gamma.shape[1:] != (k, k) or len(self.gamma) < 1:
            raise FitError(f"Γ (p + 1, K, K), modes (K, h, w, c) and mean (h, w, c) do not fit: {shapes}")
        if self.mean_picture.shape != self.basis.shape[1:]:
            raise FitError(f"Γ (p + 1, K, K), modes (K, h, w, c) and mean (h, w, c) do not fit: {shapes}")
        for key in _ARRAYS:
            if not np.isfinite(getattr(self, key)).all():
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


@dataclass(frozen=True)
class FitReport:
    """How well a fitted video does on frames it has not seen.

    Densities are of the scaled coefficients; their differences do not depend on the scale.

    Attributes:
        variance_kept: the share of the training frames' pixel variance that the modes hold.
        variance_kept_held_out: the same of the held-out frames, about the training frames' mean picture.
        training_frames: how many frames were fitted.
        held_out_frames: the length of each held-out segment.
        cross_validation: nats per frame of the chosen model on training pieces left out; None if too short.
        scores: log-density of each held-out segment, in nats, for ``fitted`` and each baseline.
    """

    variance_kept: float
    variance_kept_held_out: float | None
    training_frames: int
    held_out_frames: tuple[int, ...]
    cross_validation: float | None
    scores: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def nats_per_frame(self, law: str) -> float:
        """Log-density per held-out frame."""
        return sum(self.scores[law]) / sum(self.held_out_frames)

    def margin(self, baseline: str) -> tuple[float, float | None]:
        """Nats per frame by which the fitted video beats a baseline, and the standard error over segments.

        The error is that of a ratio of means over independent segments; None where there is only one.
        """
        frames = np.array(self.held_out_frames, dtype=np.float64)
        gain = np.array(self.scores["fitted"]) - np.array(self.scores[baseline])
        margin = float(gain.sum() / frames.sum())
        count = len(frames)
        if count < 2:
            return margin, None
        spread = gain - margin * frames
        return margin, float(np.sqrt((spread**2).sum() * count / (count - 1)) / frames.sum())

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain numbers, nats per frame and margins included."""
        laws = {}
        for law, values in self.scores.items():
            margin, error = self.margin(law)
            laws[law] = {
                "nats_per_frame": self.nats_per_frame(law),
                "segments_nats": list(values),
                "fitted_beats_it_by": margin,
                "standard_error": error,
            }
        return {
            "variance_kept": self.variance_kept,
            "variance_kept_held_out": self.variance_kept_held_out,
            "training_frames": self.training_frames,
            "held_out_frames": list(self.held_out_frames),
            "cross_validation_nats_per_frame": self.cross_validation,
            "held_out": laws,
        }


def fit_video(
    clips: Sequence[ArrayLike],
    modes: int = 8,
    order: int | None = None,
    held_out: float = 0.25,
    source: Mapping[str, Any] | None = None,
) -> tuple[FittedVideo, FitReport]:
    """Fits a Gaussian video to clips and scores it on frames held out.

    The last clips are held out (of one clip, the last part). Mean picture, modes and temporal model come from
    the other frames only. The temporal model is the lattice estimate of an autoregression, its order and
    shrinkage chosen by cross-validation within the training frames. Give several clips where you can: on one
    short clip there is little to choose from, and ``AR(1) per mode`` may well do as well or better.

    Three baselines, and the third without its restriction, are fitted to the same training coefficients and
    scored by the same exact densities; each has at least the share 1e-6 of white noise that every fit has:

    - ``independent frames``: white in time, with the training frames' covariance;
    - ``static video``: X_t = Z + noise_t. The noise covariance is that within training pieces as long as the
      held-out segments, the covariance of Z that of the pieces' means;
    - ``AR(1) per mode``: a first-order autoregression for each mode alone;
    - ``VAR(1)``: a full first-order vector autoregression, with no shrinkage.

    Args:
        clips: floating-point pixels (frames, height, width[, channels]), all of one picture size; [-1, 1] is
            the convention.
        modes: K, the number of spatial modes.
        order: the order of the autoregression; None chooses it.
        held_out: the share of clips (of one clip: of its frames) to score on, at least one; 0 fits
            everything and scores nothing.
        source: kept with the video.

    Raises:
        FitError: if clips differ in picture size, are too short, do not change, hold fewer modes than asked
            for, or are not finite floating-point pixels.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> clips = [rng.normal(size=(40, 4, 4)).cumsum(0) / 10 for _ in range(4)]
        >>> video, report = fit_video(clips, modes=2)
        >>> video.covariance(200).shape
        torch.Size([1, 400, 400])
        >>> report.margin("independent frames")[0] > 1
        True
    """
    pictures = [_pictures(clip, f"clip {i + 1}") for i, clip in enumerate(clips)]
    training, tests = _split(pictures, held_out)
    frames = np.concatenate(training).reshape(sum(map(len, training)), -1)
    mean = frames.mean(0)
    basis, variances, total = _principal_modes(frames - mean, modes)
    scale = float(np.sqrt(variances.mean()))
    variances = variances / scale**2

    def encode(clip: Array) -> Array:
        coefficients: Array = (clip.reshape(len(clip), -1) - mean) @ basis.T / scale
        return coefficients

    segments = [encode(clip) for clip in training]
    try:
        choice = choose(segments, variances, order)
    except ValueError as error:
        raise FitError(str(error)) from error
    gamma = lattice_autocovariance(segments, choice.order, variances)
    inside = float(variances.sum()) * scale**2
    shape = pictures[0].shape[1:]
    video = FittedVideo(
        gamma=shrink(gamma, choice.cross, choice.white, variances),
        basis=basis.reshape(modes, *shape),
        mean_picture=mean.reshape(shape),
        scale=scale,
        variance_kept=min(inside / total, 1.0),
        residual_variance=max(total - inside, 0.0) / frames.shape[1],
        cross=choice.cross,
        white=choice.white,
        source=source,
    )
    unseen = [encode(clip) for clip in tests]
    energy = sum(float(((clip.reshape(len(clip), -1) - mean) ** 2).sum()) for clip in tests)
    captured = sum(float((z**2).sum()) for z in unseen) * scale**2
    report = FitReport(
        variance_kept=video.variance_kept,
        variance_kept_held_out=captured / energy if energy > 0 else None,
        training_frames=len(frames),
        held_out_frames=tuple(len(z) for z in unseen),
        cross_validation=choice.score,
        scores=_scores(video, segments, unseen, variances) if unseen else {},
    )
    return video, report


def _pictures(clip: ArrayLike, what: str) -> Array:
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


def _split(clips: Sequence[Array], held_out: float) -> tuple[Sequence[Array], Sequence[Array]]:
    """Training clips and held-out clips."""
    if not clips:
        raise FitError("at least one clip is needed")
    for i, clip in enumerate(clips):
        if clip.shape[1:] != clips[0].shape[1:]:
            raise FitError(f"clip {i + 1} has pictures of shape {clip.shape[1:]}, clip 1 of {clips[0].shape[1:]}")
    if not 0 <= held_out < 1:
        raise FitError(f"the share held out must be at least 0 and below 1, got {held_out}")
    training, tests = list(clips), list[Array]()
    if held_out > 0 and len(clips) > 1:
        count = min(max(1, round(held_out * len(clips))), len(clips) - 1)
        training, tests = training[:-count], training[-count:]
    elif held_out > 0:
        count = max(1, round(held_out * len(clips[0])))
        training, tests = [clips[0][:-count]], [clips[0][-count:]]
    if max(len(clip) for clip in training) < 2:
        raise FitError(
            f"a clip of at least 2 training frames is needed, the longest has {max(map(len, training))}"
        )
    return training, tests


def _principal_modes(centred: Array, count: int) -> tuple[Array, Array, float]:
    """Leading principal components: (count, pixels), their variances, and the total variance.

    From the eigenvectors of the smaller of the two Gram matrices: exact, and cheap where pixels far outnumber
    frames. Each component's largest entry is positive.
    """
    frames, pixels = centred.shape
    small = centred @ centred.T if frames <= pixels else centred.T @ centred
    total = float(np.trace(small))
    if not total > 1e-20 * frames * pixels:  # pixels are of order 1, and their means carry errors of 1e-16
        raise FitError("the clips do not change from frame to frame: there is nothing to fit")
    if not 1 <= count <= len(small):
        raise FitError(f"{frames} training frames of {pixels} pixels have 1 to {len(small)} modes, not {count}")
    values, vectors = eigh(small, subset_by_index=[len(small) - count, len(small) - 1])
    values, vectors = values[::-1], vectors[:, ::-1]
    # Below 1e-12 of the total a squared matrix holds rounding error, not a mode.
    held = int((values > 1e-12 * total).sum())
    if held < count:
        raise FitError(f"the training frames hold only {held} modes, {count} were asked for")
    basis = (vectors.T @ centred) / np.sqrt(values)[:, None] if frames <= pixels else vectors.T
    largest = np.take_along_axis(basis, np.abs(basis).argmax(1)[:, None], 1)
    return basis * np.sign(largest), values / frames, total / frames


def _scores(
    video: FittedVideo, training: Sequence[Array], unseen: Sequence[Array], variances: Array
) -> dict[str, tuple[float, ...]]:
    """Log-densities of the held-out segments under the fit and the baselines."""

    def score(gamma: Array) -> tuple[float, ...]:
        model = shrink(gamma, 0.0, MIN_WHITE, variances)
        return tuple(float(log_densities(model, segment)[-1]) for segment in unseen)

    full = lattice_autocovariance(training, 1, variances)
    alone = np.zeros_like(full)
    for k in range(len(variances)):
        one = [segment[:, k : k + 1] for segment in training]
        alone[:, k, k] = lattice_autocovariance(one, 1, variances[k : k + 1])[:, 0, 0]
    static = _static_video(training, max(map(len, unseen)))
    floor = MIN_WHITE * np.diag(variances)
    return {
        "fitted": tuple(video.log_likelihood(segment) for segment in unseen),
        "independent frames": score(full[:1]),
        "static video": tuple(_static_log_density(static[0], static[1] + floor, z) for z in unseen),
        "AR(1) per mode": score(alone),
        "VAR(1)": score(full),
    }


def _static_video(training: Sequence[Array], length: int) -> tuple[Array, Array]:
    """Covariances of Z and of the noise in X_t = Z + noise_t, from pieces of at most ``length`` frames."""
    pieces = [piece for clip in training for piece in np.array_split(clip, max(1, round(len(clip) / length)))]
    means = np.concatenate([np.broadcast_to(piece.mean(0), piece.shape) for piece in pieces])
    within = np.concatenate(list(pieces)) - means
    return means.T @ means / len(means), within.T @ within / len(within)


def _static_log_density(still: Array, noise: Array, segment: Array) -> float:
    """Log-density of frames with covariance 1 1^T ⊗ still + I ⊗ noise.

    The orthonormal time average √T x̄ has covariance T·still + noise; the T - 1 other directions, ``noise``.
    """
    frames = len(segment)
    mean = segment.mean(0)
    rest = segment - mean
    slow = log_densities((frames * still + noise)[None], np.sqrt(frames) * mean[None])[0]
    # The other directions are T - 1 frames of white noise, but `rest` is written in T dependent coordinates.
    fast = log_densities(noise[None], rest)[0] - log_densities(noise[None], np.zeros_like(mean)[None])[0]
    return float(slow + fast)
