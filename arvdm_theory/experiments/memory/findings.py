"""How near the losses of two networks come to the memory bottleneck, and what the rollout pays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from arvdm_theory.experiments.findings import Finding, count, exact, measured
from arvdm_theory.experiments.memory.run import FIXED

__all__ = ["findings"]

_KEYS = ["video", "references", "structure", "compression", "budget"]
# As was fixed before any network was trained.
_NEAR, _LEAST = 0.15, 0.3


def findings(tables: Mapping[str, Any]) -> Iterator[Finding]:
    """Relative errors of the two estimates of MB, and of the excess KL; counts of those within what was fixed."""
    table = tables["memory"]
    shown = table.assign(what=table.quantity + ", " + table.source)
    value = shown.pivot_table(index=_KEYS, columns="what", values="value", sort=False)
    error = shown.pivot_table(index=_KEYS, columns="what", values="stderr", sort=False)
    truth, ideal = value["mb, closed form"], value["excess_kl, predicted"]
    off = value["mb, trained"] / truth - 1
    for place in value.index:
        video, references, structure, compression, budget = place
        name = f"{video}, last {references}, {structure}" + (
            "" if compression == "none" else f", {compression} {budget}"
        )
        yield measured(f"MB, closed form (nats): {name}", truth[place], error["mb, closed form"][place])
        yield measured(f"MB, trained (nats): {name}", value["mb, trained"][place], error["mb, trained"][place])
        yield measured(
            f"excess KL, measured (nats): {name}",
            value["excess_kl, measured"][place],
            error["excess_kl, measured"][place],
        )
        yield exact(f"excess KL of ideal kernels (nats): {name}", ideal[place])
        if truth[place] >= _LEAST:
            yield measured(
                f"MB, trained: relative error: {name}", off[place], error["mb, trained"][place] / truth[place]
            )
    slots = off.xs("slots", level="structure")
    fixed = slots[[place[:2] in FIXED for place in slots.index]]
    yield count("cases fixed before training within 15 %", int((fixed.abs() <= _NEAR).sum()), len(fixed))
    large = off[truth >= _LEAST]
    yield count("of MB of 0.3 nats or more, within 15 %", int((large.abs() <= _NEAR).sum()), len(large))
    yield count("of MB of 0.3 nats or more, estimated too low", int((large < 0).sum()), len(large))
    yield exact("largest relative error of MB of 0.3 nats or more", large.abs().max())
    away = (value["excess_kl, measured"] - ideal).abs() > 2 * error["excess_kl, measured"]
    yield count("excess KL further than 2 standard errors from ideal kernels'", int(away.sum()), len(away))
    rows = large.index.get_level_values("structure") != "slots"
    yield exact("relative error of MB across structures and compressions, least", large[rows].min())
    yield exact("relative error of MB across structures and compressions, largest", large[rows].max())
