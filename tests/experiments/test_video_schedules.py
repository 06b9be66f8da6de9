"""Networks on first-person video sampled on other grids: the run is held against its parts."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from arvdm_theory.experiments.video_schedules import run as study
from arvdm_theory.experiments.video_schedules.figures import FIGURES
from arvdm_theory.experiments.video_schedules.findings import findings
from arvdm_theory.video.frechet import feature_distance
from arvdm_theory.video.metrics import psnr


def test_features_tell_noise_from_pictures_and_are_the_same_always() -> None:
    rng = np.random.default_rng(0)
    clips = np.clip(127 + 30 * rng.normal(size=(60, 1, 4, 4, 3)), 0, 255).astype(np.uint8)
    clips = clips.repeat(4, 1).repeat(4, 2).repeat(4, 3)
    features = study.random_features(clips)
    assert features.shape == (60, 32)
    np.testing.assert_array_equal(features, study.random_features(clips))
    assert feature_distance(features, features).distance.value < 1e-6
    near, far = (
        np.clip(clips + rng.normal(0, spread, clips.shape), 0, 255).astype(np.uint8) for spread in (10, 40)
    )
    distances = [feature_distance(features, study.random_features(each)).distance.value for each in (near, far)]
    assert 0 < distances[0] < distances[1] / 4  # a shift of the mean enters squared


def test_intervals_are_student_s_over_worlds() -> None:
    table = pd.DataFrame({"data": "dmlab", "quantity": "psnr", "value": [1.0, 2.0, 3.0], "gain": [0.0, 0.0, 0.0]})
    found = study.summary(table, ["data"]).iloc[0]
    assert (found.value, found.worlds, found.gain, found.gain_half) == (2.0, 3, 0.0, 0.0)
    assert found.value_half == pytest.approx(4.302653 / 3**0.5, rel=1e-6)


def test_a_run_measures_what_its_grids_make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("labmaze", reason="labmaze is not installed (there is none for Python 3.13)")
    tiny = dataclasses.replace(study.SIZES["smoke"], worlds=(0,), noised=())
    monkeypatch.setattr(study, "SIZES", {"smoke": tiny})
    monkeypatch.setattr(study, "GRIDS", {"uniform": "uniform", study.OURS: "best"})
    tables = study.video_schedules("smoke", tmp_path, progress=False)
    levels, found = tables["video-schedules-levels"], tables["video-schedules"]
    for _, grid in levels.groupby("grid"):
        assert (grid.level.iloc[0], grid.level.iloc[-1]) == (8.0, 0.0)
        assert (np.diff(grid.level) < 0).all()
    assert set(found.grid) == {"uniform", study.OURS, "true clips"}
    wide = found.pivot_table(index="quantity", columns="grid", values="value")
    gains = found[found.grid == "uniform"].set_index("quantity").gain
    for quantity in ("psnr", "ssim", "frechet"):
        assert gains[quantity] == pytest.approx(wide[study.OURS][quantity] - wide["uniform"][quantity], abs=1e-12)
    # The uniform grid is what it says: the network's own sampling on uniform levels.
    run = study.VideoRun("dmlab", "smoke", told="reckoned")
    world = study._World(run, tiny, tmp_path, False)
    samples = world.sampled(world.network(), world.plan(3, "uniform"))
    at = [
        psnr(samples.truth[n, asked][None], samples.generated[n, asked][None])[0]
        for n, window in enumerate(samples.windows) for _, asked in window.queries
    ]  # fmt: skip
    assert np.mean(at) == pytest.approx(wide["uniform"]["psnr"], abs=1e-9)
    assert "what kl gains" in study.headline(tables)
    plt.close(FIGURES["video-schedules"][1](found))


def test_findings_say_who_wins() -> None:
    rows = [
        {"data": "dmlab", "worlds": world, "reverse_steps": 3, "grid": grid, "quantity": quantity, "value": value,
         "gain": best - value + noise, "stderr": 0.1, "gain_stderr": 0.1}
        for world, noise in ((1, -0.01), (2, 0.0), (3, 0.01))
        for quantity, best, other in (("psnr", 20.0, 19.0), ("ssim", 0.5, 0.5), ("frechet", 1.0, 2.0))
        for grid, value in (("uniform", other), (study.OURS, best))
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    noise = table.rename(columns={"grid": "profile"})
    found = {each.finding: each for each in findings({"video-schedules": table, "video-schedules-noise": noise})}
    for quantity, wins in (("psnr", 1), ("ssim", 0), ("frechet", 1)):
        told = found[f"step numbers at which kl wins against uniform in {quantity}, interval apart"]
        assert (told.value, told.of) == (wins, 1)
    assert found["psnr, dmlab, M = 3: kl - uniform"].value == pytest.approx(1.0)
    assert found["step numbers at which kl has the best mean frechet"].value == 1
