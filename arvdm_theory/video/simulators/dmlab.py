"""A stand-in for the DMLab videos: coloured mazes seen from within, 64 x 64 pixels.

The mazes come from ``labmaze``, DeepMind Lab's own generator, and so do the textures of walls, floors and sky. The
rest is not DeepMind Lab but a stand-in for it: a ray caster draws the maze, without light, shadow or objects. The
floor is divided into regions, each with a wall and a floor of its own, and pictures hang on some walls, so that a
place can be told from others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arvdm_theory.video.simulators.mazes import Maze, check_cells
from arvdm_theory.video.simulators.raycaster import Scene, render
from arvdm_theory.video.simulators.textures import (
    SKY_STYLES,
    TEXELS,
    floor_textures,
    panorama,
    pyramid,
    read_picture,
    wall_textures,
)

__all__ = ["DmlabStandIn", "MazeWorld", "simulator"]

# Walls that face north or south are drawn a little darker, which shows the corners.
_SHADE = 0.88
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
        check_cells(self.cells)

    def world(self, seed: int) -> MazeWorld:
        """The maze of a seed: always the same for the same version of ``labmaze``."""
        rng = np.random.default_rng(seed)
        maze = Maze.random(self.cells, rng)
        solid, regions, count = maze.solid, maze.region, maze.regions
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
            "maze": maze.rows,
            "walls": [f"{path.parent.name}/{path.stem}" for path in walls],
            "floors": [f"{path.parent.name}/{path.stem}" for path in floors],
            "sky": sky,
        }
        return MazeWorld(scene, self.size, maze.passages, description)


def simulator(size: int = 64) -> DmlabStandIn:
    """The simulator of this module, for pictures of size x size pixels."""
    return DmlabStandIn(size)


def _some(choices: tuple[Any, ...], count: int, rng: np.random.Generator) -> list[Any]:
    """So many of the choices, all different as long as there are enough."""
    rounds = -(-count // len(choices))
    order = np.concatenate([rng.permutation(len(choices)) for _ in range(rounds)])
    return [choices[i] for i in order[:count].tolist()]


def _painting(rng: np.random.Generator) -> NDArray[np.float64]:
    """A framed mosaic of two colours, symmetric left and right, shape (64, 64, 3)."""
    tiles = 8
    ground, figure, frame = rng.integers(0, 256, (3, 3)).astype(float)
    half = rng.random((tiles - 2, tiles // 2 - 1)) < 0.5
    mosaic = np.empty((tiles, tiles, 3))
    mosaic[:] = frame
    mosaic[1:-1, 1:-1] = np.where(np.hstack([half, half[:, ::-1]])[..., None], figure, ground)
    return mosaic.repeat(TEXELS // tiles, 0).repeat(TEXELS // tiles, 1)
