"""The Fréchet distance against matrix square roots, diagonal cases and optimal couplings."""

import re

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import sqrtm

from arvdm_theory.video.frechet import feature_distance, frechet_distance

Array = NDArray[np.float64]


def _gaussian(seed: int, d: int, rank: int | None = None) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(d, rank or 2 * d))
    return rng.normal(size=d), factor @ factor.T / factor.shape[1]


@pytest.mark.parametrize("d", [1, 3, 20])
def test_the_distance_is_that_of_the_matrix_square_root(d: int) -> None:
    (m1, s1), (m2, s2) = _gaussian(0, d), _gaussian(1, d)
    expected = ((m1 - m2) ** 2).sum() + np.trace(s1 + s2) - 2 * np.trace(sqrtm(s1 @ s2).real)
    assert frechet_distance(m1, s1, m2, s2) == pytest.approx(expected, rel=1e-10)


def test_independent_coordinates_add_up() -> None:
    rng = np.random.default_rng(2)
    m1, m2, a, b = rng.normal(size=4), rng.normal(size=4), rng.uniform(size=4), rng.uniform(size=4)
    turn = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    expected = ((m1 - m2) ** 2 + (np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    found = frechet_distance(turn @ m1, turn * a @ turn.T, turn @ m2, turn * b @ turn.T)
    assert found == pytest.approx(expected, rel=1e-12)


def test_it_is_the_cost_of_the_best_linear_coupling() -> None:
    (m1, s1), (m2, s2) = _gaussian(3, 5), _gaussian(4, 5)
    root = sqrtm(s1).real
    inner = sqrtm(root @ s2 @ root).real
    transport = np.linalg.solve(root, inner) @ np.linalg.inv(root)
    # Optimal transport maps x to m2 + A (x - m1) with A S1 A = S2; its mean squared step is the distance.
    np.testing.assert_allclose(transport @ s1 @ transport.T, s2, atol=1e-9)
    step = transport - np.eye(5)
    cost = ((m1 - m2) ** 2).sum() + np.trace(step @ s1 @ step.T)
    assert frechet_distance(m1, s1, m2, s2) == pytest.approx(cost, rel=1e-9)


def test_equal_laws_are_at_no_distance_even_when_singular() -> None:
    for rank in (None, 3):
        m, s = _gaussian(5, 8, rank)
        # tr(S) + tr(S) - 2 tr(S): some roundings of numbers of the trace's size.
        assert abs(frechet_distance(m, s, m, s)) < 100 * np.finfo(float).eps * np.trace(s)
    (m1, s1), (m2, s2) = _gaussian(6, 8, 2), _gaussian(7, 8, 3)
    assert frechet_distance(m1, s1, m2, s2) == pytest.approx(frechet_distance(m2, s2, m1, s1), rel=1e-12)
    assert frechet_distance(m1, s1, m2, 0 * s2) == pytest.approx(((m1 - m2) ** 2).sum() + np.trace(s1), rel=1e-12)


def test_features_give_their_moments_distance_and_say_how_many_there_were() -> None:
    rng = np.random.default_rng(8)
    truth, generated = rng.normal(size=(50, 4)), 1 + 2 * rng.normal(size=(40, 4))
    found = feature_distance(truth, generated)
    expected = frechet_distance(truth.mean(0), np.cov(truth.T), generated.mean(0), np.cov(generated.T))
    assert found.distance.value == expected
    assert (found.samples_truth, found.samples_generated, found.dimension) == (50, 40, 4)
    assert found.distance.warnings == ()
    assert np.isnan(found.distance.stderr)
    few = feature_distance(truth[:4], generated[:3])
    assert "3 videos cannot fill a covariance of dimension 4" in few.distance.warnings[0]
    assert feature_distance(truth[:, :1], generated[:, :1]).distance.value > 0


@pytest.mark.parametrize(
    ("one", "two", "words"),
    [
        (([0.0], [[1.0]]), ([0.0, 0.0], np.eye(2)), "dimensions 1 and 2"),
        (([0.0], np.eye(2)), ([0.0], [[1.0]]), "shapes"),
        (([0.0], [[-1.0]]), ([0.0], [[1.0]]), "smallest eigenvalue is -1"),
        (([0.0, 0.0], [[1.0, 0.5], [0.0, 1.0]]), ([0.0, 0.0], np.eye(2)), "not symmetric"),
        (([np.nan], [[1.0]]), ([0.0], [[1.0]]), "NaN"),
    ],
)
def test_what_is_no_gaussian_is_refused(one: tuple, two: tuple, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        frechet_distance(*one, *two)


def test_too_few_videos_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 videos, got 1 true and 5"):
        feature_distance(np.zeros((1, 3)), np.zeros((5, 3)))
    with pytest.raises(ValueError, match=r"\(5, 3\) and \(5, 2\)"):
        feature_distance(np.zeros((5, 3)), np.zeros((5, 2)))
