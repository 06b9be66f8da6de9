"""Film strips: the truth over what each network made of it."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from arvdm_theory.experiments.video.families_figure import NAMES
from arvdm_theory.experiments.video.run import decode_picture
from arvdm_theory.report.style import Figures

__all__ = ["FILM", "film_rows", "film_strips"]

# Each pair of a query and its needle has one; Okabe and Ito's palette.
_PAIRS = ("#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#d55e00", "#0072b2", "#f0e442")


def film_rows(table: pd.DataFrame) -> list[str]:
    """The truth and the structures that a film table shows, in the order of their rows."""
    return ["truth", *(name for name in NAMES if name in set(table["source"]))]


def film_strips(table: pd.DataFrame) -> Figure:
    """Truth over what each network made of it, frame by frame.

    A query and the needle, the given frame that shows what it asks for, are framed in one colour; what is
    generated stands behind the dotted line. Of the given frames needles and the last two are shown.
    """
    windows, sources = list(table["window"].unique()), film_rows(table)
    frames = max(len(_kept(table[table["window"] == window])) for window in windows)
    rows = len(windows) * len(sources)
    figure, axes = plt.subplots(
        len(windows), 1, figsize=(0.62 * frames + 1.3, 0.62 * rows + 0.35 * len(windows)), squeeze=False
    )
    for panel, window in zip(axes[:, 0], windows, strict=True):
        part = table[table["window"] == window]
        _strip(panel, part, film_rows(part))
    return figure


def _kept(part: pd.DataFrame) -> list[int]:
    """Frames of a window that are shown: needles, the last two given ones, and what is generated."""
    truth = part[part["source"] == "truth"]
    given = int((truth["role"] == "given").sum())
    needles = truth.loc[truth["role"] == "query", "needle"].astype(int)
    generated = truth.loc[truth["frame"] >= given, "frame"].astype(int)
    return sorted({*needles, *generated, *range(max(given - 2, 0), given)} - {-1})


def _strip(panel: Axes, part: pd.DataFrame, sources: list[str]) -> None:
    height, width, channels = (int(side) for side in str(part["shape"].iloc[0]).split("x"))
    place, gap = {frame: number for number, frame in enumerate(_kept(part))}, max(width // 8, 2)
    frames = len(place)
    sheet = np.full((len(sources) * (height + gap) - gap, frames * (width + gap) - gap, channels), 255, np.uint8)
    truth = part[part["source"] == "truth"].set_index("frame")
    queries = truth.index[truth["role"] == "query"].tolist()
    given = int((truth["role"] == "given").sum())
    colours = {frame: _PAIRS[i % len(_PAIRS)] for i, frame in enumerate(queries)}
    boxes: list[tuple[int, int, str]] = []
    for row, source in enumerate(sources):
        top = row * (height + gap)
        for shown in part[(part["source"] == source) & part["frame"].isin(list(place))].itertuples():
            left = place[int(shown.frame)] * (width + gap)  # type: ignore[arg-type]
            picture = decode_picture(str(shown.pixels), str(shown.shape))
            sheet[top : top + height, left : left + width] = picture
            if shown.frame in colours:
                boxes.append((top, left, colours[int(shown.frame)]))  # type: ignore[arg-type]
        if source == "truth":
            for frame in queries:
                needle = int(truth.loc[frame, "needle"])
                boxes.append((top, place[needle] * (width + gap), colours[frame]))
    panel.imshow(sheet, interpolation="nearest")
    for top, left, colour in boxes:
        edge = gap / 4
        corner, sides = (left - 0.5 - edge, top - 0.5 - edge), (width + 2 * edge, height + 2 * edge)
        panel.add_patch(Rectangle(corner, *sides, fill=False, ec=colour, lw=2.0, clip_on=False))
    panel.axvline(place[given] * (width + gap) - gap / 2 - 0.5, color="black", lw=1.2, ls=":")
    panel.set_yticks(
        [row * (height + gap) + height / 2 for row in range(len(sources))],
        [NAMES.get(name, name) for name in sources],
    )  # fmt: skip
    middles = [number * (width + gap) + width / 2 for number in range(frames)]
    panel.set_xticks(middles, [str(frame) for frame in place])
    panel.tick_params(length=0)
    panel.grid(False)
    for spine in panel.spines.values():
        spine.set_visible(False)


FILM: Figures = {"film-strips": ("film", film_strips)}
"""The figure of one network's samples."""
