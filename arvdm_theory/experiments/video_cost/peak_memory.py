"""The most memory that a computation takes at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["peak_bytes"]


def peak_bytes(call: Callable[[], object], device: torch.device) -> int:
    """The most bytes that tensors made by a call take at once, beyond what was there before it.

    On CUDA as the allocator counts them: in blocks of 512 bytes, and with what a kernel takes for itself.
    Elsewhere the bytes of all storages that operations return are added up while they live. That is exact and the
    same in every run, as it asks neither the system, whose pages come and go late, nor an allocator that keeps
    what it is given back; a kernel's own scratch space is not seen.

    Args:
        call: to be measured, without gradients; kernels have been warmed up before.
        device: that it works on.

    Example:
        >>> x = torch.zeros(1000)
        >>> peak_bytes(lambda: (x + 1) * 2, torch.device("cpu"))  # two at once, of 4 bytes a number
        8000
        >>> peak_bytes(lambda: x.view(10, 100).add_(1), torch.device("cpu"))
        0
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    living = _LivingBytes()
    with living:
        call()
    return living.peak


class _LivingBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is on: the storages that operations made and that still live, and the most bytes of them so far.

    An operation's inputs live while its output is made, so that it is enough to look after each one.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._living: dict[StorageWeakRef, int] = {}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        given = _storages((args, kwargs))
        self._living = {kept: size for kept, size in self._living.items() if not kept.expired()}  # type: ignore[no-untyped-call]
        # Views and what was written in place share a storage with an input.
        self._living |= {made: size for made, size in _storages(result).items() if made not in given}
        self.peak = max(self.peak, sum(self._living.values()))
        return result


def _storages(values: Any) -> dict[StorageWeakRef, int]:
    whole = [leaf.untyped_storage() for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
    return {StorageWeakRef(storage): storage.nbytes() for storage in whole}  # type: ignore[no-untyped-call]
