"""The impossibility lemma on laws and kernels that Hypothesis makes up, and false versions of it that it refutes.

What must hold is compared within the rounding bound that the check itself reports.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import pytest
import torch
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample
from numpy.typing import NDArray
from torch import Tensor

from arvdm_theory import check_lemma
from arvdm_theory.bounds.impossibility import (
    AffineKernel,
    check_finite_memory,
    check_gaussian_lemma,
    check_gaussian_memory,
)
from arvdm_theory.bounds.information_bottleneck import gaussian_memory_frontier
from arvdm_theory.information.discrete import (
    FiniteLaw,
    check_kernel,
    conditional_kernel,
    conditional_mutual_information,
    marginal,
    mutual_information,
)
from arvdm_theory.information.gaussian import conditional_mutual_information as gaussian_information
from arvdm_theory.testing import (
    GaussianLaw,
    affine_kernels,
    finite_laws,
    gaussian_laws,
    kernels_for,
    markov_kernels,
)

Case = TypeVar("Case")
Kernel = NDArray[np.float64]

laws_with_kernels = finite_laws().flatmap(lambda law: st.tuples(st.just(law), kernels_for(law, "in", "out")))
codes = st.integers(1, 3)
laws_with_codes = finite_laws().flatmap(
    lambda law: st.tuples(st.just(law), codes.flatmap(lambda n: markov_kernels(law.sizes("past"), (n,))))
)
gaussian_cases = gaussian_laws(max_condition=1e8).flatmap(
    lambda law: st.tuples(st.just(law), affine_kernels(law, max_condition=1e8))
)


@st.composite
def views(draw: st.DrawFn, law: GaussianLaw) -> Tensor:
    """Linear views of the past, from all but blind to all but noiseless."""
    shape = (draw(st.integers(1, 3)), len(law.past))
    entries = draw(st.lists(st.floats(-2, 2), min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]))
    return torch.tensor(entries, dtype=torch.float64).reshape(shape) * 10.0 ** draw(st.integers(-4, 3))


gaussian_memories = gaussian_laws(max_condition=1e6).flatmap(lambda law: st.tuples(st.just(law), views(law)))


# -- what holds --------------------------------------------------------------------------------------


@given(laws_with_kernels)
@settings(max_examples=150, deadline=None)
def test_the_lemma_holds_for_finite_laws(case: tuple[FiniteLaw, Kernel]) -> None:
    law, kernel = case
    check = check_lemma(law, "past", "in", "out", kernel)
    assert check.holds
    assert (check.cost == np.inf) == (check.excess == np.inf)


@given(laws_with_kernels)
@settings(max_examples=70, deadline=None)
def test_only_the_conditional_law_attains_the_memory_bottleneck(case: tuple[FiniteLaw, Kernel]) -> None:
    law, kernel = case
    best = check_lemma(law, "past", "in", "out")
    assert best.excess <= best.rounding
    assert abs(best.cost - best.memory_bottleneck) <= best.rounding
    # Pinsker under the average over inputs: any distance from the conditional law is paid for.
    seen = marginal(law, "in").probabilities
    distance = np.abs(conditional_kernel(law, "out", "in") - kernel).sum(1) / 2
    check = check_lemma(law, "past", "in", "out", kernel)
    assert check.cost >= check.memory_bottleneck + 2 * float(seen @ distance**2) - check.rounding


@given(gaussian_cases)
@settings(max_examples=70, deadline=None)
def test_the_lemma_holds_for_gaussian_laws(case: tuple[GaussianLaw, AffineKernel]) -> None:
    law, kernel = case
    blocks = (law.covariance, law.mean, law.past, law.input, law.output)
    assert check_gaussian_lemma(*blocks, kernel).holds
    best = check_gaussian_lemma(*blocks)
    assert best.holds
    assert float(best.excess) <= float(best.rounding)


@given(laws_with_codes)
@settings(max_examples=100, deadline=None)
def test_more_history_helps_and_a_memory_of_r_nats_by_at_most_r(case: tuple[FiniteLaw, Kernel]) -> None:
    law, code = case
    check = check_finite_memory(law, "past", "in", "out", code)
    assert check.holds
    # The three statements that `holds` sums up, from the four numbers.
    assert abs(check.without - check.remaining - check.saved) <= check.rounding
    assert check.remaining <= check.without + check.rounding
    assert check.remaining >= check.without - check.budget - check.rounding


@given(gaussian_memories)
@settings(max_examples=70, deadline=None)
def test_gaussian_memories_obey_the_bound_and_the_frontier(case: tuple[GaussianLaw, Tensor]) -> None:
    law, view = case
    blocks = (law.covariance, law.past, law.input, law.output)
    check = check_gaussian_memory(*blocks, view, torch.eye(len(view), dtype=torch.float64))
    assert check.holds
    least = gaussian_memory_frontier(*blocks).remaining(float(check.budget))
    assert float(check.remaining) >= float(least) - float(check.rounding)


@given(gaussian_laws(max_condition=1e6), st.floats(0, 6))
@settings(max_examples=40, deadline=None)
def test_the_best_memory_attains_the_frontier(law: GaussianLaw, budget: float) -> None:
    blocks = (law.covariance, law.past, law.input, law.output)
    frontier = gaussian_memory_frontier(*blocks)
    view = frontier.memory(budget)
    check = check_gaussian_memory(*blocks, view, torch.eye(len(view), dtype=torch.float64))
    assert check.holds
    assert abs(float(check.remaining) - float(frontier.remaining(budget))) <= float(check.rounding)


@given(gaussian_laws(max_condition=1e6), st.data())
@settings(max_examples=40, deadline=None)
def test_keeping_clean_frames_helps_by_what_they_say(law: GaussianLaw, data: st.DataObject) -> None:
    kept = data.draw(st.integers(0, len(law.past)))
    known, rest = law.past[:kept], law.past[kept:]
    if not known:
        return
    check = check_gaussian_memory(
        law.covariance, law.past, law.input, law.output, torch.eye(len(law.past), dtype=torch.float64)[:kept]
    )
    assert check.holds
    direct = gaussian_information(law.covariance, law.output, rest, law.input + known)
    assert abs(float(check.remaining - direct)) <= float(check.rounding)


# -- what does not -----------------------------------------------------------------------------------


def counterexample(cases: st.SearchStrategy[Case], claim: Callable[[Case], bool], tries: int = 2000) -> Case:
    """A case against a claim, within so many tries and not shrunk; raises NoSuchExample if there is none."""
    plain = settings(max_examples=tries, database=None, deadline=None, phases=[Phase.generate])
    return find(cases, lambda case: not claim(case), settings=plain, random=random.Random(0))


def test_the_search_refutes_false_claims_by_more_than_rounding() -> None:
    """Each claim is off by a slack of 1e-6, a hundred million times what rounding makes."""
    slack = 1e-6

    def without_the_condition(case: tuple[FiniteLaw, Kernel]) -> bool:
        """The lemma with I(Out; Past) for I(Out; Past | In)."""
        law, kernel = case
        check = check_lemma(law, "past", "in", "out", kernel)
        wrong = mutual_information(law, "out", "past") + check.excess
        return check.cost == np.inf or abs(check.cost - wrong) < slack

    law, kernel = counterexample(laws_with_kernels, without_the_condition)
    assert check_lemma(law, "past", "in", "out", kernel).holds

    def unconditional_output_is_as_good(law: FiniteLaw) -> bool:
        """That a kernel which ignores its input attains the memory bottleneck."""
        rows = np.broadcast_to(marginal(law, "out").probabilities, law.sizes(("in", "out")))
        check = check_lemma(law, "past", "in", "out", rows)
        return check.cost < check.memory_bottleneck + slack

    law = counterexample(finite_laws(), unconditional_output_is_as_good)
    assert mutual_information(law, "in", "out") > slack  # the price of ignoring the input

    def every_condition_helps(law: FiniteLaw) -> bool:
        """I(X; Z | W) ≤ I(X; Z) for any W, not only for functions of X."""
        given_it = conditional_mutual_information(law, "out", "past", "in")
        return given_it <= mutual_information(law, "out", "past") + slack

    counterexample(finite_laws(), every_condition_helps)


@st.composite
def peeking_codes(draw: st.DrawFn) -> tuple[FiniteLaw, Kernel]:
    """A law, and a "memory" whose noise is not independent: it sees the output."""
    law = draw(finite_laws())
    return law, draw(markov_kernels(law.sizes(("past", "out")), (2,)))


def saves(case: tuple[FiniteLaw, Kernel]) -> tuple[float, float]:
    """What a memory P(h | past, out) saves, and its budget."""
    law, code = case
    full = FiniteLaw.from_weights(law.probabilities[..., None] * code[:, None], (*law.names, "h"))
    without = conditional_mutual_information(full, "out", "past", "in")
    remaining = conditional_mutual_information(full, "out", "past", ("in", "h"))
    return without - remaining, conditional_mutual_information(full, "h", "past", "in")


def within_its_budget(case: tuple[FiniteLaw, Kernel]) -> bool:
    saved, budget = saves(case)
    return saved <= budget + 1e-12


def test_a_memory_that_peeks_at_the_output_may_hurt_but_obeys_the_budget() -> None:
    honest = laws_with_codes.map(lambda case: (case[0], case[1][:, None]))
    with pytest.raises(NoSuchExample):
        counterexample(honest, lambda case: saves(case)[0] >= -1e-12, tries=100)
    hurts = counterexample(peeking_codes(), lambda case: saves(case)[0] >= -1e-6)
    assert not np.allclose(hurts[1][:, :1], hurts[1])  # it does look at the output
    # saved = I(h; Past | In) - I(h; Past | In, Out): no memory whatever saves more than it holds.
    with pytest.raises(NoSuchExample):
        counterexample(peeking_codes(), within_its_budget, tries=100)


def test_no_kernel_is_found_that_costs_less_than_the_memory_bottleneck() -> None:
    def pays(case: tuple[FiniteLaw, Kernel]) -> bool:
        check = check_lemma(case[0], "past", "in", "out", case[1])
        return check.cost >= check.memory_bottleneck - check.rounding

    with pytest.raises(NoSuchExample):
        counterexample(laws_with_kernels, pays)
    # The same search does find one once the "kernel" may depend on the past, which is what a memory is.
    copies = FiniteLaw([[[0.5, 0.0]], [[0.0, 0.5]]], ("past", "in", "out"))
    with_past = check_lemma(copies, (), ("past", "in"), "out")
    assert with_past.cost < check_lemma(copies, "past", "in", "out").memory_bottleneck - 0.5


def test_a_table_normalised_over_the_wrong_axis_is_no_kernel() -> None:
    def is_accepted(case: tuple[FiniteLaw, Kernel]) -> bool:
        law, kernel = case
        wrong = kernel / np.maximum(kernel.sum(0, keepdims=True), 1e-300)
        try:
            check_kernel(wrong, law.sizes("in"), law.sizes("out"))
        except ValueError:
            return False
        return True

    law, _ = counterexample(laws_with_kernels, is_accepted)
    assert max(law.sizes(("in", "out"))) > 1
