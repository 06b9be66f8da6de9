"""Schedules, grids and plans of diffusers' schedulers, held against the schedulers themselves."""

from __future__ import annotations

import copy
import inspect
import json
import logging
import math
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from arvdm_theory import PlanError, References
from arvdm_theory.adapters.diffusers import (
    _FAMILIES,
    SchedulerError,
    levels_from_scheduler,
    plan_from_scheduler,
    prediction_from_config,
    schedule_from_config,
    step_from_config,
)
from arvdm_theory.plan import published

diffusers = pytest.importorskip("diffusers")
logging.getLogger("diffusers").setLevel(logging.ERROR)

SINGLE = 2.0**-24
BETAS = [
    {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
    {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    {"beta_schedule": "squaredcos_cap_v2"},
]
RESAMPLED = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas", "use_flow_sigmas")


def made(name: str, **settings: Any) -> Any:
    """A scheduler with those of the settings that its class takes; None if it takes fewer, or needs more."""
    known = inspect.signature(getattr(diffusers, name)).parameters
    if not set(settings) <= set(known):
        return None
    try:
        return getattr(diffusers, name)(**settings)
    except (ImportError, NotImplementedError, ValueError):
        return None


def cases() -> list[Any]:
    """Every scheduler with every schedule of betas, spacing, resampling and shift that it takes."""
    found = []
    for name, family in _FAMILIES.items():
        choices: list[dict[str, Any]] = [{}]
        if family in ("table", "sigma") and "Parallel" not in name:
            choices += [{"beta_schedule": each} for each in ("scaled_linear", "squaredcos_cap_v2", "sigmoid")]
            choices += [{"beta_schedule": each} for each in ("laplace", "exp")]
            choices += [{"timestep_spacing": each} for each in ("linspace", "leading", "trailing")]
            choices += [{"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}]
            choices += [{key: True} for key in RESAMPLED]
            choices += [{"final_sigmas_type": "sigma_min"}, {"set_alpha_to_one": False}, {"steps_offset": 1}]
            choices += [{"prediction_type": "v_prediction", "timestep_type": "continuous"}]
            choices += [{"interpolation_type": "log_linear"}, {"snr_shift_scale": 1.5}]
            choices += [{"trained_betas": [0.01, 0.02] * 50, "num_train_timesteps": 100}]
            choices += [{"skip_prk_steps": True, "timestep_spacing": "leading"}]
        elif family == "flow":
            choices += [{"shift": 3.0}, {"shift_terminal": 0.02}, {"use_dynamic_shifting": True}]
            choices += [{"time_shift_type": "linear", "use_dynamic_shifting": True}]
            choices += [{key: True} for key in RESAMPLED[:3]]
        elif family == "edm":
            choices += [{"sigma_schedule": "exponential"}, {"final_sigmas_type": "sigma_min"}]
        for choice in choices:
            # A schedule of 1000 costs KDPM2 half a second to make, which interpolates entry by entry.
            more = {"stages": 1} if name == "HeliosScheduler" else {"num_train_timesteps": 40}
            own = made(name, **({**more, **choice} if name.startswith(("Helios", "KDPM2")) else choice))
            if own is not None:
                words = ", ".join(
                    f"{key} {value if key != 'trained_betas' else '...'}" for key, value in choice.items()
                )
                found.append(pytest.param(own, id=f"{name} {words}".strip()))
    return found


def grid(own: Any, steps: int = 10, **settings: Any) -> tuple[Any, tuple[float, ...]]:
    """The scheduler after its set_timesteps, and the levels."""
    if own.config.get("use_dynamic_shifting"):
        settings["mu"] = 1.15
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        levels = levels_from_scheduler(own, steps, **settings)
        ran = copy.deepcopy(own)
        ran.set_timesteps(steps, **{k: v for k, v in settings.items() if k != "horizon"})
    return ran, levels


@pytest.mark.parametrize("own", cases())
def test_every_scheduler_has_its_own_timesteps_sigmas_and_signal(own: Any) -> None:
    name, config, schedule = type(own).__name__, own.config, schedule_from_config(own)
    if schedule.kind == "table":
        # Each factor 1 - β of diffusers' float32 product is off by half a unit of β and of itself, each product by
        # as much: at most 2^-23 Σ 1/(1 - β) of ᾱ. Rescaling and the shift of signal-to-noise treble it.
        kept = np.asarray(own.alphas_cumprod, dtype=np.float64)
        finite = len(kept) - 1 if config.get("rescale_betas_zero_snr") else len(kept)
        factors = np.concatenate([[1.0], kept[1:] / np.where(kept[:-1] > 0, kept[:-1], 1)])[:finite]
        off = 3 * 2 * SINGLE * np.cumsum(1 / factors)
        found = np.exp(-schedule.clock(np.arange(finite)))
        assert np.all(np.abs(np.sqrt(found) - np.sqrt(kept[:finite])) <= off / 2)
        if finite == len(kept):
            assert np.all(np.abs(found - kept) <= off * kept)
    ran, levels = grid(own)
    asked, flow = schedule.native(levels[:-1]), _FAMILIES[name] == "flow" or config.get("use_flow_sigmas")
    if hasattr(ran, "sigmas"):
        expected = np.asarray(ran.sigmas, dtype=np.float64)[: len(ran.timesteps) + 1]
        expected = expected[np.concatenate([[True], np.abs(np.diff(expected)) > 1e-6 * expected[1:]])]
        told = np.sqrt(np.expm1(levels))
        told = told / (1 + told) if flow else told
        if flow and expected[0] == 1:
            told[0], asked[0] = 1.0, schedule.last  # the horizon stands for it
        # The scheduler's float32, read in float64; where its product lies above the schedule's end, it is the end.
        np.testing.assert_allclose(told[1:], expected[1:], rtol=4 * SINGLE)
        np.testing.assert_allclose(told[0], expected[0], rtol=1e-5)
    # What the network is told are timesteps that the scheduler lists. Of resampled σ, some classes cut them to
    # whole numbers. A whole one is where float32 σ lands again: at the first entries dσ/σ is 2^-24/(2 (1 - ᾱ)),
    # about 3e-4, and a step is log σ_1/σ_0 = 0.5 wide.
    times = np.asarray(ran.timesteps, dtype=np.float64)
    whole = np.all(times == np.round(times)) or name.startswith("KDPM2")  # whose half steps are not cut
    cut = any(config.get(key) for key in RESAMPLED) and whole
    if hasattr(ran, "sigmas") and config.get("rescale_betas_zero_snr"):
        # Their last ᾱ is 2^-24, above the one before it: σ is not largest where they say 999.
        assert asked[0] < times[0]
        asked = asked[1:]
    gaps = np.abs(asked[:, None] - times).min(1)
    if config.get("interpolation_type") == "log_linear":
        assert gaps.max() > 1.5  # σ is resampled there and its timesteps are not: see the warning
        return
    assert gaps.max() <= (1.0 if cut else 5e-3)
    # PNDM's Runge-Kutta start, and last steps that go nowhere, change the count.
    assert len(levels) - 1 in (10, len(np.unique(times)), len(np.unique(times)) - 1)


def test_schedulers_of_other_processes_are_refused_by_name() -> None:
    import diffusers.schedulers as schedulers

    refused = set()
    for name in dir(schedulers):
        if not name.endswith("Scheduler") or name in _FAMILIES:
            continue
        with pytest.raises(
            SchedulerError, match=f"the scheduler class '{name}' is not known here; known are CogVideoX"
        ):
            schedule_from_config({"_class_name": name})
        refused.add(name)
    # Tokens, masks, SDEs on other clocks, inversion and repainting, consistency models, policies: a new one is
    # for someone to decide.
    assert {"VQDiffusionScheduler", "RePaintScheduler", "DDIMInverseScheduler", "MiniMaxH3Scheduler"} <= refused


@pytest.mark.parametrize("name", ["DDIMScheduler", "EulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler"])
def test_a_config_file_is_as_good_as_its_scheduler(name: str, tmp_path: Any) -> None:
    own = getattr(diffusers, name)()
    own.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "scheduler_config.json").read_text())
    assert schedule_from_config(config) == schedule_from_config(own)
    assert schedule_from_config({"_class_name": name}) == schedule_from_config(own)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert levels_from_scheduler(config, 7) == levels_from_scheduler(own, 7)
    assert prediction_from_config(config) == prediction_from_config(own)
    assert step_from_config(config) == step_from_config(own) == "ddim"


def test_betas_alone_make_a_schedule_and_the_scheduler_stays_as_it_is() -> None:
    schedule = schedule_from_config({"trained_betas": [0.1, 0.2]})
    np.testing.assert_allclose(schedule.clock([-1, 0, 1]), [0, -math.log(0.9), -math.log(0.72)], rtol=1e-14)
    own = diffusers.DDIMScheduler()
    before = own.timesteps.clone()
    levels_from_scheduler(own, 10)
    assert torch.equal(own.timesteps, before)


def test_prediction_types_are_translated() -> None:
    for said, expected in {"epsilon": "epsilon", "sample": "x0", "v_prediction": "v"}.items():
        assert prediction_from_config(diffusers.DDIMScheduler(prediction_type=said)) == expected
    assert prediction_from_config(diffusers.FlowMatchEulerDiscreteScheduler()) == "flow"
    flow = diffusers.UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction")
    assert prediction_from_config(flow) == "flow"
    with pytest.raises(SchedulerError, match=r"prediction_type is one of epsilon, .*, got 'noise'"):
        prediction_from_config({"_class_name": "DDIMScheduler", "prediction_type": "noise"})


def test_steps_are_translated_or_refused() -> None:
    assert step_from_config(diffusers.DDPMScheduler()) == "ddpm"
    assert step_from_config(diffusers.DDPMScheduler(variance_type="fixed_large")) == "ddpm-large"
    assert step_from_config(diffusers.HeunDiscreteScheduler()) == "heun"
    assert step_from_config(diffusers.DPMSolverMultistepScheduler()) == "dpm++2m"
    for own in (
        diffusers.DPMSolverMultistepScheduler(solver_order=3),
        diffusers.UniPCMultistepScheduler(),
        diffusers.DDPMScheduler(variance_type="learned"),
        diffusers.FlowMatchEulerDiscreteScheduler(stochastic_sampling=True),
    ):
        with pytest.raises(SchedulerError, match=r"none of ours|no reverse step here"):
            step_from_config(own)


def test_plans_go_through_the_schedulers_levels_together_or_in_a_pipeline() -> None:
    own = diffusers.DDIMScheduler(timestep_spacing="trailing")
    levels = levels_from_scheduler(own, 8)
    together = plan_from_scheduler(own, 8, 3, 3, References.last(2, 0.1))
    assert together.ar_grid == together.init_grid == tuple((level,) * 3 for level in levels)
    assert together.references == References.last(2, 0.1)
    pipe = plan_from_scheduler(own, 8, window=4, stride=1, references=3)
    assert pipe.input_levels == (levels[6], levels[4], levels[2], levels[0])
    assert pipe.reverse_steps == 2
    assert pipe.output_levels == (levels[8], levels[6], levels[4], levels[2])
    with pytest.raises(PlanError, match="8 steps do not divide among the 3 chunks of 1"):
        plan_from_scheduler(own, 8, 3, 1)
    with pytest.raises(PlanError, match="multiple of the stride, got w = 3 and Δ = 2"):
        plan_from_scheduler(own, 8, 3, 2)


def test_the_horizon_stands_for_pure_noise_above_the_first_level() -> None:
    """The rule gives the catalogue's own horizons, chosen by hand: 12 for SkyReels-V2 and 10 for Self-Forcing."""
    own = diffusers.FlowMatchEulerDiscreteScheduler(shift=8.0)
    sigmas = np.linspace(1, 1 / 30, 30).tolist()
    levels = levels_from_scheduler(own, 30, sigmas=sigmas)
    assert levels[0] == published.skyreels_v2().horizon
    np.testing.assert_allclose(levels, np.unique(published.skyreels_v2().ar_grid)[::-1], rtol=1e-4)
    assert levels_from_scheduler(own, 30, sigmas=sigmas, horizon=20.0)[0] == 20.0
    with pytest.raises(PlanError, match=r"first level after pure noise is 10\.89"):
        levels_from_scheduler(own, 30, sigmas=sigmas, horizon=10.0)
    zero = diffusers.DDIMScheduler(rescale_betas_zero_snr=True, timestep_spacing="trailing")
    last = float(schedule_from_config(zero).clock(998))
    assert levels_from_scheduler(zero, 10)[0] == math.ceil(last) + 1
    assert schedule_from_config(zero).native(last + 0.1) == 999.0


def test_a_step_that_lands_elsewhere_than_the_network_is_told_is_named() -> None:
    """DDIM steps N // steps entries down, whatever the spacing: linspace tells 888 after a step to 899."""
    own = diffusers.DDIMScheduler(timestep_spacing="linspace")
    with pytest.warns(UserWarning, match="at timestep 999 to that of 899, but tells the network 888 next"):
        levels_from_scheduler(own, 10)


def test_timesteps_that_belong_to_other_noise_are_named() -> None:
    with pytest.warns(UserWarning, match="tells its network timesteps that are not those of its σ"):
        levels_from_scheduler(diffusers.EulerDiscreteScheduler(interpolation_type="log_linear"), 10)


def test_bad_schedulers_have_one_clear_line() -> None:
    config = {"_class_name": "DDIMScheduler", "beta_start": 1e-4, "beta_end": 0.02, "num_train_timesteps": 1000}
    for bad, words in [
        ({"_class_name": "MyScheduler"}, "class 'MyScheduler' is not known here"),
        ({}, "names no _class_name"),
        ({**config, "beta_schedule": "zigzag"}, "beta_schedule is one of linear, .* got 'zigzag'"),
        (
            {**config, "beta_schedule": "linear", "beta_end": "0.02"},
            "beta_end must be a finite number, got '0.02'",
        ),
        ({**config, "beta_schedule": "linear", "beta_end": 2.0}, "strictly between 0 and 1"),
        ({**config, "beta_schedule": "linear", "num_train_timesteps": 0}, "must lie in 1..1000000, got 0"),
        (object(), "a scheduler has a config and set_timesteps"),
        ({"_class_name": "HeliosScheduler"}, "changes resolution on the way"),
    ]:
        with pytest.raises(SchedulerError, match=words) as caught:
            schedule_from_config(bad)
        assert "\n" not in str(caught.value)
    with pytest.raises(SchedulerError, match=r"shifts its grid by resolution .* mu=\.\.\. is needed"):
        levels_from_scheduler(diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), 4)
    with pytest.raises(SchedulerError, match=r"set_timesteps\(2000\) says no"):
        levels_from_scheduler(diffusers.DDIMScheduler(), 2000)
    with pytest.raises(SchedulerError, match="names no _class_name: a grid needs"):
        levels_from_scheduler({"trained_betas": [0.1]}, 1)


def test_nothing_imports_diffusers_unasked() -> None:
    code = (
        "import sys, arvdm_theory.adapters.diffusers as a;"
        "a.schedule_from_config({'trained_betas': [0.1]}); print('diffusers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
