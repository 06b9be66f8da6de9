"""Result object, input checks, warnings, standard errors and block lengths."""

import math
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import partial
from importlib import import_module

import numpy as np
import pytest

from arvdm_theory.information import estimators as es
from arvdm_theory.information.estimators.knn import ksg
from arvdm_theory.information.estimators.methods import (
    DIVERGENCES,
    METHODS,
    NEURAL_DIVERGENCES,
    NEURAL_METHODS,
    default_divergence,
    default_method,
    estimate_divergence,
    estimate_information,
)
from arvdm_theory.information.estimators.neural import Training
from arvdm_theory.information.estimators.plugin import gaussian_information
from arvdm_theory.information.estimators.uncertainty import (
    block_length,
    contribution_error,
    subsampled,
)
from arvdm_theory.number import Number, half_width


def ar1(n: int, phi: float, rng: np.random.Generator) -> np.ndarray:
    """A stationary AR(1) series of variance 1."""
    noise = rng.normal(size=n) * math.sqrt(1 - phi**2)
    series = np.empty(n)
    series[0] = rng.normal()
    for i in range(1, n):
        series[i] = phi * series[i - 1] + noise[i]
    return series


def _said(found: Number) -> tuple[object, ...]:
    return found.value, found.stderr, found.ends(), found.method, found.n, found.k, found.warnings


def test_values_are_never_clamped() -> None:
    rng = np.random.default_rng(0)
    values = [ksg(rng.normal(size=100), rng.normal(size=100)).value for _ in range(20)]
    assert min(values) < 0
    estimate = es.conclude(-0.25, 0.125, 0.5, method="m", n=5)
    assert (estimate.value, estimate.ci_low, estimate.ci_high) == (-0.25, -0.75, 0.25)
    assert estimate.k is None


@pytest.mark.parametrize("method", [*METHODS, *NEURAL_METHODS])
def test_bad_samples_are_named(method: str) -> None:
    rng = np.random.default_rng(1)
    good = rng.integers(0, 4, size=200).astype(float)
    estimator = (METHODS | NEURAL_METHODS)[method]
    with pytest.raises(es.SampleError, match="x has 200, z has 199"):
        estimator(good, good[:-1])
    with pytest.raises(es.SampleError, match="y has 7"):
        estimator(good, good[::-1], good[:7])
    broken = good.copy()
    broken[[3, 17]] = np.nan, np.inf
    with pytest.raises(es.SampleError, match=r"z has NaN or infinite values in 2 of 200 rows .*: 3, 17\)"):
        estimator(good, broken)
    with pytest.raises(es.SampleError, match="y is constant in column 1"):
        estimator(good, good[::-1], np.column_stack([good, np.ones(200)]))
    with pytest.raises(es.SampleError, match="real numbers"):
        estimator(np.array(["a"] * 200), good)
    with pytest.raises(es.SampleError, match=r"shape \(n, d\)"):
        estimator(good.reshape(10, 10, 2), good)


@pytest.mark.parametrize("method", [*DIVERGENCES, *NEURAL_DIVERGENCES])
def test_bad_samples_of_two_laws_are_named(method: str) -> None:
    rng = np.random.default_rng(1)
    p, q = rng.normal(size=(60, 2)), rng.normal(size=(50, 2))

    def refused(of_p: np.ndarray, of_q: np.ndarray, match: str) -> None:
        with pytest.raises(es.SampleError, match=match):
            estimate_divergence(of_p, of_q, method=method)

    refused(p, q[:, 0], "same dimension, got 2 and 1")
    broken = q.copy()
    broken[[3, 17], 1] = np.nan, -np.inf
    refused(p, broken, r"q has NaN or infinite values in 2 of 50 rows .*: 3, 17\)")
    refused(np.column_stack([p[:, 0], np.ones(60)]), q, "p is constant in column 1")
    refused(p, q[:0], r"q must have shape \(n, d\) with n, d ≥ 1, got \(0, 2\)")
    refused(p, q[:2], "2 samples are too few" if method in NEURAL_DIVERGENCES else "need")


@pytest.mark.parametrize("method", ["ksg1", "ksg2", "mixed", "calibrated"])
def test_more_samples_than_neighbours(method: str) -> None:
    x = np.arange(5.0)
    with pytest.raises(es.SampleError, match="5 neighbours need at least 7 samples, got n = 5"):
        METHODS[method](x, x[::-1] ** 2, k=5)
    with pytest.raises(es.SampleError, match="k must be at least 1"):
        METHODS[method](x, x[::-1] ** 2, k=0)


@pytest.mark.parametrize("method", ["gaussian", "copula", "calibrated"])
def test_collinear_columns_are_refused(method: str) -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(300, 2))
    with pytest.raises(es.SampleError, match="linear functions"):
        METHODS[method](x, x[:, 0])


def test_duplicates_are_counted() -> None:
    rng = np.random.default_rng(3)
    x, z = rng.normal(size=(2, 400))
    x[:40], z[:40] = x[0], z[0]
    with pytest.warns(es.EstimationWarning, match=r"10\.0% of the samples coincide"):
        estimate = ksg(x, z)
    assert math.isfinite(estimate.value)
    assert any("mixed" in text for text in estimate.warnings)


def test_relations_tails_ceiling_and_width_are_warned_of() -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(600, 1))
    with pytest.warns(es.EstimationWarning, match="lower bound"):
        ksg(x, x + 1e-4 * rng.normal(size=(600, 1)))
    with pytest.warns(es.EstimationWarning, match=r"1 of 2 columns \(50%\)"):
        ksg(x, -2 * x + 1)
    with pytest.warns(es.EstimationWarning, match="1 of 2 columns"):
        ksg(x, rng.standard_cauchy(size=600))
    with pytest.warns(es.EstimationWarning, match="600 samples are few for 16 dimensions"):
        ksg(rng.normal(size=(600, 8)), rng.normal(size=(600, 8)))
    with pytest.warns(es.EstimationWarning, match="at least 160"):
        gaussian_information(rng.normal(size=(100, 8)), rng.normal(size=(100, 8)))


def test_clean_samples_raise_no_warning() -> None:
    rng = np.random.default_rng(5)
    x, z = rng.normal(size=(2, 2000))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for method in ("ksg1", "ksg2", "gaussian", "copula", "calibrated"):
            assert METHODS[method](x, z).warnings == ()


def test_block_length_grows_with_memory() -> None:
    rng = np.random.default_rng(6)
    lengths = [np.mean([block_length(ar1(1000, phi, rng)) for _ in range(10)]) for phi in (0.0, 0.5, 0.9)]
    assert lengths[0] < 4
    # The asymptotically best length (Politis and White 2004) for AR(1), n = 1000:
    # G = 2φ/(1-φ²)² (R(0)(1-φ²)), D = 4/3 g(0)², which gives (2 G²/D)^{1/3} n^{1/3} = (6 φ²/(1-φ²)²)^{1/3} 10.
    for phi, length in ((0.5, lengths[1]), (0.9, lengths[2])):
        best = 10 * (6 * phi**2 / (1 - phi**2) ** 2) ** (1 / 3)
        assert 0.5 * best < length < 2 * best


def test_block_standard_error_of_an_ar1_mean() -> None:
    # Var(mean) → (1 + φ)/(1 - φ)/n; the moving-block estimate is biased down by O(b^{-1}), here about 15 %.
    rng = np.random.default_rng(7)
    n, phi = 4000, 0.7
    errors = [contribution_error(ar1(n, phi, rng), "autocorrelated")[0] for _ in range(20)]
    exact = math.sqrt((1 + phi) / (1 - phi) / n)
    assert 0.8 * exact < np.mean(errors) < 1.05 * exact
    naive = contribution_error(ar1(n, phi, rng))[0]
    assert naive < 0.5 * exact


def test_short_series_are_warned_of() -> None:
    rng = np.random.default_rng(8)
    walk = np.cumsum(rng.normal(size=100))
    _, freedom, notes = contribution_error(walk, "autocorrelated")
    assert "longer recording" in notes[0]
    assert freedom < 9
    with pytest.warns(es.EstimationWarning, match="longer recording"):
        estimate = ksg(walk, walk + rng.normal(size=100), dependence="autocorrelated", k=1)
    assert "longer recording" in estimate.warnings[-1]


def test_interval_levels() -> None:
    assert half_width(1.0) == pytest.approx(1.959964, abs=1e-6)
    assert half_width(1.0, 9.0) == pytest.approx(2.262157, abs=1e-6)
    with pytest.raises(ValueError, match="between 0 and 1"):
        half_width(1.0, level=95)


def test_subsampling_agrees_with_the_influence_function() -> None:
    # Both estimate the same standard error; 20 subsamples leave a relative error of 1/√38 = 16 %.
    rng = np.random.default_rng(9)
    x = rng.normal(size=4000)
    z = 0.6 * x + 0.8 * rng.normal(size=4000)
    plain = gaussian_information(x, z)
    again = subsampled(gaussian_information, x, z)
    assert again.value == plain.value
    assert abs(again.stderr / plain.stderr - 1) < 4 * 0.16


@pytest.mark.filterwarnings("ignore::arvdm_theory.information.estimators.EstimationWarning")
@pytest.mark.parametrize("method", ["ksg1", "mixed", "calibrated"])
def test_few_samples_have_an_error_too(method: str) -> None:
    found = [METHODS[method](*np.random.default_rng(seed).normal(size=(2, 20))) for seed in range(30)]
    # Of the middle: where next samples show more by chance the value is that of a wide interval.
    low, high = np.quantile([estimate.value for estimate in found], [0.16, 0.84])
    # The error of 30 values is known to 1/√58, each error to 1/√18.
    assert 0.5 < np.median([estimate.stderr for estimate in found]) / ((high - low) / 2) < 5
    assert sum(estimate.ci_low < 0 < estimate.ci_high for estimate in found) >= 25


def _mixed(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return rng.normal(size=500), rng.integers(0, 5, size=500)


@pytest.mark.parametrize(
    ("draw", "method"),
    [
        (lambda rng: (rng.normal(size=500), rng.normal(size=500)), "calibrated"),
        (lambda rng: (rng.integers(0, 5, size=500), rng.integers(0, 5, size=500)), "miller-madow"),
        (_mixed, "mixed"),
    ],
)
def test_the_default_is_chosen_by_kind(
    draw: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]], method: str
) -> None:
    x, z = draw(np.random.default_rng(11))
    assert default_method(x, z) == method
    assert estimate_information(x, z).method == method


def test_the_default_divergence_is_chosen_by_kind() -> None:
    rng = np.random.default_rng(12)
    continuous, discrete = rng.normal(size=(2, 300, 1)), rng.integers(0, 5, size=(2, 300, 1))
    assert default_divergence(*continuous) == "calibrated"
    assert default_divergence(*discrete) == "knn"
    assert default_divergence(*np.concatenate([continuous, discrete], -1)) == "knn"
    named = estimate_divergence(*continuous, method="calibrated")
    assert _said(estimate_divergence(*continuous)) == _said(named)


def _inner(x: np.ndarray, z: np.ndarray) -> Number:
    return estimate_information(x, z, method="ksg1")


def test_warnings_point_at_the_line_that_called() -> None:
    """Through any number of the package's own functions, and not into it."""
    x = np.random.default_rng(4).normal(size=(300, 1))
    calls: list[Callable[[], object]] = [
        lambda: es.conclude(0.0, 1.0, 2.0, method="m", n=5, notes=["so"]),
        lambda: ksg(x, -2 * x + 1),
        lambda: estimate_information(x, -2 * x + 1, method="ksg1"),
        lambda: estimate_divergence(x**9, x[:100], method="gaussian"),
    ]
    for call in calls:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call()
        assert caught
        line = call.__code__.co_firstlineno
        assert {(warning.filename, warning.lineno) for warning in caught} == {(__file__, line)}
        assert all(issubclass(warning.category, es.EstimationWarning) for warning in caught)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            _inner(x, -2 * x + 1)
    # Once a calling line and message, as for any warning.
    assert len(caught) == len({str(warning.message) for warning in caught}) > 0


def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps of two small critics: what is tested is the way to them, not what they learn."""
    training = Training(folds=2, hidden=(4,), epochs=2)
    for table in (NEURAL_METHODS, NEURAL_DIVERGENCES):
        for name, estimator in table.items():
            monkeypatch.setitem(table, name, partial(estimator, training=training))


@pytest.mark.filterwarnings("ignore::arvdm_theory.information.estimators.EstimationWarning")
@pytest.mark.parametrize("method", sorted(NEURAL_METHODS))
def test_neural_estimators_are_chosen_by_name_and_seeded(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _quick(monkeypatch)
    x, z, y = np.random.default_rng(13).normal(size=(3, 120))
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    found = [estimate_information(x, x + z, y, method=method, seed=seed) for seed in (1, 1, 2)]
    assert _said(found[0]) == _said(found[1])
    assert found[0].value != found[2].value
    assert found[0].method.startswith(f"neural-{method}")
    assert found[0].n == 120
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002


@pytest.mark.filterwarnings("ignore::arvdm_theory.information.estimators.EstimationWarning")
@pytest.mark.parametrize("method", sorted(NEURAL_DIVERGENCES))
def test_neural_divergences_are_chosen_by_name_and_seeded(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _quick(monkeypatch)
    p, q = np.random.default_rng(14).normal(size=(2, 120))
    found = [estimate_divergence(p, 2 * q[:90], method=method, seed=seed) for seed in (1, 1, 2)]
    assert _said(found[0]) == _said(found[1])
    assert found[0].value != found[2].value
    assert found[0].method.startswith(f"neural-{method}")
    assert found[0].n == 120


def test_the_seed_reaches_what_is_drawn_and_only_that() -> None:
    rng = np.random.default_rng(15)
    x, z = rng.normal(size=(2, 600))
    errors = [estimate_information(x, z, method="ksg1", seed=seed).stderr for seed in (0, 1)]
    assert errors[0] != errors[1]
    assert _said(estimate_information(x, z, method="gaussian", seed=1)) == _said(gaussian_information(x, z))
    assert _said(estimate_divergence(x, z, method="gaussian", seed=1)) == _said(DIVERGENCES["gaussian"](x, z))
    assert not METHODS.keys() & NEURAL_METHODS.keys()
    assert not DIVERGENCES.keys() & NEURAL_DIVERGENCES.keys()


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(es.SampleError, match="called 'infonce'; there are calibrated, gaussian, knn, classifier"):
        estimate_divergence(np.arange(9.0), np.arange(9.0), method="infonce")
    with pytest.raises(es.SampleError, match="no estimator is called 'magic'; there are calibrated"):
        estimate_information(np.arange(9.0), np.arange(9.0), method="magic")


@pytest.mark.parametrize("package", ["estimators", "inequalities"])
def test_the_doors_name_what_is_behind_them_and_stay_light(package: str) -> None:
    door = import_module(f"arvdm_theory.information.{package}")
    assert set(door.__all__) == set(door._HOME)
    for name in door.__all__:
        assert getattr(door, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'magic'"):
        _ = door.magic
    script = f"import sys, arvdm_theory.information.{package}\n"
    script += "assert not {'torch', 'numpy', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
