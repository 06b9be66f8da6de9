"""Finite-state videos: Markov videos, hidden Markov videos, Markov-switching Gaussians.

A chain moves over S states; a state shows a symbol (its own, or one drawn from the state's emission
probabilities), and a symbol is rendered as a frame (:mod:`arvdm_theory.laws.emission`)::

    state_i ~ T[state_{i-p}, .., state_{i-1}, ·],    symbol_i ~ B[state_i, ·],    X_i ~ rendering of symbol_i.

Everything about such a video can be computed exactly: what noisy frames say by forward-backward
(:mod:`arvdm_theory.laws.inference`), the information between clean frames by transfer matrices
(:mod:`arvdm_theory.information.transfer`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from arvdm_theory.information.transfer import MAX_TABLE, push
from arvdm_theory.interfaces import ReferenceBatch, VideoBatch
from arvdm_theory.laws.chains import ChainError, MarkovChain, draw_outcomes, probabilities, torus_walk
from arvdm_theory.laws.emission import Codebook, Rendering, sprite_pictures
from arvdm_theory.laws.evidence import Evidence, EvidenceError
from arvdm_theory.laws.inference import infer, log_density
from arvdm_theory.laws.law import VideoLaw
from arvdm_theory.laws.rare import RareEvents
from arvdm_theory.laws.stage_law import TrueVideos, WindowPosterior
from arvdm_theory.noise import alpha, sigma2
from arvdm_theory.plan.plan import Plan

__all__ = ["FiniteStateVideo", "Sample", "moving_sprite"]


class Sample(NamedTuple):
    """Sampled videos.

    Attributes:
        states: of the chain, (videos, frames).
        symbols: what each frame shows, (videos, frames); equal to ``states`` unless the states are hidden.
        frames: the clean frames, (videos, frames, d).
    """

    states: Tensor
    symbols: Tensor
    frames: Tensor


@dataclass(frozen=True, eq=False)
class FiniteStateVideo(VideoLaw):
    """A video whose frames are rendered from the states of a Markov chain.

    - *Markov video*: no ``emission``; a state shows itself through a :class:`Codebook`.
    - *Hidden Markov video*: ``emission`` B[a, y] = P(symbol y | state a).
    - *Markov-switching Gaussian*: the rendering is :class:`~arvdm_theory.laws.emission.GaussianRegimes`.

    Attributes:
        chain: the law of the states.
        rendering: the law of a frame given its symbol.
        emission: B, shape (S, symbols); None: the symbol is the state.
        name: what tables and figures call it.

    Raises:
        ChainError: if numbers of states and symbols do not fit, or a row of B is no law.
    """

    chain: MarkovChain
    rendering: Rendering
    emission: Tensor | None = None
    name: str = "finite-state"

    def __post_init__(self) -> None:
        symbols, put = self.rendering.symbols, object.__setattr__  # the class is frozen
        put(self, "frame_dim", self.rendering.frame_dim)
        if self.emission is None:
            if self.chain.states != symbols:
                raise ChainError(f"{self.chain.states} states need as many renderings, got {symbols}")
            return
        emission = probabilities(self.emission, "emission").to(self.chain.transition.device)
        if emission.shape != (self.chain.states, symbols):
            raise ChainError(
                f"emissions must have shape ({self.chain.states}, {symbols}), got {tuple(emission.shape)}"
            )
        put(self, "emission", emission)

    @property
    def device(self) -> torch.device:
        """Where its tensors live."""
        return self.chain.transition.device

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """(H, W, C) where its pictures have it, else (d,)."""
        shape = getattr(self.rendering, "shape", ())
        return tuple(shape) if len(shape) == 3 else (self.frame_dim,)

    @property
    def gaussian(self) -> Literal[False]:
        """False."""
        return False

    @property
    def atomic(self) -> bool:
        """Whether its frames have no observation noise, so that clean ones have no density."""
        return self.rendering.atomic

    @property
    def shows_symbols(self) -> bool:
        """Whether a clean frame shows its symbol: no observation noise, and no two pictures alike."""
        return isinstance(self.rendering, Codebook) and self.rendering.atomic and self.rendering.distinct

    def readable_chain(self) -> MarkovChain:
        """The chain, if clean frames show its states: then its information is the video's.

        Raises:
            ChainError: saying what hides the states.
        """
        if self.emission is not None:
            raise ChainError(f"the states of {self.name!r} are hidden behind emissions")
        if not self.shows_symbols:
            raise ChainError(
                f"the clean frames of {self.name!r} do not show their states: pictures are equal or noisy"
            )
        return self.chain

    def sample(self, videos: int, frames: int, generator: torch.Generator | None = None) -> Sample:
        """Independent videos: states, symbols and clean frames."""
        states = self.chain.sample(videos, frames, generator)
        symbols = states
        if self.emission is not None:
            symbols = draw_outcomes(self.emission[states.reshape(-1)], generator).reshape(states.shape)
        return Sample(states, symbols, self.rendering.sample(symbols, generator))

    def draw(self, videos: int, frames: int, generator: torch.Generator | None = None) -> VideoBatch:
        """The clean frames of :meth:`sample`."""
        return VideoBatch(self.sample(videos, frames, generator).frames)

    def rare(self, videos: int, frames: int) -> str | None:
        """Which states, transitions and symbols are expected fewer than five times among samples."""
        found = RareEvents.of(self, videos, frames)
        if found is not None:
            return found.describe(videos)
        if max(frames - self.chain.order, 1) * self.chain.transition.numel() > MAX_TABLE:
            return f"{self.name!r} has too many transitions to look for rare ones: errors may be too small"
        return None

    def weighted_sample(
        self, videos: int, frames: int, generator: torch.Generator | None, rare: RareEvents | None
    ) -> tuple[Sample, Tensor | None]:
        """:meth:`sample`, drawn through rare events if there are any; then with weights (videos,)."""
        if rare is None:
            return self.sample(videos, frames, generator), None
        states, symbols, weights = rare.sample(videos, frames, generator)
        return Sample(states, symbols, self.rendering.sample(symbols, generator)), weights

    def true_videos(
        self, plan: Plan, ar_steps: int, videos: int, generator: torch.Generator, symbols: bool = False
    ) -> Iterator[TrueVideos]:
        """See :meth:`VideoLaw.true_videos`; rare events are among them, see :mod:`arvdm_theory.laws.rare`.

        Args:
            plan, ar_steps, videos, generator: likewise.
            symbols: whether references are shown as the symbols that their pictures stand for.
        """
        frames = plan.total_frames(ar_steps)
        rare = RareEvents.of(self, videos, frames)
        for size in TrueVideos.sizes(self, plan, ar_steps, videos):
            sample, weights = self.weighted_sample(size, frames, generator, rare)
            shown = sample.symbols if symbols else None
            truth = TrueVideos(self, size, generator, sample.frames, symbols=shown, weights=weights)
            truth.add_states(plan, ar_steps)
            yield truth

    def known_moments(self, frames: int) -> tuple[Tensor, Tensor]:
        """Mean (1, F·d) and covariance (1, F·d, F·d) of the first F frames, exact: F² d S^{p+1} products.

        What frame i says is pushed along with the law of the last p states:
        Cov(X_i, X_j) = Σ_z E[(E[X_i | z_i] - μ_i) 1(z_j = z)] (E[X_j | z_j = z] - μ_j)ᵀ for i < j.
        """
        chain, d = self.chain, self.frame_dim
        eye = torch.eye(self.rendering.symbols, dtype=torch.float64, device=self.device)
        shown, pictures = eye if self.emission is None else self.emission, self.rendering.average(eye)
        law = chain.initial.reshape(1, -1)
        places = torch.unravel_index(torch.arange(chain.contexts, device=self.device), chain.initial.shape)
        means, covariance = [], law.new_zeros(frames, d, frames, d)
        said = law.new_zeros(0, chain.contexts)  # (i·d, S^p): E[X_i - μ_i; the last p states]
        for j in range(frames):
            if j >= chain.order:
                law, said = push(law, chain.transition), push(said, chain.transition)
            state = places[min(j, chain.order - 1)]
            symbols = (law[0, :, None] * shown[state]).sum(0)
            means.append(symbols @ pictures)
            offset = (shown @ pictures)[state] - means[j]
            cross = (said @ offset).reshape(j, d, d)
            covariance[:j, :, j], covariance[j, :, :j] = cross, cross.permute(2, 0, 1)
            around = pictures - means[j]
            covariance[j, :, j] = (around.mT * symbols) @ around + self.rendering.covariance(symbols)
            said = torch.cat([said, law * offset.mT])
        return torch.cat(means)[None], covariance.reshape(1, frames * d, frames * d)

    def log_density(self, window: Evidence, given: Evidence | None = None) -> Tensor:
        """log p(W | R) by forward-backward, (batch,)."""
        return log_density(self, window, given)

    def posterior(self, window: Evidence, given: Evidence | None = None) -> WindowPosterior:
        """The density with its score and the variance of the clean frames, by forward-backward."""
        found = infer(self, window, given, [state.frame for state in window.states])
        level = torch.tensor([s.level for s in window.states], dtype=torch.float64, device=self.device)
        assert window.values is not None
        spread = self._clean_variance(window.values, alpha(level), sigma2(level), found.symbols)
        return WindowPosterior(found.log_density, found.score, spread)

    def predicted(self, frames: tuple[int, ...], given: Evidence | None) -> tuple[Tensor, Tensor] | None:
        """Mean and variance of clean frames given others; None where the rendering does not know its variance."""
        found = infer(self, Evidence(), given, frames)
        unseen = torch.zeros(len(frames), dtype=torch.float64, device=self.device)
        blank = found.denoised.new_zeros(len(found.denoised), len(frames), self.frame_dim)
        spread = self._clean_variance(blank, unseen, torch.ones_like(unseen), found.symbols)
        return None if spread is None else (found.denoised, spread)

    def _clean_variance(self, noisy: Tensor, scale: Tensor, noise: Tensor, symbols: Tensor) -> Tensor | None:
        """The variance of clean frames; None if the rendering is one of the user's own that does not know it."""
        own = getattr(self.rendering, "clean_variance", None)
        return None if own is None else own(noisy, scale, noise, symbols)

    def reference_evidence(self, references: ReferenceBatch, actions: bool = True) -> Evidence | None:
        """References as evidence; noise-free ones are the symbols whose pictures they are.

        Raises:
            EvidenceError: for a noise-free reference that is no picture of the video: the score is not defined
                there.
        """
        clean = [i for i, level in enumerate(references.levels.tolist()) if level == 0]
        if not (clean and self.atomic):
            return super().reference_evidence(references, actions)
        if not self.shows_symbols:
            raise EvidenceError(
                f"clean frames of {self.name!r} do not show their symbols: give the plan a floor δ > 0"
            )
        noisy = [i for i in range(len(references.frames)) if i not in clean]
        pictures = self.rendering.average(
            torch.eye(self.rendering.symbols, dtype=torch.float64, device=self.device)
        )
        shown = references.values[:, clean].to(pictures)
        match = (shown[:, :, None] == pictures).all(-1)
        if not bool(match.any(-1).all()):
            row, column = (~match.any(-1)).nonzero()[0].tolist()
            raise EvidenceError(
                f"frame {references.frames[clean[column]]} of video {row} is clean and no picture of "
                f"{self.name!r}: the "
                "exact score is not defined off the video's support; give the plan a floor δ > 0"
            )
        known = Evidence.clean([references.frames[i] for i in clean], match.to(torch.uint8).argmax(-1))
        if noisy:
            levels = [float(references.levels[i]) for i in noisy]
            known = (
                Evidence.noisy([references.frames[i] for i in noisy], levels, references.values[:, noisy]) + known
            )
        return known


def moving_sprite(
    cells: tuple[int, int],
    resolution: tuple[int, int],
    sprite: ArrayLike | None = None,
    steps: Mapping[tuple[int, int], float] | None = None,
    variance: float = 0.0,
) -> FiniteStateVideo:
    """A sprite walking on a torus, as pixel frames at any resolution.

    See :func:`torus_walk` and :func:`~arvdm_theory.laws.emission.sprite_pictures`. Left out, the sprite is
    one white cell.

    Example:
        >>> video = moving_sprite((3, 3), (12, 12))
        >>> video.chain.states, video.rendering.shape
        (9, (12, 12, 1))
    """
    pictures = sprite_pictures(cells, resolution, np.ones((1, 1, 1)) if sprite is None else sprite)
    return FiniteStateVideo(torus_walk(cells, steps), Codebook(pictures, variance), name="moving sprite")
