"""All pictures of a sweep of networks on first-person video: its figures, and grids of films to look at."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from arvdm_theory.experiments.video.decay_figure import decay
from arvdm_theory.experiments.video.families_figure import NothingToDraw, saying_so
from arvdm_theory.experiments.video.grid_figure import draw_grid
from arvdm_theory.experiments.video.pareto_figure import pareto, price
from arvdm_theory.experiments.video.prediction_figure import prediction
from arvdm_theory.experiments.video.retrieval_figure import RETRIEVAL
from arvdm_theory.report.style import Figures, draw_all
from arvdm_theory.tables import read_table

__all__ = ["FIGURES", "draw_sweep"]

_ALL: Figures = {
    **RETRIEVAL,
    "video-decay": ("video-rollouts", decay),
    "video-prediction": ("video-summary", prediction),
    "video-pareto": ("video-summary", pareto),
    "video-price": ("video-summary", price),
}
_GRIDS = {"video-grid": "video-film", "video-rollout-grid": "video-rollout-film"}

# That of the price is of networks trained to see what compression costs, which have an experiment of their own.
FIGURES: Figures = saying_so({name: each for name, each in _ALL.items() if name != "video-price"})


def draw_sweep(folder: Path) -> list[Path]:
    """Draws what a sweep's tables in ``folder`` allow into ``folder/figures`` and returns the paths.

    A figure whose table is missing, or about networks that the sweep has none of, is left out.

    Raises:
        ValueError: if a table is not what a sweep writes.
    """
    drawn = []
    for name, (table, draw) in _ALL.items():
        if (folder / f"{table}.csv").exists():
            with suppress(NothingToDraw):
                drawn += draw_all(folder, {name: (table, draw)})
    for name, table in _GRIDS.items():
        if (folder / f"{table}.csv").exists():
            target = folder / "figures" / f"{name}.mp4"
            target.parent.mkdir(exist_ok=True)
            draw_grid(read_table(folder / f"{table}.csv"), target)
            drawn.append(target)
    return drawn
