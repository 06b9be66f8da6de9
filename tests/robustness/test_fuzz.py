"""Every command against every kind of bad file, number and path: one line, exit 2, and nothing written.

Seeded, in this process, under a minute; ``ARVDM_FUZZ=20 pytest tests/robustness`` tries twenty times as much.
"""

import json
import os
import random
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.lib.format import write_array_header_1_0

from arvdm_theory.cli import COMMANDS, main
from arvdm_theory.cli.video import SUBCOMMANDS

ROUNDS = int(os.environ.get("ARVDM_FUZZ", "1"))
ARRAY = np.random.default_rng(0).normal(size=(30, 2))


# -- bad files ----------------------------------------------------------------------------------------


def header(path: Path, shape: object, descr: str = "<f8") -> None:
    """A .npy file that promises an array and holds eight bytes."""
    with path.open("wb") as file:
        write_array_header_1_0(file, {"shape": shape, "fortran_order": False, "descr": descr})
        file.write(bytes(8))


def raw_header(path: Path, text: bytes) -> None:
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text)


def archive(path: Path, name: str, content: bytes) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, content)


def flipped(path: Path, rng: random.Random, compressed: bool) -> None:
    (np.savez_compressed if compressed else np.savez)(
        path.with_suffix(".npz"), video=np.zeros((9, 8, 8, 3), np.uint8)
    )
    content = bytearray(path.with_suffix(".npz").read_bytes())
    for _ in range(3):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    if path.suffix != ".npz":
        path.with_suffix(".npz").unlink()
    path.write_bytes(content)


_FIELDS = b"{'descr': '<f8', 'fortran_order': False, "


class Bomb:
    """What an unpickled file could do: here, make a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


def bad_files(rng: random.Random) -> dict[str, Callable[[Path], object]]:
    cut = rng.randrange(1, 500)
    noise = rng.randbytes(rng.randrange(1, 3000))
    return {
        "nothing": lambda path: None,
        "empty": lambda path: path.touch(),
        "text": lambda path: path.write_text("1.0 2.0\n"),
        "not text": lambda path: path.write_bytes(b"\xff\xfe\x00\x80" * 9),
        "noise": lambda path: path.write_bytes(noise),
        "magic and noise": lambda path: path.write_bytes(b"\x93NUMPY\x01\x00" + noise),
        "zip and noise": lambda path: path.write_bytes(b"PK\x03\x04" + noise),
        "cut": lambda path: path.write_bytes(saved(ARRAY)[:cut]),
        "terabytes": lambda path: header(path, (10**6, 10**6)),
        "more than there are numbers": lambda path: header(path, (2**62, 2**62)),
        "a negative size": lambda path: header(path, (-1, 8)),
        "a size that is a word": lambda path: raw_header(path, _FIELDS + b"'shape': ('a',)}\n"),
        "a header that does not end": lambda path: raw_header(path, _FIELDS + b"'shape': (("),
        "a header of brackets": lambda path: raw_header(path, b"(" * 9000),
        "a header that is a program": lambda path: raw_header(path, b"__import__('os').mkdir('bang')\n"),
        "text as numbers": lambda path: path.write_bytes(saved(np.array(["a", "b"]))),
        "dates": lambda path: path.write_bytes(saved(np.array(["2020-01-01"], dtype="datetime64[D]"))),
        "a record": lambda path: path.write_bytes(saved(np.zeros(3, dtype=[("a", "<f8"), ("b", "<i4")]))),
        "a pickle": lambda path: path.write_bytes(saved(np.array([Bomb(path.parent / "bang")], dtype=object))),
        "no dimension": lambda path: path.write_bytes(saved(np.float64(3.0))),
        "no rows": lambda path: path.write_bytes(saved(np.zeros((0, 3)))),
        "not numbers": lambda path: path.write_bytes(saved(np.full((30, 30), np.nan))),
        "infinities": lambda path: path.write_bytes(saved(np.full((30, 30), np.inf))),
        "complex numbers": lambda path: path.write_bytes(saved(np.full((30, 2), 1j))),
        "an archive of noise": lambda path: archive(path, "video.npy", noise),
        "an archive of nothing": lambda path: archive(path, "else.txt", b""),
        "a bomb of zeros": lambda path: archive(path, "video.npy", huge_npy()),
        "flipped bits": lambda path: flipped(path, rng, compressed=False),
        "flipped bits, compressed": lambda path: flipped(path, rng, compressed=True),
        "a folder": lambda path: path.mkdir(),
        "a link to itself": lambda path: path.symlink_to(path),
        "a link to nothing": lambda path: path.symlink_to(path.with_name("nowhere")),
        "a pipe": lambda path: os.mkfifo(path),
        "deep JSON": lambda path: path.write_text('{"run": ' + "[" * 100000),
        "JSON of another kind": lambda path: path.write_text(json.dumps({"run": [1], "store": 3})),
        "a number of a million digits": lambda path: path.write_text('{"stride": ' + "9" * 10**6 + "}"),
    }  # fmt: skip


def saved(array: np.ndarray[Any, Any] | np.float64) -> bytes:
    import io

    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def huge_npy() -> bytes:
    """A header of a terabyte, and a megabyte of zeros."""
    import io

    buffer = io.BytesIO()
    write_array_header_1_0(buffer, {"shape": (10**6, 10**6), "fortran_order": False, "descr": "|u1"})
    return buffer.getvalue() + bytes(10**6)


FILES = sorted(bad_files(random.Random(0)))

# Where commands take a file: FILE stands for it. No command says that all is well with a bad one.
TAKE_FILES = {
    "estimate --x": ["estimate", "--x", "FILE", "--z", "GOOD"],
    "estimate --y": ["estimate", "--x", "GOOD", "--z", "GOOD", "--y", "FILE"],
    "estimate --p": ["estimate", "--p", "GOOD", "--q", "FILE"],
    "ledger --covariance": ["ledger", "--covariance", "FILE", "--frame-dim", "1"],
    "ledger --video": ["ledger", "--video", "FILE"],
    "ledger --plan": ["ledger", "--covariance", "GOOD", "--frame-dim", "1", "--plan", "FILE.json"],
    "advise npy": ["advise", "FILE", "--evaluations", "2", "--out", "OUT"],
    "advise mp4": ["advise", "FILE.mp4", "--evaluations", "2", "--out", "OUT"],
    "assess --scheduler": ["assess", "CLIP", "--scheduler", "FILE.json", "--out", "OUT"],
    "ledger --spectrum": ["ledger", "--spectrum", "FILE"],
    "figures RUN": ["figures", "TABLES"],
    "assess npy": ["assess", "FILE", "--out", "OUT"],
    "context-noise --plan": ["context-noise", "--known", "ar1:0.9", "--plan", "FILE.json"],
    "memory --covariance": ["memory", "--covariance", "FILE", "--frame-dim", "1"],
    "schedule --spectrum": ["schedule", "--spectrum", "FILE"],
    "schedule --plan": ["schedule", "--known", "ar1:0.9", "--plan", "FILE.json"],
    "lint npy": ["lint", "FILE"],
    "lint csv": ["lint", "FILE.csv"],
    "lint json": ["lint", "FILE.json"],
    "lemma --joint": ["lemma", "--joint", "FILE", "--past", "0", "--output", "1"],
    "lemma --kernel": ["lemma", "--joint", "LAW", "--past", "0", "--output", "1", "--kernel", "FILE"],
    "fit npy": ["fit", "FILE"],
    "fit npz": ["fit", "FILE.npz"],
    "fit mp4": ["fit", "FILE.mp4"],
    "fit gif": ["fit", "FILE.gif"],
    "evaluate clips": ["video", "evaluate", "--truth", "FOLDER", "--generated", "FOLDER"],
    "evaluate --lpips": ["video", "evaluate", "--side-by-side", "CLIPS", "--lpips", "FILE.safetensors"],
    "evaluate --fvd": ["video", "evaluate", "--side-by-side", "CLIPS", "--fvd", "FILE.safetensors"],
    "evaluate code": ["video", "evaluate", "--side-by-side", "CLIPS", "--lpips", "FILE.pt"],
    "sample --run": ["video", "sample", "--run", "RUN"],
    "information --run": ["video", "information", "--run", "RUN", "--without", "RUN"],
    "train --folder": ["video", "train", "--preset", "smoke", "--folder", "SET", "--out", "OUT"],
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    np.save(tmp_path / "good.npy", ARRAY)
    np.save(tmp_path / "law.npy", np.full((2, 2), 0.25))
    (tmp_path / "clips").mkdir()
    rng = np.random.default_rng(0)
    np.save(tmp_path / "clip.npy", rng.integers(0, 256, (30, 8, 8, 3), dtype=np.uint8))
    np.savez(tmp_path / "clips" / "a.npz", video=rng.integers(0, 256, (12, 16, 32, 3), dtype=np.uint8))
    return tmp_path


def filled(words: list[str], place: Path, write: Callable[[Path], object]) -> list[str]:
    """The words of a command with its files and folders in place, the bad file among them."""
    told = []
    for word in words:
        name, _, ending = word.partition(".")
        if name == "FILE":
            path = place / f"bad.{ending or 'npy'}"
            if not os.path.lexists(path):
                write(path)
            told.append(str(path))
        elif name in ("FOLDER", "RUN", "SET", "TABLES"):
            folder = place / name.lower()
            inner = {"FOLDER": "bad.npy", "RUN": "run.json", "SET": "train/0/bad.npz", "TABLES": "memory.csv"}[
                name
            ]
            if not folder.exists():
                (folder / inner).parent.mkdir(parents=True)
                write(folder / inner)
            told.append(str(folder))
        else:
            known = {"GOOD": "good.npy", "LAW": "law.npy", "CLIPS": "clips", "CLIP": "clip.npy", "OUT": "out"}
            told.append(str(place / known[word]) if word in known else word)
    return told


def snapshot(place: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for path in sorted(place.rglob("*")):
        status = path.lstat()
        found[str(path)] = (status.st_mode, -1 if path.is_dir() else status.st_mtime_ns)
    return found


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Runs a command that must refuse; its line."""
    capsys.readouterr()
    try:
        code: object = main(words)
    except SystemExit as stopped:
        code = stopped.code
    shown = capsys.readouterr()
    assert code == 2, (words, code, shown.err, shown.out)
    lines = [line for line in shown.err.splitlines() if ": warning: " not in line]
    assert len(lines) == 1, (words, shown.err)
    assert lines[0].startswith("arvdm"), shown.err
    assert len(lines[0]) < 1000
    return lines[0]


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("command", TAKE_FILES)
def test_bad_files(
    command: str, kind: str, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    for number in range(ROUNDS):
        rng = random.Random(f"{kind} {number}")
        here = place / str(number)
        here.mkdir()
        for name in ("good.npy", "law.npy", "clips", "clip.npy"):
            (here / name).symlink_to(place / name)
        words = filled(TAKE_FILES[command], here, bad_files(rng)[kind])
        before = snapshot(place)
        line = refused(words, capsys)
        after = snapshot(place)
        if command == "train --folder":  # what was looked at is noted in the run's own folder
            after = {name: value for name, value in after.items() if not name.startswith(str(here / "out"))}
            assert not list((here / "out").rglob(".*")), line
        assert after == before, line
        assert "\x00" not in line


# -- bad numbers --------------------------------------------------------------------------------------

NUMBERS = (
    "-1",
    "0",
    "1e3",
    "nan",
    "inf",
    "-inf",
    "one",
    "",
    "99999999999999999999999",
    "1000000000",
    "0x10",
    "1,2",
)

# Every option that is a number, of commands that are whole otherwise; WORD stands for what is tried.
TAKE_NUMBERS = {
    "ledger": (["ledger", "--covariance", "COV", "--frame-dim", "1"],
               ("--frame-dim", "--window", "--references", "--reference-level", "--ar-steps", "--reverse-steps",
                "--init-steps", "--horizon", "--floor", "--spacing", "--schedule", "--plan", "--method", "--set",
                "--score-error", "--girsanov-points")),
    "figures": (["figures", "NOWHERE"], ("--width",)),
    "advise": (["advise", "CLIP", "--out", "OUT", "--evaluations", "1"],
               ("--evaluations", "--strides", "--most-references", "--frames", "--horizon", "--draws", "--seconds",
                "--seed", "--modes", "--region", "--size")),
    "context-noise": (["context-noise", "--known", "ar1:0.9"], ("--ar-steps", "--levels", "--most", "--plan")),
    "memory": (["memory", "--known", "ar1:0.9"], ("--ar-step", "--frames", "--newest", "--nats", "--plan")),
    "schedule": (["schedule", "--known", "ar1:0.9"],
                 ("--ar-steps", "--iterations", "--reverse-steps", "--export", "--plan")),
    "lint": (["lint", "GOOD"], ("--frames", "--context", "--top", "--window", "--steps")),
    "needle": (["needle", "--out", "OUT", "--walks", "10", "--frames", "6", "--references", "0,1"],
               ("--cells", "--colours", "--frames", "--references", "--size", "--window", "--stay", "--walks",
                "--seed")),
    "estimate": (["estimate", "--x", "GOOD", "--z", "OTHER"], ("--permutations", "--seed")),
    "fit": (["fit", "CLIP", "--out", "OUT"], ("--modes", "--order", "--held-out", "--region", "--size")),
    "simulate": (["simulate", "dmlab", "--episodes", "1", "--test-episodes", "0", "--frames", "30", "--size", "16",
                  "--context", "4", "--out", "OUT"],
                 ("--episodes", "--test-episodes", "--seed", "--size", "--frames", "--context", "--workers")),
    "evaluate": (["video", "evaluate", "--side-by-side", "CLIPS"],
                 ("--first-predicted-frame", "--crop", "--fvd-frames")),
    "train": (["video", "train", "--preset", "smoke", "--out", "OUT"],
              ("--size", "--memory-frames", "--compress", "--steps", "--seed")),
    "sample": (["video", "sample", "--run", "NOWHERE"], ("--windows",)),
    "information": (["video", "information", "--run", "NOWHERE", "--without", "NOWHERE"], ("--windows", "--stop")),
    "experiment": (["experiment", "no-such-experiment"], ("--seed",)),
}  # fmt: skip

# What is a good value after all: (command, option) → those that are not tried.
GOOD_NUMBERS: dict[tuple[str, str], set[str]] = {
    ("ledger", "--references"): {"0", "1000000000"},  # more than there are: all
    ("ledger", "--reference-level"): {"0", "1e3", "1000000000", "99999999999999999999999"},
    ("ledger", "--girsanov-points"): {"0"},
    ("ledger", "--floor"): {"0"},
    ("ledger", "--horizon"): {"1e3", "1000000000", "99999999999999999999999"},
    ("ledger", "--score-error"): {"-1", "0", "1e3", "1000000000", "99999999999999999999999"},
    ("advise", "--strides"): {"1,2"},
    ("advise", "--most-references"): {"0"},
    ("advise", "--horizon"): {"1e3", "1000000000", "99999999999999999999999"},
    ("advise", "--draws"): {"0"},
    ("advise", "--seconds"): {"1e3", "1000000000", "99999999999999999999999", "inf"},
    ("advise", "--seed"): {"0", "1000000000"},
    ("context-noise", "--levels"): {"0", "1e3", "1,2", "1000000000", "99999999999999999999999"},
    ("memory", "--nats"): {"0", "1e3", "1,2", "1000000000", "99999999999999999999999"},
    # What the matrix holds is told, with exit code 1.
    ("lint", "--frames"): {"1000000000"},
    ("lint", "--context"): {"0", "1000000000"},
    ("lint", "--top"): {"-1", "0", "1e3", "1000000000", "99999999999999999999999"},
    ("lint", "--window"): {"1000000000"},
    ("lint", "--steps"): {"1000000000"},
    ("needle", "--references"): {"0", "1,2"},
    ("needle", "--stay"): {"0"},
    ("needle", "--walks"): {"0"},
    ("needle", "--seed"): {"0", "1000000000"},
    ("estimate", "--permutations"): set(NUMBERS),
    ("estimate", "--seed"): {"0", "1000000000"},
    ("fit", "--held-out"): {"0"},
    ("simulate", "--test-episodes"): {"0"},
    ("simulate", "--context"): {"1000000000"},
    ("simulate", "--seed"): {"0", "1000000000"},
    ("simulate", "--workers"): {"0"},
    ("evaluate", "--first-predicted-frame"): {"0"},
    ("evaluate", "--crop"): {"0"},
    ("evaluate", "--fvd-frames"): set(NUMBERS),
    ("train", "--seed"): {"0", "1000000000"},
    ("train", "--steps"): {"1000000000"},
}


@pytest.mark.parametrize(
    ("command", "option"),
    [(command, option) for command, (_, options) in TAKE_NUMBERS.items() for option in options],
)
def test_bad_numbers(
    command: str, option: str, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    index = np.arange(30)
    np.save(place / "cov.npy", 0.5 ** np.abs(index[:, None] - index))
    np.save(place / "other.npy", ARRAY[::-1])
    known = {"GOOD": "good.npy", "OTHER": "other.npy", "COV": "cov.npy", "CLIP": "clip.npy", "CLIPS": "clips",
             "OUT": "out", "NOWHERE": "nowhere"}  # fmt: skip
    words = [str(place / known[word]) if word in known else word for word in TAKE_NUMBERS[command][0]]
    before = snapshot(place)
    for number in NUMBERS:
        if number not in GOOD_NUMBERS.get((command, option), ()):
            line = refused([*words, f"{option}={number}"], capsys)
            assert snapshot(place) == before, (number, line)


def test_every_command_is_tried() -> None:
    tried = {words[0] for words in (*TAKE_FILES.values(), *(words for words, _ in TAKE_NUMBERS.values()))}
    assert tried | {"claims", "demo", "plans", "verify"} == set(COMMANDS)  # these take neither
    video = {words[1] for words in TAKE_FILES.values() if words[0] == "video"}
    assert video | {"sweep"} == set(SUBCOMMANDS)  # its options are those of train


# -- bad paths to write to ----------------------------------------------------------------------------

WRITERS = {
    "ledger --json": ["ledger", "--covariance", "COV", "--frame-dim", "1", "--ar-steps", "1", "--json"],
    "ledger --figure": ["ledger", "--covariance", "COV", "--frame-dim", "1", "--ar-steps", "1", "--figure"],
    "lemma --json": ["lemma", "--joint", "LAW", "--past", "0", "--output", "1", "--json"],
    "plans --json": ["plans", "--json"],
    "advise --json": ["advise", "CLIP", "--evaluations", "1", "--out", "OUT", "--json"],
    "lint --json": ["lint", "GOOD", "--json"],
    "schedule --json": ["schedule", "--known", "ar1:0.9", "--iterations", "1", "--json"],
    "context-noise --json": ["context-noise", "--known", "ar1:0.9", "--json"],
    "context-noise --figure": ["context-noise", "--known", "ar1:0.9", "--figure"],
    "memory --json": ["memory", "--known", "ar1:0.9", "--json"],
    "memory --figure": ["memory", "--known", "ar1:0.9", "--figure"],
    "claims --json": ["claims", "--json"],
    "claims --page": ["claims", "--page"],
    "plans --out": ["plans", "magi-1", "--out"],
    "needle --json": ["needle", "--walks", "10", "--frames", "6", "--references", "0,1", "--out", "OUT", "--json"],
    "estimate --json": ["estimate", "--x", "GOOD", "--z", "OTHER", "--json"],
    "fit --out": ["fit", "CLIP", "--out"],
    "fit --json": ["fit", "CLIP", "--out", "OUT", "--json"],
    "evaluate --json": ["video", "evaluate", "--side-by-side", "CLIPS", "--json"],
    "evaluate --table": ["video", "evaluate", "--side-by-side", "CLIPS", "--table"],
}
FOLDER_WRITERS = {
    "needle --out": ["needle", "--walks", "10", "--frames", "6", "--references", "0,1", "--out"],
    "simulate --out": ["simulate", "dmlab", "--episodes", "1", "--frames", "30", "--context", "4", "--out"],
    "advise --out": ["advise", "CLIP", "--evaluations", "1", "--out"],
    "verify --out": ["verify", "--preset", "smoke", "--out"],
    "assess --out": ["assess", "CLIP", "--out"],
    "demo": ["demo"],
    "experiment --publish": ["experiment", "needle", "--preset", "smoke", "--out", "OUT", "--publish"],
    "experiment --out": ["experiment", "needle", "--preset", "smoke", "--out"],
    "train --out": ["video", "train", "--preset", "smoke", "--out"],
    "sweep --out": ["video", "sweep", "--preset", "smoke", "--out"],
    "sweep --publish": ["video", "sweep", "--preset", "smoke", "--out", "OUT", "--publish"],
}


def bad_targets(place: Path) -> Iterator[str]:
    yield ""
    yield str(place)
    yield str(place / "no" / "such" / "out.png")
    yield str(place / "good.npy" / "out.png")
    loop = place / "loop.png"
    loop.symlink_to(loop)
    yield str(loop)
    pipe = place / "pipe.png"
    os.mkfifo(pipe)
    yield str(pipe)
    yield str(place / ("x" * 300 + ".png"))


@pytest.mark.parametrize("writer", WRITERS)
def test_bad_files_to_write(
    writer: str, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    index = np.arange(30)
    np.save(place / "cov.npy", 0.5 ** np.abs(index[:, None] - index))
    np.save(place / "other.npy", ARRAY[::-1])
    known = {"GOOD": "good.npy", "OTHER": "other.npy", "COV": "cov.npy", "CLIP": "clip.npy", "CLIPS": "clips",
             "LAW": "law.npy", "OUT": "out"}  # fmt: skip
    words = [str(place / known[word]) if word in known else word for word in WRITERS[writer]]
    targets = [*bad_targets(place), *(["o", "o.txt"] if "figure" in writer else [])]
    before = snapshot(place)
    for target in targets:
        line = refused([*words, target], capsys)
        assert snapshot(place) == before, (target, line)
        assert ".arvdm-" not in line
        assert target == "" or Path(target).name[:40] in line


@pytest.mark.parametrize("writer", FOLDER_WRITERS)
def test_bad_folders_to_write(
    writer: str, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    known = {"CLIP": "clip.npy", "OUT": "out"}
    words = [str(place / known[word]) if word in known else word for word in FOLDER_WRITERS[writer]]
    targets = ["", str(place / "good.npy"), str(place / "good.npy" / "deeper"), *bad_targets(place)]
    good = {str(place), str(place / "no" / "such" / "out.png")}
    before = snapshot(place)
    for target in targets:
        if target not in good and "xxx" not in target:
            line = refused([*words, target], capsys)
            assert snapshot(place) == before, (target, line)


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="needs device nodes")
def test_a_device_is_written_through_and_stays_one(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        os.mknod(place / "null", 0o666 | 0o020000, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root makes device nodes")
    before = (place / "null").lstat()
    assert main(["plans", "fifo-diffusion", "--json", str(place / "null")]) == 0
    after = (place / "null").lstat()
    assert (before.st_mode, before.st_rdev, before.st_ino) == (after.st_mode, after.st_rdev, after.st_ino)
    assert "Traceback" not in capsys.readouterr().err


def test_a_full_device_is_one_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    assert "/dev/full: No space left on device" in refused(["plans", "--json", "/dev/full"], capsys)
