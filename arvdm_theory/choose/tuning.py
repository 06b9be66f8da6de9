"""What a plan is given of its own: noise levels, a memory, and the noise of its references."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch

from arvdm_theory.choose.candidates import with_noise
from arvdm_theory.choose.context_noise import DIAL, search_profiles
from arvdm_theory.choose.frame_kl import finite_kl
from arvdm_theory.choose.memory import MemoryChoice
from arvdm_theory.choose.schedules import Objective, hand_grids, objective_value, optimal_schedule
from arvdm_theory.information.gaussian import NotPositiveDefiniteError
from arvdm_theory.laws.gaussian import GaussianVideo
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.references import Pick

__all__ = ["best_memories", "best_noise", "levels_of_life", "refined_grid"]

# The most iterations of a descent, and the AR steps of its objective where chunks overlap.
_ITERATIONS, _SHORT = 30, 3
# Noise profiles that are looked at, a shape, and selections of a memory that are looked at one and all.
_PROFILES, _SELECTIONS = 60, 2000


def _settled(plan: Plan, most: int) -> tuple[int, Objective]:
    """The AR step whose references are all there, and the objective that levels are found by."""
    if plan.overlapping or plan.references.noised:
        return _SHORT, "kl"
    return most // plan.stride + 1, "last-step"


def levels_of_life(video: GaussianVideo, plan: Plan, most: int, step: str) -> list[float]:
    """The levels of one chunk's life that are best, N + 1 of them: from the best grid that is chosen by hand."""
    ar_steps, objective = _settled(plan, most)

    def value(each: Plan) -> float:
        with torch.no_grad():
            try:
                found = float(objective_value(video, each, ar_steps, objective, step=step))
            except NotPositiveDefiniteError:
                return math.inf
        return found if math.isfinite(found) else math.inf

    start = min(hand_grids(plan).values(), key=value)
    return [row[0] for row in _descended(video, start, most, step).ar_grid]


def refined_grid(video: GaussianVideo, plan: Plan, most: int, step: str) -> dict[str, Any]:
    """The plan with the grid that a descent from its own finds, as a plan file's content."""
    return _descended(video, plan, most, step).to_dict()


def _descended(video: GaussianVideo, plan: Plan, most: int, step: str) -> Plan:
    ar_steps, objective = _settled(plan, most)
    return optimal_schedule(video, plan, ar_steps, objective, step=step, iterations=_ITERATIONS, starts=()).plan


def best_memories(
    video: GaussianVideo, plan: Plan, sizes: Sequence[int], most: int, frames: int
) -> list[tuple[int, ...]]:
    """For each size the lags of the frames, of those in reach, that leave the least bottleneck."""
    reach = min(max(16, 2 * most), frames - plan.stride)
    ar_step = next(k for k in range(1, frames + 1) if plan.frames_out(k) >= reach)
    choice = MemoryChoice.of(video, plan, ar_step, reach)
    return [choice.select(size, _SELECTIONS).lags for size in sizes if size <= choice.past]


def best_noise(
    video: GaussianVideo, plan: Plan, units: Sequence[Pick], frames: int, step: str
) -> tuple[float, ...]:
    """The levels of the units that have the least KL, of the noised profiles that are looked at."""

    def cost(levels: tuple[float, ...]) -> dict[str, float]:
        noised = dataclasses.replace(plan, references=with_noise(units, levels))
        return {"kl": finite_kl(video, noised, frames, step)}

    found, _ = search_profiles(cost, DIAL, len(units), ("kl",), _PROFILES)
    return min((levels for levels in found if any(levels)), key=lambda levels: found[levels]["kl"])
