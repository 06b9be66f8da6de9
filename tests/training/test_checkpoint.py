"""Checkpoints that are not whole, not ours or not safe are refused by name and left as they are."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from arvdm_theory.networks.config import DenoiserConfig
from arvdm_theory.training import checkpoint as checkpoint_module
from arvdm_theory.training.checkpoint import (
    CheckpointError,
    DamagedCheckpointError,
    checkpoints,
    differences,
    load_denoiser,
    read_checkpoint,
    read_metadata,
    save_checkpoint,
)
from arvdm_theory.training.config import TrainingError


@pytest.fixture
def run(small: SimpleNamespace, tmp_path: Path) -> Path:
    small.run(tmp_path / "run", steps=8)
    return tmp_path / "run"


@pytest.mark.parametrize("size", [0, 4, 200, 3000, -1])
def test_a_truncated_file_is_refused_and_left_alone(small: SimpleNamespace, run: Path, size: int) -> None:
    last = checkpoints(run)[-1]
    content = last.read_bytes()[:size]
    last.write_bytes(content)
    for read in (load_denoiser, read_metadata, read_checkpoint):
        with pytest.raises(CheckpointError, match=rf"{last.name} is not a whole safetensors file"):
            read(last)
    with pytest.warns(UserWarning, match=rf"{last.name} is not a whole .*; step-00000007.safetensors.* is taken"):
        load_denoiser(run)
    assert last.read_bytes() == content
    with pytest.warns(UserWarning, match=r"step-00000007\.safetensors, the last good one"):
        small.run(run, steps=8)  # from the one before
    load_denoiser(last)


def test_where_all_are_damaged_the_run_is_not_begun_anew(small: SimpleNamespace, run: Path) -> None:
    for path in checkpoints(run):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedCheckpointError, match=r"step-00000008\.safetensors is not a whole"):
        small.run(run, steps=8)
    with pytest.raises(DamagedCheckpointError, match=r"step-00000008\.safetensors is not a whole"):
        load_denoiser(run)


def test_no_flipped_byte_goes_unnoticed(run: Path) -> None:
    """In the format's header, in ours and in every tensor; each byte flipped by itself."""
    last = checkpoints(run)[-1]
    content = bytearray(last.read_bytes())
    for place in np.random.default_rng(0).choice(len(content), 200, replace=False):
        flipped = content.copy()
        flipped[place] ^= 1 << (int(place) % 8)
        last.write_bytes(flipped)
        with pytest.raises(CheckpointError, match=last.name):
            load_denoiser(last)


def test_weights_that_are_no_numbers_are_reported(small: SimpleNamespace, run: Path) -> None:
    def spoil(tensors: dict[str, torch.Tensor], metadata: dict[str, object]) -> None:
        for name in tensors:
            if name.startswith("average/"):
                tensors[name] = torch.full_like(tensors[name], torch.nan)

    path = rewritten(run, spoil)
    with pytest.raises(CheckpointError, match=rf"{path.name}: weight '.*' is NaN or infinite"):
        load_denoiser(path)
    with pytest.warns(UserWarning, match="NaN or infinite; step-00000007"):
        trained = small.run(run, steps=8)
    assert all(torch.isfinite(weight).all() for weight in trained.denoiser.parameters())


def test_a_run_whose_weights_stop_being_numbers_says_so(
    small: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of the last update is finite: it was taken before the step that spoils the weights."""
    step = torch.optim.AdamW.step

    def spoils(self: torch.optim.AdamW, *arguments: object) -> object:
        done = step(self, *arguments)
        if next(iter(self.state.values()))["step"] == 8:
            with torch.no_grad():
                self.param_groups[0]["params"][0].fill_(torch.nan)
        return done

    monkeypatch.setattr(torch.optim.AdamW, "step", spoils)
    with pytest.raises(TrainingError, match=r"step 8: weight '.*' is NaN .*step-00000007\.safetensors"):
        small.run(tmp_path, steps=8)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("step", -5, r"step is -5, a whole number from 0"),
        ("step", "8", r"step is '8'"),
        ("step", 7, r"is of step 7 by its header, and of step 8 by its name"),
        ("seconds", float("inf"), r"is damaged|seconds"),
        ("seconds", "long", r"seconds are 'long'"),
    ],
)
def test_a_header_that_no_run_writes_is_refused(run: Path, field: str, value: object, message: str) -> None:
    """With a digest that is right: nobody vouches for a stranger's file."""
    path = checkpoints(run)[-1]
    tensors, metadata = read_checkpoint(path)
    metadata |= {field: value}
    header = json.dumps(metadata)
    told = {"arvdm_theory.checkpoint": header, "arvdm_theory.sha256": checkpoint_module._digest(tensors, header)}
    save_file(tensors, path, metadata=told)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(path)


def test_the_history_is_the_checkpoints(small: SimpleNamespace, run: Path) -> None:
    before = (run / "history.csv").read_bytes()
    for content in (b"", b"\xff\xfe", before[: len(before) // 2], before.replace(b"1", b"2")):
        (run / "history.csv").write_bytes(content)
        trained = small.run(run, steps=8)
        assert (run / "history.csv").read_bytes() == before
        assert list(trained.history.step) == [4, 8]


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return (open, (str(self.mark), "w"))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_strangers_pickle_is_never_opened(
    small: SimpleNamespace, run: Path, tmp_path: Path, zipped: bool
) -> None:
    mark = tmp_path / "mark"
    stranger = tmp_path / "weights.pt"
    torch.save({"model": Trap(mark)}, stranger, _use_new_zipfile_serialization=zipped)
    renamed = checkpoints(run)[-1]
    renamed.write_bytes(stranger.read_bytes())
    for path in (stranger, renamed):
        with pytest.raises(CheckpointError, match="not a safetensors file but a pickle"):
            load_denoiser(path)
    with pytest.raises(CheckpointError, match="pickle"):
        small.run(run, steps=8)
    assert not mark.exists()
    with torch.serialization.safe_globals([open]):  # the trap is a real one
        torch.load(stranger, weights_only=False)
    assert mark.exists()


def test_a_safetensors_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="no checkpoint that a training run wrote"):
        load_denoiser(path)


def test_a_folder_without_checkpoints_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        load_denoiser(tmp_path)
    with pytest.raises(FileNotFoundError):
        load_denoiser(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"architecture": "transformer"}, "denoiser.architecture is 'mlp' there and 'transformer' here"),
        ({"window": 5}, "denoiser.window is 4 there and 5 here"),
        ({"data_scale": 2.0}, "denoiser.data_scale is 1.0 there and 2.0 here"),
        ({"options": {"width": 16, "depth": 2}}, "denoiser.options.depth is 1 there and 2 here"),
    ],
)
def test_another_network_is_refused_by_its_field(
    small: SimpleNamespace, run: Path, changes: dict[str, object], field: str
) -> None:
    with pytest.raises(CheckpointError, match=field):
        load_denoiser(run, dataclasses.replace(small.NETWORK, **changes))
    assert load_denoiser(run, small.NETWORK).config == small.NETWORK


def rewritten(run: Path, change: object) -> Path:
    path = checkpoints(run)[-1]
    tensors, metadata = read_checkpoint(path)
    change(tensors, metadata)  # type: ignore[operator]
    step = metadata.pop("step")
    return save_checkpoint(run, step, tensors, metadata, keep=9)


def test_weights_that_are_not_the_networks_are_named(run: Path) -> None:
    def drop(tensors: dict[str, torch.Tensor], metadata: dict[str, object]) -> None:
        del tensors["average/backbone.embed.bias"]

    with pytest.raises(CheckpointError, match=r"lacks weight 'backbone\.embed\.bias'"):
        load_denoiser(rewritten(run, drop))

    def reshape(tensors: dict[str, torch.Tensor], metadata: dict[str, object]) -> None:
        tensors["average/backbone.embed.bias"] = torch.zeros(3)

    with pytest.raises(CheckpointError, match=r"'backbone\.embed\.bias' has shape \(3,\), the network \(16,\)"):
        load_denoiser(rewritten(run, reshape))


def test_a_config_that_no_network_has_is_an_error_not_a_crash(run: Path) -> None:
    def alien(tensors: dict[str, torch.Tensor], metadata: dict[str, dict[str, object]]) -> None:
        metadata["denoiser"]["architecture"] = "mamba"

    with pytest.raises(CheckpointError, match="'mamba'"):
        load_denoiser(rewritten(run, alien))


def test_tied_weights_are_saved_and_come_back(tmp_path: Path) -> None:
    tied = torch.arange(6.0).reshape(2, 3)
    save_checkpoint(tmp_path, 1, {"a": tied, "b": tied, "c": tied.T}, {}, keep=1)
    tensors, metadata = read_checkpoint(checkpoints(tmp_path)[0])
    assert torch.equal(tensors["b"], tied)
    assert torch.equal(tensors["c"], tied.T)
    assert metadata["step"] == 1


def test_checkpoints_are_ordered_by_step_and_strays_ignored(tmp_path: Path) -> None:
    for step in (5, 123456789, 40):
        save_checkpoint(tmp_path, step, {"a": torch.zeros(1)}, {}, keep=9)
    (tmp_path / "checkpoints" / ".step-00000099-abc.safetensors").touch()
    assert [int(path.stem[5:]) for path in checkpoints(tmp_path)] == [5, 40, 123456789]


def test_a_failed_write_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import arvdm_theory.training.checkpoint as module

    save_checkpoint(tmp_path, 1, {"a": torch.zeros(1)}, {}, keep=1)

    def fails(*arguments: object, **named: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(module, "save_file", fails)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(tmp_path, 2, {"a": torch.zeros(1)}, {}, keep=1)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001.safetensors"]


def test_differences_name_the_place() -> None:
    one = {"a": [1, {"b": 2.0}], "c": None, "d": 1.0}
    other = {"a": [1, {"b": 3.0}], "c": 5, "d": 1.0 + 1e-12}
    assert list(differences(one, other, "x")) == [
        "x.a[1].b is 2.0 there and 3.0 here",
        "x.c is None there and 5 here",
    ]
    config = DenoiserConfig("mlp", (2,), 3)
    assert not list(differences(config.to_json(), config.to_json(), "x"))
