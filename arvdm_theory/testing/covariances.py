"""Hypothesis strategies of rotations and covariances with a condition number under control."""

from __future__ import annotations

import math

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

__all__ = ["covariances", "rotations"]


@st.composite
def rotations(draw: st.DrawFn, dim: int) -> Tensor:
    """Orthogonal matrices of R^dim, shape (dim, dim): the identity, or a Haar-distributed one.

    The Q of a Gaussian matrix's QR factorisation is Haar-distributed only once the signs of R's diagonal are
    moved into it (Mezzadri 2007, "How to generate random matrices from the classical compact groups"). They
    shrink to the identity.
    """
    seed = draw(st.integers(0, 2**32 - 1), label="rotation")
    if seed == 0:
        return torch.eye(dim, dtype=torch.float64)
    q, r = np.linalg.qr(np.random.default_rng(seed).standard_normal((dim, dim)))
    return torch.from_numpy(q * np.sign(np.diagonal(r)))


@st.composite
def covariances(
    draw: st.DrawFn,
    dim: int | st.SearchStrategy[int] | None = None,
    max_condition: float = 1e10,
    min_condition: float = 1.0,
    max_scale: float = 1e3,
) -> Tensor:
    """Positive definite matrices Σ = U diag(λ) U^T, float64, shape (n, n).

    - The condition number λ_max/λ_min is drawn log-uniformly from ``min_condition`` to ``max_condition``, both
      ends among them, and attained (1 for n = 1). The other eigenvalues lie anywhere between the two ends,
      ties with them among them.
    - U is a rotation: the identity, or Haar-distributed.
    - λ_max is drawn log-uniformly from 1/``max_scale`` to ``max_scale``.

    Args:
        draw: given by Hypothesis.
        dim: n, or a strategy of it; 1 to 5 if left out.
        max_condition: at most 1e12, beyond which rounding makes matrices that are not positive definite.
        min_condition: at least 1.
        max_scale: at least 1.

    They shrink to the identity.
    """
    if not 1 <= min_condition <= max_condition <= 1e12:
        raise ValueError(
            f"condition numbers must satisfy 1 ≤ min ≤ max ≤ 1e12, got {min_condition} and {max_condition}"
        )
    dims = st.just(dim) if isinstance(dim, int) else st.integers(1, 5) if dim is None else dim
    n = draw(dims, label="dimension")
    low, high = math.log10(min_condition), math.log10(max_condition)
    digits = draw(st.floats(low, high), label="log10 of the condition number")
    inner = draw(st.lists(st.floats(0, 1), min_size=max(n - 2, 0), max_size=max(n - 2, 0)), label="spectrum")
    depth = torch.tensor([0.0, *inner, 1.0][:n], dtype=torch.float64)
    reach = math.log10(max_scale)
    size = draw(st.floats(-reach, reach).map(lambda e: 10.0**e) if reach > 0 else st.just(1.0), label="scale")
    rotation = draw(rotations(n))
    matrix = (rotation * (size * 10.0 ** (-digits * depth))) @ rotation.mT
    result: Tensor = (matrix + matrix.mT) / 2
    return result
