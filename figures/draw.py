"""Draws every published figure again from the committed tables: figures/EXPERIMENT/NAME.png and its caption.

Usage: python figures/draw.py [EXPERIMENT ...]. Of a run of your own: ``arvdm figures RUN``.
"""

import sys
from pathlib import Path

from arvdm_theory.experiments import EXPERIMENTS
from arvdm_theory.report.style import draw_all

HERE = Path(__file__).parent
RESULTS = HERE.parent / "experiments" / "results"

if __name__ == "__main__":
    for name in sys.argv[1:] or EXPERIMENTS:
        folder = RESULTS / ("video" if name == "video-cost" else name)
        figures = {
            figure: each
            for figure, each in EXPERIMENTS[name].figures.items()
            if (folder / f"{each[0]}.csv").exists()
        }
        if figures:
            print(*draw_all(folder, figures, HERE / name), sep="\n")
