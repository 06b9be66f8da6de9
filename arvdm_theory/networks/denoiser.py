"""A denoiser: a backbone behind one preconditioning, a function (window, levels, references) → x̂.

The backbone sees the window scaled to unit variance and the levels as they are, and what it returns, F, has unit
scale too. With data of mean μ and scale s, W = α X + σ ε and u² = α² s² + σ²,

==========  =================================================
prediction  x̂
==========  =================================================
x0          μ + s F
epsilon     (W - σ F)/α
v           μ + (α s²/u²)(W - α μ) - (σ s/u) F
==========  =================================================

The last row is velocity prediction for s = 1, and Karras et al.'s preconditioning on the variance-preserving clock
for any s: F's target has unit variance at every level.

Sources: Karras et al. 2022, section 5; Salimans and Ho 2022, section 4.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor, nn

from arvdm_theory.diffusion.prediction import NetworkScore
from arvdm_theory.interfaces import ReferenceBatch
from arvdm_theory.noise import alpha, sigma2

__all__ = ["ARCHITECTURES", "Architecture", "Backbone", "Denoiser", "DenoiserConfig", "ModelError"]

Architecture = Literal["linear", "mlp", "transformer", "unet"]
Target = Literal["x0", "epsilon", "v"]


class ModelError(ValueError):
    """A network cannot be built from its config, or is called with what it was not built for."""


class Backbone(Protocol):
    """What stands behind the preconditioning; an ``nn.Module`` built from a config."""

    def __call__(self, window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
        """F, of the window's shape.

        Args:
            window: unit-scale noisy frames, (batch, w, d).
            levels: OU levels, (batch, w).
            references: at unit scale, ``levels`` (r,).
        """
        ...


@dataclass(frozen=True)
class DenoiserConfig:
    """All that is needed to build a denoiser again.

    Attributes:
        architecture: which backbone.
        frame_shape: (d,), or (H, W, C).
        window: w, the most frames in a window.
        references: the most references there can be.
        action_dim: a, 0 without actions.
        prediction: what F stands for, see the module.
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


def _linear(config: DenoiserConfig) -> nn.Module:
    from arvdm_theory.networks.linear import LinearBackbone

    return LinearBackbone(config)


def _mlp(config: DenoiserConfig) -> nn.Module:
    from arvdm_theory.networks.mlp import MLPBackbone

    return MLPBackbone(config)


def _transformer(config: DenoiserConfig) -> nn.Module:
    from arvdm_theory.networks.transformer import TransformerBackbone

    return TransformerBackbone(config)


def _unet(config: DenoiserConfig) -> nn.Module:
    from arvdm_theory.networks.unet import UNetBackbone

    return UNetBackbone(config)


ARCHITECTURES: dict[str, Callable[[DenoiserConfig], nn.Module]] = {
    "linear": _linear,
    "mlp": _mlp,
    "transformer": _transformer,
    "unet": _unet,
}


class Denoiser(nn.Module):
    """(window, levels, references) → x̂ = an estimate of E[X | W, R].

    Raises:
        ModelError: if the config cannot be built.
    """

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = ARCHITECTURES[config.architecture](config)

    def forward(self, window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
        """The denoised window.

        Args:
            window: W, (batch, w, d).
            levels: OU levels, (w,) or (batch, w).
            references: (batch, r, d) at levels (r,), with actions if the config has them.

        Returns:
            x̂, (batch, w, d), in the parameters' dtype.

        Raises:
            ModelError: if shapes are not what the config says.
        """
        config, dtype = self.config, self.dtype
        self._check(window, levels, references)
        levels = levels.expand(window.shape[:2])
        mean, scale = config.data_mean, config.data_scale
        window = window.to(dtype)
        a, v = _alpha_variance(levels, dtype)
        at, variance = _alpha_variance(references.levels, dtype)
        context = ReferenceBatch(
            (references.values.to(dtype) - at * mean) / torch.sqrt(at**2 * scale**2 + variance),
            references.levels,
            references.frames,
            references.window_frames,
            None if references.actions is None else references.actions.to(dtype),
            None if references.window_actions is None else references.window_actions.to(dtype),
        )
        total = torch.sqrt(a**2 * scale**2 + v)
        centred = window - a * mean
        raw: Tensor = self.backbone(centred / total, levels, context)
        if config.prediction == "x0":
            return mean + scale * raw
        if config.prediction == "epsilon":
            return (window - torch.sqrt(v) * raw) / a
        return mean + (a * scale**2 / total**2) * centred - (torch.sqrt(v) * scale / total) * raw

    @property
    def dtype(self) -> torch.dtype:
        """Of the parameters."""
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Of the parameters."""
        return next(self.parameters()).device

    def output_precision(self, levels: Tensor) -> Tensor:
        """(dF/dx̂)², the weight that turns ‖x̂ - X‖² into the squared error of F; the shape of ``levels``."""
        a, v = _alpha_variance(levels, torch.float64)
        scale = self.config.data_scale
        if self.config.prediction == "x0":
            weight = torch.full_like(a, scale**-2)
        elif self.config.prediction == "epsilon":
            weight = a**2 / v
        else:
            weight = (a**2 * scale**2 + v) / (v * scale**2)
        return weight.squeeze(-1)

    def as_score(self, batch: int = 4096) -> NetworkScore:
        """The score (α x̂ - W)/σ², for the ledger, the rollout and the I-MMSE estimate."""

        def network(window: Tensor, levels: Tensor, references: ReferenceBatch, actions: Tensor | None) -> Tensor:
            value: Tensor = self(window, levels, references)
            return value

        # The levels reach the network in float64 where they can: its own tables are looked up by them.
        return NetworkScore(network, "x0", dtype=self.dtype, device=self.device, batch=batch)

    def _check(self, window: Tensor, levels: Tensor, references: ReferenceBatch) -> None:
        config = self.config
        if window.ndim != 3 or window.shape[-1] != config.frame_dim or window.shape[1] > config.window:
            raise ModelError(
                f"this network denoises windows (batch, at most {config.window} frames, {config.frame_dim}), got "
                f"{tuple(window.shape)}"
            )
        if levels.shape not in (window.shape[1:2], window.shape[:2]):
            raise ModelError(
                f"levels (w,) or (batch, w) are needed for {tuple(window.shape)}, got {tuple(levels.shape)}"
            )
        r = references.values.shape[1]
        if r > config.references or references.levels.shape != (r,) or len(references.frames) != r:
            raise ModelError(
                f"this network takes at most {config.references} references with a level and a frame each, got "
                f"{r} values, {tuple(references.levels.shape)} levels and {len(references.frames)} frames"
            )
        if len(references.window_frames) != window.shape[1]:
            raise ModelError(
                f"{window.shape[1]} window frames but {len(references.window_frames)} of their indices"
            )
        if references.values.shape != (len(window), r, config.frame_dim):
            raise ModelError(
                f"{len(window)} windows need references ({len(window)}, r, {config.frame_dim}), got "
                f"{tuple(references.values.shape)}"
            )
        given = references.window_actions
        if config.action_dim and (given is None or (r > 0 and references.actions is None)):
            raise ModelError(f"this network needs actions of {config.action_dim} numbers, got none")
        for what, actions, frames in (
            ("window frames", given, window.shape[1]),
            ("references", references.actions, r),
        ):
            shape = (len(window), frames, config.action_dim)
            if config.action_dim and actions is not None and actions.shape != shape:
                raise ModelError(f"the {what} need actions of shape {shape}, got {tuple(actions.shape)}")


def _alpha_variance(levels: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """α and σ² of levels (.., w), each (.., w, 1); taken in float64, where small σ² keep their digits."""
    precise = levels.to(torch.float64) if levels.device.type != "mps" else levels
    return alpha(precise).to(dtype).unsqueeze(-1), sigma2(precise).to(dtype).unsqueeze(-1)
