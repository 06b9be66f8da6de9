"""Arrays out of ``.npy`` and ``.npz`` files that nobody vouches for: numbers only, no pickles, no surprises.

The header is read first. What it promises is held against what the file has and the machine can hold before any
memory is asked for, so that a header of a few bytes that declares terabytes costs nothing.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from arvdm_theory.files import regular_file
from arvdm_theory.limits import LimitError, require

__all__ = ["load_array", "load_arrays", "npz_array", "npz_names", "npz_shape"]

T = TypeVar("T")
Shape = tuple[int, ...]

_MAGIC = b"\x93NUMPY"


def load_array(path: str | Path) -> NDArray[Any]:
    """The array of a ``.npy`` file.

    Raises:
        ValueError: if it is no such file, or an archive, cut short, damaged, a pickle, no numbers or too large;
            the message names the file and which of these it is.
        OSError: if it cannot be read.
    """
    file = regular_file(path)
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(len(_MAGIC))
        if start.startswith(b"PK"):
            raise ValueError(f"{path} is an archive of arrays; one .npy array is expected")
        if start != _MAGIC:
            what = (
                "an empty file" if size == 0 else "a pickle, which is never opened" if start[:1] == b"\x80" else ""
            )
            raise ValueError(f"{path} is not a .npy file, as numpy.save writes one{what and ': it is ' + what}")
        stream.seek(0)
        try:
            shape, dtype = _header(stream, text=False)
        except ValueError as error:
            raise ValueError(f"{path} is not a readable .npy file: {error}") from error
        needed, there = math.prod(shape) * dtype.itemsize, size - stream.tell()
        if there < needed:
            raise ValueError(
                f"{path} is cut short: its header says {dtype} of shape {shape}, {needed} bytes, and {there} are "
                "there"
            )
        require(f"{path}, {dtype} of shape {shape},", memory=needed)
        stream.seek(0)
        array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    return array


def load_arrays(path: str | Path) -> dict[str, NDArray[Any]]:
    """All arrays of an ``.npz`` file, by name.

    Raises:
        ValueError: if it is no such file, or damaged, or holds pickles or what is too large.
        OSError: if it cannot be read.
    """
    return {name: npz_array(path, name) for name in npz_names(path)}


def npz_names(path: str | Path) -> list[str]:
    """The names of the arrays of an ``.npz`` file.

    Raises:
        ValueError: if it is no such file.
        OSError: if it cannot be read.
    """

    def names(archive: zipfile.ZipFile) -> list[str]:
        return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]

    return _archive(path, names)


def npz_array(path: str | Path, key: str) -> NDArray[Any]:
    """One array of an ``.npz`` file.

    Raises:
        ValueError: if there is no such array, or it is damaged, no plain numbers or too large.
        OSError: if the file cannot be read.
    """

    def read(archive: zipfile.ZipFile) -> NDArray[Any]:
        with _member(archive, key) as stream:
            shape, dtype = _header(stream)
        needed = math.prod(shape) * dtype.itemsize
        promised = archive.getinfo(f"{key}.npy").file_size
        if promised < needed:
            raise ValueError(
                f"{key!r} is cut short: its header says {dtype} of shape {shape}, {needed} bytes, and the archive "
                f"has {promised}"
            )
        require(f"{path}, {key!r} of shape {shape},", memory=needed)
        with _member(archive, key) as stream:
            array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
            if stream.read(1):  # to the end, where the check sum is held against what was read
                raise ValueError(f"there is more in {key!r} than its header says")
        return array

    return _archive(path, read)


def npz_shape(path: str | Path, key: str) -> tuple[Shape, np.dtype[Any]]:
    """The shape and type of one array of an ``.npz`` file; nothing else of it is read.

    Raises:
        ValueError: if there is no such array, or its header is damaged.
        OSError: if the file cannot be read.
    """

    def read(archive: zipfile.ZipFile) -> tuple[Shape, np.dtype[Any]]:
        with _member(archive, key) as stream:
            return _header(stream)

    return _archive(path, read)


def _archive(path: str | Path, read: Callable[[zipfile.ZipFile], T]) -> T:
    with regular_file(path).open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                return read(archive)
        except LimitError:
            raise
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        except Exception as error:  # a damaged file makes zipfile and zlib raise all sorts, OSError included
            reason = str(error) or type(error).__name__
            raise ValueError(f"{path}: truncated or damaged, or not an .npz file ({reason})") from error


def _member(archive: zipfile.ZipFile, key: str) -> IO[bytes]:
    if f"{key}.npy" not in archive.namelist():
        raise ValueError(f"there is no array {key!r} in it")
    return archive.open(f"{key}.npy")


def _header(stream: IO[bytes], text: bool = True) -> tuple[Shape, np.dtype[Any]]:
    """The shape and type that a ``.npy`` stream declares; it stands behind the header afterwards.

    Raises:
        ValueError: if the header is damaged, or declares anything but numbers (or ``text``).
    """
    try:
        form = np.lib.format
        version = form.read_magic(stream)
        read = form.read_array_header_1_0 if version == (1, 0) else form.read_array_header_2_0
        shape, _, dtype = read(stream)
    except Exception as error:  # its parser is Python's own, which raises all sorts
        raise ValueError(f"its header is damaged ({type(error).__name__})") from error
    if dtype.hasobject:
        raise ValueError("it holds Python objects, a pickle, which is never opened")
    if dtype.kind not in ("biufcU" if text else "biufc"):
        raise ValueError(f"it holds {dtype}, numbers are expected")
    if any(size < 0 for size in shape):
        raise ValueError(f"its header is damaged: shape {shape}")
    return tuple(shape), dtype
