"""Figure of how the quality of a long rollout decays, and how it was predicted to."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from arvdm_theory.experiments.video.families_figure import (
    COLOURS,
    alike,
    main_setting,
    structure_legend,
    structures,
    titled,
)
from arvdm_theory.video.retrieval import SOURCES
from arvdm_theory.video.rollouts import ON_TRUE_FRAMES

__all__ = ["decay"]

_PLANS = {"outpainting": "outpainting", "fifo": "FIFO"}
_LABELS = {"psnr": "PSNR (dB)", "ssim": "SSIM"}
_PREDICTED = "predicted_linear_response"


def decay(table: pd.DataFrame) -> Figure:
    """PSNR and SSIM against the rollout index, a row a plan.

    Thick lines are means over seeds, faint ones the seeds. The band of the SSIM is the mean of the seeds' 95 %
    intervals, which is no narrower than that of the mean over the same videos; the PSNR is that of the mean
    squared error over videos, and has none. Dotted: the last given frame, held. Thin and dashed: the PSNR that
    linear response predicts from one AR step (of FIFO without what its window hands on); below 0 dB, where no
    picture can be, it is cut off.

    Args:
        table: ``video-rollouts`` of :func:`arvdm_theory.experiments.video.run.sweep`; of the data set and preset
            with most networks.
    """
    part = alike(main_setting(table), "plan")
    plans = [plan for plan in _PLANS if plan in set(part["plan"])]
    figure, axes = plt.subplots(
        len(plans), 2, figsize=(10.4, 3.3 * len(plans) + 1.0), squeeze=False, sharey="col", sharex=True
    )
    for row, plan in zip(axes, plans, strict=True):
        for panel, name in zip(row, _LABELS, strict=True):
            _curves(panel, part[part["plan"] == plan], name)
            panel.set(title=_PLANS[plan], ylabel=_LABELS[name])
    # A squared error of 4 is the most that pictures on [-1, 1] can have, but not the most that is predicted.
    if axes[0, 0].get_ylim()[0] < 0:
        axes[0, 0].set_ylim(0, 1.05 * max(panel.dataLim.y1 for panel in axes[:, 0]))
    for panel in axes[-1]:
        panel.set_xlabel("frames after the last given one")
    handles = [Line2D([], [], color="0.35", ls=":", lw=1.4, label="last given frame, held")]
    if (part["source"] == ON_TRUE_FRAMES).any():
        handles.append(Line2D([], [], color="0.35", ls=(0, (1, 1)), lw=0.9, label="shown true frames alone"))
    if _PREDICTED in part:
        handles.append(Line2D([], [], color="0.35", ls="--", lw=0.9, label="predicted from one AR step"))
    titled(figure, part, "Rollouts decay with every memory")
    structure_legend(figure, part, *handles, ncols=3)
    return figure


def _curves(panel: Axes, part: pd.DataFrame, name: str) -> None:
    own = part[part["source"] == SOURCES[0]]
    for memory in structures(own):
        group, colour = own[own["memory"] == memory], COLOURS[memory]
        by_place = group.groupby("ahead")
        alone = part[(part["source"] == ON_TRUE_FRAMES) & (part["memory"] == memory)].groupby("ahead")[name].mean()
        if len(alone):
            panel.plot(alone.index, alone, color=colour, lw=0.9, ls=(0, (1, 1)))
        if group["network"].nunique() > 1:
            for _, seed in group.groupby("network", sort=False):
                panel.plot(seed["ahead"], seed[name], color=colour, lw=0.7, alpha=0.35)
        mean = by_place[name].mean()
        panel.plot(mean.index, mean, color=colour, lw=1.8)
        if f"{name}_low" in group:
            low, high = by_place[f"{name}_low"].mean(), by_place[f"{name}_high"].mean()
            panel.fill_between(low.index, low, high, color=colour, alpha=0.12, lw=0)
        if name == "psnr" and _PREDICTED in group:
            predicted = by_place[_PREDICTED].mean()
            panel.plot(predicted.index, predicted, color=colour, lw=0.9, ls="--")
    held = part[(part["source"] == SOURCES[2]) & (part["network"] == part["network"].iloc[0])]
    panel.plot(held["ahead"], held[name], color="0.35", lw=1.4, ls=":")
