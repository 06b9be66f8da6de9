"""Exact inference in finite-state videos: log-densities, posteriors, denoisers and scores at any noise levels.

Evidence about a batch of videos is any set of noisy frame states, each at its own OU level, and of frames whose
symbol is known. With the *window* W and the references R as evidence, forward-backward gives

    log p(W | R),    P(state_i | W, R),    P(symbol_i | W, R),    E[X_i | W, R],
    ∇_W log p(W | R) = E[ ∇_W log p(W | symbols) | W, R ],

in time linear in the frames with evidence: batch · S^{p+1} a frame, and batch · d · symbols to compare a frame
with the pictures. Gaps between frames are bridged by powers of the transition.

Source: Rabiner 1989; Bishop 2006, section 13.2 (forward-backward); arXiv 2503.10704, section 3 (the score of a
window whose frames stand at different levels).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from arvdm_theory.laws.chains import MarkovChain
from arvdm_theory.laws.emission import FrameLikelihood, Rendering
from arvdm_theory.laws.evidence import Evidence, EvidenceError, state_groups
from arvdm_theory.laws.forward_backward import Kernel, Lattice, backward, forward, log_product, nodes_of

__all__ = [
    "Posterior",
    "infer",
    "log_density",
    "sample_posterior",
]


class HiddenChain(Protocol):
    """A chain of states, what each state shows, and how that looks: a finite-state video."""

    @property
    def chain(self) -> MarkovChain: ...
    @property
    def rendering(self) -> Rendering: ...
    @property
    def emission(self) -> Tensor | None: ...
    @property
    def frame_dim(self) -> int: ...


@dataclass(frozen=True, eq=False)
class Posterior:
    """What a window and its references say.

    Attributes:
        log_density: log p(W | R), shape (batch,): a density in the noisy states and a probability of symbols.
        log_joint: log p(W, R), shape (batch,).
        frames: the frames that the next three speak of.
        states: P(state_i | W, R), shape (batch, frames, S).
        symbols: P(symbol_i | W, R), shape (batch, frames, symbols).
        denoised: E[X_i | W, R], shape (batch, frames, d).
        score: ∇_W log p(W | R), shape (batch, noisy states of W, d), in the order of the window's states.
    """

    log_density: Tensor
    log_joint: Tensor
    frames: tuple[int, ...]
    states: Tensor
    symbols: Tensor
    denoised: Tensor
    score: Tensor


def log_density(video: HiddenChain, window: Evidence, given: Evidence | None = None) -> Tensor:
    """log p(W | R), shape (batch,): a density in noisy states times a probability of symbols, in nats.

    Symbols that the references exclude give -∞. Differentiable in the noisy states.

    Raises:
        EvidenceError: if the references themselves are impossible, or evidence has no density.
        TableSizeError: if S^p is too large (see :mod:`arvdm_theory.laws.forward_backward`).

    Example:
        >>> from arvdm_theory import Codebook, FiniteStateVideo, sticky_chain
        >>> video = FiniteStateVideo(sticky_chain(2, 0.9), Codebook([[-1.0], [1.0]]))
        >>> frame = Evidence.clean([3], torch.tensor([[0]]))
        >>> noisy = Evidence.noisy([4], [0.5], torch.tensor([[[-0.9]]], dtype=torch.float64))
        >>> [round(float(log_density(video, noisy, given)), 6) for given in (None, frame)]
        [-1.136411, -0.573443]
    """
    return _Inference.of(video, window, given).log_density


def infer(
    video: HiddenChain,
    window: Evidence,
    given: Evidence | None = None,
    frames: Sequence[int] | None = None,
) -> Posterior:
    """Forward-backward: log p(W | R), posteriors, denoiser and score (see :class:`Posterior`).

    Args:
        video: the law.
        window: W.
        given: the references R, and whatever else is conditioned on.
        frames: the frames to report on; left out, those of the window. They need not have been observed.

    Raises:
        EvidenceError: if the evidence is impossible together, or has no density.
        TableSizeError: if S^p is too large.
    """
    wanted = tuple(window.known_frames if frames is None else frames)
    if wanted and min(wanted) < 0:
        raise EvidenceError(f"frames are counted from 0, got {min(wanted)}")
    # Where a noisy reference shares a window frame's noise, that frame's score needs its posterior as well.
    own = {state.frame for state in window.states}
    run = _Inference.of(video, window, given, sorted({*wanted, *own}))
    run.require_possible()
    return run.posterior(wanted)


def sample_posterior(
    video: HiddenChain,
    evidence: Evidence,
    frames: Sequence[int],
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Jointly sampled states and symbols of ``frames`` given the evidence, both (batch, len(frames)).

    Forward filtering, backward sampling. This is the decoding kernel that ends an AR step on states.

    Raises:
        EvidenceError, TableSizeError: as :func:`infer`.
    """
    run = _Inference.of(video, evidence, None, frames, every_frame=video.chain.order > 1)
    run.require_possible()
    return run.draw(frames, generator)


@dataclass(frozen=True)
class _Group:
    """All evidence about some frames that have the same number n of noisy states each."""

    frames: tuple[int, ...]
    rows: Tensor  # which of all noisy states are a frame's, (g, n)
    likelihood: FrameLikelihood | None  # None if n = 0
    log_symbols: Tensor  # (batch, g, symbols): log p(noisy states, known symbol | symbol) - offset
    log_states: Tensor  # (batch, g, S): the same given the chain's state

    def offset(self, frames: set[int]) -> Tensor | None:
        """The common part of the log-likelihoods of those of its frames, (batch,)."""
        chosen = [i for i, frame in enumerate(self.frames) if frame in frames]
        if self.likelihood is None or not chosen:
            return None
        return self.likelihood.offset[:, chosen].sum(1)


@dataclass(frozen=True)
class _Inference:
    video: HiddenChain
    lattice: Lattice
    emission: Kernel | None
    batch: int
    window_states: int
    needed: tuple[int, ...]  # frames to report on, and those with noisy states in the window
    nodes: list[int]
    places: dict[int, int]  # node -> where it stands among the nodes
    groups: list[_Group]
    evidence: dict[int, Tensor]  # frame -> log-likelihoods of the state, (batch, S)
    messages: list[Tensor]
    normalisers: list[Tensor]
    log_joint: Tensor
    log_density: Tensor

    @classmethod
    def of(
        cls,
        video: HiddenChain,
        window: Evidence,
        given: Evidence | None,
        needed: Sequence[int] = (),
        every_frame: bool = False,
    ) -> _Inference:
        lattice = Lattice.of(video.chain)
        emission = None if video.emission is None else Kernel(torch.log(video.emission.T)[:, None, :])
        both = window if given is None else window + given
        groups = _by_frame(video, both, emission, set(needed))
        evidence = {f: group.log_states[:, i] for group in groups for i, f in enumerate(group.frames)}
        touched = (*evidence, *needed)
        if every_frame and touched:
            touched = tuple(range(max(touched) + 1))
        nodes = nodes_of(lattice.order, touched)
        messages, normalisers = forward(lattice, nodes, evidence)
        zero = lattice.log_initial.new_zeros(both.batch)

        def total(first_node: int, frames: set[int]) -> Tensor:
            terms = [n for node, n in zip(nodes, normalisers, strict=True) if node >= first_node]
            offsets = [offset for group in groups if (offset := group.offset(frames)) is not None]
            return sum((*terms, *offsets), zero)

        joint = density = total(0, set(evidence))
        if given is not None and given.known_frames:
            last = max(given.known_frames[-1], lattice.order - 1)
            ahead = [max(frame, lattice.order - 1) for frame in window.known_frames]
            if not ahead or last < ahead[0]:
                _require_possible(nodes, [n for node, n in zip(nodes, normalisers, strict=True) if node <= last],
                                  "references")  # fmt: skip
                density = total(last + 1, set(window.known_frames))
            else:
                alone = cls.of(video, given, None)
                _require_possible(alone.nodes, alone.normalisers, "references")
                density = joint - alone.log_joint
        return cls(
            video=video,
            lattice=lattice,
            emission=emission,
            batch=both.batch,
            window_states=len(window.states),
            needed=tuple(needed),
            nodes=nodes,
            places={node: i for i, node in enumerate(nodes)},
            groups=groups,
            evidence=evidence,
            messages=messages,
            normalisers=normalisers,
            log_joint=joint,
            log_density=density,
        )

    def require_possible(self) -> None:
        _require_possible(self.nodes, self.normalisers, "evidence")

    def place(self, frame: int) -> int:
        """Where the frame's node stands among the nodes."""
        return self.places[max(frame, self.lattice.order - 1)]

    def posterior(self, wanted: tuple[int, ...]) -> Posterior:
        states = self._states()
        column = {frame: i for i, frame in enumerate(self.needed)}
        emission = self.video.emission
        symbols = states if emission is None else states @ emission
        denoised = self.video.rendering.average(symbols)
        score = states.new_zeros(self.batch, self.window_states, self.video.frame_dim)
        for group in self.groups:
            if group.frames[0] not in column:
                continue
            at = torch.tensor([column[frame] for frame in group.frames], device=states.device)
            shown = self._symbols(states[:, at], group)
            symbols = symbols.index_copy(1, at, shown)
            if group.likelihood is None:
                denoised = denoised.index_copy(1, at, self.video.rendering.average(shown))
                continue
            denoised = denoised.index_copy(1, at, group.likelihood.denoise(shown))
            rows = group.rows.reshape(-1).to(states.device)
            mine = rows < self.window_states
            if bool(mine.any()):
                gradient = group.likelihood.score(shown).flatten(1, 2)
                score = score.index_copy(1, rows[mine], gradient[:, mine])
        report = torch.tensor([column[frame] for frame in wanted], dtype=torch.long, device=states.device)
        return Posterior(
            log_density=self.log_density,
            log_joint=self.log_joint,
            frames=wanted,
            states=states[:, report],
            symbols=symbols[:, report],
            denoised=denoised[:, report],
            score=score,
        )

    def _states(self) -> Tensor:
        """P(state | all) of the needed frames, (batch, needed, S)."""
        if not self.needed:
            return self.lattice.log_initial.new_zeros(self.batch, 0, self.lattice.states)
        first = self.place(min(self.needed))
        future = backward(self.lattice, self.nodes, self.evidence, first)
        laws = []
        for frame in self.needed:
            i = self.place(frame)
            law = torch.softmax(self.messages[i] + future[i - first], -1)
            laws.append(self.lattice.marginal(self.nodes[i], frame, law).expand(self.batch, -1))
        return torch.stack(laws, 1)

    def _symbols(self, states: Tensor, group: _Group) -> Tensor:
        """P(symbol | all) from P(state | all): the part of a state's evidence that each symbol gives."""
        if self.emission is None:
            return states
        share = torch.where(states > 0, torch.log(states) - group.log_states, -math.inf)
        back = log_product(share.flatten(0, 1)[..., None], self.emission.reverse)
        return torch.exp(back.reshape(group.log_symbols.shape) + group.log_symbols)

    def draw(self, frames: Sequence[int], generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Backward sampling from the last node: evidence after the last wanted frame bears on it too."""
        if not frames:
            empty = torch.zeros(self.batch, 0, dtype=torch.long)
            return empty, empty
        size, rest = self.lattice.states, self.lattice.states ** (self.lattice.order - 1)
        context = _gumbel(self.messages[-1].expand(self.batch, -1), generator)
        at_node = {len(self.nodes) - 1: context}
        for i in range(len(self.nodes) - 2, self.place(min(frames)) - 1, -1):
            kernel = self.lattice.power(self.nodes[i + 1] - self.nodes[i])
            shared, new = context // size, context % size
            message = self.messages[i].expand(self.batch, -1).reshape(self.batch, size, rest)
            past = message.gather(2, shared[:, None, None].expand(-1, size, 1)).squeeze(-1)
            context = _gumbel(past + kernel.log[:, shared, new].T, generator) * rest + shared
            at_node[i] = context
        drawn = []
        for frame in frames:
            back = max(self.lattice.order - 1 - frame, 0)
            drawn.append(at_node[self.place(frame)] // size**back % size)
        hidden = torch.stack(drawn, 1)
        if self.emission is None:
            return hidden, hidden
        seen = {f: group.log_symbols[:, i] for group in self.groups for i, f in enumerate(group.frames)}
        emitted = self.emission.log[:, 0, :].T
        shown = [
            _gumbel(emitted[hidden[:, i]] + seen.get(frame, 0.0), generator) for i, frame in enumerate(frames)
        ]
        return hidden, torch.stack(shown, 1)


def _by_frame(video: HiddenChain, evidence: Evidence, emission: Kernel | None, needed: set[int]) -> list[_Group]:
    """Log-likelihoods of all evidence; the frames of a group are all needed, or none of them is."""
    rendering, device = video.rendering, video.chain.transition.device
    if evidence.values is not None and evidence.values.shape[-1] != video.frame_dim:
        raise EvidenceError(f"noisy states have {evidence.values.shape[-1]} entries, frames {video.frame_dim}")
    atom = next((s.frame for s in evidence.states if s.level == 0), None) if rendering.atomic else None
    if atom is not None:
        raise EvidenceError(
            f"frame {atom} at level 0 has no density: the video has no observation noise. Give its symbol, or "
            "stop at a level above 0"
        )
    column_of = {frame: i for i, frame in enumerate(evidence.frames)}
    parts: list[tuple[list[int], Tensor, FrameLikelihood | None]] = []
    for frames, rows, scale, noise in state_groups(evidence.states, needed):
        assert evidence.values is not None
        values = evidence.values[:, rows.to(evidence.values.device)]
        parts.append((frames, rows, rendering.likelihood(scale.to(device), noise.to(device), values)))
    noisy = {state.frame for state in evidence.states}
    for inside in (True, False):
        frames = sorted(f for f in evidence.frames if f not in noisy and (f in needed) == inside)
        if frames:
            parts.append((frames, torch.zeros(len(frames), 0, dtype=torch.long), None))
    groups = []
    for frames, rows, likelihood in parts:
        shape = (evidence.batch, len(frames), rendering.symbols)
        logs = torch.zeros(shape, dtype=torch.float64, device=device)
        logs = logs if likelihood is None else likelihood.relative.expand(shape)
        known = [i for i, frame in enumerate(frames) if frame in column_of]
        if known:
            assert evidence.symbols is not None
            symbol = evidence.symbols[:, [column_of[frames[i]] for i in known]].long()
            _require_symbols(symbol, [frames[i] for i in known], rendering.symbols)
            is_it = torch.arange(rendering.symbols, device=device) == symbol[..., None]
            at = torch.tensor(known, device=device)
            logs = logs.index_copy(1, at, torch.where(is_it, logs[:, at], -math.inf))
        hidden = logs
        if emission is not None:
            hidden = log_product(logs.flatten(0, 1)[..., None], emission).reshape(*logs.shape[:2], -1)
        groups.append(_Group(tuple(frames), rows, likelihood, logs, hidden))
    return groups


def _require_symbols(symbols: Tensor, frames: Sequence[int], count: int) -> None:
    wrong = ((symbols < 0) | (symbols >= count)).nonzero()
    if len(wrong):
        row, column = wrong[0].tolist()
        raise EvidenceError(f"frame {frames[column]}: symbols are 0..{count - 1}, got {int(symbols[row, column])}")


def _require_possible(nodes: Sequence[int], normalisers: Sequence[Tensor], what: str) -> None:
    for node, normaliser in zip(nodes, normalisers, strict=False):
        bad = (normaliser == -math.inf).nonzero()
        if len(bad):
            raise EvidenceError(
                f"the {what} of video {int(bad[0])} of the batch cannot occur: what is known up to frame {node} "
                "has probability 0"
            )


def _gumbel(logs: Tensor, generator: torch.Generator | None) -> Tensor:
    """One outcome from each row of unnormalised log-probabilities."""
    device = torch.device("cpu") if generator is None else generator.device
    uniform = torch.rand(logs.shape, dtype=torch.float64, generator=generator, device=device).to(logs.device)
    return (logs.detach() - torch.log(-torch.log(uniform))).argmax(-1)
