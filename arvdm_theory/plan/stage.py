"""One stage of a plan: the window, what it may look at, and the levels it goes through."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from arvdm_theory.plan.references import Mask, Reference

__all__ = ["Stage"]


@dataclass(frozen=True, eq=False)
class Stage:
    """The initialisation stage, or one AR step, as everybody sees it: ledger, sampler, training, prediction.

    Attributes:
        ar_step: k; 0 is the initialisation.
        frames: the window's frames, counted from 0.
        references: R_k at the levels at which they are shown: the floor δ for those left as they came out.
        past: Past_k, the frames that are out and not known clean from R_k.
        fresh: how many of the window's last frames enter as pure noise.
        grid: τ^m as M + 1 rows of w levels.
        visible: per reverse step what each window frame sees of (window, references); None: everything.
        floor: δ, the level at which frames count as clean.
        horizon: T, the level of pure noise.
        given_levels: float64 (M + 1, w) in place of the grid, which may require gradients.
    """

    ar_step: int
    frames: range
    references: tuple[Reference, ...]
    past: tuple[int, ...]
    fresh: int
    grid: tuple[tuple[float, ...], ...]
    visible: tuple[Mask | None, ...]
    floor: float
    horizon: float
    given_levels: Tensor | None = None

    def __post_init__(self) -> None:
        given, shape = self.given_levels, (len(self.grid), len(self.frames))
        if given is not None and (given.shape != shape or given.dtype != torch.float64):
            stage = "AR" if self.ar_step else "initialisation"
            raise ValueError(
                f"the {stage} grid must be float64 levels of shape {shape}, got {given.dtype} of "
                f"{tuple(given.shape)}"
            )

    @cached_property
    def levels(self) -> Tensor:
        """τ^m, float64, (M + 1, w)."""
        return torch.tensor(self.grid, dtype=torch.float64) if self.given_levels is None else self.given_levels

    @property
    def steps(self) -> int:
        """M, the reverse steps of the stage."""
        return len(self.grid) - 1

    @property
    def window(self) -> int:
        """w, the frames in the window."""
        return len(self.frames)

    @property
    def kept(self) -> int:
        """How many of the window's first frames enter with the noise that the step before left them with."""
        return self.window - self.fresh

    @property
    def output(self) -> tuple[int, ...]:
        """Where the frames of Output_k stand in the window.

        An older frame that does not move in this step is part of the input already, and no output; a new one is an
        output even where it stays at T.
        """
        first, last = self.levels[0].tolist(), self.levels[-1].tolist()
        return tuple(j for j in range(self.window) if j >= self.kept or last[j] < first[j])

    @property
    def reference_frames(self) -> tuple[int, ...]:
        """The frames of R_k."""
        return tuple(r.frame for r in self.references)

    @cached_property
    def reference_levels(self) -> Tensor:
        """The levels at which they are shown, float64, (r,)."""
        return torch.tensor([r.level for r in self.references], dtype=torch.float64)

    def moving(self, step: int) -> list[int]:
        """Where the frames that reverse step m = ``step`` (from 0) moves stand in the window."""
        high, low = self.levels[step].tolist(), self.levels[step + 1].tolist()
        return [j for j in range(self.window) if high[j] > low[j]]
