"""A stand-in for the DMLab videos: coloured mazes seen from within, 64 x 64 pixels.

The mazes come from ``labmaze``, DeepMind Lab's own generator, and so do the textures of walls, floors and sky. The
rest is not DeepMind Lab but a stand-in for it: a ray caster draws the maze, without light, shadow or objects. The
floor is divided into regions, each with a wall and a floor of its own, and pictures hang on some walls, so that a
place can be told from others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arvdm_theory.video.simulators.raycaster import Scene, render
from arvdm_theory.video.simulators.textures import (
    SKY_STYLES,
    TEXELS,
    floor_textures,
    labmaze,
    panorama,
    pyramid,
    read_picture,
    wall_textures,
)
from arvdm_theory.video.simulators.worlds import MOVES

__all__ = ["DmlabStandIn", "MazeWorld", "simulator"]

# Walls that face north or south are drawn a little darker, which shows the corners.
_SHADE = 0.88
_CELLS_A_REGION = 9
_PICTURES = 12
_SHARE_OF_WALLS_WITH_PICTURES = 0.15


@dataclass(frozen=True, eq=False)
class MazeWorld:
    """A maze of one seed; a :class:`~arvdm_theory.video.simulators.worlds.World`.

    Attributes:
        scene: the maze and its textures.
        size: height and width of its pictures.
        passages: between cells that are not walls, shape (rows, columns, 4).
        description: the maze as text, a row a line, and the names of its textures.
    """

    scene: Scene
    size: int
    passages: NDArray[np.bool_]
    description: Mapping[str, Any]

    def render(self, poses: NDArray[np.float64]) -> NDArray[np.uint8]:
        """The pictures seen at the poses (frames, 3): x, y in cells and heading in degrees."""
        return render(self.scene, poses, self.size)


@dataclass(frozen=True)
class DmlabStandIn:
    """Mazes of coloured corridors and rooms; a :class:`~arvdm_theory.video.simulators.worlds.Simulator`.

    Attributes:
        size: height and width of the pictures, 8 to 512 pixels.
        cells: rows and columns of a maze, walls included; odd, from 7.

    Raises:
        ValueError: if a number is out of range, or, for :meth:`world`, if ``labmaze`` is not installed.
    """

    size: int = 64
    cells: int = 11
    name: str = "DMLab stand-in"

    def __post_init__(self) -> None:
        if not 8 <= self.size <= 512:
            raise ValueError(f"the pictures are 8 to 512 pixels high and wide, got {self.size}")
        if self.cells % 2 == 0 or not 7 <= self.cells <= 99:
            raise ValueError(f"a maze has an odd number of rows and columns, 7 to 99, got {self.cells}")

    def world(self, seed: int) -> MazeWorld:
        """The maze of a seed: always the same for the same version of ``labmaze``."""
        rng = np.random.default_rng(seed)
        maze = labmaze().RandomMaze(
            height=self.cells,
            width=self.cells,
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
        regions = _regions(~solid, rng)
        count = int(regions.max()) + 1
        walls = _some(wall_textures(), count, rng)
        floors = _some(floor_textures(), count, rng)
        sky = SKY_STYLES[int(rng.integers(len(SKY_STYLES)))]
        pictures = [_painting(rng) for _ in range(_PICTURES)]
        textures = [pyramid(read_picture(path) * shade) for shade in (_SHADE, 1.0) for path in walls]
        textures += [pyramid(read_picture(path)) for path in floors] + [pyramid(picture) for picture in pictures]
        hung = rng.random((*solid.shape, 4)) < _SHARE_OF_WALLS_WITH_PICTURES
        scene = Scene(
            solid=solid,
            textures=np.stack(textures),
            wall=regions[..., None] + count * (np.arange(4) % 2),
            floor=regions + 2 * count,
            picture=np.where(hung, 3 * count + rng.integers(_PICTURES, size=hung.shape), -1),
            sky=panorama(sky),
        )
        description = {
            "maze": ["".join("*" if cell else " " for cell in row) for row in solid],
            "walls": [f"{path.parent.name}/{path.stem}" for path in walls],
            "floors": [f"{path.parent.name}/{path.stem}" for path in floors],
            "sky": sky,
        }
        return MazeWorld(scene, self.size, passages, description)


def simulator(size: int = 64) -> DmlabStandIn:
    """The simulator of this module, for pictures of size x size pixels."""
    return DmlabStandIn(size)


def _some(choices: tuple[Any, ...], count: int, rng: np.random.Generator) -> list[Any]:
    """So many of the choices, all different as long as there are enough."""
    rounds = -(-count // len(choices))
    order = np.concatenate([rng.permutation(len(choices)) for _ in range(rounds)])
    return [choices[i] for i in order[:count].tolist()]


def _regions(floor: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.intp]:
    """Numbers the regions of a floor: each cell belongs to the nearest, as one walks, of a few random ones."""
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


def _painting(rng: np.random.Generator) -> NDArray[np.float64]:
    """A framed mosaic of two colours, symmetric left and right, shape (64, 64, 3)."""
    tiles = 8
    ground, figure, frame = rng.integers(0, 256, (3, 3)).astype(float)
    half = rng.random((tiles - 2, tiles // 2 - 1)) < 0.5
    mosaic = np.empty((tiles, tiles, 3))
    mosaic[:] = frame
    mosaic[1:-1, 1:-1] = np.where(np.hstack([half, half[:, ::-1]])[..., None], figure, ground)
    return mosaic.repeat(TEXELS // tiles, 0).repeat(TEXELS // tiles, 1)
