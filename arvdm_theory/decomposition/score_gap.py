"""What a memory is worth to a score, video by video: the gap between two scores of which one is shown more.

The theory is in :mod:`arvdm_theory.decomposition.immse`: along the clocks of an AR step, half the integral of the
gap E‖s' - s‖² between the scores of two memories R ⊆ R' is what R' tells of the window beyond R.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from arvdm_theory.diffusion.scores import checked_score
from arvdm_theory.information.estimators import SampleError
from arvdm_theory.interfaces import ReferenceBatch
from arvdm_theory.noise import noised, sigma2, standard_normal
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.references import Reference
from arvdm_theory.plan.stage import Stage

__all__ = ["Gap", "ScoreGap", "graded_panels", "score_gap", "shown_with_past", "stopped_grid"]

Array = NDArray[np.float64]
ScoreGap = Literal["losses", "difference"]

# Panels are graded towards level 0 down to this length: below it nothing is known of how predictable frames are.
_FINEST = 2.0**-12


@dataclass(frozen=True)
class Gap:
    """What each video adds to the integral, in nats; the mean over the videos is the value.

    Attributes:
        losses: (n,), by the difference of the two scores' losses.
        difference: (n,), by the squared difference of the scores.
        coarse: (n, 2), both with half the nodes in every panel.
        tails: (n, 2), the parts that are extrapolated from T to pure noise.
        integrand: a row a node: ``level`` (the lowest of the frames that move), ``losses`` and ``difference`` (the
            integrand, summed over frames, in nats a unit of time), each with its ``_stderr``.
    """

    losses: Array
    difference: Array
    coarse: Array
    tails: Array
    integrand: pd.DataFrame


def stopped_grid(grid: Tensor, horizon: float, stop: float) -> Tensor:
    """Levels of clocks that halt at ``stop``; reverse steps that lie below it are left out.

    Raises:
        SampleError: for a level below 0 or not below T.
    """
    if not 0 <= stop < horizon:
        raise SampleError(f"clocks stop at a level from 0 to below T = {horizon:.4g}, got {stop}")
    above = (grid[:-1] > stop).any(-1)
    return torch.cat([grid[:1], grid[1:][above]]).clamp(min=stop)


def graded_panels(longest: float, distance: float, most: int = 50) -> list[float]:
    """Edges in [0, 1], the part of a reverse step that is left, of panels as long as they are far from a pole.

    Panels are at most one unit of time long, and towards the step's end they halve until they are no longer than
    ``distance``, as far beyond the end as which the integrand's first pole lies.

    Args:
        longest: the longest way of a frame's clock in the step.
        distance: from the step's end to the pole, in time.
        most: halvings at the most.
    """
    if longest <= 0:
        return [0.0, 1.0]
    pieces = math.ceil(longest)
    last = longest / pieces
    halvings = most
    if distance > last * 2.0**-most:
        halvings = max(0, math.ceil(math.log2(last / distance)))
    return [0.0, *(2.0**-k / pieces for k in range(halvings, 0, -1)), *((k + 1) / pieces for k in range(pieces))]


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
    more = plan_with_past.stage(ar_step).references
    level = {r.frame: r.level for r in more}
    for r in plan.stage(ar_step).references:
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


@dataclass(frozen=True)
class _Node:
    """One place along the clocks: levels (w,), what each frame's gap counts there, and in the coarse rule."""

    panel: int
    levels: Tensor
    weight: Tensor
    coarse: Tensor
    speed: Tensor  # of the frames' clocks, whose integrand the table shows


def _nodes(stage: Stage, stop: float, points: int) -> list[_Node]:
    """The nodes of all panels; the first stands for everything beyond T."""
    grid = stopped_grid(stage.levels, stage.horizon, stop)
    new = (torch.arange(stage.window) >= stage.kept).to(torch.float64)
    nodes = [_Node(0, grid[0], new / 2, new / 2, new)]
    rules = [
        (np.polynomial.legendre.leggauss(count), fine) for count, fine in ((points, 1), ((points + 1) // 2, 0))
    ]
    panel = 0
    for high, low in itertools.pairwise(grid):
        h = high - low
        moving = h > 0
        if not bool(moving.any()):
            continue
        edges = graded_panels(float(h.max()), max(float(low[moving].min()), _FINEST))
        for left, right in itertools.pairwise(edges):
            panel += 1
            for (spots, weights), fine in rules:
                for spot, weight in zip(spots.tolist(), weights.tolist(), strict=True):
                    at = left + (right - left) * (1 + spot) / 2
                    count = weight / 4 * (right - left) * h
                    nothing = torch.zeros_like(count)
                    counts = (count, nothing) if fine else (nothing, count)
                    nodes.append(_Node(panel, low + at * h, counts[0], counts[1], h / h.max()))
    return nodes


def score_gap(
    videos: Tensor,
    plan: Plan,
    ar_step: int,
    score: Any,
    score_with_past: Any,
    *,
    points: int = 4,
    batch: int = 1024,
    seed: int = 0,
    progress: bool = False,
    actions: Tensor | None = None,
    plan_with_past: Plan | None = None,
    stop: float = 0.0,
) -> Gap:
    """What each video adds to :func:`arvdm_theory.decomposition.immse.memory_bottleneck_from_scores`.

    Arguments and errors are the same. The noise is one draw a panel and video, so that the two rules of a panel
    differ by their quadrature errors and little else.
    """
    _check(videos, plan, ar_step, points, batch, actions)
    stage = plan.stage(ar_step)
    more = shown_with_past(plan, ar_step, plan_with_past)
    if stage.references == more:
        raise SampleError(f"AR step {ar_step}: both plans show the same references: the information is 0")
    nodes = _nodes(stage, stop, points)
    generator = torch.Generator().manual_seed(seed)
    forms, coarse, tails = np.zeros((len(videos), 2)), np.zeros((len(videos), 2)), np.zeros((len(videos), 2))
    shape = np.zeros((len(nodes), 2, 2))  # sums and sums of squares of the integrand, node by form
    starts = range(0, len(videos), batch)
    with torch.no_grad(), tqdm(total=len(starts) * len(nodes), disable=not progress or None, leave=False) as bar:
        for start in starts:
            rows = slice(start, start + batch)
            clean = videos[rows].to(torch.float64)
            done = None if actions is None else actions[rows].to(clean)
            shown = _references(clean, done, stage, more, generator)
            window, panel, noise = clean[:, list(stage.frames)], -1, clean[:, :0]
            for number, node in enumerate(nodes):
                if node.panel != panel:
                    panel, noise = node.panel, standard_normal(window.shape, generator).to(window)
                gap = _gaps(window, noise, node.levels, (score, score_with_past), shown)
                forms[rows] += _weighed(gap, node.weight)
                coarse[rows] += _weighed(gap, node.coarse)
                if number == 0:
                    tails[rows] = coarse[rows] = forms[rows]
                there = _weighed(gap, node.speed / 2)
                shape[number, 0] += there.sum(0)
                shape[number, 1] += (there**2).sum(0)
                bar.update()
    return Gap(forms[:, 0], forms[:, 1], coarse, tails, _integrand(nodes, shape, len(videos)))


def _gaps(
    window: Tensor,
    noise: Tensor,
    levels: Tensor,
    scores: tuple[Any, Any],
    shown: tuple[ReferenceBatch, ReferenceBatch],
) -> Tensor:
    """‖s_j - y_j‖² - ‖s'_j - y_j‖² and ‖s'_j - s_j‖² of every frame, (2, batch, w)."""
    at = levels.to(window.device)
    noisy, scale = noised(window, at, noise=noise), torch.sqrt(sigma2(at)).to(window)[:, None]
    without, told = (
        checked_score(each(noisy, at, context), noisy, context.window_frames, at).to(torch.float64)
        for each, context in zip(scores, shown, strict=True)
    )
    # A frame that stands still counts nothing, and at level 0 it has no target.
    target = -noise / torch.where(scale > 0, scale, torch.ones_like(scale))
    difference = told - without
    return torch.stack([difference * (2 * target - told - without), difference**2]).sum(-1)


def _weighed(gap: Tensor, weight: Tensor) -> Array:
    """(2, batch, w) → (batch, 2), frames by their weight."""
    summed: Array = (gap @ weight.to(gap)).T.cpu().numpy()
    return summed


def _integrand(nodes: Sequence[_Node], shape: Array, n: int) -> pd.DataFrame:
    rows = []
    for node, (total, square) in zip(nodes, shape, strict=True):
        mean = total / n
        error = np.sqrt(np.maximum(square / n - mean**2, 0) / (n - 1))
        moving = node.levels[node.speed > 0]
        rows.append((float(moving.min()), mean[0], error[0], mean[1], error[1]))
    columns = ["level", "losses", "losses_stderr", "difference", "difference_stderr"]
    return pd.DataFrame(rows, columns=columns).sort_values("level", ascending=False, ignore_index=True)


def _check(videos: Tensor, plan: Plan, ar_step: int, points: int, batch: int, actions: Tensor | None) -> None:
    if points < 2 or batch < 1:
        raise SampleError(f"at least two nodes a panel and one video a batch are needed, got {points} and {batch}")
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
    clean: Tensor, actions: Tensor | None, stage: Stage, more: Sequence[Reference], generator: torch.Generator
) -> tuple[ReferenceBatch, ReferenceBatch]:
    """R_k and R'_k of the videos ``clean``: R_k is R'_k noised further."""
    frames, window = tuple(r.frame for r in more), tuple(stage.frames)
    levels = torch.tensor([r.level for r in more], dtype=torch.float64)
    values = noised(clean[:, list(frames)], levels.to(clean.device), noise=generator)
    everything = ReferenceBatch.shown(values, levels.to(clean.device), frames, window, actions)
    place, own = [frames.index(r.frame) for r in stage.references], stage.reference_levels
    kept = noised(values[:, place], own.to(clean.device), levels[place].to(clean.device), generator)
    known = ReferenceBatch.shown(kept, own.to(clean.device), stage.reference_frames, window, actions)
    return known, everything
