"""What a trained network makes of windows that it has never seen, and how well that is what was there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from arvdm_theory.data.clips import to_unit
from arvdm_theory.diffusion.sampler import generate
from arvdm_theory.diffusion.scores import GuidedScore
from arvdm_theory.files import atomic_path
from arvdm_theory.interfaces import VideoBatch
from arvdm_theory.networks.denoiser import Denoiser
from arvdm_theory.number import Number
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.stage import Stage
from arvdm_theory.training.checkpoint import load_denoiser
from arvdm_theory.video.baselines import show_baselines
from arvdm_theory.video.intervals import interval_columns
from arvdm_theory.video.memory_plans import MemoryPlan
from arvdm_theory.video.metrics import psnr, ssim
from arvdm_theory.video.retrieval import SOURCES, retrieval_summary, score_queries
from arvdm_theory.video.runs import VideoRun, run_store
from arvdm_theory.video.windows import Window, Windows, WindowSource

__all__ = [
    "Samples",
    "continue_clips",
    "one_an_episode",
    "quality_summary",
    "sample_folder",
    "sample_run",
    "score_samples",
    "summarise",
    "write_samples",
]

Memory = Literal["own", "shuffled memory", "memory of another world"]

_OTHER_MEMORIES: tuple[Memory, ...] = ("shuffled memory", "memory of another world")

# Windows at once: all that a preset samples, so that networks look at what they remember once a window.
_BATCH = 128


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
