"""A transformer over patches of frames, with attention factorised over time and space.

Sources: Peebles and Xie 2023 (patches, conditioning by modulation); Ho et al. 2022 and Bertasius et al. 2021
(factorised space-time attention).
"""

from __future__ import annotations

from torch import Tensor, nn

from arvdm_theory.interfaces import ReferenceBatch
from arvdm_theory.networks.attention import FeedForward, FrameAttention, Modulation, PlaceAttention
from arvdm_theory.networks.denoiser import DenoiserConfig, ModelError
from arvdm_theory.networks.embeddings import Frames, FrameStem
from arvdm_theory.networks.memory import Memory, MemoryOptions
from arvdm_theory.networks.options import flag, positive, read_options, whole

__all__ = ["TransformerBackbone"]

_OWNER = "a transformer"
_FIRST_OUTPUT = 1e-3


class TransformerBackbone(nn.Module):
    """Layers of (attention over frames, over places, to the memory; perceptron) on a grid of patches.

    Options:
        ``width`` (128), ``depth`` (4), ``heads`` (4; the width is a multiple of 4 x heads), ``patch`` (4; pictures
        only), ``memory`` (see :class:`arvdm_theory.networks.memory.MemoryOptions`), ``absolute`` (False; True tells
        the network the frames' indices, for videos that are not stationary, in units of ``horizon_frames``, 64).
        A vector frame is one token, so attention over places is left out.

    Raises:
        ModelError: naming the option that does not fit.
    """

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        defaults = {
            "width": 128, "depth": 4, "heads": 4, "patch": 4, "memory": {},
            "absolute": False, "horizon_frames": 64,
        }  # fmt: skip
        options = read_options(_OWNER, config.options, defaults)
        width, heads = whole(_OWNER, options, "width"), whole(_OWNER, options, "heads")
        if width % (4 * heads):
            raise ModelError(f"{_OWNER}: width is a multiple of 4 x heads, got {width} and {heads}")
        pictures = len(config.frame_shape) == 3
        patch = whole(_OWNER, options, "patch") if pictures else 1
        if pictures and (config.frame_shape[0] % patch or config.frame_shape[1] % patch):
            raise ModelError(f"{_OWNER}: patch {patch} does not divide frames of shape {config.frame_shape}")
        horizon = positive(_OWNER, options, "horizon_frames") if flag(_OWNER, options, "absolute") else None
        self.patch = patch
        self.stem = FrameStem(config, width, width, patch, patch, horizon)
        level = (*self.stem.grid, width)
        self.memory = Memory(
            MemoryOptions.read(options["memory"], config.references), config, width, heads, [level]
        )
        several = config.window > 1 or self.memory.prepends
        depth = whole(_OWNER, options, "depth")
        self.layers = nn.ModuleList(
            _Layer(level, heads, config.action_dim > 0, several, self.memory) for _ in range(depth)
        )
        self.modulation = Modulation(width, width, gated=False)
        self.out = nn.Linear(width, patch * patch * self.stem.shape[2])
        nn.init.normal_(self.out.weight, std=_FIRST_OUTPUT)
        nn.init.zeros_(self.out.bias)

    def forward(self, window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
        """F, of the window's shape; see :class:`arvdm_theory.networks.denoiser.Backbone`."""
        recalled = self.memory(*self.stem.window(window, levels, references), references, self.stem)
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

    def forward(self, x: Tensor, frames: Frames, memory: tuple[Tensor, Frames] | None) -> Tensor:
        if self.frames is not None:
            x = self.frames(x, frames)
        if self.places is not None:
            x = self.places(x, frames)
        if self.memory is not None and memory is not None:
            x = self.memory(x, frames, memory)
        output: Tensor = self.feed(x, frames)
        return output
