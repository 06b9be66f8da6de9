"""A grid of films to look at: the truth and what each network made of it, side by side in one video file."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from arvdm_theory.data.clips import write_mp4
from arvdm_theory.experiments.video.film_figure import film_rows
from arvdm_theory.experiments.video.run import decode_picture
from arvdm_theory.files import atomic_path

__all__ = ["draw_grid"]

_FRAMES_A_SECOND = 8
# Pixels of a file: about what a picture measures, its border, and what is left between two.
_SIDE, _BORDER, _GAP = 96, 4, 4
_GIVEN, _GENERATED = (128, 128, 128), (213, 0, 0)

Picture = NDArray[np.uint8]


def draw_grid(table: pd.DataFrame, path: Path) -> None:
    """Writes the windows of a film table as one video, 8 frames a second, atomically.

    A column is a window, in the table's order; the rows are the truth and below it what the networks made of it:
    no memory, concatenated channels, prepended frames, cross attention, those that there are. Every picture is
    enlarged by whole pixels to about 96 of them, within a border that is grey while the frame is given or true and
    red once it is generated. H.264 with colour of half the resolution (yuv420p), which browsers play.

    Args:
        table: of :func:`arvdm_theory.experiments.video.run.film_table`.
        path: of the file, NAME.mp4.

    Raises:
        ValueError: if the name has another ending, pictures differ in size, or a frame of a window is missing.
        OSError: if the file cannot be written.
    """
    if path.suffix != ".mp4":
        raise ValueError(f"a grid of films is an .mp4 file, got {path.name}")
    shapes = table["shape"].unique().tolist()
    if len(shapes) != 1:
        raise ValueError(f"pictures of one size make a grid, got {', '.join(shapes) or 'none'}")
    there = set(table[["window", "source", "frame"]].itertuples(index=False, name=None))
    frames = range(int(table["frame"].max()) + 1)
    for window, source, frame in product(table["window"].unique(), film_rows(table), frames):
        if (window, source, frame) not in there:
            raise ValueError(f"frame {frame} of window {window} is missing from {source}")
    with atomic_path(path) as temporary:
        write_mp4(_sheets(table, str(shapes[0])), temporary, _FRAMES_A_SECOND, lossless=False)


def _sheets(table: pd.DataFrame, shape: str) -> Iterator[Picture]:
    """The frames of the grid, (height, width, 3)."""
    height, width, _ = (int(side) for side in shape.split("x"))
    scale = max(round(_SIDE / max(height, width)), 1)
    # Every picture begins at an even pixel, where those of the colour do.
    down, right = (scale * side + 2 * _BORDER + _GAP + scale * side % 2 for side in (height, width))
    rows, windows = film_rows(table), table["window"].unique().tolist()
    shown = table.set_index(["window", "source", "frame"])[["role", "pixels"]].to_dict("index")
    for frame in range(int(table["frame"].max()) + 1):
        sheet = np.full((_GAP + down * len(rows), _GAP + right * len(windows), 3), 255, np.uint8)
        for (row, source), (column, window) in product(enumerate(rows), enumerate(windows)):
            cell = shown[window, source, frame]
            picture = decode_picture(cell["pixels"], shape).repeat(scale, 0).repeat(scale, 1)
            tile = np.empty((scale * height + 2 * _BORDER, scale * width + 2 * _BORDER, 3), np.uint8)
            tile[:] = _GIVEN if source == "truth" or cell["role"] == "given" else _GENERATED
            tile[_BORDER:-_BORDER, _BORDER:-_BORDER] = picture
            top, left = _GAP + row * down, _GAP + column * right
            sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
        yield sheet
