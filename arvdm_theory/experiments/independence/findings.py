"""How often the conditional independence test rejects: over all nulls, above what level, and with what power."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from arvdm_theory.experiments.findings import Finding, count
from arvdm_theory.experiments.independence.run import CASES, wilson

__all__ = ["findings"]

# Rates above which a null is named.
_MUCH = 0.08


def findings(tables: Mapping[str, Any]) -> Iterator[Finding]:
    """Level of every null and of all, and rejections of every case, with Wilson intervals."""
    if "independence_nulls" in tables:
        table = tables["independence_nulls"].set_index("null")
        for null, row in table.iterrows():
            decided = row.draws - row.refused
            yield Finding(f"rejected: {null}", row.rate, row.low, row.high, decided)
            if row.refused:
                yield count(f"refused: {null}", int(row.refused), int(row.draws))
        single = table.drop("all together")
        # Of the draws that are decided, where most are not, what is seen is no level of the test.
        mostly = single[single.refused < single.draws / 2]
        yield count(f"nulls of which most draws are decided and more than {_MUCH:.0%} of these rejected",
                    int((mostly.rate > _MUCH).sum()), len(mostly))  # fmt: skip
        decided, rejected = int((mostly.draws - mostly.refused).sum()), int(mostly.rejections.sum())
        low, high = wilson(np.array([rejected]), np.array([decided]))
        yield Finding(
            "rejected: nulls of which most draws are decided", rejected / decided, low[0], high[0], decided
        )
        for said, rates in (("", single.rate), (" by more than chance", single.low)):
            more = int((rates > _MUCH).sum())
            yield count(f"nulls rejected more than {_MUCH:.0%} of the time{said}", more, len(single))
    if "independence" in tables:
        for row in tables["independence"].itertuples():
            what = f"{CASES[row.case].title}, correlation {row.strength:g}, {row.statistic}"
            yield Finding(f"rejected: {what}", row.rate, row.low, row.high, row.replicates)
