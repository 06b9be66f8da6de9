"""The videos of the experiments, by name; the law of each is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from arvdm_theory.laws.chains import MarkovChain, sticky_chain
from arvdm_theory.laws.emission import Codebook, GaussianRegimes
from arvdm_theory.laws.finite import FiniteStateVideo
from arvdm_theory.laws.gaussian import GaussianVideo
from arvdm_theory.laws.linear import ar1, reference_video, state_space
from arvdm_theory.laws.long_memory import NeedleVideo, fractional_gaussian_noise
from arvdm_theory.laws.pixels import ExponentialMemory, PixelVideo, PowerLaw

__all__ = ["FINITE_VIDEOS", "GAUSSIAN_VIDEOS", "VIDEOS", "Video", "damped_period", "walker"]

Video = GaussianVideo | FiniteStateVideo


def _hidden() -> GaussianVideo:
    """A hidden rotation seen in noise: the observed frames have unbounded memory."""
    turn = ((0.94, -0.25), (0.25, 0.94))
    noise = ((0.05, 0.0), (0.0, 0.05))
    return state_space(turn, noise, ((1.0, 0.0), (0.5, 1.0)), ((0.1, 0.0), (0.0, 0.1)), name="hidden state")


def damped_period(radius: float, period: float = 7.0) -> GaussianVideo:
    """The reference video in R^1, but its period fades by ``radius`` a frame, so that it can be learnt."""
    turn = 2 * math.pi / period
    c, s = radius * math.cos(turn), radius * math.sin(turn)
    transition = ((0.8, 0.0, 0.0), (0.0, c, -s), (0.0, s, c))
    noise = [[0.0] * 3 for _ in range(3)]
    for i, (share, factor) in enumerate(((0.5, 0.8), (0.4, radius), (0.4, radius))):
        noise[i][i] = share * (1 - factor**2)
    return state_space(transition, noise, ((1.0, 1.0, 0.0),), ((0.1,),), name=f"period of {period:g}, damped")


GAUSSIAN_VIDEOS: dict[str, Callable[[], GaussianVideo]] = {
    "AR(1) 0.8": lambda: ar1(0.8, name="AR(1) 0.8"),
    "reference": reference_video,
    "hidden state": _hidden,
    "long memory": lambda: fractional_gaussian_noise(0.85, name="long memory"),
    "needle": lambda: NeedleVideo(
        query_start=8, seen=2, queries=6, strength=2.0, background_correlation=0.5, length=32, name="needle"
    ),
    "pixels 8x8": lambda: PixelVideo(
        8, 8, PowerLaw(), ExponentialMemory(tau=8.0, exponent=1.0), name="pixels 8x8"
    ),
}
"""Videos by name; each has at least 32 frames."""


def _table(values: Sequence[Any]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _circle(places: int) -> Tensor:
    angle = 2 * math.pi * torch.arange(places, dtype=torch.float64) / places
    return torch.stack([torch.cos(angle), torch.sin(angle)], -1)


def walker(places: int = 6, keep: float = 0.92) -> FiniteStateVideo:
    """A walker on a circle that takes one step a frame and rarely turns round: one frame does not show its way."""
    here = torch.arange(places)
    transition = torch.full((places,) * 3, 0.0, dtype=torch.float64)
    transition[:, here, (here + 1) % places] = 0.5  # after two frames that cannot follow each other
    transition[:, here, (here - 1) % places] = 0.5
    for way in (1, -1):
        before = (here - way) % places
        transition[before, here, (here + way) % places] = keep
        transition[before, here, before] = 1 - keep
    initial = torch.zeros(places, places, dtype=torch.float64)
    for way in (1, -1):
        initial[here, (here + way) % places] = 0.5 / places
    return FiniteStateVideo(MarkovChain(transition, initial), Codebook(_circle(places)), name="walker on a circle")


def _poses() -> FiniteStateVideo:
    """The least multi-modal video: two states."""
    return FiniteStateVideo(sticky_chain(2, 0.9), Codebook(_table([[-1.0], [1.0]])), name="two poses")


def _hidden_markov() -> FiniteStateVideo:
    """Three hidden states that show one of two noisy pictures."""
    emission = _table([[0.95, 0.05], [0.5, 0.5], [0.1, 0.9]])
    pictures = Codebook(_table([[-1.0], [1.0]]), 0.1)
    return FiniteStateVideo(sticky_chain(3, 0.85), pictures, emission, name="hidden Markov")


def _switching() -> FiniteStateVideo:
    """Two states that show Gaussian frames, one of them flat and one long."""
    spread = _table([[[0.3, 0.2], [0.2, 0.4]], [[0.05, 0.0], [0.0, 0.9]]])
    regimes = GaussianRegimes(_table([[-0.8, 0.0], [0.8, 0.3]]), spread)
    return FiniteStateVideo(sticky_chain(2, 0.9), regimes, name="switching Gaussian")


FINITE_VIDEOS: dict[str, Callable[[], FiniteStateVideo]] = {
    "two poses": _poses,
    "walker on a circle": walker,
    "hidden Markov": _hidden_markov,
    "switching Gaussian": _switching,
}
"""Finite-state videos by name."""

VIDEOS: dict[str, Callable[[], Video]] = {
    **GAUSSIAN_VIDEOS,
    **FINITE_VIDEOS,
    "AR(1) 0.95": lambda: ar1(0.95, name="AR(1) 0.95"),
}
"""All of them, and one that forgets slowly."""
