"""Figures of what is retrieved from a shorter or a compressed memory."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from arvdm_theory.experiments.video.families_figure import (
    COLOURS,
    MEASURES,
    NothingToDraw,
    alike,
    error_bars,
    main_setting,
    measures,
    structure_legend,
    structures,
    titled,
)
from arvdm_theory.video.retrieval import SOURCES

__all__ = ["COMPRESSIONS", "LINES", "compression", "length"]

COMPRESSIONS = {"spatial": "places merged", "temporal": "frames merged", "tokens": "learned tokens"}
"""What becomes one in a compressed memory."""

LINES: dict[str, dict[str, Any]] = {
    "spatial": {"ls": "--", "marker": "s"},
    "temporal": {"ls": ":", "marker": "^"},
    "tokens": {"ls": "-.", "marker": "D"},
}
"""How the kinds of compression are drawn."""


def length(table: pd.DataFrame) -> Figure:
    """Retrieval rate and PSNR against the number of remembered frames, with their 95 % intervals.

    The network without memory stands at 0. A point is a network; lines go through the means of seeds, for
    structures of more than one length.

    Args:
        table: ``video`` of :func:`arvdm_theory.experiments.video.run.sweep`; of the data set and preset with most
            networks.

    Raises:
        NothingToDraw: if memories of one length only are there.
    """
    part = _trained_alike(_own(alike(main_setting(table), "memory_frames", "steps")), "memory_frames")
    if part.loc[part["memory"] != "none", "memory_frames"].nunique() < 2:
        raise NothingToDraw("networks that remember more or fewer frames are missing")
    figure, axes = _panels(part, "More remembered frames, more retrieved")
    memories = [memory for memory in structures(part) if memory != "none"]
    # What remembers nothing is where every structure starts.
    start = part[part["memory"] == "none"]
    for panel, name in axes:
        for number, memory in enumerate(memories):
            group, spread = part[part["memory"] == memory], 0.12 * (number - (len(memories) - 1) / 2)
            _points(panel, group["memory_frames"] + spread, group, name, COLOURS[memory], "o")
            if group["memory_frames"].nunique() > 1:
                line = pd.concat([start, group]).groupby("memory_frames")[name].mean()
                where = np.where(line.index == 0, 0.0, line.index + spread)
                panel.plot(where, line, color=COLOURS[memory], lw=1.2)
        _points(panel, start["memory_frames"], start, name, COLOURS["none"], "o")
        panel.set_xticks(sorted(part["memory_frames"].unique()))
        panel.set_xlabel("remembered frames M")
    structure_legend(figure, part)
    return figure


def compression(table: pd.DataFrame) -> Figure:
    """Retrieval rate and PSNR against the factor by which the memory is compressed, with their 95 % intervals.

    1 is no compression. A point is a network; a line of a structure and a kind of compression starts at the mean
    of its seeds without any. The grey line is the mean without memory.

    Args:
        table: ``video`` of :func:`arvdm_theory.experiments.video.run.sweep`; of the data set and preset with most
            networks.

    Raises:
        NothingToDraw: if no memory is compressed, or none of the same structure is not.
    """
    part = _trained_alike(_own(alike(main_setting(table), "compress", "steps")), "compression", "compress")
    remembered = part[part["memory"] != "none"]
    if not (remembered.groupby("memory")["compress"].nunique() > 1).any():
        raise NothingToDraw("networks with and without a compressed memory are missing")
    figure, axes = _panels(part, "What is compressed is retrieved less")
    memories = structures(remembered)
    pairs = [(memory, kind) for memory in memories for kind in COMPRESSIONS]
    for panel, name in axes:
        for number, (memory, kind) in enumerate(pairs):
            group = remembered[remembered["memory"] == memory]
            whole, packed = group[group["compress"] == 1], group[group["compress"] > 1]
            packed = packed[packed["compression"] == kind]
            if packed.empty:
                continue
            # Side by side, on an axis that is a logarithm.
            spread = 2 ** (0.05 * (number - (len(pairs) - 1) / 2))
            _points(panel, packed["compress"] * spread, packed, name, COLOURS[memory], LINES[kind]["marker"])
            line = pd.concat([whole, packed]).groupby("compress")[name].mean()
            where = np.where(line.index == 1, 1.0, line.index * spread)
            panel.plot(where, line, color=COLOURS[memory], lw=1.2, ls=LINES[kind]["ls"])
        for number, memory in enumerate(memories):
            whole = remembered[(remembered["memory"] == memory) & (remembered["compress"] == 1)]
            spread = 2 ** (0.06 * (number - (len(memories) - 1) / 2))
            _points(panel, whole["compress"] * spread, whole, name, COLOURS[memory], "o")
        without = part.loc[part["memory"] == "none", name]
        if len(without):
            panel.axhline(float(without.mean()), color=COLOURS["none"], lw=1.2)
        factors = sorted(part["compress"].unique())
        panel.set_xscale("log", base=2)
        panel.set_xticks(factors, [str(factor) for factor in factors])
        panel.xaxis.set_minor_locator(NullLocator())
        panel.set_xlabel("compression of the memory, so many to 1")
    kinds = [kind for kind in COMPRESSIONS if kind in set(part.loc[part["compress"] > 1, "compression"])]
    handles = [Line2D([], [], color="0.35", lw=1.2, ms=5, label=COMPRESSIONS[k], **LINES[k]) for k in kinds]
    structure_legend(figure, part, *handles, handlelength=3.0)
    return figure


def _trained_alike(table: pd.DataFrame, *varied: str) -> pd.DataFrame:
    """Networks of as many updates: of the number that has most variants, the largest of several."""
    kinds = table.drop_duplicates(["steps", "memory", *varied])["steps"].value_counts()
    part: pd.DataFrame = table[table["steps"] == kinds.index[kinds == kinds.max()].max()]
    return part


def _own(table: pd.DataFrame) -> pd.DataFrame:
    return table[(table["source"] == SOURCES[0]) & (table["ahead"] == 0)]


def _panels(part: pd.DataFrame, finding: str) -> tuple[Figure, list[tuple[Axes, str]]]:
    shown = [name for name in measures(part) if name != "ssim"]
    figure, axes = plt.subplots(1, len(shown), figsize=(4.8 * len(shown), 4.4), squeeze=False)
    for panel, name in zip(axes[0], shown, strict=True):
        panel.set_ylabel(MEASURES[name])
    if "rate" in shown:
        axes[0, 0].set_ylim(-0.03, 1.05)
    titled(figure, part, finding)
    return figure, list(zip(axes[0], shown, strict=True))


def _points(panel: Axes, where: pd.Series[float], part: pd.DataFrame, name: str, colour: str, marker: str) -> None:
    panel.errorbar(
        where, part[name], error_bars(part, name), fmt=marker, color=colour, capsize=2, ms=5, elinewidth=1.0,
    )  # fmt: skip
