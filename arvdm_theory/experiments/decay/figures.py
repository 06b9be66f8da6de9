"""Intervals of predicted decay against measured decay, from one table alone."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from arvdm_theory.report.style import Figures

__all__ = ["FIGURES", "intervals"]


def intervals(table: pd.DataFrame) -> Figure:
    """A bar a network: the predicted interval over the measured decay; crosses are linear response where
    refused."""
    figure, panel = plt.subplots(figsize=(7.4, 5.4))
    last = table[table.ahead == table.ahead.max()]
    markers = dict(zip(last.plan.unique(), ("o", "s"), strict=False))
    for colour, (video, rows) in zip(
        sns.color_palette("colorblind"), last.groupby("video", sort=False), strict=False
    ):
        told, refused = rows[rows.low.notna()], rows[rows.low.isna()]
        for plan, own in told.groupby("plan", sort=False):
            middle = (own.low + own.high) / 2
            panel.errorbar(
                own.measured, middle, [middle - own.low, own.high - middle], 2 * own.stderr, fmt=markers[plan],
                color=colour, ms=4.5, elinewidth=1.1, capsize=2,
                label=f"“{video}”, {str(plan).split(',')[0]}",
            )  # fmt: skip
        if len(refused):
            panel.plot(refused.measured, refused["true inputs"], "x", color=colour, ms=7,
                       label=f"“{video}”: refused (linear response)")  # fmt: skip
    ends = (min(0.0, float(last.measured.min())) - 0.3, float(last.measured.max()) + 0.5)
    panel.plot(ends, ends, color="0.5", linewidth=0.9, zorder=0)
    panel.set(
        xlabel="measured: by how much PSNR has fallen after the last AR step (dB)",
        ylabel="predicted from two AR steps: interval (dB)",
    )
    figure.legend(loc="outside right upper", fontsize=8)
    return figure


FIGURES: Figures = {"decay": ("decay", intervals)}
