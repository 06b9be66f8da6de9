"""What a memory is worth to a score, video by video: the gap between two scores of which one is told more.

The theory is in :mod:`arvdm_theory.decomposition.immse`: along the clocks of an AR step, half the integral of the gap
E‖s' - s‖² between the scores of two memories R ⊆ R' is what R' tells of the window beyond R.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from arvdm_theory.information.estimators.estimate import SampleError
from arvdm_theory.interfaces import ReferenceBatch, Score
from arvdm_theory.laws.gaussian import standard_normal
from arvdm_theory.noise import alpha, sigma2, transition
from arvdm_theory.plan.plan import Plan, Reference

__all__ = ["ScoreGap", "memory_contributions", "shown_references", "shown_with_past", "stopped_grid"]

Array = NDArray[np.float64]
ScoreGap = Literal["losses", "difference"]


def stopped_grid(grid: Tensor, plan: Plan, stop: float) -> Tensor:
    """Levels of clocks that halt at ``stop``; reverse steps that lie below it are left out.

    Raises:
        SampleError: for a level below 0 or not below T.
    """
    if not 0 <= stop < plan.horizon:
        raise SampleError(f"clocks stop at a level from 0 to below T = {plan.horizon:.4g}, got {stop}")
    above = (grid[:-1] > stop).any(-1)
    return torch.cat([grid[:1], grid[1:][above]]).clamp(min=stop)


def shown_references(plan: Plan, ar_step: int) -> tuple[Reference, ...]:
    """R_k at the levels at which its frames are shown."""
    return tuple(Reference(r.frame, max(r.level, plan.floor)) for r in plan.references_at(ar_step))


def shown_with_past(plan: Plan, ar_step: int, plan_with_past: Plan | None) -> tuple[Reference, ...]:
    """R'_k: the references of a plan with more memory, or else all frames that are out, as they came out.

    Raises:
        SampleError: if that plan has other levels, or does not show every reference at its level or below.
    """
    if plan_with_past is None:
        return tuple(Reference(frame, plan.floor) for frame in range(plan.frames_out(ar_step)))
    own, other = _levels(plan), _levels(plan_with_past)
    for what, value in own.items():
        if other[what] != value:
            raise SampleError(
                f"the plan with more memory must differ in its references alone, but its {what} is {other[what]}, "
                f"not {value}"
            )
    more = shown_references(plan_with_past, ar_step)
    level = {r.frame: r.level for r in more}
    for r in shown_references(plan, ar_step):
        if level.get(r.frame, math.inf) > r.level:
            got = f"at level {level[r.frame]:.4g}" if r.frame in level else "not at all"
            raise SampleError(
                f"the plan with more memory must show all that the other shows: in AR step {ar_step} frame "
                f"{r.frame} at level {r.level:.4g} or below, but it is shown {got}"
            )
    return more


def _levels(plan: Plan) -> dict[str, object]:
    sizes = {
        "window": plan.window,
        "stride": plan.stride,
        "floor": plan.floor,
        "number of steps": plan.reverse_steps,
    }
    return sizes | {f"row of levels after {m} reverse steps": row for m, row in enumerate(plan.ar_grid)}


def memory_contributions(
    videos: Tensor,
    plan: Plan,
    ar_step: int,
    score: Score,
    score_with_past: Score,
    *,
    form: ScoreGap = "losses",
    points: int = 4,
    batch: int = 1024,
    seed: int = 0,
    progress: bool = False,
    actions: Tensor | None = None,
    plan_with_past: Plan | None = None,
    stop: float = 0.0,
) -> tuple[Array, Array]:
    """What each video adds to :func:`arvdm_theory.decomposition.immse.memory_bottleneck_from_scores`.

    Arguments and errors are the same.

    Returns:
        contributions (n,), whose mean is the value in nats, and the part of each that is extrapolated from T to
        pure noise, (n,).
    """
    _check(videos, plan, ar_step, form, points, batch, actions)
    grid = stopped_grid(torch.tensor(plan.ar_grid, dtype=torch.float64), plan, stop)
    known, more = shown_references(plan, ar_step), shown_with_past(plan, ar_step, plan_with_past)
    if known == more:
        raise SampleError(f"AR step {ar_step}: both plans show the same references: the information is 0")
    spots, weights = np.polynomial.legendre.leggauss(points)
    # (levels, what each frame's gap counts there); the first stands for everything beyond T.
    new = torch.arange(plan.window) >= plan.window - plan.stride
    nodes = [(grid[0], new / 2)]
    for high, low in itertools.pairwise(grid):
        nodes += [
            (low + (1 + spot) / 2 * (high - low), weight / 4 * (high - low))
            for spot, weight in zip(spots.tolist(), weights.tolist(), strict=True)
        ]
    generator = torch.Generator().manual_seed(seed)
    contributions, tails = np.zeros(len(videos)), np.zeros(len(videos))
    starts = range(0, len(videos), batch)
    frames = plan.window_frames(ar_step)
    with torch.no_grad(), tqdm(total=len(starts) * len(nodes), disable=not progress or None, leave=False) as bar:
        for start in starts:
            rows = slice(start, start + batch)
            clean = videos[rows].to(torch.float64)
            done = None if actions is None else actions[rows].to(clean)
            references, everything = _references(clean, done, frames, known, more, generator)
            window = clean[:, list(frames)]
            for number, (levels, weight) in enumerate(nodes):
                noise = standard_normal(window.shape, generator).to(window)
                scale = torch.sqrt(sigma2(levels)).to(window)[:, None]
                noisy = alpha(levels).to(window)[:, None] * window + scale * noise
                at = levels.to(window.device)
                without, told = (
                    _scored(each, noisy, at, shown)
                    for each, shown in ((score, references), (score_with_past, everything))
                )
                if form == "difference":
                    gap = (told - without) ** 2
                else:
                    # A frame that stands still counts nothing, and at level 0 it has no target.
                    target = -noise / torch.where(scale > 0, scale, torch.ones_like(scale))
                    gap = (told - without) * (2 * target - told - without)
                value = (gap.sum(-1) @ weight.to(gap)).cpu().numpy()
                contributions[rows] += value
                if number == 0:
                    tails[rows] = value
                bar.update()
    return contributions, tails


def _check(
    videos: Tensor, plan: Plan, ar_step: int, form: str, points: int, batch: int, actions: Tensor | None
) -> None:
    if form not in ("losses", "difference"):
        raise SampleError(f"the form of the gap is 'losses' or 'difference', got {form!r}")
    if points < 1 or batch < 1:
        raise SampleError(f"at least one node and one video a batch are needed, got {points} and {batch}")
    if ar_step < 1 or not plan.past_frames(ar_step):
        raise SampleError(f"AR step {ar_step} of the plan {plan.name!r} has no Past: its memory bottleneck is 0")
    frames = plan.total_frames(ar_step)
    if videos.ndim != 3 or len(videos) < 2 or videos.shape[1] < frames:
        raise SampleError(f"videos must have shape (n ≥ 2, {frames} frames or more, d), got {tuple(videos.shape)}")
    bad = torch.nonzero(~torch.isfinite(videos).flatten(1).all(1))
    if len(bad):
        raise SampleError(
            f"{len(bad)} of {len(videos)} videos have NaN or infinite values, first video {int(bad[0])}"
        )
    if actions is None:
        return
    if actions.ndim != 3 or len(actions) != len(videos) or actions.shape[1] < frames:
        raise SampleError(
            f"actions must have shape ({len(videos)}, {frames} frames or more, a), got {tuple(actions.shape)}"
        )
    if not bool(torch.isfinite(actions).all()):
        raise SampleError("actions must be finite, got NaN or infinite values")


def _references(
    clean: Tensor,
    actions: Tensor | None,
    window: range,
    known: Sequence[Reference],
    more: Sequence[Reference],
    generator: torch.Generator,
) -> tuple[ReferenceBatch, ReferenceBatch]:
    """R_k and R'_k of the videos ``clean``: R_k is R'_k noised further."""

    def of(frames: Sequence[int]) -> Tensor | None:
        return None if actions is None else actions[:, list(frames)]

    def shown(told: Sequence[Reference], states: Tensor, earlier: Tensor) -> ReferenceBatch:
        frames = tuple(r.frame for r in told)
        levels = torch.tensor([r.level for r in told], dtype=torch.float64)
        values = _noised(states, levels, earlier, generator)
        return ReferenceBatch(values, levels.to(clean.device), frames, tuple(window), of(frames), of(window))

    everything = shown(more, clean[:, [r.frame for r in more]], torch.zeros(len(more), dtype=torch.float64))
    place = [everything.frames.index(r.frame) for r in known]
    return shown(known, everything.values[:, place], everything.levels[place].cpu()), everything


def _noised(states: Tensor, levels: Tensor, earlier: Tensor, generator: torch.Generator) -> Tensor:
    """States (batch, r, d) taken from ``earlier`` levels to ``levels``, both (r,)."""
    scale, variance = (part.to(states)[:, None] for part in transition(levels, earlier))
    return scale * states + torch.sqrt(variance) * standard_normal(states.shape, generator).to(states)


def _scored(score: Score, window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
    value = score(window, levels, references)
    if not isinstance(value, Tensor) or value.shape != window.shape:
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise SampleError(f"a score must be a tensor of the window's shape {tuple(window.shape)}, got {got}")
    if not bool(torch.isfinite(value).all()):
        raise SampleError(f"a score is not finite at window levels {[round(t, 4) for t in levels.tolist()]}")
    return value.to(torch.float64)
