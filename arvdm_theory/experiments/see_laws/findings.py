"""Whether the linear denoiser errs as its law says, and how the error of networks falls on each axis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from arvdm_theory.experiments.findings import Finding, count, exact, measured, ratio

__all__ = ["findings"]


def findings(tables: Mapping[str, Any]) -> Iterator[Finding]:
    """Fitted over law at every size, what fresh noise is worth, and both ends and the last slope of every axis."""
    linear = tables["see-laws-linear"]
    law = linear[linear.source == "law"].set_index("pairs").value
    fits = {str(name): rows.set_index("pairs") for name, rows in linear.groupby("source") if name != "law"}
    (often,) = (name for name in fits if name != "fitted")
    away = []
    for pairs, row in fits["fitted"].iterrows():
        once = (float(row.value), float(row.stderr))
        if np.isfinite(law[pairs]):
            yield measured(f"fitted / law, {pairs} videos", once[0] / law[pairs], once[1] / law[pairs])
            away.append(abs(once[0] - law[pairs]) > 2 * once[1])
        more = (float(fits[often].value[pairs]), float(fits[often].stderr[pairs]))
        yield ratio(f"fitted / {often}, {pairs} videos", once, more)
    yield count("sizes whose fits are further than 2 standard errors from the law", sum(away), len(away))
    finite = law[np.isfinite(law)]
    yield exact(
        "slope of the law, logarithms, two largest sizes", _slope(finite.index.to_numpy(float), finite.to_numpy())
    )
    see = tables["see-laws"]
    see = see[see.term == "see"]
    for (video, axis), own in see.groupby(["video", "axis"], sort=False):
        rows = own.sort_values("at")
        for at, value, stderr in zip(rows["at"], rows.value, rows.stderr, strict=True):
            yield measured(f"Σ SEE (nats), {video}, {axis} {at:g}", value, stderr)
        numbers = [(float(row.value), float(row.stderr)) for row in rows.itertuples()]
        yield ratio(f"smallest over largest of the axis: {video}, {axis}", numbers[0], numbers[-1])
        yield ratio(f"last but one over the last of the axis: {video}, {axis}", numbers[-2], numbers[-1])
        falls = int((np.diff(rows.value) < 0).sum())
        yield count(f"steps along the axis on which it falls: {video}, {axis}", falls, len(rows) - 1)


def _slope(at: np.ndarray, value: np.ndarray) -> float:
    """Of the last two points, both axes logarithmic."""
    return float(np.diff(np.log(value[-2:]))[0] / np.diff(np.log(at[-2:]))[0])
