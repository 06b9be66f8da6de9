"""The ray caster of blocks, against one ray at a time in double precision, and its light and haze."""

import math
from itertools import count

import numpy as np
import pytest
from numpy.typing import NDArray

from arvdm_theory.video.simulators import voxel_rays
from arvdm_theory.video.simulators.blocks import AIR, LEVEL_START, PYRAMID, TEXELS, block, faces, texels
from arvdm_theory.video.simulators.terrain import LEVELS_UP, Terrain, landscape
from arvdm_theory.video.simulators.voxel_rays import VIEW, Sky, render

NO_CLOUDS = Sky(np.zeros((4, 4), bool), (0.0, 10.0))
MIDDLE = VIEW + 2


def _terrain(voxels: NDArray[np.uint8]) -> Terrain:
    ground = (np.arange(1, LEVELS_UP + 1) * (voxels != AIR)).max(-1)
    return Terrain(voxels, ground, np.full(voxels.size, 3, np.uint8))


def _plain(height: int = 4) -> NDArray[np.uint8]:
    voxels = np.zeros((2 * MIDDLE + 1, 2 * MIDDLE + 1, LEVELS_UP), np.uint8)
    voxels[..., :height] = block("sand")
    return voxels


def _first_block(
    terrain: Terrain, eye: NDArray[np.float64], direction: tuple[float, float, float]
) -> tuple[tuple[int, int, int] | None, int, float, float]:
    """Voxel (column, row, level), axis crossed last, distance t, and how close a call it was, by plain walking."""
    here = [math.floor(place) for place in eye]
    margin = math.inf
    axis = 0
    for _ in count():
        ahead = [
            (math.inf if step == 0 else ((cell + (step > 0)) - place) / step)
            for cell, place, step in zip(here, eye, direction, strict=True)
        ]
        axis = ahead.index(min(ahead))
        t = ahead[axis]
        ends = sorted(ahead)
        margin = min(margin, ends[1] - ends[0])
        margin = min(margin, abs(t * math.hypot(*direction[:2]) - VIEW))
        if t * math.hypot(*direction[:2]) > VIEW + 2:
            return None, 0, math.inf, margin
        here[axis] += 1 if direction[axis] > 0 else -1
        if here[2] >= LEVELS_UP:
            return None, 0, math.inf, margin
        if terrain.voxels[here[1], here[0], here[2]] != AIR:
            return (here[0], here[1], here[2]), axis, t, margin
    raise AssertionError


@pytest.mark.parametrize("heading", [0.0, 37.5, 135.0, 247.5])
def test_rays_against_one_at_a_time(heading: float) -> None:
    """Block, face and distance of every sample; calls closer than single precision are left out."""
    side = 2 * MIDDLE + 20
    terrain = landscape(side, slice(MIDDLE, MIDDLE + 20), np.random.default_rng(3))
    row, column = MIDDLE + 7, MIDDLE + 9
    eye = np.array([column + 0.5, row + 0.375, float(terrain.top.reshape(side, side)[row, column]) + 1.62])
    size = 12
    across = ((np.arange(2 * size) + 0.5) / size - 1) * math.tan(math.radians(35))
    angle = math.radians(heading)
    hits = voxel_rays._cast(
        terrain,
        voxel_rays._Columns(
            x=np.full(2 * size, eye[0]),
            y=np.full(2 * size, eye[1]),
            z=np.full(2 * size, eye[2], np.float32),
            east=math.sin(angle) + across * math.cos(angle),
            south=across * math.sin(angle) - math.cos(angle),
        ),
        (-across - 0.12).astype(np.float32),
    )
    compared = met = 0
    for ray in range(4 * size**2):
        u, v = across[ray // (2 * size)], across[ray % (2 * size)]
        direction = (
            math.sin(angle) + u * math.cos(angle),
            u * math.sin(angle) - math.cos(angle),
            float(np.float32(-v - 0.12)),
        )
        voxel, axis, t, margin = _first_block(terrain, eye, direction)
        # Heights up to 32 in single precision are off by 2e-6, and a slope as flat as 0.03 makes 30 times that.
        if margin < 1e-3:
            continue
        compared += 1
        # The last column of blocks that is walked through may reach beyond the view, and a block there be met.
        if voxel is None or t * math.hypot(*direction[:2]) > VIEW:
            continue
        met += 1
        x, y, z = voxel
        assert hits.voxel[ray] == (y * side + x) * LEVELS_UP + z
        assert hits.face[ray] == (axis if axis < 2 else (2 if direction[2] < 0 else 3))
        assert hits.distance[ray] == pytest.approx(t, abs=1e-3)
        assert terrain.voxels.reshape(-1)[hits.front[ray]] == AIR
    assert compared > 0.9 * 4 * size**2
    assert met > 0.4 * 4 * size**2


def test_a_plain_lies_where_perspective_puts_it_and_the_haze_swallows_it() -> None:
    """On a plain at depth t, the ground shows at slope -h/t: the horizon, and the haze before it."""
    size = 64
    camera = np.array([[MIDDLE + 0.5, MIDDLE + 0.5, 4 + 1.62, 0.0]])
    picture = render(_terrain(_plain()), NO_CLOUDS, camera, size)[0].astype(int)
    middle = picture[:, size // 2]
    slopes = -((np.arange(size) + 0.5) / size * 2 - 1) * math.tan(math.radians(35)) - 0.12
    depth = np.where(slopes < 0, -1.62 / slopes, np.inf)
    clear = middle[depth < 15]
    assert len(clear) > 20
    # Sand is yellow, sky and haze are blue; single grains of it stay within a quarter of their mean.
    assert (clear[:, 0] > clear[:, 2] + 25).all()
    np.testing.assert_allclose(clear.mean(0), [219, 207, 160], rtol=0.1)
    # From 20 blocks on, the share of haze grows as the square of what part of the rest of the view is behind.
    fine = render(_terrain(_plain()), NO_CLOUDS, camera, 512)[0, :, 256].astype(float)
    fine_slopes = -((np.arange(512) + 0.5) / 256 - 1) * math.tan(math.radians(35)) - 0.12
    far = -1.62 / np.where(fine_slopes < 0, fine_slopes, -1e-9)
    dim = (far > 24) & (far < 46)
    share = (((far[dim] - 20) / (VIEW - 20)) ** 2)[:, None]
    assert dim.sum() > 5
    # A pixel there shows up to 3.6 blocks of depth, over which the haze's share changes by less than 0.24: half of
    # that, of the 76 by which sand and haze differ at most, is 9; texels of far levels add 3 % of 200.
    sand = clear.mean(0)
    np.testing.assert_allclose(fine[dim], sand + share * (np.array([188, 210, 236]) - sand), atol=15)
    haze = middle[(depth > VIEW) & (slopes < -0.001)]
    np.testing.assert_array_equal(haze, np.broadcast_to([188, 210, 236], haze.shape))
    above = middle[slopes > 0.01]
    assert (np.diff(above[:, 2] - above[:, 0]) <= 1).all()  # from the horizon up, ever bluer: rows run downwards
    assert above[0, 2] - above[0, 0] > above[-1, 2] - above[-1, 0] + 20


def test_walls_are_lit_by_their_side() -> None:
    """Walls across y and across x, filling the picture, keep their texture's colour and differ in brightness."""
    voxels = _plain(2)
    voxels[:MIDDLE, :, 2:10] = block("planks")
    voxels[:, : MIDDLE - 1, 2:10] = block("planks")
    camera = np.array([MIDDLE + 0.5, MIDDLE + 0.8, 5.5])
    north, west = (
        render(_terrain(voxels), NO_CLOUDS, np.array([[*camera, heading]]), 32)[0].mean((0, 1))
        for heading in (0.0, 270.0)
    )
    planks = texels()[faces()[block("planks"), 0] * PYRAMID + LEVEL_START[-2]]  # one texel, the mean of all
    # 8 % for the face's grain of texels in sight; the wall shades itself by up to a third of 50 %.
    shades = np.array([north / planks, west / planks])
    np.testing.assert_allclose(shades[0] / shades[1], 0.84 / 0.68, rtol=0.08)
    assert (shades > 0.6 * np.array([[0.84], [0.68]])).all()
    assert (shades < np.array([[0.84], [0.68]])).all()


def test_a_grass_block_is_green_above_and_brown_below() -> None:
    voxels = _plain(2)
    voxels[:MIDDLE, :, 2:5] = block("grass 2")
    camera = np.array([[MIDDLE + 0.5, MIDDLE + 2.5, 2 + 1.62, 0.0]])
    picture = render(_terrain(voxels), NO_CLOUDS, camera, 128)[0].astype(int)
    column = picture[:, 60]
    slopes = -((np.arange(128) + 0.5) / 64 - 1) * math.tan(math.radians(35)) - 0.12
    height = 3.62 + 2.5 * slopes
    fringe, earth = column[(height > 3.88) & (height < 3.96)], column[(height > 3.1) & (height < 3.6)]
    assert len(fringe) >= 2
    assert (fringe[:, 1] > fringe[:, 0]).all()
    assert (earth[:, 0] > earth[:, 1]).all()


def test_it_is_darker_under_a_roof() -> None:
    voxels = _plain(2)
    open_sky = render(_terrain(voxels), NO_CLOUDS, np.array([[MIDDLE, MIDDLE, 3.62, 0.0]]), 16)[0]
    voxels[MIDDLE - 20 : MIDDLE + 20, MIDDLE - 20 : MIDDLE + 20, 6] = block("roof")
    covered = render(_terrain(voxels), NO_CLOUDS, np.array([[MIDDLE, MIDDLE, 3.62, 0.0]]), 16)[0]
    np.testing.assert_allclose(covered[-4:].astype(float), open_sky[-4:] * 0.5, atol=1)


def test_the_sun_and_the_clouds_stand_where_they_are_said_to() -> None:
    """The sun in the picture of a camera that looks its way, and nowhere else; clouds cover the sky."""
    terrain, size = _terrain(_plain()), 32
    cameras = np.array([[MIDDLE + 0.5, MIDDLE + 0.5, 5.62, heading] for heading in (90.0, 180.0, 270.0, 0.0)])
    sky = Sky(np.zeros((4, 4), bool), (math.pi / 2, 0.3))
    sunny = (render(terrain, sky, cameras, size) == [255, 250, 208]).all(-1)
    assert not sunny[1:].any()
    rows, columns = np.nonzero(sunny[0])
    across = ((columns + 0.5) / size * 2 - 1) * math.tan(math.radians(35))
    slope = -((rows + 0.5) / size * 2 - 1) * math.tan(math.radians(35)) - 0.12
    pixel = 2 * math.tan(math.radians(35)) / size
    assert len(rows) >= 4
    np.testing.assert_allclose([across.mean(), slope.mean()], [0, 0.3], atol=pixel)
    cloudy = render(terrain, Sky(np.ones((4, 4), bool), (0.0, 10.0)), cameras[:1], size)[0, 0]
    clear = render(terrain, NO_CLOUDS, cameras[:1], size)[0, 0]
    assert (cloudy.astype(int)[:, 0] > clear.astype(int)[:, 0] + 40).all()


def test_level_textures_average_those_before() -> None:
    pyramids = texels().reshape(-1, PYRAMID, 3)
    assert len(pyramids) == faces().max() + 1
    for fine, coarse in zip(range(4), range(1, 5), strict=True):
        side = TEXELS >> fine
        whole = pyramids[:, LEVEL_START[fine] : LEVEL_START[fine + 1]].mean(1)
        half = pyramids[:, LEVEL_START[coarse] : LEVEL_START[coarse + 1]].mean(1)
        assert side**2 == LEVEL_START[fine + 1] - LEVEL_START[fine]
        np.testing.assert_allclose(whole, half, rtol=1e-5, atol=1e-3)
