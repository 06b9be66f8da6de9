"""Finite-state videos under the ledger: checks within Monte-Carlo error, and what a Gaussian fit would miss."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import torch

from arvdm_theory.decomposition.decoding import decoded_ledger
from arvdm_theory.decomposition.ledger import ledger_terms
from arvdm_theory.decomposition.terms import LedgerTerms
from arvdm_theory.diffusion.scores import PerturbedScore
from arvdm_theory.experiments.record import Cell, run_cells
from arvdm_theory.experiments.verify.cases import Size
from arvdm_theory.experiments.verify.checks import Check, judged
from arvdm_theory.experiments.videos import FINITE_VIDEOS, walker
from arvdm_theory.laws.finite import FiniteStateVideo
from arvdm_theory.laws.gaussian import ArrayVideo
from arvdm_theory.laws.sampled_information import sampled_information
from arvdm_theory.laws.states import State
from arvdm_theory.noise import noised
from arvdm_theory.number import Number
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.references import References

__all__ = ["FINITE_PLANS", "finite_checks", "moment_matched", "multimodal"]

_SAMPLES = 600
_CLOUD = 600


def _stopped(levels: tuple[float, ...], stride: int, m: int, n: int, references: References) -> Plan:
    return Plan(levels, stride, levels[-1], m, n, references=references, floor=0.02, spacing="geometric")


FINITE_PLANS: dict[str, Callable[[int, int], Plan]] = {
    "outpainting, last 1": lambda m, n: _stopped((5.0, 5.0), 2, m, n, References.last(1)),
    "outpainting, first 1": lambda m, n: _stopped((5.0, 5.0), 2, m, n, References.first(1)),
    "outpainting, last 2 noised": lambda m, n: _stopped((5.0, 5.0), 2, m, n, References.last(2, 0.3)),
    "FIFO, last 2": lambda m, n: _stopped((5 / 3, 10 / 3, 5.0), 1, m, n, References.last(2)),
}
"""Plans that stop at δ = 0.02 by name, from the numbers of reverse steps (AR step, initialisation)."""


def moment_matched(video: FiniteStateVideo, frames: int) -> ArrayVideo:
    """The Gaussian video with the same mean and covariance of its first ``frames`` frames, both exact.

    Raises:
        NotPositiveDefiniteError: if the pictures do not span all directions.
    """
    mean, covariance = video.known_moments(frames)
    return ArrayVideo(covariance[0], video.frame_dim, mean[0], f"{video.name}, Gaussian")


def _sampled_checks(video: FiniteStateVideo, plan: Plan, ar_steps: int, error: float) -> Iterator[Check]:
    terms = ledger_terms(video, plan, ar_steps, score=PerturbedScore(error), samples=_SAMPLES)
    split, direct, mb = (_total(terms, *names) for names in (("de", "see", "cross"), ("direct",), ("mb",)))
    # On the same videos: the error of the difference itself.
    yield Check("DE + SEE + CROSS = E log P/Q", float(split), "=", float(direct), (split - direct).stderr)
    yield Check("0 ≤ Σ MB", 0.0, "<=", float(mb), mb.stderr)
    paths = terms.ar_paths.sum()
    yield Check("0 ≤ path terms", 0.0, "<=", float(paths), paths.stderr)


def _total(terms: LedgerTerms, first: str, *others: str) -> Number:
    """Sum of these terms over all AR steps."""
    found = [terms.total(name) for name in (first, *others)]
    return Number.stack([number for number in found if number is not None]).sum()


def _decoded_checks(video: FiniteStateVideo, plan: Plan, ar_steps: int, error: float) -> Iterator[Check]:
    result = decoded_ledger(
        video, plan, ar_steps, score=PerturbedScore(error), samples=_SAMPLES, rollouts=_SAMPLES
    )
    lower, states, trajectory = (result.totals[name] or 0.0 for name in ("lower_bound", "kl", "trajectory_kl"))
    errors = result.stderr
    yield Check("IE + Σ MB ≤ KL(states)", lower, "<=", states, errors["kl"])
    both = math.hypot(errors["kl"], errors["trajectory_kl"])
    yield Check("KL(states) ≤ KL(trajectory)", states, "<=", trajectory, both)
    rows = (result.table[result.table.term == term] for term in ("CLIP_KL", "CLIP_BOUND"))
    clips, bounds = (list(zip(part.value.tolist(), part.stderr.tolist(), strict=True)) for part in rows)
    clip, bound = max(zip(clips, bounds, strict=True), key=lambda both: both[0][0] - both[1][0])
    yield Check("KL(clip) ≤ K-fold bound", clip[0], "<=", bound[0], math.hypot(clip[1], bound[1]))
    exact, generator = sum(result.column("MB")), torch.Generator().manual_seed(0)
    sampled = Number.exact(0.0)
    for stage in (plan.stage(k) for k in range(1, ar_steps + 1)):
        places = (stage.frames, stage.past, stage.reference_frames)
        out, past, given = ([State(frame, 0.0) for frame in sorted(frames)] for frames in places)
        sampled = sampled.plus_independent(sampled_information(video, out, past, given, 4 * _SAMPLES, generator))
    yield Check("Σ MB of states: exact = sampled", float(sampled), "=", exact, sampled.stderr)


def _check_cell(cell: Cell) -> pd.DataFrame:
    video = FINITE_VIDEOS[cell["video"]]()
    plan = FINITE_PLANS[cell["plan"]](cell["reverse_steps"], cell["init_steps"])
    arguments = (video, plan, cell["ar_steps"], cell["score_error"])
    checks = list(_sampled_checks(*arguments))
    if video.emission is None and video.shows_symbols and not (plan.overlapping or plan.references.noised):
        checks += _decoded_checks(*arguments)
    return judged(checks).assign(kind="check")


def finite_checks(size: Size, folder: Path, progress: bool = True) -> pd.DataFrame:
    """Checks of finite-state videos, a row a (cell, check), saved as ``finite_checks.csv`` in ``folder``.

    The columns are those of :func:`arvdm_theory.experiments.verify.checks.bound_checks`.
    """
    ar_steps, reverse_steps = min(size.ar_steps, 3), min(size.reverse_steps, 8)
    cells = [
        {"video": video, "plan": plan, "step": "exponential", "score_error": max(size.score_errors),
         "ar_steps": ar_steps, "reverse_steps": reverse_steps, "init_steps": reverse_steps}
        for video in FINITE_VIDEOS for plan in FINITE_PLANS
    ]  # fmt: skip
    return run_cells("finite_checks", cells, _check_cell, folder, progress=progress)


_METHODS: dict[str, tuple[Callable[[int], Plan], int]] = {
    "outpainting\nno reference": (lambda m: _stopped((5.0, 5.0), 2, m, m, References.none()), 3),
    "outpainting\nlast 1": (lambda m: _stopped((5.0, 5.0), 2, m, m, References.last(1)), 3),
    "outpainting\nlast 2": (lambda m: _stopped((5.0, 5.0), 2, m, m, References.last(2)), 3),
    "outpainting\nlast 2, ρ = 0.5": (lambda m: _stopped((5.0, 5.0), 2, m, m, References.last(2, 0.5)), 3),
    "FIFO\nlast 2": (lambda m: _stopped((5 / 3, 10 / 3, 5.0), 1, max(2, m // 2), m, References.last(2)), 6),
}
_TERMS = {"nie_ar": "nie", "de": "de", "see": "see", "cross": "cross", "mb": "mb"}


def multimodal(size: Size, folder: Path, progress: bool = True) -> pd.DataFrame:
    """AR terms of a multi-modal video and of its moment-matched Gaussian, for the same plans and score error.

    Rows of the method ``frames`` are the entries of sampled frames at δ, the others totals with their errors.
    """
    cells: list[Cell] = [{"method": "frames", "reverse_steps": 0}]
    cells += [{"method": name, "reverse_steps": 2 * size.reverse_steps} for name in _METHODS]

    def compute(cell: Cell) -> pd.DataFrame:
        video = walker()
        if cell["method"] == "frames":
            return _cloud(video, moment_matched(video, 1))
        build, ar_steps = _METHODS[cell["method"]]
        plan = build(cell["reverse_steps"])
        gaussian = moment_matched(video, plan.total_frames(ar_steps))
        score = PerturbedScore(0.15)
        sampled = ledger_terms(video, plan, ar_steps, score=score, samples=2 * _SAMPLES)
        exact = ledger_terms(gaussian, plan, ar_steps, score=score, girsanov=False)
        numbers = [
            (law, name, _total(terms, key))
            for law, terms in (("multi-modal", sampled), ("Gaussian", exact))
            for name, key in _TERMS.items()
        ]
        numbers.append(("multi-modal", "total", sampled.ar_paths.sum() + _total(sampled, "mb")))
        rows = [(law, name, float(number), number.stderr, 0) for law, name, number in numbers]
        return pd.DataFrame(rows, columns=["law", "quantity", "value", "stderr", "sample"])

    return run_cells("multimodal", cells, compute, folder, progress=progress)


def _cloud(video: FiniteStateVideo, gaussian: ArrayVideo) -> pd.DataFrame:
    generator, floor = torch.Generator().manual_seed(0), torch.tensor([0.02], dtype=torch.float64)
    rows = []
    for law, source in (("multi-modal", video), ("Gaussian", gaussian)):
        frames = noised(source.draw(_CLOUD, 1, generator).frames.reshape(_CLOUD, 1, -1), floor, noise=generator)
        for i, values in enumerate(frames[:, 0].tolist()):
            rows += [(law, f"entry {j + 1}", value, 0.0, i) for j, value in enumerate(values)]
    return pd.DataFrame(rows, columns=["law", "quantity", "value", "stderr", "sample"])
