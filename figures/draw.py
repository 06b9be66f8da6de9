"""Draws the figures again from the tables of a run. Usage: python figures/draw.py [the run's folder]"""

import sys
from pathlib import Path

from arvdm_theory.experiments import EXPERIMENTS
from arvdm_theory.report.style import Figures, draw_all


def figures_of(folder: Path) -> Figures:
    """Of the experiment that most figures can be drawn of, these: two may call one of their tables the same."""
    sets = [
        {name: (table, draw) for name, (table, draw) in each.figures.items() if (folder / f"{table}.csv").exists()}
        for each in EXPERIMENTS.values()
    ]
    return max(sets, key=len)


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/verify")
    figures = figures_of(folder)
    if not figures:
        sys.exit(f"{folder} holds none of the tables that figures are drawn from")
    print(*draw_all(folder, figures), sep="\n")
