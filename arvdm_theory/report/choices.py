"""What is to be chosen among, as pictures: plans, the front of noise profiles, the frontier of memories."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from arvdm_theory.report.style import shared_legend

__all__ = ["advice_front", "memory_frontier", "profile_front"]


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


def advice_front(table: pd.DataFrame) -> Figure:
    """KL of the last clip and memory bottleneck against KL, a point a plan; the front and the best stand out.

    Args:
        table: of :func:`arvdm_theory.choose.advice.advise`.
    """
    figure, panels = plt.subplots(1, 2, figsize=(9.6, 4.0))
    best = table.iloc[0]
    # Plans of ten times its KL and more would leave no room for those that are chosen among.
    near = table[table.kl <= 10 * best.kl]
    for panel, name, label in zip(
        panels,
        ("last_clip", "mb"),
        ("KL of the last clip, nats", "memory bottleneck, nats"),
        strict=True,
    ):
        for (stride, marker), colour in zip(
            zip(sorted(near.stride.unique()), "osD^v<>p*", strict=False),
            ("#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#999999") * 2,
            strict=False,
        ):
            rows = near[near.stride == stride]
            label_of = f"{stride} frame{'s' if stride > 1 else ''} at a time"
            panel.plot(rows.kl, rows[name], marker, ms=4, color=colour, alpha=0.6, label=label_of)
        front = near[near.front]
        panel.plot(front.kl, front[name], "o", ms=10, mfc="none", mec="black", mew=0.8, label="on the front")
        panel.plot([best.kl], [best[name]], "*", ms=14, color="#d55e00", label="recommended")
        panel.set(xscale="log", xlabel="KL of all frames, nats a frame", ylabel=label)
        low, high = panel.get_xlim()
        steps = [part * 10.0**power for power in range(-12, 13) for part in (1, 2, 5)]
        panel.set_xticks(shown := [step for step in steps if low <= step <= high], [f"{step:g}" for step in shown])
        panel.minorticks_off()
    shared_legend(figure, panels[0], 3)
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
