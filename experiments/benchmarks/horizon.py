"""Seconds and memory of ledgers by recursions, as ratios against the dense ledger in the same run.

Usage: python experiments/benchmarks/horizon.py [--ar-steps 100000] [--dense 100]

FIFO w = 8, d = 4, the last 3 frames as references, M = 10, with every term, its table and its totals; one thread.
The baseline is the dense ledger of ``--dense`` AR steps of the first video. Every job runs in a process of its
own, so that its peak of memory is its own; seconds are those of the ledger alone, by wall and processor.
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import time

import numpy as np
import scipy.linalg
import scipy.stats  # the first confidence interval would load it, and be timed
import torch

from arvdm_theory import ArrayVideo, GaussianVideo, References, ar1, fifo, ledger, state_space
from arvdm_theory.decomposition.recursion import rates

FRAME = ((1.0, 0.3, 0.1, 0.0), (0.3, 1.0, 0.3, 0.1), (0.1, 0.3, 1.0, 0.3), (0.0, 0.1, 0.3, 1.0))
WIDTHS = (10, 9, 8, 8, 7, 9, 14)
PLAN = fifo(8, References.last(3), 10, 20)


def rotation(radius: float) -> GaussianVideo:
    """Four states that turn with periods of 7 and 11 frames, seen in noise; undamped at radius 1."""
    turns = []
    for period in (7, 11):
        c, s = math.cos(2 * math.pi / period), math.sin(2 * math.pi / period)
        turns.append(radius * np.array([[c, -s], [s, c]]))
    see = np.random.default_rng(0).normal(size=(4, 4))
    noise = (1 - radius**2) * np.eye(4)
    return state_space(scipy.linalg.block_diag(*turns), noise, see, 0.3 * np.eye(4), initial_covariance=np.eye(4))


VIDEOS = {"AR(1) 0.9": ar1(0.9, FRAME), "rotation, damped": rotation(0.98), "rotation, undamped": rotation(1.0)}


def run(name: str, ar_steps: int, dense: bool) -> None:
    video = VIDEOS[name]
    if dense:
        frames = PLAN.total_frames(ar_steps)
        video = ArrayVideo(video.covariance(frames)[0], video.frame_dim, video.mean(frames)[0])
    wall, processor = time.perf_counter(), time.process_time()
    result = ledger(video, PLAN, ar_steps)
    found = [time.perf_counter() - wall, time.process_time() - processor]
    print(json.dumps([*found, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, result.totals["kl"]]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ar-steps", type=int, default=100_000)
    parser.add_argument("--dense", type=int, default=100)
    parser.add_argument("--job", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.job:
        name, ar_steps, dense = args.job
        run(name, int(ar_steps), dense == "dense")
        return
    first = next(iter(VIDEOS))
    jobs = [(first, args.dense, "dense"), (first, 2 * args.dense, "dense"), (first, args.dense, "recursive")]
    jobs += [(name, args.ar_steps, "recursive") for name in VIDEOS]
    heads = ("way", "AR steps", "seconds", "CPU", "ratio", "peak MiB", "KL")
    print("video".ljust(20), *(head.rjust(width) for head, width in zip(heads, WIDTHS, strict=True)))
    baseline = None
    for name, ar_steps, way in jobs:
        made = subprocess.run(
            [sys.executable, __file__, "--job", name, str(ar_steps), way],
            check=True,
            capture_output=True,
            text=True,
        )
        wall, processor, peak, kl = json.loads(made.stdout)
        baseline = baseline or processor
        print(
            f"{name:<20} {way:>10} {ar_steps:9d} {wall:8.2f} {processor:8.2f} {processor / baseline:7.2f} "
            f"{peak:9.0f} {kl:14.6f}"
        )
    for name in list(VIDEOS)[:2]:
        print(f"{name}: KL {float(rates(VIDEOS[name], PLAN).kl):.12f} nats a frame at the infinite horizon")


if __name__ == "__main__":
    main()
