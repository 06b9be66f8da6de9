"""The stages of a plan seen from the window, once its references are filled."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from arvdm_theory.interfaces import ReferenceBatch
from arvdm_theory.laws.gaussian import GaussianVideo
from arvdm_theory.laws.state_space import StateSpace, repeated
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.references import Reference

__all__ = ["Local", "Pattern"]

# Below this norm A^k has no influence left on the law of a stage.
_FADED = 1e-16


class LocalVideo(GaussianVideo):
    """The first f frames and those from the edge of the reach to the window's last, as a video of their own."""

    def __init__(self, of: GaussianVideo, mean: Tensor, covariance: Tensor) -> None:
        self.frame_dim, self.multiplicity, self.name = of.frame_dim, of.multiplicity, of.name
        self.length = mean.shape[-1] // of.frame_dim
        self._moments = mean, covariance

    def mean(self, frames: int) -> Tensor:
        """See :class:`GaussianVideo`."""
        return self._moments[0][:, : frames * self.frame_dim]

    def covariance(self, frames: int) -> Tensor:
        """See :class:`GaussianVideo`."""
        n = frames * self.frame_dim
        return self._moments[1][:, :n, :n]


@dataclass(frozen=True, eq=False)
class Local:
    """The law of what a stage in the steady pattern sees.

    Attributes:
        video: the local frames.
        state: Cov(z), z the state at the edge of the reach, (modes, s, s).
        cross: Cov(z, first frames), (modes, s, f·d).
    """

    video: LocalVideo
    state: Tensor
    cross: Tensor


class Pattern:
    """A plan on a state space, from the AR step on at which its references are filled.

    Local frames: 0..f-1 are the first ones, f..f+m-1 those in reach, and then the window.

    Args:
        video: the video.
        form: the same as a state space.
        plan: the plan.
        grid: AR levels in place of the plan's.
    """

    def __init__(self, video: GaussianVideo, form: StateSpace, plan: Plan, grid: Tensor | None) -> None:
        reach, k = plan.references.reach, plan.repeats_from
        assert reach is not None
        assert k is not None
        self.video, self.form, self.plan, self.begin = video, form, plan, k
        self.first, self.last = reach
        self.edge = plan.frames_out(k) - self.last  # the first frame in reach, at AR step k
        self.frames = self.last + plan.window
        stage = plan.stage(k, grid)
        refs = tuple(Reference(self.local(r.frame), r.level) for r in stage.references)
        self.stage = dataclasses.replace(
            stage,
            frames=range(self.first + self.last, self.first + self.frames),
            references=refs,
            past=tuple(self.local(frame) for frame in stage.past if frame >= self.edge),
        )
        self.maps = form.frames(self.frames)

    def local(self, frame: int) -> int:
        """A frame of AR step ``begin`` as a local one."""
        return frame if frame < self.first else frame - self.edge + self.first

    def score(self, score: Any, later: int) -> Any:
        """The score as the local stage of AR step ``begin`` + ``later`` calls it: shown the frames' numbers."""
        if hasattr(score, "affine"):
            return score
        edge, first = self.edge + later * self.plan.stride, self.first

        def number(frame: int) -> int:
            return frame if frame < first else frame + edge - first

        def shifted(window: Tensor, levels: Tensor, references: ReferenceBatch) -> Any:
            own, at = references.frames, references.window_frames
            return score(
                window,
                levels,
                dataclasses.replace(
                    references, frames=tuple(map(number, own)), window_frames=tuple(map(number, at))
                ),
            )

        if isinstance(getattr(score, "dtype", None), torch.dtype):
            shifted.dtype = score.dtype  # type: ignore[attr-defined]
        return shifted

    def laws(self) -> Iterator[Local]:
        """The local law of AR step ``begin``, ``begin`` + 1, ...; the last one is that of all later steps.

        Without end, if there is none such.
        """
        form, f, d = self.form, self.first, self.video.frame_dim
        (on, noise), s = form.path(self.edge), form.states
        means = (on @ form.start.unsqueeze(-1)).squeeze(-1)
        states = on @ form.covariance @ on.mT + noise
        see = on.new_zeros(len(on), f * d, states.shape[-1])
        see[:, :, : f * s] = repeated(form.observation, f)
        first_mean = (see @ means.unsqueeze(-1)).squeeze(-1) + form.mean.repeat(1, f)
        first = see @ states @ see.mT + repeated(form.observation_noise, f)
        cross = states[:, -s:] @ see.mT
        if form.stationary:  # the very numbers, without the rounding of the recursion
            mean, state = form.start, form.covariance
        else:
            mean, state = means[:, -s:], states[:, -s:, -s:]
        stride, left = form.power(self.plan.stride), torch.eye(s).to(on)
        while True:
            yield self._local(first_mean, first, mean, state, cross)
            left = stride @ left
            if (form.stationary and not f) or float(torch.linalg.matrix_norm(left.detach()).max()) <= _FADED:
                return
            cross = stride @ cross
            if not form.stationary:
                later = form.from_state(mean, state).advanced(self.plan.stride)
                mean, state = later.start, later.covariance

    def _local(self, first_mean: Tensor, first: Tensor, mean: Tensor, state: Tensor, cross: Tensor) -> Local:
        on, noise = self.maps
        seen = (on @ mean.unsqueeze(-1)).squeeze(-1) + self.form.mean.repeat(1, self.frames)
        own, with_first = on @ state @ on.mT + noise, on @ cross
        top = torch.cat([first, with_first.mT], -1)
        joint = torch.cat([top, torch.cat([with_first, (own + own.mT) / 2], -1)], -2)
        return Local(LocalVideo(self.video, torch.cat([first_mean, seen], -1), joint), state, cross)

    def faded(self, local: Local) -> Local:
        """A local law once the first frames say nothing of the window any more."""
        n, f = self.first * self.video.frame_dim, self.first
        mean, covariance = local.video.joint_moments(f) if f else (local.video.mean(0), local.video.covariance(0))
        assert mean.shape[-1] == n
        return self._local(mean, covariance, self.form.start, self.form.covariance, torch.zeros_like(local.cross))
