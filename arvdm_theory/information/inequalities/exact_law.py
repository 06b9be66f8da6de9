"""Joint laws with rational probabilities, and their entropies without rounding.

For rational probabilities p = a/b, with prime factorisations of a and b, the entropy

    H = -Σ p log p = Σ_q c_q log q        (q prime, c_q rational)

is a rational combination of logarithms of primes. These are linearly independent over the rationals (unique
factorisation), so an entropy expression is zero exactly if every coefficient is, and whether a law meets
``H(G|X) = 0`` or breaks an inequality is decided without a tolerance.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from arvdm_theory.information.inequalities.expressions import Form

__all__ = ["Block", "JointLaw", "LogSum"]


@lru_cache(maxsize=4096)
def _factors(number: int) -> tuple[tuple[int, int], ...]:
    """(prime, exponent) pairs of a positive integer, by trial division."""
    found = []
    prime = 2
    while prime * prime <= number:
        exponent = 0
        while number % prime == 0:
            number //= prime
            exponent += 1
        if exponent:
            found.append((prime, exponent))
        prime += 1
    if number > 1:
        found.append((number, 1))
    return tuple(found)


@dataclass(frozen=True)
class LogSum:
    """The real number Σ_q c_q log q, kept as its coefficients.

    Attributes:
        coefficients: (prime q, rational c_q ≠ 0) pairs, primes rising.
    """

    coefficients: tuple[tuple[int, Fraction], ...] = ()

    @classmethod
    def of(cls, parts: Iterable[tuple[Fraction, LogSum]]) -> LogSum:
        """The combination Σ factor · sum."""
        total: dict[int, Fraction] = {}
        for factor, part in parts:
            for prime, c in part.coefficients:
                total[prime] = total.get(prime, Fraction(0)) + factor * c
        return cls(tuple(sorted((prime, c) for prime, c in total.items() if c)))

    @classmethod
    def entropy(cls, probabilities: Iterable[Fraction]) -> LogSum:
        """-Σ p log p over positive rational probabilities."""
        total: dict[int, Fraction] = {}
        for p in probabilities:
            for number, sign in ((p.denominator, 1), (p.numerator, -1)):
                for prime, exponent in _factors(number):
                    total[prime] = total.get(prime, Fraction(0)) + sign * exponent * p
        return cls(tuple(sorted((prime, c) for prime, c in total.items() if c)))

    def sign(self) -> int:
        """-1, 0 or 1, decided exactly.

        A sum with a coefficient left is not zero, so decimals of growing precision must come to show its sign.
        """
        if not self.coefficients:
            return 0
        digits = 30
        while True:
            with localcontext() as context:
                context.prec = digits
                terms = [
                    Decimal(c.numerator) / Decimal(c.denominator) * Decimal(prime).ln()
                    for prime, c in self.coefficients
                ]
                value = sum(terms, Decimal(0))
                # A term is rounded three times (ratio, logarithm, product) and each addition once, by half a unit
                # in the last place: 10 units a term is on the safe side.
                doubt = sum((abs(t) for t in terms), Decimal(0)) * 10 * len(terms) * Decimal(10) ** (1 - digits)
                if abs(value) > doubt:
                    return 1 if value > 0 else -1
            digits *= 2

    def __float__(self) -> float:
        return math.fsum(float(c) * math.log(prime) for prime, c in self.coefficients)

    def __str__(self) -> str:
        words = ""
        for prime, c in self.coefficients:
            lead = (" - " if c < 0 else " + ") if words else "-" * (c < 0)
            words += f"{lead}{'' if abs(c) == 1 else f'{abs(c)} '}log {prime}"
        return words or "0"


@dataclass(frozen=True)
class Block:
    """A finite probability space and what every variable reads off its atoms.

    Attributes:
        probabilities: of the atoms, positive, summing to 1.
        values: for each variable, its value at every atom.
        copies: how many independent copies of this block the law has.
        recipe: the same in words, for printing.
    """

    probabilities: tuple[Fraction, ...]
    values: tuple[tuple[int, ...], ...]
    copies: int = 1
    recipe: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if sum(self.probabilities) != 1 or min(self.probabilities, default=Fraction(0)) <= 0:
            raise ValueError(f"the probabilities of a law must be positive and sum to 1, got {self.probabilities}")
        if any(len(row) != len(self.probabilities) for row in self.values):
            raise ValueError(f"every variable needs {len(self.probabilities)} values, one an atom")
        if self.copies < 1:
            raise ValueError(f"a block has at least one copy, got {self.copies}")

    def marginal(self, places: tuple[int, ...]) -> dict[tuple[int, ...], Fraction]:
        """Law of the variables at ``places``: the probability of each tuple of values that occurs."""
        law: dict[tuple[int, ...], Fraction] = {}
        for atom, p in enumerate(self.probabilities):
            outcome = tuple(self.values[i][atom] for i in places)
            law[outcome] = law.get(outcome, Fraction(0)) + p
        return law


@dataclass(frozen=True)
class JointLaw:
    """A joint law of named variables: each variable is the tuple of what it reads off independent blocks.

    Attributes:
        variables: their names.
        blocks: the independent parts; entropies add over blocks and copies.
    """

    variables: tuple[str, ...]
    blocks: tuple[Block, ...]

    def __post_init__(self) -> None:
        for block in self.blocks:
            if len(block.values) != len(self.variables):
                raise ValueError(f"a block has {len(block.values)} variables, the law {len(self.variables)}")

    def entropy(self, names: Iterable[str]) -> LogSum:
        """H(names), exact."""
        wanted = set(names)
        places = tuple(i for i, name in enumerate(self.variables) if name in wanted)
        return LogSum.of(
            (Fraction(block.copies), LogSum.entropy(block.marginal(places).values())) for block in self.blocks
        )

    def evaluate(self, form: Form) -> LogSum:
        """Σ c_S H(S), exact."""
        return LogSum.of((c, self.entropy(names)) for names, c in form.items())

    def table(self, largest: int = 4096) -> dict[tuple[tuple[int, ...], ...], Fraction]:
        """The law as probabilities of outcomes; a variable's value is a tuple, one entry a block copy.

        Raises:
            ValueError: if the blocks have more than ``largest`` joint outcomes.
        """
        spaces = [
            tuple(block.marginal(tuple(range(len(self.variables)))).items())
            for block in self.blocks
            for _ in range(block.copies)
        ]
        size = math.prod(len(space) for space in spaces)
        if size > largest:
            raise ValueError(f"the law has {size} outcomes, more than the {largest} asked for")
        table: dict[tuple[tuple[int, ...], ...], Fraction] = {}
        for atoms in product(*spaces):
            outcome = tuple(tuple(values[i] for values, _ in atoms) for i in range(len(self.variables)))
            table[outcome] = math.prod((p for _, p in atoms), start=Fraction(1))
        return table

    def array(self, largest: int = 4096) -> NDArray[np.float64]:
        """The law as an array with one axis a variable, ready for :class:`~.discrete.FiniteLaw`.

        Raises:
            ValueError: as :meth:`table`, and if the array would have more than 64 ``largest`` entries.
        """
        table = self.table(largest)
        numbers: list[dict[tuple[int, ...], int]] = [{} for _ in self.variables]
        places = [
            tuple(seen.setdefault(value, len(seen)) for seen, value in zip(numbers, outcome, strict=True))
            for outcome in table
        ]
        shape = tuple(len(seen) for seen in numbers)
        if math.prod(shape) > 64 * largest:
            raise ValueError(f"the array would have {math.prod(shape)} entries, more than {64 * largest}")
        out = np.zeros(shape)
        for place, p in zip(places, table.values(), strict=True):
            out[place] = float(p)
        return out

    def __str__(self) -> str:
        lines = []
        for block in self.blocks:
            if len(self.blocks) > 1 or block.copies > 1:
                lines.append(f"{block.copies} independent {'copy' if block.copies == 1 else 'copies'} of:")
            text = block.recipe or "\n".join(
                f"({', '.join(f'{n}={row[atom]}' for n, row in zip(self.variables, block.values, strict=True))}) "
                f"with probability {p}"
                for atom, p in enumerate(block.probabilities)
            )
            indent = "  " if lines else ""
            lines.extend(indent + line for line in text.splitlines())
        return "\n".join(lines)
