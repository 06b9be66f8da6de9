"""The schedule that a video asks for: reverse steps placed where an exact objective is least.

The ledger is differentiable in its grids. A grid is kept within the plan's requirements by construction: frame j's
clock falls from t^I_j to t^O_j in M positive increments, the softmax of free numbers, so that

    τ_j^m = t^I_j - (t^I_j - t^O_j) Σ_{i ≤ m} softmax(θ_j)_i,

and the objective is minimised over θ of AR step and initialisation together: L-BFGS from every one of the grids
that people choose by hand, of which none is better than what is found.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor
from tqdm import tqdm

from arvdm_theory.decomposition.ledger import ledger_terms, memory_bottleneck
from arvdm_theory.decomposition.question import Question
from arvdm_theory.decomposition.terms import closed_rollout, first_input
from arvdm_theory.diffusion.scores import as_score
from arvdm_theory.diffusion.steps import ReverseStep, reverse_step
from arvdm_theory.information.gaussian import NotPositiveDefiniteError
from arvdm_theory.laws.gaussian import GaussianVideo
from arvdm_theory.noise import time_grid
from arvdm_theory.number import Number
from arvdm_theory.plan.plan import Plan

__all__ = [
    "HAND_GRIDS",
    "Objective",
    "Schedule",
    "hand_grids",
    "objective_value",
    "optimal_schedule",
    "plan_floor",
]

Objective = Literal["kl", "clip", "ar-step", "last-step", "path", "girsanov"]

HAND_GRIDS = ("uniform", "geometric", "karras:7", "flow:1", "flow:3", "flow:8", "cosine", "tangent:1")
"""The spacings that are chosen by hand, as :func:`arvdm_theory.noise.time_grid` names them."""

# Where the geometric grid of a frame that ends clean has its last level above 0.
_GEOMETRIC_END = 1e-3
# Increments below this part of a frame's way are not followed: the softmax is flat there.
_SMALLEST = 1e-7
# The best grids of the short descents from all starts are followed to the end.
_FOLLOWED = 2
# Stands for an objective that is infinite or not defined: no descent goes there.
_REFUSED = 1e12


@dataclass(frozen=True)
class Schedule:
    """A plan with the best grids that were found.

    Attributes:
        plan: with its ``ar_grid`` and ``init_grid``.
        objective: what was minimised.
        value: its value there, in nats.
        start: its value at the plan's own grids.
        baselines: its value at each of :data:`HAND_GRIDS`; infinite where a grid has no finite one.
        floor: :func:`plan_floor`, what no grid's KL of all clean frames passes; None where there is none.
        why_no_floor: the reason then.
    """

    plan: Plan
    objective: Objective
    value: float
    start: float
    baselines: dict[str, float]
    floor: float | None
    why_no_floor: str = ""

    @property
    def best_baseline(self) -> str:
        """The name of the best grid chosen by hand."""
        return min(self.baselines, key=self.baselines.__getitem__)


def objective_value(
    video: GaussianVideo,
    plan: Plan,
    ar_steps: int,
    objective: Objective = "kl",
    *,
    score: Any = None,
    step: str | ReverseStep = "exponential",
    ar_grid: Tensor | None = None,
    init_grid: Tensor | None = None,
) -> Tensor:
    """One objective of a plan as a differentiable scalar, in nats.

    Args:
        video: the Gaussian video.
        plan: the plan.
        ar_steps: K.
        objective: ``kl`` (of all clean frames), ``clip`` (of the last clip), ``ar-step`` (IE + Σ E_k),
            ``last-step`` (IE + E_K: where w = Δ and references are clean, the KL of all frames grows by E + MB an
            AR step, so this is for long videos, and takes the time of two stages), ``path``
            (the per-step sum: NIE and path terms of both stages) or ``girsanov`` (that with the Girsanov form),
            the last two without the memory bottleneck, on which a grid has no bearing.
        score: affine in (window, references); None for the exact one.
        step: the reverse step.
        ar_grid: levels (M + 1, w) in place of the plan's.
        init_grid: the same for the initialisation stage.

    Raises:
        ValueError: for an unknown objective, a score that is not affine, or a step that has no such objective.
    """
    if objective not in get_args(Objective):
        raise ValueError(f"an objective is one of {', '.join(get_args(Objective))}, got {objective!r}")
    if objective in ("path", "girsanov"):
        terms = ledger_terms(
            video, plan, ar_steps, score=score, step=step, girsanov=objective == "girsanov", closed=False,
            memory=False, ar_grid=ar_grid, init_grid=init_grid,
        )  # fmt: skip
        total: Number = terms.initialisation.path + terms.ar_paths.sum()
        if objective == "girsanov":
            own, ar = terms.initialisation.girsanov, terms.total("girsanov")
            if own is None or ar is None:
                raise ValueError(f"the {reverse_step(step).name} step has no Girsanov form")
            nie = terms.total("nie")
            assert nie is not None
            total = own.sum() + ar + terms.initialisation.nie + nie
        return torch.as_tensor(total.value, dtype=torch.float64)
    own_score = as_score(score, video)
    question = Question(video, plan, ar_steps, score=own_score, step=step, ar_grid=ar_grid, init_grid=init_grid)
    if objective == "last-step":
        question = question.prepared()
        last = question.law(ar_steps)
        started = first_input(question, question.law(0), last.stage.frames.stop)
        kernel = last.kernel(question.score, question.reverse)  # type: ignore[attr-defined]
        if started is None or kernel is None:
            raise ValueError(f"the objective {objective!r} needs a score that is affine in (window, references)")
        error: Tensor = started[1] + last.ar_step_error(kernel)[0]  # type: ignore[attr-defined]
        return error
    wanted = {"kl": "kl", "clip": "clips", "ar-step": "ar_step_errors"}[objective]
    found = closed_rollout(question, question.laws(), wanted=(wanted,))
    if wanted not in found:
        raise ValueError(f"the objective {objective!r} needs a score that is affine in (window, references)")
    number = {
        "kl": lambda: found["kl"],
        "clip": lambda: found["clips"][ar_steps - 1],
        "ar-step": lambda: found["ie"] + found["ar_step_errors"].sum(),
    }[objective]()
    return torch.as_tensor(number.value, dtype=torch.float64)


def hand_grids(plan: Plan) -> dict[str, Plan]:
    """The plan with each of the grids that people choose by hand, :data:`HAND_GRIDS`, in both stages.

    Every frame's levels are spaced between its own ends. A geometric grid has no end at 0: that of a frame that
    comes out clean goes to level 0.001 (to half of its way in log, if that is no way) and takes its last step from
    there to 0.

    Example:
        >>> from arvdm_theory import outpainting
        >>> grids = hand_grids(outpainting(2, reverse_steps=3, horizon=6.0))
        >>> [round(row[0], 3) for row in grids["geometric"].ar_grid]
        [6.0, 0.077, 0.001, 0.0]
    """
    found = {}
    for spacing in HAND_GRIDS:
        grids = [
            tuple(zip(*(_spaced(a, b, len(grid) - 1, spacing) for a, b in zip(grid[0], grid[-1], strict=True)),
                      strict=True))
            for grid in (plan.ar_grid, plan.init_grid)
        ]  # fmt: skip
        found[spacing] = dataclasses.replace(plan, ar_grid=grids[0], init_grid=grids[1])
    return found


def _spaced(start: float, end: float, steps: int, spacing: str) -> tuple[float, ...]:
    if start <= end:
        return (start,) * (steps + 1)
    if spacing != "geometric" or end > 0:
        return time_grid(start, end, steps, spacing)
    if steps == 1:
        return start, end
    return (*time_grid(start, min(_GEOMETRIC_END, start / 2), steps - 1, spacing), end)


def plan_floor(video: GaussianVideo, plan: Plan, ar_steps: int) -> float:
    """Σ_k I(Output_k; Past_k | the references before noising): KL(clean) of no sampler of the plan is below it.

    Raises:
        ValueError: if w > Δ, where there is no such floor.
    """
    if plan.overlapping:
        raise ValueError(
            "the noisy window carries information past the clean frames (w > Δ), so Σ MB bounds the joint law only"
        )
    parts = (memory_bottleneck(video, plan, k, clean_references=True) for k in range(1, ar_steps + 1))
    return sum(float(part) for part in parts)


def optimal_schedule(
    video: GaussianVideo,
    plan: Plan,
    ar_steps: int,
    objective: Objective = "kl",
    *,
    score: Any = None,
    step: str | ReverseStep = "exponential",
    iterations: int = 120,
    shared: bool | None = None,
    starts: Sequence[str] = HAND_GRIDS,
    progress: bool = False,
) -> Schedule:
    """The plan with the AR and initialisation grids that minimise an objective.

    A local search: a short descent from the plan's own grids and from each of :data:`HAND_GRIDS`, of which the
    best are followed on. A better grid may exist; a worse one than the best of these is never returned.

    Args:
        video, plan, ar_steps, objective, score, step: as :func:`objective_value`.
        iterations: the most of L-BFGS on each grid that is followed; a quarter of it from every start.
        starts: which of the hand grids are descended from (all of them are looked at).
        shared: whether all frames of the window share their increments; None: where they share their levels.
        progress: whether to show a progress bar.

    Raises:
        ValueError: as :func:`objective_value`, for fewer than one iteration, a start that is none, or where the
            objective is finite at none of the starts.

    Example:
        >>> from arvdm_theory import References, outpainting, reference_video
        >>> plan = outpainting(2, References.last(4), reverse_steps=2, init_steps=2)
        >>> found = optimal_schedule(reference_video(), plan, 2, iterations=10)
        >>> found.value < min(found.start, *found.baselines.values())
        True
    """
    if iterations < 1:
        raise ValueError(f"at least one iteration is needed, got {iterations}")
    if unknown := sorted(set(starts) - set(HAND_GRIDS)):
        raise ValueError(f"a start is one of {', '.join(HAND_GRIDS)}, got {', '.join(unknown)}")
    reverse_step(step)
    own, first = (
        torch.tensor(grid, dtype=torch.float64, device=video.device) for grid in (plan.ar_grid, plan.init_grid)
    )
    alike = shared if shared is not None else bool((own == own[:, :1]).all())
    sizes = [1 if alike else own.shape[1], 1 if alike else first.shape[1]]
    problem = _Problem(
        lambda ar, init: objective_value(
            video, plan, ar_steps, objective, score=score, step=step, ar_grid=ar, init_grid=init
        ),
        own, first, sizes,
    )  # fmt: skip
    try:
        floor, why = plan_floor(video, plan, ar_steps), ""
    except ValueError as error:
        if not plan.overlapping:
            raise
        floor, why = None, str(error)

    grids = {"": plan, **hand_grids(plan)}
    values: dict[str, float] = {}
    best = math.inf, (own, first)
    ends: list[tuple[float, NDArray[np.float64]]] = []
    with tqdm(total=len(grids) + _FOLLOWED, desc="schedules", disable=not progress or None, leave=False) as bar:
        for name, each in grids.items():
            start = [torch.tensor(g, dtype=torch.float64).to(own) for g in (each.ar_grid, each.init_grid)]
            values[name] = problem.at(*start)
            if values[name] < best[0]:
                best = values[name], (start[0], start[1])
            if not name or name in starts:
                ends.append(problem.descend(problem.free(*start), -(-iterations // 4)))
            bar.update()
        ends.sort(key=lambda end: end[0])
        for _, at in ends[:_FOLLOWED]:
            value, found = problem.descend(at, iterations)
            if value < best[0]:
                best = value, problem.grids(found)
            bar.update()
    if not math.isfinite(best[0]):
        raise ValueError(
            f"the objective {objective!r} is infinite for the {reverse_step(step).name} step, whatever the grid: "
            "it moves a frame without noise"
        )
    rows = [tuple(map(tuple, grid.tolist())) for grid in best[1]]
    return Schedule(
        dataclasses.replace(plan, ar_grid=rows[0], init_grid=rows[1]), objective, best[0], values.pop(""), values,
        floor, why,
    )  # fmt: skip


@dataclass(frozen=True)
class _Problem:
    """An objective as a function of the free numbers θ of both grids, one flat vector.

    Attributes:
        value: of AR and initialisation grid.
        own, first: a grid with the ends, (M + 1, frames).
        sizes: columns of θ: 1 where all frames share their increments.
    """

    value: Callable[[Tensor, Tensor], Tensor]
    own: Tensor
    first: Tensor
    sizes: list[int]

    def grids(self, flat: NDArray[np.float64] | Tensor) -> tuple[Tensor, Tensor]:
        """The levels (M + 1, frames) of both stages."""
        free = torch.as_tensor(flat).to(self.own)
        cut = self.sizes[0] * (len(self.own) - 1)
        ar, init = free[:cut].reshape(self.sizes[0], -1), free[cut:].reshape(self.sizes[1], -1)
        return _grid(self.own, ar), _grid(self.first, init)

    def free(self, ar: Tensor, init: Tensor) -> NDArray[np.float64]:
        """θ of grids (M + 1, frames), of the first frame that moves where the increments are shared."""
        parts = []
        for grid, size in zip((ar, init), self.sizes, strict=True):
            way = grid[0] - grid[-1]
            moving = way > 0
            share = torch.where(
                moving, (grid[:-1] - grid[1:]) / torch.where(moving, way, 1.0), 1 / (len(grid) - 1)
            )
            chosen = share if size > 1 or not bool(moving.any()) else share[:, moving]
            parts.append(torch.log(chosen[:, :size].clamp(min=_SMALLEST)).mT.flatten())
        flat: NDArray[np.float64] = torch.cat(parts).cpu().numpy()
        return flat

    def at(self, ar: Tensor, init: Tensor) -> float:
        """The objective at given grids; infinite where it has no value."""
        with torch.no_grad():
            try:
                found = float(self.value(ar, init))
            except NotPositiveDefiniteError:
                return math.inf
        return found if math.isfinite(found) else math.inf

    def descend(self, start: NDArray[np.float64], iterations: int) -> tuple[float, NDArray[np.float64]]:
        """The least value that L-BFGS meets, and where.

        Raises:
            ValueError: if the objective is finite at the start but has no gradient there.
        """
        best, kept = math.inf, start

        def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            nonlocal best, kept
            free = torch.from_numpy(flat.copy()).requires_grad_()
            try:
                found = self.value(*self.grids(free))
            except NotPositiveDefiniteError:
                return _REFUSED, np.zeros_like(flat)
            (slope,) = torch.autograd.grad(found, free)
            value = float(found.detach())
            sloped = bool(torch.isfinite(slope).all())
            if math.isfinite(value) and not sloped and best == math.inf:
                raise ValueError("the objective has no gradient in the levels for this reverse step")
            if not (math.isfinite(value) and sloped):
                return _REFUSED, np.zeros_like(flat)
            if value < best:
                best, kept = value, flat.copy()
            return value, slope.cpu().numpy()

        minimize(loss, start, jac=True, method="L-BFGS-B",
                 options={"maxiter": iterations, "maxcor": 20, "ftol": 1e-15, "gtol": 1e-10})  # fmt: skip
        return best, kept


def _grid(like: Tensor, free: Tensor) -> Tensor:
    """Levels (M + 1, frames) between the ends of ``like``; what stands still in the plan stands still here."""
    share = torch.softmax(free, -1).cumsum(-1).mT
    share = torch.cat([torch.zeros_like(share[:1]), share[:-1], torch.ones_like(share[:1])])
    return like[0] - (like[0] - like[-1]) * share
