"""The conditional independence test on named cases: how often it rejects without dependence, and with it.

No such test is valid for every law (Shah and Peters 2020), so these are cases, not a proof. In each, X and Z have
correlation 0.9 with a function of Y and a noise of their own; ``strength`` is the correlation of the two noises
(in the case ``curved``, of Z's noise with the square of X's), 0 for independence given Y. Beside the test stands
the kernel test of Zhang, Peters, Janzing and Schölkopf (2011) with causal-learn's settings, where it is installed.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from arvdm_theory.experiments.record import Cell, run_cells
from arvdm_theory.information.estimators import Dependence, SampleError, independence_test
from arvdm_theory.tables import write_table

__all__ = ["ALPHA", "CASES", "SIZES", "Case", "Size", "independence_study", "rates", "wilson"]

Array = NDArray[np.float64]

ALPHA = 0.05
"""Level of the test."""

_STATISTICS = ("gaussian", "both")
# The kernel test, which is for independent samples.
_PEER, _PEER_PACKAGE = "KCI", "causallearn"
# Autocorrelation of every series from one sample to the next.
_MEMORY = 0.7
# Samples thrown away before a series starts.
_WARM_UP = 60
# E tanh²(2Y) for a standard normal Y, by quadrature.
_TANH_VARIANCE = 0.6352612342569404
# Replicates a cell.
_BATCH = 50


@dataclass(frozen=True)
class Case:
    """One pair of laws of X and Z given Y.

    Attributes:
        title: what it is.
        draw: (samples, strength, generator) → X and Z, or X, Z and Y, each (n,).
        dependence: of consecutive samples.
    """

    title: str
    draw: Callable[[int, float, np.random.Generator], tuple[Array, ...]]
    dependence: Dependence = "independent"


def _series(n: int, rng: np.random.Generator) -> Array:
    """Three independent AR(1) series of variance 1, (3, n)."""
    series = rng.standard_normal((n + _WARM_UP, 3))
    series[1:] *= math.sqrt(1 - _MEMORY**2)
    for i in range(1, len(series)):
        series[i] += _MEMORY * series[i - 1]
    return series[_WARM_UP:].T


def _linear(y: Array) -> Array:
    return y


def _sine(y: Array) -> Array:
    # E sin²(2Y) = (1 - e^{-8})/2.
    return np.sin(2 * y) * math.sqrt(2 / (1 - math.exp(-8)))


def _fast(y: Array) -> Array:
    return np.sin(5 * y) * math.sqrt(2 / (1 - math.exp(-50)))


def _square(y: Array) -> Array:
    return (y**2 - 1) / math.sqrt(2)


def _tanh(y: Array) -> Array:
    return np.tanh(2 * y) / math.sqrt(_TANH_VARIANCE)


def _edge(y: Array) -> Array:
    sides: Array = np.sign(y.sum(1))
    return sides


def _common_cause(
    to_x: Callable[[Array], Array],
    to_z: Callable[[Array], Array],
    series: bool = False,
    curved: bool = False,
    spread: bool = False,
    columns: int = 1,
) -> Callable[[int, float, np.random.Generator], tuple[Array, ...]]:
    def draw(n: int, strength: float, rng: np.random.Generator) -> tuple[Array, ...]:
        own, other, y = _series(n, rng) if series else rng.standard_normal((3, n))
        if columns > 1:
            y = np.column_stack([y, rng.standard_normal((n, columns - 1))])
        shared = _square(own) if curved else own
        other = strength * shared + math.sqrt(1 - strength**2) * other
        noise = math.sqrt(0.19) * (np.abs(y) if spread else 1.0)
        return 0.9 * to_x(y) + noise * own, 0.9 * to_z(y) + noise * other, y

    return draw


def _two_series(n: int, strength: float, rng: np.random.Generator) -> tuple[Array, ...]:
    own, other, _ = _series(n, rng)
    return own, strength * own + math.sqrt(1 - strength**2) * other


CASES: dict[str, Case] = {
    "linear": Case("linear links", _common_cause(_linear, _linear)),
    "sine": Case("links sin 2Y", _common_cause(_sine, _sine)),
    "fast": Case("links sin 5Y", _common_cause(_fast, _fast)),
    "mixed": Case("links tanh 2Y and Y²", _common_cause(_tanh, _square)),
    "spread": Case("noise of size |Y|", _common_cause(_linear, _linear, spread=True)),
    "curved": Case("Z's noise on X's squared", _common_cause(_linear, _linear, curved=True)),
    "series": Case("AR(1) series, no Y", _two_series, "autocorrelated"),
    "series, linear": Case("AR(1) series, linear links", _common_cause(_linear, _linear, True), "autocorrelated"),
    "series, sine": Case("AR(1) series, links sin 2Y", _common_cause(_sine, _sine, True), "autocorrelated"),
    "edge": Case("a jump across a line", _common_cause(_edge, _edge, columns=2)),
}
"""The cases by name."""


@dataclass(frozen=True)
class Size:
    """How much is run.

    Attributes:
        null: replicates of each case and statistic at strength 0.
        power: replicates at every other strength.
        strengths: the others.
        n: samples.
        permutations: of a test.
    """

    null: int
    power: int
    strengths: tuple[float, ...]
    n: int
    permutations: int


SIZES: dict[str, Size] = {
    "smoke": Size(10, 5, (0.8,), 120, 19),
    "small": Size(100, 50, (0.2, 0.4), 300, 39),
    "full": Size(1000, 50, (0.1, 0.2, 0.3, 0.5), 300, 39),
}


def independence_study(size: Size, folder: Path, seed: int = 0, progress: bool = True) -> pd.DataFrame:
    """Writes the tables ``independence_level`` and ``independence_power`` (a row a batch), and ``independence``.

    Args:
        size: how much to run.
        folder: where the tables and their provenance go; what an earlier run finished there is not run again.
        seed: of all samples and permutations.
        progress: whether to show progress bars.

    Returns:
        the table ``independence``: the :func:`rates` of both.
    """
    batches = [
        run_cells(f"independence_{name}", _plan(size, strengths, replicates), _Batch(seed), folder, seed, progress)
        for name, strengths, replicates in (
            ("level", (0.0,), size.null),
            ("power", size.strengths, size.power),
        )
    ]
    table = rates(pd.concat(batches, ignore_index=True))
    write_table(table, folder / "independence.csv")
    return table


def _plan(size: Size, strengths: tuple[float, ...], replicates: int) -> list[Cell]:
    return [
        {"case": case, "statistic": statistic, "strength": strength, "n": size.n,
         "permutations": size.permutations, "first": first, "replicates": min(_BATCH, replicates - first)}
        for statistic in (*_STATISTICS, _PEER)
        for case in CASES
        for strength in strengths
        if strength > 0 or case != "curved"  # its null is the linear case's
        if statistic != _PEER or (find_spec(_PEER_PACKAGE) and CASES[case].dependence == "independent")
        for first in range(0, replicates, _BATCH)
    ]  # fmt: skip


@dataclass(frozen=True)
class _Batch:
    """Runs the replicates of one cell: each has its own seed, whatever batch it is in."""

    seed: int

    def __call__(self, cell: Cell) -> pd.DataFrame:
        case, rejections, refused, lags = CASES[cell["case"]], 0, 0, []
        for replicate in range(cell["first"], cell["first"] + cell["replicates"]):
            rng = np.random.default_rng([self.seed, list(CASES).index(cell["case"]), replicate])
            samples = case.draw(cell["n"], cell["strength"], rng)
            if cell["statistic"] == _PEER:
                rejections += _kernel_test(*samples) <= ALPHA
                continue
            try:
                result = independence_test(
                    *samples, statistic=cell["statistic"], permutations=cell["permutations"],
                    # Decisions at this level are those of all permutations.
                    dependence=case.dependence, stop=int(ALPHA * (cell["permutations"] + 1)), seed=replicate,
                )  # fmt: skip
            except SampleError:
                refused += 1
                continue
            rejections += result.p_value <= ALPHA
            lags.append(result.lag)
        lag = float(np.mean(lags)) if lags else math.nan
        return pd.DataFrame([{"rejections": rejections, "refused": refused, "mean_lag": lag}])


def _kernel_test(x: Array, z: Array, y: Array) -> float:
    """The p-value of the kernel test, with the package's own settings."""
    module = importlib.import_module(f"{_PEER_PACKAGE}.utils.KCI.KCI")
    columns = [part if part.ndim == 2 else part[:, None] for part in (x, z, y)]
    return float(module.KCI_CInd().compute_pvalue(*columns)[0])


def rates(batches: pd.DataFrame) -> pd.DataFrame:
    """The rejection rate of every case, statistic and strength, with its 95 % Wilson interval; of all replicates.

    A test that is refused does not reject.

    Args:
        batches: what the study's runs wrote: columns ``case``, ``statistic``, ``strength``, ``n``,
            ``permutations``, ``replicates``, ``refused`` and ``rejections``.

    Raises:
        ValueError: if there are none.
    """
    if batches.empty:
        raise ValueError("there are no batches to take rates of")
    keys = ["case", "statistic", "strength", "n", "permutations"]
    table = batches.groupby(keys, sort=False)[["replicates", "refused", "rejections"]].sum().reset_index()
    low, high = wilson(table.rejections.to_numpy(), table.replicates.to_numpy())
    return table.assign(rate=table.rejections / table.replicates, low=low, high=high)


def wilson(successes: NDArray[np.int64], trials: NDArray[np.int64], z: float = 1.959964) -> tuple[Array, Array]:
    """Wilson's interval (1927) of a probability: all p with |k/n - p| ≤ z √(p(1-p)/n).

    (k + z²/2 ± z √(k(n-k)/n + z²/4)) / (n + z²).

    Args:
        successes: k, any shape.
        trials: n ≥ 1, of the same shape.
        z: normal quantile of the coverage.
    """
    k, n = np.asarray(successes, dtype=np.float64), np.asarray(trials, dtype=np.float64)
    middle, half = k + z**2 / 2, z * np.sqrt(k * (n - k) / n + z**2 / 4)
    return (middle - half) / (n + z**2), (middle + half) / (n + z**2)
