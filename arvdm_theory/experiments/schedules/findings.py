"""Best grids and profiles of the references' noise with trained networks: means over seeds, and who wins where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from arvdm_theory.experiments.findings import Finding, count, exact
from arvdm_theory.experiments.savings.run import BEST
from arvdm_theory.experiments.schedules.ratios import ratios
from arvdm_theory.experiments.schedules.run import summary

__all__ = ["findings"]

# Where the README compares hand grids.
_STEPS = 10


def findings(tables: Mapping[str, Any]) -> Iterator[Finding]:
    """Ratios to the best hand grid, clip KLs at the places that are named, and the noise profiles."""
    found = ratios(tables["schedules"])
    row: Any
    for row in found.itertuples():
        name = f"{row.grid} / {row.best_hand_grid}, {row.quantity}: {row.video}, M = {row.reverse_steps}"
        yield Finding(name, row.ratio, row.low, row.high)
    clips = found[(found.quantity == "clip_kl") & (found.grid == "kl")]
    yield count(
        "places where the grid of best KL wins, with its interval", int((clips.high < 1).sum()), len(clips)
    )
    yield count("places where it loses, with its interval", int((clips.low > 1).sum()), len(clips))
    grids = tables["schedules"]
    clip: Any
    for clip in summary(grids, ["video", "reverse_steps", "grid"]).itertuples():
        if clip.quantity == "clip_kl":
            name = f"clip KL (nats), {clip.grid}: {clip.video}, M = {clip.reverse_steps}"
            yield Finding(name, clip.mean, clip.mean - clip.half_width, clip.mean + clip.half_width)
    exactly = grids[(grids.source == "exact") & (grids.quantity == "clip_kl")]
    for row in exactly.drop_duplicates(["video", "reverse_steps", "grid"]).itertuples():
        yield exact(f"clip KL (nats), exact score, {row.grid}: {row.video}, M = {row.reverse_steps}", row.value)
    noise = tables["schedules-noise"]
    one: Any
    for one in summary(noise, ["profile"]).itertuples():
        name = f"{one.quantity} (nats): {one.profile}"
        yield Finding(name, one.mean, one.mean - one.half_width, one.mean + one.half_width)
        yield exact(f"{name}, half the interval", one.half_width)
    exactly = noise[noise.source == "exact"].drop_duplicates(["profile", "quantity"])
    for row in exactly.itertuples():
        yield exact(f"{row.quantity} (nats), exact score: {row.profile}", row.value)
    if "savings" in tables:  # of another command, published in the same folder
        yield from _savings(tables["savings"], tables["savings-curves"])


def _savings(saved: Any, curves: Any) -> Iterator[Finding]:
    for row in saved.itertuples():
        yield exact(f"share of evaluations saved against {row.against}, {row.steps}: {row.video}", row.saved)
    for video, own in curves[(curves.reverse_steps == _STEPS) & (curves.grid != BEST)].groupby(
        "video", sort=False
    ):
        best, second = own.kl.nsmallest(2)
        yield exact(f"best hand grid / second best, KL at {_STEPS} steps, exact score: {video}", best / second)
