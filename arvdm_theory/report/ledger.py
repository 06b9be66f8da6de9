"""One ledger as a picture: its terms AR step by AR step, and the clip KL beside its bound."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from arvdm_theory.report.style import TERM_COLOURS, stack

__all__ = ["clip_curves", "ledger_steps"]

_COLUMNS = {"NIE_AR": "nie_ar", "DE": "de", "SEE": "see", "CROSS": "cross", "MB": "mb"}


def ledger_steps(table: pd.DataFrame) -> Figure:
    """Stacked terms of every AR step, with the first input's error at step 0, and the clips' KL.

    Args:
        table: the ``table`` of a ledger; terms that are not finite are left out.
    """
    finite = table[np.isfinite(table.value)]
    wide = finite[finite.stage == "ar"].pivot_table(index="ar_step", columns="term", values="value")
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), width_ratios=(1.5, 1))
    first = float(finite[finite.term == "IE"].value.sum())
    stack(left, [0], {"ie": [first]})
    above = stack(left, wide.index, {key: wide[term] for term, key in _COLUMNS.items() if term in wide})
    left.set(xlabel="AR step (0: initialisation)", ylabel="nats", title="The ledger, step by step")
    left.set_ylim(top=1.35 * max(float(above.max(initial=0.0)), first))
    left.legend(ncols=2, loc="upper left")
    left.grid(axis="x", visible=False)
    for term, label, look in (("CLIP_KL", "KL of the clip", "o-"), ("CLIP_BOUND", "K-fold bound", "--")):
        if term in wide:
            right.semilogy(wide.index, wide[term], look, color=TERM_COLOURS["de"], label=label, markersize=4)
    right.set(xlabel="AR step", ylabel="nats", title="The clip that each AR step puts out")
    if right.lines:
        right.legend()
    else:
        right.text(0.5, 0.5, "not defined for this score", ha="center", transform=right.transAxes)
    return figure


def clip_curves(table: pd.DataFrame) -> Figure:
    """Clip KL, or decay, over AR steps: a curve a form with its 95 % interval.

    Args:
        table: the ``table`` of a prediction or a measurement, or several of them one below the other.
    """
    figure, axes = plt.subplots(figsize=(6, 4.2))
    for form, rows in table.groupby("form", sort=False):
        curve = rows.sort_values("ar_step")
        (line,) = axes.plot(curve.ar_step, curve.value, "o-", markersize=4, label=str(form).replace("_", " "))
        axes.fill_between(
            curve.ar_step, curve.ci_low, curve.ci_high, color=line.get_color(), alpha=0.2, linewidth=0
        )
    decay = "DECAY" in set(table.term)
    what = "Fall of PSNR since the first AR step" if decay else "KL of the clip that each AR step puts out"
    axes.set(xlabel="AR step", ylabel="dB" if decay else "nats", title=what)
    if bool((table.value > 0).all()) and table.value.max() > 30 * table.value.min():
        axes.set_yscale("log")
    axes.legend()
    return figure
