"""The walker's video: worlds, walks, and pictures that are exactly the colours of the visible cells."""

import itertools
import math

import numpy as np
import pytest
import torch

from arvdm_theory import GridVideo
from arvdm_theory.laws.gridworld.view import View
from arvdm_theory.laws.gridworld.world import (
    GridworldError,
    RandomWalk,
    World,
    maze,
    pose,
    ring,
    torus,
    tour,
    walk,
)

VIEWS = [View("patch", 3), View("topdown", 16), View("firstperson", 16)]
WORLDS = [ring(5), torus(3, 4), maze(3, 4, seed=5)]
CASES = list(itertools.product(WORLDS, VIEWS))
IDS = [f"{world.name}-{view.kind}" for world, view in CASES]
MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# -- worlds and walks


def test_a_ring_goes_round_between_two_walls():
    world = ring(4)
    assert world.neighbours == ((-1, 1, -1, 3), (-1, 2, -1, 0), (-1, 3, -1, 1), (-1, 0, -1, 2))


def test_a_torus_wraps_both_ways():
    world = torus(3, 4)
    assert world.neighbours[0] == (8, 1, 4, 3)
    assert world.at(11, 1, 1) == 0
    assert all(cell >= 0 for row in world.neighbours for cell in row)


@pytest.mark.parametrize("seed", range(8))
def test_a_maze_is_a_spanning_tree(seed):
    world = maze(4, 5, seed)
    passages = {frozenset((a, b)) for a, row in enumerate(world.neighbours) for b in row if b != -1}
    # Connected (World refuses anything else) with one passage fewer than cells: a tree, so no way round.
    assert len(passages) == world.cells - 1
    assert world == maze(4, 5, seed)
    assert world != maze(4, 5, seed + 1)


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_a_tour_explores_everything_along_passages(world):
    frames = 4 * world.cells
    path = tour(world, frames)
    cells = path // 4
    assert len(path) == frames
    assert set(cells.tolist()) == set(range(world.cells))
    for frame in range(1, frames):
        assert world.neighbours[cells[frame - 1]][path[frame] % 4] == cells[frame]
    assert path.tolist() == walk(world, 0, [int(p % 4) for p in path[1:]]).tolist()


@pytest.mark.parametrize(
    ("world", "view", "stay"),
    [(ring(5), VIEWS[0], 0.0), (maze(2, 3, 1), VIEWS[2], 0.3), (torus(2, 2), VIEWS[2], 0.5)],
)
def test_random_walks_follow_the_transition_law(world, view, stay):
    video = GridVideo(world, view, path=RandomWalk(1, stay))
    law = video.transition.toarray()
    assert np.allclose(law.sum(1), 1, atol=1e-15)
    expected = np.zeros((len(law), len(law)))
    for cell, row in enumerate(world.neighbours):
        ways = [(heading, other) for heading, other in enumerate(row) if other != -1]
        for looking in range(4):
            expected[pose(cell, looking), pose(cell, looking)] += stay
            for heading, other in ways:
                expected[pose(cell, looking), pose(other, heading)] += (1 - stay) / len(ways)
    assert np.array_equal(law, expected)

    walks = 20_000
    paths = video.sample_paths(walks, 6, generator(3)).numpy()
    here = np.zeros(len(law))
    here[video.start] = 1
    for frame in range(6):
        counts = np.bincount(paths[:, frame], minlength=len(law))
        possible = (here > 0) & (here < 1)
        z = (counts - walks * here)[possible] / np.sqrt(walks * here * (1 - here))[possible]
        # About 100 binomial counts: |z| > 5 has a chance of 6e-7 each.
        assert np.abs(z).max(initial=0.0) < 5
        assert np.array_equal(counts[~possible], walks * here[~possible])
        here = here @ law


# -- pictures against independent geometry


@pytest.mark.parametrize("world", [maze(3, 3, 2), maze(4, 2, 7)], ids=lambda world: world.name)
def test_first_person_pixels_by_segment_intersection(world):
    """Every wall of the map is a segment: a floor point is seen if the line of sight crosses none of them."""
    view = View("firstperson", size=8, reach=2.7)
    table = view.pixels(world)
    walls = [
        ((r + (heading == 2), c + (heading == 1)), (r + (heading != 0), c + (heading != 3)))
        for r in range(world.rows)
        for c in range(world.columns)
        for heading in range(4)
        if world.neighbours[r * world.columns + c][heading] == -1
    ]

    def first_wall(eye, direction):
        depths = [math.inf]
        for (r0, c0), (r1, c1) in walls:
            axis = 0 if r0 == r1 else 1  # the coordinate that is constant along the wall
            if direction[axis] == 0:
                continue
            depth = ((r0, c0)[axis] - eye[axis]) / direction[axis]
            other = eye[1 - axis] + depth * direction[1 - axis]
            if depth > 0 and (r0, c0)[1 - axis] <= other <= (r1, c1)[1 - axis]:
                depths.append(depth)
        return min(depths)

    seen = 0
    for cell, heading in itertools.product(range(world.cells), range(4)):
        ahead, right = MOVES[heading], MOVES[(heading + 1) % 4]
        centre = (cell // world.columns + 0.5, cell % world.columns + 0.5)
        eye = tuple(x - 0.45 * a for x, a in zip(centre, ahead, strict=True))
        for i, j in itertools.product(range(8), repeat=2):
            height, slope = (i + 0.5) / 4 - 1, (j + 0.5) / 4 - 1
            direction = tuple(a + slope * r for a, r in zip(ahead, right, strict=True))
            depth, wall = 0.49 / abs(height), first_wall(eye, direction)
            if depth > wall:
                expected = -2 if wall < view.reach else -1
            elif height > 0 and depth < view.reach:
                row, column = (math.floor(e + depth * d) for e, d in zip(eye, direction, strict=True))
                expected = row * world.columns + column
                seen += 1
            else:
                expected = -1
            assert table[pose(cell, heading), i, j] == expected, (cell, heading, i, j)
    assert seen > 100


def test_first_person_floor_of_an_open_torus():
    world, size = torus(3, 5), 16
    table = View("firstperson", size, reach=3.2).pixels(world)
    for cell, heading in itertools.product(range(world.cells), range(4)):
        ahead, right = np.array(MOVES[heading]), np.array(MOVES[(heading + 1) % 4])
        for i, j in itertools.product(range(size), repeat=2):
            height, slope = (i + 0.5) / (size / 2) - 1, (j + 0.5) / (size / 2) - 1
            depth = 0.49 / height
            if height < 0 or depth >= 3.2:
                assert table[pose(cell, heading), i, j] == -1
                continue
            spot = np.array(divmod(cell, 5)) + 0.5 + (depth - 0.45) * ahead + depth * slope * right
            row, column = np.floor(spot).astype(int)
            assert table[pose(cell, heading), i, j] == row % 3 * 5 + column % 5


def test_top_down_frames_of_a_torus_are_rolled_maps():
    video = GridVideo(torus(4, 5), View("topdown", size=15, radius=2), colours=7)
    maps = video.sample_maps(3, generator())
    paint = video.palette[maps].reshape(3, 4, 5, 3).numpy()
    for cell in range(20):
        row, column = divmod(cell, 5)
        rolled = np.roll(paint, (2 - row, 2 - column), (1, 2))
        around = rolled[:, [0, 1, 2, 3, 0]]  # five rows of a map that has four
        expected = np.kron(around, np.ones((1, 3, 3, 1)))
        assert np.array_equal(video.render(maps, torch.full((3, 1), pose(cell)))[:, 0].numpy(), expected)


def test_top_down_walls_stand_where_there_is_no_passage():
    world = maze(3, 3, 4)
    table = View("topdown", size=24, radius=1).pixels(world)
    for cell in range(9):
        own = table[pose(cell)][8:16, 8:16]
        sides = (own[0, 1:-1], own[1:-1, -1], own[-1, 1:-1], own[1:-1, 0])
        for side, other in zip(sides, world.neighbours[cell], strict=True):
            assert (side == (-2 if other == -1 else cell)).all()


@pytest.mark.parametrize(("world", "view"), CASES, ids=IDS)
def test_a_frame_is_the_colours_of_the_visible_cells_and_nothing_else(world, view):
    """Maps look alike from a pose exactly if they agree on V(pose); the picture is a function of pose and map."""
    video = GridVideo(world, view, colours=3)
    maps = video.sample_maps(40, generator(1))
    for at in range(0, 4 * world.cells, 3):
        path = torch.full((len(maps), 1), at)
        frames = video.render(maps, path)[:, 0]
        assert torch.equal(frames, video.render(maps, path)[:, 0])
        cells = np.flatnonzero(video.visible[at])
        assert at // 4 in cells
        for a, b in itertools.combinations(range(12), 2):
            same = bool((maps[a, cells] == maps[b, cells]).all())
            assert torch.equal(frames[a], frames[b]) == same
        # Changing one visible cell changes the frame; changing all the hidden ones does not.
        for cell in cells:
            changed = maps.clone()
            changed[:, cell] = (maps[:, cell] + 1) % 3
            assert (video.render(changed, path)[:, 0] != frames).flatten(1).any(1).all()
        hidden = np.flatnonzero(~video.visible[at])
        changed = maps.clone()
        changed[:, hidden] = (maps[:, hidden] + 1) % 3
        assert torch.equal(video.render(changed, path)[:, 0], frames)


@pytest.mark.parametrize(("world", "view"), CASES, ids=IDS)
@pytest.mark.parametrize("colours", [2, 12])
def test_colours_can_be_read_back(world, view, colours):
    video = GridVideo(world, view, colours)
    maps, paths, frames = video.sample(8, 30, generator(2))
    assert frames.shape == (8, 30, view.size, view.size, 3)
    assert frames.dtype == torch.float64
    assert bool(((frames >= 0) & (frames <= 1)).all())
    shown = torch.from_numpy(video.visible)[paths]
    assert torch.equal(video.read(frames, paths), torch.where(shown, maps[:, None], -1))


def test_colours_can_be_read_through_noise():
    """Four hues are 0.8 or more apart: half of it is 8 standard deviations 0.2/√16 of a cell's mean."""
    video = GridVideo(torus(4, 4), View("topdown", 12), colours=4, noise=0.2)
    maps, paths, frames = video.sample(20, 30, generator(6))
    residual = (frames - video.render(maps, paths)).flatten()
    # The sample standard deviation of n Gaussians strays by σ/√(2n).
    assert abs(float(residual.std()) - 0.2) < 5 * 0.2 / math.sqrt(2 * len(residual))
    shown = torch.from_numpy(video.visible)[paths]
    assert torch.equal(video.read(frames, paths), torch.where(shown, maps[:, None], -1))


def test_heading_matters_to_the_first_person_only():
    world = torus(3, 4)
    for view in VIEWS:
        table = view.pixels(world).reshape(world.cells, 4, -1)
        assert bool((table == table[:, :1]).all()) is not view.sees_heading


@pytest.mark.parametrize("colours", [2, 5, 32])
def test_palette_colours_are_different_and_never_grey(colours):
    palette = GridVideo(ring(3), colours=colours).palette
    distance = (palette[:, None] - palette).norm(dim=-1) + torch.eye(colours)
    # A hue moves one channel by 6/C of the range 0.95 · 0.75 at a time, or two by parts of it at a corner.
    assert float(distance.min()) > min(1, 6 / colours) * 0.95 * 0.75 / math.sqrt(2) * (1 - 1e-9)
    assert float((palette.amax(-1) - palette.amin(-1)).min()) > 0.5


# -- sampling


def test_colours_follow_the_prior_independently():
    prior = np.array([[0.7, 0.2, 0.1], [0.0, 0.5, 0.5], [1 / 3, 1 / 3, 1 / 3]])
    video = GridVideo(ring(3), prior=prior)
    count = 20_000
    maps = video.sample_maps(count, generator(4)).numpy()
    joint = np.zeros((3, 3, 3))
    np.add.at(joint, tuple(maps.T), 1)
    expected = count * np.einsum("a,b,c->abc", *prior)
    assert joint[expected == 0].sum() == 0
    z = (joint - expected)[expected > 0] / np.sqrt(expected * (1 - expected / count))[expected > 0]
    assert np.abs(z).max() < 5  # 18 binomial counts


def test_samples_repeat_with_the_seed_and_follow_a_given_path():
    world = maze(3, 3)
    video = GridVideo(world, VIEWS[1], path=tour(world, 10))
    first, second = (video.sample(4, 7, generator(9)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert first.paths.tolist() == [tour(world, 7).tolist()] * 4
    assert not torch.equal(first.maps, video.sample(4, 7, generator(10)).maps)


def test_a_walker_may_stand_still_and_turn():
    video = GridVideo(ring(4), VIEWS[2], path=[pose(0, 1), pose(0, 3), pose(0, 3), pose(3, 3)])
    frames = video.sample(1, 4, generator()).frames[0]
    assert torch.equal(frames[1], frames[2])
    assert not np.array_equal(video.visible[pose(0, 1)], video.visible[pose(0, 3)])


# -- bad input


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ring(2), "at least 3 cells, got 2"),
        (lambda: torus(1, 5), "2 rows and 2 columns, got 1 x 5"),
        (lambda: maze(1, 1), "at least 2 cells"),
        (lambda: World(1, 2, (False, False), ((-1, 1, -1, -1), (-1,) * 4)), "0 east to 1 is not one .* and back"),
        (lambda: World(1, 3, (False, False), ((-1, 2, -1, -1), (-1,) * 4, (-1, -1, -1, 0))), "next cell"),
        (lambda: World(1, 2, (False, False), ((-1,) * 4,) * 2), "cell 1 cannot be reached"),
        (lambda: World(1, 2, (False, False), ((-1,) * 4,)), "2 cells need as many rows"),
        (lambda: walk(ring(4), 0, [1, 0]), "move 2 runs into the north wall of cell 1"),
        (lambda: walk(ring(4), 4, [1]), "from 0 to 3, got 4"),
        (lambda: walk(ring(4), 0, [5]), "heading from 0 to 3, got 5"),
        (lambda: tour(ring(4), 0), "at least one frame"),
        (lambda: View("map"), "'patch', 'topdown' or 'firstperson', got 'map'"),
        (lambda: View("topdown", 4, radius=2), "at least 5 pixels a side, got 4"),
        (lambda: View("firstperson", 3), "at least 4 pixels"),
        (lambda: View("firstperson", reach=0.5), "1 ≤ reach"),
        (lambda: RandomWalk(stay=1.0), r"\[0, 1\), got 1.0"),
        (lambda: GridVideo(ring(4), colours=1), "at least 2 colours, got 1"),
        (lambda: GridVideo(ring(4), prior=[0.5, 0.4]), "sum to 1"),
        (lambda: GridVideo(ring(4), prior=[1.5, -0.5]), "≥ 0"),
        (lambda: GridVideo(ring(4), prior=[math.nan, 0.5]), "≥ 0"),
        (lambda: GridVideo(ring(4), prior=np.full((3, 2), 0.5)), r"\(4, colours\).*got \(3, 2\)"),
        (lambda: GridVideo(ring(4), path=[0, 8]), r"from cell 0 \(frame 0\) to cell 2"),
        (lambda: GridVideo(ring(4), path=[0, 16]), "from 0 to 15"),
        (lambda: GridVideo(ring(4), path=[0.5]), "whole numbers"),
        (lambda: GridVideo(ring(4), path=RandomWalk(4)), "no cell 4"),
        (lambda: GridVideo(ring(4), noise=-1.0), "not negative, got -1"),
        (lambda: GridVideo(ring(4), path=[0, 4]).sample(1, 3), "3 frames are needed, but the path has 2"),
        (lambda: GridVideo(ring(4), path=[0, 4]).transition, "a RandomWalk is needed"),
        (lambda: GridVideo(ring(4)).sample(1, 0), "at least one frame"),
        (lambda: GridVideo(ring(4)).render(torch.full((1, 4), 4), torch.zeros(1, 1, dtype=int)), "0 to 3"),
    ],
)
def test_bad_input_is_named(build, message):
    with pytest.raises(GridworldError, match=message):
        build()
