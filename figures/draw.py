"""Draws every published figure again from the committed tables: figures/EXPERIMENT/NAME.png and its caption.

Usage: python figures/draw.py [EXPERIMENT ...]. Of a run of your own: ``arvdm figures RUN``.
"""

import sys
from pathlib import Path

from arvdm_theory.experiments import EXPERIMENTS, TRAINED
from arvdm_theory.report.style import draw_all

HERE = Path(__file__).parent
RESULTS = HERE.parent / "experiments" / "results"
# Experiments whose tables lie with another's.
_ELSEWHERE = {"savings": "schedules", "video-cost": "video"}

if __name__ == "__main__":
    for name in sys.argv[1:] or EXPERIMENTS:
        folder = RESULTS / _ELSEWHERE.get(name, name)
        figures = {
            figure: each
            for figure, each in EXPERIMENTS[name].figures.items()
            if (folder / f"{each[0]}.csv").exists()
        }
        if not figures:
            continue
        for path in draw_all(folder, figures, HERE / name):
            if name in TRAINED:  # the committed tables are those of the preset for two cores
                preset = EXPERIMENTS[name].module("run").PRESETS["cpu"]
                caption = path.with_suffix(".txt")
                plans = [job.plan for job in EXPERIMENTS[name].module("run").networks(preset)]
                horizons = ", ".join(f"{value:g}" for value in sorted({plan.horizon for plan in plans}))
                told = (
                    f"n: {preset.rollouts} rollouts and {preset.samples} true videos; T = {horizons} "
                    "(the preset cpu).\n"
                )
                caption.write_text(caption.read_text(encoding="utf-8") + told, encoding="utf-8")
            print(path)
