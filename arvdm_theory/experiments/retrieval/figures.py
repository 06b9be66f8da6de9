"""The needle figure: memory bottleneck and best retrieval rate against memory length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from arvdm_theory.experiments.retrieval.run import NeedleConfig, NeedleResult
from arvdm_theory.report.style import TERM_COLOURS, save, style

__all__ = ["draw_needle"]

_FRAME, _CELL = "#009e73", "#cc79a7"  # of the same palette as TERM_COLOURS
_PLAYED: dict[str, Any] = {"fmt": "o", "ms": 4, "mfc": "white", "mew": 1.3, "elinewidth": 1.3, "capsize": 2.5}


def draw_needle(result: NeedleResult, path: str | Path) -> None:
    """Draws the study into a picture file: sample frames above, the two curves below.

    Lines are exact, circles are played games with 95 % error bars, and the shaded band is what the two
    inequalities between memory bottleneck and retrieval leave open for whole frames.

    Raises:
        OSError: if the file cannot be written.
    """
    with style():
        figure = Figure(figsize=(9.6, 5.2))
        strip, curves = figure.subfigures(2, 1, height_ratios=(1, 3.4), squeeze=False)[:, 0]
        _pictures(strip, result)
        left, right = curves.subplots(1, 2)
        _bottleneck(left, result)
        _rates(right, result)
        longest = max(result.config.memory)
        for axes in (left, right):
            axes.set_xlabel("memory length m (last m frames)")
            axes.set_xlim(-0.02 * max(longest, 1), 1.02 * max(longest, 1))
            axes.xaxis.get_major_locator().set_params(integer=True)
        save(figure, Path(path))


def _pictures(strip: SubFigure, result: NeedleResult) -> None:
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
    colour, table = TERM_COLOURS["mb"], result.table
    axes.plot(table["memory"], table["mb_per_step"], color=colour, lw=1.8, label="exact")
    _points(axes, result, "mb_per_step", colour, "played (95 %)")
    axes.set_ylabel("memory bottleneck per AR step (nats)")
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    axes.set_title("What no generator can avoid")
    axes.legend()


def _rates(axes: Axes, result: NeedleResult) -> None:
    table = result.table
    one_cell = result.config.view == "patch"
    what = "a seen cell" if one_cell else "whole frame"
    exact = table["frame_rate"].notna().any()
    if exact:
        axes.fill_between(table["memory"], table["frame_rate_low"], table["frame_rate_high"], color=_FRAME,
                          alpha=0.15, lw=0, label=f"{what}, left open by the bottleneck")  # fmt: skip
        axes.plot(table["memory"], table["frame_rate"], color=_FRAME, lw=1.8, label=f"{what}, exact")
    _points(axes, result, "frame_rate", _FRAME, None if exact else f"{what}, played")
    if not one_cell:
        axes.plot(table["memory"], table["cell_rate"], color=_CELL, lw=1.8, ls="--",
                  label="a seen cell, exact")  # fmt: skip
        _points(axes, result, "cell_rate", _CELL)
    axes.set_ylim(0, 1.03)
    best = "best generator" if result.config.guess == "best" else "ideal sampler"
    axes.set_ylabel(f"retrieval rate of the {best}")
    axes.set_title("What it can still bring back")
    axes.legend(loc="lower right")


def _points(axes: Axes, result: NeedleResult, column: str, colour: str, label: str | None = None) -> None:
    if f"played_{column}" not in result.table:
        return
    rows = result.asked
    axes.errorbar(rows["memory"], rows[f"played_{column}"], yerr=1.96 * rows[f"played_{column}_error"],
                  color=colour, label=label, clip_on=False, zorder=4, **_PLAYED)  # fmt: skip
