"""The KL of the first F frames of a plan, and what goes with it, in nats a frame: exact, and cheap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from arvdm_theory.choose.context_noise import plan_costs
from arvdm_theory.decomposition.question import Question
from arvdm_theory.decomposition.terms import closed_rollout, first_input
from arvdm_theory.diffusion.scores import PerturbedScore, as_score
from arvdm_theory.information.gaussian import NotPositiveDefiniteError, cholesky, log_det
from arvdm_theory.laws.gaussian import GaussianVideo
from arvdm_theory.plan.plan import Plan

__all__ = ["ar_steps", "costs_of", "finite_kl", "frame_kl"]

# Stands for a KL that is infinite, in files that hold numbers.
_HUGE = 1e300


def ar_steps(plan: Plan, frames: int) -> int:
    """K, after which so many frames are clean."""
    return frames // plan.stride - (0 if plan.overlapping else 1)


def _costs(video: GaussianVideo, plan: Plan, frames: int, step: str, error: float = 0.0) -> dict[str, float]:
    """KL of the first F frames, of the last clip, drift and MB, in nats a frame."""
    found = plan_costs(video, plan, ar_steps(plan, frames), PerturbedScore(error) if error else None, step)
    return {"kl": found["kl"] / frames} | {key: found[key] / plan.stride for key in ("last_clip", "drift", "mb")}


def frame_kl(video: GaussianVideo, plan: Plan, frames: int, step: str) -> float:
    """KL of the first F frames, in nats a frame.

    Where w = Δ and references are clean frames it is IE + Σ_k [E_k + MB_k], with
    Σ_k MB_k = Σ_k h(Output_k | R_k) - h(all frames) + h(the first ones), and AR steps that see equally far back
    share E_k and h(Output_k | R_k): nothing is rolled out.
    """
    question = Question(video, plan, ar_steps(plan, frames), score=as_score(None, video), step=step).prepared()
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


def finite_kl(video: GaussianVideo, plan: Plan, frames: int, step: str) -> float:
    """:func:`frame_kl`, and a huge number where rounding leaves no law."""
    try:
        return min(frame_kl(video, plan, frames, step), _HUGE)
    except NotPositiveDefiniteError:
        return _HUGE


def costs_of(
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
