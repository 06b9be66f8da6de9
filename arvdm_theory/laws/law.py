"""What a law of videos answers: the one protocol that ledger, sampler, training and prediction ask.

A law of one's own needs five things: ``frame_dim``, ``length``, ``name``, :meth:`VideoLaw.draw` and
:meth:`VideoLaw.log_density`. Everything else follows, by averages over true videos; a law that knows better
overrides it, as the Gaussian one does with algebra and a finite-state one with sums.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Generator, Tensor

from arvdm_theory.interfaces import ReferenceBatch, VideoBatch
from arvdm_theory.laws.evidence import Evidence
from arvdm_theory.laws.stage_law import StageLaw, TrueVideos, WindowPosterior
from arvdm_theory.laws.state_space import StateSpace
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.stage import Stage

__all__ = ["VideoLaw"]


class VideoLaw(ABC):
    """The law of a video.

    Attributes:
        frame_dim: d, the entries of one frame.
        length: how many frames there are; None if the video never ends.
        name: what tables and figures call it.
    """

    frame_dim: int
    length: int | None = None
    name: str = "video"

    # -- what every law answers ----------------------------------------------------------------------

    @abstractmethod
    def draw(self, videos: int, frames: int, generator: Generator) -> VideoBatch:
        """Independent true videos: clean frames (videos, frames, d), and the actions of a video that has them.

        The numbers come from ``generator``, on its own device.
        """

    @abstractmethod
    def log_density(self, window: Evidence, given: Evidence | None = None) -> Tensor:
        """log p(window | given) of noisy states, (batch,), differentiable in them; in nats.

        Args:
            window: states of frames at any levels.
            given: other states, and actions, that are conditioned on.
        """

    # -- what follows, unless the law knows better -----------------------------------------------------

    @property
    def modes(self) -> int:
        """How many independent parts a frame falls into, each of ``frame_dim`` entries."""
        return 1

    @property
    def action_dim(self) -> int:
        """a, the entries of one action; 0 for a video without actions."""
        return 0

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """(d,), or (H, W, C) for pictures."""
        return (self.frame_dim,)

    @property
    def device(self) -> torch.device:
        """Where its tensors live."""
        return torch.device("cpu")

    @property
    def atomic(self) -> bool:
        """Whether clean frames have no density, as the noise-free frames of a finite-state video."""
        return False

    @property
    def gaussian(self) -> bool:
        """Whether every joint law of frames and actions is Gaussian."""
        return False

    def state_space_form(self) -> StateSpace | None:
        """The video as a linear state space, for recursions in time; None if it is not known to be one."""
        return None

    def known_moments(self, frames: int) -> tuple[Tensor, Tensor] | None:
        """Mean (1, F·d + F·a) and covariance of the first F frames and their actions; None where not known."""
        return None

    def rare(self, videos: int, frames: int) -> str | None:
        """What ``videos`` samples of ``frames`` frames may well miss, for a ledger's notes; None: nothing.

        A law that knows such events also sees to it that its :meth:`true_videos` hold them, weighted.
        """
        return None

    def caveat(self, plan: Plan) -> str | None:
        """What the law itself, as it was made, decides of a plan's memory bottleneck, for notes; None: nothing."""
        del plan
        return None

    def require(self, frames: int) -> None:
        """Raises ValueError if the video has fewer than ``frames`` frames."""
        if frames < 1:
            raise ValueError(f"at least one frame is needed, got {frames}")
        if self.length is not None and frames > self.length:
            raise ValueError(f"{frames} frames are needed, but the video {self.name!r} has {self.length}")

    def posterior(self, window: Evidence, given: Evidence | None = None) -> WindowPosterior:
        """log p(W | R) with its gradient; by automatic differentiation, unless the law knows better."""
        assert window.values is not None
        values = window.values.detach().requires_grad_()
        with torch.enable_grad():
            logs = self.log_density(Evidence(window.states, values), given)
            (score,) = torch.autograd.grad(logs.sum(), values)
        return WindowPosterior(logs.detach(), score)

    def predicted(self, frames: tuple[int, ...], given: Evidence | None) -> tuple[Tensor, Tensor] | None:
        """E[X_j | given] (batch, n, d) and tr Cov(X_j | given)/d (batch, n) of clean frames; None where not known.

        It only makes averages less noisy.
        """
        return None

    def reference_evidence(self, references: ReferenceBatch, actions: bool = True) -> Evidence | None:
        """The references that a score is shown, as evidence; None if they say nothing."""
        known = Evidence(actions=references.history if actions else None)
        if references.frames:
            known = Evidence.noisy(references.frames, references.levels.tolist(), references.values) + known
        return None if known.empty else known

    def exact_score(
        self,
        window: Tensor,
        levels: Tensor,
        references: ReferenceBatch,
        *,
        masked: bool = True,
        actions: bool = True,
    ) -> Tensor:
        """s*(W, R) = ∇_W log p(W | R), (batch, w, d).

        Args:
            window: W, (batch, w, d).
            levels: at which its frames stand, (w,).
            references: R.
            masked: whether each window frame is told only what ``references.visible`` lets it see.
            actions: whether it is told the actions.
        """
        given, at, frames = self.reference_evidence(references, actions), levels.tolist(), references.window_frames
        mask = references.visible if masked else None
        if mask is None or all(map(all, mask)):
            return self.posterior(Evidence.noisy(frames, at, window.to(torch.float64)), given).score.to(window)
        score = torch.empty_like(window)
        for row in set(mask):
            own = [j for j, other in enumerate(mask) if other == row]
            seen = [j for j in range(len(frames)) if row[j]]
            part = Evidence.noisy(
                [frames[j] for j in seen], [at[j] for j in seen], window[:, seen].to(torch.float64)
            )
            shown = (
                None if given is None else given.columns([i for i, sees in enumerate(row[len(frames) :]) if sees])
            )
            found = self.posterior(part, None if shown is None or shown.empty else shown).score
            score[:, own] = found[:, [seen.index(j) for j in own]].to(score)
        return score

    def at(self, stage: Stage) -> StageLaw:
        """The law of a stage of a plan."""
        return StageLaw(self, stage)

    def true_videos(self, plan: Plan, ar_steps: int, videos: int, generator: Generator) -> Iterator[TrueVideos]:
        """Batches of true videos, with their noisy states, that the terms of a plan's stages are averaged over."""
        for size in TrueVideos.sizes(self, plan, ar_steps, videos):
            yield TrueVideos.draw(self, plan, ar_steps, size, generator)
