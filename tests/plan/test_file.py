"""Plan files: the same plan back, to the last bit, and a refusal by name for everything else."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from arvdm_theory import METHODS, Plan, PlanError, References, fifo, load_plan
from arvdm_theory.noise import NoiseSchedule, clock_from_flow
from arvdm_theory.plan.file import save_plan
from arvdm_theory.plan.levels import scheduled
from arvdm_theory.testing.plans import plans

BUILT = [entry for entry in METHODS if entry.verdict != "outside"]


@pytest.mark.parametrize("entry", BUILT, ids=lambda entry: entry.key)
def test_published_plans_come_back(entry: Any, tmp_path: Path) -> None:
    plan = entry.build()
    save_plan(tmp_path / "plan.json", plan)
    found = load_plan(tmp_path / "plan.json")
    assert found == plan
    assert found.name == plan.name
    assert found.to_dict() == plan.to_dict()


@given(plans())
@settings(max_examples=60, deadline=None)
def test_any_plan_comes_back(plan: Plan) -> None:
    text = json.dumps(plan.to_dict(), allow_nan=False)
    assert Plan.from_dict(json.loads(text)) == plan


def test_what_is_left_out_follows() -> None:
    content = {"format": "arvdm plan", "version": 1, "stride": 1, "horizon": 6, "reverse_steps": 10,
               "input_levels": [1.5, 3, 4.5, 6], "references": [{"kind": "last", "count": 2}]}  # fmt: skip
    assert Plan.from_dict(content) == fifo(4, References.last(2))
    assert Plan.from_dict(content | {"spacing": "karras:7", "init_steps": 3}) == Plan(
        (1.5, 3.0, 4.5, 6.0), 1, 6.0, 10, init_steps=3, references=References.last(2), spacing="karras:7"
    )


def broken(**changes: Any) -> dict[str, Any]:
    content = fifo(3, References.last(1, level=0.5), reverse_steps=2, init_steps=2).to_dict()
    return {key: value for key, value in (content | changes).items() if value != "left out"}


ROW = [2.0, 4.0, 6.0]
BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "a key that is none": (broken(strde=1), "strde: a plan has no such key; did you mean 'stride'"),
    "a key like none": (broken(qqq=1), "qqq: a plan has no such key; its keys are name, window, stride"),
    "no format": (broken(format="left out"), "format: a plan file says \"format\": \"arvdm plan\", got nothing"),
    "a later version": (broken(version=2), "version: 2; plan files of version 1 are read"),
    "true as a version": (broken(version=True), "version: True"),
    "no stride": (broken(stride="left out"), "stride: the key is missing; a whole number up to 1000000000"),
    "a stride that is a text": (broken(stride="1"), "stride: a whole number .* is expected, got '1'"),
    "a stride that is a half": (broken(stride=1.5), "stride: a whole number .* is expected, got 1.5"),
    "a boolean": (broken(reverse_steps=True), "reverse_steps: a whole number .* got True"),
    "no steps": (broken(reverse_steps=0, ar_grid=[]), "steps: at least one reverse step"),
    "a number beyond all floats": (broken(horizon=10**400), "horizon: a number is expected"),
    "an infinite horizon": (broken(horizon=math.inf), "0-T boundary: .* T = inf"),
    "not a number among levels": (broken(input_levels=[1.0, math.nan, 6.0]), "must be finite"),
    "levels that are texts": (broken(input_levels=["2", 4, 6]), "input_levels: a list of at least one number"),
    "no levels": (broken(input_levels=[]), "input_levels: a list of at least one number is expected, got \\[\\]"),
    "another window": (broken(window=4), "window: it is 4, and there are 3 input levels"),
    "a grid with a row less": (broken(ar_grid=[ROW, ROW]), "the AR grid needs 3 rows of 3 levels"),
    "a grid of texts": (broken(ar_grid=["abc"]), "ar_grid: a list of rows of numbers"),
    "a spacing that is none": (broken(spacing="even"), "spacing: the name of a spacing.* got 'even'"),
    "a spacing that is a number": (broken(spacing=7), "spacing: the name of a spacing"),
    "references that are words": (broken(references=["last"]), r"references\[0\]: an object is expected"),
    "a reference rule's key": (broken(references=[{"kind": "last", "cuont": 2}]),
                               r"references\[0\]: cuont: a reference rule has no such key; did you mean 'count'"),
    "a rule without its kind": (broken(references=[{"count": 2}]), r"references\[0\]: kind: the key is missing"),
    "a rule of another kind": (broken(references=[{"kind": "newest"}]), r"references\[0\]: a rule is 'last'"),
    "a rule of no frames": (broken(references=[{"kind": "last", "count": 0}]), r"\[0\]: 'last' needs a count"),
    "a level that is a text": (broken(references=[{"kind": "last", "level": "0"}]), r"\[0\]: level: a number"),
    "a mask of booleans": (broken(visible=[[[True] * 3] * 3]), r"visible\[0\]: words of 0 and 1 are expected"),
    "a mask that is a word": (broken(visible=["111"]), "visible: null or a list of masks"),
    "a mask of another size": (broken(visible=[["11", "11"]]), "a mask has 3 rows of 3 or 4 columns"),
    "empty words": (broken(visible=[["", "", ""]]), "a mask has 3 rows"),
    "another initialisation": (broken(initialisation="none"), "'renoise' or 'warmup', got 'none'"),
    "levels that rise": (broken(input_levels=[4.0, 2.0, 6.0], output_levels=[], ar_grid=[], init_grid=[]),
                         "monotonicity: the input level of window frame 2"),
    "steps beyond all memory": (broken(reverse_steps=10**9, ar_grid=[]), "GB of memory"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_refusals_name_the_key_and_what_is_expected(name: str, tmp_path: Path) -> None:
    content, message = BROKEN[name]
    with pytest.raises(ValueError, match=message):
        Plan.from_dict(content)
    (tmp_path / "plan.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="memory" if "memory" in message else "plan.json: "):
        load_plan(tmp_path / "plan.json")


def test_a_key_that_stands_there_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{"format": "arvdm plan", "stride": 1, "stride": 2}')
    with pytest.raises(ValueError, match=r"plan\.json .*'stride' stands there twice"):
        load_plan(tmp_path / "plan.json")


# -- levels of a noise schedule -------------------------------------------------------------------------


def test_scheduled_levels_are_those_of_the_schedule() -> None:
    cosine = scheduled("cosine", reverse_steps=4, horizon=12.0)
    assert [row[0] for row in cosine.ar_grid[1:]] == pytest.approx(
        NoiseSchedule.cosine().clock([0.75, 0.5, 0.25, 0.0]).tolist(), rel=1e-14
    )
    assert cosine.ar_grid[0] == (12.0, 12.0)
    linear = scheduled("linear", reverse_steps=50)
    assert [row[0] for row in linear.ar_grid] == NoiseSchedule.ddpm().clock(list(range(1000, -1, -20))).tolist()
    shift, times = 3.0, np.array([0.75, 0.5, 0.25, 0.0])
    flow = scheduled("flow:3", reverse_steps=4)
    expected = clock_from_flow(shift * times / (1 + (shift - 1) * times))
    assert [row[0] for row in flow.ar_grid[1:]] == pytest.approx(expected.tolist(), rel=1e-14)


def test_a_scheduled_pipeline_falls_evenly_in_native_time() -> None:
    plan = scheduled("flow", window=5, stride=2, reverse_steps=3, horizon=8.0)
    times = [0.2, 0.6, 0.6]
    assert plan.input_levels[:3] == pytest.approx(clock_from_flow(times).tolist(), rel=1e-14)
    assert plan.input_levels[3:] == (8.0, 8.0)
    # Frame 3 falls from 0.6 to 0.2 in three steps.
    inside = clock_from_flow([0.6 - 0.4 / 3, 0.6 - 0.8 / 3])
    assert [row[2] for row in plan.ar_grid[1:3]] == pytest.approx(inside.tolist(), rel=1e-13)


def test_a_schedule_stops_at_the_floor() -> None:
    plan = scheduled("cosine", reverse_steps=8, floor=0.02)
    assert plan.floor == plan.ar_grid[-1][0] == 0.02
    times = NoiseSchedule.cosine().native([row[0] for row in plan.ar_grid[1:]])
    assert np.diff(times) == pytest.approx(np.full(7, -(1 - times[-1]) / 8), rel=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"schedule": "quadratic"}, "a schedule is one of linear, scaled-linear"),
        ({"schedule": "linear:3"}, "a schedule is one of"),
        ({"schedule": "flow:-1"}, "'flow:-1' is no schedule: .* must be positive and finite"),
        ({"schedule": "linear", "horizon": 6.0}, "linear has its own ends, δ = 0 and T = 10.1"),
        ({"schedule": "linear", "floor": 0.1}, "has its own ends"),
        ({"schedule": "linear", "reverse_steps": 1001}, "1000 timesteps, too few for 1001"),
        ({"schedule": "cosine", "reverse_steps": 1000}, "above T = 10; choose a larger horizon"),
        ({"schedule": "cosine", "floor": -0.1}, "0-T boundary"),
        ({"schedule": "cosine", "horizon": math.nan}, "0-T boundary"),
        ({"schedule": "cosine", "reverse_steps": 0}, "at least one reverse step"),
        ({"schedule": "cosine", "window": 4, "stride": 5}, "stride"),
    ],
)
def test_schedules_refuse_what_they_do_not_have(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        scheduled(**arguments)
