"""What ``main`` does for every command: errors in one line, signals, pipes that close, terminals without UTF-8."""

import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

import arvdm_theory.cli.plans as plans
from arvdm_theory.cli import _one_line_warnings, _spelt, main
from arvdm_theory.information.estimators.result import EstimationWarning
from arvdm_theory.signals import Terminated

PROGRAM = [sys.executable, "-c", "import sys; from arvdm_theory.cli import main; sys.exit(main())"]


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ValueError("two\n lines  and spaces"), 2, "arvdm plans: two lines and spaces"),
        (FileNotFoundError(2, "No such file or directory", "x.npy"), 2, "x.npy: No such file or directory"),
        (MemoryError(), 2, "there is not enough memory for this"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
            2,
            "there is not enough memory",
        ),
        (KeyError("store"), 3, "a fault of the program (KeyError: 'store'); --debug shows where"),
        (RecursionError("deep"), 3, "a fault of the program (RecursionError: deep)"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (Terminated(), 143, "told to end (SIGTERM)"),
    ],
)
def test_an_error_is_one_line_and_its_code(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(args: object) -> int:
        raise error

    monkeypatch.setattr(plans, "run", fails)
    assert main(["plans"]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert line in shown.err
    for words in (["plans", "--debug"], ["--debug", "plans"]):
        assert main(words) == code
        shown = capsys.readouterr()
        assert "Traceback" in shown.err
        assert line in shown.err.splitlines()[-1]


def test_a_size_beyond_the_limits_is_refused_and_force_goes_past_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import arvdm_theory.limits as limits

    np.save(tmp_path / "c.npy", 0.5 ** np.abs(np.arange(8)[:, None] - np.arange(8)))
    words = ["ledger", "--covariance", str(tmp_path / "c.npy"), "--frame-dim", "1", "--ar-steps", "2"]
    assert main(words) == 0
    monkeypatch.setattr(limits, "HOURS", 1e-12)
    capsys.readouterr()
    assert main(words) == 2
    assert "hours, and the limit is 1e-12 hours" in capsys.readouterr().err
    assert main([*words, "--force"]) == 0


def test_a_reader_that_stops_reading_is_no_error() -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([*PROGRAM, "plans"], env=environment, **pipes)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait() == 141


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_terminals_without_utf_8_are_written_to(encoding: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run([*PROGRAM, "plans"], capture_output=True, env=environment, check=True)
    assert done.stderr == b""
    text = done.stdout.decode(encoding)
    assert "monotonicity ok" in text
    assert "?" not in text
    widths = {len(line) for line in text.splitlines() if line.startswith(("method ", "-----"))}
    assert len(widths) >= 1


def test_sigterm_ends_a_command_with_its_code_and_nothing_left_behind(tmp_path: Path) -> None:
    """While episodes are made by two processes."""
    words = ["simulate", "dmlab", "--episodes", "4000", "--frames", "60", "--workers", "2", "--out"]
    program = "import sys\nfrom arvdm_theory.cli import main\nif __name__ == '__main__': sys.exit(main())\n"
    (tmp_path / "program.py").write_text(program)
    command = [sys.executable, str(tmp_path / "program.py"), *words, str(tmp_path / "set")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    patience = time.monotonic() + 120
    while not list(tmp_path.rglob("*.npz")) and process.poll() is None and time.monotonic() < patience:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 143, error
    assert error == "arvdm simulate: told to end (SIGTERM)\n"  # and no bar: it is no terminal
    assert not list((tmp_path / "set").rglob(".*"))


def test_bars_are_drawn_on_terminals_alone(tmp_path: Path) -> None:
    words = ["simulate", "dmlab", "--episodes", "3", "--frames", "30", "--context", "4", "--out"]
    done = subprocess.run([*PROGRAM, *words, str(tmp_path / "set")], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_every_command_knows_force_and_debug(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["ledger"], ["video", "train"], ["video", "sweep"]):
        with pytest.raises(SystemExit, match="0"):
            main([*words, "--help"])
        shown = capsys.readouterr().out
        assert "--force" in shown
        assert "--debug" in shown
    assert main(["video", "sample", "--run", "nowhere", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_warning_is_one_line_whatever_its_kind(capsys: pytest.CaptureFixture[str]) -> None:
    with _one_line_warnings("arvdm estimate"):
        warnings.warn("too\n few", EstimationWarning, stacklevel=1)
    assert capsys.readouterr().err == "arvdm estimate: warning: too few\n"


def test_what_a_terminal_without_it_is_shown_in_place_of_a_letter() -> None:
    spelt = "".join(map(_spelt, "σ̂² √Δ λ ½ Ωᵀ ö ᾱ ⊗ x₁ ±"))
    assert spelt == "s^2 sqrt D lambda 1/2 OmegaT o a ? x1 +-"
