"""What a compressed memory retrieves and what it costs, and how much of a frame so many numbers can hold.

A merged place hands on as many numbers as a network is wide, and merging is linear. Principal components of
training worlds are the linear code whose linear reading has the least squared error; what they make of frames of
test worlds is what no network need lose to the width of a merged place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from arvdm_theory.choose.front import pareto_front
from arvdm_theory.data.clips import to_unit
from arvdm_theory.experiments.record import Cell, run_cells
from arvdm_theory.experiments.video.run import network_name
from arvdm_theory.experiments.video_cost.run import step_inputs
from arvdm_theory.files import write_json
from arvdm_theory.networks.denoiser import Denoiser
from arvdm_theory.number import Number
from arvdm_theory.provenance import provenance
from arvdm_theory.tables import read_table, write_table
from arvdm_theory.video.data_sets import Split
from arvdm_theory.video.degradation import leading_components
from arvdm_theory.video.intervals import interval_columns
from arvdm_theory.video.metrics import decibel
from arvdm_theory.video.retrieval import SOURCES
from arvdm_theory.video.runs import VideoRun
from arvdm_theory.video.windows import POSE_DIM

__all__ = ["headline", "operations", "prices", "width"]

_RUN = ["network", "data", "preset", "memory", "memory_frames", "compress", "compression", "plan", "architecture",
        "told", "seed", "worlds", "steps"]  # fmt: skip
_FOUND = ["rate", "rate_low", "rate_high", "psnr", "psnr_low", "psnr_high", "queries", "weights"]
_TIMED, _COUNTED = ["cpu", "call", "peak"], ["work", "call_work"]
# Frames of an episode that follow each other are all but the same.
_EVERY = 10
_EPISODES = 400
_SPLITS: tuple[Split, Split] = ("train", "test")


def operations(run: VideoRun) -> tuple[float, float]:
    """Floating-point operations of products of matrices, convolutions and attention, of one video.

    Counted, not timed: they are the same on every machine.

    Returns:
        those of a generated frame, and of a call with nothing kept, as in training.
    """
    windows, meta = run.windows, torch.device("meta")
    with meta:
        network = Denoiser(run.network(3, POSE_DIM, 0.0, 1.0)).requires_grad_(False)
    inputs = step_inputs(windows, network.config, 1, meta)
    first, kept = _counted(lambda: network(*inputs)), network.recall(inputs[2])
    network(*inputs, kept)
    later = _counted(lambda: network(*inputs, kept))
    return (first + (windows.plan.reverse_steps - 1) * later) / windows.plan.stride, first


def _counted(call: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops())


def prices(runs: Sequence[VideoRun], folder: Path) -> pd.DataFrame:
    """Writes the table ``video-compression`` from those of a sweep, ``video`` and ``video-network-cost``.

    Args:
        runs: the networks of the sweep.
        folder: of its tables, and for this one.

    Returns:
        a row a network, with its fields; its retrieval rate and the PSNR of queries; and what it costs: the
        processor's time (``cpu``) and :func:`operations` (``work``) of a generated frame, those of a call with
        nothing kept, as in training (``call``, ``call_work``), and the peak memory (``peak``), each over that of
        the network without memory (``_ratio``) and of the uncompressed twin (``_whole``). ``front_price`` says
        whether no other retrieves as much for less time.
    """
    video, cost = (read_table(folder / f"{name}.csv") for name in ("video", "video-network-cost"))
    own = video[(video["source"] == SOURCES[0]) & (video["ahead"] == 0)]
    table = own[_RUN + _FOUND]
    by_name = {network_name(run): run for run in runs}
    for beside, named in (("no memory", "ratio"), ("uncompressed", "whole")):
        part = cost.loc[cost["beside"] == beside, ["network", *(f"{name}_ratio" for name in _TIMED)]]
        work = pd.DataFrame([_work(by_name[name], beside) for name in part["network"]], part.index, _COUNTED)
        names = {f"{name}_ratio": f"{name}_{named}" for name in (*_TIMED, *_COUNTED)}
        part = part.join(work.add_suffix("_ratio")).rename(columns=names)
        table = table.merge(part, on="network", how="left")
    table["front_price"] = pareto_front(table[["cpu_ratio", "rate"]].to_numpy() * [1, -1])
    write_table(table, folder / "video-compression.csv")
    write_json(
        folder / "video-compression.provenance.json", provenance({"from": ["video", "video-network-cost"]}, 0)
    )
    return table


def _work(run: VideoRun, beside: str) -> list[float]:
    """Operations over those of the network that it is held against."""
    whole = replace(run, compress=1, compression="spatial")
    none = replace(whole, memory="none", memory_frames=run.windows.laid_out)
    base = operations(none if beside == "no memory" else whole)
    return [mine / its for mine, its in zip(operations(run), base, strict=True)]


def headline(table: pd.DataFrame) -> str:
    """Every network's rate, quality and costs."""
    costs = [f"{name}_{beside}" for beside in ("ratio", "whole") for name in (*_TIMED, *_COUNTED)]
    text: str = table[["memory", "compression", "compress", "steps", "rate", "psnr", *costs]].to_string(
        index=False, float_format="{:.3f}".format, na_rep="-"
    )
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
