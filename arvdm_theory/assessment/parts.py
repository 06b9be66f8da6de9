"""What an assessment computes, part by part; every part is plain values, kept on disk and not computed twice."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from arvdm_theory.bounds.information_bottleneck import gaussian_memory_frontier
from arvdm_theory.choose.schedules import optimal_schedule, plan_floor
from arvdm_theory.decomposition.generated import generated_error
from arvdm_theory.decomposition.ledger import ledger, memory_bottleneck
from arvdm_theory.decomposition.result import Result
from arvdm_theory.diffusion.prediction import NetworkScore
from arvdm_theory.diffusion.sampler import first_ar_step
from arvdm_theory.diffusion.scores import checked_score
from arvdm_theory.diffusion.steps import reverse_step
from arvdm_theory.files import read_json, write_json
from arvdm_theory.information.gaussian import NotPositiveDefiniteError
from arvdm_theory.interfaces import ReferenceBatch
from arvdm_theory.laws.fitted import FittedVideo
from arvdm_theory.laws.fitting import FitReport, fit_video
from arvdm_theory.laws.gaussian import GaussianVideo
from arvdm_theory.laws.law import VideoLaw
from arvdm_theory.limits import LimitError
from arvdm_theory.noise import alpha, noised, sigma2, standard_normal
from arvdm_theory.number import Number
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.references import References
from arvdm_theory.provenance import source_digest
from arvdm_theory.report.page import read_numbers
from arvdm_theory.rollout.decay import predicted_decay
from arvdm_theory.rollout.predict import predicted_clip_kl

__all__ = ["AssessmentError", "Parts", "number_of"]

Array = NDArray[np.float64]

# How many last frames the memory curve tries, beside the plan's own number.
_CURVE = (1, 2, 4, 8, 16)
# Budgets of the compression curve, in nats.
_BUDGETS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
# The most groups of clips that are left out in turn.
_GROUPS = 6
# A network is worse than a constant at a level where its loss is above it by so many standard errors. It is
# refused where its loss is so many times the constant's, or where its x̂ is so many times worse than the best
# multiple of what it is shown while, read as another type, it is about as good or better.
_CLEAR = 4.0
_WORSE = 1.5
_LINEAR = 1.1
# The variance of each direction outside the modes where they hold all of the clips.
_HARDLY = 1e-6


class AssessmentError(ValueError):
    """Something that was given cannot be assessed; the message says what."""


def number_of(value: Mapping[str, Any] | None) -> Number | None:
    """The number that :func:`arvdm_theory.report.page.read_numbers` wrote."""
    if value is None or value.get("value") is None:
        return None
    return Number.stated(
        float(value["value"]), float(value["stderr"] or 0.0), float(value["ci_low"]), float(value["ci_high"]),
        method=str(value.get("method") or "exact"), n=0)  # fmt: skip


@dataclass
class Parts:
    """What is assessed, and what has been found so far.

    Attributes:
        clips: pixels (frames, height, width, channels) in [-1, 1].
        pictures: whether levels and network are those of pictures; else those of the fitted modes.
        folder: where parts are kept.
        settings: everything that the numbers depend on, as JSON values.
        modes: of the fitted video.
        ar_steps: K.
        step: the reverse step.
        samples: true windows a network is asked about.
        seed: of all that is drawn.
        budget: seconds after which no further part is begun.
        progress: called with what is being computed.
        without: parts that are left out.
        skipped: what was left out, with the reason.
    """

    clips: Sequence[Array]
    pictures: bool
    folder: Path
    settings: Mapping[str, Any]
    modes: int
    ar_steps: int
    step: str
    samples: int
    seed: int
    budget: float
    progress: Callable[[str], None] = lambda _: None
    without: Sequence[str] = ()
    skipped: list[str] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)

    # -- keeping ----------------------------------------------------------------------------------------

    @cached_property
    def digest(self) -> str:
        """Of all that the numbers depend on."""
        question = {**self.settings, "source": source_digest(__name__)}
        held = hashlib.sha256(json.dumps(question, sort_keys=True, default=str).encode())
        for clip in self.clips:
            held.update(repr(clip.shape).encode() + np.ascontiguousarray(clip).tobytes())
        return held.hexdigest()

    def part(
        self, name: str, compute: Callable[[], dict[str, Any]], optional: bool = True
    ) -> dict[str, Any] | None:
        """A part from disk, or computed and kept; None if the budget is spent or it cannot be had (with its
        reason)."""
        path = self.folder / "parts" / f"{name}.json"
        if path.is_file():
            kept = read_json(path)
            if kept.get("digest") == self.digest:
                return dict(kept["values"])
        if optional and name in self.without:
            self.skipped.append(f"{name}: as was asked for")
            return None
        if optional and time.monotonic() - self._began > self.budget:
            self.skipped.append(f"{name}: the budget of {self.budget:g} s was spent")
            return None
        self.progress(name)
        try:
            values = read_numbers(compute())
        except (LimitError, NotPositiveDefiniteError) as error:
            if not optional:
                raise
            self.skipped.append(f"{name}: {error}")
            return None
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"digest": self.digest, "values": values})
        return dict(values)

    # -- the clips ------------------------------------------------------------------------------------------

    def fitted(self) -> tuple[FittedVideo, FitReport]:
        """The Gaussian video of the clips and its scores on those held out."""
        self.progress("fit")
        return fit_video(self.clips, self.modes)

    def span(self, video: FittedVideo) -> GaussianVideo:
        """What the exact parts are about: the modes, at the levels of pictures or at their own."""
        return video.pixels(_any_noise(video)).span if self.pictures else video

    def seen(self, video: FittedVideo, score: Any) -> Any:
        """A network's score as one of :meth:`span`; of pictures with noise outside the span, drawn anew."""
        return video.pixels(_any_noise(video)).in_span(score, self.seed) if self.pictures else score

    def left_out(self, video: FittedVideo) -> list[GaussianVideo]:
        """The fits without each group of clips in turn; none of fewer than three clips."""
        groups = min(len(self.clips), _GROUPS)
        if groups < 3:
            return []
        parts = np.array_split(np.arange(len(self.clips)), groups)
        return [
            self.span(
                fit_video(
                    [clip for i, clip in enumerate(self.clips) if i not in part],
                    self.modes,
                    video.head,
                    0.0,
                    memory=len(video.tail) > 0,
                )[0]
            )
            for part in parts
        ]

    def memory(self, fitted: FittedVideo, plan: Plan) -> dict[str, Any]:
        """MB of the last AR step against how many last frames are seen, and against nats of memory."""
        video, others = self.span(fitted), self.left_out(fitted)
        own = plan.references.most
        counts = sorted({*_CURVE, *([own] if own else [])})
        counts = [r for r in counts if r <= plan.frames_out(self.ar_steps)]

        def bottleneck(of: GaussianVideo, references: References) -> float:
            return float(
                memory_bottleneck(
                    of, dataclasses.replace(plan, references=references, visible=None), self.ar_steps
                )
            )

        curve = []
        for r in [0, *counts]:
            rule = References.last(r) if r else References.none()
            value = bottleneck(video, rule)
            curve.append({"references": r, "mb": _jackknife(value, [bottleneck(each, rule) for each in others])})
        here = _jackknife(
            bottleneck(video, plan.references), [bottleneck(each, plan.references) for each in others]
        )
        return {"curve": curve, "own": here, "compression": self._compression(video, plan), "groups": len(others)}

    def _compression(self, video: GaussianVideo, plan: Plan) -> list[dict[str, float]]:
        """What is left of MB with R nats of memory of the past beside the input, at best; of references as they
        are."""
        k, dim = self.ar_steps, video.frame_dim
        known = [r.frame for r in plan.references_at(k)]
        past = [frame for frame in range(plan.frames_out(k)) if frame not in known]
        out = list(plan.clip_frames(k))
        noised_afresh = any(pick.level > plan.floor for pick in plan.references.picks)
        if not past or plan.overlapping or noised_afresh:
            return []
        floor = torch.tensor(plan.floor, dtype=torch.float64)
        clean = video.covariance(max(out) + 1)[0]
        covariance = torch.exp(-floor) * clean + sigma2(floor) * torch.eye(len(clean), dtype=torch.float64)

        def places(frames: Sequence[int]) -> list[int]:
            return [frame * dim + i for frame in frames for i in range(dim)]

        frontier = gaussian_memory_frontier(covariance, places(past), places(known), places(out))
        left = frontier.remaining(list(_BUDGETS)).tolist()
        return [{"nats": budget, "mb": value} for budget, value in zip(_BUDGETS, left, strict=True)]

    # -- the plan ----------------------------------------------------------------------------------------------

    @property
    def ledger_step(self) -> str:
        """The step of the ledger: the sampler's own, unless it has no noise and its trajectory KL is infinite."""
        own = reverse_step(self.step)
        silent = own.advance is not None or own.name in ("ddim", "ddim:0", "ddpm")
        return "exponential" if silent else self.step

    def exact(self, fitted: FittedVideo, plan: Plan) -> dict[str, Any]:
        """The ledger of the plan with the exact score: what any network of it faces."""
        video = self.span(fitted)
        found = ledger(
            video, plan, self.ar_steps, step=self.ledger_step, girsanov=False, accumulation=True, attribution=True
        )
        try:
            floor: float | None = plan_floor(video, plan, self.ar_steps)
        except ValueError:
            floor = None
        return {**_account(found), "floor": floor}

    def schedule(self, fitted: FittedVideo, plan: Plan) -> dict[str, Any]:
        """The best grid for this video, beside those chosen by hand."""
        video = self.span(fitted)
        found = optimal_schedule(video, plan, self.ar_steps, "kl", step=self.ledger_step, iterations=60)
        return {
            "value": found.value, "start": found.start, "floor": found.floor, "baselines": dict(found.baselines),
            "ar_levels": [list(row) for row in found.plan.ar_grid], "plan": found.plan.to_dict(),
        }  # fmt: skip

    def context_noise(self, fitted: FittedVideo, plan: Plan) -> dict[str, Any]:
        """KL, drift and MB with the references noised alike, beside leaving them as they are."""
        video = self.span(fitted)
        rows = []
        rule = plan.references
        for level in (0.0, *(level for level in (0.02, 0.1, 0.3, 1.0) if level > plan.floor)):
            picks = tuple(dataclasses.replace(pick, level=level) for pick in rule.picks)
            found = ledger(
                video, dataclasses.replace(plan, references=References(picks)), self.ar_steps,
                step=self.ledger_step, girsanov=False,
            )  # fmt: skip
            clips = found.column("CLIP_KL")
            rows.append({
                "level": level, "kl": found.totals["kl"], "first": clips[0], "last": clips[-1],
                "mb": found.column("MB")[-1],
            })  # fmt: skip
        return {"rows": rows}

    # -- the network -------------------------------------------------------------------------------------------

    def check(self, fitted: FittedVideo, plan: Plan, score: Any) -> dict[str, Any]:
        """The network's own loss on true frames at every level of an AR step, beside that of a constant output.

        The loss is that of its prediction type: of ε, x0, v or flow, whichever it says. A constant, which is what
        an untrained network gives, has the variance of the target.

        Raises:
            AssessmentError: if it is clearly worse than a constant, or clearly better read as another type.
        """
        video = self.span(fitted)
        stage = plan.stage(self.ar_steps)
        generator = torch.Generator().manual_seed(self.seed)
        frames = list(stage.frames)
        clean = video.draw(min(self.samples, 256), plan.total_frames(self.ar_steps), generator).frames.double()
        true = clean[:, frames]
        values = noised(clean[:, list(stage.reference_frames)], stage.reference_levels, noise=generator)
        shown = ReferenceBatch.shown(values, stage.reference_levels, stage.reference_frames, tuple(frames))
        noise = [standard_normal(true.shape, generator) for _ in range(stage.steps)]
        kind, others = _alternatives(score)

        def losses(own: Any, kind: str) -> tuple[list[tuple[Tensor, float]], float]:
            """The loss at every level, that of a constant; and the mean log of the loss over that of c W, c the
            best."""
            found, logs = [], []
            for m, fresh in enumerate(noise):
                level = stage.levels[m]
                a, v = alpha(level)[:, None], sigma2(level)[:, None]
                window = a * true + torch.sqrt(v) * fresh
                said = own(window, level, shown.seeing(stage.visible[m]))
                said = checked_score(said, window, stage.frames, level).double()
                clean = (window + v * said) / a
                guess, wanted = (
                    _target(kind, clean, -torch.sqrt(v) * said, a, v), _target(kind, true, fresh, a, v)
                )  # fmt: skip
                constant = float((wanted - wanted.mean((0, 1))).square().mean())
                found.append(((guess - wanted).square().mean((1, 2)), constant))
                linear = spread * v / (a**2 * spread + v)
                logs.append(float((clean - true).square().mean().log() - linear.mean().log()))
            return found, float(np.mean(logs))

        spread = true.square().mean()
        measured, own = losses(self.seen(fitted, score), kind)
        ratio = float(np.mean([float(loss.mean()) / constant for loss, constant in measured]))
        read = {other: losses(self.seen(fitted, changed), other)[1] for other, changed in others.items()}
        best = min(read, key=lambda other: read[other], default="")
        better = best != "" and read[best] < math.log(_LINEAR) and own > math.log(_WORSE)
        if ratio > _WORSE or better:
            hint = ""
            if better:
                hint = f"; read as {best!r} its error is {math.exp(own - read[best]):.3g} times smaller"
            raise AssessmentError(
                f"the network's loss on true frames is {ratio:.3g} times that of a constant output, as a network "
                f"that predicts {kind!r}{hint}: is its prediction type, its scheduler or the scale of its "
                "pictures another one?"
            )
        rows = [
            {"level": float(stage.levels[m].max()), "loss": Number(loss), "constant": constant,
             "worse": bool(float(loss.mean()) - constant > _CLEAR * float(loss.std() / math.sqrt(len(loss))))}
            for m, (loss, constant) in enumerate(measured)
        ]  # fmt: skip
        return {"rows": rows, "kind": kind, "ratio": ratio}

    def network(self, fitted: FittedVideo, plan: Plan, score: Any) -> dict[str, Any]:
        """The teacher-forced ledger of the network, of pictures over all their pixels."""
        video: VideoLaw = fitted.pixels(_any_noise(fitted)) if self.pictures else fitted
        found = ledger(
            video, plan, self.ar_steps, score=score, step=self.ledger_step, girsanov=False, teacher_forced=True,
            samples=self.samples, seed=self.seed,
        )  # fmt: skip
        return _account(found)

    def ar_step_errors(self, fitted: FittedVideo, plan: Plan, score: Any) -> dict[str, Any]:
        """E_k of the first and the last AR step, and IE, by one stage generated from true inputs."""
        video, score = self.span(fitted), self.seen(fitted, score)
        rows = []
        for k in sorted({0, 1, self.ar_steps}):
            found = generated_error(
                video, plan, k, score, step=self.step, samples=self.samples, seed=self.seed + k
            )
            rows.append({"ar_step": k, "error": found})
        return {"rows": rows}

    def decay(self, fitted: FittedVideo, plan: Plan, score: Any) -> dict[str, Any]:
        """The predicted KL of every AR step's clip, with its bound where the plan allows one."""
        video, score = self.span(fitted), self.seen(fitted, score)
        columns = (plan.window + (plan.references.most or plan.frames_out(self.ar_steps))) * video.frame_dim
        samples = max(self.samples, 4 * columns)
        found = predicted_clip_kl(
            video, plan, self.ar_steps, score, step=self.step,
            bound=self.step == self.ledger_step, samples=samples, seed=self.seed,
        )  # fmt: skip
        return {"rows": found.table.to_dict("records"), "notes": dict(found.notes), "samples": samples}

    def quality(self, fitted: FittedVideo, plan: Plan, score: Any) -> dict[str, Any]:
        """The decay of PSNR of continued videos, with an interval or a refusal, from two AR steps."""
        video, score = self.span(fitted), self.seen(fitted, score)
        found = None
        for j in range(self.ar_steps + 9):
            prompt = plan.init_frames + j * plan.stride
            first = first_ar_step(plan, prompt)
            last = first + max(self.ar_steps, 2)
            if len({len(plan.references_at(k)) for k in range(first, last + 1)}) == 1 and plan.references_at(
                first
            ):
                found = prompt, first, last
                break
        if found is None:
            return {"rows": [], "notes": {"predicted": "the plan's references are not as many at every AR step"}}
        prompt, first, last = found
        columns = (len(plan.references_at(first)) + plan.window) * video.frame_dim
        samples = max(self.samples, 8 * columns)
        result = predicted_decay(
            video, plan, last, score, prompt=prompt, step=self.step, samples=samples, seed=self.seed
        )
        return {
            "rows": result.table.to_dict("records"), "notes": dict(result.notes), "first": first, "prompt": prompt,
            "samples": samples,
        }  # fmt: skip


def _account(found: Result) -> dict[str, Any]:
    """Totals with their errors, terms by AR step, and notes."""
    totals = {
        name: None if value is None else _stated(value, found.stderr.get(name, 0.0))
        for name, value in found.totals.items()
    }
    return {"totals": totals, "rows": found.table.to_dict("records"), "notes": dict(found.notes)}


def _stated(value: float, stderr: float) -> Number:
    wide = 1.959964 * stderr
    return Number.stated(value, stderr, value - wide, value + wide, method="average" if stderr else "exact", n=0)


def _jackknife(value: float, others: Sequence[float]) -> Number:
    """A value with its standard error from the fits that leave a group of clips out."""
    if len(others) < 3:
        return _stated(value, math.nan)
    spread = np.array(others) - np.mean(others)
    return _stated(value, float(np.sqrt((len(others) - 1) / len(others) * (spread**2).sum())))


def _target(kind: str, clean: Tensor, noise: Tensor, a: Tensor, v: Tensor) -> Tensor:
    """What a network of that prediction type says of clean frames and their noise."""
    if kind == "x0":
        return clean
    if kind == "v":
        return a * noise - torch.sqrt(v) * clean
    return noise - clean if kind == "flow" else noise


def _alternatives(score: Any) -> tuple[str, dict[str, Any]]:
    """The network's prediction type, and the same network read as others, where it is one that says its type."""
    own = getattr(score, "base", score)
    if not isinstance(own, NetworkScore):
        return "epsilon", {}
    if getattr(own.network, "flow", False):
        return "flow", {}  # its output is x̂ already
    if own.prediction not in ("x0", "epsilon", "v") or getattr(own.network, "edm", None) is not None:
        return own.prediction, {}
    read = {kind: dataclasses.replace(own, prediction=kind) for kind in ("x0", "epsilon", "v")}
    del read[own.prediction]
    if own is score:
        return own.prediction, dict(read)
    return own.prediction, {kind: dataclasses.replace(score, base=other) for kind, other in read.items()}


def _any_noise(video: FittedVideo) -> float | None:
    """What stands for noise outside the span where the modes hold all of the clips: hardly any."""
    return None if video.residual_variance > 0 else _HARDLY
