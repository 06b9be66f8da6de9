"""The estimator benchmark: its tasks are what they say, and a smoke run makes tables and figures."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from arvdm_theory.experiments.estimators import hard_run
from arvdm_theory.experiments.estimators.figures import FIGURES
from arvdm_theory.experiments.estimators.run import (
    SIZES,
    TASKS,
    _half_cube,
    _spiral,
    benchmark,
    comparison,
    cost,
    coverage,
    coverage_summary,
    summary,
)
from arvdm_theory.information.estimators import copula_information, discrete_information, gaussian_information
from arvdm_theory.report.style import draw_all

pytestmark = pytest.mark.filterwarnings("ignore::arvdm_theory.information.estimators.EstimationWarning")


@pytest.mark.parametrize("name", sorted(TASKS))
def test_tasks_draw_what_their_seed_says(name: str) -> None:
    task = TASKS[name]
    first, again, other = task.draw(50, 1), task.draw(50, 1), task.draw(50, 2)
    assert len(first.x) == len(first.z) == 50
    assert first.x.shape[1] == task.dimension
    np.testing.assert_array_equal(first.x, again.x)
    assert (first.z != other.z).any()
    assert task.truth > 0


@pytest.mark.parametrize("name", ["gaussian 4+4", "gaussian (4, 4, 2)", "gaussian video"])
def test_gaussian_truths_agree_with_large_samples(name: str) -> None:
    estimate = gaussian_information(*TASKS[name].draw(20_000, 5))
    assert abs(estimate.value - TASKS[name].truth) < 4 * estimate.stderr


def test_markov_and_mapped_truths_agree_with_large_samples() -> None:
    task = TASKS["markov video"]
    estimate = discrete_information(*task.draw(20_000, 5))
    assert abs(estimate.value - task.truth) < 4 * estimate.stderr
    for name in ("half-cube 3+3", "asinh 3+3", "cubic 16+16"):
        estimate = copula_information(*TASKS[name].draw(20_000, 5))
        assert abs(estimate.value - TASKS[name].truth) < 4 * estimate.stderr


def test_maps_are_invertible() -> None:
    values = np.random.default_rng(0).normal(size=(200, 3))
    turned = _spiral(values)
    np.testing.assert_allclose((turned**2).sum(1), (values**2).sum(1), rtol=1e-12)
    # Lengths stay, so the angles are known: turn back in the other order.
    angle = (values**2).sum(1) / 3
    back = turned.copy()
    for i in (1, 0):
        first, second = back[:, i].copy(), back[:, i + 1].copy()
        back[:, i] = np.cos(angle) * first + np.sin(angle) * second
        back[:, i + 1] = -np.sin(angle) * first + np.cos(angle) * second
    np.testing.assert_allclose(back, values, atol=1e-12)
    cubed = _half_cube(values)
    np.testing.assert_allclose(np.sign(cubed) * np.abs(cubed) ** (2 / 3), values, atol=1e-12)


def test_a_smoke_run_makes_every_table_and_figure(tmp_path: Path) -> None:
    table = benchmark(SIZES["smoke"], tmp_path, progress=False)
    shown = summary(table)
    assert {"calibrated", "ksg1", "miller-madow"} <= set(shown.method)
    assert (shown.seconds > 0).all()
    row = shown[(shown.method == "gaussian") & (shown.task == "gaussian 1+1")].iloc[0]
    errors = table[(table.method == "gaussian") & (table.task == "gaussian 1+1")].eval("value - truth")
    assert row.bias == pytest.approx(errors.mean())
    assert row.rmse == pytest.approx(np.sqrt((errors**2).mean()))
    intervals = coverage(SIZES["smoke"], tmp_path, progress=False)
    assert intervals.groupby("task").covered.mean().between(0, 1).all()
    assert len(draw_all(tmp_path, FIGURES)) == len(FIGURES)
    # A second run reads what the first one wrote.
    again = benchmark(SIZES["smoke"], tmp_path, progress=False)
    assert (again.seconds == table.seconds).all()


def test_the_comparison_knows_wins_losses_and_noise() -> None:
    rng = np.random.default_rng(0)
    rows = []
    # Default errors of about 0.1 against the best peer's 0.3, 0.02 and, with much scatter, 0.1.
    for task, own, peer, noise in (("won", 0.1, 0.3, 0.01), ("lost", 0.1, 0.02, 0.01), ("even", 0.1, 0.1, 0.5)):
        for seed in range(20):
            for method, error in (("calibrated", own), ("ennemi", peer), ("infomeasure", 2.0), ("ksg1", 0.0)):
                value = 1 - error * math.exp(noise * rng.normal())
                rows.append({"task": task, "n": 5, "seed": seed, "method": method, "value": value, "truth": 1.0})
    shown = comparison(pd.DataFrame(rows)).set_index("task")
    assert set(shown.peer) == {"ennemi"}
    assert shown.loc["won", "high"] < 0
    assert not shown.loc["won", "loss"]
    assert shown.loc["lost", "loss"]
    assert shown.loc["lost", "beyond_error"]
    assert shown.loc["lost", "difference"] == pytest.approx(0.08, abs=0.01)
    assert not shown.loc["even", "beyond_error"]
    assert (shown.low <= shown.difference).all()
    assert (shown.difference <= shown.high).all()


def test_the_cost_is_held_against_the_fastest_package() -> None:
    rows = [("calibrated", s) for s in (1.0, 2.0, 9.0)] + [("ennemi", 0.5)] * 3 + [("NPEET-plus", 4.0)] * 3
    row = cost(pd.DataFrame(rows, columns=["method", "seconds"]).assign(task="t", n=5)).iloc[0]
    assert (row.calibrated, row.ennemi, row.default_over_fastest_package) == (2.0, 0.5, 4.0)


def test_coverage_shares_have_wilson_intervals() -> None:
    covered = [True] * 190 + [False] * 10
    table = pd.DataFrame({"task": "t", "n": 9, "method": "m", "covered": covered, "value": 1.0, "truth": 0.5})
    row = coverage_summary(table.assign(stderr=0.1)).iloc[0]
    # Wilson's interval solves (p - 0.95)² = z² p (1 - p)/n.
    for end in (row.low, row.high):
        assert (end - 0.95) ** 2 == pytest.approx(1.959964**2 * end * (1 - end) / 200)
    assert (row.replicates, row.bias, row.stderr) == (200, 0.5, pytest.approx(0.1))


def test_hard_tables_count_coverage_refusals_and_widths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("X with X", "gaussian, n 60")
    monkeypatch.setattr(hard_run, "HARD_TASKS", {name: hard_run.HARD_TASKS[name] for name in names})
    monkeypatch.setattr(hard_run, "DIVERGENCE_TASKS", {"the same law": hard_run.DIVERGENCE_TASKS["the same law"]})
    table = hard_run.hard(3, tmp_path, progress=False)
    assert len(table) == 9
    assert (table[table.task == "X with X"].method == "refused").all()
    summary = hard_run.hard_summary(table).set_index("task")
    assert summary.refused["X with X"] == 1
    assert summary.refused["together"] == pytest.approx(1 / 3)
    given = table[table.task == "gaussian, n 60"]
    covered = (given.ci_low <= given.truth) & (given.truth <= given.ci_high)
    assert summary.coverage["gaussian, n 60"] == covered.mean()
    # P(at most k of 3 at 0.9), by hand.
    below = [0.001, 0.028, 0.271, 1.0][int(covered.sum())]
    assert summary.below["gaussian, n 60"] == pytest.approx(below)
    assert summary.width["the same law"] == (table.ci_high - table.ci_low)[table.task == "the same law"].median()
    # Beside it what one would do who knew that the law is Gaussian, and nothing where there is nothing to know.
    assert summary.aware["gaussian, n 60"] == "gaussian"
    own = gaussian_information(*hard_run.HARD_TASKS["gaussian, n 60"].draw(60, int(given.seed.iloc[0])))
    assert (given.aware_low.iloc[0], given.aware_high.iloc[0]) == (own.ci_low, own.ci_high)
    ratios = summary.width / summary.aware_width
    pd.testing.assert_series_equal(summary.law_aware.iloc[:-1], ratios.iloc[:-1], check_names=False)
    assert summary.law_aware["together"] == ratios.iloc[:-1].median()
    assert math.isnan(summary.law_aware["X with X"])
    assert (tmp_path / "hard.provenance.json").exists()


@pytest.mark.parametrize("name", [name for name, task in hard_run.HARD_TASKS.items() if task.aware])
def test_what_is_undone_leaves_the_information_that_it_was(name: str) -> None:
    task = hard_run.HARD_TASKS[name]
    if task.n > 2000 or not math.isfinite(task.truth):
        pytest.skip("as another of its family")
    low, high = hard_run._law_aware(task, task.draw(task.n, 7), True)
    # A sanity check of the map, not of coverage: the truth lies within three intervals' reach.
    assert abs(task.truth - (low + high) / 2) < 1.5 * (high - low) + 0.05 * task.truth
