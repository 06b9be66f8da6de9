"""Several processes: the same batches, the same run."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from arvdm_theory.tables import read_table
from arvdm_theory.training.checkpoint import checkpoints, read_checkpoint
from arvdm_theory.training.config import TrainingError


def test_two_processes_make_the_run_of_one(small: SimpleNamespace, tmp_path: Path) -> None:
    """Gloo on the CPU, as ``torchrun`` starts it; and one process goes on with a run that two began."""
    one, two = tmp_path / "one", tmp_path / "two"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    settings = ["steps=12", "checkpoint_every=6"]
    done = subprocess.run(
        [*launch, *small.command(two, *settings)[1:]],
        capture_output=True,
        text=True,
        timeout=300,
        # `accelerate launch --cpu` sets the second variable, but starts one process on a machine without GPUs.
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
    )
    assert done.returncode == 0, done.stderr
    whole = small.run(one, steps=12, checkpoint_every=6)
    expected, _ = read_checkpoint(checkpoints(one)[-1])
    found, metadata = read_checkpoint(checkpoints(two)[-1])
    assert metadata["step"] == 12
    assert found["rng/cpu"].shape[0] == 2
    compare(found, expected)
    kept = read_table(two / "history.csv")
    columns = ["step", "loss", "lr", "grad_norm"]
    pd.testing.assert_frame_equal(kept[columns], whole.history[columns], rtol=1e-4)

    checkpoints(two)[-1].unlink()
    small.run(two, steps=12, checkpoint_every=6)
    compare(read_checkpoint(checkpoints(two)[-1])[0], expected)


def compare(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Gradients are means of eight terms in another order: float32 rounding, through twelve updates of 0.01."""
    for name, value in expected.items():
        if name == "history":
            value, found = value[:, :-1], {**found, name: found[name][:, :-1]}  # the last column counts seconds
        if name != "rng/cpu":
            # The last column of the history is the time that it took.
            mine, other = (each[:, :-1] if name == "history" else each for each in (found[name], value))
            torch.testing.assert_close(mine, other, rtol=1e-3, atol=2e-5, msg=lambda m, name=name: f"{name}: {m}")


def test_a_batch_that_cannot_be_shared_alike_is_refused() -> None:
    from arvdm_theory.training.config import TrainingConfig
    from arvdm_theory.training.loop import _device

    three = SimpleNamespace(num_processes=3, device=torch.device("cpu"))
    with pytest.raises(TrainingError, match="multiple of the 3 processes, got 64"):
        _device(torch.float32, TrainingConfig(1, batch=64, warmup=0), three)
    with pytest.raises(TrainingError, match="launched on 'cpu'"):
        _device(torch.float32, TrainingConfig(1, batch=66, warmup=0, device="cuda"), three)
    assert _device(torch.float32, TrainingConfig(1, batch=66, warmup=0), three).type == "cpu"
