"""Search for a small joint law that breaks a claimed information inequality.

Every variable is a partition of the atoms of one small probability space, taken from a *family* of partitions that
is closed under common refinement; a joint variable is the common refinement, so one look-up table a family gives
the joint entropies of all its laws at once. The families:

- linear laws: independent symbols, uniform over GF(p), and a variable is a list of linear functions of them
  (copies, XOR, parities). On three variables these include every extreme ray of the cone of polymatroids (Zhang
  and Yeung 1997), so a claim in up to three variables is always settled: proved, or refuted by a law (where
  constraints need copies of several laws, if its coefficients have up to 17 digits);
- all functions of a few atoms (AND, OR, minimum, comparison), uniform or skewed.

Constraints that no single law meets may be met by *independent copies* of several: entropies then add, and the
numbers of copies solve a linear programme. A law is returned only after its entropies, as exact rational
combinations of logarithms, meet every constraint and break the claim.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from itertools import product
from math import gcd, lcm
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arvdm_theory.information.inequalities.exact_law import Block, JointLaw
from arvdm_theory.information.inequalities.expressions import Form, Statement
from arvdm_theory.information.inequalities.rational_lp import farkas

__all__ = ["find_law", "refutes"]

Partition = tuple[int, ...]  # the block of each atom, numbered by first appearance

# Per family: all assignments of partitions to variables if they are not more than this, or else one random chunk.
_MOST_ASSIGNMENTS = 2**20
_CHUNK = 2**17
_TRIED_EXACTLY = 20  # the smallest candidates a chunk that are checked in exact arithmetic
_SCREEN = 1e-12  # floats only choose what is checked exactly
_LARGEST = 2**58  # sums of integer coefficients below this times a rank of at most 6 stay within 64 bits


def _numbered(labels: Sequence[object]) -> Partition:
    seen: dict[object, int] = {}
    return tuple(seen.setdefault(label, len(seen)) for label in labels)


@dataclass(frozen=True)
class _Family:
    """Partitions of one probability space, closed under common refinement, each with its name."""

    probabilities: tuple[Fraction, ...]
    partitions: tuple[Partition, ...]
    names: tuple[str, ...] = ()
    preamble: str = ""
    prime: int | None = None  # of a linear law: every entropy is a whole multiple of its logarithm
    single: int | None = None  # only the first so many partitions are given to single variables; None: all

    @cached_property
    def join(self) -> NDArray[np.intp]:
        place = {partition: i for i, partition in enumerate(self.partitions)}
        rows = [
            [place[_numbered(tuple(zip(a, b, strict=True)))] for b in self.partitions] for a in self.partitions
        ]
        return np.array(rows, dtype=np.intp)

    @cached_property
    def trivial(self) -> int:
        return self.partitions.index((0,) * len(self.probabilities))

    @cached_property
    def ranks(self) -> NDArray[np.int64] | None:
        """Entropies in units of log p, exact; None for a family that is not linear."""
        if self.prime is None:
            return None
        return np.rint(self.entropies / math.log(self.prime)).astype(np.int64)

    @cached_property
    def entropies(self) -> NDArray[np.float64]:
        return np.array([float(JointLaw(("X",), (self.block([i]),)).entropy(["X"]))
                         for i in range(len(self.partitions))])  # fmt: skip

    def block(self, chosen: Sequence[int], variables: Sequence[str] = (), copies: int = 1) -> Block:
        recipe = ""
        if self.names and variables:
            lines = [f"{name} = {self.names[i]}" for name, i in zip(variables, chosen, strict=True)]
            recipe = "\n".join([self.preamble, *lines])
        return Block(self.probabilities, tuple(self.partitions[i] for i in chosen), copies, recipe)

    def assignments(self, n: int, rng: np.random.Generator) -> Iterator[NDArray[np.intp]]:
        """All ways to give n variables a partition, or random ones where they are too many; shape (N, n)."""
        size = self.single or len(self.partitions)
        total = size**n
        if total > _MOST_ASSIGNMENTS:
            yield rng.integers(size, size=(_CHUNK, n))
            return
        for start in range(0, total, _CHUNK):
            index = np.arange(start, min(start + _CHUNK, total))
            yield np.stack(np.unravel_index(index, (size,) * n), axis=-1)


@lru_cache(maxsize=16)
def _linear_family(prime: int, symbols: int) -> _Family:
    """All lists of linear functions of ``symbols`` independent uniform symbols over GF(prime)."""
    vectors = [v for v in product(range(prime), repeat=symbols) if any(v) and next(filter(None, v)) == 1]
    return _spanned(prime, symbols, vectors, only_single=False)


@lru_cache(maxsize=16)
def _parity_family(bits: int) -> _Family:
    """Each variable constant, one of the bits, or the parity of all of them."""
    units = [tuple(int(i == j) for j in range(bits)) for i in range(bits)]
    return _spanned(2, bits, [*units, (1,) * bits], only_single=True)


def _spanned(prime: int, symbols: int, vectors: list[tuple[int, ...]], only_single: bool) -> _Family:
    """The family of all lists of the given linear functions; its variables read one each, or any list."""
    atoms = list(product(range(prime), repeat=symbols))

    def value(vector: tuple[int, ...], atom: tuple[int, ...]) -> int:
        return sum(v * a for v, a in zip(vector, atom, strict=True)) % prime

    def word(vector: tuple[int, ...]) -> str:
        terms = [f"{'' if v == 1 else v}b{i + 1}" for i, v in enumerate(vector) if v]
        return (" ⊕ " if prime == 2 else " + ").join(terms) + (
            f" mod {prime}" if prime > 2 and len(terms) > 1 else ""
        )

    # Breadth first from the constant, functions of few symbols first: the simplest names, and single functions
    # before lists.
    vectors = sorted(vectors, key=lambda v: (sum(map(bool, v)), [-x for x in v]))
    found: dict[Partition, tuple[tuple[int, ...], ...]] = {(0,) * len(atoms): ()}
    queue = list(found)
    for partition in queue:
        for vector in vectors:
            finer = _numbered([(block, value(vector, atom)) for block, atom in zip(partition, atoms, strict=True)])
            if finer not in found:
                found[finer] = (*found[partition], vector)
                queue.append(finer)
    names = []
    for basis in found.values():
        words = [word(vector) for vector in basis]
        names.append("constant" if not words else words[0] if len(words) == 1 else f"({', '.join(words)})")
    letters = ", ".join(f"b{i + 1}" for i in range(symbols))
    what = "fair bits" if prime == 2 else f"symbols uniform on 0..{prime - 1}"
    return _Family(
        (Fraction(1, len(atoms)),) * len(atoms), tuple(found), tuple(names), f"independent {what} {letters}:",
        prime, 1 + len(vectors) if only_single else None,
    )  # fmt: skip


@lru_cache(maxsize=16)
def _partition_family(*weights: int) -> _Family:
    """All functions of atoms with probabilities proportional to ``weights``."""
    partitions: list[Partition] = [()]
    for _ in weights:
        partitions = [(*p, block) for p in partitions for block in range(max(p, default=-1) + 2)]
    return _Family(tuple(Fraction(w, sum(weights)) for w in weights), tuple(partitions))


def _families(n: int) -> Iterator[_Family]:
    """For n variables, from the plainest to the largest."""
    yield _linear_family(2, 2)
    yield _partition_family(2, 1, 1)
    for bits in range(4, n):
        yield _parity_family(bits)
    yield _linear_family(2, 3)
    yield _linear_family(3, 2)
    yield _partition_family(1, 1, 1, 1)
    yield _partition_family(4, 2, 1, 1)
    yield _partition_family(1, 3, 3, 1)
    yield _linear_family(3, 3)
    yield _linear_family(2, 4)
    yield _partition_family(1, 1, 1, 1, 1)


def refutes(law: JointLaw, forms: Sequence[Form], given: Sequence[Statement]) -> bool:
    """Whether the law meets every constraint and makes one of the forms negative; decided exactly."""
    for constraint in given:
        sign = law.evaluate(constraint.form).sign()
        if sign < 0 or (sign > 0 and constraint.is_equality):
            return False
    return any(law.evaluate(form).sign() < 0 for form in forms)


class _Screen:
    """The claim and the constraints, evaluated on many laws of a family at once."""

    def __init__(self, variables: tuple[str, ...], forms: Sequence[Form], given: Sequence[Statement]) -> None:
        self.variables = variables
        self.given = given
        self.goals = len(forms)
        self.forms = (*forms, *(constraint.form for constraint in given))
        place = {name: i for i, name in enumerate(variables)}
        self.whole: list[dict[tuple[int, ...], int]] = []  # the forms with integer coefficients, on places
        for form in self.forms:
            scale = lcm(*(c.denominator for c in form.values()))
            self.whole.append(
                {tuple(sorted(place[v] for v in names)): int(c * scale) for names, c in form.items()}
            )
        self.fits_int64 = all(sum(map(abs, form.values())) < _LARGEST for form in self.whole)

    def forms_on(self, family: _Family, chosen: NDArray[np.intp], which: Sequence[int]) -> NDArray[Any]:
        """Columns: some of the forms, and last the entropy of everything; shape (N, len(which) + 1).

        Each column is a positive multiple of its form: for a linear law the exact integer in units of log p,
        otherwise a float over the largest coefficient.
        """
        exact = family.ranks is not None
        entropies: NDArray[Any] = family.entropies
        if family.ranks is not None:  # Python's own integers where 64 bits are too few
            entropies = family.ranks if self.fits_int64 else family.ranks.astype(object)
        size = len(family.partitions)
        picks = np.ascontiguousarray(chosen.T)
        joint: dict[tuple[int, ...], NDArray[np.intp]] = {(): np.full(len(chosen), family.trivial)}

        def refinement(places: tuple[int, ...]) -> NDArray[np.intp]:
            if places not in joint:
                joint[places] = family.join.take(refinement(places[:-1]) * size + picks[places[-1]])
            return joint[places]

        columns = []
        for j in which:
            form = self.whole[j]
            total = np.zeros(len(chosen), dtype=entropies.dtype)
            scale = max(map(abs, form.values()), default=1)
            for places, c in form.items():
                total += (c if exact else c / scale) * entropies.take(refinement(places))
            columns.append(total)
        everything = refinement(tuple(range(len(self.variables))))
        return np.stack([*columns, entropies.take(everything)], axis=-1)

    def values(self, family: _Family, chosen: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[Any]]:
        """The laws worth a look, and all forms on them.

        An equality whose values all have one sign, as H(G|X) = 0, is met by a law or by copies of several only
        where each of them meets it: the others are dropped before anything else is computed.
        """
        for j, constraint in enumerate(self.given, start=self.goals):
            if constraint.is_equality:
                value = self.forms_on(family, chosen, [j])[:, 0]
                if value.min(initial=0) > -_SCREEN or value.max(initial=0) < _SCREEN:
                    chosen = chosen[np.abs(value) < _SCREEN]
        return chosen, self.forms_on(family, chosen, range(len(self.forms)))

    def singles(self, values: NDArray[Any]) -> NDArray[np.intp]:
        """Rows that meet the constraints and break the claim, up to rounding; the smallest laws first."""
        good = (values[:, : self.goals] < -_SCREEN).any(axis=1)
        for j, constraint in enumerate(self.given, start=self.goals):
            value = values[:, j]
            good &= np.abs(value) < _SCREEN if constraint.is_equality else value > -_SCREEN
        rows = np.flatnonzero(good)
        return rows[np.argsort(values[rows, -1], kind="stable")]


def find_law(
    variables: tuple[str, ...], forms: Sequence[Form], given: Sequence[Statement], seed: int = 0
) -> JointLaw | None:
    """A joint law that meets the constraints and makes one of the forms negative, or None.

    Args:
        variables: the names the forms and constraints speak of.
        forms: linear forms on joint entropies, each claimed to be ≥ 0.
        given: the constraints.
        seed: of the random draws from families too large to go through.

    None is no proof of anything: the search is finite.
    """
    rng = np.random.default_rng(seed)
    screen = _Screen(variables, forms, given)
    pools: dict[int, list[_Pool]] = {}
    for family in _families(len(variables)):
        for assigned in family.assignments(len(variables), rng):
            chosen, values = screen.values(family, assigned)
            for row in screen.singles(values)[:_TRIED_EXACTLY]:
                law = JointLaw(variables, (family.block(chosen[row].tolist(), variables),))
                if refutes(law, forms, given):
                    return law
            # Copies of several laws only help where what one gets wrong another makes good.
            if family.prime and values.dtype == np.int64 and values[:, screen.goals : -1].any():
                order = np.argsort(values[:, -1], kind="stable")
                _, first = np.unique(values[order, :-1], axis=0, return_index=True)
                keep = order[first]
                pools.setdefault(family.prime, []).append(_Pool(family, chosen[keep], values[keep]))
    mixtures = (_mixture(pool, screen) for pool in pools.values())
    return next((law for law in mixtures if law is not None), None)


@dataclass(frozen=True)
class _Pool:
    """Laws of one family that differ in what they give the claim and the constraints."""

    family: _Family
    chosen: NDArray[np.intp]
    values: NDArray[Any]


def _mixture(pools: Sequence[_Pool], screen: _Screen) -> JointLaw | None:
    """Independent copies of linear laws over one field that together meet the constraints and break a claim."""
    smallest: dict[tuple[int, ...], tuple[int, _Family, list[int]]] = {}
    for pool in pools:
        for picks, (*row, size) in zip(pool.chosen.tolist(), pool.values.tolist(), strict=True):
            if tuple(row) not in smallest or size < smallest[tuple(row)][0]:
                smallest[tuple(row)] = (size, pool.family, picks)
    laws = list(smallest.values())
    height = 1 + len(screen.given)
    for goal in range(screen.goals):
        columns = []
        for row_values in smallest:
            entries = (row_values[goal], *row_values[screen.goals :])
            columns.append({i: Fraction(v) for i, v in enumerate(entries) if v})
        # An inequality constraint may have something left over.
        over = [{j: Fraction(-1)} for j, g in enumerate(screen.given, start=1) if not g.is_equality]
        cost = [1.0 + size for size, _, _ in laws] + [0.0] * len(over)
        # The separator that would show there is no such mixture is not wanted, so any may come.
        shares = farkas([*columns, *over], {0: Fraction(-1)}, height, cost, [0.0] * height).solution
        if shares is None:
            continue
        used = {j: share for j, share in shares.items() if j < len(laws)}
        unit = lcm(*(share.denominator for share in used.values()))
        unit_shares = {j: int(share * unit) for j, share in used.items()}
        common = gcd(*unit_shares.values())
        blocks = tuple(
            laws[j][1].block(laws[j][2], screen.variables, share // common) for j, share in unit_shares.items()
        )
        law = JointLaw(screen.variables, blocks)
        if refutes(law, screen.forms[: screen.goals], screen.given):
            return law
    return None
