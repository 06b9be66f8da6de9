"""A controlled video: what is seen follows from actions, which a score is told or not.

    z_t = A z_{t-1} + G u_t + N(0, Q),    X_t = m + C z_t + N(0, R),    u_t ~ N(0, U) independently,

u_t being the action that leads to frame t. Given the actions the video is Gaussian with the covariance of the same
state space without them, and a mean that the actions move; the frames and the actions together are Gaussian too.
So every term conditional on the actions has a closed form: actions are known beside the references. A score that
is not told them (``ExactScore(actions=False)``) is that of the video with its actions averaged out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from arvdm_theory.information.gaussian import cholesky
from arvdm_theory.interfaces import VideoBatch
from arvdm_theory.laws.gaussian import GaussianVideo, checked_covariance
from arvdm_theory.laws.linear import state_space
from arvdm_theory.laws.states import State
from arvdm_theory.noise import alpha, standard_normal

__all__ = ["ControlledVideo"]


class ControlledVideo(GaussianVideo):
    """The controlled linear state-space video.

    ``mean``, ``covariance`` and ``sample`` are those of the frames with the actions averaged out.

    Args:
        transition: A, (s, s).
        process_noise: Q, (s, s), may be singular.
        observation: C, (d, s).
        observation_noise: R, (d, d), may be singular.
        control: G, (s, a).
        policy: U, (a, a), the covariance of an action.
        mean: m, (d,), zero if left out.
        initial_covariance: Cov(z_0 - G u_0), (s, s); None for the stationary start, for which A must be stable.
        length: the number of frames; None for a video without end.
        name: what tables call it.

    Raises:
        ValueError: if a matrix is malformed or does not fit the others, or there is no initial law and A has
            spectral radius 1 or more.
        NotPositiveDefiniteError: if U is not positive definite, or the first frame's covariance is singular.

    Example:
        >>> video = ControlledVideo([[0.5]], [[0.3]], [[1.0]], [[0.1]], control=[[2.0]], policy=[[1.0]])
        >>> video.covariance(1).tolist()  # 0.4 + 0.1 without actions, and the first one's 4
        [[[4.5]]]
        >>> video.draw(3, 5, torch.Generator()).actions.shape
        torch.Size([3, 5, 1])
    """

    def __init__(
        self,
        transition: ArrayLike,
        process_noise: ArrayLike,
        observation: ArrayLike,
        observation_noise: ArrayLike,
        control: ArrayLike,
        policy: ArrayLike,
        mean: ArrayLike | None = None,
        initial_covariance: ArrayLike | None = None,
        length: int | None = None,
        name: str = "controlled",
    ) -> None:
        self._still = state_space(
            transition, process_noise, observation, observation_noise, mean, initial_covariance, length=length
        )
        self._policy = checked_covariance(policy, "policy U")
        self._transition, self._observation, self._control = (
            torch.as_tensor(part, dtype=torch.float64) for part in (transition, observation, control)
        )
        states, actions = self._transition.shape[0], self._policy.shape[0]
        if self._control.shape != (states, actions) or not bool(torch.isfinite(self._control).all()):
            raise ValueError(
                f"the control G must be finite numbers of shape {(states, actions)}, got "
                f"{tuple(self._control.shape)}"
            )
        self.frame_dim, self.length, self.name = self._still.frame_dim, length, name
        self.multiplicity = self._still.multiplicity

    @property
    def action_dim(self) -> int:
        """a."""
        return self._policy.shape[0]

    def response(self, frames: int) -> Tensor:
        """S, the frames' mean per unit of the actions: blocks C A^{t-s} G for s ≤ t, (frames·d, frames·a)."""
        d, a = self.frame_dim, self.action_dim
        blocks = torch.zeros(frames, frames, d, a, dtype=torch.float64)
        moved, time = self._control, torch.arange(frames)
        for lag in range(frames):
            blocks[time[lag:], time[: frames - lag]] = self._observation @ moved
            moved = self._transition @ moved
        return blocks.transpose(1, 2).reshape(frames * d, frames * a)

    def mean(self, frames: int) -> Tensor:
        """See :class:`GaussianVideo`."""
        return self._still.mean(frames)

    def covariance(self, frames: int) -> Tensor:
        """See :class:`GaussianVideo`: Cov without actions + S (I ⊗ U) Sᵀ."""
        response = self.response(frames)
        return self._still.covariance(frames) + response @ self._of_actions(frames) @ response.T

    def _of_actions(self, frames: int) -> Tensor:
        return torch.kron(torch.eye(frames, dtype=torch.float64), self._policy)

    def joint_moments(self, frames: int) -> tuple[Tensor, Tensor]:
        """Mean and covariance of the frames, and of the actions that lead to them behind them."""
        mean, actions = self.mean(frames), self._of_actions(frames)
        cross = (self.response(frames) @ actions)[None]
        top = torch.cat([self.covariance(frames), cross], -1)
        covariance = torch.cat([top, torch.cat([cross.mT, actions[None]], -1)], -2)
        return torch.cat([mean, mean.new_zeros(1, len(actions))], -1), covariance

    def draw(self, videos: int, frames: int, generator: torch.Generator | None = None) -> VideoBatch:
        """Frames (videos, frames, d) and the actions (videos, frames, a) that led to them."""
        factor = cholesky(self._policy, "policy U")
        actions = standard_normal((videos, frames, self.action_dim), generator).to(factor) @ factor.T
        still = self._still.sample(videos, frames, generator)[:, 0]
        return VideoBatch(still + self._moved(actions), actions)

    def _moved(self, actions: Tensor) -> Tensor:
        """By how much actions (batch, F, a) move the mean of the frames, (batch, F, d)."""
        frames = actions.shape[1]
        if actions.shape[-1] != self.action_dim:
            raise ValueError(f"an action of {self.name!r} has {self.action_dim} entries, got {actions.shape[-1]}")
        return (actions.to(torch.float64).flatten(1) @ self.response(frames).T).reshape(len(actions), frames, -1)

    def _joint_given(self, states: Sequence[State], actions: Tensor | None) -> tuple[Tensor, Tensor]:
        if actions is None:
            return super()._joint_given(states, actions)
        mean, covariance = self._still.joint(states)
        level = torch.tensor([state.level for state in states], dtype=torch.float64)
        shift = alpha(level)[:, None] * self._moved(actions)[:, [state.frame for state in states]]
        return mean + shift.flatten(1), covariance[0]
