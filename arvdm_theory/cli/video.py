"""``arvdm video``: one thin module a subcommand, each loaded only when ``arvdm video`` is asked for."""

from __future__ import annotations

import argparse

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
    from arvdm_theory.cli import add_common, module_of

    subparsers = parser.add_subparsers(dest="subcommand", metavar="SUBCOMMAND", title="subcommands")
    parser.set_defaults(show_help=parser.print_help)
    for name, summary in SUBCOMMANDS.items():
        sub = subparsers.add_parser(
            name, help=summary, description=summary[0].upper() + summary[1:] + ".",
            formatter_class=parser.formatter_class,
        )  # fmt: skip
        module = module_of(f"video {name}")
        module.configure(sub)
        add_common(sub, getattr(module, "EXAMPLES", ()))


def run(args: argparse.Namespace) -> int:
    """Does the subcommand's job; without one, says which there are."""
    from arvdm_theory.cli import module_of

    if args.subcommand is None:
        args.show_help()
        return 0
    code: int = module_of(f"video {args.subcommand}").run(args)
    return code
