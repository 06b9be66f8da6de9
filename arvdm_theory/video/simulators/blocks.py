"""The blocks of the Minecraft stand-in and the textures of their faces, drawn here from noise and a few strokes.

A texture has 16 x 16 texels and is kept in a pyramid of levels, 16 x 16, 8 x 8, ..., 1 x 1, each averaged over
2 x 2 texels of the one before. The textures are always the same: a world chooses blocks, not colours.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "AIR",
    "BLOCKS",
    "GRASS",
    "LEVELS",
    "LEVEL_START",
    "PYRAMID",
    "TEXELS",
    "block",
    "faces",
    "texels",
]

TEXELS = 16
LEVELS = TEXELS.bit_length()
# Where each level of a pyramid begins, and the length of all.
LEVEL_START = np.cumsum([0, *(TEXELS**2 >> 2 * level for level in range(LEVELS))])
PYRAMID = int(LEVEL_START[-1])

AIR = 0
# Grass from dry to lush, as its colour changes over a landscape.
GRASS = ("grass 0", "grass 1", "grass 2", "grass 3")
_GRASS_COLOURS = ((150, 166, 74), (126, 168, 70), (104, 162, 66), (84, 152, 78))
# Each block: the textures of its top, side and bottom.
_FACES = {
    **{name: (f"{name} top", f"{name} side", "dirt") for name in GRASS},
    "poppies": ("poppies top", "grass 2 side", "dirt"),
    "dandelions": ("dandelions top", "grass 1 side", "dirt"),
    "dirt": ("dirt",) * 3,
    "stone": ("stone",) * 3,
    "cobblestone": ("cobblestone",) * 3,
    "sand": ("sand",) * 3,
    "water": ("water",) * 3,
    "oak log": ("log top", "oak side", "log top"),
    "birch log": ("log top", "birch side", "log top"),
    "spruce log": ("log top", "spruce side", "log top"),
    "oak leaves": ("oak leaves",) * 3,
    "birch leaves": ("birch leaves",) * 3,
    "spruce leaves": ("spruce leaves",) * 3,
    "planks": ("planks",) * 3,
    "glass": ("glass",) * 3,
    "roof": ("roof",) * 3,
    "pumpkin": ("pumpkin top", "pumpkin side", "pumpkin top"),
}
BLOCKS = ("air", *_FACES)

_Picture = NDArray[np.float64]


def block(name: str) -> int:
    """The number of a block, as the voxels of a landscape hold it."""
    return BLOCKS.index(name)


@cache
def faces() -> NDArray[np.int64]:
    """The texture of each block's faces across x, across y, on top and at the bottom; shape (blocks, 4)."""
    order = list(_pictures())
    table = [[order.index(_FACES[name][face]) for face in (1, 1, 0, 2)] for name in BLOCKS[1:]]
    return np.array([[0] * 4, *table], dtype=np.int64)


@cache
def texels() -> NDArray[np.float32]:
    """All pyramids one after another, values 0..255, shape (textures · PYRAMID, 3)."""
    return np.concatenate([_pyramid(picture) for picture in _pictures().values()]).astype(np.float32)


def _pyramid(picture: _Picture) -> _Picture:
    levels = []
    while True:
        levels.append(picture.reshape(-1, 3))
        half = picture.shape[0] // 2
        if half == 0:
            return np.concatenate(levels)
        picture = picture.reshape(half, 2, half, 2, 3).mean((1, 3))


@cache
def _pictures() -> dict[str, _Picture]:
    """Every texture, rows from top to bottom, shape (16, 16, 3)."""
    rng = np.random.default_rng(20)
    dirt = _speckled((134, 96, 67), 0.16, rng)
    made = {
        "dirt": dirt,
        "stone": _streaked((126, 126, 128), 0.09, rng),
        "sand": _speckled((219, 207, 160), 0.05, rng),
    }
    for name, colour in zip(GRASS, _GRASS_COLOURS, strict=True):
        top = _speckled(colour, 0.13, rng)
        made |= {f"{name} top": top, f"{name} side": _fringed(dirt, top, rng)}
    made["poppies top"] = _flowering(made["grass 2 top"], (205, 44, 40), rng)
    made["dandelions top"] = _flowering(made["grass 1 top"], (244, 217, 60), rng)
    made["cobblestone"] = _cobbled(rng)
    made["water"] = _streaked((52, 96, 190), 0.10, rng)
    made["log top"] = _rings()
    made["oak side"] = _bark((104, 82, 50), 0.22, rng)
    made["spruce side"] = _bark((62, 42, 24), 0.25, rng)
    made["birch side"] = _birch(rng)
    made["oak leaves"] = _leaves((64, 122, 38), rng)
    made["birch leaves"] = _leaves((116, 146, 74), rng)
    made["spruce leaves"] = _leaves((44, 84, 58), rng)
    made["planks"] = _boards((168, 134, 82), rng)
    made["roof"] = _boards((110, 62, 48), rng)
    made["glass"] = _window()
    made["pumpkin side"] = _pumpkin(rng)
    made["pumpkin top"] = _speckled((196, 118, 26), 0.10, rng)
    return {name: np.clip(picture, 0, 255) for name, picture in made.items()}


def _lit(colour: tuple[int, int, int], brightness: _Picture) -> _Picture:
    return np.asarray(brightness[..., None] * np.array(colour, float))


def _speckled(colour: tuple[int, int, int], contrast: float, rng: np.random.Generator) -> _Picture:
    """Grains of two sizes."""
    coarse = rng.standard_normal((8, 8)).repeat(2, 0).repeat(2, 1)
    return _lit(colour, 1 + contrast * (0.6 * rng.standard_normal((TEXELS, TEXELS)) + 0.5 * coarse))


def _streaked(colour: tuple[int, int, int], contrast: float, rng: np.random.Generator) -> _Picture:
    """Strokes along the rows, four texels long."""
    strokes = rng.standard_normal((TEXELS, 4)).repeat(4, 1)
    start = np.arange(TEXELS) + rng.integers(4, size=(TEXELS, 1))
    shifted = np.take_along_axis(strokes, start % TEXELS, 1)
    return _lit(colour, 1 + contrast * (shifted + 0.3 * rng.standard_normal((TEXELS, TEXELS))))


def _fringed(dirt: _Picture, grass: _Picture, rng: np.random.Generator) -> _Picture:
    """Dirt with grass hanging over its upper edge."""
    depth = rng.integers(3, 6, TEXELS)
    return np.where((np.arange(TEXELS)[:, None] < depth)[..., None], grass, dirt)


def _flowering(grass: _Picture, colour: tuple[int, int, int], rng: np.random.Generator) -> _Picture:
    """Blossoms of 2 x 2 texels."""
    picture = grass.copy()
    for row, column in rng.permutation(64)[:14, None] // (8, 1) % 8 * 2:
        picture[row : row + 2, column : column + 2] = colour
    return picture


def _cobbled(rng: np.random.Generator) -> _Picture:
    """Rounded stones of several greys, some mossy, between dark joints."""
    middles = rng.random((12, 2)) * TEXELS
    place = np.moveaxis(np.indices((TEXELS, TEXELS)), 0, -1) + 0.5
    apart = (place[:, :, None] - middles + TEXELS / 2) % TEXELS - TEXELS / 2
    away = np.sqrt((apart**2).sum(-1))
    nearest = np.sort(away, -1)
    stones = rng.uniform(96, 158, (12, 1)) * np.where(rng.random((12, 1)) < 0.4, (0.78, 1, 0.66), 1)
    joint = (nearest[..., 1] - nearest[..., 0] < 1)[..., None]
    return np.asarray(np.where(joint, 0.62, 1) * stones[away.argmin(-1)])


def _rings() -> _Picture:
    place = np.abs(np.arange(TEXELS) - 7.5)
    ring = np.maximum(place[:, None], place).astype(int)
    return np.where((ring == 7)[..., None], (92, 72, 44), _lit((176, 142, 88), 1 - 0.14 * (ring % 2)))


def _bark(colour: tuple[int, int, int], contrast: float, rng: np.random.Generator) -> _Picture:
    furrows = rng.standard_normal(TEXELS) + 0.4 * rng.standard_normal((TEXELS, TEXELS))
    return _lit(colour, 1 + contrast * furrows)


def _birch(rng: np.random.Generator) -> _Picture:
    picture = _speckled((218, 216, 206), 0.04, rng)
    for row in range(1, TEXELS, 3):
        start = int(rng.integers(TEXELS - 5))
        picture[row, start : start + int(rng.integers(2, 6))] = (58, 56, 52)
    return picture


def _leaves(colour: tuple[int, int, int], rng: np.random.Generator) -> _Picture:
    """Leaves light and dark, with gaps between them."""
    tone = rng.choice([0.45, 0.75, 1.0, 1.2], (TEXELS, TEXELS), p=[0.18, 0.27, 0.35, 0.2])
    return _lit(colour, tone)


def _boards(colour: tuple[int, int, int], rng: np.random.Generator) -> _Picture:
    """Four boards, each of its own tone, with joints below and at one end."""
    tone = rng.uniform(0.88, 1.1, 4).repeat(4)[:, None] + 0.04 * rng.standard_normal((TEXELS, TEXELS))
    tone[3::4] *= 0.66
    for board, end in enumerate(rng.integers(TEXELS, size=4)):
        tone[4 * board : 4 * board + 3, end] *= 0.75
    return _lit(colour, tone)


def _window() -> _Picture:
    picture = np.empty((TEXELS, TEXELS, 3))
    picture[:] = (150, 190, 214)
    down, across = np.indices((TEXELS, TEXELS))
    picture[(down + across) % 11 < 2] = (226, 240, 246)
    picture[[0, 7, 15]] = picture[:, [0, 7, 15]] = (92, 74, 50)
    return picture


def _pumpkin(rng: np.random.Generator) -> _Picture:
    """Orange ribs, and a face cut into it."""
    ribs = 1 - 0.22 * (np.arange(TEXELS) % 4 == 0) + 0.05 * rng.standard_normal((TEXELS, TEXELS))
    picture = _lit((224, 138, 32), ribs)
    for row, columns in ((4, (3, 4, 11, 12)), (5, (3, 4, 11, 12)), (9, range(3, 13)), (10, (4, 6, 8, 10))):
        picture[row, list(columns)] = (70, 34, 10)
    return picture
