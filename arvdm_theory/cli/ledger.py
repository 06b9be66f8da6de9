"""``arvdm ledger``: the exact error decomposition of one's own covariance or fitted clip."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, Any

from arvdm_theory.cli.arguments import whole

if TYPE_CHECKING:
    from arvdm_theory.decomposition.ledger import Ledger

_SERIES = {
    "nie_ar": "NIE_AR",
    "de_ar": "DE",
    "see_ar": "SEE",
    "cross_ar": "CROSS",
    "mb": "MB",
    "clip_kl": "CLIP_KL",
}
_TOTALS = ("kl", "trajectory_kl", "girsanov", "ie", "nie_init", "path_init", "path_kl", "closed", "lower_bound")


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
    parser.add_argument("--step", choices=("exponential", "euler", "ancestral", "ddpm", "ddim"),
                        default="exponential", help="the reverse step")  # fmt: skip
    parser.add_argument("--score-error", type=float, default=0.0, metavar="E",
                        help="e of the score s*(W, R) - e W, in both stages")  # fmt: skip
    parser.add_argument(
        "--girsanov-points",
        type=whole(most=10_000),
        default=12,
        metavar="N",
        help="quadrature points of the Girsanov form's smooth part; 0: leave it out",
    )
    parser.add_argument("--json", metavar="OUT.json", help="write the result here")
    parser.add_argument("--figure", metavar="OUT.png", help="draw the terms of every AR step here")


def run(args: argparse.Namespace) -> int:
    """Prints the ledger and writes its JSON."""
    from arvdm_theory.arrays import load_array, load_arrays
    from arvdm_theory.decomposition.ledger import ledger
    from arvdm_theory.diffusion.scores import PerturbedScore
    from arvdm_theory.files import check_outputs, write_json
    from arvdm_theory.laws.gaussian import ArrayVideo, GaussianVideo
    from arvdm_theory.plan.methods import fifo, outpainting
    from arvdm_theory.plan.plan import References

    for name in ("window", "ar_steps", "reverse_steps", "init_steps"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(args, name)}")
    if args.references < 0 or args.girsanov_points < 0:
        raise ValueError("--references and --girsanov-points must not be negative")
    if not math.isfinite(args.score_error):
        raise ValueError(f"--score-error must be finite, got {args.score_error}")
    check_outputs({"--json": args.json, "--figure": args.figure}, [args.covariance, args.video])
    video: GaussianVideo
    if args.video is not None:
        from arvdm_theory.laws.fitted import load_fitted

        load_arrays(args.video)  # its reader knows no limits and not every damage
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
    result = ledger(video, plan, args.ar_steps, score, args.step,
                    girsanov_points=args.girsanov_points, progress=args.ar_steps >= 50)  # fmt: skip
    if args.json is not None:
        write_json(args.json, _contract(result))
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


def _contract(result: Ledger) -> dict[str, Any]:
    """The JSON that others may script: totals, one list a term over the AR steps, and notes on what is null."""
    content: dict[str, Any] = {name: result.totals[name] for name in _TOTALS}
    renamed = {key.removesuffix("_ar"): key for key in _SERIES}
    notes = {renamed.get(name, name): reason for name, reason in result.notes.items()}
    for key, term in {**_SERIES, "clip_bound": "CLIP_BOUND"}.items():
        values = result.column(term)
        content[key] = values if values and all(map(math.isfinite, values)) else None
    content["notes"] = notes
    return content


def _report(result: Ledger) -> str:
    """The ledger as text: a row an AR step, then the totals from below to above."""
    wide = result.table.pivot_table(index=["stage", "ar_step"], columns="term", values="value", sort=False)
    order = ["NIE", "IE", "NIE_AR", "DE", "SEE", "CROSS", "MB", "CLIP_KL", "CLIP_BOUND"]
    wide = wide[[name for name in order if name in wide]].sort_index(ascending=[False, True])
    lines = [wide.to_string(float_format=lambda value: f"{value:.6g}", na_rep="-"), "", "in nats:"]
    names = {
        "lower_bound": "IE + Σ MB, which no sampler beats",
        "kl": "KL of the clean frames",
        "trajectory_kl": "KL of the trajectory = the ledger's sum",
        "path_kl": "with IE replaced by its bound",
        "girsanov": "Girsanov form",
        "closed": "closed bound",
    }
    for key, text in names.items():
        value = result.totals[key]
        shown = f"{value:.6f}" if value is not None else f"not defined: {result.notes.get(key, '')}"
        lines.append(f"  {text:<42} {shown}")
    return "\n".join(lines)
