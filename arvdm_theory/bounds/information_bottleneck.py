"""The frontier "memory bottleneck against memory budget" of a Gaussian law, in closed form.

It is the Gaussian information bottleneck of (Past, Out) given In: the least memory bottleneck that any memory
of R nats about the past leaves, and the memory that attains it.

Source: Chechik, Globerson, Tishby and Weiss 2005, "Information bottleneck for Gaussian variables", JMLR 6
(the optimal projection and the information curve), solved here for the water level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from arvdm_theory.bounds.impossibility import Indices, index_blocks
from arvdm_theory.information import gaussian

__all__ = ["MemoryFrontier", "gaussian_memory_frontier"]

Budget = float | Sequence[float] | Tensor


@dataclass(frozen=True)
class MemoryFrontier:
    """The least memory bottleneck that a memory of R nats leaves, for a Gaussian law.

    Given In, Past and Out have canonical correlations ρ_1 ≥ ρ_2 ≥ ..., with log-odds L_i = log(ρ_i²/(1-ρ_i²)).
    The best memory keeps r_i = ½ max(0, L_i - ℓ) nats of canonical variable i of the past, with the water
    level ℓ at which Σ r_i = R, and leaves

        min I(Out; Past | In, h) = ½ Σ_i log(1 + exp(min(L_i, ℓ))).

    Derivation: r nats kept of variable i leave ½ log(1 + exp(L_i - 2r)), convex in r, so the best split has
    equal slopes, that is equal L_i - 2 r_i wherever r_i > 0. With n variables kept, ℓ is linear in R, and
    variable n + 1 joins at R = ½ Σ_{i≤n} (L_i - L_{n+1}); so the curve is closed-form for every R. Its slope is
    -1/(1 + e^{-ℓ}), the -1/β of Chechik et al.

    No memory does better, linear or not: Gaussian memories are optimal for Gaussian laws (Globerson and Tishby
    2004), and the curve is convex in R, so a memory that also sees In gains nothing by spending its nats
    unevenly. For a memory that is updated recurrently the curve is only a lower bound.

    Attributes:
        log_odds: L, falling, shape (..., c) with c = min(n_past, n_out); -inf for ρ = 0.
        directions: rows w_i, shape (..., c, n_past): the canonical variables w_i Past, of unit variance given
            In and uncorrelated.
    """

    log_odds: Tensor
    directions: Tensor

    def remaining(self, budget: Budget) -> Tensor:
        """The least I(Out; Past | In, h) over memories h with I(h; Past | In) ≤ R, in nats.

        Args:
            budget: R in nats, a single number or a row of k.

        Returns:
            shape (...) for a single number, (..., k) for a row.

        Raises:
            ValueError: for a budget that is negative or not finite.
        """
        level = self._water_level(budget)
        value = 0.5 * torch.log1p(torch.exp(torch.minimum(self.log_odds.unsqueeze(-2), level))).sum(-1)
        return value if _is_row(budget) else value.squeeze(-1)

    def nats(self, budget: Budget) -> Tensor:
        """r_i, the nats that the best memory keeps of each canonical variable.

        Arguments and errors as :meth:`remaining`.

        Returns:
            shape (..., c) for a single number, (..., k, c) for a row. Σ_i r_i = R unless all of Past is
            independent of Out given In, where the best memory is none.
        """
        odds = self.log_odds.unsqueeze(-2)
        # The inner `where` keeps -inf - (-inf) out of the gradient.
        above = torch.where(odds.isneginf(), self._water_level(budget), odds) - self._water_level(budget)
        kept = 0.5 * torch.relu(torch.where(odds.isneginf(), torch.zeros_like(above), above))
        return kept if _is_row(budget) else kept.squeeze(-2)

    def memory(self, budget: float) -> Tensor:
        """A of the best memory h = A Past + N(0, I) with I(h; Past | In) = R, shape (..., c, n_past).

        Row i is (e^{2 r_i} - 1)^{1/2} w_i; a variable that is not kept has a row of zeros, noise alone.
        """
        return torch.sqrt(torch.expm1(2 * self.nats(budget))).unsqueeze(-1) * self.directions

    def _water_level(self, budget: Budget) -> Tensor:
        """ℓ, shape (..., k, 1)."""
        odds = self.log_odds
        nats = torch.as_tensor(budget, dtype=odds.dtype, device=odds.device)
        if nats.ndim > 1 or not bool(((nats >= 0) & torch.isfinite(nats)).all()):
            raise ValueError(f"memory budgets must be finite numbers ≥ 0 (nats), one or a row; got {budget}")
        # Variable n + 1 joins at ½ Σ_{i≤n} i (L_i - L_{i+1}), a sum of terms ≥ 0; never if it is worthless.
        drop = torch.where(odds[..., 1:].isneginf(), torch.inf, odds[..., :-1] - odds[..., 1:])
        count = torch.arange(1, odds.shape[-1], dtype=odds.dtype, device=odds.device)
        joins = torch.cat([torch.zeros_like(odds[..., :1]), 0.5 * (count * drop).cumsum(-1)], -1)
        row = nats.reshape(-1, 1)
        kept = (joins.unsqueeze(-2) <= row).sum(-1)
        last, since = odds.gather(-1, kept - 1), joins.gather(-1, kept - 1)
        return (last - 2 * (row.squeeze(-1) - since) / kept).unsqueeze(-1)


def gaussian_memory_frontier(covariance: Tensor, past: Indices, input: Indices, output: Indices) -> MemoryFrontier:
    """The frontier of a Gaussian law; see :class:`MemoryFrontier`.

    Args:
        covariance: of all variables together, shape (..., n, n).
        past: indices of Past.
        input: indices of In (may be none).
        output: indices of Out.

    Raises:
        ValueError: for an empty past or output, indices out of range or standing twice, and where the
            information is infinite.
        NotPositiveDefiniteError: if a covariance is not positive definite.

    Example:
        >>> covariance = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)
        >>> frontier = gaussian_memory_frontier(covariance, past=[0], input=[], output=[1])
        >>> [round(value, 4) for value in frontier.remaining([0.0, 0.5, 2.0]).tolist()]
        [0.5108, 0.2516, 0.016]
    """
    p, i, o = index_blocks(covariance, past, input, output)
    if len(p) == 0 or len(o) == 0:
        raise ValueError("the frontier needs at least one variable of the past and one of the output")
    _, residual = gaussian.condition(covariance, torch.cat([p, o]), i)
    n_p = len(p)
    factor, signal = gaussian.whitened_signal(
        residual[..., :n_p, :n_p], residual[..., :n_p, n_p:], residual[..., n_p:, n_p:]
    )
    left, strength, _ = torch.linalg.svd(signal, full_matrices=False)
    # The rows of U^T L^{-1} whiten Σ_{p|i,o}; Σ_{p|i} is diag(1 + s²) in them.
    rows = torch.linalg.solve_triangular(factor.mT, left, upper=True).mT
    return MemoryFrontier(2 * torch.log(strength), rows / torch.sqrt(1 + strength**2).unsqueeze(-1))


def _is_row(budget: Budget) -> bool:
    return torch.as_tensor(budget).ndim > 0
