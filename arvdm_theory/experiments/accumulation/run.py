"""Clip KL over AR steps: predicted on true data without a rollout, against what rollouts are measured to be.

Four videos, two plans and two denoisers each: a linear one, fitted by least squares, and a nonlinear network. For
the linear one the prediction by linear response must agree with the measurement within its errors; for the other
it is an estimate, and the ratio is reported. The videos and plans were fixed before anything was trained.

Predictions are made in independent repeats and rollouts looked at in independent parts, because errors of
successive AR steps are correlated: slopes have their standard error from the spread between these. For a
finite-state video the prediction is of moments (:mod:`arvdm_theory.rollout.predict`) and is held against measured
moments; what can be read in its generated clips stands beside them, and the bound, which is on the law itself,
holds for that too. Linear response may miss there by far, with the exact score in place of the network as well:
no affine map has its pull towards the nearest picture.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from arvdm_theory.decomposition.ledger import ledger
from arvdm_theory.experiments.networks import Job, Network, Preset, Setting, train_job
from arvdm_theory.experiments.record import Cell
from arvdm_theory.experiments.videos import VIDEOS, Video
from arvdm_theory.interfaces import Score
from arvdm_theory.laws.gaussian import GaussianVideo
from arvdm_theory.networks.denoiser import Denoiser
from arvdm_theory.noise import alpha, sigma2
from arvdm_theory.plan import Plan, References
from arvdm_theory.rollout.measure import measured_clip_kl, measured_kl
from arvdm_theory.rollout.predict import predicted_clip_kl
from arvdm_theory.training.config import TrainingConfig
from arvdm_theory.training.least_squares import fit_linear
from arvdm_theory.training.windows import WindowSampler

__all__ = ["PRESETS", "headline", "linear_losses", "networks", "run"]

_GAUSSIAN = ("AR(1) 0.95", "hidden state", "reference")
_VIDEOS = (*_GAUSSIAN, "two poses")
_DENOISERS = ("linear", "nonlinear")
_LINEAR = Network("linear", "x0")

# Levels equally far apart, where a perfect network's clip KL grows too; stopped where every video has a density.
_PLANS: dict[str, Callable[[int], Plan]] = {
    "outpainting, 2 references": lambda n: Plan(
        (6.0, 6.0), 2, 6.0, n, init_steps=n, references=References.last(2), floor=0.02
    ),
    "FIFO, 2 references": lambda n: Plan(
        (2.0, 4.0, 6.0), 1, 6.0, n // 3, init_steps=n, references=References.last(2), floor=0.02
    ),
}
# AR steps that are trained on: from the last of them on, the network is shown as many references as ever.
_TRAINED = {"outpainting, 2 references": 1, "FIFO, 2 references": 3}

PRESETS = {
    "smoke": Preset(
        Network(options={"width": 32, "depth": 1}),
        TrainingConfig(steps=10, batch=64, warmup=2, ema=0.9, tensorboard=False),
        rollouts=100, samples=60, ar_steps=3, reverse_steps=3, note="seconds on one core",
        options={
            "videos": ("AR(1) 0.95", "two poses"), "repeats": 2, "parts": 2, "pairs": 200,
            "linear": {"lr": 1e-2, "steps": 10, "warmup": 2},
        },
    ),
    "cpu": Preset(
        Network(options={"width": 128, "depth": 2}),
        TrainingConfig(steps=1500, batch=256, lr=2e-3, warmup=100, ema=0.995),
        rollouts=4096, samples=2048, ar_steps=12, reverse_steps=24, note="two cores, under 1 GiB",
        options={
            "videos": _VIDEOS, "repeats": 4, "parts": 16, "pairs": 8192,
            "linear": {"lr": 2e-2, "steps": 1500, "warmup": 100},
        },
    ),
    "gpu": Preset(
        Network("transformer", options={"width": 512, "depth": 8, "heads": 8}),
        TrainingConfig(steps=100_000, batch=4096, lr=3e-4, warmup=2000, ema=0.9999),
        rollouts=100_000, samples=50_000, ar_steps=14, reverse_steps=24,
        note="one CUDA device of 24 GiB, about an hour a network",
        options={
            "videos": _VIDEOS, "repeats": 8, "parts": 32, "pairs": 200_000,
            "linear": {"lr": 1e-2, "steps": 30_000, "warmup": 500},
        },
    ),
}  # fmt: skip
"""``reverse_steps`` are those of a frame; ``samples`` are over all ``repeats``, and the rollouts are looked at in
``parts`` for their slopes' errors; ``pairs`` are the videos of a least-squares fit, and ``linear`` is what differs
when the linear denoiser is trained instead."""


def _job(preset: Preset, video: str, plan: str, network: Network | None = None) -> Job[Video]:
    training = dataclasses.replace(preset.training, ar_steps=_TRAINED[plan])
    if network is not None:
        training = dataclasses.replace(training, weighting="x0", **preset.options["linear"])
    return Job(VIDEOS[video](), _PLANS[plan](preset.reverse_steps), network or preset.network, training)


def networks(preset: Preset) -> list[Job[Video]]:
    """The networks that a preset trains."""
    jobs = [_job(preset, video, plan) for video in preset.options["videos"] for plan in _PLANS]
    return jobs + [_job(preset, video, plan, _LINEAR) for video, plan in _linear_places(preset)]


def _linear_places(preset: Preset) -> list[tuple[str, str]]:
    return [(video, plan) for video in preset.options["videos"] if video in _GAUSSIAN for plan in _PLANS]


def _fitted(preset: Preset, job: Job[Video], seed: int) -> Denoiser:
    """The linear denoiser by least squares."""
    config = dataclasses.replace(job, network=_LINEAR).config()
    sampler = WindowSampler(job.plan, job.training.ar_steps, job.video, weighting="x0", dtype=torch.float64)
    return fit_linear(Denoiser(config), sampler, preset.options["pairs"], seed)


def run(setting: Setting) -> dict[str, pd.DataFrame]:
    """Three tables, in nats but for losses.

    ``accumulation``: a row a (video, plan, denoiser, AR step, curve). Curves: ``bound``, ``linear`` and
    ``linear_residual`` (predicted, see :func:`~arvdm_theory.rollout.predict.predicted_clip_kl`; of moments for the
    finite-state video), ``measured`` (of moments there), ``decoded`` (what is read in finite-state clips),
    ``closed form`` (the linear denoiser's own, on a Gaussian video) and ``exact score`` (a perfect network's).

    ``accumulation-slopes``: growth an AR step of every curve that has repeats, from a straight line through AR
    steps 1..``until``, by which the linear prediction has made nine tenths of its growth.

    ``linear``: expected losses of linear denoisers, exact: see :func:`linear_losses`.
    """
    preset = PRESETS[setting.preset]
    cells = [
        {"video": video, "plan": plan, "denoiser": denoiser}
        for video in preset.options["videos"]
        for plan in _PLANS
        for denoiser in _DENOISERS
    ]
    columns = ["repeat", "ar_step", "curve", "value", "stderr"]
    repeats = setting.table("accumulation-repeats", cells, lambda cell: _curves(preset, cell, setting), columns)

    def part(cell: Cell) -> pd.DataFrame:
        return repeats[(repeats[list(cell)] == pd.Series(dict(cell))).all(axis=1)]

    fits = [{"video": video, "plan": plan} for video, plan in _linear_places(preset)]
    return {
        "accumulation": setting.table("accumulation", cells, lambda cell: _pooled(part(cell))),
        "accumulation-slopes": setting.table("accumulation-slopes", cells, lambda cell: _slopes(part(cell))),
        "linear": setting.table("linear", fits, lambda cell: _losses(preset, cell, setting)),
    }


Row = tuple[int, int, str, float, float]

# The place of a repeat in rows that are of everything at once.
_WHOLE = -1


def _curves(preset: Preset, cell: Cell, setting: Setting) -> Iterator[Row]:
    """All curves of a denoiser: predictions repeat by repeat, rollouts as a whole and in parts."""
    job, steps = _job(preset, cell["video"], cell["plan"]), preset.ar_steps
    video, plan, repeats = job.video, job.plan, preset.options["repeats"]
    linear = cell["denoiser"] == "linear"
    denoiser = _fitted(preset, job, setting.seed) if linear else train_job(job, setting)
    score = denoiser.as_score()
    if video.gaussian:
        for curve, known in (("exact score", None), ("closed form", score)):
            if known is None or linear:
                result = ledger(video, plan, steps, score=known, girsanov=False, memory=False)
                for k, value in enumerate(result.column("CLIP_KL"), 1):
                    yield _WHOLE, k, curve, value, 0.0
    for repeat in range(repeats):
        seed = setting.seed * repeats + repeat
        predicted = predicted_clip_kl(
            video, plan, steps, score, samples=preset.samples // repeats, groups=8, seed=seed
        )
        for row in predicted.table.itertuples():
            yield repeat, int(row.ar_step), str(row.form).removeprefix("moment_"), row.value, row.stderr  # type: ignore[arg-type, misc]
    made = setting.generate(score, plan, steps, preset.rollouts, video=video)
    yield from _measured(video, plan, steps, made, _WHOLE, setting.seed)
    for part, some in enumerate(made.chunk(preset.options["parts"])):
        yield from _measured(video, plan, steps, some, part, setting.seed + 1 + part)


def _measured(video: Video, plan: Plan, steps: int, made: Tensor, part: int, seed: int) -> Iterator[Row]:
    # A finite-state video's moments come from true videos, of which many cost little.
    found = measured_clip_kl(video, made, plan, steps, samples=16 * len(made), seed=seed)
    for row in found.table.itertuples():
        yield part, int(row.ar_step), "measured", float(row.value), float(row.stderr)  # type: ignore[arg-type]
    if not video.gaussian:
        for k in range(1, steps + 1):
            read = measured_kl(video, made, plan.clip_frames(k), plan.floor)
            yield part, k, "decoded", read.value, read.stderr


def _pooled(rows: pd.DataFrame) -> pd.DataFrame:
    """What is known of everything at once, else means over repeats with their standard errors pooled."""
    whole = set(rows[rows["repeat"] == _WHOLE].curve)
    kept = rows[(rows["repeat"] == _WHOLE) | ~rows.curve.isin(whole)]
    groups = kept.groupby(["curve", "ar_step"], sort=False)
    pooled = groups.value.mean().to_frame()
    pooled["stderr"] = groups.stderr.agg(lambda errors: math.sqrt(float((errors**2).sum())) / len(errors))
    return pooled.reset_index()


def _slopes(rows: pd.DataFrame) -> pd.DataFrame:
    """Growth of every curve up to where the linear prediction flattens; its error from the spread of repeats."""
    until = _flat_from(rows[rows.curve == "linear"].groupby("ar_step").value.mean().to_numpy())
    found = []
    for curve, part in rows[rows.ar_step <= until].groupby("curve", sort=False):
        repeated = part[part["repeat"] != _WHOLE]
        wide = (part if repeated.empty else repeated).pivot_table(
            index="ar_step", columns="repeat", values="value"
        )
        slopes = np.polyfit(wide.index.to_numpy(dtype=float), wide.to_numpy(), 1)[0]
        error = float(slopes.std(ddof=1) / math.sqrt(len(slopes))) if len(slopes) > 1 else 0.0
        found.append((curve, until, float(slopes.mean()), error))
    return pd.DataFrame(found, columns=["curve", "until", "slope", "stderr"])


def _flat_from(curve: np.ndarray) -> int:
    """The first AR step by which a curve has made nine tenths of its growth; all of them if it does not grow."""
    growth = curve - curve[0]
    if growth[-1] <= 0:
        return len(curve)
    # A line through fewer than three points would say nothing of how straight it is.
    return max(3, int(np.argmax(growth >= 0.9 * growth[-1])) + 1)


def linear_losses(video: GaussianVideo, plan: Plan, stages: int, score: Score) -> tuple[Tensor, Tensor]:
    """Expected losses of every reverse step, the optimum's and the excess of a linear denoiser over it, exact.

    A row a stage (the initialisation, then AR steps 1..``stages``) and reverse step: E(X - E[X | W, R])² and
    E(x̂ - E[X | W, R])², averaged over the window's entries. Both are moments of scores, as x̂ = (W + σ² s)/α:

        E(X - E[X | W, R])² = σ²/α² (1 - σ² E s*²),    E(x̂ - E[X | W, R])² = σ⁴/α² E(s - s*)².

    Raises:
        ValueError: if the denoiser is not affine.
    """
    best, excess = [], []
    for stage in plan.stages(stages):
        known = video.at(stage)
        law, own = known.window, known.affine_map(score)
        if own is None:
            raise ValueError("the expected loss is in closed form for an affine denoiser only")
        level = law.levels[:-1]
        variance, scale = law.per_entry(sigma2(level)), law.per_entry(alpha(level) ** 2)
        exact, error = law.root(law.score), law.root(own - law.score)
        optimum = variance / scale * (1 - variance * (exact**2).sum(-1))
        best.append(optimum.mean((-2, -1)))
        excess.append((variance**2 / scale * (error**2).sum(-1)).mean((-2, -1)))
    return torch.cat(best), torch.cat(excess)


def _losses(preset: Preset, cell: Cell, setting: Setting) -> pd.DataFrame:
    """A row each for the fitted and the trained one: mean losses, and the largest share of a reverse step."""
    job = _job(preset, cell["video"], cell["plan"], _LINEAR)
    video = job.video
    assert video.gaussian
    rows = []
    for how, denoiser in (
        ("least squares", _fitted(preset, job, setting.seed)),
        ("trained", train_job(job, setting)),
    ):
        best, excess = linear_losses(video, job.plan, job.training.ar_steps, denoiser.as_score())
        share = excess / best
        rows.append(
            (how, float(best.mean()), float(excess.mean()), float(excess.sum() / best.sum()), float(share.max()))
        )
    return pd.DataFrame(rows, columns=["fit", "optimum", "excess", "share", "largest_share"])


def headline(tables: dict[str, pd.DataFrame]) -> str:
    """How the prediction and the bound stand to the measurement, and what is left to train of the linear one."""
    table, keys = tables["accumulation"], ["video", "plan", "denoiser"]
    rows = []
    for names, part in table.groupby(keys, sort=False):
        value, error = (
            {curve: of.to_numpy() for curve, of in part.groupby("curve")[column]} for column in ("value", "stderr")
        )
        away = np.abs(value["linear"] - value["measured"]) / np.hypot(error["linear"], error["measured"])
        # The bound is on the law, and so on what is read; on moments of a law that is not Gaussian it is not.
        real = "decoded" if "decoded" in value else "measured"
        over = (value[real] - value["bound"]) / np.hypot(error[real], error["bound"])
        ratio = value["linear"] / value["measured"]
        rows.append((
            *names, value["exact score"][-1] if "exact score" in value else math.nan, value["linear"][-1],
            value["measured"][-1], error["measured"][-1], ratio[-1], ratio.min(), ratio.max(), away.max(),
            int(np.count_nonzero(away > 3)), int(np.count_nonzero(over > 3)),
        ))  # fmt: skip
    said = [
        "exact score", "predicted", "measured", "stderr", "ratio", "lowest", "highest", "max |z|", "|z| > 3",
        "above bound",
    ]  # fmt: skip
    shown = pd.DataFrame(rows, columns=[*keys, *said]).set_index(keys)
    slopes = tables["accumulation-slopes"]
    chosen = slopes[slopes.curve.isin(["bound", "linear", "measured"])]
    growth = chosen.pivot_table(index=[*keys, "until"], columns="curve", values=["slope", "stderr"], sort=False)
    number = "{:.4f}".format
    return (
        "clip KL, of the last AR step and over all of them (ratio predicted/measured):\n"
        f"{shown.to_string(float_format=number)}\n\n"
        f"growth an AR step, nats:\n{growth.to_string(float_format=number)}\n\n"
        "excess loss of linear denoisers, as a share of the optimum's loss:\n"
        f"{tables['linear'].to_string(index=False, float_format='{:.5f}'.format)}"
    )
