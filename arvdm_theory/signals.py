"""Being told to stop: Ctrl-C, and SIGTERM, which every scheduler of a cluster sends before it kills."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Terminated", "deferred_stop", "terminable"]


class Terminated(KeyboardInterrupt):
    """The process was told to end by SIGTERM; like Ctrl-C, but for the exit code."""


@contextmanager
def terminable() -> Iterator[None]:
    """Within the block SIGTERM raises :class:`Terminated`, as Ctrl-C raises KeyboardInterrupt."""

    def handler(number: int, frame: FrameType | None) -> None:
        raise Terminated

    with _handlers({signal.SIGTERM: handler}):
        yield


@contextmanager
def deferred_stop() -> Iterator[Callable[[], None]]:
    """Ctrl-C and SIGTERM wait until they are asked for, so that neither falls into the middle of something.

    Yields:
        a function that raises what came meanwhile, and does nothing if nothing came. A second signal is raised at
        once. In other threads than the main one, to which signals do not come, it never raises.
    """
    told: list[int] = []

    def stop() -> None:
        if told:
            raise Terminated if told[0] == signal.SIGTERM else KeyboardInterrupt

    def handler(number: int, frame: FrameType | None) -> None:
        told.append(number)
        if len(told) > 1:
            stop()

    with _handlers({signal.SIGINT: handler, signal.SIGTERM: handler}):
        yield stop


@contextmanager
def _handlers(wanted: dict[signal.Signals, Callable[[int, FrameType | None], None]]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, handler) for number, handler in wanted.items()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
