"""Who wins: ratios seed by seed, with their interval."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from arvdm_theory.experiments.schedules.ratios import ratios


def test_ratios_are_geometric_means_over_seeds_against_the_best_by_hand() -> None:
    values = {
        "uniform": (8.0, 9.0, 10.0),
        "cosine": (2.0, 4.0, 4.0),
        "kl": (1.0, 1.0, 2.0),
        "girsanov": (4.0, 8.0, 8.0),
    }
    rows = [
        ("one", 3, grid, seed, "clip_kl", source, value * (1 if source == "trained" else 100))
        for grid, of in values.items()
        for seed, value in enumerate(of)
        for source in ("trained", "exact")
    ]
    columns = ["video", "reverse_steps", "grid", "seed", "quantity", "source", "value"]
    found = ratios(pd.DataFrame(rows, columns=columns)).set_index("grid")
    assert set(found.best_hand_grid) == {"cosine"}
    assert found.ratio["girsanov"] == pytest.approx(2.0)
    assert found.low["girsanov"] == pytest.approx(2.0)
    # Logarithms -log 2, -2 log 2, -log 2: mean -4/3 log 2, spread log 2/√3, t = 4.3027 on two degrees of freedom.
    half = 4.302653 * math.log(2) / 3
    assert found.ratio["kl"] == pytest.approx(2 ** (-4 / 3))
    assert found.high["kl"] == pytest.approx(2 ** (-4 / 3) * math.exp(half), rel=1e-6)
    assert found.low["kl"] == pytest.approx(2 ** (-4 / 3) * math.exp(-half), rel=1e-6)
