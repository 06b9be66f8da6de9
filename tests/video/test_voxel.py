"""The Minecraft stand-in: landscapes to walk in, and pictures that repeat exactly."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from arvdm_theory.data.clips import read_frames
from arvdm_theory.data.dataset import ClipDataset
from arvdm_theory.data.index import build_index
from arvdm_theory.data.teco import TecoMinecraft
from arvdm_theory.video.simulators.blocks import AIR, BLOCKS, block
from arvdm_theory.video.simulators.episodes import record
from arvdm_theory.video.simulators.recording import Recording
from arvdm_theory.video.simulators.terrain import LEVELS_UP, SEA
from arvdm_theory.video.simulators.trajectories import Kind, Trajectory
from arvdm_theory.video.simulators.voxel import CELL, MinecraftStandIn, VoxelWorld, simulator
from arvdm_theory.video.simulators.worlds import FORWARD, MOVES, Simulator, World


@pytest.fixture(scope="module")
def world() -> VoxelWorld:
    return simulator(64).world(0)


def test_worlds_repeat_and_differ(world: VoxelWorld) -> None:
    source = simulator(64)
    assert isinstance(source, Simulator)
    assert isinstance(world, World)
    same, other = pickle.loads(pickle.dumps(source)).world(0), source.world(1)
    assert world.terrain.voxels.tobytes() == same.terrain.voxels.tobytes()
    assert world.description == same.description != other.description
    poses = np.array([[6.5, 6.5, heading] for heading in range(0, 360, 45)], float)
    np.testing.assert_array_equal(world.render(poses), same.render(poses))
    assert (world.render(poses) != other.render(poses)).mean() > 0.5


@pytest.mark.parametrize("seed", range(4))
def test_a_landscape_has_all_there_is_to_see(seed: int) -> None:
    world = simulator(8).world(seed)
    voxels = world.terrain.voxels
    assert voxels.max() < len(BLOCKS)
    assert (voxels[..., 0] != AIR).all()  # every ray that falls meets something
    assert (voxels[..., -1] == AIR).all()  # in front of every face there is a voxel
    assert not (voxels[..., SEA:] == block("water")).any()
    seen = world.description["blocks"]
    for kinds in (("water",), ("sand",), ("grass 0", "grass 1", "grass 2", "grass 3"), ("poppies", "dandelions")):
        assert sum(seen.get(kind, 0) for kind in kinds) > 100
    logs = [(voxels == block(f"{tree} log")).any(-1).sum() for tree in ("oak", "birch", "spruce")]
    assert sum(logs) > 40
    # Leaves hang above air: one can look under a tree.
    leaves = np.isin(voxels[..., 1:], [block(f"{tree} leaves") for tree in ("oak", "birch", "spruce")])
    assert (leaves & (voxels[..., :-1] == AIR)).sum() > 500


@pytest.mark.parametrize("seed", range(4))
def test_the_walkable_ground_hangs_together_and_is_never_steep_or_wet(seed: int) -> None:
    world = MinecraftStandIn(8, cells=10).world(seed)
    passages, standing = world.passages, world.standing
    walkable = passages.any(-1)
    assert walkable.sum() >= 40
    np.testing.assert_array_equal(passages[:-1, :, 2], passages[1:, :, 0])
    np.testing.assert_array_equal(passages[:, :-1, 1], passages[:, 1:, 3])
    start = tuple(np.argwhere(walkable)[0].tolist())
    reached, frontier = {start}, [start]
    while frontier:
        row, column = frontier.pop()
        for move, (down, right) in enumerate(MOVES):
            if passages[row, column, move]:
                there = (row + down, column + right)
                assert abs(standing[there] - standing[row, column]) <= 2
                if there not in reached:
                    reached.add(there)
                    frontier.append(there)
    assert len(reached) == walkable.sum()
    assert (standing[walkable] >= SEA).all()


@pytest.mark.parametrize("seed", range(4))
def test_the_eye_is_always_in_the_air_and_moves_smoothly(seed: int) -> None:
    """Along every passage, in steps that no trajectory takes: free around the eye, and 0.6 above all ground."""
    world = simulator(8).world(seed)
    steps = np.linspace(0, 1, 13)
    for row, column, move in np.argwhere(world.passages).tolist():
        down, right = MOVES[move]
        poses = np.column_stack([column + 0.5 + steps * right, row + 0.5 + steps * down, np.zeros(13)])
        x, y, z, _ = world.cameras(poses).T
        assert np.abs(np.diff(z)).max() <= 2 / 12 + 1e-9
        # The sides of the eye, not its middle, for on the edge between two cells either may be meant.
        for side in (-0.01, 0.01):
            at = np.floor(y + side).astype(int), np.floor(x + side).astype(int)
            assert (world.terrain.voxels[(*at, np.floor(z).astype(int))] == AIR).all()
            assert (z - world.terrain.ground[at] >= 0.62 - 1e-9).all()
    middle = world.cameras(np.array([[0.5, 0.5, 90.0], [1.5, 0.5, 90.0]]))
    np.testing.assert_allclose(middle[1, :2] - middle[0, :2], [CELL, 0])
    np.testing.assert_allclose(middle[:, 2], world.standing[0, :2] + 1.62)


@pytest.mark.parametrize(("size", "kind"), [(16, "turn"), (16, "walk"), (16, "explore"), (64, "walk")])
def test_needles_show_the_same_pixels_though_rendered_apart(size: int, kind: Kind) -> None:
    source = simulator(size)
    episode = record(source, 2, Trajectory(kind, frames=120))
    assert episode.frames.shape == (120, size, size, 3)
    seen, queried = episode.needles.T
    assert len(seen) > 0
    np.testing.assert_array_equal(episode.frames[seen], episode.frames[queried])
    # record() renders a pose once; a fresh world, asked for the two ends on their own, must agree too.
    world = source.world(int(np.random.SeedSequence(2).generate_state(2)[0]))
    for then, now in episode.needles[:: max(1, len(seen) // 3)].tolist():
        np.testing.assert_array_equal(world.render(episode.poses[then : then + 1])[0], episode.frames[now])


def test_a_picture_does_not_depend_on_the_others(world: VoxelWorld) -> None:
    """Batches of every size, as arrays of other lengths take other paths through vector instructions."""
    poses = record(simulator(64), 0, Trajectory(frames=24)).poses
    together = world.render(poses)
    order = np.random.default_rng(0).permutation(24)
    np.testing.assert_array_equal(together[order], world.render(poses[order]))
    for start, stop in ((0, 1), (1, 3), (3, 8), (8, 24)):
        np.testing.assert_array_equal(together[start:stop], world.render(poses[start:stop]))


def test_places_can_be_told_apart() -> None:
    """Different poses show different pictures, and not only in a few pixels."""
    for seed in range(2):
        episode = record(simulator(32), seed, Trajectory("explore", frames=160))
        poses, first = np.unique(episode.poses, axis=0, return_index=True)
        pictures = episode.frames[first].reshape(len(poses), -1).astype(float)
        assert len(np.unique(pictures, axis=0)) == len(poses)
        apart = np.sqrt(np.maximum(((pictures[:, None, ::7] - pictures[None, :, ::7]) ** 2).mean(-1), 0))
        # Half the neighbouring poses of a walk lie nearer to each other than 30 grey levels; strangers do not.
        assert np.median(apart) > 30


def test_recordings_are_videos_as_the_readers_of_the_real_data_take_them(tmp_path: Path) -> None:
    trajectory = Trajectory("walk", frames=100)
    (path,) = Recording(simulator(32), trajectory, layout="mp4").write(tmp_path, 1)
    index = build_index(tmp_path, TecoMinecraft(), progress=False)
    assert index.skipped == ()
    (clip,) = ClipDataset(index, leads_to="next")
    assert set(np.unique(clip.actions[1:])) <= set(range(TecoMinecraft().action_count - 1))
    assert (clip.actions == FORWARD).any()
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as arrays:
        episode, needles = record(simulator(32), int(arrays["seed"]), trajectory), arrays["needles"]
    np.testing.assert_array_equal(read_frames(path), episode.frames)
    np.testing.assert_array_equal(clip.frames[needles[:, 0]], clip.frames[needles[:, 1]])


@pytest.mark.parametrize(("options", "message"), [({"size": 4}, "8 to 512"), ({"cells": 5}, "6 to 64")])
def test_stand_ins_that_cannot_be(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MinecraftStandIn(**options)


def test_the_highest_landscape_fits_below_the_top(world: VoxelWorld) -> None:
    assert world.terrain.top.max() < LEVELS_UP
