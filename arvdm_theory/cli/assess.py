"""``arvdm assess``: clips, and a network and scheduler of one's own, assessed; ends in a report."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from arvdm_theory.cli.arguments import seed, whole
from arvdm_theory.cli.plan_options import add_plan, chosen_plan, plan_files

if TYPE_CHECKING:
    from arvdm_theory.plan.plan import Plan

__all__ = ["configure", "run"]

EXAMPLES = (
    "arvdm assess demo/clip1.mp4 demo/clip2.mp4 demo/clip3.mp4 --size 16x16 --modes 4 --ar-steps 3 --references 2 "
    "--reverse-steps 5 --init-steps 5 --out demo/assessment",
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.epilog = (
        "--network MODULE:CALLABLE imports MODULE, from the folder that the command runs in, too, and calls "
        "CALLABLE without arguments: that is code, and it is run. It returns a score of arvdm_theory (a "
        "NetworkScore, say), or, with --scheduler, a network that is called as those of diffusers are. Levels "
        "of a plan are those of the clips' pixels in [-1, 1]. DIR/report.html is one page that asks no network "
        "for anything; DIR/report.json holds the same numbers. What is in DIR already, of the same question, is "
        "not computed again."
    )
    add = parser.add_argument
    add("clips", nargs="+", metavar="CLIP", help="a video (mp4, ...), an .npz with the array 'video', or an .npy")
    add("--network", metavar="MODULE:CALLABLE", help="what makes the network; left out: what any network faces")
    add("--scheduler", metavar="FILE.json",
        help="a diffusers scheduler_config.json: the plan's levels, and what the network is told")  # fmt: skip
    add("--layout", default="BCFHW", choices=("BCFHW", "BFCHW", "BCHW", "BFD"), help="of the network's frames")
    add("--space", default="pictures", choices=("pictures", "modes"),
        help="what the network takes: pictures, or the fitted video's modes")  # fmt: skip
    add("--stride", type=whole(1), metavar="Δ", help="new frames an AR step, with --scheduler (the window)")
    add("--step", metavar="STEP", help="the reverse step (the scheduler's, or exponential)")
    add("--region", metavar="X,Y,W,H", help="this part of the picture (all of it)")
    add("--left-half", action="store_true", help="the left half of a picture that shows two side by side")
    add("--grey", action="store_true", help="brightness, not colour")
    add("--size", metavar="HxW", help="average pictures down to this size")
    add("--modes", type=whole(1), default=8, metavar="K", help="spatial modes of the fitted video")
    add("--ar-steps", type=whole(1), default=6, metavar="K", help="AR steps")
    add("--samples", type=whole(2), default=512, metavar="N", help="true windows that the network is asked about")
    add("--seed", type=seed, default=0, help="of all that is drawn")
    add("--budget", type=float, default=600.0, metavar="SECONDS", help="after which no further part is begun")
    add("--out", default="assessment", metavar="DIR", help="where the report goes")
    add_plan(parser)


def run(args: argparse.Namespace) -> int:
    """Assesses, writes the report, and prints its summary."""
    from pathlib import Path

    from tqdm import tqdm

    from arvdm_theory.assessment.run import assess
    from arvdm_theory.data.clips import ClipError, Region, parse_size, prepare, read_frames
    from arvdm_theory.files import check_folder, read_json
    from arvdm_theory.limits import require
    from arvdm_theory.report.page import command_line

    if not args.budget > 0:
        raise ValueError(f"--budget must be positive, got {args.budget}")
    check_folder("--out", args.out)
    size = None if args.size is None else parse_size(args.size)
    region = None if args.region is None else Region.parse(args.region)
    scheduler = None if args.scheduler is None else read_json(args.scheduler)
    plan = _plan(args, scheduler)
    network = None if args.network is None else _made(args.network)
    clips = []
    for path in tqdm(args.clips, "reading clips", disable=None, leave=False):
        frames = read_frames(path)
        require(f"assessing {len(frames)} frames of {path}", memory=4 * 8.0 * frames.size)
        try:
            clips.append(prepare(frames, region=region, left_half=args.left_half, grey=args.grey, size=size))
        except ClipError as error:
            raise ClipError(f"{path}: {error}") from error
        require(f"a fit of {path}", memory=6 * 8.0 * sum(clip.size for clip in clips))
    with tqdm(bar_format="{desc} ({elapsed})", disable=None, leave=False) as bar:
        report = assess(
            clips, network, plan, scheduler=scheduler, layout=args.layout, space=args.space, modes=args.modes,
            ar_steps=args.ar_steps, step=args.step, samples=args.samples, seed=args.seed, budget=args.budget,
            out=Path(args.out), names=args.clips, command=command_line(_words(args)),
            progress=bar.set_description_str,
        )  # fmt: skip
    print("\n".join(f"- {line}" for line in report.summary))
    print(f"\n{Path(args.out) / 'report.html'} and report.json")
    return 0


def _words(args: argparse.Namespace) -> list[str]:
    """The command as it was given."""
    return ["arvdm", *sys.argv[1:]] if sys.argv[1:2] == ["assess"] else ["arvdm", "assess", *args.clips]


def _plan(args: argparse.Namespace, scheduler: Any) -> Plan:
    """The plan of a file or of the options; of the scheduler's levels if there is one and no plan."""
    if scheduler is None or args.plan is not None or args.method is not None:
        if args.stride is not None:
            raise ValueError("--stride is for a plan that is made of --scheduler")
        plan_files(args)
        return chosen_plan(args)
    from arvdm_theory.adapters.diffusers import plan_from_scheduler
    from arvdm_theory.plan.references import References

    for name in ("schedule", "spacing", "floor", "settings", "init_steps"):
        if getattr(args, name) is not None:
            raise ValueError(f"--{name.replace('_', '-')} and --scheduler both say the plan's levels")
    window = 2 if args.window is None else args.window
    count = 4 if args.references is None else args.references
    steps = 20 if args.reverse_steps is None else args.reverse_steps
    rule = References.last(count, args.reference_level or 0.0)
    stride = window if args.stride is None else args.stride
    return plan_from_scheduler(scheduler, steps, window, stride, rule, horizon=args.horizon)


def _made(text: str) -> Any:
    """What MODULE:CALLABLE returns."""
    import importlib
    from pathlib import Path

    name, _, attribute = text.partition(":")
    if not name or not attribute:
        raise ValueError(f"--network is MODULE:CALLABLE, got {text!r}")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        module = importlib.import_module(name)
    except Exception as error:
        raise ValueError(f"--network: {name} cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(here)
    build: Any = module
    for part in attribute.split("."):
        if not hasattr(build, part):
            raise ValueError(f"--network: {name} has no {attribute}")
        build = getattr(build, part)
    if not callable(build):
        raise ValueError(f"--network: {text} cannot be called")
    try:
        return build()
    except Exception as error:
        raise ValueError(f"--network: {text}() failed: {type(error).__name__}: {error}") from error
