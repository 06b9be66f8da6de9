"""``arvdm memory``: its JSON, its words, its figure, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from arvdm_theory import References, memory_bottleneck, outpainting, reference_video
from arvdm_theory.choose.memory import MemoryChoice, frame_frontier
from arvdm_theory.cli import main


@pytest.fixture
def covariance(tmp_path: Path) -> str:
    np.save(tmp_path / "cov.npy", reference_video().covariance(8)[0].numpy())
    return str(tmp_path / "cov.npy")


PLAN = ["--references", "2", "--ar-step", "3", "--frames", "2", "--nats", "1"]


def test_the_json_holds_both_frontiers(
    tmp_path: Path, covariance: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out, figure = tmp_path / "out.json", tmp_path / "memory.png"
    words = ["--covariance", covariance, "--frame-dim", "2", *PLAN, "--json", str(out), "--figure", str(figure)]
    assert main(["memory", *words]) == 0
    found = json.loads(out.read_text())
    plan = outpainting(2, References.last(2))
    choice = MemoryChoice.of(reference_video(), plan, 3)
    assert found["nothing_held"] == pytest.approx(choice.total, rel=1e-10)
    assert found["own_references"] == pytest.approx(float(memory_bottleneck(reference_video(), plan, 3)), rel=1e-9)
    table = frame_frontier(choice, 2).to_dict(orient="records")
    assert [row["mb"] for row in found["frames"]] == pytest.approx([row["mb"] for row in table], abs=1e-10)
    assert [row["lags"] for row in found["frames"]] == [row["lags"] for row in table]
    assert found["nats"][0]["floor"] <= found["nats"][0]["mb"]
    assert [row["lag"] for row in found["lags"]] == list(range(1, 7))
    assert figure.stat().st_size > 0
    told = capsys.readouterr().out
    assert "bottleneck left by frames held" in told
    assert "bottleneck left by nats held" in told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--nats 0", "positive numbers"),
        ("--nats x", "positive numbers"),
        ("--frames 7", "there are 6 to choose among"),
        ("--ar-step 9", "frames"),
        ("--method fifo --window 3 --ar-step 1", "no frame is out"),
    ],
)
def test_bad_input_is_one_line(
    words: str, told: str, tmp_path: Path, covariance: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["memory", "--covariance", covariance, "--frame-dim", "2", *PLAN, *words.split(), "--json",
                 str(tmp_path / "out.json")])  # fmt: skip
    assert code == 2
    error = capsys.readouterr().err
    assert told in error
    assert len(error.splitlines()) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"cov.npy"}
