"""What rollouts lose by drift under each plan, and whether any loses less than outpainting."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from arvdm_theory.experiments.findings import Finding, count

__all__ = ["findings"]


def findings(tables: Mapping[str, Any]) -> Iterator[Finding]:
    """First and last block of every rollout, with intervals, and counts over rollouts."""
    table = tables["drift-by-plan"]
    drifting, falling = [], []
    for (network, plan), own in table.groupby(["network", "plan"], sort=False):
        rows = own.sort_values("ahead")
        first, last = rows.iloc[0], rows.iloc[-1]
        name = f"{plan}, network trained for {network}"
        for place, row in (("first", first), ("last", last)):
            for column, what in (
                ("psnr", "PSNR of the rollout (dB)"), ("on_true", "PSNR on true frames (dB)"),
                ("lost", "lost by drift (dB)"), ("held", "PSNR of the last given frame, held (dB)"),
            ):  # fmt: skip
                said = f"{what}, {place} {row.frames:.0f} frames: {name}"
                yield Finding(said, row[column], row[f"{column}_low"], row[f"{column}_high"], row.videos)
        drifting.append(last.lost_low > 0)
        falling.append(abs(first.on_true - last.on_true) > 1)
    yield count("rollouts that lose by drift, with their interval", sum(drifting), len(drifting))
    yield count("rollouts whose PSNR on true frames changes by more than 1 dB", sum(falling), len(falling))
    whole = table[table.ahead == table.ahead.max()].set_index(["network", "plan"])
    for network in whole.index.unique("network"):
        own = whole.loc[network]
        if "outpainting" in own.index and len(own) > 1:
            base, others = own.loc["outpainting"], own.drop(index="outpainting")
            better = others.psnr_low > base.psnr_high
            worse = others.psnr_high < base.psnr_low
            yield count(
                f"plans that end above outpainting, intervals apart: {network}", int(better.sum()), len(others)
            )
            yield count(f"plans that end below it, intervals apart: {network}", int(worse.sum()), len(others))
