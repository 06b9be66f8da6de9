"""How far a network's rollout drifts, predicted on true data alone: nothing is generated.

Two curves of the KL of the clip that AR step k puts out, true law to the sampler's:

- *the bound*: IE (or what bounds it) and the cumulated per-step terms, where the plan allows it
  (:mod:`arvdm_theory.bounds.accumulation`). It holds, and it is loose.
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
form is called ``moment``, a KL between two moment-matched Gaussians, which sees drift of means, variances and
correlations and nothing else.

Standard errors are delete-one-group jackknives over the true videos, which also take out the bias of order
1/samples; a KL no larger than its standard error may come out negative.

Source: sections 2 and 4 of arXiv 2503.10704 for the bound; Efron and Stein 1981 for the jackknife.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from arvdm_theory.decomposition.ledger import ledger
from arvdm_theory.decomposition.stage import sample_count
from arvdm_theory.diffusion.kernel import Kernel, composed_kernel, sampler_steps
from arvdm_theory.diffusion.rollout import SamplerLaw
from arvdm_theory.diffusion.scores import AffineScore, HasScore, as_score, checked_score
from arvdm_theory.diffusion.steps import ReverseStep, reverse_step
from arvdm_theory.information.gaussian import cholesky, kl_divergence
from arvdm_theory.interfaces import ReferenceBatch, Score
from arvdm_theory.laws.chains import FiniteStateVideo
from arvdm_theory.laws.gaussian import GaussianVideo, standard_normal
from arvdm_theory.noise import alpha, sigma2, transition
from arvdm_theory.plan.plan import Grid, Plan, Reference

__all__ = ["PredictionError", "linear_response", "predicted_clip_kl"]


class PredictionError(ValueError):
    """A rollout cannot be predicted from what was given."""


def predicted_clip_kl(
    video: GaussianVideo | FiniteStateVideo,
    plan: Plan,
    ar_steps: int,
    score: Score | HasScore,
    step: str | ReverseStep = "exponential",
    *,
    bound: bool = True,
    samples: int = 2048,
    groups: int = 16,
    seed: int = 0,
    progress: bool = False,
) -> pd.DataFrame:
    """The KL of each AR step's clip, predicted from true data.

    Args:
        video: its true law; a Gaussian one of one mode, or a finite-state one.
        plan: the plan.
        ar_steps: K.
        score: the network's: a callable (window, levels, references) → score, or anything with ``as_score()``.
        step: the reverse step; not ``ancestral``, whose noise is not the network's to know.
        bound: whether to give the bound's curve, which costs a ledger.
        samples: true videos that are regressed on (and true windows a reverse step of the bound's ledger). The
            regression has w·d + r·d + 1 coefficients an entry.
        groups: of videos, for the jackknife.
        seed: of everything drawn.
        progress: whether to show a progress bar.

    Returns:
        a row per (``ar_step``, ``form``) with ``value`` in nats and ``stderr``. Forms: ``bound``; ``linear`` and
        ``linear_residual`` for Gaussian videos; ``moment_linear`` and ``moment_linear_residual`` for finite-state
        ones. ``attrs["notes"]`` says why a form is missing.

    Raises:
        PredictionError: for a score that is affine by itself (its ledger's clip KL is exact), several modes, a
            step without a noise variance, too few samples for the regression, clean frames without a density, or
            fewer than two groups.
        NotPositiveDefiniteError: if what the network is shown has a singular law (stop the plan at a floor δ > 0).
        ValueError: as the ledger.

    Example:
        >>> import numpy as np
        >>> from arvdm_theory.plan.methods import outpainting
        >>> from arvdm_theory.plan.plan import References
        >>> from arvdm_theory.laws.gaussian import ArrayVideo
        >>> plan = outpainting(window=2, references=References.last(1), reverse_steps=5, init_steps=5)
        >>> def network(window, levels, references):
        ...     return -torch.tanh(window)
        >>> table = predicted_clip_kl(ArrayVideo(np.eye(8), 1), plan, 3, network, samples=400)
        >>> sorted(set(table.form)), len(table)
        (['bound', 'linear', 'linear_residual'], 9)
    """
    chosen, own = reverse_step(step), as_score(score)
    if ar_steps < 1:
        raise PredictionError(f"at least one AR step is needed, got {ar_steps}")
    if isinstance(own, AffineScore) or not callable(own):
        raise PredictionError(
            f"a network's score is needed, (window, levels, references) → score, got {type(own).__name__}; the "
            "clip KL of an exact or perturbed score is in closed form: see arvdm_theory.decomposition.ledger.ledger"
        )
    samples, frames = sample_count(samples), plan.total_frames(ar_steps)
    generator = torch.Generator().manual_seed(seed)
    known: tuple[Tensor, Tensor] | None = None
    if isinstance(video, GaussianVideo):
        if video.modes != 1:
            raise PredictionError(f"linear response is for videos of one mode, got {video.modes}")
        clean = video.sample(samples, frames, generator)[:, 0]
        known = video.mean(frames), video.covariance(frames)
    else:
        if plan.floor == 0 and video.rendering.atomic:
            raise PredictionError(
                f"the clean frames of {video.name!r} have no density: give the plan a floor δ > 0"
            )
        clean = video.sample(samples, frames, generator).frames
    prefix = "" if known is not None else "moment_"
    rows: list[tuple[int, str, float, float]] = []
    notes: dict[str, str] = {}
    with torch.no_grad():
        if bound:
            account = ledger(
                video, plan, ar_steps, own, chosen,
                girsanov_points=0, closed=False, memory=False, samples=samples, seed=seed, progress=progress,
            )  # fmt: skip
            bounds = account.table[account.table.term == "CLIP_BOUND"]
            columns = (bounds[name].tolist() for name in ("ar_step", "value", "stderr"))
            rows += [(k, "bound", value, error) for k, value, error in zip(*columns, strict=True)]
            if "clip_bound" in account.notes:
                notes["bound"] = account.notes["clip_bound"]
        responses = linear_response(clean, plan, ar_steps, own, chosen, groups=groups, generator=generator)
        for k, laws in tqdm(responses, "AR steps", total=ar_steps, disable=not progress or None, leave=False):
            out = range(plan.clean_frames(k) - plan.stride, plan.clean_frames(k))
            part = slice(out.start * video.frame_dim, out.stop * video.frame_dim)
            if known is not None:
                mean, covariance = known[0][:, part], known[1][:, part, part]
            else:
                mean, covariance = _moments(clean[:, out.start : out.stop].flatten(1), groups)
            level = torch.tensor(plan.floor, dtype=torch.float64, device=mean.device)
            noise = sigma2(level) * torch.eye(mean.shape[-1], dtype=torch.float64, device=mean.device)
            true = alpha(level) * mean, alpha(level) ** 2 * covariance + noise
            for form, law in zip(("linear", "linear_residual"), laws, strict=True):
                rows.append((k, prefix + form, *_jackknife(kl_divergence(*true, *law.frames(out)))))
    table = pd.DataFrame(rows, columns=["ar_step", "form", "value", "stderr"])
    table = table.sort_values(["ar_step", "form"], ignore_index=True)
    table.attrs["notes"] = notes
    return table


def linear_response(
    videos: Tensor,
    plan: Plan,
    ar_steps: int,
    score: Score,
    step: str | ReverseStep = "exponential",
    *,
    groups: int = 16,
    generator: torch.Generator | None = None,
) -> Iterator[tuple[int, tuple[SamplerLaw, SamplerLaw]]]:
    """The propagated laws of all frames after every AR step k = 1..K, without and with residual noise.

    It takes true videos and no law, so a data set will do. The leading axis of each law, its ``modes``, holds
    1 + ``groups`` replicates: with all videos, then with each group left out.

    Args:
        videos: true clean videos, (n, N, d), N frames or more as the plan needs them.
        plan: the plan.
        ar_steps: K.
        score: the network's.
        step: the reverse step.
        groups: for the jackknife.
        generator: of the noise.

    Raises:
        PredictionError, NotPositiveDefiniteError: as :func:`predicted_clip_kl`.
    """
    chosen, dim = reverse_step(step), videos.shape[-1]
    clean = videos.to(torch.float64)
    if clean.shape[1] < plan.total_frames(ar_steps):
        raise PredictionError(f"{plan.total_frames(ar_steps)} frames are needed, got videos of {clean.shape[1]}")
    out = _noised(clean, [0.0] * clean.shape[1], [plan.floor] * clean.shape[1], generator)
    init = _Stage(plan, tuple(range(plan.init_frames)), plan.init_grid, ())
    kernels = init.kernels(clean, out, score, chosen, groups, generator)
    first, second = (SamplerLaw.initial(plan, kernel, dim) for kernel in kernels)
    for k in range(1, ar_steps + 1):
        stage = _Stage(plan, tuple(plan.window_frames(k)), plan.ar_grid, plan.references_at(k))
        plain, noisy = stage.kernels(clean, out, score, chosen, groups, generator)
        first, second = first.advance(plan, k, plain), second.advance(plan, k, noisy)
        yield k, (first, second)


@dataclass(frozen=True)
class _Stage:
    """One stage as true data show it: its window's frames (from 0), grid and references."""

    plan: Plan
    frames: tuple[int, ...]
    grid: Grid
    references: tuple[Reference, ...]

    def kernels(
        self,
        clean: Tensor,
        out: Tensor,
        score: Score,
        step: ReverseStep,
        groups: int,
        generator: torch.Generator | None,
    ) -> tuple[Kernel, Kernel]:
        """The stage's kernel with the regressed scores, without and with residual noise."""
        n, dim = len(clean), clean.shape[-1]
        levels = torch.tensor(self.grid, dtype=torch.float64, device=clean.device)
        steps = sampler_steps(levels, step).spread(dim)
        if steps.variance is None:
            raise PredictionError(
                f"the noise of the {step.name} step has the exact posterior's covariance, which no network knows: "
                "choose exponential, euler, ddpm or ddim"
            )
        floor, index = self.plan.floor, [r.frame for r in self.references]
        at = [max(r.level, floor) for r in self.references]
        values = _noised(out[:, index], [floor] * len(index), at, generator)
        shown = ReferenceBatch(
            values, torch.tensor(at, dtype=torch.float64, device=clean.device), tuple(index), self.frames
        )
        fits = []
        for m, row in enumerate(self.grid[:-1]):
            window = _noised(clean[:, list(self.frames)], [0.0] * len(row), list(row), generator)
            said = checked_score(score(window, levels[m], shown), window, self.frames, m).to(clean)
            seen = torch.cat([window.flatten(1), values.reshape(n, -1)], -1)
            fits.append(_regress(seen, said.flatten(1), groups))
        slope, bias, residual = (torch.stack(parts) for parts in zip(*fits, strict=True))
        size = len(self.frames) * dim
        noise = torch.diag_embed(steps.variance)
        extra = steps.mean_score.unsqueeze(-1) * steps.mean_score.unsqueeze(-2) * residual
        plain, noisy = (
            composed_kernel(steps, slope[..., :size], slope[..., size:], bias, each)
            for each in (noise, noise + extra)
        )
        return plain, noisy


def _regress(seen: Tensor, said: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """Least squares of (n, q) on (n, p), with all rows and with each group left out.

    Returns:
        slopes (1 + groups, q, p), offsets (1 + groups, q) and unbiased residual covariances (1 + groups, q, q).
    """
    n, p = seen.shape
    if groups < 2 or n - math.ceil(n / groups) < p + 2:
        raise PredictionError(
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


def _noised(
    frames: Tensor, low: Sequence[float], high: Sequence[float], generator: torch.Generator | None
) -> Tensor:
    """Frames (n, r, d) taken from levels ``low`` to ``high``, a level a frame, with fresh noise."""
    levels = [torch.tensor(values, dtype=torch.float64, device=frames.device) for values in (high, low)]
    a, v = (part[:, None] for part in transition(*levels))
    return a * frames + v.sqrt() * standard_normal(frames.shape, generator).to(frames)


def _jackknife(replicates: Tensor) -> tuple[float, float]:
    """Value with the bias of order 1/n removed, and standard error, from (all, all but each group)."""
    whole, rest = replicates[0], replicates[1:]
    groups = len(rest)
    value = groups * whole - (groups - 1) * rest.mean()
    return float(value), float(torch.sqrt((groups - 1) * rest.var(correction=0)))
