"""The Gaussian video that best matches real clips.

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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import eigh
from torch import Tensor
from tqdm import tqdm

from arvdm_theory.arrays import load_arrays
from arvdm_theory.files import atomic_path
from arvdm_theory.laws.autoregression import (
    MIN_WHITE,
    blocks,
    companion,
    extend,
    lattice_autocovariance,
    log_densities,
    predictors,
    shrink,
)
from arvdm_theory.laws.gaussian import StationaryVideo
from arvdm_theory.laws.selection import Choice, choose, gain, model
from arvdm_theory.laws.spanned import SpannedVideo
from arvdm_theory.laws.state_space import StateSpace
from arvdm_theory.limits import LimitError
from arvdm_theory.plan.plan import Plan

__all__ = ["FitError", "FitReport", "FittedVideo", "fit_video", "load_fitted", "same_clips"]

Array = NDArray[np.float64]

_FORMAT = "arvdm fitted video"
_VERSION = 2
# A companion matrix of more states costs more than the joint covariance of the frames that it is to save.
_MOST_STATES = 1024
# Frames agree where their thumbnails do up to this rms, in pixels of [-1, 1], and up to this part of the clips'
# own spread; clips show the same where they agree for so long a run, a twentieth of the shorter one at least.
_SAME_PICTURE = 0.02
_SAME_SPREAD = 0.1
_SAME_RUN = 8
_SHARED = 0.05
_THUMBNAIL = 8
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
        scores: log-density of each held-out segment, in nats, for ``fitted`` and each baseline. Clips that show
            the same count as one segment.
        choice: what cross-validation chose from; None of a report made by hand.
    """

    variance_kept: float
    variance_kept_held_out: float | None
    training_frames: int
    held_out_frames: tuple[int, ...]
    cross_validation: float | None
    scores: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    choice: Choice | None = None

    def nats_per_frame(self, law: str) -> float:
        """Log-density per held-out frame."""
        return sum(self.scores[law]) / sum(self.held_out_frames)

    def margin(self, baseline: str) -> tuple[float, float | None]:
        """Nats per frame by which the fitted video beats a baseline, and the standard error over segments.

        The error is that of a ratio of means over independent segments; None where there is only one.
        """
        return gain(np.array(self.scores["fitted"]), np.array(self.scores[baseline]), self.held_out_frames)

    def memory(self, over: str = "short memory") -> tuple[float, float | None] | None:
        """Nats per frame by which long memory beats short memory, or "order 1", on training clips left out.

        None where the clips were too few or too short to leave any out.
        """
        if self.choice is None or not self.choice.left_out:
            return None
        left_out = self.choice.left_out
        return gain(left_out["long memory"], left_out[over], self.choice.frames)

    @property
    def beaten(self) -> str | None:
        """The best baseline, if it does better on the held-out segments than the fit."""
        best = max(self.scores, key=self.nats_per_frame, default="fitted")
        return None if best == "fitted" else best

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
            "long_memory_gains": dict(
                zip(("nats_per_frame", "standard_error"), self.memory() or (None, None), strict=True)
            ),
            "held_out": laws,
        }


def fit_video(
    clips: Sequence[ArrayLike],
    modes: int = 8,
    order: int | None = None,
    held_out: float = 0.25,
    source: Mapping[str, Any] | None = None,
    memory: bool | None = None,
    progress: bool = False,
) -> tuple[FittedVideo, FitReport]:
    """Fits a Gaussian video to clips and scores it on frames held out.

    The last clips are held out (of one clip, the last part). Mean picture, modes and temporal model come from
    the other frames only, and in cross-validation from those that stay in. The temporal model is the lattice
    estimate of an autoregression that goes on as a tail of partial correlations; its order, shrinkage and tail are
    chosen by cross-validation within the training frames (:func:`arvdm_theory.laws.selection.choose`). With fewer
    than 8 training frames a mode, modes are taken as unrelated to one another. Give several clips where you can:
    on one short clip there is little to choose from, and ``AR(1) per mode`` may well do as well or better.

    Clips that show the same frames, up to what a codec leaves, are fitted together, held out together and left out
    together; so a clip that is given twice is not scored by its copy.

    Three baselines, and the third without its restriction, are fitted to the same training coefficients and
    scored by the same exact densities; each has at least the share 1e-6 of white noise that every fit has:

    - ``independent frames``: white in time, with the training frames' covariance;
    - ``static video``: X_t = Z + noise_t. The noise covariance is that within training pieces as long as the
      held-out segments, the covariance of Z that of the pieces' means;
    - ``AR(1) per mode``: a first-order autoregression for each mode alone;
    - ``VAR(1)``: a first-order vector autoregression, shrunk as it does best on training clips left out, so that a
      gain over it is not one over a baseline that is overfitted.

    Args:
        clips: floating-point pixels (frames, height, width[, channels]), all of one picture size; [-1, 1] is
            the convention. Latents of an autoencoder are pictures with as many channels as they have.
        modes: K, the number of spatial modes.
        order: the order p of the autoregression; None chooses it.
        held_out: the share of clips (of one clip: of its frames) to score on, at least one; 0 fits
            everything and scores nothing.
        source: kept with the video.
        memory: whether the memory goes on beyond p, to 64 frames or the longest training clip's length - 1; None
            lets it, unless held-out clips speak against it.
        progress: whether to show a progress bar.

    Raises:
        FitError: if clips differ in picture size, are too short, do not change, hold fewer modes than asked
            for, are not finite floating-point pixels, or all show the same.

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
    training, tests, groups, unseen_groups = _split(pictures, held_out)
    frames = np.concatenate(training).reshape(sum(map(len, training)), -1)
    found = _Modes.of(frames, modes)
    mean, basis, scale, variances, total = found.mean, found.basis, found.scale, found.variances, found.total

    def refit(kept: Sequence[tuple[int, slice]]) -> tuple[list[Array], Array]:
        own = _Modes.of(
            np.concatenate([training[i][part].reshape(-1, frames.shape[1]) for i, part in kept]), modes
        )
        return [own.encode(clip) for clip in training], own.variances

    segments = [found.encode(clip) for clip in training]
    with tqdm(total=1.0, desc="fitting", disable=None if progress else True, leave=False, bar_format=_BAR) as bar:
        try:
            choice = choose(segments, variances, order, memory, groups, refit, bar.update)
        except ValueError as error:
            raise FitError(str(error)) from error
    gamma, tail = model(segments, choice, variances)
    inside = float(variances.sum()) * scale**2
    shape = pictures[0].shape[1:]
    unseen = [found.encode(clip) for clip in tests]
    energy = sum(float(((clip.reshape(len(clip), -1) - mean) ** 2).sum()) for clip in tests)
    captured = sum(float((z**2).sum()) for z in unseen) * scale**2
    report = FitReport(
        variance_kept=min(inside / total, 1.0),
        variance_kept_held_out=captured / energy if energy > 0 else None,
        training_frames=len(frames),
        held_out_frames=_together([len(z) for z in unseen], unseen_groups),
        cross_validation=choice.score,
        choice=choice,
    )
    more, deviation = report.memory() or (np.nan, None)
    video = FittedVideo(
        gamma=gamma,
        basis=basis.reshape(modes, *shape),
        mean_picture=mean.reshape(shape),
        scale=scale,
        variance_kept=report.variance_kept,
        residual_variance=max(total - inside, 0.0) / frames.shape[1],
        cross=choice.cross,
        white=choice.white,
        head=choice.order,
        tail=() if tail is None else [*tail.strength, tail.decay, tail.bend],
        memory_gain=(more, np.nan if deviation is None else deviation),
        source=source,
    )
    if unseen:
        scores = _scores(video, segments, unseen, variances, choice)
        report = replace(report, scores={law: _together(each, unseen_groups) for law, each in scores.items()})
    return video, report


_BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed} of about {elapsed}+{remaining}"


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


def _split(
    clips: Sequence[Array], held_out: float
) -> tuple[Sequence[Array], Sequence[Array], list[int], list[int]]:
    """Training clips and held-out clips, and a number for each: that of what it shows."""
    if not clips:
        raise FitError("at least one clip is needed")
    for i, clip in enumerate(clips):
        if clip.shape[1:] != clips[0].shape[1:]:
            raise FitError(f"clip {i + 1} has pictures of shape {clip.shape[1:]}, clip 1 of {clips[0].shape[1:]}")
    if not 0 <= held_out < 1:
        raise FitError(f"the share held out must be at least 0 and below 1, got {held_out}")
    shown = same_clips(clips)
    distinct = list(dict.fromkeys(reversed(shown)))[::-1]  # in the order of their last clips
    training, tests, groups, left = list(clips), list[Array](), shown, list[int]()
    if held_out > 0 and len(clips) > 1:
        if len(distinct) == 1:
            raise FitError(
                "all clips show the same frames: none can be held out from the others (give other clips, one clip "
                "alone, or hold out 0)"
            )
        count = min(max(1, round(held_out * len(distinct))), len(distinct) - 1)
        last = set(distinct[-count:])
        training, tests = (
            [c for c, n in zip(clips, shown, strict=True) if (n in last) == side] for side in (0, 1)
        )
        groups, left = ([n for n in shown if (n in last) == side] for side in (0, 1))
    elif held_out > 0:
        count = max(1, round(held_out * len(clips[0])))
        training, tests, left = [clips[0][:-count]], [clips[0][-count:]], [0]
    if max(len(clip) for clip in training) < 2:
        raise FitError(
            f"a clip of at least 2 training frames is needed, the longest has {max(map(len, training))}"
        )
    return training, tests, groups, left


def same_clips(clips: Sequence[ArrayLike]) -> list[int]:
    """A number for every clip, the same where clips share a run of frames, directly or through others.

    Frames are compared as thumbnails, since a clip may come encoded anew.
    """
    small = []
    for clip in (_pictures(each, f"clip {i + 1}") for i, each in enumerate(clips)):
        rows, columns = (np.array_split(np.arange(n), min(n, _THUMBNAIL)) for n in clip.shape[1:3])
        bands = np.stack([clip[:, part].mean(1) for part in rows], 1)
        small.append(np.stack([bands[:, :, part].mean(2) for part in columns], 2).reshape(len(clip), -1))
    spread = float(np.concatenate(small).var(0).mean()) ** 0.5
    nearest = min(_SAME_PICTURE, _SAME_SPREAD * spread) ** 2
    number = list(range(len(clips)))
    for i, first in enumerate(small):
        for j, second in enumerate(small[:i]):
            shorter = min(len(first), len(second))
            square = (first**2).mean(1)[:, None] + (second**2).mean(1) - 2 * first @ second.T / first.shape[1]
            if _longest_run(square < nearest) >= max(_SHARED * shorter, min(_SAME_RUN, shorter)):
                low, high = sorted((number[i], number[j]))
                number = [low if n == high else n for n in number]
    return number


def _longest_run(agree: NDArray[np.bool_]) -> int:
    """The longest run of consecutive frames of one clip that agrees with one of another: along a diagonal."""
    if not agree.any():
        return 0
    run, longest = np.zeros(agree.shape[1] + 1, dtype=int), 0
    for row in agree:
        run[1:] = np.where(row, run[:-1] + 1, 0)
        longest = max(longest, int(run.max()))
    return longest


def _together(values: Sequence[Any], groups: Sequence[int]) -> tuple[Any, ...]:
    """Sums over clips of one number, in the order in which they come."""
    sums: dict[int, Any] = {}
    for value, group in zip(values, groups, strict=True):
        sums[group] = sums.get(group, 0) + value
    return tuple(sums.values())


@dataclass(frozen=True, eq=False)
class _Modes:
    """Mean (pixels,), orthonormal modes (K, pixels), scale, variances on it, and the total of all pixels."""

    mean: Array
    basis: Array
    scale: float
    variances: Array
    total: float

    @classmethod
    def of(cls, frames: Array, count: int) -> _Modes:
        """Those of frames (frames, pixels)."""
        mean = frames.mean(0)
        basis, variances, total = _principal_modes(frames - mean, count)
        scale = float(np.sqrt(variances.mean()))
        return cls(mean, basis, scale, variances / scale**2, total)

    def encode(self, clip: Array) -> Array:
        """Coefficients (frames, K)."""
        coefficients: Array = (clip.reshape(len(clip), -1) - self.mean) @ self.basis.T / self.scale
        return coefficients


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
    video: FittedVideo, training: Sequence[Array], unseen: Sequence[Array], variances: Array, choice: Choice
) -> dict[str, tuple[float, ...]]:
    """Log-densities of the held-out segments under the fit and the baselines."""

    def score(gamma: Array, cross: float = 0.0, white: float = MIN_WHITE) -> tuple[float, ...]:
        law = shrink(gamma, cross, white, variances)
        return tuple(float(log_densities(law, segment)[-1]) for segment in unseen)

    static = _static_video(training, max(map(len, unseen)))
    floor = MIN_WHITE * np.diag(variances)
    cross, white = choice.first_order
    return {
        "fitted": tuple(video.log_likelihood(segment) for segment in unseen),
        "independent frames": score(lattice_autocovariance(training, 0, variances)),
        "static video": tuple(_static_log_density(static[0], static[1] + floor, z) for z in unseen),
        "AR(1) per mode": score(lattice_autocovariance(training, 1, variances, unrelated=True)),
        "VAR(1)": score(lattice_autocovariance(training, 1, variances, unrelated=cross == 1), cross, white),
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
