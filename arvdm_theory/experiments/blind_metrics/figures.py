"""Figure of what metrics of short windows see of the memory bottleneck."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from arvdm_theory.report.style import Figures, legend_below

__all__ = ["FIGURES", "windows"]

_COLOURS = ("#d55e00", "#e69f00", "#0072b2", "#009e73")
# The lower end of the axes: what is less, or negative by chance, is not told from 0.
_LEAST = 0.01
_LABELS = {"fd": "Fréchet distance", "kl": "KL (nats)"}


def windows(table: pd.DataFrame) -> Figure:
    """Fréchet distance less its bias (above) and KL (below) of the last L frames against L, a column a video.

    The grey band is two standard deviations of one measurement of the distance, for the longest memory and the
    number of videos that the networks were measured with; triangles stand at the length from which on the
    distance sees the bottleneck. Values below 0.01, and negative ones, stand on the lower edge.
    """
    videos = list(table.video.unique())
    sized = table[(table.quantity == "fd") & (table.source == "trained")]
    size = float(sized["size"].max())
    figure, grid = plt.subplots(
        3, len(videos), figsize=(max(3.7 * len(videos), 8.5), 8.6), squeeze=False, height_ratios=(1, 1, 0.5)
    )
    axes, below = grid[:2], grid[2]
    for column, place, video in zip(axes.T, below, videos, strict=True):
        part = table[table.video == video]
        memories = list(part.memory.unique())
        for panel, quantity in zip(column, _LABELS, strict=True):
            _curves(panel, part[part.quantity == quantity], memories, size)
            panel.set_yscale("log")
            panel.set_ylim(bottom=_LEAST)
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        column[0].set_title(video)
        _seen(column[0], part[(part.quantity == "seen_from") & (part["size"] == size)], memories)
        _legend(place, part, memories)
        column[0].tick_params(labelbottom=False)
        column[1].set_xlabel("window L (frames)")
    for panel, label in zip(axes[:, 0], _LABELS.values(), strict=True):
        panel.set_ylabel(label)
    seen = table[(table.quantity == "seen_from") & (table.source == "perfect sampler")].value.dropna()
    figure.suptitle(
        f"What a perfect sampler forgets is seen from {seen.min():.0f} to {seen.max():.0f} frames on"
        if len(seen)
        else "Of what a perfect sampler forgets nothing is seen"
    )
    handles = _shared(size)
    legend_below(figure, handles, [str(handle.get_label()) for handle in handles], 3)
    return figure


def _curves(panel: Axes, rows: pd.DataFrame, memories: list[int], size: float) -> None:
    for place, (memory, colour) in enumerate(zip(memories, _COLOURS, strict=False)):
        own = rows[rows.memory == memory]
        perfect = own[(own.source == "perfect sampler") & np.isinf(own["size"])]
        panel.plot(perfect.length, perfect.value.clip(lower=_LEAST), color=colour, clip_on=False)
        made = own[own.source == "trained"]
        made = made[made["size"] == (size if (made.quantity == "fd").any() else made["size"].max())]
        panel.errorbar(
            made.length + 0.14 * (place - (len(memories) - 1) / 2), made.value.clip(lower=_LEAST),
            [np.minimum(2 * made.stderr, (made.value - _LEAST).clip(lower=0)), 2 * made.stderr], fmt="o",
            color=colour, markersize=4, markerfacecolor="white", markeredgewidth=1.2, capsize=1.5, elinewidth=0.9,
            zorder=4,
        )  # fmt: skip
    longest = rows[(rows.memory == memories[-1]) & (rows.source == "perfect sampler") & (rows["size"] == size)]
    if not longest.empty and (longest.quantity == "fd").all():
        panel.fill_between(longest.length, _LEAST, 2 * longest.stderr, color="0.88", zorder=0)


def _seen(panel: Axes, rows: pd.DataFrame, memories: list[int]) -> None:
    """Triangles on the lower edge: filled for the perfect sampler, white for trained networks."""
    for memory, colour in zip(memories, _COLOURS, strict=False):
        for source, fill, height in (("perfect sampler", colour, 0.02), ("trained", "white", 0.07)):
            found = rows[(rows.memory == memory) & (rows.source == source)].value.dropna()
            for length in found:
                panel.plot(
                    length, height, "^", color=colour, markerfacecolor=fill, markersize=7,
                    transform=panel.get_xaxis_transform(), clip_on=False, zorder=5,
                )  # fmt: skip


def _legend(panel: Axes, part: pd.DataFrame, memories: list[int]) -> None:
    """Memories with what each loses, in a place of their own below the panels."""
    lost = part[part.quantity == "mb"].set_index("memory").value
    handles = []
    for memory, colour in zip(memories, _COLOURS, strict=False):
        name = f"last {memory}"
        handles.append(Line2D([], [], color=colour, label=f"{name}: {lost[memory]:.2g} nats"))
    panel.axis("off")
    # The place is made for it: were the legend to claim room of its own, nothing would be left for the panels.
    panel.legend(handles=handles, loc="center", title="references: Σ MB").set_in_layout(False)


def _shared(size: float) -> list[Line2D | Patch]:
    grey = "0.35"
    return [
        Line2D([], [], color=grey, label="perfect sampler, exact"),
        Line2D([], [], color=grey, marker="o", markerfacecolor="white", linestyle="",
               label=f"trained network ± 2 sd (distance: {size:.0f} videos)"),
        Patch(color="0.88", label=f"± 2 sd of one distance of {size:.0f} videos"),
        Line2D([], [], color=grey, marker="^", linestyle="", label="seen from here on: perfect sampler"),
        Line2D([], [], color=grey, marker="^", markerfacecolor="white", linestyle="", label="trained networks"),
    ]  # fmt: skip


FIGURES: Figures = {"blind-metrics": ("blind-metrics", windows)}
