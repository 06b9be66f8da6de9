"""``arvdm simulate``: episodes of a simulator to the disk, in the layout of the public data sets."""

from __future__ import annotations

import argparse

from arvdm_theory.cli.arguments import seed, whole
from arvdm_theory.video.simulators import SIMULATORS, make_simulator

__all__ = ["configure", "run"]

EXAMPLES = ("arvdm simulate dmlab --episodes 4 --frames 60 --trajectory turn --out demo/episodes",)


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options; imports nothing heavy."""
    parser.epilog = (
        "dmlab and minecraft are stand-ins, not the originals; doom draws mazes by the Doom engine. The files are "
        "laid out as TECO's: {train,test}/SHARD/EPISODE.npz, for minecraft .mp4 with an .npz beside it. The .npz "
        "also holds the poses and the needles: "
        "pairs of frames (seen, queried) of equal pose that lie further apart than --context. Action t leads to "
        "frame t + 1. Actions: 0 turns left, 1 turns right, 2 goes forward. Run again, the command makes only "
        "what is missing."
    )
    add = parser.add_argument
    add("simulator", choices=list(SIMULATORS), help="which videos")
    add("--episodes", type=whole(), default=100, metavar="N", help="episodes of the training split")
    add("--test-episodes", type=whole(), default=None, metavar="N", help="of the test split (default: a tenth)")
    add("--seed", type=seed, default=0, metavar="S", help="of the whole data set")
    add("--out", required=True, metavar="DIR", help="folder for the data set")
    add("--size", type=whole(), default=None, metavar="PX", help="height and width (default: 64, minecraft 128)")
    add("--frames", type=whole(), default=300, metavar="T", help="frames of an episode")
    add("--trajectory", choices=("turn", "walk", "explore"), default="explore", help="how to walk")
    add(
        "--context",
        type=whole(1),
        default=16,
        metavar="W",
        help="needles lie further back than so many frames",
    )
    add("--slip", type=float, default=0.0, metavar="S",
        help="relative standard deviation of what a step does: no view is met twice, and actions add up to less "
        "than where one is")  # fmt: skip
    add("--between", action="store_true", help="ask for poses halfway between remembered ones, too")
    add(
        "--engine",
        choices=sorted({engine for kind in SIMULATORS.values() for engine in kind.engines}),
        default="own",
        help="draw minecraft's landscapes by the ray caster here, or by Luanti, where that and Xvfb are installed",
    )
    add("--workers", type=whole(), default=0, metavar="P", help="processes; 0 works in this one")


def run(args: argparse.Namespace) -> int:
    """Makes what is missing."""
    from tqdm import tqdm

    from arvdm_theory.files import check_folder
    from arvdm_theory.video.simulators.recording import Recording
    from arvdm_theory.video.simulators.trajectories import Trajectory

    kind = SIMULATORS[args.simulator]
    simulator = make_simulator(args.simulator, kind.size if args.size is None else args.size, args.engine)
    trajectory = Trajectory(args.trajectory, args.frames, args.context, args.between, args.slip)
    test = -(-args.episodes // 10) if args.test_episodes is None else args.test_episodes
    check_folder("--out", args.out)
    _afford(args, simulator.size, args.episodes + max(test, 0))
    recording = Recording(simulator, trajectory, args.seed, kind.layout)
    finished = recording.write(args.out, args.episodes, test, args.workers)
    for _ in tqdm(finished, "episodes", args.episodes + test, disable=None, leave=False):
        pass
    print(f"{args.episodes} training and {test} test episodes of the {simulator.name} in {args.out}")
    return 0


def _afford(args: argparse.Namespace, size: int, episodes: int) -> None:
    """Refuses what would take too long or not fit; times of one core, to a factor of a few."""
    from arvdm_theory.limits import require

    fixed, a_pixel = SIMULATORS[args.simulator].seconds
    a_frame = fixed + a_pixel * size**2
    seconds = a_frame * args.frames * episodes / max(args.workers, 1)
    memory = 4 * 3.0 * args.frames * size**2 * max(args.workers, 1)
    require(f"{episodes} episodes of {args.frames} frames of {size}x{size}", seconds=seconds, memory=memory)
