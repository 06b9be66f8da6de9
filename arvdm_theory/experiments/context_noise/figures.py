"""Figure of the context-noise sweep with trained networks."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from arvdm_theory.report.style import Figures, shared_legend

__all__ = ["FIGURES", "context_noise"]


def context_noise(table: pd.DataFrame) -> Figure:
    """Clip KL of the first and last AR step and the last memory bottleneck against ρ, a column a video."""
    videos = list(table.video.unique())
    figure, axes = plt.subplots(1, len(videos), figsize=(4.6 * len(videos), 3.8), squeeze=False)
    last = int(table.ar_step.max())
    for panel, video in zip(axes[0], videos, strict=True):
        part = table[table.video == video]
        place = {level: i for i, level in enumerate(sorted(part.level.unique()))}
        perfect = "exact" if ((part.quantity == "clip_kl") & (part.source == "exact")).any() else "exact score"
        lines = (
            ("clip_kl", perfect, 1, "#0072b2", ":", "clip KL, first AR step"),
            ("clip_kl", perfect, last, "#0072b2", "-", f"clip KL, AR step {last}"),
            ("mb", "exact", last, "#d55e00", "-", f"memory bottleneck, AR step {last}"),
        )
        for quantity, source, step, colour, dash, label in lines:
            for of, marker in ((source, ""), ("trained", "o")):
                rows = part[(part.quantity == quantity) & (part.source == of) & (part.ar_step == step)]
                if rows.empty:
                    continue
                at = [place[level] for level in rows.level]
                if marker:
                    filled = colour if dash == "-" else "white"
                    panel.errorbar(
                        at, rows.value, 2 * rows.stderr, fmt=marker, color=colour, mfc=filled, capsize=2, ms=5,
                        label=label + ", trained",
                    )  # fmt: skip
                else:
                    panel.plot(at, rows.value, dash, color=colour, label=label + ", exact score")
        panel.set(title=video, xlabel="level ρ of the references", ylabel="nats")
        panel.set_xticks(list(place.values()), [f"{level:g}" for level in place])
        panel.set_ylim(bottom=min(0.0, *panel.get_ylim()))
    shared_legend(figure, axes[0, 0], 2)
    return figure


FIGURES: Figures = {"noise-dial": ("noise-dial", context_noise)}
