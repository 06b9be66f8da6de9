"""Where the cells of a sweep are computed: in this process, in others, or on a Dask cluster.

A cell is a pure function of its config, and every executor computes it on one thread of BLAS and PyTorch, so that
its numbers are the same bit for bit wherever on one kind of machine it runs. Which executor a sweep uses is said
once, around it::

    with executing(workers=4):
        sweep(...)

Functions travel by cloudpickle between processes of one user; nothing is read from a file that way.
"""

from __future__ import annotations

import ctypes
import io
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from importlib import import_module
from itertools import islice
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any, Protocol, TypeVar

import cloudpickle  # type: ignore[import-untyped]
from tqdm import tqdm

from arvdm_theory.limits import unlimited
from arvdm_theory.signals import Terminated, deferred_stop

__all__ = ["Dask", "Executor", "Here", "Processes", "executing", "executor", "one_thread"]

T = TypeVar("T")
R = TypeVar("R")

# How often a worker may be lost before the sweep gives up: what kills three is the work, not chance.
_LOSSES = 3
# What libraries read when they are loaded.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# Seconds that a worker which is told to stop has to save what it can.
_GRACE = 30.0


class Executor(Protocol):
    """Runs a function on many items."""

    def run(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[T, R]]:
        """Each item with its result, in whatever order they are finished.

        Items are taken from the iterable only as there is room for them.

        Raises:
            ValueError: if workers are lost again and again, or the cluster cannot be reached.
        """
        ...


_CURRENT: ContextVar[Executor | None] = ContextVar("executor", default=None)


def executor() -> Executor:
    """The one that was chosen by :func:`executing`; otherwise this process."""
    return _CURRENT.get() or Here()


@contextmanager
def executing(workers: int = 0, dask: str | None = None, using: Executor | None = None) -> Iterator[None]:
    """Within the block sweeps compute their cells elsewhere.

    Args:
        workers: processes on this machine; 0: none but this one.
        dask: address of a Dask scheduler, or ``local`` for a cluster on this machine.
        using: an executor of your own, which stays open, in place of these.

    Raises:
        ValueError: if ``dask`` is not installed or not to be reached.
    """
    chosen: AbstractContextManager[Executor] = nullcontext(using or Here())
    if dask is not None:
        chosen = Dask.connected(dask)
    elif workers:
        chosen = Processes(workers)
    with chosen as found:
        token = _CURRENT.set(found)
        try:
            yield
        finally:
            _CURRENT.reset(token)


class Here:
    """This process, one item after another."""

    def run(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[T, R]]:
        """As :meth:`Executor.run`."""
        for item in items:
            with one_thread():
                result = function(item)
            yield item, result


class Processes:
    """Processes on this machine, from the first item to the end of the ``with`` block that this opens.

    What a lost one was at is done again; none outlives this process.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._pool: ProcessPoolExecutor | None = None
        self._hold: Connection | None = None

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None and error == (None, None, None):
            self._pool.shutdown()
        self._stop()

    def run(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[T, R]]:
        """As :meth:`Executor.run`."""
        work, source, lost = cloudpickle.dumps(function), iter(items), 0
        left: list[T] = []
        waiting: dict[Future[R], T] = {}
        try:
            while True:
                try:
                    left += islice(source, max(2 * self.workers - len(waiting) - len(left), 0))
                    while left and len(waiting) < 2 * self.workers:
                        # Only then it is no longer left: the pool may turn out to be broken here, too.
                        waiting[self._started().submit(_call, work, left[0])] = left[0]
                        del left[0]
                    if not waiting:
                        return
                    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                    results = [(future, future.result()) for future in done]
                except BrokenProcessPool as error:
                    lost += 1
                    if lost > _LOSSES:
                        raise ValueError(
                            f"worker processes died {lost} times (killed by the system? was there memory for "
                            f"{self.workers} at once?)"
                        ) from error
                    left += waiting.values()
                    waiting.clear()
                    self._stop()
                    continue
                for future, result in results:
                    yield waiting.pop(future), result
        finally:
            if waiting:  # something went wrong here or in whoever asked for the results
                self._stop()

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            hold, self._hold = context.Pipe(duplex=False)
            self._pool = ProcessPoolExecutor(self.workers, context, _start, (hold,))
        return self._pool

    def _stop(self) -> None:
        """Tells the workers to stop, and waits until they have."""
        if self._hold is not None:
            self._hold.close()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._hold = self._pool = None


class Dask:
    """A Dask cluster, which does a lost worker's items again by itself."""

    def __init__(self, client: Any) -> None:
        self.client = client

    @classmethod
    @contextmanager
    def connected(cls, address: str) -> Iterator[Dask]:
        """A connection that is closed, and with it a local cluster, at the end of the block.

        Raises:
            ValueError: if Dask is not installed, or nobody answers at the address.
        """
        try:
            distributed = import_module("distributed")
        except ImportError as error:
            raise ValueError(
                "a Dask cluster needs the package distributed: pip install 'arvdm-theory[cluster]'"
            ) from error
        with ExitStack() as opened:
            try:
                with deferred_stop() as stop:
                    found = opened.enter_context(_local_cluster()) if address == "local" else address
                    client = opened.enter_context(distributed.Client(found, timeout=30))
                stop()
            except (OSError, ValueError, TypeError) as error:
                raise ValueError(f"no Dask scheduler answers at {address!r} ({error})") from error
            try:
                yield cls(client)
            except BaseException:
                if address == "local":
                    leaving = threading.Thread(target=_told_to_leave, args=(client,), daemon=True)
                    leaving.start()
                    leaving.join(_GRACE + 1)  # not for ever: a worker may hang
                raise
            finally:
                with deferred_stop():
                    opened.__exit__(*sys.exc_info())

    def run(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[T, R]]:
        """As :meth:`Executor.run`."""
        distributed = import_module("distributed")
        work, source = cloudpickle.dumps(function), iter(items)
        pending = distributed.as_completed(with_results=False)
        waiting: dict[str, T] = {}
        try:
            while True:
                # The cluster may grow and shrink meanwhile.
                room = 2 * max(1, sum(self.client.nthreads().values()))
                for item in islice(source, max(room - len(waiting), 0)):
                    future = self.client.submit(_call_in_thread, work, item, pure=False)
                    waiting[future.key] = item
                    pending.add(future)
                if not waiting:
                    return
                future = next(pending)
                try:
                    result = future.result()
                except distributed.KilledWorker as error:
                    raise ValueError(
                        f"the cluster's workers died over one cell again and again ({error})"
                    ) from error
                yield waiting.pop(future.key), result
        finally:
            self.client.cancel(list(pending.futures))


@contextmanager
def _local_cluster() -> Iterator[Any]:
    """A Dask cluster of a worker a core, which leaves nothing behind and says nothing of its own end."""
    dask, distributed = import_module("dask"), import_module("distributed")
    with (
        _scratch_folder() as scratch,
        dask.config.set({"temporary-directory": scratch}),
        _quiet("distributed"),
        distributed.LocalCluster(
            os.cpu_count(),
            threads_per_worker=1,
            dashboard_address=None,
            scheduler_kwargs={"dashboard_address": ":0"},  # its server listens all the same, on any free port
            silence_logs=logging.CRITICAL,
            preload=__name__,
        ) as cluster,
    ):
        try:
            yield cluster
        except BaseException:
            # Dask would wait for threads that are at work.
            for nanny in cluster.workers.values():
                nanny.auto_restart = False
                if nanny.pid:
                    os.kill(nanny.pid, signal.SIGKILL)
            raise


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """A cluster's own silence ends before the last of its connections is closed."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _told_to_leave(client: Any) -> None:
    with suppress(Exception):  # a worker that is lost, or is killed meanwhile, has left
        client.run(_leave, on_error="ignore")


# Waits until its parent ends, however that is; workers that end at the same time may write for a moment yet.
_CLEANER = """
import os, shutil, sys, time
sys.stdin.read()
for _ in range(50):
    shutil.rmtree(sys.argv[1], ignore_errors=True)
    if not os.path.exists(sys.argv[1]):
        break
    time.sleep(0.1)
"""


@contextmanager
def _scratch_folder() -> Iterator[str]:
    """A folder for temporary files, which is gone afterwards even if this process is killed."""
    with tempfile.TemporaryDirectory(prefix="arvdm-", ignore_cleanup_errors=True) as folder:
        words = [sys.executable, "-I", "-S", "-c", _CLEANER, folder]
        with subprocess.Popen(words, stdin=subprocess.PIPE, start_new_session=True):
            yield folder


# -- in a worker --------------------------------------------------------------------------------------

# The thread that is at an item.
_busy: int | None = None
_stopping = False


def _call(work: bytes, item: T) -> Any:
    """Runs one item in a worker."""
    global _busy
    if _stopping:
        raise Terminated
    if isinstance(sys.stderr, io.TextIOWrapper) and sys.stderr.isatty():
        sys.stderr = _NoTerminal(sys.stderr.buffer, errors="backslashreplace", line_buffering=True)
    _busy = threading.get_ident()
    try:
        # Sizes were held against the limits where the command was given.
        function = cloudpickle.loads(work)
        with one_thread(), unlimited():
            return function(item)
    finally:
        _busy = None


def _call_in_thread(work: bytes, item: T) -> Any:
    """The same in a worker of Dask, whose loop would fall over with more than an exception."""
    try:
        return _call(work, item)
    except Terminated as error:
        raise RuntimeError("told to end") from error


class _NoTerminal(io.TextIOWrapper):
    """Shows progress bars that many draw on one terminal; here none is drawn."""

    def isatty(self) -> bool:
        return False


def _start(hold: Connection) -> None:
    """Prepares a worker process: it stops, saving what it can, when the other end of ``hold`` is closed.

    The system closes it, too, when the process that started this one is killed: there are no orphans.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        if _busy:
            raise Terminated
        os._exit(143)

    def watch() -> None:
        global _stopping
        try:
            hold.recv()
        except (EOFError, OSError):
            _stopping, end = True, time.monotonic() + _GRACE
            if _busy:
                os.kill(os.getpid(), signal.SIGTERM)
            while _busy and time.monotonic() < end:
                time.sleep(0.05)
            os._exit(143)

    _prepare()
    signal.signal(signal.SIGTERM, stop)
    threading.Thread(target=watch, daemon=True).start()


def _prepare() -> None:
    # tqdm's own lock is a semaphore of the system, which would outlive a worker that is told to end.
    tqdm.set_lock(threading.RLock())
    warnings.formatwarning = _one_line_warning
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the process that began this one decides


def dask_setup(worker: Any) -> None:
    """What a worker of a local Dask cluster, which loads this module, calls first."""
    _prepare()


async def _leave() -> None:
    """Ends what a worker of Dask is at, and waits until it has saved what it can."""
    import asyncio

    global _stopping
    _stopping, end = True, time.monotonic() + _GRACE
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    sys.unraisablehook = _end_thread  # again, if it was just where errors are dropped
    _end_thread()
    while _busy and time.monotonic() < end:
        await asyncio.sleep(0.05)


def _end_thread(dropped: object = None) -> None:
    """Raises what a signal would raise, which comes to no thread but the first."""
    if _busy:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(_busy), ctypes.py_object(Terminated))


def _one_line_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A worker has no command's name to put before it, and its line says nothing to a user."""
    return f"{'warning' if issubclass(category, UserWarning) else category.__name__}: {message}\n"


@contextmanager
def one_thread() -> Iterator[None]:
    """Within the block BLAS and PyTorch use one thread: over small matrices more would wait for each other.

    Libraries that are loaded only in there begin with one thread, too. Nothing is loaded for this: workers that
    draw pictures need no PyTorch.
    """
    from threadpoolctl import threadpool_limits

    torch = sys.modules.get("torch")
    threads = None if torch is None else torch.get_num_threads()
    told = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    if torch is not None:
        torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        for name, value in told.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        if torch is not None:
            torch.set_num_threads(threads)
