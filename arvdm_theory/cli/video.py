"""``arvdm video``: one thin module a subcommand, each loaded only when ``arvdm video`` is asked for."""

from __future__ import annotations

import argparse
import importlib

__all__ = ["SUBCOMMANDS", "configure", "run"]

SUBCOMMANDS = {
    "train": "train a network with a memory on first-person video; resumable",
    "sample": "generate test windows with a trained network and score what it retrieved",
    "information": "what one network's memory tells beyond another's, in nats",
    "sweep": "train and score many networks: retrieval, decay of long rollouts, nats of the memory",
    "evaluate": "score generated videos against true ones: quality, retrieval of what was seen",
}
"""A subcommand NAME is a module ``arvdm_theory.cli.video_NAME`` with ``configure(parser)`` and ``run(args)``."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommands; imports nothing heavy."""
    from arvdm_theory.cli import add_common

    subparsers = parser.add_subparsers(dest="subcommand", required=True, metavar="SUBCOMMAND")
    for name, summary in SUBCOMMANDS.items():
        sub = subparsers.add_parser(
            name, help=summary, description=summary[0].upper() + summary[1:] + ".",
            formatter_class=parser.formatter_class,
        )  # fmt: skip
        importlib.import_module(f"arvdm_theory.cli.video_{name}").configure(sub)
        add_common(sub)


def run(args: argparse.Namespace) -> int:
    """Does the subcommand's job."""
    code: int = importlib.import_module(f"arvdm_theory.cli.video_{args.subcommand}").run(args)
    return code
