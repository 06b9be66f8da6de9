r"""Accumulation that saturates: a bound on clip KL that forgets errors as fast as the closed loop does.

*Setting.* S_k is what AR step k hands on: the noisy window, and the *clean* frames that a later step refers to
(fresh noise of references is a part of the kernel), so that the sampler is Markov in it. O_k is the part of
Output_k that is kept in S_k, and for k = K the clip; S_k = carry·S_{k-1} + B O_k. P_k is the true law of O_k given
S_{k-1}, and the sampler's is N(A_k s + b_k, Ω_k); A_S,k = carry + B A_k. With expectations over true data,

    a_k² = E‖μ_P,k(S_{k-1}) - A_k S_{k-1} - b_k‖²_{Ω_k^{-1}},      cov_k = E KL(P_k ‖ N(μ_P,k, Ω_k)),
    A^(1) = A_K,  Ω^(1) = Ω_K,   A^(j+1) = A^(j) A_S,K-j,   Ω^(j+1) = Ω^(j) + A^(j) B Ω_{K-j} (A^(j) B)ᵀ,
    D_k ≤ ‖M^½ A_S,k M^{-½}‖ D_{k-1} + δ_k,   D_0 = W_2 of the true and the sampler's S_0 in the metric M,
    δ_k = W_2 of P_{S_k} and P_{S_{k-1}} Q_k in the metric M.

*Theorem.* KL(X_clip ‖ Y_clip) ≤ min(B_1, ..., B_K, B_∞, C_1, ..., C_K), with

    B_j = Σ_{k=K-j+1}^K cov_k + ½ (√(Σ_{k=K-j+1}^K a_k²) + ‖(Ω^(j))^{-½} A^(j) M^{-½}‖ D_{K-j})²,
    B_∞ = KL(S_0) + Σ_{k≤K} (cov_k + a_k²/2),
    C_j = cov^(j) + ½ (a^(j) + ‖(Ω^(j))^{-½} A^(j) M^{-½}‖ D_{K-j})²,

cov^(j) and a^(j) being those of the clip's true law given S_{K-j} against the last j kernels composed.

*Proof.* Let X be the true chain made Markov (the same one-step joint laws). Couple X_{K-j} optimally with the
sampler's X'_{K-j} and set X'_k = X_k - e_k, e_k = A_S e_{k-1} - B v_k: X' starts in the sampler's law at no cost.
By joint convexity step k costs at most cov_k + ½ E‖μ_P - A X - b + v_k‖²_{Ω_k^{-1}}. Choose v_k linear in e_{K-j},
so that the error of the clip is 0 at K and Σ‖v_k‖²_{Ω_k^{-1}} is least: the least value is ‖A^(j) e_{K-j}‖² in
(Ω^(j))^{-1}. Minkowski over (k, ω) and data processing give B_j; v = 0 from the true start, paying KL(S_0), gives
B_∞. C_j is B_1 of the chain whose last step is the last j ones composed. The recursion of D is the triangle
inequality of W_2, and a linear map A_S stretches W_2 in M by no more than its norm. ∎

If A_S contracts in M, D_k converges and the bound is flat in K: errors are bounded, and do not accumulate. The
metric is free: the best of several candidates is taken (powers of A_S summed at several rates, and the inverse
covariance of the loop's own noise). Any candidate is valid, for each k and j.

Sources: shifted composition, Altschuler and Chewi 2023-25; arXiv 2503.10704 for what it tightens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from arvdm_theory.diffusion.scores import as_score
from arvdm_theory.diffusion.steps import ReverseStep, reverse_step
from arvdm_theory.information.gaussian import cholesky, condition, kl_divergence, wasserstein2, whiten
from arvdm_theory.laws.gaussian import GaussianVideo
from arvdm_theory.laws.gaussian_sampler import SamplerLaw
from arvdm_theory.laws.states import State, frame_indices
from arvdm_theory.noise import transition
from arvdm_theory.plan.plan import Plan

__all__ = ["ClosedLoop", "LoopStep", "closed_loop"]

# How far between the spectral radius and 1 the candidate metrics contract.
_RATES = (0.1, 0.3, 0.6, 0.9)
# A candidate metric with a larger condition number is left out: its norms would be rounding.
_MOST_CONDITION = 1e10


@dataclass(frozen=True)
class LoopStep:
    """One AR step as a kernel from what the step before hands on, S_{k-1}, to an output O; a leading mode axis.

    Attributes:
        gain, bias, noise: A, b and Ω of the sampler.
        true_gain, true_bias, true_noise: of the true conditional law N(G s + g, Σ).
    """

    gain: Tensor
    bias: Tensor
    noise: Tensor
    true_gain: Tensor
    true_bias: Tensor
    true_noise: Tensor

    def errors(self, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
        """cov and a², (modes,), over S ~ N(mean, covariance)."""
        factor = cholesky(self.noise, "noise of what an AR step hands on")
        zero = torch.zeros_like(self.bias)
        spread = kl_divergence(zero, self.true_noise, zero, self.noise)
        slope = self.true_gain - self.gain
        shift = _apply(slope, mean) + self.true_bias - self.bias
        root = torch.cat(
            [slope @ cholesky(covariance, "covariance of what an AR step hands on"), shift[..., None]], -1
        )
        return spread, (whiten(factor, root) ** 2).sum((-2, -1))

    def behind(self, before: LoopStep, carry: Tensor, placed: Tensor) -> LoopStep:
        """The kernel from S_{k-1} that makes the AR step ``before`` first; the true chain is made Markov."""

        def composed(gain: Tensor, bias: Tensor, noise: Tensor, first: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            through = gain @ placed
            return (
                gain @ (carry + placed @ first[0]),
                bias + _apply(through, first[1]),
                noise + through @ first[2] @ through.mT,
            )

        own = composed(self.gain, self.bias, self.noise, (before.gain, before.bias, before.noise))
        true = (before.true_gain, before.true_bias, before.true_noise)
        return LoopStep(*own, *composed(self.true_gain, self.true_bias, self.true_noise, true))


@dataclass(frozen=True)
class ClosedLoop:
    """The sampler fed its own output: how far errors reach, and the bound on clip KL that knows it.

    Attributes:
        bounds: the least bound on the KL of the clip of each AR step, (K,), in nats.
        unshifted: B_∞ of each, (K,).
        lags: j at which the bound is least, for each AR step and its largest mode; 0 stands for B_∞.
        contraction: spectral radius of A_S of the last AR step: the factor by which errors shrink per AR step. NaN
            where that step hands on more frames than it was handed (references that are still being filled).
    """

    bounds: tuple[float, ...]
    unshifted: tuple[float, ...]
    lags: tuple[int, ...]
    contraction: float

    @property
    def half_life(self) -> float:
        """AR steps in which a put-in error falls to a half: infinite where the loop does not contract; or NaN."""
        if self.contraction >= 1 or math.isnan(self.contraction):
            return self.contraction if math.isnan(self.contraction) else math.inf
        return math.log(0.5) / math.log(self.contraction) if self.contraction > 0 else 0.0


def closed_loop(
    video: GaussianVideo,
    plan: Plan,
    ar_steps: int,
    *,
    score: Any = None,
    step: str | ReverseStep = "exponential",
    last_only: bool = False,
) -> ClosedLoop:
    """The saturating bound on the clip KL of AR steps 1..K = ``ar_steps``, and the loop's contraction.

    Args:
        video: the Gaussian video, without actions.
        plan: any plan.
        ar_steps: K.
        score: affine in (window, references).
        step: the reverse step; it must leave noise in everything that is handed on.
        last_only: only the bound of step K, which costs K steps in place of K².

    Raises:
        ValueError: for a score that is not affine, or a video with actions.
        NotPositiveDefiniteError: where the sampler leaves no noise in what it hands on (DDIM with w > Δ).

    Example:
        >>> from arvdm_theory import References, ar1, ledger, outpainting
        >>> video, plan = ar1(0.8), outpainting(2, References.last(1), 20, 20, 6.0)
        >>> loop = closed_loop(video, plan, 12, last_only=True)
        >>> round(ledger(video, plan, 12, girsanov=False).column("CLIP_KL")[-1], 3), round(loop.bounds[-1], 2)
        (0.14, 0.14)
    """
    if video.action_dim:
        raise ValueError("the bound is for videos without actions")
    plan.require_fresh("the saturating bound")
    own, chosen = as_score(score, video), reverse_step(step)
    video.require(plan.total_frames(ar_steps))
    held = _held(plan, ar_steps)
    steps, clips, carries = [], [], []
    start: SamplerLaw | None = None
    for k in range(ar_steps + 1):
        law = video.at(plan.stage(k))
        kernel = law.kernel(own, chosen)
        if kernel is None:
            raise ValueError("the bound needs a score that is affine in (window, references)")
        if start is None:
            start = SamplerLaw.initial(plan, kernel, video.frame_dim)
            continue
        before, after = held[k - 1], held[k]
        window = [State(frame, law.stage.grid[-1][j]) for j, frame in enumerate(law.stage.frames)]
        # A frame that waits at its level is carried: the step adds no noise to it.
        made = [state for state in after if state in window and state not in before]
        clip = window[: plan.stride]
        parts = _loop_steps(video, plan, law, kernel, before, window, (made, clip))
        steps.append(parts[0])
        clips.append(parts[1])
        carries.append(_carry(before, after, made, video.frame_dim, kernel.bias))
    assert start is not None
    first = [state.frame for state in held[0]]
    index = frame_indices(first, video.frame_dim).to(start.mean.device)
    sampler = start.mean[:, index], start.covariance[:, index[:, None], index]
    nothing = start.mean[:, :0], start.covariance[:, :0, :0]
    true = [video.joint(states) if states else nothing for states in held[:-1]]
    return _bounds(video.multiplicity, steps, clips, carries, true, sampler, last_only)


def _held(plan: Plan, ar_steps: int) -> list[list[State]]:
    """The states of S_0, .., S_K: clean frames that a later step refers to, then the noisy window."""
    wanted: set[int] = set()
    result: list[list[State]] = []
    for k in range(ar_steps, -1, -1):
        # S_k serves steps k + 1, ..; the one behind the last is taken to need what the last one needed, moved on.
        step = k + 1
        wanted |= {r.frame for r in plan.references_at(step)}
        out = plan.frames_out(step)
        clean = [State(frame, plan.floor) for frame in sorted(wanted) if frame < out]
        kept = plan.window - plan.stride
        noisy = [State(frame, plan.input_levels[j]) for j, frame in enumerate(plan.window_frames(step)[:kept])]
        result.append([*clean, *noisy])
    return result[::-1]


def _carry(
    before: list[State], after: list[State], made: list[State], dim: int, like: Tensor
) -> tuple[Tensor, Tensor]:
    """carry and B of S_k = carry·S_{k-1} + B O_k."""
    eye = torch.eye(dim, dtype=like.dtype, device=like.device)

    def placed(rows: list[State], columns: list[State]) -> Tensor:
        table = torch.tensor(
            [[float(a == b) for b in columns] for a in rows], dtype=like.dtype, device=like.device
        )
        return torch.kron(table.reshape(len(rows), len(columns)), eye)

    older = [state for state in before if state not in made]
    table = placed(after, before) if older else like.new_zeros(len(after) * dim, len(before) * dim)
    if made:
        own = torch.tensor([float(state in made) for state in after], dtype=like.dtype, device=like.device)
        table = table * (1 - own.repeat_interleave(dim))[:, None]
    return table, placed(after, made) if made else like.new_zeros(len(after) * dim, 0)


def _loop_steps(
    video: GaussianVideo,
    plan: Plan,
    law: Any,
    kernel: Any,
    before: list[State],
    window: list[State],
    outputs: Sequence[list[State]],
) -> list[LoopStep]:
    """The kernels from S_{k-1} to parts of the window that AR step k leaves, sampler's and true."""
    d, stage = video.frame_dim, law.stage
    modes, size = kernel.bias.shape
    on_state = kernel.bias.new_zeros(modes, size, len(before) * d)
    levels = stage.reference_levels.to(kernel.bias.device)
    a, v = (part.repeat_interleave(d) for part in transition(levels, torch.full_like(levels, plan.floor)))
    places = {state.frame: i for i, state in enumerate(before)}
    columns = frame_indices([places[frame] for frame in stage.reference_frames], d).to(kernel.bias.device)
    on_state = on_state.index_add(2, columns, kernel.known * a)
    if stage.kept:
        on_state[:, :, (len(before) - stage.kept) * d :] += kernel.window[:, :, : stage.kept * d]
    fresh = kernel.window[:, :, stage.kept * d :]
    noise = kernel.covariance + fresh @ fresh.mT + (kernel.known * v) @ kernel.known.mT
    found = []
    for states in outputs:
        rows = frame_indices([window.index(state) for state in states], d).to(kernel.bias.device)
        mean, covariance = (
            video.joint([*states, *before]) if (states or before) else (kernel.bias[:, :0], noise[:, :0, :0])
        )
        n = len(states) * d
        gain, left = condition(covariance, range(n), range(n, covariance.shape[-1]))
        found.append(
            LoopStep(
                on_state[:, rows],
                kernel.bias[:, rows],
                noise[:, rows[:, None], rows],
                gain,
                mean[:, :n] - _apply(gain, mean[:, n:]),
                left,
            )
        )
    return found


def _bounds(
    multiplicity: Tensor,
    steps: list[LoopStep],
    clips: list[LoopStep],
    carries: list[tuple[Tensor, Tensor]],
    true: list[tuple[Tensor, Tensor]],
    sampler: tuple[Tensor, Tensor],
    last_only: bool,
) -> ClosedLoop:
    loops = [carry + placed @ step.gain for step, (carry, placed) in zip(steps, carries, strict=True)]
    kept = [step.errors(*law) for step, law in zip(steps, true, strict=True)]
    shown = [step.errors(*law) for step, law in zip(clips, true, strict=True)]
    start = multiplicity.new_zeros(len(multiplicity))
    if true[0][0].shape[-1]:
        start = kl_divergence(*true[0], *sampler)
    empty = loops[-1].shape[-1] == 0
    metrics = [] if empty else _metrics(loops[-1], carries[-1][1] @ steps[-1].noise @ carries[-1][1].mT)
    sized = [[_of_size(metric, law[0]) for law in true] for metric in metrics]
    gaps = [_gaps(metric, loops, steps, carries, true, sampler) for metric in sized]
    bounds, unshifted, lags = [], [], []
    last = len(steps)
    for end in range(last if last_only else 1, last + 1):
        spread, square = shown[end - 1]
        flat = start + sum((kept[k][0] + kept[k][1] / 2 for k in range(end - 1)), spread + square / 2)
        best, lag = flat, torch.zeros_like(flat)
        composed, spreads, squares = clips[end - 1], spread, square
        for j in range(1, end + 1):
            k = end - j  # the shift starts at S_k
            if true[k][0].shape[-1] == 0:
                break
            factor = cholesky(composed.noise, "noise of the last AR steps")
            both = ((spreads, squares), composed.errors(*true[k]))
            for metric, gap in zip(sized, gaps, strict=True):
                reach = torch.linalg.matrix_norm(whiten(factor, composed.gain @ metric[k][1]), 2) * gap[k]
                for cov, size in both:
                    value = cov + 0.5 * (torch.sqrt(size) + reach) ** 2
                    lag = torch.where(value < best, torch.full_like(lag, j), lag)
                    best = torch.minimum(best, value)
            if k > 0:
                composed = composed.behind(steps[k - 1], *carries[k - 1])
                spreads, squares = spreads + kept[k - 1][0], squares + kept[k - 1][1]
        bounds.append(float(best @ multiplicity))
        unshifted.append(float(flat @ multiplicity))
        lags.append(int(lag[int((best * multiplicity).argmax())]))
    return ClosedLoop(tuple(bounds), tuple(unshifted), tuple(lags), 0.0 if empty else _radius(loops[-1]))


def _radius(loop: Tensor) -> float:
    """The spectral radius; NaN while references are still being filled, and what is handed on grows."""
    return float(torch.linalg.eigvals(loop).abs().max()) if loop.shape[-1] == loop.shape[-2] else math.nan


def _metrics(loop: Tensor, noise: Tensor) -> list[tuple[Tensor, Tensor]]:
    """(M^½, M^{-½}) of candidate metrics, each (modes, s, s)."""
    modes, size, _ = loop.shape
    eye = torch.eye(size, dtype=loop.dtype, device=loop.device).expand(modes, size, size)
    radius = _radius(loop)
    candidates = [eye]
    if radius < 1:
        for rate in _RATES:
            candidates.append(_summed_powers((loop / (radius + rate * (1 - radius))).mT, eye))
        stationary = _summed_powers(loop, noise)
        inverse, info = torch.linalg.cholesky_ex(stationary)
        if not bool((info != 0).any()):
            candidates.append(torch.cholesky_inverse(inverse))
    found = []
    for metric in candidates:
        values, vectors = torch.linalg.eigh((metric + metric.mT) / 2)
        if not bool((values[..., 0] > values[..., -1] / _MOST_CONDITION).all()):
            continue
        root = values.sqrt().unsqueeze(-2)
        found.append(((vectors * root) @ vectors.mT, (vectors / root) @ vectors.mT))
    return found


def _summed_powers(matrix: Tensor, first: Tensor) -> Tensor:
    """Σ_i Aⁱ F (Aⁱ)ᵀ by doubling."""
    total, power = first, matrix
    for _ in range(60):
        total = total + power @ total @ power.mT
        power = power @ power
        if float(power.abs().max()) < 1e-18:
            break
    return total


def _of_size(metric: tuple[Tensor, Tensor], like: Tensor) -> tuple[Tensor, Tensor]:
    """The metric, or the plain one for an S_k of another size (before all references are there)."""
    if metric[0].shape[-1] == like.shape[-1]:
        return metric
    eye = torch.eye(like.shape[-1], dtype=like.dtype, device=like.device).expand(*like.shape, like.shape[-1])
    return eye, eye


def _gaps(
    metric: list[tuple[Tensor, Tensor]],
    loops: list[Tensor],
    steps: list[LoopStep],
    carries: list[tuple[Tensor, Tensor]],
    true: list[tuple[Tensor, Tensor]],
    sampler: tuple[Tensor, Tensor],
) -> list[Tensor]:
    """D_0, .., D_{K-1} in one metric a state, (modes,) each."""

    def apart(p: tuple[Tensor, Tensor], q: tuple[Tensor, Tensor], root: Tensor) -> Tensor:
        (mean_p, cov_p), (mean_q, cov_q) = p, q
        return torch.sqrt(
            wasserstein2(_apply(root, mean_p), root @ cov_p @ root, _apply(root, mean_q), root @ cov_q @ root)
        )

    if true[0][0].shape[-1] == 0:
        gaps = [true[0][0].new_zeros(len(true[0][0]))]
    else:
        gaps = [apart(true[0], sampler, metric[0][0])]
    for k in range(1, len(true)):
        step, (_, placed), loop = steps[k - 1], carries[k - 1], loops[k - 1]
        mean, covariance = true[k - 1]
        moved = loop @ covariance @ loop.mT + placed @ step.noise @ placed.mT
        pushed = _apply(loop, mean) + _apply(placed.expand(len(mean), -1, -1), step.bias), moved
        norm = torch.linalg.matrix_norm(metric[k][0] @ loop @ metric[k - 1][1], 2) if loop.shape[-1] else 0.0
        gaps.append(norm * gaps[-1] + apart(true[k], pushed, metric[k][0]))
    return gaps


def _apply(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)
