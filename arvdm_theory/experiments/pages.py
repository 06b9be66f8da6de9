"""The page of an experiment: what it found in words, its tables and its figures, as
:mod:`arvdm_theory.report.page`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from arvdm_theory.number import Number
from arvdm_theory.report.page import Picture, Report, Section, write_report

__all__ = ["write_page"]

# Of longer tables the page shows so many rows; the file holds all.
_ROWS = 40


def write_page(
    folder: Path,
    title: str,
    summary: Sequence[str],
    listing: str,
    tables: Mapping[str, pd.DataFrame],
    pictures: Sequence[Path],
    command: str,
    made: Mapping[str, Any],
    drawn_from: Mapping[str, str] | None = None,
) -> Path:
    """Writes ``report.html`` and ``report.json`` beside an experiment's tables; returns the page's path.

    Args:
        folder: where its tables lie.
        title: of the page.
        summary: in plain words.
        listing: what the command printed.
        tables: by the name of their file; of a table with ``value`` and ``stderr`` both stand in one column.
        pictures: drawn figures.
        command: that made it all.
        made: the provenance.
        drawn_from: of figures by name, the table.
    """
    sections = [Section("What was found", listing=listing, command=command)]
    for path in pictures:
        table = (drawn_from or {}).get(path.stem)
        caption = f"{_words(path.stem)}" + (f"; drawn from {table}.csv" if table else "")
        sections.append(Section(_words(path.stem), pictures=[Picture(path, caption, path.stem)], command=command))
    for name, rows in tables.items():
        shown = _with_errors(rows.head(_ROWS))
        more = f", the first {_ROWS} of {len(rows)} rows" if len(rows) > _ROWS else f", {len(rows)} rows"
        sections.append(
            Section(f"Table: {_words(name)}", table=shown, caption=f"{name}.csv{more}", command=command)
        )
    return write_report(Report(title, summary, sections, made), folder)[0]


def _words(name: str) -> str:
    said = name.replace("_", " ").replace("-", " ")
    return said[:1].upper() + said[1:]


def _with_errors(table: pd.DataFrame) -> pd.DataFrame:
    """``value`` and ``stderr``, and their interval, as one number; not a number where there is none."""
    if not {"value", "stderr"} <= set(table.columns):
        return table
    merged = []
    for row in table.to_dict("records"):
        value, error = float(row["value"]), float(row["stderr"])
        low, high = (float(row.get(key, np.nan)) for key in ("ci_low", "ci_high"))
        merged.append(Number.stated(value, error, low, high, method=str(row.get("form", "")), n=0))
    kept = table.drop(columns=[name for name in ("stderr", "ci_low", "ci_high") if name in table])
    return kept.assign(value=pd.Series(merged, index=table.index, dtype=object))
