"""The whole exact ledger once more, from dense joint laws: slow and plain.

Every variable of the trajectory is written out once as the video and its forward noise make it (P,
:mod:`dense_walk`) and once as the sampler makes it (Q). Both are ordinary Gaussian vectors, and every number of
the ledger is read off their means and covariances. Nothing is recursive, nothing uses stationarity, and no
formula is shared with the library. Units are nats.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from dense_walk import (
    Array,
    ArStep,
    Key,
    Law,
    Move,
    Normals,
    Walk,
    clean_frames,
    conditional,
    gaussian_kl,
    information,
    law_kl,
    true_laws,
    walk,
)
from scipy.linalg import cho_factor, cho_solve

from arvdm_theory import Plan
from arvdm_theory.plan.references import Mask

__all__ = [
    "ArStep",
    "DenseLedger",
    "Law",
    "Move",
    "Score",
    "Step",
    "Term",
    "Walk",
    "conditional",
    "dense_ledger",
    "exact_score",
    "gaussian_kl",
    "information",
    "true_laws",
    "walk",
]

Step = Literal["exponential", "euler", "ancestral", "ddpm", "ddim"]


# -- the score and one reverse step -------------------------------------------------------------------


@dataclass(frozen=True)
class Score:
    """An affine score s(W, R) = window @ W + references @ R + offset."""

    window: Array
    references: Array
    offset: Array

    @property
    def gain(self) -> Array:
        return np.hstack([self.window, self.references])


def exact_score(law: Law, window: Sequence[Key], references: Sequence[Key], mask: Mask | None = None) -> Score:
    """∇_W log p(W | R) = -Cov(W | R)^{-1} (W - E[W | R]).

    With a mask, frame j's score is that of the law of the frames and references that j sees.
    """
    d, w, r = law.frame_dim, len(window), len(references)
    if mask is None:
        gain, shift, cov = conditional(law, window, references)
        precision = cho_solve(cho_factor(cov), np.eye(len(cov)))
        return Score(-precision, precision @ gain, precision @ shift)
    score = Score(np.zeros((w * d, w * d)), np.zeros((w * d, r * d)), np.zeros(w * d))
    for j in range(w):
        sees = [i for i in range(w) if mask[j][i]]
        reads = [i for i in range(r) if mask[j][w + i]]
        part = exact_score(law, [window[i] for i in sees], [references[i] for i in reads])
        own = slice(sees.index(j) * d, (sees.index(j) + 1) * d)
        row = slice(j * d, (j + 1) * d)
        score.offset[row] = part.offset[own]
        for n, i in enumerate(sees):
            score.window[row, i * d : (i + 1) * d] = part.window[own, n * d : (n + 1) * d]
        for n, i in enumerate(reads):
            score.references[row, i * d : (i + 1) * d] = part.references[own, n * d : (n + 1) * d]
    return score


Modify = Callable[[Move, Score], Score]


def _scores(
    law: Law, plan: Plan, move: Move, score_error: float, modify: Modify | None
) -> tuple[Score, Score, Score]:
    """(s*, s* as far as the mask lets it see, s_θ) of a reverse step."""
    exact = exact_score(law, move.before, move.references)
    mask = plan.visible_at(move.reverse_step, len(move.references)) if move.stage == "ar" else None
    seen = exact if mask is None else exact_score(law, move.before, move.references, mask)
    theta = replace(seen, window=seen.window - score_error * np.eye(len(seen.window)))
    return exact, seen, theta if modify is None else modify(move, theta)


@dataclass(frozen=True)
class _Kernel:
    """Q(moving frames | W, R) = N(gain @ (W, R) + offset, covariance)."""

    gain: Array
    offset: Array
    covariance: Array


def _kernel(step: Step, law: Law, move: Move, score: Score) -> _Kernel:
    d = law.frame_dim
    n = len(score.window)
    h = np.repeat(move.steps, d)
    level = np.repeat(move.levels, d)
    identity = np.hstack([np.eye(n), np.zeros_like(score.references)])
    rows = [j * d + i for j in move.moving for i in range(d)]
    if step == "exponential":
        keep, push, noise = np.exp(h / 2), 2 * np.expm1(h / 2), np.diag(np.expm1(h)[rows])
    elif step == "euler":
        keep, push, noise = 1 + h / 2, h, np.diag(h[rows])
    elif step == "ancestral":
        keep, push = np.exp(h / 2), np.exp(h / 2) * -np.expm1(-h)
        noise = conditional(law, move.moved, (*move.before, *move.references))[2]
    elif step == "ddpm":
        keep, push = np.exp(h / 2), np.exp(h / 2) * -np.expm1(-h)
        noise = np.diag((-np.expm1(-h) * np.expm1(-(level - h)) / np.expm1(-level))[rows])
    elif step == "ddim":
        alpha_t, alpha_s = np.exp(-level / 2), np.exp(-(level - h) / 2)
        sigma_t, sigma_s = np.sqrt(-np.expm1(-level)), np.sqrt(np.maximum(-np.expm1(-(level - h)), 0))
        keep, push = alpha_s / alpha_t, alpha_s / alpha_t * sigma_t**2 - sigma_s * sigma_t
        noise = np.zeros((len(rows), len(rows)))
    else:
        raise ValueError(f"a step is 'exponential', 'euler', 'ancestral', 'ddpm' or 'ddim', got {step!r}")
    gain = keep[:, None] * identity + push[:, None] * score.gain
    return _Kernel(gain[rows], (push * score.offset)[rows], noise)


# -- Q: the sampler -----------------------------------------------------------------------------------


def _sampler_law(plan: Plan, tour: Walk, d: int, kernels: dict[tuple[str, int, int], _Kernel]) -> Law:
    made = Normals(d)

    def start(keys: Sequence[Key]) -> None:
        made.put(keys, made.draw(len(keys) * d), np.zeros(len(keys) * d))

    def run(move: Move) -> None:
        if not move.moving:
            return
        kernel = kernels[move.stage, move.ar_step, move.reverse_step]
        rows, offset = made.take((*move.before, *move.references))
        rows, offset = kernel.gain @ rows, kernel.gain @ offset + kernel.offset
        if np.any(kernel.covariance):
            factor = np.linalg.cholesky(kernel.covariance)
            noise = factor @ made.draw(len(factor))
            rows = made.pad(rows) + noise
        made.put(move.moved, rows, offset)

    start(tour.init_start)
    for move in tour.init_moves:
        run(move)
    for key, source in zip(tour.first, tour.init_end, strict=True):
        made.put_noised(key, source, tour.level[key] - tour.level[source])
    for step in tour.steps:
        for key, source, change in step.fresh:
            made.put_noised(key, source, change)
        start(step.new)
        for move in step.moves:
            run(move)
    return made.law(tour.created)


# -- the terms ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Term:
    """One reverse step's E KL(P ‖ Q) = de + see + cross, and its Girsanov form (nan where there is none)."""

    total: float
    de: float
    see: float
    cross: float
    mean_error: float  # ½ E‖μ_P - μ_*‖² in Q's metric, the part of de that cross is bounded with
    girsanov: float = math.nan


def _inner(law: Law, given: Sequence[Key], a: tuple[Array, Array], b: tuple[Array, Array], metric: Array) -> float:
    """E⟨a(G), b(G)⟩ in ``metric``^{-1} for affine functions a, b of the variables ``given``."""
    (a_gain, a_offset), (b_gain, b_offset) = a, b
    mean = law.mean(given)
    second = a_gain @ law.covariance(given) @ b_gain.T
    second = second + np.outer(a_gain @ mean + a_offset, b_gain @ mean + b_offset)
    return float(np.trace(cho_solve(cho_factor(metric), second)))


def _term(law: Law, move: Move, ideal: _Kernel, actual: _Kernel) -> Term:
    if not np.any(actual.covariance):
        return Term(math.inf, math.inf, math.nan, math.nan, math.nan)
    given = (*move.before, *move.references)
    gain, offset, cov = conditional(law, move.moved, given)
    zero = np.zeros(len(cov))
    spread = gaussian_kl(zero, cov, zero, actual.covariance)
    bias = (ideal.gain - gain, ideal.offset - offset)
    error = (actual.gain - ideal.gain, actual.offset - ideal.offset)
    both = (actual.gain - gain, actual.offset - offset)
    metric = actual.covariance
    mean_error = 0.5 * _inner(law, given, bias, bias, metric)
    return Term(
        total=spread + 0.5 * _inner(law, given, both, both, metric),
        de=spread + mean_error,
        see=0.5 * _inner(law, given, error, error, metric),
        cross=_inner(law, given, bias, error, metric),
        mean_error=mean_error,
    )


def _kernel_kl(p: Law, q: Law, ar: ArStep) -> float:
    """E KL(P(out | in) ‖ Q(out | in)): both conditionals are regressions, averaged over the true input."""
    out = [key for key in ar.output if key not in ar.inputs]
    gain, offset, own = conditional(p, out, ar.inputs)
    q_gain, q_offset, q_own = conditional(q, out, ar.inputs)
    if np.linalg.eigvalsh(q_own)[0] <= 1e-12 * np.linalg.eigvalsh(q.covariance(out))[-1]:
        return math.inf
    zero, gap = np.zeros(len(own)), (gain - q_gain, offset - q_offset)
    return gaussian_kl(zero, own, zero, q_own) + 0.5 * _inner(p, ar.inputs, gap, gap, q_own)


def _girsanov(step: Step, covariance: Array, mean: Array, d: int, move: Move, theta: Score, nodes: int) -> float:
    """½ Σ_j h_j ∫_0^1 E‖s*_j(W_u) - s_θ,j(W^m) [+ ½ (W_u - W^m)_j for Euler]‖² du by Gauss-Legendre."""
    points, weights = np.polynomial.legendre.leggauss(nodes)
    h = np.repeat(move.steps, d)
    n = len(h)
    inside: list[Key] = [("inside", frame, 0) for frame in move.frames]
    before: list[Key] = [("before", frame, 0) for frame in move.frames]
    references: list[Key] = [("reference", frame, 0) for frame in move.reference_frames]
    total = 0.0
    for u, weight in zip((points + 1) / 2, weights / 2, strict=True):
        made = Normals(d)
        clean = clean_frames(made, covariance, mean, sorted((*move.frames, *move.reference_frames)))
        for j, frame in enumerate(move.frames):
            made.put_noised(inside[j], clean[frame], move.levels[j] - u * move.steps[j])
            made.put_noised(before[j], inside[j], u * move.steps[j])
        for key, frame, level in zip(references, move.reference_frames, move.reference_levels, strict=True):
            made.put_noised(key, clean[frame], level)
        law = made.law((*inside, *before, *references))
        exact = exact_score(law, inside, references)
        extra = 0.5 * np.eye(n) if step == "euler" else np.zeros((n, n))
        gain = np.hstack([exact.window + extra, -theta.window - extra, exact.references - theta.references])
        gap = (np.sqrt(h)[:, None] * gain, np.sqrt(h) * (exact.offset - theta.offset))
        total += float(weight) * 0.5 * _inner(law, law.keys, gap, gap, np.eye(n))
    return total


# -- the ledger ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DenseLedger:
    """All numbers of the ledger, in nats; lists run over AR steps k = 1..K.

    Attributes:
        clean: KL of all clean frames that are out.
        trajectory: KL of the trajectory by one dense KL (inf for a deterministic step).
        ledger: IE + Σ_k [NIE_AR,k + Σ_m terms + MB_k], from the terms.
        girsanov: the Girsanov form of the whole (nan where there is none, or when not asked for).
        ie: KL of Input_1 (w = Δ: of the first Δ clean frames).
        ie_bound: NIE_init + Σ terms of the initialisation stage, at least ``ie``.
        nie_init: KL(P(X^T_init) ‖ N(0, I)).
        init_terms: the initialisation stage's terms, one a reverse step.
        nie_ar: NIE_AR,k.
        terms: terms[k-1][m].
        mb: MB_k.
        mb_unnoised: I(Output_k; Past_k | references before noising), for w = Δ; else nan.
        lower_bound: IE + Σ_k mb_unnoised, at most ``clean``; nan for w > Δ.
        clip: KL of the Δ clean frames of AR step k.
        output: KL of Output_k.
        ar_step_errors: E KL(P(Output_k | Input_k) ‖ Q(Output_k | Input_k)); inf where Q's is singular.
        clip_bound: IE + Σ_{i≤k} [NIE_AR,i + Σ_m terms], which bounds clip and output where the input of
            every step is a function of the last step's input and output and of independent noise.
        p: the law P of the trajectory.
        q: the law Q of the trajectory.
        tour: the walk that names their variables.
    """

    clean: float
    trajectory: float
    ledger: float
    girsanov: float
    ie: float
    ie_bound: float
    nie_init: float
    init_terms: list[Term]
    nie_ar: list[float]
    terms: list[list[Term]]
    mb: list[float]
    mb_unnoised: list[float]
    lower_bound: float
    clip: list[float]
    output: list[float]
    ar_step_errors: list[float]
    clip_bound: list[float]
    p: Law = field(repr=False)
    q: Law = field(repr=False)
    tour: Walk = field(repr=False)

    def sum_of(self, column: str) -> float:
        """Sum of one column (total, de, see, cross, girsanov) over the AR steps' reverse steps."""
        return float(sum(getattr(term, column) for terms in self.terms for term in terms))


def dense_ledger(
    covariance: Array,
    mean: Array | None,
    frame_dim: int,
    plan: Plan,
    ar_steps: int,
    step: Step = "exponential",
    score_error: float = 0.0,
    modify: Modify | None = None,
    masked_target: bool = False,
    nodes: int = 0,
) -> DenseLedger:
    """The exact ledger of ``ar_steps`` AR steps of ``plan``, from dense joint laws.

    Args:
        covariance: of the clean video, (N d, N d), frame-major; N at least ``plan.total_frames(ar_steps)``.
        mean: (N d,), or None for zero.
        frame_dim: d.
        plan: the plan; where it has a mask, the sampler's score is the exact score of what each frame sees.
        ar_steps: K.
        step: ``exponential``, ``euler``, ``ancestral`` (exact posterior covariance), ``ddpm`` or ``ddim``.
        score_error: e in s_θ(W, R) = s(W, R) - e W, in both stages.
        modify: any further affine change of s_θ, given the step's :class:`Move`.
        masked_target: whether μ_* too sees only what the mask shows (the loss then stands in de, not see).
        nodes: Gauss-Legendre nodes of the Girsanov form; 0 leaves it out.
    """
    d = frame_dim
    covariance = np.asarray(covariance, dtype=np.float64)
    mean = np.zeros(len(covariance)) if mean is None else np.asarray(mean, dtype=np.float64)
    tour = walk(plan, ar_steps)
    p, p_init = true_laws(covariance, mean, d, plan, tour)
    kernels: dict[tuple[str, int, int], _Kernel] = {}
    has_girsanov = nodes > 0 and step in ("exponential", "euler")

    def term_of(law: Law, move: Move) -> Term:
        if not move.moving:
            return Term(0.0, 0.0, 0.0, 0.0, 0.0, 0.0 if has_girsanov else math.nan)
        exact, seen, theta = _scores(law, plan, move, score_error, modify)
        actual = _kernel(step, law, move, theta)
        kernels[move.stage, move.ar_step, move.reverse_step] = actual
        ideal = _kernel(step, law, move, seen if masked_target else exact)
        term = _term(law, move, ideal, actual)
        if not has_girsanov:
            return term
        return replace(term, girsanov=_girsanov(step, covariance, mean, d, move, theta, nodes))

    init_terms = [term_of(p_init, move) for move in tour.init_moves]
    terms = [[term_of(p, move) for move in ar.moves] for ar in tour.steps]
    q = _sampler_law(plan, tour, d, kernels)

    def standard_kl(law: Law, keys: Sequence[Key], given: Sequence[Key]) -> float:
        """E KL(P(keys | given) ‖ N(0, I))."""
        gain, offset, cov = conditional(law, keys, given)
        zero, one = np.zeros(len(cov)), np.eye(len(cov))
        own = (gain, offset)
        return gaussian_kl(zero, cov, zero, one) + 0.5 * _inner(law, given, own, own, one)

    nie_init = standard_kl(p_init, tour.init_start, ())
    nie_ar = [standard_kl(p, ar.new, ar.inputs) for ar in tour.steps]
    mb, mb_unnoised = [], []
    for ar in tour.steps:
        out = [key for key in ar.output if key not in ar.inputs]
        mb.append(information(p, out, ar.past, ar.inputs) if ar.past else 0.0)
        rest = [key for key in ar.past if key not in ar.sources]
        plain = math.nan if plan.overlapping else information(p, out, rest, ar.sources) if rest else 0.0
        mb_unnoised.append(plain)
    ie = law_kl(p, q, tour.first)
    spent = [nie + sum(term.total for term in row) for nie, row in zip(nie_ar, terms, strict=True)]
    path = sum(term.girsanov for row in ([*terms, init_terms]) for term in row)
    return DenseLedger(
        clean=law_kl(p, q, tour.clean),
        trajectory=math.inf if step == "ddim" else law_kl(p, q, tour.created),
        ledger=ie + sum(spent) + sum(mb),
        girsanov=nie_init + sum(nie_ar) + sum(mb) + path if has_girsanov else math.nan,
        ie=ie,
        ie_bound=nie_init + sum(term.total for term in init_terms),
        nie_init=nie_init,
        init_terms=init_terms,
        nie_ar=nie_ar,
        terms=terms,
        mb=mb,
        mb_unnoised=mb_unnoised,
        lower_bound=ie + sum(mb_unnoised),
        clip=[law_kl(p, q, ar.clip) for ar in tour.steps],
        output=[law_kl(p, q, ar.output) for ar in tour.steps],
        ar_step_errors=[_kernel_kl(p, q, ar) for ar in tour.steps],
        clip_bound=[float(bound) for bound in ie + np.cumsum(spent)],
        p=p,
        q=q,
        tour=tour,
    )
