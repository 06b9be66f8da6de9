"""What a denoiser is built from, apart from the networks that read it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

__all__ = ["Architecture", "DenoiserConfig", "ModelError", "Target"]

Architecture = Literal["linear", "mlp", "transformer", "unet"]
Target = Literal["x0", "epsilon", "v"]


class ModelError(ValueError):
    """A network cannot be built from its config, or is called with what it was not built for."""


@dataclass(frozen=True)
class DenoiserConfig:
    """All that is needed to build a denoiser again.

    Attributes:
        architecture: which backbone.
        frame_shape: (d,), or (H, W, C).
        window: w, the most frames in a window.
        references: the most references there can be.
        action_dim: a, 0 without actions.
        prediction: what F stands for, see :mod:`arvdm_theory.networks.denoiser`.
        data_mean: μ.
        data_scale: s > 0.
        options: the architecture's own: see its module.

    Raises:
        ModelError: naming the field, what it is and what it should be.
    """

    architecture: Architecture
    frame_shape: tuple[int, ...]
    window: int
    references: int = 0
    action_dim: int = 0
    prediction: Target = "v"
    data_mean: float = 0.0
    data_scale: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "frame_shape", tuple(self.frame_shape))
        if self.architecture not in get_args(Architecture):
            known = ", ".join(get_args(Architecture))
            raise ModelError(f"the architecture is one of {known}, got {self.architecture!r}")
        if self.prediction not in get_args(Target):
            raise ModelError(f"the prediction is one of {', '.join(get_args(Target))}, got {self.prediction!r}")
        if len(self.frame_shape) not in (1, 3) or min(self.frame_shape) < 1:
            raise ModelError(f"the frame shape is (d,) or (H, W, C), got {self.frame_shape}")
        if self.window < 1 or self.references < 0 or self.action_dim < 0:
            raise ModelError(
                f"window ≥ 1, references ≥ 0 and action_dim ≥ 0 are needed, got {self.window}, {self.references} "
                f"and {self.action_dim}"
            )
        if not (math.isfinite(self.data_scale) and self.data_scale > 0 and math.isfinite(self.data_mean)):
            raise ModelError(
                f"the data need a finite mean and a positive scale, got {self.data_mean}, {self.data_scale}"
            )

    @property
    def frame_dim(self) -> int:
        """d, the entries of one frame."""
        return math.prod(self.frame_shape)

    def to_json(self) -> dict[str, Any]:
        """The config as plain JSON values."""
        return {**dataclasses.asdict(self), "frame_shape": list(self.frame_shape), "options": dict(self.options)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> DenoiserConfig:
        """The inverse of :meth:`to_json`.

        Raises:
            ModelError: for unknown or missing fields.
        """
        try:
            return cls(**values)
        except TypeError as error:
            raise ModelError(f"not the config of a denoiser: {error}") from None
