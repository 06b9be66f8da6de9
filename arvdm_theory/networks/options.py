"""An architecture's own options, read from a config and checked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from arvdm_theory.networks.denoiser import ModelError

__all__ = ["choice", "flag", "positive", "read_options", "whole", "wholes"]


def read_options(owner: str, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults, overwritten by what is given.

    Raises:
        ModelError: naming the options that ``owner`` does not have.
    """
    if not isinstance(given, Mapping):
        raise ModelError(f"the options of {owner} are a mapping, got {type(given).__name__}")
    unknown = sorted(str(name) for name in set(given) - set(defaults))
    if unknown:
        raise ModelError(f"{owner} has no option {', '.join(unknown)}; it has {', '.join(sorted(defaults))}")
    return {**defaults, **given}


def whole(owner: str, options: Mapping[str, Any], name: str, least: int = 1) -> int:
    """An option that is a whole number of at least ``least``."""
    value = options[name]
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ModelError(f"{owner}: {name} is a whole number of at least {least}, got {value!r}")
    return value


def wholes(owner: str, options: Mapping[str, Any], name: str) -> tuple[int, ...]:
    """An option that is a list of whole numbers of at least 1."""
    value = options[name]
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise ModelError(f"{owner}: {name} is a list of whole numbers, got {value!r}")
    return tuple(whole(owner, {name: entry}, name) for entry in value)


def positive(owner: str, options: Mapping[str, Any], name: str) -> float:
    """An option that is a positive number."""
    value = options[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value > 0):
        raise ModelError(f"{owner}: {name} is a positive number, got {value!r}")
    return float(value)


def flag(owner: str, options: Mapping[str, Any], name: str) -> bool:
    """An option that is True or False."""
    if not isinstance(options[name], bool):
        raise ModelError(f"{owner}: {name} is True or False, got {options[name]!r}")
    return bool(options[name])


def choice(owner: str, options: Mapping[str, Any], name: str, known: Sequence[str]) -> str:
    """An option that is one of a few words."""
    value = options[name]
    if value not in known:
        raise ModelError(f"{owner}: {name} is one of {', '.join(known)}, got {value!r}")
    return str(value)
