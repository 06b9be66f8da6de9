"""The training loop: it learns, averages, logs, stops on what is not finite, and refuses what does not fit."""

import dataclasses
import json
import math
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Generator

from arvdm_theory import limits
from arvdm_theory.decomposition.ledger import ledger
from arvdm_theory.interfaces import VideoBatch
from arvdm_theory.laws.linear import exponential_video, reference_video
from arvdm_theory.limits import LimitError, Pace, unlimited
from arvdm_theory.networks.config import DenoiserConfig
from arvdm_theory.networks.denoiser import Denoiser
from arvdm_theory.networks.linear import linear_config
from arvdm_theory.plan.methods import fifo, outpainting
from arvdm_theory.plan.references import References
from arvdm_theory.tables import read_table
from arvdm_theory.training.checkpoint import checkpoints, load_denoiser, read_checkpoint, under
from arvdm_theory.training.config import TrainingConfig, TrainingError
from arvdm_theory.training.loop import train
from arvdm_theory.training.sources import dataset_source
from arvdm_theory.training.windows import WindowSampler


def test_a_run_is_the_plain_loop_that_its_config_describes(small: SimpleNamespace, tmp_path: Path) -> None:
    """Every update written out by hand, AdamW from its formulas; equal up to rounding."""
    config = small.config(steps=30, checkpoint_every=7, log_every=6, grad_clip=1.0)
    trained = small.run(tmp_path, steps=30, checkpoint_every=7, log_every=6, grad_clip=1.0)
    torch.manual_seed(config.seed)
    network = Denoiser(small.NETWORK)
    weights = dict(network.named_parameters())
    average = {name: weight.detach().clone() for name, weight in weights.items()}
    first = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    second = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    drawer = WindowSampler(small.PLAN, config.ar_steps, reference_video(), precision=network.output_precision)
    losses, norms = [], []
    for step in range(1, 31):
        batch = drawer.draw(config.batch, config.seed, step)
        loss = batch.loss(network(batch.window, batch.levels, batch.references))
        gradients = dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))
        norm = torch.sqrt(sum((g.square().sum() for g in gradients.values()), torch.zeros(())))
        losses.append(float(loss.detach()))
        norms.append(float(norm))
        rate = config.lr * (step / 5 if step <= 5 else (1 + math.cos(math.pi * (step - 5) / 25)) / 2)
        decay = min(config.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, weight in weights.items():
                g = gradients[name] * min(1.0, 1.0 / (float(norm) + 1e-6))
                first[name] = 0.9 * first[name] + 0.1 * g
                second[name] = 0.99 * second[name] + 0.01 * g**2
                move = first[name] / (1 - 0.9**step) / (torch.sqrt(second[name] / (1 - 0.99**step)) + 1e-8)
                if weight.ndim >= 2:
                    weight.mul_(1 - rate * config.weight_decay)
                weight.sub_(rate * move)
                average[name] = decay * average[name] + (1 - decay) * weight
    assert min(norms) < 1 < max(norms)  # some gradients are clipped, some are not
    saved, _ = read_checkpoint(checkpoints(tmp_path)[-1])
    # Thirty updates of size lr: an entry whose gradient is rounding may be off by a few of those roundings.
    for name, weight in weights.items():
        torch.testing.assert_close(saved[f"model/{name}"], weight.detach(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(trained.denoiser.get_parameter(name), average[name], rtol=1e-4, atol=1e-5)
    table = trained.history
    assert table.step.tolist() == [6, 12, 18, 24, 30]
    np.testing.assert_allclose(table.loss, np.reshape(losses, (5, 6)).mean(1), rtol=1e-4)
    np.testing.assert_allclose(table.grad_norm, np.reshape(norms, (5, 6)).mean(1), rtol=1e-3)
    np.testing.assert_allclose(table.lr, [config.rate(step) for step in table.step], rtol=1e-12)
    assert table.seconds.is_monotonic_increasing


def test_training_reaches_the_optimum_that_the_ledger_knows(tmp_path: Path) -> None:
    """A linear network's SEE, exact from the ledger, falls to less than a hundredth of its start."""
    video, plan, ar_steps = exponential_video(0.8), outpainting(1, References.last(1), 3, 3), 1
    network = linear_config(plan, ar_steps, (1,))
    config = TrainingConfig(
        400,
        batch=256,
        ar_steps=ar_steps,
        lr=0.05,
        warmup=20,
        weighting="see",
        device="cpu",
        tensorboard=False,
        ema=0.9,
    )

    def see(denoiser: Denoiser) -> float:
        terms = ledger(video, plan, ar_steps, score=denoiser, girsanov=False).terms
        return float(terms.total("see") + terms.initialisation.see.sum())

    before = see(Denoiser(network))
    trained = train(network, plan, video, config, tmp_path, progress=False)
    assert trained.denoiser.dtype == torch.float64
    assert see(trained.denoiser) < before / 100


def test_the_history_and_the_provenance_are_written(small: SimpleNamespace, tmp_path: Path) -> None:
    trained = small.run(tmp_path, steps=12, tensorboard=True)
    kept = read_table(tmp_path / "history.csv")
    pd.testing.assert_frame_equal(kept, trained.history, check_exact=True)
    told = json.loads((tmp_path / "provenance-00000000.json").read_text())
    assert told["seed"] == 3
    assert told["config"]["training"]["steps"] == 12
    assert told["config"]["denoiser"] == json.loads(json.dumps(small.NETWORK.to_json()))
    assert told["versions"].keys() >= {"torch", "accelerate", "python"}
    assert told["processes"] == 1
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"loss", "lr", "grad_norm"}
    scalars = [(event.step, event.value) for event in events.Scalars("loss")]
    assert [step for step, _ in scalars] == kept.step.tolist()
    np.testing.assert_allclose([value for _, value in scalars], kept.loss, rtol=1e-6)


def test_the_callers_random_numbers_are_left_alone(small: SimpleNamespace, tmp_path: Path) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    small.run(tmp_path, steps=6)
    assert torch.equal(torch.rand(3), expected)


def test_bfloat16_is_close_and_keeps_float32_weights(small: SimpleNamespace, tmp_path: Path) -> None:
    full, half = (small.run(tmp_path / str(bf16), steps=30, bf16=bf16) for bf16 in (False, True))
    assert half.denoiser.dtype == torch.float32
    # bfloat16 rounds to 2^-9 relative; the losses are of order one.
    assert 0 < float((full.history.loss - half.history.loss).abs().max()) < 2**-5


def test_only_the_last_checkpoints_stay(small: SimpleNamespace, tmp_path: Path) -> None:
    small.run(tmp_path, steps=30, keep=2)
    assert [path.stem for path in checkpoints(tmp_path)] == ["step-00000028", "step-00000030"]


def test_a_finished_run_is_read_not_repeated(small: SimpleNamespace, tmp_path: Path) -> None:
    first = small.run(tmp_path, steps=12)
    stamps = {path: path.stat().st_mtime_ns for path in checkpoints(tmp_path)}
    again = small.run(tmp_path, steps=12)
    pd.testing.assert_frame_equal(first.history, again.history, check_exact=True)
    assert {path: path.stat().st_mtime_ns for path in checkpoints(tmp_path)} == stamps
    for name, weight in first.denoiser.named_parameters():
        assert torch.equal(again.denoiser.get_parameter(name), weight)
    loaded = load_denoiser(tmp_path)
    for name, weight in first.denoiser.named_parameters():
        assert torch.equal(loaded.get_parameter(name), weight)
    assert not loaded.training


class Spoiled:
    """Videos that turn into NaN at a step."""

    frame_shape, action_dim = (2,), 0

    def __init__(self, after: int) -> None:
        self.left, self.inner = after, reference_video()

    def draw(self, videos: int, frames: int, generator: Generator) -> VideoBatch:
        drawn = self.inner.draw(videos, frames, generator)
        self.left -= 1
        return drawn if self.left >= 0 else VideoBatch(drawn.frames * math.nan)


@pytest.mark.parametrize(("good", "last"), [(17, "step-00000014"), (5, None)])
def test_a_loss_that_is_not_finite_names_its_step(
    small: SimpleNamespace, tmp_path: Path, good: int, last: str | None
) -> None:
    # One draw describes the source, then there is one a step.
    message = rf"step {good + 1}: the loss is nan.*{last or 'there is no checkpoint yet'}"
    with pytest.raises(TrainingError, match=message):
        train(small.NETWORK, small.PLAN, Spoiled(good + 1), small.config(), tmp_path, progress=False)
    for path in checkpoints(tmp_path):
        tensors, _ = read_checkpoint(path)
        assert all(torch.isfinite(value).all() for value in tensors.values() if value.is_floating_point())
    assert [path.stem for path in checkpoints(tmp_path)][-1:] == ([last] if last else [])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"plan": fifo(4, References.last(3), 5, 6)}, "plan.init_grid has 6 entries there and 7 here"),
        ({"network": {"options": {"width": 17, "depth": 1}}}, "denoiser.options.width is 16 there and 17 here"),
        ({"network": {"prediction": "x0"}}, "denoiser.prediction is 'v' there and 'x0' here"),
        ({"config": {"lr": 0.02}}, "training.lr is 0.01 there and 0.02 here"),
        ({"config": {"seed": 4}}, "training.seed is 3 there and 4 here"),
        ({"source": exponential_video()}, "frame_shape"),
        ({"source": dataset_source(np.random.default_rng(0).normal(size=(9, 12, 2)))}, "source.sample"),
    ],
)
def test_another_run_is_never_continued(
    small: SimpleNamespace, run_of_twelve: Path, changes: dict[str, object], message: str
) -> None:
    before = {path: path.read_bytes() for path in sorted(run_of_twelve.rglob("*")) if path.is_file()}
    network = dataclasses.replace(small.NETWORK, **changes.get("network", {}))
    config = small.config(**{"steps": 12, **changes.get("config", {})})
    source = changes.get("source", reference_video())
    with pytest.raises(TrainingError, match=message):
        train(network, changes.get("plan", small.PLAN), source, config, run_of_twelve, progress=False)
    assert {path: path.read_bytes() for path in sorted(run_of_twelve.rglob("*")) if path.is_file()} == before


def test_a_run_is_not_begun_again_over_another(small: SimpleNamespace, run_of_twelve: Path) -> None:
    with pytest.raises(TrainingError, match="holds a run already"):
        train(
            small.NETWORK, small.PLAN, reference_video(), small.config(steps=12), run_of_twelve,
            resume=False, progress=False,
        )  # fmt: skip


def test_what_does_not_change_the_result_may_change(small: SimpleNamespace, run_of_twelve: Path) -> None:
    config = small.config(steps=12, log_every=3, checkpoint_every=5, keep=1)
    source = reference_video()
    assert len(train(small.NETWORK, small.PLAN, source, config, run_of_twelve, progress=False).history) == 3


@pytest.fixture(scope="module")
def run_of_twelve(small: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    small.run(folder, steps=12)
    return folder


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (DenoiserConfig("mlp", (2,), window=3, references=3), "window is 3"),
        (DenoiserConfig("mlp", (2,), window=4, references=2), "references is 2"),
        (DenoiserConfig("mlp", (3,), window=4, references=3), r"frame_shape is \(3,\)"),
        (DenoiserConfig("mlp", (2,), window=4, references=3, action_dim=2), "action_dim is 2"),
    ],
)
def test_a_network_that_does_not_fit_is_refused(
    small: SimpleNamespace, tmp_path: Path, network: DenoiserConfig, message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        small.run(tmp_path / "run", network=network)
    assert not (tmp_path / "run").exists()


def test_nothing_of_under_is_lost() -> None:
    value = torch.zeros(1)
    assert under({"a/b/c": value, "ab/c": value}, "a") == {"b/c": value}


def test_a_run_without_end_is_refused_by_its_first_updates(small: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(LimitError, match=r"the training \(1000000000 updates\) would take about .* hours"):
        small.run(tmp_path, steps=10**9, checkpoint_every=100)
    assert not checkpoints(tmp_path)
    pace = Pace("a loop", 10**12)
    with unlimited():
        for _ in range(20):
            pace.round()


@pytest.mark.parametrize(("left", "refused"), [(800_000, False), (900_000, True)])
def test_the_fastest_of_the_first_rounds_decides(
    left: int, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first round of 50 s and nine of 0.1 s: 22 hours are left, or 25."""
    clock = iter([0.0, *(50.0 + 0.1 * k for k in range(10))])
    monkeypatch.setattr(limits.time, "perf_counter", lambda: next(clock))
    pace = Pace("a loop", 10 + left)
    for _ in range(9):
        pace.round()
    with pytest.raises(LimitError, match="25 hours") if refused else nullcontext():
        pace.round()
