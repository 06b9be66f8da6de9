"""The exact score of a finite-state video as a callable: what a perfect network would say."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from arvdm_theory.interfaces import ReferenceBatch
from arvdm_theory.laws.chains import FiniteStateVideo
from arvdm_theory.laws.evidence import Evidence
from arvdm_theory.laws.inference import infer

__all__ = ["ExactFiniteScore"]


@dataclass(frozen=True, eq=False)
class ExactFiniteScore:
    """s*(W, R) = ∇_W log p(W | R) by forward-backward, for rollouts and the I-MMSE estimate.

    (The ledger of a finite-state video takes the exact score by itself, without this.)

    Attributes:
        video: its true law. References must not be noise-free frames of an atomic law, where the score is not
            defined: give the plan a floor δ > 0.
    """

    video: FiniteStateVideo

    def __call__(self, window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
        """See :class:`arvdm_theory.interfaces.Score`."""
        given = None
        if references.frames:
            given = Evidence.noisy(references.frames, references.levels.tolist(), references.values)
        return infer(self.video, Evidence.noisy(references.window_frames, levels.tolist(), window), given).score
