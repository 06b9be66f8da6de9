"""A plan as a file: versioned JSON, floats to the last digit, unknown keys refused.

An object with these keys; levels are OU levels, frames are counted from the oldest of the window:

=================  ========================================================================================
key                value
=================  ========================================================================================
format, version    ``"arvdm plan"``, 1
name               what tables call it (optional)
stride             Δ
horizon            T, the level of pure noise
floor              δ, the level at which frames come out (0 if left out)
reverse_steps      M_AR
init_steps         M_init (20 if left out)
initialisation     ``"renoise"`` or ``"warmup"`` (``"renoise"`` if left out)
input_levels       t^I: w numbers
output_levels      t^O: w numbers (from circularity, if left out)
references         objects ``{"kind": "last" | "first" | "lag" | "every" | "all", "count": 4, "level": 0.0,
                   "noise": "fresh"}``: the rule, how many (``lag``: which, ``every``: the distance), their level
                   ρ, and whose noise they have (:class:`arvdm_theory.plan.references.Pick`)
spacing            a name that :func:`arvdm_theory.noise.time_grid` knows, for grids that are left out
ar_grid            M_AR + 1 rows of w levels (that spacing, if left out)
init_grid          M_init + 1 rows of levels, of the w - Δ frames (Δ if w = Δ) that the initialisation makes
visible            null (everything), or a mask for all reverse steps or one a step; a mask is a word a window
                   frame, a letter a frame that it may see: ``"1"`` or ``"0"``, the window first, then references
window             w, for the reader; if given, it must be the number of input levels
=================  ========================================================================================

What :meth:`Plan.to_dict` writes is read back as the very same plan, to the last bit.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from arvdm_theory.files import read_json, write_json
from arvdm_theory.limits import require
from arvdm_theory.noise import time_grid
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.references import KINDS_IN_WORDS, Mask, Pick, PlanError, References

__all__ = [
    "FORMAT",
    "VERSION",
    "check_plan_content",
    "load_plan",
    "plan_from_dict",
    "plan_to_dict",
    "references_from_list",
    "save_plan",
]

FORMAT = "arvdm plan"
VERSION = 1

_PICK_KEYS = ("kind", "count", "level", "noise")
# Whole numbers beyond it are no sizes, and need not even be floats.
_LARGEST = 10**9


def plan_to_dict(plan: Plan) -> dict[str, Any]:
    """The content of a plan file, as this module describes it."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "name": plan.name,
        "window": plan.window,
        "stride": plan.stride,
        "horizon": plan.horizon,
        "floor": plan.floor,
        "reverse_steps": plan.reverse_steps,
        "init_steps": plan.init_steps,
        "initialisation": plan.initialisation,
        "input_levels": list(plan.input_levels),
        "output_levels": list(plan.output_levels),
        "references": [{key: getattr(pick, key) for key in _PICK_KEYS} for pick in plan.references.picks],
        "spacing": plan.spacing,
        "ar_grid": [list(row) for row in plan.ar_grid],
        "init_grid": [list(row) for row in plan.init_grid],
        "visible": None if plan.visible is None else [_words(mask) for mask in plan.visible],
    }


def plan_from_dict(content: Mapping[str, Any]) -> Plan:
    """The plan whose file has that content.

    Raises:
        PlanError: for a key that is unknown, missing or of another kind than is expected, naming it; or for a
            requirement that the plan breaks.

    Example:
        >>> plan = plan_from_dict({"format": "arvdm plan", "version": 1, "stride": 1, "horizon": 6,
        ...                        "reverse_steps": 10, "input_levels": [3, 6]})
        >>> plan == plan_from_dict(plan.to_dict())
        True
    """
    fields = check_plan_content(content)
    if "references" in fields:
        fields["references"] = references_from_list(fields["references"])
    if fields.get("visible") is not None:
        fields["visible"] = tuple(_mask(mask, i) for i, mask in enumerate(fields["visible"]))
    width = len(fields["input_levels"])
    if fields.pop("window", width) != width:
        raise PlanError(f"window: it is {content['window']}, and there are {width} input levels")
    steps = sum(fields.get(key, 20) for key, grid in _STEPS.items() if not fields.get(grid))
    require(f"a plan of {steps} reverse steps", memory=100.0 * steps * width)
    try:
        return Plan(**fields)
    except PlanError:
        raise
    except ValueError as error:  # a spacing that these levels do not have
        raise PlanError(f"spacing: {error}") from error


def check_plan_content(content: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of :class:`Plan` out of a plan file's content, each of the kind that it must be.

    Raises:
        PlanError: for another format or version, or a key that is unknown, missing or of another kind.
    """
    if content.get("format") != FORMAT:
        raise PlanError(f'format: a plan file says "format": "{FORMAT}", got {_shown(content.get("format"))}')
    if content.get("version") != VERSION or isinstance(content["version"], bool):
        raise PlanError(f"version: {_shown(content.get('version'))}; plan files of version {VERSION} are read")
    fields = {key: value for key, value in content.items() if key not in ("format", "version")}
    unknown(fields, _KEYS, "a plan")
    for key, (kind, needed) in _KEYS.items():
        if key not in fields:
            if needed:
                raise PlanError(f"{key}: the key is missing; {kind[0]} is expected")
        elif not kind[1](fields[key]):
            raise PlanError(f"{key}: {kind[0]} is expected, got {_shown(fields[key])}")
    return fields


def load_plan(path: str | Path) -> Plan:
    """The plan of a file.

    Raises:
        PlanError: if it holds no plan; the message names the file, the key and what is expected there.
        ValueError: if it is no JSON.
        OSError: if it cannot be read.
    """
    content = read_json(path)
    try:
        return plan_from_dict(content)
    except PlanError as error:
        raise PlanError(f"{path}: {error}") from error


def save_plan(path: str | Path, plan: Plan) -> None:
    """Writes a plan file, atomically.

    Raises:
        OSError: if it cannot be written.
    """
    write_json(path, plan_to_dict(plan))


def unknown(fields: Mapping[str, Any], known: Mapping[str, Any] | tuple[str, ...], what: str) -> None:
    """Refuses the first key that is not known, and says which it may have been meant to be."""
    for key in fields:
        if key not in known:
            near = difflib.get_close_matches(key, list(known), n=1)
            meant = f"did you mean {near[0]!r}" if near else f"its keys are {', '.join(known)}"
            raise PlanError(f"{key}: {what} has no such key; {meant}")


# -- kinds of values ----------------------------------------------------------------------------------


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _number(value: Any) -> bool:
    return isinstance(value, float) or (isinstance(value, int) and _whole(value))


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and all(map(_number, value))


def _rows(value: Any) -> bool:
    return isinstance(value, list) and all(map(_numbers, value))


def _spacing(value: Any) -> bool:
    try:
        time_grid(1.0, 0.5, 1, value)
    except (AttributeError, ValueError):
        return False
    return True


def _masks(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(mask, list) for mask in value))


_Kind = tuple[str, Callable[[Any], bool]]
_WHOLE: _Kind = (f"a whole number up to {_LARGEST}", _whole)
_LEVEL: _Kind = ("a number", _number)
_LEVELS: _Kind = ("a list of numbers", _numbers)
_GRID: _Kind = ("a list of rows of numbers", _rows)
_TEXT: _Kind = ("a text", lambda value: isinstance(value, str))

_KEYS: dict[str, tuple[_Kind, bool]] = {
    "name": (_TEXT, False),
    "window": (_WHOLE, False),
    "stride": (_WHOLE, True),
    "horizon": (_LEVEL, True),
    "floor": (_LEVEL, False),
    "reverse_steps": (_WHOLE, True),
    "init_steps": (_WHOLE, False),
    "initialisation": (_TEXT, False),
    "input_levels": (("a list of at least one number", lambda value: _numbers(value) and len(value) > 0), True),
    "output_levels": (_LEVELS, False),
    "references": (("a list of objects", lambda value: isinstance(value, list)), False),
    "spacing": (("the name of a spacing, such as 'uniform' or 'karras:7',", _spacing), False),
    "ar_grid": (_GRID, False),
    "init_grid": (_GRID, False),
    "visible": (("null or a list of masks", _masks), False),
}
_STEPS = {"reverse_steps": "ar_grid", "init_steps": "init_grid"}


def references_from_list(content: list[Any]) -> References:
    """The reference rule of a plan file's list.

    Raises:
        PlanError: for a rule with a key that is unknown, missing or of another kind.
    """
    return References(tuple(_pick(pick, i) for i, pick in enumerate(content)))


def _pick(content: Any, index: int) -> Pick:
    where = f"references[{index}]"
    if not isinstance(content, dict):
        raise PlanError(f"{where}: an object is expected, got {_shown(content)}")
    try:
        unknown(content, _PICK_KEYS, "a reference rule")
        for key, (what, fits) in {"kind": _TEXT, "count": _WHOLE, "level": _LEVEL, "noise": _TEXT}.items():
            if key in content and not fits(content[key]):
                raise PlanError(f"{key}: {what} is expected, got {_shown(content[key])}")
        if "kind" not in content:
            raise PlanError(f"kind: the key is missing; {KINDS_IN_WORDS} is expected")
        return Pick(**content)
    except PlanError as error:
        raise PlanError(f"{where}: {str(error).removeprefix('references: ')}") from error


def _words(mask: Mask) -> list[str]:
    return ["".join("01"[seen] for seen in row) for row in mask]


def _mask(content: list[Any], index: int) -> Mask:
    for word in content:
        if not isinstance(word, str) or set(word) - {"0", "1"}:
            raise PlanError(f"visible[{index}]: words of 0 and 1 are expected, got {_shown(word)}")
    return tuple(tuple(letter == "1" for letter in word) for word in content)


def _shown(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
