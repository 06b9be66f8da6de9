"""Proves or refutes linear information inequalities, in exact arithmetic.

The entropies H(S) of any discrete variables form a *polymatroid*: they satisfy the elemental inequalities

    H(i | all others) ≥ 0        I(i; j | K) ≥ 0    for i ≠ j and K within the others,

n + n(n-1) 2^{n-3} of them for n variables, of which all Shannon-type inequalities are sums (Yeung 1997). A
linear inequality follows from them and from linear constraints exactly if it is a combination

    target = Σ λ_i elemental_i + Σ μ_j constraint_j,    λ_i ≥ 0,    μ_j ≥ 0, or free for an equality,

coefficient by coefficient on the 2^n - 1 joint entropies (Farkas). :func:`prove` finds one of two things:

- such a combination, in fractions: a proof;
- a polymatroid that meets the constraints and breaks the target: there is no Shannon-type proof. From four
  variables on that does not make the claim false (Zhang and Yeung 1998), so a joint law is searched for, and
  one that breaks the claim refutes it.

Both are checked in exact arithmetic before they are returned; no tolerance decides anything.

A proof speaks of discrete variables with finite entropies. Without constraints it carries over to differential
entropies exactly if the target is balanced (Chan 2003; :attr:`Statement.is_balanced`), as every inequality
between mutual informations of sets of variables is.

Sources: R. W. Yeung, "A framework for linear information inequalities", IEEE Trans. Inf. Theory 43 (1997), and the
programme ITIP; Z. Zhang and R. W. Yeung, "On characterization of entropy function via information inequalities",
ibid. 44 (1998); T. H. Chan, "Balanced information inequalities", ibid. 49 (2003).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from typing import NoReturn

from arvdm_theory.information.inequalities.exact_law import JointLaw
from arvdm_theory.information.inequalities.expressions import ExpressionError, Form, Statement, format_form, parse
from arvdm_theory.information.inequalities.law_search import find_law
from arvdm_theory.information.inequalities.rational_lp import farkas

__all__ = [
    "Certificate",
    "CertificateError",
    "Counterexample",
    "Derivation",
    "Elemental",
    "TooManyVariablesError",
    "Verdict",
    "elementals",
    "prove",
]

MOST_VARIABLES = 7
"""The most variables a claim and its constraints may name together (679 elemental inequalities)."""


class TooManyVariablesError(ValueError):
    """A claim and its constraints name more variables than can be handled; the message lists them."""


class CertificateError(ValueError):
    """A certificate or a counterexample does not show what it claims; the message says where it fails."""


@dataclass(frozen=True)
class Elemental:
    """One inequality I(left; right | given) ≥ 0, or H(left | given) ≥ 0 where ``right`` is None."""

    left: str
    right: str | None
    given: tuple[str, ...]

    @property
    def form(self) -> dict[frozenset[str], Fraction]:
        """Its coefficients on joint entropies."""
        if len({self.left, self.right, *self.given}) != 2 + len(self.given):
            raise CertificateError(f"{self} names a variable twice, so it is no elemental inequality")
        base = frozenset(self.given)
        if self.right is None:
            terms = [(base | {self.left}, 1), (base, -1)]
        else:
            pair = base | {self.left, self.right}
            terms = [(base | {self.left}, 1), (base | {self.right}, 1), (pair, -1), (base, -1)]
        return {names: Fraction(c) for names, c in terms if names}

    def __str__(self) -> str:
        head = f"H({self.left}" if self.right is None else f"I({self.left};{self.right}"
        return head + (f"|{','.join(self.given)})" if self.given else ")")


def elementals(variables: Sequence[str]) -> list[Elemental]:
    """The elemental inequalities of n variables, n + n(n-1) 2^{n-3} of them: for one variable H(X) ≥ 0 alone."""
    found = [Elemental(i, None, tuple(v for v in variables if v != i)) for i in variables]
    for i, j in combinations(variables, 2):
        others = [v for v in variables if v not in (i, j)]
        for size in range(len(others) + 1):
            found += [Elemental(i, j, given) for given in combinations(others, size)]
    return found


def _add(total: dict[frozenset[str], Fraction], form: Form, factor: Fraction) -> None:
    for names, coefficient in form.items():
        total[names] = total.get(names, Fraction(0)) + factor * coefficient


def _reread(statements: Iterable[Statement]) -> None:
    for statement in statements:
        if parse(statement.text) != statement:
            raise CertificateError(f"the coefficients kept for {statement.text!r} are not those of its text")


@dataclass(frozen=True)
class Derivation:
    """A combination of elemental inequalities and constraints.

    Attributes:
        reverse: whether it equals minus the target: the second half of the proof of an equality.
        elementals: (multiplier λ, elemental inequality) pairs.
        constraints: (multiplier μ, index of the constraint) pairs.
    """

    reverse: bool
    elementals: tuple[tuple[Fraction, Elemental], ...]
    constraints: tuple[tuple[Fraction, int], ...]


@dataclass(frozen=True)
class Certificate:
    """A proof that can be checked on its own: :meth:`verify` uses no solver and no floating point.

    Attributes:
        statement: what is proved.
        given: the constraints it is proved under.
        derivations: one for an inequality, one each way for an equality.
    """

    statement: Statement
    given: tuple[Statement, ...]
    derivations: tuple[Derivation, ...]

    @property
    def variables(self) -> tuple[str, ...]:
        """All names, in the order they are written."""
        return _variables(self.statement, self.given)

    def verify(self) -> None:
        """Checks every derivation, coefficient by coefficient, in fractions.

        Raises:
            CertificateError: naming the multiplier or the joint entropy that is wrong.
        """
        _reread((self.statement, *self.given))
        ways = {derivation.reverse for derivation in self.derivations}
        wanted = {False, True} if self.statement.is_equality else {False}
        if ways != wanted:
            raise CertificateError(f"{self.statement.text!r} needs {len(wanted)} derivation(s), one each way")
        for derivation in self.derivations:
            self._verify(derivation)

    def _verify(self, derivation: Derivation) -> None:
        total: dict[frozenset[str], Fraction] = {}
        _add(total, self.statement.form, Fraction(1 if derivation.reverse else -1))
        for factor, elemental in derivation.elementals:
            _check_multiplier(factor, str(elemental), may_be_negative=False)
            _add(total, elemental.form, factor)
        for factor, index in derivation.constraints:
            if not 0 <= index < len(self.given):
                raise CertificateError(f"there is no constraint [{index + 1}], only {len(self.given)}")
            constraint = self.given[index]
            _check_multiplier(factor, constraint.text, may_be_negative=constraint.is_equality)
            _add(total, constraint.form, factor)
        for names, left in total.items():
            if left:
                joint = ",".join(v for v in self.variables if v in names) or ",".join(sorted(names))
                raise CertificateError(
                    f"the combination and the target differ in the coefficient of H({joint}), by {left}"
                )

    def _reversible(self, derivation: Derivation) -> bool:
        """Whether only equalities are combined."""
        return not derivation.elementals and all(self.given[i].is_equality for _, i in derivation.constraints)

    def proof(self) -> str:
        """The proof in words: a line for each elemental inequality and constraint used, and the sum."""
        variables = self.variables
        lines = []
        for derivation in self.derivations:
            if derivation.reverse and self._reversible(self.derivations[0]):
                continue  # the other way is the same sum with its signs changed
            sign = Fraction(-1 if derivation.reverse else 1)
            target = f"-({self.statement.difference})" if derivation.reverse else self.statement.difference
            form = {names: sign * c for names, c in self.statement.terms}
            rows = [
                (_times(factor, str(e)), ">= 0", _scaled_words(e.form, factor, variables))
                for factor, e in derivation.elementals
            ]
            for factor, index in derivation.constraints:
                constraint = self.given[index]
                relation = "= 0" if constraint.is_equality else ">= 0"
                words = _scaled_words(constraint.form, factor, variables)
                rows.append((_times(factor, constraint.difference), f"{relation} by [{index + 1}]", words))
            if not rows:
                lines.append(f"{target}: both sides are the same sum of joint entropies.")
                continue
            widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
            lines.append(f"{target} is the sum of")
            lines += [f"    {a:<{widths[0]}}  {b:<{widths[1]}}  [{c}]" for a, b, c in rows]
            lines.append(f"which adds up to {format_form(form, variables)}.")
        used = {index for derivation in self.derivations for _, index in derivation.constraints}
        idle = [f"[{i + 1}]" for i in range(len(self.given)) if i not in used]
        if idle:
            lines.append(f"Not needed: {', '.join(idle)}.")
        return "\n".join(lines)


def _times(factor: Fraction, what: str) -> str:
    if factor == 1:
        return what
    return f"{factor} × {what}" if " " not in what else f"{factor} × ({what})"


def _scaled_words(form: Form, factor: Fraction, variables: tuple[str, ...]) -> str:
    return format_form({names: factor * c for names, c in form.items()}, variables)


def _check_multiplier(factor: object, what: str, may_be_negative: bool) -> None:
    if isinstance(factor, bool) or not isinstance(factor, (Fraction, int)):
        raise CertificateError(f"the multiplier of {what} must be an exact fraction, not {factor!r}")
    if factor < 0 and not may_be_negative:
        raise CertificateError(f"the multiplier of {what} must not be negative, got {factor}")


@dataclass(frozen=True)
class Counterexample:
    """What stands against a claim: a polymatroid always, and a joint law where one was found.

    Attributes:
        statement: the claim.
        given: its constraints.
        polymatroid: (set of names, h(S)) pairs: it satisfies every elemental inequality and every constraint,
            and breaks the claim. That excludes a Shannon-type proof; it need not be the entropy of any law.
        law: a joint law that meets the constraints and breaks the claim, so that the claim is false.
    """

    statement: Statement
    given: tuple[Statement, ...]
    polymatroid: tuple[tuple[frozenset[str], Fraction], ...]
    law: JointLaw | None

    @property
    def variables(self) -> tuple[str, ...]:
        """All names, in the order they are written."""
        return _variables(self.statement, self.given)

    def value(self, form: Form) -> Fraction:
        """Σ c_S h(S) of the polymatroid."""
        h = dict(self.polymatroid)
        return sum((c * h[names] for names, c in form.items()), Fraction(0))

    def verify(self) -> None:
        """Checks the polymatroid in fractions, and the law in exact logarithms.

        Raises:
            CertificateError: naming the inequality or constraint that fails.
        """
        _reread((self.statement, *self.given))
        variables = self.variables
        h = dict(self.polymatroid)
        for names, value in h.items():
            _check_multiplier(value, f"h({','.join(sorted(names))})", may_be_negative=True)
        sets = {frozenset(c) for size in range(1, len(variables) + 1) for c in combinations(variables, size)}
        if set(h) != sets or len(h) != len(self.polymatroid):
            raise CertificateError(f"a polymatroid on {len(variables)} variables has {len(sets)} values")
        for elemental in elementals(variables):
            if self.value(elemental.form) < 0:
                raise CertificateError(f"the polymatroid breaks {elemental} >= 0")
        self._check("polymatroid", lambda form: _sign(self.value(form)))
        if self.law is not None:
            law = self.law
            if set(law.variables) != set(variables):
                raise CertificateError(f"the law is on {law.variables}, the claim on {variables}")
            self._check("law", lambda form: law.evaluate(form).sign())

    def _check(self, what: str, sign_of: Callable[[Form], int]) -> None:
        for constraint in self.given:
            sign = sign_of(constraint.form)
            if sign < 0 or (sign > 0 and constraint.is_equality):
                raise CertificateError(f"the {what} breaks the constraint {constraint.text!r}")
        sign = sign_of(self.statement.form)
        if sign >= 0 and not (sign > 0 and self.statement.is_equality):
            raise CertificateError(f"the {what} does not break {self.statement.text!r}")

    def __str__(self) -> str:
        form = self.statement.form
        if self.law is not None:
            value = self.law.evaluate(form)
            where = f"{self.statement.difference} = {value} = {float(value):.6g} nats under this law:"
            return "\n".join([where, *(f"    {line}" for line in str(self.law).splitlines())])
        h = dict(self.polymatroid)
        # A variable with h = 0 adds nothing to any set, so the sets that hold it need no printing.
        moving = [v for v in self.variables if h[frozenset([v])]]
        words = []
        for size in range(1, len(moving) + 1):
            words += [f"h({','.join(names)})={h[frozenset(names)]}" for names in combinations(moving, size)]
        lines = [f"{self.statement.difference} = {self.value(form)} for this polymatroid:"]
        lines += ["    " + "  ".join(words[i : i + 8]) for i in range(0, len(words), 8)]
        if len(moving) < len(self.variables):
            lines.append(f"    constant: {', '.join(v for v in self.variables if v not in moving)}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Verdict:
    """What is known of a claim.

    Attributes:
        statement: the claim.
        given: the constraints it is claimed under.
        holds: **True**: proved, for every discrete law that meets the constraints (``certificate`` is the proof).
            **False**: refuted, ``counterexample.law`` is a joint law that breaks it. **None**: no Shannon-type
            proof exists (``counterexample.polymatroid`` excludes one), but no joint law was found that
            breaks it either: the claim may be false, or true for a reason that is not Shannon-type.
        certificate: the proof, or None.
        counterexample: what stands against the claim, or None.
    """

    statement: Statement
    given: tuple[Statement, ...]
    holds: bool | None
    certificate: Certificate | None
    counterexample: Counterexample | None

    def __bool__(self) -> NoReturn:
        raise TypeError("a verdict is True, False or None: compare its .holds")

    def __str__(self) -> str:
        heading = {
            True: "Proved",
            False: "Refuted",
            None: "Undecided (there is no Shannon-type proof, and no joint law at hand that breaks it)",
        }[self.holds]
        lines = [f"{heading}: {self.statement.text}"]
        lines += [f"    given [{i}] {constraint.text}" for i, constraint in enumerate(self.given, start=1)]
        lines.append(self.certificate.proof() if self.certificate else str(self.counterexample))
        return "\n".join(lines)


def prove(inequality: str, given: str | Sequence[str] = (), *, search_laws: bool = True, seed: int = 0) -> Verdict:
    """Decides whether a linear information inequality follows from Shannon's, under linear constraints.

    Args:
        inequality: a statement such as ``"I(X;Z|Y,G) <= I(X;Z|Y)"``; the language is that of
            :mod:`arvdm_theory.information.inequalities.expressions`. An equality is proved as two inequalities.
        given: constraints in the same language, such as ``["H(G|X) = 0"]``.
        search_laws: whether to look for a joint law when there is no proof; without it no claim is refuted.
        seed: of the random part of that search (only laws too many to go through are drawn at random).

    Returns:
        a :class:`Verdict`; whatever it holds has passed ``verify()``.

    Raises:
        ExpressionError: if a statement cannot be read, or the constraints are no statements.
        TooManyVariablesError: if more than 7 variables are named.

    Example:
        >>> print(prove("I(X;Z|Y,G) <= I(X;Z|Y)", given=["H(G|X) = 0"]))
        Proved: I(X;Z|Y,G) <= I(X;Z|Y)
            given [1] H(G|X) = 0
        I(X;Z|Y) - I(X;Z|Y,G) is the sum of
            H(G|X,Z,Y)   >= 0        [-H(X,Z,Y) + H(X,Z,Y,G)]
            I(Z;G|Y)     >= 0        [-H(Y) + H(Z,Y) + H(Y,G) - H(Z,Y,G)]
            I(Y;G|X)     >= 0        [-H(X) + H(X,Y) + H(X,G) - H(X,Y,G)]
            -1 × H(G|X)  = 0 by [1]  [H(X) - H(X,G)]
        which adds up to -H(Y) + H(X,Y) + H(Z,Y) + H(Y,G) - H(X,Z,Y) - H(X,Y,G) - H(Z,Y,G) + H(X,Z,Y,G).
        >>> prove("I(X;Z|Y,G) <= I(X;Z|Y)", given=["H(G|X,Z) = 0"]).holds
        False
    """
    statement = parse(inequality)
    constraints = _read_constraints(given)
    variables = _variables(statement, constraints)
    if len(variables) > MOST_VARIABLES:
        raise TooManyVariablesError(
            f"at most {MOST_VARIABLES} variables can be handled, and the statements name {len(variables)}: "
            f"{', '.join(variables)}"
        )
    derivations, polymatroids, broken = [], [], []
    for reverse in (False, True) if statement.is_equality else (False,):
        found = _decide(statement, constraints, variables, reverse)
        if isinstance(found, Derivation):
            derivations.append(found)
        else:
            polymatroids.append(found)
            broken.append({names: -c if reverse else c for names, c in statement.terms})
    if not broken:
        certificate = Certificate(statement, constraints, tuple(derivations))
        certificate.verify()
        return Verdict(statement, constraints, True, certificate, None)
    law = find_law(variables, broken, constraints, seed) if search_laws else None
    counterexample = Counterexample(statement, constraints, polymatroids[0], law)
    counterexample.verify()
    return Verdict(statement, constraints, None if law is None else False, None, counterexample)


def _read_constraints(given: str | Sequence[str]) -> tuple[Statement, ...]:
    if given is None or not isinstance(given, str | Sequence):
        raise ExpressionError(f"constraints are a statement or a sequence of them, not {type(given).__name__}")
    constraints = []
    for number, text in enumerate([given] if isinstance(given, str) else given, start=1):
        try:
            constraints.append(parse(text))
        except ExpressionError as error:
            raise ExpressionError(f"constraint {number}, {error}") from None
    return tuple(constraints)


def _variables(statement: Statement, given: Iterable[Statement]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(v for s in (statement, *given) for v in s.variables))


def _decide(
    statement: Statement, given: tuple[Statement, ...], variables: tuple[str, ...], reverse: bool
) -> Derivation | tuple[tuple[frozenset[str], Fraction], ...]:
    """A derivation of the target (of minus the target, if reversed), or a polymatroid that breaks it."""
    sets = [frozenset(c) for size in range(1, len(variables) + 1) for c in combinations(variables, size)]
    row = {names: i for i, names in enumerate(sets)}

    def vector(form: Form, factor: int = 1) -> dict[int, Fraction]:
        return {row[names]: factor * c for names, c in form.items()}

    basic = elementals(variables)
    columns = [vector(elemental.form) for elemental in basic]
    # Of the proofs with the smallest sum of multipliers, one that conditions only on variables named earlier: it
    # follows the chain rule in one order, where a mixture of orders has several times as many lines.
    place = {name: i for i, name in enumerate(variables)}
    cost = [1.0 + sum(place[v] > place[e.left] for v in e.given) / 1000 for e in basic]
    uses: list[tuple[int, int]] = []  # of the columns after the elementals: (constraint, its sign)
    for index, constraint in enumerate(given):
        for sign in (1, -1) if constraint.is_equality else (1,):
            columns.append(vector(constraint.form, sign))
            cost.append(1.0)
            uses.append((index, sign))
    target = vector(statement.form, -1 if reverse else 1)
    found = farkas(columns, target, len(sets), cost, separator_cost=[1.0] * len(sets))
    if found.solution is None:
        separator = found.separator or {}
        return tuple((names, separator.get(i, Fraction(0))) for i, names in enumerate(sets))
    multipliers = sorted(found.solution.items())
    return Derivation(
        reverse,
        tuple((x, basic[j]) for j, x in multipliers if j < len(basic)),
        tuple((x * sign, index) for j, x in multipliers if j >= len(basic)
              for index, sign in [uses[j - len(basic)]]),
    )  # fmt: skip


def _sign(value: Fraction) -> int:
    return (value > 0) - (value < 0)
