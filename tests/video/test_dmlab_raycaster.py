"""The DMLab stand-in's ray caster, against one ray at a time; and what it says without ``labmaze``."""

import math
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from arvdm_theory.video.simulators.dmlab import DmlabStandIn, simulator
from arvdm_theory.video.simulators.raycaster import Scene, render
from arvdm_theory.video.simulators.textures import TEXELS, pack, pyramid

_TEXELS_OF_A_PYRAMID = sum((TEXELS >> level) ** 2 for level in range(7))


def _flat_scene() -> Scene:
    """Every wall side, floor and hung picture in one colour of its own; a sky of 8 x 16 fields of their own."""
    plan = ("#######", "#     #", "# ### #", "#   # #", "### # #", "#     #", "#######")
    solid = np.array([[symbol == "#" for symbol in row] for row in plan])
    wall = np.arange(49 * 4).reshape(7, 7, 4)
    floor = 196 + np.arange(49).reshape(7, 7)
    picture = np.where(np.random.default_rng(0).random((7, 7, 4)) < 0.3, 245, -1)
    colours = np.random.default_rng(1).integers(0, 256, (246, 3)).astype(float)
    textures = np.repeat(pack(colours)[:, None], _TEXELS_OF_A_PYRAMID, 1)
    sky = pack(np.random.default_rng(2).integers(0, 256, (8, 16, 3)).astype(float))
    return Scene(solid, textures, wall, floor, picture, sky)


def _unpack(packed: np.uint32) -> NDArray[np.int64]:
    return np.array([int(packed) >> shift & 255 for shift in (0, 8, 16)])


def _sample(scene: Scene, pose: NDArray[np.float64], u: float, s: float) -> tuple[NDArray[np.int64], float]:
    """The colour along one ray, walked from cell to cell, and how far it is from an edge (of anything)."""
    x, y, heading = pose[0], pose[1], math.radians(pose[2])
    dx = math.sin(heading) + u * math.cos(heading)
    dy = u * math.sin(heading) - math.cos(heading)
    column, row = math.floor(x), math.floor(y)
    while True:
        t_x = ((column + (dx > 0)) - x) / dx if abs(dx) > 1e-9 else math.inf
        t_y = ((row + (dy > 0)) - y) / dy if abs(dy) > 1e-9 else math.inf
        t = min(t_x, t_y)
        if t_x < t_y:
            next_cell, side, along = (row, column + (1 if dx > 0 else -1)), 1 if dx > 0 else 3, y + t * dy - row
        else:
            next_cell, side, along = (row + (1 if dy > 0 else -1), column), 2 if dy > 0 else 0, x + t * dx - column
        if scene.solid[next_cell]:
            break
        row, column = next_cell
    height = 0.49 + s * t
    margin = min(abs(height), abs(height - 1), along, 1 - along)
    if 0 <= height < 1:
        hung = scene.picture[row, column, side]
        margin = min(margin, abs(abs(height - 0.5) - 0.2), abs(abs(along - 0.5) - 0.2)) if hung >= 0 else margin
        if hung >= 0 and max(abs(height - 0.5), abs(along - 0.5)) < 0.2:
            return _unpack(scene.textures[hung, 0]), margin
        return _unpack(scene.textures[scene.wall[row, column, side], 0]), margin
    if height < 0:
        t = 0.49 / -s
        at_x, at_y = x + t * dx, y + t * dy
        margin = min(margin, *(min(place % 1, 1 - place % 1) for place in (at_x, at_y)))
        return _unpack(scene.textures[scene.floor[math.floor(at_y), math.floor(at_x)], 0]), margin
    azimuth = math.atan2(dx, -dy) % math.tau / math.tau * 16
    slope = s / math.hypot(dx, dy) * 8
    margin = min(margin, *(min(place % 1, 1 - place % 1) for place in (azimuth, slope)))
    return _unpack(scene.sky[math.floor(slope), math.floor(azimuth) % 16]), margin


@pytest.mark.parametrize(
    "pose", [(1.5, 1.5, 90), (5.5, 3.25, 0), (3.5, 4.0, 315), (1.625, 5.5, 67.5), (5.5, 5.5, 202.5)]
)
def test_pictures_against_one_ray_at_a_time(pose: tuple[float, float, float]) -> None:
    scene, size = _flat_scene(), 16
    picture = render(scene, np.array([pose], float), size)[0]
    places = (np.arange(2 * size) + 0.5) / size - 1
    compared = 0
    for row in range(size):
        for column in range(size):
            samples = [
                _sample(scene, np.array(pose), places[2 * column + i], -places[2 * row + j])
                for j in (0, 1)
                for i in (0, 1)
            ]
            # Heights are in single precision, 1e-7 of numbers up to 10: nearer an edge either side is right.
            if min(margin for _, margin in samples) > 1e-5:
                mean = (sum(colour for colour, _ in samples) + 2) // 4
                assert picture[row, column].tolist() == mean.tolist()
                compared += 1
    assert compared > 0.95 * size**2


def test_textures_lie_upright_and_unmirrored() -> None:
    """Facing a wall from half a cell away, its texture fills the picture."""
    scene = _flat_scene()
    texture = np.zeros((TEXELS, TEXELS, 3))
    texture[:32, :32], texture[:32, 32:], texture[32:, :32], texture[32:, 32:] = np.eye(4, 3) * 200 + 10
    scene.textures[:196] = pyramid(texture)
    scene.picture[:] = -1
    for heading in (0, 270):  # walls north and west of cell (1, 1)
        picture = render(scene, np.array([[1.5, 1.5, heading]]), TEXELS)[0]
        # The eye is a little lower than the middle of the wall, by less than one texel here.
        np.testing.assert_array_equal(picture[2:30], texture[2:30])
        np.testing.assert_array_equal(picture[34:62], texture[34:62])


def test_a_picture_does_not_depend_on_the_others() -> None:
    scene = _flat_scene()
    rng = np.random.default_rng(0)
    poses = np.column_stack([rng.integers(12, 28, 40) / 8, np.full(40, 1.5), rng.integers(0, 48, 40) * 7.5])
    together = render(scene, poses, 32)
    for i in (0, 17, 39):
        np.testing.assert_array_equal(together[i], render(scene, poses[i : i + 1], 32)[0])
    order = rng.permutation(40)
    np.testing.assert_array_equal(together[order], render(scene, poses[order], 32))


@pytest.mark.parametrize(("options", "message"), [({"size": 4}, "8 to 512"), ({"cells": 10}, "odd number")])
def test_stand_ins_that_cannot_be(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DmlabStandIn(**options)


def test_without_labmaze_there_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "labmaze", None)
    with pytest.raises(ValueError, match=r"pip install 'arvdm-theory\[video\]'") as caught:
        simulator().world(0)
    assert "\n" not in str(caught.value)
