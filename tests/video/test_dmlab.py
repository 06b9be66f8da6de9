"""The DMLab stand-in: mazes, and pictures that repeat exactly."""

from pathlib import Path

import numpy as np
import pytest

from arvdm_theory.video.simulators.dmlab import DmlabStandIn, simulator
from arvdm_theory.video.simulators.episodes import record
from arvdm_theory.video.simulators.recording import Recording
from arvdm_theory.video.simulators.trajectories import Trajectory
from arvdm_theory.video.simulators.worlds import Simulator, World

pytest.importorskip("labmaze", reason="labmaze is not installed (there is none for Python 3.13)")


def test_worlds_repeat_and_differ() -> None:
    one, same, other = (simulator(16).world(seed) for seed in (0, 0, 1))
    assert isinstance(simulator(), Simulator)
    assert isinstance(one, World)
    assert one.description == same.description != other.description
    poses = np.array([[1.5, 1.5, heading] for heading in range(0, 360, 30)], float)
    np.testing.assert_array_equal(one.render(poses), same.render(poses))
    assert (one.render(poses) != other.render(poses)).mean() > 0.5


@pytest.mark.parametrize("seed", range(6))
def test_mazes_have_corridors_all_connected(seed: int) -> None:
    world = DmlabStandIn(16, cells=11).world(seed)
    solid, passages = world.scene.solid, world.passages
    assert solid[[0, -1]].all()
    assert solid[:, [0, -1]].all()
    assert not passages[solid].any()
    np.testing.assert_array_equal(passages[:-1, :, 2], passages[1:, :, 0])
    np.testing.assert_array_equal(passages[:, :-1, 1], passages[:, 1:, 3])
    assert not passages[[0, -1]].any()
    assert not passages[:, [0, -1]].any()
    start = tuple(np.argwhere(~solid)[0].tolist())
    reached, frontier = {start}, [start]
    while frontier:
        row, column = frontier.pop()
        for move, (down, right) in enumerate(((-1, 0), (0, 1), (1, 0), (0, -1))):
            there = (row + down, column + right)
            if passages[row, column, move] and there not in reached:
                reached.add(there)
                frontier.append(there)
    assert len(reached) == (~solid).sum() > 30
    # Real corridors: cells with passages ahead and back alone.
    assert (passages.sum(-1) == 2).sum() >= 5


@pytest.mark.parametrize("size", [16, 32, 64])
def test_needles_show_the_same_pixels_though_rendered_apart(size: int) -> None:
    source = simulator(size)
    for kind in ("turn", "walk", "explore"):
        episode = record(source, 2, Trajectory(kind, frames=120))
        assert episode.frames.shape == (120, size, size, 3)
        seen, queried = episode.needles.T
        assert len(seen) > 0
        np.testing.assert_array_equal(episode.frames[seen], episode.frames[queried])
        # record() renders a pose once; a fresh world, asked for the two ends on their own, must agree too.
        world = source.world(int(np.random.SeedSequence(2).generate_state(2)[0]))
        np.testing.assert_array_equal(
            world.render(episode.poses[seen[:9]]), world.render(episode.poses[queried[:9]])
        )
        np.testing.assert_array_equal(world.render(episode.poses[queried[:9]]), episode.frames[queried[:9]])


def test_places_can_be_told_apart() -> None:
    """Pictures at different poses differ, but for a rare few (walls seen from so near that nothing else shows)."""
    for seed in range(3):
        episode = record(simulator(64), seed, Trajectory("explore", frames=200))
        poses = len(np.unique(episode.poses, axis=0))
        pictures = len(np.unique(episode.frames.reshape(200, -1), axis=0))
        assert pictures >= 0.97 * poses


def test_worker_processes_make_the_same_files(tmp_path: Path) -> None:
    recording = Recording(DmlabStandIn(8, cells=7), Trajectory("turn", frames=24, context=4))
    alone = list(recording.write(tmp_path / "alone", 3, 1))
    shared = list(recording.write(tmp_path / "shared", 3, 1, workers=2))
    assert len(alone) == len(shared) == 4
    for path in alone:
        assert (tmp_path / "shared" / path.relative_to(tmp_path / "alone")).read_bytes() == path.read_bytes()
