"""Faults at random moments over the jobs that run for long, and what is left of them; see ``.ci/slow``."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Of each signal, over all jobs together.
MOMENTS = int(os.environ.get("ARVDM_MOMENTS", "40"))

_TRAIN = """
import sys
from pathlib import Path
sys.path.insert(0, "tests/training")
import small_run
from arvdm_theory.signals import terminable
if __name__ == "__main__":
    with terminable():
        small_run.run(Path(sys.argv[1]), steps=400, checkpoint_every=25, log_every=10, pause=0.004)
"""
_SWEEP = """
import sys, time
from pathlib import Path
import numpy as np, pandas as pd
from arvdm_theory.executors import executing
from arvdm_theory.experiments.record import run_cells
from arvdm_theory.signals import terminable
def cell(cell):
    time.sleep(0.05)
    x = np.random.default_rng(cell["n"]).normal(size=(60, 60))
    return pd.DataFrame({"value": np.linalg.svd(x)[1][:20]})
if __name__ == "__main__":
    with terminable(), executing(workers=int(sys.argv[2])):
        run_cells("t", [{"n": n} for n in range(60)], cell, Path(sys.argv[1]), progress=False)
"""
_MAIN = "import sys; from arvdm_theory.cli import main\nif __name__ == '__main__': sys.exit(main())"


class Job:
    """A job in processes of its own, and what of its outcome is compared."""

    def __init__(
        self, name: str, script: str, words: Callable[[Path], list[str]], kept: Callable[[Path], str]
    ) -> None:
        self.name, self.script, self.words, self.kept = name, script, words, kept

    def start(self, folder: Path) -> subprocess.Popen[str]:
        file = folder.parent / f"{self.name}.py"
        file.write_text(self.script)
        return subprocess.Popen(
            [sys.executable, str(file), *self.words(folder)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, folder: Path) -> None:
        process = self.start(folder)
        errors = process.communicate()[1]
        if process.returncode != 0:
            raise SystemExit(f"{self.name}: exit code {process.returncode}: {errors}")


def digest(parts: list[bytes]) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()


def of_training(folder: Path) -> str:
    from arvdm_theory.training.checkpoint import checkpoints, read_checkpoint

    tensors = read_checkpoint(checkpoints(folder)[-1])[0]
    tensors["history"] = tensors["history"][:, :-1]  # the last column counts seconds
    return digest([name.encode() + value.numpy().tobytes() for name, value in sorted(tensors.items())])


def of_tables(folder: Path) -> str:
    return digest([path.name.encode() + path.read_bytes() for path in sorted(folder.rglob("*.csv"))])


def of_episodes(folder: Path) -> str:
    import numpy as np

    found = []
    for path in sorted(folder.rglob("*.npz")):
        with np.load(path) as arrays:
            found += [path.name.encode(), *(arrays[key].tobytes() for key in sorted(arrays.files))]
    return digest(found)


_SIMULATE = [
    "simulate", "dmlab", "--episodes", "30", "--test-episodes", "5", "--frames", "60", "--size", "32",
    "--workers", "2",
]  # fmt: skip

JOBS = [
    Job("train", _TRAIN, lambda folder: [str(folder)], of_training),
    Job("sweep", _SWEEP, lambda folder: [str(folder), "0"], of_tables),
    Job("sweep-workers", _SWEEP, lambda folder: [str(folder), "2"], of_tables),
    Job(
        "simulate",
        _MAIN,
        lambda folder: [*_SIMULATE, "--out", str(folder)],
        of_episodes,
    ),
]


def descendants(pid: int) -> set[int]:
    parents: dict[int, int] = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = place.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        parents[int(place.parent.name)] = int(fields[1])
    found, left = set[int](), {pid}
    while left:
        children = {child for child, parent in parents.items() if parent in left} - found
        found |= children
        left = children
    return found


def alive(pids: set[int]) -> list[int]:
    found = []
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        if state != "Z":
            found.append(pid)
    return found


def strays(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(".*"))


def faults(sign: signal.Signals, rng: random.Random) -> dict[str, Any]:
    """A signal at random moments of every job's time; then the job is given again."""
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        for job in JOBS:
            began = time.monotonic()
            job.finish(place / f"{job.name}-whole")
            length, whole = time.monotonic() - began, job.kept(place / f"{job.name}-whole")
            counts = {"moments": 0, "finished_before": 0, "bitwise": 0, "orphans": 0, "strays": 0, "codes": {}}
            for number in range(max(MOMENTS // len(JOBS), 1)):
                folder = place / f"{job.name}-{number}"
                process = job.start(folder)
                time.sleep(rng.uniform(0.1, 0.95) * length)
                workers = descendants(process.pid)
                process.send_signal(sign)
                process.communicate()
                counts["moments"] += 1
                counts["finished_before"] += process.returncode == 0
                code = str(process.returncode)
                counts["codes"][code] = counts["codes"].get(code, 0) + 1
                end = time.monotonic() + 10
                while alive(workers) and time.monotonic() < end:
                    time.sleep(0.05)
                counts["orphans"] += len(alive(workers))
                if sign == signal.SIGTERM and folder.exists():  # what is told to end cleans up at once
                    counts["strays"] += len(strays(folder))
                job.finish(folder)
                counts["bitwise"] += job.kept(folder) == whole
                counts["strays"] += len(strays(folder))
                shutil.rmtree(folder)
            counts["seconds"] = round(length, 1)
            result[job.name] = counts
            print(f"{sign.name} {job.name}: {counts}", flush=True)
    return result


def full_disk(rng: random.Random) -> dict[str, Any]:
    """A disk that fills up at random sizes below what a job needs, then has room again."""
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        disk = place / "disk"
        disk.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)], check=False).returncode:
            return {"skipped": "no right to mount a small disk"}
        try:
            for job in JOBS:
                whole_folder = place / f"{job.name}-whole"
                job.finish(whole_folder)
                whole = job.kept(whole_folder)
                need = sum(path.stat().st_size for path in whole_folder.rglob("*") if path.is_file())
                counts: dict[str, Any] = {"times": 0, "one_line": 0, "codes": {}, "strays": 0, "bitwise": 0}
                for number in range(max(MOMENTS // len(JOBS) // 2, 1)):
                    size = int(rng.uniform(0.05, 0.9) * need) // 4096 * 4096 + 4096
                    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)
                    folder = disk / f"{job.name}-{number}"
                    process = job.start(folder)
                    errors = process.communicate()[1]
                    code = str(process.returncode)
                    counts["times"] += 1
                    counts["codes"][code] = counts["codes"].get(code, 0) + 1
                    counts["one_line"] += "No space left on device" in errors.splitlines()[-1] if errors else False
                    counts["strays"] += len(strays(folder)) if folder.exists() else 0
                    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
                    job.finish(folder)
                    counts["bitwise"] += job.kept(folder) == whole
                    counts["strays"] += len(strays(folder))
                    shutil.rmtree(folder)
                result[job.name] = counts
                print(f"full disk {job.name}: {counts}", flush=True)
        finally:
            subprocess.run(["umount", str(disk)], check=False)
    return result


def dask(rng: random.Random) -> dict[str, Any]:
    """A cluster of two workers against the serial run: the same tables, one worker lost, and how much faster."""
    try:
        import distributed
    except ImportError:
        return {"skipped": "Dask is not installed"}
    from arvdm_theory.executors import Dask, executing
    from arvdm_theory.experiments.verify.run import SIZES, bound_checks

    result: dict[str, Any] = {"cores": os.cpu_count()}
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)

        def timed(folder: str) -> float:
            began = time.monotonic()
            bound_checks(SIZES["default"], place / folder, progress=False)
            return time.monotonic() - began

        timed("warm")
        shutil.rmtree(place / "warm")
        serial = timed("serial")
        with executing(workers=2):
            timed("processes-warm")
            shutil.rmtree(place / "processes-warm")
            shared = timed("processes")
        cluster = distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=None)
        client = distributed.Client(cluster)
        from arvdm_theory import executors

        with client:
            token = executors._CURRENT.set(Dask(client))
            timed("dask-warm")
            shutil.rmtree(place / "dask-warm")
            whole = timed("dask")
            victim = next(iter(cluster.workers.values())).process.pid
            subprocess.Popen(
                [sys.executable, "-c", f"import os, time; time.sleep({serial / 5}); os.kill({victim}, 9)"]
            )
            lost = timed("dask-lost")
            executors._CURRENT.reset(token)
        cluster.close()
        right = of_tables(place / "serial")
        result |= {
            "serial_seconds": round(serial, 1),
            "processes_ratio": round(serial / shared, 2),
            "dask_ratio": round(serial / whole, 2),
            "dask_with_one_worker_killed_ratio": round(serial / lost, 2),
            "same_tables": {name: of_tables(place / name) == right for name in ("processes", "dask", "dask-lost")},
        }
    print(f"dask: {result}", flush=True)
    return result


def lowest(rng: random.Random) -> dict[str, Any]:
    """The oldest versions that are allowed, in an environment of their own: everything imports, commands run."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        done = subprocess.run(["bash", ".ci/lowest", str(place)], capture_output=True, text=True, check=False)
        result = {"exit_code": done.returncode, "last_lines": done.stdout.splitlines()[-3:]}
        if done.returncode:
            result["errors"] = done.stderr.splitlines()[-3:]
    print(f"lowest: {result}", flush=True)
    return result


def documentation(rng: random.Random) -> dict[str, Any]:
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


PARTS: dict[str, Callable[[random.Random], dict[str, Any]]] = {
    "kill": lambda rng: faults(signal.SIGKILL, rng),
    "term": lambda rng: faults(signal.SIGTERM, rng),
    "full": full_disk,
    "dask": dask,
    "lowest": lowest,
    "documentation": documentation,
}


def main() -> None:
    file = Path(".ci/slow.json")
    kept = json.loads(file.read_text()) if file.exists() else {}
    for name in sys.argv[1:] or list(PARTS):
        kept[name] = PARTS[name](random.Random(name))
        file.write_text(json.dumps(kept, indent=2) + "\n")


if __name__ == "__main__":
    main()
