"""Scores of a window at per-frame noise levels: exact, masked, perturbed, or any callable of one's own.

Ledger, sampler and predictions take as a score

- ``None`` or :class:`ExactScore`: the exact conditional score (of what the plan's mask lets each frame see);
- :class:`PerturbedScore`: the exact score with a known error, so that SEE has a closed form;
- any callable (window, levels, references) → score (:class:`arvdm_theory.interfaces.Score`), or anything that
  gives one by ``as_score()``, as a denoiser does.

Where the law has closed forms and the score is affine in (window, references), every error is exact; otherwise
errors are averages over true data.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from arvdm_theory.interfaces import ReferenceBatch, Score

__all__ = [
    "AffineScore",
    "ExactScore",
    "GuidedScore",
    "HasScore",
    "PerturbedScore",
    "as_score",
    "checked_score",
    "recalling",
]


@runtime_checkable
class HasScore(Protocol):
    """Anything that gives its score, like :class:`arvdm_theory.networks.denoiser.Denoiser`."""

    def as_score(self) -> Score:
        """The score it stands for."""
        ...


@runtime_checkable
class AffineScore(Protocol):
    """A score that is affine in (window, references) and says so itself."""

    def affine(self, window_law: Any) -> Any:
        """Its map at every reverse step of a stage, given the stage's Gaussian window law."""
        ...


class _KnownLaw(Protocol):
    """What answers for an exact score: a law of videos."""

    def exact_score(
        self, window: Tensor, levels: Tensor, references: ReferenceBatch, *, masked: bool, actions: bool
    ) -> Tensor: ...


@dataclass(frozen=True)
class ExactScore:
    """s*(W, R) = ∇_W log p(W | R) of a video whose law is known.

    Attributes:
        video: whose score. Left out, it is that of the video that the ledger, the sampler or the prediction is
            asked about; with a video it can also be called.
        masked: whether window frame j's score is given only what the plan's mask lets it see (the best that a
            masked network can do) or everything. Without a mask there is no difference.
        actions: whether it is told the actions of a video that has them.

    Example:
        >>> from arvdm_theory import ReferenceBatch, ar1
        >>> score = ExactScore(ar1(0.5))
        >>> frame = ReferenceBatch(torch.zeros(1, 1, 1), torch.zeros(1), (0,), (1,))
        >>> round(float(score(torch.ones(1, 1, 1), torch.zeros(1), frame)), 6)  # the variance given X_0 is 3/4
        -1.333333
    """

    video: _KnownLaw | None = None
    masked: bool = True
    actions: bool = True

    def __post_init__(self) -> None:
        if self.video is not None and not hasattr(self.video, "exact_score"):
            raise ValueError(f"ExactScore(video) is of a law of videos, which {self.video!r} is not")

    def of(self, video: Any) -> ExactScore:
        """The exact score of ``video``, unless it is another one's already."""
        return self if self.video is not None else dataclasses.replace(self, video=video)

    def __call__(self, window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
        """See :class:`arvdm_theory.interfaces.Score`.

        Raises:
            ValueError: if it does not know its video.
        """
        if self.video is None:
            raise ValueError("ExactScore() does not know whose score it is: give it the video, ExactScore(video)")
        return self.video.exact_score(window, levels, references, masked=self.masked, actions=self.actions)

    def affine(self, window_law: Any) -> Any:
        """See :class:`AffineScore`."""
        return window_law.exact_map(self.masked, self.actions)


@dataclass(frozen=True)
class PerturbedScore:
    """s_θ(W, R) = s*(W, R) - e W + c: the exact score with a known error, in both stages.

    Attributes:
        error: e, a number (a scalar tensor keeps its gradient).
        bias: c, added to every entry.
        base: the score that is perturbed.
    """

    error: float | Tensor
    bias: float | Tensor = 0.0
    base: ExactScore = ExactScore()

    def __post_init__(self) -> None:
        for what, value in (("error e", self.error), ("bias c", self.bias)):
            if not bool(torch.isfinite(torch.as_tensor(value, dtype=torch.float64)).all()):
                raise ValueError(f"the score's {what} must be finite, got {value}")

    @property
    def video(self) -> Any:
        """Whose score is perturbed."""
        return self.base.video

    def of(self, video: Any) -> PerturbedScore:
        """The perturbed score of ``video``, unless it is another one's already."""
        return dataclasses.replace(self, base=self.base.of(video))

    def __call__(self, window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
        """See :class:`arvdm_theory.interfaces.Score`."""
        return self.base(window, levels, references) - self.error * window + self.bias

    def affine(self, window_law: Any) -> Any:
        """See :class:`AffineScore`."""
        return self.base.affine(window_law) - window_law.identity * self.error + self.bias


@dataclass(frozen=True)
class GuidedScore:
    """History guidance: s(W) + ω (s(W, R) - s(W)), the score without the references moved towards that with them.

    ω = 1 is the score with its references, ω = 0 without; ω > 1 leans on the history more than its law says.
    Affine where the score that is guided is. Source: Song et al. 2025 (arXiv 2502.06764), history guidance.

    Attributes:
        weight: ω.
        base: the score that is guided; it must be able to go without references.
    """

    weight: float | Tensor
    base: Any = ExactScore()

    def __post_init__(self) -> None:
        if not bool(torch.isfinite(torch.as_tensor(self.weight, dtype=torch.float64)).all()):
            raise ValueError(f"the weight ω of history guidance must be finite, got {self.weight}")

    @property
    def video(self) -> Any:
        """Whose score is guided, where that is known."""
        return getattr(self.base, "video", None)

    @property
    def bends(self) -> bool:
        """Whether the score that is guided is known not to be affine."""
        return bool(getattr(self.base, "bends", False))

    def of(self, video: Any) -> GuidedScore:
        """The guided score of ``video``, unless it is another one's already."""
        return dataclasses.replace(self, base=as_score(self.base, video))

    def __call__(self, window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
        """See :class:`arvdm_theory.interfaces.Score`."""
        alone = self.base(window, levels, references.without())
        value: Tensor = alone + self.weight * (self.base(window, levels, references) - alone)
        return value

    def recalling(self, references: ReferenceBatch) -> Score:
        """See :func:`recalling`."""
        guided, alone = recalling(self.base, references), recalling(self.base, references.without())

        def base(window: Tensor, levels: Tensor, shown: ReferenceBatch) -> Tensor:
            value: Tensor = (guided if shown.frames else alone)(window, levels, shown)
            return value

        return dataclasses.replace(self, base=base)


def as_score(score: Any, video: Any = None, affine: bool = True) -> Score | AffineScore:
    """A score as ledger and sampler use it: the exact one of ``video`` for None, and unbound scores bound to it.

    Args:
        score: anything that is taken for a score, see the module.
        video: whose exact score is meant.
        affine: whether a score will do that says its affine map but cannot be called.

    Raises:
        ValueError: if it is no score.
    """
    if score is None:
        score = ExactScore()
    own = score.as_score() if isinstance(score, HasScore) else score
    if isinstance(own, ExactScore | PerturbedScore | GuidedScore):
        return own if video is None else own.of(video)
    if callable(own) and not isinstance(own, type):
        return own
    if isinstance(own, AffineScore) and not isinstance(own, type):
        if affine:
            return own
        raise ValueError(
            f"a score is called here, (window, levels, references) → score, and {type(own).__name__} cannot be "
            f"called"
        )
    raise ValueError(
        "a score is None, ExactScore(), PerturbedScore(e) or a callable (window, levels, references) → score, got "
        f"{type(score).__name__}"
    )


def recalling(score: Any, references: ReferenceBatch) -> Any:
    """The same score for windows that are shown these references: what it makes of them alone, it makes once.

    A score that can do so has a method ``recalling(references)`` which gives a score. That one may be called with
    the very same references only, for windows of the same frames and actions, whatever their noise and whatever of
    the references a window frame sees (``visible``).
    """
    own = getattr(score, "recalling", None)
    return score if own is None else own(references)


def checked_score(value: Any, window: Tensor, frames: tuple[int, ...] | range, levels: Tensor) -> Tensor:
    """What a callable returned, if it is a score.

    Args:
        value: the callable's return.
        window: what it was asked about.
        frames: the window's, from 0, for the message.
        levels: at which they stand, (w,), for the message.

    Raises:
        ValueError: if it is no tensor of the window's shape, or not finite.
    """
    if not isinstance(value, Tensor) or value.shape != window.shape:
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"the score must be a tensor of the window's shape {tuple(window.shape)}, got {got}")
    if not bool(torch.isfinite(value).all()):
        raise ValueError(
            f"the score of frames {frames[0] + 1} to {frames[-1] + 1} is not finite at the levels "
            f"{[round(level, 4) for level in levels.detach().flatten().tolist()]}"
        )
    return value
