"""Algorithm 1 of Meta-ARVDM: the reverse steps of a stage, the two stages, and the videos that come of them.

Source: arXiv 2503.10704, Algorithm 1: the initialisation stage, then AR steps that shift the window by Δ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from arvdm_theory.diffusion.scores import GuidedScore, as_score, checked_score, recalling
from arvdm_theory.diffusion.steps import Evaluation, ReverseStep, reverse_step
from arvdm_theory.interfaces import ReferenceBatch, VideoBatch
from arvdm_theory.noise import noised, standard_normal
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.stage import Stage

__all__ = ["SamplerSteps", "first_ar_step", "generate", "reverse_stage", "sampler_steps", "two_stages"]


@dataclass(frozen=True)
class SamplerSteps:
    """What the sampler does in every reverse step of a stage, whatever the video: mean c_w W + c_s s, and noise.

    Each has shape (M, w), a frame an entry (or spread over the entries of frames, see :meth:`spread`); all but
    ``moving`` are 0 where nothing moves.

    Attributes:
        moving: 1 where a frame moves, else 0.
        mean_window: c_w.
        mean_score: c_s.
        variance: of the noise; None for the true conditional covariance.
    """

    moving: Tensor
    mean_window: Tensor
    mean_score: Tensor
    variance: Tensor | None

    def spread(self, dim: int) -> SamplerSteps:
        """The same for flat vectors of frames in R^dim, (M, 1, w·d)."""
        return self._map(lambda values: values.repeat_interleave(dim, -1).unsqueeze(-2))

    def to(self, like: Tensor) -> SamplerSteps:
        """The same in the dtype and on the device of ``like``."""
        return self._map(lambda values: values.to(like))

    @property
    def silent(self) -> Tensor:
        """Where a frame moves without noise, which makes the KL of the trajectory infinite; (M,) booleans."""
        if self.variance is None:
            return self.moving.new_zeros(len(self.moving), dtype=torch.bool)
        return ((self.variance == 0) & (self.moving > 0)).flatten(1).any(-1)

    def _map(self, change: Callable[[Tensor], Tensor]) -> SamplerSteps:
        variance = None if self.variance is None else change(self.variance)
        return SamplerSteps(change(self.moving), change(self.mean_window), change(self.mean_score), variance)


def sampler_steps(levels: Tensor, step: ReverseStep) -> SamplerSteps:
    """The sampler's side of every reverse step of a grid of ``levels`` (M + 1, w)."""
    high, low = levels[:-1], levels[1:]
    moves = high > low
    # Frames that stay get a harmless dummy move, so that no gradient passes through 0/0; it is masked out.
    coefficients = step.coefficients(torch.where(moves, high, 2.0), torch.where(moves, low, 1.0))

    def masked(values: Tensor) -> Tensor:
        return torch.where(moves, values, torch.zeros_like(values))

    return SamplerSteps(
        moving=moves.to(levels.dtype),
        mean_window=masked(coefficients.window),
        mean_score=masked(coefficients.score),
        variance=None if coefficients.variance is None else masked(coefficients.variance),
    )


def first_ar_step(plan: Plan, frames: int) -> int:
    """The AR step that follows ``frames`` given frames.

    AR step k takes up the frames after the first kΔ if w = Δ, and after the first w - Δ + (k-1)Δ if w > Δ.

    Raises:
        ValueError: unless there is such a k ≥ 1.
    """
    first = plan.init_frames
    steps, rest = divmod(frames - first, plan.stride)
    if steps < 0 or rest:
        raise ValueError(
            f"AR steps of the plan {plan.name!r} start after {first}, {first + plan.stride}, "
            f"{first + 2 * plan.stride}, ... frames, not after the {frames} that are given"
        )
    return steps + 1


def two_stages(
    plan: Plan,
    ar_steps: int,
    noise: Callable[[int], Tensor],
    denoise: Callable[[Stage, Tensor, Tensor], Tensor],
    prompt: Tensor | None = None,
) -> Tensor:
    """Algorithm 1 itself, for whatever denoises one stage.

    Args:
        plan: the plan.
        ar_steps: K, the last AR step.
        noise: n ↦ standard normal frames (..., n, d).
        denoise: (stage, window (..., w, d), references (..., r, d)) ↦ the window after the stage.
        prompt: given clean frames (..., p, d) that stand in for the initialisation stage and for the AR steps that
            would have put them out.

    Returns:
        the clean frames, (..., n, d).
    """

    def renoised(frames: Tensor, low: float, high: list[float]) -> Tensor:
        levels = torch.tensor(high, dtype=torch.float64)
        return noised(frames, levels, torch.full_like(levels, low), noise(len(high)))

    kept: dict[tuple[int, float, str], Tensor] = {}  # states by frame, level and noise
    own = any(pick.noise in ("own", "matched") for pick in plan.references.picks)

    def denoised(ar_step: int, window: Tensor, clean: Tensor) -> Tensor:
        for stage in plan.segments(ar_step):
            window = denoise(stage, window, shown(stage, clean))
            if own:
                ends = enumerate(zip(stage.frames, stage.grid[-1], strict=True))
                kept.update({(frame, level, "own"): window[..., j, :] for j, (frame, level) in ends})
        return window

    def shown(stage: Stage, clean: Tensor) -> Tensor:
        levels = stage.reference_levels.tolist()
        found = renoised(clean[..., list(stage.reference_frames), :], plan.floor, levels)
        for i, reference in enumerate(stage.references):
            if reference.noise == "once":
                found[..., i, :] = kept.setdefault((reference.frame, levels[i], "once"), found[..., i, :].clone())
            elif reference.noise != "fresh":
                found[..., i, :] = kept[reference.frame, levels[i], "own"]
            elif stage.references and own and reference.level > plan.floor:
                key = (reference.frame, levels[i], f"fresh {stage.ar_step}")
                found[..., i, :] = kept.setdefault(key, found[..., i, :].clone())
        return found

    if prompt is None:
        state, first = denoised(0, noise(plan.init_frames), noise(0)), 1
    else:
        if own:
            raise ValueError("given frames have no states of their own on the way out: leave the prompt out")
        state, first = prompt, first_ar_step(plan, prompt.shape[-2])
        if plan.floor > 0:
            state = renoised(state, 0.0, [plan.floor] * state.shape[-2])
    if plan.overlapping and (prompt is not None or plan.initialisation == "renoise"):
        start = state.shape[-2] - plan.init_frames
        entering = renoised(state[..., start:, :], plan.floor, list(plan.input_levels[: plan.init_frames]))
        state = torch.cat([state[..., :start, :], entering], -2)
    for k in range(first, ar_steps + 1):
        clean, state = state, torch.cat([state, noise(plan.stride)], -2)
        start = state.shape[-2] - plan.window
        state = torch.cat([state[..., :start, :], denoised(k, state[..., start:, :], clean)], -2)
    return state[..., : plan.clean_frames(ar_steps), :]


def reverse_stage(
    stage: Stage,
    score: Any,
    step: ReverseStep,
    window: Tensor,
    shown: ReferenceBatch,
    noise: Callable[[int], Tensor],
    *,
    batch: int = 1024,
    law: Any = None,
    done: Callable[[], object] = lambda: None,
) -> Tensor:
    """The window after all reverse steps of a stage.

    Args:
        stage: the stage.
        score: a callable (window, levels, references) → score.
        step: the reverse step.
        window: as it enters, (videos, modes, w, d).
        shown: the references.
        noise: n ↦ standard normal frames (videos, modes, n, d).
        batch: the most videos that the score is called with at once. Where that is all of them, the score keeps
            what it makes of the references alone (see :func:`~arvdm_theory.diffusion.scores.recalling`).
        law: of the stage, for a step whose noise has the exact posterior's covariance.
        done: called after every reverse step.

    Raises:
        ValueError: if the score is no finite tensor of the window's shape.
    """
    levels = stage.levels.to(window.device)
    steps = sampler_steps(levels, step).to(window)
    memory: dict[str, Tensor] = {}
    if len(window) <= batch:
        score = recalling(score, shown)

    def value(m: int, at: Tensor) -> Tensor:
        said = torch.empty_like(at)
        for start in range(0, len(at), batch):
            rows = slice(start, start + batch)
            part = _without_modes(at[rows])
            own = score(part, levels[m], shown.rows(rows).seeing(stage.visible[min(m, stage.steps - 1)]))
            said[rows] = checked_score(own, part, stage.frames, levels[m]).reshape(at[rows].shape).to(at)
        return said

    for m in range(stage.steps):
        if step.advance is not None:
            here, there = partial(value, m), partial(value, m + 1)
            window = step.advance(Evaluation(window, levels[m], levels[m + 1], here, there, memory)).to(window)
            done()
            continue
        fresh = noise(stage.window)
        moved = (
            law.reverse_noise(m, fresh) if steps.variance is None else steps.variance[m].sqrt()[:, None] * fresh
        )
        stay = (1 - steps.moving[m]) + steps.mean_window[m]
        window = stay[:, None] * window + steps.mean_score[m][:, None] * value(m, window) + moved
        done()
    return window


class _KnownVideo(Protocol):
    """What :func:`generate` asks of a known video: the shape of its frames, its actions and the exact
    posterior."""

    @property
    def frame_dim(self) -> int: ...
    @property
    def modes(self) -> int: ...
    @property
    def action_dim(self) -> int: ...
    @property
    def device(self) -> torch.device: ...
    def require(self, frames: int) -> None: ...
    def draw(self, videos: int, frames: int, generator: torch.Generator) -> VideoBatch: ...
    def at(self, stage: Stage) -> Any: ...


def generate(
    score: Any,
    plan: Plan,
    ar_steps: int,
    videos: int,
    frame_dim: int | None = None,
    *,
    video: _KnownVideo | None = None,
    step: str | ReverseStep = "exponential",
    generator: torch.Generator | None = None,
    seed: int = 0,
    actions: Tensor | Callable[[Stage], Tensor] | None = None,
    prompt: Tensor | None = None,
    batch: int = 1024,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> Tensor:
    """Generates videos: the clean frames after ``ar_steps`` AR steps, (videos, F, d).

    All noise is drawn for all videos at once, in an order that the plan alone gives, so a seed's videos do not
    depend on ``batch`` (but for the rounding of a network that sums in another order), nor on the device if the
    generator is on the CPU. References are generated or given frames, noised afresh where the plan says so.

    Args:
        score: (window (batch, w, d), levels (w,), references) → score, or anything with ``as_score()``; the exact
            or a perturbed score of a known video; None for the exact score of ``video``.
        plan: the plan.
        ar_steps: K, the last AR step: F = ``plan.clean_frames(K)``, with a prompt too.
        videos: how many.
        frame_dim: d; that of the known video if there is one.
        video: a known video: it gives exact scores their law, ``ancestral`` steps their noise, and its actions
            where none are given.
        step: the reverse step; ``ancestral`` needs a known Gaussian video.
        generator: of every draw.
        seed: of the generator, if none is given.
        actions: (videos, ``plan.total_frames(K)`` or more, a), the action that leads to each frame; the score is
            told those of the references and of the window. Or a function that gives them for a stage, where what a
            network is told of a frame changes along the video (its pose as seen from the last frame).
        prompt: given first frames, (videos, p, d), in place of the initialisation stage and of the AR steps that
            would have put them out. For w = Δ, p is a multiple of Δ and the frames stand as they are. For w > Δ,
            p = w - Δ + jΔ: the first jΔ stand as they are, and the last w - Δ are noised to the input levels and
            denoised again with the frames to come. A plan that stops at δ > 0 takes them all to δ first.
        batch: the most videos that the score is called with at once; it bounds memory. If that is all of them, a
            network with a memory looks at the references once a stage, and in every reverse step else.
        dtype: of the videos; the network's own is :class:`~arvdm_theory.diffusion.prediction.NetworkScore`'s.
        device: where the videos are kept; that of the known video, or the CPU.
        progress: whether to show a progress bar over reverse steps.

    Returns:
        (videos, F, d); (videos, modes, F, d) for a known video of several modes.

    Raises:
        ValueError: for fewer than one video, AR step, entry or batch row, no score or step that a known law would
            be needed for, actions or a prompt that do not fit or are not finite, a video with too few frames, no
            AR step that starts after the prompt, or a score that is no finite tensor of the window's shape.

    Example:
        >>> from arvdm_theory.plan.methods import outpainting
        >>> from arvdm_theory.plan.references import References
        >>> plan = outpainting(window=2, references=References.last(2), reverse_steps=5, init_steps=5)
        >>> def score_of_white_noise(window, levels, references):
        ...     return -window
        >>> generate(score_of_white_noise, plan, 3, videos=5, frame_dim=4).shape
        torch.Size([5, 8, 4])
    """
    known = video if video is not None else getattr(score, "video", None)
    chosen, own = reverse_step(step), as_score(score, known, affine=False)
    if known is not None:
        known.require(plan.total_frames(ar_steps))
        frame_dim = known.frame_dim if frame_dim is None else frame_dim
        device = known.device if device is None else device
    _check(own, chosen, known, plan, ar_steps, videos, frame_dim, batch, dtype)
    assert frame_dim is not None
    modes = 1 if known is None else known.modes
    source = torch.Generator().manual_seed(seed) if generator is None else generator
    prompt, first = _prompt(prompt, plan, ar_steps, (videos, modes, frame_dim), dtype, device)
    frames = plan.total_frames(ar_steps)
    if actions is None and known is not None and known.action_dim:
        actions = known.draw(videos, frames, source).actions

    def told(stage: Stage) -> Tensor | None:
        given = actions(stage) if callable(actions) else actions
        given = _given(given, "actions", videos, dtype, device)
        if given is not None and given.shape[1] < frames:
            raise ValueError(
                f"{frames} frames are generated or begun, and have actions, but only {given.shape[1]} are given"
            )
        return given

    fixed = None if callable(actions) else told(plan.stage(0))

    def noise(count: int) -> Tensor:
        return standard_normal((videos, modes, count, frame_dim), source).to(device, dtype)

    total = (plan.init_steps if first == 0 else 0) + (ar_steps + 1 - max(first, 1)) * plan.reverse_steps
    with (
        torch.no_grad(),
        tqdm(total=total, desc="reverse steps", disable=not progress or None, leave=False) as bar,
    ):

        def denoise(stage: Stage, window: Tensor, references: Tensor) -> Tensor:
            shown = ReferenceBatch.shown(
                _without_modes(references), stage.reference_levels.to(device), stage.reference_frames,
                tuple(stage.frames), told(stage) if callable(actions) else fixed,
            )  # fmt: skip
            law = None if known is None or chosen.name != "ancestral" else known.at(stage)
            return reverse_stage(stage, own, chosen, window, shown, noise, batch=batch, law=law, done=bar.update)

        made = two_stages(plan, ar_steps, noise, denoise, prompt)
    return _without_modes(made)


def _without_modes(values: Tensor) -> Tensor:
    """(videos, modes, n, d) as scores are shown them: a video of one mode without the mode axis."""
    return values[:, 0] if values.shape[1] == 1 else values


def _check(
    score: object,
    step: ReverseStep,
    video: _KnownVideo | None,
    plan: Plan,
    ar_steps: int,
    videos: int,
    frame_dim: int | None,
    batch: int,
    dtype: torch.dtype,
) -> None:
    if frame_dim is None:
        raise ValueError("the entries of a frame, frame_dim, are needed where no video is known")
    wanted = {"AR step": ar_steps, "video": videos, "entry a frame": frame_dim, "video a batch": batch}
    for what, count in wanted.items():
        if count < 1:
            raise ValueError(f"at least one {what} is needed, got {count}")
    asked = score
    while isinstance(asked, GuidedScore):
        asked = asked.base
    if video is None and getattr(asked, "video", asked) is None:
        raise ValueError(
            f"{type(score).__name__} is a known video's score: give the video, generate(..., video=...)"
        )
    if not dtype.is_floating_point:
        raise ValueError(f"videos are of real numbers, not {dtype}")
    grid = torch.tensor([plan.ar_grid[0], plan.ar_grid[0]], dtype=torch.float64)
    if sampler_steps(grid, step).variance is None and video is None:
        raise ValueError(
            f"the noise of the {step.name} step has the exact posterior's covariance, which needs a known video: "
            "choose exponential, euler, ddpm or ddim, or generate(..., video=...)"
        )


def _prompt(
    prompt: Tensor | None,
    plan: Plan,
    ar_steps: int,
    shape: tuple[int, int, int | None],
    dtype: torch.dtype,
    device: torch.device | str | None,
) -> tuple[Tensor | None, int]:
    """The prompt with its mode axis, and the AR step that follows it (0: the initialisation is first)."""
    videos, modes, dim = shape
    if prompt is None:
        return None, 0
    if modes > 1:
        raise ValueError(f"a prompt is of videos of one mode, got one of {modes}")
    given = _given(prompt, "prompt", videos, dtype, device)
    assert given is not None
    if given.shape[-1] != dim:
        raise ValueError(f"the prompt's frames have {given.shape[-1]} entries, not {dim}")
    first = first_ar_step(plan, given.shape[1])
    if first > ar_steps:
        raise ValueError(
            f"the prompt of {given.shape[1]} frames leaves nothing to generate: AR step {first} would be next, "
            f"and {ar_steps} is the last"
        )
    return given.unsqueeze(1), first


def _given(
    values: Tensor | None, what: str, videos: int, dtype: torch.dtype, device: torch.device | str | None
) -> Tensor | None:
    if values is None:
        return None
    if values.ndim != 3 or len(values) != videos or not bool(torch.isfinite(values).all()):
        raise ValueError(
            f"the {what} must be finite numbers of shape ({videos}, frames, entries), got {tuple(values.shape)}"
        )
    return values.to(device, dtype)
