"""The independence figure: rejections without dependence, and with it, on every named case."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from arvdm_theory.experiments.independence.run import ALPHA, CASES
from arvdm_theory.report.style import Figures, legend_below

__all__ = ["FIGURES", "independence"]

_STATISTICS = {"gaussian": "Gaussian statistic", "both": "with neighbours"}
_PEER = {"KCI": "kernel test (KCI)"}
_MARKERS = {"independent": "o", "autocorrelated": "s"}


def independence(table: pd.DataFrame) -> Figure:
    """Rejection rates at level 0.05 with their 95 % Wilson intervals, from the study's table of rates.

    Above the null cases, magnified; below the rate against strength, a panel a statistic.
    """
    figure, panels = plt.subplot_mosaic([["level", "level"], ["one", "other"]], figsize=(8, 7.6))
    level, *powers = panels.values()
    cases = [case for case in CASES if case in set(table["case"])]
    colours = dict(zip(CASES, sns.color_palette("colorblind", len(CASES)), strict=True))
    _level(level, table[table.strength == 0])
    for axes, (statistic, title) in zip(powers, _STATISTICS.items(), strict=True):
        for case in cases:
            rows = table[(table.statistic == statistic) & (table["case"] == case)].sort_values("strength")
            axes.errorbar(
                rows.strength, rows.rate, [rows.rate - rows.low, rows.high - rows.rate], lw=1.4, ms=4, capsize=2,
                elinewidth=0.9, color=colours[case], label=CASES[case].title,
                fmt=_MARKERS[CASES[case].dependence] + ("-" if CASES[case].dependence == "independent" else "--"),
            )  # fmt: skip
        axes.axhline(ALPHA, color="0.35", lw=0.9, ls=":")
        axes.set(ylim=(-0.02, 1.03), xlabel="correlation of the noises",
                 ylabel="rejection rate" if axes is powers[0] else "", title=f"Power: {title}")  # fmt: skip
    handles, labels = powers[0].get_legend_handles_labels()
    legend_below(figure, handles, labels, 4, handlelength=2.6)
    figure.suptitle(f"Is X independent of Z given Y?  n = {int(table.n.iloc[0])}, tests at level {ALPHA}")
    return figure


def _level(axes: Axes, table: pd.DataFrame) -> None:
    cases = [case for case in CASES if case in set(table["case"])]
    shown = {name: label for name, label in (_STATISTICS | _PEER).items() if name in set(table.statistic)}
    for offset, colour, (statistic, label) in zip(
        (0.2, 0.0, -0.2), ("0.15", "0.55", "C3"), shown.items(), strict=False
    ):
        rows = table[table.statistic == statistic].set_index("case").reindex(cases)
        heights = [len(cases) - 1 - i + offset for i in range(len(cases))]
        axes.errorbar(rows.rate, heights, xerr=[rows.rate - rows.low, rows.high - rows.rate], fmt="o", ms=4,
                      capsize=2, color=colour, label=label)  # fmt: skip
    axes.axvline(ALPHA, color="0.35", lw=0.9, ls=":")
    axes.set_yticks(range(len(cases) - 1, -1, -1), [CASES[case].title for case in cases])
    axes.set(xlim=(0, max(0.1, float(table.high.max()) * 1.05)), xlabel="rejection rate",
             title=f"No dependence: {int(table.replicates.min())} runs each")  # fmt: skip
    # Room for the legend above the first case.
    axes.set_ylim(-0.6, len(cases) + 0.4 + 0.7 * len(shown))
    axes.legend(
        loc="upper center", handletextpad=0.2, borderaxespad=0.1, frameon=True, framealpha=1, edgecolor="none"
    )


FIGURES: Figures = {"independence": ("independence", independence)}
"""The figure's name with the table it is drawn from."""
