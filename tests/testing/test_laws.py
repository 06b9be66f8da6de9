"""The strategies of joint laws and kernels are valid, and reach zeros, functions and near-optimal kernels."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from arvdm_theory import check_lemma
from arvdm_theory.bounds.impossibility import AffineKernel, check_gaussian_lemma
from arvdm_theory.information.discrete import FiniteLaw, check_kernel, conditionally_independent, entropy, marginal
from arvdm_theory.information.gaussian import cholesky, conditional_mutual_information
from arvdm_theory.testing import (
    GaussianLaw,
    affine_kernels,
    finite_laws,
    gaussian_laws,
    kernels_for,
    markov_kernels,
)

Case = TypeVar("Case")
NAMES = ("past", "in", "out")

finite_cases = finite_laws().flatmap(lambda law: st.tuples(st.just(law), kernels_for(law, "in", "out")))
gaussian_cases = gaussian_laws().flatmap(lambda law: st.tuples(st.just(law), affine_kernels(law)))


def some(strategy: st.SearchStrategy[Case], tries: int = 150) -> list[Case]:
    """What the strategy comes up with in so many tries, always the same."""
    found: list[Case] = []

    @given(strategy)
    @settings(max_examples=tries, derandomize=True, database=None, deadline=None, phases=[Phase.generate])
    def collect(case: Case) -> None:
        found.append(case)

    collect()
    return found


@given(finite_laws(("a", "b", "c", "d"), max_size=3, min_size=2))
@settings(max_examples=40, deadline=None)
def test_finite_laws_have_the_axes_asked_for(law: FiniteLaw) -> None:
    assert law.names == ("a", "b", "c", "d")
    assert all(2 <= size <= 3 for size in law.probabilities.shape)
    FiniteLaw(law.probabilities, law.names)  # sums to 1 to rounding


def test_finite_laws_reach_the_hard_cases() -> None:
    laws = some(finite_laws(min_size=2))
    zeros = [(law.probabilities == 0).mean() for law in laws]
    assert any(0 < share < 0.4 for share in zeros)
    assert any(share > 0.6 for share in zeros)
    assert any(0 < law.probabilities[law.probabilities > 0].min() < 1e-250 for law in laws)
    for name in NAMES:
        others = [other for other in NAMES if other != name]
        assert any((marginal(law, name).probabilities == 0).any() for law in laws)
        # A function of the others, and not a constant.
        assert any(entropy(law, name) > 0.1 and entropy(law, name, given=others) == 0 for law in laws)
    bottlenecks = [check_lemma(law, "past", "in", "out").memory_bottleneck for law in laws]
    assert any(value > 0.5 for value in bottlenecks)
    independent = [
        value
        for law, value in zip(laws, bottlenecks, strict=True)
        if conditionally_independent(law, "past", "out", "in")
        and min(entropy(law, "past", given="in"), entropy(law, "out", given="in")) > 0.3
        and law.probabilities.min() != law.probabilities.max()
    ]
    assert independent
    assert max(independent) < 1e-28  # about u²
    assert any(1 in law.probabilities.shape for law in some(finite_laws(), 50))
    assert all(law.probabilities.ndim == 1 for law in some(finite_laws(("x",)), 10))


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_markov_kernels_are_kernels(data: st.DataObject) -> None:
    inputs = tuple(data.draw(st.lists(st.integers(1, 3), max_size=2)))
    outputs = tuple(data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=2)))
    check_kernel(data.draw(markov_kernels(inputs, outputs)), inputs, outputs)


def test_kernels_reach_zeros_functions_and_the_neighbourhood_of_the_best_one() -> None:
    kernels = some(markov_kernels((3,), (3,)), 100)
    assert any((q == 0).any() and (q < 1).all() for q in kernels)
    assert any(set(np.unique(q)) == {0.0, 1.0} and len(np.unique(q, axis=0)) == 3 for q in kernels)
    excess = [check_lemma(law, "past", "in", "out", q).excess for law, q in some(finite_cases)]
    assert any(value == np.inf for value in excess)
    assert any(0.5 < value < np.inf for value in excess)
    assert any(1e-24 < value < 1e-8 for value in excess)
    assert any(value < 1e-30 for value in excess)


@given(gaussian_cases)
@settings(max_examples=40, deadline=None)
def test_gaussian_laws_and_kernels_fit_together(case: tuple[GaussianLaw, AffineKernel]) -> None:
    law, kernel = case
    n = len(law.past) + len(law.input) + len(law.output)
    assert sorted(law.past + law.input + law.output) == list(range(n))
    assert law.mean.shape == (n,)
    assert torch.equal(law.covariance, law.covariance.mT)
    cholesky(law.covariance)
    cholesky(kernel.noise)
    assert kernel.gain.shape == (len(law.output), len(law.input))


def test_gaussian_laws_reach_the_hard_cases() -> None:
    laws = some(gaussian_laws())
    assert any(float(torch.linalg.cond(law.covariance)) > 1e5 for law in laws)
    assert any(len(law.input) == 0 for law in laws)
    assert any(law.past[0] > law.output[0] for law in laws)

    bottlenecks = [
        float(conditional_mutual_information(law.covariance, law.output, law.past, law.input)) for law in laws
    ]
    assert any(value > 3 for value in bottlenecks)
    markov = [
        law for law, value in zip(laws, bottlenecks, strict=True) if 0 < value < 1e-25 and len(law.input) > 1
    ]
    assert markov
    for law in markov:  # told by the precision matrix: Past and Out have no partial covariance
        index = list(law.past + law.input + law.output)
        precision = torch.linalg.inv(law.covariance[index][:, index])
        n_p, n_o = len(law.past), len(law.output)
        # u κ relative to the largest entry
        rounding = 2.0**-50 * float(torch.linalg.cond(law.covariance))
        assert float(precision[:n_p, -n_o:].abs().max()) < rounding * float(precision.abs().max())

    excess = [
        float(check_gaussian_lemma(law.covariance, law.mean, law.past, law.input, law.output, kernel).excess)
        for law, kernel in some(gaussian_cases)
    ]
    assert any(value > 1 for value in excess)
    assert any(1e-24 < value < 1e-8 for value in excess)


def test_names_must_differ() -> None:
    with pytest.raises(ValueError, match="different names"):
        some(finite_laws(("x", "x")), 1)
