"""Single arrays of an ``.npz`` file, and their shapes without their content."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from arvdm_theory.data.clips import ClipError

__all__ = ["npz_array", "npz_shape"]

T = TypeVar("T")


def npz_array(path: Path, key: str) -> NDArray[Any]:
    """One array of an ``.npz`` file.

    Raises:
        ClipError: if there is no such array, or it is damaged or no plain numbers.
    """
    return _read(path, key, lambda member: np.lib.format.read_array(member, allow_pickle=False))


def npz_shape(path: Path, key: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """The shape and type of one array of an ``.npz`` file; nothing else of it is read.

    Raises:
        ClipError: if there is no such array.
    """

    def header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
        if np.lib.format.read_magic(member) == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(member)
        else:
            shape, _, dtype = np.lib.format.read_array_header_2_0(member)
        return shape, dtype

    return _read(path, key, header)


def _read(path: Path, key: str, read: Callable[[IO[bytes]], T]) -> T:
    try:
        with zipfile.ZipFile(path) as archive:
            if f"{key}.npy" not in archive.namelist():
                raise ClipError(f"{path.name}: there is no array {key!r} in it")
            with archive.open(f"{key}.npy") as member:
                return read(member)
    except ClipError:
        raise
    except FileNotFoundError as error:
        raise ClipError(f"{path.name}: no such file") from error
    except Exception as error:  # a damaged file makes zipfile, zlib and NumPy's parser of headers raise all sorts
        raise ClipError(f"{path.name}: truncated, or not an .npz file of plain numbers ({error})") from error
