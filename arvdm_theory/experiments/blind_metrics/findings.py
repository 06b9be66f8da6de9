"""From which length of window the Fréchet distance sees a memory bottleneck: perfect sampler, and networks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from arvdm_theory.experiments.findings import Finding, count, exact, measured

__all__ = ["findings"]


def findings(tables: Mapping[str, Any]) -> Iterator[Finding]:
    """Lengths from which it is seen (NaN: never), what is lost, and the KL of windows where it is blind."""
    table = tables["blind-metrics"]
    frames = table.groupby("video").length.max()
    for (video, source, memory, size), rows in table[table.quantity == "seen_from"].groupby(
        ["video", "source", "memory", "size"], sort=False
    ):
        yield exact(f"seen from frames: {video}, last {memory}, {source}, {size:.0f} videos", rows.value.iloc[0])
    for (video, memory), rows in table[table.quantity == "mb"].groupby(["video", "memory"], sort=False):
        yield exact(f"memory bottleneck, all AR steps (nats): {video}, last {memory}", rows.value.iloc[0])
    for video, length in frames.items():
        yield exact(f"frames of the video: {video}", length)
    # The longest memory loses nothing: what a network's windows differ by there is its own error.
    kl = table[(table.quantity == "kl") & (table.source == "trained")]
    for (video, memory), rows in kl.groupby(["video", "memory"], sort=False):
        whole = rows.loc[rows.length.idxmax()]
        yield measured(
            f"KL of {whole.length} frames, trained (nats): {video}, last {memory}", whole.value, whole.stderr
        )
    exactly = table[(table.quantity == "kl") & (table.source == "perfect sampler")]
    blind = []
    for (video, memory), rows in exactly.groupby(["video", "memory"], sort=False):
        short = rows[rows.length <= memory + 1].value.abs().max()
        if len(rows[rows.value > 1e-9]):
            yield exact(
                f"KL of windows of up to m + 1 frames, perfect sampler, largest (nats): {video}, last {memory}",
                short,
            )
            blind.append(bool(short < 1e-6))
    yield count(
        "memories whose windows of up to m + 1 frames have no KL at all, perfect sampler", sum(blind), len(blind)
    )
    seen = table[table.quantity == "seen_from"].pivot_table(
        index=["video", "memory", "size"], columns="source", values="value"
    )
    # Where nothing is seen at all a source has no column.
    both = seen.reindex(columns=["perfect sampler", "trained"]).dropna()
    earlier = both["trained"] < both["perfect sampler"]
    yield count(
        "places where networks are seen from fewer frames than a perfect sampler", int(earlier.sum()), len(both)
    )
    assert not any(math.isinf(value) for value in seen.to_numpy().ravel())
