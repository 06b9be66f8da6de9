"""The plans that are tried: frames at a time, chunks in flight, and rules for references, in words."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from arvdm_theory.plan.drawing import describe_references
from arvdm_theory.plan.levels import pipeline, together
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.references import Pick, PlanError, References

__all__ = [
    "Candidate",
    "frames_seen",
    "holding",
    "noise_units",
    "reference_rules",
    "shapes",
    "sizes",
    "with_noise",
    "without_noise",
]


@dataclass(frozen=True)
class Candidate:
    """One plan that is tried, in words.

    Attributes:
        stride: Δ.
        chunks: w/Δ, the chunks in flight.
        references: the rule.
    """

    stride: int
    chunks: int
    references: References

    @property
    def shape(self) -> tuple[int, int]:
        """(Δ, w/Δ)."""
        return self.stride, self.chunks

    @property
    def name(self) -> str:
        """As tables call it."""
        frames = f"{self.stride} frame{'s' if self.stride > 1 else ''} at a time"
        flight = f", {self.chunks} chunks in flight" if self.chunks > 1 else ""
        seen = describe_references(self.references)
        return f"{frames}{flight}, {'no references' if seen == 'none' else seen}"

    def plan(self, levels: Sequence[float]) -> Plan:
        """The plan that goes through those levels, N + 1 from T to 0."""
        if self.chunks == 1:
            return together(levels, self.stride, references=self.references)
        gap = (len(levels) - 1) // self.chunks
        return pipeline(levels, gap=gap, chunk=self.stride, references=self.references)


def shapes(evaluations: int, strides: Sequence[int] = (1, 2, 4)) -> list[tuple[int, int]]:
    """The (Δ, w/Δ) that N = ``evaluations`` a frame allow: 1, 2 or 4 chunks in flight that divide N.

    Raises:
        PlanError: for a budget below the cheapest plan's, or no stride.

    Example:
        >>> shapes(6, strides=[2])
        [(2, 1), (2, 2)]
    """
    if evaluations < 1:
        raise PlanError(f"steps: the cheapest plan takes 1 evaluation a frame, and the budget is {evaluations}")
    if not strides or min(strides) < 1:
        raise PlanError(f"stride: at least one Δ ≥ 1 is needed, got {list(strides)}")
    return [
        (stride, chunks) for stride in sorted(set(strides)) for chunks in (1, 2, 4) if evaluations % chunks == 0
    ]


def reference_rules(most: int) -> list[References]:
    """None, the last m, and the first f and the last m - f, m = 1, 2, 4, ... up to ``most`` and that itself.

    Example:
        >>> [describe_references(rule) for rule in reference_rules(4)]
        ['none', 'last 1', 'last 2', 'last 4', 'first 1 + last 3', 'first 2 + last 2']
    """
    counts = sizes(most)[1:]
    sinks = [References.first(f) + References.last(m - f) for m in counts if m > 2 for f in sorted({1, m // 2})]
    return [References.none(), *(References.last(m) for m in counts), *sinks]


def sizes(most: int) -> list[int]:
    """0, 1, 2, 4, ... up to ``most`` and that itself."""
    return sorted({0, most} | {2**i for i in range(most.bit_length())})


def holding(lags: Sequence[int]) -> References:
    """The rule that holds these lags."""
    run = next(i for i, lag in enumerate([*sorted(lags), 0]) if lag != i + 1)
    return References.last(run) + References.lags(*sorted(lags)[run:])


def noise_units(references: References) -> list[Pick]:
    """Picks that may have a level each: the last m are as many, a sink is one."""
    units: list[Pick] = []
    for pick in references.picks:
        units += [Pick("last", lag) for lag in range(1, pick.count + 1)] if pick.kind == "last" else [pick]
    return units


def with_noise(units: Sequence[Pick], levels: Sequence[float]) -> References:
    """The rule whose units stand at these levels: of the last frames in a row at one level, one pick is enough."""
    found: list[Pick] = []
    for unit, level in zip(units, levels, strict=True):
        pick = dataclasses.replace(unit, level=level)
        if found and pick.kind == "last" == found[-1].kind and found[-1].level == level:
            found.pop()
        found.append(pick)
    return References(tuple(found))


def without_noise(references: References) -> References:
    """The same rule without noise."""
    units = noise_units(references)
    return with_noise(units, (0.0,) * len(units))


def frames_seen(plan: Plan) -> float:
    """Frames that the network is shown for one that comes out: (w + m) M/Δ."""
    frames = {reference.frame for reference in plan.references.at(10_000)}
    return (plan.window + len(frames)) * plan.reverse_steps / plan.stride
