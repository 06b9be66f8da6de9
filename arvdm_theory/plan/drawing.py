"""Plans drawn in text: which frame stands at which level at which AR step, and what it sees.

A column is a frame (or a block of frames that always share a level), a row is a moment. Block characters grow with
the angle φ(t) = arccos α(t) = arccos e^{-t/2}, whose sine is the noise's share of a frame's scale; unlike t itself
it tells both low and high levels apart. ``▁`` is the level at which frames come out, ``█`` is T.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.references import Mask, References

__all__ = ["LEGEND", "compact", "describe_references", "draw_schedule", "inside_step", "visibility"]

LEGEND = "█ pure noise (T) … ▁ as it comes out; o reference  ~ noised reference  · out and not seen"

_BLOCKS = "▁▂▃▄▅▆▇"


def _angle(level: float) -> float:
    return math.acos(math.exp(-level / 2))


def _glyph(level: float, plan: Plan) -> str:
    """A block character: ``█`` only at T, else one of seven equal slices of the angles of [δ, T)."""
    if level >= plan.horizon:
        return "█"
    low, high = _angle(plan.floor), _angle(plan.horizon)
    share = (_angle(level) - low) / (high - low)
    return _BLOCKS[min(int(share * len(_BLOCKS)), len(_BLOCKS) - 1)]


def _block(plan: Plan) -> int:
    """How many neighbouring frames always share a level, so that one column can stand for them."""
    sizes = [size for size in range(1, plan.stride + 1) if plan.stride % size == 0 == plan.window % size]
    for size in reversed(sizes):
        starts = range(0, plan.window, size)
        if all(len(set(row[start : start + size])) == 1 for row in plan.ar_grid for start in starts):
            return size
    return 1


def _seen(plan: Plan, ar_step: int) -> dict[int, str]:
    """The character of each frame that is referenced at an AR step."""
    return {
        r.frame: "~" if r.level > plan.floor or r.noise == "matched" else "o" for r in plan.references_at(ar_step)
    }


_NOISED = {
    "fresh": " noised to {:.3g}",
    "once": " noised once to {:.3g}",
    "own": ", their own states at {:.3g}",
    "matched": ", their own states at each step's level",
}


def describe_references(references: References) -> str:
    """The reference rule in words, such as ``first 3 + last 6``; ``none`` without references.

    Example:
        >>> describe_references(References.first(1) + References.last(8, level=0.5))
        'first 1 + last 8 noised to 0.5'
        >>> describe_references(References.last(2) + References.lags(5, 9))
        'last 2 + 5, 9 back'
    """
    words = []
    for (lagged, level, noise), group in itertools.groupby(
        references.picks, key=lambda pick: (pick.kind == "lag", pick.level, pick.noise)
    ):
        picks = list(group)
        names = {"all": "all", "every": "every {}."}
        said = [names.get(pick.kind, f"{pick.kind} {{}}").format(pick.count) for pick in picks]
        if lagged:
            said = [", ".join(str(pick.count) for pick in picks) + " back"]
        noised = _NOISED[noise].format(level) if level > 0 or noise != "fresh" else ""
        words += [each + noised for each in said]
    return " + ".join(words) or "none"


def _thin(items: Sequence[int], most: int) -> list[int]:
    """At most ``most`` ≥ 2 items, evenly spread, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def compact(plan: Plan, columns: int = 16) -> str:
    """One line: the references, then the window as an AR step finds it and as it leaves it.

    At most ``columns`` evenly spread frames of the window are drawn, and as many references once there are many.

    Example:
        >>> from arvdm_theory.plan.methods import fifo
        >>> compact(fifo(references=References.last(3)))
        'ooo│▅▇▇█ → ·▅▇▇'
    """
    size = _block(plan)
    shown = _thin(range(0, plan.window, size), columns)
    late = 1 + math.ceil((plan.references.most or columns * size) / plan.stride)
    seen = _seen(plan, late + 1)
    frames = sorted({frame // size * size for frame in seen})
    marks = "".join(seen.get(frame) or "o" for frame in _thin(frames, columns))
    levels = "".join(_glyph(plan.input_levels[j], plan) for j in shown)
    left = "".join("·" if j < plan.stride else _glyph(plan.output_levels[j], plan) for j in shown)
    growing = "…" if plan.references.most is None else ""
    return f"{growing}{marks}│{levels} → {left}"


def draw_schedule(plan: Plan, ar_steps: int = 8, width: int = 100) -> str:
    """A row an AR step k, a column a frame (or block): what step k finds.

    Fewer than ``ar_steps`` rows are drawn if they would not fit in ``width`` characters. Where even two do not
    fit, columns are left out evenly, and the header says so.
    """
    size = _block(plan)
    room = width - 9
    while ar_steps > 2 and plan.total_frames(ar_steps) // size > room:
        ar_steps -= 1
    columns = _thin(range(0, plan.total_frames(ar_steps), size), room)
    unit = "a column is a frame" if size == 1 else f"a column is {size} frames"
    if len(columns) * size < plan.total_frames(ar_steps):
        unit += f"; {len(columns)} of {plan.total_frames(ar_steps) // size} are shown"
    lines = [f"AR step  frames from 1 on ({unit})"]
    for k in range(1, ar_steps + 1):
        seen, window = _seen(plan, k), plan.window_frames(k)
        cells = []
        for frame in columns:
            if frame >= window.stop:
                break
            if frame in window:
                cells.append(_glyph(plan.input_levels[frame - window.start], plan))
            else:
                cells.append(next((seen[f] for f in range(frame, frame + size) if f in seen), "·"))
        lines.append(f"{k:7d}  " + "".join(cells))
    return "\n".join(lines)


def inside_step(plan: Plan, rows: int = 16, width: int = 100) -> str:
    """One AR step: the window at the moments m = 0..M, the longer of the two drawn across.

    Where they do not fit in ``rows`` and ``width``, frames (or blocks) and moments are left out evenly.
    """
    size = _block(plan)
    frames, moments = range(0, plan.window, size), range(plan.reverse_steps + 1)
    if len(frames) < len(moments):
        moments_shown = _thin(moments, width - 9)
        lines = [f"  frame  reverse steps 0 to {plan.reverse_steps}"]
        for j in _thin(frames, rows):
            lines.append(f"{j + 1:7d}  " + "".join(_glyph(plan.ar_grid[m][j], plan) for m in moments_shown))
    else:
        frames_shown = _thin(frames, width - 9)
        lines = ["   step  window"]
        for m in _thin(moments, rows):
            lines.append(f"{m:7d}  " + "".join(_glyph(plan.ar_grid[m][j], plan) for j in frames_shown))
    return "\n".join(lines)


def _even_blocks(mask: Mask, window: int) -> int:
    """The size of the largest blocks of frames within which every row and every column of a mask is constant."""
    width = len(mask[0])
    sizes = [s for s in range(window, 0, -1) if window % s == 0 == (width - window) % s]
    for size in sizes:
        coarse = [[mask[i // size * size][j // size * size] for j in range(width)] for i in range(window)]
        if all(tuple(row) == given for row, given in zip(coarse, mask, strict=True)):
            return size
    return 1


def visibility(plan: Plan, width: int = 100) -> str:
    """What each window frame (or block) sees: references left of the bar, the window right of it.

    Empty if everything is seen. Drawn for the first reverse step; if others differ, the last line says so.
    """
    if plan.visible is None:
        return ""
    mask, window = plan.visible[0], plan.window
    size = _even_blocks(mask, window)
    rows = _thin(range(0, window, size), (width - 10) // 2)
    old = _thin(range(window, len(mask[0]), size), (width - 10) // 2) if len(mask[0]) > window else []
    lines = [f"  frame  sees (a row and a column are {size} frame{'s' if size > 1 else ''})"]
    for i in rows:
        before = "".join("■" if mask[i][j] else "·" for j in old)
        lines.append(f"{i + 1:7d}  {before}│" + "".join("■" if mask[i][j] else "·" for j in rows))
    if any(other != mask for other in plan.visible):
        lines.append("(reverse step 1; others differ)")
    return "\n".join(lines)
