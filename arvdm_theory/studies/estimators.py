"""The estimator benchmark: every estimator, and three other packages, on samples whose information is known.

Tables, a row an estimate: ``estimators`` (value, truth, seconds), ``coverage`` (do nominal 95 % intervals cover?)
and ``independence`` (how often does the conditional independence test reject?).
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

from arvdm_theory.information import gaussian
from arvdm_theory.information.discrete import information_of_blocks
from arvdm_theory.information.estimate import Estimate, SampleError
from arvdm_theory.information.independence import independence_test
from arvdm_theory.information.knn import ksg
from arvdm_theory.information.methods import METHODS, default_method, estimate_information
from arvdm_theory.information.residual import student_information
from arvdm_theory.information.uncertainty import Dependence
from arvdm_theory.processes.gaussian import separable_video
from arvdm_theory.processes.markov import random_chain
from arvdm_theory.studies.record import Cell, run_cells

__all__ = ["PEERS", "SIZES", "TASKS", "Draw", "Size", "Task", "benchmark", "coverage", "independence", "summary"]

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
        replicates: of each coverage task and of each case of the independence test.
        permutations: of the independence test.
    """

    tasks: tuple[tuple[str, int, int], ...]
    most_columns: int
    replicates: int
    permutations: int


_OTHERS = ("half-cube", "asinh", "student", "student, correlated")
_BENT = (
    *(f"{name} {d}+{d}" for name in _OTHERS for d in (1, 3, 5)),
    *(f"spiral {d}+{d}" for d in (2, 3, 5)),
)
_WIDE = tuple(f"gaussian {d}+{d}" for d in (1, 2, 4, 8, 16))

SIZES: dict[str, Size] = {
    "smoke": Size((("gaussian 1+1", 200, 2), ("markov video", 200, 1), ("gaussian video", 200, 1)), 1, 4, 19),
    "small": Size(
        (
            *((name, 1000, 3) for name in (*_WIDE, "gaussian video", "markov video")),
            *((name, 1000, 5) for name in _BENT),
            ("gaussian (8, 8, 4)", 2000, 1),
        ),
        9, 60, 39,
    ),
    "full": Size(
        (
            *((name, n, 20) for n in (500, 2000) for name in (*_WIDE, "gaussian video", "markov video")),
            *((name, n, 20) for n in (1000, 4000) for name in _BENT),
            ("gaussian (8, 8, 4)", 2000, 5), ("gaussian (4, 4, 2)", 10_000, 2),
            ("gaussian 16+16", 5000, 5), ("cubic 16+16", 5000, 5), ("asinh 16+16", 5000, 5),
        ),
        64, 1000, 199,
    ),
}  # fmt: skip
"""``smoke`` is seconds, ``small`` some ten minutes on two cores, ``full`` most of a day."""

COVERAGE_TASKS: Mapping[str, int] = {
    "gaussian (4, 4, 2)": 1000, "half-cube 3+3": 1000, "asinh 1+1": 1000, "student 3+3": 1000,
    "markov video": 1000, "autocorrelated": 2000,
}  # fmt: skip
"""Tasks whose intervals are counted, with their n: the default estimator and, where they suit, others."""


def benchmark(size: Size, folder: Path, progress: bool = True) -> pd.DataFrame:
    """The table ``estimators``: a row for every task, n, seed and method.

    Packages that are not installed are left out; so are estimators that the task's kind of samples does not suit.
    """
    cells: list[Cell] = [
        {"task": task, "n": n, "seed": seed} for task, n, seeds in size.tasks for seed in range(1, seeds + 1)
    ]
    return run_cells("estimators", cells, partial(_estimates, size.most_columns), folder, progress=progress)


def _estimates(most_columns: int, cell: Cell) -> pd.DataFrame:
    task = TASKS[cell["task"]]
    draw = task.draw(cell["n"], cell["seed"])
    common = {"family": task.family, "dimension": task.dimension, "truth": task.truth}
    discrete = default_method(*draw) == "miller-madow"
    suited = {"mixed", "miller-madow", "shrinkage", "plug-in"} if discrete else METHODS.keys() - {
        "miller-madow", "shrinkage", "plug-in", "mixed"
    }  # fmt: skip
    rows = []
    methods: dict[str, Callable[..., Estimate]] = {name: METHODS[name] for name in METHODS if name in suited}
    if not discrete:
        # As the other packages do it, so that values can be held against one another.
        methods["ksg1, raw columns"] = partial(ksg, standardise=False)
    for method, estimator in methods.items():
        begin = time.perf_counter()
        estimate = _quietly(estimator, draw, task.dependence)
        seconds = time.perf_counter() - begin
        rows.append({
            **common, "method": method, "value": estimate.value, "stderr": estimate.stderr,
            "ci_low": estimate.ci_low, "ci_high": estimate.ci_high, "seconds": seconds,
        })  # fmt: skip
    for name, (module, peer) in PEERS.items():
        columns = draw.x.shape[1] * draw.z.shape[1]
        if discrete or not _installed(module) or (name == "ennemi" and columns > most_columns):
            continue
        begin = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = peer(draw)
        rows.append({**common, "method": name, "value": value, "seconds": time.perf_counter() - begin})
    return pd.DataFrame(rows)


def _installed(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True


def _quietly(estimator: Callable[..., Estimate], draw: Draw, dependence: Dependence) -> Estimate:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return estimator(*draw, dependence=dependence)


def coverage(size: Size, folder: Path, progress: bool = True) -> pd.DataFrame:
    """The table ``coverage``: a row for every task, method and batch of replicates."""
    cells: list[Cell] = [
        {"task": task, "n": n, "method": method, "first": first, "replicates": min(20, size.replicates - first)}
        for task, n in COVERAGE_TASKS.items()
        for method in _coverage_methods(task)
        for first in range(0, size.replicates, 20)
    ]
    return run_cells("coverage", cells, _intervals, folder, progress=progress)


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
        draw = task.draw(cell["n"], 10_000 + seed)
        found = _quietly(partial(estimate_information, method=method), draw, task.dependence)
        covered = found.ci_low <= task.truth <= found.ci_high
        rows.append({"value": found.value, "stderr": found.stderr, "truth": task.truth, "covered": covered})
    return pd.DataFrame(rows)


def independence(size: Size, folder: Path, progress: bool = True) -> pd.DataFrame:
    """The table ``independence``: how often the test rejects at 0.05, against the strength of the dependence.

    X and Z have correlation 0.9 with Y, or with a sine of Y; Z has ``strength`` of X's own noise besides (0: the
    null). In the case ``series`` there is no Y, and both are AR(1) series of 0.8.
    """
    cells: list[Cell] = [
        {"case": case, "strength": strength, "n": 300, "permutations": size.permutations,
         "first": first, "replicates": min(20, size.replicates - first)}
        for case in ("linear", "nonlinear", "series")
        for strength in (0.0, 0.15, 0.3, 0.6)
        for first in range(0, size.replicates, 20)
    ]  # fmt: skip
    return run_cells("independence", cells, _rejections, folder, progress=progress)


def _rejections(cell: Cell) -> pd.DataFrame:
    rows = []
    for seed in range(cell["first"], cell["first"] + cell["replicates"]):
        draw = _case(cell["case"], cell["strength"], cell["n"], np.random.default_rng([seed, 2]))
        dependence: Dependence = "autocorrelated" if cell["case"] == "series" else "independent"
        result = independence_test(*draw, permutations=cell["permutations"], dependence=dependence, seed=seed)
        rows.append({"p_value": result.p_value, "rejected": result.p_value <= 0.05})
    return pd.DataFrame(rows)


def _case(case: str, strength: float, n: int, rng: np.random.Generator) -> Draw:
    own, other, y = rng.standard_normal((3, n))
    if case == "series":
        for i in range(1, n):
            own[i] = 0.8 * own[i - 1] + 0.6 * own[i]
            other[i] = 0.8 * other[i - 1] + 0.6 * other[i]
        return Draw(own[:, None], (other + strength * own)[:, None])
    cause = 0.9 * (y if case == "linear" else math.sqrt(2) * np.sin(2 * y))
    noise = math.sqrt(0.19)
    return Draw((cause + noise * own)[:, None], (cause + noise * (other + strength * own))[:, None], y[:, None])


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
