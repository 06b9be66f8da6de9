"""The terms of the ledger by recursions."""

from __future__ import annotations

import torch
from torch import Tensor

from arvdm_theory.decomposition.question import Question
from arvdm_theory.decomposition.recursion.older_frames import older_informations
from arvdm_theory.decomposition.recursion.shared_steps import RecursiveTerms, SharedSteps
from arvdm_theory.decomposition.recursion.stages import RecursiveStages, recursive_form
from arvdm_theory.decomposition.terms import attributed, closed_rollout, dense_steps
from arvdm_theory.number import Number

__all__ = ["long_terms", "recursive_terms"]

# From as many AR steps beyond the beginning of its pattern on a ledger is taken by recursions, and where the joint
# covariance of its frames has so many times the entries of a state: a long state costs more than few frames.
_PAYS = 32
_LARGER = 3


def recursive_terms(question: Question) -> RecursiveTerms | str:
    """The terms of the ledger in linear time, or in words why there is no recursion.

    Args:
        question: what the ledger is asked, of at least ``plan.repeats_from`` AR steps.
    """
    question = question.prepared()
    plan, ar_steps = question.plan, question.ar_steps
    form = recursive_form(question.video, plan)
    if isinstance(form, str):
        return form
    begin = plan.repeats_from
    if begin is None or ar_steps < begin:
        return f"its references are filled from AR step {begin} on"
    count = ar_steps - begin + 1
    steps = RecursiveStages.of(question, form, count)
    if isinstance(steps, str):
        return steps
    before, local = steps.errors()
    found = closed_rollout(steps.question, steps.before)
    sampler, kernels = steps.sampler()
    rolled = sampler.rolled(steps.locals_, kernels, count)
    over = steps.stages[0].over_modes
    increments = over(rolled.increments)
    more = _lasting(increments, count)
    found["kl"] = found["kl"] + more.sum()
    found["rounding"] += float(_lasting(over(rolled.rounding), count).detach().sum())
    errors = [stage.ar_step_error(kernel) for stage, kernel in zip(steps.stages, kernels, strict=True)]
    later = {
        "clips": over(rolled.clips), "clips_w2": torch.sqrt(over(rolled.clips_w2)),
        "ar_step_errors": torch.cat(errors),
    }  # fmt: skip
    if question.attribution:
        parts = [
            attributed(stage, question.reverse, each) for stage, each in zip(steps.stages, errors, strict=True)
        ]
        later["attribution"] = torch.cat(parts)
    for name, values in later.items():
        found[name] = Number.exact(torch.cat([found[name].samples[0], _lasting(values, count)]))
    del found["kl_w2"]
    series: dict[str, Number] = {}
    shared = SharedSteps((*before[1:], *local), series, ar_steps)
    for name in ("mb", "mb_clean"):
        base = shared.of(name) if question.memory else None
        if base is not None:
            older = over(older_informations(steps.pattern, steps.locals_, count, name == "mb_clean"))
            early = older.new_zeros(begin - 1)
            series[name] = base + torch.cat([early, _lasting(older, count)])
    return RecursiveTerms(before[0], shared, **found)


def _lasting(values: Tensor, count: int) -> Tensor:
    """The first ``count`` values of a series whose last one stays."""
    if len(values) >= count:
        return values[:count]
    return torch.cat([values, values[-1:].expand(count - len(values), *values.shape[1:])])


def long_terms(question: Question) -> RecursiveTerms | None:
    """The terms by recursions, if there are any and the AR steps are so many that they pay; else None.

    Raises:
        ValueError: if there is no recursion, and the frames are more than a joint covariance can hold.
    """
    video, plan, ar_steps = question.video, question.plan, question.ar_steps
    begin, most = plan.repeats_from, dense_steps(video, plan)
    why: str | None = None
    if begin is not None and ar_steps >= begin + _PAYS and _large(question, most):
        found = recursive_terms(question)
        if not isinstance(found, str):
            return found
        why = found
    if most is not None and ar_steps > most:
        form = recursive_form(video, plan)
        why = why or (form if isinstance(form, str) else "its AR steps are too few to have a pattern")
        raise ValueError(
            f"{ar_steps} AR steps of the plan {plan.name!r} need the joint covariance of "
            f"{plan.total_frames(ar_steps)} frames at once ({why}): that goes up to {most} AR steps"
        )
    return None


def _large(question: Question, most: int | None) -> bool:
    """Whether the joint covariance of all frames is too large, or far larger than that of a state."""
    video, steps = question.video, question.ar_steps
    form = video.state_space_form()
    rows = question.plan.total_frames(steps) * video.frame_dim
    return form is None or (most is not None and steps > most) or rows >= _LARGER * form.states
