"""The ledger of a linear state space in linear time, and its rates at the infinite horizon.

Where references reach back a bounded number of frames (the last m) or never move (the first f), nothing needs the
joint covariance of all frames. From the AR step at which the references are filled,

- the law of a stage is that of *local* frames: the first f, the m before the window, and the window. It is the same
  at every step of a stationary video without first references, and converges like A^k for others with a stable A;
- MB_k = I(Out; in reach | In) + I(Out; older | In, in reach). Older frames speak of the local ones only through the
  state z at the edge of the reach. With S = Cov(z | first frames as shown), P = Cov(z | all older frames) of the Kalman
  filter and Σ = S - P, K and M = H_Yᵀ Cov(Y)^{-1} H_Y the regression and the information of what is known (H the
  map of the state on frames, laws given the first frames as shown), T = H_X - K H_Y,

      I(Out; older | Y) = -½ log det(I - Tᵀ Cov(X | Y)^{-1} T (I - Σ M)^{-1} Σ);

- what the sampler hands on, (first frames, the m last ones, noisy window), is Gaussian and moves by an affine map;
- KL(clean) grows by E KL(P(x_k | x_<k) ‖ Q(x_k | x_<k)) in AR step k: the sampler is a hidden Markov model whose state
  is what it hands on, so Q(x_k | x_<k) comes from its Kalman filter, run on data from P. Second moments of (video
  state, frames in reach, filter mean) under P move by an affine map.

Every one of these maps forgets geometrically where it contracts; from there on a further AR step costs nothing. A
state on the unit circle without process noise, seen in noise, is learnt like 1/k: it never converges, and costs a
power of two a doubling (:class:`arvdm_theory.laws.state_space.Riccati`).

Sources: arXiv 2503.10704, Theorems 1 and 2; Anderson and Moore 1979, Optimal Filtering, chapters 3, 4 and 6.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, overload

import torch
from torch import Tensor

from arvdm_theory.decomposition.terms import (
    FULL_VIEW,
    LedgerTerms,
    StageErrors,
    _bounds,
    _rollout,
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
    log_det,
    whiten,
)
from arvdm_theory.interfaces import ReferenceBatch
from arvdm_theory.laws.gaussian import GaussianVideo
from arvdm_theory.laws.gaussian_kernel import Kernel, stage_kernel
from arvdm_theory.laws.gaussian_sampler import SamplerLaw, clean_law, kl_rounding
from arvdm_theory.laws.gaussian_stage import GaussianStage
from arvdm_theory.laws.state_space import FilterStep, StateSpace, repeated, steps_to_forget
from arvdm_theory.laws.states import noisy_covariance
from arvdm_theory.noise import alpha, sigma2, transition
from arvdm_theory.number import Number
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.references import Reference
from arvdm_theory.plan.stage import Stage

__all__ = ["Rates", "RecursiveTerms", "SharedSteps", "rates", "recursive_terms", "why_dense"]

# From as many AR steps beyond the beginning of its pattern on a ledger is taken by recursions.
_PAYS = 32
# The most entries of a joint covariance of all frames: half a gigabyte.
_DENSE_ENTRIES = 8192**2
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
        count: K.
    """

    distinct: tuple[StageErrors, ...]
    series: dict[str, Number]
    count: int

    def __len__(self) -> int:
        return self.count

    @overload
    def __getitem__(self, index: int) -> StageErrors: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[StageErrors, ...]: ...
    def __getitem__(self, index: int | slice) -> StageErrors | tuple[StageErrors, ...]:
        if isinstance(index, slice):
            return tuple(self[k] for k in range(*index.indices(self.count)))
        k = range(self.count)[index]
        own = {name: number[k] for name, number in self.series.items()}
        return dataclasses.replace(self.distinct[min(k, len(self.distinct) - 1)], **own)  # type: ignore[arg-type]

    def spread(self, numbers: list[Number]) -> Number:
        """Numbers of the distinct stages, one for every AR step."""
        stacked = Number.stack(numbers)
        which = torch.arange(self.count, device=stacked.samples.device).clamp(max=len(self.distinct) - 1)
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
        """The score as the local stage of AR step ``begin`` + ``later`` calls it: shown the frames' own numbers."""
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
        """The local law of AR step ``begin``, ``begin`` + 1, ...; it ends with the one that all later steps have.

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
        """I(Output; older frames | Input, frames in reach), (n, modes), from S (modes, s, s) and P (n, modes, s, s)."""
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
            parts.append(self.older(self.prior(local, clean), own if i < most - 1 else edges[min(i, len(edges) - 1) :]))
        return torch.cat(parts)

    # -- what the sampler hands on ---------------------------------------------------------------------

    def move(self, kernel: Kernel) -> _Move:
        """An AR step as an affine map of (first frames, frames in reach, noisy window)."""
        d, stage = self.video.frame_dim, self.stage
        clean, kept = (self.first + self.last) * d, stage.kept * d
        levels = stage.reference_levels.to(kernel.bias.device)
        a, v = (
            part.repeat_interleave(d) for part in transition(levels, torch.full_like(levels, stage.floor))
        )
        index = torch.tensor([r.frame * d + i for r in stage.references for i in range(d)], dtype=torch.long)
        on = kernel.window.new_zeros(*kernel.window.shape[:2], clean + kept)
        on = on.index_add(2, index.to(on.device), kernel.known * a)
        on = torch.cat([on[:, :, :clean], kernel.window[:, :, :kept]], -1)
        fresh = kernel.window[:, :, kept:]
        noise = fresh @ fresh.mT + (kernel.known * v) @ kernel.known.mT + kernel.covariance
        return _Move(on, kernel.bias, (noise + noise.mT) / 2)

    def held(self, frames: int) -> Tensor:
        """Where the first frames and, Δ frames on, those in reach (and behind them) stand: entries to be handed on.

        Args:
            frames: how many local frames there are before they are handed on.
        """
        d, f = self.video.frame_dim, self.first
        chosen = [*range(f), *range(f + self.plan.stride, frames)]
        return torch.tensor([i * d + j for i in chosen for j in range(d)], dtype=torch.long)


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
class _Rollout:
    """The sampler's terms of AR step ``begin``, ..., (n, modes) each: beyond n they stay.

    Attributes:
        increments: E KL(P(x_k | x_<k) ‖ Q(x_k | x_<k)).
        clips: KL of the clip; None where nothing settles in the AR steps asked for.
        rounding: of the increments.
        settled: whether the increments are those of all further steps.
        clips_settled: likewise of the clips.
    """

    increments: Tensor
    clips: Tensor
    rounding: Tensor
    settled: bool
    clips_settled: bool


def _rolled(
    pattern: _Pattern, locals_: list[_Local], kernels: list[Kernel], sampler: SamplerLaw, count: int
) -> _Rollout:
    """What the sampler's law and its Kalman filter say, from its law before AR step ``begin``."""
    plan, d, modes = pattern.plan, pattern.video.frame_dim, len(sampler.mean)
    f, m, stride, out = pattern.first, pattern.last, plan.stride, pattern.edge + pattern.last
    form = pattern.form.at_level(plan.floor)
    s, hidden, clean, x = form.states, pattern.stage.kept * d, (f + m) * d, plan.stride * d
    moves = [pattern.move(kernel) for kernel in kernels]

    # What the sampler has handed on before AR step `begin`, and its filter there: all frames so far are seen.
    total = out * d
    index = torch.tensor([i * d + j for i in [*range(f), *range(out - m, out)] for j in range(d)], dtype=torch.long)
    handed = torch.cat([index, torch.arange(total, total + hidden)]).to(sampler.mean.device)
    mean, covariance = sampler.mean[:, handed], sampler.covariance[:, handed[:, None], handed]
    gain, own = condition(sampler.covariance, range(total, total + hidden), range(total))
    path, path_noise = form.path(out - 1)
    see = repeated(form.observation, out)
    states = path @ form.covariance @ path.mT + path_noise
    state_mean = path @ form.start.unsqueeze(-1)
    frame_mean = (see @ state_mean).squeeze(-1) + form.mean.repeat(1, out)
    read = torch.zeros(modes, s + clean + hidden, s * out + total).to(see)
    read[:, :s, s * (out - 1) : s * out] = torch.eye(s).to(see)
    read[:, range(s, s + clean), s * out + index] = 1.0
    read[:, s + clean :, s * out :] = gain
    both = torch.cat([torch.eye(s * out).to(see).expand(modes, -1, -1), see], -2)
    both = both @ states @ both.mT
    own_noise = torch.zeros_like(both)
    own_noise[:, s * out :, s * out :] = repeated(form.observation_noise, out)
    second = read @ (both + own_noise) @ read.mT
    centre = sampler.mean[:, total:] + (gain @ (frame_mean - sampler.mean[:, :total]).unsqueeze(-1)).squeeze(-1)
    first = torch.cat([state_mean.squeeze(-1)[:, -s:], frame_mean[:, index], centre], -1)

    block, offset = form.block(stride), form.mean.repeat(1, stride)
    keep = pattern.held(f + m + stride).to(see.device)
    carry = torch.zeros(clean + x, clean).to(see)
    carry[:clean] = torch.eye(clean).to(see)
    carry, append = carry[keep], torch.eye(clean + x).to(see)[keep][:, clean:]
    on_full = pattern.held(f + m + plan.window).to(see.device)

    def filtered(move: _Move, own: Tensor) -> tuple[Tensor, ...]:
        """One AR step of the sampler's filter on data from P: S_q, Cov after it, and the map of (z, frames, v)."""
        step = FilterStep(move.on[:, :, clean:], move.noise, x)
        predicted, gain, own = step.update(own)
        miss = torch.cat([block.on[:, :x], -move.on[:, :x]], -1)  # x - E_q x on (z, frames, v), but for noise
        later = torch.cat([move.on.new_zeros(modes, hidden, s), move.on[:, x:]], -1) + gain @ miss
        on = torch.cat(
            [
                torch.cat([block.on[:, x:], see.new_zeros(modes, s, clean + hidden)], -1),
                torch.cat(
                    [append @ block.on[:, :x], carry.expand(modes, -1, -1), see.new_zeros(modes, clean, hidden)], -1
                ),
                later,
            ],
            -2,
        )
        into = torch.cat(
            [
                torch.cat([see.new_zeros(modes, s, x), torch.eye(s).to(see).expand(modes, -1, -1)], -1),
                torch.cat([append.expand(modes, -1, -1), see.new_zeros(modes, clean, s)], -1),
                torch.cat([gain, see.new_zeros(modes, hidden, s)], -1),
            ],
            -2,
        )
        shift = offset - move.bias[:, :x]
        constant = torch.cat(
            [
                see.new_zeros(modes, s),
                offset @ append.mT,
                move.bias[:, x:] + (gain @ shift.unsqueeze(-1)).squeeze(-1),
            ],
            -1,
        )
        return predicted, own, miss, shift, on, into, constant

    # How long until nothing is left of the beginning.
    need, clips_need = count, count
    with torch.no_grad():
        last = moves[-1]
        try:
            filter_steps = FilterStep(last.on[:, :, clean:], last.noise, x).riccati()
            forgets = filter_steps.steps()
        except NotPositiveDefiniteError:  # a sampler without noise
            forgets = None
        if forgets is not None:
            limit = filter_steps.sequence(own, forgets + 1)[-1]
            driven = filtered(last, limit)[4][:, s + f * d :, s + f * d :]
            extra = steps_to_forget(driven)
            need = count if extra is None else len(locals_) + forgets + extra
        handing = torch.cat([torch.eye(clean, clean + hidden).to(see).expand(modes, -1, -1), last.on], -2)
        clip_steps = steps_to_forget(handing[:, on_full][:, f * d :, f * d :])
        clips_need = count if clip_steps is None else len(locals_) + clip_steps

    floor = torch.tensor(plan.floor, dtype=see.dtype, device=see.device)
    true_clips = [
        clean_law(each.video.joint_moments(f + m + stride), d, 0, range(f + m, f + m + stride), floor)
        for each in locals_
    ]
    expected, predictions, own_clips = [], [], []
    for k in range(min(count, max(need, clips_need))):
        move = moves[min(k, len(moves) - 1)]
        if k < need:
            predicted, own, miss, shift, on, into, constant = filtered(move, own)
            off = (miss @ first.unsqueeze(-1)).squeeze(-1) + shift
            expected.append(miss @ second @ miss.mT + block.noise[:, :x, :x] + off[:, :, None] * off[:, None])
            predictions.append(predicted)
            first = (on @ first.unsqueeze(-1)).squeeze(-1) + constant
            second = on @ second @ on.mT + into @ block.noise @ into.mT
            second = (second + second.mT) / 2
        if k < clips_need:
            on = torch.cat([torch.eye(clean, clean + hidden).to(see).expand(modes, -1, -1), move.on], -2)
            mean = (on @ mean.unsqueeze(-1)).squeeze(-1)
            mean = torch.cat([mean[:, :clean], mean[:, clean:] + move.bias], -1)
            covariance = on @ covariance @ on.mT
            covariance[:, clean:, clean:] += move.noise
            covariance = (covariance + covariance.mT) / 2
            at = slice(clean, clean + x)
            own_clips.append((mean[:, at], covariance[:, at, at]))
            mean, covariance = mean[:, on_full], covariance[:, on_full[:, None], on_full]

    true_step = block.on[:, :x]
    seen = block.riccati().sequence(form.filtered(out), count)
    wanted, known = torch.stack(expected), torch.stack(predictions)
    most = max(len(seen), len(wanted))
    increments, rounding = [], []
    for start in range(0, most, _BATCH):
        at_ = torch.arange(start, min(start + _BATCH, most), device=see.device)
        true = true_step @ seen[at_.clamp(max=len(seen) - 1)] @ true_step.mT + block.noise[:, :x, :x]
        which = at_.clamp(max=len(wanted) - 1)
        apart = wanted[which] - true
        zero = torch.zeros_like(true[..., 0])
        excess = torch.cholesky_solve(apart, cholesky(known[which], "covariance of the sampler's next clip"))
        spread = torch.diagonal(excess, dim1=-2, dim2=-1).sum(-1)
        increments.append(kl_divergence(zero, true, zero, known[which]) + spread / 2)
        rounding.append(kl_rounding((zero, wanted[which]), (zero, known[which])))
    true_clips = (true_clips + [true_clips[-1]] * len(own_clips))[: len(own_clips)]
    pairs = [torch.stack(each) for both_ in (true_clips, own_clips) for each in zip(*both_, strict=True)]
    clips = [kl_divergence(*(each[k : k + _BATCH] for each in pairs)) for k in range(0, len(own_clips), _BATCH)]
    return _Rollout(
        torch.cat(increments), torch.cat(clips), torch.cat(rounding), need < count, clips_need < count
    )


# -- the ledger ----------------------------------------------------------------------------------------------


def why_dense(video: Any, plan: Plan) -> str | None:
    """None if the ledger of video and plan has a recursion; else why it needs the joint law of all frames."""
    form = video.state_space_form()
    if form is None:
        return f"the video {video.name!r} is not known to be a linear state space"
    if plan.references.reach is None:
        return "'every' and 'all' refer to ever more frames"
    try:
        form.at_level(plan.floor).block(plan.stride).riccati()
    except NotPositiveDefiniteError:
        return f"the state of the video {video.name!r} determines the next frame"
    return None


@dataclass(frozen=True, eq=False)
class _Steps:
    """All stages of a plan on a state space: the initialisation and AR steps before the pattern, and the local ones."""

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

    def rolled(self, score: Any, step: ReverseStep, entry: Tensor | None, count: int) -> _Rollout:
        """The sampler's terms of the AR steps in the pattern."""
        plan, dim = self.pattern.plan, self.pattern.video.frame_dim

        def kernel(law: GaussianStage, own: Any) -> Kernel:
            affine = law.affine_map(own)
            assert affine is not None
            return stage_kernel(law.window, affine, step)

        sampler = SamplerLaw.initial(plan, kernel(self.before[0], score), dim, None, entry)
        for law in self.before[1:]:
            sampler = sampler.advance(plan, law.stage, kernel(law, score))
        kernels = [kernel(law, own) for law, own in zip(self.stages, self.scores, strict=True)]
        return _rolled(self.pattern, self.locals_, kernels, sampler, count)


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
    ar_grid: Tensor | None = None,
    init_grid: Tensor | None = None,
) -> RecursiveTerms | str:
    """The terms of the ledger in linear time, or in words why there is no recursion.

    Arguments as :func:`arvdm_theory.decomposition.terms.ledger_terms`, but for

    Args:
        bounds: whether the Girsanov form and the closed bound are computed.
        ar_steps: K, at least ``plan.repeats_from``.
    """
    if (why := why_dense(video, plan)) is not None:
        return why
    own, chosen = _unbound(as_score(score), video), reverse_step(step)
    begin = plan.repeats_from
    if begin is None or ar_steps < begin:
        return f"its references are filled from AR step {begin} on"
    count = ar_steps - begin + 1
    steps = _Steps.of(video, video.state_space_form(), plan, count, own, (ar_grid, init_grid))
    if isinstance(steps, str):
        return steps
    pattern = steps.pattern
    before, local = steps.errors(
        truths=list(video.true_videos(plan, ar_steps, 2, torch.Generator())),
        score=own, step=chosen, against=against, memory=memory, teacher_forced=False, bounds=bounds,
    )  # fmt: skip
    entry = None if ar_grid is None else ar_grid[0]
    found = _rollout(video, plan, list(steps.before), own, chosen, entry)
    rolled = steps.rolled(own, chosen, entry, count)
    over = steps.stages[0].over_modes
    increments = over(rolled.increments)
    more = _lasting(increments, count)
    found["kl"] = found["kl"] + more.sum()
    found["rounding"] += float(_lasting(over(rolled.rounding), count).detach().sum())
    clips = torch.cat([found["clips"].samples[0], _lasting(over(rolled.clips), count)])
    found["clips"] = Number.exact(clips)
    series: dict[str, Number] = {}
    shared = SharedSteps((*before[1:], *local), series, ar_steps)
    for name in ("mb", "mb_clean"):
        base = shared.of(name) if memory else None
        if base is not None:
            older = over(pattern.older_steps(steps.locals_, count, name == "mb_clean"))
            early = older.new_zeros(begin - 1)
            series[name] = base + torch.cat([early, _lasting(older, count)])
    return RecursiveTerms(before[0], shared, **found)  # type: ignore[arg-type]


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
    ar_grid: Tensor | None,
    init_grid: Tensor | None,
) -> RecursiveTerms | None:
    """The terms by recursions, if there are any and the AR steps are so many that they pay; else None.

    Raises:
        ValueError: if there is no recursion, and the frames are more than a joint covariance can hold.
    """
    begin, most = plan.repeats_from, _dense_steps(video, plan)
    why: str | None = None
    if begin is not None and ar_steps >= begin + _PAYS:
        bounds = _bounds(video.at(plan.stage(0, init_grid)), step, girsanov, closed)
        found = recursive_terms(
            video, plan, ar_steps, score=score, step=step, against=against, bounds=bounds, memory=memory,
            ar_grid=ar_grid, init_grid=init_grid,
        )  # fmt: skip
        if not isinstance(found, str):
            return found
        why = found
    if most is not None and ar_steps > most:
        why = why or why_dense(video, plan)
        raise ValueError(
            f"{ar_steps} AR steps of the plan {plan.name!r} need the joint covariance of "
            f"{plan.total_frames(ar_steps)} frames at once ({why}): that goes up to {most} AR steps"
        )
    return None


def _dense_steps(video: Any, plan: Plan) -> int | None:
    """Up to how many AR steps a Gaussian video's joint covariance can be held; None for another video."""
    if not video.gaussian:
        return None
    rows = int((_DENSE_ENTRIES / video.modes) ** 0.5) // (video.frame_dim + video.action_dim)
    return max(1, (rows - plan.total_frames(1)) // plan.stride + 1)
