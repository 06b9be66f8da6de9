"""``arvdm memory``: which past frames to hold, and how finely, under a budget of frames or of nats."""

from __future__ import annotations

import argparse
import math

from arvdm_theory.cli.arguments import whole
from arvdm_theory.cli.plan_options import add_plan, chosen_plan, plan_files
from arvdm_theory.cli.video_options import add_video, chosen_video, video_files

__all__ = ["configure", "run"]

EXAMPLES = (
    "arvdm memory --covariance demo/covariance.npy --frame-dim 2 --ar-step 3 --frames 2 --nats 1,4 "
    "--figure demo/memory.png",
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.epilog = (
        "Lag 1 is the newest frame that is out. What is left is the memory bottleneck I(Output; Past | Input, "
        "what is held) in nats; the plan's own references are shown beside it, and otherwise do not matter."
    )
    add_video(parser)
    add_plan(parser)
    add = parser.add_argument
    add("--ar-step", type=whole(1), default=8, metavar="k", help="of which AR step")
    add("--frames", type=whole(1, 1000), default=4, metavar="m", help="the most frames to hold")
    add("--newest", type=whole(1, 10_000), metavar="N", help="choose among the N newest frames (all that are out)")
    add("--nats", default="0.5,1,2,4,8", metavar="R,R,...", help="budgets in nats")
    add("--json", metavar="OUT.json", help="write both frontiers here")
    add("--figure", metavar="OUT.png", help="draw both frontiers here")


def run(args: argparse.Namespace) -> int:
    """Prints both frontiers, and writes them."""
    from arvdm_theory.choose.memory import MemoryChoice, frame_frontier, nats_frontier
    from arvdm_theory.cli.tables import show_table
    from arvdm_theory.decomposition.ledger import memory_bottleneck
    from arvdm_theory.files import check_outputs, write_json
    from arvdm_theory.limits import require

    budgets = _budgets(args.nats)
    check_outputs({"--json": args.json, "--figure": args.figure}, [*video_files(args), *plan_files(args)])
    plan, video = chosen_plan(args), chosen_video(args)
    frames = plan.total_frames(args.ar_step)
    video.require(frames)
    entries = float(frames * video.frame_dim)
    require(f"the law of {frames} frames", memory=60.0 * entries**2, seconds=2e-9 * entries**3)
    choice = MemoryChoice.of(video, plan, args.ar_step, args.newest)
    if args.frames > choice.past:
        raise ValueError(f"--frames {args.frames}: there are {choice.past} to choose among")
    held, nats = frame_frontier(choice, args.frames), nats_frontier(choice, budgets)
    alone = [
        {"lag": lag, "alone": choice.information([lag]), "told": choice.lag_frontier(lag, budgets)}
        for lag in range(1, choice.past + 1)
    ]
    own = memory_bottleneck(video, plan, args.ar_step)
    if args.json is not None:
        write_json(args.json, {
            "nothing_held": choice.total, "own_references": float(own),
            "submodularity_ratio": choice.submodularity_ratio, "frames": held.to_dict(orient="records"),
            "nats": nats.to_dict(orient="records"), "budgets": budgets, "lags": alone,
        })  # fmt: skip
    if args.figure is not None:
        from pathlib import Path

        from arvdm_theory.report.choices import memory_frontier
        from arvdm_theory.report.style import save, style

        with style():
            save(memory_frontier(held, nats), Path(args.figure))
    print(
        f"AR step {args.ar_step} of {plan.name}, {choice.past} frames out, in nats: {choice.total:.6g} are lost "
        f"with nothing held, {float(own):.6g} with the plan's own references"
    )
    print("\nbottleneck left by frames held (floor: by any memory of so many numbers; bound: by any such frames):")
    wide = held.pivot_table(index="frames", columns="family", values="mb", sort=False)
    wide.columns.name = None
    best = held[held.family == "best"].set_index("frames")
    show_table(wide.join(best[["floor", "bound", "lags"]]), "{:.5g}".format, index=True)
    certified = best[best.certificate != "all selections"]
    if len(certified):
        print(
            "not all selections were looked at: the best is greedy's, with exchanges; bounds by "
            + ", ".join(sorted(set(certified.certificate)))
            + f" (the information is submodular to a ratio of {choice.submodularity_ratio:.3g} at least)"
        )
    print("\nbottleneck left by nats held (floor: by any memory; levels of noise by lag):")
    show_table(nats, "{:.5g}".format)
    return 0


def _budgets(text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = [math.nan]
    if not all(0 < budget < math.inf for budget in found):
        raise ValueError(f"--nats: positive numbers with commas between are expected, as in 0.5,2, got {text!r}")
    return found
