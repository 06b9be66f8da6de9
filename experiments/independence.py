"""How often the conditional independence test rejects, without dependence and with it, on named cases.

Usage: python experiments/independence.py [--size smoke|small|full] [--seed 0] [--nulls DRAWS]
                                          [--out runs/independence]

With --nulls only the level is counted, on every null of arvdm_theory.experiments.independence.nulls.

An interrupted run goes on where it stopped. The tables in experiments/results/independence/ and the picture
figures/independence/independence.png are copies of what ``--size full`` writes.
"""

import argparse
from pathlib import Path

from arvdm_theory.experiments import EXPERIMENTS
from arvdm_theory.experiments.independence.nulls import null_study
from arvdm_theory.experiments.independence.run import SIZES, independence_study
from arvdm_theory.report.style import draw_all

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--nulls", type=int, default=0, metavar="DRAWS", help="count these of each null instead")
    parser.add_argument("--out", type=Path, default=Path("runs/independence"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.nulls:
        print(null_study(args.nulls, args.out).to_string(index=False, float_format="{:.3f}".format))
        raise SystemExit
    table = independence_study(SIZES[args.size], args.out, args.seed)
    print(table.to_string(index=False, float_format="{:.3f}".format))
    for path in draw_all(args.out, EXPERIMENTS["independence"].figures):
        print(path)
