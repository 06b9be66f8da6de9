"""Preconditioning against the formulas, checks, and the way to a score."""

import dataclasses
import json
import math

import pytest
import torch
from torch import Tensor, nn

from arvdm_theory.interfaces import ReferenceBatch, Score
from arvdm_theory.networks.config import DenoiserConfig, ModelError
from arvdm_theory.networks.denoiser import ARCHITECTURES, Denoiser

MEAN, SCALE = 0.7, 1.9
LEVELS = torch.tensor([0.01, 0.6, 7.0], dtype=torch.float64)
PREDICTIONS = ("x0", "epsilon", "v")


class Recorder(nn.Module):
    """A backbone that gives what it is told to and remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.parameter = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        self.output = torch.zeros(1)
        self.shown: tuple[Tensor, Tensor, ReferenceBatch] | None = None

    def forward(self, window: Tensor, levels: Tensor, references: ReferenceBatch) -> Tensor:
        self.shown = (window, levels, references)
        return self.output


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def told(batch: int = 5, references: int = 2, window: int = 3, d: int = 4) -> ReferenceBatch:
    frames = tuple(range(references + window))
    values = MEAN + SCALE * draw(batch, references, d, seed=1)
    return ReferenceBatch(values, LEVELS[:references], frames[:references], frames[references:])


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    backbone = Recorder()
    monkeypatch.setitem(ARCHITECTURES, "mlp", lambda config: backbone)
    return backbone


def denoiser(prediction: str = "v", **fields: object) -> Denoiser:
    config = DenoiserConfig("mlp", (4,), 3, 2, 0, prediction, MEAN, SCALE)  # type: ignore[arg-type]
    return Denoiser(dataclasses.replace(config, **fields))  # type: ignore[arg-type]


def test_the_backbone_sees_unit_scale(recorder: Recorder) -> None:
    recorder.output = draw(40000, 3, 1)
    net = denoiser(frame_shape=(1,))
    clean, noise = MEAN + SCALE * draw(40000, 3, 1, seed=2), draw(40000, 3, 1, seed=3)
    window = torch.exp(-LEVELS / 2)[:, None] * clean + torch.sqrt(1 - torch.exp(-LEVELS))[:, None] * noise
    given = told(40000, d=1)
    net(window, LEVELS, dataclasses.replace(given, values=window[:, :2]))
    assert recorder.shown is not None
    shown, levels, references = recorder.shown
    assert torch.equal(levels, LEVELS.expand(40000, 3))
    for values in (shown, references.values):
        # Standard errors: 1/√n of a mean, √(2/n) of a variance; four of them.
        assert float(values.mean(0).abs().max()) < 4 / math.sqrt(40000)
        assert float((values.var(0) - 1).abs().max()) < 4 * math.sqrt(2 / 40000)
    assert torch.equal(references.levels, LEVELS[:2])


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("per_video", [False, True])
def test_the_table_of_predictions(prediction: str, per_video: bool, recorder: Recorder) -> None:
    net, window = denoiser(prediction), draw(5, 3, 4)
    recorder.output = draw(5, 3, 4, seed=4)
    levels = LEVELS * torch.linspace(1, 2, 5, dtype=torch.float64)[:, None] if per_video else LEVELS
    value = net(window, levels, told())
    levels = levels.expand(5, 3)
    for video in range(5):
        for j in range(3):
            a, s = math.exp(-float(levels[video, j]) / 2), math.sqrt(-math.expm1(-float(levels[video, j])))
            w, f, u = window[video, j], recorder.output[video, j], math.hypot(a * SCALE, s)
            expected = {
                "x0": MEAN + SCALE * f,
                "epsilon": (w - s * f) / a,
                "v": MEAN + a * SCALE**2 / u**2 * (w - a * MEAN) - s * SCALE / u * f,
            }[prediction]
            torch.testing.assert_close(value[video, j], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_coarse_backbone_is_told_the_levels_as_they_are(prediction: str, recorder: Recorder) -> None:
    """Only what the backbone sees and says is in bfloat16: neither levels nor α and σ are rounded to it."""
    net, window = denoiser(prediction), draw(5, 3, 4)
    recorder.bfloat16()
    recorder.output = draw(5, 3, 4, seed=4).bfloat16()
    value = net.as_score().network(window.float(), LEVELS.float(), told(), None)
    assert recorder.shown is not None
    shown, levels, references = recorder.shown
    assert shown.dtype == references.values.dtype == torch.bfloat16
    assert torch.equal(levels, LEVELS.float().expand(5, 3))
    recorder.double().output = recorder.output.double()
    exact = net(window.float().double(), LEVELS.float().double(), told())
    assert value.dtype == torch.float32
    # Float32's 6e-8 a few times, of numbers of size 1/α = 33 at the highest level.
    torch.testing.assert_close(value.double(), exact, rtol=0, atol=1e-5)


def test_v_is_velocity_prediction_for_unit_scale_and_has_unit_targets_for_any(recorder: Recorder) -> None:
    window, recorder.output = draw(5, 3, 4), draw(5, 3, 4, seed=4)
    a, s = torch.exp(-LEVELS / 2)[:, None], torch.sqrt(-torch.expm1(-LEVELS))[:, None]
    value = denoiser("v", data_mean=0.0, data_scale=1.0)(window, LEVELS, told())
    torch.testing.assert_close(value, a * window - s * recorder.output, rtol=0, atol=1e-12)
    # F's target is what x̂ = X makes of it: u (x̂(F = 0) - X)/(σ s). In closed form, with X - μ = s X' and unit X',
    # ε, it is (α s ε - σ X')/u, of variance (α² s² + σ²)/u² = 1.
    clean, noise = draw(5, 3, 4, seed=5), draw(5, 3, 4, seed=6)
    u = torch.sqrt(a**2 * SCALE**2 + s**2)
    recorder.output = (a * SCALE * noise - s * clean) / u
    noisy = a * (MEAN + SCALE * clean) + s * noise
    torch.testing.assert_close(denoiser("v")(noisy, LEVELS, told()), MEAN + SCALE * clean, rtol=0, atol=1e-12)


def test_consistent_outputs_give_one_denoised_frame(recorder: Recorder) -> None:
    """F of each row, solved from the table for one and the same x̂."""
    window, wanted = draw(5, 3, 4), draw(5, 3, 4, seed=7)
    a, s = torch.exp(-LEVELS / 2)[:, None], torch.sqrt(-torch.expm1(-LEVELS))[:, None]
    u = torch.sqrt(a**2 * SCALE**2 + s**2)
    outputs = {
        "x0": (wanted - MEAN) / SCALE,
        "epsilon": (window - a * wanted) / s,
        "v": (MEAN + a * SCALE**2 / u**2 * (window - a * MEAN) - wanted) * u / (s * SCALE),
    }
    for prediction, output in outputs.items():
        recorder.output = output
        # ε is divided by α = 0.03 at the highest level.
        torch.testing.assert_close(denoiser(prediction)(window, LEVELS, told()), wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_output_precision_is_the_squared_slope(prediction: str, recorder: Recorder) -> None:
    net = denoiser(prediction)
    recorder.output = torch.zeros(1, 3, 4, dtype=torch.float64, requires_grad=True)
    net(draw(1, 3, 4), LEVELS, told(1)).sum().backward()
    slope = recorder.output.grad
    assert slope is not None
    expected = (1 / slope[0, :, 0]) ** 2
    torch.testing.assert_close(net.output_precision(LEVELS), expected, rtol=1e-12, atol=0)
    assert net.output_precision(LEVELS.expand(5, 3)).shape == (5, 3)


def test_a_network_is_a_score() -> None:
    torch.manual_seed(0)
    net = denoiser("v").double()
    score = net.as_score(batch=2)
    assert isinstance(score, Score)
    window, given = draw(5, 3, 4), told()
    a, variance = torch.exp(-LEVELS / 2)[:, None], -torch.expm1(-LEVELS)[:, None]
    expected = (a * net(window, LEVELS, given) - window) / variance
    # x̂ to rounding, divided by σ² = 0.01.
    torch.testing.assert_close(score(window, LEVELS, given), expected, rtol=0, atol=1e-12)


def test_a_config_survives_json() -> None:
    config = DenoiserConfig("unet", [8, 8, 3], 4, 6, 2, "epsilon", 0.5, 0.25, {"multipliers": [1, 2]})  # type: ignore[arg-type]
    assert config.frame_shape == (8, 8, 3)
    assert config.frame_dim == 192
    assert DenoiserConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    with pytest.raises(ModelError, match=r"not the config of a denoiser: .*'depth'"):
        DenoiserConfig.from_json({**config.to_json(), "depth": 3})
    with pytest.raises(ModelError, match=r"not the config of a denoiser: .*'window'"):
        DenoiserConfig.from_json({"architecture": "mlp", "frame_shape": [3]})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"architecture": "rnn"}, "the architecture is one of linear, mlp, transformer, unet, got 'rnn'"),
        ({"prediction": "flow"}, "the prediction is one of x0, epsilon, v, got 'flow'"),
        ({"frame_shape": (4, 4)}, r"the frame shape is \(d,\) or \(H, W, C\), got \(4, 4\)"),
        ({"frame_shape": (0,)}, r"the frame shape is \(d,\) or \(H, W, C\), got \(0,\)"),
        ({"window": 0}, "got 0, 2 and 0"),
        ({"references": -1}, "got 3, -1 and 0"),
        ({"action_dim": -1}, "got 3, 2 and -1"),
        ({"data_scale": 0.0}, "a finite mean and a positive scale, got 0.7, 0.0"),
        ({"data_mean": math.nan}, "a finite mean and a positive scale, got nan"),
    ],
)
def test_configs_that_cannot_be_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        denoiser(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("window", "levels", "changes", "message"),
    [
        ((5, 3, 3), (3,), {}, r"\(batch, at most 3 frames, 4\), got \(5, 3, 3\)"),
        ((5, 4, 4), (4,), {}, "at most 3 frames"),
        ((3, 4), (3,), {}, r"got \(3, 4\)"),
        ((5, 3, 4), (5,), {}, r"levels \(w,\) or \(batch, w\) are needed for \(5, 3, 4\), got \(5,\)"),
        ((5, 3, 4), (3,), {"values": draw(5, 3, 4)}, "at most 2 references .* got 3 values"),
        ((5, 3, 4), (3,), {"levels": LEVELS}, r"got 2 values, \(3,\) levels and 2 frames"),
        ((5, 3, 4), (3,), {"frames": (0,)}, "levels and 1 frames"),
        ((5, 3, 4), (3,), {"values": draw(4, 2, 4)}, r"5 windows need references \(5, r, 4\), got \(4, 2, 4\)"),
        ((5, 3, 4), (3,), {"window_frames": (2, 3)}, "3 window frames but 2 of their indices"),
    ],
)
def test_calls_that_do_not_fit_are_refused(
    window: tuple[int, ...], levels: tuple[int, ...], changes: dict[str, object], message: str
) -> None:
    net = denoiser()
    with pytest.raises(ModelError, match=message):
        net(draw(*window), torch.ones(levels), dataclasses.replace(told(), **changes))  # type: ignore[arg-type]


def test_actions_are_needed_and_of_the_right_size() -> None:
    net, window, given = denoiser(action_dim=2), draw(5, 3, 4), told()
    acting = dataclasses.replace(given, actions=draw(5, 2, 2), window_actions=draw(5, 3, 2))
    assert net(window, LEVELS, acting).shape == window.shape
    for missing in (given, dataclasses.replace(acting, actions=None)):
        with pytest.raises(ModelError, match="needs actions of 2 numbers, got none"):
            net(window, LEVELS, missing)
    with pytest.raises(ModelError, match=r"the window frames need actions of shape \(5, 3, 2\), got \(5, 3, 1\)"):
        net(window, LEVELS, dataclasses.replace(acting, window_actions=draw(5, 3, 1)))
    with pytest.raises(ModelError, match=r"the references need actions of shape \(5, 2, 2\), got \(5, 3, 2\)"):
        net(window, LEVELS, dataclasses.replace(acting, actions=draw(5, 3, 2)))
