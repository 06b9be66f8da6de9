"""Schedulers of the diffusers library, as objects or as a ``scheduler_config.json``: schedule, grid, plan.

The *schedule* (which level a timestep stands at) is computed here, in float64, from the numbers of the config. The
*grid* (which timesteps a sampler takes) is what the scheduler's own ``set_timesteps`` says, so its spacings,
Karras, exponential and beta sigmas and its shifts are the library's, whatever its version. A timestep t of
diffusers counts entries of a table of betas: ᾱ_t is what is left after t + 1 noising steps, and -1 is clean.

Nothing here imports diffusers but to make a scheduler of a config, which is to ask for it.

Source: diffusers 0.42, ``schedulers/scheduling_*.py``.
"""

from __future__ import annotations

import copy
import importlib
import itertools
import math
import warnings
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from arvdm_theory.noise import NoiseSchedule, clock_from_flow, clock_from_sigma
from arvdm_theory.plan.levels import HORIZON, pipeline, together
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.references import NoReferences, PlanError, References

__all__ = [
    "SchedulerError",
    "levels_from_scheduler",
    "plan_from_scheduler",
    "prediction_from_config",
    "schedule_from_config",
    "step_from_config",
]

Array = NDArray[np.float64]
Family = Literal["table", "sigma", "flow", "edm"]

#: What counts the noise: entries of a table alone, the σ of X + σ ε, flow-matching time, EDM's σ.
_FAMILIES: dict[str, Family] = {
    **dict.fromkeys(
        (
            "DDIMScheduler", "DDIMParallelScheduler", "DDPMScheduler", "DDPMParallelScheduler", "PNDMScheduler",
            "LCMScheduler", "TCDScheduler", "UnCLIPScheduler", "CogVideoXDDIMScheduler", "CogVideoXDPMScheduler",
        ),
        "table",
    ),
    **dict.fromkeys(
        (
            "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler",
            "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "LMSDiscreteScheduler",
            "DPMSolverSDEScheduler", "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler",
            "DEISMultistepScheduler", "UniPCMultistepScheduler", "SASolverScheduler",
        ),
        "sigma",
    ),
    **dict.fromkeys(
        (
            "FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler",
            "FlowMapEulerDiscreteScheduler", "LTXEulerAncestralRFScheduler", "HeliosScheduler",
        ),
        "flow",
    ),
    "EDMEulerScheduler": "edm",
    "EDMDPMSolverMultistepScheduler": "edm",
}  # fmt: skip

#: Schedulers whose step goes N // steps entries down the table, whatever timestep comes next.
_BY_RATIO = {
    "DDIMScheduler", "DDIMParallelScheduler", "DDPMScheduler", "DDPMParallelScheduler", "PNDMScheduler",
    "CogVideoXDDIMScheduler", "CogVideoXDPMScheduler",
}  # fmt: skip

#: The reverse step of ours that takes the same step.
_STEPS = {
    "DDIMScheduler": "ddim", "DDIMParallelScheduler": "ddim", "CogVideoXDDIMScheduler": "ddim",
    "EulerDiscreteScheduler": "ddim", "FlowMatchEulerDiscreteScheduler": "ddim",
    "HeunDiscreteScheduler": "heun", "FlowMatchLCMScheduler": "renoise",
}  # fmt: skip

_PREDICTIONS = {"epsilon": "epsilon", "sample": "x0", "v_prediction": "v", "flow_prediction": "flow"}


class SchedulerError(ValueError):
    """A scheduler or its config has no schedule or plan here; the message says which and why."""


# -- the schedule -----------------------------------------------------------------------------------------


def schedule_from_config(config: Any) -> NoiseSchedule:
    """Timestep ↔ OU level of a diffusers scheduler: what its network is told, read in the OU clock.

    Betas give level -Σ_{i ≤ t} log(1 - β_i) at timestep t, in float64 (diffusers' own float32 product is off by
    up to about 1e-6 of ᾱ, much of 1 - ᾱ at the first timesteps); flow matching tells 1000 u of (1 - u) X + u ε,
    whatever the shift of its grid; EDM's tells ¼ log σ. Rescaled to zero terminal signal-to-noise, the last
    timestep has no finite level.

    Args:
        config: the content of ``scheduler_config.json``, or a scheduler.

    Raises:
        SchedulerError: for a class or schedule of betas that is not known here, or numbers that make none.

    Example:
        >>> config = {"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.00085,
        ...           "beta_end": 0.012, "num_train_timesteps": 1000}
        >>> schedule = schedule_from_config(config)
        >>> float(schedule.clock(999).round(4)), float(schedule.native(1.0).round(1))
        (5.3687, 436.2)
    """
    name, settings = _read(config)
    needed = {"num_train_timesteps", "beta_start", "beta_end", "beta_schedule"}
    if _FAMILIES.get(name) in ("table", "sigma") and "trained_betas" not in settings and needed - set(settings):
        settings = _made(config).config  # what a class takes where its config is silent is its own affair
    family = _family(name, settings)
    count = _number(settings, "num_train_timesteps", 1000)
    if family == "flow":
        return NoiseSchedule.flow(scale=count)
    if family == "edm":
        return NoiseSchedule.edm()
    if settings.get("timestep_type") == "continuous" and settings.get("prediction_type") == "v_prediction":
        return NoiseSchedule.edm()
    kept = _signal(settings, int(count))
    betas = 1 - kept[1:] / np.where(kept[:-1] > 0, kept[:-1], 1.0)
    resampled = any(settings.get(f"use_{kind}_sigmas") for kind in ("karras", "exponential", "beta", "lu_lambdas"))
    straight = family == "sigma" and not resampled and settings.get("interpolation_type", "linear") == "linear"
    try:
        return NoiseSchedule.from_betas(betas, first=-1, interpolation="sigma" if straight else "log_sigma")
    except ValueError as error:
        raise SchedulerError(f"the scheduler's betas make no schedule: {error}") from None


def prediction_from_config(config: Any) -> str:
    """What the scheduler's network predicts, in our words: ``x0``, ``epsilon``, ``v`` or ``flow``.

    EDM's preconditioned output is no row of the table in :mod:`arvdm_theory.diffusion.prediction`:
    :mod:`arvdm_theory.adapters.networks` makes an ``x0`` of it.

    Raises:
        SchedulerError: for a class or prediction type that is not known here.
    """
    name, settings = _read(config)
    family = _family(name, settings)
    if family == "edm":
        return "x0"
    kind = settings.get("prediction_type", "flow_prediction" if family == "flow" else "epsilon")
    if kind not in _PREDICTIONS:
        raise SchedulerError(f"prediction_type is one of {', '.join(_PREDICTIONS)}, got {kind!r}")
    return _PREDICTIONS[kind]


def step_from_config(config: Any) -> str:
    """The reverse step of ours (:mod:`arvdm_theory.diffusion.steps`) that the scheduler takes.

    Raises:
        SchedulerError: where there is none: a multistep method of another order, say.
    """
    name, settings = _read(config)
    _family(name, settings)
    if name in ("DDPMScheduler", "DDPMParallelScheduler"):
        kinds = {"fixed_small": "ddpm", "fixed_large": "ddpm-large"}
        kind = settings.get("variance_type", "fixed_small")
        if kind in kinds:
            return kinds[kind]
        raise SchedulerError(f"DDPM's variance_type {kind!r} has no reverse step here: fixed_small or fixed_large")
    if name in ("DPMSolverMultistepScheduler", "EDMDPMSolverMultistepScheduler"):
        wanted = {"algorithm_type": "dpmsolver++", "solver_order": 2, "solver_type": "midpoint"}
        odd = [f"{key} {settings[key]!r}" for key, value in wanted.items() if settings.get(key, value) != value]
        if odd:
            raise SchedulerError(
                f"{name} with {odd[0]} has no reverse step here: dpmsolver++ of order 2, midpoint"
            )
        return "dpm++2m"
    if name in _STEPS and not settings.get("stochastic_sampling"):
        return _STEPS[name]
    raise SchedulerError(
        f"{name or 'a scheduler without a class'} takes a step that is none of ours: choose one by name "
        "(ddim is the Euler step of the probability flow)"
    )


# -- the grid and the plan --------------------------------------------------------------------------------


def levels_from_scheduler(
    scheduler: Any, steps: int, *, horizon: float | None = None, **settings: Any
) -> tuple[float, ...]:
    """The falling OU levels that a scheduler goes through in ``steps`` steps, its last σ included.

    Args:
        scheduler: a scheduler, which stays as it is, or its config, of which one is made (diffusers is needed).
        steps: as its ``set_timesteps`` is told.
        horizon: T in place of pure noise (flow-matching time 1, zero signal); left out, 10, or the second whole
            number above the first level after it (the last finite one of a table), where that is higher.
        **settings: further arguments of its ``set_timesteps``: ``mu`` of dynamic shifting, ``sigmas``.

    Raises:
        SchedulerError: for an unknown class, what ``set_timesteps`` refuses, a grid that rises.
    """
    own = copy.deepcopy(_made(scheduler))
    name, config = _read(own)
    family = _family(name, config)
    if config.get("use_dynamic_shifting") and settings.get("mu") is None:
        raise SchedulerError(f"{name} shifts its grid by resolution (use_dynamic_shifting): mu=... is needed")
    if config.get("invert_sigmas"):
        raise SchedulerError(f"{name} with invert_sigmas counts from data to noise: it has no reverse grid here")
    try:
        own.set_timesteps(steps, **settings)
    except (ValueError, TypeError, AssertionError) as error:
        raise SchedulerError(f"{name}.set_timesteps({steps}) says no: {error}") from None
    schedule = schedule_from_config(own)
    if family == "table":
        found = _table_levels(own, name, config, steps, schedule)
    else:
        sigmas = np.asarray(own.sigmas, dtype=np.float64)[: len(own.timesteps) + 1]  # log_linear has one too many
        if family == "flow":
            inside = np.where(sigmas < 1, sigmas, 0.0)
            found = np.where(sigmas < 1, clock_from_flow(inside), math.inf)
        else:
            found = clock_from_sigma(sigmas)
            last = schedule.last_level  # which float32 may round upwards
            found = np.where((found > last) & (found < last * (1 + 1e-5)), last, found)
    # Methods of several evaluations a step repeat a σ, and some last steps go nowhere (final_sigmas_type
    # sigma_min); float32 may even come back up a little.
    levels: list[float] = []
    for level in found.tolist():
        if not levels or not abs(level - levels[-1]) <= 1e-6 * level:
            levels.append(level)
    if any(after > before for before, after in itertools.pairwise(levels)) or len(levels) < 2:
        raise SchedulerError(f"the levels of {name} do not fall: it goes back to noise, or from data to noise")
    if math.isinf(levels[0]):
        above = levels[1] if schedule.kind == "flow" else schedule.levels[-2]
        above = HORIZON if above < HORIZON else math.ceil(above) + 1.0
        levels[0] = above if horizon is None else horizon
    if levels[0] <= levels[1]:
        raise PlanError(
            f"0-T boundary: the first level after pure noise is {levels[1]:.4g}: choose a horizon above"
        )
    if family == "sigma":
        _warn_of_other_times(own, name, schedule, levels[:-1])
    return tuple(levels)


def plan_from_scheduler(
    scheduler: Any,
    steps: int,
    window: int,
    stride: int,
    references: References | int = NoReferences,
    *,
    horizon: float | None = None,
    settings: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Plan:
    """The plan of ``window`` frames, ``stride`` of them new, that go through a scheduler's levels.

    For w = Δ they go together. For w > Δ, chunks of Δ frames follow one another steps · Δ/w steps apart (a
    pipeline), so that an AR step takes that many.

    Args:
        scheduler: a scheduler or its config; see :func:`levels_from_scheduler`.
        steps: of one frame's life, as its ``set_timesteps`` is told.
        window: w, a multiple of Δ.
        stride: Δ.
        references: a rule; a number means the last so many frames.
        horizon: as :func:`levels_from_scheduler`.
        settings: further arguments of ``set_timesteps``.
        **fields: further fields of :class:`~arvdm_theory.plan.plan.Plan`.

    Raises:
        SchedulerError: as :func:`levels_from_scheduler`.
        PlanError: if the window is no multiple of the stride, or the steps do not divide among its chunks.

    Example:
        >>> config = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
        >>> plan = plan_from_scheduler(config, 4, window=2, stride=2, references=3)
        >>> [round(row[0], 3) for row in plan.ar_grid]
        [10.0, 3.62, 1.191, 0.0, 0.0]
    """
    if stride < 1 or window < stride or window % stride:
        raise PlanError(f"stride: the window must be a multiple of the stride, got w = {window} and Δ = {stride}")
    levels = levels_from_scheduler(scheduler, steps, horizon=horizon, **(settings or {}))
    chunks, taken = window // stride, len(levels) - 1
    rule = References.last(references) if isinstance(references, int) else references
    named = {"name": _read(scheduler)[0] or "scheduler", "references": rule, **fields}
    if chunks == 1:
        return together(levels, window, **named)
    if taken % chunks:
        raise PlanError(f"steps: {taken} steps do not divide among the {chunks} chunks of {stride} in the window")
    return pipeline(levels, gap=taken // chunks, chunk=stride, **named)


# -- reading ------------------------------------------------------------------------------------------------


def _read(scheduler: Any) -> tuple[str, Mapping[str, Any]]:
    """The class of a scheduler and its settings."""
    if isinstance(scheduler, Mapping):
        return str(scheduler.get("_class_name") or ""), scheduler
    config = getattr(scheduler, "config", None)
    if not isinstance(config, Mapping) or not callable(getattr(scheduler, "set_timesteps", None)):
        raise SchedulerError(
            "a scheduler has a config and set_timesteps, as those of diffusers, or is the content of a "
            f"scheduler_config.json; got {type(scheduler).__name__}"
        )
    known = [base.__name__ for base in type(scheduler).__mro__ if base.__name__ in _FAMILIES]
    return (known or [type(scheduler).__name__])[0], config


def _family(name: str, settings: Mapping[str, Any]) -> Family:
    if not name and {"beta_schedule", "beta_start", "trained_betas"} & set(settings):
        return "table"  # betas alone make a schedule
    if name not in _FAMILIES:
        what = f"the scheduler class {name!r} is not known here" if name else "the config names no _class_name"
        raise SchedulerError(f"{what}; known are {', '.join(sorted(_FAMILIES))}")
    if name == "HeliosScheduler" and settings.get("stages", 3) != 1:
        raise SchedulerError(
            "HeliosScheduler with several stages changes resolution on the way: it has no one grid"
        )
    if settings.get("use_flow_sigmas"):
        return "flow"
    return _FAMILIES[name]


def _number(settings: Mapping[str, Any], key: str, default: float) -> float:
    value = settings.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise SchedulerError(f"{key} must be a finite number, got {value!r}")
    return float(value)


def _signal(settings: Mapping[str, Any], count: int) -> Array:
    """ᾱ of a clean frame and of timesteps 0..N-1, (N + 1,)."""
    if not 1 <= count <= 10**6:
        raise SchedulerError(f"num_train_timesteps must lie in 1..1000000, got {count}")
    start, end = _number(settings, "beta_start", 1e-4), _number(settings, "beta_end", 0.02)
    kind = settings.get("beta_schedule", "linear")
    if (given := settings.get("trained_betas")) is not None:
        betas = np.asarray(given, dtype=np.float64)
    elif kind == "linear":
        betas = np.linspace(start, end, count)
    elif kind == "scaled_linear":
        betas = np.linspace(start**0.5, end**0.5, count) ** 2
    elif kind == "sigmoid":
        betas = (end - start) / (1 + np.exp(-np.linspace(-6, 6, count))) + start
    elif kind in _ALPHA_BARS:
        bars = _ALPHA_BARS[kind](np.arange(count + 1) / count)
        betas = np.minimum(1 - bars[1:] / bars[:-1], 0.999)
    else:
        known = ", ".join(["linear", "scaled_linear", "sigmoid", *_ALPHA_BARS])
        raise SchedulerError(f"a beta_schedule is one of {known}, got {kind!r}")
    if betas.ndim != 1 or not betas.size or not np.all((betas > 0) & (betas < 1)):
        raise SchedulerError("the scheduler's betas must lie strictly between 0 and 1")
    kept = np.exp(np.cumsum(np.log1p(-betas)))
    if "snr_shift_scale" in settings:
        shift = _number(settings, "snr_shift_scale", 3.0)
        kept = kept / (shift + (1 - shift) * kept)
    if settings.get("rescale_betas_zero_snr"):
        # Lin et al. 2024, algorithm 1: the first ᾱ stays, the last becomes 0.
        root = np.sqrt(kept)
        kept = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    return np.concatenate([[1.0], kept])


_ALPHA_BARS: dict[str, Any] = {
    "squaredcos_cap_v2": lambda s: np.cos((s + 0.008) / 1.008 * np.pi / 2) ** 2,
    "exp": lambda s: np.exp(-12.0 * s),
    "laplace": lambda s: np.sqrt(1 / (1 + np.exp(_laplace(s)))),
}


def _laplace(s: Array) -> Array:
    """-log of the signal-to-noise ratio of the Laplace schedule."""
    value: Array = 0.5 * np.copysign(1.0, 0.5 - s) * np.log(1 - 2 * np.abs(0.5 - s) + 1e-6)
    return value


def _made(scheduler: Any) -> Any:
    """The scheduler itself, or one made of its config."""
    if not isinstance(scheduler, Mapping):
        return scheduler
    name, settings = _read(scheduler)
    _family(name, settings)
    if not name:
        raise SchedulerError("the config names no _class_name: a grid needs the scheduler's class")
    try:
        made = getattr(importlib.import_module("diffusers"), name)
        return made.from_config(dict(scheduler))
    except ImportError as error:
        reason = str(error).strip().splitlines()[0]
        raise SchedulerError(
            f"making a {name} of its config needs diffusers, pip install 'arvdm-theory[diffusers]': {reason}"
        ) from None
    except (ValueError, TypeError, AttributeError, NotImplementedError) as error:
        raise SchedulerError(f"no {name} can be made of this config: {error}") from None


def _warn_of_other_times(own: Any, name: str, schedule: NoiseSchedule, levels: list[float]) -> None:
    """Warns where the network is told timesteps at which no σ of the grid stands."""
    times = np.asarray(own.timesteps, dtype=np.float64)
    asked = np.asarray(schedule.native(levels))
    off = np.abs(asked[:, None] - times).min(1)
    if off.max() > 1.5:
        worst = int(off.argmax())
        sigma = math.sqrt(math.expm1(levels[worst]))
        warnings.warn(
            f"{name} tells its network timesteps that are not those of its σ: σ = {sigma:.4g} stands at "
            f"{asked[worst]:.1f}, and it tells none within {off[worst]:.1f} of that; a NetworkScore tells it",
            stacklevel=3,
        )


def _table_levels(own: Any, name: str, config: Mapping[str, Any], steps: int, schedule: NoiseSchedule) -> Array:
    """Levels of the timesteps of a scheduler that keeps no σ, and of what its last step goes to."""
    times = np.asarray(own.timesteps, dtype=np.float64)
    unique = times[np.concatenate([[True], times[1:] != times[:-1]])]
    ratio = int(_number(config, "num_train_timesteps", 1000)) // steps
    jumps = -np.diff(unique)
    if name in _BY_RATIO and np.any(jumps != ratio):
        i = int(np.argmax(jumps != ratio))
        warnings.warn(
            f"{name} with timestep_spacing {config.get('timestep_spacing')!r} takes the state at timestep "
            f"{unique[i]:g} to that of {unique[i] - ratio:g}, but tells the network {unique[i + 1]:g} next; the "
            "plan's levels are what the network is told",
            stacklevel=3,
        )
    end = 0.0 if config.get("set_alpha_to_one", name != "PNDMScheduler") else float(schedule.clock(0.0))
    lost = np.isinf(schedule.last_level) & (unique >= schedule.last)
    return np.append(np.where(lost, math.inf, schedule.clock(np.where(lost, -1.0, unique))), end)
