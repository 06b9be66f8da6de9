"""What a compressed memory retrieves and what it costs, and how much of a frame so many numbers can hold.

A merged place hands on as many numbers as a network is wide, and merging is linear. Principal components of
training worlds are the linear code whose linear reading has the least squared error; what they make of frames of
test worlds is what no network need lose to the width of a merged place.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from arvdm_theory.choose.front import pareto_front
from arvdm_theory.data.clips import to_unit
from arvdm_theory.experiments.record import Cell, run_cells
from arvdm_theory.files import write_json
from arvdm_theory.number import Number
from arvdm_theory.provenance import provenance
from arvdm_theory.tables import read_table, write_table
from arvdm_theory.video.data_sets import Split
from arvdm_theory.video.degradation import leading_components
from arvdm_theory.video.intervals import interval_columns
from arvdm_theory.video.metrics import decibel
from arvdm_theory.video.retrieval import SOURCES
from arvdm_theory.video.runs import VideoRun

__all__ = ["headline", "prices", "width"]

_RUN = ["network", "data", "preset", "memory", "memory_frames", "compress", "compression", "plan", "architecture",
        "told", "seed", "worlds", "steps"]  # fmt: skip
_FOUND = ["rate", "rate_low", "rate_high", "psnr", "psnr_low", "psnr_high", "queries", "weights"]
_COSTS = ["cpu_ratio", "call_ratio", "peak_ratio"]
# Frames of an episode that follow each other are all but the same.
_EVERY = 10
_EPISODES = 400
_SPLITS: tuple[Split, Split] = ("train", "test")


def prices(folder: Path) -> pd.DataFrame:
    """Writes the table ``video-compression`` from those of a sweep, ``video`` and ``video-network-cost``.

    Returns:
        a row a network, with its fields; its retrieval rate and the PSNR of queries; over those of the network
        without memory, the processor's time of a generated frame, ``cpu_ratio``, that of a call with nothing kept,
        as in training, ``call_ratio``, and the peak memory, ``peak_ratio``; over those of the uncompressed twin
        ``cpu_whole``, ``call_whole`` and ``peak_whole``; ``front_price``: whether no other retrieves as much for
        less time.
    """
    video, cost = (read_table(folder / f"{name}.csv") for name in ("video", "video-network-cost"))
    own = video[(video["source"] == SOURCES[0]) & (video["ahead"] == 0)]
    table = own[_RUN + _FOUND]
    for beside, named in (("no memory", "ratio"), ("uncompressed", "whole")):
        part = cost.loc[cost["beside"] == beside, ["network", *_COSTS]]
        names = {name: name.replace("ratio", named) for name in _COSTS}
        table = table.merge(part.rename(columns=names), on="network", how="left")
    table["front_price"] = pareto_front(table[["cpu_ratio", "rate"]].to_numpy() * [1, -1])
    write_table(table, folder / "video-compression.csv")
    write_json(
        folder / "video-compression.provenance.json", provenance({"from": ["video", "video-network-cost"]}, 0)
    )
    return table


def headline(table: pd.DataFrame) -> str:
    """Every network's rate, quality and costs."""
    shown = ["memory", "compression", "compress", "steps", "rate", "psnr", *_COSTS, "cpu_whole", "call_whole",
             "peak_whole"]  # fmt: skip
    text: str = table[shown].to_string(index=False, float_format="{:.3f}".format, na_rep="-")
    return text


def width(run: VideoRun, components: tuple[int, ...], folder: Path, progress: bool = True) -> pd.DataFrame:
    """Writes the table ``video-width``.

    Args:
        run: whose episodes.
        components: numbers a frame.
        folder: for the table; the episodes are in its ``data``.
        progress: whether to show a progress bar.

    Returns:
        a row a number of ``components``: ``psnr`` of the mean squared error over test frames (95 % interval by
        episode: ``psnr_low``, ``psnr_high``), how many ``frames``, and of how many ``episodes``.
    """
    base = {"data": run.data, "preset": run.preset, "worlds": run.worlds}
    cells = [{**base, "components": count} for count in components]

    def compute(cell: Cell) -> pd.DataFrame:
        (train, _), (test, episode) = (
            _frames(run, split, folder / "data", progress) for split in ("train", "test")
        )
        centre, basis = train.mean(0), leading_components(train, cell["components"])
        left = test - centre
        lost = Number.clustered(((left - left @ basis @ basis.T) ** 2).mean(-1), episode)
        row: dict[str, Any] = interval_columns("mse", lost)
        levels = [float(decibel(row[name])) for name in ("mse", "mse_high", "mse_low")]
        return pd.DataFrame([{
            **dict(zip(("psnr", "psnr_low", "psnr_high"), levels, strict=True)),
            "frames": len(test), "episodes": len(np.unique(episode)),
        }])  # fmt: skip

    return run_cells("video-width", cells, compute, folder, progress=progress)


def _frames(
    run: VideoRun, split: Split, store: Path, progress: bool
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Flat frames of a split on [-1, 1], and the episode of each."""
    episodes = run.episodes.load(split, store, progress).frames[:_EPISODES]
    parts = [to_unit(np.asarray(frames)[::_EVERY]).reshape(-1, frames[0].size) for frames in episodes]
    return np.concatenate(parts), np.repeat(np.arange(len(parts)), [len(part) for part in parts])
