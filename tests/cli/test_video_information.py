"""``arvdm video sample --rollout`` and ``arvdm video information`` on trained runs."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from arvdm_theory.cli import main
from arvdm_theory.data.clips import read_frames
from arvdm_theory.video.rollouts import PROXIES

pytest.importorskip("labmaze", reason="labmaze is not installed (there is none for Python 3.13)")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three trained networks; the last has a longer memory than the layout of the others has room for."""
    folder, found = tmp_path_factory.mktemp("runs"), {}
    for name, words in (
        ("none", ["--memory", "none"]),
        ("cross", ["--memory", "cross"]),
        ("longer", ["--memory", "cross", "--memory-frames", "14"]),
    ):
        found[name] = folder / name
        train = ["video", "train", "--preset", "smoke", "--device", "cpu", "--out", str(found[name])]
        assert main([*train, *words]) == 0
    return found


def test_a_rollout_is_sampled_scored_and_shown(
    runs: dict[str, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "rollout"
    assert (
        main(["video", "sample", "--run", str(runs["cross"]), "--rollout", "--windows", "2", "--out", str(out)])
        == 0
    )
    assert "2 windows, frames from 12 on generated" in capsys.readouterr().out
    table = pd.read_csv(out / "decay.csv")
    own = table[table["source"] == "generated"]
    assert own["ahead"].tolist() == list(range(1, 9))
    assert own[[f"predicted_{proxy}" for proxy in PROXIES]].notna().all(axis=None)
    clips = sorted((out / "generated").iterdir())
    made, true = [], []
    for clip in clips:
        made.append(read_frames(clip)[12:].astype(float))
        true.append(read_frames(out / "truth" / clip.name)[12:].astype(float))
    error = (np.array(made) - np.array(true)) ** 2
    # The table's curve is that of the clips that were written.
    np.testing.assert_allclose(own["psnr"], 10 * np.log10(255**2 / error.mean((0, 2, 3, 4))), rtol=1e-9)
    assert read_frames(out / "figures" / "grid.mp4").shape[0] == 20


def test_information_beside_a_twin_without_memory(
    runs: dict[str, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ["video", "information", "--run", str(runs["cross"]), "--without", str(runs["none"]), "--windows", "6"]
    report = tmp_path / "nats.json"
    assert main([*words, "--stop", "0.5", "--json", str(report)]) == 0
    found = json.loads(report.read_text())
    assert found["nats"] == pytest.approx(4 * found["nats_a_frame"])
    assert found["low"] < found["nats"] < found["high"]
    assert (found["frames"], found["stop"], found["windows"]) == (4, 0.5, 6)
    assert "nats a frame" in capsys.readouterr().out


def test_networks_that_are_no_twins_are_refused(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    for own, other, message in (
        ("none", "cross", "must show all that the other shows"),
        ("cross", "cross", "both plans show the same references"),
        ("longer", "none", "given as many frames, not 16 and 12"),
    ):
        assert main(["video", "information", "--run", str(runs[own]), "--without", str(runs[other])]) == 2
        (error,) = [line for line in capsys.readouterr().err.splitlines() if "arvdm" in line]
        assert message in error
    one = ["video", "information", "--run", str(runs["cross"]), "--without", str(runs["none"]), "--windows", "1"]
    assert main(one) == 2
    assert "--windows is at least 2, got 1" in capsys.readouterr().err
