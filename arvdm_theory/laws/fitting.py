"""Fits a Gaussian video to clips, and scores it on frames that it has not seen.

What is fitted is a :class:`arvdm_theory.laws.fitted.FittedVideo`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import eigh
from tqdm import tqdm

from arvdm_theory.laws.autoregression import MIN_WHITE, lattice_autocovariance, log_densities, shrink
from arvdm_theory.laws.fitted import FitError, FittedVideo, pictures
from arvdm_theory.laws.same_clips import same_clips
from arvdm_theory.laws.selection import Choice, choose, gain, model

__all__ = ["FitReport", "fit_video"]

Array = NDArray[np.float64]

_BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed} of about {elapsed}+{remaining}"


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
    frames_of = [pictures(clip, f"clip {i + 1}") for i, clip in enumerate(clips)]
    training, tests, groups, unseen_groups = _split(frames_of, held_out)
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
    shape = frames_of[0].shape[1:]
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


def _together(values: Sequence[Any], groups: Sequence[int]) -> tuple[Any, ...]:
    """Sums over clips of one number, in the order in which they come."""
    sums: dict[int, Any] = {}
    for value, group in zip(values, groups, strict=True):
        sums[group] = sums.get(group, 0) + value
    return tuple(sums.values())


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
