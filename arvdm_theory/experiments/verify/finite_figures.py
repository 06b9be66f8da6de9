"""The figures of the finite-state study, each from one tidy table."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from arvdm_theory.report.style import TERM_COLOURS, TERM_NAMES, Figures, legend_below

__all__ = ["FIGURES", "multimodal"]

_LAWS = {"multi-modal": ("#009e73", ""), "Gaussian": ("#7f7f7f", "////")}
_TERMS = ("nie_ar", "see", "cross", "de", "mb")
_BAR = 0.36


def multimodal(table: pd.DataFrame) -> Figure:
    """Stacked AR terms of a multi-modal video beside those of the Gaussian with its mean and covariance."""
    figure, axes = plt.subplot_mosaic(
        [["multi-modal", "Gaussian"], ["bars", "bars"]], figsize=(8, 8), height_ratios=(1, 2.4)
    )
    for law in _LAWS:
        _cloud(axes[law], table[(table.method == "frames") & (table.law == law)], law)
    _bars(figure, axes["bars"], table[table.method != "frames"])
    figure.suptitle("With a score error of -eW, SEE and CROSS see the covariance alone; DE and MB see the law")
    return figure


def _cloud(axes: Axes, rows: pd.DataFrame, law: str) -> None:
    points = rows.pivot_table(index="sample", columns="quantity", values="value")
    axes.scatter(points["entry 1"], points["entry 2"], s=4, alpha=0.5, color=_LAWS[law][0], linewidths=0)
    axes.set(xlim=(-2.2, 2.2), ylim=(-2.2, 2.2), aspect="equal", xticks=[], yticks=[])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set_title(f"a frame at δ: {'walker on a circle' if law == 'multi-modal' else 'Gaussian of its moments'}")


def _bars(figure: Figure, axes: Axes, table: pd.DataFrame) -> None:
    methods, tallest = list(dict.fromkeys(table.method)), 0.0
    for law, (_, hatch) in _LAWS.items():
        rows = table[table.law == law]
        value, error = (
            rows.pivot_table(index="method", columns="quantity", values=what, sort=False).loc[methods]
            for what in ("value", "stderr")
        )
        x = np.arange(len(methods)) + (-1 if law == "multi-modal" else 1) * (_BAR / 2 + 0.02)
        bottom = np.zeros(len(methods))
        for term in _TERMS:
            axes.bar(x, value[term], _BAR, bottom=bottom, color=TERM_COLOURS[term], edgecolor="white", hatch=hatch,
                     linewidth=0.6)  # fmt: skip
            bottom += value[term].to_numpy()
            if law == "multi-modal" and term in ("de", "mb"):
                # Each term's own error where its segment ends; the sum's, which is no sum of theirs, at the right.
                axes.errorbar(x - 0.09, bottom, 2 * error[term], fmt="none", ecolor="0.1", capsize=3)
        if law == "multi-modal":
            axes.errorbar(x + 0.13, value["total"], 2 * error["total"], fmt="none", ecolor="0.1", capsize=3)
        for where, top, bottleneck in zip(x, bottom, value["mb"], strict=True):
            shown = f"{bottleneck:.2f}" if bottleneck >= 0.005 else "≈ 0"
            axes.annotate(shown, (where, top), xytext=(0, 9), textcoords="offset points", ha="center",
                          fontsize=8, color=TERM_COLOURS["mb"])  # fmt: skip
        tallest = max(tallest, float(bottom.max()))
    axes.set_xticks(range(len(methods)), [name.replace(", ", "\n").replace(" ", "\n", 1) for name in methods])
    axes.set_ylabel("nats, all AR steps (6 frames)")
    axes.set_ylim(0, 1.12 * tallest)
    axes.set_title("above each bar: its memory bottleneck")
    axes.grid(axis="x", visible=False)
    handles = [Patch(facecolor=TERM_COLOURS[term], label=TERM_NAMES[term]) for term in reversed(_TERMS)]
    handles += [
        Patch(facecolor="0.75", label="multi-modal video, ± 2 standard errors"),
        Patch(facecolor="0.75", hatch="////", edgecolor="white", label="its moment-matched Gaussian, exact"),
    ]
    legend_below(figure, handles, [str(handle.get_label()) for handle in handles], 2)


FIGURES: Figures = {"multimodal": ("multimodal", multimodal)}
"""Every figure's name with the table it is drawn from."""
