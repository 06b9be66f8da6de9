"""Network evaluations that the best grids save at equal KL(clean), on videos of known law and on fitted ones.

Usage: python experiments/savings.py [--size full] [--fitted NAME=FITTED.npz ...] [--out runs/savings] [--publish]

A fitted video is what `arvdm fit CLIP... --out FITTED.npz` writes. An interrupted run goes on where it stopped;
``--workers`` and ``--dask`` are those of ``arvdm verify``.
``--publish`` copies the tables to experiments/results/schedules/ and the picture to figures/savings/.
"""

import argparse
from pathlib import Path

from arvdm_theory.cli.arguments import add_executor
from arvdm_theory.executors import executing
from arvdm_theory.experiments.savings.figures import FIGURES
from arvdm_theory.experiments.savings.run import SIZES, headline, savings
from arvdm_theory.report.style import draw_all, publish
from arvdm_theory.signals import terminable

RESULTS, PICTURES = Path("experiments/results/schedules"), Path("figures/savings")

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--size", choices=tuple(SIZES), default="full")
    parser.add_argument("--fitted", metavar="NAME=FITTED.npz", nargs="*", default=[])
    parser.add_argument("--out", type=Path, default=Path("runs/savings"))
    parser.add_argument("--publish", action="store_true")
    add_executor(parser)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    fitted = {name: Path(path) for name, _, path in (text.partition("=") for text in args.fitted)}
    with terminable(), executing(args.workers, args.dask):
        print(headline(savings(args.size, args.out, fitted)))
    drawn = draw_all(args.out, FIGURES)
    print(*drawn, sep="\n")
    if args.publish:
        publish([path for path in sorted(args.out.glob("savings*.*")) if path.is_file()], RESULTS)
        publish(drawn, PICTURES)
