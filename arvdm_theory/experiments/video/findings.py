"""What networks retrieve beside copies, how rollouts fall, and what goes together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from arvdm_theory.experiments.findings import Finding, count, exact
from arvdm_theory.video.baselines import MAPLESS
from arvdm_theory.video.decay import DecayError, partial_rank_correlation, rank_agreement
from arvdm_theory.video.retrieval import SOURCES

__all__ = ["CONDITION", "findings", "in_condition", "network_of", "with_interval"]

_OWN, _, _LAST = SOURCES
_RECKONED = ("nearest by dead reckoning", "mean of the two nearest by dead reckoning")
_MAPLESS = (_LAST, *MAPLESS)
CONDITION = ["data", "preset", "worlds"]


def findings(tables: Mapping[str, Any]) -> Iterator[Finding]:
    """Of every condition by itself; intervals are the tables' own."""
    yield from _retrieval(tables["video"])
    summary = tables["video-summary"]
    yield from _rollouts(summary)
    yield from _drift(summary)
    yield from _claims(tables["video-claims"], tables["video-agreement"])


def with_interval(finding: str, row: Any, name: str) -> Finding:
    """A column of a row, with those of its interval."""
    return Finding(finding, row[name], row[f"{name}_low"], row[f"{name}_high"])


def in_condition(values: Any) -> str:
    """The networks of one condition, in words."""
    data, preset, worlds = values
    return f"{data}, {preset}, worlds {worlds}"


def network_of(row: Any) -> str:
    """What tells a network of a condition from the others."""
    kind = f", {row['compression']} {row['compress']} in 1" if row["compress"] > 1 else ""
    return f"{row['memory']}{kind}, {row['memory_frames']} frames, {row['steps']} updates"


def _retrieval(table: pd.DataFrame) -> Iterator[Finding]:
    """Each network's rate and quality, and each reference's; how many networks are above the references."""
    table = table[table["ahead"] == 0]
    for condition, part in table.groupby(CONDITION, sort=False):
        label, own = in_condition(condition), part[part["source"] == _OWN]
        longest = own[own["steps"] == own["steps"].max()]
        for _, row in longest.iterrows():
            yield with_interval(f"rate: {label}: {network_of(row)}", row, "rate")
            yield with_interval(f"PSNR: {label}: {network_of(row)}", row, "psnr")
        # What no network made is the same for all; other memories are each network's own.
        rest = part[part["network"].isin(longest["network"]) & (part["source"] != _OWN)]
        others = rest["source"].str.startswith("generated with")
        known = {str(row["source"]): row for _, row in rest[~others].drop_duplicates("source").iterrows()}
        for source, row in known.items():
            yield with_interval(f"rate: {label}: {source}", row, "rate")
            if math.isfinite(row["psnr"]):
                yield with_interval(f"PSNR: {label}: {source}", row, "psnr")
        for other, group in rest[others].groupby("source"):
            yield exact(f"largest rate {str(other).removeprefix('generated ')}: {label}", group["rate"].max())
        yield exact(f"queries: {label}", longest["queries"].max())
        remembering = longest[(longest["memory"] != "none") & (longest["compress"] == 1)]
        best = max(_MAPLESS, key=lambda source: known[source]["rate"])
        yield with_interval(f"best without a map ({best}): {label}", known[best], "rate")
        for name, source in (("best without a map", best), *((name, name) for name in _RECKONED)):
            above = remembering["rate_low"] > known[source]["rate_high"]
            below = remembering["rate_high"] < known[source]["rate_low"]
            yield count(f"memories above {name}: {label}", int(above.sum()), len(remembering))
            yield count(f"memories below {name}: {label}", int(below.sum()), len(remembering))


def _rollouts(summary: pd.DataFrame) -> Iterator[Finding]:
    """PSNR at the begin and the end: where references are generated, and where they are true."""
    rolled = summary[summary["slope"].notna()]
    for condition, part in rolled.groupby(CONDITION, sort=False):
        change = part["end_true"] - part["begin_true"]
        yield exact(f"largest change on true frames (dB): {in_condition(condition)}", change.abs().max())
        yield exact(f"mean change on true frames (dB): {in_condition(condition)}", change.mean())
        longest = part[part["steps"] == part["steps"].max()]
        for _, row in longest.iterrows():
            label = f"{in_condition(condition)}: {network_of(row)}"
            yield exact(f"first frame (dB): {label}", row["psnr_first"])
            yield exact(f"last eight (dB): {label}", row["end"])
            yield exact(f"first eight on true frames (dB): {label}", row["begin_true"])
            yield exact(f"last eight on true frames (dB): {label}", row["end_true"])
            yield with_interval(f"slope (dB a frame): {label}", row, "slope")


def _drift(summary: pd.DataFrame) -> Iterator[Finding]:
    """Forgetting against drift: by how much the last frames are worse than when generated from true ones."""
    rolled = summary[summary["slope"].notna()]
    for condition, part in rolled.groupby(CONDITION, sort=False):
        forgotten, drift, quality = 1 - part["rate"], part["end_true"] - part["end"], part["end_true"]
        label = f"1 - rate and drift: {in_condition(condition)}"
        try:
            found = [
                ("rank correlation", rank_agreement(forgotten, drift).correlation),
                ("rank correlation at equal quality on true frames",
                 partial_rank_correlation(forgotten, drift, quality)),
            ]  # fmt: skip
        except DecayError:
            continue  # too few networks to rank
        yield exact(f"largest drift (dB): {in_condition(condition)}", drift.max())
        yield exact(f"smallest drift (dB): {in_condition(condition)}", drift.min())
        for name, rho in found:
            yield Finding(f"{name}: {label}", rho.value, rho.ci_low, rho.ci_high, len(part))


def _claims(claims: pd.DataFrame, agreement: pd.DataFrame) -> Iterator[Finding]:
    """Rank correlations over the networks of a condition."""
    for _, row in claims.iterrows():
        label = f"{row['forgetting']} and {row['degradation']}: {in_condition(row[CONDITION])}"
        yield Finding(f"rank correlation: {label}", row["spearman"], row["low"], row["high"], row["networks"])
        yield Finding(
            f"the same at equal first frames: {label}",
            row["partial"],
            row["partial_low"],
            row["partial_high"],
            row["networks"],
        )
        yield exact(f"p-value: {label}", row["pvalue"])
    for _, row in agreement.iterrows():
        label = f"{row['measure']} predicted by {row['proxy']}: {in_condition(row[CONDITION])}"
        yield Finding(f"rank correlation: {label}", row["spearman"], row["low"], row["high"], row["networks"])
