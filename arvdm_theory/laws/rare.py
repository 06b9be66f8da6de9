"""What a finite-state video rarely does: samples drawn through it on purpose, and weighted.

A run of p + 1 states (a state with what led to it) or a symbol of positive probability p_e that is expected fewer
than five times among n samples may not occur in them at all. Their spread then knows nothing of it, and if it
carries the information that is measured, the mean is wrong by far more than its standard error says. So a share λ
of the videos is drawn through one of the E rare events, each as often as the others: video z has the law

    q(z) = p(z) [1 - λ + (λ/E) Σ_e 1(e occurs in z)/p_e],

exactly, as the law of a chain given an event is a chain again. With w = p/q ≤ 1/(1 - λ), the mean of f is
estimated by m = Σ w f/Σ w, and its standard error is that of the samples w (f - m) + m, which see all rare events.

Source: Hesterberg 1995 (defensive importance sampling); Owen, Monte Carlo theory, methods and examples, chapter 9.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from arvdm_theory.information.transfer import MAX_TABLE, push
from arvdm_theory.laws.chains import draw_outcomes

if TYPE_CHECKING:
    from arvdm_theory.laws.finite import FiniteStateVideo

__all__ = ["RareEvents"]

_FEW = 5
"""An event is rare if it is expected less often than this among the samples."""
_VISITS = 32
"""How many samples are drawn through each, as long as they make up no more than half of all."""


@dataclass(frozen=True, eq=False)
class RareEvents:
    """Runs of states, and symbols, that are expected fewer than five times among the samples.

    Attributes:
        video: the video.
        laws: of p states in a row from frame s on, (F - p, S^p).
        runs: probabilities of p + 1 states in a row from frame s on, (F - p, S^{p+1}); 0 where they are not rare.
        shown: P(state a and symbol y) of a frame, (F, S, symbols); likewise. None: the symbol is the state.
        share: λ.
    """

    video: FiniteStateVideo
    laws: Tensor
    runs: Tensor
    shown: Tensor | None
    share: float

    @classmethod
    def of(cls, video: FiniteStateVideo, videos: int, frames: int) -> RareEvents | None:
        """Those of the first ``frames`` frames among ``videos`` samples.

        None where there are none, or more runs than are ever tabulated: :meth:`FiniteStateVideo.rare` says so.
        """
        chain, order = video.chain, video.chain.order
        length = max(frames, order + 1)
        starts = length - order
        if starts * chain.transition.numel() > MAX_TABLE:
            return None
        law, laws = chain.initial.reshape(1, -1), []
        for _ in range(starts):
            laws.append(law)
            law = push(law, chain.transition)
        stacked = torch.cat(laws)
        runs = _rare(stacked[:, :, None] * chain.transition.reshape(1, -1, chain.states), videos).flatten(1)
        shown = None
        if video.emission is not None:
            states = torch.stack([chain.law(frame) for frame in range(frames)])
            shown = _rare(states[:, :, None] * video.emission, videos)
        events = int((runs > 0).sum()) + (0 if shown is None else int((shown > 0).sum()))
        if not events:
            return None
        return cls(video, stacked, runs, shown, min(0.5, _VISITS * events / videos))

    @property
    def probabilities(self) -> Tensor:
        """Of all rare events, (E,)."""
        tables = [self.runs] + ([] if self.shown is None else [self.shown])
        return torch.cat([table[table > 0] for table in tables])

    def describe(self, videos: int) -> str:
        """What a ledger says of them."""
        chances = self.probabilities
        few = self.share * videos / len(chances) < _FEW
        return (
            f"{len(chances)} runs of states or symbols of {self.video.name!r} are expected fewer than {_FEW} "
            f"times among {videos} samples (the rarest has the probability {float(chances.min()):.2g}): "
            f"{self.share:.0%} of the samples are drawn through them, and weighted"
            + ("; they are too many to visit each: errors may be too small, take more samples" if few else "")
        )

    def sample(self, videos: int, frames: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor, Tensor]:
        """States and symbols (videos, frames) drawn from q, and their weights w (videos,)."""
        chain, emission, order = self.video.chain, self.video.emission, self.video.chain.order
        device = self.laws.device
        length = len(self.laws) + order
        states = chain.sample(videos, length, generator)
        at = generator.device if generator is not None else device
        uniform = torch.rand(2, videos, dtype=torch.float64, generator=generator, device=at).to(device)
        through = (uniform[0] < self.share).nonzero()[:, 0]
        which = (uniform[1, through] * len(self.probabilities)).long()
        runs = self.runs.nonzero()
        by_run, others = which < len(runs), which >= len(runs)
        found = runs[which[by_run]]
        states[through[by_run]] = self._around(found[:, 0], found[:, 1], generator)
        forced: Tensor | None = None
        if self.shown is not None:
            forced = self.shown.nonzero()[which[others] - len(runs)]
            states[through[others]] = self._around(*self._runs_with(forced, generator), generator)
        states = states[:, :frames]
        symbols = states
        if emission is not None:
            symbols = draw_outcomes(emission[states.reshape(-1)], generator).reshape(states.shape)
        if forced is not None:
            symbols[through[others], forced[:, 0]] = forced[:, 2]
        return states, symbols, self._weights(states, symbols)

    def _weights(self, states: Tensor, symbols: Tensor) -> Tensor:
        order, size = self.video.chain.order, self.video.chain.states
        hits = torch.zeros(len(states), dtype=torch.float64, device=states.device)
        for start in range(states.shape[1] - order):
            hits += _inverse(self.runs[start, _code(states[:, start : start + order + 1], size)])
        if self.shown is not None:
            frame = torch.arange(states.shape[1], device=states.device)
            hits += _inverse(self.shown[frame, states, symbols]).sum(-1)
        return 1 / (1 - self.share + self.share * hits / len(self.probabilities))

    def _runs_with(self, events: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Where and which runs of states hold the frame and state of events (n, 3), drawn from their law."""
        chain = self.video.chain
        start = events[:, 0].clamp(max=len(self.laws) - 1)
        codes = torch.zeros_like(start)
        digits = torch.arange(chain.transition.numel(), device=start.device)
        for first, place, state in {
            (int(s), int(f - s), int(a)) for s, (f, a, _) in zip(start, events, strict=True)
        }:
            rows = ((start == first) & (events[:, 0] - start == place) & (events[:, 1] == state)).nonzero()[:, 0]
            runs = (self.laws[first, :, None] * chain.transition.reshape(-1, chain.states)).flatten()
            here = digits // chain.states ** (chain.order - place) % chain.states == state
            codes[rows] = draw_outcomes((runs * here).expand(len(rows), -1), generator)
        return start, codes

    def _around(self, start: Tensor, code: Tensor, generator: torch.Generator | None) -> Tensor:
        """State sequences given that the run ``code`` stands at frame ``start``, (n, F)."""
        chain, order, size = self.video.chain, self.video.chain.order, self.video.chain.states
        length = len(self.laws) + order
        states = torch.zeros(len(start), length, dtype=torch.long, device=start.device)
        rows = torch.arange(len(start), device=start.device)
        for place in range(order + 1):
            states[rows, start + place] = code // size ** (order - place) % size
        forth = chain.transition.reshape(-1, size)
        back = chain.transition.reshape(size, -1)
        for frame in range(order + 1, length):
            own = (start + order < frame).nonzero()[:, 0]
            if len(own):
                known = _code(states[own, frame - order : frame], size)
                states[own, frame] = draw_outcomes(forth[known], generator)
        for frame in reversed(range(len(self.laws) - 1)):
            own = (start > frame).nonzero()[:, 0]
            if len(own):
                after = states[own, frame + 1 : frame + order + 1]
                before = self.laws[frame].reshape(size, -1)[:, _code(after[:, :-1], size)]
                states[own, frame] = draw_outcomes((before * back[:, _code(after, size)]).mT, generator)
        return states


def _rare(chances: Tensor, videos: int) -> Tensor:
    """Probabilities of what is expected fewer than five times; 0 elsewhere."""
    return torch.where(chances * videos < _FEW, chances, torch.zeros_like(chances))


def _inverse(chances: Tensor) -> Tensor:
    """1/p; 0 where p is 0."""
    return torch.where(chances > 0, 1 / torch.where(chances > 0, chances, math.inf), torch.zeros_like(chances))


def _code(digits: Tensor, size: int) -> Tensor:
    """Rows of states (n, k) as numbers, the first state varying slowest, (n,)."""
    number = torch.zeros(len(digits), dtype=torch.long, device=digits.device)
    for digit in digits.unbind(-1):
        number = number * size + digit
    return number
