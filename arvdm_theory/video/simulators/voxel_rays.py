"""Pictures of a landscape of blocks, by casting a ray for every sample of a picture.

A camera at (x, y, z) looks level along its heading. With u the column's place in [-1, 1] times tan 35°, and s the
row's slope, which falls by as much from the top of the picture to its bottom, the ray is

    (x, y) + t · (forward + u · right),     height z + t · s.

The rays of one picture column cross the same columns of blocks at the same t, so one digital differential analyser
walks for all of them. At each of its steps, a ray that dips below the highest block of the column looks up the
block nearest to it upwards or downwards, and either meets it before it leaves the column or goes on. Rays that
have met a block, or can meet none, are dropped from the set every few steps. Every pixel averages 2 x 2 samples.
Every operation works on numbers one by one, so that equal cameras give equal bytes, whatever else is drawn with
them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from arvdm_theory.video.simulators.blocks import LEVEL_START, LEVELS, PYRAMID, TEXELS, block, faces, texels
from arvdm_theory.video.simulators.terrain import LEVELS_UP, Terrain

__all__ = ["VIEW", "Sky", "render"]

# How far one sees, in blocks; the haze hides what is further.
VIEW = 48
_HAZE_BEGINS = 20

# Samples a pixel in each direction; :func:`_draw` averages pairs.
_SAMPLES = 2
# As many as keep the working arrays within a core's cache.
_SAMPLES_AT_A_TIME = 2**16
_STEPS_BEFORE_DROPPING = 4
_FAR = np.float32(np.inf)

_WIDE = np.tan(np.deg2rad(35.0))
# By how much the middle of the picture looks down.
_DOWN = 0.12

# Light by face: across x, across y, top, bottom.
_FACE_LIGHT = np.array([0.68, 0.84, 1.0, 0.5], np.float32)
_TOP = 2
_WATER = block("water")
_HAZE = np.array([188, 210, 236], np.float32)
_ZENITH = np.array([104, 158, 232], np.float32)
_CLOUD = np.array([246, 248, 252], np.float32)
_SUN = np.array([255, 250, 208], np.float32)
# Clouds lie flat, so many blocks above the ground, in square pieces.
_CLOUD_HEIGHT = 40
_CLOUD_PIECE = 10
_CLOUD_VIEW = 220
_SUN_WIDTH = 0.07

_Floats = NDArray[np.float32]
_Whole = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Sky:
    """What stands in the sky.

    Attributes:
        clouds: which pieces are cloud, without end in both directions, shape (rows, columns).
        sun: where the sun stands, (azimuth clockwise from north in radians, tangent of its height).
    """

    clouds: NDArray[np.bool_]
    sun: tuple[float, float]


@dataclass(frozen=True, eq=False)
class _Columns:
    """The picture columns of all cameras; every array has shape (frames · columns,)."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    z: _Floats
    east: NDArray[np.float64]
    south: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Hits:
    """What each ray meets; every array has shape (rays,), and a ray that meets nothing has distance infinity.

    Attributes:
        distance: t.
        voxel: the block, as flat index.
        front: the voxel of air from which it is met.
        face: 0 across x, 1 across y, 2 on top, 3 at the bottom.
    """

    distance: _Floats
    voxel: _Whole
    front: _Whole
    face: _Whole


@dataclass(frozen=True, eq=False)
class _Path:
    """The columns of blocks that each picture column crosses, in order; every array has shape (steps, columns).

    Attributes:
        cell: the column of blocks, as flat index.
        leave: t on leaving it.
        back: from a voxel to that on the side it was entered from, in flat indices.
        axis: the axis crossed on entering it, 0 for x and 1 for y.
        top: its height, and minus infinity when it is out of sight.
        skyline: the greatest height of it and all that follow.
    """

    cell: _Whole
    leave: _Floats
    back: _Whole
    axis: _Whole
    top: _Floats
    skyline: _Floats


def render(terrain: Terrain, sky: Sky, cameras: NDArray[np.float64], size: int) -> NDArray[np.uint8]:
    """The pictures that cameras take.

    Args:
        terrain: the landscape.
        sky: the sky above.
        cameras: shape (frames, 4): x east, y south and z up in blocks, at least ``VIEW`` + 1 from the landscape's
            edges and in the air, and the heading in degrees clockwise from north.
        size: height and width of a picture.

    Returns:
        shape (frames, size, size, 3).
    """
    frames = np.empty((len(cameras), size, size, 3), np.uint8)
    step = max(1, _SAMPLES_AT_A_TIME // (_SAMPLES * size) ** 2)
    for start in range(0, len(cameras), step):
        frames[start : start + step] = _draw(terrain, sky, cameras[start : start + step], size)
    return frames


def _draw(terrain: Terrain, sky: Sky, cameras: NDArray[np.float64], size: int) -> NDArray[np.uint8]:
    side = _SAMPLES * size
    across = ((np.arange(side) + 0.5) * (2 / side) - 1) * _WIDE
    slopes = (-across - _DOWN).astype(np.float32)
    heading = np.deg2rad(cameras[:, 3, None])
    columns = _Columns(
        x=cameras[:, 0].repeat(side),
        y=cameras[:, 1].repeat(side),
        z=cameras[:, 2].astype(np.float32).repeat(side),
        east=(np.sin(heading) + across * np.cos(heading)).reshape(-1),
        south=(across * np.sin(heading) - np.cos(heading)).reshape(-1),
    )
    hits = _cast(terrain, columns, slopes)
    colours = np.empty((len(hits.distance), 3), np.float32)
    met = np.flatnonzero(np.isfinite(hits.distance))
    colours[met] = _surface(terrain, columns, slopes, hits, met, size)
    missed = np.flatnonzero(~np.isfinite(hits.distance))
    colours[missed] = _heaven(sky, columns, slopes, missed)
    samples = colours.reshape(len(cameras), side, side, 3)
    pairs = samples[:, ::2] + samples[:, 1::2]
    means = (pairs[:, :, ::2] + pairs[:, :, 1::2]) * np.float32(1 / _SAMPLES**2)
    return (means + np.float32(0.5)).astype(np.uint8).transpose(0, 2, 1, 3)


def _walk(terrain: Terrain, columns: _Columns) -> _Path:
    """Walks along every picture column, from one column of blocks to the next, as far as one sees."""
    width = terrain.voxels.shape[1]
    at_x, at_y = np.floor(columns.x), np.floor(columns.y)
    cell = at_y.astype(np.intp) * width + at_x.astype(np.intp)
    step_x = np.where(columns.east > 0, 1, -1)
    step_y = np.where(columns.south > 0, width, -width)
    # A ray along the lines meets the next of them out of sight.
    every_x, every_y = (1 / np.maximum(np.abs(direction), 1e-30) for direction in (columns.east, columns.south))
    next_x = np.where(columns.east > 0, at_x + 1 - columns.x, columns.x - at_x) * every_x
    next_y = np.where(columns.south > 0, at_y + 1 - columns.y, columns.y - at_y) * every_y
    end = VIEW / np.hypot(columns.east, columns.south)
    steps = []
    back, across, on = np.zeros(len(cell), np.intp), np.zeros(len(cell), np.intp), np.ones(len(cell), bool)
    while on.any():
        by_x = next_x < next_y
        leave = np.minimum(next_x, next_y)
        steps.append((cell, leave.astype(np.float32), back, across, np.where(on, terrain.top.take(cell), -_FAR)))
        on &= leave < end
        moved = np.where(by_x, step_x, step_y) * on  # those at the end stay in sight of it
        back, across = -LEVELS_UP * moved, np.where(by_x, 0, 1)
        cell = cell + moved
        next_x = np.where(by_x, next_x + every_x, next_x)
        next_y = np.where(by_x, next_y, next_y + every_y)
    cells, leaves, backs, axes, tops = (np.stack(part) for part in zip(*steps, strict=True))
    return _Path(cells, leaves, backs, axes, tops, np.maximum.accumulate(tops[::-1])[::-1])


def _cast(terrain: Terrain, columns: _Columns, slopes: _Floats) -> _Hits:
    """Finds the first block on every ray."""
    count, height = len(columns.x), len(slopes)
    path, nearest, half = _walk(terrain, columns), terrain.nearest, terrain.voxels.size
    hits = _Hits(
        distance=np.full(count * height, np.inf, np.float32),
        voxel=np.zeros(count * height, np.intp),
        front=np.zeros(count * height, np.intp),
        face=np.zeros(count * height, np.intp),
    )
    # The rays still on their way: number, picture column, slope, start height and height on entering the blocks'
    # column. Those that have met a block are lifted to infinity, where they meet none, until they are dropped.
    ray = np.arange(count * height)
    of = ray // height
    slope, start = np.tile(slopes, count), columns.z[of]
    before = start.copy()
    enter = np.zeros(count, np.float32)
    for step, (cell, leave, back, across, top) in enumerate(
        zip(path.cell, path.leave, path.back, path.axis, path.top, strict=True)
    ):
        if step % _STEPS_BEFORE_DROPPING == 1:
            skyline = path.skyline[step]
            falling = np.where(skyline > -_FAR, _FAR, -_FAR)
            keep = np.flatnonzero(before < np.where(slope < 0, falling.take(of), skyline.take(of)))
            ray, of, start, slope, before = ray[keep], of[keep], start[keep], slope[keep], before[keep]
        after = leave.take(of)
        after *= slope
        after += start
        dips = np.flatnonzero(np.minimum(before, after) < top.take(of))
        if len(dips):
            column, low, high = of[dips], before[dips], after[dips]
            rises = slope[dips] >= 0
            base = cell[column] * LEVELS_UP
            level = low.astype(np.intp)
            block = nearest.take(base + level + np.where(rises, 0, half)).astype(np.intp)
            edge = (block + ~rises).astype(np.float32)  # the side of the block that the ray comes upon
            meets = np.flatnonzero(np.where(rises, high >= edge, high < edge))
            dips, column, block, edge = dips[meets], column[meets], block[meets], edge[meets]
            beside, rises = block == level[meets], rises[meets]
            number, voxel = ray[dips], base[meets] + block
            with np.errstate(divide="ignore", invalid="ignore"):  # a level ray meets blocks from the side alone
                upright = (edge - start[dips]) / slope[dips]
            hits.distance[number] = np.where(beside, enter[column], upright)
            hits.voxel[number] = voxel
            hits.front[number] = voxel + np.where(beside, back[column], np.where(rises, -1, 1))
            hits.face[number] = np.where(beside, across[column], np.where(rises, 3, _TOP))
            start[dips] = after[dips] = np.inf
        before, enter = after, leave
    return hits


def _surface(terrain: Terrain, columns: _Columns, slopes: _Floats, hits: _Hits, met: _Whole, size: int) -> _Floats:
    """The colours of the faces met, shape (rays, 3)."""
    of = met // len(slopes)
    slope = slopes[met % len(slopes)]
    distance, voxel, face = hits.distance[met], hits.voxel[met], hits.face[met]
    x = columns.x.astype(np.float32)[of] + distance * columns.east.astype(np.float32)[of]
    y = columns.y.astype(np.float32)[of] + distance * columns.south.astype(np.float32)[of]
    z = columns.z[of] + distance * slope
    lies = face >= _TOP
    along = np.where(face == 0, y, x)
    upward = np.where(lies, y, z)
    grain = terrain.grain.take(voxel)

    # Samples lie p · t apart sideways, and on a lying face p · t / |s| in depth: the geometric mean decides.
    footprint = np.float32(TEXELS * 2 * _WIDE / (_SAMPLES * size) * np.sqrt(2)) * distance
    stretch = np.where(lies, np.abs(slope), np.float32(1))
    level = np.clip(np.frexp(footprint / np.sqrt(stretch))[1] - 1, 0, LEVELS - 1)
    size_there = (TEXELS >> level).astype(np.float32)
    across = ((along - np.floor(along)) * size_there).astype(np.intp)
    down = ((upward - np.floor(upward)) * size_there).astype(np.intp)
    last = (TEXELS >> level) - 1
    across = np.where(grain & 1, across, last - across)
    down = np.where(lies & (grain & 2 > 0), down, last - down)
    texture = faces().take(terrain.voxels.reshape(-1).take(voxel) * 4 + face)
    colours = texels()[texture * PYRAMID + LEVEL_START[level] + down * (last + 1) + across]

    light = _FACE_LIGHT[face] * terrain.light.take(hits.front[met])
    light *= np.float32(0.94) + grain.astype(np.float32) * np.float32(0.12 / 255)
    colours *= light[:, None]
    ahead = np.sqrt(np.square(columns.east) + np.square(columns.south)).astype(np.float32)[of]
    _blend(colours, _mirrored(terrain, hits, met, slope / ahead), _HAZE)
    haze = np.clip((distance * ahead - _HAZE_BEGINS) * np.float32(1 / (VIEW - _HAZE_BEGINS)), 0, 1)
    _blend(colours, haze * haze, _HAZE)
    return np.asarray(colours)


def _mirrored(terrain: Terrain, hits: _Hits, met: _Whole, slope: _Floats) -> _Floats:
    """How much of the sky a face mirrors: water does, and the more the flatter one looks at it."""
    water = (terrain.voxels.reshape(-1).take(hits.voxel[met]) == _WATER) & (hits.face[met] == _TOP)
    flat: _Floats = 1 - np.minimum(np.abs(slope), 1)
    return np.asarray(np.where(water, np.float32(0.75) * flat * flat * flat, np.float32(0)))


def _heaven(sky: Sky, columns: _Columns, slopes: _Floats, missed: _Whole) -> _Floats:
    """The colours of the sky, shape (rays, 3)."""
    of = missed // len(slopes)
    east, south = columns.east.astype(np.float32)[of], columns.south.astype(np.float32)[of]
    ahead = np.sqrt(east * east + south * south)
    slope = slopes[missed % len(slopes)] / ahead
    colours = np.tile(_HAZE, (len(missed), 1))
    _blend(colours, np.clip(slope * np.float32(1.6), 0, 1), _ZENITH)
    azimuth, height = sky.sun
    to_east, to_south = np.float32(np.sin(azimuth)), np.float32(-np.cos(azimuth))
    towards = (east * to_east + south * to_south) / ahead
    sideways = (east * to_south - south * to_east) / ahead
    sun = (towards > 0) & (np.maximum(np.abs(sideways), np.abs(slope - np.float32(height))) < _SUN_WIDTH)
    colours[sun] = _SUN
    with np.errstate(divide="ignore"):
        away = np.where(slope > 0, _CLOUD_HEIGHT / np.maximum(slope, np.float32(1e-6)), np.float32(1e6))
    near = np.flatnonzero(away < _CLOUD_VIEW)
    away, scale = away[near], away[near] / ahead[near]
    rows, places = sky.clouds.shape, []
    for origin, direction, count in ((columns.y, south, rows[0]), (columns.x, east, rows[1])):
        at = (origin.astype(np.float32)[of[near]] + scale * direction[near]) * np.float32(1 / _CLOUD_PIECE)
        places.append(np.floor(at).astype(np.intp) % count)
    cloudy = sky.clouds[places[0], places[1]]
    share = np.where(cloudy, np.float32(0.85) * (1 - away * np.float32(1 / _CLOUD_VIEW)), np.float32(0))
    part = colours[near]
    _blend(part, share, _CLOUD)
    colours[near] = part
    return colours


def _blend(colours: _Floats, share: _Floats, other: _Floats) -> None:
    """Mixes in a share of another colour, in place."""
    colours += (other - colours) * share[:, None]
