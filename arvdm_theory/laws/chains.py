"""Markov chains of any order over finitely many states: what moves behind a finite-state video."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from arvdm_theory.information.transfer import first_frames, push
from arvdm_theory.laws.emission import as_float64

__all__ = [
    "ChainError",
    "MarkovChain",
    "draw_outcomes",
    "periodic_chain",
    "probabilities",
    "random_chain",
    "random_walk",
    "sticky_chain",
    "torus_walk",
]

# Sums of S rounded probabilities stray from 1 by about S · 1e-16; rows computed in single precision by 1e-7.
_SUM_TOLERANCE = 1e-10


class ChainError(ValueError):
    """Not a chain, or not one that has what was asked for; the message names the row or the classes."""


@dataclass(frozen=True, eq=False)
class MarkovChain:
    """A Markov chain of order p over states 0..S-1, from any start.

    Attributes:
        transition: T[a_1, .., a_p, b] = P(state_i = b | state_{i-p} = a_1, .., state_{i-1} = a_p), shape
            (S,) * (p + 1), float64.
        initial: joint law of the first p states, shape (S,) * p; it need not be stationary.

    Rows may miss the sum 1 by rounding (1e-10) and are then divided by their sum.

    Raises:
        ChainError: if a probability is negative or not finite, a row does not sum to 1 (naming the row and its
            sum), or shapes do not fit.

    Example:
        >>> MarkovChain([[0.5, 0.5], [0.2, 0.7]], [1.0, 0.0])
        Traceback (most recent call last):
        ...
        arvdm_theory.laws.chains.ChainError: transition row 1 sums to 0.9, not 1
    """

    transition: Tensor
    initial: Tensor

    def __post_init__(self) -> None:
        transition = probabilities(self.transition, "transition")
        if transition.ndim < 2 or len(set(transition.shape)) != 1:
            raise ChainError(
                f"transitions of order p have the shape (S,) * (p + 1), got {tuple(transition.shape)}"
            )
        initial = probabilities(self.initial, "initial law", whole=True).to(transition.device)
        if initial.shape != transition.shape[1:]:
            raise ChainError(
                f"the initial law must have shape {tuple(transition.shape[1:])} (the first p states), got "
                f"{tuple(initial.shape)}"
            )
        object.__setattr__(self, "transition", transition)
        object.__setattr__(self, "initial", initial)

    @classmethod
    def stationary(cls, transition: ArrayLike | Tensor) -> MarkovChain:
        """The chain that starts in its stationary law.

        Raises:
            ChainError: if there is more than one stationary law (see :meth:`stationary_law`).
        """
        array = as_float64(transition, "transition")
        start = array.new_full(array.shape[1:], 1 / max(array[0].numel(), 1)) if array.ndim else array
        chain = cls(array, start)
        return cls(chain.transition, chain.stationary_law())

    @property
    def states(self) -> int:
        """S."""
        return self.transition.shape[-1]

    @property
    def order(self) -> int:
        """The order p of the chain."""
        return self.initial.ndim

    @property
    def contexts(self) -> int:
        """S^p: the values of the p states that the next one depends on."""
        return int(self.states**self.order)

    def law(self, frame: int) -> Tensor:
        """Law of the state of frame ``frame`` (from 0), shape (S,)."""
        if frame < 0:
            raise ChainError(f"frames are counted from 0, got {frame}")
        if frame < self.order:
            joint = first_frames(self, frame + 1)
            return joint.sum(dim=tuple(range(frame))) if frame else joint
        law = self.initial.reshape(1, -1)
        for _ in range(frame - self.order + 1):
            law = push(law, self.transition)
        return law.reshape(-1, self.states).sum(0)

    def closed_classes(self) -> tuple[tuple[tuple[int, ...], ...], ...]:
        """The closed communicating classes of p-tuples of states: once in one, the chain never leaves it."""
        graph = self._graph()
        count, label = connected_components(graph, directed=True, connection="strong")
        source, target = graph.nonzero()
        leaves = np.zeros(count, dtype=bool)
        leaves[label[source[label[source] != label[target]]]] = True
        shape = (self.states,) * self.order
        return tuple(
            tuple(
                tuple(int(i) for i in np.unravel_index(context, shape)) for context in np.flatnonzero(label == c)
            )
            for c in np.flatnonzero(~leaves)
        )

    def stationary_law(self) -> Tensor:
        """The stationary joint law of p consecutive states, shape (S,) * p.

        Transient states get 0, and a periodic chain is as good as any. The law is found by state reduction, which
        subtracts nothing, so that small probabilities keep their relative accuracy: S^{3p} operations.

        Raises:
            ChainError: if there are several closed classes, naming them: the law is then not unique.

        Source: Grassmann, Taksar and Heyman 1985.
        """
        classes = self.closed_classes()
        if len(classes) > 1:
            named = "; ".join(_name_class(members, self.order) for members in classes[:6])
            more = f"; and {len(classes) - 6} more" if len(classes) > 6 else ""
            raise ChainError(
                f"the chain is reducible: its {len(classes)} closed classes have a stationary law each, and "
                f"their mixtures are all stationary: {named}{more}"
            )
        members = np.ravel_multi_index(np.array(classes[0]).T, (self.states,) * self.order)
        dense = self._graph()[members][:, members].toarray()
        law = np.zeros(self.contexts)
        law[members] = _state_reduction(dense)
        return torch.from_numpy(law).to(self.transition).reshape(self.initial.shape)

    def sample(self, videos: int, frames: int, generator: torch.Generator | None = None) -> Tensor:
        """Independent state sequences, shape (videos, frames), dtype int64."""
        start = draw_outcomes(self.initial.reshape(1, -1).expand(videos, -1), generator)
        columns = list(torch.unravel_index(start, self.initial.shape))
        rows = self.transition.reshape(-1, self.states)
        context = start
        while len(columns) < frames:
            new = draw_outcomes(rows[context], generator)
            columns.append(new)
            context = (context * self.states + new) % self.contexts
        return torch.stack(columns[:frames], -1)

    def _graph(self) -> csr_array:
        """Transition probabilities between p-tuples, sparse (S^p, S^p)."""
        table = self.transition.detach().cpu().numpy().reshape(-1)
        entry = np.flatnonzero(table)
        context = entry // self.states
        target = entry % self.contexts
        return csr_array((table[entry], (context, target)), shape=(self.contexts, self.contexts))


def random_walk(adjacency: ArrayLike | Tensor, stay: float = 0.0) -> MarkovChain:
    """Random walk on a graph, started in its stationary law.

    Args:
        adjacency: weights A[a, b] ≥ 0 of the edges a → b, shape (S, S).
        stay: the probability of not moving, in [0, 1).

    Raises:
        ChainError: if a node has no edge, or the walk has no unique stationary law.
    """
    weights = as_float64(adjacency, "adjacency")
    if weights.ndim != 2 or weights.shape[0] != weights.shape[1] or bool((weights < 0).any()):
        raise ChainError("an adjacency is a square matrix of weights that are not negative")
    if not 0 <= stay < 1:
        raise ChainError(f"the probability of staying must lie in [0, 1), got {stay}")
    degree = weights.sum(-1)
    alone = (degree == 0).nonzero().flatten().tolist()
    if alone:
        raise ChainError(f"node {alone[0]} has no edge to walk along")
    eye = torch.eye(len(weights)).to(weights)
    return MarkovChain.stationary(stay * eye + (1 - stay) * weights / degree[:, None])


def sticky_chain(states: int, stay: float) -> MarkovChain:
    """Stays with probability ``stay``, else moves to any other state alike; started uniformly."""
    if states < 2 or not 0 <= stay <= 1:
        raise ChainError(f"a sticky chain needs two states or more and 0 ≤ stay ≤ 1, got {states}, {stay}")
    eye = torch.eye(states, dtype=torch.float64)
    return MarkovChain(stay * eye + (1 - stay) / (states - 1) * (1 - eye), eye.new_full((states,), 1 / states))


def periodic_chain(period: int, slip: float = 0.0) -> MarkovChain:
    """Goes round 0, 1, .., period - 1, waiting a frame with probability ``slip``; started uniformly."""
    if period < 1 or not 0 <= slip < 1:
        raise ChainError(f"a period of at least 1 and 0 ≤ slip < 1 are needed, got {period}, {slip}")
    eye = torch.eye(period, dtype=torch.float64)
    return MarkovChain(slip * eye + (1 - slip) * eye.roll(1, 1), eye.new_full((period,), 1 / period))


def random_chain(states: int, order: int = 1, generator: torch.Generator | None = None) -> MarkovChain:
    """Rows and the start drawn uniformly from all laws: a chain with no symmetry, for tests and benchmarks."""
    rows = -torch.log1p(-torch.rand((states,) * (order + 1), dtype=torch.float64, generator=generator))
    start = -torch.log1p(-torch.rand((states,) * order, dtype=torch.float64, generator=generator))
    return MarkovChain(rows / rows.sum(-1, keepdim=True), start / start.sum())


def torus_walk(cells: tuple[int, int], steps: Mapping[tuple[int, int], float] | None = None) -> MarkovChain:
    """A walk on a torus of rows x columns cells, started uniformly, which is stationary.

    Args:
        cells: rows and columns; cell (r, c) is state r·columns + c.
        steps: probabilities of moves (down, right); left out, the four neighbours and staying are alike.
    """
    moves = steps or {(0, 0): 0.2, (1, 0): 0.2, (-1, 0): 0.2, (0, 1): 0.2, (0, -1): 0.2}
    rows, columns = cells
    if rows < 1 or columns < 1:
        raise ChainError(f"a torus needs at least one row and one column, got {cells}")
    size = rows * columns
    place = torch.arange(size)
    transition = torch.zeros(size, size, dtype=torch.float64)
    for (down, right), probability in moves.items():
        target = (place // columns + down) % rows * columns + (place % columns + right) % columns
        transition[place, target] += probability
    return MarkovChain(transition, torch.full((size,), 1 / size, dtype=torch.float64))


def probabilities(values: ArrayLike | Tensor, what: str, whole: bool = False) -> Tensor:
    """Laws along the last axis (all axes if ``whole``), rounding divided out."""
    try:
        table = as_float64(values, what)
    except ValueError as error:
        raise ChainError(str(error)) from error
    if table.ndim == 0 or table.numel() == 0:
        raise ChainError(f"the {what} is empty")
    if bool((table < 0).any()):
        where = tuple((table < 0).nonzero()[0].tolist())
        raise ChainError(f"the {what} has a negative probability, {float(table[where])}, at {where}")
    total = table.sum() if whole else table.sum(-1, keepdim=True)
    off = (total - 1).abs() > _SUM_TOLERANCE
    if bool(off.any()):
        if whole:
            raise ChainError(f"the {what} sums to {float(total):.10g}, not 1")
        row = tuple(off[..., 0].nonzero()[0].tolist())
        name = row[0] if len(row) == 1 else row
        raise ChainError(f"{what} row {name} sums to {float(total[row]):.10g}, not 1")
    return table / total


def draw_outcomes(laws: Tensor, generator: torch.Generator | None) -> Tensor:
    """One outcome from each law of (n, outcomes), shape (n,); never one of probability 0."""
    device = generator.device if generator is not None else laws.device
    return torch.multinomial(laws.detach().to(device), 1, generator=generator)[:, 0].to(laws.device)


def _state_reduction(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Stationary law of an irreducible transition matrix, without a subtraction."""
    work = matrix.copy()
    size = len(work)
    for last in range(size - 1, 0, -1):
        work[:last, last] /= work[last, :last].sum()
        work[:last, :last] += np.outer(work[:last, last], work[last, :last])
    law = np.ones(size)
    for state in range(1, size):
        law[state] = law[:state] @ work[:state, state]
    result: NDArray[np.float64] = law / law.sum()
    return result


def _name_class(members: tuple[tuple[int, ...], ...], order: int) -> str:
    names = [str(member[0]) if order == 1 else str(member) for member in members[:8]]
    return "{" + ", ".join(names) + (f", .. {len(members)} in all" if len(members) > 8 else "") + "}"
