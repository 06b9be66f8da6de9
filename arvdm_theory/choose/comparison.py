"""Candidates held against each other: their order, their table, and what a wrong score changes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from arvdm_theory.choose.candidates import Candidate, frames_seen
from arvdm_theory.choose.front import pareto_front
from arvdm_theory.plan.drawing import describe_references
from arvdm_theory.plan.plan import Plan

__all__ = ["TIE", "Tried", "finalists", "sensitivity_table"]

TIE = 0.005
"""Plans whose KL is within this part of the least are as good: then the fewest frames are looked at."""

# The plans that the sweep over score errors compares.
_FINALISTS = 8


class Tried:
    """Candidates that were tried, with their plans and costs.

    Attributes:
        plans: by candidate.
        costs: by candidate, ``kl``, ``last_clip``, ``drift`` and ``mb`` in nats a frame.
        own: the shapes that have levels of their own.
    """

    def __init__(self) -> None:
        self.plans: dict[Candidate, Plan] = {}
        self.costs: dict[Candidate, dict[str, float]] = {}
        self.own: set[tuple[int, int]] = set()

    def add(self, candidate: Candidate, plan: Plan, costs: dict[str, float]) -> None:
        """One more, or the same with another plan."""
        self.plans[candidate], self.costs[candidate] = plan, costs

    def ranked(self) -> list[Candidate]:
        """From the best: the least KL, where what is within the tie goes by the frames that are looked at.

        Raises:
            ValueError: if no candidate has a finite KL.
        """
        costs = {each: found["kl"] for each, found in self.costs.items() if math.isfinite(found["kl"])}
        if not costs:
            raise ValueError("no candidate has a finite KL: the reverse step moves a frame without noise")
        order = sorted(costs, key=costs.__getitem__)
        least = costs[order[0]]
        tied = [each for each in order if costs[each] <= least + TIE * abs(least)]
        tied.sort(key=lambda each: (frames_seen(self.plans[each]), self.plans[each].window, costs[each]))
        return tied + order[len(tied) :]

    def leaders(self) -> list[Candidate]:
        """The best candidate of every shape, the best shape first."""
        found: dict[tuple[int, int], Candidate] = {}
        for candidate in self.ranked():
            found.setdefault(candidate.shape, candidate)
        return list(found.values())

    def table(self, order: Sequence[Candidate]) -> pd.DataFrame:
        """A row a candidate; see :class:`arvdm_theory.choose.advice.Advice`."""
        rows = []
        for each in order:
            plan = self.plans[each]
            rows.append(
                {
                    "name": each.name,
                    "stride": plan.stride,
                    "window": plan.window,
                    "reverse_steps": plan.reverse_steps,
                    "references": describe_references(plan.references),
                    "noise": max((pick.level for pick in plan.references.picks), default=0.0),
                    "levels": "own" if each.shape in self.own else "shared",
                    **self.costs[each],
                    "evaluations": plan.reverse_steps * plan.window / plan.stride,
                    "seen": frames_seen(plan),
                }
            )
        table = pd.DataFrame(rows)
        table["front"] = pareto_front(table[["kl", "last_clip", "mb"]].round(10).to_numpy())
        return table


def finalists(order: Sequence[Candidate]) -> list[Candidate]:
    """The best, the best of the next shapes, and then who comes next, in their order."""
    shape_firsts = list({each.shape: each for each in reversed(order)}.values())
    firsts = [each for each in order if each in shape_firsts][: _FINALISTS // 2]
    others = [each for each in order if each not in firsts][: _FINALISTS - len(firsts)]
    return [each for each in order if each in firsts or each in others]


def sensitivity_table(
    sweep: Sequence[tuple[float, list[dict[str, float] | None]]], finalists: Sequence[Candidate]
) -> pd.DataFrame:
    """A row a score error and finalist, of (error, the finalists' costs or None); see ``Advice.sensitivity``."""
    rows = []
    for error, found in sweep:
        values = [math.inf if each is None else each["kl"] for each in found]
        for candidate, value, each in zip(finalists, values, found, strict=True):
            last = math.inf if each is None else each["last_clip"]
            best = value == min(values) < math.inf
            rows.append({"error": error, "name": candidate.name, "kl": value, "last_clip": last, "best": best})
    return pd.DataFrame(rows, columns=["error", "name", "kl", "last_clip", "best"])
