"""Entropy, KL divergence, mutual and conditional mutual information of Gaussians, in nats.

All functions take float64 covariances with any leading batch axes and are differentiable. Nothing is clamped
and nothing is regularised: a covariance that is not positive definite raises
:class:`NotPositiveDefiniteError`, which names its smallest eigenvalue.

Accuracy, with u = 2^-53 and κ the condition number of the covariances involved (scaled to unit diagonal):

- A mutual information I = ½ Σ log(1 + s²), s² = ρ²/(1 - ρ²) for canonical correlations ρ, comes from the
  whitened cross-covariance itself. Its relative error is of order κu however small I is, where a difference
  of log-determinants has no digits left below 1e-12. For ρ → 1 its absolute error is of order κu.
- A *conditional* mutual information first subtracts what the condition explains, which leaves an error of
  order κu in the cross-covariance and so a relative error of about κu/√I: eight digits at I = 1e-16 for
  κ ≈ 1, and none once I is near (κu)², where the result is rounding noise.
- A KL divergence of nearly equal Gaussians has a relative error of order κu, however small it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = [
    "NotPositiveDefiniteError",
    "canonical_correlations",
    "cholesky",
    "condition",
    "conditional_mutual_information",
    "entropy",
    "kl_divergence",
    "log_det",
    "mutual_information",
    "wasserstein2",
    "whiten",
    "whitened_signal",
    "x_minus_log1p",
]

# From here on x - log1p(x) loses at most a factor 4 of accuracy by cancellation; below it the series is used.
_SERIES_RADIUS = 0.25


class NotPositiveDefiniteError(ValueError):
    """A covariance is not positive definite; the message names it and its smallest eigenvalue."""


def cholesky(covariance: Tensor, what: str = "covariance") -> Tensor:
    """Lower Cholesky factor of a covariance, shape (..., n, n).

    Raises:
        NotPositiveDefiniteError: naming ``what`` and the smallest eigenvalue.
    """
    factor: Tensor
    factor, info = torch.linalg.cholesky_ex(covariance)
    # The factorisation reads the lower triangle only and may pass a NaN on without complaint.
    if bool((info != 0).any()) or not bool(torch.isfinite(covariance).all()):
        values = covariance.detach()
        if not bool(torch.isfinite(values).all()):
            raise NotPositiveDefiniteError(f"the {what} has entries that are not finite")
        smallest = float(torch.linalg.eigvalsh(values).min())
        raise NotPositiveDefiniteError(
            f"the {what} ({values.shape[-1]} x {values.shape[-1]}) is not positive definite: its smallest "
            f"eigenvalue is {smallest:.3e}"
        )
    return factor


def log_det(factor: Tensor) -> Tensor:
    """Log-determinant of the covariance whose Cholesky factor is given."""
    return 2 * torch.log(torch.diagonal(factor, dim1=-2, dim2=-1)).sum(-1)


def whiten(factor: Tensor, matrix: Tensor) -> Tensor:
    """L^{-1} A for a Cholesky factor L and a matrix A of shape (..., n, k)."""
    result: Tensor = torch.linalg.solve_triangular(factor, matrix, upper=False)
    return result


def x_minus_log1p(x: Tensor) -> Tensor:
    """x - log(1 + x) for x > -1, without cancellation: ½x² at first, the stuff of KL divergences.

    For |x| ≤ ¼, with r = x/(2 + x) and log(1 + x) = 2 artanh(r), the value is
    r (x - 2r² (1/3 + r²/5 + r⁴/7 + ...)); nine terms leave less than 1e-17 of it.
    """
    small = x.abs() <= _SERIES_RADIUS
    near = torch.where(small, x, torch.zeros_like(x))
    r = near / (2 + near)
    square = r * r
    series = torch.zeros_like(x)
    for k in range(9, -1, -1):
        series = series * square + 1 / (2 * k + 3)
    far = torch.where(small, torch.ones_like(x), x)
    return torch.where(small, r * (near - 2 * square * series), far - torch.log1p(far))


def entropy(covariance: Tensor) -> Tensor:
    """Differential entropy ½ log det(2πe Σ), in nats."""
    n = covariance.shape[-1]
    return 0.5 * (n * math.log(2 * math.pi * math.e) + log_det(cholesky(covariance)))


def kl_divergence(mean_p: Tensor, cov_p: Tensor, mean_q: Tensor, cov_q: Tensor) -> Tensor:
    """KL(N(mean_p, cov_p) ‖ N(mean_q, cov_q)), in nats.

    With L L^T = Σ_q and x the eigenvalues of L^{-1} (Σ_p - Σ_q) L^{-T}, the value is
    ½ Σ (x - log(1 + x)) + ½ ‖L^{-1}(μ_p - μ_q)‖²: relatively accurate also for nearly equal Gaussians, where
    trace - n - log det cancels. Where some 1 + x is below ½ the log-determinants take over, which are the
    better conditioned of the two there.

    Args:
        mean_p: shape (..., n).
        cov_p: shape (..., n, n).
        mean_q: shape (..., n).
        cov_q: shape (..., n, n).

    Returns:
        shape (...), ≥ 0 up to rounding.

    Raises:
        NotPositiveDefiniteError: if a covariance is not positive definite.
    """
    factor_q = cholesky(cov_q, "covariance of Q")
    if not bool(torch.isfinite(cov_p).all()):
        raise NotPositiveDefiniteError("the covariance of P has entries that are not finite")
    half = whiten(factor_q, cov_p - cov_q)
    excess = whiten(factor_q, half.mT)
    shift = whiten(factor_q, (mean_p - mean_q).unsqueeze(-1)).squeeze(-1)
    x = torch.linalg.eigvalsh((excess + excess.mT) / 2)
    far = (x < -0.5).any(-1)
    near_value = x_minus_log1p(x.clamp(min=-0.75)).sum(-1)  # the clamp only touches entries `far` replaces
    if bool(far.any()):
        factor_p = cholesky(cov_p, "covariance of P")
        far_value = x.sum(-1) - log_det(factor_p) + log_det(factor_q)
        near_value = torch.where(far, far_value, near_value)
    return 0.5 * (near_value + (shift**2).sum(-1))


def wasserstein2(mean_p: Tensor, cov_p: Tensor, mean_q: Tensor, cov_q: Tensor) -> Tensor:
    """W_2² of two Gaussians, ‖μ_p - μ_q‖² + tr(Σ_p + Σ_q - 2 (Σ_p^{1/2} Σ_q Σ_p^{1/2})^{1/2}), shape (...).

    With Σ_p = L Lᵀ the last trace is that of the roots of the eigenvalues of Lᵀ Σ_q L. Source: Dowson and Landau
    1982.

    Args:
        mean_p: shape (..., n).
        cov_p: shape (..., n, n).
        mean_q: shape (..., n).
        cov_q: shape (..., n, n), may be singular.

    Raises:
        NotPositiveDefiniteError: if Σ_p is not positive definite.
    """
    factor = cholesky(cov_p, "covariance of P")
    product = factor.mT @ cov_q @ factor
    roots = torch.linalg.eigvalsh((product + product.mT) / 2).clamp(min=0).sqrt().sum(-1)
    traces = torch.diagonal(cov_p + cov_q, dim1=-2, dim2=-1).sum(-1)
    # Of two nearly equal Gaussians the traces leave rounding, of either sign, of what cancels.
    squared: Tensor = ((mean_p - mean_q) ** 2).sum(-1) + (traces - 2 * roots).clamp(min=0)
    return squared


def condition(
    covariance: Tensor, target: Sequence[int] | Tensor, given: Sequence[int] | Tensor
) -> tuple[Tensor, Tensor]:
    """Regression and Schur complement: (K, Σ_{t|g}) with E[t | g] = m_t + K (g - m_g).

    K = Σ_tg Σ_gg^{-1} has shape (..., n_t, n_g), and Σ_{t|g} = Σ_tt - K Σ_gt shape (..., n_t, n_t). An empty
    condition gives an empty K and Σ_tt.

    Raises:
        NotPositiveDefiniteError: if Σ_gg is not positive definite.
    """
    t = torch.as_tensor(target, dtype=torch.long, device=covariance.device)
    g = torch.as_tensor(given, dtype=torch.long, device=covariance.device)
    cov_tt = covariance[..., t[:, None], t]
    if len(g) == 0:
        return covariance.new_zeros((*covariance.shape[:-2], len(t), 0)), cov_tt
    cov_gt = covariance[..., g[:, None], t]
    factor = cholesky(covariance[..., g[:, None], g], "covariance of the condition")
    half = whiten(factor, cov_gt)
    gain = torch.linalg.solve_triangular(factor.mT, half, upper=True).mT
    return gain, cov_tt - half.mT @ half


def canonical_correlations(cov_x: Tensor, cov_xz: Tensor, cov_z: Tensor) -> Tensor:
    """Singular values of Σ_x^{-1/2} Σ_xz Σ_z^{-1/2}, in falling order."""
    left = whiten(cholesky(cov_x, "covariance of X"), cov_xz)
    right = whiten(cholesky(cov_z, "covariance of Z"), left.mT)
    result: Tensor = torch.linalg.svdvals(right)
    return result


def whitened_signal(cov_x: Tensor, cov_xz: Tensor, cov_z: Tensor) -> tuple[Tensor, Tensor]:
    """What Z says about X, in units of what it leaves open: (L, A) with A = L^{-1} Σ_xz L_z^{-T}.

    L is the Cholesky factor of Σ_{x|z} = Σ_x - Σ_xz Σ_z^{-1} Σ_zx, and L_z that of Σ_z. The squared singular
    values of A are s² = ρ²/(1 - ρ²) for the canonical correlations ρ of X and Z, and
    I(X; Z) = ½ log det(I + A A^T). Nothing cancels for small ρ, and near ρ = 1 the only loss is that of the
    Schur complement, which a log-determinant of the joint covariance has as well.

    Raises:
        ValueError: if a canonical correlation reaches 1 to rounding (infinite information).
        NotPositiveDefiniteError: if Σ_x or Σ_z is not positive definite.
    """
    half = whiten(cholesky(cov_z, "covariance of Z"), cov_xz.mT)
    factor, info = torch.linalg.cholesky_ex(cov_x - half.mT @ half)
    signal = whiten(factor, half.mT)
    # 1 - ρ² is a difference of numbers of size 1 after about n roundings each way: below 4nu it is noise.
    noise = 4 * (cov_x.shape[-1] + cov_z.shape[-1]) * torch.finfo(cov_x.dtype).eps / 2
    if bool((info != 0).any()) or not bool(((signal.detach() ** 2).sum((-2, -1)) < 1 / noise).all()):
        cholesky(cov_x, "covariance of X")
        raise ValueError(
            "a canonical correlation reaches 1 (to rounding): one side is a deterministic function of the "
            "other and the mutual information is infinite"
        )
    return factor, signal


def _information(cov_x: Tensor, cov_xz: Tensor, cov_z: Tensor) -> Tensor:
    _, signal = whitened_signal(cov_x, cov_xz, cov_z)
    return 0.5 * torch.log1p(torch.linalg.svdvals(signal) ** 2).sum(-1)


def mutual_information(covariance: Tensor, x: Sequence[int] | Tensor, z: Sequence[int] | Tensor) -> Tensor:
    """I(X; Z) = -½ Σ log(1 - ρ²) over the canonical correlations ρ, in nats, ≥ 0.

    Computed as ½ Σ log(1 + s²), s² = ρ²/(1 - ρ²) (see :func:`whitened_signal`), which is accurate for weak
    and for strong correlations alike.

    Args:
        covariance: of all variables together, shape (..., n, n).
        x: indices of X.
        z: indices of Z.

    Raises:
        ValueError: if a canonical correlation reaches 1 (infinite information).
        NotPositiveDefiniteError: if a covariance is not positive definite.
    """
    return conditional_mutual_information(covariance, x, z, ())


def conditional_mutual_information(
    covariance: Tensor, x: Sequence[int] | Tensor, z: Sequence[int] | Tensor, given: Sequence[int] | Tensor
) -> Tensor:
    """I(X; Z | Y), in nats: the mutual information under the Schur complement of Y = ``given``.

    Arguments and errors as :func:`mutual_information`. An empty X or Z gives 0. The condition must share no
    index with X or Z: what is known has no covariance left, which is refused as not positive definite.

    Example:
        >>> covariance = torch.tensor([[1.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
        >>> round(float(conditional_mutual_information(covariance, [0], [1], [])), 6)
        0.143841
    """
    n_x, n_z = len(x), len(z)
    if n_x == 0 or n_z == 0:
        return covariance.new_zeros(covariance.shape[:-2])
    both = torch.cat([torch.as_tensor(x, dtype=torch.long), torch.as_tensor(z, dtype=torch.long)])
    _, residual = condition(covariance, both, given)
    return _information(residual[..., :n_x, :n_x], residual[..., :n_x, n_x:], residual[..., n_x:, n_x:])
