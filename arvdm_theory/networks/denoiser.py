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

from collections.abc import Callable

import torch
from torch import Tensor, nn

from arvdm_theory.diffusion.prediction import NetworkScore, at_least_single, scales
from arvdm_theory.interfaces import ReferenceBatch
from arvdm_theory.networks.config import Architecture, DenoiserConfig, ModelError
from arvdm_theory.networks.linear import LinearBackbone
from arvdm_theory.networks.mlp import MLPBackbone
from arvdm_theory.networks.transformer import TransformerBackbone
from arvdm_theory.networks.unet import UNetBackbone

__all__ = ["ARCHITECTURES", "Denoiser"]

ARCHITECTURES: dict[Architecture, Callable[[DenoiserConfig], nn.Module]] = {
    "linear": LinearBackbone,
    "mlp": MLPBackbone,
    "transformer": TransformerBackbone,
    "unet": UNetBackbone,
}
"""What stands behind the preconditioning, by the name that configs give it: (window, levels, references) → F.

The window, (batch, w, d), and the references' values are noisy frames at unit scale; levels are OU levels,
(batch, w) and (r,), in float32 or finer. F has the window's shape.
"""


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
            x̂, (batch, w, d), in the parameters' dtype or float32, whichever is finer.

        Raises:
            ModelError: if shapes are not what the config says.
        """
        config, dtype = self.config, self.dtype
        self._check(window, levels, references)
        levels = levels.expand(window.shape[:2])
        mean, scale = config.data_mean, config.data_scale
        window, values = (x.to(at_least_single(dtype)) for x in (window, references.values))
        (a, s), (at, st) = scales(levels, window), scales(references.levels, values)
        context = ReferenceBatch(
            ((values - at * mean) / torch.hypot(at * scale, st)).to(dtype),
            references.levels,
            references.frames,
            references.window_frames,
            None if references.actions is None else references.actions.to(dtype),
            None if references.window_actions is None else references.window_actions.to(dtype),
        )
        total = torch.hypot(a * scale, s)
        centred = window - a * mean
        # Under autocast what comes out is coarser than what goes in.
        raw: Tensor = self.backbone((centred / total).to(dtype), levels, context).to(window)
        if config.prediction == "x0":
            return mean + scale * raw
        if config.prediction == "epsilon":
            return (window - s * raw) / a
        return mean + (a * scale**2 / total**2) * centred - (s * scale / total) * raw

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
        a, s = scales(levels, levels.new_empty(0, dtype=torch.float64))
        scale = self.config.data_scale
        if self.config.prediction == "x0":
            weight = torch.full_like(a, scale**-2)
        elif self.config.prediction == "epsilon":
            weight = (a / s) ** 2
        else:
            weight = (a / s) ** 2 + scale**-2
        return weight.squeeze(-1)

    def as_score(self, batch: int = 4096) -> NetworkScore:
        """The score (α x̂ - W)/σ², for the ledger, the rollout and the I-MMSE estimate."""
        # The fourth thing shown, the window's actions, stands in the references too.
        return NetworkScore(
            lambda *shown: self(*shown[:3]),
            "x0",
            dtype=at_least_single(self.dtype),
            device=self.device,
            batch=batch,
        )

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
