"""Forward and backward recursions over the states of a Markov chain, in log space.

Nodes are frames with evidence; the frames between them are bridged by powers of the transition. A message is a
law over the p-tuple of states that ends at its node, shape (batch, S^p) in logarithms, and a step costs
batch · S^{p+1}. The first node is the tuple of frames 0..p-1, so evidence about any of them belongs to it.

Products are taken in linear space after the largest entry is divided out, which is fast; entries that come out
below 1e-200 of the largest are taken again in log space. So nothing underflows: two states whose
log-probabilities are a million nats apart keep both.

Source: Rabiner 1989, section III; scaling replaced by logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from arvdm_theory.information.transfer import TableSizeError
from arvdm_theory.laws.chains import MarkovChain

__all__ = ["MAX_CONTEXTS", "Kernel", "Lattice", "backward", "forward", "log_product", "nodes_of"]

MAX_CONTEXTS = 4096
"""The largest S^p for which messages are passed."""

_TINY = 1e-200
_CHUNK = 2**22
_KEPT_POWERS = 64
_OVERHEAD = (
    1e5  # the multiplications that take as long as one call: they make a few large products the better choice
)


@dataclass(frozen=True)
class Kernel:
    """Log-probabilities k(a, r, s): from (a, r) to (r, s), shape (A, R, C)."""

    log: Tensor

    @cached_property
    def linear(self) -> Tensor:
        """The probabilities."""
        return torch.exp(self.log)

    @cached_property
    def support(self) -> Tensor:
        """1 where a probability is not zero."""
        return (self.log > -math.inf).to(self.log.dtype)

    @cached_property
    def sources(self) -> tuple[Tensor, Tensor]:
        """For every (r, s) the a's it can be reached from, and log k, both (R, C, most); padded with -∞."""
        most = max(1, int(self.support.sum(0).max()))
        logs, index = self.log.permute(1, 2, 0).topk(most, -1)
        return index, logs

    @cached_property
    def reverse(self) -> Kernel:
        """The same numbers as a kernel from (s, r) to (r, a)."""
        return Kernel(self.log.permute(2, 1, 0).contiguous())


def log_product(message: Tensor, kernel: Kernel) -> Tensor:
    """log Σ_a exp(m(a, r) + k(a, r, s)): (batch, A, R) and (A, R, C) give (batch, R, C); exact to rounding.

    Differentiable in the message.
    """
    top = message.detach().amax(1, keepdim=True)
    top = torch.where(top > -math.inf, top, 0.0)
    total = torch.einsum("bar,arc->brc", torch.exp(message - top), kernel.linear)
    small = total < _TINY
    result = torch.log(torch.where(small, 1.0, total)) + top.mT
    if not bool(small.any()):
        return result
    with torch.no_grad():
        reach = torch.einsum("bar,arc->brc", (message > -math.inf).to(message.dtype), kernel.support) > 0
        again = (small & reach).nonzero()
    result = torch.where(small, -math.inf, result)
    if len(again) == 0:
        return result
    index, logs = kernel.sources
    exact = [
        torch.logsumexp(message[b[:, None], index[r, c], r[:, None]] + logs[r, c], -1)
        for b, r, c in (part.unbind(1) for part in torch.split(again, max(1, _CHUNK // index.shape[-1])))
    ]
    return result.index_put(tuple(again.unbind(1)), torch.cat(exact))


@dataclass(frozen=True)
class Lattice:
    """The transitions of one chain, ready to carry messages over any number of frames.

    Attributes:
        states: S.
        order: p.
        log_initial: log-law of the first p states, shape (1, S^p).
        step: the one-frame kernel, (S, S^{p-1}, S).
    """

    states: int
    order: int
    log_initial: Tensor
    step: Kernel
    _powers: dict[int, Kernel] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, chain: MarkovChain) -> Lattice:
        """The lattice of a chain; powers of its transition are kept from call to call.

        Raises:
            TableSizeError: if S^p is above :data:`MAX_CONTEXTS`.
        """
        if chain.contexts > MAX_CONTEXTS:
            raise TableSizeError(
                f"inference passes messages over S^p values and takes batch · S^(p+1) operations a frame; S = "
                f"{chain.states} and p = {chain.order} make {chain.contexts}, above the limit of {MAX_CONTEXTS}"
            )
        known = _LATTICES.get(chain)
        if known is None:
            log_step = torch.log(chain.transition.detach()).reshape(chain.states, -1, chain.states)
            log_initial = torch.log(chain.initial.detach()).reshape(1, -1)
            known = _LATTICES[chain] = cls(chain.states, chain.order, log_initial, Kernel(log_step))
        return known

    def carry(self, message: Tensor, frames: int) -> Tensor:
        """Messages (batch, S^p) pushed ``frames`` ≥ 1 frames forward."""
        if self._walks(message.shape[0], frames):
            for _ in range(frames):
                message = self._apply(message, self.step)
            return message
        return self._apply(message, self.power(frames))

    def carry_back(self, message: Tensor, frames: int) -> Tensor:
        """Messages (batch, S^p) about the future pulled ``frames`` ≥ 1 frames back."""
        if self._walks(message.shape[0], frames):
            for _ in range(frames):
                message = self._apply_back(message, self.step)
            return message
        return self._apply_back(message, self.power(frames))

    def power(self, frames: int) -> Kernel:
        """The kernel over ``frames`` frames: the step itself, or a dense one between p-tuples, (S^p, 1, S^p)."""
        if frames == 1:
            return self.step
        if frames not in self._powers:
            half = self._dense(self.power(frames // 2))
            square = log_product(half.log.transpose(1, 2), half)
            if frames % 2:
                square = self._apply(square.squeeze(1), self.step)[:, None, :]
            if len(self._powers) >= _KEPT_POWERS:
                self._powers.clear()
            self._powers[frames] = Kernel(square)
        return self._powers[frames]

    def _dense(self, kernel: Kernel) -> Kernel:
        if self.order == 1 or kernel is not self.step:
            return kernel
        contexts = self.states**self.order
        eye = torch.eye(contexts, dtype=kernel.log.dtype, device=kernel.log.device)
        return Kernel(self._apply(torch.log(eye), kernel)[:, None, :])

    def _walks(self, batch: int, frames: int) -> bool:
        """Whether frame by frame is cheaper than by a dense power."""
        if frames == 1 or frames in self._powers:
            return False
        contexts = float(self.states**self.order)
        one_by_one = frames * (batch * contexts * self.states + _OVERHEAD)
        by_power = 2 * math.log2(frames) * (contexts**3 + _OVERHEAD) + batch * contexts**2
        return one_by_one <= by_power

    def _apply(self, message: Tensor, kernel: Kernel) -> Tensor:
        oldest, rest, _ = kernel.log.shape
        return log_product(message.reshape(-1, oldest, rest), kernel).reshape(message.shape)

    def _apply_back(self, message: Tensor, kernel: Kernel) -> Tensor:
        _, rest, newest = kernel.log.shape
        future = message.reshape(-1, rest, newest).mT
        return log_product(future, kernel.reverse).mT.reshape(message.shape)

    def at(self, node: int, frame: int, evidence: Tensor) -> Tensor:
        """Evidence (batch, S) about a frame, spread over the p-tuple of its node, (batch, S^p)."""
        axis = frame if node == self.order - 1 else self.order - 1
        shape = [-1] + [1] * self.order
        shape[1 + axis] = self.states
        full = (evidence.shape[0], *(self.states,) * self.order)
        return evidence.reshape(shape).expand(full).reshape(evidence.shape[0], -1)

    def marginal(self, node: int, frame: int, law: Tensor) -> Tensor:
        """A frame's law (batch, S) from that of its node's p-tuple (batch, S^p)."""
        axis = frame if node == self.order - 1 else self.order - 1
        other = tuple(1 + i for i in range(self.order) if i != axis)
        table = law.reshape(-1, *(self.states,) * self.order)
        return table.sum(other) if other else table


_LATTICES: WeakKeyDictionary[MarkovChain, Lattice] = WeakKeyDictionary()


def nodes_of(order: int, frames: Sequence[int]) -> list[int]:
    """The nodes that hold the given frames, in order, the first node p - 1 always included."""
    return sorted({order - 1, *(max(frame, order - 1) for frame in frames)})


def forward(
    lattice: Lattice, nodes: Sequence[int], evidence: Mapping[int, Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Forward messages log P(tuple at node | evidence up to it), and each node's log p(evidence | earlier).

    Args:
        lattice: of the chain.
        nodes: rising, from :func:`nodes_of`.
        evidence: log-likelihoods (batch, S) by frame; every frame must belong to a node.

    Returns:
        a message (batch, S^p) and a log-normaliser (batch,) for each node. The normaliser is -∞, and so are the
        messages from there on, where the evidence is impossible.
    """
    messages: list[Tensor] = []
    normalisers: list[Tensor] = []
    for i, node in enumerate(nodes):
        message = lattice.log_initial if i == 0 else lattice.carry(messages[-1], node - nodes[i - 1])
        for frame in _frames_at(lattice, node):
            if frame in evidence:
                message = message + lattice.at(node, frame, evidence[frame])
        top = message.detach().amax(1, keepdim=True)
        top = torch.where(top > -math.inf, top, 0.0)
        normaliser = torch.log(torch.exp(message - top).sum(1)) + top[:, 0]
        messages.append(message - torch.where(normaliser > -math.inf, normaliser, 0.0)[:, None])
        normalisers.append(normaliser)
    return messages, normalisers


def backward(lattice: Lattice, nodes: Sequence[int], evidence: Mapping[int, Tensor], first: int) -> list[Tensor]:
    """Backward messages log p(evidence after node | tuple at node), up to a constant, from node ``first`` on."""
    message = torch.zeros_like(lattice.log_initial)
    messages = [message]
    for i in range(len(nodes) - 1, first, -1):
        if nodes[i] in evidence:
            message = message + lattice.at(nodes[i], nodes[i], evidence[nodes[i]])
        message = lattice.carry_back(message, nodes[i] - nodes[i - 1])
        message = message - message.amax(1, keepdim=True)
        messages.append(message)
    return messages[::-1]


def _frames_at(lattice: Lattice, node: int) -> Sequence[int]:
    return range(lattice.order) if node == lattice.order - 1 else (node,)
