"""Who wins: the grid that is best for the fitted Gaussian against the best one by hand, seed by seed.

Usage: python -m arvdm_theory.experiments.schedules.ratios RUN; it reads schedules.csv there and writes
schedules-ratios.csv beside it.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import t as student

from arvdm_theory.files import write_json
from arvdm_theory.provenance import provenance
from arvdm_theory.tables import read_table, write_table

__all__ = ["ratios"]

_FOUND = ("kl", "girsanov")


def ratios(table: pd.DataFrame) -> pd.DataFrame:
    """A row a (video, M, quantity, grid that was found): its KL over that of the best hand grid, trained networks.

    The best hand grid is that of the smallest mean over seeds, so that chance favours it. ``ratio`` is the
    geometric mean over seeds, ``low`` and ``high`` its 95 % interval (Student's t of the logarithms).

    Args:
        table: ``schedules`` of :func:`arvdm_theory.experiments.schedules.run.run`.
    """
    rows = []
    trained = table[table.source == "trained"]
    for place, own in trained.groupby(["video", "reverse_steps", "quantity"], sort=False):
        wide = own.pivot_table(index="seed", columns="grid", values="value")
        best = str(wide.drop(columns=list(_FOUND)).mean().idxmin())
        for grid in _FOUND:
            logs = np.log(wide[grid] / wide[best])
            n = len(logs)
            half = student.ppf(0.975, n - 1) * float(logs.std()) / math.sqrt(n) if n > 1 else math.nan
            middle = float(logs.mean())
            rows.append((*place, grid, best, *(math.exp(middle + e) for e in (0.0, -half, half))))
    names = ["video", "reverse_steps", "quantity", "grid", "best_hand_grid", "ratio", "low", "high"]
    return pd.DataFrame(rows, columns=names)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    found = ratios(read_table(folder / "schedules.csv"))
    write_table(found, folder / "schedules-ratios.csv")
    write_json(folder / "schedules-ratios.provenance.json", provenance({"of": "schedules.csv"}, 0))
    print(found.to_string(float_format="{:.3f}".format))
