"""The law of one stage of a Gaussian video: every error term in closed form.

For one reverse step with true conditional P = N(μ_P, Σ_P) and the sampler's kernel N(μ_θ, Σ_q), the same sampler's
mean under the exact score being μ_*:

    E KL(P ‖ N(μ_θ, Σ_q)) = DE + SEE + CROSS,
    DE    = E KL(P ‖ N(μ_*, Σ_q)),
    SEE   = ½ E ‖μ_θ - μ_*‖²_{Σ_q^{-1}},
    CROSS = E ⟨μ_* - μ_P, μ_θ - μ_*⟩_{Σ_q^{-1}},

over the frames that move. P follows from the exact score: μ_P = (W + v s*)/a (Tweedie), and
Σ_P = (J_{m+1} + diag(a²/v))^{-1} on the moving frames, J_{m+1} the window's precision one level lower. That form,
unlike V - V J V, loses no digits.

Source: arXiv 2503.10704, Theorem 1 and its proof, made exact: the cross term is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from arvdm_theory.diffusion.scores import AffineScore, ExactScore, PerturbedScore, checked_score
from arvdm_theory.diffusion.steps import ReverseStep
from arvdm_theory.information.gaussian import (
    cholesky,
    conditional_mutual_information,
    kl_divergence,
    whiten,
)
from arvdm_theory.interfaces import ReferenceBatch
from arvdm_theory.laws.gaussian_kernel import Kernel, gaussian_steps, stage_kernel
from arvdm_theory.laws.gaussian_window import AffineMap, WindowLaw
from arvdm_theory.laws.stage_law import Law, Moments, StageLaw, StepTerms, TrueVideos
from arvdm_theory.laws.states import frame_indices, noisy_covariance
from arvdm_theory.noise import alpha, sigma2, standard_normal
from arvdm_theory.plan.stage import Stage

__all__ = ["GaussianStage"]

# Steps are long where 1/a is above this.
_LONG = 2.0
# How far an affine callable may miss its own affine map, relative to its size.
_AFFINE_TOLERANCE = 1e-9
# And in roundings of what it computes, which grow like the root of the number of summed terms.
_ROUNDINGS = 16
# Probes stand this many standard deviations of the true window and references apart.
_REACH = 3.0
# True windows and references of every step that an affine map is held against.
_WITNESSES = 512


class _Gaussian(Law, Protocol):
    """What a Gaussian stage asks of its video."""

    @property
    def modes(self) -> int: ...
    @property
    def multiplicity(self) -> Tensor: ...
    @property
    def action_dim(self) -> int: ...
    def joint_moments(self, frames: int) -> tuple[Tensor, Tensor]: ...


class GaussianStage(StageLaw):
    """The law of one stage of a Gaussian video, in closed form."""

    window: WindowLaw

    def __init__(self, law: _Gaussian, stage: Stage, window: WindowLaw | None = None) -> None:
        super().__init__(law, stage)
        self.video = law
        self._asked: tuple[Any, AffineMap | None] | None = None
        if window is not None:  # known from a stage that differs in its levels, or in when it is
            self.window = replace(window, stage=stage)
            return
        mean, covariance = law.joint_moments(stage.frames.stop)
        self.window = WindowLaw.of(mean, covariance, law.frame_dim, law.action_dim, stage)

    def over_modes(self, values: Tensor) -> Tensor:
        """(..., modes) summed over modes, each counted as often as it occurs."""
        total: Tensor = values @ self.video.multiplicity
        return total

    def require_kernel(self, step: ReverseStep) -> None:
        """Every reverse step will do: where one moves a frame without noise, DE is infinite."""

    def start_divergence(self, truth: TrueVideos | None = None) -> Tensor:
        """NIE, exactly, (1,).

        With [L, G, b] the root of W^0 on (old window, new window, known, 1), the Cholesky factor's lower right
        block squares to Cov(new | Input), and the remaining columns of the new rows give E ‖E[new | Input]‖².
        """
        law = self.window
        size = law.mean.shape[-1]
        old = self.stage.kept * law.dim
        if old == size:  # no frame is new
            return law.mean.new_zeros(1)
        root = law.root(law.identity)[0, :, old:]
        own = root[..., old:size]
        mean_square = (root[..., :old] ** 2).sum((-2, -1)) + (root[..., size:] ** 2).sum((-2, -1))
        zero = torch.zeros_like(own[..., 0])
        eye = torch.eye(size - old, dtype=own.dtype, device=own.device)
        divergence = kl_divergence(zero, own @ own.mT, zero, eye.expand_as(own)) + mean_square / 2
        return self.over_modes(divergence)[None]

    def reverse_terms(
        self,
        truth: TrueVideos,
        score: Any,
        step: ReverseStep,
        against: ExactScore,
        teacher_forced: bool = False,
    ) -> StepTerms:
        """DE, SEE and CROSS of every reverse step.

        DE is exact for every score. SEE and CROSS are exact for a score that is affine in (window, known); for
        another callable, or if ``teacher_forced``, they are averages over true windows that are drawn afresh for
        every reverse step. Where a step adds no noise to a frame that moves, DE is infinite and SEE and CROSS are
        not defined (NaN).
        """
        law = self.window
        steps = gaussian_steps(law, step)
        sampler = steps.sampler
        precision_factor = cholesky(steps.precision, "precision of a reverse step")
        identity, exact = law.root(law.identity), law.root(law.score)
        target_map = against.affine(law)
        target = exact if target_map is law.score else law.root(target_map)

        if sampler.variance is None:
            # Σ_q = Σ_P: ‖x‖² in its inverse is ‖L^T x‖² with L L^T = Σ_P^{-1}.
            def whiten(root: Tensor) -> Tensor:
                return precision_factor.mT @ root

            spread = steps.precision.new_zeros(steps.precision.shape[:2])
        else:
            noise = torch.where(sampler.variance == 0, torch.ones_like(sampler.variance), sampler.variance)
            scale = torch.rsqrt(noise).unsqueeze(-1)

            def whiten(root: Tensor) -> Tensor:
                return scale * root

            true = torch.cholesky_inverse(precision_factor)
            zero = true.new_zeros(true.shape[:-1])
            spread = kl_divergence(zero, true, zero, torch.diag_embed(noise.expand_as(zero)))

        def columns(values: Tensor) -> Tensor:
            return values.unsqueeze(-1)

        # μ_* - μ_P, and μ_P = (W + v s*)/a is (W + s*)/a - a s* as well: over a long step whose mean does not keep
        # W/a by itself, 1/a would leave of the first form only its rounding.
        apart = sampler.mean_window - steps.true_window
        long = (steps.true_window > _LONG) & (apart != 0)
        own_map = self.affine_map(score)
        # Of an exact score it only meets zeros, unless a step is long: a factorisation a reverse step less.
        needed = teacher_forced or own_map is not law.score or bool(long.any())
        near_noise = law.root(law.near_noise) if needed else torch.zeros_like(exact)
        gap = whiten(
            columns(torch.where(long, sampler.mean_window, apart)) * identity
            + columns(sampler.mean_score) * target
            - columns(torch.where(long, -1 / torch.where(long, steps.true_window, 1.0), steps.true_score)) * exact
            - columns(torch.where(long, steps.true_window, 0.0)) * near_noise
        )
        de = self.over_modes(spread + 0.5 * (gap**2).sum((-2, -1)))
        called = score if callable(score) and (own_map is None or not isinstance(score, AffineScore)) else own_map
        if own_map is not None and not teacher_forced:
            own = target if own_map is target_map else law.root(own_map)
            miss = whiten(columns(sampler.mean_score) * (own - target))
            see = self.over_modes(0.5 * (miss**2).sum((-2, -1)))[None]
            cross = self.over_modes((gap * miss).sum((-2, -1)))[None]
            error = own - exact

            def moment(f: Tensor, g: Tensor) -> Tensor:
                return law.per_frame((f * g).sum(-1)).unsqueeze(0)

            moments = Moments(moment(error, error), moment(exact, error), moment(near_noise, error))
        else:
            roots = (near_noise, exact, target, gap)
            see, cross, moments = self._sampled(
                called, columns(sampler.mean_score), whiten, roots, truth.videos, truth.generator
            )
        silent, undefined = sampler.silent, torch.full_like(see, torch.nan)
        return StepTerms(
            de=torch.where(silent, torch.full_like(de, torch.inf), de)[None],
            see=torch.where(silent, undefined, see),
            cross=torch.where(silent, undefined, cross),
            moments=moments,
        )

    def memory_bottleneck(self, truth: TrueVideos | None = None, clean_references: bool = False) -> Tensor:
        """MB, exactly, (1,); see :meth:`StageLaw.memory_bottleneck`."""
        video, stage = self.video, self.stage
        device, levels = self.window.mean.device, stage.levels.to(self.window.mean.device)
        floor = torch.tensor(stage.floor, dtype=torch.float64, device=device)
        known = set(stage.reference_frames) if clean_references else set()
        shown = stage.reference_levels.to(device)
        blocks = (
            [(stage.frames[j], levels[-1, j]) for j in stage.output],
            [(frame, floor) for frame in stage.past if frame not in known],
            [(stage.frames[j], levels[0, j]) for j in range(stage.kept)]
            + [(r.frame, floor if clean_references else shown[i]) for i, r in enumerate(stage.references)],
        )
        places = [place for block in blocks for place in block]
        number = torch.tensor([frame for frame, _ in places], device=device)
        level = torch.stack([at for _, at in places])
        # A freshly noised reference shares the noise of its frame up to the floor. Only past frames can be a
        # reference too, and they stand there: as on one path, two states part at the lower of their levels.
        ancestor = torch.minimum(level[:, None], level)
        d, frames = video.frame_dim, stage.frames.stop
        told = torch.arange(frames * d, frames * (d + video.action_dim))
        index = torch.cat([frame_indices(number.tolist(), d), told]).to(device)
        clean = video.joint_moments(frames)[1][:, index[:, None], index]
        n = len(places) * d
        own = noisy_covariance(clean[:, :n, :n], level, ancestor, number[:, None] == number)
        joint = own
        if len(told):
            cross = torch.exp(-level / 2).repeat_interleave(d)[:, None] * clean[:, :n, n:]
            joint = torch.cat([torch.cat([own, cross], -1), torch.cat([cross.mT, clean[:, n:, n:]], -1)], -2)
        first, second = len(blocks[0]) * d, (len(blocks[0]) + len(blocks[1])) * d
        value = conditional_mutual_information(
            joint, range(first), range(first, second), range(second, joint.shape[-1])
        )
        return self.over_modes(value)[None]

    def ar_step_error(self, kernel: Kernel) -> Tensor:
        """E KL(P(Output | Input) ‖ Q(Output | Input)) of the whole stage, exactly, (1,); infinite where Q is
        singular.

        Q starts from N(0, I) fresh frames: Output | Input ~ N(Φ_old W_old + Ψ Y + φ, Ω + Φ_new Φ_newᵀ). In centred
        coordinates (e_old, y, 1) of the input, which are uncorrelated, the difference of the two means is affine.

        Args:
            kernel: the sampler's over the whole stage.
        """
        law, stage, d = self.window, self.stage, self.window.dim
        out = frame_indices(stage.output, d).to(law.mean.device)
        old = torch.arange(stage.kept * d, device=law.mean.device)
        new = torch.arange(stage.kept * d, stage.window * d, device=law.mean.device)
        first, last = law.levels[0], law.levels[-1]
        scale_in, scale_out = (alpha(level).repeat_interleave(d) for level in (first, last))
        own = (alpha(first) / alpha(last) * sigma2(last)).repeat_interleave(
            d
        )  # noise that a frame keeps of itself
        both = scale_out[:, None] * scale_in * law.covariance + torch.diag(own)
        factor_old = cholesky(law.covariance_at(first)[:, old[:, None], old], "covariance of the old window")
        half = whiten(factor_old, both[:, out[:, None], old].mT)  # L⁻¹ Cov(old, out)
        gain = torch.linalg.solve_triangular(factor_old.mT, half, upper=True).mT
        left = law.covariance_at(last)[:, out[:, None], out] - half.mT @ half
        on_old, on_new = kernel.window[:, out[:, None], old], kernel.window[:, out[:, None], new]
        noise = kernel.covariance[:, out[:, None], out] + on_new @ on_new.mT
        explained_in, explained_out = scale_in[:, None] * law.gain, scale_out[:, None] * law.gain
        on_known = explained_out[:, out] - on_old @ explained_in[:, old] - kernel.known[:, out]
        shift = (scale_out * law.mean)[:, out] - kernel.bias[:, out]
        shift = shift - (on_old @ (scale_in * law.mean)[:, old].unsqueeze(-1)).squeeze(-1)
        shift = shift - (kernel.known[:, out] @ law.known_mean.unsqueeze(-1)).squeeze(-1)
        root = torch.cat([(gain - on_old) @ factor_old, on_known @ law.known_factor, shift.unsqueeze(-1)], -1)
        factor, info = torch.linalg.cholesky_ex(noise)
        if bool((info != 0).any()):
            return torch.full((1,), math.inf, dtype=torch.float64, device=noise.device)
        zero = torch.zeros_like(shift)
        value = kl_divergence(zero, left, zero, noise) + 0.5 * (whiten(factor, root) ** 2).sum((-2, -1))
        return self.over_modes(value)[None]

    def reverse_noise(self, step: int, fresh: Tensor) -> Tensor:
        """Standard normal frames (batch, modes, w, d) given the covariance Σ_P of reverse step m = ``step``."""
        from arvdm_theory.diffusion.steps import STEPS

        steps = gaussian_steps(self.window, STEPS["ancestral"])
        moving = steps.sampler.moving[step]
        still = torch.diag_embed(1 - moving)
        root = cholesky(steps.noise[step] + still, "covariance of a reverse step")
        flat = (root @ fresh.flatten(-2).to(root).unsqueeze(-1)).squeeze(-1)
        return (moving * flat).reshape(fresh.shape).to(fresh)

    # -- scores as affine maps -------------------------------------------------------------------------

    def affine_map(self, score: Any) -> AffineMap | None:
        """The score's map of (window, known) at every reverse step, in centred coordinates; None if it has none.

        A callable is affine if it meets, up to rounding in the precision that it computes in (that of its values,
        or of its attribute ``dtype``), the affine map that probes find: on random points of the video's size that
        reach far out, and on true windows and references of every reverse step. A network that bends where true
        data rarely go, on fewer than about one window in a hundred, can still be taken for affine.
        """
        if self._asked is None or self._asked[0] is not score:
            another = isinstance(score, ExactScore | PerturbedScore) and score.video not in (None, self.video)
            known = isinstance(score, AffineScore) and not another
            found = score.affine(self.window) if known else None
            # A network that clips is affine wherever probes stay within the range.
            if not known and not getattr(score, "bends", False):
                found = self._by_probing(score)
            self._asked = score, found
        return self._asked[1]

    def kernel(self, score: Any, step: ReverseStep) -> Kernel | None:
        """The sampler's kernel over the stage; None if the score is not affine."""
        own = self.affine_map(score)
        if own is None:
            return None
        if not step.looks_ahead:
            return stage_kernel(self.window, own, step)
        stage = self.stage
        later = replace(
            stage, grid=(*stage.grid[1:], stage.grid[-1]), visible=(*stage.visible[1:], stage.visible[-1]),
            given_levels=torch.cat([stage.levels[1:], stage.levels[-1:]]),
        )  # fmt: skip
        law = GaussianStage(self.video, later)
        there = law.affine_map(score)
        return None if there is None else stage_kernel(self.window, own, step, (law.window, there))

    def call(self, score: Any, step: int, window: Tensor, known: Tensor) -> Tensor:
        """Calls a score on flat vectors: window (batch, modes, w·d) and known (batch, modes, y).

        A video of one mode is shown without the mode axis.

        Raises:
            ValueError: if the score is no tensor of the window's shape, or not finite.
        """
        law = self.window
        frames = window.reshape(*window.shape[:-1], self.stage.window, law.dim)
        references, actions = law.split(known)
        one_mode = window.shape[1] == 1
        if one_mode:
            frames, references = frames[:, 0], references[:, 0]
        shown = ReferenceBatch.shown(
            references, self.stage.reference_levels.to(window.device), self.stage.reference_frames,
            tuple(self.stage.frames), actions,
        ).seeing(self.stage.visible[step])  # fmt: skip
        levels = law.levels[step]
        value = checked_score(score(frames, levels, shown), frames, self.stage.frames, levels)
        return (value.unsqueeze(1) if one_mode else value).flatten(-2)

    def _by_probing(self, score: Any) -> AffineMap | None:
        law = self.window
        modes, n = law.mean.shape
        size = n + law.gain.shape[-1]
        device = law.mean.device
        generator = torch.Generator().manual_seed(0)
        # Every mode gets probes of its own: a score that mixes modes is not affine mode by mode.
        random = standard_normal((4, modes, size), generator).to(device)
        # Two sums of probes tell most networks apart from affine maps, before every entry is moved on its own.
        random = torch.cat([random, random[:2] + random[2:]])
        basis = torch.eye(size, dtype=torch.float64, device=device)[:, None].expand(-1, modes, -1)
        root = law.root(law.identity)
        known_spread = law.known_factor.square().sum(-1).sqrt()
        normal, known = law.sampled(lambda shape: standard_normal(shape, generator), _WITNESSES)
        true = torch.cat([root @ normal, known], -2).permute(0, 3, 1, 2)  # (M, witnesses, modes, n + y)
        maps = []
        for m in range(law.steps):
            centre = torch.cat([root[m, ..., -1], law.known_mean], -1)
            spread = torch.cat([root[m, ..., :-1].square().sum(-1).sqrt(), known_spread], -1) * _REACH

            def ask(points: Tensor, m: int = m) -> Tensor:
                return self.call(score, m, points[..., :n], points[..., n:])

            raw = ask(centre + spread * torch.cat([torch.zeros_like(random[:1]), random]))
            base, seen = raw[0].to(torch.float64), raw[1:].to(torch.float64)
            largest = float((centre.abs() + spread * random.abs()).max().detach())
            size_of = seen.abs().amax((0, 2)).unsqueeze(-1)
            rounding = _ROUNDINGS * math.sqrt(size) * _unit(score, raw)
            noise = largest / law.per_entry(sigma2(law.levels[m])) + size_of
            allowed = _AFFINE_TOLERANCE * size_of + rounding * noise
            bend = seen[4:] - seen[:2] - seen[2:4] + base
            if not bool((bend.abs() <= allowed).all()):
                return None
            slope = (ask(centre + spread * basis).to(torch.float64) - base).permute(1, 2, 0)

            def met(points: Tensor, said: Tensor, slope: Tensor = slope, base: Tensor = base,
                    allowed: Tensor = allowed) -> bool:  # fmt: skip
                expected = torch.einsum("bij,pbj->pbi", slope, points) + base
                return bool(((said - expected).abs() <= allowed).all())

            if not met(random, seen):
                return None
            if not met((true[m] - centre) / spread, ask(true[m]).to(torch.float64)):
                return None
            slope = slope / spread.unsqueeze(-2)
            bias = base - (slope @ centre.unsqueeze(-1)).squeeze(-1)
            maps.append((slope[..., :n], slope[..., n:], bias))
        return law.centred(*(torch.stack(parts) for parts in zip(*maps, strict=True)))

    def _sampled(
        self,
        score: Any,
        scale: Tensor,
        whiten: Callable[[Tensor], Tensor],
        roots: tuple[Tensor, Tensor, Tensor, Tensor],
        samples: int,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor, Moments]:
        """SEE and CROSS a sample, (samples, M), over true windows drawn afresh for every reverse step."""
        law = self.window
        near_noise, exact, target, gap = roots
        draw, known = law.sampled(lambda shape: standard_normal(shape, generator), samples)
        window = law.root(law.identity) @ draw
        if isinstance(score, AffineMap):
            own = law.root(score) @ draw
        else:
            own = torch.stack(
                [
                    self.call(score, m, window[m].permute(2, 0, 1), known[m].permute(2, 0, 1))
                    .to(torch.float64)
                    .permute(1, 2, 0)
                    for m in range(law.steps)
                ]
            )
        true, aim = exact @ draw, target @ draw
        miss = whiten(scale * (own - aim))
        see = 0.5 * (miss**2).sum(-2)  # (M, modes, samples)
        cross = ((gap @ draw) * miss).sum(-2)

        def per_frame(values: Tensor) -> Tensor:
            return law.per_frame(values.movedim(-1, 0))

        error = own - true
        moments = Moments(per_frame(error**2), per_frame(true * error), per_frame((near_noise @ draw) * error))
        return self.over_modes(see.permute(2, 0, 1)), self.over_modes(cross.permute(2, 0, 1)), moments


def _unit(score: object, value: Tensor) -> float:
    """The relative rounding of the precision that a score computes in."""
    own = getattr(score, "dtype", None)
    kinds = [kind for kind in (value.dtype, own) if isinstance(kind, torch.dtype) and kind.is_floating_point]
    return max((torch.finfo(kind).eps for kind in kinds), default=0.0)
