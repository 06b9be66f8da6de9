"""Plan files: every requirement that is broken, not the first one alone."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from arvdm_theory.plan.file import check_plan_content, plan_from_dict, references_from_list
from arvdm_theory.plan.lint.finding import Finding, left_at
from arvdm_theory.plan.references import PlanError, References

__all__ = ["Lines", "json_lines", "lint_plan"]

Path = tuple[str | int, ...]
Lines = Mapping[Path, int]

# As the plan's own checks: levels computed along two formulas differ by rounding.
_NEAR = 1e-9
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')


def json_lines(text: str) -> dict[Path, int]:
    """The line, from 1, on which each value of a JSON text begins, by its keys and indices."""
    found: dict[Path, int] = {}
    path: list[str | int] = []
    objects: list[bool] = []
    line, at, word = 1, 0, ""
    for token in _TOKEN.finditer(text):
        line, at = line + text.count("\n", at, token.start()), token.start()
        sign = token.group()
        if sign in "}]":
            objects.pop()
            path.pop()
        elif sign == ",":
            last = path[-1]
            path[-1] = "" if objects[-1] else int(last) + 1
        elif sign == ":":
            path[-1] = json.loads(word)
        elif not (objects and objects[-1] and path[-1] == ""):
            found[tuple(path)] = line
            if sign in "{[":
                objects.append(sign == "{")
                path.append("" if sign == "{" else 0)
        word = sign
    return found


def lint_plan(content: Mapping[str, Any], lines: Lines | None = None) -> list[Finding]:
    """All that is wrong with a plan file's content.

    Args:
        content: the object of the file.
        lines: the line of each value (:func:`json_lines`).
    """
    found = _Plan(content, lines or {}).findings()
    if not any(finding.severity == "error" for finding in found):
        try:
            plan_from_dict(content)  # whatever else there is that reading it refuses
        except PlanError as error:
            rule, _, message = str(error).partition(": ")
            found.append(Finding("error", rule, message, "see the table of keys in docs/plans.md"))
    return found


class _Plan:
    """The checks of one plan file."""

    def __init__(self, content: Mapping[str, Any], lines: Lines) -> None:
        self.content, self.lines = content, lines
        self.found: list[Finding] = []

    def findings(self) -> list[Finding]:
        """Runs every check that makes sense behind those before it."""
        content = dict(self.content)
        while True:  # a key at a time, each taken out once it is told
            try:
                fields = check_plan_content(content)
                break
            except PlanError as error:
                key, _, message = str(error).partition(": ")
                self.say("error", "format", f"{key}: {message}", f"write {key!r} as docs/plans.md says", key)
                if key not in content or key in ("format", "version"):
                    return self.found
                del content[key]
        self.levels(fields)
        return self.found

    def say(self, severity: Any, rule: str, message: str, fix: str, *place: str | int, **at: int) -> None:
        """Adds a finding at a place in the file."""
        line = next((self.lines[place[:n]] for n in range(len(place), 0, -1) if place[:n] in self.lines), None)
        self.found.append(Finding(severity, rule, message, fix, line, **at))

    def levels(self, fields: dict[str, Any]) -> None:
        """Levels, grids, references and masks."""
        before = len(self.found)
        t_in, stride, top = fields["input_levels"], fields["stride"], fields["horizon"]
        w, floor = len(t_in), fields.get("floor", 0.0)
        for key, levels in (("input_levels", t_in), ("output_levels", fields.get("output_levels", ()))):
            for j, level in enumerate(levels):
                if not (math.isfinite(level) and level >= 0):
                    self.say(
                        "error",
                        "levels",
                        f"level {level} is no noise level",
                        "levels are finite and not negative",
                        key,
                        j,
                        frame=j + 1,
                    )
        if not 1 <= stride <= w:
            self.say("error", "coverage", f"stride {stride} in a window of {w}", f"Δ lies in 1..{w}", "stride")
        if not (math.isfinite(top) and top > floor >= 0):
            self.say("error", "0-T boundary", f"δ = {floor}, T = {top}", "0 ≤ δ < T < ∞ is needed", "horizon")
        if len(self.found) > before:
            return
        for key in ("reverse_steps", "init_steps"):
            if (steps := fields.get(key, 20)) < 1:
                self.say("error", "coverage", f"{steps} reverse steps take no frame anywhere", "at least 1", key)
        if (left := left_at(top)) is not None:
            self.say("warning", "zero terminal SNR", left, "raise the horizon, to 6 or more", "horizon")
        t_out = fields.get("output_levels") or [floor] * stride + t_in[: w - stride]
        if len(t_out) != w:
            self.say(
                "error",
                "coverage",
                f"{w} input levels but {len(t_out)} output levels",
                f"write {w}, or leave output_levels out",
                "output_levels",
            )
        else:
            self.requirements(t_in, t_out, stride, floor, top)
        self.grid("ar_grid", fields, t_in, t_out, fields["reverse_steps"], top)
        n, out = (w - stride, t_in) if w > stride else (stride, [floor] * w)
        end = out[:n] if w > stride and fields.get("initialisation") == "warmup" else [floor] * n
        self.grid("init_grid", fields, [top] * n, end, fields.get("init_steps", 20), top)
        self.references(fields, floor)
        self.masks(fields)

    def requirements(
        self, t_in: Sequence[float], t_out: Sequence[float], stride: int, floor: float, top: float
    ) -> None:
        """Monotonicity, circularity and the 0-T boundary, frame by frame."""
        near, w = _NEAR * top, len(t_in)
        for key, levels in (("input_levels", t_in), ("output_levels", t_out)):
            for j in range(1, w):
                if levels[j] < levels[j - 1] - near:
                    self.say(
                        "error",
                        "monotonicity",
                        f"{levels[j]:g} stands behind {levels[j - 1]:g}: a later frame is never cleaner",
                        f"raise it to {levels[j - 1]:g} or more",
                        key,
                        j,
                        frame=j + 1,
                    )
        for j in range(w):
            if t_out[j] > t_in[j] + near:
                self.say(
                    "error",
                    "monotonicity",
                    f"it leaves at {t_out[j]:g}, above the {t_in[j]:g} it came in with",
                    f"an output level of {t_in[j]:g} or less",
                    "output_levels",
                    j,
                    frame=j + 1,
                )
        for j in range(w - stride):
            if abs(t_out[j + stride] - t_in[j]) > near:
                self.say(
                    "error",
                    "circularity",
                    f"it leaves at {t_out[j + stride]:g}, and the next AR step takes it "
                    f"as frame {j + 1} at {t_in[j]:g}",
                    f"output level {t_in[j]:g}, or leave output_levels out",
                    "output_levels",
                    j + stride,
                    frame=j + stride + 1,
                )
        for j in range(stride):
            if abs(t_out[j] - floor) > near:
                self.say(
                    "error",
                    "0-T boundary",
                    f"it comes out at {t_out[j]:g}, not at δ = {floor:g}",
                    f"output level {floor:g}",
                    "output_levels",
                    j,
                    frame=j + 1,
                )
        for j in range(w - stride, w):
            if abs(t_in[j] - top) > near:
                self.say(
                    "error",
                    "0-T boundary",
                    f"new frames are pure noise, and it enters at {t_in[j]:g}, not at T = {top:g}",
                    f"input level {top:g}",
                    "input_levels",
                    j,
                    frame=j + 1,
                )

    def grid(
        self,
        key: str,
        fields: dict[str, Any],
        start: Sequence[float],
        end: Sequence[float],
        steps: int,
        top: float,
    ) -> None:
        """A grid's shape, its ends, levels that rise and steps in which nothing moves."""
        rows, near = fields.get(key), _NEAR * top
        if not rows:
            return
        w = len(start)
        if len(rows) != steps + 1:
            self.say(
                "error",
                "off by one" if abs(len(rows) - steps - 1) == 1 else "coverage",
                f"{len(rows)} rows for {steps} reverse steps",
                f"{steps + 1} rows: the levels before the first step and after each",
                key,
            )
        for m, row in enumerate(rows):
            if len(row) != w:
                self.say(
                    "error", "coverage", f"{len(row)} levels for {w} frames", f"{w} levels", key, m, row=m + 1
                )
        if any(len(row) != w for row in rows) or len(end) != w:
            return
        for m, levels, which in ((0, start, "starts"), (len(rows) - 1, end, "ends")):
            for j in range(w):
                if not abs(rows[m][j] - levels[j]) <= near:
                    self.say(
                        "error",
                        "0-T boundary",
                        f"the grid {which} at {rows[m][j]:g}, not at {levels[j]:g}",
                        f"write {levels[j]:g}",
                        key,
                        m,
                        j,
                        row=m + 1,
                        frame=j + 1,
                    )
        for m in range(1, len(rows)):
            for j in range(w):
                if not rows[m][j] <= rows[m - 1][j] + near:
                    self.say(
                        "error",
                        "monotonicity",
                        f"the level rises from {rows[m - 1][j]:g} to {rows[m][j]:g}",
                        f"write {rows[m - 1][j]:g} or less",
                        key,
                        m,
                        j,
                        row=m + 1,
                        frame=j + 1,
                    )
            if rows[m] == rows[m - 1]:
                self.say(
                    "warning",
                    "levels",
                    "the row repeats the one before: an evaluation of the network in which no frame moves",
                    "take the row out, and one reverse step with it",
                    key,
                    m,
                    row=m + 1,
                )

    def references(self, fields: dict[str, Any], floor: float) -> None:
        """Rules that add nothing, and noise below the level at which frames come out."""
        rules = fields.get("references", [])
        try:
            picks = [references_from_list([rule]).picks[0] for rule in rules]
        except PlanError:
            return  # said when the plan is read
        for i, pick in enumerate(picks):
            if 0 < pick.level < floor:
                self.say(
                    "error",
                    "references",
                    f"noise to {pick.level:g} lies below δ = {floor:g}, at which frames come out",
                    "raise it to δ, or 0 for none",
                    "references",
                    i,
                )
            before = References(tuple(picks[:i]))
            if i and all(len(before.at(n)) == len((before + References((pick,))).at(n)) for n in range(65)):
                self.say(
                    "warning",
                    "references",
                    "every frame that the rule names follows an earlier rule",
                    "take it out, or put it first if its level is meant",
                    "references",
                    i,
                )

    def masks(self, fields: dict[str, Any]) -> None:
        """References that nobody sees."""
        w, masks = len(fields["input_levels"]), fields.get("visible") or []
        wide = [mask for mask in masks if mask and all(isinstance(row, str) and len(row) > w for row in mask)]
        if not wide or len(wide) < len(masks):
            return
        for j in range(w, min(len(row) for mask in wide for row in mask)):
            if all(row[j] == "0" for mask in wide for row in mask):
                self.say(
                    "warning",
                    "visibility",
                    f"no frame ever sees reference {j - w + 1}",
                    "let one see it, or leave it out of the references",
                    "visible",
                    0,
                )
