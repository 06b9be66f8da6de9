"""Draws the figures again from the tables of a run. Usage: python figures/draw.py [the run's folder]"""

import importlib
import pkgutil
import sys
from pathlib import Path

from arvdm_theory import experiments
from arvdm_theory.report.style import Figures, draw_all


def figures_of(folder: Path) -> Figures:
    """The largest set of figures whose tables all lie there: two runs may call one of their tables the same."""
    names = [module.name for module in pkgutil.walk_packages(experiments.__path__, f"{experiments.__name__}.")]
    drawn = [name for name in names if name.endswith(("figure", "figures"))]
    sets: list[Figures] = [getattr(importlib.import_module(name), "FIGURES", {}) for name in drawn]
    whole = [each for each in sets if all((folder / f"{table}.csv").exists() for table, _ in each.values())]
    return max(whole, key=len)


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/verify")
    figures = figures_of(folder)
    if not figures:
        sys.exit(f"{folder} holds no complete set of tables that figures are drawn from")
    print(*draw_all(folder, figures), sep="\n")
