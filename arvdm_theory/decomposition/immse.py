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
ratios (:mod:`arvdm_theory.information.estimators.immse`). What the new frames tell at T,
I(X^T_new; Past | In), is the same integral from T to ∞, along which the integrand falls like e^{-τ}: to a
relative e^{-T} it is its value at T.

*Stopped at s.* If every clock halts at s > 0, W runs from max(t^I, s) to max(t^O, s), and the same proof gives

    I(Out^s; Past | In^s) = I(X^T_new; Past | In^s) + ½ Σ_j ∫_{max(t^O_j, s)}^{max(t^I_j, s)} E‖s'_j - s*_j‖² dτ_j,

Out^s being the window at max(t^O, s), and In^s its old frames at max(t^I, s) with R. It is finite for every law
with a variance, also where a frame repeats an older one exactly, and leaves out the levels at which a network's
error is large against what is left to know. Where no old frame enters below s (w = Δ: always), In^s is In, and the
value rises to MB_k as s falls (data processing).

*A larger memory.* Let R' show every frame of R at its level in R or below, R being R' noised. Then R tells nothing
beside R', and the integral with s' the score given R' is, by the chain rule,

    I(Out_k; R'_k | In_k) = MB_k - MB'_k,

MB' being that of the plan that shows R'. All frames that are out, as they came out, are the largest R' there is.

With trained networks the form ``losses`` gives MB_k plus half the integral of the difference of the two networks'
excess losses, which may be negative; it is reported as it is.

Source: arXiv 2503.10704, section 4.2 (the memory bottleneck); Guo, Shamai and Verdú 2005 (I-MMSE); de Bruijn's
identity as in Cover and Thomas 2006, theorem 17.7.2.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from arvdm_theory.decomposition.score_gap import (
    ScoreGap,
    memory_contributions,
    shown_references,
    shown_with_past,
    stopped_grid,
)
from arvdm_theory.information.estimators import Dependence, conclude_mean, contribution_error
from arvdm_theory.information.gaussian import cholesky, condition, conditional_mutual_information
from arvdm_theory.interfaces import Score
from arvdm_theory.laws.gaussian import frame_indices, noisy_covariance
from arvdm_theory.noise import alpha, sigma2
from arvdm_theory.number import LEVEL, Number
from arvdm_theory.plan.plan import Plan, Reference

__all__ = [
    "horizon_notes",
    "memory_bottleneck_along_clocks",
    "memory_bottleneck_from_scores",
]

Array = NDArray[np.float64]
Noising = Callable[[Tensor, Tensor], Tensor]

# Halvings of the last panel beyond which a smallest eigenvalue is rounding.
_MOST_HALVINGS = 50


def memory_bottleneck_along_clocks(
    clean_covariance: Tensor,
    dim: int,
    plan: Plan,
    ar_step: int,
    grid: Tensor | None = None,
    points: int = 16,
    *,
    stop: float = 0.0,
    plan_with_past: Plan | None = None,
) -> Tensor:
    """MB_k of AR step k = ``ar_step`` as the integral of the score gap, (modes,), in nats.

    In closed form but for the quadrature: with J and J' the precisions of W given R and given (R, Past), and G the
    regression of W on the whitened part of Past that R leaves open, E‖s'_j - s*_j‖² = tr (J' - J)_j =
    tr (J' G Gᵀ J)_j. Frame by frame and level by level it says where along the clocks memory would help.

    Clocks run along the grid, straight inside a reverse step, with ``points`` Gauss-Legendre nodes a panel. Panels
    are at most one unit of time long, and towards the step's end they halve until they are no longer than the
    smallest eigenvalue λ of Cov(clean window | R, Past) plus ``stop``, as far beyond the end as which lies the
    first pole of J'. So every panel is at least as far from a pole as it is long, and 16 nodes leave
    4.2^-32 = 1e-20.

    Args:
        clean_covariance: of all clean frames from the first on, (modes, N·d, N·d).
        dim: d.
        plan: the plan.
        ar_step: k, from 1.
        grid: levels (M + 1, w) in place of the plan's.
        points: nodes a panel.
        stop: s, the level at which every clock halts: the value is I(Out^s; Past | In^s).
        plan_with_past: what its references tell stands for Past: the value is I(Out; R' | In).

    Raises:
        ValueError: for fewer than one point, or as :func:`memory_bottleneck_from_scores` for ``stop`` and
            ``plan_with_past``.
        NotPositiveDefiniteError: if what is told leaves nothing open about an output frame at level 0, or the
            references leave nothing open about a frame of Past.
    """
    if points < 1:
        raise ValueError(f"a quadrature needs at least one point, got {points}")
    device = clean_covariance.device
    if grid is None:
        grid = torch.tensor(plan.ar_grid, dtype=torch.float64, device=device)
    grid = stopped_grid(grid, plan, stop)
    known = shown_references(plan, ar_step)
    beyond = [r for r in shown_with_past(plan, ar_step, plan_with_past) if r not in known]
    if not beyond:
        return clean_covariance.new_zeros(len(clean_covariance))
    n = plan.window * dim
    residual = _residual(clean_covariance, dim, list(plan.window_frames(ar_step)), beyond, known)
    without, cross, past = residual[:, :n, :n], residual[:, :n, n:], residual[:, n:, n:]
    told = condition(residual, range(n), range(n, residual.shape[-1]))[1]
    factor = cholesky(past, "covariance of Past given the references")
    shared = torch.linalg.solve_triangular(factor, cross.mT, upper=False).mT

    def spread(per_frame: Tensor) -> Tensor:
        return per_frame.repeat_interleave(dim, -1).unsqueeze(-2)

    def noisy(clean: Tensor, levels: Tensor) -> Tensor:
        scale = spread(alpha(levels))
        return scale.unsqueeze(-1) * scale.unsqueeze(-2) * clean + torch.diag_embed(spread(sigma2(levels)))

    # Nodes come near the end of the clocks and never reach it: what is infinite there would look finite.
    cholesky(noisy(told, grid[-1]), "covariance of the output given all that is told")
    total = _initial_information(residual, plan, dim, noisy, grid[0])
    smallest = float(torch.linalg.eigvalsh(told.detach()).min())
    nodes, weights = np.polynomial.legendre.leggauss(points)
    for high, low in itertools.pairwise(grid):
        h = high - low
        edges = torch.tensor(_panels(float(h.max()), smallest + stop), dtype=torch.float64, device=device)
        width = (edges[1:] - edges[:-1])[:, None]
        rest = (edges[:-1, None] + width * torch.from_numpy((nodes + 1) / 2).to(device)).reshape(-1)
        weight = (width * torch.from_numpy(weights / 2).to(device)).reshape(-1)
        levels = low + rest[:, None] * h
        signal = spread(alpha(levels)).unsqueeze(-1) * shared
        both = [
            torch.cholesky_solve(signal, cholesky(noisy(clean, levels), "covariance of the window"))
            for clean in (told, without)
        ]
        per_entry = (both[0] * both[1]).sum(-1)
        gap = per_entry.reshape(*per_entry.shape[:-1], plan.window, dim).sum(-1)  # (nodes, modes, w)
        total = total + torch.einsum("u,j,umj->m", weight, h, gap) / 2
    return total


def _residual(
    clean_covariance: Tensor, dim: int, window: list[int], beyond: Sequence[Reference], known: Sequence[Reference]
) -> Tensor:
    """Covariance of (clean window, Past) given the references, (modes, (w + p)·d, (w + p)·d)."""
    device = clean_covariance.device
    frames = [*window, *(r.frame for r in (*beyond, *known))]
    # The window is clean here; its noise, independent of all else, is added level by level.
    levels = [0.0] * len(window) + [r.level for r in (*beyond, *known)]
    level = torch.tensor(levels, dtype=torch.float64, device=device)
    number = torch.tensor(frames, device=device)
    index = frame_indices(frames, dim).to(device)
    # A reference is what Past holds of its frame, noised further: they part at the lower of their levels.
    joint = noisy_covariance(
        clean_covariance[:, index[:, None], index],
        level,
        torch.minimum(level[:, None], level),
        number[:, None] == number,
    )
    open_part = (len(window) + len(beyond)) * dim
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
    actions: Tensor | None = None,
    plan_with_past: Plan | None = None,
    stop: float = 0.0,
) -> Number:
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
        actions: the action that leads to each frame, (n, N, a), N as for the videos. Both scores are told those
            of the window and of the frames that they are shown: all is given the first, and the second's others
            count as a part of Past.
        plan_with_past: of whose references ``score_with_past`` is told in place of all frames that are out: a plan
            with the same levels that shows what ``plan`` shows, and more. The value is I(Out_k; R'_k | In_k).
        stop: s, the level at which every clock halts: the value is I(Out^s; Past | In^s), see the module.

    Raises:
        SampleError: for videos or actions of another shape, too short or not finite, a step without Past (MB_k is
            0 there), an unknown form, a ``stop`` outside [0, T), a ``plan_with_past`` of other levels or that does
            not hold the plan's references, or a score that is not a finite tensor of the window's shape.
    """
    contributions, tails = memory_contributions(
        videos, plan, ar_step, score, score_with_past, form=form, points=points, batch=batch, seed=seed,
        progress=progress, actions=actions, plan_with_past=plan_with_past, stop=stop,
    )  # fmt: skip
    notes = horizon_notes(tails, plan.horizon, contribution_error(contributions, dependence)[0])
    return conclude_mean(contributions, method="immse-clocks", notes=notes, dependence=dependence, level=level)


def horizon_notes(tails: Array, horizon: float, stderr: float) -> list[str]:
    """A warning if what is extrapolated from T to pure noise, known to e^{-T} of itself, errs by over ``stderr``.

    Args:
        tails: what is extrapolated, for each video.
        horizon: T.
        stderr: of the whole estimate.
    """
    tail = float(tails.mean())
    error = math.exp(-horizon) * abs(tail)
    if not error > stderr:
        return []
    return [
        f"{tail:.3g} nats are extrapolated from level T = {horizon:.3g} to pure noise, which errs by "
        f"about {error:.1g}, more than the standard error: give the new frames a higher T."
    ]
