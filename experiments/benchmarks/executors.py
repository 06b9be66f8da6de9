"""How much faster a sweep is with two workers: cells of about a second each, the executors in turns.

    python experiments/benchmarks/executors.py [--cells 12] [--repeats 3] [--workers 2] [--json]

A table, a row an executor: seconds on the wall, their ratio to the same round's serial sweep (median, least and
most of the rounds), and the processor time of all its processes beside the serial sweep's, which other programs on
the machine disturb less: on free cores no ratio is above workers · (serial / this). Workers are started and have
imported what cells need before the clock starts. Every sweep's table must be the serial one's byte for byte. The
last row is a Dask cluster one of whose workers is killed in the middle of the sweep.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd

from arvdm_theory import ArrayVideo, References, ar1, fifo, ledger
from arvdm_theory.executors import Dask, Executor, Here, Processes, executing
from arvdm_theory.experiments.record import Cell, run_cells

FRAME = ((1.0, 0.3, 0.1, 0.0), (0.3, 1.0, 0.3, 0.1), (0.1, 0.3, 1.0, 0.3), (0.0, 0.1, 0.3, 1.0))
STEPS = 80


def cell(cell: Cell) -> pd.DataFrame:
    """The ledger of an auto-regression that is known by its dense covariance alone."""
    plan = fifo(8, References.last(3), 10, 20)
    video = ArrayVideo(ar1(cell["phi"], FRAME).covariance(plan.total_frames(cell["steps"]))[0], len(FRAME))
    found = ledger(video, plan, cell["steps"], girsanov=False)
    return pd.DataFrame({"kl": [found.totals["kl"]]})


def processor_seconds(processes: list[int]) -> float:
    """Of this process and others."""
    tick = os.sysconf("SC_CLK_TCK")
    fields = [Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split() for pid in processes]
    return time.process_time() + sum(int(field[11]) + int(field[12]) for field in fields) / tick


def measure(cells: int, repeats: int, workers: int) -> dict[str, Any]:
    """The table's content; see the top."""
    import distributed

    plan = [{"phi": 0.8 + 0.01 * number, "steps": STEPS} for number in range(cells)]
    found: dict[str, list[tuple[float, float]]] = {}
    with ExitStack() as block:
        scratch = Path(block.enter_context(tempfile.TemporaryDirectory()))
        pool = block.enter_context(Processes(workers))
        cluster = block.enter_context(
            distributed.LocalCluster(
                workers, threads_per_worker=1, dashboard_address=None, local_directory=str(scratch)
            )
        )
        client = block.enter_context(distributed.Client(cluster))
        executors: dict[str, Executor] = {"serial": Here(), "processes": pool, "dask": Dask(client)}

        def others() -> list[int]:
            nannies = [nanny.pid for nanny in cluster.workers.values() if nanny.pid]
            return [*nannies, *(process.pid for process in (pool._pool._processes or {}).values())]

        def sweep(name: str, executor: Executor, cells: list[dict[str, Any]]) -> tuple[float, float, bytes]:
            with tempfile.TemporaryDirectory() as folder, executing(using=executor):
                wall, processor = time.perf_counter(), processor_seconds(others() if name != "warm" else [])
                run_cells("sweep", cells, cell, Path(folder), progress=False)
                wall = time.perf_counter() - wall
                processor = processor_seconds(others() if name != "warm" else []) - processor
                return wall, processor, (Path(folder) / "sweep.csv").read_bytes()

        for executor in executors.values():
            sweep("warm", executor, [{**each, "steps": 2} for each in plan])
        right, same = b"", {}
        for _ in range(repeats):
            for name, executor in executors.items():
                wall, processor, table = sweep(name, executor, plan)
                right = right or table
                same[name] = same.get(name, True) and table == right
                found.setdefault(name, []).append((wall, processor))
        victim = next(iter(cluster.workers.values())).pid
        killer = threading.Timer(found["dask"][-1][0] / 3, os.kill, (victim, 9))
        killer.start()
        wall, _, table = sweep("warm", executors["dask"], plan)
        killer.join()
        same["dask, one killed"] = table == right
        found["dask, one killed"] = [(wall, 0.0)]  # a killed process no longer says what it took
    serial = found["serial"]
    result: dict[str, Any] = {"cells": cells, "cores": os.cpu_count(), "load": os.getloadavg()[0], "executors": {}}
    for name, times in found.items():
        ratios = [before[0] / now[0] for before, now in zip(serial, times, strict=False)]
        result["executors"][name] = {
            "seconds": round(statistics.median(wall for wall, _ in times), 1),
            "ratio": round(statistics.median(ratios), 2),
            "least": round(min(ratios), 2),
            "most": round(max(ratios), 2),
            "processor_seconds": round(statistics.median(processor for _, processor in times), 1) or None,
            "same_table": same[name],
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    found = measure(args.cells, args.repeats, args.workers)
    if args.json:
        print(json.dumps(found))
        return
    print(f"{found['cells']} cells, {found['cores']} cores, load {found['load']:.1f}")
    print(pd.DataFrame(found["executors"]).T.to_string())


if __name__ == "__main__":
    main()
