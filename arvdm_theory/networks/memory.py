"""The one memory part: how a network is shown the frames that are referenced.

Remembered frames enter through the same stem as the window's, with their own noise levels, offsets and actions;
are compressed (or not); and reach the network by one of three structures:

=========== ==========================================================================================
structure   what it does
=========== ==========================================================================================
none        nothing: the references are not seen
prepend     remembered frames stand before the window's in time, go through the whole network, and are
            dropped at its end
concat      remembered frames stand in slots, newest last; each slot has a linear map of its own into
            the window's features (a concatenation of channels followed by one linear map, written as
            its sum), repeated along time
cross       after every layer, the window's features attend to the memory's
=========== ==========================================================================================

Merged places stay merged: keys and values, or a slot's share of the features, are made once a merged place, and
each of the window's places that lie in it reads them by a map of its own. Prepended frames alone are spread over
the window's grid: in the network each of their places meets another of the window's, and no two stay the same.

Slots in order of time say nothing about *which* of them shows what a window frame should: by the time that a
network sees the sum, the slots are mixed, and no later layer can tell which channel came with which pose.
``film`` scales the channels of each slot by a function of the difference between its pose and the window frame's,
so that a slot is switched on by the frame it fits; without it the concatenation is the plain one. Either way a
slot's level, offset and action stand in its channels.

Every structure gives exactly the network without memory when there is no reference.

Source: arXiv 2503.10704 (prepending, channel concatenation and cross attention, and compressed memories).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from arvdm_theory.interfaces import ReferenceBatch
from arvdm_theory.networks.attention import FrameAttention, Remembered, on_grid
from arvdm_theory.networks.compression import (
    ChannelBottleneck,
    Compression,
    PlaceMerge,
    Resampler,
    TemporalMerge,
    merge_places,
    split_places,
)
from arvdm_theory.networks.config import DenoiserConfig, ModelError
from arvdm_theory.networks.embeddings import Frames, FrameStem, scaled_linear
from arvdm_theory.networks.options import Options, option

__all__ = [
    "ATTENTIONS",
    "COMPRESSIONS",
    "STRUCTURES",
    "Level",
    "Memory",
    "MemoryOptions",
    "Recalled",
    "Recollection",
]

STRUCTURES = ("none", "prepend", "concat", "cross")
COMPRESSIONS = ("none", "spatial", "temporal", "tokens")
ATTENTIONS = ("same-place", "full", "factorised")

_ROLE_SCALE = 0.3

Level = tuple[int, int, int]
"""(h, w, channels) of the features that some layers work on."""

Recollection = tuple[Remembered, ...]
"""What a network makes of its references alone: the memory on each of its levels; nothing without references."""


@dataclass(frozen=True)
class MemoryOptions(Options):
    """The ``memory`` option of a network.

    Attributes:
        structure: see the module; ``prepend`` if left out, ``none`` for a network without references.
        compression: ``none``; ``spatial`` (squares of factor x factor places become one; a vector frame passes
            through width/factor numbers); ``temporal`` (``factor`` frames become one); ``tokens``.
        factor: of the spatial and the temporal compression.
        tokens: how many of them.
        attention: of ``cross``, see :class:`arvdm_theory.networks.attention.FrameAttention`.
        film: of ``concat``, see the module.
    """

    owner: ClassVar[str] = "memory"

    structure: str = option("", known=STRUCTURES)
    compression: str = option("none", known=COMPRESSIONS)
    factor: int = option(2, least=2)
    tokens: int = 16
    attention: str = option("same-place", known=ATTENTIONS)
    film: bool = True

    @classmethod
    def of(cls, given: Mapping[str, Any], references: int) -> MemoryOptions:
        """Checked options, of a network with so many references.

        Raises:
            ModelError: naming the option.
        """
        read = cls.read(given)
        if not read.structure:
            read = replace(read, structure="prepend" if references else "none")
        if read.structure != "none" and not references:
            raise ModelError(f"memory: structure {read.structure} needs a config with references, got 0")
        if read.structure == "none" and read.compression != "none":
            raise ModelError(f"memory: compression {read.compression} needs a structure, got none")
        return read


@dataclass(frozen=True)
class Recalled:
    """What the memory made of the window's features.

    Attributes:
        x: the features that the network works on, remembered frames first where they are prepended.
        frames: of ``x``.
        prepended: how many of them are remembered frames.
        levels: for each of the network's levels, the memory to attend to; None where there is none.
    """

    x: Tensor
    frames: Frames
    prepended: int
    levels: tuple[Remembered | None, ...]


class Memory(nn.Module):
    """Remembered frames → what a network sees of them.

    Args:
        options: the ``memory`` option.
        config: the denoiser's.
        condition: e, the size of the condition vectors.
        heads: of its attention layers.
        levels: the network's; the first is that of its stem.

    Raises:
        ModelError: naming the option that does not fit.
    """

    def __init__(
        self, options: MemoryOptions, config: DenoiserConfig, condition: int, heads: int, levels: Sequence[Level]
    ) -> None:
        super().__init__()
        self.options, self.condition, self.heads, self.levels = options, condition, heads, tuple(levels)
        self.poses = config.action_dim > 0
        h, w, width = levels[0]
        compress = self._compression((h, w), width)
        self.compress = compress
        self.role: nn.Parameter | None = None
        self.slots: Slots | None = None
        self.pyramid: nn.ModuleList | None = None
        self.grids = [(h, w)] * len(levels)
        if options.structure == "none":
            return
        self.role = nn.Parameter(_ROLE_SCALE * torch.randn(width))
        if options.structure == "concat":
            count = compress.slots(config.references) if compress else config.references
            merged = self._merged((h, w), compress.grid) if compress else 1
            self.slots = Slots(count, width, condition, options.film, merged)
        if options.structure == "cross":
            grid, steps = compress.grid if compress else (h, w), nn.ModuleList()
            self.grids = [grid]
            for (_, _, below), (height, breadth, above) in itertools.pairwise(levels):
                if height % grid[0] and grid[0] % height:
                    raise ModelError(
                        f"memory: with factor {options.factor} its grid of {grid[0]} x {grid[1]} and the "
                        f"network's of {height} x {breadth} do not divide each other"
                    )
                steps.append(LevelStep(grid, (height, breadth), below, above))
                grid = (min(grid[0], height), min(grid[1], breadth))
                self.grids.append(grid)
            self.pyramid = steps

    @property
    def prepends(self) -> bool:
        """Whether it puts frames before the window's."""
        return self.options.structure == "prepend"

    def attention(self, level: int) -> FrameAttention | None:
        """A new layer that attends to the memory, for the network to place; None if the structure has none."""
        if self.options.structure != "cross":
            return None
        h, w, width = self.levels[level]
        return FrameAttention(
            width, self.heads, self.condition, self.poses, True, self.options.attention, places=h * w,
            merged=self._merged((h, w), self.grids[level]),
        )  # fmt: skip

    def recall(self, references: ReferenceBatch, stem: FrameStem) -> Recollection:
        """What is made of the references, whatever the window's noise."""
        if self.role is None or not references.frames:
            return ()
        grid, known = stem.references(references)
        grid = grid + self.role
        if self.compress is not None:
            grid, known = self.compress(grid, known)
        seen = [Remembered(grid, known)]
        for step in self.pyramid or ():
            grid = step(grid)
            seen.append(Remembered(grid, known))
        return tuple(seen)

    def forward(self, x: Tensor, frames: Frames, recollection: Recollection) -> Recalled:
        """The window's features ``x`` (batch, w, h, w, c) and its frames, joined by the memory's."""
        nothing: tuple[None, ...] = (None,) * len(self.levels)
        if not recollection:
            return Recalled(x, frames, 0, nothing)
        if self.pyramid is not None:
            return Recalled(x, frames, 0, recollection)
        (seen,) = recollection
        if self.slots is not None:
            return Recalled(self.slots(x, frames, seen), frames, 0, nothing)
        grid = on_grid(seen.grid, *x.shape[2:4])
        return Recalled(torch.cat([grid, x], 1), seen.frames.before(frames), grid.shape[1], nothing)

    def _merged(self, grid: tuple[int, int], memory: tuple[int, int]) -> int:
        """How many places of a level's grid a place of the memory was merged from; a token is of no place."""
        return math.prod(grid) // math.prod(memory) if isinstance(self.compress, PlaceMerge) else 1

    def _compression(self, grid: tuple[int, int], width: int) -> Compression | None:
        options = self.options
        if options.compression == "spatial":
            if grid == (1, 1):
                return ChannelBottleneck(width, options.factor)
            return PlaceMerge(grid, width, options.factor)
        # Slots look frames up only with film, and then by poses if there are any.
        slots = options.structure == "concat"
        posed = self.poses and not (slots and not options.film)
        conditioned = options.structure == "prepend" or (slots and options.film and not self.poses)
        if options.compression == "temporal":
            return TemporalMerge(grid, width, self.condition, options.factor, conditioned, posed)
        if options.compression == "tokens":
            return Resampler(width, self.condition, self.heads, options.tokens, conditioned, posed)
        return None


class Slots(nn.Module):
    """Channel concatenation: Σ_s g_s ⊙ (A_s m_s + b_s) is added to the window's features.

    m_s is the remembered frame in slot s; empty slots add nothing. Without ``film`` g = 1; with it g_s is linear
    in SiLU(C exp(-½ (B p - B p_s)²) + c), the exponential entry by entry, for the poses p of the window frame and
    p_s of the slot (their conditions where there are no actions): bumps along many directions, and functions of
    how many of them agree. (Gates bilinear in p and p_s cannot pick one slot out of several with similar poses.)

    Where ``merged`` places of the memory are one, each of the window's takes the sum by a map of its own.
    """

    def __init__(self, count: int, width: int, condition: int, film: bool, merged: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(count, width, width) / math.sqrt(count * width))
        self.bias = nn.Parameter(torch.zeros(count, width))
        self.key = scaled_linear(condition, condition, 2.0, bias=False) if film else None
        self.gate = None
        if film:
            self.gate = nn.Sequential(
                nn.Linear(condition, condition), nn.SiLU(), scaled_linear(condition, width, 1.0)
            )
        self.spread = scaled_linear(width, merged * width, 1.0) if merged > 1 else None

    def forward(self, x: Tensor, frames: Frames, memory: Remembered) -> Tensor:
        """Of the window's features and frames, and the memory's."""
        if self.key is None or frames.pose is not None:
            # Not even the gates depend on the noise of the window.
            added: Tensor = memory.once(self, lambda: self._added(x, frames, memory, self._filled(memory.grid)))
        else:
            added = self._added(x, frames, memory, memory.once(self, lambda: self._filled(memory.grid)))
        return x + added

    def _filled(self, grid: Tensor) -> Tensor:
        """A_s m_s + b_s."""
        count = grid.shape[1]
        filled = torch.einsum("bshwc,scd->bshwd", grid, self.weight[-count:])
        return filled + self.bias[-count:][:, None, None]

    def _added(self, x: Tensor, frames: Frames, memory: Remembered, filled: Tensor) -> Tensor:
        """The gated sum over slots, on the window's grid."""
        if self.key is None or self.gate is None:
            added = filled.sum(1, keepdim=True)
        else:
            here = frames.condition if frames.pose is None else frames.pose
            there = memory.frames.condition if memory.frames.pose is None else memory.frames.pose
            apart = self.key(here)[:, :, None] - self.key(there)[:, None]
            gates = self.gate(torch.exp(-(apart**2) / 2))
            added = torch.einsum("bfsc,bshwc->bfhwc", gates, filled)
        if self.spread is None:
            return on_grid(added, *x.shape[2:4])
        return split_places(self.spread(added), x.shape[2] // added.shape[2])


class LevelStep(nn.Module):
    """A memory's grid on the network's next level: places merged until it is no finer than that level's."""

    def __init__(self, grid: tuple[int, int], target: tuple[int, int], below: int, above: int) -> None:
        super().__init__()
        self.factor = max(grid[0] // target[0], 1)
        self.norm = nn.LayerNorm(below)
        self.merge = scaled_linear(self.factor**2 * below, above, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        """Of a grid (batch, m, h, w, c)."""
        output: Tensor = self.merge(merge_places(functional.silu(self.norm(x)), self.factor))
        return output
