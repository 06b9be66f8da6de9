"""Runs that are killed, interrupted and resumed, in real processes."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from arvdm_theory.networks.denoiser import ARCHITECTURES
from arvdm_theory.networks.mlp import MLPBackbone
from arvdm_theory.signals import Terminated
from arvdm_theory.tables import read_table
from arvdm_theory.training.checkpoint import checkpoints, read_checkpoint
from arvdm_theory.training.windows import TrainingBatch, WindowSampler

COMPARED = ["step", "loss", "lr", "grad_norm"]


def final(folder: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(checkpoints(folder)[-1])[0]


def same_runs(one: Path, other: Path) -> None:
    """Weights, averages, moments, random states and history, bit for bit."""
    a, b = final(one), final(other)
    assert a.keys() == b.keys()
    for kept in (a, b):
        kept["history"] = kept["history"][:, :-1]  # the last column counts seconds
    for name, value in a.items():
        assert torch.equal(value, b[name]), name
    histories = [read_table(folder / "history.csv")[COMPARED] for folder in (one, other)]
    pd.testing.assert_frame_equal(*histories, check_exact=True)


def at_step(number: int, do: Callable[[], None], patch: pytest.MonkeyPatch) -> None:
    """Has something happen while a step's batch is drawn."""
    draw = WindowSampler.draw

    def drawn(self: WindowSampler, batch: int, seed: int, step: int) -> TrainingBatch:
        if step == number:
            do()
        return draw(self, batch, seed, step)

    patch.setattr(WindowSampler, "draw", drawn)


@pytest.fixture(scope="module")
def whole(small: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    small.run(folder)
    return folder


def test_a_killed_run_resumes_as_if_it_never_was(small: SimpleNamespace, whole: Path, tmp_path: Path) -> None:
    """The moment is any from the first checkpoint on; the rest of the run would take more than a second."""
    process = subprocess.Popen(small.command(tmp_path, "pause=0.02"), stderr=subprocess.PIPE, text=True)
    patience = time.monotonic() + 120
    while not checkpoints(tmp_path) and process.poll() is None and time.monotonic() < patience:
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()[1]
    time.sleep(random.uniform(0.0, 0.7))
    process.kill()
    process.communicate()
    done = checkpoints(tmp_path)[-1].stem
    assert done != "step-00000060", "the run ended before it was killed"
    small.run(tmp_path)
    same_runs(tmp_path, whole)
    assert not list((tmp_path / "checkpoints").glob(".*"))


def test_a_kill_in_the_middle_of_a_write_leaves_the_last_checkpoint(
    small: SimpleNamespace, whole: Path, tmp_path: Path
) -> None:
    """As it would be found: half a temporary file, half a row, rows of steps that are to be made again."""
    small.run(tmp_path, steps=60)
    for path in checkpoints(tmp_path):
        if path.stem > "step-00000049":
            path.unlink()
    half = checkpoints(tmp_path)[-1].read_bytes()[:1000]
    (tmp_path / "checkpoints" / ".step-00000056-x1y2.safetensors").write_bytes(half)
    rows = (tmp_path / "history.csv").read_text().splitlines(keepends=True)
    (tmp_path / "history.csv").write_text("".join(rows[:4]) + rows[4][:7])
    small.run(tmp_path)
    same_runs(tmp_path, whole)
    assert not list((tmp_path / "checkpoints").glob(".*"))


@pytest.mark.parametrize(("sent", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_a_signal_to_stop_saves_the_last_finished_step(
    small: SimpleNamespace,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sent: signal.Signals,
    raised: type[BaseException],
) -> None:
    """The signal comes in the middle of step 17, off the grid of checkpoints and of history rows."""
    at_step(17, lambda: os.kill(os.getpid(), sent), monkeypatch)
    with pytest.raises(KeyboardInterrupt) as stopped:
        small.run(tmp_path)
    assert stopped.type is raised
    monkeypatch.undo()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert checkpoints(tmp_path)[-1].stem == "step-00000017"
    small.run(tmp_path)
    same_runs(tmp_path, whole)


def test_resuming_with_another_rhythm_changes_nothing(
    small: SimpleNamespace, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop() -> None:
        raise InterruptedError

    at_step(40, stop, monkeypatch)
    with pytest.raises(InterruptedError):
        small.run(tmp_path)
    monkeypatch.undo()
    small.run(tmp_path, checkpoint_every=60)
    same_runs(tmp_path, whole)


def test_dropout_goes_on_where_it_was(
    small: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that draws random numbers of its own is resumed bit for bit as well."""

    class Dropping(MLPBackbone):
        def forward(self, *arguments: object) -> torch.Tensor:
            return torch.nn.functional.dropout(super().forward(*arguments), 0.3, self.training)  # type: ignore[arg-type]

    monkeypatch.setitem(ARCHITECTURES, "mlp", Dropping)
    small.run(tmp_path / "whole", steps=14)
    small.run(tmp_path / "parted", steps=14)
    checkpoints(tmp_path / "parted")[-1].unlink()
    small.run(tmp_path / "parted", steps=14)
    same_runs(tmp_path / "parted", tmp_path / "whole")
