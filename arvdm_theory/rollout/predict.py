"""How far a network's rollout drifts, predicted on true data alone: nothing is generated.

Two curves of the KL of the clip that AR step k puts out, true law to the sampler's:

- *the bound*: IE (or what bounds it) and the cumulated per-step terms, where the plan allows it
  (:mod:`arvdm_theory.bounds.accumulation`). It is loose; it holds, for a score that is not affine within its
  standard error.
- *linear response*: at every reverse step the network's output s is regressed on what it is shown under true data,

      s(W, R) ≈ F W + G R + f,    residual covariance S,

  and the sampler's kernels with these affine scores are propagated as the exact ledger propagates those of an
  affine score. The *residual* form adds c_s² S to each kernel's noise, as if residuals were fresh noise.

Linear response is exact for an affine network. For any other it is an uncontrolled estimate, neither an upper nor
a lower bound: the rollout leaves the region where the regression was made, and residuals are functions of the
input, strongly correlated from step to step, which neither form knows. Validate it against real rollouts
(:mod:`arvdm_theory.rollout.measure`).

What it estimates is the KL to the Gaussian with the sampler's (propagated) moments. For a Gaussian video the true
clip's law is exact. For a finite-state one the true law is replaced by the Gaussian with its moments as well: the
form is called ``moment``, a KL between two moment-matched Gaussians (the true moments exact, where they are
known), which sees drift of means, variances and correlations and nothing else.

Standard errors are delete-one-group jackknives over the true videos, which also take out the bias of order
1/samples; a KL no larger than its standard error may come out negative.

Source: sections 2 and 4 of arXiv 2503.10704 for the bound; Efron and Stein 1981 for the jackknife.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from arvdm_theory.decomposition.ledger import ledger
from arvdm_theory.decomposition.question import require_densities, sample_count
from arvdm_theory.decomposition.result import Result, rows_table
from arvdm_theory.diffusion.sampler import sampler_steps
from arvdm_theory.diffusion.scores import as_score, checked_score
from arvdm_theory.diffusion.steps import ReverseStep, reverse_step
from arvdm_theory.information.gaussian import cholesky
from arvdm_theory.interfaces import ReferenceBatch
from arvdm_theory.laws.gaussian_kernel import Kernel, composed_kernel
from arvdm_theory.laws.gaussian_sampler import SamplerLaw, clean_law
from arvdm_theory.laws.law import VideoLaw
from arvdm_theory.noise import noised
from arvdm_theory.number import Number
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.stage import Stage

__all__ = ["linear_response", "predicted_clip_kl"]

# A share of the output's variance that rounding, in single precision, may leave of an affine network.
_AFFINE = 1e-6


def predicted_clip_kl(
    video: VideoLaw,
    plan: Plan,
    ar_steps: int,
    score: Any = None,
    *,
    step: str | ReverseStep = "exponential",
    bound: bool = True,
    samples: int = 2048,
    groups: int = 16,
    seed: int = 0,
    progress: bool = False,
) -> Result:
    """The KL of each AR step's clip, predicted from true data.

    Args:
        video: its true law, of one mode. In a video with actions the KL is conditional on them.
        plan: the plan.
        ar_steps: K.
        score: the network's: a callable (window, levels, references) → score, or anything with ``as_score()``; the
            exact or a perturbed score of the video; None for its exact one.
        step: the reverse step; not ``ancestral``, whose noise is not the network's to know.
        bound: whether to give the bound's curve, which costs a ledger.
        samples: true videos that are regressed on (and true windows a reverse step of the bound's ledger). The
            regression has w·d + r·d + 1 coefficients an entry, and one for every action.
        groups: of videos, for the jackknife.
        seed: of everything drawn.
        progress: whether to show a progress bar.

    Returns:
        CLIP_KL rows, a row per (``ar_step``, ``form``) with ``value`` in nats and ``stderr``. Forms: ``bound``;
        ``linear`` and ``linear_residual`` for Gaussian videos; ``moment_linear`` and ``moment_linear_residual``
        for others. ``notes["bound"]`` says why it is missing, and ``notes["linear"]``, of a network that is not
        affine, how much of its output no regression explains.

    Raises:
        ValueError: for several modes, something that is no score or cannot be called, a step without a noise
            variance, too few samples for the regression, clean frames without a density, fewer than two groups,
            and as the ledger.
        NotPositiveDefiniteError: if what the network is shown has a singular law (stop the plan at a floor δ > 0).

    Example:
        >>> import numpy as np
        >>> from arvdm_theory import ArrayVideo, References, outpainting
        >>> plan = outpainting(window=2, references=References.last(1), reverse_steps=5, init_steps=5)
        >>> def network(window, levels, references):
        ...     return -torch.tanh(window)
        >>> found = predicted_clip_kl(ArrayVideo(np.eye(8), 1), plan, 3, network, samples=400)
        >>> sorted(set(found.table.form)), len(found.table)
        (['bound', 'linear', 'linear_residual'], 9)
    """
    chosen, own = reverse_step(step), as_score(score, video, affine=False)
    if ar_steps < 1:
        raise ValueError(f"at least one AR step is needed, got {ar_steps}")
    if video.modes != 1:
        raise ValueError(f"linear response is for videos of one mode, got {video.modes}")
    require_densities(video, plan)
    samples, frames, dim = sample_count(samples), plan.total_frames(ar_steps), video.frame_dim
    video.require(frames)
    generator = torch.Generator().manual_seed(seed)
    made = video.draw(samples, frames, generator)
    clean, actions = made.frames.to(torch.float64), made.actions
    entries = 0 if actions is None else actions.shape[-1] * frames
    known = video.known_moments(frames)
    prefix = "" if video.gaussian else "moment_"
    rows: list[tuple[str, int, str, str, Number]] = []
    notes: dict[str, str] = {}
    with torch.no_grad():
        if bound:
            account = ledger(
                video, plan, ar_steps, score=own, step=chosen, girsanov=False, memory=False, samples=samples,
                seed=seed, progress=progress,
            )  # fmt: skip
            if "clip_bound" in account.notes:
                notes["bound"] = account.notes["clip_bound"]
            else:
                bounds = account.terms.clip_bounds
                rows += [("ar", k, "CLIP_KL", "bound", bounds[k - 1]) for k in range(1, ar_steps + 1)]
        floor = torch.tensor(plan.floor, dtype=torch.float64, device=clean.device)
        unexplained: list[float] = []
        laws = linear_response(
            clean, plan, ar_steps, own, chosen, groups=groups, generator=generator, actions=actions,
            policy=None if known is None or actions is None else _policy(known, entries), unexplained=unexplained,
        )  # fmt: skip
        for k, pair in tqdm(laws, "AR steps", total=ar_steps, disable=not progress or None, leave=False):
            clip = plan.clip_frames(k)
            if known is not None:
                true = clean_law(known, dim, entries, clip, floor)
            else:
                seen = [] if actions is None else [actions.to(clean).flatten(1)]
                part = _moments(torch.cat([clean[:, clip.start : clip.stop].flatten(1), *seen], -1), groups)
                true = clean_law(part, dim, entries, range(len(clip)), floor)
            for form, law in zip(("linear", "linear_residual"), pair, strict=True):
                rows.append(("ar", k, "CLIP_KL", prefix + form, _jackknife(law.divergence(true, clip), samples)))
    if max(unexplained) > _AFFINE:
        notes["linear"] = (
            f"the network is not affine: a regression on true inputs leaves up to {max(unexplained):.1%} of its "
            "output's variance; the standard errors do not hold what that does to the prediction, which is "
            "neither an upper nor a lower bound"
        )
    table = rows_table(rows).sort_values(["ar_step", "form"], ignore_index=True)
    return Result("prediction", table, notes=notes)


def linear_response(
    videos: Tensor,
    plan: Plan,
    ar_steps: int,
    score: Any,
    step: str | ReverseStep = "exponential",
    *,
    groups: int = 16,
    generator: torch.Generator | None = None,
    actions: Tensor | None = None,
    policy: tuple[Tensor, Tensor] | None = None,
    unexplained: list[float] | None = None,
) -> Iterator[tuple[int, tuple[SamplerLaw, SamplerLaw]]]:
    """The propagated laws of all frames after every AR step k = 1..K, without and with residual noise.

    It takes true videos and no law, so a data set will do. The leading axis of each law, its ``modes``, holds
    1 + ``groups`` replicates: with all videos, then with each group left out.

    Args:
        videos: true clean videos, (n, N, d), N frames or more as the plan needs them.
        plan: the plan.
        ar_steps: K.
        score: the network's, as it is called.
        step: the reverse step.
        groups: for the jackknife.
        generator: of the noise.
        actions: (n, N, a), of a video that has them.
        policy: mean (1, F·a) and covariance (1, F·a, F·a) of all actions, where they are known.
        unexplained: takes the share of the output's variance that each regression leaves.

    Raises:
        ValueError, NotPositiveDefiniteError: as :func:`predicted_clip_kl`.
    """
    plan.require_fresh("a prediction of rollouts")
    chosen, dim, frames = reverse_step(step), videos.shape[-1], plan.total_frames(ar_steps)
    clean = videos.to(torch.float64)
    if clean.shape[1] < frames:
        raise ValueError(f"{frames} frames are needed, got videos of {clean.shape[1]}")
    floor = torch.full((clean.shape[1],), plan.floor, dtype=torch.float64, device=clean.device)
    out = noised(clean, floor, noise=generator)
    done = None if actions is None else actions[:, :frames].to(clean)
    if policy is not None:
        policy = policy[0].expand(1 + groups, -1), policy[1].expand(1 + groups, -1, -1)
    elif done is not None:
        policy = _moments(done.flatten(1), groups)

    def kernels(stage: Stage) -> tuple[Kernel, Kernel]:
        return _kernels(stage, clean, out, score, chosen, groups, generator, done, unexplained)

    first, second = (SamplerLaw.initial(plan, kernel, dim, policy) for kernel in kernels(plan.stage(0)))
    for k in range(1, ar_steps + 1):
        stage = plan.stage(k)
        plain, noisy = kernels(stage)
        first, second = first.advance(plan, stage, plain), second.advance(plan, stage, noisy)
        yield k, (first, second)


def _policy(moments: tuple[Tensor, Tensor], entries: int) -> tuple[Tensor, Tensor]:
    """The actions' part of the moments of frames and actions."""
    mean, covariance = moments
    return mean[:, -entries:], covariance[:, -entries:, -entries:]


def _kernels(
    stage: Stage,
    clean: Tensor,
    out: Tensor,
    score: Any,
    step: ReverseStep,
    groups: int,
    generator: torch.Generator | None,
    actions: Tensor | None,
    unexplained: list[float] | None,
) -> tuple[Kernel, Kernel]:
    """The stage's kernel with the regressed scores, without and with residual noise."""
    n, dim, frames = len(clean), clean.shape[-1], tuple(stage.frames)
    levels, at = stage.levels.to(clean.device), stage.reference_levels.to(clean.device)
    steps = sampler_steps(levels, step).spread(dim)
    if steps.variance is None:
        raise ValueError(
            f"the noise of the {step.name} step has the exact posterior's covariance, which no network knows: "
            "choose exponential, euler, ddpm or ddim"
        )
    values = noised(out[:, list(stage.reference_frames)], at, torch.full_like(at, stage.floor), generator)
    shown = ReferenceBatch.shown(values, at, stage.reference_frames, frames, actions)
    told = [] if shown.history is None else [shown.history.flatten(1)]
    fits = []
    for m in range(stage.steps):
        window = noised(clean[:, list(frames)], levels[m], noise=generator)
        said = score(window, levels[m], shown.seeing(stage.visible[m]))
        said = checked_score(said, window, frames, levels[m]).to(clean)
        seen = torch.cat([window.flatten(1), values.reshape(n, -1), *told], -1)
        fits.append(_regress(seen, said.flatten(1), groups))
        if unexplained is not None:
            left, whole = fits[-1][2][0].trace(), said.flatten(1).var(0).sum()
            unexplained.append(float(left / whole) if whole > 0 else 0.0)
    slope, bias, residual = (torch.stack(parts) for parts in zip(*fits, strict=True))
    size = len(frames) * dim
    noise = torch.diag_embed(steps.variance)
    extra = steps.mean_score.unsqueeze(-1) * steps.mean_score.unsqueeze(-2) * residual
    plain, noisy = (
        composed_kernel(steps, slope[..., :size], slope[..., size:], bias, each) for each in (noise, noise + extra)
    )
    return plain, noisy


def _regress(seen: Tensor, said: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """Least squares of (n, q) on (n, p), with all rows and with each group left out.

    Returns:
        slopes (1 + groups, q, p), offsets (1 + groups, q) and unbiased residual covariances (1 + groups, q, q).
    """
    n, p = seen.shape
    if groups < 2 or n - math.ceil(n / groups) < p + 2:
        raise ValueError(
            f"regressing on {p} numbers needs two groups or more and {p + 2} videos beside every group, got {n} "
            f"videos in {groups} groups"
        )
    # Whitened by all rows, the normal equations are as well conditioned as can be.
    middle, centre = seen.mean(0), said.mean(0)
    offset = seen - middle
    factor = cholesky(offset.T @ offset / n, "covariance of what the network is shown")
    white = torch.linalg.solve_triangular(factor, offset.T, upper=False).T
    count, mean, second = _without_each(torch.cat([white, said - centre], -1), groups)
    covariance = second - mean.unsqueeze(-1) * mean.unsqueeze(-2)
    on_seen, cross = covariance[:, :p, :p], covariance[:, :p, p:]
    slope = torch.linalg.solve(on_seen, cross).mT
    left = covariance[:, p:, p:] - slope @ cross
    residual = (left + left.mT) / 2 * (count / (count - p - 1))[:, None, None]
    bias = mean[:, p:] - (slope @ mean[:, :p].unsqueeze(-1)).squeeze(-1)
    raw = torch.linalg.solve_triangular(factor, slope, upper=False, left=False)
    return raw, centre + bias - raw @ middle, residual


def _without_each(rows: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """Counts, means and second moments of all rows, then of all but each group, (1 + groups, ...)."""
    parts = torch.tensor_split(rows, groups)
    counts = torch.tensor([len(part) for part in parts], dtype=rows.dtype, device=rows.device)
    sums = torch.stack([part.sum(0) for part in parts])
    squares = torch.stack([part.T @ part for part in parts])
    count = torch.cat([counts.sum()[None], counts.sum() - counts])
    mean = torch.cat([sums.sum(0, keepdim=True), sums.sum(0) - sums]) / count[:, None]
    second = torch.cat([squares.sum(0, keepdim=True), squares.sum(0) - squares]) / count[:, None, None]
    return count, mean, second


def _moments(rows: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Means and unbiased covariances of all rows, then of all but each group."""
    centre = rows.mean(0)
    count, mean, second = _without_each(rows - centre, groups)
    covariance = second - mean.unsqueeze(-1) * mean.unsqueeze(-2)
    return centre + mean, covariance * (count / (count - 1))[:, None, None]


def _jackknife(replicates: Tensor, n: int) -> Number:
    """Value with the bias of order 1/n removed, and standard error, from (all, all but each group)."""
    whole, rest = replicates[0], replicates[1:]
    groups = len(rest)
    if groups == 0:  # a divergence between two laws that are both exact
        return Number.exact(whole)
    value = groups * whole - (groups - 1) * rest.mean()
    error = torch.sqrt((groups - 1) * rest.var(correction=0))
    return Number(value[None], error, freedom=groups - 1, method="jackknife", n=n)
