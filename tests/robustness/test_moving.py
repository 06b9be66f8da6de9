"""Run folders that are moved and copied go on where they are; what is in a checkpoint is the truth."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from arvdm_theory.cli import main
from arvdm_theory.data.cache import build_cache
from arvdm_theory.data.dataset import ClipDataset
from arvdm_theory.data.index import build_index
from arvdm_theory.data.teco import TecoDmlab
from arvdm_theory.training.checkpoint import checkpoints
from arvdm_theory.video.runs import VideoRun, load_run, run_store, train_run

SMOKE = VideoRun(preset="smoke", steps=20, device="cpu")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    train_run(SMOKE, folder, progress=False)
    return folder


def contents(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


@pytest.mark.parametrize("how", ["moved", "copied", "copied without its times"])
def test_a_run_goes_on_where_it_is_put(how: str, trained: Path, tmp_path: Path) -> None:
    """The whole folder; nothing is simulated or decoded again, and nothing appears where it was."""
    start = tmp_path / "start"
    shutil.copytree(trained, start)
    place = tmp_path / "elsewhere" / "run"
    place.parent.mkdir()
    if how == "moved":
        start.rename(place)
    else:
        shutil.copytree(start, place)
    if how == "copied without its times":
        for path in place.rglob("*"):
            os.utime(path, (0, 0))
    before = contents(place / "data")
    frames = (place / "data").rglob("frames.npy")
    stamps = {path: path.stat().st_mtime_ns for path in frames}
    assert main(["video", "sample", "--run", str(place), "--windows", "2", "--no-figures"]) == 0
    assert (place / "retrieval.csv").exists()
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert {name for name in contents(place / "data") - before if not name.startswith("decoded")} == set()
    assert start.exists() == (how != "moved")
    train_run(SMOKE, place, progress=False)  # goes on: it is finished
    assert (
        main(["video", "train", "--preset", "smoke", "--steps", "20", "--device", "cpu", "--out", str(place)]) == 0
    )


def test_a_cache_is_found_by_what_it_holds(dmlab: Path, tmp_path: Path) -> None:
    def dataset(root: Path) -> ClipDataset:
        return ClipDataset(build_index(root, TecoDmlab(), tmp_path / "cache", progress=False), "next", length=4)

    build_cache(dataset(dmlab), tmp_path / "cache", progress=False)
    stamp = (tmp_path / "cache" / "frames.npy").stat().st_mtime_ns
    other = tmp_path / "other"
    shutil.copytree(dmlab, other)
    for path in other.rglob("*.npz"):
        os.utime(path, (0, 0))
    clips = build_cache(dataset(other), tmp_path / "cache", progress=False)
    assert len(clips) == 15
    assert (tmp_path / "cache" / "frames.npy").stat().st_mtime_ns == stamp


def test_data_that_were_left_behind_are_named(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is simulated anew in their place, silently."""
    place = tmp_path / "run"
    shutil.copytree(trained, place, ignore=shutil.ignore_patterns("data"))
    assert main(["video", "sample", "--run", str(place)]) == 2
    assert f"its data are not at {place / 'data'}: move that folder along" in capsys.readouterr().err
    assert not (place / "data").exists()
    (place / "run.json").write_text(json.dumps({"run": SMOKE.to_json(), "store": str(tmp_path / "absolute")}))
    with pytest.raises(ValueError, match="not what a training run writes"):
        run_store(place)


def test_the_checkpoint_says_what_the_run_is(trained: Path, tmp_path: Path) -> None:
    place = tmp_path / "run"
    shutil.copytree(trained, place)
    told = json.loads((place / "run.json").read_text())
    assert told == {"run": told["run"], "store": "data"}
    told["run"] |= {"memory": "prepend", "architecture": "unet"}
    (place / "run.json").write_text(json.dumps(told))
    with pytest.warns(UserWarning, match=r"run\.json is not what was trained: run\.(memory|architecture)"):
        assert load_run(place) == SMOKE
    checkpoints(place / "training")[-1].unlink()
    for path in checkpoints(place / "training"):
        path.unlink()
    with pytest.raises(ValueError, match="there is no checkpoint"):
        load_run(place)


def test_two_sweeps_in_one_folder_at_once(tmp_path: Path) -> None:
    """Two networks each, at the same time, over the same data: both end, and the tables are those of one."""
    words = ["video", "sweep", "--preset", "smoke", "--steps", "8", "--memory", "none", "cross", "--device", "cpu",
             "--no-figures", "--rollouts", "--out"]  # fmt: skip
    program = [sys.executable, "-c", "import sys; from arvdm_theory.cli import main; sys.exit(main())", *words]
    both = [
        subprocess.Popen(
            [*program, str(tmp_path / "both")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    errors = [process.communicate(timeout=500)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    assert main([*words, str(tmp_path / "one")]) == 0
    tables = [(tmp_path / name / "video.csv").read_text().splitlines() for name in ("both", "one")]
    heads = [table[0].split(",") for table in tables]
    seconds = heads[0].index("seconds")

    def timeless(table: list[str]) -> list[list[str]]:
        return [[cell for place, cell in enumerate(line.split(",")) if place != seconds] for line in table]

    assert timeless(tables[0]) == timeless(tables[1])
    assert not list(tmp_path.rglob(".*"))
