"""Sizes of training runs on first-person video, from seconds to the published settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from arvdm_theory.networks.config import Architecture, Target
from arvdm_theory.training.config import TrainingConfig
from arvdm_theory.video.memory_plans import Schedule
from arvdm_theory.video.simulators.trajectories import Trajectory
from arvdm_theory.video.windows import Queries

__all__ = ["PRESETS", "PRESET_NAMES", "VideoPreset", "preset"]


@dataclass(frozen=True)
class VideoPreset:
    """All of a run that does not depend on the memory's structure.

    Attributes:
        size: height and width of the pictures.
        trajectory: of simulated episodes.
        skip: every so many frames of an episode one is shown.
        episodes: simulated, of the training and the test split.
        memory: M, frames that are remembered, unless a run asks for another number.
        context: frames of the short context.
        generated: frames that are generated.
        rollout: frames that are generated in a long rollout, and how many videos.
        rollout_trajectory: of long rollouts, as long as they need; None for the same.
        window: w.
        reverse_steps: M_AR, for outpainting; a pipelined schedule takes them in all for a frame's way from T to 0.
        schedule: of the noise levels.
        networks: architectures and their options, without ``memory``; the first unless a run asks for another.
        prediction: what they predict.
        training: for how long, and how; AR steps, seed and device are the run's.
        least: queries that a window has at the least.
        queries: at remembered poses, between them, or near them.
        windows: that are sampled and scored.
        note: the machine, memory and time it is meant for.
    """

    size: int
    trajectory: Trajectory
    skip: int
    episodes: tuple[int, int]
    memory: int
    context: int
    generated: int
    rollout: tuple[int, int]
    window: int
    reverse_steps: int
    schedule: Schedule
    networks: Mapping[Architecture, Mapping[str, Any]]
    prediction: Target
    training: TrainingConfig
    least: int
    windows: int
    note: str
    queries: Queries = "same"
    rollout_trajectory: Trajectory | None = None


_CPU = VideoPreset(
    size=16, trajectory=Trajectory("turn", frames=96, context=6), skip=2, episodes=(1000, 100),
    memory=8, context=2, generated=4, rollout=(64, 40), window=4, reverse_steps=16, schedule="cosine",
    networks={
        "transformer": {"width": 64, "depth": 2, "heads": 4, "patch": 4},
        "unet": {"width": 32, "multipliers": (1, 2), "heads": 4, "place_attention": 8},
    },
    prediction="x0",
    training=TrainingConfig(
        steps=800, batch=32, lr=3e-3, warmup=100, ema=0.99, levels="continuous", checkpoint_every=100,
        log_every=50, keep=2,
    ),
    least=3, windows=100,
    note="one CPU core, under 1 GiB, two to eight minutes of its time a network (a U-Net: fifteen)",
    # Turns to and fro within what the memory holds: whatever is lost on the way is lost by drift.
    rollout_trajectory=Trajectory("turn", context=6, farthest=5),
)  # fmt: skip

_SMOKE = replace(
    _CPU, trajectory=Trajectory("turn", frames=80, context=6), episodes=(6, 3), rollout=(8, 3), reverse_steps=3,
    networks={
        "transformer": {"width": 32, "depth": 1, "heads": 2, "patch": 4},
        "unet": {"width": 16, "multipliers": (1, 2), "heads": 2, "place_attention": 8},
    },
    training=TrainingConfig(
        steps=6, batch=4, lr=1e-3, warmup=2, ema=0.9, levels="continuous", checkpoint_every=3, log_every=3, keep=2,
        tensorboard=False,
    ),
    windows=3, note="seconds on one core",
)  # fmt: skip

_CPU_WALK = replace(
    _CPU, trajectory=Trajectory("walk", frames=96, context=16), episodes=(2000, 100), memory=24,
    # Rounds of 48 steps, 24 frames, are remembered whole.
    rollout_trajectory=Trajectory("walk", context=16, farthest=48),
    note="one CPU core, 1 GiB, two to fifteen minutes of its time a network",
)  # fmt: skip

# Half a turn step of 15 degrees is the way to either neighbour, so every frame is shown.
_CPU_BETWEEN = replace(
    _CPU, trajectory=Trajectory("turn", frames=64, context=6, between=True), skip=1, queries="between",
    # Rounds of eight frames, of the ten that are shown.
    rollout_trajectory=Trajectory("turn", context=2, farthest=2),
)  # fmt: skip

# A step's standard deviation of a fifth adds up to most of a step over the way there and back.
_CPU_SLIP = replace(
    _CPU, trajectory=replace(_CPU.trajectory, slip=0.2), queries="near", rollout=(64, 24),
    rollout_trajectory=Trajectory("turn", context=6, farthest=5, slip=0.2), least=2,
)  # fmt: skip

_CPU_WALK_SLIP = replace(
    _CPU_WALK, trajectory=replace(_CPU_WALK.trajectory, slip=0.2), queries="near", rollout=(64, 24),
    rollout_trajectory=Trajectory("walk", context=16, farthest=48, slip=0.2), least=2,
)  # fmt: skip

# For sampling by any plan, with noised context or history guidance.
_SMOKE_HISTORY = replace(_SMOKE, training=replace(_SMOKE.training, levels="history"))
_CPU_HISTORY = replace(_CPU_SLIP, training=replace(_CPU_SLIP.training, levels="history"))

# Rounds of 64 steps, 32 frames, are remembered whole.
_CPU_FAR = replace(
    _CPU_WALK, trajectory=Trajectory("walk", frames=128, context=24), memory=32, context=4,
    rollout_trajectory=Trajectory("walk", context=24, farthest=64),
    note="one CPU core, 1 GiB, three to twenty minutes of its time a network",
)  # fmt: skip

_CPU_FARTHEST = replace(
    _CPU_WALK, trajectory=Trajectory("explore", frames=300, context=48), episodes=(1000, 100), memory=112,
    context=4, least=2, training=replace(_CPU.training, steps=400, batch=16),
    rollout_trajectory=Trajectory("walk", context=24, farthest=224),
    note="one CPU core, 2 GiB, two to ten minutes of its time a network",
)  # fmt: skip

_CPU_LONG = replace(
    _CPU_WALK, size=32,
    training=replace(_CPU.training, steps=3200, batch=16, ema=0.995),
    note="one CPU core, 2 GiB, a quarter of an hour of its time a network",
)  # fmt: skip

_GPU_TRAINING = TrainingConfig(
    steps=200_000, batch=16, lr=8e-5, lr_floor=1.0, warmup=5000, ema=0.9999, levels="continuous", bf16=True,
    checkpoint_every=5000, log_every=200,
)  # fmt: skip

_DMLAB_GPU = VideoPreset(
    size=64, trajectory=Trajectory("walk", frames=300, context=16), skip=1, episodes=(10_000, 400),
    memory=48, context=4, generated=12, rollout=(128, 64), window=4, reverse_steps=64, schedule="cosine",
    networks={"unet": {"width": 48, "multipliers": (1, 2, 4, 8), "blocks": 1, "heads": 4, "place_attention": 16}},
    prediction="v",
    training=_GPU_TRAINING, least=2, windows=400,
    note="21 to 25 million weights. Counted, not timed: activations of 0.4 (none, concat), 1.2 (cross) or 4.2 GiB "
    "(prepend) a video in float32, less in bfloat16; 0.3, 0.5 or 3.5 EFLOP in all, 1 to 7 hours at 150 TFLOP/s. "
    "The decoded episodes take 37 GB of disk",
)  # fmt: skip

_MINECRAFT_GPU = replace(
    _DMLAB_GPU, size=128, schedule="sigmoid", memory=108, context=4, generated=16, window=16,
    networks={"unet": {**_DMLAB_GPU.networks["unet"], "width": 64}}, training=replace(_GPU_TRAINING, batch=4),
    note="36 to 43 million weights. Counted, not timed: activations of 7 (concat), 8 (none), 18 (cross) or 54 GiB "
    "(prepend) a video in float32, less in bfloat16, so that prepending needs several devices of 80 GiB; 1.8, 2.7 "
    "(cross) or 14 EFLOP (prepend) in all, 3 to 26 hours at 150 TFLOP/s. The decoded episodes take 147 GB of disk",
)  # fmt: skip

_CPU_PRESETS = {
    "smoke": _SMOKE, "cpu": _CPU, "cpu-walk": _CPU_WALK, "cpu-between": _CPU_BETWEEN, "cpu-slip": _CPU_SLIP,
    "cpu-walk-slip": _CPU_WALK_SLIP, "cpu-far": _CPU_FAR, "cpu-farthest": _CPU_FARTHEST, "cpu-long": _CPU_LONG,
    "smoke-history": _SMOKE_HISTORY, "cpu-history": _CPU_HISTORY,
}  # fmt: skip

PRESET_NAMES = (*_CPU_PRESETS, "gpu")

PRESETS: dict[tuple[str, str], VideoPreset] = {
    (data, name): chosen
    for data, gpu in (("dmlab", _DMLAB_GPU), ("minecraft", _MINECRAFT_GPU), ("doom", _DMLAB_GPU))
    for name, chosen in {**_CPU_PRESETS, "gpu": gpu}.items()
}
"""By data and name."""


def preset(data: str, name: str) -> VideoPreset:
    """A preset.

    Raises:
        ValueError: if there is none.
    """
    if (data, name) not in PRESETS:
        raise ValueError(
            f"a preset is one of {', '.join(PRESET_NAMES)}, for dmlab, minecraft or doom; got {data} {name}"
        )
    return PRESETS[data, name]
