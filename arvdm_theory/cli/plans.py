"""``arvdm plans``: the published methods as plans, with their requirement checks and schedules."""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from arvdm_theory.plan.methods import Method
    from arvdm_theory.plan.plan import Plan

__all__ = ["configure", "run"]

_WIDTH = 100

EXAMPLES = (
    "arvdm plans",
    "arvdm plans magi-1",
    "arvdm plans magi-1 --set chunk=1 --out demo/plan.json",
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``arvdm plans``."""
    parser.add_argument("key", nargs="?", help="show this method in full (default: list all of them)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the plans shown as JSON to FILE")
    parser.add_argument("--out", type=Path, metavar="PLAN.json", help="write the method's plan as a plan file")
    parser.add_argument("--set", action="append", metavar="NAME=VALUE", dest="settings",
        help="with --out: a parameter in place of its published value; may be repeated")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Prints the catalogue, or one method in full."""
    from arvdm_theory.files import check_outputs, write_json
    from arvdm_theory.plan.methods import METHODS, method

    if args.key is None and args.out is not None:
        raise ValueError("--out writes the plan of one method: name it")
    if args.settings and args.out is None:
        raise ValueError("--set goes with --out, the plan file that it changes")
    check_outputs({"--json": args.json, "--out": args.out})
    if args.out is not None:
        from arvdm_theory.cli.plan_options import named_plan
        from arvdm_theory.plan.file import save_plan

        plan = named_plan(args.key, args.settings or (), files=False)
    if args.key is None:
        shown = METHODS
        print(_listing(shown))
    else:
        shown = (method(args.key),)
        print(_in_full(shown[0]))
    if args.json is not None:
        write_json(args.json, {"methods": [_record(entry) for entry in shown]})
    if args.out is not None:
        save_plan(args.out, plan)
        print(f"\nthe plan is written to {args.out}")
    return 0


def _checks(entry: Method) -> str:
    from arvdm_theory.plan.methods import REQUIREMENTS

    broken = entry.broken()
    if broken is None:
        return "  ".join(f"{name} ✓" for name in REQUIREMENTS)
    return f"{broken[0]} ✗: {broken[1]}"


def _listing(entries: tuple[Method, ...]) -> str:
    from arvdm_theory.plan.drawing import LEGEND, compact, describe_references

    head = f"{'method':<18} {'arXiv':<11} {'w':>3} {'Δ':>3} {'M':>4}  {'references':<27} {'verdict':<11}  source"
    lines = [head, "─" * len(head)]
    for entry in entries:
        plan = None if entry.verdict == "outside" else entry.build()
        sizes = ("–", "–", "–") if plan is None else (plan.window, plan.stride, plan.reverse_steps)
        references = "–" if plan is None else describe_references(plan.references)
        source = "checked" if entry.checked else "not checked"
        lines.append(
            f"{entry.key:<18} {entry.arxiv or '–':<11} {sizes[0]:>3} {sizes[1]:>3} {sizes[2]:>4}  "
            f"{references:<27} {entry.verdict:<11}  {source}"
        )
        lines += _wrap(_checks(entry), "    ")
        if plan is not None:
            lines.append(f"    {compact(plan)}")
    outside = sum(entry.verdict == "outside" for entry in entries)
    lines += [
        "",
        f"{len(entries)} methods, {outside} outside the framework. Drawn: references│the window as an AR step "
        "finds it → as it leaves it.",
        LEGEND,
        "arvdm plans METHOD shows one in full.",
    ]
    return "\n".join(lines)


def _in_full(entry: Method) -> str:
    from arvdm_theory.plan.drawing import LEGEND, describe_references, draw_schedule, inside_step, visibility

    number = f"arXiv {entry.arxiv}" if entry.arxiv else "no paper"
    rows = [
        ("method", f"{entry.title} ({entry.citation}, {number})"),
        ("verdict", f"{entry.verdict}: {entry.note}"),
        ("source", entry.source),
        ("reverse step", entry.step or "not looked up"),
        ("requirements", _checks(entry)),
        (
            "parameters",
            ", ".join(f"{name} = {_plain(value)}" for name, value in entry.parameters.items()) or "none",
        ),
    ]
    if entry.verdict == "outside":
        return "\n".join(_table(rows))
    plan = entry.build()
    rows += [
        ("plan", f"w = {plan.window}, Δ = {plan.stride}, M = {plan.reverse_steps}, T = {plan.horizon:.6g}, "
                 f"δ = {plan.floor:.3g}"),
        ("initialisation", _initialisation(plan)),
        ("references", describe_references(plan.references)),
        ("input levels", _runs(plan.input_levels)),
        ("output levels", _runs(plan.output_levels)),
    ]  # fmt: skip
    parts = ["\n".join(_table(rows)), draw_schedule(plan, width=_WIDTH), inside_step(plan, width=_WIDTH)]
    parts += [drawing for drawing in (visibility(plan, width=_WIDTH),) if drawing]
    return "\n\n".join([*parts, LEGEND])


def _initialisation(plan: Plan) -> str:
    frames = f"{plan.init_frames} frame{'s' if plan.init_frames > 1 else ''} in {plan.init_steps} steps"
    if not plan.overlapping:
        return f"{frames}, down to δ"
    if plan.initialisation == "renoise":
        return f"{frames}, down to δ and then noised to the input levels"
    return f"{frames}, straight to the input levels"


def _runs(levels: tuple[float, ...]) -> str:
    """Levels in order, a repeated one written once: ``3 × 0.5, 3 × 10``."""
    runs: list[tuple[float, int]] = []
    for level in levels:
        if runs and runs[-1][0] == level:
            runs[-1] = (level, runs[-1][1] + 1)
        else:
            runs.append((level, 1))
    return ", ".join(f"{count} × {level:.4g}" if count > 1 else f"{level:.4g}" for level, count in runs)


def _plain(value: object) -> str:
    """A parameter's value for reading."""
    from arvdm_theory.plan.drawing import describe_references
    from arvdm_theory.plan.references import References

    if isinstance(value, References):
        return describe_references(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(rows: list[tuple[str, str]]) -> list[str]:
    lines: list[str] = []
    for name, value in rows:
        first, *more = _wrap(value, " " * 16)
        lines += [f"{name:<16}" + first[16:], *more]
    return lines


def _wrap(text: str, indent: str) -> list[str]:
    options: dict[str, Any] = {"break_on_hyphens": False, "break_long_words": False}
    return textwrap.wrap(text, _WIDTH, initial_indent=indent, subsequent_indent=indent, **options)


def _record(entry: Method) -> dict[str, Any]:
    """One method as plain JSON values."""
    broken = entry.broken()
    parameters = {n: list(v) if isinstance(v, tuple) else v for n, v in entry.parameters.items()}
    return {
        "key": entry.key,
        "title": entry.title,
        "citation": entry.citation,
        "arxiv": entry.arxiv,
        "verdict": entry.verdict,
        "note": entry.note,
        "source": entry.source,
        "step": entry.step or None,
        "parameters": {
            n: v if isinstance(v, int | float | list | None) else _plain(v) for n, v in parameters.items()
        },
        "broken": None if broken is None else {"requirement": broken[0], "message": broken[1]},
        "plan": None if broken is not None else entry.build().to_dict(),
    }
