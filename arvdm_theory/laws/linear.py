"""Videos with a finite state: auto-regressions and linear state-space models, and two reference videos.

State-space videos live on the CPU; ``ArrayVideo(video.covariance(n)[0].to(device), d)`` moves n frames.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
import scipy.linalg
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from arvdm_theory.information.gaussian import cholesky
from arvdm_theory.laws.gaussian import GaussianVideo, StationaryVideo, checked_covariance, separable_video
from arvdm_theory.laws.state_space import StateSpace

__all__ = [
    "StateSpaceVideo",
    "ar1",
    "exponential_video",
    "reference_video",
    "spectral_video",
    "state_space",
    "var",
]

# A stationary covariance is trusted when it solves its equation to this part of the process noise. Near a
# unit root the residual grows like machine epsilon / (1 - radius), so radii above about 1 - 1e-8 are refused.
_LYAPUNOV_RESIDUAL = 1e-8


def ar1(
    correlation: float,
    frame_covariance: ArrayLike | Tensor = ((1.0,),),
    mean: ArrayLike | Tensor | None = None,
    length: int | None = None,
    name: str = "ar1",
) -> StationaryVideo:
    """The stationary auto-regression X_{t+1} = φ X_t + N(0, (1 - φ²) B): Γ(l) = φ^|l| B.

    Args:
        correlation: φ, strictly between -1 and 1; 0 gives independent frames.
        frame_covariance: B, (d, d).
        mean: of every frame, (d,), zero if left out.
        length: the number of frames; None for a video without end.
        name: what tables call it.

    Raises:
        ValueError: if |φ| ≥ 1 (no stationary law), or B or the mean is malformed.
        NotPositiveDefiniteError: if B is not positive definite.

    Example:
        >>> ar1(0.5).covariance(3)[0].tolist()
        [[1.0, 0.5, 0.25], [0.5, 1.0, 0.5], [0.25, 0.5, 1.0]]
    """
    if not abs(correlation) < 1:
        raise ValueError(f"a stationary auto-regression needs a correlation inside (-1, 1), got {correlation}")

    def state_space(B: Tensor) -> StateSpace:
        return StateSpace.separable(correlation, 1 - correlation**2, 1.0, 0.0, 1.0, B)

    return separable_video(lambda lags: correlation**lags, frame_covariance, mean, length, name, state_space)


def var(
    coefficients: Sequence[ArrayLike],
    innovation_covariance: ArrayLike,
    mean: ArrayLike | None = None,
    length: int | None = None,
    name: str = "var",
) -> StationaryVideo:
    """The stationary vector auto-regression X_t = Σ_{i=1}^p A_i X_{t-i} + N(0, Σ).

    Its state (X_t, ..., X_{t-p+1}) moves by the companion matrix, and Γ(l) follows as for
    :func:`state_space`. Source: Lütkepohl 2005, New Introduction to Multiple Time Series Analysis,
    section 2.1.

    Args:
        coefficients: A_1..A_p, each (d, d).
        innovation_covariance: Σ, (d, d).
        mean: of every frame, (d,), zero if left out.
        length: the number of frames; None for a video without end.
        name: what tables call it.

    Raises:
        ValueError: if a matrix is malformed, or the companion matrix has spectral radius 1 or more.
        NotPositiveDefiniteError: if Σ is not positive definite.
    """
    noise = checked_covariance(innovation_covariance, "innovation covariance").numpy()
    dim = noise.shape[0]
    if len(coefficients) == 0:
        raise ValueError("a vector auto-regression needs at least one coefficient matrix")
    blocks = [_matrix(a, f"coefficient A_{i}", (dim, dim)) for i, a in enumerate(coefficients, 1)]
    state = dim * len(blocks)
    companion = np.eye(state, k=-dim)
    companion[:dim] = np.concatenate(blocks, 1)
    process_noise = np.zeros((state, state))
    process_noise[:dim, :dim] = noise
    return _stationary(companion, process_noise, np.eye(dim, state), np.zeros((dim, dim)), mean, length, name)


def state_space(
    transition: ArrayLike,
    process_noise: ArrayLike,
    observation: ArrayLike,
    observation_noise: ArrayLike,
    mean: ArrayLike | None = None,
    initial_covariance: ArrayLike | None = None,
    initial_mean: ArrayLike | None = None,
    length: int | None = None,
    name: str = "state-space",
) -> GaussianVideo:
    """The linear state-space video z_{t+1} = A z_t + N(0, Q), X_t = m + C z_t + N(0, R).

    Without an initial law it starts in its stationary one, P = A P A^T + Q (discrete Lyapunov equation), and
    Γ(l) = C A^l P C^T + [l = 0] R for l ≥ 0. With one it is a :class:`StateSpaceVideo`, and A may be
    unstable.

    Args:
        transition: A, (s, s).
        process_noise: Q, (s, s), may be singular.
        observation: C, (d, s).
        observation_noise: R, (d, d), may be singular.
        mean: m, (d,), zero if left out.
        initial_covariance: Cov(z_1), (s, s), may be singular; None for the stationary start.
        initial_mean: E[z_1], (s,), zero if left out; only with ``initial_covariance``.
        length: the number of frames; None for a video without end.
        name: what tables call it.

    Raises:
        ValueError: if a matrix is malformed, or there is no initial law and A has spectral radius 1 or more.
        NotPositiveDefiniteError: if a covariance has a negative eigenvalue, or the first frame's is singular.

    Example:
        >>> video = state_space([[0.5]], [[0.75]], [[1.0]], [[0.1]])
        >>> video.covariance(2)[0].tolist()
        [[1.1, 0.5], [0.5, 1.1]]
    """
    Q = checked_covariance(process_noise, "process noise Q", definite=False).numpy()
    R = checked_covariance(observation_noise, "observation noise R", definite=False).numpy()
    state, dim = Q.shape[0], R.shape[0]
    A = _matrix(transition, "transition A", (state, state))
    C = _matrix(observation, "observation C", (dim, state))
    if initial_covariance is None:
        if initial_mean is not None:
            raise ValueError("an initial mean needs an initial covariance")
        return _stationary(A, Q, C, R, mean, length, name)
    P = checked_covariance(initial_covariance, "initial covariance", definite=False).numpy()
    if P.shape != (state, state):
        raise ValueError(f"the initial covariance must have shape {(state, state)}, got {P.shape}")
    start = np.zeros(state) if initial_mean is None else _matrix(initial_mean, "initial mean", (state,))
    offset = np.zeros(dim) if mean is None else _matrix(mean, "mean", (dim,))
    return StateSpaceVideo(A, Q, C, R, P, start, offset, length, name)


class StateSpaceVideo(GaussianVideo):
    """A linear state-space video from a given initial law; build it with :func:`state_space`.

    P_{t+1} = A P_t A^T + Q from P_1, E[X_t] = m + C A^{t-1} E[z_1], and for l ≥ 0
    Cov(X_{t+l}, X_t) = C A^l P_t C^T + [l = 0] R.
    """

    def __init__(
        self,
        transition: NDArray[np.float64],
        process_noise: NDArray[np.float64],
        observation: NDArray[np.float64],
        observation_noise: NDArray[np.float64],
        initial_covariance: NDArray[np.float64],
        initial_mean: NDArray[np.float64],
        mean: NDArray[np.float64],
        length: int | None,
        name: str,
    ) -> None:
        self._transition = torch.from_numpy(transition)
        self._process_noise = torch.from_numpy(process_noise)
        self._observation = torch.from_numpy(observation)
        self._observation_noise = torch.from_numpy(observation_noise)
        self._initial_covariance = torch.from_numpy(initial_covariance)
        self._initial_mean = torch.from_numpy(initial_mean)
        self._offset = torch.from_numpy(mean)
        self.frame_dim = observation.shape[0]
        self.length = length
        self.multiplicity = torch.ones(1, dtype=torch.float64)
        self.name = name
        cholesky(self.covariance(1), "covariance of the first frame")

    def state_space_form(self) -> StateSpace:
        """See :class:`GaussianVideo`."""
        return StateSpace(
            self._transition[None], self._process_noise[None], self._observation[None],
            self._observation_noise[None], self._initial_covariance[None], self._initial_mean[None],
            self._offset[None],
        )  # fmt: skip

    def mean(self, frames: int) -> Tensor:
        """See :class:`GaussianVideo`."""
        self.require(frames)
        state, rows = self._initial_mean, []
        for _ in range(frames):
            rows.append(self._offset + self._observation @ state)
            state = self._transition @ state
        return torch.cat(rows)[None]

    def covariance(self, frames: int) -> Tensor:
        """See :class:`GaussianVideo`."""
        self.require(frames)
        states = [self._initial_covariance]
        for _ in range(frames - 1):
            moved = self._transition @ states[-1] @ self._transition.T + self._process_noise
            states.append((moved + moved.T) / 2)
        d, C = self.frame_dim, self._observation
        blocks = C.new_zeros(frames, frames, d, d)  # blocks[i, j] = Cov(X_i, X_j)
        moving = torch.stack(states) @ C.T  # A^l P_t C^T of every t that has a frame l later
        time = torch.arange(frames)
        for lag in range(frames):
            block = C @ moving
            if lag == 0:
                block = (block + block.mT) / 2 + self._observation_noise
            blocks[time[lag:], time[: frames - lag]] = block
            blocks[time[: frames - lag], time[lag:]] = block.mT
            moving = self._transition @ moving[:-1]
        return blocks.transpose(1, 2).reshape(1, frames * d, frames * d)


def spectral_video(spectrum: ArrayLike, name: str = "spectrum") -> StationaryVideo:
    """The stationary video of scalar frames whose independent modes have given power spectra over time.

    Power P(f_k) at f_k = k/(2(n - 1)) cycles a frame, k = 0..n-1, has the autocovariance
    Γ(l) = Σ_f P(f) cos(2π f l)/(2(n - 1)) over both signs of f: that of a period of 2(n - 1) frames, of which the
    video has the first n. Twice the power in all of them is twice the variance; white noise has P = its variance.

    Args:
        spectrum: P, (n,) or (modes, n), n ≥ 2: as an estimate such as scipy.signal.welch's with two-sided
            scaling gives it.
        name: what tables call it.

    Raises:
        ValueError: if it is no such array, or a power is not positive and finite: a frequency without power
            makes the frames linearly dependent.

    Example:
        >>> spectral_video([1.0, 1.0, 1.0]).covariance(2)[0].tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    power = np.asarray(spectrum)
    if power.dtype.kind not in "fiu" or power.ndim not in (1, 2) or power.shape[-1] < 2 or not power.size:
        raise ValueError(
            f"a spectrum is an array (n,) or (modes, n) of real powers, n ≥ 2, got {power.dtype} of {power.shape}"
        )
    power = np.atleast_2d(power.astype(np.float64))
    if not bool((np.isfinite(power) & (power > 0)).all()):
        raise ValueError("the powers of a spectrum must be positive and finite: others leave no density")
    lags = torch.from_numpy(np.fft.irfft(power)[:, : power.shape[-1]].copy())

    def autocovariance(count: int) -> Tensor:
        return lags[:, :count, None, None]

    return StationaryVideo(autocovariance, 1, length=power.shape[-1], name=name)


def reference_video(length: int | None = None) -> StationaryVideo:
    """The two-dimensional video of this project's reference tables, with covariance S ⊗ B.

    S_ij = 0.5·0.8^|i-j| + 0.4·cos(2π(i-j)/7) + 0.1·[i = j] and B = 4/3·[[1, 0.3], [0.3, 0.5]], of trace 2:
    a part that is forgotten, a part with a period of 7 frames that never is, and noise of its own.
    """

    def correlation(lags: Tensor) -> Tensor:
        return 0.5 * 0.8**lags + 0.4 * torch.cos(2 * math.pi * lags / 7) + 0.1 * (lags == 0).to(lags)

    def state_space(B: Tensor) -> StateSpace:
        turn = 2 * math.pi / 7
        rotation = [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]
        noise = 0.5 * (1 - 0.8**2)
        return StateSpace.separable(
            scipy.linalg.block_diag([[0.8]], rotation),
            np.diag([noise, 0, 0]),
            [1, 1, 0],
            0.1,
            np.diag([0.5, 0.4, 0.4]),
            B,
        )

    covariance = np.array([[1.0, 0.3], [0.3, 0.5]])
    covariance = covariance * 2 / np.trace(covariance)
    return separable_video(correlation, covariance, length=length, name="reference", state_space=state_space)


def exponential_video(correlation: float = 0.95, length: int | None = None) -> StationaryVideo:
    """The scalar video with S_ij = φ^|i-j| of the context-noise reference table."""
    return ar1(correlation, length=length, name="exponential")


def _stationary(
    A: NDArray[np.float64],
    Q: NDArray[np.float64],
    C: NDArray[np.float64],
    R: NDArray[np.float64],
    mean: ArrayLike | None,
    length: int | None,
    name: str,
) -> StationaryVideo:
    dim = C.shape[0]
    radius = float(np.abs(np.linalg.eigvals(A)).max())
    if not radius < 1:
        raise ValueError(
            f"the transition has spectral radius {radius:.6g}, and a stationary start needs one below 1: "
            "give an initial covariance or a stable transition"
        )
    with warnings.catch_warnings():
        # What the warning suspects, the residual below decides.
        warnings.simplefilter("ignore", scipy.linalg.LinAlgWarning)
        P = scipy.linalg.solve_discrete_lyapunov(A, Q)
    P = (P + P.T) / 2
    residual = float(np.abs(A @ P @ A.T + Q - P).max())
    if not residual <= _LYAPUNOV_RESIDUAL * float(np.abs(Q).max()):
        raise ValueError(
            f"the transition's spectral radius {radius:.12g} is too near 1: its stationary covariance solves "
            f"the Lyapunov equation only to {residual:.1e}"
        )
    state_to_frame = torch.from_numpy(P @ C.T)
    transition, observation, noise = torch.from_numpy(A), torch.from_numpy(C), torch.from_numpy(R)

    def autocovariance(lags: int) -> Tensor:
        moving, gammas = state_to_frame, []
        for lag in range(lags):
            gamma = observation @ moving
            gammas.append((gamma + gamma.T) / 2 + noise if lag == 0 else gamma)
            moving = transition @ moving
        return torch.stack(gammas)[None]

    cholesky(autocovariance(1), "covariance of one frame")
    centre = None if mean is None else torch.from_numpy(_matrix(mean, "mean", (dim,)))[None]
    state = torch.from_numpy(P)
    form = StateSpace(
        transition[None], torch.from_numpy(Q)[None], observation[None], noise[None], state[None],
        state.new_zeros(1, len(P)), noise.new_zeros(1, dim), stationary=True,
    )  # fmt: skip
    return StationaryVideo(autocovariance, dim, mean=centre, length=length, name=name, state_space=form)


def _matrix(values: ArrayLike, what: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    array = np.array(values, dtype=np.float64)
    if array.shape != shape:
        raise ValueError(f"the {what} must have shape {shape}, got {array.shape}")
    if not np.all(np.isfinite(array)):
        raise ValueError(f"the {what} has entries that are NaN or infinite")
    return array
