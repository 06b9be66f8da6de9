"""What retrieves without a network, on walks whose pictures are known by their poses."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from arvdm_theory.video.baselines import BASELINES, show_baselines
from arvdm_theory.video.memory_plans import MemoryPlan
from arvdm_theory.video.samples import _with_memory
from arvdm_theory.video.simulators.trajectories import Trajectory
from arvdm_theory.video.simulators.worlds import FORWARD, LEFT, RIGHT, pose_distance, reckoned
from arvdm_theory.video.windows import POSE_DIM, EpisodeSet, WindowSource, find_windows, pose_code

PLAN = MemoryPlan(memory=8, generated=4)


def hall() -> NDArray[np.bool_]:
    passages = np.ones((6, 6, 4), bool)
    passages[0, :, 0] = passages[:, -1, 1] = passages[-1, :, 2] = passages[:, 0, 3] = False
    return passages


def episodes(kind: str, slip: float, count: int = 20, told: str = "poses") -> EpisodeSet:
    """Pictures of one colour, the number of the frame, so that a picture tells which frame it copies."""
    walk = Trajectory(kind, frames=96, context=6, slip=slip)  # type: ignore[arg-type]
    paths = [walk.walk(hall(), np.random.default_rng(seed)) for seed in range(count)]
    picture = np.broadcast_to(2 * np.arange(96, dtype=np.uint8)[:, None, None, None], (96, 12, 12, 3)).copy()
    return EpisodeSet(
        [picture] * count,
        [f"{number}.npz:0" for number in range(count)],
        [path.poses for path in paths],
        [np.concatenate([[-1], path.actions[:-1]]) for path in paths],
        3,
        told,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("kind", ["turn", "walk", "explore"])
def test_dead_reckoning_is_right_where_steps_are_exact(kind: str) -> None:
    """Seen from the first frame, and so are the codes that networks are told."""
    exact, guessed = episodes(kind, 0.0, 5), episodes(kind, 0.0, 5, "reckoned")
    assert exact.poses is not None
    for number, (poses, actions) in enumerate(zip(exact.poses, exact.actions, strict=True)):
        found = reckoned(actions)
        turn = np.radians(poses[0, 2])
        east = found[:, 0] * np.cos(turn) - found[:, 1] * np.sin(turn) + poses[0, 0]
        south = found[:, 0] * np.sin(turn) + found[:, 1] * np.cos(turn) + poses[0, 1]
        np.testing.assert_allclose(
            pose_distance(np.stack([east, south, found[:, 2] + poses[0, 2]], -1), poses), 0, atol=1e-9
        )
        part = slice(10, 40, 2)
        np.testing.assert_allclose(
            exact.conditions(number, part, 30), guessed.conditions(number, part, 30), atol=2e-6
        )


def test_where_steps_slip_no_pose_is_met_twice_and_reckoning_drifts() -> None:
    """A turn's error is that of a random walk: n steps of a standard deviation of 0.2 steps each."""
    found = episodes("turn", 0.2, 200)
    assert found.poses is not None
    errors = []
    for poses, actions in zip(found.poses, found.actions, strict=True):
        assert len(np.unique(poses, axis=0)) == len(poses)
        errors.append((poses[-1, 2] - poses[0, 2]) / 15 - reckoned(actions)[-1, 2] / 15)
    steps = 95
    # Mean 0 and variance 0.04 a step; of 200 draws the variance has a relative standard error of a tenth.
    assert abs(np.mean(errors)) < 4 * 0.2 * np.sqrt(steps / 200)
    assert abs(np.var(errors) / (0.04 * steps) - 1) < 0.4


@pytest.mark.parametrize("kind", ["walk", "explore"])
def test_a_walk_that_slips_stays_on_its_way(kind: str) -> None:
    """Between walls: near the straight way, and a few steps at most from where it should be."""
    walk = Trajectory(kind, frames=200, context=6)  # type: ignore[arg-type]
    slipping = Trajectory(kind, frames=200, context=6, slip=0.3)  # type: ignore[arg-type]
    worst = 0.0
    for seed in range(20):
        exact = walk.walk(hall(), np.random.default_rng(seed))
        off = slipping.walk(hall(), np.random.default_rng(seed))
        assert (exact.actions == off.actions).all()
        distance = pose_distance(exact.poses, off.poses)
        worst = max(worst, float(distance.max()))
        assert 0.05 < float(np.median(distance)) < 1
        inside = (off.poses[:, :2] > 0.2).all() and (off.poses[:, :2] < 5.8).all()
        assert inside
    assert worst < 4


def test_needles_of_a_slipping_walk_are_the_nearest_by_enumeration() -> None:
    walk = Trajectory("explore", frames=120, context=6, slip=0.2).walk(hall(), np.random.default_rng(3))
    expected = []
    for now in range(120):
        apart = {seen: float(pose_distance(walk.poses[now], walk.poses[seen])) for seen in range(now)}
        far = {seen: value for seen, value in apart.items() if now - seen > 6}
        if far and min(far.values()) <= 1 and all(apart[seen] > 1 for seen in range(max(now - 6, 0), now)):
            expected.append((min(far, key=lambda seen: far[seen]), now))
    assert walk.needles.tolist() == [list(pair) for pair in expected]
    assert len(expected) > 5
    assert walk.between.shape == (0, 3)


def test_queries_near_a_remembered_pose_are_near_to_no_other() -> None:
    found = episodes("turn", 0.2)
    windows = find_windows(found, PLAN, 2, skip=2, queries="near")
    assert found.poses is not None
    for window in windows[:50]:
        poses = found.poses[window.episode][windows.frames(window.start)]
        for seen, asked in window.queries:
            memory = PLAN.remembered(asked)
            distance = pose_distance(poses[asked], poses)
            assert seen in memory
            assert distance[seen] == distance[memory.start : memory.stop].min() <= 1
            assert (distance[PLAN.prompt - PLAN.context : asked] > 1).all()


@pytest.mark.parametrize("slip", [0.0, 0.2])
def test_baselines_show_what_their_names_say(slip: float) -> None:
    """By enumeration over the memory; the best lag by trying them all."""
    found = episodes("turn", slip)
    source = WindowSource(find_windows(found, PLAN, 1, skip=2, queries="near" if slip else "same"))
    chosen = list(range(0, len(source.windows), 7))
    windows = [source.windows[number] for number in chosen]
    assert source.numbers(windows) == chosen
    asked = [[query for _, query in window.queries] for window in windows]
    shown = show_baselines(source.windows, chosen, asked)
    assert found.poses is not None
    errors: dict[int, dict[int, list[float]]] = {}
    clips = []
    for window in windows:
        part = source.windows.frames(window.start)
        clips.append(
            (
                found.frames[0][part],
                found.poses[window.episode][part],
                reckoned(found.actions[window.episode])[part],
            )
        )
    for (pictures, _, _), own in zip(clips, asked, strict=True):
        for query in own:
            for seen in PLAN.remembered(query):
                gone = float(((pictures[query].astype(float) - pictures[seen]) ** 2).mean())
                errors.setdefault(query, {}).setdefault(query - seen, []).append(gone)
    best = {query: min(lags, key=lambda lag: np.sum(lags[lag])) for query, lags in errors.items()}
    for (pictures, poses, guessed), window, result in zip(clips, windows, shown, strict=True):
        assert set(result.frames) == set(BASELINES)
        for place, (seen, query) in enumerate(window.queries):
            memory = list(PLAN.remembered(query))

            def nearest(
                where: np.ndarray, count: int, query: int = query, memory: list[int] = memory
            ) -> list[int]:
                ordered = sorted(
                    memory, key=lambda frame: (round(float(pose_distance(where[query], where[frame])), 12), -frame)
                )
                return ordered[:count]

            means = {
                "mean of the two nearest views": nearest(poses, 2),
                "nearest by dead reckoning": nearest(guessed, 1),
                "mean of the two nearest by dead reckoning": nearest(guessed, 2),
                "mean of the memory": memory,
                "memory by time": [query - best[query]],
            }
            for name, sources in means.items():
                expected = np.rint(pictures[sources].astype(float).mean(0))
                assert (result.frames[name][place] == expected).all(), name
            assert seen == nearest(poses, 1)[0]
            assert set(nearest(poses, 2) + nearest(guessed, 2)) | {query - best[query]} == set(
                result.copied[place]
            )


def test_codes_of_reckoned_poses_are_those_of_the_sums() -> None:
    actions = np.array([-1, LEFT, FORWARD, FORWARD, RIGHT, FORWARD])
    found = reckoned(actions)
    # Facing 15 degrees west of north, then north.
    east, north = np.sin(np.radians(-15)), np.cos(np.radians(-15))
    expected = [[0, 0, 0], [0, 0, -15], [0.25 * east, -0.25 * north, -15], [0.5 * east, -0.5 * north, -15],
                [0.5 * east, -0.5 * north, 0], [0.5 * east, -0.5 * north - 0.25, 0]]  # fmt: skip
    np.testing.assert_allclose(found, expected, atol=1e-15)
    assert pose_code(found, found[0]).shape == (6, POSE_DIM)


@pytest.mark.parametrize(("fields", "message"), [
    ({"slip": -0.1}, "slip is 0 to 0.5"), ({"slip": float("nan")}, "slip is"), ({"slip": 0.6}, "got 0.6"),
    ({"slip": 0.1, "between": True}, "0 where poses between")])  # fmt: skip
def test_slips_that_cannot_be_are_refused(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Trajectory("turn", **fields)  # type: ignore[arg-type]


def test_networks_are_shown_other_memories() -> None:
    """Of another episode, or in another order; the short context and what they are told stay."""
    found = episodes("turn", 0.0, 4)
    found = EpisodeSet([frames + number for number, frames in enumerate(found.frames)], found.names, found.poses,
                       found.actions, 3)  # fmt: skip
    source = WindowSource(find_windows(found, PLAN, 0, skip=2))
    chosen = list(range(0, len(source.windows), 5))
    clips, memory = source.take(chosen), PLAN.remembered(PLAN.prompt)
    held = slice(memory.start, memory.stop)
    for name in ("shuffled memory", "memory of another world"):
        changed = _with_memory(clips, source, chosen, name)  # type: ignore[arg-type]
        assert changed.actions is clips.actions
        rest = [frame for frame in range(PLAN.total_frames) if frame not in memory]
        assert torch.equal(changed.frames[:, rest], clips.frames[:, rest])
        own, other = clips.frames[:, held, 0], changed.frames[:, held, 0]
        if name == "shuffled memory":
            assert (own != other).all()
            assert torch.equal(own.sort(1).values, other.sort(1).values)
        else:
            # Every row is the same stretch of some window of another episode.
            takes = {number: source.take([number]).frames[0, held, 0] for number in chosen}
            for row, number in enumerate(chosen):
                like = [at for at in chosen if torch.equal(takes[at], other[row])]
                assert like
                assert all(source.windows.episode[at] != source.windows.episode[number] for at in like)
    one = EpisodeSet(found.frames[:1], found.names[:1], found.poses and found.poses[:1], found.actions[:1], 3)
    alone = WindowSource(find_windows(one, PLAN, 0, skip=2))
    with pytest.raises(ValueError, match="needs windows of two episodes"):
        _with_memory(alone.take([0, 1]), alone, [0, 1], "memory of another world")
