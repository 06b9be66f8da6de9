"""Native noise schedules of published methods read in the OU clock, and the geometry of pipelined windows.

A method states its levels as timesteps, σ or flow-matching times. Here they become OU levels of equal
signal-to-noise ratio (:mod:`arvdm_theory.noise`), never fractions of T. Flow-matching time 1 is pure noise and
has no finite level: the plan's finite horizon T stands in for it, which leaves e^{-T} of the signal's variance
in the first state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from arvdm_theory.noise import NoiseSchedule, clock_from_flow
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.references import Mask, NoReferences, PlanError, References

__all__ = [
    "HORIZON",
    "SCHEDULES",
    "chunk_causal_mask",
    "flow_levels",
    "named_schedule",
    "pipeline",
    "scaled_linear_schedule",
    "scheduled",
    "shifted_flow_time",
    "sigmoid_schedule",
    "staggered",
    "together",
]

#: Stands in for pure noise where a native schedule ends at no signal at all. It leaves a signal-to-noise ratio
#: of 4.5e-5, about that of the last timestep of the linear DDPM schedule (level 10.12).
HORIZON = 10.0


def flow_levels(times: Sequence[float], horizon: float = HORIZON) -> tuple[float, ...]:
    """OU levels of flow-matching times t ∈ [0, 1] (state (1 - t) X + t ε), with ``horizon`` in place of t = 1.

    Raises:
        PlanError: a level below pure noise lies above the horizon.

    Example:
        >>> flow_levels((1.0, 0.5, 0.0))
        (10.0, 0.6931471805599453, 0.0)
    """
    levels = tuple(horizon if time == 1 else float(clock_from_flow(time)) for time in times)
    for time, level in zip(times, levels, strict=True):
        if level > horizon:
            raise PlanError(
                f"0-T boundary: flow-matching time {time:.6g} stands at level {level:.4g}, above T = {horizon}; "
                "choose a larger horizon"
            )
    return levels


def shifted_flow_time(time: ArrayLike, shift: float) -> tuple[float, ...]:
    """The resolution-shifted flow-matching time s t / (1 + (s - 1) t) (Esser et al. 2024, eq. 23).

    Example:
        >>> shifted_flow_time((1.0, 0.75, 0.0), shift=5.0)
        (1.0, 0.9375, 0.0)
    """
    t = np.asarray(time, dtype=np.float64)
    return tuple((shift * t / (1 + (shift - 1) * t)).tolist())


def scaled_linear_schedule(start: float, end: float, steps: int = 1000) -> NoiseSchedule:
    """The latent-diffusion schedule: β_n = (√start + n/(N-1) (√end - √start))² (Rombach et al. 2022)."""
    return NoiseSchedule.from_betas(tuple((np.linspace(start**0.5, end**0.5, steps) ** 2).tolist()))


def sigmoid_schedule(steps: int = 1000, start: float = -3.0, end: float = 3.0) -> NoiseSchedule:
    """The sigmoid schedule of Jabri et al. 2022 at temperature 1, its last β held at 0.999.

    ᾱ(s) = (sgm(end) - sgm(start + s (end - start))) / (sgm(end) - sgm(start)) for s = n/N, β_n = 1 - ᾱ_n/ᾱ_{n-1}.
    """
    s = np.linspace(start, end, steps + 1)
    kept = 1 / (1 + np.exp(-end)) - 1 / (1 + np.exp(-s))
    betas = 1 - kept[1:] / kept[:-1]
    betas[-1] = 0.999  # the formula gives 1, which leaves no signal and no finite level
    return NoiseSchedule.from_betas(tuple(betas.tolist()))


_NAMED: dict[str, tuple[float | None, Callable[[float], NoiseSchedule]]] = {
    "linear": (None, lambda _: NoiseSchedule.ddpm()),
    "scaled-linear": (None, lambda _: scaled_linear_schedule(0.00085, 0.012)),
    "sigmoid": (None, lambda _: sigmoid_schedule()),
    "cosine": (0.008, NoiseSchedule.cosine),
    "flow": (1.0, NoiseSchedule.flow),
}
SCHEDULES = tuple(_NAMED)
"""The names of noise schedules; see :func:`named_schedule`."""


def named_schedule(name: str) -> NoiseSchedule:
    """A noise schedule by name.

    ``linear`` (Ho et al. 2020, 1000 timesteps), ``scaled-linear`` (Rombach et al. 2022), ``sigmoid`` (Jabri et al.
    2022), ``cosine`` or ``cosine:offset`` (Nichol and Dhariwal 2021), ``flow`` or ``flow:shift`` (Esser et al.
    2024).

    Raises:
        PlanError: if there is none of that name, or its number is none.
    """
    kind, _, given = name.partition(":")
    if kind not in _NAMED or (given and _NAMED[kind][0] is None):
        raise PlanError(
            f"levels: a schedule is one of {', '.join(SCHEDULES)}, the last two also with a number, as in "
            f"'flow:3'; got {name!r}"
        )
    usual, make = _NAMED[kind]
    try:
        return make(float(given) if given else usual or 0.0)
    except ValueError as error:
        raise PlanError(f"levels: {name!r} is no schedule: {error}") from error


def scheduled(
    schedule: str | NoiseSchedule,
    window: int = 2,
    stride: int | None = None,
    references: References = NoReferences,
    reverse_steps: int = 20,
    init_steps: int = 20,
    horizon: float | None = None,
    floor: float = 0.0,
) -> Plan:
    """The plan whose levels are equally far apart in the native time of a noise schedule.

    With native time s in units of the schedule's last one, frame j enters at s = 1 - ⌊(w - j)/Δ⌋ Δ/w, and inside a
    step its s falls evenly; where a schedule is a table, s is rounded to its entries.

    Args:
        schedule: a schedule, or its name (:func:`named_schedule`).
        window: w.
        stride: Δ; w if left out.
        references: the reference rule.
        reverse_steps: M_AR.
        init_steps: M_init.
        horizon: T, which stands in for pure noise where the schedule ends at no signal (10 if left out). Where it
            ends at a level, that is T.
        floor: δ; 0 for a table, whose first entry is clean.

    Raises:
        PlanError: for another schedule, a T or δ that it does not have, or more steps than entries.

    Example:
        >>> [round(row[0], 3) for row in scheduled("cosine", reverse_steps=4).ar_grid]
        [10.0, 1.936, 0.706, 0.166, 0.0]
    """
    own = named_schedule(schedule) if isinstance(schedule, str) else schedule
    name = schedule if isinstance(schedule, str) else schedule.kind
    table, end, entries = own.kind == "table", own.last_level, int(own.last - own.first) if own.levels else 0
    if not 1 <= (stride := window if stride is None else stride) <= window:
        raise PlanError(f"stride: it must lie in 1..w = {window}, got {stride}")
    if min(reverse_steps, init_steps) < 1:
        raise PlanError(f"steps: at least one reverse step is needed, got {min(reverse_steps, init_steps)}")
    if table and max(reverse_steps, init_steps) > entries:
        raise PlanError(
            f"steps: {name} has {entries} timesteps, too few for {max(reverse_steps, init_steps)} steps"
        )
    if (table and floor != 0) or (end < math.inf and horizon is not None):
        raise PlanError(f"0-T boundary: {name} has its own ends, δ = 0 and T = {end:.6g}: leave them out")
    pure = math.inf if end < math.inf else own.last
    end = end if end < math.inf else HORIZON if horizon is None else horizon
    if not 0 <= floor < end < math.inf:
        raise PlanError(f"0-T boundary: 0 ≤ δ < T < ∞ is needed, got δ = {floor}, T = {end}")
    lowest = float(own.native(floor))

    def grid(start: NDArray[np.float64], finish: NDArray[np.float64], steps: int) -> tuple[tuple[float, ...], ...]:
        time = start + np.arange(steps + 1)[:, None] / steps * (finish - start)
        time = np.minimum(time.round() if table else time, own.last)
        levels = np.where(time < pure, own.clock(np.where(time < pure, time, lowest)), end)
        if levels.max() > end:
            raise PlanError(
                f"0-T boundary: {name} stands at level {levels.max():.4g} after pure noise, above T = {end:g}; "
                "choose a larger horizon"
            )
        return tuple(map(tuple, np.where(time <= lowest, floor, levels).tolist()))

    share = 1 - (window - np.arange(1, window + 1)) // stride * stride / window
    enters = own.first + share * (own.last - own.first)
    leaves = np.concatenate([np.full(stride, lowest), enters[: window - stride]])
    first = np.full(window - stride if window > stride else stride, own.last)
    ar = grid(enters, leaves, reverse_steps)
    return Plan(
        input_levels=ar[0],
        stride=stride,
        horizon=end,
        reverse_steps=reverse_steps,
        init_steps=init_steps,
        references=references,
        floor=floor,
        ar_grid=ar,
        init_grid=grid(first, np.full(len(first), lowest), init_steps),
        name=name,
    )


def chunk_causal_mask(window: int, chunk: int) -> Mask:
    """visible[i][j] = (⌊j/c⌋ ≤ ⌊i/c⌋): a frame sees its own chunk of c frames and the earlier ones."""
    return tuple(tuple(j // chunk <= i // chunk for j in range(window)) for i in range(window))


def together(levels: Sequence[float], frames: int, **fields: Any) -> Plan:
    """The plan of w = Δ = ``frames`` that go through ``levels`` together: from levels[0] = T to levels[-1] = δ."""
    return staggered(levels, (0,) * frames, **fields)


def staggered(levels: Sequence[float], delays: Sequence[int], **fields: Any) -> Plan:
    """The plan of w = Δ frames that all enter at T and come out at δ, frame j starting ``delays[j]`` steps late.

    The stagger lies inside the AR step (and the initialisation): M = S + the longest delay, and frame j stands at
    levels[clip(m - delays[j], 0, S)] after m steps.

    Args:
        levels: the S + 1 OU levels of one frame's life, falling from T to δ.
        delays: w whole numbers.
        **fields: further fields of :class:`Plan`.
    """
    last = len(levels) - 1
    steps = last + max(delays)
    grid = tuple(tuple(levels[min(max(m - delay, 0), last)] for delay in delays) for m in range(steps + 1))
    return Plan(
        input_levels=grid[0],
        stride=len(delays),
        horizon=levels[0],
        reverse_steps=steps,
        init_steps=steps,
        floor=levels[-1],
        ar_grid=grid,
        init_grid=grid,
        **fields,
    )


def pipeline(levels: Sequence[float], gap: int, chunk: int = 1, **fields: Any) -> Plan:
    """The plan of chunks in flight that take the same S steps, each ``gap`` steps behind the one before.

    Chunk b (b = 0 is the oldest of ⌈S/gap⌉) has S - gap (b + 1) of its S steps behind it when an AR step begins,
    none if that is negative, and makes at most ``gap`` in it. So M = gap, Δ = ``chunk`` and t^I of chunk b is
    levels[max(S - gap (b + 1), 0)]. The initialisation is the ramp of such pipelines: chunk b starts ``gap`` b
    steps after chunk 0, straight to the input levels (``warmup``).

    Args:
        levels: the S + 1 OU levels of one frame's life, falling from T to the level at which it comes out.
        gap: steps between neighbours, 1..S; S makes the chunks strictly one after the other (w = Δ).
        chunk: frames that stay at one level.
        **fields: further fields of :class:`Plan`.

    Raises:
        PlanError: the gap is not within 1..S.
    """
    steps = len(levels) - 1
    if not 1 <= gap <= steps:
        raise PlanError(f"steps: the gap between chunks must lie in 1..S = {steps}, got {gap}")
    if gap == steps:
        return together(levels, chunk, **fields)
    chunks = -(-steps // gap)

    def row(progress: Sequence[int]) -> tuple[float, ...]:
        return tuple(levels[max(p, 0)] for p in progress for _ in range(chunk))

    ar_grid = tuple(row([steps - gap * (b + 1) + m for b in range(chunks)]) for m in range(gap + 1))
    ramp = tuple(row([m - gap * b for b in range(chunks - 1)]) for m in range(steps - gap + 1))
    defaults: dict[str, Any] = {
        "init_steps": steps - gap,
        "init_grid": ramp,
        "initialisation": "warmup",
    }
    return Plan(
        input_levels=ar_grid[0],
        stride=chunk,
        horizon=levels[0],
        reverse_steps=gap,
        floor=levels[-1],
        ar_grid=ar_grid,
        **{**defaults, **fields},
    )
