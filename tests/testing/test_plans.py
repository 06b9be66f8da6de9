"""The plan strategies make valid plans of every kind, and their switches do what they say."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from arvdm_theory import Plan, References
from arvdm_theory.testing import plans, references

# `find` stops at the first it likes; it gets a random of its own, since it would seed itself from the file's path.
QUICK = settings(max_examples=4000, database=None, deadline=None, phases=[Phase.generate])

KINDS: dict[str, Callable[[Plan], bool]] = {
    "one chunk, w = Δ > 1": lambda p: not p.overlapping and p.stride > 1,
    "w > Δ with a stride of several frames": lambda p: p.overlapping and p.stride > 1,
    "w > Δ with freshly noised references": lambda p: p.overlapping and p.references.noised,
    "w = Δ with freshly noised references": lambda p: not p.overlapping and p.references.noised,
    "clean and noised references together": lambda p: len({r.level > 0 for r in p.references_at(5)}) == 2,
    "the first and the last frames": lambda p: {pick.kind for pick in p.references.picks} == {"first", "last"},
    "every n-th frame": lambda p: any(pick.kind == "every" and pick.count > 1 for pick in p.references.picks),
    "all frames": lambda p: any(pick.kind == "all" for pick in p.references.picks),
    "no references, w > Δ": lambda p: p.overlapping and not p.references.picks,
    "a plateau below T": lambda p: any(a == b < p.horizon for a, b in pairwise(p.input_levels)),
    "a plateau at T of more than Δ frames": lambda p: p.input_levels.count(p.horizon) > p.stride,
    "a frame that enters almost clean": lambda p: 0 < p.input_levels[0] - p.floor < 0.01 * p.horizon,
    "a frame that enters clean": lambda p: p.input_levels[0] == p.floor,
    "a floor and w > Δ": lambda p: p.floor > 0 and p.overlapping,
    "geometric levels": lambda p: p.spacing == "geometric" and p.reverse_steps > 1,
    "warm-up, w > Δ": lambda p: p.initialisation == "warmup" and p.overlapping,
    "frames that rest in some step": lambda p: any(
        any(a == b for a, b in zip(*rows, strict=True)) and any(a > b for a, b in zip(*rows, strict=True))
        for rows in pairwise(p.ar_grid)
    ),
    "several steps at unequal paces": lambda p: (
        p.reverse_steps > 2
        and len({round((row[0] - p.output_levels[0]) / p.input_levels[0], 6) for row in p.ar_grid}) > 2
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_plan_is_reached(kind: str) -> None:
    find(plans(), KINDS[kind], settings=QUICK, random=random.Random(0))


@given(plans(masks=True))
@settings(max_examples=100, deadline=None)
def test_plans_meet_the_three_requirements_exactly(plan: Plan) -> None:
    """Checked from the definition, not by the class that made them."""
    w, stride, t_in, t_out = plan.window, plan.stride, plan.input_levels, plan.output_levels
    assert all(a <= b for levels in (t_in, t_out) for a, b in pairwise(levels))
    assert all(out <= into for out, into in zip(t_out, t_in, strict=True))
    assert t_out[stride:] == t_in[: w - stride]
    assert t_out[:stride] == (plan.floor,) * stride
    assert t_in[w - stride :] == (plan.horizon,) * stride
    assert plan.ar_grid[0] == t_in
    assert plan.ar_grid[-1] == t_out
    assert all(b <= a for rows in pairwise(plan.ar_grid) for a, b in zip(*rows, strict=True))
    for reference in plan.references_at(4):
        assert reference.level == 0 or plan.floor <= reference.level <= plan.horizon
        assert reference.frame < plan.frames_out(4)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_the_switches(data: st.DataObject) -> None:
    on = data.draw(st.booleans())
    plan = data.draw(
        plans(overlapping=on, noised=on, early_stop=on, warmup=on, entering_clean=False, own_grids=False)
    )
    assert plan.overlapping == on
    assert plan.references.noised == on
    assert (plan.floor > 0) == on
    assert (plan.initialisation == "warmup") == on
    assert plan.visible is None
    assert min(plan.input_levels) > plan.floor


@given(plans(max_window=2, max_steps=1, max_references=1))
@settings(max_examples=40, deadline=None)
def test_the_sizes(plan: Plan) -> None:
    assert plan.window <= 2
    assert plan.reverse_steps == plan.init_steps == 1
    assert all(pick.count == 1 for pick in plan.references.picks)


def test_masks_are_there_on_demand() -> None:
    def reach(condition: Callable[[Plan], bool]) -> None:
        find(plans(masks=True), condition, settings=QUICK, random=random.Random(0))

    reach(lambda p: p.visible is not None and len(p.visible) > 1)
    reach(lambda p: p.visible is not None and not all(p.visible[0][-1]))


@given(references(level=0.5, horizon=2.0, noised=True))
@settings(max_examples=40, deadline=None)
def test_noised_references_lie_above_the_floor(rule: References) -> None:
    assert rule.noised
    assert all(pick.level == 0 or 0.5 < pick.level <= 2.0 for pick in rule.picks)


def test_plans_shrink_to_the_simplest() -> None:
    slow = settings(QUICK, phases=[Phase.generate, Phase.shrink])
    plan = find(plans(), lambda p: True, settings=slow)
    assert (plan.window, plan.reverse_steps, plan.references) == (1, 1, References.none())
