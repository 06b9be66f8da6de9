"""KL(clean) against the number of reverse steps, on the grids chosen by hand and the best one."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from arvdm_theory.experiments.savings.run import BEST
from arvdm_theory.report.style import Figures, shared_legend

__all__ = ["FIGURES", "curves"]

_COLOURS = {
    "uniform": "#999999", "geometric": "#000000", "karras:7": "#cc79a7", "flow:1": "#e69f00", "flow:3": "#f0e442",
    "flow:8": "#0072b2", "cosine": "#56b4e9", "tangent:1": "#009e73", BEST: "#d55e00",
}  # fmt: skip


def curves(table: pd.DataFrame) -> Figure:
    """A panel a video: KL(clean) above its floor, in nats, against the reverse steps M on logarithmic axes."""
    videos = list(table.video.unique())
    rows = -(-len(videos) // 3)
    figure, axes = plt.subplots(
        rows, min(3, len(videos)), figsize=(3.6 * min(3, len(videos)), 3.2 * rows), squeeze=False
    )
    for panel, video in zip(axes.flat, videos, strict=False):
        own = table[table.video == video]
        floor = float(own[own.grid == "floor"].kl.iloc[0])
        for grid, colour in _COLOURS.items():
            curve = own[own.grid == grid].sort_values("reverse_steps")
            best = grid == BEST
            panel.plot(curve.reverse_steps, curve.kl - floor, "o-" if best else "-", ms=3, lw=2 if best else 1,
                       color=colour, label=grid)  # fmt: skip
        panel.set(title=video, xlabel="steps M", xscale="log", yscale="log")
        panel.set_xticks([2, 4, 8, 16], ["2", "4", "8", "16"])
        panel.minorticks_off()
    for panel in axes.flat[len(videos) :]:
        panel.set_visible(False)
    for panel in axes[:, 0]:
        panel.set_ylabel("KL above floor")
    figure.suptitle(_best(table))
    shared_legend(figure, axes[0, 0], 5)
    return figure


def _best(table: pd.DataFrame) -> str:
    """How far the best grid is below the best one by hand, at all numbers of steps that have both."""
    above = table[table.grid != "floor"].set_index(["video", "reverse_steps"])
    floor = table[table.grid == "floor"].set_index("video").kl
    best = above[above.grid == BEST].kl
    hand = above[above.grid != BEST].groupby(["video", "reverse_steps"]).kl.min().reindex(best.index)
    below = floor.reindex(best.index.get_level_values("video")).to_numpy()
    share = 1 - (best.to_numpy() - below) / (hand.to_numpy() - below)
    return f"The best grid's KL is {share.min():.0%} to {share.max():.0%} below the best one's by hand"


FIGURES: Figures = {"schedule-savings": ("savings-curves", curves)}
