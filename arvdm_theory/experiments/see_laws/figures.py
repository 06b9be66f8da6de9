"""Figures of the laws of the score estimation error."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from arvdm_theory.report.style import Figures

__all__ = ["FIGURES", "linear_law", "trained_trends"]


def linear_law(table: pd.DataFrame) -> Figure:
    """Σ SEE of the linear denoiser against training-set size, with the exact law."""
    figure, panel = plt.subplots(figsize=(5.2, 3.8))
    law = table[(table.source == "law") & np.isfinite(table.value)]
    panel.plot(law.pairs, law.value, color="#0072b2", label="exact law")
    fits = [name for name in table.source.unique() if name != "law"]
    for name, colour, marker in zip(fits, ("#0072b2", "#e69f00"), ("o", "s"), strict=False):
        rows = table[table.source == name]
        panel.errorbar(rows.pairs, rows.value, 2 * rows.stderr, fmt=marker, color=colour, capsize=2, label=name)
    panel.set(
        xscale="log",
        yscale="log",
        xlabel="training videos n",
        ylabel="Σ SEE (nats)",
        title=_fits(table),
    )
    panel.legend()
    return figure


def _fits(table: pd.DataFrame) -> str:
    """How far fits are from the law where it is finite."""
    law = table[table.source == "law"].set_index("pairs").value
    times = (table[table.source == "fitted"].set_index("pairs").value / law)[np.isfinite(law)]
    if times.empty:
        return "A linear denoiser's error against its law"
    return f"A linear denoiser errs {times.min():.2f} to {times.max():.2f} times as its law says"


def trained_trends(table: pd.DataFrame) -> Figure:
    """Σ SEE of trained networks against each axis; the rightmost training set is endless."""
    see = table[table.term == "see"]
    axes = list(see.axis.unique())
    figure, panels = plt.subplots(1, len(axes), figsize=(3.9 * len(axes), 3.7), sharey=True)
    for panel, axis in zip(panels, axes, strict=True):
        for video, colour, marker in zip(see.video.unique(), ("#0072b2", "#d55e00"), ("o", "s"), strict=False):
            rows = see[(see.axis == axis) & (see.video == video)].sort_values("at")
            at = rows["at"].to_numpy(dtype=float)
            known = at[np.isfinite(at)]
            at = np.where(np.isfinite(at), at, 4 * known.max())
            panel.errorbar(at, rows.value, 2 * rows.stderr, fmt=f"-{marker}", color=colour, capsize=2, label=video)
        panel.set(xscale="log", yscale="log", xlabel=axis)
        panel.minorticks_off()
        endless = len(known) < len(at)
        ticks, names = list(known), [f"{value:g}" for value in known]
        panel.set_xticks([*ticks, 4 * known.max()] if endless else ticks, [*names, "∞"] if endless else names)
    panels[0].set_ylabel("Σ SEE (nats)")
    panels[-1].legend()
    ends = see.sort_values("at").groupby(["video", "axis"]).value.agg(["first", "last"])
    times = ends["first"] / ends["last"]
    figure.suptitle(
        f"From end to end of an axis the score's error falls {times.min():.1f} to {times.max():.0f} times"
    )
    return figure


FIGURES: Figures = {
    "see-laws-linear": ("see-laws-linear", linear_law),
    "see-laws": ("see-laws", trained_trends),
}
