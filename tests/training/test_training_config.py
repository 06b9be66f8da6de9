"""The training config: what it refuses, its learning rate and its JSON."""

import itertools
import json
import math

import pytest
import torch

from arvdm_theory.training.config import TrainingConfig, TrainingError
from arvdm_theory.training.devices import resolve_device


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"steps": 0}, "steps"),
        ({"steps": 10.0}, "steps"),
        ({"batch": 0}, "batch"),
        ({"lr": 0.0}, "lr"),
        ({"lr": math.nan}, "lr"),
        ({"lr_floor": 1.5}, "lr_floor"),
        ({"ema": 1.0}, "ema"),
        ({"betas": (0.9, 1.0)}, "betas"),
        ({"betas": (0.9,)}, "betas"),
        ({"grad_clip": -1.0}, "grad_clip"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"warmup": 50}, "warmup"),
        ({"seed": -1}, "seed"),
        ({"levels": "uniform"}, "levels"),
        ({"weighting": "min-snr"}, "weighting"),
        ({"device": "tpu"}, "device"),
        ({"keep": 0}, "keep"),
    ],
)
def test_a_wrong_field_is_named(changes: dict[str, object], field: str) -> None:
    with pytest.raises(TrainingError, match=f"^{field} "):
        TrainingConfig(**{"steps": 50, "warmup": 5, **changes})  # type: ignore[arg-type]


def test_the_rate_rises_to_its_peak_and_falls_to_its_floor() -> None:
    config = TrainingConfig(steps=110, warmup=10, lr=2.0, lr_floor=0.25)
    rates = [config.rate(step) for step in range(1, 111)]
    assert rates[:10] == pytest.approx([0.2 * step for step in range(1, 11)])
    assert max(rates) == rates[9] == 2.0
    assert config.rate(60) == pytest.approx(2.0 * (1 + 0.25) / 2)  # halfway down
    assert rates[-1] == 0.5
    assert all(a > b for a, b in itertools.pairwise(rates[9:]))


def test_the_average_starts_fast() -> None:
    config = TrainingConfig(steps=10**6, ema=0.999)
    assert config.decay(1) == 2 / 11
    assert config.decay(10**5) == 0.999
    assert all(config.decay(n) <= config.decay(n + 1) for n in range(1, 10**4, 97))


def test_a_config_comes_back_from_json() -> None:
    config = TrainingConfig(steps=7, warmup=2, betas=(0.8, 0.9), init_share=0.2, levels="continuous")
    assert TrainingConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    with pytest.raises(TrainingError, match="speed"):
        TrainingConfig.from_json({"steps": 7, "speed": 3})


def test_devices_are_the_best_there_is_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def machine(cuda: bool, mps: bool) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    machine(cuda=True, mps=True)
    assert resolve_device("auto").type == "cuda"
    machine(cuda=False, mps=True)
    assert resolve_device("auto").type == "mps"
    assert resolve_device("auto", torch.float64).type == "cpu"
    with pytest.raises(ValueError, match="no float64"):
        resolve_device("mps", torch.float64)
    machine(cuda=False, mps=False)
    assert resolve_device("auto").type == "cpu"
    with pytest.raises(ValueError, match="no device 'cuda'"):
        resolve_device("cuda")
    with pytest.raises(ValueError, match="one of auto, cuda, mps, cpu"):
        resolve_device("gpu")  # type: ignore[arg-type]
