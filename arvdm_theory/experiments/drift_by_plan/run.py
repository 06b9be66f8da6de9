"""How much a rollout loses by drift, plan by plan, on first-person video.

Every network is rolled out by every plan that it was trained for. At every place stand the PSNR of the rollout
and that of the same network, plan and place when all that it is shown are true frames: the first falls by drift
and by what the plan costs, the second by the latter alone. What is lost by drift is their difference, paired by
video. All plans have as many network evaluations a frame.

One network is trained for outpainting and one for the pipelined schedule of FIFO-Diffusion, each on levels along
its own plan's rows; a third on a level of its own for every frame, with noised and missing references, as
Diffusion Forcing and history guidance ask for: all plans may sample it. Networks are told where dead reckoning of
the actions puts a frame, of actions that slip (the preset ``cpu-slip``), on worlds that no preset was settled on.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd

from arvdm_theory.data.clips import to_unit
from arvdm_theory.experiments.record import Cell, run_cells
from arvdm_theory.number import Number
from arvdm_theory.training.checkpoint import load_denoiser
from arvdm_theory.video.intervals import interval_columns
from arvdm_theory.video.metrics import psnr
from arvdm_theory.video.rollouts import Way, on_true_frames, rollout_source
from arvdm_theory.video.runs import VideoRun, train_run
from arvdm_theory.video.samples import sample_run

__all__ = ["SIZES", "WAYS", "drift_by_plan", "headline"]

BLOCK = 8
"""Frames of a rollout that are taken together."""

WAYS: dict[str, Way] = {
    "outpainting": Way("outpainting"),
    "pyramid": Way("pyramid"),
    "rolling window": Way("rolling"),
    "FIFO": Way("fifo"),
    "context noised, 0.1": Way("outpainting", noise=(0.1,)),
    "context noised, 0.3": Way("outpainting", noise=(0.3,)),
    "context noised by lag, 0 then 0.3": Way("outpainting", noise=(0.0, 0.3)),
    "history guidance, 1.5": Way("outpainting", guidance=1.5),
}
"""Plans that rollouts are made by."""

_WORLDS = 1
_EVERY = "a level a frame"

SIZES: dict[str, tuple[dict[str, VideoRun], tuple[str, ...]]] = {
    "smoke": (
        {
            "outpainting": VideoRun(preset="smoke", told="reckoned", worlds=_WORLDS, device="cpu"),
            _EVERY: VideoRun(preset="smoke-history", told="reckoned", worlds=_WORLDS, device="cpu"),
        },
        ("outpainting", "FIFO", "context noised, 0.1"),
    ),
    "one": (
        {_EVERY: VideoRun(preset="cpu-history", told="reckoned", worlds=_WORLDS, device="cpu")},
        tuple(WAYS),
    ),
    "cpu": (
        {
            "outpainting": VideoRun(preset="cpu-slip", told="reckoned", worlds=_WORLDS, device="cpu"),
            "FIFO": VideoRun(preset="cpu-slip", plan="fifo", told="reckoned", worlds=_WORLDS, device="cpu"),
            _EVERY: VideoRun(preset="cpu-history", told="reckoned", worlds=_WORLDS, device="cpu"),
        },
        tuple(WAYS),
    ),
}
"""Networks by what they are trained for, and ways to sample them: ``one`` that all plans may sample, or three.

A network and its rollouts take some four minutes of one CPU core.
"""


def drift_by_plan(size: str, folder: Path, progress: bool = True) -> pd.DataFrame:
    """The table: a row a (network, plan, block of frames).

    ``psnr`` of the rollout, ``on_true`` that of every place made from true frames, and ``lost``, the second less
    the first, means over the block's frames and the videos with 95 % intervals by video (``_low``, ``_high``);
    ``held`` is the PSNR of the last given frame, shown all along; ``ahead`` counts frames after it, the block's
    first.

    Args:
        size: of :data:`SIZES`.
        folder: where tables, networks and data go; resumed there.
        progress: whether to show progress bars.
    """
    networks, ways = SIZES[size]
    cells: list[Cell] = [
        {"network": name, "plan": way}
        for name, run in networks.items()
        for way in ways
        if WAYS[way].untrained(run) is None
    ]

    def compute(cell: Cell) -> pd.DataFrame:
        run, way = networks[cell["network"]], WAYS[cell["plan"]]
        place, store = folder / "networks" / cell["network"].replace(" ", "-"), folder / "data"
        train_run(run, place, store, progress)
        network, source = load_denoiser(place / "training"), rollout_source(run, store, progress, way)
        samples = sample_run(
            run, network, source, run.settings.rollout[1], progress=progress, guidance=way.guidance
        )
        alone = on_true_frames(run, network, source, samples, progress, way.guidance)
        truth = to_unit(samples.truth[:, samples.given :])
        own = psnr(truth, to_unit(samples.generated[:, samples.given :]))
        true = psnr(truth, to_unit(alone))
        held = psnr(truth, np.broadcast_to(to_unit(samples.truth[:, samples.given - 1])[:, None], truth.shape))
        videos = [window.episode for window in samples.windows]
        rows = []
        for start in range(0, truth.shape[1], BLOCK):
            block = slice(start, start + BLOCK)
            row: dict[str, float] = {"ahead": start + 1, "frames": min(BLOCK, truth.shape[1] - start)}
            for name, values in (("psnr", own), ("on_true", true), ("lost", true - own), ("held", held)):
                row |= interval_columns(name, Number.clustered(values[:, block].mean(1), videos))
            rows.append(row | {"videos": len(videos)})
        return pd.DataFrame(rows)

    return run_cells("drift-by-plan", cells, compute, folder, progress=progress)


def headline(table: pd.DataFrame) -> str:
    """First and last block of every rollout, and what the last one lost by drift."""
    keys = ["network", "plan"]
    first, last = (table.groupby(keys, sort=False)[list(table)].nth(place).set_index(keys) for place in (0, -1))
    shown = pd.DataFrame({
        "first": first.psnr, "last": last.psnr, "last, on true frames": last.on_true, "lost by drift": last.lost,
        "±": (last.lost_high - last.lost_low) / 2, "held": last.held,
    })  # fmt: skip
    text: str = shown.to_string(float_format="{:.2f}".format)
    rest = "" if math.isnan(float(shown["±"].iloc[0])) else " (± half a 95 % interval by video)"
    return f"PSNR of the first and the last {BLOCK} frames, dB{rest}:\n{text}"
