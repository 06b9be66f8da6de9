"""Tables on a terminal by rich, loaded when one is shown; as plain columns where they are piped."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["show_table"]


def show_table(
    table: pd.DataFrame,
    number: Callable[[Any], str] = "{:.6g}".format,
    columns: Mapping[str, Callable[[Any], str]] | None = None,
    index: bool = False,
    missing: str = "-",
) -> None:
    """Prints a table.

    Args:
        table: to print.
        number: how floats are written, those of columns that ``columns`` does not name.
        columns: how the values of single columns are written.
        index: whether to print the index as the first column.
        missing: what stands for no value.
    """
    written = dict(columns or {})

    def plain(width: int | None = None) -> None:
        look: dict[str, Any] = {"index": index, "float_format": number, "na_rep": missing, "formatters": written}
        print(table.to_string(line_width=width, **look))

    if not sys.stdout.isatty():
        plain()
        return
    from rich.console import Console
    from rich.table import Table

    rows = table.reset_index() if index else table
    grid = Table(box=None, header_style="bold", pad_edge=False)
    for name in rows.columns:
        numeric = rows[name].dtype.kind in "if"
        grid.add_column(str(name), justify="right" if numeric else "left", no_wrap=numeric)
    for values in rows.itertuples(index=False):
        grid.add_row(*(
            missing if value is None or value != value
            else written[name](value) if name in written
            else number(value) if isinstance(value, float) else str(value)
            for name, value in zip(rows.columns, values, strict=True)
        ))  # fmt: skip
    console = Console(highlight=False)
    if Console(width=10_000).measure(grid).maximum > console.width:
        plain(console.width)  # in blocks of columns: no digit is cut off or put on a line of its own
    else:
        console.print(grid)
