"""The ``arvdm`` command: one thin module a job, each loaded only when its job is asked for.

A command's module has ``configure(parser)``, which adds its options and imports nothing heavy,
``run(args) -> int``, which does the job and returns the exit code, and ``EXAMPLES``, command lines that run behind
``arvdm demo demo``; ``--help`` shows them. A command whose option ``--json`` is given ``-`` writes JSON to stdout,
and its words to stderr. What may go wrong is dealt with here, once:

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
import textwrap
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, TextIO

from arvdm_theory.signals import Terminated, terminable

__all__ = ["COMMANDS", "EXAMPLES", "add_common", "main", "module_of"]

COMMANDS = {
    "verify": "check every bound on a grid of videos and plans; draw the figures (the main job)",
    "ledger": "the exact error decomposition of one video and plan",
    "fit": "fit a Gaussian video to real clips",
    "assess": "your clips, and your network: does it forget, does it drift, what to change; a report",
    "schedule": "the noise levels of reverse steps that are best for a video and a plan, and their export",
    "context-noise": "how noisy each lag of the references should be: the front of KL, drift and memory",
    "memory": "which past frames to hold and how finely, under a budget of frames or nats, and what none beats",
    "advise": "which plan for one's own clips, at a fixed cost of network evaluations a frame",
    "plans": "list the published methods as plans, with their requirement checks",
    "lint": "what is wrong with a plan file, a timestep matrix or a scheduler config, and the fix",
    "claims": "what is claimed of auto-regressive video diffusion: a verdict a claim, with its numbers",
    "lemma": "check the impossibility lemma on a joint law of your own",
    "needle": "memory bottleneck and best retrieval rate of a needle in a haystack",
    "estimate": "information or KL divergence of samples, with honest uncertainty",
    "experiment": "train networks on videos whose law is known and hold them against it",
    "figures": "draw the figures of a run again, for print or for slides",
    "simulate": "make episodes of a stand-in for DMLab or Minecraft, with what must be remembered in them",
    "video": "train networks with memory on first-person video, sample, and score quality and retrieval",
    "demo": "make small inputs for every command, to try them on",
}

_GROUPS = {
    "to begin with": ("verify", "demo"),
    "the theory": ("claims", "lemma", "plans", "needle"),
    "your video and your plan": ("ledger", "lint", "schedule", "context-noise", "memory", "advise"),
    "your clips, networks and samples": ("fit", "assess", "estimate", "video", "simulate"),
    "experiments": ("experiment", "figures"),
}
"""How ``arvdm --help`` lists the commands that there are; those of no group come last."""

EXAMPLES = (
    "arvdm verify --preset smoke",
    "arvdm demo demo",
    "arvdm ledger --covariance demo/covariance.npy --frame-dim 2 --references 2",
)

# What this program prints beyond ASCII, for terminals that have no more. Greek letters go by their names, others
# by what they are made of, and what is left becomes "?".
_ASCII: dict[str, str] = dict(
    zip(
        "█▇▆▅▄▃▂▁■·│─→…×–±✓✗Δδαβστρφμ‖∞≤≥Θθ",
        ("#", *"765432", "_", "#", ".", "|", "-", ">", ".", "x", "-", "+-", "ok", "no", "D", "d", "a", "b", "s",
         "t", "rho", "phi", "mu", "||", "inf", "<=", ">=", "Th", "th"),
        strict=True,
    )
) | {"Σ": "Sum", "′": "'", "“": '"', "”": '"', "’": "'", "—": "-", "−": "-", "√": "sqrt ", "≈": "~", "≠": "!=",
     "⟨": "<", "⟩": ">", "⁄": "/", "∈": "in", "←": "<-", "↔": "<->"}  # fmt: skip


class _OneLineParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {_one_line(message)} (see {self.prog} --help)\n")


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults that there are; texts keep their paragraphs, and lines that are set in stay so."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        nothing = action.default is None or action.default is False
        return action.help if nothing else super()._get_help_string(action)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = text.strip("\n").split("\n\n")
        return "\n\n".join(
            part if "\n  " in part or part.startswith("  ") else textwrap.fill(part, width) for part in paragraphs
        )


def add_common(parser: argparse.ArgumentParser, examples: Sequence[str] = ()) -> None:
    """Adds what every command understands, and its examples below."""
    add, none = parser.add_argument, argparse.SUPPRESS
    add("--force", action="store_true", default=none, help="begin jobs beyond the limits of time and memory, too")
    add("--debug", action="store_true", default=none, help="show where an error came from")
    loud = parser.add_mutually_exclusive_group()
    loud.add_argument("-q", "--quiet", action="store_true", default=none, help="errors alone: no words, no bars")
    loud.add_argument("-v", "--verbose", action="store_true", default=none,
                      help="say what runs, what a warning comes from, and what it took")  # fmt: skip
    if examples:
        shown = "\n".join(f"  {line}" for line in examples)
        parser.epilog = f"{parser.epilog}\n\nexamples:\n{shown}" if parser.epilog else f"examples:\n{shown}"


def module_of(command: str) -> Any:
    """The module of a command, or of a subcommand named ``video train``."""
    return importlib.import_module("arvdm_theory.cli." + command.replace(" ", "_").replace("-", "_"))


def _parser(command: str | None) -> _OneLineParser:
    parser = _OneLineParser(
        prog="arvdm", usage="arvdm COMMAND [OPTIONS]", epilog=_listing(), formatter_class=_HelpFormatter,
        description="Exact error analysis of auto-regressive video diffusion on videos whose law is known.",
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"arvdm {_version()}")
    add_common(parser, EXAMPLES)
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", help=argparse.SUPPRESS)
    for name, summary in COMMANDS.items():
        sub = subparsers.add_parser(
            name, help=summary, description=summary[0].upper() + summary[1:] + ".",
            formatter_class=_HelpFormatter, prog=f"arvdm {name}",
        )  # fmt: skip
        if name == command:
            module = module_of(name)
            module.configure(sub)
            add_common(sub, getattr(module, "EXAMPLES", ()))
    return parser


def _version() -> str:
    from arvdm_theory import __version__

    return __version__


def _listing() -> str:
    """The commands by group, a line each."""
    grouped = {name for names in _GROUPS.values() for name in names}
    groups = {title: [name for name in names if name in COMMANDS] for title, names in _GROUPS.items()}
    groups["more"] = [name for name in COMMANDS if name not in grouped]
    width = max(map(len, COMMANDS)) + 2
    return "\n\n".join(
        f"{title}:\n" + "\n".join(f"  {name:<{width}}{COMMANDS[name]}" for name in names)
        for title, names in groups.items()
        if names
    ) + "\n\n`arvdm COMMAND --help` says more."  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code, as listed in :mod:`arvdm_theory.cli`."""
    words = list(sys.argv[1:] if argv is None else argv)
    command = next((word for word in words if word in COMMANDS), None)
    debug = "--debug" in words
    name = f"arvdm {command}" if command else "arvdm"
    with _streams(), terminable(), _one_line_warnings(name, {"-v", "--verbose"} & set(words)):
        try:
            parser = _parser(command)
            args = parser.parse_args(words)
            if args.command is None:
                parser.print_help()
                return 0
            from arvdm_theory.limits import unlimited

            with unlimited(getattr(args, "force", False)), _spoken(args, name):
                code: int = module_of(args.command).run(args)
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
    return "".join(map(_spelt, text)), error.end


def _spelt(letter: str) -> str:
    import unicodedata

    if letter in _ASCII:
        return _ASCII[letter]
    if unicodedata.combining(letter):  # the hat of an estimate
        return ""
    kind, _, parts = unicodedata.decomposition(letter).rpartition(">")
    if parts:
        raised = "^" if kind == "<super" and letter != "ᵀ" else ""
        return raised + "".join(_spelt(chr(int(part, 16))) for part in parts.split())
    if ord(letter) < 128:
        return letter
    name = unicodedata.name(letter, "")
    if not name.startswith("GREEK "):
        return "?"
    spelt = name.split()[-1].replace("LAMDA", "LAMBDA")
    return spelt.capitalize() if "CAPITAL" in name else spelt.lower()


def _forget(stream: TextIO) -> None:
    """Leaves nothing to write at the end to a pipe that is closed."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except (OSError, ValueError):
        return


class _NoTerminal:
    """A stream that says that it is no terminal: bars are drawn on terminals alone."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def isatty(self) -> bool:
        return False


@contextmanager
def _spoken(args: argparse.Namespace, name: str) -> Iterator[None]:
    """Within the block words go where they are asked for: nowhere (quiet), or to stderr (JSON is on stdout)."""
    from contextlib import ExitStack, redirect_stderr, redirect_stdout

    quiet, out = getattr(args, "quiet", False), sys.stdout
    as_json = str(getattr(args, "json", None)) == "-"
    with ExitStack() as block:
        if quiet:
            block.enter_context(redirect_stdout(block.enter_context(open(os.devnull, "w"))))  # noqa: PTH123
            quiet_errors: Any = _NoTerminal(sys.stderr)
            block.enter_context(redirect_stderr(quiet_errors))
            block.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore", UserWarning)
        elif as_json:
            block.enter_context(redirect_stdout(sys.stderr))
        if as_json:
            import tempfile

            folder = block.enter_context(tempfile.TemporaryDirectory(prefix="arvdm-"))
            args.json = type(args.json)(os.path.join(folder, "out.json"))  # noqa: PTH118
        if getattr(args, "verbose", False):
            block.enter_context(_measured(name))
        yield
        if as_json and os.path.exists(args.json):  # noqa: PTH110
            with open(args.json, encoding="utf-8") as file:  # noqa: PTH123
                out.write(file.read())


@contextmanager
def _measured(name: str) -> Iterator[None]:
    """Says on stderr what runs and, at the end, the time and memory that it took."""
    import resource
    import time

    from arvdm_theory.provenance import versions

    print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in versions().items()), file=sys.stderr)
    began, cpu = time.perf_counter(), time.process_time()
    try:
        yield
    finally:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**10 if sys.platform != "darwin" else 2**20)
        print(
            f"{name}: {time.perf_counter() - began:.1f} s ({time.process_time() - cpu:.1f} s of this process), "
            f"at most {peak:.0f} MiB",
            file=sys.stderr,
        )


@contextmanager
def _one_line_warnings(name: str, verbose: Any = False) -> Iterator[None]:
    """Within the block the library's own warnings are a line each on stderr, and where they come from if asked."""
    shown = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: Any = None,
        line: Any = None,
    ) -> None:
        if issubclass(category, UserWarning):
            where = f" ({filename}, line {lineno})" if verbose else ""
            print(f"{name}: warning: {_one_line(str(message))}{where}", file=sys.stderr)
        else:
            shown(message, category, filename, lineno, file, line)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = shown
