"""Plans with a memory: which frames are given, when they come out, and at which levels windows stand."""

from __future__ import annotations

import numpy as np
import pytest

from arvdm_theory.plan.references import PlanError
from arvdm_theory.video.memory_plans import MemoryPlan, PlanKind

KINDS: tuple[PlanKind, ...] = ("outpainting", "fifo", "rolling", "pyramid")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("memory", [3, 8])
def test_given_and_generated_frames_are_those_of_the_plan_s_own_windows(kind: PlanKind, memory: int) -> None:
    """Against the plan itself, AR step by AR step."""
    own = MemoryPlan(memory=memory, generated=8, kind=kind)
    plan = own.plan
    assert plan.stride == own.stride == {"fifo": 1, "rolling": 2}.get(kind, 4)
    first = list(plan.window_frames(own.first))
    # The window after the given frames holds exactly those of them that are noised in it.
    assert first[own.noised - 1 if own.noised else 0] == own.prompt - bool(own.noised)
    assert own.origin == own.prompt - 1 - first[0]
    out = {frame for k in range(own.first, own.last + 1) for frame in plan.clip_frames(k)}
    assert set(own.generated_frames) <= out | set(range(own.prompt))
    assert max(own.generated_frames) in set(plan.clip_frames(own.last))
    for k in range(own.first, own.last + 1):
        shown = [reference.frame for reference in plan.references_at(k)]
        assert shown == list(range(plan.window_frames(k)[0] - memory - own.context, plan.window_frames(k)[0]))
        assert shown[0] >= 0
    for frame in own.generated_frames:
        (k,) = (k for k in range(own.first, own.last + 1) if frame in plan.clip_frames(k))
        assert own.remembered(frame).start == plan.window_frames(k)[0] - own.context - memory


def test_the_levels_of_every_kind() -> None:
    for kind in KINDS:
        grid = np.array(MemoryPlan(memory=2, kind=kind).plan.ar_grid)
        assert (np.diff(grid, axis=0) <= 0).all()
        assert (np.diff(grid, axis=1) >= 0).all()  # no frame is cleaner than the one before it
        stride = MemoryPlan(memory=2, kind=kind).stride
        np.testing.assert_array_equal(grid[0], [*grid[-1, stride:], *[8.0] * stride])
        np.testing.assert_array_equal(grid[-1, :stride], 0.0)
    pyramid = np.array(MemoryPlan(memory=2, kind="pyramid", reverse_steps=14).plan.ar_grid)
    # Each frame begins two of 14 steps, a quarter of its eight, after the one before it.
    assert [int((column == 8.0).sum()) for column in pyramid.T] == [1, 3, 5, 7]
    for j in range(1, 4):
        np.testing.assert_allclose(pyramid[2 * j : 2 * j + 9, j], pyramid[:9, 0], atol=1e-12)
    rolling = np.array(MemoryPlan(memory=2, kind="rolling").plan.ar_grid)
    np.testing.assert_array_equal(rolling[:, 0], rolling[:, 1])


def test_what_is_shown_is_noised_by_lag() -> None:
    def shown(*noise: float) -> list[float]:
        own = MemoryPlan(memory=2, noise=noise)
        return [reference.level for reference in own.plan.references_at(own.first)]

    assert shown() == [0, 0, 0, 0]
    assert shown(0.1) == [0.1, 0.1, 0.1, 0.1]
    assert shown(0.0, 0.3) == [0.3, 0.3, 0.3, 0.0]
    assert shown(0.1, 0.2, 0.3, 0.4, 0.5) == [0.5, 0.3, 0.2, 0.1]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"kind": "spiral"}, "outpainting or fifo or rolling or pyramid, got 'spiral'"),
        ({"kind": "rolling", "window": 3}, "an even number of frames, at least 2, got 3"),
        ({"kind": "fifo", "window": 1}, "at least 2, got 1"),
        ({"kind": "rolling", "generated": 3}, "rolling generates 2 frames at a time, which do not divide 3"),
        ({"generated": 6}, "outpainting generates 4 frames at a time, which do not divide 6"),
        ({"noise": (-0.1,)}, "not negative, got -0.1"),
    ],
)
def test_plans_that_cannot_be_say_why(fields: dict, words: str) -> None:
    with pytest.raises(PlanError, match=words):
        MemoryPlan(memory=4, **fields)
