"""Cells come out the same, byte for byte, wherever they are computed, and whoever dies meanwhile."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from arvdm_theory.executors import Processes, executing, executor
from arvdm_theory.experiments.record import Cell, run_cells
from arvdm_theory.files import atomic_path

CELLS = [{"n": n} for n in range(6)]


def spectrum() -> Callable[[Cell], pd.DataFrame]:
    """A cell whose last digits depend on the number of threads, and that says how many it had.

    A closure, so that it travels to processes that cannot import this file.
    """

    def compute(cell: Cell) -> pd.DataFrame:
        from threadpoolctl import threadpool_info

        x = np.random.default_rng(cell["n"]).normal(size=(120, 120))
        threads = max((pool["num_threads"] for pool in threadpool_info()), default=1)
        return pd.DataFrame(
            {"value": np.linalg.svd(x @ x.T)[1][:3], "threads": threads, "torch": torch.get_num_threads()}
        )

    return compute


def tables(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.csv")}


def strays(folder: Path) -> list[Path]:
    return list(folder.rglob(".*"))


def test_processes_compute_what_this_one_does(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    serial = run_cells("t", CELLS, spectrum(), tmp_path / "one", progress=False)
    with executing(workers=2):
        shared = run_cells("t", CELLS, spectrum(), tmp_path / "two", progress=False)
        again = run_cells("u", CELLS[:1], spectrum(), tmp_path / "two", progress=False)
    pd.testing.assert_frame_equal(serial, shared, check_exact=True)
    np.testing.assert_array_equal(again.value, serial.value[:3])
    assert set(serial.threads) == set(serial.torch) == {1}
    assert torch.get_num_threads() == before
    for name, content in tables(tmp_path / "one").items():
        assert (tmp_path / "two" / name).read_bytes() == content
    assert not strays(tmp_path)


def test_a_killed_workers_cell_is_computed_again(tmp_path: Path) -> None:
    mark = tmp_path / "mark"

    def falls_once(cell: Cell) -> pd.DataFrame:
        if cell["n"] == 3 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return pd.DataFrame({"x": [cell["n"] ** 2]})

    with executing(workers=2):
        table = run_cells("t", CELLS, falls_once, tmp_path / "out", progress=False)
    assert mark.exists()
    assert list(table.x) == [n**2 for n in range(6)]
    assert not strays(tmp_path / "out")


def test_a_cell_that_kills_every_worker_is_given_up(tmp_path: Path) -> None:
    def falls(cell: Cell) -> pd.DataFrame:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    with pytest.raises(ValueError, match=r"worker processes died 4 times"), executing(workers=1):
        run_cells("t", CELLS[:1], falls, tmp_path, progress=False)


def test_an_error_in_a_worker_is_the_errors_own(tmp_path: Path) -> None:
    def fails(cell: Cell) -> pd.DataFrame:
        raise ValueError(f"cell {cell['n']} cannot be")

    with pytest.raises(ValueError, match=r"cell \d cannot be"), executing(workers=2):
        run_cells("t", CELLS, fails, tmp_path, progress=False)
    assert not strays(tmp_path)


def test_items_are_taken_only_as_there_is_room(tmp_path: Path) -> None:
    taken: list[int] = []

    def items() -> "object":
        for n in range(20):
            taken.append(n)
            yield n

    with Processes(1) as pool:
        results = pool.run(lambda n: n + 1, items())  # type: ignore[arg-type,var-annotated]
        item, result = next(results)  # of the two that are handed out, whichever is found done first
        assert item in (0, 1)
        assert result == item + 1
        assert len(taken) <= 3
        results.close()  # type: ignore[attr-defined]


def test_without_a_choice_work_is_done_here() -> None:
    assert list(executor().run(lambda n: os.getpid(), [1])) == [(1, os.getpid())]


SWEEP = """
import sys, time
from pathlib import Path
import pandas as pd
from arvdm_theory.executors import executing
from arvdm_theory.experiments.record import run_cells
from arvdm_theory.signals import Terminated, terminable
def cell(cell):
    time.sleep(0.3)
    return pd.DataFrame({"x": [cell["n"] ** 2]})
if __name__ == "__main__":
    where = {"dask": "local"} if sys.argv[2] == "dask" else {"workers": int(sys.argv[2])}
    try:
        with terminable(), executing(**where):
            run_cells("t", [{"n": n} for n in range(int(sys.argv[3]))], cell, Path(sys.argv[1]), progress=False)
    except Terminated:
        sys.exit("told to end")
"""


def start(script: Path, *words: object) -> subprocess.Popen[str]:
    script.write_text(SWEEP)
    scratch = script.parent / "scratch"
    scratch.mkdir(exist_ok=True)
    environment = {**os.environ, "TMPDIR": str(scratch)}
    words = (sys.executable, script, *words)
    return subprocess.Popen(list(map(str, words)), stderr=subprocess.PIPE, text=True, env=environment)


def descendants(pid: int) -> set[int]:
    found: set[int] = set()
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = place.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found |= {int(place.parent.name)} | descendants(int(place.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to see who is left")
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("where", [2, "dask"])
def test_nothing_outlives_who_began_it(tmp_path: Path, where: int | str, sign: signal.Signals) -> None:
    """No process and no temporary file; and of its end there is one line."""
    if where == "dask":
        pytest.importorskip("distributed", reason="Dask is an extra: pip install 'arvdm-theory[cluster]'")
    out, scratch = tmp_path / "out", tmp_path / "scratch"
    process = start(tmp_path / "sweep.py", out, where, 200)
    patience = time.monotonic() + 300  # a busy machine
    while not list(out.glob("cells/t-*.csv")) and process.poll() is None and time.monotonic() < patience:
        time.sleep(0.05)
    assert process.poll() is None, process.communicate()[1]
    others = descendants(process.pid)
    assert len(others) >= 2
    process.send_signal(sign)
    said = process.communicate(timeout=60)[1]
    if sign == signal.SIGTERM:  # after a kill Python itself tells of semaphores
        assert said == "told to end\n"
    patience = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in others) and time.monotonic() < patience:
        time.sleep(0.05)
    assert not [pid for pid in others if Path(f"/proc/{pid}").exists()]
    assert not list(scratch.iterdir())
    if sign == signal.SIGTERM:
        assert not strays(out)


def test_bars_of_workers_leave_no_semaphore() -> None:
    """A semaphore of the system outlives a worker that is told to end, and Python says so on the terminal."""

    def lock(_: int) -> str:
        from tqdm import tqdm

        for _step in tqdm([1], disable=True):
            pass
        return type(tqdm.get_lock()).__module__  # type: ignore[no-untyped-call]

    with Processes(1) as processes:
        assert list(processes.run(lock, [0])) == [(0, "_thread")]


def test_two_sweeps_in_one_folder_share_the_work(tmp_path: Path) -> None:
    """Each cell takes 0.3 s: two that share 12 cells leave the same table, and neither computes all of them."""
    both = [start(tmp_path / "sweep.py", tmp_path / "out", 0, 12) for _ in range(2)]
    errors = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    table = pd.read_csv(tmp_path / "out" / "t.csv")
    assert list(table.x) == [n**2 for n in range(12)]
    assert len(list((tmp_path / "out" / "cells").iterdir())) == 12
    assert not strays(tmp_path / "out")


def test_a_dask_cluster_computes_what_this_process_does(tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="Dask is an extra: pip install 'arvdm-theory[cluster]'")
    serial = run_cells("t", CELLS, spectrum(), tmp_path / "one", progress=False)
    mark = tmp_path / "mark"
    whole = spectrum()

    def falls_once(cell: Cell) -> pd.DataFrame:
        if cell["n"] == 3 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(cell)

    with executing(dask="local"):
        shared = run_cells("t", CELLS, falls_once, tmp_path / "two", progress=False)
    assert mark.exists()
    pd.testing.assert_frame_equal(serial, shared, check_exact=True)
    assert (tmp_path / "one" / "t.csv").read_bytes() == (tmp_path / "two" / "t.csv").read_bytes()
    assert not strays(tmp_path)


def test_a_full_disk_on_a_cluster_is_the_error_that_it_is_here(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("distributed", reason="Dask is an extra: pip install 'arvdm-theory[cluster]'")

    def full(cell: Cell) -> pd.DataFrame:
        with atomic_path(tmp_path / "weights"):
            if cell["n"] == 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            for _ in range(6000):  # until it is told to end
                time.sleep(0.01)
        raise AssertionError

    began = time.monotonic()
    with pytest.raises(OSError, match="No space left") as caught, executing(dask="local"):
        run_cells("t", CELLS[:2], full, tmp_path, progress=False)
    assert caught.value.filename == str(tmp_path / "weights")
    assert time.monotonic() - began < 50
    assert capfd.readouterr().err == ""
    assert not strays(tmp_path)


def test_a_cluster_that_is_not_there_is_named(tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="Dask is an extra: pip install 'arvdm-theory[cluster]'")
    with pytest.raises(ValueError, match=r"no Dask scheduler answers at 'nowhere'"), executing(dask="nowhere"):
        raise AssertionError
