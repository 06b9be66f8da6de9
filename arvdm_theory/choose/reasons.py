"""Why a plan is recommended, in words with their numbers, and what an advice cannot see."""

from __future__ import annotations

import dataclasses
from typing import Any

import pandas as pd
import torch

from arvdm_theory.choose.candidates import Candidate, without_noise
from arvdm_theory.choose.comparison import TIE, Tried
from arvdm_theory.choose.frame_kl import ar_steps
from arvdm_theory.decomposition.question import Question
from arvdm_theory.diffusion.scores import as_score
from arvdm_theory.laws.gaussian import GaussianVideo
from arvdm_theory.plan.plan import Plan

__all__ = ["reasons_for", "what_is_unseen"]


def reasons_for(
    video: GaussianVideo,
    tried: Tried,
    sensitivity: pd.DataFrame,
    stability: dict[str, Any],
    frames: int,
    step: str,
) -> tuple[str, ...]:
    """What speaks for the best, each against the best candidate that differs from it in that alone."""
    costs, (best, *other) = tried.costs, tried.ranked()
    base = costs[best]
    found = [
        f"{best.name}: KL {base['kl']:.4g}, of the last clip {base['last_clip']:.4g} and memory bottleneck "
        f"{base['mb']:.3g} nats a frame"
    ]
    if trade := _noise_trade(video, best, tried.plans, frames, step):
        (noised_error, lost), (clean_error, clean_lost) = trade["noised"], trade["clean"]
        found.append(
            "noise on references: in the last AR step the reverse steps err by "
            f"{noised_error:.3g} nats a frame where they err by {clean_error:.3g} with clean ones, and the memory "
            f"bottleneck is {lost:.3g} in place of {clean_lost:.3g}: given noised frames the score is less steep, "
            "and less unlike from one component of a frame to another, so that few steps follow it better; the "
            "more steps, the less that pays"
        )
    alike = [each for each in other if each.shape == best.shape]
    held = without_noise(best.references)
    alternatives = {
        "frames at a time": [c for c in other if (c.chunks, c.references) == (best.chunks, best.references)],
        "chunks in flight": [c for c in other if (c.stride, c.references) == (best.stride, best.references)],
        "references": [c for c in alike if without_noise(c.references) != held],
        "noise on references": [c for c in alike if without_noise(c.references) == held],
    }
    for what, rivals in alternatives.items():
        if rivals:
            rival = min(rivals, key=lambda each: costs[each]["kl"])
            change, last = (costs[rival][name] - base[name] for name in ("kl", "last_clip"))
            share = f" ({change / base['kl']:+.1%})" if base["kl"] > 0 else ""
            found.append(
                f"{what}: the best other choice, {rival.name}, changes the KL by {change:+.3g}{share} and that "
                f"of the last clip by {last:+.2g} nats a frame"
            )
    for error, rows in sensitivity.groupby("error"):
        values = dict(zip(rows["name"], rows["kl"], strict=True))
        rival = min(values, key=values.__getitem__)
        if values[best.name] > (1 + TIE) * values[rival]:
            found.append(f"with a score error of {error:g} W another one is the best: {rival}")
            break
    else:
        if len(sensitivity):
            found.append(f"a score error of up to {sensitivity['error'].max():g} W does not change it")
    if stability["draws"]:
        found.append(
            f"of {stability['draws']} bootstraps over the clips {stability['stays']} choose it again among "
            f"{stability['contenders']} plans; at worst another would save {stability['loss_worst']:.1%} of its KL"
        )
        others = {name: times for name, times in stability["winners"].items() if name != best.name}
        if others:
            other_name, times = next(iter(others.items()))
            found.append(f"most often chosen in its place, {times} times: {other_name}")
    return tuple(found)


def _noise_trade(
    video: GaussianVideo, best: Candidate, plans: dict[Candidate, Plan], frames: int, step: str
) -> dict[str, tuple[float, float]]:
    """E_K and MB_K, in nats a frame, of the last AR step of the recommended plan and of its twin without noise."""
    if not best.references.noised:
        return {}
    clean = without_noise(best.references)
    twin = plans.get(dataclasses.replace(best, references=clean), plans[best])
    found = {}
    for name, plan in (("noised", plans[best]), ("clean", dataclasses.replace(twin, references=clean))):
        question = Question(video, plan, ar_steps(plan, frames), score=as_score(None, video), step=step).prepared()
        with torch.no_grad():
            law: Any = question.law(question.ar_steps)
            error = law.ar_step_error(law.kernel(question.score, question.reverse))
            found[name] = float(error) / plan.stride, float(law.memory_bottleneck()) / plan.stride
    return found


def what_is_unseen(video: GaussianVideo, plan: Plan, most: int) -> tuple[str, ...]:
    """What this advice cannot see."""
    notes = [
        "it rests on second moments: motion that is not Gaussian, and what is recognised and not copied, is no "
        "part of it",
        "the score is exact, or wrong by e W: what a network finds hard to learn (long references, few steps, "
        "chunks at different levels) does not count against a plan",
        "the cost counts evaluations of a frame; references cost what the network makes of them (column seen)",
    ]
    kept = getattr(video, "variance_kept", None)
    if kept is not None:
        notes.append(f"the fitted modes hold {kept:.0%} of the pixel variance; the rest is not part of the video")
    if most and len(plan.references.at(10_000)) == most:
        notes.append(f"no plan looks at more than {most} frames, and the recommended one does: more may do better")
    if caveat := video.caveat(plan):
        notes.append(caveat)
    return tuple(notes)
