"""The ``arvdm`` command: one thin module a job, each loaded only when its job is asked for.

A command's module has ``configure(parser)``, which adds its options and imports nothing heavy, and
``run(args) -> int``, which does the job and returns the exit code. What may go wrong is dealt with here, once:

====  =======================================================================================================
code  meaning
====  =======================================================================================================
0     done
1     a check failed
2     bad input, a file that cannot be read or written, not enough memory: one line on stderr
3     a fault of the program's own, one line on stderr; ``--debug`` shows where
130   interrupted (Ctrl-C)
141   whoever read the output stopped reading (``| head``); nothing is said
143   told to end (SIGTERM, as schedulers of clusters send it); what can be saved was saved
====  =======================================================================================================
"""

from __future__ import annotations

import argparse
import codecs
import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, TextIO

from arvdm_theory.signals import Terminated, terminable

__all__ = ["add_common", "main"]

COMMANDS = {
    "verify": "check every bound on a grid of videos and plans; draw the figures (the main job)",
    "ledger": "the exact error decomposition of one video and plan",
    "fit": "fit a Gaussian video to real clips",
    "plans": "list the published methods as plans, with their requirement checks",
    "claims": "what is claimed of auto-regressive video diffusion: a verdict a claim, with its numbers",
    "lemma": "check the impossibility lemma on a joint law of your own",
    "needle": "memory bottleneck and best retrieval rate of a needle in a haystack",
    "estimate": "information or KL divergence of samples, with honest uncertainty",
    "experiment": "train networks on videos whose law is known and hold them against it",
    "simulate": "make episodes of a stand-in for DMLab or Minecraft, with what must be remembered in them",
    "video": "train networks with memory on first-person video, sample, and score quality and retrieval",
}

# What this program prints beyond ASCII, for terminals that have no more; what is not here becomes "?".
_ASCII = dict(
    zip(
        "█▇▆▅▄▃▂▁■·│─→…×–±✓✗Δδαβστρφμ‖∞≤≥Θθ",
        ("#", *"765432", "_", "#", ".", "|", "-", ">", ".", "x", "-", "+-", "ok", "no", "D", "d", "a", "b", "s",
         "t", "rho", "phi", "mu", "||", "inf", "<=", ">=", "Th", "th"),
        strict=True,
    )
) | {"Σ": "Sum", "Γ": "Gamma", "′": "'", "“": '"', "”": '"', "’": "'"}  # fmt: skip


class _OneLineParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {_one_line(message)} (see {self.prog} --help)\n")


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults that there are."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def add_common(parser: argparse.ArgumentParser) -> None:
    """Adds what every command understands."""
    add, none = parser.add_argument, argparse.SUPPRESS
    add("--force", action="store_true", default=none, help="begin jobs beyond the limits of time and memory, too")
    add("--debug", action="store_true", default=none, help="show where an error came from")


def _parser(command: str | None) -> _OneLineParser:
    parser = _OneLineParser(
        prog="arvdm",
        description="Exact error analysis of auto-regressive video diffusion on videos whose law is known.",
    )
    add_common(parser)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in COMMANDS.items():
        sub = subparsers.add_parser(
            name, help=summary, description=summary[0].upper() + summary[1:] + ".",
            formatter_class=_HelpFormatter,
        )  # fmt: skip
        if name == command:
            importlib.import_module(f"arvdm_theory.cli.{name}").configure(sub)
            add_common(sub)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code, as listed in :mod:`arvdm_theory.cli`."""
    words = list(sys.argv[1:] if argv is None else argv)
    command = next((word for word in words if word in COMMANDS), None)
    debug = "--debug" in words
    name = f"arvdm {command}" if command else "arvdm"
    with _streams(), terminable(), _one_line_warnings(name):
        try:
            args = _parser(command).parse_args(words)
            from arvdm_theory.limits import unlimited

            with unlimited(getattr(args, "force", False)):
                code: int = importlib.import_module(f"arvdm_theory.cli.{args.command}").run(args)
            sys.stdout.flush()
        except BrokenPipeError as error:
            if error.filename is not None:
                return _told(name, error, debug)
            _forget(sys.stdout)
            return 141
        except Terminated as error:
            return _told(name, error, debug)
        except KeyboardInterrupt as error:
            return _told(name, error, debug)
        except Exception as error:
            return _told(name, error, debug)
    return code


def _told(name: str, error: BaseException, debug: bool) -> int:
    """Says in one line what happened, and returns the exit code."""
    if debug:
        traceback.print_exception(error)
    message, code = _one_line(str(error)), 2
    if isinstance(error, Terminated):
        message, code = "told to end (SIGTERM)", 143
    elif isinstance(error, KeyboardInterrupt):
        message, code = "interrupted", 130
    elif isinstance(error, UnicodeError):
        message = f"a text is not in the encoding that it should be in: {message}"
    elif isinstance(error, OSError) and error.filename is not None and error.strerror is not None:
        message = f"{error.filename}: {error.strerror}"
    elif isinstance(error, MemoryError) or "can't allocate memory" in message or "out of memory" in message:
        message = f"there is not enough memory for this ({message or 'no more could be had'})"
    elif not isinstance(error, ValueError | OSError):
        message, code = f"a fault of the program ({type(error).__name__}: {message}); --debug shows where", 3
    print(f"{name}: {message or type(error).__name__}", file=sys.stderr)
    return code


def _one_line(text: str) -> str:
    return " ".join(text.split())


@contextmanager
def _streams() -> Iterator[None]:
    """Within the block no character is an error: what a terminal cannot show becomes ASCII."""
    codecs.register_error("arvdm-ascii", _to_ascii)
    changed: list[tuple[Any, str | None]] = []
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure") and stream.errors != "arvdm-ascii":
            changed.append((stream, stream.errors))
            stream.reconfigure(errors="arvdm-ascii")
    try:
        yield
    finally:
        for stream, errors in changed:
            if not stream.closed:
                stream.reconfigure(errors=errors)


def _to_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_ASCII.get(letter, "?") for letter in text), error.end


def _forget(stream: TextIO) -> None:
    """Leaves nothing to write at the end to a pipe that is closed."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except (OSError, ValueError):
        return


@contextmanager
def _one_line_warnings(name: str) -> Iterator[None]:
    """Within the block the library's own warnings are a line each on stderr."""
    shown = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: Any = None,
        line: Any = None,
    ) -> None:
        if category is UserWarning:
            print(f"{name}: warning: {_one_line(str(message))}", file=sys.stderr)
        else:
            shown(message, category, filename, lineno, file, line)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = shown
