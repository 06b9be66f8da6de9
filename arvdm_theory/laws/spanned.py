"""A Gaussian video that lives in the span of some pictures, and noise outside it: a law of pixels (or latents).

    X_t = m + Φᵀ y_t + e_t,     y = s z, z a Gaussian video in R^K, Φ (K, D) with orthonormal rows,
    e_t ~ N(0, v (I - ΦᵀΦ)) independent of everything.

Rotated into the span and its complement, OU noise and every reverse step stay what they are, so a ledger falls
into that of y and those of D - K independent scalar frames of variance v: no D x D matrix is needed, and a network
that takes pixels is called on pixels.

Source: Tipping and Bishop 1999, J. R. Stat. Soc. B 61(3) (the noise outside the span).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Generator, Tensor

from arvdm_theory.diffusion.scores import ExactScore, PerturbedScore, checked_score
from arvdm_theory.diffusion.steps import ReverseStep
from arvdm_theory.information.gaussian import cholesky, condition, log_det
from arvdm_theory.interfaces import ReferenceBatch, VideoBatch
from arvdm_theory.laws.evidence import Evidence
from arvdm_theory.laws.gaussian import GaussianVideo, StationaryVideo
from arvdm_theory.laws.gaussian_kernel import gaussian_steps
from arvdm_theory.laws.gaussian_stage import GaussianStage
from arvdm_theory.laws.law import VideoLaw
from arvdm_theory.laws.stage_law import StageLaw, StepTerms, TrueVideos
from arvdm_theory.laws.state_space import StateSpace
from arvdm_theory.noise import alpha, sigma2, standard_normal
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.stage import Stage

__all__ = ["SpannedVideo"]


class SpannedVideo(VideoLaw):
    """The law X = m + Φᵀ y + e.

    Its ledger has NIE, DE and MB exactly, and SEE and CROSS of a network as averages over true windows of all D
    entries. It has no rollout in closed form: ``predicted_clip_kl(video.span, plan, K, video.in_span(network))``
    predicts the clips' KL within the span.

    Args:
        span: z, of one mode.
        basis: Φ, (K, D), orthonormal rows.
        centre: m, (D,); a mean of z adds to it.
        variance: v > 0, of every direction outside the span; what it is does not matter where K = D.
        scale: s > 0.
        shape: of a frame, (H, W, C) or (D,).
        name: what tables call it.

    Attributes:
        span: s z + Φ m, the video in coordinates of the span and levels of pixels.
        rest: the scalar videos outside it.

    Raises:
        ValueError: if shapes do not fit, Φ is not orthonormal or v is not positive.
    """

    def __init__(
        self,
        span: GaussianVideo,
        basis: ArrayLike | Tensor,
        centre: ArrayLike | Tensor,
        variance: float,
        scale: float = 1.0,
        shape: tuple[int, ...] | None = None,
        name: str = "spanned",
    ) -> None:
        self.basis, self.centre = (
            torch.as_tensor(x, dtype=torch.float64, device=span.device) for x in (basis, centre)
        )
        if span.modes != 1 or self.basis.ndim != 2 or self.centre.shape != self.basis.shape[1:]:
            raise ValueError(
                f"a span of one mode, a basis (K, D) and a centre (D,) are needed, got {span.modes} modes, "
                f"{tuple(self.basis.shape)} and {tuple(self.centre.shape)}"
            )
        K, D = self.basis.shape
        eye = torch.eye(K).to(self.basis)
        if span.frame_dim != K or float((self.basis @ self.basis.mT - eye).abs().max()) > 1e-8:
            raise ValueError(f"the basis must have {span.frame_dim} orthonormal rows")
        if D > K and not 0 < variance < math.inf:
            raise ValueError(f"outside the span the variance must be positive and finite, got {variance}")
        self.frame_dim, self.length, self.name = D, span.length, name
        self.variance = float(variance) if D > K else 1.0
        self.shape = (D,) if shape is None else tuple(shape)
        if math.prod(self.shape) != D:
            raise ValueError(f"a frame of shape {self.shape} has not {D} entries")
        self.outside = self.left_over(self.centre)
        if not 0 < scale < math.inf:
            raise ValueError(f"the scale must be positive and finite, got {scale}")
        self.span = _Affine(span, float(scale), self.basis @ self.centre)
        # Outside: one direction along the rest of the centre, and D - K - 1 of mean zero.
        mean = torch.stack([self.outside.norm(), torch.zeros_like(self.outside[0])])[:, None]
        often = torch.tensor([min(D - K, 1), max(D - K - 1, 0)], dtype=torch.float64, device=span.device)

        def white(lags: int) -> Tensor:
            gamma = torch.zeros(2, lags, 1, 1, dtype=torch.float64, device=span.device)
            gamma[:, 0] = self.variance
            return gamma

        self.rest = StationaryVideo(white, 1, mean, often, span.length, "outside the span")

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """(H, W, C), or (D,)."""
        return self.shape

    @property
    def device(self) -> torch.device:
        """Where its tensors live."""
        return self.basis.device

    def encode(self, frames: Tensor) -> Tensor:
        """Span coordinates (..., K) of (..., D), of states or of scores: Φ x. The centre's part is y's mean."""
        return frames @ self.basis.mT

    def decode(self, coordinates: Tensor) -> Tensor:
        """(..., D) of (..., K): Φᵀ y."""
        return coordinates @ self.basis

    def left_over(self, frames: Tensor) -> Tensor:
        """The part outside the span, (..., D)."""
        return frames - self.decode(self.encode(frames))

    def in_span(self, network: Any, seed: int = 0) -> Callable[[Tensor, Tensor, ReferenceBatch], Tensor]:
        """A score of pixels as one of ``span``: called on decoded states with true noise outside the span.

        That noise is drawn afresh in every call, so the score is random, as it is for who sees the span alone.
        """
        return _InSpan(self, network, Generator().manual_seed(seed))

    def caveat(self, plan: Plan) -> str | None:
        """That of the span."""
        return self.span.caveat(plan)

    def draw(self, videos: int, frames: int, generator: Generator) -> VideoBatch:
        """Independent videos, (videos, frames, D)."""
        inside = self.decode(self.span.draw(videos, frames, generator).frames)
        noise = standard_normal((videos, frames, self.frame_dim), generator).to(inside)
        return VideoBatch(inside + self.outside + math.sqrt(self.variance) * self.left_over(noise))

    def log_density(self, window: Evidence, given: Evidence | None = None) -> Tensor:
        """log N of the span's states, and of those outside, (batch,)."""
        both = window if given is None else window + given
        if both.values is None or both.frames:
            raise ValueError(f"the video {self.name!r} has noisy states, and no symbols")

        def inside(evidence: Evidence | None) -> Evidence | None:
            if evidence is None or evidence.values is None:
                return evidence
            return dataclasses.replace(evidence, values=self.encode(evidence.values))

        projected = inside(window)
        assert projected is not None
        logs = self.span.log_density(projected, inside(given))
        free = self.frame_dim - self.span.frame_dim
        if not free:
            return logs
        states = both.states
        scale = alpha(torch.tensor([s.level for s in states], dtype=torch.float64, device=self.device))
        offset = self.left_over(both.values) - scale[:, None] * self.outside  # (batch, states, D)
        n = len(window.states)
        gain, left = condition(self.rest.joint(states)[1][0], range(n), range(n, len(states)))
        factor = cholesky(left, "covariance of the window outside the span")
        miss = torch.linalg.solve_triangular(factor, offset[:, :n] - gain @ offset[:, n:], upper=False)
        density: Tensor = logs - 0.5 * (
            (miss**2).sum((1, 2)) + free * (log_det(factor) + n * math.log(2 * math.pi))
        )
        return density

    def at(self, stage: Stage) -> StageLaw:
        """The law of a stage, by its parts."""
        return _SpannedStage(self, stage)

    def true_videos(self, plan: Plan, ar_steps: int, videos: int, generator: Generator) -> Iterator[TrueVideos]:
        """One batch: stages draw their windows themselves."""
        del plan, ar_steps
        yield TrueVideos(self, videos, generator, torch.zeros(0, dtype=torch.float64))


class _Affine(GaussianVideo):
    """s z + c of every frame of a Gaussian video z of one mode."""

    def __init__(self, of: GaussianVideo, scale: float, shift: Tensor) -> None:
        self.of, self.scale, self.shift = of, scale, shift
        self.frame_dim, self.length, self.name = of.frame_dim, of.length, of.name
        self.multiplicity = of.multiplicity

    def mean(self, frames: int) -> Tensor:
        """See :class:`GaussianVideo`."""
        return self.scale * self.of.mean(frames) + self.shift.repeat(frames)

    def covariance(self, frames: int) -> Tensor:
        """See :class:`GaussianVideo`."""
        return self.scale**2 * self.of.covariance(frames)

    def state_space_form(self) -> StateSpace | None:
        """See :class:`GaussianVideo`."""
        form = self.of.state_space_form()
        if form is None:
            return None
        see, noise = self.scale * form.observation, self.scale**2 * form.observation_noise
        mean = self.scale * form.mean + self.shift
        return dataclasses.replace(form, observation=see, observation_noise=noise, mean=mean)

    def caveat(self, plan: Plan) -> str | None:
        """See :class:`VideoLaw`."""
        return self.of.caveat(plan)


class _InSpan:
    """A score of pixels, called on states of the span with noise outside it drawn afresh.

    Attributes:
        bends: it is random: no affine map is looked for.
    """

    bends = True

    def __init__(self, video: SpannedVideo, network: Any, generator: Generator) -> None:
        self.video, self.network, self.generator = video, network, generator

    def __call__(self, window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
        """(batch, w, K) of a window (batch, w, K)."""
        return self.video.encode(self.asked(window, levels, references)[0]).to(window)

    def asked(self, window: Tensor, levels: Tensor, references: ReferenceBatch) -> tuple[Tensor, Tensor]:
        """The network's value and the state outside the span that it was shown, less its mean, (batch, w, D)."""
        video, batch = self.video, len(window)
        outside = self._noise(batch, levels)
        pixels = video.decode(window) + alpha(levels)[:, None] * video.outside + outside
        # A frame that is shown twice is the same frame in noise of its own.
        distinct = sorted(set(references.frames))
        clean = self._draw((batch, len(distinct)), math.sqrt(video.variance)) + video.outside
        at = [distinct.index(frame) for frame in references.frames]
        told = references.levels.to(window)
        shown = video.decode(references.values) + alpha(told)[:, None] * clean[:, at]
        shown = shown + self._draw((batch, len(at)), sigma2(told).sqrt()[:, None])
        seen = dataclasses.replace(references, values=shown)
        value = self.network(pixels, levels, seen)
        return checked_score(value, pixels, references.window_frames, levels).to(torch.float64), outside

    def _noise(self, batch: int, levels: Tensor) -> Tensor:
        scale = (alpha(levels) ** 2 * self.video.variance + sigma2(levels)).sqrt()
        return self._draw((batch, len(levels)), scale[:, None])

    def _draw(self, shape: tuple[int, int], scale: float | Tensor) -> Tensor:
        """Noise outside the span, (*shape, D)."""
        noise = standard_normal((*shape, self.video.frame_dim), self.generator).to(self.video.basis)
        return scale * self.video.left_over(noise)


class _SpannedStage(StageLaw):
    """The law of one stage, the sum of those of its parts."""

    law: SpannedVideo

    def __init__(self, law: SpannedVideo, stage: Stage) -> None:
        super().__init__(law, stage)
        self.parts = GaussianStage(law.span, stage), GaussianStage(law.rest, stage)

    def require_kernel(self, step: ReverseStep) -> None:
        """Every reverse step will do, as for a Gaussian stage."""

    def start_divergence(self, truth: TrueVideos | None = None) -> Tensor:
        """NIE, exactly, (1,)."""
        return self.parts[0].start_divergence() + self.parts[1].start_divergence()

    def memory_bottleneck(self, truth: TrueVideos | None = None, clean_references: bool = False) -> Tensor:
        """MB, exactly, (1,): frames outside the span know nothing of one another."""
        return self.parts[0].memory_bottleneck(truth, clean_references)

    def reverse_terms(
        self,
        truth: TrueVideos,
        score: Any,
        step: ReverseStep,
        against: ExactScore,
        teacher_forced: bool = False,
    ) -> StepTerms:
        """DE exactly, SEE and CROSS exactly for what is affine in each part by itself, else over true windows."""
        own = _of_parts(score, self.law)
        if own is not None:
            terms = [
                part.reverse_terms(truth, own, step, _unbound(against), teacher_forced) for part in self.parts
            ]
            return StepTerms(*(sum(getattr(t, name) for t in terms) for name in ("de", "see", "cross")))
        asked = _Asked(self, score, step, truth.generator)
        inside = self.parts[0].reverse_terms(truth, asked, step, _unbound(against), teacher_forced)
        outside = self.parts[1].reverse_terms(truth, ExactScore(), step, ExactScore())
        see, cross = (torch.stack(found, -1) for found in zip(*asked.found, strict=True))
        undefined = torch.where(torch.isnan(inside.see), torch.nan, 0.0)
        return StepTerms(inside.de + outside.de, inside.see + see + undefined, inside.cross + cross + undefined)


class _Asked(_InSpan):
    """The same, called once a reverse step in their order; it keeps what the score misses outside the span."""

    def __init__(self, stage: _SpannedStage, network: Any, step: ReverseStep, generator: Generator) -> None:
        super().__init__(stage.law, network, generator)
        self.steps = gaussian_steps(stage.parts[1].window, step)
        self.found: list[tuple[Tensor, Tensor]] = []

    def __call__(self, window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
        """See :class:`_InSpan`."""
        value, outside = self.asked(window, levels, references)
        video, steps, m = self.video, self.steps, len(self.found)
        sampler = steps.sampler

        def column(values: Tensor) -> Tensor:
            return values[m, 0, :, None]

        if sampler.variance is None:
            scale = torch.diagonal(steps.precision[m, 0])[:, None].sqrt()
        else:
            noise = column(sampler.variance)
            scale = torch.where(noise == 0, 1.0, noise).rsqrt()
        a = alpha(levels)[:, None]
        exact = -outside / (a**2 * video.variance + sigma2(levels)[:, None])
        state = outside + a * video.outside
        miss = scale * column(sampler.mean_score) * (video.left_over(value) - exact)
        apart = (column(sampler.mean_window) - column(steps.true_window)) * state
        gap = scale * (apart + (column(sampler.mean_score) - column(steps.true_score)) * exact)
        self.found.append((0.5 * (miss**2).sum((1, 2)), (gap * miss).sum((1, 2))))
        return video.encode(value)


def _unbound(score: ExactScore) -> ExactScore:
    return dataclasses.replace(score, video=None)


def _of_parts(score: Any, law: SpannedVideo) -> Any:
    """The score as one of each part, where it is one: the exact one, and what is made of it by numbers alone."""
    if isinstance(score, ExactScore) and score.video in (None, law):
        return _unbound(score)
    if isinstance(score, PerturbedScore) and score.video in (None, law) and float(score.bias) == 0:
        return dataclasses.replace(score, base=_unbound(score.base))
    return None
