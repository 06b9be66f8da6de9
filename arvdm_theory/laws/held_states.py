"""The Gaussian law of states that a sampler keeps, by name: for references that are shown again with their noise.

Where references are clean or noised afresh, a sampler's law is one of frames
(:mod:`arvdm_theory.laws.gaussian_sampler`). One that shows a frame's own state, or a copy that was noised once,
hands that very state on, and its law is kept here.

Source: arXiv 2503.10704, Algorithm 1, for kernels that are affine with Gaussian noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from arvdm_theory.laws.gaussian_kernel import Kernel
from arvdm_theory.laws.states import State, frame_indices
from arvdm_theory.noise import transition
from arvdm_theory.plan.stage import Stage

__all__ = ["HeldLaw"]


@dataclass(frozen=True, eq=False)
class HeldLaw:
    """The joint law of states, each once.

    Attributes:
        states: their names.
        mean: (modes, n·d), in this order.
        covariance: (modes, n·d, n·d).
        dim: d.
    """

    states: tuple[State, ...]
    mean: Tensor
    covariance: Tensor
    dim: int

    @classmethod
    def empty(cls, like: Tensor, dim: int) -> HeldLaw:
        """Of no state; ``like`` is (modes, ...)."""
        return cls((), like.new_zeros(len(like), 0), like.new_zeros(len(like), 0, 0), dim)

    def of(self, states: Sequence[State]) -> tuple[Tensor, Tensor]:
        """Mean and covariance of some of them."""
        index = self._index(states)
        return self.mean[:, index], self.covariance[:, index[:, None], index]

    def only(self, states: Sequence[State]) -> HeldLaw:
        """The law of some of them."""
        return HeldLaw(tuple(states), *self.of(states), self.dim)

    def begun(self, frames: Sequence[int], level: float) -> HeldLaw:
        """With new frames from N(0, I), whose name is their level of pure noise."""
        new = len(frames) * self.dim
        eye = torch.eye(new).to(self.mean).expand(len(self.mean), -1, -1)
        nothing = self.mean.new_zeros(len(self.mean), new, 0)
        return self._with([State(frame, level) for frame in frames], (), nothing, nothing[..., :0].sum(-1), eye)

    def noised(self, copies: Sequence[State]) -> HeldLaw:
        """With copies of held states, noised from the level at which their paths part."""
        found = self
        for copy in copies:
            levels = torch.tensor([copy.level, copy.parting]).to(self.mean)
            a, v = transition(levels[0], levels[1])
            eye = torch.eye(self.dim).to(self.mean).expand(len(self.mean), -1, -1)
            of = State(copy.frame, copy.parting)
            found = found._with([copy], (of,), a * eye, found.mean.new_zeros(len(self.mean), self.dim), v * eye)
        return found

    def run(self, stage: Stage, kernel: Kernel, shown: Sequence[State]) -> HeldLaw:
        """With the states in which a stage leaves the frames that it moves.

        Args:
            stage: its window must be held at its first levels.
            kernel: of the sampler, over the stage.
            shown: its references.
        """
        first, last = stage.grid[0], stage.grid[-1]
        moved = [j for j in range(stage.window) if last[j] < first[j]]
        rows = frame_indices(moved, self.dim).to(self.mean.device)
        window = [State(frame, first[j]) for j, frame in enumerate(stage.frames)]
        return self._with(
            [State(stage.frames[j], last[j]) for j in moved], (*window, *shown),
            torch.cat([kernel.window, kernel.known], -1)[:, rows], kernel.bias[:, rows],
            kernel.covariance[:, rows[:, None], rows],
        )  # fmt: skip

    def _with(
        self, new: Sequence[State], source: Sequence[State], gain: Tensor, bias: Tensor, noise: Tensor
    ) -> HeldLaw:
        """With new states gain · source + bias + N(0, noise)."""
        index = self._index(source)
        cross = gain @ self.covariance[:, index]
        own = cross[:, :, index] @ gain.mT + noise
        mean = torch.cat([self.mean, (gain @ self.mean[:, index].unsqueeze(-1)).squeeze(-1) + bias], -1)
        top = torch.cat([self.covariance, cross.mT], -1)
        both = torch.cat([top, torch.cat([cross, (own + own.mT) / 2], -1)], -2)
        return HeldLaw((*self.states, *new), mean, both, self.dim)

    def _index(self, states: Sequence[State]) -> Tensor:
        place = {state: i for i, state in enumerate(self.states)}
        return frame_indices([place[state] for state in states], self.dim).to(self.mean.device)
