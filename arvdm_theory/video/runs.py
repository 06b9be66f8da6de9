"""One network with a memory on first-person video: its data, plan, training, samples and scores.

A run is a :class:`VideoRun`; its folder holds ``run.json``, the data it simulated, the training with its
checkpoints and, once sampled, ``truth`` and ``generated``. What may be shared by several runs is put in their
``store``.
"""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from arvdm_theory.data.clips import to_unit
from arvdm_theory.data.dataset import Alignment
from arvdm_theory.diffusion.sampler import generate
from arvdm_theory.diffusion.scores import GuidedScore
from arvdm_theory.files import atomic_path, read_json, write_json
from arvdm_theory.interfaces import VideoBatch
from arvdm_theory.networks.config import Architecture, DenoiserConfig
from arvdm_theory.networks.denoiser import Denoiser
from arvdm_theory.number import Number
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.stage import Stage
from arvdm_theory.training.checkpoint import differences, json_form, last_good, load_denoiser
from arvdm_theory.training.config import TrainingConfig
from arvdm_theory.training.loop import Trained, train
from arvdm_theory.training.sources import data_moments
from arvdm_theory.video.baselines import show_baselines
from arvdm_theory.video.data_sets import DataKind, Episodes, Split
from arvdm_theory.video.intervals import interval_columns
from arvdm_theory.video.memory_plans import MemoryPlan, PlanKind
from arvdm_theory.video.metrics import psnr, ssim
from arvdm_theory.video.presets import VideoPreset, preset
from arvdm_theory.video.retrieval import SOURCES, retrieval_summary, score_queries
from arvdm_theory.video.windows import Told, Window, Windows, WindowSource, find_windows

__all__ = [
    "COMPRESSIONS",
    "STRUCTURES",
    "Compression",
    "Samples",
    "Structure",
    "VideoRun",
    "continue_clips",
    "load_run",
    "one_an_episode",
    "quality_summary",
    "run_store",
    "sample_folder",
    "sample_run",
    "score_samples",
    "summarise",
    "train_run",
    "write_samples",
]

Structure = Literal["none", "prepend", "concat", "cross"]
Compression = Literal["spatial", "temporal", "tokens"]
Memory = Literal["own", "shuffled memory", "memory of another world"]

STRUCTURES: tuple[str, ...] = get_args(Structure)
COMPRESSIONS: tuple[str, ...] = get_args(Compression)

_OTHER_MEMORIES: tuple[Memory, ...] = ("shuffled memory", "memory of another world")

# Longer than any public data set's episodes by far.
_MOST_FRAMES = 100_000

# Windows at once: all that a preset samples, so that networks look at what they remember once a window.
_BATCH = 128

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


@dataclass(frozen=True, eq=False)
class Samples:
    """What a network made of windows it has never seen.

    Attributes:
        windows: which.
        names: of each.
        truth: uint8, (windows, frames, height, width, channels): given and true generated frames.
        generated: the same; given frames, then the network's, rounded to bytes.
        given: how many frames are given.
    """

    windows: tuple[Window, ...]
    names: tuple[str, ...]
    truth: NDArray[np.uint8]
    generated: NDArray[np.uint8]
    given: int


def sample_run(
    run: VideoRun, denoiser: Denoiser, source: WindowSource, count: int | None = None, batch: int = _BATCH,
    progress: bool = True, memory: Memory = "own", guidance: float = 1.0, sampled: Plan | None = None,
) -> Samples:  # fmt: skip
    """Generates the last frames of test windows, one window an episode in turn, by DDIM steps.

    Args:
        run: what the network was trained for.
        denoiser: the network.
        source: of the test split.
        count: how many windows; the preset's number by default, and no more than there are.
        batch: the most windows at once.
        progress: whether to show a progress bar.
        memory: what the network is shown as remembered: the window's ``own`` frames, the same in another order, or
            those of another world, each told to have been taken where the own one was. A network that does no
            worse with them does not remember.
        guidance: ω of history guidance, see :class:`~arvdm_theory.diffusion.scores.GuidedScore`; 1 is without.
        sampled: the run's plan with other levels of its reverse steps or references, to sample with.

    Raises:
        ValueError: for no window, or if there is no other world.
    """
    count = run.settings.windows if count is None else count
    if count < 1:
        raise ValueError(f"at least one window is sampled, got {count}")
    chosen = one_an_episode(source.windows, count)
    plan, clips = source.plan, source.take(chosen)
    given = clips if memory == "own" else _with_memory(clips, source, chosen, memory)
    told = source.told(chosen, run.windows.origin)
    made = continue_clips(run, denoiser, plan, given, batch, progress, told, guidance, sampled)
    length = plan.prompt + plan.generated
    truth, generated = (
        torch.round((values[:, :length].clamp(-1, 1) + 1) * 127.5).to(torch.uint8)
        .reshape(len(chosen), length, *source.frame_shape).numpy()
        for values in (clips.frames, made)
    )  # fmt: skip
    generated[:, : plan.prompt] = truth[:, : plan.prompt]
    windows = tuple(source.windows[number] for number in chosen)
    names = tuple(_window_name(source.episodes.names[window.episode], window.start) for window in windows)
    return Samples(windows, names, truth, generated, plan.prompt)


def _with_memory(clips: VideoBatch, source: WindowSource, chosen: list[int], memory: Memory) -> VideoBatch:
    """The clips with other frames in the place of those that are remembered."""
    plan, frames = source.plan, clips.frames.clone()
    part = plan.remembered(plan.prompt)
    held = frames[:, part.start : part.stop]
    if memory == "shuffled memory":
        # Each takes the place of the one before it in a random order: none stays.
        order = np.random.default_rng(0).permutation(len(part))
        held[:, order] = held[:, np.roll(order, 1)]
    else:
        episodes = source.windows.episode[chosen]
        others = [np.flatnonzero(episodes != episode) for episode in episodes]
        if not all(len(other) for other in others):
            raise ValueError("the memory of another world needs windows of two episodes at the least")
        rng = np.random.default_rng(0)
        held = clips.frames[[int(rng.choice(other)) for other in others], part.start : part.stop]
    frames[:, part.start : part.stop] = held
    return VideoBatch(frames, clips.actions)


def continue_clips(
    run: VideoRun, denoiser: Denoiser, plan: MemoryPlan, clips: VideoBatch, batch: int = _BATCH,
    progress: bool = True, told: Callable[[Stage], Tensor] | None = None, guidance: float = 1.0,
    sampled: Plan | None = None,
) -> Tensor:  # fmt: skip
    """Clips with their first frames given and the rest generated by DDIM steps, (clips, frames, d), on [-1, 1].

    Clips of one number start from the same noise, whatever is given. What the network is told of a frame is the
    clips' own, or ``told`` at every stage; ``guidance`` is the ω of history guidance; ``sampled`` has levels in
    place of the plan's.
    """
    score: Any = denoiser.as_score(batch)
    if guidance != 1:
        score = GuidedScore(guidance, score)
    levels = plan.plan if sampled is None else sampled
    return generate(
        score, levels, plan.last, len(clips.frames), clips.frames.shape[-1], step="ddim",
        seed=run.seed, actions=clips.actions if told is None else told, prompt=clips.frames[:, : plan.prompt],
        batch=batch, dtype=torch.float32, progress=progress,
    )  # fmt: skip


def one_an_episode(windows: Windows, count: int) -> list[int]:
    """Numbers of ``count`` windows in order: one of every episode before a second of any; always the same."""
    order = np.random.default_rng(0).permutation(len(windows)).tolist()
    seen: dict[int, int] = {}
    rank = {}
    for number in order:
        episode = int(windows.episode[number])
        rank[number] = seen.get(episode, 0)
        seen[episode] = rank[number] + 1
    return sorted(sorted(order, key=lambda number: rank[number])[:count])


def _window_name(episode: str, start: int) -> str:
    path, first = episode.rsplit(":", 1)
    return f"{path.rsplit('.', 1)[0].replace('/', '-')}-{int(first) + start:05d}"


def write_samples(samples: Samples, folder: Path) -> None:
    """Writes every window to ``truth/NAME.npz`` and ``generated/NAME.npz``, as ``arvdm video evaluate`` reads."""
    for what, clips in (("truth", samples.truth), ("generated", samples.generated)):
        (folder / what).mkdir(parents=True, exist_ok=True)
        for name, clip, window in zip(samples.names, clips, samples.windows, strict=True):
            with atomic_path(folder / what / f"{name}.npz") as temporary:
                queries = np.array(window.queries, dtype=np.int64).reshape(-1, 2)
                np.savez_compressed(temporary, video=clip, needles=queries, given=np.int64(samples.given))


def score_samples(
    samples: Samples, source: WindowSource, others: Mapping[str, Samples] | None = None
) -> pd.DataFrame:
    """Scores every query against the rest of its episode; every generated frame where episodes have no poses.

    Args:
        samples: what a network made.
        source: of its windows.
        others: further samples of the same windows, by name.

    Returns:
        the columns of :func:`~arvdm_theory.video.retrieval.score_queries`, or without poses episode, source, psnr
        and ssim; and ``ahead``: how many frames after the last given one.

    Raises:
        ValueError: if pictures are too small to be scored.
    """
    episodes, plan, skip = source.episodes, source.plan, source.windows.skip
    if episodes.poses is None:
        return pd.concat([_quality(samples, number) for number in range(len(samples.windows))], ignore_index=True)
    tables = []
    asked_of = [[asked for _, asked in window.queries] for window in samples.windows]
    baselines = show_baselines(source.windows, source.numbers(samples.windows), asked_of)
    for number, window in enumerate(samples.windows):
        seen, asked = (list(part) for part in zip(*window.queries, strict=True))
        made = {name: part.generated[number, asked] for name, part in (others or {}).items()}
        table = score_queries(
            np.asarray(episodes.frames[window.episode]),
            episodes.poses[window.episode],
            [window.start + skip * frame for frame in asked],
            [window.start + skip * frame for frame in seen],
            samples.generated[number, asked],
            context=plan.near,
            skip=skip,
            last=[window.start + skip * (plan.prompt - 1)] * len(asked),
            others=made | baselines[number].frames,
            copied=[[window.start + skip * frame for frame in part] for part in baselines[number].copied],
            seed=number,
            episode=window.episode,
        )
        table["ahead"] = (table["query"] - window.start) // skip - plan.prompt + 1
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _quality(samples: Samples, number: int) -> pd.DataFrame:
    """PSNR and SSIM of one window's generated frames, and of repeating the last given one."""
    truth = to_unit(samples.truth[number])
    asked = truth[samples.given :]
    own = to_unit(samples.generated[number, samples.given :])
    held = np.broadcast_to(truth[samples.given - 1], asked.shape)
    ahead = range(1, len(asked) + 1)
    parts = [
        pd.DataFrame({
            "episode": samples.windows[number].episode, "ahead": ahead, "source": name,
            "psnr": psnr(asked, shown), "ssim": ssim(asked, shown),
        })
        for name, shown in ((SOURCES[0], own), (SOURCES[2], held))
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def summarise(scores: pd.DataFrame) -> pd.DataFrame:
    """Rates and qualities with 95 % intervals clustered by episode, a row a source.

    See :func:`~arvdm_theory.video.retrieval.retrieval_summary`; without queries the qualities alone.
    """
    return retrieval_summary(scores) if "success" in scores else quality_summary(scores)


def quality_summary(scores: pd.DataFrame) -> pd.DataFrame:
    """Columns source, psnr, psnr_low, psnr_high, ssim, ssim_low, ssim_high, frames and episodes."""
    rows = []
    for source, group in scores.groupby("source", sort=False):
        row: dict[str, Any] = {"source": source}
        for name in ("psnr", "ssim"):
            row |= interval_columns(name, Number.clustered(group[name], group["episode"]))
        rows.append({**row, "frames": len(group), "episodes": group["episode"].nunique()})
    return pd.DataFrame(rows)


def sample_folder(run: VideoRun, folder: Path, count: int | None = None, progress: bool = True) -> tuple[
    Samples, pd.DataFrame
]:  # fmt: skip
    """Samples a trained run's folder, and scores what came out.

    Raises:
        ValueError: if the folder holds no trained network, or the data cannot be had.
    """
    source, network = run.source("test", run_store(folder), progress), load_denoiser(folder / "training")
    samples = sample_run(run, network, source, count, progress=progress)
    others: dict[str, Samples] = {}
    if run.memory != "none" and source.episodes.poses is not None:
        others = {
            f"generated with {memory}": sample_run(run, network, source, count, progress=progress, memory=memory)
            for memory in _OTHER_MEMORIES
        }
    return samples, score_samples(samples, source, others)
