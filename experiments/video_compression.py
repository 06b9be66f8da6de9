"""What a compressed memory retrieves on first-person video, and what it costs.

Usage: arvdm video sweep --suite farthest --rollouts --no-nats --out runs/video-compression
    python experiments/video_compression.py [--out runs/video-compression] [--publish]

The sweep trains the networks; this sets them beside one another. ``--publish`` copies the tables of both to
experiments/results/video-compression/ and the picture to figures/video-compression/.
"""

import argparse
from pathlib import Path

from arvdm_theory.experiments.findings import write_findings
from arvdm_theory.experiments.video.suites import suite
from arvdm_theory.experiments.video_compression.figures import FIGURES
from arvdm_theory.experiments.video_compression.run import headline, prices, width
from arvdm_theory.provenance import require_clean
from arvdm_theory.report.style import draw_all, publish
from arvdm_theory.video.runs import VideoRun

RESULTS, PICTURES = Path("experiments/results/video-compression"), Path("figures/video-compression")

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, default=Path("runs/video-compression"))
    parser.add_argument("--publish", action="store_true")
    args = parser.parse_args()
    if args.publish:
        require_clean()
    print(headline(prices(suite(["farthest"]), args.out)))
    width(VideoRun(preset="cpu-farthest", worlds=1), (16, 64, 256), args.out)
    write_findings("video-compression", args.out)
    drawn = draw_all(args.out, FIGURES)
    print(*drawn, sep="\n")
    if args.publish:
        publish([*args.out.glob("video*.csv"), *args.out.glob("video*.provenance.json")], RESULTS)
        publish([each for path in drawn for each in (path, path.with_suffix(".txt"))], PICTURES)
