"""Figure of what trained networks retrieve, beside the best that their memory allows."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from arvdm_theory.report.style import Figures, shared_legend

__all__ = ["FIGURES", "retrieval"]

_LINES = {
    "best": ("#009e73", "-", "says the likeliest (best possible)"),
    "sample": ("#0072b2", "-", "samples the true conditional"),
    "chance": ("0.5", ":", "remembers nothing and samples"),
}
_TRAINED = "#d55e00"
_TITLES = {"true frames": "true past", "rollout": "own past"}


def retrieval(table: pd.DataFrame) -> Figure:
    """Retrieval rate of revisits (of the Gaussian: correlation with the latent) against memory length.

    A column a video; above behind true frames, below in the network's own rollout.
    """
    videos, behind = list(table.video.unique()), list(_TITLES)
    figure, axes = plt.subplots(
        2, len(videos), figsize=(3.5 * len(videos), 6.0), sharex="col", sharey="col", squeeze=False
    )
    for row, given in zip(axes, behind, strict=True):
        for panel, video in zip(row, videos, strict=True):
            _panel(panel, table[(table.video == video) & (table.behind == given)])
            panel.set_title(f"{video},\n{_TITLES[given]}")
            latent = not video.startswith(("ring", "torus"))
            if latent or panel is row[0]:
                panel.set_ylabel("correlation" if latent else "retrieval rate")
    for panel in axes[-1]:
        panel.set_xlabel("last m frames")
        panel.set_xlim(left=min(0.0, panel.get_xlim()[0]))
        panel.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        panel.set_ylim(min(0.0, panel.get_ylim()[0]), 1.03)
    keys = ["video", "memory", "behind"]
    trained, sampling = (table[table.source == source].set_index(keys) for source in ("trained", "sample"))
    inside = (trained.low <= sampling.rate) & (sampling.rate <= trained.high)
    figure.suptitle(
        f"{int(inside.sum())} of {len(inside)} intervals of networks hold what a true sampler retrieves"
    )
    shared_legend(figure, axes[0, 0], 4)
    return figure


def _panel(panel: Axes, rows: pd.DataFrame) -> None:
    for source, (colour, dash, label) in _LINES.items():
        line = rows[rows.source == source].sort_values("memory")
        if not line.empty:
            panel.plot(line.memory, line.rate, dash, color=colour, label=label, marker=".", markersize=4)
    made = rows[rows.source == "trained"]
    error = np.abs(made[["low", "high"]].to_numpy().T - made.rate.to_numpy())
    panel.errorbar(
        made.memory, made.rate, error, fmt="o", color=_TRAINED, markersize=5, markerfacecolor="white",
        markeredgewidth=1.4, capsize=2.5, zorder=4, label="trained network (95 %)",
    )  # fmt: skip


FIGURES: Figures = {"needle-trained": ("needle", retrieval)}
