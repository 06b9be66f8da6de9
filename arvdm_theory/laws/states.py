"""Noisy states of frames: which forward path they lie on, and the noise that two of them share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from arvdm_theory.noise import alpha, joint_noise

__all__ = ["State", "check_paths", "frame_indices", "noisy_covariance", "parting_level"]


@dataclass(frozen=True)
class State:
    """One noisy state X_i^t of a frame.

    Path 0 of a frame is its own trajectory through all levels. Any other path runs along it up to the level
    ``parting`` and has noise of its own from there on: a reference freshly noised from the clean frame has
    parting 0, one freshly noised from the state at which a stopped sampler leaves the frame (level δ) has
    parting δ. Two paths other than 0 therefore part at the lower of their partings.

    Attributes:
        frame: the frame's index, from 0.
        level: its OU level t ≥ 0.
        path: which forward path of the frame it lies on; states of one frame and path share all noise up to
            the lower of their levels.
        parting: the level at which the path leaves path 0, the same for all states of a path; 0 on path 0
            itself, which never leaves.
    """

    frame: int
    level: float
    path: int = 0
    parting: float = 0.0


def frame_indices(frames: Sequence[int] | range, dim: int) -> Tensor:
    """Positions of the entries of ``frames`` in a frame-major vector of frames in R^dim."""
    return torch.tensor([frame * dim + entry for frame in frames for entry in range(dim)], dtype=torch.long)


def noisy_covariance(clean: Tensor, levels: Tensor, ancestor: Tensor, same_frame: Tensor) -> Tensor:
    """Joint covariance of noisy states: α_a α_b (Σ_ab + [same frame] (e^{s_ab} - 1) I).

    Args:
        clean: covariance of the states' frames, frame-major, (..., n·d, n·d).
        levels: OU levels, (..., n).
        ancestor: levels s_ab at which the forward paths of two states part, (..., n, n); read only where the
            frames are the same, and on the diagonal the states' own levels.
        same_frame: which states belong to one frame, (n, n).

    Returns:
        shape (..., n·d, n·d), the leading axes broadcast.

    Raises:
        ValueError: if the n states do not divide the covariance's rows.
    """
    n = same_frame.shape[0]
    dim, rest = divmod(clean.shape[-1], n)
    if rest:
        raise ValueError(f"{n} states of equal dimension cannot fill a covariance of {clean.shape[-1]} rows")
    scale = alpha(levels).repeat_interleave(dim, -1)
    noise = joint_noise(levels, torch.where(same_frame, ancestor, torch.zeros_like(ancestor)))
    eye = torch.eye(dim, dtype=clean.dtype, device=clean.device)
    spread = torch.einsum("...ab,ij->...aibj", noise, eye)
    flat = spread.reshape(*spread.shape[:-4], n * dim, n * dim)
    return scale[..., :, None] * scale[..., None, :] * clean + flat


def check_paths(states: Sequence[State]) -> None:
    """Raises ValueError unless every state lies on its path and every path leaves path 0 at one level."""
    partings: dict[tuple[int, int], float] = {}
    for state in states:
        if state.frame < 0:
            raise ValueError(f"frames are counted from 0, got {state.frame}")
        if not 0 <= state.parting <= state.level < float("inf"):
            raise ValueError(
                f"frame {state.frame}: 0 ≤ parting ≤ level < ∞ is needed, got {state.parting}, {state.level}"
            )
        if state.path == 0 and state.parting != 0:
            raise ValueError(
                f"frame {state.frame}: path 0 is the frame's own trajectory and leaves it nowhere; the "
                f"parting {state.parting} belongs to the other path"
            )
        first = partings.setdefault((state.frame, state.path), state.parting)
        if first != state.parting:
            raise ValueError(
                f"frame {state.frame}: path {state.path} cannot leave path 0 both at {first} and at "
                f"{state.parting}"
            )


def parting_level(a: State, b: State) -> float:
    """The level at which the forward paths of two states of one frame part."""
    if a.path == b.path:
        return min(a.level, b.level)
    return min(a.level, b.level, *(state.parting for state in (a, b) if state.path != 0))
