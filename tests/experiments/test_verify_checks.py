"""The main job's checks: what passes, how close a case comes to the bound, and what the summary and figure say."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from arvdm_theory.experiments.retrieval.run import NeedleConfig, run_needle
from arvdm_theory.experiments.verify.cases import SIZES
from arvdm_theory.experiments.verify.checks import (
    AR_STEP_TERM,
    CAUSE_ABOVE,
    Check,
    bound_checks,
    judged,
    lemma_checks,
    needle_checks,
    ratios,
    summary,
)
from arvdm_theory.experiments.verify.figures import bounds
from arvdm_theory.experiments.verify.run import headline
from arvdm_theory.laws.gridworld.retrieval import expected_retrieval
from arvdm_theory.laws.gridworld.video import GridVideo
from arvdm_theory.laws.gridworld.world import ring


def named(checks: list[Check]) -> pd.DataFrame:
    """Rows that name their case by its number."""
    return judged(checks).assign(video=[f"case {i}" for i in range(len(checks))], plan="p", step="-")


def test_the_slack_is_the_gap_and_errors_are_allowed_beside_it() -> None:
    table = judged([
        Check("exact", 1.0, "<=", 3.0),
        Check("sampled, within", 3.0, "<=", 1.0, 0.4),
        Check("sampled, beyond", 3.0, "<=", 1.0, 0.39),
        Check("equal", 1.0, "=", 1.5, 0.1),
        Check("not equal", 1.5, "=", 1.0, 0.09),
        Check("rounding", 1e6 + 9e-4, "<=", 1e6),
        Check("infinite", 2.0, "<=", math.inf),
        Check("both infinite", math.inf, "<=", math.inf),
    ])  # fmt: skip
    assert table.slack.tolist() == pytest.approx([2.0, -2.0, -2.0, -0.5, -0.5, -9e-4, math.inf, 0.0])
    assert table.passed.tolist() == [True, True, False, True, False, True, True, True]


def test_ratios_are_those_of_bound_to_value() -> None:
    table = named([
        Check("a", 2.0, "<=", 3.0),
        Check("a", 2.0, "<=", 1.0),  # violated
        Check("a", 0.0, "<=", 0.5),  # any bound of no less than 0 would do
        Check("a", -1.0, "<=", -0.5),
        Check("a", 0.0, "<=", -0.5),
        Check("b", 2.0, "=", 2.5),
        Check("b", 2.5, "=", 2.0),
        Check("b", 1.0, "=", 1.0),
        Check("a", 1e-10, "<=", 1e-12),  # both 0 to rounding
        Check("a", 1e-10, "<=", 1.0),
        Check("a", 1.0, "<=", math.inf),
    ])  # fmt: skip
    inf = math.inf
    assert ratios(table).tolist() == pytest.approx(
        [1.5, 0.5, inf, inf, -inf, 0.8, 0.8, 1.0, math.nan, 1e10, inf], nan_ok=True
    )


def test_the_summary_tells_empty_cases_and_the_closest_one() -> None:
    """Least absolute slack would name the empty case, and of the others the one that is 100 times loose."""
    checks = named([
        Check("bound", 0.0, "<=", 0.0),
        Check("bound", 1e-3, "<=", 0.1),
        Check("bound", 10.0, "<=", 12.0),
        Check("bound", 10.0, "<=", 30.0),
        Check("other", 0.0, "<=", 0.0, unit="rate"),
        Check("failed", 2.0, "<=", 1.0),
        Check("sign", 0.0, "<=", 0.7),
        Check("sign", 0.0, "<=", 0.2),
    ])  # fmt: skip
    found = summary(checks)
    assert found.index.tolist() == ["bound", "other", "failed", "sign"]
    assert found.cases.tolist() == [3, 0, 1, 2]
    assert found["empty"].tolist() == [1, 1, 0, 0]
    assert found.smallest.tolist() == pytest.approx([1.2, math.nan, 0.5, math.inf], nan_ok=True)
    assert found["median"].tolist() == pytest.approx([3.0, math.nan, 0.5, math.inf], nan_ok=True)
    assert found.value.tolist() == [10.0, 0.0, 2.0, 0.0]
    assert found.bound.tolist() == [12.0, 0.0, 1.0, 0.2]
    assert found.closest.tolist() == ["case 2 · p · -", "case 4 · p · -", "case 5 · p · -", "case 7 · p · -"]
    assert found.verdict.tolist() == ["pass", "pass", "FAIL (1)", "pass"]
    assert found.unit.tolist() == ["nats", "rate", "nats", "nats"]
    assert re.search(r"^bound +pass +3 +1 +1\.2 +3 +10 +12 +nats +case 2", headline(checks), re.MULTILINE)


def test_loose_cases_of_the_ar_step_ledger_are_named_with_their_cause(tmp_path: Path) -> None:
    """Errors of noisy states that are forgotten before they come out; memory that only noise hides."""
    plans = ("outpainting, last 4", "outpainting, last 3 noised", "FIFO, last 3", "chunks of 2")
    size = replace(
        SIZES["default"], videos=("AR(1) 0.8", "needle"), plans=plans, steps=("exponential", "ancestral")
    )
    grid = bound_checks(size, tmp_path, progress=False)
    assert grid.passed.astype(bool).all(), grid[~grid.passed.astype(bool)]
    rows = grid[grid.term == AR_STEP_TERM].set_index(["video", "plan", "step", "score_error"])
    found = ratios(rows)
    assert found.median() < 1.5
    assert found[rows.index.get_level_values("plan") == plans[0]].tolist() == pytest.approx([1.0] * 8, abs=1e-9)
    named = rows.cause.notna() & (rows.cause != "")
    assert named.tolist() == (found > CAUSE_ABOVE).tolist()
    assert rows.cause["needle", "FIFO, last 3", "exponential", 0.0] == "noisy window states, mostly Σ E_k"
    assert rows.cause["needle", "chunks of 2", "ancestral", 0.0] == "noisy window states, mostly Σ MB"
    assert not named.loc[:, plans[1]].any()


def test_the_lemma_s_own_verdict_counts() -> None:
    lemma = pd.DataFrame({"law": "finite", "memory_bottleneck": [0.5, 0.5], "cost": [0.6, 0.6],
                          "holds": [True, False]})  # fmt: skip
    found = lemma_checks(lemma)
    assert found.passed.tolist() == [True, False]
    assert found.slack.tolist() == pytest.approx([0.1, 0.1])


def test_the_needle_is_checked_in_the_nats_lost_a_revisit() -> None:
    """Of the patch on a ring all nats are lost at a revisit or none: -log of the mean against the mean of -log.

    With m = 0 every revisit loses log C, so both sides are equal; with m = 2 they are not, and MB is neither.
    """
    config = NeedleConfig(cells=5, colours=3, frames=12, memory=(0, 2), walks=0)
    checks = needle_checks(run_needle(config))
    rows = checks[checks.term.str.contains("nats lost a revisit") & (checks.unit == "nats")].set_index("plan")
    assert rows.loc["last 0", "value"] == pytest.approx(math.log(3), rel=1e-12)
    assert rows.loc["last 0", "bound"] == pytest.approx(math.log(3), rel=1e-12)
    exact = expected_retrieval(GridVideo(ring(5), colours=3), [2], 11)[0]
    # A revisit that is not in memory is guessed right once in three times, and costs log 3.
    lost = 1.5 * (1 - exact.frame_rate)
    assert rows.loc["last 2", "value"] == pytest.approx(-math.log(1 - 2 / 3 * lost), rel=1e-12)
    assert rows.loc["last 2", "bound"] == pytest.approx(lost * math.log(3), rel=1e-12)
    assert not math.isclose(rows.loc["last 2", "bound"], exact.total / 11, rel_tol=1e-3)
    assert checks.passed.all()


def test_the_figure_says_of_every_missing_mark_why() -> None:
    rows = []
    for method, known in (("outpainting\nlast 1", True), ("FIFO\nlast 3", False), ("chunks\nlast 2", False)):
        for name, value in (("floor", 0.5), ("lower_bound", 1.0), ("kl", 2.0), ("trajectory_kl", 3.0),
                            ("girsanov", 4.0), ("closed", 5.0)):  # fmt: skip
            left_out = name in ("floor", "lower_bound") and not known
            rows.append((method, name, math.nan if left_out else value, "w > Δ here" if left_out else math.nan))
    figure = bounds(pd.DataFrame(rows, columns=["method", "quantity", "value", "note"]))
    [axis] = figure.axes
    said = figure.legends[0].get_title().get_text().replace("\n", " ")
    assert said.count("No mark of") == 1
    assert "Σ I(output; past | clean references) and IE + Σ MB for FIFO, last 3; chunks, last 2: w > Δ" in said
    marks = {str(marks.get_label()): np.asarray(marks.get_offsets()) for marks in axis.collections[1:]}
    [floor] = [label for label in marks if "clean references" in label]
    assert "no sampler beats it" in floor
    assert np.isfinite(marks[floor]).all(1).sum() == 1
    [behind] = [label for label in marks if label.startswith("IE + Σ MB")]
    assert "behind this first input" in behind
