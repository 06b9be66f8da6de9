"""Every estimator, and three other packages, on samples whose information is known.

Usage: python experiments/estimator_benchmark.py [--size smoke|small|full|report] [--out runs/estimators]
                                                 [--publish experiments/results/estimators]

An interrupted run goes on where it was. The other packages (ennemi, infomeasure, NPEET-plus) run if they are
installed; see the extra ``bench``. With --publish the tables and their provenance are copied there, and the
figures drawn from them to figures/.
"""

import argparse
from pathlib import Path

from arvdm_theory.experiments.estimators.figures import FIGURES
from arvdm_theory.experiments.estimators.run import (
    SIZES,
    benchmark,
    comparison,
    coverage,
    coverage_summary,
    summary,
)
from arvdm_theory.report.style import draw_all, publish
from arvdm_theory.tables import write_table

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--out", type=Path, default=Path("runs/estimators"))
    parser.add_argument("--publish", type=Path, help="folder to copy the finished tables to")
    parser.add_argument("--figures", type=Path, default=Path("figures"), help="and the pictures to")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    size = SIZES[args.size]
    estimates = benchmark(size, args.out)
    intervals = coverage(size, args.out)
    tables = {
        "summary": summary(estimates),
        "comparison": comparison(estimates),
        "coverage_summary": coverage_summary(intervals),
    }
    for name, table in tables.items():
        write_table(table, args.out / f"{name}.csv")
        print(table.to_string(index=False, float_format="{:.4f}".format, na_rep="-"), end="\n\n")
    drawn = draw_all(args.out, FIGURES)
    print(*drawn, sep="\n")
    if args.publish:
        publish([*args.out.glob("*.csv"), *args.out.glob("*.provenance.json")], args.publish)
        publish(drawn, args.figures)
