"""Checkpoints: one safetensors file each, whole or not there, with what made it as JSON in its header.

Tensors are named ``model/..``, ``average/..`` (the averaged weights, which a denoiser is loaded from),
``optimiser/..``, ``rng/..`` and ``recent`` (the losses since the last row of the history). Nothing is ever
unpickled. The header holds a digest of every tensor and of the rest of the header, so that no changed byte of
either is taken for the run's own.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from arvdm_theory.files import atomic_path
from arvdm_theory.networks.config import DenoiserConfig
from arvdm_theory.networks.denoiser import Denoiser

__all__ = [
    "CheckpointError",
    "DamagedCheckpointError",
    "checkpoints",
    "clear_leftovers",
    "differences",
    "last_good",
    "load_denoiser",
    "load_state",
    "prune",
    "read_checkpoint",
    "read_metadata",
    "save_checkpoint",
    "under",
]

_HEADER = "arvdm_theory.checkpoint"
_DIGEST = "arvdm_theory.sha256"
_VERSION = 2


class CheckpointError(ValueError):
    """A file is no usable checkpoint, or not one of this run; the message names the file and the field."""


class DamagedCheckpointError(CheckpointError):
    """A checkpoint that is not what was written: cut short, changed, or of weights that are no numbers."""


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
        try:
            save_file(values, temporary, metadata={_HEADER: header, _DIGEST: _digest(values, header)})
        except SafetensorError as error:  # how it calls a full disk
            raise OSError(f"{path} cannot be written: {error}") from error
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
    pickled = start[:1] == b"\x80" and start[1:2] in (b"\2", b"\3", b"\4", b"\5")
    if start[8:] != b"{" and (start[:2] == b"PK" or pickled):
        raise CheckpointError(
            f"{path} is not a safetensors file but a pickle, as torch.save writes them; those are never opened, "
            "since loading one can run any code"
        )
    try:
        with safe_open(path, "pt") as archive:
            told = archive.metadata() or {}
            header = told.get(_HEADER)
            names = [] if prefix is None or header is None else sorted(archive.keys())
            tensors = {name: archive.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise DamagedCheckpointError(
            f"{path} is not a whole safetensors file (truncated or damaged): {error}"
        ) from error
    if header is None:
        raise CheckpointError(f"{path} is a safetensors file, but no checkpoint that a training run wrote")
    try:
        metadata = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise DamagedCheckpointError(f"the header of {path} is damaged: {error}") from error
    if not isinstance(metadata, dict) or metadata.get("version") != _VERSION:
        version = metadata.get("version") if isinstance(metadata, dict) else None
        raise CheckpointError(f"{path} has version {version}; version {_VERSION} is expected")
    _check_header(path, metadata)
    if prefix is not None and told.get(_DIGEST) != _digest(tensors, header):
        raise DamagedCheckpointError(f"{path} is damaged: its content was changed since it was written")
    return {name: value for name, value in tensors.items() if name.startswith(prefix or "")}, metadata


def _digest(tensors: Mapping[str, Tensor], header: str) -> str:
    """Of every tensor's name, type, shape and bytes, and of the header."""
    digest = hashlib.sha256(header.encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"\0{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        digest.update(value.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _check_header(path: Path, metadata: Mapping[str, Any]) -> None:
    """Refuses a header whose numbers no run writes."""
    step, seconds = metadata.get("step"), metadata.get("seconds", 0.0)
    if isinstance(step, bool) or not isinstance(step, int) or step < 0:
        raise DamagedCheckpointError(
            f"the header of {path} is damaged: step is {step!r}, a whole number from 0 is expected"
        )
    if _number(path) not in (-1, step):
        raise DamagedCheckpointError(
            f"{path} is of step {step} by its header, and of step {_number(path)} by its name"
        )
    if not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
        raise DamagedCheckpointError(f"the header of {path} is damaged: seconds are {seconds!r}")


def last_good(folder: str | Path) -> tuple[Path, dict[str, Tensor], dict[str, Any]] | None:
    """The last checkpoint of a run that is whole, with its content; None if there is none at all.

    A damaged one is left as it is, with a warning that says which is taken instead.

    Raises:
        DamagedCheckpointError: if there are some, and all are damaged; it is the last one's.
        CheckpointError: if the last one is another version's, or a pickle.
        OSError: if it cannot be read.
    """
    first: DamagedCheckpointError | None = None
    for path in reversed(checkpoints(folder)):
        try:
            tensors, metadata = read_checkpoint(path)
            _check_finite(path, tensors)
        except DamagedCheckpointError as error:
            first = first or error
            continue
        if first is not None:
            warnings.warn(f"{first}; {path.name}, the last good one before it, is taken instead", stacklevel=2)
        return path, tensors, metadata
    if first is not None:
        raise first
    return None


def _check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    for name, value in tensors.items():
        if name.startswith(("model/", "average/")) and not torch.isfinite(value).all():
            raise DamagedCheckpointError(f"{path}: weight {name.partition('/')[2]!r} is NaN or infinite")


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
        path: a checkpoint, or the folder of a run, whose last good one is taken.
        config: what the network should be; left out, whatever the checkpoint holds.
        device: where it goes.

    Raises:
        CheckpointError: if there is no checkpoint, none is whole, its weights are NaN, or it holds another network
            than ``config``, naming the field.
        OSError: if it cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        found = last_good(path)
        if found is None:
            raise CheckpointError(f"the folder {path} holds no checkpoint")
        path, tensors, metadata = found
    else:
        tensors, metadata = read_checkpoint(path)
        _check_finite(path, tensors)
    if config is not None:
        for difference in differences(metadata["denoiser"], json_form(config.to_json()), "denoiser"):
            raise CheckpointError(f"{path} holds another network: {difference}")
    try:
        denoiser = Denoiser(DenoiserConfig.from_json(metadata["denoiser"]))
    except (ValueError, KeyError, TypeError, OverflowError, RuntimeError) as error:
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
