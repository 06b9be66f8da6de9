"""Gaussian pixel videos of any resolution, diagonal in space.

Stationary on the torus, a pixel video has independent spatial frequencies: in the orthonormal Hartley basis

    cas_k(y, x) = (cos θ + sin θ)/√(HW),   θ = 2π (k_y y/H + k_x x/W),

which is real and its own inverse, coefficient k of the frames has covariance S(k) r_k(|i - j|) B in time and
channels. Only frequencies of different radius differ, so a 64 x 64 video is 457 small problems with
multiplicities instead of one with 4096·channels entries a frame.

Source: Bracewell 1983, J. Opt. Soc. Am. 73(12) (the Hartley transform).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from arvdm_theory.information.gaussian import cholesky
from arvdm_theory.interfaces import VideoBatch
from arvdm_theory.laws.gaussian import ArrayVideo, StationaryVideo, checked_covariance, checked_mean
from arvdm_theory.laws.state_space import StateSpace
from arvdm_theory.noise import standard_normal

__all__ = ["ExponentialMemory", "Matern", "PixelVideo", "PowerLaw", "SameMemory", "hartley"]

# dense() beyond this many rows (half a gigabyte) is a mistake: the modes are there for it.
_DENSE_ROWS = 8192


def hartley(image: Tensor) -> Tensor:
    """Orthonormal two-dimensional Hartley transform of (..., H, W, C) over H and W; its own inverse.

    h(k) = Σ_{y,x} cas_k(y, x) image(y, x) = Re F(k) - Im F(k) with F the orthonormal Fourier transform.
    """
    spectrum = torch.fft.fft2(image, dim=(-3, -2), norm="ortho")
    result: Tensor = spectrum.real - spectrum.imag
    return result


@dataclass(frozen=True)
class PowerLaw:
    """The spectrum of natural images, flat below a corner: S(f) ∝ (f_0² + f²)^{-a/2}.

    Source: Field 1987, J. Opt. Soc. Am. A 4(12): power falls as 1/f² (a = 2).

    Attributes:
        exponent: a ≥ 0; 0 is white noise.
        corner: f_0 > 0, in cycles per longer side: it keeps the mean brightness' power finite.
    """

    exponent: float = 2.0
    corner: float = 1.0

    def __post_init__(self) -> None:
        if not (0 <= self.exponent < math.inf and 0 < self.corner < math.inf):
            raise ValueError(f"a power law needs exponent ≥ 0 and corner > 0, got {self}")

    def __call__(self, frequency: Tensor) -> Tensor:
        """S at radial frequencies (n,), up to scale."""
        return (1 + (frequency / self.corner) ** 2) ** (-self.exponent / 2)


@dataclass(frozen=True)
class Matern:
    """The Matérn spectrum in the plane: S(f) ∝ (1 + (2π f ℓ)²/(2ν))^{-(ν+1)}; ν = ½ is the exponential one.

    On a grid the power beyond the highest frequency is cut, so neighbouring pixels correlate a little more than
    the Matérn function says where ℓ is only some pixels. Source: Rasmussen and Williams 2006, eq. 4.15.

    Attributes:
        length: ℓ > 0, the correlation length as a part of the longer side.
        smoothness: ν > 0.
    """

    length: float = 0.1
    smoothness: float = 0.5

    def __post_init__(self) -> None:
        if not (0 < self.length < math.inf and 0 < self.smoothness < math.inf):
            raise ValueError(f"a Matérn spectrum needs a positive length and smoothness, got {self}")

    def __call__(self, frequency: Tensor) -> Tensor:
        """S at radial frequencies (n,), up to scale."""
        scaled = (2 * math.pi * self.length * frequency) ** 2 / (2 * self.smoothness)
        return (1 + scaled) ** (-(self.smoothness + 1))


@dataclass(frozen=True)
class ExponentialMemory:
    """Every frequency an AR(1) with its own memory: r_f(l) = e^{-l/τ(f)}, τ(f) = τ_0 (1 + (f/f_0)²)^{-γ/2}.

    Coarse structure stays for τ_0 frames and detail, where τ ∝ f^{-γ}, is forgotten sooner.

    Attributes:
        tau: τ_0 > 0, in frames.
        exponent: γ; 0 gives all frequencies the same memory.
        corner: f_0 > 0, in cycles per longer side.
    """

    tau: float = 10.0
    exponent: float = 0.0
    corner: float = 1.0

    def __post_init__(self) -> None:
        if not (0 < self.tau < math.inf and 0 < self.corner < math.inf and math.isfinite(self.exponent)):
            raise ValueError(f"an exponential memory needs finite numbers, tau and corner > 0, got {self}")

    def __call__(self, frequency: Tensor, lags: Tensor) -> Tensor:
        """Correlations (n, L) at radial frequencies (n,) and lags (L,)."""
        return torch.exp(-lags / self._tau(frequency)[:, None])

    def state_space(self, frequency: Tensor, frame_covariance: Tensor) -> StateSpace:
        """The same memory as a linear state space, z_{t+1} = e^{-1/τ(f)} z_t + N(0, (1 - e^{-2/τ(f)}) B_f), X = z.

        Args:
            frequency: (n,).
            frame_covariance: B_f, (n, d, d).
        """
        tau = self._tau(frequency)[:, None, None]
        return StateSpace.separable(torch.exp(-1 / tau), -torch.expm1(-2 / tau), 1.0, 0.0, 1.0, frame_covariance)

    def _tau(self, frequency: Tensor) -> Tensor:
        return self.tau * (1 + (frequency / self.corner) ** 2) ** (-self.exponent / 2)


@dataclass(frozen=True)
class SameMemory:
    """One correlation in time for all frequencies.

    Attributes:
        correlation: from lags (L,) to r (L,), for example ``functools.partial(fractional_correlation, 0.8)``.
    """

    correlation: Callable[[Tensor], Tensor]

    def __call__(self, frequency: Tensor, lags: Tensor) -> Tensor:
        """Correlations (n, L) at radial frequencies (n,) and lags (L,)."""
        return self.correlation(lags).expand(len(frequency), len(lags))


class PixelVideo(StationaryVideo):
    """A Gaussian video of height x width pixels, stationary in time and on the torus.

    Its modes are the *distinct* pairs of spectrum and memory, ``multiplicity`` times each. The pixels of frames
    i and j at displacement (y, x) have covariance, with HW = height·width and f_k the radial frequency,

        B · (1/HW) Σ_k S(k) r(f_k, |i - j|) cos 2π (k_y y/H + k_x x/W).

    Radial frequency is f_k = max(H, W) √(k_y²/H² + k_x²/W²) with k_y, k_x counted from -H/2, -W/2: cycles per
    longer side, √(k_y² + k_x²) for a square. Modes are grouped by the whole number f_k² lcm(H, W)²/max(H, W)²,
    never by comparing radii.

    Args:
        height: H.
        width: W.
        spectrum: S, as a function of radial frequency (n,) ↦ (n,), or as an array (H, W) in the order of
            ``numpy.fft.fft2``, positive and with S(-k) = S(k).
        memory: r, from radial frequencies (n,) and lags (L,) to correlations (n, L); r(f, 0) = 1. One with a
            method ``state_space``, as :class:`ExponentialMemory` has it, makes ledgers linear in time.
        channel_covariance: B, (c, c); c is the frame dimension of a mode.
        mean: of every pixel, (c,), zero if left out.
        variance: the spectrum is scaled so that a pixel's channels have covariance variance·B; None leaves it.
        length: the number of frames; None for a video without end.
        name: what tables call it.
        device: where it lives.

    Attributes:
        height: H.
        width: W.
        group: the mode of every spatial frequency, (H, W); ``values[video.group]`` spreads values of modes.
        frequency: radial frequency of the modes, (modes,).
        power: S of the modes, (modes,).

    Raises:
        ValueError: if a size is below 1, S is not positive, finite and symmetric, r has another shape or does
            not start at 1, or an array is malformed.
        NotPositiveDefiniteError: if B is not positive definite.

    Example:
        >>> video = PixelVideo(64, 64, PowerLaw(), ExponentialMemory(tau=10.0, exponent=1.0))
        >>> video.modes, int(video.multiplicity.sum())
        (457, 4096)
        >>> video.covariance(8).shape
        torch.Size([457, 8, 8])
    """

    def __init__(
        self,
        height: int,
        width: int,
        spectrum: Callable[[Tensor], Tensor] | ArrayLike,
        memory: Callable[[Tensor, Tensor], Tensor],
        channel_covariance: ArrayLike | Tensor = ((1.0,),),
        mean: ArrayLike | Tensor | None = None,
        variance: float | None = 1.0,
        length: int | None = None,
        name: str = "pixels",
        device: torch.device | str = "cpu",
    ) -> None:
        if height < 1 or width < 1:
            raise ValueError(f"a frame needs at least one pixel each way, got {height} x {width}")
        if variance is not None and not 0 < variance < math.inf:
            raise ValueError(f"a pixel's variance must be positive and finite, got {variance}")
        channels = checked_covariance(channel_covariance, "channel covariance").to(device)
        key = _radius_keys(height, width)
        if callable(spectrum):
            keys, group = np.unique(key, return_inverse=True)
            frequency = _radius(keys, height, width, channels.device)
            power = spectrum(frequency)
        else:
            given = _symmetric_spectrum(spectrum, height, width)
            # The bits of a float stand for it: modes are joined only where both numbers are the very same.
            pairs = np.stack([key.reshape(-1), given.reshape(-1).view(np.int64)])
            distinct, group = np.unique(pairs, axis=1, return_inverse=True)
            frequency = _radius(distinct[0], height, width, channels.device)
            power = torch.from_numpy(distinct[1].copy().view(np.float64)).to(device)
        if power.shape != frequency.shape or not bool((torch.isfinite(power) & (power > 0)).all()):
            raise ValueError("the spectrum must be one positive finite number a frequency")
        multiplicity = torch.from_numpy(np.bincount(group.reshape(-1))).to(channels)
        if variance is not None:
            power = power * (variance * height * width / (multiplicity @ power))
        at_zero = memory(frequency, frequency.new_zeros(1))
        if at_zero.shape != (len(frequency), 1) or not bool(((at_zero - 1).abs() < 1e-12).all()):
            raise ValueError(
                f"the memory must give {len(frequency)} frequencies a correlation of 1 at lag 0, shape "
                f"({len(frequency)}, 1), got shape {tuple(at_zero.shape)}"
            )

        def autocovariance(lags: int) -> Tensor:
            time = torch.arange(lags, dtype=torch.float64, device=channels.device)
            return (power[:, None] * memory(frequency, time))[:, :, None, None] * channels

        self.height, self.width = height, width
        self.group = torch.from_numpy(group.reshape(height, width)).to(device)
        self.frequency, self.power = frequency, power
        dim = channels.shape[0]
        # A constant image lies in the zero frequency alone, whose basis image is 1/√(HW) everywhere.
        centre = torch.zeros(len(frequency), dim).to(channels)
        centre[self.group[0, 0]] = checked_mean(mean, channels, dim) * math.sqrt(height * width)
        finite = getattr(memory, "state_space", None)
        form = None if finite is None else finite(frequency, power[:, None, None] * channels)
        super().__init__(autocovariance, dim, centre, multiplicity, length, name, form)

    def to_modes(self, pixels: Tensor) -> Tensor:
        """Hartley coefficients (..., H, W, c) of images (..., H, W, c); frequency k belongs to ``group[k]``."""
        return hartley(self._checked_image(pixels))

    def to_pixels(self, modes: Tensor) -> Tensor:
        """Images (..., H, W, c) from their Hartley coefficients (..., H, W, c)."""
        return hartley(self._checked_image(modes))

    def sample_pixels(self, videos: int, frames: int, generator: torch.Generator | None = None) -> Tensor:
        """Independent videos in pixels, shape (videos, frames, H, W, c); every one of the H·W modes is drawn.

        The numbers come from ``generator``, on its own device.

        Raises:
            ValueError: if the video has fewer frames.
            NotPositiveDefiniteError: if a mode's covariance is not positive definite.
        """
        self.require(frames)
        factor = cholesky(self.covariance(frames), f"covariance of {frames} frames of a mode")
        mean = self.mean(frames)
        group = self.group.reshape(-1)
        rows = frames * self.frame_dim
        noise = standard_normal((videos, len(group), rows), generator).to(self.device)
        coefficients = torch.empty_like(noise)
        for mode in range(self.modes):
            members = torch.nonzero(group == mode).squeeze(-1)
            coefficients[:, members] = mean[mode] + noise[:, members] @ factor[mode].T
        shape = (videos, self.height, self.width, frames, self.frame_dim)
        return self.to_pixels(coefficients.reshape(shape).permute(0, 3, 1, 2, 4))

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """(H, W, c)."""
        return (self.height, self.width, self.frame_dim)

    def draw(self, videos: int, frames: int, generator: torch.Generator | None = None) -> VideoBatch:
        """The very numbers of :meth:`sample_pixels`, (videos, frames, H·W·c)."""
        return VideoBatch(self.sample_pixels(videos, frames, generator).flatten(2))

    def dense(self, frames: int) -> ArrayVideo:
        """The same frames as one video of all pixels: frame-major, in a frame row-major pixels, then channels.

        Raises:
            ValueError: if its covariance would have more than 8192 rows.
        """
        pixels = self.height * self.width
        rows = frames * pixels * self.frame_dim
        if rows > _DENSE_ROWS:
            raise ValueError(f"a dense covariance of {rows} rows is too large (the limit is {_DENSE_ROWS})")
        flat = self.group.reshape(-1)
        basis = self._basis()
        shape = (self.modes, frames, self.frame_dim, frames, self.frame_dim)
        blocks = self.covariance(frames).reshape(shape)[flat]
        covariance = torch.einsum("pk,kicjd,qk->ipcjqd", basis, blocks, basis)
        mean = torch.einsum("pk,kic->ipc", basis, self.mean(frames).reshape(shape[:3])[flat])
        size = pixels * self.frame_dim
        return ArrayVideo(covariance.reshape(rows, rows), size, mean.reshape(rows), name=f"{self.name} (dense)")

    def _basis(self) -> Tensor:
        """Basis images in columns, (pixels, frequencies)."""
        pixels = self.height * self.width
        unit = torch.eye(pixels, dtype=torch.float64, device=self.device)
        return hartley(unit.reshape(pixels, self.height, self.width, 1)).reshape(pixels, pixels).T

    def _checked_image(self, image: Tensor) -> Tensor:
        expected = (self.height, self.width, self.frame_dim)
        if tuple(image.shape[-3:]) != expected:
            raise ValueError(f"images must have shape (..., {expected}), got {tuple(image.shape)}")
        return image


def _radius_keys(height: int, width: int) -> NDArray[np.int64]:
    """The whole numbers k_y² w² + k_x² h², (H, W), with h = H/gcd and w = W/gcd: radius² times lcm(H, W)²."""
    common = math.gcd(height, width)
    y, x = np.arange(height), np.arange(width)
    y, x = np.minimum(y, height - y), np.minimum(x, width - x)
    key: NDArray[np.int64] = (y[:, None] * (width // common)) ** 2 + (x * (height // common)) ** 2
    return key.astype(np.int64)


def _radius(keys: NDArray[np.int64], height: int, width: int, device: torch.device) -> Tensor:
    """Cycles per longer side; exact roots for square frames."""
    radius = np.sqrt(keys.astype(np.float64)) * (max(height, width) / math.lcm(height, width))
    return torch.from_numpy(radius).to(device)


def _symmetric_spectrum(spectrum: ArrayLike, height: int, width: int) -> NDArray[np.float64]:
    values = np.array(spectrum, dtype=np.float64)
    if values.shape != (height, width):
        raise ValueError(f"the spectrum must have shape {(height, width)}, got {values.shape}")
    mirrored = np.roll(values[::-1, ::-1], 1, axis=(0, 1))
    if not np.all(np.abs(values - mirrored) <= 1e-10 * np.abs(values)):
        raise ValueError("the spectrum of a real video is symmetric, S(-k) = S(k), and finite: this one differs")
    result: NDArray[np.float64] = (values + mirrored) / 2
    return result
