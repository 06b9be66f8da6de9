"""The covariance strategies attain the condition numbers they promise and mix directions uniformly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from torch import Tensor

from arvdm_theory.information.gaussian import cholesky
from arvdm_theory.testing import covariances, rotations

QUICK = settings(max_examples=150, derandomize=True, database=None, deadline=None, phases=[Phase.generate])


def condition_number(matrix: Tensor) -> float:
    return float(torch.linalg.cond(matrix))


@given(covariances())
@settings(max_examples=60, deadline=None)
def test_covariances_are_symmetric_and_positive_definite(matrix: Tensor) -> None:
    assert matrix.dtype == torch.float64
    assert torch.equal(matrix, matrix.mT)
    cholesky(matrix)


@given(st.sampled_from([1.0, 1e3, 1e10]), st.integers(2, 6), st.data())
@settings(max_examples=60, deadline=None)
def test_the_condition_number_is_the_one_asked_for(wanted: float, dim: int, data: st.DataObject) -> None:
    matrix = data.draw(covariances(dim, max_condition=wanted, min_condition=wanted))
    assert matrix.shape == (dim, dim)
    # Forming U diag(λ) U^T moves λ_min by at most n u λ_max, a relative n u κ of it.
    assert condition_number(matrix) == pytest.approx(wanted, rel=8 * dim * 2.0**-53 * wanted + 1e-12)


def test_hard_and_easy_cases_are_both_reached() -> None:
    found: list[Tensor] = []

    @given(covariances(4))
    @QUICK
    def collect(matrix: Tensor) -> None:
        found.append(matrix)

    collect()
    numbers = [condition_number(matrix) for matrix in found]
    assert any(number > 1e9 for number in numbers)
    assert any(number < 10 for number in numbers)
    tops = [float(matrix.diagonal().max()) for matrix in found]
    assert any(top > 100 for top in tops)
    assert any(top < 0.01 for top in tops)
    assert any(torch.equal(matrix, torch.diag(matrix.diagonal())) for matrix in found)
    # Nearly singular along a direction that is no axis.
    assert any(
        number > 1e4 and abs(float(matrix[0, 1])) > 0.05 * top
        for matrix, number, top in zip(found, numbers, tops, strict=True)
    )


def test_covariances_shrink_to_the_identity() -> None:
    slow = settings(QUICK, phases=[Phase.generate, Phase.shrink])
    assert torch.equal(find(covariances(3), lambda m: True, settings=slow), torch.eye(3, dtype=torch.float64))


def test_rotations_are_orthogonal_and_point_everywhere_alike() -> None:
    dim, found = 3, []

    @given(rotations(dim))
    @settings(max_examples=250, derandomize=True, database=None, deadline=None, phases=[Phase.generate])
    def collect(rotation: Tensor) -> None:
        torch.testing.assert_close(rotation @ rotation.mT, torch.eye(dim).double(), rtol=0, atol=1e-14)
        if not torch.equal(rotation, torch.eye(dim).double()):
            found.append(rotation.numpy())

    collect()
    every = np.unique(np.stack(found), axis=0)
    assert len(every) > 150
    # Haar: each entry has mean 0 and variance 1/n, and the determinant either sign. Five standard errors.
    n = len(every)
    assert np.abs(every.mean(0)).max() < 5 / np.sqrt(dim * n)
    # An entry of a Haar rotation of R^3 is uniform on [-1, 1]: Var(entry²) = 1/5 - 1/9.
    assert np.abs((every**2).mean(0) - 1 / dim).max() < 5 * np.sqrt((1 / 5 - 1 / 9) / n)
    assert abs((np.linalg.det(every) > 0).mean() - 0.5) < 5 * 0.5 / np.sqrt(n)


def test_impossible_condition_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="1 ≤ min ≤ max ≤ 1e12"):
        find(covariances(2, max_condition=1e14), lambda m: True, settings=QUICK)
