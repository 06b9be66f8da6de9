"""Grids and noise profiles with networks on first-person video: means over worlds, gains, and who wins where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from arvdm_theory.experiments.findings import Finding, count
from arvdm_theory.experiments.video_schedules.run import OURS, summary

__all__ = ["findings"]

# Of a Fréchet distance less is better.
_SIGN = {"psnr": 1, "ssim": 1, "frechet": -1}
_FOUND = (OURS, "girsanov", "true clips")


def findings(tables: Mapping[str, Any]) -> Iterator[Finding]:
    """Every mean and gain with its interval over worlds; who has the best mean where; wins, intervals apart."""
    grids = summary(tables["video-schedules"], ["data", "reverse_steps", "grid"])
    yield from _values(grids, "grid", lambda row: f"M = {row.reverse_steps}")
    yield from _values(summary(tables["video-schedules-noise"], ["data", "profile"]), "profile", lambda _: "noise")
    made = grids[grids.grid != "true clips"]
    for quantity, sign in _SIGN.items():
        own = made[made.quantity == quantity]
        best = own.loc[(sign * own.value).groupby([own.data, own.reverse_steps]).idxmax()]
        for grid in made.grid.unique():
            name = f"step numbers at which {grid} has the best mean {quantity}"
            yield count(name, int((best.grid == grid).sum()), len(best))
        for against, rows in own[own.grid != OURS].groupby("grid", sort=False):
            gain = sign * rows.gain
            for what, times in (("wins", gain > rows.gain_half), ("loses", gain < -rows.gain_half)):
                yield count(f"step numbers at which {OURS} {what} against {against} in {quantity}, interval apart",
                            int(times.sum()), len(rows))  # fmt: skip
        for (_, steps), rows in own[~own.grid.isin(_FOUND)].groupby(["data", "reverse_steps"], sort=False):
            at: Any = (sign * rows.value).idxmax()
            hand: Any = rows.loc[at]
            name = f"{quantity}: {OURS} - {hand.grid}, its best hand grid, M = {steps}"
            yield Finding(name, hand.gain, hand.gain - hand.gain_half, hand.gain + hand.gain_half)


def _values(found: pd.DataFrame, by: str, where: Any) -> Iterator[Finding]:
    row: Any
    for row in found.itertuples():
        name = f"{row.quantity}, {row.data}, {where(row)}: {getattr(row, by)}"
        yield Finding(name, row.value, row.value - row.value_half, row.value + row.value_half)
        yield Finding(f"{name}, half the interval", row.value_half)
        if getattr(row, by) not in (OURS, "true clips"):
            gained = f"{row.quantity}, {row.data}, {where(row)}: {OURS} - {getattr(row, by)}"
            yield Finding(gained, row.gain, row.gain - row.gain_half, row.gain + row.gain_half)
            yield Finding(f"{gained}, half the interval", row.gain_half)
