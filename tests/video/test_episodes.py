"""Walks on a lattice, what must be remembered on them, and recordings on the disk."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from arvdm_theory.data.clips import read_frames
from arvdm_theory.data.dataset import ClipDataset
from arvdm_theory.data.index import build_index
from arvdm_theory.data.teco import TecoDmlab, TecoMinecraft
from arvdm_theory.video.simulators.episodes import episode_seed, record
from arvdm_theory.video.simulators.recording import Recording, write_episode
from arvdm_theory.video.simulators.trajectories import Kind, Trajectory
from arvdm_theory.video.simulators.trajectories import Path as Walk
from arvdm_theory.video.simulators.worlds import FORWARD, LEFT, MOVES, RIGHT, Simulator, World

KINDS: tuple[Kind, ...] = ("turn", "walk", "explore")


def _open_floor(rows: int, columns: int) -> NDArray[np.bool_]:
    passages = np.zeros((rows, columns, 4), bool)
    passages[1:, :, 0] = passages[:-1, :, 2] = True
    passages[:, :-1, 1] = passages[:, 1:, 3] = True
    return passages


def _crooked_corridor() -> NDArray[np.bool_]:
    """A one-cell way: three cells east, then two south, then one west."""
    passages = np.zeros((3, 4, 4), bool)
    here = (0, 0)
    for move in (1, 1, 1, 2, 2, 3):
        there = (here[0] + MOVES[move][0], here[1] + MOVES[move][1])
        passages[here][move] = passages[there][(move + 2) % 4] = True
        here = there
    return passages


@dataclass(frozen=True)
class PoseWorld:
    """Pictures that tell the pose and nothing else."""

    size: int
    passages: NDArray[np.bool_]
    description: Mapping[str, Any]

    def render(self, poses: NDArray[np.float64]) -> NDArray[np.uint8]:
        frames = np.zeros((len(poses), self.size, self.size, 3), np.uint8)
        frames[:] = (poses * (16, 16, 0.5)).astype(np.uint8)[:, None, None]
        return frames


@dataclass(frozen=True)
class PoseSimulator:
    size: int = 16
    name: str = "poses"

    def world(self, seed: int) -> PoseWorld:
        return PoseWorld(self.size, _open_floor(4, 4 + seed % 3), {"seed": seed})


def _walk(kind: Kind, seed: int = 0, passages: NDArray[np.bool_] | None = None, **options: Any) -> Walk:
    floor = _open_floor(5, 6) if passages is None else passages
    return Trajectory(kind, **options).walk(floor, np.random.default_rng(seed))


def test_the_pose_simulator_follows_the_protocols() -> None:
    assert isinstance(PoseSimulator(), Simulator)
    assert isinstance(PoseSimulator().world(0), World)


@pytest.mark.parametrize("between", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_action_does_what_it_says(kind: Kind, between: bool) -> None:
    for seed in range(5):
        walk = _walk(kind, seed, between=between, cell_steps=3, turn_steps=20)
        assert len(walk.poses) == len(walk.actions) == 300
        halves = 0
        for action, before, after in zip(walk.actions, walk.poses, walk.poses[1:], strict=False):
            turned = (after[2] - before[2] + 180) % 360 - 180
            moved = after[:2] - before[:2]
            if action == FORWARD:
                assert turned == 0
                ahead = np.array([np.sin(np.deg2rad(before[2])), -np.cos(np.deg2rad(before[2]))])
                step = moved @ ahead
                np.testing.assert_allclose(moved, step * ahead, atol=1e-12)
                whole, half = np.isclose(step, 1 / 3), np.isclose(step, 1 / 6)
            else:
                np.testing.assert_array_equal(moved, 0)
                assert np.sign(turned) == {LEFT: -1, RIGHT: 1}[int(action)]
                whole, half = np.isclose(abs(turned), 18), np.isclose(abs(turned), 9)
            assert whole or half
            halves += int(half)
        assert (halves > 0) == between


@pytest.mark.parametrize("kind", KINDS)
def test_needles_are_exactly_the_poses_met_again_outside_the_context(kind: Kind) -> None:
    """Against a plain search over all pairs of frames."""
    for seed in range(5):
        walk = _walk(kind, seed, frames=150, context=20)
        expected = []
        for now in range(150):
            earlier = [then for then in range(now) if (walk.poses[then] == walk.poses[now]).all()]
            if earlier and now - max(earlier) > 20:
                expected.append([max(earlier), now])
        assert walk.needles.tolist() == expected
        assert walk.needles.dtype == np.int64
        if kind != "explore":
            assert expected


@pytest.mark.parametrize("kind", KINDS)
def test_between_queries_lie_halfway_between_two_poses_that_are_out_of_sight(kind: Kind) -> None:
    found = 0
    for seed in range(5):
        walk = _walk(kind, seed, context=12, between=True)
        for one, other, now in walk.between.tolist():
            a, b, q = walk.poses[[one, other, now]]
            turn = (b[2] - a[2] + 180) % 360 - 180
            np.testing.assert_allclose(q[:2], (a[:2] + b[:2]) / 2, atol=1e-12)
            assert abs((q[2] - a[2] - turn / 2 + 180) % 360 - 180) < 1e-12
            # One step of a quarter cell, or one of 15 degrees, between the two remembered ones.
            assert np.isclose(np.abs(b[:2] - a[:2]).sum(), 0.25) != np.isclose(abs(turn), 15)
            assert not (walk.poses[:now] == q).all(-1).any()
            recent = walk.poses[now - 12 : now]
            assert not (recent == a).all(-1).any()
            assert not (recent == b).all(-1).any()
        found += len(walk.between)
    assert found > 20
    assert len(_walk(kind, context=12).between) == 0


def test_a_turn_stays_in_place_and_sweeps_less_than_a_circle() -> None:
    walk = _walk("turn")
    assert np.ptp(walk.poses[:, :2], axis=0).tolist() == [0, 0]
    legs = np.split(walk.actions, np.flatnonzero(np.diff(walk.actions)) + 1)
    assert {int(leg[0]) for leg in legs} == {LEFT, RIGHT}
    # A leg back to the start and the next away from it are the same way: two sweeps of 23 steps at the most.
    assert max(len(leg) for leg in legs) <= 46
    assert len(legs[0]) <= 23


def test_a_walk_keeps_to_the_passages_and_comes_back_to_the_very_pose() -> None:
    for seed in range(10):
        walk = _walk("walk", seed, _crooked_corridor(), context=8)
        first = walk.needles[0]
        assert first[0] == 0
        period = int(first[1])
        np.testing.assert_array_equal(walk.poses[:-period], walk.poses[period:])
        np.testing.assert_array_equal(walk.actions[:-period], walk.actions[period:])


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_walks_through_walls(kind: Kind) -> None:
    passages = _crooked_corridor()
    for seed in range(10):
        walk = _walk(kind, seed, passages, context=8, between=True)
        cells = np.floor(walk.poses[:, :2]).astype(int)
        for (x, y), (to_x, to_y) in pairwise(cells.tolist()):
            if (x, y) != (to_x, to_y):
                assert passages[y, x, MOVES.index((to_y - y, to_x - x))]
        assert passages[cells[:, 1], cells[:, 0]].any(-1).all()


def test_an_exploration_sees_much_and_comes_back() -> None:
    walks = [_walk("explore", seed) for seed in range(10)]
    assert np.mean([len({*map(tuple, np.floor(walk.poses[:, :2]).tolist())}) for walk in walks]) > 15
    assert min(len(walk.needles) for walk in walks) > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "jump"}, "one of turn, walk, explore"),
        ({"frames": 1}, "at least 2 frames"),
        ({"context": 0}, "at least 2 frames"),
        ({"turn_steps": 6}, "multiple of 4"),
        ({"kind": "turn", "context": 46}, "no needle fits"),
        ({"kind": "turn", "frames": 17, "context": 16}, "no needle fits"),
        ({"kind": "turn", "context": 10, "farthest": 5}, "by at most 5 steps"),
    ],
)
def test_trajectories_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Trajectory(**options)


def test_a_turn_goes_no_farther_than_it_may() -> None:
    trajectory = Trajectory("turn", frames=200, context=6, farthest=5)
    for seed in range(5):
        walk = trajectory.walk(_open_floor(2, 2), np.random.default_rng(seed))
        away = (walk.poses[:, 2] - walk.poses[0, 2] + 180) % 360 - 180
        # Legs of 4 or 5 steps of 15 degrees, to either side.
        assert (away.min(), away.max()) == (-75, 75)


def test_a_round_of_a_walk_takes_no_more_steps_than_it_may() -> None:
    for seed in range(5):
        walk = _walk("walk", seed=seed, frames=200, passages=_open_floor(5, 5), farthest=48)
        first = walk.poses[0]
        again = np.flatnonzero((walk.poses == first).all(1))
        assert again[1] <= 48
        assert np.diff(again).tolist() == [again[1]] * (len(again) - 1)
    with pytest.raises(ValueError, match="at most 20 steps"):
        _walk("walk", passages=_open_floor(1, 2), farthest=20)


def test_the_shortest_turn_that_holds_a_needle_does() -> None:
    walk = _walk("turn", frames=19, context=16)
    assert [0, 18] in walk.needles.tolist()


def test_worlds_without_room() -> None:
    with pytest.raises(ValueError, match="no two cells"):
        _walk("explore", passages=np.zeros((3, 3, 4), bool))
    with pytest.raises(ValueError, match="no way there and back"):
        _walk("walk", passages=_open_floor(1, 2), context=100)


def test_the_same_seed_gives_the_same_episode_and_another_does_not() -> None:
    trajectory = Trajectory("explore", frames=60)
    one, same, other = (record(PoseSimulator(), seed, trajectory) for seed in (3, 3, 4))
    for name in ("frames", "actions", "poses", "needles", "between"):
        assert getattr(one, name).tobytes() == getattr(same, name).tobytes()
    assert one.frames.tobytes() != other.frames.tobytes()
    np.testing.assert_array_equal(one.frames, PoseSimulator().world(one.meta["world"]["seed"]).render(one.poses))
    json.dumps(one.meta)


def test_episode_seeds_differ() -> None:
    seeds = {episode_seed(seed, split, number) for seed in (0, 1) for split in (0, 1) for number in range(100)}
    assert len(seeds) == 400
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_recording_goes_on_where_it_stopped(tmp_path: Path) -> None:
    recording = Recording(PoseSimulator(), Trajectory("turn", frames=40), seed=5)
    whole = list(recording.write(tmp_path / "whole", 3, 1))
    assert len(whole) == 4
    part = recording.write(tmp_path / "part", 2, 1)
    finished = next(part)
    part.close()
    before = finished.stat().st_mtime_ns
    assert len(list(recording.write(tmp_path / "part", 3, 1))) == 4
    assert finished.stat().st_mtime_ns == before
    files = sorted(path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*.*"))
    assert files == sorted(path.relative_to(tmp_path / "part") for path in (tmp_path / "part").rglob("*.*"))
    assert [path.as_posix() for path in files if path.suffix == ".npz"] == [
        "test/0000/000000.npz", "train/0000/000000.npz", "train/0000/000001.npz", "train/0000/000002.npz"
    ]  # fmt: skip
    for file in files:
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "part" / file).read_bytes()


def test_a_folder_keeps_to_one_data_set(tmp_path: Path) -> None:
    list(Recording(PoseSimulator(), Trajectory("turn", frames=40)).write(tmp_path, 1))
    with pytest.raises(ValueError, match="differs in seed"):
        list(Recording(PoseSimulator(), Trajectory("turn", frames=40), seed=1).write(tmp_path, 1))
    with pytest.raises(ValueError, match="differs in simulator, trajectory"):
        list(Recording(PoseSimulator(32), Trajectory("walk", frames=60)).write(tmp_path, 1))
    (tmp_path / "simulation.json").write_text("{")
    with pytest.raises(ValueError, match="not what a simulation writes"):
        list(Recording(PoseSimulator(), Trajectory("turn", frames=40)).write(tmp_path, 1))


@pytest.mark.parametrize("layout", ["npz", "mp4"])
def test_the_readers_of_the_real_data_read_recordings(tmp_path: Path, layout: Any) -> None:
    """A forward action is one that led to a frame further on, and a needle looks the same in both frames."""
    recording = Recording(PoseSimulator(), Trajectory("walk", frames=100), layout=layout)
    paths = list(recording.write(tmp_path, 2))
    index = build_index(tmp_path, TecoDmlab() if layout == "npz" else TecoMinecraft(), progress=False)
    assert index.skipped == ()
    for clip, path in zip(ClipDataset(index, leads_to="next"), paths, strict=True):
        saved = np.load(path.with_suffix(".npz"))
        poses, needles, context = saved["poses"], saved["needles"], int(saved["context"])
        assert clip.frames.shape == (100, 16, 16, 3)
        assert clip.actions[0] == -1
        moved = (np.diff(poses[:, :2], axis=0) != 0).any(-1)
        np.testing.assert_array_equal(clip.actions[1:] == FORWARD, moved)
        assert context == 16
        assert len(needles) > 0
        assert (needles[:, 1] - needles[:, 0] > context).all()
        np.testing.assert_array_equal(clip.frames[needles[:, 0]], clip.frames[needles[:, 1]])


def test_a_lossless_video(tmp_path: Path) -> None:
    episode = record(PoseSimulator(), 0, Trajectory(frames=40))
    write_episode(episode, tmp_path / "a.mp4")
    np.testing.assert_array_equal(read_frames(tmp_path / "a.mp4"), episode.frames)
    with pytest.raises(ValueError, match=r"npz or an \.mp4"):
        write_episode(episode, tmp_path / "a.avi")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "a.npz"]
