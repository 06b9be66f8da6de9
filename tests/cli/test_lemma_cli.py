"""``arvdm lemma`` as a user meets it: output, files, exit codes and one-line errors."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from arvdm_theory.bounds import impossibility
from arvdm_theory.bounds.impossibility import LemmaCheck, check_lemma
from arvdm_theory.cli import main
from arvdm_theory.information.discrete import FiniteLaw

AXES = ["--past", "0", "--input", "1", "--output", "2"]


@pytest.fixture
def joint(tmp_path: Path) -> Path:
    weights = np.random.default_rng(0).random((3, 4, 5, 2))
    path = tmp_path / "p.npy"
    np.save(path, weights / weights.sum())
    return path


def lines(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """The printed lines by their first word."""
    text = capsys.readouterr().out
    return {line.split()[0]: line for line in text.splitlines() if line.strip()}


def test_both_sides_are_printed_and_written(
    joint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel = np.random.default_rng(1).dirichlet(np.ones(5), 4)
    np.save(tmp_path / "q.npy", kernel)
    out = tmp_path / "out.json"
    code = main(["lemma", "--joint", str(joint), *AXES, "--kernel", str(tmp_path / "q.npy"), "--json", str(out)])
    printed = lines(capsys)
    law = FiniteLaw(np.load(joint))
    expected = check_lemma(law, "0", "1", "2", kernel)
    assert code == 0
    record = json.loads(out.read_text())
    for name, word in (("cost", "cost"), ("memory_bottleneck", "bottleneck"), ("excess", "excess")):
        value = getattr(expected, name)
        assert record[name] == value
        assert float(printed[word].split()[-2]) == pytest.approx(value, rel=1e-14)
    assert record["holds"] is True
    assert record["unit"] == "nats"
    assert record["axes"] == {"past": [0], "input": [1], "output": [2], "summed_out": [3]}
    np.testing.assert_array_equal(record["minimising_kernel"], expected.minimiser)
    assert "axis 3" in printed["summed"]
    assert "lemma holds" in printed["the"]
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".part")] == []


def test_without_a_kernel_the_minimising_one_is_used(joint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lemma", "--joint", str(joint), "--past", "0,3", "--input", "1", "--output", "2"]) == 0
    printed = lines(capsys)
    assert "the minimising one" in printed["kernel"]
    assert "summed" not in printed
    assert float(printed["excess"].split()[-2]) < 1e-14
    rows = FiniteLaw(np.load(joint)).probabilities.sum((0, 3))
    rows = rows / rows.sum(1, keepdims=True)
    assert printed["3"].split()[1:] == [f"{value:.4g}" for value in rows[3]]


def test_several_output_axes_and_large_kernels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "p.npy", np.full((2, 20, 6, 3), 1 / 720))
    arguments = ["lemma", "--joint", str(tmp_path / "p.npy"), "--past", "0"]
    assert main([*arguments, "--output", "3,2"]) == 0
    text = capsys.readouterr().out
    assert "input = nothing, output = axes 3, 2" in text
    assert "8 of 18 columns" in text
    assert main([*arguments, "--input", "1", "--output", "3"]) == 0
    assert "the first 16 of 20 rows, 3 of 3 columns" in capsys.readouterr().out


def test_infinite_sides_hold_and_are_valid_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "p.npy", np.array([[[0.5, 0.25]], [[0.25, 0.0]]]))
    np.save(tmp_path / "q.npy", np.array([[1.0, 0.0]]))
    out = tmp_path / "out.json"
    files = ["--joint", str(tmp_path / "p.npy"), "--kernel", str(tmp_path / "q.npy"), "--json", str(out)]
    assert main(["lemma", *AXES, *files]) == 0
    record = json.loads(out.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert record["cost"] == record["excess"] == "inf"
    assert record["gap"] == 0
    assert "inf nats" in capsys.readouterr().out


def test_inputs_of_probability_zero_are_pointed_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "p.npy", np.array([[[0.5, 0.0], [0.0, 0.0]], [[0.25, 0.25], [0.0, 0.0]]]))
    assert main(["lemma", "--joint", str(tmp_path / "p.npy"), *AXES]) == 0
    assert "theirs is uniform" in capsys.readouterr().out


def test_a_violation_is_exit_code_1(
    joint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*args: object) -> LemmaCheck[float, object]:
        check = check_lemma(*args)  # type: ignore[arg-type]
        return dataclasses.replace(check, gap=check.gap + 1e-9)

    monkeypatch.setattr(impossibility, "check_lemma", broken)
    assert main(["lemma", "--joint", str(joint), *AXES]) == 1
    assert "VIOLATED" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--past", "0", "--input", "0", "--output", "2"], "named twice"),
        (["--past", "0", "--input", "7", "--output", "2"], "--input takes axes of the joint law, 0 to 3"),
        (["--past", "x", "--input", "1", "--output", "2"], "got 'x'"),
        (["--past=-1", "--input", "1", "--output", "2"], "got '-1'"),
        (["--past", "0,", "--input", "1", "--output", "2"], "got ''"),
        (["--past", "", "--input", "1", "--output", "2"], "--past must name at least one axis"),
        ([*AXES, "--kernel", "KERNEL"], "the kernel must have shape (4, 5)"),
        ([*AXES, "--kernel", "absent.npy"], "No such file"),
        ([*AXES, "--json", "absent/out.json"], "absent for out.json does not exist"),
    ],
)
def test_bad_arguments_are_one_line_and_exit_2(
    arguments: list[str], message: str, joint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "k.npy", np.full((5, 4), 0.25))
    arguments = [str(tmp_path / "k.npy") if word == "KERNEL" else word for word in arguments]
    assert main(["lemma", "--joint", str(joint), *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("arvdm lemma: ")
    assert message in captured.err


def test_bad_files_are_one_line_and_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "p.npy"
    good = np.full((2, 2, 2), 1 / 8)

    def refused(message: str) -> None:
        assert main(["lemma", "--joint", str(path), *AXES]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert message in error

    path.write_text("0.5 0.5")
    refused("is not a .npy file")
    with path.open("wb") as file:
        np.savez(file, p=good)
    refused("is an archive of arrays")
    np.save(path, np.array([{"no": "pickles"}], dtype=object), allow_pickle=True)
    refused("a pickle, which is never opened")
    np.save(path, good)
    path.write_bytes(path.read_bytes()[:-8])
    refused("is cut short")
    np.save(path, good * 2)
    refused("their sum is 2 ")
    np.save(path, np.where(np.arange(8).reshape(2, 2, 2) == 3, math.nan, good))
    refused("NaN entry, nan at index (0, 1, 1)")


def test_help_does_not_import_torch() -> None:
    code = (
        "import sys; from arvdm_theory.cli import main\n"
        "try: main(['lemma', '--help'])\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "(*input sizes, *output sizes)" in " ".join(done.stdout.split())


def test_output_is_plain_ascii(joint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """So that it prints in any locale."""
    assert main(["lemma", "--joint", str(joint), *AXES]) == 0
    assert capsys.readouterr().out.replace(str(joint), "").isascii()


def test_rows_that_single_precision_rounded_are_told_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A softmax in float32, stored as float64, sums to 1 to seven digits; divided by its sum it is a kernel."""
    np.save(tmp_path / "p.npy", np.random.default_rng(0).dirichlet(np.ones(27)).reshape(3, 3, 3))
    scores = np.random.default_rng(1).normal(size=(3, 3)).astype(np.float32)
    rows = (np.exp(scores) / np.exp(scores).sum(1, keepdims=True)).astype(float)
    assert 1e-9 < np.abs(rows.sum(1) - 1).max() < 1e-6
    np.save(tmp_path / "q.npy", rows)
    words = ["lemma", "--joint", str(tmp_path / "p.npy"), *AXES, "--kernel", str(tmp_path / "q.npy")]
    assert main(words) == 2
    assert "a softmax in single precision is off by that: divide by the row sum" in capsys.readouterr().err
    np.save(tmp_path / "q.npy", rows / rows.sum(1, keepdims=True))
    assert main(words) == 0
