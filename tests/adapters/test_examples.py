"""Whole examples at smoke size: a network of diffusers is trained on clips, and assessed.

With a hundred times the steps each takes a minute or two and its score error falls by an order of magnitude.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from arvdm_theory import NetworkScore, References, assess
from arvdm_theory.adapters.diffusers import plan_from_scheduler

diffusers = pytest.importorskip("diffusers")
logging.getLogger("diffusers").setLevel(logging.ERROR)
STEPS = 40
LONG = ("schedule", "context-noise", "quality")


def pictures(count: int = 3, frames: int = 40, side: int = 8) -> list[NDArray[np.float64]]:
    """Clips (frames, side, side, 1) of a ball that bounces over a field whose light drifts."""
    rng, (down, right) = np.random.default_rng(0), np.mgrid[:side, :side].astype(float)
    found = []
    for _ in range(count):
        place = rng.uniform(0, side, 2) + rng.uniform(0.2, 0.6, 2) * np.arange(frames)[:, None]
        y, x = np.minimum(place % (2 * side), 2 * side - place % (2 * side)).T
        light = np.cumsum(0.1 * rng.normal(size=frames)) * 0.95 ** np.arange(frames)
        ball = np.exp(-((down - y[:, None, None]) ** 2 + (right - x[:, None, None]) ** 2) / 4)
        noise = 0.02 * rng.normal(size=(frames, side, side))
        found.append(np.clip(ball - 0.5 + light[:, None, None] + noise, -1, 1)[..., None])
    return found


def report(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "report.json").read_text())["facts"]
    assert (folder / "report.html").stat().st_size > 50_000
    return content


def test_a_unet_that_sees_two_frames_on_its_channels(tmp_path: Path) -> None:
    """One new frame at a time, as a world model makes them; ε-prediction, DDIM's levels."""
    clips = pictures()
    torch.manual_seed(0)
    model = diffusers.UNet2DModel(
        sample_size=8, in_channels=3, out_channels=1, block_out_channels=(16, 16), layers_per_block=1,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2, norm_num_groups=8,
    )  # fmt: skip
    scheduler = diffusers.DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
    frames = torch.tensor(np.stack(clips), dtype=torch.float32).permute(0, 1, 4, 2, 3)  # clips, frames, C, H, W

    def loss(batch: int = 16) -> Tensor:
        rows, at = torch.randint(len(frames), (batch,)), torch.randint(2, frames.shape[1], (batch,))
        new, past = frames[rows, at], [frames[rows, at - 2], frames[rows, at - 1]]  # oldest first
        noise, t = torch.randn_like(new), torch.randint(1000, (batch,))
        shown = torch.cat([scheduler.add_noise(new, noise, t), *past], 1)
        return ((model(shown, t).sample - noise) ** 2).mean()

    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    model.eval()

    network = NetworkScore.from_diffusers(
        model, scheduler, "BCHW", references="channels", memory=2, frame_shape=(8, 8, 1)
    )
    plan = plan_from_scheduler(scheduler, 3, window=1, stride=1, references=2)
    assess(clips, network, plan, modes=2, ar_steps=2, samples=32, step="ddpm", out=tmp_path, without=LONG)
    found = report(tmp_path)
    assert found["memory"]["own"]["value"] >= 0
    assert found["memory"]["curve"][0]["mb"]["value"] > 0.1  # without references
    assert found["network"]["totals"]["see"]["value"] > 3 * found["network"]["totals"]["see"]["stderr"] > 0
    assert len(found["decay"]["rows"]) >= 4


def test_a_transformer_that_is_told_a_timestep_a_frame(tmp_path: Path) -> None:
    """SkyReels-V2's transformer, one layer of it, trained by diffusion forcing: every frame at a time of its
    own."""
    clips = pictures()
    torch.manual_seed(0)
    model = diffusers.SkyReelsV2Transformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=1, out_channels=1,
        text_dim=8, freq_dim=16, ffn_dim=32, num_layers=1, rope_max_seq_len=32,
    )  # fmt: skip
    text = torch.zeros(1, 1, 8)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    frames = torch.tensor(np.stack(clips), dtype=torch.float32).permute(0, 4, 1, 2, 3)  # clips, C, frames, H, W

    def loss(batch: int = 8, length: int = 4) -> Tensor:
        rows = torch.randint(len(frames), (batch,)).tolist()
        starts = torch.randint(frames.shape[2] - length, (batch,)).tolist()
        clean = torch.stack([frames[i, :, s : s + length] for i, s in zip(rows, starts, strict=True)])
        noise, u = torch.randn_like(clean), torch.rand(batch, length)
        shown = (1 - u[:, None, :, None, None]) * clean + u[:, None, :, None, None] * noise
        said = model(
            shown, 1000 * u, text.expand(batch, -1, -1), enable_diffusion_forcing=True, return_dict=False
        )[0]
        return ((said - (noise - clean)) ** 2).mean()

    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    model.eval()

    network = NetworkScore.from_diffusers(
        model, scheduler, frame_shape=(8, 8, 1), conditioning={"encoder_hidden_states": text}
    )
    plan = plan_from_scheduler(scheduler, 4, window=2, stride=1, references=References.last(2))
    assert len({*plan.input_levels}) == 2  # two chunks in flight, at levels of their own
    assess(clips, network, plan, modes=2, ar_steps=2, samples=32, out=tmp_path, without=LONG)
    found = report(tmp_path)
    assert found["network"]["totals"]["see"]["value"] > 0
    assert found["check"]["rows"]
