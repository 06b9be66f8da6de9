"""What the grid of bounds says in numbers: whether any is broken, what sums rank, and what memory costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from arvdm_theory.experiments.findings import Finding, count, exact

__all__ = ["findings"]

_METHOD = "FIFO\nlast 3"


def findings(tables: Mapping[str, Any]) -> Iterator[Finding]:
    """Of the lemma, the finite-state checks, one method's totals, the schedulers and accumulation."""
    lemma, checks = tables["lemma"], tables["finite_checks"]
    for law, own in lemma.groupby("law", sort=False):
        yield count(f"joint laws on which the lemma fails: {law}", int((~own.holds.astype(bool)).sum()), len(own))
        yield exact(f"least excess of cost over bottleneck (nats): {law}", own.excess.min())
    yield count("finite-state checks that fail", int((~checks.passed.astype(bool)).sum()), len(checks))
    methods = tables["methods"]
    for (method, quantity), own in methods[methods.method.isin([_METHOD])].groupby(
        ["method", "quantity"], sort=False
    ):
        if own.value.notna().all():
            yield exact(f"{quantity} (nats): {' '.join(str(method).split())}", own.value.iloc[0])
    for row in tables["scheduler_correlations"].itertuples():
        place = f"{row.family}, {row.reverse_steps} steps, {row.references} references"
        name = f"rank correlation, {row.sum} and {row.target}: {place}"
        yield Finding(name, row.spearman, row.ci_low, row.ci_high, row.grids)
    grown = tables["accumulation"]
    for (correlation, term), own in grown.groupby(["correlation", "term"], sort=False):
        yield exact(f"{term}, last AR step (nats): AR(1) {correlation}", own.sort_values("k").value.iloc[-1])
