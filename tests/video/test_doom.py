"""Mazes in the Doom engine: what it draws is a function of the pose, and shows the maze that was drawn."""

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from arvdm_theory.cli import main
from arvdm_theory.data.npz import npz_array
from arvdm_theory.video.simulators import doom
from arvdm_theory.video.simulators.mazes import Maze
from arvdm_theory.video.simulators.trajectories import Trajectory

pytest.importorskip("vizdoom")
pytest.importorskip("labmaze")


@pytest.fixture(scope="module")
def world() -> doom.DoomWorld:
    return doom.simulator(24).world(7)


def middles(world: doom.DoomWorld) -> np.ndarray:
    return np.argwhere(world.passages.any(-1))[:, ::-1] + 0.5


def test_a_picture_is_a_function_of_the_pose(world: doom.DoomWorld) -> None:
    """In any order, in another run of the engine, at headings and places that are not whole units."""
    rng = np.random.default_rng(0)
    places = middles(world)[rng.integers(len(middles(world)), size=60)] + rng.uniform(-0.3, 0.3, (60, 2))
    poses = np.column_stack([places, rng.uniform(-360, 720, 60)])
    order = rng.permutation(60)
    one, other = world.render(poses), world.render(poses[order])
    assert (one[order] == other).all()
    assert one.shape == (60, 24, 24, 3)
    # Different poses are different pictures, and a full circle is none at all.
    assert len(np.unique(one.reshape(60, -1), axis=0)) == 60
    assert (world.render(poses[:5] + np.array([0, 0, 360])) == one[:5]).all()


def test_nothing_moves_by_itself(world: doom.DoomWorld) -> None:
    """One look at every cell, and again after the clock of the game has gone on by several seconds."""
    poses = np.array([[*place, heading] for place in middles(world) for heading in (0.0, 90.0, 180.0, 270.0)])
    pictures = world.render(np.concatenate([poses, poses]))
    assert (pictures[: len(poses)] == pictures[len(poses) :]).all()


def corridor(monkeypatch: pytest.MonkeyPatch) -> doom.DoomWorld:
    """Four cells from west to east; the western half has red walls, the eastern half blue ones."""
    monkeypatch.setattr(doom, "_SHARE_OF_WALLS_WITH_PICTURES", 0.0)
    monkeypatch.setattr(doom, "_SHARE_OF_CELLS_WITH_THINGS", 0.0)
    solid = np.ones((3, 6), dtype=bool)
    solid[1, 1:5] = False
    passages = np.zeros((3, 6, 4), dtype=bool)
    passages[1, 1:4, 1] = passages[1, 2:5, 3] = True
    region = np.zeros((3, 6), dtype=np.intp)
    region[1, 3:5] = 1
    textmap, names = doom._textmap(Maze(solid, passages, region), np.random.default_rng(0))
    for old, new in zip(names["walls"], ("REDWALL", "COMPBLUE"), strict=True):
        textmap = textmap.replace(f'"{old}"', f'"{new}"')
    return doom.DoomWorld(textmap, 48, passages, names)


def test_headings_and_places_are_the_mazes(monkeypatch: pytest.MonkeyPatch) -> None:
    """North is up in the maze, east to the right; what one walks towards grows by perspective."""
    world = corridor(monkeypatch)
    poses = [[2.5, 1.5, 90.0], [2.5, 1.5, 270.0], [4.5, 1.5, 90.0], [1.5, 1.5, 270.0], [1.5, 1.5, 90.0]]
    pictures = world.render(np.array(poses)).astype(float)
    # Of the walls alone: above eye level, which is a little below the middle.
    red, _, blue = pictures[:, 14:22, 22:26].mean((1, 2)).T
    assert (blue > 1.5 * red).tolist() == [True, False, True, False, True]
    assert (red > 1.5 * blue).tolist() == [False, True, False, True, False]
    # What is seen of the blue half is wider the nearer it is: all from within, and a part from the western end.
    share = (pictures[:, 14:22, :, 2] > 1.5 * pictures[:, 14:22, :, 0]).mean((1, 2))
    assert share[0] == share[2] == 1
    assert 0.1 < share[4] < 0.6


def test_turning_by_the_engine_is_turning_the_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the right, what is in view moves to the left: north of an eastward view lies on its left side."""
    world = corridor(monkeypatch)
    looking_right, looking_left = world.render(np.array([[1.5, 1.5, 45.0], [1.5, 1.5, 135.0]])).astype(float)
    # At 45 degrees, north-east, the open corridor with the far blue end lies to the right; at 135 to the left.
    blue = [(picture[14:22, :, 2] > picture[14:22, :, 0]).any(0) for picture in (looking_right, looking_left)]
    assert blue[0][36:].any()
    assert not blue[0][:36].any()
    assert blue[1][:12].any()
    assert not blue[1][12:].any()


def test_a_world_is_its_seeds(world: doom.DoomWorld) -> None:
    again, other = doom.simulator(24).world(7), doom.simulator(24).world(8)
    assert again.textmap == world.textmap != other.textmap
    assert world.description["maze"] != other.description["maze"]
    assert dataclasses.replace(doom.simulator(16)).world(7).textmap == world.textmap


def test_a_picture_of_another_pose_is_refused() -> None:
    """An engine that does not go where it is told."""

    class Stuck:
        game_variables = (0.0, 0.0, 90.0)
        get_state = property(lambda self: lambda: self)
        send_game_command = make_action = staticmethod(lambda _: None)

    with pytest.raises(ValueError, match="stands at 0, 0, 90 degrees, where 64, -64, 0 was asked for"):
        doom._look(Stuck(), 64, -64, 0)


def test_without_the_engine_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "vizdoom", None)
    assert main(["simulate", "doom", "--out", str(tmp_path / "out")]) == 2
    assert "pip install 'arvdm-theory[doom]'" in capsys.readouterr().err


@pytest.mark.parametrize("size", [7, 481])
def test_a_size_out_of_range_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"8 to 480 pixels high and wide, got {size}"):
        doom.simulator(size)


def test_the_command_writes_episodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In any folder, and it leaves nothing there of the engine's own."""
    monkeypatch.chdir(tmp_path)
    words = ["simulate", "doom", "--size", "16", "--frames", "40", "--context", "4", "--trajectory", "turn"]
    assert main([*words, "--episodes", "1", "--test-episodes", "1", "--out", "out"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    file = tmp_path / "out/train/0000/000000.npz"
    video, needles = npz_array(file, "video"), npz_array(file, "needles")
    assert video.shape == (40, 16, 16, 3)
    assert len(needles) > 0
    assert all((video[seen] == video[asked]).all() for seen, asked in needles)
    assert Trajectory("turn", frames=40, context=4).frames == 40


_LOOKS = """
import sys
import numpy as np
from arvdm_theory.signals import terminable
from arvdm_theory.video.simulators.doom import simulator
world = simulator(16).world(7)
row, column = np.argwhere(world.passages.any(-1))[0]
poses = np.array([[column + 0.5, row + 0.5, 15.0 * k] for k in range(24)])
with terminable():
    for number in range(1000):
        world.render(poses)
        print(number, flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_process_takes_the_engine_along(number: signal.Signals, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _LOOKS],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "0\n"
    engines = children(process.pid)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    if number != signal.SIGKILL:
        assert ("KeyboardInterrupt" if number == signal.SIGINT else "Terminated") in errors
        assert not list(tmp_path.iterdir())
    for _ in range(100):
        left = [pid for pid in engines if running(pid)]
        if not left:
            break
        subprocess.run(["sleep", "0.05"], check=True)
    assert not left


def children(pid: int) -> list[int]:
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = place.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(place.parent.name))
    return found


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
