"""Maps of cells and passages, and walks through them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "HEADINGS",
    "MOVES",
    "GridworldError",
    "RandomWalk",
    "World",
    "maze",
    "pose",
    "ring",
    "torus",
    "tour",
    "walk",
]

HEADINGS = ("north", "east", "south", "west")
MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))  # rows down, columns right


class GridworldError(ValueError):
    """Not a world, view, prior or path that fits; the message names what is wrong and what was expected."""


@dataclass(frozen=True)
class World:
    """Cells on a grid, numbered row by row, and the passages between them.

    Attributes:
        rows, columns: the grid's size.
        wraps: whether leaving over the (north or south, east or west) edge comes back on the other side.
        neighbours: for each cell, the cell reached by going north, east, south, west; -1 where there is a wall.
        name: what tables and figures call it.

    Raises:
        GridworldError: if a passage leads off the map or cannot be walked back, or a cell cannot be reached.
    """

    rows: int
    columns: int
    wraps: tuple[bool, bool]
    neighbours: tuple[tuple[int, ...], ...]
    name: str = field(default="world", compare=False)

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1 or self.cells < 2:
            raise GridworldError(f"a world needs at least 2 cells, got {self.rows} x {self.columns}")
        if len(self.neighbours) != self.cells or any(len(row) != 4 for row in self.neighbours):
            raise GridworldError(f"{self.cells} cells need as many rows of 4 neighbours")
        for cell, row in enumerate(self.neighbours):
            for heading, other in enumerate(row):
                if other == -1:
                    continue
                if other != self.at(cell, *MOVES[heading]) or self.neighbours[other][heading - 2] != cell:
                    raise GridworldError(
                        f"the passage from cell {cell} {HEADINGS[heading]} to {other} is not one to the next cell "
                        "and back"
                    )
        reached, frontier = {0}, [0]
        while frontier:
            fresh = {other for other in self.neighbours[frontier.pop()] if other != -1} - reached
            reached |= fresh
            frontier.extend(fresh)
        if len(reached) < self.cells:
            raise GridworldError(f"cell {min(set(range(self.cells)) - reached)} cannot be reached from cell 0")

    @property
    def cells(self) -> int:
        """The number of cells."""
        return self.rows * self.columns

    def at(self, cell: int, down: int, right: int) -> int:
        """The cell that lies so many rows down and columns right of ``cell``; -1 beyond an edge."""
        row, column = cell // self.columns + down, cell % self.columns + right
        if self.wraps[0]:
            row %= self.rows
        if self.wraps[1]:
            column %= self.columns
        if 0 <= row < self.rows and 0 <= column < self.columns:
            return row * self.columns + column
        return -1


def ring(cells: int) -> World:
    """A corridor of ``cells`` cells closed to a ring, walls on both sides; 3 cells at least."""
    if cells < 3:
        raise GridworldError(f"a ring needs at least 3 cells, got {cells}")
    around = tuple((-1, (cell + 1) % cells, -1, (cell - 1) % cells) for cell in range(cells))
    return World(1, cells, (False, True), around, f"ring of {cells}")


def torus(rows: int, columns: int) -> World:
    """An open plane of rows x columns cells that wraps on both sides; 2 at least each way."""
    if rows < 2 or columns < 2:
        raise GridworldError(f"a torus needs at least 2 rows and 2 columns, got {rows} x {columns}")
    plane = tuple(
        tuple((r + down) % rows * columns + (c + right) % columns for down, right in MOVES)
        for r in range(rows)
        for c in range(columns)
    )
    return World(rows, columns, (True, True), plane, f"torus of {rows} x {columns}")


def maze(rows: int, columns: int, seed: int = 0) -> World:
    """A maze whose passages form a spanning tree, carved by a seeded random depth-first walk.

    Example:
        >>> sum(cell >= 0 for row in maze(3, 3, seed=1).neighbours for cell in row)  # 8 passages, two ways each
        16
    """
    if rows < 1 or columns < 1 or rows * columns < 2:
        raise GridworldError(f"a maze needs at least 2 cells, got {rows} x {columns}")
    generator = np.random.default_rng(seed)
    passages = [[-1] * 4 for _ in range(rows * columns)]
    carved, stack = {0}, [0]
    while stack:
        row, column = divmod(stack[-1], columns)
        solid = [
            (heading, (row + down) * columns + column + right)
            for heading, (down, right) in enumerate(MOVES)
            if 0 <= row + down < rows and 0 <= column + right < columns
        ]
        solid = [(heading, other) for heading, other in solid if other not in carved]
        if not solid:
            stack.pop()
            continue
        heading, other = solid[int(generator.integers(len(solid)))]
        passages[stack[-1]][heading], passages[other][heading - 2] = other, stack[-1]
        carved.add(other)
        stack.append(other)
    return World(rows, columns, (False, False), tuple(map(tuple, passages)), f"maze of {rows} x {columns}")


def pose(cell: int, heading: int = 0) -> int:
    """The number of the pose (cell, heading): 4 · cell + heading, headings as in ``HEADINGS``."""
    return 4 * cell + heading


def walk(world: World, start: int, moves: Sequence[int]) -> NDArray[np.int64]:
    """Poses of a walk from cell ``start``: one frame a move and one before, looking where it goes.

    Args:
        world: where.
        start: the first cell.
        moves: headings; the first frame looks along the first of them.

    Raises:
        GridworldError: naming the move that runs into a wall.
    """
    if not 0 <= start < world.cells:
        raise GridworldError(f"the walk must start in a cell from 0 to {world.cells - 1}, got {start}")
    cell, poses = start, [pose(start, moves[0] if len(moves) else 0)]
    for step, heading in enumerate(moves):
        if heading not in range(4):
            raise GridworldError(f"move {step + 1} must be a heading from 0 to 3, got {heading}")
        if world.neighbours[cell][heading] == -1:
            raise GridworldError(f"move {step + 1} runs into the {HEADINGS[heading]} wall of cell {cell}")
        cell = world.neighbours[cell][heading]
        poses.append(pose(cell, heading))
    return np.array(poses, dtype=np.int64)


def tour(world: World, frames: int, start: int = 0) -> NDArray[np.int64]:
    """A walk that always goes to the neighbour it left longest ago: straight on, right, left, back when tied.

    It goes round a ring, sweeps a torus and explores a maze into its dead ends and back.
    """
    if frames < 1:
        raise GridworldError(f"a tour needs at least one frame, got {frames}")
    last_visit = [-1] * world.cells
    cell, moves, heading = start, list[int](), 1
    for step in range(frames - 1):
        last_visit[cell] = step
        turns = [(heading + turn) % 4 for turn in (0, 1, 3, 2)]
        heading = min(
            (turn for turn in turns if world.neighbours[cell][turn] != -1),
            key=lambda turn: last_visit[world.neighbours[cell][turn]],
        )
        moves.append(heading)
        cell = world.neighbours[cell][heading]
    return walk(world, start, moves)


@dataclass(frozen=True)
class RandomWalk:
    """A walker that stays with probability ``stay`` and else takes any open passage alike.

    It starts in cell ``start``, looks along the first open passage, and from then on along its last move.
    """

    start: int = 0
    stay: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.stay < 1:
            raise GridworldError(f"the probability of staying must lie in [0, 1), got {self.stay}")
