"""Exported schedules are the same levels: read back here, and loaded by diffusers' own schedulers."""

from __future__ import annotations

import dataclasses
import importlib
import json
from typing import Any

import numpy as np
import pytest

from arvdm_theory import Plan, References, ar1, fifo, ledger, outpainting
from arvdm_theory.choose.exports import DDPM_SCHEDULES, EXPORTS, export_schedule, import_schedule
from arvdm_theory.noise import NoiseSchedule

PLANS = [
    dataclasses.replace(outpainting(2, References.last(2), reverse_steps=5, init_steps=4), spacing="cosine",
                        ar_grid=(), init_grid=()),
    fifo(4, References.last(1), reverse_steps=3, init_steps=6),
    Plan((1.0, 1.0, 5.0, 5.0), 2, 5.0, 4, 3, floor=0.01, initialisation="warmup"),
]  # fmt: skip


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("kind", ["sigma", "flow"])
def test_read_back_they_give_the_same_ledger(plan: Plan, kind: str) -> None:
    content = json.loads(json.dumps(export_schedule(plan, kind)))
    again = import_schedule(content, dataclasses.replace(plan, ar_grid=(), init_grid=(), spacing="flow:3"))
    own, other = (ledger(ar1(0.9), each, 3) for each in (plan, again))
    for name in ("kl", "trajectory_kl", "girsanov"):
        assert other.totals[name] == pytest.approx(own.totals[name], rel=1e-9), name


def test_timesteps_are_the_nearest_ones_and_those_that_networks_count() -> None:
    plan = dataclasses.replace(PLANS[0], input_levels=(5.0, 5.0), horizon=5.0, ar_grid=(), init_grid=(),
                               output_levels=())  # fmt: skip
    for name, (start, end, kind) in DDPM_SCHEDULES.items():
        betas = np.linspace(start, end, 1000) if kind == "linear" else np.linspace(start**0.5, end**0.5, 1000) ** 2
        levels = -np.log(np.cumprod(1 - betas))
        steps = export_schedule(plan, "timesteps", name)["denoising_step_list"]
        for step, row in zip(steps, plan.ar_grid, strict=False):
            assert step == np.abs(levels - row[0]).argmin()
        again = import_schedule(export_schedule(plan, "timesteps", name), plan)
        assert [row[0] for row in again.ar_grid[:-1]] == pytest.approx(levels[steps], rel=1e-10)
        assert again.ar_grid[-1] == (0.0, 0.0)
    table = NoiseSchedule.from_betas([0.05] * 120)
    own = export_schedule(plan, "timesteps", dataclasses.replace(table, first=3.0))
    assert own["denoising_step_list"] == export_schedule(plan, "timesteps", table)["denoising_step_list"]
    assert import_schedule(own, plan, table).horizon == pytest.approx(-97 * np.log(0.95))


def test_levels_beyond_a_schedule_are_refused() -> None:
    """ᾱ = e^{-t}: the linear betas end at OU level 10.12, Stable Diffusion's at 5.37."""
    ends = {}
    for name, (start, end, kind) in DDPM_SCHEDULES.items():
        betas = np.linspace(start, end, 1000) if kind == "linear" else np.linspace(start**0.5, end**0.5, 1000) ** 2
        ends[name] = -np.log1p(-betas).sum()
    assert ends == pytest.approx({"linear": 10.12, "stable-diffusion": 5.37}, abs=0.01)
    for name, end in ends.items():
        within, beyond = (Plan((end + e,), 1, end + e, 4) for e in (-1e-6, 0.01))
        assert export_schedule(within, "timesteps", name)["denoising_step_list"][0] == 999
        for kind in ("timesteps", "diffusers"):
            with pytest.raises(ValueError, match="beyond the end of the"):
                export_schedule(beyond, kind, name)


def test_what_cannot_be_exported_is_refused() -> None:
    with pytest.raises(ValueError, match="a format is one of"):
        export_schedule(PLANS[0], "logsnr")
    with pytest.raises(ValueError, match="a DDPM schedule is one of"):
        export_schedule(PLANS[0], "timesteps", "quadratic")
    with pytest.raises(ValueError, match="both timestep"):
        export_schedule(Plan((5.0,), 1, 5.0, 1000), "timesteps", "stable-diffusion")
    with pytest.raises(ValueError, match="one level for all frames"):
        export_schedule(PLANS[1], "diffusers")
    with pytest.raises(ValueError, match="table of noise levels"):
        export_schedule(PLANS[0], "timesteps", NoiseSchedule.cosine())
    with pytest.raises(ValueError, match="always ends at 0"):
        export_schedule(Plan((5.0,), 1, 5.0, 4, floor=0.01), "diffusers-flow")
    content = export_schedule(PLANS[1], "sigma")
    for broken, told in (
        ({**content, "format": "x"}, "an exported schedule says"),
        ({k: v for k, v in content.items() if k != "sigmas"}, "has no sigmas"),
        ({**content, "sigmas": [[1.0, 2.0], [0.0, 1.0]]}, "rows of 4 numbers"),
    ):
        with pytest.raises(ValueError, match=told):
            import_schedule(broken, PLANS[1])


@pytest.mark.parametrize("kind", [kind for kind in EXPORTS if kind not in ("sigma", "flow")])
def test_diffusers_schedulers_load_the_same_noise(kind: str, tmp_path: Any) -> None:
    plan = dataclasses.replace(PLANS[0], input_levels=(5.0, 5.0), horizon=5.0, ar_grid=(), init_grid=(),
                               output_levels=())  # fmt: skip
    content = export_schedule(plan, kind, "stable-diffusion")
    levels = np.array([row[0] for row in plan.ar_grid])
    sigma = np.sqrt(np.expm1(levels))
    if kind == "timesteps":
        module = pytest.importorskip("diffusers.schedulers.scheduling_ddpm")
        scheduler = module.DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
        scheduler.set_timesteps(timesteps=content["denoising_step_list"])
        there = -np.log(scheduler.alphas_cumprod[scheduler.timesteps].double().numpy())
        rounded = import_schedule(content, plan)
        # alphas_cumprod is a float32 product of up to a thousand factors: about 1000 · 2^-25 of it.
        assert there == pytest.approx([row[0] for row in rounded.ar_grid[:-1]], abs=1000 * 2.0**-25)
        return
    config = tmp_path / "scheduler_config.json"
    config.write_text(json.dumps(content["scheduler_config"]))
    flow = kind == "diffusers-flow"
    module = pytest.importorskip(
        f"diffusers.schedulers.scheduling_{'flow_match_euler' if flow else 'euler'}_discrete"
    )
    scheduler = getattr(module, content["scheduler_config"]["_class_name"]).from_pretrained(tmp_path)
    scheduler.set_timesteps(**content["set_timesteps"])
    expected = sigma / (1 + sigma) if flow else sigma
    assert scheduler.sigmas.numpy() == pytest.approx(expected, rel=2.0**-23, abs=0)
    assert importlib.import_module("diffusers").__version__
