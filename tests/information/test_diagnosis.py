"""Samples that used to fool the estimators: what is seen in them, what is taken for it, and the right values."""

import math
import re
import warnings

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from arvdm_theory.experiments.estimators.hard import (
    DIVERGENCE_TASKS,
    HARD_TASKS,
    channel_information,
    folded_information,
    rectified_information,
    rounded_information,
)
from arvdm_theory.information.estimators import (
    METHODS,
    EstimationWarning,
    SampleError,
    estimate_divergence,
    estimate_information,
    examine,
    mixed_information,
)
from arvdm_theory.information.estimators.baseline import overclaim
from arvdm_theory.information.estimators.diagnosis import column_kind, distinct_rows
from arvdm_theory.information.estimators.ties import untied
from arvdm_theory.number import Number, half_width

pytestmark = pytest.mark.filterwarnings("ignore::arvdm_theory.information.estimators.EstimationWarning")
NONE = np.empty((1000, 0))


def told(found: Number) -> str:
    return " | ".join(found.warnings)


# -- the truths of the tasks ------------------------------------------------------------------------------


def test_truths_of_rounded_pairs_against_the_bivariate_distribution_function() -> None:
    law = multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]])
    edges = np.arange(-6.5, 7)
    below = np.array([[law.cdf([a, b]) for b in edges] for a in edges])
    table = np.diff(np.diff(below, axis=0), axis=1)
    product = table.sum(1, keepdims=True) * table.sum(0)
    seen = table > 1e-14
    expected = (table[seen] * np.log(table[seen] / product[seen])).sum()
    assert rounded_information(1.0, 0.6, 1.0) == pytest.approx(expected, abs=1e-4)
    # Finer steps lose less, and nothing in the end.
    found = [rounded_information(step) for step in (2.0, 1.0, 0.25, 1 / 64)]
    assert found == sorted(found)
    assert found[-1] == pytest.approx(-0.5 * math.log(1 - 0.36), abs=1e-4)


def test_truths_of_rectified_pairs_against_a_mean_of_log_ratios() -> None:
    rng, rho = np.random.default_rng(0), 0.8
    x, noise = rng.normal(size=(2, 400_000))
    z = rho * x + math.sqrt(1 - rho**2) * noise
    corner = multivariate_normal([0, 0], [[1, rho], [rho, 1]]).cdf([0, 0])
    ratio = -0.5 * math.log(1 - rho**2) - (rho**2 * (x**2 + z**2) - 2 * rho * x * z) / (2 * (1 - rho**2))
    low = np.array([[rho * v for v in (x, z)]]).reshape(2, -1) / math.sqrt(1 - rho**2)
    half = multivariate_normal(0, 1)
    ratio = np.where((x < 0) & (z < 0), math.log(corner / 0.25), ratio)
    for own, other, moved in ((x, z, low[0]), (z, x, low[1])):
        seen = (own >= 0) & (other < 0)
        ratio[seen] = np.log(half.cdf(-moved[seen]) / 0.5)
    assert rectified_information(rho) == pytest.approx(ratio.mean(), abs=4 * ratio.std() / math.sqrt(400_000))
    assert rectified_information(rho, -7.0) == pytest.approx(-0.5 * math.log(1 - rho**2), abs=1e-6)
    # A linear channel has a closed form.
    assert channel_information(lambda x: 2 * x, 0.5) == pytest.approx(0.5 * math.log(17), abs=1e-6)


# -- ties ---------------------------------------------------------------------------------------------------


def test_ties_are_broken_within_themselves_and_continuous_columns_left() -> None:
    rng = np.random.default_rng(1)
    points = np.column_stack([rng.integers(0, 4, size=500), rng.normal(size=500)])
    found = untied(points, rng)
    np.testing.assert_array_equal(found[:, 1], points[:, 1])
    assert len(np.unique(found[:, 0])) == 500
    for value in range(3):
        assert found[points[:, 0] == value, 0].max() < found[points[:, 0] == value + 1, 0].min()
    # Within a value the order is chance: uncorrelated with the other column, to 4 standard errors.
    for value in range(4):
        own = points[:, 0] == value
        assert abs(np.corrcoef(found[own].T)[0, 1]) < 4 / math.sqrt(own.sum())
    assert untied(points[:, 1:], rng) is not None
    np.testing.assert_array_equal(untied(points[:, 1:], rng), points[:, 1:])


@pytest.mark.parametrize(
    "name",
    [
        "one side rounded to 0.25, rho 0.0, n 1000", "one side rounded to 0.25, rho 0.6, n 1000",
        "one side rounded to 1, rho 0.6, n 2000", "both sides rounded to 0.1, rho 0.0, n 2000",
        "both sides rounded to 0.5, rho 0.0, n 1000", "both sides rounded to 0.5, rho 0.6, n 1000",
        "two byte columns, rho 0.0", "two byte columns, rho 0.6", "a byte column, rho 0.6",
        "given a column rounded to 0.071",
        "both rectified at 0.0, rho 0.8", "both rectified at 0.0, rho 0.0", "one rectified at 0.84, rho 0.8",
        "black pixels (half), rho 0.8", "each row ten times", "X with sign X",
        "16 clusters in 10 dimensions", "8 clusters in 5 dimensions", "8 clusters in 5 dimensions given noise",
         "sin 6x, n 1000", "XY given Y, n 1000",
        "sin 8y confounds, n 1000", "spread exp(1.5 y), n 1000",
        "20 folds of a unit interval", "5 folds of a unit interval",
        "Z = X + 0.01 noise", "Z = X + 0.005 noise", "given a class, noise 0.02",
        "gaussian, n 60", "gaussian, n 150", "autocorrelated null",
    ],
)  # fmt: skip
def test_intervals_cover_what_used_to_be_missed(name: str) -> None:
    task = HARD_TASKS[name]
    found = estimate_information(*task.draw(task.n, 1), dependence=task.dependence)
    assert found.ci_low <= task.truth <= found.ci_high
    # Value, standard error and interval tell one story, whatever the degrees of freedom are.
    assert found.value == pytest.approx((found.ci_low + found.ci_high) / 2)
    assert half_width(1.0) - 1e-6 <= (found.ci_high - found.value) / found.stderr <= half_width(1.0, 3.0) + 1e-6


@pytest.mark.parametrize("name", ["sin 6x, n 200", "swirl, n 200", "gaussian, n 20"])
def test_links_faster_than_the_samples_are_mostly_covered(name: str) -> None:
    task = HARD_TASKS[name]
    found = [estimate_information(*task.draw(task.n, seed)) for seed in range(5)]
    # At 90 % the chance of less than three of five is 0.9 %; a standard error of sampling alone covered none.
    assert sum(each.ci_low <= task.truth <= each.ci_high for each in found) >= 3


def test_what_grows_the_faster_the_more_samples_is_no_number() -> None:
    task = HARD_TASKS["20 folds of a unit interval"]
    found = estimate_information(*task.draw(task.n, 3))
    assert "only the lower end says something" in told(found)
    assert found.ci_low < 1.0 < task.truth < found.ci_high == pytest.approx(math.log(task.n / 3))
    # Neither a smooth law nor a fold that the samples show is told so.
    for name in ("gaussian, n 150", "5 folds of a unit interval", "one side rounded to 0.25, rho 0.6, n 1000"):
        other = HARD_TASKS[name]
        assert "only the lower end" not in told(estimate_information(*other.draw(other.n, 3)))


def test_neighbours_that_see_more_than_the_default_s_steps_are_covered() -> None:
    task = HARD_TASKS["4 clusters in 2 dimensions"]
    found = estimate_information(*task.draw(task.n, 100))
    assert re.search(r"plain nearest neighbours see 1.3\d nats", told(found))
    assert found.ci_low < task.truth < found.ci_high


def test_the_truth_of_folds_against_a_mean_of_log_ratios() -> None:
    noise, rng = 0.05, np.random.default_rng(0)
    u, rest = rng.random(200_000), noise * rng.standard_normal(200_000)
    z = u + rest
    # log p(z | u)/p(z); folds are the same for every monotone piece.
    density = norm.cdf(z / noise) - norm.cdf((z - 1) / noise)
    ratios = norm.logpdf(rest / noise) - math.log(noise) - np.log(density)
    error = ratios.std() / math.sqrt(len(ratios))
    assert folded_information(noise) == pytest.approx(ratios.mean(), abs=4 * error)


@pytest.mark.parametrize(
    "name",
    [
        "exponential 2 to 1, n 1000", "exponential 3 to 1, n 5000", "laplace 3 to 1, n 5000",
        "bimodal to gaussian, 5 columns", "bimodal to gaussian, 1 columns", "4 of 8 clusters in 6 dimensions",
        "5 % contamination at 4", "gaussian, narrower, 3 columns", "the same law", "bytes against bytes",
    ],
)  # fmt: skip
def test_divergences_cover_what_used_to_be_missed(name: str) -> None:
    task = DIVERGENCE_TASKS[name]
    found = estimate_divergence(*task.draw(task.n, 1))
    assert found.ci_low <= task.truth <= found.ci_high


def test_methods_of_another_kind_that_disagree_are_both_covered() -> None:
    task = DIVERGENCE_TASKS["bimodal to gaussian, 5 columns"]
    p, q = task.draw(task.n, 2)
    found = estimate_divergence(p, q)
    assert "the interval covers both" in told(found)
    assert found.ci_low < estimate_divergence(p, q, method="knn").value < found.ci_high
    # Where P lies and Q hardly has a sample no number is sure.
    task = DIVERGENCE_TASKS["gaussian to bimodal, 1 column"]
    assert "read the value as a lower bound" in told(estimate_divergence(*task.draw(task.n, 2)))


# -- atoms, copies, functions ---------------------------------------------------------------------------------


def test_kinds_of_columns() -> None:
    rng = np.random.default_rng(2)
    normal = rng.normal(size=2000)
    assert column_kind(normal) == "continuous"
    assert column_kind(rng.integers(0, 9, size=2000).astype(float)) == "discrete"
    assert column_kind(np.rint(normal * 100)) == "rounded"
    assert column_kind(np.maximum(normal, 0.0)) == "atoms"
    assert column_kind(np.maximum(np.rint(normal * 40), 0.0)) == "atoms"
    # Two different floats repeat nothing.
    assert column_kind(normal[:2]) == "continuous"


def test_copies_are_left_out_and_atoms_are_not() -> None:
    x, z = HARD_TASKS["each row ten times"].draw(2000, 3)
    joint = np.hstack([x, z])
    assert len(distinct_rows(joint)) == 200
    found = estimate_information(x, z)
    assert (found.n, len(found.diagnosis.rows)) == (200, 200)
    assert "1800 of 2000 rows are copies of others: only the 200 distinct ones were taken." in told(found)
    rows = found.diagnosis.rows
    assert estimate_information(x[rows], z[rows]).ends() == found.ends()
    # Both rectified: (0, 0) is a quarter of the law.
    atoms = np.hstack(HARD_TASKS["both rectified at 0.0, rho 0.0"].draw(500, 3))
    assert len(distinct_rows(atoms)) == 500
    assert examine(atoms[:, :1], atoms[:, 1:], np.empty((500, 0))).method == "mixed"


def test_rounded_rows_that_all_repeat_alike_are_copies() -> None:
    rng = np.random.default_rng(13)
    rows = np.rint(10 * rng.normal(size=(200, 2)))
    kept = distinct_rows(np.repeat(rows, 6, axis=0)[rng.permutation(1200)])
    assert len(kept) == 200
    points = np.repeat(rows, 6, axis=0)
    np.testing.assert_array_equal(np.sort(points[distinct_rows(points)], axis=0), np.sort(rows, axis=0))
    # A divisor of few numbers is chance; rows that merely coincide stay.
    few = np.repeat(rng.integers(0, 2, size=(4, 2)), 6, axis=0).astype(float)
    assert len(distinct_rows(few)) == 24
    assert len(distinct_rows(rows)) == 200


@pytest.mark.parametrize(("levels", "n"), [(4, 60), (8, 100), (16, 300)])
def test_columns_of_few_values_and_of_fewer_samples_than_a_table_takes(levels: int, n: int) -> None:
    """Z is X or, by half, chance: I is that of the table (1 - ½)/K² + ½/K on the diagonal."""
    table = np.full((levels, levels), 0.5 / levels**2) + np.eye(levels) * 0.5 / levels
    truth, covered = float((table * np.log(table * levels**2)).sum()), 0
    for seed in range(5):
        rng = np.random.default_rng(seed)
        x = rng.integers(levels, size=n)
        z = np.where(rng.random(n) < 0.5, x, rng.integers(levels, size=n))
        found = estimate_information(x, z)
        assert found.method == "mixed"
        covered += found.ci_low < truth < found.ci_high
    assert covered >= 4


def test_the_most_that_mixed_samples_can_show_is_that_of_a_class() -> None:
    rng = np.random.default_rng(14)
    y = rng.integers(0, 3, size=300).astype(float)
    x, rest = rng.normal(size=(2, 300))
    found = mixed_information(x, x + 0.005 * rest, y)
    assert "read it as a lower bound" in told(found)
    assert found.ci_low < -0.5 * math.log(1 - 1 / (1 + 0.005**2)) < found.ci_high


@pytest.mark.parametrize("name", [name for name in HARD_TASKS if HARD_TASKS[name].family == "infinite"])
def test_functions_are_refused_and_named_methods_say_so(name: str) -> None:
    x, z = HARD_TASKS[name].draw(1000, 4)
    with pytest.raises(SampleError, match=r"function of column|linear functions"):
        estimate_information(x, z)
    for method in ("ksg1", "mixed"):
        with pytest.warns(EstimationWarning, match="no finite number is right"):
            assert math.isfinite(estimate_information(x, z, method=method).value)


def test_noise_that_samples_resolve_is_no_function() -> None:
    for noise in (0.005, 0.02, 0.5):
        x, rest = np.random.default_rng(5).normal(size=(2, 1000, 1))
        assert examine(x, x + noise * rest, NONE).refusal is None
    assert examine(*HARD_TASKS["X with sign X"].draw(1000, 5), NONE).refusal is None


def test_a_file_against_itself_is_refused() -> None:
    x = np.random.default_rng(6).normal(size=(300, 2))
    for other in (x, x[:200], np.vstack([x[:100], x[:100] + 1])):
        with pytest.raises(SampleError, match=r"p and q share \d+ rows"):
            estimate_divergence(x, other)
    with pytest.warns(EstimationWarning, match="share 300 rows"):
        estimate_divergence(x, x, method="knn")
    # Few values are shared by right.
    die = np.random.default_rng(7).integers(0, 6, size=(2, 400, 1)).astype(float)
    found = estimate_divergence(*die)
    assert found.ci_low < 0 < found.ci_high


def test_named_methods_warn_where_they_cannot_work() -> None:
    x, z = HARD_TASKS["two byte columns, rho 0.6"].draw(2000, 8)
    for method in ("ksg1", "gaussian", "copula"):
        assert "use the default, calibrated" in told(estimate_information(x, z, method=method))
    assert "too many cells" in told(estimate_information(x, z, method="miller-madow"))
    series = HARD_TASKS["autocorrelated null"].draw(1000, 8)
    assert "--autocorrelated" in told(estimate_information(*series))
    assert estimate_information(*series, dependence="autocorrelated").warnings == ()
    # Two AR(1) of 0.9: (1 - 0.81)/(1 + 0.81) of 1000 samples are 105; ranks of 1000 know 0.9 to a few hundredths.
    (seen,) = examine(*series, NONE).seen
    assert 70 < int(seen.split("about ")[1].split()[0]) < 160


def test_the_diagnosis_says_what_was_taken_and_why() -> None:
    x, z = HARD_TASKS["two byte columns, rho 0.0"].draw(2000, 9)
    found = estimate_information(x, z)
    seen, taken = str(found.diagnosis).splitlines()
    assert seen == "seen: 2 of 2 columns rounded" or "few values" in seen
    assert taken == "taken: calibrated, equal values in random order; no doubts"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert estimate_information(x, z).warnings == ()


def test_ties_at_the_last_neighbour_are_counted() -> None:
    """Independent: the k-th neighbour of most samples lies at exactly one step, with several others."""
    rng = np.random.default_rng(10)
    found = [mixed_information(np.rint(14 * rng.normal(size=1000)), rng.normal(size=1000)).value for _ in range(4)]
    # Each has an error of about 0.02; k in place of the count gave 0.1 to 0.2.
    assert abs(np.mean(found)) < 0.04
    # Without ties nothing has changed: the same as KSG's first algorithm.
    x, z = rng.normal(size=(2, 300))
    assert mixed_information(x, z).value == pytest.approx(METHODS["ksg1"](x, z, k=5).value, abs=1e-12)


# -- the gate ---------------------------------------------------------------------------------------------------


def test_a_gaussian_claim_is_held_against_re_paired_samples() -> None:
    rng = np.random.default_rng(11)
    for rho in (0.0, 0.6, 0.95):
        x = rng.normal(size=(1000, 4))
        z = rho * x + math.sqrt(1 - rho**2) * rng.normal(size=(1000, 4))
        assert overclaim(x, z, NONE) == 0
    # 8 clusters far apart: the claim of 5 Gaussian pairs is more than the cluster tells.
    x, z = HARD_TASKS["8 clusters in 5 dimensions"].draw(1000, 12)
    assert overclaim(x, z, NONE) > 0.3
    found = estimate_information(x, z)
    assert "than re-paired samples bear out" in told(found)
    assert found.ci_high - found.ci_low < 0.5
