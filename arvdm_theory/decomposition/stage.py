"""The error terms of one stage: the initialisation, or one AR step.

For one reverse step with true conditional P = N(μ_P, Σ_P) and the sampler's kernel N(μ_θ, Σ_q), the same
sampler's mean under the exact score being μ_*:

    E KL(P ‖ N(μ_θ, Σ_q)) = DE + SEE + CROSS,
    DE    = E KL(P ‖ N(μ_*, Σ_q)),
    SEE   = ½ E ‖μ_θ - μ_*‖²_{Σ_q^{-1}},
    CROSS = E ⟨μ_* - μ_P, μ_θ - μ_*⟩_{Σ_q^{-1}},

over the frames that move. P follows from the exact score: μ_P = (W + v s*)/a (Tweedie), and
Σ_P = (J_{m+1} + diag(a²/v))^{-1} on the moving frames, J_{m+1} the window's precision one level lower. That
form, unlike V - V J V, loses no digits.

Source: arXiv 2503.10704, Theorem 1 and its proof, made exact: the cross term is kept.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from arvdm_theory.diffusion.kernel import gaussian_steps
from arvdm_theory.diffusion.scores import ExactScore, call_score
from arvdm_theory.diffusion.steps import ReverseStep
from arvdm_theory.diffusion.window import AffineMap, WindowLaw
from arvdm_theory.information.gaussian import cholesky, kl_divergence
from arvdm_theory.interfaces import Score
from arvdm_theory.laws.gaussian import standard_normal

__all__ = ["Moments", "StageTerms", "sample_count", "stage_terms"]


@dataclass(frozen=True)
class Moments:
    """True second moments of the score's error ε_j = s_θ,j - s*_j, a window frame each: what the bounds need.

    They have a leading sample axis: of length 1 with the expectation where that is exact, else a row a sample.
    All are zero, not rounding, for the exact score.

    Attributes:
        square: ‖ε_j‖², (samples, M, modes, w).
        with_exact: ⟨s*_j, ε_j⟩, the same shape.
        with_window: ⟨W_j, ε_j⟩, the same shape.
    """

    square: Tensor
    with_exact: Tensor
    with_window: Tensor


@dataclass(frozen=True)
class StageTerms:
    """Terms of every reverse step of a stage, each of shape (M, modes), in nats.

    The ``*_variance`` tensors are squared standard errors, zero where a term is exact. ``fit_variance``
    belongs to SEE + CROSS, which are estimated on the same samples.
    """

    de: Tensor
    see: Tensor
    cross: Tensor
    moments: Moments
    see_variance: Tensor
    cross_variance: Tensor
    fit_variance: Tensor


def stage_terms(
    law: WindowLaw,
    score: AffineMap | Score,
    step: ReverseStep,
    against: ExactScore,
    samples: int = 2048,
    generator: torch.Generator | None = None,
    teacher_forced: bool = False,
) -> StageTerms:
    """DE, SEE and CROSS of every reverse step of a stage.

    DE is exact for every score. SEE and CROSS are exact for an affine map of (window, references); for another
    callable, or if ``teacher_forced``, they are averages over ``samples`` true windows a reverse step, with their
    squared standard error.
    Where a step adds no noise to a frame that moves, DE is infinite and SEE and CROSS are not defined (NaN).

    Args:
        law: the true law of the stage's window.
        score: the sampler's score, see :func:`arvdm_theory.diffusion.scores.stage_score`.
        step: the reverse step.
        against: the s* that SEE measures the score against: masked, or with everything in view (then what the
            mask hides is part of SEE).
        samples: true windows a reverse step for scores that are not affine.
        generator: of those samples.
        teacher_forced: whether to average for affine maps too.
    """
    steps = gaussian_steps(law, step)
    precision_factor = cholesky(steps.precision, "precision of a reverse step")
    identity, exact = law.root(law.identity), law.root(law.score)
    target_map = against.affine(law)
    target = exact if target_map is law.score else law.root(target_map)

    if steps.variance is None:
        # Σ_q = Σ_P: ‖x‖² in its inverse is ‖L^T x‖² with L L^T = Σ_P^{-1}.
        def whiten(root: Tensor) -> Tensor:
            return precision_factor.mT @ root

        spread_de = steps.precision.new_zeros(steps.precision.shape[:2])
        silent = steps.moving.new_zeros(steps.moving.shape[:2], dtype=torch.bool)
    else:
        silent = ((steps.variance == 0) & (steps.moving > 0)).any(-1)
        noise = torch.where(steps.variance == 0, torch.ones_like(steps.variance), steps.variance)
        scale = torch.rsqrt(noise).unsqueeze(-1)

        def whiten(root: Tensor) -> Tensor:
            return scale * root

        true = torch.cholesky_inverse(precision_factor)
        zero = true.new_zeros(true.shape[:-1])
        spread_de = kl_divergence(zero, true, zero, torch.diag_embed(noise.expand_as(zero)))

    def columns(values: Tensor) -> Tensor:
        return values.unsqueeze(-1)

    gap = (
        columns(steps.mean_window - steps.true_window) * identity
        + columns(steps.mean_score) * target
        - columns(steps.true_score) * exact
    )
    gap = whiten(gap)
    de = spread_de + 0.5 * (gap**2).sum((-2, -1))

    de = torch.where(silent, torch.full_like(de, torch.inf), de)
    if isinstance(score, AffineMap) and not teacher_forced:
        own = target if score is target_map else law.root(score)
        miss = whiten(columns(steps.mean_score) * (own - target))
        see, cross = 0.5 * (miss**2).sum((-2, -1)), (gap * miss).sum((-2, -1))
        zero = torch.zeros_like(de)
        see_variance = cross_variance = fit_variance = zero

        def moment(f: Tensor, g: Tensor) -> Tensor:
            return law.per_frame((f * g).sum(-1)).unsqueeze(0)

        error = own - exact
        moments = Moments(moment(error, error), moment(exact, error), moment(identity, error))
    else:
        roots = (identity, exact, target, gap)
        drawn = _sampled_fit(law, score, columns(steps.mean_score), whiten, roots, samples, generator)
        see_all, cross_all, moments = drawn
        see, cross = see_all.mean(-1), cross_all.mean(-1)
        see_variance, cross_variance = see_all.var(-1) / samples, cross_all.var(-1) / samples
        fit_variance = (see_all + cross_all).var(-1) / samples
    undefined = torch.full_like(de, torch.nan)
    return StageTerms(
        de=de,
        see=torch.where(silent, undefined, see),
        cross=torch.where(silent, undefined, cross),
        moments=moments,
        see_variance=see_variance,
        cross_variance=cross_variance,
        fit_variance=fit_variance,
    )


def sample_count(samples: int) -> int:
    """A number of samples that has a standard error.

    Raises:
        ValueError: unless it is a whole number of at least 2.
    """
    try:
        count = operator.index(samples)
    except TypeError:
        raise ValueError(f"the number of samples must be a whole number, got {samples!r}") from None
    if count < 2:
        raise ValueError(f"a standard error needs at least 2 samples, got {count}")
    return count


def _sampled_fit(
    law: WindowLaw,
    score: AffineMap | Score,
    scale: Tensor,
    whiten: Callable[[Tensor], Tensor],
    roots: tuple[Tensor, Tensor, Tensor, Tensor],
    samples: int,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor, Moments]:
    """SEE and CROSS a sample, (M, modes, samples), over true windows drawn afresh for every reverse step."""
    samples = sample_count(samples)
    identity, exact, target, gap = roots
    shape = (*identity.shape[:2], identity.shape[-1] - 1, samples)
    draw = standard_normal(shape, generator).to(identity.device)
    draw = torch.cat([draw, torch.ones_like(draw[:, :, :1])], -2)
    size = law.mean.shape[-1]
    references = law.reference_mean.unsqueeze(-1) + law.reference_factor @ draw[:, :, size:-1]
    window = identity @ draw
    if isinstance(score, AffineMap):
        own = law.root(score) @ draw
    else:
        own = torch.stack(
            [
                call_score(score, law, m, window[m].permute(2, 0, 1), references[m].permute(2, 0, 1)).permute(
                    1, 2, 0
                )
                for m in range(law.steps)
            ]
        )
    true, aim = exact @ draw, target @ draw
    miss = whiten(scale * (own - aim))
    see = 0.5 * (miss**2).sum(-2)
    cross = ((gap @ draw) * miss).sum(-2)

    def per_frame(values: Tensor) -> Tensor:
        return law.per_frame(values.movedim(-1, 0))

    error = own - true
    moments = Moments(per_frame(error**2), per_frame(true * error), per_frame(window * error))
    return see, cross, moments
