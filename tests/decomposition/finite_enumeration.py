"""Finite-state videos by brute force: every sequence of states is written out, with dense Gaussians a frame."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp

from arvdm_theory import Codebook, FiniteStateVideo
from arvdm_theory.laws.emission import GaussianRegimes
from arvdm_theory.laws.states import State

Array = NDArray[np.float64]


def moments(video: FiniteStateVideo) -> tuple[Array, Array]:
    """Mean (Y, d) and covariance (Y, d, d) of a clean frame of every symbol."""
    rendering = video.rendering
    if isinstance(rendering, GaussianRegimes):
        return rendering.means.numpy(), rendering.covariances.numpy()
    assert isinstance(rendering, Codebook)
    eye = np.eye(rendering.frame_dim)
    return rendering.pictures.numpy(), np.stack([rendering.variance * eye] * rendering.symbols)


def symbol_logs(video: FiniteStateVideo, states: Sequence[State], values: Array) -> Array:
    """log p(all states of one frame | symbol), (batch, symbols), from values (batch, n, d)."""
    mean, covariance = moments(video)
    n, d = values.shape[1:]
    scale = np.array([math.exp(-s.level / 2) for s in states])
    noise = np.zeros((n, n))
    for i, a in enumerate(states):
        for j, b in enumerate(states):
            shared = [a.level, b.level] + ([s.parting for s in (a, b) if s.path] if a.path != b.path else [])
            noise[i, j] = math.exp(-(a.level + b.level) / 2) * math.expm1(min(shared))
    logs = []
    for centre, spread in zip(mean, covariance, strict=True):
        full = np.kron(np.outer(scale, scale), spread) + np.kron(noise, np.eye(d))
        gap = values.reshape(len(values), -1) - np.kron(scale, centre)
        square = (gap * np.linalg.solve(full, gap.T).T).sum(-1)
        logs.append(-0.5 * (square + np.linalg.slogdet(2 * np.pi * full)[1]))
    return np.stack(logs, -1)


def log_joint(
    video: FiniteStateVideo,
    states: Sequence[State],
    values: Array,
    known: dict[int, Array] | None = None,
    fixed: tuple[int, int] | None = None,
) -> Array:
    """log p(noisy states, known symbols), (batch,); with ``fixed`` = (f, y), jointly with frame f's symbol y."""
    known, chain = known or {}, video.chain
    emission = np.eye(chain.states) if video.emission is None else video.emission.numpy()
    frames = {s.frame for s in states} | set(known) | ({fixed[0]} if fixed else set())
    length = max([*frames, chain.order - 1]) + 1
    logs = np.zeros((len(values), length, chain.states))
    for frame in frames:
        rows = [i for i, s in enumerate(states) if s.frame == frame]
        seen = np.zeros((len(values), emission.shape[1]))
        if rows:
            seen = seen + symbol_logs(video, [states[i] for i in rows], values[:, rows])
        if frame in known:
            seen = np.where(known[frame][:, None] == np.arange(emission.shape[1]), seen, -np.inf)
        if fixed and fixed[0] == frame:
            seen = np.where(np.arange(emission.shape[1]) == fixed[1], seen, -np.inf)
        with np.errstate(divide="ignore"):
            logs[:, frame] = logsumexp(np.log(emission) + seen[:, None], -1)
    sequences = np.array(list(itertools.product(range(chain.states), repeat=length)))
    with np.errstate(divide="ignore"):
        law = np.log(chain.initial.numpy())[tuple(sequences[:, : chain.order].T)]
        step = np.log(chain.transition.numpy())
    for i in range(chain.order, length):
        law = law + step[tuple(sequences[:, i - chain.order : i + 1].T)]
    total = law + sum(logs[:, i][:, sequences[:, i]] for i in range(length))
    return np.asarray(logsumexp(total, axis=-1))


def random_law(rng: np.random.Generator, *shape: int) -> torch.Tensor:
    """Laws along the last axis, none of them near a corner."""
    weights = rng.gamma(1.0, size=shape) + 0.1
    return torch.from_numpy(weights / weights.sum(-1, keepdims=True))
