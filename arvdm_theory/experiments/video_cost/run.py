"""What a memory costs: the time and the peak memory of a generated frame, against how much is remembered.

A cell is one structure, compression and number of memory frames. Its network has random weights, on which neither
depends, and does reverse steps of the last window of its plan: a first, in which it looks at the memory, and later
ones, for which it has kept what it made of it. Timings of a busy machine are worth little alone: the network
without memory takes turns with every other, and their ratio is told as well.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import torch
from torch import Tensor

from arvdm_theory.experiments.record import Cell, run_cells
from arvdm_theory.experiments.video_cost.peak_memory import peak_bytes
from arvdm_theory.interfaces import ReferenceBatch
from arvdm_theory.networks.config import DenoiserConfig, ModelError
from arvdm_theory.networks.denoiser import Denoiser
from arvdm_theory.plan.plan import Plan
from arvdm_theory.training.devices import Device, resolve_device
from arvdm_theory.video.data_sets import DataKind
from arvdm_theory.video.memory_plans import MemoryPlan, PlanKind
from arvdm_theory.video.runs import COMPRESSIONS, STRUCTURES, VideoRun
from arvdm_theory.video.windows import POSE_DIM

__all__ = [
    "BASELINE",
    "CostConfig",
    "CostError",
    "Seconds",
    "alternating_seconds",
    "frame_seconds",
    "network_cost",
    "step_inputs",
    "video_cost",
]

BASELINE = "none"
"""The structure that all others are compared with. It attends to the short context, which is all that it is shown:
one without attention to references can cost less.
"""

_CHANNELS = 3
# The largest block that glibc may come to keep on its heap once it is freed: see mallopt(3), M_MMAP_THRESHOLD.
_LARGEST_KEPT = 31 * 2**20
_Name = TypeVar("_Name", bound=Hashable)
_RUN_FIELDS = ("data", "preset", "plan", "memory", "memory_frames", "compress")


class CostError(ValueError):
    """Nothing can be measured as asked for; the message names the field."""


@dataclass(frozen=True)
class CostConfig:
    """What is measured.

    Attributes:
        data: ``dmlab`` or ``minecraft``.
        preset: of the networks, by name.
        plan: ``outpainting`` or ``fifo``.
        memory_frames: numbers of remembered frames, M.
        compress: c > 1; every compression is measured at it, beside none. A pair that the network refuses, such as
            squares that do not divide its grid, is left out.
        videos: in a timed call. Small networks on one video mostly wait for Python.
        repeats: timed calls a network, after one to warm up.
        device: ``auto``, ``cuda``, ``mps`` or ``cpu``.

    Raises:
        CostError: naming the field.
    """

    data: DataKind = "dmlab"
    preset: str = "cpu"
    plan: PlanKind = "outpainting"
    memory_frames: Sequence[int] = (1, 2, 4, 8, 16, 32)
    compress: int = 4
    videos: int = 16
    repeats: int = 15
    device: Device = "auto"

    def __post_init__(self) -> None:
        if not len(self.memory_frames) or len(set(self.memory_frames)) < len(self.memory_frames):
            raise CostError(f"memory_frames are one number or more, all different, got {self.memory_frames}")
        for name, least in (("compress", 2), ("videos", 1), ("repeats", 1)):
            if getattr(self, name) < least:
                raise CostError(f"{name} is at least {least}, got {getattr(self, name)}")


@dataclass(frozen=True)
class Seconds:
    """How long something took: on the wall, and of the processor, which a busy machine disturbs less."""

    wall: float
    cpu: float


def video_cost(config: CostConfig, folder: Path, seed: int = 0, progress: bool = True) -> pd.DataFrame:
    """Writes the table ``video-cost``; cells that an earlier run finished are not measured again.

    Args:
        config: what to measure.
        folder: where the table and its provenance go; made if need be.
        seed: of weights and inputs.
        progress: whether to show a progress bar.

    Returns:
        a row a (``memory``, ``compression``, ``compress``, ``memory_frames``), with

        - ``architecture`` and ``weights`` of the network, and ``references``, the frames that it is shown;
        - ``seconds_frame`` and ``cpu_seconds_frame``, for a generated frame of one video: :func:`frame_seconds` of
          the median seconds of a first and of a later call, over ``videos``;
        - ``baseline_seconds_frame`` of the network without memory that took turns with it, the ``ratio`` of the
          two, and ``cpu_ratio``, that of the processor's seconds;
        - ``call_ratio``: the same of a first call alone. In training each is a first one;
        - ``peak_mib``: :func:`~arvdm_theory.experiments.video_cost.peak_memory.peak_bytes` of a first and a later
          call on one video, with what is kept, in MiB, and its ratio to the other network's, ``peak_ratio``.

    Raises:
        ValueError: if there is no such preset or device, or no plan for so many frames.
    """
    device = resolve_device(config.device)

    def compute(cell: Cell) -> pd.DataFrame:
        own, base = _run(cell), _run({**cell, **_kind(BASELINE)})
        return pd.DataFrame([network_cost(own, base, cell["videos"], cell["repeats"], device, seed)])

    return run_cells("video-cost", _cells(config, device), compute, folder, seed, progress)


def _kind(memory: str, compression: str = "none", compress: int = 1) -> dict[str, Any]:
    return {"memory": memory, "compression": compression, "compress": compress}


def _cells(config: CostConfig, device: torch.device) -> list[Cell]:
    kinds = [_kind(BASELINE)]
    for memory in STRUCTURES:
        if memory != BASELINE:
            kinds += [_kind(memory), *(_kind(memory, name, config.compress) for name in COMPRESSIONS)]
    cells: list[Cell] = [
        {
            "data": config.data, "preset": config.preset, "plan": config.plan, **kind, "memory_frames": frames,
            "videos": config.videos, "repeats": config.repeats, "device": _name(device),
            "threads": torch.get_num_threads(),
        }
        for kind in kinds
        for frames in config.memory_frames
    ]  # fmt: skip
    return [cell for cell in cells if _fits(cell)]


def _fits(cell: Cell) -> bool:
    try:
        _run(cell)
    except ModelError:
        if cell["compress"] == 1:
            raise
        return False
    return True


def _run(cell: Cell) -> VideoRun:
    fields = {name: cell[name] for name in _RUN_FIELDS}
    if cell["compress"] > 1:
        fields["compression"] = cell["compression"]
    return VideoRun(**fields)


def _name(device: torch.device) -> str:
    # Cells of one card must not be taken for another's.
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def network_cost(
    run: VideoRun, base: VideoRun, videos: int, repeats: int, device: torch.device, seed: int = 0
) -> dict[str, Any]:
    """What a run's network costs, taking turns with another's: columns of :func:`video_cost`, and ``peak_ratio``.

    Weights are random: neither seconds nor bytes depend on them.

    Args:
        run: the network.
        base: of the network that it takes turns with.
        videos: in a timed call.
        repeats: timed calls a network.
        device: where.
        seed: of weights and inputs.
    """
    both = {
        "own": (_network(run, device, seed), run.windows),
        "base": (_network(base, device, seed), base.windows),
    }
    with torch.no_grad():
        timed = {
            (which, when): call
            for which, (network, windows) in both.items()
            for when, call in _calls(network, step_inputs(windows, network.config, videos, device, seed)).items()
        }
        seconds = alternating_seconds(timed, repeats, device)
        peak, base_peak = (
            peak_bytes(_two_steps(network, step_inputs(windows, network.config, 1, device, seed)), device)
            for network, windows in both.values()
        )
    mine, theirs = (
        frame_seconds(windows.plan, seconds[which, "first"], seconds[which, "later"])
        for which, (_, windows) in both.items()
    )
    own, windows = both["own"]
    return {
        "architecture": own.config.architecture,
        "weights": sum(weight.numel() for weight in own.parameters()),
        "references": len(windows.plan.references_at(windows.last)),
        "seconds_frame": mine.wall / videos,
        "cpu_seconds_frame": mine.cpu / videos,
        "baseline_seconds_frame": theirs.wall / videos,
        "ratio": mine.wall / theirs.wall,
        "cpu_ratio": mine.cpu / theirs.cpu,
        "call_ratio": seconds["own", "first"].cpu / seconds["base", "first"].cpu,
        "peak_mib": peak / 2**20,
        "peak_ratio": peak / base_peak,
    }


def _network(run: VideoRun, device: torch.device, seed: int) -> Denoiser:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Denoiser(run.network(_CHANNELS, POSE_DIM, 0.0, 1.0)).eval().to(device)


_Inputs = tuple[Tensor, Tensor, ReferenceBatch]


def _calls(network: Denoiser, inputs: _Inputs) -> dict[str, Callable[[], Tensor]]:
    kept = network.recall(inputs[2])
    return {"first": lambda: network(*inputs), "later": lambda: network(*inputs, kept)}


def _two_steps(network: Denoiser, inputs: _Inputs) -> Callable[[], Tensor]:
    def steps() -> Tensor:
        kept = network.recall(inputs[2])
        network(*inputs, kept)
        denoised: Tensor = network(*inputs, kept)
        return denoised

    return steps


def step_inputs(
    windows: MemoryPlan, network: DenoiserConfig, videos: int, device: torch.device, seed: int = 0
) -> tuple[Tensor, Tensor, ReferenceBatch]:
    """What a network is given in the first reverse step of a plan's last AR step, in random numbers.

    Laid out as :func:`arvdm_theory.diffusion.generate.generate` does it.

    Args:
        windows: the plan.
        network: says how many entries frames and actions have.
        videos: how many.
        device: where the tensors are put.
        seed: of the numbers.

    Returns:
        window (videos, w, d), float32; levels (w,), float64 (float32 on MPS); references.
    """
    plan, k, generator = windows.plan, windows.last, torch.Generator().manual_seed(seed)
    told, frames = plan.references_at(k), tuple(plan.window_frames(k))
    precise = torch.float32 if device.type == "mps" else torch.float64

    def numbers(count: int, size: int) -> Tensor:
        return torch.randn((videos, count, size), generator=generator).to(device)

    references = ReferenceBatch(
        numbers(len(told), network.frame_dim),
        torch.tensor([max(r.level, plan.floor) for r in told], dtype=precise, device=device),
        tuple(r.frame for r in told),
        frames,
        numbers(len(told), network.action_dim),
        numbers(len(frames), network.action_dim),
    )
    levels = torch.tensor(plan.ar_grid[0], dtype=precise, device=device)
    return numbers(len(frames), network.frame_dim), levels, references


def frame_seconds(plan: Plan, first: Seconds, later: Seconds) -> Seconds:
    """Of a frame that comes out: (first + (M_AR - 1) later)/Δ, the reverse steps of an AR step over its stride.

    Example:
        >>> from arvdm_theory.plan.methods import outpainting
        >>> frame_seconds(outpainting(window=4, reverse_steps=16), Seconds(9.0, 3.0), Seconds(1.0, 1.0))
        Seconds(wall=6.0, cpu=4.5)
    """
    steps = plan.reverse_steps - 1
    return Seconds((first.wall + steps * later.wall) / plan.stride, (first.cpu + steps * later.cpu) / plan.stride)


def alternating_seconds(
    calls: Mapping[_Name, Callable[[], object]], repeats: int, device: torch.device
) -> dict[_Name, Seconds]:
    """Median seconds of calls that take turns, in an order that turns round every time.

    Args:
        calls: by name. Each is called once before, to warm up.
        repeats: timed calls of each, 1 or more.
        device: that they work on; its queue is empty whenever the time is taken.
    """
    # Else blocks above a threshold that earlier calls have moved go back to the system at every call, and their
    # pages come anew at the next: a time would depend on what ran before.
    _ = torch.empty(_LARGEST_KEPT, dtype=torch.uint8).numel()
    found: dict[_Name, list[tuple[float, float]]] = {name: [] for name in calls}
    for repeat in range(repeats + 1):
        for name in calls if repeat % 2 else reversed(list(calls)):
            _settle(device)
            wall, cpu = time.perf_counter(), time.process_time()
            calls[name]()
            _settle(device)
            taken = time.perf_counter() - wall, time.process_time() - cpu
            if repeat:
                found[name].append(taken)
    medians = {name: map(statistics.median, zip(*pairs, strict=True)) for name, pairs in found.items()}
    return {name: Seconds(*both) for name, both in medians.items()}


def _settle(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
