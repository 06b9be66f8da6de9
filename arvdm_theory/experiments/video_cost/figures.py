"""The cost figure: time and peak memory of a generated frame against the number of remembered frames."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from arvdm_theory.experiments.video.families_figure import COLOURS, NAMES, setting
from arvdm_theory.experiments.video.memory_figure import COMPRESSIONS, LINES
from arvdm_theory.experiments.video_cost.run import BASELINE
from arvdm_theory.report.style import Figures, legend_below

__all__ = ["FIGURES", "cost"]

_LINES: dict[str, Any] = {"none": {"ls": "-", "marker": "o"}, **LINES}
_COMPRESSED = {"none": "not compressed", **COMPRESSIONS}


def cost(table: pd.DataFrame) -> Figure:
    """Seconds a frame over those of the network without memory, and peak memory of one video; both axes are logs.

    The line of the network without memory against itself shows how far a ratio is off by chance.

    Args:
        table: of :func:`arvdm_theory.experiments.video_cost.run.video_cost`, for one preset, plan and device.

    Raises:
        ValueError: if it holds several.
    """
    for name in ("data", "preset", "plan", "device"):
        if table[name].nunique() != 1:
            raise ValueError(f"a cost figure shows one {name}, got {sorted(table[name].unique())}")
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.4, 5.0))
    kinds = [
        (memory, compression)
        for memory in COLOURS
        for compression in _LINES
        if ((table["memory"] == memory) & (table["compression"] == compression)).any()
    ]
    for axes, column in ((left, "ratio"), (right, "peak_mib")):
        for memory, compression in kinds:
            rows = table[(table["memory"] == memory) & (table["compression"] == compression)]
            rows = rows.sort_values("memory_frames")
            axes.plot(
                rows["memory_frames"], rows[column], color=COLOURS[memory], lw=1.4, ms=4, mfc="white",
                **_LINES[compression],
            )  # fmt: skip
        _logarithmic(axes, sorted(table["memory_frames"].unique()))
    left.axhline(1, color="0.35", lw=0.8)
    base = 1e3 * table.loc[table["memory"] == BASELINE, "baseline_seconds_frame"].median()
    left.set(ylabel="time a frame", title=f"Time (no memory: 1, {base:.3g} ms)")
    right.set(ylabel="peak memory (MiB)", title="Beyond weights and inputs")
    _legend(figure, kinds, int(table["compress"].max()))
    first = table.iloc[0]
    where = f"{first['architecture']}, {first['device']}, {setting(first['data'], first['preset'])}"
    figure.suptitle(f"What a memory costs, and what compression saves\n({where})")
    return figure


def _logarithmic(axes: Axes, frames: list[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xticks(frames, [str(number) for number in frames])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("remembered frames M")


def _legend(figure: Figure, kinds: list[tuple[str, str]], factor: int) -> None:
    shown = {memory for memory, _ in kinds}, {compression for _, compression in kinds}
    handles = [Line2D([], [], color=COLOURS[name], lw=3, label=NAMES[name]) for name in NAMES if name in shown[0]]
    for name, label in _COMPRESSED.items():
        if name in shown[1]:
            text = label if name == "none" else f"{label}, {factor} to 1"
            handles.append(Line2D([], [], color="0.35", lw=1.4, ms=4, mfc="white", label=text, **_LINES[name]))
    legend_below(figure, handles, [str(handle.get_label()) for handle in handles], 4, handlelength=3.2)


FIGURES: Figures = {"video-cost": ("video-cost", cost)}
"""The figure's name with the table it is drawn from."""
