"""The Fréchet distance of short clips does not see the memory bottleneck: which length does?

A generator that sees the last m frames (w = Δ = 1) and samples the true conditional given them makes every window
of m + 1 frames of a stationary video exactly right, by induction: frame k is drawn from the true law given the m
before it, whose joint law is the true one. So every metric of windows of L ≤ m + 1 frames is blind to a memory
bottleneck however large, per-frame quality first of all, and what it can see from m + 2 frames on is a matter of
the number of videos.

The Fréchet distance is that of frame entries, between as many true as generated videos, the last L frames of each.
It is biased upwards, so the distance between two sets of true videos of the same number is taken off. It *sees*
the bottleneck of a short memory from the length on at which, there and at all longer ones, its excess over the
distance of the longest memory is more than two standard deviations of one such measurement.

``perfect sampler`` has no error but its memory: for a Gaussian video the ancestral step under the exact score,
whose law is Gaussian and known; for the finite-state one the Markov chain whose memory is m, on states as in
"decode inside the kernel". ``trained`` is a network's rollout: its distance also holds its score error, which
differs from network to network, so a short memory may be told from the longest sooner or later than by what it
forgets.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from arvdm_theory.decomposition.ledger import memory_bottleneck
from arvdm_theory.decomposition.state_kernels import frames_law
from arvdm_theory.diffusion.scores import ExactScore
from arvdm_theory.diffusion.steps import reverse_step
from arvdm_theory.experiments.networks import Job, Network, Preset, Setting, train_job
from arvdm_theory.experiments.record import Cell
from arvdm_theory.experiments.videos import VIDEOS, Video
from arvdm_theory.information.gaussian import kl_divergence
from arvdm_theory.laws.chains import MarkovChain
from arvdm_theory.laws.finite import FiniteStateVideo
from arvdm_theory.laws.gaussian import ArrayVideo, GaussianVideo
from arvdm_theory.laws.gaussian_kernel import Kernel
from arvdm_theory.laws.gaussian_sampler import SamplerLaw
from arvdm_theory.laws.states import State
from arvdm_theory.noise import alpha, noised, sigma2
from arvdm_theory.plan import Plan, References
from arvdm_theory.plan.stage import Stage
from arvdm_theory.rollout.measure import measured_kl
from arvdm_theory.training.config import TrainingConfig
from arvdm_theory.video.frechet import feature_distance, frechet_distance

__all__ = ["PRESETS", "headline", "networks", "run", "sampler_law", "seen_from", "with_memory"]

_PERFECT, _TRAINED = "perfect sampler", "trained"
_FLOOR, _HORIZON = 0.02, 8.0
_TRUTH = -1
"""Memory of the true videos that stand in for generated ones in the bias."""

PRESETS = {
    "smoke": Preset(
        Network(options={"width": 16, "depth": 1}),
        TrainingConfig(steps=20, batch=32, ar_steps=1, warmup=5, ema=0.9, tensorboard=False),
        rollouts=120, samples=0, ar_steps=3, reverse_steps=4, note="seconds on one core",
        options={
            "videos": {"needle": (4, (0, 2)), "walker on a circle": (4, (0, 2))}, "sizes": (20, 40), "repeats": 3,
            "read": 1,
        },
    ),
    "cpu": Preset(
        Network(options={"width": 128, "depth": 2}),
        TrainingConfig(steps=2500, batch=256, ar_steps=1, lr=2e-3, warmup=100, ema=0.995),
        rollouts=8000, samples=0, ar_steps=0, reverse_steps=20, note="two cores, under 1 GiB",
        options={
            "videos": {
                "needle": (10, (0, 2, 8)), "long memory": (16, (0, 2, 8)), "walker on a circle": (10, (0, 1, 2)),
            },
            "sizes": (250, 1000, 4000), "repeats": 8, "read": 4,
        },
    ),
    "gpu": Preset(
        Network("transformer", options={"width": 512, "depth": 8, "heads": 8}),
        TrainingConfig(steps=100_000, batch=4096, ar_steps=1, lr=3e-4, warmup=2000, ema=0.9999),
        rollouts=400_000, samples=0, ar_steps=0, reverse_steps=40,
        note="one CUDA device of 24 GiB, about an hour a network",
        options={
            "videos": {
                "needle": (14, (0, 2, 4, 12)), "long memory": (32, (0, 2, 8, 16)),
                "walker on a circle": (10, (0, 1, 2)),
            },
            "sizes": (250, 1000, 4000, 16_000), "repeats": 25, "read": 5,
        },
    ),
}  # fmt: skip


def _plan(preset: Preset, memory: int) -> Plan:
    m = preset.reverse_steps
    references = References.last(memory)
    return Plan(
        (_HORIZON,), 1, _HORIZON, m, init_steps=m, references=references, floor=_FLOOR, spacing="geometric"
    )


def _job(preset: Preset, name: str, frames: int, memory: int) -> Job[Video]:
    """Of a stationary video all AR steps are alike once m frames are out: it is trained on these alone."""
    video, training = VIDEOS[name](), preset.training
    moving = name == "needle"
    steps = frames - 1 if moving else max(memory, 1)
    training = TrainingConfig.from_json({**training.to_json(), "ar_steps": steps})
    network = preset.network
    if moving:
        # In units of 64 frames the few positions of so short a video could hardly be told apart.
        network = Network(network.architecture, network.prediction, {**network.options, "horizon_frames": 4})
    return Job(video, _plan(preset, memory), network, training, absolute=moving)


def networks(preset: Preset) -> list[Job[Video]]:
    """The networks that a preset trains."""
    videos: Mapping[str, tuple[int, tuple[int, ...]]] = preset.options["videos"]
    return [_job(preset, name, frames, m) for name, (frames, memories) in videos.items() for m in memories]


def run(setting: Setting) -> dict[str, pd.DataFrame]:
    """Two tables.

    ``blind-metrics-repeats``: every Fréchet distance, a row a (video, source, number of videos, repeat, memory m,
    length L); m = -1 are true videos in place of generated ones.
    ``blind-metrics``: a row a (video, source, memory m, quantity, size, length L), with the standard deviation of
    one measurement with ``size`` videos (infinitely many: exact): ``fd`` less its bias, ``kl`` of the window in
    nats, ``mb``, the memory bottleneck summed over all AR steps (nats), and ``seen_from``, whose value is the
    length from which the distance sees it (NaN: not in this video).
    """
    preset = PRESETS[setting.preset]
    cells = [{"video": name, "source": source} for name in preset.options["videos"] for source in _SOURCES]
    drawn: dict[tuple[str, str, int], Tensor] = {}  # a cell's rollouts, if this run made them

    def rollouts(cell: Cell, memory: int) -> Tensor:
        key = (cell["video"], cell["source"], memory)
        if key not in drawn:
            drawn[key] = _SOURCES[cell["source"]](preset, cell["video"], memory, setting)
        return drawn[key]

    def distances(cell: Cell) -> Iterator[tuple[int, int, int, int, float]]:
        made = {m: rollouts(cell, m) for m in preset.options["videos"][cell["video"]][1]}
        return _distances(preset, cell["video"], made, setting)

    columns = ["size", "repeat", "memory", "length", "fd"]
    repeats = setting.table("blind-metrics-repeats", cells, distances, columns)

    def summary(cell: Cell) -> Iterator[Row]:
        yield from _summary(repeats[(repeats.video == cell["video"]) & (repeats.source == cell["source"])])
        for memory in preset.options["videos"][cell["video"]][1]:
            if cell["source"] == _PERFECT:
                yield from _exact(preset, cell["video"], memory)
            else:
                yield from _measured(preset, cell["video"], memory, rollouts(cell, memory))

    columns = ["memory", "quantity", "size", "length", "value", "stderr"]
    return {
        "blind-metrics": setting.table("blind-metrics", cells, summary, columns),
        "blind-metrics-repeats": repeats,
    }


Row = tuple[int, str, float, int, float, float]


# -- videos ----------------------------------------------------------------------------------------------


def sampler_law(video: GaussianVideo, plan: Plan, ar_steps: int, step: str = "ancestral") -> ArrayVideo:
    """The Gaussian law of the frames that a rollout of the exact score puts out.

    Args:
        video: the truth, of one mode.
        plan: the plan, with w = Δ.
        ar_steps: K.
        step: the reverse step; ``ancestral`` has no discretisation error.
    """
    rule = reverse_step(step)

    def kernel(stage: Stage) -> Kernel:
        own = video.at(stage).kernel(ExactScore(), rule)
        assert own is not None  # the exact score is affine
        return own

    first, *later = plan.stages(ar_steps)
    made = SamplerLaw.initial(plan, kernel(first), video.frame_dim)
    for stage in later:
        made = made.advance(plan, stage, kernel(stage))
    return ArrayVideo(made.covariance[0], video.frame_dim, made.mean[0])


def with_memory(video: FiniteStateVideo, memory: int) -> FiniteStateVideo:
    """What remembers m states and else is like a stationary video: Z_k ~ p(z_k | z_{k-m}, .., z_{k-1}).

    Its windows of m + 1 states are the video's. With m of the video's own order or more it is the video.
    """
    chain = video.chain
    if memory >= chain.order:
        return video
    law = frames_law(chain, range(memory + 1))
    if memory == 0:
        return FiniteStateVideo(MarkovChain(law.expand(chain.states, -1), law), video.rendering, name=video.name)
    before = law.sum(-1, keepdim=True)
    # After states that never follow each other anything may come: it is never asked for.
    rows = torch.where(before > 0, law / before, 1 / chain.states)
    return FiniteStateVideo(MarkovChain(rows, before.squeeze(-1)), video.rendering, name=video.name)


def _at_floor(video: GaussianVideo, frames: int) -> ArrayVideo:
    """The law of true frames as they stand at the floor."""
    mean, covariance = video.joint([State(frame, _FLOOR) for frame in range(frames)])
    return ArrayVideo(covariance[0], video.frame_dim, mean[0])


def _drawn(video: Video, frames: int, count: int, generator: torch.Generator) -> Tensor:
    """(count, frames, d), at the floor, where the Gaussian laws that it is given stand already."""
    made = video.draw(count, frames, generator).frames
    return made if video.gaussian else noised(made, torch.full((frames,), _FLOOR).to(made), noise=generator)


def _perfect(preset: Preset, name: str, memory: int, setting: Setting) -> Tensor:
    """As many as the largest size asks for, (videos, frames, d)."""
    video, frames = VIDEOS[name](), preset.options["videos"][name][0]
    count = preset.options["repeats"] * max(preset.options["sizes"])
    generator = torch.Generator().manual_seed(1000 * setting.seed + memory)
    if video.gaussian:
        return _drawn(sampler_law(video, _plan(preset, memory), frames - 1), frames, count, generator)
    return _drawn(with_memory(video, memory), frames, count, generator)


def _trained(preset: Preset, name: str, memory: int, setting: Setting) -> Tensor:
    frames = preset.options["videos"][name][0]
    job = _job(preset, name, frames, memory)
    score = train_job(job, setting).as_score()
    return setting.generate(score, job.plan, frames - 1, preset.rollouts, video=job.video, seed=setting.seed + 1)


_SOURCES = {_PERFECT: _perfect, _TRAINED: _trained}


# -- distances -------------------------------------------------------------------------------------------


def _distances(
    preset: Preset, name: str, made: Mapping[int, Tensor], setting: Setting
) -> Iterator[tuple[int, int, int, int, float]]:
    """(size, repeat, memory, length, distance); all memories of a repeat are held against the same true videos."""
    video, (frames, _) = VIDEOS[name](), preset.options["videos"][name]
    repeats, each = preset.options["repeats"], min(map(len, made.values())) // preset.options["repeats"]
    generator = torch.Generator().manual_seed(1000 * setting.seed + 999)
    law = _at_floor(video, frames) if video.gaussian else video
    for repeat in range(repeats):
        truth, other = (_drawn(law, frames, each, generator) for _ in range(2))
        own = slice(repeat * each, (repeat + 1) * each)
        sets = {_TRUTH: other} | {memory: videos[own] for memory, videos in made.items()}
        for size in preset.options["sizes"]:
            if size > each:
                continue
            for length in range(1, frames + 1):
                features = [part[:size, -length:].flatten(1).numpy() for part in (truth, *sets.values())]
                for memory, generated in zip(sets, features[1:], strict=True):
                    yield size, repeat, memory, length, feature_distance(features[0], generated).distance.value


def _summary(rows: pd.DataFrame) -> Iterator[Row]:
    """Distances less their bias, and from where they see the bottleneck."""
    for size, part in rows.groupby("size"):
        wide = part.pivot_table(index=["memory", "length"], columns="repeat", values="fd")
        memories = [int(m) for m in part.memory.unique() if m != _TRUTH]
        at = {m: wide.loc[m].to_numpy() for m in (_TRUTH, *memories)}
        for memory in memories:
            excess = at[memory] - at[_TRUTH]
            for length, (mean, spread) in enumerate(zip(excess.mean(1), excess.std(1, ddof=1), strict=True), 1):
                yield memory, "fd", size, length, mean, spread  # type: ignore[misc]
        for memory in memories[:-1]:
            found = seen_from(at[memory] - at[memories[-1]])
            yield memory, "seen_from", size, 0, found, 0.0  # type: ignore[misc]


def seen_from(excess: NDArray[np.float64], deviations: float = 2.0) -> float:
    """The length from which on an excess is more than noise at every length; NaN if it is not at the last.

    Args:
        excess: of each length 1.. and repeat, (lengths, repeats).
        deviations: standard deviations of one measurement that its mean must exceed.
    """
    clear = excess.mean(1) > deviations * excess.std(1, ddof=1)
    blind = np.flatnonzero(~clear)
    first = 1 if len(blind) == 0 else int(blind[-1]) + 2
    return float(first) if first <= len(clear) else math.nan


Moments = tuple[Tensor, Tensor]


def _exact(preset: Preset, name: str, memory: int) -> Iterator[Row]:
    """Of the perfect sampler: distance and divergence of windows, and the memory bottleneck of all AR steps."""
    video, frames, plan = VIDEOS[name](), preset.options["videos"][name][0], _plan(preset, memory)
    if video.gaussian:
        windows = list(_gaussian_windows(video, plan, frames))
        lost = sum(float(memory_bottleneck(video, plan, k)) for k in range(1, frames))
    else:
        windows = list(_chain_windows(video, memory, frames))
        lost = windows[-1][2]  # the first frame has no past: what the windows lose is what the AR steps lose
    for length, (true, made, divergence) in enumerate(windows, 1):
        distance = frechet_distance(*(part.numpy() for part in (*true, *made)))
        yield memory, "fd", math.inf, length, distance, 0.0
        yield memory, "kl", math.inf, length, divergence, 0.0
    yield memory, "mb", math.inf, 0, lost, 0.0


def _gaussian_windows(video: GaussianVideo, plan: Plan, frames: int) -> Iterator[tuple[Moments, Moments, float]]:
    """Moments of the last 1.. frames, true and the perfect sampler's, and their divergence."""
    laws = [law.joint_moments(frames) for law in (_at_floor(video, frames), sampler_law(video, plan, frames - 1))]
    for length in range(1, frames + 1):
        own = slice(-length * video.frame_dim, None)
        true, made = ((mean[0, own], covariance[0, own, own]) for mean, covariance in laws)
        yield true, made, float(kl_divergence(*true, *made))


def _chain_windows(video: FiniteStateVideo, memory: int, frames: int) -> Iterator[tuple[Moments, Moments, float]]:
    """The same on states, where the chain with memory m has the divergence Σ_j I(Z_j; all before | the last m)."""
    chain, own = video.chain, with_memory(video, memory)
    laws = [frames_law(chain, range(n)) for n in range(1, max(chain.order, memory) + 2)]
    # H(Z_j | all before), in nats: what one state more adds.
    entropies = np.diff([-float(torch.xlogy(law, law).sum()) for law in laws], prepend=0.0)
    lost = 0.0
    for before in range(frames):
        lost += float(entropies[min(before, memory)] - entropies[min(before, chain.order)])
        yield _window_moments(video, before + 1), _window_moments(own, before + 1), lost


def _window_moments(video: FiniteStateVideo, length: int) -> Moments:
    """Mean and covariance of a window of a stationary video at the floor, (n,) and (n, n)."""
    pictures = video.rendering.average(torch.eye(video.chain.states, dtype=torch.float64))
    level = torch.tensor(_FLOOR, dtype=torch.float64)
    alone = frames_law(video.chain, range(1))
    mean, dim = alone @ pictures, video.frame_dim
    covariance = torch.zeros(length, dim, length, dim, dtype=torch.float64)
    for lag in range(length):
        joint = frames_law(video.chain, (0, lag)) if lag else torch.diag(alone)
        block = pictures.mT @ joint @ pictures - torch.outer(mean, mean)
        for start in range(length - lag):
            covariance[start, :, start + lag] = block
            covariance[start + lag, :, start] = block.mT
    flat = alpha(level) ** 2 * covariance.reshape(length * dim, -1) + sigma2(level) * torch.eye(length * dim)
    return alpha(level) * mean.repeat(length), flat


def _measured(preset: Preset, name: str, memory: int, made: Tensor) -> Iterator[Row]:
    """The divergence of a trained network's windows, from all its rollouts."""
    video, frames = VIDEOS[name](), made.shape[1]
    # Tables of what is read grow like 6^L: beyond this too few videos fall into a cell.
    for length in range(1, (frames if video.gaussian else min(frames, preset.options["read"])) + 1):
        found = measured_kl(video, made, range(frames - length, frames), _FLOOR)
        yield memory, "kl", len(made), length, found.value, found.stderr


def headline(tables: dict[str, pd.DataFrame]) -> str:
    """From which length the distance sees each memory bottleneck, at each number of videos."""
    table = tables["blind-metrics"]
    keys = ["video", "memory"]
    mb = table[table.quantity == "mb"].set_index(keys).value.rename("Σ MB")
    seen = table[table.quantity == "seen_from"].assign(
        what=lambda rows: rows.source + ", " + rows["size"].map("{:.0f} videos".format)
    )
    wide = seen.set_index([*keys, "what"]).value.unstack("what", sort=False)
    frames = table.groupby("video", sort=False).length.max().rename("frames")
    shown = wide.join(mb).join(frames).rename_axis(index=["video", "last m frames"])
    return (
        "windows from which on the Fréchet distance exceeds the longest memory's by two standard deviations\n"
        "(NaN: never), beside the memory bottleneck in nats:\n"
        f"{shown.to_string(float_format=lambda value: f'{value:.4g}')}"
    )
