"""Rates: the ledger in nats a frame at the infinite horizon."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from arvdm_theory.decomposition.question import FULL_VIEW, Question
from arvdm_theory.decomposition.recursion.older_frames import older_information
from arvdm_theory.decomposition.recursion.stages import RecursiveStages, recursive_form
from arvdm_theory.decomposition.terms import StageErrors
from arvdm_theory.diffusion.scores import ExactScore
from arvdm_theory.diffusion.steps import ReverseStep
from arvdm_theory.number import Number
from arvdm_theory.plan.plan import Plan

__all__ = ["Rates", "rates"]


@dataclass(frozen=True)
class Rates:
    """What a frame more costs at the infinite horizon: each term of the ledger in nats a frame.

    Attributes:
        nie, de, see, cross: of the AR steps, summed over reverse steps.
        mb: of the memory bottleneck; ``floor`` with clean references (w = Δ), what no sampler of the plan beats.
        kl: of the KL of all clean frames; ``ar_step`` of the errors E_k of whole AR steps; ``trajectory`` of the
            ledger's sum.
        girsanov, closed: of the upper bounds; None where not defined.
        clip, clip_w2: KL, in nats, and W_2, in units of the frames, of one clip in the end; None where the
            sampler's loop does not contract.
        errors: of one AR step, as the ledger has them.
    """

    nie: Tensor
    de: Tensor
    see: Tensor
    cross: Tensor
    mb: Tensor
    floor: Tensor | None
    kl: Tensor
    ar_step: Tensor
    trajectory: Tensor
    girsanov: Tensor | None
    closed: Tensor | None
    clip: Tensor | None
    clip_w2: Tensor | None
    errors: StageErrors

    def to_dict(self) -> dict[str, float | None]:
        """All but ``errors`` as plain numbers."""
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "errors"}
        return {name: None if value is None else float(value) for name, value in values.items()}


def rates(
    video: Any,
    plan: Plan,
    score: Any = None,
    step: str | ReverseStep = "exponential",
    *,
    against: ExactScore = FULL_VIEW,
    ar_grid: Tensor | None = None,
    init_grid: Tensor | None = None,
) -> Rates:
    """The ledger's rates in nats a frame as the AR steps go to infinity, differentiable.

    The limits of the laws come from discrete Lyapunov equations (the state; second moments of the sampler's filter
    on true frames) and two Riccati equations (the posterior of the state; that of the sampler's noisy window), all
    solved by doubling.

    Args:
        video: a linear state space whose law tends to a stationary one.
        plan: with references that are the first or the last frames.
        score: affine in (window, references); see :func:`arvdm_theory.decomposition.ledger.ledger`.
        step: the reverse step.
        against: the s* that SEE is measured against.
        ar_grid, init_grid: levels in place of the plan's.

    Raises:
        ValueError: if there is no recursion, no stationary law, or the ledger's increments do not converge
            geometrically: a state on the unit circle that no noise drives is learnt like 1/k.

    Example:
        >>> from arvdm_theory import References, ar1, fifo, rates
        >>> found = rates(ar1(0.9), fifo(4, References.last(2), reverse_steps=10))
        >>> round(float(found.kl), 6), bool(found.mb.abs() < 1e-12)
        (0.037565, True)
    """
    question = Question(
        video, plan, 1, score=score, step=step, against=against, ar_grid=ar_grid, init_grid=init_grid
    ).prepared()
    form = recursive_form(video, plan)
    if isinstance(form, str):
        raise ValueError(f"rates are for linear state spaces and references of bounded reach: {form}")
    if form.unlearnt():
        raise ValueError(
            f"there is no rate: a state of the video {video.name!r} neither dies out nor is driven by noise, so "
            "the past learns it like 1/k, and MB and KL of AR step k converge no faster than that"
        )
    limit = form.settled()
    if limit is None:
        raise ValueError(f"there is no rate: the law of the video {video.name!r} tends to no stationary one")
    steps = RecursiveStages.of(question, limit, 1)
    if isinstance(steps, str):
        raise ValueError(f"there is no rate: {steps}")
    pattern = steps.pattern
    local = pattern.faded(steps.locals_[0])
    law = local.video.at(pattern.stage)
    steps = replace(steps, locals_=[local], stages=[law], before=steps.before)
    _, [errors] = steps.errors()
    sampler, kernels = steps.sampler()
    increment, clip = sampler.settled(local, kernels[0])
    posterior = limit.predicted(sampler.block.riccati().limit(limit.covariance)[0])  # type: ignore[index]
    older = {
        name: law.over_modes(older_information(pattern, local, name == "mb_clean", posterior[None]))
        for name in ("mb", "mb_clean")
        if getattr(errors, name) is not None
    }
    errors = replace(errors, **{name: getattr(errors, name) + more for name, more in older.items()})

    def rate(number: Number | None) -> Tensor | None:
        return None if number is None else number.sum().samples[0].sum() / plan.stride

    nie, de, see, cross, mb, floor = (
        rate(getattr(errors, name)) for name in ("nie", "de", "see", "cross", "mb", "mb_clean")
    )
    assert nie is not None
    assert de is not None
    assert see is not None
    assert cross is not None
    assert mb is not None
    upper = [
        None if path is None or start is None else rate(path.sum() + start.sum()) + mb  # type: ignore[operator]
        for path, start in ((errors.girsanov, errors.nie), (errors.closed, errors.nie_closed))
    ]
    last = (None, None) if clip is None else (law.over_modes(clip[0]), torch.sqrt(law.over_modes(clip[1])))
    return Rates(
        nie, de, see, cross, mb, floor, law.over_modes(increment) / plan.stride,
        law.ar_step_error(kernels[0])[0] / plan.stride, nie + de + see + cross + mb,
        upper[0], upper[1], last[0], last[1], errors,
    )  # fmt: skip
