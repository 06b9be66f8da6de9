"""What a score is shown: references, window and actions of a batch, cut, mapped and masked together."""

import pytest
import torch
from torch import Tensor

from arvdm_theory import ReferenceBatch

FRAMES, WINDOW = (0, 3), (4, 5, 6)
VALUES = torch.arange(5 * 2 * 3.0).reshape(5, 2, 3)
ACTIONS = torch.arange(5 * 9 * 2.0).reshape(5, 9, 2)  # actions of frames that nobody has begun are there too
LEVELS = torch.tensor([0.0, 0.3], dtype=torch.float64)


def test_actions_are_those_that_led_to_the_frames_that_are_shown() -> None:
    shown = ReferenceBatch.shown(VALUES, LEVELS, FRAMES, WINDOW, ACTIONS)
    assert shown.values is VALUES
    assert shown.levels is LEVELS
    assert (shown.frames, shown.window_frames, shown.visible) == (FRAMES, WINDOW, None)
    for told, frames in ((shown.actions, FRAMES), (shown.window_actions, WINDOW), (shown.history, range(7))):
        assert told is not None
        assert told.shape == (5, len(frames), 2)
        for i, frame in enumerate(frames):
            assert torch.equal(told[:, i], ACTIONS[:, frame])
    bare = ReferenceBatch.shown(VALUES, LEVELS, FRAMES, WINDOW)
    assert bare.actions is bare.window_actions is bare.history is None


@pytest.mark.parametrize("actions", [None, ACTIONS])
def test_some_videos_of_a_batch_are_those_videos_alone(actions: Tensor | None) -> None:
    shown = ReferenceBatch.shown(VALUES, LEVELS, FRAMES, WINDOW, actions).seeing(((True,) * 5,) * 3)
    for rows in (slice(1, 3), slice(4, 9), slice(0, 0)):
        some = shown.rows(rows)
        alone = ReferenceBatch.shown(
            VALUES[rows], LEVELS, FRAMES, WINDOW, None if actions is None else actions[rows]
        )
        for name in ("values", "actions", "window_actions", "history"):
            found, expected = getattr(some, name), getattr(alone, name)
            assert (found is None) == (expected is None)
            assert found is None or torch.equal(found, expected)
        # What has no row a video is left alone.
        assert some.levels is LEVELS
        assert (some.frames, some.window_frames, some.visible) == (FRAMES, WINDOW, shown.visible)


def test_a_change_reaches_every_tensor_with_a_row_a_video_and_nothing_else() -> None:
    shown = ReferenceBatch.shown(VALUES, LEVELS, FRAMES, WINDOW, ACTIONS)
    seen: list[tuple[int, ...]] = []

    def change(values: Tensor) -> Tensor:
        seen.append(tuple(values.shape))
        return 2 * values

    twice = shown.mapped(change)
    assert sorted(seen) == sorted([(5, 2, 3), (5, 2, 2), (5, 3, 2), (5, 7, 2)])
    assert torch.equal(twice.values, 2 * VALUES)
    assert twice.history is not None
    assert torch.equal(twice.history, 2 * ACTIONS[:, :7])
    assert torch.equal(twice.levels, LEVELS)


def test_a_mask_is_told_beside_the_rest() -> None:
    shown = ReferenceBatch.shown(VALUES, LEVELS, FRAMES, WINDOW, ACTIONS)
    mask = ((True, False, False, True, True), (True, True, False, True, True), (True, True, True, False, True))
    masked = shown.seeing(mask)
    assert masked.visible is mask
    assert shown.visible is None
    assert masked.values is VALUES
    assert masked.seeing(mask) is masked
    assert masked.seeing(None).visible is None
