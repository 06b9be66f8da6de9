"""Files are written whole or not at all, and read without trust."""

import json
import math
import os
import stat
from pathlib import Path

import numpy as np
import pytest

from arvdm_theory.arrays import load_array
from arvdm_theory.files import atomic_path, write_json


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# -- writing ------------------------------------------------------------------------------------------


def test_a_file_appears_when_the_block_ends_well(tmp_path: Path) -> None:
    target = tmp_path / "table.csv"
    with atomic_path(target) as temporary:
        assert temporary.parent == tmp_path  # one file system, so that the last move is one step
        assert temporary.suffix == ".csv"  # for writers that look at it
        assert temporary != target
        temporary.write_text("a,b\n")
        assert not target.exists()
    assert target.read_text() == "a,b\n"
    assert names(tmp_path) == ["table.csv"]


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "table.csv"
    target.write_text("old")

    def stop(error: BaseException) -> None:
        with atomic_path(str(target)) as temporary:
            temporary.write_text("new")
            raise error

    for error in (RuntimeError("half way"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            stop(error)
        assert target.read_text() == "old"
        assert names(tmp_path) == ["table.csv"]


def test_an_error_is_not_its_own_cause(tmp_path: Path) -> None:
    """Whoever follows the causes, as Dask does, would never end."""
    with pytest.raises(OSError, match="torn") as caught, atomic_path(tmp_path / "file"):
        raise OSError("torn")
    assert caught.value.__cause__ is None


def test_written_files_have_the_rights_that_others_have(tmp_path: Path) -> None:
    """A temporary file is the owner's alone; the result follows the umask, which stays as it was."""
    before = os.umask(0o027)
    try:
        write_json(tmp_path / "result.json", {})
        assert stat.S_IMODE((tmp_path / "result.json").stat().st_mode) == 0o640
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"the folder .*nowhere for out\.json does not exist"):
        write_json(tmp_path / "nowhere" / "out.json", {})
    assert names(tmp_path) == []


def test_json_keeps_every_bit_and_has_no_nan(tmp_path: Path) -> None:
    content = {
        "pi": math.pi,
        "tiny": 5e-324,
        "not a number": math.nan,
        "list": [1, -math.inf, (2.5, math.inf)],
        "array": np.array([[1.0, np.nan], [3.0, 4.0]]),
        "numpy": {"float": np.float64(0.1), "bad": np.float64("nan"), "int": np.int64(3), "bool": np.bool_(True)},
        7: None,
        "μ": "Δ",
    }
    path = tmp_path / "result.json"
    write_json(path, content)  # type: ignore[arg-type]
    text = path.read_text(encoding="utf-8")
    assert text.endswith("}\n")
    assert json.loads(text) == {
        "pi": math.pi,
        "tiny": 5e-324,
        "not a number": None,
        "list": [1, None, [2.5, None]],
        "array": [[1.0, None], [3.0, 4.0]],
        "numpy": {"float": 0.1, "bad": None, "int": 3, "bool": True},
        "7": None,
        "μ": "Δ",
    }


def test_what_json_cannot_hold_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_json(tmp_path / "result.json", {"a": object()})
    assert names(tmp_path) == []


# -- reading ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32", "int32", "bool", "complex128"])
def test_arrays_come_back_as_they_were(dtype: str, tmp_path: Path) -> None:
    array = np.arange(6).reshape(2, 3).astype(dtype)
    np.save(tmp_path / "a.npy", array)
    found = load_array(tmp_path / "a.npy")
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


class Bomb:
    """What an unpickled file could do: here, make a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    array = np.array([Bomb(tmp_path / "bang")], dtype=object)
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(
        ValueError,
        match=r"a\.npy is not a readable \.npy file: it holds Python objects, a pickle, which is never opened",
    ):
        load_array(tmp_path / "a.npy")
    np.savez(tmp_path / "b.npz", a=array)
    with pytest.raises(ValueError, match="is an archive of arrays"):
        load_array(tmp_path / "b.npz")
    assert names(tmp_path) == ["a.npy", "b.npz"]
    np.load(tmp_path / "a.npy", allow_pickle=True)
    assert "bang" in names(tmp_path)  # the bomb does go off where pickles are opened


BROKEN_HEADER = b"\x93NUMPY\x01\x00\xff\xff{'descr'"


@pytest.mark.parametrize(
    "content",
    [b"", b"1 2 3\n", b"\x93NUMPY", BROKEN_HEADER, b"PK\x03\x04", b"PK\x05\x06" + bytes(18)],
)
def test_what_is_no_array_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npy is (not a \.npy file|not a readable \.npy file|an archive)"):
        load_array(path)


def test_a_file_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_array(tmp_path / "none.npy")
    with pytest.raises(IsADirectoryError):
        load_array(tmp_path)
