"""``arvdm context-noise``: its JSON, its words, its figure, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from arvdm_theory import References, context_noise, outpainting, reference_video
from arvdm_theory.cli import main

PLAN = "--references 2 --ar-steps 2 --reverse-steps 3 --init-steps 3 --levels 0,0.3".split()  # noqa: SIM905


@pytest.fixture
def covariance(tmp_path: Path) -> str:
    np.save(tmp_path / "cov.npy", reference_video().covariance(8)[0].numpy())
    return str(tmp_path / "cov.npy")


def test_the_json_holds_the_library_s_table(
    tmp_path: Path, covariance: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out, figure = tmp_path / "out.json", tmp_path / "front.png"
    words = ["--covariance", covariance, "--frame-dim", "2", *PLAN, "--json", str(out), "--figure", str(figure)]
    assert main(["context-noise", *words]) == 0
    found = json.loads(out.read_text())
    plan = outpainting(2, References.last(2), reverse_steps=3, init_steps=3)
    table = context_noise(reference_video(), plan, 2, (0.0, 0.3))
    assert found["criteria"] == ["kl", "drift", "mb"]
    assert found["exhaustive"]
    assert len(found["profiles"]) == len(table) == 4
    for row, own in zip(found["profiles"], table.to_dict(orient="records"), strict=True):
        assert row == pytest.approx(own, rel=1e-10)
    assert figure.stat().st_size > 0
    told = capsys.readouterr().out
    assert "all 4 profiles" in told
    assert "one level for all lags" in told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--levels 0,x", "numbers with commas between"),
        ("--levels=-1,0", "not negative"),
        ("--ar-steps 1", "a whole number from 2"),
        ("--criteria ssim", "criteria are some of"),
        ("--references 0", "the references must be the last m frames"),
        ("--most 1", "uniform profiles must be computed"),
        ("--ar-steps 9", "frames"),
    ],
)
def test_bad_input_is_one_line(
    words: str, told: str, tmp_path: Path, covariance: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(["context-noise", "--covariance", covariance, "--frame-dim", "2", *PLAN, *words.split(),
                     "--json", str(tmp_path / "out.json")])  # fmt: skip
    except SystemExit as error:
        code = int(error.code or 0)
    assert code == 2
    error = capsys.readouterr().err
    assert told in error
    assert len(error.splitlines()) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"cov.npy"}
