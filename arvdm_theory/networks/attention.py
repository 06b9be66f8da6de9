"""Attention over frames and over places of a grid (batch, frames, h, w, channels), and what goes with it.

Every layer here is residual, reads its input normalised and modulated by the frame's condition, and writes through
a small but not zero projection, so that a fresh network is close to the identity and no parameter is dead.

Sources: Vaswani et al. 2017; Peebles and Xie 2023 (modulation by the noise level); Su et al. 2021 (rotary
positions); Ho et al. 2022 (attention factorised over space and time).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from arvdm_theory.networks.embeddings import Frames, scaled_linear

__all__ = ["Attention", "FeedForward", "FrameAttention", "Modulation", "PlaceAttention", "on_grid"]

_OUT_SCALE = 0.1
# Fused kernels take at most 65535 pairs of row and head on some devices.
_MOST_ROWS = 65535
_SLOWEST_ROTATION = 1e-3


class Attention(nn.Module):
    """Multi-head attention whose keys start equal to its queries, so that like finds like from the first step.

    Half of each head's channels are rotated by time; the others compare content wherever it stands in time.

    Args:
        width: channels.
        heads: a divisor of the width; the channels of a head are a multiple of 4.
        null: adds a learned key and value that stand for "nothing here fits".
        out_scale: standard deviation of the output for values of unit variance.
    """

    def __init__(self, width: int, heads: int, null: bool = False, out_scale: float = _OUT_SCALE) -> None:
        super().__init__()
        self.heads = heads
        self.query = scaled_linear(width, width, 1.0, bias=False)
        self.key = scaled_linear(width, width, 1.0, bias=False)
        self.key.load_state_dict(self.query.state_dict())
        self.value = scaled_linear(width, width, 1.0, bias=False)
        self.out = scaled_linear(width, width, out_scale)
        size = width // heads
        # Nothing stands at no time: its key is zero where the others are rotated.
        self.null_key = nn.Parameter(torch.zeros(heads, 1, size - 2 * (size // 4))) if null else None
        self.null_value = nn.Parameter(torch.zeros(heads, 1, size)) if null else None

    def forward(
        self,
        asked: Tensor,
        known: Tensor,
        values: Tensor,
        asked_times: Tensor | None = None,
        known_times: Tensor | None = None,
    ) -> Tensor:
        """(rows, n, c) asked of keys and values (rows, m, c); times (n,) and (m,)."""
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query(asked), self.key(known), self.value(values))
        )
        if asked_times is not None and known_times is not None:
            q, k = _rotated(q, asked_times), _rotated(k, known_times)
        if self.null_key is not None and self.null_value is not None:
            key = functional.pad(self.null_key, (k.shape[-1] - self.null_key.shape[-1], 0))
            k = torch.cat([key.expand(len(k), -1, -1, -1), k], 2)
            v = torch.cat([self.null_value.expand(len(v), -1, -1, -1), v], 2)
        rows = max(_MOST_ROWS // self.heads, 1)
        if len(q) <= rows:
            mixed = functional.scaled_dot_product_attention(q, k, v)
        else:
            parts = zip(q.split(rows), k.split(rows), v.split(rows), strict=True)
            mixed = torch.cat([functional.scaled_dot_product_attention(*part) for part in parts])
        output: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return output


def _rotated(heads: Tensor, times: Tensor) -> Tensor:
    """Channel pairs of the first half of each head turned by time times a rate from 1 down to 1e-3 a frame."""
    pairs = heads.shape[-1] // 4
    rates = _SLOWEST_ROTATION ** (torch.arange(pairs, dtype=times.dtype, device=times.device) / pairs)
    angles = times[:, None] * rates
    cos, sin = torch.cos(angles).to(heads), torch.sin(angles).to(heads)
    a, b, rest = heads[..., :pairs], heads[..., pairs : 2 * pairs], heads[..., 2 * pairs :]
    return torch.cat([a * cos - b * sin, a * sin + b * cos, rest], -1)


class Modulation(nn.Module):
    """Adaptive layer norm: x → ((1 + scale) norm(x) + shift, 1 + gate), all three linear in SiLU(condition).

    Without a gate (the last layer of a network) the second output is 1.
    """

    def __init__(self, width: int, condition: int, gated: bool = True) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.linear = scaled_linear(condition, (3 if gated else 2) * width, _OUT_SCALE)
        self.width = width

    def forward(self, x: Tensor, frames: Frames) -> tuple[Tensor, Tensor]:
        """Of a grid (batch, frames, h, w, c)."""
        parts = self.linear(functional.silu(frames.condition))[:, :, None, None]
        scale, shift = parts[..., : self.width], parts[..., self.width : 2 * self.width]
        gate = 1 + parts[..., 2 * self.width :] if parts.shape[-1] > 2 * self.width else torch.ones_like(scale)
        return self.norm(x) * (1 + scale) + shift, gate


class FeedForward(nn.Module):
    """The position-wise perceptron of a transformer."""

    def __init__(self, width: int, condition: int) -> None:
        super().__init__()
        self.modulation = Modulation(width, condition)
        self.hidden = nn.Linear(width, 4 * width)
        self.out = scaled_linear(4 * width, width, _OUT_SCALE)

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        """Of a grid (batch, frames, h, w, c)."""
        inner, gate = self.modulation(x, frames)
        output: Tensor = x + gate * self.out(functional.gelu(self.hidden(inner)))
        return output


class PlaceAttention(nn.Module):
    """Attention over the places of each frame."""

    def __init__(self, width: int, heads: int, condition: int) -> None:
        super().__init__()
        self.modulation = Modulation(width, condition)
        self.attention = Attention(width, heads)

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        """Of a grid (batch, frames, h, w, c)."""
        inner, gate = self.modulation(x, frames)
        output: Tensor = x + gate * over_places(self.attention, inner)
        return output


class FrameAttention(nn.Module):
    """Attention over frames: of the grid to itself, or to the grid of a memory.

    Queries and keys hold the frames' poses as well as their content. Positions in time are rotary.

    Args:
        width: channels, of the memory's grid too.
        heads: see :class:`Attention`.
        condition: e.
        poses: whether the video has actions.
        memory: whether it attends to a memory's grid.
        attention: ``same-place`` (each place sees its own place in the other frames; a coarser memory covers
            several places each), ``full`` (every place of every frame sees every place of every other), or
            ``factorised`` (same-place, then over the places of what each frame found).
        places: h w.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        condition: int,
        poses: bool,
        memory: bool = False,
        attention: str = "same-place",
        places: int = 1,
    ) -> None:
        super().__init__()
        self.modulation = Modulation(width, condition)
        self.attention = Attention(width, heads, null=memory)
        self.pose = scaled_linear(condition, width, 1.0, bias=False) if poses else None
        self.memory_norm = nn.LayerNorm(width) if memory else None
        self.full = attention == "full"
        self.places = Attention(width, heads) if attention == "factorised" and places > 1 else None

    def forward(self, x: Tensor, frames: Frames, memory: tuple[Tensor, Frames] | None = None) -> Tensor:
        """Of a grid (batch, frames, h, w, c); ``memory`` is such a grid and its frames."""
        values, gate = self.modulation(x, frames)
        asked = self._posed(values, frames)
        known, known_frames = asked, frames
        if memory is not None and self.memory_norm is not None:
            values, known_frames = self.memory_norm(memory[0]), memory[1]
            known = self._posed(values, known_frames)
        if self.full:
            found = over_all(self.attention, asked, known, values, frames.times, known_frames.times)
        else:
            found = over_frames(self.attention, asked, known, values, frames.times, known_frames.times)
        if self.places is not None:
            found = found + over_places(self.places, functional.layer_norm(found, found.shape[-1:]))
        output: Tensor = x + gate * found
        return output

    def _posed(self, x: Tensor, frames: Frames) -> Tensor:
        if self.pose is None or frames.pose is None:
            return x
        posed: Tensor = x + self.pose(frames.pose)[:, :, None, None]
        return posed


def on_grid(x: Tensor, height: int, width: int) -> Tensor:
    """A grid repeated to a finer one, (batch, frames, height, width, c)."""
    h, w = x.shape[2:4]
    if (h, w) == (1, 1):
        return x.expand(-1, -1, height, width, -1)
    if (h, w) == (height, width):
        return x
    return x.repeat_interleave(height // h, 2).repeat_interleave(width // w, 3)


def over_places(attention: Attention, x: Tensor) -> Tensor:
    """Attention over (h, w), frame by frame."""
    rows = x.flatten(0, 1).flatten(1, 2)
    return torch.reshape(attention(rows, rows, rows), x.shape)


def over_frames(
    attention: Attention, asked: Tensor, known: Tensor, values: Tensor, asked_times: Tensor, known_times: Tensor
) -> Tensor:
    """Attention over frames, place by place."""
    batch, frames, h, w, channels = asked.shape

    def rows(x: Tensor) -> Tensor:
        return on_grid(x, h, w).permute(0, 2, 3, 1, 4).flatten(0, 2)

    found = attention(rows(asked), rows(known), rows(values), asked_times, known_times)
    return torch.reshape(found, (batch, h, w, frames, channels)).permute(0, 3, 1, 2, 4)


def over_all(
    attention: Attention, asked: Tensor, known: Tensor, values: Tensor, asked_times: Tensor, known_times: Tensor
) -> Tensor:
    """Attention over frames and places together."""

    def times(x: Tensor, at: Tensor) -> Tensor:
        return at.repeat_interleave(x.shape[2] * x.shape[3])

    rows = (x.flatten(1, 3) for x in (asked, known, values))
    return torch.reshape(attention(*rows, times(asked, asked_times), times(known, known_times)), asked.shape)
