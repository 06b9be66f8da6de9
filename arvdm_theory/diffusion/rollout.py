"""Algorithm 1 of Meta-ARVDM: the two-stage rollout, as samples and, for affine scores, as an exact law.

Source: arXiv 2503.10704, Algorithm 1: the initialisation stage, then AR steps that shift the window by Δ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from arvdm_theory.diffusion.kernel import Kernel, reverse_sample
from arvdm_theory.diffusion.scores import AffineScore, ExactScore, HasScore, as_score
from arvdm_theory.diffusion.steps import ReverseStep, reverse_step
from arvdm_theory.diffusion.window import ar_window, init_window
from arvdm_theory.interfaces import Score
from arvdm_theory.laws.gaussian import GaussianVideo, frame_indices, standard_normal
from arvdm_theory.noise import transition
from arvdm_theory.plan.plan import Plan, Reference

__all__ = ["PromptError", "SamplerLaw", "first_ar_step", "rollout", "two_stages"]


class PromptError(ValueError):
    """Given frames that a plan cannot start from."""


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


def first_ar_step(plan: Plan, frames: int) -> int:
    """The AR step that follows ``frames`` given frames.

    AR step k takes up the frames after the first kΔ if w = Δ, and after the first w - Δ + (k-1)Δ if w > Δ.

    Raises:
        PromptError: unless there is such a k ≥ 1.
    """
    first = plan.init_frames
    steps, rest = divmod(frames - first, plan.stride)
    if steps < 0 or rest:
        raise PromptError(
            f"AR steps of the plan {plan.name!r} start after {first}, {first + plan.stride}, "
            f"{first + 2 * plan.stride}, ... frames, not after the {frames} that are given"
        )
    return steps + 1


def two_stages(
    plan: Plan,
    ar_steps: int,
    dim: int,
    noise: Callable[[int], Tensor],
    denoise: Callable[[int, Tensor, Tensor], Tensor],
    prompt: Tensor | None = None,
) -> Tensor:
    """Algorithm 1 itself, for whatever denoises one stage.

    Args:
        plan: the plan.
        ar_steps: K, the last AR step.
        dim: d.
        noise: n ↦ standard normal frames (..., n·d).
        denoise: (k, window (..., w·d), references (..., r·d)) ↦ the window after AR step k; k = 0 is the
            initialisation stage.
        prompt: given clean frames (..., p·d) that stand in for the initialisation stage and for the AR steps that
            would have put them out.

    Returns:
        the clean frames, (..., n·d).
    """

    def noised(frames: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Frames taken from levels ``low`` to ``high``, a level a frame."""
        a, v = (part.to(frames).repeat_interleave(dim) for part in transition(high, low))
        return a * frames + v.sqrt() * noise(len(high))

    def level(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64)

    if prompt is None:
        state, first = denoise(0, noise(plan.init_frames), noise(0)), 1
    else:
        given = prompt.shape[-1] // dim
        state, first = prompt, first_ar_step(plan, given)
        if plan.floor > 0:
            state = noised(state, level([0.0] * given), level([plan.floor] * given))
    if plan.overlapping and (prompt is not None or plan.initialisation == "renoise"):
        kept = plan.init_frames
        start = state.shape[-1] - kept * dim
        entering = noised(state[..., start:], level([plan.floor] * kept), level(list(plan.input_levels[:kept])))
        state = torch.cat([state[..., :start], entering], -1)
    for k in range(first, ar_steps + 1):
        state = torch.cat([state, noise(plan.stride)], -1)
        references = plan.references_at(k)
        index = frame_indices([r.frame for r in references], dim).to(state.device)
        high = level([max(r.level, plan.floor) for r in references])
        shown = noised(state[..., index], torch.full_like(high, plan.floor), high)
        start = state.shape[-1] - plan.window * dim
        state = torch.cat([state[..., :start], denoise(k, state[..., start:], shown)], -1)
    return state[..., : plan.clean_frames(ar_steps) * dim]


def rollout(
    video: GaussianVideo,
    plan: Plan,
    ar_steps: int,
    videos: int,
    score: Score | AffineScore | HasScore | None = None,
    step: str | ReverseStep = "exponential",
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> Tensor:
    """Generates videos like a known one: the clean frames after ``ar_steps`` AR steps, (videos, modes, frames, d).

    For a score without a known video see :func:`arvdm_theory.diffusion.generate.generate`.

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
    own: Score | AffineScore = ExactScore() if score is None else as_score(score)
    frames = plan.total_frames(ar_steps)
    video.require(frames)
    mean, covariance, dim = video.mean(frames), video.covariance(frames), video.frame_dim

    def noise(count: int) -> Tensor:
        return standard_normal((videos, video.modes, count * dim), generator).to(video.device)

    with tqdm(total=1 + ar_steps, desc="stages", disable=not progress or None, leave=False) as bar:

        def denoise(k: int, window: Tensor, references: Tensor) -> Tensor:
            law = ar_window(mean, covariance, dim, plan, k) if k else init_window(mean, covariance, dim, plan)
            at = own.affine(law) if isinstance(own, AffineScore) else own
            made = reverse_sample(law, at, chosen, window, references, generator)
            bar.update()
            return made

        flat = two_stages(plan, ar_steps, dim, noise, denoise)
    return flat.reshape(videos, video.modes, -1, dim)
