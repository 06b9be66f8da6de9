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
                at = rows.level
                if marker:
                    filled = colour if dash == "-" else "white"
                    panel.errorbar(
                        at, rows.value, 2 * rows.stderr, fmt=marker, color=colour, mfc=filled, capsize=2, ms=5,
                        label=label + ", trained",
                    )  # fmt: skip
                else:
                    panel.plot(at, rows.value, dash, color=colour, label=label + ", exact score")
        panel.set(title=video, xlabel="level ρ of the references", ylabel="nats")
        levels = sorted(part.level.unique())
        # Linear up to the least level above 0, logarithmic from there: levels stand where they are.
        panel.set_xscale("symlog", linthresh=levels[1] if len(levels) > 1 else 1.0, linscale=0.5)
        panel.set_xticks(levels, [f"{level:g}" for level in levels])
        panel.minorticks_off()
        panel.set_ylim(bottom=min(0.0, *panel.get_ylim()))
    figure.suptitle("\n".join(_traded(table[table.video == video], str(video)) for video in videos))
    shared_legend(figure, axes[0, 0], 2)
    return figure


def _traded(part: pd.DataFrame, video: str) -> str:
    """What the highest level saves of drift, and costs of memory."""
    last, levels = part.ar_step.max(), (part.level.min(), part.level.max())
    own = part[(part.quantity == "clip_kl") & (part.source == "trained")].set_index(["level", "ar_step"]).value
    first, noised = (own[level, last] - own[level, 1] for level in levels)
    mb = part[(part.quantity == "mb") & (part.ar_step == last)].set_index("level").value
    return (
        f"{video}: noise to ρ = {levels[1]:g} changes drift by {noised - first:+.3f} nats, the bottleneck by "
        f"{mb[levels[1]] - mb[levels[0]]:+.3f}"
    )


FIGURES: Figures = {"noise-dial": ("noise-dial", context_noise)}
