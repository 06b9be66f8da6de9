"""KL from a law with known moments to samples of another, given an input that both share.

P is the Gaussian law X ~ N(m, C), Y | X ~ N(a + A X, Σ) of a known joint mean and covariance; Q has the same X,
and its Y | X is known from n samples. Least squares of Y on (1, X) gives a slope B̂ of the p + 1 regressors and
the residual covariance S with ν = n - p - 1 degrees of freedom. With D = (a, A) - B̂, M = E_P[(1, X)(1, X)ᵀ], G
= Σ (1, x_i)(1, x_i)ᵀ over the samples and c = (ν - q - 1)/ν,

    ½ [c tr(S^{-1} Σ) + c tr(S^{-1} D M Dᵀ) - q tr(G^{-1} M) - q + log det S - log det Σ - bias]

has the mean E_X KL(P(Y | X) ‖ Q(Y | X)) if Q(Y | X) is Gaussian with an affine mean and a constant covariance:
E[c S^{-1}] = Ω^{-1}, B̂ is independent of S and adds q tr(G^{-1} M) to the square, and the bias of log det S is
known (:func:`arvdm_theory.information.estimators.plugin.log_det_bias`). Without X (p = 0) it is
:func:`arvdm_theory.rollout.measure.divergence_from_known`. If Q is another law it tends to the divergence to the
Gaussian with its moments: it is *moment-matched*, and may lie on either side of the divergence to Q itself.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from arvdm_theory.information.estimators.plugin import log_det_bias
from arvdm_theory.information.estimators.samples import SampleError
from arvdm_theory.information.estimators.uncertainty import near_zero
from arvdm_theory.number import LEVEL, Number, half_width

__all__ = ["conditional_divergence_from_known"]

Array = NDArray[np.float64]


def conditional_divergence_from_known(mean: Array, covariance: Array, given: Array, made: Array) -> Number:
    """E_X KL(P(Y | X) ‖ Q(Y | X)), P with known Gaussian moments and Q from samples; see the module.

    The standard error is that of the mean of the influence function; near Q = P, where that vanishes, the variance
    is q (q + 2 p + 3)/(4n²), and error and upper end are those of
    :func:`arvdm_theory.information.estimators.uncertainty.near_zero`.

    Args:
        mean: of P's (X, Y), (p + q,).
        covariance: (p + q, p + q).
        given: samples of X, (n, p); p may be 0.
        made: Q's Y for each of them, (n, q).

    Raises:
        SampleError: for shapes that do not fit, too few samples, P that is not positive definite, or columns that
            are linear functions of others.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=(4000, 1))
        >>> y = 0.5 * x + rng.normal(size=(4000, 1))
        >>> law = np.array([[1.0, 0.8], [0.8, 1.64]])  # Y = 0.8 X + noise: ½ 0.3² = 0.045
        >>> found = conditional_divergence_from_known(np.zeros(2), law, x, y)
        >>> found.ci_low < 0.045 < found.ci_high
        True
    """
    (n, p), q = given.shape, made.shape[1]
    if len(made) != n or mean.shape != (p + q,) or covariance.shape != (p + q, p + q):
        raise SampleError(
            f"P has {mean.shape[-1]} entries, its input {p} of {n} samples and Q's output {q} of {len(made)}"
        )
    freedom = n - p - 1
    if freedom <= q + 1:
        raise SampleError(f"{q} outputs given {p} inputs need at least {p + q + 3} samples, got {n}")
    try:
        factor = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        raise SampleError("the moments of P are not positive definite") from None
    # In whitened coordinates of P's own, u = L^{-1} (x - m): X has the identity for its covariance and Y | X has
    # the last rows of L, so that neither G nor S is worse conditioned than Q makes it.
    white = solve_triangular(factor, (np.hstack([given, made]) - mean).T, lower=True).T
    design = np.hstack([np.ones((n, 1)), white[:, :p]])
    gram = design.T @ design
    slope = np.linalg.solve(gram, design.T @ white[:, p:])
    residual = white[:, p:] - design @ slope
    spread = residual.T @ residual / freedom
    try:
        root = np.linalg.cholesky(spread)
    except np.linalg.LinAlgError:
        raise SampleError("some outputs are linear functions of others and of the input") from None
    # There P is standard normal: D = -slope, M = I and Σ = I.
    shift = solve_triangular(root, slope.T, lower=True)
    inverse = solve_triangular(root, np.eye(q), lower=True)
    shrink = (freedom - q - 1) / freedom
    log_det = 2 * float(np.log(np.diag(root)).sum())
    trace = shrink * float((inverse**2).sum() + (shift**2).sum()) - q * float(np.trace(np.linalg.inv(gram)))
    value = (trace - q + log_det - log_det_bias(q, freedom)) / 2
    # Influence of one more sample of Q, through S and through the slope.
    half = solve_triangular(root, residual.T, lower=True).T
    own = inverse @ inverse.T + shift @ shift.T
    influence = ((half**2).sum(1) - ((half @ own) * half).sum(1)) / 2
    influence += ((half @ shift) * (n * np.linalg.solve(gram, design.T).T)).sum(1)
    stderr, above = near_zero(
        value, float(influence.std(ddof=p + 1)) / math.sqrt(n), [influence], q * (q + 2 * p + 3) / 2, LEVEL
    )
    width = half_width(stderr)
    return Number.stated(value, stderr, value - width, max(value + width, above), method="moment-matched", n=n)
