"""Plan: the three requirements, grids, masks, floors, references."""

from __future__ import annotations

import itertools
import math
import re
from typing import Any

import numpy as np
import pytest

from arvdm_theory import Plan, PlanError, References
from arvdm_theory.plan import NoReferences, Pick, causal_mask, parts_mask

BASE: dict[str, Any] = {
    "input_levels": (1.0, 2.0, 3.0, 4.0),
    "stride": 1,
    "horizon": 4.0,
    "reverse_steps": 2,
    "init_steps": 3,
}


def plan(**changes: Any) -> Plan:
    return Plan(**{**BASE, **changes})


VIOLATIONS = {
    "input levels fall": (
        {"input_levels": (2.0, 1.0, 3.0, 4.0)},
        "monotonicity: the input level of window frame 2 (1.0) is below that of frame 1 (2.0)",
    ),
    "output levels fall": (
        {"output_levels": (0.0, 2.0, 1.0, 3.0)},
        "monotonicity: the output level of window frame 3 (1.0) is below that of frame 2 (2.0)",
    ),
    "a frame leaves noisier than it came": (
        {"output_levels": (0.0, 1.0, 2.0, 4.5)},
        "monotonicity: window frame 4 leaves at level 4.5, above the 4.0 it came in with",
    ),
    "circularity": (
        {"output_levels": (0.0, 1.0, 1.5, 3.0)},
        "circularity: window frame 3 leaves at level 1.5, but the next AR step takes it as frame 2 at 2.0",
    ),
    "circularity with a longer stride": (
        {"input_levels": (1.0, 2.0, 4.0, 4.0), "stride": 2, "output_levels": (0.0, 0.0, 0.5, 2.0)},
        "circularity: window frame 3 leaves at level 0.5, but the next AR step takes it as frame 1 at 1.0",
    ),
    "boundary at 0": (
        {"output_levels": (0.5, 1.0, 2.0, 3.0)},
        "0-T boundary: window frame 1 must come out at level 0.0, not 0.5",
    ),
    "boundary at T": (
        {"input_levels": (1.0, 2.0, 3.0, 3.5)},
        "0-T boundary: window frame 4 must enter at T = 4.0, not 3.5",
    ),
    "boundary at T above it": (
        {"input_levels": (1.0, 2.0, 3.0, 4.5)},
        "0-T boundary: window frame 4 must enter at T = 4.0, not 4.5",
    ),
    "boundary at the floor": (
        {"floor": 0.25, "output_levels": (0.0, 1.0, 2.0, 3.0)},
        "0-T boundary: window frame 1 must come out at level 0.25, not 0.0",
    ),
    "a level below the floor": (
        {"floor": 1.5},
        "monotonicity: the output level of window frame 2 (1.0) is below that of frame 1 (1.5)",
    ),
    "an infinite level": (
        {"input_levels": (1.0, 2.0, 3.0, math.inf)},
        "levels: the input level of window frame 4 must be finite and not negative, got inf",
    ),
    "a negative level": (
        {"input_levels": (-1.0, 2.0, 3.0, 4.0)},
        "levels: the input level of window frame 1 must be finite and not negative, got -1.0",
    ),
    "a level that is no number": (
        {"input_levels": (math.nan, 2.0, 3.0, 4.0)},
        "levels: the input level of window frame 1 must be finite and not negative, got nan",
    ),
    "no stride": ({"stride": 0}, "stride: it must lie in 1..w = 4, got 0"),
    "a stride beyond the window": ({"stride": 5}, "stride: it must lie in 1..w = 4, got 5"),
    "an empty window": ({"input_levels": ()}, "stride: it must lie in 1..w = 0, got 1"),
    "half a stride": ({"stride": 1.5}, "steps: stride must be a whole number, got 1.5"),
    "no reverse step": ({"reverse_steps": 0}, "steps: at least one reverse step is needed, got 0"),
    "no initialisation step": ({"init_steps": 0}, "steps: at least one initialisation step is needed, got 0"),
    "an infinite horizon": ({"horizon": math.inf}, "0-T boundary: 0 ≤ δ < T < ∞ is needed, got δ = 0.0, T = inf"),
    "a horizon at the floor": ({"floor": 4.0}, "0-T boundary: 0 ≤ δ < T < ∞ is needed, got δ = 4.0, T = 4.0"),
    "too few output levels": (
        {"output_levels": (0.0, 1.0)},
        "levels: 4 input levels but 2 output levels; both need one a window frame",
    ),
    "references below the floor": (
        {"floor": 0.5, "references": References.last(1, level=0.25)},
        "references: level 0.25 lies below the level 0.5 at which frames come out",
    ),
    "an unknown initialisation": (
        {"initialisation": "cold"},
        "initialisation: 'renoise' or 'warmup', got 'cold'",
    ),
}


@pytest.mark.parametrize(("changes", "message"), VIOLATIONS.values(), ids=VIOLATIONS)
def test_a_violation_names_the_requirement_the_frame_and_both_numbers(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(PlanError, match=f"^{re.escape(message)}$"):
        plan(**changes)


def test_output_levels_follow_from_circularity_and_the_boundary() -> None:
    assert plan().output_levels == (0.0, 1.0, 2.0, 3.0)
    assert plan(floor=0.5).output_levels == (0.5, 1.0, 2.0, 3.0)
    wide = plan(input_levels=(1.0, 2.0, 4.0, 4.0, 4.0), stride=3)
    assert wide.output_levels == (0.0, 0.0, 0.0, 1.0, 2.0)
    assert plan(input_levels=(4.0, 4.0), stride=2).output_levels == (0.0, 0.0)


def test_given_output_levels_are_the_same_plan() -> None:
    assert plan(output_levels=(0.0, 1.0, 2.0, 3.0)) == plan()


def test_levels_equal_up_to_rounding_become_the_same_float() -> None:
    third = 0.1 + 0.2  # 0.30000000000000004
    rounded = plan(input_levels=(third, 1.0, 3.0, 4.0), output_levels=(0.0, 0.3, 1.0 + 1e-12, 3.0))
    assert rounded.output_levels[1:] == rounded.input_levels[:-1]
    assert rounded.ar_grid[0] == rounded.input_levels
    assert rounded.ar_grid[-1] == rounded.output_levels


def test_levels_out_of_order_by_rounding_alone_are_put_in_order() -> None:
    hair = 1e-12
    ordered = plan(
        input_levels=(2.0, 2.0 - hair, 4.0 + hair, 4.0),
        initialisation="warmup",
        ar_grid=((2, 2, 4, 4), (1, 2 + hair, 3, 4), (0, 2, 2 - hair, 4)),
    )
    assert ordered.input_levels == (2.0, 2.0, 4.0, 4.0)
    for grid in (ordered.ar_grid, ordered.init_grid):
        for column in zip(*grid, strict=True):
            assert all(a >= b for a, b in itertools.pairwise(column))
    assert ordered.init_grid[-1] == ordered.input_levels[:3]
    assert ordered.ar_grid[-1] == ordered.output_levels


def test_rounding_beyond_a_billionth_of_the_horizon_is_not_forgiven() -> None:
    with pytest.raises(PlanError, match="circularity"):
        plan(output_levels=(0.0, 1.0 + 1e-7, 2.0, 3.0))


# -- grids ------------------------------------------------------------------------------------------------


def test_uniform_grids_have_exact_ends_and_equal_steps() -> None:
    grid = np.array(plan(reverse_steps=7).ar_grid)
    assert tuple(grid[0]) == plan().input_levels
    assert tuple(grid[-1]) == plan().output_levels
    # Levels up to 4 differ by at most a few units in the last place of 4 (8.9e-16).
    np.testing.assert_allclose(np.diff(grid, axis=0), np.full((7, 4), -1 / 7), rtol=0, atol=4e-15)


def test_geometric_grids_fall_by_equal_factors() -> None:
    grid = np.array(plan(floor=0.01, spacing="geometric", reverse_steps=5).ar_grid)
    ratios = grid[1:] / grid[:-1]
    np.testing.assert_allclose(ratios, np.broadcast_to(ratios[0], ratios.shape), rtol=1e-13)


def test_a_frame_that_does_not_move_keeps_its_level() -> None:
    waiting = plan(input_levels=(2.0, 2.0, 4.0, 4.0), reverse_steps=3)
    assert {row[1] for row in waiting.ar_grid} == {2.0}
    assert {row[3] for row in waiting.ar_grid} == {4.0}


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (((1, 2, 3, 4), (0, 1, 2, 3)), "levels: the AR grid needs 3 rows of 4 levels, got 2 of [4]"),
        (((1, 2, 3, 4), (1, 2, 3), (0, 1, 2, 3)), "levels: the AR grid needs 3 rows of 4 levels, got 3 of [3, 4]"),
        (
            ((1, 2, 3, 3), (0.5, 1.5, 2.5, 3), (0, 1, 2, 3)),
            "levels: the AR grid starts window frame 4 at 3.0, not 4.0",
        ),
        (
            ((1, 2, 3, 4), (0.5, 1.5, 2.5, 3.5), (0, 1.25, 2, 3)),
            "levels: the AR grid ends window frame 2 at 1.25, not 1.0",
        ),
        (
            ((1, 2, 3, 4), (0.5, 1.5, 3.5, 3.5), (0, 1, 2, 3)),
            "monotonicity: the AR grid raises window frame 3 from 3.0 to 3.5 in reverse step 1",
        ),
        (
            ((1, 2, 3, 4), (0.5, math.nan, 2.5, 3.5), (0, 1, 2, 3)),
            "monotonicity: the AR grid raises window frame 2 from 2.0 to nan in reverse step 1",
        ),
    ],
)
def test_a_bad_grid_is_refused(grid: Any, message: str) -> None:
    with pytest.raises(PlanError, match=f"^{re.escape(message)}$"):
        plan(ar_grid=grid)


def test_the_initialisation_has_a_grid_of_its_own() -> None:
    given = ((4, 4, 4), (1, 2, 3), (0.5, 0.5, 0.5), (0, 0, 0))
    assert plan(init_grid=given).init_grid == given
    with pytest.raises(
        PlanError, match=r"initialisation grid raises window frame 2 from 2\.0 to 3\.0 in reverse step 2"
    ):
        plan(init_grid=((4, 4, 4), (1, 2, 3), (0.5, 3, 0.5), (0, 0, 0)))


def test_the_initialisation_ends_at_the_floor_or_warms_up_to_the_input_levels() -> None:
    assert plan().init_grid[-1] == (0.0, 0.0, 0.0)
    assert plan(floor=0.5).init_grid[-1] == (0.5, 0.5, 0.5)
    assert plan(initialisation="warmup").init_grid[-1] == (1.0, 2.0, 3.0)
    for grid in (plan().init_grid, plan(initialisation="warmup").init_grid):
        assert grid[0] == (4.0, 4.0, 4.0)
        assert len(grid) == 4
    # With w = Δ there is nothing to warm up to: the first Δ frames come out clean.
    whole = plan(input_levels=(4.0, 4.0), stride=2, initialisation="warmup")
    assert whole.init_grid[-1] == (0.0, 0.0)


# -- references -------------------------------------------------------------------------------------------


def frames(references: References, out: int) -> list[int]:
    return [r.frame for r in references.at(out)]


def test_reference_rules() -> None:
    assert frames(NoReferences, 5) == []
    assert frames(References.last(3), 5) == [2, 3, 4]
    assert frames(References.last(3), 2) == [0, 1]
    assert frames(References.last(0), 5) == []
    assert frames(References.first(2), 5) == [0, 1]
    assert frames(References.first(2), 1) == [0]
    assert frames(References.every(2), 6) == [0, 2, 4]
    assert frames(References.all(), 4) == [0, 1, 2, 3]
    assert frames(References.all(), 0) == []
    assert frames(References.first(1) + References.last(2), 6) == [0, 4, 5]


def test_a_frame_named_twice_follows_the_first_pick() -> None:
    both = References.last(2) + References.all(level=0.5)
    assert [(r.frame, r.level) for r in both.at(4)] == [(0, 0.5), (1, 0.5), (2, 0.0), (3, 0.0)]
    other = References.all(level=0.5) + References.last(2)
    assert [r.level for r in other.at(4)] == [0.5] * 4


def test_how_many_references_there_ever_are() -> None:
    assert References.last(3).most == 3
    assert (References.first(1) + References.last(3)).most == 4
    assert NoReferences.most == 0
    assert References.all().most is None
    assert (References.first(1) + References.every(2)).most is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: References.last(-1), "'last' needs a count of at least 1, got -1"),
        (lambda: References.first(0), "'first' needs a count of at least 1, got 0"),
        (lambda: References.every(0), "'every' needs a count of at least 1, got 0"),
        (lambda: References.last(1, level=-0.1), "the level must be finite and not negative, got -0.1"),
        (lambda: References.all(level=math.inf), "the level must be finite and not negative, got inf"),
        (lambda: Pick("middle"), "a rule is 'last', 'first', 'lag', 'every' or 'all', got 'middle'"),  # type: ignore[arg-type]
    ],
)
def test_a_bad_reference_rule_is_refused(make: Any, message: str) -> None:
    with pytest.raises(PlanError, match=f"^references: {re.escape(message)}$"):
        make()


def test_noised_references_hide_nothing_from_the_past() -> None:
    step = 6
    assert plan(references=References.last(2)).past_frames(step) == (0, 1, 2)
    assert plan(references=References.last(2, level=0.5)).past_frames(step) == (0, 1, 2, 3, 4)
    mixed = plan(references=References.first(1) + References.last(2, level=0.5))
    assert mixed.past_frames(step) == (1, 2, 3, 4)
    # At the floor a reference is as clean as a frame ever gets.
    assert plan(floor=0.25, references=References.last(2, level=0.25)).past_frames(step) == (0, 1, 2)


# -- masks ------------------------------------------------------------------------------------------------


def test_the_two_masks() -> None:
    assert causal_mask(3) == ((True, False, False), (True, True, False), (True, True, True))
    halves = np.array(parts_mask(4, 2))
    np.testing.assert_array_equal(halves, np.kron(np.eye(2), np.ones((2, 2))).astype(bool))
    with pytest.raises(PlanError, match="visibility: 3 parts do not divide a window of 4 frames"):
        parts_mask(4, 3)


def test_no_mask_means_everything_is_seen() -> None:
    assert plan().visible is None
    assert plan().visible_at(0, references=2) is None


def test_a_mask_of_the_window_sees_all_references() -> None:
    masked = plan(visible=(causal_mask(4),), references=References.last(3))
    mask = masked.visible_at(1, references=2)
    assert mask is not None
    assert mask == tuple((*row, True, True) for row in causal_mask(4))
    assert masked.visible_at(0, references=0) == causal_mask(4)


def test_reference_columns_are_read_from_the_newest_on() -> None:
    # Columns: 4 window frames, then the references from the oldest to the newest.
    table = tuple((*row, i == 0, i == 1, i == 2) for i, row in enumerate(causal_mask(4)))
    masked = plan(visible=(table,), references=References.last(3))
    assert masked.visible_at(0, references=3) == table
    newest = masked.visible_at(0, references=1)
    assert newest is not None
    assert [row[4:] for row in newest] == [(False,), (False,), (True,), (False,)]
    assert masked.visible_at(0, references=0) == causal_mask(4)


def test_one_mask_serves_every_reverse_step_or_each_has_its_own() -> None:
    full = ((True,) * 4,) * 4
    single, stepped = plan(visible=(causal_mask(4),)), plan(visible=(causal_mask(4), full))
    assert [single.visible_at(m, 0) for m in range(2)] == [causal_mask(4)] * 2
    assert [stepped.visible_at(m, 0) for m in range(2)] == [causal_mask(4), full]


def test_masks_come_as_tables_lists_or_arrays() -> None:
    expected = plan(visible=(causal_mask(4),))
    array = np.tri(4, dtype=bool)
    for given in (causal_mask(4), array, array.tolist(), [array], array[None]):
        assert plan(visible=given) == expected


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ((), "visibility: a mask needs rows, got none"),
        ((causal_mask(4),) * 3, "visibility: one mask, or one for each of 2 reverse steps, not 3"),
        ((causal_mask(3),), "visibility: a mask has 4 rows of 4 or 5 columns"),
        ((((True,) * 6,) * 4,), "visibility: a mask has 4 rows of 4 or 5 columns"),
        (
            (((True,) * 4, (True, False, True, True), (True,) * 4, (True,) * 4),),
            "visibility: window frame 2 does not see itself",
        ),
    ],
)
def test_a_bad_mask_is_refused(mask: Any, message: str) -> None:
    with pytest.raises(PlanError, match=f"^{re.escape(message)}$"):
        plan(visible=mask, references=References.last(1))


def test_a_mask_over_endless_references_covers_the_window_only() -> None:
    with pytest.raises(PlanError, match="visibility: a mask has 4 rows of 4 columns"):
        plan(visible=(((True,) * 5,) * 4,), references=References.all())


def test_plans_are_values() -> None:
    assert plan(name="one") == plan(name="two")
    assert hash(plan()) == hash(plan())
    assert plan() != plan(reverse_steps=3)
    with pytest.raises(AttributeError):
        plan().stride = 2  # type: ignore[misc]
    whole = plan(input_levels=[1, 2, 3, np.float64(4)], horizon=np.float64(4), stride=np.int64(1))
    assert whole == plan()
    assert {type(level) for row in whole.ar_grid for level in row} == {float}
