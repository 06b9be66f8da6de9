"""The needle study: memory bottleneck and best retrieval rate against memory length, exact and played."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from arvdm_theory.files import write_json
from arvdm_theory.laws.gridworld.retrieval import (
    Guess,
    NeedleError,
    Retrieval,
    TooManyCellsError,
    expected_retrieval,
    largest_frame_entropy,
    retrieval_along,
    retrieval_bounds,
    sampled_retrieval,
)
from arvdm_theory.laws.gridworld.video import GridVideo
from arvdm_theory.laws.gridworld.view import View
from arvdm_theory.laws.gridworld.world import RandomWalk, World, maze, ring, torus, tour
from arvdm_theory.plan.methods import outpainting
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.references import References
from arvdm_theory.provenance import provenance

__all__ = ["NeedleConfig", "NeedleResult", "headline", "run_needle", "write_needle"]

# Frames of one sampled video that a figure may show.
_SHOWN = 12


@dataclass(frozen=True)
class NeedleConfig:
    """What the study runs.

    Attributes:
        world: ``ring``, ``torus`` or ``maze``; the last two as nearly square as ``cells`` allows.
        cells: how many cells the map has.
        colours: how many colours, all equally likely.
        frames: of a video, the Δ frames of the initialisation stage included.
        path: ``random`` (a random walk) or ``given`` (a tour that explores the map).
        memory: memory lengths m: R_k is the last m frames.
        view: ``patch``, ``topdown`` or ``firstperson``.
        size: pixels a side.
        window: w = Δ, frames made in one AR step.
        stay: the random walk's probability of standing still.
        guess: ``best`` (the best generator) or ``sample`` (it samples the true conditional).
        walks: games played for each memory length; 0 for none.
        seed: of the maze and of the games.
    """

    world: Literal["ring", "torus", "maze"] = "ring"
    cells: int = 12
    colours: int = 4
    frames: int = 60
    path: Literal["given", "random"] = "random"
    memory: tuple[int, ...] = (0, 1, 2, 4, 6, 8, 12, 16, 24, 32)
    view: Literal["patch", "topdown", "firstperson"] = "patch"
    size: int = 16
    window: int = 1
    stay: float = 0.0
    guess: Guess = "best"
    walks: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.world not in ("ring", "torus", "maze"):
            raise NeedleError(f"a world is 'ring', 'torus' or 'maze', got {self.world!r}")
        if self.path not in ("given", "random"):
            raise NeedleError(f"a path is 'given' or 'random', got {self.path!r}")
        if not self.memory or min(self.memory) < 0 or len(set(self.memory)) < len(self.memory):
            raise NeedleError(f"memory lengths must be different and not negative, got {list(self.memory)}")
        if self.window < 1 or self.frames % self.window or self.frames < 2 * self.window:
            raise NeedleError(
                f"the frames must be at least two whole windows of {self.window}, got {self.frames} frames"
            )
        if self.walks < 0 or self.walks == 1:
            raise NeedleError(f"a standard error needs at least 2 walks (0: play none), got {self.walks}")

    @property
    def ar_steps(self) -> int:
        """K; the first window is the initialisation stage's."""
        return self.frames // self.window - 1

    def plan(self, memory: int) -> Plan:
        """The plan with w = Δ that remembers the last ``memory`` frames."""
        return outpainting(self.window, References.last(memory))

    def map(self) -> World:
        """The world."""
        if self.world == "ring":
            return ring(self.cells)
        rows = next((r for r in range(math.isqrt(max(self.cells, 0)), 1, -1) if self.cells % r == 0), None)
        if rows is None:
            raise NeedleError(
                f"a {self.world} needs a number of cells with at least 2 rows and 2 columns, like 12 or 36; got "
                f"{self.cells}"
            )
        columns = self.cells // rows
        return torus(rows, columns) if self.world == "torus" else maze(rows, columns, self.seed)

    def video(self) -> GridVideo:
        """The video."""
        world = self.map()
        path = RandomWalk(stay=self.stay) if self.path == "random" else tour(world, self.frames)
        return GridVideo(world, View(self.view, self.size), self.colours, path=path)


@dataclass(frozen=True)
class NeedleResult:
    """What the study found.

    Attributes:
        config: what was run.
        table: a row a memory length 0..max: ``memory``, ``mb_total`` and ``mb_per_step`` (nats), ``frame_rate``,
            ``cell_rate``, ``lost_per_revisit`` (nats), ``frame_rate_low`` and ``frame_rate_high`` (what the
            inequalities leave open at that loss), all exact; where games were played also ``played_*`` and
            ``played_*_error``, one standard error.
        notes: why a column is empty.
        pictures: the first frames of one video, (n, size, size, 3).
    """

    config: NeedleConfig
    table: pd.DataFrame
    notes: Mapping[str, str] = field(default_factory=dict)
    pictures: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 1, 1, 3)))

    @property
    def asked(self) -> pd.DataFrame:
        """The rows of the memory lengths that were asked for."""
        return self.table[self.table["memory"].isin(self.config.memory)]


def run_needle(config: NeedleConfig) -> NeedleResult:
    """Runs the study.

    Raises:
        NeedleError, GridworldError: if the configuration does not fit together.
    """
    video, notes = config.video(), dict[str, str]()
    exact = _exact(video, config, notes)
    log_alphabet = largest_frame_entropy(video)
    if exact[0].revisits == 0:
        notes["frame_rate"] = "no frame is a revisit"
    if exact[0].needles == 0:
        notes["cell_rate"] = "no cell is seen again"
    rows = []
    for memory, result in enumerate(exact):
        low, high = math.nan, math.nan
        if not math.isnan(result.lost_per_revisit):
            low, high = retrieval_bounds(result.lost_per_revisit, log_alphabet)
        row = {
            "memory": memory,
            "mb_total": result.total,
            "mb_per_step": result.total / config.ar_steps,
            "frame_rate": result.frame_rate,
            "cell_rate": result.needle_rate,
            "lost_per_revisit": result.lost_per_revisit,
            "frame_rate_low": low,
            "frame_rate_high": high,
        }
        if config.walks and memory in config.memory:
            row |= _played(video, config, memory)
        rows.append(row)
    first = min(_SHOWN, config.frames)
    pictures = video.sample(1, first, torch.Generator().manual_seed(config.seed)).frames[0].numpy()
    return NeedleResult(config, pd.DataFrame(rows), notes, pictures)


def _exact(video: GridVideo, config: NeedleConfig, notes: dict[str, str]) -> tuple[Retrieval, ...]:
    """Exact results for every memory length from 0 to the longest."""
    lengths = range(max(config.memory) + 1)
    if (path := video.given_path) is not None:
        return tuple(retrieval_along(video, config.plan(m), path, config.ar_steps, config.guess) for m in lengths)
    try:
        return expected_retrieval(video, lengths, config.ar_steps, config.window, config.guess)
    except TooManyCellsError as error:
        notes["frame_rate"] = str(error)
        return expected_retrieval(video, lengths, config.ar_steps, config.window, config.guess, whole_frames=False)


def _played(video: GridVideo, config: NeedleConfig, memory: int) -> dict[str, float]:
    # One seed a memory length, so that a row does not depend on which other rows were asked for.
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + memory)
    played = sampled_retrieval(video, config.plan(memory), config.ar_steps, config.walks, generator, config.guess)
    return {
        "played_mb_per_step": played.mean.total / config.ar_steps,
        "played_mb_per_step_error": played.total_error / config.ar_steps,
        "played_frame_rate": played.mean.frame_rate,
        "played_frame_rate_error": played.frame_rate_error,
        "played_cell_rate": played.mean.needle_rate,
        "played_cell_rate_error": played.needle_rate_error,
    }


def write_needle(result: NeedleResult, path: str | Path) -> None:
    """Writes ``rows`` (the memory lengths asked for), ``curve`` (all), ``notes`` and their provenance as JSON.

    Raises:
        OSError: if it cannot be written.
    """
    exact = [name for name in result.table.columns if not name.startswith("played_")]
    content: dict[str, Any] = {
        **provenance(asdict(result.config), result.config.seed),
        "rows": result.asked.to_dict("records"),
        "curve": {name: result.table[name].tolist() for name in exact},
        "notes": dict(result.notes),
    }
    write_json(path, content)


def headline(result: NeedleResult) -> str:
    """The table as text: exact values, and played ones with one standard error."""
    config, rows = result.config, result.asked.sort_values("memory")
    names = {
        "memory": "m",
        "mb_total": "MB total",
        "mb_per_step": "MB per step",
        "frame_rate": "whole frame",
        "cell_rate": "per cell",
        "lost_per_revisit": "nats lost a revisit",
        "frame_rate_high": "Fano bound",
    }
    shown = rows[list(names)].rename(columns=names)
    played = {"mb_per_step": "played MB", "frame_rate": "played frame", "cell_rate": "played cell"}
    for column, name in played.items():
        if f"played_{column}" in rows:
            pairs = zip(rows[f"played_{column}"], rows[f"played_{column}_error"], strict=True)
            shown[name] = [f"{mean:.4f}±{error:.4f}" if mean == mean else "-" for mean, error in pairs]
    text = shown.to_string(index=False, na_rep="-", float_format=lambda value: f"{value:.6f}")
    lines = [
        f"{config.world} of {config.cells} cells, {config.colours} colours, {config.path} path, "
        f"{config.view} view: {config.frames} frames, {config.ar_steps} AR steps of {config.window}",
        "MB in nats; rates of the "
        + ("best generator" if config.guess == "best" else "generator that samples the true conditional")
        + " on revisits: every cell of the frame right, and per cell seen before",
        "",
        text,
        *(f"{name}: {reason}" for name, reason in result.notes.items()),
    ]
    return "\n".join(lines)
