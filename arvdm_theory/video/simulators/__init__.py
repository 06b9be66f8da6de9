"""Simulators: worlds, walks, and what must be remembered on them.

Two stand in for DMLab and Minecraft, one is Doom's.

:data:`SIMULATORS` is light: a simulator's module is imported when one is made.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from arvdm_theory.video.simulators.worlds import Simulator

__all__ = ["SIMULATORS", "DataKind", "Layout", "SimulatorKind", "make_simulator"]

DataKind: TypeAlias = Literal["dmlab", "minecraft", "doom"]
Layout: TypeAlias = Literal["npz", "mp4"]


@dataclass(frozen=True)
class SimulatorKind:
    """What is known of a simulator before it is imported.

    Attributes:
        title: its name in figures.
        engines: modules that draw its worlds, by name; the first unless one is asked for.
        size: height and width of its pictures as published, pixels.
        layout: of its files, one of TECO's.
        seconds: that a frame takes, and a pixel of it, on one core; to a factor of a few.
    """

    title: str
    engines: dict[str, str]
    size: int
    layout: Layout
    seconds: tuple[float, float]


SIMULATORS: dict[DataKind, SimulatorKind] = {
    "dmlab": SimulatorKind("DMLab mazes", {"own": "dmlab"}, 64, "npz", (3e-3, 5e-8)),
    "minecraft": SimulatorKind("Minecraft", {"own": "voxel", "luanti": "luanti"}, 128, "mp4", (3e-3, 1.3e-6)),
    "doom": SimulatorKind("Doom mazes", {"own": "doom"}, 64, "npz", (5e-3, 5e-8)),
}
"""By name."""


def make_simulator(kind: DataKind, size: int, engine: str | None = None) -> Simulator:
    """A simulator, for pictures of size x size pixels.

    Raises:
        ValueError: if it has no such engine, or what draws it is not installed.
    """
    engines = SIMULATORS[kind].engines
    if engine is not None and engine not in engines:
        raise ValueError(f"the worlds of {kind} are drawn by {' or '.join(engines)}, got {engine!r}")
    module = next(iter(engines.values())) if engine is None else engines[engine]
    made: Simulator = importlib.import_module(f"arvdm_theory.video.simulators.{module}").simulator(size)
    return made
