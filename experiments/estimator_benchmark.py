"""Every estimator, and three other packages, on samples whose information is known.

Usage: python experiments/estimator_benchmark.py [--size smoke|small|full] [--out runs/estimators]

The other packages (ennemi, infomeasure, NPEET-plus) run if they are installed; see the extra ``bench``.
"""

import argparse
from pathlib import Path

from arvdm_theory.plots.estimators import FIGURES
from arvdm_theory.plots.style import draw_all
from arvdm_theory.studies.estimators import SIZES, benchmark, coverage, independence, summary

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--out", type=Path, default=Path("runs/estimators"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    size = SIZES[args.size]
    shown = summary(benchmark(size, args.out))
    print(shown.to_string(index=False, float_format="{:.4f}".format, na_rep="-"))
    intervals = coverage(size, args.out)
    print(intervals.groupby(["task", "method"], sort=False).covered.agg(["mean", "count"]).to_string())
    tests = independence(size, args.out)
    print(tests.groupby(["case", "strength"], sort=False).rejected.agg(["mean", "count"]).to_string())
    for path in draw_all(args.out, FIGURES):
        print(path)
