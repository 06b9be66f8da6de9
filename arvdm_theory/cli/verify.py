"""``arvdm verify``: the main job, from the grid of bound checks to the figures."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from arvdm_theory.cli.arguments import add_executor
from arvdm_theory.experiments import EXPERIMENTS

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

EXAMPLES = (
    "arvdm verify",
    "arvdm verify --preset smoke --out demo/verify",
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument("--preset", choices=EXPERIMENTS["verify"].presets, default="default",
                        help="how much of the grid: a quick look, under three minutes, or long")  # fmt: skip
    parser.add_argument("--out", default="runs/verify", metavar="DIR", help="where tables and figures go")
    parser.add_argument("--no-figures", action="store_true", help="tables only")
    add_executor(parser)
    parser.add_argument(
        "--all", action="store_true", help="print every check, not a line of each with its closest case"
    )


def run(args: argparse.Namespace) -> int:
    """Runs the grid and the sweeps, prints the checks, draws the figures; 1 if a bound is violated."""
    from pathlib import Path

    import torch

    from arvdm_theory.executors import executing
    from arvdm_theory.experiments.verify import run as verify
    from arvdm_theory.files import check_folder

    # The ledger's matrices are small: more threads only wait for each other.
    torch.set_num_threads(1)
    folder = Path(args.out)
    check_folder("--out", args.out)
    folder.mkdir(parents=True, exist_ok=True)
    with executing(args.workers, args.dask):
        checks, needle = verify.run(args.preset, folder)
    print(verify.every(checks) if args.all else verify.headline(checks))
    print(f"\n{verify.remarks(folder)}\n")
    failed = checks[~checks.passed]
    drawn = []
    if not args.no_figures:
        from arvdm_theory.experiments.retrieval.figures import draw_needle
        from arvdm_theory.report.style import draw_all

        drawn = draw_all(folder, EXPERIMENTS["verify"].figures)
        draw_needle(needle, folder / "figures" / "needle.png")
        drawn.append(folder / "figures" / "needle.png")
        print(f"\n{len(drawn)} figures in {folder / 'figures'}")
    page = _page(args, folder, checks, drawn)
    print(f"tables and their provenance in {folder}; all of it on one page: {page}")
    if len(failed):
        print(f"\n{len(failed)} of {len(checks)} checks VIOLATED:\n{verify.every(failed)}")
        return 1
    print(f"all {len(checks)} checks hold")
    return 0


def _page(args: argparse.Namespace, folder: Path, checks: pd.DataFrame, drawn: list[Path]) -> Path:
    """The report of the main job."""
    from arvdm_theory.experiments.pages import write_page
    from arvdm_theory.experiments.verify import run as verify
    from arvdm_theory.experiments.verify.checks import summary
    from arvdm_theory.provenance import provenance
    from arvdm_theory.report.page import command_line

    failed = int((~checks.passed).sum())
    hold = f"All {len(checks)} checks hold." if not failed else f"{failed} of {len(checks)} checks are violated."
    lines = [hold, *[line.strip() for line in verify.remarks(folder).splitlines()[:1]]]
    words = ["arvdm", "verify", "--preset", args.preset, "--out", args.out]
    return write_page(
        folder, "Identities and inequalities of the theory, checked", lines,
        f"{verify.headline(checks)}\n\n{verify.remarks(folder)}", {"checks": summary(checks).reset_index()}, drawn,
        command_line(words), provenance({"preset": args.preset}, 0),
        {name: table for name, (table, _) in EXPERIMENTS["verify"].figures.items()},
    )  # fmt: skip
