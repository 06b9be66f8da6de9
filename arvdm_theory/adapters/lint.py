"""What is wrong with a ``scheduler_config.json``: timesteps repeated, skipped or off by one, noise that is not
pure, frames that come out noisy.

The timesteps are those of the three spacings of Lin et al. 2024 (2305.08891, table 2) as diffusers has them; no
scheduler is made.

Source: diffusers 0.42, ``schedulers/scheduling_*.py``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arvdm_theory.adapters.diffusers import _BY_RATIO, _FAMILIES, SchedulerError, schedule_from_config
from arvdm_theory.noise import NoiseSchedule
from arvdm_theory.plan.lint import Finding
from arvdm_theory.plan.lint.finding import left_at

__all__ = ["is_scheduler_config", "lint_scheduler"]

_SIGNS = ("_class_name", "beta_schedule", "trained_betas", "num_train_timesteps")
# Noise of about this level is seen: σ = 0.07.
_MUCH = 0.005
_USUALLY_LEADING = _BY_RATIO | {"TCDScheduler", "LCMScheduler", "UnCLIPScheduler"}


def is_scheduler_config(content: Mapping[str, Any]) -> bool:
    """Whether an object is meant to be a scheduler's config."""
    return any(key in content for key in _SIGNS)


def lint_scheduler(
    content: Mapping[str, Any], steps: int = 50, lines: Mapping[tuple[str | int, ...], int] | None = None
) -> list[Finding]:
    """All that is wrong with a scheduler's config, for a sampler of ``steps`` steps.

    Args:
        content: the object of ``scheduler_config.json``.
        steps: reverse steps, as ``set_timesteps`` is told.
        lines: the line of each value (:func:`arvdm_theory.plan.lint.plan_file.json_lines`).

    Raises:
        ValueError: for no steps.

    Example:
        >>> config = {"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.00085,
        ...           "beta_end": 0.012, "set_alpha_to_one": False, "steps_offset": 1}
        >>> sorted({finding.rule for finding in lint_scheduler(config)})
        ['0-T boundary', 'zero terminal SNR']
    """
    if steps < 1:
        raise ValueError(f"steps: a sampler takes at least one reverse step, got {steps}")
    return _Config(content, steps, lines or {}).findings()


class _Config:
    """The checks of one config."""

    def __init__(self, content: Mapping[str, Any], steps: int, lines: Mapping[tuple[str | int, ...], int]) -> None:
        self.content, self.steps, self.lines = content, steps, lines
        self.found: list[Finding] = []
        self.name = str(content.get("_class_name") or "")

    def say(self, severity: Any, rule: str, message: str, fix: str, *keys: str) -> None:
        """Adds a finding at the first of some keys that the file has."""
        line = next((self.lines[key,] for key in keys if (key,) in self.lines), None)
        self.found.append(Finding(severity, rule, message, fix, line))

    def findings(self) -> list[Finding]:
        """Runs the checks."""
        count = self.content.get("num_train_timesteps", 1000)
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= 10**6:
            self.say(
                "error",
                "format",
                f"num_train_timesteps is {count!r}",
                "a whole number, as in training",
                "num_train_timesteps",
            )
            return self.found
        if self.steps > count:
            self.say(
                "error",
                "levels",
                f"{self.steps} steps out of {count} timesteps",
                f"at most {count} steps",
                "num_train_timesteps",
            )
            return self.found
        if _FAMILIES.get(self.name) in ("flow", "edm") or self.content.get("use_flow_sigmas"):
            self.flow()
            return self.found
        if self.rising_betas():
            try:
                schedule = schedule_from_config(
                    {
                        "beta_start": 1e-4,
                        "beta_end": 0.02,
                        "beta_schedule": "linear",
                        "num_train_timesteps": 1000,
                        **self.content,
                    }
                )
            except SchedulerError as error:
                self.say(
                    "error",
                    "format",
                    str(error),
                    "a class and betas that diffusers has",
                    "_class_name",
                    "beta_schedule",
                    "trained_betas",
                )
                return self.found
            self.table(schedule, count)
        return self.found

    def rising_betas(self) -> bool:
        """Whether the betas are such; else says what is wrong with them."""
        before = len(self.found)
        for key in ("beta_start", "beta_end"):
            value = self.content.get(key, 0.01)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
                self.say(
                    "error", "format", f"{key} is {value!r}: each β lies between 0 and 1", "as in training", key
                )
        start, end = self.content.get("beta_start", 1e-4), self.content.get("beta_end", 0.02)
        if len(self.found) == before and start > end:
            self.say(
                "error",
                "monotonicity",
                f"β falls from {start:g} to {end:g}",
                "beta_start ≤ beta_end",
                "beta_start",
            )
        return len(self.found) == before

    def flow(self) -> None:
        """Flow matching and EDM, whose grids begin at pure noise and end clean."""
        shift = self.content.get("shift", 1.0)
        if isinstance(shift, bool) or not isinstance(shift, int | float) or not 0 < shift < math.inf:
            self.say("error", "format", f"the shift is {shift!r}", "a positive number, 1 for none", "shift")
        if self.content.get("invert_sigmas"):
            self.say(
                "warning",
                "monotonicity",
                "invert_sigmas counts from data to noise: 0 is pure noise",
                "leave it out, unless the network counts so",
                "invert_sigmas",
            )
        terminal = self.content.get("shift_terminal")
        if terminal and self.steps == 1:
            self.say(
                "error",
                "levels",
                "with one step shift_terminal divides zero by zero",
                "two steps or more, or no shift_terminal",
                "shift_terminal",
            )
        elif terminal:
            self.say(
                "warning",
                "0-T boundary",
                f"σ falls to {terminal} in all steps but the last, which goes from there to 0",
                "leave it out, unless the network was trained so",
                "shift_terminal",
            )

    def timesteps(self, count: int) -> NDArray[np.float64] | None:
        """The timesteps of the spacing, from the noisiest."""
        usual = "leading" if not self.name or self.name in _USUALLY_LEADING else "linspace"
        spacing = self.content.get("timestep_spacing", usual)
        offset = self.content.get("steps_offset", 0)
        if isinstance(offset, bool) or not isinstance(offset, int):
            self.say("error", "format", f"steps_offset is {offset!r}", "a whole number", "steps_offset")
            return None
        if spacing == "leading":
            times = np.arange(self.steps)[::-1] * float(count // self.steps) + offset
        elif spacing == "trailing":
            times = np.round(np.arange(count, 0, -count / self.steps)) - 1
        elif spacing == "linspace":
            times = np.linspace(0, count - 1, self.steps).round()[::-1]
        else:
            self.say(
                "error",
                "format",
                f"timestep_spacing is {spacing!r}",
                "leading, linspace or trailing",
                "timestep_spacing",
            )
            return None
        return np.asarray(times, dtype=np.float64)

    def table(self, schedule: NoiseSchedule, count: int) -> None:
        """Schedulers of a table of betas."""
        rescaled = bool(self.content.get("rescale_betas_zero_snr"))
        prediction = self.content.get("prediction_type", "epsilon")
        last = schedule.last_level
        if rescaled and prediction == "epsilon":
            self.say(
                "error",
                "zero terminal SNR",
                "the last timestep has no signal, and a predicted ε says nothing of the frame there",
                'a network that predicts v: "prediction_type": "v_prediction"',
                "rescale_betas_zero_snr",
            )
        if not rescaled and (left := left_at(last)) is not None:
            self.say(
                "warning",
                "zero terminal SNR",
                left,
                '"rescale_betas_zero_snr": true with a network that was trained so, or betas that leave less',
                "beta_end",
                "beta_schedule",
                "trained_betas",
            )
        if (times := self.timesteps(count)) is None:
            return
        keys = ("timestep_spacing", "steps_offset", "_class_name")
        if times[0] > count - 1:
            self.say(
                "error",
                "off by one",
                f"the first timestep is {times[0]:g}, and the table ends at {count - 1}",
                "steps_offset 0, or fewer steps",
                "steps_offset",
            )
        elif times[0] < count - 1:
            told = float(schedule.clock(times[0]))
            where = f"level {told:.3g}" if math.isinf(last) else f"level {told:.3g} instead of {last:.3g}"
            said = f"{self.steps} steps begin at timestep {times[0]:g} of {count}: pure noise is told as {where}"
            if rescaled or (last - told > 0.01 * last and left_at(told)):
                self.say(
                    "error" if rescaled else "warning",
                    "zero terminal SNR",
                    said,
                    '"timestep_spacing": "trailing"',
                    *keys,
                )
        if len(set(times.tolist())) < len(times):
            twice = next(t for t, after in itertools.pairwise(times) if t == after)
            self.say("error", "levels", f"timestep {twice:g} is taken twice", "fewer steps", *keys)
        if self.name in _BY_RATIO:
            self.by_ratio(times, count, *keys)
        if not self.name or self.name in _BY_RATIO:
            self.end(times, count, schedule)
        if self.content.get("final_sigmas_type") == "sigma_min":
            self.say(
                "warning",
                "0-T boundary",
                f"frames come out at the first noise, level {float(schedule.clock(0)):.2g}, not clean",
                '"final_sigmas_type": "zero"',
                "final_sigmas_type",
            )

    def by_ratio(self, times: NDArray[np.float64], count: int, *keys: str) -> None:
        """Steps that go down by the ratio N // steps, whatever timestep comes next."""
        reached = times[:-1] - count // self.steps
        off = np.flatnonzero(reached != times[1:])
        if off.size:
            i = int(off[0])
            self.say(
                "warning",
                "off by one",
                f"{off.size} of {len(times)} steps go elsewhere than the next begins: from "
                f"{times[i]:g} to {reached[i]:g}, and the network is then told {times[i + 1]:g}",
                f"steps that divide {count} (with leading or trailing spacing)",
                *keys,
            )

    def end(self, times: NDArray[np.float64], count: int, schedule: NoiseSchedule) -> None:
        """The level at which frames come out."""
        reached = times[-1] - count // self.steps
        if reached >= 0:
            level = float(schedule.clock(min(reached, count - 1)))
            self.say(
                "error" if level > _MUCH else "warning",
                "0-T boundary",
                f"the last step goes to timestep {reached:g}: frames come out at level {level:.2g}, not clean",
                "a spacing whose last step ends below timestep 0",
                "steps_offset",
                "timestep_spacing",
            )
        elif self.content.get("set_alpha_to_one", self.name != "PNDMScheduler") is False:
            same = times[-1] == 0
            what = "the last step goes from timestep 0 to itself" if same else "the last step goes to timestep 0"
            self.say(
                "warning",
                "off by one" if same else "0-T boundary",
                f"{what}: frames come out at level {float(schedule.clock(0)):.2g}, not clean",
                '"set_alpha_to_one": true',
                "set_alpha_to_one",
                "steps_offset",
            )
