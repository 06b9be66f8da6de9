"""How many network evaluations a best grid saves at equal KL(clean), against uniform and the best grid by hand.

With the exact score, outpainting (w = Δ = 2, the last 4 frames, T = 6), K = 2 AR steps and M reverse steps in both
stages: the KL of all clean frames on every hand grid, and on the best one that was found, for every M. Saved is
what the smallest M whose best grid does as well is below M.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.interpolate import PchipInterpolator

from arvdm_theory.choose.schedules import hand_grids, objective_value, optimal_schedule, plan_floor
from arvdm_theory.experiments.record import Cell, run_cells
from arvdm_theory.experiments.videos import GAUSSIAN_VIDEOS
from arvdm_theory.laws.fitted import load_fitted
from arvdm_theory.laws.gaussian import GaussianVideo
from arvdm_theory.plan import Plan, References, outpainting

__all__ = ["BEST", "SIZES", "headline", "saved", "savings"]

BEST = "optimal"
"""What the table calls the grid that was found."""

SIZES = {"smoke": ("AR(1) 0.8",), "full": ("AR(1) 0.8", "reference", "hidden state", "long memory")}
"""Videos of known law; fitted ones are given as files."""

_AR_STEPS = 2
# The steps of the hand grids that are compared with: against uniform, and against the best of the eight.
_AGAINST: dict[str, tuple[int, ...]] = {"uniform": (10, 20), "best hand grid": (6, 8, 10)}
_MOST = {"smoke": 4, "full": 10}
# Beyond, hand grids alone are computed.
_BEYOND = (10, 12, 16, 20)
_ITERATIONS = 40


def _plan(steps: int) -> Plan:
    return outpainting(2, References.last(4), reverse_steps=steps, init_steps=steps, horizon=6.0)


def savings(size: str, folder: Path, fitted: Mapping[str, Path], progress: bool = True) -> pd.DataFrame:
    """The table of what is saved; ``savings-curves.csv`` has the KLs.

    Args:
        size: of :data:`SIZES`.
        folder: where the tables go.
        fitted: files of fitted videos, by the name that the table calls them.
        progress: whether to show a progress bar.
    """
    laws: dict[str, Callable[[], GaussianVideo]] = {name: GAUSSIAN_VIDEOS[name] for name in SIZES[size]}
    laws |= {name: partial(load_fitted, path) for name, path in fitted.items()}
    cells: list[Cell] = [{"video": name, "most": _MOST[size]} for name in laws]

    def compute(cell: Cell) -> pd.DataFrame:
        return _curves(laws[cell["video"]](), cell["most"])

    curves = run_cells("savings-curves", cells, compute, folder, progress=progress)
    videos: list[Cell] = [{"video": name} for name in laws]
    return run_cells("savings", videos, lambda cell: saved(curves, str(cell["video"])), folder, progress=False)


def _curves(video: GaussianVideo, most: int) -> pd.DataFrame:
    """KL(clean) on every grid for every M; a best grid starts from that of one step less, drawn out."""
    rows: list[tuple[int, str, float]] = []
    before: Plan | None = None
    floor = plan_floor(video, _plan(2), _AR_STEPS)
    rows.append((0, "floor", floor))
    needed = {steps for sizes in _AGAINST.values() for steps in sizes}
    for steps in sorted({*range(2, most + 1), *needed, *_BEYOND}):
        plan = _plan(steps)
        if steps > most:
            for name, each in hand_grids(plan).items():
                rows.append((steps, name, float(objective_value(video, each, _AR_STEPS))))
            continue
        start = plan if before is None else _drawn_out(before, plan)
        found = optimal_schedule(
            video, start, _AR_STEPS, iterations=_ITERATIONS, starts=("flow:1",) if before is None else ()
        )
        before = found.plan
        rows += [(steps, name, value) for name, value in found.baselines.items()]
        rows.append((steps, BEST, found.value))
    return pd.DataFrame(rows, columns=["reverse_steps", "grid", "kl"])


def _drawn_out(plan: Plan, longer: Plan) -> Plan:
    """A plan's levels as a function of the share of steps done, at those of a longer one."""
    grids = []
    for grid, like in ((plan.ar_grid, longer.ar_grid), (plan.init_grid, longer.init_grid)):
        levels = np.array([row[0] for row in grid])
        curve = PchipInterpolator(np.linspace(0, 1, len(levels)), levels)
        inner = np.clip(curve(np.linspace(0, 1, len(like)))[1:-1], 0.0, levels[0])
        drawn = [like[0], *((level,) * len(row) for level, row in zip(inner, like[1:-1], strict=True)), like[-1]]
        grids.append(tuple(drawn))
    return dataclasses.replace(longer, ar_grid=grids[0], init_grid=grids[1])


def saved(curves: pd.DataFrame, video: str) -> pd.DataFrame:
    """What is saved on one video: a row a grid that is compared with and a number of its steps.

    ``best_steps`` is the smallest M whose best grid has no larger KL; -1 (and no share saved) where none of those
    computed has. ``grid`` is the one that is compared with.
    """
    own = curves[curves.video == video]
    best = own[own.grid == BEST].sort_values("reverse_steps")
    rows = []
    for against, sizes in _AGAINST.items():
        for steps in sizes:
            hand = own[(own.reverse_steps == steps) & ~own.grid.isin([BEST, "floor"])].set_index("grid").kl
            grid = "uniform" if against == "uniform" else str(hand.idxmin())
            enough = best[best.kl <= hand[grid]].reverse_steps
            found = int(enough.min()) if len(enough) else -1
            rows.append(
                (against, steps, grid, float(hand[grid]), found, 1 - found / steps if found > 0 else np.nan)
            )
    return pd.DataFrame(rows, columns=["against", "steps", "grid", "kl", "best_steps", "saved"])


def headline(table: pd.DataFrame, names: Sequence[str] = ("uniform", "best hand grid")) -> str:
    """The share of evaluations saved, a row a video, and how many meet a half and a quarter."""
    wide = table.pivot_table(index="video", columns=["against", "steps"], values="saved", sort=False)
    lines = ["network evaluations saved at equal KL(clean):", wide.to_string(float_format="{:.0%}".format)]
    for name, goal in zip(names, (0.5, 0.25), strict=True):
        found = table[table.against == name].dropna(subset="saved")
        lines.append(f"at least {goal:.0%} against {name}: {(found.saved >= goal).sum()} of {len(found)}")
    return "\n".join(lines)
