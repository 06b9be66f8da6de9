"""Checkpoints: one safetensors file each, whole or not there, with what made it as JSON in its header.

Tensors are named ``model/..``, ``average/..`` (the averaged weights, which a denoiser is loaded from),
``optimiser/..``, ``rng/..`` and ``recent`` (the losses since the last row of the history). Nothing is ever
unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from arvdm_theory.files import atomic_path
from arvdm_theory.networks.config import DenoiserConfig, ModelError
from arvdm_theory.networks.denoiser import Denoiser

__all__ = [
    "CheckpointError",
    "checkpoints",
    "clear_leftovers",
    "differences",
    "load_denoiser",
    "load_state",
    "prune",
    "read_checkpoint",
    "read_metadata",
    "save_checkpoint",
    "under",
]

_HEADER = "arvdm_theory.checkpoint"
_VERSION = 1


class CheckpointError(ValueError):
    """A file is no usable checkpoint, or not one of this run; the message names the file and the field."""


def checkpoints(folder: str | Path) -> list[Path]:
    """The checkpoints of a run's folder, oldest first."""
    return sorted((Path(folder) / "checkpoints").glob("step-*.safetensors"), key=_number)


def _number(path: Path) -> int:
    digits = path.stem.removeprefix("step-")
    return int(digits) if digits.isdigit() else -1


def save_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], keep: int
) -> Path:
    """Writes the checkpoint of ``step`` atomically, then removes all but the last ``keep``."""
    store = folder / "checkpoints"
    store.mkdir(parents=True, exist_ok=True)
    path = store / f"step-{step:08d}.safetensors"
    # A copy of each: tied weights share their memory, which the format refuses.
    values = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}
    header = json.dumps({"version": _VERSION, "step": step, **metadata}, allow_nan=False)
    with atomic_path(path) as temporary:
        save_file(values, temporary, metadata={_HEADER: header})
    prune(folder, keep)
    return path


def prune(folder: Path, keep: int) -> None:
    """Removes all checkpoints of a run but the last ``keep``."""
    for old in checkpoints(folder)[:-keep]:
        old.unlink(missing_ok=True)


def clear_leftovers(folder: Path) -> None:
    """Removes the half-written files that a killed run left beside its checkpoints."""
    for stray in (folder / "checkpoints").glob(".step-*.safetensors"):
        stray.unlink(missing_ok=True)


def read_metadata(path: str | Path) -> dict[str, Any]:
    """What a checkpoint says of itself: ``step``, ``denoiser``, ``plan``, ``training`` and more.

    Raises:
        CheckpointError: if the file is not a whole checkpoint of this library.
        OSError: if it cannot be read.
    """
    return _read(path, None)[1]


def read_checkpoint(path: str | Path, prefix: str = "") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors whose names begin with ``prefix``, on the CPU, and the metadata.

    Raises:
        CheckpointError: as :func:`read_metadata`.
        OSError: if it cannot be read.
    """
    return _read(path, prefix)


def _read(path: str | Path, prefix: str | None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    path = Path(path)
    with path.open("rb") as file:
        start = file.read(9)
    # A safetensors file begins with the length of its JSON header, 8 bytes that may be any, and an opening brace.
    if start[8:] != b"{" and (start[:2] == b"PK" or start[:1] == b"\x80"):
        raise CheckpointError(
            f"{path} is not a safetensors file but a pickle, as torch.save writes them; those are never opened, "
            "since loading one can run any code"
        )
    try:
        with safe_open(path, "pt") as archive:
            header = (archive.metadata() or {}).get(_HEADER)
            names = [] if prefix is None or header is None else list(archive.keys())
            tensors = {name: archive.get_tensor(name) for name in names if name.startswith(prefix or "")}
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a whole safetensors file (truncated or damaged): {error}") from error
    if header is None:
        raise CheckpointError(f"{path} is a safetensors file, but no checkpoint that a training run wrote")
    try:
        metadata = json.loads(header)
    except json.JSONDecodeError as error:
        raise CheckpointError(f"the header of {path} is damaged: {error}") from error
    if metadata.get("version") != _VERSION:
        raise CheckpointError(f"{path} has version {metadata.get('version')}; version {_VERSION} is expected")
    return tensors, metadata


def under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors named ``prefix``/.., under what follows."""
    return {name[len(prefix) + 1 :]: value for name, value in tensors.items() if name.startswith(prefix + "/")}


def load_state(network: torch.nn.Module, tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Puts weights into a network.

    Raises:
        CheckpointError: naming the first weight that is missing, unknown or of another shape.
    """
    own = network.state_dict()
    for name in sorted(own.keys() | tensors.keys()):
        if name not in tensors or name not in own:
            which = "lacks" if name not in tensors else "has the unknown"
            raise CheckpointError(f"{path} {which} weight {name!r}: it was written by another architecture")
        if own[name].shape != tensors[name].shape:
            raise CheckpointError(
                f"{path}: weight {name!r} has shape {tuple(tensors[name].shape)}, the network "
                f"{tuple(own[name].shape)}"
            )
    network.load_state_dict(dict(tensors))


def load_denoiser(
    path: str | Path, config: DenoiserConfig | None = None, device: torch.device | str = "cpu"
) -> Denoiser:
    """The trained network: the averaged weights of a checkpoint, ready to evaluate.

    Args:
        path: a checkpoint, or the folder of a run, whose last one is taken.
        config: what the network should be; left out, whatever the checkpoint holds.
        device: where it goes.

    Raises:
        CheckpointError: if there is no checkpoint, it is not whole, or it holds another network than ``config``,
            naming the field.
        OSError: if it cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        found = checkpoints(path)
        if not found:
            raise CheckpointError(f"the folder {path} holds no checkpoint")
        path = found[-1]
    tensors, metadata = _read(path, "average/")
    if config is not None:
        for difference in differences(metadata["denoiser"], json_form(config.to_json()), "denoiser"):
            raise CheckpointError(f"{path} holds another network: {difference}")
    try:
        denoiser = Denoiser(DenoiserConfig.from_json(metadata["denoiser"]))
    except (ModelError, KeyError) as error:
        raise CheckpointError(f"the network of {path} cannot be built: {error}") from error
    load_state(denoiser, under(tensors, "average"), path)
    return denoiser.eval().to(device)


def json_form(values: Any) -> Any:
    """Values as they come back from JSON: tuples as lists, keys as strings."""
    return json.loads(json.dumps(values))


def differences(saved: Any, given: Any, name: str) -> Iterator[str]:
    """Where two JSON values differ, one line a field; floats to 1e-9, whatever else exactly."""
    if isinstance(saved, Mapping) and isinstance(given, Mapping):
        for key in sorted(saved.keys() | given.keys()):
            yield from differences(saved.get(key), given.get(key), f"{name}.{key}")
    elif isinstance(saved, list) and isinstance(given, list):
        if len(saved) != len(given):
            yield f"{name} has {len(saved)} entries there and {len(given)} here"
            return
        for index, (a, b) in enumerate(zip(saved, given, strict=True)):
            yield from differences(a, b, f"{name}[{index}]")
    elif isinstance(saved, float) and isinstance(given, float):
        if not abs(saved - given) <= 1e-9 * max(abs(saved), abs(given)):
            yield f"{name} is {saved!r} there and {given!r} here"
    elif saved != given:
        yield f"{name} is {saved!r} there and {given!r} here"
