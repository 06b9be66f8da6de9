"""The estimator benchmark: every estimator, and three other packages, on samples whose information is known.

Tables, a row an estimate: ``estimators`` (value, truth, CPU seconds) and ``coverage`` (do nominal 95 % intervals
cover?).

The default estimator was designed on samples of the seeds 1 to 20 of its tasks, and 20 000 to 20 079 for its
intervals, and on some from 300 000 on; those from 101, 1101, 2101, 50 000, 60 000 and 160 000 on were looked at.
The tables are of other seeds: 3101 and on, and 260 000 and on.
"""

from __future__ import annotations

import importlib
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from arvdm_theory.experiments.record import Cell, run_cells
from arvdm_theory.information import gaussian
from arvdm_theory.information.discrete import information_of_blocks
from arvdm_theory.information.estimators import (
    METHODS,
    Dependence,
    SampleError,
    default_method,
    estimate_information,
    ksg,
    student_information,
)
from arvdm_theory.laws.chains import random_chain
from arvdm_theory.laws.gaussian import separable_video
from arvdm_theory.number import Number

__all__ = [
    "COVERAGE_TASKS",
    "PEERS",
    "SIZES",
    "STRESS_TASKS",
    "TASKS",
    "Draw",
    "Size",
    "Task",
    "benchmark",
    "comparison",
    "cost",
    "coverage",
    "coverage_summary",
    "summary",
]

Array = NDArray[np.float64]


class Draw(NamedTuple):
    """Samples of one task: X and Z, and Y where there is a condition."""

    x: Array
    z: Array
    y: Array | None = None


@dataclass(frozen=True)
class Task:
    """Samples with a known information.

    Attributes:
        truth: I(X; Z) or I(X; Z | Y), in nats.
        draw: (n, seed) → samples.
        family: what tables group by.
        dimension: of X (of Z it is the same, or less).
        dependence: of the samples.
    """

    truth: float
    draw: Callable[[int, int], Draw]
    family: str
    dimension: int
    dependence: Dependence = "independent"


def _pairs(d: int, rho: float, active: int, n: int, seed: int) -> Draw:
    """Standard normal X and Z; the first ``active`` coordinates correlate by rho, pair by pair."""
    rng = np.random.default_rng(seed)
    x, noise = rng.standard_normal((2, n, d))
    rhos = np.where(np.arange(d) < active, rho, 0.0)
    return Draw(x, rhos * x + np.sqrt(1 - rhos**2) * noise)


def _pairs_information(rho: float, active: int) -> float:
    return -0.5 * active * math.log1p(-(rho**2))


def _half_cube(values: Array) -> Array:
    result: Array = np.sign(values) * np.abs(values) ** 1.5
    return result


def _spiral(values: Array, speed: float = 1 / 3) -> Array:
    """Turned in the planes (1, 2) and (2, 3) in turn by an angle that grows with the squared length."""
    turned = values.copy()
    angle = speed * (values**2).sum(1)
    cosine, sine = np.cos(angle), np.sin(angle)
    for i in range(min(values.shape[1] - 1, 2)):
        first, second = turned[:, i].copy(), turned[:, i + 1].copy()
        turned[:, i], turned[:, i + 1] = cosine * first - sine * second, sine * first + cosine * second
    return turned


def _mapped(task: Task, family: str, of_x: Callable[[Array], Array], of_z: Callable[[Array], Array]) -> Task:
    """The task under invertible maps of X and of Z, which leave its information as it is."""

    def draw(n: int, seed: int) -> Draw:
        x, z, y = task.draw(n, seed)
        return Draw(of_x(x), of_z(z), y)

    return Task(task.truth, draw, family, task.dimension)


def _pairs_task(d: int, rho: float, active: int | None = None) -> Task:
    pairs = d if active is None else active
    return Task(_pairs_information(rho, pairs), partial(_pairs, d, rho, pairs), "gaussian", d)


def _student_task(d: int, freedom: float, rho: float, active: int) -> Task:
    def draw(n: int, seed: int) -> Draw:
        x, z, _ = _pairs(d, rho, active, n, seed)
        scale = np.sqrt(freedom / np.random.default_rng([seed, 1]).chisquare(freedom, size=(n, 1)))
        return Draw(x * scale, z * scale)

    truth = _pairs_information(rho, active) + student_information((d, d, 0), freedom)
    return Task(truth, draw, "student", d)


def _dense_task(sizes: tuple[int, int, int]) -> Task:
    """N(0, A Aᵀ/d + I) with A standard normal of seed d."""
    d = sum(sizes)
    root = np.random.default_rng(d).normal(size=(d, d))
    covariance = root @ root.T / d + np.eye(d)
    return _covariance_task(covariance, sizes, "gaussian, conditional")


def _covariance_task(covariance: Array, sizes: tuple[int, int, int], family: str) -> Task:
    x, z, y = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])

    def draw(n: int, seed: int) -> Draw:
        zero = np.zeros(len(covariance))
        values = np.random.default_rng(seed).multivariate_normal(zero, covariance, size=n)
        return Draw(values[:, x], values[:, z], values[:, y])

    truth = gaussian.conditional_mutual_information(
        torch.from_numpy(covariance), x.tolist(), z.tolist(), y.tolist()
    )
    return Task(float(truth), draw, family, sizes[0])


def _video_task() -> Task:
    """The memory bottleneck of a Gaussian video: the next frame and three past ones, given the last."""
    video = separable_video(
        lambda lags: 0.6 * 0.8**lags + 0.4 * torch.cos(2 * math.pi * lags / 7), [[1.0, 0.3], [0.3, 0.5]]
    )
    covariance = video.covariance(5)[0].numpy()
    order = np.r_[8:10, 0:6, 6:8]
    return _covariance_task(covariance[np.ix_(order, order)], (2, 6, 2), "gaussian video")


def _markov_task() -> Task:
    """The memory bottleneck of a chain of order 2: the next state and the one before last, given the last."""
    chain = random_chain(3, 2, torch.Generator().manual_seed(0))
    joint = (chain.initial[..., None] * chain.transition).numpy()

    def draw(n: int, seed: int) -> Draw:
        states = chain.sample(n, 3, torch.Generator().manual_seed(seed)).numpy().astype(np.float64)
        return Draw(states[:, 2:], states[:, :1], states[:, 1:2])

    return Task(information_of_blocks(joint.transpose(2, 0, 1))[0], draw, "markov video", 1)


def _series_task() -> Task:
    """Two AR(1) series of 0.8 with correlated noise, read at the same times."""
    phi, rho = 0.8, 0.6

    def draw(n: int, seed: int) -> Draw:
        rng = np.random.default_rng(seed)
        mix = np.linalg.cholesky(np.array([[1.0, rho], [rho, 1.0]]))
        noise = rng.standard_normal((n, 2)) @ mix.T
        noise[1:] *= math.sqrt(1 - phi**2)
        for i in range(1, n):
            noise[i] += phi * noise[i - 1]
        return Draw(noise[:, :1], noise[:, 1:])

    return Task(_pairs_information(rho, 1), draw, "autocorrelated", 1, "autocorrelated")


def _tasks() -> dict[str, Task]:
    tasks = {f"gaussian {d}+{d}": _pairs_task(d, 0.5) for d in (1, 2, 4, 8, 16)}
    tasks |= {"gaussian (4, 4, 2)": _dense_task((4, 4, 2)), "gaussian (8, 8, 4)": _dense_task((8, 8, 4))}
    tasks |= {"gaussian video": _video_task(), "markov video": _markov_task(), "autocorrelated": _series_task()}
    for d in (1, 3, 5):
        pairs = _pairs_task(d, 0.6)
        tasks[f"half-cube {d}+{d}"] = _mapped(pairs, "half-cube", _half_cube, _half_cube)
        tasks[f"asinh {d}+{d}"] = _mapped(pairs, "asinh", np.arcsinh, np.arcsinh)
        tasks[f"student {d}+{d}"] = _student_task(d, 2.0, 0.0, 0)
        tasks[f"student, correlated {d}+{d}"] = _student_task(d, 3.0, 0.6, min(d, 2))
    for d in (2, 3, 5):
        tasks[f"spiral {d}+{d}"] = _mapped(_pairs_task(d, 0.8, 2), "spiral", _spiral, lambda values: values)
    wide = _pairs_task(16, 0.5)
    tasks["cubic 16+16"] = _mapped(wide, "cubic", lambda values: values**3, lambda values: values**3)
    tasks["asinh 16+16"] = _mapped(wide, "asinh", np.arcsinh, np.arcsinh)
    return tasks


TASKS: dict[str, Task] = _tasks()
"""Every task by name."""


def _ennemi(draw: Draw) -> float:
    """Σ_ij I(X_i; Z_j | Y, X_<i, Z_<j): ennemi takes single columns only, so the chain rule."""
    module = importlib.import_module("ennemi")
    total = 0.0
    y = np.empty((len(draw.x), 0)) if draw.y is None else draw.y
    for i in range(draw.x.shape[1]):
        for j in range(draw.z.shape[1]):
            given = np.hstack([y, draw.x[:, :i], draw.z[:, :j]])
            found = module.estimate_mi(draw.z[:, j], draw.x[:, i], k=3, cond=given if given.shape[1] else None)
            total += float(np.squeeze(found))
    return total


def _infomeasure(draw: Draw) -> float:
    module = importlib.import_module("infomeasure")
    if draw.y is None:
        return float(module.mutual_information(draw.x, draw.z, approach="metric", k=3))
    return float(module.cmi(draw.x, draw.z, cond=draw.y, approach="metric", k=3))


def _npeet(draw: Draw) -> float:
    module = importlib.import_module("npeet_plus")
    return float(module.mi(draw.x, draw.z, draw.y, k=3, base=math.e))


PEERS: dict[str, tuple[str, Callable[[Draw], float]]] = {
    "ennemi": ("ennemi", _ennemi),
    "infomeasure": ("infomeasure", _infomeasure),
    "NPEET-plus": ("npeet_plus", _npeet),
}
"""Other packages, each with the module that it needs and a call with k = 3, in nats."""


@dataclass(frozen=True)
class Size:
    """How much is run.

    Attributes:
        tasks: (name of the task, n, seeds).
        most_columns: pairs of columns up to which ennemi's chain rule is run.
        replicates: of each coverage task for methods that cost little.
        default_replicates: of each coverage task for the default estimator.
        methods: the toolkit's estimators that are run besides the default; None for all.
    """

    tasks: tuple[tuple[str, int, int], ...]
    most_columns: int
    replicates: int
    default_replicates: int
    methods: tuple[str, ...] | None = None


_OTHERS = ("half-cube", "asinh", "student", "student, correlated")
_BENT = (
    *(f"{name} {d}+{d}" for name in _OTHERS for d in (1, 3, 5)),
    *(f"spiral {d}+{d}" for d in (2, 3, 5)),
)
_WIDE = tuple(f"gaussian {d}+{d}" for d in (1, 2, 4, 8, 16))

SIZES: dict[str, Size] = {
    "smoke": Size((("gaussian 1+1", 200, 2), ("markov video", 300, 1), ("gaussian video", 200, 1)), 1, 4, 2),
    "small": Size(
        (
            *((name, 1000, 3) for name in (*_WIDE, "gaussian video", "markov video")),
            *((name, 1000, 5) for name in _BENT),
            ("gaussian (8, 8, 4)", 2000, 1),
        ),
        9, 60, 60,
    ),
    "full": Size(
        (
            *((name, n, 20) for n in (500, 2000) for name in (*_WIDE, "gaussian video", "markov video")),
            *((name, n, 20) for n in (1000, 4000) for name in _BENT),
            ("gaussian (8, 8, 4)", 2000, 5), ("gaussian (4, 4, 2)", 10_000, 2),
            ("gaussian 16+16", 5000, 5), ("cubic 16+16", 5000, 5), ("asinh 16+16", 5000, 5),
        ),
        64, 1000, 1000,
    ),
    "report": Size(
        (
            *((name, 1000, 10) for name in _BENT), *((name, 1000, 5) for name in _WIDE),
            ("gaussian (8, 8, 4)", 1000, 3),
        ),
        25, 200, 100, ("gaussian", "copula", "ksg1"),
    ),
}  # fmt: skip
"""``smoke`` is seconds, ``small`` some ten minutes on two cores, ``full`` most of a day.

``report`` makes the tables in ``experiments/results/estimators``, a few minutes of one idle core: what the default
errs by and costs beside other methods and packages.
"""

COVERAGE_TASKS: Mapping[str, int] = {
    "gaussian (4, 4, 2)": 500, "half-cube 3+3": 500, "asinh 1+1": 500, "student 3+3": 500,
    "markov video": 500, "autocorrelated": 1000,
}  # fmt: skip
"""Tasks whose intervals are counted, with their n: the default estimator and, where they suit, others."""

STRESS_TASKS: Mapping[str, int] = {"spiral 2+2": 500}
"""Tasks of a kind that no baseline fits; a quarter of the default's replicates."""

_FIRST_SEED, _FIRST_COVERAGE_SEED = 3101, 260_000
_BOOTSTRAPS = 4000
_DEFAULT = "calibrated"
# The normal quantile of 95 % intervals.
_Z = 1.959964


def benchmark(size: Size, folder: Path, progress: bool = True) -> pd.DataFrame:
    """The table ``estimators``: a row for every task, n, seed and method.

    Packages that are not installed are left out; so are estimators that the task's kind of samples does not suit.
    """
    # Part of every cell, so that a folder that another size was run in gives none of its cells to this one.
    suite = "all" if size.methods is None else ", ".join(size.methods)
    cells: list[Cell] = [
        {"task": task, "n": n, "seed": _FIRST_SEED + i, "suite": f"{suite}; ennemi to {size.most_columns} pairs"}
        for task, n, seeds in size.tasks
        for i in range(seeds)
    ]
    return run_cells("estimators", cells, partial(_estimates, size), folder, progress=progress)


def _estimates(size: Size, cell: Cell) -> pd.DataFrame:
    task = TASKS[cell["task"]]
    draw = task.draw(cell["n"], cell["seed"])
    common = {"family": task.family, "dimension": task.dimension, "truth": task.truth}
    default = default_method(*draw)
    discrete = default == "miller-madow"
    suited = {"mixed", "miller-madow", "shrinkage", "plug-in"} if discrete else METHODS.keys() - {
        "miller-madow", "shrinkage", "plug-in", "mixed"
    }  # fmt: skip
    if size.methods is not None:
        suited &= {default, *size.methods}
    rows = []
    methods: dict[str, Callable[..., Number]] = {name: METHODS[name] for name in METHODS if name in suited}
    if not discrete and size.methods is None:
        # As the other packages do it, so that values can be held against one another.
        methods["ksg1, raw columns"] = partial(ksg, standardise=False)
    for method, estimator in methods.items():
        begin = time.process_time()
        estimate = _quietly(estimator, draw, task.dependence)
        seconds = time.process_time() - begin
        rows.append({
            **common, "method": method, "value": estimate.value, "stderr": estimate.stderr,
            "ci_low": estimate.ci_low, "ci_high": estimate.ci_high, "seconds": seconds,
        })  # fmt: skip
    for name, (module, peer) in PEERS.items():
        columns = draw.x.shape[1] * draw.z.shape[1]
        if discrete or not _installed(module) or (name == "ennemi" and columns > size.most_columns):
            continue
        begin = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = peer(draw)
        rows.append({**common, "method": name, "value": value, "seconds": time.process_time() - begin})
    return pd.DataFrame(rows)


def _installed(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True


def _quietly(estimator: Callable[..., Number], draw: Draw, dependence: Dependence) -> Number:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return estimator(*draw, dependence=dependence)


def coverage(size: Size, folder: Path, progress: bool = True) -> pd.DataFrame:
    """The table ``coverage``: a row for every task, method and batch of replicates."""
    cells: list[Cell] = [
        {"task": task, "n": n, "method": method, "first": first, "replicates": min(20, replicates - first)}
        for task, n, method, replicates in _coverage_plan(size)
        for first in range(0, replicates, 20)
    ]
    return run_cells("coverage", cells, _intervals, folder, progress=progress)


def _coverage_plan(size: Size) -> list[tuple[str, int, str, int]]:
    plan = [
        (task, n, method, size.default_replicates if method == "default" else size.replicates)
        for task, n in COVERAGE_TASKS.items()
        for method in _coverage_methods(task)
    ]
    stress = max(size.default_replicates // 4, 1)
    return [*plan, *((task, n, "default", stress) for task, n in STRESS_TASKS.items())]


def _coverage_methods(task: str) -> Sequence[str]:
    if task == "markov video":
        return ("default",)
    # Nearest neighbours alone are biased in 6 and more dimensions, the copula for other than Gaussian copulas.
    return {
        "gaussian (4, 4, 2)": ("default", "gaussian", "copula"),
        "half-cube 3+3": ("default", "copula"),
        "student 3+3": ("default",),
    }.get(task, ("default", "ksg1", "copula"))


def _intervals(cell: Cell) -> pd.DataFrame:
    task = TASKS[cell["task"]]
    method = None if cell["method"] == "default" else cell["method"]
    rows = []
    for seed in range(cell["first"], cell["first"] + cell["replicates"]):
        draw = task.draw(cell["n"], _FIRST_COVERAGE_SEED + seed)
        found = _quietly(partial(estimate_information, method=method), draw, task.dependence)
        covered = found.ci_low <= task.truth <= found.ci_high
        rows.append({"value": found.value, "stderr": found.stderr, "truth": task.truth, "covered": covered})
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Bias, root mean squared and median absolute error, coverage and seconds of every task, n and method."""
    if table.empty:
        raise SampleError("the table of estimates is empty")
    error = table.value - table.truth
    rows = table.assign(
        error=error, square=error**2, absolute=error.abs(),
        covered=((table.ci_low <= table.truth) & (table.truth <= table.ci_high)).where(table.stderr.notna()),
    )  # fmt: skip
    groups = rows.groupby(["task", "n", "method"], sort=False)
    return pd.DataFrame({
        "truth": groups.truth.first(), "bias": groups.error.mean(), "rmse": groups.square.mean() ** 0.5,
        "median_error": groups.absolute.median(), "coverage": groups.covered.mean(),
        "seconds": groups.seconds.median(),
    }).reset_index()  # fmt: skip


def comparison(table: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """The default against the best other package, task by task, on the same samples.

    The best is the one whose median absolute error is least on these very samples, which favours it. The
    interval of the difference of the medians is a paired bootstrap over the samples (percentiles, 95 %).

    Args:
        table: of :func:`benchmark`.
        seed: of the bootstrap.

    Returns:
        a row for every task and n: ``seeds``, ``default_error``, ``peer`` and ``peer_error`` (median absolute
        errors, nats), ``difference`` (default less peer), ``low`` and ``high``, ``loss`` (difference > 0) and
        ``beyond_error`` (low > 0: a loss that chance does not explain).
    """
    rng = np.random.default_rng(seed)
    rows = []
    for (task, n), part in table.groupby(["task", "n"], sort=False):
        errors = (
            part.assign(error=(part.value - part.truth).abs())
            .pivot(index="seed", columns="method", values="error")
            .dropna(axis="columns")
        )
        peers = [name for name in PEERS if name in errors]
        if _DEFAULT not in errors or not peers:
            continue
        peer = str(errors[peers].median().idxmin())
        own, other = errors[_DEFAULT].to_numpy(), errors[peer].to_numpy()
        picks = rng.integers(0, len(own), size=(_BOOTSTRAPS, len(own)))
        spread = np.median(own[picks], axis=1) - np.median(other[picks], axis=1)
        low, high = np.quantile(spread, [0.025, 0.975])
        difference = float(np.median(own) - np.median(other))
        rows.append({
            "task": task, "n": n, "seeds": len(own), "default_error": float(np.median(own)), "peer": peer,
            "peer_error": float(np.median(other)), "difference": difference, "low": low, "high": high,
            "loss": difference > 0, "beyond_error": bool(low > 0),
        })  # fmt: skip
    return pd.DataFrame(rows)


def cost(table: pd.DataFrame) -> pd.DataFrame:
    """Median CPU seconds of an estimate: a row a task and n, a column a method, and the default's over the fastest
    package's."""
    seconds = table.pivot_table(
        index=["task", "n"], columns="method", values="seconds", aggfunc="median", sort=False
    )
    peers = [name for name in PEERS if name in seconds]
    fastest = seconds[peers].min(axis=1) if peers else math.nan
    return seconds.assign(default_over_fastest_package=seconds[_DEFAULT] / fastest).reset_index()


def coverage_summary(table: pd.DataFrame) -> pd.DataFrame:
    """Share of intervals that cover, its 95 % interval (Wilson), bias, spread and mean standard error."""
    rows = []
    for (task, n, method), part in table.groupby(["task", "n", "method"], sort=False):
        count, share = len(part), float(part.covered.mean())
        centre = (share + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
        reach = _Z * math.sqrt(share * (1 - share) / count + (_Z / (2 * count)) ** 2) / (1 + _Z**2 / count)
        rows.append({
            "task": task, "n": n, "method": method, "replicates": count, "coverage": share,
            "low": centre - reach, "high": centre + reach, "bias": float((part.value - part.truth).mean()),
            "spread": float(part.value.std()), "stderr": float((part.stderr**2).mean() ** 0.5),
        })  # fmt: skip
    return pd.DataFrame(rows)
