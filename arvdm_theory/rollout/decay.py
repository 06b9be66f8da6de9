"""How the quality of a continued video decays, predicted from two AR steps, with an interval or a refusal.

The decay of AR step k is 10 log₁₀(MSE_k/MSE_first) dB: by how much PSNR has fallen since the first AR step after
the prompt, MSE_k being the mean squared error of the clip of step k against the true continuation. Two AR steps
are generated: one from true inputs, and one from the inputs that the first one left. Given its input an AR step
knows nothing of the truth, so that the rollout is a Markov chain beside it, and any model of one AR step can be
run in the sampler's place, by the same algorithm and from the same prompts, at no call of the network. Four
models:

- ``true inputs``: output = A input + b + noise, regressed on the first step (what linear response does);
- ``once-generated inputs``: the same, regressed on the second step: the loop's gain where it is used;
- ``nearest``: the recorded output of a recorded input near the one at hand (of both steps, analogues of Lorenz
  1969): it follows any bend, and never leaves what was seen;
- ``local``: the same, moved along the second regression by how far the two inputs are apart.

**The interval** reaches from the least of the four to the largest, and by two standard errors (a jackknife over
videos, of the second regression) beyond. No theorem makes it cover: it was chosen on networks of some videos and
held against networks of others, see the experiment ``decay``.

**It refuses** to answer (``predicted`` has NaN, ``notes["predicted"]`` says why) where

- a *test of linearity on once-generated inputs* fails: what the first regression misses there, in the mean, beyond
  chance, is more than a tenth of the output's variance;
- the rollout leaves what was seen: under a regression some direction of the inputs would vary by more than four
  times what the recorded ones do;
- the four are more than 3 dB apart.

Every later AR step is taken to be like the second one: with as many references, of a video that is stationary.

Sources: Efron and Stein 1981 (the jackknife); Lorenz 1969, Atmospheric predictability as revealed by naturally
occurring analogues.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.linalg import eigh
from scipy.spatial import cKDTree
from torch import Tensor

from arvdm_theory.decomposition.question import require_densities, sample_count
from arvdm_theory.decomposition.result import Result, rows_table
from arvdm_theory.diffusion.sampler import first_ar_step, reverse_stage, two_stages
from arvdm_theory.diffusion.scores import as_score
from arvdm_theory.diffusion.steps import ReverseStep, reverse_step
from arvdm_theory.information.gaussian import NotPositiveDefiniteError, cholesky
from arvdm_theory.interfaces import ReferenceBatch
from arvdm_theory.laws.law import VideoLaw
from arvdm_theory.noise import standard_normal
from arvdm_theory.number import Number
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.stage import Stage
from arvdm_theory.rollout.measure import true_frames

__all__ = ["MODELS", "measured_decay", "predicted_decay"]

MODELS = ("true inputs", "once-generated inputs", "nearest", "local")

_BENT = 0.1  # of the output's variance that the first regression may miss on once-generated inputs
_WIDER = 4.0  # times the variance of the recorded inputs that a rollout may reach
_APART = 3.0  # dB between the models
_NEIGHBOURS = 3
_GROUPS = 8

# A model of an AR step: inputs (n, p) and noise (n, w·d) → outputs (n, w·d).
_Model = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class _Record:
    """What went into an AR step and what came out, flat: (n, p) and (n, w·d)."""

    given: Tensor
    out: Tensor

    def rows(self, which: Tensor) -> _Record:
        return _Record(self.given[which], self.out[which])


@dataclass(frozen=True)
class _Affine:
    """output = A input + b + L noise."""

    slope: Tensor
    offset: Tensor
    root: Tensor

    @classmethod
    def of(cls, record: _Record) -> _Affine:
        n, p = record.given.shape
        middle, centre = record.given.mean(0), record.out.mean(0)
        white_root = cholesky(torch.cov(record.given.T).reshape(p, p), "covariance of the inputs of an AR step")
        white = torch.linalg.solve_triangular(white_root, (record.given - middle).T, upper=False).T
        # The default's last digits are those of chance (see training/least_squares.py).
        slope = torch.linalg.lstsq(white, record.out - centre, driver="gelsd").solution
        residual = record.out - centre - white @ slope
        root = _root(residual.T @ residual / (n - p - 1))
        raw = torch.linalg.solve_triangular(white_root.T, slope, upper=True)
        return cls(raw, centre - middle @ raw, root)

    def __call__(self, given: Tensor, noise: Tensor) -> Tensor:
        return given @ self.slope + self.offset + noise @ self.root.T


class _Nearest:
    """Recorded outputs of recorded inputs near the given ones; with a slope, moved along it."""

    def __init__(self, records: list[_Record], slope: Tensor | None, seed: int) -> None:
        self.given, self.out = (torch.cat([getattr(r, name) for r in records]) for name in ("given", "out"))
        p = self.given.shape[1]
        root = cholesky(torch.cov(self.given.T).reshape(p, p), "covariance of the inputs of an AR step")
        self.white = torch.linalg.inv(root).T
        self.tree, self.slope = cKDTree((self.given @ self.white).numpy()), slope
        self.rng = np.random.default_rng(seed)

    def __call__(self, given: Tensor, noise: Tensor) -> Tensor:
        near = np.asarray(self.tree.query((given @ self.white).numpy(), k=_NEIGHBOURS)[1])
        pick = near[np.arange(len(given)), self.rng.integers(_NEIGHBOURS, size=len(given))]
        out = self.out[pick]
        return out if self.slope is None else out + (given - self.given[pick]) @ self.slope


def predicted_decay(
    videos: VideoLaw | Tensor,
    plan: Plan,
    ar_steps: int,
    score: Any,
    *,
    prompt: int,
    step: str | ReverseStep = "exponential",
    samples: int = 2000,
    components: int | None = None,
    seed: int = 0,
) -> Result:
    """The decay of every AR step after the prompt, with an interval, or a refusal; see the module.

    Args:
        videos: a law to draw from, or true clean videos (n, F, d) of a data set, as long as the rollout; the first
            ``samples`` of them are used. Videos of one mode, without actions.
        plan: the plan.
        ar_steps: K, the last AR step.
        score: the network's; see :mod:`arvdm_theory.diffusion.scores`.
        prompt: true frames that are given; as many as all references of the first AR step after them.
        step: the reverse step; not ``ancestral``.
        samples: videos, of which every one is continued by two AR steps.
        components: q, principal components of true frames that the models see; None: the frames themselves. The
            error outside is taken to stay what it is in the second AR step.
        seed: of all that is drawn.

    Returns:
        DECAY rows in dB, a row per (``ar_step``, ``form``): the four models, and ``predicted``, the middle of the
        interval ``ci_low`` to ``ci_high``, with NaN where it refuses. ``totals``: ``bend``, what the test of
        linearity found, and ``reach``, the largest ratio of variances.

    Raises:
        ValueError: for several modes, actions, too few AR steps, videos or frames, a prompt that does not fit the
            plan or leaves references open, and as the sampler.
        NotPositiveDefiniteError: if what the network is shown has a singular law.

    Example:
        >>> from arvdm_theory import References, ar1, outpainting
        >>> plan = outpainting(2, References.last(1), 5, 5)
        >>> found = predicted_decay(ar1(0.9), plan, 6, lambda w, t, r: -w, prompt=2, samples=500)
        >>> found.column("DECAY", "predicted")[0], found.notes
        (0.0, {})
    """
    own, chosen = as_score(score, None if isinstance(videos, Tensor) else videos, affine=False), reverse_step(step)
    first = first_ar_step(plan, prompt)
    if ar_steps < first + 2:
        raise ValueError(
            f"AR step {first} follows the {prompt} given frames and AR step {first + 1} is measured: the last "
            f"one to predict is at least {first + 2}, got {ar_steps}"
        )
    counts = {len(plan.references_at(k)) for k in range(first, ar_steps + 1)}
    if len(counts) > 1:
        raise ValueError(
            f"AR steps {first} to {ar_steps} have {min(counts)} to {max(counts)} references: give a longer "
            "prompt, so that all have as many"
        )
    generator = torch.Generator().manual_seed(seed)
    truth = _truth(videos, plan, ar_steps, sample_count(samples), generator)
    basis = None if components is None else _basis(truth[:, :prompt], components)
    with torch.no_grad():
        records, made = _two_steps(truth[:, :prompt], plan, first, own, chosen, basis, generator)
        clips = [plan.clip_frames(k) for k in range(first, ar_steps + 1)]
        seen = truth if basis is None else truth @ basis
        outside = _outside(truth, made, basis, clips)
        return _concluded(seen, records, plan, prompt, (first, ar_steps), outside, seed)


def _concluded(
    seen: Tensor,
    records: list[_Record],
    plan: Plan,
    prompt: int,
    steps: tuple[int, int],
    outside: Tensor,
    seed: int,
) -> Result:
    n, p = records[0].given.shape
    if n - n // _GROUPS < 2 * (p + 1):
        raise ValueError(
            f"regressing on {p} numbers needs {3 * (p + 1)} videos or more, got {n}: see ``components``"
        )
    before, once = (_Affine.of(record) for record in records)

    def decay(models: tuple[_Model, _Model], rows: Tensor) -> tuple[Tensor, list[Tensor]]:
        mse, given = _rollout(models, seen, rows, plan, prompt, steps, seed)
        total = mse + outside
        return 10 * torch.log10(total / total[0]), given

    models: dict[str, tuple[_Model, _Model]] = {
        "true inputs": (before, before), "once-generated inputs": (before, once),
    }  # fmt: skip
    for name, slope in (("nearest", None), ("local", once.slope)):
        model = _Nearest(records, slope, seed)
        models[name] = (model, model)
    everything = torch.arange(n)
    found = {name: decay(pair, everything) for name, pair in models.items()}
    left_out = []
    for parts in _without_each(everything):
        rest = torch.cat(parts)
        first, second = (_Affine.of(record.rows(rest)) for record in records)
        left_out.append(decay((first, second), rest)[0])
    error = torch.sqrt((_GROUPS - 1) * torch.stack(left_out).var(0, correction=0))
    curves = torch.stack([found[name][0] for name in MODELS])
    low, high = curves.min(0).values - 2 * error, curves.max(0).values + 2 * error
    bend = _bend(before, once, records[1])
    reach = max(_reach(given, records) for name in MODELS[:2] for given in found[name][1][1:])
    why = _refusal(bend, reach, float((curves.max(0).values - curves.min(0).values).max()))
    rows = []
    for i, k in enumerate(range(steps[0], steps[1] + 1)):
        for name, curve in zip(MODELS, curves, strict=True):
            number = Number.stated(float(curve[i]), float(error[i]), method=name, n=n)
            rows.append(("ar", k, "DECAY", name, number))
        ends = (float("nan"),) * 3 if why else tuple(map(float, ((low[i] + high[i]) / 2, low[i], high[i])))
        middle = Number.stated(ends[0], float(error[i]), ends[1], ends[2], method="predicted", n=n)
        rows.append(("ar", k, "DECAY", "predicted", middle))
    return Result(
        "prediction", rows_table(rows), {"bend": bend, "reach": reach}, notes={"predicted": why} if why else {}
    )


def measured_decay(videos: Tensor, made: Tensor, plan: Plan, ar_steps: int, *, prompt: int) -> Result:
    """The decay of rollouts that were generated from true prompts: what a prediction is held against.

    Args:
        videos: the true videos, (n, F, d).
        made: what was generated from the first ``prompt`` frames of each, (n, F', d).
        plan: the plan.
        ar_steps: K, the last AR step.
        prompt: the given frames.

    Returns:
        DECAY rows of the form ``measured``, in dB, with the standard error of a jackknife over groups of videos.

    Raises:
        ValueError: for shapes that do not fit, or fewer than two AR steps after the prompt.
    """
    first, frames = first_ar_step(plan, prompt), plan.clean_frames(ar_steps)
    if min(videos.shape[1], made.shape[1]) < frames or len(videos) != len(made) or ar_steps < first + 1:
        raise ValueError(
            f"{frames} frames of as many true as generated videos, and two AR steps or more, are needed, got "
            f"shapes {tuple(videos.shape)} and {tuple(made.shape)} and AR steps {first} to {ar_steps}"
        )
    square = (made[:, :frames] - videos[:, :frames]).to(torch.float64).square().mean(-1)
    each = torch.stack([square[:, plan.clip_frames(k)].mean(1) for k in range(first, ar_steps + 1)], 1)
    rest = torch.stack([torch.cat([*parts]).mean(0) for parts in _without_each(each)])
    decay, others = (10 * torch.log10(mse / mse[..., :1]) for mse in (each.mean(0), rest))
    error = torch.sqrt((_GROUPS - 1) * others.var(0, correction=0))
    rows = [
        ("ar", first + i, "DECAY", "measured", Number.stated(float(v), float(e), method="measured", n=len(videos)))
        for i, (v, e) in enumerate(zip(decay, error, strict=True))
    ]
    return Result("measurement", rows_table(rows))


def _without_each(values: Tensor) -> list[list[Tensor]]:
    parts = list(torch.tensor_split(values, _GROUPS))
    return [parts[:i] + parts[i + 1 :] for i in range(_GROUPS)]


def _truth(videos: VideoLaw | Tensor, plan: Plan, last: int, samples: int, generator: torch.Generator) -> Tensor:
    frames = plan.total_frames(last)
    if isinstance(videos, Tensor):
        return true_frames(videos[:samples], frames, samples, generator)
    if videos.modes != 1 or videos.action_dim:
        raise ValueError(
            f"a decay is predicted for videos of one mode without actions, got {videos.modes} modes and actions "
            f"of {videos.action_dim} entries"
        )
    videos.require(frames)
    require_densities(videos, plan)
    return true_frames(videos, frames, samples, generator)


def _two_steps(
    prompt: Tensor,
    plan: Plan,
    first: int,
    score: Any,
    step: ReverseStep,
    basis: Tensor | None,
    generator: torch.Generator,
) -> tuple[list[_Record], Tensor]:
    """The AR step from true inputs and the one after it, and the frames that they made."""
    n, _, dim = prompt.shape
    records: list[_Record] = []

    def noise(count: int) -> Tensor:
        return standard_normal((n, 1, count, dim), generator).to(prompt)

    def seen(frames: Tensor) -> Tensor:
        return (frames if basis is None else frames @ basis).flatten(1)

    def denoise(stage: Stage, window: Tensor, references: Tensor) -> Tensor:
        shown = ReferenceBatch.shown(
            references[:, 0], stage.reference_levels.to(prompt.device), stage.reference_frames, tuple(stage.frames)
        )
        out = reverse_stage(stage, score, step, window, shown, noise)
        entered = torch.cat([seen(window[:, 0, : stage.kept]), seen(references[:, 0])], 1)
        records.append(_Record(entered, seen(out[:, 0])))
        return out

    made = two_stages(plan, first + 1, noise, denoise, prompt.unsqueeze(1))
    return records, made[:, 0]


def _rollout(
    models: tuple[_Model, _Model],
    seen: Tensor,
    rows: Tensor,
    plan: Plan,
    prompt: int,
    steps: tuple[int, int],
    seed: int,
) -> tuple[Tensor, list[Tensor]]:
    """A rollout with models in the sampler's place, the first in the first AR step: MSE a clip, inputs a step.

    Noise is drawn for all videos, so that it is the same for those of any ``rows``.
    """
    start, dim = seen[rows], seen.shape[-1]
    generator, given = torch.Generator().manual_seed(seed), []

    def noise(count: int) -> Tensor:
        return standard_normal((len(seen), 1, count, dim), generator)[rows].to(seen)

    def denoise(stage: Stage, window: Tensor, references: Tensor) -> Tensor:
        entered = torch.cat([window[:, 0, : stage.kept].flatten(1), references[:, 0].flatten(1)], 1)
        given.append(entered)
        model = models[stage.ar_step > steps[0]]
        return model(entered, noise(stage.window).flatten(1)).reshape(-1, 1, stage.window, dim)

    made = two_stages(plan, steps[1], noise, denoise, start[:, None, :prompt])[:, 0]
    clips = [plan.clip_frames(k) for k in range(steps[0], steps[1] + 1)]
    error = (made - start[:, : made.shape[1]]).square()
    return torch.stack([error[:, clip].sum(-1).mean() for clip in clips]), given


def _outside(truth: Tensor, made: Tensor, basis: Tensor | None, clips: list[range]) -> Tensor:
    """Squared error outside the components, summed over a frame's entries, of every AR step."""
    if basis is None:
        return torch.zeros(len(clips), dtype=torch.float64)
    error = made - truth[:, : made.shape[1]]
    left = (error - error @ basis @ basis.T).square().sum(-1)
    two = [left[:, clip].mean() for clip in clips[:2]]
    return torch.stack([two[0], *(two[1],) * (len(clips) - 1)])


def _basis(frames: Tensor, components: int) -> Tensor:
    rows = frames.flatten(0, 1)
    most = min(rows.shape[1], len(rows) - 1)
    if not 1 <= components <= most:
        raise ValueError(f"frames of {rows.shape[1]} entries have 1 to {most} components, got {components}")
    basis: Tensor = torch.linalg.svd(rows - rows.mean(0), full_matrices=False).Vh[:components].T
    return basis


def _root(covariance: Tensor) -> Tensor:
    """A root of a covariance that may be singular: an output that an AR step leaves alone has no residual."""
    values, vectors = torch.linalg.eigh((covariance + covariance.T) / 2)
    root: Tensor = vectors * values.clamp(min=0).sqrt()
    return root


def _bend(before: _Affine, once: _Affine, record: _Record) -> float:
    """What the first regression misses on once-generated inputs, over the variance of the output, less what is
    chance.

    Both are regressions of n samples on p + 1 numbers: their means differ by 2 (p + 1)/n of the noise's variance,
    by chance (the first one's inputs have another law, so this is rough, and small where n is large).
    """
    n, p = record.given.shape
    gap = record.given @ (once.slope - before.slope) + once.offset - before.offset
    chance = 2 * (p + 1) / n * once.root.square().sum()
    return float((gap.square().sum(1).mean() - chance) / record.out.var(0).sum())


def _reach(given: Tensor, records: list[_Record]) -> float:
    """The largest ratio of second moments about the recorded mean, over directions of the input."""
    pooled = torch.cat([record.given for record in records])
    middle = pooled.mean(0)
    moments = [((part - middle).T @ (part - middle) / len(part)).numpy() for part in (given, pooled)]
    if not all(np.isfinite(moment).all() for moment in moments):
        return float("inf")
    try:
        return float(eigh(*moments, eigvals_only=True)[-1])
    except np.linalg.LinAlgError:
        raise NotPositiveDefiniteError("the inputs of an AR step have a singular covariance") from None


def _refusal(bend: float, reach: float, apart: float) -> str:
    if not bend <= _BENT:
        return (
            "the network is not linear enough on its own output: what a regression on true inputs misses there "
            f"is {bend:.0%} of the output's variance, more than {_BENT:.0%}"
        )
    if not reach <= _WIDER:
        return (
            f"the rollout leaves what was seen: along some direction its inputs would vary {reach:.3g} times as "
            f"much as those that the network was shown, more than {_WIDER:g}"
        )
    if not apart <= _APART:
        return f"models of the AR step that fit as well differ by {apart:.1f} dB, more than {_APART:g}"
    return ""
