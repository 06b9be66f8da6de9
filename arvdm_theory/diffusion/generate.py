"""Videos from a score alone: the two-stage rollout of a trained network, with no law known.

Source: arXiv 2503.10704, Algorithm 1.
"""

from __future__ import annotations

import torch
from torch import Tensor
from tqdm import tqdm

from arvdm_theory.diffusion.kernel import reverse_walk, sampler_steps
from arvdm_theory.diffusion.prediction import reference_rows
from arvdm_theory.diffusion.rollout import PromptError, first_ar_step, two_stages
from arvdm_theory.diffusion.scores import AffineScore, HasScore, as_score, checked_score
from arvdm_theory.diffusion.steps import ReverseStep, reverse_step
from arvdm_theory.interfaces import ReferenceBatch, Score
from arvdm_theory.laws.gaussian import standard_normal
from arvdm_theory.plan.plan import Plan

__all__ = ["GenerationError", "PromptError", "generate"]


class GenerationError(ValueError):
    """Videos cannot be generated from what was given."""


def generate(
    score: Score | HasScore,
    plan: Plan,
    ar_steps: int,
    videos: int,
    frame_dim: int,
    *,
    step: str | ReverseStep = "exponential",
    generator: torch.Generator | None = None,
    seed: int = 0,
    actions: Tensor | None = None,
    prompt: Tensor | None = None,
    batch: int = 1024,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> Tensor:
    """Generates videos: the clean frames after ``ar_steps`` AR steps, (videos, F, d).

    All noise is drawn for all videos at once, in an order that the plan alone gives, so a seed's videos do not
    depend on ``batch`` (but for the rounding of a network that sums in another order), nor on the device if the
    generator is on the CPU. References are generated or given frames, noised afresh where the plan says so.

    Args:
        score: (window (batch, w, d), levels (w,), references) → score, or anything with ``as_score()``; nothing
            else is known of what it was trained on.
        plan: the plan.
        ar_steps: K, the last AR step: F = ``plan.clean_frames(K)``, with a prompt too.
        videos: how many.
        frame_dim: d.
        step: the reverse step; not ``ancestral``, whose noise needs a known law.
        generator: of every draw.
        seed: of the generator, if none is given.
        actions: (videos, ``plan.total_frames(K)`` or more, a), the action that leads to each frame; the score is
            told those of the references and of the window.
        prompt: given first frames, (videos, p, d), in place of the initialisation stage and of the AR steps that
            would have put them out. For w = Δ, p is a multiple of Δ and the frames stand as they are. For w > Δ,
            p = w - Δ + jΔ: the first jΔ stand as they are, and the last w - Δ are noised to the input levels and
            denoised again with the frames to come. A plan that stops at δ > 0 takes them all to δ first.
        batch: the most videos that the score is called with at once; it bounds memory.
        dtype: of the videos; the network's own is :class:`~arvdm_theory.diffusion.prediction.NetworkScore`'s.
        device: where the videos are kept.
        progress: whether to show a progress bar over reverse steps.

    Raises:
        GenerationError: for fewer than one video, AR step, entry or batch row, a score or a step that needs a
            known law, or actions or a prompt that do not fit or are not finite.
        PromptError: if no AR step starts after the prompt.
        ValueError: if the score is no finite tensor of the window's shape.

    Example:
        >>> from arvdm_theory.plan.methods import outpainting
        >>> from arvdm_theory.plan.plan import References
        >>> plan = outpainting(window=2, references=References.last(1), reverse_steps=10)
        >>> def score_of_white_noise(window, levels, references):
        ...     return -window
        >>> generate(score_of_white_noise, plan, 3, videos=5, frame_dim=4).shape
        torch.Size([5, 8, 4])
    """
    chosen, own = reverse_step(step), as_score(score)
    _check(own, chosen, plan, ar_steps, videos, frame_dim, batch)
    if not dtype.is_floating_point:
        raise GenerationError(f"videos are of real numbers, not {dtype}")
    prompt = _given(prompt, "prompt", videos, dtype, device)
    actions = _given(actions, "actions", videos, dtype, device)
    first = 0
    if prompt is not None:
        if prompt.shape[-1] != frame_dim:
            raise GenerationError(f"the prompt's frames have {prompt.shape[-1]} entries, not {frame_dim}")
        first = first_ar_step(plan, prompt.shape[1])
        if first > ar_steps:
            raise PromptError(
                f"the prompt of {prompt.shape[1]} frames leaves nothing to generate: AR step {first} would be "
                f"next, and {ar_steps} is the last"
            )
    if actions is not None and actions.shape[1] < plan.total_frames(ar_steps):
        raise GenerationError(
            f"{plan.total_frames(ar_steps)} frames are generated or begun, and have actions, but only "
            f"{actions.shape[1]} are given"
        )
    source = torch.Generator().manual_seed(seed) if generator is None else generator

    def noise(count: int) -> Tensor:
        # One mode, as the flat vectors of a Gaussian video have it.
        return standard_normal((videos, 1, count * frame_dim), source).to(device, dtype)

    total = (plan.init_steps if first == 0 else 0) + (ar_steps + 1 - max(first, 1)) * plan.reverse_steps
    hidden = not progress or None  # None: on terminals alone
    with torch.no_grad(), tqdm(total=total, desc="reverse steps", disable=hidden, leave=False) as bar:

        def denoise(k: int, window: Tensor, references: Tensor) -> Tensor:
            grid = torch.tensor(plan.ar_grid if k else plan.init_grid, dtype=torch.float64, device=device)
            frames = tuple(plan.window_frames(k)) if k else tuple(range(plan.init_frames))
            told = plan.references_at(k) if k else ()
            shown = ReferenceBatch(
                references.reshape(videos, len(told), frame_dim),
                torch.tensor([max(r.level, plan.floor) for r in told], dtype=torch.float64, device=device),
                tuple(r.frame for r in told),
                frames,
                None if actions is None else actions[:, [r.frame for r in told]],
                None if actions is None else actions[:, list(frames)],
            )
            steps = sampler_steps(grid, chosen).spread(frame_dim)
            kicks = None if steps.variance is None else steps.variance.sqrt()

            def value(m: int, flat: Tensor) -> Tensor:
                own_frames = flat.reshape(videos, len(frames), frame_dim)
                result = torch.empty_like(own_frames)
                for start in range(0, videos, batch):
                    rows = slice(start, start + batch)
                    part = own_frames[rows]
                    said = own(part, grid[m], reference_rows(shown, rows))
                    result[rows] = checked_score(said, part, frames, m).to(part)
                bar.update()
                return result.reshape(flat.shape)

            def kick(m: int) -> Tensor:
                assert kicks is not None  # steps without a variance of their own are refused
                return kicks[m].to(dtype) * noise(len(frames))

            return reverse_walk(steps.to(dtype), window, value, kick)

        start = None if prompt is None else prompt.reshape(videos, 1, -1)
        flat = two_stages(plan, ar_steps, frame_dim, noise, denoise, start)
    return flat.reshape(videos, -1, frame_dim)


def _check(
    score: object, step: ReverseStep, plan: Plan, ar_steps: int, videos: int, frame_dim: int, batch: int
) -> None:
    wanted = {"AR step": ar_steps, "video": videos, "entry a frame": frame_dim, "video a batch": batch}
    for what, count in wanted.items():
        if count < 1:
            raise GenerationError(f"at least one {what} is needed, got {count}")
    if isinstance(score, AffineScore) or not callable(score):
        raise GenerationError(
            f"a score of its own is needed, (window, levels, references) → score, got {type(score).__name__}; "
            "exact and perturbed scores need a video's law: see arvdm_theory.diffusion.rollout.rollout"
        )
    grid = torch.tensor([plan.ar_grid[0], plan.ar_grid[0]], dtype=torch.float64)
    if sampler_steps(grid, step).variance is None:
        raise GenerationError(
            f"the noise of the {step.name} step has the exact posterior's covariance, which needs a video's law: "
            "choose exponential, euler, ddpm or ddim, or arvdm_theory.diffusion.rollout.rollout"
        )


def _given(
    values: Tensor | None, what: str, videos: int, dtype: torch.dtype, device: torch.device | str
) -> Tensor | None:
    if values is None:
        return None
    if values.ndim != 3 or len(values) != videos or not bool(torch.isfinite(values).all()):
        raise GenerationError(
            f"the {what} must be finite numbers of shape ({videos}, frames, entries), got {tuple(values.shape)}"
        )
    return values.to(device, dtype)
