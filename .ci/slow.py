"""Faults at random moments over the jobs that run for long, and what is left of them; see ``.ci/slow``."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import types
import uuid
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from arvdm_theory.cli import main
from arvdm_theory.experiments.pareto import run as _sweep  # noqa: F401  (so that forks have it)
from arvdm_theory.training.checkpoint import checkpoints, read_checkpoint
from arvdm_theory.video import runs as _runs  # noqa: F401

# Of each signal, over all jobs together.
MOMENTS = int(os.environ.get("ARVDM_MOMENTS", "40"))

_EPISODES = ["--episodes", "12", "--test-episodes", "4", "--frames", "120", "--size", "32", "--workers", "2"]
_SWEEP = ["experiment", "pareto", "--preset", "smoke", "--device", "cpu", "--no-figures"]

JOBS = {
    "train": (0.3, ["video", "train", "--preset", "smoke", "--steps", "60", "--device", "cpu"]),
    "sweep": (0.35, _SWEEP),
    "sweep-workers": (0.075, [*_SWEEP, "--workers", "2"]),
    "sweep-dask": (0.125, [*_SWEEP, "--dask", "local"]),
    "simulate": (0.15, ["simulate", "dmlab", *_EPISODES]),
    "simulate-doom": (0.1, ["simulate", "doom", *_EPISODES]),
}
"""Of every job its share of the moments and its command, but for --out. The first simulates and decodes its data,
too; cells of the sweep train networks."""


class Job:
    """A command in a process of its own.

    It is a fork of this one, which has imported what commands need: most of a small job's seconds are those of an
    interpreter that starts, in which nothing can be lost. What it starts is new from the interpreter on, and is
    known by a mark in its environment.
    """

    def __init__(self, words: list[str], folder: Path, scratch: Path) -> None:
        scratch.mkdir(exist_ok=True)
        self.folder, self.scratch, self.mark = folder, scratch, uuid.uuid4().hex
        self.said = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115
        self.process = multiprocessing.get_context("fork").Process(target=self._run, args=(words,))
        self.process.start()

    def _run(self, words: list[str]) -> None:
        os.setsid()
        os.dup2(self.said.fileno(), 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.stdout, sys.stderr = open(1, "w"), open(2, "w")  # noqa: SIM115
        os.environ |= {"ARVDM_JOB": self.mark, "TMPDIR": str(self.scratch)}
        tempfile.tempdir = None
        sys.modules["__main__"] = types.ModuleType("__main__")  # which processes that are spawned would load
        sys.exit(main([*words, "--out", str(self.folder)]))

    def begun(self) -> None:
        """Waits for the first file: before it there is nothing that could be lost."""
        while self.process.is_alive() and not (self.folder.exists() and any(self.folder.iterdir())):
            time.sleep(0.005)

    def end(self) -> tuple[int, str]:
        """Its exit code, and what it said at last."""
        self.process.join()
        self.said.seek(0)
        lines = self.said.read().splitlines()
        return self.process.exitcode or 0, lines[-1] if lines else ""

    def alive(self) -> list[int]:
        """Its processes: this one's children and theirs, and whoever has lost its parents."""
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (place / "environ").read_bytes():  # empty, of a zombie
                    found.append(int(place.name))
            except OSError:
                continue
        return found

    def orphans(self, seconds: float = 10) -> int:
        """How many are left after a while."""
        end = time.monotonic() + seconds
        while self.alive() and time.monotonic() < end:
            time.sleep(0.05)
        return len(self.alive())

    def strays(self) -> int:
        """Hidden files where it writes, and all in the folder for temporary files but the cache of PyTorch."""
        hidden = list(self.folder.rglob(".*")) if self.folder.exists() else []
        return len(hidden) + sum(not path.name.startswith("torchinductor_") for path in self.scratch.iterdir())


def finish(words: list[str], folder: Path, scratch: Path) -> float:
    """Does a job to its end, and returns the seconds from its first file on."""
    job = Job(words, folder, scratch)
    job.begun()
    began = time.monotonic()
    code, said = job.end()
    if code != 0:
        raise SystemExit(f"{words}: exit code {code}: {said}")
    return time.monotonic() - began


def kept(folder: Path) -> dict[str, str]:
    """All that a job leaves, bit by bit, but for columns of seconds, pages, and who computed what when.

    Of a training the last checkpoint; those before it are of the moments at which it was told to stop.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".csv" and path.parent.name != "cells":
            table = pd.read_csv(path, dtype=str, keep_default_na=False)
            found[name] = digest([table.drop(columns=["seconds"], errors="ignore").to_csv().encode()])
        elif path.suffix in (".npz", ".npy"):
            arrays = np.load(path)
            held = {key: arrays[key] for key in sorted(arrays.files)} if path.suffix == ".npz" else {"": arrays}
            found[name] = digest([key.encode() + array.tobytes() for key, array in held.items()])
        elif path.name == "checkpoints":
            last = checkpoints(path.parent)[-1]
            tensors = read_checkpoint(last)[0]
            tensors["history"] = tensors["history"][:, :-1]  # the last column counts seconds
            parts = [key.encode() + tensor.numpy().tobytes() for key, tensor in sorted(tensors.items())]
            found[f"{name}/{last.name}"] = digest(parts)
    return found


def digest(parts: list[bytes]) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()


def faults(sign: signal.Signals, rng: random.Random, jobs: list[str]) -> dict[str, Any]:
    """A signal at random moments from every job's first file to its end; then the job is given again.

    A moment at which a job had already ended is drawn anew, and counted.
    """
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        scratch = place / "scratch"
        for job in jobs:
            share, words = JOBS[job]
            length, whole = finish(words, place / f"{job}-whole", scratch), kept(place / f"{job}-whole")
            counts: dict[str, Any] = {
                "moments": 0, "drawn_anew": 0, "bitwise": 0, "orphans": 0, "strays": 0, "codes": {},
                "seconds_of_work": round(length, 1),
            }  # fmt: skip
            while counts["moments"] < max(round(share * MOMENTS), 1):
                folder = place / f"{job}-{counts['moments']}"
                begun = Job(words, folder, scratch)
                begun.begun()
                time.sleep(rng.uniform(0, 1) * length)
                os.kill(begun.process.pid or 0, sign)
                code, said = begun.end()
                if code == 0:
                    counts["drawn_anew"] += 1
                else:
                    counts["moments"] += 1
                    counts["codes"][str(code)] = counts["codes"].get(str(code), 0) + 1
                    counts["orphans"] += begun.orphans()
                    if sign == signal.SIGTERM:  # what is told to end cleans up at once
                        counts["strays"] += begun.strays()
                        if code != 143 or begun.strays():
                            print(f"{job}: exit code {code}, {begun.strays()} strays: {said}", flush=True)
                    shutil.rmtree(scratch)  # after a kill that of others cannot be cleaned by the next one
                    finish(words, folder, scratch)
                    counts["bitwise"] += kept(folder) == whole
                    counts["strays"] += begun.strays()
                shutil.rmtree(folder)
            result[job] = counts
            print(f"{sign.name} {job}: {counts}", flush=True)
    return result


# What a job says of it: in the middle, and before a cache that would not fit.
_FULL = ("No space left on device", "the disk has")


def full_disk(rng: random.Random, jobs: list[str]) -> dict[str, Any]:
    """A disk that fills up at random sizes below what a job needs, then has room again."""
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        disk, scratch = place / "disk", place / "scratch"
        disk.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)], check=False).returncode:
            return {job: {"skipped": "no right to mount a small disk"} for job in jobs}
        try:
            for job in jobs:
                share, words = JOBS[job]
                finish(words, place / f"{job}-whole", scratch)
                whole = kept(place / f"{job}-whole")
                sizes = [path.stat().st_size for path in (place / f"{job}-whole").rglob("*") if path.is_file()]
                pages = sum(-(-size // 4096) for size in sizes)
                counts: dict[str, Any] = {
                    "times": 0, "one_line": 0, "codes": {}, "orphans": 0, "strays": 0, "bitwise": 0
                }  # fmt: skip
                for number in range(max(round(share * MOMENTS), 1)):
                    size = 4096 * (1 + int(rng.uniform(0, 0.95) * pages))
                    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)
                    folder = disk / f"{job}-{number}"
                    begun = Job(words, folder, scratch)
                    code, said = begun.end()
                    counts["times"] += 1
                    counts["codes"][str(code)] = counts["codes"].get(str(code), 0) + 1
                    counts["one_line"] += any(words in said for words in _FULL)
                    counts["orphans"] += begun.orphans()
                    counts["strays"] += begun.strays()
                    if code != 2 or begun.strays() or not any(words in said for words in _FULL):
                        print(f"{job}: exit code {code}, {begun.strays()} strays: {said}", flush=True)
                    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
                    finish(words, folder, scratch)
                    counts["bitwise"] += kept(folder) == whole
                    counts["strays"] += begun.strays()
                    shutil.rmtree(folder)
                result[job] = counts
                print(f"full disk {job}: {counts}", flush=True)
        finally:
            subprocess.run(["umount", str(disk)], check=False)
    return result


def dask() -> dict[str, Any]:
    """Two workers against the serial run, in turns: the same tables, how much faster, and one worker lost."""
    words = [sys.executable, "experiments/benchmarks/executors.py", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    print(f"dask: {result}", flush=True)
    return result


def lowest() -> dict[str, Any]:
    """The oldest versions that are allowed, in an environment of their own: everything imports, commands run."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        done = subprocess.run(["bash", ".ci/lowest", str(place)], capture_output=True, text=True, check=False)
        result = {"exit_code": done.returncode, "last_lines": done.stdout.splitlines()[-3:]}
        if done.returncode:
            result["errors"] = done.stderr.splitlines()[-3:]
    print(f"lowest: {result}", flush=True)
    return result


def documentation() -> dict[str, Any]:
    """Every tutorial, and every example of every command behind ``arvdm demo``."""
    import shlex

    from arvdm_theory.cli import COMMANDS, module_of
    from arvdm_theory.cli.video import SUBCOMMANDS

    done = subprocess.run([sys.executable, "docs/site/tutorials.py"], capture_output=True, text=True, check=False)
    result: dict[str, Any] = {"tutorials": done.returncode, "examples": {}}
    names = [*COMMANDS, *(f"video {name}" for name in SUBCOMMANDS)]
    lines = [line for name in names for line in getattr(module_of(name), "EXAMPLES", ())]
    with tempfile.TemporaryDirectory() as place:
        for line in ["arvdm demo demo", *lines]:
            words = [sys.executable, "-m", "arvdm_theory", *shlex.split(line)[1:]]
            environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
            tried = subprocess.run(words, cwd=place, capture_output=True, check=False, env=environment)
            result["examples"][line] = tried.returncode
    print(f"documentation: {result}", flush=True)
    return result


def fuzz() -> dict[str, Any]:
    """Bad files, numbers and paths of two seeds more than those that every push tries."""
    return _tested(["tests/robustness/test_fuzz.py"], ARVDM_FUZZ="3")


# Where Hypothesis makes examples up.
EXAMPLES = [
    "choose", "decomposition", "experiments", "information", "plan", "properties", "test_arrays.py",
    "test_number.py", "testing", "video",
]  # fmt: skip


def examples(folder: str) -> dict[str, Any]:
    """Ten times as many examples as Hypothesis makes up on a push."""
    return _tested([f"tests/{folder}", "-m", "hypothesis"], ARVDM_EXAMPLES="10")


def _tested(words: list[str], **environment: str) -> dict[str, Any]:
    began = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "--tb=short", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    print(done.stdout[-6000:] if failed else f"{words}: exit code {done.returncode}", flush=True)
    minutes = round((time.monotonic() - began) / 60, 1)
    return {**environment, "exit_code": done.returncode, "failed": failed, "minutes": minutes}


FAULTS: dict[str, Callable[[random.Random, list[str]], dict[str, Any]]] = {
    "kill": partial(faults, signal.SIGKILL),
    "term": partial(faults, signal.SIGTERM),
    "full": full_disk,
}
PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "dask": dask, "lowest": lowest, "documentation": documentation, "fuzz": fuzz,
    **{f"examples:{folder}": partial(examples, folder) for folder in EXAMPLES},
}  # fmt: skip


def _place() -> dict[str, Any]:
    """What was run where, and how busy that was."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--", ".", ":!.ci/slow.json")
    return {
        "commit": git("rev-parse", "--short", "HEAD") + (" and changes" if changed else ""),
        "python": platform.python_version(),
        "torch": version("torch"),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[1], 1),
    }


def write() -> None:
    file = Path(".ci/slow.json")
    found = json.loads(file.read_text()) if file.exists() else {}
    for word in sys.argv[1:] or [*FAULTS, *PARTS]:
        name, _, job = word.partition(":")
        place = _place()
        if name in FAULTS:
            results = FAULTS[name](random.Random(word), [job] if job else list(JOBS))
            found[name] = found.get(name, {}) | {job: {"run": place} | result for job, result in results.items()}
        elif job:
            found[name] = found.get(name, {}) | {job: {"run": place} | PARTS[word]()}
        else:
            found[name] = {"run": place} | PARTS[name]()
        file.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    write()
