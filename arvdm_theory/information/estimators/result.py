"""How an estimate is given back: a number in nats, with its warnings told to the caller."""

from __future__ import annotations

import os
import sys
import warnings as python_warnings
from collections.abc import Sequence
from pathlib import Path

from arvdm_theory.number import Number

__all__ = ["EstimationWarning", "conclude", "issue"]

# Where this package's files are: a warning points past them.
_PACKAGE = f"{Path(__file__).parents[2]}{os.sep}"


class EstimationWarning(UserWarning):
    """An estimate may be off; the message says why and what to do."""


def conclude(
    value: float,
    stderr: float,
    half_width: float,
    *,
    method: str,
    n: int,
    k: int | None = None,
    notes: Sequence[str] = (),
) -> Number:
    """The estimate with interval value ± half_width; issues every note as an :class:`EstimationWarning`.

    Args:
        value: in nats.
        stderr: its standard error.
        half_width: half the width of the confidence interval.
        method: the estimator's name.
        n: number of samples.
        k: number of neighbours, if the method has one.
        notes: what to warn of.
    """
    for note in notes:
        issue(note)
    return Number.stated(
        value, stderr, value - half_width, value + half_width, method=method, n=n, k=k, warnings=notes
    )


def issue(note: str) -> None:
    """Issues an :class:`EstimationWarning` at the line that called this package, through all of its functions.

    So Python's default filter shows it once a calling line, and filters by module see the caller's.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    python_warnings.warn_explicit(
        EstimationWarning(note), EstimationWarning, frame.f_code.co_filename, frame.f_lineno,
        module=frame.f_globals.get("__name__"), registry=frame.f_globals.setdefault("__warningregistry__", {}),
    )  # fmt: skip
