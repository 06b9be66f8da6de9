"""Every estimator, and three other packages, on samples whose information is known.

Usage: python experiments/estimator_benchmark.py [--size smoke|small|full|report] [--hard SEEDS]
                                                 [--out runs/estimators] [--publish experiments/results/estimators]

With --hard only the default runs, on the hard tasks: samples as people have them, and laws that fool estimators.

An interrupted run goes on where it was; ``--workers`` and ``--dask`` are those of ``arvdm verify``.
The other packages (ennemi, infomeasure, NPEET-plus) run if they are installed; see the extra ``bench``. With
--publish the tables and their provenance are copied there, and the figures drawn from them to figures/estimators.
"""

import argparse
from pathlib import Path

from arvdm_theory.cli.arguments import add_executor
from arvdm_theory.executors import executing
from arvdm_theory.experiments.estimators.figures import FIGURES
from arvdm_theory.experiments.estimators.hard_run import hard, hard_summary
from arvdm_theory.experiments.estimators.run import (
    SIZES,
    benchmark,
    comparison,
    cost,
    coverage,
    coverage_summary,
    summary,
)
from arvdm_theory.provenance import require_clean
from arvdm_theory.report.style import draw_all, publish
from arvdm_theory.signals import terminable
from arvdm_theory.tables import write_table

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--out", type=Path, default=Path("runs/estimators"))
    parser.add_argument(
        "--hard", type=int, default=0, metavar="SEEDS", help="the hard tasks, on so many seeds each"
    )
    parser.add_argument("--publish", type=Path, help="folder to copy the finished tables to")
    parser.add_argument("--figures", type=Path, default=Path("figures/estimators"), help="and the pictures to")
    add_executor(parser)
    args = parser.parse_args()
    if args.publish:
        require_clean()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.hard:
        with terminable(), executing(args.workers, args.dask):
            hard_table = hard_summary(hard(args.hard, args.out))
        write_table(hard_table, args.out / "hard_summary.csv")
        print(hard_table.to_string(index=False, float_format="{:.3f}".format, na_rep="-"))
        if args.publish:
            publish([*args.out.glob("hard*.csv"), args.out / "hard.provenance.json"], args.publish)
        raise SystemExit
    size = SIZES[args.size]
    with terminable(), executing(args.workers, args.dask):
        estimates = benchmark(size, args.out)
        intervals = coverage(size, args.out)
    tables = {
        "summary": summary(estimates),
        "comparison": comparison(estimates),
        "cost": cost(estimates),
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
