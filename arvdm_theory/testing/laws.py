"""Hypothesis strategies of joint laws of (past, in, out), and of kernels to hold against them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from torch import Tensor

from arvdm_theory.bounds.impossibility import AffineKernel, gaussian_minimising_kernel, minimising_kernel
from arvdm_theory.information.discrete import Axes, FiniteLaw
from arvdm_theory.testing.covariances import covariances

__all__ = [
    "GaussianLaw",
    "affine_kernels",
    "finite_laws",
    "gaussian_laws",
    "kernels_for",
    "markov_kernels",
]

Array = NDArray[np.float64]

# Everyday weights, zero (often), and weights so small that their products leave the range of float64.
_WEIGHTS = st.sampled_from(
    [1.0, 2.0, 3.0, 5.0, 9.0, 0.5, 0.0, 0.0, 0.0, 1e-3, 1e-8, 1e-15, 1e-100, 1e-200, 1e-300]
)


@st.composite
def finite_laws(
    draw: st.DrawFn, names: Sequence[str] = ("past", "in", "out"), max_size: int = 3, min_size: int = 1
) -> FiniteLaw:
    """Finite joint laws with the axes ``names``, each of ``min_size`` to ``max_size`` values.

    One of: any weights, zeros and very small ones (to 1e-300) among them; the same with a value of one variable
    of probability 0; one variable a function of the others; the first and the last variable independent given
    the rest, to rounding; equal weights. They shrink to the last of these.
    """
    shape = tuple(draw(st.integers(min_size, max_size), label=f"values of {name}") for name in names)
    kind = draw(st.sampled_from(["equal", "any", "null value", "function", "Markov"]), label="kind")
    if kind == "equal":
        return FiniteLaw.from_weights(np.ones(shape), names)
    weights = draw(_weights(shape))
    axis = draw(st.integers(0, len(shape) - 1), label="axis") if kind in ("null value", "function") else 0
    if kind == "null value":
        weights = weights.copy()
        np.moveaxis(weights, axis, 0)[draw(st.integers(0, shape[axis] - 1), label="null value")] = 0
    elif kind == "function":
        others = shape[:axis] + shape[axis + 1 :]
        value = draw(
            hnp.arrays(np.int64, others, elements=st.integers(0, shape[axis] - 1), fill=st.nothing()),
            label="function",
        )
        chosen = np.arange(shape[axis]) == value[..., None]
        weights = weights * np.moveaxis(chosen, -1, axis)
    elif kind == "Markov" and len(shape) > 1:
        middle = (1, *shape[1:-1], 1)
        first = draw(_weights((shape[0], *shape[1:-1], 1)))
        last = draw(_weights((1, *shape[1:-1], shape[-1])))
        weights = draw(_weights(middle)) * _rows(first, 0) * _rows(last, -1)
    if not weights.any():
        weights = weights.copy()
        weights[(0,) * weights.ndim] = 1.0
    return FiniteLaw.from_weights(weights, names)


def markov_kernels(inputs: Sequence[int], outputs: Sequence[int]) -> st.SearchStrategy[Array]:
    """Markov kernels Q(out | in) of shape (\\*inputs, \\*outputs), zeros and very small entries among them.

    Rows with a single 1, that is deterministic kernels, are among them too.
    """
    rows, columns = math.prod(inputs), math.prod(outputs)
    kernels = _weights((rows, columns)).map(lambda weights: _rows(weights, 1).reshape(*inputs, *outputs))
    functions = hnp.arrays(np.int64, rows, elements=st.integers(0, columns - 1), fill=st.nothing()).map(
        lambda value: np.eye(columns)[value].reshape(*inputs, *outputs)
    )
    return kernels | functions


@st.composite
def kernels_for(draw: st.DrawFn, law: FiniteLaw, input: Axes, output: Axes) -> Array:
    """Markov kernels Q(out | in) to hold against a law.

    The minimising kernel itself; mixtures of it with another one, of weight 1e-15 to 0.1; or any kernel.
    """
    best = minimising_kernel(law, input, output)
    kind = draw(st.sampled_from(["best", "any", "mixture"]), label="kind")
    if kind == "best":
        return best
    other = draw(markov_kernels(law.sizes(input), law.sizes(output)), label="kernel")
    if kind == "any":
        return other
    weight = draw(st.sampled_from([0.1, 1e-3, 1e-6, 1e-9, 1e-12, 1e-15]), label="distance")
    return (1 - weight) * best + weight * other


@dataclass(frozen=True)
class GaussianLaw:
    """A joint Gaussian law of (Past, In, Out), whose entries stand in any order.

    Attributes:
        mean: shape (n,).
        covariance: shape (n, n).
        past: indices of Past.
        input: indices of In.
        output: indices of Out.
    """

    mean: Tensor
    covariance: Tensor
    past: tuple[int, ...]
    input: tuple[int, ...]
    output: tuple[int, ...]


@st.composite
def gaussian_laws(draw: st.DrawFn, max_dim: int = 3, max_condition: float = 1e6) -> GaussianLaw:
    """Joint Gaussian laws of Past and Out (1 to ``max_dim`` entries each) and In (0 to ``max_dim``).

    One of: any covariance, of condition number up to ``max_condition``; Past and Out independent given In
    (no memory bottleneck); Past and Out all but equal given In, up to noise of variance 1/``max_condition`` (a
    huge one). Which entries belong to which block is drawn too.
    """
    n_p, n_i, n_o = (draw(st.integers(least, max_dim), label="dimension") for least in (1, 0, 1))
    n = n_p + n_i + n_o
    kind = draw(st.sampled_from(["any", "Markov", "copy"]), label="kind")
    if kind == "any":
        covariance = draw(covariances(n, max_condition))
    else:
        known = draw(covariances(n_p + n_i, 1e2, max_scale=10.0))
        gain = torch.zeros(n_o, n_p + n_i, dtype=torch.float64)
        gain[:, n_p:] = _matrix(draw, n_o, n_i)
        noise = torch.eye(n_o, dtype=torch.float64)
        if kind == "copy":
            gain[:, :n_p] = torch.eye(n_o, n_p, dtype=torch.float64)
            digits = draw(st.floats(0, math.log10(max_condition)), label="precision of the copy")
            noise = noise * 10.0**-digits
        cross = gain @ known
        covariance = torch.cat(
            [torch.cat([known, cross.mT], -1), torch.cat([cross, cross @ gain.mT + noise], -1)], -2
        )
        covariance = (covariance + covariance.mT) / 2
    order = draw(st.permutations(range(n)), label="order")
    mean = draw(st.lists(st.floats(-3, 3), min_size=n, max_size=n), label="mean")
    place = torch.tensor([order.index(k) for k in range(n)])  # entry k of the blocks stands at order[k]
    return GaussianLaw(
        mean=torch.tensor(mean, dtype=torch.float64),
        covariance=covariance[place[:, None], place],
        past=tuple(order[:n_p]),
        input=tuple(order[n_p : n_p + n_i]),
        output=tuple(order[n_p + n_i :]),
    )


@st.composite
def affine_kernels(draw: st.DrawFn, law: GaussianLaw, max_condition: float = 1e6) -> AffineKernel:
    """Affine Gaussian kernels Q(out | in) to hold against a law.

    The minimising kernel; one whose gain, bias and noise are each off by a relative 0, 1e-9, 1e-6, 1e-3 or
    0.5; or one of any gain, bias and noise (of condition number up to ``max_condition``).
    """
    best = gaussian_minimising_kernel(law.covariance, law.mean, law.input, law.output)
    n_o, n_i = best.gain.shape
    if draw(st.booleans(), label="any kernel"):
        noise = draw(covariances(n_o, max_condition))
        return AffineKernel(_matrix(draw, n_o, n_i), _matrix(draw, n_o, 1)[:, 0], noise)
    sizes = st.sampled_from([0.0, 1e-9, 1e-6, 1e-3, 0.5])
    gain = best.gain * (1 + draw(sizes, label="gain") * _matrix(draw, n_o, n_i))
    bias = best.bias + draw(sizes, label="bias") * _matrix(draw, n_o, 1)[:, 0]
    return AffineKernel(gain, bias, best.noise * (1 + draw(sizes, label="noise")))


def _matrix(draw: st.DrawFn, rows: int, columns: int) -> Tensor:
    """Entries in [-2, 2], shape (rows, columns)."""
    entries = draw(hnp.arrays(np.float64, (rows, columns), elements=st.floats(-2, 2)))
    return torch.from_numpy(np.ascontiguousarray(entries))


def _weights(shape: Sequence[int]) -> st.SearchStrategy[Array]:
    # Without a fill value every entry is drawn on its own; the default repeats one value in large arrays.
    return hnp.arrays(np.float64, tuple(shape), elements=_WEIGHTS, fill=st.nothing())


def _rows(weights: Array, axis: int) -> Array:
    """Weights scaled to sum to 1 along an axis; all-zero ones become a 1 on the first value."""
    first = np.zeros_like(weights)
    np.moveaxis(first, axis, 0)[0] = 1.0
    peak = weights.max(axis, keepdims=True)
    scaled = np.where(peak > 0, np.divide(weights, peak, out=np.zeros_like(weights), where=peak > 0), first)
    result: Array = scaled / scaled.sum(axis, keepdims=True)
    return result
