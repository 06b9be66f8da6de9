"""All that a training run is told beyond its network, plan and videos."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from arvdm_theory.training.devices import Device
from arvdm_theory.training.windows import LevelChoice, Weighting

__all__ = ["TrainingConfig", "TrainingError"]


class TrainingError(ValueError):
    """A run that cannot start, go on or be resumed as asked; the message names the field or the step."""


@dataclass(frozen=True)
class TrainingConfig:
    """How a denoiser is trained.

    Attributes:
        steps: updates in all.
        batch: windows an update, over all processes together.
        ar_steps: K, the last AR step whose windows are drawn.
        first_ar_step: the first one; later than 1 where given frames replace those before it.
        levels: how noise levels are drawn, see :class:`~arvdm_theory.training.windows.WindowSampler`.
        weighting: of the loss, see there.
        init_share: the share of batches from the initialisation stage; None: that of each AR step.
        reverse_step: which sampler's SEE the weighting ``see`` follows.
        lr: the highest learning rate.
        lr_floor: the last one, as a share of ``lr``.
        warmup: updates during which it rises in a straight line.
        weight_decay: of AdamW, on weights alone, not on biases, gains and tables of one axis.
        betas: of AdamW.
        grad_clip: the largest norm of a gradient.
        ema: the decay of the averaged weights; it starts lower, at (1 + n)/(10 + n) after n updates.
        bf16: matrix products in bfloat16, all else in float32.
        device: ``auto``, ``cuda``, ``mps`` or ``cpu``.
        seed: of the first weights and of every draw.
        checkpoint_every: updates from one checkpoint to the next.
        keep: how many checkpoints stay; the last ones.
        log_every: updates from one row of the history to the next.
        tensorboard: whether to write TensorBoard's event files too.

    Raises:
        TrainingError: naming the field, what it is and what it should be.

    Example:
        >>> config = TrainingConfig(steps=1000, lr=1e-3, warmup=100)
        >>> config.rate(50), config.rate(100), config.rate(1000)
        (0.0005, 0.001, 0.0)
    """

    steps: int
    batch: int = 64
    ar_steps: int = 4
    levels: LevelChoice = "plan"
    weighting: Weighting = "network"
    init_share: float | None = None
    reverse_step: str = "exponential"
    lr: float = 1e-3
    lr_floor: float = 0.0
    warmup: int = 100
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.99)
    grad_clip: float = 1.0
    ema: float = 0.999
    bf16: bool = False
    device: Device = "auto"
    seed: int = 0
    checkpoint_every: int = 1000
    keep: int = 3
    log_every: int = 50
    tensorboard: bool = True
    first_ar_step: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(self.betas))
        for name in ("steps", "batch", "ar_steps", "checkpoint_every", "keep", "log_every"):
            _whole(name, getattr(self, name), 1)
        _whole("first_ar_step", self.first_ar_step, 1)
        if self.first_ar_step > self.ar_steps:
            raise TrainingError(
                f"first_ar_step must be at most ar_steps, {self.ar_steps}, got {self.first_ar_step}"
            )
        _whole("warmup", self.warmup, 0)
        _whole("seed", self.seed, 0)
        for name, choices in (("levels", LevelChoice), ("weighting", Weighting), ("device", Device)):
            if getattr(self, name) not in get_args(choices):
                known = ", ".join(get_args(choices))
                raise TrainingError(f"{name} is one of {known}, got {getattr(self, name)!r}")
        for name in ("lr", "grad_clip"):
            _between(name, getattr(self, name), 0.0, math.inf, open_low=True)
        _between("weight_decay", self.weight_decay, 0.0, math.inf)
        if not 0 <= self.lr_floor <= 1:
            raise TrainingError(f"lr_floor is a share of lr, from 0 to 1, got {self.lr_floor}")
        _between("ema", self.ema, 0.0, 1.0)
        if len(self.betas) != 2:
            raise TrainingError(f"betas are two numbers, got {self.betas}")
        for beta in self.betas:
            _between("betas", beta, 0.0, 1.0)
        if self.warmup >= self.steps:
            raise TrainingError(f"warmup must be shorter than the run of {self.steps} steps, got {self.warmup}")

    def rate(self, step: int) -> float:
        """The learning rate of update ``step``, from 1: a straight line up, half a cosine down to the floor."""
        if step <= self.warmup:
            return self.lr * step / self.warmup
        done = (step - self.warmup) / (self.steps - self.warmup)
        return self.lr * (self.lr_floor + (1 - self.lr_floor) * (1 + math.cos(math.pi * done)) / 2)

    def decay(self, step: int) -> float:
        """The decay of the average at update ``step``, from 1."""
        return min(self.ema, (1 + step) / (10 + step))

    def to_json(self) -> dict[str, Any]:
        """The config as plain JSON values."""
        return {**dataclasses.asdict(self), "betas": list(self.betas)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TrainingConfig:
        """The inverse of :meth:`to_json`.

        Raises:
            TrainingError: for unknown or missing fields.
        """
        try:
            return cls(**values)
        except TypeError as error:
            raise TrainingError(f"not the config of a training run: {error}") from None


def _whole(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise TrainingError(f"{name} must be a whole number of at least {least}, got {value!r}")


def _between(name: str, value: float, low: float, high: float, open_low: bool = False) -> None:
    """Raises unless low ≤ value < high (low < value if ``open_low``)."""
    if not (low < value < high or (value == low and not open_low)):
        bounds = f"{'above' if open_low else 'at least'} {low:g}" + (
            "" if high == math.inf else f", below {high:g}"
        )
        raise TrainingError(f"{name} must be {bounds}, got {value}")
