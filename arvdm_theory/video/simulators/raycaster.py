"""Pictures of a maze of square walls, by casting one ray a picture column.

A camera at (x, y), about half a wall high (h = 0.49), looks level along its heading; the picture spans 90 degrees
both ways. With u the column's place in [-1, 1] and s the row's place in [1, -1], the ray

    (x, y) + t · (forward + u · right),     height h + t · s,

meets the first wall at t = t*(u), and a pixel shows the wall where the height at t* lies in [0, 1), else floor
(s < 0, at t = -h/s) or sky. Every pixel averages 2 x 2 such samples. Every operation works on numbers one by
one, so that equal poses give equal bytes, whatever else is drawn with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arvdm_theory.video.simulators.textures import LEVELS, TEXELS

__all__ = ["Scene", "render"]

_SAMPLES = 2
# As many frames at a time as keep the working arrays within a core's cache.
_SAMPLES_AT_A_TIME = 2**16

# Where each level of a pyramid begins, and the length of all.
_LEVEL_START = np.cumsum([0, *(TEXELS**2 >> 2 * level for level in range(LEVELS))])
_PYRAMID = int(_LEVEL_START[-1])

# At half a wall's height, the edges of a corridor would run through the middles of samples on the diagonals, and
# rounding would choose what they show.
_EYE = 0.49

# Side of a picture on a wall, in cells.
_PICTURE = 0.4


@dataclass(frozen=True, eq=False)
class Scene:
    """A maze and what its surfaces show.

    Attributes:
        solid: which cells are wall, shape (rows, columns); the outermost ones are.
        textures: packed pyramids, shape (textures, texels of a pyramid).
        wall: the texture of a wall seen from cell (row, column) on its north, east, south and west side, shape
            (rows, columns, 4).
        floor: the texture of a cell's floor, shape (rows, columns).
        picture: the texture hung on that wall, or -1, shape (rows, columns, 4).
        sky: packed panorama, as :func:`~arvdm_theory.video.simulators.textures.panorama` gives it.
    """

    solid: NDArray[np.bool_]
    textures: NDArray[np.uint32]
    wall: NDArray[np.intp]
    floor: NDArray[np.intp]
    picture: NDArray[np.intp]
    sky: NDArray[np.uint32]

    @cached_property
    def atlas(self) -> NDArray[np.uint32]:
        """All texels in one row: the textures, then the sky."""
        return np.concatenate([self.textures.reshape(-1), self.sky.reshape(-1)])


@dataclass(frozen=True, eq=False)
class _Hits:
    """Where the rays meet their first wall; every array has shape (frames, columns)."""

    distance: NDArray[np.float64]
    row: NDArray[np.intp]
    column: NDArray[np.intp]
    side: NDArray[np.intp]
    along: NDArray[np.float64]


def render(scene: Scene, poses: NDArray[np.float64], size: int) -> NDArray[np.uint8]:
    """The pictures seen at the poses.

    Args:
        scene: the maze.
        poses: shape (frames, 3): x east and y south in cells, heading in degrees clockwise from north; the cell
            must not be solid.
        size: height and width of a picture.

    Returns:
        shape (frames, size, size, 3).
    """
    frames = np.empty((len(poses), size, size, 3), np.uint8)
    step = max(1, _SAMPLES_AT_A_TIME // (_SAMPLES * size) ** 2)
    for start in range(0, len(poses), step):
        frames[start : start + step] = _draw(scene, poses[start : start + step], size)
    return frames


def _draw(scene: Scene, poses: NDArray[np.float64], size: int) -> NDArray[np.uint8]:
    across = (np.arange(_SAMPLES * size, dtype=np.float64) + 0.5) * (2 / (_SAMPLES * size)) - 1
    down = across[:, None]
    x, y, heading = poses[:, 0, None], poses[:, 1, None], np.deg2rad(poses[:, 2, None])
    east = np.sin(heading) + across * np.cos(heading)
    south = across * np.sin(heading) - np.cos(heading)
    hits = _first_walls(scene, x, y, east, south)

    height = np.float32(_EYE) - down.astype(np.float32) * hits.distance[:, None, :].astype(np.float32)
    index = np.empty(height.shape, np.intp)
    above = size * _SAMPLES // 2
    index[:, :above] = _sky(scene, across, down[:above], heading)
    index[:, above:] = _floor(scene, down[above:], x, y, east, south, size)
    _paste(index, height, scene.wall[hits.row, hits.column, hits.side], hits.along, hits.distance, size)
    pictures = scene.picture[hits.row, hits.column, hits.side]
    low = (1 - _PICTURE) / 2
    frame, column = np.nonzero((pictures >= 0) & (hits.along >= low) & (hits.along < 1 - low))
    if len(frame):
        part = index[frame, :, column].T[None]
        _paste(
            part,
            ((height[frame, :, column].T - np.float32(low)) / np.float32(_PICTURE))[None],
            pictures[frame, column][None],
            ((hits.along[frame, column] - low) / _PICTURE)[None],
            (hits.distance[frame, column] / _PICTURE)[None],
            size,
        )
        index[frame, :, column] = part[0].T
    return _average(scene.atlas.take(index))


def _first_walls(
    scene: Scene,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    east: NDArray[np.float64],
    south: NDArray[np.float64],
) -> _Hits:
    """Intersects every ray with every grid line and keeps the nearest point beyond which a cell is solid."""
    met = []
    for origin, other, direction, sideways, solid in (
        (x, y, east, south, scene.solid.T),
        (y, x, south, east, scene.solid),
    ):
        lines = np.arange(1, solid.shape[0])
        with np.errstate(divide="ignore", invalid="ignore"):  # a ray along the lines meets none of them
            distance = (lines - origin[..., None]) / direction[..., None]
            place = other[..., None] + distance * sideways[..., None]
        ahead = np.isfinite(place) & (distance > 0) & (place >= 0) & (place < solid.shape[1])
        cell = np.where(ahead, place, 0).astype(np.intp)
        forward = direction[..., None] > 0
        ahead &= solid[np.where(forward, lines, lines - 1), cell]
        distance = np.where(ahead, distance, np.inf)
        nearest = distance.argmin(-1)[..., None]
        front = np.where(forward, lines - 1, lines)

        def pick(values: NDArray[Any], nearest: NDArray[np.intp] = nearest) -> NDArray[Any]:
            return np.asarray(np.take_along_axis(values, nearest, -1)[..., 0])

        met.append(
            (pick(distance), pick(front), pick(cell), pick(np.where(ahead, place - cell, 0)), forward[..., 0])
        )
    (by_x, x_column, x_row, x_along, eastward), (by_y, y_row, y_column, y_along, southward) = met
    upright = by_x < by_y
    return _Hits(
        distance=np.minimum(by_x, by_y),
        row=np.where(upright, x_row, y_row),
        column=np.where(upright, x_column, y_column),
        side=np.where(upright, np.where(eastward, 1, 3), np.where(southward, 2, 0)),
        # From left to right as one faces the wall.
        along=np.where(
            upright, np.where(eastward, x_along, 1 - x_along), np.where(southward, 1 - y_along, y_along)
        ),
    )


def _level(texels_a_sample: NDArray[np.float64]) -> NDArray[np.intp]:
    """The level of a pyramid whose texels are about as large as the samples."""
    return np.clip(np.rint(np.log2(texels_a_sample)), 0, LEVELS - 1).astype(np.intp)


def _paste(
    index: NDArray[np.intp],
    height: NDArray[np.float32],
    texture: NDArray[np.intp],
    along: NDArray[np.float64],
    distance: NDArray[np.float64],
    size: int,
) -> None:
    """Overwrites the texel indices (frames, rows, columns) where the height lies in [0, 1)."""
    level = _level(TEXELS / size * distance)
    texels = TEXELS >> level
    start = texture * _PYRAMID + _LEVEL_START[level] + np.minimum((along * texels).astype(np.intp), texels - 1)
    start += (texels - 1) * texels
    rows = (height * texels[:, None, :].astype(np.float32)).astype(np.intp)
    np.copyto(index, start[:, None, :] - rows * texels[:, None, :], where=(height >= 0) & (height < 1))


def _sky(
    scene: Scene, across: NDArray[np.float64], down: NDArray[np.float64], heading: NDArray[np.float64]
) -> NDArray[np.intp]:
    rows, columns = scene.sky.shape
    slope = (-down / np.hypot(1, across) * rows).astype(np.intp)
    azimuth = np.floor((heading + np.arctan(across)) * (columns / (2 * np.pi))).astype(np.intp) % columns
    return np.asarray(scene.textures.size + slope * columns + azimuth[:, None, :])


def _floor(
    scene: Scene,
    down: NDArray[np.float64],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    east: NDArray[np.float64],
    south: NDArray[np.float64],
    size: int,
) -> NDArray[np.intp]:
    distance = _EYE / down
    # Samples lie distance/size apart sideways and about 2 distance²/size in depth: the geometric mean decides.
    level = _level(TEXELS / size * np.sqrt(2 * distance**3))
    texels = TEXELS >> level
    place, cell = [], []
    for origin, direction, cells in ((x, east, scene.solid.shape[1]), (y, south, scene.solid.shape[0])):
        at = origin[:, None].astype(np.float32) + distance.astype(np.float32) * direction[:, None].astype(
            np.float32
        )
        whole = np.clip(at, 0, np.float32(cells - 0.5)).astype(np.intp)
        cell.append(whole)
        inside = ((at - whole.astype(np.float32)) * texels.astype(np.float32)).astype(np.intp)
        place.append(np.clip(inside, 0, texels - 1))  # beyond the maze there are walls in front
    texture = scene.floor.reshape(-1).take(cell[1] * scene.solid.shape[1] + cell[0])
    return np.asarray(texture * _PYRAMID + _LEVEL_START[level] + place[1] * texels + place[0])


def _average(samples: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Means of 2 x 2 packed pixels, halves rounded up, two channels at a time within a word."""
    sums = []
    for lanes, half in ((0x00FF00FF, 0x00020002), (0x0000FF00, 0x00000200)):
        part = samples & np.uint32(lanes)
        part = part[:, ::2] + part[:, 1::2]
        part = part[:, :, ::2] + part[:, :, 1::2]
        sums.append((part + np.uint32(half)) >> np.uint32(2) & np.uint32(lanes))
    packed = np.ascontiguousarray(sums[0] | sums[1], dtype="<u4")
    return packed.view(np.uint8).reshape(*packed.shape, 4)[..., :3]
