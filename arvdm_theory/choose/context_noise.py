"""Context noise as a profile: one level a lag of the references, and what no other profile beats in all it costs.

Noising the references trades one error for another: KL of all clean frames, drift (the growth of clip KL from the
first AR step to the last) and the memory bottleneck. One level ρ for all references is one line through the
profiles (ρ_1, ..., ρ_m), lag 1 being the newest frame; the front over all profiles is at least as good.

Which frame carries what is the video's: where the next frame depends on the last one alone, and that is shown
clean, noise on older ones changes nothing.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from arvdm_theory.choose.front import pareto_front
from arvdm_theory.decomposition.question import Question
from arvdm_theory.decomposition.terms import closed_rollout
from arvdm_theory.diffusion.scores import as_score
from arvdm_theory.diffusion.steps import ReverseStep
from arvdm_theory.laws.gaussian import GaussianVideo
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.references import PlanError, References

__all__ = ["CRITERIA", "DIAL", "context_noise", "lags_of", "noised_lags", "plan_costs", "search_profiles"]

DIAL = (0.0, 0.02, 0.1, 0.3, 1.0)
"""The levels of a reference that are tried, if no others are given."""

CRITERIA = ("kl", "drift", "mb")
"""What a front weighs, if nothing else is asked: all are to be small."""

# As many profiles are computed one and all; of more, those near the front of what was seen.
_EXHAUSTIVE = 700
# Costs are compared to so many decimals: a lag that matters to nothing must not decide by its rounding.
_DIGITS = 10


def lags_of(plan: Plan) -> int:
    """How many lags a plan's references have: m of the last m.

    Raises:
        PlanError: if they are not the last m alone.
    """
    picks = plan.references.picks
    if not picks or any(pick.kind != "last" for pick in picks):
        raise PlanError(
            "references: a noise profile has a level a lag, so the references must be the last m frames"
        )
    return max(pick.count for pick in picks)


def noised_lags(plan: Plan, levels: Sequence[float]) -> Plan:
    """The plan whose references are the last ``len(levels)`` frames, the newest noised to the first level.

    Raises:
        PlanError: for a level that is negative, not finite or above 0 and below the plan's floor.

    Example:
        >>> from arvdm_theory import References, outpainting
        >>> plan = noised_lags(outpainting(2, References.last(2)), (0.0, 0.3))
        >>> [(r.frame, r.level) for r in plan.references_at(2)]
        [(2, 0.3), (3, 0.0)]
    """
    references, lag = References(), 0
    for level, group in itertools.groupby(levels):
        lag += len(list(group))
        references += References.last(lag, level)
    return dataclasses.replace(plan, references=references)


def context_noise(
    video: GaussianVideo,
    plan: Plan,
    ar_steps: int,
    levels: Sequence[float] = DIAL,
    *,
    score: Any = None,
    step: str | ReverseStep = "exponential",
    criteria: Sequence[str] = CRITERIA,
    most: int = _EXHAUSTIVE,
    progress: bool = False,
) -> pd.DataFrame:
    """What every noise profile costs, and which no other one beats.

    All profiles over the levels, if they are not more than ``most``. Otherwise a Pareto local search (Paquete,
    Chiarandini and Stützle 2004): from the uniform profiles, those that change one lag of a profile on the front
    to a neighbouring level are computed until there is none left, or ``most`` were; ``exhaustive`` in the table's
    ``attrs`` says which it was.

    Args:
        video: the Gaussian video.
        plan: the plan; its references are the last m frames, m being the lags of a profile.
        ar_steps: K ≥ 2.
        levels: what a lag may be noised to.
        score: affine in (window, references); None for the exact one.
        step: the reverse step.
        criteria: of the front: columns of the table.
        most: profiles that are computed.
        progress: whether to show a progress bar.

    Returns:
        a row a profile: ``lag_1`` .. ``lag_m``, ``uniform`` (whether all are the same), ``kl`` of all clean
        frames, ``first_clip`` and ``last_clip`` (KL of the clips of AR steps 1 and K), ``drift`` (their
        difference), ``mb`` (MB_K), in nats; ``front`` (no other profile is as good in all criteria and better in
        one), ``beaten_by`` (of a uniform profile, the row of one that is; -1 if none).

    Raises:
        ValueError: for fewer than two AR steps, no level, a criterion that is no column, or a score that is not
            affine.
        PlanError: if the references are not the last m frames.
    """
    if ar_steps < 2:
        raise ValueError(f"drift needs at least two AR steps, got {ar_steps}")
    known = ("kl", "first_clip", "last_clip", "drift", "mb")
    if not criteria or not set(criteria) <= set(known):
        raise ValueError(f"criteria are some of {', '.join(known)}, got {', '.join(criteria) or 'none'}")
    tried = sorted(set(map(float, levels)))
    lags = lags_of(plan)
    if not tried:
        raise ValueError("at least one level is needed")
    if most < len(tried):
        raise ValueError(f"at least the {len(tried)} uniform profiles must be computed, got {most}")

    def cost(profile: tuple[float, ...]) -> dict[str, float]:
        return plan_costs(video, noised_lags(plan, profile), ar_steps, score, step)

    found, exhaustive = search_profiles(cost, tried, lags, criteria, most, progress)
    return _table(found, lags, criteria, exhaustive)


def search_profiles(
    cost: Callable[[tuple[float, ...]], dict[str, float]],
    tried: Sequence[float],
    lags: int,
    criteria: Sequence[str],
    most: int,
    progress: bool = False,
) -> tuple[dict[tuple[float, ...], dict[str, float]], bool]:
    """The costs of profiles, all or near the front of what was seen, and whether it was all.

    Args:
        cost: of a profile, by name.
        tried: the levels, rising.
        lags: how many levels a profile has.
        criteria: the names that count.
        most: profiles that are computed.
        progress: whether to show a progress bar.
    """
    found: dict[tuple[float, ...], dict[str, float]] = {}
    exhaustive = len(tried) ** lags <= most

    def compute(profiles: Iterable[tuple[float, ...]]) -> None:
        for profile in profiles:
            if profile not in found and len(found) < most:
                found[profile] = cost(profile)
                bar.update()

    with tqdm(
        total=min(len(tried) ** lags, most), desc="profiles", disable=not progress or None, leave=False
    ) as bar:
        compute((level,) * lags for level in tried)
        if exhaustive:
            compute(itertools.product(tried, repeat=lags))
        else:
            exhaustive = _local_search(found, compute, list(tried), lags, criteria, most)
    return found, exhaustive


def plan_costs(
    video: GaussianVideo, plan: Plan, ar_steps: int, score: Any, step: str | ReverseStep
) -> dict[str, float]:
    """KL of all clean frames and of the first and last clips, their drift, and MB_K of a plan, in nats."""
    question = Question(video, plan, ar_steps, score=as_score(score, video), step=step).prepared()
    with torch.no_grad():
        laws = question.laws()
        rolled = closed_rollout(question, laws, wanted=("kl", "clips"))
        if "kl" not in rolled:
            raise ValueError("the KL of a rollout needs a score that is affine in (window, references)")
        [truth] = question.truths()
        bottleneck = laws[-1].memory_bottleneck(truth)
    clips = rolled["clips"].value
    first, last = float(clips[0]), float(clips[-1])
    return {
        "kl": float(rolled["kl"]), "first_clip": first, "last_clip": last, "drift": last - first,
        "mb": float(bottleneck),
    }  # fmt: skip


def _local_search(
    found: dict[tuple[float, ...], dict[str, float]],
    compute: Any,
    tried: list[float],
    lags: int,
    criteria: Sequence[str],
    most: int,
) -> bool:
    """Expands what is on the front until all its neighbours are known; False: not every profile was computed."""
    expanded: set[tuple[float, ...]] = set()
    while len(found) < most:
        profiles = list(found)
        points = np.array([[round(found[p][name], _DIGITS) for name in criteria] for p in profiles])
        fresh = [p for p, on in zip(profiles, pareto_front(points), strict=True) if on and p not in expanded]
        if not fresh:
            break
        for profile in fresh:
            expanded.add(profile)
            for lag, way in itertools.product(range(lags), (-1, 1)):
                place = tried.index(profile[lag]) + way
                if 0 <= place < len(tried):
                    compute([(*profile[:lag], tried[place], *profile[lag + 1 :])])
    return False


def _table(
    found: dict[tuple[float, ...], dict[str, float]], lags: int, criteria: Sequence[str], exhaustive: bool
) -> pd.DataFrame:
    table = pd.DataFrame(
        [{f"lag_{j + 1}": level for j, level in enumerate(p)} | costs for p, costs in found.items()]
    )
    table.insert(lags, "uniform", [len(set(p)) == 1 for p in found])
    table = table.sort_values(["kl", *(f"lag_{j + 1}" for j in range(lags))], ignore_index=True)
    points = table[list(criteria)].round(_DIGITS).to_numpy()
    table["front"] = pareto_front(points)
    beaten = []
    for own, uniform in zip(points, table.uniform, strict=True):
        better = (points <= own).all(1) & (points < own).any(1) & table.front.to_numpy()
        beaten.append(int(better.argmax()) if uniform and better.any() else -1)
    table["beaten_by"] = beaten
    table.attrs["exhaustive"] = exhaustive
    return table
