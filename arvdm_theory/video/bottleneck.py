"""The memory bottleneck of real clips, three ways: what do m references leave open that older frames know?

In the clips' leading principal components, one frame ahead, in nats:

- **second order**: the fitted Gaussian video, I(X_t^s; older | last m) in closed form, with the error of a
  jackknife over clips. It sees linear dependence at any fixed lag, and nothing that returns at no fixed lag.
- **revisits**: from the clips alone, no law assumed. Of the frames older than the references the one most like the
  newest reference is looked up, and what followed it then is held against what the references predict now: a
  nearest-neighbour estimate of I(innovation; what followed then - prediction | newest reference), each in a few
  modes, less the same with the frame looked up in another clip. That null keeps the condition and breaks nothing
  but the clip's own memory; over random assignments of clips it gives the p-value. It sees returns to a view at
  any lag, and is blind to what else older frames know; since it conditions on the newest reference and on linear
  predictions alone, it is no bound on either side.
- **networks**: two small networks, one shown the last m frames and one the last M, by I-MMSE on clips that neither
  was trained on (:func:`arvdm_theory.decomposition.immse.memory_bottleneck_from_scores`). Each denoises what the
  linear prediction g(R) from its references leaves (W - α g(R) is the noised X - g(R), and the score the same),
  and is mixed with the score of the fitted Gaussian by a weight that is chosen on clips left out of both. So
  second order is given to them and they see whatever they learn beyond; excess losses still count.

The first and the third are of frames at level s, which is finite for every law and where networks are not yet all
error; the first is given at level 0 as well. Intervals are clustered by clip, Student's with as many degrees of
freedom as clips less one. Clips that show the same are one.

Sources: arXiv 2503.10704, Theorem 2 (the bottleneck); Frenzel and Pompe 2007 (conditional information by nearest
neighbours); Guo, Shamai and Verdú 2005 (I-MMSE).
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from arvdm_theory.decomposition.immse import memory_bottleneck_along_clocks, memory_bottleneck_from_scores
from arvdm_theory.diffusion.scores import ExactScore
from arvdm_theory.information.estimators import EstimationWarning, ksg_contributions
from arvdm_theory.interfaces import ReferenceBatch
from arvdm_theory.laws.autoregression import extend
from arvdm_theory.laws.fitted import FitError, FittedVideo
from arvdm_theory.laws.fitting import FitReport, fit_video
from arvdm_theory.laws.gaussian import StationaryVideo
from arvdm_theory.laws.same_clips import same_clips
from arvdm_theory.laws.selection import model
from arvdm_theory.networks.config import DenoiserConfig
from arvdm_theory.noise import alpha, sigma2
from arvdm_theory.number import Number, half_width
from arvdm_theory.plan.methods import outpainting
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.references import References
from arvdm_theory.training.config import TrainingConfig
from arvdm_theory.training.loop import train
from arvdm_theory.training.sources import dataset_source

__all__ = ["SEES", "ClipBottleneck", "NetworkSettings", "clip_bottleneck"]

Array = NDArray[np.float64]

SEES = {
    "second order": "linear dependence at fixed lags; nothing that returns at no fixed lag",
    "revisits": "what followed the older frame most like the newest reference, in a few modes; nothing else",
    "networks": "what small networks learn from other clips; their excess losses count",
}
"""What each route sees."""

# Of the innovation, the condition and what was looked up: more dimensions than that and neighbours are far.
_LEADING = 3
_FEWEST = 8
# A frame that is looked up is older than the references by as much (Theiler 1986): else the clip's own is most
# often their neighbour in time, which is like them for what they hold already, and no frame of another clip is.
_GAP = 16
_NEIGHBOURS = 5
# Networks and the Gaussian are mixed by their losses on this share of the clips, at so many levels.
_VALIDATED = 0.3
_LEVELS, _HIGHEST = 8, 4.0
_SURE = 0.05


@dataclass(frozen=True)
class NetworkSettings:
    """How the small networks are trained.

    Attributes:
        steps: updates.
        width: of the perceptron's layers.
        depth: residual blocks.
        folds: the clips are cut into so many parts, each left out in turn.
        weight_decay: of AdamW.
    """

    steps: int = 300
    width: int = 64
    depth: int = 2
    folds: int = 2
    weight_decay: float = 0.1


@dataclass(frozen=True)
class ClipBottleneck:
    """The table, and what it was made of.

    Attributes:
        table: a row per (``references``, ``route``, ``level``): ``value`` in nats a frame, ``stderr``, ``ci_low``,
            ``ci_high``, ``clips`` behind it, ``memory`` (how far back, in frames; 0: all of the clip), ``p_value``
            of the null of the revisits, and ``notes``.
        video: the fitted Gaussian video.
        report: of the fit.
        words: in plain words, what is found and where the routes disagree.
    """

    table: pd.DataFrame
    video: FittedVideo
    report: FitReport
    words: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The table as rows, and the words."""
        rows = self.table.astype(object).where(self.table.notna(), None).to_dict("records")
        return {"rows": rows, "words": list(self.words), "sees": SEES}


def clip_bottleneck(
    clips: Sequence[ArrayLike],
    references: Sequence[int] = (1, 2, 4, 8),
    *,
    modes: int = 8,
    memory: int = 16,
    stop: float = 0.1,
    networks: NetworkSettings | None = NetworkSettings(),
    nulls: int = 39,
    seed: int = 0,
    progress: bool = False,
) -> ClipBottleneck:
    """The memory bottleneck of clips against the number of references, by three routes; see the module.

    Args:
        clips: floating-point pixels (frames, height, width[, channels]), at least four that show different things.
        references: m, each below ``memory``.
        modes: K.
        memory: M, how far back the second order and the networks look.
        stop: s, the level of the frame that is asked about, in the modes' scale of average variance 1.
        networks: how they are trained; None leaves them out.
        nulls: assignments of clips to clips; the smallest p-value is 1/(nulls + 1).
        seed: of null and networks.
        progress: whether to show a progress bar.

    Raises:
        FitError: if there are fewer than four different clips, a clip is too short for the memory, or as
            :func:`arvdm_theory.laws.fitting.fit_video`.
        ValueError: for references outside 1..M - 1, or another argument out of range.
    """
    counts = sorted(set(references))
    if not counts or not 1 <= counts[0] <= counts[-1] < memory:
        raise ValueError(f"references must lie from 1 to {memory - 1} (below the memory), got {list(references)}")
    if nulls < 1:
        raise ValueError(f"at least one assignment of clips is needed for a null, got {nulls}")
    if not 0 < stop < 6:
        raise ValueError(f"the level of the frame must lie between 0 and 6, got {stop}")
    video, report = fit_video(clips, modes, held_out=0, memory=None)
    names = np.array(same_clips(clips))
    coded = [video.encode(clip) for clip in clips]
    if len(set(names.tolist())) < 4:
        raise FitError(f"an error over clips needs at least 4 different ones, got {len(set(names.tolist()))}")
    fewest = max(memory, counts[-1] + _GAP) + 2 * _FEWEST
    short = [i + 1 for i, code in enumerate(coded) if len(code) < fewest]
    if short:
        raise FitError(f"clip {short[0]} has fewer than {fewest} frames, which a memory of {memory} needs")
    plans = {m: outpainting(1, References.last(m), 16, 16) for m in (*counts, memory)}
    routes = 2 if networks is None else 3
    rows: list[dict[str, Any]] = []
    with tqdm(
        total=routes * len(counts), desc="bottleneck", disable=None if progress else True, leave=False
    ) as bar:
        jackknife = _jackknife(video, report, coded, names)
        for m in counts:
            rows += _second_order(video, jackknife, plans[m], m, plans[memory], memory, stop)
            bar.update()
        for m in counts:
            rows.append(_revisits(video, coded, names, m, nulls, seed))
            bar.update()
        if networks is not None:
            rows += _by_networks(video, report, coded, names, plans, memory, stop, networks, seed, bar)
    rows.sort(key=lambda row: (row["references"], list(SEES).index(row["route"]), row["level"]))
    return ClipBottleneck(pd.DataFrame(rows), video, report, tuple(_words(rows, report)))


# -- second order ------------------------------------------------------------------------------------------------


def _fitted(video: FittedVideo, report: FitReport, coded: Sequence[Array]) -> StationaryVideo:
    """The video fitted to other clips, in the same modes and with the same choices."""
    assert report.choice is not None
    gamma = model(coded, report.choice, np.diagonal(video.gamma[0]).copy())[0]
    return StationaryVideo(lambda lags: torch.from_numpy(extend(gamma, lags))[None], gamma.shape[-1])


def _jackknife(
    video: FittedVideo, report: FitReport, coded: Sequence[Array], names: Array
) -> list[StationaryVideo]:
    """The video fitted without each clip in turn."""
    return [
        _fitted(video, report, [code for code, own in zip(coded, names, strict=True) if own != name])
        for name in np.unique(names)
    ]


def _second_order(
    video: FittedVideo,
    jackknife: Sequence[StationaryVideo],
    plan: Plan,
    m: int,
    larger: Plan,
    memory: int,
    stop: float,
) -> list[dict[str, Any]]:
    rows = []
    for level in (0.0, stop):
        value, *left = (
            float(memory_bottleneck_along_clocks(law, plan, memory, stop=level, plan_with_past=larger))
            for law in (video, *jackknife)
        )
        count = len(left)
        error = float(np.sqrt((count - 1) / count * ((np.array(left) - np.mean(left)) ** 2).sum()))
        wide = half_width(error, count - 1)
        number = Number.stated(
            value, error, value - wide, value + wide, method="jackknife", n=count,
            warnings=[note for note in [video.caveat(plan)] if note],
        )  # fmt: skip
        rows.append(_row("second order", m, level, number, count, memory))
    return rows


def _row(
    route: str, m: int, level: float, number: Number, clips: int, memory: int, p: float = np.nan
) -> dict[str, Any]:
    return {
        "references": m, "route": route, "level": level, "value": float(number.value),
        "stderr": float(number.stderr), "ci_low": float(number.ci_low), "ci_high": float(number.ci_high),
        "clips": clips, "memory": memory, "p_value": p, "notes": "; ".join(number.warnings),
    }  # fmt: skip


# -- revisits ----------------------------------------------------------------------------------------------------


def _revisits(
    video: FittedVideo, coded: Sequence[Array], names: Array, m: int, nulls: int, seed: int
) -> dict[str, Any]:
    """The information in what followed the most similar older frame, less that in another clip's."""
    rng = np.random.default_rng((seed, m))
    gain = _predictor(video, m)
    d = min(_LEADING, video.frame_dim)
    labels, innovations, conditions, predictions, own = [], [], [], [], []
    for i, code in enumerate(coded):
        first = m + _GAP + _FEWEST
        stacked = np.stack([code[first - 1 - lag : len(code) - 1 - lag] for lag in range(m)], 1)
        predicted = stacked.reshape(len(stacked), -1) @ gain.T
        innovations.append((code[first:] - predicted)[:, :d])
        predictions.append(predicted[:, :d])
        conditions.append(code[first - 1 : -1, :d])
        own.append(_followers(code, code, m, first)[:, :d])
        labels += [names[i]] * len(predicted)
    x, y, p = (np.concatenate(parts) for parts in (innovations, conditions, predictions))
    scales = x.std(0), y.std(0)

    def contributions(followers: Sequence[Array]) -> Array:
        z = np.concatenate(list(followers)) - p
        return ksg_contributions(x / scales[0], z / z.std(0), y / scales[1], _NEIGHBOURS).contributions

    found = contributions(own)
    distinct = np.unique(names)
    null = np.zeros((nulls, len(found)))
    for r in range(nulls):
        shift = rng.permutation(len(distinct))
        partner = {distinct[shift[j]]: distinct[shift[(j + 1) % len(distinct)]] for j in range(len(distinct))}
        other = []
        for i, code in enumerate(coded):
            there = coded[rng.choice(np.flatnonzero(names == partner[names[i]]))]
            other.append(_followers(code, there, m, m + _GAP + _FEWEST)[:, :d])
        null[r] = contributions(other)
    number = Number.clustered(found - null.mean(0), labels, "nearest neighbours, less a null")
    p_value = float((1 + (null.mean(1) >= found.mean()).sum()) / (nulls + 1))
    return _row("revisits", m, 0.0, number, len(distinct), 0, p_value)


def _predictor(video: StationaryVideo, m: int) -> Array:
    """The matrix of E[z_t | z_{t-1}, ..., z_{t-m}], (K, m·K)."""
    K = video.frame_dim
    covariance = video.covariance(m + 1)[0].cpu().numpy()
    newest_first = np.arange(m * K).reshape(m, K)[::-1].ravel()
    known = covariance[np.ix_(newest_first, newest_first)]
    found: Array = np.linalg.solve(known, covariance[newest_first, m * K :]).T
    return found


def _followers(code: Array, there: Array, m: int, first: int) -> Array:
    """For each t ≥ ``first`` of a clip what followed the most similar of another's frames 0..t - m - 1 - gap.

    So what followed is older than the last m frames, and the other clip has as many frames to look among.
    """
    now = code[first - 1 : -1]
    square = (now**2).sum(1)[:, None] + (there[:-1] ** 2).sum(1) - 2 * now @ there[:-1].T
    limit = np.arange(first, len(code))[:, None] - m - 1 - _GAP
    last = np.minimum(limit, len(there) - 2)
    square = np.where(np.arange(len(there) - 1) <= last, square, np.inf)
    found: Array = there[square.argmin(1) + 1]
    return found


# -- networks ----------------------------------------------------------------------------------------------------


def _by_networks(
    video: FittedVideo,
    report: FitReport,
    coded: Sequence[Array],
    names: Array,
    plans: dict[int, Plan],
    memory: int,
    stop: float,
    settings: NetworkSettings,
    seed: int,
    bar: Any,
) -> list[dict[str, Any]]:
    counts = [m for m in plans if m != memory]
    distinct = np.unique(names)
    folds = np.array_split(np.random.default_rng(seed).permutation(len(distinct)), settings.folds)
    found: dict[int, list[Number]] = {m: [] for m in counts}
    weights: dict[int, list[str]] = {m: [] for m in counts}
    for fold, members in enumerate(folds):
        left = set(distinct[members].tolist())
        training = [code for code, name in zip(coded, names, strict=True) if name not in left]
        windows, labels = _windows(
            [pair for pair in zip(coded, names, strict=True) if pair[1] in left], memory + 1, 2
        )
        scores = {
            m: _scored(video, report, training, m, memory, stop, settings, seed + 1000 * fold + m) for m in plans
        }
        for m in counts:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", EstimationWarning)  # kept with the number
                number = memory_bottleneck_from_scores(
                    windows, plans[m], memory, scores[m], scores[memory], plan_with_past=plans[memory], stop=stop,
                    points=2, clusters=labels, seed=seed,
                )  # fmt: skip
            found[m].append(number)
            weights[m].append(f"{scores[m].weight:.2f} and {scores[memory].weight:.2f}")
            bar.update(1 / len(folds))
    rows = []
    for m, numbers in found.items():
        sizes = np.array([number.n for number in numbers], dtype=np.float64)
        share = sizes / sizes.sum()
        value = float(share @ np.array([float(number.value) for number in numbers]))
        error = float(np.hypot.reduce(share * np.array([float(number.stderr) for number in numbers])))
        wide = half_width(error, max(len(distinct) - len(folds), 1))
        said = [*dict.fromkeys(note for number in numbers for note in number.warnings)]
        said.append(f"weight of the networks, by fold: {'; '.join(weights[m])} ({m} and {memory} frames)")
        whole = Number.stated(
            value, error, value - wide, value + wide, method="immse", n=int(sizes.sum()), warnings=said
        )
        rows.append(_row("networks", m, stop, whole, len(distinct), memory))
    return rows


def _windows(clips: Sequence[tuple[Array, Any]], frames: int, every: int) -> tuple[torch.Tensor, list[Any]]:
    """Windows of so many frames, one after ``every`` frames, and the clip of each."""
    found, labels = [], []
    for code, name in clips:
        for start in range(0, len(code) - frames + 1, every):
            found.append(code[start : start + frames])
            labels.append(name)
    return torch.from_numpy(np.stack(found)), labels


def _scored(
    video: FittedVideo,
    report: FitReport,
    training: Sequence[Array],
    m: int,
    memory: int,
    stop: float,
    settings: NetworkSettings,
    seed: int,
) -> _Mixed:
    """A score of one frame given the last m: of a Gaussian and a network of the same clips, mixed on others."""
    order = np.random.default_rng(seed).permutation(len(training))
    kept = max(1, round(_VALIDATED * len(training)))
    inner, outer = ([training[i] for i in part] for part in (order[kept:], order[:kept]))
    law = _fitted(video, report, inner)
    network = _trained(law, inner, m, memory, settings, seed)
    exact = ExactScore(law)
    # Both losses are squared distances from y = -(W - α X)/σ²: least squares gives the weight.
    windows, _ = _windows([(code, 0) for code in outer], memory + 1, 1)
    frames = tuple(range(memory - m, memory))
    shown = ReferenceBatch(windows[:, list(frames)], torch.zeros(m, dtype=torch.float64), frames, (memory,))
    clean, generator = windows[:, memory:], torch.Generator().manual_seed(seed)
    apart = wanted = 0.0
    for level in torch.linspace(stop, _HIGHEST, _LEVELS, dtype=torch.float64):
        noise = torch.randn(clean.shape, generator=generator, dtype=torch.float64)
        noised = alpha(level) * clean + sigma2(level).sqrt() * noise
        base = exact(noised, level[None], shown)
        step = network(noised, level[None], shown) - base
        apart += float((step**2).sum())
        wanted += float((step * (-noise / sigma2(level).sqrt() - base)).sum())
    return _Mixed(exact, network, float(np.clip(wanted / apart, 0, 1)) if apart > 0 else 0.0)


@dataclass(frozen=True, eq=False)
class _Mixed:
    """(1 - λ) of one score and λ of another."""

    exact: Any
    network: Any
    weight: float

    def __call__(self, window: torch.Tensor, levels: torch.Tensor, references: ReferenceBatch) -> torch.Tensor:
        """See :class:`arvdm_theory.interfaces.Score`."""
        base: torch.Tensor = self.exact(window, levels, references)
        mixed: torch.Tensor = base + self.weight * (self.network(window, levels, references) - base)
        return mixed


def _trained(
    law: StationaryVideo, training: Sequence[Array], m: int, memory: int, settings: NetworkSettings, seed: int
) -> _Innovation:
    """A score of one frame given the last m, trained on windows of M + 1 frames.

    The network is shown references on the scale of what their linear prediction leaves.
    """
    windows, _ = _windows([(code, 0) for code in training], memory + 1, 1)
    gain = torch.from_numpy(_predictor(law, m))
    left = windows[:, -1] - _predicted(gain, windows[:, -1 - m : -1])
    scale = float(left.square().mean().sqrt())
    shown = torch.cat([scale * windows[:, :-1], left[:, None]], 1)
    config = DenoiserConfig(
        "mlp", (windows.shape[-1],), 1, m, data_scale=scale,
        options={"width": settings.width, "depth": settings.depth},
    )  # fmt: skip
    how = TrainingConfig(
        settings.steps, ar_steps=memory, first_ar_step=memory, init_share=0.0, levels="continuous",
        warmup=min(50, settings.steps // 2),
        weight_decay=settings.weight_decay, ema=0.99, device="cpu", seed=seed, log_every=settings.steps,
        checkpoint_every=settings.steps, tensorboard=False,
    )  # fmt: skip
    plan, source = outpainting(1, References.last(m), 16, 16), dataset_source(shown.float().numpy())
    with tempfile.TemporaryDirectory() as folder:
        network = train(config, plan, source, how, Path(folder) / "run", progress=False).denoiser
    return _Innovation(network.as_score(), gain, scale)


@dataclass(frozen=True, eq=False)
class _Innovation:
    """The score of a frame by a network of what its linear prediction leaves."""

    network: Any
    gain: torch.Tensor
    scale: float

    def __call__(self, window: torch.Tensor, levels: torch.Tensor, references: ReferenceBatch) -> torch.Tensor:
        """See :class:`arvdm_theory.interfaces.Score`; references oldest first."""
        predicted = alpha(levels)[:, None] * _predicted(self.gain, references.values)[:, None]
        shown = replace(references, values=self.scale * references.values)
        value: torch.Tensor = self.network(window - predicted, levels, shown)
        return value


def _predicted(gain: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
    """E[z | references] (batch, K) of references (batch, m, K), oldest first."""
    return references.flip(1).flatten(1).to(gain) @ gain.mT


# -- in words ----------------------------------------------------------------------------------------------------


def _words(rows: Sequence[dict[str, Any]], report: FitReport) -> list[str]:
    """What each route finds against references, and where intervals exclude one another."""
    words = []
    for m in dict.fromkeys(row["references"] for row in rows):
        own = {row["route"]: row for row in rows if row["references"] == m and _asked(row)}
        told = []
        for route, row in own.items():
            low, high = row["ci_low"], row["ci_high"]
            sure = "above 0" if low > 0 else "below 0: nothing seen" if high < 0 else "not told from 0"
            p = "" if np.isnan(row["p_value"]) else f", p = {row['p_value']:.3f}"
            told.append(f"{route} {row['value']:+.4f} ({low:+.4f} to {high:+.4f}{p}; {sure})")
        words.append(f"{m} references: " + ", ".join(told))
        linear, learnt = own["second order"], own.get("networks")
        if learnt is not None and linear["ci_low"] > learnt["ci_high"]:
            words.append(f"{m} references: networks find less than second order: on clips left out it holds less")
        if learnt is not None and learnt["ci_low"] > linear["ci_high"]:
            words.append(f"{m} references: networks find more than second order: memory that is not linear")
    returns = [r for r in rows if r["route"] == "revisits" and r["ci_low"] > 0 and r["p_value"] <= _SURE]
    if returns:
        listed = ", ".join(str(row["references"]) for row in returns)
        words.append(f"revisits tell something beyond {listed} references that frames of other clips do not")
    gained = report.memory()
    if gained is not None:
        error = "" if gained[1] is None else f" ± {gained[1]:.4f}"
        words.append(f"long memory of second order gains {gained[0]:+.4f}{error} nats a frame on clips left out")
    return words


def _asked(row: dict[str, Any]) -> bool:
    """Whether a row is of the level at which routes are compared."""
    return bool(row["level"] > 0) or row["route"] == "revisits"
