"""Exact entropies of rational laws against the floating-point ones and 60-digit logarithms."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arvdm_theory.information import discrete
from arvdm_theory.information.inequalities.exact_law import Block, JointLaw, LogSum
from arvdm_theory.information.inequalities.expressions import parse

F = Fraction


def law_of(seed: int) -> JointLaw:
    """Three variables on two blocks, one of them twice; 5 and 3 atoms with unequal weights."""
    generator = np.random.default_rng(seed)

    def block(atoms: int, copies: int) -> Block:
        weights = generator.integers(1, 9, atoms)
        values = generator.integers(0, 2, (3, atoms))
        return Block(
            tuple(F(int(w), int(weights.sum())) for w in weights),
            tuple(tuple(int(v) for v in row) for row in values),
            copies,
        )

    return JointLaw(("X", "Y", "Z"), (block(5, 1), block(3, 2)))


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6))
def test_entropies_against_the_float_ones(seed: int) -> None:
    law = law_of(seed)
    floats = discrete.FiniteLaw(law.array(), law.variables)
    for names in ("X", "Y", "XZ", "XYZ"):
        # Entropies of at most 45 outcomes: sums of 45 terms below 1, so rounding stays below 1e-13.
        assert float(law.entropy(names)) == pytest.approx(discrete.entropy(floats, tuple(names)), abs=1e-13)
    information = law.evaluate(parse("I(X;Z|Y) >= 0").form)
    expected = discrete.conditional_mutual_information(floats, ("X",), ("Z",), ("Y",))
    assert float(information) == pytest.approx(expected, abs=1e-13)
    assert information.sign() >= 0


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6))
def test_zero_is_decided_by_the_law_not_by_rounding(seed: int) -> None:
    """I(X;Z|Y) = 0 exactly if p(x,z,y) p(y) = p(x,y) p(z,y) for all outcomes, checked in fractions."""
    law = law_of(seed)
    table = law.table()

    def marginal(*places: int) -> Counter[tuple[object, ...]]:
        out: Counter[tuple[object, ...]] = Counter()
        for outcome, q in table.items():
            out[tuple(outcome[i] for i in places)] += q  # type: ignore[assignment]
        return out

    xzy, xy, zy, y = marginal(0, 2, 1), marginal(0, 1), marginal(2, 1), marginal(1)
    assert sum(table.values()) == 1
    independent = all(
        xzy[a, c, b] * y[b,] == xy[a, b] * zy[c, b] for (a, b) in xy for (c, other) in zy if other == b
    )
    assert (law.evaluate(parse("I(X;Z|Y) >= 0").form).sign() == 0) is independent


@given(
    coefficients=st.dictionaries(st.sampled_from([2, 3, 5, 7, 11]), st.integers(-(10**6), 10**6)),
    scale=st.fractions(min_value=F(1, 100), max_value=100, max_denominator=100),
)
def test_signs_against_sixty_digits(coefficients: dict[int, int], scale: Fraction) -> None:
    total = LogSum.of((scale * c, LogSum(((prime, F(1)),))) for prime, c in coefficients.items())
    with mp.workdps(60):
        # Integers below 10^6: by size alone products of five primes differ by far more than 1e-50 from 1.
        expected = mp.sign(mp.fsum(c * mp.log(prime) for prime, c in coefficients.items()))
    assert total.sign() == int(expected)


@pytest.mark.parametrize("extra", [0, 1, -1])
def test_signs_where_floats_have_none(extra: int) -> None:
    """a log 2 - b log 3 with a/b a convergent of log 3 / log 2: below 1e-39, and the sign is that of 2^a - 3^b."""
    with mp.workdps(120):
        ratio = mp.log(3) / mp.log(2)
        before, a, b_before, b = 0, 1, 1, 0
        while b < 10**40:
            digit = int(mp.floor(ratio))
            before, a = a, digit * a + before
            b_before, b = b, digit * b + b_before
            ratio = 1 / (ratio - digit)
        expected = mp.sign((a + extra) * mp.log(2) - b * mp.log(3))
    total = LogSum(((2, F(a + extra)), (3, F(-b))))
    assert total.sign() == int(expected) != 0
    if not extra:
        with mp.workdps(120):
            assert abs(a * mp.log(2) - b * mp.log(3)) < mp.mpf(10) ** -39


def test_words() -> None:
    law = JointLaw(("X", "Y"), (Block((F(1, 2), F(1, 4), F(1, 4)), ((0, 0, 1), (0, 1, 1)), 2),))
    assert str(law.entropy("XY")) == "3 log 2"
    assert str(law.entropy("X")) == "4 log 2 - 3/2 log 3"
    assert str(law.entropy("")) == "0"
    assert str(law).splitlines()[:2] == ["2 independent copies of:", "  (X=0, Y=0) with probability 1/2"]


def test_refuses_what_is_no_law() -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        Block((F(1, 2), F(1, 3)), ((0, 1),))
    with pytest.raises(ValueError, match="positive"):
        Block((F(3, 2), F(-1, 2)), ((0, 1),))
    with pytest.raises(ValueError, match="needs 2 values"):
        Block((F(1, 2), F(1, 2)), ((0, 1, 2),))
    with pytest.raises(ValueError, match="at least one copy"):
        Block((F(1),), ((0,),), 0)
    coin = Block((F(1, 2), F(1, 2)), ((0, 1), (0, 0)))
    with pytest.raises(ValueError, match="a block has 2 variables, the law 1"):
        JointLaw(("X",), (coin,))
    many = JointLaw(("X", "Y"), (Block(coin.probabilities, coin.values, 40),))
    assert str(many.entropy("X")) == "40 log 2"
    with pytest.raises(ValueError, match="more than the 4096"):
        many.table()
