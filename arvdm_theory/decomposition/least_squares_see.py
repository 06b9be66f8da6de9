"""The score estimation error that least squares must make: its exact law against training-set size.

A linear denoiser fitted to n independent pairs (z_i, x_i), z = (W^m, R) with q entries and an intercept, misses
the optimal one. For jointly Gaussian pairs its prediction at a fresh z has, for n > q + 2,

    E ‖x̂(z) - E[x | z]‖² = tr Cov(x | z) · [1/n + (1 + 1/n) q/(n - q - 2)],

and without an intercept (mean known) tr Cov(x | z) · q/(n - q - 1). The first is ordinary least squares: the mean
of n errors, plus a Wishart inverse at a point that is off the sample mean by a factor 1 + 1/n. The factor does not
depend on the scale, or on which frame is predicted, so SEE follows:

    E SEE_m = ½ Σ_j (c_s²/v)_j (α_j/σ_j²)² tr Cov(X_j | W^m, R) · [..],

with the sampler's coefficients c_s and noise v at the frames that move. E CROSS is 0: least squares has no bias.
The law is that of independent pairs, one noise draw for every video; with several draws a video the pairs are
dependent, and this is not their law.

Source: Anderson 2003, An Introduction to Multivariate Statistical Analysis, section 7.7 (E of an inverse Wishart).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from arvdm_theory.diffusion.steps import ReverseStep, reverse_step
from arvdm_theory.information.gaussian import cholesky
from arvdm_theory.laws.gaussian import GaussianVideo
from arvdm_theory.laws.gaussian_kernel import gaussian_steps
from arvdm_theory.laws.gaussian_window import WindowLaw
from arvdm_theory.noise import alpha, sigma2
from arvdm_theory.plan.plan import Plan

__all__ = ["excess_factor", "expected_see"]


def excess_factor(regressors: int, pairs: int, intercept: bool = True) -> float:
    """Expected excess of least squares over the residual: the bracket above.

    Args:
        regressors: q, the entries of z without the intercept.
        pairs: n.
        intercept: whether one is fitted.

    Returns:
        the factor, infinite where n ≤ q + 2 (q + 1 without an intercept) and the expectation does not exist.

    Example:
        >>> excess_factor(3, 14, intercept=False)
        0.3
    """
    if pairs <= regressors + 1 + intercept:
        return math.inf
    if not intercept:
        return regressors / (pairs - regressors - 1)
    return 1 / pairs + (1 + 1 / pairs) * regressors / (pairs - regressors - 2)


def expected_see(
    video: GaussianVideo,
    plan: Plan,
    ar_step: int,
    pairs: int,
    step: str | ReverseStep = "exponential",
    intercept: bool = True,
) -> Tensor:
    """E SEE of every reverse step for a least-squares linear denoiser, (modes, M), in nats.

    Args:
        video: the true law.
        plan: the plan; it must not hide anything from a frame by a mask.
        ar_step: k from 1; 0 is the initialisation stage.
        pairs: n, independent (noised window, clean window) pairs a reverse step.
        step: the reverse step, which must add noise to every frame that it moves.
        intercept: whether one is fitted.

    Raises:
        ValueError: for a plan with a mask, or a step without noise of its own.
    """
    if plan.visible is not None:
        raise ValueError(f"the law is that of a network that sees all; the plan {plan.name!r} has a mask")
    frames = plan.total_frames(max(ar_step, 1))
    video.require(frames)
    law = video.at(plan.stage(ar_step)).window
    steps = gaussian_steps(law, reverse_step(step)).sampler
    if steps.variance is None or bool(steps.silent.any()):
        raise ValueError("the law needs a reverse step with scalar noise on every frame that it moves")
    noise = torch.where(steps.variance == 0, torch.ones_like(steps.variance), steps.variance)
    level = law.levels[:-1]
    to_score = law.per_entry(alpha(level) / sigma2(level))
    weight = 0.5 * steps.moving * steps.mean_score**2 / noise * to_score**2
    regressors = law.gain.shape[-1] + law.gain.shape[-2]
    spread = (weight * _residual_variance(law)).sum(-1)
    return excess_factor(regressors, pairs, intercept) * spread.mT


def _residual_variance(law: WindowLaw) -> Tensor:
    """The diagonal of Cov(X | W^m, R), (M, modes, w·d): (C^{-1} + D²/σ²)^{-1} with C = Cov(X | R)."""
    level = law.levels[:-1]
    information = law.per_entry(alpha(level) ** 2 / sigma2(level))
    precision = torch.cholesky_inverse(cholesky(law.covariance, "covariance of the clean window"))
    posterior = torch.cholesky_inverse(
        cholesky(precision + torch.diag_embed(information), "precision of the posterior")
    )
    return torch.diagonal(posterior, dim1=-2, dim2=-1)
