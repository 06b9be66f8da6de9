"""The KL of any frames of a rollout: dense linear algebra, sums over what is read, and what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from arvdm_theory import Codebook, FiniteStateVideo, ar1, reference_video, sticky_chain
from arvdm_theory.information.estimators import SampleError
from arvdm_theory.rollout.measure import measured_kl

LEVEL = 0.3


def noisy(clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    noise = torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    return math.exp(-LEVEL / 2) * clean + math.sqrt(1 - math.exp(-LEVEL)) * noise


def test_gaussian_frames_against_dense_algebra() -> None:
    """Frames 0 and 3 of another video of the same dimension, with the noise of their level on both sides."""
    video, frames = reference_video(), (0, 3)
    rows = [frame * video.frame_dim + i for frame in frames for i in range(video.frame_dim)]
    scale = math.exp(-LEVEL)
    true = scale * video.covariance(4)[0].numpy()[np.ix_(rows, rows)] + (1 - scale) * np.eye(len(rows))
    shift = math.exp(-LEVEL / 2) * video.mean(4)[0].numpy()[rows]
    # The rollout: white frames of variance 2 and mean 0.
    made = scale * 2 * np.eye(len(rows)) + (1 - scale) * np.eye(len(rows))
    inverse = np.linalg.inv(made)
    expected = 0.5 * (
        np.trace(inverse @ true) + shift @ inverse @ shift - len(rows)
        + np.linalg.slogdet(made)[1] - np.linalg.slogdet(true)[1]
    )  # fmt: skip
    draw = torch.Generator().manual_seed(0)
    clean = math.sqrt(2) * torch.randn(20_000, 4, video.frame_dim, generator=draw, dtype=torch.float64)
    found = measured_kl(video, noisy(clean, draw), frames, LEVEL)
    assert abs(found.value - expected) < 4 * found.stderr < 0.1 * expected


def test_states_against_the_sum_over_what_is_read() -> None:
    """Two poses a distance of 2 apart: read wrongly with Φ(-α/σ), which both sides share."""
    true, other = (
        FiniteStateVideo(sticky_chain(2, stay), Codebook(torch.tensor([[-1.0], [1.0]], dtype=torch.float64)))
        for stay in (0.9, 0.6)
    )
    miss = 0.5 * math.erfc(math.exp(-LEVEL / 2) / math.sqrt(1 - math.exp(-LEVEL)) / math.sqrt(2))
    channel = np.array([[1 - miss, miss], [miss, 1 - miss]])

    def read(stay: float) -> np.ndarray:
        step = np.array([[stay, 1 - stay], [1 - stay, stay]])
        law: np.ndarray = channel.T @ (np.diag([0.5, 0.5]) @ step @ step) @ channel
        return law

    p, q = read(0.9), read(0.6)
    expected = float((p * np.log(p / q)).sum())
    draw = torch.Generator().manual_seed(1)
    found = measured_kl(true, noisy(other.draw(40_000, 3, draw).frames, draw), (0, 2), LEVEL)
    assert abs(found.value - expected) < 4 * found.stderr < 0.2 * expected


def test_too_few_videos_are_refused() -> None:
    with pytest.raises(SampleError, match="at least"):
        measured_kl(ar1(0.5), torch.eye(4, dtype=torch.float64)[..., None], (0, 1))
