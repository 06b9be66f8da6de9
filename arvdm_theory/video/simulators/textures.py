"""The textures of DeepMind Lab that the ``labmaze`` package ships, averaged down to the resolutions drawn here.

A picture is kept as packed pixels, one uint32 a pixel (red in the lowest byte), in a pyramid of levels: 64 x 64,
32 x 32, ..., 1 x 1 pixels for one wall or floor cell.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "LEVELS",
    "SKY_STYLES",
    "TEXELS",
    "floor_textures",
    "labmaze",
    "pack",
    "panorama",
    "pyramid",
    "read_picture",
    "wall_textures",
]

TEXELS = 64
LEVELS = TEXELS.bit_length()

# The night sky, sky_01, is left out: the clips of the data set that this stands in for are by day.
SKY_STYLES = ("sky_02", "sky_03")

_PANORAMA = (64, 1024)


def labmaze() -> ModuleType:
    """The ``labmaze`` package with its assets.

    Raises:
        ValueError: if it is not installed.
    """
    try:
        module = importlib.import_module("labmaze")
        importlib.import_module("labmaze.assets")
    except ImportError as error:
        raise ValueError(
            "the DMLab stand-in needs the package labmaze, which there is for Python below 3.13: "
            f"pip install 'arvdm-theory[video]' ({error})"
        ) from error
    return module


@cache
def wall_textures() -> tuple[Path, ...]:
    """The files of all wall textures, in a fixed order."""
    assets = labmaze().assets
    return _files(assets.get_wall_texture_paths(style) for style in assets.MAZE_STYLES)


@cache
def floor_textures() -> tuple[Path, ...]:
    """The files of all floor textures, in a fixed order."""
    assets = labmaze().assets
    return _files(assets.get_floor_texture_paths(style) for style in assets.MAZE_STYLES)


def _files(styles: Iterable[Mapping[str, str]]) -> tuple[Path, ...]:
    return tuple(Path(path) for style in styles for path in style.values())


@cache
def read_picture(path: Path, size: int = TEXELS) -> NDArray[np.float64]:
    """A square picture averaged down to size x size pixels, values 0..255, shape (size, size, 3)."""
    import av

    with av.open(str(path)) as container:
        picture: NDArray[Any] = next(container.decode(video=0)).to_ndarray(format="rgb24")
    block = picture.shape[0] // size
    rows = picture.reshape(size, block, -1).sum(1, dtype=np.uint32)  # whole rows first: ten times as fast
    return np.asarray(rows.reshape(size, size, block, 3).sum(2) / block**2)


def pack(picture: NDArray[np.float64]) -> NDArray[np.uint32]:
    """Pixels (..., 3) with values 0..255, rounded and packed."""
    red, green, blue = np.moveaxis(np.rint(picture).astype(np.uint32), -1, 0)
    return np.asarray(red | green << 8 | blue << 16, dtype=np.uint32)


def pyramid(picture: NDArray[np.float64]) -> NDArray[np.uint32]:
    """All levels of a 64 x 64 picture one after another, each averaged over 2 x 2 pixels of the one before."""
    levels = []
    while True:
        levels.append(pack(picture).reshape(-1))
        half = picture.shape[0] // 2
        if half == 0:
            return np.concatenate(levels)
        picture = picture.reshape(half, 2, half, 2, 3).mean((1, 3))


@cache
def panorama(style: str) -> NDArray[np.uint32]:
    """The upper half of a sky box as seen all around.

    Returns:
        packed pixels, shape (64, 1024): rows by the tangent of the elevation, from 0 to 1, columns by the azimuth,
        clockwise from north.
    """
    box = labmaze().assets.get_sky_texture_paths(style)
    size = 256
    sides = [read_picture(Path(path), size) for path in (box.front, box.right, box.back, box.left)]
    up = read_picture(Path(box.up), size)
    rows, columns = _PANORAMA
    slope = (np.arange(rows)[:, None] + 0.5) / rows
    azimuth = np.broadcast_to((np.arange(columns) + 0.5) * (2 * np.pi / columns), _PANORAMA)
    side = np.floor(azimuth / (np.pi / 2) + 0.5).astype(int) % 4
    across = np.tan(azimuth - side * (np.pi / 2))
    height = slope * np.hypot(1, across)

    def texel(coordinate: NDArray[np.float64]) -> NDArray[np.intp]:
        return np.minimum((coordinate + 1) / 2 * size, size - 1).astype(np.intp)

    east, north = np.sin(azimuth) / slope, np.cos(azimuth) / slope
    above = height >= 1
    picture = np.stack(sides)[side, texel(-np.where(above, 0, height)), texel(np.clip(across, -1, 1))]
    picture[above] = up[texel(-north[above]), texel(east[above])]
    return pack(picture)
