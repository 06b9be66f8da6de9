"""What a simulator is: a source of worlds to walk in and to look at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

__all__ = ["FORWARD", "LEFT", "MOVES", "RIGHT", "STEP", "Simulator", "World", "pose_distance", "reckoned"]

LEFT, RIGHT, FORWARD = 0, 1, 2

# Steps (row, column) to the neighbours north, east, south and west: rows count southwards, columns eastwards.
MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))

STEP = (0.25, 15.0)
"""What an action does: a way forward in cells, or a turn in degrees."""


def pose_distance(poses: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Between poses (..., 3), in steps: √((way / 0.25 cells)² + (turn / 15 degrees)²), broadcast over the rest."""
    apart = poses - others
    turn = (apart[..., 2] + 180) % 360 - 180
    distance: NDArray[np.float64] = np.sqrt((apart[..., :2] ** 2).sum(-1) / STEP[0] ** 2 + (turn / STEP[1]) ** 2)
    return distance


def reckoned(actions: NDArray[np.int64]) -> NDArray[np.float64]:
    """Dead reckoning: where actions lead if each does exactly its step, (frames, 3), from (0, 0) and facing north.

    Args:
        actions: (frames,), the action that led to each frame; any but left, right and forward moves nothing.

    Example:
        >>> reckoned(np.array([-1, RIGHT, RIGHT, LEFT]))[:, 2].tolist()
        [0.0, 15.0, 30.0, 15.0]
    """
    heading = np.cumsum(STEP[1] * ((actions == RIGHT) * 1.0 - (actions == LEFT)))
    ahead = STEP[0] * (actions == FORWARD)
    east, north = np.sin(np.radians(heading)), np.cos(np.radians(heading))
    return np.stack([np.cumsum(ahead * east), np.cumsum(-ahead * north), heading], -1)


@runtime_checkable
class World(Protocol):
    """A place to walk in: a grid of unit cells, of which (row, column) has its middle at (column, row) + 1/2."""

    @property
    def passages(self) -> NDArray[np.bool_]:
        """Whether one can go from a cell to its neighbour north, east, south, west; shape (rows, columns, 4).

        A passage can be walked both ways, and none leads off the grid. A cell without passages is no floor.
        """
        ...

    @property
    def description(self) -> Mapping[str, Any]:
        """What there is to know about this world, as JSON would hold it."""
        ...

    def render(self, poses: NDArray[np.float64]) -> NDArray[np.uint8]:
        """The pictures seen at the poses; equal poses give equal bytes, whatever else is in the batch.

        Args:
            poses: shape (frames, 3): x east and y south in cells, heading in degrees clockwise from north.

        Returns:
            shape (frames, size, size, 3).
        """
        ...


@runtime_checkable
class Simulator(Protocol):
    """A source of worlds.

    Attributes:
        name: what tables and file headers call it.
        size: height and width of its pictures, in pixels.
    """

    @property
    def name(self) -> str:  # noqa: D102
        ...

    @property
    def size(self) -> int:  # noqa: D102
        ...

    def world(self, seed: int) -> World:
        """The world of a seed, always the same."""
        ...
