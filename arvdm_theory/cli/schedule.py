"""``arvdm schedule``: the grid of noise levels that is best for a video and a plan, and its export."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from arvdm_theory.cli.arguments import whole
from arvdm_theory.cli.plan_options import add_plan, chosen_plan, plan_files
from arvdm_theory.cli.video_options import add_video, chosen_video, video_files

if TYPE_CHECKING:
    from arvdm_theory import Plan
    from arvdm_theory.choose.schedules import Schedule

__all__ = ["configure", "run"]

_OBJECTIVES = ("kl", "clip", "ar-step", "last-step", "path", "girsanov")
_EXPORTS = ("plan", "sigma", "flow", "timesteps", "diffusers", "diffusers-flow")
EXAMPLES = (
    "arvdm schedule --covariance demo/covariance.npy --frame-dim 2 --references 4 --ar-steps 2 --reverse-steps 4 "
    "--init-steps 4 --iterations 20 --export timesteps=demo/steps.json",
)
# What one value with its gradient costs beside the ledger's own terms, and how often starts and descents ask.
_EVALUATIONS = 7.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.epilog = (
        "A format of --export is plan, sigma, flow (times), timesteps[:SCHEDULE], diffusers[:SCHEDULE] or "
        "diffusers-flow, the schedule being linear (the default) or stable-diffusion. The last two write a "
        "folder: scheduler_config.json and, in schedule.json, what its set_timesteps is given."
    )
    add_video(parser)
    add_plan(parser)
    add = parser.add_argument
    add("--ar-steps", type=whole(1), default=5, metavar="K", help="AR steps")
    add("--step", default="exponential", metavar="STEP", help="the reverse step, as of `arvdm ledger`")
    add("--score-error", type=float, default=0.0, metavar="E", help="e of the score s*(W, R) - e W")
    add("--objective", choices=_OBJECTIVES, default="kl",
        help="kl: of all clean frames; clip: of the last clip; ar-step: IE and the errors of AR steps; last-step: "
        "of these IE and the last alone; path: the sum of per-step errors; girsanov: that of the Girsanov form "
        "(KLUB)")  # fmt: skip
    add("--per-frame", action="store_true",
        help="let frames of the window that the plan keeps at one level take levels of their own")  # fmt: skip
    add("--iterations", type=whole(1, 100_000), default=120, metavar="N", help="the most of every descent")
    add("--json", metavar="OUT.json", help="write the result here")
    add("--export", action="append", default=[], metavar="FORMAT=FILE",
        help="write the levels as samplers load them; may be repeated")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Prints the grid beside those chosen by hand, and writes it."""
    import math
    from pathlib import Path

    from arvdm_theory.choose.exports import check_export
    from arvdm_theory.choose.schedules import objective_value, optimal_schedule
    from arvdm_theory.diffusion.scores import PerturbedScore
    from arvdm_theory.diffusion.steps import reverse_step
    from arvdm_theory.files import check_folder, check_outputs, write_json

    reverse_step(args.step)  # said before anything is read
    if not math.isfinite(args.score_error):
        raise ValueError(f"--score-error must be finite, got {args.score_error}")
    exports = [_export(text) for text in args.export]
    outputs = {"--json": args.json}
    for text, (kind, _, path) in zip(args.export, exports, strict=True):
        if kind.startswith("diffusers"):
            check_folder(f"--export {text}", path)
        else:
            outputs[f"--export {text}"] = path
    check_outputs(outputs, [*video_files(args), *plan_files(args)])
    plan, video = chosen_plan(args), chosen_video(args)
    for kind, schedule, _ in exports:
        if kind != "plan":
            check_export(plan, kind, schedule, args.per_frame)
    video.require(plan.total_frames(args.ar_steps))
    _afford(args, plan, video.frame_dim)
    score = PerturbedScore(args.score_error) if args.score_error else None
    found = optimal_schedule(
        video, plan, args.ar_steps, args.objective, score=score, step=args.step, iterations=args.iterations,
        shared=False if args.per_frame else None, progress=True,
    )  # fmt: skip

    def value(of: Plan) -> float:
        return float(objective_value(video, of, args.ar_steps, args.objective, score=score, step=args.step))

    written = [(path, *_exported(found.plan, kind, schedule)) for kind, schedule, path in exports]
    if args.json is not None:
        write_json(args.json, _content(found))
    for path, content, _ in written:
        if "scheduler_config" not in content:
            write_json(path, content)
            continue
        Path(path).mkdir(parents=True, exist_ok=True)
        write_json(Path(path) / "scheduler_config.json", content["scheduler_config"])
        write_json(Path(path) / "schedule.json", content)
    print(_report(found, args.ar_steps, args.step))
    for path, _, again in written:
        if again is None:
            print(f"\n{path}: written")
            continue
        cost = value(again) - found.value
        print(f"\n{path}: written; {_rounded(found.plan, again)}, which changes the objective by {cost:+.3g} nats")
    return 0


def _export(text: str) -> tuple[str, str, str]:
    """The format, the DDPM schedule and the file of FORMAT[:SCHEDULE]=FILE."""
    from arvdm_theory.choose.exports import DDPM_SCHEDULES

    what, _, path = text.partition("=")
    kind, colon, schedule = what.partition(":")
    if not path or kind not in _EXPORTS:
        raise ValueError(
            f"--export {text}: FORMAT=FILE is expected, the format being one of {', '.join(_EXPORTS)}"
        )
    if colon and (kind not in ("timesteps", "diffusers") or schedule not in DDPM_SCHEDULES):
        raise ValueError(
            f"--export {text}: only timesteps and diffusers have a schedule, one of {', '.join(DDPM_SCHEDULES)}"
        )
    return kind, schedule or "linear", path


def _exported(plan: Plan, kind: str, schedule: str) -> tuple[dict[str, Any], Plan | None]:
    """What is written, and the plan that it is read back as, but for a plan file, which is the plan."""
    from arvdm_theory.choose.exports import export_schedule, import_schedule

    if kind == "plan":
        return plan.to_dict(), None
    content = export_schedule(plan, kind, schedule)
    return content, import_schedule(content, plan)


def _afford(args: argparse.Namespace, plan: Plan, dimension: int) -> None:
    """Refuses what would take too long; times of one core, to a factor of a few."""
    from arvdm_theory.choose.schedules import HAND_GRIDS
    from arvdm_theory.limits import require

    frames, k = plan.total_frames(args.ar_steps), args.ar_steps
    local = (plan.window + max(len(plan.references_at(i)) for i in (1, k))) * dimension
    steps = plan.init_steps + k * plan.reverse_steps
    once = 2e-10 * k * float(frames * dimension) ** 3 + steps * (2e-4 + 4e-9 * float(local) ** 3)
    times = args.iterations * ((len(HAND_GRIDS) + 1) / 4 + 3)
    memory = 8.0 * (6.0 * k * (frames * dimension) ** 2 + 10.0 * steps * local**2)
    require(f"a schedule of {steps} reverse steps on {frames} frames of dimension {dimension}",
            memory=memory, seconds=once * times)  # fmt: skip


def _content(found: Schedule) -> dict[str, Any]:
    notes = {} if found.floor is not None else {"floor": found.why_no_floor}
    if found.floor is not None and found.objective != "kl":
        notes["floor"] = "it bounds the KL of all clean frames (the objective kl), not this objective"
    return {
        "objective": found.objective,
        "value": found.value,
        "floor": found.floor,
        "ar_levels": found.plan.ar_grid,
        "init_levels": found.plan.init_grid,
        "baselines": found.baselines,
        "start": found.start,
        "plan": found.plan.to_dict(),
        "notes": notes,
    }


def _report(found: Schedule, ar_steps: int, step: str) -> str:
    """The objective at every grid, from below, and the levels."""
    plan = found.plan
    values = {"found here": found.value} | found.baselines
    over = found.floor if found.floor is not None and found.objective == "kl" else None
    lines = [
        f"{found.objective} of {plan.name}, {ar_steps} AR steps of {plan.reverse_steps} {step} steps, in nats:"
    ]
    for name, value in sorted(values.items(), key=lambda item: item[1]):
        above = "" if over is None else f"{value - over:>14.6g} above the floor"
        lines.append(f"  {name:12}{value:>14.6g}{above}")
    if found.floor is not None:
        lines.append(f"  {'floor':12}{found.floor:>14.6g} what KL(clean) of no sampler of the plan is below")
    else:
        lines.append(f"  no floor: {found.why_no_floor}")
    for stage, grid in (("AR step", plan.ar_grid), ("initialisation", plan.init_grid)):
        together = all(len(set(row)) == 1 for row in grid)
        lines += [
            "",
            f"levels of the {stage}" + (":" if together else ", a row a reverse step, a column a frame:"),
        ]
        if together:
            lines.append("  " + ", ".join(f"{row[0]:.4g}" for row in grid))
        else:
            lines += ["  " + "".join(f"{level:>10.4g}" for level in row) for row in grid]
    return "\n".join(lines)


def _rounded(plan: Plan, again: Plan) -> str:
    """How far the levels that were read back lie from those that were found."""
    pairs = [
        (new, old)
        for one, two in ((again.ar_grid, plan.ar_grid), (again.init_grid, plan.init_grid))
        for row, other in zip(one, two, strict=True)
        for new, old in zip(row, other, strict=True)
    ]
    new, old = max(pairs, key=lambda pair: abs(pair[0] - pair[1]))
    if abs(new - old) <= 1e-12 * plan.horizon:
        return "read back, the levels are the same to rounding"
    return f"read back, the level {old:.6g} is {new:.6g}, the largest difference"
