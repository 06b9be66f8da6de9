"""Memory structures side by side: networks trained on first-person video, and what each retrieves.

A cell is a network: trained once (its checkpoints are kept), sampled on held-out worlds and scored. Its rows are
those of :func:`arvdm_theory.video.runs.summarise`.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from arvdm_theory.studies.record import Cell, read_table, run_cells, write_table
from arvdm_theory.video.runs import Samples, VideoRun, sample_folder, summarise, train_run

__all__ = ["decode_picture", "film_table", "headline", "sweep"]

_WINDOWS_SHOWN = 3
# Fields that decide where and for how long a network is made, not which it is.
_FREE = ("device",)


def sweep(runs: Sequence[VideoRun], folder: Path, progress: bool = True) -> dict[str, pd.DataFrame]:
    """Trains, samples and scores every run that is not finished yet.

    Args:
        runs: networks on the same data.
        folder: for everything; ``video.csv`` and ``video-film.csv`` are the tables.
        progress: whether to show progress bars.

    Returns:
        ``video``: a row a network, source and place ``ahead`` of the last given frame (0: all places), with the
        network's fields, ``updates``, the ``seconds`` of training and the number of ``weights``; ``film``: the
        pictures of a few windows, see :func:`film_table`.
    """
    by_name = {_name(run): run for run in runs}
    if len(by_name) < len(runs):
        raise ValueError("a sweep trains each network once, but two of its runs are the same")
    films = folder / "films"
    films.mkdir(parents=True, exist_ok=True)

    def compute(cell: Cell) -> pd.DataFrame:
        run = by_name[cell["network"]]
        place = folder / "networks" / cell["network"]
        trained = train_run(run, place, folder / "data", progress)
        samples, scores = sample_folder(run, place, progress=progress)
        write_table(film_table({run.memory: samples}), films / f"{cell['network']}.csv")
        parts = [(0, scores), *((int(ahead), part) for ahead, part in scores.groupby("ahead"))]  # type: ignore[arg-type]
        rows = pd.concat([summarise(part).assign(ahead=ahead) for ahead, part in parts], ignore_index=True)
        last = trained.history.iloc[-1]
        rows["updates"], rows["seconds"] = int(last["step"]), float(last["seconds"])
        rows["weights"] = sum(weight.numel() for weight in trained.denoiser.parameters())
        return rows

    cells = [{"network": name, **_fields(run)} for name, run in by_name.items()]
    seed = min(run.seed for run in runs)
    table = run_cells("video", cells, compute, folder, seed, progress)
    # One seed's pictures are enough, and all structures show the same windows.
    shown = [films / f"{name}.csv" for name, run in by_name.items() if run.seed == runs[0].seed]
    film = pd.concat([read_table(path) for path in shown if path.exists()], ignore_index=True)
    film = film.drop_duplicates(["window", "source", "frame"], ignore_index=True)
    write_table(film, folder / "video-film.csv")
    return {"video": table, "film": film}


def _fields(run: VideoRun) -> dict[str, Any]:
    fields = {name: value for name, value in run.to_json().items() if name not in _FREE}
    fields["memory_frames"] = run.windows.laid_out
    return fields


def _name(run: VideoRun) -> str:
    digest = hashlib.sha256(json.dumps(_fields(run), sort_keys=True).encode()).hexdigest()[:8]
    return f"{run.data}-{run.preset}-{run.memory}-{run.seed}-{digest}"


def film_table(samples: Mapping[str, Samples], windows: int = _WINDOWS_SHOWN) -> pd.DataFrame:
    """Some windows as rows: window, source, frame, role, needle, shape, pixels.

    ``source`` is ``truth`` or a key of ``samples``;
    ``role`` is ``given``, ``query`` or ``generated`` (one that shows nothing known); ``needle`` is the frame that
    shows what a query asks for, else -1; ``pixels`` are the bytes of the picture in base64, of ``shape`` HxWxC.
    """
    rows = []
    first = next(iter(samples.values()))
    for number in range(min(windows, len(first.windows))):
        seen = {asked: shown for shown, asked in first.windows[number].queries}
        clips = {"truth": first.truth[number]} | {key: part.generated[number] for key, part in samples.items()}
        for source, clip in clips.items():
            for frame, picture in enumerate(clip):
                role = "given" if frame < first.given else "query" if frame in seen else "generated"
                rows.append({
                    "window": first.names[number], "source": source, "frame": frame, "role": role,
                    "needle": seen.get(frame, -1), "shape": "x".join(map(str, picture.shape)),
                    "pixels": base64.b64encode(np.ascontiguousarray(picture).tobytes()).decode("ascii"),
                })  # fmt: skip
    return pd.DataFrame(rows)


def decode_picture(pixels: str, shape: str) -> NDArray[np.uint8]:
    """A picture of :func:`film_table`."""
    flat = np.frombuffer(base64.b64decode(pixels), dtype=np.uint8)
    return flat.reshape([int(side) for side in shape.split("x")])


def headline(table: pd.DataFrame) -> str:
    """Every network's retrieval and quality, and the two references."""
    columns = [
        "memory", "seed", "source", "rate", "rate_low", "rate_high", "chance", "psnr", "ssim", "updates",
        "seconds",
    ]  # fmt: skip
    table = table[table["ahead"] == 0]
    first = table["network"] == table["network"].iloc[0]
    shown = table[(table["source"] == "generated") | first]
    text: str = shown[[name for name in columns if name in shown]].to_string(
        index=False, float_format="{:.3f}".format
    )
    return text
