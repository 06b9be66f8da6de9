"""The clip KL of a rollout that was generated: what a prediction or a bound is held against.

For a Gaussian video the true law P = N(μ, Σ) of a clip is known, so only Q's mean b and covariance V have to be
estimated, from m generated clips in R^D. With δ = μ - b and c = (m - D - 2)/(m - 1),

    ½ [c tr(V^{-1} Σ) + c δᵀ V^{-1} δ - D/m - D + log det V - log det Σ - bias]

has the mean KL(P ‖ Q) if Q is Gaussian, because E[c V^{-1}] = Σ_q^{-1}, b and V are independent, b adds D/m to the
square, and the bias of log det V is known (:func:`~arvdm_theory.information.estimators.log_det_bias`). Against two
estimated laws it leaves out the whole noise of P's. If Q is not Gaussian it tends to KL(P ‖ the Gaussian with Q's
moments), which may lie on either side of KL(P ‖ Q): nearest neighbours or a network estimate the latter, with
their own biases.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import solve_triangular
from torch import Tensor

from arvdm_theory.information.estimators import (
    Dependence,
    SampleError,
    conclude_mean,
    gaussian_divergence,
    knn_divergence,
    log_det_bias,
    neural_divergence,
    sample,
)
from arvdm_theory.information.gaussian import cholesky
from arvdm_theory.laws.chains import FiniteStateVideo
from arvdm_theory.laws.gaussian import GaussianVideo, standard_normal
from arvdm_theory.noise import alpha, sigma2
from arvdm_theory.number import LEVEL, Number
from arvdm_theory.plan.plan import Plan

__all__ = ["Method", "divergence_from_known", "measured_clip_kl"]

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
    Q = P, where the estimate's error is quadratic, it is √2 too large: there the variance of the estimate is
    D (D + 3)/(4m²), and the influence function at the estimated moments has twice that.

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
    return conclude_mean(influence, value=value, method="gaussian-known", dependence=dependence, level=level)


def measured_clip_kl(
    video: GaussianVideo | FiniteStateVideo | Tensor,
    frames: Tensor,
    plan: Plan,
    ar_steps: int,
    *,
    method: Method = "gaussian",
    samples: int | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """KL(true clip ‖ generated clip) of each AR step, from generated videos.

    Args:
        video: the true law, or true clean videos (n, N, d) of a data set.
        frames: generated videos, (m, F, d), from :func:`arvdm_theory.diffusion.generate.generate`, or
            (m, 1, F, d), from :func:`arvdm_theory.diffusion.rollout.rollout`.
        plan: the plan they were generated by.
        ar_steps: K.
        method: ``gaussian`` (of moments; without noise of the true side where the law is Gaussian and known),
            ``knn`` or ``neural`` (of the laws themselves, from true samples; see
            :func:`arvdm_theory.information.estimators.knn_divergence` and
            :func:`arvdm_theory.information.estimators.neural_divergence`).
        samples: true videos drawn where samples of a law are needed; as many as were generated, if left out.
        seed: of these.

    Returns:
        a row per AR step: ``ar_step``, ``form``, ``value`` in nats, ``stderr``. The form is ``measured_`` and the
        method, ``measured_moment_gaussian`` where the true law is no known Gaussian.

    Raises:
        SampleError: for an unknown method, videos that do not fit the plan, or as the estimators.
    """
    if method not in get_args(Method):
        raise SampleError(f"the method is one of {', '.join(get_args(Method))}, got {method!r}")
    made = frames[:, 0] if frames.ndim == 4 and frames.shape[1] == 1 else frames
    wanted = plan.clean_frames(ar_steps)
    if made.ndim != 3 or made.shape[1] < wanted:
        raise SampleError(
            f"generated videos have the shape (m, {wanted} frames or more, d) after {ar_steps} AR steps, got "
            f"{tuple(frames.shape)}"
        )
    exact = isinstance(video, GaussianVideo) and method == "gaussian"
    form = "measured_" + ("moment_" if method == "gaussian" and not exact else "") + method
    true = None if exact else _true_videos(video, plan, wanted, samples or len(made), seed)
    rows = []
    for k in range(1, ar_steps + 1):
        clip = slice(plan.clean_frames(k) - plan.stride, plan.clean_frames(k))
        generated = made[:, clip].flatten(1).to(torch.float64).cpu().numpy()
        if true is None:
            assert isinstance(video, GaussianVideo)
            found = divergence_from_known(*_clip_law(video, plan, clip), generated)
        else:
            own = true[:, clip].flatten(1).cpu().numpy()
            if method == "gaussian":
                found = gaussian_divergence(own, generated)
            elif method == "knn":
                found = knn_divergence(own, generated, seed=seed)
            else:
                found = neural_divergence(own, generated, seed=seed)
        rows.append((k, form, found.value, found.stderr))
    return pd.DataFrame(rows, columns=["ar_step", "form", "value", "stderr"])


def _clip_law(video: GaussianVideo, plan: Plan, clip: slice) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the true clip as it comes out, at the plan's floor."""
    if video.modes != 1:
        raise SampleError(f"clips are compared for videos of one mode, got {video.modes}")
    part = slice(clip.start * video.frame_dim, clip.stop * video.frame_dim)
    level = torch.tensor(plan.floor, dtype=torch.float64, device=video.device)
    covariance = alpha(level) ** 2 * video.covariance(clip.stop)[0, part, part]
    noise = sigma2(level) * torch.eye(len(covariance), dtype=torch.float64, device=video.device)
    return alpha(level) * video.mean(clip.stop)[0, part], covariance + noise


def _true_videos(
    video: GaussianVideo | FiniteStateVideo | Tensor, plan: Plan, frames: int, samples: int, seed: int
) -> Tensor:
    """True videos as the plan would leave them, at its floor, (n, frames, d)."""
    generator = torch.Generator().manual_seed(seed)
    if isinstance(video, Tensor):
        if video.ndim != 3 or video.shape[1] < frames:
            raise SampleError(f"true videos have the shape (n, {frames} frames or more, d), got {video.shape}")
        clean = video[:, :frames].to(torch.float64)
    elif isinstance(video, GaussianVideo):
        if video.modes != 1:
            raise SampleError(f"clips are compared for videos of one mode, got {video.modes}")
        clean = video.sample(samples, frames, generator)[:, 0]
    else:
        clean = video.sample(samples, frames, generator).frames
    if plan.floor == 0:
        return clean
    level = torch.tensor(plan.floor, dtype=torch.float64)
    return alpha(level) * clean + sigma2(level).sqrt() * standard_normal(clean.shape, generator).to(clean)
