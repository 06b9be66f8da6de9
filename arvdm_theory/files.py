"""Files read without trust and written whole: only regular files in, nothing half-written out.

Every command reads JSON and writes all that it writes through this module, and arrays through
:mod:`arvdm_theory.arrays`, so that what is said here holds for each of them:

- What is read must be a regular file: a pipe, a device or a folder is refused, since it may never end.
- What is written appears as a whole or not at all, and errors name the file that was asked for.
- A path that is a character device or a pipe with a reader (``/dev/stdout``) is written through, never replaced.
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

__all__ = [
    "FIGURE_SUFFIXES",
    "atomic_path",
    "check_folder",
    "check_outputs",
    "locked",
    "read_json",
    "regular_file",
    "write_json",
]

FIGURE_SUFFIXES = (".png", ".pdf", ".svg", ".jpg", ".jpeg", ".webp")
"""The endings that a figure's file may have."""

# Random characters that the name of a temporary file has.
_RANDOM = 8


# -- reading ------------------------------------------------------------------------------------------


def regular_file(path: str | Path) -> Path:
    """The path, of a file that can be read to its end.

    Raises:
        ValueError: if it is empty, or a pipe, a device or a socket.
        OSError: if there is nothing, a folder, or what this user may not see.
    """
    if not str(path):
        raise ValueError("a file's name is missing: it is empty")
    file = Path(path)
    mode = file.stat().st_mode  # not is_file(), which takes a loop of links for nothing
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(file))
    if not stat.S_ISREG(mode):
        raise ValueError(f"{file} is {_kind(mode)}, which may never end: give a regular file")
    return file


def _kind(mode: int) -> str:
    kinds = {stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket", stat.S_ISCHR: "a device", stat.S_ISBLK: "a disk"}
    return next((word for test, word in kinds.items() if test(mode)), "no regular file")


def read_json(path: str | Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ValueError: if it is not UTF-8 text, not JSON, no object or has a key twice, naming the file.
        OSError: if it cannot be read.
    """
    file = regular_file(path)
    try:
        content = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=_once_each)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not a JSON file ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds a JSON {type(content).__name__}, an object is expected")
    return content


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands there twice")
    return found


# -- writing ------------------------------------------------------------------------------------------


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path that takes the place of ``path`` when the block ends well, and vanishes otherwise.

    A link is followed. A character device, or a pipe that somebody reads, is written to.

    Raises:
        ValueError: if the path is a folder, a disk, a socket, or a pipe that nobody reads.
        OSError: if the folder does not exist or cannot be written; it names ``path``.
    """
    target = _target(path)
    through = target.exists() and not target.is_file()
    try:
        handle, temporary = _temporary(target, None if through else target.parent)
    except OSError as error:
        raise _named(error, path) from error
    try:
        yield temporary
        if through:
            with _opened(target) as file, temporary.open("rb") as content:
                shutil.copyfileobj(content, file)
        else:
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(target)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(temporary)):
            raise _named(error, path) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
        os.close(handle)


def _temporary(target: Path, folder: Path | None) -> tuple[int, Path]:
    """A new file beside ``target`` (one file system, so that the last move is one step), locked while it is open.

    Those that killed processes left for the same target are removed: what nobody has locked is nobody's.
    """
    stem, suffix = target.stem[:80], target.suffix[:20]
    if folder is not None:
        _clear_strays(folder, f".{stem}-", suffix)
    while True:
        handle, name = tempfile.mkstemp(dir=folder, prefix=f".{stem}-", suffix=suffix)
        with suppress(OSError):  # a file system without locks; then nothing is cleared there either
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(handle).st_nlink:
            return handle, Path(name)
        os.close(handle)  # cleared by another process before it was locked


def _clear_strays(folder: Path, prefix: str, suffix: str) -> None:
    length = len(prefix) + len(suffix) + _RANDOM
    with os.scandir(folder) as entries:
        found = [e.path for e in entries if e.name.startswith(prefix) and e.name.endswith(suffix)]
    for name in found:
        if len(Path(name).name) != length:
            continue
        with suppress(OSError):
            handle = os.open(name, os.O_RDWR)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                Path(name).unlink()
            finally:
                os.close(handle)


def _target(path: str | Path) -> Path:
    """Where a file is to be written, links followed."""
    if not str(path):
        raise ValueError("the name of a file to write is missing: it is empty")
    try:
        target = Path(path).resolve(strict=False)
    except RuntimeError as error:  # how Python before 3.13 calls a loop of links
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path)) from error
    try:
        mode = Path(path).stat().st_mode
    except FileNotFoundError:
        if not target.parent.is_dir():
            raise FileNotFoundError(f"the folder {target.parent} for {target.name} does not exist") from None
        return target
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if stat.S_ISREG(mode):
        if not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return target
    if not (stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)):
        raise ValueError(f"{path} is {_kind(mode)}, which is not written to: give a regular file")
    return Path(path)


@contextmanager
def _opened(target: Path) -> Iterator[Any]:
    try:
        # Opening a pipe that nobody reads would wait forever.
        handle = os.open(target, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise ValueError(f"{target} is a pipe that nobody reads: give a regular file") from error
        raise
    os.set_blocking(handle, True)
    with os.fdopen(handle, "wb") as file:
        yield file


def _named(error: OSError, path: str | Path) -> OSError:
    """The same error, about the file that was asked for instead of a temporary one."""
    return OSError(error.errno, error.strerror or os.strerror(error.errno or 0), str(path))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: str | Path, content: Mapping[str, Any] | Sequence[Any]) -> None:
    """Writes JSON atomically, floats at full precision; NaN and infinities, which JSON lacks, become null."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(_finite(content), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, np.ndarray):
        return _finite(value.tolist())
    if isinstance(value, np.generic):
        return _finite(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


# -- before the work ----------------------------------------------------------------------------------


def check_outputs(outputs: Mapping[str, str | Path | None], inputs: Iterable[str | Path | None] = ()) -> None:
    """Refuses, before any work, files that could not be written at its end; nothing is left behind.

    Args:
        outputs: option → file, None where it was not given. A ``--figure`` must end as a picture does.
        inputs: files that must not be overwritten.

    Raises:
        ValueError: for no name, a folder, a file that is an input or is named twice, or a figure's ending;
            the message begins with the option.
        OSError: if it cannot be written.
    """
    taken = {_place(path): f"the input {path}" for path in inputs if path is not None}
    for option, path in outputs.items():
        if path is None:
            continue
        if "--figure" in option and Path(path).suffix.lower() not in FIGURE_SUFFIXES:
            raise ValueError(f"{option} {path}: a figure's name ends in one of {', '.join(FIGURE_SUFFIXES)}")
        try:
            target = _target(path)
        except ValueError as error:
            raise ValueError(f"{option}: {error}") from error
        except OSError as error:
            raise ValueError(f"{option} {path}: {error.strerror or error}") from error
        if target.is_file() or not target.exists():
            if _place(path) in taken:
                raise ValueError(f"{option} {path} would overwrite {taken[_place(path)]}")
            taken[_place(path)] = f"{option} {path}"
            _try_folder(option, path, target.parent)
        else:
            with _opened(target):
                pass


def check_folder(option: str, path: str | Path | None) -> None:
    """Refuses, before any work, a folder that could not be made or written into; nothing is left behind.

    Raises:
        ValueError: beginning with the option.
    """
    if path is None:
        return
    if not str(path):
        raise ValueError(f"{option}: the name of a folder is missing: it is empty")
    place = Path(path)
    try:
        while not os.path.lexists(place):
            place = place.parent
        if not stat.S_ISDIR(place.stat().st_mode):
            raise ValueError(f"{option} {path}: {place} is not a folder")
    except OSError as error:
        raise ValueError(f"{option} {path}: {error.strerror or error}") from error
    _try_folder(option, path, place)


def _place(path: str | Path) -> Path:
    return Path(os.path.realpath(path))


def _try_folder(option: str, path: str | Path, folder: Path) -> None:
    """Makes a file in a folder and removes it."""
    try:
        handle, name = tempfile.mkstemp(dir=folder, prefix=".arvdm-")
    except OSError as error:
        raise ValueError(f"{option} {path}: {error.strerror or error}") from error
    os.close(handle)
    Path(name).unlink()


# -- two at once --------------------------------------------------------------------------------------


@contextmanager
def locked(path: str | Path, wait: bool = True) -> Iterator[bool]:
    """Holds ``path`` for this process; another one waits, or is told False if it does not want to.

    The lock is the file ``.NAME.lock`` beside the path. The system frees it when its holder ends, however that
    is; it is removed afterwards, by the next holder if the last was killed.
    """
    place = Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    name = place.parent / f".{place.name}.lock"
    while True:
        handle = os.open(name, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(handle)
            yield False
            return
        except OSError:  # a file system without locks: everybody works, and the last one writes
            os.close(handle)
            yield True
            return
        except BaseException:
            os.close(handle)
            raise
        try:
            same = os.fstat(handle).st_ino == name.stat().st_ino
        except FileNotFoundError:
            same = False
        if same:
            break
        os.close(handle)  # its last holder removed it meanwhile
    try:
        yield True
    finally:
        name.unlink(missing_ok=True)
        os.close(handle)
