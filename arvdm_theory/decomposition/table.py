"""What every ledger has, however its terms were computed: one tidy table with its totals."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

__all__ = ["LedgerTable"]


@dataclass(frozen=True)
class LedgerTable:
    """The ledger of one video, plan and sampler as a table.

    Attributes:
        table: a row per (stage, AR step, term): ``stage`` (``init`` or ``ar``), ``ar_step`` (0 for the
            initialisation), ``term``, ``value`` in nats, ``stderr`` (0 where exact). The initialisation has NIE,
            DE, SEE, CROSS and IE; an AR step has NIE_AR, DE, SEE, CROSS, MB, CLIP_KL and CLIP_BOUND.
        totals: sums in nats, None where not defined:

            - ``kl``: of all clean frames; ``trajectory_kl``: the sum of the ledger;
            - ``path_kl``: the same with IE replaced by its bound, the whole initialisation stage;
            - ``girsanov`` and ``closed``: the upper rungs of the ladder;
            - ``lower_bound``: IE + Σ MB, which no sampler beats, for plans with w = Δ;
            - ``ie``, ``nie_init``, ``path_init``, ``nie_ar``, ``de``, ``see``, ``cross``, ``mb``: the terms.
        stderr: standard errors of those totals that are estimated.
        notes: why a total (or ``clip_kl``, ``clip_bound``) is not defined.
    """

    table: pd.DataFrame
    totals: dict[str, float | None]
    stderr: dict[str, float]
    notes: dict[str, str]

    def column(self, term: str) -> list[float]:
        """The values of one term over the AR steps, in order; empty if it is not defined."""
        rows = self.table[(self.table.stage == "ar") & (self.table.term == term)]
        return [float(value) for value in rows.sort_values("ar_step").value]
