"""Plans for networks with a memory: given frames to remember, a short context, and frames to generate.

A video is cut into

    gap | memory (M) | context (c) | generated (g)

and all frames before the generated ones are given. The last c frames that are out are the short context, the M
before them the memory; both move along with the rollout, so that in the end a network remembers what it generated
itself. A network without memory sees the context alone. The gap, which nobody is shown, rounds what is given up to
a multiple of Δ. Where windows overlap (w > Δ) the last w - Δ given frames enter the window noised.

A window is denoised in one of four ways: all frames together (``outpainting``, w = Δ); in a window of parts, each
nearer to clean than the next, of one frame (``fifo``, Δ = 1, the pipelined schedule of FIFO-Diffusion) or of half
a window (``rolling``, Δ = w/2); or all from T to 0 in one AR step, but each frame begins later than the one before
it (``pyramid``, w = Δ, the pyramid schedule of Diffusion Forcing). What is shown may be noised (``noise``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

from arvdm_theory.diffusion.sampler import first_ar_step
from arvdm_theory.noise import NoiseSchedule
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.references import PlanError, References

__all__ = ["MemoryPlan", "PlanKind", "Schedule", "schedule_levels"]

PlanKind = Literal["outpainting", "fifo", "rolling", "pyramid"]
Schedule = Literal["cosine", "sigmoid"]

# Of the sigmoid schedule, Jabri et al. 2022: from -3 to 3, at temperature 1.
_SIGMOID_END = 3.0


@dataclass(frozen=True)
class MemoryPlan:
    """Which frames are remembered, given and generated, and at which noise levels.

    Attributes:
        memory: M ≥ 0, frames that are remembered; 0 is a network without memory.
        generated: g, frames that are generated.
        kind: ``outpainting``, ``fifo``, ``rolling`` or ``pyramid``.
        window: w; g must be a multiple of Δ.
        context: c ≥ 1, frames of the short context.
        gap_for: M of the videos' layout, where it is not this plan's own: a network with less memory, or none, is
            compared with one with more on the same frames.
        reverse_steps: M_AR; where windows overlap the steps of one AR step.
        horizon: T.
        schedule: levels are equally far apart in this schedule's native time.
        noise: levels that shown frames are noised to afresh, that of the last frame out first; the last one is
            that of all older ones. None: shown clean.

    Raises:
        PlanError: if a number is out of range or windows do not fit.

    Example:
        >>> plan = MemoryPlan(memory=8, generated=4)
        >>> plan.prompt, plan.last, plan.total_frames, list(plan.generated_frames)
        (12, 3, 16, [12, 13, 14, 15])
        >>> [r.frame for r in plan.plan.references_at(plan.last)]
        [2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    """

    memory: int
    generated: int = 4
    kind: PlanKind = "outpainting"
    window: int = 4
    context: int = 2
    gap_for: int | None = None
    reverse_steps: int = 16
    horizon: float = 8.0
    schedule: Schedule = "cosine"
    noise: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in get_args(PlanKind):
            raise PlanError(f"a plan with memory is {' or '.join(get_args(PlanKind))}, got {self.kind!r}")
        least = {"fifo": 2, "rolling": 2}.get(self.kind, 1)
        if self.window >= 1 and (self.window < least or (self.kind == "rolling" and self.window % 2)):
            even = "an even number of frames, " if self.kind == "rolling" else ""
            raise PlanError(f"a {self.kind} schedule has a window of {even}at least {least}, got {self.window}")
        if self.memory < 0 or self.laid_out < self.memory:
            raise PlanError(f"the memory holds at least 0 frames, and no more than are given, got {self.memory}")
        if self.context < 1 or self.generated < 1 or self.window < 1:
            raise PlanError(
                f"context, window and generated frames are 1 or more, got {self.context}, {self.window} and "
                f"{self.generated}"
            )
        if self.generated % self.stride:
            raise PlanError(
                f"{self.kind} generates {self.stride} frames at a time, which do not divide {self.generated}"
            )
        _ = self.plan

    @property
    def stride(self) -> int:
        """Δ."""
        return {"fifo": 1, "rolling": self.window // 2}.get(self.kind, self.window)

    @property
    def noised(self) -> int:
        """w - Δ, given frames that enter the window noised."""
        return self.window - self.stride

    @property
    def laid_out(self) -> int:
        """Frames of a video that are there to be remembered."""
        return self.memory if self.gap_for is None else self.gap_for

    @property
    def prompt(self) -> int:
        """How many frames are given."""
        seen = self.laid_out + self.context
        return -(-seen // self.stride) * self.stride + self.noised

    @property
    def near(self) -> int:
        """How many of the last given frames every network sees: the context, and what enters the window noised."""
        return self.context + self.noised

    @cached_property
    def first(self) -> int:
        """The first AR step after the given frames."""
        return first_ar_step(self.plan, self.prompt)

    @property
    def last(self) -> int:
        """K, the AR step that puts the last generated frame out."""
        return -(-(self.prompt + self.generated) // self.stride) - (not self.noised)

    @property
    def origin(self) -> int:
        """Where the last given frame stands, counted from the first frame of the window after it."""
        return self.prompt - 1 - self.plan.window_frames(self.first)[0]

    @property
    def total_frames(self) -> int:
        """Frames of a video that the AR steps touch."""
        return self.plan.total_frames(self.last)

    @property
    def generated_frames(self) -> range:
        """Indices of the generated frames."""
        return range(self.prompt, self.prompt + self.generated)

    def remembered(self, frame: int) -> range:
        """Given frames behind the short context that may still be remembered when a generated frame comes out."""
        out = frame - frame % self.stride
        return range(out - self.context - self.laid_out, self.prompt - self.near)

    @property
    def references(self) -> int:
        """The most frames that a network is shown."""
        return max(len(self.plan.references_at(k)) for k in range(self.first, self.last + 1))

    @cached_property
    def plan(self) -> Plan:
        """The plan itself."""
        w, m, stride = self.window, self.reverse_steps, self.stride
        if self.kind == "pyramid":
            # A frame begins 1/w of a frame's way after the one before it; that much longer is the whole.
            whole = 1 + (w - 1) / w
            shares = [
                [min(max(1 + j / w - whole * step / m, 0.0), 1.0) for j in range(w)] for step in range(m + 1)
            ]
        else:
            parts = w // stride
            stairs = [(j // stride + 1) / parts for j in range(w)]
            shares = [[high - step / m / parts for high in stairs] for step in range(m + 1)]
        columns = zip(*(schedule_levels(row, self.schedule, self.horizon) for row in shares), strict=True)
        grid = tuple(zip(*columns, strict=True))
        start = schedule_levels([1 - step / m for step in range(m + 1)], self.schedule, self.horizon)
        count = self.memory + self.context
        shown = References.none()
        # The first rule that names a frame decides its level.
        for lag, level in enumerate(self.noise[: count - 1], 1):
            shown = shown + References.last(lag, level)
        shown = shown + References.last(count, self.noise[-1] if self.noise else 0.0)
        return Plan(
            grid[0],
            stride,
            self.horizon,
            m,
            init_steps=m,
            references=shown,
            ar_grid=grid,
            init_grid=tuple((level,) * (self.noised or w) for level in start),
            name=self.kind,
        )


def schedule_levels(shares: list[float], schedule: Schedule, horizon: float) -> tuple[float, ...]:
    """OU levels at shares, from 0 to 1, of the native time that a schedule takes to reach ``horizon``.

    ``cosine`` is that of :class:`arvdm_theory.noise.NoiseSchedule`. ``sigmoid`` has the signal variance
    ᾱ(s) = (φ(b) - φ(b(2s - 1)))/(φ(b) - φ(-b)) with the logistic function φ and b = 3, so that
    ᾱ(s) = ½ (1 - tanh(b(s - ½))/tanh(b/2)); its native time is closed form too.

    Source: Jabri, Fleet and Chen 2022, *Scalable adaptive computation for iterative generation*, appendix.

    Raises:
        PlanError: for another schedule.

    Example:
        >>> schedule_levels([0.0, 1.0], "sigmoid", 8.0)
        (0.0, 8.0)
    """
    if schedule == "cosine":
        clock = NoiseSchedule.cosine()
        end = float(clock.native(horizon))
        inner = [float(clock.clock(end * share)) for share in shares]
    elif schedule == "sigmoid":
        b, scale = _SIGMOID_END, math.tanh(_SIGMOID_END / 2)
        end = 0.5 + math.atanh(scale * (1 - 2 * math.exp(-horizon))) / b
        signal = [(1 - math.tanh(b * (end * share - 0.5)) / scale) / 2 for share in shares]
        inner = [-math.log(value) for value in signal]
    else:
        raise PlanError(f"a schedule is {' or '.join(get_args(Schedule))}, got {schedule!r}")
    # The ends are exact: plans compare them.
    return tuple(
        0.0 if abs(share) < 1e-12 else horizon if share == 1 else level
        for share, level in zip(shares, inner, strict=True)
    )
