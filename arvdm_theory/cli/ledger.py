"""``arvdm ledger``: the exact error decomposition of one's own covariance or fitted clip."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

from arvdm_theory.cli.arguments import whole
from arvdm_theory.cli.plan_options import SHAPED, add_plan, chosen_plan, plan_files
from arvdm_theory.cli.video_options import add_video, chosen_video, video_files

if TYPE_CHECKING:
    from arvdm_theory import GaussianVideo, Plan, Result
    from arvdm_theory.decomposition.recursion import Rates


# The saturating bound of every AR step costs the square of their number.
_MOST_LOOPS = 40
# The longest that a grid is looked for where none was asked for.
_SEARCH_SECONDS = 20.0

EXAMPLES = (
    "arvdm ledger --covariance demo/covariance.npy --frame-dim 2 --references 2",
    "arvdm ledger --covariance demo/covariance.npy --frame-dim 2 --method fifo --window 4 --json -",
    "arvdm ledger --covariance demo/covariance.npy --frame-dim 2 --plan longlive --ar-steps 2",
    "arvdm ledger --covariance demo/covariance.npy --frame-dim 2 --figure demo/ledger.pdf",
    "arvdm ledger --known ar1:0.9 --method fifo --window 4 --references 2 --rates",
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.epilog = (
        "--spacing optimal looks for the grid of least KL for this video. A fitted video is given it where "
        "nothing is said of the sampler (steps, spacing, schedule, plan, --step): on real clips uniform steps "
        "drown what the plan costs in discretisation. --step ancestral has no such error: for questions of memory."
    )
    add_video(parser)
    parser.add_argument("--ar-steps", type=whole(), default=5, metavar="K", help="AR steps")
    parser.add_argument("--step", metavar="STEP",
                        help="the reverse step: exponential (the default), euler, ancestral, ddpm, ddpm-large, "
                        "ddim, ddim:η (η in [0, 1]), renoise, heun or dpm++2m")  # fmt: skip
    parser.add_argument("--score-error", type=float, default=0.0, metavar="E",
                        help="e of the score s*(W, R) - e W, in both stages")  # fmt: skip
    parser.add_argument(
        "--girsanov-points",
        type=whole(most=10_000),
        default=12,
        metavar="N",
        help="0: leave the Girsanov form and the closed bound out; their integrals are exact for any other N",
    )
    add_plan(parser)
    parser.add_argument("--rates", action="store_true",
                        help="also what a further frame costs at the infinite horizon, in nats a frame; refused "
                        "where nothing converges geometrically")  # fmt: skip
    parser.add_argument("--json", metavar="OUT.json", help="write the result here")
    parser.add_argument("--figure", metavar="OUT.png", help="draw the terms of every AR step here")


def run(args: argparse.Namespace) -> int:
    """Prints the ledger and writes its JSON."""
    from arvdm_theory.decomposition.ledger import ledger
    from arvdm_theory.decomposition.recursion import rates
    from arvdm_theory.diffusion.scores import PerturbedScore
    from arvdm_theory.diffusion.steps import reverse_step
    from arvdm_theory.files import check_outputs, write_json

    if args.ar_steps < 1:
        raise ValueError(f"--ar-steps must be at least 1, got {args.ar_steps}")
    if args.girsanov_points < 0:
        raise ValueError(f"--girsanov-points must not be negative, got {args.girsanov_points}")
    optimal = _wants_optimal(args)
    reverse_step(args.step)  # said before anything is read
    if not math.isfinite(args.score_error):
        raise ValueError(f"--score-error must be finite, got {args.score_error}")
    check_outputs({"--json": args.json, "--figure": args.figure}, [*video_files(args), *plan_files(args)])
    plan, video = chosen_plan(args), chosen_video(args)
    _afford(video, plan, args.ar_steps)
    told = ""
    if optimal:
        video.require(plan.total_frames(args.ar_steps))
        plan, told = _best_grid(video, plan, args.step)
    score = PerturbedScore(args.score_error) if args.score_error else None
    limit = rates(video, plan, score, args.step) if args.rates else None
    result = ledger(video, plan, args.ar_steps, score=score, step=args.step,
                    girsanov=args.girsanov_points > 0, accumulation=args.ar_steps <= _MOST_LOOPS,
                    attribution=True, progress=args.ar_steps >= 50)  # fmt: skip
    if args.ar_steps > _MOST_LOOPS:
        result.notes["accumulation_bound"] = f"left out beyond {_MOST_LOOPS} AR steps"
    if told:
        result.notes["levels"] = told
    if args.json is not None:
        write_json(args.json, result.to_dict() | ({} if limit is None else {"rates": limit.to_dict()}))
    if args.figure is not None:
        from pathlib import Path

        from arvdm_theory.report.ledger import ledger_steps
        from arvdm_theory.report.style import save, style

        with style():
            save(ledger_steps(result.table), Path(args.figure))
    _print(result)
    if limit is not None:
        _print_rates(limit)
    return 0


def _wants_optimal(args: argparse.Namespace) -> bool:
    """Whether the levels are to be those of least KL: asked for, or a fitted video and no word on the sampler."""
    said = (args.step, args.reverse_steps, args.init_steps, args.spacing, args.schedule, args.plan, args.settings)
    args.step = args.step or "exponential"
    if args.spacing == "optimal":
        args.spacing = None
        return True
    return args.video is not None and all(word is None for word in said) and args.method in (None, *SHAPED)


def _best_grid(video: GaussianVideo, plan: Plan, step: str) -> tuple[Plan, str]:
    """The plan with the grid of least KL over two AR steps, and a word on it.

    Uniform steps do badly on real clips, whose modes differ by decades: what is asked of the plan would drown in
    their discretisation. Where the search would take long, it is the geometric grid, the best there of those that
    are chosen by hand.
    """
    from arvdm_theory.choose.schedules import hand_grids, optimal_schedule

    ar_steps, steps = 2, plan.init_steps + 2 * plan.reverse_steps
    frames = plan.total_frames(ar_steps) * video.frame_dim
    local = (plan.window + len(plan.references_at(ar_steps))) * video.frame_dim
    once = 2e-10 * ar_steps * float(frames) ** 3 + steps * (2e-4 + 4e-9 * float(local) ** 3)
    if 100 * once > _SEARCH_SECONDS:
        return hand_grids(plan)[
            "geometric"
        ], "geometric: the best grid of a video this large takes a while to find"
    found = optimal_schedule(video, plan, ar_steps, step=step, iterations=24, starts=("geometric",))
    told = (
        f"the grid of least KL (--spacing optimal): {found.value:.4g} over {ar_steps} AR steps, where uniform "
        f"steps have {found.baselines['uniform']:.4g}"
    )
    return found.plan, told


def _afford(video: GaussianVideo, plan: Plan, ar_steps: int) -> None:
    """Refuses what would take too long; times of one core, to a factor of a few."""
    from arvdm_theory.decomposition.recursion import recursive_form
    from arvdm_theory.limits import require

    dimension, begin = video.frame_dim, plan.repeats_from
    if begin is not None and not isinstance(recursive_form(video, plan), str):
        ar_steps = min(ar_steps, begin + 32)  # the rest are recursions
    frames = plan.window + plan.stride * (ar_steps + 1)
    seen = plan.references.most
    local = (plan.window + min(frames, frames if seen is None else seen)) * dimension
    steps = plan.init_steps + ar_steps * plan.reverse_steps
    # The law of a whole clip at every AR step, and of the window with its references at every reverse step.
    seconds = 5e-11 * ar_steps * float(frames * dimension) ** 3 + steps * (5e-5 + 1e-9 * float(local) ** 3)
    memory = 8.0 * (6.0 * (frames * dimension) ** 2 + 4.0 * steps * local)
    require(f"the ledger of {frames} frames of dimension {dimension}", memory=memory, seconds=seconds)


def _print_rates(limit: Rates) -> None:
    """The rates as text, the least first."""
    names = {
        "mb": "memory bottleneck",
        "floor": "what no sampler of the plan beats",
        "ar_step": "errors of whole AR steps",
        "kl": "KL of the clean frames",
        "trajectory": "KL of the trajectory",
        "girsanov": "Girsanov form",
        "closed": "closed bound",
    }
    found = limit.to_dict()
    lines = ["", "at the infinite horizon, in nats a frame:"]
    lines += [f"  {text:<46} {found[key]:.6g}" for key, text in names.items() if found[key] is not None]
    clip = "grows without end" if found["clip"] is None else f"{found['clip']:.6g}"
    apart = "" if found["clip_w2"] is None else f" (W_2 {found['clip_w2']:.6g})"
    print("\n".join([*lines, f"and the KL of one clip, in nats: {clip}{apart}"]))


def _print(result: Result) -> None:
    """The ledger as text: a row an AR step, then the totals from below to above."""
    from arvdm_theory.cli.tables import show_table

    steps = result.table[result.table.stage == "ar"]
    wide = steps.pivot_table(index="ar_step", columns="term", values="value", sort=False)
    first = result.table[result.table.stage == "init"]
    started = ", ".join(
        f"{term.removesuffix('_INIT')} {value:.6g}"
        for term, value in zip(first["term"].astype(str), first["value"], strict=True)
    )
    wide.columns.name = None
    # Its parts stand below, added up.
    wide = wide.drop(columns=[name for name in wide if str(name).startswith("AR_STEP_")])
    show_table(wide, "{:.4g}".format, index=True)
    lines = [f"initialisation: {started}", "", "in nats:"]
    if told := result.notes.get("levels"):
        lines.insert(0, f"levels: {told}")
    names = {
        "floor": "what no sampler of the plan beats",
        "lower_bound": "IE + that, behind this first input",
        "kl": "KL of the clean frames",
        "ar_step_kl": "KL of the trajectory at the ends of AR steps",
        "trajectory_kl": "KL of the trajectory = the ledger's sum",
        "path_kl": "with IE replaced by its bound",
        "girsanov": "Girsanov form",
        "closed": "closed bound",
    }
    for key, text in names.items():
        value = result.totals[key]
        shown = f"{value:.6f}" if value is not None else f"not defined: {result.notes.get(key, '')}"
        lines.append(f"  {text:<46} {shown}")
    noted = [f"note: {result.notes[key]}" for key in ("video", "rounding") if key in result.notes]
    print("\n".join([*lines, *_attribution(result), *noted]))


def _attribution(result: Result) -> list[str]:
    """What the KL at the ends of AR steps is made of, where that is defined."""
    total = result.totals["ar_step_kl"]
    if total is None or not math.isfinite(total):
        return []
    parts = {
        "MB: of the past that the references do not tell": sum(result.column("MB")),
        "IE: the first input": result.totals["ie"] or 0.0,
        "NIE: new frames that begin as N(0, I)": sum(result.column("AR_STEP_NIE")),
        "DE: reverse steps of finite length": sum(result.column("AR_STEP_DE")),
        "SEE: the score's error": sum(result.column("AR_STEP_SEE")),
    }
    lines = ["", "that of the trajectory at the ends of AR steps is (NIE, DE and SEE switched on in this order):"]
    for text, value in parts.items():
        share = f"{value / total:7.1%}" if total > 0 else ""
        lines.append(f"  {text:<48} {value:12.6f} {share}")
    if "levels" not in result.notes and 2 * sum(result.column("AR_STEP_DE")) > total > 0:
        lines.append("most of it is discretisation: --spacing optimal takes the grid that is best for the video")
    return lines
