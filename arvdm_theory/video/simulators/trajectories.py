"""Walks with something to remember: turn and come back, walk away and come back, explore.

Poses live on a lattice, so that "the same pose again" is an equality of whole numbers and not of rounded ones. Its
unit is half a forward step and half a turn step: a walk takes whole steps (2 units), and the poses in between are
reached only where they are asked for. Where steps slip, poses leave the lattice, no pose is ever met twice, and
the way back is remembered by views that are near.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from arvdm_theory.video.simulators.worlds import FORWARD, LEFT, MOVES, RIGHT, pose_distance

__all__ = ["Kind", "Path", "Trajectory"]

Kind = Literal["turn", "walk", "explore"]

# Shares of an exploration: goals that were passed before, and goals where the walker looks around.
_BACK_TO_A_KNOWN_PLACE = 0.5
_LOOK_AROUND = 0.3

# How many starts a walk tries before it gives up; in a world with any room the first will do.
_STARTS = 32

# Beyond it a walk between walls might touch them, or a step go backwards in sight of where it set out.
_MOST_SLIP = 0.5


@dataclass(frozen=True, eq=False)
class Path:
    """A walk: T actions, the T poses where they are taken, and what must be remembered.

    Attributes:
        actions: int64, shape (T,).
        poses: float64, shape (T, 3): x, y in cells and heading in degrees. Equal lattice points give equal bits.
        needles: int64, shape (n, 2), and
        between: int64, shape (m, 3), as :class:`~arvdm_theory.video.simulators.episodes.Episode` defines them.
    """

    actions: NDArray[np.int64]
    poses: NDArray[np.float64]
    needles: NDArray[np.int64]
    between: NDArray[np.int64]


class _Leg(NamedTuple):
    """One action repeated for a number of steps; halfway between the poses of whole steps or not."""

    action: int
    steps: int
    halfway: bool = False

    def moves(self) -> list[int]:
        """Lattice units of each move."""
        return [1, *[2] * (self.steps - 1), 1] if self.halfway else [2] * self.steps


_Cell = tuple[int, int]
# Where to start, the heading there in quarter turns, and the legs from there on, without end.
_Outing = tuple[_Cell, int, Iterator[_Leg]]


@dataclass(frozen=True)
class Trajectory:
    """How to walk.

    Attributes:
        kind: ``turn``: in one place, turn by less than a full circle, turn back, and so on to alternating sides.
            ``walk``: go somewhere, turn round, come back, turn round, and set out the same way again.
            ``explore``: go from one random goal to the next by shortest paths, half of them places passed before,
            and sometimes look around.
        frames: T.
        context: what a model with a short memory remembers, in frames; needles lie further back.
        between: put every second leg of a ``turn``, every second round of a ``walk`` and a random half of an
            exploration halfway between the poses of whole steps. Such a leg begins and ends with half a step,
            which carries the action of a whole one: the poses tell them apart.
        slip: relative standard deviation of what a step does (log-normal, of mean 1; its action does not tell). A
            ``turn`` is never corrected: what its actions add up to drifts away from where it is. Walks are
            corrected by sight at the end of every straight way and of every turn, to within ``slip`` steps.
        farthest: the most steps that a ``turn`` goes to one side, or that a round of a ``walk`` takes; None for as
            many as there is room for.
        cell_steps: forward steps from the middle of a cell to the middle of the next.
        turn_steps: turn steps in a full circle, a multiple of 4.

    Raises:
        ValueError: if a number is out of range, or no needle fits into so few frames.

    Example:
        >>> corridor = np.zeros((1, 9, 4), dtype=bool)
        >>> corridor[0, :-1, 1] = corridor[0, 1:, 3] = True  # east, and back west
        >>> path = Trajectory("walk", frames=200).walk(corridor, np.random.default_rng(0))
        >>> seen, queried = path.needles[0]
        >>> bool((path.poses[seen] == path.poses[queried]).all()), bool(queried - seen > 16)
        (True, True)
    """

    kind: Kind = "explore"
    frames: int = 300
    context: int = 16
    between: bool = False
    slip: float = 0.0
    farthest: int | None = None
    cell_steps: int = 4
    turn_steps: int = 24

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"a trajectory is one of {', '.join(get_args(Kind))}, got {self.kind!r}")
        if self.frames < 2 or self.context < 1 or self.cell_steps < 1:
            raise ValueError("a trajectory has at least 2 frames, a context of 1 frame and 1 step a cell")
        if self.turn_steps < 4 or self.turn_steps % 4:
            raise ValueError(f"the turn steps of a full circle are a multiple of 4, got {self.turn_steps}")
        if not 0 <= self.slip <= _MOST_SLIP or (self.slip and self.between):
            raise ValueError(
                f"slip is 0 to {_MOST_SLIP}, and 0 where poses between those of whole steps are asked for, got "
                f"{self.slip}"
            )
        fewest, most = self._sweeps()
        if self.kind == "turn" and fewest > most:
            raise ValueError(
                f"turning in place, no needle fits: turning away (by at most {most} steps) and back must take "
                f"more than {self.context} frames (the context) and fewer than {self.frames}"
            )

    def walk(self, passages: NDArray[np.bool_], rng: np.random.Generator) -> Path:
        """Walks through a world.

        Args:
            passages: as :attr:`~arvdm_theory.video.simulators.worlds.World.passages`.
            rng: source of every choice.

        Raises:
            ValueError: if the world has no passage, or no ``walk`` of a fitting length is found.
        """
        floor: list[_Cell] = [(int(row), int(column)) for row, column in np.argwhere(passages.any(-1))]
        if not floor:
            raise ValueError("the world has no two cells to walk between")
        outing = {"turn": self._turn, "walk": self._walk, "explore": self._explore}[self.kind]
        lattice, actions, leg = self._follow(*outing(passages, floor, rng))
        poses = np.empty((self.frames, 3))
        poses[:, 0] = 0.5 + lattice[:, 1] / (2 * self.cell_steps)
        poses[:, 1] = 0.5 + lattice[:, 0] / (2 * self.cell_steps)
        poses[:, 2] = lattice[:, 2] * (180 / self.turn_steps)
        if self.slip == 0:
            return Path(actions, poses, *_remembered(lattice, self.context, 2 * self.turn_steps))
        poses = self._slipped(poses, leg, rng)
        return Path(actions, poses, _near(poses, self.context), np.empty((0, 3), dtype=np.int64))

    def _slipped(
        self, exact: NDArray[np.float64], leg: NDArray[np.int64], rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """The poses where steps do more or less than they should, given those where they do not."""
        moves = np.diff(exact, axis=0)
        moves[:, 2] = (moves[:, 2] + 180) % 360 - 180
        variance = math.log1p(self.slip**2)
        done = rng.lognormal(-variance / 2, math.sqrt(variance), len(moves))
        unit = np.array([1 / self.cell_steps, 1 / self.cell_steps, 360 / self.turn_steps])
        if self.kind == "turn":
            start = exact[0] + unit * [0, 0, rng.uniform(-0.5, 0.5)]
            return np.concatenate([start[None], start + np.cumsum(moves * done[:, None], 0)])
        poses = exact.copy()
        within = np.clip(rng.normal(0, self.slip, (int(leg[-1]) + 2, 3)), -0.5, 0.5) * unit
        for number in range(int(leg[-1]) + 1):
            begin = int(np.searchsorted(leg, number))
            end = min(int(np.searchsorted(leg, number + 1)), len(moves))
            # A last leg that the episode cuts off goes as far as it should on average.
            share = np.concatenate([[0.0], np.cumsum(done[begin:end])])
            share /= max(share[-1], 1e-300)
            way = moves[begin:end].sum(0)
            off = within[number] + share[:, None] * (within[number + 1] - within[number])
            poses[begin : end + 1] = exact[begin] + share[:, None] * way + off
        return poses

    def _sweeps(self) -> tuple[int, int]:
        """The fewest and the most steps to one side of a ``turn``: away and back is one needle at the least."""
        most = min(self.turn_steps - 1, (self.frames - 1 - self.between) // 2)
        return self.context // 2 + 1, most if self.farthest is None else min(most, self.farthest)

    def _turn(self, passages: NDArray[np.bool_], floor: Sequence[_Cell], rng: np.random.Generator) -> _Outing:
        def legs() -> Iterator[_Leg]:
            fewest, most = self._sweeps()
            sides = (LEFT, RIGHT) if rng.random() < 0.5 else (RIGHT, LEFT)
            while True:
                for away, back in (sides, sides[::-1]):
                    steps = int(rng.integers(fewest, most + 1))
                    yield _Leg(away, steps)
                    yield _Leg(back, steps, self.between)

        return floor[int(rng.integers(len(floor)))], int(rng.integers(4)), legs()

    def _walk(self, passages: NDArray[np.bool_], floor: Sequence[_Cell], rng: np.random.Generator) -> _Outing:
        for start in rng.permutation(len(floor))[:_STARTS].tolist():
            rounds = []
            longest = math.inf if self.farthest is None else self.farthest
            for way in _ways(passages, floor[start]).values():
                legs = self._there_and_back(way) if way else []
                steps = sum(leg.steps for leg in legs)
                if self.context < steps < 2 / 3 * self.frames and steps <= longest:
                    rounds.append((way[0], legs))
            if rounds:
                heading, legs = rounds[int(rng.integers(len(rounds)))]
                halfway = [_Leg(leg.action, leg.steps, self.between) for leg in legs]
                return floor[start], heading, cycle([*legs, *halfway])
        raise ValueError(
            f"no way there and back was found that takes more than {self.context} frames (the context), fewer "
            f"than two thirds of all {self.frames} and at most {self.farthest or 'as many'} steps"
        )

    def _explore(self, passages: NDArray[np.bool_], floor: Sequence[_Cell], rng: np.random.Generator) -> _Outing:
        start, first_heading = floor[int(rng.integers(len(floor)))], int(rng.integers(4))

        def legs() -> Iterator[_Leg]:
            here, heading, passed = start, first_heading, [start]
            while True:
                ways = _ways(passages, here)
                known = passed if rng.random() < _BACK_TO_A_KNOWN_PLACE else list(ways)
                here = known[int(rng.integers(len(known)))]
                route, heading = self._along(heading, ways[here])
                passed.append(here)
                if rng.random() < _LOOK_AROUND:
                    side = LEFT if rng.random() < 0.5 else RIGHT
                    steps = int(rng.integers(1, self.turn_steps // 2 + 1))
                    route += [_Leg(side, steps), _Leg(LEFT + RIGHT - side, steps)]
                for leg in route:
                    yield leg._replace(halfway=self.between and bool(rng.random() < 0.5))

        return start, first_heading, legs()

    def _there_and_back(self, way: Sequence[int]) -> list[_Leg]:
        """From the start, facing the first cell of the way, to its end and back to the very pose of the start."""
        there, heading = self._along(way[0], way)
        back, heading = self._along(heading, [(move + 2) % 4 for move in reversed(way)])
        return there + back + self._turn_to(heading, way[0])

    def _along(self, heading: int, way: Sequence[int]) -> tuple[list[_Leg], int]:
        """The legs along a way of moves from cell to cell, straight runs in one leg; and the last heading."""
        legs: list[_Leg] = []
        for move in way:
            if move == heading and legs and legs[-1].action == FORWARD:
                legs[-1] = _Leg(FORWARD, legs[-1].steps + self.cell_steps)
            else:
                legs += [*self._turn_to(heading, move), _Leg(FORWARD, self.cell_steps)]
            heading = move
        return legs, heading

    def _turn_to(self, heading: int, goal: int) -> list[_Leg]:
        quarters = (goal - heading) % 4
        if quarters == 0:
            return []
        action, quarters = (LEFT, 1) if quarters == 3 else (RIGHT, quarters)
        return [_Leg(action, quarters * self.turn_steps // 4)]

    def _follow(
        self, start: _Cell, heading: int, legs: Iterator[_Leg]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """The first T lattice points (row, column, heading), (T, 3), the actions taken there, and of which leg."""
        circle = 2 * self.turn_steps
        row, column = (2 * self.cell_steps * place for place in start)
        angle = heading * circle // 4
        points, actions, numbers = [], [], []
        for number, leg in enumerate(legs):
            for units in leg.moves():
                points.append((row, column, angle))
                actions.append(leg.action)
                numbers.append(number)
                if len(points) == self.frames:
                    return (
                        np.array(points, dtype=np.int64),
                        np.array(actions, dtype=np.int64),
                        np.array(numbers, dtype=np.int64),
                    )
                if leg.action == FORWARD:
                    down, right = MOVES[4 * angle // circle]
                    row, column = row + units * down, column + units * right
                else:
                    angle = (angle + (units if leg.action == RIGHT else -units)) % circle
        raise AssertionError("legs never end")


def _ways(passages: NDArray[np.bool_], start: _Cell) -> dict[_Cell, list[int]]:
    """The shortest way from the start to every cell that can be reached, as moves (0 north, 1 east, ...)."""
    ways: dict[_Cell, list[int]] = {start: []}
    frontier = deque([start])
    while frontier:
        here = frontier.popleft()
        for move in np.flatnonzero(passages[here]).tolist():
            there = (here[0] + MOVES[move][0], here[1] + MOVES[move][1])
            if there not in ways:
                ways[there] = [*ways[here], move]
                frontier.append(there)
    return ways


def _near(poses: NDArray[np.float64], context: int) -> NDArray[np.int64]:
    """(seen, queried): the nearest earlier pose, within a step, of each that no pose of the context is near to."""
    found = []
    for now in range(context + 1, len(poses)):
        distance = pose_distance(poses[now], poses[:now])
        seen = int(distance[:-context].argmin())
        if distance[seen] <= 1 < distance[-context:].min():
            found.append((seen, now))
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def _remembered(
    lattice: NDArray[np.int64], context: int, circle: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The needles and the queries between poses of a walk; see :class:`Path`."""
    last: dict[tuple[int, int, int], int] = {}
    needles, between = [], []
    for now, point in enumerate(lattice.tolist()):
        row, column, angle = point
        seen = last.get((row, column, angle))
        if seen is None:
            sides = (
                ((row, column, (angle - 1) % circle), (row, column, (angle + 1) % circle)),
                ((row - 1, column, angle), (row + 1, column, angle)),
                ((row, column - 1, angle), (row, column + 1, angle)),
            )
            for one, other in sides:
                if now - max(last.get(one, now), last.get(other, now)) > context:
                    between.append((last[one], last[other], now))
                    break
        elif now - seen > context:
            needles.append((seen, now))
        last[row, column, angle] = now
    return (
        np.array(needles, dtype=np.int64).reshape(-1, 2),
        np.array(between, dtype=np.int64).reshape(-1, 3),
    )
