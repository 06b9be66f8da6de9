"""Windows of episodes: which frames are remembered, given, generated and asked for; and training on them alone."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from arvdm_theory.laws.linear import reference_video
from arvdm_theory.noise import NoiseSchedule
from arvdm_theory.plan.methods import fifo, outpainting
from arvdm_theory.plan.references import PlanError, References
from arvdm_theory.training.config import TrainingConfig, TrainingError
from arvdm_theory.training.windows import WindowSampler
from arvdm_theory.video.memory_plans import MemoryPlan, schedule_levels
from arvdm_theory.video.windows import (
    POSE_DIM,
    EpisodeSet,
    Window,
    WindowSource,
    find_windows,
    pose_code,
)

PLANS = {
    "outpainting": MemoryPlan(memory=8),
    "two windows": MemoryPlan(memory=5, generated=6, window=3, context=1),
    "fifo": MemoryPlan(memory=8, kind="fifo", window=4, reverse_steps=4),
    "no memory": MemoryPlan(memory=0, gap_for=8),
}


def turning(steps: int, frames: int, start: int = 0) -> EpisodeSet:
    """One episode that turns away and back, its pictures telling the heading."""
    path = [*range(steps), *range(steps, 0, -1)]
    heading = np.array([path[(start + frame) % len(path)] for frame in range(frames)])
    poses = np.stack([np.full(frames, 1.5), np.full(frames, 2.5), 15.0 * heading], 1)
    pictures = np.broadcast_to(heading[:, None, None, None].astype(np.uint8), (frames, 12, 12, 3)).copy()
    return EpisodeSet([pictures], ["a.npz:0"], [poses], [np.zeros(frames, np.int64)], 3)


@pytest.mark.parametrize("name", PLANS)
def test_the_ar_steps_put_out_what_is_to_be_generated_and_see_memory_and_context(name: str) -> None:
    plan = PLANS[name]
    frames = list(plan.generated_frames)
    # What stands before is given, and the last AR step is the one that puts the last frame out.
    assert plan.plan.clean_frames(plan.last) == plan.prompt + plan.generated
    assert plan.plan.clean_frames(plan.last - 1) < frames[-1] + 1
    for k in range(plan.first, plan.last + 1):
        shown = [r.frame for r in plan.plan.references_at(k)]
        out = plan.plan.frames_out(k)
        assert shown == list(range(out - plan.context - plan.memory, out))
        assert len(shown) == plan.memory + plan.context == plan.references
        assert plan.laid_out <= out - plan.context
        for frame in range(out, out + plan.plan.stride):
            if frame >= plan.prompt and plan.memory:
                behind = set(shown[: plan.memory]) - set(range(plan.prompt - plan.near, plan.total_frames))
                assert behind == set(plan.remembered(frame))
    first = plan.plan.window_frames(plan.first)
    assert plan.prompt in first
    assert plan.prompt - plan.near == plan.plan.frames_out(plan.first) - plan.context


def test_without_memory_the_same_frames_are_given_and_generated() -> None:
    with_memory, without = PLANS["outpainting"], PLANS["no memory"]
    for field in ("prompt", "first", "last", "total_frames", "generated_frames"):
        assert getattr(with_memory, field) == getattr(without, field)
    assert [r.frame for r in without.plan.references_at(without.last)] == [10, 11]


@pytest.mark.parametrize("kind", ["outpainting", "fifo"])
@pytest.mark.parametrize("schedule", ["cosine", "sigmoid"])
def test_levels_are_equally_far_apart_in_the_schedule(kind: str, schedule: str) -> None:
    """The native time of each level, from the signal variance of the published formula."""
    plan = MemoryPlan(memory=2, kind=kind, schedule=schedule, reverse_steps=5)
    grid = np.array(plan.plan.ar_grid)

    def logistic(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    def signal(s: float) -> float:
        if schedule == "cosine":
            return float(np.exp(-NoiseSchedule.cosine().clock(s)))
        return (logistic(3) - logistic(3 * (2 * s - 1))) / (logistic(3) - logistic(-3))

    low, high = 0.0, 1 - 1e-12
    for _ in range(80):  # where the signal variance falls to e^{-T}
        middle = (low + high) / 2
        low, high = (middle, high) if signal(middle) > math.exp(-plan.horizon) else (low, middle)
    for row, levels in enumerate(grid):
        for column, level in enumerate(levels):
            share = 1 - row / 5 if kind == "outpainting" else (column + 1 - row / 5) / 4
            # 80 halvings leave 1e-16 of native time; the level's slope there, T's reciprocal e^{-T}, amplifies.
            assert level == pytest.approx(-math.log(signal(low * share)), abs=1e-9)
    assert (grid[0, -1], grid[-1, 0]) == (plan.horizon, 0.0)
    with pytest.raises(PlanError, match="schedule"):
        schedule_levels([0.5], "linear", 8.0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"generated": 6}, "do not divide 6"),
        ({"kind": "diagonal"}, "outpainting or fifo or rolling or pyramid"),
        ({"kind": "rolling", "window": 3}, "an even number of frames"),
        ({"kind": "fifo", "window": 1}, "at least 2"),
        ({"context": 0}, "1 or more"),
        ({"memory": 9, "gap_for": 8}, "no more than are given"),
    ],
)
def test_numbers_that_make_no_plan_are_named(fields: dict[str, object], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        MemoryPlan(**{"memory": 8, **fields})  # type: ignore[arg-type]


POSE = st.tuples(st.integers(-80, 80), st.integers(-80, 80), st.integers(0, 47))


@given(st.lists(POSE, min_size=2, max_size=6), POSE, st.integers(0, 3))
def test_codes_do_not_change_when_the_world_is_turned_and_moved(
    lattice: list[tuple[int, int, int]], move: tuple[int, int, int], quarters: int
) -> None:
    poses = np.array(lattice, dtype=float) * (0.125, 0.125, 7.5)
    code = pose_code(poses, poses[0])
    angle = np.radians(90 * quarters)
    turned = poses.copy()
    turned[:, 0] = np.cos(angle) * poses[:, 0] - np.sin(angle) * poses[:, 1] + move[0] / 8
    turned[:, 1] = np.sin(angle) * poses[:, 0] + np.cos(angle) * poses[:, 1] + move[1] / 8
    turned[:, 2] = (poses[:, 2] + 90 * quarters) % 360
    # Codes are rounded to 1e-6, which two roundings of one number may fall on either side of.
    np.testing.assert_allclose(pose_code(turned, turned[0]), code, atol=1.5e-6)
    # Entries are sines and cosines of POSE_DIM / 2 angles, so all codes have one norm.
    np.testing.assert_allclose((code**2).sum(-1), POSE_DIM / 2, atol=1e-4)


def test_codes_tell_different_poses_apart_and_equal_ones_not() -> None:
    heading = np.arange(48) * 7.5
    poses = np.stack([np.zeros(48), np.zeros(48), heading], 1)
    code = pose_code(poses, poses[5])
    assert len(np.unique(code, axis=0)) == 48
    again = poses + np.array([0, 0, 360])
    np.testing.assert_array_equal(pose_code(again, poses[5]), code)
    places = np.stack([np.arange(-7.5, 8, 0.25), np.zeros(62), np.zeros(62)], 1)
    assert len(np.unique(pose_code(places, np.zeros(3)), axis=0)) == 62


@pytest.mark.parametrize("name", ["outpainting", "two windows", "fifo"])
@pytest.mark.parametrize("start", [0, 3])
def test_queries_are_those_that_only_the_memory_shows(name: str, start: int) -> None:
    """Every window of an episode, against what its pictures say."""
    plan, episodes = PLANS[name], turning(9, 60, start)
    found = {window.start: window for window in find_windows(episodes, plan)}
    for first in range(60 - plan.total_frames + 1):
        seen = episodes.frames[0][first : first + plan.total_frames, 0, 0, 0].tolist()
        expected = []
        for frame in plan.generated_frames:
            lately = seen[plan.prompt - plan.near : frame]
            out = plan.prompt + (frame - plan.prompt) // plan.plan.stride * plan.plan.stride
            shown = range(out - plan.context - plan.memory, plan.prompt - plan.near)
            needles = [i for i in shown if seen[i] == seen[frame]]
            if needles and seen[frame] not in lately:
                expected.append((needles[-1], frame))
        assert (found[first].queries if first in found else ()) == tuple(expected)
    assert found


def test_a_source_shows_the_window_and_its_poses_from_the_last_given_frame() -> None:
    plan, episodes = PLANS["outpainting"], turning(8, 60)
    source = WindowSource(find_windows(episodes, plan, least=3))
    drawn = source.draw(5, 16, torch.Generator().manual_seed(0))
    again = source.draw(5, 16, torch.Generator().manual_seed(0))
    assert torch.equal(drawn.frames, again.frames)
    assert drawn.frames.shape == (5, 16, 12 * 12 * 3)
    number = 1
    window, clip = source.windows[number], source.take([number])
    stretch = slice(window.start, window.start + 16)
    shown = (clip.frames[0, :, 0] + 1) * 127.5
    np.testing.assert_allclose(shown, episodes.frames[0][stretch, 0, 0, 0], atol=1e-4)
    assert episodes.poses is not None
    poses = episodes.poses[0][stretch]
    assert clip.actions is not None
    np.testing.assert_array_equal(clip.actions[0], pose_code(poses, poses[11]))
    for needle, query in window.queries:
        assert torch.equal(clip.actions[0, needle], clip.actions[0, query])
    with pytest.raises(ValueError, match="windows have 16"):
        source.draw(1, 17, torch.Generator())


def test_episodes_without_poses_give_every_window_and_one_hot_actions() -> None:
    pictures = np.zeros((20, 12, 12, 3), np.uint8)
    actions = np.array([-1, *[0, 1, 2] * 6, 0])
    episodes, plan = EpisodeSet([pictures], ["a:0"], None, [actions], 3), PLANS["outpainting"]
    windows = find_windows(episodes, plan)
    assert list(windows) == [Window(0, start) for start in range(5)]
    assert windows[1:3] == [Window(0, 1), Window(0, 2)]
    told = WindowSource(windows).take([1]).actions
    assert told is not None
    assert told[0].argmax(-1).tolist() == actions[1:17].tolist()
    # Nothing is known of what led there.
    assert episodes.conditions(0, slice(0, 1), 11).tolist() == [[0.0, 0.0, 0.0]]


def test_skipped_frames_are_not_shown_and_their_actions_are_counted() -> None:
    """Against the windows of an episode of which only every second frame was kept."""
    plan, whole = PLANS["outpainting"], turning(18, 160)
    rng = np.random.default_rng(0)
    actions = rng.integers(0, 3, 160)
    whole = dataclasses.replace(whole, actions=[actions])
    for first in range(2):
        kept = slice(first, None, 2)
        poses = whole.poses[0][kept]  # type: ignore[index]
        thin = EpisodeSet([whole.frames[0][kept]], ["a"], [poses], [actions[kept]], 3)
        own = [window for window in find_windows(whole, plan, 3, skip=2) if window.start % 2 == first]
        assert [(w.start // 2, w.queries) for w in own] == [
            (w.start, w.queries) for w in find_windows(thin, plan, 3)
        ]
        assert own
    source = WindowSource(find_windows(dataclasses.replace(whole, told="actions"), plan, 3, skip=2))
    assert source.action_dim == 3
    clip, start = source.take([0]), source.windows[0].start
    shown = (clip.frames[0, :, 0] + 1) * 127.5
    np.testing.assert_allclose(shown, whole.frames[0][start : start + 32 : 2, 0, 0, 0], atol=1e-4)
    assert clip.actions is not None
    for number in range(1, 16):
        led = actions[start + 2 * number - 1 : start + 2 * number + 1]
        assert clip.actions[0, number].tolist() == np.bincount(led, minlength=3).tolist()


def test_queries_between_poses_lie_halfway_between_two_remembered_ones() -> None:
    """Away in whole steps, back halfway: with a memory of whole steps alone, never at what was seen."""
    heading = [*range(12), *(half - 0.5 for half in range(11, 0, -1))]
    poses = np.array([[1.5, 2.5, (15.0 * step + 300) % 360] for step in heading])
    pictures = np.zeros((len(heading), 12, 12, 3), np.uint8)
    episodes = EpisodeSet([pictures], ["a"], [poses], [np.zeros(len(heading), np.int64)], 3)
    plan = PLANS["outpainting"]
    windows = find_windows(episodes, plan, least=1, queries="between")
    assert len(windows)
    for window in windows:
        for seen, asked in window.queries:
            at = heading[window.start + asked]
            memory = heading[window.start + 2 : window.start + 10]
            assert at not in memory
            assert at - 0.5 in memory
            assert at + 0.5 in memory
            assert abs(heading[window.start + seen] - at) == 0.5
    with pytest.raises(ValueError, match="none of 1 episodes"):
        find_windows(episodes, plan, least=1, queries="same")
    with pytest.raises(ValueError, match="same or between or near"):
        find_windows(episodes, plan, queries="other")  # type: ignore[arg-type]


def test_episodes_without_a_window_are_refused() -> None:
    plan = PLANS["outpainting"]
    with pytest.raises(ValueError, match="longest episode has 15"):
        find_windows(turning(8, 15), plan)
    with pytest.raises(ValueError, match="none of 1 episodes"):
        find_windows(turning(40, 20), plan)
    with pytest.raises(ValueError, match="at least one episode"):
        EpisodeSet([], [], None, [], 3)


@pytest.mark.parametrize("plan", [outpainting(2, References.last(2), 4, 4), fifo(3, References.last(2), 4, 4)])
def test_training_on_the_last_ar_steps_alone(plan: object) -> None:
    source = reference_video()
    options = {"weighting": "x0", "dtype": torch.float64}
    drawer = WindowSampler(plan, 5, source, init_share=0.0, first_ar_step=4, **options)  # type: ignore[arg-type]
    assert drawer.shares.tolist() == [0.0, 0.0, 0.0, 0.0, 0.5, 0.5]
    seen = {drawer.draw(2, 0, step).references.window_frames for step in range(40)}
    # 40 fair throws all fall on one side with probability 2^-39.
    assert seen == {tuple(plan.window_frames(4)), tuple(plan.window_frames(5))}  # type: ignore[attr-defined]
    shares = WindowSampler(plan, 5, source, first_ar_step=4, **options).shares  # type: ignore[arg-type]
    assert shares.tolist() == pytest.approx([1 / 3, 0, 0, 0, 1 / 3, 1 / 3])
    with pytest.raises(ValueError, match=r"one of 1..5, got 6"):
        WindowSampler(plan, 5, source, first_ar_step=6, **options)  # type: ignore[arg-type]


def test_the_first_ar_step_of_a_training_is_none_after_the_last() -> None:
    assert TrainingConfig(steps=200, ar_steps=3, first_ar_step=3).to_json()["first_ar_step"] == 3
    with pytest.raises(TrainingError, match="first_ar_step must be at most ar_steps, 3, got 4"):
        TrainingConfig(steps=200, ar_steps=3, first_ar_step=4)
    with pytest.raises(TrainingError, match="first_ar_step must be a whole number"):
        TrainingConfig(steps=200, first_ar_step=0)


@pytest.mark.parametrize("kind", ["outpainting", "fifo"])
def test_later_ar_steps_are_told_poses_as_a_window_that_begins_later_is(kind: str) -> None:
    """Of the same frames, so that a rollout's poses stay among those that networks are trained on."""
    episodes, plan = turning(15, 60), MemoryPlan(memory=4, generated=8, kind=kind, window=4)  # type: ignore[arg-type]
    source = WindowSource(find_windows(episodes, plan, 0))
    told, chosen = source.told([0, 3]), [0, 3]
    assert torch.equal(told(plan.plan.stage(plan.first)), source.take(chosen).actions)
    one = dataclasses.replace(plan, generated=plan.plan.stride)
    for k in range(plan.first, plan.last + 1):
        later = (k - plan.first) * plan.plan.stride
        if later + one.total_frames > plan.total_frames:
            break
        own = told(plan.plan.stage(k))[:, later : later + one.total_frames]
        assert torch.equal(own, source.take(chosen, one.total_frames, later).actions)
        assert k == plan.first or not torch.equal(
            own, told(plan.plan.stage(plan.first))[:, later:][:, : own.shape[1]]
        )
    with pytest.raises(ValueError, match="but windows have"):
        source.take(chosen, plan.total_frames, 1)
