"""Many AR steps that share their errors."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import overload

import torch

from arvdm_theory.decomposition.terms import LedgerTerms, StageErrors
from arvdm_theory.number import Number

__all__ = ["RecursiveTerms", "SharedSteps"]


@dataclass(frozen=True)
class SharedSteps(Sequence[StageErrors]):
    """The errors of AR steps 1..K, most of which are those of one stage but for their bottleneck.

    Attributes:
        distinct: the different stages, in order; AR steps beyond their number are those of the last one.
        series: what has a value of its own in every AR step, (K,).
        steps: K.
    """

    distinct: tuple[StageErrors, ...]
    series: dict[str, Number]
    steps: int

    def __len__(self) -> int:
        return self.steps

    @overload
    def __getitem__(self, index: int) -> StageErrors: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[StageErrors, ...]: ...
    def __getitem__(self, index: int | slice) -> StageErrors | tuple[StageErrors, ...]:
        if isinstance(index, slice):
            return tuple(self[k] for k in range(*index.indices(self.steps)))
        k = range(self.steps)[index]
        own = {name: number[k] for name, number in self.series.items()}
        return dataclasses.replace(self.distinct[min(k, len(self.distinct) - 1)], **own)

    def spread(self, numbers: list[Number]) -> Number:
        """Numbers of the distinct stages, one for every AR step."""
        stacked = Number.stack(numbers)
        which = torch.arange(self.steps, device=stacked.samples.device).clamp(max=len(self.distinct) - 1)
        return stacked[which]

    def of(self, name: str) -> Number | None:
        """One error of all AR steps, (K,) or (K, M)."""
        if name in self.series:
            return self.series[name]
        numbers = [getattr(stage, name) for stage in self.distinct]
        return None if any(number is None for number in numbers) else self.spread(numbers)


@dataclass(frozen=True)
class RecursiveTerms(LedgerTerms):
    """Terms of the ledger by recursions: :class:`LedgerTerms` whose AR steps share their errors."""

    ar: SharedSteps = field(default_factory=lambda: SharedSteps((), {}, 0))

    def of(self, name: str) -> Number | None:
        """One error of all AR steps, (K,) or (K, M)."""
        return self.ar.of(name)

    @property
    def ar_paths(self) -> Number:
        """NIE_AR,k + Σ_m (DE + SEE + CROSS) of each AR step, (K,)."""
        return self.ar.spread([stage.path for stage in self.ar.distinct])
