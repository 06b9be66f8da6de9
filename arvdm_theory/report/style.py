"""One style for every figure, and the one way to save them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from arvdm_theory.files import FIGURE_SUFFIXES, atomic_path, read_json
from arvdm_theory.provenance import uncommitted
from arvdm_theory.tables import read_table

__all__ = [
    "FRONT_KEY",
    "TERM_COLOURS",
    "TERM_NAMES",
    "Figures",
    "draw_all",
    "front",
    "publish",
    "save",
    "shared_legend",
    "stack",
    "style",
]

Array = NDArray[np.float64]

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


def stack(panel: Axes, x: ArrayLike, terms: Mapping[str, ArrayLike], width: float = 0.8, **look: Any) -> Array:
    """Bars of terms upon each other: positive values upwards from 0, negative ones (of a cross term) downwards.

    Args:
        panel: to draw in.
        x: where the bars stand, (n,).
        terms: by their keys of :data:`TERM_COLOURS`, (n,) each.
        width: of the bars.
        look: of the bars; ``pale`` mixes their colours with white, which unlike transparency hides the grid.

    Returns:
        the heights that the bars reach, (n,).
    """
    pale = look.pop("pale", False)
    above, below = np.zeros(np.shape(x)), np.zeros(np.shape(x))
    for key, values in terms.items():
        height = np.asarray(values, dtype=np.float64)
        colour = [1 - 0.4 * (1 - part) for part in to_rgb(TERM_COLOURS[key])] if pale else TERM_COLOURS[key]
        panel.bar(
            x, height, width, bottom=np.where(height >= 0, above, below), color=colour,
            **{"edgecolor": "white", "label": TERM_NAMES[key]} | look,
        )  # fmt: skip
        above, below = above + np.maximum(height, 0), below + np.minimum(height, 0)
    return above


def shared_legend(figure: Figure, panel: Axes, columns: int) -> None:
    """The legend of one panel, below all of them."""
    figure.legend(*panel.get_legend_handles_labels(), loc="outside lower center", ncols=columns)


def front(panel: Axes, x: ArrayLike, y: ArrayLike) -> None:
    """The corner points of a Pareto front, in their order: ringed, and joined by dashed steps."""
    panel.step(x, y, where="post", color="black", lw=1.0, ls="--", zorder=5)
    panel.plot(x, y, "o", ms=14, mfc="none", mec="black", mew=1.0, zorder=5)


FRONT_KEY: dict[str, Any] = {"ls": "--", "color": "black", "marker": "o", "ms": 12, "mfc": "none"}
"""How a legend shows a front."""


def save(figure: Figure, path: Path) -> None:
    """Writes a figure atomically; the path's ending is its format.

    Raises:
        ValueError: if it is none of :data:`~arvdm_theory.files.FIGURE_SUFFIXES`.
    """
    if path.suffix.lower() not in FIGURE_SUFFIXES:
        raise ValueError(f"{path}: a figure's name ends in one of {', '.join(FIGURE_SUFFIXES)}")
    with atomic_path(path) as temporary:
        figure.savefig(temporary)


def publish(paths: Iterable[Path], folder: Path) -> None:
    """Copies files into a folder, made if need be, each atomically.

    Raises:
        ValueError: before any is copied, if a provenance file among them tells of an uncommitted source tree.
    """
    paths = list(paths)
    for path in paths:
        if path.name.endswith(".provenance.json"):
            commit = read_json(path).get("commit")
            if isinstance(commit, str) and uncommitted(commit):
                raise ValueError(
                    f"{path}: computed from a source tree that was changed since {commit[:8]}; commit, compute it "
                    "again, and publish that"
                )
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        with atomic_path(folder / path.name) as temporary:
            shutil.copyfile(path, temporary)


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
