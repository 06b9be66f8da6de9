"""The ``arvdm`` command: one thin module a job, each loaded only when its job is asked for.

A command's module has ``configure(parser)``, which adds its options and imports nothing heavy, and
``run(args) -> int``, which does the job and returns the exit code. Bad input is one line on stderr and exit 2.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn

__all__ = ["main"]

COMMANDS = {
    "verify": "check every bound on a grid of videos and plans; draw the figures (the main job)",
    "ledger": "the exact error decomposition of one video and plan",
    "fit": "fit a Gaussian video to real clips",
    "plans": "list the published methods as plans, with their requirement checks",
    "lemma": "check the impossibility lemma on a joint law of your own",
    "needle": "memory bottleneck and best retrieval rate of a needle in a haystack",
    "estimate": "information or KL divergence of samples, with honest uncertainty",
    "experiment": "train networks on videos whose law is known and hold them against it",
    "simulate": "make episodes of a stand-in for DMLab or Minecraft, with what must be remembered in them",
    "video": "train networks with memory on first-person video, sample, and score quality and retrieval",
}


class _OneLineParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults that there are."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def _parser(command: str | None) -> _OneLineParser:
    parser = _OneLineParser(
        prog="arvdm",
        description="Exact error analysis of auto-regressive video diffusion on videos whose law is known.",
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in COMMANDS.items():
        sub = subparsers.add_parser(
            name, help=summary, description=summary[0].upper() + summary[1:] + ".",
            formatter_class=_HelpFormatter,
        )  # fmt: skip
        if name == command:
            importlib.import_module(f"arvdm_theory.cli.{name}").configure(sub)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0 done, 1 a check failed, 2 bad input, 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    command = next((word for word in words if word in COMMANDS), None)
    args = _parser(command).parse_args(words)
    try:
        code: int = importlib.import_module(f"arvdm_theory.cli.{args.command}").run(args)
    except (ValueError, OSError) as error:
        message = " ".join(str(error).split())
        if isinstance(error, OSError) and error.filename is not None and error.strerror is not None:
            message = f"{error.filename}: {error.strerror}"
        print(f"arvdm {args.command}: {message}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"arvdm {args.command}: interrupted", file=sys.stderr)
        return 130
    return code
