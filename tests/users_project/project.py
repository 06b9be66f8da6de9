"""A user's project as it might look, checked with mypy's strict rules against the installed package's own types.

A law of one's own (a coin that is remembered for ever), a plan, a network, the ledger, a rollout and the lemma.
Run as it is: ``python project.py``.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Generator, Tensor

from arvdm_theory import (
    ArrayVideo,
    NetworkScore,
    Plan,
    ReferenceBatch,
    References,
    Result,
    VideoBatch,
    VideoLaw,
    check_lemma,
    estimate_information,
    generate,
    ledger,
)
from arvdm_theory.laws.evidence import Evidence

FRAMES = 4


class Coin(VideoLaw):
    """One of two AR(1) videos, by the throw of a coin: what the coin said is remembered for ever."""

    def __init__(self, heads: float = 0.35) -> None:
        self.frame_dim, self.length, self.name = 1, FRAMES, "coin"
        lag = np.abs(np.subtract.outer(np.arange(FRAMES), np.arange(FRAMES)))
        self.parts = [
            ArrayVideo(0.4 * persistence**lag, 1, np.full(FRAMES, mean))
            for persistence, mean in ((0.9, 1.0), (-0.4, -0.6))
        ]
        self.weights = torch.tensor([heads, 1 - heads], dtype=torch.float64)

    def draw(self, videos: int, frames: int, generator: Generator) -> VideoBatch:
        """True videos: the coin first, then the video that it chose."""
        coin = torch.rand(videos, dtype=torch.float64, generator=generator) < self.weights[0]
        first, second = (part.draw(videos, frames, generator).frames for part in self.parts)
        return VideoBatch(torch.where(coin[:, None, None], first, second))

    def log_density(self, window: Evidence, given: Evidence | None = None) -> Tensor:
        """log p(window | given), of a mixture: a difference of two logarithms of sums."""

        def joint(evidence: Evidence) -> Tensor:
            logs = torch.stack([part.log_density(evidence) for part in self.parts], -1)
            return torch.logsumexp(logs + self.weights.log(), -1)

        return joint(window) if given is None or given.empty else joint(window + given) - joint(given)


def network(window: Tensor, levels: Tensor, references: ReferenceBatch, actions: Tensor | None) -> Tensor:
    """x̂ of a network that has learnt nothing but to shrink."""
    return 0.5 * window


PLAN = Plan((3.0,), 1, 3.0, 4, 4, references=References.last(1), floor=0.3)


def main() -> None:
    """Prints what each of the three questions is answered with."""
    result: Result = ledger(Coin(), PLAN, 2, samples=200, seed=0)
    print(f"Σ MB = {result.totals['mb']}")
    made: Tensor = generate(NetworkScore(network, prediction="x0"), PLAN, 2, videos=5, frame_dim=1, seed=0)
    print("generated", tuple(made.shape))
    joint = np.full((2, 2, 2), 1 / 8)
    print("lemma holds:", check_lemma(joint, [0], [1], [2]).holds)
    x = np.random.default_rng(0).normal(size=(300, 1))
    print("information:", estimate_information(x, x[::-1].copy(), seed=0).value)


if __name__ == "__main__":
    main()
