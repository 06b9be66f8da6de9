"""Figures of the accumulation of error: what was predicted on true data, beside what rollouts turned out to be."""

from __future__ import annotations

from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from arvdm_theory.report.style import Figures, legend_below

__all__ = ["FIGURES", "clip_curves", "slopes"]

_COLOURS = {"linear": "#0072b2", "nonlinear": "#d55e00"}
_MARKERS = {"linear": "o", "nonlinear": "s"}
_GREY = "0.45"


def clip_curves(table: pd.DataFrame, bound: bool = True) -> Figure:
    """Clip KL over AR steps, a column a plan and a row a video.

    Args:
        table: ``accumulation``.
        bound: whether to show the bound, which asks for a logarithmic axis.
    """
    videos, plans = list(table.video.unique()), list(table.plan.unique())
    figure, axes = plt.subplots(
        len(videos), len(plans), figsize=(4.0 * len(plans), 2.4 * len(videos) + 0.9), squeeze=False
    )
    for row, video in zip(axes, videos, strict=True):
        for panel, plan in zip(row, plans, strict=True):
            part = table[(table.video == video) & (table.plan == plan)]
            _curves(panel, part, bound)
            if bound:
                panel.set_yscale("log")
                # Clips read without a fault have a KL of zero, which is no reason to show all below it.
                panel.set_ylim(bottom=max(1e-3, panel.get_ylim()[0]))
            else:
                panel.set_ylim(bottom=0.0)
            panel.set_title(f"{video}: {plan}")
            panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        row[0].set_ylabel("clip KL (nats)")
    for panel in axes[-1]:
        panel.set_xlabel("AR step")
    figure.suptitle(_below_bound(table) if bound else "Clip KL: predicted on true data, and measured on rollouts")
    _legend(figure, bound, "decoded" in set(table.curve), 3 if len(videos) > 2 else 2)
    return figure


def _below_bound(table: pd.DataFrame) -> str:
    last = table[table.ar_step == table.ar_step.max()]
    wide = last.pivot_table(index=["video", "plan", "denoiser"], columns="curve", values="value", sort=False)
    times = (wide.bound / wide.measured)[wide.measured > 0]
    return f"The last clip's bound is {times.min():.0f} to {times.max():.0f} times the KL that is measured"


def _curves(panel: Axes, part: pd.DataFrame, bound: bool) -> None:
    exact = part[(part.curve == "exact score") & (part.denoiser == "linear")]
    panel.plot(exact.ar_step, exact.value, ":", color=_GREY)
    for denoiser, colour in _COLOURS.items():
        own = part[part.denoiser == denoiser]
        curves = {str(name): rows.sort_values("ar_step") for name, rows in own.groupby("curve")}
        if bound:
            panel.plot(curves["bound"].ar_step, curves["bound"].value, "--", color=colour)
        for name, width in (("linear", 1.6), ("linear_residual", 0.7)):
            panel.plot(curves[name].ar_step, curves[name].value, "-", color=colour, linewidth=width)
        rows = curves["linear"]
        low, high = rows.value - 2 * rows.stderr, rows.value + 2 * rows.stderr
        panel.fill_between(rows.ar_step, low, high, color=colour, alpha=0.15, linewidth=0)
        for name, face in (("measured", colour), ("decoded", "white")):
            if name in curves:
                rows = curves[name]
                panel.errorbar(
                    rows.ar_step, rows.value, 2 * rows.stderr, fmt=_MARKERS[denoiser], color=colour, ms=3.5,
                    markerfacecolor=face, capsize=1.5, elinewidth=0.8, linewidth=0,
                )  # fmt: skip


def _legend(figure: Figure, bound: bool, decoded: bool, columns: int) -> None:
    handles: list[Artist] = []
    labels = []

    def add(label: str, **look: object) -> None:
        handles.append(Line2D([], [], **look))  # type: ignore[arg-type]
        labels.append(label)

    add("linear denoiser", color=_COLOURS["linear"], marker=_MARKERS["linear"], markersize=4)
    add("nonlinear network", color=_COLOURS["nonlinear"], marker=_MARKERS["nonlinear"], markersize=4)
    add("predicted by linear response, no rollout (all ± 2 standard errors)", color="black", linewidth=1.6)
    add("the same with residual covariance", color="black", linewidth=0.7)
    add("measured on rollouts", color="black", marker="o", linestyle="", markersize=4)
    if decoded:
        add(
            "measured on pictures read (finite-state)",
            color="black", marker="o", linestyle="", markersize=4, markerfacecolor="white",
        )  # fmt: skip
    if bound:
        add("bound, no rollout", color="black", linestyle="--")
    add("exact score, closed form", color=_GREY, linestyle=":")
    legend_below(figure, handles, labels, columns)


def slopes(table: pd.DataFrame) -> Figure:
    """Growth an AR step as predicted without a rollout, against the growth of measured clip KL (± 2 se)."""
    figure, panel = plt.subplots(figsize=(6.4, 4.2))
    keys = ["video", "plan", "denoiser"]
    value = table.pivot_table(index=keys, columns="curve", values="slope", sort=False)
    error = table.pivot_table(index=keys, columns="curve", values="stderr", sort=False)
    videos, plans = list(table.video.unique()), list(table.plan.unique())
    markers = dict(zip(videos, ("o", "s", "^", "D"), strict=False))
    # A point whose error bar is wider than all points together says nothing: it is named, not drawn.
    spread = float(np.ptp(value[["measured", "linear"]].to_numpy()))
    wide = 4 * error[["measured", "linear"]].max(axis=1) > spread
    left_out = [f"{video}, {plan}, {denoiser}" for video, plan, denoiser in value.index[wide]]
    value, error = value[~wide], error[~wide]
    for names in value.index:
        video, plan, denoiser = names
        colour = _COLOURS[denoiser]
        panel.errorbar(
            value.measured[names], value.linear[names], 2 * error.linear[names], 2 * error.measured[names],
            fmt=markers[video], color=colour, markerfacecolor=colour if plan == plans[0] else "white", capsize=2,
            elinewidth=0.8, markersize=6,
        )  # fmt: skip
    near = int(((value.linear - value.measured).abs() <= 2 * np.hypot(error.linear, error.measured)).sum())
    bars = 2 * error[["measured", "linear"]]
    points = value[["measured", "linear"]]
    limits = (float((points - bars).min().min()), float((points + bars).max().max()))
    margin = 0.05 * (limits[1] - limits[0])
    limits = (limits[0] - margin, limits[1] + margin)
    text = f"Not drawn, since their error bars span all the others: {'; '.join(left_out)}." if left_out else ""
    panel.plot(limits, limits, color=_GREY, linewidth=0.8, zorder=0)
    panel.set(
        xlim=limits,
        ylim=limits,
        title=f"Growth is predicted within two standard errors for {near} of {len(value)} denoisers",
        xlabel="growth of measured clip KL (nats an AR step)",
        ylabel="growth predicted by linear response\n(nats an AR step)",
    )
    handles: list[Artist] = [
        Line2D([], [], color="black", marker=marker, linestyle="") for marker in markers.values()
    ]
    labels = [str(video) for video in videos]
    for denoiser, colour in _COLOURS.items():
        handles.append(Line2D([], [], color=colour, linewidth=4))
        labels.append("linear denoiser" if denoiser == "linear" else "nonlinear network")
    for plan, face in zip(plans, ("black", "white"), strict=False):
        handles.append(Line2D([], [], color="black", marker="o", markerfacecolor=face, linestyle=""))
        labels.append(plan)
    legend_below(figure, handles, labels, 3, text)
    return figure


FIGURES: Figures = {
    "accumulation": ("accumulation", clip_curves),
    "accumulation-growth": ("accumulation", partial(clip_curves, bound=False)),
    "accumulation-slopes": ("accumulation-slopes", slopes),
}
