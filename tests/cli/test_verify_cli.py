"""The main job end to end at the smallest size, and that it notices a violated bound."""

import math
import re
from pathlib import Path

import pandas as pd
import pytest

from arvdm_theory.cli import main
from arvdm_theory.experiments import EXPERIMENTS
from arvdm_theory.experiments.verify import checks as verify
from arvdm_theory.experiments.verify import finite
from arvdm_theory.experiments.verify import run as main_job
from arvdm_theory.experiments.verify.cases import SIZES, Size
from arvdm_theory.experiments.verify.sweeps import SWEEPS
from arvdm_theory.files import read_json
from arvdm_theory.tables import read_table

TINY = Size(("AR(1) 0.8",), ("outpainting, last 1", "FIFO, last 3"), ("exponential",), (0.05,), 2, 3, 3, 2, 20)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SIZES, "smoke", TINY)
    one_video = {"two poses": finite.FINITE_VIDEOS["two poses"]}
    one_plan = {"outpainting, last 1": finite.FINITE_PLANS["outpainting, last 1"]}
    monkeypatch.setattr(finite, "FINITE_VIDEOS", one_video)
    monkeypatch.setattr(finite, "FINITE_PLANS", one_plan)


def test_verify_passes_writes_tables_and_draws_every_figure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", "--preset", "smoke", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "checks hold" in shown
    assert "FAIL" not in shown
    figures = {*EXPERIMENTS["verify"].figures, "needle"}
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == figures
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == len(figures)
    assert "http" not in page
    checks = read_table(tmp_path / "checks.csv")
    terms = {plan: set(rows.term) for plan, rows in checks[checks.kind == "check"].groupby("plan")}
    assert len(terms["FIFO, last 3"]) == 13
    # What bounds KL(clean) from below, and what it equals, is known for plans with w = Δ alone.
    more = terms["outpainting, last 1"] - terms["FIFO, last 3"]
    assert "IE + Σ MB ≤ KL(clean)" in more
    assert "KL(clean) = KL(AR-step), w = Δ, clean references" in more
    assert all("KL(clean)" in term for term in more)
    assert re.search(r"KL\(AR-step\)/KL\(clean\): median \S+ of 2 cases", shown)
    assert re.search(r"Σ E_k, errors of AR steps +1\.00 \(1\.00, 1\.00\) ", shown)
    for name in ("checks", "finite_checks", "methods", "lemma", "schedulers", "scheduler_correlations"):
        assert (tmp_path / f"{name}.provenance.json").exists()


def test_a_violated_bound_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(main_job, "SWEEPS", {"lemma": SWEEPS["lemma"]})
    right = verify.trajectory_kl
    monkeypatch.setattr(verify, "trajectory_kl", lambda *arguments: right(*arguments) * (1 + 1e-6))
    assert main(["verify", "--preset", "smoke", "--out", str(tmp_path), "--no-figures"]) == 1
    shown = capsys.readouterr().out
    assert "2 of" in shown
    assert "VIOLATED" in shown
    assert not (tmp_path / "figures").exists()
    assert read_json(tmp_path / "report.json")["summary"][0].startswith("2 of ")


def test_a_verdict_is_made_of_the_numbers() -> None:
    """A check that is said to hold must hold by its value and bound; one that is said to fail fails."""
    table = pd.DataFrame(
        [("<=", 1.0, 2.0, True), ("<=", 2.0, 1.0, True), ("=", 1.0, 1.0 + 1e-12, True), ("=", 1.0, 1.1, True),
         ("<=", 1.0, 2.0, False), ("<=", math.inf, math.inf, True), ("<=", math.nan, 1.0, True)],
        columns=["relation", "value", "bound", "passed"],
    )  # fmt: skip
    assert verify.verdicts(table).passed.tolist() == [True, False, True, False, False, True, False]
    spread = table.assign(stderr=[0.0, 0.21, 0.0, 0.01, 0.0, 0.0, 0.0])
    assert verify.verdicts(spread).passed.tolist() == [True, True, True, False, False, True, False]


def test_a_cell_that_was_changed_by_hand_is_not_published(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["verify", "--preset", "smoke", "--out", str(tmp_path), "--no-figures"]
    assert main(words) == 0
    right = (tmp_path / "checks.csv").read_bytes()
    victim = next(iter((tmp_path / "cells").glob("checks-*.csv")))
    victim.write_bytes(victim.read_bytes().replace(b",check,", b",check ,", 1))
    capsys.readouterr()
    assert main(words) == 0
    error = capsys.readouterr().err
    assert f"warning: {victim} is damaged or was changed since it was written: computed again" in error
    assert (tmp_path / "checks.csv").read_bytes() == right
