"""Runs that can be trusted and resumed: cells kept one by one, tables with their provenance beside them.

A finished cell is one file, written whole: a line that says how many rows it has and the digest of all that is in
it, then its rows as CSV. A cell that does not agree with its own line (changed, cut short, another's) is computed
again, with a warning. Where cells are computed is :mod:`arvdm_theory.executors`' affair; two sweeps in one folder
share the work.
"""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from arvdm_theory.executors import executor
from arvdm_theory.files import atomic_path, locked, write_json
from arvdm_theory.provenance import provenance, source_digest, versions
from arvdm_theory.tables import read_table, write_table

__all__ = ["Cell", "run_cells"]

Cell = Mapping[str, Any]


def run_cells(
    name: str,
    cells: Sequence[Cell],
    compute: Callable[[Cell], pd.DataFrame],
    folder: Path,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Computes every cell, or reads it if an earlier run of the same source, config and seed finished it.

    An interrupted run loses only the cells it was in. The whole table lands as ``NAME.csv`` with
    ``NAME.provenance.json`` beside it, and is the same byte for byte (columns of seconds excepted) whether it was
    computed at once, resumed, or by any executor.

    Args:
        name: of the table.
        cells: one config a cell; a cell's keys become columns.
        compute: config → rows, a pure function. Its module's source, and that of all that it imports of this
            package, is part of what makes a cell what it is.
        folder: where the tables go; made if need be.
        seed: part of it, too.
        progress: whether to show a progress bar.
    """
    source = source_digest(_module(compute))
    kept = [_Kept(name, cell, seed, source, folder) for cell in cells]
    with tqdm(total=len(kept), desc=name, disable=not progress or None, leave=False) as bar:
        left = kept
        while left:
            left = _compute(left, compute, bar.update)
            if left:  # others are at these; what they have not finished when they end is ours
                with locked(left[0].path):
                    pass
    table = pd.concat([cell.table for cell in kept], ignore_index=True)
    write_table(table, folder / f"{name}.csv")
    write_json(folder / f"{name}.provenance.json", provenance({"cells": [dict(cell) for cell in cells]}, seed))
    return table


def _compute(
    kept: Sequence[_Kept], compute: Callable[[Cell], pd.DataFrame], tell: Callable[[], Any]
) -> list[_Kept]:
    """Reads or computes what nobody else is at, and returns the rest."""
    with ExitStack() as locks:
        held: dict[Path, ExitStack] = {}

        def free() -> Iterator[_Kept]:
            for cell in kept:
                if cell.read():
                    tell()
                    continue
                lock = ExitStack()
                if not lock.enter_context(locked(cell.path, wait=False)):
                    continue
                if cell.read():
                    lock.close()
                    tell()
                else:
                    held[cell.path] = locks.enter_context(lock)
                    yield cell

        for cell, rows in executor().run(partial(_rows, compute), free()):
            cell.write(rows)
            held.pop(cell.path).close()
            tell()
    return [cell for cell in kept if not cell.done]


def _rows(compute: Callable[[Cell], pd.DataFrame], cell: _Kept) -> pd.DataFrame:
    rows = compute(cell.cell)
    for position, (key, value) in enumerate(cell.cell.items()):
        rows.insert(position, key, value)
    return rows


def _module(compute: Callable[..., Any]) -> str:
    """The module that a function, a method, a partial or an object that can be called was written in."""
    while isinstance(compute, partial):
        compute = compute.func
    function = getattr(compute, "__func__", compute)
    return str(getattr(function, "__module__", None) or type(compute).__module__)


def _plain(value: Any) -> Any:
    """A number of NumPy's, which pandas hands out or not as its version likes, as the number that it is."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a cell's config holds plain values, got {type(value).__name__}")


class _Kept:
    """A cell and its file."""

    def __init__(self, name: str, cell: Cell, seed: int, source: str, folder: Path) -> None:
        self.cell = cell
        self.identity = json.dumps([name, dict(cell), seed, source, versions()], sort_keys=True, default=_plain)
        mark = hashlib.sha256(self.identity.encode()).hexdigest()[:16]
        self.path = folder / "cells" / f"{name}-{mark}.csv"
        self.table, self.done = pd.DataFrame(), False

    def read(self) -> bool:
        """Whether the file holds the cell, whose table is read then; a damaged one is told of and removed."""
        try:
            line, _, rows = self.path.read_bytes().partition(b"\n")
        except FileNotFoundError:
            return False
        if line != self._line(rows):
            warnings.warn(
                f"{self.path} is damaged or was changed since it was written: computed again", stacklevel=2
            )
            self.path.unlink(missing_ok=True)
            return False
        self.table, self.done = read_table(io.BytesIO(rows)), True
        return True

    def write(self, rows: pd.DataFrame) -> None:
        """Keeps the rows; they are read back, so that a table does not depend on who computed what when."""
        content = rows.to_csv(index=False).encode()
        with atomic_path(self.path) as temporary:
            temporary.write_bytes(self._line(content) + b"\n" + content)
        self.table, self.done = read_table(io.BytesIO(content)), True

    def _line(self, content: bytes) -> bytes:
        """What is held against the rows: changed numbers, lost rows, another cell's rows under this name."""
        digest = hashlib.sha256(self.identity.encode() + b"\n" + content).hexdigest()
        rows = len(pd.read_csv(io.BytesIO(content), usecols=[0])) if content.count(b"\n") > 1 else 0
        return json.dumps({"rows": rows, "sha256": digest}).encode()
