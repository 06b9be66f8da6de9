"""Dense joint Gaussian laws, and a plan walked through variable by variable: what :mod:`dense_reference` reads.

Every variable of the trajectory is an affine function of independent unit normals, and every number is read off
means and covariances: KL divergences of sub-vectors, regressions of one sub-vector on another, differences of
log-determinants. Only the plan's public attributes are read, and no formula is shared with the library. Units
are nats.

A variable's key is one of

- ``("state", frame, n)``: the frame after its n-th move of the trajectory (n = 0: as it entered);
- ``("init", frame, n)``: the same inside the initialisation stage;
- ``("reference", frame, k)``: the frame as AR step k noised it afresh.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular

from arvdm_theory import Plan

__all__ = [
    "ArStep",
    "Array",
    "Key",
    "Law",
    "Move",
    "Normals",
    "Walk",
    "clean_frames",
    "conditional",
    "gaussian_kl",
    "information",
    "law_kl",
    "true_laws",
    "walk",
]

Array = NDArray[np.float64]
Key = tuple[str, int, int]


# -- Gaussian laws of named variables -----------------------------------------------------------------


@dataclass(frozen=True)
class Law:
    """A Gaussian law of named frames: ``rows`` and ``offset`` of X = rows @ z + offset, z ~ N(0, I)."""

    keys: tuple[Key, ...]
    rows: Array
    offset: Array
    frame_dim: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "_place", {key: n for n, key in enumerate(self.keys)})
        object.__setattr__(self, "_covariance", self.rows @ self.rows.T)

    def _index(self, keys: Sequence[Key]) -> NDArray[np.intp]:
        place: dict[Key, int] = self.__dict__["_place"]
        d = self.frame_dim
        return np.array([place[key] * d + i for key in keys for i in range(d)], dtype=np.intp)

    def mean(self, keys: Sequence[Key]) -> Array:
        return self.offset[self._index(keys)]

    def covariance(self, keys: Sequence[Key], others: Sequence[Key] | None = None) -> Array:
        everything: Array = self.__dict__["_covariance"]
        return everything[np.ix_(self._index(keys), self._index(keys if others is None else others))]


class Normals:
    """Variables under construction: each a pair (rows, offset) over the unit normals drawn so far."""

    def __init__(self, frame_dim: int) -> None:
        self.frame_dim = frame_dim
        self.width = 0
        self.made: dict[Key, tuple[Array, Array]] = {}

    def draw(self, size: int) -> Array:
        """``size`` new unit normals, as rows."""
        rows = np.zeros((size, self.width + size))
        rows[:, self.width :] = np.eye(size)
        self.width += size
        return rows

    def pad(self, rows: Array) -> Array:
        if rows.shape[1] == self.width:
            return rows
        wide = np.zeros((len(rows), self.width))
        wide[:, : rows.shape[1]] = rows
        return wide

    def take(self, keys: Sequence[Key]) -> tuple[Array, Array]:
        rows = [self.pad(self.made[key][0]) for key in keys]
        return np.vstack(rows), np.concatenate([self.made[key][1] for key in keys])

    def put(self, keys: Sequence[Key], rows: Array, offset: Array) -> None:
        d = self.frame_dim
        for n, key in enumerate(keys):
            if key in self.made:
                raise AssertionError(f"{key} would be created twice")
            self.made[key] = (rows[n * d : (n + 1) * d], offset[n * d : (n + 1) * d])

    def put_noised(self, key: Key, source: Key, level_change: float) -> None:
        """X^t = a X^s + √v z with a = e^{-(t-s)/2}, v = 1 - e^{-(t-s)} and new z."""
        rows, offset = self.made[source]
        a, v = math.exp(-level_change / 2), -math.expm1(-level_change)
        noise = math.sqrt(v) * self.draw(self.frame_dim)
        self.put([key], a * self.pad(rows) + noise, a * offset)

    def law(self, keys: Sequence[Key]) -> Law:
        rows, offset = self.take(keys)
        return Law(tuple(keys), rows, offset, self.frame_dim)


def gaussian_kl(mean_p: Array, cov_p: Array, mean_q: Array, cov_q: Array) -> float:
    """KL(N(mean_p, cov_p) ‖ N(mean_q, cov_q)) as ½ Σ (x - log(1+x)) + ½‖Δ‖², 1+x the whitened spectrum."""
    factor = np.linalg.cholesky(cov_q)
    half = solve_triangular(factor, cov_p - cov_q, lower=True)
    x = np.linalg.eigvalsh(solve_triangular(factor, half.T, lower=True))
    shift = solve_triangular(factor, mean_p - mean_q, lower=True)
    return float(0.5 * np.sum(x - np.log1p(x)) + 0.5 * shift @ shift)


def law_kl(p: Law, q: Law, keys: Sequence[Key]) -> float:
    """KL between the laws that P and Q give to ``keys``."""
    return gaussian_kl(p.mean(keys), p.covariance(keys), q.mean(keys), q.covariance(keys))


def conditional(law: Law, target: Sequence[Key], given: Sequence[Key]) -> tuple[Array, Array, Array]:
    """(G, c, C) with target | given ~ N(G given + c, C)."""
    cov = law.covariance(target)
    if not given:
        return np.zeros((len(cov), 0)), law.mean(target), cov
    cross = law.covariance(given, target)
    gain: Array = cho_solve(cho_factor(law.covariance(given)), cross).T
    return gain, law.mean(target) - gain @ law.mean(given), cov - gain @ cross


def log_det(law: Law, keys: Sequence[Key]) -> float:
    if not keys:
        return 0.0
    return float(2 * np.sum(np.log(np.diag(np.linalg.cholesky(law.covariance(keys))))))


def information(law: Law, a: Sequence[Key], b: Sequence[Key], given: Sequence[Key] = ()) -> float:
    """I(A; B | C) = ½ [log|AC| + log|BC| - log|C| - log|ABC|]."""
    a, b, c = list(a), list(b), list(given)
    return 0.5 * (log_det(law, a + c) + log_det(law, b + c) - log_det(law, c) - log_det(law, a + b + c))


# -- the plan, walked through -------------------------------------------------------------------------


@dataclass(frozen=True)
class Move:
    """One reverse step: ``before`` → ``after``; both name the whole window, frames that stay in both.

    Attributes:
        stage: ``init`` or ``ar``.
        ar_step: k, from 1 (0 in the initialisation stage).
        reverse_step: m, from 0.
        frames: the frames of the window.
        levels: their levels before.
        steps: h_j; 0 for those that stay.
        references: the keys of R_k.
        reference_frames: their frames.
        reference_levels: their levels.
    """

    stage: str
    ar_step: int
    reverse_step: int
    frames: tuple[int, ...]
    before: tuple[Key, ...]
    after: tuple[Key, ...]
    levels: tuple[float, ...]
    steps: tuple[float, ...]
    references: tuple[Key, ...] = ()
    reference_frames: tuple[int, ...] = ()
    reference_levels: tuple[float, ...] = ()

    @property
    def moving(self) -> tuple[int, ...]:
        return tuple(j for j, h in enumerate(self.steps) if h > 0)

    @property
    def moved(self) -> tuple[Key, ...]:
        return tuple(self.after[j] for j in self.moving)


@dataclass(frozen=True)
class ArStep:
    """One AR step: its input, what it creates, in order, and what it puts out."""

    index: int
    inputs: tuple[Key, ...]
    fresh: tuple[tuple[Key, Key, float], ...]  # noised reference, its source, and by how much
    new: tuple[Key, ...]
    moves: tuple[Move, ...]
    output: tuple[Key, ...]
    clip: tuple[Key, ...]
    past: tuple[Key, ...]
    sources: tuple[Key, ...]  # the references before noising


@dataclass(frozen=True)
class Walk:
    """Everything that ``ar_steps`` AR steps of a plan create, in order.

    Attributes:
        level: the level of every state.
        init_start: the initialisation stage's X^T.
        init_end: what it ends with (before any noising afresh), in order of ``first``.
        first: the state variables the trajectory starts with.
        created: all trajectory variables, in order of creation.
        clean: all clean frames that are out at the end.
    """

    level: dict[Key, float]
    init_start: tuple[Key, ...]
    init_moves: tuple[Move, ...]
    init_end: tuple[Key, ...]
    first: tuple[Key, ...]
    steps: tuple[ArStep, ...]
    created: tuple[Key, ...]
    clean: tuple[Key, ...]


def walk(plan: Plan, ar_steps: int) -> Walk:
    """Walks through the plan, giving each frame a new state whenever its level falls."""
    level: dict[Key, float] = {}

    def moves_of(
        stage: str, k: int, frames: Sequence[int], states: list[Key], grid: Sequence[Sequence[float]],
        references: Sequence[tuple[Key, int, float]] = (),
    ) -> tuple[Move, ...]:  # fmt: skip
        moves = []
        for m in range(len(grid) - 1):
            before, levels = tuple(states), tuple(level[key] for key in states)
            steps = tuple(max(old - new, 0.0) for old, new in zip(levels, grid[m + 1], strict=True))
            for j, h in enumerate(steps):
                if h > 0:
                    kind, frame, n = states[j]
                    states[j] = (kind, frame, n + 1)
                    level[states[j]] = grid[m + 1][j]
            keys, of, at = zip(*references, strict=True) if references else ((), (), ())
            moves.append(Move(stage, k, m, tuple(frames), before, tuple(states), levels, steps, keys, of, at))
        return tuple(moves)

    init_frames = range(plan.init_frames)
    init_states: list[Key] = [("init", frame, 0) for frame in init_frames]
    level.update(dict.fromkeys(init_states, plan.horizon))
    init_start = tuple(init_states)
    init_moves = moves_of("init", 0, init_frames, init_states, plan.init_grid)

    now: dict[int, Key] = {frame: ("state", frame, 0) for frame in init_frames}
    for frame, key in now.items():
        level[key] = plan.input_levels[frame] if plan.overlapping else plan.floor
    first = tuple(now.values())
    created = list(first)
    clean = [] if plan.overlapping else list(first)

    steps = []
    for k in range(1, ar_steps + 1):
        frames = plan.window_frames(k)
        references: list[tuple[Key, int, float]] = []
        fresh: list[tuple[Key, Key, float]] = []
        for reference in plan.references_at(k):
            source = now[reference.frame]
            if reference.level <= plan.floor:
                references.append((source, reference.frame, plan.floor))
            else:
                noised: Key = ("reference", reference.frame, k)
                fresh.append((noised, source, reference.level - plan.floor))
                references.append((noised, reference.frame, reference.level))
        kept = tuple(now[frame] for frame in frames if frame in now)
        new: list[Key] = [("state", frame, 0) for frame in frames if frame not in now]
        if len(new) != plan.stride:
            raise AssertionError(f"AR step {k} brings in {len(new)} new frames, not {plan.stride}")
        level.update(dict.fromkeys(new, plan.horizon))
        now.update({frame: ("state", frame, 0) for frame in frames if frame not in now})
        past = tuple(now[frame] for frame in plan.past_frames(k))
        sources = tuple(now[frame] for _, frame, _ in references)

        states = [now[frame] for frame in frames]
        entry = tuple(level[key] for key in states)
        if entry != plan.ar_grid[0]:
            raise AssertionError(f"AR step {k} takes frames at {entry}, the plan says {plan.ar_grid[0]}")
        moves = moves_of("ar", k, frames, states, plan.ar_grid, references)
        now.update(zip(frames, states, strict=True))
        clip = tuple(states[: plan.stride])
        steps.append(
            ArStep(
                index=k,
                inputs=(*kept, *(key for key, _, _ in references)),
                fresh=tuple(fresh),
                new=tuple(new),
                moves=moves,
                output=tuple(states),
                clip=clip,
                past=past,
                sources=sources,
            )
        )
        created += [key for key, _, _ in fresh] + new + [key for move in moves for key in move.moved]
        clean += clip
    return Walk(
        level, init_start, init_moves, tuple(init_states), first, tuple(steps), tuple(created), tuple(clean)
    )


# -- P: the video and its forward noise ---------------------------------------------------------------


def clean_frames(made: Normals, covariance: Array, mean: Array, frames: Sequence[int]) -> dict[int, Key]:
    d = made.frame_dim
    pick = np.array([frame * d + i for frame in frames for i in range(d)], dtype=np.intp)
    factor = np.linalg.cholesky(covariance[np.ix_(pick, pick)])
    keys: list[Key] = [("clean", frame, 0) for frame in frames]
    made.put(keys, factor @ made.draw(len(pick)), mean[pick])
    return dict(zip(frames, keys, strict=True))


def true_laws(covariance: Array, mean: Array, frame_dim: int, plan: Plan, tour: Walk) -> tuple[Law, Law]:
    """P of the trajectory and P of the initialisation stage (each frame on one forward path in either)."""

    def noise_up(states: Sequence[Key]) -> Normals:
        made = Normals(frame_dim)
        clean = clean_frames(made, covariance, mean, sorted({frame for _, frame, _ in states}))
        for frame, source in clean.items():
            low = 0.0
            for key in sorted((key for key in states if key[1] == frame), key=tour.level.__getitem__):
                made.put_noised(key, source, tour.level[key] - low)
                source, low = key, tour.level[key]
        return made

    states = [key for key in tour.created if key[0] == "state"]
    made = noise_up(states)
    for step in tour.steps:
        for key, source, change in step.fresh:
            made.put_noised(key, source, change)
    init_states = [*tour.init_start, *(key for move in tour.init_moves for key in move.moved)]
    return made.law(tour.created), noise_up(init_states).law(init_states)
