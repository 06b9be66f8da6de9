"""The landscapes of the Minecraft stand-in, drawn by the engine Luanti (once Minetest) instead of a ray caster.

Luanti draws the same blocks with the textures, the plants and the light of its own game. Its client runs on a
virtual screen of Xvfb, which keeps the picture in a memory-mapped file. A small Lua mod (``luanti_mod``) builds
the landscape, moves the player from pose to pose, and from one server step after each on changes a mark on the
screen at every step; a frame is read once two of them, drawn under different marks, agree. All that moves by
itself is switched off: time, clouds, water, view bobbing.

It needs the programs ``minetest`` (or ``luanti``) with its game, and ``Xvfb``. They run while frames are drawn,
and only then. Tried with version 5.6.1, as Debian 12 has it.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arvdm_theory.video.simulators.blocks import AIR, BLOCKS, block
from arvdm_theory.video.simulators.voxel import MinecraftStandIn, VoxelWorld
from arvdm_theory.video.simulators.voxel_rays import VIEW

__all__ = ["LuantiStandIn", "LuantiWorld", "programs", "simulator"]

# The node that stands for each block; blossoms stand on top of the grass that bears them.
_NODES = {
    "air": "air",
    "grass 0": "default:dirt_with_dry_grass",
    "grass 1": "default:dirt_with_grass",
    "grass 2": "default:dirt_with_grass",
    "grass 3": "default:dirt_with_grass",
    "poppies": "default:dirt_with_grass",
    "dandelions": "default:dirt_with_grass",
    "dirt": "default:dirt",
    "stone": "default:stone",
    "cobblestone": "default:mossycobble",
    "sand": "default:sand",
    "water": "default:water_source",
    "oak log": "default:tree",
    "birch log": "default:aspen_tree",
    "spruce log": "default:pine_tree",
    "oak leaves": "default:leaves",
    "birch leaves": "default:aspen_leaves",
    "spruce leaves": "default:pine_needles",
    "planks": "default:wood",
    "glass": "default:glass",
    "roof": "default:brick",
    "pumpkin": "wool:orange",
}
_BLOSSOMS = {"poppies": "flowers:rose", "dandelions": "flowers:dandelion_yellow"}

# The mod's colours, as blue, green, red; pose n is marked by the pair n modulo 3, in turns.
_COLOURS = np.array(
    [[(0, 0, 255), (0, 255, 0)], [(255, 0, 0), (0, 255, 255)], [(255, 0, 255), (255, 255, 0)]], np.uint8
)
# The screen is as high as a picture times this, and wider by a strip for the mark on either side.
_SAMPLES = 2
_STRIP = 32
# The engine's angle of view from top to bottom is this times a factor of the screen's proportions.
_ANGLE = 70.0
_PITCH = math.atan(0.12)

_SECONDS_TO_START = 120.0
_SECONDS_A_FRAME = 20.0
# A picture that has not changed for so long has all its blocks.
_SECONDS_STILL = 1.0


@dataclass(frozen=True)
class LuantiStandIn:
    """Landscapes of blocks; a :class:`~arvdm_theory.video.simulators.worlds.Simulator`.

    Attributes:
        size: height and width of the pictures, 64 to 512 pixels.
        cells: rows and columns of the walker's grid, as in
            :class:`~arvdm_theory.video.simulators.voxel.MinecraftStandIn`, of which this draws the same worlds.

    Raises:
        ValueError: if a number is out of range, or a program is missing.
    """

    size: int = 128
    cells: int = 12
    name: str = "Minecraft stand-in drawn by Luanti"

    def __post_init__(self) -> None:
        if not 64 <= self.size <= 512:
            raise ValueError(f"Luanti's pictures are 64 to 512 pixels high and wide, got {self.size}")
        programs()

    def world(self, seed: int) -> LuantiWorld:
        """The landscape of a seed."""
        return LuantiWorld(MinecraftStandIn(self.size, self.cells).world(seed))


@dataclass(frozen=True, eq=False)
class LuantiWorld:
    """A landscape of one seed; a :class:`~arvdm_theory.video.simulators.worlds.World`.

    Attributes:
        model: the landscape as the ray caster knows it.
    """

    model: VoxelWorld

    @property
    def passages(self) -> NDArray[np.bool_]:
        """Those of the model."""
        return self.model.passages

    @property
    def description(self) -> Mapping[str, Any]:
        """That of the model."""
        return self.model.description

    def render(self, poses: NDArray[np.float64]) -> NDArray[np.uint8]:
        """The pictures seen at the poses (frames, 3): x, y in cells and heading in degrees.

        Raises:
            ValueError: if a program is missing, stops or does not answer in time.
        """
        frames = np.empty((len(poses), self.model.size, self.model.size, 3), np.uint8)
        if len(poses):
            with _engine(self.model) as engine:
                for frame, camera in zip(frames, self.model.cameras(poses), strict=True):
                    frame[:] = engine.picture(camera)
        return frames


def simulator(size: int = 128) -> LuantiStandIn:
    """The simulator of this module, for pictures of size x size pixels."""
    return LuantiStandIn(size)


def programs() -> tuple[str, str]:
    """The paths of the client and of Xvfb.

    Raises:
        ValueError: if one is missing.
    """
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/games"])
    client = shutil.which("luanti", path=path) or shutil.which("minetest", path=path)
    screen = shutil.which("Xvfb", path=path)
    if client is None or screen is None:
        missing = " and ".join(
            name for name, found in (("minetest (or luanti)", client), ("Xvfb", screen)) if found is None
        )
        raise ValueError(f"the Luanti engine needs {missing}; on Debian: apt-get install minetest xvfb")
    return client, screen


class _Engine:
    """A running client, and the screen that it draws on."""

    def __init__(self, world: Path, screen: Path, client: subprocess.Popen[bytes], size: int) -> None:
        self._pose, self._client, self._size = world / "pose", client, size
        self._pixels = _framebuffer(screen)
        self._number = 0

    def picture(self, camera: NDArray[np.float64]) -> NDArray[np.uint8]:
        """What a camera (x, y, z in blocks, heading in degrees) sees, shape (size, size, 3)."""
        screen = self._go(camera, _SECONDS_A_FRAME)
        high = _SAMPLES * self._size
        part = screen[:, _STRIP : _STRIP + high, 2::-1].astype(np.uint16)
        sums = part.reshape(self._size, _SAMPLES, self._size, _SAMPLES, 3).sum((1, 3), dtype=np.uint16)
        return np.asarray((sums + _SAMPLES**2 // 2) // _SAMPLES**2, np.uint8)

    def settle(self, camera: NDArray[np.float64]) -> None:
        """Waits for all blocks around, by looking in all directions."""
        for heading in (0.0, 90.0, 180.0, 270.0):
            before = self._go(np.array([*camera[:3], heading]), _SECONDS_TO_START)[:, _STRIP:]
            limit, since = time.monotonic() + _SECONDS_TO_START, time.monotonic()
            while time.monotonic() - since < _SECONDS_STILL:
                time.sleep(0.05)
                now = self._pixels[:, _STRIP:].copy()
                if not np.array_equal(now, before):
                    before, since = now, time.monotonic()
                self._check(limit)

    def _go(self, camera: NDArray[np.float64], seconds: float) -> NDArray[np.uint8]:
        """Moves the camera and returns the screen that first shows what it sees there, as blue, green, red, -."""
        self._number += 1
        x, y, z, heading = camera.tolist()
        # Nodes have their middles at whole numbers; z points north, and yaw turns counter-clockwise.
        place = (x - 0.5, z - 0.5, 0.5 - y, math.radians(-heading) % math.tau, _PITCH)
        temporary = self._pose.with_suffix(".next")
        temporary.write_text(" ".join([str(self._number), *(f"{value:.9f}" for value in place)]) + "\n")
        temporary.replace(self._pose)
        marks = _COLOURS[self._number % len(_COLOURS)]
        limit = time.monotonic() + seconds
        first = self._marked(marks[0], limit)
        while True:
            for mark in marks[::-1]:
                second = self._marked(mark, limit)
                if np.array_equal(first[:, _STRIP:], second[:, _STRIP:]):
                    return second
                first = second

    def _marked(self, colour: NDArray[np.uint8], limit: float) -> NDArray[np.uint8]:
        """The screen as soon as the mark has that colour, and not read while it is drawn."""
        while True:
            if (self._pixels[-3, 2, :3] == colour).all():
                screen = self._pixels.copy()
                time.sleep(0.001)
                if np.array_equal(screen, self._pixels):
                    return screen
            time.sleep(0.001)
            self._check(limit)

    def _check(self, limit: float) -> None:
        if self._client.poll() is not None:
            raise ValueError(f"Luanti stopped with exit code {self._client.returncode}")
        if time.monotonic() > limit:
            raise ValueError("Luanti did not show a pose in time; is the machine very busy?")


@contextmanager
def _engine(model: VoxelWorld) -> Iterator[_Engine]:
    """Starts screen and client for a landscape, waits until all of it can be seen, and stops them in the end."""
    client, server = programs()
    height = _SAMPLES * model.size
    width = height + 2 * _STRIP
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="arvdm-luanti-")))
        world = folder / "world"
        _write_world(model, world)
        (folder / "conf").write_text(_settings(width, height), encoding="utf-8")
        numbers, told = os.pipe()
        try:
            screen = [server, "-displayfd", str(told), "-screen", "0", f"{width}x{height}x24"]
            screen += ["-fbdir", str(folder), "-nolisten", "tcp"]
            stack.enter_context(_running(screen, folder / "screen.log", os.environ, (told,)))
        finally:
            os.close(told)
        with os.fdopen(numbers) as line:
            display = line.readline().strip()
        if not display:
            raise ValueError("Xvfb did not start")
        environment = {**os.environ, "DISPLAY": f":{display}", "HOME": str(folder)}
        environment |= {"LIBGL_ALWAYS_SOFTWARE": "1", "XDG_RUNTIME_DIR": str(folder)}
        command = [client, "--go", "--gameid", "minetest", "--world", str(world), "--config", str(folder / "conf")]
        process = stack.enter_context(_running(command, folder / "client.log", environment))
        engine = _Engine(world, folder / "Xvfb_screen0", process, model.size)
        cells = np.argwhere(model.passages.any(-1))[:1, ::-1] + 0.5
        engine.settle(model.cameras(np.column_stack([cells, [0.0]]))[0])
        yield engine


@contextmanager
def _running(
    command: list[str], log: Path, environment: Mapping[str, str], passed: tuple[int, ...] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a program and ends it, and no other, on leaving."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, pass_fds=passed
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _write_world(model: VoxelWorld, world: Path) -> None:
    """A world of Luanti's with the mod, the landscape for it to build, and nothing else."""
    mod = world / "worldmods" / "arvdm_stage"
    mod.mkdir(parents=True)
    for name in ("mod.conf", "init.lua"):
        source = files("arvdm_theory.video.simulators").joinpath("luanti_mod", name)
        (mod / name).write_bytes(source.read_bytes())
    voxels = model.terrain.voxels.copy()
    nodes = [_NODES[name] for name in BLOCKS]
    for name, blossom in _BLOSSOMS.items():
        bare = (model.terrain.voxels[..., :-1] == block(name)) & (model.terrain.voxels[..., 1:] == AIR)
        voxels[..., 1:][bare] = len(nodes)
        nodes.append(blossom)
    rows, columns, levels = voxels.shape
    stage = {"nodes": nodes, "rows": rows, "columns": columns, "levels": levels}
    (world / "stage.json").write_text(json.dumps(stage), encoding="utf-8")
    (world / "stage.blocks").write_bytes(voxels.tobytes())
    backends = "backend = dummy\nplayer_backend = dummy\nauth_backend = files\nmod_storage_backend = dummy\n"
    (world / "world.mt").write_text(f"gameid = minetest\nworld_name = stage\n{backends}", encoding="utf-8")
    (world / "map_meta.txt").write_text("mg_name = singlenode\nseed = 1\n[end_of_params]\n", encoding="utf-8")


def _settings(width: int, height: int) -> str:
    """The settings of the client and of the server within it."""
    # The engine widens the angle on screens that are less than 16:10 wide, by at most 1.4.
    angle = _ANGLE / min(max(math.sqrt(1.6 * height / width), 1.0), 1.4)
    settings = {
        "screen_w": width, "screen_h": height, "fullscreen": "false", "autosave_screensize": "false",
        "vsync": "false", "fps_max": 100, "fps_max_unfocused": 100, "pause_on_lost_focus": "false",
        "video_driver": "opengl", "fov": f"{angle:.4f}", "viewing_range": VIEW, "node_highlighting": "none",
        "view_bobbing_amount": 0, "fall_bobbing_amount": 0, "arm_inertia": "false", "enable_clouds": "false",
        "enable_sound": "false", "enable_minimap": "false", "crosshair_alpha": 0, "enable_damage": "false",
        "creative_mode": "true", "disable_anticheat": "true", "time_speed": 0, "world_start_time": 12000,
        "mg_name": "singlenode", "mip_map": "true", "trilinear_filter": "true",
        # Nothing grows or spreads, and all blocks in sight are sent, once and for all.
        "active_block_range": 1, "abm_interval": 86400, "dedicated_server_step": 0.02,
        "server_side_occlusion_culling": "false", "full_block_send_enable_min_time_from_building": 0,
        "max_simultaneous_block_sends_per_client": 200, "client_unload_unused_data_timeout": 86400,
        "server_unload_unused_data_timeout": 86400, "client_mapblock_limit": -1,
    }  # fmt: skip
    return "".join(f"{name} = {value}\n" for name, value in settings.items())


def _framebuffer(path: Path) -> NDArray[np.uint8]:
    """The pixels of a screen that Xvfb maps into a file, as they change; shape (height, width, 4).

    The file is an X window dump: a header of big-endian words, a table of colours of 12 bytes each, and the
    pixels, here of 32 bits with blue in the lowest.
    """
    with path.open("rb") as file:
        words = struct.unpack(">25I", file.read(100))
    header, width, height, bits, line, colours = (words[i] for i in (0, 4, 5, 11, 12, 19))
    if bits != 32 or line != 4 * width:
        raise ValueError(f"Xvfb keeps {bits} bits a pixel and {line} bytes a line of {width} pixels")
    return np.memmap(path, np.uint8, "r", header + 12 * colours, (height, width, 4))
