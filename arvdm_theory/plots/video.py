"""Figures of networks on first-person video: retrieval against memory structure, and film strips."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from arvdm_theory.studies.video import decode_picture

__all__ = ["FIGURES", "FILM", "film_strips", "retrieval"]

_COLOURS = {"none": "#7f7f7f", "concat": "#e69f00", "prepend": "#0072b2", "cross": "#009e73"}
_NAMES = {
    "none": "no memory",
    "concat": "concatenated\nchannels",
    "prepend": "prepended\nframes",
    "cross": "cross\nattention",
}
# Each pair of a query and its needle has one; Okabe and Ito's palette.
_PAIRS = ("#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#d55e00", "#0072b2", "#f0e442")


def retrieval(table: pd.DataFrame) -> Figure:
    """Retrieval rate, PSNR and SSIM of every structure with their 95 % intervals, beside the two references.

    The last panel shows the rate of each generated frame: views near the last given one share pixels with it.
    """
    places, table = table, table[table["ahead"] == 0]
    measures = [name for name in ("rate", "psnr", "ssim") if name in table]
    labels = {"rate": "retrieval rate", "psnr": "PSNR (dB)", "ssim": "SSIM"}
    panels = len(measures) + ("rate" in table)
    figure, axes = plt.subplots(1, panels, figsize=(3.4 * panels, 4.0), squeeze=False)
    structures = [name for name in _NAMES if name in set(table["memory"])]
    for panel, name in zip(axes[0], measures, strict=False):
        own = table[table["source"] == "generated"]
        for place, structure in enumerate(structures):
            group = own[own["memory"] == structure]
            spread = 0.12 * (np.arange(len(group)) - (len(group) - 1) / 2)
            low, high = group[name] - group[f"{name}_low"], group[f"{name}_high"] - group[name]
            panel.errorbar(
                place + spread, group[name], np.abs(np.stack([low, high])), fmt="o", color=_COLOURS[structure],
                capsize=3, ms=6,
            )  # fmt: skip
        _references(panel, table, name)
        panel.set_xticks(range(len(structures)), [_NAMES[structure] for structure in structures], fontsize=8)
        panel.set_xlim(-0.6, len(structures) - 0.4)
        panel.set(ylabel=labels[name])
        if name == "rate":
            panel.set_ylim(-0.03, 1.05)
    if "rate" in table:
        _by_place(axes[0, -1], places[places["ahead"] > 0], structures)
    handles, names = axes[0, 0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, names, loc="outside lower center", ncols=3)
    return figure


def _by_place(panel: Axes, table: pd.DataFrame, structures: list[str]) -> None:
    own = table[table["source"] == "generated"]
    for number, structure in enumerate(structures):
        # Of several seeds the mean rate; the interval is that of the first.
        group = own[own["memory"] == structure].groupby("ahead")
        rate, low, high = group["rate"].mean(), group["rate_low"].first(), group["rate_high"].first()
        spread = 0.06 * (number - (len(structures) - 1) / 2)
        panel.errorbar(
            rate.index + spread, rate, np.abs(np.stack([rate - low, high - rate])), fmt="o-", ms=4, lw=1.2,
            capsize=2, color=_COLOURS[structure],
        )  # fmt: skip
    panel.axhline(float(own["chance"].mean()), ls="-.", color="#d55e00", lw=1.2)
    panel.set_xticks(sorted(own["ahead"].unique()))
    panel.set(xlabel="frames after the last given one", ylabel="retrieval rate", ylim=(-0.03, 1.05))


def _references(panel: Axes, table: pd.DataFrame, name: str) -> None:
    first = table[table["network"] == table["network"].iloc[0]]
    styles = {"copy of the right memory frame": "--", "copy of the last frame": ":"}
    for source, dash in styles.items():
        value = first.loc[first["source"] == source, name]
        # An exact copy has an infinite PSNR, which no axis shows.
        if len(value):
            shown = float(value.iloc[0]) if np.isfinite(value.iloc[0]) else np.nan
            panel.axhline(shown, ls=dash, color="0.35", lw=1.2, label=source)
    if name == "rate" and "chance" in first:
        panel.axhline(float(first["chance"].iloc[0]), ls="-.", color="#d55e00", lw=1.2, label="chance")


def film_strips(table: pd.DataFrame) -> Figure:
    """Truth over what each network made of it, frame by frame.

    A query and the needle, the given frame that shows what it asks for, are framed in one colour; what is
    generated stands behind the dotted line.
    """
    windows = list(table["window"].unique())
    sources = ["truth", *(name for name in _NAMES if name in set(table["source"]))]
    frames = int(table["frame"].max()) + 1
    rows = len(windows) * len(sources)
    figure, axes = plt.subplots(
        len(windows), 1, figsize=(0.62 * frames + 1.3, 0.62 * rows + 0.35 * len(windows)), squeeze=False
    )
    for panel, window in zip(axes[:, 0], windows, strict=True):
        part = table[table["window"] == window]
        _strip(panel, part, [name for name in sources if name in set(part["source"])])
    return figure


def _strip(panel: Axes, part: pd.DataFrame, sources: list[str]) -> None:
    height, width, channels = (int(side) for side in str(part["shape"].iloc[0]).split("x"))
    frames, gap = int(part["frame"].max()) + 1, max(width // 8, 2)
    sheet = np.full((len(sources) * (height + gap) - gap, frames * (width + gap) - gap, channels), 255, np.uint8)
    truth = part[part["source"] == "truth"].set_index("frame")
    queries = truth.index[truth["role"] == "query"].tolist()
    given = int((truth["role"] == "given").sum())
    colours = {frame: _PAIRS[i % len(_PAIRS)] for i, frame in enumerate(queries)}
    boxes: list[tuple[int, int, str]] = []
    for row, source in enumerate(sources):
        top = row * (height + gap)
        for shown in part[part["source"] == source].itertuples():
            left = int(shown.frame) * (width + gap)  # type: ignore[arg-type]
            picture = decode_picture(str(shown.pixels), str(shown.shape))
            sheet[top : top + height, left : left + width] = picture
            if shown.frame in colours:
                boxes.append((top, left, colours[int(shown.frame)]))  # type: ignore[arg-type]
        if source == "truth":
            for frame in queries:
                needle = int(truth.loc[frame, "needle"])
                boxes.append((top, needle * (width + gap), colours[frame]))
    panel.imshow(sheet, interpolation="nearest")
    for top, left, colour in boxes:
        edge = gap / 4
        corner, sides = (left - 0.5 - edge, top - 0.5 - edge), (width + 2 * edge, height + 2 * edge)
        panel.add_patch(Rectangle(corner, *sides, fill=False, ec=colour, lw=2.0, clip_on=False))
    panel.axvline(given * (width + gap) - gap / 2 - 0.5, color="black", lw=1.2, ls=":")
    panel.set_yticks(
        [row * (height + gap) + height / 2 for row in range(len(sources))],
        [_NAMES.get(name, name).replace("\n", " ") for name in sources], fontsize=8,
    )  # fmt: skip
    middles = [frame * (width + gap) + width / 2 for frame in range(frames)]
    panel.set_xticks(middles, [str(frame) for frame in range(frames)], fontsize=7)
    panel.tick_params(length=0)
    panel.grid(False)
    for spine in panel.spines.values():
        spine.set_visible(False)


FILM = {"film-strips": ("film", film_strips)}
FIGURES = {"retrieval": ("video", retrieval), "film-strips": ("video-film", film_strips)}
