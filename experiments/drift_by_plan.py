"""How much rollouts of trained video networks lose by drift, plan by plan.

Usage: python experiments/drift_by_plan.py [--size one|cpu] [--out runs/drift-by-plan] [--publish]

An interrupted run goes on where it stopped. ``--publish`` copies the table to experiments/results/drift-by-plan/
and the picture to figures/drift-by-plan/.
"""

import argparse
from pathlib import Path

from arvdm_theory.experiments.drift_by_plan.figures import FIGURES
from arvdm_theory.experiments.drift_by_plan.run import SIZES, drift_by_plan, headline
from arvdm_theory.experiments.findings import write_findings
from arvdm_theory.provenance import require_clean
from arvdm_theory.report.style import draw_all, publish

RESULTS, PICTURES = Path("experiments/results/drift-by-plan"), Path("figures/drift-by-plan")

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--size", choices=tuple(SIZES), default="cpu")
    parser.add_argument("--out", type=Path, default=Path("runs/drift-by-plan"))
    parser.add_argument("--publish", action="store_true")
    args = parser.parse_args()
    if args.publish:
        require_clean()
    args.out.mkdir(parents=True, exist_ok=True)
    print(headline(drift_by_plan(args.size, args.out)))
    write_findings("drift-by-plan", args.out)
    drawn = draw_all(args.out, FIGURES)
    print(*drawn, sep="\n")
    if args.publish:
        publish([path for path in sorted(args.out.glob("drift-by-plan*.*")) if path.is_file()], RESULTS)
        publish([each for path in drawn for each in (path, path.with_suffix(".txt"))], PICTURES)
