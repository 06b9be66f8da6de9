"""Weights are read as tensors, and never by running what a file says."""

import datetime
import pickle
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from arvdm_theory.adapters.weights import WeightsError, load_weights


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (Path.touch, (self.mark,))


def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 2)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth", ".ckpt", ".bin"])
def test_tensors_go_into_the_network(suffix: str, tmp_path: Path) -> None:
    source, file = linear(), tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(source.state_dict(), file)
    else:
        torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in source.state_dict().items()}}, file)
    target = nn.Linear(3, 2)
    found = load_weights(file, target)
    assert len(found) == 2
    assert torch.equal(target.weight, source.weight)


def test_a_checkpoint_of_several_networks_is_told_which(tmp_path: Path) -> None:
    file = tmp_path / "both.pt"
    torch.save(
        {"critic": {"a": torch.ones(1)}, "generator": {"b": torch.ones(2)}, "generator_ema": {"c": torch.ones(3)}},
        file,
    )
    assert list(load_weights(file)) == ["b"]
    assert list(load_weights(file, key="generator_ema")) == ["c"]
    with pytest.raises(WeightsError, match="has no entry 'student': it holds critic, generator, generator_ema"):
        load_weights(file, key="student")


def test_a_pickle_is_never_opened_and_its_conversion_is_told(tmp_path: Path) -> None:
    file, mark = tmp_path / "model.ckpt", tmp_path / "ran"
    torch.save({"state_dict": linear().state_dict(), "callback": Bomb(mark)}, file)
    with pytest.raises(WeightsError, match="holds more than tensors, and opening that could run code") as caught:
        load_weights(file)
    assert not mark.exists()
    assert "\n" not in str(caught.value)
    python, option, program = shlex.split(str(caught.value).split("convert it with ", 1)[1])
    assert (python, option) == ("python", "-c")
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    assert mark.exists()  # by the owner's command, and only by that
    assert len(load_weights(tmp_path / "model.safetensors", linear())) == 2
    plain = tmp_path / "plain.pt"
    plain.write_bytes(pickle.dumps(Bomb(tmp_path / "ran2")))
    with pytest.raises(WeightsError):
        load_weights(plain)
    assert not (tmp_path / "ran2").exists()


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    good = linear().state_dict()
    for held, words in [
        ({"weight": good["weight"]}, "lacks 'bias'"),
        ({**good, "scale": torch.ones(1)}, "has, beside the network's own, 'scale'"),
        ({**good, "weight": torch.ones(2, 4)}, r"'weight' has the shape \(2, 4\), the network's \(2, 3\)"),
    ]:
        save_file(held, tmp_path / "w.safetensors")
        with pytest.raises(WeightsError, match=words):
            load_weights(tmp_path / "w.safetensors", linear())
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{")
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04")
    for name, words in [
        ("none.pt", "there is no file"),
        ("list.pt", "holds no named tensors"),
        ("cut.safetensors", "no readable safetensors file"),
        ("cut.pt", "no readable torch file"),
        ("w.onnx", "weights are .safetensors, .pt, .pth, .ckpt, .bin, got w.onnx"),
    ]:
        if name == "w.onnx":
            (tmp_path / name).write_bytes(b"1")
        with pytest.raises(WeightsError, match=words) as caught:
            load_weights(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["weights.ckpt", 'it\'s; $(touch hit) "a" `touch hit`.pt'])
def test_the_command_that_converts_is_one_that_does(name: str, tmp_path: Path) -> None:
    """As it stands, in a shell; and a file's name is never more than a name."""
    kept = {"a": torch.arange(3.0), "b": torch.ones(2, 2).T}
    torch.save({"state_dict": kept, "when": datetime.datetime(2026, 1, 1)}, tmp_path / name)
    with pytest.raises(WeightsError, match="could run code: if you trust it, convert it with python -c") as told:
        load_weights(tmp_path / name)
    command = str(told.value).split("convert it with python", 1)[1]
    subprocess.run(f"{shlex.quote(sys.executable)}{command}", shell=True, check=True, cwd=tmp_path)
    assert not (tmp_path / "hit").exists()
    found = load_weights((tmp_path / name).with_suffix(".safetensors"))
    assert found.keys() == kept.keys()
    assert all(torch.equal(found[key], value) for key, value in kept.items())
