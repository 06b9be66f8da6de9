"""Which plan for a video, at a fixed cost: window, stride, pipeline, steps, references and their noise.

The cost is evaluations a frame, N = M w/Δ: how often a frame goes through the network before it is out. Candidates
are all combinations of

- Δ frames at a time, in w/Δ chunks in flight: one chunk takes N steps together (w = Δ), b chunks stand N/b
  steps apart and take N/b a step (a pipelined schedule);
- references: none, the last m, or the first few and the last (a sink);
- noise on them: none, one level for all, or all but the newest.

Levels are the video's own: for each Δ the N levels of one chunk's life that minimise KL(clean)
(:func:`arvdm_theory.choose.schedules.optimal_schedule`), which pipelines run through, too. The shapes (Δ, w/Δ)
that do best so have their grids descended on by themselves. All candidates are held against the same first F
frames, exactly.

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
from tqdm import tqdm

from arvdm_theory.choose.context_noise import plan_costs
from arvdm_theory.choose.front import pareto_front
from arvdm_theory.choose.schedules import optimal_schedule
from arvdm_theory.diffusion.scores import PerturbedScore
from arvdm_theory.information.gaussian import NotPositiveDefiniteError
from arvdm_theory.laws.gaussian import GaussianVideo
from arvdm_theory.plan.drawing import describe_references
from arvdm_theory.plan.levels import pipeline, together
from arvdm_theory.plan.methods import outpainting
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.references import PlanError, References

__all__ = ["Advice", "Candidate", "Remember", "advise", "reference_rules", "shapes"]

Remember = Callable[[str, Callable[[], Any]], Any]
"""(name, compute) → what compute gives, or gave in an earlier run; plain values."""

ERRORS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)
"""The score errors e of the sensitivity sweep."""

_NOISES = (0.02, 0.1, 0.3)
# Plans whose KL is within this part of the least are as good: then the fewest frames are looked at.
_TIE = 0.005
# The shapes whose grids are descended on by themselves, and the plans that bootstrap and sweep compare.
_REFINED, _FINALISTS = 4, 8
# AR steps of the objective that levels are found by, and the most iterations of a descent.
_SHORT, _ITERATIONS = 3, 30


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
            last clip, and what it grew by since the first), ``mb`` of the last AR step, all in nats a frame;
            ``evaluations`` and ``seen`` (frames that the network is shown), a frame; ``front`` (none is as good in
            kl, drift and mb, and better in one).
        stability: of the bootstrap: ``draws`` made and ``asked`` for, in how many the recommendation ``stays`` the
            best of the finalists, the ``share``, who wins how often (``winners``), and the part of its KL that the
            best one there saves (``loss_median``, ``loss_worst``); None without draws.
        sensitivity: a row a score error e and finalist: ``error``, ``name``, ``kl`` and ``drift`` (infinite where
            so wrong a score leaves no law), ``best``.
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


def reference_rules(most: int) -> list[References]:
    """None, the last m, and the first f and the last m - f, m = 1, 2, 4, ... up to ``most`` and that itself.

    Example:
        >>> [describe_references(rule) for rule in reference_rules(4)]
        ['none', 'last 1', 'last 2', 'last 4', 'first 1 + last 3', 'first 2 + last 2']
    """
    sizes = sorted({2**i for i in range(most.bit_length())} | {most}) if most else []
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
        draws: videos as other clips would have given them, made one by one: the bootstrap.
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
    kept = min(_REFINED, len(tried))
    total = len(set(strides)) + len(tried) * len(rules) + kept * (1 + len(rules)) + len(errors) + len(draws)
    costs: dict[Candidate, dict[str, float]] = {}
    plans: dict[Candidate, Plan] = {}
    own: set[tuple[int, int]] = set()
    with tqdm(total=total, desc="advice", disable=not progress or None, leave=False) as bar:

        def take(candidate: Candidate, plan: Plan) -> None:
            plans[candidate] = plan
            key = f"{'own' if candidate.shape in own else 'shared'} {candidate.name}"
            costs[candidate] = remember(key, partial(_costs, video, plan, frames, step))
            bar.update()

        levels = {}
        for stride in sorted(set(strides)):
            start = outpainting(stride, References.last(min(most, 4)), evaluations, evaluations, horizon)
            levels[stride] = remember(f"levels {stride}", partial(_life, video, start, step))
            bar.update()
        for shape in tried:
            for rule in rules:
                candidate = Candidate(*shape, rule)
                take(candidate, candidate.plan(levels[candidate.stride]))
        leaders: dict[tuple[int, int], Candidate] = {}
        for candidate in _ranked(costs, plans):
            leaders.setdefault(candidate.shape, candidate)
        for shape, leader in list(leaders.items())[:kept]:
            grid = remember(f"grid {leader.name}", partial(_refined, video, plans[leader], step))
            plan = Plan.from_dict(grid)
            own.add(shape)
            bar.update()
            for rule in (*rules, *_noised(leader.references)):
                take(Candidate(*shape, rule), dataclasses.replace(plan, references=rule))
        order = _ranked(costs, plans)
        finalists = _finalists(order)
        final = [plans[each] for each in finalists]
        sweep = []
        for error in errors:
            sweep.append((error, remember(f"error {error}", partial(_wrong, video, final, frames, step, error))))
            bar.update()
        drawn = []
        for number, draw in enumerate(draws):
            if enough():
                break
            drawn.append(remember(f"draw {number}", partial(_drawn, draw, final, frames, step)))
            bar.update()
    sensitivity, stability = _sensitivity(sweep, finalists), _stability(drawn, finalists, len(draws))
    return Advice(
        recommended=dataclasses.replace(final[0], name=finalists[0].name),
        name=finalists[0].name,
        table=_table(order, costs, plans, own),
        stability=stability,
        sensitivity=sensitivity,
        reasons=_reasons(order, costs, sensitivity, stability),
        unseen=_unseen(video, final[0], most),
        frames=frames,
    )


# -- what is computed -----------------------------------------------------------------------------------


def _costs(video: GaussianVideo, plan: Plan, frames: int, step: str, error: float = 0.0) -> dict[str, float]:
    """KL of the first F frames, of the last clip, drift and MB, in nats a frame."""
    ar_steps = frames // plan.stride - (0 if plan.overlapping else 1)
    found = plan_costs(video, plan, ar_steps, PerturbedScore(error) if error else None, step)
    return {"kl": found["kl"] / frames} | {key: found[key] / plan.stride for key in ("last_clip", "drift", "mb")}


def _wrong(
    video: GaussianVideo, plans: Sequence[Plan], frames: int, step: str, error: float
) -> list[dict[str, float] | None]:
    """The costs of several plans with a score error; None where a score this wrong leaves no law."""
    found: list[dict[str, float] | None] = []
    for plan in plans:
        try:
            found.append(_costs(video, plan, frames, step, error))
        except NotPositiveDefiniteError:
            found.append(None)
    return found


def _drawn(draw: Callable[[], GaussianVideo], plans: Sequence[Plan], frames: int, step: str) -> list[float]:
    """The KL of several plans on a video of the bootstrap."""
    video = draw()
    return [_costs(video, plan, frames, step)["kl"] for plan in plans]


def _life(video: GaussianVideo, plan: Plan, step: str) -> list[float]:
    """The levels of one chunk's life that are best, N + 1 of them."""
    found = optimal_schedule(
        video, plan, _SHORT, step=step, iterations=_ITERATIONS, starts=("geometric", "flow:1")
    )
    return [row[0] for row in found.plan.ar_grid]


def _refined(video: GaussianVideo, plan: Plan, step: str) -> dict[str, Any]:
    """The plan with the grid that a descent from its own finds, as a plan file's content."""
    return optimal_schedule(video, plan, _SHORT, step=step, iterations=_ITERATIONS, starts=()).plan.to_dict()


def _noised(references: References) -> list[References]:
    """The same with noise on all references, or on all but the newest."""
    picks = references.picks
    found = [
        References(tuple(dataclasses.replace(pick, level=level) for pick in picks)) for level in _NOISES if picks
    ]
    if sum(pick.count for pick in picks) > 1:
        found.append(References.last(1) + found[-1])
    return found


# -- what follows from it ---------------------------------------------------------------------------------


def _seen(plan: Plan) -> float:
    """Frames that the network is shown for one that comes out: (w + m) M/Δ."""
    frames = {reference.frame for reference in plan.references.at(10_000)}
    return (plan.window + len(frames)) * plan.reverse_steps / plan.stride


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
    table["front"] = pareto_front(table[["kl", "drift", "mb"]].round(10).to_numpy())
    return table


def _sensitivity(
    sweep: Sequence[tuple[float, list[dict[str, float] | None]]], finalists: Sequence[Candidate]
) -> pd.DataFrame:
    rows = []
    for error, found in sweep:
        values = [math.inf if each is None else each["kl"] for each in found]
        for candidate, value, each in zip(finalists, values, found, strict=True):
            drift = math.inf if each is None else each["drift"]
            best = value == min(values) < math.inf
            rows.append({"error": error, "name": candidate.name, "kl": value, "drift": drift, "best": best})
    return pd.DataFrame(rows, columns=["error", "name", "kl", "drift", "best"])


def _stability(drawn: Sequence[list[float]], finalists: Sequence[Candidate], asked: int) -> dict[str, Any]:
    """How often the first finalist is the best, up to the tie, in the draws."""
    found: dict[str, Any] = {"draws": len(drawn), "asked": asked, "stays": 0, "share": None, "winners": {},
                             "loss_median": None, "loss_worst": None}  # fmt: skip
    if not drawn:
        return found
    values = np.asarray(drawn, dtype=np.float64)
    loss = np.where(values[:, 0] > 0, 1 - values.min(1) / np.where(values[:, 0] > 0, values[:, 0], 1.0), 0.0)
    winners = np.where(loss <= _TIE, 0, values.argmin(1))
    stays = int((winners == 0).sum())
    return found | {
        "stays": stays,
        "share": stays / len(drawn),
        "winners": {finalists[i].name: int((winners == i).sum()) for i in np.unique(winners).tolist()},
        "loss_median": float(np.median(loss)),
        "loss_worst": float(loss.max()),
    }


def _reasons(
    order: Sequence[Candidate],
    costs: dict[Candidate, dict[str, float]],
    sensitivity: pd.DataFrame,
    stability: dict[str, Any],
) -> tuple[str, ...]:
    """What speaks for the best, each against the best candidate that differs from it in that alone."""
    best, base = order[0], costs[order[0]]
    found = [
        f"{best.name}: KL {base['kl']:.4g}, memory bottleneck {base['mb']:.3g} and drift "
        f"{base['drift']:+.3g} nats a frame"
    ]
    noised, other = best.references.noised, [each for each in order if each != best]
    alternatives = {
        "frames at a time": [c for c in other if (c.chunks, c.references) == (best.chunks, best.references)],
        "chunks in flight": [c for c in other if (c.stride, c.references) == (best.stride, best.references)],
        "references": [c for c in other if c.shape == best.shape and c.references.noised == noised],
        "noise on references": [c for c in other if c.shape == best.shape and c.references.noised != noised],
    }
    for what, rivals in alternatives.items():
        if rivals:
            rival = min(rivals, key=lambda each: costs[each]["kl"])
            change, drift = costs[rival]["kl"] - base["kl"], costs[rival]["drift"] - base["drift"]
            share = f" ({change / base['kl']:+.1%})" if base["kl"] > 0 else ""
            found.append(
                f"{what}: the best other choice, {rival.name}, changes the KL by {change:+.3g}{share} and the "
                f"drift by {drift:+.2g} nats a frame"
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
            f"of {stability['draws']} bootstraps over the clips it stays the best of the finalists in "
            f"{stability['stays']}; at worst another would save {stability['loss_worst']:.1%} of its KL"
        )
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
