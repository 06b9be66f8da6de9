"""What noised references save of drift and cost of memory, with trained networks and with the exact score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from arvdm_theory.experiments.findings import Finding, count, exact, measured

__all__ = ["findings"]


def findings(tables: Mapping[str, Any]) -> Iterator[Finding]:
    """Clip KL of the last AR step, drift since the first, and the last bottleneck, at every level."""
    table = tables["noise-dial"]
    last = int(table.ar_step.max())
    for video, own in table.groupby("video", sort=False):
        drifts: dict[str, dict[float, tuple[float, float]]] = {}
        for (level, source), part in own[own.quantity == "clip_kl"].groupby(["level", "source"], sort=False):
            at = part.set_index("ar_step")
            end, start = at.loc[last], at.loc[1]
            grown = float(end["value"] - start["value"]), float(np.hypot(end["stderr"], start["stderr"]))
            drifts.setdefault(str(source), {})[float(level)] = grown
            yield measured(f"clip KL, last AR step, {source}: {video}, level {level}", end["value"], end["stderr"])
            yield measured(f"drift since the first AR step, {source}: {video}, level {level}", *grown)
        for (level,), part in own[(own.quantity == "mb") & (own.ar_step == last)].groupby(["level"], sort=False):
            yield measured(f"MB, last AR step: {video}, level {level}", part.value.iloc[0], part.stderr.iloc[0])
        for source, by in drifts.items():
            levels = sorted(by)
            saved = by[levels[0]][0] - by[levels[-1]][0], float(np.hypot(by[levels[0]][1], by[levels[-1]][1]))
            yield measured(f"drift saved by the highest level, {source}: {video}", *saved)
        trained, perfect = drifts["trained"], drifts.get("exact") or drifts["exact score"]
        near = [abs(trained[a][0] - perfect[a][0]) <= 2 * np.hypot(trained[a][1], perfect[a][1]) for a in trained]
        yield count(
            f"levels whose drift, trained, is the exact score's within 2 standard errors: {video}",
            sum(near),
            len(near),
        )
        # Does the trained network's clip KL tell the levels apart at all?
        ends = own[(own.quantity == "clip_kl") & (own.source == "trained") & (own.ar_step == last)]
        weights = 1 / ends.stderr**2
        mean = float((weights * ends.value).sum() / weights.sum())
        yield exact(f"chi-squared of equal clip KL at all levels, a degree of freedom, trained: {video}",
                    float((weights * (ends.value - mean) ** 2).sum() / (len(ends) - 1)))  # fmt: skip
