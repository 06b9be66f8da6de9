"""A small 3-D U-Net: convolutions in space, attention over places and over frames.

Source: Ho et al. 2022, *Video diffusion models*, section 3 (a 2-D U-Net made 3-D by 1 x 3 x 3 convolutions and
attention factorised over space and time).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from arvdm_theory.interfaces import ReferenceBatch
from arvdm_theory.networks.attention import FrameAttention, PlaceAttention, Remembered
from arvdm_theory.networks.config import DenoiserConfig, ModelError
from arvdm_theory.networks.embeddings import Frames, FrameStem, scaled_linear
from arvdm_theory.networks.memory import Level, Memory, MemoryOptions, Recollection
from arvdm_theory.networks.options import GridOptions, option

__all__ = ["UNetBackbone", "UNetOptions"]

_FIRST_OUTPUT = 1e-3


@dataclass(frozen=True)
class UNetOptions(GridOptions):
    """Options of a U-Net, beside those of :class:`arvdm_theory.networks.options.GridOptions`.

    Attributes:
        multipliers: channels of each resolution, in widths.
        blocks: at each resolution and on each side.
        place_attention: the largest side of a grid whose places attend to each other.
    """

    owner: ClassVar[str] = "a U-Net"

    width: int = 32
    multipliers: tuple[int, ...] = (1, 2)
    blocks: int = 1
    place_attention: int = option(16, least=0)


class UNetBackbone(nn.Module):
    """Down and up through (residual block; attention over places, over frames, to the memory) at each resolution.

    Frames of a prepended memory go through the whole network as further frames; attention to a memory follows
    every block.

    Options: :class:`UNetOptions`.

    Raises:
        ModelError: naming the option that does not fit, or if the frames are vectors.
    """

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        if len(config.frame_shape) != 3:
            raise ModelError(
                f"{UNetOptions.owner} needs pictures (H, W, C), got frames of shape {config.frame_shape}"
            )
        options = UNetOptions.read(config.options)
        heads, multipliers, blocks = options.heads, options.multipliers, options.blocks
        shrink = 2 ** (len(multipliers) - 1)
        height, breadth = config.frame_shape[:2]
        if height % shrink or breadth % shrink:
            raise ModelError(
                f"{options.owner}: {len(multipliers)} multipliers need a height and width that {shrink} divides, "
                f"got {height} x {breadth}"
            )
        levels: list[Level] = [(height >> i, breadth >> i, options.width * m) for i, m in enumerate(multipliers)]
        condition = 4 * options.width
        self.stem = FrameStem(config, levels[0][2], condition, 3, 1, options.horizon)
        self.memory = Memory(MemoryOptions.of(options.memory, config.references), config, condition, heads, levels)
        several = config.window > 1 or self.memory.prepends
        self.blocks = blocks
        limit, poses = options.place_attention, config.action_dim > 0

        def block(level: int, entering: int) -> _Block:
            return _Block(entering, levels, level, condition, heads, poses, several, limit, self.memory)

        channels = [c for _, _, c in levels]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.shrink, self.grow = nn.ModuleList(), nn.ModuleList()
        for i, c in enumerate(channels):
            self.down.extend(block(i, c) for _ in range(blocks))
            self.up.extend(block(i, 2 * c) for _ in range(blocks))
            if i + 1 < len(channels):
                self.shrink.append(nn.Conv2d(c, channels[i + 1], 3, 2, 1))
                self.grow.append(nn.Conv2d(channels[i + 1], c, 3, 1, 1))
        self.middle = block(len(channels) - 1, channels[-1])
        self.norm = _group_norm(channels[0])
        self.out = nn.Conv2d(channels[0], config.frame_shape[2], 3, 1, 1)
        nn.init.normal_(self.out.weight, std=_FIRST_OUTPUT)
        assert self.out.bias is not None
        nn.init.zeros_(self.out.bias)

    def recall(self, references: ReferenceBatch) -> Recollection:
        """What is made of the references alone."""
        return self.memory.recall(references, self.stem)

    def forward(
        self, window: Tensor, levels: Tensor, references: ReferenceBatch, recollection: Recollection | None = None
    ) -> Tensor:
        """F, of the window's shape; see :data:`arvdm_theory.networks.denoiser.ARCHITECTURES`."""
        made = self.recall(references) if recollection is None else recollection
        recalled = self.memory(*self.stem.window(window, levels, references), made)
        x, frames = recalled.x, recalled.frames
        kept: list[Tensor] = []
        for i in range(len(self.shrink) + 1):
            if i:
                x = _picturewise(self.shrink[i - 1], x)
            for block in self.down[i * self.blocks : (i + 1) * self.blocks]:
                x = block(x, frames, recalled.levels[i])
                kept.append(x)
        x = self.middle(x, frames, recalled.levels[-1])
        for i in reversed(range(len(self.shrink) + 1)):
            for block in self.up[i * self.blocks : (i + 1) * self.blocks]:
                x = block(torch.cat([x, kept.pop()], -1), frames, recalled.levels[i])
            if i:
                x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
                x = _picturewise(self.grow[i - 1], x)
        x = _picturewise(self.norm, x[:, recalled.prepended :])
        return _picturewise(self.out, functional.silu(x)).reshape(window.shape)


class _Block(nn.Module):
    def __init__(
        self, entering: int, levels: list[Level], level: int, condition: int, heads: int, poses: bool,
        several: bool, place_limit: int, memory: Memory,
    ) -> None:  # fmt: skip
        super().__init__()
        h, w, channels = levels[level]
        self.residual = _ResidualBlock(entering, channels, condition)
        attend = h * w > 1 and max(h, w) <= place_limit
        self.places = PlaceAttention(channels, heads, condition) if attend else None
        self.frames = FrameAttention(channels, heads, condition, poses) if several else None
        self.memory = memory.attention(level)

    def forward(self, x: Tensor, frames: Frames, memory: Remembered | None) -> Tensor:
        x = self.residual(x, frames)
        if self.places is not None:
            x = self.places(x, frames)
        if self.frames is not None:
            x = self.frames(x, frames)
        if self.memory is not None and memory is not None:
            x = self.memory(x, frames, memory)
        return x


class _ResidualBlock(nn.Module):
    """Two convolutions, the second one's input scaled and shifted by the frame's condition."""

    def __init__(self, entering: int, channels: int, condition: int) -> None:
        super().__init__()
        self.first_norm, self.second_norm = _group_norm(entering), _group_norm(channels, affine=False)
        self.first = nn.Conv2d(entering, channels, 3, 1, 1)
        self.second = nn.Conv2d(channels, channels, 3, 1, 1)
        with torch.no_grad():
            self.second.weight *= 0.2
        self.modulation = scaled_linear(condition, 2 * channels, 0.1)
        self.skip = nn.Linear(entering, channels) if entering != channels else nn.Identity()

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        inner = _picturewise(self.first, functional.silu(_picturewise(self.first_norm, x)))
        scale, shift = self.modulation(functional.silu(frames.condition))[:, :, None, None].chunk(2, -1)
        inner = _picturewise(self.second_norm, inner) * (1 + scale) + shift
        output: Tensor = self.skip(x) + _picturewise(self.second, functional.silu(inner))
        return output


def _group_norm(channels: int, affine: bool = True) -> nn.GroupNorm:
    """Over each frame alone, in up to 8 groups of at least 4 channels."""
    return nn.GroupNorm(math.gcd(8, channels, max(channels // 4, 1)), channels, affine=affine)


def _picturewise(layer: nn.Module, x: Tensor) -> Tensor:
    """A layer of pictures (n, c, h, w) applied to a grid (batch, frames, h, w, c)."""
    pictures: Tensor = layer(x.flatten(0, 1).permute(0, 3, 1, 2))
    return pictures.permute(0, 2, 3, 1).reshape(*x.shape[:2], *pictures.shape[2:], pictures.shape[1])
