"""Weights from files that are not trusted: safetensors, and torch files read as tensors alone.

A pickle runs code when it is opened. ``.safetensors`` holds numbers and nothing else; ``.pt``, ``.pth``, ``.ckpt``
and ``.bin`` are opened by torch's reader that makes tensors and plain containers and refuses all else
(``weights_only=True``). What it refuses is never opened otherwise: the error says how to convert the file where it
is trusted.
"""

from __future__ import annotations

import pickle
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

__all__ = ["WeightsError", "load_weights"]

_TORCH = (".pt", ".pth", ".ckpt", ".bin")

#: Where trainers keep the weights of the network inside a checkpoint, in the order in which they are looked for.
_INSIDE = ("ema", "model_ema", "state_dict", "model_state_dict", "model", "generator", "network", "module")


class WeightsError(ValueError):
    """A file holds no weights that can be read, or not those of the network; the message says what to do."""


def load_weights(path: str | Path, model: nn.Module | None = None, key: str | None = None) -> dict[str, Tensor]:
    """The tensors of a file by name, on the CPU; also put into ``model``, if one is given.

    Args:
        path: ``.safetensors``, or a torch file of tensors.
        model: whose parameters they are; every one must be there with its shape, and no other.
        key: where a checkpoint of several networks keeps this one's; left out, the first of ``ema``,
            ``model_ema``, ``state_dict``, ``model_state_dict``, ``model``, ``generator``, ``network`` and
            ``module`` that it has.

    Raises:
        WeightsError: for a file that is missing, damaged, of another kind, or holds more than tensors.

    Example:
        >>> import tempfile
        >>> from safetensors.torch import save_file
        >>> file = Path(tempfile.mkdtemp()) / "w.safetensors"
        >>> save_file({"weight": torch.ones(1, 2), "bias": torch.zeros(1)}, file)
        >>> sorted(load_weights(file, nn.Linear(2, 1)))
        ['bias', 'weight']
    """
    file = Path(path)
    if not file.is_file():
        raise WeightsError(f"there is no file {file}")
    kind = file.suffix.lower()
    if kind == ".safetensors":
        try:
            held: Any = load_file(file, device="cpu")
        except (SafetensorError, ValueError, OSError) as error:
            raise WeightsError(f"{file} is no readable safetensors file: {_first_line(error)}") from None
    elif kind in _TORCH:
        held = _torch_file(file)
    else:
        raise WeightsError(f"weights are {', '.join(('.safetensors', *_TORCH))}, got {file.name}")
    found = _tensors(held, key, file)
    if model is not None:
        _put(found, model, file)
    return found


def _torch_file(file: Path) -> Any:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        target = file.with_suffix(".safetensors").name
        program = (
            "import torch; from safetensors.torch import save_file; "
            f"c = torch.load({file.name!r}, map_location='cpu', weights_only=False); c = c.get('state_dict', c); "
            f"save_file({{k: v.contiguous().clone() for k, v in c.items() if torch.is_tensor(v)}}, {target!r})"
        )
        raise WeightsError(
            f"{file} holds more than tensors, and opening that could run code: if you trust it, convert it with "
            f"python -c {shlex.quote(program)}"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise WeightsError(f"{file} is no readable torch file: {_first_line(error)}") from None


def _tensors(held: Any, key: str | None, file: Path) -> dict[str, Tensor]:
    if key is not None:
        if not isinstance(held, Mapping) or key not in held:
            names = ", ".join(map(str, held)) if isinstance(held, Mapping) and len(held) < 20 else "other things"
            raise WeightsError(f"{file} has no entry {key!r}: it holds {names}")
        held = held[key]
    else:
        while inside := _inside(held):
            held = inside[0]
    entries = held.items() if isinstance(held, Mapping) else ()
    found = {str(name): value for name, value in entries if isinstance(value, Tensor)}
    if not found:
        raise WeightsError(f"{file} holds no named tensors: say where they are, key=...")
    return found


def _inside(held: Any) -> list[Any]:
    if not isinstance(held, Mapping):
        return []
    return [held[name] for name in _INSIDE if isinstance(held.get(name), Mapping)]


def _put(found: Mapping[str, Tensor], model: nn.Module, file: Path) -> None:
    own = model.state_dict()
    prefix = "module."  # of networks that were wrapped for several devices
    given = {name.removeprefix(prefix) if name not in own else name: value for name, value in found.items()}
    missing, extra = sorted(set(own) - set(given)), sorted(set(given) - set(own))
    odd = [name for name in own if name in given and own[name].shape != given[name].shape]
    if missing or extra:
        name, what = (missing[0], "lacks") if missing else (extra[0], "has, beside the network's own,")
        more = len(missing) + len(extra) - 1
        raise WeightsError(f"{file} {what} {name!r}" + (f" and differs in {more} other names" if more else ""))
    if odd:
        name = odd[0]
        raise WeightsError(
            f"{file}: {name!r} has the shape {tuple(given[name].shape)}, the network's {tuple(own[name].shape)}"
        )
    model.load_state_dict(given)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
