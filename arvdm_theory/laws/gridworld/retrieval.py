"""The needle in a haystack: memory bottleneck and best retrieval rate of a walker's video, in closed form.

A :class:`~arvdm_theory.laws.gridworld.video.GridVideo` without observation noise, its actions known: the path is
independent of the colours and everyone conditions on it. A set A of frames then reveals the colours of the cells
V(A) that they show, no more and no less, and the colours are independent. For a plan with w = Δ and clean
references, whose only input is R_k,

    MB_k = I(Out_k; Past_k | R_k, path) = E Σ_c H(p_c) · 1[c ∈ V(Out_k) ∩ V(Past_k) ∖ V(R_k)],            (1)

because given R_k the common part of Out_k and Past_k is the colours of exactly these cells, and what else each
shows is independent of all the rest.

**Best retrieval.** Frame t of Out_k is a *revisit* if every cell it shows was shown by a frame that is out, and a
cell that it shows and that was shown before is a *needle*. A generator Q(x_t | R_k, path) succeeds with
probability

    E Q(X_t | R_k, path) = E Σ_x P(x | R_k, path) Q(x | R_k, path) ≤ E max_x P(x | R_k, path),              (2)

as a mean is at most the largest value, with equality for the generator that says the likeliest frame. By
independence the posterior is a product over the cells of the frame: 1 for a cell in V(R_k), the prior p_c for
another. So the best generator, of any kind and size, succeeds on frame t with probability
E Π_{c ∈ V(t) ∖ V(R_k)} max p_c, and on a needle with probability 1 or max p_c. One that *samples* the true
conditional, as an ideal diffusion model does, has Σ_x p_c(x)² in place of max p_c. References hold true frames.

**Retrieval against memory bottleneck.** On a revisit, H(X_t | R_k, path) = I(X_t; Past_k | R_k, path) =: I_t,
as all its cells are in Past_k or R_k. With I = E I_t over the revisits, A the number of frames that could be, and
h the binary entropy,

    e^{-I} ≤ best success rate = 1 - P_e,        I ≤ h(P_e) + P_e log(A - 1).                                (3)

The left side: given the path, Π max p_c = e^{-Σ H_∞(p_c)} ≥ e^{-Σ H(p_c)}, as min-entropy is at most Shannon's;
then Jensen. (Σ p_c² = e^{-H_2}, so it holds for the sampling generator too.) The right side is Fano's inequality:
for any guess, H(X_t | R) ≤ h(P_e) + P_e log(A - 1) given the path, and the right side is concave in P_e. If
every colour is equally likely and a frame shows one cell, I = L log C and P_e = L (1 - 1/C) with L the share of
needles lost from memory: the memory bottleneck *is* the retrieval error in other units.

With *unknown* actions the path must be inferred from the frames. Then (1) is not in closed form, unless positions
can be read off the frames; it is a matter of hidden Markov inference on (path, map), not treated here. Nor are
noisy frames or references.

Source: arXiv 2503.10704 for the memory bottleneck; Cover and Thomas, Elements of Information Theory, section 2.10,
for Fano's inequality.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.sparse import csr_array, hstack, kron, vstack
from scipy.sparse import eye_array as identity

from arvdm_theory.laws.gridworld.video import GridVideo
from arvdm_theory.plan.plan import Plan

__all__ = [
    "Guess",
    "NeedleError",
    "Retrieval",
    "SampledRetrieval",
    "TooManyCellsError",
    "cell_entropies",
    "expected_retrieval",
    "fano_error",
    "largest_frame_entropy",
    "retrieval_along",
    "retrieval_bounds",
    "sampled_retrieval",
]

Array = NDArray[np.float64]
Guess = Literal["best", "sample"]

# What the exact recursion for whole frames may cost: some 5 to 10 s on one core, and half a gigabyte.
_MOST_WORK = 2**29
_LARGEST_TABLE = 2**26
_WALKS_AT_ONCE = 256


class NeedleError(ValueError):
    """The closed forms do not hold for this video or plan; the message says which condition is missing."""


class TooManyCellsError(NeedleError):
    """Frames show too many cells for the exact recursion over whole frames; the message says how much it needs."""


@dataclass(frozen=True)
class Retrieval:
    """Memory bottleneck and retrieval over K AR steps; the counts are expected numbers over all of them.

    Attributes:
        bottleneck: MB_k in nats, (K,).
        needles: needles, and
        needle_hits: needles got right.
        revisits: revisited frames,
        frame_hits: those of them that are right in every cell, and
        lost: I_t summed over them, in nats. All three None where whole frames were left out.
    """

    bottleneck: Array
    needles: float
    needle_hits: float
    revisits: float | None = None
    frame_hits: float | None = None
    lost: float | None = None

    @property
    def total(self) -> float:
        """Σ_k MB_k in nats."""
        return float(self.bottleneck.sum())

    @property
    def needle_rate(self) -> float:
        """Share of needles got right; NaN if there is no needle."""
        return _ratio(self.needle_hits, self.needles)

    @property
    def frame_rate(self) -> float:
        """Share of revisits got right in every cell; NaN if there is none, or whole frames were left out."""
        return _ratio(self.frame_hits, self.revisits)

    @property
    def lost_per_revisit(self) -> float:
        """I of equation (3) in nats; NaN as :attr:`frame_rate`."""
        return _ratio(self.lost, self.revisits)


@dataclass(frozen=True)
class SampledRetrieval:
    """Monte Carlo means with their standard errors.

    Attributes:
        mean: sample means of everything.
        total_error: standard error of ``mean.total``.
        needle_rate_error, frame_rate_error: of the two rates, by the delta method for a ratio of means.
    """

    mean: Retrieval
    total_error: float
    needle_rate_error: float
    frame_rate_error: float


def cell_entropies(video: GridVideo) -> Array:
    """H(p_c) of every cell in nats, (cells,)."""
    entropies: Array = torch.special.entr(video.prior).sum(-1).numpy()
    return entropies


def largest_frame_entropy(video: GridVideo) -> float:
    """The largest log A over poses, A = Π_{c ∈ V(pose)} |support of p_c| being how many frames there could be."""
    return float((video.visible @ np.log((video.prior > 0).sum(-1).numpy())).max())


def fano_error(information: float, log_alphabet: float) -> float:
    """The least P_e with I ≤ h(P_e) + P_e log(A - 1): no guess of a value of entropy I errs less often.

    Args:
        information: I = H(X | what is known) in nats.
        log_alphabet: log A, A ≥ 2 being the number of values.

    Raises:
        NeedleError: if I is not in [0, log A].

    Example:
        >>> round(fano_error(math.log(4), math.log(4)), 12)  # nothing known of 4 equally likely values
        0.75
    """
    if not log_alphabet >= math.log(2) * (1 - 1e-15):
        raise NeedleError(f"Fano's inequality needs at least 2 values, got a log alphabet of {log_alphabet}")
    if not 0 <= information <= log_alphabet * (1 + 1e-12):
        raise NeedleError(f"the entropy must lie in [0, log A = {log_alphabet}], got {information}")
    log_others = log_alphabet + math.log1p(-math.exp(-log_alphabet))
    highest = -math.expm1(-log_alphabet)  # 1 - 1/A, where the right side is log A

    def surplus(error: float) -> float:
        if error <= 0:
            return -information
        return -error * math.log(error) - (1 - error) * math.log1p(-error) + error * log_others - information

    if information <= 0 or surplus(highest) <= 0:
        return highest if information > 0 else 0.0
    return float(brentq(surplus, 0.0, highest, xtol=1e-15))


def retrieval_bounds(information: float, log_alphabet: float) -> tuple[float, float]:
    """Between which values the best success rate lies: e^{-I} and 1 - :func:`fano_error`, equation (3).

    Raises:
        NeedleError: as :func:`fano_error`.
    """
    return math.exp(-information), 1 - fano_error(information, log_alphabet)


def retrieval_along(
    video: GridVideo, plan: Plan, path: ArrayLike, ar_steps: int, guess: Guess = "best"
) -> Retrieval:
    """Memory bottleneck and retrieval of a plan along one path: sums over its cells, exact.

    Args:
        video: the map's law and view; its own path is not used.
        plan: w = Δ, with clean references by any rule.
        path: poses, at least (K + 1) Δ of them.
        ar_steps: K.
        guess: the best generator, or the one that samples the true conditional.

    Raises:
        NeedleError: if the frames or references are noisy, the plan has w > Δ, or the path is too short.
    """
    _check(video, plan, ar_steps)
    frames = plan.total_frames(ar_steps)
    poses = np.asarray(path)
    if poses.ndim != 1 or len(poses) < frames:
        raise NeedleError(f"{ar_steps} AR steps need a path of {frames} poses, got shape {poses.shape}")
    hit = _hit_rates(video, guess)
    sums = _sums(video.visible[poses[None, :frames]], cell_entropies(video)[None], hit[None], plan, ar_steps)
    return _mean(sums)


def sampled_retrieval(
    video: GridVideo,
    plan: Plan,
    ar_steps: int,
    walks: int = 1000,
    generator: torch.Generator | None = None,
    guess: Guess = "best",
) -> SampledRetrieval:
    """The same by playing: sampled maps and paths, a generator that guesses, hits counted.

    The memory bottleneck is the mean of the information density Σ_c -log p_c(colour of c) over the cells of (1).

    Raises:
        NeedleError: if the frames or references are noisy, the plan has w > Δ, or there are fewer than 2 walks.
    """
    _check(video, plan, ar_steps)
    if walks < 2:
        raise NeedleError(f"a standard error needs at least 2 walks, got {walks}")
    parts = []
    cells = np.arange(video.world.cells)
    for first in range(0, walks, _WALKS_AT_ONCE):
        count = min(_WALKS_AT_ONCE, walks - first)
        maps = video.sample_maps(count, generator)
        said = video.prior.argmax(-1) if guess == "best" else video.sample_maps(count, generator)
        paths = video.sample_paths(count, plan.total_frames(ar_steps), generator).numpy()
        surprise = -np.log(video.prior.numpy()[cells, maps.numpy()])
        right = (maps == said).numpy().astype(np.float64)
        parts.append(_sums(video.visible[paths], surprise, right, plan, ar_steps))
    sums = _Sums(*(np.concatenate(column) for column in zip(*(part.columns for part in parts), strict=True)))
    total = sums.bottleneck.sum(-1)
    return SampledRetrieval(
        _mean(sums),
        float(total.std(ddof=1) / math.sqrt(walks)),
        _ratio_error(sums.needle_hits, sums.needles),
        _ratio_error(sums.frame_hits, sums.revisits),
    )


def expected_retrieval(
    video: GridVideo,
    memories: Sequence[int],
    ar_steps: int,
    window: int = 1,
    guess: Guess = "best",
    whole_frames: bool = True,
) -> tuple[Retrieval, ...]:
    """Expectation over the random walk, for plans that remember the last m frames: exact, no sampling.

    A cell is lost at AR step k if it was visited, but not in the last m frames. With n = kΔ frames out, the walk
    is cut at frame n - m - 1: forward, the law of the pose there together with "c was seen"; backward, the chance
    to miss c for m frames and then meet it. Both are one sparse product a frame and serve every k and every m.
    Whole frames take the same recursion on (pose, which of the frame's cells are missing), 2^|V| states a pose.

    Args:
        video: with a random walk.
        memories: m of each plan: the last m frames, or all where fewer are out; 0 for none.
        ar_steps: K.
        window: w = Δ.
        guess: the best generator, or the one that samples the true conditional.
        whole_frames: whether to do the recursion for whole frames.

    Returns:
        One :class:`Retrieval` a memory length.

    Raises:
        NeedleError: if frames are noisy.
        TooManyCellsError: if whole frames show so many cells that their subsets do not fit; sampling or
            ``whole_frames=False`` then remains.
        GridworldError: if the path is given.
    """
    _check_video(video)
    if ar_steps < 1 or window < 1 or not memories or min(memories) < 0:
        raise NeedleError(
            f"at least one AR step, one frame a window and memories ≥ 0 are needed, got {ar_steps}, {window}, "
            f"{list(memories)}"
        )
    step, sees = _chain(video)
    out = [k * window for k in range(1, ar_steps + 1)]
    results = _cells(video, step, sees, memories, out, window, _hit_rates(video, guess))
    if not whole_frames:
        return tuple(results)
    frames = _frames(video, step, sees, memories, out, window, _hit_rates(video, guess))
    return tuple(
        Retrieval(cells.bottleneck, cells.needles, cells.needle_hits, *(float(value) for value in row))
        for cells, row in zip(results, frames, strict=True)
    )


# -- along paths -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Sums:
    """Per path: (paths, K) for the bottleneck, (paths,) for the counts."""

    bottleneck: Array
    needles: Array
    needle_hits: Array
    revisits: Array
    frame_hits: Array
    lost: Array

    @property
    def columns(self) -> tuple[Array, ...]:
        return (self.bottleneck, self.needles, self.needle_hits, self.revisits, self.frame_hits, self.lost)


def _sums(seen: NDArray[np.bool_], surprise: Array, hit: Array, plan: Plan, ar_steps: int) -> _Sums:
    """Equations (1) and (2) along paths that show ``seen`` (paths, frames, cells).

    ``surprise`` and ``hit`` are what a lost cell costs and how likely its guess is right, (paths or 1, cells).
    """
    counts = np.zeros((seen.shape[0], seen.shape[1] + 1, seen.shape[2]), dtype=np.int32)
    np.cumsum(seen, axis=1, out=counts[:, 1:])
    bottleneck = np.zeros((len(seen), ar_steps))
    needles, needle_hits, revisits, frame_hits, lost = np.zeros((5, len(seen)))
    for k in range(1, ar_steps + 1):
        known = np.zeros((len(seen), seen.shape[2]), dtype=bool)
        for first, stop in _runs([reference.frame for reference in plan.references_at(k)]):
            known |= counts[:, stop] > counts[:, first]
        before = counts[:, plan.frames_out(k)] > 0
        shown = seen[:, plan.window_frames(k)]
        bottleneck[:, k - 1] = ((before & ~known & shown.any(1)) * surprise).sum(-1)
        for frame in np.moveaxis(shown, 1, 0):
            missing = frame & ~known
            whole = (before | ~frame).all(-1)
            needles += (frame & before).sum(-1)
            needle_hits += (frame & known).sum(-1) + ((missing & before) * hit).sum(-1)
            revisits += whole
            frame_hits += whole * np.where(missing, hit, 1.0).prod(-1)
            lost += whole * (missing * surprise).sum(-1)
    return _Sums(bottleneck, needles, needle_hits, revisits, frame_hits, lost)


def _runs(frames: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Runs of consecutive numbers in a rising list, as (first, one past the last)."""
    first = 0
    for index in range(1, len(frames) + 1):
        if index == len(frames) or frames[index] != frames[index - 1] + 1:
            yield frames[first], frames[index - 1] + 1
            first = index


def _mean(sums: _Sums) -> Retrieval:
    return Retrieval(sums.bottleneck.mean(0), *(float(column.mean()) for column in sums.columns[1:]))


def _ratio(part: float | None, whole: float | None) -> float:
    return part / whole if part is not None and whole else math.nan


def _ratio_error(part: Array, whole: Array) -> float:
    if not whole.any():
        return math.nan
    residual = part - part.mean() / whole.mean() * whole
    return float(residual.std(ddof=1) / math.sqrt(len(whole)) / whole.mean())


# -- over random walks -----------------------------------------------------------------------------------


def _chain(video: GridVideo) -> tuple[csr_array, Array]:
    """Transition matrix (S + 1, S + 1) and what each state sees (S + 1, cells).

    States are poses, or cells where the picture does not depend on the heading. The last one is "not yet begun":
    it sees nothing and leads to the walk's start, so that frame t is step t + 1.
    """
    step, sees, start = video.transition, video.visible.astype(np.float64), video.start
    if not video.view.sees_heading:
        # A move depends on the cell alone, so the four poses of a cell may be lumped.
        merge = kron(identity(video.world.cells), np.ones((4, 1)))
        step, sees, start = step[::4] @ merge, sees[::4], start // 4
    begin = csr_array(([1.0], ([0], [start])), shape=(1, len(sees)))
    never_back = csr_array((len(sees) + 1, 1))
    return csr_array(hstack([vstack([step, begin]), never_back])), np.vstack([sees, np.zeros(sees.shape[1])])


def _cells(
    video: GridVideo,
    step: csr_array,
    sees: Array,
    memories: Sequence[int],
    out: Sequence[int],
    window: int,
    hit: Array,
) -> list[Retrieval]:
    """Everything that is a sum over single cells; arrays are (steps, states, cells)."""
    back = step.T.tocsr()
    unseen = np.zeros_like(sees)
    unseen[-1] = 1
    seen = np.zeros((out[-1] + 1, *sees.shape))  # P(here, c was seen)
    for t in range(out[-1]):
        arriving = back @ unseen
        seen[t + 1] = back @ seen[t] + arriving * sees
        unseen = arriving * (1 - sees)
    # From the last frame out: chances to meet c in the window, and to see it in its frame j = 1..w.
    meet, visible = np.zeros_like(sees), [step @ sees]
    for _ in range(window):
        meet = step @ (sees + (1 - sees) * meet)
    for _ in range(window - 1):
        visible.append(step @ visible[-1])
    in_frame = sum(visible)
    needles = float(sum((seen[n] * in_frame).sum() for n in out))
    bottleneck = {m: np.zeros(len(out)) for m in memories}
    missed = dict.fromkeys(memories, 0.0)
    entropies = cell_entropies(video)
    for m in range(min(max(memories), out[-1]) + 1):
        if m in bottleneck:
            for k, n in enumerate(out):
                if n > m:
                    bottleneck[m][k] = ((seen[n - m] * meet).sum(0) * entropies).sum()
                    missed[m] += float(((seen[n - m] * in_frame).sum(0) * (1 - hit)).sum())
        meet, in_frame = step @ ((1 - sees) * meet), step @ ((1 - sees) * in_frame)
    return [Retrieval(bottleneck[m], needles, needles - missed[m]) for m in memories]


def _frames(
    video: GridVideo,
    step: csr_array,
    sees: Array,
    memories: Sequence[int],
    out: Sequence[int],
    window: int,
    hit: Array,
) -> Array:
    """Expected revisits, frame hits and nats lost on them: (memories, 3).

    For each set V of cells that a frame may show, with subsets D ⊆ V as bit masks:
    P(here, D ⊆ seen) forward, P(then a frame showing V, the memory missing exactly D) backward.
    """
    shown: dict[tuple[int, ...], list[int]] = {}
    for state, row in enumerate(sees[:-1]):
        shown.setdefault(tuple(np.flatnonzero(row).tolist()), []).append(state)
    deepest = min(max(memories), out[-1])
    most = max(map(len, shown))
    work = sum(2 ** len(cells) for cells in shown) * len(sees) * (out[-1] + window * deepest + window)
    table = 2**most * len(sees) * (out[-1] + 1)
    if work > _MOST_WORK or table > _LARGEST_TABLE:
        raise TooManyCellsError(
            f"whole frames of up to {most} cells need {work:.1e} sums and a table of {table:.1e} numbers, "
            f"more than {_MOST_WORK:.1e} and {_LARGEST_TABLE:.1e}: sample, or leave whole frames out"
        )
    entropies = cell_entropies(video)
    back = step.T.tocsr()
    result = np.zeros((len(memories), 3))
    for cells, states in shown.items():
        size = 2 ** len(cells)
        subsets = np.arange(size)
        member = (subsets[:, None] >> np.arange(len(cells))) & 1
        bits = (sees[:, list(cells)] @ (1 << np.arange(len(cells)))).astype(np.int64)
        rest = subsets & ~bits[:, None]  # what is left of D once the state has been seen
        flat = (np.arange(len(sees))[:, None] * size + rest).ravel()
        forward = np.zeros((out[-1] + 1, len(sees), size))
        forward[0, -1, 0] = 1
        for t in range(out[-1]):
            forward[t + 1] = np.take_along_axis(back @ forward[t], rest, 1)
        for t in range(window, len(forward)):
            forward[t] += forward[t - window]  # now at t = KΔ - m: the sum over all AR steps k with n ≥ m
        worth = np.stack([np.ones(size), np.where(member, hit[list(cells)], 1.0).prod(-1),
                          member @ entropies[list(cells)]])  # fmt: skip
        ahead: Array = np.zeros(len(sees))
        ahead[states] = 1
        for _ in range(window):
            ahead = step @ ahead
            missing: Array = np.zeros((len(sees), size))
            missing[:, -1] = ahead
            for m in range(deepest + 1):
                if m:
                    moved = np.bincount(flat, missing.ravel(), minlength=missing.size)
                    missing = step @ moved.reshape(missing.shape)
                for row, memory in enumerate(memories):
                    if m == memory:
                        result[row] += worth @ (forward[out[-1] - m] * missing).sum(0)
                    elif m < memory and m in out:  # all frames out are in memory: nothing that was seen is missing
                        result[row] += worth[:, 0] * missing[-1, 0]
    return result


# -- conditions ------------------------------------------------------------------------------------------


def _hit_rates(video: GridVideo, guess: Guess) -> Array:
    """How likely the guess of a cell that is not in memory is right, (cells,)."""
    if guess not in ("best", "sample"):
        raise NeedleError(f"the generator's guess is 'best' or 'sample', got {guess!r}")
    rates: Array = (video.prior.amax(-1) if guess == "best" else video.prior.square().sum(-1)).numpy()
    return rates


def _check_video(video: GridVideo) -> None:
    if video.noise:
        raise NeedleError(
            f"the closed forms need frames that show their cells' colours exactly, but the observation noise is "
            f"{video.noise}"
        )


def _check(video: GridVideo, plan: Plan, ar_steps: int) -> None:
    _check_video(video)
    if ar_steps < 1:
        raise NeedleError(f"at least one AR step is needed, got {ar_steps}")
    if plan.overlapping:
        raise NeedleError(
            f"the closed forms need w = Δ, so that references are all of the input; got w = {plan.window}, "
            f"Δ = {plan.stride}"
        )
    if plan.references.noised or plan.floor > 0:
        raise NeedleError("the closed forms need clean references and outputs: no reference level, floor 0")
