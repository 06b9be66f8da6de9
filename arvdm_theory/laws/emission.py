"""How the state of a finite-state video becomes a frame, and what a noisy frame says about the state.

A rendering gives the law of a clean frame X for every symbol y: a picture from a codebook, with or without white
observation noise, or a Gaussian of the symbol's own mean and covariance. Noisy states of one frame share X, so
given y they are jointly Gaussian,

    (X^{t_1}, .., X^{t_n}) | y ~ N(α ⊗ c_y, N ⊗ I + αα^T ⊗ Σ_y),    N_ab = α_a α_b (e^{s_ab} - 1),

with s_ab the level at which two forward paths part. A less noisy state on the same path makes a noisier one
irrelevant to y, and copies freshly noised from a noise-free picture are independent given y: both follow from
this one covariance.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from arvdm_theory.information.gaussian import cholesky, whiten
from arvdm_theory.noise import standard_normal

__all__ = ["Codebook", "FrameLikelihood", "GaussianRegimes", "Rendering", "as_float64", "sprite_pictures"]

_LOG_2PI = float(np.log(2 * np.pi))


class FrameLikelihood(Protocol):
    """What noisy states say about the symbols of g frames, each with n states, in a batch of videos.

    Attributes:
        relative: log p(states | y) - offset, shape (batch, g, symbols). Taking the common part out keeps the
            digits of the differences when an observation is millions of standard deviations away.
        offset: the common part, shape (batch, g).
    """

    @property
    def relative(self) -> Tensor:
        """See the class."""

    @property
    def offset(self) -> Tensor:
        """See the class."""

    def score(self, posterior: Tensor) -> Tensor:
        """Σ_y P(y) ∇ log p(states | y), shape (batch, g, n, d), from P of shape (batch, g, symbols)."""

    def denoise(self, posterior: Tensor) -> Tensor:
        """Σ_y P(y) E[X | states, y], shape (batch, g, d)."""


class Rendering(Protocol):
    """The law of a clean frame given its symbol.

    Attributes:
        symbols: the number of symbols.
        frame_dim: d.
        atomic: whether clean frames have no density: finitely many pictures and no observation noise.
        codebook: the pictures that a frame can be read as; None where frames are no pictures.
    """

    @property
    def symbols(self) -> int:
        """See the class."""

    @property
    def frame_dim(self) -> int:
        """See the class."""

    @property
    def atomic(self) -> bool:
        """See the class."""

    @property
    def codebook(self) -> Codebook | None:
        """See the class."""

    def sample(self, symbols: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Clean frames (.., d) of the given symbols (..)."""

    def average(self, posterior: Tensor) -> Tensor:
        """Σ_y P(y) E[X | y], shape (.., d), of a frame that was not observed."""

    def covariance(self, posterior: Tensor) -> Tensor:
        """Σ_y P(y) Cov(X | y), shape (.., d, d): what the symbol leaves open of a frame that was not observed."""

    def likelihood(self, scale: Tensor, noise: Tensor, values: Tensor) -> FrameLikelihood:
        """From α (g, n), N (g, n, n) and the noisy states (batch, g, n, d) of g frames."""


@dataclass(frozen=True, eq=False)
class Codebook:
    """Pictures c_y, seen with white observation noise: X | y ~ N(c_y, o² I); without any, X = c_y.

    Attributes:
        pictures: c, shape (symbols, d), or (symbols, H, W, C), which is flattened.
        variance: o² ≥ 0.
        shape: the shape of one picture, filled from ``pictures``.

    Raises:
        ValueError: if the pictures are not finite real numbers or the variance is negative.
    """

    pictures: Tensor
    variance: float = 0.0
    shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        pictures = as_float64(self.pictures, "codebook")
        if pictures.ndim < 2 or pictures.numel() == 0:
            raise ValueError(f"a codebook needs pictures of shape (symbols, ..), got {tuple(pictures.shape)}")
        if not (np.isfinite(self.variance) and self.variance >= 0):
            raise ValueError(f"the observation variance must be finite and not negative, got {self.variance}")
        object.__setattr__(self, "shape", tuple(pictures.shape[1:]))
        object.__setattr__(self, "pictures", pictures.reshape(len(pictures), -1))

    @property
    def symbols(self) -> int:
        """The number of pictures."""
        return self.pictures.shape[0]

    @property
    def frame_dim(self) -> int:
        """The entries of one picture, d."""
        return self.pictures.shape[1]

    @property
    def atomic(self) -> bool:
        """Whether there is no observation noise."""
        return self.variance == 0

    @property
    def codebook(self) -> Codebook:
        """Itself."""
        return self

    @cached_property
    def distinct(self) -> bool:
        """Whether no two pictures are equal, so that a noise-free frame shows its symbol."""
        return len(torch.unique(self.pictures.detach(), dim=0)) == self.symbols

    @cached_property
    def squared_distances(self) -> Tensor:
        """‖c_y - c_z‖², shape (symbols, symbols), from the differences themselves."""
        return torch.stack([((self.pictures - picture) ** 2).sum(-1) for picture in self.pictures])

    def sample(self, symbols: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """See :class:`Rendering`."""
        clean = self.pictures[symbols]
        if self.atomic:
            return clean
        return clean + standard_normal(clean.shape, generator).to(clean).mul(self.variance**0.5)

    def average(self, posterior: Tensor) -> Tensor:
        """See :class:`Rendering`."""
        return posterior @ self.pictures

    def covariance(self, posterior: Tensor) -> Tensor:
        """See :class:`Rendering`: o² I."""
        return self.variance * torch.eye(self.frame_dim).to(posterior).expand(*posterior.shape[:-1], -1, -1)

    def clean_variance(self, noisy: Tensor, scale: Tensor, noise: Tensor, posterior: Tensor) -> Tensor:
        """tr Cov(X | x, R)/d of clean frames from x = scale · X + N(0, noise I), (batch, frames).

        Args:
            noisy: x, (batch, frames, d).
            scale: (frames,); 0 where a frame was not observed.
            noise: (frames,).
            posterior: P(symbol | all), (batch, frames, symbols).
        """
        total = scale**2 * self.variance + noise
        between = 0.5 * ((posterior @ self.squared_distances) * posterior).sum(-1)
        return self.variance * noise / total + (noise / total) ** 2 * between / self.frame_dim

    def likelihood(self, scale: Tensor, noise: Tensor, values: Tensor) -> FrameLikelihood:
        """See :class:`Rendering`."""
        return _CodebookLikelihood.of(self, scale, noise, values)


@dataclass(frozen=True)
class _CodebookLikelihood:
    """The white states y = L^{-1} x ~ N(a c_y, I), written about the picture nearest to them.

    With r = y - a c_*, A = Σ a² and a constant,

        log p(x | y) = const - ½‖r‖² + Σ_k a_k r_k · (c_y - c_*) - ½ A ‖c_y - c_*‖²:

    one matrix product, and no cancellation at levels where ‖x‖²/σ² has no digits to spare.
    """

    codebook: Codebook
    factor: Tensor  # L (g, n, n)
    gain: Tensor  # a (g, n)
    nearest: Tensor  # (batch, g)
    residual: Tensor  # r (batch, g, n, d)
    relative: Tensor
    offset: Tensor

    @classmethod
    def of(cls, codebook: Codebook, scale: Tensor, noise: Tensor, values: Tensor) -> _CodebookLikelihood:
        pictures = codebook.pictures
        covariance = noise + codebook.variance * scale[..., :, None] * scale[..., None, :]
        factor = cholesky(covariance, "covariance of the noisy states of one frame")
        eye = torch.eye(scale.shape[-1]).to(factor)
        white = torch.einsum("gkl,bgld->bgkd", whiten(factor, eye.expand_as(factor)), values)
        gain = whiten(factor, scale[..., None]).squeeze(-1)
        precision = (gain**2).sum(-1)[:, None]
        with torch.no_grad():
            match = torch.einsum("gk,bgkd->bgd", gain, white) @ pictures.T
            nearest = (match - 0.5 * precision * (pictures**2).sum(-1)).argmax(-1)
        residual = white - gain[..., None] * pictures[nearest].unsqueeze(-2)
        along = torch.einsum("gk,bgkd->bgd", gain, residual) @ pictures.T
        along = along - along.gather(-1, nearest[..., None])
        relative = along - 0.5 * precision * codebook.squared_distances[nearest]
        log_det = torch.log(torch.diagonal(factor, dim1=-2, dim2=-1)).sum(-1)
        n, dim = values.shape[-2:]
        offset = -0.5 * (residual**2).sum((-2, -1)) - dim * (log_det + 0.5 * n * _LOG_2PI)
        return cls(codebook, factor, gain, nearest, residual, relative, offset)

    def _shift(self, posterior: Tensor) -> Tensor:
        """E c - c_*, with nothing cancelled when the posterior sits on c_*."""
        at = self.nearest[..., None]
        others = posterior.scatter(-1, at, 0.0)
        return others.scatter(-1, at, -others.sum(-1, keepdim=True)) @ self.codebook.pictures

    def score(self, posterior: Tensor) -> Tensor:
        """See :class:`FrameLikelihood`: -L^{-T} (r - a (E c - c_*))."""
        white = self.residual - self.gain[..., None] * self._shift(posterior).unsqueeze(-2)
        eye = torch.eye(self.gain.shape[-1]).to(self.factor)
        inverse = whiten(self.factor, eye.expand_as(self.factor))
        return -torch.einsum("gkl,bgkd->bgld", inverse, white)

    def denoise(self, posterior: Tensor) -> Tensor:
        """See :class:`FrameLikelihood`: E c + o² a^T (r - a (E c - c_*))."""
        shift = self._shift(posterior)
        mean = self.codebook.pictures[self.nearest] + shift
        if self.codebook.atomic:
            return mean
        white = self.residual - self.gain[..., None] * shift.unsqueeze(-2)
        return mean + self.codebook.variance * torch.einsum("gk,bgkd->bgd", self.gain, white)


@dataclass(frozen=True, eq=False)
class GaussianRegimes:
    """Frames drawn independently from their regime's Gaussian: X | y ~ N(μ_y, Σ_y).

    Dynamics *inside* a regime (an AR process whose coefficients switch) are not of this kind: given the regimes,
    frames would depend on each other, and the posterior would be a mixture of S^N Gaussians, not a finite chain.

    Attributes:
        means: μ, shape (regimes, d).
        covariances: Σ, shape (regimes, d, d).

    Raises:
        ValueError: if shapes do not fit, or entries are not finite or not symmetric.
        NotPositiveDefiniteError: if a covariance is not positive definite.
    """

    means: Tensor
    covariances: Tensor

    def __post_init__(self) -> None:
        means = as_float64(self.means, "regime means")
        covariances = as_float64(self.covariances, "regime covariances")
        if means.ndim != 2 or covariances.shape != (*means.shape, means.shape[-1]):
            raise ValueError(
                "means (regimes, d) and covariances (regimes, d, d) are needed, got "
                f"{tuple(means.shape)} and {tuple(covariances.shape)}"
            )
        asymmetry = float((covariances - covariances.mT).abs().max())
        if asymmetry > 1e-10 * float(covariances.abs().max()):
            raise ValueError(f"a regime's covariance is not symmetric: entries differ by up to {asymmetry:.3e}")
        cholesky(covariances.detach(), "covariance of a regime")
        object.__setattr__(self, "means", means)
        object.__setattr__(self, "covariances", (covariances + covariances.mT) / 2)

    @property
    def symbols(self) -> int:
        """The number of regimes."""
        return self.means.shape[0]

    @property
    def frame_dim(self) -> int:
        """The entries of one frame, d."""
        return self.means.shape[1]

    @property
    def atomic(self) -> bool:
        """Never: regimes have densities."""
        return False

    @property
    def codebook(self) -> None:
        """None: frames of a regime are no pictures."""

    @cached_property
    def axes(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues (regimes, d) and eigenvectors (regimes, d, d) of the covariances."""
        values, vectors = torch.linalg.eigh(self.covariances)
        return values, vectors

    def sample(self, symbols: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """See :class:`Rendering`."""
        mean = self.means[symbols]
        noise = standard_normal(mean.shape, generator).to(mean)
        frames = torch.empty_like(mean)
        for regime, factor in enumerate(cholesky(self.covariances)):
            chosen = symbols == regime
            frames[chosen] = mean[chosen] + noise[chosen] @ factor.T
        return frames

    def average(self, posterior: Tensor) -> Tensor:
        """See :class:`Rendering`."""
        return posterior @ self.means

    def covariance(self, posterior: Tensor) -> Tensor:
        """See :class:`Rendering`."""
        return torch.einsum("...y,yij->...ij", posterior, self.covariances)

    def clean_variance(self, noisy: Tensor, scale: Tensor, noise: Tensor, posterior: Tensor) -> Tensor:
        """See :meth:`Codebook.clean_variance`."""
        spread, vectors = self.axes
        total = scale[:, None, None] ** 2 * spread + noise[:, None, None]
        within = (spread * noise[:, None, None] / total).sum(-1)
        centred = torch.einsum("yij,bfyi->bfyj", vectors, noisy[:, :, None] - scale[:, None, None] * self.means)
        gain = scale[:, None, None] * spread / total
        means = self.means + torch.einsum("yij,bfyj->bfyi", vectors, gain * centred)
        middle = torch.einsum("bfy,bfyi->bfi", posterior, means)
        between = ((means - middle[:, :, None]) ** 2).sum(-1)
        return (posterior * (within + between)).sum(-1) / self.frame_dim

    def likelihood(self, scale: Tensor, noise: Tensor, values: Tensor) -> FrameLikelihood:
        """See :class:`Rendering`."""
        return _RegimeLikelihood.of(self, scale, noise, values)


@dataclass(frozen=True)
class _RegimeLikelihood:
    """The states in every regime's own eigenbasis, where entry j has covariance N + λ_yj αα^T."""

    regimes: GaussianRegimes
    scale: Tensor  # α (g, n)
    factor: Tensor  # L (g, symbols, d, n, n)
    white: Tensor  # L^{-1} U^T (x - α μ), (g, symbols, d, n, batch)
    relative: Tensor
    offset: Tensor

    @classmethod
    def of(cls, regimes: GaussianRegimes, scale: Tensor, noise: Tensor, values: Tensor) -> _RegimeLikelihood:
        spread, vectors = regimes.axes
        signal = scale[..., :, None] * scale[..., None, :]
        covariance = noise[:, None, None] + spread[..., None, None] * signal[:, None, None]
        factor = cholesky(covariance, "covariance of the noisy states of one frame")
        centred = values[:, :, None] - scale[:, None, :, None] * regimes.means[:, None, :]
        white = whiten(factor, torch.einsum("yij,bgyki->gyjkb", vectors, centred))
        log_det = torch.log(torch.diagonal(factor, dim1=-2, dim2=-1)).sum((-2, -1))
        squares = (white**2).sum((2, 3)).permute(2, 0, 1)
        logs = -0.5 * squares - log_det - 0.5 * values.shape[-2] * values.shape[-1] * _LOG_2PI
        offset = logs.amax(-1)
        return cls(regimes, scale, factor, white, logs - offset[..., None], offset)

    def _whitened_back(self) -> Tensor:
        """K^{-1} U^T (x - α μ), shape (g, symbols, d, n, batch)."""
        solved: Tensor = torch.linalg.solve_triangular(self.factor.mT, self.white, upper=True)
        return solved

    def score(self, posterior: Tensor) -> Tensor:
        """See :class:`FrameLikelihood`: -Σ_y P(y) U_y K_y^{-1} U_y^T (x - α μ_y)."""
        vectors = self.regimes.axes[1]
        return -torch.einsum("bgy,yij,gyjkb->bgki", posterior, vectors, self._whitened_back())

    def denoise(self, posterior: Tensor) -> Tensor:
        """See :class:`FrameLikelihood`: Σ_y P(y) (μ_y + U_y λ_y α^T K_y^{-1} U_y^T (x - α μ_y))."""
        spread, vectors = self.regimes.axes
        gain = torch.einsum("gk,yj,gyjkb->gyjb", self.scale, spread, self._whitened_back())
        return posterior @ self.regimes.means + torch.einsum("bgy,yij,gyjb->bgi", posterior, vectors, gain)


def sprite_pictures(cells: tuple[int, int], resolution: tuple[int, int], sprite: ArrayLike) -> Tensor:
    """Pictures of a sprite at every place of a torus, at any resolution: (rows·columns, H, W, C).

    The torus has rows x columns cells; the sprite covers one cell a sprite pixel, with its upper left corner in
    cell (r, c) of symbol r·columns + c, on a black ground. A pixel shows the cell that its centre lies in, so
    below one pixel a cell, places may look alike.

    Args:
        cells: rows and columns.
        resolution: H and W of the pictures.
        sprite: shape (h, w, C), no larger than the torus.
    """
    image = np.asarray(sprite, dtype=np.float64)
    if image.ndim != 3 or not (1 <= image.shape[0] <= cells[0] and 1 <= image.shape[1] <= cells[1]):
        raise ValueError(f"a sprite of shape (h, w, C) that fits {cells} cells is needed, got {image.shape}")
    if min(resolution) < 1:
        raise ValueError(f"a picture needs at least one pixel, got a resolution of {resolution}")
    ground = np.zeros((*cells, image.shape[2]))
    ground[: image.shape[0], : image.shape[1]] = image
    at = [
        (((np.arange(n) + 0.5) * k / n).astype(int) - np.arange(k)[:, None]) % k
        for k, n in zip(cells, resolution, strict=True)
    ]
    pictures = ground[at[0][:, None, :, None], at[1][None, :, None, :]]
    return torch.from_numpy(np.ascontiguousarray(pictures.reshape(-1, *resolution, image.shape[2])))


def as_float64(values: ArrayLike | Tensor, what: str) -> Tensor:
    """A finite float64 tensor from an array; anything else is refused by name."""
    if isinstance(values, Tensor):
        kind = "f" if values.is_floating_point() else ("c" if values.is_complex() else "i")
        tensor = values.double() if kind != "c" else values
    else:
        array = np.asarray(values)
        kind = array.dtype.kind
        tensor = torch.from_numpy(np.array(array, dtype=np.float64)) if kind in "fiu" else torch.empty(0)
    if kind not in "fiu":
        raise ValueError(f"the {what} must be real numbers")
    if not bool(torch.isfinite(tensor).all()):
        raise ValueError(f"the {what} has entries that are NaN or infinite")
    return tensor
