"""Draws the figures again from the tables of a run. Usage: python figures/draw.py [the run's folder]"""

import importlib
import pkgutil
import sys
from pathlib import Path

from arvdm_theory import plots
from arvdm_theory.plots.style import Figures, draw_all


def figures_of(folder: Path) -> Figures:
    """The largest set of figures whose tables all lie there: two runs may call one of their tables the same."""
    names = [module.name for module in pkgutil.walk_packages(plots.__path__, f"{plots.__name__}.")]
    sets: list[Figures] = [getattr(importlib.import_module(name), "FIGURES", {}) for name in names]
    whole = [each for each in sets if all((folder / f"{table}.csv").exists() for table, _ in each.values())]
    return max(whole, key=len)


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/verify")
    figures = figures_of(folder)
    if not figures:
        sys.exit(f"{folder} holds no complete set of tables that figures are drawn from")
    print(*draw_all(folder, figures), sep="\n")
