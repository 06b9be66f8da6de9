"""What a ledger is asked: a video, a plan, AR steps and the options, in one place for all that answer."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from arvdm_theory.diffusion.scores import ExactScore, as_score
from arvdm_theory.diffusion.steps import ReverseStep, reverse_step
from arvdm_theory.laws.law import VideoLaw
from arvdm_theory.laws.stage_law import StageLaw, TrueVideos
from arvdm_theory.plan.plan import Plan

__all__ = ["FULL_VIEW", "Question", "require_densities", "sample_count"]

FULL_VIEW = ExactScore(masked=False)
"""What SEE is measured against by default: the exact score with everything in view."""


@dataclass(frozen=True, eq=False)
class Question:
    """What a ledger is asked; :func:`arvdm_theory.decomposition.ledger.ledger` says what each part means."""

    video: VideoLaw
    plan: Plan
    ar_steps: int
    _: KW_ONLY
    score: Any = None
    step: str | ReverseStep = "exponential"
    against: ExactScore = FULL_VIEW
    girsanov: bool | None = None
    closed: bool | None = None
    memory: bool = True
    teacher_forced: bool = False
    samples: int = 2048
    seed: int = 0
    attribution: bool = False
    accumulation: bool = False
    generate: str | None = None
    ar_grid: Tensor | None = None
    init_grid: Tensor | None = None
    progress: bool = False

    def prepared(self) -> Question:
        """The same with its score and its reverse step looked up, once all that can be checked has been.

        Raises:
            ValueError: if the video has too few frames or no density, or an argument is out of range.
        """
        if self.ar_steps < 1:
            raise ValueError(f"at least one AR step is needed, got {self.ar_steps}")
        own = as_score(self.score, self.video, affine=self.video.gaussian)
        asked = replace(self, score=own, step=reverse_step(self.step))
        self.video.require(self.plan.total_frames(self.ar_steps))
        require_densities(self.video, self.plan)
        return asked

    @property
    def reverse(self) -> ReverseStep:
        """The reverse step itself."""
        return reverse_step(self.step)

    @property
    def entry(self) -> Tensor | None:
        """Input levels in place of the plan's, (w,)."""
        return None if self.ar_grid is None else self.ar_grid[0]

    def law(self, ar_step: int) -> StageLaw:
        """The law of the initialisation (0) or of AR step k."""
        return self.video.at(self.plan.stage(ar_step, self.ar_grid if ar_step else self.init_grid))

    def laws(self) -> list[StageLaw]:
        """Those of all stages.

        Raises:
            ValueError: if a grid is given and the video is not Gaussian.
        """
        laws = [self.law(k) for k in range(self.ar_steps + 1)]
        for name in ("ar_grid", "init_grid"):
            if getattr(self, name) is not None and laws[0].window is None:
                raise ValueError(
                    f"{name}: levels in place of the plan's are for Gaussian videos, whose terms have gradients"
                )
        return laws

    def truths(self) -> Iterator[TrueVideos]:
        """Batches of true videos."""
        generator = torch.Generator().manual_seed(self.seed)
        return self.video.true_videos(self.plan, self.ar_steps, sample_count(self.samples), generator)

    def bounds(self, law: StageLaw) -> tuple[bool, bool]:
        """Whether the Girsanov form and the closed bound are computed: by default wherever they are defined."""
        girsanov, closed = self.girsanov, self.closed
        if law.window is None and (girsanov or closed):
            raise ValueError(
                f"{'girsanov' if girsanov else 'closed'}: path bounds are computed for Gaussian videos only"
            )
        if law.window is None or not self.reverse.girsanov:  # a note says why
            return False, False
        return girsanov is not False, closed is not False and girsanov is not False


def sample_count(samples: int) -> int:
    """A number of samples that has a standard error.

    Raises:
        ValueError: unless it is a whole number of at least 2.
    """
    try:
        count = operator.index(samples)
    except TypeError:
        raise ValueError(f"the number of samples must be a whole number, got {samples!r}") from None
    if count < 2:
        raise ValueError(f"a standard error needs at least 2 samples, got {count}")
    return count


def require_densities(video: VideoLaw, plan: Plan) -> None:
    """Raises ValueError where clean frames, as they come out at the plan's floor, have no density."""
    if plan.floor == 0 and video.atomic:
        raise ValueError(
            f"the clean frames of {video.name!r} have no density: it has no observation noise, and the last "
            "reverse step to level 0 costs an infinite KL. Give the plan a floor δ > 0, or end AR steps on states "
            "(decoded_ledger)"
        )
