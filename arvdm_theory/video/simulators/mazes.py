"""Mazes of corridors and rooms from ``labmaze``, DeepMind Lab's own generator, and their regions."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from arvdm_theory.video.simulators.textures import labmaze
from arvdm_theory.video.simulators.worlds import MOVES

__all__ = ["Maze", "check_cells"]

_CELLS_A_REGION = 9


def check_cells(cells: int) -> None:
    """Refuses a maze that cannot be.

    Raises:
        ValueError: unless ``cells`` is odd, from 7 to 99.
    """
    if cells % 2 == 0 or not 7 <= cells <= 99:
        raise ValueError(f"a maze has an odd number of rows and columns, 7 to 99, got {cells}")


@dataclass(frozen=True, eq=False)
class Maze:
    """A maze on a grid of cells.

    Attributes:
        solid: which cells are wall, shape (rows, columns); the rim is.
        passages: between cells that are not, as :attr:`~arvdm_theory.video.simulators.worlds.World.passages`.
        region: number of the region that a floor cell belongs to, shape (rows, columns); 0 where there is wall.
    """

    solid: NDArray[np.bool_]
    passages: NDArray[np.bool_]
    region: NDArray[np.intp]

    @classmethod
    def random(cls, cells: int, rng: np.random.Generator) -> Maze:
        """A maze of ``cells`` rows and columns, its floor divided among a few random cells.

        Each floor cell belongs to the nearest of them as one walks.

        Raises:
            ValueError: if ``labmaze`` is not installed.
        """
        maze = labmaze().RandomMaze(
            height=cells,
            width=cells,
            max_rooms=4,
            room_min_size=3,
            room_max_size=3,
            # Without these two, dead ends would be walled up and corridors would not join in loops.
            simplify=False,
            extra_connection_probability=0.1,
            random_seed=int(rng.integers(2**31 - 1)),
        )
        solid = np.array([[symbol == "*" for symbol in row] for row in maze.entity_layer])
        passages = np.stack([~solid & ~np.roll(solid, (-down, -right), (0, 1)) for down, right in MOVES], -1)
        return cls(solid, passages, _regions(~solid, rng))

    @property
    def regions(self) -> int:
        """How many regions there are."""
        return int(self.region.max()) + 1

    @property
    def rows(self) -> list[str]:
        """The maze as text, ``*`` where there is wall."""
        return ["".join("*" if cell else " " for cell in row) for row in self.solid]


def _regions(floor: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.intp]:
    cells = np.argwhere(floor)
    seeds = rng.choice(len(cells), max(1, len(cells) // _CELLS_A_REGION), replace=False)
    regions = np.full(floor.shape, -1, np.intp)
    frontier: deque[tuple[int, int]] = deque()
    for region, seed in enumerate(seeds):
        here = (int(cells[seed][0]), int(cells[seed][1]))
        regions[here] = region
        frontier.append(here)
    while frontier:
        here = frontier.popleft()
        for down, right in MOVES:
            there = (here[0] + down, here[1] + right)
            if floor[there] and regions[there] < 0:
                regions[there] = regions[here]
                frontier.append(there)
    return np.where(regions < 0, 0, regions)
