"""Rank correlations of every sum against how much of the error is the score's, from one table alone."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from arvdm_theory.report.style import Figures, shared_legend

__all__ = ["FIGURES", "ranks"]

_LOOKS = {
    "per_step": ("sum of per-step errors", "#d55e00", "o"),
    "ar_step": ("Σ E_k, errors of whole AR steps", "#0072b2", "D"),
    "response": ("linear response (last clip)", "#009e73", "^"),
}
_TARGETS = {"kl": "KL of all clean frames", "last_clip": "KL of the last clip"}
# Shares below this are drawn here.
_LEAST = 2e-3


def ranks(table: pd.DataFrame) -> Figure:
    """A column a target, scores that err exactly above and trained networks below; bars are 95 % intervals.

    The Girsanov form, whose marks would cover those of the per-step sum, is in the table alone.
    """
    figure, axes = plt.subplots(2, 2, figsize=(10, 7.6), sharex=True, sharey=True)
    studies = (
        ("erring scores, exact", table[table.study == "exact"]),
        ("trained networks", table[table.study != "exact"]),
    )
    for row, (title, part) in zip(axes, studies, strict=True):
        for panel, (target, name) in zip(row, _TARGETS.items(), strict=True):
            for place, (key, (label, colour, marker)) in enumerate(_LOOKS.items()):
                own = part[(part["sum"] == key) & (part.target == target)].dropna(subset=["spearman"])
                # Two sums of one setting stand beside each other.
                x = own.see_share.clip(lower=_LEAST) * (1 + 0.05 * (place - 1))
                bars = [(own.spearman - own.ci_low).clip(lower=0), (own.ci_high - own.spearman).clip(lower=0)]
                panel.errorbar(x, own.spearman, bars, fmt=marker, color=colour, ms=4.5, elinewidth=0.6, alpha=0.8,
                               label=label)  # fmt: skip
            panel.axhline(0, color="0.6", linewidth=0.8)
            panel.axvline(0.5, color="0.6", linewidth=0.8, linestyle=":")
            panel.set(xscale="log", ylim=(-1.08, 1.08), title=f"{title}:\n{name}")
        row[0].set_ylabel("rank correlation")
    for panel in axes[1]:
        panel.set_xlabel("SEE/(DE + SEE)")
    kl = table[table.target == "kl"].groupby("sum").spearman.median()
    figure.suptitle(
        f"With the KL of all frames: rank correlation of per-step sums {kl.get('per_step', float('nan')):.2f}, "
        f"of errors of AR steps {kl.get('ar_step', float('nan')):.2f} (medians)"
    )
    shared_legend(figure, axes[1][0], 2)
    return figure


FIGURES: Figures = {"scheduler-ranks": ("scheduler-ranks-correlations", ranks)}
