"""The ledger of a linear state space in linear time, and its rates at the infinite horizon.

Where references reach back a bounded number of frames (the last m) or never move (the first f), nothing needs the
joint covariance of all frames. From the AR step on at which the references are filled,

- the law of a stage is that of *local* frames: the first f, the m before the window, and the window. It is the
  same at every step of a stationary video without first references, and converges like A^k for others with a
  stable A;
- MB_k = I(Out; in reach | In) + I(Out; older | In, in reach). Older frames speak of the local ones only through
  the state z at the edge of the reach. All laws given the first frames as they are shown, let X be the output, Y
  the input and the frames in reach, H the map of z on them, S = Cov(z), P = Cov(z | older) of the Kalman filter,
  Σ = S - P, K the regression of X on Y, M = H_Yᵀ Cov(Y)^{-1} H_Y and T = H_X - K H_Y. The posterior mean of z
  given older has covariance Σ, and Cov(X, it | Y) = T Σ, Cov(it | Y) = Σ (I - M Σ), so that

      I(X; older | Y) = -½ log det(I - Tᵀ Cov(X | Y)^{-1} T (I - Σ M)^{-1} Σ);

- what the sampler hands on, (first frames, the m last ones, noisy window), is Gaussian and moves by an affine map;
- KL(clean) grows by E KL(P(x_k | x_<k) ‖ Q(x_k | x_<k)) in AR step k: the sampler is a hidden Markov model whose
  state is what it hands on, so Q(x_k | x_<k) comes from its Kalman filter, run on data from P. Second moments of
  (video state, frames in reach, filter mean) under P move by an affine map.

Every one of these maps forgets geometrically where it contracts; from there on a further AR step costs nothing. A
state on the unit circle without process noise, seen in noise, is learnt like 1/k: it never converges, and costs a
power of two of AR steps a doubling (:class:`arvdm_theory.laws.state_space.Riccati`).

Sources: arXiv 2503.10704, Theorems 1 and 2; Anderson and Moore 1979, Optimal Filtering, chapters 3, 4 and 6.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import torch
from torch import Tensor

from arvdm_theory.decomposition.terms import (
    FULL_VIEW,
    LedgerTerms,
    StageErrors,
    _attributed,
    _bounds,
    closed_rollout,
    dense_steps,
    require_densities,
    stage_errors,
)
from arvdm_theory.diffusion.scores import ExactScore, PerturbedScore, as_score
from arvdm_theory.diffusion.steps import ReverseStep, reverse_step
from arvdm_theory.information.gaussian import (
    NotPositiveDefiniteError,
    cholesky,
    condition,
    kl_divergence,
    wasserstein2,
    whiten,
)
from arvdm_theory.interfaces import ReferenceBatch
from arvdm_theory.laws.gaussian import GaussianVideo
from arvdm_theory.laws.gaussian_kernel import Kernel
from arvdm_theory.laws.gaussian_sampler import SamplerLaw, clean_law, kl_rounding
from arvdm_theory.laws.gaussian_stage import GaussianStage
from arvdm_theory.laws.law import VideoLaw
from arvdm_theory.laws.state_space import Affine, FilterStep, StateSpace, repeated, steps_to_forget
from arvdm_theory.laws.states import noisy_covariance
from arvdm_theory.noise import alpha, transition
from arvdm_theory.number import Number
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.references import Reference

__all__ = ["Rates", "RecursiveTerms", "SharedSteps", "rates", "recursive_form", "recursive_terms"]

# From as many AR steps beyond the beginning of its pattern on a ledger is taken by recursions.
_PAYS = 32
# Below this norm A^k has no influence left on the law of a stage.
_FADED = 1e-16
# AR steps whose sampler terms are evaluated at once.
_BATCH = 4096
# A score is taken to move with the video if its map is the same, to this part of it, these many AR steps later.
_SAME_MAP = 1e-9
_LATER = (1, 2, 3, 5, 16, 61)
# Below this an information is taken from a series: -log(1 - x) from x has its digits there.
_SMALL = 1e-4


# -- many AR steps that share their errors ------------------------------------------------------------------


@dataclass(frozen=True)
class SharedSteps(Sequence[StageErrors]):
    """The errors of AR steps 1..K, most of which are those of one stage but for their bottleneck.

    Attributes:
        distinct: the different stages, in order; AR steps beyond their number are those of the last one.
        series: what has a value of its own in every AR step, (K,).
        steps: K.
    """

    distinct: tuple[StageErrors, ...]
    series: dict[str, Number]
    steps: int

    def __len__(self) -> int:
        return self.steps

    @overload
    def __getitem__(self, index: int) -> StageErrors: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[StageErrors, ...]: ...
    def __getitem__(self, index: int | slice) -> StageErrors | tuple[StageErrors, ...]:
        if isinstance(index, slice):
            return tuple(self[k] for k in range(*index.indices(self.steps)))
        k = range(self.steps)[index]
        own = {name: number[k] for name, number in self.series.items()}
        return dataclasses.replace(self.distinct[min(k, len(self.distinct) - 1)], **own)

    def spread(self, numbers: list[Number]) -> Number:
        """Numbers of the distinct stages, one for every AR step."""
        stacked = Number.stack(numbers)
        which = torch.arange(self.steps, device=stacked.samples.device).clamp(max=len(self.distinct) - 1)
        return stacked[which]

    def of(self, name: str) -> Number | None:
        """One error of all AR steps, (K,) or (K, M)."""
        if name in self.series:
            return self.series[name]
        numbers = [getattr(stage, name) for stage in self.distinct]
        return None if any(number is None for number in numbers) else self.spread(numbers)


@dataclass(frozen=True)
class RecursiveTerms(LedgerTerms):
    """Terms of the ledger by recursions: :class:`LedgerTerms` whose AR steps share their errors."""

    ar: SharedSteps = field(default_factory=lambda: SharedSteps((), {}, 0))

    def of(self, name: str) -> Number | None:
        """One error of all AR steps, (K,) or (K, M)."""
        return self.ar.of(name)

    @property
    def ar_paths(self) -> Number:
        """NIE_AR,k + Σ_m (DE + SEE + CROSS) of each AR step, (K,)."""
        return self.ar.spread([stage.path for stage in self.ar.distinct])


# -- the stages seen from the window -------------------------------------------------------------------------


class _LocalVideo(GaussianVideo):
    """The first f frames and those from the edge of the reach to the window's last, as a video of their own."""

    def __init__(self, of: GaussianVideo, mean: Tensor, covariance: Tensor) -> None:
        self.frame_dim, self.multiplicity, self.name = of.frame_dim, of.multiplicity, of.name
        self.length = mean.shape[-1] // of.frame_dim
        self._moments = mean, covariance

    def mean(self, frames: int) -> Tensor:
        """See :class:`GaussianVideo`."""
        return self._moments[0][:, : frames * self.frame_dim]

    def covariance(self, frames: int) -> Tensor:
        """See :class:`GaussianVideo`."""
        n = frames * self.frame_dim
        return self._moments[1][:, :n, :n]


@dataclass(frozen=True, eq=False)
class _Local:
    """The law of what a stage in the steady pattern sees.

    Attributes:
        video: the local frames.
        state: Cov(z), z the state at the edge of the reach, (modes, s, s).
        cross: Cov(z, first frames), (modes, s, f·d).
    """

    video: _LocalVideo
    state: Tensor
    cross: Tensor


class _Pattern:
    """A plan on a state space, from the AR step on at which its references are filled.

    Local frames: 0..f-1 are the first ones, f..f+m-1 those in reach, and then the window.

    Args:
        video: the video.
        form: the same as a state space.
        plan: the plan.
        grid: AR levels in place of the plan's.
    """

    def __init__(self, video: GaussianVideo, form: StateSpace, plan: Plan, grid: Tensor | None) -> None:
        reach, k = plan.references.reach, plan.repeats_from
        assert reach is not None
        assert k is not None
        self.video, self.form, self.plan, self.begin = video, form, plan, k
        self.first, self.last = reach
        self.edge = plan.frames_out(k) - self.last  # the first frame in reach, at AR step k
        self.frames = self.last + plan.window
        stage = plan.stage(k, grid)
        refs = tuple(Reference(self.local(r.frame), r.level) for r in stage.references)
        self.stage = dataclasses.replace(
            stage,
            frames=range(self.first + self.last, self.first + self.frames),
            references=refs,
            past=tuple(self.local(frame) for frame in stage.past if frame >= self.edge),
        )
        self.maps = form.frames(self.frames)

    def local(self, frame: int) -> int:
        """A frame of AR step ``begin`` as a local one."""
        return frame if frame < self.first else frame - self.edge + self.first

    def score(self, score: Any, later: int) -> Any:
        """The score as the local stage of AR step ``begin`` + ``later`` calls it: shown the frames' numbers."""
        if hasattr(score, "affine"):
            return score
        edge, first = self.edge + later * self.plan.stride, self.first

        def number(frame: int) -> int:
            return frame if frame < first else frame + edge - first

        def shifted(window: Tensor, levels: Tensor, references: ReferenceBatch) -> Any:
            own, at = references.frames, references.window_frames
            return score(
                window,
                levels,
                dataclasses.replace(
                    references, frames=tuple(map(number, own)), window_frames=tuple(map(number, at))
                ),
            )

        if isinstance(getattr(score, "dtype", None), torch.dtype):
            shifted.dtype = score.dtype  # type: ignore[attr-defined]
        return shifted

    def laws(self) -> Iterator[_Local]:
        """The local law of AR step ``begin``, ``begin`` + 1, ...; the last one is that of all later steps.

        Without end, if there is none such.
        """
        form, f, d = self.form, self.first, self.video.frame_dim
        (on, noise), s = form.path(self.edge), form.states
        means = (on @ form.start.unsqueeze(-1)).squeeze(-1)
        states = on @ form.covariance @ on.mT + noise
        see = on.new_zeros(len(on), f * d, states.shape[-1])
        see[:, :, : f * s] = repeated(form.observation, f)
        first_mean = (see @ means.unsqueeze(-1)).squeeze(-1) + form.mean.repeat(1, f)
        first = see @ states @ see.mT + repeated(form.observation_noise, f)
        cross = states[:, -s:] @ see.mT
        if form.stationary:  # the very numbers, without the rounding of the recursion
            mean, state = form.start, form.covariance
        else:
            mean, state = means[:, -s:], states[:, -s:, -s:]
        stride, left = form.power(self.plan.stride), torch.eye(s).to(on)
        while True:
            yield self._local(first_mean, first, mean, state, cross)
            left = stride @ left
            if (form.stationary and not f) or float(torch.linalg.matrix_norm(left.detach()).max()) <= _FADED:
                return
            cross = stride @ cross
            if not form.stationary:
                later = form.from_state(mean, state).advanced(self.plan.stride)
                mean, state = later.start, later.covariance

    def _local(self, first_mean: Tensor, first: Tensor, mean: Tensor, state: Tensor, cross: Tensor) -> _Local:
        on, noise = self.maps
        seen = (on @ mean.unsqueeze(-1)).squeeze(-1) + self.form.mean.repeat(1, self.frames)
        own, with_first = on @ state @ on.mT + noise, on @ cross
        top = torch.cat([first, with_first.mT], -1)
        joint = torch.cat([top, torch.cat([with_first, (own + own.mT) / 2], -1)], -2)
        return _Local(_LocalVideo(self.video, torch.cat([first_mean, seen], -1), joint), state, cross)

    def faded(self, local: _Local) -> _Local:
        """A local law once the first frames say nothing of the window any more."""
        n, f = self.first * self.video.frame_dim, self.first
        mean, covariance = local.video.joint_moments(f) if f else (local.video.mean(0), local.video.covariance(0))
        assert mean.shape[-1] == n
        return self._local(mean, covariance, self.form.start, self.form.covariance, torch.zeros_like(local.cross))

    # -- the memory bottleneck -------------------------------------------------------------------------

    def prior(self, local: _Local, clean: bool) -> Tensor:
        """S = Cov(z | the first frames as they are shown, or as they came out)."""
        if not self.first:
            return local.state
        n, f, s = self.first * self.video.frame_dim, self.first, self.form.states
        floor = self.plan.floor
        shown = [floor if clean else max(r.level, floor) for r in self.stage.references if r.frame < f]
        level = torch.tensor(shown, dtype=torch.float64, device=local.state.device)
        _, seen = clean_law(local.video.joint_moments(f), self.video.frame_dim, 0, range(f), level)
        cross = local.cross * alpha(level).repeat_interleave(self.video.frame_dim)
        joint = torch.cat([torch.cat([local.state, cross], -1), torch.cat([cross.mT, seen], -1)], -2)
        return condition(joint, range(s), range(s, s + n))[1]

    def edges(self, count: int) -> Tensor:
        """P of AR step ``begin``, ``begin`` + 1, ..., (n, modes, s, s), n ≤ ``count``: then the last one stays."""
        form = self.form.at_level(self.plan.floor)
        before = form.block(self.plan.stride).riccati().sequence(form.filtered(self.edge), count)
        return form.predicted(before)

    def older(self, prior: Tensor, posterior: Tensor) -> Tensor:
        """I(Output; older frames | Input, frames in reach), (n, modes), from S (modes, s, s) and n matrices P."""
        stage, d = self.stage, self.video.frame_dim
        levels = stage.levels.to(prior.device)
        floor = levels.new_full((self.last,), stage.floor)
        out = list(stage.output)
        frame = [self.last + j for j in out] + [*range(self.last + stage.kept)]
        level = torch.cat([levels[-1, out], floor, levels[0, : stage.kept]])
        number = torch.tensor(frame, dtype=torch.long, device=prior.device)
        index = (number[:, None] * d + torch.arange(d, device=prior.device)).flatten()
        on, noise = self.maps
        clean = (on @ prior @ on.mT + noise)[:, index[:, None], index]
        joint = noisy_covariance(clean, level, torch.minimum(level[:, None], level), number[:, None] == number)
        see = alpha(level).repeat_interleave(d)[:, None] * on[:, index]
        n, size = len(out) * d, len(frame) * d
        gain, left = condition(joint, range(n), range(n, size))
        told = whiten(cholesky(joint[:, n:, n:], "covariance of the input and the frames in reach"), see[:, n:])
        aim = whiten(cholesky(left, "covariance of the output"), see[:, :n] - gain @ see[:, n:])
        learnt = prior - posterior
        eye = torch.eye(len(learnt[0, 0])).to(learnt)
        weight = torch.linalg.solve(eye - learnt @ (told.mT @ told), learnt)
        return -0.5 * _log_det_less(aim.mT @ aim @ weight)

    def older_steps(self, locals_: list[_Local], count: int, clean: bool) -> Tensor:
        """The same for AR step ``begin``, ..., (n, modes), n ≤ ``count``: then the last one stays."""
        edges, most = self.edges(count), len(locals_)
        parts = []
        for i, local in enumerate(locals_):
            own = edges[i : i + 1] if i < len(edges) else edges[-1:]
            if i == most - 1:
                own = edges[min(i, len(edges) - 1) :]
            parts.append(self.older(self.prior(local, clean), own))
        return torch.cat(parts)

    # -- what the sampler hands on ---------------------------------------------------------------------

    def move(self, kernel: Kernel) -> _Move:
        """An AR step as an affine map of (first frames, frames in reach, noisy window)."""
        d, stage = self.video.frame_dim, self.stage
        clean, kept = (self.first + self.last) * d, stage.kept * d
        levels = stage.reference_levels.to(kernel.bias.device)
        a, v = (part.repeat_interleave(d) for part in transition(levels, torch.full_like(levels, stage.floor)))
        index = torch.tensor([r.frame * d + i for r in stage.references for i in range(d)], dtype=torch.long)
        on = kernel.window.new_zeros(*kernel.window.shape[:2], clean + kept)
        on = on.index_add(2, index.to(on.device), kernel.known * a)
        on = torch.cat([on[:, :, :clean], kernel.window[:, :, :kept]], -1)
        fresh = kernel.window[:, :, kept:]
        noise = fresh @ fresh.mT + (kernel.known * v) @ kernel.known.mT + kernel.covariance
        return _Move(on, kernel.bias, (noise + noise.mT) / 2)


@dataclass(frozen=True, eq=False)
class _Move:
    """The window after an AR step: T h + φ + N(0, N), h what the step before handed on."""

    on: Tensor
    bias: Tensor
    noise: Tensor


def _log_det_less(matrix: Tensor) -> Tensor:
    """log det(I - E) for a product E of two covariances, also where it is tiny."""
    squared = matrix @ matrix
    cubed = squared @ matrix

    def trace(of: Tensor) -> Tensor:
        return torch.diagonal(of, dim1=-2, dim2=-1).sum(-1)

    near = -(trace(matrix) + trace(squared) / 2 + trace(cubed) / 3 + trace(squared @ squared) / 4)
    small = trace(matrix.detach()).abs() < _SMALL
    eye = torch.eye(matrix.shape[-1]).to(matrix)
    far = torch.linalg.slogdet(eye - torch.where(small[..., None, None], torch.zeros_like(matrix), matrix))[1]
    return torch.where(small, near, far)


# -- KL of what comes out ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Seen:
    """One AR step of the sampler's filter on true frames; ζ = (state z, frames held, E_q of the noisy window).

    Attributes:
        predicted: Cov_q(x | frames before), x the clip.
        own: Cov_q(noisy window | frames so far), after the step.
        miss: x - E_q[x | frames before] = miss ζ + shift + the noise of x.
        shift: likewise.
        map: ζ from step to step.
    """

    predicted: Tensor
    own: Tensor
    miss: Tensor
    shift: Tensor
    map: Affine


@dataclass(frozen=True, eq=False)
class _Rollout:
    """The sampler's terms of AR step ``begin``, ..., (n, modes) each: beyond n they stay.

    Attributes:
        increments: E KL(P(x_k | x_<k) ‖ Q(x_k | x_<k)).
        clips, clips_w2: KL and squared W_2 of the clip.
        rounding: of the increments.
    """

    increments: Tensor
    clips: Tensor
    clips_w2: Tensor
    rounding: Tensor


class _Sampler:
    """What the sampler hands on, its filter on true frames, and the video's own, from AR step ``begin`` on.

    Args:
        pattern: the plan on the video.
        law: the sampler's law of all clean frames and the noisy window before that AR step.
    """

    def __init__(self, pattern: _Pattern, law: SamplerLaw) -> None:
        plan, d, out = pattern.plan, pattern.video.frame_dim, pattern.edge + pattern.last
        f, m, self.modes = pattern.first, pattern.last, len(law.mean)
        self.pattern, self.form = pattern, pattern.form.at_level(plan.floor)
        self.hidden, self.clean, self.clip = pattern.stage.kept * d, (f + m) * d, plan.stride * d
        self.block, self.offset = self.form.block(plan.stride), self.form.mean.repeat(1, plan.stride)
        total, s = out * d, self.form.states
        read = [i * d + j for i in [*range(f), *range(out - m, out)] for j in range(d)]
        index = torch.tensor([*read, *range(total, total + self.hidden)], dtype=torch.long, device=law.mean.device)
        self.handed = law.mean[:, index], law.covariance[:, index[:, None], index]
        gain, self.own = condition(law.covariance, range(total, total + self.hidden), range(total))

        # (states, frames) of the true video so far, and from them ζ.
        path, path_noise = self.form.path(out - 1)
        see, states = repeated(self.form.observation, out), path @ self.form.covariance @ path.mT + path_noise
        with_frames = torch.cat([torch.eye(s * out).to(see).expand(self.modes, -1, -1), see], -2)
        joint = with_frames @ states @ with_frames.mT
        joint[:, s * out :, s * out :] += repeated(self.form.observation_noise, out)
        state_mean = path @ self.form.start.unsqueeze(-1)
        frame_mean = (see @ state_mean).squeeze(-1) + self.form.mean.repeat(1, out)
        at = see.new_zeros(self.modes, s + self.clean + self.hidden, s * out + total)
        at[:, range(s), range(s * (out - 1), s * out)] = 1.0
        at[:, range(s, s + self.clean), [s * out + i for i in read]] = 1.0
        at[:, s + self.clean :, s * out :] = gain
        centre = law.mean[:, total:] + (gain @ (frame_mean - law.mean[:, :total]).unsqueeze(-1)).squeeze(-1)
        self.zeta = torch.cat([state_mean[:, -s:, 0], frame_mean[:, read], centre], -1), at @ joint @ at.mT

    def held(self, frames: int) -> list[int]:
        """Entries to be handed on, of so many local frames: the first f, and all but the Δ behind them."""
        d, f = self.pattern.video.frame_dim, self.pattern.first
        chosen = [*range(f), *range(f + self.pattern.plan.stride, frames)]
        return [i * d + j for i in chosen for j in range(d)]

    def seen(self, move: _Move, own: Tensor) -> _Seen:
        """One AR step of the sampler's filter, from Cov_q(noisy window | frames so far)."""
        predicted, gain, own = FilterStep(move.on[:, :, self.clean :], move.noise, self.clip).update(own)
        s, x, clean, hidden = self.form.states, self.clip, self.clean, self.hidden
        frame, state = self.block.on[:, :x], self.block.on[:, x:]
        keep = self.held(self.pattern.first + self.pattern.last + self.pattern.plan.stride)
        kept = torch.eye(clean + x).to(gain)[keep].expand(self.modes, -1, -1)
        carry, append = kept[:, :, :clean], kept[:, :, clean:]

        def zeros(rows: int, columns: int) -> Tensor:
            return gain.new_zeros(self.modes, rows, columns)

        def rows(*blocks: tuple[Tensor, ...]) -> Tensor:
            return torch.cat([torch.cat(block, -1) for block in blocks], -2)

        miss = torch.cat([frame, -move.on[:, :x]], -1)
        on = rows((state, zeros(s, clean + hidden)), (append @ frame, carry, zeros(clean, hidden)),
                  (zeros(hidden, s), move.on[:, x:]))  # fmt: skip
        on = torch.cat([on[:, : s + clean], on[:, s + clean :] + gain @ miss], -2)
        eye = torch.eye(s).to(gain).expand(self.modes, -1, -1)
        into = rows((zeros(s, x), eye), (append, zeros(clean, s)), (gain, zeros(hidden, s)))
        shift = self.offset - move.bias[:, :x]
        constant = torch.cat(
            [zeros(s, 1), append @ self.offset.unsqueeze(-1), move.bias[:, x:, None] + gain @ shift.unsqueeze(-1)],
            -2,
        )
        return _Seen(
            predicted, own, miss, shift, Affine(on, constant.squeeze(-1), into @ self.block.noise @ into.mT)
        )

    def expected(self, step: _Seen, zeta: tuple[Tensor, Tensor]) -> Tensor:
        """E (x - E_q x)(x - E_q x)ᵀ over true frames."""
        off = (step.miss @ zeta[0].unsqueeze(-1)).squeeze(-1) + step.shift
        noise = self.block.noise[:, : self.clip, : self.clip]
        return step.miss @ zeta[1] @ step.miss.mT + noise + off[..., :, None] * off[..., None, :]

    def increment(self, posterior: Tensor, predicted: Tensor, expected: Tensor) -> tuple[Tensor, Tensor]:
        """E KL(P(x | frames before) ‖ Q(x | frames before)) and its rounding, from Cov(z | frames before)."""
        frame = self.block.on[:, : self.clip]
        true = frame @ posterior @ frame.mT + self.block.noise[:, : self.clip, : self.clip]
        zero = torch.zeros_like(true[..., 0])
        excess = torch.cholesky_solve(
            expected - true, cholesky(predicted, "covariance of the sampler's next clip")
        )
        value = kl_divergence(zero, true, zero, predicted) + torch.diagonal(excess, dim1=-2, dim2=-1).sum(-1) / 2
        return value, kl_rounding((zero, expected), (zero, predicted))

    def handing(self, move: _Move) -> Affine:
        """From what is handed on to the clip and what is handed on next."""
        eye = torch.eye(self.clean, self.clean + self.hidden).to(move.on).expand(self.modes, -1, -1)
        chosen = [*range(self.clean, self.clean + self.clip)]
        chosen += self.held(self.pattern.first + self.pattern.frames)
        noise = move.noise.new_zeros(self.modes, *(self.clean + move.noise.shape[-1],) * 2)
        noise[:, self.clean :, self.clean :] = move.noise
        bias = torch.cat([move.bias.new_zeros(self.modes, self.clean), move.bias], -1)
        on = torch.cat([eye, move.on], -2)
        at = torch.tensor(chosen, dtype=torch.long, device=move.on.device)
        return Affine(on[:, at], bias[:, at], noise[:, at[:, None], at])

    def true_clip(self, local: _Local) -> tuple[Tensor, Tensor]:
        """The true law of the clip that an AR step puts out."""
        start, stride = self.pattern.first + self.pattern.last, self.pattern.plan.stride
        floor = self.zeta[0].new_tensor(self.pattern.plan.floor)
        moments = local.video.joint_moments(start + stride)
        return clean_law(moments, self.pattern.video.frame_dim, 0, range(start, start + stride), floor)

    def settles(self, move: _Move) -> tuple[Tensor, int] | None:
        """Cov_q(noisy window | all frames) if every step is ``move``, and how long it and ζ remember.

        None if they never forget.
        """
        try:
            found = FilterStep(move.on[:, :, self.clean :], move.noise, self.clip).riccati().limit(self.own)
        except NotPositiveDefiniteError:  # a sampler without noise
            return None
        if found is None:
            return None
        driven = self.form.states + self.pattern.first * self.pattern.video.frame_dim
        steps = steps_to_forget(self.seen(move, found[0]).map.on[:, driven:, driven:])
        return None if steps is None else (found[0], found[1] + steps)

    def hands_on(self, move: _Move) -> int | None:
        """How many AR steps what it hands on remembers; None if it never forgets."""
        first = self.pattern.first * self.pattern.video.frame_dim
        return steps_to_forget(self.handing(move).on[:, self.clip + first :, first:])

    def rolled(self, locals_: list[_Local], kernels: list[Kernel], count: int) -> _Rollout:
        """The terms of ``count`` AR steps."""
        moves = [self.pattern.move(kernel) for kernel in kernels]
        handing = [self.handing(move) for move in moves]
        with torch.no_grad():
            settles, forgets = self.settles(moves[-1]), self.hands_on(moves[-1])
        need = count if settles is None else min(count, len(moves) + settles[1])
        clips_need = count if forgets is None else min(count, len(moves) + forgets)
        zeta, own, handed = self.zeta, self.own, self.handed
        steps: list[tuple[Tensor, Tensor]] = []
        made: list[tuple[Tensor, Tensor]] = []
        for k in range(max(need, clips_need)):
            which = min(k, len(moves) - 1)
            if k < need:
                step = self.seen(moves[which], own)
                steps.append((step.predicted, self.expected(step, zeta)))
                own, zeta = step.own, step.map(*zeta)
            if k < clips_need:
                mean, covariance = handing[which](*handed)
                x = self.clip
                made.append((mean[:, :x], covariance[:, :x, :x]))
                handed = mean[:, x:], covariance[:, x:, x:]
        predicted, expected = (torch.stack(each) for each in zip(*steps, strict=True))
        out = self.pattern.edge + self.pattern.last
        posterior = self.block.riccati().sequence(self.form.filtered(out), count)
        most = max(len(posterior), len(predicted))
        parts = []
        for start in range(0, most, _BATCH):
            at = torch.arange(start, min(start + _BATCH, most), device=predicted.device)
            own_at = at.clamp(max=len(predicted) - 1)
            parts.append(
                self.increment(posterior[at.clamp(max=len(posterior) - 1)], predicted[own_at], expected[own_at])
            )
        increments, rounding = (torch.cat(each) for each in zip(*parts, strict=True))
        true = [self.true_clip(local) for local in locals_]
        true = (true + [true[-1]] * len(made))[: len(made)]
        pairs = [torch.stack(each) for both in (true, made) for each in zip(*both, strict=True)]
        clips, apart = (
            torch.cat([of(*(each[k : k + _BATCH] for each in pairs)) for k in range(0, len(made), _BATCH)])
            for of in (kl_divergence, wasserstein2)
        )
        return _Rollout(increments, clips, apart, rounding)

    def settled(self, local: _Local, kernel: Kernel) -> tuple[Tensor, Tensor | None]:
        """The increment and the clip's KL at the infinite horizon, (modes,); None of a clip that never settles.

        Raises:
            ValueError: if what the sampler's filter says of the noisy window never settles.
        """
        move = self.pattern.move(kernel)
        settles, forgets = self.settles(move), self.hands_on(move)
        found = self.block.riccati().limit(self.form.covariance)
        fades = steps_to_forget(self.form.transition) if self.pattern.first else 1
        if settles is None or found is None or fades is None:
            raise ValueError("there is no rate: the increments of the KL never settle")
        # One step back from the limit, so that the limit itself carries the gradient.
        step = self.seen(move, settles[0])
        zeta = step.map.over(settles[1] + fades)(*self.zeta)
        increment, _ = self.increment(found[0], step.predicted, self.expected(step, zeta))
        if forgets is None:
            return increment, None
        handing = self.handing(move)
        x = self.clip
        on = Affine(handing.on[:, x:], handing.constant[:, x:], handing.noise[:, x:, x:])
        mean, covariance = handing(*on.over(forgets)(*self.handed))
        return increment, kl_divergence(*self.true_clip(local), mean[:, :x], covariance[:, :x, :x])


# -- the ledger ----------------------------------------------------------------------------------------------


def recursive_form(video: VideoLaw, plan: Plan) -> StateSpace | str:
    """The state space on which the ledger of the plan is a recursion, or why there is none."""
    form = video.state_space_form()
    if form is None:
        return f"the video {video.name!r} is not known to be a linear state space"
    if plan.references.reach is None:
        return "'every' and 'all' refer to ever more frames"
    try:
        form.at_level(plan.floor).block(plan.stride).riccati()
    except NotPositiveDefiniteError:
        return f"the state of the video {video.name!r} determines the next frame"
    return form


@dataclass(frozen=True, eq=False)
class _Steps:
    """All stages of a plan on a state space: those before the pattern, and the local ones."""

    pattern: _Pattern
    before: list[GaussianStage]
    locals_: list[_Local]
    stages: list[GaussianStage]
    scores: list[Any]

    @classmethod
    def of(
        cls,
        video: GaussianVideo,
        form: StateSpace,
        plan: Plan,
        count: int,
        score: Any,
        grids: tuple[Tensor | None, Tensor | None],
    ) -> _Steps | str:
        """The stages, or why there are none."""
        pattern = _Pattern(video, form, plan, grids[0])
        given = [grids[1]] + [grids[0]] * (pattern.begin - 1)
        before = [video.at(plan.stage(k, grid)) for k, grid in enumerate(given)]
        no_law = "the score is not affine in (window, references): its rollout has no closed-form law"
        if any(stage.affine_map(score) is None for stage in before):
            return no_law
        locals_, stages, scores = [], [], []
        for later, local in zip(range(count), pattern.laws(), strict=False):
            locals_.append(local)
            stages.append(local.video.at(pattern.stage))
            scores.append(pattern.score(score, later))
            if stages[-1].affine_map(scores[-1]) is None:
                return no_law
        found = cls(pattern, before, locals_, stages, scores)
        return found if found._moves_along(score, count) else "the score is not the same at every AR step"

    def _moves_along(self, score: Any, count: int) -> bool:
        """Whether a callable has the last stage's map in later AR steps too, as far as some of them tell."""
        last, begin = self.stages[-1], len(self.stages) - 1
        own = last.affine_map(self.scores[-1])
        assert own is not None
        if hasattr(score, "affine"):
            return True
        with torch.no_grad():
            for later in [begin + n for n in _LATER if begin + n < count]:
                other = last.affine_map(self.pattern.score(score, later))
                if other is None:
                    return False
                for mine, theirs in ((own.window, other.window), (own.known, other.known), (own.bias, other.bias)):
                    if mine.numel() and not _near(mine, theirs):
                        return False
        last.affine_map(self.scores[-1])
        return True

    def errors(self, **asked: Any) -> tuple[list[StageErrors], list[StageErrors]]:
        """The errors of the stages before the pattern, and of the local ones."""
        score = asked.pop("score")
        before = stage_errors(list(self.before), score=score, **asked)
        local = [
            stage_errors([stage], score=own, **asked)[0]
            for stage, own in zip(self.stages, self.scores, strict=True)
        ]
        return before, local

    def sampler(self, score: Any, step: ReverseStep, entry: Tensor | None) -> tuple[_Sampler, list[Kernel]]:
        """The sampler before the pattern, and its kernels in it."""
        plan = self.pattern.plan

        def kernel(law: GaussianStage, own: Any) -> Kernel:
            found = law.kernel(own, step)
            assert found is not None
            return found

        law = SamplerLaw.initial(plan, kernel(self.before[0], score), self.pattern.video.frame_dim, levels=entry)
        for stage in self.before[1:]:
            law = law.advance(plan, stage.stage, kernel(stage, score))
        kernels = [kernel(stage, own) for stage, own in zip(self.stages, self.scores, strict=True)]
        return _Sampler(self.pattern, law), kernels


def _near(first: Tensor, second: Tensor) -> bool:
    return float((first - second).abs().max()) <= _SAME_MAP * float(first.abs().max())


def _unbound(score: Any, video: Any) -> Any:
    """The exact or perturbed score of this very video, as one of whatever law it is asked about."""
    if isinstance(score, PerturbedScore):
        return dataclasses.replace(score, base=_unbound(score.base, video))
    if isinstance(score, ExactScore) and score.video is video:
        return dataclasses.replace(score, video=None)
    return score


def recursive_terms(
    video: Any,
    plan: Plan,
    ar_steps: int,
    *,
    score: Any = None,
    step: str | ReverseStep = "exponential",
    against: ExactScore = FULL_VIEW,
    bounds: tuple[bool, bool] = (False, False),
    memory: bool = True,
    attribution: bool = False,
    ar_grid: Tensor | None = None,
    init_grid: Tensor | None = None,
) -> RecursiveTerms | str:
    """The terms of the ledger in linear time, or in words why there is no recursion.

    Arguments as :func:`arvdm_theory.decomposition.terms.ledger_terms`, but for

    Args:
        bounds: whether the Girsanov form and the closed bound are computed.
        ar_steps: K, at least ``plan.repeats_from``.
    """
    form = recursive_form(video, plan)
    if isinstance(form, str):
        return form
    own, chosen = _unbound(as_score(score), video), reverse_step(step)
    begin = plan.repeats_from
    if begin is None or ar_steps < begin:
        return f"its references are filled from AR step {begin} on"
    count = ar_steps - begin + 1
    steps = _Steps.of(video, form, plan, count, own, (ar_grid, init_grid))
    if isinstance(steps, str):
        return steps
    pattern = steps.pattern
    before, local = steps.errors(
        truths=list(video.true_videos(plan, ar_steps, 2, torch.Generator())),
        score=own, step=chosen, against=against, memory=memory, teacher_forced=False, bounds=bounds,
    )  # fmt: skip
    entry = None if ar_grid is None else ar_grid[0]
    found = closed_rollout(video, plan, list(steps.before), own, chosen, entry, attribution)
    sampler, kernels = steps.sampler(own, chosen, entry)
    rolled = sampler.rolled(steps.locals_, kernels, count)
    over = steps.stages[0].over_modes
    increments = over(rolled.increments)
    more = _lasting(increments, count)
    found["kl"] = found["kl"] + more.sum()
    found["rounding"] += float(_lasting(over(rolled.rounding), count).detach().sum())
    errors = [stage.ar_step_error(kernel) for stage, kernel in zip(steps.stages, kernels, strict=True)]
    later = {
        "clips": over(rolled.clips), "clips_w2": torch.sqrt(over(rolled.clips_w2)),
        "ar_step_errors": torch.cat(errors),
    }  # fmt: skip
    if attribution:
        parts = [_attributed(stage, chosen, each) for stage, each in zip(steps.stages, errors, strict=True)]
        later["attribution"] = torch.cat(parts)
    for name, values in later.items():
        found[name] = Number.exact(torch.cat([found[name].samples[0], _lasting(values, count)]))
    del found["kl_w2"]
    series: dict[str, Number] = {}
    shared = SharedSteps((*before[1:], *local), series, ar_steps)
    for name in ("mb", "mb_clean"):
        base = shared.of(name) if memory else None
        if base is not None:
            older = over(pattern.older_steps(steps.locals_, count, name == "mb_clean"))
            early = older.new_zeros(begin - 1)
            series[name] = base + torch.cat([early, _lasting(older, count)])
    return RecursiveTerms(before[0], shared, **found)


def _lasting(values: Tensor, count: int) -> Tensor:
    """The first ``count`` values of a series whose last one stays."""
    if len(values) >= count:
        return values[:count]
    return torch.cat([values, values[-1:].expand(count - len(values), *values.shape[1:])])


def long_terms(
    video: Any,
    plan: Plan,
    ar_steps: int,
    *,
    score: Any,
    step: ReverseStep,
    against: ExactScore,
    girsanov: bool | None,
    closed: bool | None,
    memory: bool,
    attribution: bool,
    ar_grid: Tensor | None,
    init_grid: Tensor | None,
) -> RecursiveTerms | None:
    """The terms by recursions, if there are any and the AR steps are so many that they pay; else None.

    Raises:
        ValueError: if there is no recursion, and the frames are more than a joint covariance can hold.
    """
    begin, most = plan.repeats_from, dense_steps(video, plan)
    why: str | None = None
    if begin is not None and ar_steps >= begin + _PAYS:
        bounds = _bounds(video.at(plan.stage(0, init_grid)), step, girsanov, closed)
        found = recursive_terms(
            video, plan, ar_steps, score=score, step=step, against=against, bounds=bounds, memory=memory,
            attribution=attribution, ar_grid=ar_grid, init_grid=init_grid,
        )  # fmt: skip
        if not isinstance(found, str):
            return found
        why = found
    if most is not None and ar_steps > most:
        form = recursive_form(video, plan)
        why = why or (form if isinstance(form, str) else "its AR steps are too few to have a pattern")
        raise ValueError(
            f"{ar_steps} AR steps of the plan {plan.name!r} need the joint covariance of "
            f"{plan.total_frames(ar_steps)} frames at once ({why}): that goes up to {most} AR steps"
        )
    return None


# -- rates ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rates:
    """What a frame more costs at the infinite horizon: each term of the ledger in nats a frame.

    Attributes:
        nie, de, see, cross: of the AR steps, summed over reverse steps.
        mb: of the memory bottleneck; ``floor`` with clean references (w = Δ), what no sampler of the plan beats.
        kl: of the KL of all clean frames; ``ar_step`` of the errors E_k of whole AR steps; ``trajectory`` of the
            ledger's sum.
        girsanov, closed: of the upper bounds; None where not defined.
        clip: the KL of one clip in the end, in nats; None where the sampler's loop does not contract.
        errors: of one AR step, as the ledger has them.
    """

    nie: Tensor
    de: Tensor
    see: Tensor
    cross: Tensor
    mb: Tensor
    floor: Tensor | None
    kl: Tensor
    ar_step: Tensor
    trajectory: Tensor
    girsanov: Tensor | None
    closed: Tensor | None
    clip: Tensor | None
    errors: StageErrors


def rates(
    video: Any,
    plan: Plan,
    score: Any = None,
    step: str | ReverseStep = "exponential",
    *,
    against: ExactScore = FULL_VIEW,
    ar_grid: Tensor | None = None,
    init_grid: Tensor | None = None,
) -> Rates:
    """The ledger's rates in nats a frame as the AR steps go to infinity, differentiable.

    The limits of the laws come from discrete Lyapunov equations (the state; second moments of the sampler's filter
    on true frames) and two Riccati equations (the posterior of the state; that of the sampler's noisy window), all
    solved by doubling.

    Args:
        video: a linear state space whose law tends to a stationary one.
        plan: with references that are the first or the last frames.
        score: affine in (window, references); see :func:`arvdm_theory.decomposition.ledger.ledger`.
        step: the reverse step.
        against: the s* that SEE is measured against.
        ar_grid, init_grid: levels in place of the plan's.

    Raises:
        ValueError: if there is no recursion, no stationary law, or the ledger's increments do not converge
            geometrically: a state on the unit circle that no noise drives is learnt like 1/k.

    Example:
        >>> from arvdm_theory import References, ar1, fifo, rates
        >>> found = rates(ar1(0.9), fifo(4, References.last(2), reverse_steps=10))
        >>> round(float(found.kl), 6), bool(found.mb.abs() < 1e-12)
        (0.037565, True)
    """
    own, chosen = _unbound(as_score(score), video), reverse_step(step)
    require_densities(video, plan)
    form = recursive_form(video, plan)
    if isinstance(form, str):
        raise ValueError(f"rates are for linear state spaces and references of bounded reach: {form}")
    if form.unlearnt():
        raise ValueError(
            f"there is no rate: a state of the video {video.name!r} neither dies out nor is driven by noise, so "
            "the past learns it like 1/k, and MB and KL of AR step k converge no faster than that"
        )
    limit = form.settled()
    if limit is None:
        raise ValueError(f"there is no rate: the law of the video {video.name!r} tends to no stationary one")
    steps = _Steps.of(video, limit, plan, 1, own, (ar_grid, init_grid))
    if isinstance(steps, str):
        raise ValueError(f"there is no rate: {steps}")
    pattern = steps.pattern
    local = pattern.faded(steps.locals_[0])
    law = local.video.at(pattern.stage)
    steps = dataclasses.replace(steps, locals_=[local], stages=[law])
    bounds = _bounds(law, chosen, None, None)
    [errors] = stage_errors(
        [law],
        video.true_videos(plan, 1, 2, torch.Generator()),
        steps.scores[0],
        chosen,
        against,
        True,
        False,
        bounds,
    )
    sampler, kernels = steps.sampler(own, chosen, None if ar_grid is None else ar_grid[0])
    increment, clip = sampler.settled(local, kernels[0])
    posterior = limit.predicted(sampler.block.riccati().limit(limit.covariance)[0])  # type: ignore[index]
    older = {
        name: law.over_modes(pattern.older(pattern.prior(local, name == "mb_clean"), posterior[None]))
        for name in ("mb", "mb_clean")
        if getattr(errors, name) is not None
    }
    errors = dataclasses.replace(errors, **{name: getattr(errors, name) + more for name, more in older.items()})

    def rate(number: Number | None) -> Tensor | None:
        return None if number is None else number.sum().samples[0].sum() / plan.stride

    nie, de, see, cross, mb, floor = (
        rate(getattr(errors, name)) for name in ("nie", "de", "see", "cross", "mb", "mb_clean")
    )
    assert nie is not None
    assert de is not None
    assert see is not None
    assert cross is not None
    assert mb is not None
    upper = [
        None if path is None or start is None else rate(path.sum() + start.sum()) + mb  # type: ignore[operator]
        for path, start in ((errors.girsanov, errors.nie), (errors.closed, errors.nie_closed))
    ]
    return Rates(
        nie, de, see, cross, mb, floor, law.over_modes(increment) / plan.stride,
        law.ar_step_error(kernels[0])[0] / plan.stride, nie + de + see + cross + mb,
        upper[0], upper[1], None if clip is None else law.over_modes(clip), errors,
    )  # fmt: skip
