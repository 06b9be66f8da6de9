r"""The memory bottleneck from scores: the I-MMSE relation along a plan's own clocks.

    MB_k = I(X^T_new; Past | In) + ½ Σ_j ∫_{t^O_j}^{t^I_j} E‖s*_j(W | R, Past) - s*_j(W | R)‖² dτ_j,

the window W = (X_j^{τ_j}) moving from t^I to t^O along any clocks: the integrand is the gradient of I(W; Past | R)
over the levels, so that the path between its ends does not matter.

*Proof.* Raising frame j's clock by dτ adds noise and scales, which changes no information; with s' the score that
knows Past, de Bruijn's identity gives ∂I(W; Past | R)/∂τ_j = -½ (E‖s'_j‖² - E‖s*_j‖²), which is
-½ E‖s'_j - s*_j‖² because s* = E[s' | W, R]. From t^I to t^O that makes I(W^O; Past | R) - I(W^I; Past | R). Take
I(W^I_old; Past | R) from both: the first leaves MB_k, since W^I_old is W^O with more noise and tells nothing
beside it, and the second I(X^T_new; Past | W^I_old, R). ∎

Nothing has to be trained beyond the levels that the plan uses, unlike for the integral over all signal-to-noise
ratios (:mod:`arvdm_theory.information.immse`). What the new frames tell at T, I(X^T_new; Past | In), is the same
integral from T to ∞, along which the integrand falls like e^{-τ}: to a relative e^{-T} it is its value at T.

With trained networks the form ``losses`` gives MB_k plus half the integral of the difference of the two networks'
excess losses, which may be negative; it is reported as it is.

Source: arXiv 2503.10704, section 4.2 (the memory bottleneck); Guo, Shamai and Verdú 2005 (I-MMSE); de Bruijn's
identity as in Cover and Thomas 2006, theorem 17.7.2.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from arvdm_theory.information.estimate import Estimate, EstimationWarning, SampleError
from arvdm_theory.information.gaussian import cholesky, condition, conditional_mutual_information
from arvdm_theory.information.uncertainty import LEVEL, Dependence, conclude_mean, contribution_error
from arvdm_theory.interfaces import ReferenceBatch, Score
from arvdm_theory.meta.plan import Plan
from arvdm_theory.noise import alpha, sigma2, transition
from arvdm_theory.processes.gaussian import frame_indices, noisy_covariance, standard_normal

__all__ = ["LowHorizonWarning", "memory_bottleneck_along_clocks", "memory_bottleneck_from_scores"]

ScoreGap = Literal["losses", "difference"]
Noising = Callable[[Tensor, Tensor], Tensor]

# Halvings of the last panel beyond which a smallest eigenvalue is rounding.
_MOST_HALVINGS = 50


class LowHorizonWarning(EstimationWarning):
    """Level T is so low that what the new frames tell there is not negligible, and it is extrapolated."""


def memory_bottleneck_along_clocks(
    clean_covariance: Tensor, dim: int, plan: Plan, ar_step: int, grid: Tensor | None = None, points: int = 16
) -> Tensor:
    """MB_k of AR step k = ``ar_step`` as the integral of the score gap, (modes,), in nats.

    In closed form but for the quadrature: with J and J' the precisions of W given R and given (R, Past), and G the
    regression of W on the whitened part of Past that R leaves open, E‖s'_j - s*_j‖² = tr (J' - J)_j =
    tr (J' G Gᵀ J)_j. Frame by frame and level by level it says where along the clocks memory would help.

    Clocks run along the grid, straight inside a reverse step, with ``points`` Gauss-Legendre nodes a panel. Panels
    are at most one unit of time long, and towards the step's end they halve until they are no longer than the
    smallest eigenvalue λ of Cov(clean window | R, Past), as far beyond the end as which lies the first pole of J'.
    So every panel is at least as far from a pole as it is long, and 16 nodes leave 4.2^-32 = 1e-20.

    Args:
        clean_covariance: of all clean frames from the first on, (modes, N·d, N·d).
        dim: d.
        plan: the plan.
        ar_step: k, from 1.
        grid: levels (M + 1, w) in place of the plan's.
        points: nodes a panel.

    Raises:
        ValueError: for fewer than one point.
        NotPositiveDefiniteError: if Past and the references leave nothing open about some window frame.
    """
    if points < 1:
        raise ValueError(f"a quadrature needs at least one point, got {points}")
    device = clean_covariance.device
    if grid is None:
        grid = torch.tensor(plan.ar_grid, dtype=torch.float64, device=device)
    if not plan.past_frames(ar_step):
        return clean_covariance.new_zeros(len(clean_covariance))
    n = plan.window * dim
    residual = _residual(clean_covariance, dim, plan, ar_step)
    without, cross, past = residual[:, :n, :n], residual[:, :n, n:], residual[:, n:, n:]
    told = condition(residual, range(n), range(n, residual.shape[-1]))[1]
    factor = cholesky(past, "covariance of Past given the references")
    shared = torch.linalg.solve_triangular(factor, cross.mT, upper=False).mT

    def spread(per_frame: Tensor) -> Tensor:
        return per_frame.repeat_interleave(dim, -1).unsqueeze(-2)

    def noisy(clean: Tensor, levels: Tensor) -> Tensor:
        scale = spread(alpha(levels))
        return scale.unsqueeze(-1) * scale.unsqueeze(-2) * clean + torch.diag_embed(spread(sigma2(levels)))

    total = _initial_information(residual, plan, dim, noisy, grid[0])
    smallest = float(torch.linalg.eigvalsh(told.detach()).min())
    nodes, weights = np.polynomial.legendre.leggauss(points)
    for high, low in itertools.pairwise(grid):
        h = high - low
        edges = torch.tensor(_panels(float(h.max()), smallest), dtype=torch.float64, device=device)
        width = (edges[1:] - edges[:-1])[:, None]
        rest = (edges[:-1, None] + width * torch.from_numpy((nodes + 1) / 2).to(device)).reshape(-1)
        weight = (width * torch.from_numpy(weights / 2).to(device)).reshape(-1)
        levels = low + rest[:, None] * h
        known = spread(alpha(levels)).unsqueeze(-1) * shared
        both = [
            torch.cholesky_solve(known, cholesky(noisy(clean, levels), "covariance of the window"))
            for clean in (told, without)
        ]
        per_entry = (both[0] * both[1]).sum(-1)
        gap = per_entry.reshape(*per_entry.shape[:-1], plan.window, dim).sum(-1)  # (nodes, modes, w)
        total = total + torch.einsum("u,j,umj->m", weight, h, gap) / 2
    return total


def _residual(clean_covariance: Tensor, dim: int, plan: Plan, ar_step: int) -> Tensor:
    """Covariance of (clean window, Past) given the references, (modes, (w + p)·d, (w + p)·d)."""
    device = clean_covariance.device
    references, past = plan.references_at(ar_step), plan.past_frames(ar_step)
    frames = [*plan.window_frames(ar_step), *past, *(r.frame for r in references)]
    # The window is clean here; its noise, independent of all else, is added level by level.
    levels = [0.0] * plan.window + [plan.floor] * len(past) + [max(r.level, plan.floor) for r in references]
    fresh = [False] * (plan.window + len(past)) + [r.level > plan.floor for r in references]
    level = torch.tensor(levels, dtype=torch.float64, device=device)
    off_path = torch.tensor(fresh, device=device)
    shared = torch.minimum(level[:, None], level)
    parted = (off_path[:, None] | off_path) & ~torch.eye(len(frames), dtype=torch.bool, device=device)
    number = torch.tensor(frames, device=device)
    index = frame_indices(frames, dim).to(device)
    joint = noisy_covariance(
        clean_covariance[:, index[:, None], index],
        level,
        torch.where(parted, torch.full_like(shared, plan.floor), shared),
        number[:, None] == number,
    )
    open_part = (plan.window + len(past)) * dim
    return condition(joint, range(open_part), range(open_part, len(frames) * dim))[1]


def _initial_information(residual: Tensor, plan: Plan, dim: int, noise_frames: Noising, levels: Tensor) -> Tensor:
    """I(X^T_new; Past | In), (modes,): the window stands at its input levels, and R is conditioned on already."""
    n, old = plan.window * dim, (plan.window - plan.stride) * dim
    scale = alpha(levels).repeat_interleave(dim)[:, None]
    cross = scale * residual[:, :n, n:]
    window = noise_frames(residual[:, :n, :n], levels)
    joint = torch.cat([torch.cat([window, cross], -1), torch.cat([cross.mT, residual[:, n:, n:]], -1)], -2)
    return conditional_mutual_information(joint, range(old, n), range(n, joint.shape[-1]), range(old))


def _panels(longest: float, smallest: float) -> list[float]:
    """Edges in [0, 1], the part of a step that is left: see :func:`memory_bottleneck_along_clocks`."""
    if longest <= 0:
        return [0.0, 1.0]
    pieces = math.ceil(longest)
    last = longest / pieces
    halvings = _MOST_HALVINGS
    if smallest > last * 2.0**-_MOST_HALVINGS:
        halvings = max(0, math.ceil(math.log2(last / smallest)))
    return [0.0, *(2.0**-k / pieces for k in range(halvings, 0, -1)), *((k + 1) / pieces for k in range(pieces))]


def memory_bottleneck_from_scores(
    videos: Tensor,
    plan: Plan,
    ar_step: int,
    score: Score,
    score_with_past: Score,
    *,
    form: ScoreGap = "losses",
    points: int = 4,
    batch: int = 1024,
    dependence: Dependence = "independent",
    level: float = LEVEL,
    seed: int = 0,
    progress: bool = False,
) -> Estimate:
    """MB_k of AR step k = ``ar_step`` from two networks' losses on true videos that they were not trained on.

    Both see the same noised window, drawn afresh at every node. ``score`` is told the plan's references,
    ``score_with_past`` all frames that are out, as they came out (noised versions of them add nothing), as a
    network of the same plan with ``References.all()`` is. In the form ``losses`` the value is

        ½ Σ_j ∫ E[‖s_j - y_j‖² - ‖s'_j - y_j‖²] dτ_j,    y_j = -(W_j - α_j X_j)/σ²_j,

    MB_k plus half the integral of the difference of excess losses. A network that is kept from the references by a
    mask has an excess loss for it.

    Args:
        videos: true clean videos, (n, N, d), N frames or more as the plan needs them.
        plan: the plan.
        ar_step: k, from 1.
        score: ∇ log p(W | R), see :class:`arvdm_theory.interfaces.Score`.
        score_with_past: ∇ log p(W | R, Past).
        form: ``losses``, or ``difference`` for ‖s'_j - s_j‖² in place of the bracket: the same for exact scores,
            with less noise; for trained ones it is never negative and counts the errors of both as information.
        points: Gauss-Legendre nodes a reverse step, whose error the standard error does not hold.
        batch: videos evaluated at once.
        dependence: of the videos.
        level: of the confidence interval.
        seed: of the noise, drawn on the CPU: the same on every device.
        progress: show a progress bar over batches and nodes.

    Raises:
        SampleError: for videos of another shape, too short or not finite, a step without Past (MB_k is 0 there),
            an unknown form, or a score that is not a finite tensor of the window's shape.
    """
    _check(videos, plan, ar_step, form, points, batch)
    grid = torch.tensor(plan.ar_grid, dtype=torch.float64)
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
    with torch.no_grad(), tqdm(total=len(starts) * len(nodes), disable=not progress, leave=False) as bar:
        for start in starts:
            clean = videos[start : start + batch].to(torch.float64)
            references, everything = _references(clean, plan, ar_step, generator)
            window = clean[:, list(plan.window_frames(ar_step))]
            for number, (levels, weight) in enumerate(nodes):
                noise = standard_normal(window.shape, generator).to(window)
                scale = torch.sqrt(sigma2(levels)).to(window)[:, None]
                noisy = alpha(levels).to(window)[:, None] * window + scale * noise
                at = levels.to(window.device)
                without, told = (
                    _scored(each, noisy, at, known)
                    for each, known in ((score, references), (score_with_past, everything))
                )
                if form == "difference":
                    gap = (told - without) ** 2
                else:
                    # A frame that stands still counts nothing, and at level 0 it has no target.
                    target = -noise / torch.where(scale > 0, scale, torch.ones_like(scale))
                    gap = (told - without) * (2 * target - told - without)
                value = (gap.sum(-1) @ weight.to(gap)).cpu().numpy()
                contributions[start : start + batch] += value
                if number == 0:
                    tails[start : start + batch] = value
                bar.update()
    tail, notes = float(tails.mean()), list[EstimationWarning]()
    error = math.exp(-plan.horizon) * abs(tail)
    if error > contribution_error(contributions, dependence)[0]:
        notes.append(
            LowHorizonWarning(
                f"{tail:.3g} nats are extrapolated from level T = {plan.horizon:.3g} to pure noise, which errs by "
                f"about {error:.1g}, more than the standard error: give the new frames a higher T."
            )
        )
    return conclude_mean(contributions, method="immse-clocks", notes=notes, dependence=dependence, level=level)


def _check(videos: Tensor, plan: Plan, ar_step: int, form: str, points: int, batch: int) -> None:
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


def _references(
    clean: Tensor, plan: Plan, ar_step: int, generator: torch.Generator
) -> tuple[ReferenceBatch, ReferenceBatch]:
    """R_k of the videos ``clean``, and all their frames that are out."""
    out, window = range(plan.frames_out(ar_step)), tuple(plan.window_frames(ar_step))
    floor = torch.full((len(out),), plan.floor, dtype=torch.float64)
    states = _noised(clean[:, : len(out)], floor, torch.zeros_like(floor), generator)
    told = plan.references_at(ar_step)
    at = torch.tensor([max(r.level, plan.floor) for r in told], dtype=torch.float64)
    values = _noised(states[:, [r.frame for r in told]], at, floor[: len(told)], generator)
    return (
        ReferenceBatch(values, at.to(values.device), tuple(r.frame for r in told), window),
        ReferenceBatch(states, floor.to(states.device), tuple(out), window),
    )


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
