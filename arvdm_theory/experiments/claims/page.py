"""Verdicts as a page of the docs, and as plain objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from arvdm_theory.experiments.claims.claim import Verdict

__all__ = ["as_json", "page"]


def page(found: Sequence[Verdict]) -> str:
    """The verdicts as a page of the docs."""
    lines = [
        "# Claims",
        "",
        "Made by `arvdm claims --page docs/claims.md`. A verdict is on the formal statement that is printed, in "
        "the regime",
        "of exact Gaussian laws, or of networks on stand-ins where it says so; it does not say what an author "
        "meant. Numbers",
        "are nats unless named otherwise.",
        "",
    ]
    for each in found:
        lines += [f"## {each.id}", "", f"**Statement.** {each.statement}", "", f"**Source.** {each.source}", ""]
        lines += [f"**Verdict.** {each.verdict}", "", "| | |", "|---|---|"]
        lines += [f"| {name} | {_shown(value)} |" for name, value in each.numbers.items()]
        lines += ["", f"`{each.command}`", ""]
    return "\n".join(lines)


def as_json(found: Sequence[Verdict]) -> list[dict[str, Any]]:
    """The verdicts as plain objects."""
    return [asdict(each) for each in found]


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(f"({_shown(each)})" if isinstance(each, list | tuple) else _shown(each) for each in value)
    return "-" if value is None else str(value)
