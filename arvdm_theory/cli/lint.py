"""``arvdm lint``: what is wrong with a plan file, a timestep matrix or a scheduler's config, and the fix."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from arvdm_theory.cli.arguments import whole

if TYPE_CHECKING:
    from arvdm_theory.plan.lint import Finding

# Findings that are printed; --json has all of them.
_SHOWN = 30

EXAMPLES = (
    "arvdm plans magi-1 --set chunk=1 --out demo/plan.json",
    "arvdm lint demo/plan.json",
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.epilog = (
        "A matrix has a row an iteration and a column a frame; its entries are what the network is told of a "
        "frame's noise (timesteps, σ, flow times or levels), larger for more noise. The exit code is 0 if nothing "
        "is wrong, 1 if something is, 2 if the file cannot be read."
    )
    add = parser.add_argument
    add(
        "file",
        metavar="FILE",
        help="a plan file or a scheduler_config.json (.json), or a timestep matrix (.csv, .npy)",
    )
    add("--frames", type=whole(1), metavar="F", help="a matrix: how many frames are to be made, context included")
    add("--context", type=whole(0), default=0, metavar="C", help="a matrix: how many first frames are given clean")
    add("--top", type=float, metavar="T", help="a matrix: what stands for pure noise (its largest entry)")
    add("--window", type=whole(1), metavar="W", help="a matrix: how many frames the network takes at once")
    add("--steps", type=whole(1), default=50, metavar="M", help="a scheduler: the reverse steps it is asked for")
    add("--json", metavar="OUT.json", help="write the findings here")


def run(args: argparse.Namespace) -> int:
    """Prints the findings; 1 if there are any."""
    from arvdm_theory.files import check_outputs, write_json

    check_outputs({"--json": args.json}, [args.file])
    kind, findings = _lint(args)
    if args.json is not None:
        content = [finding.to_dict() for finding in findings]
        write_json(args.json, {"file": args.file, "kind": kind, "findings": content})
    for finding in findings[:_SHOWN]:
        print(f"{args.file}: {finding}")
    if len(findings) > _SHOWN:
        print(f"and {len(findings) - _SHOWN} more (--json has all)")
    errors = sum(finding.severity == "error" for finding in findings)
    words = f"{errors} errors, {len(findings) - errors} warnings" if findings else "nothing found"
    print(f"{args.file}: a {kind}: {words}")
    return 1 if findings else 0


def _lint(args: argparse.Namespace) -> tuple[str, list[Finding]]:
    """What the file is, and what is wrong with it."""
    import math
    from pathlib import Path

    from arvdm_theory.adapters.lint import is_scheduler_config, lint_scheduler
    from arvdm_theory.files import read_json, regular_file
    from arvdm_theory.plan.lint import lint_matrix, lint_plan, read_matrix
    from arvdm_theory.plan.lint.plan_file import json_lines

    if args.top is not None and not math.isfinite(args.top):
        raise ValueError(f"--top must be finite, got {args.top}")
    suffix = Path(args.file).suffix.lower()
    if suffix in (".csv", ".npy"):
        values, lines = read_matrix(args.file)
        found = lint_matrix(
            values, frames=args.frames, context=args.context, top=args.top, window=args.window, lines=lines
        )
        return "timestep matrix", found
    if suffix != ".json":
        regular_file(args.file)
        raise ValueError(f"{args.file}: a plan or scheduler config is .json, a timestep matrix .csv or .npy")
    content = read_json(args.file)
    where = json_lines(Path(args.file).read_text(encoding="utf-8"))
    if is_scheduler_config(content):
        return "scheduler config", lint_scheduler(content, args.steps, where)
    if "input_levels" in content or "format" in content or "stride" in content:
        return "plan", lint_plan(content, where)
    raise ValueError(
        f'{args.file} is neither a plan file ("format": "arvdm plan") nor a scheduler\'s config ("_class_name")'
    )
