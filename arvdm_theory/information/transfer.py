"""Exact information of Markov chains by transfer matrices, in nats and linear in the number of frames.

A chain of order p over S states is an array of transition probabilities T[a_1, .., a_p, b], the law of a frame's
state given the p before it (the oldest first), and the joint law of the first p states. Nothing here enumerates
sequences: laws of p-tuples of states are pushed forward one frame at a time, S^{p+1} products a frame.

These are the numbers of a video whose clean frames show their states. Where they do not (hidden states, noise),
the information has no linear closed form: see :mod:`arvdm_theory.laws.sampled_information`.

Source: Cover and Thomas 2006, sections 2.5 and 4.2 (chain rules); arXiv 2503.10704, section 4.2 (the memory
bottleneck I(Output_k; Past_k | Input_k)).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from arvdm_theory.information.gaussian import x_minus_log1p

__all__ = [
    "MAX_TABLE",
    "Chain",
    "ReferencePlan",
    "TableSizeError",
    "entropy",
    "first_frames",
    "kl_divergence",
    "memory_bottleneck",
    "memory_bottlenecks",
    "push",
]

MAX_TABLE = 2**25
"""The most entries of a table that is ever built (256 MiB of float64)."""

# Below this many nats a mutual information is summed from terms that are all positive: a difference of entropies,
# each right to about 1e-15, would keep fewer than 13 digits there.
_SMALL_INFORMATION = 1e-2


class TableSizeError(ValueError):
    """An exact computation would need a larger table than is ever built; the message says which and why."""


class Chain(Protocol):
    """A Markov chain of order p: all that the functions of this module read.

    Attributes:
        initial: joint law of the first p states, shape (S,) * p.
        transition: T[a_1, .., a_p, b] = P(X_i = b | X_{i-p} = a_1, .., X_{i-1} = a_p), shape (S,) * (p + 1).
    """

    @property
    def initial(self) -> Tensor:
        """See the class."""

    @property
    def transition(self) -> Tensor:
        """See the class."""


class _ReferencedFrame(Protocol):
    @property
    def frame(self) -> int: ...

    @property
    def level(self) -> float: ...


class ReferencePlan(Protocol):
    """What :func:`memory_bottlenecks` reads of a plan (:class:`arvdm_theory.plan.plan.Plan` has it all)."""

    @property
    def overlapping(self) -> bool:
        """Whether noisy frames stay in the window from one AR step to the next."""

    @property
    def floor(self) -> float:
        """The level at which frames count as clean."""

    def window_frames(self, ar_step: int) -> range:
        """The frames of AR step k = ``ar_step``, counted from 1."""

    def references_at(self, ar_step: int) -> Sequence[_ReferencedFrame]:
        """The references of AR step k."""


def push(law: Tensor, transition: Tensor) -> Tensor:
    """One frame on: laws of p-tuples (a_1, .., a_p) become laws of (a_2, .., b).

    Args:
        law: shape (rows, S^p); rows need not sum to 1.
        transition: shape (S,) * (p + 1).

    Returns:
        shape (rows, S^p).
    """
    kernel = _by_oldest(transition)
    states, rest, _ = kernel.shape
    by_rest = law.reshape(-1, states, rest).permute(2, 0, 1) @ kernel.transpose(0, 1)
    return by_rest.transpose(0, 1).reshape(law.shape)


def first_frames(chain: Chain, frames: int) -> Tensor:
    """Joint law of the first ``frames`` states, shape (S,) * frames.

    Raises:
        TableSizeError: if it has more than :data:`MAX_TABLE` entries.
    """
    if frames < 1:
        raise ValueError(f"at least one frame is needed, got {frames}")
    states, order = chain.transition.shape[-1], chain.initial.ndim
    _require_table(states, frames, f"the joint law of {frames} frames")
    if frames < order:
        return chain.initial.sum(dim=tuple(range(frames, order)))
    joint = chain.initial
    for _ in range(frames - order):
        joint = joint.unsqueeze(-1) * chain.transition
    return joint


def entropy(chain: Chain, frames: int) -> Tensor:
    """Entropy H(X_1, .., X_N) of the first N = ``frames`` states, in nats.

    H = H(X_1..X_p) + Σ_{i>p} Σ_a P(X_{i-p..i-1} = a) H(T[a, ·]). Time N S^{p+1}.
    """
    order = chain.initial.ndim
    if frames <= order:
        return _negative_xlogx(first_frames(chain, frames)).sum()
    visits, _ = _visits(chain, frames - order)
    rows = _negative_xlogx(chain.transition).sum(-1).reshape(-1)
    return _negative_xlogx(chain.initial).sum() + (visits * rows).sum()


def kl_divergence(p: Chain, q: Chain, frames: int) -> Tensor:
    """KL(P ‖ Q) of the first N = ``frames`` states of two chains over the same states, in nats.

    With both chains written in the larger of their orders, m, it is the KL of the first m states plus
    Σ_{i>m} Σ_a P(X_{i-m..i-1} = a) KL(T_P[a, ·] ‖ T_Q[a, ·]). Time N S^{m+1}. The value is infinite exactly when P
    reaches, within N frames, something that Q excludes. Near-equal chains lose no digits: every row is summed from
    p log(p/q) - p + q ≥ 0.

    Raises:
        ValueError: if the chains have different numbers of states.
        TableSizeError: if S^{m+1} is above :data:`MAX_TABLE`.
    """
    states = p.transition.shape[-1]
    if q.transition.shape[-1] != states:
        raise ValueError(f"chains of {states} and of {q.transition.shape[-1]} states have no KL divergence")
    order = max(p.initial.ndim, q.initial.ndim)
    start = _divergence(first_frames(p, min(frames, order)), first_frames(q, min(frames, order))).sum()
    if frames <= order:
        return start
    _require_table(states, order + 1, f"the transitions of order {order}")
    raised = _OfOrder(p, order)
    rows = _divergence(raised.transition, _OfOrder(q, order).transition).sum(-1).reshape(-1)
    visits, reached = _visits(raised, frames - order)
    # A row that is reached with a probability below 1e-308 still makes the divergence infinite.
    infinite = bool((reached & torch.isinf(rows)).any())
    rest = torch.where(torch.isinf(rows), torch.zeros_like(rows), visits * rows).sum()
    return start + rest + (math.inf if infinite else 0.0)


def memory_bottleneck(chain: Chain, out: range, references: Iterable[int]) -> Tensor:
    """I(Out; Past | R): what the frames R leave out about the frames ``out``, in nats.

    Out = X_c..X_{c+w-1} are the frames ``out``, R the states of ``references`` (any frames before c), and Past all
    other frames before c. Given the last p frames D = X_{c-p}..X_{c-1} nothing older matters to Out, and given its
    own first p frames nothing in D matters to the rest of Out; so the value is

        I(X_c..X_{c+min(w,p)-1}; D \\ R | R).

    Of R only the frames from the *last run of p consecutive references* on matter: the run screens off what came
    before it. It is 0 when R holds D. For p = 1 it is I(X_c; X_{c-1} | X_r), r the last reference.

    Cost: S^{2p} times S^{m+min(w,p)} operations, with m the references that lie between the run (or, if there is
    none, the start of the video) and D. With p = 1, m = 0 always. With p ≥ 2 and references that never form a
    run, such as every second frame, m grows with c: such a chain is as hard as a hidden one. A table above
    :data:`MAX_TABLE` entries is refused.

    Args:
        chain: the law of the states.
        out: consecutive frames, counted from 0.
        references: frames whose states are given.

    Raises:
        ValueError: if ``out`` is not a range of consecutive frames, or a reference is not before it.
        TableSizeError: if the references that matter are too many.

    Example:
        >>> from arvdm_theory.laws.chains import sticky_chain
        >>> chain = sticky_chain(2, 0.9)
        >>> [round(float(memory_bottleneck(chain, range(5, 7), refs)), 6) for refs in ([], [2], [4])]
        [0.368064, 0.230564, 0.0]
    """
    return _Transfer(chain).information(out, references)


def memory_bottlenecks(chain: Chain, plan: ReferencePlan, ar_steps: int) -> Tensor:
    """MB_k = I(Output_k; Past_k | Input_k) of AR steps k = 1..``ar_steps``, shape (ar_steps,), in nats.

    For a plan with w = Δ and clean references, on a video whose clean frames show their states. Linear in the
    frames: a table that only grows with c is grown, and one that repeats is reused. See
    :func:`memory_bottleneck` for the formula and the cost.

    Raises:
        ValueError: if the plan keeps noisy frames in its window, noises its references or stops early: the
            input is then not a set of states.
        TableSizeError: see :func:`memory_bottleneck`.
    """
    if plan.overlapping or plan.floor > 0:
        raise ValueError(
            "states are read off clean frames only: the plan must have w = Δ and the floor 0 (sampled_information "
            "covers the others)"
        )
    transfer = _Transfer(chain)
    values = []
    for step in range(1, ar_steps + 1):
        references = plan.references_at(step)
        noised = next((r for r in references if r.level > 0), None)
        if noised is not None:
            raise ValueError(
                f"AR step {step} refers to frame {noised.frame} at level {noised.level}: only clean references "
                "show their states (sampled_information covers the others)"
            )
        values.append(transfer.information(plan.window_frames(step), [r.frame for r in references]))
    return torch.stack(values)


@dataclass(frozen=True)
class _Walk:
    """Laws of the p-tuple that ends at frame ``end``, a row for each value of the kept frames."""

    table: Tensor
    end: int
    kept: tuple[int, ...]


class _Transfer:
    """Memory bottlenecks of one chain, with what later steps can reuse of earlier ones."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.states, self.order = chain.transition.shape[-1], chain.initial.ndim
        self.contexts = self.states**self.order
        self._laws = [chain.initial.reshape(1, -1)]  # of the p-tuples that end at frames p-1, p, ...
        self._kernels: dict[int, Tensor] = {}
        self._walks: dict[bool, _Walk] = {}
        self._known: dict[tuple[int, tuple[int, ...], int], Tensor] = {}

    def information(self, out: range, references: Iterable[int]) -> Tensor:
        """See :func:`memory_bottleneck`."""
        given = sorted(set(references))
        if out.step != 1 or len(out) == 0 or out.start < 0:
            raise ValueError(f"the frames out must be a range of consecutive frames, got {out}")
        if given and not (given[0] >= 0 and given[-1] < out.start):
            raise ValueError(f"references must lie before frame {out.start}, got {given[0]} to {given[-1]}")
        latest = range(max(out.start - self.order, 0), out.start)
        if set(latest) <= set(given[-len(latest) :] if latest else ()):
            return self.chain.transition.new_zeros(())
        width = min(len(out), self.order)
        if out.start < self.order:
            joint = first_frames(self.chain, out.start + width).reshape(-1, self.states**width)
            law = joint.sum(-1)
            kernel = joint / torch.where(law > 0, law, 1.0)[:, None]
            return self._given(law[None], kernel, latest, given).sum()
        run = _last_run(given, self.order)
        if run is None:
            table = self._walk(False, self.order - 1, out.start - 1, given)
            return self._given(table, self._kernel(width), latest, given).sum()
        active = tuple(frame - run for frame in given if frame > run)
        key = (out.start - run, active, width)
        if key not in self._known:
            _require_table(self.states, 2 * self.order, f"the law of {self.order} frames given {self.order}")
            table = self._walk(True, 0, out.start - 1 - run, active)
            shifted = range(latest.start - run, latest.stop - run)
            rows = self._given(table, self._kernel(width), shifted, active)
            self._known[key] = rows.reshape(self.contexts, -1).sum(-1)
        return (self._law(run) * self._known[key]).sum()

    def _law(self, end: int) -> Tensor:
        while len(self._laws) <= end - self.order + 1:
            self._laws.append(push(self._laws[-1], self.chain.transition))
        return self._laws[end - self.order + 1][0]

    def _kernel(self, width: int) -> Tensor:
        """P(the next ``width`` states | the last p), shape (S^p, S^width)."""
        if width in self._kernels:
            return self._kernels[width]
        _require_table(self.states, self.order + width, f"the law of {width} frames given {self.order}")
        table = torch.ones_like(self.chain.transition[..., 0])
        for i in range(width):
            table = table.unsqueeze(-1) * self.chain.transition.reshape((1,) * i + self.chain.transition.shape)
        self._kernels[width] = table.reshape(self.contexts, -1)
        return self._kernels[width]

    def _walk(self, from_run: bool, start: int, end: int, active: Sequence[int]) -> Tensor:
        """P(active frames before the tuple, the tuple that ends at ``end``), shape (rows, S^p).

        From a run, frames are counted from its last one, and the leading part of a row's index is the run's value,
        on which the row is conditional.
        """
        like = self.chain.transition
        first = torch.eye(self.contexts).to(like) if from_run else self._laws[0]
        passed = self._passed(active, end, from_run)
        if first.numel() * self.states ** len(passed) > MAX_TABLE:
            power = len(passed) + self.order * (2 if from_run else 1)
            raise TableSizeError(
                f"{len(passed)} references that no {self.order} consecutive ones screen off need a table of "
                f"{self.states}^{power} entries; the most is {MAX_TABLE}"
            )
        walk = self._walks.get(from_run)
        if walk is None or walk.end > end or walk.kept != self._passed(active, walk.end, from_run):
            walk = _Walk(first, start, ())
        kernel = _by_oldest(like)
        table, kept = walk.table, walk.kept
        for frame in range(walk.end, end):
            oldest = frame - self.order + 1
            if oldest in passed:
                spread = table.reshape(-1, *kernel.shape[:2], 1) * kernel
                table, kept = spread.reshape(-1, self.contexts), (*kept, oldest)
            else:
                table = push(table, like)
        self._walks[from_run] = _Walk(table, end, kept)
        return table

    def _passed(self, active: Sequence[int], end: int, from_run: bool) -> tuple[int, ...]:
        oldest = end - self.order + 1
        return tuple(frame for frame in active if (frame > 0 if from_run else frame >= 0) and frame < oldest)

    def _given(self, table: Tensor, kernel: Tensor, latest: range, given: Sequence[int]) -> Tensor:
        """I(next frames; latest | row, references among the latest) times the row's probability, (rows,)."""
        known = [axis for axis, frame in enumerate(latest) if frame in given]
        free = [axis for axis in range(len(latest)) if axis not in known]
        groups, members = self.states ** len(known), self.states ** len(free)
        axes = (self.states,) * len(latest)
        weights = table.reshape(-1, *axes).permute(0, *(1 + axis for axis in known + free))
        rows = kernel.reshape(*axes, -1).permute(*known, *free, len(latest))
        return _mixture_information(weights.reshape(-1, groups, members), rows.reshape(groups, members, -1)).sum(
            -1
        )


def _mixture_information(weights: Tensor, kernel: Tensor) -> Tensor:
    """Σ_f W_f KL(k_f ‖ Σ_f' W_f' k_f' / Σ W), for weights (m, g, f) and laws k (g, f, o); shape (m, g)."""
    total = weights.sum(-1)
    if total.numel() * kernel.shape[-1] > MAX_TABLE:
        raise TableSizeError(
            f"the laws of {kernel.shape[-1]} outcomes given each of {total.numel()} values of the references have "
            f"more entries than {MAX_TABLE}"
        )
    safe = torch.where(total > 0, total, 1.0)
    mixture = (weights.transpose(0, 1) @ kernel).transpose(0, 1) / safe[..., None]
    of_members = (weights * _negative_xlogx(kernel).sum(-1)).sum(-1)
    value = total * _negative_xlogx(mixture).sum(-1) - of_members
    small = (value < _SMALL_INFORMATION * total).nonzero()
    if len(small) == 0:
        return value
    chunk = max(1, MAX_TABLE // 16 // (kernel.shape[1] * kernel.shape[2]))
    exact = []
    for part in torch.split(small, chunk):
        m, g = part[:, 0], part[:, 1]
        mean = mixture[m, g][:, None, :]
        # Members of weight 0 may lie outside the support of the mixture; they count for nothing.
        member = torch.where(weights[m, g][..., None] > 0, kernel[g], mean)
        exact.append((weights[m, g] * _divergence(member, mean).sum(-1)).sum(-1))
    return value.index_put((small[:, 0], small[:, 1]), torch.cat(exact))


def _divergence(p: Tensor, q: Tensor) -> Tensor:
    """p log(p/q) - p + q ≥ 0 entry by entry: q where p = 0, infinite where only q is 0."""
    excess = q - p
    near = (p > 0) & (excess.abs() <= 0.25 * p)
    safe_p, safe_q = torch.where(p > 0, p, 1.0), torch.where(q > 0, q, 1.0)
    far = p * (torch.log(safe_p) - torch.log(safe_q)) + excess
    value = torch.where(near, p * x_minus_log1p(torch.where(near, excess / safe_p, 0.0)), far)
    return torch.where((p > 0) & (q == 0), math.inf, value)


def _negative_xlogx(p: Tensor) -> Tensor:
    return -p * torch.log(torch.where(p > 0, p, 1.0))


def _visits(chain: Chain, steps: int) -> tuple[Tensor, Tensor]:
    """Expected visits Σ_i P(tuple i = a) over ``steps`` tuples, and which are reached at all, both (S^p,)."""
    law = chain.initial.reshape(1, -1)
    reached = law > 0
    edges = (chain.transition > 0).to(law.dtype)
    visits, ever, moving = law, reached, True
    for _ in range(steps - 1):
        law = push(law, chain.transition)
        visits = visits + law
        if moving:  # once the set of reached tuples stays, it stays for good
            before, reached = reached, push(reached.to(law.dtype), edges) > 0
            ever = ever | reached
            moving = not torch.equal(before, reached)
    return visits[0], ever[0]


@dataclass(frozen=True)
class _OfOrder:
    """A chain written in a higher order."""

    chain: Chain
    order: int

    @property
    def initial(self) -> Tensor:
        return first_frames(self.chain, self.order)

    @property
    def transition(self) -> Tensor:
        states = self.chain.transition.shape[-1]
        return self.chain.transition.expand((states,) * (self.order + 1))


def _by_oldest(transition: Tensor) -> Tensor:
    states = transition.shape[-1]
    return transition.reshape(states, -1, states)


def _last_run(frames: Sequence[int], length: int) -> int | None:
    """The last frame of the last ``length`` consecutive frames of a rising sequence; None if there are none."""
    run = 0
    for i in range(len(frames) - 1, -1, -1):
        run = run + 1 if run and frames[i] == frames[i + 1] - 1 else 1
        if run == length:
            return frames[i] + length - 1
    return None


def _require_table(states: int, power: int, what: str) -> None:
    if states**power > MAX_TABLE:
        raise TableSizeError(f"{what} has {states}^{power} entries; the most is {MAX_TABLE}")
