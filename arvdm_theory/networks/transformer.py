"""A transformer over patches of frames, with attention factorised over time and space.

Sources: Peebles and Xie 2023 (patches, conditioning by modulation); Ho et al. 2022 and Bertasius et al. 2021
(factorised space-time attention).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from arvdm_theory.interfaces import ReferenceBatch
from arvdm_theory.networks.attention import FeedForward, FrameAttention, Modulation, PlaceAttention, Remembered
from arvdm_theory.networks.config import DenoiserConfig, ModelError
from arvdm_theory.networks.embeddings import Frames, FrameStem
from arvdm_theory.networks.memory import Memory, MemoryOptions, Recollection
from arvdm_theory.networks.options import GridOptions

__all__ = ["TransformerBackbone", "TransformerOptions"]

_FIRST_OUTPUT = 1e-3


@dataclass(frozen=True)
class TransformerOptions(GridOptions):
    """Options of a transformer, beside those of :class:`arvdm_theory.networks.options.GridOptions`.

    Attributes:
        depth: layers.
        patch: pixels of a token's side; pictures only.
    """

    owner: ClassVar[str] = "a transformer"

    depth: int = 4
    patch: int = 4


class TransformerBackbone(nn.Module):
    """Layers of (attention over frames, over places, to the memory; perceptron) on a grid of patches.

    A vector frame is one token, so attention over places is left out. Options: :class:`TransformerOptions`.

    Raises:
        ModelError: naming the option that does not fit.
    """

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        options = TransformerOptions.read(config.options)
        width, heads = options.width, options.heads
        pictures = len(config.frame_shape) == 3
        patch = options.patch if pictures else 1
        if pictures and (config.frame_shape[0] % patch or config.frame_shape[1] % patch):
            raise ModelError(
                f"{options.owner}: patch {patch} does not divide frames of shape {config.frame_shape}"
            )
        self.patch = patch
        self.stem = FrameStem(config, width, width, patch, patch, options.horizon)
        level = (*self.stem.grid, width)
        self.memory = Memory(MemoryOptions.of(options.memory, config.references), config, width, heads, [level])
        several = config.window > 1 or self.memory.prepends
        self.layers = nn.ModuleList(
            _Layer(level, heads, config.action_dim > 0, several, self.memory) for _ in range(options.depth)
        )
        self.modulation = Modulation(width, width, gated=False)
        self.out = nn.Linear(width, patch * patch * self.stem.shape[2])
        nn.init.normal_(self.out.weight, std=_FIRST_OUTPUT)
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
        for layer in self.layers:
            x = layer(x, frames, recalled.levels[0])
        patches: Tensor = self.out(self.modulation(x, frames)[0])[:, recalled.prepended :]
        p, (h, w) = self.patch, self.stem.grid
        picture = patches.reshape(*patches.shape[:2], h, w, p, p, -1).transpose(3, 4)
        return picture.reshape(window.shape)


class _Layer(nn.Module):
    def __init__(
        self, level: tuple[int, int, int], heads: int, poses: bool, several: bool, memory: Memory
    ) -> None:
        super().__init__()
        h, w, width = level
        self.frames = FrameAttention(width, heads, width, poses) if several else None
        self.places = PlaceAttention(width, heads, width) if h * w > 1 else None
        self.memory = memory.attention(0)
        self.feed = FeedForward(width, width)

    def forward(self, x: Tensor, frames: Frames, memory: Remembered | None) -> Tensor:
        if self.frames is not None:
            x = self.frames(x, frames)
        if self.places is not None:
            x = self.places(x, frames)
        if self.memory is not None and memory is not None:
            x = self.memory(x, frames, memory)
        output: Tensor = self.feed(x, frames)
        return output
