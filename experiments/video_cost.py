"""Time and peak memory of a generated frame against the number of remembered frames, for every memory structure.

Usage: python experiments/video_cost.py [--data dmlab] [--preset cpu] [--plan outpainting] [--memory-frames 1 8 32]
    [--videos 16] [--repeats 15] [--device auto] [--threads 1] [--seed 0] [--out runs/video-cost] [--publish]

An interrupted run goes on where it stopped. ``--publish`` copies the table to experiments/results/video/ and the
picture to figures/video-cost/; those there are of the defaults, on one core.
"""

import argparse
from pathlib import Path

import torch

from arvdm_theory.experiments.video_cost.figures import FIGURES
from arvdm_theory.experiments.video_cost.run import CostConfig, video_cost
from arvdm_theory.provenance import require_clean
from arvdm_theory.report.style import draw_all, publish
from arvdm_theory.video.simulators import SIMULATORS

RESULTS, PICTURES = Path("experiments/results/video"), Path("figures/video-cost")

if __name__ == "__main__":
    default = CostConfig()
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--data", choices=list(SIMULATORS), default=default.data)
    parser.add_argument("--preset", default=default.preset)
    parser.add_argument("--plan", choices=("outpainting", "fifo"), default=default.plan)
    parser.add_argument("--memory-frames", type=int, nargs="+", default=list(default.memory_frames))
    parser.add_argument("--videos", type=int, default=default.videos)
    parser.add_argument("--repeats", type=int, default=default.repeats)
    parser.add_argument("--device", choices=("auto", "cuda", "mps", "cpu"), default=default.device)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/video-cost"))
    parser.add_argument("--publish", action="store_true")
    args = parser.parse_args()
    if args.publish:
        require_clean()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    config = CostConfig(
        args.data, args.preset, args.plan, args.memory_frames, videos=args.videos, repeats=args.repeats,
        device=args.device,
    )  # fmt: skip
    table = video_cost(config, args.out, args.seed)
    shown = [
        "memory", "compression", "compress", "memory_frames", "weights", "seconds_frame", "ratio", "cpu_ratio",
        "peak_mib",
    ]  # fmt: skip
    print(table[shown].to_string(index=False, float_format="{:.4g}".format))
    drawn = draw_all(args.out, FIGURES)
    print(*drawn, sep="\n")
    if args.publish:
        publish([path for path in sorted(args.out.glob("video-cost.*")) if path.is_file()], RESULTS)
        publish(drawn, PICTURES)
