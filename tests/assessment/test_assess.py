"""Assessments: the same numbers as direct calls, and one clear line for what cannot be assessed."""

from __future__ import annotations

import dataclasses
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from picture_clips import PictureNetwork, clips

from arvdm_theory import (
    NetworkScore,
    References,
    assess,
    ledger,
    memory_bottleneck,
    outpainting,
    predicted_clip_kl,
)
from arvdm_theory.assessment.parts import AssessmentError
from arvdm_theory.cli import main
from arvdm_theory.decomposition.generated import generated_error
from arvdm_theory.laws.fitted import load_fitted

Assessed = tuple[Path, dict[str, Any], Any]
PLAN = outpainting(2, References.last(2), 3, 3, 5.0, 0.02)
ASKED: dict[str, Any] = {"modes": 2, "ar_steps": 2, "samples": 64}


@pytest.fixture(scope="module")
def assessed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], Any]:
    """Clips with a network that errs a little, assessed once."""
    folder = tmp_path_factory.mktemp("assessment")
    assess(clips(), None, PLAN, **ASKED, out=folder, budget=1e-9)  # the fit alone, for the network
    video = load_fitted(folder / "parts" / "fitted.npz")
    network = NetworkScore(PictureNetwork(video, 0.005), "x0", dtype=torch.float64)  # type: ignore[arg-type]
    assess(clips(), network, PLAN, **ASKED, out=folder, command="arvdm assess & <clips>")
    return folder, json.loads((folder / "report.json").read_text()), network


def test_its_numbers_are_those_of_direct_calls(assessed: Assessed) -> None:
    folder, report, network = assessed
    law, facts = load_fitted(folder / "parts" / "fitted.npz").pixels(), report["facts"]
    video = law.span
    exact = ledger(video, PLAN, 2, girsanov=False)
    for name in ("kl", "mb", "de", "ar_step_kl"):
        assert facts["plan"]["totals"][name]["value"] == pytest.approx(exact.totals[name], rel=1e-12)
    own = ledger(law, PLAN, 2, score=network, girsanov=False, teacher_forced=True, samples=64, seed=0)
    for name in ("see", "cross", "path_kl"):
        assert facts["network"]["totals"][name]["value"] == pytest.approx(own.totals[name], rel=1e-9)
        assert facts["network"]["totals"][name]["stderr"] == pytest.approx(own.stderr[name], rel=1e-9)
    for row in facts["memory"]["curve"]:
        seen = dataclasses.replace(PLAN, references=References.last(row["references"]))
        assert row["mb"]["value"] == pytest.approx(float(memory_bottleneck(video, seen, 2)), rel=1e-9)
        # Four clips, each left out; beyond the order of the fit all of them say 0.
        assert row["mb"]["stderr"] > 0 or row["mb"]["value"] < 1e-12
    score = law.in_span(network, 0)
    for row in facts["ar_step_errors"]["rows"]:
        k = row["ar_step"]
        found = generated_error(video, PLAN, k, score, samples=64, seed=k)
        assert row["error"]["value"] == pytest.approx(float(found), rel=1e-9)
    decay = predicted_clip_kl(video, PLAN, 2, law.in_span(network, 0), samples=facts["decay"]["samples"])
    np.testing.assert_allclose([row["value"] for row in facts["decay"]["rows"]], decay.table.value, rtol=1e-9)
    assert facts["schedule"]["value"] < facts["schedule"]["start"]


def test_the_compressed_memory_starts_at_the_bottleneck_and_falls(assessed: Assessed) -> None:
    memory = assessed[1]["facts"]["memory"]
    left = [row["mb"] for row in memory["compression"]]
    assert left[0] == pytest.approx(memory["own"]["value"], rel=1e-6)
    assert all(after <= before for before, after in pairwise(left))


def test_the_report_says_what_to_change_first_and_keeps_to_itself(assessed: Assessed) -> None:
    folder, report, _ = assessed
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert report["summary"][-2].startswith("Change first: ")
    assert report["facts"]["changes"][0]["gain"] == max(each["gain"] for each in report["facts"]["changes"])
    assert "http" not in page
    assert "<script" not in page
    assert "arvdm assess &amp; &lt;clips&gt;" in page
    assert page.count("data:image/svg+xml;base64,") >= 4
    assert report["provenance"]["seed"] == 0


def test_what_is_there_is_not_computed_again(assessed: Assessed, monkeypatch: Any) -> None:
    folder, report, network = assessed
    told: list[str] = []
    assess(clips(), network, PLAN, **ASKED, out=folder, progress=told.append)
    assert told == []
    assert json.loads((folder / "report.json").read_text())["facts"] == report["facts"]
    assess(clips(), network, PLAN, **{**ASKED, "samples": 65}, out=folder, progress=told.append, budget=1e-9)
    assert told == ["fit", "check", "plan"]
    left_out = json.loads((folder / "report.json").read_text())["facts"]["skipped"]
    assert left_out[0] == "memory: the budget of 1e-09 s was spent"


def test_a_wrong_prediction_type_is_found_out(tmp_path: Path) -> None:
    """x̂ read as ε: worse than a constant, and far better read as what it is."""
    assess(clips(), None, PLAN, **ASKED, out=tmp_path, budget=1e-9)
    video = load_fitted(tmp_path / "parts" / "fitted.npz")
    network = NetworkScore(PictureNetwork(video), "epsilon", dtype=torch.float64)  # type: ignore[arg-type]
    with pytest.raises(
        AssessmentError, match=r"constant output, .* predicts 'epsilon'; read as 'x0' its error is"
    ):
        assess(clips(), network, PLAN, **ASKED, out=tmp_path / "wrong")
    assert not (tmp_path / "wrong" / "report.html").exists()


def test_other_networks_are_refused_in_one_line(tmp_path: Path) -> None:
    def told(network: Any) -> str:
        with pytest.raises(ValueError, match=r"^(the|a) ") as caught:
            assess(clips(), network, PLAN, **ASKED, out=tmp_path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "must return a tensor of the window's shape" in told(NetworkScore(lambda w, t, r, a: w[..., :3], "x0"))
    assert "is not finite at the levels" in told(NetworkScore(lambda w, t, r, a: w * torch.nan, "x0"))
    assert "a score is None, ExactScore()" in told(3)
    with pytest.raises(AssessmentError, match=r"clip 2 has pictures of shape \(3, 3, 1\), clip 1 of \(4, 4, 1\)"):
        assess([*clips(1), *clips(1, side=3)], None, PLAN, **ASKED, out=tmp_path)
    with pytest.raises(AssessmentError, match="no clip to assess"):
        assess([], None, PLAN, out=tmp_path)


# -- the command ------------------------------------------------------------------------------------------------

MODULE = """
import torch
from arvdm_theory import NetworkScore

class Denoiser(torch.nn.Module):
    def forward(self, sample, timestep):
        return 0.02 * sample

def build():
    return Denoiser()

def score():
    return NetworkScore(lambda w, t, r, a: 0.02 * w, "x0")

def fails():
    raise RuntimeError("no weights\\nhere")
"""


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for i, clip in enumerate(clips(3, 40)):
        np.save(tmp_path / f"clip{i}.npy", clip)
    (tmp_path / "my_module.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text("import nothing_of_this_name")
    config = {
        "_class_name": "DDIMScheduler", "num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02,
        "beta_schedule": "linear", "prediction_type": "sample", "clip_sample": False,
        "timestep_spacing": "trailing",
    }  # fmt: skip
    (tmp_path / "scheduler.json").write_text(json.dumps(config))
    (tmp_path / "unknown.json").write_text(json.dumps({"_class_name": "MyScheduler"}))
    np.save(tmp_path / "small.npy", clips(1, 40, side=3)[0])
    monkeypatch.chdir(tmp_path)
    return tmp_path


WORDS = ["assess", "clip0.npy", "clip1.npy", "clip2.npy", "--modes", "2", "--ar-steps", "2", "--references", "1",
         "--reverse-steps", "3", "--samples", "32", "--budget", "0.001", "--out", "out"]  # fmt: skip


def test_the_command_assesses_clips_a_network_and_a_scheduler(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("diffusers")
    extra = ["--network", "my_module:score", "--scheduler", "scheduler.json"]
    assert main([*WORDS, *extra]) == 0
    assert "- Forgetting" not in capsys.readouterr().out  # the budget was spent
    report = json.loads((files / "out" / "report.json").read_text())
    assert [row["level"] for row in report["facts"]["check"]["rows"]]
    assert (files / "out" / "report.html").exists()
    # As diffusers' networks are called, on the scheduler's own clock.
    assert main([*WORDS, "--network", "my_module:build", "--scheduler", "scheduler.json", "--layout", "BCHW"]) == 0


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--network", "my_module"], "--network is MODULE:CALLABLE, got 'my_module'"),
        (["--network", "broken:build"], "broken cannot be imported: ModuleNotFoundError"),
        (["--network", "my_module:nothing"], "my_module has no nothing"),
        (["--network", "my_module:fails"], r"my_module:fails\(\) failed: RuntimeError: no weights here"),
        (["--scheduler", "unknown.json"], "the scheduler class 'MyScheduler' is not known here"),
        (["--scheduler", "nowhere.json"], "nowhere.json: No such file"),
        (["small.npy"], r"small.npy has pictures of shape \(3, 3, 1\), clip0.npy of \(4, 4, 1\)"),
        (["--budget", "0"], "--budget must be positive"),
        (["--plan", "nothing-of-this-name"], "nothing-of-this-name"),
        (["--modes", "100"], "1 to 16 modes, not 100"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    files: Path, capsys: pytest.CaptureFixture[str], extra: list[str], words: str
) -> None:
    import re

    own = [word for word in WORDS if not ("--plan" in extra and word in ("--references", "1"))]
    if extra[0].endswith(".npy"):
        own, extra = [own[0], "clip0.npy", *extra, *own[4:]], []
    assert main([*own, *extra]) == 2
    said = capsys.readouterr().err.strip()
    assert re.search(words, said), said
    assert said.count("\n") == 0
    assert not (files / "out" / "report.html").exists()
