"""Seen once, asked for again later: what trained networks retrieve, against the best that their memory allows.

Two walkers in randomly coloured maps and one Gaussian video, whose last frame shows a latent that was in view at
first, each with the last m frames as references. Everything is measured twice:

- ``true frames``: one AR step at a time behind true frames, which is what the closed forms of
  :mod:`arvdm_theory.laws.gridworld.retrieval` are about. A walker's frame is right if every cell that it shows has
  the map's colour, and only revisits count; the Gaussian video's number is the correlation of the generated query
  with the latent.
- ``rollout``: behind its own frames. A cell is right if it has the colour that the same video showed at first; the
  correlation is that of the generated query with the mean of the generated frames that first show the latent.

``trained`` is held against the generator that says the likeliest frame (``best``), the one that samples the true
conditional (``sample``, which is what a diffusion model is trained to do) and the one that remembers nothing and
samples (``chance``). Behind a rollout's own frames a cell that ever was out of memory since it was first shown is
drawn afresh, so that ``sample`` is Π (1, or Σ p² where lost) over the cells of a frame.

The colours are not equally likely: of equally likely ones guessing and sampling are right equally often, and the
two generators could not be told apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import norm
from torch import Tensor

from arvdm_theory.experiments.networks import Job, Network, Preset, Setting, train_job
from arvdm_theory.experiments.record import Cell
from arvdm_theory.information.gaussian import condition
from arvdm_theory.interfaces import Score
from arvdm_theory.laws.gaussian import ArrayVideo, GaussianVideo
from arvdm_theory.laws.gridworld.retrieval import Guess, expected_retrieval
from arvdm_theory.laws.gridworld.video import GridSample, GridVideo
from arvdm_theory.laws.gridworld.view import View
from arvdm_theory.laws.gridworld.world import World, ring, torus
from arvdm_theory.laws.long_memory import NeedleVideo
from arvdm_theory.plan import Plan, References
from arvdm_theory.training.config import TrainingConfig
from arvdm_theory.video.intervals import cluster_rate

__all__ = ["PRESETS", "headline", "ideal_rollout", "latent_correlations", "networks", "run", "unbroken"]

_TWIN = "Gaussian needle"
_PRIOR = (0.5, 0.3, 0.2)
_SEEN, _QUERY, _STRENGTH = 2, 8, 2.0
_TRUE, _OWN = "true frames", "rollout"

Row = tuple[str, str, float, float, float, int, int]
_COLUMNS = ["behind", "source", "rate", "low", "high", "trials", "clusters"]

PRESETS = {
    "smoke": Preset(
        Network("transformer", options={"width": 16, "depth": 1, "heads": 2, "patch": 2}),
        TrainingConfig(steps=30, batch=32, ar_steps=5, warmup=5, ema=0.9, tensorboard=False),
        rollouts=20, samples=100, ar_steps=5, reverse_steps=4, note="seconds on one core",
        options={
            "worlds": ((ring(4), View("patch", 2), (0, 2)), (torus(2, 2), View("patch", 2), (2,))),
            "twin": (
                Network(options={"width": 16, "depth": 1}),
                TrainingConfig(steps=30, batch=32, ar_steps=_QUERY, warmup=5, ema=0.9, tensorboard=False),
                (8,),
            ),
        },
    ),
    "cpu": Preset(
        Network("transformer", options={"width": 32, "depth": 1, "heads": 2, "patch": 4}),
        TrainingConfig(steps=500, batch=128, ar_steps=24, lr=3e-3, warmup=100, ema=0.99),
        rollouts=300, samples=4000, ar_steps=24, reverse_steps=20, note="two cores, under 1 GiB",
        options={
            "worlds": (
                (ring(8), View("patch", 4), (0, 2, 4, 8)),
                (torus(3, 4), View("patch", 4), (0, 2, 4, 8, 16)),
            ),
            "twin": (
                Network(options={"width": 96, "depth": 2}),
                TrainingConfig(steps=2000, batch=256, ar_steps=_QUERY, lr=2e-3, warmup=100, ema=0.995),
                (2, 4, 6, 7, 8),
            ),
        },
    ),
    "gpu": Preset(
        Network("transformer", options={"width": 384, "depth": 6, "heads": 6, "patch": 8}),
        TrainingConfig(steps=50_000, batch=256, ar_steps=48, lr=3e-4, warmup=2000, ema=0.9999, bf16=True),
        rollouts=4000, samples=200_000, ar_steps=48, reverse_steps=40,
        note="one CUDA device of 24 GiB, some six hours a network with the longest memory",
        options={
            "worlds": (
                (ring(16), View("patch", 16), (0, 2, 4, 8, 16, 32)),
                (torus(6, 6), View("topdown", 24, radius=1), (0, 2, 4, 8, 16, 32)),
            ),
            "twin": (
                Network(options={"width": 1024, "depth": 6}),
                TrainingConfig(steps=50_000, batch=4096, ar_steps=_QUERY, lr=5e-4, warmup=1000, ema=0.9999),
                tuple(range(_QUERY + 1)),
            ),
        },
    ),
}  # fmt: skip


def _plan(preset: Preset, memory: int) -> Plan:
    m = preset.reverse_steps
    return Plan((6.0,), 1, 6.0, m, init_steps=m, references=References.last(memory))


def _world_job(preset: Preset, world: World, view: View, memory: int) -> Job[GridVideo]:
    options = dict(preset.network.options)
    if memory:
        options["memory"] = {"structure": "cross"}
    network = Network(preset.network.architecture, preset.network.prediction, options)
    return Job(GridVideo(world, view, prior=_PRIOR), _plan(preset, memory), network, preset.training)


def _needle() -> NeedleVideo:
    return NeedleVideo(_QUERY, seen=_SEEN, strength=_STRENGTH, background_correlation=0.5, name=_TWIN)


def _twin_job(preset: Preset, memory: int) -> Job[NeedleVideo]:
    network, training, _ = preset.options["twin"]
    return Job(_needle(), _plan(preset, memory), network, training, absolute=True)


def _jobs(preset: Preset) -> list[tuple[int, Job[Any], Callable[..., Iterator[Row]]]]:
    """(m, network, what is measured of it)."""
    grid = [
        (memory, _world_job(preset, world, view, memory), _walker)
        for world, view, memories in preset.options["worlds"]
        for memory in memories
    ]
    return [*grid, *((memory, _twin_job(preset, memory), _latent) for memory in preset.options["twin"][2])]


def networks(preset: Preset) -> list[Job[Any]]:
    """The networks that a preset trains."""
    return [job for _, job, _ in _jobs(preset)]


def run(setting: Setting) -> dict[str, pd.DataFrame]:
    """The table: a row a (video, m, behind which frames, source).

    ``rate`` is a share of revisits or a correlation, with its 95 % interval for the trained network; a sample of
    ``trials`` frames in ``clusters`` videos. Closed forms have neither.
    """
    preset = PRESETS[setting.preset]
    jobs = {(job.video.name, memory): (job, measured) for memory, job, measured in _jobs(preset)}

    def rows(cell: Cell) -> Iterator[Row]:
        job, measured = jobs[cell["video"], cell["memory"]]
        return measured(preset, job, train_job(job, setting).as_score(), setting)

    cells = [{"video": video, "memory": memory} for video, memory in jobs]
    return {"needle": setting.table("needle", cells, rows, _COLUMNS)}


def _exact(behind: str, source: str, rate: float) -> Row:
    return behind, source, rate, rate, rate, 0, 0


# -- walkers ---------------------------------------------------------------------------------------------


def _walker(preset: Preset, job: Job[GridVideo], score: Score, setting: Setting) -> Iterator[Row]:
    """Retrieval rates of one world and memory length."""
    video, plan, steps, count = job.video, job.plan, preset.ar_steps, preset.rollouts
    memory = plan.references.most or 0
    guesses: tuple[Guess, ...] = ("best", "sample")
    for guess in guesses:
        rate = expected_retrieval(video, [memory], steps, guess=guess)[0].frame_rate
        yield _exact(_TRUE, guess, rate)
    chance = expected_retrieval(video, [0], steps, guess="sample")[0].frame_rate

    truth = video.sample(count, plan.total_frames(steps), torch.Generator().manual_seed(setting.seed + 1))
    flat = truth.frames.flatten(2)
    known = {"frame_dim": flat.shape[-1], "actions": video.actions(truth.paths)}
    after_true = truth.frames.clone()
    for k in range(1, steps + 1):
        made = setting.generate(score, plan, k, count, seed=_seed(setting, k), prompt=flat[:, :k], **known)
        after_true[:, k] = made[:, k].reshape(truth.frames[:, k].shape)
    own = setting.generate(score, plan, steps, count, seed=_seed(setting, 0), **known)
    own = own.reshape(truth.frames.shape)

    visible = torch.from_numpy(video.visible)[truth.paths]
    again = _again(visible)
    clusters = torch.arange(count)[:, None].expand(again.shape)[again].numpy()
    for behind, frames, wanted in (
        (_TRUE, after_true, truth.maps[:, None].expand(visible.shape)),
        (_OWN, own, _first_shown(video, own, truth)),
    ):
        right = ((video.read(frames, truth.paths) == wanted) | ~visible).all(-1)[again].numpy()
        found = cluster_rate(right, clusters)
        yield behind, "trained", found.value, found.ci_low, found.ci_high, len(right), len(np.unique(clusters))
        yield _exact(behind, "chance", chance)
    second = video.prior.square().sum(-1)
    kept = unbroken(visible, plan, steps)
    share = torch.where(visible & ~kept, second, 1.0).prod(-1)[again]
    yield _exact(_OWN, "sample", float(share.mean()))


def _seed(setting: Setting, stage: int) -> int:
    return 10_000 * setting.seed + 100 + stage


def _again(visible: Tensor) -> Tensor:
    """Which frames are revisits: everything that they show was shown before, (videos, frames)."""
    before = visible.cumsum(1) - visible.long() > 0
    result: Tensor = (before | ~visible).all(-1)
    return result


def unbroken(visible: Tensor, plan: Plan, ar_steps: int) -> Tensor:
    """Which cells a frame shows that never left the memory since they were first shown, (videos, frames, cells).

    A cell that a rollout's references do not show is drawn afresh. With the last m frames as references, two that
    show a cell agree: the later was made when the earlier was in memory.

    Args:
        visible: which cells the frames show, (videos, frames, cells).
        plan: w = Δ = 1.
        ar_steps: K.
    """
    kept = visible.clone()
    broken = torch.zeros_like(visible[:, 0])
    for k in range(1, ar_steps + 1):
        shown = visible[:, [r.frame for r in plan.references_at(k)]].any(1)
        before = visible[:, :k].any(1)
        broken |= visible[:, k] & before & ~shown
        kept[:, k] = visible[:, k] & ~broken
    return kept


def _first_shown(video: GridVideo, frames: Tensor, truth: GridSample) -> Tensor:
    """The colour in which each cell was first shown, as of every frame (-1: not yet), (videos, frames, cells)."""
    read = video.read(frames, truth.paths)
    first = read.clone()
    for t in range(1, read.shape[1]):
        first[:, t] = torch.where(first[:, t - 1] >= 0, first[:, t - 1], read[:, t])
    return first


# -- the Gaussian twin -----------------------------------------------------------------------------------


def _with_latent(video: NeedleVideo) -> ArrayVideo:
    """The latent Z ~ N(0, 1) as one more frame in front of a video of scalar frames."""
    frames = _QUERY + 1
    covariance = torch.zeros(frames + 1, frames + 1, dtype=torch.float64)
    covariance[1:, 1:] = video.covariance(frames)[0]
    shows = torch.tensor([0, *(1 + t for t in (*video.seen, *video.query))])
    covariance[0, shows] = covariance[shows, 0] = _STRENGTH
    covariance[0, 0] = 1.0
    return ArrayVideo(covariance, 1)


def latent_correlations(covariance: Tensor, memory: int) -> tuple[float, float]:
    """Correlation with Z = variable 0 of what a generator says for the last variable behind true frames.

    No function of R has a larger correlation than E[Z | R], which has {Var E[Z | R] / Var Z}^{1/2}: that is the
    best generator's. The one that samples X ~ p(x | R) has Cov(E[X | R], Z)/(sd X · sd Z), as its own noise is
    independent of Z given R.

    Args:
        covariance: of (Z, X_1, .., X_n), (n + 1, n + 1).
        memory: m; R is the m frames before the last.

    Returns:
        of the best one, and of the one that samples.
    """
    last = covariance.shape[0] - 1
    shown = range(max(last - memory, 1), last)
    if not shown:
        return 0.0, 0.0
    gain, _ = condition(covariance, [0, last], list(shown))
    known = gain @ covariance[list(shown), 0]  # Var E[Z | R] and Cov(E[X | R], Z)
    spread = covariance.diagonal().sqrt()
    best = float(known[0].sqrt() / spread[0])
    sample = float(known[1] / spread[0] / spread[last])
    return best, sample


def ideal_rollout(covariance: Tensor, memory: int) -> Tensor:
    """Covariance of the frames of a rollout that samples the true conditionals given the last m frames, (n, n)."""
    made = covariance[:1, :1].clone()
    for k in range(1, covariance.shape[0]):
        shown = list(range(max(k - memory, 0), k))
        gain, left = condition(covariance, [k], shown)
        cross = gain @ made[shown]
        own = gain @ made[shown][:, shown] @ gain.mT + left
        made = torch.cat([torch.cat([made, cross.mT], 1), torch.cat([cross, own], 1)])
    return made


def _latent(preset: Preset, job: Job[NeedleVideo], score: Score, setting: Setting) -> Iterator[Row]:
    """Correlations of the Gaussian twin of one memory length."""
    video, plan, count = job.video, job.plan, preset.samples
    memory, law = plan.references.most or 0, _with_latent(video)
    best, sample = latent_correlations(law.covariance(_QUERY + 2)[0], memory)
    yield _exact(_TRUE, "best", best)
    yield _exact(_TRUE, "sample", sample)
    truth = law.sample(count, _QUERY + 2, torch.Generator().manual_seed(setting.seed + 1))[:, 0]
    prompt = truth[:, 1 : _QUERY + 1]
    made = setting.generate(score, plan, _QUERY, count, video=video, prompt=prompt, seed=_seed(setting, 1))
    yield _correlation(_TRUE, truth[:, 0, 0], made[:, _QUERY, 0])
    yield _exact(_TRUE, "chance", 0.0)
    made = setting.generate(score, plan, _QUERY, count, video=video, seed=_seed(setting, 0))[..., 0]
    yield _correlation(_OWN, made[:, :_SEEN].mean(-1), made[:, _QUERY])
    yield _exact(_OWN, "chance", 0.0)
    yield _exact(_OWN, "sample", _query_correlation(ideal_rollout(_frames(video), memory)))


def _frames(video: GaussianVideo) -> Tensor:
    return video.covariance(_QUERY + 1)[0]


def _query_correlation(covariance: Tensor) -> float:
    """Correlation of the query with the mean of the frames that first show the latent."""
    weight = torch.zeros(_QUERY + 1, dtype=torch.float64)
    weight[:_SEEN] = 1 / _SEEN
    spread = torch.sqrt(weight @ covariance @ weight * covariance[_QUERY, _QUERY])
    return float(weight @ covariance[:, _QUERY] / spread)


def _correlation(behind: str, a: Tensor, b: Tensor) -> Row:
    """With the interval of Fisher's transform, whose variance is 1/(n - 3) for Gaussian pairs."""
    n = len(a)
    rate = float(np.corrcoef(a.numpy(), b.numpy())[0, 1])
    width = float(norm.ppf(0.975)) / math.sqrt(n - 3)
    place = math.atanh(rate)
    return behind, "trained", rate, math.tanh(place - width), math.tanh(place + width), n, n


def headline(tables: dict[str, pd.DataFrame]) -> str:
    """Rates against memory length, and how many intervals hold the rate of sampling the true conditional."""
    table = tables["needle"]
    named = table.assign(what=table.behind + ": " + table.source)
    wide = named.pivot_table(index=["video", "memory"], columns="what", values="rate", sort=False)
    wide = wide.reindex(pd.MultiIndex.from_frame(named[["video", "memory"]].drop_duplicates()))
    keys = ["video", "memory", "behind"]
    trained = table[table.source == "trained"].set_index(keys)
    ideal = table[table.source == "sample"].set_index(keys).rate
    inside = (trained.low <= ideal) & (ideal <= trained.high)
    furthest: NDArray[np.float64] = (trained.rate - ideal).abs().to_numpy()
    return (
        "retrieval rate of revisits (of the Gaussian video: correlation with the latent):\n"
        f"{wide.to_string(float_format='{:.3f}'.format)}\n"
        f"the rate of sampling the true conditional lies in {int(inside.sum())} of {len(inside)} 95 % intervals; "
        f"the largest distance is {furthest.max():.3f}"
    )
