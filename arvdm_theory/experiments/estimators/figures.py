"""The figures of the estimator benchmark, each from one tidy table."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from arvdm_theory.experiments.estimators.run import coverage_summary
from arvdm_theory.report.style import Figures, shared_legend

__all__ = ["FIGURES"]

_SHOWN = ("calibrated", "copula", "gaussian", "ksg1", "ksg2", "ennemi", "infomeasure", "NPEET-plus")
_PEERS = ("ennemi", "infomeasure", "NPEET-plus")
_NAMES = {"calibrated": "calibrated (the default)"}
_MARKS = {"ennemi": "^", "infomeasure": "v", "NPEET-plus": "P"}


def _colours() -> dict[str, tuple[float, float, float]]:
    return dict(zip(_SHOWN, sns.color_palette("colorblind"), strict=False))


def _line(method: str) -> str:
    return "--" if method in _PEERS else "-"


def _plain_ticks(axis: Axis) -> None:
    """Ticks at 1, 2 and 5 times the powers of ten of a logarithmic axis, written as plain numbers."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=20))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def dimension(table: pd.DataFrame) -> Figure:
    """Bias, as a share of the truth, against the number of Gaussian pairs of correlation ½."""
    rows = table[(table.family == "gaussian") & table.task.str.match(r"gaussian \d+\+")]
    figure, axis = plt.subplots(figsize=(7.2, 4.4))
    shown = {method: colour for method, colour in _colours().items() if (rows.method == method).any()}
    for position, (method, colour) in enumerate(shown.items()):
        part = rows[(rows.method == method) & (rows.n == rows.n.max())]
        # Side by side, lest methods that agree hide one another.
        dodge = 2 ** (0.06 * (position - (len(shown) - 1) / 2))
        ratio = (part.value / part.truth - 1).groupby(part.dimension)
        spread = ratio.std() / np.sqrt(ratio.count())
        axis.errorbar(ratio.mean().index * dodge, ratio.mean(), 2 * spread.fillna(0), fmt="o", ls=_line(method),
                      ms=4, capsize=2, color=colour, label=_NAMES.get(method, method))  # fmt: skip
    axis.axhline(0, color="0.4", linewidth=0.8)
    axis.set_xscale("log", base=2)
    axis.set_xticks(sorted(rows.dimension.unique()), [f"{d}+{d}" for d in sorted(rows.dimension.unique())])
    axis.set(xlabel="dimensions of X and Z", ylabel="bias / truth (± 2 standard errors)",
             title="Nearest neighbours alone collapse in high dimension")  # fmt: skip
    axis.legend(loc="lower left")
    return figure


def seconds(table: pd.DataFrame) -> Figure:
    """Median absolute error, as a share of the truth, against seconds, a point a task."""
    figure, axis = plt.subplots(figsize=(7.6, 4.6))
    rows = table.assign(relative=(table.value - table.truth).abs() / table.truth)
    for method, colour in _colours().items():
        part = rows[rows.method == method]
        if part.empty:
            continue
        medians = part.groupby(["task", "n"])[["seconds", "relative"]].median()
        marker = "^" if method in _PEERS else "o"
        axis.scatter(
            medians.seconds, medians.relative, s=18, color=colour, marker=marker, alpha=0.35, linewidths=0
        )
        middle = medians.median()
        axis.scatter(middle.seconds, middle.relative, s=110, color=colour, marker=marker, edgecolor="black",
                     label=_NAMES.get(method, method), zorder=3)  # fmt: skip
    axis.set(xscale="log", yscale="log", xlabel="CPU seconds an estimate", ylabel="median |error| / truth",
             title="Error against seconds (small: a task; large: the median of all tasks)")  # fmt: skip
    _plain_ticks(axis.yaxis)
    shared_legend(figure, axis, 4)
    return figure


def tasks(table: pd.DataFrame) -> Figure:
    """Median absolute error on the non-Gaussian tasks: the default against every other package."""
    rows = table[table.family.isin(["half-cube", "asinh", "student", "spiral"])]
    rows = rows[rows.n == rows.n.min()]
    medians = (rows.value - rows.truth).abs().groupby([rows.task, rows.method]).median().unstack()
    figure, axis = plt.subplots(figsize=(7.6, 5.4))
    y = np.arange(len(medians))[::-1]
    for method, colour in _colours().items():
        if method in medians and method in ("calibrated", *_PEERS):
            peer = method in _PEERS
            # The default is drawn last: it must not hide behind a package that it equals.
            axis.scatter(medians[method], y, s=34 if peer else 64, color=colour, marker=_MARKS.get(method, "o"),
                         label=_NAMES.get(method, method), zorder=2 if peer else 3)  # fmt: skip
    axis.set_yticks(y, list(medians.index))
    axis.grid(axis="y", color="0.92")
    number = int(rows.n.min()) if len(rows) else 0
    axis.set(xscale="log", xlabel="median |error| (nats)", title=f"Tasks that are not Gaussian, {number} samples")
    if len(medians):
        _plain_ticks(axis.xaxis)
        shared_legend(figure, axis, 4)
    return figure


def coverage(table: pd.DataFrame) -> Figure:
    """Share of 95 % intervals that cover the truth, with its own binomial (Wilson) interval."""
    rows = coverage_summary(table)
    figure, axis = plt.subplots(figsize=(7.6, 0.29 * len(rows) + 1.4))
    y = np.arange(len(rows))[::-1]
    axis.axvspan(0.92, 0.98, color="0.92", zorder=0)
    axis.axvline(0.95, color="0.5", linewidth=0.8)
    default = (rows.method == "default").to_numpy()
    for chosen, colour, label in ((default, 0, "the default"), (~default, 7, "other methods")):
        part = rows[chosen]
        if part.empty:
            continue
        error = np.stack([part.coverage - part.low, part.high - part.coverage]).clip(min=0)
        axis.errorbar(part.coverage, y[chosen], xerr=error, fmt="o", ms=5, capsize=2, label=label,
                      color=sns.color_palette("colorblind")[colour])  # fmt: skip
    names = [f"{row.task}, {row.method} ({row.replicates})" for row in rows.itertuples()]
    axis.set_yticks(y, names)
    axis.grid(axis="y", visible=False)
    axis.set(xlabel="coverage of 95 % intervals (in brackets: replicates)", ylim=(-0.7, len(rows) - 0.3))
    axis.set_title("Do the intervals cover? (shaded: 92 % to 98 %)")
    axis.set_xlim(min(0.8, float(rows.low.min()) - 0.02), 1.01)
    axis.legend(loc="upper left")
    return figure


FIGURES: Figures = {
    "estimator_dimension": ("estimators", dimension),
    "estimator_seconds": ("estimators", seconds),
    "estimator_tasks": ("estimators", tasks),
    "estimator_coverage": ("coverage", coverage),
}
"""Every figure's name with the table it is drawn from."""
