"""How often the conditional independence test rejects, without dependence and with it, on named cases.

Usage: python experiments/independence.py [--size smoke|small|full] [--seed 0] [--nulls DRAWS]
                                          [--out runs/independence] [--publish experiments/results/independence]

With --nulls only the level is counted, on every null of arvdm_theory.experiments.independence.nulls.

An interrupted run goes on where it stopped; ``--workers`` and ``--dask`` are those of ``arvdm verify``.
With --publish the tables and their provenance are copied there;
figures/draw.py draws the published picture from them.
"""

import argparse
from pathlib import Path

from arvdm_theory.cli.arguments import add_executor
from arvdm_theory.executors import executing
from arvdm_theory.experiments import EXPERIMENTS
from arvdm_theory.experiments.independence.nulls import null_study
from arvdm_theory.experiments.independence.run import SIZES, independence_study
from arvdm_theory.provenance import require_clean
from arvdm_theory.report.style import draw_all, publish
from arvdm_theory.signals import terminable

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--nulls", type=int, default=0, metavar="DRAWS", help="count these of each null instead")
    parser.add_argument("--out", type=Path, default=Path("runs/independence"))
    parser.add_argument("--publish", type=Path, help="folder to copy the finished tables to")
    add_executor(parser)
    args = parser.parse_args()
    if args.publish:
        require_clean()
    args.out.mkdir(parents=True, exist_ok=True)
    with terminable(), executing(args.workers, args.dask):
        if args.nulls:
            table = null_study(args.nulls, args.out)
        else:
            table = independence_study(SIZES[args.size], args.out, args.seed)
    print(table.to_string(index=False, float_format="{:.3f}".format))
    if not args.nulls:
        print(*draw_all(args.out, EXPERIMENTS["independence"].figures), sep="\n")
    if args.publish:
        publish([*args.out.glob("*.csv"), *args.out.glob("*.provenance.json")], args.publish)
