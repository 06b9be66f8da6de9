"""Data sets of episodes on the disk, in the layout of TECO's: the readers of the real data read them too.

    {train,test}/SHARD/EPISODE.npz                    video, actions, poses, needles, between, context, seed, meta
    {train,test}/SHARD/EPISODE.mp4 and EPISODE.npz    the same, the video (lossless) in the .mp4

``EPISODE`` is its number in six digits, ``SHARD`` the hundreds of it. Action t leads to frame t + 1: readers are
told so by ``leads_to="next"``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from arvdm_theory.data.clips import write_mp4
from arvdm_theory.executors import executing, executor
from arvdm_theory.files import atomic_path, read_json, write_json
from arvdm_theory.video.simulators import Layout
from arvdm_theory.video.simulators.episodes import Episode, episode_seed, record
from arvdm_theory.video.simulators.trajectories import Trajectory
from arvdm_theory.video.simulators.worlds import Simulator

__all__ = ["Recording", "write_episode"]

_SPLITS = ("train", "test")
_FRAMES_A_SECOND = 10


@dataclass(frozen=True)
class Recording:
    """A data set of episodes, made or yet to be made.

    Attributes:
        simulator: draws and shows the worlds.
        trajectory: how to walk.
        seed: of the whole data set. An episode depends on it, its split and its number alone: a larger data set
            contains the smaller one.
        layout: of the files.
    """

    simulator: Simulator
    trajectory: Trajectory
    seed: int = 0
    layout: Layout = "npz"

    def __post_init__(self) -> None:
        if self.layout not in get_args(Layout):
            raise ValueError(f"the layout is one of {', '.join(get_args(Layout))}, got {self.layout!r}")
        if self.seed < 0:
            raise ValueError(f"a seed is not negative, got {self.seed}")

    def write(self, folder: str | Path, train: int, test: int = 0, workers: int = 0) -> Iterator[Path]:
        """Makes what is missing of so many episodes, and yields each finished file, those found there included.

        Args:
            folder: made if need be.
            train: episodes of the training split.
            test: episodes of the test split.
            workers: processes beside this one; 0 does the work here.

        Raises:
            ValueError: if the folder holds another data set, or an episode cannot be made.
        """
        if min(train, test, workers) < 0 or train + test == 0:
            raise ValueError(f"at least one episode, got {train} and {test} with {workers} workers")
        folder = Path(folder)
        self._claim(folder)
        missing = []
        for split, count in zip(_SPLITS, (train, test), strict=True):
            for number in range(count):
                path = folder / split / f"{number // 100:04d}" / f"{number:06d}.{self.layout}"
                if path.exists():
                    yield path
                else:
                    missing.append((path, split, number))
        with executing(workers):
            for _, path in executor().run(lambda episode: self._make(*episode), missing):
                yield path

    def _claim(self, folder: Path) -> None:
        """Writes what the folder is to hold, or checks that it is this."""
        what = {
            "simulator": {"name": self.simulator.name, "settings": repr(self.simulator)},
            "trajectory": asdict(self.trajectory),
            "seed": self.seed,
            "layout": self.layout,
            "leads_to": "next",
        }
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "simulation.json"
        if not file.exists():
            write_json(file, what)
            return
        try:
            held = read_json(file)
        except ValueError as error:
            raise ValueError(f"{error}: not what a simulation writes") from error
        if held != what:
            differ = [key for key in what if held.get(key) != what[key]]
            raise ValueError(f"{folder}: holds another data set, which differs in {', '.join(differ)}")

    def _make(self, path: Path, split: str, number: int) -> Path:
        seed = episode_seed(self.seed, _SPLITS.index(split), number)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_episode(record(self.simulator, seed, self.trajectory), path)
        return path


def write_episode(episode: Episode, path: Path) -> None:
    """Writes an episode, atomically, to an ``.npz`` or to an ``.mp4`` with an ``.npz`` beside it.

    Raises:
        ValueError: if the ending of the path is neither.
        OSError: if it cannot be written.
    """
    arrays: dict[str, Any] = {
        "actions": episode.actions,
        "poses": episode.poses,
        "needles": episode.needles,
        "between": episode.between,
        "context": np.int64(episode.context),
        "seed": np.int64(episode.seed),
        "meta": np.array(json.dumps(episode.meta, sort_keys=True)),
    }
    if path.suffix == ".npz":
        arrays["video"] = episode.frames
    elif path.suffix != ".mp4":
        raise ValueError(f"{path}: an episode is an .npz or an .mp4 file")
    with atomic_path(path.with_suffix(".npz")) as temporary:
        np.savez_compressed(temporary, **arrays)
    if path.suffix == ".mp4":  # last, so that where there is a video, its actions are there too
        with atomic_path(path) as temporary:
            write_mp4(episode.frames, temporary, _FRAMES_A_SECOND)
