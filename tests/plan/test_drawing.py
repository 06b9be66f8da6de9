"""Plans drawn in text."""

from __future__ import annotations

import math

import pytest

from arvdm_theory import METHODS, Plan, References, fifo, method, outpainting
from arvdm_theory.plan import Method, causal_mask
from arvdm_theory.plan.drawing import compact, describe_references, draw_schedule, inside_step, visibility

BUILT = [entry for entry in METHODS if entry.verdict != "outside"]


def test_a_schedule_line_by_line() -> None:
    plan = fifo(window=3, references=References.last(2), horizon=6.0)
    assert draw_schedule(plan, ar_steps=4).splitlines() == [
        "AR step  frames from 1 on (a column is a frame)",
        "      1  ▆▇█",
        "      2  o▆▇█",
        "      3  oo▆▇█",
        "      4  ·oo▆▇█",
    ]


def test_blocks_grow_with_the_angle_of_the_level() -> None:
    """Seven equal slices of arccos e^{-t/2} between δ = 0 and T = 20, where the angle is 90° but for 5e-5."""
    angles = [(slice_ + 0.5) * math.pi / 14 for slice_ in range(7)]
    levels = tuple(-2 * math.log(math.cos(angle)) for angle in angles)
    plan = Plan(input_levels=(*levels, 20.0), stride=1, horizon=20.0, reverse_steps=1)
    assert draw_schedule(plan, ar_steps=1).splitlines()[1] == "      1  ▁▂▃▄▅▆▇█"


def test_frames_that_share_a_level_share_a_column() -> None:
    plan = outpainting(window=3, references=References.first(3) + References.last(3, level=0.5))
    assert draw_schedule(plan, ar_steps=3).splitlines() == [
        "AR step  frames from 1 on (a column is 3 frames)",
        "      1  o█",
        "      2  o~█",
        "      3  o·~█",
    ]


def test_a_wide_plan_is_drawn_with_fewer_steps_then_fewer_columns() -> None:
    plan = fifo(window=40)
    assert len(draw_schedule(plan, ar_steps=30, width=60).splitlines()) == 1 + 12
    narrow = draw_schedule(plan, ar_steps=30, width=30)
    assert "21 of 41 are shown" in narrow
    assert len(narrow.splitlines()) == 3
    assert all(len(line) <= 30 for line in narrow.splitlines()[1:])


def test_one_ar_step_inside_out() -> None:
    """The longer of frames and moments runs across."""
    few_steps = inside_step(fifo(window=3, reverse_steps=1))
    assert few_steps.splitlines() == ["   step  window", "      0  ▆▇█", "      1  ▁▆▇"]
    many_steps = inside_step(fifo(window=3, reverse_steps=5)).splitlines()
    assert many_steps[0] == "  frame  reverse steps 0 to 5"
    assert [line[:7].strip() for line in many_steps[1:]] == ["1", "2", "3"]
    assert many_steps[1].endswith("▁")
    assert many_steps[3][9] == "█"


def test_what_frames_see() -> None:
    first = (True, True, False, False, True, True)  # the older half of the window and both references
    second = (True, True, True, True, False, False)
    plan = Plan(
        input_levels=(2.0, 2.0, 4.0, 4.0),
        stride=2,
        horizon=4.0,
        reverse_steps=2,
        references=References.last(2),
        visible=((first, first, second, second),),
    )
    assert visibility(plan).splitlines() == [
        "  frame  sees (a row and a column are 2 frames)",
        "      1  ■│■·",
        "      3  ·│■■",
    ]


def test_nothing_is_drawn_where_everything_is_seen() -> None:
    assert visibility(fifo()) == ""


def test_masks_that_change_within_a_step_are_said_to() -> None:
    full = ((True,) * 2,) * 2
    plan = Plan((1.0, 2.0), 1, 2.0, 2, visible=(causal_mask(2), full))
    assert visibility(plan).splitlines()[-1] == "(reverse step 1; others differ)"


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (References.none(), "none"),
        (References.all(), "all"),
        (References.every(3), "every 3."),
        (References.first(3) + References.last(6), "first 3 + last 6"),
        (References.last(64, level=0.25), "last 64 noised to 0.25"),
    ],
)
def test_references_in_words(rule: References, words: str) -> None:
    assert describe_references(rule) == words


def test_the_one_line_drawing() -> None:
    assert compact(fifo(window=3, references=References.last(2))) == "oo│▆▇█ → ·▆▇"
    assert compact(outpainting(references=References.all())).startswith("…oo")
    assert compact(fifo()) == "│▅▇▇█ → ·▅▇▇"


@pytest.mark.parametrize("entry", BUILT, ids=lambda entry: entry.key)
def test_every_method_fits_on_a_page(entry: Method) -> None:
    plan = entry.build()
    for drawing in (draw_schedule(plan), inside_step(plan), visibility(plan), compact(plan)):
        assert all(len(line) <= 100 for line in drawing.splitlines())
    rows = draw_schedule(plan).splitlines()[1:]
    assert len(rows) >= 2
    # The newest frame of every row has just entered.
    assert all(row.endswith("█") for row in rows)


def test_the_pyramid_of_diffusion_forcing_is_visible() -> None:
    drawn = inside_step(method("diffusion-forcing").build(frames=3, steps=10)).splitlines()[1:]
    waits = [len(line[9:]) - len(line[9:].lstrip("█")) for line in drawn]
    assert waits == [1, 2, 3]
