"""The clip KL of a rollout that was generated: what a prediction or a bound is held against.

Where the true moments μ, Σ of a clip are known, only Q's mean b and covariance V have to be estimated, from m
generated clips in R^D. With δ = μ - b and c = (m - D - 2)/(m - 1),

    ½ [c tr(V^{-1} Σ) + c δᵀ V^{-1} δ - D/m - D + log det V - log det Σ - bias]

has the mean KL(P ‖ Q) if Q is Gaussian, because E[c V^{-1}] = Σ_q^{-1}, b and V are independent, b adds D/m to the
square, and the bias of log det V is known
(:func:`arvdm_theory.information.estimators.plugin.log_det_bias`). Against two estimated laws it leaves out the
whole noise of P's. If Q is not Gaussian it tends to KL(P ‖ the Gaussian with Q's moments), which may lie on either
side of KL(P ‖ Q): nearest neighbours or a network estimate the latter, with their own biases.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import solve_triangular
from torch import Tensor

from arvdm_theory.decomposition.result import Result, rows_table
from arvdm_theory.information.estimators import (
    Dependence,
    SampleError,
    contribution_error,
    gaussian_divergence,
    knn_divergence,
    log_det_bias,
    near_zero,
    neural_divergence,
    sample,
)
from arvdm_theory.information.gaussian import cholesky
from arvdm_theory.laws.finite import FiniteStateVideo
from arvdm_theory.laws.gaussian import GaussianVideo
from arvdm_theory.laws.gaussian_sampler import clean_law
from arvdm_theory.laws.law import VideoLaw
from arvdm_theory.laws.states import State
from arvdm_theory.noise import noised
from arvdm_theory.number import LEVEL, Number, half_width
from arvdm_theory.plan.plan import Plan
from arvdm_theory.rollout.decoded import decoded_kl

__all__ = ["Method", "divergence_from_known", "measured_clip_kl", "measured_kl", "true_frames"]

Array = NDArray[np.float64]
Method = Literal["gaussian", "knn", "neural"]


def divergence_from_known(
    mean: ArrayLike | Tensor,
    covariance: ArrayLike | Tensor,
    q: ArrayLike,
    *,
    dependence: Dependence = "independent",
    level: float = LEVEL,
) -> Number:
    """KL(N(μ, Σ) ‖ Q) from samples of a Gaussian Q alone, without bias; see the module.

    The standard error is that of the mean of the influence function, right where the KL is well above it. Near
    Q = P, where the estimate's error is quadratic, the variance of the estimate is D (D + 3)/(4m²) while the
    influence function vanishes with what is estimated:
    :func:`arvdm_theory.information.estimators.uncertainty.near_zero` has the error and the upper end there.

    Args:
        mean: μ, (D,).
        covariance: Σ, (D, D).
        q: samples of Q, (m, D).
        dependence: of the samples.
        level: of the confidence interval.

    Raises:
        SampleError: for samples that do not fit, m ≤ D + 2, or columns that are linear functions of others.
        NotPositiveDefiniteError: if Σ is not positive definite.

    Example:
        >>> draw = np.random.default_rng(0).normal(scale=2.0, size=(4000, 1))
        >>> found = divergence_from_known([0.0], [[1.0]], draw)  # log 2 - 3/8 = 0.318
        >>> found.ci_low < 0.3181 < found.ci_high
        True
    """
    points = sample(q, "q")
    m, dim = points.shape
    true_mean = torch.as_tensor(mean, dtype=torch.float64).cpu().numpy()
    factor_p = cholesky(torch.as_tensor(covariance, dtype=torch.float64), "covariance of P").cpu().numpy()
    if true_mean.shape != (dim,) or factor_p.shape != (dim, dim):
        raise SampleError(f"P has {true_mean.shape[-1]} entries and its samples of Q {dim}")
    if m <= dim + 2:
        raise SampleError(f"a covariance in {dim} dimensions needs at least {dim + 3} samples, got {m}")
    centred = points - points.mean(0)
    try:
        factor = np.linalg.cholesky(centred.T @ centred / (m - 1))
    except np.linalg.LinAlgError:
        raise SampleError("some columns of Q are linear functions of the others: drop them") from None
    inner = solve_triangular(factor, factor_p, lower=True)
    shift = solve_triangular(factor, true_mean - points.mean(0), lower=True)
    shrink = (m - dim - 2) / (m - 1)
    dets = 2 * float(np.log(np.diag(factor)).sum() - np.log(np.diag(factor_p)).sum())
    trace = shrink * float((inner**2).sum() + (shift**2).sum()) - dim / m
    value = (trace - dim + dets - log_det_bias(dim, m - 1)) / 2
    # Influence of one more sample of Q: the derivative of the divergence along its mean and covariance.
    half = solve_triangular(factor, centred.T, lower=True).T
    influence = ((half**2).sum(1) - ((half @ inner) ** 2).sum(1) - (half @ shift) ** 2) / 2 - half @ shift
    stderr, freedom, _ = contribution_error(influence, dependence)
    stderr, above = near_zero(value, stderr, [influence], dim * (dim + 3) / 2, level)
    width = half_width(stderr, freedom, level)
    return Number.stated(value, stderr, value - width, max(value + width, above), method="gaussian-known", n=m)


def measured_kl(
    video: GaussianVideo | FiniteStateVideo, generated: Tensor, frames: Sequence[int], level: float = 0.0
) -> Number:
    """KL of some frames from the true law to a rollout, in nats.

    Of a Gaussian video to the Gaussian with the rollout's moments; of a finite-state one of what is read in them.

    Args:
        video: the truth, of one mode.
        generated: (n, F, d).
        frames: which, rising.
        level: δ, where clean frames stand.

    Raises:
        SampleError: for too few videos, or as :func:`divergence_from_known` and
            :func:`arvdm_theory.rollout.decoded.decoded_kl`.

    Example:
        >>> from arvdm_theory import ar1
        >>> draw = ar1(0.5).draw(4000, 3, torch.Generator().manual_seed(0)).frames
        >>> found = measured_kl(ar1(0.9), draw, (0, 2))  # of correlations 0.81 and 0.25: 0.3521
        >>> found.ci_low < 0.3521 < found.ci_high
        True
    """
    if video.gaussian:
        mean, covariance = video.joint([State(frame, level) for frame in frames])
        own = generated[:, list(frames)].flatten(1).to(torch.float64).cpu().numpy()
        return divergence_from_known(mean[0], covariance[0], own)
    return decoded_kl(video, generated, tuple(frames), level)


def measured_clip_kl(
    video: VideoLaw | Tensor,
    frames: Tensor,
    plan: Plan,
    ar_steps: int,
    *,
    method: Method = "gaussian",
    samples: int | None = None,
    seed: int = 0,
) -> Result:
    """KL(true clip ‖ generated clip) of each AR step, from generated videos.

    Args:
        video: the true law, of one mode, or true clean videos (n, N, d) of a data set. Actions are averaged out.
        frames: generated videos, (m, F, d), from :func:`arvdm_theory.diffusion.sampler.generate`.
        plan: the plan they were generated by.
        ar_steps: K.
        method: ``gaussian`` (of moments; without noise of the true side where the law knows its own),
            ``knn`` or ``neural`` (of the laws themselves, from true samples; see
            :func:`arvdm_theory.information.estimators.knn.knn_divergence` and
            :func:`arvdm_theory.information.estimators.neural.neural_divergence`).
        samples: true videos drawn where samples of a law are needed; as many as were generated, if left out.
        seed: of these.

    Returns:
        CLIP_KL rows, one per AR step, with ``value`` in nats, ``stderr`` and interval. The ``form`` is
        ``measured_`` and the method, ``measured_moment_gaussian`` where the true law is no known Gaussian.

    Raises:
        SampleError: for an unknown method, videos that do not fit the plan, or as the estimators.
    """
    if method not in get_args(Method):
        raise SampleError(f"the method is one of {', '.join(get_args(Method))}, got {method!r}")
    wanted = plan.clean_frames(ar_steps)
    if frames.ndim != 3 or frames.shape[1] < wanted:
        raise SampleError(
            f"generated videos have the shape (m, {wanted} frames or more, d) after {ar_steps} AR steps, got "
            f"{tuple(frames.shape)}"
        )
    law = None if isinstance(video, Tensor) else video
    if law is not None and law.modes != 1:
        raise SampleError(f"clips are compared for videos of one mode, got {law.modes}")
    known = None if law is None or method != "gaussian" else law.known_moments(wanted)
    if law is not None and known is not None:  # actions, which stand behind the frames, are averaged out
        n = wanted * law.frame_dim
        known = known[0][:, :n], known[1][:, :n, :n]
    moments = method == "gaussian" and (law is None or not law.gaussian)
    form = "measured_" + ("moment_" if moments else "") + method
    true = _true_videos(video, plan, wanted, samples or len(frames), seed) if known is None else None
    rows = []
    for k in range(1, ar_steps + 1):
        clip = plan.clip_frames(k)
        generated = frames[:, clip.start : clip.stop].flatten(1).to(torch.float64).cpu().numpy()
        if true is None:
            assert law is not None
            assert known is not None
            floor = torch.tensor(plan.floor, dtype=torch.float64, device=known[0].device)
            mean, covariance = clean_law(known, law.frame_dim, 0, clip, floor)
            found = divergence_from_known(mean[0], covariance[0], generated)
        else:
            own = true[:, clip.start : clip.stop].flatten(1).cpu().numpy()
            if method == "gaussian":
                found = gaussian_divergence(own, generated)
            elif method == "knn":
                found = knn_divergence(own, generated, seed=seed)
            else:
                found = neural_divergence(own, generated, seed=seed)
        rows.append(("ar", k, "CLIP_KL", form, found))
    return Result("measurement", rows_table(rows))


def true_frames(video: VideoLaw | Tensor, frames: int, samples: int, generator: torch.Generator) -> Tensor:
    """The first frames of true videos, drawn from a law or all those that are given, (n, frames, d)."""
    if not isinstance(video, Tensor):
        return video.draw(samples, frames, generator).frames.to(torch.float64)
    if video.ndim != 3 or video.shape[1] < frames:
        raise SampleError(f"true videos have the shape (n, {frames} frames or more, d), got {tuple(video.shape)}")
    return video[:, :frames].to(torch.float64)


def _true_videos(video: VideoLaw | Tensor, plan: Plan, frames: int, samples: int, seed: int) -> Tensor:
    """True videos as the plan would leave them, at its floor, (n, frames, d)."""
    generator = torch.Generator().manual_seed(seed)
    clean = true_frames(video, frames, samples, generator)
    floor = torch.full((frames,), plan.floor, dtype=torch.float64, device=clean.device)
    return noised(clean, floor, noise=generator)
