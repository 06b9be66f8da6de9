"""What a job may take: it is estimated before the work begins, and refused beyond what is stated here.

The limits are the memory of this machine (or of the container that it is) and :data:`HOURS`. Inside
``with unlimited():`` (``--force`` at the command line) nothing is refused.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

__all__ = ["HOURS", "LimitError", "Pace", "machine_memory", "require", "unlimited"]

HOURS = 24.0
"""The longest job that is begun without ``--force``, by its estimate."""

_CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_UNLIMITED: ContextVar[bool] = ContextVar("unlimited", default=False)


class LimitError(ValueError):
    """A job that would take more time or memory than is allowed; the message has the estimate and the limit."""


@contextmanager
def unlimited(allowed: bool = True) -> Iterator[None]:
    """Within the block nothing is refused, if ``allowed``."""
    token = _UNLIMITED.set(allowed)
    try:
        yield
    finally:
        _UNLIMITED.reset(token)


def machine_memory() -> int:
    """Bytes of memory of this machine, or what its container may use if that is less."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in _CGROUPS:
        try:
            sizes.append(int(Path(name).read_text(encoding="ascii")))
        except (OSError, ValueError):  # there is no such group, or its limit is the word "max"
            continue
    return min(sizes)


def require(what: str, *, memory: float = 0.0, seconds: float = 0.0) -> None:
    """Refuses a job that is too large, before it begins.

    Args:
        what: the job, as the message calls it.
        memory: its estimate, bytes.
        seconds: its estimate.

    Raises:
        LimitError: if either lies beyond the limit.

    Example:
        >>> require("a sum", seconds=1e9)
        Traceback (most recent call last):
        ...
        arvdm_theory.limits.LimitError: a sum would take about 2.8e+05 hours, and the limit is 24 hours: \
make it smaller, or go past the limit with --force
    """
    if _UNLIMITED.get():
        return
    there, hours = machine_memory(), seconds / 3600
    for size, limit, told in (
        (memory, there, f"{memory / 1e9:.2g} GB of memory, and there are {there / 1e9:.2g} GB"),
        (hours, HOURS, f"{hours:.2g} hours, and the limit is {HOURS:g} hours"),
    ):
        if not size <= limit:
            raise LimitError(f"{what} would take about {told}: make it smaller, or go past the limit with --force")


class Pace:
    """Refuses a loop by what its first rounds took, where nothing could be estimated before it began.

    The fastest of the first rounds stands for all that are left, since the first ones also warm up caches and
    another job may slow some: the estimate is too short rather than too long.

    Args:
        what: the job, as the message calls it.
        rounds: how many there are in this start of the loop.
    """

    _JUDGED = 10
    _PATIENCE = 60.0

    def __init__(self, what: str, rounds: int) -> None:
        self._what, self._left, self._seen = what, rounds, 0
        self._fastest = float("inf")
        self._began = self._last = time.perf_counter()

    def round(self) -> None:
        """Call at the end of every round.

        Raises:
            LimitError: after the tenth round, or the first beyond a minute, if the rest would take too long.
        """
        if self._seen >= self._JUDGED:
            return
        now = time.perf_counter()
        self._fastest, self._last = min(self._fastest, now - self._last), now
        self._left, self._seen = self._left - 1, self._seen + 1
        if now - self._began > self._PATIENCE:
            self._seen = self._JUDGED
        if self._seen == self._JUDGED:
            require(self._what, seconds=self._left * self._fastest)
