"""Landscapes of blocks drawn from a seed: hills, lakes with beaches, woods of three kinds of tree, and huts.

Heights, the kinds of wood and the colour of the grass follow value noise: random values on a square lattice,
joined smoothly, in several octaves. Blocks are indexed (row, column, level): rows count southwards, levels
upwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from arvdm_theory.video.simulators.blocks import AIR, GRASS, block

__all__ = ["LEVELS_UP", "SEA", "Terrain", "landscape", "value_noise"]

LEVELS_UP = 32
SEA = 7  # the number of levels that are under water where no land is

# Side of the squares of which each has at most one tree, boulder or pumpkin.
_PLOT = 5
# How dark it is beneath a roof of blocks.
_SHADE = 0.5


@dataclass(frozen=True, eq=False)
class Terrain:
    """A landscape.

    Attributes:
        voxels: the block at (row, column, level), uint8; the lowest level is solid and the highest is air.
        ground: how many levels lie below the surface, trees and huts aside, shape (rows, columns).
        grain: random bytes, one for each voxel, by which blocks of one kind differ.
    """

    voxels: NDArray[np.uint8]
    ground: NDArray[np.int64]
    grain: NDArray[np.uint8]

    @cached_property
    def top(self) -> NDArray[np.float32]:
        """The height below which there may be a block, flat over (row, column)."""
        levels = np.arange(1, LEVELS_UP + 1) * (self.voxels != AIR)
        return np.asarray(levels.max(-1).reshape(-1), np.float32)

    @cached_property
    def nearest(self) -> NDArray[np.int8]:
        """The nearest level upwards and the nearest downwards that is not air, itself if it is not.

        Shape (2, rows, columns, levels), flattened; upwards of the highest block it is the number of levels.
        """
        solid, levels = self.voxels != AIR, np.arange(LEVELS_UP, dtype=np.int8)
        down = np.maximum.accumulate(np.where(solid, levels, np.int8(-1)), -1)
        up = np.minimum.accumulate(np.where(solid, levels, np.int8(LEVELS_UP))[..., ::-1], -1)[..., ::-1]
        return np.stack([up, down]).reshape(-1)

    @cached_property
    def light(self) -> NDArray[np.float32]:
        """How light the air is, 1 under the open sky, flattened: a mean over 3 x 3 voxels of a level.

        So it is darker at the foot of a slope, too.
        """
        solid = self.voxels != AIR
        covered = np.logical_or.accumulate(solid[..., ::-1], -1)[..., ::-1]
        padded = np.pad(covered.astype(np.uint8), ((1, 1), (1, 1), (0, 0)), "edge")
        rows = padded[:-2] + padded[1:-1] + padded[2:]
        count = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
        return np.asarray(1 - np.float32(_SHADE / 9) * count.astype(np.float32)).reshape(-1)


def value_noise(
    shape: tuple[int, int], period: float, octaves: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Smooth noise with values in [0, 1], each octave half as wide and half as strong as the one before.

    Args:
        shape: rows and columns.
        period: of the lattice of the first octave.
        octaves: how many.
        rng: source of the values.
    """
    total, weights = np.zeros(shape), 0.0
    for octave in range(octaves):
        step = period / 2**octave
        lattice = rng.random([int(side / step) + 2 for side in shape])
        (row, down), (column, right) = (
            (cell.astype(np.intp), fraction**2 * (3 - 2 * fraction))
            for cell, fraction in (
                (np.floor(at), at - np.floor(at)) for at in (np.arange(n) / step for n in shape)
            )
        )
        upper, lower = lattice[row], lattice[row + 1]
        rows = upper + (lower - upper) * down[:, None]
        total += 0.5**octave * (rows[:, column] + (rows[:, column + 1] - rows[:, column]) * right)
        weights += 0.5**octave
    return total / weights


def landscape(side: int, heart: slice, rng: np.random.Generator) -> Terrain:
    """Draws a landscape of side x side blocks.

    Args:
        side: rows and columns.
        heart: the rows, and columns, among which huts stand.
        rng: source of everything.
    """
    shape = (side, side)
    ground = np.floor(SEA - 5 + 14 * value_noise(shape, 26, 3, rng)).astype(np.int64)
    levels = np.arange(LEVELS_UP)
    depth = ground[..., None] - levels  # 1 is the surface
    voxels = np.where(depth >= 4, block("stone"), np.where(depth >= 2, block("dirt"), AIR)).astype(np.uint8)
    lushness = np.clip(8 * value_noise(shape, 40, 2, rng) - 2, 0, 3.99).astype(np.intp)
    surface = np.array([block(name) for name in GRASS])[lushness]
    flowers = value_noise(shape, 9, 1, rng) + 0.2 * rng.random(shape)
    kind = np.where(rng.random(shape) < 0.5, block("poppies"), block("dandelions"))
    surface = np.where(flowers > 0.92, kind, surface)
    rocky = value_noise(shape, 14, 2, rng) > 0.74
    surface = np.where(rocky, block("stone"), surface)
    surface = np.where(ground <= SEA, block("sand"), surface)
    voxels = np.where(depth == 1, surface[..., None], voxels).astype(np.uint8)
    voxels[(depth < 1) & (levels < SEA)] = block("water")
    taken = ground < SEA
    for _ in range(3):
        _hut(voxels, ground, taken, heart, rng)
    _plant(voxels, ground, taken | rocky, rng)
    return Terrain(voxels, np.maximum(ground, SEA), rng.integers(0, 256, voxels.size, dtype=np.uint8))


def _plant(
    voxels: NDArray[np.uint8], ground: NDArray[np.int64], taken: NDArray[np.bool_], rng: np.random.Generator
) -> None:
    """Sets trees, and here and there a boulder or a pumpkin, at most one to a plot."""
    plots = ground.shape[0] // _PLOT
    wood = value_noise((plots, plots), 5, 2, rng)
    sort = value_noise((plots, plots), 4, 1, rng) + 0.25 * rng.random((plots, plots))
    chance, offset = rng.random((plots, plots)), rng.integers(1, _PLOT - 1, (plots, plots, 2))
    for plot in np.argwhere(chance < 1.5 * wood - 0.2).tolist():
        row, column = (_PLOT * np.array(plot) + offset[tuple(plot)]).tolist()
        if (
            taken[row, column]
            or min(row, column, *(side - 1 - at for side, at in zip(ground.shape, (row, column), strict=True))) < 3
        ):
            continue
        z, share = int(ground[row, column]), chance[tuple(plot)]
        if share < 0.02:
            voxels[row - 1 : row + 1, column - 1 : column + 1, z : z + 2] = block("cobblestone")
        elif share < 0.05:
            voxels[row, column, z] = block("pumpkin")
        elif z > SEA:
            _tree(voxels, row, column, z, float(sort[tuple(plot)]), rng)


def _tree(voxels: NDArray[np.uint8], row: int, column: int, z: int, sort: float, rng: np.random.Generator) -> None:
    trunk = int(rng.integers(4, 7))
    if sort > 0.75:
        name, widths = "spruce", [0, 1, 0, 1, 2, 1, 2, 3]
        trunk += 3
    else:
        name, widths = ("birch" if sort < 0.5 else "oak"), [1, 1, 2, 2]
    leaves = block(f"{name} leaves")
    for below, width in enumerate(widths):
        level = z + trunk - below
        around = voxels[row - width : row + width + 1, column - width : column + width + 1, level]
        corner = np.add.outer(*[np.abs(np.arange(-width, width + 1)) == width] * 2) == 2
        keep = ~corner | ((rng.random(corner.shape) < 0.5) & (name != "spruce") & (width == 2))
        around[keep & (around == AIR)] = leaves
    voxels[row, column, z : z + trunk] = block(f"{name} log")


def _hut(
    voxels: NDArray[np.uint8],
    ground: NDArray[np.int64],
    taken: NDArray[np.bool_],
    heart: slice,
    rng: np.random.Generator,
) -> None:
    """Builds a hut of 5 x 5 blocks with a pyramid for a roof, if the place drawn is dry and level enough."""
    row, column = rng.integers(heart.start + 2, heart.stop - 7, 2).tolist()
    plot = np.s_[row : row + 5, column : column + 5]
    z = int(ground[plot].max())
    if taken[plot].any() or z - int(ground[plot].min()) > 2:
        return
    taken[row - 2 : row + 7, column - 2 : column + 7] = True
    walls = voxels[(*plot, slice(z, z + 3))]
    walls[:] = block("planks")
    walls[::4, ::4] = block("oak log")
    walls[2, ::4, 1] = walls[::4, 2, 1] = block("glass")
    for step in range(4):
        roof = np.s_[row - 1 + step : row + 6 - step, column - 1 + step : column + 6 - step, z + 3 + step]
        voxels[roof] = block("roof")
    foundation = voxels[(*plot, slice(0, z))]
    foundation[foundation == AIR] = block("cobblestone")
