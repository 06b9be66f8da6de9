"""Frames a second that the stand-ins draw, and how long a model would wait for its data.

    python experiments/benchmarks/simulators.py [--episodes 16] [--frames 300] [--step-ms 20]

First table: frames a second on one core for each stand-in and size, at random poses of several worlds. Second
table: a loop that takes batches of clips and then works for ``--step-ms`` (it sleeps, as if on an accelerator);
the share of its time that it waits for data, read from compressed .npz files and from the memory-mapped cache.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from arvdm_theory.data.cache import build_cache
from arvdm_theory.data.dataset import ClipDataset
from arvdm_theory.data.index import build_index
from arvdm_theory.data.teco import TecoDmlab
from arvdm_theory.video.simulators.dmlab import DmlabStandIn
from arvdm_theory.video.simulators.recording import Recording
from arvdm_theory.video.simulators.trajectories import Trajectory
from arvdm_theory.video.simulators.voxel import MinecraftStandIn
from arvdm_theory.video.simulators.worlds import Simulator


def drawing(simulator: Simulator, frames: int, worlds: int = 4) -> tuple[float, float]:
    """Frames a second: of the best world, as other programs take their share of the core, and of the mean."""
    rates = []
    for seed in range(worlds):
        world = simulator.world(seed)
        rng = np.random.default_rng(seed)
        cells = np.argwhere(world.passages.any(-1))
        place = cells[rng.integers(len(cells), size=frames)][:, ::-1] + rng.integers(1, 8, (frames, 2)) / 8
        poses = np.column_stack([place, rng.integers(0, 48, frames) * 7.5])
        world.render(poses[:8])
        start = time.process_time()
        world.render(poses)
        rates.append(frames / (time.process_time() - start))
    return max(rates), float(np.mean(rates))


def waiting(clips: Any, batch: int, workers: int, step: float, epochs: int) -> tuple[float, float]:
    """The share of time that the loop waits, and milliseconds a batch that it does."""
    loader = DataLoader(clips, batch_size=batch, num_workers=workers, persistent_workers=workers > 0)
    for _ in loader:  # start the workers, and let the system's own file cache fill
        pass
    waited, batches, begin = 0.0, 0, time.perf_counter()
    for _ in range(epochs):
        mark = time.perf_counter()
        for _ in loader:
            waited += time.perf_counter() - mark
            batches += 1
            time.sleep(step)
            mark = time.perf_counter()
    return waited / (time.perf_counter() - begin), 1000 * waited / batches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=16)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--length", type=int, default=20, help="frames of a clip that the model takes")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--step-ms", type=float, default=20)
    args = parser.parse_args()

    simulators: tuple[Simulator, ...] = (
        *(DmlabStandIn(size) for size in (16, 32, 64)),
        *(MinecraftStandIn(size) for size in (64, 128)),
    )
    print(f"{'':<20} {'pixels':>7} {'frames/s, best':>15} {'mean':>7}")
    for simulator in simulators:
        best, mean = drawing(simulator, args.frames)
        print(f"{simulator.name:<20} {simulator.size:>7} {best:>15.0f} {mean:>7.0f}")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        start = time.perf_counter()
        for _ in Recording(DmlabStandIn(), Trajectory(frames=args.frames)).write(root / "data", args.episodes):
            pass
        print(f"\nepisodes written: {(time.perf_counter() - start) / args.episodes:.2f} s each")
        start = time.perf_counter()
        index = build_index(root / "data", TecoDmlab(), progress=False)
        print(f"indexed: {1000 * (time.perf_counter() - start) / args.episodes:.1f} ms each")
        dataset = ClipDataset(index, "next", args.length, seed=0)
        start = time.perf_counter()
        cached = build_cache(dataset, root / "cache", progress=False)
        print(
            f"cached: {1000 * (time.perf_counter() - start) / len(cached):.1f} ms a clip of {args.length} frames\n"
        )
        print(f"{'read from':<12} {'workers':>7} {'waiting':>8} {'ms/batch':>9}")
        for source, clips in (("files", dataset), ("cache", cached)):
            for workers in (0, 1):
                share, wait = waiting(clips, args.batch, workers, args.step_ms / 1000, epochs=2)
                print(f"{source:<12} {workers:>7} {share:>8.1%} {wait:>9.2f}")


if __name__ == "__main__":
    main()
