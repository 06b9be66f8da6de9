"""Monte Carlo checks of a Gaussian law, in standard errors."""

from torch import Tensor

# A normal estimate misses by more than 6 standard errors with probability 2e-9; a test compares some thousand.
STANDARD_ERRORS = 6.0


def assert_moments(samples: Tensor, mean: Tensor, covariance: Tensor) -> None:
    """The samples (N, n) have mean (n,) and covariance (n, n), every entry within 6 standard errors.

    Around the known mean the second moment's standard error is √((Σ_aa Σ_bb + Σ_ab²)/N) for a Gaussian.
    """
    count = samples.shape[0]
    variance = covariance.diagonal()
    centred = samples - mean
    mean_error = (variance / count).sqrt()
    assert (centred.mean(0).abs() <= STANDARD_ERRORS * mean_error).all()
    second_error = ((variance[:, None] * variance + covariance**2) / count).sqrt()
    assert ((centred.T @ centred / count - covariance).abs() <= STANDARD_ERRORS * second_error).all()
