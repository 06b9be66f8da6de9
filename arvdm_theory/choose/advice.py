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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from arvdm_theory.choose.context_noise import DIAL, plan_costs, search_profiles
from arvdm_theory.choose.front import pareto_front
from arvdm_theory.choose.memory import MemoryChoice
from arvdm_theory.choose.schedules import Objective, hand_grids, objective_value, optimal_schedule
from arvdm_theory.decomposition.question import Question
from arvdm_theory.decomposition.terms import closed_rollout, first_input
from arvdm_theory.diffusion.scores import PerturbedScore, as_score
from arvdm_theory.information.gaussian import NotPositiveDefiniteError, cholesky, log_det
from arvdm_theory.laws.gaussian import GaussianVideo
from arvdm_theory.plan.drawing import describe_references
from arvdm_theory.plan.levels import pipeline, together
from arvdm_theory.plan.methods import outpainting
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.references import Pick, PlanError, References

__all__ = ["Advice", "Candidate", "Remember", "advise", "reference_rules", "shapes"]

Remember = Callable[[str, Callable[[], Any]], Any]
"""(name, compute) → what compute gives, or gave in an earlier run; plain values."""

ERRORS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)
"""The score errors e of the sensitivity sweep."""

# Plans whose KL is within this part of the least are as good: then the fewest frames are looked at.
_TIE = 0.005
# The shapes whose grids are descended on by themselves, those of them whose memories and noise are searched, and
# the plans that the sweep over score errors compares.
_REFINED, _DEEP, _FINALISTS = 4, 2, 8
# The most iterations of a descent, and the AR steps of its objective where chunks overlap.
_ITERATIONS, _SHORT = 30, 3
# Noise profiles that are looked at, a shape, and selections of a memory that are looked at one and all.
_PROFILES, _SELECTIONS = 60, 2000
# The bootstrap chooses among the plans whose KL is within this factor of the least, so many at the most.
_NEAR, _CONTENDERS = 2.0, 32
# Stands for a KL that is infinite, in files that hold numbers.
_HUGE = 1e300


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
            the ``share``, who is chosen how often (``winners``), and the part of its KL that the best one there
            saves (``loss_median``, ``loss_worst``); None without draws. ``contenders`` are chosen among anew on
            every draw, with a memory that is selected anew; ``fixed`` says what is not.
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


def _sizes(most: int) -> list[int]:
    """0, 1, 2, 4, ... up to ``most`` and that itself."""
    return sorted({0, most} | {2**i for i in range(most.bit_length())})


def reference_rules(most: int) -> list[References]:
    """None, the last m, and the first f and the last m - f, m = 1, 2, 4, ... up to ``most`` and that itself.

    Example:
        >>> [describe_references(rule) for rule in reference_rules(4)]
        ['none', 'last 1', 'last 2', 'last 4', 'first 1 + last 3', 'first 2 + last 2']
    """
    sizes = _sizes(most)[1:]
    sinks = [References.first(f) + References.last(m - f) for m in sizes if m > 2 for f in sorted({1, m // 2})]
    return [References.none(), *(References.last(m) for m in sizes), *sinks]


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
            made anew, among the plans within a factor of two of the least KL and a memory selected there; levels
            and noise profiles stay as found.
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
    tried, rules = shapes(evaluations, strides), reference_rules(most)
    unit = math.lcm(*strides)
    frames = -(-max(frames, 8 * max(strides)) // unit) * unit
    video.require(frames + 4 * max(strides))
    kept, deep = min(_REFINED, len(tried)), min(_DEEP, len(tried))
    sizes = [size for size in _sizes(most) if size]
    total = len(set(strides)) + len(tried) * len(rules) + kept * (1 + len(rules))
    total += deep * (1 + len(sizes) + bool(most) * (2 + len(DIAL))) + len(errors) + len(draws)
    costs: dict[Candidate, dict[str, float]] = {}
    plans: dict[Candidate, Plan] = {}
    own: set[tuple[int, int]] = set()
    with tqdm(total=total, desc="advice", disable=not progress or None, leave=False) as bar:

        def take(candidate: Candidate, plan: Plan) -> None:
            key = f"{'own' if candidate.shape in own else 'shared'} {candidate.name}"
            # A rollout that grows until rounding leaves no law is out of the question.
            found = remember(key, partial(_wrong, video, [plan], frames, step, 0.0))[0]
            if found is not None:
                plans[candidate], costs[candidate] = plan, found
            bar.update()

        levels = {}
        for stride in sorted(set(strides)):
            start = outpainting(stride, References.last(most), evaluations, evaluations, horizon)
            levels[stride] = remember(f"levels {stride}", partial(_life, video, start, most, step))
            bar.update()
        for shape in tried:
            for rule in rules:
                candidate = Candidate(*shape, rule)
                take(candidate, candidate.plan(levels[candidate.stride]))
        for leader in _leaders(costs, plans)[:kept]:
            grid = remember(f"grid {leader.name}", partial(_refined, video, plans[leader], most, step))
            plan = Plan.from_dict(grid)
            own.add(leader.shape)
            bar.update()
            for rule in rules:
                take(Candidate(*leader.shape, rule), dataclasses.replace(plan, references=rule))
        for leader in _leaders(costs, plans)[:deep]:
            plan = plans[leader]
            found = remember(f"memories {leader.name}", partial(_memories, video, plan, sizes, most, frames))
            for lags in found:
                rule = _holding(lags)
                if (candidate := Candidate(*leader.shape, rule)) not in costs:
                    take(candidate, dataclasses.replace(plan, references=rule))
            bar.update()
        for shape in [leader.shape for leader in _leaders(costs, plans)[:deep]]:
            leader = next(each for each in _ranked(costs, plans) if each.shape == shape)
            plan, units = plans[leader], _units(leader.references)
            if not units:
                continue
            profile = remember(f"noise {leader.name}", partial(_profile, video, plan, units, frames, step))
            bar.update()
            for noise in dict.fromkeys([*((level,) * len(units) for level in DIAL), tuple(profile)]):
                rule = _noised(units, noise)
                if any(noise) and (candidate := Candidate(*shape, rule)) not in costs:
                    take(candidate, dataclasses.replace(plan, references=rule))
            # The levels that suit clean references need not suit noised ones.
            noised = dataclasses.replace(plan, references=_noised(units, tuple(profile)))
            candidate = Candidate(*shape, noised.references)
            grid = remember(f"grid {candidate.name}", partial(_refined, video, noised, most, step))
            found_costs = remember(
                f"noised {candidate.name}", partial(_wrong, video, [Plan.from_dict(grid)], frames, step, 0.0)
            )[0]
            if found_costs is not None and found_costs["kl"] < costs.get(candidate, {"kl": math.inf})["kl"]:
                plans[candidate], costs[candidate] = Plan.from_dict(grid), found_costs
            bar.update()
        order = _ranked(costs, plans)
        finalists = _finalists(order)
        final = [plans[each] for each in finalists]
        sweep = []
        for error in errors:
            sweep.append((error, remember(f"error {error}", partial(_wrong, video, final, frames, step, error))))
            bar.update()
        bar.total = bar.n + len(draws)
        least = costs[order[0]]["kl"]
        contenders = [each for each in order if costs[each]["kl"] <= _NEAR * least][:_CONTENDERS]
        compared = {each.name: plans[each] for each in contenders}
        drawn = []
        for number, draw in enumerate(draws):
            if enough():
                break
            again = partial(_drawn, draw, compared, order[0], most, frames, step)
            drawn.append(remember(f"draw {number}", again))
            bar.update()
    sensitivity, stability = _sensitivity(sweep, finalists), _stability(drawn, compared, len(draws))
    return Advice(
        recommended=dataclasses.replace(final[0], name=finalists[0].name),
        name=finalists[0].name,
        table=_table(order, costs, plans, own),
        stability=stability,
        sensitivity=sensitivity,
        reasons=_reasons(order, costs, sensitivity, stability, _trade(video, order[0], plans, frames, step)),
        unseen=_unseen(video, final[0], most),
        frames=frames,
    )


# -- what is computed -----------------------------------------------------------------------------------


def _ar_steps(plan: Plan, frames: int) -> int:
    """K, after which so many frames are clean."""
    return frames // plan.stride - (0 if plan.overlapping else 1)


def _costs(video: GaussianVideo, plan: Plan, frames: int, step: str, error: float = 0.0) -> dict[str, float]:
    """KL of the first F frames, of the last clip, drift and MB, in nats a frame."""
    found = plan_costs(video, plan, _ar_steps(plan, frames), PerturbedScore(error) if error else None, step)
    return {"kl": found["kl"] / frames} | {key: found[key] / plan.stride for key in ("last_clip", "drift", "mb")}


def _kl(video: GaussianVideo, plan: Plan, frames: int, step: str) -> float:
    """KL of the first F frames, in nats a frame.

    Where w = Δ and references are clean frames it is IE + Σ_k [E_k + MB_k], with
    Σ_k MB_k = Σ_k h(Output_k | R_k) - h(all frames) + h(the first ones), and AR steps that see equally far back
    share E_k and h(Output_k | R_k): nothing is rolled out.
    """
    question = Question(video, plan, _ar_steps(plan, frames), score=as_score(None, video), step=step).prepared()
    with torch.no_grad():
        if plan.overlapping or plan.references.noised or plan.floor > 0:
            return float(closed_rollout(question, question.laws(), wanted=("kl",))["kl"]) / frames
        first = question.law(0)
        started = first_input(question, first, frames)
        assert started is not None  # exact scores have closed forms
        total = started[1]
        covariance = video.joint_moments(frames)[1]
        for count, sign in ((frames, -1.0), (plan.stride, 1.0)):
            n = count * video.frame_dim
            total = total + sign * 0.5 * log_det(cholesky(covariance[:, :n, :n])) @ video.multiplicity
        known: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        for k in range(1, question.ar_steps + 1):
            law: Any = question.law(k)
            left = law.window.covariance
            if id(left) not in known:  # kept along with the tensor, so that its id stays its own
                error = law.ar_step_error(law.kernel(question.score, question.reverse))
                entropy = 0.5 * log_det(cholesky(left)) @ video.multiplicity
                known[id(left)] = left, error + entropy
            total = total + known[id(left)][1]
    return float(total) / frames


def _finite(video: GaussianVideo, plan: Plan, frames: int, step: str) -> float:
    """:func:`_kl`, and a huge number where rounding leaves no law."""
    try:
        return min(_kl(video, plan, frames, step), _HUGE)
    except NotPositiveDefiniteError:
        return _HUGE


def _wrong(
    video: GaussianVideo, plans: Sequence[Plan], frames: int, step: str, error: float
) -> list[dict[str, float] | None]:
    """The costs of several plans with a score error; None where it leaves no law."""
    found: list[dict[str, float] | None] = []
    for plan in plans:
        try:
            found.append(_costs(video, plan, frames, step, error))
        except NotPositiveDefiniteError:
            found.append(None)
    return found


def _drawn(
    draw: Callable[[], GaussianVideo], plans: dict[str, Plan], best: Candidate, most: int, frames: int, step: str
) -> dict[str, tuple[float, float]]:
    """By name, the KL of several plans on a video of the bootstrap and the frames that each looks at.

    Where the best one has clean references, as many are selected anew on this video.
    """
    video, plan = draw(), plans[best.name]
    size = len(plan.references.at(10_000))
    tried = dict(plans)
    for lags in _memories(video, plan, [size], most, frames) if size and not best.references.noised else []:
        other = dataclasses.replace(best, references=_holding(lags))
        tried.setdefault(other.name, dataclasses.replace(plan, references=other.references))
    return {name: (_finite(video, each, frames, step), _seen(each)) for name, each in tried.items()}


def _settled(plan: Plan, most: int) -> tuple[int, Objective]:
    """The AR step whose references are all there, and the objective that levels are found by."""
    if plan.overlapping or plan.references.noised:
        return _SHORT, "kl"
    return most // plan.stride + 1, "last-step"


def _life(video: GaussianVideo, plan: Plan, most: int, step: str) -> list[float]:
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


def _refined(video: GaussianVideo, plan: Plan, most: int, step: str) -> dict[str, Any]:
    """The plan with the grid that a descent from its own finds, as a plan file's content."""
    return _descended(video, plan, most, step).to_dict()


def _descended(video: GaussianVideo, plan: Plan, most: int, step: str) -> Plan:
    ar_steps, objective = _settled(plan, most)
    return optimal_schedule(video, plan, ar_steps, objective, step=step, iterations=_ITERATIONS, starts=()).plan


def _memories(
    video: GaussianVideo, plan: Plan, sizes: Sequence[int], most: int, frames: int
) -> list[tuple[int, ...]]:
    """For each size the lags of the frames, of those in reach, that leave the least bottleneck."""
    reach = min(max(16, 2 * most), frames - plan.stride)
    ar_step = next(k for k in range(1, frames + 1) if plan.frames_out(k) >= reach)
    choice = MemoryChoice.of(video, plan, ar_step, reach)
    return [choice.select(size, _SELECTIONS).lags for size in sizes if size <= choice.past]


def _holding(lags: Sequence[int]) -> References:
    """The rule that holds these lags."""
    run = next(i for i, lag in enumerate([*sorted(lags), 0]) if lag != i + 1)
    return References.last(run) + References.lags(*sorted(lags)[run:])


def _units(references: References) -> list[Pick]:
    """Picks that may have a level each: the last m are as many, a sink is one."""
    units: list[Pick] = []
    for pick in references.picks:
        units += [Pick("last", lag) for lag in range(1, pick.count + 1)] if pick.kind == "last" else [pick]
    return units


def _noised(units: Sequence[Pick], levels: Sequence[float]) -> References:
    """The rule whose units stand at these levels: of the last frames in a row at one level, one pick is enough."""
    found: list[Pick] = []
    for unit, level in zip(units, levels, strict=True):
        pick = dataclasses.replace(unit, level=level)
        if found and pick.kind == "last" == found[-1].kind and found[-1].level == level:
            found.pop()
        found.append(pick)
    return References(tuple(found))


def _cleaned(references: References) -> References:
    """The same rule without noise."""
    units = _units(references)
    return _noised(units, (0.0,) * len(units))


def _profile(video: GaussianVideo, plan: Plan, units: Sequence[Pick], frames: int, step: str) -> tuple[float, ...]:
    """The levels of the units that have the least KL, of the noised profiles that are looked at."""

    def cost(levels: tuple[float, ...]) -> dict[str, float]:
        noised = dataclasses.replace(plan, references=_noised(units, levels))
        return {"kl": _finite(video, noised, frames, step)}

    found, _ = search_profiles(cost, DIAL, len(units), ("kl",), _PROFILES)
    return min((levels for levels in found if any(levels)), key=lambda levels: found[levels]["kl"])


def _trade(
    video: GaussianVideo, best: Candidate, plans: dict[Candidate, Plan], frames: int, step: str
) -> dict[str, tuple[float, float]]:
    """E_K and MB_K, in nats a frame, of the last AR step of the recommended plan and of its twin without noise."""
    if not best.references.noised:
        return {}
    clean = _cleaned(best.references)
    twin = plans.get(dataclasses.replace(best, references=clean), plans[best])
    found = {}
    for name, plan in (("noised", plans[best]), ("clean", dataclasses.replace(twin, references=clean))):
        question = Question(
            video, plan, _ar_steps(plan, frames), score=as_score(None, video), step=step
        ).prepared()
        with torch.no_grad():
            law: Any = question.law(question.ar_steps)
            error = law.ar_step_error(law.kernel(question.score, question.reverse))
            found[name] = float(error) / plan.stride, float(law.memory_bottleneck()) / plan.stride
    return found


# -- what follows from it ---------------------------------------------------------------------------------


def _seen(plan: Plan) -> float:
    """Frames that the network is shown for one that comes out: (w + m) M/Δ."""
    frames = {reference.frame for reference in plan.references.at(10_000)}
    return (plan.window + len(frames)) * plan.reverse_steps / plan.stride


def _leaders(costs: dict[Candidate, dict[str, float]], plans: dict[Candidate, Plan]) -> list[Candidate]:
    """The best candidate of every shape, the best shape first."""
    found: dict[tuple[int, int], Candidate] = {}
    for candidate in _ranked(costs, plans):
        found.setdefault(candidate.shape, candidate)
    return list(found.values())


def _ranked(costs: dict[Candidate, dict[str, float]], plans: dict[Candidate, Plan]) -> list[Candidate]:
    """From the best: the least KL, where what is within the tie goes by the frames that are looked at."""
    finite = [each for each in costs if math.isfinite(costs[each]["kl"])]
    if not finite:
        raise ValueError("no candidate has a finite KL: the reverse step moves a frame without noise")
    order = sorted(finite, key=lambda each: costs[each]["kl"])
    least = costs[order[0]]["kl"]
    tied = [each for each in order if costs[each]["kl"] <= least + _TIE * abs(least)]
    tied.sort(key=lambda each: (_seen(plans[each]), plans[each].window, costs[each]["kl"]))
    return tied + order[len(tied) :]


def _finalists(order: Sequence[Candidate]) -> list[Candidate]:
    """The best, the best of the next shapes, and then who comes next, in their order."""
    shape_firsts = list({each.shape: each for each in reversed(order)}.values())
    firsts = [each for each in order if each in shape_firsts][: _FINALISTS // 2]
    others = [each for each in order if each not in firsts][: _FINALISTS - len(firsts)]
    return [each for each in order if each in firsts or each in others]


def _table(
    order: Sequence[Candidate],
    costs: dict[Candidate, dict[str, float]],
    plans: dict[Candidate, Plan],
    own: set[tuple[int, int]],
) -> pd.DataFrame:
    rows = []
    for each in order:
        plan = plans[each]
        rows.append(
            {
                "name": each.name,
                "stride": plan.stride,
                "window": plan.window,
                "reverse_steps": plan.reverse_steps,
                "references": describe_references(plan.references),
                "noise": max((pick.level for pick in plan.references.picks), default=0.0),
                "levels": "own" if each.shape in own else "shared",
                **costs[each],
                "evaluations": plan.reverse_steps * plan.window / plan.stride,
                "seen": _seen(plan),
            }
        )
    table = pd.DataFrame(rows)
    table["front"] = pareto_front(table[["kl", "last_clip", "mb"]].round(10).to_numpy())
    return table


def _sensitivity(
    sweep: Sequence[tuple[float, list[dict[str, float] | None]]], finalists: Sequence[Candidate]
) -> pd.DataFrame:
    rows = []
    for error, found in sweep:
        values = [math.inf if each is None else each["kl"] for each in found]
        for candidate, value, each in zip(finalists, values, found, strict=True):
            last = math.inf if each is None else each["last_clip"]
            best = value == min(values) < math.inf
            rows.append({"error": error, "name": candidate.name, "kl": value, "last_clip": last, "best": best})
    return pd.DataFrame(rows, columns=["error", "name", "kl", "last_clip", "best"])


_FIXED = (
    "levels and noise profiles are those found on all clips; candidates of more than twice the least KL there are "
    "not tried again"
)


def _stability(
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
        tied = [name for name, (kl, _) in values.items() if kl <= least + _TIE * abs(least)]
        winners.append(own if own in tied else min(tied, key=lambda name: values[name][::-1]))
    stays = winners.count(own)
    return found | {
        "stays": stays,
        "share": stays / len(drawn),
        "winners": {name: winners.count(name) for name in sorted(set(winners), key=winners.count, reverse=True)},
        "loss_median": float(np.median(losses)),
        "loss_worst": float(max(losses)),
    }


def _reasons(
    order: Sequence[Candidate],
    costs: dict[Candidate, dict[str, float]],
    sensitivity: pd.DataFrame,
    stability: dict[str, Any],
    trade: dict[str, tuple[float, float]],
) -> tuple[str, ...]:
    """What speaks for the best, each against the best candidate that differs from it in that alone."""
    best, base = order[0], costs[order[0]]
    found = [
        f"{best.name}: KL {base['kl']:.4g}, of the last clip {base['last_clip']:.4g} and memory bottleneck "
        f"{base['mb']:.3g} nats a frame"
    ]
    if trade:
        (noised_error, lost), (clean_error, clean_lost) = trade["noised"], trade["clean"]
        found.append(
            "noise on references: in the last AR step the reverse steps err by "
            f"{noised_error:.3g} nats a frame where they err by {clean_error:.3g} with clean ones, and the memory "
            f"bottleneck is {lost:.3g} in place of {clean_lost:.3g}: given noised frames the score is less steep, "
            "and less unlike from one component of a frame to another, so that few steps follow it better; the "
            "more steps, the less that pays"
        )
    other = [each for each in order if each != best]
    alike = [each for each in other if each.shape == best.shape]
    held = _cleaned(best.references)
    alternatives = {
        "frames at a time": [c for c in other if (c.chunks, c.references) == (best.chunks, best.references)],
        "chunks in flight": [c for c in other if (c.stride, c.references) == (best.stride, best.references)],
        "references": [c for c in alike if _cleaned(c.references) != held],
        "noise on references": [c for c in alike if _cleaned(c.references) == held],
    }
    for what, rivals in alternatives.items():
        if rivals:
            rival = min(rivals, key=lambda each: costs[each]["kl"])
            change, last = (costs[rival][name] - base[name] for name in ("kl", "last_clip"))
            share = f" ({change / base['kl']:+.1%})" if base["kl"] > 0 else ""
            found.append(
                f"{what}: the best other choice, {rival.name}, changes the KL by {change:+.3g}{share} and that "
                f"of the last clip by {last:+.2g} nats a frame"
            )
    for error, rows in sensitivity.groupby("error"):
        values = dict(zip(rows["name"], rows["kl"], strict=True))
        rival = min(values, key=values.__getitem__)
        if values[best.name] > (1 + _TIE) * values[rival]:
            found.append(f"with a score error of {error:g} W another one is the best: {rival}")
            break
    else:
        if len(sensitivity):
            found.append(f"a score error of up to {sensitivity['error'].max():g} W does not change it")
    if stability["draws"]:
        found.append(
            f"of {stability['draws']} bootstraps over the clips {stability['stays']} choose it again among "
            f"{stability['contenders']} plans; at worst another would save {stability['loss_worst']:.1%} of its KL"
        )
        others = {name: times for name, times in stability["winners"].items() if name != best.name}
        if others:
            other_name, times = next(iter(others.items()))
            found.append(f"most often chosen in its place, {times} times: {other_name}")
    return tuple(found)


def _unseen(video: GaussianVideo, plan: Plan, most: int) -> tuple[str, ...]:
    """What this advice cannot see."""
    notes = [
        "it rests on second moments: motion that is not Gaussian, and what is recognised and not copied, is no "
        "part of it",
        "the score is exact, or wrong by e W: what a network finds hard to learn (long references, few steps, "
        "chunks at different levels) does not count against a plan",
        "the cost counts evaluations of a frame; references cost what the network makes of them (column seen)",
    ]
    kept = getattr(video, "variance_kept", None)
    if kept is not None:
        notes.append(f"the fitted modes hold {kept:.0%} of the pixel variance; the rest is not part of the video")
    if most and len(plan.references.at(10_000)) == most:
        notes.append(f"no plan looks at more than {most} frames, and the recommended one does: more may do better")
    if caveat := video.caveat(plan):
        notes.append(caveat)
    return tuple(notes)
