"""The paper's inequalities proved, false ones refuted, and every answer checked by means of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from arvdm_theory.information import discrete
from arvdm_theory.information.inequalities.exact_law import Block, JointLaw
from arvdm_theory.information.inequalities.expressions import ExpressionError, format_form, parse
from arvdm_theory.information.inequalities.shannon import (
    CertificateError,
    Derivation,
    Elemental,
    TooManyVariablesError,
    Verdict,
    elementals,
    prove,
)

F = Fraction
HISTORY = "I(X;Z|Y,G) <= I(X;Z|Y)"
MEMORY = "I(Out;Past|In) - I(Out;Past|In,M) <= I(M;Past|In)"
ZHANG_YEUNG = "2 I(C;D) <= I(A;B) + I(A;C,D) + 3 I(C;D|A) + I(C;D|B)"
INGLETON = "I(A;B) <= I(A;B|C) + I(A;B|D) + I(C;D)"


def han(names: str, weight: str = "") -> str:
    """(n-1) H(all) ≤ Σ H(all but one): Han's inequality, Shearer's lemma for the sets of n-1."""
    rest = " + ".join(f"H({','.join(c)})" for c in combinations(names, len(names) - 1))
    return f"{weight or len(names) - 1} H({','.join(names)}) <= {rest}"


PROVED: list[tuple[str, list[str]]] = [
    # More history helps, for a deterministic g and for one with noise of its own.
    (HISTORY, ["H(G|X) = 0"]),
    (HISTORY, ["I(G;Y,Z|X) = 0"]),
    # ... and by how much: equality exactly if I(G;Z|Y) = 0.
    ("I(X;Z|Y) = I(X;Z|Y,G) + I(G;Z|Y)", ["H(G|X) = 0"]),
    # A memory of R nats helps by at most R.
    (MEMORY, ["I(M;Out|Past,In) = 0"]),
    ("I(Out;Past|In,M) = I(Out;Past|In) - I(Out;M|In)", ["I(M;Out|Past,In) = 0"]),
    # Chain rules behind the ledger.
    ("I(Out;Past,In) = I(Out;In) + I(Out;Past|In)", []),
    ("H(A,B,C,D) = H(A) + H(B|A) + H(C|A,B) + H(D|A,B,C)", []),
    ("I(A,B,C;D|E) = I(A;D|E) + I(B;D|A,E) + I(C;D|A,B,E)", []),
    # Data processing, along a chain of four, and for both ends.
    ("I(X;Z) <= I(X;Y)", ["I(X;Z|Y) = 0"]),
    ("I(A;D) <= I(B;C)", ["I(A;C|B) = 0", "I(A,B;D|C) = 0"]),
    ("I(A;B;C) <= I(A;B)", []),
    # Submodularity, Han's and Shearer's inequalities.
    ("H(A,B,C) + H(B) <= H(A,B) + H(B,C)", []),
    (han("ABC"), []),
    (han("ABCDE"), []),
    (han("ABCDEFG"), []),
    ("3 H(A,B,C,D) <= H(A,B) + H(A,C) + H(A,D) + H(B,C) + H(B,D) + H(C,D)", []),
    ("H(A,B,C,D,E,F,G) <= H(A) + H(B) + H(C) + H(D) + H(E) + H(F) + H(G)", []),
    # Secret sharing: a key that hides a message is no shorter than it.
    ("H(M) <= H(K)", ["I(M;C) = 0", "H(M|C,K) = 0"]),
    # Constraints that are inequalities.
    ("H(A) <= 0.37 H(B)", ["H(A) = 0.51 H(C)", "H(B) >= 1.5 H(C)"]),
    ("H(X) = 0", ["H(X) <= I(Y;Z)", "I(Y;Z) <= 0"]),
    ("0 <= 0", ["H(X) >= 0"]),
]


@pytest.mark.parametrize(("claim", "given"), PROVED)
def test_proves(claim: str, given: list[str]) -> None:
    verdict = prove(claim, given)
    assert verdict.holds is True
    assert verdict.counterexample is None
    assert verdict.certificate is not None
    verdict.certificate.verify()
    check_by_matrix(verdict)


def check_by_matrix(verdict: Verdict) -> None:
    """The identity once more, evaluated on random integer set functions, where a false one fails.

    Two different linear forms on 2^n - 1 values agree at a random point of {0, ..., 10^9}^(2^n - 1) with
    probability at most 1e-9.
    """
    assert verdict.certificate is not None
    variables = verdict.certificate.variables
    generator = np.random.default_rng(0)
    sets = [frozenset(c) for k in range(1, len(variables) + 1) for c in combinations(variables, k)]
    h = dict(zip(sets, (int(v) for v in generator.integers(0, 10**9, len(sets))), strict=True))
    h[frozenset()] = 0

    def value(text: str) -> Fraction:
        return sum((c * h[names] for names, c in parse(f"{text} >= 0").terms), F(0))

    for derivation in verdict.certificate.derivations:
        # Elementals go through their printed form: what is read is what is checked.
        total = sum((factor * value(str(e)) for factor, e in derivation.elementals), F(0))
        total += sum((factor * value(verdict.given[j].difference) for factor, j in derivation.constraints), F(0))
        target = value(verdict.statement.difference)
        assert total == (-target if derivation.reverse else target)


def test_the_proof_that_is_printed() -> None:
    assert str(prove("I(X;Z) <= I(X;Y)", ["I(X;Z|Y) = 0", "H(X) >= H(Y)"])).splitlines() == [
        "Proved: I(X;Z) <= I(X;Y)",
        "    given [1] I(X;Z|Y) = 0",
        "    given [2] H(X) >= H(Y)",
        "I(X;Y) - I(X;Z) is the sum of",
        "    I(X;Y|Z)       >= 0        [-H(Z) + H(X,Z) + H(Z,Y) - H(X,Z,Y)]",
        "    -1 × I(X;Z|Y)  = 0 by [1]  [H(Y) - H(X,Y) - H(Z,Y) + H(X,Z,Y)]",
        "which adds up to -H(Z) + H(Y) + H(X,Z) - H(X,Y).",
        "Not needed: [2].",
    ]
    assert str(prove("H(A) = H(A|B) + I(A;B)")).splitlines() == [
        "Proved: H(A) = H(A|B) + I(A;B)",
        "H(A) - (H(A|B) + I(A;B)): both sides are the same sum of joint entropies.",
    ]


def test_proofs_are_short() -> None:
    """Han's inequality is Σ_{i<j} I(i; j | all k < j but i): 21 units, and 35 conditions named after i.

    The first sum is the least there is (each pair must appear), and among such proofs the fewest later
    conditions are taken, so 35 is an upper bound whichever optimum the solver lands on.
    """
    certificate = prove(han("ABCDEFG")).certificate
    assert certificate is not None
    (derivation,) = certificate.derivations
    assert sum(factor for factor, _ in derivation.elementals) == 21
    assert {(e.left, e.right) for _, e in derivation.elementals} == set(combinations("ABCDEFG", 2))
    later = sum(factor * sum(name > e.left for name in e.given) for factor, e in derivation.elementals)
    assert later <= 35


def test_the_memory_bound_needs_no_constraint() -> None:
    """I(M;Out|Past,In) = 0 makes the gain *equal* to I(Out;M|In); that it is at most I(M;Past|In) holds always."""
    assert prove(MEMORY).holds is True
    assert prove("I(Out;Past|In) - I(Out;Past|In,M) = I(Out;M|In)").holds is False


# -- false claims --------------------------------------------------------------------------------------

REFUTED: list[tuple[str, list[str]]] = [
    # The history lemma for a g that looks at the output as well.
    (HISTORY, ["H(G|X,Z) = 0"]),
    (HISTORY, []),
    # Conditioning does not lower mutual information (XOR), nor raise it (copies).
    ("I(X;Z|Y) <= I(X;Z)", []),
    ("I(X;Z|Y) >= I(X;Z)", []),
    # Information is not additive over parts, and data processing needs its chain.
    ("I(X;Y,Z) = I(X;Y) + I(X;Z)", []),
    ("I(X;Z) <= I(X;Y)", []),
    # A deterministic function of two frames is not a function of either.
    ("H(G|X) = 0", ["H(G|X,Y) = 0"]),
    # Parities of five, six and seven variables.
    ("I(A;B|C,D,E) <= I(A;B|C,D) + I(A;B|C,E) + I(A;B|D,E)", []),
    ("I(A;B|C,D,E,F) <= I(A;B|C,D,E) + I(A;B|C,D,F) + I(A;B|C,E,F) + I(A;B|D,E,F)", ["H(G|A) = 0"]),
    # Han's inequality with a factor that is too large by a hair.
    (han("ABC", "2.0000000001"), []),
    # Ingleton's inequality, which holds for all linear laws: AND and OR of two coins break it.
    (INGLETON, []),
    # No single small law meets these constraints; independent copies of several do.
    ("H(A) <= 0.37 H(B)", ["H(A) = 0.51 H(C)", "H(B) >= 1.2 H(C)"]),
    ("H(A) <= H(B)", ["H(A) + H(B) = 5 I(A;B)"]),
]


@pytest.mark.parametrize(("claim", "given"), REFUTED)
def test_refutes(claim: str, given: list[str]) -> None:
    verdict = prove(claim, given)
    assert verdict.holds is False
    assert verdict.certificate is None
    assert verdict.counterexample is not None
    verdict.counterexample.verify()
    assert verdict.counterexample.law is not None
    assert str(verdict).startswith(f"Refuted: {claim}")
    law = verdict.counterexample.law
    if sum(block.copies for block in law.blocks) == 1:
        # Once more with the floating-point entropies of the law's table, each within 1e-13 of the exact one.
        floats = discrete.FiniteLaw(law.array(), law.variables)

        def value(form: dict[frozenset[str], Fraction]) -> float:
            return sum(float(c) * discrete.entropy(floats, tuple(names)) for names, c in form.items())

        assert value(verdict.statement.form) == pytest.approx(
            float(law.evaluate(verdict.statement.form)), abs=1e-12
        )
        for constraint in verdict.given:
            assert value(constraint.form) == pytest.approx(0, abs=1e-12) or not constraint.is_equality


def test_the_law_against_the_history_lemma_is_an_exclusive_or() -> None:
    verdict = prove(HISTORY, ["H(G|X,Z) = 0"])
    assert str(verdict).splitlines() == [
        f"Refuted: {HISTORY}",
        "    given [1] H(G|X,Z) = 0",
        "I(X;Z|Y) - I(X;Z|Y,G) = -log 2 = -0.693147 nats under this law:",
        "    independent fair bits b1, b2:",
        "    X = b1",
        "    Z = b2",
        "    Y = constant",
        "    G = b1 ⊕ b2",
    ]


def test_zhang_yeung_is_true_but_not_shannon_type() -> None:
    """No Shannon-type proof, so a polymatroid; but true of every law (Zhang and Yeung 1998), so none is found."""
    verdict = prove(ZHANG_YEUNG)
    assert verdict.holds is None
    assert verdict.certificate is None
    assert verdict.counterexample is not None
    assert verdict.counterexample.law is None
    verdict.counterexample.verify()
    assert verdict.counterexample.value(verdict.statement.form) < 0
    # The Vámos-type polymatroid: 2 each, 3 each pair but one (4), 4 above.
    values = sorted(value for _, value in verdict.counterexample.polymatroid)
    assert values == [2] * 4 + [3] * 5 + [4] * 6
    assert "polymatroid" in str(verdict)
    # Ingleton's inequality implies it: then it is a proof. I(A;B|.) here is the one for the pair (C, D).
    assert prove(ZHANG_YEUNG, "I(C;D) <= I(C;D|A) + I(C;D|B) + I(A;B)").holds is True


def test_no_law_is_looked_for_unless_asked() -> None:
    verdict = prove("I(X;Z|Y) <= I(X;Z)", search_laws=False)
    assert verdict.holds is None
    assert verdict.counterexample is not None
    verdict.counterexample.verify()


# -- independent derivations ---------------------------------------------------------------------------


def rays(variables: str) -> list[dict[frozenset[str], int]]:
    """Extreme rays of the polymatroids on up to three variables: common bits, and the XOR (Zhang, Yeung 1997)."""
    sets = [frozenset(c) for k in range(1, len(variables) + 1) for c in combinations(variables, k)]
    found = [{names: int(bool(names & shared)) for names in sets} for shared in sets]
    if len(variables) == 3:
        found.append({names: min(len(names), 2) for names in sets})
    return found


@settings(max_examples=60)
@for_all(data=st.data(), n=st.integers(1, 3))
def test_up_to_three_variables_the_extreme_rays_decide(data: st.DataObject, n: int) -> None:
    variables = "ABC"[:n]
    sets = [frozenset(c) for k in range(1, n + 1) for c in combinations(variables, k)]
    form = {names: F(data.draw(st.integers(-3, 3))) for names in sets}
    values = [sum(form[names] * ray[names] for names in sets) for ray in rays(variables)]
    verdict = prove(f"{format_form(form, tuple(variables))} >= 0")
    assert verdict.holds is (min(values) >= 0)  # never None


@settings(max_examples=40)
@for_all(data=st.data(), n=st.integers(2, 5))
def test_every_combination_of_elementals_is_proved(data: st.DataObject, n: int) -> None:
    variables = tuple("ABCDE"[:n])
    total: dict[frozenset[str], Fraction] = {}
    for elemental in data.draw(st.lists(st.sampled_from(elementals(variables)), min_size=1, max_size=6)):
        weight = data.draw(st.fractions(F(1, 9), 9, max_denominator=9))
        for names, c in elemental.form.items():
            total[names] = total.get(names, F(0)) + weight * c
    verdict = prove(f"{format_form(total, variables)} >= 0")
    assert verdict.holds is True
    check_by_matrix(verdict)


@settings(max_examples=30)
@for_all(data=st.data(), equality=st.booleans())
def test_a_proof_or_a_polymatroid_never_both(data: st.DataObject, equality: bool) -> None:
    """Both are verified exactly, and each excludes the other: so each random claim is decided rightly."""
    sets = st.frozensets(st.sampled_from("ABCD"), min_size=1)
    forms = st.dictionaries(sets, st.integers(-4, 4).map(F), min_size=1, max_size=5)
    texts = [format_form(data.draw(forms), tuple("ABCD")) for _ in range(2)]
    claim = f"{texts[0]} >= 0"
    given = [f"{texts[1]} {'=' if equality else '>='} 0", "I(A;B|C) = 0"]
    verdict = prove(claim, given)
    assert (verdict.certificate is None) != (verdict.counterexample is None)
    assert (verdict.holds is True) == (verdict.certificate is not None)
    if verdict.certificate is not None:
        verdict.certificate.verify()
        check_by_matrix(verdict)
    if verdict.counterexample is not None:
        verdict.counterexample.verify()
        assert (verdict.holds is False) == (verdict.counterexample.law is not None)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 7])
def test_the_number_of_elementals(n: int) -> None:
    found = elementals("ABCDEFG"[:n])
    # n + C(n,2) 2^(n-2), Yeung's count.
    assert len(found) == len(set(found)) == n + (n * (n - 1) * 2**n) // 8


# -- proved inequalities hold on laws drawn at random ----------------------------------------------------


def entropies(p: NDArray[np.float64], names: tuple[str, ...]) -> Callable[[frozenset[str]], float]:
    """Joint entropies of an array law by plain summation."""

    def of(wanted: frozenset[str]) -> float:
        q = p.sum(axis=tuple(i for i, name in enumerate(names) if name not in wanted)).ravel()
        q = q[q > 0]
        return float(-np.sum(q * np.log(q)))

    return of


@pytest.mark.parametrize("claim", [claim for claim, given in PROVED if not given] + [MEMORY])
def test_proved_inequalities_hold_for_random_laws(claim: str) -> None:
    statement = parse(claim)
    names = statement.variables
    generator = np.random.default_rng(len(claim))
    shape = tuple(generator.integers(2, 4, len(names))) if len(names) < 6 else (2,) * len(names)
    # Each entropy is a sum of at most `size` terms of size ≤ 1/e, added pairwise after a marginal sum.
    weight = sum(abs(float(c)) for _, c in statement.terms)
    rounding = (
        4 * np.finfo(float).eps * np.log2(np.prod(shape)) * max(1.0, np.log(np.prod(shape))) * max(weight, 8)
    )
    for _ in range(40):
        weights = generator.gamma(0.3, size=shape) * (generator.random(shape) > 0.5)
        weights.flat[0] += 1e-3
        h = entropies(weights / weights.sum(), names)
        value = sum(float(c) * h(names) for names, c in statement.terms)
        assert value >= -rounding
        if statement.is_equality:
            assert value <= rounding


@pytest.mark.parametrize("seed", range(20))
def test_constrained_inequalities_hold_where_the_constraints_do(seed: int) -> None:
    """Laws built to meet the constraints: a function of X, a noisy one, a Markov chain, a one-time pad."""
    generator = np.random.default_rng(seed)

    def kernel(inputs: int, outputs: int) -> NDArray[np.float64]:
        weights = generator.gamma(0.4, size=(inputs, outputs)) + 1e-6
        rows: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
        return rows

    def check(claim: str, names: tuple[str, ...], p: NDArray[np.float64], given: list[str]) -> None:
        h = entropies(p, names)
        for text in given:
            assert sum(float(c) * h(s) for s, c in parse(text).terms) == pytest.approx(0, abs=1e-12)
        assert (claim, given) in PROVED
        statement = parse(claim)
        value = sum(float(c) * h(s) for s, c in statement.terms)
        # At most 54 outcomes and 8 entropies below 4 nats: rounding stays below 1e-13.
        assert value >= -1e-12
        if statement.is_equality:
            assert value <= 1e-12

    xyz = generator.gamma(0.4, size=(3, 3, 3)) + 1e-9
    xyz /= xyz.sum()
    table = np.eye(2)[generator.integers(0, 2, 3)]
    with_g = np.einsum("xyz,xg->xyzg", xyz, table)
    check(HISTORY, tuple("XYZG"), with_g, ["H(G|X) = 0"])
    check("I(X;Z|Y) = I(X;Z|Y,G) + I(G;Z|Y)", tuple("XYZG"), with_g, ["H(G|X) = 0"])
    noisy = np.einsum("xyz,xg->xyzg", xyz, kernel(3, 2))
    check(HISTORY, tuple("XYZG"), noisy, ["I(G;Y,Z|X) = 0"])
    # M is seen through noise from (Past, In) alone.
    with_m = np.einsum("poi,pim->poim", xyz, kernel(9, 2).reshape(3, 3, 2))
    names = ("Past", "Out", "In", "M")
    check(MEMORY, names, with_m, ["I(M;Out|Past,In) = 0"])
    check("I(Out;Past|In,M) = I(Out;Past|In) - I(Out;M|In)", names, with_m, ["I(M;Out|Past,In) = 0"])
    chain = np.einsum("a,ab,bc,cd->abcd", kernel(1, 2)[0], kernel(2, 3), kernel(3, 3), kernel(3, 2))
    check("I(A;D) <= I(B;C)", tuple("ABCD"), chain, ["I(A;C|B) = 0", "I(A,B;D|C) = 0"])
    check("I(X;Z) <= I(X;Y)", tuple("XYZ"), chain.sum(axis=3), ["I(X;Z|Y) = 0"])
    pad = np.zeros((3, 3, 3))
    for message, p in enumerate(kernel(1, 3)[0]):
        for key in range(3):
            pad[message, key, (message + key) % 3] = p / 3
    check("H(M) <= H(K)", tuple("MKC"), pad, ["I(M;C) = 0", "H(M|C,K) = 0"])


# -- exactness -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 5, 7])
@pytest.mark.parametrize("digits", [4, 8, 20])
def test_the_last_digit_decides(n: int, digits: int) -> None:
    """Han's inequality is sharp: any larger factor makes it false, however little floats see of it."""
    names = "ABCDEFG"[:n]
    assert prove(han(names, f"{n - 2}.{'9' * digits}")).holds is True
    more = prove(han(names, f"{n - 1}.{'0' * (digits - 1)}1"), search_laws=False)
    assert more.holds is None
    assert more.counterexample is not None
    assert more.counterexample.value(more.statement.form) < 0


def test_certificates_that_are_tampered_with_are_refused() -> None:
    certificate = prove(HISTORY, ["H(G|X) = 0"]).certificate
    assert certificate is not None
    (derivation,) = certificate.derivations
    (factor, elemental), *others = derivation.elementals

    def refused(message: str, **changes: object) -> None:
        with pytest.raises(CertificateError, match=message):
            replace(certificate, derivations=(replace(derivation, **changes),)).verify()  # type: ignore[arg-type]

    refused("coefficient of H", elementals=((factor + F(1, 10**30), elemental), *others))
    refused("coefficient of H", elementals=tuple(others))
    refused("coefficient of H", constraints=())
    refused("must not be negative", elementals=((-factor, elemental), *others))
    refused("exact fraction", elementals=((float(factor), elemental), *others))
    refused("exact fraction", elementals=((True, elemental), *others))
    refused("names a variable twice", elementals=((F(1), Elemental("X", "X", ())), *others))
    refused("names a variable twice", elementals=((F(1), Elemental("X", None, ("X",))), *others))
    refused(r"no constraint \[3\]", constraints=((F(-1), 2),))
    refused("one each way", reverse=True)
    with pytest.raises(CertificateError, match="1 derivation"):
        replace(certificate, derivations=()).verify()
    relabelled = replace(certificate.statement, text="I(X;Z|Y,G) <= 0")
    with pytest.raises(CertificateError, match="not those of its text"):
        replace(certificate, statement=relabelled).verify()
    # An inequality may only be used in its own direction; an equality needs both proofs.
    with pytest.raises(CertificateError, match="must not be negative"):
        replace(certificate, given=(parse("H(G|X) >= 0"),)).verify()
    bare = Derivation(False, (), ((F(-1), 0),))
    with pytest.raises(CertificateError, match="2 derivation"):
        replace(certificate, statement=parse("-H(G|X) = 0"), derivations=(bare,)).verify()
    certificate.verify()


def test_counterexamples_that_are_tampered_with_are_refused() -> None:
    counterexample = prove("I(X;Z|Y) <= I(X;Z)", ["H(Y|X,Z) = 0"]).counterexample
    assert counterexample is not None
    counterexample.verify()
    h = dict(counterexample.polymatroid)

    def refused(message: str, **changes: object) -> None:
        with pytest.raises(CertificateError, match=message):
            replace(counterexample, **changes).verify()  # type: ignore[arg-type]

    def changed(names: str, value: object) -> tuple[tuple[frozenset[str], object], ...]:
        return tuple({**h, frozenset(names): value}.items())

    refused(r"breaks H\(Y\|X,Z\) >= 0", polymatroid=changed("XZ", F(3)))
    refused(r"breaks the constraint", polymatroid=changed("XYZ", h[frozenset("XYZ")] + F(1, 2)))
    refused("does not break", polymatroid=tuple((names, F(0)) for names in h))
    refused("has 7 values", polymatroid=counterexample.polymatroid[1:])
    refused("exact fraction", polymatroid=changed("X", 1.0))
    half = F(1, 2)
    copies = JointLaw(("X", "Z", "Y"), (Block((half, half), ((0, 1), (0, 1), (0, 1))),))
    refused("law does not break", law=copies)
    coins = JointLaw(("X", "Z", "Y"), (Block((half, half), ((0, 0), (0, 0), (0, 1))),))
    refused("law breaks the constraint", law=coins)
    refused("the law is on", law=JointLaw(("X", "Z"), ()))


# -- bad input -----------------------------------------------------------------------------------------


def test_bad_input() -> None:
    with pytest.raises(TooManyVariablesError, match=r"at most 7 .* name 8: A, B, C, D, E, F, G, X"):
        prove("H(A,B,C,D,E,F,G) >= 0", "H(X) = 0")
    with pytest.raises(ExpressionError, match="constraint 2, column 4: expected"):
        prove("H(X) >= 0", ["H(X) = 0", "H(X"])
    with pytest.raises(TypeError, match=r"compare its \.holds"):
        bool(prove("H(X) >= 0"))


def test_one_constraint_needs_no_list() -> None:
    assert prove(HISTORY, "H(G|X) = 0").holds is True


def test_coefficients_of_any_length_are_decided() -> None:
    # False by 1e-20 of H(X) where X is Z: no float tells.
    verdict = prove("I(X;Y) <= 0.99999999999999999999 H(X)")
    assert verdict.holds is False
    assert verdict.counterexample is not None
    assert verdict.counterexample.law is not None
    assert prove("I(X;Y) <= 1.00000000000000000001 H(X)").holds is True
    assert prove("0.99999999999999999999 H(X,Y,Z) >= I(X;Y,Z)").holds is False


def test_equality_may_be_doubled_and_constraints_are_statements() -> None:
    assert prove("I(X;Y) == H(X) - H(X|Y)").statement.relation == "="
    assert prove("I(X;Y) == H(X) - H(X|Y)").holds is True
    for given in (None, 3, {"H(X) = 0"}):
        with pytest.raises(ExpressionError, match="a statement or a sequence of them"):
            prove("H(X) >= 0", given=given)  # type: ignore[arg-type]
