"""Intervals of predicted decay against measured decay, from one table alone."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from arvdm_theory.report.style import Figures, legend_below

__all__ = ["FIGURES", "intervals"]


def intervals(table: pd.DataFrame) -> Figure:
    """A panel a number of reverse steps, a bar a network: the interval over the measured decay.

    Crosses are networks for which it refuses, at what linear response would have said.
    """
    last = table[table.ahead == table.ahead.max()]
    counts = list(last.reverse_steps.unique())
    figure, axes = plt.subplots(1, len(counts), figsize=(5.1 * len(counts) + 0.4, 5.2), squeeze=False)
    markers = dict(zip(last.plan.unique(), ("o", "s"), strict=False))
    colours = dict(zip(last.video.unique(), sns.color_palette("colorblind"), strict=False))
    for panel, steps in zip(axes[0], counts, strict=True):
        own = last[last.reverse_steps == steps]
        told, refused = own[own.low.notna()], own[own.low.isna()]
        for (video, plan), rows in told.groupby(["video", "plan"], sort=False):
            middle = (rows.low + rows.high) / 2
            panel.errorbar(
                rows.measured, middle, [middle - rows.low, rows.high - middle], 2 * rows.stderr, fmt=markers[plan],
                color=colours[video], ms=4.5, elinewidth=1.0, capsize=2,
            )  # fmt: skip
        for video, rows in refused.groupby("video", sort=False):
            panel.plot(rows.measured, rows["true inputs"], "x", color=colours[video], ms=7, mew=1.6)
        ends = (min(0.0, float(own.measured.min())) - 0.3, float(own.measured.max()) + 0.5)
        panel.plot(ends, ends, color="0.5", linewidth=0.9, zorder=0)
        panel.set(
            xlabel="measured decay (dB)",
            title=f"{steps} reverse steps a frame:\n{len(told)} of {len(own)} networks answered",
        )  # fmt: skip
    axes[0][0].set_ylabel("predicted decay (dB)")
    said = last.dropna(subset=["low"])
    held = int(((said.low <= said.measured) & (said.measured <= said.high)).sum())
    figure.suptitle(f"{held} of {len(said)} intervals that were given hold the measured decay")
    handles: list[Artist] = [Line2D([], [], color=colour, marker="o", linestyle="") for colour in colours.values()]
    labels = [f"“{video}”" for video in colours]
    handles += [Line2D([], [], color="black", marker=marker, linestyle="") for marker in markers.values()]
    labels += [str(plan).split(",")[0] for plan in markers]
    handles.append(Line2D([], [], color="black", marker="x", linestyle=""))
    labels.append("refused: linear response")
    legend_below(figure, handles, labels, 3)
    return figure


FIGURES: Figures = {"decay": ("decay", intervals)}
