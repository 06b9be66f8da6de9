"""How far the sum of terms is above the KL that is measured, and whether it ranks what it is the sum for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from arvdm_theory.experiments.findings import Finding, count, exact, ratio
from arvdm_theory.experiments.ranks import spearman

__all__ = ["findings"]

_KEYS = ["video", "method", "steps_a_frame"]


def findings(tables: Mapping[str, Any]) -> Iterator[Finding]:
    """Ratios of path KL and measured KL, their ranks, and what the terms are made of."""
    table = tables["decomposition"]
    value = table.pivot_table(index=[*_KEYS, "source"], columns="quantity", values="value", sort=False)
    error = table.pivot_table(index=[*_KEYS, "source"], columns="quantity", values="stderr", sort=False)
    trained, exactly = value.xs("trained", level="source"), value.xs("exact", level="source")
    spread = error.xs("trained", level="source")
    for place in trained.index:
        path, kl = ((float(trained[name][place]), float(spread[name][place])) for name in ("path_kl", "kl"))
        yield ratio(f"path KL / measured KL, trained: {', '.join(map(str, place))}", path, kl)
    over = trained.kl - trained.path_kl > 3 * np.hypot(spread.kl, spread.path_kl)
    yield count("measured KL above path KL by 3 standard errors", int(over.sum()), len(over))
    for video in trained.index.unique("video"):
        own, known = trained.loc[video], exactly.loc[video]
        yield exact(
            f"rank correlation of path KL and measured KL, trained: {video}",
            float(spearman(own.path_kl.to_numpy(), own.kl.to_numpy())),
        )
        for steps, part in own.groupby("steps_a_frame"):
            yield exact(
                f"the same at {steps} steps a frame: {video}",
                float(spearman(part.path_kl.to_numpy(), part.kl.to_numpy())),
            )
        # What anyone would say without a network or a ledger.
        fewer = -own.index.get_level_values("steps_a_frame").to_numpy(dtype=float)
        yield exact(
            f"rank correlation of measured KL with fewer steps a frame alone: {video}",
            float(spearman(fewer, own.kl.to_numpy())),
        )
        for term in ("de", "see", "cross", "mb"):
            share = own[term] / own.path_kl
            yield exact(f"share of {term} in path KL, trained, least: {video}", share.min())
            yield exact(f"share of {term} in path KL, trained, largest: {video}", share.max())
        above = own.kl - known.kl, own.path_kl - known.path_kl
        yield count(
            f"networks whose excess KL is above their excess path KL: {video}",
            int((above[0] > above[1]).sum()),
            len(own),
        )
