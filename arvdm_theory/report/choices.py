"""What is to be chosen among, as pictures: the front of noise profiles, the frontier of memories."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

__all__ = ["memory_frontier", "profile_front"]


def profile_front(table: pd.DataFrame) -> Figure:
    """Drift and memory bottleneck against KL, a point a noise profile; the front and the uniform dial stand out.

    Args:
        table: of :func:`arvdm_theory.choose.context_noise.context_noise`.
    """
    figure, panels = plt.subplots(1, 2, figsize=(9.6, 4.0))
    lags = [name for name in table.columns if name.startswith("lag_")]
    dial = table[table.uniform].sort_values(lags[0])
    for panel, name, label in zip(
        panels,
        ("drift", "mb"),
        ("drift of clip KL, nats", "memory bottleneck of the last AR step, nats"),
        strict=True,
    ):
        panel.plot(table.kl, table[name], ".", color="#cccccc", ms=4, label="profiles", zorder=1)
        front = table[table.front]
        panel.plot(front.kl, front[name], "o", color="#d55e00", ms=4, label="on the front", zorder=3)
        panel.plot(dial.kl, dial[name], "s-", color="#0072b2", mfc="white", label="one level for all", zorder=2)
        for row in dial.itertuples():
            panel.annotate(f"{getattr(row, lags[0]):g}", (row.kl, getattr(row, name)), textcoords="offset points",
                           xytext=(5, 5), color="#0072b2", fontsize=8)  # fmt: skip
        panel.set(xlabel="KL of all clean frames, nats", ylabel=label)
    panels[0].legend()
    return figure


def memory_frontier(frames: pd.DataFrame, nats: pd.DataFrame) -> Figure:
    """The bottleneck that is left against the frames held and against the nats held, above what none can beat.

    Args:
        frames: of :func:`arvdm_theory.choose.memory.frame_frontier`.
        nats: of :func:`arvdm_theory.choose.memory.nats_frontier`.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 4.0))
    for family, colour, look in (
        ("best", "#d55e00", "o-"), ("last", "#0072b2", "s--"), ("sink and window", "#009e73", "^--"),
        ("window and every s-th", "#cc79a7", "v--"),
    ):  # fmt: skip
        rows = frames[frames.family == family]
        left.plot(rows.frames, rows.mb, look, ms=4, color=colour, label=family)
    floor = frames[frames.family == "best"]
    left.fill_between(
        floor.frames, 0, floor.floor, color="#999999", alpha=0.25, lw=0, label="no memory of so many numbers"
    )
    left.set(xlabel="frames held", ylabel="memory bottleneck left, nats")
    left.set_ylim(bottom=0)
    left.legend()
    right.fill_between(
        nats.budget, 0, nats.floor, color="#999999", alpha=0.25, lw=0, label="no memory of so many nats"
    )
    right.plot(nats.budget, nats.mb, "o-", ms=4, color="#d55e00", label="noised frames, a level a lag")
    right.set(xlabel="nats held", ylabel="memory bottleneck left, nats")
    right.set_ylim(bottom=0)
    right.legend()
    return figure
