"""Timestep matrices, as pipelines with frames at different noise levels make them: a row an iteration, a column a
frame.

An entry is what the network is told of the frame's noise: timesteps, σ, flow-matching times or levels, all of
which fall as noise does. Matrices of states end in a row without noise (Diffusion Forcing's scheduling matrix),
those of evaluations at the last timestep that is told (SkyReels-V2's ``step_matrix``); which it is, they tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from arvdm_theory.arrays import load_array
from arvdm_theory.files import regular_file
from arvdm_theory.limits import require
from arvdm_theory.plan.lint.finding import Finding

__all__ = ["lint_matrix", "read_matrix"]

Array = NDArray[np.float64]

# A schedule of this many timesteps is meant where a matrix of whole numbers begins between these two.
_TIMESTEPS, _NEARLY = 1000, 900


def read_matrix(path: str | Path) -> tuple[Array, tuple[int, ...] | None]:
    """The matrix of a ``.npy`` or ``.csv`` file, and the line of each row of a ``.csv``.

    Raises:
        ValueError: if it holds no matrix of finite numbers, naming the line.
        OSError: if it cannot be read.
    """
    file = regular_file(path)
    if file.suffix.lower() == ".npy":
        values, lines = load_array(file), None
    else:
        require(str(path), memory=60.0 * file.stat().st_size)
        try:
            text = file.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not a text of comma-separated numbers ({error.reason})") from error
        values, lines = _numbers(text, path)
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"{path}: a matrix of iterations by frames is expected, got shape {values.shape}")
    if values.dtype.kind not in "iuf":
        raise ValueError(f"{path}: timesteps are real numbers, got {values.dtype}")
    found = values.astype(np.float64)
    if not np.isfinite(found).all():
        row, frame = np.argwhere(~np.isfinite(found))[0]
        raise ValueError(f"{path}: row {row + 1}, frame {frame + 1} is not finite")
    return found, lines


def _numbers(text: str, path: str | Path) -> tuple[Array, tuple[int, ...]]:
    rows: list[list[float]] = []
    lines: list[int] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        cells = line.rstrip().rstrip(",").split(",")
        try:
            row = [float(cell) for cell in cells]
        except ValueError:
            if not rows and len(cells) > 1 and not lines:  # the names of the columns
                lines.append(0)
                continue
            raise ValueError(f"{path}, line {number}: numbers with commas between are expected") from None
        if rows and len(row) != len(rows[0]):
            raise ValueError(f"{path}, line {number}: {len(row)} frames, and {len(rows[0])} in the rows before")
        rows.append(row)
        lines.append(number)
    return np.array(rows, dtype=np.float64), tuple(line for line in lines if line)


def lint_matrix(
    values: Array,
    *,
    frames: int | None = None,
    context: int = 0,
    top: float | None = None,
    window: int | None = None,
    lines: Sequence[int] | None = None,
) -> list[Finding]:
    """All that is wrong with a timestep matrix.

    Args:
        values: (iterations, frames), what stands for more noise being larger.
        frames: how many frames there are to be made, context included; None: as many as there are columns.
        context: how many frames at the beginning are given, clean from the start.
        top: what stands for pure noise; None: the largest entry.
        window: how many frames the network takes at once; None: any number.
        lines: the line of the file on which each row stands.

    Example:
        >>> import numpy as np
        >>> for finding in lint_matrix(np.array([[9, 9, 0], [5, 9, 0], [0, 5, 0]]), frames=4):
        ...     print(f"{finding.where}: {finding.rule}: {finding.message}")
        frame 4: coverage: 3 columns for 4 frames: it is never denoised
        frame 3: off by one: clean from row 1 on: no iteration denoises it
        row 3, frame 3: monotonicity: 0 stands behind 5: a later frame is never cleaner
    """
    found: list[Finding] = []

    def say(
        severity: str, rule: str, message: str, fix: str, row: int | None = None, frame: int | None = None
    ) -> None:
        line = None if lines is None or row is None else lines[row]
        found.append(
            Finding(
                "error" if severity == "error" else "warning",
                rule,
                message,
                fix,
                line,
                None if row is None else row + 1,
                None if frame is None else frame + 1,
            )
        )

    rows, columns = values.shape
    if frames is not None and frames != columns:
        lost = "it is never denoised" if frames > columns else "there is no such frame"
        first = min(frames, columns)
        say(
            "error",
            "coverage",
            f"{columns} columns for {frames} frames: {lost}",
            "a column a frame: blocks that do not divide the frames need a last, shorter block",
            frame=first,
        )
    highest, lowest = float(values.max()), float(values.min())
    if rows > 1 and bool((values[-1] >= values[0]).all()) and bool((values[-1] > values[0]).any()):
        say(
            "error",
            "monotonicity",
            "entries rise from the first row to the last: this counts steps made, not noise",
            "give the timesteps (SkyReels-V2: step_matrix, not step_index)",
        )
        return found
    if top is not None and abs(highest - top) > 1e-9 * max(abs(top), 1.0):
        say(
            "error",
            "0-T boundary",
            f"the largest entry is {highest:g}, and pure noise is {top:g}",
            f"begin at {top:g}",
        )
    elif top is None and _NEARLY < highest < _TIMESTEPS - 1:
        say(
            "warning",
            "zero terminal SNR",
            f"the first timestep is {highest:g} of {_TIMESTEPS}: pure noise is told to have a signal in it",
            "trailing spacing, which begins at the last timestep",
        )
    if lowest < 0:
        row, frame = np.argwhere(values == lowest)[0]
        say(
            "error", "off by one", f"timestep {lowest:g} is before the first", "count from 0", int(row), int(frame)
        )
    # The last thing that the network is told of a frame, where the matrix does not end in what it leaves.
    last = 0.0 if bool((values[-1] <= 0).all()) else float(values[values > 0].min())
    pure = highest if top is None else top
    for j in range(columns):
        column = values[:, j]
        if column[0] <= 0 and j >= context:
            say(
                "error",
                "off by one",
                "clean from row 1 on: no iteration denoises it",
                f"let it begin at {pure:g}, or say that it is given (--context {j + 1})",
                frame=j,
            )
            continue
        if j < context:
            if (column > 0).any():
                row = int(np.argmax(column > 0))
                say(
                    "warning",
                    "0-T boundary",
                    f"a given frame is told to stand at {column[row]:g}",
                    "0, or note that context is noised",
                    row,
                    j,
                )
            continue
        if column[0] < pure and not (top is not None and column[0] == highest):
            say(
                "error",
                "0-T boundary",
                f"it begins at {column[0]:g}, and new frames are pure noise, {pure:g}",
                f"begin at {pure:g}",
                0,
                j,
            )
        if column[-1] > last:
            say(
                "error",
                "coverage",
                f"it ends at {column[-1]:g}, its noise is never taken out",
                f"further rows, down to {last:g}",
                rows - 1,
                j,
            )
        for i in (np.flatnonzero(np.diff(column) > 0) + 1).tolist():
            say(
                "error",
                "monotonicity",
                f"the entry rises from {column[i - 1]:g} to {column[i]:g}",
                f"{column[i - 1]:g} or less",
                i,
                j,
            )
    for j in range(max(context, 1), columns):
        worse = np.flatnonzero(values[:, j] < values[:, j - 1])
        if worse.size:
            i = int(worse[-1] if values[0, j] <= 0 else worse[0])
            say(
                "error",
                "monotonicity",
                f"{values[i, j]:g} stands behind {values[i, j - 1]:g}: a later frame is never cleaner",
                f"raise it to {values[i, j - 1]:g} or more",
                i,
                j,
            )
    _paths(values, context, last, say)
    moving = (values > lowest) & (values < pure)
    if window is not None and int(moving.sum(1).max()) > window:
        i = int(moving.sum(1).argmax())
        say(
            "error",
            "coverage",
            f"{int(moving[i].sum())} frames are in flight, and the network takes {window}",
            "a longer delay between frames, or a wider window",
            i,
        )
    return found


def _paths(values: Array, context: int, last: float, say: object) -> None:
    """Levels repeated or skipped, and delays between frames that differ."""
    assert callable(say)
    rows, columns = values.shape
    still = [i for i in range(1, rows) if bool((values[i] == values[i - 1]).all())]
    for i in still:
        say(
            "warning",
            "levels",
            "the row repeats the one before: an evaluation in which no frame moves",
            "take it out",
            i,
        )
    own = [j for j in range(context, columns) if values[0, j] > 0]
    visited = {j: set(values[:, j].tolist()) for j in own}
    count: dict[float, int] = {}
    for levels in visited.values():
        for level in levels:
            count[level] = count.get(level, 0) + 1
    usual = sorted(level for level, seen in count.items() if 2 * seen > len(own))
    for j in own:
        column = values[:, j]
        for i in range(1, rows):
            high, low = float(column[i - 1]), float(column[i])
            left_out = [level for level in usual if low < level < high]
            if left_out and len(own) > 1:
                say(
                    "error",
                    "levels",
                    f"it goes from {high:g} to {low:g} and skips {left_out[-1]:g}, at which the others stand",
                    f"a row at {left_out[-1]:g}",
                    i,
                    j,
                )
            if high == low and i not in still and last < low and low != column[0]:
                say(
                    "warning",
                    "levels",
                    f"it stands at {low:g} for a row more, in the middle of its way",
                    "take the row out of its way",
                    i,
                    j,
                )
    begins = [int(np.argmax(values[:, j] < values[0, j])) for j in own if values[-1, j] < values[0, j]]
    groups = [j for j in range(1, len(begins)) if begins[j] != begins[j - 1]]
    # A row that only repeats delays nobody.
    clock = [begin - sum(i <= begin for i in still) for begin in begins]
    delays = [clock[j] - clock[j - 1] for j in groups]
    for j, delay in zip(groups[1:], delays[1:], strict=True):
        if delay != delays[0]:
            say(
                "warning",
                "circularity",
                f"it begins {delay} rows behind the frame before it, the first that waits "
                f"{delays[0]}: what one AR step leaves is not what the next takes",
                f"a delay of {delays[0]}",
                begins[j],
                own[j],
            )
