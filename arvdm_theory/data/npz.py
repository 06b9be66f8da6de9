"""Single arrays of a clip's ``.npz`` file, and their shapes without their content; errors name the file alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arvdm_theory import arrays
from arvdm_theory.data.clips import ClipError

__all__ = ["npz_array", "npz_shape"]


def npz_array(path: Path, key: str) -> NDArray[Any]:
    """One array of an ``.npz`` file.

    Raises:
        ClipError: if there is no such file or array, or it is damaged or no plain numbers.
    """
    with _as_clip(path):
        return arrays.npz_array(path, key)


def npz_shape(path: Path, key: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """The shape and type of one array of an ``.npz`` file; nothing else of it is read.

    Raises:
        ClipError: if there is no such file or array.
    """
    with _as_clip(path):
        return arrays.npz_shape(path, key)


@contextmanager
def _as_clip(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise ClipError(f"{path.name}: no such file") from error
    except ValueError as error:
        raise ClipError(str(error).replace(str(path), path.name)) from error
