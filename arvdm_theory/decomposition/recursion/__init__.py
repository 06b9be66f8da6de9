"""The ledger of a linear state space in linear time, and its rates at the infinite horizon.

Where references reach back a bounded number of frames (the last m) or never move (the first f), nothing needs the
joint covariance of all frames. From the AR step on at which the references are filled,

- the law of a stage is that of *local* frames: the first f, the m before the window, and the window. It is the
  same at every step of a stationary video without first references, and converges like A^k for others with a
  stable A;
- MB_k = I(Out; in reach | In) + I(Out; older | In, in reach). Older frames speak of the local ones only through
  the state z at the edge of the reach. All laws given the first frames as they are shown, let X be the output, Y
  the input and the frames in reach, H the map of z on them, S = Cov(z), P = Cov(z | older) of the Kalman filter,
  Σ = S - P, K the regression of X on Y, M = H_Yᵀ Cov(Y)^{-1} H_Y and T = H_X - K H_Y. The posterior mean of z
  given older has covariance Σ, and Cov(X, it | Y) = T Σ, Cov(it | Y) = Σ (I - M Σ), so that

      I(X; older | Y) = -½ log det(I - Tᵀ Cov(X | Y)^{-1} T (I - Σ M)^{-1} Σ);

- what the sampler hands on, (first frames, the m last ones, noisy window), is Gaussian and moves by an affine map;
- KL(clean) grows by E KL(P(x_k | x_<k) ‖ Q(x_k | x_<k)) in AR step k: the sampler is a hidden Markov model whose
  state is what it hands on, so Q(x_k | x_<k) comes from its Kalman filter, run on data from P. Second moments of
  (video state, frames in reach, filter mean) under P move by an affine map.

Every one of these maps forgets geometrically where it contracts; from there on a further AR step costs nothing. A
state on the unit circle without process noise, seen in noise, is learnt like 1/k: it never converges, and costs a
power of two of AR steps a doubling (:class:`arvdm_theory.laws.state_space.Riccati`).

Sources: arXiv 2503.10704, Theorems 1 and 2; Anderson and Moore 1979, Optimal Filtering, chapters 3, 4 and 6.
"""

from arvdm_theory.decomposition.recursion.limit import Rates, rates
from arvdm_theory.decomposition.recursion.shared_steps import RecursiveTerms, SharedSteps
from arvdm_theory.decomposition.recursion.stages import recursive_form
from arvdm_theory.decomposition.recursion.terms import long_terms, recursive_terms

__all__ = [
    "Rates",
    "RecursiveTerms",
    "SharedSteps",
    "long_terms",
    "rates",
    "recursive_form",
    "recursive_terms",
]
