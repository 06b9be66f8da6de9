"""How far trained networks' retrieval is from that of sampling the true conditional, and from the best."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from arvdm_theory.experiments.findings import Finding, count, exact

__all__ = ["findings"]


def findings(tables: Mapping[str, Any]) -> Iterator[Finding]:
    """Rates with intervals, beside those of a sampler of the law, of the best guess, and of no memory."""
    table = tables["needle"]
    keys = ["video", "memory", "behind"]
    by = {str(source): rows.set_index(keys) for source, rows in table.groupby("source")}
    trained, sampling = by["trained"], by["sample"].rate
    for place, row in trained.iterrows():
        video, memory, behind = place
        name = f"{video}, last {memory}, behind {behind}"
        yield Finding(f"trained: {name}", row["rate"], row["low"], row["high"], row["trials"])
        yield exact(f"sampling the true conditional: {name}", sampling[place])
        if place in by["best"].index:
            yield exact(f"best: {name}", by["best"].rate[place])
    for video, rate in by["chance"].rate.groupby("video", sort=False).first().items():
        yield exact(f"remembering nothing: {video}", rate)
    inside = (trained.low <= sampling) & (sampling <= trained.high)
    below = trained.high < sampling
    above = trained.low > sampling
    for behind in ("true frames", "rollout"):
        own = inside.xs(behind, level="behind")
        yield count(f"intervals that hold the rate of sampling, behind {behind}", int(own.sum()), len(own))
        yield count(f"intervals below it, behind {behind}", int(below.xs(behind, level="behind").sum()), len(own))
        yield count(f"intervals above it, behind {behind}", int(above.xs(behind, level="behind").sum()), len(own))
        far = (trained.rate - sampling).xs(behind, level="behind")
        yield exact(f"largest distance from it, behind {behind}", far.abs().max())
