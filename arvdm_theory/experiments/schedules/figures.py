"""Figures of grids and noise profiles with trained networks."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from arvdm_theory.experiments.schedules.run import GRIDS, PROFILES, summary
from arvdm_theory.report.style import Figures, shared_legend

__all__ = ["COLOURS", "FIGURES", "noise_profiles", "schedules"]

COLOURS = {
    "uniform": "#999999", "cosine": "#56b4e9", "karras:7": "#cc79a7", "flow:1": "#e69f00", "girsanov": "#009e73",
    "kl": "#d55e00",
}  # fmt: skip


def schedules(table: pd.DataFrame) -> Figure:
    """KL of the last clip against the number of steps, a curve a grid, a column a video; exact score dotted."""
    videos = list(table.video.unique())
    figure, axes = plt.subplots(1, len(videos), figsize=(3.8 * len(videos), 3.8), squeeze=False)
    found = summary(table, ["video", "reverse_steps", "grid"])
    for panel, video in zip(axes[0], videos, strict=True):
        for i, (grid, label) in enumerate(GRIDS.items()):
            rows = found[(found.video == video) & (found.grid == grid) & (found.quantity == "clip_kl")]
            at = rows.reverse_steps * (1 + 0.015 * (i - 2.5))
            panel.errorbar(at, rows["mean"], rows.half_width, fmt="o-", ms=4, capsize=2, color=COLOURS[grid],
                           label=label)  # fmt: skip
            exact = table[(table.video == video) & (table.grid == grid) & (table.source == "exact")
                          & (table.quantity == "clip_kl")].drop_duplicates("reverse_steps")  # fmt: skip
            panel.plot(exact.reverse_steps, exact.value, ":", color=COLOURS[grid],
                       label="exact score" if grid == "kl" else None)  # fmt: skip
        steps = sorted(table.reverse_steps.unique())
        panel.set(title=video, xlabel="steps M", xscale="log", yscale="log")
        panel.set_xticks(steps, [str(m) for m in steps])
        panel.minorticks_off()
    axes[0, 0].set_ylabel("clip KL (nats)")
    clips = found[found.quantity == "clip_kl"].set_index(["video", "reverse_steps"])
    best = clips.loc[:, ["grid", "mean"]].sort_values("mean").groupby(level=[0, 1]).first()
    figure.suptitle(f"The grid of best KL has the least in {int((best.grid == 'kl').sum())} of {len(best)} places")
    shared_legend(figure, axes[0, 0], 4)
    return figure


def noise_profiles(table: pd.DataFrame) -> Figure:
    """KL of first and last clip and of all frames, a group a noise profile of the references."""
    found = summary(table, ["profile"])
    names = {"first_clip_kl": "first clip", "clip_kl": "last clip", "kl": "all frames"}
    figure, panels = plt.subplots(1, 3, figsize=(9.6, 3.4))
    for panel, (quantity, title) in zip(panels, names.items(), strict=True):
        for i, profile in enumerate(PROFILES):
            row = found[(found.profile == profile) & (found.quantity == quantity)].iloc[0]
            exact = table[(table.profile == profile) & (table.quantity == quantity) & (table.source == "exact")]
            panel.errorbar(i, row["mean"], row.half_width, fmt="o", color="#0072b2", capsize=3,
                           label="trained network" if i == 0 else None)  # fmt: skip
            panel.plot(
                i, exact.value.iloc[0], "_", ms=16, color="#d55e00", label="exact score" if i == 0 else None
            )
        panel.set(title=title, ylabel="KL, nats")
        panel.set_xticks(np.arange(len(PROFILES)), list(PROFILES), rotation=25, ha="right")
        panel.set_ylim(bottom=0)
    whole = found[found.quantity == "kl"]
    least = whole.sort_values("mean").iloc[0]
    figure.suptitle(f"Of all frames the least KL has the profile “{least.profile}”, {least['mean']:.2f} nats")
    shared_legend(figure, panels[0], 2)
    return figure


FIGURES: Figures = {"schedules": ("schedules", schedules), "noise-profiles": ("schedules-noise", noise_profiles)}
