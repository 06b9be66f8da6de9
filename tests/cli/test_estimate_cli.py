"""``arvdm estimate`` from files to a file, and what it says when it cannot."""

import argparse
import json
import re
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from arvdm_theory.cli import estimate as command
from arvdm_theory.cli import main
from arvdm_theory.information.estimators import Training, estimate_divergence, estimate_information, methods

pytestmark = pytest.mark.filterwarnings("error::arvdm_theory.information.estimators.EstimationWarning")


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    command.configure(parser)
    return command.run(parser.parse_args(list(words)))


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    rng = np.random.default_rng(0)
    y = rng.normal(size=(400, 1))
    arrays = {"x": y + rng.normal(size=(400, 1)), "z": y + rng.normal(size=(400, 1)), "y": y}
    names = {}
    for name, array in arrays.items():
        names[name] = str(tmp_path / f"{name}.npy")
        np.save(names[name], array)
    return names


def test_the_default_and_its_json(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    assert run("--x", files["x"], "--z", files["z"], "--y", files["y"], "--json", str(out)) == 0
    expected = estimate_information(*(np.load(files[name]) for name in "xzy"))
    content = json.loads(out.read_text())
    assert content == {
        "value": expected.value, "stderr": expected.stderr, "ci_low": expected.ci_low, "ci_high": expected.ci_high,
        "method": "calibrated", "n": 400, "k": 3, "warnings": [],
    }  # fmt: skip
    shown = capsys.readouterr()
    assert f"I(X; Z | Y) = {expected.value:.4f} ± {expected.stderr:.4f} nats" in shown.out
    assert shown.err == ""


@pytest.mark.parametrize("method", ["gaussian", "copula", "ksg1", "ksg2"])
def test_a_named_method(method: str, files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--x", files["x"], "--z", files["z"], "--method", method) == 0
    expected = estimate_information(np.load(files["x"]), np.load(files["z"]), method=method)
    assert f"I(X; Z) = {expected.value:.4f}" in capsys.readouterr().out


def test_warnings_are_told_and_written(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = np.load(files["x"])
    z = np.load(files["z"])
    x[:40], z[:40] = x[0], z[0]
    np.save(files["x"], x)
    np.save(files["z"], z)
    out = tmp_path / "out.json"
    assert run("--x", files["x"], "--z", files["z"], "--method", "ksg1", "--json", str(out)) == 0
    error = capsys.readouterr().err
    assert "arvdm estimate: warning: 10.0% of the samples coincide" in error
    assert "10.0%" in json.loads(out.read_text())["warnings"][0]


def test_autocorrelated_reaches_the_estimate(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--x", files["x"], "--z", files["z"], "--method", "gaussian", "--autocorrelated") == 0
    expected = estimate_information(
        np.load(files["x"]), np.load(files["z"]), method="gaussian", dependence="autocorrelated"
    )
    assert f"± {expected.stderr:.4f}" in capsys.readouterr().out


def test_bad_files_are_refused(files: dict[str, str], tmp_path: Path) -> None:
    short = tmp_path / "short.npy"
    np.save(short, np.arange(7.0))
    with pytest.raises(ValueError, match="x has 400, z has 7"):
        run("--x", files["x"], "--z", str(short))
    with pytest.raises(OSError, match="missing"):
        run("--x", str(tmp_path / "missing.npy"), "--z", files["z"])
    pickled = tmp_path / "pickled.npy"
    np.save(pickled, np.array([{}, {}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"not a readable \.npy file"):
        run("--x", str(pickled), "--z", files["z"])


@pytest.fixture
def laws(tmp_path: Path) -> tuple[str, str]:
    rng = np.random.default_rng(1)
    p, q = str(tmp_path / "p.npy"), str(tmp_path / "q.npy")
    np.save(p, rng.normal(size=(500, 1)))
    np.save(q, 0.3 + 1.2 * rng.normal(size=(300, 1)))
    return p, q


@pytest.mark.parametrize("method", [None, "gaussian", "knn"])
def test_a_divergence(
    method: str | None, laws: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    chosen = [] if method is None else ["--method", method]
    assert run("--p", laws[0], "--q", laws[1], "--json", str(out), "--seed", "5", *chosen) == 0
    expected = estimate_divergence(*map(np.load, laws), method=method, seed=5)
    assert json.loads(out.read_text()) == {
        "value": expected.value, "stderr": expected.stderr, "ci_low": expected.ci_low, "ci_high": expected.ci_high,
        "method": method or "calibrated", "n": 500, "k": None if method == "gaussian" else 3, "warnings": [],
    }  # fmt: skip
    shown = capsys.readouterr().out
    assert shown.startswith(f"KL(P || Q) = {expected.value:.4f} ± {expected.stderr:.4f} nats, 95 % interval [")
    first, seen, taken = shown.splitlines()
    assert first.endswith("n = 500, m = 300")
    assert seen == "  seen: continuous columns without repetitions"
    assert taken.startswith(f"  taken: {method or 'calibrated'}, ")


def test_a_neural_method_and_its_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = partial(methods.NEURAL_METHODS["nwj"], training=Training(hidden=(4,), epochs=2))
    monkeypatch.setitem(methods.NEURAL_METHODS, "nwj", quick)
    names = [str(tmp_path / "x.npy"), str(tmp_path / "z.npy")]
    arrays = np.random.default_rng(2).normal(size=(2, 48))
    for name, array in zip(names, arrays, strict=True):
        np.save(name, array)
    assert run("--x", names[0], "--z", names[1], "--method", "nwj", "--seed", "3") == 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = estimate_information(*arrays, method="nwj", seed=3)
    shown = capsys.readouterr()
    assert f"I(X; Z) = {expected.value:.4f} ± {expected.stderr:.4f} nats" in shown.out
    assert shown.out.splitlines()[0].endswith("neural-nwj, n = 48")
    assert "taken: nwj, as asked (calibrated suits" in shown.out
    assert "arvdm estimate: warning: 9 held-out samples a fold are few for a network" in shown.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("", "give --x and --z (and --y) for an information, or --p and --q for KL"),
        ("--x X --z X --p P", "or --p and --q for KL, not --x, --z, --p"),
        ("--p P", "--p needs --q too"),
        ("--q P", "--q needs --p too"),
        ("--y X", "--y needs --x and --z too"),
        (
            "--p P --q P --method ksg1",
            "--method ksg1 does not estimate KL(P || Q); there are calibrated, gaussian",
        ),
        ("--x X --z X --method knn", "--method knn does not estimate an information; there are calibrated"),
        ("--x X --z SHORT", "the same number in each: x has 40, z has 3"),
        ("--x X --z NAN", "z has NaN or infinite values in 1 of 40 rows (counted from 0: 7)"),
        ("--x X --z X --y ONES", "y is constant in column 0"),
        ("--p P --q ONES", "q is constant in column 0"),
        ("--p NAN --q P", "p has NaN or infinite values in 1 of 40 rows (counted from 0: 7)"),
        ("--p P --q WIDE", "P and Q must have the same dimension, got 1 and 2"),
        ("--p P --q SHORT", "p and q share 3 rows"),
        ("--x SHORT --z SHORT --method ksg1", "3 neighbours need at least 5 samples, got n = 3"),
        ("--x X --z MISSING", "No such file or directory"),
        ("--x X --z X --method magic", "invalid choice: 'magic'"),
        ("--p P --q P --seed -1", "a seed is a whole number from 0, got -1"),
        ("--p P --q P --seed one", "invalid"),
        ("--p P --q P --test", "it needs --x and --z"),
        ("--x X --z OTHER --method gaussian --test --permutations 0", "permutation"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    words: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = np.random.default_rng(3).normal(size=40)
    arrays = {
        "X": x, "P": x, "OTHER": np.roll(x, 1), "SHORT": x[:3],
        "ONES": np.ones(40), "WIDE": np.column_stack([x, x**2]),
        "NAN": np.where(np.arange(40) == 7, np.nan, x),
    }  # fmt: skip
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    given = [str(tmp_path / f"{word}.npy") if word.isupper() else word for word in words.split()]
    try:
        code = main(["estimate", *given])
    except SystemExit as stop:  # argparse's own way out
        code = stop.code
    assert code == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert told in shown.err
    assert shown.err.startswith("arvdm estimate: ")
    assert shown.err.count("\n") == 1


def test_help_names_every_method_and_loads_no_torch() -> None:
    script = "import sys; from arvdm_theory.cli import main\ntry: main(['estimate', '--help'])\n"
    script += "except SystemExit: pass\nassert not {'torch', 'numpy', 'scipy'} & set(sys.modules)"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    for name in {*command.METHODS, *command.NEURAL_METHODS, *command.DIVERGENCES}:
        assert re.search(rf"^  (ksg1, )?{name}\b", shown, re.MULTILINE), name
    assert "not what\n  the critic has missed" in shown


def test_the_commands_methods_are_the_librarys() -> None:
    for name in ("METHODS", "NEURAL_METHODS", "DIVERGENCES", "NEURAL_DIVERGENCES"):
        assert tuple(getattr(methods, name)) == getattr(command, name)


@pytest.mark.parametrize("given", [False, True])
def test_the_test_goes_with_the_estimate(given: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """X and Z share Y alone: dependent, and independent given Y."""
    rng = np.random.default_rng(5)
    y = rng.normal(size=300)
    for name, array in (("x", y + rng.normal(size=300)), ("z", y + rng.normal(size=300)), ("y", y)):
        np.save(tmp_path / f"{name}.npy", array)
    words = [
        "estimate",
        *(f for n in ("x", "z", "y")[: 2 + given] for f in (f"--{n}", str(tmp_path / f"{n}.npy"))),
    ]
    told = tmp_path / "out.json"
    assert main([*words, "--method", "gaussian", "--test", "--permutations", "49", "--json", str(told)]) == 0
    result = json.loads(told.read_text())["test"]
    assert (result["p_value"] > 0.02) == given  # 0.02 is the least that 49 permutations can show
    assert result["permutations"] == 49
    assert f"p = {result['p_value']:.4f}" in capsys.readouterr().out
