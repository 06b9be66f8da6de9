"""Evaluations saved: how they are read off curves, and curves that are the library's own."""

from __future__ import annotations

import itertools

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from arvdm_theory import ar1, objective_value
from arvdm_theory.choose.schedules import HAND_GRIDS, hand_grids
from arvdm_theory.experiments.savings import run as savings
from arvdm_theory.experiments.savings.figures import curves as figure


def _synthetic() -> pd.DataFrame:
    """KL falls like 8/M² by hand, twice as much uniformly, and 2/M² on the best grid: half the steps do."""
    rows = [("one", 0, "floor", 0.0)]
    for steps in range(2, 21):
        rows += [("one", steps, name, (16 if name == "uniform" else 9) / steps**2) for name in HAND_GRIDS]
        rows.append(("one", steps, "cosine", 8 / steps**2))
        if steps <= 10:
            rows.append(("one", steps, savings.BEST, 2 / steps**2))
    table = pd.DataFrame(rows, columns=["video", "reverse_steps", "grid", "kl"])
    return table.drop_duplicates(["reverse_steps", "grid"], keep="last")


def test_savings_are_read_off_the_curves() -> None:
    found = savings.saved(_synthetic(), "one").set_index(["against", "steps"])
    assert found.loc[("uniform", 10), "best_steps"] == 4  # 2/M² ≤ 16/100 from M = 3.54 on
    assert found.loc[("uniform", 20), "best_steps"] == 8
    assert found.loc[("uniform", 20), "saved"] == pytest.approx(0.6)
    for steps in (6, 8, 10):
        assert found.loc[("best hand grid", steps), "grid"] == "cosine"
        assert found.loc[("best hand grid", steps), "best_steps"] == steps / 2
    told = savings.headline(savings.saved(_synthetic(), "one").assign(video="one"))
    assert "at least 25% against best hand grid: 3 of 3" in told
    hard = _synthetic().assign(kl=lambda t: t.kl.where(t.grid != savings.BEST, 10.0))
    assert set(savings.saved(hard, "one").best_steps) == {-1}
    assert savings.saved(hard, "one").saved.isna().all()


def test_curves_are_the_library_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(savings, "_AGAINST", {"uniform": (4,), "best hand grid": (3,)})
    monkeypatch.setattr(savings, "_BEYOND", ())
    monkeypatch.setattr(savings, "_ITERATIONS", 8)
    found = savings._curves(ar1(0.8), 3).assign(video="AR(1) 0.8")
    best = found[found.grid == savings.BEST].set_index("reverse_steps").kl
    assert set(best.index) == {2, 3}
    for steps, name in itertools.product((3, 4), HAND_GRIDS):
        own = found[(found.reverse_steps == steps) & (found.grid == name)].kl.item()
        plan = hand_grids(savings._plan(steps))[name]
        assert own == pytest.approx(float(objective_value(ar1(0.8), plan, 2)), rel=1e-12)
        assert steps == 4 or best[steps] <= own
    plt.close(figure(found))


def test_levels_drawn_out_stay_a_plan() -> None:
    plan = hand_grids(savings._plan(4))["karras:7"]
    longer = savings._drawn_out(plan, savings._plan(7))
    column = [row[0] for row in longer.ar_grid]
    assert (column[0], column[-1]) == (6.0, 0.0)
    assert len(column) == 8
    assert all(a > b for a, b in itertools.pairwise(column))
