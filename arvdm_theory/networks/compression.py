"""Learned compression of a memory: fewer places, fewer frames, or a fixed number of tokens.

Each takes the grid (batch, m, h, w, c) of the remembered frames and their :class:`Frames` and gives a smaller grid
with frames of its own, which any memory structure can then use.

Sources: Dosovitskiy et al. 2021 (patches merged by a linear map); Jaegle et al. 2021 (Perceiver: learned queries
that read a long input).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from arvdm_theory.networks.attention import Attention
from arvdm_theory.networks.config import ModelError
from arvdm_theory.networks.embeddings import Frames, scaled_linear

__all__ = [
    "ChannelBottleneck",
    "Compression",
    "PlaceMerge",
    "Resampler",
    "TemporalMerge",
    "merge_places",
    "split_places",
]


class Compression(nn.Module):
    """What the four have in common: (features, frames) → the smaller memory.

    Attributes:
        grid: (h, w) of what comes out.
    """

    grid: tuple[int, int] = (1, 1)

    def slots(self, frames: int) -> int:
        """How many frames come out of at most ``frames``."""
        return frames


def merge_places(x: Tensor, factor: int) -> Tensor:
    """(.., h, w, c) → (.., h/factor, w/factor, factor² c)."""
    *lead, h, w, c = x.shape
    x = x.reshape(*lead, h // factor, factor, w // factor, factor, c)
    return x.transpose(-4, -3).reshape(*lead, h // factor, w // factor, factor * factor * c)


def split_places(x: Tensor, factor: int) -> Tensor:
    """The inverse of :func:`merge_places`: (.., h, w, factor² c) → (.., factor h, factor w, c)."""
    *lead, h, w, _ = x.shape
    x = x.reshape(*lead, h, w, factor, factor, -1).transpose(-4, -3)
    return x.reshape(*lead, h * factor, w * factor, x.shape[-1])


class PlaceMerge(Compression):
    """Squares of factor x factor places become one each, by a linear map (a convolution with stride)."""

    def __init__(self, grid: tuple[int, int], width: int, factor: int) -> None:
        super().__init__()
        if grid[0] % factor or grid[1] % factor:
            raise ModelError(f"memory: factor {factor} does not divide the memory's grid of {grid[0]} x {grid[1]}")
        self.factor, self.grid = factor, (grid[0] // factor, grid[1] // factor)
        self.merge = scaled_linear(factor * factor * width, width, 1.0)

    def forward(self, x: Tensor, frames: Frames) -> tuple[Tensor, Frames]:
        """See :class:`Compression`."""
        return self.merge(merge_places(x, self.factor)), frames


class ChannelBottleneck(Compression):
    """The spatial compression of a frame that is one place: its channels pass through width/factor numbers."""

    def __init__(self, width: int, factor: int) -> None:
        super().__init__()
        inner = max(width // factor, 1)
        self.squeeze, self.widen = scaled_linear(width, inner, 1.0), scaled_linear(inner, width, 1.0)

    def forward(self, x: Tensor, frames: Frames) -> tuple[Tensor, Frames]:
        """See :class:`Compression`."""
        return self.widen(self.squeeze(x)), frames


class TemporalMerge(Compression):
    """Groups of ``factor`` consecutive remembered frames become one frame each, counted back from the newest.

    Conditions and poses start as their groups' scaled sums, so that a merged frame is still found by the poses of
    the frames that went into it.

    Args:
        grid: (h, w).
        width: channels.
        condition: e.
        factor: how many frames become one.
        conditioned: whether what comes after reads the merged frames' conditions.
        posed: whether it reads their poses.
    """

    def __init__(
        self, grid: tuple[int, int], width: int, condition: int, factor: int, conditioned: bool, posed: bool
    ) -> None:
        super().__init__()
        self.grid, self.factor = grid, factor
        # A mark a frame tells the map which places of the oldest group are empty.
        self.merge = scaled_linear(factor * (width + 1), width, 1.0)
        self.condition = _summing(condition, factor) if conditioned else None
        self.pose = _summing(condition, factor) if posed else None

    def slots(self, frames: int) -> int:
        """See :class:`Compression`."""
        return -(-frames // self.factor)

    def forward(self, x: Tensor, frames: Frames) -> tuple[Tensor, Frames]:
        """See :class:`Compression`."""
        marked = torch.cat([x, torch.ones_like(x[..., :1])], -1)
        marks = torch.ones_like(frames.times)
        count = self._groups(marks[None]).sum(-1)[0]
        times = self._groups(frames.times[None]).sum(-1)[0] / count
        merged: Tensor = self.merge(self._groups(marked))
        blank = frames.condition.new_zeros(*merged.shape[:2], frames.condition.shape[-1])
        condition = blank if self.condition is None else self.condition(self._groups(frames.condition))
        pose = None
        if frames.pose is not None:
            pose = blank if self.pose is None else self.pose(self._groups(frames.pose))
        return merged, Frames(condition, pose, times)

    def _groups(self, x: Tensor) -> Tensor:
        """(batch, m, .., c) or (batch, m) → (batch, groups, .., factor c) with zeros for what is missing."""
        x = x.unsqueeze(-1) if x.ndim == 2 else x
        missing = x.new_zeros(len(x), -x.shape[1] % self.factor, *x.shape[2:])
        full = torch.cat([missing, x], 1)
        grouped = full.reshape(len(x), -1, self.factor, *x.shape[2:]).movedim(2, -2)
        return grouped.flatten(-2)


def _summing(size: int, factor: int) -> nn.Linear:
    layer = scaled_linear(factor * size, size, 0.1, bias=False)
    with torch.no_grad():
        layer.weight += torch.eye(size).repeat(1, factor) / math.sqrt(factor)
    return layer


class Resampler(Compression):
    """A fixed number of learned queries read all places of all remembered frames.

    What comes out are that many frames of one place each, standing at times -n..-1; their conditions and poses are
    linear in what they hold.

    Args:
        width: channels.
        condition: e.
        heads: see :class:`arvdm_theory.networks.attention.Attention`.
        tokens: n.
        conditioned: whether what comes after reads the tokens' conditions.
        posed: whether it reads their poses.
    """

    def __init__(
        self, width: int, condition: int, heads: int, tokens: int, conditioned: bool, posed: bool
    ) -> None:
        super().__init__()
        self.condition = scaled_linear(width, condition, 0.3) if conditioned else None
        self.pose = scaled_linear(width, condition, 0.3, bias=False) if posed else None
        self.tokens = nn.Parameter(torch.randn(tokens, width))
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads, out_scale=1.0)
        self.feed = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), scaled_linear(4 * width, width, 0.1)
        )

    def slots(self, frames: int) -> int:
        """See :class:`Compression`."""
        return len(self.tokens) if frames else 0

    def forward(self, x: Tensor, frames: Frames) -> tuple[Tensor, Frames]:
        """See :class:`Compression`."""
        known = self.norm(x)
        times = frames.times.repeat_interleave(known.shape[2] * known.shape[3])
        known, asked = known.flatten(1, 3), self.tokens.expand(len(x), -1, -1)
        n = asked.shape[1]
        read = asked + self.attention(asked, known, known, times.new_zeros(n), times)
        read = read + self.feed(read)
        blank = frames.condition.new_zeros(len(x), n, frames.condition.shape[-1])
        condition = blank if self.condition is None else self.condition(read)
        pose = None
        if frames.pose is not None:
            pose = blank if self.pose is None else self.pose(read)
        at = torch.arange(-n, 0, dtype=frames.times.dtype, device=x.device)
        return read[:, :, None, None], Frames(condition, pose, at)
