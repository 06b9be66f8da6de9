"""Figure of predicted against measured decay of long rollouts."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from arvdm_theory.experiments.video.families_figure import (
    COLOURS,
    NothingToDraw,
    error_bars,
    main_setting,
    structure_legend,
    titled,
)
from arvdm_theory.video.decay import DecayError, rank_agreement
from arvdm_theory.video.rollouts import PROXIES

__all__ = ["prediction"]

_PLANS = {"outpainting": ("outpainting", "o"), "fifo": ("FIFO", "^")}
_TITLES = {
    "linear_response": "linear response",
    "error_gain": "gain of put-in errors",
    "constant": "error on true frames",
}
_MEASURES = {
    "slope": "slope (dB a frame)",
    "end": "PSNR at the end (dB)",
}


def prediction(table: pd.DataFrame) -> Figure:
    """Measured decay against the predicted one: slope of the PSNR left, PSNR at the end right; a row a proxy.

    On the dotted line both are equal. Titles give Spearman's rank correlation of a plan's networks with its 95 %
    interval; ``video-agreement`` has its p-value. An error that stays constant has no slope.

    Args:
        table: ``video-summary`` of :func:`arvdm_theory.experiments.video.run.sweep`; of the data set and preset
            with most networks.

    Raises:
        NothingToDraw: if there are too few networks of any plan to be ranked.
    """
    part, seed = main_setting(table), int(table["seed"].min())
    titles = {(m, proxy): _agreement(part, m, proxy, seed) for m in _MEASURES for proxy in PROXIES}
    if not any(titles.values()):
        raise NothingToDraw("four networks of one plan, whose decay can be ranked, are missing")
    figure, axes = plt.subplots(
        len(PROXIES), len(_MEASURES), figsize=(4.2 * len(_MEASURES), 3.2 * len(PROXIES)), squeeze=False
    )
    for column, (measure, label) in zip(axes.T, _MEASURES.items(), strict=True):
        for panel, proxy in zip(column, PROXIES, strict=True):
            if part[f"{measure}_{proxy}"].isna().all():
                panel.set_axis_off()
                continue
            _points(panel, part, measure, f"{measure}_{proxy}")
            panel.set_title("\n".join([_TITLES[proxy], *titles[measure, proxy]]))
            panel.xaxis.set_major_locator(MaxNLocator(3))
            panel.set(xlabel=f"predicted {label}", ylabel=f"measured {label}")
    handles = [
        Line2D([], [], ls="", marker=marker, color="0.35", label=name)
        for plan, (name, marker) in _PLANS.items()
        if plan in set(part["plan"])
    ]
    handles.append(Line2D([], [], color="0.35", ls=":", lw=1.0, label="predicted = measured"))
    titled(figure, part, "Decay that one AR step predicts, against what rollouts show")
    structure_legend(figure, part, *handles)
    return figure


def _points(panel: Axes, part: pd.DataFrame, measured: str, predicted: str) -> None:
    for (memory, plan), group in part.groupby(["memory", "plan"], sort=False):
        bars = error_bars(group, measured) if f"{measured}_low" in group else None
        panel.errorbar(
            group[predicted], group[measured], bars, fmt=_PLANS[str(plan)][1], color=COLOURS[str(memory)], ms=6,
            elinewidth=0.8, alpha=0.85,
        )  # fmt: skip
    panel.axline((part[predicted].mean(),) * 2, slope=1, color="0.35", lw=1.0, ls=":")


def _agreement(part: pd.DataFrame, measure: str, proxy: str, seed: int) -> list[str]:
    """A line a plan; the seed is that of the sweep, so that p-values are those of its table."""
    lines = []
    for plan, group in part.groupby("plan", sort=False):
        try:
            found = rank_agreement(group[f"{measure}_{proxy}"], group[measure], seed=seed)
        except DecayError:
            continue  # too few networks to rank, or a proxy that has no such measure
        # Two equal orders have no interval.
        rho = found.correlation
        interval = f" [{rho.ci_low:.2f}, {rho.ci_high:.2f}]" if np.isfinite(rho.ci_low) else ""
        name, _ = _PLANS[str(plan)]
        lines.append(f"{name}: {rho.value:.2f}{interval}")
    return lines
