"""What a sampler hands on from one AR step to the next, and its Kalman filter on true frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from arvdm_theory.decomposition.recursion.pattern import Local, Pattern
from arvdm_theory.information.gaussian import (
    NotPositiveDefiniteError,
    cholesky,
    condition,
    kl_divergence,
    wasserstein2,
)
from arvdm_theory.laws.gaussian_kernel import Kernel
from arvdm_theory.laws.gaussian_sampler import SamplerLaw, clean_law, kl_rounding
from arvdm_theory.laws.state_space import Affine, FilterStep, repeated, steps_to_forget
from arvdm_theory.noise import transition

__all__ = ["Rollout", "SamplerFilter"]

# As many AR steps, times modes, have their sampler terms evaluated at once.
_BATCH = 16384


@dataclass(frozen=True, eq=False)
class Move:
    """The window after an AR step: T h + φ + N(0, N), h what the step before handed on."""

    on: Tensor
    bias: Tensor
    noise: Tensor

    @classmethod
    def of(cls, pattern: Pattern, kernel: Kernel) -> Move:
        """An AR step as an affine map of (first frames, frames in reach, noisy window)."""
        d, stage = pattern.video.frame_dim, pattern.stage
        clean, kept = (pattern.first + pattern.last) * d, stage.kept * d
        levels = stage.reference_levels.to(kernel.bias.device)
        a, v = (part.repeat_interleave(d) for part in transition(levels, torch.full_like(levels, stage.floor)))
        index = torch.tensor([r.frame * d + i for r in stage.references for i in range(d)], dtype=torch.long)
        on = kernel.window.new_zeros(*kernel.window.shape[:2], clean + kept)
        on = on.index_add(2, index.to(on.device), kernel.known * a)
        on = torch.cat([on[:, :, :clean], kernel.window[:, :, :kept]], -1)
        fresh = kernel.window[:, :, kept:]
        noise = fresh @ fresh.mT + (kernel.known * v) @ kernel.known.mT + kernel.covariance
        return cls(on, kernel.bias, (noise + noise.mT) / 2)


@dataclass(frozen=True, eq=False)
class FilteredStep:
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
class Rollout:
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


class SamplerFilter:
    """What the sampler hands on, its filter on true frames, and the video's own, from AR step ``begin`` on.

    Args:
        pattern: the plan on the video.
        law: the sampler's law of all clean frames and the noisy window before that AR step.
    """

    def __init__(self, pattern: Pattern, law: SamplerLaw) -> None:
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

    def seen(self, move: Move, own: Tensor) -> FilteredStep:
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
        return FilteredStep(
            predicted, own, miss, shift, Affine(on, constant.squeeze(-1), into @ self.block.noise @ into.mT)
        )

    def expected(self, step: FilteredStep, zeta: tuple[Tensor, Tensor]) -> Tensor:
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

    def handing(self, move: Move) -> Affine:
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

    def true_clip(self, local: Local) -> tuple[Tensor, Tensor]:
        """The true law of the clip that an AR step puts out."""
        start, stride = self.pattern.first + self.pattern.last, self.pattern.plan.stride
        floor = self.zeta[0].new_tensor(self.pattern.plan.floor)
        moments = local.video.joint_moments(start + stride)
        return clean_law(moments, self.pattern.video.frame_dim, 0, range(start, start + stride), floor)

    def settles(self, move: Move) -> tuple[Tensor, int] | None:
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

    def hands_on(self, move: Move) -> int | None:
        """How many AR steps what it hands on remembers; None if it never forgets."""
        first = self.pattern.first * self.pattern.video.frame_dim
        return steps_to_forget(self.handing(move).on[:, self.clip + first :, first:])

    def rolled(self, locals_: Sequence[Local], kernels: Sequence[Kernel], count: int) -> Rollout:
        """The terms of ``count`` AR steps."""
        moves = [Move.of(self.pattern, kernel) for kernel in kernels]
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
        most, batch = max(len(posterior), len(predicted)), max(1, _BATCH // self.modes)
        parts = []
        for start in range(0, most, batch):
            at = torch.arange(start, min(start + batch, most), device=predicted.device)
            own_at = at.clamp(max=len(predicted) - 1)
            parts.append(
                self.increment(posterior[at.clamp(max=len(posterior) - 1)], predicted[own_at], expected[own_at])
            )
        increments, rounding = (torch.cat(each) for each in zip(*parts, strict=True))
        true = [self.true_clip(local) for local in locals_]
        true = (true + [true[-1]] * len(made))[: len(made)]
        pairs = [torch.stack(each) for both in (true, made) for each in zip(*both, strict=True)]
        clips, apart = (
            torch.cat([of(*(each[k : k + batch] for each in pairs)) for k in range(0, len(made), batch)])
            for of in (kl_divergence, wasserstein2)
        )
        return Rollout(increments, clips, apart, rounding)

    def settled(self, local: Local, kernel: Kernel) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """The increment, and the clip's KL and squared W_2, at the infinite horizon, (modes,).

        The clip's are None where it never settles.

        Raises:
            ValueError: if what the sampler's filter says of the noisy window never settles.
        """
        move = Move.of(self.pattern, kernel)
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
        pair = (*self.true_clip(local), mean[:, :x], covariance[:, :x, :x])
        return increment, (kl_divergence(*pair), wasserstein2(*pair))
