"""Which sum of errors ranks schedulers, where the score's error is small and where it dominates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from arvdm_theory.experiments.findings import Finding, count, exact

__all__ = ["findings"]

# A rank correlation from which on a sum is said to rank, as on the claims page.
_RANKS = 0.6


def findings(tables: Mapping[str, Any]) -> Iterator[Finding]:
    """Least, largest and median correlation of every sum, in halves by the share of SEE, and how many rank."""
    table = tables["scheduler-ranks-correlations"].dropna(subset=["spearman"])
    networks = table.study != "exact"
    parts = {
        "erring scores, SEE below half": table[~networks & (table.see_share < 0.5)],
        "erring scores, SEE half or more": table[~networks & (table.see_share >= 0.5)],
        "networks, SEE below half": table[networks & (table.see_share < 0.5)],
        "networks, SEE half or more": table[networks & (table.see_share >= 0.5)],
    }
    for place, part in parts.items():
        for (name, target), own in part.groupby(["sum", "target"], sort=False):
            said = f"{name}, {target}: {place}"
            for how, row in (
                ("least", own.loc[own.spearman.idxmin()]),
                ("largest", own.loc[own.spearman.idxmax()]),
            ):
                yield Finding(f"rank correlation, {how}: {said}", row.spearman, row.ci_low, row.ci_high, row.grids)
            yield exact(f"rank correlation, median: {said}", own.spearman.median())
            yield count(
                f"rank correlations of {_RANKS} or more: {said}", int((own.spearman >= _RANKS).sum()), len(own)
            )
    yield exact(
        "share of SEE, networks, least of those of half or more",
        parts["networks, SEE half or more"].see_share.min(),
    )
