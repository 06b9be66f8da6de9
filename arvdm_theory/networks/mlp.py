"""A multi-layer perceptron over a whole window and its references."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from arvdm_theory.interfaces import ReferenceBatch
from arvdm_theory.networks.config import DenoiserConfig
from arvdm_theory.networks.options import TimeOptions, option

__all__ = ["MLPBackbone", "MLPOptions"]


@dataclass(frozen=True)
class MLPOptions(TimeOptions):
    """Options of a perceptron, beside those of :class:`arvdm_theory.networks.options.TimeOptions`.

    Attributes:
        width: of the hidden layers.
        depth: residual blocks.
    """

    owner: ClassVar[str] = "an MLP"

    width: int = 128
    depth: int = option(3, least=0)


class MLPBackbone(nn.Module):
    """Residual MLP on (window, references, levels, actions), all flattened.

    References fill the slots nearest to the window first, so a plan's ``last m`` always stand in the same
    places; empty slots are zero and marked as such. A window shorter than the config's (an initialisation stage)
    is filled up in the same way.

    Options: :class:`MLPOptions`.
    """

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        options = MLPOptions.read(config.options)
        self.config = config
        self.absolute, self.horizon = options.absolute, options.horizon_frames
        frame, slots = config.frame_dim + config.action_dim, config.window + config.references
        # A slot holds a frame, its action, a mark, its level in two forms, and how far before the window it is.
        size = slots * (frame + 4) + int(self.absolute)
        width = options.width
        self.embed = nn.Linear(size, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))
            for _ in range(options.depth)
        )
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, config.window * config.frame_dim))
        last = self.out[-1]
        assert isinstance(last, nn.Linear)
        nn.init.normal_(last.weight, std=1e-3)
        nn.init.zeros_(last.bias)

    def forward(self, window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
        """F, of the window's shape; see :data:`arvdm_theory.networks.denoiser.ARCHITECTURES`."""
        config, batch, w = self.config, window.shape[0], window.shape[1]
        start = references.window_frames[0]
        distance = window.new_tensor([(frame - start) / self.horizon for frame in references.frames])
        shown = self._slots(
            references.values, references.levels.expand(batch, -1), references.actions, distance, config.references
        )
        own = self._slots(window, levels, references.window_actions, window.new_zeros(w), config.window)
        inputs = [own.flatten(1), shown.flatten(1)]
        if self.absolute:
            inputs.append(window.new_full((batch, 1), start / self.horizon))
        hidden = self.embed(torch.cat(inputs, -1))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        output: Tensor = self.out(hidden).unflatten(-1, (config.window, config.frame_dim))
        return output[:, config.window - w :]

    def _slots(
        self, values: Tensor, levels: Tensor, actions: Tensor | None, distance: Tensor, slots: int
    ) -> Tensor:
        """(batch, slots, frame + action + 4), the frames in the last places."""
        batch, n = values.shape[:2]
        level = levels.to(values.device)  # whose dtype may be finer than the pixels'
        marked = torch.stack([torch.ones_like(level), level / 4, torch.log(level + 1e-4) / 4], -1).to(values)
        marks = torch.cat([marked, distance.expand(batch, -1)[..., None]], -1)
        parts = [values, marks]
        if self.config.action_dim:
            parts.insert(1, values.new_zeros(batch, n, self.config.action_dim) if actions is None else actions)
        return nn.functional.pad(torch.cat(parts, -1), (0, 0, slots - n, 0))
