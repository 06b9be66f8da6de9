"""``arvdm simulate``: episodes of a simulator to the disk, in the layout of the public data sets."""

from __future__ import annotations

import argparse
import importlib
from typing import Literal

from arvdm_theory.cli.arguments import seed, whole

__all__ = ["configure", "run"]

_MODULES = {"dmlab": "dmlab", "minecraft": "voxel"}
_SIZES = {"dmlab": 64, "minecraft": 128}
_LAYOUTS: dict[str, Literal["npz", "mp4"]] = {"dmlab": "npz", "minecraft": "mp4"}

EXAMPLES = ("arvdm simulate dmlab --episodes 4 --frames 60 --trajectory turn --out demo/episodes",)


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options; imports nothing heavy."""
    parser.epilog = (
        "Both are stand-ins, not the originals. The files are laid out as TECO's: {train,test}/SHARD/EPISODE.npz "
        "for dmlab, .mp4 with an .npz beside it for minecraft. The .npz also holds the poses and the needles: "
        "pairs of frames (seen, queried) of equal pose that lie further apart than --context. Action t leads to "
        "frame t + 1. Actions: 0 turns left, 1 turns right, 2 goes forward. Run again, the command makes only "
        "what is missing."
    )
    add = parser.add_argument
    add("simulator", choices=list(_MODULES), help="which stand-in")
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
    add("--between", action="store_true", help="ask for poses halfway between remembered ones, too")
    add(
        "--engine",
        choices=("own", "luanti"),
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

    if args.engine == "luanti" and args.simulator != "minecraft":
        raise ValueError(f"Luanti draws minecraft's landscapes alone, not those of {args.simulator}")
    engine = _MODULES[args.simulator] if args.engine == "own" else args.engine
    module = f"arvdm_theory.video.simulators.{engine}"
    try:
        make = importlib.import_module(module).simulator
    except ModuleNotFoundError as error:
        raise ValueError(f"there is no simulator for {args.simulator} in this version ({error})") from error
    simulator = make(_SIZES[args.simulator] if args.size is None else args.size)
    trajectory = Trajectory(args.trajectory, args.frames, args.context, args.between)
    test = -(-args.episodes // 10) if args.test_episodes is None else args.test_episodes
    check_folder("--out", args.out)
    _afford(args, simulator.size, args.episodes + max(test, 0))
    recording = Recording(simulator, trajectory, args.seed, _LAYOUTS[args.simulator])
    finished = recording.write(args.out, args.episodes, test, args.workers)
    for _ in tqdm(finished, "episodes", args.episodes + test, disable=None, leave=False):
        pass
    print(f"{args.episodes} training and {test} test episodes of the {simulator.name} in {args.out}")
    return 0


def _afford(args: argparse.Namespace, size: int, episodes: int) -> None:
    """Refuses what would take too long or not fit; times of one core, to a factor of a few."""
    from arvdm_theory.limits import require

    a_frame = 3e-3 + (5e-8 if args.simulator == "dmlab" else 1.3e-6) * size**2
    seconds = a_frame * args.frames * episodes / max(args.workers, 1)
    memory = 4 * 3.0 * args.frames * size**2 * max(args.workers, 1)
    require(f"{episodes} episodes of {args.frames} frames of {size}x{size}", seconds=seconds, memory=memory)
