"""The options that say which plan, as every command takes them; here through ``arvdm ledger``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arvdm_theory import METHODS, ArrayVideo, Plan, References, ledger, load_plan, method, outpainting
from arvdm_theory.cli import main
from arvdm_theory.plan.file import save_plan
from arvdm_theory.plan.levels import scheduled

BUILT = [entry.key for entry in METHODS if entry.verdict != "outside"]


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    index = np.arange(80)
    np.save(tmp_path / "cov.npy", 0.8 ** np.abs(index[:, None] - index))
    return ["ledger", "--covariance", str(tmp_path / "cov.npy"), "--frame-dim", "1", "--ar-steps", "2",
            "--girsanov-points", "0", "--json", str(tmp_path / "out.json")]  # fmt: skip


def kl(plan: Plan) -> Any:
    index = np.arange(80)
    video = ArrayVideo(0.8 ** np.abs(index[:, None] - index), 1)
    return ledger(video, plan, 2, girsanov=False).totals["kl"]


def found(words: list[str]) -> Any:
    assert main(words) == 0
    return json.loads(Path(words[words.index("--json") + 1]).read_text())["kl"]


@pytest.mark.parametrize("key", BUILT)
def test_every_method_that_has_a_plan_has_a_ledger(key: str, words: list[str]) -> None:
    assert found([*words, "--plan", key]) == kl(method(key).build())


def test_a_plan_goes_through_a_file(words: list[str], tmp_path: Path) -> None:
    path = str(tmp_path / "plan.json")
    assert main(["plans", "magi-1", "--set", "chunk=1", "--set", "steps=8", "--out", path]) == 0
    plan = method("magi-1").build(chunk=1, steps=8)
    assert load_plan(path) == plan
    assert found([*words, "--plan", path]) == kl(plan)
    assert found([*words, "--method", "magi-1", "--set", "chunk=1", "--set", "steps=8"]) == kl(plan)


def test_parameters_of_every_kind_are_set(words: list[str]) -> None:
    settings = {"frames": "2", "timesteps": "1000,500", "shift": "3.5", "sink": "1", "recent": "2"}
    told = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    plan = method("longlive").build(frames=2, timesteps=(1000, 500), shift=3.5, sink=1, recent=2)
    assert found([*words, "--plan", "longlive", *told]) == kl(plan)
    lookahead = ["--set", "lookahead=false", "--set", "frames=4", "--set", "parts=2"]
    assert found([*words, "--plan", "fifo-diffusion", *lookahead]) == kl(
        method("fifo-diffusion").build(lookahead=False, frames=4, parts=2)
    )


def test_schedule_spacing_and_floor(words: list[str]) -> None:
    rule = References.last(1)
    assert found([*words, "--schedule", "cosine:9"]) == kl(
        scheduled("cosine", references=rule, reverse_steps=9, init_steps=9)
    )
    fifo = [
        *words,
        "--method",
        "fifo",
        "--window",
        "3",
        "--schedule",
        "flow:3:4",
        "--horizon",
        "12",
        "--floor",
        ".01",
    ]
    assert found(fifo) == kl(scheduled("flow:3", 3, 1, rule, 4, 4, 12.0, 0.01))
    spaced = [*words, "--spacing", "geometric", "--floor", "0.01", "--reverse-steps", "8"]
    assert found(spaced) == kl(outpainting(2, rule, 8, floor=0.01, spacing="geometric"))


def test_a_plan_takes_another_grid(words: list[str], tmp_path: Path) -> None:
    path = str(tmp_path / "plan.json")
    save_plan(path, outpainting(2, References.last(3), reverse_steps=5, spacing="karras:7"))
    assert found([*words, "--plan", path, "--spacing", "uniform", "--reverse-steps", "9"]) == kl(
        outpainting(2, References.last(3), reverse_steps=9)
    )
    assert found([*words, "--plan", path, "--init-steps", "3"]) == kl(
        outpainting(2, References.last(3), reverse_steps=5, init_steps=3, spacing="karras:7")
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--plan magi", "no method 'magi' in the catalogue; did you mean magi-1"),
        ("--method nonesuch", "no method 'nonesuch' in the catalogue"),
        ("--plan pyramidal-flow", "monotonicity"),
        ("--plan framepack", "order: AR step k of a plan"),
        ("--plan none.json", "none.json: No such file"),
        ("--plan=", "--plan: a file or a method's name is missing"),
        ("--plan magi-1 --method fifo", "not allowed with"),
        ("--plan magi-1 --window 3", "--window is the plan's own: leave it out"),
        ("--plan magi-1 --schedule cosine:9", "--schedule is the plan's own"),
        ("--plan magi-1 --set chnk=1", "magi-1 has no parameter chnk"),
        ("--plan magi-1 --set chunk", "--set chunk: NAME=VALUE is expected, the value being a number"),
        ("--plan magi-1 --set chunk=1e9", "--set chunk=1e9: NAME=VALUE .* a number up to 1000"),
        ("--plan longlive --set timesteps=a,b", "--set timesteps=a,b: .* numbers, commas between"),
        ("--set chunk=1", "--set is for published methods"),
        ("--schedule cosine", "--schedule: NAME:N with N reverse steps is expected"),
        ("--schedule cosine:0", "--schedule: NAME:N"),
        ("--schedule cosine:9 --reverse-steps 3", "--schedule cosine:9 has 9 reverse steps"),
        ("--schedule cosine:9 --spacing uniform", "not allowed with"),
        ("--schedule cosine:999999999999999999", "--schedule: NAME:N"),
        ("--schedule square:9", "a schedule is one of"),
        ("--spacing even", "a spacing is one of"),
        ("--spacing geometric", "a geometric grid must stop at a level above 0"),
        ("--floor 7", "0-T boundary"),
        ("--floor nan", "0-T boundary"),
        ("--plan magi-1 --reverse-steps 0", "--reverse-steps must be at least 1"),
    ],
)
def test_refusals_are_one_line(
    options: str, message: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code: object = main([*words, *options.split()])
    except SystemExit as stop:
        code = stop.code
    shown = capsys.readouterr()
    assert code == 2
    assert len(shown.err.splitlines()) == 1
    assert re.search(message, shown.err), shown.err
    assert [path.name for path in tmp_path.iterdir()] == ["cov.npy"]


def test_a_plan_file_is_not_overwritten(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "plan.json")
    save_plan(path, outpainting(2, References.last(1)))
    assert main([*words[: words.index("--json")], "--plan", path, "--json", path]) == 2
    assert "would overwrite the input" in capsys.readouterr().err
