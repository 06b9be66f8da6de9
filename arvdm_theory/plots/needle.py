"""The needle figure: memory bottleneck and best retrieval rate against memory length."""

from __future__ import annotations

from pathlib import Path

import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from arvdm_theory.files import atomic_path
from arvdm_theory.studies.needle import NeedleConfig, NeedleResult

__all__ = ["draw_needle"]

_PLAYED = {"fmt": "o", "ms": 5, "mfc": "white", "mew": 1.3, "elinewidth": 1.3, "capsize": 2.5, "zorder": 4}


def draw_needle(result: NeedleResult, path: str | Path) -> None:
    """Draws the study into a picture file: sample frames above, the two curves below.

    Lines are exact, circles are played games with 95 % error bars, and the shaded band is what the two
    inequalities between memory bottleneck and retrieval leave open for whole frames.

    Raises:
        OSError: if the file cannot be written.
    """
    with sns.axes_style("whitegrid", {"grid.color": "0.92", "axes.edgecolor": "0.6"}):
        figure = Figure(figsize=(9.6, 5.2), dpi=150, layout="constrained")
        strip, curves = figure.subfigures(2, 1, height_ratios=(1, 3.4))
        _pictures(strip, result)
        left, right = curves.subplots(1, 2)
        _bottleneck(left, result)
        _rates(right, result)
        longest = max(result.config.memory)
        for axes in (left, right):
            axes.set_xlabel("memory length m (last m frames)")
            axes.set_xlim(-0.02 * max(longest, 1), 1.02 * max(longest, 1))
            axes.xaxis.get_major_locator().set_params(integer=True)
            sns.despine(ax=axes)
    with atomic_path(path) as temporary:
        figure.savefig(temporary)


def _pictures(strip: Figure, result: NeedleResult) -> None:
    strip.suptitle(_title(result.config), fontsize=11)
    cells = strip.subplots(1, len(result.pictures), squeeze=False)[0]
    for frame, (axes, picture) in enumerate(zip(cells, result.pictures, strict=True)):
        axes.imshow(picture.clip(0, 1), interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_xlabel(f"{frame + 1}", fontsize=8, labelpad=2)


def _title(config: NeedleConfig) -> str:
    way = "random walk" if config.path == "random" else "tour"
    step = "1 frame" if config.window == 1 else f"{config.window} frames"
    return (
        f"A {way} on a {config.world} of {config.cells} cells in {config.colours} colours: "
        f"{config.frames} frames, {step} an AR step"
    )


def _bottleneck(axes: Axes, result: NeedleResult) -> None:
    colour = sns.color_palette("colorblind")[0]
    table = result.table
    axes.plot(table["memory"], table["mb_per_step"], color=colour, lw=1.8, label="exact")
    _points(axes, result, "mb_per_step", colour, "played (95 %)")
    axes.set_ylabel("memory bottleneck per AR step (nats)")
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    axes.set_title("What no generator can avoid", fontsize=10)
    axes.legend(frameon=False, fontsize=9)


def _rates(axes: Axes, result: NeedleResult) -> None:
    table, colours = result.table, sns.color_palette("colorblind")
    one_cell = result.config.view == "patch"
    if table["frame_rate"].notna().any():
        axes.fill_between(table["memory"], table["frame_rate_low"], table["frame_rate_high"], color=colours[2],
                          alpha=0.15, lw=0, label="allowed by the bottleneck (Fano, Jensen)")  # fmt: skip
    axes.plot(table["memory"], table["frame_rate"], color=colours[2], lw=1.8,
              label="a seen cell, exact" if one_cell else "whole frame, exact")  # fmt: skip
    _points(axes, result, "frame_rate", colours[2])
    if not one_cell:
        axes.plot(table["memory"], table["cell_rate"], color=colours[1], lw=1.8, ls="--",
                  label="a seen cell, exact")  # fmt: skip
        _points(axes, result, "cell_rate", colours[1])
    axes.set_ylim(0, 1.03)
    best = "best generator" if result.config.guess == "best" else "ideal sampler"
    axes.set_ylabel(f"retrieval rate of the {best}")
    axes.set_title("What it can still bring back", fontsize=10)
    axes.legend(frameon=False, fontsize=9, loc="lower right")


def _points(axes: Axes, result: NeedleResult, column: str, colour: object, label: str | None = None) -> None:
    if f"played_{column}" not in result.table:
        return
    rows = result.asked
    axes.errorbar(rows["memory"], rows[f"played_{column}"], yerr=1.96 * rows[f"played_{column}_error"],
                  color=colour, label=label, clip_on=False, **_PLAYED)  # fmt: skip
