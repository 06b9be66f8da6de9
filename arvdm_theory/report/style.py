"""One style for every figure, and the one way to save them."""

from __future__ import annotations

import inspect
import shutil
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text
from numpy.typing import ArrayLike, NDArray

from arvdm_theory.files import FIGURE_SUFFIXES, atomic_path, read_json
from arvdm_theory.provenance import uncommitted
from arvdm_theory.tables import read_table

__all__ = [
    "FRONT_KEY",
    "TERM_COLOURS",
    "TERM_NAMES",
    "WIDTHS",
    "Figures",
    "caption",
    "compose",
    "draw_all",
    "front",
    "legend_below",
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
    "cross": "#882255",
    "mb": "#d55e00",
}
"""Colours of the error terms, told apart by colour-blind readers too: Okabe and Ito's, and Tol's wine."""

TERM_NAMES: dict[str, str] = {
    "ie": "first input (IE)",
    "nie_ar": "noise initialisation (NIE)",
    "de": "discretisation (DE)",
    "see": "score estimation (SEE)",
    "cross": "cross term",
    "mb": "memory bottleneck (MB)",
}


WIDTHS = {"paper": 5.5, "talk": 10.0}
"""Kinds of figures, and how wide each is in inches if nothing else is said: a column of text, a slide."""

_SIZES = {"paper": 8.0, "talk": 14.0}
# Titles and labels of axes are a point larger than ticks and legends.
_LARGER = 1.125


@contextmanager
def style(kind: str = "paper", width: float | None = None) -> Iterator[None]:
    """The project's look, undone at the end of the block.

    Args:
        kind: of :data:`WIDTHS`: text of 8 to 9 points for print, of 14 to 16 for slides.
        width: of the figures that are saved within the block, in inches; the kind's own if left out.

    Raises:
        ValueError: for another kind, or a width that is not between 2 and 40.
    """
    if kind not in WIDTHS:
        raise ValueError(f"a figure's style is one of {', '.join(WIDTHS)}, got {kind!r}")
    inches = WIDTHS[kind] if width is None else float(width)
    if not 2 <= inches <= 40:
        raise ValueError(f"a figure is 2 to 40 inches wide, got {width}")
    size = _SIZES[kind]
    part = size / 10
    with (
        sns.axes_style("ticks", {"axes.grid": True, "grid.color": "0.92"}),
        mpl.rc_context(
            {
                "figure.figsize": (inches, 0.62 * inches),
                "figure.dpi": 110,
                "savefig.dpi": 220 if kind == "paper" else 140,
                "font.family": "DejaVu Sans",  # comes with Matplotlib, and has the Greek and mathematics of labels
                "font.size": size,
                "axes.titlesize": size * _LARGER,
                "axes.labelsize": size * _LARGER,
                "figure.titlesize": size * _LARGER,
                "figure.labelsize": size * _LARGER,
                "xtick.labelsize": size,
                "ytick.labelsize": size,
                "legend.fontsize": size,
                "legend.title_fontsize": size,
                "legend.frameon": False,
                "legend.handlelength": 1.8,
                "legend.columnspacing": 1.2,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.linewidth": part,
                "lines.linewidth": 1.6 * part,
                "lines.markersize": 5 * part,
                "grid.linewidth": part,
                "figure.constrained_layout.use": True,
                # TrueType: text stays text, and journals take it.
                "pdf.fonttype": 42,
                "ps.fonttype": 42,
            }
        ),
    ):
        yield


def compose(figure: Figure) -> None:
    """Brings a figure to the style's width and sizes of text, and breaks what is longer than its panel.

    A figure is drawn at a size of its own. Made narrower, it becomes taller where its text, which does not shrink
    with it, leaves too little room for the panels.
    """
    width, (own, height) = mpl.rcParams["figure.figsize"][0], figure.get_size_inches()
    figure.draw_without_rendering()
    # Pictures have the height of their width.
    heights = [0.0 if panel.images else _inches(panel) * width / own for panel in figure.get_axes()]
    figure.set_size_inches(width, height * width / own)
    small = mpl.rcParams["font.size"]
    for text in figure.findobj(Text):
        text.set_fontsize(min(max(text.get_fontsize(), small), small * _LARGER))
    changed = True
    while changed:  # what is broken or grows moves the rest; nothing shrinks again, so it ends
        figure.draw_without_rendering()
        broken = [_break(text, room, across) for text, room, across in _bounded(figure)]
        if any(broken):
            figure.draw_without_rendering()
        lost = [wanted - _inches(panel) for panel, wanted in zip(figure.get_axes(), heights, strict=True)]
        rows = len({round(panel.get_position().y0, 2) for panel in figure.get_axes()})
        changed = max(lost, default=0.0) > 0.05
        if changed:
            figure.set_figheight(figure.get_figheight() + rows * max(lost))


def _bounded(figure: Figure) -> Iterator[tuple[Text, float, bool]]:
    """Titles and labels with the room that there is for each, and whether it is across."""
    for panel in figure.get_axes():
        box = panel.get_window_extent()
        yield panel.title, box.width, True
        yield panel.xaxis.label, box.width, True
        yield panel.yaxis.label, box.height, False
    for part in (figure, *figure.subfigs):
        title = getattr(part, "_suptitle", None)
        if title is not None:
            yield title, getattr(part, "bbox", figure.bbox).width, True


def _inches(panel: Axes) -> float:
    """A panel's height."""
    return float(panel.get_window_extent().height / panel.figure.dpi)


def _break(text: Text, room: float, across: bool) -> bool:
    """Breaks the lines of a text that are longer than the room for them; whether it did."""
    before = text.get_text()
    for _ in range(3):
        box = text.get_window_extent()
        long = box.width if across else box.height
        lines = text.get_text().split("\n")
        letters = max(map(len, lines))
        if long <= 1.04 * room or letters < 12:
            break
        most = max(int(letters * room / long), 10)
        parts = [textwrap.wrap(line, most, break_long_words=False) or [""] for line in lines]
        text.set_text("\n".join(part for line in parts for part in line))
    return text.get_text() != before


def legend_below(
    figure: Figure, handles: Sequence[Any], labels: Sequence[str], columns: int, note: str = "", **look: Any
) -> None:
    """A legend below all panels, of at most so many columns and no more than fit, under a note if there is one."""
    size = FontProperties(size=mpl.rcParams["legend.fontsize"]).get_size_in_points()
    inches, letter = mpl.rcParams["figure.figsize"][0], 0.55 * size / 72
    if note:
        most = int(inches / letter * 0.95)
        look |= {"title": "\n".join(textwrap.wrap(note, most)), "alignment": "left"}
    widest = max((len(label) for label in labels), default=1) * letter + 6 * letter
    fitting = max(int(0.98 * inches / widest), 1)
    figure.legend(handles, labels, loc="outside lower center", ncols=min(columns, fitting), **look)


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
    legend_below(figure, *panel.get_legend_handles_labels(), columns)


def front(panel: Axes, x: ArrayLike, y: ArrayLike) -> None:
    """The corner points of a Pareto front, in their order: ringed, and joined by dashed steps."""
    panel.step(x, y, where="post", color="black", lw=1.0, ls="--", zorder=5)
    panel.plot(x, y, "o", ms=10, mfc="none", mec="black", mew=0.8, zorder=5)


FRONT_KEY: dict[str, Any] = {"ls": "--", "color": "black", "marker": "o", "ms": 9, "mfc": "none"}
"""How a legend shows a front."""


def save(figure: Figure, path: Path) -> None:
    """Writes a figure atomically, as wide as the style says; the path's ending is its format.

    Raises:
        ValueError: if it is none of :data:`~arvdm_theory.files.FIGURE_SUFFIXES`.
    """
    if path.suffix.lower() not in FIGURE_SUFFIXES:
        raise ValueError(f"{path}: a figure's name ends in one of {', '.join(FIGURE_SUFFIXES)}")
    compose(figure)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, **_PLAIN.get(path.suffix.lower(), {}))


# Without the time of day: the same table gives the same file.
_PLAIN: dict[str, dict[str, Any]] = {
    ".pdf": {"metadata": {"CreationDate": None}},
    ".svg": {"metadata": {"Date": None}},
}


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


def draw_all(
    folder: Path,
    figures: Figures,
    place: Path | None = None,
    ending: str = "png",
    kind: str = "paper",
    width: float | None = None,
) -> list[Path]:
    """Draws every figure whose table lies in ``folder`` and returns their paths; a caption lies beside each.

    Args:
        folder: of the tables.
        figures: what to draw.
        place: where they go; ``folder/figures`` if left out.
        ending: the format, as a file's ending.
        kind, width: as in :func:`style`.

    Raises:
        ValueError: if there is no table to draw from, or one is not what a figure is drawn from.
    """
    target = folder / "figures" if place is None else place
    sources = {table: folder / f"{table}.csv" for table, _ in figures.values()}
    tables = {table: read_table(source) for table, source in sources.items() if source.exists()}
    drawn = []
    for name, (table, draw) in figures.items():
        if table not in tables:
            continue
        rows = tables[table]
        with style(kind, width):
            try:
                figure = draw(rows)
            except (AttributeError, LookupError, TypeError, ValueError) as error:
                raise ValueError(f"{sources[table]} is not a table that {name} is drawn from ({error})") from error
            target.mkdir(parents=True, exist_ok=True)
            save(figure, target / f"{name}.{ending}")
            plt.close(figure)
        with atomic_path(target / f"{name}.txt") as temporary:
            temporary.write_text(caption(draw, rows, sources[table]), encoding="utf-8")
        drawn.append(target / f"{name}.{ending}")
    if not drawn:
        names = sorted(path.name for path in sources.values())
        raise ValueError(f"{folder} holds none of the tables that figures are drawn from: {', '.join(names)}")
    return drawn


# -- captions -----------------------------------------------------------------------------------------

_MEASURED = {
    "video": "video", "law": "law", "data": "data", "preset": "preset", "method": "method", "plan": "plan",
    "family": "family", "task": "task", "case": "case", "window": "w", "stride": "Δ", "references": "references",
    "memory": "memory", "memory_frames": "remembered frames", "level": "ρ", "correlation": "φ",
    "score_error": "score error", "step": "reverse step", "spacing": "spacing", "floor": "δ", "horizon": "T",
    "reverse_steps": "M", "steps_a_frame": "reverse steps a frame", "ar_steps": "K", "ar_step": "AR steps",
    "k": "AR steps", "steps": "updates", "n": "n", "size": "n", "samples": "n", "replicates": "replicates",
    "queries": "queries", "episodes": "episodes", "clips": "clips", "seeds": "seeds", "seed": "seed",
    "device": "device",
}  # fmt: skip
"""Columns that say what was measured, and what a caption calls them."""

_MOST = 8


def caption(draw: Callable[[pd.DataFrame], Figure], table: pd.DataFrame, source: Path) -> str:
    """What a figure shows, in its function's words, and what was measured for it, as table and provenance say.

    Args:
        draw: the function that draws it; what its docstring says before the arguments.
        table: that it is drawn from.
        source: the table's file, beside which its provenance lies.
    """
    said = inspect.cleandoc(getattr(draw, "func", draw).__doc__ or "").split("\n\nArgs:")[0]
    shown = " ".join(said.split())
    facts = [f"{label}: {_values(table[name])}" for name, label in _MEASURED.items() if name in table]
    origin = source.with_suffix("").with_suffix(".provenance.json")
    if origin.exists():
        told = read_json(origin)
        used = told.get("versions") or {}
        facts += ["seed: " + str(told["seed"])] if "seed" in told and "seed" not in table else []
        facts += [f"commit {str(told['commit'])[:12]}"] if told.get("commit") else []
        facts += [f"torch {used['torch']}"] if used.get("torch") else []
    return f"{shown}\n\nMeasured: {'; '.join(facts)}. Table: {source.name}, {len(table)} rows.\n"


def _values(column: pd.Series) -> str:
    """The different values of a column, or their ends where they are many."""
    values = column.dropna().unique().tolist()
    if column.dtype.kind in "ifu":
        values = sorted(values)
        if len(values) > _MOST:
            return f"{values[0]:g} to {values[-1]:g} ({len(values)} values)"
        return ", ".join(f"{value:g}" for value in values)
    shown = [" ".join(str(value).split()) for value in values[:_MOST]]
    return ", ".join(shown) + (f" and {len(values) - _MOST} more" if len(values) > _MOST else "")
