"""What is known about a batch of videos: noisy states at any levels, frames whose symbol is known, and actions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from arvdm_theory.laws.states import State, check_paths, parting_level
from arvdm_theory.noise import alpha, joint_noise

__all__ = ["Evidence", "EvidenceError", "state_groups"]


class EvidenceError(ValueError):
    """Evidence that has no density, contradicts the video, or does not fit; the message says what and where."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known about a batch of videos: noisy states, frames whose symbol is known, and actions.

    A symbol is what a noise-free frame shows: the state of a Markov video, the emitted symbol of a hidden Markov
    video, the regime of a switching one. Evidence adds up: ``window + references``.

    Attributes:
        states: frames and OU levels of the noisy states; levels are those of one plan, the same for the batch.
            Level 0 needs a video with observation noise.
        values: the noisy states, shape (batch, len(states), d), float64.
        frames: frames whose symbol is known.
        symbols: the symbols, shape (batch, len(frames)), whole numbers.
        actions: that lead to frames 0..F-1, shape (batch, F, a).

    Raises:
        EvidenceError: if shapes do not fit, a value is not finite, or a frame or state is named twice.
    """

    states: tuple[State, ...] = ()
    values: Tensor | None = None
    frames: tuple[int, ...] = ()
    symbols: Tensor | None = None
    actions: Tensor | None = None

    def __post_init__(self) -> None:
        for what, names, table, ndim in (
            ("states", self.states, self.values, 3),
            ("frames", self.frames, self.symbols, 2),
        ):
            count = None if table is None else (tuple(table.shape) if table.ndim == ndim else None)
            if (names and count is None) or (count is not None and count[1] != len(names)):
                shape = None if table is None else tuple(table.shape)
                wanted = "(batch, n, d)" if ndim == 3 else "(batch, n)"
                raise EvidenceError(f"{len(names)} {what} need values of shape {wanted}, got {shape}")
        if self.values is not None and self.values.dtype != torch.float64:
            raise EvidenceError(f"noisy states must be float64, got {self.values.dtype}")
        if self.values is not None and not bool(torch.isfinite(self.values).all()):
            raise EvidenceError("noisy states must be finite numbers")
        if self.symbols is not None and (self.symbols.is_floating_point() or self.symbols.is_complex()):
            raise EvidenceError(f"symbols must be whole numbers, got {self.symbols.dtype}")
        if len(set(self.frames)) < len(self.frames):
            raise EvidenceError(f"a frame's symbol is given twice: {sorted(self.frames)}")
        _check_paths(self.states)
        if self.frames and min(self.frames) < 0:
            raise EvidenceError(f"frames are counted from 0, got {min(self.frames)}")

    @classmethod
    def noisy(cls, frames: Sequence[int], levels: Sequence[float], values: Tensor) -> Evidence:
        """States of ``frames`` at ``levels`` on their own forward paths."""
        states = tuple(State(f, float(level)) for f, level in zip(frames, levels, strict=True))
        return cls(states, values)

    @classmethod
    def clean(cls, frames: Sequence[int], symbols: Tensor) -> Evidence:
        """Frames whose symbols (batch, len(frames)) are known."""
        return cls(frames=tuple(frames), symbols=symbols)

    def __add__(self, other: Evidence) -> Evidence:
        batch = max(self.batch, other.batch)

        def both(first: Tensor | None, second: Tensor | None) -> Tensor | None:
            parts = [part for part in (first, second) if part is not None]
            if any(len(part) not in (1, batch) for part in parts):
                raise EvidenceError(f"batches of {[len(part) for part in parts]} videos do not go together")
            return torch.cat([part.expand(batch, *part.shape[1:]) for part in parts], 1) if parts else None

        values, symbols = both(self.values, other.values), both(self.symbols, other.symbols)
        actions = self.actions if other.actions is None else other.actions
        return Evidence(self.states + other.states, values, self.frames + other.frames, symbols, actions)

    @property
    def batch(self) -> int:
        """The number of videos; 1 if nothing is known."""
        known = (self.values, self.symbols, self.actions)
        return max([len(table) for table in known if table is not None], default=1)

    @property
    def empty(self) -> bool:
        """Whether nothing is known."""
        return not (self.states or self.frames or self.actions is not None)

    def columns(self, chosen: Sequence[int]) -> Evidence:
        """Some of the states (or of the frames whose symbol is known, if there are only such); all actions
        stay."""
        index = list(chosen)
        if self.values is not None:
            return Evidence(tuple(self.states[i] for i in index), self.values[:, index], actions=self.actions)
        symbols = None if self.symbols is None else self.symbols[:, index]
        return Evidence(frames=tuple(self.frames[i] for i in index), symbols=symbols, actions=self.actions)

    @property
    def known_frames(self) -> tuple[int, ...]:
        """The frames that something is known about, in order."""
        return tuple(sorted({*self.frames, *(state.frame for state in self.states)}))


def state_groups(states: Sequence[State], key: set[int]) -> list[tuple[list[int], Tensor, Tensor, Tensor]]:
    """Noisy states by frame, frames with equally many states together, those in ``key`` apart from the others.

    Returns:
        for each group its g frames, which states are theirs (g, n), α (g, n) and the noise covariance
        N_ab = α_a α_b (e^{s_ab} - 1) (g, n, n), both float64 on the CPU.

    Raises:
        EvidenceError: if a state is named twice or its path is none.
    """
    _check_paths(states)
    rows_of: dict[int, list[int]] = {}
    for i, state in enumerate(states):
        rows_of.setdefault(state.frame, []).append(i)
    together: dict[tuple[int, bool], list[int]] = {}
    for frame in sorted(rows_of):
        together.setdefault((len(rows_of[frame]), frame in key), []).append(frame)
    groups = []
    for frames in together.values():
        own = [[states[i] for i in rows_of[frame]] for frame in frames]
        levels = torch.tensor([[s.level for s in few] for few in own], dtype=torch.float64)
        parting = [[[parting_level(a, b) for b in few] for a in few] for few in own]
        noise = joint_noise(levels, torch.tensor(parting, dtype=torch.float64))
        groups.append((frames, torch.tensor([rows_of[frame] for frame in frames]), alpha(levels), noise))
    return groups


def _check_paths(states: Sequence[State]) -> None:
    """Raises EvidenceError unless every state is named once and lies on a path that leaves path 0 at one level."""
    try:
        check_paths(states)
    except ValueError as error:
        raise EvidenceError(str(error)) from error
    seen: set[tuple[int, int, float]] = set()
    for state in states:
        if (state.frame, state.path, state.level) in seen:
            raise EvidenceError(f"frame {state.frame} is given twice at level {state.level} of path {state.path}")
        seen.add((state.frame, state.path, state.level))
