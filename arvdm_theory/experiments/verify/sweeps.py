"""One function a figure: a sweep of exact ledgers, as a tidy table.

Every function takes the size of the run, the folder for its table and whether to show progress, and returns
the table it saved there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from arvdm_theory.bounds.impossibility import check_gaussian_lemma, check_lemma
from arvdm_theory.decomposition.ledger import ledger
from arvdm_theory.decomposition.recursion import rates
from arvdm_theory.decomposition.result import Result
from arvdm_theory.diffusion.scores import PerturbedScore
from arvdm_theory.experiments.record import Cell, run_cells
from arvdm_theory.experiments.verify.cases import Size
from arvdm_theory.experiments.verify.finite import multimodal
from arvdm_theory.experiments.verify.schedulers import schedulers
from arvdm_theory.experiments.videos import GAUSSIAN_VIDEOS, damped_period
from arvdm_theory.information.discrete import FiniteLaw
from arvdm_theory.laws.gaussian import GaussianVideo
from arvdm_theory.laws.linear import ar1, exponential_video, reference_video
from arvdm_theory.plan.methods import fifo, outpainting
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.references import References

__all__ = ["SWEEPS"]

# The decomposition's methods, on one video and one budget of clean frames (12 frames put out in all).
_METHODS: dict[str, tuple[Callable[[int], Plan], int]] = {
    "outpainting\nlast 1": (lambda m: outpainting(2, References.last(1), m), 5),
    "outpainting\nlast 4": (lambda m: outpainting(2, References.last(4), m), 5),
    "outpainting\nlast 4, ρ = 0.3": (lambda m: outpainting(2, References.last(4, 0.3), m), 5),
    "chunks of 2\nlast 2": (
        lambda m: Plan((3.0, 3.0, 6.0, 6.0), 2, 6.0, m, references=References.last(2)),
        6,
    ),
    "FIFO\nno references": (lambda m: fifo(4, References.none(), m), 12),
    "FIFO\nlast 3": (lambda m: fifo(4, References.last(3), m), 12),
}


def _tidy(values: Mapping[str, float | None]) -> pd.DataFrame:
    rows = [(name, value) for name, value in values.items() if value is not None]
    return pd.DataFrame(rows, columns=["quantity", "value"])


def _totals(result: Result, *names: str) -> dict[str, float | None]:
    return {name: result.totals[name] for name in names}


def methods(size: Size, folder: Path, progress: bool = True) -> pd.DataFrame:
    """Totals of every method on the reference video, 12 frames each, score error 0.05.

    Beside them Σ E_k as NIE, DE and SEE, switched on in this order (``ar_step_nie`` and so on). A total that a
    method does not have is NaN, with the reason in ``note``.
    """
    cells = [{"method": name, "reverse_steps": 2 * size.reverse_steps} for name in _METHODS]

    def compute(cell: Cell) -> pd.DataFrame:
        build, ar_steps = _METHODS[cell["method"]]
        plan = build(cell["reverse_steps"])
        result = ledger(reference_video(), plan, ar_steps, score=PerturbedScore(0.05), attribution=True)
        rows = [(name, value, result.notes.get(name, "")) for name, value in result.totals.items()]
        rows += [
            (f"ar_step_{name.lower()}", sum(result.column(f"AR_STEP_{name}")), "") for name in ("NIE", "DE", "SEE")
        ]
        return pd.DataFrame(rows, columns=["quantity", "value", "note"])

    return run_cells("methods", cells, compute, folder, progress=progress)


def steps(size: Size, folder: Path, progress: bool = True) -> pd.DataFrame:
    """DE against the number of reverse steps, to level 0 and stopped early, for two integrators."""
    counts = np.unique(np.geomspace(5, 320, size.sweep).round().astype(int))
    cells = [
        {"video": "reference", "step": step, "floor": floor, "reverse_steps": int(count)}
        for step in ("exponential", "euler")
        for floor in (0.0, 0.1)
        for count in counts
    ]

    def compute(cell: Cell) -> pd.DataFrame:
        plan = Plan((6.0, 6.0), 2, 6.0, cell["reverse_steps"], references=References.last(2), floor=cell["floor"])
        result = ledger(reference_video(), plan, 3, step=cell["step"], girsanov=False, memory=False)
        return _tidy(_totals(result, "de"))

    return run_cells("steps", cells, compute, folder, progress=progress)


def horizon(size: Size, folder: Path, progress: bool = True) -> pd.DataFrame:
    """Noise initialisation error against T, exact and its closed bound."""
    cells = [
        {"video": video, "horizon": float(t)}
        for video in ("AR(1) 0.8", "reference", "long memory")
        for t in np.linspace(1, 12, 2 * size.sweep)
    ]

    def compute(cell: Cell) -> pd.DataFrame:
        plan = outpainting(2, References.last(2), 2, 2, cell["horizon"])
        terms = ledger(GAUSSIAN_VIDEOS[cell["video"]](), plan, 3).terms
        both = [terms.total(name) for name in ("nie", "nie_closed")]
        return _tidy(dict(zip(("exact", "closed bound"), map(float, both), strict=True)))

    return run_cells("horizon", cells, compute, folder, progress=progress)


def score_error(size: Size, folder: Path, progress: bool = True) -> pd.DataFrame:
    """SEE, CROSS and the excess of clean KL against the score error e of s* - e W."""
    cells = [
        {"method": method, "score_error": float(e)}
        for method in ("outpainting", "FIFO")
        for e in np.geomspace(1e-3, 0.3, size.sweep)
    ]

    def compute(cell: Cell) -> pd.DataFrame:
        plan = (outpainting if cell["method"] == "outpainting" else fifo)(references=References.last(2))
        own = ledger(reference_video(), plan, 4, score=PerturbedScore(cell["score_error"]), girsanov=False)
        best = ledger(reference_video(), plan, 4, girsanov=False)
        exact = {"kl_exact_score": best.totals["kl"]}
        return _tidy(_totals(own, "see", "cross", "kl", "trajectory_kl") | exact)

    return run_cells("score_error", cells, compute, folder, progress=progress)


def accumulation(size: Size, folder: Path, progress: bool = True) -> pd.DataFrame:
    """Clip KL and its three bounds over AR steps: where errors contract, and where they pile up."""
    length = 20 * max(2, size.sweep // 2)
    cells = [{"correlation": phi, "ar_steps": length, "score_error": 0.02} for phi in (0.8, 0.99, 0.999)]

    def compute(cell: Cell) -> pd.DataFrame:
        plan = outpainting(2, References.last(1), 20, 20)
        result = ledger(
            ar1(cell["correlation"]), plan, cell["ar_steps"], score=PerturbedScore(cell["score_error"]),
            girsanov=False, memory=False, accumulation=True,
        )  # fmt: skip
        curves = {term: result.column(term) for term in ("CLIP_KL", "CLIP_BOUND", "ACCUMULATION_BOUND")}
        curves["AR_STEP_BOUND"] = (float(result.terms.ie) + np.cumsum(result.column("AR_STEP"))).tolist()
        rows = [(k, term, value) for term, values in curves.items() for k, value in enumerate(values, start=1)]
        return pd.DataFrame(rows, columns=["k", "term", "value"])

    return run_cells("accumulation", cells, compute, folder, progress=progress)


def memory(size: Size, folder: Path, progress: bool = True) -> pd.DataFrame:
    """Σ MB and the last clip's KL against the number of references, for videos of long and short memory."""
    cells = [
        {"video": video, "references": m}
        for video in ("AR(1) 0.8", "reference", "hidden state", "long memory", "needle")
        for m in range(size.sweep + 4)
    ]

    def compute(cell: Cell) -> pd.DataFrame:
        plan = outpainting(2, References.last(cell["references"]), 10, 10)
        result = ledger(GAUSSIAN_VIDEOS[cell["video"]](), plan, 6, girsanov=False)
        return _tidy(_totals(result, "mb", "kl") | {"clip_kl": result.column("CLIP_KL")[-1]})

    return run_cells("memory", cells, compute, folder, progress=progress)


_LASTING: dict[str, Callable[[], GaussianVideo]] = {
    "AR(1) 0.8": GAUSSIAN_VIDEOS["AR(1) 0.8"],
    "hidden state": GAUSSIAN_VIDEOS["hidden state"],
    "period of 7, damped": lambda: damped_period(0.95),
    "pixels 8x8, a pixel": GAUSSIAN_VIDEOS["pixels 8x8"],
    "reference": reference_video,
}


def rates_of_memory(size: Size, folder: Path, progress: bool = True) -> pd.DataFrame:
    """Rates at the infinite horizon, in nats a frame (or a pixel), against the number of references.

    Where there is none the value is NaN, with the reason in ``note``.
    """
    plans = {"outpainting, w = 2": lambda m: outpainting(2, References.last(m), 10, 10),
             "FIFO, w = 4": lambda m: fifo(4, References.last(m), 10, 10)}  # fmt: skip
    cells = [
        {"plan": plan, "video": video, "references": m}
        for plan in plans
        for video in _LASTING
        for m in range(size.sweep + 2)
    ]

    def compute(cell: Cell) -> pd.DataFrame:
        video = _LASTING[cell["video"]]()
        try:
            found = rates(video, plans[cell["plan"]](cell["references"])).to_dict()
        except ValueError as error:
            return pd.DataFrame([("kl", math.nan, str(error))], columns=["quantity", "value", "note"])
        pixels = float(video.multiplicity.sum())
        rows = [(name, found[name], "") for name in ("mb", "floor", "ar_step", "kl") if found[name] is not None]
        return pd.DataFrame(rows, columns=["quantity", "value", "note"]).assign(value=lambda t: t.value / pixels)

    return run_cells("rates", cells, compute, folder, progress=progress)


def context_noise(size: Size, folder: Path, progress: bool = True) -> pd.DataFrame:
    """The context-noise sweep: drift, memory bottleneck and clean KL against the context's noise level ρ."""
    levels = [0.0, *np.geomspace(0.005, 2.0, 2 * size.sweep)]
    cells = [{"level": float(level)} for level in levels]

    def compute(cell: Cell) -> pd.DataFrame:
        plan = outpainting(2, References.last(3, cell["level"]), 40, 40, 8.0)
        result = ledger(exponential_video(0.95), plan, 12, girsanov=False)
        clips = result.column("CLIP_KL")
        ends = {"clip_first": clips[0], "clip_last": clips[-1], "drift": clips[-1] - clips[0]}
        return _tidy(ends | {"mb_last": result.column("MB")[-1]} | _totals(result, "mb", "kl"))

    return run_cells("dial", cells, compute, folder, progress=progress)


def lemma(size: Size, folder: Path, progress: bool = True) -> pd.DataFrame:
    """The impossibility lemma on random finite and Gaussian laws with random kernels: cost against MB."""
    cells = [
        {"law": law, "batch": batch} for law in ("finite", "Gaussian") for batch in range(max(1, size.laws // 20))
    ]

    def compute(cell: Cell) -> pd.DataFrame:
        rng = np.random.default_rng([cell["batch"], cell["law"] == "finite"])
        rows = []
        for _ in range(20):
            if cell["law"] == "finite":
                shape = tuple(int(n) for n in rng.integers(2, 5, 3))
                weights = rng.dirichlet(np.full(np.prod(shape), rng.choice([0.1, 0.5, 2.0])))
                law = FiniteLaw(weights.reshape(shape) / weights.sum(), ("past", "in", "out"))
                own = check_lemma(law, "past", "in", "out").minimiser
                noise = rng.dirichlet(np.ones(shape[2]), shape[1])
                check = check_lemma(law, "past", "in", "out", own + rng.uniform() ** 2 * (noise - own))
                rows.append((check.memory_bottleneck, check.cost, check.excess, check.holds))
            else:
                root = rng.normal(size=(6, 6))
                covariance = torch.from_numpy(root @ root.T / 6 + 0.1 * np.eye(6))
                mean = torch.zeros(6, dtype=torch.float64)
                parts = (range(2), range(2, 4), range(4, 6))
                best = check_gaussian_lemma(covariance, mean, *parts).minimiser
                worse = torch.from_numpy(rng.normal(size=(2, 2))) * rng.uniform() ** 3
                kernel = type(best)(best.gain + worse, best.bias, best.noise * (1 + rng.uniform()))
                gaussian = check_gaussian_lemma(covariance, mean, *parts, kernel)
                rows.append(
                    (
                        float(gaussian.memory_bottleneck),
                        float(gaussian.cost),
                        float(gaussian.excess),
                        gaussian.holds,
                    )
                )
        return pd.DataFrame(rows, columns=["memory_bottleneck", "cost", "excess", "holds"])

    return run_cells("lemma", cells, compute, folder, progress=progress)


SWEEPS: dict[str, Callable[[Size, Path, bool], pd.DataFrame]] = {
    "methods": methods,
    "steps": steps,
    "horizon": horizon,
    "score_error": score_error,
    "accumulation": accumulation,
    "memory": memory,
    "rates": rates_of_memory,
    "dial": context_noise,
    "lemma": lemma,
    "multimodal": multimodal,
    "schedulers": schedulers,
}
"""Every sweep by the name of its table."""
