"""The terms of the exact ledger: KL(trajectory) = IE + Σ_k [NIE_AR,k + Σ_m (DE + SEE + CROSS) + MB_k].

The trajectory starts at Input_1 and holds every variable created after it. Every term is exact for a Gaussian
video and a score that is affine in (window, references); for any other score SEE and CROSS are averages over
true data with a standard error, nothing is generated, and what would need a rollout is not defined.

Sources: arXiv 2503.10704, Theorems 1 and 2, with the cross term kept and every inequality resolved.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from arvdm_theory.bounds.path import (
    closed_initialisation_bound,
    closed_path_bound,
    girsanov_path_bound,
)
from arvdm_theory.decomposition.memory import memory_bottleneck, noise_initialisation
from arvdm_theory.decomposition.stage import StageTerms, sample_count, stage_terms
from arvdm_theory.diffusion.kernel import stage_kernel
from arvdm_theory.diffusion.rollout import SamplerLaw
from arvdm_theory.diffusion.scores import AffineScore, ExactScore, HasScore, as_score, stage_score
from arvdm_theory.diffusion.steps import ReverseStep, reverse_step
from arvdm_theory.diffusion.window import AffineMap, WindowLaw, ar_window, init_window
from arvdm_theory.information.gaussian import kl_divergence
from arvdm_theory.interfaces import Score
from arvdm_theory.laws.gaussian import GaussianVideo
from arvdm_theory.noise import alpha, sigma2
from arvdm_theory.plan.plan import Plan

__all__ = ["LedgerTerms", "clean_divergence", "ledger_terms"]

_FULL_VIEW = ExactScore(masked=False)


@dataclass(frozen=True)
class LedgerTerms:
    """Every term of the ledger as float64 tensors with a leading mode axis, in nats; None is not defined.

    K AR steps of M reverse steps, an initialisation stage of M_init; ``multiplicity`` (modes,) counts equal
    modes. The ``*_variance`` tensors are squared standard errors.

    Attributes:
        multiplicity: how often each mode occurs, (modes,).
        nie_init: KL(P(X^T_init) ‖ N(0, I)), (modes,).
        init_de, init_see, init_cross: of the initialisation stage, (modes, M_init).
        ie: KL(P_{Input_1} ‖ Q_{Input_1}), (modes,); None if the score is not affine in the initialisation stage.
        nie_ar: E KL(P(X^T_new | Input_k) ‖ N(0, I)), (modes, K).
        de, see, cross: (modes, K, M).
        mb: I(Output_k; Past_k | Input_k), (modes, K).
        mb_clean: I(Output_k; Past_k | the references before noising), for plans with w = Δ, (modes, K).
        init_girsanov, girsanov: Girsanov form of the path terms, (modes, M_init) and (modes, K, M).
        init_closed, closed: their closed bound.
        nie_init_closed, nie_ar_closed: closed bounds of the noise initialisation, (modes,) and (modes, K).
        clean: KL of all clean frames, (modes,); None if the score is not affine.
        clip: KL of the clip that each AR step put out, (modes, K); None if the score is not affine.
        init_see_variance, init_cross_variance, init_fit_variance, see_variance,
             cross_variance, fit_variance: squared standard errors; ``fit`` is
            SEE + CROSS, which are estimated on the same samples.
        init_girsanov_variance, girsanov_variance, init_closed_variance,
             closed_variance: those of the two bounds.
    """

    multiplicity: Tensor
    nie_init: Tensor
    init_de: Tensor
    init_see: Tensor
    init_cross: Tensor
    ie: Tensor | None
    nie_ar: Tensor
    de: Tensor
    see: Tensor
    cross: Tensor
    mb: Tensor
    mb_clean: Tensor | None
    init_girsanov: Tensor | None
    girsanov: Tensor | None
    init_closed: Tensor | None
    closed: Tensor | None
    nie_init_closed: Tensor
    nie_ar_closed: Tensor
    clean: Tensor | None
    clip: Tensor | None
    init_see_variance: Tensor
    init_cross_variance: Tensor
    init_fit_variance: Tensor
    see_variance: Tensor
    cross_variance: Tensor
    fit_variance: Tensor
    init_girsanov_variance: Tensor | None
    girsanov_variance: Tensor | None
    init_closed_variance: Tensor | None
    closed_variance: Tensor | None

    def over_modes(self, term: Tensor) -> Tensor:
        """Sum over modes, each counted as often as it occurs; the other axes stay."""
        summed: Tensor = torch.tensordot(self.multiplicity, term, dims=1)
        return summed

    @property
    def path_init(self) -> Tensor:
        """Σ_m of the initialisation stage's path terms; with NIE it bounds IE."""
        return self.over_modes(self.init_de + self.init_see + self.init_cross).sum()

    @property
    def path_ar(self) -> Tensor:
        """Σ_m (DE + SEE + CROSS) of each AR step, (K,)."""
        return self.over_modes(self.de + self.see + self.cross).sum(-1)

    @property
    def ar_total(self) -> Tensor:
        """NIE_AR,k + path terms + MB_k of each AR step, (K,)."""
        return self.over_modes(self.nie_ar) + self.path_ar + self.over_modes(self.mb)

    @property
    def start(self) -> Tensor:
        """IE, or its bound NIE + path terms of the initialisation where IE would need a rollout."""
        if self.ie is not None:
            return self.over_modes(self.ie)
        return self.over_modes(self.nie_init) + self.path_init

    @property
    def trajectory(self) -> Tensor | None:
        """KL of the trajectory: the sum of the ledger; None where IE is."""
        return None if self.ie is None else self.start + self.ar_total.sum()

    @property
    def path(self) -> Tensor:
        """The ledger with IE replaced by its bound, the whole initialisation stage."""
        return self.over_modes(self.nie_init) + self.path_init + self.ar_total.sum()

    @property
    def girsanov_total(self) -> Tensor | None:
        """NIE and MB with the Girsanov form of both stages."""
        if self.girsanov is None or self.init_girsanov is None:
            return None
        paths = self.over_modes(self.init_girsanov).sum() + self.over_modes(self.girsanov).sum()
        rest = self.over_modes(self.nie_init) + self.over_modes(self.nie_ar + self.mb).sum()
        return paths + rest

    @property
    def closed_total(self) -> Tensor | None:
        """The closed bound: explicit constants for all but the memory bottleneck, which stays exact."""
        if self.closed is None or self.init_closed is None:
            return None
        paths = self.over_modes(self.init_closed).sum() + self.over_modes(self.closed).sum()
        rest = self.over_modes(self.nie_init_closed) + self.over_modes(self.nie_ar_closed + self.mb).sum()
        return paths + rest

    @property
    def clip_bounds(self) -> Tensor:
        """IE + Σ_{k ≤ K} [NIE_AR,k + path terms], (K,): a bound on clip KL where the plan's condition holds."""
        return self.start + (self.over_modes(self.nie_ar) + self.path_ar).cumsum(0)


def ledger_terms(
    video: GaussianVideo,
    plan: Plan,
    ar_steps: int,
    score: Score | AffineScore | HasScore | None = None,
    step: str | ReverseStep = "exponential",
    *,
    against: ExactScore = _FULL_VIEW,
    girsanov_points: int = 12,
    closed: bool = True,
    memory: bool = True,
    teacher_forced: bool = False,
    samples: int = 2048,
    seed: int = 0,
    ar_grid: Tensor | None = None,
    init_grid: Tensor | None = None,
    progress: bool = False,
) -> LedgerTerms:
    """Every term of the ledger as differentiable tensors.

    Args:
        video: the Gaussian video; frames beyond what the plan needs are ignored.
        plan: the plan.
        ar_steps: K ≥ 1.
        score: None for the exact score of what the plan lets frames see, an affine score, or any callable
            (window, levels, references) → score, or a denoiser; see :mod:`arvdm_theory.diffusion.scores`. It is
            told no actions, which Gaussian videos do not have.
        step: the reverse step.
        against: the s* that SEE is measured against. By default it sees everything, so what a mask hides is
            part of SEE; ``ExactScore(masked=True)`` moves it into DE.
        girsanov_points: quadrature points of the Girsanov form's smooth part; 0 leaves it (and the closed bound)
            out.
        closed: whether to compute the closed bound.
        memory: whether to compute MB (else it is NaN and the totals with it).
        teacher_forced: average SEE and CROSS over true windows for affine scores too, where they are exact: what
            a network's own ledger rests on. IE and the KL of clean frames and clips stay as they are.
        samples: true windows a reverse step where SEE and CROSS are averages.
        seed: of those samples.
        ar_grid: levels (M + 1, w) in place of the plan's, which may require gradients. The caller keeps them
            within the plan's requirements; moving frames must be those of the plan.
        init_grid: the same for the initialisation stage.
        progress: whether to show a progress bar.

    Raises:
        ValueError: if the video has too few frames, or an argument is out of range.
        NotPositiveDefiniteError: if a covariance that is needed is not positive definite.
    """
    if ar_steps < 1:
        raise ValueError(f"at least one AR step is needed, got {ar_steps}")
    if girsanov_points < 0:
        raise ValueError(f"the Girsanov form needs quadrature points, or 0 to leave it out; got {girsanov_points}")
    samples = sample_count(samples)
    score = as_score(score)
    _check_grid(ar_grid, "AR", (plan.reverse_steps + 1, plan.window))
    _check_grid(init_grid, "initialisation", (plan.init_steps + 1, plan.init_frames))
    chosen = reverse_step(step)
    frames, dim = plan.total_frames(ar_steps), video.frame_dim
    video.require(frames)
    mean, covariance = video.mean(frames), video.covariance(frames)
    generator = torch.Generator().manual_seed(seed)
    bounds = chosen.girsanov and girsanov_points > 0

    def stage(law: WindowLaw) -> tuple[AffineMap | Score, StageTerms, Tensor | None, Tensor | None]:
        own = stage_score(score, law)
        # An affine callable's averages are those of its own values, not of the map that probes have found.
        called = own if score is None or isinstance(score, AffineScore) or not teacher_forced else score
        terms = stage_terms(law, called, chosen, against, samples, generator, teacher_forced)
        girsanov = girsanov_path_bound(law, terms.moments, chosen, girsanov_points) if bounds else None
        upper = None
        if bounds and closed:
            # λ is a bound, not a value: any number from 0 to the smallest eigenvalue will do.
            smallest = torch.linalg.eigvalsh(law.covariance)[..., 0].clamp(min=0)
            upper = closed_path_bound(law, terms.moments, chosen, smallest)
        return own, terms, girsanov, upper

    law = init_window(mean, covariance, dim, plan, init_grid)
    own, init, init_girsanov, init_closed = stage(law)
    fresh = torch.full((law.window,), plan.horizon, dtype=torch.float64, device=mean.device)
    nie_init = _start_divergence(law, fresh)
    nie_init_closed = closed_initialisation_bound(law, law.window, plan.horizon)
    sampler: SamplerLaw | None = None
    ie: Tensor | None = None
    entry = None if ar_grid is None else ar_grid[0]
    if isinstance(own, AffineMap):
        sampler = SamplerLaw.initial(plan, stage_kernel(law, own, chosen), dim, entry)
        if plan.overlapping:
            levels = torch.tensor(plan.input_levels, dtype=torch.float64, device=mean.device)
            levels = (levels if entry is None else entry)[: law.window]
        else:
            levels = torch.full_like(fresh, plan.floor)
        scale = law.spread(alpha(levels))
        ie = kl_divergence(scale * law.mean, law.covariance_at(levels), sampler.mean, sampler.covariance)

    rows: dict[str, list[Tensor]] = {}

    def keep(name: str, value: Tensor | None) -> None:
        if value is not None:
            rows.setdefault(name, []).append(value)

    for k in tqdm(range(1, ar_steps + 1), "AR steps", disable=not progress or None, leave=False):
        law = ar_window(mean, covariance, dim, plan, k, ar_grid)
        own, terms, girsanov, upper = stage(law)
        for name in ("de", "see", "cross", "see_variance", "cross_variance", "fit_variance"):
            keep(name, getattr(terms, name))
        for name, rung in (("girsanov", girsanov), ("closed", upper)):
            keep(name, None if rung is None else rung.mean(0))
            keep(f"{name}_variance", None if rung is None else _squared_error(rung))
        keep("nie_ar", noise_initialisation(law, plan))
        keep("nie_ar_closed", closed_initialisation_bound(law, plan.stride, plan.horizon))
        if memory:
            bottleneck = memory_bottleneck(covariance, dim, plan, k, ar_grid)
            keep("mb", bottleneck)
            if not plan.overlapping:
                if plan.references.noised:
                    bottleneck = memory_bottleneck(covariance, dim, plan, k, ar_grid, noised=False)
                keep("mb_clean", bottleneck)
        if not isinstance(own, AffineMap):
            sampler = None  # from here on the rollout has no closed-form law
            rows.pop("clip", None)
        if sampler is not None and isinstance(own, AffineMap):
            sampler = sampler.advance(plan, k, stage_kernel(law, own, chosen))
            out = range(plan.clean_frames(k) - plan.stride, plan.clean_frames(k))
            keep("clip", clean_divergence(mean, covariance, dim, plan.floor, out, sampler))

    def stack(name: str) -> Tensor | None:
        if name not in rows:
            return None
        values = torch.stack(rows[name])  # (K, modes) or (K, M, modes)
        return values.movedim(-1, 0)

    def need(name: str) -> Tensor:
        value = stack(name)
        return torch.full_like(need("nie_ar"), math.nan) if value is None else value

    clean = None
    if sampler is not None:
        clean = clean_divergence(mean, covariance, dim, plan.floor, range(plan.clean_frames(ar_steps)), sampler)
    return LedgerTerms(
        multiplicity=video.multiplicity,
        nie_init=nie_init,
        init_de=init.de.mT,
        init_see=init.see.mT,
        init_cross=init.cross.mT,
        ie=ie,
        nie_ar=need("nie_ar"),
        de=need("de"),
        see=need("see"),
        cross=need("cross"),
        mb=need("mb"),
        mb_clean=stack("mb_clean"),
        init_girsanov=None if init_girsanov is None else init_girsanov.mean(0).mT,
        girsanov=stack("girsanov"),
        init_closed=None if init_closed is None else init_closed.mean(0).mT,
        closed=stack("closed"),
        nie_init_closed=nie_init_closed,
        nie_ar_closed=need("nie_ar_closed"),
        clean=clean,
        clip=stack("clip"),
        init_see_variance=init.see_variance.mT,
        init_cross_variance=init.cross_variance.mT,
        init_fit_variance=init.fit_variance.mT,
        see_variance=need("see_variance"),
        cross_variance=need("cross_variance"),
        fit_variance=need("fit_variance"),
        init_girsanov_variance=None if init_girsanov is None else _squared_error(init_girsanov).mT,
        girsanov_variance=stack("girsanov_variance"),
        init_closed_variance=None if init_closed is None else _squared_error(init_closed).mT,
        closed_variance=stack("closed_variance"),
    )


def _check_grid(grid: Tensor | None, stage: str, shape: tuple[int, int]) -> None:
    if grid is not None and (grid.shape != shape or grid.dtype != torch.float64):
        raise ValueError(
            f"the {stage} grid must be float64 levels of shape {shape}, got {grid.dtype} of {tuple(grid.shape)}"
        )


def _squared_error(rows: Tensor) -> Tensor:
    """Squared standard error of the mean over the leading sample axis; 0 for one exact row."""
    return torch.zeros_like(rows[0]) if len(rows) == 1 else rows.detach().var(0) / len(rows)


def _start_divergence(law: WindowLaw, levels: Tensor) -> Tensor:
    """KL of the true window at ``levels`` to N(0, I)."""
    mean = law.spread(alpha(levels)) * law.mean
    eye = torch.eye(mean.shape[-1], dtype=mean.dtype, device=mean.device)
    return kl_divergence(mean, law.covariance_at(levels), torch.zeros_like(mean), eye.expand_as(law.covariance))


def clean_divergence(
    mean: Tensor, covariance: Tensor, dim: int, floor: float, frames: range, sampler: SamplerLaw
) -> Tensor:
    """KL of a run of clean frames, true law to sampler's, (modes,).

    Args:
        mean, covariance: of the true frames at level 0, (modes, N·d) and (modes, N·d, N·d).
        dim: d.
        floor: δ, the level at which frames count as clean.
        frames: which.
        sampler: the law Q of the frames so far.
    """
    part = slice(frames.start * dim, frames.stop * dim)
    level = torch.tensor(floor, dtype=torch.float64, device=mean.device)
    noise = sigma2(level) * torch.eye(len(frames) * dim, dtype=torch.float64, device=mean.device)
    true = alpha(level) ** 2 * covariance[:, part, part] + noise
    return kl_divergence(alpha(level) * mean[:, part], true, *sampler.frames(frames))
