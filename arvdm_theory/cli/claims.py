"""``arvdm claims``: what is claimed of auto-regressive video diffusion, with a verdict and its numbers."""

from __future__ import annotations

import argparse

EXAMPLES = (
    "arvdm claims --list",
    "arvdm claims impossibility",
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument("claim", nargs="*", help="ids of claims (--list shows them); all, if none is named")
    parser.add_argument(
        "--list", action="store_true", help="list the claims and their statements, and decide none"
    )
    parser.add_argument("--json", metavar="OUT.json", help="write one object a claim here")
    parser.add_argument("--page", metavar="OUT.md", help="write the verdicts as a page here")


def run(args: argparse.Namespace) -> int:
    """Decides the claims and prints a verdict each."""
    from arvdm_theory.experiments.claims.decide import CLAIMS
    from arvdm_theory.experiments.claims.decide import run as decide
    from arvdm_theory.experiments.claims.page import as_json, page
    from arvdm_theory.files import atomic_path, check_outputs, write_json

    if args.list:
        if args.json is not None or args.page is not None:
            raise ValueError("--list decides nothing that --json or --page could hold: leave one out")
        print("\n".join(f"{claim.id:16} {claim.statement}" for claim in CLAIMS))
        return 0
    check_outputs({"--json": args.json, "--page": args.page}, [])
    found = decide(args.claim)
    for each in found:
        print(f"{each.id}: {each.verdict}\n    {each.statement}  [{each.source}]")
    if args.json is not None:
        write_json(args.json, as_json(found))
    if args.page is not None:
        with atomic_path(args.page) as temporary:
            temporary.write_text(page(found), encoding="utf-8")
    return 0
