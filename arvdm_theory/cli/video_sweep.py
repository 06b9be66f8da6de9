"""``arvdm video sweep``: networks trained, sampled, rolled out and set side by side."""

from __future__ import annotations

import argparse

from arvdm_theory.cli.arguments import add_executor, seed
from arvdm_theory.cli.video_train import add_data_options, run_from
from arvdm_theory.experiments import EXPERIMENTS

__all__ = ["configure", "run"]

EXAMPLES = ("arvdm video sweep --preset smoke --memory none cross --steps 10 --out demo/sweep",)


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options; imports nothing heavy."""
    parser.epilog = (
        "An interrupted sweep goes on where it was: each network has a folder with its checkpoints, and each "
        "finished one a file with its rows. --publish copies the tables with their provenance. figures/ holds "
        "what the tables allow: retrieval, decay, the trade of both, and films as grids (.mp4)."
    )
    add_data_options(parser)
    add, suites = parser.add_argument, ", ".join(EXPERIMENTS["video"].presets)
    add("--suite", nargs="+", metavar="NAME", default=None,
        help=f"sets of networks, in place of options that describe them: {suites}, or all")  # fmt: skip
    add("--memory", nargs="+", choices=("none", "prepend", "concat", "cross"),
        default=["none", "concat", "prepend", "cross"], help="memory structures")  # fmt: skip
    add("--seeds", nargs="+", type=seed, default=[0], metavar="S", help="of the networks")
    add("--out", required=True, metavar="DIR", help="folder for data, networks, tables and figures")
    add("--publish", metavar="DIR", default=None, help="folder to copy the finished tables to")
    add_executor(parser)
    add("--rollouts", nargs="*", metavar="NAME", default=None,
        help="long rollouts and nats of the memory for the networks of these suites alone; without a name of none "
        "(default: of all)")  # fmt: skip
    add("--no-nats", action="store_true", help="without the nats that memories tell")
    add("--no-figures", action="store_true", help="tables only")


def run(args: argparse.Namespace) -> int:
    """Trains what is missing, prints the table."""
    from dataclasses import replace
    from pathlib import Path

    from arvdm_theory.executors import executing
    from arvdm_theory.experiments.video.run import headline, sweep
    from arvdm_theory.experiments.video.suites import suite
    from arvdm_theory.files import check_folder
    from arvdm_theory.provenance import require_clean
    from arvdm_theory.training.devices import resolve_device

    folder = Path(args.out)
    if args.suite is not None:
        runs = suite(EXPERIMENTS["video"].presets if args.suite == ["all"] else args.suite)
        if args.device != "auto":
            runs = [replace(run, device=args.device) for run in runs]
    else:
        runs = [run_from(args, memory=memory, seed=seed) for seed in args.seeds for memory in args.memory]
    for option, place in (("--out", args.out), ("--publish", args.publish)):
        check_folder(option, place)
    if args.publish is not None:
        require_clean()
    resolve_device(args.device)
    rolled = None if args.rollouts is None else suite(args.rollouts)
    with executing(args.workers, args.dask):
        tables = sweep(runs, folder, rollouts=rolled, nats=not args.no_nats)
    print(headline(tables))
    if not args.no_figures:
        from arvdm_theory.experiments.video.figures import draw_sweep

        print("figures: " + ", ".join(str(path) for path in draw_sweep(folder)))
    if args.publish is not None:
        from arvdm_theory.report.style import publish

        publish([*folder.glob("video*.csv"), *folder.glob("video*.provenance.json")], Path(args.publish))
    print(f"tables with their provenance, and networks, in {folder}")
    return 0
