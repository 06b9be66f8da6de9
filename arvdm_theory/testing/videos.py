"""Hypothesis strategy of small Gaussian videos."""

from __future__ import annotations

import math

import torch
from hypothesis import strategies as st

from arvdm_theory.laws.gaussian import ArrayVideo
from arvdm_theory.testing.covariances import covariances

__all__ = ["gaussian_videos"]


@st.composite
def gaussian_videos(
    draw: st.DrawFn,
    frames: int | st.SearchStrategy[int] | None = None,
    max_dim: int = 2,
    max_condition: float = 1e4,
) -> ArrayVideo:
    """Gaussian videos of a few frames in R^1 to R^``max_dim``, with a mean.

    One of: independent frames; frames with any joint covariance (condition number up to ``max_condition``); a
    separable S ⊗ B with S_ij = a^|i-j| for a = 1 - 10^-e, from nearly independent to nearly frozen frames
    (or, with a minus sign, flickering ones); the same with a revisit, where S is its mean with a matrix whose
    last frame repeats the first with correlation a, which makes old references matter.

    Args:
        draw: given by Hypothesis.
        frames: how many, or a strategy of it; 2 to 6 if left out.
        max_dim: the largest frame dimension.
        max_condition: of the joint covariance, approximately.
    """
    counts = st.just(frames) if isinstance(frames, int) else st.integers(2, 6) if frames is None else frames
    n = draw(counts, label="frames")
    dim = draw(st.integers(1, max_dim), label="frame dimension")
    kind = draw(st.sampled_from(["independent", "any", "separable", "revisit"]), label="kind")
    if kind == "any":
        covariance = draw(covariances(n * dim, max_condition, max_scale=10.0))
    else:
        inside = draw(covariances(dim, min(max_condition, 10.0), max_scale=10.0))
        time = torch.eye(n, dtype=torch.float64)
        if kind != "independent":
            # An AR(1) matrix has condition number up to ((1 + a)/(1 - a))², and `inside` up to 10.
            most = max(0.1, (math.log10(max_condition) - 1) / 2 - 0.3)
            digits = draw(st.floats(0.05, most) | st.just(most), label="smoothness")
            a = (1 - 10.0**-digits) * draw(st.sampled_from([1, -1]), label="sign")
            index = torch.arange(n)
            lag = (index[:, None] - index).abs()
            time = torch.tensor(a, dtype=torch.float64) ** lag
            if kind == "revisit" and n > 1:
                repeat = torch.eye(n, dtype=torch.float64)
                repeat[0, -1] = repeat[-1, 0] = abs(a)
                time = (time + repeat) / 2
        covariance = torch.kron(time, inside)
    mean = draw(st.lists(st.floats(-3, 3), min_size=n * dim, max_size=n * dim), label="mean")
    return ArrayVideo(covariance, dim, mean, name=kind)
