"""Data sets in the public layouts: what is read, what is refused with which reason, and that nothing is fatal."""

import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from arvdm_theory.data import index as index_module
from arvdm_theory.data.basalt import KEYS, Basalt
from arvdm_theory.data.clips import ClipError
from arvdm_theory.data.dataset import ClipDataset, align
from arvdm_theory.data.index import Index, build_index
from arvdm_theory.data.npz import npz_array
from arvdm_theory.data.teco import TecoDmlab, TecoMinecraft

Pictures = NDArray[np.uint8]


def _index(root: Path, format: Any = TecoDmlab(), **options: Any) -> Index:  # noqa: B008
    return build_index(root, format, progress=False, **options)


def test_dmlab_clips(dmlab: Path) -> None:
    dataset = ClipDataset(_index(dmlab), "this")
    assert len(dataset) == 5
    assert dataset.frame_shape == (16, 16, 3)
    names = [clip.name for clip in dataset]
    assert names == [f"train/{i % 2}/clip{i}.npz:0" for i in (0, 2, 4, 1, 3)]
    frames, actions, _ = dataset[1]
    assert frames.dtype == np.uint8
    np.testing.assert_array_equal(frames[:, 3, 5, 1], 40 + np.arange(12))
    np.testing.assert_array_equal(actions, (np.arange(12) + 2) % 3)
    assert dataset.skipped == ()
    assert dataset.report() == "TECO DMLab: 5 of 5 videos used, 5 clips"


def test_minecraft_clips(minecraft: Path) -> None:
    dataset = ClipDataset(_index(minecraft, TecoMinecraft("test")), "next", length=3)
    assert len(dataset) == 4
    frames, actions, name = dataset[3]
    assert name == "test/0/clip1.mp4:3"
    np.testing.assert_array_equal(frames[:, 0, 0], np.array([23, 24, 25])[:, None].repeat(3, 1))
    np.testing.assert_array_equal(actions, [2, 3, 0])


def test_basalt_clips(basalt: Path) -> None:
    dataset = ClipDataset(_index(basalt, Basalt()), "this", length=3, size=8)
    assert len(dataset) == 2
    frames, actions, _ = dataset[1]
    assert frames.shape == (3, 8, 8, 3)
    for t in range(3):  # nothing of the black sides
        assert (frames[t] == 13 + t).all()
    assert actions.shape == (3, 2 + len(KEYS))
    np.testing.assert_allclose(actions[:, 0], 20 * np.arange(3, 6) * 360 / 2400)
    np.testing.assert_allclose(actions[:, 1], -6)
    held = {KEYS[k] for k in np.flatnonzero(actions[0, 2:])}
    assert held == {"key.keyboard.w", "mouse.0"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 3 is no action"),
        ('{"mouse": {"dx": 1}}', "line 3 is no action"),
        ('{"mouse": {"dx": NaN, "dy": 0}, "keyboard": {"keys": []}}', "line 3 is no action"),
    ],
)
def test_basalt_actions_that_cannot_be_read(basalt: Path, line: str, message: str) -> None:
    file = basalt / "player-1.jsonl"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:2], line, *lines[3:]]))
    with pytest.raises(ClipError, match=message):
        _index(basalt, Basalt())


def test_alignment_moves_actions_by_one_frame(dmlab: Path) -> None:
    """In windows, too: with ``next`` the action before a window's first frame is the one that led to it."""
    index = _index(dmlab)
    stored = np.arange(12) % 3
    this, following = (ClipDataset(index, leads_to, length=4) for leads_to in ("this", "next"))  # type: ignore[arg-type]
    for window in range(3):
        np.testing.assert_array_equal(this[window].actions, stored[4 * window : 4 * window + 4])
        expected = [stored[t - 1] if t else -1 for t in range(4 * window, 4 * window + 4)]
        np.testing.assert_array_equal(following[window].actions, expected)
    with pytest.raises(ClipError, match="'this' frame or the 'next'"):
        ClipDataset(index, "previous")  # type: ignore[arg-type]


def test_alignment_of_action_vectors() -> None:
    actions = np.arange(8, dtype=np.float32).reshape(4, 2)
    np.testing.assert_array_equal(align(actions, 0, 2, "next", 0.0), [[0, 0], [0, 1]])
    np.testing.assert_array_equal(align(actions, 2, 4, "next", 0.0), actions[1:3])


def test_the_order_comes_from_the_seed(dmlab: Path) -> None:
    index = _index(dmlab)
    names = [[clip.name for clip in ClipDataset(index, "this", length=4, seed=seed)] for seed in (0, 0, 1, None)]
    assert names[0] == names[1]
    assert names[0] != names[2]
    assert sorted(names[0]) == sorted(names[2]) == sorted(names[3])
    assert len(set(names[0])) == 15


def test_frames_are_averaged_down(tmp_path: Path) -> None:
    video = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    (tmp_path / "train" / "0").mkdir(parents=True)
    np.savez(tmp_path / "train" / "0" / "a.npz", video=video, actions=np.zeros(2, int))
    small = ClipDataset(_index(tmp_path), "this", size=4)[0].frames
    np.testing.assert_array_equal(small, np.rint(video.reshape(2, 4, 4, 4, 4, 3).mean((2, 4))))


def test_a_size_that_does_not_divide(dmlab: Path) -> None:
    with pytest.raises(ClipError, match=r"16x16 pixels cannot be divided into 6x6 .* choose a size that divides"):
        ClipDataset(_index(dmlab), "this", size=6)


def test_empty_folders(tmp_path: Path, dmlab: Path) -> None:
    with pytest.raises(ClipError, match=r"no TECO DMLab clips, files train/\*/\*\.npz"):
        _index(tmp_path)
    with pytest.raises(ClipError, match="no such folder"):
        _index(tmp_path / "nowhere")
    with pytest.raises(ClipError, match="no TECO DMLab clip has 13 frames, the longest has 12"):
        ClipDataset(_index(dmlab), "this", length=13)


def _spoil(dmlab: Path) -> dict[str, str]:
    """Adds one clip for every fault that a header shows; the reason each must be given."""
    folder = dmlab / "train" / "2"
    folder.mkdir()
    video = np.zeros((12, 16, 16, 3), np.uint8)
    actions = np.zeros(12, np.int64)
    np.savez(folder / "short-actions.npz", video=video, actions=actions[:-1])
    np.savez(folder / "wide-actions.npz", video=video, actions=actions[:, None])
    np.savez(folder / "float-actions.npz", video=video, actions=actions / 2)
    np.savez(folder / "strange-action.npz", video=video, actions=actions + 3)
    np.savez(folder / "no-video.npz", actions=actions)
    np.savez(folder / "float-video.npz", video=video / 255, actions=actions)
    np.savez(folder / "pickle.npz", video=video, actions=np.array([{}] * 12, dtype=object))
    np.savez(folder / "cut.npz", video=video, actions=actions)
    os.truncate(folder / "cut.npz", 5000)
    (folder / "text.npz").write_text("not at all")
    return {
        "short-actions": "12 frames but 11 actions",
        "wide-actions": r"shape \(T,\), got int64 \(12, 1\)",
        "float-actions": "whole numbers",
        "strange-action": r"lie in 0\.\.2, got 3 to 3",
        "no-video": "no array 'video'",
        "float-video": "must be uint8",
        "pickle": "which is never opened",
        "cut": "truncated",
        "text": "truncated or damaged",
    }


def test_bad_files_are_skipped_each_with_its_reason(dmlab: Path) -> None:
    reasons = _spoil(dmlab)
    index = _index(dmlab)
    assert len(index.entries) == 5
    found = {Path(clip.path).stem: clip.reason for clip in index.skipped}
    assert found.keys() == reasons.keys()
    for name, reason in reasons.items():
        with pytest.raises(ClipError, match=reason):
            raise ClipError(found[name])
    report = ClipDataset(index, "this").report()
    assert report.startswith("TECO DMLab: 5 of 14 videos used, 5 clips\n")
    assert all(f"skipped train/2/{name}.npz: " in report for name in reasons)


def test_short_clips_and_clips_of_another_size_are_skipped(dmlab: Path) -> None:
    folder = dmlab / "train" / "0"
    np.savez(folder / "brief.npz", video=np.zeros((7, 16, 16, 3), np.uint8), actions=np.zeros(7, int))
    np.savez(folder / "large.npz", video=np.zeros((12, 32, 32, 3), np.uint8), actions=np.zeros(12, int))
    dataset = ClipDataset(_index(dmlab), "this")
    assert len(dataset) == 5
    assert {(Path(clip.path).stem, clip.reason) for clip in dataset.skipped} == {
        ("brief", "short: 7 of 12 frames"),
        ("large", "32x32 pixels, where most have 16x16"),
    }


def test_faults_of_videos(minecraft: Path, lossless_mp4: Callable[[Path, Pictures], None]) -> None:
    folder = minecraft / "test" / "0"
    noise = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
    for name in ("cut", "lonely", "long"):
        lossless_mp4(folder / f"{name}.mp4", noise)
        np.savez(folder / f"{name}.npz", actions=np.zeros(6 + (name == "long"), int))
    os.truncate(folder / "cut.mp4", (folder / "cut.mp4").stat().st_size - 1500)
    (folder / "lonely.npz").unlink()
    (folder / "text.mp4").write_text("no video")
    index = _index(minecraft, TecoMinecraft("test"))
    assert len(index.entries) == 2
    reasons = {Path(clip.path).stem: clip.reason for clip in index.skipped}
    assert reasons.keys() == {"cut", "lonely", "long", "text"}
    assert "truncated" in reasons["cut"]
    assert "lonely.npz: no such file" in reasons["lonely"]
    assert "6 frames but 7 actions" in reasons["long"]
    assert "not a readable video" in reasons["text"]


def test_nothing_usable_is_an_error_that_says_why(tmp_path: Path) -> None:
    (tmp_path / "train" / "0").mkdir(parents=True)
    (tmp_path / "train" / "0" / "a.npz").write_text("x")
    with pytest.raises(
        ClipError, match=r"none of 1 TECO DMLab clips can be used; the first, train/0/a\.npz: .*trunc"
    ):
        _index(tmp_path)


def _damage(path: Path) -> None:
    """Spoils pixels in the middle of a compressed file: its header still reads well."""
    content = bytearray(path.read_bytes())
    middle = 150  # within the video, which is the first member of the archive
    content[middle : middle + 40] = bytes(255 - byte for byte in content[middle : middle + 40])
    path.write_bytes(content)


def test_damage_found_in_reading_is_replaced_and_reported(dmlab: Path) -> None:
    index = _index(dmlab)
    damaged = dmlab / "train" / "0" / "clip2.npz"
    written = damaged.stat().st_mtime_ns
    _damage(damaged)
    os.utime(damaged, ns=(0, written))  # as if the disk itself had rotted
    assert index.entries == _index(dmlab).entries
    dataset = ClipDataset(index, "this")
    loader: DataLoader[Any] = DataLoader(dataset, batch_size=1, num_workers=2)  # type: ignore[arg-type]
    names = [batch.name[0] for batch in loader]
    assert names == [f"train/{i % 2}/clip{i}.npz:0" for i in (0, 4, 4, 1, 3)]
    (skipped,) = dataset.skipped
    assert skipped.path == "train/0/clip2.npz"
    assert "clip2.npz" in dataset.report()
    again = _index(dmlab)
    assert len(again.entries) == 4
    assert again.skipped == (skipped,)
    assert len(index.damaged_file.read_text().splitlines()) == 1


def test_no_flipped_byte_of_a_file_goes_unnoticed(tmp_path: Path) -> None:
    """Whatever byte is spoilt, the array comes out right or the file is refused; nothing else is ever raised."""
    array = np.random.default_rng(0).integers(0, 256, (4, 5), dtype=np.uint8)
    np.savez_compressed(tmp_path / "good.npz", video=array)
    content = (tmp_path / "good.npz").read_bytes()
    refused = 0
    for place in range(len(content)):
        spoilt = bytearray(content)
        spoilt[place] ^= 0xFF
        (tmp_path / "bad.npz").write_bytes(spoilt)
        try:
            np.testing.assert_array_equal(npz_array(tmp_path / "bad.npz", "video"), array)
        except ClipError:
            refused += 1
    assert refused > len(content) / 2


def test_workers_give_what_one_process_gives(dmlab: Path) -> None:
    dataset = ClipDataset(_index(dmlab), "next", length=4, seed=3)
    alone, shared = (
        list(DataLoader(dataset, batch_size=4, num_workers=workers))  # type: ignore[arg-type]
        for workers in (0, 2)
    )
    assert len(alone) == len(shared) == 4
    for one, other in zip(alone, shared, strict=True):
        assert isinstance(one.frames, Tensor)
        assert one.frames.shape[1:] == (4, 16, 16, 3)
        assert (one.frames == other.frames).all()
        assert (one.actions == other.actions).all()
        assert one.name == other.name


def test_clips_are_looked_at_once(dmlab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []
    inspect = TecoDmlab.inspect
    monkeypatch.setattr(TecoDmlab, "inspect", lambda self, path: looked.append(path.stem) or inspect(self, path))
    cache = tmp_path / "elsewhere"
    first = _index(dmlab, cache=cache)
    assert sorted(looked) == [f"clip{i}" for i in range(5)]
    assert [path.parent for path in (first.file, first.damaged_file)] == [cache, cache]
    assert not list(dmlab.glob("*.json"))
    looked.clear()
    assert _index(dmlab, cache=cache) == first
    assert looked == []
    changed = dmlab / "train" / "1" / "clip3.npz"
    os.utime(changed, ns=(0, 1))
    (dmlab / "train" / "0" / "clip0.npz").unlink()
    second = _index(dmlab, cache=cache)
    assert looked == ["clip3"]
    assert len(second.entries) == 4
    looked.clear()
    first.file.write_text("{spoiled")
    assert _index(dmlab, cache=cache) == second
    assert len(looked) == 4


def test_an_interrupted_index_keeps_what_it_has(dmlab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inspect, looked = TecoDmlab.inspect, []

    def impatient(self: TecoDmlab, path: Path) -> Any:
        if len(looked) == 3:
            raise KeyboardInterrupt
        looked.append(path)
        return inspect(self, path)

    monkeypatch.setattr(TecoDmlab, "inspect", impatient)
    with pytest.raises(KeyboardInterrupt):
        _index(dmlab)
    (file,) = dmlab.glob("index-*.json")
    assert len(json.loads(file.read_text())["clips"]) == 3
    monkeypatch.setattr(TecoDmlab, "inspect", lambda self, path: looked.append(path) or inspect(self, path))
    assert len(_index(dmlab).entries) == 5
    assert len(looked) == len(set(looked)) == 5


def test_a_torn_line_of_damage_is_forgotten(dmlab: Path) -> None:
    index = _index(dmlab)
    index.add_damaged(index.entries[0], "worn out")
    index.damaged_file.write_text(index.damaged_file.read_text() + '{"path": "tra')
    assert [clip.reason for clip in _index(dmlab).skipped] == ["worn out"]


def test_another_version_of_the_index_is_not_trusted(dmlab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = _index(dmlab).file
    before = file.read_bytes()
    monkeypatch.setattr(index_module, "_VERSION", index_module._VERSION + 1)
    _index(dmlab)
    assert file.read_bytes() != before


def test_memory_is_that_of_one_clip(tmp_path: Path) -> None:
    """Eight clips of 300 frames of 64 x 64 are 29 MB; reading them one after another never holds two."""
    folder = tmp_path / "train" / "0"
    folder.mkdir(parents=True)
    for i in range(8):
        np.savez_compressed(
            folder / f"{i}.npz", video=np.full((300, 64, 64, 3), i, np.uint8), actions=np.zeros(300, int)
        )
    clip_bytes = 300 * 64 * 64 * 3
    tracemalloc.start()
    dataset = ClipDataset(_index(tmp_path), "this")
    for i in range(8):
        assert dataset[i].frames[-1, 0, 0, 0] == i
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The clip, one more copy while it is unpacked, and some of Python's own.
    assert peak < 2.5 * clip_bytes


def test_the_middle_of_a_long_video_is_not_held_whole(
    tmp_path: Path, lossless_mp4: Callable[[Path, Pictures], None], numbered: Callable[..., Pictures]
) -> None:
    lossless_mp4(tmp_path / "a.mp4", numbered(250, 90, 160))
    line = json.dumps({"mouse": {"dx": 0, "dy": 0, "buttons": []}, "keyboard": {"keys": []}})
    (tmp_path / "a.jsonl").write_text("\n".join([line] * 250))
    dataset = ClipDataset(_index(tmp_path, Basalt()), "this", length=10, size=32)
    tracemalloc.start()
    assert dataset[24].frames[:, 0, 0, 0].tolist() == list(range(240, 250))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 250 * 90 * 160 * 3 / 2
