"""Which plan for a video, at a fixed cost: window, stride, pipeline, steps, references and their noise.

The cost is evaluations a frame, N = M w/Δ: how often a frame goes through the network before it is out. Candidates
are all combinations of

- Δ frames at a time, in w/Δ chunks in flight: one chunk takes N steps together (w = Δ), b chunks stand N/b
  steps apart and take N/b a step (a pipelined schedule);
- references: none, the last m, or the first few and the last (a sink).

Levels are the video's own: for each Δ the N levels of one chunk's life that are best for a long video
(:func:`arvdm_theory.choose.schedules.optimal_schedule`), which pipelines run through, too. The shapes (Δ, w/Δ)
that do best so have their grids descended on by themselves. For the best two of these

- memories are chosen (:mod:`arvdm_theory.choose.memory`): the m of the frames in reach, near or far, that leave
  the least memory bottleneck;
- the references of the best candidate are noised: one level for all, and a level a reference
  (:func:`arvdm_theory.choose.context_noise.search_profiles`).

All candidates are held against the same first F frames, exactly.

The recommendation is the plan of least KL of all clean frames; of plans within 0.5 % of it, the one that looks at
the fewest frames. What it rests on is the video's second moments and an exact score: ``sensitivity`` says what a
score error e W changes, ``stability`` how often other clips of the same kind would have given the same.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pandas as pd
from tqdm import tqdm

from arvdm_theory.choose.candidates import (
    Candidate,
    holding,
    noise_units,
    reference_rules,
    shapes,
    sizes,
    with_noise,
)
from arvdm_theory.choose.comparison import Tried, finalists, sensitivity_table
from arvdm_theory.choose.context_noise import DIAL
from arvdm_theory.choose.frame_kl import costs_of
from arvdm_theory.choose.reasons import reasons_for, what_is_unseen
from arvdm_theory.choose.stability import kl_on_draw, stability_of
from arvdm_theory.choose.tuning import best_memories, best_noise, levels_of_life, refined_grid
from arvdm_theory.laws.gaussian import GaussianVideo
from arvdm_theory.plan.methods import outpainting
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.references import PlanError, References

__all__ = ["Advice", "Remember", "advise"]

Remember = Callable[[str, Callable[[], Any]], Any]
"""(name, compute) → what compute gives, or gave in an earlier run; plain values."""

ERRORS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)
"""The score errors e of the sensitivity sweep."""

# The shapes whose grids are descended on by themselves, and those of them whose memories and noise are searched.
_REFINED, _DEEP = 4, 2
# The bootstrap chooses among the plans whose KL is within this factor of the least, so many at the most.
_NEAR, _CONTENDERS = 2.0, 32


@dataclass(frozen=True)
class Advice:
    """What is recommended, and what it rests on.

    Attributes:
        recommended: the plan.
        name: its row in the table.
        table: a row a candidate, the best first: ``name``, ``stride``, ``window``, ``reverse_steps``,
            ``references``, ``noise`` (the highest level of a reference), ``levels`` (``own`` to the shape, or
            ``shared`` by all of its stride), ``kl`` of the first F frames, ``last_clip`` and ``drift`` (KL of the
            last clip, and what it grew by since the first: small, too, where the first one is as bad), ``mb`` of
            the last AR step, all in nats a frame; ``evaluations`` and ``seen`` (frames that the network is shown),
            a frame; ``front`` (none is as good in kl, last_clip and mb, and better in one).
        stability: of the bootstrap: ``draws`` made and ``asked`` for, in how many the choice ``stays`` the same,
            the ``share``, who is chosen how often (``winners``), and the part of the recommended plan's KL that
            the best one there saves (``loss_median``, ``loss_worst``); None without draws. ``contenders`` are
            chosen among, with levels, a memory or its noise found on the draw; ``fixed`` says what is not.
        sensitivity: a row a score error e and finalist: ``error``, ``name``, ``kl`` and ``last_clip`` (infinite
            where so wrong a score leaves no law), ``best``.
        reasons: why, in words with their numbers.
        unseen: what this advice cannot see.
        frames: F.
    """

    recommended: Plan
    name: str
    table: pd.DataFrame
    stability: dict[str, Any]
    sensitivity: pd.DataFrame
    reasons: tuple[str, ...]
    unseen: tuple[str, ...]
    frames: int

    def to_dict(self) -> dict[str, Any]:
        """As plain values: ``recommended`` is the content of a plan file."""
        return {
            "recommended": self.recommended.to_dict(),
            "name": self.name,
            "table": self.table.to_dict("records"),
            "stability": self.stability,
            "sensitivity": self.sensitivity.to_dict("records"),
            "reasons": list(self.reasons),
            "unseen": list(self.unseen),
            "frames": self.frames,
        }


def advise(
    video: GaussianVideo,
    evaluations: int,
    *,
    strides: Sequence[int] = (1, 2, 4),
    most: int = 8,
    horizon: float = 6.0,
    frames: int = 24,
    step: str = "exponential",
    draws: Sequence[Callable[[], GaussianVideo]] = (),
    errors: Sequence[float] = ERRORS,
    remember: Remember = lambda _, compute: compute(),
    enough: Callable[[], bool] = lambda: False,
    progress: bool = False,
) -> Advice:
    """The plan of least KL(clean) at N evaluations a frame, and how sure that is.

    Args:
        video: the Gaussian video.
        evaluations: N.
        strides: the Δ that are tried.
        most: references at most.
        horizon: T.
        frames: F, at least; the least multiple of all strides that is not below it, and 8 AR steps of the longest.
        step: the reverse step.
        draws: videos as other clips would have given them, made one by one: the bootstrap. On each the choice is
            made anew, among the plans within a factor of two of the least KL; levels, and the best one's memory or
            its noise, are found anew there.
        errors: score errors of the sensitivity sweep.
        remember: keeps what was computed, for runs that are resumed.
        enough: asked before each draw: True leaves the rest of the draws out.
        progress: whether to show a progress bar.

    Raises:
        PlanError: for a budget below the cheapest plan's, or a size out of range.
        ValueError: if the video has too few frames, or the step's KL is infinite.

    Example:
        >>> from arvdm_theory import ar1
        >>> advise(ar1(0.9), 2, strides=[2], most=2, frames=8, errors=[0.0]).name
        '2 frames at a time, last 1'
    """
    if most < 0:
        raise PlanError(f"references: at most a number from 0 are seen, got {most}")
    all_shapes, rules = shapes(evaluations, strides), reference_rules(most)
    unit = math.lcm(*strides)
    frames = -(-max(frames, 8 * max(strides)) // unit) * unit
    video.require(frames + 4 * max(strides))
    kept, deep = min(_REFINED, len(all_shapes)), min(_DEEP, len(all_shapes))
    total = len(set(strides)) + len(all_shapes) * len(rules) + kept * (1 + len(rules))
    total += deep * (len(sizes(most)) + bool(most) * (2 + len(DIAL))) + len(errors) + len(draws)
    with tqdm(total=total, desc="advice", disable=not progress or None, leave=False) as bar:
        search = _Search(video, frames, step, most, remember, bar.update)
        search.shared_levels(all_shapes, rules, evaluations, horizon)
        search.own_levels(kept, rules)
        search.memories(deep)
        search.noise(deep)
        tried, order = search.tried, search.tried.ranked()
        compared = finalists(order)
        final = [tried.plans[each] for each in compared]
        sweep = []
        for error in errors:
            found = remember(f"error {error}", partial(costs_of, video, final, frames, step, error))
            sweep.append((error, found))
            bar.update()
        bar.total = bar.n + len(draws)
        least = tried.costs[order[0]]["kl"]
        near = [each for each in order if tried.costs[each]["kl"] <= _NEAR * least][:_CONTENDERS]
        contenders = {each: tried.plans[each] for each in near}
        drawn = []
        for number, draw in enumerate(draws):
            if enough():
                break
            again = partial(kl_on_draw, draw, contenders, order[0], most, frames, step)
            drawn.append(remember(f"draw {number}", again))
            bar.update()
    sensitivity, stability = sensitivity_table(sweep, compared), stability_of(drawn, contenders, len(draws))
    return Advice(
        recommended=dataclasses.replace(final[0], name=order[0].name),
        name=order[0].name,
        table=tried.table(order),
        stability=stability,
        sensitivity=sensitivity,
        reasons=reasons_for(video, tried, sensitivity, stability, frames, step),
        unseen=what_is_unseen(video, final[0], most),
        frames=frames,
    )


@dataclass(frozen=True)
class _Search:
    """Tries candidates, round after round, each round from the best of those before it."""

    video: GaussianVideo
    frames: int
    step: str
    most: int
    remember: Remember
    tell: Callable[[], object]
    tried: Tried = field(default_factory=Tried)

    def shared_levels(
        self, all_shapes: Iterable[tuple[int, int]], rules: Sequence[References], evaluations: int, horizon: float
    ) -> None:
        """Every shape and rule, with levels that all of a stride share."""
        levels = {}
        for stride in sorted({stride for stride, _ in all_shapes}):
            start = outpainting(stride, References.last(self.most), evaluations, evaluations, horizon)
            compute = partial(levels_of_life, self.video, start, self.most, self.step)
            levels[stride] = self.remember(f"levels {stride}", compute)
            self.tell()
        for shape in all_shapes:
            for rule in rules:
                candidate = Candidate(*shape, rule)
                self._take(candidate, candidate.plan(levels[candidate.stride]))

    def own_levels(self, count: int, rules: Sequence[References]) -> None:
        """The best shapes with levels of their own, and every rule."""
        for leader in self.tried.leaders()[:count]:
            plan = self._refined(leader, self.tried.plans[leader])
            self.tried.own.add(leader.shape)
            self.tell()
            for rule in rules:
                self._take(Candidate(*leader.shape, rule), dataclasses.replace(plan, references=rule))

    def memories(self, count: int) -> None:
        """The best shapes with the memories of every size that leave the least bottleneck."""
        for leader in self.tried.leaders()[:count]:
            plan = self.tried.plans[leader]
            few = [size for size in sizes(self.most) if size]
            compute = partial(best_memories, self.video, plan, few, self.most, self.frames)
            for lags in self.remember(f"memories {leader.name}", compute):
                self._take_new(leader.shape, plan, holding(lags))
            self.tell()

    def noise(self, count: int) -> None:
        """The best shapes with noised references: one level for all, a level a reference, and a grid for these."""
        for shape in [leader.shape for leader in self.tried.leaders()[:count]]:
            leader = next(each for each in self.tried.ranked() if each.shape == shape)
            plan, units = self.tried.plans[leader], noise_units(leader.references)
            if not units:
                continue
            compute = partial(best_noise, self.video, plan, units, self.frames, self.step)
            profile = tuple(self.remember(f"noise {leader.name}", compute))
            self.tell()
            for noise in dict.fromkeys([*((level,) * len(units) for level in DIAL), profile]):
                if any(noise):
                    self._take_new(shape, plan, with_noise(units, noise))
            # The levels that suit clean references need not suit noised ones.
            noised = dataclasses.replace(plan, references=with_noise(units, profile))
            candidate = Candidate(*shape, noised.references)
            grid = self._refined(candidate, noised)
            found = self._costs(f"noised {candidate.name}", grid)
            if found is not None and found["kl"] < self.tried.costs.get(candidate, {"kl": math.inf})["kl"]:
                self.tried.add(candidate, grid, found)
            self.tell()

    def _take_new(self, shape: tuple[int, int], plan: Plan, rule: References) -> None:
        candidate = Candidate(*shape, rule)
        if candidate not in self.tried.costs:
            self._take(candidate, dataclasses.replace(plan, references=rule))

    def _take(self, candidate: Candidate, plan: Plan) -> None:
        whose = "own" if candidate.shape in self.tried.own else "shared"
        found = self._costs(f"{whose} {candidate.name}", plan)
        if found is not None:
            self.tried.add(candidate, plan, found)
        self.tell()

    def _costs(self, key: str, plan: Plan) -> dict[str, float] | None:
        """None where a rollout grows until rounding leaves no law, which is out of the question."""
        compute = partial(costs_of, self.video, [plan], self.frames, self.step, 0.0)
        found: dict[str, float] | None = self.remember(key, compute)[0]
        return found

    def _refined(self, candidate: Candidate, plan: Plan) -> Plan:
        compute = partial(refined_grid, self.video, plan, self.most, self.step)
        return Plan.from_dict(self.remember(f"grid {candidate.name}", compute))
