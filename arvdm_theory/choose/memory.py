"""Which past frames an AR step should hold, and how finely, under a budget of frames or of nats.

With A = Cov(Past | Input) and B = Cov(Past | Input, Output) of a Gaussian video, Input being the noisy window
alone, holding the frames S leaves MB(S) = I(Output; Past | Input) - f(S) of the bottleneck, with

    f(S) = I(Output; X_S | Input) = ½ (log det A_SS - log det B_SS).

f never falls when frames are added, but it is *not* submodular in general: two frames may tell together what
neither tells alone. So what a greedy choice is worth is certified, not assumed. Four upper bounds on f of the best
m frames:

- everything: f of all frames;
- so many numbers: of any m·d linear statistics of the past, Σ of the m·d largest ½ log(1/(1 - ρ_i²)), ρ_i the
  canonical correlations of Past and Output given Input (Poincaré separation); it holds for compressed ones too;
- chain rule: for any G, f(S*) ≤ f(G) + the m largest of u_j = h(X_j | Input, X_G) - h(X_j | Input, Output, all
  other past), because I(Output; X_T | Input, X_G) = h(X_T | Input, X_G) - h(X_T | Input, X_G, Output), where the
  first is at most the sum of the first terms over T and the second at least that of the second ones;
- submodularity ratio (Das and Kempe 2011): greedy's m frames G have f(S*) ≤ f(G)/(1 - e^{-γ}), with
  γ ≥ λ_min(D^{-½} B D^{-½}), D the diagonal blocks of A. Proof: scale frames so that D = I, and let E = A - B be
  what the output explains, all given X_S. Then I(Output; X_T | S) = ½ log det(I + B^{-½} E B^{-½}) ≤
  ½ tr E_T/λ_min(B), as a Schur complement's smallest eigenvalue is at least the whole's; and
  Σ_j I(Output; X_j | S) ≥ ½ Σ_j tr(A_jj|S^{-1} E_jj) ≥ ½ tr E_T, as A_jj|S ≤ I. ∎

A budget of nats is I(memory; Past | Input) ≤ R: no memory, linear or not, leaves less than the Gaussian
information bottleneck does (:mod:`arvdm_theory.bounds.information_bottleneck`). What a plan can hold is frames,
each at its own level of noise; the best such levels are found by descent.

Sources: Das and Kempe 2011, "Submodular meets spectral"; Nemhauser, Wolsey and Fisher 1978; Chechik et al. 2005.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize
from torch import Tensor

from arvdm_theory.bounds.information_bottleneck import MemoryFrontier, gaussian_memory_frontier
from arvdm_theory.information.gaussian import cholesky, condition, log_det
from arvdm_theory.laws.gaussian import GaussianVideo
from arvdm_theory.laws.states import State, frame_indices
from arvdm_theory.plan.plan import Plan

__all__ = ["FAMILIES", "MemoryChoice", "Selection", "frame_frontier", "nats_frontier"]

FAMILIES = ("best", "last", "sink and window", "window and every s-th")
"""Rules that pick frames; the last two with their best split."""

# Selections that are looked at one and all; beyond, frames are added greedily and exchanged.
_EXHAUSTIVE = 300_000
_BATCH = 2048
# A frame at more than so many nats a unit of its variance is taken to be clean: level e^{-2 · 9}.
_CLEAN = 9.0


@dataclass(frozen=True)
class Selection:
    """Frames to hold.

    Attributes:
        lags: which, 1 being the newest frame that is out.
        mb: the bottleneck that is left, in nats.
        bound: what no selection of as many frames leaves less than; ``mb`` itself where all were looked at.
        certificate: which bound that is.
    """

    lags: tuple[int, ...]
    mb: float
    bound: float
    certificate: str


@dataclass(frozen=True, eq=False)
class MemoryChoice:
    """What the past of an AR step tells of its output, given the noisy window; what to hold is chosen here.

    Attributes:
        frame_dim: d.
        multiplicity: how often each mode occurs, (modes,).
        past: n, how many frames are out.
        prior: A = Cov(Past | Input), newest frame first, (modes, n·d, n·d).
        joint: Cov((Past, Output) | Input), (modes, n·d + o, n·d + o).
    """

    frame_dim: int
    multiplicity: Tensor
    past: int
    prior: Tensor
    joint: Tensor

    @classmethod
    def of(cls, video: GaussianVideo, plan: Plan, ar_step: int, most: int | None = None) -> MemoryChoice:
        """That of AR step k of a plan, whose own references do not matter.

        Args:
            video: the Gaussian video.
            plan: the plan.
            ar_step: k.
            most: how many of the newest frames there are to choose among; all that are out, if left out.

        Raises:
            ValueError: if no frame is out, or the video has too few or has actions.
            NotPositiveDefiniteError: if a covariance is not positive definite.
        """
        if video.action_dim:
            raise ValueError("memories are chosen for videos without actions")
        stage = plan.stage(ar_step)
        out = plan.frames_out(ar_step)
        if ar_step < 1 or out < 1:
            raise ValueError(f"before AR step {ar_step} no frame is out that could be held")
        if most is not None and most < 1:
            raise ValueError(f"at least one frame to choose among is needed, got {most}")
        count = out if most is None else min(most, out)
        levels = stage.levels.tolist()
        states = [State(out - lag, plan.floor) for lag in range(1, count + 1)]
        states += [State(stage.frames[j], levels[-1][j]) for j in stage.output]
        shown = [State(stage.frames[j], levels[0][j]) for j in range(stage.kept)]
        _, covariance = video.joint([*states, *shown])
        d = video.frame_dim
        kept = frame_indices(range(len(states)), d)
        _, joint = condition(covariance, kept, frame_indices(range(len(states), len(states) + len(shown)), d))
        n = count * d
        return cls(d, video.multiplicity, count, joint[:, :n, :n], joint)

    @cached_property
    def posterior(self) -> Tensor:
        """B = Cov(Past | Input, Output), (modes, n·d, n·d)."""
        n = self.prior.shape[-1]
        return condition(self.joint, range(n), range(n, self.joint.shape[-1]))[1]

    @cached_property
    def total(self) -> float:
        """I(Output; Past | Input): the bottleneck with nothing held."""
        return self.information(range(1, self.past + 1))

    def information(self, lags: Sequence[int]) -> float:
        """f(S) = I(Output; the frames of these lags | Input)."""
        return float(self._information(torch.tensor([sorted(lags)], dtype=torch.long))[0]) if len(lags) else 0.0

    def _information(self, lags: Tensor) -> Tensor:
        """f of many selections (batch, m) at once."""
        d = self.frame_dim
        index = ((lags - 1)[..., None] * d + torch.arange(d)).flatten(1).to(self.prior.device)
        values = []
        for part in torch.split(index, _BATCH):
            rows, columns = part[:, :, None], part[:, None, :]
            logs = [
                log_det(cholesky(cov[:, rows, columns], "covariance of past frames"))
                for cov in (self.prior, self.posterior)
            ]
            values.append(0.5 * (self.multiplicity[:, None] * (logs[0] - logs[1])).sum(0))
        return torch.cat(values)

    # -- under a budget of frames ------------------------------------------------------------------------

    def select(self, frames: int, exhaustive: int = _EXHAUSTIVE) -> Selection:
        """The best ``frames`` frames: of all selections if they are few, else greedily, exchanged, and certified.

        Raises:
            ValueError: for a budget that is negative or more than there are frames.
        """
        if not 0 <= frames <= self.past:
            raise ValueError(f"of {self.past} frames that are out 0 to {self.past} can be held, not {frames}")
        if math.comb(self.past, frames) <= exhaustive:
            every = torch.tensor(list(itertools.combinations(range(1, self.past + 1), frames)), dtype=torch.long)
            best = every[int(self._information(every).argmax())] if frames else every[0]
            lags = tuple(best.tolist())
            left = self.total - self.information(lags)
            return Selection(lags, left, left, "all selections")
        order = self.greedy(frames)
        lags = self._exchanged(order)
        upper, certificate = self.certificate(order)
        return Selection(lags, self.total - self.information(lags), self.total - upper, certificate)

    def greedy(self, frames: int) -> tuple[int, ...]:
        """Lags in the order in which they add most."""
        held: list[int] = []
        for _ in range(frames):
            left = [lag for lag in range(1, self.past + 1) if lag not in held]
            values = self._information(torch.tensor([sorted([*held, lag]) for lag in left]))
            held.append(left[int(values.argmax())])
        return tuple(held)

    def _exchanged(self, lags: Sequence[int]) -> tuple[int, ...]:
        """Single exchanges for as long as one is better."""
        held, value = sorted(lags), self.information(lags)
        while True:
            others = [lag for lag in range(1, self.past + 1) if lag not in held]
            swaps = [sorted([*held[:i], *held[i + 1 :], lag]) for i in range(len(held)) for lag in others]
            if not swaps:
                return tuple(held)
            values = self._information(torch.tensor(swaps))
            best = int(values.argmax())
            if not float(values[best]) > value * (1 + 1e-12):
                return tuple(held)
            held, value = swaps[best], float(values[best])

    def certificate(self, order: Sequence[int]) -> tuple[float, str]:
        """The least upper bound on f of the best m = len(order) frames, and its name; ``order`` is greedy's."""
        m = len(order)
        chains = min(self._chain_bound(order[:i], m) for i in range(m + 1))
        ratio = self.submodularity_ratio
        found = {
            "everything": self.total,
            "so many numbers": self.numbers_bound(m),
            "chain rule": chains,
            "submodularity ratio": self.information(order) / -math.expm1(-ratio) if ratio > 0 else math.inf,
        }
        name = min(found, key=found.__getitem__)
        return found[name], name

    def numbers_bound(self, frames: int) -> float:
        """What the best ``frames``·d linear statistics of the past tell: no memory of so many numbers beats it."""
        odds = self._frontier.log_odds[:, : frames * self.frame_dim]
        return float(0.5 * (self.multiplicity[:, None] * torch.log1p(torch.exp(odds))).sum())

    def _chain_bound(self, held: Sequence[int], frames: int) -> float:
        d, n = self.frame_dim, self.past
        index = frame_indices([lag - 1 for lag in held], d)
        _, given = condition(self.prior, range(n * d), index)
        precision = torch.cholesky_inverse(cholesky(self.posterior, "covariance of the past"))
        gains = []
        for j in range(n):
            if j + 1 in held:
                continue
            own = slice(j * d, (j + 1) * d)
            # Given all others, a frame's covariance is the inverse of its block of the precision.
            above = log_det(cholesky(given[:, own, own])) + log_det(cholesky(precision[:, own, own]))
            gains.append(float(0.5 * (self.multiplicity * above).sum()))
        return self.information(held) + sum(sorted(gains, reverse=True)[:frames])

    @cached_property
    def submodularity_ratio(self) -> float:
        """λ_min(D^{-½} B D^{-½}) ≤ γ: how nearly f is submodular at least; 1 for independent frames told of."""
        d, n = self.frame_dim, self.past
        scaled = self.posterior
        half = torch.zeros_like(scaled)
        for j in range(n):
            own = slice(j * d, (j + 1) * d)
            factor = cholesky(self.prior[:, own, own], "covariance of a past frame")
            eye = torch.eye(d, dtype=factor.dtype, device=factor.device).expand_as(factor)
            half[:, own, own] = torch.linalg.solve_triangular(factor, eye, upper=False)
        return float(torch.linalg.eigvalsh(half @ scaled @ half.mT).min())

    # -- under a budget of nats --------------------------------------------------------------------------

    @cached_property
    def _frontier(self) -> MemoryFrontier:
        n = self.prior.shape[-1]
        return gaussian_memory_frontier(self.joint, list(range(n)), [], list(range(n, self.joint.shape[-1])))

    def floor(self, nats: float) -> float:
        """The least bottleneck that any memory of so many nats leaves, over all modes together.

        Raises:
            ValueError: for a budget that is negative or not finite.
        """
        return float(self._together(self._frontier).remaining(nats))

    def lag_frontier(self, lag: int, nats: Sequence[float]) -> list[float]:
        """What a memory of R nats of one frame alone tells of the output at most, for each R.

        Args:
            lag: of the frame.
            nats: R.
        """
        d, n = self.frame_dim, self.prior.shape[-1]
        own = list(range((lag - 1) * d, lag * d))
        frontier = self._together(
            gaussian_memory_frontier(self.joint, own, [], list(range(n, self.joint.shape[-1])))
        )
        told: list[float] = (frontier.remaining(0.0) - frontier.remaining(list(nats))).tolist()
        return told

    def _together(self, frontier: MemoryFrontier) -> MemoryFrontier:
        """The canonical variables of all modes as those of one law."""
        odds = frontier.log_odds.repeat_interleave(self.multiplicity.round().long(), 0).flatten()
        odds = odds.sort(descending=True).values
        return MemoryFrontier(odds, odds.new_zeros(len(odds), 0))

    def noised(self, precisions: Tensor) -> tuple[Tensor, Tensor]:
        """What noised frames tell, and what they cost: I(Output; h | Input) and I(h; Past | Input), in nats.

        h_j = X_j + p_j^{-½} ε: p_j = 0 is a frame that is not held. Differentiable.

        Args:
            precisions: p, newest frame first, (n,).
        """
        root = torch.sqrt(precisions + 0.0).repeat_interleave(self.frame_dim)
        eye = torch.eye(len(root), dtype=root.dtype, device=root.device)
        logs = [
            (self.multiplicity * log_det(cholesky(eye + root[:, None] * cov * root))).sum() / 2
            for cov in (self.prior, self.posterior)
        ]
        return logs[0] - logs[1], logs[0]

    def compress(self, nats: float) -> tuple[tuple[float, ...], float]:
        """The best levels of the held frames whose cost is at most ``nats``: levels by lag, and what is left.

        A level is that of the references of a plan, log(1 + 1/p); a frame that is not held has level infinity.
        A descent from several starts (sequential quadratic programming): better levels may exist.

        Raises:
            ValueError: for a budget that is not positive and finite.
        """
        if not 0 < nats < math.inf:
            raise ValueError(f"a budget of nats must be positive and finite, got {nats}")
        n = self.past

        def both(rates: NDArray[np.float64]) -> tuple[Tensor, Tensor, Tensor]:
            free = torch.from_numpy(np.clip(rates, 0.0, _CLEAN)).requires_grad_()
            # p = e^{2r} - 1, and its root's slope is infinite at 0: kept a hair above.
            told, cost = self.noised(torch.expm1(2 * free) + 1e-14)
            return free, told, cost

        def value(rates: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            free, told, _ = both(rates)
            return -float(told.detach()), -torch.autograd.grad(told, free)[0].numpy()

        def room(rates: NDArray[np.float64]) -> float:
            return nats - float(both(rates)[2].detach())

        def room_slope(rates: NDArray[np.float64]) -> NDArray[np.float64]:
            free, _, cost = both(rates)
            slope: NDArray[np.float64] = -torch.autograd.grad(cost, free)[0].numpy()
            return slope

        def within(direction: NDArray[np.float64]) -> NDArray[np.float64]:
            """As far along a direction as the budget goes."""
            if room(_CLEAN * direction) >= 0:
                return _CLEAN * direction
            return direction * brentq(lambda s: room(s * direction), 0.0, _CLEAN, xtol=1e-12)

        order = self.greedy(min(n, 4))
        starts = [np.ones(n), np.eye(n)[order[0] - 1]]
        starts += [sum(np.eye(n)[lag - 1] for lag in order)]
        best, found = -math.inf, np.zeros(n)
        for start in starts:
            solved = minimize(
                value, within(start) * 0.98 + 1e-3, jac=True, method="SLSQP", bounds=[(0.0, _CLEAN)] * n,
                constraints={"type": "ineq", "fun": room, "jac": room_slope},
                options={"maxiter": 200, "ftol": 1e-12},
            )  # fmt: skip
            for candidate in (solved.x, within(start)):
                at = np.clip(candidate, 0.0, _CLEAN)
                if room(at) < 0:  # a hair outside: scaled back onto the budget
                    at = within(at / max(at.max(), 1e-300))
                told = -value(at)[0]
                if told > best:
                    best, found = told, at
        precision = np.expm1(2 * np.where(found > 1e-5, found, 0.0))
        levels = [math.inf if p == 0 else math.log1p(1 / p) for p in precision]
        return tuple(levels), self.total - float(self.noised(torch.from_numpy(precision))[0])


def frame_frontier(choice: MemoryChoice, most: int) -> pd.DataFrame:
    """The bottleneck that 0..``most`` held frames leave, by each of :data:`FAMILIES`.

    Returns:
        a row a (family, number of frames): ``mb`` that is left, ``lags`` held (newest is 1, blanks between),
        ``floor`` (no memory of so many numbers leaves less), ``bound`` (no selection of so many frames does) and
        the ``certificate`` of that.

    Raises:
        ValueError: for a budget that is negative or more than there are frames.
    """
    rows = []
    for frames in range(most + 1):
        best = choice.select(frames)
        floor = max(choice.total - choice.numbers_bound(frames), 0.0)
        for family in FAMILIES:
            if family == "best":
                lags, left = best.lags, best.mb
            else:
                candidates = _family(family, frames, choice.past)
                told = [choice.information(lags) for lags in candidates]
                chosen = int(np.argmax(told))
                lags, left = candidates[chosen], choice.total - told[chosen]
            rows.append({
                "family": family, "frames": frames, "mb": left, "lags": " ".join(map(str, lags)), "floor": floor,
                "bound": best.bound, "certificate": best.certificate,
            })  # fmt: skip
    return pd.DataFrame(rows)


def _family(family: str, frames: int, past: int) -> list[tuple[int, ...]]:
    """The selections of a family; the last frames are one of each."""
    found = [tuple(range(1, frames + 1))]
    if family == "sink and window":
        for sink in range(1, frames + 1):
            found.append((*range(1, frames - sink + 1), *range(past - sink + 1, past + 1)))
    if family == "window and every s-th":
        for window, step in itertools.product(range(frames), range(2, past + 1)):
            lags = (*range(1, window + 1), *(window + step * i for i in range(1, frames - window + 1)))
            if lags[-1] <= past:
                found.append(lags)
    return found


def nats_frontier(choice: MemoryChoice, budgets: Sequence[float]) -> pd.DataFrame:
    """The bottleneck that memories of so many nats leave.

    Returns:
        a row a budget: ``budget`` in nats, ``floor`` (no memory of so many nats leaves less), ``mb`` of the best
        noised frames that were found, and ``levels``, those of lag 1, 2, ... (blanks between; ``-``: not held).

    Raises:
        ValueError: for a budget that is not positive and finite.
    """
    rows = []
    for budget in budgets:
        levels, left = choice.compress(budget)
        told = " ".join("-" if math.isinf(level) else f"{level:.3g}" for level in levels)
        rows.append({"budget": budget, "floor": choice.floor(budget), "mb": left, "levels": told})
    return pd.DataFrame(rows)
