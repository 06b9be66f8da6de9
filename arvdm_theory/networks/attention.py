"""Attention over frames and over places of a grid (batch, frames, h, w, channels), and what goes with it.

Every layer here is residual, reads its input normalised and modulated by the frame's condition, and writes through
a small but not zero projection, so that a fresh network is close to the identity and no parameter is dead.

Sources: Vaswani et al. 2017; Peebles and Xie 2023 (modulation by the noise level); Su et al. 2021 (rotary
positions); Ho et al. 2022 (attention factorised over space and time).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from arvdm_theory.networks.embeddings import Frames, scaled_linear

__all__ = ["Attention", "FeedForward", "FrameAttention", "Modulation", "PlaceAttention", "Remembered", "on_grid"]

_OUT_SCALE = 0.1
# Fused kernels take at most 65535 pairs of row and head on some devices.
_MOST_ROWS = 65535
_SLOWEST_ROTATION = 1e-3


class Remembered:
    """A memory's grid (batch, m, h, w, c) and frames, and what layers have made of them.

    None of it depends on how noisy the window is: it serves all reverse steps of a window.
    """

    def __init__(self, grid: Tensor, frames: Frames) -> None:
        self.grid, self.frames = grid, frames
        self._made: dict[nn.Module, Any] = {}

    def once(self, layer: nn.Module, make: Callable[[], Any]) -> Any:
        """What a layer makes of the memory, made when it is first asked for."""
        if layer not in self._made:
            self._made[layer] = make()
        return self._made[layer]


class Attention(nn.Module):
    """Multi-head attention whose keys start equal to its queries, so that like finds like from the first step.

    Half of each head's channels are rotated by time; the others compare content wherever it stands in time.

    Args:
        width: channels.
        heads: a divisor of the width; the channels of a head are a multiple of 4.
        null: adds a learned key and value that stand for "nothing here fits".
        out_scale: standard deviation of the output for values of unit variance.
        outs: maps of what was found to the output, which those who ask take in turn: n is a multiple of it.
    """

    def __init__(
        self, width: int, heads: int, null: bool = False, out_scale: float = _OUT_SCALE, outs: int = 1
    ) -> None:
        super().__init__()
        self.heads, self.outs = heads, outs
        self.query = scaled_linear(width, width, 1.0, bias=False)
        self.key = scaled_linear(width, width, 1.0, bias=False)
        self.key.load_state_dict(self.query.state_dict())
        self.value = scaled_linear(width, width, 1.0, bias=False)
        self.out = scaled_linear(width, outs * width, out_scale)
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
        return self.find(asked, *self.read(known, values, known_times), asked_times)

    def read(self, known: Tensor, values: Tensor, times: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Keys and values by head, (rows, heads, m, c/heads), of what is known."""
        k, v = self._by_head(self.key(known)), self._by_head(self.value(values))
        if times is not None:
            k = _rotated(k, times)
        if self.null_key is not None and self.null_value is not None:
            key = functional.pad(self.null_key, (k.shape[-1] - self.null_key.shape[-1], 0))
            k = torch.cat([key.expand(len(k), -1, -1, -1), k], 2)
            v = torch.cat([self.null_value.expand(len(v), -1, -1, -1), v], 2)
        return k, v

    def find(self, asked: Tensor, k: Tensor, v: Tensor, times: Tensor | None = None) -> Tensor:
        """(rows, n, c) asked of keys and values of :meth:`read`."""
        q = self._by_head(self.query(asked))
        if times is not None:
            q = _rotated(q, times)
        rows = max(_MOST_ROWS // self.heads, 1)
        if len(q) <= rows:
            mixed = functional.scaled_dot_product_attention(q, k, v)
        else:
            parts = zip(*(torch.split(part, rows) for part in (q, k, v)), strict=True)
            mixed = torch.cat([functional.scaled_dot_product_attention(*part) for part in parts])
        found = mixed.transpose(1, 2).flatten(2)
        if self.outs == 1:
            output: Tensor = self.out(found)
            return output
        rows, n, width = found.shape
        weight = self.out.weight.reshape(self.outs, width, width)
        turns = torch.einsum("rnpc,pdc->rnpd", found.reshape(rows, -1, self.outs, width), weight)
        return torch.reshape(turns + self.out.bias.reshape(self.outs, width), (rows, n, width))

    def _by_head(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], self.heads, x.shape[-1] // self.heads).transpose(1, 2)


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
        merged: how many places each of the memory's was merged from. Each of them reads what was found by a map of
            its own: merging is a convolution with stride, this its transpose.
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
        merged: int = 1,
    ) -> None:
        super().__init__()
        self.modulation = Modulation(width, condition)
        self.attention = Attention(width, heads, null=memory, outs=merged)
        self.pose = scaled_linear(condition, width, 1.0, bias=False) if poses else None
        self.memory_norm = nn.LayerNorm(width) if memory else None
        self.full = attention == "full"
        self.places = Attention(width, heads) if attention == "factorised" and places > 1 else None

    def forward(self, x: Tensor, frames: Frames, memory: Remembered | None = None) -> Tensor:
        """Of a grid (batch, frames, h, w, c); the memory's may be coarser."""
        values, gate = self.modulation(x, frames)
        asked = self._posed(values, frames)
        if memory is None or self.memory_norm is None:
            grid, known = x.shape[2:4], self._read(asked, values, frames.times)
        else:
            grid, known = memory.grid.shape[2:4], memory.once(self, lambda: self._remember(memory))
        found = self.attention.find(
            self._rows(asked, *grid), *known, self._times(frames.times, grid, x.shape[2:4])
        )
        found = self._from_rows(found, x.shape, *grid)
        if self.places is not None:
            found = found + over_places(self.places, functional.layer_norm(found, found.shape[-1:]))
        output: Tensor = x + gate * found
        return output

    def _remember(self, memory: Remembered) -> tuple[Tensor, Tensor]:
        assert self.memory_norm is not None  # a layer that attends to a memory
        values = self.memory_norm(memory.grid)
        return self._read(self._posed(values, memory.frames), values, memory.frames.times)

    def _read(self, known: Tensor, values: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        grid = known.shape[2:4]
        return self.attention.read(
            self._rows(known, *grid), self._rows(values, *grid), self._times(times, grid, grid)
        )

    def _rows(self, x: Tensor, h: int, w: int) -> Tensor:
        """(rows, n, c): one row a place of the (h, w) that is attended to, with all frames' places that lie in it;
        or all in one."""
        batch, frames, height, width, channels = x.shape
        squares = x.reshape(batch, frames, h, height // h, w, width // w, channels).permute(0, 2, 4, 1, 3, 5, 6)
        return squares.flatten(1, 5) if self.full else squares.flatten(3, 5).flatten(0, 2)

    def _from_rows(self, rows: Tensor, shape: torch.Size, h: int, w: int) -> Tensor:
        """The grid that :meth:`_rows` took apart."""
        batch, frames, height, width, channels = shape
        squares = rows.reshape(batch, h, w, frames, height // h, width // w, channels)
        return squares.permute(0, 3, 1, 4, 2, 5, 6).reshape(shape)

    def _times(self, times: Tensor, known: Sequence[int], own: Sequence[int]) -> Tensor:
        """Of the entries of a row of :meth:`_rows`."""
        places = math.prod(known)
        each = times.repeat_interleave(math.prod(own) // places)
        return each.repeat(places) if self.full else each

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
