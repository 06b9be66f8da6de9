"""From flat frames to a grid of features, and what a network is conditioned on, a frame.

All networks but the linear one and the perceptron work on grids (batch, frames, h, w, channels). A vector frame is
a grid of one place. What is known of a frame besides its values — how noisy it is, where in time it stands, which
action led to it — is one condition vector a frame; the action's part of it is kept apart as the frame's *pose*,
because attention over frames looks frames up by it.

Scales matter: the pose enters at standard deviation 0.5 per unit action and everything else at 0.3, so that what
frames are looked up by is not drowned by what they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from arvdm_theory.diffusion.prediction import at_least_single
from arvdm_theory.interfaces import ReferenceBatch
from arvdm_theory.networks.config import DenoiserConfig

__all__ = ["FrameStem", "Frames", "fourier_features", "scaled_linear"]

_POSE_SCALE, _OTHER_SCALE = 0.5, 0.3
# Levels below it look clean to the network; far below the last level of any plan's grid but 0 itself.
_SMALLEST_LEVEL = 1e-4
_FREQUENCIES = 8


@dataclass(frozen=True)
class Frames:
    """What is known of some frames besides their values.

    Attributes:
        condition: noise level, offset and action of each, embedded, (batch, frames, e).
        pose: the action's part of it, (batch, frames, e); None without actions.
        times: offsets from the window's first frame, (frames,), in frames; float32 or finer.
    """

    condition: Tensor
    pose: Tensor | None
    times: Tensor

    def before(self, later: Frames) -> Frames:
        """These frames, then the ``later`` ones."""
        poses = None
        if self.pose is not None and later.pose is not None:
            poses = torch.cat([self.pose, later.pose], 1)
        return Frames(torch.cat([self.condition, later.condition], 1), poses, torch.cat([self.times, later.times]))


def fourier_features(values: Tensor, shortest: float, longest: float) -> Tensor:
    """Sines and cosines of ``values`` at 8 periods, geometric from ``shortest`` to ``longest``; shape (.., 16)."""
    rates = torch.logspace(
        math.log10(shortest), math.log10(longest), _FREQUENCIES, dtype=values.dtype, device=values.device
    )
    angles = 2 * math.pi * values.unsqueeze(-1) / rates
    return torch.cat([torch.sin(angles), torch.cos(angles)], -1)


def scaled_linear(inputs: int, outputs: int, scale: float, bias: bool = True) -> nn.Linear:
    """A linear map whose outputs have standard deviation ``scale`` for inputs of unit variance."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    nn.init.normal_(layer.weight, std=scale / math.sqrt(inputs))
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


class FrameStem(nn.Module):
    """(values, levels, actions, indices) → the grid of features and the :class:`Frames`.

    The one entrance for window frames and remembered frames alike: the same convolution and the same embeddings.

    Args:
        config: the denoiser's.
        width: channels of the grid.
        condition: e, the size of the condition vectors.
        kernel: of the convolution; equal to ``stride`` for patches.
        stride: of the convolution.
        horizon_frames: if given, networks are conditioned on the frames' absolute indices too, in this unit.
    """

    def __init__(
        self,
        config: DenoiserConfig,
        width: int,
        condition: int,
        kernel: int = 1,
        stride: int = 1,
        horizon_frames: float | None = None,
    ) -> None:
        super().__init__()
        self.shape = config.frame_shape if len(config.frame_shape) == 3 else (1, 1, *config.frame_shape)
        self.horizon_frames = horizon_frames
        self.grid = (self.shape[0] // stride, self.shape[1] // stride)
        self.values = nn.Conv2d(self.shape[2], width, kernel, stride, (kernel - stride) // 2)
        features = 2 * _FREQUENCIES
        self.level = nn.Sequential(
            # Half of a sum of sin² + cos² is the variance of a feature.
            scaled_linear(features, condition, math.sqrt(2)),
            nn.SiLU(),
            # SiLU of a unit normal has a root mean square of 0.6.
            scaled_linear(condition, condition, _OTHER_SCALE / 0.6),
        )
        self.offset = scaled_linear(features, condition, math.sqrt(2) * _OTHER_SCALE)
        self.absolute = None if horizon_frames is None else scaled_linear(
            features, condition, math.sqrt(2) * _OTHER_SCALE
        )  # fmt: skip
        actions = config.action_dim
        self.pose = scaled_linear(actions, condition, _POSE_SCALE * math.sqrt(actions), False) if actions else None
        self.tell = scaled_linear(condition, width, 1.0)
        places = self.grid[0] * self.grid[1]
        self.place = scaled_linear(2 * features, width, math.sqrt(2) * _OTHER_SCALE) if places > 1 else None

    def window(self, window: Tensor, levels: Tensor, references: ReferenceBatch) -> tuple[Tensor, Frames]:
        """Grid and frames of the window: (batch, w, d) at levels (batch, w)."""
        return self._embed(window, levels, references.window_actions, references.window_frames, references)

    def references(self, references: ReferenceBatch) -> tuple[Tensor, Frames]:
        """Grid and frames of the references."""
        levels = references.levels.expand(references.values.shape[:2])
        return self._embed(references.values, levels, references.actions, references.frames, references)

    def _embed(
        self, values: Tensor, levels: Tensor, actions: Tensor | None, indices: Sequence[int], given: ReferenceBatch
    ) -> tuple[Tensor, Frames]:
        batch, frames = values.shape[:2]
        # On a device without float64 (MPS) float32 must do.
        precise = torch.float32 if values.device.type == "mps" else torch.float64
        at = torch.log(levels.to(values.device, precise) + _SMALLEST_LEVEL)
        condition = self.level(fourier_features(at, 0.5, 40.0).to(values))
        index = torch.tensor(list(indices), dtype=precise, device=values.device)
        offset = index - given.window_frames[0]
        distance = torch.sign(offset) * torch.log1p(offset.abs())
        condition = condition + self.offset(fourier_features(distance, 0.5, 16.0).to(values))
        if self.absolute is not None and self.horizon_frames is not None:
            condition = condition + self.absolute(
                fourier_features(index / self.horizon_frames, 0.1, 4.0).to(values)
            )
        pose = None
        if self.pose is not None:
            pose = values.new_zeros(condition.shape) if actions is None else self.pose(actions)
            condition = condition + pose
        pictures = values.reshape(batch * frames, *self.shape).permute(0, 3, 1, 2)
        grid = self.values(pictures).permute(0, 2, 3, 1).unflatten(0, (batch, frames))
        grid = grid + self.tell(condition)[:, :, None, None]
        if self.place is not None:
            grid = grid + self.place(self._places(grid))
        return grid, Frames(condition, pose, offset.to(at_least_single(values.dtype)))

    def _places(self, like: Tensor) -> Tensor:
        dtype = at_least_single(like.dtype)
        rows, columns = (
            fourier_features((torch.arange(n, dtype=dtype, device=like.device) + 0.5) / n, 0.125, 4.0).to(like)
            for n in self.grid
        )
        shape = (*self.grid, rows.shape[-1])
        return torch.cat([rows[:, None].expand(shape), columns[None].expand(shape)], -1)
