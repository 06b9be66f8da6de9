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
ratios (:mod:`arvdm_theory.information.estimators.immse`). What the new frames tell at T, I(X^T_new; Past | In), is
the same integral from T to ∞, along which the integrand falls like e^{-τ}: to a relative e^{-T} it is its value at
T.

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
excess losses, which may be negative; it is reported as it is, and a value that is surely negative, or far from the
form ``difference``, which is the same for exact scores, is warned of: it tells of the networks and not of the
video.

Source: arXiv 2503.10704, section 4.2 (the memory bottleneck); Guo, Shamai and Verdú 2005 (I-MMSE); de Bruijn's
identity as in Cover and Thomas 2006, theorem 17.7.2.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm
from torch import Tensor

from arvdm_theory.decomposition.score_gap import (
    ScoreGap,
    graded_panels,
    score_gap,
    shown_with_past,
    stopped_grid,
)
from arvdm_theory.diffusion.prediction import NetworkScore
from arvdm_theory.diffusion.scores import HasScore, as_score
from arvdm_theory.information.estimators import Dependence, SampleError, contribution_error
from arvdm_theory.information.estimators.result import issue
from arvdm_theory.information.gaussian import cholesky, condition, conditional_mutual_information
from arvdm_theory.laws.gaussian import GaussianVideo
from arvdm_theory.laws.law import VideoLaw
from arvdm_theory.laws.states import frame_indices, noisy_covariance
from arvdm_theory.noise import alpha, sigma2
from arvdm_theory.number import LEVEL, Number, half_width
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.references import Reference
from arvdm_theory.plan.stage import Stage

__all__ = ["NETWORK_STOP", "memory_bottleneck_along_clocks", "memory_bottleneck_from_scores", "network_warnings"]

Array = NDArray[np.float64]

NETWORK_STOP = 0.1
"""Where clocks halt for networks unless asked otherwise: below it a network's error is large against what is
left."""


def memory_bottleneck_along_clocks(
    video: GaussianVideo,
    plan: Plan,
    ar_step: int,
    *,
    levels: Tensor | None = None,
    points: int = 16,
    stop: float = 0.0,
    plan_with_past: Plan | None = None,
) -> Tensor:
    """MB_k of AR step k = ``ar_step`` as the integral of the score gap, a scalar, in nats.

    In closed form but for the quadrature: with J and J' the precisions of W given R and given (R, Past), and G the
    regression of W on the whitened part of Past that R leaves open, E‖s'_j - s*_j‖² = tr (J' - J)_j =
    tr (J' G Gᵀ J)_j. Frame by frame and level by level it says where along the clocks memory would help.

    Clocks run along the grid, straight inside a reverse step, with ``points`` Gauss-Legendre nodes a panel. Panels
    are graded (:func:`~arvdm_theory.decomposition.score_gap.graded_panels`) by the smallest eigenvalue λ of
    Cov(clean window | R, Past) plus ``stop``, as far beyond a step's end as which lies the first pole of J'. So
    every panel is at least as far from a pole as it is long, and 16 nodes leave 4.2^-32 = 1e-20.

    Args:
        video: its law.
        plan: the plan.
        ar_step: k, from 1.
        levels: (M + 1, w) in place of the plan's.
        points: nodes a panel.
        stop: s, the level at which every clock halts: the value is I(Out^s; Past | In^s).
        plan_with_past: what its references tell stands for Past: the value is I(Out; R' | In).

    Raises:
        ValueError: for fewer than one point, or as :func:`memory_bottleneck_from_scores` for ``stop`` and
            ``plan_with_past``.
        NotPositiveDefiniteError: if what is known leaves nothing open about an output frame at level 0, or the
            references leave nothing open about a frame of Past.
    """
    if points < 1:
        raise ValueError(f"a quadrature needs at least one point, got {points}")
    stage, dim = plan.stage(ar_step, levels), video.frame_dim
    grid = stopped_grid(stage.levels, plan.horizon, stop).to(video.device)
    beyond = [r for r in shown_with_past(plan, ar_step, plan_with_past) if r not in stage.references]
    if not beyond:
        return torch.zeros((), dtype=torch.float64, device=video.device)
    n = stage.window * dim
    residual = _residual(video, stage, beyond)
    without, cross, past = residual[:, :n, :n], residual[:, :n, n:], residual[:, n:, n:]
    known = condition(residual, range(n), range(n, residual.shape[-1]))[1]
    factor = cholesky(past, "covariance of Past given the references")
    shared = torch.linalg.solve_triangular(factor, cross.mT, upper=False).mT

    def per_entry(per_frame: Tensor) -> Tensor:
        return per_frame.repeat_interleave(dim, -1).unsqueeze(-2)

    def noisy(clean: Tensor, at: Tensor) -> Tensor:
        scale = per_entry(alpha(at))
        return scale.unsqueeze(-1) * scale.unsqueeze(-2) * clean + torch.diag_embed(per_entry(sigma2(at)))

    # Nodes come near the end of the clocks and never reach it: what is infinite there would look finite.
    cholesky(noisy(known, grid[-1]), "covariance of the output given all that is known")
    # I(X^T_new; Past | In): the window stands at its input levels, and R is conditioned on already.
    first = alpha(grid[0]).repeat_interleave(dim)[:, None] * cross
    joint = torch.cat([torch.cat([noisy(without, grid[0]), first], -1), torch.cat([first.mT, past], -1)], -2)
    old = stage.kept * dim
    total = conditional_mutual_information(joint, range(old, n), range(n, joint.shape[-1]), range(old))
    smallest = float(torch.linalg.eigvalsh(known.detach()).min())
    nodes, weights = (torch.from_numpy(part).to(grid) for part in np.polynomial.legendre.leggauss(points))
    for high, low in itertools.pairwise(grid):
        h = high - low
        edges = grid.new_tensor(graded_panels(float(h.max()), smallest + stop))
        width = (edges[1:] - edges[:-1])[:, None]
        rest = (edges[:-1, None] + width * (nodes + 1) / 2).reshape(-1)
        weight = (width * weights / 2).reshape(-1)
        at = low + rest[:, None] * h
        signal = per_entry(alpha(at)).unsqueeze(-1) * shared
        both = [
            torch.cholesky_solve(signal, cholesky(noisy(clean, at), "covariance of the window"))
            for clean in (known, without)
        ]
        entries = (both[0] * both[1]).sum(-1)
        gap = entries.reshape(*entries.shape[:-1], stage.window, dim).sum(-1)  # (nodes, modes, w)
        total = total + torch.einsum("u,j,umj->m", weight, h, gap) / 2
    return total @ video.multiplicity


def _residual(video: GaussianVideo, stage: Stage, beyond: list[Reference]) -> Tensor:
    """Covariance of (clean window, Past) given references and actions, (modes, (w + p)·d, (w + p)·d)."""
    dim, total, device = video.frame_dim, stage.frames.stop, video.device
    frames = [*stage.frames, *(r.frame for r in (*beyond, *stage.references))]
    # The window is clean here; its noise, independent of all else, is added level by level.
    at = [0.0] * stage.window + [r.level for r in (*beyond, *stage.references)]
    level, number = torch.tensor(at, dtype=torch.float64, device=device), torch.tensor(frames, device=device)
    index = torch.cat([frame_indices(frames, dim), torch.arange(total * dim, total * (dim + video.action_dim))])
    clean = video.joint_moments(total)[1][:, index[:, None], index]
    n = len(frames) * dim
    # A reference is what Past holds of its frame, noised further: they part at the lower of their levels.
    own = noisy_covariance(
        clean[:, :n, :n], level, torch.minimum(level[:, None], level), number[:, None] == number
    )
    cross = alpha(level).repeat_interleave(dim)[:, None] * clean[:, :n, n:]
    joint = torch.cat([torch.cat([own, cross], -1), torch.cat([cross.mT, clean[:, n:, n:]], -1)], -2)
    open_part = (stage.window + len(beyond)) * dim
    return condition(joint, range(open_part), range(open_part, joint.shape[-1]))[1]


def memory_bottleneck_from_scores(
    videos: Tensor,
    plan: Plan,
    ar_step: int,
    score: Any = None,
    score_with_past: Any = None,
    *,
    video: VideoLaw | None = None,
    form: ScoreGap = "losses",
    points: int = 4,
    batch: int = 1024,
    dependence: Dependence = "independent",
    clusters: ArrayLike | None = None,
    level: float = LEVEL,
    seed: int = 0,
    progress: bool = False,
    actions: Tensor | None = None,
    plan_with_past: Plan | None = None,
    stop: float | None = None,
) -> Number:
    """MB_k of AR step k = ``ar_step`` from two networks' losses on true videos that they were not trained on.

    Both see the same noised window, with noise of its own in every panel of the quadrature. ``score`` is shown the
    plan's references, ``score_with_past`` all frames that are out, as they came out (noised versions of them add
    nothing), as a network of the same plan with ``References.all()`` is. In the form ``losses`` the value is

        ½ Σ_j ∫ E[‖s_j - y_j‖² - ‖s'_j - y_j‖²] dτ_j,    y_j = -(W_j - α_j X_j)/σ²_j,

    MB_k plus half the integral of the difference of excess losses. A network that is kept from the references by a
    mask has an excess loss for it. Where along the clocks it comes from is the ``integrand`` of
    :func:`arvdm_theory.decomposition.score_gap.score_gap`.

    Args:
        videos: true clean videos, (n, N, d), N frames or more as the plan needs them.
        plan: the plan.
        ar_step: k, from 1.
        score: ∇ log p(W | R), see :class:`arvdm_theory.interfaces.Score`; None for the exact one of ``video``.
        score_with_past: ∇ log p(W | R, Past), likewise.
        video: whose exact scores are meant by None, ``ExactScore()`` and ``PerturbedScore(e)``.
        form: ``losses``, or ``difference`` for ‖s'_j - s_j‖² in place of the bracket: the same for exact scores,
            with less noise; for trained ones it is never negative and counts the errors of both as information.
        points: Gauss-Legendre nodes a panel; half of them give the quadrature's error, which the interval holds.
        batch: videos evaluated at once.
        dependence: of the videos.
        clusters: a label a video, (n,), where videos of one label (windows of one clip) are not independent.
        level: of the confidence interval.
        seed: of the noise, drawn on the CPU: the same on every device.
        progress: show a progress bar over batches and nodes.
        actions: the action that leads to each frame, (n, N, a), N as for the videos. Both scores are told those
            of the window and of the frames that they are shown: all is given the first, and the second's others
            count as a part of Past.
        plan_with_past: whose references ``score_with_past`` is shown in place of all frames that are out: a plan
            with the same levels that shows what ``plan`` shows, and more. The value is I(Out_k; R'_k | In_k).
        stop: s, the level at which every clock halts: the value is I(Out^s; Past | In^s), see the module. Left
            out, 0, and :data:`NETWORK_STOP` where one of the scores is a network's.

    Raises:
        SampleError: for videos, actions or clusters of another shape, too short or not finite, a step without Past
            (MB_k is 0 there), an unknown form, a ``stop`` outside [0, T), or a ``plan_with_past`` of other levels
            or that does not hold the plan's references.
        ValueError: for a score that is not a finite tensor of the window's shape.

    Warns:
        EstimationWarning: where the value is surely negative, the two forms disagree, the quadrature errs by more
            than the standard error, or T is so low that what is extrapolated beyond it errs by more.

    Example:
        >>> from arvdm_theory import ExactScore, References, outpainting, reference_video
        >>> video, plan = reference_video(), outpainting(2, References.last(1))
        >>> true = video.sample(400, plan.total_frames(1), torch.Generator().manual_seed(0))[:, 0]
        >>> found = memory_bottleneck_from_scores(true, plan, 1, video=video, form="difference")
        >>> found.ci_low < 0.14591 < found.ci_high
        True
    """
    if form not in ("losses", "difference"):
        raise SampleError(f"the form of the gap is 'losses' or 'difference', got {form!r}")
    networks = any(
        isinstance(each, NetworkScore | HasScore | torch.nn.Module) for each in (score, score_with_past)
    )
    at = (NETWORK_STOP if networks else 0.0) if stop is None else stop
    both = (as_score(each, video, affine=False) for each in (score, score_with_past))
    gap = score_gap(
        videos, plan, ar_step, *both, points=points, batch=batch, seed=seed, progress=progress, actions=actions,
        plan_with_past=plan_with_past, stop=at,
    )  # fmt: skip
    own = gap.losses if form == "losses" else gap.difference
    column = 0 if form == "losses" else 1
    stderr, freedom = _error(own, dependence, clusters)
    value, quadrature = float(own.mean()), abs(float((own - gap.coarse[:, column]).mean()))
    width = half_width(stderr, freedom, level) + quadrature
    notes = network_warnings(gap.losses, gap.difference, dependence, clusters)
    tail = float(gap.tails[:, column].mean())
    lost = math.exp(-plan.horizon) * abs(tail)
    if lost > stderr:
        notes.append(
            f"{tail:.3g} nats are extrapolated from level T = {plan.horizon:.3g} to pure noise, which errs by "
            f"about {lost:.1g}, more than the standard error: give the new frames a higher T."
        )
    if quadrature > stderr:
        notes.append(
            f"the quadrature errs by about {quadrature:.2g} nats, more than the standard error: the gap changes "
            "fast within a panel; give more points, or stop at a higher level."
        )
    if stop is None and at > 0:
        notes.append(
            f"clocks halt at level {at}, below which networks err by more than what is left to know: the value is "
            f"I(Out; Past | In) of frames at that level, and MB_k is no smaller (stop=0.0 goes all the way)."
        )
    for note in notes:
        issue(note)
    error = math.hypot(stderr, quadrature)
    return Number.stated(
        value, error, value - width, value + width, method="immse-clocks", n=len(own), warnings=notes
    )


def network_warnings(
    losses: Array, difference: Array, dependence: Dependence = "independent", clusters: ArrayLike | None = None
) -> list[str]:
    """What the two forms of the gap say of the networks: surely negative information, or forms that disagree.

    Args:
        losses: the contributions of the form ``losses``, (n,).
        difference: those of the form ``difference``, (n,).
        dependence: of the videos.
        clusters: a label a video.
    """
    notes = []
    sure = float(norm.ppf(0.999))
    value, other = float(losses.mean()), float(difference.mean())
    error = _error(losses, dependence, clusters)[0]
    if value + sure * error < 0:
        notes.append(
            f"the value of the form 'losses' is surely negative, {value:.3g} ± {error:.1g}, which no information "
            "is: the score that is shown more is the worse one; train it longer, or stop at a higher level."
        )
    apart = _error(losses - difference, dependence, clusters)[0]
    if abs(value - other) > sure * apart + 0.05 * max(abs(value), abs(other)):
        notes.append(
            f"the two forms disagree: {value:.3g} by losses, {other:.3g} by the squared difference. For exact "
            "scores they are the same; here the scores' own errors count, and neither value is the bottleneck."
        )
    return notes


def _error(contributions: Array, dependence: Dependence, clusters: ArrayLike | None) -> tuple[float, float]:
    """Standard error of the mean and its degrees of freedom."""
    if clusters is None:
        stderr, freedom, _ = contribution_error(contributions, dependence)
        return stderr, freedom
    labels = np.asarray(clusters)
    if labels.shape != contributions.shape or len(np.unique(labels)) < 2:
        raise SampleError(
            f"clusters are a label a video, {len(contributions)} of them, and two clusters or more; got shape "
            f"{labels.shape}"
        )
    mean = Number.clustered(contributions, labels)
    return float(mean.stderr), len(mean.samples) - 1
