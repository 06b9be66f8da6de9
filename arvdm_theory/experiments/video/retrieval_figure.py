"""Figure of what networks with a memory retrieve, for every data set and preset of a sweep."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from arvdm_theory.experiments.video.families_figure import (
    COLOURS,
    MEASURES,
    alike,
    error_bars,
    measures,
    setting,
    structure_legend,
    structures,
)
from arvdm_theory.experiments.video.film_figure import film_strips
from arvdm_theory.experiments.video.memory_figure import compression, length
from arvdm_theory.report.style import Figures
from arvdm_theory.video.retrieval import SOURCES

__all__ = ["CHANCE", "RETRIEVAL", "retrieval"]

_GENERATED, _NEEDLE, _LAST = SOURCES
CHANCE = "#d55e00"
_REFERENCES = {
    _NEEDLE: "--",
    "nearest by dead reckoning": (0, (7, 1)),
    "memory by time": (0, (3, 1, 1, 1)),
    _LAST: ":",
}


def retrieval(table: pd.DataFrame) -> Figure:
    """Retrieval rate, PSNR and SSIM of every structure with their 95 % intervals, beside what no network made.

    A row is a data set and preset; a point is a network, several of one structure are its seeds and worlds. Grey
    lines are copies, means over worlds: of the remembered frame nearest to the queried pose, of the one nearest by
    dead reckoning, of the one so many frames back, and of the last given frame. The last panel
    shows the rate of each generated frame (views near the last given one share pixels with it): of several seeds
    the mean, with the mean of their intervals, which is no narrower than that of the mean over the same queries.

    Args:
        table: ``video`` of :func:`arvdm_theory.experiments.video.run.sweep`.
    """
    table = alike(table)
    rows = list(table.groupby(["data", "preset"], sort=False))
    shown = measures(table)
    panels = len(shown) + ("rate" in shown)
    figure, axes = plt.subplots(len(rows), panels, figsize=(3.5 * panels, 3.0 * len(rows) + 0.8), squeeze=False)
    for row, ((data, preset), part) in zip(axes, rows, strict=True):
        for panel, name in zip(row, shown, strict=False):
            _points(panel, part[part["ahead"] == 0], name)
        if "rate" in shown:
            _by_place(row[-1], part[part["ahead"] > 0])
            row[-1].set_xlabel("" if row is not axes[-1] else "frames after the last given")
        name = row[0].annotate(setting(data, preset), (0, 1.05), xycoords="axes fraction", fontweight="bold")
        name.set_in_layout(False)
    handles = [
        Line2D([], [], color="0.35", ls=dash, lw=1.2, label=name)
        for name, dash in _REFERENCES.items()
        if name in set(table["source"])
    ]
    if "rate" in shown:
        handles.append(Line2D([], [], color=CHANCE, ls="-.", lw=1.2, label="chance"))
    figure.suptitle("What networks retrieve, beside what copies do\n")  # the names of rows stand below it
    structure_legend(figure, table, *handles)
    return figure


def _points(panel: Axes, part: pd.DataFrame, name: str) -> None:
    own, memories = part[part["source"] == _GENERATED], structures(part)
    for place, memory in enumerate(memories):
        group = own[own["memory"] == memory]
        spread = 0.12 * (np.arange(len(group)) - (len(group) - 1) / 2)
        panel.errorbar(
            place + spread, group[name], error_bars(group, name), fmt="o", color=COLOURS[memory], capsize=3, ms=5,
        )  # fmt: skip
    shown = part.groupby("source")[name].mean()
    for source, dash in _REFERENCES.items():
        # An exact copy has an infinite PSNR, which no axis shows; without poses there are no copies.
        if source in shown.index and np.isfinite(shown[source]):
            panel.axhline(float(shown[source]), ls=dash, color="0.35", lw=1.2)
    if name == "rate":
        panel.axhline(float(own["chance"].mean()), ls="-.", color=CHANCE, lw=1.2)
        panel.set_ylim(-0.03, 1.05)
    panel.set_xticks([])  # the colours are those of the legend
    panel.set_xlim(-0.6, len(memories) - 0.4)
    panel.set_ylabel(MEASURES[name])


def _by_place(panel: Axes, part: pd.DataFrame) -> None:
    own, memories = part[part["source"] == _GENERATED], structures(part)
    for number, memory in enumerate(memories):
        mean = own[own["memory"] == memory].groupby("ahead")[["rate", "rate_low", "rate_high"]].mean()
        spread = 0.06 * (number - (len(memories) - 1) / 2)
        panel.errorbar(
            mean.index + spread, mean["rate"], error_bars(mean, "rate"), fmt="o-", ms=4, lw=1.2, capsize=2,
            color=COLOURS[memory],
        )  # fmt: skip
    panel.axhline(float(own["chance"].mean()), ls="-.", color=CHANCE, lw=1.2)
    panel.set_xticks(sorted(own["ahead"].unique()))
    panel.set(xlabel="frame", ylabel="rate", ylim=(-0.03, 1.05))


RETRIEVAL: Figures = {
    "video-retrieval": ("video", retrieval),
    "video-length": ("video", length),
    "video-compression": ("video", compression),
    "video-film-strips": ("video-film", film_strips),
}
"""Figures of a sweep without rollouts."""
