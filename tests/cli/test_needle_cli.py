"""``arvdm needle`` end to end: table, picture, JSON and one-line errors."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.image import imread

from arvdm_theory import GridVideo, References, outpainting
from arvdm_theory.cli import main
from arvdm_theory.experiments.retrieval.run import NeedleConfig, run_needle
from arvdm_theory.laws.gridworld.retrieval import expected_retrieval, retrieval_along
from arvdm_theory.laws.gridworld.view import View
from arvdm_theory.laws.gridworld.world import maze, ring, torus, tour


def needle(tmp_path, *options):
    """Runs the command in a folder and returns the exit code and the JSON."""
    path = tmp_path / "out.json"
    code = main(["needle", "--json", str(path), "--out", str(tmp_path / "figures"), *options])
    return code, json.loads(path.read_text()) if path.exists() else None


def test_random_walk_on_a_ring(tmp_path, capsys):
    code, result = needle(
        tmp_path, "--cells", "7", "--frames", "30", "--references", "8,0,2", "--walks", "400", "--seed", "3"
    )
    assert code == 0
    assert result["seed"] == result["config"]["seed"] == 3
    assert result["config"]["memory"] == [8, 0, 2]
    exact = expected_retrieval(GridVideo(ring(7)), range(9), 29)
    assert [row["memory"] for row in result["rows"]] == [0, 2, 8]
    for row in result["rows"]:
        truth = exact[row["memory"]]
        assert row["mb_total"] == truth.total
        assert row["mb_per_step"] == truth.total / 29
        assert row["frame_rate"] == truth.frame_rate
        assert row["cell_rate"] == truth.needle_rate
        assert row["frame_rate_low"] <= row["frame_rate"] <= row["frame_rate_high"] + 1e-12
        for name in ("mb_per_step", "frame_rate", "cell_rate"):
            assert abs(row[f"played_{name}"] - row[name]) < 5 * row[f"played_{name}_error"]
    assert result["curve"]["memory"] == list(range(9))
    assert result["curve"]["mb_total"] == [retrieval.total for retrieval in exact]

    lines = capsys.readouterr().out.splitlines()
    numbers = [line.split() for line in lines if line.split() and line.split()[0] in ("0", "2", "8")]
    assert [int(row[0]) for row in numbers] == [0, 2, 8]
    for row in numbers:
        assert float(row[1]) == pytest.approx(exact[int(row[0])].total, abs=5.1e-7)
        assert float(row[3]) == pytest.approx(exact[int(row[0])].frame_rate, abs=5.1e-7)


def test_the_picture_shows_something(tmp_path):
    needle(tmp_path, "--world", "maze", "--cells", "9", "--frames", "20", "--view", "firstperson",
           "--references", "0,3", "--walks", "50")  # fmt: skip
    picture = imread(tmp_path / "figures" / "needle.png")[..., :3]
    assert picture.shape[0] > 500
    assert picture.shape[1] > 1000
    # The strip of frames, the line and the band in their colours on a white page.
    assert 0.4 < np.mean((picture > 0.99).all(-1)) < 0.95
    for colour in ("D55E00", "009E73", "CC79A7"):
        rgb = np.array([int(colour[i : i + 2], 16) for i in (0, 2, 4)]) / 255
        assert np.sum(np.abs(picture - rgb).max(-1) < 0.02) > 200, colour
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == ["needle.png"]


def test_given_path_and_windows(tmp_path):
    code, result = needle(tmp_path, "--world", "torus", "--cells", "12", "--path", "given", "--frames", "40",
                          "--window", "4", "--view", "topdown", "--references", "4,12",
                          "--walks", "0")  # fmt: skip
    assert code == 0
    video, path = GridVideo(torus(3, 4), View("topdown")), tour(torus(3, 4), 40)
    for row in result["rows"]:
        truth = retrieval_along(video, outpainting(4, References.last(row["memory"])), path, 9)
        assert row["mb_total"] == truth.total
        assert row["frame_rate"] == truth.frame_rate
    assert not any(name.startswith("played") for row in result["rows"] for name in row)


def test_the_same_seed_gives_the_same_result(tmp_path):
    options = ("--world", "maze", "--cells", "8", "--frames", "12", "--references", "0,1,5", "--walks", "30")
    runs = []
    for name, seed in (("a", "4"), ("b", "4"), ("c", "5")):
        (tmp_path / name).mkdir()
        runs.append(needle(tmp_path / name, *options, "--seed", seed)[1])
    assert runs[0] == runs[1]
    assert runs[0]["rows"] != runs[2]["rows"]


def test_what_is_not_defined_is_null_and_said(tmp_path, capsys):
    _, result = needle(
        tmp_path, "--cells", "9", "--frames", "6", "--path", "given", "--references", "0", "--walks", "2"
    )
    (row,) = result["rows"]
    assert row["mb_total"] == 0
    assert row["frame_rate"] is row["cell_rate"] is row["played_frame_rate"] is None
    assert result["notes"] == {"frame_rate": "no frame is a revisit", "cell_rate": "no cell is seen again"}
    assert "no frame is a revisit" in capsys.readouterr().out


def test_frames_of_too_many_cells_leave_the_cell_rate_and_the_games(tmp_path):
    code, result = needle(tmp_path, "--world", "torus", "--cells", "36", "--frames", "20", "--view", "firstperson",
                          "--size", "32", "--references", "2", "--walks", "40")  # fmt: skip
    assert code == 0
    (row,) = result["rows"]
    assert row["frame_rate"] is None
    assert 0 < row["cell_rate"] < 1
    assert 0 < row["played_frame_rate"] < 1
    assert "cells need" in result["notes"]["frame_rate"]


def test_worlds_are_as_square_as_they_can_be():
    assert NeedleConfig(world="torus", cells=12).map() == torus(3, 4)
    assert NeedleConfig(world="maze", cells=16, seed=2).map() == maze(4, 4, 2)


def test_a_played_row_does_not_depend_on_the_others():
    few, many = (
        run_needle(NeedleConfig(cells=5, frames=10, memory=memory, walks=20)) for memory in ((3,), (0, 1, 3))
    )
    assert few.asked.iloc[-1].to_dict() == many.asked.iloc[-1].to_dict()
    assert math.isnan(many.table.loc[2, "played_cell_rate"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cells", "2"], "at least 3 cells"),
        (["--world", "torus", "--cells", "13"], "at least 2 rows and 2 columns, like 12 or 36; got 13"),
        (["--world", "maze", "--cells", "0"], "like 12 or 36; got 0"),
        (["--colours", "1"], "at least 2 colours"),
        (["--frames", "1"], "two whole windows of 1, got 1"),
        (["--frames", "10", "--window", "4"], "two whole windows of 4, got 10"),
        (["--window", "0"], "two whole windows"),
        (["--references", "0,-1"], "not negative, got [0, -1]"),
        (["--references", "1,1"], "different"),
        (["--walks", "1"], "at least 2 walks"),
        (["--stay", "1"], "[0, 1)"),
        (["--view", "topdown", "--size", "2"], "at least 3 pixels"),
        (["--json", "/nowhere/at/all.json", "--walks", "0"], "does not exist"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(options, message, tmp_path, capsys):
    assert main(["needle", "--out", str(tmp_path / "figures"), *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("arvdm needle: ")
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "figures").exists()


@pytest.mark.parametrize(
    "options", [["--references", "1,x"], ["--references", ""], ["--world", "sphere"], ["--cells", "few"]]
)
def test_bad_words_are_one_line_and_exit_2(options, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["needle", *options])
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_help_does_not_import_torch():
    code = (
        "import sys\nfrom arvdm_theory.cli import main\n"
        "try:\n    main(['needle', '--help'])\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('torch', 'numpy', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--references" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
