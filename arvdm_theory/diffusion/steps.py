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
ddim            α(s)/α(t)               (α(s)/α(t)) σ²(t) - σ(s) σ(t)   0
==============  ======================  ==============================  =======================

Sources: exponential integrator, arXiv 2503.10704 (appendix) and Zhang and Chen 2023; ancestral and its scalar
posterior variance, Ho et al. 2020, eq. 7; DDIM, Song et al. 2021, eq. 12.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from arvdm_theory.noise import sigma2, transition

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
    """

    name: str
    coefficients: Callable[[Tensor, Tensor], Coefficients]
    order: int | None
    girsanov: bool


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
        ReverseStep("ddim", _ddim, order=None, girsanov=False),
    )
}


def reverse_step(step: str | ReverseStep) -> ReverseStep:
    """The reverse step of that name.

    Raises:
        ValueError: if there is none.
    """
    if isinstance(step, ReverseStep):
        return step
    if step not in STEPS:
        raise ValueError(f"a reverse step is one of {', '.join(STEPS)}, got {step!r}")
    return STEPS[step]
