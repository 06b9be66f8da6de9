"""The schedule that a video asks for: reverse steps placed where an exact objective is least.

The ledger is differentiable in its grids. A grid is kept within the plan's requirements by construction: frame j's
clock falls from t^I_j to t^O_j in M positive increments, the softmax of free numbers, so that

    τ_j^m = t^I_j - (t^I_j - t^O_j) Σ_{i ≤ m} softmax(θ_j)_i,

and the objective is minimised over θ of AR step and initialisation together (L-BFGS, several starts).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from arvdm_theory.decomposition.ledger import ledger_terms
from arvdm_theory.decomposition.question import Question
from arvdm_theory.decomposition.terms import closed_rollout
from arvdm_theory.diffusion.scores import as_score
from arvdm_theory.diffusion.steps import ReverseStep, reverse_step
from arvdm_theory.laws.gaussian import GaussianVideo
from arvdm_theory.number import Number
from arvdm_theory.plan.plan import Plan

__all__ = ["Objective", "Schedule", "objective_value", "optimal_schedule"]

Objective = Literal["kl", "clip", "ar-step", "path", "girsanov"]

# Starting points: how strongly the first grid crowds its steps towards the end of a frame's way.
_STARTS = (1.0, 3.0, 6.0)
# Increments below this part of a frame's way are not followed: the softmax is flat there.
_SMALLEST = 1e-7


@dataclass(frozen=True)
class Schedule:
    """A plan with the best grids that were found.

    Attributes:
        plan: with its ``ar_grid`` and ``init_grid``.
        objective: what was minimised.
        value: its value there, in nats.
        start: its value at the plan's own grids.
    """

    plan: Plan
    objective: Objective
    value: float
    start: float


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
        objective: ``kl`` (of all clean frames), ``clip`` (of the last clip), ``ar-step`` (IE + Σ E_k), ``path``
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
    found = closed_rollout(question, question.laws())
    if "kl" not in found:
        raise ValueError(f"the objective {objective!r} needs a score that is affine in (window, references)")
    number = {
        "kl": found["kl"],
        "clip": found["clips"][ar_steps - 1],
        "ar-step": found["ie"] + found["ar_step_errors"].sum(),
    }[objective]
    return torch.as_tensor(number.value, dtype=torch.float64)


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
) -> Schedule:
    """The plan with the AR and initialisation grids that minimise an objective.

    A local search from several starts: a better grid may exist, a worse one than the plan's own is never returned.

    Args:
        video, plan, ar_steps, objective, score, step: as :func:`objective_value`.
        iterations: of L-BFGS, from each start.
        shared: whether all frames of the window share their increments; None: where they share their levels.

    Raises:
        ValueError: as :func:`objective_value`, or for fewer than one iteration.

    Example:
        >>> from arvdm_theory import References, outpainting, reference_video
        >>> plan = outpainting(2, References.last(4), reverse_steps=2, init_steps=2)
        >>> found = optimal_schedule(reference_video(), plan, 2, iterations=10)
        >>> found.value < found.start
        True
    """
    if iterations < 1:
        raise ValueError(f"at least one iteration is needed, got {iterations}")
    own, first = (
        torch.tensor(grid, dtype=torch.float64, device=video.device) for grid in (plan.ar_grid, plan.init_grid)
    )
    alike = shared if shared is not None else bool((own == own[:, :1]).all())

    def value(ar: Tensor, init: Tensor) -> Tensor:
        return objective_value(
            video, plan, ar_steps, objective, score=score, step=step, ar_grid=ar, init_grid=init
        )  # fmt: skip

    with torch.no_grad():
        start = float(value(own, first))
    best, grids = start, (own, first)
    for power in _STARTS:
        free = [_crowded(grid, power, alike).requires_grad_() for grid in (own, first)]
        found = _descend(lambda ar, init: value(_grid(own, ar), _grid(first, init)), free, iterations)
        if found < best:
            best, grids = found, (_grid(own, free[0]).detach(), _grid(first, free[1]).detach())
    rows = [tuple(map(tuple, grid.tolist())) for grid in grids]
    return Schedule(dataclasses.replace(plan, ar_grid=rows[0], init_grid=rows[1]), objective, best, start)


def _crowded(grid: Tensor, power: float, shared: bool) -> Tensor:
    """θ of increments ∝ (1 - m/M)^power-like steps, (frames or 1, M)."""
    steps = len(grid) - 1
    edges = (1 - torch.arange(steps + 1, dtype=torch.float64) / steps) ** power
    increments = torch.log((edges[:-1] - edges[1:]).clamp(min=_SMALLEST))
    return increments.repeat(1 if shared else grid.shape[1], 1).to(grid.device)


def _grid(like: Tensor, free: Tensor) -> Tensor:
    """Levels (M + 1, frames) between the ends of ``like``; what stands still in the plan stands still here."""
    share = torch.softmax(free, -1).cumsum(-1).mT
    share = torch.cat([torch.zeros_like(share[:1]), share[:-1], torch.ones_like(share[:1])])
    return like[0] - (like[0] - like[-1]) * share


def _descend(loss: Callable[..., Tensor], free: list[Tensor], iterations: int) -> float:
    """The least value that L-BFGS finds; ``free`` is left where it is."""
    optimiser = torch.optim.LBFGS(free, max_iter=iterations, history_size=20, line_search_fn="strong_wolfe")
    best, kept = math.inf, [each.detach().clone() for each in free]

    def closure() -> Tensor:
        nonlocal best, kept
        optimiser.zero_grad()
        found = loss(*free)
        slopes = torch.autograd.grad(found, free)
        for each, slope in zip(free, slopes, strict=True):
            each.grad = slope
        value = float(found.detach())
        if math.isfinite(value) and value < best:
            best, kept = value, [each.detach().clone() for each in free]
        return found

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for each, value in zip(free, kept, strict=True):
            each.copy_(value)
    return best
