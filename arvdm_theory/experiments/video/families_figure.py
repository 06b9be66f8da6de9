"""Which networks of a sweep a figure is about, and how each structure of the memory looks in all of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from arvdm_theory.report.style import Figures, legend_below
from arvdm_theory.video.simulators import SIMULATORS

__all__ = [
    "COLOURS",
    "MEASURES",
    "NAMES",
    "NothingToDraw",
    "alike",
    "error_bars",
    "main_setting",
    "measures",
    "mode",
    "saying_so",
    "setting",
    "structure_legend",
    "structures",
    "titled",
]

COLOURS: dict[str, str] = {"none": "#7f7f7f", "concat": "#e69f00", "prepend": "#0072b2", "cross": "#009e73"}
"""Of the memory's structures (Okabe and Ito's palette)."""

NAMES: dict[str, str] = {
    "none": "no memory",
    "concat": "concatenated channels",
    "prepend": "prepended frames",
    "cross": "cross attention",
}
"""Of the memory's structures, in the order in which they are shown."""

MEASURES: dict[str, str] = {"rate": "retrieval rate", "psnr": "PSNR (dB)", "ssim": "SSIM"}
"""What queries are scored by, and the labels of its axes."""

_DATA: dict[str, str] = {name: kind.title for name, kind in SIMULATORS.items()}
_PRESETS = {
    "cpu": "turning",
    "cpu-walk": "walking",
    "cpu-between": "between remembered views",
    "cpu-slip": "turning, steps slip",
    "cpu-walk-slip": "walking, steps slip",
    "cpu-far": "walking, 32 remembered frames",
    "cpu-farthest": "exploring, 112 remembered frames",
    "cpu-long": "walking, larger pictures, trained longer",
}


class NothingToDraw(Exception):  # noqa: N818 - not a fault, nor of a table: the sweep has other networks
    """A sweep has no networks of the kind that a figure is about; the message says which are missing."""


def saying_so(figures: Figures) -> Figures:
    """The same figures, but where there is nothing to draw a picture of the sentence that says so."""

    def told(draw: Callable[[pd.DataFrame], Figure]) -> Callable[[pd.DataFrame], Figure]:
        @wraps(draw)
        def drawn(table: pd.DataFrame) -> Figure:
            try:
                return draw(table)
            except NothingToDraw as reason:
                figure = plt.figure(figsize=(6.0, 0.8))
                figure.text(0.5, 0.5, f"nothing to draw: {reason}", ha="center", va="center")
                return figure

        return drawn

    return {name: (table, told(draw)) for name, (table, draw) in figures.items()}


def mode(values: pd.Series[Any]) -> Any:
    """The most frequent value."""
    return values.mode().iloc[0]


def _default(name: str) -> Callable[[pd.Series[Any]], Any]:
    return lambda values: name if name in set(values) else mode(values)


# Of the networks that differ in a column, which are the usual ones: of one data set and preset, or of each of its
# structures of the memory, for a network without one has no frames to remember or to compress.
_USUAL: dict[str, tuple[list[str], Callable[[pd.Series[Any]], Any]]] = {
    "plan": (["data", "preset"], _default("outpainting")),
    "told": (["data", "preset"], _default("poses")),
    "architecture": (["data", "preset"], mode),
    "steps": (["data", "preset", "worlds"], max),
    "compress": (["data", "preset", "memory"], min),
    "memory_frames": (["data", "preset", "memory"], max),
}


def alike(table: pd.DataFrame, *free: str) -> pd.DataFrame:
    """Networks of every data set and preset that differ in nothing but the memory's structure, seed and worlds.

    Outpainting, poses told, the preset's architecture (the one that most networks have), a memory that is not
    compressed and as long as any, trained as long as any; what the sweep has none of is what most of its networks
    have.

    Args:
        table: of a sweep, with the fields of its networks.
        free: columns of ``plan``, ``told``, ``architecture``, ``steps``, ``compress`` and ``memory_frames`` that
            may differ too.
    """
    for column, (groups, choose) in _USUAL.items():
        if column not in free:
            usual = table.groupby(groups, sort=False)[column].transform(choose)
            table = table[table[column] == usual]
    return table


def main_setting(table: pd.DataFrame) -> pd.DataFrame:
    """The networks of the one data set, preset and seed of worlds that has most of them."""
    groups = table.groupby(["data", "preset", "worlds"], sort=False)
    part: pd.DataFrame = groups.get_group(groups["network"].nunique().idxmax())
    return part


def setting(data: object, preset: object) -> str:
    """What a data set and preset are about, in words."""
    return f"{_DATA.get(str(data), data)}, {_PRESETS.get(str(preset), f'{preset} preset')}"


def structures(table: pd.DataFrame) -> list[str]:
    """Structures of the memory that a table has, in the order in which they are shown."""
    return [name for name in NAMES if name in set(table["memory"])]


def measures(table: pd.DataFrame) -> list[str]:
    """The measures that a table has: without poses there are no queries, and so no rate."""
    return [name for name in MEASURES if name in table and table[name].notna().any()]


def error_bars(part: pd.DataFrame, name: str) -> NDArray[np.float64]:
    """Distances of an interval's ends from its value, shape (2, rows), as matplotlib's error bars want them."""
    # A rate of 1 and the upper end of its interval may differ in the last digit.
    ends: NDArray[np.float64] = np.abs(
        np.stack([part[name] - part[f"{name}_low"], part[f"{name}_high"] - part[name]])
    )
    return ends


def titled(figure: Figure, part: pd.DataFrame, finding: str) -> None:
    """Says above the panels what is found, and what the data set and preset of the networks are about."""
    first = part.iloc[0]
    figure.suptitle(f"{finding} ({setting(first['data'], first['preset'])})")


def structure_legend(figure: Figure, part: pd.DataFrame, *others: Line2D, ncols: int = 4, **look: Any) -> None:
    """The legend below the panels: the colour of every structure in ``part``, and other entries."""
    colours = [Line2D([], [], color=COLOURS[name], lw=3, label=NAMES[name]) for name in structures(part)]
    handles = [*colours, *others]
    legend_below(figure, handles, [str(handle.get_label()) for handle in handles], ncols, **look)
