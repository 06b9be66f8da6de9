"""Other people's networks: planted ones that are exact, and small random ones of the library itself."""

from __future__ import annotations

import ast
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from planted import DIM, SHAPE, Planted, score, video
from torch import Tensor

from arvdm_theory import GuidedScore, NetworkScore, ReferenceBatch, References, generate, ledger
from arvdm_theory.adapters.diffusers import SchedulerError, levels_from_scheduler, plan_from_scheduler
from arvdm_theory.adapters.networks import NetworkError
from arvdm_theory.noise import NoiseSchedule, standard_normal
from arvdm_theory.plan import published
from arvdm_theory.plan.levels import together

diffusers = pytest.importorskip("diffusers")
logging.getLogger("diffusers").setLevel(logging.ERROR)


def betas_level(own: Any) -> Any:
    """Timestep ↦ OU level from the scheduler's own float32 product."""
    kept = own.alphas_cumprod.double()

    def level(timestep: Tensor) -> Tensor:
        return -torch.log(kept[timestep.round().long()])

    return level


def flow_level(timestep: Tensor) -> Tensor:
    u = (timestep / 1000).clamp(max=1 - 2.1e-9)  # T = 40, which float32 rounds to 1
    return torch.log1p((u / (1 - u)) ** 2)


def edm_level(timestep: Tensor) -> Tensor:
    return torch.log1p(torch.exp(8 * timestep))


def ddim(**settings: Any) -> Any:
    return diffusers.DDIMScheduler(timestep_spacing="trailing", clip_sample=False, **settings)


INTERFACES: dict[str, tuple[Any, Any, dict[str, Any], dict[str, Any]]] = {
    # scheduler, level of what is told, arguments of the planted network, of the adapter
    "epsilon, one timestep a sample": (ddim(), betas_level(ddim()), {"said": "epsilon"}, {}),
    "x0, frames first": (
        ddim(prediction_type="sample"), betas_level(ddim()), {"said": "x0", "layout": "BFCHW"},
        {"layout": "BFCHW", "told": "scalar"},
    ),
    "v, a timestep a frame": (
        ddim(prediction_type="v_prediction"), betas_level(ddim()), {"said": "v"}, {"told": "frame"},
    ),
    "v, diffusers' Euler": (
        diffusers.EulerDiscreteScheduler(prediction_type="v_prediction", timestep_spacing="trailing"),
        betas_level(ddim()), {"said": "v"}, {},
    ),
    "flow": (
        diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0), flow_level, {"said": "flow"}, {"told": "frame"},
    ),
    "EDM": (diffusers.EDMEulerScheduler(), edm_level, {"said": "x0", "edm": 0.5}, {}),
    "flat frames": (ddim(), betas_level(ddim()), {"said": "epsilon", "layout": "BFD"}, {"layout": "BFD"}),
}  # fmt: skip


@pytest.mark.parametrize("name", INTERFACES)
def test_an_exact_network_has_the_exact_ledger(name: str) -> None:
    """In float32, so x̂ is off by 2^-24 or so, the score by that over σ² ≥ 1e-3 and SEE by that squared."""
    own, level, planting, options = INTERFACES[name]
    plan = plan_from_scheduler(own, 4, 2, 2, 1)
    plan = together(
        (*[t for t in np.unique(plan.ar_grid)[::-1] if t > 1e-3], 0.0), 2, references=References.last(1)
    )
    network = Planted(level, 2, **planting)
    shape = {} if planting.get("layout") == "BFD" else {"frame_shape": SHAPE}
    score = NetworkScore.from_diffusers(network, own, **{**shape, **options}, batch=10_000)
    exact = ledger(video(plan.total_frames(2)), plan, 2)
    found = ledger(video(plan.total_frames(2)), plan, 2, score=score)
    assert found.stderr == {}
    for total in ("kl", "trajectory_kl", "ie", "see", "cross", "mb", "de"):
        assert found.totals[total] == pytest.approx(exact.totals[total], rel=3e-5, abs=3e-5), total
    frames = {shape[2] if planting.get("layout", "BCFHW") == "BCFHW" else shape[1] for shape, _ in network.seen}
    assert frames == {2, 3}  # the window, and a reference before it once there is one


def test_a_diffusion_forcing_network_hears_whole_levels_of_every_frame() -> None:
    """References stand before the window at their own level, noised to entry 20 of the table."""
    schedule = NoiseSchedule.from_betas(np.linspace(1e-4, 0.02, 1000), first=-1)
    rho = float(schedule.clock(20))
    times = [999, 600, 250, 50]
    plan = together((*schedule.clock(times).tolist(), 0.0), 2, references=References.last(2, rho))
    heard: list[Any] = []

    def model(x: Tensor, levels: Tensor, cond: Tensor) -> Tensor:
        heard.append((levels, cond))
        return network(x, levels)

    network = Planted(lambda t: torch.as_tensor(schedule.clock(t)), 2, "v", "BFCHW", clean=False)
    own = NetworkScore.from_diffusion_forcing(
        model, schedule, prediction="v", frame_shape=SHAPE, cond=torch.zeros(1, 7), batch=10_000
    )
    exact, found = (
        ledger(video(plan.total_frames(2)), plan, 2),
        ledger(video(plan.total_frames(2)), plan, 2, score=own),
    )
    for total in ("kl", "trajectory_kl", "see"):
        assert found.totals[total] == pytest.approx(exact.totals[total], rel=3e-5, abs=3e-5)
    assert all(levels.dtype == torch.long and cond.shape == (len(levels), 7) for levels, cond in heard)
    assert {tuple(levels[0].tolist()) for levels, _ in heard} == {
        *((t, t) for t in times), *((20, 20, t, t) for t in times)
    }  # fmt: skip


class Generator:
    """A generator with a key-value cache, exact for the planted video: it holds the frames that it was shown."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def __call__(
        self, noisy_image_or_video: Tensor, timestep: Tensor, current_start: int, kv_cache: list[Any], **more: Any
    ) -> tuple[Tensor, Tensor]:
        frames = noisy_image_or_video.permute(0, 1, 3, 4, 2).flatten(2).double()
        at = flow_level(timestep.double())
        a, s = torch.exp(-at / 2).unsqueeze(-1), torch.sqrt(-torch.expm1(-at)).unsqueeze(-1)
        noisy = frames * (a + s)
        self.calls.append((current_start, frames.shape[1]))
        past = [entry["k"] for entry in kv_cache if entry["start"] < current_start]
        shown = torch.cat([*past, noisy], 1)
        levels = torch.cat([torch.zeros(len(at), shown.shape[1] - at.shape[1], dtype=torch.float64), at], 1)
        value = score(shown, levels, frames.shape[1])
        kv_cache[:] = [entry for entry in kv_cache if entry["start"] != current_start]
        kv_cache.append({"start": current_start, "k": noisy})
        clean = torch.where(s > 0, (noisy + s**2 * value) / a, noisy)
        back = clean.reshape(*clean.shape[:2], *SHAPE).permute(0, 1, 4, 2, 3)
        return back * 0, back.to(noisy_image_or_video)


def test_a_cached_generator_is_shown_its_references_again() -> None:
    generator, schedule = Generator(), NoiseSchedule.flow(scale=1000)
    plan = published.self_forcing(frames=2, horizon=12.0)
    own = NetworkScore.from_cached_generator(
        generator, schedule, lambda batch: {"kv_cache": []}, SHAPE, tokens=5, block=2, batch=10_000
    )
    exact, found = (
        ledger(video(plan.total_frames(2)), plan, 2),
        ledger(video(plan.total_frames(2)), plan, 2, score=own),
    )
    for total in ("kl", "trajectory_kl", "see"):
        assert found.totals[total] == pytest.approx(exact.totals[total], rel=3e-5, abs=3e-5)
    assert {start for start, _ in generator.calls} == {0, 10, 20}  # tokens of frames 0, 2 and 4
    # A rollout: an AR step's references are cached once, in blocks, and its reverse steps share them.
    generator.calls.clear()
    made = generate(own, plan, 2, videos=3, frame_dim=DIM, step="renoise")
    assert made.shape == (3, 6, DIM)
    assert generator.calls == [(0, 2)] * 4 + [(0, 2)] + [(10, 2)] * 4 + [(0, 2), (10, 2)] + [(20, 2)] * 4
    assert own.network.cost(4) == 3  # type: ignore[attr-defined]


# -- the library's own samplers --------------------------------------------------------------------------------

SAMPLERS = {
    "ddim": ddim(),
    "flow": diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    "heun": diffusers.HeunDiscreteScheduler(timestep_spacing="trailing", beta_start=1e-4, beta_end=0.02),
    "dpm++2m": diffusers.DPMSolverMultistepScheduler(timestep_spacing="trailing"),
    "euler": diffusers.EulerDiscreteScheduler(timestep_spacing="trailing"),
}


@pytest.mark.parametrize("name", ["ddim", "flow", "heun", "dpm++2m", "euler"])
def test_rollouts_are_the_librarys_own(name: str) -> None:
    """Both stages from the same noise; σ and the network are float32: 2e-5 of numbers of size 1."""
    own = SAMPLERS[name]
    plan = plan_from_scheduler(own, 8, 2, 2, 2, horizon=40.0 if name == "flow" else None)
    level = flow_level if name == "flow" else betas_level(ddim())
    network = Planted(level, 2, "flow" if name == "flow" else "epsilon")
    step = {"heun": "heun", "dpm++2m": "dpm++2m"}.get(name, "ddim")
    made = generate(
        NetworkScore.from_diffusers(network, own, frame_shape=SHAPE),
        plan,
        1,
        videos=3,
        frame_dim=DIM,
        step=step,
        seed=5,
    )
    source = torch.Generator().manual_seed(5)

    def pictures(frames: Tensor) -> Tensor:
        return frames.reshape(3, -1, *SHAPE).permute(0, 4, 1, 2, 3).float()

    def stage(noise: Tensor, references: Tensor) -> Tensor:
        ran = type(own).from_config(own.config)
        ran.set_timesteps(8)
        variance_exploding = hasattr(ran, "init_noise_sigma") and name in ("heun", "euler")
        x = pictures(noise) * (float(np.sqrt(1 + float(ran.sigmas[0]) ** 2)) if variance_exploding else 1.0)
        for t in ran.timesteps:
            scaled = ran.scale_model_input(x, t) if hasattr(ran, "scale_model_input") else x
            shown = torch.cat([pictures(references), scaled], 2)
            told = torch.full((3,), float(t), dtype=torch.float64)
            x = ran.step(network(shown, told)[:, :, -2:], t, x).prev_sample
        return x.permute(0, 2, 3, 4, 1).flatten(2).double()

    first = standard_normal((3, 1, 2, DIM), source)[:, 0]
    draws = plan.init_steps if step == "ddim" else 0
    for _ in range(draws):
        standard_normal((3, 1, 2, DIM), source)
    started = stage(first, torch.zeros(3, 0, DIM))
    second = standard_normal((3, 1, 2, DIM), source)[:, 0]
    expected = torch.cat([started, stage(second, started)], 1)
    torch.testing.assert_close(made, expected, rtol=0, atol=2e-5)


# -- clipping and guidance ------------------------------------------------------------------------------------


def test_a_clipped_network_is_not_taken_for_affine() -> None:
    """At ±50 no probe and no true window ever meets the clip, and the numbers are those of the affine network."""
    own = ddim()
    plan = plan_from_scheduler(own, 3, 1, 1, 1)
    network = Planted(betas_level(own), 1, "epsilon")
    free = NetworkScore.from_diffusers(network, own, frame_shape=SHAPE, batch=10_000)
    far = NetworkScore(free.network, "epsilon", clip=50.0, batch=10_000)
    args = {"samples": 100, "memory": False}
    assert ledger(video(plan.total_frames(1)), plan, 1, score=free, **args).totals["ie"] is not None
    for bent in (far, GuidedScore(1.5, far)):
        assert bent.bends
        assert ledger(video(plan.total_frames(1)), plan, 1, score=bent, **args).totals["ie"] is None


def test_clipping_and_thresholding_are_the_schedulers_own() -> None:
    clean = torch.tensor([[[0.3, -2.0, 0.5, 4.0]]], dtype=torch.float64)
    none = ReferenceBatch(torch.zeros(1, 0, 4), torch.zeros(0), (), (0,))
    at = torch.tensor([1.0], dtype=torch.float64)

    def limited(own: Any) -> Tensor:
        score = NetworkScore.from_diffusers(
            lambda x, t: clean.to(x), own, "BFD", prediction="x0", dtype=torch.float64
        )
        value, window = score(torch.zeros_like(clean), at, none), 0.0
        return (window + -np.expm1(-1.0) * value) / np.exp(-0.5)

    torch.testing.assert_close(limited(diffusers.DDIMScheduler(clip_sample_range=1.5)), clean.clamp(-1.5, 1.5))
    thresholding = diffusers.DDIMScheduler(thresholding=True, dynamic_thresholding_ratio=0.8, sample_max_value=3.0)
    torch.testing.assert_close(limited(thresholding), thresholding._threshold_sample(clean.clone()))
    torch.testing.assert_close(limited(ddim()), clean)


def test_classifier_free_guidance_moves_away_from_the_unconditional_output() -> None:
    def model(sample: Tensor, timestep: Tensor, cond: Tensor) -> Tensor:
        return sample * 0 + cond.mean(-1)[:, None, None]

    given = {"conditioning": {"cond": torch.full((1, 3), 2.0)}, "unconditional": {"cond": torch.full((1, 3), 1.0)}}
    none = ReferenceBatch(torch.zeros(4, 0, 6), torch.zeros(0), (), (0, 1))
    own = NetworkScore.from_diffusers(model, ddim(), "BFD", guidance=3.0, prediction="x0", **given)
    score = own(torch.zeros(4, 2, 6), torch.ones(2), none)
    expected = np.exp(-0.5) * (1 + 3.0 * (2 - 1)) / -np.expm1(-1.0)
    torch.testing.assert_close(score, torch.full((4, 2, 6), float(expected)))
    with pytest.raises(NetworkError, match="guidance needs the unconditional arguments"):
        NetworkScore.from_diffusers(model, ddim(), "BFD", guidance=3.0)


def test_references_on_channels_stand_behind_every_frame_oldest_first() -> None:
    seen: list[Tensor] = []

    def model(sample: Tensor, timestep: Tensor) -> Tensor:
        seen.append(sample)
        return sample[:, :2]

    own = NetworkScore.from_diffusers(
        model, ddim(), "BCHW", references="channels", memory=3, frame_shape=(2, 2, 2), dtype=torch.float64
    )
    window, past = torch.randn(5, 2, 8, dtype=torch.float64), torch.randn(5, 2, 8, dtype=torch.float64)
    own(window, torch.tensor([1.0, 2.0]), ReferenceBatch(past, torch.zeros(2), (0, 1), (2, 3)))
    (stacked,) = seen
    assert stacked.shape == (10, 8, 2, 2)
    frame = window[3, 1].reshape(2, 2, 2).permute(2, 0, 1)
    old, new = (past[3, j].reshape(2, 2, 2).permute(2, 0, 1) for j in range(2))
    torch.testing.assert_close(stacked[7], torch.cat([frame, torch.zeros_like(frame), old, new]))


# -- real models of the library -------------------------------------------------------------------------------


def skyreels() -> Any:
    torch.manual_seed(0)
    return diffusers.SkyReelsV2Transformer3DModel(
        patch_size=(1, 1, 1), num_attention_heads=2, attention_head_dim=12, in_channels=2, out_channels=2,
        text_dim=8, freq_dim=16, ffn_dim=16, num_layers=1, rope_max_seq_len=32, num_frame_per_block=1,
    ).eval()  # fmt: skip


def test_skyreels_is_told_one_timestep_a_frame() -> None:
    model, text = skyreels(), torch.randn(1, 3, 8)
    own = NetworkScore.from_diffusers(
        model, diffusers.FlowMatchEulerDiscreteScheduler(shift=8.0), frame_shape=SHAPE,
        conditioning={"encoder_hidden_states": text},
    )  # fmt: skip
    window, past = torch.randn(2, 3, DIM), torch.randn(2, 2, DIM)
    levels, rho = torch.tensor([0.5, 2.0, 8.0], dtype=torch.float64), torch.full((2,), 4e-4)
    value = own(window, levels, ReferenceBatch(past, rho, (0, 1), (2, 3, 4)))
    at = torch.cat([rho.double(), levels])
    a, s = torch.exp(-at / 2), torch.sqrt(-torch.expm1(-at))
    shown = (torch.cat([past, window], 1) / (a + s)[:, None]).float()
    told = (1000 * s / (a + s)).float().expand(2, 5)
    with torch.no_grad():
        said = model(
            shown.reshape(2, 5, *SHAPE).permute(0, 4, 1, 2, 3), told, text.expand(2, -1, -1),
            enable_diffusion_forcing=True, return_dict=False,
        )[0]  # fmt: skip
    flow = said.permute(0, 2, 3, 4, 1).flatten(2)[:, 2:]
    clean = shown[:, 2:] - (s / (a + s))[2:, None].float() * flow
    expected = (a[2:, None] * clean - window) / s[2:, None] ** 2
    torch.testing.assert_close(value, expected.float(), rtol=1e-3, atol=1e-4)
    plan = published.skyreels_v2(ar_step=1, block=1, frames=3, overlap=2, steps=3)
    made = generate(own, plan, 1, videos=2, frame_dim=DIM, step="ddim")
    assert made.shape == (2, 6, DIM)
    result = ledger(video(plan.total_frames(1)), plan, 1, score=own, samples=16)
    assert result.totals["see"] > 0
    assert result.stderr["see"] > 0


def timestep_matrix() -> Any:
    """The pipeline's own method, cut out of its file: importing that needs a library of language models."""
    folder = Path(diffusers.__file__).parent / "pipelines" / "skyreels_v2"
    tree = ast.parse((folder / "pipeline_skyreels_v2_diffusion_forcing.py").read_text())
    (method,) = (
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name == "generate_timestep_matrix"
    )
    room: dict[str, Any] = {"torch": torch, "math": math}
    exec(compile(ast.Module([method], []), "pipeline", "exec"), room)
    return room[method.name]


@pytest.mark.parametrize(("ar_step", "block", "frames", "steps"), [(5, 5, 20, 30), (0, 1, 6, 10), (2, 1, 4, 8)])
def test_the_pipelines_timestep_matrix_is_the_catalogues_plan(
    ar_step: int, block: int, frames: int, steps: int
) -> None:
    """Row by row: what SkyReels-V2's pipeline tells its network of every latent is the plan's level of it."""
    own = diffusers.FlowMatchEulerDiscreteScheduler(shift=8.0)
    own.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps))
    matrix, _, updates, _ = timestep_matrix()(
        None, frames, own.timesteps, frames, ar_step, 0, block
    )  # fmt: skip
    plan = published.skyreels_v2(ar_step=ar_step, block=block, frames=frames, overlap=2, steps=steps)
    told = 1000 * NoiseSchedule.flow().native(np.array(plan.ar_grid))
    told[np.array(plan.ar_grid) == plan.horizon] = 1000.0
    assert matrix.shape == (plan.reverse_steps, frames)
    np.testing.assert_allclose(matrix.numpy(), told[:-1], atol=1.0)  # cut to whole numbers there
    moving = np.diff(np.array(plan.ar_grid), axis=0) < 0
    np.testing.assert_array_equal(updates.numpy(), moving)


@pytest.mark.parametrize("learned", [False, True])
def test_a_unet_of_pictures_takes_frames_as_a_batch(learned: bool) -> None:
    torch.manual_seed(0)
    model = diffusers.UNet2DModel(
        sample_size=8, in_channels=6, out_channels=2 * (2 if learned else 1), block_out_channels=(8,),
        layers_per_block=1, down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), norm_num_groups=4,
    ).eval()  # fmt: skip
    own = ddim()
    adapted = NetworkScore.from_diffusers(
        model, own, "BCHW", references="channels", memory=2, frame_shape=(8, 8, 2)
    )
    plan = plan_from_scheduler(own, 2, 1, 1, 2)
    made = generate(adapted, plan, 2, videos=2, frame_dim=128, step="ddim")
    assert made.shape == (2, 3, 128)
    assert torch.equal(made, generate(adapted, plan, 2, videos=2, frame_dim=128, step="ddim"))
    with torch.no_grad():
        frame = torch.randn(1, 2, 8, 8)
        said = model(torch.cat([frame, torch.zeros(1, 4, 8, 8)], 1), 40.0).sample[:, :2]
    level = torch.as_tensor(
        NoiseSchedule.from_betas(np.linspace(1e-4, 0.02, 1000), first=-1).clock(np.array([40.0]))
    )
    flat = frame.permute(0, 2, 3, 1).reshape(1, 1, 128)
    none = ReferenceBatch(torch.zeros(1, 0, 128), torch.zeros(0), (), (0,))
    expected = -said.permute(0, 2, 3, 1).reshape(1, 1, 128) / torch.sqrt(-torch.expm1(-level)).float()
    torch.testing.assert_close(adapted(flat, level, none), expected, rtol=1e-4, atol=1e-4)


# -- what cannot be -------------------------------------------------------------------------------------------


def test_bad_networks_have_one_clear_line() -> None:
    none = ReferenceBatch(torch.zeros(2, 0, 12), torch.zeros(0), (), (0, 1))
    window, levels = torch.zeros(2, 2, 12), torch.tensor([1.0, 1.0])

    def asked(model: Any, at: Tensor = levels, **options: Any) -> None:
        NetworkScore.from_diffusers(model, ddim(), **{"frame_shape": (2, 2, 3), **options})(window, at, none)

    def wrong(sample: Tensor, timestep: Tensor) -> Tensor:
        return sample[:, :, :, :1]

    linear = torch.nn.Conv3d(5, 5, 1)
    for model, options, words in [
        (wrong, {}, r"the network returned \(2, 3, 2, 1, 2\) where \(2, 3, 2, 2, 2\) was asked for"),
        (lambda x, t: linear(x), {}, r"refuses frames \(2, 3, 2, 2, 2\) and timesteps \(2,\): .*5 channels"),
        (lambda x, t: None, {}, "must return a tensor, or what has one as .sample, got NoneType"),
        (wrong, {"frame_shape": (2, 2, 2)}, r"frames of shape \(2, 2, 2\) \(H, W, C\) have no 12 entries"),
        (wrong, {"frame_shape": None}, r"no square pictures of the network's None channels: say frame_shape"),
        (
            wrong,
            {"at": torch.tensor([1.0, 2.0])},
            "stand at several levels, and this network is told one timestep",
        ),
        (wrong, {"layout": "HWC"}, "a layout is one of BCFHW, BFCHW, BCHW, BFD, got 'HWC'"),
        (wrong, {"colour": 1}, "no option 'colour'"),
        (3, {}, "a network can be called, which int cannot"),
    ]:
        with pytest.raises(NetworkError, match=words) as caught:
            asked(model, **options)
        assert "\n" not in str(caught.value)
    with pytest.raises(NetworkError, match="does not say what the network predicts"):
        NetworkScore.from_diffusers(wrong, NoiseSchedule.ddpm())
    with pytest.raises(SchedulerError, match="'Mine' is not known here"):
        NetworkScore.from_diffusers(wrong, {"_class_name": "Mine"})
    with pytest.raises(ValueError, match=r"level 11\.0 lies beyond the schedule's end, 10\.11"):
        asked(wrong, at=torch.tensor([11.0, 11.0]))
    nan = NetworkScore.from_diffusers(lambda x, t: x * torch.nan, ddim(), frame_shape=SHAPE)
    with pytest.raises(ValueError, match="the score of frames 1 to 1 is not finite at the levels"):
        generate(nan, plan_from_scheduler(ddim(), 2, 1, 1), 1, videos=1, frame_dim=DIM)
    assert levels_from_scheduler(ddim(), 2)[-1] == 0.0
