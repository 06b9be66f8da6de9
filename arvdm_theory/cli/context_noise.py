"""``arvdm context-noise``: how noisy each lag of the references should be, and what a uniform level costs."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from arvdm_theory.cli.arguments import whole
from arvdm_theory.cli.plan_options import add_plan, chosen_plan, plan_files
from arvdm_theory.cli.video_options import add_video, chosen_video, video_files

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["configure", "run"]

EXAMPLES = (
    "arvdm context-noise --covariance demo/covariance.npy --frame-dim 2 --references 2 --ar-steps 3 "
    "--reverse-steps 10 --levels 0,0.1,0.3 --figure demo/noise.png",
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.epilog = (
        "Lag 1 is the newest reference. KL is of all clean frames, drift the growth of clip KL from the first AR "
        "step to the last, MB the memory bottleneck of the last."
    )
    add_video(parser)
    add_plan(parser)
    add = parser.add_argument
    add("--ar-steps", type=whole(2), default=8, metavar="K", help="AR steps")
    add("--levels", default="0,0.02,0.1,0.3,1", metavar="ρ,ρ,...", help="levels that a lag may be noised to")
    add("--step", default="exponential", metavar="STEP", help="the reverse step, as of `arvdm ledger`")
    add("--criteria", default="kl,drift,mb", metavar="NAME,...",
        help="what the front weighs: some of kl, first_clip, last_clip, drift, mb")  # fmt: skip
    add("--most", type=whole(1, 1_000_000), default=700, metavar="N",
        help="profiles that are computed; if there are more, those near the front")  # fmt: skip
    add("--json", metavar="OUT.json", help="write all profiles here")
    add("--figure", metavar="OUT.png", help="draw the front here")


def run(args: argparse.Namespace) -> int:
    """Prints the front beside the uniform profiles, and writes all of them."""
    from arvdm_theory.choose.context_noise import context_noise, lags_of
    from arvdm_theory.cli.tables import show_table
    from arvdm_theory.files import check_outputs, write_json
    from arvdm_theory.limits import require

    levels, criteria = _levels(args.levels), [name for name in args.criteria.split(",") if name]
    check_outputs({"--json": args.json, "--figure": args.figure}, [*video_files(args), *plan_files(args)])
    plan, video = chosen_plan(args), chosen_video(args)
    lags = lags_of(plan)
    frames = plan.total_frames(args.ar_steps)
    profiles = min(float(len(levels)) ** lags, args.most)
    local = (plan.window + lags) * video.frame_dim
    once = 2e-10 * args.ar_steps * float(frames * video.frame_dim) ** 3
    once += (plan.init_steps + args.ar_steps * plan.reverse_steps) * (1e-4 + 1e-9 * float(local) ** 3)
    require(f"{profiles:g} noise profiles", memory=48.0 * (frames * video.frame_dim) ** 2, seconds=once * profiles)
    table = context_noise(
        video, plan, args.ar_steps, levels, step=args.step, criteria=criteria, most=args.most, progress=True
    )
    if args.json is not None:
        rows = table.to_dict(orient="records")
        exhaustive = bool(table.attrs["exhaustive"])
        write_json(
            args.json, {"criteria": criteria, "exhaustive": exhaustive, "profiles": rows, "plan": plan.to_dict()}
        )
    if args.figure is not None:
        from pathlib import Path

        from arvdm_theory.report.choices import profile_front
        from arvdm_theory.report.style import save, style

        with style():
            save(profile_front(table), Path(args.figure))
    searched = "all" if table.attrs["exhaustive"] else "those found near the front:"
    print(f"{searched} {len(table)} profiles; on the front of {', '.join(criteria)}, in nats:")
    names = [f"lag_{j + 1}" for j in range(lags)]
    shown = [*names, "kl", "first_clip", "last_clip", "drift", "mb"]
    show_table(table.loc[table.front, shown], "{:.5g}".format)
    print("\none level for all lags:")
    uniform = table[table.uniform]
    uniform = uniform.assign(verdict=[_verdict(table, row, names) for row in uniform.beaten_by])
    show_table(uniform[[*shown, "verdict"]], "{:.5g}".format)
    return 0


def _verdict(table: pd.DataFrame, row: int, names: list[str]) -> str:
    if row < 0:
        return "on the front"
    return "beaten by " + " ".join(f"{level:g}" for level in table.loc[row, names])


def _levels(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(
            f"--levels: numbers with commas between are expected, as in 0,0.1,0.3, got {text!r}"
        ) from None
