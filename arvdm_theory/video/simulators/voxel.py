"""A stand-in for the Minecraft videos: a landscape of blocks seen by someone who walks in it.

This is not Minecraft but a stand-in for it: a ray caster draws hills, woods, lakes and huts of textured blocks,
with light by face, shade under trees, haze and a sky of flat clouds. The walker's eye follows the ground
smoothly, without jumps or bobbing, and looks level. Nothing moves but the walker, so a pose met again shows the
same picture.

Actions are numbered as TECO's Minecraft data has them, below 4: 0 turns left, 1 turns right, 2 goes forward, and 3
stands still. No trajectory stands still, so a recording holds 0 to 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label

from arvdm_theory.video.simulators.blocks import AIR, BLOCKS, block
from arvdm_theory.video.simulators.terrain import SEA, Terrain, landscape, value_noise
from arvdm_theory.video.simulators.voxel_rays import VIEW, Sky, render
from arvdm_theory.video.simulators.worlds import MOVES

__all__ = ["CELL", "MinecraftStandIn", "VoxelWorld", "simulator"]

# Side of a cell of the walker's grid, in blocks.
CELL = 3
# Blocks around the walker's grid: as far as one sees.
_MARGIN = VIEW + 2
_EYE = 1.62
# A walker climbs so many blocks from one cell to the next.
_CLIMB = 2


@dataclass(frozen=True, eq=False)
class VoxelWorld:
    """A landscape of one seed; a :class:`~arvdm_theory.video.simulators.worlds.World`.

    Attributes:
        terrain: the blocks, those that can only be seen included.
        sky: the sky.
        standing: the height on which one stands in the middle of a cell, in blocks, shape (rows, columns).
        size: height and width of its pictures.
        passages: between cells that are dry, free of trees and not too steep, shape (rows, columns, 4).
        description: the walker's grid as text, a row a line ('.' where one can walk), the cell's side in blocks,
            and how many of each block lie bare to the sky.
    """

    terrain: Terrain
    sky: Sky
    standing: NDArray[np.float64]
    size: int
    passages: NDArray[np.bool_]
    description: Mapping[str, Any]

    def render(self, poses: NDArray[np.float64]) -> NDArray[np.uint8]:
        """The pictures seen at the poses (frames, 3): x, y in cells and heading in degrees."""
        return render(self.terrain, self.sky, self.cameras(poses), self.size)

    def cameras(self, poses: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where the eye is, shape (frames, 4): x, y and z in blocks and the heading in degrees.

        Between the middles of cells the height is interpolated, so the eye rises and falls smoothly. It stays
        above every block passed: of two cells d <= 2 blocks apart, it passes the edge between them 1.62 - d/2
        above the higher.
        """
        height = np.full(len(poses), _EYE)
        (row, down), (column, right) = (
            (cell.astype(np.intp), at - cell)
            for cell, at in ((np.floor(at), at) for at in (poses[:, 1] - 0.5, poses[:, 0] - 0.5))
        )
        for row_on, by_row in ((0, 1 - down), (1, down)):
            for column_on, by_column in ((0, 1 - right), (1, right)):
                at = tuple(
                    np.clip(place, 0, side - 1)
                    for place, side in zip((row + row_on, column + column_on), self.standing.shape, strict=True)
                )
                height += by_row * by_column * self.standing[at]
        return np.column_stack([poses[:, :2] * CELL + _MARGIN, height, poses[:, 2]])


@dataclass(frozen=True)
class MinecraftStandIn:
    """Landscapes of blocks; a :class:`~arvdm_theory.video.simulators.worlds.Simulator`.

    Attributes:
        size: height and width of the pictures, 8 to 512 pixels.
        cells: rows and columns of the walker's grid, 6 to 64; a cell has 3 x 3 blocks.

    Raises:
        ValueError: if a number is out of range.
    """

    size: int = 128
    cells: int = 12
    name: str = "Minecraft stand-in"

    def __post_init__(self) -> None:
        if not 8 <= self.size <= 512:
            raise ValueError(f"the pictures are 8 to 512 pixels high and wide, got {self.size}")
        if not 6 <= self.cells <= 64:
            raise ValueError(f"the walker's grid has 6 to 64 rows and columns, got {self.cells}")

    def world(self, seed: int) -> VoxelWorld:
        """The landscape of a seed: the first one drawn of which two fifths can be walked without a break."""
        rng = np.random.default_rng(seed)
        inside = slice(_MARGIN, _MARGIN + CELL * self.cells)
        while True:
            terrain = landscape(inside.stop + _MARGIN, inside, rng)
            standing, dry = _ground(terrain, inside)
            passages = _passages(standing, dry)
            if passages.any(-1).sum() >= 0.4 * self.cells**2:
                break
        clouds = value_noise((48, 48), 6, 2, rng) > 0.56
        sky = Sky(clouds, (float(rng.uniform(0, 2 * np.pi)), 0.3))
        bare = terrain.voxels.reshape(-1, terrain.voxels.shape[-1])
        names, counts = np.unique(bare[np.arange(len(bare)), terrain.top.astype(np.intp) - 1], return_counts=True)
        description = {
            "ground": ["".join("." if cell.any() else " " for cell in row) for row in passages],
            "cell": CELL,
            "blocks": {BLOCKS[name]: int(count) for name, count in zip(names, counts, strict=True)},
        }
        return VoxelWorld(terrain, sky, standing, self.size, passages, description)


def simulator(size: int = 128) -> MinecraftStandIn:
    """The simulator of this module, for pictures of size x size pixels."""
    return MinecraftStandIn(size)


def _ground(terrain: Terrain, inside: slice) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The highest ground of each cell, and whether all of it is dry and free for three blocks above it."""

    def cells(blocks: NDArray[Any]) -> NDArray[Any]:
        rows = (inside.stop - inside.start) // CELL
        return np.moveaxis(blocks[inside, inside].reshape(rows, CELL, rows, CELL, *blocks.shape[2:]), 2, 1)

    standing = cells(terrain.ground).max((2, 3))
    level = np.arange(terrain.voxels.shape[-1])
    upright = cells(terrain.voxels)
    above = (level >= standing[..., None]) & (level < standing[..., None] + 3)
    free = ((upright == AIR) | ~above[:, :, None, None]).all((2, 3, 4))
    wet = cells(terrain.voxels[..., SEA - 1] == block("water")).any((2, 3))
    return standing.astype(np.float64), free & ~wet


def _passages(standing: NDArray[np.float64], dry: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Between neighbours that can be walked, of the largest part of the grid that hangs together."""
    passages = np.zeros((*dry.shape, 4), bool)
    for move, (down, right) in enumerate(MOVES):
        here = np.s_[max(0, -down) : dry.shape[0] - max(0, down), max(0, -right) : dry.shape[1] - max(0, right)]
        there = np.s_[max(0, down) : dry.shape[0] + min(0, down), max(0, right) : dry.shape[1] + min(0, right)]
        gentle = np.abs(standing[here] - standing[there]) <= _CLIMB
        passages[(*here, move)] = dry[here] & dry[there] & gentle
    return passages & _largest_part(passages)[..., None]


def _largest_part(passages: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The cells of the largest set that is joined by passages."""
    rows, columns = passages.shape[:2]
    # Cells and the passages between them as pixels of one picture of which connected parts can be told.
    picture = np.zeros((2 * rows - 1, 2 * columns - 1), bool)
    picture[::2, ::2] = True
    picture[::2, 1::2] = passages[:, :-1, 1]
    picture[1::2, ::2] = passages[:-1, :, 2]
    parts = label(picture)[0][::2, ::2]
    return np.asarray(parts == np.bincount(parts.reshape(-1)).argmax())
