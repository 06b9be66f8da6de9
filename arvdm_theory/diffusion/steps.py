"""One reverse step of the unit OU process: mean c_w W + c_s s(W, R), and its noise.

Moving a frame from level t to s = t - h (h > 0 of its clock), with a = e^{-h/2} and v = 1 - e^{-h} of the
forward kernel X^t | X^s ~ N(a X^s, v):

==============  ======================  ==============================  =======================
step            c_w                     c_s                             noise variance
==============  ======================  ==============================  =======================
exponential     e^{h/2}                 2 (e^{h/2} - 1)                 e^h - 1
euler           1 + h/2                 h                               h
ancestral       1/a                     v/a                             exact posterior matrix
ddpm            1/a                     v/a                             v σ²(s)/σ²(t)
ddpm-large      1/a                     v/a                             v
ddim            α(s)/α(t)               (α(s)/α(t)) σ²(t) - σ(s) σ(t)   0
ddim:η          α(s)/α(t)               (α(s)/α(t)) σ²(t) - κ σ(t)      η² v σ²(s)/σ²(t)
renoise         α(s)/α(t)               (α(s)/α(t)) σ²(t)               σ²(s)
==============  ======================  ==============================  =======================

with κ² = σ²(s) - η² v σ²(s)/σ²(t). ``renoise`` predicts the clean frame and noises it afresh, as few-step
distilled and consistency samplers do. Two steps are of second order along the probability flow, without noise, and
call the score where one evaluation is not enough: with x = W/α, σ' = σ/α and x̂ = (W + σ² s)/α,

- ``heun``: x + (σ'_s - σ'_t) (d_t + d_s)/2, d = -σ s, d_s at the Euler step's end (at s = 0 the Euler step
itself);
- ``dpm++2m``: (σ_s/σ_t) W + (α_s - α_t σ_s/σ_t) D, D = x̂ + (x̂ - x̂_before) h/(2 h_before) with h the step in
  log(α/σ); of first order in a stage's first step and at s = 0.

Sources: exponential integrator, arXiv 2503.10704 (appendix) and Zhang and Chen 2023; ancestral and its scalar
posterior variances, Ho et al. 2020, eq. 7; DDIM, Song et al. 2021, eq. 12 and 16; renoise, Song et al. 2023
(consistency models), algorithm 1; Heun, Karras et al. 2022, algorithm 1; DPM-Solver++ 2M, Lu et al. 2022,
algorithm 2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from arvdm_theory.noise import alpha, sigma2, transition

__all__ = ["STEPS", "Coefficients", "ReverseStep", "reverse_step"]


@dataclass(frozen=True)
class Coefficients:
    """c_w, c_s and the noise variance of one reverse step, each of the levels' shape.

    ``variance`` is None where the noise has the exact posterior covariance (a full matrix over moving frames
    and pixels).
    """

    window: Tensor
    score: Tensor
    variance: Tensor | None


@dataclass(frozen=True)
class ReverseStep:
    """A reverse step by name.

    Attributes:
        name: as at the command line.
        coefficients: (t, s) ↦ :class:`Coefficients`.
        order: the per-unit-time KL of its discretisation falls like h^order with the exact score away from
            level 0 (None: it has no discretisation error on Gaussian videos, or an infinite one).
        girsanov: whether Girsanov's theorem bounds its path KL (the noise of the reverse SDE itself).
        advance: how a step of several evaluations moves the window; its ``coefficients`` are then those of its
            first evaluation alone.
        looks_ahead: whether it calls the score at the level that it reaches.
    """

    name: str
    coefficients: Callable[[Tensor, Tensor], Coefficients]
    order: int | None
    girsanov: bool
    advance: Callable[[Evaluation], Tensor] | None = None
    looks_ahead: bool = False


@dataclass
class Evaluation:
    """What a step of several evaluations sees, for true windows and for the columns of an affine map alike.

    Attributes:
        window: W, (..., w, d).
        level, target: τ^m and τ^{m+1}, (w,).
        score: the score at the levels left.
        ahead: the score at the levels reached.
        memory: what the step before left behind; a stage begins with nothing.
    """

    window: Tensor
    level: Tensor
    target: Tensor
    score: Callable[[Tensor], Tensor]
    ahead: Callable[[Tensor], Tensor]
    memory: dict[str, Tensor]


def _exponential(level: Tensor, target: Tensor) -> Coefficients:
    h = level - target
    return Coefficients(torch.exp(h / 2), 2 * torch.expm1(h / 2), torch.expm1(h))


def _euler(level: Tensor, target: Tensor) -> Coefficients:
    h = level - target
    return Coefficients(1 + h / 2, h, h)


def _ancestral(level: Tensor, target: Tensor) -> Coefficients:
    a, v = transition(level, target)
    return Coefficients(1 / a, v / a, None)


def _ddpm(level: Tensor, target: Tensor) -> Coefficients:
    a, v = transition(level, target)
    return Coefficients(1 / a, v / a, v * sigma2(target) / sigma2(level))


def _ddpm_large(level: Tensor, target: Tensor) -> Coefficients:
    a, v = transition(level, target)
    return Coefficients(1 / a, v / a, v)


def _renoise(level: Tensor, target: Tensor) -> Coefficients:
    a, _ = transition(level, target)
    return Coefficients(1 / a, sigma2(level) / a, sigma2(target))


def _ddim_with_noise(eta: float) -> Callable[[Tensor, Tensor], Coefficients]:
    def coefficients(level: Tensor, target: Tensor) -> Coefficients:
        a, v = transition(level, target)
        variance = eta**2 * v * sigma2(target) / sigma2(level)
        left = sigma2(target) - variance
        kept = torch.where(left > 0, torch.sqrt(torch.where(left > 0, left, 1.0)), 0.0)  # with a slope at 0, too
        return Coefficients(1 / a, sigma2(level) / a - kept * torch.sqrt(sigma2(level)), variance)

    return coefficients


def _scales(level: Tensor) -> tuple[Tensor, Tensor]:
    """α and σ a frame, (w, 1)."""
    return alpha(level)[:, None], torch.sqrt(sigma2(level))[:, None]


def _heun(at: Evaluation) -> Tensor:
    (a_t, s_t), (a_s, s_s) = _scales(at.level), _scales(at.target)
    moves = (at.level > at.target)[:, None]
    change = torch.where(moves, s_s / a_s - s_t / a_t, 0.0)
    slope = -s_t * at.score(at.window)
    reached = torch.where(moves, a_s * (at.window / a_t + change * slope), at.window)
    if not bool((moves & (s_s > 0)).any()):
        return reached
    second = torch.where(s_s > 0, -s_s * at.ahead(reached), slope)
    return torch.where(moves, a_s * (at.window / a_t + change * (slope + second) / 2), at.window)


def _two_steps(at: Evaluation) -> Tensor:
    (a_t, s_t), (a_s, s_s) = _scales(at.level), _scales(at.target)
    moves = (at.level > at.target)[:, None]
    clean = (at.window + s_t**2 * at.score(at.window)) / a_t
    finite = moves & (s_s > 0)
    # Masked before it is divided by: a gradient passes through what is not chosen as well.
    h = torch.where(
        finite, torch.log(torch.where(finite, a_s * s_t / (torch.where(finite, s_s, 1.0) * a_t), 1.0)), 0.0
    )
    extrapolated = clean
    if at.memory:
        usable = finite & (at.memory["h"] > 0)
        ratio = torch.where(usable, h / torch.where(usable, at.memory["h"], 1.0), 0.0)
        extrapolated = clean + ratio / 2 * (clean - at.memory["clean"])
    at.memory.update(clean=clean, h=h)
    safe = torch.where(s_t > 0, s_t, 1.0)
    return torch.where(moves, s_s / safe * at.window + (a_s - a_t * s_s / safe) * extrapolated, at.window)


def _ddim(level: Tensor, target: Tensor) -> Coefficients:
    a, _ = transition(level, target)
    noise = torch.sqrt(sigma2(target)) * torch.sqrt(sigma2(level))
    return Coefficients(1 / a, sigma2(level) / a - noise, torch.zeros_like(a))


STEPS: dict[str, ReverseStep] = {
    step.name: step
    for step in (
        ReverseStep("exponential", _exponential, order=1, girsanov=True),
        ReverseStep("euler", _euler, order=1, girsanov=True),
        ReverseStep("ancestral", _ancestral, order=None, girsanov=False),
        ReverseStep("ddpm", _ddpm, order=None, girsanov=False),
        ReverseStep("ddpm-large", _ddpm_large, order=None, girsanov=False),
        ReverseStep("ddim", _ddim, order=None, girsanov=False),
        ReverseStep("renoise", _renoise, order=None, girsanov=False),
        ReverseStep("heun", _ddim, order=None, girsanov=False, advance=_heun, looks_ahead=True),
        ReverseStep("dpm++2m", _ddim, order=None, girsanov=False, advance=_two_steps),
    )
}


def reverse_step(step: str | ReverseStep) -> ReverseStep:
    """The reverse step of that name; ``ddim:0.5`` is DDIM with η = 0.5.

    Raises:
        ValueError: if there is none, or for an η outside [0, 1].
    """
    if isinstance(step, ReverseStep):
        return step
    if step.startswith("ddim:"):
        try:
            eta = float(step.removeprefix("ddim:"))
        except ValueError:
            eta = -1.0
        if not 0 <= eta <= 1:
            raise ValueError(f"DDIM's η is a number in [0, 1], as in 'ddim:0.5', got {step!r}")
        return ReverseStep(step, _ddim_with_noise(eta), order=None, girsanov=False)
    if step not in STEPS:
        raise ValueError(f"a reverse step is one of {', '.join(STEPS)} or ddim:η, got {step!r}")
    return STEPS[step]
