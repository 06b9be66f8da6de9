"""Does the best grid carry over to networks on first-person video, and the best noise of the references?

A network with a memory is trained once in each of several simulated worlds, on levels everywhere between T and 0,
and samples windows of other worlds by DDIM steps on grids of M steps: those that people use, the one of the best
Girsanov bound (KLUB; found for the exponential integrator, as DDIM steps have none) and the one of the best
KL(clean). Both are found on the Gaussian video that is fitted to the training episodes, in its principal
components: neither the network nor a test frame is asked.

What is measured are PSNR and SSIM of the queries (frames whose view was in the memory alone), and the Fréchet
distance between true and generated clips in a fixed feature space: a small convolutional network of random weights
(Naeem et al. 2020 find such spaces to rank generators about as trained ones do).

The second table does the same for noise a lag of the references: a network for each profile, one of which is that
of least KL(clean) for the fitted video.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import t as student
from torch import Tensor
from torch.nn import functional

from arvdm_theory.choose.context_noise import context_noise, noised_lags
from arvdm_theory.choose.schedules import optimal_schedule
from arvdm_theory.data.clips import to_unit
from arvdm_theory.experiments.record import Cell, run_cells
from arvdm_theory.experiments.schedules.run import GRIDS
from arvdm_theory.experiments.video.run import network_name
from arvdm_theory.laws.fitting import fit_video
from arvdm_theory.laws.gaussian import GaussianVideo
from arvdm_theory.networks.denoiser import Denoiser
from arvdm_theory.number import Number
from arvdm_theory.plan.plan import Plan
from arvdm_theory.training.checkpoint import load_denoiser
from arvdm_theory.video.data_sets import DataKind
from arvdm_theory.video.frechet import feature_distance
from arvdm_theory.video.metrics import psnr, ssim
from arvdm_theory.video.runs import VideoRun, train_run
from arvdm_theory.video.samples import Samples, one_an_episode, sample_run
from arvdm_theory.video.windows import WindowSource

__all__ = ["OURS", "PROFILES", "SIZES", "Size", "headline", "random_features", "summary", "video_schedules"]

OURS = "kl"
"""The grid, and the noise profile, that are found by the least KL(clean) of the fitted video."""

PROFILES = ("clean", "all 0.1", OURS)
"""Noise of the references: a level for all, or one a lag."""

_FOUND = (OURS, "girsanov")
_QUANTITIES = ("psnr", "ssim", "frechet")
# Levels that a lag may be noised to, and the most profiles that are looked at.
_LEVELS, _MOST = (0.0, 0.02, 0.1, 0.3, 1.0), 150
# Principal components of the fitted video, and numbers of a feature.
_MODES, _FEATURES = 8, 32


@dataclass(frozen=True)
class Size:
    """How large a run is.

    Attributes:
        preset: of the networks.
        updates: of their training; None for the preset's.
        data: which stand-ins.
        noised: those of which a network a profile is trained, too.
        worlds: seeds of the simulated worlds: a network each.
        steps: M of the grids.
        noise_steps: M of the noise profiles, on the preset's schedule.
        windows: that are sampled.
        episodes: of training, that the Gaussian is fitted to.
        iterations: of a descent.
    """

    preset: str
    updates: int | None
    data: tuple[DataKind, ...]
    noised: tuple[DataKind, ...]
    worlds: tuple[int, ...]
    steps: tuple[int, ...]
    noise_steps: int
    windows: int
    episodes: int
    iterations: int


SIZES = {
    "smoke": Size("smoke", None, ("dmlab",), ("dmlab",), (0, 1), (3,), 3, 3, 4, 2),
    "cpu": Size("cpu-slip", 400, ("dmlab",), ("dmlab",), (1, 2, 3), (3, 5, 8, 16), 16, 100, 64, 40),
    "gpu": Size("gpu", None, ("dmlab", "minecraft"), ("dmlab",), (1, 2, 3), (3, 5, 8, 16, 32), 32, 400, 64, 60),
}


@dataclass(frozen=True)
class _World:
    """One network's world: what it is trained on, what it is asked, and the Gaussian video of it."""

    run: VideoRun
    size: Size
    folder: Path
    progress: bool

    @property
    def store(self) -> Path:
        return self.folder / "data"

    @cached_property
    def source(self) -> WindowSource:
        return self.run.source("test", self.store, self.progress)

    @cached_property
    def fitted(self) -> GaussianVideo:
        """In coordinates of the principal components, and levels of pixels."""
        episodes, skip = self.run.source("train", self.store, self.progress).episodes, self.run.settings.skip
        clips = [to_unit(np.asarray(frames[::skip])) for frames in episodes.frames[: self.size.episodes]]
        video, _ = fit_video(clips, _MODES, held_out=0.0, progress=self.progress)
        return video.pixels().span

    def network(self, levels: tuple[float, ...] = ()) -> Denoiser:
        """The trained network, or the one whose references are noised to ``levels`` a lag."""
        plan, name = self.run.windows.plan, network_name(self.run)
        if any(levels):
            plan, name = noised_lags(plan, levels), f"{name}-noise-{'-'.join(f'{each:g}' for each in levels)}"
        place = self.folder / "networks" / name
        if not (place / "run.json").exists():
            train_run(self.run, place, self.store, self.progress, plan)
        return load_denoiser(place / "training")

    def plan(self, steps: int, spacing: str = "cosine") -> Plan:
        """The run's plan with M steps between the ends of its own levels."""
        return dataclasses.replace(
            self.run.windows.plan, reverse_steps=steps, init_steps=steps, ar_grid=(), init_grid=(), spacing=spacing
        )

    def grid(self, name: str, steps: int) -> list[float]:
        """The levels of a grid, M + 1 of them."""
        if name not in _FOUND:
            return [row[0] for row in self.plan(steps, name).ar_grid]
        found = optimal_schedule(
            self.fitted, self.plan(steps), self.run.windows.last, "kl" if name == OURS else "girsanov",
            step="ddim" if name == OURS else "exponential", iterations=self.size.iterations,
            starts=("flow:1", "flow:3", "cosine"),
        )  # fmt: skip
        return [row[0] for row in found.plan.ar_grid]

    def profile(self, name: str) -> tuple[float, ...]:
        """The levels of a noise profile, the newest frame's first."""
        lags = self.run.windows.references
        if name == "clean":
            return (0.0,) * lags
        if name == "all 0.1":
            return (0.1,) * lags
        found = context_noise(self.fitted, self.plan(self.size.noise_steps), self.run.windows.last + 1, _LEVELS,
                              step="ddim", criteria=("kl",), most=_MOST)  # fmt: skip
        return tuple(float(found[f"lag_{lag + 1}"].iloc[0]) for lag in range(lags))

    def sampled(self, network: Denoiser, plan: Plan) -> Samples:
        return sample_run(self.run, network, self.source, self.size.windows, progress=self.progress, sampled=plan)

    def scores(self, samples: Samples) -> dict[str, NDArray[np.float64]]:
        """PSNR and SSIM of every query, and their episodes."""
        at = [(n, asked) for n, window in enumerate(samples.windows) for _, asked in window.queries]
        windows, frames = (np.array(part) for part in zip(*at, strict=True))
        pair = samples.truth[windows, frames], samples.generated[windows, frames]
        episode = np.array([window.episode for window in samples.windows])[windows]
        return {"psnr": psnr(*pair), "ssim": ssim(*pair), "episode": episode.astype(np.float64)}

    @cached_property
    def other_truth(self) -> NDArray[np.float64]:
        """Features of other true clips, as many: what sampling alone makes of a distance."""
        windows = self.source.windows
        chosen = set(one_an_episode(windows, self.size.windows))
        rest = [number for number in one_an_episode(windows, 2 * self.size.windows) if number not in chosen]
        clips = self.source.take(rest).frames[:, self.source.plan.prompt :][:, : self.source.plan.generated]
        shape = (*clips.shape[:2], *self.source.frame_shape)
        return random_features(torch.round((clips.reshape(shape) + 1) * 127.5).to(torch.uint8).numpy())


def video_schedules(
    size: str, folder: Path, progress: bool = True, only: DataKind | None = None
) -> dict[str, pd.DataFrame]:
    """Trains, samples and measures, or goes on with it.

    Args:
        size: of :data:`SIZES`.
        folder: where tables, data and networks go.
        progress: whether to show progress bars.
        only: of the stand-ins, the one to work on; all, if left out.

    Returns:
        ``video-schedules-levels``: a row a level of every grid. ``video-schedules``: a row a (data, worlds, M,
        grid, quantity): ``psnr`` in dB and ``ssim`` of the queries, ``frechet`` of the generated clips; ``stderr``
        over episodes (of ``frechet``: none); ``gain``, the grid :data:`OURS` less this one, on the same windows,
        with its ``gain_stderr``. The grid ``true clips`` has the distance between true clips and others.
        ``video-schedules-noise``: the same a (data, worlds, profile); ``levels`` by lag.
    """
    chosen = SIZES[size]
    data = chosen.data if only is None else (only,)

    @lru_cache(maxsize=2)
    def world(kind: DataKind, worlds: int) -> _World:
        run = VideoRun(kind, chosen.preset, told="reckoned", worlds=worlds, steps=chosen.updates)
        return _World(run, chosen, folder, progress)

    where = [{"data": kind, "worlds": worlds} for kind in data for worlds in chosen.worlds]
    grids: list[Cell] = [
        {**place, "reverse_steps": steps, "grid": grid}
        for place in where for steps in chosen.steps for grid in GRIDS
    ]  # fmt: skip
    levels = run_cells("video-schedules-levels", grids, partial(_levels, world), folder, progress=progress)
    cells: list[Cell] = [{**place, "reverse_steps": steps} for place in where for steps in chosen.steps]
    noised: list[Cell] = [{**place} for place in where if place["data"] in chosen.noised]
    found = {
        "video-schedules-levels": levels,
        "video-schedules": run_cells(
            "video-schedules", cells, partial(_grids, world, levels), folder, progress=progress
        ),
    }
    if noised:
        found["video-schedules-noise"] = run_cells(
            "video-schedules-noise", noised, partial(_noised, world), folder, progress=progress
        )
    return found


def _levels(world: Any, cell: Cell) -> pd.DataFrame:
    found = world(cell["data"], cell["worlds"]).grid(cell["grid"], cell["reverse_steps"])
    return pd.DataFrame({"row": range(len(found)), "level": found})


def _grids(world: Any, levels: pd.DataFrame, cell: Cell) -> pd.DataFrame:
    here: _World = world(cell["data"], cell["worlds"])
    network, made = here.network(), {}
    at = levels[(levels[list(cell)] == pd.Series(cell)).all(axis=1)]
    for grid, rows in at.groupby("grid", sort=False):
        column = rows.sort_values("row").level.tolist()
        plan = here.plan(cell["reverse_steps"])
        plan = dataclasses.replace(plan, ar_grid=tuple((level,) * plan.window for level in column))
        made[str(grid)] = here.sampled(network, plan)
    return _measured(here, made, "grid", "true clips")


def _noised(world: Any, cell: Cell) -> pd.DataFrame:
    here: _World = world(cell["data"], cell["worlds"])
    profiles = {name: here.profile(name) for name in PROFILES}
    made = {}
    for name, levels in profiles.items():
        plan = here.plan(here.size.noise_steps)
        made[name] = here.sampled(here.network(levels), noised_lags(plan, levels) if any(levels) else plan)
    rows = _measured(here, made, "profile", "true clips")
    told = {name: " ".join(f"{level:g}" for level in levels) for name, levels in profiles.items()}
    rows["levels"] = [told.get(name, "") for name in rows.profile]
    return rows


def _measured(here: _World, made: Mapping[str, Samples], by: str, reference: str) -> pd.DataFrame:
    given = next(iter(made.values())).given
    truth = random_features(next(iter(made.values())).truth[:, given:])
    scores = {name: here.scores(samples) for name, samples in made.items()}
    distance = {
        name: feature_distance(truth, random_features(samples.generated[:, given:])).distance.value
        for name, samples in made.items()
    }
    rows: list[dict[str, Any]] = []
    for name, own in scores.items():
        for quantity in ("psnr", "ssim"):
            value = Number.clustered(own[quantity], own["episode"])
            gain = Number.clustered(scores[OURS][quantity] - own[quantity], own["episode"])
            rows.append({by: name, "quantity": quantity, "value": value.value, "stderr": value.stderr,
                         "gain": gain.value, "gain_stderr": gain.stderr})  # fmt: skip
        rows.append({by: name, "quantity": "frechet", "value": distance[name], "stderr": math.nan,
                     "gain": distance[OURS] - distance[name], "gain_stderr": math.nan})  # fmt: skip
    least = feature_distance(truth, here.other_truth).distance.value
    rows.append({by: reference, "quantity": "frechet", "value": least, "stderr": math.nan, "gain": math.nan,
                 "gain_stderr": math.nan})  # fmt: skip
    return pd.DataFrame(rows)


def random_features(clips: NDArray[Any]) -> NDArray[np.float64]:
    """Features of clips, (n, frames, height, width, channels) → (n, 32): two layers of random convolutions.

    The same weights always; averaged over time and quarters of the picture, then projected at random. Only
    distances in one such space may be compared.
    """
    videos = torch.from_numpy(np.moveaxis(to_unit(clips), -1, 1)).to(torch.float32)
    generator = torch.Generator().manual_seed(0)

    def layer(values: Tensor, width: int) -> Tensor:
        fan = values.shape[1] * 27
        weight = torch.randn(width, values.shape[1], 3, 3, 3, generator=generator) * (2 / fan) ** 0.5
        return functional.relu(functional.conv3d(values, weight, stride=(1, 2, 2), padding=1))

    hidden = layer(layer(videos, 32), 64).mean(2)
    flat = functional.adaptive_avg_pool2d(hidden, 2).flatten(1)
    project = torch.linalg.qr(torch.randn(flat.shape[1], _FEATURES, generator=generator)).Q
    found: NDArray[np.float64] = (flat @ project).to(torch.float64).numpy()
    return found


def summary(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Means over worlds of every quantity and of what :data:`OURS` gains on it, with the half-widths of their
    95 % intervals (Student's t over the worlds)."""
    rows = []
    for place, own in table.groupby([*by, "quantity"], sort=False):
        row = dict(zip([*by, "quantity"], place, strict=True))
        for name in ("value", "gain"):
            n = len(own)
            row[name] = float(own[name].mean())
            row[f"{name}_half"] = (
                student.ppf(0.975, n - 1) * float(own[name].std()) / math.sqrt(n) if n > 1 else math.nan
            )
        rows.append({**row, "worlds": len(own)})
    return pd.DataFrame(rows)


def headline(tables: Mapping[str, pd.DataFrame]) -> str:
    """Every grid and profile, and what the one that was found gains on it."""
    lines = []
    for name, by in (
        ("video-schedules", ["data", "reverse_steps", "grid"]), ("video-schedules-noise", ["data", "profile"])
    ):  # fmt: skip
        if name not in tables:
            continue
        found = summary(tables[name], by)
        for value, what in (("value", "mean ± 95 % over worlds"), ("gain", f"what {OURS} gains, the same")):
            shown = found.assign(
                text=[f"{a:.3g} ± {b:.2g}" for a, b in zip(found[value], found[f"{value}_half"], strict=True)]
            )
            for quantity in _QUANTITIES:
                own = shown[shown.quantity == quantity]
                wide = own.pivot_table(index=by[:-1], columns=by[-1], values="text", aggfunc="first", sort=False)
                lines += [f"{name}, {quantity}: {what}", wide.to_string(), ""]
    return "\n".join(lines)
