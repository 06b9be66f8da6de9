"""Memory bottlenecks of finite-state videos whose states are hidden or seen through noise, by Monte Carlo.

There I(Out; Past | In) has no closed form that is linear in the frames, but its integrand has: the forward
recursion gives both conditional log-densities exactly, so only one expectation is sampled,

    I(Out; Past | In) = E[ log p(Out | In, Past) - log p(Out | In) ].

No density is estimated, hence no bias; the standard error is the whole error. States and transitions that so few
samples may miss are drawn on purpose, and weighted (:mod:`arvdm_theory.laws.rare`); the number then says so.

Source: arXiv 2503.10704, section 4.2 (the memory bottleneck); Cover and Thomas 2006, section 2.5.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from arvdm_theory.information.gaussian import cholesky
from arvdm_theory.laws.evidence import Evidence, EvidenceError, state_groups
from arvdm_theory.laws.finite import FiniteStateVideo, Sample
from arvdm_theory.laws.inference import log_density
from arvdm_theory.laws.rare import RareEvents
from arvdm_theory.laws.stage_law import weighted
from arvdm_theory.laws.states import State
from arvdm_theory.noise import standard_normal
from arvdm_theory.number import Number

__all__ = ["observe", "sampled_information"]


def observe(
    video: FiniteStateVideo,
    sample: Sample,
    states: Sequence[State],
    generator: torch.Generator | None = None,
) -> Evidence:
    """Noisy states of sampled videos, jointly: states on one forward path share its noise.

    Level 0 of a video without observation noise has no density; there the frame's symbol is what is observed.

    Returns:
        the evidence, in the order of ``states``; (values of symbols follow those of noisy states).

    Raises:
        EvidenceError: if such a frame does not show its symbol (two pictures alike), or a state lies beyond the
            sample.
    """
    for state in states:
        if state.frame >= sample.frames.shape[1]:
            raise EvidenceError(f"frame {state.frame} lies beyond the {sample.frames.shape[1]} sampled ones")
    read = [s for s in states if s.level == 0 and video.rendering.atomic]
    if read and not video.shows_symbols:
        raise EvidenceError(f"clean frames of {video.name!r} do not show their symbols: two pictures are equal")
    noisy = tuple(s for s in states if not (s.level == 0 and video.rendering.atomic))
    values = sample.frames.new_zeros(len(sample.frames), len(noisy), video.frame_dim)
    for own, rows, scale, noise in state_groups(noisy, set()):
        # A state at level 0 has no noise; a unit variance stands in while the factor is taken.
        still = torch.diagonal(noise, dim1=-2, dim2=-1) == 0
        factor = cholesky(noise + torch.diag_embed(still.double()), "covariance of the noise of one frame")
        factor = torch.where(still[..., None], 0.0, factor).to(values)
        white = standard_normal((len(values), *rows.shape, video.frame_dim), generator).to(values)
        moved = scale.to(values)[..., None] * sample.frames[:, own, None] + factor @ white
        values[:, rows.reshape(-1)] = moved.flatten(1, 2)
    frames = tuple(s.frame for s in read)
    return Evidence(
        noisy,
        values if noisy else None,
        frames,
        sample.symbols[:, list(frames)] if frames else None,
    )


def sampled_information(
    video: FiniteStateVideo,
    out: Sequence[State],
    past: Sequence[State],
    given: Sequence[State],
    videos: int,
    generator: torch.Generator | None = None,
    batch: int = 1024,
) -> Number:
    """I(Out; Past | In) in nats, with its standard error, from ``videos`` independent samples.

    Any frame states may be in any of the three: the window's at t^O, the clean frames that are out (level 0, or
    δ), the window's at t^I together with the references. At level 0 of a video without observation noise, symbols
    are read. Time: videos · frames · S^{p+1}.

    Raises:
        ValueError: if fewer than two videos are asked for.
        EvidenceError: if a state occurs twice, or see :func:`observe`.
        TableSizeError: if S^p is too large.

    Example:
        >>> from arvdm_theory.laws.chains import sticky_chain
        >>> from arvdm_theory.laws.emission import Codebook
        >>> video = FiniteStateVideo(sticky_chain(2, 0.9), Codebook([[-1.0], [1.0]]))
        >>> seeded = torch.Generator().manual_seed(0)
        >>> known = sampled_information(video, [State(2, 0.5)], [State(0, 0.0)], [], 4000, seeded)
        >>> round(known.value, 2), known.stderr < 0.01
        (0.16, True)
    """
    if videos < 2 or batch < 1:
        raise ValueError(f"two videos or more, in batches of at least one, are needed, got {videos}, {batch}")
    if not out or not past:
        return Number.exact(0.0)
    length = max(state.frame for state in (*out, *past, *given)) + 1
    gains: list[Tensor] = []
    weights: list[Tensor] = []
    rare = RareEvents.of(video, videos, length)
    for start in range(0, videos, batch):
        sample, own = video.weighted_sample(min(batch, videos - start), length, generator, rare)
        weights += [] if own is None else [own]
        both = observe(video, sample, [*out, *past, *given], generator)
        what, before, known = (_part(both, group) for group in (out, past, given))
        gains.append(log_density(video, what, before + known) - log_density(video, what, known))
    gain = weighted(torch.cat(gains).detach(), torch.cat(weights) if weights else None)
    note = video.rare(videos, length)
    return Number(gain, method="sampled", warnings=() if note is None else (note,))


def _part(evidence: Evidence, states: Sequence[State]) -> Evidence:
    """The part of jointly observed evidence that belongs to some of its states."""
    own = set(states)
    noisy = [i for i, s in enumerate(evidence.states) if s in own]
    wanted = {s.frame for s in own.difference(evidence.states)}
    read = [i for i, frame in enumerate(evidence.frames) if frame in wanted]
    return Evidence(
        tuple(evidence.states[i] for i in noisy),
        None if evidence.values is None or not noisy else evidence.values[:, noisy],
        tuple(evidence.frames[i] for i in read),
        None if evidence.symbols is None or not read else evidence.symbols[:, read],
    )
