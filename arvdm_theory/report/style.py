"""One style for every figure, and the one way to save them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from arvdm_theory.files import FIGURE_SUFFIXES, atomic_path
from arvdm_theory.tables import read_table

__all__ = ["TERM_COLOURS", "TERM_NAMES", "Figures", "draw_all", "save", "style"]

Figures = Mapping[str, tuple[str, Callable[[pd.DataFrame], Figure]]]
"""Figures by name: the table each is drawn from, and the function that draws it."""

TERM_COLOURS: dict[str, str] = {
    "ie": "#7f7f7f",
    "nie_ar": "#56b4e9",
    "de": "#0072b2",
    "see": "#e69f00",
    "cross": "#f0e442",
    "mb": "#d55e00",
}
"""Colours of the error terms (Okabe and Ito's palette, told apart by colour-blind readers too)."""

TERM_NAMES: dict[str, str] = {
    "ie": "first input (IE)",
    "nie_ar": "noise initialisation (NIE)",
    "de": "discretisation (DE)",
    "see": "score estimation (SEE)",
    "cross": "cross term",
    "mb": "memory bottleneck (MB)",
}


@contextmanager
def style() -> Iterator[None]:
    """The project's look, undone at the end of the block."""
    with (
        sns.axes_style("ticks", {"axes.grid": True, "grid.color": "0.92"}),
        mpl.rc_context(
            {
                "figure.dpi": 110,
                "savefig.dpi": 160,
                "font.size": 10,
                "axes.titlesize": 11,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "legend.frameon": False,
                "legend.fontsize": 9,
                "figure.constrained_layout.use": True,
            }
        ),
    ):
        yield


def save(figure: Figure, path: Path) -> None:
    """Writes a figure atomically; the path's ending is its format.

    Raises:
        ValueError: if it is none of :data:`~arvdm_theory.files.FIGURE_SUFFIXES`.
    """
    if path.suffix.lower() not in FIGURE_SUFFIXES:
        raise ValueError(f"{path}: a figure's name ends in one of {', '.join(FIGURE_SUFFIXES)}")
    with atomic_path(path) as temporary:
        figure.savefig(temporary)


def draw_all(folder: Path, figures: Figures) -> list[Path]:
    """Draws every figure whose table lies in ``folder`` into ``folder/figures`` and returns their paths.

    Raises:
        ValueError: if there is no table to draw from.
    """
    drawn = []
    for name, (table, draw) in figures.items():
        source = folder / f"{table}.csv"
        if not source.exists():
            continue
        target = folder / "figures" / f"{name}.png"
        target.parent.mkdir(exist_ok=True)
        with style():
            figure = draw(read_table(source))
            save(figure, target)
            plt.close(figure)
        drawn.append(target)
    if not drawn:
        tables = sorted({f"{table}.csv" for table, _ in figures.values()})
        raise ValueError(f"{folder} holds none of the tables that figures are drawn from: {', '.join(tables)}")
    return drawn
