"""``arvdm ledger``: the exact error decomposition of one's own covariance or fitted clip."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

from arvdm_theory.cli.arguments import whole

if TYPE_CHECKING:
    from arvdm_theory import Result


# The saturating bound of every AR step costs the square of their number.
_MOST_LOOPS = 40


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--covariance", metavar="COV.npy", help="(N·d, N·d) covariance, frame-major, zero mean")
    source.add_argument("--video", metavar="FITTED.npz", help="a video that `arvdm fit` wrote")
    parser.add_argument("--frame-dim", type=whole(), metavar="D", help="d; needed with --covariance")
    parser.add_argument("--method", choices=("outpainting", "fifo"), default="outpainting",
                        help="outpainting: stride = window; fifo: stride 1, input levels jT/w")  # fmt: skip
    parser.add_argument("--window", type=whole(), default=2, metavar="W", help="w, frames in the window")
    parser.add_argument("--references", type=whole(), default=1, metavar="M", help="how many last frames are seen")
    parser.add_argument("--reference-level", type=float, default=0.0, metavar="RHO",
                        help="level the references are noised to, afresh at every AR step")  # fmt: skip
    parser.add_argument("--ar-steps", type=whole(), default=5, metavar="K", help="AR steps")
    parser.add_argument("--reverse-steps", type=whole(), default=20, metavar="N", help="reverse steps an AR step")
    parser.add_argument("--init-steps", type=whole(), default=20, metavar="N",
                        help="reverse steps of the initialisation stage")  # fmt: skip
    parser.add_argument("--horizon", type=float, default=6.0, metavar="T", help="T, the level of pure noise")
    parser.add_argument("--step", default="exponential", metavar="STEP",
                        help="the reverse step: exponential, euler, ancestral, ddpm, ddpm-large, ddim, ddim:η "
                        "(η in [0, 1]), renoise, heun or dpm++2m")  # fmt: skip
    parser.add_argument("--score-error", type=float, default=0.0, metavar="E",
                        help="e of the score s*(W, R) - e W, in both stages")  # fmt: skip
    parser.add_argument(
        "--girsanov-points",
        type=whole(most=10_000),
        default=12,
        metavar="N",
        help="0: leave the Girsanov form and the closed bound out; their integrals are exact for any other N",
    )
    parser.add_argument("--json", metavar="OUT.json", help="write the result here")
    parser.add_argument("--figure", metavar="OUT.png", help="draw the terms of every AR step here")


def run(args: argparse.Namespace) -> int:
    """Prints the ledger and writes its JSON."""
    from arvdm_theory.arrays import load_array
    from arvdm_theory.decomposition.ledger import ledger
    from arvdm_theory.diffusion.scores import PerturbedScore
    from arvdm_theory.diffusion.steps import reverse_step
    from arvdm_theory.files import check_outputs, write_json
    from arvdm_theory.laws.gaussian import ArrayVideo, GaussianVideo
    from arvdm_theory.plan.methods import fifo, outpainting
    from arvdm_theory.plan.references import References

    for name in ("window", "ar_steps", "reverse_steps", "init_steps"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(args, name)}")
    if args.references < 0 or args.girsanov_points < 0:
        raise ValueError("--references and --girsanov-points must not be negative")
    reverse_step(args.step)  # said before anything is read
    if not math.isfinite(args.score_error):
        raise ValueError(f"--score-error must be finite, got {args.score_error}")
    check_outputs({"--json": args.json, "--figure": args.figure}, [args.covariance, args.video])
    video: GaussianVideo
    if args.video is not None:
        from arvdm_theory.laws.fitted import load_fitted

        video = load_fitted(args.video)
    else:
        if args.frame_dim is None:
            raise ValueError("--covariance needs --frame-dim")
        video = ArrayVideo(load_array(args.covariance), args.frame_dim, name=str(args.covariance))
    _afford(args, video.frame_dim)
    build = outpainting if args.method == "outpainting" else fifo
    references = References.last(args.references, args.reference_level)
    plan = build(args.window, references, args.reverse_steps, args.init_steps, args.horizon)
    score = PerturbedScore(args.score_error) if args.score_error else None
    result = ledger(video, plan, args.ar_steps, score=score, step=args.step,
                    girsanov=args.girsanov_points > 0, accumulation=args.ar_steps <= _MOST_LOOPS,
                    progress=args.ar_steps >= 50)  # fmt: skip
    if args.ar_steps > _MOST_LOOPS:
        result.notes["accumulation_bound"] = f"left out beyond {_MOST_LOOPS} AR steps"
    if args.json is not None:
        write_json(args.json, result.to_dict())
    if args.figure is not None:
        from pathlib import Path

        from arvdm_theory.report.ledger import ledger_steps
        from arvdm_theory.report.style import save, style

        with style():
            save(ledger_steps(result.table), Path(args.figure))
    print(_report(result))
    return 0


def _afford(args: argparse.Namespace, dimension: int) -> None:
    """Refuses what would take too long; times of one core, to a factor of a few."""
    from arvdm_theory.limits import require

    stride = args.window if args.method == "outpainting" else 1
    frames = args.window + stride * (args.ar_steps + 1)
    local = (args.window + args.references) * dimension
    steps = args.init_steps + args.ar_steps * args.reverse_steps
    # The law of a whole clip at every AR step, and of the window with its references at every reverse step.
    seconds = 5e-11 * args.ar_steps * float(frames * dimension) ** 3 + steps * (5e-5 + 1e-9 * float(local) ** 3)
    memory = 8.0 * (6.0 * (frames * dimension) ** 2 + 4.0 * steps * local)
    require(f"the ledger of {frames} frames of dimension {dimension}", memory=memory, seconds=seconds)


def _report(result: Result) -> str:
    """The ledger as text: a row an AR step, then the totals from below to above."""
    steps = result.table[result.table.stage == "ar"]
    wide = steps.pivot_table(index="ar_step", columns="term", values="value", sort=False)
    first = result.table[result.table.stage == "init"]
    started = ", ".join(f"{row.term.removesuffix('_INIT')} {row.value:.6g}" for row in first.itertuples())
    lines = [
        wide.to_string(float_format="{:.6g}".format, na_rep="-"),
        f"initialisation: {started}",
        "",
        "in nats:",
    ]
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
        lines.append(f"  {text:<42} {shown}")
    lines += [f"note: {result.notes[key]}" for key in ("video", "rounding") if key in result.notes]
    return "\n".join(lines)
