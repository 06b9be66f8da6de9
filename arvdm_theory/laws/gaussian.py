"""Gaussian videos: every joint law of (frame, noise level) states is a Gaussian known in closed form.

A video is a set of *independent modes*: mode b has frames in R^d and occurs ``multiplicity[b]`` times. An
ordinary video has one mode; a pixel video that is diagonal in space has one mode a spatial frequency. Frames
are counted from 0, and vectors of several frames are frame-major: frame 0's d entries, then frame 1's.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from arvdm_theory.information.gaussian import NotPositiveDefiniteError, cholesky, condition, log_det, whiten
from arvdm_theory.interfaces import ReferenceBatch, VideoBatch
from arvdm_theory.laws.evidence import Evidence
from arvdm_theory.laws.gaussian_stage import GaussianStage
from arvdm_theory.laws.gaussian_window import WindowLaw
from arvdm_theory.laws.law import VideoLaw
from arvdm_theory.laws.stage_law import TrueVideos, WindowPosterior
from arvdm_theory.laws.state_space import StateSpace
from arvdm_theory.laws.states import State, check_paths, frame_indices, noisy_covariance, parting_level
from arvdm_theory.noise import alpha, sigma2, standard_normal
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.references import Reference
from arvdm_theory.plan.stage import Stage

__all__ = [
    "ArrayVideo",
    "GaussianVideo",
    "StationaryVideo",
    "checked_covariance",
    "checked_mean",
    "separable_video",
]


# Exact scores that a video keeps: one for each reverse step of some stages.
_MOST_SCORES = 512
# Laws of windows that a stationary video keeps.
_MOST_WINDOWS = 512


class GaussianVideo(VideoLaw):
    """A Gaussian video: a protocol of two moments from which everything else follows in closed form.

    Attributes:
        frame_dim: d, the entries of one frame of one mode.
        length: how many frames there are; None if the video never ends.
        multiplicity: how often each mode occurs, shape (modes,).
        name: what tables and figures call it.
    """

    multiplicity: Tensor
    name: str = "gaussian"

    @abstractmethod
    def mean(self, frames: int) -> Tensor:
        """Mean of the first ``frames`` frames, shape (modes, frames·d)."""

    @abstractmethod
    def covariance(self, frames: int) -> Tensor:
        """Covariance of the first ``frames`` frames, frame-major, shape (modes, frames·d, frames·d)."""

    @property
    def device(self) -> torch.device:
        """Where its tensors live."""
        return self.multiplicity.device

    @property
    def modes(self) -> int:
        """The number of different modes."""
        return len(self.multiplicity)

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """(modes · d,)."""
        return (self.modes * self.frame_dim,)

    @property
    def gaussian(self) -> Literal[True]:
        """True."""
        return True

    def known_moments(self, frames: int) -> tuple[Tensor, Tensor]:
        """See :meth:`joint_moments`."""
        return self.joint_moments(frames)

    def joint_moments(self, frames: int) -> tuple[Tensor, Tensor]:
        """Mean and covariance of the first ``frames`` frames, and of the actions behind them in a video with
        actions.

        Those of the most frames that were asked for are kept, since those of fewer are a part of them.
        """
        kept: tuple[int, Tensor, Tensor] | None = self.__dict__.get("_kept_moments")
        if kept is None or kept[0] < frames:
            self.require(frames)
            kept = (frames, self.mean(frames), self.covariance(frames))
            if not kept[2].requires_grad and not kept[1].requires_grad:
                self.__dict__["_kept_moments"] = kept
        n = frames * self.frame_dim
        return kept[1][:, :n], kept[2][:, :n, :n]

    def at(self, stage: Stage) -> GaussianStage:
        """The law of a stage of a plan, in closed form."""
        return GaussianStage(self, stage)

    def true_videos(
        self, plan: Plan, ar_steps: int, videos: int, generator: torch.Generator
    ) -> Iterator[TrueVideos]:
        """One batch: a Gaussian stage draws its windows itself, afresh for every reverse step, where it needs
        any."""
        del plan, ar_steps
        yield TrueVideos(self, videos, generator, torch.zeros(0, dtype=torch.float64))

    def joint(self, states: Sequence[State]) -> tuple[Tensor, Tensor]:
        """Mean (modes, n·d) and covariance (modes, n·d, n·d) of any set of noisy states.

        Frame i at level t has mean α(t) μ_i, and two states have covariance
        α(t) α(s) Cov(X_i, X_j) + [i = j] α(t) α(s) (e^r - 1) I, where r is the level at which their forward
        paths part: the lower of their levels on one path, of the partings too on two.

        Raises:
            ValueError: without states, if one lies outside the video or below the level at which its path
                begins, or if a path has two partings.
        """
        if not states:
            raise ValueError("a joint law needs at least one state")
        check_paths(states)
        frames = max(state.frame for state in states) + 1
        self.require(frames)
        index = frame_indices([state.frame for state in states], self.frame_dim).to(self.device)
        clean = self.covariance(frames)[:, index[:, None], index]
        levels = torch.tensor([s.level for s in states], dtype=torch.float64, device=self.device)
        ancestor = torch.tensor(
            [[parting_level(a, b) for b in states] for a in states], dtype=torch.float64, device=self.device
        )
        number = torch.tensor([s.frame for s in states], device=self.device)
        scale = alpha(levels).repeat_interleave(self.frame_dim)
        covariance = noisy_covariance(clean, levels, ancestor, number[:, None] == number)
        return scale * self.mean(frames)[:, index], covariance

    def sample(self, videos: int, frames: int, generator: torch.Generator | None = None) -> Tensor:
        """Independent samples, shape (videos, modes, frames, d); every mode once.

        The numbers come from ``generator``, on its own device: a seeded CPU generator gives the same video
        on every machine.

        Raises:
            ValueError: if the video has fewer frames.
            NotPositiveDefiniteError: if the covariance of the frames is not positive definite.
        """
        # Training draws as many frames again and again: their Cholesky factor is kept.
        kept: tuple[int, Tensor, Tensor] | None = self.__dict__.get("_kept_factor")
        if kept is None or kept[0] != frames:
            self.require(frames)
            factor = cholesky(self.covariance(frames), f"covariance of {frames} frames")
            kept = (frames, self.mean(frames), factor)
            if not factor.requires_grad:
                self.__dict__["_kept_factor"] = kept
        shape = (videos, self.modes, frames * self.frame_dim, 1)
        noise = standard_normal(shape, generator).to(self.device)
        flat = kept[1] + (kept[2] @ noise).squeeze(-1)
        return flat.reshape(videos, self.modes, frames, self.frame_dim)

    def draw(self, videos: int, frames: int, generator: torch.Generator | None = None) -> VideoBatch:
        """The very numbers of :meth:`sample`, (videos, frames, modes · d): the modes of a frame follow one
        another."""
        return VideoBatch(self.sample(videos, frames, generator).transpose(1, 2).flatten(2))

    def conditional(self, window: Evidence, given: Evidence | None) -> tuple[Tensor, Tensor]:
        """Deviation W - E[W | given] (batch, w·d) and Cov(W | given) (w·d, w·d), for a video of one mode."""
        if self.modes != 1:
            raise ValueError(f"densities of states are for videos of one mode, and {self.name!r} has {self.modes}")
        both = window if given is None else window + given
        if both.values is None or both.frames:
            raise ValueError(f"the video {self.name!r} has noisy states, and no symbols")
        mean, covariance = self._joint_given(both.states, both.actions)
        offset = both.values.flatten(1) - mean
        n = len(window.states) * self.frame_dim
        gain, left = condition(covariance, range(n), range(n, covariance.shape[-1]))
        return offset[:, :n] - offset[:, n:] @ gain.mT, left

    def _joint_given(self, states: Sequence[State], actions: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean (batch or 1, n·d) and covariance of states, given what was done in a video with actions."""
        del actions
        mean, covariance = self.joint(states)
        return mean, covariance[0]

    def log_density(self, window: Evidence, given: Evidence | None = None) -> Tensor:
        """log N(W; E[W | given], Cov(W | given)), (batch,)."""
        return self._density(window, given)[0]

    def posterior(self, window: Evidence, given: Evidence | None = None) -> WindowPosterior:
        """The density with its gradient -J (W - E[W | given]), and the variance of the clean frames (Tweedie)."""
        logs, score, precision = self._density(window, given)
        level = torch.tensor([s.level for s in window.states], dtype=torch.float64, device=logs.device)
        diagonal = torch.diagonal(precision).reshape(-1, self.frame_dim).mean(-1)
        left = sigma2(level) / alpha(level) ** 2 * (1 - sigma2(level) * diagonal)
        shape = (len(logs), len(window.states), self.frame_dim)
        return WindowPosterior(logs, score.reshape(shape), left.clamp(min=0).expand(shape[:2]))

    def _density(self, window: Evidence, given: Evidence | None) -> tuple[Tensor, Tensor, Tensor]:
        offset, covariance = self.conditional(window, given)
        factor = cholesky(covariance, "covariance of the window")
        white = whiten(factor, offset.mT)
        constant = log_det(factor) + offset.shape[-1] * math.log(2 * math.pi)
        precision = torch.cholesky_inverse(factor)
        return -0.5 * ((white**2).sum(0) + constant), -offset @ precision, precision

    def exact_score(
        self,
        window: Tensor,
        levels: Tensor,
        references: ReferenceBatch,
        *,
        masked: bool = True,
        actions: bool = True,
    ) -> Tensor:
        """The affine map of (W, R), kept for the levels and references that it was last asked about.

        ``window`` is (batch, w, d), or (batch, modes, w, d) for a video of several modes.
        """
        mask = references.visible if masked else None
        frames, at = references.window_frames, tuple(levels.tolist())
        told = tuple(references.levels.tolist())
        key = (frames, at, references.frames, told, mask, actions)
        known: dict[object, tuple[Tensor, Tensor, Tensor]] = self.__dict__.setdefault("_kept_scores", {})
        if key not in known:
            shown = tuple(Reference(frame, level) for frame, level in zip(references.frames, told, strict=True))
            stage = Stage(
                1, range(frames[0], frames[-1] + 1), shown, (), 0, (at, at), (mask,), 0.0, max((*at, 1.0))
            )
            law = self.at(stage).window
            if len(known) >= _MOST_SCORES:
                known.clear()
            raw = law.raw(law.exact_map(masked, actions))
            known[key] = raw[0][0], raw[1][0], raw[2][0]
        on_window, on_known, bias = known[key]
        one_mode = window.ndim == 3
        flat = (window.unsqueeze(1) if one_mode else window).to(torch.float64).flatten(2)
        values = references.values.unsqueeze(1) if one_mode else references.values
        shown_values = values.to(flat).flatten(2)
        if self.action_dim and actions:
            if references.history is None:
                raise ValueError(f"the exact score of {self.name!r} is told its actions: give them (actions=...)")
            if references.history.shape[-1] != self.action_dim:
                raise ValueError(
                    f"an action of {self.name!r} has {self.action_dim} entries, got {references.history.shape[-1]}"
                )
            done = references.history.to(flat).flatten(1)[:, None]
            shown_values = torch.cat([shown_values, done], -1)
        on_known = on_known[..., : shown_values.shape[-1]]
        score = torch.einsum("mij,bmj->bmi", on_window, flat) + torch.einsum(
            "mij,bmj->bmi", on_known, shown_values
        )
        return (score + bias).reshape(window.shape).to(window)


class ArrayVideo(GaussianVideo):
    """A Gaussian video given by arrays.

    Args:
        covariance: (N·d, N·d), frame-major.
        frame_dim: d.
        mean: (N·d,), zero if left out.
        name: what tables call it.

    Raises:
        ValueError: if the covariance is not a square, symmetric, finite matrix of whole frames, or the mean
            does not fit it.
        NotPositiveDefiniteError: if it is not positive definite.
    """

    def __init__(
        self,
        covariance: ArrayLike | Tensor,
        frame_dim: int,
        mean: ArrayLike | Tensor | None = None,
        name: str = "array",
    ) -> None:
        matrix = checked_covariance(covariance)
        if frame_dim < 1 or matrix.shape[0] % frame_dim:
            raise ValueError(
                f"the frame dimension {frame_dim} does not divide the covariance's {matrix.shape[0]} rows"
            )
        self._covariance = matrix
        self.frame_dim = frame_dim
        self.length = matrix.shape[0] // frame_dim
        self.multiplicity = matrix.new_ones(1)
        self.name = name
        self._mean = checked_mean(mean, matrix, matrix.shape[0])

    def mean(self, frames: int) -> Tensor:
        """See :class:`GaussianVideo`."""
        self.require(frames)
        return self._mean[None, : frames * self.frame_dim]

    def covariance(self, frames: int) -> Tensor:
        """See :class:`GaussianVideo`."""
        self.require(frames)
        n = frames * self.frame_dim
        return self._covariance[None, :n, :n]


class StationaryVideo(GaussianVideo):
    """A Gaussian video with a given autocovariance Γ(l) = Cov(X_{t+l}, X_t) and a constant mean.

    Args:
        autocovariance: lags n ↦ Γ(0..n-1), shape (modes, n, d, d); Γ(-l) = Γ(l)^T.
        frame_dim: d.
        mean: (modes, d), zero if left out.
        multiplicity: (modes,), ones if left out.
        length: the number of frames; None for a video without end.
        name: what tables call it.
        state_space: the same law as a linear state space, but for the mean; None if it is not known to be one.

    Raises:
        ValueError: if Γ(0) is not a finite symmetric float64 matrix a mode, or the mean or the multiplicity
            does not fit it. Whether the covariance of n frames is positive definite shows only where it is
            used.
    """

    def __init__(
        self,
        autocovariance: Callable[[int], Tensor],
        frame_dim: int,
        mean: Tensor | None = None,
        multiplicity: Tensor | None = None,
        length: int | None = None,
        name: str = "stationary",
        state_space: StateSpace | None = None,
    ) -> None:
        first = autocovariance(1)
        modes = first.shape[0]
        if first.shape != (modes, 1, frame_dim, frame_dim):
            raise ValueError(
                f"Γ must have shape (modes, lags, {frame_dim}, {frame_dim}), got {tuple(first.shape)}"
            )
        if first.dtype != torch.float64:
            raise ValueError(f"Γ must be float64, got {first.dtype}")
        if not bool((torch.isfinite(first) & (first == first.mT)).all()):
            raise ValueError("Γ(0) must be finite and exactly symmetric")
        self.autocovariance = autocovariance
        self.frame_dim = frame_dim
        self.length = length
        self.multiplicity = first.new_ones(modes) if multiplicity is None else multiplicity.to(first)
        self._mean = first.new_zeros(modes, frame_dim) if mean is None else mean.to(first)
        if self.multiplicity.shape != (modes,) or self._mean.shape != (modes, frame_dim):
            raise ValueError(f"{modes} modes need as many multiplicities and means of {frame_dim} entries")
        self.name = name
        self._state_space = state_space

    def state_space_form(self) -> StateSpace | None:
        """See :class:`GaussianVideo`."""
        return None if self._state_space is None else replace(self._state_space, mean=self._mean)

    def at(self, stage: Stage) -> GaussianStage:
        """See :class:`GaussianVideo`. Windows that see references equally far back have one law, which is kept."""
        self.require(stage.frames.stop)
        start = stage.frames.start
        seen = tuple((start - reference.frame, reference.level) for reference in stage.references)
        known: dict[object, WindowLaw] = self.__dict__.setdefault("_kept_windows", {})
        law = GaussianStage(self, stage, known.get((stage.window, seen)))
        if not law.window.covariance.requires_grad:
            if len(known) >= _MOST_WINDOWS:
                known.clear()
            # A copy: what the law derives from its levels, and their gradients, are not kept.
            known[stage.window, seen] = replace(law.window, stage=replace(stage, given_levels=None))
        return law

    def mean(self, frames: int) -> Tensor:
        """See :class:`GaussianVideo`."""
        self.require(frames)
        return self._mean.repeat(1, frames)

    def covariance(self, frames: int) -> Tensor:
        """See :class:`GaussianVideo`."""
        self.require(frames)
        gamma = self.autocovariance(frames)
        both = torch.cat([gamma.flip(1).mT[:, :-1], gamma], 1)  # lags -(n-1) .. n-1; the first half is Γ^T
        number = torch.arange(frames, device=gamma.device)
        lag = number[:, None] - number + frames - 1
        n, d = frames, self.frame_dim
        return both[:, lag].permute(0, 1, 3, 2, 4).reshape(-1, n * d, n * d)


def separable_video(
    correlation: Callable[[Tensor], Tensor],
    frame_covariance: ArrayLike | Tensor = ((1.0,),),
    mean: ArrayLike | Tensor | None = None,
    length: int | None = None,
    name: str = "separable",
    state_space: Callable[[Tensor], StateSpace] | None = None,
) -> StationaryVideo:
    """The stationary video with Γ(l) = r(l) B, so that n frames have covariance S ⊗ B, S_ij = r(|i - j|).

    Args:
        correlation: r, from lags 0..n-1 as a float64 tensor (n,) to (n,); r(0) = 1.
        frame_covariance: B, (d, d); where it is a tensor the video lives on its device.
        mean: (d,), zero if left out.
        length: the number of frames; None for a video without end.
        name: what tables call it.
        state_space: from B to the same law as a linear state space, where it is one.

    Raises:
        ValueError: if B is not a symmetric finite matrix, the mean does not fit it, or r(0) is not 1.
        NotPositiveDefiniteError: if B is not positive definite.
    """
    matrix = checked_covariance(frame_covariance, "frame covariance")
    dim = matrix.shape[0]

    def autocovariance(lags: int) -> Tensor:
        r = correlation(torch.arange(lags, dtype=torch.float64, device=matrix.device))
        return (r[:, None, None] * matrix)[None]

    at_zero = float(correlation(torch.zeros(1, dtype=torch.float64, device=matrix.device)))
    if not abs(at_zero - 1) < 1e-12:
        raise ValueError(f"a correlation is 1 at lag 0, got {at_zero}")
    form = None if state_space is None else state_space(matrix)
    return StationaryVideo(
        autocovariance, dim, mean=checked_mean(mean, matrix, dim)[None], length=length, name=name, state_space=form
    )


def checked_covariance(values: ArrayLike | Tensor, what: str = "covariance", definite: bool = True) -> Tensor:
    """A covariance given from outside as an exactly symmetric float64 tensor (n, n), or one clear error.

    Args:
        values: the matrix; a tensor keeps its device and its gradient.
        what: what messages call it.
        definite: refuse a singular one; otherwise only an eigenvalue below -1e-12 times the largest.

    Raises:
        ValueError: if it is not a square, symmetric, finite matrix of real numbers.
        NotPositiveDefiniteError: if it is not positive (semi-)definite.
    """
    matrix = _as_float64(values, what)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.shape[0] == 0:
        raise ValueError(f"the {what} must be a square matrix, got shape {tuple(matrix.shape)}")
    if not bool(torch.isfinite(matrix).all()):
        raise ValueError(f"the {what} has entries that are NaN or infinite")
    asymmetry = float((matrix - matrix.T).detach().abs().max())
    if asymmetry > 1e-10 * float(matrix.detach().abs().max()):
        raise ValueError(f"the {what} is not symmetric: entries differ by up to {asymmetry:.3e}")
    matrix = (matrix + matrix.T) / 2
    if definite:
        cholesky(matrix.detach(), what)
    else:
        eigenvalues = torch.linalg.eigvalsh(matrix.detach())
        if float(eigenvalues[0]) < -1e-12 * float(eigenvalues[-1].abs()):
            raise NotPositiveDefiniteError(
                f"the {what} is not positive semi-definite: its smallest eigenvalue is {float(eigenvalues[0]):.3e}"
            )
    return matrix


def checked_mean(mean: ArrayLike | Tensor | None, like: Tensor, entries: int) -> Tensor:
    """A finite float64 mean (entries,) on the device of ``like``; zero if left out."""
    if mean is None:
        return like.new_zeros(entries)
    values = _as_float64(mean, "mean").to(like.device)
    if values.shape != (entries,):
        raise ValueError(f"the mean must have {entries} entries, got shape {tuple(values.shape)}")
    if not bool(torch.isfinite(values).all()):
        raise ValueError("the mean has entries that are NaN or infinite")
    return values


def _as_float64(values: ArrayLike | Tensor, what: str) -> Tensor:
    """A float64 tensor from an array; complex or non-numeric input is refused."""
    if isinstance(values, Tensor):
        if values.is_complex() or values.dtype == torch.bool:
            raise ValueError(f"the {what} must be real numbers, got {values.dtype}")
        return values.double()
    array = np.asarray(values)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"the {what} must be real numbers, got {array.dtype}")
    return torch.from_numpy(np.array(array, dtype=np.float64))
