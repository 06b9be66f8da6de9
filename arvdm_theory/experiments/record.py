"""Runs that can be trusted and resumed: cells written one by one, tables with their provenance beside them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from arvdm_theory.files import write_json
from arvdm_theory.provenance import provenance, versions
from arvdm_theory.tables import read_table, write_table

__all__ = ["Cell", "run_cells"]

Cell = Mapping[str, Any]


@cache
def _fingerprint() -> str:
    """A digest of the library's own source, but for what only draws tables or reads commands.

    Cells of another source are never taken for this one's.
    """
    package = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        place = path.relative_to(package)
        if place.parts[0] not in ("cli", "report") and not place.stem.endswith(("figure", "figures")):
            digest.update(place.as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def run_cells(
    name: str,
    cells: Sequence[Cell],
    compute: Callable[[Cell], pd.DataFrame],
    folder: Path,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Computes every cell, or reads it if an earlier run of the same source, config and seed finished it.

    A finished cell is one file, written atomically; an interrupted run loses only the cell it was in. The
    whole table lands as ``NAME.csv`` with ``NAME.provenance.json`` beside it.

    Args:
        name: of the table.
        cells: one config a cell; a cell's keys become columns.
        compute: config → rows.
        folder: where the tables go; made if need be.
        seed: part of what makes a cell what it is.
        progress: whether to show a progress bar.
    """
    store = folder / "cells"
    store.mkdir(parents=True, exist_ok=True)
    tables = []
    for cell in tqdm(cells, name, disable=not progress or None, leave=False):
        identity = json.dumps([name, dict(cell), seed, _fingerprint(), versions()], sort_keys=True)
        path = store / f"{name}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.csv"
        if path.exists():
            tables.append(read_table(path))
            continue
        rows = compute(cell)
        for position, (key, value) in enumerate(cell.items()):
            rows.insert(position, key, value)
        write_table(rows, path)
        tables.append(rows)
    table = pd.concat(tables, ignore_index=True)
    write_table(table, folder / f"{name}.csv")
    write_json(folder / f"{name}.provenance.json", provenance({"cells": [dict(cell) for cell in cells]}, seed))
    return table
