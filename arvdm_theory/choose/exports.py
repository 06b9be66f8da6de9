"""A plan's grids in the units that samplers load: σ, flow-matching times, whole timesteps; and back.

====================  =========================================================================================
format                content
====================  =========================================================================================
sigma                 EDM's σ = √(e^t - 1) of the variance-exploding state
flow                  time σ/(1 + σ) of the flow-matching state (1 - u) X + u ε
timesteps             whole timesteps of a DDPM schedule, as networks count them (n - 1 after n noising steps)
diffusers             σ and the scheduler_config.json of diffusers' EulerDiscreteScheduler
diffusers-flow        flow-matching times and that of its FlowMatchEulerDiscreteScheduler
====================  =========================================================================================

The first and the third kind of numbers belong to the same signal-to-noise ratio, never to the same fraction of a
horizon. σ and flow times are the levels themselves, to rounding; whole timesteps are not, and what the rounding
costs can be computed, since :func:`import_schedule` gives a plan.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from arvdm_theory.noise import NoiseSchedule, clock_from_flow, clock_from_sigma
from arvdm_theory.plan.levels import scaled_linear_schedule
from arvdm_theory.plan.plan import Plan

__all__ = ["DDPM_SCHEDULES", "EXPORTS", "check_export", "export_schedule", "import_schedule"]

EXPORTS = ("sigma", "flow", "timesteps", "diffusers", "diffusers-flow")
"""The formats that :func:`export_schedule` knows."""

DDPM_SCHEDULES: dict[str, tuple[float, float, str]] = {
    "linear": (1e-4, 0.02, "linear"),
    "stable-diffusion": (0.00085, 0.012, "scaled_linear"),
}
"""DDPM schedules of 1000 timesteps by name: first β, last β, and what diffusers calls them (Ho et al. 2020;
Rombach et al. 2022)."""

_FORMAT = "arvdm schedule"
_TRAINED = 1000
_Grid = Sequence[Sequence[float]]


def _ddpm(named: str | NoiseSchedule) -> NoiseSchedule:
    """A table whose native time counts entries, as networks are told it: -1 is clean."""
    if isinstance(named, NoiseSchedule):
        if named.kind != "table":
            raise ValueError(f"whole timesteps are those of a table of noise levels, got a {named.kind} schedule")
        return dataclasses.replace(named, first=-1.0)
    if named not in DDPM_SCHEDULES:
        raise ValueError(f"a DDPM schedule is one of {', '.join(DDPM_SCHEDULES)}, got {named!r}")
    start, end, kind = DDPM_SCHEDULES[named]
    table = NoiseSchedule.ddpm(_TRAINED, start, end) if kind == "linear" else scaled_linear_schedule(start, end)
    return dataclasses.replace(table, first=-1.0)


def check_export(plan: Plan, kind: str, schedule: str | NoiseSchedule = "linear", per_frame: bool = False) -> None:
    """Refuses what no grid between the plan's ends can be exported as, before one is looked for.

    Args:
        plan: the plan.
        kind, schedule: as of :func:`export_schedule`.
        per_frame: whether frames that the plan keeps at one level may get levels of their own.

    Raises:
        ValueError: as :func:`export_schedule`, but for levels that are the same timestep.
    """
    if kind not in EXPORTS:
        raise ValueError(f"a format is one of {', '.join(EXPORTS)}, got {kind!r}")
    if kind in ("timesteps", "diffusers"):
        _within(plan.horizon, _ddpm(schedule), schedule if isinstance(schedule, str) else "given")
    if kind == "diffusers" and not isinstance(schedule, str):
        raise ValueError(f"the scheduler's betas are those of one of {', '.join(DDPM_SCHEDULES)}")
    if kind.startswith("diffusers") and (per_frame or any(len(set(row)) > 1 for row in plan.ar_grid)):
        raise ValueError("diffusers' schedulers have one level for all frames; this plan's frames differ")
    if kind == "diffusers-flow" and plan.floor > 0:
        raise ValueError(
            f"FlowMatchEulerDiscreteScheduler always ends at 0, and the plan at its floor {plan.floor:g}"
        )


def export_schedule(plan: Plan, kind: str = "sigma", schedule: str | NoiseSchedule = "linear") -> dict[str, Any]:
    """The grids of both stages in a sampler's units.

    The rows of a grid whose frames share their levels become numbers; otherwise they stay rows of one number a
    frame. ``denoising_step_list`` holds the timesteps at which the network is evaluated, without the end.

    Args:
        plan: whose grids.
        kind: one of :data:`EXPORTS`.
        schedule: one of :data:`DDPM_SCHEDULES`, or a table of one's own, for ``timesteps``; for ``diffusers`` one
            of the former, whose network it is that is told σ as a timestep.

    Raises:
        ValueError: for another kind or schedule; if a level lies beyond the end of the DDPM schedule, or so near
            another one that both are the same timestep; or if diffusers is to load frames at different levels.

    Example:
        >>> from arvdm_theory import Plan
        >>> export_schedule(Plan((1.0,), 1, 1.0, 2, 1), "timesteps")["denoising_step_list"]
        [311, 218]
    """
    check_export(plan, kind, schedule)
    content: dict[str, Any] = {"format": _FORMAT, "kind": kind}
    stages = {"": plan.ar_grid, "init_": plan.init_grid}
    if kind == "timesteps":
        name = schedule if isinstance(schedule, str) else "given"
        content["schedule"] = name
        for stage, grid in stages.items():
            steps = _timesteps(grid, _ddpm(schedule), name)
            content[f"{stage}timesteps"] = _flat(steps)
            content[f"{stage}denoising_step_list"] = _flat(steps[:-1])
        return content
    flow = kind in ("flow", "diffusers-flow")
    for stage, grid in stages.items():
        sigma = np.sqrt(np.expm1(np.asarray(grid)))
        numbers = sigma / (1 + sigma) if flow else sigma
        content[f"{stage}{'times' if flow else 'sigmas'}"] = _flat(numbers.tolist())
    if kind.startswith("diffusers"):
        name = "times" if flow else "sigmas"
        content["scheduler_config"] = {"_class_name": "FlowMatchEulerDiscreteScheduler", **_FLOW_CONFIG}
        if not flow:
            content["scheduler_config"] = _euler_config(str(schedule))
        # What set_timesteps(sigmas=...) is given: with the end for σ, without it for flow times.
        content["set_timesteps"] = {"sigmas": content[name][: -1 if flow else None]}
    return content


def import_schedule(content: Mapping[str, Any], plan: Plan, schedule: str | NoiseSchedule | None = None) -> Plan:
    """A plan with the grids of an export in place of its own; its levels follow them.

    Args:
        content: what :func:`export_schedule` returned, or the JSON that was written of it.
        plan: whose window, stride and references are kept.
        schedule: whose timesteps they are; None: the one that the content names.

    Raises:
        ValueError: if it is no such content, or the grids do not fit the plan's stages.

    Example:
        >>> from arvdm_theory import outpainting
        >>> plan = outpainting(2, reverse_steps=4, init_steps=4)
        >>> again = import_schedule(export_schedule(plan, "flow"), plan)
        >>> max(abs(a[0] - b[0]) for a, b in zip(again.ar_grid, plan.ar_grid)) < 1e-14
        True
    """
    if content.get("format") != _FORMAT or content.get("kind") not in EXPORTS:
        raise ValueError(f'an exported schedule says "format": "{_FORMAT}" and its kind, {", ".join(EXPORTS)}')
    kind = content["kind"]
    name = "timesteps" if kind == "timesteps" else "times" if kind.endswith("flow") else "sigmas"
    grids = []
    for stage, frames in (("", plan.window), ("init_", plan.init_frames)):
        try:
            numbers = np.asarray(content[f"{stage}{name}"])
        except KeyError:
            raise ValueError(f"the exported schedule has no {stage}{name}") from None
        if name == "timesteps":
            levels = _ddpm(schedule or content.get("schedule", "")).clock(numbers)
        else:
            levels = clock_from_flow(numbers) if name == "times" else clock_from_sigma(numbers)
        if levels.ndim == 1:
            levels = np.repeat(levels[:, None], frames, 1)
        if levels.shape[1:] != (frames,):
            raise ValueError(f"{stage}{name}: rows of {frames} numbers are expected, got {levels.shape[1:]}")
        grids.append(levels)
    ar, init = grids
    ends = ar[0].copy()
    # What circularity equates is written twice: both ends are the same level, to the rounding of the units.
    ends[: plan.window - plan.stride] = ar[-1][plan.stride :]
    ar[0], init[0] = ends, ends[-1]
    floor = float(ar[-1][0])
    ar[-1][: plan.stride] = floor
    init[-1] = ends[: plan.init_frames] if plan.overlapping and plan.initialisation == "warmup" else floor
    return dataclasses.replace(
        plan, input_levels=tuple(ends.tolist()), output_levels=(), horizon=float(ends[-1]), floor=floor,
        reverse_steps=len(ar) - 1, init_steps=len(init) - 1,
        ar_grid=tuple(map(tuple, ar.tolist())), init_grid=tuple(map(tuple, init.tolist())),
    )  # fmt: skip


def _timesteps(grid: _Grid, schedule: NoiseSchedule, name: str) -> list[list[int]]:
    """The nearest timesteps, frame by frame; different levels of a frame stay different."""
    table = np.asarray(schedule.levels)
    columns = []
    for column in zip(*grid, strict=True):
        _within(column[0], schedule, name)
        nearest = [int(np.abs(table - level).argmin()) for level in column]
        for m, (above, below) in enumerate(itertools.pairwise(column)):
            if above > below and nearest[m] == nearest[m + 1]:
                raise ValueError(
                    f"levels {above:.4g} and {below:.4g} are both timestep {nearest[m] - 1} of the {name} schedule"
                )
        columns.append([n - 1 for n in nearest])
    return [list(row) for row in zip(*columns, strict=True)]


def _flat(rows: Sequence[Sequence[Any]]) -> list[Any]:
    """Numbers, where all frames have the same; else the rows."""
    return [row[0] for row in rows] if all(len(set(row)) == 1 for row in rows) else [list(row) for row in rows]


# It adds nothing of its own to the times that it is given.
_FLOW_CONFIG = {"num_train_timesteps": _TRAINED, "shift": 1.0, "use_dynamic_shifting": False}


def _euler_config(schedule: str) -> dict[str, Any]:
    start, end, kind = DDPM_SCHEDULES[schedule]
    return {
        "_class_name": "EulerDiscreteScheduler", "num_train_timesteps": _TRAINED, "beta_start": start,
        "beta_end": end, "beta_schedule": kind, "final_sigmas_type": "zero", "timestep_spacing": "trailing",
        "use_karras_sigmas": False,
    }  # fmt: skip


def _within(level: float, schedule: NoiseSchedule, name: str) -> None:
    if level > schedule.last_level * (1 + 1e-12):
        raise ValueError(
            f"level {level:g} lies beyond the end of the {name} schedule, {schedule.last_level:.4g} at its last "
            "timestep: choose a smaller horizon"
        )
