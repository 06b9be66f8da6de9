"""What a README says of an experiment, as numbers with intervals: computed from its tables, never written by hand.

An experiment that states conclusions has ``findings.py`` with ``findings(tables)``, which returns rows that
:func:`exact`, :func:`measured`, :func:`ratio` and :func:`count` make. They lie as ``NAME-findings.csv`` beside the
tables that they come from; ``arvdm experiment`` writes them.

Usage, of tables that are there: python -m arvdm_theory.experiments.findings NAME FOLDER
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from arvdm_theory.experiments import EXPERIMENTS
from arvdm_theory.files import read_json, write_json
from arvdm_theory.number import half_width
from arvdm_theory.provenance import provenance
from arvdm_theory.tables import read_table, write_table
from arvdm_theory.video.intervals import cluster_rate

__all__ = ["Finding", "count", "exact", "measured", "ratio", "write_findings"]

Pair = tuple[float, float]


class Finding(NamedTuple):
    """A number with its 95 % interval, NaN if it has none; a count is ``of`` so many, the interval its share's."""

    finding: str
    value: float
    low: float = math.nan
    high: float = math.nan
    of: float = math.nan


def exact(finding: str, value: float) -> Finding:
    """What has no error of its own: a closed form, or an extreme of rows that have theirs."""
    return Finding(finding, float(value))


def measured(finding: str, value: float, stderr: float) -> Finding:
    """A value with ± 1.96 standard errors."""
    return Finding(finding, float(value), float(value - half_width(stderr)), float(value + half_width(stderr)))


def ratio(finding: str, above: Pair, below: Pair) -> Finding:
    """A ratio of two independent values with their standard errors, both positive, by those of the logarithms."""
    value = above[0] / below[0]
    spread = math.exp(half_width(math.hypot(above[1] / above[0], below[1] / below[0])))
    return Finding(finding, value, value / spread, value * spread)


def count(finding: str, hits: int, of: int) -> Finding:
    """How many of how many; the interval is of the share (Clopper and Pearson), as if cases were independent."""
    share = cluster_rate([True] * hits + [False] * (of - hits), range(of))
    return Finding(finding, float(hits), share.ci_low, share.ci_high, float(of))


def write_findings(name: str, folder: Path) -> Path | None:
    """Writes ``NAME-findings.csv`` and its provenance from the tables in a folder; None if it has no findings.

    The provenance is of the code that computed them; which tables they are of, and the commits of those, is its
    config.
    """
    own = EXPERIMENTS[name]
    if not own.concludes:
        return None
    tables = {path.stem: path for path in sorted(folder.glob("*.csv")) if not path.stem.endswith("-findings")}
    rows: Iterable[Finding] = own.module("findings").findings(
        {table: read_table(path) for table, path in tables.items()}
    )
    place = folder / f"{name}-findings.csv"
    write_table(pd.DataFrame(rows, columns=list(Finding._fields)), place)
    told: Mapping[str, str | None] = {
        table: read_json(beside).get("commit")
        for table, path in tables.items()
        if (beside := path.with_suffix(".provenance.json")).exists()  # pictures have none of their own
    }
    write_json(place.with_suffix(".provenance.json"), provenance({"of": dict(told)}, 0))
    return place


if __name__ == "__main__":
    name, folder = sys.argv[1:]
    print(write_findings(name, Path(folder)))
