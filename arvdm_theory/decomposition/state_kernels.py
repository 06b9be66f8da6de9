"""The decoded rollout as Markov kernels on states: what a sampler that ends AR steps on states amounts to.

An AR step with clean references stops at δ > 0 and samples its frames' states Z from the exact posterior given
(W^δ, R). So only states pass from one AR step to the next, and the sampler is its kernels q(z_out | z_R), with a
row for each value of the references. A row is the mean of exact posteriors over simulated windows,

    q(z | r) = E[ P(Z = z | W^δ, R = r) ],    W^δ from the sampler's reverse steps,

never a count: what can occur has a positive probability. Simulated windows fall into independent groups.

Source: arXiv 2503.10704, Algorithm 1 (Meta-ARVDM), on videos of finitely many states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from arvdm_theory.diffusion.sampler import reverse_stage
from arvdm_theory.diffusion.scores import ExactScore, PerturbedScore, as_score
from arvdm_theory.diffusion.steps import ReverseStep, reverse_step
from arvdm_theory.information.transfer import Chain, TableSizeError, first_frames, push
from arvdm_theory.interfaces import ReferenceBatch
from arvdm_theory.laws.finite import FiniteStateVideo
from arvdm_theory.noise import alpha, sigma2, standard_normal
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.stage import Stage

__all__ = ["MAX_ENTRIES", "StateKernels", "carried_frames", "frames_law", "state_kernels"]

MAX_ENTRIES = 2**16
"""The most entries of a law of states that is ever built: of references and frames out, or of what is carried."""

_GROUPS = 40
_MOST_ENTRIES = 2**22
_STATIONARY = 1e-12


@dataclass(frozen=True, eq=False)
class StateKernels:
    """The decoded rollout as Markov kernels on states, simulated in independent groups.

    Attributes:
        initial: law of the first Δ states, shape (groups, S^Δ).
        steps: q(z_out | z_R) of AR steps 1..K, each (groups, S^r, S^w), the first frame's state varying slowest;
            rows of references that cannot occur are 0.
    """

    initial: Tensor
    steps: tuple[Tensor, ...]


def state_kernels(
    video: FiniteStateVideo,
    plan: Plan,
    ar_steps: int,
    score: Any = None,
    step: str | ReverseStep = "exponential",
    *,
    rollouts: int = 2048,
    seed: int = 0,
) -> StateKernels:
    """Simulates the decoded rollout's kernels on states.

    AR steps whose references stand alike, in front of a law of states that is alike, share their simulation.

    Raises:
        ValueError, TableSizeError: as :func:`decoded_ledger`.
    """
    chain, own, chosen = video.readable_chain(), as_score(score, video, affine=False), reverse_step(step)
    if ar_steps < 1:
        raise ValueError(f"at least one AR step is needed, got {ar_steps}")
    if rollouts < 2 * _GROUPS:
        raise ValueError(
            f"{_GROUPS} groups of at least 2 rollouts are needed for a standard error, got {rollouts} rollouts"
        )
    _require_plan(plan, ar_steps)
    _require_size(chain.states, plan, ar_steps)
    for k in (0, 1):
        video.at(plan.stage(k)).require_kernel(chosen)
    generator = torch.Generator(device=chain.transition.device).manual_seed(seed)
    size = -(-rollouts // _GROUPS)
    initial = _simulate(video, plan.stage(0), own, chosen, size, generator)
    stationary = float((push(chain.initial.reshape(1, -1), chain.transition).reshape_as(chain.initial)
                        - chain.initial).abs().max()) <= _STATIONARY  # fmt: skip
    known: dict[tuple[object, ...], Tensor] = {}
    steps = []
    for k in range(1, ar_steps + 1):
        stage = plan.stage(k)
        offsets = tuple(stage.frames.start - frame for frame in stage.reference_frames)
        alike = stationary or _screened(offsets, chain.order)
        # A callable may read the frames' numbers off its arguments, so its AR steps are never alike.
        alike = alike and isinstance(own, ExactScore | PerturbedScore)
        key = (offsets, None if alike else k)
        if key not in known:
            known[key] = _simulate(video, stage, own, chosen, size, generator)
        steps.append(known[key])
    return StateKernels(initial[:, 0], tuple(steps))


def frames_law(chain: Chain, frames: Sequence[int]) -> Tensor:
    """Joint law of the states of rising ``frames``, shape (S,) * len(frames), exact.

    Raises:
        TableSizeError: if it has more than :data:`MAX_ENTRIES` entries.
    """
    states, order, last = chain.transition.shape[-1], chain.initial.ndim, frames[-1]
    _require_entries(states, len(frames), f"the law of {len(frames)} frames")
    if last < order:
        joint = first_frames(chain, last + 1)
        gone = tuple(frame for frame in range(last + 1) if frame not in frames)
        return joint.sum(gone) if gone else joint
    table, kernel = chain.initial.reshape(1, -1), chain.transition.reshape(states, -1, states)
    for oldest in range(last - order + 1):  # the frame that leaves the tuple of the last p states
        if oldest in frames:
            table = (table.reshape(-1, *kernel.shape[:2], 1) * kernel).reshape(-1, states**order)
        else:
            table = push(table, chain.transition)
    table = table.reshape(-1, *(states,) * order)
    gone = tuple(1 + i for i in range(order) if last - order + 1 + i not in frames)
    table = table.sum(gone) if gone else table
    return table.reshape((states,) * len(frames))


def _require_plan(plan: Plan, ar_steps: int) -> None:
    if plan.overlapping:
        raise ValueError(
            f"the decoded ledger is of plans with w = Δ, got w = {plan.window} and Δ = {plan.stride}: noisy "
            "frames that stay in the window have no states (stop at a floor instead: ledger)"
        )
    for k in range(1, ar_steps + 1):
        noised = next((r for r in plan.references_at(k) if r.level > plan.floor), None)
        if noised is not None:
            raise ValueError(
                f"decoded references are states, but AR step {k} noises frame {noised.frame + 1} to level "
                f"{noised.level}"
            )
    if plan.floor == 0:
        raise ValueError(
            "the last reverse step to level 0 of a noise-free video costs an infinite KL: give the plan a floor "
            "δ > 0, at which states are sampled from their posterior"
        )


def _require_size(states: int, plan: Plan, ar_steps: int) -> None:
    carried = carried_frames(plan, ar_steps)
    for k in range(1, ar_steps + 1):
        held = len(set(carried[k - 1]) | {r.frame for r in plan.references_at(k)})
        _require_entries(
            states, held + plan.window,
            f"AR step {k}: the law of {held} earlier frames that it or later ones refer to and {plan.window} new",
        )  # fmt: skip


def _require_entries(states: int, frames: int, what: str) -> None:
    if states**frames > MAX_ENTRIES:
        raise TableSizeError(f"{what} has {states}^{frames} entries; the most is {MAX_ENTRIES}")


def carried_frames(plan: Plan, ar_steps: int) -> tuple[tuple[int, ...], ...]:
    """The frames that AR step k or a later one refers to, of those out before it, for k = 1..K."""
    wanted: set[int] = set()
    carried = []
    for k in range(ar_steps, 0, -1):
        wanted |= {r.frame for r in plan.references_at(k)}
        wanted = {frame for frame in wanted if frame < plan.frames_out(k)}
        carried.append(tuple(sorted(wanted)))
    return tuple(carried[::-1])


def _screened(offsets: Sequence[int], order: int) -> bool:
    """Whether ``order`` consecutive references hide all that is older from the frames to come."""
    return any(all(first - i in offsets for i in range(order)) for first in offsets)


def _simulate(
    video: FiniteStateVideo,
    stage: Stage,
    score: Any,
    step: ReverseStep,
    rollouts: int,
    generator: torch.Generator,
) -> Tensor:
    """q(z_out | z_R), shape (groups, S^r, S^w), from ``rollouts`` windows a group and value of the references."""
    shown, frames = stage.reference_frames, tuple(stage.frames)
    states, width, chain = video.chain.states, len(frames), video.chain
    joint = frames_law(chain, (*shown, *frames)).reshape(-1, states**width)
    weight = joint.sum(-1)
    possible = weight.nonzero().flatten()
    digits = torch.unravel_index(possible, (states,) * len(shown)) if shown else ()
    values = torch.stack([*digits, possible], -1)[:, :-1]  # the states of the references, row by row
    prior = torch.log(joint[possible] / weight[possible, None])
    rows = torch.arange(_GROUPS * len(possible), device=joint.device).repeat_interleave(rollouts)
    total = joint.new_zeros(_GROUPS * len(possible), joint.shape[-1])
    chunk = max(1, _MOST_ENTRIES // (width * video.frame_dim + states**width))
    for part in torch.split(rows, chunk):
        context = part % len(possible)
        pictures = video.rendering.sample(values[context], generator)
        references = ReferenceBatch.shown(pictures, pictures.new_zeros(len(shown)), shown, frames)

        def noise(count: int, videos: int = len(part)) -> Tensor:
            return standard_normal((videos, 1, count, video.frame_dim), generator).to(joint.device)

        window = reverse_stage(stage, score, step, noise(width), references, noise, batch=len(part))
        total.index_add_(0, part, _decode(video, window[:, 0], stage.grid[-1], prior[context]))
    laws = (total / rollouts).reshape(_GROUPS, len(possible), -1)
    return joint.new_zeros(_GROUPS, *joint.shape).index_copy(1, possible, laws)


def _decode(video: FiniteStateVideo, window: Tensor, levels: Sequence[float], log_prior: Tensor) -> Tensor:
    """P(Z_out | W^δ, R), (batch, S^w), from log p(z_out | z_R) (batch, S^w)."""
    level = torch.tensor(levels, dtype=torch.float64, device=window.device)
    noise = sigma2(level)[:, None, None]
    seen = video.rendering.likelihood(alpha(level)[:, None], noise, window[:, :, None]).relative
    logs = seen.new_zeros(len(window), 1)
    for frame in seen.unbind(1):
        logs = (logs[:, :, None] + frame[:, None]).flatten(1)
    return torch.softmax(log_prior + logs, -1)
