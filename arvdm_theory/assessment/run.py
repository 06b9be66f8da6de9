"""An assessment from clips to its report."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from arvdm_theory.adapters.diffusers import plan_from_scheduler, step_from_config
from arvdm_theory.assessment.pages import report_of
from arvdm_theory.assessment.parts import AssessmentError, Parts
from arvdm_theory.diffusion.prediction import NetworkScore
from arvdm_theory.diffusion.scores import GuidedScore, HasScore, as_score
from arvdm_theory.diffusion.steps import reverse_step
from arvdm_theory.files import read_json, write_json
from arvdm_theory.laws.fitted import FittedVideo, load_fitted
from arvdm_theory.noise import NoiseSchedule
from arvdm_theory.plan.methods import outpainting
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.references import References
from arvdm_theory.provenance import provenance
from arvdm_theory.report.page import Report, write_report

__all__ = ["assess"]


def assess(
    clips: Sequence[ArrayLike],
    network: Any = None,
    plan: Plan | None = None,
    *,
    scheduler: Any = None,
    layout: str = "BCFHW",
    space: str = "pictures",
    steps: int = 20,
    window: int = 2,
    stride: int | None = None,
    references: int | References = 4,
    modes: int = 8,
    ar_steps: int = 6,
    step: str | None = None,
    samples: int = 512,
    seed: int = 0,
    budget: float = 600.0,
    out: str | Path = "assessment",
    names: Sequence[str] = (),
    command: str = "",
    progress: Callable[[str], None] = lambda _: None,
    without: Sequence[str] = (),
) -> Report:
    """What clips, a plan and a network face: memory, the ledger, drift, a better schedule, and what to change
    first.

    The clips become a Gaussian video (:func:`arvdm_theory.laws.fitting.fit_video`), and a network is asked about
    its pictures (:class:`arvdm_theory.laws.spanned.SpannedVideo`). Every number is of that video: of the
    second-order structure of the clips within ``modes`` modes. Parts are kept in ``out/parts`` and not computed
    twice for the same question.

    Args:
        clips: floating-point pixels in [-1, 1], (frames, height, width, channels), or latents.
        network: a score, whatever gives one, or, with a scheduler, a network as
            :meth:`~arvdm_theory.diffusion.prediction.NetworkScore.from_diffusers` takes it; None for what any
            network faces.
        plan: its levels are those of pictures, or of modes (see ``space``). Left out, it is made of the scheduler,
            or outpainting on cosine levels.
        scheduler: a diffusers scheduler or its config.
        layout: of a network's frames.
        space: ``pictures`` (of the clips), or ``modes`` for a network of the fitted modes themselves.
        steps: reverse steps of a plan that is made here.
        window: w of such a plan.
        stride: Δ; w if left out.
        references: its rule; a number means the last so many.
        modes: K of the fitted video.
        ar_steps: AR steps looked at.
        step: the reverse step; left out, the scheduler's where it has one here, else ``exponential``.
        samples: true windows that the network is asked about at every reverse step.
        seed: of all that is drawn.
        budget: seconds after which no further part is begun; what was left out is said.
        out: where ``report.html``, ``report.json`` and parts go.
        names: of the clips, for the report.
        command: that made it, for the report.
        progress: told what is being computed.
        without: parts to leave out: ``memory``, ``network``, ``ar-step-errors``, ``decay``, ``quality``,
            ``schedule``, ``context-noise``.

    Raises:
        AssessmentError: for clips of different size, a space that is neither, or a network whose loss on true
            frames is worse than the mean's.
        ValueError: as the parts raise.
    """
    pictures = _pictures(clips, names)
    if space not in ("pictures", "modes"):
        raise AssessmentError(f"the space of a network is pictures or modes, got {space!r}")
    chosen = _step(step, scheduler)
    if plan is None:
        plan = _plan(scheduler, steps, window, stride, references)
    settings = {
        "plan": repr(plan), "network": _name(network), "scheduler": _settings(scheduler), "layout": layout,
        "space": space, "modes": modes, "ar_steps": ar_steps, "step": chosen, "samples": samples, "seed": seed,
    }  # fmt: skip
    folder = Path(out)
    parts = Parts(
        pictures,
        space == "pictures",
        folder,
        settings,
        modes,
        ar_steps,
        chosen,
        samples,
        seed,
        budget,
        progress,
        without,
    )
    video, fit = _fitted(parts)
    score = None if network is None else _score(network, scheduler, layout, space, video)
    found: dict[str, Any] = {"fit": fit}
    if score is not None:
        found["check"] = parts.part("check", lambda: parts.check(video, plan, score), optional=False)
    found["plan"] = parts.part("plan", lambda: parts.exact(video, plan), optional=False)
    found["memory"] = parts.part("memory", lambda: parts.memory(video, plan))
    if score is not None:
        found["network"] = parts.part("network", lambda: parts.network(video, plan, score))
        found["ar_step_errors"] = parts.part("ar-step-errors", lambda: parts.ar_step_errors(video, plan, score))
        found["decay"] = parts.part("decay", lambda: parts.decay(video, plan, score))
        found["quality"] = parts.part("quality", lambda: parts.quality(video, plan, score))
    found["schedule"] = parts.part("schedule", lambda: parts.schedule(video, plan))
    found["context_noise"] = parts.part("context-noise", lambda: parts.context_noise(video, plan))
    config = {key: value for key, value in settings.items() if key != "plan"} | {"clips": list(names)}
    report = report_of(
        found, video, plan, ar_steps, made=provenance(config, seed), command=command, skipped=parts.skipped,
        clips=pictures, network=network is not None, step=chosen, ledger_step=parts.ledger_step,
    )  # fmt: skip
    write_report(report, folder)
    return report


def _pictures(clips: Sequence[ArrayLike], names: Sequence[str]) -> list[Any]:
    if len(clips) == 0:
        raise AssessmentError("there is no clip to assess")
    found = [np.asarray(clip, dtype=np.float64) for clip in clips]
    found = [clip[..., None] if clip.ndim == 3 else clip for clip in found]
    for i, clip in enumerate(found):
        said = names[i] if i < len(names) else f"clip {i + 1}"
        if clip.ndim != 4:
            raise AssessmentError(
                f"{said} is no video (frames, height, width, channels): its shape is {clip.shape}"
            )
        if clip.shape[1:] != found[0].shape[1:]:
            first = names[0] if names else "clip 1"
            raise AssessmentError(
                f"{said} has pictures of shape {clip.shape[1:]}, {first} of {found[0].shape[1:]}: bring them to "
                f"one size"
            )
    return found


def _step(step: str | None, scheduler: Any) -> str:
    if step is not None:
        return reverse_step(step).name
    if scheduler is None or isinstance(scheduler, NoiseSchedule):
        return "exponential"
    try:
        return step_from_config(scheduler)
    except ValueError:
        return "ddim"  # the Euler step of the same flow


def _plan(scheduler: Any, steps: int, window: int, stride: int | None, references: int | References) -> Plan:
    own = window if stride is None else stride
    if scheduler is not None and not isinstance(scheduler, NoiseSchedule):
        return plan_from_scheduler(scheduler, steps, window, own, references)
    if own != window:
        raise AssessmentError("without a plan or a scheduler frames go together: the stride is the window")
    rule = References.last(references) if isinstance(references, int) else references
    return outpainting(window, rule, steps, steps, 8.0, spacing="cosine")


def _fitted(parts: Parts) -> tuple[FittedVideo, dict[str, Any]]:
    """The fitted video, from disk if it is of the same clips."""
    path, report = parts.folder / "parts" / "fitted.npz", parts.folder / "parts" / "fit.json"
    if path.is_file() and report.is_file():
        kept = read_json(report)
        if kept.get("digest") == parts.digest:
            return load_fitted(path), dict(kept["values"])
    video, found = parts.fitted()
    path.parent.mkdir(parents=True, exist_ok=True)
    video.save(path)
    values = {**found.as_dict(), "modes": video.frame_dim, "order": video.order, "scale": video.scale}
    write_json(report, {"digest": parts.digest, "values": values})
    return video, dict(read_json(report)["values"])


def _score(network: Any, scheduler: Any, layout: str, space: str, video: FittedVideo) -> Any:
    """The network as a score of pictures, or of the fitted modes."""
    own = network
    scores = isinstance(network, NetworkScore | GuidedScore | HasScore)
    if not scores and scheduler is not None:
        shape = video.mean_picture.shape if space == "pictures" else (1, 1, video.frame_dim)
        if layout == "BFD":
            own = NetworkScore.from_diffusers(network, scheduler, layout)
        else:
            own = NetworkScore.from_diffusers(network, scheduler, layout, frame_shape=shape)
    return as_score(own, None, affine=False)


def _name(network: Any) -> str | None:
    """What a network is called, and a digest of its weights where it has some."""
    if network is None:
        return None
    import hashlib

    import torch

    inner = getattr(getattr(network, "base", network), "network", network)
    model = getattr(inner, "model", getattr(inner, "generator", inner))
    held = hashlib.sha256()
    if isinstance(model, torch.nn.Module):
        for name, value in model.state_dict().items():
            held.update(name.encode() + value.detach().cpu().contiguous().float().numpy().tobytes())
    own = getattr(model, "__qualname__", type(model).__name__)
    options = {
        key: str(getattr(network, key))
        for key in ("prediction", "clip", "threshold", "weight")
        if hasattr(network, key)
    }
    return f"{own} {options} {held.hexdigest()[:16]}"


def _settings(scheduler: Any) -> Any:
    if scheduler is None:
        return None
    if isinstance(scheduler, NoiseSchedule):
        return dataclasses.asdict(scheduler)
    config = (
        scheduler
        if isinstance(scheduler, Mapping)
        else {"_class_name": type(scheduler).__name__, **scheduler.config}
    )
    return json.loads(json.dumps(dict(config), default=str))
