"""Where a network is trained: the best device there is, or the one asked for."""

from __future__ import annotations

from typing import Literal, get_args

import torch

__all__ = ["Device", "resolve_device"]

Device = Literal["auto", "cuda", "mps", "cpu"]


def resolve_device(name: Device = "auto", dtype: torch.dtype = torch.float32) -> torch.device:
    """The device of that name; ``auto`` is CUDA, else MPS, else the CPU.

    Args:
        name: what was asked for.
        dtype: of the network's parameters: MPS has no float64, so that ``auto`` passes it over for such a network.

    Raises:
        ValueError: for an unknown name, a device that this machine lacks, or float64 on MPS.

    Example:
        >>> resolve_device("cpu")
        device(type='cpu')
    """
    if name not in get_args(Device):
        raise ValueError(f"the device is one of {', '.join(get_args(Device))}, got {name!r}")
    has = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = "cuda" if has["cuda"] else "mps" if has["mps"] and dtype != torch.float64 else "cpu"
    if not has[name]:
        raise ValueError(f"this machine has no device {name!r}; 'auto' takes the best there is")
    if name == "mps" and dtype == torch.float64:
        raise ValueError("the device 'mps' has no float64, which this network computes in: take 'cpu' or 'cuda'")
    return torch.device(name)
