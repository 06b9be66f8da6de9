"""The language of linear information inequalities: text in, coefficients on joint entropies out.

A statement is two sums joined by ``<=``, ``>=`` or ``=`` (also written ``≤``, ``≥`` and ``==``)::

    I(X;Z|Y,G) <= I(X;Z|Y)        2 H(A,B,C) <= H(A,B) + H(B,C) + H(A,C)        H(G|X) = 0

Measures: ``H(A,B|C)``, ``I(A,B;C|D)``, and with three or more parts the interaction information (McGill 1954)
``I(A;B;C|D) = I(A;B|D) - I(A;B|C,D)``. Commas make a joint variable, so ``XY`` is *one* variable with a long name.
Coefficients are integers, decimals or fractions, kept exact: ``2 H(A)``, ``1/2 H(A)``, ``0.5*H(A)``, ``H(A)/2``,
``3 (H(A) + H(B))``. The only bare constant is 0: an inequality linear in entropies holds in every unit, so a
number of nats has no place in it.

By the chain rule each measure is a sum of joint entropies, H(A|C) = H(A,C) - H(C) and
I(A;B|C) = H(A,C) + H(B,C) - H(A,B,C) - H(C), and these sums are what a :class:`Statement` holds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations

__all__ = ["ExpressionError", "Form", "Statement", "format_form", "parse"]

Form = Mapping[frozenset[str], Fraction]
"""A linear form on joint entropies: the coefficient of H(S) for each set S of variable names."""

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d*)?|\.\d+)|(?P<name>[^\W\d]\w*'*)|(?P<relation><=|>=|==|=|≤|≥)|(?P<sign>.))"
)
_RELATIONS = {"<=": "<=", "≤": "<=", ">=": ">=", "≥": ">=", "=": "=", "==": "="}
_ALIASES = {"−": "-", "·": "*", "×": "*"}
_DEEPEST = 50  # parentheses within parentheses; far beyond use, and well within Python's recursion limit
_LONGEST_NUMBER = 50


class ExpressionError(ValueError):
    """A statement cannot be read; the message says what was expected, and a caret points at the character."""


@dataclass(frozen=True)
class Statement:
    """A parsed linear statement about joint entropies: ``terms`` ≥ 0, or = 0 for an equality.

    Attributes:
        text: the statement as written, white space evened out.
        left: the text left of the relation.
        right: the text right of it.
        relation: ``<=``, ``>=`` or ``=``, also where it is written ``≤``, ``≥`` or ``==``.
        terms: the larger side minus the smaller (left minus right for an equality), as (set of names, its
            coefficient ≠ 0) pairs.
        variables: the names, in the order they are written.
    """

    text: str
    left: str
    right: str
    relation: str
    terms: tuple[tuple[frozenset[str], Fraction], ...]
    variables: tuple[str, ...]

    @property
    def is_equality(self) -> bool:
        """Whether the relation is ``=``."""
        return self.relation == "="

    @property
    def form(self) -> dict[frozenset[str], Fraction]:
        """``terms`` as a dictionary."""
        return dict(self.terms)

    @property
    def is_balanced(self) -> bool:
        """Whether the coefficients of the joint entropies that contain a variable sum to 0, for every variable.

        A balanced inequality true of all entropies is true of all differential entropies (Chan 2003).
        """
        return all(sum(c for names, c in self.terms if v in names) == 0 for v in self.variables)

    @property
    def difference(self) -> str:
        """``terms`` in the words of the statement, for example ``I(X;Z|Y) - I(X;Z|Y,G)``."""
        large, small = (self.right, self.left) if self.relation == "<=" else (self.left, self.right)
        if small == "0":
            return large
        outside = re.sub(r"\([^()]*\)", "", small)
        small = f"({small})" if re.search(r"[-+−]", outside) else small
        return f"-{small}" if large == "0" else f"{large} - {small}"


def format_form(form: Form, order: tuple[str, ...]) -> str:
    """A linear form in words: ``H(Y) + 2 H(X,Y) - 1/2 H(X,Y,Z)``, small sets first."""
    place = {name: i for i, name in enumerate(order)}

    def key(names: frozenset[str]) -> tuple[int, list[int]]:
        return len(names), sorted(place[name] for name in names)

    words = ""
    for names in sorted(form, key=key):
        coefficient = form[names]
        if coefficient:
            sign = "-" if coefficient < 0 else "+"
            size = "" if abs(coefficient) == 1 else f"{abs(coefficient)} "
            joint = ",".join(sorted(names, key=place.__getitem__))
            lead = f" {sign} " if words else "-" * (coefficient < 0)
            words += f"{lead}{size}H({joint})"
    return words or "0"


def parse(text: str) -> Statement:
    """Reads one statement.

    Raises:
        ExpressionError: with a caret under the character at fault and what was expected there.

    Example:
        >>> statement = parse("H(X|Y) <= H(X)")
        >>> format_form(statement.form, statement.variables)
        'H(X) + H(Y) - H(X,Y)'
        >>> try:
        ...     parse("I(X Z) >= 0")
        ... except ExpressionError as error:
        ...     print(error)
        column 5: expected ';' after 'X', found 'Z'
            I(X Z) >= 0
                ^
    """
    if not isinstance(text, str):
        raise ExpressionError(f"a statement is a string such as 'H(X|Y) <= H(X)', not {type(text).__name__}")
    return _Parser(" ".join(text.split())).statement()


@dataclass
class _Sum:
    """A partly read expression: joint entropies plus a constant."""

    form: dict[frozenset[str], Fraction]
    constant: Fraction

    @property
    def is_constant(self) -> bool:
        return not self.form

    def scaled(self, factor: Fraction) -> _Sum:
        return _Sum({names: factor * c for names, c in self.form.items()}, factor * self.constant)

    def plus(self, other: _Sum) -> _Sum:
        form = dict(self.form)
        for names, coefficient in other.form.items():
            form[names] = form.get(names, Fraction(0)) + coefficient
        return _Sum(form, self.constant + other.constant)


class _Parser:
    """Recursive descent over one statement; every method reads one rule of the grammar and moves on."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[tuple[str, str, int]] = []  # (kind, word, position)
        for match in _TOKEN.finditer(text):
            kind = str(match.lastgroup)
            word = match.group(kind)
            self.tokens.append((kind, _ALIASES.get(word, word), match.start(kind)))
        self.tokens.append(("end", "", len(text)))
        self.at = 0
        self.depth = 0
        self.variables: dict[str, None] = {}

    # -- reading tokens ------------------------------------------------------------------------------

    @property
    def word(self) -> str:
        return self.tokens[self.at][1]

    @property
    def kind(self) -> str:
        return self.tokens[self.at][0]

    @property
    def position(self) -> int:
        return self.tokens[self.at][2]

    def advance(self) -> str:
        word = self.word
        self.at += 1
        return word

    def error(self, expected: str, position: int | None = None) -> ExpressionError:
        found = f", found {self.word!r}" if self.kind != "end" else ", found the end of the text"
        if position is None:
            position = self.position
        else:
            found = ""
        return ExpressionError(
            f"column {position + 1}: expected {expected}{found}\n    {self.text}\n    {' ' * position}^"
        )

    def expect(self, word: str, where: str) -> None:
        if self.word != word:
            raise self.error(f"{word!r} {where}")
        self.advance()

    # -- the grammar ---------------------------------------------------------------------------------

    def statement(self) -> Statement:
        left, left_text = self.side()
        if self.kind != "relation":
            raise self.error("an operator or one of '<=', '>=' and '='")
        relation = _RELATIONS[self.advance()]
        right, right_text = self.side()
        if self.kind != "end":
            again = self.kind == "relation"
            raise self.error(
                "the end of the text: one relation a statement" if again else "an operator or the end"
            )
        if relation == "<=":
            difference = right.plus(left.scaled(Fraction(-1)))
        else:
            difference = left.plus(right.scaled(Fraction(-1)))
        terms = tuple((names, c) for names, c in difference.form.items() if c and names)
        return Statement(self.text, left_text, right_text, relation, terms, tuple(self.variables))

    def side(self) -> tuple[_Sum, str]:
        start = self.position
        value = self.sum()
        text = self.text[start : self.position].strip()
        if value.constant:
            raise self.error("joint entropies: the only bare constant allowed is 0", start)
        return value, text

    def sum(self) -> _Sum:
        total = _Sum({}, Fraction(0))
        constant_at = None
        while True:
            sign = Fraction(1)
            if self.word in ("+", "-"):
                sign = Fraction(-1 if self.advance() == "-" else 1)
            start = self.position
            term = self.term()
            if term.constant and constant_at is None:
                constant_at = start
            total = total.plus(term.scaled(sign))
            if constant_at is not None and not total.is_constant:
                raise self.error("joint entropies: the only bare constant allowed is 0", constant_at)
            if self.word not in ("+", "-"):
                return total

    def term(self) -> _Sum:
        value = self.factor()
        while True:
            start = self.position
            implicit = self.kind == "name" or self.word == "("
            if self.word in ("*", "/"):
                operator = self.advance()
            elif implicit and value.is_constant:
                operator = "*"
            else:
                return value
            start = self.position
            other = self.factor()
            if operator == "/":
                if not other.is_constant:
                    raise self.error("a number to divide by", start)
                if not other.constant:
                    raise self.error("a divisor other than 0", start)
                value = value.scaled(1 / other.constant)
            elif value.is_constant:
                value = other.scaled(value.constant)
            elif other.is_constant:
                value = value.scaled(other.constant)
            else:
                raise self.error("a number: a product of two entropies is not linear", start)

    def factor(self) -> _Sum:
        if self.kind == "number":
            if len(self.word) > _LONGEST_NUMBER:
                raise self.error(f"a number of at most {_LONGEST_NUMBER} digits", self.position)
            return _Sum({}, Fraction(self.advance()))
        if self.word == "(":
            self.depth += 1
            if self.depth > _DEEPEST:
                raise self.error(f"at most {_DEEPEST} nested parentheses", self.position)
            self.advance()
            value = self.sum()
            self.expect(")", "to close the parenthesis")
            self.depth -= 1
            return value
        if self.word in ("H", "I"):
            return self.measure()
        raise self.error("a number, 'H(', 'I(' or '('")

    def measure(self) -> _Sum:
        kind = self.advance()
        self.expect("(", f"after {kind!r}")
        parts = [self.names()]
        while kind == "I" and (self.word == ";" or len(parts) < 2):
            self.expect(";", f"after {self.tokens[self.at - 1][1]!r}")
            parts.append(self.names())
        given: frozenset[str] = frozenset()
        if self.word == "|":
            self.advance()
            given = self.names()
        if self.word != ")":
            inside = "',', ';', '|' or ')'" if kind == "I" else "',', '|' or ')'"
            raise self.error(f"{inside if not given else repr(',') + ' or ' + repr(')')} inside {kind}(...)")
        self.advance()
        # Inclusion-exclusion over the parts; H is the case of one part.
        form: dict[frozenset[str], Fraction] = {}
        for size in range(len(parts) + 1):
            for chosen in combinations(parts, size):
                names = given.union(*chosen)
                form[names] = form.get(names, Fraction(0)) + (1 if size % 2 else -1)
        return _Sum(form, Fraction(0))

    def names(self) -> frozenset[str]:
        names = []
        while True:
            if self.kind != "name":
                raise self.error(f"a variable name after {self.tokens[self.at - 1][1]!r}")
            name = self.advance()
            self.variables.setdefault(name)
            names.append(name)
            if self.word != ",":
                return frozenset(names)
            self.advance()
