"""Plan's bookkeeping against a step-by-step run of Meta-ARVDM (Algorithm 1) that shares no code with it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
from hypothesis import given, settings

from arvdm_theory.plan import Plan, References


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
        st.sampled_from(["last", "first", "every", "all"]), st.integers(1, 5), st.sampled_from([0.0, 0.7, 1.5])
    )
    picks = draw(st.lists(pick, max_size=3))
    rule = References()
    for kind, count, noise in picks:
        rule += References.all(noise) if kind == "all" else getattr(References, kind)(count, noise)
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
