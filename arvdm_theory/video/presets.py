"""Sizes of training runs on first-person video, from seconds to the published settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from arvdm_theory.models.denoiser import Architecture, Target
from arvdm_theory.training.config import TrainingConfig
from arvdm_theory.video.memory_plans import Schedule
from arvdm_theory.video.simulators.trajectories import Trajectory

__all__ = ["PRESETS", "PRESET_NAMES", "VideoPreset", "preset"]

PRESET_NAMES = ("smoke", "cpu", "cpu-long", "gpu")


@dataclass(frozen=True)
class VideoPreset:
    """All of a run that does not depend on the memory's structure.

    Attributes:
        size: height and width of the pictures.
        trajectory: of simulated episodes.
        episodes: simulated, of the training and the test split.
        memory: M, frames that are remembered, unless a run asks for another number.
        context: frames of the short context.
        generated: frames that are generated.
        window: w.
        reverse_steps: M_AR, for outpainting; a staircase takes them in all for a frame's way from T to 0.
        schedule: of the noise levels.
        architecture: of the network.
        prediction: what it predicts.
        options: its own, without ``memory``.
        training: for how long, and how; AR steps, seed and device are the run's.
        least: queries that a window has at the least.
        windows: that are sampled and scored.
        note: the machine, memory and time it is meant for.
    """

    size: int
    trajectory: Trajectory
    episodes: tuple[int, int]
    memory: int
    context: int
    generated: int
    window: int
    reverse_steps: int
    schedule: Schedule
    architecture: Architecture
    prediction: Target
    options: Mapping[str, Any]
    training: TrainingConfig
    least: int
    windows: int
    note: str


_CPU = VideoPreset(
    size=16, trajectory=Trajectory("turn", frames=64, context=16), episodes=(1000, 100),
    memory=8, context=2, generated=4, window=4, reverse_steps=16, schedule="cosine",
    architecture="transformer", prediction="x0", options={"width": 64, "depth": 2, "heads": 4, "patch": 4},
    training=TrainingConfig(
        steps=400, batch=32, lr=3e-3, warmup=100, ema=0.99, checkpoint_every=100, log_every=50, keep=2,
    ),
    least=3, windows=100,
    note="one CPU core, under 1 GiB, one to two minutes of its time a network",
)  # fmt: skip

_SMOKE = replace(
    _CPU, trajectory=Trajectory("turn", frames=40, context=16), episodes=(6, 3), reverse_steps=3,
    options={"width": 32, "depth": 1, "heads": 2, "patch": 4},
    training=TrainingConfig(
        steps=6, batch=4, lr=1e-3, warmup=2, ema=0.9, checkpoint_every=3, log_every=3, keep=2, tensorboard=False,
    ),
    windows=3, note="seconds on one core",
)  # fmt: skip

_CPU_LONG = replace(
    _CPU, size=32, trajectory=Trajectory("turn", frames=96, context=24), episodes=(4000, 200),
    memory=16, generated=8, window=8, reverse_steps=32,
    options={"width": 128, "depth": 4, "heads": 4, "patch": 4},
    training=replace(_CPU.training, steps=20_000, lr=1e-3, warmup=500, ema=0.999, checkpoint_every=1000),
    least=4, windows=200, note="two CPU cores, 2 GiB, some hours a network: not run to its end yet",
)  # fmt: skip

_GPU_TRAINING = TrainingConfig(
    steps=200_000, batch=16, lr=8e-5, lr_floor=1.0, warmup=5000, ema=0.9999, bf16=True, checkpoint_every=5000,
    log_every=200,
)  # fmt: skip

_DMLAB_GPU = VideoPreset(
    size=64, trajectory=Trajectory("walk", frames=300, context=16), episodes=(10_000, 400),
    memory=48, context=4, generated=12, window=4, reverse_steps=64, schedule="cosine",
    architecture="unet", prediction="v",
    options={"width": 48, "multipliers": (1, 2, 4, 8), "blocks": 1, "heads": 4, "place_attention": 16},
    training=_GPU_TRAINING, least=2, windows=400,
    note="21 to 25 million weights. Counted, not timed: activations of 0.4 (none, concat), 1.2 (cross) or 4.2 GiB "
    "(prepend) a video in float32, less in bfloat16; 0.3, 0.5 or 3.5 EFLOP in all, 1 to 7 hours at 150 TFLOP/s. "
    "The decoded episodes take 37 GB of disk",
)  # fmt: skip

_MINECRAFT_GPU = replace(
    _DMLAB_GPU, size=128, schedule="sigmoid", memory=108, context=4, generated=16, window=16,
    options={**_DMLAB_GPU.options, "width": 64}, training=replace(_GPU_TRAINING, batch=4),
    note="36 to 43 million weights. Counted, not timed: activations of 7 (concat), 8 (none), 18 (cross) or 54 GiB "
    "(prepend) a video in float32, less in bfloat16, so that prepending needs several devices of 80 GiB; 1.8, 2.7 "
    "(cross) or 14 EFLOP (prepend) in all, 3 to 26 hours at 150 TFLOP/s. The decoded episodes take 147 GB of disk",
)  # fmt: skip

PRESETS: dict[tuple[str, str], VideoPreset] = {
    ("dmlab", "smoke"): _SMOKE,
    ("dmlab", "cpu"): _CPU,
    ("dmlab", "cpu-long"): _CPU_LONG,
    ("dmlab", "gpu"): _DMLAB_GPU,
    ("minecraft", "smoke"): _SMOKE,
    ("minecraft", "cpu"): _CPU,
    ("minecraft", "cpu-long"): _CPU_LONG,
    ("minecraft", "gpu"): _MINECRAFT_GPU,
}
"""By data and name."""


def preset(data: str, name: str) -> VideoPreset:
    """A preset.

    Raises:
        ValueError: if there is none.
    """
    if (data, name) not in PRESETS:
        raise ValueError(
            f"a preset is one of {', '.join(PRESET_NAMES)}, for dmlab or minecraft; got {data} {name}"
        )
    return PRESETS[data, name]
