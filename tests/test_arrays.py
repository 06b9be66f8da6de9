"""Readers of files that nobody vouches for: the right content, or one error that names the file."""

import io
import json
import os
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps
from numpy.lib.format import write_array_header_1_0

from arvdm_theory.arrays import load_array, load_arrays, npz_array, npz_names, npz_shape
from arvdm_theory.data.clips import ClipError, read_frames
from arvdm_theory.files import atomic_path, check_folder, check_outputs, locked, read_json, regular_file
from arvdm_theory.limits import LimitError, machine_memory, require, unlimited
from arvdm_theory.tables import read_table

NUMBERS = st.one_of(
    nps.boolean_dtypes(), nps.integer_dtypes(), nps.unsigned_integer_dtypes(), nps.floating_dtypes(),
    nps.complex_number_dtypes(),
)  # fmt: skip
ARRAYS = nps.arrays(NUMBERS, nps.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5))


def stored(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def archived(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


# Files of many examples, removed together at the end.
_HOLDER = tempfile.TemporaryDirectory()
_PLACE = _HOLDER.name

VALID = stored(np.arange(24.0).reshape(4, 6))
VALID_ARCHIVE = archived(a=np.arange(24.0).reshape(4, 6), b=np.array("text"))


@st.composite
def spoilt(draw: st.DrawFn, content: bytes) -> bytes:
    """A file that was cut, filled up, zeroed in places, or had bytes changed, added or taken away."""
    spoiled = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at, some = draw(st.integers(0, max(len(spoiled) - 1, 0))), draw(st.binary(max_size=9))
        match draw(st.sampled_from(["cut", "change", "insert", "remove", "zero"])):
            case "cut":
                del spoiled[at:]
            case "change":
                spoiled[at : at + len(some)] = some
            case "insert":
                spoiled[at:at] = some
            case "remove":
                del spoiled[at : at + len(some)]
            case "zero":
                spoiled[at : at + 64] = bytes(len(spoiled[at : at + 64]))
    return bytes(spoiled)


def written(content: bytes, name: str) -> Path:
    path = Path(tempfile.mkdtemp(dir=_PLACE)) / name
    path.write_bytes(content)
    return path


@given(ARRAYS)
@settings(max_examples=100)
def test_arrays_come_back_as_they_were(array: Any) -> None:
    path = written(stored(array), "a.npy")
    found = load_array(path)
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(found, array)
    path = written(archived(x=array), "a.npz")
    assert npz_names(path) == ["x"]
    assert npz_shape(path, "x") == (array.shape, array.dtype)
    np.testing.assert_array_equal(npz_array(path, "x"), array)


@given(spoilt(VALID) | st.binary(max_size=300).map(lambda noise: VALID[:8] + noise))
@example(b"")
@settings(max_examples=300)
def test_a_spoilt_array_is_read_or_refused_by_name(content: bytes) -> None:
    path = written(content, "spoilt.npy")
    try:
        array = load_array(path)
    except ValueError as error:
        assert "spoilt.npy" in str(error)  # noqa: PT017
    else:
        assert array.dtype.kind in "biufc"
        assert array.nbytes <= len(content)


@given(spoilt(VALID_ARCHIVE))
@settings(max_examples=300)
def test_a_spoilt_archive_is_read_right_or_refused_by_name(content: bytes) -> None:
    """Its check sums leave no third way."""
    path = written(content, "spoilt.npz")
    try:
        arrays = load_arrays(path)
    except ValueError as error:
        assert "spoilt.npz" in str(error)  # noqa: PT017
    else:
        for name, right in (("a", np.arange(24.0).reshape(4, 6)), ("b", np.array("text"))):
            if name in arrays:
                np.testing.assert_array_equal(arrays[name], right)


@given(spoilt(json.dumps({"run": {"seed": 3}, "text": "μ"}).encode()) | st.binary(max_size=40))
@example(b"[" * 100_000)
@example(b"\xff\xfe")
@example(b"[1]")
def test_json_is_an_object_or_refused_by_name(content: bytes) -> None:
    path = written(content, "spoilt.json")
    try:
        assert isinstance(read_json(path), dict)
    except ValueError as error:
        assert "spoilt.json" in str(error)  # noqa: PT017


@given(spoilt(b"n,x\n0,1.5\n1,2.5\n") | st.binary(max_size=40))
def test_a_table_is_one_or_refused(content: bytes) -> None:
    path = written(content, "spoilt.csv")
    try:
        table = read_table(path)
    except ValueError as error:
        assert "spoilt.csv" in str(error)  # noqa: PT017
    else:
        assert table.shape[1] >= 1


def _video() -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(20))
        stream.height, stream.width, stream.pix_fmt = 16, 16, "yuv420p"
        stream.options = {"threads": "1"}
        for picture in np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


@given(spoilt(_video()))
@settings(max_examples=150)
def test_a_spoilt_video_is_read_or_refused_by_name(content: bytes) -> None:
    path = written(content, "spoilt.mp4")
    try:
        frames = read_frames(path)
    except ClipError as error:
        assert "spoilt.mp4" in str(error)  # noqa: PT017
    else:
        assert frames.dtype == np.uint8
        assert frames.ndim == 4


# -- what a file may be -------------------------------------------------------------------------------


def test_what_may_never_end_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe is a pipe, which may never end"):
        regular_file(tmp_path / "pipe")
    with pytest.raises(ValueError, match="is a device"):
        load_array("/dev/zero")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        load_array(tmp_path / "loop")
    with pytest.raises(IsADirectoryError):
        read_json(tmp_path)
    with pytest.raises(ValueError, match="it is empty"):
        load_array("")


def test_a_header_of_terabytes_costs_nothing(tmp_path: Path) -> None:
    """One that lies, and a file of holes that is as large as its header says."""
    path = tmp_path / "a.npy"
    lies = VALID.replace(b"(4, 6), }        ", b"(4000000, 600000)")
    assert len(lies) == len(VALID)
    path.write_bytes(lies)
    with pytest.raises(ValueError, match=r"a\.npy is (cut short|not a readable)"):
        load_array(path)
    with path.open("wb") as file:
        write_array_header_1_0(file, {"shape": (2**43,), "fortran_order": False, "descr": "|u1"})
        start = file.tell()
    os.truncate(path, start + 2**43)
    with pytest.raises(LimitError, match=r"a\.npy, uint8 of shape .* would take about 8\.8e\+03 GB of memory"):
        load_array(path)


def test_limits_are_stated_and_may_be_passed() -> None:
    require("a sum", seconds=23 * 3600, memory=0.9 * machine_memory())
    with pytest.raises(LimitError, match=r"25 hours, and the limit is 24 hours: make it smaller, or .* --force"):
        require("a sum", seconds=25 * 3600)
    with pytest.raises(LimitError, match="GB of memory, and there are"):
        require("a sum", memory=1.1 * machine_memory())
    with pytest.raises(LimitError):
        require("a sum", memory=float("nan"))
    with unlimited():
        require("a sum", seconds=1e99)
    with unlimited(False), pytest.raises(LimitError):
        require("a sum", seconds=1e99)


# -- writing ------------------------------------------------------------------------------------------


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "link.txt").symlink_to(tmp_path / "target.txt")
    with atomic_path(tmp_path / "link.txt") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "target.txt").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.txt", "target.txt"]


def test_a_pipe_that_is_read_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ValueError, match="a pipe that nobody reads"):
        check_outputs({"--json": pipe})
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    check_outputs({"--json": pipe})
    with atomic_path(pipe) as temporary:
        temporary.write_text("content")
    assert os.read(reader, 100) == b"content"
    os.close(reader)
    assert pipe.is_fifo()


def test_errors_of_a_write_name_the_file_that_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"out\.json") as found, atomic_path(tmp_path / "out.json") as temporary:
        raise OSError(28, "No space left on device", str(temporary))
    assert found.value.filename == str(tmp_path / "out.json")
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_is_cleared_and_what_another_writes_is_not(tmp_path: Path) -> None:
    (tmp_path / ".out-abcd1234.json").write_text("half")  # nobody's
    (tmp_path / ".output-abcd1234.json").write_text("another file's")
    with atomic_path(tmp_path / "out.json") as first:
        assert not (tmp_path / ".out-abcd1234.json").exists()
        with atomic_path(tmp_path / "out.json") as second:  # as another process would, at the same time
            assert first.exists()
            second.write_text("second")
        first.write_text("first")
    assert (tmp_path / "out.json").read_text() == "first"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".output-abcd1234.json", "out.json"]


def test_outputs_are_checked_without_leaving_anything(tmp_path: Path) -> None:
    (tmp_path / "in.npy").touch()
    good, taken = tmp_path / "out.json", tmp_path / "in.npy"
    check_outputs({"--json": good, "--figure": tmp_path / "out.png", "--table": None}, [taken])
    for outputs, message in (
        ({"--json": taken}, r"--json .*in\.npy would overwrite the input"),
        ({"--json": good, "--table": tmp_path / "." / "out.json"}, "--table .* would overwrite --json"),
        ({"--json": ""}, "--json: the name of a file to write is missing"),
        ({"--json": tmp_path}, "--json .*: Is a directory"),
        ({"--json": tmp_path / "no" / "out"}, "--json .* does not exist"),
        ({"--figure": tmp_path / "out"}, r"--figure .*: a figure's name ends in one of \.png"),
        ({"--figure": tmp_path / "out.txt"}, "a figure's name ends in one of"),
    ):
        with pytest.raises(ValueError, match=message):
            check_outputs(outputs, [taken])
    check_folder("--out", tmp_path / "deep" / "er")
    with pytest.raises(ValueError, match=r"--out .*: .*in\.npy is not a folder"):
        check_folder("--out", taken / "deeper")
    assert [path.name for path in tmp_path.iterdir()] == ["in.npy"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_the_right_to_write_is_named(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(ValueError, match=r"--json .*out\.json: Permission denied"):
        check_outputs({"--json": tmp_path / "closed" / "out.json"})
    with (
        pytest.raises(PermissionError, match=r"out\.json"),
        atomic_path(tmp_path / "closed" / "out.json"),
    ):
        raise AssertionError


def test_a_lock_is_held_by_one_and_freed_at_the_end(tmp_path: Path) -> None:
    with locked(tmp_path / "run") as mine:
        assert mine
        with locked(tmp_path / "run", wait=False) as other:
            assert not other
    with locked(tmp_path / "run", wait=False) as again:
        assert again
    assert not list(tmp_path.iterdir())
