"""Draws the figures again from the tables of a run. Usage: python figures/draw.py [runs/verify]"""

import sys
from pathlib import Path

from arvdm_theory.plots.estimators import FIGURES as ESTIMATORS
from arvdm_theory.plots.style import draw_all
from arvdm_theory.plots.verify import FIGURES as VERIFY

if __name__ == "__main__":
    for path in draw_all(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/verify"), {**VERIFY, **ESTIMATORS}):
        print(path)
