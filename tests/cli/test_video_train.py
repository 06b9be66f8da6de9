"""``arvdm video train``, ``sample`` and ``evaluate`` one after another, and what they say when they cannot."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from arvdm_theory.cli import main
from arvdm_theory.training import loop

pytest.importorskip("labmaze", reason="labmaze is not installed (there is none for Python 3.13)")

SMOKE = ["video", "train", "--preset", "smoke", "--device", "cpu"]


def test_from_a_simulator_to_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main([*SMOKE, "--memory", "prepend", "--compress", "4", "--seed", "3", "--out", str(run)]) == 0
    assert "6 updates" in capsys.readouterr().out
    told = json.loads((run / "run.json").read_text())["run"]
    assert (told["memory"], told["compress"], told["seed"]) == ("prepend", 4, 3)
    assert (run / "training" / "history.csv").exists()

    assert main(["video", "sample", "--run", str(run), "--windows", "2"]) == 0
    shown = capsys.readouterr().out
    assert "copy of the right memory frame" in shown
    assert "2 windows, frames from 12 on generated" in shown
    summary = pd.read_csv(run / "retrieval.csv").set_index("source")
    queries = pd.read_csv(run / "queries.csv")
    own = queries[queries["source"] == "generated"]
    rate = own.loc[own["complete"], "success"].mean()
    assert summary.loc["generated", "rate"] == pytest.approx(rate, rel=1e-14)  # sums in another order
    assert summary.loc["copy of the right memory frame", "rate"] == 1.0
    assert (run / "figures" / "film-strips.png").stat().st_size > 0

    report = tmp_path / "report.json"
    folders = ["--truth", str(run / "truth"), "--generated", str(run / "generated")]
    assert main(["video", "evaluate", *folders, "--first-predicted-frame", "12", "--json", str(report)]) == 0
    clips = json.loads(report.read_text())["clips"]
    assert [clip["frames"] for clip in clips] == [4, 4]
    # The same frames as above, scored by way of the files: those that are queries are a part of them.
    with np.load(run / "truth" / clips[0]["truth"], allow_pickle=False) as clip:
        first = clip["needles"][:, 1] - 12
    assert len(first) >= 3
    if len(first) == 4:
        episode = own[own["episode"] == own["episode"].iloc[0]]
        assert clips[0]["psnr"] == pytest.approx(episode["psnr"].mean())


def test_an_interrupted_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, save = tmp_path / "run", loop._Run._save

    def interrupted(self: loop._Run) -> None:
        save(self)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop._Run, "_save", interrupted)
        assert main([*SMOKE, "--out", str(run)]) == 130
    assert main([*SMOKE, "--out", str(run)]) == 0
    capsys.readouterr()
    assert main([*SMOKE, "--memory", "concat", "--out", str(run)]) == 2
    assert "belongs to another run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--folder", "nowhere"], "nowhere: no such folder"),
        (["--size", "18"], "patch 4 does not divide frames of shape (18, 18, 3)"),
        (["--compress", "3"], "square number"),
        (["--memory", "none", "--compress", "4"], "no memory to compress"),
        (["--memory-frames", "0"], "memory_frames is at least 1"),
        (["--memory-frames", "60"], "windows of 135 frames are needed, but simulated episodes have 80"),
    ],
)
def test_what_cannot_be_is_one_line(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SMOKE, *words, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("arvdm video: ")
    assert message in error
    assert not (tmp_path / "run" / "training").exists()


def test_a_size_that_does_not_divide_the_files_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "set"
    make = ["simulate", "dmlab", "--size", "32", "--frames", "40", "--trajectory", "turn", "--episodes", "2"]
    assert main([*make, "--out", str(folder)]) == 0
    assert main([*SMOKE, "--folder", str(folder), "--size", "24", "--out", str(tmp_path / "run")]) == 2
    assert "32x32 pixels cannot be divided into 24x24" in capsys.readouterr().err.splitlines()[-1]
