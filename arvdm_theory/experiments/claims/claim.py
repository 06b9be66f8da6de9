"""What a claim is, what its verdict is, and what several of them are decided by."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from arvdm_theory.decomposition.ledger import ledger
from arvdm_theory.decomposition.result import Result
from arvdm_theory.laws.gaussian import GaussianVideo, separable_video
from arvdm_theory.plan.methods import outpainting
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.references import References

__all__ = ["PAPER", "Claim", "Numbers", "Verdict", "forgets_and_returns", "kl", "noised", "total"]

PAPER = "arXiv 2503.10704 (both versions; as reported in the project's theory page)"
"""The source of claims of the paper itself."""

Numbers = dict[str, Any]
"""What a verdict rests on, by name."""


@dataclass(frozen=True)
class Claim:
    """A claim, and what decides it.

    Attributes:
        id: its name on the command line.
        statement: the formal statement that is tested, in this project's words.
        source: who claims it, and whether that was read.
        decide: computes the verdict and the numbers behind it.
    """

    id: str
    statement: str
    source: str
    decide: Callable[[], tuple[str, Numbers]]


@dataclass(frozen=True)
class Verdict:
    """What came out; see :class:`Claim`."""

    id: str
    statement: str
    source: str
    verdict: str
    numbers: Numbers
    command: str


def kl(video: GaussianVideo, plan: Plan, ar_steps: int, **options: Any) -> Result:
    """The ledger of a video and a plan, without the Girsanov form."""
    return ledger(video, plan, ar_steps, girsanov=False, **options)


def total(result: Result, name: str) -> float:
    """A total of a ledger.

    Raises:
        ValueError: if it is not defined there; the message says why.
    """
    value = result.totals[name]
    if value is None:
        raise ValueError(f"{name} is not defined: {result.notes.get(name)}")
    return value


def forgets_and_returns() -> GaussianVideo:
    """S_ij = 0.5·0.8^|i-j| + 0.4·cos(2π(i-j)/7) + 0.1·[i = j], scalar frames: a part forgotten, a part never."""

    def correlation(lags: torch.Tensor) -> torch.Tensor:
        return 0.5 * 0.8**lags + 0.4 * torch.cos(2 * math.pi * lags / 7) + 0.1 * (lags == 0).to(lags)

    return separable_video(correlation, name="forgets and returns")


def noised(*levels: float) -> Plan:
    """w = Δ = 2, T = 8, M = 40, the references of lag 1, 2, .. noised afresh to ``levels``."""
    references = References()
    for lag in range(1, len(levels) + 1):
        references = references + References.last(lag, levels[lag - 1])
    return outpainting(2, references, 40, 40, 8.0)
