"""Tables as CSV files: written whole, read back bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import pandas as pd

from arvdm_theory.files import atomic_path, regular_file

__all__ = ["read_table", "write_table"]

# From version 3 on pandas reads floats exactly by itself, and warns where it is asked to.
_EXACT: dict[str, Any] = {} if int(pd.__version__.split(".")[0]) >= 3 else {"float_precision": "round_trip"}


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Writes a table as CSV, atomically and at full float precision."""
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False)


def read_table(path: str | Path | IO[bytes]) -> pd.DataFrame:
    """Reads a table back as it was written, floats bit for bit.

    Raises:
        ValueError: if it is not a table.
        OSError: if it cannot be read.
    """
    try:
        source = regular_file(path) if isinstance(path, str | Path) else path
        table: pd.DataFrame = pd.read_csv(source, **_EXACT)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a table that a run wrote") from error
    return table
