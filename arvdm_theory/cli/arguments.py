"""Numbers on the command line, each refused in one line that says what it should be."""

from __future__ import annotations

import argparse
from collections.abc import Callable

__all__ = ["LARGEST", "add_executor", "seed", "whole"]

LARGEST = 10**9
"""The largest size that an option takes; what takes too long or too much memory is refused well below it."""


def whole(least: int | None = None, most: int = LARGEST) -> Callable[[str], int]:
    """The type of an option that is a whole number from ``least`` (None: the command says it) to ``most``."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"invalid number: a whole number is needed, got {text!r}") from None
        if value > most or (least is not None and value < least):
            low = "" if least is None else f"from {least} "
            raise argparse.ArgumentTypeError(f"a whole number {low}up to {most} is needed, got {text}")
        return value

    return parse


def seed(text: str) -> int:
    """The type of an option that is a seed."""
    value = whole(most=2**63 - 1)(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"a seed is a whole number from 0, got {text}")
    return value


def add_executor(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say where a sweep's cells are computed."""
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--workers", type=whole(0, 4096), default=0, metavar="N",
        help="processes that compute cells; 0: this one")  # fmt: skip
    chosen.add_argument("--dask", metavar="ADDRESS", default=None,
        help="a Dask cluster that computes cells: its scheduler's address, or 'local' for one here")  # fmt: skip
