"""One ledger as a picture: its terms AR step by AR step, and the clip KL beside its bound."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from arvdm_theory.report.style import TERM_COLOURS, stack

__all__ = ["ledger_steps"]

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
