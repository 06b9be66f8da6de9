"""Seconds and memory of the ledger, as ratios against the dense trajectory KL of case D in the same run.

Usage: python experiments/benchmarks/ledger.py [--repeats 5]

The baseline is what the ledger replaces: one dense joint Gaussian of every trajectory variable of case D. Each
figure is the median of the repeats; the machine's noise is the distance from the minimum to the maximum.
"""

import argparse
import resource
import statistics
import time
from collections.abc import Callable

import torch

from arvdm_theory import PixelVideo, References, ar1, fifo, ledger, outpainting, reference_video
from arvdm_theory.decomposition.trajectory import trajectory_kl
from arvdm_theory.laws.pixels import ExponentialMemory, PowerLaw


def seconds(job: Callable[[], object], repeats: int) -> list[float]:
    job()
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        job()
        found.append(time.perf_counter() - start)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    case_d = fifo(4, References.last(3), 10, 20)
    frames = ((1.0, 0.3, 0.1, 0.0), (0.3, 1.0, 0.3, 0.1), (0.1, 0.3, 1.0, 0.3), (0.0, 0.1, 0.3, 1.0))
    pixels = PixelVideo(64, 64, PowerLaw(), ExponentialMemory(tau=10.0, exponent=1.0))
    jobs: dict[str, tuple[Callable[[], object], int]] = {
        "dense trajectory KL of case D (baseline)": (
            lambda: trajectory_kl(reference_video(), case_d, 8),
            args.repeats,
        ),
        "case D": (lambda: ledger(reference_video(), case_d, 8), args.repeats),
        "case D without Girsanov": (lambda: ledger(reference_video(), case_d, 8, girsanov=False), args.repeats),
        "FIFO w = 8, d = 4, M = 10, 200 AR steps": (
            lambda: ledger(
                ar1(0.9, frame_covariance=frames), fifo(8, References.last(3), 10, 20), 200, girsanov=False
            ),
            1,
        ),
        "64 x 64 pixels, outpainting, 8 AR steps, M = 20": (
            lambda: ledger(pixels, outpainting(2, References.last(4), 20, 20), 8),
            1,
        ),
        "64 x 64 pixels, FIFO w = 8, 8 AR steps, M = 10": (
            lambda: ledger(pixels, fifo(8, References.last(3), 10, 20), 8),
            1,
        ),
    }
    print(f"{'job':<50} {'median s':>9} {'min':>8} {'max':>8} {'ratio':>7} {'peak MiB':>9}")
    baseline = None
    for name, (job, repeats) in jobs.items():
        found = seconds(job, repeats)
        middle = statistics.median(found)
        baseline = baseline or middle
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{name:<50} {middle:9.3f} {min(found):8.3f} {max(found):8.3f} {middle / baseline:7.2f} {peak:9.0f}")


if __name__ == "__main__":
    main()
