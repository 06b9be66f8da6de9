"""Plan's bookkeeping against a step-by-step run of Meta-ARVDM (Algorithm 1) that shares no code with it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from arvdm_theory import METHODS, Plan, References
from arvdm_theory.plan.methods import Method
from arvdm_theory.plan.references import Pick
from arvdm_theory.plan.stage import Stage
from arvdm_theory.testing.plans import plans as masked_plans


@dataclass
class Run:
    """A queue of frames with their levels, as Algorithm 1 handles it. Frames are counted from 0."""

    plan: Plan
    queue: list[tuple[int, float]] = field(default_factory=list)  # in flight: (frame, level), oldest first
    out: list[int] = field(default_factory=list)
    born: int = 0

    def enter(self, count: int) -> None:
        self.queue += [(self.born + i, self.plan.horizon) for i in range(count)]
        self.born += count

    def denoise(self, grid: tuple[tuple[float, ...], ...]) -> None:
        """Every frame in flight goes down its column; it must stand where the column starts."""
        for slot, (frame, level) in enumerate(self.queue):
            column = [row[slot] for row in grid]
            assert column[0] == level
            assert all(above >= below for above, below in itertools.pairwise(column))
            self.queue[slot] = (frame, column[-1])

    def leave(self, count: int) -> None:
        for frame, level in self.queue[:count]:
            assert level == self.plan.floor
            self.out.append(frame)
        del self.queue[:count]

    def initialise(self) -> None:
        plan, noisy = self.plan, len(self.plan.input_levels) - self.plan.stride
        self.enter(noisy if noisy else plan.stride)
        self.denoise(plan.init_grid)
        if not noisy:
            self.leave(plan.stride)
        elif plan.initialisation == "renoise":
            assert {level for _, level in self.queue} == {plan.floor}
            self.queue = [(f, plan.input_levels[j]) for j, (f, _) in enumerate(self.queue)]

    def ar_step(self) -> tuple[list[int], list[int]]:
        """One AR step; returns the frames that were out before it and those of its window."""
        before = list(self.out)
        self.enter(self.plan.stride)
        assert tuple(level for _, level in self.queue) == self.plan.input_levels
        window = [frame for frame, _ in self.queue]
        self.denoise(self.plan.ar_grid)
        assert tuple(level for _, level in self.queue) == self.plan.output_levels
        self.leave(self.plan.stride)
        return before, window


def referenced(picks: list[tuple[str, int, float]], out: list[int]) -> dict[int, float]:
    """frame → level of the references, straight from the words of the rule."""
    found: dict[int, float] = {}
    for kind, count, level in picks:
        for place, frame in enumerate(out):
            named = {
                "last": place >= len(out) - count,
                "lag": place == len(out) - count,
                "first": place < count,
                "every": place % count == 0,
                "all": True,
            }[kind]
            if named and frame not in found:
                found[frame] = level
    return found


@st.composite
def plans(draw: st.DrawFn) -> tuple[Plan, list[tuple[str, int, float]]]:
    """A plan with random levels, grids and reference rule, and the rule as plain words."""
    window = draw(st.integers(1, 6))
    stride = draw(st.integers(1, window))
    horizon = draw(st.floats(2.0, 20.0))
    floor = draw(st.sampled_from([0.0, 0.1, 0.7]))
    # Some levels repeat, and some sit at the floor or at T: all of that is allowed.
    level = st.one_of(st.floats(floor, horizon), st.sampled_from([floor, horizon, 1.0]))
    rising = sorted(draw(st.lists(level, min_size=window - stride, max_size=window - stride)))
    input_levels = (*rising, *(horizon,) * stride)
    output_levels = (*(floor,) * stride, *rising)
    warmup = draw(st.booleans())
    init_end = tuple(rising) if warmup and rising else (floor,) * (len(rising) or stride)

    def grid(starts: tuple[float, ...], ends: tuple[float, ...], steps: int) -> tuple[tuple[float, ...], ...]:
        columns = []
        for top, bottom in zip(starts, ends, strict=True):
            inner = draw(st.lists(st.floats(bottom, top), min_size=steps - 1, max_size=steps - 1))
            columns.append((top, *sorted(inner, reverse=True), bottom))
        return tuple(zip(*columns, strict=True))

    steps, init_steps = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    grids: dict[str, Any] = {}
    if draw(st.booleans()):
        grids["ar_grid"] = grid(input_levels, output_levels, steps)
    if draw(st.booleans()):
        grids["init_grid"] = grid((horizon,) * len(init_end), init_end, init_steps)

    pick = st.tuples(
        st.sampled_from(["last", "first", "lag", "every", "all"]),
        st.integers(1, 5),
        st.sampled_from([0.0, 0.7, 1.5]),
    )
    picks = draw(st.lists(pick, max_size=3))
    rule = References()
    for kind, count, noise in picks:
        rule += References((Pick(kind, count, noise),))
    plan = Plan(
        input_levels=input_levels,
        stride=stride,
        horizon=horizon,
        reverse_steps=steps,
        init_steps=init_steps,
        floor=floor,
        references=rule,
        initialisation="warmup" if warmup else "renoise",
        **grids,
    )
    return plan, picks


@settings(max_examples=150, deadline=None)
@given(plans())
def test_the_bookkeeping_is_that_of_algorithm_1(drawn: tuple[Plan, list[tuple[str, int, float]]]) -> None:
    plan, picks = drawn
    run = Run(plan)
    run.initialise()
    assert run.born == plan.init_frames
    assert plan.overlapping == bool(run.queue)
    assert plan.clean_frames(0) == len(run.out)
    for k in range(1, 8):
        before, window = run.ar_step()
        assert plan.frames_out(k) == len(before)
        assert list(plan.window_frames(k)) == window
        assert plan.clean_frames(k) == len(run.out)
        assert list(plan.clip_frames(k)) == [frame for frame in run.out if frame not in before]
        assert plan.total_frames(k) == run.born
        assert run.out == list(range(len(run.out)))

        levels = referenced(picks, before)
        assert [(r.frame, r.level) for r in plan.references_at(k)] == sorted(levels.items())
        clean = {frame for frame, level in levels.items() if level <= plan.floor}
        assert plan.past_frames(k) == tuple(sorted(set(before) - clean))
        most = plan.references.most
        assert most is None or len(levels) <= most


@settings(max_examples=100, deadline=None)
@given(plans())
def test_grids_start_and_end_exactly_and_never_rise(drawn: tuple[Plan, Any]) -> None:
    plan, _ = drawn
    frames = plan.init_frames
    for grid, start, steps in (
        (plan.ar_grid, plan.input_levels, plan.reverse_steps),
        (plan.init_grid, (plan.horizon,) * frames, plan.init_steps),
    ):
        assert len(grid) == steps + 1
        assert grid[0] == start
        for column in zip(*grid, strict=True):
            assert all(above >= below for above, below in itertools.pairwise(column))
    assert plan.ar_grid[-1] == plan.output_levels
    warm = plan.overlapping and plan.initialisation == "warmup"
    assert plan.init_grid[-1] == (plan.input_levels[:frames] if warm else (plan.floor,) * frames)


@settings(max_examples=100, deadline=None)
@given(plans())
def test_the_requirements_hold_as_floats(drawn: tuple[Plan, Any]) -> None:
    plan, _ = drawn
    t_in, t_out, w, stride = plan.input_levels, plan.output_levels, plan.window, plan.stride
    assert list(t_in) == sorted(t_in)
    assert list(t_out) == sorted(t_out)
    assert all(below <= above for below, above in zip(t_out, t_in, strict=True))
    assert t_out[stride:] == t_in[: w - stride]
    assert t_out[:stride] == (plan.floor,) * stride
    assert t_in[w - stride :] == (plan.horizon,) * stride


# -- the stages of a plan -------------------------------------------------------------------------------


def words(rule: References) -> list[tuple[str, int, float]]:
    return [(pick.kind, pick.count, pick.level) for pick in rule.picks]


def sees(plan: Plan, reverse_step: int, row: int, references: int) -> list[bool]:
    """What a window frame sees of (window, references), by the words of ``Plan.visible``."""
    assert plan.visible is not None
    tables = plan.visible if len(plan.visible) > 1 else plan.visible * plan.reverse_steps
    cells = list(tables[reverse_step][row])
    own, told = cells[: plan.window], cells[plan.window :]
    # Without columns of their own all references are seen; with them the last column is the newest reference.
    return own + (told[len(told) - references :] if told else [True] * references)


def check_stage(stage: Stage, plan: Plan, k: int, run: Run, rule: list[tuple[str, int, float]]) -> None:
    """Every field by its definition, from the state of Algorithm 1 before the stage."""
    frames = [frame for frame, _ in run.queue]
    entering = [level for _, level in run.queue]
    assert (stage.ar_step, list(stage.frames), stage.window) == (k, frames, len(frames))
    assert stage.frames == range(frames[0], frames[-1] + 1)
    new = [level == plan.horizon and frame >= run.born - stage.fresh for frame, level in run.queue]
    assert stage.fresh == (plan.stride if k else len(frames))
    assert new == [False] * stage.kept + [True] * stage.fresh
    assert list(stage.grid[0]) == entering
    assert stage.grid == (plan.ar_grid if k else plan.init_grid)
    assert stage.steps == (plan.reverse_steps if k else plan.init_steps) == len(stage.visible)
    assert stage.levels.dtype == torch.float64
    assert stage.levels.tolist() == [list(row) for row in stage.grid]
    assert (stage.floor, stage.horizon, stage.given_levels) == (plan.floor, plan.horizon, None)

    named = referenced(rule, run.out) if k else {}
    shown = {frame: max(level, plan.floor) for frame, level in named.items()}
    assert [(r.frame, r.level) for r in stage.references] == sorted(shown.items())
    assert stage.reference_frames == tuple(sorted(shown))
    assert stage.reference_levels.tolist() == [shown[frame] for frame in sorted(shown)]
    assert stage.reference_levels.dtype == torch.float64
    # A frame that R_k holds as it came out is no part of Past_k; a noised copy hides nothing.
    clean = {frame for frame, level in shown.items() if level == plan.floor}
    assert stage.past == (tuple(frame for frame in run.out if frame not in clean) if k else ())
    assert not set(stage.past) & set(frames)

    for m in range(stage.steps):
        above, below = stage.grid[m], stage.grid[m + 1]
        assert stage.moving(m) == [j for j in range(stage.window) if below[j] < above[j]]
        mask = stage.visible[m]
        if not k or plan.visible is None:
            assert mask is None
        else:
            assert mask is not None
            assert [list(row) for row in mask] == [sees(plan, m, j, len(shown)) for j in range(stage.window)]
    # Output_k: what the step made: its new frames, and the older ones that it has moved at all.
    moved = {j for m in range(stage.steps) for j in stage.moving(m)}
    assert stage.output == tuple(sorted(moved | set(range(stage.kept, stage.window))))


def check_stages(plan: Plan, ar_steps: int) -> None:
    run, stages = Run(plan), list(plan.stages(ar_steps))
    assert len(stages) == ar_steps + 1
    rule = words(plan.references)
    run.enter(plan.init_frames)
    check_stage(stages[0], plan, 0, run, rule)
    run = Run(plan)
    run.initialise()
    for k in range(1, ar_steps + 1):
        before = Run(plan, list(run.queue), list(run.out), run.born)
        before.enter(plan.stride)
        check_stage(stages[k], plan, k, before, rule)
        run.ar_step()


# A plan with matched references has no one stage an AR step: test_reused follows its segments.
WHOLE = [m for m in METHODS if m.verdict != "outside" and not m.build().references.matched]


@pytest.mark.parametrize("entry", WHOLE, ids=lambda m: m.key)
def test_stages_of_the_catalogue_are_what_algorithm_1_has_in_hand(entry: Method) -> None:
    check_stages(entry.build(), 6)


@settings(max_examples=150)
@given(plans())
def test_stages_of_random_plans_are_what_algorithm_1_has_in_hand(
    drawn: tuple[Plan, list[tuple[str, int, float]]],
) -> None:
    check_stages(drawn[0], 5)


@settings(max_examples=150)
@given(masked_plans())
def test_stages_of_random_plans_with_masks_are_what_algorithm_1_has_in_hand(plan: Plan) -> None:
    check_stages(plan, 5)


@settings(max_examples=60)
@given(plans(), st.integers(0, 3))
def test_levels_of_ones_own_stand_in_for_the_grid_and_keep_their_gradient(
    drawn: tuple[Plan, Any], ar_step: int
) -> None:
    plan = drawn[0]
    own = (0.5 * plan.stage(ar_step).levels).requires_grad_()
    stage = plan.stage(ar_step, own)
    assert stage.levels is own
    for m in range(stage.steps):
        assert stage.moving(m) == plan.stage(ar_step).moving(m)
    (slope,) = torch.autograd.grad(stage.levels.sum(), own)
    assert torch.equal(slope, torch.ones_like(own))
    for wrong in (own.detach().float(), own.detach()[1:], own.detach()[:, :0]):
        which = "AR" if ar_step else "initialisation"
        with pytest.raises(ValueError, match=rf"the {which} grid must be float64 levels of shape \({len(own)}, "):
            plan.stage(ar_step, wrong)
    with pytest.raises(ValueError, match="counted from 1, and 0 is the initialisation; got -1"):
        plan.stage(-1)
