"""Figure of the trade between memory bottleneck and error accumulation."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from arvdm_theory.report.style import FRONT_KEY, Figures, front, legend_below

__all__ = ["FIGURES", "pareto"]

_METHODS = {"outpainting": ("#0072b2", "o"), "chunks": ("#009e73", "s"), "FIFO": ("#d55e00", "^")}


def pareto(table: pd.DataFrame) -> Figure:
    """Growth of the pair KL (left) and Σ path terms (right) against the memory bottleneck, a row a video."""
    videos, budgets = list(table.video.unique()), sorted(table.steps.unique())
    figure, axes = plt.subplots(len(videos), 2, figsize=(9.4, 3.5 * len(videos) + 0.7), squeeze=False)
    size = {steps: 4.0 + 2.5 * i for i, steps in enumerate(budgets)}
    for row, video in zip(axes, videos, strict=True):
        part = table[table.video == video]
        for panel, quantity in zip(row, ("growth", "path"), strict=True):
            for point in part.itertuples():
                colour, marker = _METHODS[str(point.method)]
                panel.errorbar(
                    point.mb, getattr(point, quantity), 2 * getattr(point, f"{quantity}_stderr"),
                    2 * point.mb_stderr,
                    fmt=marker, color=colour, ms=size[point.steps], elinewidth=0.8, alpha=0.85,
                    mfc=colour if point.level == 0 else "white",
                )  # fmt: skip
            panel.set(title=video, xlabel="memory bottleneck (nats a frame)")
        row[1].set(ylabel="NIE + DE + SEE + cross\n(nats a frame)", yscale="log")
        row[1].yaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0)))
        row[1].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        row[1].yaxis.set_minor_formatter(NullFormatter())
        row[0].set_ylabel("growth of the pair KL (nats)")
        row[0].axhline(0, color="0.4", lw=0.8)
        best = part[part.front].sort_values("mb")
        front(row[0], best.mb, best.growth)
    figure.suptitle("Growth of errors, and the sum of path terms, against the memory bottleneck")
    handles = _key(list(table.method.unique()), size, bool((table.level > 0).any()))
    legend_below(figure, handles, [str(handle.get_label()) for handle in handles], 4)
    return figure


def _key(methods: list[str], size: dict[int, float], noised: bool) -> list[Line2D]:
    handles = [
        Line2D([], [], ls="", marker=_METHODS[name][1], color=_METHODS[name][0], label=name) for name in methods
    ]
    handles += [
        Line2D([], [], ls="", marker="o", color="0.5", ms=ms, label=f"{steps} updates")
        for steps, ms in size.items()
    ]
    if noised:
        handles.append(Line2D([], [], ls="", marker="o", color="0.3", mfc="white", label="noised references"))
    handles.append(Line2D([], [], label="Pareto front", **FRONT_KEY))
    return handles


FIGURES: Figures = {"pareto": ("pareto", pareto)}
