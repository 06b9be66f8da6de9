"""The figures of the estimator benchmark, each from one tidy table."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from arvdm_theory.plots.style import Figures

__all__ = ["FIGURES"]

_SHOWN = ("calibrated", "copula", "gaussian", "ksg1", "ksg2", "ennemi", "infomeasure", "NPEET-plus")
_PEERS = ("ennemi", "infomeasure", "NPEET-plus")
_NAMES = {"calibrated": "calibrated (the default)"}


def _colours() -> dict[str, tuple[float, float, float]]:
    return dict(zip(_SHOWN, sns.color_palette("colorblind"), strict=False))


def _line(method: str) -> str:
    return "--" if method in _PEERS else "-"


def dimension(table: pd.DataFrame) -> Figure:
    """Bias, as a share of the truth, against the number of Gaussian pairs of correlation ½."""
    rows = table[(table.family == "gaussian") & table.task.str.match(r"gaussian \d+\+")]
    figure, axis = plt.subplots(figsize=(7.2, 4.4))
    for method, colour in _colours().items():
        part = rows[(rows.method == method) & (rows.n == rows.n.max())]
        if part.empty:
            continue
        ratio = (part.value / part.truth - 1).groupby(part.dimension)
        spread = ratio.std() / np.sqrt(ratio.count())
        axis.errorbar(ratio.mean().index, ratio.mean(), 2 * spread.fillna(0), fmt="o", ls=_line(method), ms=4,
                      capsize=2, color=colour, label=_NAMES.get(method, method))  # fmt: skip
    axis.axhline(0, color="0.4", linewidth=0.8)
    axis.set_xscale("log", base=2)
    axis.set_xticks(sorted(rows.dimension.unique()), [f"{d}+{d}" for d in sorted(rows.dimension.unique())])
    axis.set(xlabel="dimensions of X and Z", ylabel="bias / truth (± 2 standard errors)",
             title="Nearest neighbours alone collapse in high dimension")  # fmt: skip
    axis.legend(loc="lower left")
    return figure


def seconds(table: pd.DataFrame) -> Figure:
    """Median absolute error, as a share of the truth, against seconds, a point a task."""
    figure, axis = plt.subplots(figsize=(7.2, 4.6))
    rows = table.assign(relative=(table.value - table.truth).abs() / table.truth)
    for method, colour in _colours().items():
        part = rows[rows.method == method]
        if part.empty:
            continue
        medians = part.groupby(["task", "n"])[["seconds", "relative"]].median()
        marker = "^" if method in _PEERS else "o"
        axis.scatter(medians.seconds, medians.relative, s=18, color=colour, marker=marker, alpha=0.35)
        middle = medians.median()
        axis.scatter(middle.seconds, middle.relative, s=110, color=colour, marker=marker, edgecolor="black",
                     label=_NAMES.get(method, method), zorder=3)  # fmt: skip
    axis.set(xscale="log", yscale="log", xlabel="seconds an estimate", ylabel="median |error| / truth",
             title="Error against seconds (large: median over tasks)")  # fmt: skip
    axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def tasks(table: pd.DataFrame) -> Figure:
    """Median absolute error on the non-Gaussian tasks: the default against the best other package."""
    rows = table[table.family.isin(["half-cube", "asinh", "student", "spiral"])]
    rows = rows[rows.n == rows.n.min()]
    medians = (rows.value - rows.truth).abs().groupby([rows.task, rows.method]).median().unstack()
    figure, axis = plt.subplots(figsize=(7.2, 5.4))
    y = np.arange(len(medians))[::-1]
    for method, colour in _colours().items():
        if method in medians and method in ("calibrated", "ksg1", *_PEERS):
            axis.scatter(medians[method], y, s=40, color=colour, marker="^" if method in _PEERS else "o",
                         label=_NAMES.get(method, method))  # fmt: skip
    axis.set_yticks(y, list(medians.index))
    axis.set(xscale="log", xlabel="median |error| (nats)", title="Tasks that are not Gaussian")
    if len(medians):
        axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def coverage(table: pd.DataFrame) -> Figure:
    """Share of 95 % intervals that cover the truth, with its own binomial interval."""
    figure, axis = plt.subplots(figsize=(7.2, 4.2))
    groups = table.groupby(["task", "method"], sort=False).covered.agg(["mean", "count"])
    y = np.arange(len(groups))[::-1]
    axis.axvspan(0.92, 0.98, color="0.92")
    axis.axvline(0.95, color="0.5", linewidth=0.8)
    error = 1.96 * np.sqrt(np.maximum(groups["mean"] * (1 - groups["mean"]), 0.01) / groups["count"])
    axis.errorbar(groups["mean"], y, xerr=error, fmt="o", color=sns.color_palette("colorblind")[0], capsize=2)
    axis.set_yticks(y, [f"{task}, {method}" for task, method in groups.index])
    axis.set(xlabel="coverage of nominal 95 % intervals", title="Do the intervals cover? (shaded: 92 % to 98 %)")
    axis.set_xlim(min(0.8, float(groups["mean"].min()) - 0.05), 1.02)
    return figure


def independence(table: pd.DataFrame) -> Figure:
    """How often the conditional independence test rejects against the strength of the dependence."""
    figure, axis = plt.subplots(figsize=(6.4, 4.2))
    for colour, (case, rows) in zip(
        sns.color_palette("colorblind"), table.groupby("case", sort=False), strict=False
    ):
        share = rows.rejected.groupby(rows.strength).agg(["mean", "count"])
        error = 1.96 * np.sqrt(share["mean"] * (1 - share["mean"]) / share["count"])
        axis.errorbar(share.index, share["mean"], error, fmt="o-", ms=4, capsize=2, color=colour, label=str(case))
    axis.axhline(0.05, color="0.4", linewidth=0.8, linestyle="--", label="level 0.05")
    axis.set(xlabel="share of X's own noise in Z (0: independent given Y)", ylabel="rejections at 0.05",
             title="Conditional independence: level and power", ylim=(-0.02, 1.02))  # fmt: skip
    axis.legend()
    return figure


FIGURES: Figures = {
    "estimator_dimension": ("estimators", dimension),
    "estimator_seconds": ("estimators", seconds),
    "estimator_tasks": ("estimators", tasks),
    "estimator_coverage": ("coverage", coverage),
    "estimator_independence": ("independence", independence),
}
"""Every figure's name with the table it is drawn from."""
