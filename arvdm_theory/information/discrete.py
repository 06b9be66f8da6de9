"""Entropy, KL divergence, mutual and conditional mutual information of finite laws, in nats.

A :class:`FiniteLaw` is an array of probabilities with named axes, one axis a variable. Zeros are exact:
0 log 0 = 0, and a divergence is ``inf`` exactly where absolute continuity fails.

Accuracy: divergences and (conditional) mutual informations are sums of the terms

    p log(p/q) - p + q = p (x - log(1 + x)),    x = q/p - 1,

each of which is ≥ 0 and accurate on its own, so nothing cancels between them; a difference of entropies has
no digits left below 1e-15. What remains is the rounding of the probabilities themselves (u = 2^-53 relative, so
about u in x): a relative error of about u/√I, eight digits at I = 1e-16.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum, prod

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from arvdm_theory.information.gaussian import x_minus_log1p

__all__ = [
    "Axes",
    "FiniteLaw",
    "check_kernel",
    "conditional_kernel",
    "conditional_mutual_information",
    "conditionally_independent",
    "entropy",
    "grouped",
    "information_of_blocks",
    "kl_divergence",
    "marginal",
    "mutual_information",
    "relative_entropy",
    "total_variation",
]

Array = NDArray[np.float64]
Axes = str | int | Sequence[str | int]

_UNIT = float(np.finfo(np.float64).eps) / 2
# Roundings that a probability is taken to have gone through before it was handed over: a product of a few
# conditional probabilities and one normalisation.
_ROUNDINGS = 8


@dataclass(frozen=True, eq=False, init=False)
class FiniteLaw:
    """A joint law of finitely many variables with finitely many values each.

    Attributes:
        probabilities: one axis a variable; kept as a read-only float64 copy, never rescaled.
        names: the axes' names; left out, they are "0", "1", ...

    Raises:
        ValueError: for an entry that is negative, NaN or infinite; for a sum that differs from 1 by more than
            rounding explains, (n + 8) u for n entries with u the unit roundoff of the array's own type
            (the message says the sum); for names that are not one a axis and all different.

    Example:
        >>> coin = FiniteLaw([[0.5, 0.0], [0.0, 0.5]], ("x", "z"))
        >>> round(mutual_information(coin, "x", "z"), 6)
        0.693147
    """

    probabilities: Array
    names: tuple[str, ...]

    def __init__(self, probabilities: ArrayLike, names: Sequence[str] = ()) -> None:
        values = _non_negative(probabilities, "law")
        total = fsum(values.ravel())
        tolerance = _sum_tolerance(probabilities, values.size)
        if not abs(total - 1) <= tolerance:
            raise ValueError(
                f"the law's probabilities must sum to 1, but their sum is {total:.17g} (rounding explains a "
                f"difference of {tolerance:.1e}); FiniteLaw.from_weights divides by the sum"
            )
        self._fill(values, names)

    @classmethod
    def from_weights(cls, weights: ArrayLike, names: Sequence[str] = ()) -> FiniteLaw:
        """The law proportional to non-negative weights.

        Raises:
            ValueError: as for the law itself, and if the weights sum to 0 or overflow.
        """
        values = _non_negative(weights, "array of weights")
        peak = float(values.max())
        if peak <= 0:
            raise ValueError("the weights are all 0: they make no law")
        values = values / peak
        return cls(values / values.sum(), names)

    @classmethod
    def _trusted(cls, values: Array, names: Sequence[str]) -> FiniteLaw:
        """A law derived from a checked one: its sum carries that one's rounding and is not checked again."""
        law = object.__new__(cls)
        law._fill(values, names)
        return law

    def _fill(self, values: Array, names: Sequence[str]) -> None:
        labels = tuple(str(k) for k in range(values.ndim)) if not names and values.ndim else _labels(names)
        if len(labels) != values.ndim or len(set(labels)) != len(labels):
            raise ValueError(f"a law with {values.ndim} axes needs as many different names, got {list(labels)}")
        frozen = np.array(values, dtype=np.float64)
        frozen.setflags(write=False)
        object.__setattr__(self, "probabilities", frozen)
        object.__setattr__(self, "names", labels)

    def axes(self, names: Axes) -> tuple[int, ...]:
        """Positions of the named axes.

        Raises:
            ValueError: for a name that the law does not have, or one named twice.
        """
        labels = _labels(names)
        for label in labels:
            if label not in self.names:
                raise ValueError(f"the law has no axis {label!r}; its axes are {', '.join(self.names)}")
            if labels.count(label) > 1:
                raise ValueError(f"axis {label!r} is named twice")
        return tuple(self.names.index(label) for label in labels)

    def sizes(self, names: Axes) -> tuple[int, ...]:
        """How many values each of the named variables has."""
        return tuple(self.probabilities.shape[axis] for axis in self.axes(names))


def marginal(law: FiniteLaw, names: Axes) -> FiniteLaw:
    """The law of the named variables alone, its axes in the order asked for."""
    labels = _labels(names)
    return FiniteLaw._trusted(grouped(law, *labels), labels)


def grouped(law: FiniteLaw, *groups: Axes) -> Array:
    """The probabilities as one axis a group of variables, all other variables summed out.

    The states of a group are counted with its last variable running fastest; an empty group has one state.

    Raises:
        ValueError: for an unknown name, or one that stands twice.
    """
    labels = [_labels(group) for group in groups]
    axes = law.axes([label for group in labels for label in group])
    rest = tuple(axis for axis in range(law.probabilities.ndim) if axis not in axes)
    shape = [prod(law.sizes(group)) for group in labels]
    values: Array = law.probabilities.transpose(*axes, *rest).reshape(*shape, -1).sum(-1)
    return values


def entropy(law: FiniteLaw, names: Axes | None = None, given: Axes = ()) -> float:
    """H(X | Y) = -Σ p(x, y) log p(x | y), in nats; X is every variable but Y unless named."""
    if names is None:
        known = _labels(given)
        names = [name for name in law.names if name not in known]
    joint = grouped(law, names, given)
    with np.errstate(divide="ignore", invalid="ignore"):
        surprise = np.where(joint > 0, np.log(joint.sum(0)) - np.log(joint), 0.0)
    return float((joint * surprise).sum())


def kl_divergence(p: FiniteLaw, q: FiniteLaw) -> float:
    """KL(P ‖ Q) = Σ p log(p/q), in nats; ``inf`` where P has an atom that Q has not.

    Raises:
        ValueError: if the two laws do not have the same axes, by name, size and order.
    """
    _same_axes(p, q)
    return relative_entropy(p.probabilities, q.probabilities)[0]


def total_variation(p: FiniteLaw, q: FiniteLaw) -> float:
    """½ Σ |p - q|, between 0 and 1; errors as :func:`kl_divergence`."""
    _same_axes(p, q)
    return float(np.abs(p.probabilities - q.probabilities).sum()) / 2


def mutual_information(law: FiniteLaw, x: Axes, z: Axes) -> float:
    """I(X; Z), in nats; see :func:`conditional_mutual_information`."""
    return conditional_mutual_information(law, x, z, ())


def conditional_mutual_information(law: FiniteLaw, x: Axes, z: Axes, given: Axes) -> float:
    """I(X; Z | Y) = KL(P_{XZY} ‖ P_{X|Y} P_{Z|Y} P_Y), in nats, ≥ 0 and finite; 0 where X or Z is constant.

    All other variables are summed out. No variable may stand twice (ValueError).
    """
    return information_of_blocks(grouped(law, x, z, given))[0]


def information_of_blocks(joint: Array) -> tuple[float, float]:
    """I(X; Z | Y) of an array over (x, z, y), and a bound on its rounding error, in nats."""
    if 1 in joint.shape[:2]:
        return 0.0, 0.0
    xy, zy, y = joint.sum(1, keepdims=True), joint.sum(0, keepdims=True), joint.sum((0, 1))
    share = np.divide(zy, y, out=np.zeros_like(zy), where=y > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_q = np.where(y > 0, np.log(xy) + np.log(zy) - np.log(y), -np.inf)
    return relative_entropy(joint, xy * share, log_q, summands=joint.size)


def relative_entropy(
    p: Array, q: Array, log_q: Array | None = None, summands: int | None = None
) -> tuple[float, float]:
    """Σ p log(p/q) - p + q over two arrays of masses, and a bound on its rounding error, in nats.

    It is KL(P ‖ Q) where both have the same total, and ``inf`` exactly where some p > 0 meets q = 0.

    Args:
        p: masses, shape (...).
        q: masses, shape (...).
        log_q: log q, -inf where q is 0, for a q that is a product and may underflow.
        summands: how many probabilities were added or multiplied into the entries of p and q at most (the
            number of entries, if left out): their relative error is (summands + 8) u.

    The bound, with ε = (summands + 8) u: the term's derivative in log q is q - p and in log p is p log(p/q), so
    the entries' errors cost ε (|q - p| + |p log(p/q)|), and ε² (p + q) in second order, which is what remains
    where p = q; evaluating a term with |q - p| > p/4 costs a few u of each of its parts, and the sum (summands) u
    of the value. Entries that underflow are off by the smallest number there is, times a logarithm ≤ 745.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        log_p = np.log(p)
        if log_q is None:
            log_q = np.log(q)
        if bool(((p > 0) & (log_q == -np.inf)).any()):
            return np.inf, 0.0
        difference = q - p
        ratio = np.where(p > 0, np.where(log_q > -np.inf, log_p - log_q, 0.0), 0.0)
    near = (p > 0) & (np.abs(difference) <= 0.25 * p)
    far = (p > 0) & ~near
    terms = np.where(p > 0, difference + p * ratio, q)
    terms[near] = p[near] * x_minus_log1p(torch.from_numpy(difference[near] / p[near])).numpy()
    value = float(terms.sum())
    parts = p[far] * (1 + np.abs(log_p[far]) + np.abs(log_q[far])) + q[far]
    magnitude = value + 3 * float(np.abs(difference).sum()) + float(parts.sum())
    count = (p.size if summands is None else summands) + _ROUNDINGS
    relative = count * _UNIT
    underflow = count * p.size * 745 * float(np.finfo(np.float64).smallest_subnormal)
    return value, relative * magnitude + relative**2 * float(p.sum() + q.sum()) + underflow


def conditionally_independent(
    law: FiniteLaw, x: Axes, z: Axes, given: Axes = (), roundings: int = _ROUNDINGS
) -> bool:
    """Whether X and Z are independent given Y, exactly, but for the rounding of the probabilities.

    True iff p(x, z, y) > 0 wherever p(x, y) p(z, y) > 0, and every ratio p(x, z, y) p(y) / (p(x, y) p(z, y))
    is within (4k + n_x + n_z + n_x n_z) u of 1: the four masses carry k roundings each and their sums
    n_x - 1, n_z - 1 and n_x n_z - 1 more, all of positive numbers. Being relative, the test sees a dependence
    among improbable values as well as one among probable ones. k counts the ``roundings`` that each given
    probability has gone through, and those of the variables summed out.
    """
    joint = grouped(law, x, z, given)
    n_x, n_z, _ = joint.shape
    xy, zy, y = joint.sum(1, keepdims=True), joint.sum(0, keepdims=True), joint.sum((0, 1))
    support = joint > 0
    if bool((support != ((xy > 0) & (zy > 0))).any()):
        return False
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        deviation = np.abs((joint / xy) * (y / zy) - 1)[support]
    k = roundings + law.probabilities.size // joint.size - 1
    return bool((deviation <= (4 * k + n_x + n_z + n_x * n_z) * _UNIT).all())


def conditional_kernel(law: FiniteLaw, output: Axes, given: Axes) -> Array:
    """P(out | in), shape (\\*input sizes, \\*output sizes), the axes in the order named.

    An input of probability 0 has no conditional law; its row is uniform.
    """
    joint = grouped(law, given, output)
    mass = joint.sum(1, keepdims=True)
    rows: Array = np.divide(joint, mass, out=np.full_like(joint, 1 / joint.shape[1]), where=mass > 0)
    return rows.reshape(*law.sizes(given), *law.sizes(output))


def check_kernel(kernel: ArrayLike, inputs: Sequence[int], outputs: Sequence[int]) -> Array:
    """A Markov kernel Q(out | in) as a float64 array of shape (\\*inputs, \\*outputs).

    Raises:
        ValueError: for another shape, an entry that is negative, NaN or infinite, or a row whose sum differs
            from 1 by more than rounding explains.
    """
    values = _non_negative(kernel, "kernel")
    shape = (*inputs, *outputs)
    if values.shape != shape:
        raise ValueError(
            f"the kernel must have shape {shape} (input sizes, then output sizes), got {values.shape}"
        )
    rows = values.reshape(prod(inputs), prod(outputs))
    total = rows.sum(1)
    tolerance = _sum_tolerance(kernel, rows.shape[1])
    worst = int(np.argmax(np.abs(total - 1)))
    if not abs(total[worst] - 1) <= tolerance:
        state = tuple(int(k) for k in np.unravel_index(worst, tuple(inputs))) if inputs else ()
        raise ValueError(
            f"each row of the kernel must sum to 1, but that of input state {state} sums to "
            f"{total[worst]:.17g} (rounding explains a difference of {tolerance:.1e})"
        )
    return values


def _labels(names: Axes) -> tuple[str, ...]:
    return tuple(str(name) for name in ((names,) if isinstance(names, str | int) else names))


def _same_axes(p: FiniteLaw, q: FiniteLaw) -> None:
    if p.names != q.names or p.probabilities.shape != q.probabilities.shape:
        raise ValueError(
            f"the two laws must have the same axes, got {p.names} of sizes {p.probabilities.shape} and "
            f"{q.names} of sizes {q.probabilities.shape}"
        )


def _non_negative(values: ArrayLike, what: str) -> Array:
    array = np.asarray(values)
    if array.dtype.kind not in "fiu" or array.size == 0:
        raise ValueError(
            f"the {what} must hold real numbers, got an array of {array.dtype} of shape {array.shape}"
        )
    for flaw, where in (("NaN", np.isnan(array)), ("infinite", np.isinf(array)), ("negative", array < 0)):
        if bool(where.any()):
            first = tuple(int(k) for k in np.argwhere(where)[0])
            raise ValueError(f"the {what} has a {flaw} entry, {array[first]} at index {first}")
    return array.astype(np.float64)


def _sum_tolerance(given: ArrayLike, summands: int) -> float:
    """How far the sum of so many probabilities may be from 1 by the rounding of their own number type."""
    dtype = np.asarray(given).dtype
    unit = float(np.finfo(dtype).eps) / 2 if dtype.kind == "f" else _UNIT
    return (summands + _ROUNDINGS) * max(unit, _UNIT)
