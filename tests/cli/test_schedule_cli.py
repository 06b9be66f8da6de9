"""``arvdm schedule``: the JSON that others script against, exports, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arvdm_theory import (
    Plan,
    export_schedule,
    import_schedule,
    ledger,
    optimal_schedule,
    reference_video,
    spectral_video,
)
from arvdm_theory.choose.schedules import HAND_GRIDS
from arvdm_theory.cli import main

PLAN = [
    *("--method", "outpainting", "--window", "2", "--references", "4", "--ar-steps", "2", "--horizon", "5"),
    *("--reverse-steps", "3", "--init-steps", "2", "--iterations", "4"),
]
KEYS = {"objective", "value", "floor", "ar_levels", "init_levels", "baselines", "start", "plan", "notes"}


@pytest.fixture
def covariance(tmp_path: Path) -> str:
    np.save(tmp_path / "cov.npy", reference_video().covariance(10)[0].numpy())
    return str(tmp_path / "cov.npy")


def schedule(folder: Path, *words: str) -> dict[str, Any]:
    assert main(["schedule", *words, "--json", str(folder / "out.json")]) == 0
    found: dict[str, Any] = json.loads((folder / "out.json").read_text())
    return found


def test_the_json_is_a_plan_and_its_numbers_are_the_library_s(
    tmp_path: Path, covariance: str, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = {kind: tmp_path / f"{kind}.json" for kind in ("plan", "sigma", "timesteps")}
    words = [f"--export={kind}={path}" for kind, path in paths.items()]
    found = schedule(tmp_path, "--covariance", covariance, "--frame-dim", "2", *PLAN, *words)
    assert found.keys() == KEYS
    assert set(found["baselines"]) == set(HAND_GRIDS)
    assert found["objective"] == "kl"
    assert found["floor"] < found["value"] <= min(found["start"], *found["baselines"].values())
    assert np.array(found["ar_levels"]).shape == (4, 2)
    assert np.array(found["init_levels"]).shape == (3, 2)
    plan = Plan.from_dict(found["plan"])
    assert plan == Plan.from_dict(json.loads(paths["plan"].read_text()))
    totals = ledger(reference_video(), plan, 2).totals
    assert totals["kl"] == pytest.approx(found["value"], rel=1e-10)
    assert totals["floor"] == pytest.approx(found["floor"], rel=1e-10)
    # The same plan of the file again, by another objective, from its own levels.
    again = schedule(tmp_path, "--covariance", covariance, "--frame-dim", "2", "--plan", str(paths["plan"]),
                     "--ar-steps", "2", "--iterations", "1", "--objective", "girsanov")  # fmt: skip
    assert again["start"] >= again["value"]
    assert "kl" in again["notes"]["floor"]
    for kind in ("sigma", "timesteps"):
        content = json.loads(paths[kind].read_text())
        assert content == json.loads(json.dumps(export_schedule(plan, kind)))
        assert ledger(reference_video(), import_schedule(content, plan), 2).totals["kl"] == pytest.approx(
            found["value"], rel=1e-9 if kind == "sigma" else 0.2
        )
    told = capsys.readouterr().out
    assert "what KL(clean) of no sampler of the plan is below" in told
    assert "timesteps.json: written; read back, the level" in told
    assert "changes the objective by" in told


def test_diffusers_loads_the_folder_that_is_exported(tmp_path: Path, covariance: str) -> None:
    module = pytest.importorskip("diffusers.schedulers.scheduling_flow_match_euler_discrete")
    found = schedule(tmp_path, "--covariance", covariance, "--frame-dim", "2", *PLAN, "--iterations", "1",
                     f"--export=diffusers-flow={tmp_path / 'flow'}")  # fmt: skip
    scheduler = module.FlowMatchEulerDiscreteScheduler.from_pretrained(tmp_path / "flow")
    content = json.loads((tmp_path / "flow" / "schedule.json").read_text())
    scheduler.set_timesteps(**content["set_timesteps"])
    sigma = np.sqrt(np.expm1([row[0] for row in found["ar_levels"]]))
    assert scheduler.sigmas.numpy() == pytest.approx(sigma / (1 + sigma), rel=2.0**-23, abs=0)


def test_an_overlapping_window_has_no_floor_and_says_why(tmp_path: Path) -> None:
    power = [[4.0, 2.0, 1.0, 0.5, 0.5, 0.5, 0.4, 0.4], [1.0] * 8]
    np.save(tmp_path / "spectrum.npy", power)
    plan_words = "--method fifo --window 3 --ar-steps 2 --reverse-steps 2 --init-steps 2 --iterations 2"
    found = schedule(tmp_path, "--spectrum", str(tmp_path / "spectrum.npy"), *plan_words.split())
    assert found["floor"] is None
    assert "w > Δ" in found["notes"]["floor"]
    video = spectral_video(power)
    plan = Plan.from_dict(found["plan"])
    assert optimal_schedule(video, plan, 2, iterations=1).start == pytest.approx(found["value"], rel=1e-9)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--reverse-steps 0", "--reverse-steps must be at least 1"),
        ("--ar-steps 0", "a whole number from 1"),
        ("--step leap", "a reverse step is one of"),
        ("--step ddim --objective path", "the objective 'path' is infinite"),
        ("--score-error nan", "--score-error must be finite"),
        ("--objective see", "invalid choice"),
        ("--export sigma", "FORMAT=FILE is expected"),
        ("--export flow:linear=x.json", "only timesteps and diffusers have a schedule"),
        ("--export timesteps:cosine=x.json", "only timesteps and diffusers have a schedule"),
        ("--export timesteps:stable-diffusion=x.json --horizon 6", "beyond the end of the stable-diffusion"),
        ("--export diffusers=out.json/x --per-frame", "one level for all frames"),
        ("--ar-steps 9", "frames"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    words: str, told: str, tmp_path: Path, covariance: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    try:
        code = main(["schedule", "--covariance", covariance, "--frame-dim", "2", *PLAN, "--iterations", "1",
                     *words.split(), "--json", "out.json"])  # fmt: skip
    except SystemExit as error:
        code = int(error.code or 0)
    assert code == 2
    error = capsys.readouterr().err
    assert told in error
    assert len(error.splitlines()) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"cov.npy"}
