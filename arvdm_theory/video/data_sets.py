"""Episodes to train and test on: a folder laid out as TECO's, or a simulator's, made when it is first needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from arvdm_theory.data.cache import CachedClips, build_cache
from arvdm_theory.data.clips import ClipError
from arvdm_theory.data.dataset import Alignment, ClipDataset
from arvdm_theory.data.index import build_index
from arvdm_theory.data.npz import npz_array
from arvdm_theory.data.teco import TecoDmlab, TecoMinecraft
from arvdm_theory.files import locked
from arvdm_theory.video.simulators import SIMULATORS, DataKind, make_simulator
from arvdm_theory.video.simulators.recording import Recording
from arvdm_theory.video.simulators.trajectories import Trajectory
from arvdm_theory.video.windows import EpisodeSet, Told

__all__ = ["DataKind", "Episodes", "Split"]

Split = Literal["train", "test"]

_FORMATS: dict[str, type[TecoDmlab] | type[TecoMinecraft]] = {"npz": TecoDmlab, "mp4": TecoMinecraft}


@dataclass(frozen=True)
class Episodes:
    """Where episodes come from.

    Attributes:
        kind: ``dmlab`` or ``minecraft``: the simulator, and the layout of the files.
        size: height and width of the pictures; files of larger ones are averaged down.
        trajectory: how the simulator walks.
        train: simulated episodes of the training split.
        test: of the test split, in other worlds.
        seed: of the simulator.
        folder: of a data set that is there already; None simulates one.
        told: what networks are conditioned on, see :class:`~arvdm_theory.video.windows.EpisodeSet`.
        leads_to: whether action t of a file leads to frame t (``this``) or t + 1 (``next``), as simulated.

    Raises:
        ValueError: if the kind is unknown.
    """

    kind: DataKind
    size: int
    trajectory: Trajectory
    train: int
    test: int
    seed: int = 0
    folder: Path | None = None
    leads_to: Alignment = "next"
    told: Told = "poses"

    def __post_init__(self) -> None:
        if self.kind not in get_args(DataKind):
            raise ValueError(f"data are one of {', '.join(get_args(DataKind))}, got {self.kind!r}")

    def load(self, split: Split, store: Path, progress: bool = True) -> EpisodeSet:
        """The episodes of a split, simulated first if they are to be, and decoded once.

        Args:
            split: ``train`` or ``test``.
            store: folder for what is simulated, the index and the decoded pictures; made if need be.
            progress: whether to show progress bars.

        Raises:
            ClipError: if the folder has no such clips, or their size cannot be had.
            ValueError: if the simulator is not there, or its trajectory does not fit.
        """
        root, name = self.folder, f"{self.kind}-{self.size}"
        if root is None:
            walk = self.trajectory
            name += f"-{walk.kind}{'-between' if walk.between else ''}-{walk.frames}"
            name += f"-slip-{walk.slip:g}" if walk.slip else ""
            name += "" if walk.farthest is None else f"-{walk.farthest}"
            name += f"-worlds-{self.seed}" if self.seed else ""
            root = store / name
            self._simulate(root, progress)
        elif not root.is_dir():
            raise ClipError(f"{root}: no such folder")
        form = _FORMATS[SIMULATORS[self.kind].layout](split)
        cache = store / "decoded" / f"{name}-{split}"
        with locked(cache):
            dataset = ClipDataset(build_index(root, form, cache, progress), self.leads_to, size=self.size)
            clips = build_cache(dataset, cache, progress)
        rows = [clips[item] for item in range(len(clips))]
        return EpisodeSet(
            [clip.frames for clip in rows],
            clips.names,
            _poses(root, clips),
            [np.asarray(clip.actions, dtype=np.int64) for clip in rows],
            form.action_count,
            self.told,
        )

    def _simulate(self, root: Path, progress: bool) -> None:
        simulator = make_simulator(self.kind, self.size)
        recording = Recording(simulator, self.trajectory, self.seed, SIMULATORS[self.kind].layout)
        with locked(root):
            made = recording.write(root, self.train, self.test)
            for _ in tqdm(made, "simulating", self.train + self.test, disable=not progress or None, leave=False):
                pass


def _poses(root: Path, clips: CachedClips) -> list[NDArray[np.float64]] | None:
    """The poses of every clip, as the simulators write them; None for a data set without."""
    found: list[NDArray[np.float64]] = []
    for number, name in enumerate(clips.names):
        path, start = name.rsplit(":", 1)
        try:
            poses = npz_array((root / path).with_suffix(".npz"), "poses")
        except ClipError:
            if number == 0:
                return None
            raise
        frames = len(clips[number].frames)
        part = np.asarray(poses[int(start) : int(start) + frames], dtype=np.float64)
        if part.shape != (frames, 3):
            raise ClipError(f"{path}: poses of shape ({frames}, 3) are expected, got {part.shape}")
        found.append(part)
    return found
