"""``arvdm needle``: memory bottleneck and best retrieval rate of a needle in a haystack."""

from __future__ import annotations

import argparse

from arvdm_theory.cli.arguments import seed, whole

EXAMPLES = ("arvdm needle --world torus --cells 9 --frames 40 --out demo/needle",)


def _lengths(text: str) -> tuple[int, ...]:
    """Memory lengths from a list like 0,1,2,8."""
    try:
        return tuple(whole()(word) for word in text.split(","))
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"memory lengths are whole numbers like 0,1,2,8, got {text!r}") from None


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    add = parser.add_argument
    add("--world", choices=("ring", "torus", "maze"), default="ring", help="the map")
    add("--cells", type=whole(), default=12, metavar="N", help="cells of the map")
    add("--colours", type=whole(), default=4, metavar="C", help="colours a cell may have, all equally likely")
    add("--frames", type=whole(), default=60, metavar="F", help="frames of a video")
    add("--path", choices=("given", "random"), default="random",
        help="given: a tour that explores the map; random: a random walk")  # fmt: skip
    add("--references", type=_lengths, default="0,1,2,4,6,8,12,16,24,32", metavar="M,M,..", dest="memory",
        help="how many last frames are seen, one result each")  # fmt: skip
    add("--view", choices=("patch", "topdown", "firstperson"), default="patch", help="what a frame shows")
    add("--size", type=whole(), default=16, metavar="P", help="pixels a side")
    add("--window", type=whole(), default=1, metavar="W", help="frames that an AR step makes at once")
    add("--stay", type=float, default=0.0, metavar="S", help="the random walk's probability of standing still")
    add("--guess", choices=("best", "sample"), default="best",
        help="best: the best generator; sample: one that samples the true conditional")  # fmt: skip
    add("--walks", type=whole(), default=1000, metavar="N", help="games played for each memory length; 0: none")
    add("--seed", type=seed, default=0, help="of the maze and of the games")
    add("--json", metavar="OUT.json", help="write the result here")
    add("--out", default="runs/needle", metavar="DIR", help="folder for needle.png")


def run(args: argparse.Namespace) -> int:
    """Prints the table, draws needle.png and writes the JSON."""
    from pathlib import Path

    from arvdm_theory.experiments.retrieval.figures import draw_needle
    from arvdm_theory.experiments.retrieval.run import NeedleConfig, headline, run_needle, write_needle
    from arvdm_theory.files import check_folder, check_outputs

    config = NeedleConfig(
        world=args.world, cells=args.cells, colours=args.colours, frames=args.frames, path=args.path,
        memory=args.memory, view=args.view, size=args.size, window=args.window, stay=args.stay, guess=args.guess,
        walks=args.walks, seed=args.seed,
    )  # fmt: skip
    check_outputs({"--json": args.json})
    check_folder("--out", args.out)
    _afford(args)
    result = run_needle(config)
    if args.json is not None:
        write_needle(result, args.json)
    picture = Path(args.out) / "needle.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    draw_needle(result, picture)
    print(headline(result))
    print(f"drawn: {picture}")
    return 0


def _afford(args: argparse.Namespace) -> None:
    """Refuses what would take too long; times of one core, to a factor of a few."""
    from arvdm_theory.limits import require

    frames, longest, cells = args.frames, max(args.memory, default=0), args.cells
    played = float(args.walks) * frames * len(args.memory)
    seconds = frames * longest * (1.3e-5 + 6e-8 * longest) + 6e-8 * cells**3 + played * (7e-7 + 2e-8 * cells)
    memory = 8.0 * (args.walks * (frames + cells) + 4 * cells**2 + 40 * args.size**2)
    require(f"{frames} frames on {cells} cells, {args.walks} walks,", seconds=seconds, memory=memory)
