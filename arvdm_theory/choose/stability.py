"""How often other clips of the same kind would have given the same advice: a bootstrap."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from arvdm_theory.choose.candidates import Candidate, frames_seen, holding, noise_units, with_noise
from arvdm_theory.choose.comparison import TIE
from arvdm_theory.choose.frame_kl import finite_kl
from arvdm_theory.choose.tuning import best_memories, best_noise, refined_grid
from arvdm_theory.information.gaussian import NotPositiveDefiniteError
from arvdm_theory.laws.gaussian import GaussianVideo
from arvdm_theory.plan.plan import Plan

__all__ = ["kl_on_draw", "stability_of"]

_FIXED = "candidates of more than twice the least KL on all clips are not tried again"
# The recommended plan with the levels and the noise that it has on all clips.
_AS_FOUND = "as found"


def kl_on_draw(
    draw: Callable[[], GaussianVideo],
    contenders: Mapping[Candidate, Plan],
    best: Candidate,
    most: int,
    frames: int,
    step: str,
) -> dict[str, tuple[float, float]]:
    """By name, the KL of several plans on a video of the bootstrap and the frames that each looks at.

    A memory of as many frames as the best one's, or the noise of its references, is found anew for this video, and
    every grid of levels is descended on from where it was; ``as found`` is the best one as it is.
    """
    video, plan = draw(), contenders[best]
    tried, grids = dict(contenders), dict[Any, Plan]()
    rules = []
    if best.references.noised:
        units = noise_units(best.references)
        rules = [with_noise(units, best_noise(video, plan, units, frames, step))]
    elif size := len(plan.references.at(10_000)):
        rules = [holding(lags) for lags in best_memories(video, plan, [size], most, frames)]
    for rule in rules:
        tried.setdefault(dataclasses.replace(best, references=rule), dataclasses.replace(plan, references=rule))
    values = {_AS_FOUND: (finite_kl(video, plan, frames, step), frames_seen(plan))}
    for candidate, own in tried.items():
        grid = candidate.shape, own.init_grid, own.ar_grid
        if grid not in grids:
            try:
                grids[grid] = Plan.from_dict(refined_grid(video, own, most, step))
            except NotPositiveDefiniteError:
                grids[grid] = own  # rounding leaves no law to descend on
        again = dataclasses.replace(grids[grid], references=candidate.references)
        kl = min(finite_kl(video, each, frames, step) for each in (own, again))
        values[candidate.name] = kl, frames_seen(again)
    return values


def stability_of(
    drawn: Sequence[dict[str, tuple[float, float]]], compared: Mapping[Candidate, Plan], asked: int
) -> dict[str, Any]:
    """How often the first of the contenders is chosen again, up to the tie, in the draws."""
    found: dict[str, Any] = {"draws": len(drawn), "asked": asked, "stays": 0, "share": None, "winners": {},
                             "loss_median": None, "loss_worst": None, "contenders": len(compared),
                             "fixed": _FIXED}  # fmt: skip
    if not drawn:
        return found
    own = next(iter(compared)).name
    losses, winners = [], []
    for draw in drawn:
        values = {name: value for name, value in draw.items() if name != _AS_FOUND}
        least, now = min(kl for kl, _ in values.values()), draw[_AS_FOUND][0]
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
