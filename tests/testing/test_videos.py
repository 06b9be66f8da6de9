"""The video strategy makes valid Gaussian videos, from independent to nearly frozen, with revisits."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from arvdm_theory import ArrayVideo
from arvdm_theory.information.gaussian import cholesky, conditional_mutual_information
from arvdm_theory.laws.states import frame_indices
from arvdm_theory.testing import gaussian_videos

# The rarest case below is one draw in twenty; Hypothesis repeats itself, so leave it many. `find` stops early.
QUICK = settings(max_examples=4000, database=None, deadline=None, phases=[Phase.generate])


@given(gaussian_videos())
@settings(max_examples=60, deadline=None)
def test_videos_are_valid_and_conditioned_as_promised(video: ArrayVideo) -> None:
    assert video.length is not None
    assert 2 <= video.length <= 6
    assert 1 <= video.frame_dim <= 2
    covariance = video.covariance(video.length)
    cholesky(covariance)
    assert float(torch.linalg.cond(covariance[0])) < 2e4
    assert bool(torch.isfinite(video.mean(video.length)).all())


@given(st.integers(1, 9).flatmap(lambda n: st.tuples(st.just(n), gaussian_videos(n, max_dim=1))))
@settings(max_examples=40, deadline=None)
def test_videos_have_the_length_asked_for(case: tuple[int, ArrayVideo]) -> None:
    length, video = case
    assert video.length == length
    assert video.frame_dim == 1


def old_frames_matter(video: ArrayVideo) -> float:
    """I(last frame; first frame | the frames between), in nats."""
    assert video.length is not None
    d, n = video.frame_dim, video.length
    blocks = (frame_indices([n - 1], d), frame_indices([0], d), frame_indices(range(1, n - 1), d))
    return float(conditional_mutual_information(video.covariance(n), *blocks)[0])


def correlation(video: ArrayVideo) -> float:
    """Of one pixel in the first two frames."""
    covariance, d = video.covariance(2)[0], video.frame_dim
    return float(covariance[0, d] / (covariance[0, 0] * covariance[d, d]).sqrt())


def reach(condition: Callable[[ArrayVideo], bool]) -> ArrayVideo:
    """A video of which ``condition`` holds; seeded, since `find` would seed itself from the file's path."""
    return find(gaussian_videos(4), condition, settings=QUICK, random=random.Random(0))


def test_videos_reach_the_hard_cases() -> None:
    reach(lambda v: correlation(v) > 0.9)
    reach(lambda v: correlation(v) < -0.7)
    reach(lambda v: correlation(v) == 0 and old_frames_matter(v) == 0)
    reach(lambda v: old_frames_matter(v) > 0.05 and v.name == "revisit")
    markov = reach(lambda v: v.name == "separable" and correlation(v) > 0.5)
    assert old_frames_matter(markov) < 1e-20
    reach(lambda v: float(v.mean(4).abs().max()) > 1)
