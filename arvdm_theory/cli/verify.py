"""``arvdm verify``: the main job, from the grid of bound checks to the figures."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from arvdm_theory.cli.arguments import add_executor

if TYPE_CHECKING:
    import pandas as pd


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument("--size", choices=("smoke", "default", "full"), default="default",
                        help="how much of the grid: a quick look, under three minutes, or long")  # fmt: skip
    parser.add_argument("--out", default="runs/verify", metavar="DIR", help="where tables and figures go")
    parser.add_argument("--no-figures", action="store_true", help="tables only")
    add_executor(parser)
    parser.add_argument("--all", action="store_true", help="print every check, not each one's tightest case")


def run(args: argparse.Namespace) -> int:
    """Runs the grid and the sweeps, prints the checks, draws the figures; 1 if a bound is violated."""
    from pathlib import Path

    import pandas as pd
    import torch

    from arvdm_theory.executors import executing
    from arvdm_theory.experiments.retrieval.run import NeedleConfig, needle_checks, run_needle, write_needle
    from arvdm_theory.experiments.verify.finite import ERRORS_ALLOWED, FINITE_SWEEPS, finite_checks
    from arvdm_theory.experiments.verify.run import CHECK_COLUMNS, SIZES, bound_checks, lemma_checks
    from arvdm_theory.experiments.verify.sweeps import SWEEPS
    from arvdm_theory.files import check_folder

    # The ledger's matrices are small: more threads only wait for each other.
    torch.set_num_threads(1)
    folder, size = Path(args.out), SIZES[args.size]
    check_folder("--out", args.out)
    folder.mkdir(parents=True, exist_ok=True)
    with executing(args.workers, args.dask):
        grid = bound_checks(size, folder)
        finite = finite_checks(size, folder)
        tables = {name: sweep(size, folder, True) for name, sweep in {**SWEEPS, **FINITE_SWEEPS}.items()}
    needle = run_needle(NeedleConfig())
    write_needle(needle, folder / "needle.json")
    parts = [grid[grid.kind == "check"], finite, lemma_checks(tables["lemma"]), needle_checks(needle)]
    checks = pd.concat([_judged(part, ERRORS_ALLOWED)[list(CHECK_COLUMNS)] for part in parts], ignore_index=True)
    print(_every(checks) if args.all else _tightest(checks))
    failed = checks[~checks.passed]
    if not args.no_figures:
        from arvdm_theory.experiments.retrieval.figures import draw_needle
        from arvdm_theory.experiments.verify.figures import FIGURES
        from arvdm_theory.report.style import draw_all

        drawn = draw_all(folder, FIGURES)
        draw_needle(needle, folder / "figures" / "needle.png")
        print(f"\n{len(drawn) + 1} figures in {folder / 'figures'}")
    print(f"tables and their provenance in {folder}")
    if len(failed):
        print(f"\n{len(failed)} of {len(checks)} checks VIOLATED:\n{_every(failed)}")
        return 1
    print(f"all {len(checks)} checks hold")
    return 0


def _judged(checks: pd.DataFrame, errors: float) -> pd.DataFrame:
    """The checks with their verdicts made anew from value, relation, bound and standard error, if they have one.

    A check that was said to fail fails: what is written of it may only be too kind.
    """
    import numpy as np

    value, bound = checks.value.to_numpy(float), checks.bound.to_numpy(float)
    room = 1e-9 * np.maximum(1.0, np.abs(bound)) + 1e-9 + errors * checks.get("stderr", 0.0)
    with np.errstate(invalid="ignore"):  # both sides of the lemma may be infinite
        slack = np.where(checks.relation == "<=", bound - value, -np.abs(bound - value))
    holds = (value == bound) | (slack >= -room)
    return checks.assign(passed=holds & checks.passed.astype(bool))


def _number(value: float) -> str:
    return f"{value:.6g}"


def _every(checks: pd.DataFrame) -> str:
    columns = ["video", "plan", "step", "score_error", "term", "value", "bound", "slack", "passed"]
    return checks[columns].to_string(index=False, float_format=_number)


def _tightest(checks: pd.DataFrame) -> str:
    """A row a check: how many cases, how many hold, and the case with the least slack."""
    tight = checks.loc[checks.groupby("term", sort=False).slack.idxmin()].set_index("term")
    counts = checks.groupby("term", sort=False).passed.agg(["size", "sum"])
    shown = tight[["value", "bound", "slack"]].assign(
        cases=counts["size"],
        verdict=["pass" if n == ok else f"FAIL ({n - ok})" for n, ok in counts.to_numpy()],
        tightest=[" · ".join(str(cell) for cell in row) for row in tight[["video", "plan", "step"]].to_numpy()],
    )
    shown.index.name = None
    return shown.to_string(float_format=_number)
