"""What is lost by compression and what it saves, and how much of a frame a merged place's numbers can hold."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from arvdm_theory.experiments.findings import Finding, exact
from arvdm_theory.experiments.video.findings import CONDITION, in_condition, network_of, with_interval

__all__ = ["findings"]

_COSTS = {
    "processor's time": "cpu",
    "time of a call with nothing kept": "call",
    "peak memory": "peak",
    "operations": "work",
    "operations of a call with nothing kept": "call_work",
}


def findings(tables: Mapping[str, Any]) -> Iterator[Finding]:
    """Of every network and beside its uncompressed twin; intervals are the tables' own."""
    table = tables["video-compression"]
    for _, row in table.iterrows():
        label = f"{in_condition(row[CONDITION])}: {network_of(row)}"
        yield with_interval(f"rate: {label}", row, "rate")
        yield with_interval(f"PSNR: {label}", row, "psnr")
        for name, column in _COSTS.items():
            yield exact(f"{name} beside no memory: {label}", row[f"{column}_ratio"])
    yield from _lost(table)
    for _, row in tables["video-width"].iterrows():
        yield with_interval(
            f"PSNR of {row['components']} principal components: {in_condition(row[CONDITION])}", row, "psnr"
        )


def _lost(table: pd.DataFrame) -> Iterator[Finding]:
    """Beside the uncompressed twin of as many updates, or of the most below; the rate beside earlier ones, too."""
    keys = [*CONDITION, "memory", "memory_frames"]
    whole = table[table["compress"] == 1].sort_values("steps").set_index(keys)
    for _, row in table[table["compress"] > 1].iterrows():
        label = f"{in_condition(row[CONDITION])}: {network_of(row)}"
        twins = whole.loc[[tuple(row[keys])]]
        *earlier, twin = (each for _, each in twins[twins["steps"] <= row["steps"]].iterrows())
        yield _less(f"rate lost by compression: {label}", twin, row)
        for each in earlier:
            yield _less(f"rate lost beside {each['steps']} updates uncompressed: {label}", each, row)
        yield exact(f"dB lost by compression: {label}", twin["psnr"] - row["psnr"])
        for name, column in _COSTS.items():
            yield exact(f"{name} beside uncompressed: {label}", row[f"{column}_whole"])


def _less(finding: str, more: Any, less: Any) -> Finding:
    # Both answer the same queries: as if they were independent is too wide, if anything.
    width = math.hypot(
        *(max(row["rate_high"] - row["rate"], row["rate"] - row["rate_low"]) for row in (more, less))
    )
    lost = more["rate"] - less["rate"]
    return Finding(finding, lost, lost - width, lost + width)
