"""Finite-state videos under the ledger: its checks within Monte-Carlo error, and what a Gaussian fit would miss.

Averages over true videos carry standard errors, so a check here holds if it holds within five of them: among a
hundred checks a correct library then fails one with a probability below 1e-4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from arvdm_theory.decomposition.decoding import decoded_ledger
from arvdm_theory.decomposition.finite import estimate
from arvdm_theory.decomposition.ledger import ledger
from arvdm_theory.diffusion.scores import PerturbedScore
from arvdm_theory.experiments.record import Cell, run_cells
from arvdm_theory.experiments.verify.run import Relation, Size
from arvdm_theory.laws.chains import MarkovChain, sticky_chain
from arvdm_theory.laws.emission import Codebook, GaussianRegimes
from arvdm_theory.laws.finite import FiniteStateVideo
from arvdm_theory.laws.gaussian import ArrayVideo
from arvdm_theory.laws.sampled_information import sampled_information
from arvdm_theory.laws.states import State
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.references import References

__all__ = [
    "FINITE_PLANS",
    "FINITE_SWEEPS",
    "FINITE_VIDEOS",
    "finite_checks",
    "moment_matched",
    "multimodal",
    "walker",
]

ERRORS_ALLOWED = 5.0
"""Standard errors within which a check must hold."""

_SAMPLES = 600
_CLOUD = 600


def _table(values: Sequence[Any]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _circle(places: int) -> Tensor:
    angle = 2 * math.pi * torch.arange(places, dtype=torch.float64) / places
    return torch.stack([torch.cos(angle), torch.sin(angle)], -1)


def walker(places: int = 6, keep: float = 0.92) -> FiniteStateVideo:
    """A walker on a circle that takes one step a frame and rarely turns round: one frame does not show its way."""
    here = torch.arange(places)
    transition = torch.full((places,) * 3, 0.0, dtype=torch.float64)
    transition[:, here, (here + 1) % places] = 0.5  # after two frames that cannot follow each other
    transition[:, here, (here - 1) % places] = 0.5
    for way in (1, -1):
        before = (here - way) % places
        transition[before, here, (here + way) % places] = keep
        transition[before, here, before] = 1 - keep
    initial = torch.zeros(places, places, dtype=torch.float64)
    for way in (1, -1):
        initial[here, (here + way) % places] = 0.5 / places
    return FiniteStateVideo(MarkovChain(transition, initial), Codebook(_circle(places)), name="walker on a circle")


def _poses() -> FiniteStateVideo:
    """The least multi-modal video: two states."""
    return FiniteStateVideo(sticky_chain(2, 0.9), Codebook(_table([[-1.0], [1.0]])), name="two poses")


def _hidden() -> FiniteStateVideo:
    """Three hidden states that show one of two noisy pictures."""
    emission = _table([[0.95, 0.05], [0.5, 0.5], [0.1, 0.9]])
    pictures = Codebook(_table([[-1.0], [1.0]]), 0.1)
    return FiniteStateVideo(sticky_chain(3, 0.85), pictures, emission, name="hidden Markov")


def _switching() -> FiniteStateVideo:
    """Two Gaussian regimes, one of them flat and one long."""
    spread = _table([[[0.3, 0.2], [0.2, 0.4]], [[0.05, 0.0], [0.0, 0.9]]])
    regimes = GaussianRegimes(_table([[-0.8, 0.0], [0.8, 0.3]]), spread)
    return FiniteStateVideo(sticky_chain(2, 0.9), regimes, name="switching Gaussian")


FINITE_VIDEOS: dict[str, Callable[[], FiniteStateVideo]] = {
    "two poses": _poses,
    "walker on a circle": walker,
    "hidden Markov": _hidden,
    "switching Gaussian": _switching,
}
"""Finite-state videos by name."""


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


Check = tuple[str, float, Relation, float, float]
"""Name, value, relation, bound, and the standard error of their difference."""


def _sampled_checks(video: FiniteStateVideo, plan: Plan, ar_steps: int, error: float) -> Iterator[Check]:
    result = ledger(video, plan, ar_steps, PerturbedScore(error), samples=_SAMPLES)
    terms = result.terms
    split, direct = (terms.de + terms.see + terms.cross).sum((-2, -1)), terms.direct.sum((-2, -1))
    both = estimate(split - direct)[1]  # on the same videos: the error of the difference itself
    yield "DE + SEE + CROSS = E log P/Q", float(split.mean()), "=", float(direct.mean()), both
    bottleneck, spread = estimate(terms.mb.sum(-1))
    yield "0 ≤ Σ MB", 0.0, "<=", bottleneck, spread
    yield "0 ≤ path terms", 0.0, "<=", *estimate(terms.ar_path.sum(-1))


def _decoded_checks(video: FiniteStateVideo, plan: Plan, ar_steps: int, error: float) -> Iterator[Check]:
    result = decoded_ledger(video, plan, ar_steps, PerturbedScore(error), samples=_SAMPLES, rollouts=_SAMPLES)
    lower, states, trajectory = (result.totals[name] or 0.0 for name in ("lower_bound", "kl", "trajectory_kl"))
    errors = result.stderr
    yield "IE + Σ MB ≤ KL(states)", lower, "<=", states, errors["kl"]
    both = math.hypot(errors["kl"], errors["trajectory_kl"])
    yield "KL(states) ≤ KL(trajectory)", states, "<=", trajectory, both
    rows = (result.table[result.table.term == term] for term in ("CLIP_KL", "CLIP_BOUND"))
    clips, bounds = (list(zip(part.value.tolist(), part.stderr.tolist(), strict=True)) for part in rows)
    clip, bound = max(zip(clips, bounds, strict=True), key=lambda both: both[0][0] - both[1][0])
    yield "KL(clip) ≤ K-fold bound", clip[0], "<=", bound[0], math.hypot(clip[1], bound[1])
    exact, generator = sum(result.column("MB")), torch.Generator().manual_seed(0)
    value, squared = 0.0, 0.0
    for k in range(1, ar_steps + 1):
        known = {r.frame for r in plan.references_at(k)}
        places = (plan.window_frames(k), set(range(plan.frames_out(k))) - known, known)
        out, past, given = ([State(frame, 0.0) for frame in sorted(frames)] for frames in places)
        sampled = sampled_information(video, out, past, given, 4 * _SAMPLES, generator)
        value, squared = value + sampled.value, squared + sampled.stderr**2
    yield "Σ MB of states: exact = sampled", value, "=", exact, math.sqrt(squared)


def _check_cell(cell: Cell) -> pd.DataFrame:
    video = FINITE_VIDEOS[cell["video"]]()
    plan = FINITE_PLANS[cell["plan"]](cell["reverse_steps"], cell["init_steps"])
    arguments = (video, plan, cell["ar_steps"], cell["score_error"])
    checks = list(_sampled_checks(*arguments))
    if video.emission is None and video.shows_symbols and not (plan.overlapping or plan.references.noised):
        checks += _decoded_checks(*arguments)
    rows = []
    for name, value, relation, bound, error in checks:
        room = ERRORS_ALLOWED * error + 1e-9  # checks that are exact hold to rounding
        slack = room + (bound - value if relation == "<=" else -abs(bound - value))
        rows.append(("check", name, value, relation, bound, slack, slack >= 0, error))
    names = ["kind", "term", "value", "relation", "bound", "slack", "passed", "stderr"]
    return pd.DataFrame(rows, columns=names)


def finite_checks(size: Size, folder: Path, progress: bool = True) -> pd.DataFrame:
    """Checks of finite-state videos, a row a (cell, check), saved as ``finite_checks.csv`` in ``folder``.

    The columns are those of :func:`arvdm_theory.experiments.verify.run.bound_checks` and the standard error of the
    difference of value and bound; ``slack`` counts the :data:`ERRORS_ALLOWED` standard errors in.
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
_TERMS = ("nie_ar", "de", "see", "cross", "mb")


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
        sampled = ledger(video, plan, ar_steps, PerturbedScore(0.15), samples=2 * _SAMPLES)
        exact = ledger(gaussian, plan, ar_steps, PerturbedScore(0.15), girsanov_points=0)
        rows = [
            (law, name, result.totals[name], result.stderr.get(name, 0.0), 0)
            for law, result in (("multi-modal", sampled), ("Gaussian", exact))
            for name in _TERMS
        ]
        rows.append(("multi-modal", "total", *estimate((sampled.terms.ar_path + sampled.terms.mb).sum(-1)), 0))
        return pd.DataFrame(rows, columns=["law", "quantity", "value", "stderr", "sample"])

    return run_cells("multimodal", cells, compute, folder, progress=progress)


def _cloud(video: FiniteStateVideo, gaussian: ArrayVideo) -> pd.DataFrame:
    generator, floor = torch.Generator().manual_seed(0), 0.02
    clean = {
        "multi-modal": video.sample(_CLOUD, 1, generator).frames[:, 0],
        "Gaussian": gaussian.sample(_CLOUD, 1, generator).reshape(_CLOUD, -1),
    }
    rows = []
    for law, frames in clean.items():
        noise = torch.randn(frames.shape, generator=generator, dtype=torch.float64)
        seen = math.exp(-floor / 2) * frames + math.sqrt(-math.expm1(-floor)) * noise
        for i, values in enumerate(np.asarray(seen).tolist()):
            rows += [(law, f"entry {j + 1}", value, 0.0, i) for j, value in enumerate(values)]
    return pd.DataFrame(rows, columns=["law", "quantity", "value", "stderr", "sample"])


FINITE_SWEEPS: dict[str, Callable[[Size, Path, bool], pd.DataFrame]] = {"multimodal": multimodal}
"""Every sweep by the name of its table."""
