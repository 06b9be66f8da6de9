"""The independence study: its cases are what they say, its rates add up, it resumes, its figure is drawn."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, norm

from arvdm_theory.experiments.independence import nulls
from arvdm_theory.experiments.independence import run as independence
from arvdm_theory.experiments.independence.figures import FIGURES
from arvdm_theory.experiments.independence.findings import findings
from arvdm_theory.experiments.independence.run import CASES, SIZES, independence_study, rates, wilson
from arvdm_theory.report.style import draw_all
from arvdm_theory.tables import read_table


@pytest.mark.parametrize("name", ["_linear", "_sine", "_fast", "_square", "_tanh"])
def test_links_have_mean_0_and_variance_1(name: str) -> None:
    link = getattr(independence, name)
    # The trapezoidal rule on [-12, 12] is exact to rounding for these analytic functions times a normal density.
    y = np.linspace(-12, 12, 20_001)
    weights = norm.pdf(y) * (y[1] - y[0])
    assert (weights * link(y)).sum() == pytest.approx(0, abs=1e-12)
    assert (weights * link(y) ** 2).sum() == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize("name", [name for name in CASES if name != "series"])
def test_x_and_z_have_correlation_nine_tenths_with_a_function_of_y(name: str) -> None:
    links = {"sine": ("_sine", "_sine"), "fast": ("_fast", "_fast"), "mixed": ("_tanh", "_square"),
             "series, sine": ("_sine", "_sine"), "edge": ("_edge", "_edge")}  # fmt: skip
    n = 20_000
    for strength in (0.0, 0.6):
        x, z, y = CASES[name].draw(n, strength, np.random.default_rng(0))
        left, right = (getattr(independence, link)(y) for link in links.get(name, ("_linear", "_linear")))
        # A correlation of 0.9 has the standard error 0.19/√n of independent samples; five of them, and √3 times as
        # many for series, whose squares have (1 + 0.49)/(1 - 0.49) = 2.9 times the variance. Squares and |Y| vary
        # more, by a factor of 3 at most.
        room = 5 * 3 * math.sqrt(3) * 0.19 / math.sqrt(n)
        assert np.corrcoef(x, left)[0, 1] == pytest.approx(0.9, abs=room)
        assert np.corrcoef(z, right)[0, 1] == pytest.approx(0.9, abs=room)
        own, other = x - 0.9 * left, z - 0.9 * right
        shared = own**2 if name == "curved" else own
        assert np.corrcoef(shared, other)[0, 1] == pytest.approx(strength, abs=5 * 3 * math.sqrt(3 / n))


def test_series_have_the_autocorrelation_that_they_say() -> None:
    x, z = CASES["series"].draw(20_000, 0.0, np.random.default_rng(0))
    for series in (x, z):
        # Bartlett: the lag-one autocorrelation of an AR(1) series has the variance (1 - 0.49)/n.
        error = math.sqrt(0.51 / 20_000)
        assert np.corrcoef(series[1:], series[:-1])[0, 1] == pytest.approx(0.7, abs=4 * error)
    x, z = CASES["series"].draw(30, 1.0, np.random.default_rng(0))
    np.testing.assert_array_equal(x, z)


def test_wilson_intervals_are_those_of_scipy() -> None:
    k, n = np.array([0, 3, 50, 65, 1000]), np.array([10, 50, 1000, 1000, 1000])
    low, high = wilson(k, n)
    for i in range(len(k)):
        expected = binomtest(int(k[i]), int(n[i])).proportion_ci(0.95, method="wilson")
        assert low[i] == pytest.approx(expected.low, abs=1e-8)
        assert high[i] == pytest.approx(expected.high, abs=1e-8)


def test_rates_add_the_batches_up() -> None:
    row = {"case": "linear", "statistic": "gaussian", "strength": 0.0, "n": 300, "permutations": 99, "refused": 0}
    batches = pd.DataFrame([
        {**row, "replicates": 50, "rejections": 2}, {**row, "replicates": 10, "rejections": 4, "refused": 1},
        {**row, "strength": 0.2, "replicates": 10, "rejections": 10},
    ])  # fmt: skip
    table = rates(batches)
    assert table.rate.tolist() == [0.1, 1.0]
    assert table.replicates.tolist() == [60, 10]
    assert table.refused.tolist() == [1, 0]
    assert (table.low < table.rate).all()
    with pytest.raises(ValueError, match="no batches"):
        rates(batches[:0])


def test_replicates_do_not_depend_on_their_batch() -> None:
    cell = {"case": "sine", "statistic": "gaussian", "strength": 0.2, "n": 120, "permutations": 19}
    batch = independence._Batch(3)
    whole = batch({**cell, "first": 0, "replicates": 6}).rejections.sum()
    parts = sum(batch({**cell, "first": first, "replicates": 3}).rejections.sum() for first in (0, 3))
    assert whole == parts


def test_a_smoke_run_goes_on_where_it_stopped_and_draws_its_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = independence_study(SIZES["smoke"], tmp_path, progress=False)
    assert set(table["case"]) == set(CASES)
    assert len(list(findings({"independence": table}))) == len(table)
    pd.testing.assert_frame_equal(read_table(tmp_path / "independence.csv"), table)
    for name in ("level", "power"):
        assert (tmp_path / f"independence_{name}.provenance.json").exists()
    strong = table[(table.strength == 0.8) & (table["case"] != "curved")].rate.mean()
    # 5 replicates each of 18 cells at a correlation of 0.8, and of 7 more where the peer is installed, which 120
    # samples show almost surely, but for those of links so fast, or with an edge, that pairs alone are exchanged.
    assert strong > 0.85 > table[table.strength == 0].rate.mean() + 0.5

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a finished cell was run again")

    monkeypatch.setattr(independence, "independence_test", never)
    again = independence_study(SIZES["smoke"], tmp_path, progress=False)
    pd.testing.assert_frame_equal(again, table)
    assert [path.name for path in draw_all(tmp_path, FIGURES)] == ["independence.png"]


def test_the_null_study_counts_every_null(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = {name: nulls.NULLS[name] for name in ("no condition", "2y")}
    # And one that is none: it is rejected every time.
    chosen["dependent"] = (lambda rng: 2 * (rng.standard_normal(100),), "independent")
    # And a series that the test refuses.
    chosen["series, stairs"] = nulls.NULLS["series, stairs"]
    monkeypatch.setattr(nulls, "NULLS", chosen)
    monkeypatch.setattr(nulls, "_BATCH", 8)
    table = nulls.null_study(20, tmp_path, progress=False).set_index("null")
    assert table.rate["dependent"] == 1
    assert table.rejections["no condition"] <= 5
    assert table.refused["series, stairs"] == table.refused["all together"] > 10
    assert table.draws["all together"] == 80
    assert table.draws.drop("all together").eq(20).all()
    decided = (table.draws - table.refused).replace(0, math.nan)
    assert table.rejections["all together"] == table.rejections[list(chosen)].sum() <= decided["all together"]
    low, high = wilson(table.rejections.to_numpy(), decided.to_numpy())
    np.testing.assert_array_equal(table.low, low)
    np.testing.assert_array_equal(table.high, high)
    pd.testing.assert_frame_equal(read_table(tmp_path / "independence_nulls.csv").set_index("null"), table)
    found = {row.finding: row for row in findings({"independence_nulls": table.reset_index()})}
    assert found["rejected: dependent"].value == 1
    assert found["rejected: all together"].of == decided["all together"]
    much = found["nulls rejected more than 8% of the time by more than chance"]
    assert (much.value, much.of) == (1 + (table.low.drop(["all together", "dependent"]) > 0.08).sum(), 4)
    assert found["refused: series, stairs"].value == table.refused["series, stairs"]
