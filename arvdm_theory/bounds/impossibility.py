"""The impossibility result: no kernel pays less than the memory bottleneck, and what a memory can buy.

For any joint law P of (Past, In, Out) and any Markov kernel Q(out | in),

    KL(P_{Past,In,Out} ‖ P_{Past,In} ⊗ Q) = I(Out; Past | In) + E_In KL(P_{Out|In} ‖ Q) ≥ I(Out; Past | In),

with equality, when finite, exactly for Q = P_{Out|In}. A memory h of the past that is given to the kernel as
well leaves I(Out; Past | In, h) = I(Out; Past | In) - I(Out; h | In), so more history never hurts, and it
helps by at most I(h; Past | In), the nats that h holds about the past. (The first needs h to be independent of
everything else given Past; the second holds for any h whatever.) Both statements are checked here on
finite and on Gaussian laws, the two sides along independent computations. The best that any memory of R nats
can do for a Gaussian law is :mod:`arvdm_theory.bounds.information_bottleneck`.

Source: arXiv 2503.10704, the information-theoretic impossibility result (the memory bottleneck cannot be
avoided by any AR generator).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from arvdm_theory.information import discrete, gaussian
from arvdm_theory.information.discrete import Axes, FiniteLaw

__all__ = [
    "AffineKernel",
    "LemmaCheck",
    "MemoryCheck",
    "check_finite_memory",
    "check_gaussian_lemma",
    "check_gaussian_memory",
    "check_lemma",
    "gaussian_minimising_kernel",
    "index_blocks",
    "minimising_kernel",
]

Array = NDArray[np.float64]
Indices = Sequence[int] | Tensor
Number = TypeVar("Number", float, Tensor)
Kernel = TypeVar("Kernel")


@dataclass(frozen=True)
class AffineKernel:
    """The Markov kernel Q(out | in) = N(G in + b, N).

    Attributes:
        gain: G, shape (..., n_out, n_in).
        bias: b, shape (..., n_out).
        noise: N, shape (..., n_out, n_out), positive definite.
    """

    gain: Tensor
    bias: Tensor
    noise: Tensor


@dataclass(frozen=True)
class LemmaCheck(Generic[Number, Kernel]):
    """Both sides of the lemma, in nats: floats for a finite law, tensors over the batch for a Gaussian one.

    Attributes:
        cost: KL(P ‖ P_{Past,In} ⊗ Q), what the kernel pays.
        memory_bottleneck: I(Out; Past | In), what every kernel pays.
        excess: E_In KL(P_{Out|In} ‖ Q), what this kernel pays beyond it.
        gap: cost - (memory_bottleneck + excess), 0 where both sides are infinite.
        rounding: a bound on what rounding alone makes of the gap.
        minimiser: the kernel P_{Out|In}, which pays the least.
    """

    cost: Number
    memory_bottleneck: Number
    excess: Number
    gap: Number
    rounding: Number
    minimiser: Kernel

    @property
    def holds(self) -> bool:
        """Whether the two sides are equal, and the cost not below the memory bottleneck, to rounding."""
        return _within(self.gap, self.rounding) and _below(self.memory_bottleneck, self.cost, self.rounding)


@dataclass(frozen=True)
class MemoryCheck(Generic[Number]):
    """What a memory h of the past saves, in nats.

    Attributes:
        without: I(Out; Past | In), the memory bottleneck without h.
        remaining: I(Out; Past | In, h), the one with it.
        saved: I(Out; h | In), which is the difference.
        budget: I(h; Past | In), the nats that h holds; infinite for a deterministic view of a continuous past.
        gap: without - (remaining + saved).
        rounding: a bound on what rounding alone makes of the gap.
    """

    without: Number
    remaining: Number
    saved: Number
    budget: Number
    gap: Number
    rounding: Number

    @property
    def holds(self) -> bool:
        """Whether the identity, ``remaining`` ≤ ``without`` and ``saved`` ≤ ``budget`` hold to rounding."""
        return (
            _within(self.gap, self.rounding)
            and _below(self.remaining, self.without, self.rounding)
            and _below(self.saved, self.budget, self.rounding)
        )


def minimising_kernel(law: FiniteLaw, input: Axes, output: Axes) -> Array:
    """P(out | in), shape (\\*input sizes, \\*output sizes): the kernel that pays the least.

    It is unique but for inputs of probability 0, where it is uniform here.
    """
    return discrete.conditional_kernel(law, output, input)


def check_lemma(
    law: FiniteLaw | ArrayLike, past: Axes, input: Axes, output: Axes, kernel: ArrayLike | None = None
) -> LemmaCheck[float, Array]:
    """Both sides of the lemma for a finite law and any Markov kernel.

    The cost is one sum over (past, in, out), the memory bottleneck a conditional mutual information and the
    excess a sum over (in, out) alone. Both sides are ``inf`` where the kernel gives 0 to an output that the
    law allows; the lemma then holds. Variables that are not named are summed out.

    Args:
        law: the joint law, or its probabilities, one axis a variable.
        past: the variables of Past (may be none), by name or, of an array, by axis.
        input: the variables of In (may be none).
        output: the variables of Out.
        kernel: Q(out | in), shape (\\*input sizes, \\*output sizes); the minimising one if left out.

    Raises:
        ValueError: for an unknown variable or one named twice, and as :func:`discrete.check_kernel`.

    Example:
        >>> copy = FiniteLaw([[0.5, 0.0], [0.0, 0.5]], ("past", "out"))
        >>> check = check_lemma(copy, "past", (), "out", kernel=[0.25, 0.75])
        >>> round(check.memory_bottleneck, 6), round(check.excess, 6), round(check.cost, 6), check.holds
        (0.693147, 0.143841, 0.836988, True)
    """
    law = law if isinstance(law, FiniteLaw) else FiniteLaw(law)
    joint = discrete.grouped(law, past, input, output)
    minimiser = minimising_kernel(law, input, output)
    given = minimiser if kernel is None else kernel
    rows = discrete.check_kernel(given, law.sizes(input), law.sizes(output)).reshape(joint.shape[1:])
    seen = joint.sum(0)
    cost, cost_error = _cost(joint, rows, joint.size)
    excess, excess_error = _cost(seen[None], rows, joint.size)
    bottleneck, bottleneck_error = discrete.information_of_blocks(joint.transpose(2, 0, 1))
    return LemmaCheck(
        cost=cost,
        memory_bottleneck=bottleneck,
        excess=excess,
        gap=0.0 if cost == excess == np.inf else cost - (bottleneck + excess),
        rounding=cost_error + excess_error + bottleneck_error,
        minimiser=minimiser,
    )


def _cost(joint: Array, rows: Array, summands: int) -> tuple[float, float]:
    """KL(P ‖ P_{past,in} ⊗ Q) of masses over (past, in, out), and its rounding bound."""
    known = joint.sum(2, keepdims=True)
    with np.errstate(divide="ignore"):
        log_q = np.log(known) + np.log(rows)
    return discrete.relative_entropy(joint, known * rows, log_q, summands)


def check_finite_memory(
    law: FiniteLaw, past: Axes, input: Axes, output: Axes, code: ArrayLike
) -> MemoryCheck[float]:
    """What a finite code of the past saves.

    Args:
        law: the joint law; variables that are not named are summed out.
        past: the variables of Past.
        input: the variables of In (may be none).
        output: the variables of Out.
        code: P(h | past), shape (\\*past sizes, codes): a function of the past as rows of one 1, or a noisy
            code, whose noise is independent of everything else.

    Raises:
        ValueError: as :func:`check_lemma`; the code is a Markov kernel from the past.
    """
    codes = np.shape(code)[-1] if np.ndim(code) else 0
    table = discrete.check_kernel(code, law.sizes(past), (codes,))
    joint = discrete.grouped(law, past, input, output)  # (past, in, out)
    full = joint[..., None] * table.reshape(joint.shape[0], 1, 1, codes)
    n_past, n_in, n_out, _ = full.shape
    without = discrete.information_of_blocks(joint.transpose(2, 0, 1))
    remaining = discrete.information_of_blocks(full.transpose(2, 0, 1, 3).reshape(n_out, n_past, n_in * codes))
    saved = discrete.information_of_blocks(full.sum(0).transpose(1, 2, 0))
    budget = discrete.information_of_blocks(full.sum(2).transpose(2, 0, 1))
    return MemoryCheck(
        without=without[0],
        remaining=remaining[0],
        saved=saved[0],
        budget=budget[0],
        gap=without[0] - (remaining[0] + saved[0]),
        rounding=without[1] + remaining[1] + saved[1] + budget[1],
    )


def gaussian_minimising_kernel(covariance: Tensor, mean: Tensor, input: Indices, output: Indices) -> AffineKernel:
    """P(out | in) of a Gaussian law as an affine kernel: the one that pays the least.

    Args:
        covariance: of all variables together, shape (..., n, n).
        mean: shape (..., n).
        input: indices of In (may be none).
        output: indices of Out.

    Raises:
        NotPositiveDefiniteError: if the covariance of In is not positive definite.
    """
    i, o = _index(input, covariance), _index(output, covariance)
    gain, noise = gaussian.condition(covariance, o, i)
    bias = mean[..., o] - (gain @ mean[..., i].unsqueeze(-1)).squeeze(-1)
    return AffineKernel(gain, bias, noise)


def check_gaussian_lemma(
    covariance: Tensor,
    mean: Tensor,
    past: Indices,
    input: Indices,
    output: Indices,
    kernel: AffineKernel | None = None,
) -> LemmaCheck[Tensor, AffineKernel]:
    """Both sides of the lemma for a Gaussian law and an affine Gaussian kernel.

    The cost is the KL divergence of the two full joint laws, built densely; the memory bottleneck comes from
    canonical correlations, and the excess is KL(N(μ, Σ_{o|i}) ‖ N(G μ_i + b, N)) at the mean input plus
    ½ tr N^{-1} (K - G) Σ_i (K - G)^T for its spread, K the regression of Out on In.

    The rounding bound is n² u (κ_R (5 + 6 cost) + κ_P) 4 with κ the condition numbers of the two joint laws,
    scaled to unit variances (Cholesky factors do not see such a scaling): the whitened difference of the two
    covariances X carries an error of order n u κ_R (1 + ‖X‖), where ‖X‖ ≤ 3 + 4 cost, the cost's derivative in
    each of its n eigenvalues is at most ½, and the log-determinants that stand in for small eigenvalues have
    errors of order n u κ.

    Args:
        covariance: of all variables together, shape (..., n, n).
        mean: shape (..., n).
        past: indices of Past (may be none).
        input: indices of In (may be none).
        output: indices of Out.
        kernel: Q(out | in); the minimising one if left out.

    Raises:
        ValueError: for indices that are out of range or stand twice, and for a kernel of wrong shapes.
        NotPositiveDefiniteError: if the law or the kernel's noise is degenerate. (A kernel without noise costs
            infinitely much.)
    """
    p, i, o = index_blocks(covariance, past, input, output)
    n_p, n_i, n_o = len(p), len(i), len(o)
    minimiser = gaussian_minimising_kernel(covariance, mean, i, o)
    q = minimiser if kernel is None else kernel
    if q.gain.shape[-2:] != (n_o, n_i) or q.bias.shape[-1:] != (n_o,) or q.noise.shape[-2:] != (n_o, n_o):
        raise ValueError(
            f"a kernel from {n_i} to {n_o} variables needs a gain of shape (..., {n_o}, {n_i}), a bias "
            f"(..., {n_o}) and a noise (..., {n_o}, {n_o}), got {tuple(q.gain.shape)}, {tuple(q.bias.shape)} and "
            f"{tuple(q.noise.shape)}"
        )
    gaussian.cholesky(q.noise, "noise covariance of the kernel")

    known = torch.cat([p, i])
    everything = torch.cat([known, o])
    cov_p = covariance[..., everything[:, None], everything]
    mean_p = mean[..., everything]
    cross = q.gain @ covariance[..., i[:, None], known]
    spread = q.gain @ covariance[..., i[:, None], i] @ q.gain.mT + q.noise
    top = torch.cat([covariance[..., known[:, None], known].expand(*cross.shape[:-2], -1, -1), cross.mT], -1)
    cov_q = torch.cat([top, torch.cat([cross, spread], -1)], -2)
    mean_q_out = (q.gain @ mean[..., i].unsqueeze(-1)).squeeze(-1) + q.bias
    mean_q = torch.cat([mean[..., known].expand(*mean_q_out.shape[:-1], -1), mean_q_out], -1)
    cost = gaussian.kl_divergence(mean_p, cov_p, mean_q, cov_q)

    bottleneck = gaussian.conditional_mutual_information(covariance, o, p, i)
    at_mean = gaussian.kl_divergence(mean[..., o], minimiser.noise, mean_q_out, q.noise)
    off = gaussian.whiten(gaussian.cholesky(q.noise), minimiser.gain - q.gain)
    excess = at_mean + 0.5 * ((off @ covariance[..., i[:, None], i]) * off).sum((-2, -1))

    n = n_p + n_i + n_o
    scale = 4 * n**2 * torch.finfo(covariance.dtype).eps / 2
    size = _condition_number(cov_q) * (5 + 6 * cost.detach()) + _condition_number(cov_p)
    return LemmaCheck(
        cost=cost,
        memory_bottleneck=bottleneck,
        excess=excess,
        gap=cost - (bottleneck + excess),
        rounding=scale * size,
        minimiser=minimiser,
    )


def check_gaussian_memory(
    covariance: Tensor,
    past: Indices,
    input: Indices,
    output: Indices,
    view: Tensor,
    noise: Tensor | None = None,
) -> MemoryCheck[Tensor]:
    """What the linear memory h = A Past + N(0, N) saves.

    Args:
        covariance: of all variables together, shape (..., n, n).
        past: indices of Past.
        input: indices of In (may be none).
        output: indices of Out.
        view: A, shape (..., m, n_past).
        noise: N, shape (..., m, m), independent of everything else. None: no noise, a deterministic view
            (references that keep some frames, a compressed history), whose budget is infinite.

    Raises:
        ValueError: for indices as :func:`check_gaussian_lemma`, a view of wrong shape, or a view without noise
            whose rows are linearly dependent.
        NotPositiveDefiniteError: if the law or the noise is degenerate.
    """
    p, i, o = index_blocks(covariance, past, input, output)
    n_p, n_i, n_o = len(p), len(i), len(o)
    if view.ndim < 2 or view.shape[-1] != n_p:
        raise ValueError(f"the view must have shape (..., m, {n_p}), got {tuple(view.shape)}")
    m = view.shape[-2]
    if noise is None:
        rows = _orthonormal_rows(view)
        spread = rows.new_zeros(n_p, n_p)
    else:
        gaussian.cholesky(noise, "noise covariance of the memory")
        rows, spread = view, noise
    # Without noise, (h, the complement of h in Past) are orthonormal combinations of Past and replace it.
    everything = torch.cat([p, i, o])
    base = covariance[..., everything[:, None], everything]
    cross = rows @ base[..., :n_p, :]
    own = rows @ base[..., :n_p, :n_p] @ rows.mT + spread
    top = torch.cat([base.expand(*cross.shape[:-2], -1, -1), cross.mT], -1)
    joint = torch.cat([top, torch.cat([cross, own], -1)], -2)
    names = torch.arange(joint.shape[-1], device=covariance.device)
    ip, ii, io, ih = torch.tensor_split(names, (n_p, n_p + n_i, n_p + n_i + n_o))
    information = gaussian.conditional_mutual_information
    without = information(joint, io, ip, ii)
    if noise is None:
        memory, rest = ih[:m], ih[m:]
        used = torch.cat([ii, io, ih])
        budget = torch.full_like(without, torch.inf)
    else:
        memory, rest = ih, ip
        used = names
        budget = information(joint, ih, ip, ii)
    remaining = information(joint, io, rest, torch.cat([ii, memory]))
    saved = information(joint, io, memory, ii)
    scale = 4 * len(used) ** 2 * torch.finfo(covariance.dtype).eps / 2
    return MemoryCheck(
        without=without,
        remaining=remaining,
        saved=saved,
        budget=budget,
        gap=without - (remaining + saved),
        rounding=scale * _condition_number(joint[..., used[:, None], used]),
    )


def _index(values: Indices, like: Tensor) -> Tensor:
    return torch.as_tensor(values, dtype=torch.long, device=like.device).reshape(-1)


def index_blocks(covariance: Tensor, *groups: Indices) -> tuple[Tensor, ...]:
    """Index tensors of disjoint groups of variables (past, input, output); others raise ValueError."""
    blocks = tuple(_index(group, covariance) for group in groups)
    every = torch.cat(blocks).tolist()
    n = covariance.shape[-1]
    if any(not 0 <= k < n for k in every) or len(set(every)) != len(every):
        raise ValueError(
            f"past, input and output need different indices in 0..{n - 1}, got "
            f"{', '.join(str(block.tolist()) for block in blocks)}"
        )
    return blocks


def _orthonormal_rows(view: Tensor) -> Tensor:
    """An orthonormal basis of R^n whose first m rows span those of a view of full rank, shape (..., n, n)."""
    m, n = view.shape[-2:]
    _, values, basis = torch.linalg.svd(view, full_matrices=True)
    least = torch.finfo(view.dtype).eps * n * values[..., :1]
    if m > n or not bool((values > least).all()):
        raise ValueError(
            f"a view without noise needs linearly independent rows, at most {n}; it has {m} of rank "
            f"{int((values > least).sum(-1).min())}"
        )
    result: Tensor = basis
    return result


def _condition_number(covariance: Tensor) -> Tensor:
    """Of the covariance scaled to unit variances, shape (...)."""
    values = covariance.detach()
    scale = torch.rsqrt(torch.diagonal(values, dim1=-2, dim2=-1))
    spectrum = torch.linalg.eigvalsh(scale[..., :, None] * values * scale[..., None, :])
    # An eigenvalue below the unit roundoff has no digits: the bound is then useless and says so.
    result: Tensor = spectrum[..., -1] / spectrum[..., 0].clamp(min=torch.finfo(values.dtype).eps / 2)
    return result


def _within(gap: float | Tensor, rounding: float | Tensor) -> bool:
    # Without the type, Python's floats would be compared in float32.
    return bool((_float64(gap).abs() <= _float64(rounding)).all())


def _below(small: float | Tensor, large: float | Tensor, rounding: float | Tensor) -> bool:
    return bool((_float64(small) <= _float64(large) + _float64(rounding)).all())


def _float64(value: float | Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64)
