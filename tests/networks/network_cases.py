"""Tiny networks of every architecture and memory, and what to call them with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from arvdm_theory.interfaces import ReferenceBatch
from arvdm_theory.networks.config import DenoiserConfig
from arvdm_theory.networks.denoiser import Denoiser

__all__ = ["ACTIONS", "BACKBONES", "MEMORIES", "REFERENCES", "WINDOW", "inputs", "network"]

WINDOW, REFERENCES, ACTIONS = 2, 3, 2
# Architecture, frame shape and its own options.
BACKBONES: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "vector": ("transformer", (3,), {"depth": 2}),
    "patches": ("transformer", (4, 4, 2), {"depth": 2, "patch": 2}),
    "unet": ("unet", (4, 4, 2), {"multipliers": (1, 2)}),
}
MEMORIES: dict[str, dict[str, Any]] = {"none": {"structure": "none"}}
for structure in ("prepend", "concat", "cross"):
    for compression in ("none", "spatial", "temporal", "tokens"):
        MEMORIES[f"{structure}-{compression}"] = {"structure": structure, "compression": compression, "tokens": 3}
MEMORIES["concat-plain"] = {"structure": "concat", "film": False}
for attention in ("full", "factorised"):
    for compression in ("none", "tokens"):
        MEMORIES[f"cross-{compression}-{attention}"] = {**MEMORIES[f"cross-{compression}"], "attention": attention}


def network(
    backbone: str, memory: str, actions: int = ACTIONS, references: int = REFERENCES, **fields: Any
) -> Denoiser:
    """A network in float64, where a gradient that is zero is zero for a reason."""
    architecture, shape, options = BACKBONES[backbone]
    more = fields.pop("options", {})
    config = DenoiserConfig(
        architecture,  # type: ignore[arg-type]
        fields.pop("frame_shape", shape),
        fields.pop("window", WINDOW),
        references,
        actions,
        options={"width": 8, "heads": 2, "memory": MEMORIES[memory], **options, **more},
        **fields,
    )
    torch.manual_seed(0)
    return Denoiser(config).double()


def inputs(
    net: Denoiser, references: int = REFERENCES, window: int = WINDOW, batch: int = 3, start: int = 5
) -> tuple[Tensor, Tensor, ReferenceBatch]:
    """A window, its levels (batch, w), and the last frames before it as references."""
    g, d, a = torch.Generator().manual_seed(0), net.config.frame_dim, net.config.action_dim

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    given = ReferenceBatch(
        draw(batch, references, d),
        torch.linspace(0, 0.5, references, dtype=torch.float64),
        tuple(range(start - references, start)),
        tuple(range(start, start + window)),
        draw(batch, references, a) if a else None,
        draw(batch, window, a) if a else None,
    )
    return draw(batch, window, d), draw(batch, window).exp(), given
