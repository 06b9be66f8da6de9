"""``arvdm video information``: what the memory of one trained network tells beyond that of another, in nats."""

from __future__ import annotations

import argparse

from arvdm_theory.cli.arguments import whole

__all__ = ["configure", "run"]

EXAMPLES = ("arvdm video information --run demo/cross --without demo/none --windows 8",)


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options; imports nothing heavy."""
    parser.epilog = (
        "The value is I(window at level --stop; memory | what the other network is shown), by I-MMSE: half the "
        "integral of the gap of the two networks' losses along the noise levels, on true test windows. It holds "
        "their training's excess losses as well, and can be negative; the interval is 95 %, by episode."
    )
    add = parser.add_argument
    add("--run", required=True, metavar="DIR", help="folder of the network with more memory")
    add("--without", required=True, metavar="DIR", help="folder of its twin with less memory, or none")
    add("--windows", type=whole(), metavar="N", default=None, help="how many test windows (default: 200)")
    add("--stop", type=float, metavar="LEVEL", default=None,
        help="noise level of the window that is asked about, on the unit OU clock (default: 0.1)")  # fmt: skip
    add("--json", metavar="FILE", default=None, help="write the value here")


def run(args: argparse.Namespace) -> int:
    """Evaluates both networks, writes, prints the value."""
    from pathlib import Path

    from arvdm_theory.files import check_outputs, write_json
    from arvdm_theory.provenance import provenance
    from arvdm_theory.training.checkpoint import load_denoiser
    from arvdm_theory.video.information import CLIPS, STOP, information_of_runs
    from arvdm_theory.video.runs import load_run, run_store

    if args.windows is not None and args.windows < 2:
        raise ValueError(f"--windows is at least 2, got {args.windows}")
    check_outputs({"--json": args.json})
    folders = [Path(args.run), Path(args.without)]
    own, other = (load_run(folder) for folder in folders)
    network, network_without = (load_denoiser(folder / "training") for folder in folders)
    clips, stop = CLIPS if args.windows is None else args.windows, STOP if args.stop is None else args.stop
    found = information_of_runs(
        own, network, other, network_without, run_store(folders[0]), clips=clips, stop=stop
    )  # fmt: skip
    frame, whole = found.per_frame, found.window
    if args.json is not None:
        values = {
            "nats": whole.value, "low": whole.ci_low, "high": whole.ci_high, "frames": found.frames,
            "nats_a_frame": frame.value, "stop": found.stop, "windows": whole.n, "episodes": found.clusters,
            "notes": list(whole.warnings),
        }  # fmt: skip
        config = {"run": str(folders[0]), "without": str(folders[1]), "windows": clips, "stop": stop}
        write_json(args.json, {**values, "provenance": provenance(config, seed=0)})
    for note in whole.warnings:
        print(f"note: {note}")
    print(
        f"{frame.value:.4g} nats a frame ({frame.ci_low:.4g} to {frame.ci_high:.4g}), {whole.value:.4g} in a "
        f"window of {found.frames}, at noise level {found.stop:g}; {whole.n} windows of {found.clusters} episodes"
    )
    return 0
