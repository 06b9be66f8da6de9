"""Sets of networks that a sweep trains, by name.

Apart from what computes their tables: a suite that gains or loses a network leaves the others' cells as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from arvdm_theory.video.runs import Compression, Structure, VideoRun

__all__ = ["SUITES", "suite"]

_MEMORIES: tuple[Structure, ...] = ("concat", "prepend", "cross")
_LOOKED_UP: tuple[Structure, ...] = ("concat", "cross")
_ALL: tuple[Structure, ...] = ("none", *_MEMORIES)
# Parts of the memory, and how many become one: all with attention to the memory, the first with the others.
_COMPRESSIONS: tuple[tuple[Compression, tuple[int, int]], ...] = (
    ("spatial", (4, 16)), ("temporal", (2, 5)),
)  # fmt: skip

_FAR_COMPRESSIONS: tuple[tuple[Compression, int], ...] = (
    ("spatial", 4), ("spatial", 16), ("temporal", 2), ("temporal", 4),
)  # fmt: skip
# No view is met twice, and networks are told what actions add up to.
_SLIP: dict[str, Any] = {"preset": "cpu-slip", "told": "reckoned"}
# Updates: few, so that networks differ in how far they got.
_SHORT = (50, 100)


def _each(memories: Sequence[Structure] = _ALL, **fields: Any) -> list[VideoRun]:
    return [VideoRun(memory=memory, **fields) for memory in memories]


def _compressed(memory: Structure, kinds: Sequence[tuple[Compression, int]], **fields: Any) -> list[VideoRun]:
    return [VideoRun(memory=memory, compression=kind, compress=factor, **fields) for kind, factor in kinds]


def _claimed() -> list[VideoRun]:
    own: dict[str, Any] = {**_SLIP, "worlds": 1}
    runs = [run for steps in (*_SHORT, 400) for run in _each(steps=steps, **own)]
    for steps in _SHORT:
        for memory in _LOOKED_UP:
            runs += [VideoRun(memory=memory, memory_frames=frames, steps=steps, **own) for frames in (2, 4, 6)]
            runs += _compressed(memory, _FAR_COMPRESSIONS, steps=steps, **own)
    return runs


SUITES: dict[str, Callable[[], list[VideoRun]]] = {
    "structures": lambda: [run for seed in (0, 1, 2) for run in _each(seed=seed)],
    "length": lambda: [run for frames in (2, 4, 6) for run in _each(("concat", "cross"), memory_frames=frames)],
    "compression": lambda: [
        VideoRun(memory=memory, compress=factor, compression=parts)
        for memory in _MEMORIES
        for parts, factors in _COMPRESSIONS
        for factor in (factors if memory == "cross" else factors[:1])
        # Prepended tokens are as many frames more, and merged places are spread out again.
        if memory != "prepend" or parts == "temporal"
    ],
    "plans": lambda: _each(plan="fifo"),
    "unet": lambda: _each(("none", "cross"), architecture="unet", steps=400),
    "between": lambda: _each(preset="cpu-between"),
    "actions": lambda: _each(("none", "prepend", "cross"), told="actions"),
    "walking": lambda: _each(preset="cpu-walk"),
    "minecraft": lambda: _each(data="minecraft"),
    # Worlds that no preset was settled on: all structures on those of one seed, two of them on others.
    "slip": lambda: [
        run
        for data, seeds in (("dmlab", (1, 2, 3)), ("doom", (1, 2)))
        for worlds in seeds
        for run in _each(_ALL if worlds == 1 else _LOOKED_UP, data=data, worlds=worlds, steps=400, **_SLIP)
    ],
    # Networks of one condition, from bad to good: do those that forget more degrade more?
    "claims": _claimed,
    "slip-walk": lambda: _each(("none", "cross"), preset="cpu-walk-slip", told="reckoned", worlds=1, steps=400),
    "doom": lambda: _each(data="doom", worlds=1),
    # Memories that are long enough for compression to pay.
    "far": lambda: [
        *_each(preset="cpu-far", worlds=1),
        *_compressed("cross", _FAR_COMPRESSIONS, preset="cpu-far", worlds=1),
        *_compressed("concat", _FAR_COMPRESSIONS[::2], preset="cpu-far", worlds=1),
        *_compressed("prepend", [("temporal", 4)], preset="cpu-far", worlds=1),
    ],
    "farthest": lambda: [
        *_each(("none", *_LOOKED_UP), preset="cpu-farthest", worlds=1),
        *_compressed("cross", [*_FAR_COMPRESSIONS, ("tokens", 16)], preset="cpu-farthest", worlds=1),
        # Twice the updates take merged places about as much time as the uncompressed one's.
        *_each(("cross",), preset="cpu-farthest", worlds=1, steps=800),
        *_compressed("cross", _FAR_COMPRESSIONS[:2], preset="cpu-farthest", worlds=1, steps=800),
    ],
    "long": lambda: _each(("cross",), preset="cpu-long"),
}
"""Sets of networks, each of which answers one question; several of them share networks."""


def suite(names: Sequence[str]) -> list[VideoRun]:
    """The networks of some suites, each once.

    Raises:
        ValueError: if there is no such suite.
    """
    unknown = [name for name in names if name not in SUITES]
    if unknown:
        raise ValueError(f"suites are {', '.join(SUITES)}; got {', '.join(unknown)}")
    return list(dict.fromkeys(run for name in names for run in SUITES[name]()))
