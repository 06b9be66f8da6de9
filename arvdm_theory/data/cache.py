"""A data set decoded once into one memory-mapped file of bytes, so that reading a clip is reading a file's pages.

A folder holds ``frames.npy`` (clips, T, height, width, 3) uint8, ``actions.npy`` (clips, T, ...), ``done.npy``, a
byte a clip, ``plan.json``, which says what they are to hold, and last ``cache.json``: a folder without it is not
finished, and :func:`build_cache` goes on with it.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from tqdm import tqdm

from arvdm_theory.data.clips import ClipError
from arvdm_theory.data.dataset import Clip, ClipDataset
from arvdm_theory.files import read_json, write_json

__all__ = ["CachedClips", "build_cache", "open_cache"]

# Clips between two marks of progress: what is marked done has been written to the disk before.
_CLIPS_A_MARK = 16


@dataclass(frozen=True)
class CachedClips:
    """The clips of a finished cache; ``clips[i]`` is a :class:`~arvdm_theory.data.dataset.Clip`.

    Frames are views of the file, until a batch copies them; writing to them does not change the file. Every
    process that it is sent to, such as a worker of a ``DataLoader``, maps the file itself.

    Attributes:
        folder: of the cache.
        names: of the clips.
        rows: where in the files each one is.
        skipped: clips that are not there because they were damaged, each with the reason.
    """

    folder: Path
    names: tuple[str, ...]
    rows: tuple[int, ...]
    skipped: tuple[tuple[str, str], ...]

    @cached_property
    def _files(self) -> tuple[NDArray[np.uint8], NDArray[Any]]:
        return _map(self.folder / "frames.npy", "c"), _map(self.folder / "actions.npy", "c")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, item: int) -> Clip:
        """The clip at a place."""
        row = self.rows[item]
        frames, actions = self._files
        return Clip(np.asarray(frames[row]), np.asarray(actions[row]), self.names[item])

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_files"}


def build_cache(dataset: ClipDataset, folder: str | Path, progress: bool = True) -> CachedClips:
    """Decodes every clip of a data set into a folder, or what is still missing there, and opens it.

    Args:
        dataset: what to decode, at its length, size and order.
        folder: made if need be.
        progress: whether to show a progress bar.

    Raises:
        ClipError: if the folder holds the cache of something else, or no clip can be read.
        OSError: if the disk has no room for it.
    """
    folder = Path(folder)
    identity = _identity(dataset)
    if (folder / "plan.json").exists():
        if _plan(folder) != identity:
            raise ClipError(f"{folder}: holds the cache of other clips, or of another length, size or order")
    else:
        _lay_out(dataset, folder, identity)
    if not (folder / "cache.json").exists():
        _fill(dataset, folder, progress)
    return open_cache(folder)


def open_cache(folder: str | Path) -> CachedClips:
    """Opens a finished cache.

    Raises:
        ClipError: if the folder holds none.
    """
    folder = Path(folder)
    try:
        content = read_json(folder / "cache.json")
        clips = CachedClips(
            folder,
            tuple(str(name) for name in content["names"]),
            tuple(int(row) for row in content["rows"]),
            tuple((str(name), str(reason)) for name, reason in content["skipped"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ClipError(f"{folder}: no finished cache of clips") from error
    if (
        not clips.rows
        or len(clips.names) != len(clips.rows)
        or not 0 <= min(clips.rows) <= max(clips.rows) < min(map(len, clips._files))
    ):
        raise ClipError(f"{folder}: the cache lost clips since it was written")
    return clips


def _plan(folder: Path) -> object:
    try:
        return read_json(folder / "plan.json").get("identity")
    except ValueError as error:
        raise ClipError(f"{error}; remove the folder, and it is made anew") from error


def _lay_out(dataset: ClipDataset, folder: Path, identity: str) -> None:
    """Makes the files, empty, and says what they are to hold."""
    first = dataset[0]
    shape = (len(dataset), *first.frames.shape)
    folder.mkdir(parents=True, exist_ok=True)
    needed, free = math.prod(shape), shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(f"{folder}: the cache takes {needed / 1e6:.4g} MB, the disk has {free / 1e6:.4g} MB left")
    _make(folder / "frames.npy", np.dtype(np.uint8), shape)
    _make(folder / "actions.npy", first.actions.dtype, (len(dataset), *first.actions.shape))
    _make(folder / "done.npy", np.dtype(np.bool_), (len(dataset),))
    write_json(folder / "plan.json", {"identity": identity})


def _make(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """An array file of zeros that has its place on the disk: one that fills up later would kill who writes."""
    open_memmap(path, "w+", dtype, shape)
    try:
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        path.unlink()
        raise OSError(error.errno, os.strerror(error.errno or 0), str(path)) from error


def _fill(dataset: ClipDataset, folder: Path, progress: bool) -> None:
    frames, actions, done = (_map(folder / f"{name}.npy", "r+") for name in ("frames", "actions", "done"))
    written: list[int] = []
    skipped: dict[int, str] = {}

    def mark() -> None:
        frames.flush()
        actions.flush()
        done[written] = True
        done.flush()
        written.clear()

    to_do = np.flatnonzero(~done).tolist()
    try:
        for item in tqdm(
            to_do, "caching clips", len(done), initial=len(done) - len(to_do), disable=not progress or None
        ):
            entry, start = dataset.window(item)
            try:
                clip = dataset.read(entry, start)
            except (ClipError, OSError) as error:
                dataset.index.add_damaged(entry, str(error))
                skipped[item] = str(error)
                continue
            frames[item], actions[item] = clip.frames, clip.actions
            written.append(item)
            if len(written) == _CLIPS_A_MARK:
                mark()
    finally:
        mark()
    rows = [item for item in range(len(done)) if item not in skipped]
    if not rows:
        raise ClipError(f"{dataset.index.root}: none of {len(dataset)} clips can be read")
    names = [_name(dataset, item) for item in range(len(done))]
    write_json(
        folder / "cache.json",
        {
            "names": [names[item] for item in rows],
            "rows": rows,
            "skipped": [[names[item], reason] for item, reason in skipped.items()],
        },
    )


def _name(dataset: ClipDataset, item: int) -> str:
    entry, start = dataset.window(item)
    return f"{entry.path}:{start}"


def _identity(dataset: ClipDataset) -> str:
    """A digest of which clips of which files a data set gives, and in which form; not of where they lie."""
    digest = hashlib.sha256()
    form = (dataset.index.format, dataset.leads_to, dataset.frame_shape)
    digest.update(repr((*form, dataset.frames_per_clip)).encode())
    for item in range(len(dataset)):
        entry, start = dataset.window(item)
        digest.update(repr((entry, start)).encode())
    return digest.hexdigest()


def _map(path: Path, mode: Literal["c", "r+"]) -> np.memmap[Any, Any]:
    try:
        return open_memmap(path, mode)
    except (OSError, ValueError) as error:
        raise ClipError(f"{path}: not the file that a cache had here ({error})") from error
