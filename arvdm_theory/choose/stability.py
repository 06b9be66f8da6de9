"""How often other clips of the same kind would have given the same advice: a bootstrap."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from arvdm_theory.choose.candidates import Candidate, frames_seen, holding
from arvdm_theory.choose.comparison import TIE
from arvdm_theory.choose.frame_kl import finite_kl
from arvdm_theory.choose.tuning import best_memories
from arvdm_theory.laws.gaussian import GaussianVideo
from arvdm_theory.plan.plan import Plan

__all__ = ["kl_on_draw", "stability_of"]

_FIXED = (
    "levels and noise profiles are those found on all clips; candidates of more than twice the least KL there are "
    "not tried again"
)


def kl_on_draw(
    draw: Callable[[], GaussianVideo], plans: dict[str, Plan], best: Candidate, most: int, frames: int, step: str
) -> dict[str, tuple[float, float]]:
    """By name, the KL of several plans on a video of the bootstrap and the frames that each looks at.

    Where the best one has clean references, as many are selected anew on this video.
    """
    video, plan = draw(), plans[best.name]
    size = len(plan.references.at(10_000))
    tried = dict(plans)
    for lags in best_memories(video, plan, [size], most, frames) if size and not best.references.noised else []:
        other = dataclasses.replace(best, references=holding(lags))
        tried.setdefault(other.name, dataclasses.replace(plan, references=other.references))
    return {name: (finite_kl(video, each, frames, step), frames_seen(each)) for name, each in tried.items()}


def stability_of(
    drawn: Sequence[dict[str, tuple[float, float]]], compared: dict[str, Plan], asked: int
) -> dict[str, Any]:
    """How often the first of the contenders is chosen again, up to the tie, in the draws."""
    found: dict[str, Any] = {"draws": len(drawn), "asked": asked, "stays": 0, "share": None, "winners": {},
                             "loss_median": None, "loss_worst": None, "contenders": len(compared),
                             "fixed": _FIXED}  # fmt: skip
    if not drawn:
        return found
    own = next(iter(compared))
    losses, winners = [], []
    for values in drawn:
        least, now = min(kl for kl, _ in values.values()), values[own][0]
        losses.append(1 - least / now if now > 0 else 0.0)
        tied = [name for name, (kl, _) in values.items() if kl <= least + TIE * abs(least)]
        winners.append(own if own in tied else min(tied, key=lambda name: values[name][::-1]))
    stays = winners.count(own)
    return found | {
        "stays": stays,
        "share": stays / len(drawn),
        "winners": {name: winners.count(name) for name in sorted(set(winners), key=winners.count, reverse=True)},
        "loss_median": float(np.median(losses)),
        "loss_worst": float(max(losses)),
    }
