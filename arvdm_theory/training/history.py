"""What a run logs: a CSV that a killed process cannot spoil, and TensorBoard's scalars."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import pandas as pd

from arvdm_theory.files import atomic_path

__all__ = ["COLUMNS", "History"]

COLUMNS = ("step", "loss", "lr", "grad_norm", "seconds")


class History:
    """Rows of ``COLUMNS`` in ``history.csv``, each written when it is made.

    The file is written anew from the rows of the checkpoint that the run goes on from: rows made behind it are
    made again, and what became of the file meanwhile does not matter.

    Args:
        folder: of the run.
        rows: of the checkpoint.
        after: the step that the run goes on from.
        tensorboard: whether to write the scalars to ``folder/tensorboard`` too.
    """

    def __init__(self, folder: Path, rows: Sequence[tuple[float, ...]], after: int, tensorboard: bool) -> None:
        self.path = folder / "history.csv"
        self.rows = list(rows)
        with atomic_path(self.path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([COLUMNS, *self.rows])
        self._file: IO[str] = self.path.open("a", newline="", encoding="utf-8")
        self._board: Any = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=after + 1)

    def add(self, row: Mapping[str, float]) -> None:
        """Appends a row."""
        values = tuple(row[column] for column in COLUMNS)
        self.rows.append(values)
        try:
            csv.writer(self._file).writerow(values)
            self._file.flush()
        except OSError as error:  # a full disk names no file
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        if self._board is not None:
            for column, value in zip(COLUMNS[1:-1], values[1:-1], strict=True):
                self._board.add_scalar(column, value, int(values[0]))

    def table(self) -> pd.DataFrame:
        """All rows."""
        table = pd.DataFrame(self.rows, columns=list(COLUMNS), dtype=float)
        return table.astype({"step": int})

    def __enter__(self) -> History:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()
