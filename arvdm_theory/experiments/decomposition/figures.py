"""Figure of the decomposition of trained networks: stacked terms beside what their rollouts are measured to be."""

from __future__ import annotations

from collections.abc import Callable

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from arvdm_theory.report.style import TERM_COLOURS, TERM_NAMES, Figures, legend_below, stack

__all__ = ["FIGURES", "decomposition", "excess"]

_WIDTH = 0.36
_NAMES = {**TERM_NAMES, "ie": "first input (bound of IE)"}


def decomposition(table: pd.DataFrame) -> Figure:
    """A column a video, a row a method: the trained network's terms and, paler, the exact score's."""

    def draw(panel: Axes, place: int, rows: dict[str, pd.DataFrame]) -> None:
        for source, shift in (("trained", -_WIDTH / 2 - 0.02), ("exact", _WIDTH / 2 + 0.02)):
            _bar(panel, place + shift, rows[source], source == "trained")

    figure = _panels(table, draw)
    trained = table[table.source == "trained"]
    wide = trained.pivot_table(index=["video", "method", "steps_a_frame"], columns="quantity", values="value")
    times = (wide.path_kl / wide.kl)[wide.kl > 0]
    figure.suptitle(
        f"Of networks the sum of terms is {times.min():.1f} to {times.max():.0f} times the KL that is measured"
    )
    grey = "#595959"
    own: dict[str, Artist] = {
        "left: trained network": Rectangle((0, 0), 1, 1, color=grey),
        "right, pale: exact score": Rectangle((0, 0), 1, 1, color="#bdbdbd"),
        "sum of terms (path KL)": Line2D([], [], color="black", marker="_", linestyle="", markersize=11),
        "KL of all clean frames, measured": Line2D(
            [], [], color="black", marker="o", linestyle="", markersize=4.5
        ),
        "the same of the exact score": Line2D(
            [], [], color="black", marker="o", linestyle="", markersize=4.5, markerfacecolor="white"
        ),
    }
    _legend(figure, {_NAMES[term]: colour for term, colour in TERM_COLOURS.items()}, own)
    return figure


def excess(table: pd.DataFrame) -> Figure:
    """What training leaves: how far path KL and measured KL of the network are above those of the exact score.

    Only the totals are ordered. Score errors add up coherently with the discretisation's in the law of the frames,
    and cancel or not there as they please: an excess KL may lie above the excess path KL.
    """

    def draw(panel: Axes, place: int, rows: dict[str, pd.DataFrame]) -> None:
        trained, exact = rows["trained"], rows["exact"]
        above = {term: trained.value[term] - exact.value[term] for term in ("ie", "see", "cross")}
        stack(panel, place - _WIDTH / 2, above, _WIDTH, linewidth=0.4)
        panel.errorbar(
            place + _WIDTH / 2, float(trained.value["kl"] - exact.value["kl"]),
            2 * float((trained.stderr["kl"] ** 2 + exact.stderr["kl"] ** 2) ** 0.5), fmt="o", color="black",
            markersize=4.5, capsize=2, elinewidth=0.8,
        )  # fmt: skip

    figure = _panels(table, draw)
    figure.suptitle("What training leaves: the excess of terms, and of the measured KL")
    names = {"excess of the first input's bound": "ie", _NAMES["see"]: "see", _NAMES["cross"]: "cross"}
    own: dict[str, Artist] = {
        "excess KL of all clean frames, measured (± 2 standard errors)": Line2D(
            [], [], color="black", marker="o", linestyle="", markersize=4.5
        )
    }
    _legend(figure, {name: TERM_COLOURS[term] for name, term in names.items()}, own)
    return figure


def _panels(table: pd.DataFrame, draw: Callable[[Axes, int, dict[str, pd.DataFrame]], None]) -> Figure:
    """A column of panels a video, one a method; ``draw`` fills the place of a number of steps in one of them."""
    videos, methods = list(table.video.unique()), list(table.method.unique())
    figure, axes = plt.subplots(
        len(methods), len(videos), figsize=(4.0 * len(videos), 2.3 * len(methods) + 1.1), sharey="col",
        squeeze=False,
    )  # fmt: skip
    for column, video in zip(axes.T, videos, strict=True):
        for panel, method in zip(column, methods, strict=True):
            part = table[(table.video == video) & (table.method == method)]
            steps = sorted(part.steps_a_frame.unique())
            for place, number in enumerate(steps):
                own = part[part.steps_a_frame == number]
                draw(panel, place, {str(name): rows.set_index("quantity") for name, rows in own.groupby("source")})
            panel.axhline(0.0, color="0.3", linewidth=0.8)
            panel.set_xticks(range(len(steps)), [f"{number:g}" for number in steps])
            panel.grid(axis="x", visible=False)
            panel.set_title(f"{video}, {_frames(part)} frames: {method}")
            panel.margins(y=0.08)
    for panel in axes[:, 0]:
        panel.set_ylabel("nats")
    for panel in axes[-1]:
        panel.set_xlabel("reverse steps a frame")
    return figure


def _bar(panel: Axes, at: float, rows: pd.DataFrame, trained: bool) -> None:
    """One stack, negative terms downwards, with its sum and the KL that was measured."""
    terms = {term: rows.value[term] for term in TERM_COLOURS}
    stack(panel, at, terms, _WIDTH, linewidth=0.4, pale=not trained)
    total, error = float(rows.value["path_kl"]), float(rows.stderr["path_kl"])
    panel.errorbar(at, total, 2 * error, fmt="_", color="black", markersize=11, capsize=2, elinewidth=0.8)
    panel.errorbar(
        at, float(rows.value["kl"]), 2 * float(rows.stderr["kl"]), fmt="o", color="black", markersize=4.5,
        markerfacecolor="black" if trained else "white", capsize=2, elinewidth=0.8, zorder=5,
    )  # fmt: skip


def _frames(part: pd.DataFrame) -> int:
    """Clean frames that were generated: FIFO puts out one an AR step, outpainting two and two at first."""
    steps = int(part.ar_steps.iloc[0])
    return steps if str(part.method.iloc[0]).startswith("FIFO") else 2 * (steps + 1)


def _legend(figure: Figure, colours: dict[str, str], own: dict[str, Artist]) -> None:
    """Filled boxes for terms, then a figure's own handles."""
    boxes: dict[str, Artist] = {name: Rectangle((0, 0), 1, 1, color=colour) for name, colour in colours.items()}
    shown = boxes | own
    legend_below(figure, list(shown.values()), list(shown), 4)


FIGURES: Figures = {
    "decomposition-trained": ("decomposition", decomposition),
    "decomposition-excess": ("decomposition", excess),
}
