"""One network with a memory on first-person video: its data, plan and training.

A run is a :class:`VideoRun`; its folder holds ``run.json``, the data it simulated, the training with its
checkpoints and, once sampled (:mod:`arvdm_theory.video.samples`), ``truth`` and ``generated``. What may be shared
by several runs is put in their ``store``.
"""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from arvdm_theory.data.dataset import Alignment
from arvdm_theory.files import read_json, write_json
from arvdm_theory.networks.config import Architecture, DenoiserConfig
from arvdm_theory.networks.denoiser import Denoiser
from arvdm_theory.plan.plan import Plan
from arvdm_theory.training.checkpoint import differences, json_form, last_good
from arvdm_theory.training.config import TrainingConfig
from arvdm_theory.training.loop import Trained, train
from arvdm_theory.training.sources import data_moments
from arvdm_theory.video.data_sets import DataKind, Episodes, Split
from arvdm_theory.video.memory_plans import MemoryPlan, PlanKind
from arvdm_theory.video.presets import VideoPreset, preset
from arvdm_theory.video.windows import Told, WindowSource, find_windows

__all__ = [
    "COMPRESSIONS",
    "STRUCTURES",
    "Compression",
    "Structure",
    "VideoRun",
    "load_run",
    "run_store",
    "train_run",
]

Structure = Literal["none", "prepend", "concat", "cross"]
Compression = Literal["spatial", "temporal", "tokens"]

STRUCTURES: tuple[str, ...] = get_args(Structure)
COMPRESSIONS: tuple[str, ...] = get_args(Compression)

# Longer than any public data set's episodes by far.
_MOST_FRAMES = 100_000

# A network without memory is shown its short context as its twin with attention to a memory is shown both.
_CONTEXT_STRUCTURE = "cross"


@dataclass(frozen=True)
class VideoRun:
    """One network, and what it is trained on.

    Attributes:
        data: ``dmlab`` or ``minecraft``.
        preset: its size, by name.
        memory: how the network is shown what it remembers; ``none`` shows it the short context alone.
        memory_frames: M; None for the preset's. Up to that many, all networks have the same windows.
        compress: so many places, frames or tokens of the memory become one (1: no compression). The short context
            is compressed with it.
        compression: ``spatial`` (squares of places; ``compress`` is a square number), ``temporal`` (frames in a
            row) or ``tokens`` (a fixed number of learned ones).
        plan: ``outpainting`` or ``fifo``.
        architecture: one of the preset's; None for its first.
        told: what conditions networks on a frame: its pose (``poses``), or raw ``actions`` alone. A network that
            is shown remembered frames one by one (``concat``, ``cross``) has but each one's own to find it by.
        seed: of weights, batches and samples; simulated worlds and test windows are the same for every seed.
        worlds: seed of the simulated worlds, those to train on and those to test on. Presets were settled on 0.
        folder: of a data set; None simulates one.
        leads_to: of that data set, see :class:`~arvdm_theory.video.data_sets.Episodes`.
        size: of the pictures; None for the preset's.
        steps: of the training; None for the preset's.
        device: ``auto``, ``cuda``, ``mps`` or ``cpu``.

    Raises:
        ValueError: naming the field, or if a plan or a network of these numbers cannot be.
    """

    data: DataKind = "dmlab"
    preset: str = "cpu"
    memory: Structure = "cross"
    memory_frames: int | None = None
    compress: int = 1
    compression: Compression = "spatial"
    plan: PlanKind = "outpainting"
    architecture: Architecture | None = None
    told: Told = "poses"
    seed: int = 0
    worlds: int = 0
    folder: str | None = None
    leads_to: Alignment = "next"
    size: int | None = None
    steps: int | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        known_words = {
            "memory": STRUCTURES,
            "compression": COMPRESSIONS,
            "told": get_args(Told),
            "architecture": (None, *preset(self.data, self.preset).networks),
        }
        for name, known in known_words.items():
            if getattr(self, name) not in known:
                choices = ", ".join(str(word) for word in known if word)
                raise ValueError(f"{name} is one of {choices}, got {getattr(self, name)!r}")
        lowest = {"compress": 1, "seed": 0, "worlds": 0, "memory_frames": 1, "size": 12, "steps": 1}
        for name, least in lowest.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} is at least {least}, got {value}")
        if self.memory_frames is not None and self.memory_frames > _MOST_FRAMES:
            raise ValueError(f"memory_frames is at most {_MOST_FRAMES}, got {self.memory_frames}")
        if self.memory == "none" and self.compress > 1:
            raise ValueError("there is no memory to compress: choose prepend, concat or cross, or compress 1")
        _ = self.network(3, 0, 0.0, 1.0)

    @property
    def settings(self) -> VideoPreset:
        """The preset, with this run's size and number of steps."""
        chosen = preset(self.data, self.preset)
        training = chosen.training
        if self.steps is not None:
            training = dataclasses.replace(training, steps=self.steps, warmup=min(training.warmup, self.steps - 1))
        return dataclasses.replace(chosen, size=self.size or chosen.size, training=training)

    @property
    def windows(self) -> MemoryPlan:
        """The plan, and which frames are remembered, given and generated."""
        return self.windows_of(self.plan, self.settings.generated)

    def windows_of(self, kind: PlanKind, generated: int, noise: tuple[float, ...] = ()) -> MemoryPlan:
        """The same by another plan, with as many network evaluations a frame."""
        chosen = self.settings
        frames = chosen.memory if self.memory_frames is None else self.memory_frames
        plan = MemoryPlan(
            memory=0 if self.memory == "none" else frames,
            generated=generated,
            kind=kind,
            window=chosen.window,
            context=chosen.context,
            gap_for=max(frames, chosen.memory),
            reverse_steps=chosen.reverse_steps,
            schedule=chosen.schedule,
            noise=noise,
        )
        return dataclasses.replace(
            plan, reverse_steps=max(-(-chosen.reverse_steps * plan.stride // plan.window), 1)
        )

    @property
    def episodes(self) -> Episodes:
        """Where its episodes come from; networks of one seed of ``worlds`` have the same, whatever their own."""
        chosen = self.settings
        train_count, test_count = chosen.episodes
        folder = None if self.folder is None else Path(self.folder)
        return Episodes(
            self.data, chosen.size, chosen.trajectory, train_count, test_count, self.worlds, folder,
            self.leads_to, self.told,
        )  # fmt: skip

    @property
    def training(self) -> TrainingConfig:
        """How it is trained: on the AR steps after the given frames, which replace the initialisation stage."""
        windows = self.windows
        return dataclasses.replace(
            self.settings.training,
            ar_steps=windows.last,
            first_ar_step=windows.first,
            init_share=0.0,
            seed=self.seed,
            device=self.device,  # type: ignore[arg-type]
        )

    def network(self, channels: int, action_dim: int, mean: float, scale: float) -> DenoiserConfig:
        """The network, for pictures of so many channels and of this mean and scale."""
        chosen, windows = self.settings, self.windows
        memory: dict[str, Any] = {"structure": _CONTEXT_STRUCTURE if self.memory == "none" else self.memory}
        if self.compress > 1:
            memory |= self._compressed(windows.references)
        architecture, options = self.backbone
        config = DenoiserConfig(
            architecture,
            (chosen.size, chosen.size, channels),
            windows.window,
            windows.references,
            action_dim,
            chosen.prediction,
            mean,
            scale,
            {**options, "memory": memory},
        )
        with torch.device("meta"):
            _ = Denoiser(config)
        return config

    @property
    def backbone(self) -> tuple[Architecture, Mapping[str, Any]]:
        """The architecture, and its options without the memory's."""
        networks = self.settings.networks
        name: Architecture = next(iter(networks)) if self.architecture is None else self.architecture
        return name, networks[name]

    def _compressed(self, references: int) -> dict[str, Any]:
        if self.compression == "temporal":
            return {"compression": "temporal", "factor": self.compress}
        side = round(self.compress**0.5)
        if self.compression == "spatial":
            if side * side != self.compress:
                raise ValueError(f"compress is a square number for squares of places, got {self.compress}")
            return {"compression": "spatial", "factor": side}
        patch = self.backbone[1].get("patch", 1)
        places = (self.settings.size // patch) ** 2
        return {"compression": "tokens", "tokens": max(references * places // self.compress, 1)}

    def source(self, split: Split, store: Path, progress: bool = True) -> WindowSource:
        """Windows of a split: all that there are to train on, and to test those with queries.

        Raises:
            ValueError: if its episodes cannot be had or hold no window.
        """
        chosen, needed = self.settings, (self.windows.total_frames - 1) * self.settings.skip + 1
        if self.folder is None and needed > chosen.trajectory.frames:
            raise ValueError(
                f"windows of {needed} frames are needed, but simulated episodes have {chosen.trajectory.frames}: "
                "remember fewer frames, or take another preset"
            )
        episodes = self.episodes.load(split, store, progress)
        least = chosen.least if split == "test" else 0
        return WindowSource(find_windows(episodes, self.windows, least, chosen.skip, chosen.queries))

    def to_json(self) -> dict[str, Any]:
        """The run as plain JSON values."""
        return dataclasses.asdict(self)


def load_run(folder: Path) -> VideoRun:
    """The run that a folder holds, as its last good checkpoint says; ``run.json`` is a copy of that.

    Where the copy says something else, a warning names it.

    Raises:
        ValueError: if the folder holds no run.
        CheckpointError: if none of its checkpoints is whole.
    """
    told = _told(folder)
    found = last_good(folder / "training")
    if found is None:
        raise ValueError(f"{folder}: no run of a video network: there is no checkpoint in its folder training")
    path, _, metadata = found
    try:
        run = VideoRun(**metadata["run"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a checkpoint of a video network ({error})") from error
    for difference in differences(json_form(run.to_json()), told.get("run"), "run"):
        warnings.warn(f"{folder / 'run.json'} is not what was trained: {difference} (there: {path})", stacklevel=2)
    return run


def run_store(folder: Path) -> Path:
    """The folder of the data of a trained run; it is kept as a path from the run's own folder.

    Raises:
        ValueError: if the folder holds no run, or its data are not where they were.
    """
    store = _told(folder).get("store")
    if not isinstance(store, str) or Path(store).is_absolute():
        raise ValueError(f"{folder / 'run.json'}: not what a training run writes (store is {store!r})")
    place = Path(os.path.normpath(folder / store))
    if not place.is_dir():
        raise ValueError(f"{folder}: its data are not at {place}: move that folder along with the run's")
    return place


def _told(folder: Path) -> dict[str, Any]:
    try:
        return read_json(folder / "run.json")
    except FileNotFoundError as error:
        raise ValueError(f"{folder}: no run of a video network, no run.json, in this folder") from error
    except ValueError as error:
        raise ValueError(f"{error}: not what a training run writes") from error


def train_run(
    run: VideoRun, folder: Path, store: Path | None = None, progress: bool = True, plan: Plan | None = None
) -> Trained:
    """Trains a network, or goes on with it where an earlier call stopped.

    Args:
        run: the network.
        folder: of the run.
        store: folder for the data, which several runs may share; by default the run's own.
        progress: whether to show progress bars.
        plan: the run's with other levels of its references, to train on.

    Raises:
        ValueError: if the data cannot be had, or the folder holds another run.
        KeyboardInterrupt: after Ctrl-C, once a checkpoint is written.
    """
    store = folder / "data" if store is None else store
    source = run.source("train", store, progress)
    channels = source.frame_shape[-1]
    mean, scale = data_moments(source, run.windows.total_frames)
    # Rounded: the last digits of a mean may differ from one machine to the next, and the run goes on there.
    config = run.network(channels, source.action_dim, round(mean, 3), round(scale, 3))
    folder.mkdir(parents=True, exist_ok=True)
    note = {"run": run.to_json()}
    trained = train(
        config, run.windows.plan if plan is None else plan, source, run.training, folder / "training",
        progress=progress, note=note,
    )  # fmt: skip
    place = os.path.relpath(os.path.realpath(store), os.path.realpath(folder))
    write_json(folder / "run.json", {**note, "store": Path(place).as_posix()})
    return trained
