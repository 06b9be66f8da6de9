"""Gaussian videos: every joint law of (frame, noise level) states is a Gaussian known in closed form.

A video is a set of *independent modes*: mode b has frames in R^d and occurs ``multiplicity[b]`` times. An
ordinary video has one mode; a pixel video that is diagonal in space has one mode a spatial frequency. Frames
are counted from 0, and vectors of several frames are frame-major: frame 0's d entries, then frame 1's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from arvdm_theory.information.gaussian import NotPositiveDefiniteError, cholesky
from arvdm_theory.noise import alpha, joint_noise

__all__ = [
    "ArrayVideo",
    "GaussianVideo",
    "State",
    "StationaryVideo",
    "check_paths",
    "checked_covariance",
    "checked_mean",
    "frame_indices",
    "noisy_covariance",
    "parting_level",
    "separable_video",
    "standard_normal",
]


@dataclass(frozen=True)
class State:
    """One noisy state X_i^t of a frame.

    Path 0 of a frame is its own trajectory through all levels. Any other path runs along it up to the level
    ``parting`` and has noise of its own from there on: a reference freshly noised from the clean frame has
    parting 0, one freshly noised from the state at which a stopped sampler leaves the frame (level δ) has
    parting δ. Two paths other than 0 therefore part at the lower of their partings.

    Attributes:
        frame: the frame's index, from 0.
        level: its OU level t ≥ 0.
        path: which forward path of the frame it lies on; states of one frame and path share all noise up to
            the lower of their levels.
        parting: the level at which the path leaves path 0, the same for all states of a path; 0 on path 0
            itself, which never leaves.
    """

    frame: int
    level: float
    path: int = 0
    parting: float = 0.0


def frame_indices(frames: Sequence[int] | range, dim: int) -> Tensor:
    """Positions of the entries of ``frames`` in a frame-major vector of frames in R^dim."""
    start = torch.as_tensor(list(frames), dtype=torch.long)
    return (start[:, None] * dim + torch.arange(dim)).reshape(-1)


def noisy_covariance(clean: Tensor, levels: Tensor, ancestor: Tensor, same_frame: Tensor) -> Tensor:
    """Joint covariance of noisy states: α_a α_b (Σ_ab + [same frame] (e^{s_ab} - 1) I).

    Args:
        clean: covariance of the states' frames, frame-major, (..., n·d, n·d).
        levels: OU levels, (..., n).
        ancestor: levels s_ab at which the forward paths of two states part, (..., n, n); read only where the
            frames are the same, and on the diagonal the states' own levels.
        same_frame: which states belong to one frame, (n, n).

    Returns:
        shape (..., n·d, n·d), the leading axes broadcast.

    Raises:
        ValueError: if the n states do not divide the covariance's rows.
    """
    n = same_frame.shape[0]
    dim, rest = divmod(clean.shape[-1], n)
    if rest:
        raise ValueError(f"{n} states of equal dimension cannot fill a covariance of {clean.shape[-1]} rows")
    scale = alpha(levels).repeat_interleave(dim, -1)
    noise = joint_noise(levels, torch.where(same_frame, ancestor, torch.zeros_like(ancestor)))
    eye = torch.eye(dim, dtype=clean.dtype, device=clean.device)
    spread = torch.einsum("...ab,ij->...aibj", noise, eye)
    flat = spread.reshape(*spread.shape[:-4], n * dim, n * dim)
    return scale[..., :, None] * scale[..., None, :] * clean + flat


class GaussianVideo(ABC):
    """A Gaussian video: a protocol of two moments from which everything else follows.

    Attributes:
        frame_dim: d, the entries of one frame of one mode.
        length: how many frames there are; None if the video never ends.
        multiplicity: how often each mode occurs, shape (modes,).
        name: what tables and figures call it.
    """

    frame_dim: int
    length: int | None
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

    def require(self, frames: int) -> None:
        """Raises ValueError if the video has fewer than ``frames`` frames."""
        if frames < 1:
            raise ValueError(f"at least one frame is needed, got {frames}")
        if self.length is not None and frames > self.length:
            raise ValueError(f"{frames} frames are needed, but the video {self.name!r} has {self.length}")

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
        self.require(frames)
        factor = cholesky(self.covariance(frames), f"covariance of {frames} frames")
        shape = (videos, self.modes, frames * self.frame_dim, 1)
        noise = standard_normal(shape, generator).to(self.device)
        flat = self.mean(frames) + (factor @ noise).squeeze(-1)
        return flat.reshape(videos, self.modes, frames, self.frame_dim)


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
) -> StationaryVideo:
    """The stationary video with Γ(l) = r(l) B, so that n frames have covariance S ⊗ B, S_ij = r(|i - j|).

    Args:
        correlation: r, from lags 0..n-1 as a float64 tensor (n,) to (n,); r(0) = 1.
        frame_covariance: B, (d, d); where it is a tensor the video lives on its device.
        mean: (d,), zero if left out.
        length: the number of frames; None for a video without end.
        name: what tables call it.

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
    return StationaryVideo(
        autocovariance, dim, mean=checked_mean(mean, matrix, dim)[None], length=length, name=name
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


def standard_normal(shape: Sequence[int], generator: torch.Generator | None) -> Tensor:
    """Standard normal numbers in float64, on the generator's device."""
    device = torch.device("cpu") if generator is None else generator.device
    return torch.randn(tuple(shape), dtype=torch.float64, generator=generator, device=device)


def check_paths(states: Sequence[State]) -> None:
    """Raises ValueError unless every state lies on its path and every path leaves path 0 at one level."""
    partings: dict[tuple[int, int], float] = {}
    for state in states:
        if state.frame < 0:
            raise ValueError(f"frames are counted from 0, got {state.frame}")
        if not 0 <= state.parting <= state.level < float("inf"):
            raise ValueError(
                f"frame {state.frame}: 0 ≤ parting ≤ level < ∞ is needed, got {state.parting}, {state.level}"
            )
        if state.path == 0 and state.parting != 0:
            raise ValueError(
                f"frame {state.frame}: path 0 is the frame's own trajectory and leaves it nowhere; the "
                f"parting {state.parting} belongs to the other path"
            )
        first = partings.setdefault((state.frame, state.path), state.parting)
        if first != state.parting:
            raise ValueError(
                f"frame {state.frame}: path {state.path} cannot leave path 0 both at {first} and at "
                f"{state.parting}"
            )


def parting_level(a: State, b: State) -> float:
    """The level at which the forward paths of two states of one frame part."""
    if a.path == b.path:
        return min(a.level, b.level)
    return min(a.level, b.level, *(state.parting for state in (a, b) if state.path != 0))


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
