"""What ``arvdm`` says of itself, and how it speaks: help, versions, loudness, JSON on stdout, tables."""

import io
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import arvdm_theory
from arvdm_theory.cli import COMMANDS, main, module_of
from arvdm_theory.cli.tables import show_table
from arvdm_theory.cli.video import SUBCOMMANDS
from arvdm_theory.experiments import EXPERIMENTS

ALL = [name for name in COMMANDS if name != "video"] + [f"video {name}" for name in SUBCOMMANDS]
EXAMPLES = [line for name in ALL for line in getattr(module_of(name), "EXAMPLES", ())]
# The others take longer than a test may: they are run by hand and in the slow checks.
QUICK = ("ledger", "fit", "plans", "lemma", "estimate", "simulate", "experiment --list", "claims --list",
         "video evaluate")  # fmt: skip


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("place")
    assert main(["demo", str(place / "demo")]) == 0
    return place


def test_without_words_it_shows_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {name} " in shown for name in COMMANDS)
    assert "examples:" in shown
    assert main(["video"]) == 0
    assert all(f"\n    {name} " in capsys.readouterr().out for name in ("train",))


def test_the_module_and_the_version() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "arvdm_theory", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"arvdm {arvdm_theory.__version__}\n"


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from arvdm_theory.cli import COMMANDS, main, module_of\n"
        "for name in COMMANDS:\n"
        "    try: main([name, '--help'])\n"
        "    except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'pandas', 'scipy', 'matplotlib', 'rich', 'tqdm'} & set(sys.modules)\n"
        "print('heavy:', *sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy:"


def test_a_line_for_every_experiment(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["experiment", "--help"])
    shown = capsys.readouterr().out.splitlines()
    assert all(sum(line.startswith(f"  {name} ") for line in shown) == 1 for name in EXPERIMENTS)


@pytest.mark.parametrize("line", EXAMPLES)
def test_an_example_is_understood(line: str) -> None:
    from arvdm_theory.cli import _parser

    words = shlex.split(line)
    assert words[0] == "arvdm"
    assert words[1] in COMMANDS
    _parser(words[1]).parse_args(words[1:])


def test_examples_run_on_the_demo(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(demo)
    tried = [line for line in EXAMPLES if line.removeprefix("arvdm ").startswith(QUICK) and "--test" not in line]
    assert len(tried) > 10
    for line in tried:
        assert main(shlex.split(line)[1:]) == 0, line


def test_json_on_stdout(demo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(demo)
    lemma = ["lemma", "--joint", "demo/joint.npy", "--past", "0", "--output", "2", "--json", "-"]
    for words in (["estimate", "--p", "demo/p.npy", "--q", "demo/q.npy", "--json", "-"], lemma):
        assert main(words) == 0
        shown = capsys.readouterr()
        assert isinstance(json.loads(shown.out), dict)
        assert shown.err  # the words
        assert main([*words, "-q"]) == 0
        quiet = capsys.readouterr()
        assert (quiet.out, quiet.err) == (shown.out, "")
    assert not Path("-").exists()
    assert main([*lemma, "--past", "7"]) == 2
    assert capsys.readouterr().out == ""


def test_quiet_and_verbose(
    demo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(demo)
    words = ["ledger", "--covariance", "demo/covariance.npy", "--frame-dim", "2", "--ar-steps", "1"]
    assert main([*words, "-q"]) == 0
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "")
    assert main([*words, "-v"]) == 0
    shown = capsys.readouterr()
    assert "torch" in shown.err.splitlines()[0]
    assert "MiB" in shown.err.splitlines()[-1]
    assert main(["ledger", "--covariance", "nowhere.npy", "--frame-dim", "2", "-q"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    for loud in ([], ["-v"]):
        import warnings

        from arvdm_theory.cli import _one_line_warnings

        with warnings.catch_warnings(), _one_line_warnings("arvdm x", loud):
            warnings.simplefilter("always")
            warnings.warn("a thing", stacklevel=1)
        assert ("test_help.py, line" in capsys.readouterr().err) == bool(loud)


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("width", [40, 200])
def test_tables_keep_their_digits(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether piped, on a wide terminal or on one that is too narrow for the columns."""
    table = pd.DataFrame({"name": ["a", "b"], **{f"number {n}": [n / 7, np.nan] for n in range(1, 8)}})
    show_table(table)
    piped = capsys.readouterr().out
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("NO_COLOR", "1")
    show_table(table)
    monkeypatch.undo()
    shown = re.sub("\x1b\\[[0-9;]*m", "", terminal.getvalue())
    for text in (piped, shown):
        assert all(f"{n / 7:.6g}" in text for n in range(1, 8))
        assert "…" not in text
    assert max(map(len, shown.splitlines())) <= width


def test_the_samples_hold_what_is_said_of_them(demo: Path) -> None:
    """Of X, Z, Y: ½ log(4/3), and 0.0141 nats given Y; of P and Q: 1/8. Gaussian plug-in, within 5 / √n."""
    x, y, z, p, q = (np.load(demo / "demo" / f"{name}.npy") for name in "xyzpq")

    def information(part: np.ndarray) -> float:
        return float(-0.5 * np.log1p(-(np.corrcoef(part)[0, 1] ** 2)))

    left = [side - np.polyval(np.polyfit(y, side, 1), y) for side in (x, z)]
    assert abs(information(np.stack([x, z])) - 0.5 * np.log(4 / 3)) < 5 * 0.5 / len(x) ** 0.5
    assert abs(information(np.stack(left)) - 0.0141) < 5 * 0.17 / len(x) ** 0.5
    ratio = p.var() / q.var()
    kl = 0.5 * (ratio - 1 - np.log(ratio) + (p.mean() - q.mean()) ** 2 / q.var())
    assert abs(kl - 1 / 8) < 5 * 0.5 * (2 / len(p)) ** 0.5
