"""A multi-layer perceptron over a whole window and its references."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from arvdm_theory.interfaces import ReferenceBatch
from arvdm_theory.networks.denoiser import DenoiserConfig, ModelError

__all__ = ["MLPBackbone"]


class MLPBackbone(nn.Module):
    """Residual MLP on (window, references, levels, actions), all flattened.

    References fill the slots nearest to the window first, so a plan's ``last m`` always stand in the same
    places; empty slots are zero and marked as such. A window shorter than the config's (an initialisation stage)
    is filled up in the same way.

    Options: ``width`` (128), ``depth`` (3, residual blocks), ``absolute`` (False; True tells the network the
    window's first frame, for videos that are not stationary, in units of ``horizon_frames``, 64).
    """

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        options = {"width": 128, "depth": 3, "absolute": False, "horizon_frames": 64, **config.options}
        unknown = set(options) - {"width", "depth", "absolute", "horizon_frames"}
        if unknown or options["width"] < 1 or options["depth"] < 0:
            raise ModelError(f"an MLP has options width ≥ 1, depth ≥ 0, absolute, horizon_frames; got {options}")
        self.config = config
        self.absolute, self.horizon = bool(options["absolute"]), float(options["horizon_frames"])
        frame, slots = config.frame_dim + config.action_dim, config.window + config.references
        # A slot holds a frame, its action, a mark, its level in two forms, and how far before the window it is.
        size = slots * (frame + 4) + int(self.absolute)
        width = int(options["width"])
        self.embed = nn.Linear(size, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))
            for _ in range(int(options["depth"]))
        )
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, config.window * config.frame_dim))
        last = self.out[-1]
        assert isinstance(last, nn.Linear)
        nn.init.normal_(last.weight, std=1e-3)
        nn.init.zeros_(last.bias)

    def forward(self, window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
        """F, of the window's shape; see :class:`arvdm_theory.networks.denoiser.Backbone`."""
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
        level = levels.to(values)
        marks = torch.stack(
            [torch.ones_like(level), level / 4, torch.log(level + 1e-4) / 4, distance.expand(batch, -1)], -1
        )
        parts = [values, marks]
        if self.config.action_dim:
            parts.insert(1, values.new_zeros(batch, n, self.config.action_dim) if actions is None else actions)
        return nn.functional.pad(torch.cat(parts, -1), (0, 0, slots - n, 0))
