"""What a frame of the walker shows: which cell each pixel is of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from arvdm_theory.laws.gridworld.world import MOVES, GridworldError, World, pose

__all__ = ["GREYS", "View"]

# Entries of π that are no cell, and their greys: no colour of a palette is a grey.
_SKY, _WALL, _OUTSIDE = -1, -2, -3
GREYS = {_SKY: 0.8, _WALL: 0.35, _OUTSIDE: 0.0}

# The eye's height over the floor, in cells. At 0.5 the edges of the walker's lane would run through the middles of
# pixels on the diagonals, and rounding would choose their colour.
_EYE = 0.49


@dataclass(frozen=True)
class View:
    """What a frame shows.

    Attributes:
        kind: ``patch`` (the colour of the walker's cell), ``topdown`` (the cells up to ``radius`` away, the walker
            in the middle, north up, walls as dark lines) or ``firstperson`` (floors and walls, raycast over 90
            degrees from the back of the walker's cell).
        size: frames have size x size pixels.
        radius: of the top-down view, in cells.
        reach: how far the first-person view sees floors and walls, in cells from the eye.
    """

    kind: Literal["patch", "topdown", "firstperson"] = "patch"
    size: int = 16
    radius: int = 1
    reach: float = 3.0

    def __post_init__(self) -> None:
        if self.kind not in ("patch", "topdown", "firstperson"):
            raise GridworldError(f"a view is 'patch', 'topdown' or 'firstperson', got {self.kind!r}")
        if self.radius < 0 or not (math.isfinite(self.reach) and self.reach >= 1):
            raise GridworldError(f"radius ≥ 0 and 1 ≤ reach < ∞ are needed, got {self.radius} and {self.reach}")
        # A cell needs a pixel: across the neighbourhood, or of the walker's own floor below the horizon.
        least = {"patch": 1, "topdown": 2 * self.radius + 1, "firstperson": 4}[self.kind]
        if self.size < least:
            raise GridworldError(f"this {self.kind} view needs at least {least} pixels a side, got {self.size}")

    @property
    def sees_heading(self) -> bool:
        """Whether the picture depends on where the walker looks."""
        return self.kind == "firstperson"

    def pixels(self, world: World) -> NDArray[np.int64]:
        """π: which cell (or sky, wall, outside, all negative) each pixel shows, (poses, size, size)."""
        table = np.empty((4 * world.cells, self.size, self.size), dtype=np.int64)
        for cell in range(world.cells):
            if self.kind == "firstperson":
                for heading in range(4):
                    table[pose(cell, heading)] = self._first_person(world, cell, heading)
            else:
                picture = cell if self.kind == "patch" else self._top_down(world, cell)
                table[pose(cell) : pose(cell) + 4] = picture
        return table

    def _top_down(self, world: World, cell: int) -> NDArray[np.int64]:
        across = 2 * self.radius + 1
        place = (np.arange(self.size) + 0.5) / self.size * across
        offset = np.floor(place).astype(int) - self.radius
        picture = np.array([[world.at(cell, down, right) for right in offset] for down in offset])
        picture[picture < 0] = _OUTSIDE
        block = self.size / across
        if block < 4:
            return picture  # too coarse for lines
        low, high = place % 1 * block < 1, (1 - place % 1) * block < 1
        for heading, edge in enumerate((low[:, None], high[None, :], high[:, None], low[None, :])):
            closed = np.array([row[heading] == -1 for row in world.neighbours])
            picture[edge & (picture >= 0) & closed[picture]] = _WALL
        return picture

    def _first_person(self, world: World, cell: int, heading: int) -> NDArray[np.int64]:
        # Floor at depth z appears _EYE/z below the horizon, a wall's top as far above it.
        height = (np.arange(self.size) + 0.5) / self.size * 2 - 1
        depth = _EYE / np.maximum(np.abs(height), 1e-9)
        picture = np.empty((self.size, self.size), dtype=np.int64)
        for column, slope in enumerate((np.arange(self.size) + 0.5) / self.size * 2 - 1):
            crossings, cells, wall = self._ray(world, cell, heading, float(slope))
            floor = np.array(cells)[np.searchsorted(crossings, depth)]
            below = np.where((height > 0) & (depth < self.reach), floor, _SKY)
            picture[:, column] = np.where(depth > wall, _WALL if wall < self.reach else _SKY, below)
        return picture

    def _ray(self, world: World, cell: int, heading: int, slope: float) -> tuple[list[float], list[int], float]:
        """Depths at which a ray enters further cells, the cells from the first on, and the wall's depth.

        The ray goes one cell ahead and ``slope`` cells to the right per unit of depth.
        """
        ahead, right = MOVES[heading], MOVES[(heading + 1) % 4]
        direction = tuple(a + slope * r for a, r in zip(ahead, right, strict=True))
        # From 0.45 cells behind the middle, so that the walker's own floor is in the picture.
        eye = tuple(0.5 - 0.45 * a for a in ahead)
        following = [
            (1 - e) / d if d > 0 else -e / d if d < 0 else math.inf for e, d in zip(eye, direction, strict=True)
        ]
        crossings, cells = list[float](), [cell]
        while True:
            axis = 0 if following[0] <= following[1] else 1
            at = following[axis]
            if at >= self.reach:
                return crossings, cells, math.inf
            turn = (2 if direction[0] > 0 else 0) if axis == 0 else (1 if direction[1] > 0 else 3)
            cell = world.neighbours[cell][turn]
            if cell == -1:
                return crossings, cells, at
            crossings.append(at)
            cells.append(cell)
            following[axis] += 1 / abs(direction[axis])
