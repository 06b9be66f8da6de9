"""Published methods as plans: one builder a method, with the published numbers as defaults.

Every builder takes smaller numbers through its arguments. What a plan leaves out, and which source its numbers
were read in, is said by the method's entry in :mod:`arvdm_theory.plan.methods`. "Frames" are the frames that
the method denoises: latent frames where it works in a video autoencoder.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from arvdm_theory.noise import NoiseSchedule, clock_from_flow, clock_from_sigma
from arvdm_theory.plan.levels import (
    HORIZON,
    chunk_causal_mask,
    flow_levels,
    pipeline,
    scaled_linear_schedule,
    shifted_flow_time,
    sigmoid_schedule,
    staggered,
    together,
)
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.references import Mask, PlanError, References, causal_mask, parts_mask

__all__ = [
    "ar_diffusion",
    "causvid",
    "cosmos_predict2",
    "deep_forcing",
    "dfot",
    "diamond",
    "diffusion_forcing",
    "fademem",
    "fifo_diffusion",
    "framepack",
    "framepack_f1",
    "gamengen",
    "hiar",
    "longcat_video",
    "longlive",
    "magi",
    "mcvd",
    "oasis",
    "pa_vdm",
    "pyramidal_flow",
    "rolling_diffusion",
    "rolling_forcing",
    "rolling_sink",
    "self_forcing",
    "skyreels_v2",
    "streaming_t2v",
]


def _levels(schedule: NoiseSchedule, timesteps: ArrayLike) -> tuple[float, ...]:
    """OU levels of timesteps counted in noising steps, 0 being clean."""
    whole = np.asarray(timesteps).round().astype(int)
    return tuple(schedule.clock(whole.tolist()).tolist())


def _thinned(steps: int) -> int:
    """The distance between the timesteps of a sampler that takes ``steps`` of 1000."""
    if steps < 1 or 1000 % steps:
        raise PlanError(f"steps: the sampler's steps must divide its 1000 timesteps, got {steps}")
    return 1000 // steps


def _sink(first: int, last: int) -> References:
    """The first frames of the video and the last that are out; either may be none."""
    return (References.first(first) if first else References.none()) + References.last(last)


def mcvd(frames: int = 5, context: int = 10, steps: int = 100) -> Plan:
    """MCVD: ``frames`` at a time given the last ``context``, on the linear DDPM schedule thinned to ``steps``."""
    levels = _levels(NoiseSchedule.ddpm(), range(1000, -1, -_thinned(steps)))
    return together(levels, frames, references=References.last(context), name="mcvd")


def streaming_t2v(frames: int = 8, context: int = 8, anchor: int = 1, steps: int = 50) -> Plan:
    """StreamingT2V: ``frames`` new ones given the last ``context`` and the video's first ``anchor`` frames."""
    levels = _levels(scaled_linear_schedule(0.00085, 0.012), np.linspace(1000, 0, steps + 1))
    return together(levels, frames, references=_sink(anchor, context), name="streaming-t2v")


def fifo_diffusion(frames: int = 16, parts: int = 4, lookahead: bool = True) -> Plan:
    """FIFO-Diffusion: a queue of w = frames · parts, one reverse step an iteration, each frame one level apart.

    The queue stands at timesteps linspace(0, 999, w), counted from 0, so frames come out at the first noise level
    (δ = 0.00085), not at 0. With latent partitioning alone the network sees a part of ``frames`` at a time; with
    lookahead it sees ``frames`` of which only the later half moves, the first half of the oldest being frames that
    are out.
    """
    queue = frames * parts
    if queue < 2:
        raise PlanError(f"levels: the queue must hold at least two frames, got {queue}")
    native = np.linspace(0, 999, queue).round() + 1
    levels = _levels(scaled_linear_schedule(0.00085, 0.012), [*native[::-1], 1])
    rows = tuple((level,) * (queue - 1) for level in levels)
    return pipeline(
        levels,
        gap=1,
        init_steps=queue,
        init_grid=rows,
        initialisation="renoise",
        references=References.last(frames // 2) if lookahead else References.none(),
        visible=(_lookahead_mask(queue, frames) if lookahead else parts_mask(queue, parts),),
        name="fifo-diffusion",
    )


def _lookahead_mask(queue: int, frames: int) -> Mask:
    """Blocks of ``frames``/2 see themselves and the block before; before the first stand the references."""
    if frames % 2:
        raise PlanError(f"visibility: lookahead needs an even number of frames in a part, got {frames}")
    half = frames // 2
    block = [-1] * half + [j // half for j in range(queue)]
    return tuple(
        (*(block[half + j] in (i // half, i // half - 1) for j in range(queue)), *(i < half for _ in range(half)))
        for i in range(queue)
    )


def rolling_diffusion(window: int = 16, steps: int = 2, context: int = 2, horizon: float = HORIZON) -> Plan:
    """Rolling Diffusion: Δ = 1, frame j at native time j/w of the cosine schedule, ``steps`` steps a frame."""
    total = window * steps
    schedule = NoiseSchedule.cosine()
    levels = (horizon, *(float(schedule.clock(1 - k / total)) for k in range(1, total)), 0.0)
    return pipeline(levels, gap=steps, references=References.last(context), name="rolling-diffusion")


def pa_vdm(
    chunk: int = 5,
    frames: int = 30,
    steps: int = 30,
    shift: float = (240 * 426 / 512**2 * 35) ** 0.5,
    keep: bool = True,
    horizon: float = HORIZON,
) -> Plan:
    """PA-VDM: chunks of ``chunk`` frames, frames/chunk of them in flight, ``keep`` a clean chunk kept in front.

    ``shift`` is the time shift √(pixels/512² · latents) of its base model, at 240 x 426 pixels and 35 latents.
    """
    if frames % chunk or steps % (frames // chunk):
        raise PlanError(
            f"steps: {steps} steps and {frames} frames must divide into chunks of {chunk} that are equally far "
            "apart"
        )
    levels = flow_levels(shifted_flow_time(np.linspace(1, 0, steps + 1), shift), horizon)
    references = References.last(chunk) if keep else References.none()
    return pipeline(levels, gap=steps // (frames // chunk), chunk=chunk, references=references, name="pa-vdm")


def diffusion_forcing(
    frames: int = 4, uncertainty: float = 1.0, steps: int = 100, tokens: int = 36, causal: bool = True
) -> Plan:
    """Diffusion Forcing's pyramid: frame t of a chunk starts ⌊u t⌋ steps after the first one (t from 0).

    The chunk enters at T and comes out clean as a whole: w = Δ = ``frames``, and the pyramid lies inside the AR
    step. The network sees ``tokens`` frames in all, so the last ``tokens`` - ``frames`` that are out.
    """
    levels = _levels(sigmoid_schedule(), range(1000, -1, -_thinned(steps)))
    return staggered(
        levels,
        [int(t * uncertainty) for t in range(frames)],
        references=References.last(tokens - frames),
        visible=(causal_mask(frames),) if causal else None,
        name="diffusion-forcing",
    )


def ar_diffusion(gap: int = 5, steps: int = 50, frames: int = 16, causal: bool = True) -> Plan:
    """AR-Diffusion: neighbours ``gap`` DDIM steps apart; 0 is synchronous, ``steps`` auto-regressive.

    The network sees ``frames`` in all: those in flight and the last clean ones. Its DDIM grid starts pure noise at
    timestep 981 of 1000 (counted from 0) and ends at the first noise level, δ = 0.0001.
    """
    apart = _thinned(steps)
    levels = _levels(scaled_linear_schedule(1e-4, 0.02), [*range(1000 - apart + 2, 1, -apart), 1])
    if gap == 0:
        mask = (causal_mask(frames),) if causal else None
        return together(levels, frames, visible=mask, name="ar-diffusion")
    in_flight = -(-steps // gap)
    return pipeline(
        levels,
        gap=gap,
        references=References.last(max(frames - in_flight, 0)),
        visible=(causal_mask(in_flight),) if causal else None,
        name="ar-diffusion",
    )


def skyreels_v2(
    ar_step: int = 5,
    block: int = 5,
    frames: int = 20,
    overlap: int = 5,
    steps: int = 30,
    shift: float = 8.0,
    context_noise: float = 0.02,
    causal: bool = False,
    horizon: float = 12.0,
) -> Plan:
    """SkyReels-V2's long mode: ``frames`` new latents, in blocks ``ar_step`` steps apart.

    The last ``overlap`` latents are shown noised to flow-matching time ``context_noise``. T = 12 lies above the
    first level after pure noise (10.89).
    """
    if frames % block:
        raise PlanError(f"levels: blocks of {block} do not divide {frames} frames")
    levels = flow_levels(shifted_flow_time(np.linspace(1, 0, steps + 1), shift), horizon)
    return staggered(
        levels,
        [ar_step * (frame // block) for frame in range(frames)],
        references=References.last(overlap, float(clock_from_flow(context_noise))),
        visible=(chunk_causal_mask(frames, block),) if causal else None,
        name="skyreels-v2",
    )


def causvid(frames: int = 3, timesteps: Sequence[int] = (1000, 757, 522), horizon: float = HORIZON) -> Plan:
    """CausVid: chunks of 3 latents in 3 steps, every earlier latent in the key-value cache.

    ``timesteps`` are 1000 σ of its flow-matching scheduler, used as they are.
    """
    levels = flow_levels((*(t / 1000 for t in timesteps), 0.0), horizon)
    return together(levels, frames, references=References.all(), name="causvid")


def _warped(timesteps: Sequence[int], shift: float, horizon: float) -> tuple[float, ...]:
    """Levels of "warped" timesteps: places in the shifted scheduler's table of 1000, not flow-matching times."""
    return flow_levels((*shifted_flow_time([t / 1000 for t in timesteps], shift), 0.0), horizon)


def self_forcing(
    frames: int = 3,
    timesteps: Sequence[int] = (1000, 750, 500, 250),
    shift: float = 5.0,
    memory: int | None = None,
    horizon: float = HORIZON,
) -> Plan:
    """Self-Forcing: chunks of 3 latents in 4 steps, given every earlier latent or the last ``memory``.

    Its timesteps are warped by the scheduler's shift: 750 stands at flow-matching time 0.9375, not 0.75.
    """
    references = References.all() if memory is None else References.last(memory)
    return together(_warped(timesteps, shift, horizon), frames, references=references, name="self-forcing")


def longlive(
    frames: int = 3,
    timesteps: Sequence[int] = (1000, 750, 500, 250),
    shift: float = 5.0,
    sink: int = 3,
    recent: int = 6,
    horizon: float = HORIZON,
) -> Plan:
    """LongLive: Self-Forcing's steps, given the first ``sink`` and the last ``recent`` latents."""
    levels = _warped(timesteps, shift, horizon)
    return together(levels, frames, references=_sink(sink, recent), name="longlive")


def deep_forcing(
    frames: int = 3,
    timesteps: Sequence[int] = (1000, 750, 500, 250),
    shift: float = 5.0,
    sink: int = 10,
    recent: int = 8,
    horizon: float = HORIZON,
) -> Plan:
    """Deep Forcing: Self-Forcing's steps, given the first ``sink`` and the last ``recent`` latents."""
    levels = _warped(timesteps, shift, horizon)
    return together(levels, frames, references=_sink(sink, recent), name="deep-forcing")


def hiar(
    frames: int = 3,
    timesteps: Sequence[int] = (1000, 750, 500, 250),
    shift: float = 5.0,
    memory: int | None = None,
    horizon: float = HORIZON,
) -> Plan:
    """HiAR: Self-Forcing's steps, every earlier latent (or the last ``memory``) shown as that step leaves it.

    One denoising step of all chunks comes before the next step of any; the kernels, and so the law, are those of
    chunk after chunk with the states of each step kept.
    """
    references = References.all(noise="matched") if memory is None else References.last(memory, noise="matched")
    return together(_warped(timesteps, shift, horizon), frames, references=references, name="hiar")


def dfot(frames: int = 8, context: int = 8, steps: int = 50, level: float = 0.0) -> Plan:
    """DFoT with history guidance: ``frames`` together given the last ``context``, all placeholders.

    What is its own is the score, ``GuidedScore(weight)``. ``level`` is the noise of generated history (its
    stabilisation level).
    """
    levels = _levels(sigmoid_schedule(), range(1000, -1, -_thinned(steps)))
    return together(levels, frames, references=References.last(context, level), name="history-guidance")


def fademem() -> Plan:
    """FadeMem's memory has no plan.

    Raises:
        PlanError: always.
    """
    raise PlanError(
        "references: a reference of a plan is one frame, noised or not; here older neighbours in the cache are "
        "merged, again and again, so that an entry is a function of ever more frames"
    )


def cosmos_predict2(
    frames: int = 22,
    context: int = 2,
    steps: int = 35,
    sigma_max: float = 80.0,
    sigma_min: float = 2e-3,
    rho: float = 7.0,
) -> Plan:
    """Cosmos-Predict2 Video2World: 24 latents, of which the first ``context`` are given, at EDM's ρ-grid.

    Given latents are clean, and the network is told σ = 0.0001 for them.
    """
    ramp = np.linspace(sigma_max ** (1 / rho), sigma_min ** (1 / rho), steps) ** rho
    levels = (*clock_from_sigma(ramp).tolist(), 0.0)
    return together(levels, frames, references=References.last(context), name="cosmos-predict2")


def longcat_video(
    frames: int = 20, context: int = 4, steps: int = 50, shift: float = 1.0, horizon: float = HORIZON
) -> Plan:
    """LongCat-Video's continuation: 24 latents, of which the first 4 are the last ones of the segment before."""
    times = (*np.linspace(1, 0.001, steps).tolist(), 0.0)
    levels = flow_levels(shifted_flow_time(times, shift), horizon)
    return together(levels, frames, references=References.last(context), name="longcat-video")


def rolling_sink(
    frames: int = 3,
    timesteps: Sequence[int] = (1000, 750, 500, 250),
    shift: float = 5.0,
    sink: int = 18,
    recent: int = 3,
    horizon: float = HORIZON,
) -> Plan:
    """Rolling Sink: Self-Forcing's steps, given the last chunk and the first ``sink`` latents."""
    levels = _warped(timesteps, shift, horizon)
    return together(levels, frames, references=_sink(sink, recent), name="rolling-sink")


def rolling_forcing(
    chunk: int = 3,
    timesteps: Sequence[int] = (1000, 800, 600, 400, 200),
    shift: float = 5.0,
    sink: int = 3,
    recent: int = 3,
    horizon: float = HORIZON,
) -> Plan:
    """Rolling Forcing: as many chunks in flight as there are levels, one step of all of them an AR step."""
    levels = _warped(timesteps, shift, horizon)
    return pipeline(levels, gap=1, chunk=chunk, references=_sink(sink, recent), name="rolling-forcing")


def magi(
    chunk: int = 6, chunks: int = 4, steps: int = 32, shift: float = 3.0, context: int = 1, horizon: float = 18.0
) -> Plan:
    """MAGI-1: chunks of 24 frames (6 latents), a new one when the last has a quarter of its steps behind it.

    A chunk sees itself, those before it in flight and ``context`` clean chunks. Native time u ∈ [0, 1] runs from
    noise to data as u², then shifted; T = 18 lies above the first level after pure noise (16.06).
    """
    if steps % chunks:
        raise PlanError(f"steps: {steps} steps do not divide among {chunks} chunks")
    data = np.linspace(0, 1, steps + 1) ** 2
    levels = flow_levels(shifted_flow_time(1 - data, shift), horizon)
    return pipeline(
        levels,
        gap=steps // chunks,
        chunk=chunk,
        references=References.last(context * chunk),
        visible=(chunk_causal_mask(chunk * chunks, chunk),),
        name="magi-1",
    )


def pyramidal_flow(stages: int = 3, steps: int = 28, gamma: float = 1 / 3, horizon: float = HORIZON) -> Plan:
    """Pyramidal Flow's levels, read literally; :class:`Plan` refuses them: each new stage starts noisier.

    Stage k of K (from 0) ends at flow-matching time 1 - (k+1)/K. The next, at twice the resolution, starts at
    1 - s/(√(1 + 1/γ) (1 - s) + s), s = (k+1)/K being the signal's share.
    """
    times: list[float] = []
    for stage in range(stages):
        share = stage / stages
        start = 1 - share / ((1 + 1 / gamma) ** 0.5 * (1 - share) + share)
        times.extend(np.linspace(start, 1 - (stage + 1) / stages, steps + 1).tolist())
    return together(flow_levels(times, horizon), frames=1, name="pyramidal-flow")


def framepack_f1(
    frames: int = 9, steps: int = 25, shift: float = 7.0, first: int = 1, recent: int = 19, horizon: float = 12.0
) -> Plan:
    """FramePack-F1: sections of 9 latents, given the first latent and the last 1 + 2 + 16.

    T = 12 lies above the first level after pure noise (10.25).
    """
    levels = flow_levels(shifted_flow_time(np.linspace(1, 0, steps + 1), shift), horizon)
    return together(levels, frames, references=_sink(first, recent), name="framepack-f1")


def framepack() -> Plan:
    """FramePack's anti-drifting order has no plan.

    Raises:
        PlanError: always.
    """
    raise PlanError(
        "order: AR step k of a plan makes frames that follow those that are out; here the first section made is "
        "the far end of the video, and each later one lies before it"
    )


def gamengen(context: int = 64, steps: int = 4, context_noise: float = 0.7) -> Plan:
    """GameNGen: one frame in 4 steps given the last 64, noised with σ = ``context_noise`` (0: left alone)."""
    levels = _levels(scaled_linear_schedule(0.00085, 0.012), np.linspace(1000, 0, steps + 1))
    references = References.last(context, float(clock_from_sigma(context_noise)))
    return together(levels, frames=1, references=references, name="gamengen")


def diamond(
    context: int = 4, steps: int = 3, sigma_max: float = 5.0, sigma_min: float = 2e-3, rho: float = 7.0
) -> Plan:
    """DIAMOND: one frame in 3 steps given the last 4, at σ falling as EDM's ρ-grid and then to 0."""
    ramp = np.linspace(sigma_max ** (1 / rho), sigma_min ** (1 / rho), steps) ** rho
    levels = (*clock_from_sigma(ramp).tolist(), 0.0)
    return together(levels, frames=1, references=References.last(context), name="diamond")


def oasis(context: int = 31, steps: int = 100, context_timestep: int = 300) -> Plan:
    """Oasis: one frame on the sigmoid schedule given the last 31, noised by ``context_timestep`` noising steps.

    Its last step goes from timestep 10 to itself: frames come out at that level (δ = 0.0031), and the noise of
    the context comes on top of it.
    """
    schedule = sigmoid_schedule()
    levels = _levels(schedule, range(1000, 0, -_thinned(steps)))
    noise = float(schedule.clock(context_timestep)) + levels[-1]
    return together(levels, frames=1, references=References.last(context, noise), name="oasis")
