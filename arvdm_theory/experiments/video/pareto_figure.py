"""Figure of the trade between what a network remembers and how its rollouts decay."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from arvdm_theory.choose.front import pareto_front
from arvdm_theory.experiments.video.families_figure import (
    COLOURS,
    NothingToDraw,
    error_bars,
    main_setting,
    mode,
    structure_legend,
    titled,
)
from arvdm_theory.experiments.video.memory_figure import COMPRESSIONS
from arvdm_theory.report.style import FRONT_KEY, front

__all__ = ["VARIANTS", "pareto", "price", "variants"]

VARIANTS: dict[str, str] = {
    "usual": "o",
    "FIFO": "^",
    COMPRESSIONS["spatial"]: "s",
    COMPRESSIONS["temporal"]: "v",
    COMPRESSIONS["tokens"]: "D",
    "another architecture": "X",
    "actions told": "*",
    "shorter memory": "P",
}
"""What sets a network apart from the usual ones of its data set and preset, and its marker."""

_COSTS = {
    "cpu_ratio": "time a frame",
    "call_ratio": "time a training call",
    "peak_ratio": "peak memory",
}
_LABELS = {
    "rate": "1 - retrieval rate (less is better)",
    "nats": "memory (nats a frame; left is better)",
}


def pareto(table: pd.DataFrame) -> Figure:
    """Slope of a long rollout's PSNR against 1 - retrieval rate (left) and nats of the memory (right).

    Best is the upper left of both panels: the axis of the nats runs to the left. The bars are 95 % intervals,
    small marks networks of fewer updates. No network of the condition is better on both axes than one on the
    front.

    Args:
        table: ``video-summary`` of :func:`arvdm_theory.experiments.video.run.sweep`; of the data set and preset
            with most networks.

    Raises:
        NothingToDraw: if fewer than two networks have a slope and a rate, or nats.
    """
    part = main_setting(table[table["slope"].notna()])
    part = part.assign(variant=variants(part))
    shown = [name for name in _LABELS if name in part and part[[name, "slope"]].notna().all(axis=1).sum() > 1]
    if not shown:
        raise NothingToDraw("two networks whose memory and decay are both measured are missing")
    figure, axes = plt.subplots(1, len(shown), figsize=(5.4 * len(shown), 5.4), squeeze=False, sharey=True)
    for panel, name in zip(axes[0], shown, strict=True):
        _panel(panel, part, name)
    axes[0, 0].set_ylabel("slope of the PSNR\n(dB a frame; more is better)")
    titled(figure, part, "Decay of rollouts against what is remembered")
    structure_legend(figure, part, *_variant_handles(part), Line2D([], [], label="Pareto front", **FRONT_KEY))
    return figure


def price(table: pd.DataFrame) -> Figure:
    """Retrieval rate against the processor's time of a generated frame and of a training call, and peak memory.

    In units of the network without memory; best is the upper left. The bars are 95 % intervals; large marks are
    networks of most updates; "4:1" says that four places or frames are one. No network on the front is beaten in
    rate by one that costs less.

    Args:
        table: ``video-summary`` of :func:`arvdm_theory.experiments.video.run.sweep`; of the data set, preset and
            worlds in which the longest memory is compressed.

    Raises:
        NothingToDraw: if no memory is compressed.
    """
    packed = table[table["compress"] > 1]
    if packed.empty or "rate" not in table:
        raise NothingToDraw("networks with a compressed memory are missing")
    longest = packed.nlargest(1, "memory_frames")
    condition = longest[["data", "preset", "plan", "told", "worlds"]]
    part = table.merge(condition)
    part = part.assign(variant=variants(part))
    figure, axes = plt.subplots(1, len(_COSTS), figsize=(12.4, 4.6), squeeze=False, sharey=True)
    for panel, (name, label) in zip(axes[0], _COSTS.items(), strict=True):
        _marks(panel, part, part[name], part["rate"], error_bars(part, "rate"))
        packed = part[part["compress"] > 1].sort_values("steps")
        for _, row in packed.drop_duplicates(["memory", "compression", "compress"], keep="last").iterrows():
            kind, factor = row["compression"], row["compress"]
            place: dict[str, Any] = (
                {"xytext": (-7, 7), "ha": "right"} if kind == "spatial" else {"xytext": (7, -4)}
            )
            panel.annotate(
                f"{factor}:1", row[[name, "rate"]], textcoords="offset points", fontsize=8, zorder=6,
                path_effects=[withStroke(linewidth=3, foreground="white")], **place,
            )  # fmt: skip
        order = part.loc[pareto_front(part[[name, "rate"]].to_numpy() * [1, -1])].sort_values(name)
        front(panel, order[name], order["rate"])
        panel.set_xlabel(f"{label}\n(no memory: 1)")
    axes[0, 0].set(ylim=(-0.03, 1.05), ylabel="rate")
    titled(figure, part, "What a compressed memory retrieves, and what it costs")
    structure_legend(figure, part, *_variant_handles(part), Line2D([], [], label="Pareto front", **FRONT_KEY))
    return figure


def variants(table: pd.DataFrame) -> pd.Series[Any]:
    """By which of :data:`VARIANTS`, the first that fits, each network of one data set and preset is unusual."""
    longest = table.groupby("memory")["memory_frames"].transform("max")
    differs = [
        table["plan"] == "fifo",
        *((table["compress"] > 1) & (table["compression"] == kind) for kind in COMPRESSIONS),
        table["architecture"] != mode(table["architecture"]),
        table["told"] == "actions",
        table["memory_frames"] < longest,
    ]
    usual, *others = VARIANTS
    return pd.Series(np.select(differs, others, usual), index=table.index)


def _variant_handles(part: pd.DataFrame) -> list[Line2D]:
    shown = {variant: marker for variant, marker in VARIANTS.items() if variant in set(part["variant"])}
    return [Line2D([], [], ls="", marker=marker, color="0.35", label=name) for name, marker in shown.items()]


def _marks(
    panel: Axes, part: pd.DataFrame, x: pd.Series[float], y: pd.Series[float], heights: NDArray[np.float64],
    widths: NDArray[np.float64] | None = None,
) -> None:  # fmt: skip
    sizes = np.where(part["steps"] == part["steps"].max(), 7, 4)
    for i, (memory, variant, size) in enumerate(zip(part["memory"], part["variant"], sizes, strict=True)):
        panel.errorbar(
            x.iloc[[i]], y.iloc[[i]], heights[:, [i]], None if widths is None else widths[:, [i]],
            fmt=VARIANTS[variant], color=COLOURS[memory], ms=size, elinewidth=0.8, alpha=0.85,
        )  # fmt: skip


def _panel(panel: Axes, part: pd.DataFrame, name: str) -> None:
    values, ends = part[name], error_bars(part, name)
    if name == "rate":
        values, ends = 1 - values, ends[::-1]
    _marks(panel, part, values, part["slope"], error_bars(part, "slope"), ends)
    # From the most remembered on: what a network is better than lies to the right of it and below.
    order = part.loc[part[f"front_{name}"]].sort_values(name, ascending=False)
    x = values.loc[order.index]
    front(panel, x, order["slope"])
    panel.axhline(0, color="0.4", lw=0.8)
    panel.set_xlabel(_LABELS[name])
    if name == "nats":
        panel.invert_xaxis()
