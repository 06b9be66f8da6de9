"""The language of information inequalities: what it reads, and where it points when it cannot."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arvdm_theory.information.inequalities.expressions import ExpressionError, format_form, parse


def form_of(text: str) -> dict[str, Fraction]:
    """Coefficients by letters: {"XY": 1, "X": -1}."""
    return {"".join(sorted(names)): c for names, c in parse(text).terms}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("H(G|X) = 0", {"GX": 1, "X": -1}),
        ("I(X;Z|Y) >= 0", {"XY": 1, "YZ": 1, "XYZ": -1, "Y": -1}),
        ("I(A;B;C) >= 0", {"A": 1, "B": 1, "C": 1, "AB": -1, "AC": -1, "BC": -1, "ABC": 1}),
        ("H(A) <= H(A,B)", {"AB": 1, "A": -1}),
        ("H(A) >= H(A,B)", {"A": 1, "AB": -1}),
        ("2 H(A) - 0.25*H(B) >= -1/2 H(C)/3", {"A": 2, "B": Fraction(-1, 4), "C": Fraction(1, 6)}),
        ("3 (H(A) - 2·(H(B) + H(A))) ≥ 0", {"A": -3, "B": -6}),
        ("+H(A)-H(B) == .5 × H(A) − H(B)", {"A": Fraction(1, 2)}),
        ("H(A,B|B) >= I(A;A)", {"AB": 1, "B": -1, "A": -1}),
        ("H(A) = H(A|B) + I(A;B)", {}),
        ("0 <= 0 H(A)", {}),
        ("0.1 H(A) + 0.2 H(A) = 0.3 H(A)", {}),  # decimals are exact
    ],
)
def test_reads(text: str, expected: dict[str, Fraction]) -> None:
    assert form_of(text) == expected


def test_names_are_whole_words() -> None:
    statement = parse("I(X_1', Out; H | I)   >= 0")
    assert statement.variables == ("X_1'", "Out", "H", "I")
    assert statement.text == "I(X_1', Out; H | I) >= 0"


def random_law(seed: int) -> np.ndarray:
    """A law of A, B, C, D with some outcomes missing."""
    generator = np.random.default_rng(seed)
    weights = generator.random((2, 3, 2, 2)) * (generator.random((2, 3, 2, 2)) > 0.3)
    law: np.ndarray = weights / weights.sum()
    return law


def direct(law: np.ndarray, x: str, z: str, y: str) -> float:
    """Σ p(x,z,y) log p(x,z|y)/(p(x|y) p(z|y)), outcome by outcome; with z = x it is H(x|y)."""

    def probability(names: str, outcome: tuple[int, ...]) -> float:
        kept = [i for i, v in enumerate("ABCD") if v in names]
        place = tuple(outcome[i] if i in kept else slice(None) for i in range(4))
        return float(law[place].sum())

    total = 0.0
    for outcome in product(*map(range, law.shape)):
        p = law[outcome]
        if p > 0:
            ratio = probability(x + z + y, outcome) * probability(y, outcome)
            total += p * math.log(ratio / (probability(x + y, outcome) * probability(z + y, outcome)))
    return total


@pytest.mark.parametrize(("x", "z", "y"), [("A", "B", ""), ("AC", "B", "D"), ("A", "BD", "C"), ("AB", "CD", "")])
def test_information_is_the_divergence_it_stands_for(x: str, z: str, y: str) -> None:
    bar = f"|{','.join(y)}" if y else ""
    law = random_law(3)

    def joint_entropy(names: frozenset[str]) -> float:
        kept = tuple(i for i, v in enumerate("ABCD") if v not in names)
        p = law.sum(axis=kept).ravel()
        return float(-np.sum(p[p > 0] * np.log(p[p > 0])))

    by_entropies = sum(
        float(c) * joint_entropy(names) for names, c in parse(f"I({','.join(x)};{','.join(z)}{bar}) >= 0").terms
    )
    # Two sums of at most 24 terms of size below 1 each, over four entropies below log 24: 1e-13 is 100 times
    # their rounding.
    assert by_entropies == pytest.approx(direct(law, x, z, y), abs=1e-13)
    entropy = sum(float(c) * joint_entropy(names) for names, c in parse(f"H({','.join(x)}{bar}) >= 0").terms)
    # p(x|y)/(p(x|y) p(x|y)): the self-information of x given y.
    assert entropy == pytest.approx(direct(law, x, x, y), abs=1e-13)


SETS = st.frozensets(st.sampled_from("ABCD"), min_size=1)
FORMS = st.dictionaries(SETS, st.fractions(-5, 5, max_denominator=9).filter(bool), max_size=6)


@given(form=FORMS)
def test_what_is_written_is_read_back(form: dict[frozenset[str], Fraction]) -> None:
    text = format_form(form, tuple("ABCD"))
    assert parse(f"{text} >= 0").form == form
    assert parse(f"0 >= {text}").form == {names: -c for names, c in form.items()}
    # The difference of a statement, in words, is its form.
    for statement in (parse(f"H(A) - H(B) <= {text}"), parse(f"{text} = H(C|A)"), parse(f"{text} <= 0")):
        assert parse(f"{statement.difference} >= 0").form == statement.form


@pytest.mark.parametrize(
    ("text", "column", "expected"),
    [
        ("I(;Z|Y) <= 0", 3, "a variable name after '('"),
        ("I(X Z) >= 0", 5, "';' after 'X'"),
        ("I(X) >= 0", 4, "';' after 'X'"),
        ("H(A;B) >= 0", 4, "',', '|' or ')' inside H(...)"),
        ("I(A;B|C;D) >= 0", 8, "',' or ')' inside I(...)"),
        ("H(A,) >= 0", 5, "a variable name after ','"),
        ("H(A|) >= 0", 5, "a variable name after '|'"),
        ("H(A >= 0", 5, "',', '|' or ')' inside H(...)"),
        ("H[A] >= 0", 2, "'(' after 'H'"),
        ("H(A) < H(B)", 6, "one of '<=', '>=' and '='"),
        ("H(A)", 5, "found the end of the text"),
        ("", 1, "a number, 'H(', 'I(' or '('"),
        ("H(A) >= ", 8, "a number, 'H(', 'I(' or '('"),
        ("0 <= H(A) <= H(B)", 11, "one relation a statement"),
        ("H(A) >= H(B) C", 14, "an operator or the end"),
        ("E(A) >= 0", 1, "a number, 'H(', 'I(' or '('"),
        ("H(A) >= 1", 9, "the only bare constant allowed is 0"),
        ("H(A) + 2 >= 0", 8, "the only bare constant allowed is 0"),
        ("1 + H(A) >= 0", 1, "the only bare constant allowed is 0"),
        ("H(A) H(B) >= 0", 6, "an operator"),
        ("H(A) * H(B) >= 0", 8, "a product of two entropies is not linear"),
        ("H(A)/H(B) >= 0", 6, "a number to divide by"),
        ("H(A)/0 >= 0", 6, "a divisor other than 0"),
        ("(H(A) >= 0", 7, "')' to close the parenthesis"),
        ("(" * 51 + "H(A)", 51, "at most 50 nested parentheses"),
        ("9" * 51 + " H(A) >= 0", 1, "a number of at most 50 digits"),
    ],
)
def test_errors_point_at_the_character(text: str, column: int, expected: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse(text)
    message, shown, caret = str(caught.value).split("\n")
    assert message.startswith(f"column {column}: expected ")
    assert expected in message
    assert shown.strip() == " ".join(text.split())
    assert caret.index("^") - (len(shown) - len(shown.lstrip()) if text else 4) == column - 1


def test_only_strings_are_statements() -> None:
    with pytest.raises(ExpressionError, match="not int"):
        parse(3)  # type: ignore[arg-type]


@given(text=st.text(alphabet="HI(),;|<>=+-*/ .0123AB'", max_size=25))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        statement = parse(text)
    except ExpressionError:
        return
    assert parse(statement.text) == statement


@pytest.mark.parametrize(
    ("text", "balanced"),
    [("I(X;Z|Y,G) <= I(X;Z|Y)", True), ("H(A) + H(B) >= H(A,B)", True), ("H(A|B) >= 0", False)],
)
def test_balance(text: str, balanced: bool) -> None:
    """Differential entropies can be negative, mutual informations cannot."""
    assert parse(text).is_balanced is balanced
