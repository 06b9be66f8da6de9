"""``arvdm video sweep``: a row a network and source, resumable, published with its figures."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from arvdm_theory import provenance
from arvdm_theory.cli import main
from arvdm_theory.experiments import EXPERIMENTS
from arvdm_theory.experiments.video import run as study
from arvdm_theory.experiments.video.run import decode_picture
from arvdm_theory.experiments.video.suites import suite

pytest.importorskip("labmaze", reason="labmaze is not installed (there is none for Python 3.13)")

SMOKE = ["video", "sweep", "--preset", "smoke", "--device", "cpu", "--memory", "none", "cross"]


def test_a_sweep_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, published = tmp_path / "sweep", tmp_path / "results"
    train, trained = study.train_run, []

    def once(*words: object) -> object:
        if trained:
            raise KeyboardInterrupt
        trained.append(words[0])
        return train(*words)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(study, "train_run", once)
        assert main([*SMOKE, "--out", str(out)]) == 130
    assert len(list((out / "cells").iterdir())) == 1
    again = []
    # A result is published from a commit alone: not from a tree that was changed since.
    monkeypatch.setattr(provenance, "_commit", lambda: f"{'0' * 40}-dirty")
    assert main([*SMOKE, "--out", str(out), "--publish", str(published)]) == 2
    assert "source tree was changed since 00000000: commit first" in capsys.readouterr().err
    assert not published.exists()
    monkeypatch.setattr(provenance, "_commit", lambda: "0" * 40)
    with monkeypatch.context() as patch:
        patch.setattr(study, "train_run", lambda *words: (again.append(words[0].memory), train(*words))[1])
        assert main([*SMOKE, "--out", str(out), "--publish", str(published)]) == 0
    assert again == ["cross"]
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("memory", "slope", "nats", "copy of the last frame"))
    assert "preset" not in shown  # both networks have the same

    names = sorted(path.name for path in published.iterdir())
    tables = (
        "video-agreement",
        "video-claims",
        "video-information",
        "video-network-cost",
        "video-rollouts",
        "video-summary",
        "video",
    )
    films = ("video-film.csv", "video-rollout-film.csv")
    assert names == sorted([*films, *(f"{name}{end}" for name in tables for end in (".csv", ".provenance.json"))])
    table = pd.read_csv(published / "video.csv")
    assert table[table["ahead"] == 0].groupby("memory").size().to_dict() == {"cross": 10, "none": 8}
    own = table[(table["source"] == "generated") & (table["memory"] == "cross")].set_index("ahead")
    by_place = own.drop(index=0)
    assert by_place["queries"].sum() == own.loc[0, "queries"]
    mean = (by_place["rate"].fillna(0) * by_place["queries"]).sum() / by_place["queries"].sum()
    assert own.loc[0, "rate"] == pytest.approx(mean)
    # The references do not depend on the network: both are asked the same queries.
    own = ["network", "memory", "memory_frames", "updates", "seconds", "weights"]
    references = table[~table["source"].str.startswith("generated")]
    none, cross = (
        references[references["memory"] == name].drop(columns=own).reset_index(drop=True)
        for name in ("none", "cross")
    )
    pd.testing.assert_frame_equal(none, cross)

    film = pd.read_csv(published / "video-film.csv")
    assert set(film["source"]) == {"truth", "none", "cross"}
    truth = film[film["source"] == "truth"].set_index(["window", "frame"])
    asked = truth[truth["role"] == "query"]
    assert len(asked) > 0
    for (window, _), row in asked.iterrows():
        seen = truth.loc[(window, row["needle"])]
        np.testing.assert_array_equal(
            decode_picture(row["pixels"], row["shape"]), decode_picture(seen["pixels"], seen["shape"])
        )
    for name in ("video-retrieval", "video-film-strips"):
        assert (out / "figures" / f"{name}.png").stat().st_size > 0

    rolled = pd.read_csv(published / "video-rollouts.csv")
    assert rolled.groupby(["network", "source"]).size().tolist() == [8] * 6
    generated = rolled[rolled["source"] == "generated"]
    np.testing.assert_allclose(generated["psnr"], 10 * np.log10(4 / generated["mse"]), rtol=1e-12)
    summary = pd.read_csv(published / "video-summary.csv").set_index("memory")
    for _, curve in generated.groupby("network"):
        # The slope is the least-squares one of the curve of mean errors.
        slope = np.polyfit(curve["ahead"], curve["psnr"], 1)[0]
        assert curve["slope"].iloc[0] == pytest.approx(slope)
        assert summary.loc[curve["memory"].iloc[0], "slope"] == pytest.approx(slope)
        # Constant errors make no slope but that of the frames within one window, and the first frame is foretold.
        assert curve["predicted_constant"].iloc[0] == pytest.approx(curve["predicted_linear_response"].iloc[0])
        assert len(curve["predicted_constant"].round(9).unique()) == 4
    costs = pd.read_csv(published / "video-network-cost.csv").set_index("memory")
    assert costs["beside"].tolist() == ["no memory"] * 2
    assert costs.loc["none", "peak_ratio"] == 1 < costs.loc["cross", "peak_ratio"]
    assert summary.loc["cross", "peak_mib"] == costs.loc["cross", "peak_mib"]
    told = pd.read_csv(published / "video-information.csv")
    assert told["memory"].tolist() == ["cross"]
    assert summary.loc["cross", "nats"] == told["nats"].iloc[0]
    assert summary.loc["none", "nats"] == 0
    # Two networks: at least one is best on an axis, and there are too few to rank.
    assert summary["front_rate"].any()
    assert pd.read_csv(published / "video-agreement.csv").empty
    assert pd.read_csv(published / "video-claims.csv").empty


def test_the_same_network_twice_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMOKE, "--seeds", "1", "1", "--out", str(tmp_path)]) == 2
    assert "two of its runs are the same" in capsys.readouterr().err


def test_suites_are_known_by_name_and_name_each_network_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = suite(EXPERIMENTS["video"].presets)
    assert len(set(runs)) == len(runs)
    # Every network with a memory has its twin without one, but for the large one, those of further worlds and
    # those trained for longer.
    twins = {study.network_name(run): run for run in runs}
    work = study._Work(twins, tmp_path, progress=False)
    alone = [run for run in runs if run.memory != "none" and work.twin(run) is None]
    assert {(run.preset, run.worlds) for run in alone} == {
        ("cpu-long", 0),
        ("cpu-slip", 2),
        ("cpu-slip", 3),
        ("cpu-farthest", 1),
    }
    for run in runs:
        twin = work.twin(run)
        if twin is not None:
            assert (twin.windows.prompt, twin.plan, twin.seed) == (run.windows.prompt, run.plan, run.seed)
    assert main(["video", "sweep", "--suite", "colours", "--out", str(tmp_path)]) == 2
    assert "suites are structures, length" in capsys.readouterr().err


def test_the_front_is_what_nothing_beats_on_both_axes() -> None:
    gain = pd.Series([0.1, 0.5, 0.5, 0.9, 0.9, np.nan])
    slope = pd.Series([-0.1, -0.1, -0.2, -0.3, -0.3, 0.0])
    assert study._front(gain, slope).tolist() == [False, True, False, True, True, False]
