"""What compression loses and saves: from a sweep's tables to what is said; principal components by hand."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from arvdm_theory.experiments.video.run import network_name
from arvdm_theory.experiments.video_compression import run as study
from arvdm_theory.experiments.video_compression.findings import findings
from arvdm_theory.experiments.video_compression.run import operations, prices, width
from arvdm_theory.tables import write_table
from arvdm_theory.video.runs import VideoRun
from arvdm_theory.video.windows import POSE_DIM

# Structure, compressed so many to one, updates, rate, costs beside no memory and beside the whole one.
NETWORKS = [
    ("none", 1, 400, 0.2, 1.0, math.nan),
    ("cross", 1, 400, 0.8, 2.0, math.nan),
    ("cross", 1, 100, 0.5, 2.0, math.nan),
    ("cross", 4, 400, 0.78, 1.2, 0.4),
    ("cross", 4, 800, 0.85, 1.2, 0.4),
]
RUNS = [
    VideoRun(preset="smoke", memory=memory, compress=compress, steps=steps)  # type: ignore[arg-type]
    for memory, compress, steps, *_ in NETWORKS
]


def sweep(folder: Path) -> None:
    """The two tables of a sweep; intervals are as wide as 0.1 to either side."""
    found: list[dict[str, Any]] = []
    cost: list[dict[str, Any]] = []
    for run, (memory, compress, steps, rate, ratio, whole) in zip(RUNS, NETWORKS, strict=True):
        fields = {"network": network_name(run), "data": "dmlab", "preset": "smoke", "memory": memory}
        fields |= {"compress": compress, "compression": "spatial", "steps": steps, "seed": 0, "worlds": 0}
        fields |= {"memory_frames": 0 if memory == "none" else 8, "plan": "outpainting", "told": "poses"}
        fields["architecture"] = "transformer"
        for source, ahead, value in (("generated", 0, rate), ("generated", 1, 0.0), ("copy", 0, 0.1)):
            row = {"source": source, "ahead": ahead, "queries": 100, "weights": 1000}
            for measure, at in (("rate", value), ("psnr", 20 * value)):
                row |= {measure: at, f"{measure}_low": at - 0.1, f"{measure}_high": at + 0.1}
            found.append({**fields, **row})
        for beside, share in (("no memory", ratio), ("uncompressed", whole)):
            if not math.isnan(share):
                costs = {"cpu_ratio": share, "call_ratio": share / 2, "peak_ratio": 3 * share}
                cost.append({**fields, "beside": beside, **costs})
    write_table(pd.DataFrame(found), folder / "video.csv")
    write_table(pd.DataFrame(cost), folder / "video-network-cost.csv")


def test_what_is_lost_is_counted_from_the_uncompressed_twin(tmp_path: Path) -> None:
    sweep(tmp_path)
    table = prices(RUNS, tmp_path)
    assert table["network"].tolist() == [network_name(run) for run in RUNS]
    # The compressed one that was trained for longest is better than all, and cheaper than any other with a memory.
    assert table["front_price"].tolist() == [True, False, False, False, True]
    none, whole, _, packed, _ = (operations(run) for run in RUNS)
    assert table["call_work_ratio"].tolist()[1] == whole[1] / none[1] > 1
    assert table["work_whole"].tolist()[3] == packed[0] / whole[0] < 1
    kept = {"data": "dmlab", "preset": "smoke", "worlds": 0, "components": 64}
    held = pd.DataFrame([{**kept, "psnr": 23.0, "psnr_low": 22.0, "psnr_high": 24.0}])
    told = {each.finding: each for each in findings({"video-compression": table, "video-width": held})}
    label = "dmlab, smoke, worlds 0: cross, spatial 4 in 1, 8 frames, 400 updates"
    lost = told[f"rate lost by compression: {label}"]
    assert lost[1:4] == pytest.approx((0.02, 0.02 - 0.1 * 2**0.5, 0.02 + 0.1 * 2**0.5))
    assert told[f"dB lost by compression: {label}"].value == pytest.approx(0.4)
    assert told[f"processor's time beside uncompressed: {label}"].value == 0.4
    assert told[f"time of a call with nothing kept beside uncompressed: {label}"].value == 0.2
    assert told[f"peak memory beside no memory: {label}"].value == pytest.approx(3.6)
    beside = f"rate lost beside 100 updates uncompressed: {label}"
    assert told[beside].value == pytest.approx(-0.28)
    # Trained for longer than any that is not compressed: against the longest of those.
    assert told[f"rate lost by compression: {label.replace('400', '800')}"].value == pytest.approx(-0.05)
    assert told["PSNR of 64 principal components: dmlab, smoke, worlds 0"][1:4] == (23.0, 22.0, 24.0)


def test_operations_are_those_counted_by_hand() -> None:
    """What two remembered frames more take in the first reverse step and in a later one."""
    few, more = (VideoRun(preset="smoke", memory_frames=frames) for frames in (2, 4))
    first, later = {}, {}
    for run in (few, more):
        frame, first[run] = operations(run)
        steps = run.windows.plan.reverse_steps
        later[run] = (frame * run.windows.plan.stride - first[run]) / (steps - 1)
    width, places, window, frames = 32, 16, 4, 2
    attended = 2 * 2 * window * places * width * frames
    assert later[more] - later[few] == attended
    keys = 2 * 2 * places * width * width * frames
    patches = 2 * places * (4 * 4 * 3) * width * frames
    # The level by two layers, offset and pose by one each; conditions to the grid, and poses to the keys.
    told = 2 * frames * (2 * 16 * width + POSE_DIM * width + 3 * width * width)
    assert first[more] - first[few] == attended + keys + patches + told


def test_components_leave_what_frames_vary_by_beyond_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames that vary along three orthogonal patterns: two components leave exactly what the third adds."""
    patterns = np.linalg.qr(np.random.default_rng(0).normal(size=(48, 3)))[0]
    # All corners of a box: no two patterns go together, whichever half of the frames is looked at.
    corners = np.stack(np.meshgrid([-3.0, 3.0], [-2.0, 2.0], [-0.5, 0.5]), -1).reshape(-1, 3)

    def frames(*_: Any) -> tuple[Any, Any]:
        return np.tile(corners, (5, 1)) @ patterns.T, np.repeat(np.arange(20), 2)

    monkeypatch.setattr(study, "_frames", frames)
    table = width(VideoRun(preset="smoke"), (2, 3), tmp_path, progress=False)
    # The peak's square, 4, over the mean square of a pixel.
    assert table["psnr"].iloc[0] == pytest.approx(10 * math.log10(4 / (0.5**2 / 48)), abs=1e-9)
    assert table["psnr"].iloc[1] > 250
    assert table["episodes"].tolist() == [20, 20]
