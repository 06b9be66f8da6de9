"""Mazes seen through the Doom engine: ViZDoom, with the walls, floors and things of the Freedoom project.

The mazes are those of :mod:`arvdm_theory.video.simulators.mazes`, written as maps of Doom (UDMF), so that there
are as many worlds as seeds and passages are known; perspective, light, texture filtering and sprites are the
engine's. All that moves or flickers by itself is left out, so that a picture is a function of the pose.

The engine keeps places in whole map units and headings in 65536ths of a circle: what it draws is the view at the
nearest such pose, at most 1/256 of a cell and 0.003 degrees away.
"""

from __future__ import annotations

import importlib
import os
import signal
import struct
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arvdm_theory.data.clips import resize
from arvdm_theory.video.simulators.mazes import Maze, check_cells
from arvdm_theory.video.simulators.worlds import MOVES

__all__ = ["DoomMazes", "DoomWorld", "simulator"]

_CELL = 128
_CIRCLE = 65536
# Of a start's fade and weapon, which would be in the picture or hold the turn back.
_SETTLING_TICS = 40
_TRIES = 4

# Walls, floors and ceilings of freedoom2.wad that do not move, and pictures to hang on some walls.
_WALLS = (
    "ASHWALL2", "BIGBRIK1", "BRICK1", "BRICK6", "BRICK10", "BRICK12", "BRONZE1", "BROWN1", "BROWNGRN", "CEMENT9",
    "COMPBLUE", "GRAY1", "GRAYVINE", "GSTONE1", "ICKWALL1", "MARBLE1", "METAL2", "MODWALL1", "PANEL6", "PIPE2",
    "REDWALL", "ROCK1", "SHAWN2", "SLADWALL", "SPACEW3", "STARG3", "STARTAN2", "STONE2", "STONE6", "STUCCO",
    "TANROCK2", "TEKGREN1", "TEKWALL1", "WOOD1", "WOOD5", "WOODVERT", "ZIMMER2", "ZIMMER7", "A-BRICK1", "A-CAMO1",
    "A-MARBLE", "A-REDROK", "ALTAQUA", "MOD2",
)  # fmt: skip
_FLATS = (
    "CEIL1_1", "CEIL3_1", "CEIL3_3", "CEIL5_1", "DEM1_5", "FLAT1", "FLAT1_1", "FLAT10", "FLAT14", "FLAT19",
    "FLAT4", "FLAT5", "FLAT5_2", "FLAT5_4", "FLAT8", "FLOOR0_1", "FLOOR0_3", "FLOOR0_6", "FLOOR1_1", "FLOOR1_6",
    "FLOOR3_3", "FLOOR4_1", "FLOOR4_8", "FLOOR5_1", "FLOOR5_4", "FLOOR6_2", "FLOOR7_1", "FLOOR7_2", "GRASS1",
    "GRNROCK", "MFLR8_1", "MFLR8_3", "RROCK01", "RROCK09", "RROCK16", "SLIME13", "SLIME15",
)  # fmt: skip
_PICTURES = (
    "MARBFAC2", "MARBFAC3", "MURAL1", "MURAL2", "SP_DUDE1", "SP_DUDE7", "SP_FACE2", "GSTLION", "GSTSATYR",
    "SKULWALL", "PANBOOK", "PLANET1", "COMPTALL", "BIGDOOR2", "BIGDOOR7", "ZZZFACE1", "ZZWOLF2", "ZZWOLF5",
    "ZZWOLF9",
)  # fmt: skip
# Pillars, trees, lamps and the like: their numbers as Doom's maps know them.
_THINGS = (30, 31, 32, 33, 37, 43, 47, 48, 54, 2028)
_SHARE_OF_WALLS_WITH_PICTURES = 0.2
_SHARE_OF_CELLS_WITH_THINGS = 0.25
_PLAYER = 1
_CHUNK = 256

# The engine would outlive a process that is killed; on Linux it can be told not to. It makes a
# folder where it starts.
_LAUNCHER = """#!{python} -SE
import ctypes, os, sys
try:
    ctypes.CDLL(None).prctl(1, 9)
except (AttributeError, OSError):
    pass
if os.getppid() != {parent}:
    sys.exit(1)
os.chdir(os.path.dirname(os.path.abspath(sys.argv[0])))
os.execv({engine!r}, [{engine!r}, *sys.argv[1:]])
"""


@dataclass(frozen=True, eq=False)
class DoomWorld:
    """A maze of one seed as a map of Doom; a :class:`~arvdm_theory.video.simulators.worlds.World`.

    Attributes:
        textmap: the map, in the Universal Doom Map Format.
        size: height and width of its pictures.
        passages: between cells that are not walls, shape (rows, columns, 4).
        description: the maze as text, a row a line, and the names of its textures.
    """

    textmap: str
    size: int
    passages: NDArray[np.bool_]
    description: Mapping[str, Any]

    def render(self, poses: NDArray[np.float64]) -> NDArray[np.uint8]:
        """The pictures seen at the poses (frames, 3): x, y in cells and heading in degrees."""
        poses = np.asarray(poses, dtype=np.float64)
        places = np.rint(poses[:, :2] * _CELL).astype(int) * [1, -1]
        # Doom counts from east, counter-clockwise.
        turns = np.rint((90 - poses[:, 2]) % 360 * (_CIRCLE / 360)).astype(int) % _CIRCLE
        asked = [(x, y, turn) for (x, y), turn in zip(places.tolist(), turns.tolist(), strict=True)]
        pictures = np.empty((len(asked), self.size, self.size, 3), dtype=np.uint8)
        with _engine(self.textmap, self.size) as game:
            for start in range(0, len(asked), _CHUNK):
                part = slice(start, start + _CHUNK)
                shown = np.stack([_look(game, *pose) for pose in asked[part]]).astype(np.float64)
                pictures[part] = np.rint(resize(shown, self.size, self.size))
        return pictures


@dataclass(frozen=True)
class DoomMazes:
    """Mazes in the Doom engine; a :class:`~arvdm_theory.video.simulators.worlds.Simulator`.

    Attributes:
        size: height and width of the pictures, 8 to 480 pixels.
        cells: rows and columns of a maze, walls included; odd, from 7.

    Raises:
        ValueError: if a number is out of range, or, for :meth:`world`, if ``labmaze`` is not installed. Worlds
            render only where ``vizdoom`` is.
    """

    size: int = 64
    cells: int = 11
    name: str = "Doom mazes"

    def __post_init__(self) -> None:
        if not 8 <= self.size <= 480:
            raise ValueError(f"the pictures are 8 to 480 pixels high and wide, got {self.size}")
        check_cells(self.cells)

    def world(self, seed: int) -> DoomWorld:
        """The maze of a seed: always the same for the same version of ``labmaze``."""
        _vizdoom()
        rng = np.random.default_rng(seed)
        maze = Maze.random(self.cells, rng)
        textmap, names = _textmap(maze, rng)
        return DoomWorld(textmap, self.size, maze.passages, {"maze": maze.rows, **names})


def simulator(size: int = 64) -> DoomMazes:
    """The simulator of this module, for pictures of size x size pixels."""
    return DoomMazes(size)


def _textmap(maze: Maze, rng: np.random.Generator) -> tuple[str, dict[str, list[str]]]:
    """The map, and the names of each region's textures. Walls face the floor; regions meet in two-sided lines."""
    count = maze.regions
    walls, floors, ceilings = (rng.choice(names, count).tolist() for names in (_WALLS, _FLATS, _FLATS))
    light = rng.integers(160, 256, count).tolist()
    corners: dict[tuple[int, int], int] = {}
    sides: list[str] = []
    lines: list[str] = []
    things: list[str] = []

    def side(region: int, texture: str) -> int:
        sides.append(_block("sidedef", sector=region, **({"texturemiddle": texture} if texture else {})))
        return len(sides) - 1

    def line(begin: tuple[int, int], end: tuple[int, int], **fields: Any) -> None:
        one, other = (corners.setdefault(corner, len(corners)) for corner in (begin, end))
        lines.append(_block("linedef", v1=one, v2=other, **fields))

    for row, column in np.argwhere(~maze.solid).tolist():
        region = int(maze.region[row, column])
        # The floor lies to the right of each side of its cell, walked clockwise from the north-western corner.
        around = [(row, column), (row, column + 1), (row + 1, column + 1), (row + 1, column), (row, column)]
        for number, (down, right) in enumerate(MOVES):
            there, ends = (row + down, column + right), (around[number], around[number + 1])
            if maze.solid[there]:
                hung = rng.random() < _SHARE_OF_WALLS_WITH_PICTURES
                texture = str(rng.choice(_PICTURES)) if hung else walls[region]
                line(*ends, sidefront=side(region, texture), blocking=True)
            elif maze.region[there] != region and there > (row, column):
                other = side(int(maze.region[there]), "")
                line(*ends, sidefront=side(region, ""), sideback=other, twosided=True)
        if rng.random() < _SHARE_OF_CELLS_WITH_THINGS:
            # In a corner, out of the way of who walks from middle to middle.
            x, y = (
                place + corner for place, corner in zip((column, row), rng.choice([0.14, 0.86], 2), strict=True)
            )
            things.append(_thing(x, y, int(rng.choice(_THINGS))))
    start = np.argwhere(maze.passages.any(-1))[0]
    things.append(_thing(start[1] + 0.5, start[0] + 0.5, _PLAYER))
    vertices = [_block("vertex", x=column * _CELL, y=-row * _CELL) for row, column in corners]
    sectors = [
        _block(
            "sector",
            heightfloor=0,
            heightceiling=_CELL,
            texturefloor=floor,
            textureceiling=ceiling,
            lightlevel=lit,
        )
        for floor, ceiling, lit in zip(floors, ceilings, light, strict=True)
    ]
    text = "\n".join(['namespace = "zdoom";', *vertices, *lines, *sides, *sectors, *things, ""])
    return text, {"walls": walls, "floors": floors, "ceilings": ceilings}


def _block(what: str, **fields: Any) -> str:
    def shown(value: Any) -> str:
        return f'"{value}"' if isinstance(value, str) else str(value).lower()

    return f"{what} {{ {' '.join(f'{name} = {shown(value)};' for name, value in fields.items())} }}"


def _thing(x: float, y: float, kind: int) -> str:
    when = {f"skill{level}": True for level in range(1, 6)} | {"single": True}
    return _block("thing", x=float(x * _CELL), y=float(-y * _CELL), type=kind, **when)


def _wad(lumps: Sequence[tuple[str, bytes]]) -> bytes:
    """Doom's archive: a header, the contents, and a directory of (place, length, name)."""
    header = 12
    directory, contents = b"", b""
    for name, content in lumps:
        directory += struct.pack("<ii8s", header + len(contents), len(content), name.encode("ascii"))
        contents += content
    return struct.pack("<4sii", b"PWAD", len(lumps), header + len(contents)) + contents + directory


def _vizdoom() -> ModuleType:
    try:
        return importlib.import_module("vizdoom")
    except ImportError as error:
        raise ValueError(
            f"Doom mazes need the package vizdoom: pip install 'arvdm-theory[doom]' ({error})"
        ) from error


@contextmanager
def _engine(textmap: str, size: int) -> Iterator[Any]:
    """The engine at work on a map."""
    vizdoom = _vizdoom()
    game, home = vizdoom.DoomGame(), Path(vizdoom.__path__[0])
    resolution = "RES_256X192" if 192 % size == 0 else "RES_640X480"
    game.set_screen_resolution(getattr(vizdoom.ScreenResolution, resolution))
    game.set_screen_format(vizdoom.ScreenFormat.RGB24)
    game.set_mode(vizdoom.Mode.PLAYER)
    for shown in (
        "window_visible", "render_hud", "render_weapon", "render_crosshair", "render_decals", "render_particles",
        "render_messages", "render_effects_sprites", "sound_enabled", "console_enabled",
    ):  # fmt: skip
        getattr(game, f"set_{shown}")(False)
    turn = vizdoom.Button.TURN_LEFT_RIGHT_DELTA
    game.set_available_buttons([turn])
    game.set_button_max_value(turn, 360)
    variables = vizdoom.GameVariable
    game.set_available_game_variables([variables.POSITION_X, variables.POSITION_Y, variables.ANGLE])
    game.set_episode_timeout(0)
    game.set_seed(0)
    game.add_game_args("+sv_cheats 1 +movebob 0")
    game.set_doom_game_path(str(home / "freedoom2.wad"))
    game.set_doom_map("map01")
    # Gone as soon as the engine has opened what it needs, so that even a killed process leaves nothing.
    with tempfile.TemporaryDirectory(prefix="arvdm-doom-") as name:
        wad, launcher = Path(name) / "maze.wad", Path(name) / "engine"
        wad.write_bytes(_wad([("MAP01", b""), ("TEXTMAP", textmap.encode("ascii")), ("ENDMAP", b"")]))
        launcher.write_text(
            _LAUNCHER.format(python=sys.executable, parent=os.getpid(), engine=str(home / "vizdoom")),
            encoding="utf-8",
        )
        launcher.chmod(0o700)
        game.set_vizdoom_path(str(launcher))
        game.set_doom_scenario_path(str(wad))
        game.set_doom_config_path(os.devnull)
        with _own_signals():
            game.init()
    try:
        game.make_action([0.0], _SETTLING_TICS)
        yield game
    finally:
        with _own_signals():
            game.close()


@contextmanager
def _own_signals() -> Iterator[None]:
    """The engine takes signals for itself when it starts, and gives back the system's own way when it ends."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGABRT)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            if handler is not None:
                signal.signal(number, handler)


def _look(game: Any, x: int, y: int, turn: int) -> NDArray[np.uint8]:
    """The square in the middle of what is seen at map units x, y and a heading in 65536ths of a circle."""
    for _ in range(_TRIES):
        now = round(game.get_state().game_variables[2] * (_CIRCLE / 360))
        left = (now - turn + _CIRCLE // 2) % _CIRCLE - _CIRCLE // 2
        game.send_game_command(f"warp {x} {y}")
        game.make_action([left * (360 / _CIRCLE)])
        state = game.get_state()
        at_x, at_y, angle = state.game_variables
        if (at_x, at_y) == (x, y) and round(angle * (_CIRCLE / 360)) % _CIRCLE == turn:
            picture = state.screen_buffer
            height, width = picture.shape[:2]
            edge = (width - height) // 2
            return np.ascontiguousarray(picture[:, edge : edge + height])
    raise ValueError(
        f"the Doom engine stands at {at_x:g}, {at_y:g}, {angle:g} degrees, where {x}, {y}, "
        f"{turn * 360 / _CIRCLE:g} was asked for"
    )
