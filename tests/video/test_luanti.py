"""The engine Luanti against the ray caster on the same landscapes; and what is said without it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from arvdm_theory.cli import main
from arvdm_theory.video.simulators import luanti
from arvdm_theory.video.simulators.blocks import AIR, BLOCKS, block
from arvdm_theory.video.simulators.voxel import MinecraftStandIn
from arvdm_theory.video.simulators.worlds import Simulator, World


def _installed() -> bool:
    try:
        luanti.programs()
    except ValueError:
        return False
    return True


@pytest.mark.skipif(not _installed(), reason="Luanti (Debian's minetest) or Xvfb is not installed")
def test_luanti_draws_the_landscape_that_the_ray_caster_draws() -> None:
    """Of six places, each picture is most like the ray caster's of the same; a pose met again shows it again."""
    world = luanti.simulator(64).world(0)
    assert isinstance(luanti.simulator(64), Simulator)
    assert isinstance(world, World)
    rng = np.random.default_rng(0)
    cells = np.argwhere(world.passages.any(-1))
    places = cells[rng.integers(len(cells), size=6)][:, ::-1] + 0.5
    poses = np.column_stack([places, rng.integers(0, 24, 6) * 15.0])
    pictures = world.render(np.concatenate([poses, poses[::-1]]))
    assert pictures.shape == (12, 64, 64, 3)
    # An engine that other jobs slow down may finish a far mesh only after a picture: then a patch of sky shows
    # where it belongs. In an episode every pose is drawn once, so its revisits are equal all the same.
    other = np.abs(pictures[:6].astype(int) - pictures[:5:-1]).max(-1) > 2
    assert other.mean((1, 2)).max() < 0.05
    # Textures and light are each their own: compare where it is lighter and darker, in fields of 4 x 4 pixels.
    drawn, cast = (
        frames.reshape(6, 16, 4, 16, 4, 3).mean((2, 4, 5)).reshape(6, -1)
        for frames in (pictures[:6], world.model.render(poses))
    )
    likeness = np.corrcoef(drawn, cast)[:6, 6:]
    np.testing.assert_array_equal(likeness.argmax(1), np.arange(6))
    np.testing.assert_array_equal(likeness.argmax(0), np.arange(6))


def test_the_world_on_the_disk_is_the_landscape(tmp_path: Path) -> None:
    """Every block a node, and blossoms in the air above the grass that bears them; nothing else."""
    model = MinecraftStandIn(8, cells=6).world(1)
    luanti._write_world(model, tmp_path)
    stage = json.loads((tmp_path / "stage.json").read_text())
    shape = stage["rows"], stage["columns"], stage["levels"]
    codes = np.frombuffer((tmp_path / "stage.blocks").read_bytes(), np.uint8).reshape(shape)
    voxels = model.terrain.voxels
    assert len(stage["nodes"]) > len(BLOCKS)
    assert codes.max() < len(stage["nodes"])
    changed = codes != voxels
    assert changed.any()
    assert (voxels[changed] == AIR).all()
    beneath = voxels[..., :-1][changed[..., 1:]]
    assert set(np.unique(beneath)) <= {block("poppies"), block("dandelions")}
    assert {path.name for path in (tmp_path / "worldmods" / "arvdm_stage").iterdir()} == {"init.lua", "mod.conf"}


def test_a_screen_file_is_read_as_the_format_says(tmp_path: Path) -> None:
    """A window dump of 3 x 2 pixels behind a header of 104 bytes and two colours."""
    words = [104, 7, 2, 24, 3, 2, 0, 0, 32, 0, 32, 32, 12, 4, 255 << 16, 255 << 8, 255, 8, 256, 2, 3, 2, 0, 0, 0]
    pixels = np.arange(24, dtype=np.uint8)
    content = np.array(words, ">u4").tobytes() + bytes(4) + bytes(24) + pixels.tobytes()
    (tmp_path / "screen").write_bytes(content)
    np.testing.assert_array_equal(luanti._framebuffer(tmp_path / "screen"), pixels.reshape(2, 3, 4))
    words[11] = 16
    (tmp_path / "screen").write_bytes(np.array(words, ">u4").tobytes() + content[100:])
    with pytest.raises(ValueError, match="16 bits a pixel"):
        luanti._framebuffer(tmp_path / "screen")


def test_without_the_programs_it_is_one_line_that_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["simulate", "minecraft", "--engine", "luanti", "--out", str(tmp_path / "set")]
    for there, missing in ((None, "minetest (or luanti) and Xvfb"), ("Xvfb", "minetest (or luanti);")):
        monkeypatch.setattr(
            shutil, "which", lambda name, path=None, there=there: f"/bin/{name}" if name == there else None
        )
        assert main(command) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"arvdm simulate: the Luanti engine needs {missing}")
        assert "apt-get install minetest xvfb" in error
        assert error.count("\n") == 1
    assert not (tmp_path / "set").exists()


def test_what_luanti_cannot_draw(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "dmlab", "--engine", "luanti", "--out", str(tmp_path)]) == 2
    assert "the worlds of dmlab are drawn by own, got 'luanti'" in capsys.readouterr().err
    with pytest.raises(ValueError, match="64 to 512"):
        luanti.LuantiStandIn(32)
