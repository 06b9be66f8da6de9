"""``arvdm estimate`` from files to a file, and what it says when it cannot."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from arvdm_theory.cli import estimate as command
from arvdm_theory.information.methods import METHODS, estimate_information

pytestmark = pytest.mark.filterwarnings("error::arvdm_theory.information.estimate.EstimationWarning")


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


def test_the_commands_methods_are_the_librarys() -> None:
    assert tuple(METHODS) == command.METHODS
