"""Faults planted in plans, matrices and scheduler configs are found where they stand; what is right is left."""

from __future__ import annotations

import ast
import importlib.util
import json
import math
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from test_file import BROKEN

from arvdm_theory import METHODS, Plan, PlanError, References, fifo, outpainting
from arvdm_theory.adapters.lint import lint_scheduler
from arvdm_theory.cli import main
from arvdm_theory.plan.file import save_plan
from arvdm_theory.plan.lint import Finding, lint_matrix, lint_plan, read_matrix
from arvdm_theory.plan.lint.plan_file import json_lines
from arvdm_theory.testing.plans import plans


def found(findings: list[Finding]) -> set[tuple[str, int | None, int | None]]:
    return {(finding.rule, finding.row, finding.frame) for finding in findings}


# -- plan files -----------------------------------------------------------------------------------------


@given(plans())
@settings(max_examples=60, deadline=None)
def test_no_plan_has_an_error(plan: Plan) -> None:
    assert [each for each in lint_plan(plan.to_dict()) if each.severity == "error"] == []


@pytest.mark.parametrize("entry", [entry for entry in METHODS if entry.verdict != "outside"], ids=lambda e: e.key)
def test_published_plans_are_clean_but_for_what_is_known_of_them(entry: Any) -> None:
    findings = lint_plan(entry.build().to_dict())
    # Their schedules leave signal where they begin: 0.47 % in latent diffusion's, 1/26 in DIAMOND's. The
    # queue of FIFO-Diffusion ends in a step from the first noise level to itself.
    known = {key: {"zero terminal SNR"} for key in ("streaming-t2v", "fifo-diffusion", "gamengen", "diamond")}
    known["fifo-diffusion"] = known["fifo-diffusion"] | {"levels"}
    assert {each.rule for each in findings} == known.get(entry.key, set())


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_refused_is_found(name: str) -> None:
    content, _ = BROKEN[name]
    if "memory" in name:
        return  # no fault of the plan's
    assert any(each.severity == "error" for each in lint_plan(content))


def planted(change: Any) -> list[Finding]:
    content = fifo(4, References.last(2), reverse_steps=2, init_steps=2).to_dict()
    change(content)
    return lint_plan(content)


PLANTED: dict[str, tuple[Any, set[tuple[str, int | None, int | None]]]] = {
    "input levels that fall": (
        lambda c: c["input_levels"].__setitem__(1, 1.0),
        {("monotonicity", None, 2), ("circularity", None, 3), ("0-T boundary", 1, 2)},
    ),
    "not circular": (lambda c: c["output_levels"].__setitem__(2, 2.9),
                     {("circularity", None, 3), ("0-T boundary", 3, 3)}),
    "not clean": (lambda c: c["output_levels"].__setitem__(0, 0.1), {("0-T boundary", None, 1),
                                                                       ("0-T boundary", 3, 1)}),
    "not pure": (lambda c: c["input_levels"].__setitem__(3, 5.9), {("0-T boundary", None, 4),
                                                                     ("0-T boundary", 1, 4)}),
    "a level that rises": (lambda c: c["ar_grid"].__setitem__(1, [0.75, 2.25, 2.9, 5.25]),
                           {("monotonicity", 3, 3)}),
    "a row less": (lambda c: c.__setitem__("reverse_steps", 3), {("off by one", None, None)}),
    "a row that is short": (lambda c: c["init_grid"][1].pop(), {("coverage", 2, None)}),
    "no steps": (lambda c: c.__setitem__("init_steps", 0), {("coverage", None, None)}),
    "a stride beyond the window": (lambda c: c.__setitem__("stride", 5), {("coverage", None, None)}),
    "a rule that adds nothing": (lambda c: c["references"].append({"kind": "last", "count": 1}),
                                 {("references", None, None)}),
    "noise below the floor": (lambda c: c["references"].append({"kind": "first", "count": 1, "level": -1.0}),
                              {("references[1]", None, None)}),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_planted_faults_of_a_plan(name: str) -> None:
    change, expected = PLANTED[name]
    assert expected <= found(planted(change))


def test_warnings_of_a_plan_that_runs() -> None:
    low = outpainting(2, References.last(1), 2, horizon=3.0).to_dict()
    low["ar_grid"] = [[3.0, 3.0], [3.0, 3.0], [0.0, 0.0]]
    low["visible"] = [["110", "110"]]
    assert Plan.from_dict(low)
    rules = {(each.rule, each.severity) for each in lint_plan(low)}
    assert rules == {("zero terminal SNR", "warning"), ("levels", "warning"), ("visibility", "warning")}


def test_findings_know_their_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "plan.json"
    save_plan(path, fifo(4, References.last(2), reverse_steps=2, init_steps=2))
    assert main(["lint", str(path)]) == 0
    assert "nothing found" in capsys.readouterr().out
    text = path.read_text()
    lines = text.splitlines()
    at = next(i for i, line in enumerate(lines) if '"output_levels"' in line) + 3  # the third of them
    lines[at] = "    2.5,"
    stray = next(i for i, line in enumerate(lines) if '"stride"' in line)
    lines.insert(stray, '  "strdie": 1,')
    path.write_text("\n".join(lines))
    out = tmp_path / "found.json"
    assert main(["lint", str(path), "--json", str(out)]) == 1
    shown = capsys.readouterr().out
    assert f"{path}: line {at + 2}, frame 3: error: circularity" in shown
    assert (
        f"{path}: line {stray + 1}: error: format: strdie: a plan has no such key; did you mean 'stride'" in shown
    )
    content = json.loads(out.read_text())
    assert content["kind"] == "plan"
    assert {each["line"] for each in content["findings"]} >= {at + 2, stray + 1}


@given(plans())
@settings(max_examples=20, deadline=None)
def test_lines_are_those_of_the_values(plan: Plan) -> None:
    content = plan.to_dict()
    text = json.dumps(content, indent=1)
    where, lines = json_lines(text), text.splitlines()
    for path in (("stride",), ("input_levels", 0), ("ar_grid", 1, 0), ("name",)):
        value: Any = content
        for key in path:
            value = value[key]
        assert json.dumps(value) in lines[where[path] - 1]


# -- matrices -------------------------------------------------------------------------------------------


def pyramid(frames: int, steps: int, gap: int) -> np.ndarray[Any, Any]:
    """The scheduling matrix of Diffusion Forcing's pyramid: level clip(S + gap j - m, 0, S)."""
    rows = np.arange(steps + gap * (frames - 1) + 1)
    return np.clip(steps + gap * np.arange(frames) - rows[:, None], 0, steps).astype(float)


@pytest.mark.parametrize(("frames", "steps", "gap"), [(1, 5, 0), (4, 5, 0), (4, 5, 2), (6, 3, 3), (3, 4, 4)])
def test_pyramids_are_clean(frames: int, steps: int, gap: int) -> None:
    states = pyramid(frames, steps, gap)
    assert lint_matrix(states, frames=frames) == []
    assert lint_matrix(states[:-1], frames=frames) == []  # what the network is told, without what it leaves


def test_planted_faults_of_a_matrix() -> None:
    clean = pyramid(5, 6, 2)
    lost = lint_matrix(clean[:, :4], frames=5)
    assert found(lost) == {("coverage", None, 5), ("levels", 14, None), ("levels", 15, None)}

    off = clean.copy()
    off[:, 3] = 0  # the off-by-one that made a frame clean from the start
    assert ("off by one", None, 4) in found(lint_matrix(off))

    noisy = clean.copy()
    noisy[-2:, 4] = 3
    assert ("coverage", 15, 5) in found(lint_matrix(noisy))

    rising = clean.copy()
    rising[4, 1] = 6
    assert ("monotonicity", 5, 2) in found(lint_matrix(rising))

    disordered = clean[:, [0, 2, 1, 3, 4]]
    assert ("monotonicity", 2, 3) not in found(lint_matrix(disordered))
    assert {rule for rule, _, frame in found(lint_matrix(disordered)) if frame == 3} >= {"monotonicity"}

    skipping = clean.copy()
    skipping[6:, 2] -= 1
    skipping = np.maximum(skipping, 0)
    assert ("levels", 7, 3) in found(lint_matrix(skipping))

    twice = np.insert(clean, 5, clean[4], axis=0)
    assert found(lint_matrix(twice)) == {("levels", 6, None)}

    waiting = np.maximum(clean, 0)
    waiting[4:, 0] = np.concatenate([[waiting[3, 0]], waiting[4:-1, 0]])
    assert ("levels", 5, 1) in found(lint_matrix(waiting))

    uneven = np.stack([np.clip(6 + lag - np.arange(15), 0, 6) for lag in (0, 2, 4, 7, 8)], 1)
    assert {("circularity", 9, 4), ("circularity", 10, 5)} <= found(lint_matrix(uneven))

    assert ("coverage", 6, None) in found(lint_matrix(clean, window=2))
    assert lint_matrix(clean, window=3) == []
    assert found(lint_matrix(clean, top=7.0)) == {("0-T boundary", None, None)}
    assert found(lint_matrix(6 - clean)) == {("monotonicity", None, None)}
    assert ("off by one", 7, 1) in found(lint_matrix(np.where(clean == 0, -1, clean)[:15]))


def test_given_frames_are_no_fault_when_they_are_said() -> None:
    matrix = np.concatenate([np.zeros((6, 2)), pyramid(3, 5, 0)], 1)
    assert found(lint_matrix(matrix)) == {("off by one", None, 1), ("off by one", None, 2)}
    assert lint_matrix(matrix, context=2) == []
    matrix[:, 1] = 1
    assert ("0-T boundary", 1, 2) in found(lint_matrix(matrix, context=2))


def test_leading_timesteps_are_no_pure_noise() -> None:
    times = np.arange(20)[::-1, None] * 50 + np.ones(3)
    assert found(lint_matrix(times)) == {("zero terminal SNR", None, None)}
    assert lint_matrix(times + 48) == []


@pytest.fixture(scope="module")
def step_matrix() -> Any:
    """SkyReels-V2's own function out of diffusers' file; its pipeline needs packages that this does not."""
    spec = importlib.util.find_spec("diffusers")
    if spec is None or spec.origin is None:
        pytest.skip("diffusers is not installed")
    torch = pytest.importorskip("torch")
    name = "pipelines/skyreels_v2/pipeline_skyreels_v2_diffusion_forcing.py"
    source = (Path(spec.origin).parent / name).read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.name == "generate_timestep_matrix":
            text = textwrap.dedent(ast.get_source_segment(source, node) or "")
            space: dict[str, Any] = {"torch": torch, "math": math}
            exec(text, space)
            return lambda *args: space["generate_timestep_matrix"](None, *args)[0].numpy()
    pytest.skip("this diffusers has no generate_timestep_matrix")


def template(steps: int, shift: float = 8.0) -> Any:
    """Its flow timesteps."""
    import torch

    time = torch.linspace(1, 1 / steps, steps, dtype=torch.float64) * 0.999
    return 1000 * shift * time / (1 + (shift - 1) * time)


@pytest.mark.parametrize(("frames", "gap", "block"), [(25, 5, 5), (25, 0, 1), (13, 3, 1), (24, 5, 4)])
def test_the_matrices_of_a_pipeline_are_clean(step_matrix: Any, frames: int, gap: int, block: int) -> None:
    matrix = step_matrix(frames, template(30), frames, gap, 0, block)
    assert lint_matrix(matrix.astype(float), frames=frames) == []


def test_a_pipeline_that_loses_frames_is_caught(step_matrix: Any, tmp_path: Path) -> None:
    matrix = step_matrix(25, template(30), 25, 5, 0, 4)  # 25 frames in blocks of 4: one is dropped
    assert matrix.shape[1] == 24
    np.save(tmp_path / "matrix.npy", matrix)
    np.savetxt(tmp_path / "matrix.csv", matrix, fmt="%d", delimiter=",")
    for name in ("matrix.npy", "matrix.csv"):
        assert main(["lint", str(tmp_path / name), "--frames", "24"]) == 0
        assert main(["lint", str(tmp_path / name), "--frames", "25"]) == 1
    assert found(lint_matrix(matrix.astype(float), frames=25)) == {("coverage", None, 25)}
    # The prefix of 7 given frames is 1.75 blocks: its last 3 frames are made again, and not said to be.
    prefix = step_matrix(24, template(30), 24, 5, 7, 4)
    assert ("0-T boundary", 1, 5) in found(lint_matrix(prefix.astype(float), frames=24, context=7))


def test_csv_rows_know_their_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "matrix.csv"
    path.write_text("a,b\n# states\n4,4\n\n2,4\n3,2\n0,0\n")
    values, lines = read_matrix(path)
    assert lines == (3, 5, 6, 7)
    assert values.tolist() == [[4, 4], [2, 4], [3, 2], [0, 0]]
    assert main(["lint", str(path)]) == 1
    assert (
        f"{path}: line 6, row 3, frame 1: error: monotonicity: the entry rises from 2 to 3"
        in capsys.readouterr().out
    )


UNREADABLE = {
    "ragged.csv": ("3,3\n2,2\n1\n", "line 3: 1 frames, and 2 in the rows before"),
    "words.csv": ("1,2\na,b\n", "line 2: numbers with commas between"),
    "spaces.csv": ("1 2\n0 1\n", "line 1: numbers with commas between"),
    "empty.csv": ("", "a matrix of iterations by frames is expected"),
    "nan.csv": ("1,nan\n0,0\n", "row 1, frame 2 is not finite"),
    "plan.yaml": ("stride: 1", "a plan or scheduler config is .json"),
    "other.json": ('{"run": 1}', "is neither a plan file"),
    "list.json": ("[1, 2]", "an object is expected"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable_files_are_one_line_and_exit_2(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, message = UNREADABLE[name]
    (tmp_path / name).write_text(text)
    assert main(["lint", str(tmp_path / name)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert message in shown.err
    assert shown.err.count("\n") == 1


# -- scheduler configs ----------------------------------------------------------------------------------

SD = {"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
      "num_train_timesteps": 1000, "set_alpha_to_one": False, "steps_offset": 1}  # fmt: skip
ZERO = {**SD, "rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing",
        "set_alpha_to_one": True}  # fmt: skip


def rules(config: dict[str, Any], steps: int = 50) -> set[tuple[str, str]]:
    return {(each.rule, each.severity) for each in lint_scheduler(config, steps)}


def test_a_mended_scheduler_is_clean() -> None:
    assert rules(ZERO) == set()
    assert rules({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}) == set()
    assert rules({**ZERO, "_class_name": "EulerDiscreteScheduler"}, 13) == set()


CONFIGS: dict[str, tuple[dict[str, Any], int, set[tuple[str, str]]]] = {
    "latent diffusion": (SD, 50, {("zero terminal SNR", "warning"), ("0-T boundary", "warning")}),
    "few leading steps": (SD, 4, {("zero terminal SNR", "warning"), ("0-T boundary", "warning")}),
    "no offset": ({**ZERO, "timestep_spacing": "leading", "set_alpha_to_one": False, "steps_offset": 0}, 50,
                  {("zero terminal SNR", "error"), ("off by one", "warning")}),
    "epsilon at no signal": ({**ZERO, "prediction_type": "epsilon"}, 50, {("zero terminal SNR", "error")}),
    "steps that do not divide": (ZERO, 13, {("off by one", "warning"), ("0-T boundary", "warning")}),
    "linspace by ratio": ({**ZERO, "timestep_spacing": "linspace"}, 50, {("off by one", "warning")}),
    "an offset beyond the table": ({**ZERO, "timestep_spacing": "leading", "steps_offset": 30}, 50,
                                   {("off by one", "error"), ("0-T boundary", "error")}),
    "more steps than timesteps": (ZERO, 1001, {("levels", "error")}),
    "betas that fall": ({**ZERO, "beta_start": 0.1}, 50, {("monotonicity", "error")}),
    "a beta of 1": ({**ZERO, "beta_end": 1.0}, 50, {("format", "error")}),
    "betas that are none": ({**ZERO, "beta_schedule": "square"}, 50, {("format", "error")}),
    "another spacing": ({**ZERO, "timestep_spacing": "even"}, 50, {("format", "error")}),
    "a count that is a text": ({**ZERO, "num_train_timesteps": "1000"}, 50, {("format", "error")}),
    "the first noise left": (
        {**ZERO, "_class_name": "EulerDiscreteScheduler", "final_sigmas_type": "sigma_min"}, 50,
        {("0-T boundary", "warning")},
    ),
    "a terminal shift": ({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift_terminal": 0.1}, 8,
                         {("0-T boundary", "warning")}),
    "a terminal shift of one step": ({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift_terminal": 0.1}, 1,
                                     {("levels", "error")}),
    "from data to noise": ({"_class_name": "FlowMatchEulerDiscreteScheduler", "invert_sigmas": True}, 8,
                           {("monotonicity", "warning")}),
    "a shift of zero": ({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 0}, 8, {("format", "error")}),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_planted_faults_of_a_scheduler(name: str) -> None:
    config, steps, expected = CONFIGS[name]
    assert expected == rules(config, steps)


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("name", ["DDIMScheduler", "PNDMScheduler", "EulerDiscreteScheduler"])
def test_timesteps_are_those_of_the_scheduler_itself(name: str, spacing: str) -> None:
    diffusers = pytest.importorskip("diffusers")
    from arvdm_theory.adapters.lint import _Config

    config = {**SD, "_class_name": name, "timestep_spacing": spacing}
    for steps in (4, 13, 50):
        made = getattr(diffusers, name).from_config({**config, "skip_prk_steps": True})
        made.set_timesteps(steps)
        times = list(dict.fromkeys(np.asarray(made.timesteps, dtype=float).tolist()))  # PNDM takes one twice
        own = _Config(config, steps, {}).timesteps(1000)
        assert own is not None
        if name == "EulerDiscreteScheduler" and spacing == "linspace":
            assert np.abs(own - times).max() <= 0.5  # it does not round them
        else:
            assert own.tolist() == times


def test_a_config_through_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "scheduler_config.json"
    path.write_text(json.dumps(SD, indent=2))
    assert main(["lint", str(path)]) == 1
    shown = capsys.readouterr().out
    assert (
        f"{path}: line 5: warning: zero terminal SNR: 0.47% of a frame's variance are left at T = 5.369" in shown
    )
    path.write_text(json.dumps(ZERO))
    assert main(["lint", str(path)]) == 0


def test_plan_error_is_what_lint_reports() -> None:
    content = fifo(3).to_dict() | {"spacing": "geometric", "ar_grid": [], "init_grid": []}
    with pytest.raises(PlanError, match="spacing: a geometric grid"):
        Plan.from_dict(content)
    assert any("geometric" in each.message for each in lint_plan(content))
