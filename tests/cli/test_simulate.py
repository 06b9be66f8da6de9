"""``arvdm simulate`` from a command line to files, and what it says when it cannot."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from arvdm_theory.cli import main
from arvdm_theory.video.simulators import dmlab

pytest.importorskip("labmaze", reason="labmaze is not installed (there is none for Python 3.13)")

SMALL = ["simulate", "dmlab", "--size", "8", "--frames", "24", "--context", "4", "--trajectory", "turn"]


def test_a_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "set"
    assert main([*SMALL, "--episodes", "2", "--seed", "3", "--out", str(out)]) == 0
    assert "2 training and 1 test episodes of the DMLab stand-in" in capsys.readouterr().out
    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.npz"))
    assert files == ["test/0000/000000.npz", "train/0000/000000.npz", "train/0000/000001.npz"]
    with np.load(out / files[1], allow_pickle=False) as episode:
        assert episode["video"].shape == (24, 8, 8, 3)
        assert episode["actions"].shape == (24,)
        assert episode["poses"].shape == (24, 3)
        assert int(episode["context"]) == 4
        seen, queried = episode["needles"].T
        assert len(seen) > 0
        np.testing.assert_array_equal(episode["video"][seen], episode["video"][queried])
        meta = json.loads(str(episode["meta"]))
    assert meta["simulator"] == "DMLab stand-in"
    assert meta["trajectory"]["kind"] == "turn"


def test_run_again_it_makes_only_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [*SMALL, "--episodes", "2", "--test-episodes", "0", "--out", str(tmp_path)]
    assert main(command) == 0
    first, second = (tmp_path / "train" / "0000" / f"00000{i}.npz" for i in (0, 1))
    kept, content = first.stat().st_mtime_ns, second.read_bytes()
    second.unlink()
    assert main(command) == 0
    assert first.stat().st_mtime_ns == kept
    assert second.read_bytes() == content
    capsys.readouterr()
    assert main([*command, "--seed", "1"]) == 2
    assert "holds another data set, which differs in seed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "0"], "8 to 512 pixels"),
        (["--frames", "1"], "at least 2 frames"),
        (["--context", "60"], "no needle fits"),
        (["--episodes", "0", "--test-episodes", "0"], "at least one episode"),
        (["--workers", "-1"], "at least one episode"),
    ],
)
def test_what_cannot_be(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SMALL, "--out", str(tmp_path / "set"), *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "set").exists()


def test_a_seed_is_not_negative(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([*SMALL, "--out", str(tmp_path / "set"), "--seed", "-1"])
    assert "--seed: a seed is a whole number from 0, got -1" in capsys.readouterr().err


def test_minecraft_as_video_and_actions(tmp_path: Path) -> None:
    options = ["--size", "16", "--frames", "24", "--context", "4", "--trajectory", "turn", "--episodes", "1"]
    assert main(["simulate", "minecraft", *options, "--test-episodes", "0", "--out", str(tmp_path)]) == 0
    assert sorted(path.name for path in (tmp_path / "train" / "0000").iterdir()) == ["000000.mp4", "000000.npz"]


def test_without_labmaze_it_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "labmaze", None)
    assert main([*SMALL, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "needs the package labmaze" in error
    assert error.count("\n") == 1


def test_an_interrupt_between_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    save = np.savez_compressed

    def interrupted(file: Path, **arrays: NDArray[Any]) -> None:
        save(file, **arrays)
        if len(list(tmp_path.rglob("[0-9]*.npz"))) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez_compressed", interrupted)
    assert main([*SMALL, "--episodes", "3", "--out", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "arvdm simulate: interrupted\n"
    assert [path.name for path in tmp_path.rglob("*.npz")] == ["000000.npz"]


def test_an_interrupt_to_a_program_with_workers(tmp_path: Path) -> None:
    """To the whole group of processes, as Ctrl-C does it."""
    command = [*SMALL, "--episodes", "1000", "--out", str(tmp_path), "--workers", "2"]
    program = f"import sys; from arvdm_theory.cli import main; sys.exit(main({command!r}))"
    process = subprocess.Popen(
        [sys.executable, "-c", program], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        start_new_session=True, cwd=Path(dmlab.__file__).parents[3],
    )  # fmt: skip
    try:
        limit = time.monotonic() + 120
        while len(list(tmp_path.rglob("[0-9]*.npz"))) < 1:
            assert process.poll() is None
            assert time.monotonic() < limit
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert error == "arvdm simulate: interrupted\n"
    for file in tmp_path.rglob("*.npz"):
        assert not file.name.startswith(".")
        with np.load(file, allow_pickle=False) as episode:
            assert len(episode["video"]) == len(episode["actions"]) == 24
