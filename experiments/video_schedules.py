"""Best grids and noise profiles, found on a fitted Gaussian video, with networks on first-person video.

Usage: python experiments/video_schedules.py [--size cpu] [--only dmlab] [--out DIR] [--publish DIR]

Trains three networks, and two more a world for the noise profiles: about two minutes of one core each. An
interrupted run goes on where it stopped. ``--publish`` copies the tables to experiments/results/video-schedules
under DIR and the pictures to figures/video-schedules there.
"""

import argparse
from pathlib import Path

from arvdm_theory.experiments.video_schedules.figures import FIGURES
from arvdm_theory.experiments.video_schedules.run import SIZES, headline, video_schedules
from arvdm_theory.report.style import draw_all, publish

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--size", choices=tuple(SIZES), default="cpu")
    parser.add_argument("--only", choices=("dmlab", "minecraft"), default=None)
    parser.add_argument("--out", type=Path, default=None, help="default: runs/video-schedules-SIZE")
    parser.add_argument("--publish", metavar="DIR", type=Path, default=None)
    args = parser.parse_args()
    out = args.out or Path(f"runs/video-schedules-{args.size}")
    out.mkdir(parents=True, exist_ok=True)
    print(headline(video_schedules(args.size, out, only=args.only)))
    drawn = draw_all(out, FIGURES)
    print(*drawn, sep="\n")
    if args.publish is not None:
        tables = [path for path in sorted(out.glob("video-schedules*.*")) if path.is_file()]
        publish(tables, args.publish / "experiments/results/video-schedules")
        publish(drawn, args.publish / "figures/video-schedules")
