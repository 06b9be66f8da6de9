"""Figures of the memory bottleneck against memory length, structure and compression."""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from arvdm_theory.report.style import Figures, shared_legend

__all__ = ["FIGURES", "memory_length", "memory_structure"]

# Quantity, its truth, its estimate, colour and marker.
_BOTTLENECK = ("mb", "closed form", "trained", "#d55e00", "o")
_EXCESS = ("excess_kl", "predicted", "measured", "#0072b2", "s")
# Nats, from which on a relative error says something.
_LARGE = 0.3
_NAMES = {
    "mb": ("memory bottleneck of the last AR step, closed form", "the same, I-MMSE of two trained networks"),
    "excess_kl": ("excess KL of the rollout, ideal kernels", "excess KL of the rollout, measured"),
}


def _rows(table: pd.DataFrame, quantity: str, source: str) -> pd.DataFrame:
    return table[(table.quantity == quantity) & (table.source == source)]


def memory_length(table: pd.DataFrame) -> Figure:
    """Bottleneck of the last AR step and excess KL of the rollout against memory length, a panel a video."""
    slots = table[table.structure == "slots"]
    videos = list(slots.video.unique())
    figure, axes = plt.subplots(1, len(videos), figsize=(2.9 * len(videos) + 0.6, 4.0), squeeze=False)
    for panel, video in zip(axes[0], videos, strict=True):
        part = slots[slots.video == video].sort_values("references")
        for quantity, truth, estimate, colour, marker in (_EXCESS, _BOTTLENECK):
            known, found = _rows(part, quantity, truth), _rows(part, quantity, estimate)
            names = _NAMES[quantity]
            panel.plot(
                known.references, known.value, "-" if len(known) > 1 else "_", color=colour, label=names[0], ms=14
            )
            panel.errorbar(
                found.references, found.value, 2 * found.stderr, fmt=marker, color=colour, mfc="white", ms=6,
                capsize=3, label=names[1],
            )  # fmt: skip
        exact = _rows(part, "mb", "exact scores")
        panel.errorbar(
            exact.references, exact.value, 2 * exact.stderr, fmt="x", color="black", ms=4, elinewidth=0.8,
            label="the same, I-MMSE of exact scores",
        )  # fmt: skip
        lengths = sorted(part.references.unique())
        panel.set(title=video, xlabel="references m")
        panel.set_xticks(lengths)
        panel.margins(x=0.15)
        panel.axhline(0, color="0.4", lw=0.8)
    axes[0, 0].set_ylabel("nats")
    figure.suptitle(_how_near(slots))
    shared_legend(figure, axes[0, 0], 2)
    return figure


def _how_near(slots: pd.DataFrame) -> str:
    """The largest relative error of what is not small."""
    known, found = (
        _rows(slots, "mb", source).set_index(["video", "references"]).value
        for source in ("closed form", "trained")
    )
    off = (found / known - 1)[known >= _LARGE].abs()
    if off.empty:
        return "The memory bottleneck, and what the losses of two networks differ by"
    most = math.ceil(100 * off.max())
    return f"The losses of two networks give a bottleneck of {_LARGE} nats or more to within {most} %"


def _memory_name(structure: str, compression: str, budget: int) -> str:
    if compression == "none":
        return structure
    how = {
        "spatial": f"channels / {budget}",
        "temporal": f"{budget} frames → 1",
        "tokens": f"{budget} token" + "s" * (budget > 1),
    }
    return f"{structure}\n{how[compression]}"


def memory_structure(table: pd.DataFrame) -> Figure:
    """What each memory wins over none: the loss gap and the fall of the rollout's KL, beside the truth."""
    part = table[table.structure != "slots"]
    videos = list(part.video.unique())
    figure, axes = plt.subplots(len(videos), 1, figsize=(7.6, 2.7 * len(videos) + 0.8), squeeze=False)
    for panel, video in zip(axes[:, 0], videos, strict=True):
        own = part[part.video == video]
        keys = list(
            own[["structure", "compression", "budget"]].drop_duplicates().itertuples(index=False, name=None)
        )
        place = {key: i for i, key in enumerate(keys)}
        for (quantity, truth, estimate, colour, _), side in ((_BOTTLENECK, -0.2), (_EXCESS, 0.2)):
            known, found = _rows(own, quantity, truth), _rows(own, quantity, estimate)
            at = [
                place[key] + side
                for key in found[["structure", "compression", "budget"]].itertuples(index=False, name=None)
            ]
            names = _NAMES[quantity]
            panel.axhline(known.value.iloc[0], color=colour, ls="--", lw=1.2, label=names[0])
            panel.bar(
                at, found.value, 0.36, yerr=2 * found.stderr, color=colour, alpha=0.75, capsize=3, label=names[1],
                error_kw={"ecolor": "0.2", "lw": 1},
            )  # fmt: skip
        panel.set(title=f"{video}: all the past against no memory", ylabel="nats")
        panel.set_xticks(list(place.values()), [_memory_name(*key) for key in keys])
        panel.axhline(0, color="0.4", lw=0.8)
        panel.grid(axis="x", visible=False)
    shared_legend(figure, axes[0, 0], 2)
    return figure


FIGURES: Figures = {"memory": ("memory", memory_length), "memory-structure": ("memory", memory_structure)}
