"""The options that say which plan: a file, a published method, or a window and its levels."""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING, Any

from arvdm_theory.cli.arguments import whole

if TYPE_CHECKING:
    from arvdm_theory.plan.plan import Plan

__all__ = ["SHAPED", "add_plan", "chosen_plan", "named_plan", "plan_files"]

# What a plan's own window says, and its default; None as given means: not given.
_SHAPE: dict[str, Any] = {
    "window": 2,
    "references": 1,
    "reference_level": 0.0,
    "horizon": None,
    "floor": 0.0,
    "schedule": None,
}
_HORIZON = 6.0
_STEPS = 20
# Larger parameters of published methods are refused: a window's masks have the square of their size.
_MOST = 1000
SHAPED = ("outpainting", "fifo")
"""The methods whose window and references are options of their own."""


def add_plan(parser: argparse.ArgumentParser) -> None:
    """Adds them; :func:`chosen_plan` reads them."""
    group = parser.add_argument_group(
        "the plan",
        "A file, a published method (`arvdm plans` lists them), or outpainting or fifo with a window of your own.",
    )
    which = group.add_mutually_exclusive_group()
    which.add_argument("--plan", metavar="FILE|METHOD", help="a plan file, or a published method's name")
    which.add_argument("--method", default=None, metavar="NAME",
        help="outpainting (the default): stride = window; fifo: stride 1, input levels jT/w; or a published "
        "method's name")  # fmt: skip
    group.add_argument("--set", action="append", metavar="NAME=VALUE", dest="settings",
        help="a published method's parameter in place of its published value; may be repeated")  # fmt: skip
    add = group.add_argument
    add("--window", type=whole(), metavar="W", help="w, frames in the window (2)")
    add("--references", type=whole(), metavar="M", help="how many last frames are seen (1)")
    add("--reference-level", type=float, metavar="RHO",
        help="level the references are noised to, afresh at every AR step (0)")  # fmt: skip
    add("--horizon", type=float, metavar="T", help="T, the level of pure noise (6; 10 with --schedule)")
    add("--floor", type=float, metavar="δ", help="the level at which frames come out (0)")
    add("--reverse-steps", type=whole(), metavar="N", help="reverse steps an AR step (20, or the plan's)")
    add("--init-steps", type=whole(), metavar="N",
        help="reverse steps of the initialisation stage (20, or the plan's)")  # fmt: skip
    spaced = group.add_mutually_exclusive_group()
    spaced.add_argument("--spacing", metavar="NAME",
        help="how levels are spaced between their ends: uniform, geometric, karras:ρ, tangent:c, flow:s or "
        "cosine:c (uniform, or the plan's own levels)")  # fmt: skip
    spaced.add_argument("--schedule", metavar="NAME:N",
        help="N reverse steps, equally far apart in the native time of a noise schedule: linear, scaled-linear, "
        "sigmoid, cosine or flow:SHIFT, as in cosine:50 or flow:3:50")  # fmt: skip


def plan_files(args: argparse.Namespace) -> list[str]:
    """The files that the options name, which must not be overwritten."""
    from arvdm_theory.plan.methods import METHODS

    return [args.plan] if args.plan is not None and args.plan not in {entry.key for entry in METHODS} else []


def chosen_plan(args: argparse.Namespace) -> Plan:
    """The plan that the options state.

    Raises:
        ValueError: naming the option that is wrong, or that is not one of this plan's.
        PlanError: for a plan that breaks a requirement.
        OSError: if a file cannot be read.
    """
    for name in ("window", "reverse_steps", "init_steps"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"{_option(name)} must be at least 1, got {value}")
    if args.references is not None and args.references < 0:
        raise ValueError(f"--references must not be negative, got {args.references}")
    which = args.plan or args.method
    if args.plan == "":
        raise ValueError("--plan: a file or a method's name is missing: it is empty")
    if which is None or (args.plan is None and which in SHAPED):
        if args.settings:
            raise ValueError("--set is for published methods; outpainting and fifo have options of their own")
        return _shaped(args, which or "outpainting")
    given = [name for name in _SHAPE if getattr(args, name) is not None]
    if given:
        raise ValueError(f"{_option(given[0])} is the plan's own: leave it out with --plan or a published method")
    return _regridded(named_plan(which, args.settings or (), files=args.plan is not None), args)


def named_plan(name: str, settings: list[str] | tuple[()] = (), files: bool = True) -> Plan:
    """The plan of a published method, with NAME=VALUE settings, or of a file.

    Raises:
        ValueError: for a setting that is none, or a file that holds no plan.
        PlanError: if there is no such method, or it is outside the framework.
        OSError: if the file cannot be read.
    """
    from pathlib import Path

    from arvdm_theory.plan.file import load_plan
    from arvdm_theory.plan.methods import METHODS, method

    if name in {entry.key for entry in METHODS} or not files or not _is_file(name):
        entry = method(name)
        return entry.build(**dict(_setting(entry.parameters, text) for text in settings))
    if settings:
        raise ValueError(f"--set is for published methods; {name} is a file")
    return load_plan(Path(name))


def _is_file(name: str) -> bool:
    """Whether a name that no method has is meant to be a file: it looks like one, or there is one."""
    import os

    return name.endswith(".json") or os.sep in name or os.path.lexists(name)


def _setting(parameters: dict[str, Any], text: str) -> tuple[str, Any]:
    """A parameter's name and value; lists are written with commas."""
    from arvdm_theory.plan.references import References

    name, _, value = text.partition("=")
    usual = parameters.get(name, 0)
    try:
        if isinstance(usual, References):
            return name, References.last(int(value))
        if isinstance(usual, bool):
            return name, {"true": True, "false": False}[value.lower()]
        if isinstance(usual, tuple):
            return name, tuple(map(_plain, value.split(",")))
        return name, value if isinstance(usual, str) else _plain(value)
    except (KeyError, ValueError):
        kinds: dict[type, str] = {
            bool: "true or false",
            tuple: "numbers, commas between",
            References: "how many",
        }
        usually = f"a number up to {_MOST}"
        kind = next((said for of, said in kinds.items() if isinstance(usual, of)), usually)
        raise ValueError(f"--set {text}: NAME=VALUE is expected, the value being {kind}") from None


def _plain(text: str) -> int | float:
    try:
        value: int | float = int(text)
    except ValueError:
        value = float(text)
    if not abs(value) <= _MOST:
        raise ValueError
    return value


def _shaped(args: argparse.Namespace, method: str) -> Plan:
    from arvdm_theory.plan.levels import scheduled
    from arvdm_theory.plan.methods import fifo, outpainting
    from arvdm_theory.plan.references import References

    own = {name: value if (value := getattr(args, name)) is not None else usual for name, usual in _SHAPE.items()}
    references = References.last(own["references"], own["reference_level"])
    schedule, steps = _schedule(own["schedule"])
    if steps is not None and args.reverse_steps is not None:
        raise ValueError(f"--schedule {args.schedule} has {steps} reverse steps: leave --reverse-steps out")
    usual = _STEPS if steps is None else steps
    reverse = usual if args.reverse_steps is None else args.reverse_steps
    init = usual if args.init_steps is None else args.init_steps
    window = own["window"]
    _afford(window, reverse + init)
    if schedule is not None:
        stride = window if method == "outpainting" else 1
        return dataclasses.replace(
            scheduled(schedule, window, stride, references, reverse, init, args.horizon, own["floor"]), name=method
        )
    build = outpainting if method == "outpainting" else fifo
    horizon = _HORIZON if args.horizon is None else args.horizon
    spacing = "uniform" if args.spacing is None else args.spacing
    return build(window, references, reverse, init, horizon, own["floor"], spacing)


def _schedule(text: str | None) -> tuple[str | None, int | None]:
    """The schedule and the steps in NAME:N or NAME:NUMBER:N."""
    if text is None:
        return None, None
    name, _, steps = text.rpartition(":")
    if not name or not (steps.isascii() and steps.isdigit() and 1 <= int(steps[:12]) <= 10**9):
        raise ValueError(f"--schedule: NAME:N with N reverse steps is expected, as in cosine:50, got {text!r}")
    return name, int(steps)


def _regridded(plan: Plan, args: argparse.Namespace) -> Plan:
    """The plan with the steps and the spacing that are asked for, between the ends of its own levels."""
    changes: dict[str, Any] = {}
    if args.spacing is not None:
        changes |= {"spacing": args.spacing, "ar_grid": (), "init_grid": ()}
    for steps, grid in (("reverse_steps", "ar_grid"), ("init_steps", "init_grid")):
        if (count := getattr(args, steps)) is not None:
            changes |= {steps: count, grid: ()}
    _afford(plan.window, sum(changes.get(name, 0) for name in ("reverse_steps", "init_steps")))
    return dataclasses.replace(plan, **changes) if changes else plan


def _afford(window: int, steps: int) -> None:
    from arvdm_theory.limits import require

    require(f"a plan of {steps} reverse steps of {window} frames", memory=100.0 * steps * window)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
