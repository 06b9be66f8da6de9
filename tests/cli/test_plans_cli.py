"""``arvdm plans``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from arvdm_theory import METHODS, Plan
from arvdm_theory.cli import main
from arvdm_theory.plan import Method


def test_the_list_shows_every_method(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plans"]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert max(map(len, lines)) <= 110
    for entry in METHODS:
        place = next(i for i, line in enumerate(lines) if line.startswith(entry.key + " "))
        head, checks = lines[place], lines[place + 1].strip()
        assert (entry.arxiv or "–") in head
        assert f" {entry.verdict} " in head
        assert head.endswith("checked" if entry.checked else "not checked")
        if entry.verdict == "outside":
            broken = entry.broken()
            assert broken is not None
            assert checks.startswith(f"{broken[0]} ✗: {broken[1][:20]}")
        else:
            plan = entry.build()
            sizes = [str(plan.window), str(plan.stride), str(plan.reverse_steps)]
            assert head[len(entry.key) :].split()[1:4] == sizes
            assert checks == "monotonicity ✓  circularity ✓  0-T boundary ✓"
            assert "│" in lines[place + 2]
    assert "27 methods, 3 outside the framework" in out


@pytest.mark.parametrize("entry", METHODS, ids=lambda entry: entry.key)
def test_a_method_in_full(entry: Method, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plans", entry.key]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 110
    words = " ".join(out.split())
    assert f"verdict {entry.verdict}: {entry.note}" in words
    assert f"source {entry.source}" in words
    assert entry.title in words
    for name in entry.parameters:
        assert f"{name} = " in words
    if entry.verdict == "outside":
        assert "✗" in out
        assert "AR step  frames" not in out
    else:
        assert "AR step  frames" in out
        assert "input levels" in out
        assert ("sees (a row" in out) == (entry.build().visible is not None)


def test_levels_are_written_by_runs(capsys: pytest.CaptureFixture[str]) -> None:
    main(["plans", "rolling-forcing"])
    out = " ".join(capsys.readouterr().out.split())
    assert "input levels 3 × 0.941, 3 × 2.494, 3 × 4.047, 3 × 5.994, 3 × 10 output" in out


def test_json_holds_every_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "plans.json"
    assert main(["plans", "--json", str(target)]) == 0
    capsys.readouterr()
    records = json.loads(target.read_text(encoding="utf-8"))["methods"]
    assert [record["key"] for record in records] == [entry.key for entry in METHODS]
    for record, entry in zip(records, METHODS, strict=True):
        assert record["verdict"] == entry.verdict
        assert set(record["parameters"]) == set(entry.parameters)
        if entry.verdict == "outside":
            assert record["plan"] is None
            assert record["broken"]["requirement"] in ("monotonicity", "order", "references")
        else:
            assert record["broken"] is None
            assert Plan.from_dict(record["plan"]) == entry.build()
    assert [path.name for path in tmp_path.iterdir()] == ["plans.json"]


def test_json_of_one_method(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "one.json"
    assert main(["plans", "magi-1", "--json", str(target)]) == 0
    capsys.readouterr()
    assert [r["key"] for r in json.loads(target.read_text(encoding="utf-8"))["methods"]] == ["magi-1"]


def test_an_unknown_method_is_one_line_and_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plans", "fifo"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("arvdm plans: no method 'fifo' in the catalogue; did you mean fifo-diffusion")
    assert captured.err.count("\n") == 1


def test_a_missing_folder_is_one_line_and_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plans", "diamond", "--json", str(tmp_path / "nowhere" / "plans.json")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from arvdm_theory.cli import main\n"
        "try: main(['plans', '--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(int(any(name in sys.modules for name in ('torch', 'numpy', 'matplotlib', 'scipy'))))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "--json FILE" in done.stdout
