"""``arvdm video sweep``: a row a network and source, resumable, published with its figures."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from arvdm_theory.cli import main
from arvdm_theory.studies import video as study
from arvdm_theory.studies.video import decode_picture

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
    with monkeypatch.context() as patch:
        patch.setattr(study, "train_run", lambda *words: (again.append(words[0].memory), train(*words))[1])
        assert main([*SMOKE, "--out", str(out), "--publish", str(published)]) == 0
    assert again == ["cross"]
    assert "memory" in capsys.readouterr().out

    names = sorted(path.name for path in published.iterdir())
    assert names == ["video-film.csv", "video.csv", "video.provenance.json"]
    table = pd.read_csv(published / "video.csv")
    assert table[table["ahead"] == 0].groupby("memory").size().to_dict() == {"cross": 3, "none": 3}
    own = table[(table["source"] == "generated") & (table["memory"] == "cross")].set_index("ahead")
    by_place = own.drop(index=0)
    assert by_place["queries"].sum() == own.loc[0, "queries"]
    mean = (by_place["rate"].fillna(0) * by_place["queries"]).sum() / by_place["queries"].sum()
    assert own.loc[0, "rate"] == pytest.approx(mean)
    # The references do not depend on the network: both are asked the same queries.
    own = ["network", "memory", "updates", "seconds", "weights"]
    references = table[table["source"] != "generated"]
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
    for name in ("retrieval", "film-strips"):
        assert (out / "figures" / f"{name}.png").stat().st_size > 0


def test_the_same_network_twice_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMOKE, "--seeds", "1", "1", "--out", str(tmp_path)]) == 2
    assert "two of its runs are the same" in capsys.readouterr().err
