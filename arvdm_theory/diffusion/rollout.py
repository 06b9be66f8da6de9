"""Algorithm 1 of Meta-ARVDM: the two-stage rollout, as samples and, for affine scores, as an exact law.

Source: arXiv 2503.10704, Algorithm 1: the initialisation stage, then AR steps that shift the window by Δ.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from arvdm_theory.diffusion.kernel import Kernel, reverse_sample
from arvdm_theory.diffusion.scores import AffineScore, stage_score
from arvdm_theory.diffusion.steps import ReverseStep, reverse_step
from arvdm_theory.diffusion.window import WindowLaw, ar_window, init_window
from arvdm_theory.interfaces import Score
from arvdm_theory.meta.plan import Plan, Reference
from arvdm_theory.noise import transition
from arvdm_theory.processes.gaussian import GaussianVideo, frame_indices, standard_normal

__all__ = ["SamplerLaw", "rollout"]


@dataclass(frozen=True)
class SamplerLaw:
    """The Gaussian law Q of the frames so far: clean ones first, then the noisy window, frame-major.

    Attributes:
        mean: (modes, n·d).
        covariance: (modes, n·d, n·d).
        dim: d.
    """

    mean: Tensor
    covariance: Tensor
    dim: int

    def frames(self, frames: range) -> tuple[Tensor, Tensor]:
        """Mean and covariance of a run of frames."""
        part = slice(frames.start * self.dim, frames.stop * self.dim)
        return self.mean[:, part], self.covariance[:, part, part]

    @classmethod
    def initial(cls, plan: Plan, kernel: Kernel, dim: int, levels: Tensor | None = None) -> SamplerLaw:
        """The law of Input_1: pure noise through the initialisation stage, then noised afresh if need be.

        ``levels`` (w,) replaces the plan's input levels (it may require gradients).
        """
        covariance = kernel.window @ kernel.window.mT + kernel.covariance
        law = cls(kernel.bias, covariance, dim)
        if not (plan.overlapping and plan.initialisation == "renoise"):
            return law
        target = torch.tensor(plan.input_levels, dtype=torch.float64, device=law.mean.device)
        target = (target if levels is None else levels)[: plan.init_frames].repeat_interleave(dim)
        a, v = transition(target, torch.full_like(target, plan.floor))
        return cls(a * law.mean, a[:, None] * a * law.covariance + torch.diag(v), dim)

    def advance(self, plan: Plan, ar_step: int, kernel: Kernel) -> SamplerLaw:
        """The law after AR step ``ar_step``: Δ new frames from N(0, I), then the kernel on the window."""
        fresh = plan.stride * self.dim
        modes, old = self.mean.shape
        n = old + fresh
        mean = torch.cat([self.mean, self.mean.new_zeros(modes, fresh)], -1)
        covariance = self.covariance.new_zeros(modes, n, n)
        covariance[:, :old, :old] = self.covariance
        covariance[:, range(old, n), range(old, n)] = 1.0

        start = n - plan.window * self.dim  # the window's frames are the last w
        references = plan.references_at(ar_step)
        scale, noise = _reference_noise(references, plan.floor, self.dim, mean.device)
        index = frame_indices([r.frame for r in references], self.dim).to(mean.device)
        on_frames = mean.new_zeros(modes, n - start, n)
        on_frames[:, :, start:] = kernel.window
        on_frames = on_frames.index_add(2, index, kernel.references * scale)

        moved = on_frames @ covariance
        window = moved @ on_frames.mT + kernel.covariance
        window = window + (kernel.references * noise) @ kernel.references.mT
        out = moved[:, :, :start]
        new_mean = torch.cat([mean[:, :start], (on_frames @ mean.unsqueeze(-1)).squeeze(-1) + kernel.bias], -1)
        top = torch.cat([covariance[:, :start, :start], out.mT], -1)
        bottom = torch.cat([out, (window + window.mT) / 2], -1)
        return SamplerLaw(new_mean, torch.cat([top, bottom], -2), self.dim)


def _reference_noise(
    references: tuple[Reference, ...], floor: float, dim: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """(a, v) an entry: a reference is a times the frame that came out, plus fresh noise of variance v."""
    levels = torch.tensor([max(r.level, floor) for r in references], dtype=torch.float64, device=device)
    a, v = transition(levels, torch.full_like(levels, floor))
    return a.repeat_interleave(dim), v.repeat_interleave(dim)


def rollout(
    video: GaussianVideo,
    plan: Plan,
    ar_steps: int,
    videos: int,
    score: Score | AffineScore | None = None,
    step: str | ReverseStep = "exponential",
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> Tensor:
    """Generates videos: the clean frames after ``ar_steps`` AR steps, (videos, modes, frames, d).

    Args:
        video: gives the exact score (and the shapes, for a score of one's own).
        plan: the plan.
        ar_steps: K.
        videos: how many.
        score: None for the exact one, else as :mod:`arvdm_theory.diffusion.scores` says.
        step: the reverse step.
        generator: of every draw; the same seed gives the same videos.
        progress: whether to show a progress bar.

    Raises:
        ValueError: for fewer than one video or AR step, if the video has too few frames, and as the score.
    """
    if ar_steps < 1 or videos < 1:
        raise ValueError(f"at least one AR step and one video are needed, got {ar_steps} and {videos}")
    chosen = reverse_step(step)
    frames = plan.total_frames(ar_steps)
    video.require(frames)
    mean, covariance, dim = video.mean(frames), video.covariance(frames), video.frame_dim

    def noise(count: int) -> Tensor:
        return standard_normal((videos, video.modes, count * dim), generator).to(video.device)

    def denoise(law: WindowLaw, window: Tensor, references: Tensor) -> Tensor:
        return reverse_sample(law, stage_score(score, law), chosen, window, references, generator)

    state = denoise(init_window(mean, covariance, dim, plan), noise(plan.init_frames), noise(0))
    if plan.overlapping and plan.initialisation == "renoise":
        target = torch.tensor(plan.input_levels[: plan.init_frames], dtype=torch.float64, device=video.device)
        a, v = transition(target.repeat_interleave(dim), torch.tensor(plan.floor, dtype=torch.float64))
        state = a * state + v.sqrt() * noise(plan.init_frames)
    for k in tqdm(range(1, ar_steps + 1), "AR steps", disable=not progress, leave=False):
        state = torch.cat([state, noise(plan.stride)], -1)
        references = plan.references_at(k)
        scale, variance = _reference_noise(references, plan.floor, dim, video.device)
        index = frame_indices([r.frame for r in references], dim).to(video.device)
        shown = scale * state[..., index] + variance.sqrt() * noise(len(references))
        start = state.shape[-1] - plan.window * dim
        window = denoise(ar_window(mean, covariance, dim, plan, k), state[..., start:], shown)
        state = torch.cat([state[..., :start], window], -1)
    clean = plan.clean_frames(ar_steps)
    return state[..., : clean * dim].reshape(videos, video.modes, clean, dim)
