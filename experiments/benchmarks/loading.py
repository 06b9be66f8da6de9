"""How long a training step on first-person video waits for its batch, and how much of a data set is in memory.

    python experiments/benchmarks/loading.py [--preset cpu] [--repeats 5] [--steps 40] [--clips 100] [--store DIR]

First table, for every data set of the preset, simulated and decoded once: a training step of a network with cross
attention to its memory, on one thread of the CPU. ``waiting`` is the share of it that is spent in the sampler's
``draw``: ``reading`` in the source's ``draw`` (pictures and poses out of the cache), ``noising`` in all the rest.
Numbers are medians over repeats; the least and the most share of a repeat stand behind.

Second table, on Linux: what a fresh process holds (resident memory, beyond that of the imports) after it opened a
simulated data set of clips of 300 frames of 64 x 64, after it read one of them, and after it read them all.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from arvdm_theory.interfaces import VideoBatch
from arvdm_theory.training.sources import data_moments
from arvdm_theory.training.state import start_state
from arvdm_theory.training.windows import WindowSampler
from arvdm_theory.video.data_sets import Episodes
from arvdm_theory.video.runs import VideoRun
from arvdm_theory.video.simulators.trajectories import Trajectory
from arvdm_theory.video.windows import WindowSource

FRAMES, SIZE = 300, 64
WALK = Trajectory("walk", frames=FRAMES)


class Timed:
    """Adds up the seconds that the source needs for its batches."""

    def __init__(self, inner: WindowSource) -> None:
        self.inner, self.frame_shape, self.action_dim = inner, inner.frame_shape, inner.action_dim
        self.seconds = 0.0

    def draw(self, videos: int, frames: int, generator: torch.Generator) -> VideoBatch:
        start = time.perf_counter()
        batch = self.inner.draw(videos, frames, generator)
        self.seconds += time.perf_counter() - start
        return batch


def training(run: VideoRun, store: Path, repeats: int, steps: int) -> list[tuple[float, float, float]]:
    """Seconds a step inside the source, inside the sampler and in all, of every repeat after one to warm up."""
    inner = run.source("train", store)
    config, source = run.training, Timed(inner)
    mean, scale = data_moments(inner, run.windows.total_frames)
    state = start_state(run.network(inner.frame_shape[-1], inner.action_dim, mean, scale), config)
    sampler = WindowSampler(
        run.windows.plan, config.ar_steps, source, levels=config.levels, init_share=config.init_share,
        weighting=config.weighting, precision=state.network.output_precision, step=config.reverse_step,
        first_ar_step=config.first_ar_step,
    )  # fmt: skip
    found = []
    for repeat in range(repeats + 1):
        source.seconds, drawing, begin = 0.0, 0.0, time.perf_counter()
        for step in range(1 + repeat * steps, 1 + (repeat + 1) * steps):
            mark = time.perf_counter()
            batch = sampler.draw(config.batch, config.seed, step)
            drawing += time.perf_counter() - mark
            # The update of the training loop.
            for group in state.optimiser.param_groups:
                group["lr"] = config.rate(step)
            loss = batch.loss(state.network(batch.window, batch.levels, batch.references))
            state.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(state.network.parameters(), config.grad_clip)
            state.optimiser.step()
            state.update_average(config.decay(step))
        if repeat:
            found.append((source.seconds / steps, drawing / steps, (time.perf_counter() - begin) / steps))
    return found


def resident(name: str = "VmRSS") -> float:
    """Resident memory of this process in MiB; ``VmHWM`` is the most there ever was."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def held(store: Path, clips: int) -> dict[str, float]:
    """MiB that this process holds beyond what it began with; the data set is there already."""
    _ = np.zeros(1000, np.uint8).sum()  # what NumPy loads for its first sum is no clip
    before = resident()
    episodes = Episodes("dmlab", SIZE, WALK, clips, 0).load("train", store, progress=False)
    opened, most_opening = resident() - before, resident("VmHWM") - before
    checked = int(episodes.frames[clips // 2].sum())
    read, most = resident() - before, resident("VmHWM") - before
    checked += sum(int(frames.sum()) for frames in episodes.frames)
    assert checked > 0
    return {
        "opened": opened, "most so far": most_opening, "read one clip": read, "most until then": most,
        "read every clip": resident() - before,
    }  # fmt: skip


def memory(store: Path, clips: int) -> None:
    episodes = Episodes("dmlab", SIZE, WALK, clips, 0).load("train", store)
    clip = episodes.frames[0].nbytes / 2**20
    print(f"\n{clips} clips of {FRAMES} frames of {SIZE} x {SIZE}: {clip * clips:.1f} MiB, {clip:.2f} MiB each")
    # The peak of a process includes all that it ever did, so that another one reads.
    words = [sys.executable, __file__, "--held", "--clips", str(clips), "--store", str(store)]
    found = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    print(f"{'':<16} {'MiB':>8} {'of the data set':>16}")
    for name, value in found.items():
        print(f"{name:<16} {value:>8.1f} {value / (clip * clips):>16.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument(
        "--store", type=Path, help="folder for the data, to be used again; left out, a temporary one"
    )
    parser.add_argument("--held", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.held:
        print(json.dumps(held(args.store, args.clips)))
        return
    with tempfile.TemporaryDirectory() as name:
        store = args.store or Path(name)
        print(f"{'data':<10} {'step ms':>8} {'reading ms':>11} {'noising ms':>11} {'waiting':>8}   least    most")
        for data in ("dmlab", "minecraft"):
            found = training(
                VideoRun(data=data, preset=args.preset, device="cpu"), store, args.repeats, args.steps
            )
            reading, drawing, step = (1e3 * statistics.median(values) for values in zip(*found, strict=True))
            shares = sorted(drawn / whole for _, drawn, whole in found)
            ends = f"{statistics.median(shares):>8.1%} {shares[0]:>7.1%} {shares[-1]:>7.1%}"
            print(f"{data:<10} {step:>8.2f} {reading:>11.2f} {drawing - reading:>11.2f} {ends}")
        memory(store / f"{args.clips}-clips", args.clips)


if __name__ == "__main__":
    main()
