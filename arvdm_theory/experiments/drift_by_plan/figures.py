"""Figure of rollouts by plan: what a network makes of its own frames, beside what it makes of true ones."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from arvdm_theory.report.style import Figures, shared_legend

__all__ = ["FIGURES", "curves"]

_OWN, _TRUE = "#d55e00", "#0072b2"


def curves(table: pd.DataFrame) -> Figure:
    """PSNR against the place in the rollout, a panel a network and plan: shown its own frames, and true ones."""
    cells = list(table[["network", "plan"]].drop_duplicates().itertuples(index=False, name=None))
    columns = min(len(cells), 4)
    rows = -(-len(cells) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(2.6 * columns, 2.5 * rows + 0.9), sharex=True, sharey=True, squeeze=False
    )
    for panel, (network, plan) in zip(axes.flat, cells, strict=False):
        own = table[(table.network == network) & (table.plan == plan)]
        middle = own.ahead + (own.frames - 1) / 2
        for name, colour, marker, label in (
            ("on_true", _TRUE, "s", "shown true frames"),
            ("psnr", _OWN, "o", "shown its own (a rollout)"),
        ):
            away = [own[name] - own[f"{name}_low"], own[f"{name}_high"] - own[name]]
            panel.errorbar(
                middle, own[name], away, fmt=f"-{marker}", color=colour, ms=3, capsize=1.5, elinewidth=0.8,
                label=label,
            )  # fmt: skip
        panel.plot(middle, own.held, ":", color="0.5", label="last given frame, held")
        panel.set_title(plan if table.network.nunique() == 1 else f"{plan}\n(trained: {network})")
        panel.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    for panel in axes.flat[len(cells) :]:
        panel.set_visible(False)
    for panel in axes[:, 0]:
        panel.set_ylabel("PSNR (dB)")
    for panel in axes[-1]:
        panel.set_xlabel("frames ahead")
    last = table[table.ahead == table.ahead.max()]
    figure.suptitle(
        f"By drift rollouts lose {last.lost.min():.1f} to {last.lost.max():.1f} dB by frame {_end(last)}, "
        "with 95 % intervals over videos"
    )
    shared_legend(figure, axes[0, 0], 3)
    return figure


def _end(last: pd.DataFrame) -> int:
    return int((last.ahead + last.frames - 1).max())


FIGURES: Figures = {"drift-by-plan": ("drift-by-plan", curves)}
