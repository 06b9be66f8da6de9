"""``arvdm experiment``: networks trained on videos whose law is known, held against the closed forms."""

from __future__ import annotations

import argparse

from arvdm_theory.cli.arguments import add_executor, seed
from arvdm_theory.experiments import EXPERIMENTS, TRAINED, experiment

EXAMPLES = ("arvdm experiment --list", "arvdm experiment memory --preset smoke --out demo/memory")


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.epilog = "experiments:\n" + "\n".join(_lines())
    parser.add_argument("name", nargs="?", metavar="NAME", help="which experiment, or 'all'; see --list")
    parser.add_argument("--list", action="store_true", help="name the experiments, a line each, and stop")
    parser.add_argument("--preset", choices=("smoke", "cpu", "gpu"), default="cpu",
                        help="smoke: does it run; cpu: two cores, under ten minutes; gpu: full size")  # fmt: skip
    parser.add_argument("--device", default="auto", help="auto (CUDA, else MPS, else CPU), cuda, mps or cpu")
    parser.add_argument("--seed", type=seed, default=0, help="of weights, data and rollouts")
    parser.add_argument("--out", metavar="DIR", help="tables, figures and weights (default: runs/NAME-PRESET)")
    parser.add_argument("--publish", metavar="DIR",
        help="folder to copy the finished tables and their provenance to; from a commit only")  # fmt: skip
    add_executor(parser)
    parser.add_argument("--no-figures", action="store_true", help="tables only")


def _lines() -> list[str]:
    """A line for every experiment; of those that another command runs, it says which."""
    width = max(map(len, EXPERIMENTS)) + 2
    return [
        f"  {name:<{width}}{each.shows}" + ("" if name in TRAINED else f" ({each.runs})")
        for name, each in EXPERIMENTS.items()
    ]


def run(args: argparse.Namespace) -> int:
    """Runs the experiment, or goes on with it where it stopped; prints its tables' headline and where they lie."""
    if args.list:
        print("\n".join(line.strip() for line in _lines()))
        return 0
    if args.name is None:
        raise ValueError("name an experiment (--list shows them), or 'all'")
    chosen = {name: experiment(name) for name in (TRAINED if args.name == "all" else [args.name])}

    from pathlib import Path

    from arvdm_theory.executors import executing
    from arvdm_theory.experiments.findings import write_findings
    from arvdm_theory.experiments.networks import Setting
    from arvdm_theory.experiments.pages import write_page
    from arvdm_theory.files import check_folder
    from arvdm_theory.provenance import provenance, require_clean
    from arvdm_theory.report.page import command_line
    from arvdm_theory.training.devices import resolve_device

    for option, place in (("--out", args.out), ("--publish", args.publish)):
        check_folder(option, place)
    if args.publish is not None:
        if len(chosen) > 1:
            raise ValueError("--publish takes one experiment: give its name in place of 'all'")
        require_clean()
    resolve_device(args.device)
    for name, each in chosen.items():
        folder = Path(f"runs/{name}-{args.preset}" if args.out is None else args.out)
        if args.out is not None and len(chosen) > 1:
            folder = folder / name
        setting = Setting(args.preset, folder, args.seed, args.device)
        module = each.module("run")
        with executing(args.workers, args.dask):
            tables = module.run(setting)
        print(f"{name} ({args.preset}): {each.shows}")
        print(module.headline(tables))
        write_findings(name, folder)
        drawn = []
        if not args.no_figures:
            from arvdm_theory.report.style import draw_all

            drawn = draw_all(folder, each.figures)
            print("figures: " + ", ".join(str(path) for path in drawn))
        words = ["arvdm", "experiment", name, "--preset", args.preset, "--seed", str(args.seed), "--out", folder]
        page = write_page(
            folder, f"Experiment {name}", [each.shows], module.headline(tables), tables, drawn,
            command_line(words), provenance({"preset": args.preset}, args.seed, args.device),
            {figure: table for figure, (table, _) in each.figures.items()},
        )  # fmt: skip
        if args.publish is not None:
            from arvdm_theory.report.style import publish

            publish([*folder.glob("*.csv"), *folder.glob("*.provenance.json")], Path(args.publish))
        print(f"tables with their provenance, and weights, in {folder}; all of it on one page: {page}\n")
    return 0
