"""The memory-mapped cache holds the clips, goes on where it stopped, and is never taken for another's."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.data import DataLoader

from arvdm_theory.data.cache import build_cache, open_cache
from arvdm_theory.data.clips import ClipError
from arvdm_theory.data.dataset import ClipDataset
from arvdm_theory.data.index import Entry, build_index
from arvdm_theory.data.teco import TecoDmlab


@pytest.fixture
def dataset(dmlab: Path) -> ClipDataset:
    return ClipDataset(build_index(dmlab, TecoDmlab(), progress=False), "next", length=4, size=8, seed=1)


def _assert_same(clips: Any, dataset: Any) -> None:
    assert len(clips) == len(dataset)
    for one, other in zip(clips, dataset, strict=True):
        np.testing.assert_array_equal(one.frames, other.frames)
        np.testing.assert_array_equal(one.actions, other.actions)
        assert one.name == other.name


def test_the_cache_holds_the_clips(dataset: ClipDataset, tmp_path: Path) -> None:
    built = build_cache(dataset, tmp_path / "cache", progress=False)
    _assert_same(built, dataset)
    _assert_same(open_cache(tmp_path / "cache"), dataset)
    assert built.skipped == ()
    frames = np.load(tmp_path / "cache" / "frames.npy", mmap_mode="r")
    assert (frames.dtype, frames.shape) == (np.uint8, (15, 4, 8, 8, 3))


def test_workers_map_the_file_themselves(dataset: ClipDataset, tmp_path: Path) -> None:
    clips = build_cache(dataset, tmp_path / "cache", progress=False)
    clips[0]
    assert len(pickle.dumps(clips)) < 2000
    loader: DataLoader[Any] = DataLoader(clips, batch_size=5, num_workers=2)  # type: ignore[arg-type]
    names = [name for batch in loader for name in batch.name]
    assert names == list(clips.names)
    batch = next(iter(loader))
    np.testing.assert_array_equal(batch.frames[3].numpy(), dataset[3].frames)


def test_writing_to_a_clip_does_not_change_the_cache(dataset: ClipDataset, tmp_path: Path) -> None:
    clip = build_cache(dataset, tmp_path / "cache", progress=False)[0]
    clip.frames[:] = 255
    np.testing.assert_array_equal(open_cache(tmp_path / "cache")[0].frames, dataset[0].frames)


def test_an_interrupted_cache_goes_on(
    dataset: ClipDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, done = ClipDataset.read, []

    def impatient(self: ClipDataset, entry: Entry, start: int) -> Any:
        if len(done) == 7:
            raise KeyboardInterrupt
        done.append((entry.path, start))
        return read(self, entry, start)

    monkeypatch.setattr(ClipDataset, "read", impatient)
    with pytest.raises(KeyboardInterrupt):
        build_cache(dataset, tmp_path / "cache", progress=False)
    with pytest.raises(ClipError, match="no finished cache"):
        open_cache(tmp_path / "cache")
    first = done[1:]  # the first read was for the shapes alone
    done.clear()
    monkeypatch.setattr(
        ClipDataset,
        "read",
        lambda self, entry, start: done.append((entry.path, start)) or read(self, entry, start),
    )
    clips = build_cache(dataset, tmp_path / "cache", progress=False)
    assert len(done) == 15 - 6
    assert not set(done) & set(first)
    _assert_same(clips, dataset)
    done.clear()
    build_cache(dataset, tmp_path / "cache", progress=False)
    assert done == []


def test_damaged_clips_are_left_out_and_named(
    dataset: ClipDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = TecoDmlab.frames

    def worn(self: TecoDmlab, path: Path, start: int, stop: int, size: int | None) -> Any:
        if path.stem == "clip2":
            raise ClipError("worn out")
        return frames(self, path, start, stop, size)

    monkeypatch.setattr(TecoDmlab, "frames", worn)
    clips = build_cache(dataset, tmp_path / "cache", progress=False)
    assert len(clips) == 12
    assert sorted(clips.skipped) == [(f"train/0/clip2.npz:{start}", "worn out") for start in (0, 4, 8)]
    good = [place for place in map(dataset.window, range(15)) if "clip2" not in place[0].path]
    expected = [dataset.read(entry, start) for entry, start in good]
    _assert_same(clips, expected)
    assert [clip.reason for clip in dataset.skipped] == ["worn out"]


def test_a_cache_of_something_else(dataset: ClipDataset, tmp_path: Path, dmlab: Path) -> None:
    build_cache(dataset, tmp_path / "cache", progress=False)
    for options in ({"length": 6}, {"size": 16}, {"seed": 2}, {"leads_to": "this"}):
        other = ClipDataset(dataset.index, **{"leads_to": "next", "length": 4, "size": 8, "seed": 1, **options})  # type: ignore[arg-type]
        with pytest.raises(ClipError, match="holds the cache of other clips"):
            build_cache(other, tmp_path / "cache", progress=False)


def test_folders_that_hold_no_cache(dataset: ClipDataset, tmp_path: Path) -> None:
    with pytest.raises(ClipError, match="no finished cache"):
        open_cache(tmp_path)
    build_cache(dataset, tmp_path / "cache", progress=False)
    (tmp_path / "cache" / "frames.npy").write_bytes(b"short")
    with pytest.raises(ClipError, match=r"frames\.npy: not the file that a cache had here"):
        open_cache(tmp_path / "cache")
    (tmp_path / "cache" / "cache.json").write_text(json.dumps({"names": []}))
    with pytest.raises(ClipError, match="no finished cache"):
        open_cache(tmp_path / "cache")


def test_a_full_disk_is_noticed_before_work_begins(
    dataset: ClipDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 1000})())
    with pytest.raises(OSError, match="MB left"):
        build_cache(dataset, tmp_path / "cache", progress=False)
    assert not list((tmp_path / "cache").iterdir())
