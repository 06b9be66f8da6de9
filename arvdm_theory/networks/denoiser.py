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

from arvdm_theory.diffusion.prediction import Network, NetworkScore, at_least_single, scales
from arvdm_theory.interfaces import ReferenceBatch
from arvdm_theory.networks.config import Architecture, DenoiserConfig, ModelError
from arvdm_theory.networks.linear import LinearBackbone
from arvdm_theory.networks.memory import Recollection
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
(batch, w) and (r,), in float32 or finer. F has the window's shape. One that has ``recall``, references → what it
makes of them alone, is given that as a fourth argument where it was made before.
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

    def recall(self, references: ReferenceBatch) -> Recollection | None:
        """What the network makes of references alone, whatever the noise of the window: for later calls with the
        same references, window frames and actions. None where it makes nothing of them by themselves.

        Raises:
            ModelError: if shapes are not what the config says.
        """
        self._check_references(references, len(references.values))
        recall = getattr(self.backbone, "recall", None)
        return None if recall is None else recall(self._context(references))

    def forward(
        self, window: Tensor, levels: Tensor, references: ReferenceBatch, recollection: Recollection | None = None
    ) -> Tensor:
        """The denoised window.

        Args:
            window: W, (batch, w, d).
            levels: OU levels, (w,) or (batch, w).
            references: (batch, r, d) at levels (r,), with actions if the config has them.
            recollection: what :meth:`recall` gave for the same references; else it is made again.

        Returns:
            x̂, (batch, w, d), in the parameters' dtype or float32, whichever is finer.

        Raises:
            ModelError: if shapes are not what the config says.
        """
        config, dtype = self.config, self.dtype
        self._check(window, levels, references)
        levels = levels.expand(window.shape[:2])
        mean, scale = config.data_mean, config.data_scale
        window = window.to(at_least_single(dtype))
        a, s = scales(levels, window)
        total = torch.hypot(a * scale, s)
        centred = window - a * mean
        kept = () if recollection is None else (recollection,)
        # Under autocast what comes out is coarser than what goes in.
        raw: Tensor = self.backbone((centred / total).to(dtype), levels, self._context(references), *kept).to(
            window
        )
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

        def network(kept: Recollection | None = None) -> Network:
            # The fourth thing shown, the window's actions, stands in the references too.
            return lambda *shown: self(*shown[:3], kept)

        return NetworkScore(
            network(),
            "x0",
            dtype=at_least_single(self.dtype),
            device=self.device,
            batch=batch,
            recall=lambda references: network(self.recall(references)),
        )

    def _context(self, references: ReferenceBatch) -> ReferenceBatch:
        """The references as the backbone sees them: at unit scale."""
        config, dtype = self.config, self.dtype
        values = references.values.to(at_least_single(dtype))
        a, s = scales(references.levels, values)
        return ReferenceBatch(
            ((values - a * config.data_mean) / torch.hypot(a * config.data_scale, s)).to(dtype),
            references.levels,
            references.frames,
            references.window_frames,
            None if references.actions is None else references.actions.to(dtype),
            None if references.window_actions is None else references.window_actions.to(dtype),
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
        if len(references.window_frames) != window.shape[1]:
            raise ModelError(
                f"{window.shape[1]} window frames but {len(references.window_frames)} of their indices"
            )
        self._check_references(references, len(window))

    def _check_references(self, references: ReferenceBatch, windows: int) -> None:
        config, r = self.config, references.values.shape[1]
        if r > config.references or references.levels.shape != (r,) or len(references.frames) != r:
            raise ModelError(
                f"this network takes at most {config.references} references with a level and a frame each, got "
                f"{r} values, {tuple(references.levels.shape)} levels and {len(references.frames)} frames"
            )
        if references.values.shape != (windows, r, config.frame_dim):
            raise ModelError(
                f"{windows} windows need references ({windows}, r, {config.frame_dim}), got "
                f"{tuple(references.values.shape)}"
            )
        given = references.window_actions
        if config.action_dim and (given is None or (r > 0 and references.actions is None)):
            raise ModelError(f"this network needs actions of {config.action_dim} numbers, got none")
        for what, actions, frames in (
            ("window frames", given, len(references.window_frames)),
            ("references", references.actions, r),
        ):
            shape = (windows, frames, config.action_dim)
            if config.action_dim and actions is not None and actions.shape != shape:
                raise ModelError(f"the {what} need actions of shape {shape}, got {tuple(actions.shape)}")
