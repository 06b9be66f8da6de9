"""Every experiment: its smoke preset as a user runs it, and the full-size networks of its gpu preset."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from arvdm_theory import experiments
from arvdm_theory.cli import main
from arvdm_theory.experiments import EXPERIMENTS, TRAINED, experiment
from arvdm_theory.experiments.networks import Setting, train_job
from arvdm_theory.tables import read_table


def test_the_list_names_them_one_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiment", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(EXPERIMENTS)
    assert all("(arvdm" in line or "(python" in line for line in lines if line.split()[0] not in TRAINED)


def test_an_unknown_name_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["experiment", "nothing"], ["experiment"]):
        assert main(words) == 2
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("name", TRAINED)
def test_smoke(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It runs, draws, and finds everything done when it is asked again."""
    words = ["experiment", name, "--preset", "smoke", "--device", "cpu", "--out", str(tmp_path)]
    assert main(words) == 0
    said = capsys.readouterr().out
    tables = sorted(path.stem for path in tmp_path.glob("*.csv"))
    assert tables
    for table in tables:
        assert len(read_table(tmp_path / f"{table}.csv")) > 0
        told = json.loads((tmp_path / f"{table}.provenance.json").read_text())
        assert {"config", "seed", "versions", "commit", "device"} <= set(told)
    figures = list((tmp_path / "figures").glob("*.png"))
    assert figures
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == len(figures)
    assert json.loads((tmp_path / "report.json").read_text())["provenance"]["config"] == {"preset": "smoke"}
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()}
    assert main([*words, "--no-figures"]) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()} == written
    assert capsys.readouterr().out.splitlines()[:3] == said.splitlines()[:3]


@pytest.mark.parametrize("name", [name for name, each in EXPERIMENTS.items() if each.presets])
def test_the_registry_names_what_there_is_to_run(name: str) -> None:
    each = EXPERIMENTS[name]
    assert tuple(getattr(each.module(each.part), each.named)) == each.presets


def test_every_folder_is_an_experiment_with_words_and_figures_of_its_own() -> None:
    package = Path(experiments.__file__).parent
    folders = [each.folder for each in EXPERIMENTS.values()]
    assert sorted(folders) == sorted(path.parent.name for path in package.glob("*/run.py"))
    for name in TRAINED:
        assert EXPERIMENTS[name].figures
        assert callable(EXPERIMENTS[name].module("run").headline)


def test_an_experiment_of_another_command_is_said_to_be_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiment", "verify"]) == 2
    assert "(verify runs that)" in capsys.readouterr().err


@pytest.mark.parametrize("name", TRAINED)
def test_presets_say_what_they_are_meant_for(name: str) -> None:
    module = experiment(name).module("run")
    assert "GiB" in module.PRESETS["gpu"].note
    assert "hour" in module.PRESETS["gpu"].note or "minute" in module.PRESETS["gpu"].note


@pytest.mark.parametrize("name", TRAINED)
def test_full_size_networks_take_a_step(name: str, tmp_path: Path) -> None:
    """One of each kind that the gpu preset trains: built, stepped once on the smallest batch, and finite."""
    kinds = {}
    run = experiment(name).module("run")
    for job in run.networks(run.PRESETS["gpu"]):
        kinds.setdefault((job.network.architecture, job.video.name.split()[0], str(job.network.options)), job)
    largest: dict[str, int] = {}
    for (architecture, _, options), job in sorted(kinds.items(), key=lambda item: -len(item[0][2])):
        # The largest of each architecture and memory stands for the narrower ones of a sweep.
        key = f"{architecture} {job.network.options.get('memory', {}).get('structure')}"
        if key in largest:
            continue
        largest[key] = len(options)
        training = dataclasses.replace(
            job.training,
            steps=1,
            warmup=0,
            batch=1,
            checkpoint_every=1,
            log_every=1,
            tensorboard=False,
            bf16=False,
        )
        small = dataclasses.replace(job, training=training, videos=min(job.videos or 2, 2))
        denoiser = train_job(small, Setting("gpu", tmp_path, device="cpu", progress=False))
        assert all(bool(torch.isfinite(value).all()) for value in denoiser.parameters())
