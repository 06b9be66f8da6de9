"""Whether what forgets more accumulates less: rank correlations, and what the front consists of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from arvdm_theory.experiments.findings import Finding, count, measured
from arvdm_theory.experiments.ranks import interval, spearman

__all__ = ["findings"]

_RESAMPLES = 4000


def findings(tables: Mapping[str, Any]) -> Iterator[Finding]:
    """The correlations that are published, how many differ from 0, and the networks on the front."""
    ranks, table = tables["pareto-correlation"], tables["pareto"]
    for row in ranks.itertuples():
        budget = f"{row.steps} updates" if row.steps else "all budgets"
        yield Finding(
            f"rank correlation of MB and {row.against}: {row.video}, {budget}",
            row.spearman,
            row.low,
            row.high,
            row.networks,
        )
    for against, own in ranks.groupby("against", sort=False):
        yield count(
            f"correlations of MB and {against} below 0 with their interval", int((own.high < 0).sum()), len(own)
        )
        yield count(
            f"correlations of MB and {against} above 0 with their interval", int((own.low > 0).sum()), len(own)
        )
    for video, own in table.groupby("video", sort=False):
        # What has no references forgets everything and draws every window afresh: do the others trade as well?
        some = own[own.references > 0]
        mb, growth = some.mb.round(3).to_numpy(), some.growth.to_numpy()
        draws = np.random.default_rng(0).integers(len(some), size=(_RESAMPLES, len(some)))
        ends = interval(spearman(mb[draws], growth[draws]))
        said = f"rank correlation of MB and growth, with references only: {video}"
        yield Finding(said, float(spearman(mb, growth)), *ends, len(some))
        best = own[own.front]
        yield count(f"networks on the front: {video}", len(best), len(own))
        for row in best.itertuples():
            name = f"{video}, {row.method}, last {row.references}, level {row.level}, {row.steps} updates"
            yield measured(f"growth of the pair KL (nats), on the front: {name}", row.growth, row.growth_stderr)
            yield measured(f"MB a frame (nats), on the front: {name}", row.mb, row.mb_stderr)
        grown = own.growth > 2 * own.growth_stderr
        yield count(f"networks whose pair KL grows by 2 standard errors: {video}", int(grown.sum()), len(own))
        none = own[own.references == 0]
        yield count(
            f"of those without references: {video}", int((none.growth > 2 * none.growth_stderr).sum()), len(none)
        )
